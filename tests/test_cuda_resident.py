"""Many steps as one kernel: its products, what it computes, in which order, and when there is none."""

from __future__ import annotations

import itertools
from contextlib import suppress

import numpy as np
import pytest

import xpnet
from tests.cuda_emulator import COMPILER, Emulator, Kernels, ready
from tests.fake_cupy import FakeCupy, install
from xpnet.backend.cuda import backend, phases, resident, runtime, schedule
from xpnet.backend.cuda.backend import CudaBackend
from xpnet.losses import get_loss
from xpnet.training.examples import prepare
from xpnet.training.step import TrainingStep
from xpnet.training.update import Regularization

pytestmark = pytest.mark.skipif(
    COMPILER is None, reason="needs a C++ compiler to run the kernels' source: g++"
)

X = np.random.default_rng(1).integers(0, 256, (60, 9)).astype(np.uint8)
Y = np.random.default_rng(2).integers(0, 4, 60)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> Kernels:
    return Kernels(tmp_path_factory.mktemp("kernels"))


# --- products ---------------------------------------------------------------------------------------------
def _tf32(x):
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


@pytest.mark.parametrize(("dtype", "precision"), [("float32", None), ("float64", None), ("float32", "tf32")])
def test_products_by_tiles(kernels, dtype, precision):
    sizes = ((37, 50, 70), (64, 64, 64), (7, 5, 3), (130, 20, 129))
    turns, leads, devices = (
        ((False, False), (False, True), (True, False), (True, True)),
        ((), (3,)),
        (1, 60, 3000),
    )

    def run(be):
        be._tiled = []
        random, found = np.random.default_rng(0), []
        for be.runtime.blocks, (m, n, k), (ta, tb), lead in itertools.product(devices, sizes, turns, leads):
            a = random.normal(size=(*lead, *((k, m) if ta else (m, k)))).astype(dtype)
            b = random.normal(size=(*lead, *((n, k) if tb else (k, n)))).astype(dtype)
            out = be.empty((*lead, m, n), dtype)
            be.matmul(a, b, ta=ta, tb=tb, out=out)
            x, y = (_tf32(v) if precision else v for v in (a, b))
            want = (x.swapaxes(-1, -2) if ta else x).astype("f8") @ (y.swapaxes(-1, -2) if tb else y).astype(
                "f8"
            )
            found.append(np.abs(out - want).max() / np.abs(want).max())
        return found

    assert max(ready(kernels, run, precision)) < (1e-14 if dtype == "float64" else 1e-6)
    tiles = {tuple(name.split("_")[1:3]) for name in kernels.sources if name.startswith("product_")}
    assert tiles == {("16", "16"), ("32", "32"), ("64", "64")}


# --- steps ------------------------------------------------------------------------------------------------
def _step(be, sizes=(9, 7, 6, 4), loss="softmax_cross_entropy", x=X, y=Y, **options):
    regularization = Regularization(**options.pop("regularization", {}))
    model = xpnet.MLP(sizes, device=be, seed=3, **options)
    chosen = get_loss(loss)
    model.task = "classification" if chosen.classify else "regression"
    y = y if chosen.classify else np.eye(4)[y]
    examples = prepare(model, x, y, loss=chosen, task=model.task)
    return TrainingStep(model, chosen, examples, xpnet.Adam(), regularization)


def _train(be, stays, **options):
    """Fifteen steps, two times seven of them at once; all that they leave behind."""
    be.stays = stays
    step = _step(be, dtype="float64", **options)
    random = np.random.default_rng(0)
    for n in (1, 7, 7):
        multipliers = list(random.uniform(0.5, 1.5, n))
        step.several(random.integers(0, 60, (n, 11)), multipliers)
    held = {
        "totals": step.tally.totals(), "loss": step.tally.last_loss(), "bad": step.first_bad(),
        "gradient": step.grad_buffer, **step.model.get_weights(),
    }  # fmt: skip
    return {k: np.array(v) for k, v in held.items()}, be.runtime.log, be.algorithms


@pytest.mark.parametrize(
    "options",
    [
        {}, {"activation": "tanh", "n_models": 3}, {"activation": "gelu", "dropout": 0.3},
        {"activation": "prelu"}, {"loss": "squared_error"}, {"input_noise": 0.1, "n_models": 2},
        {"regularization": {"l2": 0.1, "clip_norm": 0.01, "max_norm": 0.5}}, {"sizes": (9, 4)}, {"sizes": (9, 7, 40)},
    ],
)  # fmt: skip
def test_steps_in_one_kernel_are_those_of_a_graph(kernels, options):
    want, _, _ = ready(kernels, lambda be: _train(be, None, **options))
    got, log, why = ready(kernels, lambda be: _train(be, True, **options))
    assert "phase" in log, why
    for key, value in want.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-9, atol=1e-13, err_msg=key)


