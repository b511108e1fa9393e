"""What a network's answers depend on: how much worse they get when one column is shuffled."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import rng
from ..errors import ConfigError
from ..mlp import MLP
from ..tabular import TabularPreprocessing
from .scores import score

REPEATS = 5


def column_importance(model: MLP, x: Any, y: Any, *, repeats: int = REPEATS) -> list[dict[str, Any]]:
    """Return what shuffling each column costs (Breiman, "Random forests", 2001), the dearest first.

    The values of a column are exchanged between the samples, so that they say nothing any more; all features that
    were made of a column of a table move together. Columns that say the same stand in for each other: each alone then
    costs little. A rise below zero is chance.

    Parameters
    ----------
    model : MLP
        One that takes rows of features, not pictures.
    x : array_like (N, I)
    y : array_like
        Samples and targets as `score` takes them.
    repeats : int, default 5
        Orders to try, the same for all columns and at every call.

    Returns
    -------
    list of dict
        One per column: "column"; "loss_rise", the mean, and "loss_rise_std", its standard deviation over the orders;
        and the mean "accuracy_fall", for a regression "r2_fall" (None where R² is not defined).

    Raises
    ------
    ConfigError
        The model takes samples of several axes, or is a population.
    """
    x, before = np.asarray(x), score(model, x, y)
    other = "r2" if model.task == "regression" else "accuracy"
    found = []
    for name, columns in _columns(model, x.shape):
        rises, falls = [], []
        for epoch in range(repeats):
            shuffled = x.copy()
            shuffled[:, columns] = x[rng.permutation(len(x), 0, epoch), columns]
            after = score(model, shuffled, y)
            rises.append(after["loss"] - before["loss"])
            if before[other] is not None:
                falls.append(before[other] - after[other])
        found.append({
            "column": name, "loss_rise": float(np.mean(rises)), "loss_rise_std": float(np.std(rises)),
            f"{other}_fall": float(np.mean(falls)) if falls else None,
        })  # fmt: skip
    return sorted(found, key=lambda entry: -entry["loss_rise"])


def _columns(model: MLP, shape: tuple[int, ...]) -> list[tuple[str, slice]]:
    """The name of each column, and where its features are."""
    if model.n_models is not None or len(shape) != 2:
        what = "a population" if model.n_models is not None else "samples of several axes, such as pictures"
        raise ConfigError(f"importance is that of columns of tables and features; this model has {what}")
    if model.tabular is None:
        names = model.feature_names or [f"feature {i}" for i in range(shape[1])]
        return [(name, slice(i, i + 1)) for i, name in enumerate(names)]
    recipes = TabularPreprocessing.from_metadata(model.tabular).recipes_
    ends = np.cumsum([len(recipe.features) for recipe in recipes]).tolist()
    return [(r.name, slice(end - len(r.features), end)) for r, end in zip(recipes, ends, strict=True)]
