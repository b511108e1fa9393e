"""PopulationSearchCV: the scores of fitting every candidate on every fold by itself, and scikit-learn's interface."""

from __future__ import annotations

import warnings

import joblib
import numpy as np
import pytest
from scipy import sparse
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, RandomizedSearchCV, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import xpnet
from xpnet import Callback, DeepEnsembleClassifier, MLPClassifier, MLPRegressor, PopulationSearchCV
from xpnet.errors import ConfigError, DivergedError
from xpnet.estimators import together

X, Y = load_iris(return_X_y=True)
XR, YR = load_diabetes(return_X_y=True)
XR, YR = XR[:120], YR[:120]
QUICK = {"random_state": 0, "max_iter": 8, "batch_size": 32, "learning_rate_init": 0.01, "dtype": "float64"}


def classifier(**settings):
    return MLPClassifier((6,), **{**QUICK, **settings})


def regressor(**settings):
    return MLPRegressor((6,), **{**QUICK, **settings})


GRID = {"learning_rate_init": [1e-3, 0.03], "alpha": [0.0, 0.01]}


def same(mine, theirs):
    """Compare everything in cv_results_ that is no time."""
    assert set(mine.cv_results_) == set(theirs.cv_results_)
    for name, expected in theirs.cv_results_.items():
        found = mine.cv_results_[name]
        if "_time" in name:
            assert found.shape == expected.shape and (found >= 0.0).all()
        elif name == "params":
            assert found == expected
        elif name.startswith(("split", "mean_", "std_")):
            assert np.allclose(found, expected, rtol=0.0, atol=1e-10, equal_nan=True), name
        else:
            assert found.tolist() == expected.tolist()


@parametrize_with_checks(
    [PopulationSearchCV(kind((8,), max_iter=20, random_state=0), {"learning_rate_init": [0.02]}, cv=2)
     for kind in (MLPClassifier, MLPRegressor)]
)  # fmt: skip
def test_contract(estimator, check):
    with warnings.catch_warnings():  # fits that fail on purpose are warned of
        warnings.simplefilter("ignore")
        check(estimator)


class TestEqualsFittingAlone:
    @pytest.mark.parametrize(
        "settings",
        [{}, {"early_stopping": True, "n_iter_no_change": 2}, {"class_weight": "balanced"},
         {"early_stopping": True, "class_weight": {0: 1.0, 1: 2.0, 2: 0.5}}, {"standardize": False},
         {"dropout": 0.2, "input_noise": 0.1}, {"learning_rate": "constant", "solver": "sgd"},
         {"learning_rate": "constant", "max_iter": 80, "tol": 0.01, "n_iter_no_change": 3},
         {"learning_rate": "adaptive"}],
        ids=["plain", "early", "balanced", "early-weighted", "unscaled", "noise", "sgd", "constant", "adaptive"],
    )  # fmt: skip
    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    def test_classifier(self, settings):
        args = (classifier(**settings), GRID)
        mine = PopulationSearchCV(*args, cv=3, return_train_score=True).fit(X, Y)
        theirs = GridSearchCV(*args, cv=3, return_train_score=True).fit(X, Y)
        same(mine, theirs)
        assert mine.best_params_ == theirs.best_params_ and mine.best_index_ == theirs.best_index_
        assert mine.best_score_ == pytest.approx(theirs.best_score_)
        assert np.allclose(mine.predict_proba(X), theirs.predict_proba(X))
        assert mine.classes_.tolist() == [0, 1, 2] and mine.n_splits_ == 3

    @pytest.mark.parametrize("settings", [{}, {"early_stopping": True}, {"loss": "huber"}])
    def test_regressor(self, settings):
        args = (regressor(**settings), GRID)
        cv = ShuffleSplit(2, random_state=0)
        scoring = ["r2", "neg_mean_absolute_error"]
        mine = PopulationSearchCV(*args, cv=cv, scoring=scoring, refit="r2").fit(XR, YR)
        theirs = GridSearchCV(*args, cv=cv, scoring=scoring, refit="r2").fit(XR, YR)
        same(mine, theirs)
        assert mine.score(XR, YR) == pytest.approx(theirs.score(XR, YR))

    def test_different_networks(self):
        grid = [{"hidden_layer_sizes": [(4,), (5, 3)], "momentum": [0.5, 0.9]}, {"activation": ["tanh"]}]
        args = (classifier(solver="sgd"), grid)
        same(PopulationSearchCV(*args, cv=2).fit(X, Y), GridSearchCV(*args, cv=2).fit(X, Y))

    def test_sparse_multilabel_and_strings(self):
        x, y = make_multilabel_classification(n_samples=60, n_classes=3, random_state=0)
        for data in ((sparse.csr_matrix(x), y), (x, y), (X, np.array(["a", "b", "c"])[Y])):
            same(
                PopulationSearchCV(classifier(), GRID, cv=KFold(2)).fit(*data),
                GridSearchCV(classifier(), GRID, cv=KFold(2)).fit(*data),
            )

    def test_sample_weights_and_groups(self):
        w = np.linspace(0.1, 2.0, len(X))
        groups = np.arange(len(X)) % 4
        same(
            PopulationSearchCV(classifier(), GRID, cv=GroupKFold(2)).fit(
                X, Y, sample_weight=w, groups=groups
            ),
            GridSearchCV(classifier(), GRID, cv=GroupKFold(2)).fit(X, Y, sample_weight=w, groups=groups),
        )

    def test_inside_other_estimators(self):
        pipe = make_pipeline(StandardScaler(), PCA(), classifier())
        grid = {"pca__n_components": [2, 3], "mlpclassifier__alpha": [0.0, 0.1]}
        same(PopulationSearchCV(pipe, grid, cv=2).fit(X, Y), GridSearchCV(pipe, grid, cv=2).fit(X, Y))
        around = TransformedTargetRegressor(regressor(), transformer=StandardScaler())
        grid = {"regressor__alpha": [0.0, 0.1]}
        same(PopulationSearchCV(around, grid, cv=2).fit(XR, YR), GridSearchCV(around, grid, cv=2).fit(XR, YR))

    def test_drawn_candidates(self):
        space = {"learning_rate_init": loguniform(1e-4, 1e-1), "alpha": [0.0, 0.1]}
        mine = PopulationSearchCV(classifier(), space, n_iter=3, random_state=5, cv=2).fit(X, Y)
        theirs = RandomizedSearchCV(classifier(), space, n_iter=3, random_state=5, cv=2).fit(X, Y)
        same(mine, theirs)

    def test_float32_agrees_to_its_precision(self):
        args = (classifier(dtype="float32"), GRID)
        scoring = "neg_log_loss"
        mine = PopulationSearchCV(*args, cv=2, scoring=scoring).fit(X, Y)
        theirs = GridSearchCV(*args, cv=2, scoring=scoring).fit(X, Y)
        assert np.allclose(
            mine.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], atol=1e-4
        )


