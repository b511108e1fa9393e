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

#: Streams that a captured step uses at most: so many that the chain which decides how long a step takes has one, and
#: the next batch, the gradients of weights and biases and the bookkeeping need not wait for each other. Not measured.
LANES = 5


@dataclass(frozen=True, eq=False)
class Call:
    """A kernel with its arguments: arrays, and NumPy scalars of the types that the source says."""

    name: str
    source: str
    grid: tuple[int, int]
    block: tuple[int, int]
    args: tuple[Any, ...]


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
    call : Call or None
        The kernel, where it is one.
    """

    what: str
    run: Callable[[int], Any]
    reads: tuple[range, ...]
    writes: tuple[range, ...]
    call: Call | None = None


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
    call: Call, run: Callable[[int], Any], kinds: Sequence[str], address: Callable[[Any], int]
) -> Operation:
    """The operation of a kernel with these arguments; what it writes it may have read, as a formula in place does."""
    touched = [(kind, region(address(a), a)) for kind, a in zip(kinds, call.args, strict=True) if kind]
    writes = tuple(r for kind, r in touched if kind == "w")
    return Operation(call.name, run, tuple(r for _, r in touched), writes, call)


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
    before: list[int] = []  # all that an operation comes after, directly or not: bit j for operation j
    for i, op in enumerate(operations):
        direct: set[int] = set()
        known, left = (
            0,
            (1 << i) - 1,
        )  # of many steps there are a thousand, most of them known through a later one
        while left:
            j = left.bit_length() - 1
            other = operations[j]
            passed = 1 << j
            if meet(op.reads, other.writes) or meet(op.writes, other.writes) or meet(op.writes, other.reads):
                direct.add(j)
                passed |= before[j]
                known |= passed
            left &= ~passed
        found.append(direct)
        before.append(known)
    return found


def cost(operation: Operation) -> float:
    """A rough guess at how long an operation takes, for choosing among streams: microseconds on a large device."""
    return 2.0 + sum(len(r) for r in (*operation.reads, *operation.writes)) / 4e6


def lanes(waits_for: Sequence[set[int]], n: int = LANES, costs: Sequence[float] | None = None) -> list[int]:
    """Give each operation one of `n` lanes; operations of one lane run one after another.

    It takes the lane where it can begin first, if every operation takes what `costs` says (default: all the same); of
    equally good ones that of the last operation it waits for, so that the longest chain stays together.
    """
    ends: list[int] = []  # the last operation of each lane
    finish: list[float] = []
    chosen: list[int] = []
    for i, direct in enumerate(waits_for):
        ready = max((finish[j] for j in direct), default=0.0)
        start = [max(ready, finish[end]) for end in ends]

        def order(k: int, start: list[float] = start, direct: set[int] = direct) -> tuple[float, bool, int]:
            return start[k], ends[k] not in direct, -ends[k]

        lane = min(range(len(ends)), key=order, default=0)
        if len(ends) < n and (not ends or start[lane] > ready or ends[lane] not in direct):
            lane = len(ends)
            ends.append(i)
        ends[lane] = i
        finish.append((start[lane] if lane < len(start) else ready) + (costs[i] if costs else 1.0))
        chosen.append(lane)
    return chosen