def test_products_in_tf32_stay_close_to_the_library_s(kernels):
    def run(be, stays):
        be.stays = stays
        step = _step(be)
        for n in (4, 4):
            step.several(np.arange(11 * n).reshape(n, 11), [1.0] * n)
        return step.model.get_weights(), be.runtime.log

    want, _ = ready(kernels, lambda be: run(be, None), "tf32")  # the emulator's library has all digits
    got, log = ready(kernels, lambda be: run(be, True), "tf32")
    assert "phase" in log
    for key, value in want.items():
        np.testing.assert_allclose(got[key], value, atol=1e-3, err_msg=key)
    assert any(not np.array_equal(got[key], want[key]) for key in want)


def _steps_of(kernels, sizes, n, batch=128):
    """What would be launched for `n` steps on a device with 132 multiprocessors, and both records of a step."""
    be = CudaBackend(Emulator(kernels, dry=True))
    be.runtime.blocks, found = 132, []
    be.stays, be.runtime.stay = True, lambda steps: (found.append(steps), lambda: None)[1]
    x, y = np.zeros((256, sizes[0]), np.uint8), np.arange(256) % sizes[-1]
    step = _step(be, sizes, x=x, y=y)
    for _ in range(2):
        step.several(np.zeros((n, batch), int), [1.0] * n)
    return found[0] if found else be.algorithms


@pytest.mark.parametrize(
    ("sizes", "waits"), [((784, 500, 10), 3), ((784, 1000, 1000, 10), 6), ((64, 64, 10), 3), ((20, 10), 3)]
)
def test_how_often_all_blocks_wait_in_a_step(tmp_path, sizes, waits):
    tables = (_steps_of(Kernels(tmp_path), sizes, n).table for n in (10, 20))
    few, many = (int((table[:, 0] == resident.ALL_WAIT).sum()) for table in tables)
    assert (many - few) / 10 == waits


