"""One class per side. Each trains the same network on the same batches, written as its library's experts would.

A side is made from a `Problem` and can

* ``run(n)``       train on the next n prepared batches, and return when the last one is really done;
* ``reset()``      go back to the initial weights, moments and batch;
* ``outputs(x)``   give what the last layer says before softmax, up to a constant per row, as a NumPy array;
* ``predict(x)``   give class indices as a NumPy array, the way a user of the library would;
* ``epoch()``      shuffle all samples, train on them once and know the mean loss.

Batches lie ready in the library's own arrays, in memory; nobody's step pays for a conversion. Waiting for the
device happens once, at the end of ``run``, which favours libraries that work ahead (JAX).
"""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np

from ..problem import Problem


class Side:
    """Base of all sides.

    Attributes
    ----------
    name : str
        As in `grid.Goal` and on the command line.
    needs : tuple of str
        Modules that must be installed.
    multiple : int
        `run` takes multiples of it.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    multiple = 1

    def __init__(self, problem: Problem):
        self.problem, self.row = problem, problem.row
        self.lr = self.row.lr

    @classmethod
    def missing(cls) -> str | None:
        """Why this side cannot run here, or None."""
        absent = [name for name in cls.needs if importlib.util.find_spec(name) is None]
        return f"{', '.join(absent)} not installed" if absent else None

    def reset(self) -> None:
        raise NotImplementedError

    def run(self, n: int) -> None:
        raise NotImplementedError

    def context(self) -> AbstractContextManager[Any]:
        """What a user's training loop would be in around `run`."""
        return nullcontext()

    def outputs(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def predict(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def epoch(self) -> float:
        raise NotImplementedError
