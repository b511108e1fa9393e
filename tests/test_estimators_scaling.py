"""Scaling inside the estimators: units, constants, rare values and gross outliers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import load_breast_cancer

from xpnet import MLPClassifier, MLPRegressor
from xpnet.errors import DataError
from xpnet.estimators import FeatureScaler
from xpnet.estimators.rows import scaled

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(3.0, 2.0, (500, 4))


def test_ordinary_columns_are_standardized():
    s = FeatureScaler().fit(NORMAL)
    assert np.allclose(s.mean_, NORMAL.mean(axis=0)) and np.allclose(s.scale_, NORMAL.std(axis=0))
    assert not s.tails_.any()


@pytest.mark.parametrize("unit", [1e-300, 1e-6, 1e6, 1e300])
def test_units_do_not_matter(unit):
    z = FeatureScaler().fit(NORMAL).transform(NORMAL)
    assert np.allclose(FeatureScaler().fit(NORMAL * unit).transform(NORMAL * unit), z)


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, -1e20, 1e-320])
def test_constant_column_becomes_zero(value):
    x = np.full((50, 1), value)
    s = FeatureScaler().fit(x)
    assert (s.transform(x) == 0.0).all() and np.isfinite(s.transform(x + 1.0)).all()


def test_rare_values_stay_near():
    x = np.zeros((2000, 1))
    x[:2] = 1.0
    z = FeatureScaler().fit(x).transform(x)
    assert 1.0 < np.abs(z).max() <= 3.0 + 1e-9


@pytest.mark.parametrize("outlier", [1e30, -1e308])
@pytest.mark.parametrize("n", [500, 60_000])
def test_one_outlier_changes_nothing_for_the_others(outlier, n):
    x = RNG.normal(size=(n, 2))
    plain = FeatureScaler().fit(x).transform(x)
    x[1, 0] = outlier
    s = FeatureScaler().fit(x)
    z = s.transform(x)
    rest = np.arange(n) != 1
    assert np.abs(z[rest] - plain[rest]).max() < 0.2
    assert s.tails_.tolist() == [True, False]
    assert 10.0 < abs(z[1, 0]) < 1000.0 and np.isfinite(z).all()


def test_outliers_grow_like_a_logarithm():
    x = NORMAL[:, :1].copy()
    x[:2, 0] = 100.0, -60.0
    s = FeatureScaler().fit(x)
    z = (x - s.mean_) / s.scale_
    far = np.sign(z) * (10.0 + np.log(1.0 + np.abs(z) - 10.0, where=np.abs(z) > 10.0, out=np.zeros_like(z)))
    assert (np.abs(z) > 10.0).sum() == 2
    assert np.allclose(s.transform(x), np.where(np.abs(z) > 10.0, far, z), rtol=1e-12)
    assert np.allclose(s.inverse_transform(s.transform(x)), x, rtol=1e-12)


def test_a_clipped_value_within_ten_scales_is_left():
    x = 1000.0 + NORMAL[:, :1]
    x[0] = 1003.0 + 9.0 * 2.0
    s = FeatureScaler().fit(x)
    z = (x - s.mean_) / s.scale_
    assert 8.0 < z[0, 0] < 10.0 and not s.tails_.any() and np.allclose(s.transform(x), z, rtol=1e-12)


def test_it_can_be_undone():
    x = NORMAL.copy()
    x[0, 0], x[:, 1] = 1e30, 5.0
    s = FeatureScaler().fit(x)
    assert np.allclose(s.inverse_transform(s.transform(x)), x, rtol=1e-10)


def test_a_row_of_weight_two_is_two_rows():
    w = RNG.integers(1, 4, 500)
    x = np.repeat(NORMAL, w, axis=0)
    one, two = FeatureScaler().fit(NORMAL, w.astype(float)), FeatureScaler().fit(x)
    assert np.allclose(one.mean_, two.mean_, rtol=1e-12) and np.allclose(one.scale_, two.scale_, rtol=1e-12)


def test_sparse_columns_in_blocks(monkeypatch):
    monkeypatch.setattr("xpnet.data.scaling._BLOCK", 1000)
    x = NORMAL * (NORMAL > 2.0)
    dense, scarce = FeatureScaler().fit(x), FeatureScaler().fit(sparse.csr_array(x))
    assert np.allclose(dense.mean_, scarce.mean_) and np.allclose(dense.scale_, scarce.scale_)


def test_training_survives_all_of_it():
    x, y = load_breast_cancer(return_X_y=True)
    x = np.hstack([x * 1e-6, np.full((len(x), 1), 1e9)])
    x[3, 0] = 1e30
    clf = MLPClassifier((32,), max_iter=60, random_state=0).fit(x[::2], y[::2])
    assert clf.score(x[1::2], y[1::2]) > 0.94
    assert np.isfinite(clf.predict_proba(np.full((1, 31), -1e300))).all()


def test_without_scaling_large_values_are_refused():
    with pytest.raises(DataError, match="too large for float32"):
        scaled(np.array([[1e300]]), None, "float32")


@pytest.mark.parametrize("unit", [2.0**-1000, 2.0**-400, 2.0**600, 2.0**1010])
@pytest.mark.parametrize("weighted", [False, True])
def test_units_of_targets_do_not_matter(unit, weighted):
    """Nor do those whose squares, or whose sum, no float64 holds."""
    t = NORMAL[:200, :2] + 3.0
    w = RNG.integers(0, 3, 200).astype(float) if weighted else None
    settings = {"max_iter": 3, "early_stopping": True, "random_state": 0, "scale_target": True}
    for loss in ("squared_error", "poisson"):
        y = np.abs(t) if loss == "poisson" else t
        expected = MLPRegressor((5,), loss=loss, **settings).fit(NORMAL[:200], y, w)
        found = MLPRegressor((5,), loss=loss, **settings).fit(NORMAL[:200], y * unit, w)
        assert np.array_equal(found.target_scale_, expected.target_scale_ * unit)
        assert np.allclose(found.predict(NORMAL), expected.predict(NORMAL) * unit, rtol=1e-12)
        assert found.validation_scores_ == expected.validation_scores_
