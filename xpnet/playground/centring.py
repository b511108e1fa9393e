"""Drawings become samples: cut out, scaled and centred as the digits of a data set were.

A network knows digits only as its data set shows them. MNIST's fill a square of 20 x 20 pixels and have their centre
of mass in the middle of 28 x 28 (LeCun, Cortes and Burges); those of the embedded set, 8 x 8, are as high as the
picture (Alpaydin and Kaynak 1998).
"""

from __future__ import annotations

import numpy as np

from ..errors import DataError

_INK = 0.03  # darkness from which a pixel counts as drawn


def centred(drawing: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bring a drawing to the place and size of a data set's digits.

    Parameters
    ----------
    drawing : ndarray (H, W)
        Ink from 0 (none) to 1.
    shape : (height, width)
        Of the data set's pictures.

    Returns
    -------
    ndarray (height, width) float64
        Ink from 0 to 1; the mean over the area of each pixel.

    Raises
    ------
    DataError
        Nothing is drawn.

    Examples
    --------
    >>> drawing = np.zeros((100, 100))
    >>> drawing[10:50, 70:74] = 1.0
    >>> rows = centred(drawing, (28, 28)).sum(axis=1)
    >>> np.flatnonzero(rows > 0.01)[[0, -1]]
    array([ 4, 23])
    """
    ink = drawing > _INK
    if not ink.any():
        raise DataError("nothing is drawn yet")
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    cut = drawing[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = shape
    full = shape == (8, 8)
    room_high, room_wide = (height, width) if full else (height * 20 / 28, width * 20 / 28)
    scale = min(room_high / cut.shape[0], room_wide / cut.shape[1])
    high, wide = cut.shape[0] * scale, cut.shape[1] * scale
    if full:
        top, left = (height - high) / 2, (width - wide) / 2
    else:
        weight_down, weight_across = cut.sum(axis=1), cut.sum(axis=0)
        middle_down = (weight_down @ (np.arange(len(weight_down)) + 0.5)) / weight_down.sum() * scale
        middle_across = (weight_across @ (np.arange(len(weight_across)) + 0.5)) / weight_across.sum() * scale
        # whole pixels, as the data set's own digits were moved (measured: their centres of mass lie between 14 and
        # 15 of 28, evenly); and never over the edge
        top = float(np.clip(round(height / 2 + 0.5 - middle_down), 0, max(height - high, 0)))
        left = float(np.clip(round(width / 2 + 0.5 - middle_across), 0, max(width - wide, 0)))
    down, across = _areas(cut.shape[0], high, top, height), _areas(cut.shape[1], wide, left, width)
    return np.asarray(down @ cut @ across.T)


def _areas(n: int, length: float, start: float, size: int) -> np.ndarray:
    """Return the share (size, n) that each of n equal pieces of [start, start + length] has in each unit cell."""
    edges = start + length * np.arange(n + 1) / n
    cells = np.arange(size)[:, None]
    overlap = np.minimum(edges[1:], cells + 1) - np.maximum(edges[:-1], cells)
    return np.maximum(overlap, 0.0)
