"""NumPy with compiled formulas: `map` and the loss head as Numba loops, one pass over memory each.

The programs that `map` traces become plain nested loops, compiled once and kept on disk. Products are made of tiles
of our own (`products.py`) where the matrix library has no more threads for them. What NumPy does better stays with
NumPy: gathers, and formulas with transcendental functions, which it vectorises and Numba does not. Needs the extra
``numba``; chosen by ``device="numba"``.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DeviceError
from . import Array
from .cpu import SMALL_PRODUCT, CpuBackend, _fits_blas
from .fused import fuse
from .program import Program, Ref

_SLOW = frozenset({"exp", "expm1", "log", "log1p", "tanh", "sin", "cos", "erf", "pow"})
# the compiler vectorises these for float32
_FAST = {"exp": "elementary.exp({0})", "tanh": "elementary.tanh({0})"}
_INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "less": "<", "less_equal": "<=",
    "greater": ">", "greater_equal": ">=", "equal": "==", "not_equal": "!=", "logical_and": "&",
    "logical_or": "|",
}  # fmt: skip
_CALLS = {
    "abs": "abs({0})", "sqrt": "np.sqrt({0})", "square": "{0} * {0}", "floor": "np.floor({0})",
    "sign": "np.sign({0})", "negative": "-{0}", "positive": "{0}", "logical_not": "not {0}",
    # like NumPy, and unlike Python's max and min, these hand a NaN on
    "maximum": "({0} if ({0} >= {1} or {0} != {0}) else {1})",
    "minimum": "({0} if ({0} <= {1} or {0} != {0}) else {1})",
    "where": "({1} if {0} else {2})", "copy": "{0}",
}  # fmt: skip
_EXP = {"f": "elementary.exp", "d": "np.exp"}
_KINDS = {"f": "np.float32", "d": "np.float64"}

# The exponentials are one long loop, which the compiler can vectorise; a row alone may be too short.
_HEAD = """def kernel(z, t, w, loss, out):
    for i in range(z.shape[0]):
        k = i % t.shape[0]  # members of a population share the targets
        top = z[i, 0]
        for j in range(1, z.shape[1]):
            top = z[i, j] if (z[i, j] >= top or z[i, j] != z[i, j]) else top
        cost = {kind}(0.0)
        for j in range(z.shape[1]):
            shifted = z[i, j] - top
            cost -= t[k, j] * shifted if t[k, j] != {kind}(0.0) else {kind}(0.0)
            out[i, j] = shifted
        loss[i] = cost
    flat = out.reshape(out.size)
    for i in range(flat.size):
        flat[i] = {exp}(flat[i])
    for i in range(z.shape[0]):
        k = i % t.shape[0]
        total, share = {kind}(0.0), {kind}(0.0)
        for j in range(z.shape[1]):
            total += out[i, j]
            share += t[k, j]
        loss[i] += share * np.log(total)
        factor = share / total
        for j in range(z.shape[1]):
            out[i, j] = w[k] * (out[i, j] * factor - t[k, j])
"""
_HEAD_WIDTH = 64  # beyond, NumPy's vectorised exponential wins

_ARGMAX = """def kernel(x, out):
    for i in range(x.shape[0]):
        best = 0
        for j in range(1, x.shape[1]):
            # the first NaN counts as the largest, as it does for NumPy
            if x[i, j] > x[i, best] or (x[i, j] != x[i, j] and x[i, best] == x[i, best]):
                best = j
        out[i] = best
"""

_TOTAL = """def kernel(x, out):
    for i in range(x.shape[0]):
        total = x[i, 0] - x[i, 0]
        for j in range(x.shape[1]):
            total += x[i, j]
        out[i] = total
"""

_COLUMNS = """def kernel(x, out):
    for m in range(x.shape[0]):
        for j in range(x.shape[2]):
            out[m, j] = x[m, 0, j]
        for i in range(1, x.shape[1]):
            for j in range(x.shape[2]):
                out[m, j] += x[m, i, j]
