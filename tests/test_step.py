"""The training step: by hand, on ragged batches, its sums, and that it allocates nothing once warm."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from xpnet.activations import NAMES
from xpnet.backend import get_backend
from xpnet.backend.reference import ReferenceBackend
from xpnet.losses import get_loss
from xpnet.mlp import MLP
from xpnet.optim import SGD, AdaGrad, Adam, AdamW, RMSProp
from xpnet.training.examples import Examples
from xpnet.training.passes import Pass, Targets
from xpnet.training.step import TrainingStep
from xpnet.training.update import Regularization

BACKENDS = [pytest.param(get_backend("cpu"), id="cpu"), pytest.param(ReferenceBackend(np), id="reference")]


def _set(model, *values):
    model.set_weights({name: np.asarray(v, float) for name, v in zip(model.params, values, strict=True)})


# --- by hand -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("be", BACKENDS)
def test_a_step_worked_out_by_hand(be):
    model = MLP([2, 2, 1], activation="sigmoid", dtype="float64", device=be)
    model.task = "regression"
    _set(model, [[0.5, -0.5], [1.0, 0.0]], [0.5, -1.0], [[2.0, -4.0]], [1.0])
    x, y = np.array([[1.0, 2.0]]), np.array([[1.0]])
    step = TrainingStep(model, get_loss("squared_error"), Examples(x, 1, targets=y), SGD(lr=0.1))
    step(np.array([0]))
    # z = (0.5 - 1 + 0.5, 1 - 1) = (0, 0), so the hidden units give 0.5 each
    # h = 2 * 0.5 - 4 * 0.5 + 1 = 0; the loss is (0 - 1)^2 / 2 = 0.5 and its slope -1
    assert float(step.tally.last_loss()) == 0.5
    # output layer: dW2 = -1 * (0.5, 0.5), db2 = -1
    assert step.grads["layers.1.weight"].tolist() == [[-0.5, -0.5]]
    assert step.grads["layers.1.bias"].tolist() == [-1.0]
    # hidden units get -1 * (2, -4) = (-2, 4), times the sigmoid's slope 0.25: dz = (-0.5, 1)
    assert step.grads["layers.0.weight"].tolist() == [[-0.5, -1.0], [1.0, 2.0]]
    assert step.grads["layers.0.bias"].tolist() == [-0.5, 1.0]
    # and w <- w - 0.1 dw
    w = model.get_weights()
    np.testing.assert_allclose(w["layers.0.weight"], [[0.55, -0.4], [0.9, -0.2]], rtol=1e-15)
    np.testing.assert_allclose(w["layers.0.bias"], [0.55, -1.1], rtol=1e-15)
    np.testing.assert_allclose(w["layers.1.weight"], [[2.05, -3.95]], rtol=1e-15)
    np.testing.assert_allclose(w["layers.1.bias"], [1.1], rtol=1e-15)


@pytest.mark.parametrize("be", BACKENDS)
def test_one_neuron_is_logistic_regression(be):
    model = MLP([2, 1], dtype="float64", device=be)
    model.task = "classification"
    _set(model, [[0.0, 0.0]], [0.0])
    x, y = np.array([[1.0, 2.0], [-1.0, 4.0]]), np.array([[1.0], [0.0]])
    step = TrainingStep(model, get_loss("bce"), Examples(x, 2, targets=y), SGD(lr=1.0))
    step(np.array([0, 1]))
    # p = 1/2 for both: dz = (-0.5, 0.5) / 2; dw = -0.25 (1, 2) + 0.25 (-1, 4) = (-0.5, 0.5), db = 0
    assert float(step.tally.last_loss()) == pytest.approx(np.log(2.0), rel=1e-15)
    assert model.get_weights()["layers.0.weight"].tolist() == [[0.5, -0.5]]
    assert model.get_weights()["layers.0.bias"].tolist() == [0.0]


@pytest.mark.parametrize("be", BACKENDS)
def test_one_neuron_with_hinge_is_a_linear_support_vector_machine(be):
    model = MLP([2, 1], dtype="float64", device=be)
    model.task = "classification"
    _set(model, [[1.0, 0.0]], [0.0])
    x, y = np.array([[0.5, 1.0], [3.0, 0.0], [-2.0, 1.0]]), np.array([[1.0], [1.0], [1.0]])
    step = TrainingStep(
        model, get_loss("hinge"), Examples(x, 3, targets=y), SGD(lr=0.3), Regularization(l2=0.5)
    )
    step(np.arange(3))
    # margins 0.5, 3 and -2: losses 0.5, 0 and 3; the first and the last pull with -y x / 3
    assert float(step.tally.last_loss()) == pytest.approx(3.5 / 3, rel=1e-15)  # the penalty is not in it
    pull = -(x[0] + x[2]) / 3.0
    np.testing.assert_allclose(
        model.get_weights()["layers.0.weight"][0], [1.0, 0.0] - 0.3 * (pull + 0.5 * np.array([1.0, 0.0]))
    )


# --- batches and sums --------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(50, 6))
LABELS = np.random.default_rng(1).integers(0, 4, 50)


def build(be="cpu", dtype="float64", n_models=None, optimizer=None, weights=None, **options):
    model = MLP([6, 8, 4], dtype=dtype, device=be, n_models=n_models, **options)
    model.task = "classification"
    e = Examples(model.be.asarray(X, dtype), 50, labels=LABELS, weights=weights)
    return TrainingStep(model, get_loss("cross_entropy"), e, optimizer or Adam(lr=0.01))


@pytest.mark.parametrize("n_models", [None, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_ragged_last_batch_equals_the_same_rows_alone(dtype, n_models):
    a, b = build(dtype=dtype, n_models=n_models), build(dtype=dtype, n_models=n_models)
    a(np.arange(32))
    a(np.arange(32, 50))
    a(np.arange(32))
    # b never sees a large batch: take the state after each of a's steps from a third run
    b(np.arange(32))
    fresh = build(dtype=dtype, n_models=n_models)
    fresh.model.weights[...] = b.model.weights
    for name, moment in b.update.moments.items():
        fresh.update.moments[name][...] = moment
    fresh.n_updates = 1
    fresh(np.arange(32, 50))
    np.testing.assert_array_equal(fresh.tally.last_loss(), build_after(b, np.arange(32, 50)))
    fresh(np.arange(32))
    np.testing.assert_array_equal(fresh.model.weights, a.model.weights)


def build_after(step, rows):
    step(rows)
    return step.tally.last_loss().copy()


@pytest.mark.parametrize("n_models", [None, 3])
def test_captured_steps_equal_the_reference_on_mixed_batches(n_models):
    options = {"n_models": n_models, "dropout": 0.3, "input_noise": 0.1, "activation": "prelu"}
    a, b = build("cpu", **options), build(ReferenceBackend(np), **options)
    g = np.random.default_rng(2)
    for size in (32, 7, 32, 1, 50, 7, 32, 1, 50):
        rows = g.permutation(50)[:size]
        a(rows)
        b(rows)
        np.testing.assert_allclose(a.tally.last_loss(), b.tally.last_loss(), rtol=1e-6)
    # noise is made from float32 numbers, so the two round it differently
    np.testing.assert_allclose(a.model.weights, b.model.weights, rtol=1e-5, atol=1e-6)


def test_an_evaluation_between_steps_changes_nothing():
    a, b = build(dropout=0.5), build(dropout=0.5)
    judge = Pass(b.model, b.loss, b.examples)
    for _ in range(4):
        a(np.arange(20))
        b(np.arange(20))
        judge.run(np.arange(50), 50)
        b.model.outputs(X)
    np.testing.assert_array_equal(a.model.weights, b.model.weights)


@pytest.mark.parametrize("be", BACKENDS)
@pytest.mark.parametrize("n_models", [None, 3])
def test_totals_are_sums_over_examples(be, n_models):
    step = build(be, n_models=n_models, optimizer=SGD(lr=0.0))
    totals = step.run(np.arange(50), 16)  # 16, 16, 16, 2
    h = step.model.outputs(X)
    log_p = h - np.log(np.exp(h).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(totals[0], -log_p[..., np.arange(50), LABELS].sum(axis=-1), rtol=1e-12)
    assert (totals[1] == 50.0).all()
    np.testing.assert_array_equal(totals[2], (h.argmax(axis=-1) == LABELS).sum(axis=-1))
    assert totals.shape == (3, *step.model.lead)
    np.testing.assert_array_equal(step.run(np.arange(50), 16)[1:], totals[1:])  # `run` starts from zero


def test_totals_with_weights_count_every_right_answer_once():
    w = np.random.default_rng(3).uniform(0.1, 2.0, 50)
    step = build(weights=w, optimizer=SGD(lr=0.0))
    totals = step.run(np.arange(50), 16)
    h = step.model.outputs(X)
    log_p = h - np.log(np.exp(h).sum(axis=-1, keepdims=True))
    np.testing.assert_allclose(totals[0], -(w * log_p[np.arange(50), LABELS]).sum(), rtol=1e-12)
    assert totals[1] == pytest.approx(w.sum(), rel=1e-13)
    assert totals[2] == (h.argmax(axis=-1) == LABELS).sum()


@pytest.mark.parametrize("be", BACKENDS)
@pytest.mark.parametrize("width", [1, 4])
def test_right_answers_of_yes_or_no_outputs_are_shares_of_a_row(be, width):
    y = (np.random.default_rng(9).random((50, width)) < 0.5).astype(float)
    model = MLP([6, width], dtype="float64", device=be)
    model.task = "classification" if width == 1 else "multilabel"
    judge = Pass(model, get_loss("bce"), Examples(X, 50, targets=y))
    expected = ((model.outputs(X) > 0.0) == y).mean(axis=1).sum()
    assert judge.run(np.arange(50), 16)[2] == pytest.approx(expected, rel=1e-13)


def test_totals_can_be_set():
    a, b = build(), build()
    a.run(np.arange(32), 16)
    b.tally.set_totals(a.tally.totals())
    b.model.weights[...] = a.model.weights
    for name in b.update.moments:
        b.update.moments[name][...] = a.update.moments[name]
    b.n_updates = a.n_updates
    a(np.arange(32, 48))
    b(np.arange(32, 48))
    np.testing.assert_array_equal(a.tally.totals(), b.tally.totals())


@pytest.mark.parametrize("be", BACKENDS)
def test_bytes_are_scaled_on_the_way(be):
    raw = np.random.default_rng(4).integers(0, 256, (50, 6), dtype=np.uint8)
    results = []
    for x, factors in ((raw, {"scale": 1 / 255, "shift": -0.5}), (raw / 255 - 0.5, {})):
        model = MLP([6, 4], dtype="float64", device=be)
        model.task = "classification"
        e = Examples(x, 50, labels=LABELS, **factors)
        step = TrainingStep(model, get_loss("cross_entropy"), e, SGD(lr=0.5))
        step.run(np.arange(50), 20)
        results.append(model.get_weights()["layers.0.weight"])
    np.testing.assert_allclose(*results, rtol=1e-12)
    assert raw.dtype == np.uint8


def test_the_same_rows_twice_count_twice():
    a, b = build(optimizer=SGD(lr=0.1)), build(optimizer=SGD(lr=0.1))
    a(np.array([3, 3, 5, 5]))
    b(np.array([3, 5]))
    np.testing.assert_allclose(a.model.weights, b.model.weights, rtol=1e-13)


# --- memory ------------------------------------------------------------------------------------------

# NumPy iterates over operands that broadcast through buffers of at most 8192 elements: 64 KiB for each of two
# int64 operands. Nothing else may be asked for. The smallest array of a batch or of the parameters is larger.
LIMIT = 2 * 64 * 1024 + 8 * 1024
ROWS, SIZES = 1024, (280, 128, 40)
BIG = {
    "float32": np.random.default_rng(5).normal(size=(ROWS, SIZES[0])).astype(np.float32),
    "uint8": np.random.default_rng(6).integers(0, 256, (ROWS, SIZES[0]), dtype=np.uint8),
}
BIG["float64"] = BIG["float32"].astype(np.float64)
CLASSES = np.random.default_rng(7).integers(0, SIZES[-1], ROWS)
ROW_TARGETS = np.random.default_rng(8).uniform(size=(ROWS, SIZES[-1]))


def peak_of_a_warm_step(
    loss="softmax_cross_entropy",
    optimizer=None,
    x="float32",
    dtype="float32",
    targets=None,
    weighted=False,
    rows=False,
    task="classification",
    n_models=None,
    regularization=None,
    batch=ROWS,
    **options,
):
    model = MLP(SIZES, dtype=dtype, n_models=n_models, **options)
    model.task = task
    e = Examples(
        BIG[x if x == "uint8" else dtype],
        ROWS,
        labels=None if rows else CLASSES,
        targets=ROW_TARGETS.astype(dtype) if rows else None,
        weights=np.ones(ROWS, dtype) if weighted else None,
        scale=1 / 255 if x == "uint8" else 1.0,
        shift=-0.5 if x == "uint8" else 0.0,
    )
    step = TrainingStep(model, get_loss(loss), e, optimizer or SGD(), regularization, targets)
    index = np.arange(batch)
    for _ in range(2):  # the first makes buffers and captures, the second repeats
        step(index)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        step(index)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4096  # and nothing is kept
    return peak - before


MEMORY = [{"activation": a} for a in (*NAMES, "prelu", "maxout:3") if a != "step"] + [
    {"optimizer": SGD(momentum=0.9)},
    {"optimizer": SGD(momentum=0.9, nesterov=True)},
    {"optimizer": AdaGrad()},
    {"optimizer": RMSProp()},
    {"optimizer": Adam()},
    {"optimizer": AdamW()},
    {"regularization": Regularization(l1=0.1, l2=0.1, clip_value=1.0)},
    {"regularization": Regularization(clip_norm=1.0)},
    {"regularization": Regularization(max_norm=1.0)},
    {"dropout": 0.5, "input_dropout": 0.2, "input_noise": 0.1},
    {"dropout": 0.5, "input_dropout": 0.2, "input_noise": 0.1, "dtype": "float64"},
    {"loss": "hinge"},
    {"loss": "bce"},
    {"loss": "bce", "task": "multilabel", "rows": True},
    {"loss": "mse", "task": "regression", "rows": True},
    {"loss": "mae", "task": "regression", "rows": True},
    {"loss": "huber", "task": "regression", "rows": True},
    {"loss": "poisson", "task": "regression", "rows": True},
    {"loss": "quantile", "task": "regression", "rows": True},
    {"x": "uint8"},
    {"x": "uint8", "dtype": "float64"},
    {"weighted": True},
    {"rows": True},
    {"targets": Targets(label_smoothing=0.1)},
    {"targets": Targets(label_smoothing=0.1), "rows": True},
    {"targets": Targets(infogain=np.eye(SIZES[-1]))},
    {
        "n_models": 2,
        "optimizer": Adam(lr=[0.1, 0.2]),
        "dropout": 0.5,
        "regularization": Regularization(l2=[0.1, 0], clip_norm=1.0, max_norm=1.0),
    },
]


@pytest.mark.parametrize("options", MEMORY, ids=lambda o: " ".join(f"{k}={v}" for k, v in o.items())[:60])
def test_a_warm_step_allocates_nothing(options):
    assert min(ROWS * SIZES[-1] * 4, SIZES[0] * SIZES[1] * 4) > LIMIT
    assert peak_of_a_warm_step(**options) < LIMIT


def test_the_peak_does_not_depend_on_the_batch():
    peaks = [peak_of_a_warm_step(optimizer=Adam(), dropout=0.5, batch=b) for b in (512, 1024)]
    assert abs(peaks[0] - peaks[1]) < 4096
