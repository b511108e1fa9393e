"""Class labels of any kind to class indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from .arrays import as_real, rectangular, whole_numbers


def encode_labels(
    y: Any, classes: Sequence[str] | None = None, *, name: str = "y"
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turn labels (numbers or names) into class indices.

    Parameters
    ----------
    y : array_like, shape (B,) or (B, 1)
        Integers, whole numbers stored as floats, booleans, or strings.
    classes : sequence of str, optional
        The known classes in order, for data that must agree with an existing model. Where absent, the
        classes are the different labels in sorted order (numbers by value).
    name : str
        What the message calls them.

    Returns
    -------
    indices : numpy.ndarray, shape (B,)
        int64 in 0..C-1.
    classes : tuple of str
        The label that each index stands for.

    Raises
    ------
    DataError
        Fractional, NaN, of another type or rank, or not one of `classes`.

    Examples
    --------
    >>> encode_labels([3, 7, 3])
    (array([0, 1, 0]), ('3', '7'))
    >>> encode_labels(["dog", "cat"], classes=["cat", "dog"])
    (array([1, 0]), ('cat', 'dog'))
    """
    y = rectangular(y, name)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(
            f"{name} has shape {y.shape}, expected one label per sample; of one-hot rows .argmax(axis=1) makes "
            "labels, rows of several labels each need task='multilabel'"
        )
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    elif y.dtype.kind not in "UT":
        y = whole_numbers(as_real(y, name), name)
    values, indices = np.unique(y, return_inverse=True)
    found = tuple(str(value) for value in values.tolist())
    if classes is None:
        return indices.astype(np.int64, copy=False), found
    known = {label: index for index, label in enumerate(classes)}
    for code, label in enumerate(found):
        if label not in known:
            at = int(np.flatnonzero(indices == code)[0])
            raise DataError(
                f"{name}[{at}] is {label!r}, which is none of the {len(known)} known classes: "
                f"{', '.join(list(known)[:12])}"
            )
    table = np.array([known[label] for label in found], dtype=np.int64)
    return table[indices], tuple(classes)
