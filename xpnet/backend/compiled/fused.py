"""Runs of captured calls joined into one, which compiled code makes.

A step of a small network is twenty calls of a few microseconds, and Python needs about as long to make them as
they take. Here the calls that have compiled twins (the kernels of `backend.py`, and matrix products, which Numba
hands to BLAS) become a table: of each the address of its machine code, those of its buffers, and their lengths. A
loop over the table makes the calls. Machine code depends on what a call does and on no size, and is kept on disk: all
networks share it. Where a `Team` trains, long loops and products among the calls are cut into pieces for its threads.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from .jit import Kernel, compiled

if TYPE_CHECKING:
    from .team import Team

Call = Callable[[], Any]

#: Words of a call in the table: machine code, addresses, lengths, rows in all, rows of a piece; see `shares`.
OPERATION = 5
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


def fuse(tape: Sequence[partial[Any]], team: Team) -> list[Call]:
    """Return calls that do what `tape` does, with its compilable runs as one call each.

    Parameters
    ----------
    tape : sequence of partial
        Functions bound to the buffers they work on.
    team : Team
        The threads that run the joined calls.
    """
    calls: list[Call] = []
    for compilable, run in groupby(tape, _compilable):
        members = list(run)
        # a loop alone is worth joining for its pieces, and only then told which thread does them
        loop = isinstance(members[0], Loop) and (team.size > 1 or members[0].each)
        join = compilable and (len(members) > 1 or loop)
        calls += [Joined(members, team)] if join else members
    return calls


def _compilable(call: partial[Any]) -> bool:
    if isinstance(call.func, Kernel):
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


def _call(call: partial[Any]) -> tuple[str, list[np.ndarray]]:
    """The source of a call, a function ``kernel`` of arrays, a first row and the one after the last; the arrays."""
    if isinstance(call.func, Kernel):
        return call.func.source, list(call.args[:-2])
    operands = _product(*call.args)
    assert operands is not None
    stack = next((name for name, (x, _) in zip("abc", operands, strict=True) if x.ndim == 3), None)
    names = (f"{n}{'[q]' * (x.ndim == 3)}{turn}" for n, (x, turn) in zip("abc", operands, strict=True))
    loop = "" if stack is None else f"    for q in range({stack}.shape[0]):\n    "
    return f"def kernel(a, b, c, lo, hi):\n{loop}    np.dot({', '.join(names)})\n", [x for x, _ in operands]


def _entry(source: str, arrays: Sequence[np.ndarray], each: bool) -> str:
    """The body of `source` as a function of two lists, the addresses and the lengths of its arrays.

    With `each`, the last array has a row for each thread, and `me` says which it is.
    """
    head, _, body = source.partition(":\n")
    *names, lo, hi = head.removeprefix("def kernel(").removesuffix(")").split(", ")
    lines, axes = [f"def entry(p, n, me, {lo}, {hi}):"], 0
    for k, (name, a) in enumerate(zip(names, arrays, strict=True)):
        shape = "".join(f"pointers.word(n, {axes + axis}), " for axis in range(a.ndim))
        own = "[me]" if each and a is arrays[-1] else ""
        lines.append(f"    {name} = pointers.{_LETTERS[a.dtype.char]}(p, {k}, ({shape})){own}")
        axes += a.ndim
    return "\n".join([*lines, body])


class Joined:
    """Calls that compiled code makes, and all that they work on.

    Attributes
    ----------
    keeps : list of partial
        The calls; they hold the buffers, whose addresses the table has.
    pieces : (calls, 2) int64
        Of each call: rows in all, rows of a piece.
    """

    def __init__(self, run: Sequence[partial[Any]], team: Team):
        self.keeps = list(run)
        self._loops = [call if isinstance(call, Loop) else None for call in run]
        self._numbers: list[np.ndarray] = []  # addresses and lengths of each call
        self._table = np.ones((len(run), OPERATION), np.int64)
        for row, call, loop in zip(self._table, run, self._loops, strict=True):
            source, arrays = _call(call)
            arrays = [a.reshape(1) if a.ndim == 0 else a for a in arrays]
            function = compiled(_entry(source, arrays, loop is not None and loop.each))
            addresses = np.array([a.ctypes.data for a in arrays], np.int64)
            lengths = np.array([n for a in arrays for n in a.shape], np.int64)
            self._numbers += [addresses, lengths]
            row[:3] = function.address, addresses.ctypes.data, lengths.ctypes.data
        self.pieces = self._table[:, 3:]
        self.team, self._threads = team, 0
        self._place = self.record(self, 1)

    def record(self, owner: object, n: int) -> int:
        """The address of what a team needs to make the calls `n` times, which lives as long as `owner`."""
        record = np.array([self._table.ctypes.data, len(self._table), n, 0], np.int64)
        weakref.finalize(owner, self.team.forget, record).atexit = False
        return int(record.ctypes.data)

    def __call__(self) -> None:
        self.run(self._place)

    def run(self, record: int) -> None:
        """Do what a record of these calls says."""
        if self._threads != self.team.size:
            self._cut()
        self.team.run(record)

    def _cut(self) -> None:
        """Cut the operations into pieces for the team as it is now."""
        self._threads = self.team.size
        for pieces, loop in zip(self.pieces, self._loops, strict=True):
            if loop is not None:
                pieces[:] = loop.args[-1], loop.step(self._threads)


class Repeated:
    """Joined calls made several times in a row, for the price of one call of Python's."""

    def __init__(self, joined: Joined, n: int):
        self._joined = joined
        self._place = joined.record(self, n)

    def __call__(self) -> None:
        self._joined.run(self._place)
