"""Statistics of layers against their definitions; where numbers stopped being finite."""

from __future__ import annotations

import json

import numpy as np
import pytest

from xpnet import MLP, SGD
from xpnet.activations import get_activation
from xpnet.diagnostics import SATURATED, layer_statistics, locate_nonfinite, nonfinite_parameters
from xpnet.train import Trainer

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(24, 4)), np.arange(24) % 3
ROWS = np.arange(24)


def trainer_of(model, x=X, **options):
    return Trainer(model, (x, Y), optimizer=SGD(lr=0.01), epochs=1, **options)


def statistics(model, **options):
    return layer_statistics(trainer_of(model, **options).step, ROWS)


def test_keys_and_labels():
    found = statistics(MLP([4, 8, 6, 3], activation=["relu", "maxout:3"], dropout=[0.5, 0.0]))
    assert [entry["layer"] for entry in found] == [
        "0: dense 4->8 relu", "2: maxout:3 8->6", "3: dense 6->3 identity",
    ]  # fmt: skip
    for entry in found:
        assert set(entry) == {"layer", "weight_norm", "gradient_norm", "dead", "saturated"}
        assert entry["weight_norm"] > 0 and entry["gradient_norm"] > 0
    assert isinstance(found[0]["dead"], float) and isinstance(found[0]["saturated"], float)
    assert [entry["dead"] for entry in found[1:]] == [entry["saturated"] for entry in found[1:]] == [None] * 2
    json.dumps(found)


def test_norms_by_hand():
    model = MLP([4, 3], dtype="float64")
    w = model.get_weights()
    found = statistics(model)[0]
    h = X @ w["layers.0.weight"].T + w["layers.0.bias"]
    p = np.exp(h) / np.exp(h).sum(axis=1, keepdims=True)
    dh = (p - np.eye(3)[Y]) / len(X)
    assert found["weight_norm"] == pytest.approx(np.sqrt(sum((v**2).sum() for v in w.values())), rel=1e-12)
    expected = np.sqrt(((dh.T @ X) ** 2).sum() + (dh.sum(axis=0) ** 2).sum())
    assert found["gradient_norm"] == pytest.approx(expected, rel=1e-12)


def test_penalties_are_not_in_the_gradient_norm():
    assert statistics(MLP([4, 3]), l2=10.0) == statistics(MLP([4, 3]))


def test_dead_units():
    model = MLP([4, 8, 3], activation="relu", bias=-1e6)
    found = statistics(model)
    assert found[0]["dead"] == 1.0 and found[0]["saturated"] == 1.0 and found[0]["gradient_norm"] == 0.0
    model = MLP([4, 8, 3], activation="relu")
    model.params["layers.0.bias"][:2] = -1e6
    model.params["layers.0.bias"][2:] = 1e6
    assert statistics(model)[0]["dead"] == statistics(model)[0]["saturated"] == 0.25


def test_saturated_units():
    model = MLP([4, 8, 3], activation="sigmoid")
    assert statistics(model)[0]["saturated"] < 0.1
    model.params["layers.0.weight"][...] *= 1e4
    found = statistics(model)[0]
    assert found["saturated"] > 0.99 and found["dead"] <= 1.0


@pytest.mark.parametrize("name", ["tanh", "gelu", "silu", "softplus", "hard_tanh", "elu", "softsign", "selu"])
def test_shares_by_hand(name):
    activation = get_activation(name)

    class Names:
        def __getattr__(self, key):
            from scipy.special import erf

            return erf if key == "erf" else getattr(np, key)

    model = MLP([4, 8, 3], activation=name, dtype="float64", seed=2)
    model.params["layers.0.weight"][...] *= 3
    w = model.get_weights()
    z = X @ w["layers.0.weight"].T + w["layers.0.bias"]
    grid = np.linspace(-6, 6, 1201)
    ns = Names()
    f = (lambda v: activation.value(ns, v)) if activation.from_output else (lambda v: v)
    slope, steepest = (np.abs(activation.slope(ns, f(v))) for v in (z, grid))
    found = statistics(model)[0]
    assert found["dead"] == pytest.approx((slope == 0).all(axis=0).mean())
    assert found["saturated"] == pytest.approx((slope < SATURATED * steepest.max()).mean())


def test_a_population_has_a_list_per_value():
    population = MLP([4, 8, 3], activation="tanh", n_models=3, seed=1, dtype="float64")
    found = statistics(population)
    for m in range(3):
        single = statistics(population.member(m))
        for ours, theirs in zip(found, single, strict=True):
            for key in ("weight_norm", "gradient_norm"):
                assert ours[key][m] == pytest.approx(theirs[key], rel=1e-12)
            if theirs["dead"] is None:
                assert ours["dead"] is None
            else:
                assert ours["dead"][m] == theirs["dead"] and ours["saturated"][m] == theirs["saturated"]


def test_looking_is_not_training():
    trainer = trainer_of(MLP([4, 8, 3]))
    trainer.step(ROWS)
    weights, totals = np.array(trainer.model.weights), trainer.step.tally.totals()
    layer_statistics(trainer.step, ROWS[:5])
    layer_statistics(trainer.step, ROWS)
    np.testing.assert_array_equal(trainer.model.weights, weights)
    np.testing.assert_array_equal(trainer.step.tally.totals(), totals)
    assert trainer.step.n_updates == 1


def test_statistics_are_the_same_right_after_resuming():
    first, again = (trainer_of(MLP([4, 8, 3], dropout=0.5, input_noise=0.1)) for _ in range(2))
    for _ in range(3):
        first.step(ROWS)
    again.load_state(*first.state())
    assert layer_statistics(again.step, ROWS) == layer_statistics(first.step, ROWS)


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("n_models", [None, 2])
def test_the_layer_where_it_began(layer, n_models):
    model = MLP([4, 8, 6, 3], activation=["prelu", "tanh"], n_models=n_models)
    dense = [0, 2, 3][layer]
    model.params[f"layers.{dense}.bias"][...] = np.nan
    assert f"layer {dense} (dense" in nonfinite_parameters(model)
    trainer = trainer_of(model)
    with np.errstate(all="ignore"):
        trainer.step(ROWS)
    size = 24 * [8, 6, 3][layer] * (n_models or 1)
    assert f"layer {dense} (dense" in locate_nonfinite(trainer.step, ROWS)
    assert f"{size} of its {size} outputs are not finite" in locate_nonfinite(trainer.step, ROWS)


def test_all_is_finite():
    model = MLP([4, 8, 3])
    assert nonfinite_parameters(model) is None
