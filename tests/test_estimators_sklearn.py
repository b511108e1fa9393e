"""Beside scikit-learn's MLP with the settings that docs/estimators.md gives for it: as many epochs, as good a fit."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.neural_network import MLPClassifier as Theirs
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.preprocessing import StandardScaler

from xpnet import MLPClassifier, MLPRegressor
from xpnet.estimators.choices import InverseScaling

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def data(load):
    x, y = load(return_X_y=True)
    return StandardScaler().fit_transform(x), y


def like_theirs(n, **settings):
    """The arguments that docs/estimators.md names under "To get scikit-learn's behaviour"."""
    batch = min(200, n)
    common = {
        "hidden_layer_sizes": (100,), "standardize": False, "learning_rate": "constant", "learning_rate_init": 0.001,
        "batch_size": batch, "alpha": 1e-4 / batch, "init": "glorot_uniform", "input_noise": 0.0,
    }  # fmt: skip
    return {**common, **settings}


def by_their_rule(losses, patience, tol):
    """Epochs until no loss has fallen by `tol` below the least so far for `patience` epochs."""
    best, bad = np.inf, 0
    for epoch, loss in enumerate(losses, 1):
        bad = 0 if loss < best - tol else bad + 1
        best = min(best, loss)
        if bad >= patience:
            return epoch
    return len(losses)


@pytest.mark.parametrize(
    ("load", "settings"),
    [
        (load_iris, {"solver": "adam"}), (load_iris, {"solver": "sgd", "learning_rate_init": 0.05}),
        (load_wine, {"solver": "adam"}), (load_wine, {"solver": "sgd"}),
        (load_wine, {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.05}),
        (load_breast_cancer, {"solver": "adam"}), (load_breast_cancer, {"solver": "sgd"}),
        (load_breast_cancer, {"solver": "sgd", "learning_rate": "adaptive"}),
        (load_digits, {"solver": "adam"}), (load_digits, {"solver": "sgd", "learning_rate_init": 0.05}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "-".join(map(str, value.values())),
)  # fmt: skip
def test_classes(load, settings):
    x, y = data(load)
    theirs = Theirs(max_iter=1000, random_state=0, **settings).fit(x, y)
    common = {"label_smoothing": 0.0, "max_iter": 1000, "random_state": 0}
    mine = MLPClassifier(**like_theirs(len(x), **common, **settings)).fit(x, y)
    # other random numbers: eight seeds of scikit-learn differ by 2 to 9 % of their epochs
    assert mine.n_iter_ == pytest.approx(theirs.n_iter_, rel=0.3)
    assert mine.score(x, y) == pytest.approx(theirs.score(x, y), abs=0.015)
    assert mine.loss_ == pytest.approx(theirs.loss_, rel=0.2)
    if "learning_rate" not in settings:
        assert mine.n_iter_ == by_their_rule(mine.loss_curve_, 10, 1e-4)


def test_numbers():
    x, y = data(load_diabetes)
    y = (y - y.mean()) / y.std()
    theirs = TheirRegressor(max_iter=1000, random_state=0).fit(x, y)
    settings = like_theirs(len(x), scale_target=False, dropout=0.0, max_iter=1000, random_state=0)
    mine = MLPRegressor(**settings).fit(x, y)
    assert mine.n_iter_ == pytest.approx(theirs.n_iter_, rel=0.3)
    assert mine.n_iter_ == by_their_rule(mine.loss_curve_, 10, 1e-4)


def test_adaptive_rates_heed_tol():
    x, y = data(load_iris)
    settings = {"solver": "sgd", "learning_rate": "adaptive", "label_smoothing": 0.0, "random_state": 0}
    fine, coarse = (
        MLPClassifier(**like_theirs(150, **settings, tol=tol, max_iter=400)).fit(x, y) for tol in (1e-5, 1e-2)
    )
    assert coarse.n_iter_ < fine.n_iter_


def test_inverse_scaling_changes_between_epochs():
    rates = [InverseScaling(power=0.5, samples=8)(step, 8, 2) for step in range(5)]
    assert rates == [1.0, 1.0, 1 / 3, 1 / 3, 17**-0.5]
    clf = MLPClassifier((4,), solver="sgd", learning_rate="invscaling", max_iter=3, random_state=0)
    x, y = data(load_wine)
    theirs = Theirs((4,), solver="sgd", learning_rate="invscaling", max_iter=3, random_state=0).fit(x, y)
    clf.set_params(learning_rate_init=0.001).fit(x, y)
    # theirs is the rate of the epoch that would follow
    assert theirs._optimizer.learning_rate == pytest.approx(0.001 * (3 * 178 + 1) ** -0.5)
    assert clf.history_[-1]["lr"] == pytest.approx(0.001 * (2 * 178 + 1) ** -0.5)


def test_with_a_validation_set_its_value_decides():
    x, y = data(load_iris)
    settings = like_theirs(100, label_smoothing=0.0, max_iter=1000, random_state=0, n_iter_no_change=5)
    clf = MLPClassifier(**settings).fit(x[::2], y[::2], X_val=x[1::2], y_val=y[1::2])
    assert clf.n_iter_ < 1000 and clf.best_validation_score_ == max(clf.validation_scores_)
