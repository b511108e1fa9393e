"""An option of training exists in every place that trains, or there is a reason why not.

The places list their options themselves, since each says them in its own words; here it shows where one was forgotten.
"""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from tests.command import xp
from xpnet.populations.members import SETTINGS
from xpnet.runs.config import TrainConfig
from xpnet.training.trainer import Trainer

#: All options of a training but the model and its data.
OPTIONS = {*inspect.signature(Trainer).parameters} - {"model", "data"}
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 3)), np.arange(40) % 2

ALONE = "members train side by side, so nobody watches a single one"
COMMON = "an argument of fit_many, the same for all members"
REASONS: dict[str, dict[str, str]] = {
    "fit_many": {
        "callbacks": ALONE, "statistics": ALONE, "verbose": ALONE, "validation": COMMON, "threads": COMMON,
        "mode": "what is monitored is a loss or an accuracy",
        "one_class": "for streams, which members do not have",
    },
    "command": {
        "lr": "a number of the optimizer", "seed": "that of the network",
        "infogain": "a matrix is no flag", "freeze": "a run begins with new weights",
        "shuffle": "a run always shuffles", "restore_best": "a run keeps the best weights and the last state",
        "min_delta_from": "for the rules of scikit-learn", "mode": "there are no callbacks that add numbers",
        "one_class": "for streams, which files are not", "callbacks": "added by the run",
        "verbose": "the run prints its own table",
    },
    "estimators": {
        "lr": "a number of the solver", "mode": "what is monitored is a loss or an accuracy",
        "class_weight": "part of sample_weight", "infogain": "scikit-learn's contract has no such targets",
        "freeze": "fit begins with new weights", "restore_best": "wherever there are validation data they come back",
        "statistics": "for callbacks: LayerStatistics()", "threads": "scikit-learn leaves them to threadpoolctl",
    },
}  # fmt: skip


def check(place: str, found: set[str]) -> None:
    forgotten = OPTIONS - found - {*REASONS[place]}
    assert not forgotten, f"{place} lacks {forgotten}: give it to them, or a reason here"
    assert not found & {*REASONS[place]}, "these have come since; their reason is none any more"
    assert {*REASONS[place]} <= OPTIONS, "these options are gone"


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options that trainers are made with."""
    options: dict[str, Any] = {}
    made = Trainer.__init__

    def look(trainer: Trainer, *arguments: Any, **given: Any) -> None:
        options.update(given)
        made(trainer, *arguments, **given)

    monkeypatch.setattr(Trainer, "__init__", look)
    return options


def test_members_of_populations() -> None:
    check("fit_many", OPTIONS & {*SETTINGS})


def test_the_command(taken: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("d.npz", x=X, y=Y, sample_weight=np.ones(40))
    xp("train", "d.npz", "--epochs", 1, "--quiet")
    check("command", {*taken})
    of_a_run = {"validation", "sample_weight", "statistics", "threads", "task"}
    assert {*taken} - of_a_run <= {f.name for f in fields(TrainConfig)}
    alone = {"validation", "statistics", "threads"}
    assert {*taken} - alone <= {*SETTINGS}, "a sweep cannot hand these on"


@pytest.mark.parametrize("kind", [xpnet.MLPClassifier, xpnet.MLPRegressor])
def test_estimators(kind: Any, taken: dict[str, Any]) -> None:
    kind(max_iter=1, hidden_layer_sizes=3).fit(X, Y)
    classes_only = {"label_smoothing"} if kind is xpnet.MLPRegressor else set()
    check("estimators", {*taken} | classes_only)
    alone = {"validation", "callbacks", "verbose", "one_class"}
    assert {*taken} - alone <= {*SETTINGS, "seed"}, "searches and ensembles cannot hand these on"
