"""Initialisers: bounds and variances by their papers; the same by seed, tensor, dtype and member."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xpnet.errors import ConfigError
from xpnet.init import NAMES, automatic, draw, parse
from xpnet.mlp import MLP
from xpnet.params import ParamSpec

FAN_IN, FAN_OUT = 400, 250


def big(init: str, seed: int = 0, index: int = 0) -> np.ndarray:
    return draw(ParamSpec("w", (FAN_OUT, FAN_IN), FAN_IN, FAN_OUT, init), seed, index)


# name -> the standard deviation it promises
DEVIATIONS = {
    "uniform": 0.05 / math.sqrt(3.0),
    "uniform:0.3": 0.3 / math.sqrt(3.0),
    "normal": 0.05,
    "normal:1e-2": 0.01,
    "glorot_uniform": math.sqrt(2.0 / (FAN_IN + FAN_OUT)),
    "glorot_normal": math.sqrt(2.0 / (FAN_IN + FAN_OUT)),
    "he_uniform": math.sqrt(2.0 / FAN_IN),
    "he_normal": math.sqrt(2.0 / FAN_IN),
    "lecun_uniform": math.sqrt(1.0 / FAN_IN),
    "lecun_normal": math.sqrt(1.0 / FAN_IN),
    # a normal cut at two standard deviations keeps 0.8796 of its deviation
    "truncated_normal": 0.05 * 0.87962566103423978,
    "truncated_normal:0.2": 0.2 * 0.87962566103423978,
}


@pytest.mark.parametrize("init", DEVIATIONS)
def test_mean_and_deviation(init):
    w = big(init)
    assert w.shape == (FAN_OUT, FAN_IN)
    assert w.dtype == np.float64
    assert w.mean() == pytest.approx(0.0, abs=5.0 * DEVIATIONS[init] / math.sqrt(w.size))
    assert w.std() == pytest.approx(DEVIATIONS[init], rel=0.012)


@pytest.mark.parametrize(
    ("init", "bound"),
    [
        ("glorot_uniform", math.sqrt(6.0 / (FAN_IN + FAN_OUT))),
        ("he_uniform", math.sqrt(6.0 / FAN_IN)),
        ("lecun_uniform", math.sqrt(3.0 / FAN_IN)),
        ("uniform", 0.05),
        ("uniform:0.3", 0.3),
        ("truncated_normal", 0.1),
        ("truncated_normal:0.2", 0.4),
    ],
)
def test_bounds_are_kept_and_reached(init, bound):
    largest = np.abs(big(init)).max()
    assert 0.99 * bound < largest <= bound


@pytest.mark.parametrize("init", ["normal", "glorot_normal", "he_normal", "lecun_normal"])
def test_normal_ones_have_the_tails_of_a_normal(init):
    z = big(init) / DEVIATIONS[init]
    for k, share in ((1.0, 0.31731), (2.0, 0.04550), (3.0, 0.00270)):
        assert (np.abs(z) > k).mean() == pytest.approx(share, abs=5.0 * math.sqrt(share / z.size))


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (25, 25), (1, 7)])
@pytest.mark.parametrize(("init", "factor"), [("orthogonal", 1.0), ("orthogonal:0.5", 0.5)])
def test_orthogonal(shape, init, factor):
    w = draw(ParamSpec("w", shape, shape[1], shape[0], init), 3, 0) / factor
    small = w @ w.T if shape[0] <= shape[1] else w.T @ w
    np.testing.assert_allclose(small, np.eye(min(shape)), atol=1e-13)


def test_orthogonal_signs_are_not_fixed():
    corner = [draw(ParamSpec("w", (4, 4), 4, 4, "orthogonal"), seed, 0)[0, 0] for seed in range(200)]
    assert 70 < sum(c > 0 for c in corner) < 130


def test_constants():
    assert (big("zeros") == 0.0).all()
    assert (big("constant:-0.5") == -0.5).all()
    assert (big("constant:1e-05") == 1e-5).all()


@pytest.mark.parametrize("init", [n for n in NAMES if n not in ("auto", "zeros", "constant")])
def test_seed_and_tensor_decide(init):
    np.testing.assert_array_equal(big(init, 1, 2), big(init, 1, 2))
    assert not np.array_equal(big(init, 1, 2), big(init, 2, 2))
    assert not np.array_equal(big(init, 1, 2), big(init, 1, 3))


@pytest.mark.parametrize("init", [n for n in NAMES if n != "auto"])
def test_float32_is_float64_rounded(init):
    narrow = MLP([7, 5, 3], init=init, seed=4).get_weights()
    wide = MLP([7, 5, 3], init=init, seed=4, dtype="float64").get_weights()
    for name, w in wide.items():
        assert narrow[name].dtype == np.float32
        np.testing.assert_array_equal(narrow[name], w.astype(np.float32))


def test_layers_of_one_shape_start_differently():
    w = MLP([4, 4, 4, 4]).get_weights()
    assert not np.array_equal(w["layers.0.weight"], w["layers.1.weight"])
    assert not np.array_equal(w["layers.1.weight"], w["layers.2.weight"])


@pytest.mark.parametrize("activation", ["relu", "tanh", "prelu", "maxout:3"])
@pytest.mark.parametrize("seeds", [5, [9, 2, 2**63]])
def test_member_of_a_population_starts_as_the_single_model(activation, seeds):
    population = MLP([6, 5, 2], activation=activation, n_models=3, seed=seeds)
    assert population.seeds == ((5, 6, 7) if seeds == 5 else (9, 2, 2**63))
    for m, seed in enumerate(population.seeds):
        alone = MLP([6, 5, 2], activation=activation, seed=seed).get_weights()
        for name, w in population.get_weights().items():
            np.testing.assert_array_equal(w[m], alone[name])


def test_reset_draws_the_same_again():
    model = MLP([6, 5, 2], seed=1)
    before = model.get_weights()
    model.weights[...] = 0.0
    model.reset()
    for name, w in model.get_weights().items():
        np.testing.assert_array_equal(w, before[name])


def test_biases_and_slopes_start_constant():
    w = MLP([3, 4, 2], activation="prelu", bias=-0.25).get_weights()
    assert (w["layers.0.bias"] == -0.25).all()
    assert (w["layers.2.bias"] == -0.25).all()
    assert (w["layers.1.slope"] == 0.25).all()
    assert (
        MLP([3, 4, 2], activation="prelu:0.1", dtype="float64").get_weights()["layers.1.slope"] == 0.1
    ).all()


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("relu", "he_normal"),
        ("leaky_relu", "he_normal"),
        ("gelu", "he_normal"),
        ("prelu", "he_normal"),
        ("maxout", "he_normal"),
        ("tanh", "glorot_uniform"),
        ("sigmoid", "glorot_uniform"),
        ("identity", "glorot_uniform"),
        ("selu", "lecun_normal"),
    ],
)
def test_automatic_choice(activation, expected):
    assert automatic(activation) == expected
    auto = MLP([5, 4, 2], activation=activation, init="auto").get_weights()["layers.0.weight"]
    named = MLP([5, 4, 2], activation=activation, init=expected).get_weights()["layers.0.weight"]
    np.testing.assert_array_equal(auto, named)


def test_automatic_choice_sees_through_aliases():
    auto = MLP([5, 4, 2], activation="logistic").get_weights()["layers.0.weight"]
    named = MLP([5, 4, 2], activation="sigmoid").get_weights()["layers.0.weight"]
    np.testing.assert_array_equal(auto, named)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("xavier", "glorot_uniform"),
        ("Xavier-Normal", "glorot_normal"),
        ("glorot", "glorot_uniform"),
        ("he", "he_normal"),
        ("kaiming", "he_normal"),
        ("lecun", "lecun_normal"),
    ],
)
def test_aliases(alias, name):
    assert parse(alias) == (name, None)


@pytest.mark.parametrize(
    ("spec", "fragment"),
    [
        ("xavierr", "unknown initialiser 'xavierr'"),
        ("he_norml", "did you mean 'he_normal'"),
        ("glorot_unifrom", "did you mean 'glorot_uniform'"),
        ("he_normal:2", "take a number"),
        ("normal:wide", "expected a number after ':'"),
        ("normal:inf", "finite"),
        ("normal:-1", ">= 0"),
        ("uniform:-0.5", ">= 0"),
        ("auto:1", "take a number"),
    ],
)
def test_bad_names_and_numbers(spec, fragment):
    for fail in (parse, lambda s: MLP([2, 1], init=s)):
        with pytest.raises(ConfigError) as error:
            fail(spec)
        assert fragment in str(error.value)
