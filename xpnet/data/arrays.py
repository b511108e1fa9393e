"""The small steps that the checks on entering data are made of."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np

from ..errors import DataError
from ..interchange import astype, dtype_name, is_foreign, kind, namespace


def is_finite(x: Any) -> bool:
    """Say whether every number of an array is finite."""
    # One number is cheaper than a mask, and every NaN or infinity makes it non-finite; so do large numbers, seldom.
    with np.errstate(over="ignore", invalid="ignore"):
        if isinstance(x, np.ndarray) and x.flags.c_contiguous and x.dtype.itemsize > 2:
            return math.isfinite(np.vdot(x, x)) or bool(np.isfinite(x).all())
        xp = namespace(x)
        return bool(xp.isfinite(xp.sum(x))) or bool(xp.all(xp.isfinite(x)))


def check_finite(x: Any, name: str) -> None:
    """Raise a DataError that counts the NaN and infinite values of `x` and names the first."""
    if kind(x) != "f" or is_finite(x):
        return
    xp = namespace(x)
    bad = astype(~xp.isfinite(x), "uint8")
    at = tuple(int(i) for i in np.unravel_index(int(xp.argmax(xp.reshape(bad, (-1,)))), x.shape))
    where = f"index {at[0]}" if x.ndim == 1 else f"row {at[0]}, column {', '.join(map(str, at[1:]))}"
    nans = int(xp.sum(astype(xp.isnan(x), "int64")))
    infinite = int(xp.sum(astype(bad, "int64"))) - nans
    raise DataError(
        f"{name} has {nans} NaN and {infinite} infinite values, the first ({float(x[at])}) at "
        f"{where}; remove or fill them first"
    )


def whole_numbers(y: np.ndarray, name: str) -> np.ndarray:
    """Return `y` as integers; a fractional, NaN or infinite value is a DataError that names the first."""
    if y.dtype.kind == "b":
        return y.astype(np.int64)
    if y.dtype.kind != "f":
        return y
    check_finite(y, name)
    bad = y != np.trunc(y)
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{name}[{at}] is {y[at]}, expected a class label, which is a whole number "
            f"({int(bad.sum())} of {y.size} are fractional); for real-valued targets say "
            "task='regression' (--task regression)"
        )
    if np.abs(y).max(initial=0) >= 2**53:
        raise DataError(f"{name} holds floats beyond 2**53, too large to be exact class labels; use integers")
    return y.astype(np.int64)


def check_length(y: Any, n: int, name: str) -> None:
    """Raise a DataError unless `y` has one row for each of `n` samples."""
    found = y.shape[0] if y.ndim else 0
    if y.ndim == 0 or found != n:
        raise DataError(
            f"{name} has {found} rows (shape {tuple(y.shape)}) but there are {n} samples; expected one row each"
        )


def as_real(x: Any, name: str) -> Any:
    """Return `x` as an array of a real type, or raise a DataError; one of another library stays where it is."""
    x = x if is_foreign(x) else rectangular(x, name)
    if kind(x) not in "buif":
        text = kind(x) in "SUT" or (kind(x) == "O" and x.size and isinstance(np.ravel(x)[0], str))
        advice = (
            "names of classes become numbers by xpnet.data.encode_labels, columns of a table by xpnet.tabular"
        )
        advice = advice if text else "convert it first, for example with .astype('float32')"
        raise DataError(
            f"{name} has type {x.dtype}, expected real numbers (bool, integer or floating); {advice}"
        )
    return x


def rectangular(x: Any, name: str) -> np.ndarray:
    """Return `x` as a host array, or raise a DataError for ragged rows, sparse matrices and device arrays."""
    if hasattr(x, "toarray"):  # a SciPy sparse matrix, which NumPy would wrap as one object
        raise DataError(f"{name} is a sparse matrix, expected a dense array; use .toarray()")
    try:
        array = np.asarray(x)
        if array.dtype.kind == "O" and hasattr(
            x, "to_numpy"
        ):  # pandas' types that have a missing value of their own
            with suppress(TypeError, ValueError):
                return np.asarray(x.to_numpy(dtype=np.float64, na_value=np.nan))
        return array
    except (ValueError, TypeError) as error:  # rows of different lengths; an array on a GPU
        raise DataError(f"{name} is not a rectangular host array: {error}") from error


def as_floating(y: Any) -> Any:
    """Return `y` as it is where it is float32 or float64, else as float64."""
    return y if dtype_name(y) in ("float32", "float64") else astype(y, "float64")
