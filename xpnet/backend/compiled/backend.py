"""NumPy with compiled formulas: `map` and the loss head as Numba loops, one pass over memory each.

The programs that `map` traces become plain nested loops (`loops.py`), compiled once and kept on disk (`jit.py`).
Captured calls become one (`fused.py`), which a team of threads may share (`team.py`). Products are made of
tiles of our own (`products.py`) where the matrix library has no more threads for them. What NumPy does better stays
with NumPy: large formulas with transcendental functions, which it vectorises and Numba does not. Needs the extra
``numba``; chosen by ``device="numba"``.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import numpy as np

from ...errors import DeviceError
from .. import Array
from ..cpu import EASY, SMALL_PRODUCT, CpuBackend, fits_blas, processors
from . import jit, loops
from .fused import Joined, Loop, Repeated, fuse

_CACHED = 1_600_000  # bytes; 784 x 500 float32 numbers gain, 1024 x 512 lose
_DEEP = 8192  # rows of a panel; longer ones leave that cache themselves
_SHARED = 1_000_000  # multiplications of the largest product from which a second thread is worth while
_SMALL = 65536  # elements up to which a loop of ours starts sooner than NumPy's machinery
_NARROW = 16  # numbers of a row up to which NumPy takes longer to start with the row than a loop takes for it


class CompiledBackend(CpuBackend):
    """`CpuBackend` with Numba loops. Results agree with it to rounding.

    Raises
    ------
    DeviceError
        Numba is not installed.
    """

    #: Python's part of a small network's step is a quarter of it; telling about several costs as much as three.
    steps_ahead, least_ahead, ahead_size = 32, 8, 1 << 18

    def __init__(self) -> None:
        if importlib.util.find_spec("numba") is None:
            raise DeviceError(
                "device 'numba' needs Numba, which is not installed: pip install \"xpnet[numba]\", "
                "or use device 'cpu'"
            )
        super().__init__()
        self.name = "numpy+numba"
        #: Multiplications of the largest product that is our own; above, the matrix library has more threads.
        self._largest = sys.maxsize if _one_thread() else SMALL_PRODUCT
        from . import products
        from .team import Team

        self._products = products

        #: The threads that share captured steps.
        self._team = Team(jit.compiled)

    @property
    def threads(self) -> int:  # type: ignore[override]
        """Those of the team that shares a step."""
        return self._team.size

    def slow_start(self) -> str | None:
        if jit.kept():
            return None
        return "compiled steps are made for this processor first, once: about ten seconds"

    def _do(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if self._tape is None:
            fn(*args, **kwargs)
        else:  # nothing runs while a step is recorded: every run of it is one of the joined functions
            self._tape.append(partial(fn, *args, **kwargs))

    def _loop(
        self, source: str, *arrays: Array, rows: int, work: float, grain: int = 1, each: bool = False
    ) -> None:
        """Run a kernel over `rows` rows; a captured one may be cut into pieces for the threads of a team.

        `work` is what a row costs, in multiplications of a product. Pieces have a multiple of `grain` rows. `each` says
        that the last array has a row for each thread.
        """
        kernel = jit.kernel(source)
        if self._tape is not None:
            self._tape.append(Loop(kernel, *arrays, 0, rows).cut(work, grain, each))
        elif each:
            kernel(*arrays[:-1], arrays[-1][0], 0, rows)
        else:
            kernel(*arrays, 0, rows)

    def capture(self, fn: Callable[[], None]) -> Callable[[], None]:
        self._tape = []
        try:
            fn()
        finally:
            tape, self._tape = self._tape, None
        self._scratch = {}  # the tape's own from here on; see `CpuBackend.capture`
        calls = fuse(tape, self._team)
        replay = calls[0] if len(calls) == 1 else partial(_all, calls)
        replay()
        return replay

    def in_a_row(self, replay: Callable[[], None], n: int) -> Callable[[], None]:
        return Repeated(replay, n) if isinstance(replay, Joined) else super().in_a_row(replay, n)

    def _transpose(self, x: Array, out: Array) -> None:
        if _plain(x) and _plain(out):
            self._loop(loops.turn(out.dtype.char), x, out, rows=len(out), work=EASY * out.shape[1], grain=16)
        else:
            super()._transpose(x, out)

    def tuned(
        self, multiplications: int, threads: int | None = None, members: int = 1
    ) -> AbstractContextManager[Any]:
        """Let a team of threads share each step where its products are large enough.

        The matrix library has one thread then.
        """
        import scipy.linalg.cython_blas  # noqa: F401  (compiled code calls it: only what is loaded can be limited)

        if threads is None:
            threads = 1 if multiplications * members < _SHARED or _one_thread() else processors()
        return self._shared(min(threads, processors()), super().tuned(multiplications, 1))

    @contextmanager
    def _shared(self, threads: int, limits: AbstractContextManager[Any]) -> Iterator[None]:
        before, self._largest = self._largest, sys.maxsize
        try:
            with limits, self._team.of(threads):
                yield
        finally:
            self._largest = before

    def matmul(self, a: Array, b: Array, *, ta: bool = False, tb: bool = False, out: Array) -> Array:
        if not self._is_ours(a, b, ta, tb, out):
            return super().matmul(a, b, ta=ta, tb=tb, out=out)
        char, k = out.dtype.char, a.shape[-2 if ta else -1]
        m, n = out.shape[-2:]
        panel, panels = self._products.panel(char), self._products.panels(n, char)
        if out.ndim == 3:
            room: tuple[Array, ...] = ()
            if tb:
                room = (self._scratch_array("panels", 0, (self._team.size, panels, k * panel), b.dtype),)
            source = loops.stacked_product(char, ta, tb, (a.ndim, b.ndim))
            self._loop(source, a, b, out, *room, rows=len(out), work=m * n * k, each=tb)
        elif tb and 16 <= m <= n // 2:
            # fewer rows have to be rearranged the other way round: out^T = b a^T
            turned = self._scratch_array("turned", 0, (n, m), b.dtype)
            self._packed(b, a, turned)
            self._transpose(turned, out)
        elif tb and panels < 4:
            self._packed(a, b, out)
        elif tb or self._is_large(b, out, ta):
            # Pieces are columns of the result: with b turned, as the weights of a layer are, a thread has to do with
            # the weights of the same units here, in their gradients and in their update: they stay in its cache.
            one = self._scratch_array("panel", 0, (self._team.size, k * panel), b.dtype)
            source = loops.product_by_panels(char, ta, tb)
            self._loop(source, a, b, out, one, rows=panels, work=m * k * panel, each=True)
        else:
            self._loop(loops.product(char, ta), a, b, out, rows=m, work=n * k, grain=self._products.ROWS)
        return out

    def _packed(self, a: Array, b: Array, out: Array) -> None:
        """out = a b^T by rows, for few columns."""
        (m, n), k, char = out.shape, a.shape[1], out.dtype.char
        panel, panels = self._products.panel(char), self._products.panels(n, char)
        room = self._scratch_array("panels", 0, (panels, k * panel), b.dtype)
        self._loop(loops.packing(char), b, room, rows=panels, work=EASY * k * panel)
        self._loop(loops.packed_product(char), a, room, out, rows=m, work=n * k, grain=self._products.ROWS)

    def _is_ours(self, a: Array, b: Array, ta: bool, tb: bool, out: Array) -> bool:
        """Whether code of our own is good at a product."""
        operands = (a, b, out)
        alike = all(_plain(x) and x.dtype == out.dtype and x.ndim in (2, 3) and x.size for x in operands)
        if not alike or (ta and tb) or out.ndim != max(a.ndim, b.ndim):
            return False
        if len({x.shape[0] for x in operands if x.ndim == 3}) > 1:  # a population of one, to be stretched
            return False
        (m, n), k = out.shape[-2:], a.shape[-2 if ta else -1]
        if m * n * k > self._largest:
            return False
        # to rearrange a matrix takes longer than the product of a few rows with it
        if out.ndim == 2 and m < 8 and b.size > _SMALL and (tb or self._is_large(b, out, ta)):
            return False
        return not self._is_large(b, out, ta) or (out.ndim == 2 and self._products.FAST and k <= _DEEP)

    @staticmethod
    def _is_large(b: Array, out: Array, ta: bool) -> bool:
        """Whether every tile's passing over b, or the result, would leave the second-level cache."""
        return b.nbytes > _CACHED or (ta and out.nbytes > _CACHED)

    def map(self, fn: Callable[..., Any], *args: Array, out: Array | tuple[Array, ...]) -> Any:
        outs = out if isinstance(out, tuple) else (out,)
        program = self._program(fn, args, outs)
        # a large array is NumPy's: its functions take more of them at a time than the compiler's
        fast = outs[0].dtype == np.float32 and outs[0].size <= _SMALL
        slow = loops.SLOW - loops.FAST.keys() if fast else loops.SLOW
        plan = loops.layout(args, outs) if not any(i.op in slow for i in program.instructions) else None
        if plan is None:
            return super().map(fn, *args, out=out)
        axes, views, indices = plan
        names, distinct = loops.named(views, len(args))
        source = loops.source(program, axes, names, indices, outs[0].dtype.char)
        rows = views[len(args)].shape[0] if axes else 1
        # pieces of a flat array begin at a cache line
        grain = 16 if axes == 1 else 1
        self._loop(source, *distinct, rows=rows, work=EASY * outs[0].size / max(rows, 1), grain=grain)
        return out

    def softmax_cross_entropy(self, z: Array, t: Array, w: Array, *, loss: Array, out: Array) -> Array:
        # targets of a batch that all members share, or of one model; or each member has its own
        shared = t.ndim == 2 and w.ndim == 1 and z.shape[-2:] == t.shape
        rows = shared or (z.shape == t.shape and w.shape == z.shape[:-1])
        if not rows or z.shape[-1] > loops.HEAD_WIDTH or not all(_plain(a) for a in (z, t, w, loss, out)):
            return super().softmax_cross_entropy(z, t, w, loss=loss, out=out)
        source = loops.HEAD.format(kind=loops.KINDS[z.dtype.char], exp=loops.EXP[z.dtype.char])
        arrays = (_rows(z), _rows(t), w.reshape(-1), loss.reshape(-1), _rows(out))
        self._loop(source, *arrays, rows=loss.size, work=8 * EASY * z.shape[-1])
        return out

    def sum(self, x: Array, *, axis: int, out: Array) -> Array:
        alike = _plain(x) and _plain(out) and x.dtype == out.dtype and x.size > 0
        many = x.ndim == 2 and len(x) > 1 and not fits_blas(x, out)
        # one accumulator: good for a batch, not for a million numbers
        if alike and axis == -1 and (x.ndim == 1 or many) and x.shape[-1] <= 4096:
            self._loop(loops.TOTAL, _rows(x), out.reshape(-1), rows=out.size, work=EASY * x.shape[-1])
            return out
        if alike and axis == -2 and x.ndim == 3 and x.shape[1] <= 4096:
            self._loop(loops.COLUMNS, x, out, rows=len(x), work=EASY * x[0].size)
            return out
        return super().sum(x, axis=axis, out=out)

    def argmax(self, x: Array, *, out: Array) -> Array:
        quick = x.size <= _SMALL or x.shape[-1] <= _NARROW
        if x.ndim >= 2 and x.size > 0 and quick and _plain(x) and out.flags.c_contiguous:
            self._loop(loops.ARGMAX, _rows(x), out.reshape(-1), rows=out.size, work=EASY * x.shape[-1])
            return out
        return super().argmax(x, out=out)

    def gather(
        self, x: Array, index: Array, *, out: Array, scale: Array | float = 1.0, shift: Array | float = 0.0
    ) -> Array:
        as_it_is = np.isscalar(scale) and scale == 1.0 and np.isscalar(shift) and shift == 0.0
        plain = _plain(index, "l") and _plain(out, "fdl") and out.size > 0 and x.ndim <= 2
        if plain and as_it_is and _plain(x, "fdl") and x.dtype == out.dtype:
            rows = out if x.ndim == 1 else _rows(out)
            source, work = (loops.TAKE, EASY) if x.ndim == 1 else (loops.GATHER, EASY * x.shape[1])
            self._loop(
                source,
                x,
                index.reshape(-1),
                rows.reshape(index.size, *x.shape[1:]),
                rows=index.size,
                work=work,
            )
            return out
        factors = [np.asarray(v, out.dtype).reshape(-1) for v in (scale, shift)]
        sizes = {v.size for v in factors}
        alike = _plain(x, ("B", out.dtype.char)) and out.dtype.char in loops.KINDS
        if plain and alike and x.ndim == 2 and sizes in ({1}, {x.shape[1]}):
            source = loops.SCALED.format(kind=loops.KINDS[out.dtype.char], j="0" if sizes == {1} else "j")
            arrays = (x, index.reshape(-1), *factors, _rows(out))
            self._loop(source, *arrays, rows=index.size, work=EASY * x.shape[1])
            return out
        return super().gather(x, index, out=out, scale=scale, shift=shift)


def _rows(a: np.ndarray) -> np.ndarray:
    """A view of a contiguous array as a matrix with the same last axis."""
    return a.reshape(-1, a.shape[-1])


def _all(calls: Sequence[Callable[[], Any]]) -> None:
    for call in calls:
        call()


def _one_thread() -> bool:
    """Whether the matrix library has one thread only, as far as that can be told at no cost."""
    asked = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
    return processors() == 1 or next((os.environ[name] for name in asked if name in os.environ), "") == "1"


def _plain(a: Array, kinds: Iterable[str] = loops.KINDS) -> bool:
    return isinstance(a, np.ndarray) and a.flags.c_contiguous and a.dtype.char in kinds
