"""Features brought to comparable sizes, so that no unit, constant or gross outlier ruins training.

Written in functions of the Array API, so that samples on a device are measured and scaled there; what comes to the host
is a few numbers per column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..interchange import astype, follow, in_place, is_foreign, namespace, to_host

#: Beyond so many scales from the mean a column with outliers grows like a logarithm.
LIMIT = 10.0
_REACH = 5.0  # quartile ranges beyond the quartiles within which a value is no outlier
_RARE = 3.0  # scales that the values of a mostly constant column may lie apart
_SAMPLE = 20_000  # rows that quartiles are taken from
_BLOCK = 1 << 22  # numbers of a sparse matrix that are made dense at a time
_LARGEST = float(np.finfo(np.float64).max)
_SMALLEST = float(np.finfo(np.float64).tiny)
_EPSILON = float(np.finfo(np.float64).eps)
_DENSE, _FEWEST = 1 << 20, 16  # numbers, and columns at least, of a dense one that are measured at a time


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

    def fit(self, x: Any, weights: Any = None) -> FeatureScaler:
        """Measure the columns of x (N, I), dense or sparse, each row counting as `weights` (N,) says."""
        x = in_place(x)
        if weights is not None:
            weights = follow(x, weights if is_foreign(weights) else np.asarray(weights))
        parts = [_measure(block, weights) for block in _column_blocks(x)]
        self.mean_, self.scale_, self.tails_ = (np.concatenate(p) for p in zip(*parts, strict=True))
        return self

    def transform(self, x: Any) -> Any:
        """Return z (N, I) float64 of a dense x, in its array library and on its device."""
        given, x = x, in_place(x)
        x = x if is_foreign(x) else np.asarray(x)
        with np.errstate(over="ignore"):
            z = astype(x, "float64", copy=False) - follow(x, self.mean_)
            z /= follow(z, self.scale_)
        return follow(given, self._on_tails(_shortened, z))

    @property
    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift (I,): x * scale + shift is `transform` of x where nothing is compressed."""
        return 1.0 / self.scale_, -self.mean_ / self.scale_

    def inverse_transform(self, z: Any) -> Any:
        """Return x from z, in its array library and on its device."""
        given, z = z, in_place(z, "z")
        z = self._on_tails(_lengthened, astype(z if is_foreign(z) else np.asarray(z), "float64"))
        return follow(given, z * follow(z, self.scale_) + follow(z, self.mean_))

    def _on_tails(self, change: Callable[[Any, Any], Any], z: Any) -> Any:
        """`z`, whose columns in `tails_` are changed in place."""
        columns = np.flatnonzero(self.tails_)
        if len(columns):
            xp = namespace(z)
            changed = change(xp, xp.take(z, follow(z, columns), axis=1))
            for k, column in enumerate(columns.tolist()):
                z[:, column] = changed[:, k]
        return z


def _shortened(xp: Any, tail: Any) -> Any:
    size = xp.abs(tail)
    size = xp.where(size > _LARGEST, xp.full_like(size, _LARGEST), size)
    far = size > LIMIT
    beyond = xp.where(far, size - LIMIT, xp.zeros_like(size))
    return _signed(xp, xp.where(far, LIMIT + xp.log1p(beyond), size), tail)


def _lengthened(xp: Any, tail: Any) -> Any:
    size = xp.abs(tail)
    far = size > LIMIT
    beyond = xp.where(far, size - LIMIT, xp.zeros_like(size))
    return _signed(xp, xp.where(far, LIMIT + xp.expm1(beyond), size), tail)


def _signed(xp: Any, size: Any, like: Any) -> Any:
    return xp.where(like < 0.0, -size, size)


