"""Operations of a captured step that become one launch: which they are, and that nothing else changes."""

from __future__ import annotations

import re

import numpy as np
import pytest

import xpnet
from tests.cuda_emulator import COMPILER, Emulator, Kernels, ready
from xpnet import activations
from xpnet.backend.cuda import backend, fusion, joined
from xpnet.backend.cuda.backend import CudaBackend
from xpnet.backend.cuda.products import describe, with_bias
from xpnet.backend.cuda.schedule import dependencies
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
def compiled(tmp_path_factory) -> Kernels:
    return Kernels(tmp_path_factory.mktemp("kernels"))


def _steps(be, fuses, architecture, loss="softmax_cross_entropy", own_rows=False, **options):
    """Three steps; what is asked for in one, and everything that the steps leave behind."""
    be.fuses = fuses
    model = xpnet.MLP([9, 7, 6, 4], device=be, seed=3, dtype="float64", **architecture)
    chosen = get_loss(loss)
    model.task = "classification" if chosen.classify else "regression"
    y = Y if chosen.classify else np.eye(4)[Y]
    examples = prepare(model, X, y, loss=chosen, task=model.task)
    step = TrainingStep(model, chosen, examples, xpnet.Adam(), own_rows=own_rows, **options)
    random, lead = np.random.default_rng(0), (3,) if own_rows else ()
    for _ in range(3):
        step(random.integers(0, 60, (*lead, 11)))
    names = [op.what.partition("_float")[0] for op in step.plan(11).replay.record]
    held = {
        "totals": step.tally.totals(),
        "gradient": step.grad_buffer,
        "loss": step.tally.last_loss(),
        **model.get_weights(),
    }
    context = step.plan(11).contexts[-1]
    held |= {
        "z": context.buffer("z", 4),
        "dx": context.buffer("dx", 6),
        "dz": step.workspace.array("dh", step.plan(11).h.shape),
    }
    return names, held


NETS = {
    "relu": ({"activation": "relu"}, {}),
    "tanh, population": ({"activation": "tanh", "n_models": 3}, {}),
    "own batches": ({"activation": "gelu", "n_models": 3}, {"own_rows": True}),
    "dropout": ({"activation": "relu", "dropout": 0.3}, {}),
    "identity": ({"activation": "identity", "n_models": 2}, {}),
    "learnt slopes": ({"activation": "prelu"}, {}),
    "maxout": ({"activation": "maxout:2"}, {}),
    "another loss": ({"activation": "relu"}, {"loss": "squared_error"}),
}


@pytest.mark.parametrize("net", NETS)
def test_everything_is_as_without(compiled, net):
    architecture, options = NETS[net]
    names, got = ready(compiled, lambda be: _steps(be, True, architecture, **options))
    apart, want = ready(compiled, lambda be: _steps(be, False, architecture, **options))
    for key, value in want.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-9, atol=1e-13, err_msg=key)
    assert len(names) < len(apart)
    joined = re.compile("dense_head|multiply_bias|map_columns")
    kinds = {found[0] for n in names if (found := joined.match(n))}
    expected = {
        "relu": {"dense_head", "multiply_bias", "map_columns"},
        "tanh, population": {"dense_head", "map_columns"},
        "own batches": {"dense_head", "map_columns"},
        "dropout": {"dense_head", "multiply_bias", "map_columns"},
        "identity": {"dense_head", "multiply_bias"},
        "learnt slopes": {"dense_head", "multiply_bias"},
        "maxout": {"dense_head", "multiply_bias"},
        "another loss": {"multiply_bias", "map_columns"},
    }[net]
    assert kinds == expected
    assert not any(map(joined.match, apart))


