"""Gradients of every layer, activation, loss, penalty and target form, against numerical derivatives.

A deterministic generator draws small cases. Each is compared with the complex step, which is exact to
rounding wherever the objective is smooth, so also beside a kink: `where` and `maximum` look at the real part.
Cases whose formula has kinks are compared with central differences as well. Those are wrong where a kink lies
within their step h, which shows without any gradient: across a kink the second difference
J(w+h) - 2J(w) + J(w-h) is of the order of h, elsewhere of h^2. Such a case is drawn again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import array_api_strict
import numpy as np
import pytest

import xpnet
from xpnet import MLP, ConfigError, activations, losses
from xpnet.backend.cpu import CpuBackend
from xpnet.backend.reference import ReferenceBackend
from xpnet.layers import Layer
from xpnet.losses import get_loss
from xpnet.testing import _CENTRAL_STEP, _Objective, check_gradients
from xpnet.training.examples import infer_task
from xpnet.training.passes import Targets
from xpnet.training.update import Regularization

COMPLEX_TOLERANCE, CENTRAL_TOLERANCE = 1e-10, 1e-6

ACTIVATIONS = [n for n in activations.NAMES if n != "step"] + [
    "leaky_relu:0.3", "elu:0.7", "prelu", "prelu:-0.5", "maxout", "maxout:3",
]  # fmt: skip
KINKED = {"relu", "leaky_relu", "elu", "selu", "hard_sigmoid", "hard_tanh", "hard_swish", "prelu", "maxout"}
KINKED_LOSSES = {"hinge", "absolute_error", "huber", "quantile"}
#: loss -> the forms of target it is tried with
FORMS = {
    "softmax_cross_entropy": ["labels", "soft", "smoothed", "infogain", "weighted"],
    "binary_cross_entropy": [
        "one output",
        "multilabel",
        "one output, soft",
        "one output, smoothed",
        "labels",
        "smoothed",
        "weighted",
    ],
    "squared_error": ["values", "labels", "weighted"],
    "hinge": ["one output", "labels", "weighted"],
    "absolute_error": ["values", "weighted"],
    "huber": ["values", "weighted"],
    "huber:0.4": ["values"],
    "poisson": ["counts", "weighted"],
    "quantile": ["values", "weighted"],
    "quantile:0.9": ["values"],
}
PENALTIES = [{}, {"l2": 0.3}, {"l1": 0.2}, {"l1": 0.05, "l2": 0.1}]
NOISES = [
    {}, {"dropout": 0.4}, {"input_dropout": 0.3}, {"input_noise": 0.5},
    {"dropout": 0.2, "input_dropout": 0.2, "input_noise": 0.1},
]  # fmt: skip
MEMBERS = [None, None, 1, 2, 3]


@dataclass
class Case:
    """One model with one batch, and what `check_gradients` is told about it."""

    model: MLP
    x: np.ndarray
    y: np.ndarray
    options: dict[str, Any]
    kinked: bool
    label: str
    device: Any = field(default="cpu", repr=False)

    def error(self, method: str = "complex") -> float:
        return check_gradients(self.model, self.x, self.y, method=method, **self.options)


def draw(activation: str, loss: str, form: str, number: int, device: Any = "cpu", attempt: int = 0) -> Case:
    """Return case `number`; the numbers it draws depend on nothing else."""
    r = np.random.default_rng([number, attempt])
    batch, n_in = int(r.integers(1, 6)), int(r.integers(1, 4))
    width = 1 if form.startswith("one output") else int(r.integers(2, 4))
    if form in ("values", "counts") and r.random() < 0.3:
        width = 1
    hidden = [int(n) for n in r.integers(2, 4, size=int(r.integers(1, 3)))]
    second = ACTIVATIONS[int(r.integers(len(ACTIVATIONS)))]
    names = [activation, second][: len(hidden)]
    penalty, noise, members = (p[int(r.integers(len(p)))] for p in (PENALTIES, NOISES, MEMBERS))
    output = "identity" if r.random() < 0.7 else str(r.choice(["tanh", "softplus", "silu", "leaky_relu"]))
    model = MLP(
        [n_in, *hidden, width], activation=names, output_activation=output, n_models=members,
        seed=int(r.integers(1000)), dtype="float64", device=device, **noise,
    )  # fmt: skip
    # biases too: a hidden unit whose inputs are all dropped must not sit on a kink
    model.set_weights({k: r.uniform(-1.2, 1.2, v.shape) for k, v in model.get_weights().items()})
    x = r.normal(size=(batch, n_in))
    options: dict[str, Any] = {"loss": loss, "step": int(r.integers(100)), **penalty}
    if members and members > 1 and penalty and r.random() < 0.5:  # one per member
        options |= {k: (v * np.arange(members)).tolist() for k, v in penalty.items()}
    y = _targets(r, form, loss, batch, width, options)
    if form in ("labels", "one output", "multilabel"):
        model.task = {"multilabel": "multilabel"}.get(form, "classification")
    kinked = (
        loss.partition(":")[0] in KINKED_LOSSES
        or "l1" in penalty
        or bool(KINKED & {n.partition(":")[0] for n in (*names, output)})
    )
    label = f"case {number}: {names} {output} {loss} {form} {penalty} {noise} members={members}"
    return Case(model, x, y, options, kinked, label)


def _targets(
    r: np.random.Generator, form: str, loss: str, batch: int, width: int, options: dict[str, Any]
) -> np.ndarray:
    get = get_loss(loss)
    if form == "weighted":
        options["sample_weight"] = r.uniform(0.1, 3.0, batch)
        form = "labels" if get.classify else "counts" if get.link == "exp" else "values"
    if form.endswith("smoothed"):
        options["label_smoothing"] = float(r.uniform(0.05, 0.5))
    elif form == "infogain":
        options["infogain"] = r.uniform(0.0, 1.0, (width, width))
    if form == "soft":
        return r.dirichlet(np.ones(width), batch)
    if form == "one output, soft":
        return np.stack([1.0 - (p := r.uniform(size=batch)), p], axis=1)
    if form == "multilabel":
        return r.integers(0, 2, (batch, width))
    if form == "values":
        return r.normal(size=(batch, width))
    if form == "counts":
        return r.poisson(1.5, (batch, width))
    return r.integers(0, max(2, width), batch)


def _all_cases() -> list[tuple[str, str, str, int]]:
    pairs = [(loss, form) for loss, forms in FORMS.items() for form in forms]
    combinations = [(a, loss, form) for a in ACTIVATIONS for loss, form in pairs]
    return [(*c, i) for i, c in enumerate(combinations + combinations + combinations[::2])]


CASES = _all_cases()
GROUPS = {a: [c for c in CASES if c[0] == a] for a in ACTIVATIONS}


def test_there_are_enough_cases():
    assert len(CASES) >= 1000
    assert {c[0] for c in CASES} | {"step"} >= set(activations.NAMES) | {"prelu", "maxout"}
    assert {c[1].partition(":")[0] for c in CASES} == set(losses.NAMES)
    drawn = [draw(*c) for c in CASES[::7]]
    assert {c.model.n_models for c in drawn} == set(MEMBERS)
    assert any(np.size(c.options.get("l2", 0.0)) > 1 for c in drawn)
    assert sum(not c.kinked for c in drawn) > 5


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_complex_step(activation):
    for arguments in GROUPS[activation]:
        case = draw(*arguments)
        error = case.error()
        assert error <= COMPLEX_TOLERANCE, f"{case.label}: error {error:.3g}"


def near_a_kink(case: Case) -> bool:
    """Whether J bends like |w| within the step of the central difference, along any parameter."""
    o = case.options
    function = get_loss(o["loss"])
    task = case.model.task or infer_task(case.y, function, case.model.sizes[-1])
    model = case.model.to(ReferenceBackend(np))
    objective = _Objective(
        model, function, case.x, case.y, task=task, sample_weight=o.get("sample_weight"),
        targets=Targets(label_smoothing=o.get("label_smoothing", 0.0), infogain=o.get("infogain")),
        regularization=Regularization(l1=o.get("l1", 0.0), l2=o.get("l2", 0.0)), step=o["step"],
    )  # fmt: skip
    middle = objective.value()
    for view in model.params.values():
        for index in np.ndindex(*view.shape):
            here = view[index]
            view[index] = here + _CENTRAL_STEP
            bend = objective.value()
            view[index] = here - _CENTRAL_STEP
            bend = bend - 2.0 * middle + objective.value()
            view[index] = here
            # a bend of the slope by d anywhere within h gives up to d h; smooth functions give J'' h^2
            if np.abs(bend).max() > 100.0 * _CENTRAL_STEP**2:
                return True
    return False


def test_central_differences_where_there_are_kinks():
    checked = redrawn = 0
    for arguments in CASES[::4]:
        case = draw(*arguments)
        if not case.kinked:
            continue
        attempt = 0
        while near_a_kink(case):
            attempt += 1
            redrawn += 1
            case = draw(*arguments, attempt=attempt)
        error = case.error("central")
        checked += 1
        assert error <= CENTRAL_TOLERANCE, f"{case.label}, attempt {attempt}: error {error:.3g}"
    assert checked > 150
    assert redrawn < 0.2 * checked


def test_kinks_are_noticed():
    model = MLP([1, 1, 1], activation="relu", dtype="float64")
    model.set_weights({
        "layers.0.weight": np.array([[1.0]]), "layers.0.bias": np.array([-0.5 + 1e-6]),
        "layers.1.weight": np.array([[2.0]]), "layers.1.bias": np.array([0.3]),
    })  # fmt: skip
    case = Case(model, np.array([[0.5]]), np.array([[3.0]]), {"loss": "squared_error", "step": 0}, True, "")
    assert near_a_kink(case)
    assert case.error("central") > 1e-2
    assert case.error("complex") < 1e-12
    case.x = np.array([[0.6]])
    assert not near_a_kink(case)
    assert case.error("central") < 1e-8


@pytest.mark.parametrize("device", [None, "device1"])
def test_complex_step_on_array_api_strict(device):
    be = ReferenceBackend(array_api_strict, device and array_api_strict.Device(device))
    for arguments in CASES[:: 25 if device is None else 60]:
        case = draw(*arguments, device=be)
        error = case.error()
        assert error <= COMPLEX_TOLERANCE, f"{case.label}: error {error:.3g}"


def test_float32_models_are_checked_in_float64():
    model = MLP([3, 4, 2], seed=1, activation="tanh")
    before = model.get_weights()
    assert check_gradients(model, np.eye(3), [0, 1, 0]) < 1e-13
    assert model.dtype == "float32"
    assert model.task is None
    assert all(np.array_equal(before[k], v) for k, v in model.get_weights().items())


def test_a_population_is_checked_member_by_member():
    """An error in one member shows even where another member's gradients are a thousand times larger."""
    model = MLP([3, 3, 2], n_models=2, activation="tanh", dtype="float64")
    x, y = np.random.default_rng(0).normal(size=(4, 3)), np.array([0, 1, 1, 0])
    assert check_gradients(model, x, y, l2=[0.0, 1e4]) < 1e-12
    assert _with_bug(_WrongSecondMember, model).check(x, y) > 1e-2


