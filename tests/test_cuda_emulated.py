"""The CUDA back end on an emulated device: its kernels' own source, run on the CPU (see `cuda_emulator.py`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import xpnet
from tests.cuda_emulator import COMPILER, Emulator, Kernels, parameter_types
from xpnet import conformance, get_backend, rng
from xpnet.backend.cuda import kernels
from xpnet.backend.cuda.backend import CudaBackend
from xpnet.backend.cuda.products import describe
from xpnet.backend.reference import ReferenceBackend
from xpnet.populations import plan as populations_plan
from xpnet.testing import check_backend

pytestmark = pytest.mark.skipif(
    COMPILER is None, reason="needs a C++ compiler to run the kernels' source: g++"
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Kernels:
    return Kernels(tmp_path_factory.mktemp("kernels"))


def _prepared(compiled: Kernels, run: Callable[[CudaBackend], object], **options) -> CudaBackend:
    """A back end all of whose kernels for `run` are compiled, in one run of the compiler."""
    with np.errstate(all="ignore"):
        run(CudaBackend(Emulator(compiled, dry=True), **options))
    compiled.compile([n for n in compiled.sources if n not in compiled.compiled])
    return CudaBackend(Emulator(compiled), **options)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "least"), [("float32", 2000), ("float64", 1000)])
def test_keeps_the_contract(compiled, monkeypatch, dtype, least):
    if dtype == "float64":  # one source serves both types: of the formulas, those of `map` itself are enough
        for name in ("map_aliases", "activations", "optimizers", "losses"):
            monkeypatch.setattr(conformance, f"check_{name}", lambda *args: None)
    with monkeypatch.context() as patch:  # the first run collects sources, and computes nothing
        patch.setattr(conformance.Conformance, "compare", lambda *a, **k: None)
        patch.setattr(conformance.Conformance, "fail", _raised)
        be = _prepared(compiled, lambda be: check_backend(be, dtypes=[dtype]))
    assert check_backend(be, dtypes=[dtype]) > least


def _raised(self, operation, case, message):
    assert not message.startswith("raised"), f"{operation}: {case}: {message}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 5, 10), (33, 7, 4), (2, 40, 131), (130, 1, 1)])
def test_members_side_by_side(compiled, dtype, shape):
    """Every kind of kernel on populations (M, B, N) that lie sample after sample, as their buffers do on a device."""
    m, b, n = shape
    random = np.random.default_rng(m)

    def beside(width, values=None):
        memory = np.zeros((b, m, width), dtype).transpose(1, 0, 2)
        memory[...] = random.normal(size=memory.shape) if values is None else values
        return memory

    x, z, w, bias = beside(5), beside(n), random.normal(size=(m, n, 5)), random.normal(size=(m, 1, n))
    t, rows = random.normal(size=(m, b, n)), random.normal(size=(b, 5))
    labels, index = random.integers(0, n, (m, b)), random.integers(0, b, (m, b))
    w, bias, t, rows = (a.astype(dtype) for a in (w, bias, t, rows))

    def results(be):
        def empty(*own):
            return be.empty(own, dtype)

        right = be.map(lambda ns, a, c: ns.where(a == c, 1.0, 0.0), be.argmax(z, out=be.empty((m, b), "int64")),
                       labels, out=empty(m, b))  # fmt: skip
        y = be.map(lambda ns, z, bias: ns.maximum(z + bias, 0.0), z, bias, out=beside(n, 0.0))
        loss, dz = empty(m, b), beside(n, 0.0)
        be.softmax_cross_entropy(z, t, t[..., 0], loss=loss, out=dz)
        return (
            right, y, loss, dz, be.softmax(z, out=beside(n, 0.0)), be.sum(z, axis=-1, out=empty(m, b)),
            be.sum(z, axis=-2, out=empty(m, n)), be.gather(rows, index, out=empty(m, b, 5)),
            be.matmul(x, w, tb=True, out=beside(n, 0.0)), be.matmul(rows, w, tb=True, out=beside(n, 0.0)),
            be.matmul(z, x, ta=True, out=empty(m, n, 5)), be.matmul(z, rows, ta=True, out=empty(m, n, 5)),
            be.matmul(z, w, out=beside(5, 0.0)),
        )  # fmt: skip

    be = _prepared(compiled, results)
    for got, want in zip(results(be), results(ReferenceBackend(np)), strict=True):
        size = max(1.0, np.abs(want).max())
        np.testing.assert_allclose(got, want, rtol=0, atol=size * (1e-12 if dtype == "float64" else 2e-5))


X = np.random.default_rng(1).integers(0, 256, (50, 12)).astype(np.uint8)
Y = np.random.default_rng(2).integers(0, 3, 50)
VALID = (X[:20] // 2, Y[:20])

RUNS = {
    "digits": ({"activation": "relu"}, {"optimizer": "adam"}),
    "everything": (
        {"activation": ["gelu", "prelu"], "dropout": 0.2, "input_dropout": 0.1, "input_noise": 0.1},
        {
            "optimizer": "adamw", "l1": 0.001, "l2": 0.01, "clip_value": 0.5, "clip_norm": 0.3, "max_norm": 1.0,
            "label_smoothing": 0.1, "sample_weight": np.linspace(0.5, 2, 50), "schedule": "cosine",
        },
    ),
    "population": (
        {"activation": ["maxout:3", "selu"], "n_models": 3, "dropout": 0.3},
        {"optimizer": xpnet.SGD(lr=[0.01, 0.02, 0.03], momentum=0.9), "l2": [0.0, 0.1, 0.2], "clip_norm": 0.3},
    ),
    "frozen": (
        {"activation": "relu", "n_models": 2},
        {"optimizer": "adamw", "l2": 0.01, "clip_norm": 0.3, "max_norm": 1.0, "freeze": [0, 1]},
    ),
    "hinge": ({"activation": "tanh"}, {"loss": "hinge", "optimizer": "rmsprop", "max_norm": 0.5}),
}  # fmt: skip


def _train(be, architecture, options):
    model = xpnet.MLP([12, 9, 8, 3], device=be, seed=4, dtype="float64", **architecture)
    history = xpnet.fit(
        model, (X, Y), validation=VALID, epochs=2, batch_size=16, verbose=False, restore_best=False, **options
    )
    return model, history


@pytest.mark.parametrize("fuses", [True, False])
@pytest.mark.parametrize("name", RUNS)
def test_training_is_that_of_the_cpu(compiled, monkeypatch, name, fuses):
    monkeypatch.setattr(CudaBackend, "fuses", fuses)
    be = _prepared(compiled, lambda be: _train(be, *RUNS[name]))
    model, history = _train(be, *RUNS[name])
    twin, expected = _train(get_backend("cpu"), *RUNS[name])
    for key in ("train_loss", "valid_loss", "train_accuracy", "valid_accuracy"):
        np.testing.assert_allclose(history.column(key), expected.column(key), rtol=1e-8)
    for key, want in twin.get_weights().items():
        np.testing.assert_allclose(model.get_weights()[key], want, rtol=1e-6, atol=1e-9)


def test_dropout_masks_are_those_of_the_cpu_to_the_bit(compiled):
    counter = np.array([2**33 + 7], np.int64)
    stream = rng.stream(rng.DROPOUT, 3)

    def draw(be):
        return be.uniform(be.empty((5, 1001), "float32"), seeds=[2**64 - 1], stream=stream, counter=counter)

    got = draw(_prepared(compiled, draw))
    assert got.tobytes() == rng.uniform(2**64 - 1, stream, 2**33 + 7, (5, 1001)).tobytes()


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 1000, 60_000])
def test_shuffles_are_those_of_the_cpu(compiled, n):
    def shuffle(be):
        half_bits = max(1, ((n - 1).bit_length() + 1) // 2)
        keys = np.stack([rng.generator(s, rng.stream(rng.SHUFFLE), 4).integers(0, 2**32, 6, dtype=np.uint32)
                         for s in (9, 3, 8)])  # fmt: skip
        out = be.empty((3, n), "int64")
        numbers = (np.int64(n), np.int32(half_bits), np.int32(3))
        be.runtime.launch(*kernels.source("permutation"), (3, 2), (256, 1), (out, keys, *numbers))
        return out

    np.testing.assert_array_equal(
        shuffle(_prepared(compiled, shuffle)), rng.permutations(n, [9, 3, 8], [4] * 3)
    )


def test_bfloat16_operands_are_rounded_to_the_nearest(compiled):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes: the rounding to compare with")
    special = np.array(
        [0.0, -0.0, np.inf, -np.inf, 1e38, 3.4e38, 1e-40, 1.00390625, 1.01171875, 1.0039063], "f4"
    )
    x = np.concatenate([special, np.random.default_rng(0).normal(size=90).astype("f4")]).reshape(10, 10)

    def rounded(be):
        return be.bfloat16.of(x)

    got = rounded(_prepared(compiled, rounded, precision="bf16"))
    assert got.strides == (32, 2)  # rows of 16 numbers
    np.testing.assert_array_equal(got, x.astype(ml_dtypes.bfloat16).view(np.uint16))
    nan = np.full((1, 8), np.nan, "f4")
    assert np.isnan(
        (CudaBackend(Emulator(compiled)).bfloat16.of(nan).astype(np.uint32) << 16).view("f4")
    ).all()


@pytest.mark.parametrize("lead", [(), (3,)])
def test_bfloat16_trains_like_float32(compiled, lead):
    def train(be):
        model = xpnet.MLP([12, 9, 3], device=be, seed=4, n_models=3 if lead else None)
        return xpnet.fit(model, (X, Y), epochs=3, batch_size=16, verbose=False).column("train_loss")

    got = np.array(train(_prepared(compiled, train, precision="bf16")))
    want = np.array(train(get_backend("cpu")))
    assert 0 < np.abs(got - want).max() < 0.02 * want.max()


def test_a_rounded_operand_is_used_again_until_it_is_written(compiled):
    x, w, out = np.ones((4, 8), "f4"), np.full((5, 8), 2.0, "f4"), np.zeros((4, 5), "f4")

    def work(be):
        def step():
            be.matmul(x, w, tb=True, out=out)
            be.matmul(x, w, tb=True, out=out)
            be.map(lambda ns, w: w + 1.0, w, out=w)
            be.matmul(x, w, tb=True, out=out)

        return be.capture(step)

    be = _prepared(compiled, work, precision="bf16")
    w[...] = 2.0
    replay = work(be)
    assert (out == 24.0).all()
    be.runtime.log.clear()
    replay()
    assert (w == 4.0).all() and (out == 32.0).all()
    assert len(replay.record) == 6  # x and w rounded, 2 products, the formula that rounds w as well, product


def test_nothing_is_allocated_or_read_while_a_step_is_recorded(compiled):
    def work(be):
        x = be.empty((4, 6), "float32")
        x[...] = 1.0
        wide = be.empty((4, 12), "float32")
        wide[...] = 2.0
        total = be.empty((4,), "float32")

        def step():
            be.softmax(wide[:, ::2], out=wide[:, 1::2])  # needs copies that are dense
            be.map(lambda ns, a, b: a + b, x, wide[:, 1::2], out=x)
            be.sum(x, axis=-1, out=total)

        return be.capture(step), total

    replay, total = work(_prepared(compiled, work))
    np.testing.assert_allclose(total, 7.0, rtol=1e-6)
    replay()
    np.testing.assert_allclose(total, 8.0, rtol=1e-6)


def test_a_recorded_step_may_not_read_the_host(compiled):
    be = CudaBackend(Emulator(compiled))
    with pytest.raises(AssertionError, match="to_numpy while a step is recorded"):
        be.runtime.capture(lambda: be.to_numpy(np.zeros(1)))


def test_the_emulator_reports_threads_that_part_at_a_barrier(compiled):
    source = """