@pytest.mark.parametrize(
    ("sizes", "epilogues", "nodes", "path"),
    [
        ((784, 500, 10), True, 15, 4), ((784, 1000, 1000, 10), True, 20, 7),
        # where the library hides a NaN behind a ReLU, each one is a launch of its own
        ((784, 500, 10), False, 16, 5), ((784, 1000, 1000, 10), False, 22, 9),
    ],
)  # fmt: skip
def test_the_steps_of_the_measured_networks(tmp_path, sizes, epilogues, nodes, path):
    be = CudaBackend(Emulator(Kernels(tmp_path), dry=True))
    be.runtime.epilogues = epilogues
    model = xpnet.MLP(sizes, device=be, seed=0)
    x, y = np.zeros((256, sizes[0]), np.uint8), np.arange(256) % 10
    examples = prepare(model, x, y, loss=get_loss("softmax_cross_entropy"), task="classification")
    model.task = "classification"
    step = TrainingStep(model, get_loss("softmax_cross_entropy"), examples, xpnet.Adam())
    step.several(np.arange(128)[None], [1.0])
    record = step.ahead(128).record
    assert len(record) == nodes
    # of many steps in one graph, each fetches its batch beside the one before: what follows one another is the way
    # from one set of weights to the next
    n = 31
    assert _longest_path([*record] * n) == n * path + 2  # the first waits for its rows and its batch


def _longest_path(operations):
    depth = []
    for direct in dependencies(operations):
        depth.append(1 + max((depth[j] for j in direct), default=0))
    return max(depth)


# --- the head ---------------------------------------------------------------------------------------------
def _head(be, m, b, width, classes, gate, shared, dtype="float64"):
    """A captured head on random numbers, and what it leaves behind."""
    random = np.random.default_rng(b)
    lead = () if m is None else (m,)
    own = () if shared else lead

    def array(*shape):
        return be.asarray(random.normal(size=shape).astype(dtype), None)

    x, weight, bias = array(*lead, b, width), array(*lead, classes, width), array(*lead, 1, classes)
    t, w = array(*own, b, classes), array(*own, b)
    labels = be.asarray(random.integers(0, classes, (*own, b)), "int64")
    z, dz, dx = (be.empty((*lead, b, n), dtype) for n in (classes, classes, width))
    loss, batch_loss = be.empty((*lead, b), dtype), be.empty(lead, dtype)
    total, hits = (be.asarray(np.full(lead, 2.0), "float64") for _ in range(2))

    def work():
        be.matmul(x, weight, tb=True, out=z)
        be.map(lambda ns, z, b: z + b, z, bias, out=z)
        be.softmax_head(z, t, w, labels, loss=loss, out=dz, batch_loss=batch_loss, total=total, hits=hits)
        be.matmul(dz, weight, out=dx)
        if gate:
            be.map(activations.get_activation(gate).backward, dx, x, out=dx)

    replay = be.capture(work)
    assert [op.what.partition("_")[0] for op in replay.record] == ["dense", "head"]
    return z, dz, dx, loss, batch_loss, total, hits, (x, weight, bias, t, w, labels, gate)


@pytest.mark.parametrize(
    ("m", "b", "width", "classes", "gate", "shared"),
    [
        (None, 1, 1, 2, None, True), (None, 19, 300, 10, "tanh", True), (3, 17, 33, 16, "relu", False),
        (2, 9, 40, 3, "sigmoid", True),
    ],
)  # fmt: skip
def test_the_head_is_its_operations_one_by_one(compiled, m, b, width, classes, gate, shared):
    found = ready(compiled, lambda be: _head(be, m, b, width, classes, gate, shared))
    z, dz, dx, loss, batch_loss, total, hits, (x, weight, bias, t, w, labels, _) = found
    logits = x @ np.swapaxes(weight, -1, -2) + bias
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    each = (t * (log_sum - shifted)).sum(axis=-1)
    probability = np.exp(shifted - log_sum)
    gradient = w[..., None] * (probability * t.sum(axis=-1, keepdims=True) - t)
    back = gradient @ weight
    slope = {
        None: 1.0, "tanh": 1 - x * x, "relu": x > 0, "sigmoid": x * (1 - x),
    }[gate]  # fmt: skip
    right = (logits.argmax(axis=-1) == labels).sum(axis=-1)
    for got, want in (
        (z, logits), (loss, each), (dz, gradient), (dx, back * slope), (batch_loss, each.sum(axis=-1)),
        (total, 2 + each.sum(axis=-1)), (hits, 2.0 + right),
    ):  # fmt: skip
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12)


