"""The data of a run: loaded as its settings say, and split into what it learns from and what it is judged by."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Dataset, stratified_split
from ..data import load as load_data
from ..data.checks import check_same_scale
from ..data.columns import Table
from ..data.files import are_pixels
from ..data.scaling import FeatureScaler
from ..data.sources import NAMES
from ..data.spelling import Spelling
from ..data.table_sources import is_table, read_table
from ..errors import ConfigError, DataError
from ..losses import get_loss
from ..tabular import TabularPreprocessing
from ..tabular.targets import scales_of
from . import automatic
from .config import FILES, TABLE_SETTINGS, TrainConfig, only_for_tables

#: Share of a table that is held out for the test where the settings say nothing, and the rows it takes for that.
TEST_FRACTION, TEST_FROM = 0.1, 50
# One test set for all seeds, so that runs with other seeds can be compared.
_TEST_SEED = 0

Say = Callable[[str], None]
Divide = Callable[[np.ndarray, str], tuple[np.ndarray, np.ndarray]]


def _silent(note: str) -> None:
    pass


def load_run_data(
    config: TrainConfig, *, progress: bool = False, prepared: TabularPreprocessing | None = None,
    say: Say = _silent, divide: Divide | None = None,
) -> Dataset:  # fmt: skip
    """Load the data of a run, with the user's own validation and test sets where the settings name them.

    Parameters
    ----------
    config : TrainConfig
    progress : bool
        Show how far a download is.
    prepared : TabularPreprocessing, optional
        For tables: what was learnt about the columns before. It is learnt from the training rows where omitted.
    say : callable
        Called with each note about a table.
    divide : callable, optional
        For tables: ``divide(y, task)`` returns the positions of the rows to learn from and of those that validate,
        in place of a share of them.
    """
    config = _with_task(config, say)
    if is_table(config.data):
        return _table_data(config, prepared, say, divide)
    default = TrainConfig()
    for setting in TABLE_SETTINGS:
        if getattr(config, setting) != getattr(default, setting):
            raise only_for_tables(setting, config.data)
    if config.data in NAMES:
        _check_named(config)
    task = config.task or "classification"
    options: dict[str, Any] = {"labels": config.labels, "target": config.target, "task": task}
    data = load_data(config.data, data_dir=config.data_dir, progress=progress, **options)
    for text in data.notes:
        say(f"{config.data}: {text}")
    for part, name in (("valid", config.valid), ("test", config.test)):
        if name is not None:
            own = load_data(name, target=config.target, task=task, classes=data.classes or None)
            check_same_scale(data.x_train, data.name, own.x_train, own.name)
            data = _with_part(data, part, own.x_train, own.y_train)
    if config.test_fraction:
        if data.x_test is not None:
            raise ConfigError(
                f"{data.name} has a test set of its own, so test_fraction has nothing to hold out"
            )
        rest, test = _hold_out(data.y_train, config.test_fraction, data.task)
        data = _with_part(data, "test", data.x_train[test], data.y_train[test])
        w = None if data.w_train is None else data.w_train[rest]
        data = replace(data, x_train=data.x_train[rest], y_train=data.y_train[rest], w_train=w)
    if data.task == "regression":
        data = _with_scaled_targets(config, data, say)
    return standardized(data) if config.standardize and not has_pixels(data) else data


def _with_task(config: TrainConfig, say: Say) -> TrainConfig:
    """Return the settings with the task of a loss that is for numbers only, where none is named."""
    loss = get_loss(config.loss) if config.loss else None
    if config.task or loss is None or loss.classify or config.data in NAMES:
        return config
    say(f"regression, since the {loss.name} loss is for numbers (--task says otherwise)")
    return replace(config, task="regression")


def _check_named(config: TrainConfig) -> None:
    """Refuse settings of files where the data are a named set."""
    for setting in ("labels", "target"):
        if getattr(config, setting) is not None:
            raise ConfigError(
                f"{setting} is a setting for files, but {config.data!r} is a named data set, which has labels of its "
                "own; leave it out"
            )
    if config.task not in (None, "classification"):
        raise ConfigError(
            f"task is {config.task!r}, but {config.data!r} is a data set of classes; leave it out"
        )


def _with_scaled_targets(config: TrainConfig, data: Dataset, say: Say) -> Dataset:
    """Return a regression on arrays with its targets as a network learns them; measured as `standardized` does."""
    scaling = _target_scaling(config)
    suits = get_loss(config.loss or "squared_error").regress  # else the network says what is wrong
    if config.scale_target and isinstance(scaling, str) and suits:
        say(f"the targets are learnt as they are, not scaled: {scaling}")
    if not config.scale_target or isinstance(scaling, str):
        return data
    return data.with_scaled_targets(*scales_of(data.y_train, keep_zero=scaling))


def has_pixels(data: Dataset) -> bool:
    """Whether samples are taken for pixels, which are scaled by what these can hold."""
    return are_pixels(data.x_train)


def standardized(data: Dataset) -> Dataset:
    """Return the data set with the scale and shift that bring its samples to mean 0 and scale 1.

    Samples of one axis are features, each with units of its own; those of several axes, such as pictures of real
    numbers, have one unit for all. What is measured are all rows but those of validation and test parts of their own.
    """
    x = np.asarray(data.x_train, dtype=np.float64).reshape(len(data.x_train), -1)
    if len([n for n in data.sample_shape if n > 1]) > 1:
        scale, shift = FeatureScaler().fit(x.reshape(-1, 1)).affine
        return replace(data, scale=float(scale[0]), shift=float(shift[0]))
    scale, shift = FeatureScaler().fit(x).affine
    return replace(data, scale=scale, shift=shift)


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Return the settings with files and folders named so that they are found from any working directory."""
    paths = {name: getattr(config, name) for name in (*FILES, "data_dir")}
    return replace(config, **{
        name: os.path.abspath(os.path.expanduser(path))
        for name, path in paths.items()
        if path is not None and path not in NAMES
    })  # fmt: skip


