"""Optimizers against separate implementations in plain NumPy, over many steps."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from xpnet.backend import get_backend
from xpnet.backend.reference import ReferenceBackend
from xpnet.errors import ConfigError
from xpnet.optim import NAMES, SGD, AdaGrad, Adam, AdamW, RMSProp, get_optimizer
from xpnet.params import ParameterLayout, ParamSpec
from xpnet.training.update import Regularization, Update

BACKENDS = {"cpu": get_backend("cpu"), "reference": ReferenceBackend(np)}
N = 6


class Problem:
    """Weights and a gradient buffer under one `Update`, without any network."""

    def __init__(self, optimizer, start, be=None, dtype="float64", n_models=None, regularization=None):
        be = be or BACKENDS["cpu"]
        layout = ParameterLayout([ParamSpec("w", (np.shape(start)[-1],))], n_models)
        self.w = np.array(start, dtype).reshape(-1)
        self.g = np.zeros_like(self.w)
        self.update = Update(be, layout, self.w, self.g, optimizer, regularization or Regularization(), dtype)
        self.t = 0

    def step(self, gradient, multiplier=1.0):
        self.t += 1
        self.g[...] = np.reshape(gradient, -1)
        self.update.set_numbers(self.t, multiplier)
        self.update.apply()


# --- the same algorithms again, from their papers, one parameter vector at a time --------------------


def sgd(lr, momentum=0.0, nesterov=False):
    v = 0.0

    def step(w, g, t):
        nonlocal v
        v = momentum * v + g
        return w - lr * (g + momentum * v) if nesterov else w - lr * v

    return step


def adagrad(lr, eps=1e-10):
    s = 0.0

    def step(w, g, t):
        nonlocal s
        s = s + g**2
        return w - lr * g / (np.sqrt(s) + eps)

    return step


def rmsprop(lr, rho=0.9, eps=1e-8):
    s = 0.0

    def step(w, g, t):
        nonlocal s
        s = rho * s + (1 - rho) * g**2
        return w - lr * g / (np.sqrt(s) + eps)

    return step


def adam(lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0):
    m = v = 0.0

    def step(w, g, t):
        nonlocal m, v
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        return w - lr * weight_decay * w - lr * m_hat / (np.sqrt(v_hat) + eps)

    return step


PAIRS = {  # name -> (ours, the other)
    "sgd": (SGD(lr=0.1), sgd(0.1)),
    "momentum": (SGD(lr=0.05, momentum=0.9), sgd(0.05, 0.9)),
    "nesterov": (SGD(lr=0.05, momentum=0.8, nesterov=True), sgd(0.05, 0.8, True)),
    "adagrad": (AdaGrad(lr=0.3, eps=1e-3), adagrad(0.3, 1e-3)),
    "rmsprop": (RMSProp(lr=0.01, rho=0.7, eps=1e-4), rmsprop(0.01, 0.7, 1e-4)),
    "adam": (Adam(lr=0.02, beta1=0.8, beta2=0.95, eps=1e-3), adam(0.02, 0.8, 0.95, 1e-3)),
    "adam without averaging": (Adam(lr=0.02, beta1=0.0, beta2=0.0), adam(0.02, 0.0, 0.0)),
    "adamw": (AdamW(lr=0.02, weight_decay=0.3), adam(0.02, weight_decay=0.3)),
}
FACTORIES = {
    "sgd": lambda: sgd(0.1),
    "momentum": lambda: sgd(0.05, 0.9),
    "nesterov": lambda: sgd(0.05, 0.8, True),
    "adagrad": lambda: adagrad(0.3, 1e-3),
    "rmsprop": lambda: rmsprop(0.01, 0.7, 1e-4),
    "adam": lambda: adam(0.02, 0.8, 0.95, 1e-3),
    "adam without averaging": lambda: adam(0.02, 0.0, 0.0),
    "adamw": lambda: adam(0.02, weight_decay=0.3),
}


@pytest.mark.parametrize("be", BACKENDS.values(), ids=BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PAIRS)
def test_thirty_steps(name, dtype, be):
    g = np.random.default_rng(0)
    expected = g.normal(size=N)
    problem = Problem(PAIRS[name][0], expected, be, dtype)
    plain = FACTORIES[name]()
    for t in range(1, 31):
        gradient = g.normal(size=N) + expected
        problem.step(gradient)
        expected = plain(expected, gradient, t)
    tolerance = {"rtol": 1e-12, "atol": 1e-13} if dtype == "float64" else {"rtol": 2e-5, "atol": 2e-6}
    np.testing.assert_allclose(problem.w, expected, **tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", [p[0] for p in PAIRS.values()], ids=PAIRS)
def test_state_keeps_names_shape_and_dtype(optimizer, dtype):
    problem = Problem(optimizer, np.ones(N), dtype=dtype)
    buffers = dict(problem.update.moments)
    assert tuple(buffers) == optimizer.state
    assert all((b == 0.0).all() for b in buffers.values())
    for _ in range(3):
        problem.step(np.ones(N))
    for name, buffer in problem.update.moments.items():
        assert buffer is buffers[name]
        assert buffer.shape == (N,)
        assert buffer.dtype == problem.w.dtype == dtype
        assert (buffer != 0.0).all()


def test_plain_sgd_keeps_no_state():
    assert SGD().state == ()
    assert SGD(momentum=0.9).state == ("velocity",)
    assert SGD(momentum=[0.0, 0.9]).state == ("velocity",)
    assert Adam().state == ("mean", "square")


@pytest.mark.parametrize("optimizer", [p[0] for p in PAIRS.values()], ids=PAIRS)
def test_the_multiplier_scales_the_learning_rate(optimizer):
    slow = replace(optimizer, lr=optimizer.lr * 0.25)
    a, b = Problem(optimizer, np.ones(N)), Problem(slow, np.ones(N))
    for _ in range(5):
        a.step(np.arange(1.0, N + 1), multiplier=0.25)
        b.step(np.arange(1.0, N + 1))
    np.testing.assert_allclose(a.w, b.w, rtol=1e-14)


@pytest.mark.parametrize("optimizer", [p[0] for p in PAIRS.values()], ids=PAIRS)
def test_a_learning_rate_of_zero_changes_nothing(optimizer):
    problem = Problem(optimizer, np.arange(1.0, N + 1))
    problem.step(np.ones(N), multiplier=0.0)
    np.testing.assert_array_equal(problem.w, np.arange(1.0, N + 1))


# --- convergence -------------------------------------------------------------------------------------


def parabola(w):
    c = np.array([1.0, 3.0])
    return 0.5 * float(c @ w**2), c * w


def rosenbrock(w):
    x, y = w
    return float((1 - x) ** 2 + 100 * (y - x * x) ** 2), np.array(
        [-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)]
    )


SETTINGS = {
    ("parabola", "sgd"): SGD(lr=0.2),
    ("parabola", "momentum"): SGD(lr=0.05, momentum=0.9),
    ("parabola", "nesterov"): SGD(lr=0.05, momentum=0.9, nesterov=True),
    ("parabola", "adagrad"): AdaGrad(lr=0.9),
    ("parabola", "rmsprop"): RMSProp(lr=0.01),
    ("parabola", "adam"): Adam(lr=0.05),
    ("parabola", "adamw"): AdamW(lr=0.05, weight_decay=1e-4),
    ("rosenbrock", "sgd"): SGD(lr=1e-3),
    ("rosenbrock", "momentum"): SGD(lr=3e-4, momentum=0.9),
    ("rosenbrock", "nesterov"): SGD(lr=3e-4, momentum=0.9, nesterov=True),
    ("rosenbrock", "adagrad"): AdaGrad(lr=0.5),
    ("rosenbrock", "rmsprop"): RMSProp(lr=2e-3),
    ("rosenbrock", "adam"): Adam(lr=0.03),
    ("rosenbrock", "adamw"): AdamW(lr=0.03, weight_decay=1e-5),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("surface", "name"), SETTINGS)
def test_descends(surface, name, dtype):
    function = {"parabola": parabola, "rosenbrock": rosenbrock}[surface]
    problem = Problem(SETTINGS[surface, name], [-1.2, 1.0], dtype=dtype)
    first = function(problem.w)[0]
    for _ in range(1500):
        problem.step(function(problem.w)[1])
    last = function(problem.w)[0]
    assert last < (1e-3 if surface == "parabola" else 0.05 * first)


# --- one number per member ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("many", "each"),
    [
        (SGD(lr=[0.1, 0.2, 0.0]), [SGD(lr=0.1), SGD(lr=0.2), SGD(lr=0.0)]),
        (SGD(lr=0.1, momentum=[0.0, 0.5, 0.9]), [SGD(lr=0.1, momentum=m) for m in (0.0, 0.5, 0.9)]),
        (RMSProp(rho=[0.5, 0.9, 0.0]), [RMSProp(rho=r) for r in (0.5, 0.9, 0.0)]),
        (
            AdaGrad(lr=[0.1, 0.2, 0.3], eps=[1e-2, 1e-3, 1]),
            [AdaGrad(lr=a, eps=e) for a, e in ((0.1, 1e-2), (0.2, 1e-3), (0.3, 1))],
        ),
        (
            Adam(beta1=[0.9, 0.0, 0.5], beta2=[0.9, 0.99, 0.5]),
            [Adam(beta1=a, beta2=b) for a, b in ((0.9, 0.9), (0.0, 0.99), (0.5, 0.5))],
        ),
        (
            AdamW(lr=(0.1, 0.01, 0.2), weight_decay=np.array([0.0, 0.1, 1.0])),
            [AdamW(lr=a, weight_decay=d) for a, d in ((0.1, 0.0), (0.01, 0.1), (0.2, 1.0))],
        ),
    ],
    ids=["sgd", "momentum", "rmsprop", "adagrad", "adam", "adamw"],
)
def test_hyper_parameters_per_member(many, each, dtype):
    g = np.random.default_rng(1)
    start = g.normal(size=(3, N)).astype(dtype)
    together = Problem(many, start, dtype=dtype, n_models=3)
    alone = [Problem(o, start[m], dtype=dtype) for m, o in enumerate(each)]
    for _ in range(10):
        gradient = g.normal(size=(3, N))
        together.step(gradient)
        for m in range(3):
            alone[m].step(gradient[m])
    rtol = 1e-13 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(together.w.reshape(3, N), [p.w for p in alone], rtol=rtol, atol=rtol * 1e-2)


@pytest.mark.parametrize("n_models", [None, 2, 4])
def test_a_wrong_number_of_values_is_refused(n_models):
    with pytest.raises(ConfigError, match=r"3 values for a population of"):
        Problem(SGD(lr=[0.1, 0.2, 0.3]), np.ones((n_models or 1, N)), n_models=n_models)


# --- names and numbers -------------------------------------------------------------------------------


def test_options_behind_the_name():
    assert get_optimizer("AdamW:weight-decay=0.05", lr=0.01) == AdamW(lr=0.01, weight_decay=0.05)
    assert get_optimizer("nesterov:momentum=0.5,lr=1", lr=0.1) == SGD(lr=0.1, momentum=0.5, nesterov=True)
    with pytest.raises(ConfigError, match=r"'weight_decy'.*did you mean 'weight_decay'"):
        get_optimizer("adamw:weight_decy=0.05")


def test_by_name():
    assert get_optimizer("Adam", lr=0.5) == Adam(lr=0.5)
    assert get_optimizer("momentum") == SGD(momentum=0.9)
    assert get_optimizer("nesterov", momentum=0.5) == SGD(momentum=0.5, nesterov=True)
    built = AdamW()
    assert get_optimizer(built) is built
    for name in NAMES:
        assert get_optimizer(name).name in ("sgd", "adagrad", "rmsprop", "adam", "adamw")


@pytest.mark.parametrize(
    ("name", "options", "fragment"),
    [
        ("adm", {}, "did you mean 'adam'"),
        ("lbfgs", {}, "Known: adagrad, adam"),
        ("adam", {"beta": 0.9}, "did you mean 'beta2'"),
        ("adam", {"momentum": 0.9}, "option of optimizer 'adam'"),
        ("sgd", {"lr": -0.1}, "lr must be a number in [0, inf), found -0.1"),
        ("sgd", {"lr": math.inf}, "found inf"),
        ("sgd", {"lr": math.nan}, "found nan"),
        ("sgd", {"lr": "0.1"}, "found '0.1'"),
        ("sgd", {"lr": None}, "found None"),
        ("sgd", {"lr": True}, "found True"),
        ("sgd", {"lr": []}, "lr is empty"),
        ("sgd", {"lr": [0.1, -1.0]}, "found -1.0"),
        ("sgd", {"momentum": 1.0}, "momentum must be a number in [0, 1)"),
        ("nesterov", {"momentum": 0.0}, "above 0"),
        ("adam", {"beta1": 1.0}, "beta1 must be"),
        ("adam", {"beta2": -0.1}, "beta2 must be"),
        ("adam", {"eps": -1e-8}, "eps must be"),
        ("rmsprop", {"rho": 1.5}, "rho must be"),
        ("adamw", {"weight_decay": -1.0}, "weight_decay must be"),
        (Adam(), {"lr": 0.1}, "is built already"),
    ],
)
def test_bad_options(name, options, fragment):
    with pytest.raises(ConfigError) as error:
        get_optimizer(name, **options)
    assert fragment in str(error.value)