def test_logits_that_are_no_numbers_show(compiled):
    def run(be):
        def array(values):
            return be.asarray(np.asarray(values, "f8"), None)

        x = array([[1.0, np.nan], [1.0, 2.0], [np.inf, 0.0]])
        weight, bias = array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), array([[0.0, 0.0, 0.0]])
        t, w = array(np.eye(3)), array([1.0, 1.0, 1.0])
        labels = be.asarray(np.array([1, 2, 0]), "int64")
        z, dz, dx, loss = (
            be.empty((3, 3), "float64"),
            be.empty((3, 3), "float64"),
            be.empty((3, 2), "float64"),
            be.empty((3,), "float64"),
        )
        sums = [be.asarray(np.zeros(()), "float64") for _ in range(3)]

        def work():
            be.matmul(x, weight, tb=True, out=z)
            be.map(lambda ns, z, b: z + b, z, bias, out=z)
            be.softmax_head(
                z, t, w, labels, loss=loss, out=dz, batch_loss=sums[0], total=sums[1], hits=sums[2]
            )
            be.matmul(dz, weight, out=dx)

        assert be.capture(work).record[0].what.startswith("dense_head")
        return loss, dz, dx, sums

    loss, dz, dx, sums = ready(compiled, run)
    assert np.isnan(loss[[0, 2]]).all() and np.isfinite(loss[1])
    assert np.isnan(dz[0]).all() and np.isnan(dx[0]).all() and np.isfinite(dx[1]).all()
    assert np.isnan(sums[0]) and np.isnan(sums[1]) and sums[2] >= 1.0


# --- what must not be joined --------------------------------------------------------------------------------
def _names(be, work):
    return [r.name for r in be._joined(be._asked(work))]


@pytest.fixture
def be(compiled) -> CudaBackend:
    return CudaBackend(Emulator(compiled, dry=True))


def _parts(be):
    """The arrays of a head, and its requests one by one."""
    a = {
        "x": (5, 6), "weight": (3, 6), "bias": (1, 3), "t": (5, 3), "w": (5,), "z": (5, 3), "loss": (5,), "dz": (5, 3),
        "dx": (5, 6), "batch_loss": (), "total": (), "hits": (),
    }  # fmt: skip
    a = {name: be.empty(shape, "float64") for name, shape in a.items()}
    a["labels"] = be.empty((5,), "int64")
    plus = lambda ns, z, b: z + b  # noqa: E731
    return a, [
        lambda: be.matmul(a["x"], a["weight"], tb=True, out=a["z"]),
        lambda: be.map(plus, a["z"], a["bias"], out=a["z"]),
        lambda: be.softmax_head(
            a["z"], a["t"], a["w"], a["labels"], loss=a["loss"], out=a["dz"], batch_loss=a["batch_loss"],
            total=a["total"], hits=a["hits"],
        ),
        lambda: be.matmul(a["dz"], a["weight"], out=a["dx"]),
    ]  # fmt: skip


def _between(be, place, intruder):
    a, parts = _parts(be)
    order = [*parts[:place], lambda: intruder(a), *parts[place:]]
    return _names(be, lambda: [part() for part in order])


def test_a_head_is_joined_over_what_has_nothing_to_do_with_it(be):
    other = be.empty((3, 6), "float64")

    def gradient(a):
        be.matmul(a["dz"], a["x"], ta=True, out=other)

    assert _between(be, 3, gradient) == ["dense_head", "matmul"]


@pytest.mark.parametrize(
    ("place", "name", "joined"),
    [
        (1, "x", "dense_head"), (1, "z", None), (2, "weight", None), (2, "bias", None), (2, "x", None),
        (3, "dz", None), (3, "weight", None), (1, "t", "dense_head"),
    ],
)  # fmt: skip
def test_a_head_is_not_joined_over_what_writes_its_arrays(be, place, name, joined):
    double = lambda ns, x: 2.0 * x  # noqa: E731
    names = _between(be, place, lambda a: be.map(double, a[name], out=a[name]))
    # x may be written after the product has read it, but then the product cannot wait for the head
    assert ("dense_head" in names) == (joined == "dense_head" and name == "t")


def test_logits_that_are_read_in_between_are_there_in_time(be):
    copy = be.empty((5, 3), "float64")
    names = _between(be, 2, lambda a: be.map(lambda ns, z: z + 0.0, a["z"], out=copy))
    assert "dense_head" not in names


