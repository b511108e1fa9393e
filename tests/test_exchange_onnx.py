"""ONNX files answer as xpnet does, from raw samples on, in onnxruntime."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris

from tests.own_layers import _Own
from xpnet import MLP, MLPClassifier, MLPRegressor, fit
from xpnet.activations import NAMES
from xpnet.data.dataset import Preprocessing
from xpnet.errors import ConfigError, FileWriteError
from xpnet.exchange import to_onnx
from xpnet.exchange.onnx import OPSET
from xpnet.tabular import TabularPreprocessing
from xpnet.tabular.targets import in_target_units

onnx = pytest.importorskip("onnx", reason="ONNX export is checked where onnx is installed (extra onnx)")
runtime = pytest.importorskip("onnxruntime", reason="ONNX files are checked with onnxruntime (extra test)")

X, Y = load_iris(return_X_y=True)
XR, YR = load_diabetes(return_X_y=True)
NAMED = np.array(["setosa", "versicolor", "Ῥόδον"])[Y]
QUICK = {"random_state": 0, "max_iter": 5}
TOLERANCE = {"float32": 1e-6, "float64": 1e-13}


def run(data, x):
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    kind = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(uint8)": np.uint8}
    given = np.asarray(x).astype(kind[session.get_inputs()[0].type])
    return dict(zip(names, session.run(None, {"input": given}), strict=True)), given


def apart(found, expected):
    """Largest difference, in units of the largest size of what was expected."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "activation", [*NAMES, "leaky_relu:0.123456789", "elu:0.7", "prelu", "maxout", "maxout:3"]
)
def test_every_activation(activation, dtype):
    model = MLP([20, 30, 10, 3], activation=activation, dropout=0.5, input_noise=0.1, seed=1, dtype=dtype)
    x = 3.0 * np.random.default_rng(0).standard_normal((200, 20))
    found, given = run(to_onnx(model), x)
    limit = 1e-7 if (activation, dtype) == ("gelu", "float64") else TOLERANCE[dtype]
    assert apart(found["outputs"], model.outputs(given)) <= limit


@pytest.mark.parametrize("activation", NAMES)
def test_activations_far_from_zero_and_near_it(activation):
    model = MLP([1, 1, 1], activation=activation, dtype="float32")
    weights = {
        "layers.0.weight": [[1.0]],
        "layers.0.bias": [0.0],
        "layers.1.weight": [[1.0]],
        "layers.1.bias": [0.0],
    }
    model.set_weights({k: np.array(v) for k, v in weights.items()})
    size = np.geomspace(1e-30, 1e4, 200)
    x = np.concatenate([-size, [0.0], size])[:, None]
    found, given = run(to_onnx(model), x)
    expected = model.outputs(given)
    assert np.isfinite(found["outputs"]).all()
    assert np.abs(found["outputs"] - expected).max() <= 1e-6 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["text", "objects", "int64", "float64", "int8", "bool"])
@pytest.mark.parametrize("rows", [150, 100], ids=["three classes", "two classes"])
def test_classifiers_take_raw_samples(dtype, kind, rows):
    labels = {"text": NAMED, "objects": NAMED.astype(object)}.get(kind)
    labels = Y.astype(kind) if labels is None else labels
    clf = MLPClassifier((8, 6), dtype=dtype, **QUICK).fit(1e6 + 1e3 * X[:rows], labels[:rows])
    found, given = run(to_onnx(clf, input_dtype="float64"), 1e6 + 1e3 * X)
    assert apart(found["probabilities"], clf.predict_proba(given)) <= TOLERANCE[dtype]
    assert (found["label"] == clf.predict(given)).all()


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error", "hinge"])
@pytest.mark.parametrize("rows", [150, 100], ids=["three classes", "two classes"])
def test_losses_of_classes(loss, rows):
    clf = MLPClassifier((8,), loss=loss, dtype="float32", **QUICK).fit(X[:rows], NAMED[:rows])
    found, given = run(to_onnx(clf), X)
    assert (found["label"] == clf.predict(given)).all()
    if loss == "hinge":
        scores = clf.decision_function(given)
        assert apart(found["scores"], scores if scores.ndim == 2 else scores[:, None]) <= 1e-6
    else:
        assert apart(found["probabilities"], clf.predict_proba(given)) <= 1e-6


def test_shares_of_a_sigmoid_for_each_class():
    model = MLP([4, 8, 3], dtype="float64")
    fit(model, (X, Y), loss="binary_cross_entropy", epochs=5)
    found, given = run(to_onnx(model), X)
    assert apart(found["probabilities"], model.predict_proba(given)) <= 1e-6


def test_shares_of_a_squared_error_where_every_output_is_below_zero():
    model = MLP([1, 3], dtype="float32")
    model.set_weights({"layers.0.weight": np.zeros((3, 1)), "layers.0.bias": np.full(3, -1.0)})
    model.task, model.loss = "classification", "squared_error"
    assert np.allclose(run(to_onnx(model), [[0.0]])[0]["probabilities"], 1.0 / 3.0)


