"""Splitting a training set into a part to learn from and a part to judge by.

Written with NumPy alone because importing scikit-learn's splitters costs about a second.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError

# The second half of the generator's key, so that no other use of the same seed draws the same numbers.
_PURPOSE = 0x5350_4C49_54  # "SPLIT"


def stratified_split(
    y: Any, fraction: float, seed: int, *, stratify: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Split sample indices into a training and a validation part.

    The order comes from the raw output of `numpy.random.Philox`, which NumPy keeps the same across
    versions, so one seed gives one split everywhere and always.

    Parameters
    ----------
    y : array_like, shape (N,) or (N, O)
        Class labels of any kind; with ``stratify=False`` anything with N rows, regression targets too.
    fraction : float
        The part that goes to validation, strictly between 0 and 1.
    seed : int
        0 or more, below 2**64.
    stratify : bool
        Give each class the same share, within one sample (largest remainder). The last sample of a
        class always stays in training.

    Returns
    -------
    train, valid : numpy.ndarray, int64
        Sorted, disjoint, together all of 0..N-1.

    Raises
    ------
    ConfigError
        `fraction` or `seed` is outside its range.
    DataError
        Fewer than two samples, an empty part, or fractional labels where `stratify` is asked for.

    Examples
    --------
    >>> train, valid = stratified_split([0, 0, 0, 0, 1, 1], 0.5, seed=0)
    >>> len(train), len(valid), sorted(np.array([0, 0, 0, 0, 1, 1])[valid].tolist())
    (3, 3, [0, 0, 1])
    """
    y = np.asarray(y)
    seed = _check_settings(fraction, seed)
    n = len(y) if y.ndim else 0
    if n < 2:
        raise DataError(f"a split needs at least 2 samples, found {n}")
    wanted = math.floor(fraction * n + 0.5)
    if not 0 < wanted < n:
        raise DataError(
            f"a validation fraction of {fraction} of {n} samples leaves the "
            f"{'validation' if wanted == 0 else 'training'} part empty; choose a fraction from "
            f"{1 / n:.2g} to {1 - 1 / n:.2g}"
        )
    keys = np.random.Philox(key=np.array([seed, _PURPOSE], dtype=np.uint64)).random_raw(n)
    codes = _class_codes(y) if stratify else np.zeros(n, dtype=np.int64)
    counts = np.bincount(codes)
    quota = _largest_remainder(counts, fraction, wanted)
    if not quota.any():
        raise DataError(
            f"{n} samples of {len(counts)} classes leave the validation part empty, because the last "
            "sample of a class stays in training; use stratify=False or more samples"
        )
    order = np.lexsort((keys, codes))  # class by class, each in random order
    rank = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = rank < quota[codes[order]]
    return np.sort(order[~chosen]).astype(np.int64), np.sort(order[chosen]).astype(np.int64)


def _largest_remainder(counts: np.ndarray, fraction: float, wanted: int) -> np.ndarray:
    """Share `wanted` places among classes of these sizes; no class gives up its last sample."""
    share = np.round(counts * fraction, 9)  # rounded so that 0.29 * 100 counts as 29, not 28.999...
    quota = np.minimum(np.floor(share).astype(np.int64), counts - 1)
    by_remainder = np.argsort(-(share - quota), kind="stable")
    able = by_remainder[(quota < counts - 1)[by_remainder] & (share > quota)[by_remainder]]
    quota[able[: max(0, wanted - int(quota.sum()))]] += 1
    return quota


def _class_codes(y: np.ndarray) -> np.ndarray:
    if y.ndim != 1:
        raise DataError(
            f"labels have shape {y.shape}, expected (N,) to stratify by; pass y.argmax(axis=1) for one-hot "
            "rows, or stratify=False"
        )
    if y.dtype.kind == "f" and not np.array_equal(y, np.trunc(y)):
        raise DataError("labels are fractional, so there are no classes to stratify by; pass stratify=False")
    return np.unique(y, return_inverse=True)[1]


def _check_settings(fraction: float, seed: int) -> int:
    if not 0 < fraction < 1:  # also true for NaN
        raise ConfigError(
            f"the validation fraction is {fraction}, expected a number strictly between 0 and 1"
        )
    try:
        number = operator.index(seed)
    except TypeError:
        raise ConfigError(f"the seed is {seed!r}, expected an integer") from None
    if not 0 <= number < 2**64:
        raise ConfigError(f"the seed is {number}, expected 0 or more and below 2**64")
    return number
