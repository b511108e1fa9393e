"""Estimators on data of a device: samples stay there, and results are those of the host."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from tests.device_data import DEVICE, counted, there
from tests.estimator_cases import CLASSES, NUMBERS, QUICK, TARGETS, WEIGHTS, N, X, check_all
from xpnet import DataError, MLPClassifier, MLPRegressor
from xpnet.backend.reference import ReferenceBackend
from xpnet.data.scaling import _median_of_different
from xpnet.estimators import FeatureScaler
from xpnet.interchange import namespace, to_host


@pytest.fixture
def left():
    with counted() as sizes:
        yield sizes


def same(answer, expected, where=DEVICE):
    assert answer.device == where
    answer = to_host(answer)
    assert answer.dtype == expected.dtype and np.allclose(answer, expected, rtol=1e-9)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "options", [{}, {"early_stopping": True}, {"standardize": False}, {"dtype": "float32"}], ids=str
)
def test_nothing_as_large_as_the_samples_leaves(left, target, options):
    kind, y = TARGETS[target]
    x = np.clip(X, -3.0, 3.0)  # without scaling an outlier would be too much
    for w in (None, WEIGHTS):
        estimator, expected = kind(**QUICK, **options), kind(**QUICK, **options)
        left.clear()
        estimator.fit(there(x), there(y), None if w is None else there(w))
        expected.fit(x, y, w)
        few = estimator.model_.n_parameters  # weights and statistics, and for the stratified split the labels
        assert max(left) <= (N if "early_stopping" in options and target == "classes" else few) < x.size
        assert np.allclose(estimator.loss_curve_, expected.loss_curve_, rtol=1e-5)
        assert estimator.validation_scores_ == pytest.approx(expected.validation_scores_, abs=1e-5)
        left.clear()
        answer = estimator.predict(there(x))
        proba = estimator.predict_proba(there(x)) if kind is MLPClassifier else None
        assert not left
        if "dtype" not in options:
            same(answer, expected.predict(x))
            if proba is not None:
                same(proba, expected.predict_proba(x))


@pytest.mark.parametrize("target", TARGETS)
def test_samples_that_the_user_holds_out(left, target):
    kind, y = TARGETS[target]
    parts = [(X[::2], y[::2], WEIGHTS[::2]), (X[1::2], y[1::2], WEIGHTS[1::2])]
    estimator = kind(**QUICK).fit(*map(there, parts[0]), *map(there, parts[1]))
    assert max(left) <= estimator.model_.n_parameters
    expected = kind(**QUICK).fit(*parts[0], *parts[1])
    assert estimator.validation_scores_ == pytest.approx(expected.validation_scores_)
    if kind is MLPClassifier:
        for method in ("decision_function", "predict_log_proba"):
            same(getattr(estimator, method)(there(X)), getattr(expected, method)(X))


@pytest.mark.parametrize("target", TARGETS)
def test_training_that_goes_on(left, target):
    kind, y = TARGETS[target]
    estimator, expected = kind(**QUICK), kind(**QUICK)
    classes = {"classes": np.arange(3)} if kind is MLPClassifier else {}
    for part in (slice(0, 100), slice(100, N)):
        estimator.partial_fit(there(X[part]), there(y[part]), **classes)
        expected.partial_fit(X[part], y[part], **classes)
    assert (
        max(left) <= 2 * estimator.model_.n_parameters
    )  # weights, and the moments of the optimizer, which are kept
    same(estimator.predict(there(X)), expected.predict(X))
    left.clear()
    estimator.set_params(warm_start=True).fit(there(X), there(y))
    assert max(left) <= estimator.model_.n_parameters
    expected.set_params(warm_start=True).fit(X, y)
    same(estimator.predict(there(X)), expected.predict(X))
    # the network stays where it was first; samples of another place come to it, and answers follow them
    estimator.partial_fit(X, y)
    expected.partial_fit(X, y)
    assert np.allclose(estimator.predict(X), expected.predict(X))


def test_labels_of_other_types(left):
    words = np.array(["a", "b", "c"])[CLASSES]
    for y in (
        words,
        there(CLASSES.astype(np.uint8)),
        there(CLASSES.astype(float)),
        CLASSES.tolist(),
        there(CLASSES == 1),
    ):
        clf = MLPClassifier(**QUICK).fit(there(X), y)
        assert max(left) <= N
        host = MLPClassifier(**QUICK).fit(X, to_host(y))
        assert clf.classes_.dtype == host.classes_.dtype
        assert np.array_equal(to_host(clf.predict(there(X))), host.predict(X))
    assert isinstance(MLPClassifier(**QUICK).fit(there(X), words).predict(there(X)), np.ndarray)
    rare = np.where(np.arange(N) < 2, 9, CLASSES)
    with pytest.raises(DataError, match="y_val holds 9, which is none of the classes"):
        MLPClassifier(**QUICK).fit(there(X), there(CLASSES), X_val=there(X), y_val=there(rare))
    with pytest.raises(DataError, match="at least two classes, found one class: 4"):
        MLPClassifier(**QUICK).fit(there(X), there(np.full(N, 4)))


@pytest.mark.parametrize("class_weight", ["balanced", {0: 2.0}])
def test_class_weights(left, class_weight):
    clf = MLPClassifier(**QUICK, class_weight=class_weight).fit(there(X), there(CLASSES), there(WEIGHTS))
    assert max(left) <= N
    host = MLPClassifier(**QUICK, class_weight=class_weight).fit(X, CLASSES, WEIGHTS)
    assert clf.loss_ == pytest.approx(host.loss_, rel=1e-12)


def test_scores_need_no_dispatch():
    for kind, y in TARGETS.values():
        w = WEIGHTS
        estimator = kind(**QUICK).fit(there(X), there(y))
        expected = kind(**QUICK).fit(X, y).score(X, y, w)
        assert estimator.score(there(X), there(y), there(w)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "x, y, message",
    [
        (X[:0], CLASSES[:0], "0 sample"),
        (X[:, 0], CLASSES, "Expected 2D array, got 1D"),
        (X[:5], CLASSES[:4], "inconsistent numbers of samples"),
        (np.where(X == 7.0, np.nan, X), CLASSES, "Input X contains NaN"),
        (np.where(X == 7.0, np.inf, X), CLASSES, "Input X contains infinity"),
        (X + 1j, CLASSES, "Complex data not supported"),
        (X, np.where(CLASSES == 0, np.nan, CLASSES), "Input y contains NaN"),
        (X, NUMBERS, "Unknown label type"),
        (X, None, "requires y to be passed"),
    ],
)
def test_bad_data_are_named_as_on_the_host(x, y, message):
    for place in (np.asarray, there):
        with pytest.raises(ValueError, match=message):
            MLPClassifier(**QUICK).fit(place(x), None if y is None else place(y))
    with pytest.raises(ValueError, match="X has 3 features, but MLPClassifier is expecting 8"):
        MLPClassifier(**QUICK).fit(there(X), there(CLASSES)).predict(there(X[:, :3]))


def test_where_the_network_is():
    x, y = there(X), there(CLASSES)
    clf = MLPClassifier(**QUICK).fit(x, y)
    assert clf.model_.be.device == str(DEVICE)
    with counted() as left:
        clf = MLPClassifier(**QUICK, device="cpu").fit(x, y)
        assert clf.model_.be.device == "cpu" and max(left) == X.size
    chosen = ReferenceBackend(namespace(x), DEVICE)
    assert MLPClassifier(**QUICK, device=chosen).fit(x, y).model_.be is chosen


def test_copies_and_pickles_know_the_network():
    clf = MLPClassifier(**QUICK).fit(there(X), there(CLASSES))
    expected = to_host(clf.predict_proba(there(X)))
    for other in (pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf)):
        assert np.allclose(other.predict_proba(X), expected)
        same(other.predict_proba(there(X)), expected)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_scaler_measures_where_the_data_are(left, weights):
    scaler = FeatureScaler().fit(there(X), None if weights is None else there(weights))
    z = scaler.transform(there(X))
    back = scaler.inverse_transform(z)
    assert max(left) == X.shape[1]
    expected = FeatureScaler().fit(X, weights)
    for name in ("mean_", "scale_", "tails_"):
        assert np.array_equal(getattr(scaler, name), getattr(expected, name))
    assert scaler.tails_.any()
    same(z, expected.transform(X))
    same(back, expected.inverse_transform(expected.transform(X)))


def test_columns_are_measured_in_blocks(monkeypatch):
    whole = FeatureScaler().fit(X)
    monkeypatch.setattr("xpnet.data.scaling._DENSE", 2 * N)
    monkeypatch.setattr("xpnet.data.scaling._FEWEST", 1)
    parts = FeatureScaler().fit(X)
    for name in ("mean_", "scale_", "tails_"):
        assert np.allclose(getattr(whole, name), getattr(parts, name), rtol=1e-13)


def test_the_median_of_different_values():
    columns = [[0, 0, 0, 0, 0], [0, 0, 0, 0, 3], [1, 1, 1, 2, 0], [1, 2, 2, 2, 7], [5, 5, 5, 5, 5]]
    x = np.array(columns, float).T
    assert _median_of_different(x).tolist() == [0.0, 3.0, 1.5, 2.0, 5.0]


# scikit-learn dispatches on array libraries only where SciPy was told so before it was imported
SEARCH = """
import sys
import numpy as np
import sklearn
from sklearn.model_selection import GridSearchCV, cross_val_score
from tests.device_data import counted, there
from tests.estimator_cases import CLASSES, N, NUMBERS, QUICK, X
from xpnet import MLPClassifier, MLPRegressor

