"""`fit_many`: every member equals the same model trained alone, whatever the others do."""

from __future__ import annotations

import numpy as np
import pytest

import xpnet
from xpnet import fit_many
from xpnet.errors import DivergedError
from xpnet.populations import members as settings
from xpnet.schedules import get_schedule

N, WIDTH, C = 90, 6, 4
G = np.random.default_rng(0)
X = G.normal(size=(N, WIDTH))
X_VALID = G.normal(size=(37, WIDTH))
Y, Y_VALID = (2 * (x[:, 0] + 0.3 * x[:, 1] > 0) + (x[:, 2] > 0) for x in (X, X_VALID))
NUMBERS = G.normal(size=(N, 2))
COMMON = {"sizes": [WIDTH, 8, C], "activation": "tanh", "epochs": 4, "batch_size": 16}
TIMES = ("seconds", "samples_per_second")


def alone(configurations, data, *, batches="own", dtype="float64", validation=None, device="cpu", **common):
    """The same configurations through `xpnet.fit`, one by one."""
    members = settings.read_configurations(configurations, common, len(data[1]))
    results = []
    for member in members:
        if batches == "shared":
            object.__setattr__(member, "order_seed", members[0].order_seed)
        model = member.model(dtype=dtype, device=device)
        try:
            history = member.fit_alone(model, data, validation)
            stopped = history.stopped
        except DivergedError:
            history, stopped = None, "diverged"
        results.append((model, history, stopped))
    return results


def worst(result, expected) -> float:
    """Largest difference of a weight or of an entry of a history, relative to the largest of its kind."""
    difference = 0.0
    assert len(result) == len(expected)
    for member, (model, history, stopped) in zip(result, expected, strict=True):
        assert member.stopped == stopped
        for name, w in model.get_weights().items():
            scale = max(1.0, float(np.abs(w).max()))
            difference = max(difference, float(np.abs(member.model.get_weights()[name] - w).max()) / scale)
        if history is None:
            continue
        assert len(member.history) == len(history) and member.best_epoch == history.best_epoch
        for mine, theirs in zip(member.history, history, strict=True):
            assert list(mine) == list(theirs)
            for key in set(mine) - set(TIMES):
                if mine[key] is None or theirs[key] is None:
                    assert mine[key] is theirs[key]
                else:
                    difference = max(difference, abs(mine[key] - theirs[key]) / max(1.0, abs(theirs[key])))
    return difference


def compare(
    configurations, data=(X, Y), *, options=None, **settings_and_data
) -> xpnet.populations.PopulationResult:
    common = {**COMMON, **settings_and_data}
    expected = alone(configurations, data, **common)
    result = fit_many(configurations, data, dtype="float64", **common, **(options or {}))
    assert worst(result, expected) < 1e-10
    return result


