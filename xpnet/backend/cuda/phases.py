"""In which order the operations of many steps are done, where all that are done at a time begin and end together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from .. import Array
from .schedule import Call, Operation, dependencies, meet, region

#: Threads that the work of a phase may have beside it unnoticed.
_SMALL = 4096


def alternating(
    record: Sequence[Operation],
    address: Callable[[Array], int],
    empty: Callable[[tuple[int, ...], str], Array],
) -> tuple[Sequence[Operation], Sequence[Operation]]:
    """A step of an even and of an odd number: each has its batch in memory of its own.

    So one can fetch it while another is still in use.
    """
    others: dict[range, Array] = {}
    for fetch in record:
        for place in fetch.writes if fetch.what.startswith("gather_") else ():
            users = [o for o in record if meet((*o.reads, *o.writes), (place,))]
            if users[0] is fetch and all(_lies_in(a, place, address) for o in users for a in _arrays(o)):
                # nothing that an earlier step has left there is of use
                batch = next(a for a in _arrays(fetch) if region(address(a), a) == place)
                others[place] = empty((batch.size,), str(batch.dtype))

    def moved(x: Any) -> Any:
        place = None if isinstance(x, np.generic) else around(region(address(x), x))
        if place is None:
            return x
        first = (address(x) - place.start) // x.dtype.itemsize
        return others[place][first : first + x.size].reshape(x.shape)

    def around(r: range) -> range | None:
        return next((place for place in others if meet((r,), (place,))), None)

    def moved_range(r: range) -> range:
        place = around(r)
        if place is None:
            return r
        start = address(others[place]) - place.start
        return range(r.start + start, r.stop + start)

    def odd(operation: Operation) -> Operation:
        if operation.call is None:
            return operation
        reads, writes = (tuple(map(moved_range, ranges)) for ranges in (operation.reads, operation.writes))
        call = replace(operation.call, args=tuple(map(moved, operation.call.args)))
        return replace(operation, call=call, reads=reads, writes=writes)

    return record, [odd(operation) for operation in record]


def _lies_in(x: Array, place: range, address: Callable[[Array], int]) -> bool:
    """Whether an array is a piece of some memory, or has nothing to do with it."""
    r = region(address(x), x)
    return not meet((r,), (place,)) or (
        place.start <= r.start and r.stop <= place.stop and x.flags.c_contiguous
    )


def _arrays(operation: Operation) -> list[Array]:
    return [] if operation.call is None else [a for a in operation.call.args if not isinstance(a, np.generic)]


@dataclass(frozen=True)
class Turn:
    """An operation of a step, the phase in which it is done, and whether all would take longer if it were later."""

    number: int
    odd: bool
    phase: int
    urgent: bool
    work: int


def turns(records: Sequence[Sequence[Operation]], n: int) -> list[Turn]:
    """When each operation of each step is done: in as few phases as can be, and where there is least other work.

    So the next batch is fetched while few blocks are busy, not while a product needs them all.
    """
    size = len(records[0])
    waits_for = dependencies([operation for step in range(n) for operation in records[step % 2]])
    earliest: list[int] = []
    for direct in waits_for:
        earliest.append(1 + max((earliest[j] for j in direct), default=-1))
    latest = [max(earliest)] * len(waits_for)
    for i in reversed(range(len(waits_for))):
        for j in waits_for[i]:
            latest[j] = min(latest[j], latest[i] - 1)
    load = [0] * (max(earliest) + 1)
    work = [work_of(operation.call) for operation in records[0]]
    for i, (first, last) in enumerate(zip(earliest, latest, strict=True)):
        load[first] += work[i % size] if first == last else 0
    found: list[Turn] = []
    for i, direct in enumerate(waits_for):
        first = 1 + max((found[j].phase for j in direct), default=-1)
        small = work[i % size] <= _SMALL  # nobody notices it, and much may wait for it
        best = first if small else min(range(first, latest[i] + 1), key=load.__getitem__)
        urgent = earliest[i] == latest[i]
        load[best] += 0 if urgent else work[i % size]
        found.append(Turn(i % size, i // size % 2 == 1, best, urgent, work[i % size]))
    return found


def work_of(call: Call | None) -> int:
    return 0 if call is None else prod(call.grid) * prod(call.block)
