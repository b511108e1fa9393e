"""Operations that are one launch where they meet in a captured step: their kernels, and how they are asked for.

`fusion` says where they meet. Every function here takes the back end first, as an operation of it does, and does what
a row of operations does, which its comment names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import Array
from ..program import Program
from . import formulas, sums
from .formulas import C_TYPES, strides_along
from .kernels import COLUMN_ROWS, COLUMN_SUM, PRELUDE, WARP, WARPS, named, sum_columns_updated
from .products import describe
from .updates import Update

if TYPE_CHECKING:
    from .backend import CudaBackend

#: Bytes of logits that a thread of `dense_head` keeps in registers, and of weights in shared memory.
LOGITS = 128
SHARED_WEIGHTS = 48 * 1024


# ReferenceBackend.map, then ReferenceBackend.sum of its result along axis -2: the gradient of an activation with that
# of the bias. A block has 32 columns of one piece of the rows, and reads several rows before it computes: what it
# writes may be what it reads.
MAP_COLUMNS = """
extern "C" __global__ void __launch_bounds__(512, 2) map_columns(
        POINTERS, T* sums, const int height, const int width, const int each, const int pieces STEPS) {
    const int column = blockIdx.x * 32 + threadIdx.x;
    const long long model = blockIdx.y / pieces;
    const int first = int(blockIdx.y % pieces) * each, last = first + each < height ? first + each : height;
    T total = 0;
    if (column < width)
#pragma unroll 1
        for (int start = first + threadIdx.y; start < last; start += 16 * AT_ONCE) {
            READS
#pragma unroll
            for (int u = 0; u < AT_ONCE; ++u) {
                const int i = start + 16 * u;
                if (i >= last) break;
                RESULTS
                formula(GIVEN);
                WRITES
                total += y0;
            }
        }
    total = column_sum(total);
    if (threadIdx.y == 0 && column < width) sums[blockIdx.y * (long long)width + column] = total;
}
"""


# Dense.forward, ReferenceBackend.softmax_head, Dense.backward as far as dx, and the derivative of the activation before
# (GATE): a warp for each row, whose lanes share the inputs; every lane has all CLASSES logits.
DENSE_HEAD = """
extern "C" __global__ void __launch_bounds__(256, 2) dense_head(
        const T* x, const T* weight, const T* bias, const T* t, const T* w, const long long* labels, const T* saved,
        T* z, T* loss, T* right, T* out, T* dx, const int rows, const int width, const long long weight_outer,
        const long long bias_outer, const long long x_outer, const long long x_step, const long long saved_outer,
        const long long saved_step, const long long z_outer, const long long z_step, const long long dx_outer,
        const long long dx_step, const int own_targets, const int own_weights, const int own_labels) {
    __shared__ T of_weight[SHARED];
    const int lane = threadIdx.x, row = blockIdx.x * 8 + threadIdx.y;
    const long long model = blockIdx.y, place = model * rows + row;
    weight += model * weight_outer;
#pragma unroll 8
    for (int i = threadIdx.y * 32 + lane; i < CLASSES * width; i += 256) of_weight[i] = weight[i];
    __syncthreads();
    if (row >= rows) return;
    T y[CLASSES];
#pragma unroll
    for (int c = 0; c < CLASSES; ++c) y[c] = 0;
    x += model * x_outer + row * x_step;
#pragma unroll 1
    for (int start = lane; start < width; start += 256) {  // 8 numbers at a time, lest each wait for the one before
        T value[8];
#pragma unroll
        for (int u = 0; u < 8; ++u) value[u] = start + 32 * u < width ? x[start + 32 * u] : T(0);
#pragma unroll
        for (int u = 0; u < 8; ++u) {
            const int j = start + 32 * u;
            if (j >= width) break;
#pragma unroll
            for (int c = 0; c < CLASSES; ++c) y[c] += value[u] * of_weight[c * width + j];
        }
    }
    z += model * z_outer + row * z_step;
    bias += model * bias_outer;
    t += (own_targets ? place : row) * CLASSES;
    T top = 0, sum = 0, share = 0, cost = 0;
    int best = 0;
#pragma unroll
    for (int c = 0; c < CLASSES; ++c) {
        y[c] = warp_sum(y[c]) + bias[c];
        if (lane == 0) z[c] = y[c];
        if (c == 0 || y[c] > top || (y[c] != y[c] && top == top)) { top = y[c]; best = c; }
    }
#pragma unroll
    for (int c = 0; c < CLASSES; ++c) {
        const T shifted = y[c] - top, target = t[c];
        y[c] = EXP(shifted);
        sum += y[c];
        share += target;
        cost -= target != T(0) ? target * shifted : T(0);
    }
    if (lane == 0) {
        loss[place] = cost + share * LOG(sum);
        right[place] = best == labels[own_labels ? place : row] ? T(1) : T(0);
    }
    const T factor = share / sum, weight_of_row = w[own_weights ? place : row];
    out += place * CLASSES;
#pragma unroll
    for (int c = 0; c < CLASSES; ++c) {
        y[c] = weight_of_row * (y[c] * factor - t[c]);
        if (lane == 0) out[c] = y[c];
    }
    saved += model * saved_outer + row * saved_step;
    dx += model * dx_outer + row * dx_step;
#pragma unroll 1
    for (int start = lane; start < width; start += 256) {
        T kept[8];
#pragma unroll
        for (int u = 0; u < 8; ++u) kept[u] = start + 32 * u < width ? saved[start + 32 * u] : T(0);
#pragma unroll
        for (int u = 0; u < 8; ++u) {
            const int j = start + 32 * u;
            if (j >= width) break;
            T value = 0;
#pragma unroll
            for (int c = 0; c < CLASSES; ++c) value += y[c] * of_weight[c * width + j];
            GATE
        }
    }
}
"""

# What ReferenceBackend.softmax_head counts, of the rows that `dense_head` has done: a block for each model.
HEAD_TOTALS = """
extern "C" __global__ void __launch_bounds__(256, 2) head_totals(
        const T* loss, const T* right, T* batch_loss, double* total, double* hits, const int rows) {
    __shared__ T loss_of[8], right_of[8];
    const long long first = blockIdx.x * (long long)rows;
    T losses = 0, count = 0;
    for (int i = threadIdx.x; i < rows; i += 256) {
        losses += loss[first + i];
        count += right[first + i];
    }
    losses = warp_sum(losses);
    count = warp_sum(count);
    if (threadIdx.x % 32 == 0) {
        loss_of[threadIdx.x / 32] = losses;
        right_of[threadIdx.x / 32] = count;
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int k = 1; k < 8; ++k) {
        losses += loss_of[k];
        count += right_of[k];
    }
    batch_loss[blockIdx.x] = losses;
    total[blockIdx.x] += losses;
    hits[blockIdx.x] += count;
}
"""


def map_columns_kernel(
    program: Program, args: Sequence[str], outs: Sequence[str], moving: Sequence[bool]
) -> tuple[str, str]:
    """Return the name and the source of a formula whose first result is summed over the rows, too.

    `args` and `outs` are the types of its arguments and results, and `moving` says which arguments change from column
    to column.
    """
    names = [f"a{k}" for k in range(len(args))]
    results = [f"o{k}" for k in range(len(outs))]
    pointers = [f"const {C_TYPES[t]}* {n}" for t, n in zip(args, names, strict=True)]
    pointers += [f"{C_TYPES[t]}* {n}" for t, n in zip(outs, results, strict=True)]
    steps = [f", const long long {n}_outer, const long long {n}_step" for n in (*names, *results)]
    at_once = 4 if outs[0] == "float32" else 2  # more would not stay in registers
    reads = []
    for k, (t, name, moves) in enumerate(zip(args, names, moving, strict=True)):
        where = f"model * {name}_outer + i * {name}_step{' + column' * moves}"
        reads += [
            f"{C_TYPES[t]} x{k}[{at_once}];", "#pragma unroll",
            f"for (int u = 0; u < {at_once}; ++u) {{ const int i = start + 16 * u; "
            f"if (i < last) x{k}[u] = {name}[{where}]; }}",
        ]  # fmt: skip
    writes = [f"{n}[model * {n}_outer + i * {n}_step + column] = y{k};" for k, n in enumerate(results)]
    given = [f"x{k}[u]" for k in range(len(args))] + [f"y{k}" for k in range(len(outs))]
    formula = formulas.formula(program, args, outs, "formula")
    pieces = {
        "POINTERS": ", ".join(pointers), "STEPS": "".join(steps), "READS": "\n".join(reads),
        "AT_ONCE": str(at_once), "GIVEN": ", ".join(given), "WRITES": " ".join(writes),
        "RESULTS": " ".join(f"{C_TYPES[t]} y{k};" for k, t in enumerate(outs)),
    }  # fmt: skip
    text = MAP_COLUMNS
    for name, piece in pieces.items():
        text = text.replace(name, piece)
    text = formula + COLUMN_SUM + text
    name = f"map_columns_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return named("map_columns", name, text, {"T": C_TYPES[outs[0]]}, outs[0])


def dense_head_kernel(dtype: str, classes: int, weights: int, gate: Program | None) -> tuple[str, str]:
    """Return the name and the source of the head with a dense layer of so many classes and weights.

    `gate`, where there is one, makes dx of the gradient that comes from the layer and of what was saved.
    """
    shared = min(-(-weights // 1024) * 1024, SHARED_WEIGHTS // (4 if dtype == "float32" else 8))
    text = PRELUDE + DENSE_HEAD.replace("CLASSES", str(classes)).replace("SHARED", str(shared))
    if gate is None:
        text = text.replace("GATE", "dx[j] = value;")
        tail = "plain"
    else:
        text = text.replace("GATE", "gate(value, kept[u], dx[j]);")
        formula = formulas.formula(gate, [dtype] * 2, [dtype], "gate")
        text, tail = formula + text, hashlib.sha256(formula.encode()).hexdigest()[:12]
    name = f"dense_head_{classes}_{shared}_{dtype}_{tail}"
    return named("dense_head", name, text, {"T": C_TYPES[dtype]}, dtype)


def head_totals_kernel(dtype: str) -> tuple[str, str]:
    """Return the name and the source of the kernel that adds up what `dense_head` has done."""
    return named("head_totals", f"head_totals_{dtype}", PRELUDE + HEAD_TOTALS, {"T": C_TYPES[dtype]}, dtype)


def affine(
    be: CudaBackend, x: Array, weight: Array, *, bias: Array, formula: Callable[..., Any], relu: bool, out: Array,
    rounded: bool = False,
) -> None:  # fmt: skip
    """out = formula(x W^T, bias): the sum, or its rectified where `relu` says so.

    With `rounded` the formula has a second result, as for `map_rounded`. It is used where a kernel adds the bias; a
    product of the library writes one result only, and the next product has that rounded.
    """
    if be.multiply(x, weight, False, True, out, bias, relu):
        return
    be.matmul(x, weight, tb=True, out=out)
    if rounded:
        map_rounded(be, formula, out, bias, out=out)
    else:
        be.map(formula, out, bias, out=out)


def map_columns(
    be: CudaBackend,
    formula: Callable[..., Any],
    *args: Array,
    out: tuple[Array, Array],
    rounded: bool = False,
) -> None:
    """``out[0] = formula(*args)``, as `map` does it, and ``out[1]``, the sums of that along axis -2.

    With `rounded` the formula has a second result, which is kept as the first in bfloat16.
    """
    dz, totals = out
    results = [dz, be.bfloat16.empty(dz)] if rounded else [dz]
    height, width = dz.shape[-2:]
    models = 1 if dz.ndim == 2 else len(dz)
    each, pieces = sums.column_pieces(height, models * -(-width // 32))
    strides = [strides_along(a, tuple(dz.shape)) for a in (*args, *results)]
    program = be.program(formula, len(args), len(results))
    types, of_results = ([str(a.dtype) for a in arrays] for arrays in (args, results))
    kernel = map_columns_kernel(program, types, of_results, [s[-1] != 0 for s in strides[: len(args)]])
    of_piece = totals
    if pieces > 1:
        of_piece = be.memory("pieces", (models, pieces, width), str(dz.dtype), be.runtime.address(totals))
    steps = [np.int64(n) for s in strides for n in ((0, *s[:-1]) if len(s) == 2 else s[:-1])]
    numbers = (np.int32(height), np.int32(width), np.int32(each), np.int32(pieces), *steps)
    grid, block = (-(-width // 32), models * pieces), (32, COLUMN_ROWS)
    be.launch(kernel, grid, block, (*args, *results, of_piece, *numbers), (dz, of_piece))
    if rounded:
        be.bfloat16.keep(dz, results[1])
    if pieces > 1:
        be.sum(of_piece, axis=-2, out=totals.reshape(models, width))


def map_rounded(be: CudaBackend, formula: Callable[..., Any], *args: Array, out: Array) -> None:
    """``out = formula(*args)[0]``, and the second result, the same again, kept as that in bfloat16."""
    copy = be.bfloat16.empty(out)
    be.map(formula, *args, out=(out, copy))
    be.bfloat16.keep(out, copy)


def dense_head(
    be: CudaBackend, x: Array, weight: Array, t: Array, w: Array, labels: Array, *, bias: Array, saved: Array,
    formula: Callable[..., Any] | None, loss: Array, out: tuple[Array, Array, Array], batch_loss: Array,
    total: Array, hits: Array,
) -> None:  # fmt: skip
    """A dense layer, `softmax_head` on its output, and the gradient of its input.

    ``out`` is (dz, z, dx): dx = formula(dz W, saved), or dz W where there is no formula.
    """
    dz, z, dx = out
    dtype, (rows, width), classes = str(x.dtype), x.shape[-2:], weight.shape[-2]
    models = 1 if x.ndim == 2 else x.shape[0]
    program = None if formula is None else be.program(formula, 2, 1)
    right = be.memory("right", tuple(loss.shape), dtype, be.runtime.address(loss))
    name, source = dense_head_kernel(dtype, classes, classes * width, program)
    own = [np.int32(a.size > n) for a, n in ((t, rows * classes), (w, rows), (labels, rows))]
    steps = [n for a in (x, saved, z, dx) for n in _steps(a)]
    numbers = (np.int32(rows), np.int32(width), _steps(weight)[0], _steps(bias)[0], *steps, *own)
    arrays = (x, weight, bias, t, w, labels, saved, z, loss, right, dz, dx)
    grid = (-(-rows // WARPS), models)
    be.launch((name, source), grid, (WARP, WARPS), (*arrays, *numbers), (z, loss, dz, dx))
    given = (loss, right, batch_loss, total, hits, np.int32(rows))
    be.launch(head_totals_kernel(dtype), (models, 1), (256, 1), given, (batch_loss, total, hits))


def product_can_be_updated(a: Array, b: Array, *, ta: bool = False, tb: bool = False, out: Array) -> bool:
    """Whether `product_updated` computes this product: its result has to lie as one vector."""
    product = describe(a, b, ta, tb, out)
    if product is None or not (a.size and out.size) or str(out.dtype) not in ("float32", "float64"):
        return False
    return product.result.leading == product.m and product.result.stride in (0, product.m * product.n)


def product_updated(
    be: CudaBackend, a: Array, b: Array, *args: Array, formula: Callable[..., Any], own: Sequence[bool],
    out: tuple[Array, ...], ta: bool = False, tb: bool = False,
) -> None:  # fmt: skip
    """``out[0] = op(a) @ op(b)``, then ``out[1:] = formula(*args)``; `own` says which args are ``out[0]``."""
    grad, *outs = out
    update = Update(be.program(formula, len(args), len(outs)), args, outs, own)
    product = describe(a, b, ta, tb, grad)
    assert product is not None  # `product_can_be_updated` has said so
    be.multiply_by_tiles(product, a, b, grad, None, update)


def sum_can_be_updated(x: Array, *, axis: int, out: Array) -> bool:
    """Whether `sum_updated` computes this sum: in one piece."""
    if axis != -2 or not rows_lie(x) or not out.size or str(out.dtype) not in ("float32", "float64"):
        return False
    lead, blocks = (1 if x.ndim == 2 else len(x)), -(-x.shape[-1] // 32)
    return lead <= sums.MOST_BESIDE and sums.column_pieces(x.shape[-2], lead * blocks)[1] == 1


def sum_updated(
    be: CudaBackend, x: Array, *args: Array, axis: int, formula: Callable[..., Any], own: Sequence[bool],
    out: tuple[Array, ...],
) -> None:  # fmt: skip
    """``out[0] = sum(x, axis=-2)``, then ``out[1:] = formula(*args)``; `own` says which args are ``out[0]``."""
    grad, *outs = out
    update = Update(be.program(formula, len(args), len(outs)), args, outs, own)
    height, width = x.shape[-2:]
    lead = 1 if x.ndim == 2 else len(x)
    steps = [
        np.int64(s // x.dtype.itemsize) for s in ((0, *x.strides[:-1]) if x.ndim == 2 else x.strides[:-1])
    ]
    numbers = (*map(np.int32, (height, width, height, 1)), *steps)
    kernel = sum_columns_updated(str(grad.dtype), update)
    grid = (-(-width // 32), lead)
    be.launch(kernel, grid, (32, COLUMN_ROWS), (x, grad, *update.arrays, *numbers), out)


def rows_lie(x: Array) -> bool:
    """Whether `x` is (B, N) or (M, B, N) with neighbours along its rows."""
    return x.ndim in (2, 3) and (x.shape[-1] == 1 or x.strides[-1] == x.dtype.itemsize)


def _steps(x: Array) -> tuple[np.int64, np.int64]:
    """Elements from one member to the next, and from one row to the next."""
    size = x.dtype.itemsize
    return np.int64(x.strides[0] // size if x.ndim == 3 else 0), np.int64(x.strides[-2] // size)
