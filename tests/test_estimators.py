"""The estimators: scikit-learn's contract, what fit makes of data and settings, and company in pipelines."""

from __future__ import annotations

import copy
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification
from sklearn.ensemble import StackingClassifier
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import xpnet
from xpnet import Adam, Callback, MLPClassifier, MLPRegressor
from xpnet.errors import ConfigError, DataError
from xpnet.schedules import Cosine

X, Y = load_iris(return_X_y=True)
XR, YR = load_diabetes(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]


QUICK = {"random_state": 0, "max_iter": 30, "batch_size": 16, "learning_rate_init": 0.01}


def classifier(*sizes, **settings):
    """A small one, quick to train."""
    return MLPClassifier(sizes or (16,), **{**QUICK, **settings})


def regressor(*sizes, **settings):
    return MLPRegressor(sizes or (16,), **{**QUICK, **settings})


# narrow networks and fewer epochs only to save time: the defaults pass too
@parametrize_with_checks(
    [
        MLPClassifier((16,), max_iter=60, learning_rate_init=0.01),
        MLPRegressor((16,), max_iter=60, learning_rate_init=0.01),
    ]
)
def test_contract(estimator, check):
    # checks with hundreds of fits warn where settings do not converge
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        check(estimator)


class TestClassifier:
    def test_labels_of_any_type(self):
        clf = classifier().fit(X, NAMES)
        assert clf.classes_.tolist() == ["setosa", "versicolor", "virginica"]
        assert clf.score(X, NAMES) > 0.9
        assert np.allclose(clf.predict_proba(X).sum(axis=1), 1.0)
        assert np.allclose(np.exp(clf.predict_log_proba(X)), clf.predict_proba(X))
        assert (clf.decision_function(X).argmax(axis=1) == clf.predict_proba(X).argmax(axis=1)).all()

    def test_attributes(self):
        clf = classifier(5, 4).fit(X, Y)
        assert [w.shape for w in clf.coefs_] == [(4, 5), (5, 4), (4, 3)]
        assert [b.shape for b in clf.intercepts_] == [(5,), (4,), (3,)]
        assert (clf.n_layers_, clf.n_outputs_, clf.out_activation_, clf.n_features_in_) == (
            4,
            3,
            "softmax",
            4,
        )
        assert clf.n_iter_ == len(clf.loss_curve_) == 30
        assert clf.t_ == 30 * 150
        assert clf.loss_ == clf.loss_curve_[-1] and clf.best_loss_ == min(clf.loss_curve_)
        assert clf.validation_loss_curve_ is clf.validation_scores_ is clf.best_validation_score_ is None

    def test_two_classes_have_one_output(self):
        clf = classifier().fit(X[:100], NAMES[:100])
        assert (clf.n_outputs_, clf.out_activation_) == (1, "logistic")
        assert clf.predict_proba(X).shape == (150, 2)
        assert clf.decision_function(X).shape == (150,)

    def test_multilabel(self):
        x, y = make_multilabel_classification(n_samples=100, n_classes=4, random_state=0)
        clf = classifier().fit(x, y)
        assert clf.predict(x).shape == clf.predict_proba(x).shape == (100, 4)
        assert (clf.predict(x) == y).mean() > 0.8
        assert (classifier().fit(x, sparse.csr_matrix(y)).predict(x) == clf.predict(x)).all()

    @pytest.mark.parametrize("rows", [150, 100], ids=["three classes", "two classes"])
    def test_probabilities_undo_the_smoothing(self, rows):
        x, y = X[:rows], Y[:rows]
        clf, n = classifier(label_smoothing=0.2).fit(x, y), rows // 50
        h = clf.decision_function(x)
        h = np.stack([0.0 * h, h], axis=1) if n == 2 else h
        own = np.exp(h) / np.exp(h).sum(axis=1, keepdims=True)
        q = np.maximum((own - 0.2 / n) / 0.8, 0.2 / n / 20)
        p = clf.predict_proba(x)
        assert np.allclose(p, q / q.sum(axis=1, keepdims=True), atol=1e-12)
        assert (p.argmax(axis=1) == own.argmax(axis=1)).all() and p.max() > 0.97 > own.max()
        assert np.allclose(clf.model_.predict_proba(clf.scaler_.transform(x)), p)
        assert np.array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(x), p)
        assert classifier(label_smoothing=0.0).fit(x, y).model_.unsmoothing is None

    def test_probabilities_of_a_rare_class(self):
        draw = np.random.default_rng(0)
        x = draw.normal(size=(4000, 3))
        true = 1.0 / (1.0 + np.exp(4.0 - 1.5 * x[:, 0]))
        y = draw.random(4000) < true
        clf = MLPClassifier((16,), max_iter=20, random_state=0).fit(x, y)
        found = clf.predict_proba(x)[:, 1].mean()
        assert found == pytest.approx(y.mean(), abs=0.01)
        # what smoothing would leave is far from it
        clf.model_.unsmoothing = None
        assert clf.predict_proba(x)[:, 1].mean() > y.mean() + 0.03

    def test_hinge_gives_scores_only(self):
        clf = classifier(loss="hinge").fit(X, Y)
        assert clf.score(X, Y) > 0.9
        assert not hasattr(clf, "predict_proba")

    @pytest.mark.parametrize("loss", ["squared_error", "softmax_cross_entropy"])
    def test_other_losses(self, loss):
        for rows in (slice(None), slice(100)):
            clf = classifier(loss=loss, max_iter=60).fit(X[rows], Y[rows])
            assert clf.score(X[rows], Y[rows]) > 0.85
            signs = clf.decision_function(X[rows])
            best = signs.argmax(axis=1) if signs.ndim == 2 else (signs > 0).astype(int)
            assert (best == clf.predict(X[rows])).all()

    def test_the_loss_of_two_classes_can_be_named(self):
        named = classifier(loss="binary_cross_entropy", max_iter=3).fit(X[:100], Y[:100])
        by_itself = classifier(max_iter=3).fit(X[:100], Y[:100])
        assert np.array_equal(named.predict_proba(X), by_itself.predict_proba(X))
        with pytest.raises(ConfigError, match="takes two classes or multi-label y"):
            classifier(loss="binary_cross_entropy").fit(X, Y)

    def test_class_weight_is_sample_weight(self):
        table = {0: 1.0, 1: 3.0, 2: 0.5}
        one = classifier(class_weight=table).fit(X, Y).predict_proba(X)
        other = classifier().fit(X, Y, sample_weight=np.vectorize(table.get)(Y)).predict_proba(X)
        assert np.allclose(one, other)

    def test_balanced_classes_weigh_alike(self):
        x, y = X[40:110], Y[40:110]
        w = np.array([70 / 3 / (y == k).sum() for k in range(3)])[y]
        balanced = classifier(class_weight="balanced").fit(x, y).predict_proba(x)
        assert np.allclose(balanced, classifier().fit(x, y, sample_weight=w).predict_proba(x))

    def test_weight_zero_is_absence(self):
        w = (Y != 2).astype(float)
        clf = classifier().fit(X, Y, sample_weight=w)
        assert clf.classes_.tolist() == [0, 1]
        assert np.array_equal(clf.predict_proba(X), classifier().fit(X[:100], Y[:100]).predict_proba(X))

    @pytest.mark.parametrize("factor", [1e-30, 1e30])
    def test_only_ratios_of_weights_count(self, factor):
        w = np.linspace(0.1, 2.0, len(Y))
        for estimator, y in ((classifier(max_iter=3), Y), (regressor(max_iter=3), X[:, 0])):
            one = estimator.fit(X, y, sample_weight=w).predict(X)
            assert np.allclose(estimator.fit(X, y, sample_weight=w * factor).predict(X), one, rtol=1e-5)

    def test_partial_fit(self):
        clf = classifier()
        with pytest.raises(DataError, match="needs classes"):
            clf.partial_fit(X, Y)
        for _ in range(20):
            for rows in (slice(0, None, 2), slice(1, None, 2)):
                clf.partial_fit(X[rows], Y[rows], classes=[0, 1, 2])
        assert (clf.n_iter_, clf.t_) == (40, 20 * 150)
        assert clf.score(X, Y) > 0.9
        with pytest.raises(DataError, match="not those of the first call"):
            clf.partial_fit(X, Y, classes=[0, 1])
        with pytest.raises(ConfigError, match="cannot balance"):
            classifier(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])

    @pytest.mark.parametrize("labels", [Y, NAMES], ids=["numbers", "names"])
    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_partial_fit_of_sorted_chunks(self, labels, n_classes):
        x, y = X[: 50 * n_classes], labels[: 50 * n_classes]
        order = np.argsort(y, kind="stable")
        clf = classifier(standardize=False, batch_size=10)
        for _ in range(3):
            for k in range(0, len(x), 25):
                rows = order[k : k + 25]
                clf.partial_fit(x[rows], y[rows], classes=np.unique(y))
        assert clf.predict_proba(x).shape == (len(x), n_classes)
        assert clf.classes_.tolist() == np.unique(y).tolist()

    def test_partial_fit_of_single_rows(self):
        clf = classifier(standardize=False)
        for _ in range(2):
            for k in np.random.default_rng(0).permutation(150):
                clf.partial_fit(X[k : k + 1], NAMES[k : k + 1], classes=["setosa", "versicolor", "virginica"])
        assert clf.score(X, NAMES) > 0.9
        one = classifier().partial_fit(X[:1], [1], classes=[0, 1])
        assert one.predict_proba(X).shape == (150, 2)

    def test_partial_fit_goes_on_after_a_pickle(self):
        one = classifier().partial_fit(X, Y, classes=[0, 1, 2])
        other = pickle.loads(pickle.dumps(one))
        for clf in (one, other):
            clf.partial_fit(X, Y)
        assert np.array_equal(one.predict_proba(X), other.predict_proba(X))

    def test_warm_start(self):
        clf = classifier(max_iter=5, warm_start=True).fit(X, Y)
        before = clf.loss_
        clf.fit(X, Y)
        assert clf.loss_ < before and len(clf.loss_curve_) == 10 and clf.n_iter_ == 5
        with pytest.raises(DataError, match="other classes"):
            clf.fit(X, Y + 1)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"solver": "lbfgs"}, "not part of xpnet"), ({"solver": "adma"}, "did you mean 'adam'"),
            ({"activation": "rellu"}, "did you mean 'relu'"), ({"learning_rate": "cosin"}, "did you mean 'cosine'"),
            ({"alpha": "much"}, "alpha must be"), ({"alpha": -1.0}, "alpha must be a finite n.* >= 0, found -1"),
            ({"dtype": "float16"}, "dtype"),
            ({"batch_size": 0}, "batch_size"), ({"batch_size": "all"}, "batch_size"), ({"max_iter": 0}, "max_iter"),
            ({"early_stopping": True, "validation_fraction": 1.0}, "validation_fraction"),
            ({"input_noise": "some"}, "input_noise"), ({"class_weight": {7: 1.0}}, "class_weight names 7"),
            ({"class_weight": "fair"}, "class_weight"), ({"loss": "binary_cross_entropy"}, "two classes"),
            ({"loss": "huber"}, "does not fit"), ({"tol": -1.0}, "tol must be a finite number >= 0, found -1"),
            ({"tol": "small"}, "tol must be"), ({"n_iter_no_change": 0}, "n_iter_no_change must be a whole number"),
            ({"max_iter": 2.5}, "max_iter must be a whole number >= 1"), ({"l1": float("nan")}, "l1 must be"),
            ({"learning_rate_init": 0.0}, "learning_rate_init must be a finite number > 0, found 0.0"),
            ({"learning_rate_init": [0.1]}, "learning_rate_init must be"), ({"beta_1": 1.0}, "beta_1 must be"),
            ({"epsilon": -1.0}, "epsilon must be"), ({"momentum": 1.0}, "momentum must be"),
            ({"weight_decay": -1.0}, "weight_decay must be"), ({"power_t": -1.0}, "power_t must be"),
            ({"hidden_layer_sizes": (8, 0)}, r"hidden_layer_sizes must be a whole number >= 1, found \(8, 0\)"),
            ({"input_dropout": 1.0}, "input_dropout must be"), ({"dropout": True}, "dropout must be"),
            ({"label_smoothing": "some"}, "label_smoothing must be"), ({"max_norm": 0.0}, "max_norm must be"),
            ({"clip_norm": -1}, "clip_norm must be"), ({"alpha": None}, "alpha must be"),
            ({"learning_rate": "constnat"}, "unknown learning_rate"),
        ],
    )  # fmt: skip
    def test_impossible_settings(self, settings, message):
        clf = classifier().set_params(**settings)
        with pytest.raises(ConfigError, match=message):
            clf.fit(X, Y)

    def test_unusable_labels(self):
        with pytest.raises(DataError, match="at least two classes"):
            classifier().fit(X, np.zeros(150))
        with pytest.raises(DataError, match="several columns"):
            classifier().fit(X, np.stack([Y, Y], axis=1))
        with pytest.raises(DataError, match="none of the classes"):
            classifier().fit(X, Y, X_val=X, y_val=Y + 5)
        with pytest.raises(NotFittedError):
            classifier().predict(X)
        assert not hasattr(classifier(), "coefs_")


