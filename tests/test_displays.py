"""Displays, scikit-learn's own and xpnet's, and what notebooks show."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.inspection import DecisionBoundaryDisplay
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay, PredictionErrorDisplay, RocCurveDisplay
from sklearn.model_selection import GridSearchCV, LearningCurveDisplay
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xpnet import MLP, MLPClassifier, MLPRegressor, fit
from xpnet.errors import ConfigError, DataError, MissingPackageError
from xpnet.estimators import LossCurveDisplay
from xpnet.notebook import history_table

matplotlib.use("agg")
import matplotlib.pyplot as plt

X, Y = load_iris(return_X_y=True)
QUICK = {"random_state": 0, "max_iter": 4}


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def clf():
    return MLPClassifier((6,), **QUICK).fit(X, Y, X_val=X[::2], y_val=Y[::2])


class TestLossCurves:
    def test_loss(self, clf):
        display = LossCurveDisplay.from_estimator(clf)
        train, valid = display.lines_
        assert train.get_xdata().tolist() == [1, 2, 3, 4] and train.get_ydata().tolist() == clf.loss_curve_
        assert valid.get_ydata().tolist() == clf.validation_loss_curve_
        assert display.figure_ is display.ax_.figure and display.ax_.get_ylabel() == "Loss"
        marked = display.ax_.lines[-1].get_xdata()
        assert list(marked) == [clf.history_.best_epoch] * 2

    def test_score_into_given_axes(self, clf):
        _, ax = plt.subplots()
        display = LossCurveDisplay.from_estimator(
            clf, kind="score", ax=ax, name="net", line_kw={"color": "red"}
        )
        (line,) = display.lines_
        assert display.ax_ is ax and line.get_color() == "red" and line.get_label() == "net, validation"
        assert line.get_ydata().tolist() == clf.validation_scores_

    def test_several_in_one_figure_and_again(self, clf):
        first = LossCurveDisplay.from_estimator(clf, name="one")
        again = LossCurveDisplay.from_estimator(clf, name="two", ax=first.ax_)
        assert len(again.ax_.get_legend().get_texts()) == 4
        assert first.plot(name="three").ax_ is not again.ax_

    def test_pipelines_and_searches(self):
        pipe = make_pipeline(StandardScaler(), MLPRegressor((4,), **QUICK)).fit(X, X[:, 0])
        assert len(LossCurveDisplay.from_estimator(pipe).lines_) == 1
        search = GridSearchCV(pipe, {"mlpregressor__alpha": [0.1]}, cv=2).fit(X, X[:, 0])
        found = LossCurveDisplay.from_estimator(search).lines_[0].get_ydata().tolist()
        assert found == search.best_estimator_[-1].loss_curve_

    def test_wide_ranges_are_logarithmic(self):
        assert LossCurveDisplay(loss_curve=[100.0, 0.1]).plot().ax_.get_yscale() == "log"
        assert LossCurveDisplay(loss_curve=[100.0, 0.0]).plot().ax_.get_yscale() == "linear"
        gap = LossCurveDisplay(loss_curve=[1.0, 0.5], validation_scores=[None, 0.5]).plot(kind="score")
        assert np.isnan(gap.lines_[0].get_ydata()[0])

    def test_trouble_is_named(self, clf, monkeypatch):
        with pytest.raises(ConfigError, match="found LogisticRegression"):
            LossCurveDisplay.from_estimator(LogisticRegression())
        with pytest.raises(NotFittedError):
            LossCurveDisplay.from_estimator(MLPClassifier())
        with pytest.raises(ConfigError, match="kind must be"):
            LossCurveDisplay.from_estimator(clf, kind="accuracy")
        with pytest.raises(ConfigError, match="no scores without a validation set"):
            LossCurveDisplay(loss_curve=[1.0]).plot(kind="score")
        with pytest.raises(DataError, match="one number per epoch"):
            LossCurveDisplay(loss_curve=[1.0], validation_loss_curve=[1.0, 2.0])
        monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
        with pytest.raises(MissingPackageError, match=r"xpnet\[plots\]"):
            LossCurveDisplay.from_estimator(clf)


def test_displays_of_scikit_learn(clf):
    shown = ConfusionMatrixDisplay.from_estimator(clf, X, Y)
    assert shown.confusion_matrix.sum() == 150 and shown.display_labels.tolist() == [0, 1, 2]
    two = MLPClassifier((6,), **QUICK).fit(X[:100, :2], Y[:100])
    assert 0.0 <= RocCurveDisplay.from_estimator(two, X[:100, :2], Y[:100]).roc_auc <= 1.0
    DecisionBoundaryDisplay.from_estimator(two, X[:100, :2], grid_resolution=10)
    reg = MLPRegressor((4,), **QUICK).fit(X, X[:, 0])
    PredictionErrorDisplay.from_estimator(reg, X, X[:, 0])
    LearningCurveDisplay.from_estimator(
        MLPClassifier((4,), **QUICK), X, Y, train_sizes=[0.5, 1.0], cv=2, shuffle=True
    )


class TestNotebooks:
    def test_models(self):
        model = MLP([4, 6, 3], activation="prelu", dropout=0.5)
        assert repr(model) == "<MLP 4-6-3: 57 parameters, float32 on cpu, untrained>"
        page = model._repr_html_()
        assert "4-6-3: 57 parameters" in page and "weight 6×4, bias 6" in page and "slope 6" in page
        assert page.count("<tr>") == 1 + len(model.layers)
        assert "2 models of 57" in repr(MLP([4, 6, 3], activation="prelu", n_models=2))

    def test_histories(self):
        history = fit(MLP([4, 3], n_models=6), (X, Y), epochs=3, statistics=True)
        page = history._repr_html_()
        assert "3 epochs, stopped by epochs" in page and "train_loss" in page
        assert "valid_loss" not in page and "layers" not in page and ", ..." in page
        long = history_table([{"epoch": k, "loss": 1.0 / (k + 1)} for k in range(1000)], "<long>")
        assert long.count("<tr>") == 1 + 20 + 1 and "999" in long and "&lt;long&gt;" in long

    def test_estimators(self, clf):
        assert "MLPClassifier" in clf._repr_html_() and "hidden_layer_sizes" in repr(clf)
        assert "Pipeline" in make_pipeline(StandardScaler(), clf)._repr_html_()
