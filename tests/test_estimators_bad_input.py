"""Bad input gets scikit-learn's kinds of errors, and says what to do; class weights in every form."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import config_context
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from xpnet import MLPClassifier, MLPRegressor
from xpnet.errors import ConfigError, DataError

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["a", "b", "c"])[Y]
MANY = np.stack([Y > 0, Y > 1, X[:, 0] > 5.5], axis=1).astype(int)
QUICK = {"random_state": 0, "max_iter": 3, "batch_size": 32}


def classifier(**settings):
    return MLPClassifier((6,), **{**QUICK, **settings})


class TestMissingTargets:
    @pytest.mark.parametrize("gap", [None, float("nan")])
    @pytest.mark.parametrize("kind", ["list", "array", "numbers"])
    def test_labels(self, gap, kind):
        y = list(NAMES)
        y[5] = y[9] = gap
        if kind == "array":
            y = np.array(y, dtype=object)
        elif kind == "numbers":
            y = [gap if v is None or v != v else float(ord(v)) for v in y]
        with pytest.raises(
            ValueError, match=r"Input y contains NaN: 2 of 150 targets are missing.*row 5\. Leave those rows"
        ):
            classifier().fit(X, y)

    def test_frames(self):
        pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
        whole = [1, None, *range(148)]
        for y in (pd.Series(whole, dtype="Int64"), pd.Series(whole), pl.Series(whole, strict=False)):
            with pytest.raises(DataError, match="1 of 150 targets is missing"):
                MLPRegressor((4,), **QUICK).fit(X, y)
        text = pd.Series(NAMES).astype("category")
        text[3] = None
        with pytest.raises(DataError, match="1 of 150 targets is missing"):
            classifier().fit(X, text)

    def test_numbers(self):
        y = np.stack([X[:, 0], X[:, 1]], axis=1)
        y[7, 1] = np.nan
        with pytest.raises(DataError, match=r"row 7\. Leave those rows out of X and y$"):
            MLPRegressor((4,), **QUICK).fit(X, y)
        with pytest.raises(DataError, match="Input y contains NaN"):
            MLPRegressor((4,), **QUICK).partial_fit(X, y)
        with pytest.raises(DataError, match=r"Input y_val contains NaN.*out of X and y_val$"):
            MLPRegressor((4,), **QUICK).fit(X, X[:, 0], X_val=X, y_val=y[:, 1])
        with pytest.raises(ValueError, match="Input y contains infinity"):
            MLPRegressor((4,), **QUICK).fit(X, np.where(y == y[0, 0], np.inf, y)[:, 0])

    def test_samples(self):
        x = X.copy()
        x[3, 1] = np.nan
        with pytest.raises(
            ValueError, match=r"Input X contains NaN.\nMLPClassifier does not accept missing values"
        ):
            classifier().fit(x, Y)


class TestLabels:
    def test_one_class_says_what_to_do(self):
        with pytest.raises(
            ValueError, match=r"found one class: 'a' \(n_samples = 150\); check how y was made"
        ):
            classifier().fit(X, np.full(150, "a"))

    def test_an_unknown_class_says_what_to_do(self):
        with pytest.raises(
            ValueError, match=r"y_val holds 'z'.*none of the classes.*leave those samples out"
        ):
            classifier().fit(X, NAMES, X_val=X[:2], y_val=["a", "z"])
        clf = classifier().partial_fit(X[:100], NAMES[:100], classes=["a", "b"])
        with pytest.raises(ValueError, match=r"y holds 'c'.*first call of fit or partial_fit"):
            clf.partial_fit(X, NAMES)

    def test_continuous_targets_are_no_classes(self):
        with pytest.raises(ValueError, match="Unknown label type: continuous"):
            classifier().fit(X, X[:, 0])

    def test_a_failing_fold_is_reported_by_the_search(self):
        with pytest.raises(ValueError, match="found one class"):
            GridSearchCV(
                classifier(), {"alpha": [1e-3]}, cv=[(np.arange(50), np.arange(50, 60))], error_score="raise"
            ).fit(X, Y)


class TestClassWeight:
    @pytest.mark.parametrize(
        "spec",
        [
            {"b": 3.0}, "balanced", [1.0, 3.0, 0.5], (1, 3, 2), np.array([1.0, 3.0, 0.5]),
            lambda y: {"b": 3.0}, lambda y: np.where(y == "b", 3.0, 1.0), lambda y: "balanced",
        ],
    )  # fmt: skip
    def test_every_form_is_sample_weight(self, spec):
        said = spec(NAMES) if callable(spec) else spec
        if isinstance(said, np.ndarray) and said.shape == (150,):
            weights = said
        else:
            table = said if isinstance(said, (dict, str)) else dict(zip("abc", said, strict=True))
            weights = (
                compute_sample_weight(table, NAMES)
                if isinstance(table, str)
                else np.array([table.get(name, 1.0) for name in NAMES])
            )
        found = classifier(class_weight=spec).fit(X, NAMES).predict_proba(X)
        assert np.allclose(found, classifier().fit(X, NAMES, sample_weight=weights).predict_proba(X))
        assert not np.allclose(found, classifier().fit(X, NAMES).predict_proba(X)) or said == "balanced"

    @pytest.mark.parametrize(
        "spec",
        ["balanced", [{0: 1.0, 1: 2.0}, {1: 0.5}, {}], lambda y: 1.0 + y.sum(axis=1), lambda y: "balanced"],
    )
    def test_several_labels_multiply_as_in_scikit_learn(self, spec):
        said = spec(MANY) if callable(spec) else spec
        full = (
            said
            if isinstance(said, str)
            else [{0: 1, 1: 1, **d} for d in said]
            if isinstance(said, list)
            else None
        )
        weights = said if full is None else compute_sample_weight(full, MANY)
        found = classifier(class_weight=spec).fit(X, MANY).predict_proba(X)
        assert np.allclose(found, classifier().fit(X, MANY, sample_weight=weights).predict_proba(X))
        assert not np.allclose(found, classifier().fit(X, MANY).predict_proba(X))

    @pytest.mark.parametrize(
        ("spec", "y", "message"),
        [
            ({"z": 1.0}, NAMES, "names 'z', which is none of"), ("fair", NAMES, "must be a dict, 'balanced'"),
            ([1.0, 2.0], NAMES, "2 numbers for 3 classes"), (3.0, NAMES, "one number per class"),
            (lambda y: None, NAMES, "found None"),
            ({"a": -1.0}, NAMES, "of class 'a' must be a finite number >= 0, found -1.0"),
            ([np.inf, 1.0, 1.0], NAMES, "of class 'a' must be a finite number >= 0, found inf"),
            ({"a": "much"}, NAMES, "of class 'a' must be a finite number >= 0, found 'much'"),
            ({0: 1.0}, MANY, "for 3 labels per sample"),
            ([{0: 1.0}], MANY, "a list of one dict"), ([{2: 1.0}, {}, {}], MANY, "names 2"),
        ],
    )  # fmt: skip
    def test_other_forms_are_named(self, spec, y, message):
        with pytest.raises(ValueError, match=message):
            classifier(class_weight=spec).fit(X, y)

    @pytest.mark.parametrize("of", [list, np.array])
    def test_partial_fit(self, of):
        clf = classifier(class_weight=of([1.0, 3.0, 0.5])).partial_fit(X, NAMES, classes=["a", "b", "c"])
        weights = np.array([1.0, 3.0, 0.5])[Y]
        same = classifier().partial_fit(X, NAMES, classes=["a", "b", "c"], sample_weight=weights)
        assert np.allclose(clf.predict_proba(X), same.predict_proba(X))
        with pytest.raises(ConfigError, match="cannot balance"):
            classifier(class_weight="balanced").partial_fit(X, NAMES, classes=["a", "b", "c"])


class TestMetadataRouting:
    def test_every_argument_of_fit_can_be_asked_for(self):
        with config_context(enable_metadata_routing=True):
            for net in (classifier(), MLPRegressor((4,), **QUICK)):
                asked = net.set_fit_request(
                    sample_weight=True, X_val=True, y_val=True, sample_weight_val=False
                )
                requests = asked.get_metadata_routing().fit.requests
                assert requests == {
                    "sample_weight": True,
                    "X_val": True,
                    "y_val": True,
                    "sample_weight_val": False,
                }
                score = net.set_score_request(sample_weight=True).get_metadata_routing().score.requests
                assert score == {"sample_weight": True}

    def test_a_pipeline_transforms_the_validation_set(self):
        with config_context(enable_metadata_routing=True):
            net = classifier(standardize=False).set_fit_request(X_val=True, y_val=True)
            steps = [("scale", StandardScaler()), ("net", net)]
            pipe = Pipeline(steps, transform_input=["X_val"]).fit(X, Y, X_val=X[::2], y_val=Y[::2])
        scaled = StandardScaler().fit(X).transform(X)
        alone = classifier(standardize=False).fit(scaled, Y, X_val=scaled[::2], y_val=Y[::2])
        assert pipe[-1].validation_loss_curve_ == pytest.approx(alone.validation_loss_curve_)

    def test_a_search_routes_weights_to_fit_and_score(self):
        w = np.where(Y == 2, 0.0, 1.0)
        with config_context(enable_metadata_routing=True):
            net = classifier().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
            search = GridSearchCV(net, {"alpha": [1e-3, 1e-2]}, cv=2).fit(X, Y, sample_weight=w)
        assert search.best_estimator_.classes_.tolist() == [0, 1]
