"""NumPy: overrides the reference where writing into buffers, block by block, measurably wins."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from .. import rng
from . import Array
from .program import Program, trace
from .reference import ReferenceBackend

Call = Callable[[], Any]

# Elements per block of `map`: a few registers of this many float32 numbers fit into a core's L2 cache.
BLOCK = 16384

# Below this many multiplications a matrix product gains little from a second thread.
SMALL_PRODUCT = 4_000_000

# x W^T of few rows: OpenBLAS forms (W x^T)^T 1.1 to 3 times as fast, beyond this many multiplications and up to
# this many rows (0.3.31 with AVX-512 kernels on an AMD EPYC; with its kernels for AVX2 there is no difference).
_TURN_FROM, _TURN_ROWS = 1_000_000, 64

# Integers as wide as each floating type, for selecting by bits.
_BITS = {"f": np.int32, "d": np.int64}
# Numbers from which on a product with ones is a quicker sum than a reduction of a stack.
_MANY = 2048
#: Multiplications of a product that take as long as an element of a formula.
EASY = 12


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class CpuBackend(ReferenceBackend):
    """NumPy on the host; one instance must not be used by two threads at once (see `Backend.lock`).

    Every operation is expressed as calls bound to their buffers, so that `capture` can keep the calls of a
    whole training step and repeat them without looking anything up again.
    """

    def __init__(self) -> None:
        super().__init__(np)
        self.name, self.device = "numpy", "cpu"
        self._tape: list[partial[Any]] | None = None
        self._programs: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
        self._scratch: dict[tuple[str, int], np.ndarray] = {}
        self._constant_ones: dict[tuple[str, int], np.ndarray] = {}
        self._fill_uniform: rng.UniformFiller | None = None  # takes longer to make than all the rest

    def _do(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        fn(*args, **kwargs)
        if self._tape is not None:
            self._tape.append(partial(fn, *args, **kwargs))

    def _scratch_array(self, bank: str, index: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return register `index` of `bank`; contents last only until the next operation."""
        size = int(np.prod(shape))
        dtype = np.dtype(dtype)
        key = (f"{bank}{dtype.char}", index)
        if key not in self._scratch or self._scratch[key].size < size:
            self._scratch[key] = np.empty(size, dtype)
        return self._scratch[key][:size].reshape(shape)

    # --- memory ---------------------------------------------------------------------------------
    def asarray(self, values: Any, dtype: str | None = None) -> Array:
        return np.asarray(values, dtype=dtype)

    def to_numpy(self, x: Array) -> np.ndarray:
        return np.asarray(x)

    def empty(self, shape: Sequence[int], dtype: str) -> Array:
        return np.empty(tuple(shape), dtype=dtype)

    # --- compute --------------------------------------------------------------------------------
    def matmul(self, a: Array, b: Array, *, ta: bool = False, tb: bool = False, out: Array) -> Array:
        if tb and not ta and a.ndim == b.ndim == 2 and len(a) <= _TURN_ROWS and len(a) * b.size > _TURN_FROM:
            turned = self._scratch_array("turned", 0, out.shape[::-1], out.dtype)
            self._do(np.dot, b, a.T, turned)
            self._transpose(turned, out)
            return out
        # swapaxes makes a view, which NumPy hands to BLAS as a transpose flag
        a = a.swapaxes(-1, -2) if ta else a
        b = b.swapaxes(-1, -2) if tb else b
        # `dot` skips the machinery of a ufunc, which small products notice
        self._do(np.dot if a.ndim == b.ndim == 2 and out.flags.c_contiguous else np.matmul, a, b, out)
        return out

    def _transpose(self, x: Array, out: Array) -> None:
        self._do(np.copyto, out, x.T)

    def map(self, fn: Callable[..., Any], *args: Array, out: Array | tuple[Array, ...]) -> Any:
        outs = out if isinstance(out, tuple) else (out,)
        program = self._program(fn, args, outs)
        for block_args, block_outs in _blocks(args, outs):
            self._run_block(program, block_args, block_outs)
        return out

    def _program(self, fn: Callable[..., Any], args: Sequence[Array], outs: Sequence[Array]) -> Program:
        """Trace `fn`, once for each way its outputs share memory with its arguments."""
        # by address range: columns of one buffer may count as shared, which costs a register and no more
        alias = tuple(tuple(i for i, a in enumerate(args) if np.may_share_memory(a, o)) or None for o in outs)
        by_signature = self._programs.setdefault(fn, {})
        if (len(args), alias) not in by_signature:
            by_signature[len(args), alias] = trace(fn, len(args), alias)
        return by_signature[len(args), alias]

    def _run_block(self, program: Program, args: Sequence[Array], outs: Sequence[Array]) -> None:
        places: dict[tuple[str, Any], Any] = {("arg", i): a for i, a in enumerate(args)}
        places.update({("out", i): o for i, o in enumerate(outs)})
        for instruction in program.instructions:
            operands = [r[1] if r[0] == "const" else places[r] for r in instruction.operands]
            target = instruction.target
            if target[0] != "out":
                shape = np.broadcast_shapes(*(np.shape(o) for o in operands))
                dtype = np.bool_ if instruction.is_bool else outs[0].dtype
                places[target] = self._scratch_array(target[0], target[1], shape, dtype)
            self._emit(instruction.op, operands, places[target])

    def _emit(self, op: str, operands: list[Any], target: np.ndarray) -> None:
        if op == "copy":
            self._do(np.copyto, target, operands[0])
        elif op == "where":
            condition, yes, no = operands
            self._select(condition, yes, no, target)
        elif op == "erf":
            from scipy.special import erf

            self._do(erf, operands[0], target)
        else:
            self._do(getattr(np, op), *operands, out=target)

    def _select(self, condition: Array, yes: Any, no: Any, target: np.ndarray) -> None:
        """target = yes where condition else no, by integer arithmetic on the bits of the numbers.

        NumPy's masked copy takes a branch per element; this is four to seven times faster, and exact for
        infinities and NaN too, which multiplying by the condition would not be.
        """
        bits = _BITS.get(target.dtype.char)
        if bits is None or any(isinstance(v, np.ndarray) and v.dtype != target.dtype for v in (yes, no)):
            picked = self._scratch_array("picked", 0, target.shape, target.dtype)
            self._do(np.copyto, picked, no)
            self._do(np.copyto, picked, yes, where=condition)
            self._do(np.copyto, target, picked)
            return
        y, n = (np.asarray(v, target.dtype).view(bits) for v in (yes, no))
        out = target.view(bits)
        if (
            not isinstance(no, np.ndarray) and n == 0
        ):  # the bits of 0.0; an array may have others the next time
            self._do(np.multiply, y, condition, out=out)
            return
        mask = self._scratch_array("mask", 0, condition.shape, bits)
        changed = self._scratch_array("changed", 0, target.shape, bits)
        self._do(np.negative, condition.view(np.int8), out=mask)  # -1 has all bits set
        self._do(np.bitwise_xor, y, n, out=changed)
        self._do(np.bitwise_and, changed, mask, out=changed)
        self._do(np.bitwise_xor, changed, n, out=out)

    def sum(self, x: Array, *, axis: int, out: Array) -> Array:
        rows = x.ndim == 3 and axis == -1 and x.flags.c_contiguous and out.flags.c_contiguous
        flat, to = (x.reshape(-1, x.shape[-1]), out.reshape(-1)) if rows else (x, out)
        if fits_blas(flat, to):
            ones = self._ones(x.shape[axis], x.dtype)
            self._do(np.dot, *((flat, ones) if axis == -1 else (ones, flat)), to)
        elif (
            x.ndim == 3 and axis == -2 and x.dtype == out.dtype and x.dtype.char in _BITS and x.size >= _MANY
        ):
            self._do(np.matmul, self._ones(x.shape[-2], x.dtype)[None], x, out[:, None, :])
        else:
            self._do(np.add.reduce, x, axis=axis, out=out)
        return out

    def _ones(self, n: int, dtype: np.dtype) -> np.ndarray:
        """A vector of ones: a product with it sums, in half to a tenth of the time of a reduction."""
        key = (dtype.char, n)
        if key not in self._constant_ones:
            self._constant_ones[key] = np.ones(n, dtype)
        return self._constant_ones[key]

    def _row_maxima(self, z: Array, row: Array) -> None:
        """The largest number of each row, NaN where there is one; `row` is (..., 1)."""
        width = z.shape[-1]
        # many short rows: a reduction takes longer to begin than to do
        if width > 1 and z.size >= 32 * width * width:
            self._do(np.maximum, z[..., :1], z[..., 1:2], out=row)
            for j in range(2, width):
                self._do(np.maximum, row, z[..., j : j + 1], out=row)
        else:
            self._do(np.maximum.reduce, z, axis=-1, keepdims=True, out=row)

    def softmax(self, z: Array, *, out: Array) -> Array:
        row = self._scratch_array("row", 0, (*z.shape[:-1], 1), z.dtype)
        self._row_maxima(z, row)
        self._do(np.subtract, z, row, out)
        self._do(np.exp, out, out)
        self._do(np.add.reduce, out, axis=-1, keepdims=True, out=row)
        self._do(np.divide, out, row, out)
        return out

    def softmax_cross_entropy(self, z: Array, t: Array, w: Array, *, loss: Array, out: Array) -> Array:
        row = self._scratch_array("row", 0, (*z.shape[:-1], 1), z.dtype)
        total = self._scratch_array("row", 1, (*z.shape[:-1], 1), z.dtype)
        weight = self._scratch_array("row", 2, (*t.shape[:-1], 1), z.dtype)
        factor = self._scratch_array("row", 3, (*z.shape[:-1], 1), z.dtype)
        shifted = self._scratch_array("reg", 0, z.shape, z.dtype)
        work = self._scratch_array("reg", 1, z.shape, z.dtype)
        self._row_maxima(z, row)
        self._do(np.subtract, z, row, shifted)
        self._do(np.exp, shifted, out)
        self.sum(out, axis=-1, out=total[..., 0])
        self._do(np.log, total, row)
        self._do(np.subtract, row, shifted, shifted)  # -log softmax(z)
        self._do(np.multiply, t, shifted, work)
        self.sum(work, axis=-1, out=loss)
        self.sum(t, axis=-1, out=weight[..., 0])
        self._do(np.divide, weight, total, factor)
        self._do(np.multiply, out, factor, out)
        self._do(np.subtract, out, t, out)
        self._do(np.multiply, out, w[..., None], out)
        return out

    def argmax(self, x: Array, *, out: Array) -> Array:
        self._do(np.argmax, x, axis=-1, out=out)
        return out

    def gather(
        self, x: Array, index: Array, *, out: Array, scale: Array | float = 1.0, shift: Array | float = 0.0
    ) -> Array:
        rows = out
        if x.dtype != out.dtype:
            rows = self._scratch_array("gather", 0, out.shape, x.dtype)
        # mode="clip" lets NumPy write straight into `out`; indices were checked when the data entered
        self._do(np.take, x, index, axis=0, out=rows, mode="clip")
        if not (np.isscalar(scale) and scale == 1.0) or x.dtype != out.dtype:
            self._do(np.multiply, rows, _as(scale, out.dtype), out)
        if not (np.isscalar(shift) and shift == 0.0):
            self._do(np.add, out, _as(shift, out.dtype), out)
        return out

    def uniform(self, out: Array, *, seeds: Sequence[int], stream: int, counter: Array) -> Array:
        members = [out] if len(seeds) == 1 else list(out)
        for member, seed in zip(members, seeds, strict=True):
            self._do(self._uniform, member, seed, stream, counter)
        return out

    def _uniform(self, out: np.ndarray, seed: int, stream: int, counter: np.ndarray) -> None:
        if self._fill_uniform is None:
            self._fill_uniform = rng.UniformFiller()
        self._fill_uniform(out, seed, stream, int(counter[0]))

    def tuned(
        self, multiplications: int, threads: int | None = None, members: int = 1
    ) -> AbstractContextManager[Any]:
        """Limit the threads of the matrix library: one for small products, which only wait for each other.

        On a busy machine two threads that must meet after every small product can be sixty times slower than one.
        """
        if threads is None and multiplications < SMALL_PRODUCT:
            threads = 1
        if threads is None:
            return nullcontext()
        from threadpoolctl import threadpool_limits

        return threadpool_limits(threads, user_api="blas")

    def capture(self, fn: Callable[[], None]) -> Callable[[], None]:
        self._tape = []
        try:
            fn()
        finally:
            calls, self._tape = self._tape, None
        # The tape refers to scratch arrays; dropping ours makes later operations take new ones, so that
        # nothing run between two replays can grow or replace what the tape uses.
        self._scratch = {}

        def replay() -> None:
            for call in calls:
                call()

        return replay


