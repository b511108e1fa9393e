"""xpnet itself: one side for each of its back ends."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from ..grid import BETA1, BETA2, EPS, MOMENTUM
from ..problem import Problem
from .side import Side


class Xpnet(Side):
    """xpnet on NumPy: `Trainer.step` on the rows of each batch, which it gathers from all samples itself.

    Several steps are asked for at once where `Trainer.run` would ask so.
    """

    name = "xpnet"

    @staticmethod
    def device() -> Any:
        return "cpu"

    def __init__(self, problem: Problem):
        import xpnet

        super().__init__(problem)
        kinds: dict[str, Callable[[], Any]] = {
            "sgd": lambda: xpnet.SGD(lr=self.lr, momentum=MOMENTUM),
            "adam": lambda: xpnet.Adam(lr=self.lr, beta1=BETA1, beta2=BETA2, eps=EPS),
        }
        self.model = xpnet.MLP(self.row.sizes, activation="relu", device=self.device())
        self._initial = {
            f"layers.{i}.{kind}": values
            for i, pair in enumerate(problem.weights)
            for kind, values in zip(("weight", "bias"), pair, strict=True)
        }
        self.trainer = xpnet.Trainer(
            self.model, (problem.x, problem.y), optimizer=kinds[self.row.optimizer](),
            batch_size=self.row.batch, epochs=0,
        )  # fmt: skip
        whole = problem.n_batches * self.row.batch
        self._rows = np.arange(whole).reshape(problem.n_batches, self.row.batch)
        self.reset()

    def reset(self) -> None:
        self.model.set_weights(self._initial)
        for moment in self.trainer.step.update.moments.values():
            moment[...] = 0.0
        self.trainer.step.n_updates = 0
        self._next = 0

    def run(self, n: int) -> None:
        step, rows = self.trainer.step, self._rows
        at_once = step.at_once(min(n, len(rows)))
        while n:
            k = at_once if at_once <= min(n, len(rows) - self._next) else 1
            if k > 1:
                step.several(rows[self._next : self._next + k], [1.0] * k)
            else:
                step(rows[self._next])
            self._next = (self._next + k) % len(rows)
            n -= k
        self.model.be.synchronize()

    def context(self) -> AbstractContextManager[Any]:
        return self.trainer.tuned()

    def outputs(self, x: np.ndarray) -> np.ndarray:
        return self.model.outputs(x)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.model.predict(x)

    def epoch(self) -> float:
        self.trainer.epochs += 1
        return self.trainer.run()[-1]["train_loss"]


class XpnetNumba(Xpnet):
    """xpnet on NumPy with formulas compiled by Numba."""

    name = "xpnet.numba"
    needs = ("numba",)

    @staticmethod
    def device() -> Any:
        return "numba"


class XpnetReference(Xpnet):
    """xpnet's reference back end: every operation in plain Array-API calls on NumPy."""

    name = "reference"

    @staticmethod
    def device() -> Any:
        from xpnet.backend.reference import ReferenceBackend

        return ReferenceBackend(np)


class XpnetCuda(Xpnet):
    """xpnet on CuPy."""

    name = "cupy"
    needs = ("cupy",)

    @staticmethod
    def device() -> Any:
        return "cuda"

    @classmethod
    def missing(cls) -> str | None:
        import xpnet

        reason = super().missing()
        if reason is None:
            try:
                xpnet.get_backend("cuda")
            except xpnet.XpnetError as error:
                reason = str(error)
        return reason
