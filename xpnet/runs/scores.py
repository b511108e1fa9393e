"""What a trained network scores on a data set."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..metrics import regression_scores
from ..mlp import MLP
from ..tabular.targets import in_training_units, target_of, units_of
from ..train import mean_scores


def score(model: MLP, x: Any, y: Any) -> dict[str, Any]:
    """Return {"loss", "accuracy"}, and for a single regression also {"rmse", "mae", "r2"}.

    Parameters
    ----------
    model : MLP
        Its answers are in the target's own units.
    x : array_like (N, ...)
    y : array_like (N,) or (N, O)
        As the network learnt it: scaled, where it learnt scaled targets. The loss is then that of
        training; the other scores are in the target's own units.
    """
    scores = mean_scores(in_training_units(model), x, y)
    if model.task == "regression" and model.n_models is None:
        scores |= regression_scores(own_units(model, y), model.predict(x).astype(np.float64))
    return scores


def own_units(model: MLP, y: Any) -> np.ndarray:
    """Return targets (N, O) of a regression in their own units, from those that the network learnt."""
    mean, scale = units_of(model)
    return np.asarray(y, dtype=np.float64).reshape(len(y), -1) * scale + mean


def target_name(model: MLP) -> str:
    """The name of the column that a network predicts; empty where it knows none."""
    target = target_of(model)
    return "" if target is None else target.name
