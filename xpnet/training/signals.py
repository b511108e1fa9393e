"""Ctrl-C and SIGTERM while something must be finished first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop by a signal.

    Attributes
    ----------
    signum : int
    finished : bool
        Whether the step was finished first, so that the state can be saved. False after a second signal.
    results : PopulationResult or None
        Of `fit_many`: what is known about the members that ended before.
    """

    results: Any = None

    def __init__(self, signum: int, *, finished: bool = True):
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum, self.finished = signum, finished

    def __reduce__(self) -> Any:
        return type(self), (self.signum,), vars(self)  # a process of a pool sends it to the one that asked


class Signals:
    """Lets Ctrl-C and SIGTERM wait until somebody asks for them."""

    def __init__(self) -> None:
        self._arrived: int | None = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Return a context in which a signal is only noted; a second one interrupts at once.

        Outside the main thread signals stay as they are.
        """
        self._arrived = None
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(signum: int, frame: Any) -> None:
            if self._arrived is not None:
                raise Interrupted(signum, finished=False)
            self._arrived = signum

        before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                # None: it was installed by a program around Python, which signal() cannot put back
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    def check(self) -> None:
        """Raise `Interrupted` if a signal has arrived."""
        if self._arrived is not None:
            raise Interrupted(self._arrived)
