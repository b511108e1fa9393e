"""The unit of a target does not matter: counts of any size are fitted, and every loss scales with its target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.linear_model import PoissonRegressor
from sklearn.metrics import d2_tweedie_score, r2_score

import xpnet
from tests.command import as_if_older, xp
from xpnet import DeepEnsembleRegressor, MLPRegressor, evaluate, fit
from xpnet.cli import main
from xpnet.errors import ConfigError
from xpnet.runs.folder import TARGET_SCALING, RunFolder
from xpnet.tabular import TabularPreprocessing
from xpnet.tabular.targets import _rescaled, in_target_units, in_training_units

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


# --- targets far from 0 -------------------------------------------------------------------------
FAR = 1.7e9  # seconds since 1970


def far() -> tuple[np.ndarray, np.ndarray]:
    """Samples (1500, 3), so many that networks are float32, and targets whose scale is 50."""
    x = np.random.default_rng(0).normal(size=(1500, 3))
    return x, 50.0 * x[:, 0] + FAR


def regressor(**settings: Any) -> MLPRegressor:
    return MLPRegressor((16,), max_iter=30, learning_rate_init=0.01, random_state=0, **settings)


def test_estimators_keep_the_digits_of_targets_far_from_0(tmp_path: Path) -> None:
    x, y = far()
    reg = regressor().fit(x, y)
    assert reg.dtype_ == "float32" and reg.predict(x).dtype == np.float64 and reg.score(x, y) > 0.99
    reg.save(tmp_path / "reg.safetensors")
    model = xpnet.load(tmp_path / "reg.safetensors")
    assert np.array_equal(MLPRegressor.load(tmp_path / "reg.safetensors").predict(x), reg.predict(x))
    assert r2_score(y, model.predict(x)[:, 0]) > 0.99
    ensemble = DeepEnsembleRegressor(regressor(), n_members=2, random_state=0).fit(x, y)
    assert r2_score(y, ensemble.predict(x)) > 0.99
    # as scikit-learn does, float32 samples are answered in float32 by a network that is float32
    assert reg.predict(x.astype(np.float32)).dtype == np.float32


def test_a_run_keeps_the_digits_of_targets_far_from_0() -> None:
    x, y = far()
    model = train(x, y, "--epochs", "10")
    assert model.dtype == "float32" and r2_score(y, predict(model, x)) > 0.99
    assert json.loads(Path("run/result.json").read_text())["weights_sha256"]


def test_a_model_file_goes_on_learning_in_its_own_units(tmp_path: Path) -> None:
    x, y = far()
    regressor().fit(x, y).save(tmp_path / "reg.safetensors")
    model = xpnet.load(tmp_path / "reg.safetensors")
    before = evaluate(model, (x, y))["loss"]
    assert before < 0.01  # in units of the scaled target
    fit(model, (x, y), epochs=3)
    assert evaluate(model, (x, y))["loss"] < before and r2_score(y, model.predict(x)[:, 0]) > 0.99
    fit(model, (x, (y > FAR).astype(int)), epochs=1)
    assert model.target_units is None and set(model.predict(x[:9]).tolist()) <= {0, 1}


def test_files_of_older_versions_have_the_units_in_their_last_layer(tmp_path: Path) -> None:
    x, y = counts(50.0, 60)
    reg = regressor(dtype="float64").fit(x, y)
    reg.save(tmp_path / "reg.safetensors")
    model = xpnet.load(tmp_path / "reg.safetensors")
    record = xpnet.checkpoint.load_tensors(tmp_path / "reg.safetensors")[1]["extra"]["estimator"]
    weights = reg.model_.get_weights()
    record["last"] = {
        k: {"array": weights[k].tolist(), "dtype": "<f8", "object": False}
        for k in ("layers.1.weight", "layers.1.bias")
    }
    model.target_units = None
    old = _rescaled(model, float(reg.target_scale_[0]), float(reg.target_mean_[0]))
    old.save(tmp_path / "old.safetensors", {"estimator": record})
    np.testing.assert_allclose(
        xpnet.load(tmp_path / "old.safetensors").predict(x)[:, 0], reg.predict(x), rtol=1e-12
    )
    assert np.array_equal(MLPRegressor.load(tmp_path / "old.safetensors").predict(x), reg.predict(x))


def test_a_table_of_an_older_version_is_scored_in_training_units() -> None:
    x, y = counts(50.0, 60)
    model = train(x, y, "--epochs", "2")
    learning = in_training_units(model)
    assert model.tabular is not None
    target = model.tabular["target"]
    old = _rescaled(learning, target["scale"], target["mean"])
    rows = TabularPreprocessing.from_metadata(model.tabular).transform({f"x{j}": x[:, j] for j in range(3)})
    np.testing.assert_allclose(in_training_units(old).predict(rows), learning.predict(rows), atol=1e-5)


def test_weights_elsewhere_warn_where_they_cannot_hold_the_digits() -> None:
    from xpnet.exchange import to_sklearn, to_torch_state

    x, y = far()
    reg = regressor().fit(x, y)
    assert r2_score(y, to_sklearn(reg).predict(x)) > 0.99
    with pytest.warns(UserWarning, match="targets lie so far from 0 that float32 weights round predictions"):
        to_torch_state(reg)
    to_torch_state(regressor(dtype="float64").fit(x, y))


def test_plain_weights_cannot_have_units_behind_an_activation() -> None:
    from xpnet.exchange import to_torch_state

    model = xpnet.MLP([3, 4, 1], output_activation="tanh")
    model.task, model.loss = "regression", "squared_error"
    model.target_units = xpnet.mlp.TargetUnits(np.array([5.0]), np.array([2.0]))
    assert (abs(model.predict(np.zeros((1, 3))) - 5.0) <= 2.0).all()
    with pytest.raises(ConfigError, match="after the activation of the outputs"):
        to_torch_state(model)


# --- arrays -------------------------------------------------------------------------------------
def train_arrays(x: np.ndarray, y: np.ndarray, *options: Any, out: str = "run") -> dict[str, Any]:
    """Train on an NPZ file with `xpnet train`, and return result.json."""
    np.savez("d.npz", x=x, y=y)
    xp("train", "d.npz", "--task", "regression", *options, "--out", out, "--overwrite", "--quiet")
    result: dict[str, Any] = json.loads(Path(out, "result.json").read_text())
    return result


def test_targets_of_arrays_have_any_unit_each_output_its_own() -> None:
    x = np.random.default_rng(0).normal(size=(300, 3))
    y = np.stack([x[:, 0] * 1e6 + 3e6, x[:, 1]], axis=1)
    result = train_arrays(x, y, "--hidden", 16, "--epochs", 100, "--test-fraction", 0.2)
    assert result["test_r2"] > 0.9
    model = xpnet.load("run/model.safetensors")
    np.testing.assert_array_less(abs(model.predict(x) - y).mean(axis=0), [2e5, 0.2])
    recipe = model.preprocessing
    assert recipe is not None and np.shape(recipe.target_scale) == (2,)
    # the loss is that of training, errors have the target's own units, wherever they are asked for
    said = json.loads(xp("evaluate", "run", "--json").stdout)
    assert said["loss"] == result["test_loss"] < 1.0 and said["rmse"] == result["test_rmse"] > 1e4
    xp("report", "run")
    assert "could not be loaded" not in Path("run/report.html").read_text()
    assert "regression.png" in xp("plot", "run").stdout
    other = json.loads(xp("evaluate", "run", "--data", "d.npz", "--json").stdout)
    assert other["loss"] < 1.0 and other["rmse"] > 1e4
    # a column is what it is alone
    alone = train_arrays(
        x, y[:, 0], "--hidden", 16, "--epochs", 40, "--test-fraction", 0.2, "--no-scale-target"
    )
    assert alone["test_r2"] < 0.0


def test_counts_in_arrays_are_learnt_in_units_of_their_mean() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    y = rng.poisson(270.0 * np.exp(0.5 * x[:, 0]))
    options = ("--loss", "poisson", "--hidden", 16, "--epochs", 100, "--test-fraction", 0.2)
    assert train_arrays(x, y, *options)["test_r2"] > 0.6
    recipe = xpnet.load("run/model.safetensors").preprocessing
    assert recipe is not None and float(np.squeeze(recipe.target_mean)) == 0.0
    assert 250.0 < float(np.squeeze(recipe.target_scale)) < 350.0


def test_arrays_to_regress_on_get_what_features_get() -> None:
    x = np.random.default_rng(0).normal(size=(90, 3))
    train_arrays(x, x[:, 0], "--epochs", 1)
    config = RunFolder("run").config()
    assert (config.hidden, config.schedule, config.lr, config.valid_fraction) == (
        [256, 128],
        "cosine",
        0.003,
        0.0,
    )


def test_a_resumed_run_on_arrays_equals_an_uninterrupted_one_also_one_that_learnt_targets_as_they_are() -> (
    None
):
    x = np.random.default_rng(0).normal(size=(90, 3))
    y = x[:, 0] * 4.0 + 7.0
    options = ("--hidden", 8, "--schedule", "constant", "--epochs")
    for scaled in ("--scale-target", "--no-scale-target"):
        whole = train_arrays(x, y, *options, 3, scaled, out="whole")
        train_arrays(x, y, *options, 1, scaled, out="parts")
        if scaled == "--no-scale-target":
            as_if_older("parts", TARGET_SCALING, "scale_target")
        xp("train", "--resume", "parts", "--epochs", 3, "--quiet")
        parts = json.loads(Path("parts/result.json").read_text())
        assert parts["weights_sha256"] == whole["weights_sha256"], scaled