class TestTogether:
    def test_folds_share_one_population(self, monkeypatch):
        calls = []
        real = together.fit_many

        def counted(configurations, *args, **options):
            calls.append(len(configurations))
            return real(configurations, *args, **options)

        monkeypatch.setattr(together, "fit_many", counted)
        search = PopulationSearchCV(classifier(), GRID, cv=3).fit(X, Y)
        assert calls == [12]
        monkeypatch.setattr(together, "STACKED", 1)  # no two folds fit side by side
        calls.clear()
        alone = PopulationSearchCV(classifier(), GRID, cv=3).fit(X, Y)
        assert calls == [4, 4, 4]
        same(search, alone)

    def test_seeds(self):
        search = PopulationSearchCV(classifier(random_state=7), GRID, cv=2, n_seeds=3, refit=False).fit(X, Y)
        assert search.n_splits_ == 6 and search.n_seeds == 3 and search.cv == 2
        for seed in range(3):
            alone = GridSearchCV(classifier(random_state=7 + seed), GRID, cv=2, refit=False).fit(X, Y)
            for fold in range(2):
                assert np.allclose(
                    search.cv_results_[f"split{2 * seed + fold}_test_score"],
                    alone.cv_results_[f"split{fold}_test_score"],
                )

    def test_no_seed_given(self):
        search = PopulationSearchCV(classifier(random_state=None), GRID, cv=2, n_seeds=2).fit(X, Y)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert search.population_time_ > 0.0 and (search.cv_results_["mean_fit_time"] > 0.0).all()

    def test_a_watched_candidate_is_trained_alone(self):
        class Watcher(Callback):
            epochs = 0

            def on_epoch_end(self, trainer, record):
                Watcher.epochs += 1

            def __eq__(self, other):
                return isinstance(other, Watcher)

            __hash__ = None

        search = PopulationSearchCV(classifier(callbacks=[Watcher()]), {"alpha": [0.0]}, cv=2, refit=False)
        search.fit(X, Y)
        assert Watcher.epochs == 2 * 8

    def test_threads_of_joblib_change_nothing(self):
        plain = PopulationSearchCV(classifier(), GRID, cv=2).fit(X, Y)
        with joblib.parallel_config(backend="threading", n_jobs=2):
            same(PopulationSearchCV(classifier(), GRID, cv=2).fit(X, Y), plain)

    def test_refit_choices(self):
        never = PopulationSearchCV(classifier(), GRID, cv=2, refit=False).fit(X, Y)
        assert not hasattr(never, "best_estimator_") and not hasattr(never, "predict")
        first = PopulationSearchCV(classifier(), GRID, cv=2, refit=lambda results: 1).fit(X, Y)
        assert first.best_index_ == 1 and first.best_estimator_.learning_rate_init == 0.03

    def test_cloned_and_exported(self):
        search = PopulationSearchCV(classifier(), GRID, n_seeds=2)
        assert clone(search).get_params()["n_seeds"] == 2
        assert xpnet.PopulationSearchCV is PopulationSearchCV


