"""Time several sides in turn, round by round, so that a busy moment of the machine hits all of them."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Entrant:
    """One side of a contest.

    Attributes
    ----------
    name : str
    run : callable
        ``run(n)`` does the work n times and returns when it is done, device included.
    prepare : callable
        Called before each sample, outside the clock.
    multiple : int
        `run` takes multiples of it.
    context : callable
        Returns a context that every run is in; entering and leaving it is outside the clock.
    samples : list of float
        Seconds per piece of work, one per round.
    count : int
        Pieces of work in each sample.
    """

    name: str
    run: Callable[[int], None]
    prepare: Callable[[], None] = lambda: None
    multiple: int = 1
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    samples: list[float] = field(default_factory=list)
    count: int = 0


def interleave(
    entrants: list[Entrant], *, rounds: int = 30, sample_seconds: float = 5e-3, settle: float = 0.0,
    max_seconds: float = math.inf,
) -> None:  # fmt: skip
    """Fill the samples of all entrants.

    Each sample is one stretch of `sample_seconds` or more. Before it the side goes back to its start, the pause
    `settle` lets the waiting threads of the side before fall asleep, and an unmeasured run wakes this side's
    threads and brings its arrays into the caches again. The order turns by one from round to round. At least 5
    rounds are done, whatever `max_seconds` says.
    """
    for e in entrants:
        with e.context():
            _calibrate(e, sample_seconds)
    started = time.perf_counter()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            if turn >= 5 and time.perf_counter() - started > max_seconds:
                break
            k = turn % len(entrants)
            for e in (*entrants[k:], *entrants[:k]):
                e.prepare()
                with e.context():
                    time.sleep(settle)
                    e.run(e.multiple if e.multiple > 1 else max(1, e.count // 4))
                    e.samples.append(_timed(e.run, e.count) / e.count)
            gc.collect()
    finally:
        if was_enabled:
            gc.enable()


def _calibrate(e: Entrant, sample_seconds: float) -> None:
    """Find how many pieces of work fill a sample, by the shortest of three, so that a stall does not count."""
    e.prepare()
    e.run(e.multiple)  # compiles
    e.count = e.multiple
    for _ in range(2):  # a cold first estimate, then one at nearly the final count
        e.prepare()
        taken = min(_timed(e.run, e.count) for _ in range(3))
        wanted = sample_seconds * e.count / max(taken, 1e-9)
        e.count = max(1, math.ceil(wanted / e.multiple)) * e.multiple


def _timed(run: Callable[[int], None], n: int) -> float:
    started = time.perf_counter()
    run(n)
    return time.perf_counter() - started
