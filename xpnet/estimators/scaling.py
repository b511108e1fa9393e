"""Features brought to comparable sizes, so that no unit, constant or gross outlier ruins training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..interchange import follow, to_host

#: Beyond so many scales from the mean a column with outliers grows like a logarithm.
LIMIT = 10.0
_REACH = 5.0  # quartile ranges beyond the quartiles within which a value is no outlier
_RARE = 3.0  # scales that the values of a mostly constant column may lie apart
_SAMPLE = 20_000  # rows that quartiles are taken from
_BLOCK = 1 << 22  # numbers of a sparse matrix that are made dense at a time


class FeatureScaler:
    """Brings each feature to mean 0 and scale 1: ``z = (x - mean_) / scale_``.

    Mean and standard deviation are those of the values clipped to five quartile ranges beyond the quartiles, so that
    outliers do not set the scale. A column that is mostly one value is scaled so that its others lie within 3 scales;
    a constant column only moves to 0. In columns where a value of `fit` lay beyond the clipping *and* beyond 10 scales
    (`tails_`), z beyond 10 becomes ``10 + log(1 + |z| - 10)``, with its sign. Every step can be undone.

    Attributes
    ----------
    mean_, scale_ : numpy.ndarray (I,)
    tails_ : numpy.ndarray (I,) of bool
        Columns whose extreme values grow like a logarithm.

    Examples
    --------
    >>> scaler = FeatureScaler().fit(np.array([[0.0, 7.0], [2e-6, 7.0]]))
    >>> z = scaler.transform(np.array([[2e-6, 7.0]])); z
    array([[1., 0.]])
    >>> scaler.inverse_transform(z)
    array([[2.e-06, 7.e+00]])
    """

    mean_: np.ndarray
    scale_: np.ndarray
    tails_: np.ndarray

    def fit(self, x: Any, weights: np.ndarray | None = None) -> FeatureScaler:
        """Measure the columns of x (N, I), dense or sparse, each row counting as `weights` (N,) says."""
        x, weights = to_host(x), to_host(weights, "weights")
        parts = [_measure(block, weights) for block in _column_blocks(x)]
        self.mean_, self.scale_, self.tails_ = (np.concatenate(p) for p in zip(*parts, strict=True))
        return self

    def transform(self, x: Any) -> Any:
        """Return z (N, I) float64 of a dense x, in its array library and on its device."""
        with np.errstate(over="ignore"):
            z = (np.asarray(to_host(x), dtype=np.float64) - self.mean_) / self.scale_
        if self.tails_.any():
            tail = z[:, self.tails_]
            size = np.minimum(np.abs(tail), np.finfo(np.float64).max)
            far = size > LIMIT
            size[far] = LIMIT + np.log1p(size[far] - LIMIT)
            z[:, self.tails_] = np.copysign(size, tail)
        return follow(x, z)

    def inverse_transform(self, z: Any) -> Any:
        """Return x from z, in its array library and on its device."""
        given, z = z, np.array(to_host(z, "z"), dtype=np.float64)
        tail = z[:, self.tails_]
        size = np.abs(tail)
        far = size > LIMIT
        size[far] = LIMIT + np.expm1(size[far] - LIMIT)
        z[:, self.tails_] = np.copysign(size, tail)
        return follow(given, z * self.scale_ + self.mean_)


def _column_blocks(x: Any) -> Iterator[np.ndarray]:
    if isinstance(x, np.ndarray):
        yield x
        return
    x = x.tocsc()
    width = max(_BLOCK // max(x.shape[0], 1), 1)
    for start in range(0, x.shape[1], width):
        yield x[:, start : start + width].toarray()


def _measure(x: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = x.astype(np.float64)
    unit = np.abs(x).max(axis=0)  # so that no square over- or underflows
    unit[unit < np.finfo(np.float64).tiny] = 1.0
    x /= unit
    every = max(len(x) // _SAMPLE, 1)
    sample = x[::every]
    low, middle, high = _quantiles(sample, None if weights is None else weights[::every])
    spread, mostly_one = high - low, high == low
    for j in np.flatnonzero(mostly_one):
        apart = np.abs(sample[:, j] - middle[j])
        apart = apart[apart > 0.0]
        spread[j] = np.median(np.unique(apart)) if len(apart) else 0.0
    clipped = np.clip(x, low - _REACH * spread, high + _REACH * spread)
    mean = np.average(clipped, axis=0, weights=weights)
    scale = np.sqrt(np.average(np.square(clipped - mean), axis=0, weights=weights))
    reach = np.abs(clipped - mean).max(axis=0)
    scale = np.where(mostly_one, np.maximum(scale, reach / _RARE), scale)
    constant = scale <= 10.0 * np.finfo(np.float64).eps * np.abs(mean)
    outliers = (x != clipped).any(axis=0)
    scale = np.where(constant, 1.0 / unit, scale)
    tails = outliers & (np.abs(x - mean).max(axis=0) > LIMIT * scale)
    return mean * unit, scale * unit, tails


def _quantiles(x: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Quartiles per column; a row of weight 2 counts exactly as two rows."""
    return np.quantile(x, [0.25, 0.5, 0.75], axis=0, method="inverted_cdf", weights=weights)
