"""What is worth knowing and no error, on standard error."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..train import Trainer, mean_scores
from ..training.history import History

_FAR = 3.0  # noise and dropout may double a loss
_ROWS = 10_000  # rows that say what a loss is that nothing was learned for
_EPOCHS_TO_JUDGE = 5  # of fewer, nothing can be said about how the loss would go on


def note(text: str) -> None:
    """Say on standard error what is worth knowing."""
    print(f"note: {text}", file=sys.stderr)


def blown_up(trainer: Trainer, data: tuple[Any, ...]) -> str:
    """Say that training ended with a loss far above that of a network that always answers the same; "" where not.

    Parameters
    ----------
    trainer : Trainer
        Whose training has ended.
    data : (X, y) or (X, y, sample_weight)
        What it was trained on.
    """
    model, last = trainer.model, trainer.history[-1]["train_loss"] if len(trainer.history) else 0.0
    if model.n_models is not None:
        return ""
    same = model.to("cpu")  # a device would have to compile and hold one more pass
    same.set_weights({name: np.zeros_like(value) for name, value in model.get_weights().items()})
    plain = mean_scores(same, data[0][:_ROWS], data[1][:_ROWS])["loss"]
    if not last > _FAR * plain > 0.0:
        return ""
    return (
        f"the training loss ended at {last:.3g}, but that of a network that always answers the same is {plain:.3g}: "
        "training blew up. A smaller --lr or --clip-norm 1 may help"
    )


def still_falling(history: History) -> bool:
    """Whether the training loss, and the validation loss if there is one, fell clearly to the last epoch.

    Clearly is a fifth of what it fell an epoch in the mean. A curve that bends as an exponential does has then a
    twentieth of its way still to go, or more. Each of the last three tenths of the epochs must have brought so much,
    so that chance does not decide.
    """
    n, k = len(history), max(1, len(history) // 10)
    if n < _EPOCHS_TO_JUDGE or history.stopped != "epochs":
        return False
    train = history.column("train_loss")
    falls = -np.diff(np.reshape(train[-4 * k :], (4, k)).mean(axis=1)) / k
    if history[-1]["valid_loss"] is not None:
        valid = history.column("valid_loss")
        if np.mean(valid[-k:]) >= np.mean(
            valid[-2 * k : -k]
        ):  # more epochs would only learn the rows by heart
            return False
    return bool(falls.min() > 0.2 * (train[0] - train[-1]) / (n - 1) > 0.0)
