"""A matrix product of the contract as cublasLt wants it: column-major matrices, leading dimensions, strided batches.

Pure arithmetic on shapes and strides; nothing here knows CUDA. A row-major (m, n) matrix is the column-major (n, m)
transposed, so out = op(a) op(b) is computed as out^T = op(b)^T op(a)^T: cublasLt's first operand is `b`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from .. import Array


@dataclass(frozen=True)
class Matrix:
    """A stored column-major matrix, or a stack of them.

    Attributes
    ----------
    rows, columns : int
        As stored, before any transposition.
    leading : int
        Elements from one column to the next.
    stride : int
        Elements from one matrix of the stack to the next; 0 where all products use the same one.
    transposed : bool
        Whether the product takes its transpose.
    """

    rows: int
    columns: int
    leading: int
    stride: int = 0
    transposed: bool = False


@dataclass(frozen=True)
class Product:
    """d = op(first) op(second), column-major; `first` is the contract's b, `second` its a.

    Attributes
    ----------
    m, n, k : int
        Rows and columns of d, and the length that is summed over.
    batch : int
        How many products.
    dtype : str
        Of the operands and the result: ``"float32"`` or ``"float64"``.
    bias : int or None
        Where a vector of m numbers is added to every column of d: elements from one vector of the batch to the next.
    relu : bool
        Whether what comes of that is rectified.
    """

    m: int
    n: int
    k: int
    batch: int
    dtype: str
    first: Matrix
    second: Matrix
    result: Matrix
    bias: int | None = None
    relu: bool = False


@dataclass(frozen=True)
class _Stack:
    """Row-major matrices (height, width), `step` apart along the batch and `row` from row to row."""

    height: int
    width: int
    row: int
    step: int
    turned: bool  # the matrix that is meant is the transpose of the stored one


def describe(a: Array, b: Array, ta: bool, tb: bool, out: Array) -> Product | None:
    """Describe out = op(a) @ op(b); None where an array lies in no way that one call can use.

    Where members of a population share an operand and the other members lie behind one another, the whole
    population is one plain product; else each member is one of a strided batch.

    Examples
    --------
    >>> import numpy as np
    >>> x, w, y = np.empty((128, 784)), np.empty((500, 784)), np.empty((128, 500))
    >>> p = describe(x, w, False, True, y)
    >>> p.m, p.n, p.k, p.first.transposed, p.second.transposed
    (500, 128, 784, True, False)
    """
    lead = tuple(out.shape[:-2])
    stacks = [_stack(x, turned, lead) for x, turned in ((a, ta), (b, tb), (out, False))]
    if any(s is None for s in stacks) or stacks[2].turned:  # type: ignore[union-attr]
        return None
    sa, sb, so = stacks
    batch = prod(lead)
    assert sa is not None and sb is not None and so is not None
    if batch > 1:
        merged = _merge(sa, sb, so, batch)
        if merged is not None:
            (sa, sb, so), batch = merged, 1
    m, n = so.width, so.height
    k = sa.height if sa.turned else sa.width
    # Row-major as stored is column-major transposed: a stored (height, width) has `width` rows there.
    first = Matrix(sb.width, sb.height, sb.row, sb.step if batch > 1 else 0, sb.turned)
    second = Matrix(sa.width, sa.height, sa.row, sa.step if batch > 1 else 0, sa.turned)
    result = Matrix(so.width, so.height, so.row, so.step if batch > 1 else 0)
    return Product(m, n, k, batch, str(out.dtype), first, second, result)


def with_bias(product: Product, bias: Array, out: Array, relu: bool) -> Product | None:
    """`product` with (..., 1, N) added to the rows of `out`; None where no one call does that.

    Examples
    --------
    >>> import numpy as np
    >>> x, w, y = np.empty((7, 16, 5)), np.empty((7, 4, 5)), np.empty((7, 16, 4))
    >>> p = describe(x, w, False, True, y)
    >>> with_bias(p, np.empty((7, 1, 4)), y, True).bias
    4
    """
    lead, width = tuple(out.shape[:-2]), out.shape[-1]
    step = _batch_step(bias, lead)
    lies = bias.dtype == out.dtype and bias.shape[-1] == width and bias.shape[-2] == 1
    if step is None or not lies or (width > 1 and bias.strides[-1] != bias.dtype.itemsize):
        return None
    if product.batch == 1:
        # one product for all members: below one another they have one vector, side by side one after another
        if prod(lead) > 1 and step != (0 if product.m == width else width):
            return None
        step = 0
    return replace(product, bias=step, relu=relu)


def _merge(sa: _Stack, sb: _Stack, so: _Stack, batch: int) -> tuple[_Stack, _Stack, _Stack] | None:
    """The stacks of one plain product instead of `batch`, where the memory lies so that there is one."""
    # every member's rows times the same b: all rows of a below one another
    if sb.step == 0 and not sa.turned and sa.step == sa.height * sa.row and so.step == so.height * so.row:
        return (_tall(sa, batch), sb, _tall(so, batch))
    # the same a times every member's columns: b^T stored with the members below one another, results side by side
    if sa.step == 0 and sb.turned and sb.step == sb.height * sb.row and so.step == so.width:
        return (sa, _tall(sb, batch), _Stack(so.height, batch * so.width, so.row, 0, False))
    # a^T of every member side by side, the same b, results below one another: the gradient of shared inputs
    beside = sa.turned and sa.step == sa.width and sb.step == 0
    if beside and so.step == so.height * so.row:
        return (_Stack(sa.height, batch * sa.width, sa.row, 0, True), sb, _tall(so, batch))
    return None


def _tall(s: _Stack, batch: int) -> _Stack:
    return _Stack(batch * s.height, s.width, s.row, 0, s.turned)


def _stack(x: Any, turned: bool, lead: Sequence[int]) -> _Stack | None:
    """How the matrices of `x` lie; None where rows are not runs of neighbours, or the batch has no one step."""
    size = x.dtype.itemsize
    height, width = x.shape[-2:]
    down, along = (s // size for s in x.strides[-2:])
    if width > 1 and along != 1:  # a transposed view: its memory holds the transpose
        height, width, down, along, turned = width, height, along, down, not turned
    if width > 1 and along != 1:
        return None
    row = down if height > 1 else max(width, 1)
    if row < width:
        return None
    step = _batch_step(x, lead)
    return None if step is None else _Stack(height, width, row, step, turned)


def _batch_step(x: Any, lead: Sequence[int]) -> int | None:
    """Elements from one matrix of the batch to the next, 0 where there is only one."""
    own = (1,) * (len(lead) - (x.ndim - 2)) + tuple(x.shape[:-2])
    strides = (0,) * (len(lead) - (x.ndim - 2)) + tuple(s // x.dtype.itemsize for s in x.strides[:-2])
    step, reach = 0, 0
    for n, have, stride in zip(reversed(lead), reversed(own), reversed(strides), strict=True):
        if n == 1:
            continue
        stride = stride if have > 1 else 0
        if reach == 0:
            step, reach = stride, n
        elif stride != step * reach:
            return None
        else:
            reach *= n
    return step