# --- planted bugs -----------------------------------------------------------------------------------
@dataclass
class _Bugged:
    model: MLP

    def check(self, x: Any, y: Any, **options: Any) -> float:
        return check_gradients(self.model, x, y, **options)


def _with_bug(kind: type[CpuBackend], model: MLP) -> _Bugged:
    return _Bugged(model.to(kind()))


class _WrongSecondMember(CpuBackend):
    def matmul(self, a, b, *, ta=False, tb=False, out):
        super().matmul(a, b, ta=ta, tb=tb, out=out)
        if ta:
            out[1] *= 1.1
        return out


class _SumNotMean(CpuBackend):  # the missing 1/n
    def softmax_cross_entropy(self, z, t, w, *, loss, out):
        return super().softmax_cross_entropy(z, t, np.ones_like(w), loss=loss, out=out)


class _WrongSign(CpuBackend):
    def softmax_cross_entropy(self, z, t, w, *, loss, out):
        return super().softmax_cross_entropy(z, t, -w, loss=loss, out=out)


class _BiasOfOneRow(CpuBackend):
    def sum(self, x, *, axis, out):
        return super().sum(x[..., :1, :] if axis == -2 else x, axis=axis, out=out)


class _OtherMask(CpuBackend):
    def uniform(self, out, *, seeds, stream, counter):
        return super().uniform(out, seeds=[s + 1 for s in seeds], stream=stream, counter=counter)


