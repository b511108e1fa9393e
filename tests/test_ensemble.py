"""Deep ensembles: members equal estimators fitted alone; means, spreads, files."""

from __future__ import annotations

import json
import pickle
import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import xpnet
from xpnet import DeepEnsembleClassifier, DeepEnsembleRegressor, MLPClassifier, MLPRegressor
from xpnet.errors import ConfigError, DivergedError, FileFormatError
from xpnet.schedules import Cosine

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]
XR, YR = load_diabetes(return_X_y=True)
XR, YR = XR[:150], YR[:150]
QUICK = {"max_iter": 10, "batch_size": 32, "learning_rate_init": 0.02, "dtype": "float64"}


def classifier(**settings):
    return MLPClassifier((6,), **{**QUICK, **settings})


def regressor(**settings):
    return MLPRegressor((6,), **{**QUICK, **settings})


@parametrize_with_checks(
    [DeepEnsembleClassifier(MLPClassifier((8,), max_iter=20, learning_rate_init=0.02), 2),
     DeepEnsembleRegressor(MLPRegressor((8,), max_iter=20, learning_rate_init=0.02), 2)]
)  # fmt: skip
def test_contract(estimator, check):
    with warnings.catch_warnings():  # checks that fit nonsense
        warnings.simplefilter("ignore", ConvergenceWarning)
        check(estimator)


class TestMembers:
    @pytest.mark.parametrize(
        "settings",
        [{}, {"early_stopping": True}, {"class_weight": "balanced"},
         {"learning_rate": "constant", "max_iter": 80, "tol": 0.01, "n_iter_no_change": 3}],
    )  # fmt: skip
    def test_equal_classifiers_fitted_alone(self, settings):
        ensemble = DeepEnsembleClassifier(classifier(**settings), 3, random_state=1).fit(X, NAMES)
        assert len(set(ensemble.seeds_)) == 3
        alone = [clone(ensemble.estimator).set_params(random_state=s).fit(X, NAMES) for s in ensemble.seeds_]
        each = ensemble.member_probabilities(X)
        assert each.shape == (3, 150, 3)
        for k, one in enumerate(alone):
            assert np.allclose(each[k], one.predict_proba(X), rtol=0.0, atol=1e-10)
            assert ensemble.estimators_[k].loss_curve_ == pytest.approx(one.loss_curve_)
        assert np.allclose(ensemble.predict_proba(X), each.mean(axis=0))
        assert (ensemble.predict(X) == ensemble.classes_[each.mean(axis=0).argmax(axis=1)]).all()
        assert np.allclose(np.exp(ensemble.predict_log_proba(X)), ensemble.predict_proba(X))

    @pytest.mark.parametrize("settings", [{}, {"early_stopping": True}])
    def test_equal_regressors_fitted_alone(self, settings):
        ensemble = DeepEnsembleRegressor(regressor(**settings), 3, random_state=1).fit(XR, YR)
        alone = [clone(ensemble.estimator).set_params(random_state=s).fit(XR, YR) for s in ensemble.seeds_]
        each = np.stack([one.predict(XR) for one in alone])
        assert np.allclose(ensemble.member_predictions(XR), each, rtol=1e-10)
        mean, std = ensemble.predict(XR, return_std=True)
        assert np.allclose(mean, each.mean(axis=0)) and np.allclose(std, each.std(axis=0))
        assert np.array_equal(mean, ensemble.predict(XR))
        for one, member in zip(alone, ensemble.estimators_, strict=True):
            if settings:
                assert member.best_validation_score_ == pytest.approx(one.best_validation_score_)

    def test_validation_set_and_weights(self):
        w = np.linspace(0.5, 1.5, 150)
        ensemble = DeepEnsembleClassifier(classifier(), 2, random_state=0).fit(X, Y, w, X[::3], Y[::3])
        seed = ensemble.seeds_[1]
        alone = classifier(random_state=seed).fit(X, Y, w, X[::3], Y[::3])
        assert np.allclose(ensemble.member_probabilities(X)[1], alone.predict_proba(X), atol=1e-10)

    def test_bootstrap_members_see_other_samples(self):
        plain = DeepEnsembleRegressor(regressor(), 3, random_state=0).fit(XR, YR)
        drawn = DeepEnsembleRegressor(regressor(), 3, random_state=0, bootstrap=True).fit(XR, YR)
        again = DeepEnsembleRegressor(regressor(), 3, random_state=0, bootstrap=True).fit(XR, YR)
        assert plain.seeds_ == drawn.seeds_
        assert np.array_equal(drawn.predict(XR), again.predict(XR))
        assert not np.allclose(drawn.member_predictions(XR), plain.member_predictions(XR))
        assert drawn.score(XR, YR) > 0.2
        # a member by itself, whatever trains it
        callbacks = [xpnet.Callback()]
        watched = DeepEnsembleRegressor(regressor(callbacks=callbacks), 3, random_state=0, bootstrap=True)
        assert np.allclose(watched.fit(XR, YR).predict(XR), drawn.predict(XR))

    def test_bootstrap_of_sparse_samples_with_weights(self):
        settings = {"random_state": 0, "bootstrap": True}
        w = np.linspace(0.5, 1.5, 150)
        dense = DeepEnsembleClassifier(classifier(), 2, **settings).fit(X, Y, w)
        rows = DeepEnsembleClassifier(classifier(), 2, **settings).fit(sparse.csr_matrix(X), Y, w)
        assert np.allclose(dense.predict_proba(X), rows.predict_proba(sparse.csr_matrix(X)), atol=1e-8)

    def test_multilabel(self):
        x, y = make_multilabel_classification(n_samples=60, n_classes=4, random_state=0)
        ensemble = DeepEnsembleClassifier(classifier(), 2, random_state=0).fit(x, y)
        assert ensemble.predict(x).shape == ensemble.predict_proba(x).shape == (60, 4)
        assert ensemble.uncertainty(x)["entropy"].shape == (60, 4)

    def test_many_targets(self):
        y = np.stack([YR, -YR], axis=1)
        mean, std = DeepEnsembleRegressor(regressor(), 2).fit(XR, y).predict(XR, return_std=True)
        assert mean.shape == std.shape == (150, 2)

    def test_inside_scikit_learn(self):
        scores = cross_val_score(
            DeepEnsembleClassifier(classifier(max_iter=30), 2, random_state=0), X, Y, cv=3
        )
        assert scores.mean() > 0.85


