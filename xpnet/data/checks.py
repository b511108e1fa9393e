"""Checks made once, when data enter; nothing is checked again inside a training step.

Arrays of another library are checked on their device, and stay there (see `xpnet.interchange.arrive`). Each message
says what was found, what was expected and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import DataError
from ..interchange import astype, is_foreign, kind, namespace, to_host
from .arrays import as_floating, as_real, check_finite, check_length, rectangular, whole_numbers

# Rows of soft labels must sum to one; float16 probabilities of many classes are off by about this much.
_ROW_SUM_TOLERANCE = 1e-3


def check_features(x: Any, *, n_features: int | None = None, name: str = "X") -> Any:
    """Check that `x` is a batch of real, finite numbers.

    Parameters
    ----------
    x : array_like, shape (B, I) or (B, ...)
        The samples, one per row, of any real type (bool, integer or floating).
    n_features : int, optional
        I, the numbers per sample that are expected.
    name : str
        What the message calls it.

    Returns
    -------
    numpy.ndarray, or an array of another library
        `x` itself where it was an array; the type is left as it was.

    Raises
    ------
    DataError
        Not a rectangular real array, fewer than two axes, empty, of another width, or NaN or infinite.

    Examples
    --------
    >>> check_features([[0.5, float("nan")]])
    Traceback (most recent call last):
    xpnet.errors.DataError: X has 1 NaN and 0 infinite values, the first (nan) at row 0, column 1; ...
    """
    x = as_real(x, name)
    if x.ndim < 2:
        raise DataError(
            f"{name} has shape {tuple(x.shape)}, expected one row per sample: use .reshape(1, -1) for a "
            "single sample, .reshape(-1, 1) for a single feature"
        )
    shape = tuple(x.shape)
    if 0 in shape:
        raise DataError(f"{name} is empty (shape {shape}), expected at least one sample and one feature")
    width = math.prod(shape[1:])
    if n_features is not None and width != n_features:
        raise DataError(f"{name} has {width} features per sample (shape {shape}), expected {n_features}")
    check_finite(x, name)
    return x


def check_same_scale(x: np.ndarray, name: str, other: np.ndarray, other_name: str) -> None:
    """Refuse two parts of data of which one are pixels: bytes 0..255 and fractions 0..1 would silently be scaled alike.

    Raises
    ------
    DataError

    Examples
    --------
    >>> check_same_scale(np.zeros((1, 2), np.uint8), "x", np.zeros((1, 2), np.uint8), "x_test")
    """
    types = {x.dtype.name, other.dtype.name}
    if len(types) > 1 and types & {"uint8", "uint16"}:
        raise DataError(
            f"{other_name} holds {other.dtype} but {name} holds {x.dtype}, so they would be scaled differently; "
            "save both in one type"
        )


def check_labels(y: Any, n: int, *, n_classes: int | None = None, name: str = "y") -> Any:
    """Check class labels: indices, or one row of class probabilities per sample.

    Parameters
    ----------
    y : array_like, shape (B,) or (B, C)
        Class indices of any integer type, or whole numbers stored as floats; or one-hot or soft
        labels, whose rows sum to one.
    n : int
        B, the number of samples they belong to.
    n_classes : int, optional
        C. Where absent, only negative indices are out of range.
    name : str
        What the message calls them.

    Returns
    -------
    numpy.ndarray, or an array of another library
        int64 (B,) for indices; floating (B, C) for probabilities (float32 kept, else float64). Labels on a device that
        are not plainly indices come to the host.

    Raises
    ------
    DataError
        Wrong length, type or rank, fractional, NaN, out of range, or rows that do not sum to one.

    Examples
    --------
    >>> check_labels([0.0, 2.0, 1.0], 3, n_classes=3)
    array([0, 2, 1])
    """
    if is_foreign(y):
        if _are_indices(y, n, n_classes):
            return astype(y, "int64")
        y = to_host(y, name)  # something to name, or to convert
    y = np.asarray(y) if isinstance(y, np.ndarray) else rectangular(y, name)
    if y.dtype.kind in "SUO" or y.dtype.kind == "T":
        raise DataError(
            f"{name} holds {y.dtype} labels, expected class indices; turn names into indices first "
            "with xpnet.data.encode_labels"
        )
    y = as_real(y, name)
    check_length(y, n, name)
    if y.ndim == 2 and y.shape[1] > 1:
        return _check_soft_labels(y, n_classes, name)
    if y.ndim != 1:
        raise DataError(f"{name} has shape {y.shape}, expected ({n},) class indices; use .ravel()")
    indices = whole_numbers(y, name)
    last = "" if n_classes is None else n_classes - 1
    bad = (indices < 0) if n_classes is None else (indices < 0) | (indices >= n_classes)
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        signs = "; labels -1 and 1 are 0 and 1 here, for every loss: (y > 0).astype(int)"
        raise DataError(
            f"{name}[{at}] is {y[at]}, expected a class index in 0..{last} "
            f"({int(bad.sum())} of {n} labels are out of range){signs if set(indices.tolist()) == {-1, 1} else ''}"
        )
    return indices.astype(np.int64, copy=False)


def _are_indices(y: Any, n: int, n_classes: int | None) -> bool:
    if y.ndim != 1 or y.shape[0] != n or n == 0 or kind(y) not in "ui":
        return False
    xp = namespace(y)
    return int(xp.min(y)) >= 0 and (n_classes is None or int(xp.max(y)) < n_classes)


def check_trainable_labels(y: Any) -> None:
    """Refuse labels that a classifier cannot learn from: none at all, or one class only.

    Parameters
    ----------
    y : array, shape (B,) or (B, C)
        What `check_labels` returned.

    Raises
    ------
    DataError
        Fewer than two classes occur.

    Examples
    --------
    >>> check_trainable_labels(np.array([1, 1]))
    Traceback (most recent call last):
    xpnet.errors.DataError: training needs at least two classes, but every label is class 1 (2 samples)
    """
    n, xp = y.shape[0], namespace(y)
    if n == 0:
        raise DataError("training needs at least two classes, but there are no labels")
    soft = y.ndim == 2
    first = int(xp.argmax(y[0, :]) if soft else y[0])
    if bool(xp.all(y[:, first] == 1)) if soft else bool(xp.all(y == first)):
        raise DataError(
            f"training needs at least two classes, but every label is class {first} ({n} sample{'s' * (n != 1)})"
        )


def check_targets(y: Any, n: int, width: int, *, unit_interval: bool = False, name: str = "y") -> Any:
    """Check real-valued targets for regression or, with `unit_interval`, multi-label training.

    Parameters
    ----------
    y : array_like, shape (B, O), or (B,) where O is 1
        The targets.
    n, width : int
        B and O.
    unit_interval : bool
        Require every value to lie in 0..1, as multi-label training does.
    name : str
        What the message calls them.

    Returns
    -------
    numpy.ndarray or an array of another library, shape (B, O)
        float32 kept, else float64.

    Raises
    ------
    DataError
        Wrong length, width or type, not finite, or outside 0..1.

    Examples
    --------
    >>> check_targets([1, 2], 2, 1)
    array([[1.],
           [2.]])
    """
    y = as_real(y, name)
    check_length(y, n, name)
    if y.ndim == 1:
        y = y[:, None]
    if y.ndim != 2 or y.shape[1] != width:
        raise DataError(f"{name} has shape {tuple(y.shape)}, expected ({n}, {width}): one column per output")
    check_finite(y, name)
    if unit_interval and kind(y) != "b" and bool(namespace(y).any((y < 0) | (y > 1))):
        y = to_host(y, name)
        row, column = (int(i) for i in np.argwhere((y < 0) | (y > 1))[0])
        raise DataError(
            f"{name}[{row}, {column}] is {y[row, column]}, expected a value in 0..1 for multi-label training"
        )
    return as_floating(y)


def check_weights(w: Any, n: int, *, name: str = "sample_weight") -> Any:
    """Check per-sample weights.

    Parameters
    ----------
    w : array_like, shape (B,)
        Non-negative and finite, at least one of them positive.
    n : int
        B.
    name : str
        What the message calls them.

    Returns
    -------
    numpy.ndarray or an array of another library, shape (B,)
        float32 kept, else float64.

    Raises
    ------
    DataError
        Wrong length, rank or type, negative, not finite, or all zero.

    Examples
    --------
    >>> check_weights([1, 0, 2], 3)
    array([1., 0., 2.])
    """
    if isinstance(w, (str, Mapping)):
        raise DataError(
            f"{name} must be one number for each of the {n} samples, found {w!r:.80}; weights of classes are "
            "class_weight"
        )
    w = as_real(w, name)
    check_length(w, n, name)
    if w.ndim != 1:
        raise DataError(f"{name} has shape {tuple(w.shape)}, expected ({n},): one weight per sample")
    check_finite(w, name)
    xp = namespace(w)
    if kind(w) in "if" and bool(xp.any(w < 0)):
        w = to_host(w, name)
        at = int(np.flatnonzero(w < 0)[0])
        raise DataError(f"{name}[{at}] is {w[at]}, expected a weight of zero or more")
    if not bool(xp.any(astype(w, "bool"))):
        raise DataError(
            f"{name} is all zero ({n} samples), so nothing would be learned; give some a positive weight"
        )
    return as_floating(w)


def _check_soft_labels(y: np.ndarray, n_classes: int | None, name: str) -> np.ndarray:
    if n_classes is not None and y.shape[1] != n_classes:
        raise DataError(
            f"{name} has {y.shape[1]} columns of class probabilities, expected {n_classes} classes"
        )
    check_finite(y, name)
    y = as_floating(y)
    bad = ((y < 0) | (y > 1)).any(axis=1) | (abs(y.sum(axis=1) - 1) > _ROW_SUM_TOLERANCE)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{name} row {row} sums to {y[row].sum():.6g} with values from {y[row].min():.6g} to "
            f"{y[row].max():.6g}, expected probabilities in 0..1 that sum to 1"
        )
    return y
