"""Threads that help with a step. Needs Numba."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from . import shares

_LEAD = "def kernel(team, record):\n    shares.lead(team, record)\n"
_HELP = "def kernel(team, me):\n    shares.help_out(team, me)\n"


class Team:
    """The thread that trains and its helpers, who sleep when there is nothing to do.

    Parameters
    ----------
    load : callable
        Compiles a source and returns the function named ``kernel`` in it.

    Attributes
    ----------
    size : int
        Threads in all; 1 outside of `of`.
    """

    def __init__(self, load: Callable[[str], Callable[..., Any]]):
        self.size = 1
        memory = np.zeros(shares.WORDS + 8, np.int64)
        at_line = -memory.ctypes.data % 64 // 8  # the beginning of a cache line
        self._words = memory[at_line : at_line + shares.WORDS]
        self.address = self._words.ctypes.data
        self._load = load
        self._lead: Callable[[int, int], None] | None = None
        self._bells: list[threading.Event] = []  # one for each helper
        self._asleep: set[threading.Event] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False

    @contextmanager
    def of(self, size: int) -> Iterator[None]:
        """Return a context in which the team has so many threads."""
        before = self.size
        self._resize(size)
        try:
            yield
        finally:
            self._resize(before)

    def _resize(self, size: int) -> None:
        if size == self.size:
            return
        self._closed = True
        self._words[shares.REST] = 1
        for bell, thread in zip(self._bells, self._threads, strict=True):
            bell.set()
            thread.join()
        # new helpers must not look into old work, which may be cut in other pieces now
        self._words[shares.REST] = self._words[shares.RUN] = 0
        self._closed, self.size = False, size
        help_out = self._load(_HELP) if size > 1 else None
        self._bells = [threading.Event() for _ in range(size - 1)]
        self._asleep = set(self._bells)
        self._threads = [
            threading.Thread(
                target=self._help, args=(help_out, me, bell), name=f"xpnet-helper-{me}", daemon=True
            )
            for me, bell in enumerate(self._bells, start=1)
        ]
        for thread in self._threads:
            thread.start()

    def _help(self, help_out: Callable[[int, int], None], me: int, bell: threading.Event) -> None:
        while True:
            bell.wait()
            bell.clear()
            if self._closed:
                return
            help_out(self.address, me)
            self._asleep.add(bell)

    def run(self, record: int) -> None:
        """Run what the record at an address describes (see `shares`)."""
        while self._asleep:
            self._asleep.pop().set()
        if self._lead is None:
            self._lead = self._load(_LEAD)
        self._lead(self.address, record)

    def forget(self, record: np.ndarray) -> None:
        """Return when no helper can be at work on a record, whose memory is going to be freed."""
        self._words[shares.REST] = 1
        # garbage may be collected in any thread, and a helper that does so is not at work
        others = len(self._bells) - (threading.current_thread() in self._threads)
        while len(self._asleep) < others:
            time.sleep(0)
        if self._words[shares.RUN] == record.ctypes.data:
            self._words[shares.RUN] = 0
        self._words[shares.REST] = 0
