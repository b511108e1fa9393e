"""Metrics against scikit-learn, on NumPy and on the strict Array API."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from xpnet import metrics
from xpnet.backend import get_backend
from xpnet.metrics import calibration, class_report, confusion_matrix, regression_scores

CASES = {
    "random": (np.random.default_rng(0).integers(0, 7, 500), np.random.default_rng(1).integers(0, 7, 500)),
    "one sample": (np.array([2]), np.array([6])),
    "perfect": (np.arange(21) % 7, np.arange(21) % 7),
    # class 3 never occurs, class 4 is never predicted, class 5 neither
    "absent": (
        np.array([0, 1, 2, 4, 4, 6, 0, 1, 1]),
        np.array([0, 2, 2, 3, 0, 6, 0, 1, 3]),
    ),
}


@pytest.fixture(params=["cpu", "array_api_strict"])
def be(request):
    if request.param == "cpu":
        return get_backend("cpu")
    return get_backend(pytest.importorskip("array_api_strict"))


@pytest.mark.parametrize("case", CASES)
def test_confusion_matrix(be, case):
    from sklearn.metrics import confusion_matrix as expected

    y, p = CASES[case]
    found = be.to_numpy(confusion_matrix(be, be.asarray(y, "int64"), be.asarray(p, "int64"), 7))
    np.testing.assert_array_equal(found, expected(y, p, labels=range(7)))


@pytest.mark.parametrize("case", CASES)
def test_report(be, case):
    from sklearn.metrics import precision_recall_fscore_support

    y, p = CASES[case]
    matrix = be.to_numpy(confusion_matrix(be, be.asarray(y, "int64"), be.asarray(p, "int64"), 7))
    report = class_report(matrix, list("abcdefg"))
    expected = precision_recall_fscore_support(y, p, labels=range(7), zero_division=np.nan)
    assert [row["class"] for row in report] == list("abcdefg")
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        found = [np.nan if row[name] is None else row[name] for row in report]
        np.testing.assert_allclose(found, values, rtol=1e-14, err_msg=name)


def test_many_rows_go_through_in_pieces(be, monkeypatch):
    monkeypatch.setattr(metrics, "_CHUNK", 64)
    test_confusion_matrix(be, "random")


def test_no_rows_give_zeros(be):
    none = be.asarray(np.zeros(0), "int64")
    np.testing.assert_array_equal(be.to_numpy(confusion_matrix(be, none, none, 2)), np.zeros((2, 2)))


def test_counts_are_exact_beyond_float32():
    """Counts add up in float64: 2**24 + 1 is not a float32 number."""
    assert class_report([[2**24 + 1, 0], [0, 1]], ["a", "b"])[0]["support"] == 2**24 + 1


@pytest.mark.parametrize("weighted", [False, True])
def test_errors_of_a_regression_are_those_of_scikit_learn(weighted):
    g = np.random.default_rng(0)
    truth, w = g.normal(2.0, [1.0, 10.0, 0.1], (40, 3)), g.uniform(0.0, 2.0, 40) if weighted else None
    predicted = truth + g.normal(0.3, [0.5, 1.0, 0.3], (40, 3))
    expected = {
        name: error(truth, predicted, sample_weight=w)
        for name, error in (("rmse", root_mean_squared_error), ("mae", mean_absolute_error), ("r2", r2_score))
    }
    assert regression_scores(truth, predicted, w) == pytest.approx(expected, rel=1e-12)
    truth[:, 1] = 5.0
    assert regression_scores(truth, predicted, w)["r2"] is None


@pytest.mark.parametrize("library", ["numpy", "strict"])
def test_calibration_bin_by_bin(library):
    xp = np if library == "numpy" else pytest.importorskip("array_api_strict")
    rng = np.random.default_rng(0)
    sure = np.concatenate([rng.uniform(0.3, 1.0, 997), [1.0, 1.0, 0.5]]).astype("float32")
    right = rng.uniform(size=1000) < sure**2
    found = calibration(xp.asarray(sure), xp.asarray(right), bins=10)
    exact = sure.astype("float64")
    where = np.minimum((exact * 10).astype(int), 9)
    parts = [(exact[where == b], right[where == b]) for b in np.unique(where)]
    expected = sum(len(c) * abs(c.mean() - r.mean()) for c, r in parts) / 1000
    assert found["calibration_error"] == pytest.approx(expected, rel=1e-12) and expected > 0.1
    assert found["confidence"] == pytest.approx(exact.mean(), rel=1e-12)
    assert calibration(xp.asarray(right.astype("float64")), xp.asarray(right)) == {
        "confidence": pytest.approx(right.mean()), "calibration_error": 0.0
    }  # fmt: skip