class TestRegressor:
    def test_one_dimension_in_and_out(self):
        reg = regressor().fit(XR, YR)
        assert reg.predict(XR).shape == (442,)
        assert reg.score(XR, YR) > 0.45
        assert regressor().fit(XR, YR[:, None]).predict(XR).shape == (442, 1)

    def test_several_targets(self):
        y = np.stack([YR, -1e6 * YR, np.ones(442)], axis=1)
        p = regressor().fit(XR, y).predict(XR)
        assert p.shape == y.shape
        assert np.corrcoef(p[:, 1], y[:, 1])[0, 1] > 0.6
        assert np.abs(p[:, 2] - 1.0).max() < 0.5

    def test_units_do_not_matter(self):
        plain = regressor().fit(XR, YR).predict(XR)
        scaled = regressor().fit(XR * 1e-6, YR * 1e6).predict(XR * 1e-6)
        assert np.allclose(scaled / 1e6, plain, rtol=1e-6)

    @pytest.mark.parametrize("loss", ["absolute_error", "huber", "huber:0.5", "squared_error"])
    def test_losses(self, loss):
        assert regressor(loss=loss).fit(XR, YR).score(XR, YR) > 0.4

    def test_poisson(self):
        rate = np.exp(X[:, 0])
        y = np.random.default_rng(0).poisson(rate)
        for settings in ({}, {"scale_target": False}):
            reg = regressor(loss="poisson", max_iter=100, **settings).fit(X, y)
            assert (reg.predict(X) > 0).all() and np.corrcoef(reg.predict(X), rate)[0, 1] > 0.9
        assert reg.out_activation_ == "exp"
        with pytest.raises(DataError, match="counts"):
            regressor(loss="poisson").fit(X, -1.0 - y)

    def test_quantile(self):
        reg = regressor(loss="quantile:0.9", max_iter=100).fit(XR, YR)
        assert 0.85 < (reg.predict(XR) > YR).mean() < 0.97

    def test_partial_fit(self):
        reg = regressor()
        for _ in range(30):
            reg.partial_fit(XR, YR)
        assert reg.score(XR, YR) > 0.4 and reg.n_iter_ == 30

    def test_validation_scores_are_r2(self):
        reg = regressor(early_stopping=True, max_iter=20).fit(
            XR[:300], YR[:300], X_val=XR[300:], y_val=YR[300:]
        )
        assert reg.best_validation_score_ == pytest.approx(reg.score(XR[300:], YR[300:]), abs=1e-5)
        assert len(reg.validation_scores_) == len(reg.validation_loss_curve_) == reg.n_iter_
        assert reg.best_loss_ is None


