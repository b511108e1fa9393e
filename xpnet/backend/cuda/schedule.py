"""Which operations of a recorded step can run side by side.

A step is recorded as operations with the bytes they read and write. From that follows what has to wait for what, so
that bookkeeping (the loss, the count of correct answers) and the gradient of the weights run beside the chain that
decides how long a step takes. Results do not change: only operations that do not touch the same bytes change places.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

#: Streams that a captured step uses at most.
LANES = 3


@dataclass(frozen=True)
class Operation:
    """One launch.

    Attributes
    ----------
    what : str
        For people.
    run : callable
        ``run(lane)`` asks for it; the lane's number says which stream and workspace it may use.
    reads, writes : tuple of range
        Bytes of memory, each from the first that is touched to the last.
    """

    what: str
    run: Callable[[int], Any]
    reads: tuple[range, ...]
    writes: tuple[range, ...]


def region(address: int, x: Any) -> range:
    """The bytes of memory from the first element of the array `x` at `address` to its last."""
    if not x.size:
        return range(address, address)
    reach = sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True))
    return range(address, address + reach + x.dtype.itemsize)


def pointers(name: str, source: str) -> tuple[str, ...]:
    """For each parameter of a kernel: memory that it only reads ("r"), that it writes ("w"), or a number ("").

    >>> pointers("k", 'extern "C" __global__ void k(const float* x, float* y, const int n) {}')
    ('r', 'w', '')
    """
    found = re.search(rf"\b{name}\(([^)]*)\)\s*{{", source)
    if found is None:
        raise ValueError(f"no kernel {name!r} in its source")
    parameters = [p.split() for p in found.group(1).replace("*", " * ").split(",")]
    return tuple("" if "*" not in p else "r" if p[0] == "const" else "w" for p in parameters)


def launch(
    what: str, run: Callable[[int], Any], kinds: Sequence[str], args: Sequence[Any], address: Callable[[Any], int]
) -> Operation:  # fmt: skip
    """The operation of a kernel with these arguments; what it writes it may have read, as a formula in place does."""
    touched = [(kind, region(address(a), a)) for kind, a in zip(kinds, args, strict=True) if kind]
    return Operation(
        what, run, tuple(r for _, r in touched), tuple(r for kind, r in touched if kind == "w")
    )  # fmt: skip


def meet(a: Sequence[range], b: Sequence[range]) -> bool:
    """Whether any bytes are in both."""
    return any(x.start < y.stop and y.start < x.stop for x in a for y in b)


def dependencies(operations: Sequence[Operation]) -> list[set[int]]:
    """For each operation, the earlier ones it has to wait for directly.

    Examples
    --------
    >>> a, b = range(0, 8), range(8, 16)
    >>> ops = [Operation("w", print, (), (a,)), Operation("r", print, (a,), (b,)), Operation("r2", print, (a,), ())]
    >>> dependencies(ops)
    [set(), {0}, {0}]
    """
    found: list[set[int]] = []
    before: list[set[int]] = []  # all that an operation comes after, directly or not
    for i, op in enumerate(operations):
        direct: set[int] = set()
        known: set[int] = set()
        for j in range(i - 1, -1, -1):
            if j in known:
                continue
            other = operations[j]
            if meet(op.reads, other.writes) or meet(op.writes, other.writes) or meet(op.writes, other.reads):
                direct.add(j)
                known |= before[j] | {j}
        found.append(direct)
        before.append(known)
    return found


def lanes(waits_for: Sequence[set[int]], n: int = LANES) -> list[int]:
    """Give each operation a lane; operations of one lane run one after another.

    An operation follows the last one it waits for where that is the end of a lane, so that the longest chain stays
    together; else it takes a lane whose end it comes after anyway, or an unused one, or the one that ended first.
    """
    ends: list[int] = []  # the last operation of each lane
    chosen: list[int] = []
    after: list[set[int]] = []
    for i, direct in enumerate(waits_for):
        before = set().union(*(after[j] | {j} for j in direct)) if direct else set()
        after.append(before)
        lane = next((ends.index(j) for j in sorted(direct, reverse=True) if j in ends), None)
        if lane is None:
            lane = next((k for k, end in enumerate(ends) if end in before), None)
        if lane is None:
            lane = len(ends) if len(ends) < n else min(range(n), key=lambda k: ends[k])
        if lane == len(ends):
            ends.append(i)
        ends[lane] = i
        chosen.append(lane)
    return chosen
