"""The unit of a target does not matter: counts of any size are fitted, and every loss scales with its target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.linear_model import PoissonRegressor
from sklearn.metrics import d2_tweedie_score

import xpnet
from xpnet import MLPRegressor
from xpnet.cli import main
from xpnet.errors import ConfigError
from xpnet.tabular import TabularPreprocessing
from xpnet.tabular.targets import in_target_units, in_training_units

LOSSES = ["squared_error", "absolute_error", "huber", "huber:0.5", "quantile:0.9", "poisson"]


pytestmark = pytest.mark.usefixtures("elsewhere")


def counts(mean: float, n: int = 900) -> tuple[np.ndarray, np.ndarray]:
    """Samples (n, 3) and counts around `mean`, whose logarithm bends with the first feature."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3))
    rate = np.exp(np.sin(2.0 * x[:, 0]) + 0.4 * x[:, 1])
    return x, rng.poisson(rate * mean / rate.mean()).astype(np.float64)


def train(x: np.ndarray, y: np.ndarray, *options: str) -> xpnet.MLP:
    """Train on a table with `xpnet train`, in the folder "run"."""
    lines = [",".join(map(repr, map(float, (*row, t)))) for row, t in zip(x, y, strict=True)]
    names = [*(f"x{j}" for j in range(x.shape[1])), "y"]
    Path("table.csv").write_text("\n".join([",".join(names), *lines, ""]))
    done = CliRunner().invoke(main, [
        "train", "table.csv", "--task", "regression", "--hidden", "16", "--lr", "0.02", "--test-fraction", "0",
        "--out", "run", "--overwrite", "--quiet", *options,
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    return xpnet.load("run/model.safetensors")


def predict(model: xpnet.MLP, x: np.ndarray) -> np.ndarray:
    assert model.tabular is not None
    prepare = TabularPreprocessing.from_metadata(model.tabular)
    return model.predict(prepare.transform({f"x{j}": x[:, j] for j in range(x.shape[1])}, dtype=model.dtype))[
        :, 0
    ]


# --- counts -------------------------------------------------------------------------------------
@pytest.mark.parametrize("mean", [1.0, 50.0, 5000.0])
def test_counts_of_any_size_are_fitted(mean: float) -> None:
    x, y = counts(mean)
    learn, judge = slice(0, 600), slice(600, None)

    def explained(p: np.ndarray) -> float:
        return d2_tweedie_score(y[judge], p.astype(np.float64), power=1)

    linear = explained(PoissonRegressor(alpha=0.0).fit(x[learn], y[learn]).predict(x[judge]))
    table = train(x[learn], y[learn], "--loss", "poisson", "--epochs", "25")
    assert explained(predict(table, x[judge])) > linear
    estimator = MLPRegressor((32,), loss="poisson", max_iter=60, learning_rate_init=0.02, random_state=0)
    assert explained(estimator.fit(x[learn], y[learn]).predict(x[judge])) > linear


def test_counts_are_learnt_in_units_of_their_mean_and_reported() -> None:
    x, y = counts(1000.0, 60)
    model = train(x, y, "--loss", "poisson", "--epochs", "2", "--valid-fraction", "0")
    assert model.tabular is not None
    target = model.tabular["target"]
    assert (target["mean"], target["scale"]) == (0.0, y.mean())
    prepare = TabularPreprocessing.from_metadata(model.tabular)
    assert f"learnt as y / {y.mean():.6g}" in prepare.describe()[-1]["use"]
    # the state to resume from keeps the network that learns; both are one network, in different units
    learning = in_training_units(model)
    rows = prepare.transform({"x0": x[:, 0], "x1": x[:, 1], "x2": x[:, 2]})
    np.testing.assert_allclose(learning.predict(rows) * y.mean(), model.predict(rows), rtol=1e-5)
    np.testing.assert_allclose(in_target_units(learning).predict(rows), model.predict(rows), rtol=1e-5)


def test_a_resumed_run_on_counts_equals_an_uninterrupted_one() -> None:
    x, y = counts(1000.0, 60)
    train(x, y, "--loss", "poisson", "--epochs", "4", "--schedule", "constant")
    whole = json.loads(Path("run/result.json").read_text())
    train(x, y, "--loss", "poisson", "--epochs", "2", "--schedule", "constant")
    CliRunner().invoke(main, ["train", "--resume", "run", "--epochs", "4", "--quiet"])
    parts = json.loads(Path("run/result.json").read_text())
    assert parts["epochs"] == 4
    assert parts["weights_sha256"] == whole["weights_sha256"] and parts["valid_loss"] == whole["valid_loss"]


def test_counts_that_are_all_zero_have_no_unit() -> None:
    prepare = TabularPreprocessing("y", task="regression", scale_target="mean")
    target = prepare.fit_target({"y": [0.0, 0.0, 0.0]})
    assert not target.scaled
    with pytest.raises(ConfigError, match="scale_target must be True, False or 'mean', found 'median'"):
        TabularPreprocessing("y", scale_target="median")


# --- every loss ---------------------------------------------------------------------------------
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("unit", [2.0**-20, 2.0**30])  # powers of two, so that scaling rounds nothing
def test_predictions_have_the_unit_of_the_target(loss: str, unit: float) -> None:
    x, y = counts(10.0, 80)

    def table(t: np.ndarray) -> np.ndarray:
        return predict(train(x, t, "--loss", loss, "--epochs", "3", "--dtype", "float64"), x)

    def estimator(t: np.ndarray) -> Any:
        return MLPRegressor((8,), loss=loss, max_iter=3, random_state=0).fit(x, t).predict(x)

    for model in (table, estimator):
        np.testing.assert_allclose(model(y * unit) / unit, model(y), rtol=1e-9)
