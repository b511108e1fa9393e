"""Work of one step shared by several threads, as code that can be compiled. Needs Numba; only generated code and
`team.py` import this module.

All threads of a team run through the same operations in the same order. Each operation that is worth it is cut into
pieces along its rows. The thread that trains opens an operation, works on pieces from the front until none is left,
and waits for those that others have begun; helpers take pieces from the back. Nobody is waited for who has not begun:
when the machine gives a helper no time, the step goes on without it, at the speed of one thread. The pieces do not
depend on who does them, so neither do the results.

Every run of an operation has a number of its own, its tag, which only grows. The word `_OPEN` holds the tag of the
operation at work and how many of its pieces, at most 255, are taken from either end; a piece is taken by exchanging
that word, which fails for helpers that come late.
"""

from __future__ import annotations

import os
import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic as _typed_intrinsic

from .pointers import function

intrinsic: Any = _typed_intrinsic  # whoever calls one leaves out its first argument, which is Numba's

_I64 = ir.IntType(64)
_X86 = platform.machine().lower() in ("x86_64", "amd64")

#: Words of a team's memory, each on a cache line of its own.
_OPEN, _DONE, RUN, REST, _CLOCK = 0, 8, 16, 24, 32
WORDS = 40
#: Words of the record of a run: its table of operations, how many they are, how often they are done, the first tag.
TABLE, OPERATIONS, TIMES, FIRST = range(4)
#: Words of an operation in the table: its machine code, what that is called with, rows in all, rows of a piece.
_ENTRY, _ADDRESSES, _LENGTHS, _ROWS, _STEP, _END = range(6)
#: Looks for work before a helper without work goes to sleep: a millisecond or less.
_LOOKS = 20_000
#: Every so many looks, some microseconds, a thread that waits lets others have its processor, if they share it.
_PATIENCE = 256


def _atomic(result: Any, n_arguments: int, write: Any) -> Any:
    """What an intrinsic on word `word` of the memory at `address` returns: its signature and its code."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, word, *values = arguments
        place = builder.inttoptr(builder.add(address, builder.mul(word, _I64(8))), _I64.as_pointer())
        found = write(builder, place, *values)
        return context.get_dummy_value() if result is types.void else found

    return result(*[types.int64] * n_arguments), code


@intrinsic
def read(typing_context: Any, address: Any, word: Any) -> Any:
    """The word, and with it all that was written before it."""
    return _atomic(types.int64, 2, lambda b, place: b.load_atomic(place, "acquire", 8))


@intrinsic
def _write(typing_context: Any, address: Any, word: Any, value: Any) -> Any:
    """Write the word after all that was written before."""
    return _atomic(types.void, 3, lambda b, place, value: b.store_atomic(value, place, "release", 8))


@intrinsic
def _exchange(typing_context: Any, address: Any, word: Any, old: Any, new: Any) -> Any:
    """Replace `old` by `new` and tell whether it was there."""

    def code(b: Any, place: Any, old: Any, new: Any) -> Any:
        return b.extract_value(b.cmpxchg(place, old, new, "acq_rel", "acquire"), 1)

    return _atomic(types.boolean, 4, code)


@intrinsic
def _add(typing_context: Any, address: Any, word: Any, value: Any) -> Any:
    return _atomic(types.int64, 3, lambda b, place, value: b.atomic_rmw("add", place, value, "acq_rel"))


def _called(builder: Any, name: str, result: Any) -> Any:
    module = builder.module
    return builder.call(
        module.globals.get(name) or ir.Function(module, ir.FunctionType(result, []), name), []
    )


@intrinsic
def _pause(typing_context: Any) -> Any:
    """Tell the processor that this is a loop that waits."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _X86:
            _called(builder, "llvm.x86.sse2.pause", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def _yield(typing_context: Any) -> Any:
    """Let another thread have the processor."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if os.name == "posix":
            _called(builder, "sched_yield", ir.IntType(32))
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def _call(typing_context: Any, function: Any, addresses: Any, lengths: Any, me: Any, lo: Any, hi: Any) -> Any:
    """Call a compiled function by its address."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_I64] * 5)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), code


@function
def _waited(looks: Any) -> Any:
    """Wait for a moment; `looks` counts them."""
    if looks % _PATIENCE == _PATIENCE - 1:
        _yield()
    else:
        _pause()
    return looks + 1


@function
def _taken(team: Any, me: Any, tag: Any, rows: Any, step: Any) -> Any:
    """The first row of a piece that this thread has taken, or -1 where there is none any more."""
    pieces = (rows + step - 1) // step
    while True:
        now = read(team, _OPEN)
        if now >> 16 != tag:
            return -1
        front, back = (now >> 8) & 255, now & 255
        if front + back >= pieces:
            break
        if _exchange(team, _OPEN, now, now + (256 if me == 0 else 1)):
            return (front if me == 0 else pieces - 1 - back) * step
    looks = 0
    while me == 0 and read(team, _DONE) < back:
        looks = _waited(looks)
    return -1


@function
def begin(team: Any, me: Any, tag: Any, rows: Any, step: Any) -> Any:
    """The first row of this thread's first piece of operation `tag`, pieces having `step` rows; or -1."""
    if step >= rows:
        return 0 if me == 0 else -1
    if me == 0:
        _write(team, _DONE, 0)
        _write(team, _OPEN, tag << 16)
    else:
        looks = 0
        while read(team, _OPEN) >> 16 < tag:
            looks = _waited(looks)
    return _taken(team, me, tag, rows, step)


@function
def proceed(team: Any, me: Any, tag: Any, rows: Any, step: Any) -> Any:
    """The first row of this thread's next piece, when it is done with one; or -1 when the operation is done."""
    if step >= rows:
        return -1
    if me != 0:
        _add(team, _DONE, 1)
    return _taken(team, me, tag, rows, step)


@function
def _work(team: Any, me: Any, record: Any, first: Any) -> None:
    """Do this thread's share of all operations, one after another, as often as the record says."""
    tag = first
    for _ in range(read(record, TIMES)):
        operation = read(record, TABLE)
        for _ in range(read(record, OPERATIONS)):
            rows, step = read(operation, _ROWS), read(operation, _STEP)
            lo = begin(team, me, tag, rows, step)
            while lo >= 0:
                addresses, lengths = read(operation, _ADDRESSES), read(operation, _LENGTHS)
                _call(read(operation, _ENTRY), addresses, lengths, me, lo, min(lo + step, rows))
                lo = proceed(team, me, tag, rows, step)
            operation += 8 * _END
            tag += 1


@function
def lead(team: Any, record: Any) -> None:
    """Run the function of a record, with whoever helps."""
    first = read(team, _CLOCK) + 1  # above the tag of whatever was open before
    _write(team, _CLOCK, first + read(record, OPERATIONS) * read(record, TIMES))
    _write(record, FIRST, first)
    _write(team, RUN, record)
    _work(team, 0, record, first)


@function
def help_out(team: Any, me: Any) -> None:
    """Work on what the leader runs, until there is nothing to do for a while or rest is asked for."""
    last, looks = -1, 0
    while looks < _LOOKS and read(team, REST) == 0:
        record = read(team, RUN)
        first = read(record, FIRST) if record != 0 else last
        if first == last:
            looks = _waited(looks)
            continue
        last, looks = first, 0
        _work(team, me, record, first)
