"""Checks made once, on the host, when data enter; nothing is checked again inside a training step.

Each message says what was found, what was expected and what to do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.data.arrays import as_floating, as_real, check_finite, check_length, rectangular, whole_numbers
from xpnet.errors import DataError

# Rows of soft labels must sum to one; float16 probabilities of many classes are off by about this much.
_ROW_SUM_TOLERANCE = 1e-3


def check_features(x: Any, *, n_features: int | None = None, name: str = "X") -> np.ndarray:
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
    numpy.ndarray
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
            f"{name} has shape {x.shape}, expected one row per sample: use .reshape(1, -1) for a "
            "single sample, .reshape(-1, 1) for a single feature"
        )
    if x.size == 0:
        raise DataError(f"{name} is empty (shape {x.shape}), expected at least one sample and one feature")
    width = x.size // x.shape[0]
    if n_features is not None and width != n_features:
        raise DataError(f"{name} has {width} features per sample (shape {x.shape}), expected {n_features}")
    check_finite(x, name)
    return x


def check_labels(y: Any, n: int, *, n_classes: int | None = None, name: str = "y") -> np.ndarray:
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
    numpy.ndarray
        int64 (B,) for indices; floating (B, C) for probabilities (float32 kept, else float64).

    Raises
    ------
    DataError
        Wrong length, type or rank, fractional, NaN, out of range, or rows that do not sum to one.

    Examples
    --------
    >>> check_labels([0.0, 2.0, 1.0], 3, n_classes=3)
    array([0, 2, 1])
    """
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
        raise DataError(
            f"{name}[{at}] is {y[at]}, expected a class index in 0..{last} "
            f"({int(bad.sum())} of {n} labels are out of range)"
        )
    return indices.astype(np.int64, copy=False)


def check_trainable_labels(y: np.ndarray) -> None:
    """Refuse labels that a classifier cannot learn from: none at all, or one class only.

    Parameters
    ----------
    y : numpy.ndarray, shape (B,) or (B, C)
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
    if len(y) == 0:
        raise DataError("training needs at least two classes, but there are no labels")
    soft = y.ndim == 2
    first = y[0].argmax() if soft else y[0]
    certain = bool((y[:, first] == 1).all()) if soft else bool((y == first).all())
    if certain:
        raise DataError(
            f"training needs at least two classes, but every label is class {first} ({len(y)} samples)"
        )


def check_targets(y: Any, n: int, width: int, *, unit_interval: bool = False, name: str = "y") -> np.ndarray:
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
    numpy.ndarray, shape (B, O)
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
        raise DataError(f"{name} has shape {y.shape}, expected ({n}, {width}): one column per output")
    check_finite(y, name)
    if unit_interval and ((y < 0) | (y > 1)).any():
        row, column = (int(i) for i in np.argwhere((y < 0) | (y > 1))[0])
        raise DataError(
            f"{name}[{row}, {column}] is {y[row, column]}, expected a value in 0..1 for multi-label training"
        )
    return as_floating(y)


def check_weights(w: Any, n: int, *, name: str = "sample_weight") -> np.ndarray:
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
    numpy.ndarray, shape (B,)
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
    w = as_real(w, name)
    check_length(w, n, name)
    if w.ndim != 1:
        raise DataError(f"{name} has shape {w.shape}, expected ({n},): one weight per sample")
    check_finite(w, name)
    if (w < 0).any():
        at = int(np.flatnonzero(w < 0)[0])
        raise DataError(f"{name}[{at}] is {w[at]}, expected a weight of zero or more")
    if not w.any():
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
