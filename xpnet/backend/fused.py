"""Runs of captured calls joined into one compiled function.

A step of a small network is twenty calls of a few microseconds, and Python needs about as long to make them as
they take. Here the calls that have compiled twins (the kernels of `compiled.py`, and matrix products, which Numba
hands to BLAS) become one function. It gets two arrays, the addresses of all buffers and their lengths, so the
machine code depends on what is done and on no size: networks that differ in widths or batch share it, and it is
kept on disk. Where a `Team` trains, long loops and products among the calls are cut into pieces for its threads.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .team import Team

Call = Callable[[], Any]

#: Pieces that a loop is cut into at most; `shares` counts up to 255.
MOST_PIECES = 64
# Multiplications that make a piece: about a microsecond of one thread; another one needs half of that to hear of it.
_PIECE = 50_000

# NumPy's type characters and their readers in `pointers`
_LETTERS = {"f": "f", "d": "d", "l": "l", "?": "b", "B": "B"}


class Loop(partial):
    """A call of a compiled kernel whose last two arguments are the first row and the one after the last."""

    def cut(self, work: float, grain: int = 1, each: bool = False) -> Loop:
        """Allow pieces of a multiple of `grain` rows, a row costing `work` multiplications.

        With `each`, the last array has a row for each thread.
        """
        self.work, self.grain, self.each = work, grain, each
        return self

    def step(self, threads: int) -> int:
        """Rows of a piece for a team of so many threads; all of them where the loop is not worth cutting."""
        rows = self.args[-1]
        if threads == 1 or (self.each and threads > len(self.args[-3])):
            return rows
        # several for each thread, because processors may be slowed down by others
        pieces = min(MOST_PIECES, 4 * threads, int(rows * self.work / _PIECE))
        if pieces < 2:
            return rows
        return -(-rows // (pieces * self.grain)) * self.grain


def fuse(
    tape: Sequence[partial[Any]],
    sources: Mapping[Callable[..., Any], str],
    load: Callable[[str], Callable[..., Any]],
    team: Team,
) -> list[Call]:
    """Return calls that do what `tape` does, with its compilable runs as one call each.

    Parameters
    ----------
    tape : sequence of partial
        Functions bound to the buffers they work on.
    sources : mapping
        The source of each compiled kernel, a function named ``kernel``.
    load : callable
        Compiles a source and returns its function.
    team : Team
        The threads that run the joined calls.
    """
    calls: list[Call] = []
    for compilable, run in groupby(tape, lambda call: _compilable(call, sources)):
        members = list(run)
        # a loop alone is worth joining for its pieces, and only then told which thread does them
        loop = isinstance(members[0], Loop) and (team.size > 1 or members[0].each)
        join = compilable and (len(members) > 1 or loop)
        calls += [_joined(members, sources, load, team)] if join else members
    return calls


def _compilable(call: partial[Any], sources: Mapping[Callable[..., Any], str]) -> bool:
    if call.func in sources:
        return not call.keywords
    return call.func in (np.dot, np.matmul) and not call.keywords and _product(*call.args) is not None


def _base(a: np.ndarray) -> tuple[np.ndarray, str] | None:
    """The C-contiguous array behind `a`, and how to get back: as it is, or with its last two axes swapped."""
    if a.flags.c_contiguous:
        return a, ""
    swapped = a.swapaxes(-1, -2)
    return (swapped, ".T") if swapped.flags.c_contiguous else None


def _product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> list[tuple[np.ndarray, str]] | None:
    """The operands of a product that compiled code can hand to BLAS, with their orientation."""
    same = a.dtype == b.dtype == out.dtype and out.dtype.char in "fd" and out.flags.c_contiguous
    vectors = 1 in (a.ndim, b.ndim) and a.ndim + b.ndim == 3 and out.ndim == 1
    matrices = a.ndim in (2, 3) and b.ndim in (2, 3) and out.ndim == max(a.ndim, b.ndim)
    if not same or not (vectors or matrices) or 0 in (a.size, b.size):
        return None
    lengths = {x.shape[0] for x in (a, b, out) if x.ndim == 3}
    if len(lengths) > 1:  # a population of one that NumPy would stretch
        return None
    bases = [_base(x) if x.ndim > 1 else (x, "") for x in (a, b, out)]
    return None if None in bases else bases  # type: ignore[return-value]


class _Writer:
    """Writes one function, and lists the buffers it is to be called with."""

    def __init__(self) -> None:
        self.names: dict[tuple[int, tuple[int, ...], str], str] = {}
        self.addresses: list[int] = []
        self.lengths: list[int] = []
        self.head: list[str] = []
        self.body: list[str] = []
        self.loops: list[Loop | None] = []  # each operation, where it can be cut

    def name(self, a: np.ndarray) -> str:
        """The variable that stands for buffer `a`, declared on first sight."""
        a = a.reshape(1) if a.ndim == 0 else a
        key = (a.ctypes.data, a.shape, a.dtype.char)
        if key not in self.names:
            k, n = len(self.addresses), len(self.lengths)
            self.names[key] = f"a{k}"
            shape = "".join(f"pointers.word(n, {n + axis}), " for axis in range(a.ndim))
            self.head.append(f"a{k} = pointers.{_LETTERS[a.dtype.char]}(p, {k}, ({shape}))")
            self.addresses.append(a.ctypes.data)
            self.lengths += a.shape
        return self.names[key]

    def product(self, operands: Sequence[tuple[np.ndarray, str]]) -> None:
        """A product by the matrix library, which the thread that trains calls."""
        stack = next((self.name(x) for x, _ in operands if x.ndim == 3), None)
        each = ["[q]" if x.ndim == 3 else "" for x, _ in operands]
        a, b, out = (f"{self.name(x)}{e}{turn}" for (x, turn), e in zip(operands, each, strict=True))
        loop = [] if stack is None else [f"for q in range({stack}.shape[0]):"]
        self._operation([*loop, f"{'    ' * len(loop)}np.dot({a}, {b}, {out})"])

    def loop(self, kernel: str, call: Loop) -> None:
        """A kernel, piece by piece."""
        arrays = call.args[:-2]
        names = ", ".join(self.name(a) for a in arrays) + "[me]" * call.each
        self._operation([f"{kernel}({names}, lo, min(lo + step, rows))"], call)

    def _operation(self, lines: list[str], loop: Loop | None = None) -> None:
        k = len(self.loops)
        self.loops.append(loop)
        self.body += [f"{'el' * (k > 0)}if k == {k}:", *(f"    {line}" for line in lines)]

    def function(self, name: str, arguments: str) -> str:
        """The function: all operations one after another, each in pieces."""
        n = len(self.lengths)
        lines = [
            *self.head,
            f"for k in range({len(self.loops)}):",
            f"    rows, step = pointers.word(n, {n} + 2 * k), pointers.word(n, {n} + 2 * k + 1)",
            "    lo = shares.begin(team, me, first + k, rows, step)",
            "    while lo >= 0:",
            *(f"        {line}" for line in self.body),
            "        lo = shares.proceed(team, me, first + k, rows, step)",
        ]
        return "\n".join([f"def {name}{arguments}:", *(f"    {line}" for line in lines)]) + "\n"


class Joined:
    """One compiled function, and all that it works on.

    Attributes
    ----------
    keeps : list of partial
        The calls that it does; they hold the buffers, whose addresses the function was given.
    """

    def __init__(self, function: Any, writer: _Writer, keeps: list[partial[Any]], team: Team):
        self.keeps = keeps
        self._addresses = np.array(writer.addresses, np.int64)
        # behind the lengths of all axes, of each operation: rows in all, rows of a piece
        self._lengths = np.array(writer.lengths + [1, 1] * len(writer.loops), np.int64)
        self._loops = writer.loops
        where = (function.address, self._addresses.ctypes.data, self._lengths.ctypes.data)
        self._record = np.array([*where, len(writer.loops), 0], np.int64)
        self._place = self._record.ctypes.data
        self._team, self._threads = team, 0
        weakref.finalize(self, team.forget, self._record).atexit = False

    def __call__(self) -> None:
        if self._threads != self._team.size:
            self._cut()
        self._team.run(self._place)

    def _cut(self) -> None:
        """Cut the operations into pieces for the team as it is now."""
        self._threads = self._team.size
        pieces = self._lengths[-2 * len(self._loops) :].reshape(-1, 2)
        for piece, loop in zip(pieces, self._loops, strict=True):
            if loop is not None:
                piece[:] = loop.args[-1], loop.step(self._threads)


def _joined(
    run: Sequence[partial[Any]],
    sources: Mapping[Callable[..., Any], str],
    load: Callable[[str], Callable[..., Any]],
    team: Team,
) -> Call:
    writer = _Writer()
    kernels: dict[str, str] = {}
    for call in run:
        source = sources.get(call.func)
        if source is None:
            operands = _product(*call.args)
            assert operands is not None
            writer.product(operands)
        else:
            assert isinstance(call, Loop)
            writer.loop(kernels.setdefault(source, f"kernel_{len(kernels)}"), call)
    inner = [source.replace("def kernel(", f"def {name}(") for source, name in kernels.items()]
    arguments = "(p, n, me, team, first)"
    joined = writer.function("kernel_joined", arguments)
    entry = f"def entry{arguments}:\n    kernel_joined{arguments}\n"
    return Joined(load("\n".join([*inner, joined, entry])), writer, list(run), team)
