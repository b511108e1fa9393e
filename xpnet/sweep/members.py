"""From candidates, folds and seeds to configurations of `fit_many`, on data that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import init
from ..data import Dataset, stratified_split
from ..data.table_sources import is_table
from ..errors import ConfigError, DataError
from ..mlp import MLP
from ..runs.automatic import resolve
from ..runs.building import build_trainer, network_settings, training_settings
from ..runs.config import TrainConfig
from ..runs.data import load_run_data
from ..training import resume
from .settings import SweepConfig, shown
from .space import Candidate

Key = tuple[int, int, int]  # candidate, fold, seed
Unit = tuple[int, int, np.ndarray | None, np.ndarray | None]

# The first half of the generator's key is the seed; this tells folds from every other use of it.
_PURPOSE = 0x464F_4C44  # "FOLD"


@dataclass(eq=False)
class Part:
    """Data that members share, and which of their folds and seeds it serves.

    Attributes
    ----------
    data : (X, y)
    validation : (X, y) or None
    units : list of (fold, seed, rows, validation_rows)
        Positions in `data`; None for all of them, and for `validation`.
    dataset : Dataset
        Says what the features and targets are.
    """

    data: tuple[Any, Any]
    validation: tuple[Any, Any] | None
    units: Sequence[Unit]
    dataset: Dataset


def fold_rows(y: np.ndarray, k: int, seed: int, *, stratify: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return rows to learn from and rows to validate on, for each of k folds.

    Parameters
    ----------
    y : (N,) or (N, O) array
    k : int
    seed : int
        Of the shuffling; the same seed gives the same folds everywhere.
    stratify : bool
        Deal the samples of each class out in turn, so that folds have equal shares of it within one sample.

    Raises
    ------
    DataError
        More folds than samples, or a fold that leaves a single class to learn from.

    Examples
    --------
    >>> [v.tolist() for _, v in fold_rows(np.array([0, 0, 1, 1]), 2, 0, stratify=True)]
    [[0, 2], [1, 3]]
    """
    n = len(y)
    if k > n:
        raise DataError(f"{k} folds need at least {k} samples, found {n}; use fewer folds")
    keys = np.random.Philox(key=np.array([seed, _PURPOSE], dtype=np.uint64)).random_raw(n)
    codes = np.unique(y, return_inverse=True)[1] if stratify else np.zeros(n, dtype=np.int64)
    order = np.lexsort((keys, codes))  # class by class, each in random order
    fold = np.empty(n, dtype=np.int64)
    fold[order] = np.arange(n) % k
    folds = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(k)]
    if stratify and any(not np.any(codes[rows] != codes[rows[0]]) for rows, _ in folds):
        raise DataError(
            f"with {k} folds one of them holds all samples of a class, so that a single class is left to learn from; "
            "bring more samples of the rarest class, or hold out a share instead (no folds)"
        )
    return folds


def parts(sweep: SweepConfig, *, progress: bool = False, say: Callable[[str], None]) -> Iterator[Part]:
    """Load the data and yield its parts: one for arrays, one per split for tables, whose scaling is learnt anew."""
    base = sweep.base
    seeds = [base.seed + s for s in range(sweep.seeds)]
    if is_table(base.data):
        yield from _table_parts(sweep, seeds, say)
        return
    dataset = load_run_data(base, progress=progress, say=say)
    x, y = dataset.x_train, dataset.y_train
    stratify = dataset.task == "classification"
    if sweep.folds:
        if dataset.x_valid is not None:
            say("the data have a validation part of their own, which folds do not use")
        splits = fold_rows(y, sweep.folds, base.seed, stratify=stratify)
        units = [(f, s, *rows) for f, rows in enumerate(splits) for s in range(len(seeds))]
        yield Part((x, y), None, units, dataset)
    elif dataset.x_valid is not None:
        own = (dataset.x_valid, dataset.y_valid)
        yield Part((x, y), own, [(0, s, None, None) for s in range(len(seeds))], dataset)
    else:
        split = [stratified_split(y, base.valid_fraction, seed, stratify=stratify) for seed in seeds]
        yield Part((x, y), None, [(0, s, *rows) for s, rows in enumerate(split)], dataset)


