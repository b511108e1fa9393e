"""`fit_many` where a device is told about several steps at once: the same results, and few calls from the host."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from tests import fake_cupy
from tests.cuda_emulator import COMPILER, Emulator, Kernels
from tests.test_populations import CASES, COMMON, VALIDATED, N, X, Y, worst
from xpnet import fit_many, get_backend
from xpnet.backend.cuda import backend
from xpnet.backend.cuda.backend import CudaBackend
from xpnet.populations import block, engine, plan


def _ahead(ahead=4, shuffles=True):
    """The CPU, as a device that likes to be told about several steps at once."""
    be = get_backend("cpu")
    be.steps_ahead, be.shuffles = ahead, shuffles
    return be


def _same_bits(result, expected):
    for one, other in zip(result, expected, strict=True):
        assert one.stopped == other.stopped and one.error == other.error
        for name, w in one.model.get_weights().items():
            assert w.tobytes() == other.model.get_weights()[name].tobytes(), name
        drop = ("seconds", "samples_per_second")
        for mine, theirs in zip(one.history, other.history, strict=True):
            assert {k: v for k, v in mine.items() if k not in drop} == {
                k: v for k, v in theirs.items() if k not in drop
            }


@pytest.mark.parametrize(("configurations", "common"), CASES.values(), ids=CASES)
def test_several_steps_at_once_are_the_same_to_the_bit(configurations, common):
    common = {**COMMON, **common}
    expected = fit_many(configurations, (X, Y), device=get_backend("cpu"), **common)
    _same_bits(fit_many(configurations, (X, Y), device=_ahead(), **common), expected)


MIXED = [
    {
        "seed": s, "lr": lr, "patience": 1 + s % 2, "dropout": 0.2, "epochs": 3 + s,
        "schedule": ("cosine", "plateau")[s % 2],
    }
    for s in range(4)
    for lr in (0.003, 0.2)
]  # fmt: skip


@pytest.mark.parametrize("shuffles", [True, False], ids=["drawn on the device", "drawn on the host"])
def test_members_at_different_updates(shuffles):
    common = {**COMMON, "batch_size": 8, "l2": 0.01, **VALIDATED}
    expected = fit_many(MIXED, (X, Y), device=get_backend("cpu"), block=3, **common)
    assert {m.stopped for m in expected} == {"early_stopping", "epochs"}
    _same_bits(fit_many(MIXED, (X, Y), device=_ahead(shuffles=shuffles), block=3, **common), expected)


def test_a_member_that_diverges_disturbs_no_other():
    configurations = [{"lr": 0.01}, {"lr": 1e30}, {"lr": 0.02}]
    common = {**COMMON, "activation": "relu", "optimizer": "sgd", "batch_size": 8}
    with np.errstate(all="ignore"):
        expected = fit_many(configurations, (X, Y), device=get_backend("cpu"), **common)
        result = fit_many(configurations, (X, Y), device=_ahead(), **common)
    assert [m.stopped for m in result] == ["epochs", "diverged", "epochs"]
    _same_bits(result, expected)


@pytest.mark.parametrize("most", [0, 2, 5])
def test_members_that_are_done_may_stay_in_their_block(monkeypatch, most):
    monkeypatch.setattr(engine, "_LINGERING", most / len(MIXED))
    blocks = []
    original = block.Block.__init__

    def counted(self, *args, **options):
        blocks.append(self)
        original(self, *args, **options)

    common = {**COMMON, "batch_size": 8, "dtype": "float64", **VALIDATED}
    expected = fit_many(MIXED, (X, Y), device=get_backend("cpu"), block=1, **common)
    monkeypatch.setattr(block.Block, "__init__", counted)
    be = _ahead()
    be.device = "cuda:7"
    given = []
    result = fit_many(MIXED, (X, Y), device=be, block=8, on_result=lambda r: given.append(r.index), **common)
    assert sorted(given) == list(range(8)) and {m.stopped for m in result} == {"early_stopping", "epochs"}
    assert worst(result, [(m.model, m.history, m.stopped) for m in expected]) < 1e-10
    assert len({len(m.history) for m in result}) > 3
    trained = [b for b in blocks if type(b.be) is not plan._Counting]
    assert len(trained) <= {0: 8, 2: 3, 5: 2}[most]


def test_orders_with_rows_and_without():
    """Members with rows of their own, beside one that takes all examples, in an order of its own."""
    g = np.random.default_rng(3)
    configurations = [
        {"seed": 1},
        {"rows": g.integers(0, N, N), "seed": 2},
        {"rows": g.permutation(N), "seed": 1},
    ]
    expected = fit_many(configurations, (X, Y), device=get_backend("cpu"), **COMMON)
    _same_bits(fit_many(configurations, (X, Y), device=_ahead(), **COMMON), expected)


def test_every_call_to_check_comes_after_several_steps(monkeypatch):
    calls = []
    original = block.Block.epoch
    monkeypatch.setattr(
        block.Block, "epoch", lambda self, check: original(self, lambda: calls.append(self.step.n_updates))
    )
    fit_many([{"seed": 1}, {"seed": 2}], (X, Y), device=_ahead(), **{**COMMON, "epochs": 2, "batch_size": 8})
    assert calls == [4, 8, 11, 12, 16, 20, 23, 24]  # 11 whole batches and a smaller one


def test_memory_of_what_is_told_ahead_is_planned():
    bytes_ = [
        fit_many([{"seed": 1}, {"seed": 2}], (X, Y), device=be, block=2, **COMMON).plan[0]["bytes"]
        for be in (_ahead(5, False), _ahead(1, False))
    ]
    assert bytes_[0] - bytes_[1] == 5 * 2 * COMMON["batch_size"] * 8


# --- on a fake of CuPy ------------------------------------------------------------------------------
emulated = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler to run the kernels' source: g++")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> Kernels:
    return Kernels(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def cupy(kernels, monkeypatch) -> fake_cupy.FakeCupy:
    fake = fake_cupy.install(kernels, monkeypatch)
    fake.cuda.runtime.memGetInfo = lambda: (10**9, 10**9)
    return fake


def _through_graphs(kernels, configurations, ahead=4, **options):
    """`fit_many` through graphs, with all kernels compiled in one run of the compiler; and the back end."""

    def train(be):
        be.steps_ahead = ahead
        with np.errstate(all="ignore"):
            return fit_many(configurations, (X, Y), dtype="float64", device=be, **{**COMMON, **options})

    train(CudaBackend(Emulator(kernels, dry=True)))
    kernels.compile_added()
    be = backend.on_device(0, None)
    return train(be), be


def _on_cpu(configurations, **options):
    with np.errstate(all="ignore"):
        return fit_many(configurations, (X, Y), dtype="float64", device="cpu", **{**COMMON, **options})


def _agree(result, expected):
    assert [m.error for m in result] == [m.error for m in expected]
    assert (
        worst(
            result, [(m.model, m.history if m.stopped != "diverged" else None, m.stopped) for m in expected]
        )
        < 1e-9
    )


RUNS = {
    "shared batches": ([{"seed": s, "lr": 0.01 * (s + 1)} for s in range(3)], {"batches": "shared", "batch_size": 8}),
    "own batches": (
        [{"seed": s, "schedule": "cosine", "epochs": 2 + s} for s in range(3)],
        {"batch_size": 8, "dropout": 0.2, **VALIDATED},
    ),
    "folds": (
        [{"rows": np.arange(N) % 3 != k, "validation_rows": np.arange(N) % 3 == k, "class_weight": "balanced"}
         for k in range(3)], {"batch_size": 8},
    ),
    "members that take the place of others": (MIXED[:5], {"batch_size": 16, "block": 2, **VALIDATED}),
    "one diverges": ([{"lr": 0.01}, {"lr": 1e300}], {"activation": "relu", "optimizer": "sgd", "batch_size": 8}),
}  # fmt: skip


@emulated
@pytest.mark.parametrize("name", RUNS)
def test_members_trained_through_graphs_are_those_of_the_cpu(cupy, kernels, name):
    configurations, options = RUNS[name]
    result, _ = _through_graphs(kernels, configurations, **options)
    assert cupy.launches > 0
    _agree(result, _on_cpu(configurations, **options))


@emulated
@pytest.mark.parametrize("batches", ["shared", "own"])
def test_an_epoch_takes_few_launches_from_the_host(cupy, kernels, batches):
    counts = []
    epoch = block.Block.epoch

    def counted(self, *args):
        before = cupy.launches, cupy.calls
        done = epoch(self, *args)
        counts.append((cupy.launches - before[0], cupy.calls - before[1]))
        return done

    configurations = [{"seed": s} for s in range(4)]
    options = {"batches": batches, "batch_size": 3, "epochs": 3, "sizes": [6, 5, 4]}
    block.Block.epoch = counted
    try:
        _through_graphs(kernels, configurations, ahead=15, **options)
    finally:
        block.Block.epoch = epoch
    # 30 steps: the first one by itself and recorded, then 14 times its graph and once that of 15; later twice that.
    # Besides: the order, and whether the four tensors are finite, a formula and a sum for each; and where members have
    # batches of their own, those of each graph are brought into rows
    calls = 9 if batches == "shared" else 11
    assert counts[-3:] == [(15, counts[-3][1]), (2, calls), (2, calls)]


@emulated
def test_memory_of_a_block_is_free_as_soon_as_it_is_closed(cupy, kernels):
    seen = []
    close = block.Block.close

    def watched(self, **options):
        seen.append(weakref.ref(self.step.grad_buffer))
        close(self, **options)
        seen.append(seen.pop()())  # still there, or None

    block.Block.close = watched
    gc.collect(), gc.disable()
    try:
        _through_graphs(kernels, [{"seed": s, "epochs": 2 + s} for s in range(2)], batch_size=8, **VALIDATED)
    finally:
        block.Block.close = close
        gc.enable()
    assert len(seen) >= 2 and all(x is None for x in seen[-2:])


@emulated
def test_without_capture_each_step_is_asked_for_by_itself(cupy, kernels):
    configurations, options = RUNS["shared batches"]
    _through_graphs(kernels, configurations, **options)
    before = cupy.launches
    be = backend.on_device(0, None)
    be.captures = False
    result = fit_many(configurations, (X, Y), dtype="float64", device=be, **{**COMMON, **options})
    assert cupy.launches == before
    _agree(result, _on_cpu(configurations, **options))