VALIDATED = {"validation": (X_VALID, Y_VALID)}
CASES = {
    "seeds": ([{"seed": s} for s in (3, 1, 40)], {}),
    "shared batches": ([{"seed": s} for s in (3, 1, 40)], {"batches": "shared", **VALIDATED}),
    "one seed, rates": ([{"lr": lr} for lr in (1e-3, 1e-2, 0.1)], {"optimizer": "sgd", "momentum": 0.9}),
    "momenta": ([{"momentum": m, "seed": s} for s, m in enumerate((0.0, 0.5, 0.9))], {"optimizer": "sgd", "lr": 0.05}),
    "adam numbers": ([{"beta1": b, "beta2": 1 - b / 10, "lr": b / 50} for b in (0.5, 0.8, 0.9)], VALIDATED),
    "adamw": ([{"weight_decay": w} for w in (0.0, 0.1, 0.5)], {"optimizer": "adamw", "lr": 0.01}),
    "penalties": ([{"l1": a, "l2": b} for a, b in ((0, 0), (0.01, 0), (0.02, 0.1))], {"lr": 0.01}),
    "schedules": (
        [
            {"schedule": "cosine"}, {"schedule": None}, {"schedule": get_schedule("step", every=1)},
            {"schedule": get_schedule("linear", warmup=0.3), "epochs": 6},
            {"schedule": get_schedule("plateau", patience=1), "lr": 0.5},
        ], {"optimizer": "sgd", "lr": 0.1, **VALIDATED},
    ),
    "one schedule": ([{"seed": s} for s in range(3)], {"schedule": "one_cycle", "optimizer": "sgd", "lr": 0.1}),
    "dropout": ([{"dropout": p, "seed": s} for s, p in enumerate((0.2, 0.5, 0.2))], {}),
    "dropout of layers": (
        [{"dropout": p, "seed": 2} for p in ([0.1, 0.5], [0.3, 0.2], [0.0, 0.4], 0.0)], {"sizes": [WIDTH, 8, 7, C]},
    ),
    "input dropout and noise": (
        [{"input_dropout": p, "input_noise": s, "seed": k} for k, (p, s) in enumerate(((0.1, 0.5), (0.3, 0.2)))], {},
    ),
    "noise or not": ([{"input_noise": s} for s in (0.0, 0.1, 0.3)], {}),
    "subsets": ([{"rows": G.permutation(N)[:50], "seed": s} for s in range(3)], VALIDATED),
    "bootstrap": ([{"rows": G.integers(0, N, N), "seed": s} for s in range(3)], VALIDATED),
    "folds": (
        [{"rows": np.arange(N) % 4 != k, "validation_rows": np.arange(N) % 4 == k, "lr": 0.02} for k in range(4)], {},
    ),
    "epochs": ([{"epochs": e, "seed": e} for e in (0, 1, 3, 5)], VALIDATED),
    "patience": (
        [{"seed": s, "lr": lr, "patience": 2} for s in range(3) for lr in (0.003, 0.1, 0.5)],
        {"epochs": 15, **VALIDATED},
    ),
    "patience and dropout": (
        [{"seed": s, "lr": lr, "patience": s + 1, "dropout": 0.3} for s in range(3) for lr in (0.01, 0.3)],
        {"epochs": 12, "schedule": "cosine", **VALIDATED},
    ),
    "monitor": ([{"seed": s, "patience": 1} for s in range(3)], {"monitor": "train_loss", "epochs": 9, "lr": 0.1}),
    "restore_best off": ([{"seed": s} for s in range(2)], {"restore_best": False, **VALIDATED}),
    "not shuffled": ([{"shuffle": s, "seed": k} for k, s in enumerate((True, False, False))], {}),
    "clipping": ([{"lr": lr} for lr in (0.01, 0.1)], {"clip_norm": 0.3, "max_norm": 0.8}),
    "sample weights": ([{"seed": s} for s in range(2)], {"sample_weight": G.uniform(0.2, 2.0, N), **VALIDATED}),
    "weights of each": (
        [{"sample_weight": G.uniform(0.2, 2.0, N), "seed": 1} for _ in range(3)], {"batches": "shared"},
    ),
    "balanced folds": (
        [{"rows": np.flatnonzero(np.arange(N) % 3 != k), "validation_rows": np.arange(N) % 3 == k} for k in range(3)],
        {"class_weight": "balanced", "label_smoothing": 0.1},
    ),
    "batch of all": ([{"seed": s} for s in range(2)], {"batch_size": 500}),
    "linear": ([{"seed": s} for s in range(2)], {"sizes": [WIDTH, C]}),
    "prelu and maxout": ([{"seed": s, "l2": 0.1} for s in range(2)], {"sizes": [WIDTH, 5, 4, C],
                                                                    "activation": ["prelu", "maxout:3"]}),
}  # fmt: skip


@pytest.mark.parametrize(("configurations", "common"), CASES.values(), ids=CASES)
def test_members_equal_models_trained_alone(configurations, common):
    compare(configurations, **common)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_members_that_take_the_place_of_others_equal_models_trained_alone(workers):
    """Blocks smaller than the population, so that members of several epochs train together."""
    g = np.random.default_rng(5)
    configurations = [
        {
            "seed": s,
            "lr": lr,
            "patience": 1 + s % 2,
            "dropout": 0.2,
            "epochs": 3 + s,
            "rows": g.integers(0, N, 60),
        }
        for s in range(4)
        for lr in (0.003, 0.2)
    ]
    result = compare(
        configurations, schedule="cosine", l2=0.01, **VALIDATED, options={"block": 3, "workers": workers}
    )
    assert {m.stopped for m in result} == {"early_stopping", "epochs"}, [
        (m.stopped, len(m.history)) for m in result
    ]
    assert len({len(m.history) for m in result}) > 2
