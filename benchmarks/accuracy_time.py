"""Seconds of training until MNIST's test digits are recognised, for each library at its best.

All data are in memory as float32 before the clock starts; compiling counts for nobody (each library trains for a
few batches first). The clock runs while training, and stops while the test digits are looked at after each epoch.
xpnet, PyTorch and JAX share one recipe (below), scikit-learn has its own: it knows no schedule.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .grid import BETA1, BETA2, EPS, Row
from .peers import SIDES, Side, Torch
from .problem import Problem

TARGET, SKLEARN_TARGET = 0.98, 0.978
SEEDS = tuple(range(10))
#: 784-500-10, ReLU; Adam; batches of 128; one cycle that rises for 30 % of the steps, as the one-cycle schedules of
#: PyTorch and xpnet do, over so many epochs by target.
EPOCHS, BATCH, PEAK = {TARGET: 3, SKLEARN_TARGET: 2}, 128, 7e-3
ROW = Row("mnist", (784, 500, 10), BATCH, "adam")
#: scikit-learn: among rates of 1e-3, 2e-3, 3e-3 and batches of 128, 200, 400, this needed the fewest epochs (3 or 4)
#: at the larger of the two batch sizes that did.
SKLEARN_BATCH, SKLEARN_RATE, SKLEARN_EPOCHS = 200, 2e-3, 20
SIDES_HERE = ("xpnet", "xpnet.numba", "torch", "jax.scan", "sklearn")
LIMIT_SECONDS = 6.0

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Predict = Callable[[np.ndarray], np.ndarray]


def load(data_dir: str | None = None) -> Data:
    """MNIST as float32 rows in [0, 1]: x_train, y_train, x_test, y_test."""
    import xpnet

    data = xpnet.data.load("mnist", data_dir=data_dir)
    rows = [
        np.asarray(x, np.float32).reshape(len(x), -1) / np.float32(255) for x in (data.x_train, data.x_test)
    ]
    return rows[0], np.asarray(data.y_train, np.int64), rows[1], np.asarray(data.y_test, np.int64)


def rates(steps: int) -> np.ndarray:
    """Learning rate of each step: half a cosine up from PEAK / 25, half a cosine down to nearly nothing."""
    up = 0.3 * steps
    t = np.arange(steps)
    rise = 0.5 - 0.5 * np.cos(np.pi * np.minimum(t / up, 1.0))
    fall = 0.5 + 0.5 * np.cos(np.pi * np.clip((t - up) / (steps - up), 0.0, 1.0))
    low, end = PEAK / 25, PEAK / 25e4
    return np.where(t < up, low + (PEAK - low) * rise, end + (PEAK - end) * fall)


def problem(data: Data, seed: int) -> Problem:
    """The training digits with initial weights from `seed`: those of xpnet, for every library."""
    import xpnet

    weights = xpnet.MLP(ROW.sizes, seed=seed).get_weights()
    pairs = [(weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"]) for i in range(2)]
    return Problem(ROW, pairs, data[0], data[1])


class Clock:
    """Runs while training, and stops while the test digits are looked at."""

    def __init__(self, data: Data, target: float):
        self._data, self._target = data, target
        self.seconds, self.accuracy, self.epochs = 0.0, 0.0, 0
        self.planned = EPOCHS[target]

    def start(self) -> None:
        self._started = time.perf_counter()

    def lap(self, predict: Predict) -> bool:
        """An epoch is over; say whether the target is reached."""
        self.seconds += time.perf_counter() - self._started
        self.epochs += 1
        self.accuracy = float(np.mean(predict(self._data[2]) == self._data[3]))
        self.start()
        return self.accuracy >= self._target


def seconds_to(side: str, data: Data, target: float, seed: int) -> dict[str, Any]:
    """Train until `target` is reached: seconds (None if it was not), epochs and the last test accuracy."""
    clock = Clock(data, target)
    _RUNNERS[side](data, seed, clock)
    reached = clock.accuracy >= target
    return {
        "seconds": clock.seconds if reached else None, "trained": clock.seconds, "epochs": clock.epochs,
        "accuracy": clock.accuracy,
    }  # fmt: skip


def _xpnet(data: Data, seed: int, clock: Clock, name: str = "xpnet") -> None:
    import xpnet

    class Watch(xpnet.Callback):
        def on_epoch_end(self, trainer: Any, record: Any) -> None:
            if clock.lap(model.predict):
                trainer.stop("target reached")

    kind: Any = SIDES[name]
    kind(_small(data, seed)).run(4)
    model = xpnet.MLP(ROW.sizes, activation="relu", seed=seed, device=kind.device())
    optimizer = xpnet.Adam(lr=PEAK, beta1=BETA1, beta2=BETA2, eps=EPS)
    clock.start()
    # checking the data is on the clock
    xpnet.fit(
        model, data[:2], optimizer=optimizer, schedule="one_cycle", batch_size=BATCH, epochs=clock.planned, seed=seed,
        callbacks=[Watch()],
    )  # fmt: skip


def _small(data: Data, seed: int) -> Problem:
    whole = problem(data, seed)
    return Problem(ROW, whole.weights, whole.x[: 4 * BATCH], whole.y[: 4 * BATCH])


def _torch(data: Data, seed: int, clock: Clock) -> None:
    import torch

    side: Any = Torch(problem(data, seed))
    side.run(4)
    side.reset()
    torch.manual_seed(seed)
    table = iter(rates(clock.planned * math.ceil(len(data[0]) / BATCH)).tolist())

    net, optimizer, loss = side.net, side.optimizer, side._loss
    x, y = torch.from_numpy(data[0]), torch.from_numpy(data[1])
    group = optimizer.param_groups[0]
    clock.start()
    net.train()
    for _ in range(clock.planned):
        for index in torch.randperm(len(x)).split(BATCH):
            group["lr"] = next(table)
            optimizer.zero_grad(set_to_none=True)
            loss(x[index], y[index]).backward()
            optimizer.step()
        if clock.lap(side.predict):
            return


def _jax(data: Data, seed: int, clock: Clock) -> None:
    import jax
    from jax import numpy as jnp

    side: Any = SIDES["jax.jit"](_small(data, seed))
    steps = len(data[0]) // BATCH  # a scan takes batches of one size: it leaves out the rest, 96 digits

    def epoch(params: Any, state: Any, key: Any, rate: Any, x: Any, y: Any) -> Any:
        order = jax.random.permutation(key, len(x))[: steps * BATCH].reshape(steps, BATCH)

        def body(carry: Any, item: Any) -> Any:
            rows, r = item
            params, state, loss = side._plain_step(*carry, x[rows], y[rows], r)
            return (params, state), loss

        return jax.lax.scan(body, (params, state), (order, rate))[0]

    call = jax.jit(epoch, donate_argnums=(0, 1))
    key = jax.random.key(seed)
    table = jnp.asarray(rates(clock.planned * steps).reshape(clock.planned, steps), "float32")
    x, y = jnp.asarray(data[0]), jnp.asarray(data[1], "int32")
    jax.block_until_ready(call(side.params, side.state, key, table[0] * 0, x, y))
    side.reset()

    clock.start()
    for e in range(clock.planned):
        side.params, side.state = call(side.params, side.state, jax.random.fold_in(key, e), table[e], x, y)
        jax.block_until_ready(side.params)
        if clock.lap(side.predict):
            return


def _sklearn(data: Data, seed: int, clock: Clock) -> None:
    from sklearn.neural_network import MLPClassifier

    clf = MLPClassifier(
        ROW.sizes[1:-1], solver="adam", alpha=0.0, batch_size=SKLEARN_BATCH, learning_rate_init=SKLEARN_RATE,
        random_state=seed,
    )  # fmt: skip

    clock.start()
    for _ in range(SKLEARN_EPOCHS):
        clf.partial_fit(data[0], data[1], classes=np.arange(10))
        if clock.lap(clf.predict):
            return


_RUNNERS: dict[str, Callable[[Data, int, Clock], None]] = {
    "xpnet": _xpnet,
    "xpnet.numba": partial(_xpnet, name="xpnet.numba"), "torch": _torch, "jax.scan": _jax, "sklearn": _sklearn,
}  # fmt: skip


def contestants() -> list[type[Side]]:
    """The sides of `SIDES_HERE` that can run."""
    return [SIDES[name] for name in SIDES_HERE if SIDES[name].missing() is None]