def test_too_many_classes_or_weights_keep_their_own_launches(be):
    for classes, width in ((33, 8), (10, 2000)):
        x, weight = be.empty((4, width), "float32"), be.empty((classes, width), "float32")
        assert classes * 4 > joined.LOGITS or classes * width * 4 > joined.SHARED_WEIGHTS
        head = fusion.Request(
            CudaBackend.softmax_head, (x, x, x, x), {"loss": x, "out": x}, be.runtime.address
        )
        assert not fusion._head_fits(head, x, weight, x, x, x, x)


def test_another_formula_than_the_sum_is_left_alone(be):
    x, weight, bias, z = (be.empty(s, "float64") for s in ((5, 6), (3, 6), (1, 3), (5, 3)))
    for formula, name in (
        (lambda ns, z, b: z + b, "affine"), (lambda ns, z, b: ns.maximum(z + b, 0.0), "affine"),
        (lambda ns, z, b: z - b, "map"), (lambda ns, z, b: ns.maximum(z + b, 0.1), "map"),
    ):  # fmt: skip

        def work(formula=formula):
            be.matmul(x, weight, tb=True, out=z)
            be.map(formula, z, bias, out=z)

        assert _names(be, work)[-1] == name


def test_sums_over_other_axes_or_other_arrays_are_left_alone(be):
    x, other, long, wide = (be.empty(s, "float64") for s in ((5, 6), (5, 6), (5,), (6,)))
    double = lambda ns, x: 2.0 * x  # noqa: E731

    def work(axis, of, out):
        be.map(double, x, out=x)
        be.sum(of, axis=axis, out=out)

    assert _names(be, lambda: work(-2, x, wide)) == ["map_columns"]
    assert _names(be, lambda: work(-1, x, long)) == ["map", "sum"]
    assert _names(be, lambda: work(-2, other, wide)) == ["map", "sum"]


# --- products with a bias -----------------------------------------------------------------------------------
def test_where_the_library_has_no_such_product_the_operations_are_done(compiled):
    def run(be):
        be.runtime.epilogues = False
        x, weight = be.asarray(np.arange(10.0).reshape(2, 5), None), be.asarray(np.ones((3, 5)), None)
        bias, z = be.asarray(np.array([[0.0, -20.0, 1.0]]), None), be.empty((2, 3), "float64")

        def work():
            be.matmul(x, weight, tb=True, out=z)
            be.map(lambda ns, z, b: ns.maximum(z + b, 0.0), z, bias, out=z)

        return z, be.capture(work)

    z, replay = ready(compiled, run)
    np.testing.assert_array_equal(z, [[10.0, 0.0, 11.0], [35.0, 15.0, 36.0]])
    assert [op.what.partition("_")[0] for op in replay.record] == ["multiply", "map"]


def test_a_bias_of_every_member():
    x, w = np.empty((128, 784), "f4"), np.empty((256, 32, 784), "f4")
    beside, bias = np.empty((128, 256, 32), "f4").transpose(1, 0, 2), np.empty((256, 1, 32), "f4")
    merged = with_bias(describe(x, w, False, True, beside), bias, beside, True)
    assert (merged.batch, merged.m, merged.bias) == (1, 256 * 32, 0)
    apart = np.empty((256, 2, 32), "f4")[:, :1]
    assert with_bias(describe(x, w, False, True, beside), apart, beside, True) is None
    h, w2, y = (np.empty(s, "f4") for s in ((256, 128, 32), (256, 10, 32), (256, 128, 10)))
    assert with_bias(describe(h, w2, False, True, y), np.empty((256, 1, 10), "f4"), y, False).bias == 10
    shared = describe(h, w2[0], False, True, y)
    assert (shared.batch, with_bias(shared, np.empty((1, 10), "f4"), y, False).bias) == (1, 0)
    assert with_bias(shared, np.empty((256, 1, 10), "f4"), y, False) is None
    assert (
        with_bias(describe(x, w[0], False, True, beside[0].copy()), np.empty((1, 32), "f8"), y[0], False)
        is None
    )


