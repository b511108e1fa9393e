"""Training a trained model again: what it keeps of the first training, and what it forgets."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import xpnet
from xpnet import MLP, SGD, AdamW, MLPClassifier, Trainer, fit, load
from xpnet.errors import ConfigError, DataError, FileFormatError
from xpnet.params import ParameterLayout, ParamSpec
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


# --- layers that keep their weights --------------------------------------------------------------
def changed(model, before):
    return sorted(name for name, w in model.get_weights().items() if not np.array_equal(w, before[name]))


@pytest.mark.parametrize("n_models", [None, 3])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"l1": 0.01, "l2": 0.1}, {"clip_norm": 0.1}, {"max_norm": 0.1}, {"clip_value": 0.01},
        {"optimizer": AdamW(weight_decay=0.5)}, {"optimizer": SGD(lr=0.1, momentum=0.9)},
    ],
)  # fmt: skip
def test_frozen_layers_keep_their_weights(options, n_models):
    model = MLP([4, 6, 5, 3], activation="prelu", input_dropout=0.1, n_models=n_models)
    before = model.get_weights()
    fit(model, (X, Y), epochs=2, freeze=[0, 1], **options)
    assert changed(model, before) == ["layers.5.bias", "layers.5.weight"]
    before = model.get_weights()
    fit(model, (X, Y), epochs=1, freeze=[-1, "layers.1.bias"], **options)
    assert changed(model, before) == [n for n in sorted(before) if n[7] != "5" and n != "layers.1.bias"]


def test_what_is_not_frozen_learns_as_by_itself():
    """A last layer on frozen ones is a linear model of what they give; clipping counts its gradient alone."""
    whole = MLP([4, 6, 3], dtype="float64", seed=1)
    last = MLP([6, 3], dtype="float64")
    last.set_weights({f"layers.0.{k}": whole.get_weights()[f"layers.1.{k}"] for k in ("weight", "bias")})
    hidden = whole.activations(X)[0]
    options = {
        "epochs": 3,
        "batch_size": 16,
        "seed": 5,
        "clip_norm": 0.05,
        "l2": 0.01,
        "optimizer": SGD(lr=0.5),
    }
    fit(whole, (X, Y), freeze=[0], **options)
    fit(last, (hidden, Y), **options)
    np.testing.assert_allclose(whole.outputs(X), last.outputs(hidden), rtol=1e-10, atol=1e-12)


def test_a_frozen_run_continues_bit_for_bit():
    def trainer(epochs, **more):
        return Trainer(
            MLP([4, 6, 3], seed=2), (X, Y), epochs=epochs, batch_size=16, **{"freeze": [0], **more}
        )

    (whole := trainer(4)).run()
    (half := trainer(2)).run()
    tensors, metadata = half.state()
    rest = trainer(4)
    rest.load_state(tensors, metadata)
    rest.run()
    assert np.array_equal(rest.model.weights, whole.model.weights)
    with pytest.raises(FileFormatError, match="the freeze of the checkpoint is"):
        trainer(4, freeze=[]).load_state(tensors, metadata)
    plain = trainer(2, freeze=[])
    plain.run()
    tensors, metadata = plain.state()
    del metadata["frozen"]  # as an older version saved it
    trainer(4, freeze=[]).load_state(tensors, metadata)


@pytest.mark.parametrize(
    ("freeze", "said"),
    [
        ([2], "freeze has layer 2, but the model's layers are 0 to 1"),
        (0, r"freeze must be a list .*; write \[...\] around it"),
        ("layers.0.weight", "freeze must be a list"),
        (["layers.0.wieght"], "did you mean 'layers.0.weight'"),
        ([0.5], "freeze holds 0.5, expected the number of a layer or the name"),
        ([True], "freeze holds True"),
        ([0, 1], "leaves nothing to learn"),
    ],
)
def test_what_cannot_be_frozen(freeze, said):
    with pytest.raises(ConfigError, match=said):
        fit(MLP([4, 6, 3]), (X, Y), freeze=freeze)


def test_pieces_between_frozen_tensors():
    layout = ParameterLayout(
        [ParamSpec(name, (n,)) for name, n in (("a", 2), ("b", 3), ("c", 4), ("d", 1))], None
    )
    assert layout.segments(decayed=True, per_member=False) == [(slice(0, 10), (10,))]
    found = layout.segments(decayed=True, per_member=False, without=("b",))
    assert found == [(slice(0, 2), (2,)), (slice(5, 10), (5,))]
    assert layout.segments(decayed=False, per_member=False) == []