def _table_parts(sweep: SweepConfig, seeds: Sequence[int], say: Callable[[str], None]) -> Iterator[Part]:
    base, quiet = sweep.base, say
    for f in range(sweep.folds or 1):
        for s, seed in enumerate(seeds[:1] if sweep.folds or base.valid else seeds):
            # folds are the same for all seeds; without them each seed has a split of its own, as in `xpnet train`
            def divide(y: np.ndarray, task: str, f: int = f) -> tuple[np.ndarray, np.ndarray]:
                return fold_rows(y, sweep.folds, base.seed, stratify=task == "classification")[f]

            own = replace(base, seed=seed)
            d = load_run_data(own, say=quiet, divide=divide if sweep.folds else None)
            quiet = _silent  # notes are the same for each split
            units = [(f, s, None, None)] if not (sweep.folds or base.valid) else [
                (f, k, None, None) for k in range(len(seeds))
            ]  # fmt: skip
            yield Part((d.x_train, d.y_train), (d.x_valid, d.y_valid), units, d)


def _silent(text: str) -> None:
    pass


def configurations(
    sweep: SweepConfig, candidates: Sequence[Candidate], part: Part, finished: set[Key]
) -> list[tuple[Key, dict[str, Any]]]:
    """Return the configuration of every member on this part that is not finished, with its key."""
    result = []
    for c, candidate in enumerate(candidates):
        config = resolve(sweep.config(candidate), part.dataset)
        shared = _shared(config, part.dataset)
        for fold, s, rows, held in part.units:
            if (c, fold, s) in finished:
                continue
            own: dict[str, Any] = {"seed": sweep.base.seed + s}
            if rows is not None:
                own["rows"] = rows
            if held is not None:
                own["validation_rows"] = held
            result.append(((c, fold, s), shared | own))
    return result


def _shared(config: TrainConfig, dataset: Dataset) -> dict[str, Any]:
    given = network_settings(config, dataset) | training_settings(config, dataset.task)
    given["sample_weight"] = dataset.w_train
    return {name: value for name, value in given.items() if value is not None}


def check(sweep: SweepConfig, candidates: Sequence[Candidate], dataset: Dataset) -> None:
    """Raise where a candidate is impossible, before anything is trained or written.

    Raises
    ------
    ConfigError
        The message begins with what the candidate changes.
    """
    if "loss" in sweep.varied and dataset.task == "regression":
        raise ConfigError(
            "candidates with different losses cannot be compared by the loss on validation data; sweep one loss at "
            "a time"
        )
    rows = _few_rows(dataset)
    few = (dataset.x_train[rows], dataset.y_train[rows])
    for candidate in candidates:
        config = resolve(sweep.config(candidate), dataset)
        try:
            # initial weights are not needed here, and orthogonal ones of wide layers take long
            model = MLP(**{**network_settings(config, dataset), "init": "zeros"}, dtype=config.dtype)
            init.parse(config.init)
            model.preprocessing = dataset.preprocessing
            build_trainer(replace(config, class_weight=None), model, dataset.task, few, few)
        except ConfigError as error:
            raise ConfigError(f"candidate {shown(candidate)}: {error}") from error


def _few_rows(dataset: Dataset) -> np.ndarray:
    """Rows enough to build a trainer: the first of each class that is there, wherever in the data that is."""
    if dataset.task != "classification":
        return np.arange(min(2, len(dataset.y_train)))
    return np.unique(dataset.y_train, return_index=True)[1]


def fingerprint(part: Part) -> list[Any]:
    """Return what tells these data from others."""
    d = part.dataset
    data = [
        resume.fingerprint(*part.data, d.w_train),
        part.validation and resume.fingerprint(*part.validation),
    ]
    return data if np.ndim(d.shift) == 0 and not d.shift else [*data, resume.fingerprint(d.scale, d.shift)]