class TestUncertainty:
    def test_parts_add_up_and_rise_away_from_the_data(self):
        ensemble = DeepEnsembleClassifier(classifier(max_iter=40), 5, random_state=0).fit(X, Y)
        parts = ensemble.uncertainty(X)
        assert set(parts) == {"entropy", "expected_entropy", "mutual_information"}
        assert np.allclose(parts["entropy"], parts["expected_entropy"] + parts["mutual_information"])
        p = ensemble.predict_proba(X)
        assert np.allclose(parts["entropy"], -(p * np.log(p)).sum(axis=1))
        assert (parts["entropy"] <= np.log(3) + 1e-12).all()

    def test_spread_rises_away_from_the_data(self):
        x = np.linspace(-1.0, 1.0, 80)[:, None]
        ensemble = DeepEnsembleRegressor(regressor(max_iter=60), 5, random_state=0).fit(
            x, np.sin(3.0 * x[:, 0])
        )
        _, std = ensemble.predict(np.array([[0.0], [6.0]]), return_std=True)
        assert std[1] > 3.0 * std[0]

    def test_one_member_has_no_spread(self):
        _, std = DeepEnsembleRegressor(regressor(), 1).fit(XR, YR).predict(XR, return_std=True)
        assert (std == 0.0).all()


class TestFiles:
    @pytest.mark.parametrize("labels", [Y, NAMES, NAMES.astype(object), Y > 0])
    def test_classifier_round_trip(self, tmp_path, labels):
        ensemble = DeepEnsembleClassifier(classifier(), 2, random_state=0).fit(X, labels)
        ensemble.save(tmp_path / "e")
        again = DeepEnsembleClassifier.load(tmp_path / "e")
        assert np.array_equal(again.predict_proba(X), ensemble.predict_proba(X))
        assert again.predict(X).tolist() == ensemble.predict(X).tolist()
        assert again.get_params(deep=False).keys() == ensemble.get_params(deep=False).keys()
        assert again.estimator.get_params() == ensemble.estimator.get_params()
        assert again.n_features_in_ == 4

    def test_members_are_ordinary_models(self, tmp_path):
        classes = DeepEnsembleClassifier(classifier(dtype="float32"), 2, random_state=0).fit(X, NAMES)
        numbers = DeepEnsembleRegressor(regressor(), 2, random_state=0).fit(XR, YR)
        counts = DeepEnsembleRegressor(regressor(loss="poisson"), 2, random_state=0).fit(XR, YR)
        for folder, ensemble in (("c", classes), ("n", numbers), ("p", counts)):
            ensemble.save(tmp_path / folder)
            names = sorted(p.name for p in (tmp_path / folder).iterdir())
            assert [n[:9] for n in names] == ["ensemble.", "member-00", "member-01"]
            for k, name in enumerate(names[1:]):
                model = xpnet.load(tmp_path / folder / name)
                member = ensemble.estimators_[k]
                if folder == "c":
                    assert np.allclose(model.predict_proba(X), member.predict_proba(X), atol=1e-5)
                    assert model.classes == ("setosa", "versicolor", "virginica")
                else:
                    assert np.allclose(model.predict(XR)[:, 0], member.predict(XR), rtol=1e-10)
            again = type(ensemble).load(tmp_path / folder)
            x = X if folder == "c" else XR
            assert np.array_equal(again._each("predict", x), ensemble._each("predict", x))

    def test_replaced_whole(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        DeepEnsembleRegressor(regressor(), 3, random_state=0).fit(XR, YR).save(tmp_path)
        second = DeepEnsembleRegressor(regressor(), 2, random_state=5).fit(XR, YR)
        second.save(tmp_path)
        assert len(list(tmp_path.glob("member-*"))) == 2 and (tmp_path / "notes.txt").read_text() == "mine"
        assert np.array_equal(DeepEnsembleRegressor.load(tmp_path).predict(XR), second.predict(XR))

    def test_default_member_and_outliers(self, tmp_path):
        x = XR.copy()
        x[0, 0] = 1e6
        ensemble = DeepEnsembleRegressor(regressor(), 2, random_state=0).fit(x, YR)
        assert ensemble.estimators_[0].scaler_.tails_.any()
        with pytest.warns(UserWarning, match="columns 0 had outliers"):
            ensemble.save(tmp_path)
        assert np.array_equal(DeepEnsembleRegressor.load(tmp_path).predict(x), ensemble.predict(x))

    def test_what_cannot_be_saved(self, tmp_path):
        ensemble = DeepEnsembleRegressor(regressor(learning_rate=Cosine()), 2).fit(XR, YR)
        with pytest.raises(ConfigError, match=r"learning_rate=.*cannot be saved"):
            ensemble.save(tmp_path / "e")
        assert not (tmp_path / "e").exists()
        with pytest.raises(NotFittedError):
            DeepEnsembleRegressor().save(tmp_path)

    def test_what_cannot_be_opened(self, tmp_path):
        with pytest.raises(FileFormatError, match="holds no ensemble"):
            DeepEnsembleRegressor.load(tmp_path / "none")
        DeepEnsembleRegressor(regressor(), 2).fit(XR, YR).save(tmp_path)
        with pytest.raises(FileFormatError, match=r"opened with DeepEnsembleRegressor\.load"):
            DeepEnsembleClassifier.load(tmp_path)
        record = json.loads((tmp_path / "ensemble.json").read_text())
        for change in ({"format": 9}, {"members": []}, {"seeds": None}):
            (tmp_path / "ensemble.json").write_text(json.dumps(record | change))
            with pytest.raises(FileFormatError):
                DeepEnsembleRegressor.load(tmp_path)
        (tmp_path / "ensemble.json").write_text("{")
        with pytest.raises(FileFormatError, match="damaged"):
            DeepEnsembleRegressor.load(tmp_path)

    def test_files_of_many_members_are_replaced(self, tmp_path):
        ensemble = DeepEnsembleClassifier(classifier(), 2, random_state=0).fit(X, Y)
        two = list(zip(ensemble.estimators_, ensemble.seeds_, strict=True))
        ensemble.estimators_, ensemble.seeds_ = map(list, zip(*(two * 51), strict=True))
        ensemble.save(tmp_path)
        assert len(list(tmp_path.glob("member-*"))) == 102
        ensemble.estimators_, ensemble.seeds_ = map(list, zip(*two, strict=True))
        ensemble.save(tmp_path)
        assert len(list(tmp_path.glob("member-*"))) == 2

    def test_pickle(self):
        ensemble = DeepEnsembleClassifier(classifier(), 2, random_state=0).fit(X, Y)
        again = pickle.loads(pickle.dumps(ensemble))
        assert np.array_equal(again.predict_proba(X), ensemble.predict_proba(X))


class TestBadInput:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: DeepEnsembleClassifier(classifier(), 0), "n_members"),
            (lambda: DeepEnsembleClassifier(classifier(), 2, batches="x"), "batches"),
            (lambda: DeepEnsembleClassifier(LogisticRegression()), "averages members of MLPClassifier"),
            (lambda: DeepEnsembleClassifier(regressor()), "averages members of MLPClassifier"),
            (lambda: DeepEnsembleClassifier(classifier(loss="hinge")), "does not give"),
            (lambda: DeepEnsembleClassifier(classifier(warm_start=True)), "warm_start"),
            (lambda: DeepEnsembleClassifier(classifier(activation="rellu")), "did you mean 'relu'"),
        ],
    )
    def test_settings(self, make, message):
        with pytest.raises(ConfigError, match=message):
            make().fit(X, Y)

    def test_all_diverge(self):
        with pytest.raises(DivergedError):
            DeepEnsembleRegressor(regressor(solver="sgd", learning_rate_init=1e200), 2).fit(XR, YR)

    def test_one_diverges(self, monkeypatch):
        from xpnet.estimators import ensemble as module

        real = module.train

        def with_a_failure(jobs, **options):
            real(jobs, **options)
            jobs[1].error = DivergedError("loss is not finite")

        monkeypatch.setattr(module, "train", with_a_failure)
        with pytest.warns(ConvergenceWarning, match="1 of 3 members are left out: loss is not finite"):
            ensemble = DeepEnsembleRegressor(regressor(), 3).fit(XR, YR)
        assert len(ensemble.estimators_) == len(ensemble.seeds_) == 2


def test_names_of_columns_are_those_of_the_last_fit():
    pd = pytest.importorskip("pandas")
    ensemble = DeepEnsembleClassifier(classifier(), 2, random_state=0)
    assert ensemble.fit(pd.DataFrame(X, columns=list("abcd")), Y).feature_names_in_.tolist() == list("abcd")
    assert not hasattr(ensemble.fit(X, Y), "feature_names_in_")
    assert ensemble.predict(X).shape == Y.shape  # without a warning about names
