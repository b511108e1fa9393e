"""Sums of rows and of columns: which kernel, and in how many pieces, so that a few long ones occupy the device, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import Array
from . import kernels

if TYPE_CHECKING:
    from .backend import CudaBackend

#: A row longer than this is cut into pieces of so many numbers or more, at most so many pieces,
ROW_PIECE, MOST_PIECES = 16 * 1024, kernels.LONG_ROW
#: and a column of more than this into pieces of so many;
COLUMN_PIECE, COLUMN_PIECES = 1024, 256
#: neither where there are blocks enough without.
ENOUGH_BLOCKS = 512
#: Members or pieces that one launch takes along the second axis of its grid.
MOST_BESIDE = 65535


def rows(be: CudaBackend, x: Array, out: Array) -> None:
    """Sum `x` along its last axis into `out`, which is C-contiguous."""
    dtype, width = str(x.dtype), x.shape[-1]
    if x.ndim != 2 or (width > 1 and x.strides[-1] != x.dtype.itemsize):
        x = be.dense(x)
    n = out.size
    stride = np.int64(x.strides[-2] // x.dtype.itemsize if x.ndim == 2 else width)
    if width > kernels.LONG_ROW and n < 2**31:
        _long_rows(be, x, n, stride, out)
        return
    name, (grid, block) = "sum_rows", kernels.warp_for_each(n)
    if width <= kernels.NARROW_ROW:
        name, grid, block = "sum_narrow_rows", (-(-n // 256), 1), (256, 1)
    numbers = (np.int64(n), np.int32(width), stride)
    be.launch(kernels.source(name, dtype), grid, block, (x, out, *numbers), (out,))


def _long_rows(be: CudaBackend, x: Array, n: int, stride: np.int64, out: Array) -> None:
    width = x.shape[-1]
    each = width
    if n < ENOUGH_BLOCKS:
        each = max(ROW_PIECE, -(-width // MOST_PIECES))
    pieces = -(-width // each)
    of_piece = out
    if pieces > 1:
        of_piece = be.memory("pieces of rows", (n, pieces), str(x.dtype), be.runtime.address(out))
    numbers = (np.int64(width), stride, np.int64(each))
    kernel = kernels.source("sum_long_rows", str(x.dtype))
    be.launch(kernel, (n, pieces), (1024, 1), (x, of_piece, *numbers), (of_piece,))
    if pieces > 1:
        rows(be, of_piece, out)


def columns(be: CudaBackend, x: Array, out: Array) -> None:
    """Sum `x` along its axis -2 into `out`, which is C-contiguous."""
    if x.ndim > 3 or (x.shape[-1] > 1 and x.strides[-1] != x.dtype.itemsize):
        x = be.dense(x)
    height, width = x.shape[-2:]
    lead = out.size // max(width, 1)
    size = x.dtype.itemsize
    step = x.strides[-3] // size if x.ndim == 3 else height * width
    each, pieces = column_pieces(height, lead * -(-width // 32))
    of_piece = out
    if pieces > 1:
        shape = (lead, pieces, width)
        of_piece = be.memory("pieces of columns", shape, str(x.dtype), be.runtime.address(out))
    numbers: tuple[Any, ...] = (height, width, each, pieces)
    numbers = (*map(np.int32, numbers), np.int64(step), np.int64(x.strides[-2] // size))
    kernel = kernels.source("sum_columns", str(x.dtype))
    most = MOST_BESIDE // pieces
    for start in range(0, lead, most):
        part = x if lead <= most else x.reshape(lead, height, width)[start : start + most]
        to = of_piece if lead <= most else of_piece.reshape(lead, pieces, width)[start : start + most]
        grid = (-(-width // 32), min(most, lead - start) * pieces)
        be.launch(kernel, grid, (32, kernels.COLUMN_ROWS), (part, to, *numbers), (to,))
    if pieces > 1:
        columns(be, of_piece, out)


def column_pieces(height: int, blocks: int) -> tuple[int, int]:
    """Rows of a piece, and pieces, of columns that take so many blocks as a whole.

    >>> column_pieces(128, 1), column_pieces(8192, 1), column_pieces(8192, 4096)
    ((128, 1), (256, 32), (8192, 1))
    """
    if height <= COLUMN_PIECE or blocks >= ENOUGH_BLOCKS:
        return height, 1
    each = max(COLUMN_PIECES, -(-height // MOST_PIECES))
    return each, -(-height // each)


def dots(be: CudaBackend, a: Array, b: Array, out: Array) -> None:
    """Products of rows and columns, (..., 1, K) by (..., K, 1), as sums: a matrix library has few blocks for them."""
    along = b.swapaxes(-1, -2)
    shape = np.broadcast_shapes(tuple(a.shape), tuple(along.shape))
    each = be.memory("products", shape, str(out.dtype), be.runtime.address(out))
    be.map(_times, a, along, out=each)
    be.sum(each, axis=-1, out=out.reshape(out.shape[:-1]))


def _times(ns: Any, a: Array, b: Array) -> Array:
    return a * b