def test_multilabel():
    y = np.stack([Y > 0, Y > 1, X[:, 0] > 5.5], axis=1).astype(int)
    clf = MLPClassifier((8,), dtype="float32", **QUICK).fit(X, y)
    found, given = run(to_onnx(clf), X)
    assert apart(found["probabilities"], clf.predict_proba(given)) <= 1e-6
    assert (found["label"] == clf.predict(given)).all() and found["label"].dtype == np.int64


@pytest.mark.parametrize("settings", [{}, {"loss": "poisson"}, {"loss": "huber"}, {"standardize": False},
                                      {"scale_target": False}])  # fmt: skip
@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_regressors_scale_inside(settings, columns, dtype):
    y = YR if columns == 1 else np.stack([YR, 1e3 * YR], axis=1)
    reg = MLPRegressor((8,), dtype=dtype, **settings, **QUICK).fit(XR, y)
    found, given = run(to_onnx(reg), XR)
    assert apart(found["prediction"], reg.predict(given).astype(np.float64)) <= TOLERANCE[dtype]


def test_outliers_are_compressed_inside():
    x = XR.copy()
    x[0, 2] = 1e9
    reg = MLPRegressor((8,), dtype="float64", **QUICK).fit(x, YR)
    assert reg.scaler_.tails_.any()
    far = np.concatenate([XR, 1e12 * XR, [np.full(10, 1e300), np.full(10, -1e300)]])
    found, given = run(to_onnx(reg), far)
    assert np.allclose(found["prediction"], reg.predict(given), rtol=1e-12)


def test_pictures_of_bytes():
    model = MLP([12, 8, 3], dtype="float32")
    model.preprocessing, model.classes = Preprocessing((3, 4), scale=1 / 255), ("a", "b", "c")
    x = np.random.default_rng(0).integers(0, 256, (40, 3, 4), dtype=np.uint8)
    fit(model, (x, np.arange(40) % 3), epochs=2)
    for kind in ("uint8", "float32"):
        found, _ = run(to_onnx(model, input_dtype=kind), x)
        assert apart(found["probabilities"], model.predict_proba(x)) <= 1e-6
        assert (found["label"] == np.array(model.classes)[model.predict(x)]).all()


def test_scale_and_shift_of_each_feature():
    model = MLP([4, 6, 2], dtype="float64")
    model.preprocessing = Preprocessing((4,), scale=np.array([0.5, 1.0, 2.0, 1.0]), shift=-1.0)
    fit(model, (X, np.stack([Y, 1.0 - Y], axis=1)), task="regression", epochs=2)
    found, given = run(to_onnx(model), X)
    assert apart(found["prediction"], model.predict(given)) <= 1e-13


def test_wide_networks_stay_close():
    model = MLP([784, 1000, 10], seed=2, dtype="float32")
    x = np.random.default_rng(0).random((64, 784))
    found, given = run(to_onnx(model), x)
    assert apart(found["outputs"], model.outputs(given)) <= 1e-6


def test_the_file_says_what_it_is(tmp_path):
    clf = MLPClassifier((8,), **QUICK).fit(X, NAMED)
    data = to_onnx(clf, tmp_path / "iris.onnx")
    made = onnx.load(tmp_path / "iris.onnx")
    assert (tmp_path / "iris.onnx").read_bytes() == data == to_onnx(clf)
    onnx.checker.check_model(made, full_check=True)
    assert made.opset_import[0].version == OPSET and made.producer_name == "xpnet"
    facts = {p.key: p.value for p in made.metadata_props}
    assert facts == {
        "task": "classification",
        "loss": "softmax_cross_entropy",
        "dtype": "float64",
        "sizes": "4-8-3",
    }
    read = {name for node in made.graph.node for name in node.input}
    assert {tensor.name for tensor in made.graph.initializer} <= read  # onnxruntime warns of others
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "B"
    for rows in (1, 7):
        assert run(data, X[:rows])[0]["label"].tolist() == clf.predict(X[:rows]).tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP([4, 3], n_models=2), "population"),
        (lambda: _Own([4, 3]), "_Halved cannot be exported"),
        (lambda: MLP([4, 3], dtype="complex128"), "complex128"),
        (lambda: MLPClassifier(), "fitted estimator"),
        (lambda: MLPClassifier((4,), **QUICK).fit(X, Y.astype("datetime64[D]")), "datetime64"),
    ],
)
def test_what_cannot_be_exported(make, message):
    with pytest.raises(ConfigError, match=message):
        to_onnx(make())


TABLE = {
    "age": [31, 45, None, 22, 1e6, 27] * 10,
    "town": ["Bern", "Graz", "Bern", None, "Ulm", "Graz"] * 10,
    "deck": [1, 2, 3, 1, 2, 3] * 10,
    "label": [True, False, True, True, False, False] * 10,
    "born": np.array(
        ["1990-01-31", "2001-07-01", "NaT", "1985-12-24", "1990-01-31", "1977-03-03"] * 10, "M8[D]"
    ),
    "paid": np.arange(60) ** 1.5,
}