extern "C" __global__ void __launch_bounds__(64) parts(float* x) {
    if (threadIdx.x < 40) __syncthreads();
    else if (threadIdx.x < 50) __syncthreads();
    x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}
"""
    with pytest.raises(AssertionError, match="wait for each other at different places"):
        Emulator(compiled).launch("parts", source, (1, 1), (64, 1), (np.zeros(64, "f4"),))


def test_the_emulator_compares_arguments_with_the_source():
    name, source = kernels.source("sum_narrow_rows", "float64")
    numbers = [("int64", False), ("int32", False), ("int64", False)]
    assert parameter_types(name, source) == [("float64", True), ("float64", True), *numbers]
    emulator = Emulator(Kernels(Path()))
    given = (np.zeros(3, "f4"), np.zeros(1), np.int64(1), np.int32(3), np.int64(3))
    with pytest.raises(AssertionError, match="argument 0: float32"):
        emulator.launch(name, source, (1, 1), (256, 1), given)


# --- how products are laid out ----------------------------------------------------------------------
def test_one_model_is_one_product():
    x, w, y = (np.empty(s, "f4") for s in ((128, 784), (500, 784), (128, 500)))
    forward = describe(x, w, False, True, y)
    assert (forward.m, forward.n, forward.k, forward.batch) == (500, 128, 784, 1)
    assert forward.first.leading == forward.second.leading == 784 and forward.result.leading == 500
    gradient = describe(y, x, True, False, w)
    assert (gradient.m, gradient.n, gradient.k) == (784, 500, 128)
    assert not gradient.first.transposed and gradient.second.transposed


def test_members_of_a_population_are_a_strided_batch():
    h, w, y = (np.empty(s, "f4") for s in ((256, 128, 32), (256, 10, 32), (256, 128, 10)))
    p = describe(h, w, False, True, y)
    assert p.batch == 256 and (p.first.stride, p.second.stride, p.result.stride) == (320, 4096, 1280)


def test_a_shared_batch_is_one_plain_product_where_members_lie_side_by_side():
    x, w = np.empty((128, 784), "f4"), np.empty((256, 32, 784), "f4")
    beside = np.empty((128, 256, 32), "f4").transpose(1, 0, 2)
    forward = describe(x, w, False, True, beside)
    assert (forward.batch, forward.m, forward.n, forward.result.leading) == (1, 256 * 32, 128, 256 * 32)
    gradient = describe(beside, x, True, False, w)
    assert (gradient.batch, gradient.m, gradient.n, gradient.k) == (1, 784, 256 * 32, 128)
    behind = np.empty((256, 128, 32), "f4")
    assert describe(x, w, False, True, behind).batch == 256  # members behind one another: a batch, x shared
    assert describe(x, w, False, True, behind).second.stride == 0


def test_rows_of_all_members_times_one_matrix_are_one_product():
    h, w, y = (np.empty(s, "f8") for s in ((7, 16, 5), (4, 5), (7, 16, 4)))
    p = describe(h, w, False, True, y)
    assert (p.batch, p.n, p.m, p.dtype) == (1, 112, 4, "float64")


def test_memory_that_no_leading_dimension_describes():
    x = np.empty((8, 12), "f4")
    assert describe(x[:, ::2], np.empty((6, 4), "f4"), False, False, np.empty((8, 4), "f4")) is None
    turned = describe(x.T, np.empty((8, 4), "f4"), False, False, np.empty((12, 4), "f4"))
    assert turned.second.transposed and turned.second.leading == 12


@pytest.mark.parametrize("layout", ["behind", "beside"])
def test_products_of_a_shared_batch(compiled, layout):
    random = np.random.default_rng(3)
    x, w = random.normal(size=(6, 5)), random.normal(size=(4, 3, 5))
    y = np.empty((4, 6, 3)) if layout == "behind" else np.empty((6, 4, 3)).transpose(1, 0, 2)
    be = CudaBackend(Emulator(compiled))
    np.testing.assert_allclose(be.matmul(x, w, tb=True, out=y), x @ w.swapaxes(-1, -2))
    gradient = np.empty_like(w)
    np.testing.assert_allclose(be.matmul(y, x, ta=True, out=gradient), y.swapaxes(-1, -2) @ x)


def test_sizes_beyond_32_bits_are_counted_in_64():
    from xpnet.backend.cuda.formulas import Layout

    assert not Layout((2**30,), ((1,),)).wide
    assert Layout((2**31,), ((1,),)).wide
    assert Layout((10, 10), ((2**28, 1),)).wide


@pytest.mark.parametrize("precision", [None, "bf16"])
def test_a_population_trains_its_first_layer_in_plain_products(compiled, precision):
    seen = []

    def train(be):
        multiply = be.runtime.multiply
        be.runtime.multiply = lambda product, *args: (seen.append(product), multiply(product, *args))[1]
        model = xpnet.MLP([12, 8, 3], n_models=5, device=be, seed=4, dropout=0.1)
        return xpnet.fit(model, (X, Y), epochs=1, batch_size=16, verbose=False)

    be = _prepared(compiled, train, precision=precision)
    seen.clear()
    history = train(be)
    shapes = {(p.m, p.n, p.k, p.batch, p.relu) for p in seen if p.n == 16 or p.k == 16}
    # m, n, k, batch: forward and gradient of the first layer are one product for all 5 members; the rest of the last
    # layer is in `dense_head`
    assert shapes == {(40, 16, 12, 1, True), (8, 3, 16, 5, False), (12, 40, 16, 1, False)}
    twin = xpnet.MLP([12, 8, 3], n_models=5, seed=4, dropout=0.1)
    expected = xpnet.fit(twin, (X, Y), epochs=1, batch_size=16, verbose=False)
    np.testing.assert_allclose(
        history[0]["train_loss"], expected[0]["train_loss"], rtol=1e-2 if precision else 5e-5
    )


def test_rounded_operands_of_a_block_are_in_its_memory_plan(compiled, monkeypatch):
    counted, taken = {}, []

    def plan(precision):
        be = CudaBackend(Emulator(compiled, dry=True), precision)
        empty = be.runtime.empty
        be.runtime.empty = lambda shape, dtype: (taken.append((dtype, shape)), empty(shape, dtype))[1]

        def note(group, model, k, be):
            counted[precision] = block_bytes(group, model, k, be)[0]
            return counted[precision]

        block_bytes = populations_plan.block_bytes
        with monkeypatch.context() as patch:
            patch.setattr(
                populations_plan, "block_bytes", lambda *args: (note(*args), counted[args[3].precision])
            )
            xpnet.fit_many([{"seed": s} for s in range(4)], (X, Y), sizes=[12, 8, 3], epochs=1, device=be)

    for precision in (None, "bf16"):
        taken.clear()
        plan(precision)
    rounded = sum(2 * int(np.prod(shape)) for dtype, shape in taken if dtype == "uint16")
    more = counted["bf16"] - counted[None]
    assert 0 < more <= rounded < 2 * more  # rows are padded to 8 numbers
