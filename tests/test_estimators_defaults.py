"""What "auto" becomes in the estimators, and that it is not embarrassing where samples are few."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from xpnet import MLPClassifier, MLPRegressor
from xpnet.errors import ConfigError


def samples(n, features=4):
    x = np.random.default_rng(0).normal(size=(n, features))
    return x, np.arange(n) % 2


def fitted(n, features=4, **settings):
    return MLPClassifier(max_iter=1, random_state=0, **settings).fit(*samples(n, features))


def test_penalty_of_classes_falls_with_the_samples():
    assert fitted(50).alpha_ == fitted(100).alpha_ == 0.01
    assert fitted(400).alpha_ == 0.0025
    assert fitted(1500).alpha_ == 0.001
    assert fitted(100, alpha=0.5).alpha_ == 0.5


def test_noise_follows_the_distance_between_samples():
    few, many = fitted(100, 2), fitted(1600, 2)
    assert few.input_noise_ == pytest.approx(0.033)
    assert many.input_noise_ == pytest.approx(few.input_noise_ / 4.0)
    assert fitted(100, 64).input_noise_ == pytest.approx(0.33 * 100 ** (-1 / 64))
    assert fitted(64).input_noise_ == fitted(100, standardize=False).input_noise_ == 0.0


def test_width_of_classes():
    assert fitted(1000).coefs_[0].shape == (4, 512)
    assert fitted(1001).coefs_[0].shape == (4, 256)
    assert fitted(100, hidden_layer_sizes=7).coefs_[0].shape == (4, 7)


def test_width_of_numbers():
    x, y = samples(30)
    widths = [w.shape[1] for w in MLPRegressor("auto", max_iter=1).fit(x, y).coefs_]
    assert widths == [256, 128, 1]


@pytest.mark.parametrize("estimator", [MLPClassifier, MLPRegressor])
def test_unknown_width(estimator):
    with pytest.raises(ConfigError, match="hidden_layer_sizes must be whole numbers or 'auto', found 'wide'"):
        estimator("wide").fit(*samples(30))


def test_the_first_samples_of_a_stream_do_not_count_as_all():
    clf = MLPClassifier(random_state=0).partial_fit(*samples(100), classes=[0, 1])
    assert clf.alpha_ == 0.001
    assert clf.input_noise_ == pytest.approx(0.33 * 1000**-0.25)
    assert MLPRegressor(random_state=0).partial_fit(*samples(100)).alpha_ == pytest.approx(0.012)


def test_wine_without_any_argument():
    x, y = load_wine(return_X_y=True)
    folds = StratifiedKFold(3, shuffle=True, random_state=1000)
    proba = cross_val_predict(MLPClassifier(random_state=0), x, y, cv=folds, method="predict_proba")
    assert (proba.argmax(axis=1) == y).mean() >= 0.93
    assert log_loss(y, proba) <= 0.3
