"""Layers alone: dense, PReLU, maxout, dropout and input noise, forward and backward on small batches."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet import rng
from xpnet.activations import get_activation
from xpnet.backend import get_backend
from xpnet.backend.reference import ReferenceBackend
from xpnet.errors import ConfigError
from xpnet.layers import Context, Dense, Dropout, InputNoise, Maxout, PReLU, hidden_layer
from xpnet.mlp import MLP
from xpnet.params import ParamSpec
from xpnet.workspace import Workspace

BACKENDS = [pytest.param(get_backend("cpu"), id="cpu"), pytest.param(ReferenceBackend(np), id="reference")]
B = 5


def context(be, layer, p=None, *, lead=(), train=True, seeds=(0,), index=0, batch=B, dtype="float64", step=0):
    p = {k: np.asarray(v, dtype) for k, v in (p or {}).items()}
    g = {k: np.full_like(v, np.nan) for k, v in p.items()}
    counter = np.array([step], dtype=np.int64)
    return Context(
        be,
        p,
        g,
        lead=(*lead, batch),
        index=index,
        make=Workspace(be, dtype).array,
        train=train,
        seeds=seeds,
        counter=counter,
    )


def random_parameters(layer, lead=()):
    g = np.random.default_rng(0)
    return {s.name: g.normal(size=(*lead, *s.shape)) for s in layer.specs()}


# --- dense -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("be", BACKENDS)
@pytest.mark.parametrize("lead", [(), (3,)])
@pytest.mark.parametrize("activation", ["identity", "tanh", "gelu"])
def test_dense_by_loops(be, lead, activation):
    f = get_activation(activation)
    layer = Dense(4, 2, f, "zeros")
    p = random_parameters(layer, lead)
    c = context(be, layer, p, lead=lead)
    g = np.random.default_rng(1)
    x, dy = g.normal(size=(B, 4)), g.normal(size=(*lead, B, 2))
    y = layer.forward(x, c).copy()
    upstream = dy.copy()
    dx = layer.backward(dy, c, need_dx=True)
    for m in np.ndindex(lead):
        W, b = p["weight"][m], p["bias"][m]
        z = np.array([[sum(W[o, i] * x[r, i] for i in range(4)) + b[o] for o in range(2)] for r in range(B)])
        value = be.map(f.value, z, out=np.empty_like(z))
        np.testing.assert_allclose(y[m], value, rtol=1e-13, atol=1e-15)
        s = value if f.from_output else z
        dz = be.map(f.backward, upstream[m].copy(), s, out=np.empty_like(z))
        np.testing.assert_allclose(c.g["bias"][m], dz.sum(axis=0), rtol=1e-12)
        np.testing.assert_allclose(c.g["weight"][m], dz.T @ x, rtol=1e-12)
        np.testing.assert_allclose(dx[m], dz @ W, rtol=1e-12)


def test_input_gradient_is_not_computed_unless_asked():
    layer = Dense(4, 2, get_activation("relu"), "zeros")
    c = context(get_backend("cpu"), layer, random_parameters(layer))
    layer.forward(np.ones((B, 4)), c)
    assert layer.backward(np.ones((B, 2)), c, need_dx=False) is None
    assert "dx" not in c._buffers


# --- PReLU -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("be", BACKENDS)
@pytest.mark.parametrize("lead", [(), (2,)])
def test_prelu(be, lead):
    layer = PReLU(3)
    a = np.broadcast_to(np.array([0.25, -0.5, 0.0]), (*lead, 3)).copy()
    c = context(be, layer, {"slope": a}, lead=lead)
    g = np.random.default_rng(2)
    x, dy = g.normal(size=(*lead, B, 3)), g.normal(size=(*lead, B, 3))
    x[..., 0, :] = 0.0
    upstream = dy.copy()
    y = layer.forward(x, c)
    np.testing.assert_array_equal(y, np.maximum(x, 0.0) + a[..., None, :] * np.minimum(x, 0.0))
    dx = layer.backward(dy, c, need_dx=True)
    # He et al.: da is the sum over the batch of dy min(0, x)
    np.testing.assert_allclose(c.g["slope"], (upstream * np.minimum(0.0, x)).sum(axis=-2), rtol=1e-13)
    np.testing.assert_array_equal(dx, upstream * np.where(x >= 0.0, 1.0, a[..., None, :]))


# --- maxout ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("be", BACKENDS)
@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_maxout_by_loops(be, lead, k):
    layer = Maxout(4, 3, k, "zeros")
    p = random_parameters(layer, lead)
    c = context(be, layer, p, lead=lead)
    g = np.random.default_rng(3)
    x, dy = g.normal(size=(B, 4)), g.normal(size=(*lead, B, 3))
    y = layer.forward(x, c).copy()
    upstream = dy.copy()
    dx = layer.backward(dy, c, need_dx=True)
    for m in np.ndindex(lead):
        W, b = p["weight"][m].reshape(k, 3, 4), p["bias"][m].reshape(k, 3)
        dW, db, expected_dx = np.zeros_like(W), np.zeros_like(b), np.zeros((B, 4))
        for r in range(B):
            for o in range(3):
                pieces = [float(W[j, o] @ x[r] + b[j, o]) for j in range(k)]
                best = pieces.index(max(pieces))
                assert y[(*m, r, o)] == pytest.approx(max(pieces), rel=1e-12)
                dW[best, o] += upstream[(*m, r, o)] * x[r]
                db[best, o] += upstream[(*m, r, o)]
                expected_dx[r] += upstream[(*m, r, o)] * W[best, o]
        np.testing.assert_allclose(c.g["weight"][m], dW.reshape(-1, 4), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(c.g["bias"][m], db.ravel(), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(dx[m], expected_dx, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("be", BACKENDS)
def test_maxout_tie_goes_to_the_first_piece(be):
    layer = Maxout(1, 1, 3, "zeros")
    c = context(be, layer, {"weight": [[1.0], [1.0], [1.0]], "bias": [0.0, 0.0, 0.0]}, batch=1)
    layer.forward(np.array([[2.0]]), c)
    layer.backward(np.array([[1.0]]), c, need_dx=True)
    assert c.g["bias"].tolist() == [1.0, 0.0, 0.0]
    assert c.g["weight"].tolist() == [[2.0], [0.0], [0.0]]


def test_maxout_of_x_and_minus_x_is_the_absolute_value():
    layer = Maxout(1, 1, 2, "zeros")
    c = context(get_backend("cpu"), layer, {"weight": [[1.0], [-1.0]], "bias": [0.0, 0.0]})
    x = np.linspace(-2.0, 2.0, B)[:, None]
    np.testing.assert_array_equal(layer.forward(x, c), np.abs(x))


# --- dropout -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("be", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_dropout_mask_is_the_stream(be, dtype, p):
    layer = Dropout(8, p)
    c = context(be, layer, seeds=(42,), index=3, step=17, dtype=dtype)
    x = np.random.default_rng(4).normal(size=(B, 8)).astype(dtype)
    keep = rng.uniform(42, rng.stream(rng.DROPOUT, 3), 17, (B, 8)) >= np.float32(p)
    factor = np.where(keep, 1.0 / (1.0 - p), 0.0)
    np.testing.assert_allclose(layer.forward(x, c), x * factor, rtol=1e-6 if dtype == "float32" else 1e-15)
    dy = np.ones((B, 8), dtype)
    np.testing.assert_allclose(layer.backward(dy, c, need_dx=True), factor, rtol=1e-6)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_keeps_the_mean(p):
    layer = Dropout(500, p)
    c = context(get_backend("cpu"), layer, batch=400)
    y = layer.forward(np.ones((400, 500)), c)
    # variance of one kept-or-dropped unit is p / (1 - p)
    assert y.mean() == pytest.approx(1.0, abs=5.0 * np.sqrt(p / (1.0 - p) / y.size))
    assert (y == 0.0).mean() == pytest.approx(p, abs=5.0 * np.sqrt(p * (1.0 - p) / y.size))


@pytest.mark.parametrize("layer", [Dropout(3, 0.5), InputNoise(3, 1.0)], ids=["dropout", "noise"])
def test_off_at_prediction(layer):
    x = np.ones((B, 3))
    assert layer.forward(x, context(get_backend("cpu"), layer, train=False)) is x


@pytest.mark.parametrize("be", BACKENDS)
@pytest.mark.parametrize("layer", [Dropout(16, 0.5), InputNoise(16, 1.0)], ids=["dropout", "noise"])
def test_fresh_at_every_step_and_equal_when_the_counter_is_equal(be, layer):
    c = context(be, layer)
    x = np.ones((B, 16))
    draws = []
    for step in (0, 1, 0):
        c.counter[...] = step
        draws.append(layer.forward(x, c).copy())
    assert not np.array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(draws[0], draws[2])


@pytest.mark.parametrize("layer", [Dropout(16, 0.5), InputNoise(16, 1.0)], ids=["dropout", "noise"])
def test_layers_and_members_draw_from_their_own_streams(layer):
    be, x = get_backend("cpu"), np.ones((B, 16))
    together = layer.forward(x, context(be, layer, lead=(2,), seeds=(5, 9), index=1))
    for m, seed in enumerate((5, 9)):
        np.testing.assert_array_equal(
            together[m], layer.forward(x, context(be, layer, seeds=(seed,), index=1))
        )
    assert not np.array_equal(together[0], layer.forward(x, context(be, layer, seeds=(5,), index=2)))


def test_dropped_input_rescales_what_the_network_sees():
    model = MLP([200, 1], input_dropout=0.5, dtype="float64")
    assert [type(layer).__name__ for layer in model.layers] == ["Dropout", "Dense"]
    assert [type(layer).__name__ for layer in MLP([4, 3, 3, 2], dropout=[0.5, 0.0]).layers] == [
        "Dense",
        "Dropout",
        "Dense",
        "Dense",
    ]


# --- input noise -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("std", [0.1, 2.0])
def test_noise_moments(dtype, std):
    layer = InputNoise(300, std)
    x = np.random.default_rng(5).normal(size=(500, 300)).astype(dtype)
    e = (layer.forward(x, context(get_backend("cpu"), layer, batch=500, dtype=dtype)) - x).astype(float) / std
    n = e.size
    assert np.isfinite(e).all()
    assert e.mean() == pytest.approx(0.0, abs=5.0 / np.sqrt(n))
    assert e.var() == pytest.approx(1.0, abs=5.0 * np.sqrt(2.0 / n))
    assert (e**3).mean() == pytest.approx(0.0, abs=5.0 * np.sqrt(15.0 / n))
    assert (e**4).mean() == pytest.approx(3.0, abs=5.0 * np.sqrt(96.0 / n))
    assert np.corrcoef(e[:, :-1].ravel(), e[:, 1:].ravel())[0, 1] == pytest.approx(0.0, abs=5.0 / np.sqrt(n))


def test_noise_is_box_and_muller_of_two_uniforms():
    layer = InputNoise(3, 0.5)
    y = layer.forward(np.zeros((B, 3)), context(get_backend("cpu"), layer, seeds=(7,), index=0, step=2))
    u = rng.uniform(7, rng.stream(rng.NOISE, 0), 2, (B, 6)).astype(float)
    expected = 0.5 * np.sqrt(-2.0 * np.log(1.0 - u[:, :3])) * np.cos(2.0 * np.pi * u[:, 3:])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


# --- what a network is made of -----------------------------------------------------------------------


def test_hidden_layer_by_name():
    kinds = {
        "relu": [Dense],
        "prelu": [Dense, PReLU],
        "prelu:0.1": [Dense, PReLU],
        "maxout": [Maxout],
        "maxout:4": [Maxout],
    }
    for name, expected in kinds.items():
        assert [type(layer) for layer in hidden_layer(3, 2, name, "auto", 0.0)] == expected
    assert hidden_layer(3, 2, "maxout", "auto", 0.0)[0].pieces == 2
    assert hidden_layer(3, 2, "maxout:4", "auto", 0.0)[0].pieces == 4


def test_only_weights_are_decayed():
    for name in ("relu", "prelu", "maxout"):
        for layer in hidden_layer(3, 2, name, "auto", 0.0):
            for spec in layer.specs():
                assert isinstance(spec, ParamSpec)
                assert spec.decayed == (spec.name == "weight")


def test_labels():
    model = MLP(
        [4, 3, 3, 2], activation=["prelu", "maxout:3"], dropout=0.25, input_dropout=0.1, input_noise=0.5
    )
    assert [layer.label for layer in model.layers] == [
        "input noise 0.5",
        "dropout 0.1",
        "dense 4->3 identity",
        "prelu 3->3",
        "dropout 0.25",
        "maxout:3 3->3",
        "dropout 0.25",
        "dense 3->2 identity",
    ]


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        (lambda: Maxout(3, 2, 1, "zeros"), "at least 2 pieces, found 1"),
        (lambda: hidden_layer(3, 2, "maxout:2.5", "auto", 0.0), "whole number of pieces"),
        (lambda: Dropout(3, 1.0), "dropout must be in [0, 1), found 1.0"),
        (lambda: Dropout(3, -0.1), "found -0.1"),
        (lambda: InputNoise(3, -1.0), "input_noise must be"),
        (lambda: InputNoise(3, float("inf")), "found inf"),
        (lambda: hidden_layer(3, 2, "rellu", "auto", 0.0), "did you mean 'relu'"),
        (lambda: hidden_layer(3, 2, "relu", "hee", 0.0), "unknown initialiser"),
    ],
)
def test_bad_options(make, fragment):
    with pytest.raises(ConfigError) as error:
        make()
    assert fragment in str(error.value)
