"""Estimators whose settings change after a fit, and fits that end badly."""

from __future__ import annotations

import copy
import os
import signal
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from xpnet import Callback, DeepEnsembleClassifier, MLPClassifier, MLPRegressor, get_backend
from xpnet.errors import ConfigError, DataError, DivergedError
from xpnet.schedules import Schedule
from xpnet.train import Interrupted

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3))
Y = np.arange(120) % 3
T = 10.0 + X[:, 0]
QUICK = {"random_state": 0, "max_iter": 3, "learning_rate": "cosine"}


def classifier(**settings):
    return MLPClassifier((6,), **{**QUICK, **settings})


def regressor(**settings):
    return MLPRegressor((6,), **{**QUICK, **settings})


# --- going on with other settings -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_layer_sizes", (7,)), ("activation", "tanh"), ("init", "he_normal"), ("standardize", False),
        ("dtype", "float32"), ("device", "cpu"), ("loss", "hinge"),
    ],
)  # fmt: skip
def test_settings_of_the_network_cannot_change(name, value):
    y = Y > 0 if name == "loss" else Y
    before = {"loss": "softmax_cross_entropy"} if name == "loss" else {}
    clf = classifier(warm_start=True, **before).fit(X, y).set_params(**{name: value})
    if name == "loss":  # two outputs, where hinge has one
        clf.set_params(loss="binary_cross_entropy")
    weights = clf.model_.get_weights()
    with pytest.raises(
        ConfigError, match=rf"^{name} cannot change between two calls of fit with warm_start=True"
    ):
        clf.fit(X, y)
    with pytest.raises(ConfigError, match=rf"^{name} cannot change between two calls of partial_fit"):
        clf.partial_fit(X, y)
    assert all(np.array_equal(weights[k], v) for k, v in clf.model_.get_weights().items())
    clf.set_params(warm_start=False).fit(X, y)


def test_units_of_targets_cannot_change():
    reg = regressor(warm_start=True).fit(X, T)
    with pytest.raises(
        ConfigError, match=r"loss cannot change .* made with 'squared_error', found 'poisson'"
    ):
        reg.set_params(loss="poisson").fit(X, T)
    with pytest.raises(ConfigError, match="scale_target cannot change"):
        reg.set_params(loss="auto", scale_target=False).fit(X, T)
    reg.set_params(scale_target=True, loss="huber").fit(X, T)  # in the same units


def test_units_of_targets_are_those_of_the_first_samples_to_train_on():
    validated = regressor().fit(X, T, X_val=X, y_val=5.0 * T)
    assert np.isclose(validated.target_mean_, T.mean()) and np.isclose(validated.target_scale_, T.std())
    goes_on, twin = regressor().partial_fit(X, T), regressor(warm_start=True).fit(X, T)
    for reg in (goes_on.partial_fit(X, 5.0 * T), twin.fit(X, 5.0 * T)):
        assert np.isclose(reg.target_mean_, T.mean()) and np.isclose(reg.target_scale_, T.std())


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_partial_fit_goes_on_with_what_the_optimizer_remembers(solver):
    """Calls with all samples as one batch are the epochs of one fit."""
    settings = {
        "solver": solver, "batch_size": len(X), "learning_rate": "constant", "alpha": 0.0, "tol": 0.0,
        "standardize": False, "dropout": 0.0, "dtype": "float64",
    }  # fmt: skip
    whole, parts = classifier(**settings).fit(X, Y), classifier(**settings)
    for _ in range(whole.n_iter_):
        parts.partial_fit(X, Y, classes=[0, 1, 2])
    np.testing.assert_allclose(parts.predict_proba(X), whole.predict_proba(X), rtol=1e-12)


