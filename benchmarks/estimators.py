"""The estimators without any argument, beside scikit-learn's usual choices.

Run ``python benchmarks/estimators.py`` from the root of the repository. On five data sets that scikit-learn brings,
each number is the mean over repeated stratified 5-fold cross-validation (accuracy and, in a second line, log loss of
the probabilities; R2 for diabetes). California housing, where ``$XPNET_DATA/california/housing.csv`` exists, is the
root of the mean squared error in 100,000 dollars on a fifth of the data. The others get a StandardScaler in front and
their default settings (logistic regression: max_iter=1000).

The defaults of xpnet were tuned on other data, and on the same data sets but on other folds and seeds: splits from
random_state 500 and from 1000 on, never those below.
"""

from __future__ import annotations

import argparse
import csv
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold, cross_validate, train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

import xpnet

SETS: dict[str, Callable[..., Any]] = {
    "iris": datasets.load_iris, "wine": datasets.load_wine, "breast cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits, "diabetes": datasets.load_diabetes,
}  # fmt: skip
REGRESSION = ("diabetes", "california")
COLUMNS = ("xpnet", "linear", "RBF SVM", "sklearn MLP")


def estimators(regression: bool, seed: int) -> dict[str, Any]:
    """Return the estimators in the order of `COLUMNS`."""
    if regression:
        mine, others = (
            xpnet.MLPRegressor(random_state=seed),
            (Ridge(), SVR(), MLPRegressor(random_state=seed)),
        )
    else:
        linear = LogisticRegression(max_iter=1000)
        mine, others = (
            xpnet.MLPClassifier(random_state=seed),
            (linear, SVC(), MLPClassifier(random_state=seed)),
        )
    return dict(zip(COLUMNS, [mine, *(make_pipeline(StandardScaler(), e) for e in others)], strict=True))


def california(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the block groups: eight numbers and one column per kind of ocean_proximity; value in 100,000 dollars.

    Missing numbers of bedrooms become the median.
    """
    with open(folder / "california" / "housing.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [n for n in rows[0] if n not in ("median_house_value", "ocean_proximity")]
    numbers = np.array([[float(r[n] or "nan") for n in names] for r in rows])
    numbers = np.where(np.isnan(numbers), np.nanmedian(numbers, axis=0), numbers)
    kinds = sorted({r["ocean_proximity"] for r in rows})
    near = np.array([[float(r["ocean_proximity"] == k) for k in kinds] for r in rows])
    return np.hstack([numbers, near]), np.array([float(r["median_house_value"]) / 1e5 for r in rows])


Row = dict[str, tuple[float, float]]


def cross_validated(name: str, repeats: int) -> dict[str, Row]:
    """Return mean and standard error over repeats, by score and estimator; repeat r has folds and weights of seed r."""
    x, y = SETS[name](return_X_y=True)
    regression = name in REGRESSION
    folds = KFold if regression else StratifiedKFold
    scores: dict[str, dict[str, list[float]]] = {}
    for seed in range(repeats):
        cv = folds(5, shuffle=True, random_state=seed)
        for column, estimator in estimators(regression, seed).items():
            wanted = {"R2": "r2"} if regression else {"accuracy": "accuracy"}
            if hasattr(estimator, "predict_proba"):  # an SVM has no probabilities
                wanted["log loss"] = "neg_log_loss"
            found = cross_validate(estimator, x, y, cv=cv, scoring=wanted)
            for score in wanted:
                sign = -1.0 if score == "log loss" else 1.0
                scores.setdefault(score, {}).setdefault(column, []).append(
                    sign * found[f"test_{score}"].mean()
                )
    return {score: {c: _mean(s) for c, s in each.items()} for score, each in scores.items()}


def _mean(scores: list[float]) -> tuple[float, float]:
    return float(np.mean(scores)), float(np.std(scores) / max(len(scores) - 1, 1) ** 0.5)


def housing(folder: Path, repeats: int) -> Row:
    """Return the root mean squared error on a fifth of the data, mean and standard error over splits."""
    x, y = california(folder)
    errors: dict[str, list[float]] = {c: [] for c in COLUMNS}
    for seed in range(repeats):
        x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=seed)
        for column, estimator in estimators(True, seed).items():
            predicted = clone(estimator).fit(x_train, y_train).predict(x_test)
            errors[column].append(float(np.sqrt(np.mean(np.square(predicted - y_test)))))
    return {c: _mean(s) for c, s in errors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.estimators", description=__doc__.partition("\n\n")[0]
    )
    parser.add_argument("--repeats", type=int, default=5, help="of the cross-validation (default 5)")
    parser.add_argument("--splits", type=int, default=2, help="of California housing (default 2)")
    parser.add_argument("--only", nargs="*", default=[*SETS, "california"], choices=[*SETS, "california"])
    options = parser.parse_args()
    print("data".ljust(24) + "".join(c.rjust(18) for c in COLUMNS), flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for name in options.only:
            if name != "california":
                rows = cross_validated(name, options.repeats)
            elif (
                (folder := Path(os.environ.get("XPNET_DATA", ".")))
                .joinpath("california/housing.csv")
                .exists()
            ):
                rows = {"RMSE": housing(folder, options.splits)}
            else:
                print("california: set XPNET_DATA to a folder that has california/housing.csv")
                continue
            for score, row in rows.items():
                each = (f"{row[c][0]:.4f} +-{row[c][1]:.4f}" if c in row else "-" for c in COLUMNS)
                print(f"{name} {score}".ljust(24) + "".join(text.rjust(18) for text in each), flush=True)


if __name__ == "__main__":
    main()