"""

_GATHER = """def kernel(x, index, out):
    for i in range(index.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = x[index[i], j]
"""

_TAKE = """def kernel(x, index, out):
    for i in range(index.shape[0]):
        out[i] = x[index[i]]
"""
_TRANSPOSE = """def kernel(x, out):
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = x[j, i]
"""
_CACHED = 1_600_000  # bytes; 784 x 500 float32 numbers gain, 1024 x 512 lose
_SMALL = 65536  # elements up to which a loop of ours starts sooner than NumPy's machinery


class CompiledBackend(CpuBackend):
    """`CpuBackend` with Numba loops. Results agree with it to rounding.

    Raises
    ------
    DeviceError
        Numba is not installed.
    """

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

    def _do(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if self._tape is None:
            fn(*args, **kwargs)
        else:  # nothing runs while a step is recorded: every run of it is one of the joined functions
            self._tape.append(partial(fn, *args, **kwargs))

    def capture(self, fn: Callable[[], None]) -> Callable[[], None]:
        self._tape = []
        try:
            fn()
        finally:
            tape, self._tape = self._tape, None
        self._scratch = {}  # the tape's own from here on; see `CpuBackend.capture`
        calls = fuse(tape, _sources, _kernel)
        replay = calls[0] if len(calls) == 1 else partial(_all, calls)
        replay()
        return replay

    def _transpose(self, x: Array, out: Array) -> None:
        if _plain(x) and _plain(out):
            self._do(_kernel(_TRANSPOSE), x, out)
        else:
            super()._transpose(x, out)

    def tuned(self, multiplications: int, threads: int | None = None) -> AbstractContextManager[Any]:
        one = threads == 1 or (threads is None and multiplications < SMALL_PRODUCT)
        self._largest = sys.maxsize if one or _one_thread() else SMALL_PRODUCT
        return super().tuned(multiplications, threads)

    def matmul(self, a: Array, b: Array, *, ta: bool = False, tb: bool = False, out: Array) -> Array:
        source = self._product(a, b, ta, tb, out)
        if source is None:
            return super().matmul(a, b, ta=ta, tb=tb, out=out)
        work = (self._scratch_array("turned", 0, b.shape[-2:], b.dtype).reshape(-1),) if tb else ()
        self._do(_kernel(source), a, b, out, *work)
        return out

    def _product(self, a: Array, b: Array, ta: bool, tb: bool, out: Array) -> str | None:
        """The source of a product that code of our own is good at, else None."""
        operands = (a, b, out)
        alike = all(_plain(x) and x.dtype == out.dtype and x.ndim in (2, 3) and x.size for x in operands)
        if not alike or (ta and tb) or out.ndim != max(a.ndim, b.ndim):
            return None
        if len({x.shape[0] for x in operands if x.ndim == 3}) > 1:  # a population of one, to be stretched
            return None
        if prod(out.shape[-2:]) * a.shape[-2 if ta else -1] > self._largest:
            return None
        # what every tile passes over again must stay in the second-level cache, which these products do not block for
        if b.nbytes > _CACHED or (ta and out.nbytes > _CACHED):
            return None
        form = "first_turned" if ta else "second_turned" if tb else "straight"
        names = [
            f"{name}[q]" if x.ndim == 3 else name for name, x in zip(("a", "b", "out"), operands, strict=True)
        ]
        loop = "    for q in range(out.shape[0]):\n    " if out.ndim == 3 else ""
        work = ", work" if tb else ""
        return f"def kernel(a, b, out{work}):\n{loop}    products.{form}_{out.dtype.char}({', '.join(names)}{work})\n"

    def map(self, fn: Callable[..., Any], *args: Array, out: Array | tuple[Array, ...]) -> Any:
        outs = out if isinstance(out, tuple) else (out,)
        program = self._program(fn, args, outs)
        # a large array is NumPy's: its functions take more of them at a time than the compiler's
        fast = outs[0].dtype == np.float32 and outs[0].size <= _SMALL
        slow = _SLOW - _FAST.keys() if fast else _SLOW
        plan = _layout(args, outs) if not any(i.op in slow for i in program.instructions) else None
        if plan is None:
            return super().map(fn, *args, out=out)
        axes, views, indices = plan
        names, distinct = _names(views, len(args))
        self._do(_kernel(_source(program, axes, names, indices, outs[0].dtype.char)), *distinct)
        return out

    def softmax_cross_entropy(self, z: Array, t: Array, w: Array, *, loss: Array, out: Array) -> Array:
        # targets of a batch that all members share, or of one model; or each member has its own
        shared = t.ndim == 2 and w.ndim == 1 and z.shape[-2:] == t.shape
        rows = shared or (z.shape == t.shape and w.shape == z.shape[:-1])
        if not rows or z.shape[-1] > _HEAD_WIDTH or not all(_plain(a) for a in (z, t, w, loss, out)):
            return super().softmax_cross_entropy(z, t, w, loss=loss, out=out)
        kernel = _kernel(_HEAD.format(kind=_KINDS[z.dtype.char], exp=_EXP[z.dtype.char]))
        self._do(kernel, _rows(z), _rows(t), w.reshape(-1), loss.reshape(-1), _rows(out))
        return out

    def sum(self, x: Array, *, axis: int, out: Array) -> Array:
        alike = _plain(x) and _plain(out) and x.dtype == out.dtype and x.size > 0
        many = x.ndim == 2 and len(x) > 1 and not _fits_blas(x, out)
        # one accumulator: good for a batch, not for a million numbers
        if alike and axis == -1 and (x.ndim == 1 or many) and x.shape[-1] <= 4096:
            self._do(_kernel(_TOTAL), _rows(x), out.reshape(-1))
            return out
        if alike and axis == -2 and x.ndim == 3 and x.shape[1] <= 4096:
            self._do(_kernel(_COLUMNS), x, out)
            return out
        return super().sum(x, axis=axis, out=out)

    def argmax(self, x: Array, *, out: Array) -> Array:
        if x.ndim >= 2 and 0 < x.size <= _SMALL and _plain(x) and out.flags.c_contiguous:
            self._do(_kernel(_ARGMAX), _rows(x), out.reshape(-1))
            return out
        return super().argmax(x, out=out)

    def gather(
        self, x: Array, index: Array, *, out: Array, scale: Array | float = 1.0, shift: Array | float = 0.0
    ) -> Array:
        as_it_is = np.isscalar(scale) and scale == 1.0 and np.isscalar(shift) and shift == 0.0
        small = x.ndim <= 2 and x.dtype == out.dtype and 0 < out.size <= _SMALL
        if as_it_is and small and all(_plain(a, "fdl") for a in (x, index, out)):
            if x.ndim == 1:
                self._do(_kernel(_TAKE), x, index.reshape(-1), out.reshape(-1))
            else:
                self._do(_kernel(_GATHER), x, index.reshape(-1), _rows(out))
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
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return processors == 1 or next((os.environ[name] for name in asked if name in os.environ), "") == "1"


def _plain(a: Array, kinds: Iterable[str] = _KINDS) -> bool:
    return isinstance(a, np.ndarray) and a.flags.c_contiguous and a.dtype.char in kinds


def _layout(
    args: Sequence[Array], outs: Sequence[Array]
) -> tuple[int, list[Array], list[tuple[int, ...]]] | None:
    """Reduce a call to loops over as few axes as possible.

    Returns the number of loops, a view of each array with only the axes it varies along, and which loops those
    are; None where an array is not contiguous or has another type than loops are made for.
    """
    shape = outs[0].shape
    arrays = [np.asarray(a) for a in (*args, *outs)]
    if any(o.shape != shape or o.dtype != outs[0].dtype for o in outs):
        return None
    if outs[0].dtype.char not in _KINDS or not all(a.flags.c_contiguous for a in arrays):
        return None
    if any(a.ndim > len(shape) or a.dtype.char not in "fdl?" for a in arrays):
        return None
    full = [(1,) * (len(shape) - a.ndim) + a.shape for a in arrays]
    groups: list[tuple[tuple[bool, ...], int]] = []  # who varies along an axis, and its length
    for axis, length in enumerate(shape):
        if length == 1:
            continue
        who = tuple(f[axis] != 1 for f in full)
        if groups and groups[-1][0] == who:
            groups[-1] = (who, groups[-1][1] * length)
        else:
            groups.append((who, length))
    views, indices = [], []
    for k, a in enumerate(arrays):
        mine = tuple(g for g, (who, _) in enumerate(groups) if who[k])
        dims = tuple(groups[g][1] for g in mine) or (1,)
        if prod(dims) != a.size:
            return None
        views.append(a.reshape(dims))
        indices.append(mine)
    return len(groups), views, indices


def _names(views: Sequence[Array], n_args: int) -> tuple[list[str], list[Array]]:
    """Name the arrays; those that are one and the same memory get one name.

    Only so can the compiler see that an update in place is one, and work on several elements at a time.
    """
    names: list[str] = []
    known: dict[tuple[int, tuple[int, ...]], str] = {}
    distinct = []
    for k, view in enumerate(views):
        key = (view.__array_interface__["data"][0], view.shape)
        if key not in known:
            known[key] = f"a{k}" if k < n_args else f"o{k - n_args}"
            distinct.append(view)
        names.append(known[key])
    return names, distinct


def _source(
    program: Program, axes: int, names: Sequence[str], indices: Sequence[tuple[int, ...]], char: str
) -> str:
    """Write the program as nested loops over `axes` axes."""

    def element(name: str, mine: tuple[int, ...]) -> str:
        return f"{name}[{', '.join(f'i{g}' for g in mine) or '0'}]"

    place = [element(name, mine) for name, mine in zip(names, indices, strict=True)]
    first = names[program.n_args]  # an output varies along every axis

    def show(ref: Ref) -> str:
        kind, value = ref
        if kind == "const":
            text = (
                "np.nan"
                if value != value
                else repr(value)
                if abs(value) != np.inf
                else f"{'-' * (value < 0)}np.inf"
            )
            return f"{_KINDS[char]}({text})"
        return {"arg": f"x{value}", "reg": f"r{value}", "breg": f"b{value}", "out": f"y{value}"}[kind]

    # Every argument is read before anything is written: an output may be an input.
    body = [f"x{i} = {place[i]}" for i in range(program.n_args)]
    for step in program.instructions:
        operands = [show(r) for r in step.operands]
        infix = _INFIX.get(step.op)
        value = (
            f"{operands[0]} {infix} {operands[1]}" if infix else (_CALLS | _FAST)[step.op].format(*operands)
        )
        body.append(f"{show(step.target)} = {value}")
    body += [f"{place[program.n_args + k]} = y{k}" for k in range(program.n_out)]
    lines = [f"def kernel({', '.join(dict.fromkeys(names))}):"]
    lines += ["    " * (g + 1) + f"for i{g} in range({first}.shape[{g}]):" for g in range(axes)]
    lines += ["    " * (axes + 1) + line for line in body]
    return "\n".join(lines) + "\n"


_lock = threading.Lock()  # two threads may train with a back end each
_kernels: dict[str, Callable[..., None]] = {}
_sources: dict[Callable[..., None], str] = {}

_HEADER = """import numpy as np
from numba import njit

from xpnet.backend import elementary, pointers, products

# {digest}

"""


@functools.cache
def _header() -> str:
    """What a kernel's file begins with; another one where the modules that it calls have changed."""
    here = Path(__file__).parent
    parts = b"".join((here / f"{name}.py").read_bytes() for name in ("elementary", "pointers", "products"))
    return _HEADER.format(digest=hashlib.sha256(parts).hexdigest()[:16])


_INNER = '@njit(error_model="numpy")'
_OUTER = '@njit(error_model="numpy", cache=True, nogil=True)'


def _kernel(source: str) -> Callable[..., None]:
    """Compile the function ``kernel`` in `source`; its machine code is kept on disk beside a copy of the source."""
    with _lock:
        return _compiled(source)


def _compiled(source: str) -> Callable[..., None]:
    if source not in _kernels:
        text = _header() + source.replace("def kernel_", f"{_INNER}\ndef kernel_")
        text = text.replace("def kernel(", f"{_OUTER}\ndef kernel(")
        name = f"xpnet_kernel_{hashlib.sha256(text.encode()).hexdigest()[:24]}"
        path = _folder() / f"{name}.py"
        if not path.exists():
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, path)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # Numba looks the module up when it loads machine code from disk
        spec.loader.exec_module(module)
        _kernels[source] = module.kernel
        _sources[module.kernel] = source
    return _kernels[source]


def _folder() -> Path:
    import pooch

    folder = Path(os.environ.get("XPNET_CACHE") or pooch.os_cache("xpnet")) / "kernels"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
