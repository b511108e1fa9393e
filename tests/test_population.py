"""A member of a population equals the same model trained alone, to rounding in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpnet.losses import get_loss
from xpnet.mlp import MLP
from xpnet.optim import SGD, AdaGrad, Adam, AdamW, RMSProp
from xpnet.rng import permutation
from xpnet.training.examples import Examples
from xpnet.training.passes import Pass, Targets
from xpnet.training.step import TrainingStep
from xpnet.training.update import Regularization

M, N, BATCH, STEPS = 3, 45, 10, 25
G = np.random.default_rng(0)
X = G.normal(size=(N, 6))
CLASSES = G.integers(0, 4, N)
NUMBERS = G.normal(size=(N, 4))
SIGNS = np.where(G.random((N, 1)) < 0.5, -1.0, 1.0)
WEIGHTS = G.uniform(0.2, 2.0, N)


def examples(task: str, loss: str, width: int, weighted: bool) -> Examples:
    weights = WEIGHTS if weighted else None
    if loss == "hinge" and width == 1:
        return Examples(X, N, targets=SIGNS, weights=weights)
    if loss == "poisson":
        return Examples(X, N, targets=np.abs(NUMBERS[:, :width]), weights=weights)
    if task == "regression":
        return Examples(X, N, targets=NUMBERS[:, :width], weights=weights)
    if task == "multilabel" or width == 1:
        return Examples(X, N, targets=(NUMBERS[:, :width] > 0).astype(float), weights=weights)
    return Examples(X, N, labels=CLASSES, weights=weights)


def train(model, task, loss, optimizer, regularization, targets=None, weighted=False):
    """Train over ragged batches; return the sums of the last pass and an evaluation."""
    model.task = task
    data = examples(task, loss, model.sizes[-1], weighted)
    step = TrainingStep(model, get_loss(loss), data, optimizer, Regularization(**regularization), targets)
    done = epoch = 0
    while done < STEPS:
        rows = permutation(N, 5, epoch)
        step.reset()
        for start in range(0, N, BATCH):
            step.multiplier = 1.0 / (1.0 + 0.05 * done)
            step(rows[start : start + BATCH])
            done += 1
        epoch += 1
    judge = Pass(model, get_loss(loss), data, targets=targets)
    return np.concatenate([step.tally.totals(), judge.run(np.arange(N), N)])


def one(value, m):
    return value[m] if isinstance(value, (list, tuple)) else value


def worst_difference(
    hidden=(8,),
    width=4,
    task="classification",
    loss="softmax_cross_entropy",
    optimizer=SGD,
    hyper=None,
    regularization=None,
    seeds=(3, 1, 40),
    targets=None,
    weighted=False,
    **architecture,
) -> float:
    """Largest difference of a weight or a sum, relative to the largest weight or sum."""
    hyper, regularization = hyper or {"lr": 0.1}, regularization or {}
    sizes = [6, *hidden, width]
    population = MLP(sizes, n_models=M, seed=list(seeds), dtype="float64", **architecture)
    totals = train(population, task, loss, optimizer(**hyper), regularization, targets, weighted)
    assert np.isfinite(population.weights).all()
    worst = 0.0
    for m in range(M):
        alone = MLP(sizes, seed=seeds[m], dtype="float64", **architecture)
        start = alone.get_weights()
        expected = train(
            alone,
            task,
            loss,
            optimizer(**{k: one(v, m) for k, v in hyper.items()}),
            {k: one(v, m) for k, v in regularization.items()},
            targets,
            weighted,
        )
        assert any(not np.array_equal(start[k], w) for k, w in alone.get_weights().items())
        pairs = [(w[m], alone.get_weights()[k]) for k, w in population.get_weights().items()]
        for a, b in [*pairs, (totals[:, m], expected)]:
            worst = max(worst, float(np.abs(a - b).max() / max(1.0, np.abs(b).max())))
    return worst


CASES = {
    "linear": {"hidden": ()},
    "per-member lr": {"hyper": {"lr": [0.01, 0.1, 0.5]}},
    "lr of one member zero": {
        "hyper": {"lr": [0.1, 0.001, 0.3], "momentum": [0.0, 0.5, 0.9]},
        "activation": "tanh",
    },
    "nesterov": {"optimizer": SGD, "hyper": {"lr": [0.05, 0.01, 0.1], "momentum": 0.9, "nesterov": True}},
    "adagrad": {
        "optimizer": AdaGrad,
        "hyper": {"lr": [0.05, 0.1, 0.2], "eps": 1e-6},
        "activation": "sigmoid",
    },
    "rmsprop": {
        "optimizer": RMSProp,
        "hyper": {"lr": 0.01, "rho": [0.5, 0.9, 0.99], "eps": 1e-4},
        "activation": "elu",
    },
    "adam": {"optimizer": Adam, "hyper": {"lr": [1e-3, 1e-2, 3e-2], "beta1": [0.9, 0.5, 0.0], "eps": 1e-4}},
    "adamw": {
        "optimizer": AdamW,
        "hyper": {"lr": 0.01, "weight_decay": [0.0, 0.1, 1.0], "eps": 1e-4},
        "activation": "gelu",
    },
    "penalties": {
        "regularization": {"l1": [0.0, 0.01, 0.1], "l2": [0.1, 0.0, 0.3]},
        "activation": "softplus",
    },
    "clip by norm": {
        "regularization": {"clip_norm": 0.3},
        "hyper": {"lr": [0.1, 0.2, 0.3]},
        "activation": "silu",
    },
    "clip by norm, one lr": {
        "regularization": {"clip_norm": 0.3},
        "optimizer": Adam,
        "hyper": {"lr": 0.01, "eps": 1e-4},
    },
    "clip by value": {"regularization": {"clip_value": 0.05}},
    "max norm": {"regularization": {"max_norm": 0.7}, "activation": "leaky_relu:0.2"},
    "all together": {
        "hidden": (8, 7),
        "optimizer": AdamW,
        "hyper": {"lr": [0.01, 0.02, 0.03], "weight_decay": 0.1, "eps": 1e-4},
        "regularization": {
            "l1": 0.001,
            "l2": [0.1, 0.2, 0.0],
            "clip_norm": 1.0,
            "clip_value": 0.5,
            "max_norm": 1.5,
        },
        "dropout": 0.3,
        "input_dropout": 0.1,
        "input_noise": 0.2,
        "activation": ["prelu", "maxout:3"],
        "weighted": True,
    },
    "dropout": {"dropout": 0.5, "hidden": (16, 16)},
    "input dropout": {"input_dropout": 0.4},
    "noise": {"input_noise": 0.5},
    "prelu": {"activation": "prelu", "regularization": {"l2": 0.1}},
    "maxout": {"activation": "maxout:4", "regularization": {"max_norm": 0.5}},
    "selu": {"activation": "selu", "hidden": (8, 8, 8)},
    "weighted": {"weighted": True},
    "smoothed": {"targets": Targets(label_smoothing=0.2)},
    "infogain": {"targets": Targets(infogain=np.random.default_rng(1).uniform(size=(4, 4)))},
    "hinge": {"loss": "hinge", "hyper": {"lr": 0.02}},
    "binary hinge": {"loss": "hinge", "width": 1, "activation": "tanh"},
    "binary": {"loss": "binary_cross_entropy", "width": 1},
    "one against the rest": {"loss": "binary_cross_entropy"},
    "multilabel": {"loss": "binary_cross_entropy", "task": "multilabel", "weighted": True},
    "regression": {"loss": "squared_error", "task": "regression", "width": 2},
    "squared error on classes": {"loss": "squared_error", "output_activation": "sigmoid"},
    "huber": {"loss": "huber:0.5", "task": "regression"},
    "absolute": {"loss": "absolute_error", "task": "regression"},
    "quantile": {"loss": "quantile:0.9", "task": "regression"},
    "poisson": {"loss": "poisson", "task": "regression", "hyper": {"lr": 0.02}, "activation": "tanh"},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_members_equal_single_models(case):
    assert worst_difference(**case) < 1e-10


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    hidden=st.lists(st.integers(1, 9), max_size=3),
    activation=st.sampled_from(["relu", "tanh", "prelu", "maxout", "gelu", "hard_tanh"]),
    optimizer=st.sampled_from(
        [(SGD, {}), (SGD, {"momentum": 0.8}), (Adam, {"eps": 1e-3}), (AdaGrad, {"eps": 1e-3})]
    ),
    lr=st.lists(st.floats(1e-4, 0.05), min_size=M, max_size=M),
    l2=st.lists(st.floats(0.0, 0.2), min_size=M, max_size=M),
    l1=st.floats(0.0, 0.05),
    clip_norm=st.none() | st.floats(0.1, 2.0),
    max_norm=st.none() | st.floats(0.5, 2.0),
    dropout=st.sampled_from([0.0, 0.3]),
    seeds=st.lists(st.integers(0, 2**64 - 1), min_size=M, max_size=M),
)
def test_members_equal_single_models_for_any_setting(
    hidden, activation, optimizer, lr, l2, l1, clip_norm, max_norm, dropout, seeds
):
    kind, options = optimizer
    regularization = {"l2": l2, "l1": l1, "clip_norm": clip_norm, "max_norm": max_norm}
    difference = worst_difference(
        hidden=hidden,
        activation=activation,
        optimizer=kind,
        hyper={"lr": lr, **options},
        seeds=seeds,
        regularization=regularization,
        dropout=dropout,
    )
    assert difference < 1e-10


def test_members_with_one_seed_and_one_setting_stay_twins():
    population = MLP([6, 8, 4], n_models=M, seed=[7] * M, dropout=0.5, dtype="float64")
    train(population, "classification", "cross_entropy", Adam(lr=0.01), {"l2": 0.1})
    for w in population.get_weights().values():
        np.testing.assert_array_equal(w[0], w[1])
        np.testing.assert_array_equal(w[0], w[2])


def test_a_member_that_diverges_leaves_the_others_alone():
    with np.errstate(all="ignore"):
        population = MLP([6, 8, 4], n_models=M, seed=[1, 2, 3], dtype="float64")
        train(population, "classification", "cross_entropy", SGD(lr=[0.1, 1e300, 0.2]), {"clip_norm": 5.0})
    weights = population.get_weights()
    assert not all(np.isfinite(w[1]).all() for w in weights.values())
    for m, lr in ((0, 0.1), (2, 0.2)):
        alone = MLP([6, 8, 4], seed=m + 1, dtype="float64")
        train(alone, "classification", "cross_entropy", SGD(lr=lr), {"clip_norm": 5.0})
        for name, w in alone.get_weights().items():
            np.testing.assert_allclose(weights[name][m], w, rtol=1e-10, atol=1e-12)


def test_a_population_of_one_is_a_population():
    population = MLP([6, 8, 4], n_models=1, seed=5, dtype="float64")
    alone = MLP([6, 8, 4], seed=5, dtype="float64")
    for model in (population, alone):
        train(model, "classification", "cross_entropy", Adam(lr=0.01), {"clip_norm": 0.5, "max_norm": 1.0})
    for name, w in alone.get_weights().items():
        assert population.get_weights()[name].shape == (1, *w.shape)
        np.testing.assert_allclose(population.get_weights()[name][0], w, rtol=1e-12, atol=1e-14)