def fits_blas(x: np.ndarray, out: np.ndarray) -> bool:
    """Whether `np.dot` takes the pair as it is: a matrix and a vector of one floating type."""
    return (
        x.ndim == 2 and out.ndim == 1 and x.dtype == out.dtype and x.dtype.char in _BITS
        and x.flags.c_contiguous and out.flags.c_contiguous
    )  # fmt: skip


def _as(value: Any, dtype: np.dtype) -> np.ndarray:
    return np.asarray(value, dtype=dtype)


def _blocks(args: Sequence[Array], outs: Sequence[Array]):
    """Cut `outs` along their first axis into pieces that fit the cache, and `args` where they have it."""
    shape = outs[0].shape
    size = outs[0].size
    if size <= BLOCK or not shape:
        yield args, outs
        return
    if len(shape) > 1 and shape[0] * BLOCK < size:  # one row is already too large: cut the rest
        for i in range(shape[0]):
            yield from _blocks(
                [_row(a, shape, slice(i, i + 1), drop=True) for a in args], [o[i] for o in outs]
            )
        return
    rows = max(1, BLOCK * shape[0] // size)
    for start in range(0, shape[0], rows):
        piece = slice(start, start + rows)
        yield [_row(a, shape, piece) for a in args], [o[piece] for o in outs]


def _row(a: Array, shape: tuple[int, ...], piece: slice, drop: bool = False) -> Array:
    if np.ndim(a) < len(shape):
        return a
    if a.shape[0] != 1:
        a = a[piece]
    return a[0] if drop else a