# --- formulas with sums ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(1, 1), (40, 33), (1300, 5), (3, 20, 40), (2, 1100, 3)])
def test_a_formula_and_its_sums(compiled, shape):
    random = np.random.default_rng(0)
    x, dy = random.normal(size=shape), random.normal(size=shape)
    row = random.normal(size=(*shape[:-2], 1, shape[-1]))

    def run(be):
        a, b, c = be.asarray(x, None), be.asarray(dy, None), be.asarray(row, None)
        sums = be.empty((*shape[:-2], shape[-1]), "float64")

        def work():
            be.map(lambda ns, dy, x, r: dy * (1.0 - x * x) + r, b, a, c, out=b)
            be.sum(b, axis=-2, out=sums)

        return b, sums, be.capture(work)

    got, sums, replay = ready(compiled, run)
    want = dy * (1 - x * x) + row
    np.testing.assert_allclose(got, want, rtol=1e-14)
    np.testing.assert_allclose(sums, want.sum(axis=-2), rtol=1e-10, atol=1e-12)
    pieces = shape[-2] > backend.sums.COLUMN_PIECE
    assert [op.what.rpartition("_")[0] for op in replay.record] == ["map_columns"] + ["sum_columns"] * pieces


def test_members_side_by_side_are_summed_each_for_itself(compiled):
    values = np.random.default_rng(0).normal(size=(20, 3, 7))

    def run(be):
        beside = be.asarray(values, None).transpose(1, 0, 2)
        sums = be.empty((3, 7), "float64")

        def work():
            be.map(lambda ns, x: 2.0 * x, beside, out=beside)
            be.sum(beside, axis=-2, out=sums)

        be.capture(work)
        return beside, sums

    beside, sums = ready(compiled, run)
    np.testing.assert_array_equal(beside, 2 * values.transpose(1, 0, 2))
    np.testing.assert_allclose(sums, 2 * values.sum(axis=0), rtol=1e-12)


def test_networks_of_any_depth(be):
    x = be.empty((4, 4), "float64")
    weights = [be.empty((4, 4), "float64") for _ in range(1200)]
    bias, flat = be.empty((1, 4), "float64"), be.empty((4,), "float64")
    plus = lambda ns, z, b: z + b  # noqa: E731

    def work():
        h = x
        for w, z in zip(weights, weights[1:] + weights[:1], strict=True):
            be.matmul(h, w, tb=True, out=z)
            be.map(plus, z, bias, out=z)
            h = z
        be.matmul(x, weights[0], tb=True, out=x)
        be.map(plus, x, flat, out=x)  # a bias without an axis for the batch

    assert _names(be, work) == ["affine"] * 1200 + ["matmul", "map"]


def test_orders_can_be_drawn_in_a_captured_step(be):
    out = be.empty((10,), "int64")
    assert _names(be, lambda: be.permutation(seed=1, epoch=2, out=out)) == ["permutation"]


def test_where_no_step_is_captured_nothing_is_joined(compiled):
    assert backend.CudaBackend.fuses
    names = []
    be = CudaBackend(Emulator(compiled, dry=True))
    be.captures = False
    launch = be.runtime.launch
    be.runtime.launch = lambda name, *rest: (names.append(name), launch(name, *rest))
    xpnet.fit(xpnet.MLP([9, 7, 4], device=be), (X, Y), epochs=1, verbose=False)
    assert any(n.startswith("softmax_head") for n in names)
    assert not any(n.startswith(("dense_head", "map_columns")) for n in names)


# --- updates in pieces ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options", [{}, {"l2": 0.1, "clip_value": 0.1}, {"clip_norm": 0.01}, {"max_norm": 0.5}]
)
def test_an_update_in_pieces_is_the_same_to_the_bit(compiled, monkeypatch, options):
    def run(be):
        return _steps(be, True, {"activation": "relu"}, regularization=Regularization(**options))

    names, want = ready(compiled, run)
    monkeypatch.setattr(fusion, "UPDATE", 24)
    apart, got = ready(compiled, run)
    assert len(apart) > len(names)
    for key, value in want.items():
        assert np.asarray(got[key]).tobytes() == np.asarray(value).tobytes(), key


