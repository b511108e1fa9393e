"""What no side can be faster than: the matrix products of a step and nothing else."""

from __future__ import annotations

from itertools import cycle, islice

import numpy as np

from ..problem import Problem
from .side import Side


class Floor(Side):
    """The bare matmuls of a step, with ``out=``, on NumPy's BLAS: what no step built on that BLAS can beat."""

    name = "floor"

    def __init__(self, problem: Problem):
        super().__init__(problem)
        rng = np.random.default_rng(1)
        b, sizes = self.row.batch, self.row.sizes
        self._w = [w.copy() for w, _ in problem.weights]
        self._dw = [np.empty_like(w) for w in self._w]
        # operands stay ordinary numbers: no result is the operand of another product
        self._a = [rng.standard_normal((b, n), dtype=np.float32) for n in sizes[1:-1]]
        self._dz = [rng.standard_normal((b, n), dtype=np.float32) for n in sizes[1:]]
        self._z = [np.empty((b, n), np.float32) for n in sizes[1:]]
        self._dx = [np.empty((b, n), np.float32) for n in sizes[1:-1]]
        self._x = [x for x, _ in problem.batches()]
        self.reset()

    def reset(self) -> None:
        self._next = cycle(self._x)

    def run(self, n: int) -> None:
        for x in islice(self._next, n):
            inputs = (x, *self._a)
            for a, w, z in zip(inputs, self._w, self._z, strict=True):
                np.matmul(a, w.T, out=z)
            for i in range(len(self._w) - 1, -1, -1):
                np.matmul(self._dz[i].T, inputs[i], out=self._dw[i])
                if i:
                    np.matmul(self._dz[i], self._w[i], out=self._dx[i - 1])