for estimator, y in ((MLPClassifier(**QUICK), CLASSES), (MLPRegressor(**QUICK), NUMBERS)):
    grid = {"alpha": [1e-4, 1.0], "early_stopping": [False, True]}
    same = GridSearchCV(estimator, grid, cv=2).fit(X, y)
    scores = cross_val_score(estimator, X, y, cv=2)
    with sklearn.config_context(array_api_dispatch=True), counted() as left:
        search = GridSearchCV(estimator, grid, cv=2, error_score="raise").fit(there(X), there(y))
        answer = search.predict(there(X))
        found = cross_val_score(estimator, there(X), there(y), cv=2)
    assert answer.device == there(X).device
    assert max(left) <= N, max(left)
    assert np.allclose(search.cv_results_["mean_test_score"], same.cv_results_["mean_test_score"], atol=1e-6)
    assert np.allclose(found, scores, atol=1e-6)
print("fine")
"""


def test_inside_a_search_with_dispatch():
    sklearn = pytest.importorskip("sklearn", minversion="1.7", reason="older versions split with np.asarray")
    done = subprocess.run(
        [sys.executable, "-c", SEARCH],
        capture_output=True,
        text=True,
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
    )
    assert done.stdout.strip() == "fine", (sklearn.__version__, done.stderr[-3000:])


def test_on_devices_of_pytorch(monkeypatch):
    """Here the CPU passes for a device that NumPy cannot read."""
    torch = pytest.importorskip("torch", reason="PyTorch arrays are tested where it is installed")
    for module in ("xpnet.interchange", "xpnet.estimators.base"):
        monkeypatch.setattr(f"{module}.in_host_memory", lambda x: False)
    assert MLPRegressor(**QUICK).fit(torch.asarray(X), torch.asarray(NUMBERS)).model_.be.name == "torch"
    check_all(torch.asarray, lambda answer, x: isinstance(answer, torch.Tensor))
