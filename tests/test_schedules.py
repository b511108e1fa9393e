"""Schedules: closed forms, warm-up, ends, and the plateau rule step by step."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

import xpnet
from xpnet.errors import ConfigError
from xpnet.schedules import (
    NAMES,
    Cosine,
    Exponential,
    Linear,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    Step,
    get_schedule,
    rate_factor,
)

TOTAL, PER_EPOCH = 200, 10


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (Schedule(), lambda t: 1.0),
        (Step(every=3, factor=0.5), lambda t: 0.5 ** (t // 30)),
        (Exponential(factor=0.9), lambda t: 0.9 ** (t / 10)),
        (Cosine(), lambda t: math.cos(math.pi * t / 400) ** 2),  # (1 + cos a) / 2 = cos^2 (a / 2)
        (Cosine(floor=0.1), lambda t: 0.1 + 0.9 * math.cos(math.pi * t / 400) ** 2),
        (Linear(), lambda t: (200 - t) / 200),
        (Linear(floor=0.2), lambda t: 1 - 0.8 * t / 200),
    ],
    ids=lambda v: getattr(v, "name", None),
)
def test_closed_forms(schedule, formula):
    for t in range(TOTAL + 1):
        assert schedule(t, TOTAL, PER_EPOCH) == pytest.approx(formula(t), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "plateau"])
def test_warm_up_rises_linearly_then_the_schedule_starts(name):
    plain, warm = get_schedule(name), get_schedule(name, warmup=0.2)
    for t in range(40):
        assert warm(t, TOTAL, PER_EPOCH) == pytest.approx((t + 1) / 40)
    for t in range(40, TOTAL):
        assert warm(t, TOTAL, PER_EPOCH) == plain(t - 40, 160, PER_EPOCH)


def test_one_cycle_ends_and_peak():
    s = OneCycle(rise=0.25, start=0.1, floor=0.01)
    values = [s(t, TOTAL, PER_EPOCH) for t in range(TOTAL + 1)]
    assert values[0] == pytest.approx(0.1)
    assert values[50] == 1.0 == max(values)
    assert values[TOTAL] == pytest.approx(0.01)
    assert values[25] == pytest.approx(0.55)  # half-way up the cosine
    assert values[125] == pytest.approx(0.505)  # half-way down
    assert all(a < b for a, b in pairwise(values[:51]))
    assert all(a > b for a, b in pairwise(values[50:]))


@pytest.mark.parametrize(
    "schedule", [Cosine(floor=0.3), Linear(floor=0.3), OneCycle(floor=0.3)], ids=lambda s: s.name
)
def test_beyond_the_end_the_floor_holds(schedule):
    assert schedule(TOTAL + 50, TOTAL, PER_EPOCH) == pytest.approx(0.3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("total", [1, 2, 7])
def test_short_runs_stay_in_bounds(name, total):
    for warmup in (0.0, 0.5):
        schedule = get_schedule(name, warmup=warmup)
        assert all(0.0 <= schedule(t, total, 1) <= 1.0 for t in range(total + 1))


def test_plateau_waits_reduces_and_stops_at_its_floor():
    s = ReduceOnPlateau(factor=0.5, patience=2, min_factor=0.2)
    state: dict[str, float] = {}
    seen = []
    for loss in [1.0, 0.8, 0.9, 0.8, 0.7, 0.7, 0.75, 0.9, 0.9, 0.9, 0.9]:
        state = s.observe(state, loss)
        seen.append(state["multiplier"])
    #      best best bad1 bad2 best bad1 bad2 bad1 bad2 bad1 bad2
    assert seen == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2]
    assert state["best"] == 0.7


def test_plateau_asks_for_a_least_change():
    s = ReduceOnPlateau(factor=0.5, patience=2, min_delta=0.15)
    state: dict[str, float] = {}
    seen = []
    for loss in [1.0, 0.9, 0.8, 0.6, 0.5, math.nan]:
        state = s.observe(state, loss)
        seen.append(state["multiplier"])
    # each is compared with the best so far: 0.8 gains only 0.1 on 0.9
    assert seen == [1.0, 1.0, 0.5, 0.5, 0.5, 0.25]
    assert state["best"] == 0.5


def test_plateau_counts_nan_as_no_improvement():
    s = ReduceOnPlateau(factor=0.5, patience=1)
    assert s.observe({}, math.nan)["multiplier"] == 0.5


def test_plateau_does_not_change_the_state_it_was_given():
    s = ReduceOnPlateau()
    first = s.observe({}, 1.0)
    kept = dict(first)
    s.observe(first, 2.0)
    assert first == kept


def test_options_behind_the_name():
    assert get_schedule("Step: every=5, factor=0.5") == Step(every=5, factor=0.5)
    assert get_schedule("one-cycle:rise=0.2", rise=0.4, warmup=0.1) == get_schedule(
        "one_cycle", rise=0.4, warmup=0.1
    )
    with pytest.raises(ConfigError, match="schedule 'step:5': expected key=value after ':', found '5'"):
        get_schedule("step:5")


def test_by_name():
    assert get_schedule(None) == get_schedule("constant") == Schedule()
    assert get_schedule("One-Cycle", rise=0.5) == OneCycle(rise=0.5)
    built = Cosine(floor=0.5)
    assert get_schedule(built) is built
    for name in NAMES:
        assert get_schedule(name).name == name


@pytest.mark.parametrize(
    ("name", "options", "fragment"),
    [
        ("cosin", {}, "did you mean 'cosine'"),
        ("cosine", {"flor": 0.1}, "did you mean 'floor'"),
        ("step", {"every": 0}, "every must be a number in [1, inf)"),
        ("step", {"factor": -0.1}, "factor must be"),
        ("constant", {"warmup": 1.0}, "warmup must be a number in [0, 1)"),
        ("constant", {"warmup": "long"}, "found 'long'"),
        ("constant", {"warmup": True}, "found True"),
        ("plateau", {"patience": 0}, "patience must be"),
        ("plateau", {"min_delta": -1.0}, "min_delta must be"),
        ("one_cycle", {"rise": math.nan}, "rise must be"),
        ("linear", {"floor": 1.5}, "floor must be"),
    ],
)
def test_bad_options(name, options, fragment):
    with pytest.raises(ConfigError) as error:
        get_schedule(name, **options)
    assert fragment in str(error.value)


def _fit_one_of_many(model, data, **how):
    return xpnet.fit_many([{"sizes": list(model.sizes), **how}], data)


class _Own(Schedule):
    says = None

    def after(self, step, total, per_epoch):
        return self.says


@pytest.mark.parametrize("says", [None, math.nan, math.inf, -0.1, "high", [1.0, 2.0]])
@pytest.mark.parametrize(
    "train", [xpnet.fit, lambda model, data, **how: xpnet.fit_many([{"sizes": [2, 2], **how}], data)]
)
def test_what_a_schedule_of_ones_own_says_is_looked_at(says, train, monkeypatch):
    monkeypatch.setattr(_Own, "says", says)
    data = np.eye(2), np.array([0, 1])
    with pytest.raises(
        ConfigError, match=r"schedule _Own gave .* for update 0 of 1; expected the factor of lr"
    ):
        train(xpnet.MLP([2, 2]), data, schedule=_Own(), epochs=1)


@pytest.mark.parametrize("says", [1, np.float32(0.5), np.array(0.5)])
def test_numbers_of_any_type_will_do(says):
    assert type(rate_factor(lambda *at: says, 0, 1, 1)) is float