def test_what_is_done_at_a_time_is_independent(monkeypatch, tmp_path):
    seen = {}
    table = resident._table

    def spy(turns, calls, blocks):
        seen["turns"], seen["calls"] = turns, calls
        return table(turns, calls, blocks)

    def pair(record, address, empty):
        seen["records"] = both(record, address, empty)
        return seen["records"]

    both = phases.alternating
    monkeypatch.setattr(resident, "_table", spy)
    monkeypatch.setattr(phases, "alternating", pair)
    steps = _steps_of(Kernels(tmp_path), (784, 500, 10), 6)
    operations = [seen["records"][turn.odd][turn.number] for turn in seen["turns"]]
    for i, direct in enumerate(schedule.dependencies(operations)):
        assert all(seen["turns"][j].phase < seen["turns"][i].phase for j in direct)
    # the next batch is fetched beside the last layer, which occupies few blocks, and after what is urgent
    rows = [row for row in steps.table.tolist() if row[0] != resident.ALL_WAIT]
    names = [seen["calls"][what // 2].name for what, *_ in rows]
    fetches = [i for i, name in enumerate(names) if name.startswith("gather_uint8")]
    assert len(fetches) == 6 and all("dense_head" in "".join(names[i - 3 : i]) for i in fetches[2:])
    # two steps in a row have their batches in different memory
    even, odd = (next(o for o in record if "gather_uint8" in o.what) for record in seen["records"])
    assert not schedule.meet(even.writes, odd.writes)


def _address(x):
    return x.__array_interface__["data"][0]


def _operation(what, reads, writes):
    reads_from, writes_to = (tuple(schedule.region(_address(x), x) for x in xs) for xs in (reads, writes))
    call = schedule.Call(what, "", (1, 1), (256, 1), (*reads, *writes))
    return schedule.Operation(what, lambda lane: None, reads_from, writes_to, call)


MEMORY, RESULT = np.zeros(16), np.zeros(4)
FETCH = _operation("gather_x", [np.zeros(8)], [MEMORY[4:12]])


def _odd(*record):
    even, odd = phases.alternating(record, _address, np.zeros)
    assert list(even) == list(record)
    return odd


def test_a_batch_of_an_odd_step_has_memory_of_its_own():
    fetch, use = _odd(FETCH, _operation("use", [MEMORY[6:10].reshape(2, 2)], [RESULT]))
    (rows, batch), (part, result) = fetch.call.args, use.call.args
    assert rows is FETCH.call.args[0] and result is RESULT
    assert not np.shares_memory(batch, MEMORY) and fetch.writes == (schedule.region(_address(batch), batch),)
    assert _address(part) == _address(batch) + 16 and part.shape == (2, 2)
    assert use.reads == (schedule.region(_address(part), part),)


@pytest.mark.parametrize(
    "record",
    [
        (_operation("use", [MEMORY[4:12]], [RESULT]), FETCH),  # of what the step before has left
        (FETCH, _operation("use", [MEMORY[2:6]], [RESULT])),  # of more than the batch
        (FETCH, _operation("use", [MEMORY[10:14]], [RESULT])),
        (FETCH, _operation("use", [MEMORY[4:12:2]], [RESULT])),
    ],
    ids=["earlier", "before", "behind", "apart"],
)
def test_what_is_not_only_fetched_has_one_memory(record):
    for operation, other in zip(record, _odd(*record), strict=True):
        assert all(a is b for a, b in zip(operation.call.args, other.call.args, strict=True))


def test_every_task_is_done_once():
    calls = [
        schedule.Call("k", "", grid, block, ()) for grid, block in (((5, 3), (256, 1)), ((7, 1), (32, 16)))
    ]
    turns = [
        phases.Turn(0, False, 0, True, 0),
        phases.Turn(1, True, 0, False, 0),
        phases.Turn(0, True, 1, True, 0),
    ]
    table = resident._table(turns, calls, 3)
    assert table.tolist() == [[0, 0, 15, 5], [3, 0, 7, 7], [resident.ALL_WAIT, 0, 0, 0], [1, 0, 15, 5]]


def test_few_tasks_have_a_multiprocessor_each():
    calls = [
        schedule.Call("k", "", (n, 1), block, ())
        for n, block in ((3, (256, 1)), (2, (32, 16)), (4, (256, 1)))
    ]
    turns = [phases.Turn(i, False, 0, True, 0) for i in range(3)]
    # of 6 blocks 0, 1 and 2 have one half at work, then 3 and 4 both, then 5 one; 0, 1 and 2 have the other as well
    assert resident._table(turns, calls, 6).tolist() == [[0, 0, 3, 3], [2, 3, 2, 2], [4, 5, 4, 4]]


def test_where_there_is_no_such_kernel_a_graph_does_the_steps_and_says_why(kernels):
    def run(be):
        be.stays = True
        step = _step(be)
        for n in (4, 4):
            step.several(np.arange(11 * n).reshape(n, 11), [1.0] * n)
        return be

    be = ready(kernels, run, "bf16")
    assert "phase" not in be.runtime.log
    assert be.algorithms == [{"steps": 4, "chosen": "graph", "why": "products in bf16 are the library's"}]


def test_each_call_of_a_kernel_has_blocks_of_its_own():
    source = 'extern "C" __global__ void __launch_bounds__(256, 2) k(float* x) { x[blockDim.x * threadIdx.y] = 0; }'
    x = np.zeros(512, np.float32)
    record = [
        schedule.Operation("k", print, (), (), schedule.Call("k", source, (1, 1), block, (x,)))
        for block in ((8, 32), (16, 16))
    ]
    steps = resident.assemble((record, record), 2, 3)
    assert "{8, 32}" in steps.source and "{16, 16}" in steps.source


def test_operations_that_are_no_kernel_or_have_other_blocks(kernels):
    def operation(call):
        return schedule.Operation("work", print, (), (), call)

    record = [operation(None)]
    assert resident.assemble((record, record), 2, 3) == "work is left to the library"
    record = [operation(schedule.Call("k", "", (1, 1), (32, 4), ()))]
    assert resident.assemble((record, record), 2, 3) == "work has blocks of 32 x 4 threads"


def test_the_quicker_of_two_ways_is_found_by_doing_steps():
    done, record, takes, interrupts = [], [], {"graph": 2.0, "kernel": 1.0}, [4]

    def way(name):
        def call():
            done.append(name)

        call.record = []
        return call

    def timed(fn):
        fn()
        if len(done) in interrupts:
            interrupts.clear()
            raise KeyboardInterrupt
        return takes[done[-1]] + (10.0 if done.count(done[-1]) == 1 else 0.0)  # the first time code is loaded

    steps = resident.Quicker({name: way(name) for name in takes}, timed, record)
    for _ in range(7):
        with suppress(KeyboardInterrupt):
            steps()
    assert done == ["graph", "graph", "kernel", "kernel", "kernel", "kernel", "kernel"]
    assert [(r["chosen"], r["microseconds"]) for r in record] == [("kernel", {"graph": 2e6, "kernel": 1e6})]


# --- on a fake of CuPy ------------------------------------------------------------------------------------
def _fit(be):
    be.steps_ahead = min(be.steps_ahead, 4)
    model = xpnet.MLP([9, 8, 4], device=be, seed=4, dtype="float64")
    return model, xpnet.fit(model, (X, Y), epochs=3, batch_size=5, verbose=False, schedule="cosine")


def test_training_with_autotune_is_that_of_the_cpu(kernels, monkeypatch):
    def dry(be):
        be.autotune = True
        _fit(be)

    ready(kernels, dry)
    cupy: FakeCupy = install(kernels, monkeypatch)
    be = backend.on_device(0, None, autotune=True)
    elapsed = iter([5.0, 4.0, 5.0, 3.0])
    monkeypatch.setattr(cupy, "elapsed", lambda: next(elapsed, 1.0))
    model, history = _fit(be)
    # 12 batches an epoch, four at once: nine times in all, one of which does the first step by itself
    chosen = [r for r in be.algorithms if "steps" in r]
    assert len(chosen) == 1 and chosen[0]["chosen"] in ("graph", "kernel")
    assert cupy.cooperative >= 2 and cupy.launches >= 2
    want, of_cpu = _fit(xpnet.get_backend("cpu"))
    np.testing.assert_allclose(
        [r["train_loss"] for r in history], [r["train_loss"] for r in of_cpu], rtol=1e-9
    )
    for key, value in want.get_weights().items():
        np.testing.assert_allclose(model.get_weights()[key], value, rtol=1e-7, atol=1e-12, err_msg=key)


def test_how_long_the_host_takes_is_not_timed(kernels, monkeypatch):
    cupy, before = install(kernels, monkeypatch), []
    be = backend.on_device(0, None, autotune=True)
    assert be.runtime.timed(lambda: before.extend(cupy.emulator.log)) == 1e-3 and before == ["busy"]


@pytest.mark.parametrize(
    ("attribute", "value", "why"),
    [
        ("CooperativeLaunch", 0, "cannot run blocks that wait for each other"),
        ("MaxSharedMemoryPerBlockOptin", 10_000, "bytes of shared memory, the device has 10000"),
        ("runtimeGetVersion", 12000, "arguments, a kernel of CUDA 12000 takes 100"),
        ("driverGetVersion", 12000, "arguments, a kernel of CUDA 12000 takes 100"),
        ("source", "resident_", "the kernel does not compile: out of registers"),
    ],
)
def test_a_device_that_cannot_gets_a_graph(kernels, monkeypatch, attribute, value, why):
    def dry(be):
        be.stays = True
        _fit(be)

    ready(kernels, dry)
    cupy = install(kernels, monkeypatch)
    if attribute.endswith("Version"):
        monkeypatch.setattr(cupy.cuda.runtime, attribute, lambda: value)
        monkeypatch.setattr(runtime, "FEWER_ARGUMENTS", 100)
    elif attribute == "source":
        monkeypatch.setattr(cupy, "refused", {value: "out of\nregisters"})
    else:
        monkeypatch.setitem(cupy.cuda.Device.attributes, attribute, value)
    be = backend.on_device(0, None)
    be.stays = True
    _fit(be)
    assert cupy.cooperative == 0 and cupy.launches > 0
    assert why in be.algorithms[-1]["why"]


def test_kernels_of_one_source_take_turns(kernels, monkeypatch):
    """CuPy loads a source once, so what one of them is allowed the other has to have, too."""

    def run(be):
        be.stays = True
        steps = {n: _step(be, x=np.repeat(X, 2, axis=0), y=np.repeat(Y, 2)) for n in (20, 3)}
        for n in (20, 20, 3, 3, 20):
            steps[n].several(np.arange(2 * n).reshape(n, 2), [1.0] * n)
        return be

    ready(kernels, run)
    cupy = install(kernels, monkeypatch)
    be = run(backend.on_device(0, None))
    assert cupy.cooperative == 3 and len(cupy.functions) == 1, be.algorithms
