"""The data of a run: loaded as its settings say, and split into what it learns from and what it is judged by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .config import TrainConfig
from .data import Dataset, stratified_split
from .data import load as load_data
from .errors import DataError


def load_run_data(config: TrainConfig, *, progress: bool = False) -> Dataset:
    """Load the data of a run, with the user's own validation and test sets where the settings name them."""
    task = config.task or "classification"
    options: dict[str, Any] = {"labels": config.labels, "target": config.target, "task": task}
    data = load_data(config.data, data_dir=config.data_dir, progress=progress, **options)
    for part, name in (("valid", config.valid), ("test", config.test)):
        if name is not None:
            own = load_data(name, target=config.target, task=task, classes=data.classes or None)
            _check_same_scale(data, own)
            pair: dict[str, Any] = {f"x_{part}": own.x_train, f"y_{part}": own.y_train}
            data = replace(data, **pair)
    return data


def _check_same_scale(data: Dataset, own: Dataset) -> None:
    # Bytes 0..255 and fractions 0..1 would silently be scaled alike.
    types = {str(data.x_train.dtype), str(own.x_train.dtype)}
    if len(types) > 1 and types & {"uint8", "uint16"}:
        raise DataError(
            f"{own.name} holds {own.x_train.dtype} but {data.name} holds {data.x_train.dtype}, so they would "
            "be scaled differently; save both in one type"
        )


def split(data: Dataset, config: TrainConfig) -> tuple[tuple[Any, Any], tuple[Any, Any] | None]:
    """Return training and validation data: the user's own validation set, else a stratified share."""
    if data.x_valid is not None:
        return (data.x_train, data.y_train), (data.x_valid, data.y_valid)
    if config.valid_fraction == 0.0:
        return (data.x_train, data.y_train), None
    stratify = data.task == "classification"
    train, valid = stratified_split(data.y_train, config.valid_fraction, config.seed, stratify=stratify)
    return (data.x_train[train], data.y_train[train]), (data.x_train[valid], data.y_train[valid])
