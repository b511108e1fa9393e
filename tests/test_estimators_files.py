"""Estimators in files: the same estimator again, and an ordinary model for everything else that opens them."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import NotFittedError

import xpnet
from xpnet import DeepEnsembleClassifier, MLPClassifier, MLPRegressor
from xpnet.cli import main
from xpnet.errors import ConfigError, FileFormatError
from xpnet.schedules import Cosine

X, Y = load_iris(return_X_y=True)
X = X * [1.0, 1e3, 1e-3, 1.0] + [0.0, 500.0, 0.0, -3.0]  # units and offsets that only scaling makes usable
XR, YR = load_diabetes(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]
QUICK = {"random_state": 0, "max_iter": 10, "batch_size": 32, "learning_rate_init": 0.01}


def classifier(**settings):
    return MLPClassifier((8,), **{**QUICK, **settings})


def regressor(**settings):
    return MLPRegressor((8,), **{**QUICK, **settings})


@pytest.mark.parametrize(
    "labels",
    [Y, NAMES, NAMES.astype(object), Y > 0, np.stack([Y > 0, Y > 1], axis=1).astype(int)],
    ids=["int", "text", "text objects", "bool", "multi-label"],
)
@pytest.mark.parametrize("settings", [{}, {"standardize": False, "dtype": "float32", "activation": "prelu"}])
def test_classifier(tmp_path, labels, settings):
    clf = classifier(**settings).fit(X, labels)
    clf.save(tmp_path / "clf.safetensors")
    again = MLPClassifier.load(tmp_path / "clf.safetensors")
    assert type(again) is MLPClassifier and again.get_params() == clf.get_params()
    assert np.array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert np.array_equal(again.predict(X), clf.predict(X)) and again.predict(X).dtype == clf.predict(X).dtype
    assert again.predict(X[:1]).tolist() == clf.predict(X[:1]).tolist()
    assert again.loss_curve_ == clf.loss_curve_ and again.n_iter_ == clf.n_iter_ and again.t_ == clf.t_
    again.partial_fit(X, labels)


@pytest.mark.parametrize("settings", [{}, {"loss": "poisson"}, {"scale_target": False}, {"dtype": "float32"}])
@pytest.mark.parametrize("columns", [1, 2])
def test_regressor(tmp_path, settings, columns):
    y = YR if columns == 1 else np.stack([YR, 1e4 * YR], axis=1)
    reg = regressor(**settings).fit(XR, y)
    reg.save(tmp_path / "reg.safetensors")
    assert np.array_equal(MLPRegressor.load(tmp_path / "reg.safetensors").predict(XR), reg.predict(XR))
    model = xpnet.load(tmp_path / "reg.safetensors")
    assert np.allclose(model.predict(XR).reshape(reg.predict(XR).shape), reg.predict(XR), rtol=1e-3)


def test_as_a_model_it_takes_raw_features(tmp_path):
    clf = classifier().fit(X, NAMES)
    clf.save(tmp_path / "clf.safetensors")
    model = xpnet.load(tmp_path / "clf.safetensors")
    assert np.array(model.classes)[model.predict(X)].tolist() == clf.predict(X).tolist()
    assert np.allclose(model.predict_proba(X), clf.predict_proba(X), atol=1e-10)
    np.save(tmp_path / "x.npy", X[::50])
    said = CliRunner().invoke(main, ["predict", str(tmp_path / "clf.safetensors"), str(tmp_path / "x.npy")])
    assert said.exit_code == 0
    lines = said.output.splitlines()
    assert [line.split()[1] for line in lines] == clf.predict(X[::50]).tolist()


def test_outliers_are_compressed_by_the_estimator_only(tmp_path):
    x = XR.copy()
    x[0, 0] = 1e6
    reg = regressor().fit(x, YR)
    with pytest.warns(UserWarning, match="columns 0 had outliers"):
        reg.save(tmp_path / "reg.safetensors")
    assert np.array_equal(MLPRegressor.load(tmp_path / "reg.safetensors").predict(x), reg.predict(x))
    # as a model it is right wherever there is no outlier
    model = xpnet.load(tmp_path / "reg.safetensors")
    assert np.allclose(model.predict(x[1:])[:, 0], reg.predict(x[1:]), rtol=1e-6)


def test_names_of_columns(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abcd"))
    classifier().fit(frame, NAMES).save(tmp_path / "clf.safetensors")
    again = MLPClassifier.load(tmp_path / "clf.safetensors")
    assert again.feature_names_in_.tolist() == list("abcd")
    with pytest.raises(ValueError, match="feature names"):
        again.predict(frame[list("dcba")])


def test_a_device_that_is_not_there(tmp_path, monkeypatch):
    clf = classifier(device="cpu").fit(X, Y)
    clf.device = "cuda:99"
    clf.save(tmp_path / "clf.safetensors")
    with pytest.warns(UserWarning, match="computes on the CPU"):
        again = MLPClassifier.load(tmp_path / "clf.safetensors")
    assert np.array_equal(again.predict_proba(X), clf.predict_proba(X))


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(NotFittedError):
        classifier().save(tmp_path / "no.safetensors")
    with pytest.raises(ConfigError, match=r"learning_rate=.*cannot be saved"):
        classifier(learning_rate=Cosine()).fit(X, Y).save(tmp_path / "no.safetensors")
    assert not (tmp_path / "no.safetensors").exists()


def test_what_cannot_be_opened(tmp_path):
    path = tmp_path / "clf.safetensors"
    with pytest.raises(FileFormatError):
        MLPClassifier.load(path)
    clf = classifier().fit(X, Y)
    clf.model_.save(path)
    with pytest.raises(FileFormatError, match="holds no estimator"):
        MLPClassifier.load(path)
    clf.save(path)
    with pytest.raises(FileFormatError, match=r"opened with MLPClassifier\.load"):
        MLPRegressor.load(path)
    with pytest.raises(FileFormatError):
        DeepEnsembleClassifier.load(path)
    model = xpnet.load(path)
    for record in (
        {"format": 9},
        {"format": 1},
        {"format": 1, "kind": "MLPClassifier", "settings": {"widht": 3}},
        [],
    ):
        model.save(path, {"estimator": record})
        with pytest.raises(FileFormatError):
            MLPClassifier.load(path)


def test_the_model_file_scales_large_features_without_rounding_them_first(tmp_path):
    x = 1.7e9 + 50.0 * np.random.default_rng(0).normal(size=(400, 1))
    y = (x[:, 0] > 1.7e9).astype(int)
    clf = MLPClassifier((16,), max_iter=30, random_state=0, dtype="float32").fit(x, y)
    clf.save(tmp_path / "m.safetensors")
    assert clf.score(x, y) > 0.95
    assert np.mean(xpnet.load(tmp_path / "m.safetensors").predict(x) == y) == clf.score(x, y)
