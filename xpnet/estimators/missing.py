"""Targets that are missing: named before anything else looks at them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DataError
from ..interchange import is_foreign, kind, namespace, to_host


def check_present(y: Any, name: str = "y", *, labels: bool = True) -> None:
    """Check that no target is NaN, None or a data frame's missing value; `labels` of classes could have a name instead.

    Raises
    ------
    DataError
        In scikit-learn's words, with the count, the first row, and what to do.

    Examples
    --------
    >>> check_present(["a", None, "b"])
    Traceback (most recent call last):
    xpnet.errors.DataError: Input y contains NaN: 1 of 3 targets is missing, the first (None) at row 1. ...
    """
    if y is None:
        return  # scikit-learn says that y is required
    gone = _missing(y)
    if gone is None or not gone.any():
        return
    rows = np.flatnonzero(gone.reshape(len(gone), -1).any(axis=1))
    first = np.asarray(to_host(y), dtype=object)[rows[0]]
    count = f"{len(rows)} of {len(gone)} targets {'is' if len(rows) == 1 else 'are'} missing"
    instead = ", or give missing labels a name, which makes them a class" if labels else ""
    raise DataError(
        f"Input {name} contains NaN: {count}, the first ({first}) at row {rows[0]}. Leave those rows out of X and "
        f"{name}{instead}"
    )


def _missing(y: Any) -> np.ndarray | None:
    """Where y is missing, or None where it cannot be."""
    for method in ("isna", "is_null"):  # pandas, polars: their own missing values too
        if hasattr(y, method):
            gone = np.asarray(getattr(y, method)())
            return gone | _not_a_number(np.asarray(y)) if method == "is_null" else gone
    if is_foreign(y):
        xp = namespace(y)
        lacks = kind(y) == "f" and bool(xp.any(xp.isnan(y)))
        return np.isnan(to_host(y)) if lacks else None
    if hasattr(y, "toarray") or not isinstance(y, (np.ndarray, list, tuple)):
        return None
    try:
        array = (
            y if isinstance(y, np.ndarray) else np.asarray(y, dtype=object)
        )  # text would hide NaN as "nan"
    except ValueError:  # ragged; scikit-learn says so
        return None
    return _not_a_number(array)


def _not_a_number(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        return np.isnan(array)
    if array.dtype.kind == "O":
        gone = [v is None or (isinstance(v, (float, np.floating)) and v != v) for v in array.reshape(-1)]
        return np.array(gone, dtype=bool).reshape(array.shape)
    return np.zeros(array.shape, dtype=bool)
