"""Accuracy on MNIST, as means over seeds fixed in advance, with the recipe of each row.

    python benchmarks/accuracy.py --data-dir DIR [ROW ...]

No recipe was chosen on the test set: settings were tried on the validation part of the training set (5,000 digits)
only, and the test digits are looked at once per seed, at the end. The linear row is the exception that the goal asks
for: it reports the test accuracy after given numbers of updates, without choosing anything by it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import xpnet
from xpnet.data import Dataset
from xpnet.runs.config import TrainConfig
from xpnet.runs.run import train

SEEDS = (0, 1, 2)
VALID = 5000 / 60000

ROWS: dict[str, dict] = {
    # 784-500-10, ReLU, L2, 10 epochs
    "relu-500": {
        "hidden": [500], "l2": 1e-5, "epochs": 10, "batch_size": 128, "optimizer": "adam", "lr": 3e-3,
        "schedule": "one_cycle",
    },
    # the small net of the tutorials: sigmoid everywhere, squared error, SGD with momentum
    "sigmoid-16-16": {
        "hidden": [16, 16], "activation": "sigmoid", "output_activation": "sigmoid", "loss": "squared_error",
        "epochs": 20, "batch_size": 16, "optimizer": "sgd", "momentum": 0.9, "lr": 0.5, "schedule": "linear",
    },
    # dropout and max-norm after Srivastava et al. (2014), with a shorter schedule; the best of seven recipes on
    # 10,000 held-out training digits, then trained on all 60,000
    "dropout-1024-1024": {
        "hidden": [1024, 1024], "dropout": [0.5], "input_dropout": 0.2, "max_norm": 3.0, "epochs": 55,
        "batch_size": 128, "optimizer": "adam", "lr": 1.5e-3, "schedule": "one_cycle", "valid_fraction": 0.0,
    },
}  # fmt: skip


def linear(data: Dataset, seed: int) -> dict[int, float]:
    """Test accuracy of the linear softmax classifier after 1,500 and 5,000 updates."""
    model = xpnet.MLP([784, 10], seed=seed)
    model.preprocessing = data.preprocessing
    seen: dict[int, float] = {}

    class Watch(xpnet.Callback):
        def on_step_end(self, trainer: xpnet.Trainer) -> None:
            if trainer.step.n_updates in (1500, 5000):
                seen[trainer.step.n_updates] = xpnet.evaluate(model, (data.x_test, data.y_test))["accuracy"]
            if trainer.step.n_updates == 5000:
                trainer.stop("enough")

    xpnet.fit(
        model, (data.x_train, data.y_train), optimizer=xpnet.SGD(lr=0.5), batch_size=100, epochs=9,
        callbacks=[Watch()],
    )  # fmt: skip
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__.partition("\n\n")[0]
    )
    names = ["linear", *ROWS]
    parser.add_argument(
        "rows", nargs="*", choices=[*names, []], metavar="row", help=f"of {', '.join(names)} (default: all)"
    )
    parser.add_argument("--data-dir", help="folder that holds MNIST (default: $XPNET_DATA)")
    parser.add_argument("--device", default="cpu", help="cpu or numba (default: cpu)")
    arguments = parser.parse_args()
    rows = arguments.rows or names
    print("| row | parameters | test accuracy, mean (each seed) | seconds per run |")
    print("|---|---|---|---|")
    if "linear" in rows:
        data = xpnet.data.load("mnist", data_dir=arguments.data_dir)
        started = time.perf_counter()
        seen = [linear(data, seed) for seed in SEEDS]
        seconds = (time.perf_counter() - started) / len(SEEDS)
        for updates in (1500, 5000):
            _row(f"linear, {updates} updates", 7850, [s[updates] for s in seen], seconds)
    for name in rows:
        if name == "linear":
            continue
        scores, seconds, parameters = [], 0.0, 0
        for seed in SEEDS:
            settings = {"valid_fraction": VALID, "device": arguments.device, **ROWS[name]}
            config = TrainConfig(data="mnist", data_dir=arguments.data_dir, seed=seed, **settings)
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                result = train(config, Path(folder) / "run", quiet=True)
                seconds += (time.perf_counter() - started) / len(SEEDS)
            scores.append(result["test_accuracy"])
            print(f"{name}, seed {seed}: {result['test_accuracy']:.2%}", file=sys.stderr, flush=True)
            parameters = result["parameters"]
        _row(name, parameters, scores, seconds)


def _row(name: str, parameters: int, scores: list[float], seconds: float) -> None:
    each = ", ".join(f"{s:.2%}" for s in scores)
    print(f"| {name} | {parameters:,} | {np.mean(scores):.2%} ({each}) | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