class TestTraining:
    @pytest.mark.parametrize("solver", ["adam", "adamw", "sgd", "rmsprop", "adagrad", Adam(lr=0.02)])
    def test_solvers(self, solver):
        rate = 0.1 if solver in ("sgd", "adagrad") else 0.02
        assert classifier(solver=solver, learning_rate_init=rate).fit(X, Y).score(X, Y) > 0.9

    @pytest.mark.parametrize(
        "rate", ["cosine", "linear", "one_cycle", "step", "exponential", Cosine(warmup=0.1)]
    )
    def test_planned_schedules_run_to_their_end(self, rate):
        clf = classifier(learning_rate=rate, learning_rate_init=0.03, tol=1.0).fit(X, Y)
        assert clf.n_iter_ == 30 and clf.score(X, Y) > 0.85

    def test_schedules_of_scikit_learn(self):
        with pytest.warns(ConvergenceWarning, match="max_iter=30"):
            classifier(learning_rate="constant", n_iter_no_change=30).fit(X, Y)
        rested = classifier(learning_rate="constant", tol=0.5, n_iter_no_change=3, max_iter=100).fit(X, Y)
        assert rested.n_iter_ < 30
        with pytest.warns(ConvergenceWarning):
            falls = classifier(learning_rate="invscaling", solver="sgd", n_iter_no_change=30).fit(X, Y)
        assert falls.history_[1]["lr"] < falls.history_[0]["lr"] == 0.01
        lowers = classifier(learning_rate="adaptive", solver="sgd", n_iter_no_change=1, max_iter=300)
        lowers.set_params(learning_rate_init=0.5).fit(X, Y)
        assert lowers.history_[-1]["lr"] < 0.5

    def test_early_stopping_keeps_the_best_epoch(self):
        clf = classifier(early_stopping=True, max_iter=200, n_iter_no_change=5).fit(X, Y)
        assert clf.n_iter_ < 200
        assert clf.best_validation_score_ == max(clf.validation_scores_)

    def test_given_validation(self):
        w = np.linspace(0.5, 1.5, 50)
        clf = classifier().fit(X[::2], Y[::2], X_val=X[1::3], y_val=Y[1::3], sample_weight_val=w)
        assert len(clf.validation_scores_) == 30
        assert clf.best_validation_score_ == pytest.approx(clf.score(X[1::3], Y[1::3]))
        with pytest.raises(DataError, match="belong together"):
            classifier().fit(X, Y, X_val=X)
        with pytest.raises(DataError, match="needs X_val"):
            classifier().fit(X, Y, sample_weight_val=w)

    def test_what_scikit_learn_refuses(self):
        settings = {
            "activation": ["prelu", "maxout:2"], "dropout": [0.1, 0.0], "input_dropout": 0.05, "l1": 1e-5,
            "max_norm": 3.0, "clip_norm": 1.0, "clip_value": 0.5, "learning_rate_init": 0.01,
        }  # fmt: skip
        clf = classifier(12, 8, **settings).fit(X, Y)
        assert clf.score(X, Y) > 0.9
        assert [w.shape for w in clf.coefs_] == [(4, 12), (12, 16), (8, 3)]

    def test_linear_model(self):
        assert (
            MLPClassifier((), max_iter=60, learning_rate_init=0.03, random_state=0).fit(X, Y).score(X, Y)
            > 0.85
        )

    def test_callbacks_and_verbose(self, capsys):
        class Stop(Callback):
            def on_epoch_end(self, trainer, record):
                if record["epoch"] == 3:
                    trainer.stop("enough")

        assert classifier(callbacks=[Stop()], verbose=True).fit(X, Y).n_iter_ == 3
        assert "train loss" in capsys.readouterr().out

    def test_alpha_is_l2_on_the_mean_loss(self):
        few = classifier(alpha=0.1, max_iter=2, batch_size=150, shuffle=False, input_noise=0.0)
        twice = clone(few).set_params(batch_size=300).fit(np.vstack([X, X]), np.hstack([Y, Y]))
        assert np.allclose(few.fit(X, Y).coefs_[0], twice.coefs_[0])

    def test_dtype(self):
        assert classifier().fit(X, Y).dtype_ == "float64"
        assert classifier().fit(X.astype(np.float32), Y).predict_proba(X).dtype == np.float32
        assert classifier(dtype="float64").fit(X.astype(np.float32), Y).coefs_[0].dtype == np.float64
        many = np.tile(X, (7, 1)), np.tile(Y, 7)
        assert classifier(max_iter=1).fit(*many).dtype_ == "float32"

    def test_automatic_dropout(self):
        x = np.linspace(0.0, 1.0, 2000)[:, None]
        settings = {"dropout": "auto", "max_iter": 1, "batch_size": 500}
        assert regressor(**settings).fit(x, x[:, 0]).dropout_ == 0.1
        assert regressor(**settings).fit(x[1:], x[1:, 0]).dropout_ == 0.0
        with pytest.raises(ConfigError, match="dropout must be"):
            regressor(dropout="some").fit(x, x[:, 0])

    def test_seeds(self):
        a, b, c = (classifier(random_state=s).fit(X, Y).coefs_[0] for s in (1, 1, 2))
        assert np.array_equal(a, b) and not np.array_equal(a, c)
        classifier(random_state=None, max_iter=1).fit(X, Y)
        classifier(random_state=np.random.RandomState(0), max_iter=1).fit(X, Y)


