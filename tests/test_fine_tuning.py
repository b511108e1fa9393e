"""Training a trained model again: what it keeps of the first training, and what it forgets."""

from __future__ import annotations

import numpy as np

import xpnet
from xpnet import MLP, MLPClassifier, fit, load
from xpnet.tabular import TabularPreprocessing

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 4))
Y = np.arange(90) % 3
MARKS = (X[:, :3] > 0).astype(int)


def smoothed(path):
    """A classifier whose probabilities undo label smoothing, from its file."""
    MLPClassifier((8,), max_iter=5, random_state=0).fit(X, Y).save(path)
    return load(path)


# --- what outputs mean ---------------------------------------------------------------------------
def test_another_task_forgets_smoothing_and_classes(tmp_path):
    model = smoothed(tmp_path / "c.safetensors")
    assert model.unsmoothing == 0.1 and model.classes == ("0", "1", "2")
    fit(model, (X, MARKS), epochs=60, lr=0.01)
    assert model.task == "multilabel" and model.unsmoothing is None and model.classes is None
    p = model.predict_proba(X)
    assert ((p > 0.5) == MARKS).mean() > 0.95 and not np.allclose(p.sum(axis=1), 1.0)


def test_the_same_task_forgets_smoothing_and_keeps_classes(tmp_path):
    model = smoothed(tmp_path / "c.safetensors")
    fit(model, (X, Y), epochs=1)
    assert model.unsmoothing is None and model.classes == ("0", "1", "2")
    fit(fresh := MLP([4, 8, 3]), (X, Y), epochs=1, label_smoothing=0.1)
    assert fresh.unsmoothing is None  # its probabilities are those that it learned


def test_another_task_forgets_the_target_column_of_a_table():
    prepare = TabularPreprocessing("y").fit({"a": X[:, 0], "b": X[:, 1], "y": Y})
    rows = prepare.transform({"a": X[:, 0], "b": X[:, 1]})
    model = MLP([rows.shape[1], 4, 3])
    model.tabular, model.classes = prepare.to_metadata(), prepare.target_.classes
    fit(model, (rows, Y), epochs=1)
    assert model.tabular["target"] and model.classes == ("0", "1", "2")
    fit(model, (rows, X[:, :3]), epochs=1)
    assert model.tabular["target"] is None and model.classes is None
    again = TabularPreprocessing.from_metadata(model.tabular)
    assert np.array_equal(again.transform({"a": X[:, 0], "b": X[:, 1]}), rows)


def test_a_warm_start_keeps_undoing_the_smoothing():
    clf = MLPClassifier((8,), max_iter=3, warm_start=True, random_state=0).fit(X, Y).fit(X, Y)
    assert clf.model_.unsmoothing == 0.1
    assert xpnet.evaluate(clf.model_, (clf.scaler_.transform(X), Y))["accuracy"] == clf.score(X, Y)