class TestBadInput:
    @pytest.mark.parametrize(
        ("grid", "message"),
        [
            ({"learning_rate_inti": [0.1]}, "did you mean 'learning_rate_init'"),
            ({"alpha": []}, "no values for alpha"),
            ({"alpha": 0.1}, "alpha must be a list of values"),
            ([], "param_grid is empty"),
            ([3], "param_grid must be a dict"),
            ({"alpha": loguniform(1e-3, 1.0)}, "say with n_iter how many"),
        ],
    )
    def test_grids(self, grid, message):
        with pytest.raises(ConfigError, match=message):
            PopulationSearchCV(classifier(), grid).fit(X, Y)

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"n_seeds": 0}, "n_seeds"), ({"n_iter": 0}, "n_iter"), ({"batches": "mine"}, "batches"),
         ({"workers": 0}, "workers"), ({"memory": "2G"}, "memory")],
    )  # fmt: skip
    def test_options(self, options, message):
        with pytest.raises(ConfigError, match=message):
            PopulationSearchCV(classifier(), GRID, **options).fit(X, Y)

    def test_estimators_without_a_network(self):
        with pytest.raises(ConfigError, match=r"found none in LogisticRegression.*GridSearchCV"):
            PopulationSearchCV(LogisticRegression(), {"C": [1.0]}).fit(X, Y)

    def test_populations_inside_populations(self):
        inner = PopulationSearchCV(classifier(), GRID)
        for estimator in (inner, DeepEnsembleClassifier(classifier()), make_pipeline(PCA(), inner)):
            with pytest.raises(ConfigError, match="trains a population of its own"):
                PopulationSearchCV(estimator, {}).fit(X, Y)

    def test_more_folds_than_samples(self):
        with pytest.raises(ValueError, match="greater than the number of samples"):
            PopulationSearchCV(regressor(), GRID, cv=200).fit(XR, YR)

    def test_one_that_diverges_disturbs_no_other(self):
        grid = {"learning_rate_init": [0.01, 1e200]}
        estimator = classifier(solver="sgd")
        with pytest.warns(Warning, match="2 fits failed|non-finite"):
            mine = PopulationSearchCV(estimator, grid, cv=2).fit(X, Y)
        with pytest.warns(Warning, match="2 fits failed|non-finite"):
            theirs = GridSearchCV(estimator, grid, cv=2).fit(X, Y)
        same(mine, theirs)
        assert np.isnan(mine.cv_results_["mean_test_score"][1]) and mine.best_index_ == 0
        with pytest.raises(DivergedError):
            PopulationSearchCV(estimator, grid, cv=2, error_score="raise").fit(X, Y)

    def test_impossible_candidates_disturb_no_other(self):
        grid = {"alpha": [0.0, -1.0, 0.1], "dropout": [0.0, 2.0]}
        with pytest.warns(Warning, match="8 fits failed"):
            mine = PopulationSearchCV(classifier(), grid, cv=2, error_score=-1.0).fit(X, Y)
        assert (mine.cv_results_["mean_test_score"] == -1.0).tolist() == [
            False,
            True,
            True,
            True,
            False,
            True,
        ]


def _last_row_is(X, value):
    X = X.copy()
    X[-2] = value
    return X


@pytest.mark.parametrize("differ", ["seed", "one row"])
def test_networks_of_one_candidate_are_told_apart(differ):
    """The second one is not planned: it must not be taken for the first one of the next candidate."""

    def one(k):
        network = classifier(random_state=k if differ == "seed" else 0)
        step = FunctionTransformer(_last_row_is, kw_args={"value": 0.0 if differ == "seed" else 9.0 * k})
        return make_pipeline(step, network)

    voting = VotingClassifier([("a", one(0)), ("b", one(1))], voting="soft")
    weights = {"weights": [[0.0, 1.0], [1.0, 0.0], [0.3, 0.7]]}
    scoring = {"scoring": "neg_log_loss", "cv": KFold(2, shuffle=True, random_state=0)}
    same(
        PopulationSearchCV(voting, weights, **scoring).fit(X, Y),
        GridSearchCV(voting, weights, **scoring).fit(X, Y),
    )


@pytest.mark.parametrize("n_seeds", [1, 2])
def test_splits_that_come_only_once(n_seeds):
    splits = list(KFold(3, shuffle=True, random_state=0).split(X))
    expected = PopulationSearchCV(classifier(), GRID, cv=splits, n_seeds=n_seeds).fit(X, Y)
    same(PopulationSearchCV(classifier(), GRID, cv=iter(splits), n_seeds=n_seeds).fit(X, Y), expected)
