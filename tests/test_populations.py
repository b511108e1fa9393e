"""`fit_many`: every member equals the same model trained alone, whatever the others do."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass

import numpy as np
import pytest

import xpnet
from xpnet import fit, fit_many
from xpnet.data.dataset import Preprocessing
from xpnet.errors import ConfigError, DataError, DivergedError, OutOfMemoryError
from xpnet.populations import members as settings
from xpnet.populations import plan as populations_plan
from xpnet.schedules import Schedule, get_schedule

N, WIDTH, C = 90, 6, 4
G = np.random.default_rng(0)
X = G.normal(size=(N, WIDTH))
X_VALID = G.normal(size=(37, WIDTH))
Y, Y_VALID = (2 * (x[:, 0] + 0.3 * x[:, 1] > 0) + (x[:, 2] > 0) for x in (X, X_VALID))
NUMBERS = G.normal(size=(N, 2))
COMMON = {"sizes": [WIDTH, 8, C], "activation": "tanh", "epochs": 4, "batch_size": 16}
TIMES = ("seconds", "samples_per_second")


def fit_alone(member, model, data, validation):
    """What a member of a population equals: its model trained by `xpnet.fit` on its rows."""
    x, y = data
    training = dict(member.training)
    own = member.validation_rows
    if own is not None:
        validation = (x[own], y[own])
    if member.rows is not None:
        x, y = x[member.rows], y[member.rows]
        if training.get("sample_weight") is not None:
            training["sample_weight"] = np.asarray(training["sample_weight"])[member.rows]
    return fit(
        model, (x, y), validation=validation, optimizer=member.optimizer, schedule=member.schedule,
        seed=member.order_seed, **training,
    )  # fmt: skip


def alone(configurations, data, *, batches="own", dtype="float64", validation=None, device="cpu", **common):
    """The same configurations through `xpnet.fit`, one by one."""
    members = settings.read_configurations(configurations, common, len(data[1]))
    results = []
    for member in members:
        if batches == "shared":
            object.__setattr__(member, "order_seed", members[0].order_seed)
        model = member.model(dtype=dtype, device=device)
        try:
            history = fit_alone(member, model, data, validation)
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


@dataclass(frozen=True, kw_only=True)
class Listed(Schedule):
    """A factor for each epoch."""

    factors: list

    def after(self, step, total, per_epoch):
        return self.factors[step // per_epoch]


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
    "plateaus of the training loss": (
        [{"schedule": get_schedule("plateau", patience=1), "lr": lr, "seed": k} for k, lr in enumerate((0.5, 1.0))],
        {"optimizer": "sgd", "epochs": 8},
    ),
    "a schedule without a hash": (
        [{"schedule": Listed(factors=[1.0, 0.1, 0.5, f]), "seed": 1} for f in (0.0, 1.0)],
        {"optimizer": "sgd", "lr": 0.1},
    ),
    "one schedule": ([{"seed": s} for s in range(3)], {"schedule": "one_cycle", "optimizer": "sgd", "lr": 0.1}),
    "dropout": ([{"dropout": p, "seed": s} for s, p in enumerate((0.2, 0.5, 0.2))], {}),
    "dropout of layers": (
        [{"dropout": p, "seed": 2} for p in ([0.1, 0.5], [0.3, 0.2], [0.0, 0.4], 0.0)], {"sizes": [WIDTH, 8, 7, C]},
    ),
    "input dropout and noise": (
        [{"input_dropout": p, "input_noise": s, "seed": k} for k, (p, s) in enumerate(((0.1, 0.5), (0.3, 0.2)))], {},
    ),
    "dropout or not": ([{"dropout": p, "seed": 1} for p in (0.0, 0.4)], {}),
    "noise or not": ([{"input_noise": s} for s in (0.0, 0.1, 0.3)], {}),
    "subsets": ([{"rows": G.permutation(N)[:50], "seed": s} for s in range(3)], VALIDATED),
    "one subset": (
        [{"rows": np.arange(N) % 3 > 0, "validation_rows": np.arange(N) % 3 == 0, "seed": s} for s in range(2)], {},
    ),
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
    "least change": (
        [
            {"seed": s, "patience": 2, "min_delta": 0.02, "min_delta_from": start}
            for s in range(2)
            for start in ("improvement", "best")
        ],
        {"monitor": "train_loss", "epochs": 30, "lr": 0.01},
    ),
    "monitor": ([{"seed": s, "patience": 1} for s in range(3)], {"monitor": "train_loss", "epochs": 9, "lr": 0.1}),
    "restore_best off": ([{"seed": s} for s in range(2)], {"restore_best": False, **VALIDATED}),
    "not shuffled": ([{"shuffle": s, "seed": k} for k, s in enumerate((True, False, False))], {}),
    "clipping": ([{"lr": lr} for lr in (0.01, 0.1)], {"clip_norm": 0.3, "max_norm": 0.8}),
    "sample weights": ([{"seed": s} for s in range(2)], {"sample_weight": G.uniform(0.2, 2.0, N), **VALIDATED}),
    "weights of each": (
        [{"sample_weight": G.uniform(0.2, 2.0, N), "seed": 1} for _ in range(3)], {"batches": "shared"},
    ),
    "weights of subsets": (
        [{"rows": G.permutation(N)[:k], "sample_weight": G.uniform(0.2, 2.0, N)} for k in (50, 50, N)], {},
    ),
    "weights of classes": ([{"class_weight": {3: w}} for w in (0.2, 5.0)], {}),
    "balanced folds": (
        [{"rows": np.flatnonzero(np.arange(N) % 3 != k), "validation_rows": np.arange(N) % 3 == k} for k in range(3)],
        {"class_weight": "balanced", "label_smoothing": 0.1},
    ),
    "batch of all": ([{"seed": s} for s in range(2)], {"batch_size": 500}),
    "weights of validation": (
        [{"seed": s, "monitor": "valid_loss"} for s in range(2)],
        {"validation": (X_VALID, Y_VALID, G.uniform(0.2, 2.0, 37)), "lr": 0.1},
    ),
    "validation without weights": ([{"seed": s} for s in range(2)], {"validation": (X_VALID, Y_VALID, None)}),
    "information gain": ([{"seed": s} for s in range(2)], {"infogain": G.uniform(0.0, 1.0, (C, C))}),
    "linear": ([{"seed": s} for s in range(2)], {"sizes": [WIDTH, C]}),
    "frozen": (
        [{"seed": s, "freeze": f, "l2": 0.1} for s in range(2) for f in ([0], [-1], ["layers.0.bias"], [])],
        {"max_norm": 0.5, "patience": 2, **VALIDATED},
    ),
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


def test_a_member_with_momentum_takes_the_place_of_one_without():
    """The velocity that it needs is not among the buffers of those before."""
    configurations = [{"seed": s, "momentum": 0.9 * (s > 1), "epochs": 2 + s} for s in range(4)]
    compare(configurations, optimizer="sgd", lr=0.05, options={"block": 2, "workers": 1})


# --- groups -----------------------------------------------------------------------------------------
def test_different_architectures_are_trained_group_by_group():
    configurations = [
        {"sizes": [WIDTH, h, C], "seed": s, "optimizer": o}
        for s in range(2)
        for h in (5, 8)
        for o in ("sgd", "adam")
    ]
    result = compare(configurations, lr=0.05)
    assert sorted(p["members"] for p in result.plan) == [2, 2, 2, 2]
    assert [m.index for m in result] == list(range(8))
    assert [m.model.sizes[1] for m in result] == [5, 5, 8, 8, 5, 5, 8, 8]


def test_regression_with_targets():
    configurations = [{"seed": s, "lr": lr, "patience": 2} for s in range(2) for lr in (0.01, 0.1)]
    result = compare(
        configurations,
        (X, NUMBERS),
        sizes=[WIDTH, 8, 2],
        loss="huber:0.5",
        validation=(X_VALID, NUMBERS[:37]),
    )
    assert result.best.score == min(m.score for m in result)


def test_multilabel_and_a_single_output():
    compare([{"seed": s} for s in range(2)], (X, (NUMBERS > 0).astype(int)), sizes=[WIDTH, 8, 2],
            loss="binary_cross_entropy", task="multilabel")  # fmt: skip
    compare(
        [{"seed": s} for s in range(2)], (X, Y % 2), sizes=[WIDTH, 8, 1], validation=(X_VALID, Y_VALID % 2)
    )


def test_soft_labels():
    rows = np.exp(G.normal(size=(N, C)))
    compare(
        [{"seed": s} for s in range(2)], (X, rows / rows.sum(axis=1, keepdims=True)), loss="cross_entropy"
    )


def test_preprocessing_and_bytes():
    raw = np.random.default_rng(1).integers(0, 256, (N, 2, 3), dtype=np.uint8)
    recipe = Preprocessing((2, 3), scale=1 / 255)
    result = fit_many([{"seed": 1}, {"seed": 2}], (raw, Y), preprocessing=recipe, classes=tuple("abcd"),
                      dtype="float64", **COMMON)  # fmt: skip
    for member, seed in zip(result, (1, 2), strict=True):
        model = xpnet.MLP(COMMON["sizes"], activation="tanh", seed=seed, dtype="float64")
        model.preprocessing = recipe
        xpnet.fit(model, (raw, Y), epochs=4, batch_size=16)
        np.testing.assert_allclose(member.model.weights, model.weights, rtol=1e-10, atol=1e-12)
        assert member.model.classes == tuple("abcd")
        np.testing.assert_array_equal(member.model.predict(raw), model.predict(raw))


def test_samples_that_stay_on_the_host():
    from xpnet.training.examples import RowSource

    class Rows:
        shape = X.shape

        def take_rows(self, rows):
            return X[rows]

        def checksum(self):
            return 1

    assert isinstance(Rows(), RowSource)
    result = fit_many([{"seed": s} for s in range(3)], (Rows(), Y), dtype="float64", **COMMON)
    assert worst(result, alone([{"seed": s} for s in range(3)], (X, Y), **COMMON)) < 1e-10


@pytest.mark.parametrize("device", ["numba", "reference"])
def test_other_back_ends(device):
    if device == "numba":
        pytest.importorskip("numba")
    from xpnet.backend.reference import ReferenceBackend

    place = ReferenceBackend(np) if device == "reference" else device
    configurations = [
        {"seed": s, "lr": lr, "dropout": p, "patience": 1, "l2": lr}
        for s in range(2)
        for lr, p in ((0.01, 0.2), (0.3, 0.5))
    ]  # fmt: skip
    common = {**COMMON, "epochs": 6, **VALIDATED}
    result = fit_many(configurations, (X, Y), dtype="float64", device=place, block=3, **common)
    assert worst(result, alone(configurations, (X, Y), device=place, **common)) < 1e-10


def test_float32_members_are_close():
    configurations = [{"seed": s, "lr": lr} for s in range(4) for lr in (1e-3, 1e-2)]
    expected = alone(configurations, (X, Y), dtype="float32", **COMMON)
    result = fit_many(configurations, (X, Y), **COMMON)
    assert result[0].model.dtype == "float32"
    assert worst(result, expected) < 1e-4


# --- results ----------------------------------------------------------------------------------------
def test_results_are_ordinary_models(tmp_path):
    result = fit_many([{"seed": s} for s in range(3)], (X, Y), **COMMON, **VALIDATED)
    result[1].model.save(tmp_path / "member.safetensors")
    opened = xpnet.load(tmp_path / "member.safetensors")
    np.testing.assert_array_equal(opened.predict(X_VALID), result[1].model.predict(X_VALID))
    assert opened.n_models is None and opened.task == "classification"
    scores = xpnet.evaluate(opened, (X_VALID, Y_VALID))
    assert scores["accuracy"] == pytest.approx(result[1].score, abs=1e-12)


def test_best_ranking_and_rows():
    configurations = [
        {"seed": s, "lr": lr, "rows": np.arange(60 + s)} for s in range(2) for lr in (1e-6, 0.02)
    ]
    result = fit_many(configurations, (X, Y), **COMMON, **VALIDATED)
    ranking = result.ranking()
    assert [m.score for m in ranking] == sorted((m.score for m in result), reverse=True)
    assert result.best is ranking[0] and result.best.goodness == result.best.score
    rows = result.to_rows()
    assert [r["member"] for r in rows] == [0, 1, 2, 3]
    assert [r["lr"] for r in rows] == [1e-6, 0.02, 1e-6, 0.02] and rows[2]["rows"] == "61 rows"
    assert "epochs" in rows[0] and "batch_size" not in rows[0]
    assert set(result.to_rows(["optimizer"])[0]) >= {"optimizer", "score"}
    assert rows[1]["valid_loss"] == result[1].history[result[1].best_epoch - 1]["valid_loss"]
    assert [m is r for m, r in zip(result, result.members, strict=True)] == [True] * 4 and len(result) == 4


def test_members_without_an_epoch_have_no_score():
    result = fit_many([{"epochs": 0}, {"epochs": 1}], (X, Y), **{**COMMON, "epochs": 0})
    assert np.isnan(result[0].score) and result[0].goodness == -np.inf and result.best is result[1]
    with pytest.raises(ConfigError, match="none of the 1 members has a score: no epoch was finished"):
        _ = fit_many([{}], (X, Y), **{**COMMON, "epochs": 0}).best


def test_each_result_is_handed_out_at_once_in_the_calling_thread():
    seen, thread = [], threading.get_ident()

    def note(member):
        assert threading.get_ident() == thread and member.model is not None
        seen.append(member.index)

    configurations = [{"seed": s, "epochs": 1 + s % 3} for s in range(6)]
    result = fit_many(configurations, (X, Y), sizes=COMMON["sizes"], on_result=note, keep_models=False, block=2,
                      workers=2)  # fmt: skip
    assert sorted(seen) == list(range(6)) and all(m.model is None for m in result)


def test_the_page_about_populations_runs(tmp_path, monkeypatch, capsys):
    import re
    from pathlib import Path

    page = Path(__file__).parent.parent / "docs" / "populations.md"
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        exec(compile(block, page.name, "exec"), namespace)
    assert (tmp_path / "best.safetensors").exists() and len(capsys.readouterr().out.splitlines()) == 17


# --- divergence -------------------------------------------------------------------------------------
@pytest.mark.parametrize("validated", [True, False])
def test_a_member_that_diverges_is_reported_and_disturbs_nobody(validated):
    configurations = [{"lr": lr, "seed": s} for s, lr in enumerate((0.05, 1e200, 0.02, 0.3))]
    common = {**COMMON, "optimizer": "sgd", "activation": "relu", **(VALIDATED if validated else {})}
    result = fit_many(configurations, (X, Y), dtype="float64", **common)
    assert worst(result, alone(configurations, (X, Y), **common)) < 1e-10
    assert [m.stopped for m in result] == ["epochs", "diverged", "epochs", "epochs"]
    assert result.failed == [result[1]] and "epoch 1, steps 1 to 6" in result[1].error
    assert result[1].goodness == -np.inf and result[1].history == [] and np.isnan(result[1].score)
    assert np.isfinite(result[1].model.weights).all() and result.best is not result[1]
    assert result.to_rows()[1]["error"] == result[1].error


def test_divergence_after_good_epochs_keeps_the_best_weights():
    """The rate rises until the weights overflow."""

    class Rising(Schedule):
        name = "rising"

        def after(self, step, total, per_epoch):
            return 1.0 if step < 3 * per_epoch else 1e300

    configurations = [{"schedule": Rising(), "seed": 1}, {"schedule": None, "seed": 2}]
    common = {**COMMON, "epochs": 6, "optimizer": "sgd", "lr": 0.05, "activation": "relu", **VALIDATED}
    result = fit_many(configurations, (X, Y), dtype="float64", **common)
    assert worst(result, alone(configurations, (X, Y), **common)) < 1e-10
    assert (
        result[0].stopped == "diverged" and len(result[0].history) == 3 and result[0].best_epoch in (1, 2, 3)
    )


def test_when_all_diverge_there_is_no_best():
    result = fit_many(
        [{"seed": s} for s in range(2)], (X, Y), optimizer="sgd", lr=1e200, **{**COMMON, "activation": "relu"}
    )
    assert len(result.failed) == 2
    with pytest.raises(ConfigError, match="none of the 2 members has a score: training diverged in epoch 1"):
        _ = result.best


# --- bad input --------------------------------------------------------------------------------------
BAD = [
    ([], {}, ConfigError, "there are no configurations"),
    ({"seed": 1}, {}, ConfigError, "must be a list of dicts, found dict"),
    ([{"seed": 1}, 3], {}, ConfigError, "configuration 1 must be a dict of settings, found 3"),
    ([{}, {"lrr": 1}], {}, ConfigError, "configuration 1: unknown setting 'lrr'; did you mean 'lr'"),
    ([{"learning_rate": 0.1}], {}, ConfigError, "unknown setting 'learning_rate': it is called lr here"),
    ([{}], {"callbacks": []}, ConfigError, "unknown setting 'callbacks': members train side by side"),
    ([{"device": "cpu"}], {}, ConfigError, "unknown setting 'device': it is an argument of fit_many"),
    ([{"sizes": None}], {}, ConfigError, "configuration 0: the setting 'sizes' is missing"),
    ([{"lr": [1, 2]}], {}, ConfigError, "configuration 0: lr must be one number"),
    ([{"l2": [0.1]}], {}, ConfigError, "l2 must be one number"),
    ([{"lr": -1.0}], {}, ConfigError, r"lr must be a number in \[0, inf\)"),
    ([{"optimizer": xpnet.SGD(lr=[0.1, 0.2])}], {}, ConfigError, "sgd: lr must be one number"),
    ([{"optimizer": "sgd", "beta1": 0.9}], {}, ConfigError, "unknown option of optimizer 'sgd' 'beta1'"),
    (
        [{"optimizer": xpnet.SGD(), "beta1": 0.9}],
        {},
        ConfigError,
        "unknown option of optimizer 'sgd' 'beta1'",
    ),
    ([{"epochs": 1.5}], {}, ConfigError, "epochs must be a whole number"),
    ([{"patience": 0}], {}, ConfigError, "patience must be a whole number >= 1"),
    ([{"min_delta_from": "last"}], {}, ConfigError, "min_delta_from must be 'improvement' or 'best'"),
    ([{"dropout": 1.5}], {}, ConfigError, "configuration 0: dropout must be"),
    ([{"dropout": 0.5}, {"dropout": 1.5}], {}, ConfigError, "configuration 1: dropout must be"),
    ([{"input_noise": 0.5}, {"input_noise": -1.0}], {}, ConfigError, "configuration 1: input_noise must be"),
    ([{"dropout": [0.1, 0.2]}], {}, ConfigError, "2 entries for 1 hidden"),
    ([{"seed": -1}], {}, ConfigError, "configuration 0: seed must be"),
    ([{"order_seed": "x"}], {}, ConfigError, "configuration 0: seed must be"),
    (
        [{}, {"rows": [0, 90]}],
        {},
        DataError,
        "configuration 1: rows has the position 90, but the data have 90",
    ),
    ([{"rows": []}], {}, DataError, "rows must be a list of positions"),
    ([{"rows": [0.5]}], {}, DataError, "rows must be a list of positions"),
    ([{"rows": np.ones(5, bool)}], {}, DataError, "rows is a mask of 5 entries for 90 examples"),
    ([{"rows": np.ones(90) > 2}], {}, DataError, "rows must be a list of positions .* found nothing"),
    ([{}, {"rows": np.flatnonzero(Y == 1)}], {}, DataError, "configuration 1: .*class"),
    ([{"validation_rows": [-1]}], {}, DataError, "validation_rows has the position -1"),
    (
        [{"monitor": "valid_loss"}],
        {},
        ConfigError,
        "configuration 0: monitor='valid_loss' needs validation data",
    ),
    ([{"loss": "poisson"}], {"task": "classification"}, ConfigError, "does not fit the task"),
    ([{"task": "guessing"}], {}, ConfigError, "task must be one of"),
    ([{"sizes": [5, 8, C]}], {}, DataError, "configuration 0: X has 6 features"),
    ([{"sample_weight": np.ones(5)}], {}, DataError, "configuration 0: sample_weight has shape"),
    ([{}], {"batches": "none"}, ConfigError, "batches must be 'own' or 'shared'"),
    ([{}], {"block": 0}, ConfigError, "block must be a whole number >= 1"),
    ([{}], {"threads": 0}, ConfigError, "threads must be a whole number >= 1"),
    ([{}], {"workers": 0}, ConfigError, "workers must be a whole number >= 1"),
    ([{}], {"memory": 1000}, OutOfMemoryError, "training 1 members of .* one by one needs"),
    (
        [{}],
        {"workers": 2, "device": xpnet.get_backend("cpu")},
        ConfigError,
        "workers=2 needs a back end for each",
    ),
    ([{}], {"validation": X_VALID}, DataError, "validation must be"),
]


@pytest.mark.parametrize(("configurations", "options", "error", "message"), BAD)
def test_bad_input_is_named_before_anything_is_trained(configurations, options, error, message):
    trained = []
    with pytest.raises(error, match=message):
        fit_many(configurations, (X, Y), on_result=trained.append, **{**COMMON, **options})
    assert trained == []


def test_bad_data():
    with pytest.raises(DataError, match=r"data must be a pair \(X, y\)"):
        fit_many([{}], X, **COMMON)
    with pytest.raises(DataError, match="NaN"):
        fit_many([{}], (np.where(X > 2, np.nan, X), Y), **COMMON)


def test_an_error_of_on_result_ends_training_and_comes_through():
    class Full(Exception):
        pass

    def refuse(member):
        raise Full("the disk is full")

    for workers in (1, 2):
        with pytest.raises(Full):
            fit_many(
                [{"seed": s} for s in range(8)], (X, Y), on_result=refuse, block=2, workers=workers, **COMMON
            )
    assert threading.active_count() < 10


def test_a_worker_of_its_own_needs_work(monkeypatch):
    monkeypatch.setattr(populations_plan, "processors", lambda: 3)
    x, y = np.zeros((512, 64)), np.arange(512) % 10

    def workers(n, sizes, **more):
        result = fit_many(
            [{"seed": s} for s in range(n)], (x, y), sizes=sizes, epochs=0, batch_size=32, **more
        )
        return result.plan[0]["workers"]

    assert workers(4, (64, 8, 10)) == 1
    assert workers(40, (64, 64, 10)) == 2
    assert workers(100, (64, 64, 10)) == 3
    assert workers(4, (64, 8, 10), workers=2) == 2  # who asks for two gets them


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interruption_leaves_what_was_done(workers):
    from xpnet.train import Interrupted

    handlers = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as stopped:
        fit_many(
            [{"seed": s, "epochs": 1 if s == 2 else 10_000} for s in range(4)], (X, Y), workers=workers,
            on_result=lambda member: os.kill(os.getpid(), signal.SIGINT), **{**COMMON, "epochs": 0},
        )  # fmt: skip
    assert [m.index for m in stopped.value.results] == [2]
    assert signal.getsignal(signal.SIGINT) is handlers


# --- memory and work --------------------------------------------------------------------------------
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_planned_memory_is_that_which_is_used(optimizer):
    import gc
    import tracemalloc

    from xpnet.populations import fit as module

    g = np.random.default_rng(0)
    x, y = g.random((500, 64), dtype=np.float32), g.integers(0, 10, 500)
    configurations = [{"seed": s, "lr": 1e-3 * (1 + s)} for s in range(20)]
    options = {"sizes": [64, 64, 10], "epochs": 2, "batch_size": 32, "validation": (x[:100], y[:100])}
    options |= {"optimizer": optimizer, "workers": 1, "device": "cpu"}
    fit_many(configurations[:2], (x, y), **options)  # what is made once
    before = {}
    original = module.plan

    def note(*args, **kwargs):
        result = original(*args, **kwargs)
        gc.collect()
        tracemalloc.reset_peak()
        before["bytes"] = tracemalloc.get_traced_memory()[0]
        return result

    gc.collect()
    tracemalloc.start()
    start = tracemalloc.get_traced_memory()[0]
    try:
        module.plan = note
        result = fit_many(configurations, (x, y), **options)
        peak = tracemalloc.get_traced_memory()[1] - start
    finally:
        module.plan = original
        tracemalloc.stop()
    assert result.plan[0]["bytes"] == pytest.approx(peak, rel=0.1)


def test_over_the_limit_a_population_is_split():
    configurations = [{"seed": s} for s in range(12)]
    whole = fit_many(configurations, (X, Y), workers=1, **COMMON)
    (plan,) = whole.plan
    assert plan["block"] == 12
    smallest = fit_many(configurations, (X, Y), workers=1, block=1, **COMMON).plan[0]["bytes"]
    limit = (plan["bytes"] + smallest) // 2
    split = fit_many(configurations, (X, Y), workers=1, memory=limit, **COMMON)
    assert 1 <= split.plan[0]["block"] < 12 and split.plan[0]["bytes"] <= limit
    for a, b in zip(whole, split, strict=True):
        np.testing.assert_allclose(a.model.weights, b.model.weights, rtol=1e-4, atol=1e-6)


def test_a_stopped_member_costs_no_more_steps(monkeypatch):
    from xpnet.populations import block

    worked = []
    original = block.Block.epoch

    def epoch(self, *args):
        worked.append(len(self))
        return original(self, *args)

    monkeypatch.setattr(block.Block, "epoch", epoch)
    fit_many([{"epochs": e} for e in (1, 2, 2, 5)], (X, Y), workers=1, **{**COMMON, "epochs": 0})
    assert worked == [4, 3, 1, 1, 1]
    assert sum(worked) == 1 + 2 + 2 + 5


def test_members_equal_in_everything_share_their_batches(monkeypatch):
    from xpnet.populations import block

    shared = []
    original = block.Block.epoch
    monkeypatch.setattr(
        block.Block, "epoch", lambda self, *a: (shared.append(not self.own_order), original(self, *a))[1]
    )
    fit_many([{"lr": lr} for lr in (0.1, 0.2)], (X, Y), **COMMON)
    assert all(shared)
    fit_many([{"seed": s} for s in (1, 2)], (X, Y), workers=1, batches="shared", **COMMON)
    assert all(shared)
    fit_many([{"seed": s} for s in (1, 2)], (X, Y), workers=1, **COMMON)
    assert not shared[-1]


# --- rates of members -------------------------------------------------------------------------------
def test_a_population_with_rates_of_its_own_is_kept_and_taken_apart(tmp_path):
    rates = {"dropout": [(0.1, 0.2, 0.3)], "input_noise": (0.5, 0.6, 0.7)}
    population = xpnet.MLP(COMMON["sizes"], n_models=3, seed=4, **rates)
    xpnet.fit(population, (X, Y), epochs=1)
    population.save(tmp_path / "population.safetensors")
    opened = xpnet.load(tmp_path / "population.safetensors")
    assert opened.architecture == population.architecture
    member = opened.member(1)
    assert member.architecture["dropout"] == [0.2] and member.architecture["input_noise"] == 0.6
    np.testing.assert_array_equal(member.outputs(X), population.outputs(X)[1])
    assert [layer.label for layer in population.layers if "drop" in layer.label] == ["dropout 0.1 to 0.3"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": [(0.1, 0.2)]}, "dropout has 2 numbers for 3 models"),
        ({"dropout": [(0.1, 0.2, 0.0)]}, "0 for some members and above 0 for others"),
        ({"input_noise": (0.1, 0.2, -1.0)}, "input_noise must be a finite number"),
        ({"n_models": None, "input_dropout": (0.1, 0.2)}, "input_dropout has 2 numbers for a single model"),
    ],
)
def test_rates_that_do_not_fit_the_population(options, message):
    with pytest.raises(ConfigError, match=message):
        xpnet.MLP(COMMON["sizes"], **{"n_models": 3, **options})


def test_models_of_a_data_frame_remember_its_columns(tmp_path):
    pd = pytest.importorskip("pandas")
    names = tuple(f"f{i}" for i in range(WIDTH))
    frame = pd.DataFrame(X, columns=list(names))
    options = {**COMMON, "dtype": "float64", "epochs": 1}
    result = fit_many([{"seed": s} for s in range(2)], (frame, Y), validation=(frame, Y), **options)
    assert worst(result, alone([{"seed": s} for s in range(2)], (X, Y), validation=(X, Y), **options)) < 1e-10
    result.best.model.save(tmp_path / "m.safetensors")
    for model in (*result.models, xpnet.load(tmp_path / "m.safetensors")):
        assert model.feature_names == names
        assert np.array_equal(model.predict(frame), model.predict(X))
        with pytest.raises(DataError, match="the columns in another order"):
            model.predict(frame[list(names[::-1])])
    with pytest.raises(DataError, match="validation X has the columns in another order"):
        fit_many([{}], (frame, Y), validation=(frame[list(names[::-1])], Y), **options)
    assert fit_many([{}], (X, Y), **options).best.model.feature_names is None


def test_arrays_of_another_library():
    xp = pytest.importorskip("array_api_strict")
    w, rows = G.uniform(0.2, 2.0, N), np.arange(N - 20)
    own = {"sample_weight": w, "rows": rows, "validation_rows": np.arange(N - 20, N)}
    configurations, theirs = [{}, own], [{}, {name: xp.asarray(values) for name, values in own.items()}]
    options = {**COMMON, "dtype": "float64"}
    expected = fit_many(configurations, (X, Y), validation=(X_VALID, Y_VALID), **options)
    data, validation = ((xp.asarray(x), xp.asarray(y)) for x, y in ((X, Y), (X_VALID, Y_VALID)))
    result = fit_many(theirs, data, validation=validation, **options)
    for a, b in zip(result, expected, strict=True):
        assert np.array_equal(a.model.predict_proba(X), b.model.predict_proba(X))
        assert a.score == b.score


@pytest.mark.parametrize(
    ("freeze", "fragment"),
    [
        ([7], "freeze has layer 7"),
        ("layers.0.weight", "must be a list of layers"),
        ([0, -1], "nothing to learn"),
    ],
)
def test_what_cannot_be_frozen(freeze, fragment):
    with pytest.raises(ConfigError, match=f"configuration 1: .*{fragment}"):
        fit_many([{}, {"freeze": freeze}], (X, Y), **COMMON)
