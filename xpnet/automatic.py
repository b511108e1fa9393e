"""What settings become that are left to the data: "auto" in the command's settings and in the estimators.

Features, such as those of tables, are few and cheap to go through, so networks for them learn from many passes with a
rate that falls to zero, and from few rows with a penalty. Pictures are many and alike: they get a plain start, with a
rate that stays.
`docs/estimators.md` says how the numbers were chosen.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .losses import get_loss

if TYPE_CHECKING:
    from .config import TrainConfig
    from .data import Dataset

LEARNING_RATE, EPOCHS, LABEL_SMOOTHING = 3e-3, 200, 0.1
VALID_FRACTION = 0.1
_SMALL = 1000  # up to so many rows, those held out for validation are missed more than they tell
_NOISE = 0.33
#: Of tables with so many rows that 200 epochs would take long: fewer of them, but so many updates, or old ones' epochs.
_UPDATES, _FEWEST_EPOCHS = 40_000, 30

#: What data that are no features start from.
PLAIN: dict[str, Any] = {
    "hidden": [256], "dropout": [0.0], "input_noise": 0.0, "label_smoothing": 0.0, "l2": 0.0,
    "schedule": "constant", "epochs": 30, "batch_size": 64,
}  # fmt: skip


# --- rules, by the number n of samples ------------------------------------------------------------
def batch_size(n: int) -> int:
    """Examples per update: n / 128, within 64 and 256.

    Examples
    --------
    >>> batch_size(150), batch_size(20_000), batch_size(1_000_000)
    (64, 156, 256)
    """
    return max(64, min(256, n // 128))


def epochs(n: int, batch: int) -> int:
    """Passes over n rows: 200, and fewer where they would be more than 40,000 updates, but at least 30.

    Examples
    --------
    >>> epochs(150, 64), epochs(20_000, 156), epochs(100_000, 256), epochs(1_000_000, 256)
    (200, 200, 102, 30)
    """
    return max(_FEWEST_EPOCHS, min(EPOCHS, _UPDATES // max(1, -(-n // batch))))


def hidden(n: int, task: str) -> tuple[int, ...]:
    """Widths of the hidden layers."""
    if task == "regression":
        return (256, 128)
    return (512,) if n <= _SMALL else (256,)


def penalty(n: int, task: str) -> float:
    """The factor l2 of the penalty on the mean loss: the fewer rows, the larger."""
    if task == "regression":
        return max(min(0.1, 12_000.0 / n**2), 1e-4)
    return min(max(1.0 / n, 1e-3), 0.01)


def dropout(n: int, task: str) -> float:
    """The share of hidden units dropped."""
    return 0.1 if task == "regression" and n >= 2000 else 0.0


def input_noise(n: int, n_features: int, task: str) -> float:
    """Standard deviation of the noise on scaled features, where an epoch has more than one batch."""
    # the distance to the nearest sample shrinks like this; more would blur classes that few features tell apart
    return 0.0 if task == "regression" else float(_NOISE * n ** (-1.0 / n_features))


# --- the settings of a run ------------------------------------------------------------------------
def valid_fraction(config: TrainConfig, n: int, *, features: bool) -> float:
    """Return the share of n rows held out for validation.

    Of features of at most 1000 rows it is none, unless settings need it: the network then learns from all of them for
    as long as its schedule says, where the best epoch on so few would be chosen by chance.
    """
    if config.valid_fraction is not None:
        return config.valid_fraction
    needed = config.patience is not None or (config.monitor or "").startswith("valid")
    needed = needed or (config.schedule or "").startswith("plateau")
    return 0.0 if features and n <= _SMALL and not needed else VALID_FRACTION


def has_features(data: Dataset) -> bool:
    """Whether samples are features, each with a scale of its own, and no pictures.

    Numbers to regress on must be those of a table: only there are they scaled, as rate and penalty need it.
    """
    scaled = isinstance(data.scale, np.ndarray) and data.task == "classification"
    return data.tabular is not None or scaled


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
    >>> from xpnet.config import TrainConfig
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
        chosen["valid_fraction"] = VALID_FRACTION if data.x_valid is not None else 0.0
    else:
        chosen["valid_fraction"] = valid_fraction(config, len(data.x_train), features=has_features(data))
    return replace(config, **{name: value for name, value in chosen.items() if name in left})


def _for_features(config: TrainConfig, data: Dataset) -> dict[str, Any]:
    n, task = training_rows(config, data), data.task
    batch = config.batch_size if config.batch_size is not None else min(batch_size(n), n)
    widths = config.hidden if config.hidden is not None else list(hidden(n, task))
    noisy = config.standardize and batch < n
    chosen: dict[str, Any] = {
        "hidden": widths, "batch_size": batch, "epochs": epochs(n, batch), "schedule": "cosine",
        "l2": penalty(n, task), "dropout": [dropout(n, task) if widths else 0.0],
        "input_noise": input_noise(n, data.n_features, task) if noisy else 0.0,
        "label_smoothing": LABEL_SMOOTHING if _smooths(config, task) else 0.0,
    }  # fmt: skip
    if config.optimizer in ("adam", "adamw"):  # others, and those with options of their own, keep their rate
        chosen["lr"] = LEARNING_RATE
    return chosen


def _smooths(config: TrainConfig, task: str) -> bool:
    loss = get_loss(config.loss or ("squared_error" if task == "regression" else "softmax_cross_entropy"))
    return task != "regression" and loss.name in ("softmax_cross_entropy", "binary_cross_entropy")
