"""The target column of a table: its task, its classes, its scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.columns import Table
from ..data.csvfile import cell_text
from ..data.labels import encode_labels
from ..errors import DataError
from ..mlp import MLP, TargetUnits
from .recipes import mistake

#: More different values than this are taken for a mistake.
MAX_CLASSES = 1000
#: Whole numbers as targets are classes where there are at most so many different ones ...
MAX_CLASSES_OF_NUMBERS = 20
#: ... and each occurs, in the mean, at least so often (or there are just two).
MIN_ROWS_PER_CLASS = 5


@dataclass(frozen=True)
class Target:
    """The column that is predicted.

    Parameters
    ----------
    name : str
    kind : {"number", "boolean", "text"}
    task : {"classification", "regression"}
    why : str
        What the task was chosen by.
    classes : tuple of str
        Sorted; empty for regression.
    mean, scale : float
        A regression learns ``(y - mean) / scale``. Under a loss with a log link, mean is 0.

    Examples
    --------
    >>> Target("price", "number", "regression", mean=250_000.0, scale=80_000.0).scaled
    True
    """

    name: str
    kind: str
    task: str
    why: str = ""
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0

    @property
    def scaled(self) -> bool:
        """Whether targets are learnt in other units than their own."""
        return (self.mean, self.scale) != (0.0, 1.0)


def infer_task(table: Table, name: str) -> tuple[str, str]:
    """Say whether a column holds classes or numbers to regress on, and why."""
    column = table[name]
    if column.kind == "text" and (wrong := mistake(table, name)):
        raise DataError(f"{wrong}; or take it for classes, --task classification")
    if column.kind == "date":
        raise DataError(
            f"{table.cell(0, name)}, a date, which cannot be predicted as it is; convert it to a number first"
        )
    if column.kind != "number":
        return "classification", f"it holds {'texts' if column.kind == 'text' else 'true and false'}"
    different = np.unique(column.values)
    n, whole = len(different), bool((different == np.trunc(different)).all())
    enough = n <= max(2, table.n_rows / MIN_ROWS_PER_CLASS)
    if whole and n <= MAX_CLASSES_OF_NUMBERS and enough:
        return "classification", f"it holds {n} different whole numbers"
    if not whole:
        return "regression", "it holds numbers that are not whole"
    return "regression", f"it holds {n} different whole numbers in {table.n_rows} rows"


def no_target(table: Table, name: str) -> DataError:
    """Build the error for rows without a value in the target column."""
    rows = np.flatnonzero(table[name].missing)
    at = int(rows[0])
    cell = cell_text(table, at, name).strip() if table.word == "line" else ""
    said = f": {cell!r} stands for a missing value (--missing-values says otherwise)" if cell else ""
    more = f" ({len(rows)} rows have none)" if len(rows) > 1 else ""
    return DataError(
        f"{table.source}: {table.place(at)} has no value in the target column {name!r}{said}{more}; fill it, or leave "
        "such rows out with --drop-missing-target"
    )


def label_of(text: str, kind: str) -> str:
    """The class that a cell of the target column means."""
    if kind == "boolean":
        return {"1": "true", "0": "false"}.get(text, text.lower())
    return text[:-2] if kind == "number" and text.endswith(".0") else text


def find_classes(table: Table, name: str) -> tuple[str, ...]:
    """Return the classes that occur, sorted (numbers by value)."""
    column = table[name]
    if column.kind == "number":
        fraction = column.values != np.trunc(column.values)
        if fraction.any() or np.isinf(column.values).any():
            at = int(np.flatnonzero(fraction | np.isinf(column.values))[0])
            raise DataError(
                f"{table.cell(at, name)}, which is no class label; use whole numbers, or --task regression"
            )
        classes = encode_labels(column.values, name=name)[1]
    else:
        classes = tuple(sorted(set(column.as_texts()[1])))
    if len(classes) < 2:
        raise DataError(
            f"{table.source}: the target column {name!r} holds only {classes[0]!r}; training needs two classes or more"
        )
    if len(classes) > min(max(2, table.n_rows // 2), MAX_CLASSES):
        usual = "is it the right column? Numbers can be predicted with --task regression"
        hint = usual if column.kind != "text" else table.advice(name) or _no_number(column.texts)
        raise DataError(
            f"{table.source}: the target column {name!r} holds {len(classes)} different values in {table.n_rows} rows, "
            f"too many to be classes; {hint}"
        )
    return classes


def _no_number(texts: tuple[str, ...]) -> str:
    return f"is it the right column? It holds texts such as {texts[0]!r}, so it cannot be regressed on either"


def scale_of(y: np.ndarray, *, keep_zero: bool = False) -> dict[str, Any]:
    """Return mean and standard deviation of targets (B,) as fields of a `Target`.

    With `keep_zero`, for losses whose predictions are positive, the scale is the mean and nothing is subtracted: a
    network that answers exp(0) then starts at the mean.
    """
    unit = float(np.abs(y).max()) or 1.0  # so that no square over- or underflows
    mean, scale = float(np.mean(y / unit)) * unit, float(np.std(y / unit)) * unit
    if keep_zero:
        return {"mean": 0.0, "scale": mean if mean > 0.0 else 1.0}
    varies = scale > 10.0 * np.finfo(np.float64).eps * abs(mean)
    return {"mean": mean, "scale": scale if varies else 1.0}


def scales_of(y: np.ndarray, *, keep_zero: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale (O,), as `scale_of` does, of each column of targets (B, O)."""
    columns = np.ascontiguousarray(y.T, dtype=np.float64)
    found = [scale_of(column, keep_zero=keep_zero) for column in columns]
    return np.array([f["mean"] for f in found]), np.array([f["scale"] for f in found])


