"""Settings of a training, checked one by one, and the entries of its records; what `fit` and populations share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..callbacks import Callback
from ..errors import ConfigError, nearest, unknown_name
from ..losses import Loss
from ..mlp import MLP
from .history import Record

#: What is said where samples and targets are not one pair.
PAIRED = "{0} takes samples and targets as one pair: {0}(model, (X, y), ...); all else is given by its name"
#: What is said about options that are called otherwise elsewhere.
HINTS = {
    "learning_rate": "it is called lr here", "validation_data": "it is called validation=(X, y) here",
    "validation_split": "split the data first, as xpnet.data.stratified_split does, and give validation=(X, y)",
    "metrics": "losses and accuracies are always in the history; others can be added by a Callback",
    "weight_decay": 'give an optimizer, such as AdamW(weight_decay=0.01), or a penalty l2=0.01',
    "momentum": "give an optimizer, such as SGD(lr=0.1, momentum=0.9)",
    "criterion": "it is called loss here", "early_stopping": "give patience=10 and validation=(X, y)",
    "max_iter": "it is called epochs here", "device": "the model holds it: MLP(..., device=...) or model.to(device)",
}  # fmt: skip


def means(part: str, totals: np.ndarray, task: str, n: int) -> Record:
    """The loss and accuracy of a part of the data, from the totals (3, ...) of a `Pass` over its n examples."""
    loss, weight, hits = totals
    accuracy = None if task == "regression" else (hits / n).tolist()
    return {f"{part}_loss": (loss / weight).tolist(), f"{part}_accuracy": accuracy}


def whole_number(name: str, value: Any, least: int) -> int:
    """`value` as an int, or a `ConfigError` where it is not one or below `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ConfigError(f"{name} must be a whole number >= {least}, found {value!r}")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """`value` as a bool, or a `ConfigError` where it is none: "no" would count as true."""
    if not isinstance(value, (bool, np.bool_)):
        raise ConfigError(f"{name} must be True or False, found {value!r}")
    return bool(value)


def least_change(value: Any) -> float:
    """`min_delta`, checked."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not 0.0 <= value < np.inf:
        raise ConfigError(f"min_delta must be a finite number >= 0, found {value!r}")
    return float(value)


def check_callbacks(callbacks: Any) -> list[Callback]:
    """Callbacks as a list, checked."""
    if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
        raise ConfigError(
            f"callbacks must be a list of Callback objects, found {callbacks!r}; write [...] around it"
        )
    for given in (found := list(callbacks)):
        if not isinstance(given, Callback):
            made = (
                f"{given.__name__}() makes one"
                if isinstance(given, type)
                else "derive a class from xpnet.Callback"
            )
            raise ConfigError(f"callbacks must be a list of Callback objects, found {given!r} in it; {made}")
    return found


def frozen_parameters(freeze: Any, model: MLP) -> tuple[str, ...]:
    """Names of the parameters that `freeze` of `fit` means, in the order of the layers.

    Raises
    ------
    ConfigError
        There is no such layer or parameter, or all of them would be frozen.

    Examples
    --------
    >>> frozen_parameters([0], MLP([3, 4, 2], input_dropout=0.1))
    ('layers.1.weight', 'layers.1.bias')
    """
    if isinstance(freeze, str) or not isinstance(freeze, Iterable):
        raise ConfigError(
            f"freeze must be a list of layers or parameters, found {freeze!r}; write [...] around it"
        )
    layers: list[list[str]] = []
    for i, layer in enumerate(model.layers):
        names = [spec.name for spec in layer.specs()]
        if "weight" in names or (names and not layers):  # slopes (PReLU) belong to the weights before them
            layers.append([])
        if names:
            layers[-1] += [f"layers.{i}.{name}" for name in names]
    found: set[str] = set()
    for part in freeze:
        if isinstance(part, str):
            if part not in model.params:
                raise unknown_name("parameter to freeze", part, model.params)
            found.add(part)
        elif isinstance(part, bool) or not isinstance(part, (int, np.integer)):
            raise ConfigError(
                f"freeze holds {part!r}, expected the number of a layer or the name of a parameter"
            )
        elif not -len(layers) <= part < len(layers):
            raise ConfigError(f"freeze has layer {part}, but the model's layers are 0 to {len(layers) - 1}")
        else:
            found.update(layers[part])
    if len(found) == len(model.params):
        raise ConfigError("freeze leaves nothing to learn: it names every parameter")
    return tuple(name for name in model.params if name in found)


def from_best(value: Any) -> bool:
    """Whether `min_delta_from`, checked, is "best"."""
    if value not in ("improvement", "best"):
        raise ConfigError(f"min_delta_from must be 'improvement' or 'best', found {value!r}")
    return bool(value == "best")


def check_infogain(matrix: Any, model: MLP) -> np.ndarray | None:
    """The information-gain matrix (C, C) in float64, checked."""
    if matrix is None:
        return None
    matrix = np.asarray(matrix, dtype=np.float64)
    c = model.sizes[-1]
    if matrix.shape != (c, c) or not np.isfinite(matrix).all():
        raise ConfigError(f"infogain must be a finite ({c}, {c}) matrix, found shape {matrix.shape}")
    return matrix


def check_combination(loss: Loss, task: str, model: MLP) -> None:
    """Raise `ConfigError` where the loss does not fit the task or the outputs of the model."""
    width = model.sizes[-1]
    fits = loss.regress if task == "regression" else loss.classify
    if not fits or (task == "multilabel" and loss.link != "sigmoid"):
        raise ConfigError(f"the {loss.name} loss does not fit the task {task!r}")
    if loss.link == "softmax" and width < 2:
        raise ConfigError(
            "softmax_cross_entropy needs at least two outputs; for one, use binary_cross_entropy"
        )
    output = model.architecture["output_activation"]
    if loss.link in ("softmax", "sigmoid", "exp") and output not in ("identity", "linear", "none"):
        raise ConfigError(
            f"the {loss.name} loss takes the raw outputs (it applies {loss.link} itself), but "
            f"output_activation is {output!r}; leave it at 'identity'"
        )


def check_monitor(
    monitor: str | None, task: str, *, validated: bool, mode: str | None = None, own: bool = False
) -> tuple[str, bool]:
    """The entry of the records that decides which epoch is the best, and whether it should be large.

    By default that is the accuracy for classes, else the loss; with `own` a callback may add others.
    """
    part = "valid" if validated else "train"
    known = ["train_loss"] + ([] if task == "regression" else ["train_accuracy"])
    if validated:
        known += [name.replace("train", "valid") for name in known]
    if mode not in (None, "max", "min"):
        raise ConfigError(f"mode must be 'max' or 'min', found {mode!r}")
    if monitor is None:
        monitor = f"{part}_{'loss' if task == 'regression' else 'accuracy'}"
    if monitor not in known and not own:
        text = str(monitor)
        if not validated and text.replace("val_", "valid_").replace("valid_", "train_") in known:
            raise ConfigError(
                f"monitor={monitor!r} needs validation data, and there are none; without, it is one of "
                f"{', '.join(known)}"
            )
        near = nearest(text, known)
        hint = f"; did you mean {near!r}?" if near else "; on_evaluate of a callback may add others"
        raise ConfigError(f"monitor must be one of {', '.join(known)} here, found {monitor!r}{hint}")
    if monitor not in known and mode is None:
        raise ConfigError(f"say mode='max' or mode='min': whether {monitor!r} should be large or small")
    return monitor, monitor.endswith("accuracy") if mode is None else mode == "max"
