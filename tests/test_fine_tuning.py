"""Training a trained model again: what it keeps of the first training, and what it forgets."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import xpnet
from xpnet import MLP, MLPClassifier, fit, load
from xpnet.errors import DataError
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


# --- names of columns ----------------------------------------------------------------------------
def test_a_model_remembers_the_columns_of_a_frame(tmp_path):
    pd = pytest.importorskip("pandas", reason="pandas: data frames")
    frame = pd.DataFrame(X, columns=list("abcd"))
    fit(model := MLP([4, 3]), (frame, Y), epochs=1, validation=(frame, Y))
    assert model.feature_names == ("a", "b", "c", "d")
    model.save(tmp_path / "m.safetensors")
    for again in (
        model,
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        load(tmp_path / "m.safetensors"),
    ):
        assert np.array_equal(again.predict(frame), again.predict(X))  # arrays have no names to compare
        with pytest.raises(DataError, match="columns in another order than the frame"):
            again.predict(frame[list("dcba")])
    with pytest.raises(DataError, match=r"other columns than the frame .*: 'd' missing, 'e' new"):
        xpnet.evaluate(model, (frame.rename(columns={"d": "e"}), Y))
    with pytest.raises(DataError, match="validation X has the columns in another order"):
        fit(MLP([4, 3]), (frame, Y), validation=(frame[list("dcba")], Y))
    fit(model, (frame[list("dcba")], Y), epochs=1)  # what is learned anew may be ordered anew
    assert model.feature_names == ("d", "c", "b", "a")
    fit(model, (X, Y), epochs=1)
    assert model.feature_names is None


def test_frames_without_names_are_not_compared():
    pd = pytest.importorskip("pandas", reason="pandas: data frames")
    fit(model := MLP([4, 3]), (pd.DataFrame(X), Y), epochs=1)
    assert model.feature_names is None and model.predict(pd.DataFrame(X)[[3, 2, 1, 0]]).shape == (90,)


def test_the_file_of_an_estimator_knows_the_columns(tmp_path):
    pd = pytest.importorskip("pandas", reason="pandas: data frames")
    frame = pd.DataFrame(X, columns=list("abcd"))
    MLPClassifier((4,), max_iter=2, random_state=0).fit(frame, Y).save(tmp_path / "c.safetensors")
    assert load(tmp_path / "c.safetensors").feature_names == ("a", "b", "c", "d")
    again = MLPClassifier.load(tmp_path / "c.safetensors")
    assert again.model_.feature_names is None and again.predict(frame).shape == (90,)
