"""Seconds until compiled steps train: the first network of a machine, a deeper one with other activations, again.

python -m benchmarks.first_run
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_TRAIN = """
import sys, time
import numpy as np, xpnet
random = np.random.default_rng(0)
x, y = random.integers(0, 256, (600, 784)).astype(np.uint8), random.integers(0, 10, 600)
for hidden, activation in (([128], "relu"), ([128, 64], "tanh")):
    begun = time.perf_counter()
    model = xpnet.MLP([784, *hidden, 10], activation=activation, device="numba")
    xpnet.fit(model, (x, y), validation=(x[:100], y[:100]), epochs=1, batch_size=32)
    print(time.perf_counter() - begun)
"""
ROUNDS = 3


def main() -> None:
    """Print medians of a few rounds, each with an empty cache first."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_run", description=__doc__.partition("\n\n")[0]
    )
    parser.parse_args()
    rounds = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "XPNET_CACHE": cache, "PYTHONPATH": str(Path(__file__).parents[1])}
            row: list[float] = []
            for _ in range(2):
                done = subprocess.run(
                    [sys.executable, "-c", _TRAIN],
                    env=environment,
                    check=True,
                    capture_output=True,
                    text=True,
                )
                row += map(float, done.stdout.split())
            rounds.append(row)
    names = (
        "784-128-10, nothing compiled",
        "784-128-64-10 with tanh after it",
        "784-128-10 in a new process",
    )
    for k, name in enumerate(names):
        seconds = sorted(row[k] for row in rounds)
        print(f"{name}: {statistics.median(seconds):.2f} s ({seconds[0]:.2f}-{seconds[-1]:.2f})")


if __name__ == "__main__":
    main()