@pytest.mark.parametrize("partial", [False, True])
def test_penalties_and_rates_apply(partial):
    def again(**changed):
        clf = classifier(warm_start=True).fit(X, Y).set_params(**changed)
        return clf.partial_fit(X, Y) if partial else clf.fit(X, Y)

    same = again().model_.get_weights()
    for changed in (
        {"alpha": 5.0},
        {"dropout": 0.5},
        {"input_dropout": 0.5},
        {"input_noise": 2.0},
        {"l1": 0.5},
    ):
        clf = again(**changed)
        last = sorted(clf.model_.params)[-1]
        assert not np.allclose(clf.model_.get_weights()[last], same[sorted(same)[-1]]), changed
    clf = again(alpha=5.0, dropout=0.5)
    assert clf.alpha_ == 5.0 and clf.model_.architecture["dropout"] == [0.5] and clf.dropout_ == 0.5


def test_rates_go_on_from_the_same_weights():
    one, other = classifier(warm_start=True).fit(X, Y), classifier(warm_start=True).fit(X, Y)
    other.set_params(dropout=0.5, learning_rate_init=1e-30).fit(X, Y)
    for a, b in zip(one.coefs_, other.coefs_, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_a_restored_estimator_remembers_what_made_its_network(tmp_path):
    classifier(warm_start=True).fit(X, Y).save(tmp_path / "c.safetensors")
    again = MLPClassifier.load(tmp_path / "c.safetensors")
    again.fit(X, Y)
    with pytest.raises(ConfigError, match="activation cannot change"):
        again.set_params(activation="tanh").fit(X, Y)


# --- settings that change after a fit ----------------------------------------------------------------
def test_answers_depend_on_what_was_fitted():
    clf = classifier(loss="squared_error").fit(X, Y > 0)
    scores, p = clf.decision_function(X), clf.predict_proba(X)
    clf.set_params(loss="hinge")
    assert np.array_equal(clf.decision_function(X), scores) and np.array_equal(clf.predict_proba(X), p)
    hinge = classifier(loss="hinge").fit(X, Y).set_params(loss="auto")
    assert not hasattr(hinge, "predict_proba")
    assert not hasattr(classifier(loss="hinge"), "predict_proba") and hasattr(classifier(), "predict_proba")


# --- yes or no ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("standardize", "False"), ("shuffle", "no"), ("early_stopping", "yes"), ("nesterovs_momentum", "no"),
        ("warm_start", "no"), ("shuffle", 1), ("standardize", None),
    ],
)  # fmt: skip
def test_text_is_no_yes_or_no(name, value):
    with pytest.raises(ConfigError, match=rf"{name} must be True or False, found {value!r}"):
        classifier(**{name: value}).fit(X, Y)


def test_other_flags():
    with pytest.raises(ConfigError, match="scale_target must be True or False"):
        regressor(scale_target="no").fit(X, T)
    with pytest.raises(ConfigError, match="verbose must be True or False"):
        classifier(verbose="no").fit(X, Y)
    with pytest.raises(ConfigError, match="batch_size must be a whole number >= 1 or 'auto', found True"):
        classifier(batch_size=True).fit(X, Y)
    with pytest.raises(ConfigError, match="bootstrap must be True or False, found 'no'"):
        DeepEnsembleClassifier(classifier(), bootstrap="no").fit(X, Y)
    classifier(standardize=np.False_, verbose=0).fit(X, Y)


def test_a_callback_without_a_list():
    with pytest.raises(ConfigError, match=r"callbacks must be a list .*; write \[...\] around it"):
        classifier(callbacks=Callback()).fit(X, Y)


# --- fits that end badly -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "make", [lambda: regressor(learning_rate_init=1e6), lambda: classifier(learning_rate_init=1e4)]
)
def test_a_loss_that_is_absurd_is_told(make):
    estimator = make()
    with pytest.warns(
        ConvergenceWarning, match="far above that of a network which knows nothing.*learning_rate_init"
    ):
        estimator.fit(X, T if isinstance(estimator, MLPRegressor) else Y)