def _column_blocks(x: Any) -> Iterator[Any]:
    sparse = hasattr(x, "tocsc")
    x = x.tocsc() if sparse else x
    n, columns = x.shape
    width = max(_BLOCK // max(n, 1), 1) if sparse else max(_DENSE // max(n, 1), _FEWEST)
    for start in range(0, columns, width):
        block = x[:, start : min(start + width, columns)]
        yield block.toarray() if sparse else block


def _measure(x: Any, weights: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    xp = namespace(x)
    x = astype(x, "float64")
    unit = xp.max(xp.abs(x), axis=0)  # so that no square over- or underflows
    unit = xp.where(unit < _SMALLEST, xp.ones_like(unit), unit)
    x /= unit
    every = max(x.shape[0] // _SAMPLE, 1)
    sample = x[::every, :]
    low, middle, high = _quartiles(sample, None if weights is None else weights[::every])
    spread, mostly_one = high - low, high == low
    few = np.flatnonzero(to_host(mostly_one))
    if len(few):
        at = follow(x, few)
        apart = xp.abs(xp.take(sample, at, axis=1) - xp.take(middle, at, axis=0))
        typical = np.array(to_host(spread))
        typical[few] = to_host(_median_of_different(apart))
        spread = follow(x, typical)
    clipped = xp.clip(x, low - _REACH * spread, high + _REACH * spread)
    mean = mean_of_rows(clipped, weights)
    scale = xp.sqrt(mean_of_rows(xp.square(clipped - mean), weights))
    reach = xp.max(xp.abs(clipped - mean), axis=0) / _RARE
    scale = xp.where(mostly_one & (reach > scale), reach, scale)
    constant = scale <= 10.0 * _EPSILON * xp.abs(mean)
    outliers = xp.any(x != clipped, axis=0)
    scale = xp.where(constant, 1.0 / unit, scale)
    tails = outliers & (xp.max(xp.abs(x - mean), axis=0) > LIMIT * scale)
    return to_host(mean * unit), to_host(scale * unit), to_host(tails)


def mean_of_rows(x: Any, weights: Any) -> Any:
    """Return the mean of each column (I,) of x (N, I), each row counting as `weights` (N,) says, if any."""
    xp = namespace(x)
    if weights is None:
        return xp.mean(x, axis=0)
    return xp.sum(x * weights[:, None], axis=0) / xp.sum(weights)


def _quartiles(x: Any, weights: Any) -> tuple[Any, Any, Any]:
    """Quartiles per column; a row of weight 2 counts exactly as two rows."""
    xp, n = namespace(x), x.shape[0]
    if weights is None:
        at = [-(-n * k // 4) - 1 for k in (1, 2, 3)]
        # NumPy need not sort all of it
        ordered = np.partition(x, at, axis=0) if xp is np else xp.sort(x, axis=0)
        low, middle, high = (ordered[k, :] for k in at)
        return low, middle, high
    order = xp.argsort(x, axis=0)
    ordered = _picked(x, order)
    share = _running_sum(xp.reshape(xp.take(weights, xp.reshape(order, (-1,)), axis=0), order.shape))
    share = share / share[-1:, :]
    low, middle, high = (_first(ordered, share >= q) for q in (0.25, 0.5, 0.75))
    return low, middle, high


def _median_of_different(x: Any) -> Any:
    """The median of the different values above zero in each column of x >= 0; zero where there are none."""
    xp = namespace(x)
    x = xp.sort(x, axis=0)
    new = xp.concat([x[:1, :] > 0.0, x[1:, :] > x[:-1, :]], axis=0)
    rank = _running_sum(astype(new, "int64"))  # how many different ones up to here
    count = rank[-1, :]
    return (_first(x, rank > (count - 1) // 2) + _first(x, rank > count // 2)) / 2.0


def _first(x: Any, found: Any) -> Any:
    """The entry of each column of x in the first row where `found`, which stays true below; else in the last row."""
    xp = namespace(x)
    row = xp.sum(astype(~found, "int64"), axis=0)
    return _picked(x, xp.where(row < x.shape[0], row, row - 1)[None, :])[0, :]


def _picked(x: Any, rows: Any) -> Any:
    """x[rows[k, j], j] for every k and j."""
    xp, (n, width) = namespace(x), rows.shape
    at = rows * width + follow(rows, np.arange(width))[None, :]
    return xp.reshape(xp.take(xp.reshape(x, (-1,)), xp.reshape(at, (-1,)), axis=0), (n, width))


def _running_sum(x: Any) -> Any:
    xp = namespace(x)
    # NumPy before 2.1 has it by another name only
    return xp.cumulative_sum(x, axis=0) if hasattr(xp, "cumulative_sum") else xp.cumsum(x, axis=0)
