"""Keras, on whichever of its back ends is set."""

from __future__ import annotations

import importlib.util
import os
from itertools import cycle, islice

import numpy as np

from ..grid import BETA1, BETA2, EPS, MOMENTUM
from ..problem import Problem
from .side import Side


class Keras(Side):
    """Keras 3 (on JAX unless KERAS_BACKEND says otherwise): `train_on_batch`, compiled."""

    name = "keras"
    needs = ("keras",)

    def __init__(self, problem: Problem):
        os.environ.setdefault("KERAS_BACKEND", "jax")
        import keras

        super().__init__(problem)
        sizes = self.row.sizes
        self.net = keras.Sequential(
            [
                keras.Input((sizes[0],)),
                *(keras.layers.Dense(n, activation="relu") for n in sizes[1:-1]),
                keras.layers.Dense(sizes[-1]),
            ]
        )
        optimizer = (
            keras.optimizers.SGD(self.lr, momentum=MOMENTUM)
            if self.row.optimizer == "sgd"
            else keras.optimizers.Adam(self.lr, BETA1, BETA2, EPS)
        )
        loss = (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            if sizes[-1] > 1
            else keras.losses.BinaryCrossentropy(from_logits=True)
        )
        self.net.compile(optimizer, loss, jit_compile=True)
        optimizer.build(self.net.trainable_variables)
        self._start = [np.array(v) for v in optimizer.variables]
        self._batches = [(x, self._targets(y)) for x, y in problem.batches()]
        self.reset()

    def _targets(self, y: np.ndarray) -> np.ndarray:
        return y.astype("int32") if self.row.sizes[-1] > 1 else y.astype("float32")[:, None]

    @classmethod
    def missing(cls) -> str | None:
        backend = os.environ.get("KERAS_BACKEND", "jax")
        needed = {"jax": "jax", "torch": "torch", "tensorflow": "tensorflow"}.get(backend, backend)
        reason = super().missing()
        if reason is None and importlib.util.find_spec(needed) is None:
            reason = f"{needed}, the back end of Keras, not installed"
        return reason

    def reset(self) -> None:
        self.net.set_weights([v for w, b in self.problem.weights for v in (w.T, b)])
        for variable, value in zip(self.net.optimizer.variables, self._start, strict=True):
            variable.assign(value)
        self._next = cycle(self._batches)

    def run(self, n: int) -> None:
        step = self.net.train_on_batch
        for x, y in islice(self._next, n):
            loss = step(x, y)
        float(loss)

    def outputs(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.net.predict_on_batch(x))

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.argmax(self.net.predict_on_batch(x), axis=1)

    def epoch(self) -> float:
        history = self.net.fit(
            self.problem.x, self._targets(self.problem.y), batch_size=self.row.batch, epochs=1, verbose=0
        )
        return history.history["loss"][-1]
