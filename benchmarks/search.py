"""A 5-fold search of 24 candidates on digits: PopulationSearchCV beside scikit-learn's GridSearchCV.

Run ``python -m benchmarks.search`` from the root of the repository. What counts is the time until a search is done
whose best score is the same or better. Both sides search the same learning rates and penalties for one hidden layer of
64 units on the same folds, with all cores: scikit-learn as processes (``n_jobs=-1``), xpnet as it decides by itself.
Each side trains as it does best with few words: scikit-learn by its defaults (batches of 200, at most 200 epochs at a
constant rate, stopping when its loss rests), xpnet for 10 epochs of batches of 64 under its default schedule, which
ends by plan, without input noise. That recipe was chosen on folds from random_state 100; rounds use those from 0 on.

A round times each side once, in turn, each round beginning with another one. Times include everything from ``fit`` to
the refitted best estimator; scikit-learn's worker processes are started before the clock. ``xpnet.alone`` is
GridSearchCV over xpnet's estimator: what training together gives, apart from what the estimator gives.
``sklearn.short`` has the batches and epochs of xpnet: the same number of updates, whatever the score.

scikit-learn's estimator has no scaling inside; features are divided by 16 for both sides, which are then all in [0, 1].
Penalties are set against the mean loss in xpnet and divided by the size of the batch in scikit-learn, so its values are
as many times as large for the same effect.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier

import xpnet

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
PENALTIES = (0.0, 1e-5, 1e-4, 1e-3)
WIDTH, EPOCHS, BATCH = 64, 10, 64
SKLEARN_BATCH = 200  # its default for so many samples
GOAL = 10.0


def sides() -> dict[str, Callable[[Any], Any]]:
    """Return, by name, what builds the search of each side with given folds."""
    mine = xpnet.MLPClassifier(
        (WIDTH,), max_iter=EPOCHS, batch_size=BATCH, input_noise=0.0, random_state=0
    )  # fmt: skip
    theirs = MLPClassifier((WIDTH,), random_state=0)
    short = MLPClassifier((WIDTH,), max_iter=EPOCHS, batch_size=BATCH, random_state=0)

    def grid(batch: int) -> dict[str, list[float]]:
        return {"learning_rate_init": list(RATES), "alpha": [batch * a for a in PENALTIES]}

    return {
        "xpnet": lambda cv: xpnet.PopulationSearchCV(mine, grid(1), cv=cv),
        "sklearn": lambda cv: GridSearchCV(theirs, grid(SKLEARN_BATCH), cv=cv, n_jobs=-1),
        "xpnet.alone": lambda cv: GridSearchCV(mine, grid(1), cv=cv, n_jobs=-1),
        "sklearn.short": lambda cv: GridSearchCV(short, grid(BATCH), cv=cv, n_jobs=-1),
    }


def measure(rounds: int, names: list[str]) -> dict[str, list[dict[str, float]]]:
    """Return seconds and best score of each side, by round."""
    x, y = load_digits(return_X_y=True)
    x = x / 16.0
    build = {name: make for name, make in sides().items() if name in names}
    warm = StratifiedKFold(2, shuffle=True, random_state=0)
    for make in build.values():  # processes and compiled code are there when the clock starts
        search = make(warm)
        search.estimator.set_params(max_iter=1)
        search.fit(x[:200], y[:200])
    results: dict[str, list[dict[str, float]]] = {name: [] for name in build}
    for round_ in range(rounds):
        cv = StratifiedKFold(5, shuffle=True, random_state=round_)
        order = list(build)
        for name in order[round_ % len(order) :] + order[: round_ % len(order)]:
            search = sides()[name](cv)
            started = time.perf_counter()
            search.fit(x, y)
            seconds = time.perf_counter() - started
            results[name].append({"seconds": seconds, "best_score": float(search.best_score_)})
            print(
                f"round {round_}: {name:13} {seconds:8.2f} s, best score {search.best_score_:.4f}", flush=True
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search", description=__doc__.partition("\n\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=3, help="times that each side is measured (default 3)")
    parser.add_argument("--only", nargs="*", default=["xpnet", "sklearn"], choices=list(sides()))
    parser.add_argument("--json", help="write the numbers to this file")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        os.environ["PYTHONWARNINGS"] = "ignore"  # of the worker processes
        results = measure(options.rounds, options.only)
    print()
    for name, rows in results.items():
        seconds = [row["seconds"] for row in rows]
        scores = [row["best_score"] for row in rows]
        print(
            f"{name:13} median {np.median(seconds):8.2f} s (min {min(seconds):.2f}), score {np.mean(scores):.4f}"
        )
    if {"xpnet", "sklearn"} <= results.keys():
        pairs = zip(results["sklearn"], results["xpnet"], strict=True)
        ratio = float(np.median([b["seconds"] / a["seconds"] for b, a in pairs]))
        better = np.mean([r["best_score"] for r in results["xpnet"]]) >= np.mean(
            [r["best_score"] for r in results["sklearn"]]
        )
        verdict = "met" if ratio >= GOAL and better else "missed"
        print(f"sklearn / xpnet: {ratio:.1f} (goal {GOAL:.0f} at the same or a better score): {verdict}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