def columns(table):
    """A table as the inputs of its ONNX file."""
    days = np.where(np.isnat(table["born"]), np.nan, table["born"].astype(np.int64).astype(float))
    ages = [np.nan if v is None else v for v in table["age"]]
    numbers = {"age": ages, "column label": table["label"], "born": days, "paid": table["paid"]}
    texts = {"town": ["" if v is None else v for v in table["town"]], "deck": [str(v) for v in table["deck"]]}
    return {k: np.array(v, dtype=np.float64)[:, None] for k, v in numbers.items()} | {
        k: np.array(v, dtype=object)[:, None] for k, v in texts.items()
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("target", ["town", "paid"])
@pytest.mark.parametrize(
    "rules", [{}, {"max_categories": 2}, {"standardize": False, "missing_indicator": False}]
)
def test_tables(dtype, target, rules):
    prepare = TabularPreprocessing(target, categorical=["deck"], **rules)
    table = TABLE if target == "paid" else {**TABLE, "town": [t or "none" for t in TABLE["town"]]}
    x, y = prepare.fit(table).transform(table, dtype=dtype), prepare.encode_target(table)
    model = MLP([x.shape[1], 6, max(len(prepare.target_.classes), 1)], dtype=dtype)
    model.classes = prepare.target_.classes or None
    fit(model, (x, y), epochs=2)
    model.tabular = prepare.to_metadata()
    model = in_target_units(model)
    session = runtime.InferenceSession(to_onnx(model), providers=["CPUExecutionProvider"])
    inputs = {i.name for i in session.get_inputs()}
    assert inputs == {"age", "column label", "born", "deck", "town", "paid"} - {target}

    def answers(table):
        given = {k: v for k, v in columns(table).items() if k != target}
        return dict(zip([o.name for o in session.get_outputs()], session.run(None, given), strict=True))

    found = answers(table)
    if target == "paid":
        assert apart(found["prediction"], model.predict(x)) <= TOLERANCE[dtype]
        # a whole number may come with a point, and a category that was never seen has no feature
        new = {**table, "town": ["Rome"] * 60, "deck": ["1.0", "2", "9"] * 20}
        expected = model.predict(prepare.transform(new, dtype=dtype, unknown="missing"))
        assert apart(answers(new)["prediction"], expected) <= TOLERANCE[dtype]
    else:
        assert apart(found["probabilities"], model.predict_proba(x)) <= TOLERANCE[dtype]
        assert (found["label"] == np.array(model.classes)[model.predict(x)]).all()
    with pytest.raises(ConfigError, match="belongs to arrays"):
        to_onnx(model, input_dtype="float32")


@pytest.mark.parametrize("towns", [["Bern", "Graz"], ["Bern", "Graz", None], ["Bern", "Bern", "Graz", "Linz"],
                                   ["Bern", "Bern", "Graz", "Linz", None]])  # fmt: skip
def test_a_new_category_is_what_predict_makes_of_it_with_unknown_missing(towns):
    """With and without missing values, with and without rare categories: whatever would be refused otherwise."""
    n = 60
    table = {"town": (towns * n)[:n], "x": np.arange(n) ** 0.5, "y": np.arange(n) * 1.5}
    prepare = TabularPreprocessing("y", max_categories=2).fit(table)
    model = MLP([len(prepare.feature_names_), 5, 1], dtype="float64")
    fit(model, (prepare.transform(table, dtype="float64"), prepare.encode_target(table)), epochs=2)
    model.tabular = prepare.to_metadata()
    session = runtime.InferenceSession(to_onnx(model), providers=["CPUExecutionProvider"])
    new = {"town": ["Bern", "Rome", None], "x": [1.0, 2.0, np.nan]}
    (found,) = session.run(None, {
        "town": np.array([t or "" for t in new["town"]], dtype=object)[:, None], "x": np.array(new["x"])[:, None],
    })  # fmt: skip
    expected = model.predict(prepare.transform(new, dtype="float64", unknown="missing"))
    assert apart(found, expected) <= TOLERANCE["float64"]


def test_the_example_of_the_documentation_runs():
    text = (Path(__file__).parent.parent / "docs" / "exchange.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(import numpy.*?)```", text, re.S)
    assert block is not None
    exec(compile(block.group(1), "exchange.md", "exec"), {})


def test_refusals_of_arguments_and_places(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="input_dtype must be one of"):
        to_onnx(MLP([4, 3]), input_dtype="int64")
    with pytest.raises(FileWriteError):
        to_onnx(MLP([4, 3]), tmp_path / "absent" / "a.onnx")
    monkeypatch.setattr("xpnet.exchange.onnx._LARGEST", 50)
    with pytest.raises(ConfigError, match=r"15 parameters.*2 GiB"):
        to_onnx(MLP([4, 3]))