def test_the_update_of_a_layer_waits_for_its_own_gradient_only(be, monkeypatch):
    monkeypatch.setattr(fusion, "UPDATE", 20)
    grads, weights, x, dy = (be.empty(s, "float64") for s in ((48,), (48,), (3, 4), (3, 6)))
    rate = be.empty((1,), "float64")
    first, second = grads[:24].reshape(6, 4), grads[24:].reshape(6, 4)

    def work():
        be.matmul(dy, x, ta=True, out=second)
        be.map(lambda ns, x: 2.0 * x, x, out=x)
        be.matmul(dy, x, ta=True, out=first)
        be.map(lambda ns, w, g, r: w - r * g, weights, grads, rate, out=weights)

    requests = be._joined(be._asked(work))
    assert [r.name for r in requests] == ["matmul", "map", "map", "matmul", "map"]
    assert requests[1].result.shape == requests[4].result.shape == (24,)
    assert dependencies(be.capture(work).record) == [set(), {0}, {0}, {2}, {3}]


# --- results in bfloat16 ----------------------------------------------------------------------------------
@pytest.mark.parametrize("width", [8, 13])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_results_are_rounded_as_they_are_written(compiled, lead, width):
    random = np.random.default_rng(0)
    x, w = random.normal(size=(*lead, 20, width)), random.normal(size=(*lead, 5, width))
    slope = random.normal(size=(*lead, 20, width))

    def run(be):
        a, b, c = (be.asarray(v.astype("f4"), None) for v in (x, w, slope))
        if lead:  # members side by side, as their buffers lie on a device
            a = be.asarray(np.ascontiguousarray(a.transpose(1, 0, 2)), None).transpose(1, 0, 2)
        sums, out = be.empty((*lead, width), "float32"), be.empty((*lead, 20, 5), "float32")
        again = be.empty((*lead, 20, 5), "float32")

        def work():
            be.map(lambda ns, a, c: a * c, a, c, out=a)
            be.sum(a, axis=-2, out=sums)
            be.matmul(a, b, tb=True, out=out)
            be.map(lambda ns, a: ns.tanh(a), a, out=a)
            be.matmul(a, b, tb=True, out=again)

        return a, sums, out, again, be.capture(work)

    fused = ready(compiled, run, precision="bf16")
    names = [op.what.rpartition("_")[0] or op.what for op in fused[-1].record]
    # the formula with its sums and its rounding, w rounded, product, the formula with its rounding, product
    assert names == ["map_columns", "map", "multiply", "map", "multiply"]
    apart = CudaBackend(Emulator(compiled), "bf16")
    apart.fuses = False
    for got, want in zip(fused[:-1], run(apart)[:-1], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("epilogues", [True, False])
def test_a_layer_is_rounded_as_its_bias_is_added_by_a_kernel(compiled, epilogues):
    random = np.random.default_rng(0)

    def run(be):
        be.runtime.epilogues = epilogues
        x, w, b, w2 = (
            be.asarray(random.normal(size=s).astype("f4"), None) for s in ((6, 8), (16, 8), (1, 16), (5, 16))
        )
        h, out = be.empty((6, 16), "float32"), be.empty((6, 5), "float32")

        def work():
            be.matmul(x, w, tb=True, out=h)
            be.map(lambda ns, z, b: ns.maximum(z + b, 0.0), h, b, out=h)
            be.matmul(h, w2, tb=True, out=out)

        replay = be.capture(work)
        bits = be.to_numpy(h).astype("f4").view(np.uint32)
        even = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
        second = be.to_numpy(w2).view(np.uint32)
        second = (second + 0x7FFF + (second >> 16 & 1)) >> 16 << 16
        if not be.runtime.dry:
            np.testing.assert_allclose(out, even.view("f4") @ second.view("f4").T, rtol=1e-5, atol=1e-6)
        return [op.what.rpartition("_")[0] or op.what for op in replay.record]

    # x and the first weights rounded, product with its bias; h rounded; or product, and h rounded with its bias; then
    # the second weights rounded, product
    names = ["map", "map", "multiply", "map", "map", "multiply"]
    assert ready(compiled, run, precision="bf16") == names


def test_a_result_that_changes_before_a_product_reads_it_is_not_rounded(compiled):
    be = CudaBackend(Emulator(compiled, dry=True), "bf16")
    x, w, out = be.empty((4, 8), "float32"), be.empty((5, 8), "float32"), be.empty((4, 5), "float32")
    double = lambda ns, x: 2.0 * x  # noqa: E731

    def work():
        be.map(double, x, out=x)
        be.map(double, x, out=x)
        be.matmul(x, w, tb=True, out=out)
        be.map(double, x, out=x)

    assert _names(be, work) == ["map", "map_rounded", "matmul", "map"]
