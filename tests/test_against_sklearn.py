"""The same weights as scikit-learn's MLP after 50 updates from the same start on the same batches.

Three conventions differ and are translated here, so that nothing but the arithmetic is compared:

* scikit-learn adds alpha / (2 B) sum w^2 to the mean loss of a batch of B rows: our l2 is alpha / B.
* Its momentum is v <- momentum v - lr g, w <- w + v, which is ours at a constant lr.
* Its Adam adds epsilon to the root of the *uncorrected* second moment; ours, as printed in the paper, to that
  of the corrected one. The two agree in the limit of a small epsilon.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier, MLPRegressor

from xpnet.losses import get_loss
from xpnet.mlp import MLP
from xpnet.optim import SGD, Adam
from xpnet.training.examples import Examples
from xpnet.training.step import TrainingStep
from xpnet.training.update import Regularization

N, BATCH, STEPS, EPS = 60, 12, 50, 1e-300
G = np.random.default_rng(0)
X = G.normal(size=(N, 5))
MULTI = np.arange(N) % 4
BINARY = (X[:, 0] + 0.5 * G.normal(size=N) > 0).astype(int)
NUMBERS = G.normal(size=(N, 3))

SOLVERS = {
    "sgd": ({"solver": "sgd", "momentum": 0.0}, SGD(lr=0.05)),
    "momentum": ({"solver": "sgd", "momentum": 0.9, "nesterovs_momentum": False}, SGD(lr=0.05, momentum=0.9)),
    "nesterov": (
        {"solver": "sgd", "momentum": 0.9, "nesterovs_momentum": True},
        SGD(lr=0.05, momentum=0.9, nesterov=True),
    ),
    "adam": (
        {"solver": "adam", "beta_1": 0.9, "beta_2": 0.999, "epsilon": EPS},
        Adam(lr=0.05, beta1=0.9, beta2=0.999, eps=EPS),
    ),
}
ACTIVATIONS = {"identity": "identity", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
TASKS = {
    "multiclass": (MLPClassifier, MULTI, "softmax_cross_entropy", 4),
    "binary": (MLPClassifier, BINARY, "binary_cross_entropy", 1),
    "multilabel": (MLPClassifier, (NUMBERS > 0).astype(int), "binary_cross_entropy", 3),
    "regression": (MLPRegressor, NUMBERS, "squared_error", 3),
    "regression of one": (MLPRegressor, NUMBERS[:, 0], "squared_error", 1),
}


def pair(task, hidden, activation, solver, alpha):
    """Return scikit-learn's estimator and our step, with the same initial weights."""
    kind, y, loss, width = TASKS[task]
    options, optimizer = SOLVERS[solver]
    other = kind(
        hidden_layer_sizes=hidden,
        activation=activation,
        alpha=alpha,
        learning_rate_init=0.05,
        shuffle=False,
        batch_size=BATCH,
        random_state=0,
        max_iter=STEPS // (N // BATCH),
        tol=0.0,
        n_iter_no_change=10**6,
        **options,
    )
    model = MLP([5, *hidden, width], activation=ACTIVATIONS[activation], dtype="float64", seed=11, bias=0.1)
    model.task = "regression" if task.startswith("regression") else "classification"
    if task == "multilabel":
        model.task = task
    start = iter(list(model.get_weights().values()))

    def initial(fan_in, fan_out, dtype):
        W, b = next(start), next(start)
        assert W.shape == (fan_out, fan_in)
        return W.T.astype(dtype).copy(), b.astype(dtype).copy()

    other._init_coef = initial
    data = (
        Examples(X, N, labels=y)
        if task == "multiclass"
        else Examples(X, N, targets=y.reshape(N, -1).astype(float))
    )
    step = TrainingStep(model, get_loss(loss), data, optimizer, Regularization(l2=alpha / BATCH))
    return other, step, y


def difference(model: MLP, other) -> float:
    """Largest difference between two parameters, relative to the largest of its tensor."""
    ours = list(model.get_weights().values())
    theirs = [a for W, b in zip(other.coefs_, other.intercepts_, strict=True) for a in (W.T, b)]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fifty_updates(activation, solver, task):
    other, step, y = pair(task, (7, 6), activation, solver, alpha=0.02)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it has not converged
        other.fit(X, y)
    for _ in range(STEPS // (N // BATCH)):
        totals = step.run(np.arange(N), BATCH)
    assert step.n_updates == STEPS == other.t_ / BATCH
    assert difference(step.model, other) < 1e-10

    # and they predict the same
    h = step.model.outputs(X)
    step.model.loss = step.loss.name
    if task.startswith("regression"):
        np.testing.assert_allclose(h.squeeze(), other.predict(X), rtol=1e-9, atol=1e-10)
    else:
        p = step.model.predict_proba(X)
        np.testing.assert_allclose(p, other.predict_proba(X), rtol=1e-9, atol=1e-10)
        np.testing.assert_array_equal(step.model.predict(X), other.predict(X))
    if task in ("multiclass", "binary"):
        assert other.loss_ > totals[0] / totals[1]  # its loss includes the penalty, ours does not


@pytest.mark.parametrize("hidden", [(), (3,), (9, 8, 7)])
@pytest.mark.parametrize("task", ["multiclass", "binary", "regression"])
def test_other_depths(task, hidden):
    other, step, y = pair(task, hidden, "tanh", "momentum", alpha=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other.fit(X, y)
    for _ in range(STEPS // (N // BATCH)):
        step.run(np.arange(N), BATCH)
    assert difference(step.model, other) < 1e-10


def test_ordinary_epsilon_differs_only_by_its_place():
    """With epsilon 1e-8 on both sides the two forms of Adam stay within a millionth."""
    options, _ = SOLVERS["adam"]
    try:
        SOLVERS["adam"] = ({**options, "epsilon": 1e-8}, Adam(lr=0.05, eps=1e-8))
        other, step, y = pair("multiclass", (7,), "tanh", "adam", alpha=0.0)
    finally:
        SOLVERS["adam"] = (options, Adam(lr=0.05, eps=EPS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other.fit(X, y)
    for _ in range(STEPS // (N // BATCH)):
        step.run(np.arange(N), BATCH)
    assert difference(step.model, other) < 1e-4
