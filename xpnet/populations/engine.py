"""Blocks at work: members wait in a queue, and workers train blocks of them until all are done."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import pairwise
from typing import Any

import numpy as np

from ..backend import Backend, get_backend
from ..training.failures import device_errors
from ..training.history import History
from ..training.signals import Signals
from .block import Block, finished
from .group import Group
from .members import Member
from .results import MemberResult

Make = Callable[[Member], Any]  # a member's own model, not trained

# Of this share of its members, those that are done stay in a block on a device: they cost less than a new block, whose
# steps have to be recorded first.
_LINGERING = 1 / 8


class _Stopped(Exception):
    """Another worker failed, or training was interrupted."""


class Waiting:
    """The members of a group that nobody trains yet; any worker may take some."""

    def __init__(self, members: list[Member]):
        self._members = deque(members)
        self._lock = threading.Lock()

    def take(self, n: int) -> list[Member]:
        """Return up to `n` of them, which are then no longer waiting."""
        with self._lock:
            return [self._members.popleft() for _ in range(min(n, len(self._members)))]

    def __len__(self) -> int:
        return len(self._members)


def run(
    group: Group, make: Make, device: Any, *, size: int, workers: int, threads: int | None, signals: Signals
) -> Iterator[MemberResult]:
    """Train a group and yield the results as they come, in the calling thread.

    Parameters
    ----------
    group : Group
    make : callable
    device : str or Backend
    size : int
        Members in a block.
    workers : int
        Blocks that are trained at the same time, each in a thread and on a back end of its own.
    threads : int, optional
        Of the matrix library, as for `Backend.tuned`; several workers have one each. The limit holds for the whole
        process meanwhile.
    signals : Signals
        Asked after every step.
    """

    def made(member: Member) -> Any:
        ready = group.ready.pop(member.index, None)
        return make(member) if ready is None else ready

    members = []
    for member in group.members:
        if member.training["epochs"] == 0:
            model = made(member)
            model.learns(group.task, group.loss)
            yield finished(member, model, History(), group.monitor)
        else:
            members.append(member)
    waiting = Waiting(members)
    backends = [get_backend(device) for _ in range(workers)]
    with device_errors(backends[0]), ExitStack() as contexts:
        for be in backends:
            contexts.enter_context(_tuned(be, group, 1 if workers > 1 else threads, size))
        if workers == 1:
            yield from _inline(group, waiting, backends[0], made, size, signals)
        else:
            yield from _threaded(group, waiting, backends, made, size, signals)


def _tuned(be: Backend, group: Group, threads: int | None, size: int) -> AbstractContextManager[Any]:
    sizes = group.network["sizes"]
    largest = max(i * o for i, o in pairwise(sizes))
    rows = min(group.batch_size, group.n_rows)
    return be.tuned(rows * largest, threads, members=min(size, len(group.members)))


def _inline(
    group: Group, waiting: Waiting, be: Backend, make: Make, size: int, signals: Signals
) -> Iterator[MemberResult]:
    ready: deque[MemberResult] = deque()
    # a generator that hands results out between two epochs, so that whoever gets one may raise
    for _ in _steps(group, waiting, be, make, size, ready.append, signals.check):
        while ready:
            yield ready.popleft()


def _steps(
    group: Group, waiting: Waiting, be: Backend, make: Make, size: int, give: Any, check: Any
) -> Iterator[None]:
    """Train blocks of at most `size` members until none is waiting; pauses whenever members are done."""
    block: Block | None = None
    keep: list[int] = []
    quiet = {"over": "ignore", "invalid": "ignore", "divide": "ignore"}
    while True:
        fresh = [(member, make(member)) for member in waiting.take(size - len(keep))]
        if not fresh and not keep:
            return
        with np.errstate(**quiet):  # type: ignore[arg-type]
            block = Block(group, be, fresh, block, keep)
        done: set[int] = set()
        most = 0 if be.device == "cpu" else int(_LINGERING * len(block))
        while len(done) <= most and len(done) < len(block):
            with np.errstate(**quiet):  # type: ignore[arg-type]
                new = block.epoch(check)
                for m in new:
                    give(block.result(m))
            done.update(new)
            if new and len(done) <= most:
                yield
        keep = [m for m in range(len(block)) if m not in done]
        block.close(entirely=not keep)
        yield


def _threaded(
    group: Group, waiting: Waiting, backends: list[Backend], make: Make, size: int, signals: Signals
) -> Iterator[MemberResult]:
    results: queue.Queue[MemberResult | BaseException | None] = queue.Queue()
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise _Stopped

    def work(be: Backend) -> None:
        try:
            for _ in _steps(group, waiting, be, make, size, results.put, check):
                pass
            results.put(None)
        except _Stopped:
            results.put(None)
        except BaseException as error:
            results.put(error)

    threads = [threading.Thread(target=work, args=(be,), daemon=True) for be in backends]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            try:
                got = results.get(timeout=0.1)
            except queue.Empty:
                signals.check()
                continue
            if isinstance(got, BaseException):
                raise got
            if got is None:
                running -= 1
            else:
                yield got
            signals.check()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
