"""What shuffling a column costs: counted by hand, and that columns of tables move as one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import xpnet
from tests.command import xp
from xpnet import rng
from xpnet.errors import ConfigError
from xpnet.runs.importance import column_importance


@pytest.fixture
def samples():
    x = np.random.default_rng(0).normal(size=(200, 3)).astype("float32")
    return x, 2.0 * x[:, 0] - x[:, 2]


def test_a_regression_by_hand(samples):
    x, y = samples
    model = xpnet.MLP([3, 1], seed=0)
    xpnet.fit(model, (x, y), epochs=1)
    model.set_weights({"layers.0.weight": np.array([[2.0, 0.0, -1.0]]), "layers.0.bias": np.zeros(1)})
    first, second, third = column_importance(model, x, y, repeats=2)
    assert [e["column"] for e in (first, second, third)] == ["feature 0", "feature 2", "feature 1"]
    orders = [rng.permutation(200, 0, epoch) for epoch in range(2)]
    rises = [2.0 * np.mean((x[o, 0] - x[:, 0]) ** 2, dtype="float64") for o in orders]  # 1/2 (2 e)^2
    assert first["loss_rise"] == pytest.approx(np.mean(rises), rel=1e-5)
    assert first["loss_rise_std"] == pytest.approx(np.std(rises), rel=1e-4)
    assert first["r2_fall"] == pytest.approx(2.0 * np.mean(rises) / np.var(y, dtype="float64"), rel=1e-5)
    assert third == {"column": "feature 1", "loss_rise": 0.0, "loss_rise_std": 0.0, "r2_fall": 0.0}


def test_samples_stay_as_they_were_and_names_come_from_the_frame(samples):
    pandas = pytest.importorskip("pandas")
    x, y = samples
    model = xpnet.MLP([3, 2], seed=0)
    xpnet.fit(model, (pandas.DataFrame(x, columns=["a", "b", "c"]), y > 0), epochs=5, lr=0.1)
    before = x.copy()
    found = column_importance(model, x, (y > 0).astype(int))
    assert [e["column"] for e in found] == ["a", "c", "b"] and np.array_equal(x, before)
    assert found[0]["accuracy_fall"] > 0.1 > abs(found[2]["accuracy_fall"])


def test_all_features_of_a_column_move_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(1)
    town, noise = draw.choice(["Bern", "Graz", "Linz"], 300), draw.normal(size=300)
    rows = [f"{n:.3f},{t},{'yes' if t == 'Graz' else 'no'}" for n, t in zip(noise, town, strict=True)]
    Path("t.csv").write_text("\n".join(["noise,town,y", *rows]))
    xp("train", "t.csv", "--target", "y", "--out", "run", "--hidden", "none", "--lr", "0.1", "--quiet")
    scores = json.loads(xp("evaluate", "run", "--data", "t.csv", "--importance", "--json").stdout)
    assert [entry["column"] for entry in scores["importance"]] == ["town", "noise"]
    order = [rng.permutation(300, 0, epoch) for epoch in range(5)]
    wrong = np.mean([np.mean((town[o] == "Graz") != (town == "Graz")) for o in order])
    assert scores["accuracy"] == 1.0
    assert scores["importance"][0]["accuracy_fall"] == pytest.approx(wrong)  # never half of a town
    shown = xp("evaluate", "run", "--data", "t.csv", "--importance").stdout
    assert "importance: with one column shuffled (5 times)" in shown and f"{wrong:.2%}" in shown
    assert "importance" not in json.loads(xp("evaluate", "run", "--data", "t.csv", "--json").stdout)


def test_pictures_and_populations_are_refused(samples):
    x, y = samples
    population = xpnet.MLP([3, 1], n_models=2)
    xpnet.fit(population, (x, y), epochs=1)
    with pytest.raises(ConfigError, match="this model has a population"):
        column_importance(population, x, y)
    digits = xpnet.data.load("digits")
    model = xpnet.MLP([64, 10])
    model.preprocessing = digits.preprocessing
    xpnet.fit(model, (digits.x_train, digits.y_train), epochs=1)
    with pytest.raises(ConfigError, match="samples of several axes, such as pictures"):
        column_importance(model, digits.x_test, digits.y_test)