def check_files_are_there(config: TrainConfig, run: Path) -> None:
    """Say where the files of a run were, and what to do, if one of them has gone.

    Raises
    ------
    DataError
    """
    for name in FILES:
        path = getattr(config, name)
        if path is not None and path not in NAMES and not Path(path).expanduser().exists():
            raise DataError(
                f"{path}: no such file, but {run} was trained with it (--{name}). If it has moved, say where it is: "
                f"xpnet train --resume {shlex.quote(str(run))} --{name} FILE. To judge the model by another file: "
                f"xpnet evaluate {shlex.quote(str(run))} --data FILE"
            )


def _with_part(data: Dataset, part: str, x: Any, y: Any) -> Dataset:
    pair: dict[str, Any] = {f"x_{part}": x, f"y_{part}": y}
    return replace(data, **pair)


def _hold_out(y: np.ndarray, fraction: float, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that stay and those of the test."""
    wanted = math.floor(fraction * len(y) + 0.5)
    if not 0 < wanted < len(y):
        raise ConfigError(
            f"a test fraction of {fraction} of {len(y)} rows leaves the {'test' if wanted == 0 else 'training'} "
            "part empty; choose another, or 0 for no test"
        )
    return stratified_split(y, fraction, _TEST_SEED, stratify=task == "classification")


def split(data: Dataset, config: TrainConfig) -> tuple[tuple[Any, ...], tuple[Any, Any] | None]:
    """Return training data (X, y), or (X, y, sample_weight) where samples have weights, and validation data (X, y).

    Those are the user's own validation set, else a stratified share.
    """
    every = (data.x_train, data.y_train, *(() if data.w_train is None else (data.w_train,)))
    if data.x_valid is not None:
        return every, (data.x_valid, data.y_valid)
    share = automatic.valid_fraction(config, len(data.x_train), features=automatic.has_features(data))
    if not share or data.tabular is not None:  # the rows of a table were divided as it was read
        return every, None
    stratify = data.task == "classification"
    train, valid = stratified_split(data.y_train, share, config.seed, stratify=stratify)
    return tuple(part[train] for part in every), (data.x_train[valid], data.y_train[valid])


# --- tables -------------------------------------------------------------------------------------
def _table_data(
    config: TrainConfig, prepared: TabularPreprocessing | None, say: Say, divide: Divide | None = None
) -> Dataset:
    for what, name in (("valid", config.valid), ("test", config.test)):
        if name is not None and not is_table(name):
            raise ConfigError(f"{what} is {name!r}, but the data are a table; name a CSV or Parquet file")
    if config.task == "multilabel":
        raise ConfigError("multilabel is a task for arrays (NPZ, NPY); a table has one target column")
    if config.labels is not None:
        raise ConfigError("labels belong to NPY and IDX files; a table has them in its --target column")
    if prepared is None:
        spelling = Spelling(config.decimal, missing=tuple(config.missing_values))
        table = read_table(config.data, text=config.categorical, skip=config.ignore, spelling=spelling)
        for text in table.notes:
            say(f"{config.data}: {text}")
        if config.drop_missing_target:
            table = with_target(table, _target_name(config, table), say)
        prepare = _begin(config, table, say)
    else:
        _check_target(config, prepared)
        prepare, table = prepared, prepared.table(config.data)
        if config.drop_missing_target and prepare.target_:
            table = with_target(table, prepare.target_.name, say)
    y = prepare.encode_target(table, scaled=False)
    target = prepare.target_
    assert target is not None
    rows: dict[str, np.ndarray | None] = {"train": np.arange(len(y)), "valid": None, "test": None}
    fraction = config.test_fraction
    if fraction is None:
        fraction = TEST_FRACTION if config.test is None and len(y) >= TEST_FROM else 0.0
    if fraction:
        rows["train"], rows["test"] = _hold_out(y, fraction, target.task)
    left: Any = rows["train"]
    share = automatic.valid_fraction(config, len(left), features=True)
    if config.valid is None and (share or divide):
        train, valid = (divide or _share(share, config.seed))(y[left], target.task)
        rows["train"], rows["valid"] = left[train], left[valid]
    if prepared is None:
        prepare.fit(table, rows["train"])
    weights = prepare.weights(table)
    parts: dict[str, Any] = {"x_test": None, "y_test": None}
    parts["w_train"] = None if weights is None else weights[rows["train"]]
    y = prepare.encode_target(table)
    for part, chosen in rows.items():
        if chosen is not None:
            parts[f"x_{part}"] = prepare.transform(table.take(chosen), dtype=config.dtype)
            parts[f"y_{part}"] = y[chosen]
    for part, path in (("valid", config.valid), ("test", config.test)):
        if path is not None:
            parts[f"x_{part}"], parts[f"y_{part}"] = transform_file(
                prepare, path, config.dtype, say, drop=config.drop_missing_target
            )
    return Dataset(
        table_name(config.data), sample_shape=(len(prepare.feature_names_),), classes=target.classes, scale=1.0,
        task=target.task, tabular=prepare.to_metadata(), **parts,
    )  # fmt: skip


def _check_target(config: TrainConfig, prepared: TabularPreprocessing) -> None:
    """Refuse settings, edited since the run began, that ask for something else than what it learnt."""
    target = prepared.target_
    assert target is not None
    for name, asked, learnt in (("target", config.target, target.name), ("task", config.task, target.task)):
        if asked not in (None, learnt):
            raise ConfigError(
                f"{name} is {asked!r}, but the run was started with {learnt!r}; bring it back, or start a new run"
            )


def _share(fraction: float, seed: int) -> Divide:
    def divide(y: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray]:
        return stratified_split(y, fraction, seed, stratify=task == "classification")

    return divide


def _begin(config: TrainConfig, table: Table, say: Say) -> TabularPreprocessing:
    """Return the preprocessing that the settings describe, its target chosen: the last column by default."""
    scaling = _target_scaling(config)
    why_not = scaling if isinstance(scaling, str) else None
    prepare = TabularPreprocessing(
        _target_name(config, table), task=config.task, categorical=config.categorical, ignore=config.ignore,
        max_categories=config.max_categories, impute=config.impute,
        missing_indicator=config.missing_indicator, standardize=config.standardize,
        scale_target=config.scale_target and why_not is None and ("mean" if scaling else True),
        decimal=config.decimal, missing_values=config.missing_values, weight=config.weight,
    )  # fmt: skip
    if prepare.fit_target(table).task == "regression" and config.scale_target and why_not:
        say(f"the target is learnt as it is, not scaled: {why_not}")
    y = prepare.encode_target(table, scaled=False)
    if (y == y[0]).all():  # a single class has been refused
        say(f"the target {prepare.target!r} is {y[0, 0]:g} in every row: there is nothing to learn")
    return prepare


def _target_name(config: TrainConfig, table: Table) -> str:
    names = [name for name in table.names if name not in config.ignore and name != config.weight]
    if config.target is None and not names:
        raise ConfigError("every column is ignored, so there is nothing to predict")
    return config.target or names[-1]


def with_target(table: Table, name: str, say: Say) -> Table:
    """Return the rows that have a value in the target column, and say how many have none."""
    if name not in table.columns or not table[name].n_missing:
        return table
    say(
        f"{table.source}: left out {table[name].n_missing} of {table.n_rows} rows, which have no value in {name!r}"
    )
    return table.take(np.flatnonzero(~table[name].missing))


def _target_scaling(config: TrainConfig) -> bool | str:
    """Whether a scaled target has to keep its zero, since predictions are positive; or why it cannot be scaled."""
    loss = get_loss(config.loss or "squared_error")
    if loss.link not in ("identity", "exp"):
        return f"the {loss.name} loss takes it so"
    if config.output_activation not in ("identity", "linear", "none"):
        return f"output_activation {config.output_activation!r} decides the range of the answers"
    return loss.link == "exp"


def transform_file(
    prepare: TabularPreprocessing,
    path: str,
    dtype: str,
    say: Say,
    unknown: str = "refuse",
    *,
    drop: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return features and targets of another table with the same columns; `drop` rows without a target, or refuse."""
    table = prepare.table(path)
    if drop and prepare.target_:
        table = with_target(table, prepare.target_.name, say)
    y = prepare.encode_target(table)
    x = prepare.transform(table, dtype=dtype, unknown=unknown)
    for note in prepare.notes(table, unknown=unknown):
        say(f"{path}: {note}")
    return x, y


def table_name(path: str) -> str:
    """What a run on a table is called."""
    name = Path(path).name.removesuffix(".gz")
    return Path(name).stem
