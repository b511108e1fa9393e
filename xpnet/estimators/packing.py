"""What an estimator keeps of a network: in a pickle, and from one call of `partial_fit` to the next.

NumPy arrays and plain values only, so that any machine can read them.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..errors import DeviceError
from ..mlp import MLP
from ..train import Trainer


def packed(model: MLP, device: Any) -> dict[str, Any]:
    """Return a network without its device; `device` is the estimator's setting.

    A device that has no name, a back end or an array module, is not the next machine's: then the CPU is.
    """
    if device is None:
        name = model.be.device
        device = name if name.startswith("cuda:") else "cpu"
    return {
        "architecture": model.architecture, "seed": model.seeds[0], "dtype": model.dtype,
        "task": model.task, "loss": model.loss, "unsmoothing": model.unsmoothing, "weights": model.get_weights(),
        "device": device if isinstance(device, str) else "cpu",
    }  # fmt: skip


def unpacked(kept: dict[str, Any]) -> MLP:
    """Return the network that was packed, on the CPU with a warning where its device cannot be used."""
    settings = {**kept["architecture"], "seed": kept["seed"], "dtype": kept["dtype"]}
    try:
        model = MLP(**settings, device=kept["device"])
    except DeviceError as error:
        warnings.warn(f"the estimator now computes on the CPU: {error}", stacklevel=2)
        model = MLP(**settings)
    model.set_weights(kept["weights"])
    model.task, model.loss, model.unsmoothing = kept["task"], kept["loss"], kept.get("unsmoothing")
    return model


def moments(trainer: Trainer) -> dict[str, Any]:
    """Return what the optimizer of a training remembers."""
    be = trainer.model.be
    tensors = {k: np.array(be.to_numpy(v)) for k, v in trainer.step.update.moments.items()}
    return {"tensors": tensors, "n_updates": trainer.step.n_updates}


def restore_moments(trainer: Trainer, kept: dict[str, Any]) -> None:
    """Go on with what `moments` returned, where it is of the same optimizer."""
    update = trainer.step.update
    if set(kept["tensors"]) != set(update.moments):
        return
    for name, values in kept["tensors"].items():
        update.moments[name][...] = trainer.model.be.asarray(values)
    trainer.step.n_updates = kept["n_updates"]