X = np.random.default_rng(3).normal(size=(5, 3))
Y = np.array([0, 2, 1, 1, 0])


@pytest.mark.parametrize("kind", [_SumNotMean, _WrongSign, _BiasOfOneRow, _OtherMask])
def test_planted_bug_in_a_back_end(kind):
    model = MLP([3, 4, 3], activation="tanh", dtype="float64", dropout=0.3, seed=2)
    assert check_gradients(model, X, Y) < 1e-12
    assert _with_bug(kind, model).check(X, Y) > 1e-3


@pytest.mark.parametrize(
    ("name", "slope"),
    [
        ("tanh", lambda ns, y: 1.0 - y),
        ("sigmoid", lambda ns, y: y * (1.0 + y)),
        ("gelu", lambda ns, z: 0.5 * (1.0 + ns.erf(0.7071067811865476 * z))),  # without z times the density
        ("softplus", lambda ns, z: 1.0 / (1.0 + ns.exp(z))),
    ],
)
def test_planted_bug_in_an_activation(name, slope):
    wrong = replace(activations.get_activation(name), name="wrong", slope=slope, gate=None)
    model = MLP([3, 4, 3], activation=wrong, dtype="float64", seed=2)
    assert check_gradients(model, X, Y) > 1e-4


def test_planted_bug_in_the_penalties(monkeypatch):
    from xpnet.training.update import Update

    model = MLP([3, 4, 3], activation="tanh", dtype="float64", seed=2, bias=0.5)
    assert check_gradients(model, X, Y, l1=0.1, l2=0.3) < 1e-12
    real = Update._gradient
    monkeypatch.setattr(Update, "_gradient", lambda s, ns, w, g, h, decayed: real(s, ns, w, g, h, True))
    assert check_gradients(model, X, Y) < 1e-12
    assert check_gradients(model, X, Y, l2=0.3) > 1e-2  # biases are decayed, too
    monkeypatch.setattr(
        Update, "_gradient", lambda s, ns, w, g, h, decayed: g + 2.0 * h[-1] * w if decayed else g
    )
    assert check_gradients(model, X, Y, l2=0.3) > 1e-2  # lambda w^2 instead of half of it


