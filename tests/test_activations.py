"""Activations: values by scalar formulas, slopes by complex step, and the ends of the number line."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import erf

from xpnet.activations import NAMES, get_activation, parse
from xpnet.backend import get_backend
from xpnet.backend.reference import ReferenceBackend
from xpnet.errors import ConfigError
from xpnet.mlp import MLP

BACKENDS = {"cpu": get_backend("cpu"), "reference": ReferenceBackend(np)}
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934, 1.6732632423543772848


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def _elu(x: float, a: float = 1.0) -> float:
    return x if x > 0 else a * (math.exp(x) - 1.0)


# plain scalar mathematics, written without looking at the table under test
VALUES = {
    "identity": lambda x: x,
    "step": lambda x: 1.0 if x > 0 else 0.0,
    "sigmoid": _sigmoid,
    "tanh": lambda x: 2.0 * _sigmoid(2.0 * x) - 1.0,
    "relu": lambda x: max(0.0, x),
    "leaky_relu": lambda x: x if x >= 0 else 0.01 * x,
    "leaky_relu:0.2": lambda x: x if x >= 0 else 0.2 * x,
    "softplus": lambda x: math.log(1.0 + math.exp(x)) if x < 30 else x + math.exp(-x),
    "elu": _elu,
    "elu:0.5": lambda x: _elu(x, 0.5),
    "selu": lambda x: SELU_SCALE * _elu(x, SELU_ALPHA),
    "gelu": lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2.0)),
    "gelu_tanh": lambda x: x * _sigmoid(2.0 * math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)),
    "silu": lambda x: x * _sigmoid(x),
    "softsign": lambda x: x / (1.0 + abs(x)),
    "hard_sigmoid": lambda x: min(max((x + 3.0) / 6.0, 0.0), 1.0),
    "hard_tanh": lambda x: min(max(x, -1.0), 1.0),
    "hard_swish": lambda x: x * min(max((x + 3.0) / 6.0, 0.0), 1.0),
}
TRAINABLE = [name for name in VALUES if name != "step"]
# where each has a corner; the derivative is compared elsewhere
CORNERS = {
    "relu": [0.0],
    "leaky_relu": [0.0],
    "softsign": [0.0],
    "leaky_relu:0.2": [0.0],
    "elu": [0.0],
    "elu:0.5": [0.0],
    "selu": [0.0],
    "hard_sigmoid": [-3.0, 3.0],
    "hard_tanh": [-1.0, 1.0],
    "hard_swish": [-3.0, 3.0],
}
GRID = np.concatenate([np.linspace(-8.0, 8.0, 161), [-30.0, -20.5, 20.5, 30.0, 1e-9, -1e-9]])


class Namespace:
    """NumPy with an error function that takes complex numbers."""

    erf = staticmethod(erf)

    def __getattr__(self, name):
        return getattr(np, name)


def evaluate(be, name: str, x: np.ndarray) -> np.ndarray:
    return be.map(get_activation(name).value, x, out=np.empty_like(x))


def slope(be, name: str, x: np.ndarray, dy: np.ndarray | None = None) -> np.ndarray:
    activation = get_activation(name)
    s = evaluate(be, name, x) if activation.from_output else x
    dy = np.ones_like(x) if dy is None else dy
    return be.map(activation.backward, dy, s, out=np.empty_like(x))


def test_every_name_is_covered():
    assert {name.partition(":")[0] for name in VALUES} == set(NAMES)


@pytest.mark.parametrize("be", BACKENDS.values(), ids=BACKENDS)
@pytest.mark.parametrize("name", VALUES)
def test_values(name, be):
    expected = np.array([VALUES[name](float(x)) for x in GRID])
    np.testing.assert_allclose(evaluate(be, name, GRID), expected, rtol=1e-14, atol=5e-15)


@pytest.mark.parametrize("name", VALUES)
def test_values_in_float32(name):
    x = GRID.astype(np.float32)
    expected = np.array([VALUES[name](float(v)) for v in x])
    y = evaluate(BACKENDS["cpu"], name, x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected, rtol=3e-6, atol=1e-6)


def _away_from_corners(name: str) -> np.ndarray:
    return GRID[[all(abs(x - c) > 1e-3 for c in CORNERS.get(name, [])) for x in GRID]]


@pytest.mark.parametrize("be", BACKENDS.values(), ids=BACKENDS)
@pytest.mark.parametrize("name", TRAINABLE)
def test_slope_is_the_complex_step_derivative(name, be):
    x, step = _away_from_corners(name), 1e-30
    expected = np.imag(get_activation(name).value(Namespace(), x + 1j * step)) / step
    np.testing.assert_allclose(slope(be, name, x), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", TRAINABLE)
def test_slope_is_the_central_difference_of_the_scalar_formula(name):
    x, step = _away_from_corners(name), 1e-5
    f = VALUES[name]
    expected = np.array([(f(v + step) - f(v - step)) / (2.0 * step) for v in x.tolist()])
    np.testing.assert_allclose(slope(BACKENDS["cpu"], name, x), expected, rtol=1e-7, atol=2e-9)


@pytest.mark.parametrize("name", TRAINABLE)
def test_backward_multiplies_and_may_overwrite_the_gradient(name):
    be, x = BACKENDS["cpu"], _away_from_corners(name)
    dy = np.random.default_rng(1).normal(size=x.shape)
    expected = dy * slope(be, name, x)
    activation = get_activation(name)
    s = evaluate(be, name, x) if activation.from_output else x.copy()
    kept = s.copy()
    be.map(activation.backward, dy, s, out=dy)
    np.testing.assert_allclose(dy, expected, rtol=1e-13, atol=1e-15)
    np.testing.assert_array_equal(s, kept)


@pytest.mark.parametrize(
    ("name", "at", "expected"),
    [
        ("relu", 0.0, 0.0),
        ("leaky_relu", 0.0, 1.0),
        ("elu:0.5", 0.0, 0.5),
        ("hard_tanh", 1.0, 0.0),
        ("hard_tanh", -1.0, 0.0),
        ("hard_sigmoid", 3.0, 0.0),
        ("hard_sigmoid", -3.0, 0.0),
        ("hard_swish", -3.0, -0.5),
    ],
)
def test_slope_at_corners_is_a_fixed_choice(name, at, expected):
    for be in BACKENDS.values():
        assert slope(be, name, np.array([at]))[0] == expected


@pytest.mark.parametrize("be", BACKENDS.values(), ids=BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", VALUES)
def test_huge_inputs_neither_overflow_nor_give_nan(name, dtype, be):
    x = np.array([-1e4, -745.0, -104.0, -88.8, 0.0, 88.8, 104.0, 710.0, 1e4], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        y = evaluate(be, name, x)
        expected = np.array([VALUES[name](float(v)) for v in x])
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-7)
        if name != "step":
            d = slope(be, name, x)
            assert np.isfinite(d).all()
            # beyond |x| = 88 every activation is a straight line; softsign is within 1/89^2 of one
            np.testing.assert_allclose(
                d[[0, 1, 2, 3, 5, 6, 7, 8]], np.round(d[[0] * 4 + [8] * 4], 5), atol=2e-4
            )


@pytest.mark.parametrize("be", BACKENDS.values(), ids=BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", VALUES)
def test_numbers_whose_squares_and_cubes_overflow(name, dtype, be):
    x = np.array([-1.0, 1.0], dtype) * (np.finfo(dtype).max / 4)
    with np.errstate(over="raise", invalid="raise"):
        y = evaluate(be, name, x)
    np.testing.assert_allclose(y / x, [VALUES[name](-1e4) / -1e4, VALUES[name](1e4) / 1e4], atol=2e-4)
    if name != "step":
        with np.errstate(over="ignore"):
            np.testing.assert_allclose(slope(be, name, x), np.round(y / x, 5), atol=2e-4)


def test_the_zero_of_a_step_has_no_sign():
    assert not np.signbit(get_activation("step").value(np, np.array([-1.0, -0.0, 0.0]))).any()


@pytest.mark.parametrize("name", VALUES)
def test_infinity_gives_the_limit_or_nan_but_never_a_wrong_number(name):
    limits = {
        "identity": (-math.inf, math.inf),
        "step": (0, 1),
        "sigmoid": (0, 1),
        "tanh": (-1, 1),
        "relu": (0, math.inf),
        "leaky_relu": (-math.inf, math.inf),
        "leaky_relu:0.2": (-math.inf, math.inf),
        "softplus": (0, math.inf),
        "elu": (-1, math.inf),
        "elu:0.5": (-0.5, math.inf),
        "selu": (-SELU_SCALE * SELU_ALPHA, math.inf),
        "hard_sigmoid": (0, 1),
        "hard_tanh": (-1, 1),
        "softsign": (-1, 1),
    }
    limit = limits.get(name, (0, math.inf))  # those gated by x: 0 times -infinity is NaN
    with np.errstate(invalid="ignore"):
        y = evaluate(BACKENDS["cpu"], name, np.array([-math.inf, math.inf]))
    for got, expected in zip(y, limit, strict=True):
        assert math.isnan(got) or got == pytest.approx(expected, rel=1e-15)
    if name not in ("step", "softsign", "gelu", "gelu_tanh", "silu", "hard_swish"):
        assert not np.isnan(y).any()


@pytest.mark.parametrize("name", VALUES)
def test_nan_is_never_hidden(name):
    with np.errstate(invalid="ignore"):
        assert np.isnan(evaluate(BACKENDS["cpu"], name, np.array([math.nan]))).all()


@pytest.mark.parametrize("be", BACKENDS.values(), ids=BACKENDS)
@pytest.mark.parametrize("name", VALUES)
def test_bias_is_added_first(name, be):
    g = np.random.default_rng(0)
    z, b = g.normal(size=(5, 3)), g.normal(size=(1, 3))
    expected = evaluate(be, name, z + b)
    np.testing.assert_array_equal(
        be.map(get_activation(name).with_bias, z, b, out=np.empty((5, 3))), expected
    )
    y, total = np.empty((5, 3)), z.copy()
    be.map(get_activation(name).with_bias_keeping_input, total, b, out=(total, y))
    np.testing.assert_array_equal(total, z + b)
    np.testing.assert_array_equal(y, expected)


def test_tanh_is_a_stretched_sigmoid():
    be = BACKENDS["cpu"]
    np.testing.assert_allclose(
        evaluate(be, "tanh", GRID), 2.0 * evaluate(be, "sigmoid", 2.0 * GRID) - 1.0, rtol=1e-14, atol=1e-15
    )


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("logistic", "sigmoid"),
        ("linear", "identity"),
        ("none", "identity"),
        ("swish", "silu"),
        (" ReLU ", "relu"),
        ("Leaky-ReLU", "leaky_relu"),
        ("leaky_relu:0.01", "leaky_relu"),
        ("leaky_relu:0.2", "leaky_relu:0.2"),
        ("leaky_relu:1e-3", "leaky_relu:0.001"),
        ("elu:1", "elu"),
        ("elu:0.5", "elu:0.5"),
        ("hard-swish", "hard_swish"),
    ],
)
def test_names_and_aliases(spec, name):
    assert get_activation(spec).name == name


def test_parse_splits_the_parameter():
    assert parse("PReLU:0.1") == ("prelu", 0.1)
    assert parse("maxout") == ("maxout", None)


@pytest.mark.parametrize(
    ("spec", "fragment"),
    [
        ("rellu", "did you mean 'relu'"),
        ("sigmod", "did you mean 'sigmoid'"),
        ("maxot", "did you mean 'maxout'"),
        ("prelu2", "did you mean 'prelu'"),
        ("xyzzy", "Known: elu, gelu"),
        ("", "unknown activation"),
        ("relu:0.1", "takes no parameter"),
        ("leaky_relu:fast", "expected a number after ':'"),
        ("leaky_relu:", "expected a number"),
        ("leaky_relu:-0.1", "slope >= 0"),
        ("leaky_relu:nan", "finite"),
        ("elu:inf", "finite"),
    ],
)
def test_bad_names_and_parameters(spec, fragment):
    with pytest.raises(ConfigError) as error:
        get_activation(spec)
    assert fragment in str(error.value)


def test_step_refuses_to_train_and_says_what_to_do():
    with pytest.raises(ConfigError, match=r"no useful gradient.*sigmoid"):
        _ = get_activation("step").backward


def test_step_makes_a_perceptron():
    # AND of two inputs: 1 if x1 + x2 - 1.5 > 0
    model = MLP([2, 1], output_activation="step", dtype="float64")
    model.set_weights({"layers.0.weight": np.array([[1.0, 1.0]]), "layers.0.bias": np.array([-1.5])})
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert model.outputs(x)[:, 0].tolist() == [0.0, 0.0, 0.0, 1.0]