def test_a_loss_that_is_large_by_its_unit_is_none():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        regressor(scale_target=False).fit(X, 1e4 * T)
        regressor(loss="poisson").fit(X, T)
        classifier(learning_rate=Schedule()).partial_fit(X, Y, classes=[0, 1, 2])


@pytest.mark.parametrize("seed", range(4))
def test_early_stopping_leaves_a_rare_class_to_training(seed):
    y = np.array(["a"] * 119 + ["b"])
    clf = classifier(early_stopping=True, random_state=seed, validation_fraction=0.5).fit(X, y)
    assert clf.classes_.tolist() == ["a", "b"]


# --- labels that are dates ---------------------------------------------------------------------------
def test_dates_are_labels(tmp_path):
    y = np.array(["2020-01-01", "2021-06-01", "2022-01-01"], dtype="M8[D]")[Y]
    clf = classifier().fit(X, y)
    assert clf.predict(X).dtype == y.dtype
    clf.save(tmp_path / "c.safetensors")
    again = MLPClassifier.load(tmp_path / "c.safetensors")
    assert again.classes_.dtype == y.dtype and np.array_equal(again.predict(X), clf.predict(X))
    clf.classes_ = np.array([object()] * 3)
    with pytest.raises(ConfigError, match=r"classes such as .* cannot be saved"):
        clf.save(tmp_path / "other.safetensors")


# --- fits that fail, and fits that are interrupted ------------------------------------------------
class _At(Callback):
    """Do something at the end of an epoch."""

    def __init__(self, epoch, action):
        self.epoch, self.action = epoch, action

    def on_epoch_end(self, trainer, record):
        if record["epoch"] == self.epoch:
            self.action()


def _fail():
    raise RuntimeError("a callback failed")


def _interrupt():
    os.kill(os.getpid(), signal.SIGINT)


FAR_OFF = {"solver": "sgd", "learning_rate_init": 1e30, "standardize": False, "activation": "identity"}


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("settings", [{"callbacks": [_At(1, _fail)]}, {**FAR_OFF, "loss": "squared_error"}])
@pytest.mark.parametrize(("kind", "y", "other"), [(classifier, Y, Y + 5), (regressor, T, 1e6 * T)])
def test_a_fit_that_fails_leaves_the_estimator_as_it_was(kind, y, other, settings, partial):
    estimator = kind().fit(X, y)
    known = {name: value for name, value in vars(estimator).items() if name not in estimator.get_params()}
    answers, before = estimator.predict(X), estimator.get_params()
    fit = estimator.partial_fit if partial and "callbacks" in settings else estimator.fit
    with pytest.raises(
        (RuntimeError, DivergedError), match=r"a callback failed|The estimator is as it was before"
    ):
        estimator.set_params(**settings) and fit(50 * X + 3, y if partial else other)
    estimator.set_params(**before)
    assert all(vars(estimator)[name] is value for name, value in known.items())
    if not (
        partial and "callbacks" in settings
    ):  # the weights that partial_fit goes on from are its to change
        assert np.array_equal(estimator.predict(X), answers)


def test_a_first_fit_that_fails_leaves_nothing():
    clf = classifier(callbacks=[_At(1, _fail)])
    before = dict(vars(clf))
    with pytest.raises(RuntimeError):
        clf.fit(X, Y)
    assert vars(clf) == before
    assert clf.set_params(callbacks=None, warm_start=True).fit(X[:, :2], Y > 0).classes_.tolist() == [
        False,
        True,
    ]


@pytest.mark.parametrize(("kind", "y"), [(classifier, Y), (regressor, T)])
@pytest.mark.parametrize("settings", [{}, {"early_stopping": True}, {"learning_rate": "constant"}])
def test_an_interrupted_fit_keeps_its_epochs(kind, y, settings):
    estimator = kind(callbacks=[_At(2, _interrupt)], **settings)
    with pytest.raises(Interrupted):
        estimator.fit(X, y)
    assert estimator.n_iter_ == len(estimator.loss_curve_) == 2
    assert estimator.history_.stopped == "interrupted"
    if settings:  # no schedule that knows the number of epochs
        settings = {**settings, "learning_rate": "constant"}
        both = [kind(**settings, max_iter=2), kind(**settings, callbacks=[_At(2, _interrupt)])]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            both[0].fit(X, y)
        with pytest.raises(Interrupted):
            both[1].fit(X, y)
        assert np.array_equal(both[0].predict(X), both[1].predict(X))