class TestSparse:
    def test_same_as_dense(self):
        x = X * (X > 1.0)
        dense, scarce = classifier().fit(x, Y), classifier().fit(sparse.csr_array(x), Y)
        assert np.allclose(dense.predict_proba(x), scarce.predict_proba(sparse.csr_matrix(x)))
        assert classifier(standardize=False, max_iter=5).fit(sparse.coo_array(x), Y).n_iter_ == 5

    def test_the_whole_matrix_is_never_dense(self, monkeypatch):
        draws = np.random.default_rng(0).random((500, 2000))
        x = sparse.csr_array(np.where(draws < 0.01, draws, 0.0))
        y = np.arange(500) % 2
        seen = []
        toarray = type(x).toarray
        monkeypatch.setattr(type(x), "toarray", lambda self: (seen.append(self.shape), toarray(self))[1])
        options = {"X_val": x[:20], "y_val": y[:20]}
        MLPClassifier((4,), max_iter=2, random_state=0).fit(x, y, **options)
        assert seen and max(rows for rows, _ in seen) <= 64

    def test_regression_with_early_stopping(self):
        reg = regressor(early_stopping=True).fit(sparse.csr_array(XR), YR)
        assert len(reg.validation_scores_) == reg.n_iter_


class TestCompany:
    def test_search_and_cross_validation(self):
        search = GridSearchCV(
            classifier(max_iter=10), {"alpha": [1e-4, 1e-2], "activation": ["relu", "tanh"]}, cv=2
        )
        assert search.fit(X, NAMES).best_score_ > 0.6
        assert (
            cross_val_score(make_pipeline(StandardScaler(), classifier(max_iter=60)), X, Y, cv=3).mean() > 0.9
        )

    def test_calibration_stacking_and_transformed_targets(self):
        assert CalibratedClassifierCV(classifier(), cv=2).fit(X, Y).predict_proba(X).shape == (150, 3)
        stack = StackingClassifier([("net", classifier(max_iter=10))], LogisticRegression(), cv=2)
        assert stack.fit(X, NAMES).score(X, NAMES) > 0.8
        logged = TransformedTargetRegressor(regressor(), func=np.log, inverse_func=np.exp)
        assert logged.fit(XR, YR).predict(XR).shape == (442,)

    def test_weights_are_routed(self):
        from sklearn import config_context

        w = np.where(Y == 2, 0.0, 1.0)
        with config_context(enable_metadata_routing=True):
            net = classifier(max_iter=3).set_fit_request(sample_weight=True)
            pipe = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), net)
            pipe.fit(X, Y, sample_weight=w)
        assert pipe[-1].classes_.tolist() == [0, 1]

    def test_pickles_and_copies(self):
        clf = classifier(activation="prelu").fit(X, NAMES)
        for other in (pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf)):
            assert np.array_equal(other.predict_proba(X), clf.predict_proba(X))
            assert (other.predict(X) == clf.predict(X)).all()
        assert not hasattr(clone(clf), "loss_")

    def test_lost_device_is_said(self):
        clf = classifier(max_iter=1).fit(X, Y)
        clf.model_.be.origin = replace(clf.model_.be.origin, device="cuda:99")
        kept = pickle.dumps(clf)
        with pytest.warns(UserWarning, match="computes on the CPU"):
            other = pickle.loads(kept)
        assert np.array_equal(other.predict_proba(X), clf.predict_proba(X))

    def test_data_frames(self):
        pd = pytest.importorskip("pandas")
        frame = pd.DataFrame(X, columns=list("abcd"))
        clf = classifier().fit(frame, pd.Series(NAMES))
        assert clf.feature_names_in_.tolist() == list("abcd")
        with pytest.raises(ValueError, match="feature names"):
            clf.predict(frame[list("dcba")])

    def test_polars(self):
        pl = pytest.importorskip("polars")
        frame = pl.DataFrame(X, schema=list("abcd"))
        clf = classifier().fit(frame, NAMES)
        assert clf.score(frame, NAMES) > 0.9

    def test_names_of_the_package(self):
        assert {"MLPClassifier", "MLPRegressor"} <= set(dir(xpnet))
        with pytest.raises(AttributeError, match="no attribute 'MLPTransformer'"):
            _ = xpnet.MLPTransformer
