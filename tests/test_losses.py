"""Losses: values and gradients by loops and SciPy, stability at extreme logits, targets, weights, names."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit, log_expit, logsumexp, softmax

from xpnet.backend import get_backend
from xpnet.backend.reference import ReferenceBackend
from xpnet.errors import ConfigError
from xpnet.losses import NAMES, get_loss
from xpnet.mlp import MLP
from xpnet.optim import SGD
from xpnet.training.examples import Examples
from xpnet.training.passes import Pass, Targets
from xpnet.training.step import TrainingStep

BACKENDS = {"cpu": get_backend("cpu"), "reference": ReferenceBackend(np)}
B, C = 7, 5


def evaluate(be, spec, h, t, w=None, dtype="float64"):
    """Return loss (..., B) and dh (..., B, C)."""
    h, t = np.asarray(h, dtype), np.asarray(t, dtype)
    w = np.ones(t.shape[-2], dtype) if w is None else np.asarray(w, dtype)
    loss, dh = np.empty(h.shape[:-1], dtype), np.empty_like(h)
    memory: dict[str, np.ndarray] = {}
    kept = h.copy(), t.copy(), w.copy()
    get_loss(spec)(be, h, t, w, loss=loss, dh=dh, work=lambda n: memory.setdefault(n, np.empty_like(h)))
    for before, after in zip(kept, (h, t, w), strict=True):
        np.testing.assert_array_equal(before, after)
    return loss, dh


def _huber(e, delta):
    return e * e / 2 if abs(e) <= delta else delta * (abs(e) - delta / 2)


# name -> loss of one output and its derivative, as scalar formulas
SCALAR = {
    "binary_cross_entropy": (
        lambda h, t: -t * log_expit(h) - (1 - t) * log_expit(-h),
        lambda h, t: expit(h) - t,
    ),
    "squared_error": (lambda h, t: (h - t) ** 2 / 2, lambda h, t: h - t),
    "absolute_error": (lambda h, t: abs(h - t), lambda h, t: np.sign(h - t)),
    "huber": (lambda h, t: _huber(h - t, 1.0), lambda h, t: max(-1.0, min(1.0, h - t))),
    "huber:2.5e-1": (lambda h, t: _huber(h - t, 0.25), lambda h, t: max(-0.25, min(0.25, h - t))),
    "poisson": (lambda h, t: math.exp(h) - t * h, lambda h, t: math.exp(h) - t),
    "quantile": (lambda h, t: abs(h - t) / 2, lambda h, t: np.sign(h - t) / 2),
    "quantile:0.9": (
        lambda h, t: max(0.9 * (t - h), 0.1 * (h - t)),
        lambda h, t: 0.1 if h > t else -0.9 if h < t else 0.0,
    ),
}


def _targets(name: str, g: np.random.Generator) -> np.ndarray:
    if name == "binary_cross_entropy":
        return g.choice([0.0, 1.0, 0.3], (B, C))
    return g.poisson(2.0, (B, C)).astype(float) if name == "poisson" else g.normal(size=(B, C))


@pytest.mark.parametrize("be", BACKENDS.values(), ids=BACKENDS)
@pytest.mark.parametrize("name", SCALAR)
def test_sums_over_outputs(name, be):
    g = np.random.default_rng(0)
    h, t, w = 2.0 * g.normal(size=(B, C)), _targets(name, g), g.uniform(0.1, 2.0, B)
    h[0] = t[0]  # where the slope of an absolute error jumps, it is 0
    value, slope = SCALAR[name]
    loss, dh = evaluate(be, name, h, t, w)
    np.testing.assert_allclose(
        loss, [sum(value(h[b, c], t[b, c]) for c in range(C)) for b in range(B)], rtol=1e-13
    )
    expected = [[w[b] * slope(h[b, c], t[b, c]) for c in range(C)] for b in range(B)]
    np.testing.assert_allclose(dh, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("be", BACKENDS.values(), ids=BACKENDS)
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4, 1e300])
def test_softmax_cross_entropy(scale, be):
    g = np.random.default_rng(1)
    h, labels, w = scale * g.normal(size=(B, C)), g.integers(0, C, B), g.uniform(0.1, 2.0, B)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        loss, dh = evaluate(be, "softmax_cross_entropy", h, np.eye(C)[labels], w)
    with np.errstate(over="ignore"):
        expected = logsumexp(h, axis=1) - h[np.arange(B), labels]
    np.testing.assert_allclose(loss, expected, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(
        dh, w[:, None] * (softmax(h, axis=1) - np.eye(C)[labels]), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("be", BACKENDS.values(), ids=BACKENDS)
def test_softmax_cross_entropy_at_extreme_logits_in_float32(be):
    h = [[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [88.0, 89.0, 90.0], [3e38, -3e38, 0.0], [0.0, 0.0, 0.0]]
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        loss, dh = evaluate(
            be, "softmax_cross_entropy", h[:3] + h[4:], np.eye(3)[[0, 0, 0, 0]], dtype="float32"
        )
    np.testing.assert_allclose(
        loss, [0.0, 2e4, logsumexp([88.0, 89.0, 90.0]) - 88.0, math.log(3.0)], rtol=1e-6
    )
    np.testing.assert_allclose(dh[:2], [[0, 0, 0], [-1, 1, 0]], atol=1e-7)
    np.testing.assert_allclose(dh.sum(axis=1), 0.0, atol=1e-6)


@pytest.mark.parametrize("be", BACKENDS.values(), ids=BACKENDS)
def test_binary_cross_entropy_at_extreme_logits_in_float32(be):
    h = np.array([[1e4], [-1e4], [1e4], [-1e4], [0.0]])
    t = np.array([[1.0], [0.0], [0.0], [1.0], [1.0]])
    with np.errstate(over="raise", invalid="raise"):
        loss, dh = evaluate(be, "bce", h, t, dtype="float32")
    np.testing.assert_allclose(loss, [0.0, 0.0, 1e4, 1e4, math.log(2.0)], rtol=1e-6)
    np.testing.assert_allclose(dh[:, 0], [0.0, 0.0, 1.0, -1.0, -0.5], atol=1e-7)


@pytest.mark.parametrize("be", BACKENDS.values(), ids=BACKENDS)
def test_soft_labels_and_general_target_rows(be):
    g = np.random.default_rng(2)
    h, t = g.normal(size=(B, C)), g.uniform(0.0, 2.0, (B, C))  # rows need not sum to 1
    loss, dh = evaluate(be, "softmax_cross_entropy", h, t)
    log_p = h - logsumexp(h, axis=1, keepdims=True)
    np.testing.assert_allclose(loss, -(t * log_p).sum(axis=1), rtol=1e-13)
    np.testing.assert_allclose(dh, t.sum(axis=1, keepdims=True) * np.exp(log_p) - t, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("be", BACKENDS.values(), ids=BACKENDS)
def test_softmax_of_two_is_the_binary_cross_entropy_of_the_difference(be):
    h, labels = np.random.default_rng(3).normal(size=(B, 2)), np.arange(B) % 2
    two, _ = evaluate(be, "softmax_cross_entropy", h, np.eye(2)[labels])
    one, _ = evaluate(be, "binary_cross_entropy", h[:, 1:] - h[:, :1], labels[:, None])
    np.testing.assert_allclose(two, one, rtol=1e-13)


@pytest.mark.parametrize("be", BACKENDS.values(), ids=BACKENDS)
def test_binary_hinge(be):
    h = np.array([[2.0], [1.0], [0.5], [-3.0], [0.0], [-1.0]])
    y = np.array([1.0, 1.0, 1.0, 1.0, -1.0, -1.0])
    loss, dh = evaluate(be, "hinge", h, y[:, None], w=np.full(6, 0.5))
    np.testing.assert_array_equal(loss, [max(0.0, 1.0 - y[b] * h[b, 0]) for b in range(6)])
    np.testing.assert_array_equal(dh[:, 0], [0.0, 0.0, -0.5, -0.5, 0.5, 0.0])


@pytest.mark.parametrize("be", BACKENDS.values(), ids=BACKENDS)
@pytest.mark.parametrize("lead", [(), (3,)])
def test_multiclass_hinge_by_loops(lead, be):
    g = np.random.default_rng(4)
    h, labels, w = g.normal(size=(*lead, B, C)), g.integers(0, C, B), g.uniform(0.5, 2.0, B)
    loss, dh = evaluate(be, "hinge", h, np.eye(C)[labels], w)
    for m in np.ndindex(lead):
        for b in range(B):
            total, gradient = 0.0, np.zeros(C)
            for j in range(C):
                margin = h[(*m, b, j)] - h[(*m, b, labels[b])] + 1.0
                if j != labels[b] and margin > 0.0:
                    total += margin
                    gradient[j] += w[b]
                    gradient[labels[b]] -= w[b]
            assert loss[(*m, b)] == pytest.approx(total, rel=1e-13, abs=1e-15)
            np.testing.assert_allclose(dh[(*m, b)], gradient, rtol=1e-13)


@pytest.mark.parametrize("be", BACKENDS.values(), ids=BACKENDS)
@pytest.mark.parametrize("name", [*NAMES, "huber:0.3", "quantile:0.2"])
def test_gradient_is_the_central_difference(name, be):
    g = np.random.default_rng(5)
    h, w, step = g.normal(size=(B, C)), g.uniform(0.1, 2.0, B), 1e-6
    t = np.eye(C)[g.integers(0, C, B)] if get_loss(name).classify else g.uniform(0.0, 2.0, (B, C))
    _, dh = evaluate(be, name, h, t, w)
    for c in range(C):
        shift = step * np.eye(C)[c]
        up, down = (evaluate(be, name, h + s, t)[0] for s in (shift, -shift))
        np.testing.assert_allclose(dh[:, c], w * (up - down) / (2.0 * step), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_members_share_targets_and_do_not_mix(name):
    g = np.random.default_rng(6)
    h, w = g.normal(size=(3, B, C)), g.uniform(0.1, 2.0, B)
    t = np.eye(C)[g.integers(0, C, B)]
    loss, dh = evaluate(BACKENDS["cpu"], name, h, t, w)
    for m in range(3):
        alone = evaluate(BACKENDS["cpu"], name, h[m], t, w)
        np.testing.assert_allclose(loss[m], alone[0], rtol=1e-14)
        np.testing.assert_allclose(dh[m], alone[1], rtol=1e-14, atol=1e-16)


# --- targets as a training step makes them -----------------------------------------------------------


def classifier(h: np.ndarray) -> MLP:
    """A linear model that hands its input through."""
    model = MLP([C, C], dtype="float64", init="zeros")
    model.task = "classification"
    model.set_weights({"layers.0.weight": np.eye(C), "layers.0.bias": np.zeros(C)})
    return model


def losses_of(h, labels, loss="softmax_cross_entropy", **targets) -> np.ndarray:
    """Loss of each example, one batch of one row at a time."""
    run = Pass(classifier(h), get_loss(loss), Examples(h, len(h), labels=labels), targets=Targets(**targets))
    result = []
    for b in range(len(h)):
        run(np.array([b]))
        result.append(float(run.tally.last_loss()))
    return np.array(result)


LOGITS = np.random.default_rng(7).normal(size=(B, C)) * 2.0
LABELS = np.random.default_rng(8).integers(0, C, B)
LOG_P = LOGITS - logsumexp(LOGITS, axis=1, keepdims=True)


def test_integer_labels():
    np.testing.assert_allclose(losses_of(LOGITS, LABELS), -LOG_P[np.arange(B), LABELS], rtol=1e-13)


def test_one_hot_and_soft_targets():
    model = classifier(LOGITS)
    soft = np.random.default_rng(9).dirichlet(np.ones(C), B)
    run = Pass(model, get_loss("cross_entropy"), Examples(LOGITS, B, targets=soft))
    run(np.arange(B))
    assert float(run.tally.last_loss()) == pytest.approx(-(soft * LOG_P).sum() / B, rel=1e-13)
    assert run.tally.totals()[2] == (soft.argmax(axis=1) == LOGITS.argmax(axis=1)).sum()


@pytest.mark.parametrize("s", [0.1, 0.5, 0.99])
def test_label_smoothing(s):
    # (1 - s) times the plain loss plus s times the mean over all classes
    expected = -(1 - s) * LOG_P[np.arange(B), LABELS] - s * LOG_P.mean(axis=1)
    np.testing.assert_allclose(losses_of(LOGITS, LABELS, label_smoothing=s), expected, rtol=1e-13)


def test_information_gain():
    H = np.random.default_rng(10).uniform(0.0, 1.0, (C, C))
    expected = [-sum(H[LABELS[b], k] * LOG_P[b, k] for k in range(C)) for b in range(B)]
    np.testing.assert_allclose(losses_of(LOGITS, LABELS, "infogain", infogain=H), expected, rtol=1e-13)


def test_information_gain_of_the_identity_is_the_cross_entropy():
    plain = losses_of(LOGITS, LABELS)
    np.testing.assert_allclose(losses_of(LOGITS, LABELS, infogain=np.eye(C)), plain, rtol=1e-15)


def test_example_weights():
    w = np.random.default_rng(11).uniform(0.0, 3.0, B)
    each = -LOG_P[np.arange(B), LABELS]
    run = Pass(classifier(LOGITS), get_loss("cross_entropy"), Examples(LOGITS, B, labels=LABELS, weights=w))
    run(np.arange(B))
    assert float(run.tally.last_loss()) == pytest.approx((w * each).sum() / w.sum(), rel=1e-13)
    np.testing.assert_allclose(run.tally.totals()[:2], [(w * each).sum(), w.sum()], rtol=1e-13)


def test_a_batch_without_weight_has_no_gradient():
    model = classifier(LOGITS)
    e = Examples(LOGITS, B, labels=LABELS, weights=np.zeros(B))
    before = model.get_weights()
    step = TrainingStep(model, get_loss("cross_entropy"), e, SGD(lr=1.0))
    step(np.arange(B))
    for name, value in model.get_weights().items():
        np.testing.assert_array_equal(value, before[name])


# --- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("cross_entropy", "softmax_cross_entropy"),
        ("bce", "binary_cross_entropy"),
        ("mse", "squared_error"),
        ("MAE", "absolute_error"),
        ("svm", "hinge"),
        ("infogain", "softmax_cross_entropy"),
        ("huber:1", "huber"),
        ("Squared-Error", "squared_error"),
        ("huber:1e-2", "huber:0.01"),
        ("quantile:0.5", "quantile"),
        ("quantile:0.9999999", "quantile:0.9999999"),
    ],
)
def test_aliases(alias, name):
    loss = get_loss(alias)
    assert loss.name == name
    assert get_loss(loss) is loss


@pytest.mark.parametrize(
    ("spec", "fragment"),
    [
        ("hing", "did you mean 'hinge'"),
        ("squared_eror", "did you mean 'squared_error'"),
        ("xyzzy", "Known: absolute_error"),
        ("hinge:2", "takes no parameter"),
        ("huber:0", "delta > 0"),
        ("huber:-1", "delta > 0"),
        ("huber:nan", "must be finite"),
        ("huber:inf", "must be finite"),
        ("huber:wide", "expected a number after ':'"),
        ("quantile:1", "between 0 and 1"),
        ("quantile:-0.5", "between 0 and 1"),
    ],
)
def test_bad_names(spec, fragment):
    with pytest.raises(ConfigError) as error:
        get_loss(spec)
    assert fragment in str(error.value)


@pytest.mark.parametrize("s", [-0.1, 1.0, math.nan])
def test_bad_label_smoothing(s):
    with pytest.raises(ConfigError, match="label_smoothing must be in"):
        Targets(label_smoothing=s)


@pytest.mark.parametrize(
    ("loss", "targets", "fragment"),
    [
        ("squared_error", {"label_smoothing": 0.1}, "needs a cross-entropy loss"),
        ("hinge", {"label_smoothing": 0.1}, "needs a cross-entropy loss"),
        ("hinge", {"infogain": np.eye(C)}, "needs the softmax_cross_entropy loss"),
    ],
)
def test_targets_that_do_not_fit_the_loss(loss, targets, fragment):
    with pytest.raises(ConfigError, match=fragment):
        TrainingStep(
            classifier(LOGITS),
            get_loss(loss),
            Examples(LOGITS, B, labels=LABELS),
            SGD(),
            None,
            Targets(**targets),
        )


@pytest.mark.parametrize(
    ("loss", "width", "floor"), [("cross_entropy", 3, 0.1 / 3), ("bce", 1, 0.05), ("bce", 3, 0.05)]
)
def test_label_smoothing_of_targets_that_are_rows_already(loss, width, floor):
    g = np.random.default_rng(12)
    h, t = g.normal(size=(B, width)), g.dirichlet(np.ones(width + 1), B)[:, :width]
    model = MLP([width, width], dtype="float64", init="zeros")
    model.task = "classification" if loss == "cross_entropy" else "multilabel"
    model.set_weights({"layers.0.weight": np.eye(width), "layers.0.bias": np.zeros(width)})
    run = Pass(model, get_loss(loss), Examples(h, B, targets=t), targets=Targets(label_smoothing=0.1))
    run(np.arange(B))
    expected, _ = evaluate(BACKENDS["cpu"], loss, h, 0.9 * t + floor)
    assert float(run.tally.last_loss()) == pytest.approx(expected.mean(), rel=1e-13)


def test_information_gain_needs_class_indices():
    e = Examples(LOGITS, B, targets=np.eye(C)[LABELS])
    with pytest.raises(ConfigError, match="needs class indices"):
        TrainingStep(classifier(LOGITS), get_loss("infogain"), e, SGD(), None, Targets(infogain=np.eye(C)))