def test_an_interruption_before_the_first_epoch_leaves_the_estimator_as_it_was():
    class Interrupting(Callback):
        def on_step_end(self, trainer):
            _interrupt()

    clf = classifier().fit(X, Y)
    answers = clf.predict_proba(X)
    with pytest.raises(Interrupted):
        clf.set_params(callbacks=[Interrupting()]).fit(X[:, :2], Y > 0)
    assert np.array_equal(clf.predict_proba(X), answers)


def test_a_callback_that_stops_before_the_first_epoch_is_done():
    class Stopping(Callback):
        def on_step_end(self, trainer):
            trainer.stop("enough")

    with pytest.raises(ConfigError, match="a callback ended training before its first epoch was done"):
        classifier(callbacks=[Stopping()]).fit(X, Y)


# --- patience without end, and parts that are too large -------------------------------------------
@pytest.mark.parametrize("kind", [classifier, regressor])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("learning_rate", ["constant", "adaptive"])
def test_patience_without_end(kind, early_stopping, learning_rate):
    settings = {"early_stopping": early_stopping, "learning_rate": learning_rate, "max_iter": 9, "tol": 10.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it ends without having converged
        assert kind(**settings, n_iter_no_change=2).fit(X, Y).n_iter_ < 9 or learning_rate == "adaptive"
        assert kind(**settings, n_iter_no_change=np.inf).fit(X, Y).n_iter_ == 9


@pytest.mark.parametrize("value", [-np.inf, np.nan, 2.5, 0])
def test_patience_that_is_none(value):
    with pytest.raises(ConfigError, match="n_iter_no_change must be a whole number >= 1, or infinity, found"):
        classifier(n_iter_no_change=value).fit(X, Y)


def test_a_part_that_is_everything():
    with pytest.raises(
        DataError, match=r"hold out all samples: n_samples = 120, validation_fraction=0\.999; give"
    ):
        classifier(early_stopping=True, validation_fraction=0.999).fit(X, Y)


def test_a_part_that_leaves_one_class():
    with pytest.raises(DataError, match="holds out 1 of 2 samples, which leaves one class to train on"):
        classifier(early_stopping=True).fit(X[:2], ["a", "b"])


def test_infinity_among_objects():
    y = T.astype(object)
    y[3] = np.inf
    with pytest.raises(ValueError, match="Input y contains infinity"):
        regressor().fit(X, y)


# --- copies ---------------------------------------------------------------------------------------
def test_a_copy_learns_while_the_first_one_answers():
    clf = MLPClassifier((64,), **QUICK).fit(X, Y)
    answers = clf.predict_proba(X)
    twin = copy.deepcopy(clf)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as thread:
            learning = thread.submit(lambda: [twin.partial_fit(X, Y) for _ in range(8)])
            while not learning.done():
                for n in range(
                    20, 30
                ):  # more sizes than a network keeps passes for, so that they are made anew
                    assert np.allclose(clf.predict_proba(X[:n]), answers[:n], rtol=1e-9)
            learning.result()
    finally:
        sys.setswitchinterval(interval)
    assert not np.array_equal(twin.predict_proba(X), answers)


def test_clones_compute_as_the_back_end_they_were_given_does():
    clf = clone(classifier(device=get_backend("cpu", capture=False))).fit(X, Y)
    assert not clf.model_.be.captures
    assert np.array_equal(clf.predict_proba(X), classifier().fit(X, Y).predict_proba(X))
