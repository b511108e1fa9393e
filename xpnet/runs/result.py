"""What result.json holds."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from .. import checkpoint
from ..backend import Backend
from ..data import Dataset
from ..mlp import MLP
from ..train import Trainer
from .config import TrainConfig
from .scores import score


def make_result(
    trainer: Trainer, model: MLP, data: Dataset, config: TrainConfig, last_sha256: str
) -> dict[str, Any]:
    history = trainer.history
    best = history[(trainer.best_epoch or len(history)) - 1]
    result: dict[str, Any] = {"test_loss": None, "test_accuracy": None}
    if data.x_test is not None:
        result = {f"test_{name}": value for name, value in score(model, data.x_test, data.y_test).items()}
    return result | {
        "valid_loss": best["valid_loss"], "valid_accuracy": best["valid_accuracy"],
        "best_epoch": history.best_epoch, "epochs": len(history), "stopped": history.stopped,
        "steps": trainer.step.n_updates, "seconds": sum(r["seconds"] for r in history),
        "parameters": model.n_parameters, "device": model.be.device, "backend": model.be.name,
        "dtype": model.dtype, "precision": config.precision or config.dtype, "capture": model.be.captures,
        "seed": config.seed, "tested_sha256": tested_sha256(data),
        "weights_sha256": checkpoint.weights_sha256(model.get_weights()), "last_weights_sha256": last_sha256,
    } | _chosen(model.be)  # fmt: skip


def _chosen(be: Backend) -> dict[str, Any]:
    """What the device chose among ways to compute the same, where it has such ways."""
    return {} if be.algorithms is None else {"autotune": be.autotune, "algorithms": list(be.algorithms)}


def tested_sha256(data: Dataset) -> str | None:
    """Return what tells the samples and targets of a test from others; None without a test."""
    if data.x_test is None:
        return None
    digest = hashlib.sha256()
    for part in (data.x_test, data.y_test):
        array = np.asarray(part)
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
