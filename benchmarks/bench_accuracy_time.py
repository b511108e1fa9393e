"""Seconds of training to an accuracy on MNIST's test digits; needs the files, see --data-dir."""

from __future__ import annotations

import pytest

from . import accuracy_time as at
from .grid import VARIANTS
from .peers import SIDES


@pytest.fixture(scope="module")
def data(request):
    import xpnet

    try:
        return at.load(request.config.getoption("--data-dir"))
    except xpnet.XpnetError as error:
        pytest.skip(f"MNIST: {error}")


@pytest.mark.parametrize(
    ("name", "target"),
    [
        *((n, at.TARGET) for n in at.SIDES_HERE if n != "sklearn"),
        *((n, at.SKLEARN_TARGET) for n in at.SIDES_HERE if n == "sklearn" or n in VARIANTS),
    ],
)
def bench_time_to_accuracy(name, target, data, benchmark):
    reason = SIDES[name].missing()
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    benchmark.group = f"MNIST to {target:.1%}"
    seeds = iter(at.SEEDS)
    runs = []
    # the clock of the benchmark also counts building and looking at the test digits; extra_info has the training
    benchmark.pedantic(lambda: runs.append(at.seconds_to(name, data, target, next(seeds))), rounds=3)
    benchmark.extra_info["runs"] = runs
    assert all(run["seconds"] is not None for run in runs)
