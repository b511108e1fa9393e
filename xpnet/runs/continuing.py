"""Going on with a run: what must be the same, what may change, and what is said about it."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from typing import Any

import numpy as np

from .. import checkpoint
from ..data import Dataset
from ..data.table_sources import is_table
from ..errors import ConfigError, DataError, FileFormatError, XpnetError
from ..schedules import ReduceOnPlateau
from ..tabular import TabularPreprocessing
from ..train import Trainer
from ..training.resume import fingerprint
from .config import FILES, TrainConfig
from .data import split
from .environment import blas
from .folder import MODEL, RESULT, SCALING, TARGET_SCALING, RunFolder, place
from .notes import note
from .result import tested_sha256

#: What may change when a run goes on: how long, where, and how products are rounded, never what is computed.
RESUMABLE = (
    "epochs",
    "device",
    "precision",
    "capture",
    "autotune",
    "threads",
    "save_every",
    "data_dir",
    "log",
    # Files may have moved; that they hold the same is checked by their contents.
    *FILES,
)


def fixed(config: TrainConfig, validation: tuple[Any, Any] | None) -> dict[str, Any]:
    free = (*RESUMABLE, "target")  # a column or a key: the data that it leads to are compared
    fixed = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in free}
    return fixed | {"the validation data": validation and fingerprint(*validation)}


def scaling(data: Dataset) -> dict[str, Any] | None:
    """What tells how samples are scaled; None for pixels, and for tables, whose features are scaled already."""
    plain = data.tabular is not None or (np.ndim(data.shift) == 0 and not data.shift)
    return None if plain else fingerprint(np.asarray(data.scale), np.asarray(data.shift))


def target_scaling(data: Dataset) -> dict[str, Any] | None:
    """What tells how targets of arrays are scaled; None where they are not, and for tables, which say it themselves."""
    mean, scale = data.target_mean, data.target_scale
    plain = (np.ndim(mean), np.ndim(scale)) == (0, 0) and (mean, scale) == (0.0, 1.0)
    return None if plain else fingerprint(np.asarray(mean), np.asarray(scale))


def as_started(config: TrainConfig, folder: RunFolder) -> TrainConfig:
    """Return the settings as a run was started: an older xpnet took the numbers of NPZ and NPY files as they are."""
    before = folder.fixed_before()
    if before is None or is_table(config.data):
        return config
    return replace(
        config,
        standardize=config.standardize and SCALING in before,
        scale_target=config.scale_target and TARGET_SCALING in before,
    )


def columns_as_started(config: TrainConfig, folder: RunFolder) -> TabularPreprocessing | None:
    """What a run made of the columns of its table, which another xpnet might decide otherwise; None where unknown."""
    if not is_table(config.data):
        return None
    try:
        found = checkpoint.load_tensors(folder / MODEL)[1].get("tabular")
    except (XpnetError, OSError):
        return None
    return TabularPreprocessing.from_metadata(found) if found else None


def check_same_data(folder: RunFolder, config: TrainConfig, data: Dataset) -> None:
    """Refuse to judge a run by the rest of data that are not those it was trained on; say where only the rest changed.

    Parameters
    ----------
    folder : RunFolder
        Whose last state says what its training data were; where there is none, nothing is checked.
    config : TrainConfig
    data : Dataset
        As the network learnt it.

    Raises
    ------
    DataError
    """
    before = folder.last_state()
    if before is None:
        return
    training, validation = split(data, config)
    now = {"data": fingerprint(*training[:2]), "validation": validation and fingerprint(*validation)}
    if any(before.get(part) != found for part, found in now.items()):
        run = shlex.quote(str(folder.path))
        raise DataError(
            f"{config.data} no longer holds what {folder.path} was trained on, so the rows held out for its test "
            "cannot be told from the others. Bring back the first file; or judge the model by all rows of another "
            f"one: xpnet evaluate {run} --data FILE"
        )
    note_other_test(folder, config, data)


def note_other_test(folder: RunFolder, config: TrainConfig, data: Dataset) -> None:
    """Say that the test is not the one that result.json is about, where that says what it is about."""
    before = folder.result().get("tested_sha256")
    if before is not None and before != tested_sha256(data):
        note(
            f"{config.test or config.data} has changed since {folder.path} was trained: it was trained on the same "
            f"rows, but tested on others, so what {RESULT} says of the test is not about those of now"
        )


def go_on(folder: RunFolder, trainer: Trainer, quiet: bool) -> None:
    folder.load_state(trainer)
    begun = trainer.epoch + bool(trainer.batch)
    if trainer.epochs < begun:
        raise ConfigError(
            f"{folder.path} is in epoch {begun} already, so --epochs must be at least that, "
            f"found {trainer.epochs}"
        )
    folder.remove_leftovers()
    # Epochs that were written after the state belong to the run that was cut off; they come again.
    folder.write_metrics(_as_written(folder, list(trainer.history)))
    if quiet:
        return
    if trainer.epoch == trainer.epochs:
        note(f"all {trainer.epochs} epochs are done; to train on, name a larger number with --epochs")
    before = folder.config().epochs
    if before != trainer.epochs and _follows_the_length(trainer, before):
        note(
            f"the learning rate of {trainer.schedule.name!r} was planned for {before} epochs and follows the new "
            f"length from here on; a run of {trainer.epochs} epochs from the start would end elsewhere"
        )
    now = place(trainer.model.be)
    if folder.saved_on not in (None, now):
        note(
            f"the run was on {folder.saved_on} and goes on on {now}; "
            "the result will agree to rounding, not bit for bit"
        )
    elif any(part.get("blas") != blas() for part in folder.environments()):
        note(
            "the matrix library, its kernel or its number of threads differ from those of an earlier part of the run; "
            "the result will agree to rounding, not bit for bit"
        )


def _follows_the_length(trainer: Trainer, epochs: int) -> bool:
    """Whether the schedule would have another rate now if the run had so many epochs."""
    if isinstance(trainer.schedule, ReduceOnPlateau):
        return False
    done, each = trainer.step.n_updates, trainer.steps_per_epoch
    now, then = (trainer.schedule(done, n * each, each) for n in (trainer.epochs, epochs))
    return now != then


def _as_written(folder: RunFolder, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same epochs from metrics.jsonl where it has them, with their keys in the first order."""
    try:
        written = folder.metrics()[: len(history)]
    except FileFormatError:
        return history
    return written if written == history else history
