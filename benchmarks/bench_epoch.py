"""One epoch with shuffling and data handling."""

from __future__ import annotations

import math

import pytest

from .grid import EPOCH_ROWS, EPOCH_STEPS

SIDES_HERE = ("xpnet", "xpnet.numba", "torch", "jax.scan", "sklearn", "keras")


@pytest.mark.parametrize("row", EPOCH_ROWS, ids=lambda r: r.name)
@pytest.mark.parametrize("name", [*SIDES_HERE, "xpnet, bare steps", "xpnet.numba, bare steps"])
def bench_epoch(name, row, side, benchmark, measure):
    benchmark.group = f"epoch, {row.name}"
    name, _, bare = name.partition(", ")
    if bare:
        one = side(name, row, n_batches=EPOCH_STEPS)
        with one.context():
            measure(lambda n: one.run(n * EPOCH_STEPS), reset=one.reset)
        return
    one = side(name, row, n_batches=EPOCH_STEPS)
    first, second = one.epoch(), one.epoch()
    assert math.isfinite(first) and second < first

    def epochs(n: int) -> None:
        for _ in range(n):
            one.epoch()

    measure(epochs, reset=one.reset)