def test_planted_bug_in_a_loss():
    square = losses.get_loss("squared_error")
    wrong = losses.Loss("squared_error", lambda ns, h, t: ns.square(h - t), square.slope, regress=True)
    model = MLP([3, 4, 3], activation="tanh", dtype="float64", seed=2)
    y = np.random.default_rng(0).normal(size=(5, 3))
    assert check_gradients(model, X, y, loss=square) < 1e-12
    assert check_gradients(model, X, y, loss=wrong) > 1e-2


class _Squared(Layer):
    """y = x^2 / 2, with the right slope x or a wrong one."""

    def __init__(self, n: int, right: bool):
        self.n_in = self.n_out = n
        self.right = right

    def forward(self, x, c):
        c.saved = (x,)
        return c.be.map(_half_square, x, out=c.buffer("y", self.n_out))

    def backward(self, dy, c, *, need_dx):
        return c.be.map(_times if self.right else _times_two, dy, c.saved[0], out=dy) if need_dx else None


def _half_square(ns, x):
    return 0.5 * x * x


def _times(ns, dy, x):
    return dy * x


def _times_two(ns, dy, x):
    return 2.0 * dy * x


class _RightMLP(MLP):
    right = True

    def make_layers(self):
        *hidden, last = super().make_layers()
        return [*hidden, _Squared(last.n_in, self.right), last]


class _WrongMLP(_RightMLP):
    right = False


@pytest.mark.parametrize("members", [None, 2])
def test_a_layer_of_ones_own(members):
    options = {"activation": "tanh", "dtype": "float64", "n_models": members}
    assert check_gradients(_RightMLP([3, 4, 3], **options), X, Y) < 1e-12
    assert check_gradients(_WrongMLP([3, 4, 3], **options), X, Y) > 1e-3


# --- refusals ---------------------------------------------------------------------------------------
def test_step_cannot_be_trained():
    model = MLP([3, 4, 3], activation="step", dtype="float64")
    assert model.outputs(X).shape == (5, 3)
    with pytest.raises(ConfigError, match="step activation has no useful gradient"):
        check_gradients(model, X, Y)
    with pytest.raises(ConfigError, match="step activation has no useful gradient") as error:
        xpnet.fit(model, (X, Y), epochs=1, verbose=False)
    assert error.value.exit_code == 2


def test_step_of_the_output_cannot_be_trained():
    model = MLP([3, 1], output_activation="step", dtype="float64")
    with pytest.raises(ConfigError, match="step activation has no useful gradient"):
        check_gradients(model, X, Y > 0, loss="binary_cross_entropy")


def test_unknown_method():
    with pytest.raises(ConfigError, match="'complex' or 'central', found 'finite'"):
        check_gradients(MLP([3, 3]), X, Y, method="finite")
