"""The back end for NVIDIA devices: every operation as kernels and products of a `Runtime`.

What is decided here (which kernel, how arrays lie, how large a grid) needs no device: the runtime does the rest, and
the tests run this very code on the CPU with a runtime that executes the kernels' source there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import wraps
from math import prod
from typing import Any, TypeVar, cast

import numpy as np

from ... import rng
from .. import Array
from ..program import Program, trace
from ..reference import ReferenceBackend
from . import formulas, kernels, phases, resident, sums, tiles
from .device import Runtime
from .fusion import Request, fuse
from .products import Product, describe, with_bias
from .rounding import RoundedCopies, same
from .schedule import Operation
from .updates import Update

Numbers = Sequence[Any]
#: Blocks of a loop over elements: more than any device runs at a time; each thread then takes several elements.
_MOST_BLOCKS = 1 << 16
#: Buffers of the back end's own that operations called one by one keep for the next time.
_MOST_BUFFERS = 64

_Operation = TypeVar("_Operation", bound=Callable[..., Any])


def _deferrable(operation: _Operation) -> _Operation:
    """Let the calls of an operation be written down, where a step is about to be captured."""

    @wraps(operation)
    def call(self: CudaBackend, *args: Any, **kwargs: Any) -> Any:
        if self._requests is None:
            return operation(self, *args, **kwargs)
        request = Request(operation, args, kwargs, self.runtime.address)
        self._requests.append(request)
        return request.result

    return cast(_Operation, call)


class CudaBackend(ReferenceBackend):
    """CuPy arrays, kernels compiled at run time and products by cublasLt, on one device.

    Parameters
    ----------
    runtime : Runtime
    precision : {None, "tf32", "bf16"}
        What float32 operands of products are rounded to; results and everything else stay float32.
    """

    #: One upload and one launch for this many steps: asking then costs less than the work.
    steps_ahead = 32
    members_beside = True
    shuffles = True
    #: Whether operations of a captured step are joined where one launch can do them; see `fusion`.
    fuses = True
    #: Whether many steps are one kernel that stays on the device, see `resident`, or a graph; None: with `autotune`
    #: whichever is quicker, else a graph.
    stays: bool | None = None

    def __init__(self, runtime: Runtime, precision: str | None = None):
        self.runtime = runtime
        self.xp = runtime.xp
        self.name, self.device = runtime.name, runtime.device
        self.precision = precision
        self.autotune = runtime.autotune
        self.algorithms: list[dict[str, Any]] = runtime.algorithms
        self._programs: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
        self._seeds: dict[tuple[int, ...], Array] = {}
        self._scratch: dict[tuple[Any, ...], Array] = {}
        self._recording = False
        # The products of a step that is written down, where they are kernels instead of the library's
        self._tiled: list[Product] | None = None
        # What a step asks for, while it is written down instead of done
        self._requests: list[Request] | None = None
        self.bfloat16 = RoundedCopies(self)

    # --- memory ---------------------------------------------------------------------------------
    def asarray(self, values: Any, dtype: str | None = None) -> Array:
        return self.runtime.asarray(values, dtype)

    def to_numpy(self, x: Array) -> np.ndarray:
        return self.runtime.to_numpy(x)

    def empty(self, shape: Sequence[int], dtype: str) -> Array:
        return self.runtime.empty(tuple(shape), dtype)

    def synchronize(self) -> None:
        self.runtime.synchronize()

    def free_memory(self) -> int | None:
        return self.runtime.free_memory()

    def lost(self, error: BaseException) -> str | None:
        return self.runtime.lost(error)

    def memory(self, name: str, shape: tuple[int, ...], dtype: str, *key: Any) -> Array:
        """A buffer of the back end's own; one of a captured step is never handed to anything else."""
        full = (name, shape, dtype, *key)
        if full not in self._scratch:
            if len(self._scratch) >= _MOST_BUFFERS and not self._recording:
                self._scratch.clear()  # what is still in use is kept by those who use it
            self._scratch[full] = self.runtime.empty(shape, dtype)
        return self._scratch[full]

    # --- launching ------------------------------------------------------------------------------
    def launch(
        self, kernel: tuple[str, str], grid: tuple[int, int], block: tuple[int, int], args: Sequence[Any],
        outs: Sequence[Array],
    ) -> None:  # fmt: skip
        self.runtime.launch(*kernel, grid, block, args)
        self.bfloat16.written(*outs)

    def dense(self, x: Array) -> Array:
        """`x` itself where it is C-contiguous, else a copy that is."""
        if x.flags.c_contiguous:
            return x
        copy = self.memory("dense", tuple(x.shape), str(x.dtype), self.runtime.address(x))
        return self.map(same, x, out=copy)

    def _into(self, out: Array, fill: Callable[[Array], Any]) -> Array:
        """Let `fill` write a C-contiguous array, and bring that to `out`."""
        if out.flags.c_contiguous:
            fill(out)
        else:
            dense = self.memory("result", tuple(out.shape), str(out.dtype), self.runtime.address(out))
            fill(dense)
            self.map(same, dense, out=out)
        return out

    # --- compute --------------------------------------------------------------------------------
    @_deferrable
    def matmul(self, a: Array, b: Array, *, ta: bool = False, tb: bool = False, out: Array) -> Array:
        if out.size == 0:
            return out
        if a.size == 0:  # a sum of nothing
            return self.map(_zero, out, out=out)
        if out.shape[-2:] == (1, 1) and a.shape[-2 if ta else -1] > kernels.LONG_ROW:
            a, b = (a.swapaxes(-1, -2) if ta else a), (b.swapaxes(-1, -2) if tb else b)
            sums.dots(self, a, b, out)
            return out
        if not self.multiply(a, b, ta, tb, out):  # memory that no leading dimension describes
            a, b = self.dense(a), self.dense(b)
            self._into(out, lambda dense: self.multiply(a, b, ta, tb, dense))
        return out

    def multiply(
        self, a: Array, b: Array, ta: bool, tb: bool, out: Array, bias: Array | None = None, relu: bool = False
    ) -> bool:  # fmt: skip
        """out = op(a) @ op(b), plus a bias and rectified if asked for.

        False says that nothing was done: no call of the library does it.
        """
        precision = self.precision if str(out.dtype) == "float32" else None
        product = describe(a, b, ta, tb, out) if out.size and a.size else None
        if product is None:
            return False
        if self._tiled is not None:
            product = product if bias is None else with_bias(product, bias, out, relu)
            if product is not None:
                self.multiply_by_tiles(product, a, b, out, bias)
            return product is not None
        if precision == "bf16":
            a, b = self.bfloat16.of(a), self.bfloat16.of(b)
            product = describe(a, b, ta, tb, out)
        if product is not None and bias is not None:
            product = with_bias(product, bias, out, relu)
        done = product is not None and self.runtime.multiply(product, a, b, out, precision, bias)
        self.bfloat16.written(out)
        return done

    def multiply_by_tiles(
        self, product: Product, a: Array, b: Array, out: Array, bias: Array | None, update: Update | None = None
    ) -> None:  # fmt: skip
        """The same by a kernel of xpnet's own, which can go on with the update of what it has computed."""
        runtime = self.runtime
        assert self._tiled is not None
        self._tiled.append(product)
        tf32 = self.precision == "tf32" and product.dtype == "float32"
        call = tiles.call(
            product, a, b, out, bias, 2 * runtime.blocks, runtime.address, tf32=tf32, update=update
        )
        outs = [out] if update is None else [out, *update.outs]
        self.launch((call.name, call.source), call.grid, call.block, call.args, outs)

    @_deferrable
    def map(self, fn: Callable[..., Any], *args: Array, out: Array | tuple[Array, ...]) -> Any:
        outs = out if isinstance(out, tuple) else (out,)
        if outs[0].size:
            addresses = [self.runtime.address(x) for x in (*args, *outs)]
            lay = formulas.layout(args, outs, addresses)
            program = self.program(fn, len(args), len(outs))
            types = ([str(a.dtype) for a in args], [str(o.dtype) for o in outs])
            name, source, numbers = formulas.source(program, *types, lay)
            whole = np.int64 if lay.wide else np.int32
            blocks = min(max(1, -(-lay.size // (256 * lay.width))), _MOST_BLOCKS)
            self.launch(
                (name, source), (blocks, 1), (256, 1), (*args, *outs, *(whole(n) for n in numbers)), outs
            )
        return out

    def program(self, fn: Callable[..., Any], n_args: int, n_out: int) -> Program:
        by_signature = self._programs.setdefault(fn, {})
        if (n_args, n_out) not in by_signature:
            by_signature[n_args, n_out] = trace(fn, n_args, (None,) * n_out)
        return by_signature[n_args, n_out]

    @_deferrable
    def sum(self, x: Array, *, axis: int, out: Array) -> Array:
        if out.size == 0:
            return out
        return self._into(out, lambda dense: (sums.rows if axis == -1 else sums.columns)(self, x, dense))

    def _walk(self, x: Array) -> tuple[Array, tuple[Any, ...]]:
        """`x`, or a dense copy, and how a kernel walks along its rows: inner, outer, step."""
        if x.ndim > 3 or (x.shape[-1] > 1 and x.strides[-1] != x.dtype.itemsize):
            x = self.dense(x)
        steps = [s // x.dtype.itemsize for s in x.strides[:-1]]
        if x.ndim == 3:
            inner, outer, step = x.shape[1], *steps
        else:
            inner, outer, step = x.size // x.shape[-1], 0, steps[0] if x.ndim == 2 else x.shape[-1]
        return x, (np.int64(inner), np.int64(outer), np.int64(step))

    @_deferrable
    def softmax(self, z: Array, *, out: Array) -> Array:
        if out.size == 0:
            return out
        z, walk = self._walk(z)

        def fill(dense: Array) -> None:
            grid, block = kernels.warp_for_each(z.size // z.shape[-1])
            numbers = (np.int64(z.size // z.shape[-1]), np.int32(z.shape[-1]), *walk)
            self.launch(kernels.source("softmax", str(z.dtype)), grid, block, (z, dense, *numbers), (dense,))

        return self._into(out, fill)

    @_deferrable
    def softmax_cross_entropy(self, z: Array, t: Array, w: Array, *, loss: Array, out: Array) -> Array:
        if out.size == 0:
            return out
        z, walk = self._walk(z)
        t, w = self.dense(t), self.dense(w)
        width = z.shape[-1]
        rows = z.size // width

        def fill(dense_loss: Array, dense: Array) -> None:
            grid, block = kernels.warp_for_each(rows)
            numbers = (np.int64(rows), np.int32(width), np.int64(t.size // width), np.int64(w.size), *walk)
            kernel = kernels.source("softmax_cross_entropy", str(z.dtype))
            self.launch(kernel, grid, block, (z, t, w, dense_loss, dense, *numbers), (dense_loss, dense))

        self._into(loss, lambda dense_loss: self._into(out, lambda dense: fill(dense_loss, dense)))
        return out

    def one_pass_head(self, shape: Sequence[int]) -> bool:
        """Whether one block can do the head of a model in a few rounds."""
        rows, width = shape[-2:]
        if prod(shape) == 0:
            return False
        group, threads = _head_threads(rows, width)
        return -(-rows * group // threads) * -(-width // group) <= kernels.HEAD_ROUNDS

    @_deferrable
    def softmax_head(
        self, z: Array, t: Array, w: Array, labels: Array, *,
        loss: Array, out: Array, batch_loss: Array, total: Array, hits: Array,
    ) -> Array:  # fmt: skip
        z, (_, outer, step) = self._walk(z)
        t, w, labels = self.dense(t), self.dense(w), self.dense(labels)
        rows, width = z.shape[-2:]
        models = z.size // (rows * width)
        if z.ndim != 3:  # `_walk` has made members of more axes dense
            outer = np.int64(rows) * step
        group, threads = _head_threads(rows, width)
        if self._tiled is not None:
            threads = resident.THREADS
        own = (np.int32(x.size > n) for x, n in ((t, rows * width), (w, rows), (labels, rows)))
        numbers = (np.int32(rows), np.int32(width), outer, step, *own)
        kernel = kernels.softmax_head(str(z.dtype), group)

        def fill(*outs: Array) -> None:
            args = (z, t, w, labels, *outs, batch_loss, total, hits, *numbers)
            self.launch(kernel, (models, 1), (threads, 1), args, (*outs, batch_loss, total, hits))

        self._into(loss, lambda dense_loss: self._into(out, lambda dense: fill(dense_loss, dense)))
        return out

    @_deferrable
    def argmax(self, x: Array, *, out: Array) -> Array:
        if out.size == 0:
            return out
        x, walk = self._walk(x)

        def fill(dense: Array) -> None:
            grid, block = kernels.warp_for_each(dense.size)
            numbers = (np.int64(dense.size), np.int32(x.shape[-1]), *walk)
            self.launch(kernels.source("argmax", str(x.dtype)), grid, block, (x, dense, *numbers), (dense,))

        return self._into(out, fill)

    @_deferrable
    def gather(
        self, x: Array, index: Array, *, out: Array, scale: Array | float = 1.0, shift: Array | float = 0.0
    ) -> Array:
        if out.size == 0:
            return out
        x, index = self.dense(x), self.dense(index)
        width = prod(x.shape[1:])
        dtype = str(out.dtype)
        extra: list[Any] = []
        kinds = []
        for value, neutral in ((scale, 1.0), (shift, 0.0)):
            if not isinstance(value, (int, float, np.number)):
                kinds.append("array")
                extra.append(self.dense(value))
            elif value == neutral:
                kinds.append("none")
            else:
                kinds.append("number")
                extra.append(np.dtype(dtype).type(value))

        def fill(dense: Array) -> None:
            rows = index.size
            grid, block = _rows_grid(rows, width)
            kernel = kernels.gather(str(x.dtype), dtype, *kinds)
            numbers = (np.int64(rows), np.int32(width))
            self.launch(kernel, grid, block, (x, index, dense, *numbers, *extra), (dense,))

        return self._into(out, fill)

    @_deferrable
    def uniform(self, out: Array, *, seeds: Sequence[int], stream: int, counter: Array) -> Array:
        key = tuple(seeds)
        if key not in self._seeds:
            self._seeds[key] = self.runtime.asarray(np.array(key, np.uint64), None)

        def fill(dense: Array) -> None:
            each = dense.size // len(key)
            grid = (min(max(1, -(-each // (8 * 256))), _MOST_BLOCKS), min(len(key), sums.MOST_BESIDE))
            numbers = (np.uint64(stream), np.int64(each), np.int32(len(key)))
            self.launch(
                kernels.source("uniform"),
                grid,
                (256, 1),
                (dense, self._seeds[key], counter, *numbers),
                (dense,),
            )

        return self._into(out, fill) if out.size else out

    @_deferrable
    def permutation(self, *, seed: Any, epoch: Any, out: Array) -> Array:
        n, single = out.shape[-1], out.ndim == 1
        pairs = [(seed, epoch)] if single else list(zip(seed, epoch, strict=True))
        keys = self.asarray(np.stack([rng.permutation_keys(*pair) for pair in pairs]))
        grid = (min(-(-n // 256), _MOST_BLOCKS), min(len(pairs), sums.MOST_BESIDE))
        numbers = (np.int64(n), np.int32(rng.permutation_bits(n)), np.int32(len(pairs)))
        self.launch(kernels.source("permutation"), grid, (256, 1), (out, keys, *numbers), (out,))
        return out

    def capture(self, fn: Callable[[], None]) -> Callable[[], None]:
        """Do once what `fn` asks for, then record it; the device repeats the record.

        What is done is what `fn` asks for, with requests joined where one launch can do them. The first run compiles
        kernels, chooses algorithms and takes all memory that the record will refer to.
        """
        asked = self._asked(fn)
        requests = self._joined(asked)

        def work() -> None:
            for request in requests:
                request.issue(self)

        others, self._scratch, self._recording = self._scratch, {}, True
        try:
            work()
            self.bfloat16.start()
            replay = self.runtime.capture(work)
        finally:
            # buffers of the record must never be handed out again: later operations use others
            keep, self._scratch, self._recording = self._scratch, others, False
            self.bfloat16.stop()
        if replay is None:
            return work
        replay.keeps, replay.asked = keep, asked  # type: ignore[attr-defined]
        return replay

    def _asked(self, fn: Callable[[], None]) -> list[Request]:
        """What `fn` asks for, without doing it."""
        requests: list[Request] = []
        self._requests = requests
        try:
            fn()
        finally:
            self._requests = None
        return requests

    def _joined(self, asked: list[Request]) -> list[Request]:
        """The same in as few requests as possible."""
        return fuse(asked, rounds=self.precision == "bf16") if self.fuses else asked

    def in_a_row(self, replay: Callable[[], None], n: int) -> Callable[[], None]:
        """`n` times the record in one launch, with nothing to be run or recorded again: a graph, or one kernel."""
        record = getattr(replay, "record", None)
        if record is None:
            return super().in_a_row(replay, n)
        kernel = self._resident(replay, n) if self.stays or (self.stays is None and self.autotune) else None
        graph = self.runtime.replay([*record] * n) if kernel is None or not self.stays else None
        if graph is not None:
            graph.keeps = replay  # type: ignore[attr-defined]
        if kernel is None or graph is None:
            return kernel or graph or super().in_a_row(replay, n)
        return resident.Quicker({"graph": graph, "kernel": kernel}, self.runtime.timed, self.algorithms)

    def _resident(self, replay: Any, n: int) -> Callable[[], None] | None:
        """One kernel of `n` times what was asked for; None where there is none, and why is in `algorithms`."""
        found: Any = "products in bf16 are the library's" if self.precision == "bf16" else None
        keep: dict[tuple[Any, ...], Array] = {}
        if found is None:
            record, products, keep = self._with_tiles(replay)
            found = resident.too_large(products)
        if found is None:
            both = phases.alternating(record, self.runtime.address, self.runtime.empty)
            steps = resident.assemble(both, n, self.runtime.blocks)
            found = steps if isinstance(steps, str) else self.runtime.stay(steps)
        if isinstance(found, str):
            self.algorithms.append({"steps": n, "chosen": "graph", "why": found})
            return None
        found.keeps, found.record = (replay, keep), replay.record
        kernel: Callable[[], None] = found
        return kernel

    def _with_tiles(self, replay: Any) -> tuple[list[Operation], list[Product], dict[tuple[Any, ...], Array]]:
        """What was asked for, as kernels only; their products, and the buffers that it uses."""
        requests = fuse(replay.asked, updates=True)

        def work() -> None:
            for request in requests:
                request.issue(self)

        others, self._scratch, self._recording = self._scratch, dict(replay.keeps), True
        products: list[Product] = []
        self._tiled = products
        try:
            return self.runtime.written_down(work), products, self._scratch
        finally:
            self._scratch, self._recording, self._tiled = others, False, None


def on_device(number: int, precision: str | None, autotune: bool = False) -> CudaBackend:
    """Return the back end of device `number`; `probe` has said that it can be used."""
    from .runtime import CupyRuntime

    return CudaBackend(CupyRuntime(number, autotune), precision)


def _head_threads(rows: int, width: int) -> tuple[int, int]:
    """Threads of a row, and of the block, of the head of a classifier: whole warps, no more than there is work for."""
    group = next((g for g in kernels.HEAD_GROUPS if g >= width), kernels.HEAD_GROUPS[-1])
    return group, min(kernels.HEAD_THREADS, -(-rows * group // kernels.WARP) * kernels.WARP)


def _rows_grid(rows: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Grid and block of kernels that walk along rows: narrow rows share a block."""
    across = 1
    while across < min(width, 256):
        across *= 2
    down = 256 // across
    return (-(-width // across), min(-(-rows // down), 65535)), (across, down)


def _zero(ns: Any, x: Any) -> Any:
    return ns.where(x == x, 0.0, 0.0)
