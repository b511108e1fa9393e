"""Samples on their way from the user to the network: held-out parts, and sparse rows made dense batch by batch."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from ..data.arrays import is_finite
from ..data.scaling import FeatureScaler
from ..errors import DataError
from ..interchange import astype, empty_beside, namespace, take_rows, to_host

_MOST = 4096  # rows that are scaled and predicted at a time
_NUMBERS = 1 << 19  # so many numbers stay in the processor's cache while they are scaled


def scaled(x: Any, scaler: FeatureScaler | None, dtype: str) -> Any:
    """Return x (B, I) as the network takes it, where it is.

    Raises
    ------
    DataError
        Values too large for `dtype`.
    """
    if scaler is None:
        with np.errstate(over="ignore"):
            rows = astype(x, dtype)
        if not is_finite(rows):
            raise DataError(f"X holds values too large for {dtype}; use standardize=True, or scale them down")
        return rows
    limit = largest_input(dtype)
    rows = empty_beside(x, x.shape, dtype)
    for chunk in chunks(x):
        z = scaler.transform(x[chunk, :])
        rows[chunk, :] = astype(namespace(z).clip(z, -limit, limit), dtype)
    return rows


def chunks(x: Any) -> Iterator[slice]:
    """Slices of so many rows of x that what is computed of them stays small."""
    n, width = x.shape
    size = min(max(_NUMBERS // max(width, 1), 256), _MOST)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def in_chunks(x: Any, method: Callable[[Any], Any], scaler: FeatureScaler | None, dtype: str) -> Any:
    """Return what a method of a network says about samples x (N, I), dense or sparse, scaled chunk by chunk."""
    parts = []
    for chunk in chunks(x):
        rows = x[chunk, :]
        parts.append(method(scaled(rows.toarray() if hasattr(rows, "toarray") else rows, scaler, dtype)))
    return namespace(parts[0]).concat(parts)


def largest_input(dtype: str) -> float:
    """Return the largest size that a scaled feature keeps: room is left for the sums of the first layers."""
    return float(np.finfo(dtype).max / 1e6)


class SparseRows:
    """A CSR matrix as `xpnet.training.examples.RowSource`: only the rows of the batch at hand are ever dense.

    Parameters
    ----------
    matrix : scipy.sparse CSR matrix or array (N, I)
    scaler : FeatureScaler or None
    dtype : str
    """

    def __init__(self, matrix: Any, scaler: FeatureScaler | None, dtype: str):
        self.matrix, self.scaler, self.dtype = matrix, scaler, dtype
        self.shape: tuple[int, int] = matrix.shape

    def take_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the samples `rows` (B,), dense and scaled, as (B, I)."""
        return scaled(self.matrix[rows].toarray(), self.scaler, self.dtype)

    def checksum(self) -> int:
        """Return a number that tells these samples from others."""
        m = self.matrix
        return zlib.crc32(m.data.tobytes()) ^ zlib.crc32(m.indices.tobytes())


def as_examples(x: Any, scaler: FeatureScaler | None, dtype: str) -> Any:
    """Return checked samples in the form that training takes."""
    return SparseRows(x, scaler, dtype) if hasattr(x, "toarray") else scaled(x, scaler, dtype)


def hold_out(x: Any, t: Any, w: Any, fraction: float, seed: int, stratify: bool) -> Any:
    """Split (x, t, w) into a part to train on and a part to judge by, keeping the shares of the classes if possible.

    Of data on a device only the classes come to the host, where the rows are chosen.

    Raises
    ------
    DataError
        Too few samples.
    """
    n = t.shape[0]
    part = max(round(fraction * n), 1)
    if n - part < 1:
        raise DataError(
            f"early_stopping would hold out all samples: n_samples = {n}, validation_fraction={fraction}; give more "
            "samples, a smaller fraction, or X_val and y_val"
        )
    by_class = None
    if stratify:
        t_host = to_host(t)
        counts = np.bincount(t_host)
        classes = np.count_nonzero(counts)
        if counts[counts > 0].min() >= 2 and part >= classes and n - part >= classes:
            by_class = t_host
    train, held = train_test_split(np.arange(n), test_size=part, random_state=seed, stratify=by_class)
    if stratify and by_class is None and np.unique(t_host[train]).size < classes <= n - part:
        # a class so rare that all of it would be held out: its first sample is for training
        kept = np.unique(t_host, return_index=True)[1]
        rest = np.setdiff1d(np.arange(n), kept)
        train, held = train_test_split(rest, test_size=part, random_state=seed)
        train = np.concatenate([train, kept])
    if stratify and np.unique(t_host[train]).size < 2:
        raise DataError(
            f"early_stopping holds out {part} of {n} samples, which leaves one class to train on; give more samples, "
            "or X_val and y_val"
        )

    def pick(rows: np.ndarray) -> tuple[Any, Any, Any]:
        return take_rows(x, rows), take_rows(t, rows), None if w is None else take_rows(w, rows)

    return pick(train), pick(held)


def without_absent(x: Any, t: Any, w: Any) -> tuple[Any, Any, Any]:
    """Return (x, t, w) without the samples of weight zero, which count as absent."""
    if w is None:
        return x, t, w
    xp = namespace(w)
    if bool(xp.all(w > 0.0)):
        return x, t, w
    (keep,) = xp.nonzero(w > 0.0)
    return take_rows(x, keep), take_rows(t, keep), take_rows(w, keep)


def check_numbers(x: Any, name: str = "X") -> None:
    """Check numbers on a device as scikit-learn checks those of the host, in its words.

    Raises
    ------
    DataError
    """
    if is_finite(x):
        return
    xp = namespace(x)
    if bool(xp.any(xp.isnan(x))):
        raise DataError(
            f"Input {name} contains NaN. Fill missing values first, for example with SimpleImputer, or leave those "
            "rows out"
        )
    raise DataError(f"Input {name} contains infinity or a value too large for {x.dtype}.")
