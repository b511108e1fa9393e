"""What the optimizer of an estimator remembers from one call of `partial_fit` to the next: plain NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..train import Trainer


def kept_moments(trainer: Trainer) -> dict[str, Any]:
    """Return what the optimizer of a training remembers."""
    be = trainer.model.be
    tensors = {k: np.array(be.to_numpy(v)) for k, v in trainer.step.update.moments.items()}
    return {"tensors": tensors, "n_updates": trainer.step.n_updates}


def restore_moments(trainer: Trainer, kept: dict[str, Any]) -> None:
    """Go on with what `kept_moments` returned, where it is of the same optimizer."""
    update = trainer.step.update
    if set(kept["tensors"]) != set(update.moments):
        return
    for name, values in kept["tensors"].items():
        update.moments[name][...] = trainer.model.be.asarray(values)
    trainer.step.n_updates = kept["n_updates"]
