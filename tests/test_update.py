"""One update: penalties on weights only, clipping, max-norm, decoupled decay, and their order."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xpnet.backend import get_backend
from xpnet.backend.reference import ReferenceBackend
from xpnet.errors import ConfigError
from xpnet.optim import SGD, Adam, AdamW
from xpnet.params import ParameterLayout, ParamSpec
from xpnet.training.update import Regularization, Update

BACKENDS = [pytest.param(get_backend("cpu"), id="cpu"), pytest.param(ReferenceBackend(np), id="reference")]
SPECS = [
    ParamSpec("w1", (4, 3)),
    ParamSpec("b1", (4,), decayed=False),
    ParamSpec("slope", (4,), decayed=False),
    ParamSpec("w2", (2, 4)),
    ParamSpec("b2", (2,), decayed=False),
]
WEIGHTS = ("w1", "w2")
OTHERS = ("b1", "slope", "b2")


class Case:
    """Random weights and gradients under an update; `before`, `gradient` and `now` give copies by name."""

    def __init__(self, be, optimizer=None, n_models=None, scale=1.0, dtype="float64", **regularization):
        self.layout = ParameterLayout(SPECS, n_models)
        self.be = be
        g = np.random.default_rng(0)
        self.w = g.normal(size=self.layout.size).astype(dtype)
        self.w[::7] = 0.0
        self.g = (scale * g.normal(size=self.layout.size)).astype(dtype)
        self.before, self.gradient = self._copy(self.w), self._copy(self.g)
        self.update = Update(
            be, self.layout, self.w, self.g, optimizer or SGD(lr=0.1), Regularization(**regularization), dtype
        )

    def _copy(self, flat):
        return {k: v.copy() for k, v in self.layout.views(self.be, flat).items()}

    def step(self, t=1):
        self.update.set_numbers(t, 1.0)
        self.update.apply()
        return self._copy(self.w)


def check(now, expected, rtol=1e-13):
    for name, value in expected.items():
        np.testing.assert_allclose(now[name], value, rtol=rtol, atol=1e-15)


@pytest.mark.parametrize("be", BACKENDS)
@pytest.mark.parametrize("l1", [0.0, 0.3])
@pytest.mark.parametrize("l2", [0.0, 0.2])
def test_penalties_touch_weights_and_nothing_else(be, l1, l2):
    c = Case(be, l1=l1, l2=l2)
    w, g = c.before, c.gradient
    expected = {k: w[k] - 0.1 * (g[k] + l2 * w[k] + l1 * np.sign(w[k])) for k in WEIGHTS}
    expected |= {k: w[k] - 0.1 * g[k] for k in OTHERS}
    check(c.step(), expected)
    assert any((w[k] == 0.0).any() for k in WEIGHTS)  # the subgradient of |w| at 0 was 0


@pytest.mark.parametrize("be", BACKENDS)
def test_penalties_per_member(be):
    l1, l2 = [0.0, 0.1, 0.2], [0.3, 0.0, 0.5]
    c = Case(be, n_models=3, l1=l1, l2=l2)
    w, g = c.before, c.gradient
    now = c.step()
    for m in range(3):
        for k in WEIGHTS:
            expected = w[k][m] - 0.1 * (g[k][m] + l2[m] * w[k][m] + l1[m] * np.sign(w[k][m]))
            np.testing.assert_allclose(now[k][m], expected, rtol=1e-13, atol=1e-15)
    check(now, {k: w[k] - 0.1 * g[k] for k in OTHERS})


@pytest.mark.parametrize("be", BACKENDS)
def test_decoupled_decay_touches_weights_only(be):
    plain, decayed = Case(be, Adam(lr=0.1)), Case(be, AdamW(lr=0.1, weight_decay=0.5))
    a, b = plain.step(), decayed.step()
    check(b, {k: a[k] - 0.1 * 0.5 * plain.before[k] for k in WEIGHTS})
    check(b, {k: a[k] for k in OTHERS}, rtol=0)
    # the moments know nothing of the decay
    for name, moment in plain.update.moments.items():
        np.testing.assert_array_equal(moment, decayed.update.moments[name])


@pytest.mark.parametrize("be", BACKENDS)
def test_clip_by_value(be):
    c = Case(be, scale=3.0, clip_value=0.5)
    assert max(np.abs(g).max() for g in c.gradient.values()) > 0.5
    check(c.step(), {k: c.before[k] - 0.1 * np.clip(g, -0.5, 0.5) for k, g in c.gradient.items()})


def total_norm(gradient) -> float:
    return math.sqrt(sum(float((g**2).sum()) for g in gradient.values()))


@pytest.mark.parametrize("be", BACKENDS)
@pytest.mark.parametrize("limit", [0.7, 1e6])
def test_clip_by_global_norm(be, limit):
    c = Case(be, clip_norm=limit)
    factor = min(1.0, limit / total_norm(c.gradient))
    check(c.step(), {k: c.before[k] - 0.1 * factor * g for k, g in c.gradient.items()})


@pytest.mark.parametrize("be", BACKENDS)
def test_clip_by_norm_is_per_member(be):
    c = Case(be, n_models=3, clip_norm=4.0)
    for k, view in c.layout.views(be, c.g).items():
        view[0] *= 0.01
        c.gradient[k] = view.copy()
    now = c.step()
    factors = [min(1.0, 4.0 / total_norm({k: g[m] for k, g in c.gradient.items()})) for m in range(3)]
    assert factors[0] == 1.0 and max(factors[1:]) < 1.0
    for m in range(3):
        check(
            {k: v[m] for k, v in now.items()},
            {k: c.before[k][m] - 0.1 * factors[m] * g[m] for k, g in c.gradient.items()},
        )


@pytest.mark.parametrize("be", BACKENDS)
@pytest.mark.parametrize("limit", ["clip_norm", "max_norm"])
def test_a_norm_beyond_the_range_of_the_type_is_a_divergence(be, limit):
    """Neither a step of zero for ever nor weights of zero: numbers that are none, which training reports."""
    c = Case(be, scale=1e30 if limit == "clip_norm" else 1.0, dtype="float32", **{limit: 1.0})
    if limit == "max_norm":
        c.w *= np.float32(1e30)
    with np.errstate(all="ignore"):
        assert np.isnan(c.step()["w1"]).any()


@pytest.mark.parametrize("be", BACKENDS)
@pytest.mark.parametrize("n_models", [None, 1])
def test_a_list_of_one_number_is_that_number(be, n_models):
    lists = Case(be, Adam(lr=[0.1], beta1=[0.8]), n_models, l1=[0.1], l2=[0.2])
    plain = Case(be, Adam(lr=0.1, beta1=0.8), n_models, l1=0.1, l2=0.2)
    check(lists.step(), plain.step(), rtol=0)


@pytest.mark.parametrize("be", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gradient_of_zero_survives_clipping_by_norm(be, dtype):
    c = Case(be, scale=0.0, clip_norm=1.0, dtype=dtype)
    check(c.step(), c.before, rtol=0)


@pytest.mark.parametrize("be", BACKENDS)
@pytest.mark.parametrize("n_models", [None, 2])
def test_max_norm_per_unit(be, n_models):
    c = Case(be, SGD(lr=0.0), n_models=n_models, max_norm=1.2)
    now = c.step()
    shortened = kept = 0
    for k in WEIGHTS:
        norms = np.linalg.norm(c.before[k], axis=-1, keepdims=True)
        expected = np.where(norms > 1.2, c.before[k] * 1.2 / np.maximum(norms, 1e-12), c.before[k])
        np.testing.assert_allclose(now[k], expected, rtol=1e-13, atol=1e-15)
        unchanged = (norms <= 1.2)[..., 0]
        np.testing.assert_array_equal(now[k][unchanged], c.before[k][unchanged])  # to the bit
        shortened, kept = shortened + (~unchanged).sum(), kept + unchanged.sum()
    assert shortened > 0 and kept > 0
    check(now, {k: c.before[k] for k in OTHERS}, rtol=0)


@pytest.mark.parametrize("be", BACKENDS)
def test_order_penalty_value_norm_optimizer_max_norm(be):
    c = Case(
        be, SGD(lr=0.5, momentum=0.9), scale=2.0, l2=0.3, l1=0.1, clip_value=1.0, clip_norm=2.0, max_norm=0.8
    )
    weights, velocity = dict(c.before), {k: np.zeros_like(v) for k, v in c.before.items()}
    for t in (1, 2, 3):
        c.g[...] = np.concatenate([c.gradient[s].ravel() for s in (*WEIGHTS, *OTHERS)])
        now = c.step(t)
        g = {
            k: v + (0.3 * weights[k] + 0.1 * np.sign(weights[k])) * (k in WEIGHTS)
            for k, v in c.gradient.items()
        }
        g = {k: np.clip(v, -1.0, 1.0) for k, v in g.items()}
        factor = min(1.0, 2.0 / total_norm(g))
        assert factor < 1.0
        velocity = {k: 0.9 * velocity[k] + factor * v for k, v in g.items()}
        weights = {k: w - 0.5 * velocity[k] for k, w in weights.items()}
        for k in WEIGHTS:
            norms = np.linalg.norm(weights[k], axis=1, keepdims=True)
            weights[k] = weights[k] * np.minimum(1.0, 0.8 / norms)
        check(now, weights, rtol=1e-12)


@pytest.mark.parametrize("be", BACKENDS)
def test_decay_comes_before_the_step(be):
    # the decay multiplies the old weight: w (1 - lr d) - lr u, never (w - lr u)(1 - lr d)
    c = Case(be, AdamW(lr=0.5, weight_decay=1.0, beta1=0.0, beta2=0.0, eps=0.0), scale=1.0)
    expected = {k: c.before[k] * 0.5 - 0.5 * np.sign(c.gradient[k]) for k in WEIGHTS}
    check(c.step(), expected, rtol=1e-12)


@pytest.mark.parametrize("n_models", [None, 3])
def test_backends_agree(n_models):
    options = {"l1": 0.01, "l2": 0.1, "clip_value": 2.0, "clip_norm": 1.0, "max_norm": 1.5}
    a = Case(get_backend("cpu"), AdamW(lr=0.01), n_models, **options)
    b = Case(ReferenceBackend(np), AdamW(lr=0.01), n_models, **options)
    for t in range(1, 6):
        a.g[...] = b.g[...] = np.random.default_rng(t).normal(size=a.g.size)
        x, y = a.step(t), b.step(t)
    check(x, y, rtol=1e-13)


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"l1": -0.1}, "l1 must be a finite number >= 0"),
        ({"l2": math.inf}, "l2 must be"),
        ({"l2": math.nan}, "l2 must be"),
        ({"l2": "a"}, "found 'a'"),
        ({"l1": [0.1, -1.0]}, "l1 must be"),
        ({"l2": [[0.1]]}, "l2 must be"),
        ({"l2": None}, "found None"),
        ({"l2": []}, "l2 must be"),
        ({"clip_value": 0.0}, "clip_value must be a finite number > 0"),
        ({"clip_norm": -1.0}, "clip_norm must be"),
        ({"max_norm": math.inf}, "max_norm must be"),
        ({"max_norm": math.nan}, "max_norm must be"),
        ({"clip_norm": "1"}, "found '1'"),
        ({"max_norm": True}, "found True"),
    ],
)
def test_bad_numbers(options, fragment):
    with pytest.raises(ConfigError) as error:
        Regularization(**options)
    assert fragment in str(error.value)


def test_a_wrong_number_of_penalties_is_refused():
    with pytest.raises(ConfigError, match="2 values for a population of 3"):
        Case(get_backend("cpu"), n_models=3, l2=[0.1, 0.2])
