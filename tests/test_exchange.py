"""Weights to and from scikit-learn and PyTorch: the same predictions, and refusals that say why."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import neural_network
from sklearn.datasets import load_diabetes, load_iris

from tests.own_layers import _Own
from xpnet import MLP, MLPClassifier, MLPRegressor, fit
from xpnet.data.dataset import Preprocessing
from xpnet.errors import ConfigError, FileFormatError
from xpnet.exchange import from_sklearn, from_torch_state, to_sklearn, to_torch_state

X, Y = load_iris(return_X_y=True)
XR, YR = load_diabetes(return_X_y=True)
NAMES = np.array(["a", "b", "c"])[Y]
QUICK = {"random_state": 0, "max_iter": 5}
EXACT = {**QUICK, "label_smoothing": 0.0}  # other libraries do not undo it
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("rows", [150, 100], ids=["three classes", "two classes"])
def test_classifier_to_scikit_learn_and_back(dtype, activation, rows):
    mine = MLPClassifier((8, 6), activation=activation, dtype=dtype, **EXACT).fit(X[:rows], NAMES[:rows])
    theirs = to_sklearn(mine)
    assert type(theirs) is neural_network.MLPClassifier
    assert np.abs(theirs.predict_proba(X) - mine.predict_proba(X)).max() < TOLERANCE[dtype]
    assert theirs.loss_curve_ == mine.loss_curve_ and theirs.classes_.tolist() == mine.classes_.tolist()
    back = from_sklearn(theirs)
    assert np.abs(back.predict_proba(X) - theirs.predict_proba(X)).max() < 1e-12
    assert (back.predict(X) == theirs.predict(X)).all()
    theirs.partial_fit(X[:rows], NAMES[:rows])


def test_smoothed_labels_are_undone_here_only():
    mine = MLPClassifier((8,), dtype="float64", **QUICK).fit(X, Y)
    theirs = to_sklearn(mine)
    assert (theirs.predict(X) == mine.predict(X)).all()
    own = theirs.predict_proba(X)
    q = np.maximum((own - 0.1 / 3) / 0.9, 0.1 / 3 / 20)
    assert np.allclose(q / q.sum(axis=1, keepdims=True), mine.predict_proba(X), atol=1e-12)


def test_multilabel():
    y = np.stack([Y > 0, Y > 1, X[:, 0] > 5.5], axis=1).astype(int)
    mine = MLPClassifier((8,), dtype="float64", **QUICK).fit(X, y)  # whose labels are never smoothed
    theirs = to_sklearn(mine)
    assert np.abs(theirs.predict_proba(X) - mine.predict_proba(X)).max() < 1e-12
    assert (theirs.predict(X) == from_sklearn(theirs).predict(X)).all()


@pytest.mark.parametrize("settings", [{}, {"loss": "poisson"}, {"loss": "huber"}, {"standardize": False}])
@pytest.mark.parametrize("columns", [1, 2])
def test_regressor_to_scikit_learn_and_back(settings, columns):
    if settings.get("loss") == "poisson" and "loss" not in neural_network.MLPRegressor().get_params():
        with pytest.raises(ConfigError, match=r"version 1\.7"):
            to_sklearn(MLPRegressor((8,), **settings, **QUICK).fit(XR, YR))
        return
    y = YR if columns == 1 else np.stack([YR, 1e3 * YR], axis=1)
    mine = MLPRegressor((8,), dtype="float64", **settings, **QUICK).fit(XR, y)
    theirs = to_sklearn(mine)
    assert type(theirs) is neural_network.MLPRegressor
    assert np.allclose(theirs.predict(XR), mine.predict(XR), rtol=1e-12)
    back = from_sklearn(theirs)
    assert np.allclose(back.predict(XR), mine.predict(XR), rtol=1e-12)
    assert back.get_params()["loss"] == ("poisson" if settings.get("loss") == "poisson" else "squared_error")
    single = MLPRegressor((8,), dtype="float32", **settings, **QUICK).fit(XR, y)
    assert np.allclose(to_sklearn(single).predict(XR), single.predict(XR), rtol=1e-4)


def test_a_network_trained_by_scikit_learn_goes_on_here():
    theirs = neural_network.MLPClassifier((8,), solver="lbfgs", random_state=0).fit(X[:100], Y[:100])
    mine = from_sklearn(theirs, dtype="float32")
    assert np.abs(mine.predict_proba(X) - theirs.predict_proba(X)).max() < 1e-6
    assert (
        mine.set_params(warm_start=True, max_iter=1, learning_rate="cosine")
        .fit(X[:100], Y[:100])
        .score(X[:100], Y[:100])
        > 0.9
    )


def test_bare_model_with_preprocessing():
    model = MLP([4, 6, 3], dtype="float64")
    model.preprocessing = Preprocessing((4,), scale=np.array([0.5, 1.0, 2.0, 1.0]), shift=-1.0)
    fit(model, (X, Y), epochs=2)
    assert np.abs(to_sklearn(model).predict_proba(X) - model.predict_proba(X)).max() < 1e-12


def _tails():
    x = XR.copy()
    x[0, 2] = 1e9
    return MLPRegressor((4,), **QUICK).fit(x, YR)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLPClassifier((4,), activation="gelu", **QUICK).fit(X, Y), "no activation 'gelu'"),
        (lambda: MLPClassifier((4, 4), activation=["relu", "tanh"], **QUICK).fit(X, Y), "one activation"),
        (lambda: MLPClassifier((4,), activation="prelu", **QUICK).fit(X, Y), "prelu"),
        (lambda: MLPClassifier((4,), activation="maxout", **QUICK).fit(X, Y), "maxout"),
        (lambda: MLPClassifier((4,), loss="hinge", **QUICK).fit(X, Y), "no hinge loss"),
        (lambda: MLPClassifier((4,), loss="squared_error", **QUICK).fit(X, Y), "cross-entropy"),
        (
            lambda: MLPClassifier((4,), loss="softmax_cross_entropy", **QUICK).fit(X[:100], Y[:100]),
            "one sigmoid",
        ),
        (_tails, "columns 2 have outliers"),
        (lambda: MLP([4, 3]), "not been trained"),
        (lambda: MLPClassifier(), "fitted estimator"),
        (lambda: MLP([4, 3], n_models=2), "population"),
    ],
)
def test_what_scikit_learn_does_not_have(make, message):
    with pytest.raises(ConfigError, match=message):
        to_sklearn(make())


def test_only_networks_come_from_scikit_learn():
    with pytest.raises(ConfigError, match="expected a fitted MLPClassifier"):
        from_sklearn(neural_network.MLPClassifier())


@pytest.mark.parametrize("activation", ["relu", "prelu"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_torch_state_there_and_back(activation, dropout):
    model = MLP([4, 6, 5, 3], activation=activation, dropout=dropout, seed=3)
    state = to_torch_state(model)
    slopes = ["1.weight", "3.weight"] if activation == "prelu" else []
    assert sorted(state) == sorted(
        ["0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias", *slopes]
    )
    assert state["2.weight"].shape == (5, 6) and state["2.weight"].dtype == np.float32
    again = from_torch_state(state, activation=activation)
    assert np.array_equal(again.outputs(X), model.outputs(X))


def test_torch_state_of_an_estimator_takes_raw_samples():
    clf = MLPClassifier((6,), dtype="float64", **EXACT).fit(X, Y)
    names = ["hidden", "out"]
    state = to_torch_state(clf, names)
    assert list(state) == ["hidden.weight", "hidden.bias", "out.weight", "out.bias"]
    model = from_torch_state(state, dtype="float64", task="classification", loss="softmax_cross_entropy")
    assert np.abs(model.predict_proba(X) - clf.predict_proba(X)).max() < 1e-12
    with pytest.raises(ConfigError, match="1 names for 2"):
        to_torch_state(clf, ["one"])


def test_torch_layers_without_bias_and_shared_slopes():
    class Tensor:  # as PyTorch's behave
        def __init__(self, values):
            self.values = values

        def detach(self):
            return self

        def cpu(self):
            return self.values

    w = np.eye(2)
    model = from_torch_state(
        {"10.weight": Tensor(w), "2.weight": w, "3.weight": np.array([0.5])}, activation="prelu"
    )
    assert model.outputs([[-2.0, 4.0]]).tolist() == [[-1.0, 4.0]]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "no linear layer"),
        ({"0.weight": np.zeros((2, 3, 3, 3))}, "expected"),
        ({"0.bias": np.zeros(2)}, "weight is None"),
        ({"0.weight": np.zeros((2, 3)), "1.weight": np.ones(2), "1.bias": np.ones(2)}, "normalisation"),
        ({"0.weight": np.zeros((2, 3)), "2.weight": np.zeros((2, 3))}, "takes 3 inputs"),
        ({"0.weight": np.zeros((2, 3)), "0.scale": np.ones(2)}, "0.scale is neither a weight nor a bias"),
        ({"0.weight": np.zeros((2, 3), complex)}, "0 holds complex128, expected real numbers"),
        ({"0.weight": np.zeros((2, 3)), "1.weight": np.ones(7), "2.weight": np.zeros((1, 2))}, "7 slopes"),
        (
            {"0.weight": np.zeros((2, 3)), "1.weight": np.ones(2), "2.weight": np.zeros((1, 2))},
            "slopes after",
        ),
    ],
)
def test_states_that_are_no_chain(state, message):
    with pytest.raises(FileFormatError, match=message):
        from_torch_state(state)


@pytest.mark.parametrize(
    ("task", "width", "loss"),
    [
        ("classification", 1, "binary_cross_entropy"),
        ("classification", 3, "softmax_cross_entropy"),
        ("multilabel", 3, "binary_cross_entropy"),
        ("regression", 1, "squared_error"),
    ],
)
def test_a_task_alone_has_its_usual_loss(task, width, loss):
    model = from_torch_state({"0.weight": np.ones((width, 2))}, task=task)
    assert model.loss == loss
    assert model.predict(np.ones((4, 2))).shape[0] == 4
    assert from_torch_state({"0.weight": np.ones((3, 2))}, loss="nll").loss == "softmax_cross_entropy"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "clasification"}, "unknown task 'clasification'; did you mean 'classification'"),
        ({"loss": "mze"}, "unknown loss 'mze'"),
        ({"task": "regression", "loss": "hinge"}, "does not fit the task 'regression'"),
    ],
)
def test_what_weights_cannot_have_been_trained_for(options, message):
    with pytest.raises(ConfigError, match=message):
        from_torch_state({"0.weight": np.ones((3, 2))}, **options)


def test_a_state_is_a_mapping():
    with pytest.raises(ConfigError, match=r"found list; from_torch takes a module itself"):
        from_torch_state([np.ones((3, 2))])


@pytest.mark.parametrize("export", [to_sklearn, to_torch_state])
def test_layers_of_ones_own_are_not_taken_for_the_usual_ones(export):
    model = _Own([4, 6, 3])
    fit(model, (X, Y), epochs=1)
    with pytest.raises(ConfigError, match="a layer of type _Halved has no counterpart"):
        export(model)


@pytest.mark.parametrize("names", [("low", "mid", "high"), ("9", "10", "11"), ("yes", "no")])
def test_classes_in_any_order(names):
    k = len(names)
    rows = k > Y
    model = MLP([4, 8, k if k > 2 else 1], dtype="float64")
    fit(model, (X[rows], Y[rows]), epochs=5)
    model.classes = names
    theirs = to_sklearn(model)
    assert (theirs.predict(X) == np.array(names)[model.predict(X)]).all()
    order = np.argsort(names)
    assert np.allclose(theirs.predict_proba(X), model.predict_proba(X)[:, order], atol=1e-12)
