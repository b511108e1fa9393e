"""What settings become that are left to the data.

Features get what `xpnet.training.defaults` says. Pictures are many and alike: they get a plain start, with a rate that
stays.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from ..data import Dataset
from ..losses import get_loss
from ..training import defaults
from .config import TrainConfig

#: What data that are no features start from.
PLAIN: dict[str, Any] = {
    "hidden": [256], "dropout": [0.0], "input_noise": 0.0, "label_smoothing": 0.0, "l2": 0.0,
    "schedule": "constant", "epochs": 30, "batch_size": 64,
}  # fmt: skip


def valid_fraction(config: TrainConfig, n: int, *, features: bool) -> float:
    """Return the share of n rows held out for validation.

    Of features of at most 1000 rows it is none, unless settings need it: the network then learns from all of them for
    as long as its schedule says, where the best epoch on so few would be chosen by chance.
    """
    if config.valid_fraction is not None:
        return config.valid_fraction
    needed = config.patience is not None or (config.monitor or "").startswith("valid")
    needed = needed or (config.schedule or "").startswith("plateau")
    return 0.0 if features and n <= defaults.SMALL and not needed else defaults.VALID_FRACTION


def has_features(data: Dataset) -> bool:
    """Whether samples are features, each with a scale of its own, and no pictures."""
    return data.tabular is not None or isinstance(data.scale, np.ndarray)


def training_rows(config: TrainConfig, data: Dataset) -> int:
    """How many rows the network learns from, once its validation part is held out."""
    n = len(data.x_train)
    if data.x_valid is not None or data.tabular is not None:
        return n  # the rows of tables are divided as they are read
    return max(1, n - round(valid_fraction(config, n, features=has_features(data)) * n))


def resolve(config: TrainConfig, data: Dataset) -> TrainConfig:
    """Return the settings with a value for each that was left to the data; those that were given stay.

    Examples
    --------
    >>> from xpnet.runs.config import TrainConfig
    >>> from xpnet.data import load
    >>> config = resolve(TrainConfig(epochs=5), load("digits"))
    >>> config.epochs, config.batch_size, config.hidden
    (5, 64, [256])
    """
    left = {f.name for f in fields(config) if f.metadata.get("auto") and getattr(config, f.name) is None}
    if not left:
        return config
    chosen = dict(_for_features(config, data) if has_features(data) else PLAIN)
    if data.tabular is not None:  # its rows are divided already
        chosen["valid_fraction"] = defaults.VALID_FRACTION if data.x_valid is not None else 0.0
    else:
        chosen["valid_fraction"] = valid_fraction(config, len(data.x_train), features=has_features(data))
    return replace(config, **{name: value for name, value in chosen.items() if name in left})


def _for_features(config: TrainConfig, data: Dataset) -> dict[str, Any]:
    n, task = training_rows(config, data), data.task
    batch = config.batch_size if config.batch_size is not None else min(defaults.batch_size(n), n)
    widths = config.hidden if config.hidden is not None else list(defaults.hidden(n, task))
    noisy = config.standardize and batch < n
    chosen: dict[str, Any] = {
        "hidden": widths, "batch_size": batch, "epochs": defaults.epochs(n, batch), "schedule": "cosine",
        "l2": defaults.penalty(n, task), "dropout": [defaults.dropout(n, task) if widths else 0.0],
        "input_noise": defaults.input_noise(n, data.n_features, task) if noisy else 0.0,
        "label_smoothing": defaults.LABEL_SMOOTHING if _smooths(config, task) else 0.0,
    }  # fmt: skip
    if config.optimizer in ("adam", "adamw"):  # others, and those with options of their own, keep their rate
        chosen["lr"] = defaults.LEARNING_RATE
    return chosen


def _smooths(config: TrainConfig, task: str) -> bool:
    loss = get_loss(config.loss or ("squared_error" if task == "regression" else "softmax_cross_entropy"))
    return task == "classification" and loss.name in ("softmax_cross_entropy", "binary_cross_entropy")
