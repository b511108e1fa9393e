"""Samples on their way from the user to the network: held-out parts, and sparse rows made dense batch by batch."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from ..errors import DataError
from .scaling import FeatureScaler

CHUNK = 4096  # rows that are scaled and predicted at a time


def scaled(x: np.ndarray, scaler: FeatureScaler | None, dtype: str) -> np.ndarray:
    """Return x (B, I) as the network takes it.

    Raises
    ------
    DataError
        Values too large for `dtype`.
    """
    if scaler is None:
        with np.errstate(over="ignore"):
            rows = np.asarray(x).astype(dtype)
        if not np.isfinite(rows).all():
            raise DataError(f"X holds values too large for {dtype}; use standardize=True, or scale them down")
        return rows
    rows = np.empty(x.shape, dtype)
    limit = largest_input(dtype)
    for start in range(0, len(x), CHUNK):
        chunk = slice(start, start + CHUNK)
        rows[chunk] = np.clip(scaler.transform(x[chunk]), -limit, limit)
    return rows


def largest_input(dtype: str) -> float:
    """Return the largest size that a scaled feature keeps: room is left for the sums of the first layers."""
    return float(np.finfo(dtype).max / 1e6)


class SparseRows:
    """A CSR matrix as `xpnet.examples.RowSource`: only the rows of the batch at hand are ever dense.

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


def as_examples(x: Any, scaler: FeatureScaler | None, dtype: str) -> np.ndarray | SparseRows:
    """Return checked samples in the form that training takes."""
    return scaled(x, scaler, dtype) if isinstance(x, np.ndarray) else SparseRows(x, scaler, dtype)


def hold_out(x: Any, t: np.ndarray, w: np.ndarray | None, fraction: float, seed: int, stratify: bool) -> Any:
    """Split (x, t, w) into a part to train on and a part to judge by, keeping the shares of the classes if possible.

    Raises
    ------
    DataError
        Too few samples.
    """
    n = len(t)
    part = max(round(fraction * n), 1)
    if n - part < 1:
        raise DataError(f"early_stopping needs at least 2 samples to hold some out, found n_samples = {n}")
    by_class = None
    if stratify:
        counts = np.bincount(t)
        classes = np.count_nonzero(counts)
        if counts[counts > 0].min() >= 2 and part >= classes and n - part >= classes:
            by_class = t
    train, held = train_test_split(np.arange(n), test_size=part, random_state=seed, stratify=by_class)

    def pick(rows: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray | None]:
        return x[rows], t[rows], None if w is None else w[rows]

    return pick(train), pick(held)