# --- networks that answer in the target's own units -------------------------------------------------
def target_of(model: MLP) -> Target | None:
    """Return the target column of a network for tables."""
    record = model.tabular and model.tabular.get("target")
    return Target(**{**record, "classes": tuple(record["classes"])}) if record else None


def units_of(model: MLP) -> tuple[Any, Any]:
    """Return mean and scale, numbers or (O,) arrays, by which a network's targets were scaled; 0 and 1 for none."""
    target, recipe = target_of(model), model.preprocessing
    if target is not None:
        return target.mean, target.scale
    return (0.0, 1.0) if recipe is None else (recipe.target_mean, recipe.target_scale)


def in_target_units(model: MLP) -> MLP:
    """Return a copy of a network that learnt a scaled target, which answers in the target's own units.

    So whatever uses the copy - this library, an exported file - predicts in these. A network whose target is not scaled
    is returned itself.
    """
    mean, scale = units_of(model)
    if not _are_scaled(mean, scale):
        return model
    shape = (model.sizes[-1],)
    return _with_units(
        model, TargetUnits(np.broadcast_to(mean, shape).copy(), np.broadcast_to(scale, shape).copy())
    )


def in_training_units(model: MLP) -> MLP:
    """Undo `in_target_units`; in files of older versions the last layer does what `MLP.target_units` does now."""
    if model.target_units is not None:
        return _with_units(model, None)
    mean, scale = units_of(model)
    if not _are_scaled(mean, scale):
        return model
    if _log_link(model):  # scale * exp(h) = exp(h + ln scale)
        return _rescaled(model, 1.0, -np.log(scale))
    return _rescaled(model, 1.0 / scale, -mean / scale)


def _are_scaled(mean: Any, scale: Any) -> bool:
    return bool(np.any(mean != 0.0) or np.any(scale != 1.0))


def _with_units(model: MLP, units: TargetUnits | None) -> MLP:
    copy = model.to(model.be)
    copy.target_units = units
    return copy


def _log_link(model: MLP) -> bool:
    return model.loss is not None and model.loss_function().link == "exp"


def _rescaled(model: MLP, factor: Any, shift: Any) -> MLP:
    """Return a copy whose outputs h become factor h + shift, each a number or one per output."""
    copy = model.to(model.be)
    weights = copy.get_weights()
    last = max(int(name.split(".")[1]) for name in weights)
    for kind, by, add in (("weight", np.reshape(factor, (-1, 1)), 0.0), ("bias", factor, shift)):
        name = f"layers.{last}.{kind}"
        weights[name] = (weights[name].astype(np.float64) * by + add).astype(model.dtype)
    copy.set_weights(weights)
    return copy
