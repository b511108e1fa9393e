"""The training loop: what it learns, records, keeps, refuses, and how it stops and continues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import xpnet
from xpnet import MLP, SGD, Adam, AdamW, Callback, ConfigError, DataError, DivergedError, FileFormatError
from xpnet.data import Preprocessing
from xpnet.losses import get_loss
from xpnet.optim import get_optimizer
from xpnet.schedules import Cosine, Schedule, get_schedule
from xpnet.train import Interrupted, Trainer, evaluate, fit
from xpnet.training.examples import default_loss, infer_task

XOR = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
RECORD = {
    "epoch", "step", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "lr", "seconds",
    "samples_per_second",
}  # fmt: skip


def moons(n=200, seed=0, noise=0.1):
    """Two half circles, one per class, interleaved."""
    random = np.random.default_rng(seed)
    angle = random.uniform(0, np.pi, n)
    y = np.arange(n) % 2
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x = np.where(y[:, None] == 1, [1.0, 0.5] - x, x)
    return x + random.normal(0, noise, x.shape), y


def blobs(n=60, classes=3, features=4, seed=0):
    random = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = random.normal(0, 2, (classes, features))
    return centres[y] + random.normal(0, 1, (n, features)), y


def line(n=120, seed=0):
    x = np.random.default_rng(seed).uniform(-1, 1, (n, 2))
    return x, 2 * x[:, 0] - x[:, 1] + 0.5


def weights_of(model):
    return np.array(model.be.to_numpy(model.weights))


def same_weights(a, b, tolerance=0.0):
    a, b = a.get_weights(), b.get_weights()
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=name)


def log_softmax(h):
    h = h - h.max(axis=-1, keepdims=True)
    return h - np.log(np.exp(h).sum(axis=-1, keepdims=True))


class Keep(Callback):
    """Copies weights and records as training goes."""

    def __init__(self):
        self.weights = {}

    def on_epoch_end(self, trainer, record):
        self.weights[record["epoch"]] = weights_of(trainer.model)


class At(Callback):
    """Does something after one of the steps."""

    def __init__(self, step, action):
        self.at, self.action = step, action

    def on_step_end(self, trainer):
        if trainer.step.n_updates == self.at:
            self.action(trainer)


# --- what it learns -------------------------------------------------------------------------------
@pytest.mark.parametrize("activation", ["tanh", "relu", "maxout", "prelu"])
def test_xor(activation):
    model = MLP([2, 8, 2], activation=activation, seed=3)
    fit(model, (XOR, [0, 1, 1, 0]), epochs=300, batch_size=4, optimizer=Adam(lr=0.05))
    assert model.predict(XOR).tolist() == [0, 1, 1, 0]


def test_moons_need_a_hidden_layer():
    data, held_out = moons(400), moons(200, seed=1)
    linear, hidden = MLP([2, 2]), MLP([2, 32, 2], seed=1)
    for model in (linear, hidden):
        fit(model, data, epochs=40, batch_size=32, optimizer=Adam(lr=0.02))
    assert evaluate(hidden, held_out)["accuracy"] > 0.97 > 0.93 > evaluate(linear, held_out)["accuracy"]


@pytest.mark.parametrize(
    ("loss", "worst"), [("squared_error", 0.04), ("mae", 0.06), ("huber", 0.03), ("huber:0.1", 0.03)]
)
def test_regression(loss, worst):
    x, y = line()
    model = MLP([2, 16, 1], activation="tanh", seed=1)
    history = fit(model, (x, y), loss=loss, epochs=150, batch_size=20, optimizer=Adam(lr=0.01))
    assert model.task == "regression" and history[-1]["train_accuracy"] is None
    assert np.abs(model.predict(x)[:, 0] - y).mean() < worst


def test_poisson_regression_predicts_rates():
    x, _ = line(400)
    rate = np.exp(1.0 + x[:, 0])
    y = np.random.default_rng(1).poisson(rate)
    model = MLP([2, 1])
    fit(model, (x, y), loss="poisson", epochs=150, batch_size=100, optimizer=Adam(lr=0.05))
    assert np.abs(model.predict(x)[:, 0] / rate - 1).mean() < 0.08


@pytest.mark.parametrize("level", [0.1, 0.9])
def test_quantile_regression_covers_its_share(level):
    random = np.random.default_rng(0)
    x = np.ones((500, 1))
    model = MLP([1, 1])
    y = random.normal(size=500)
    fit(model, (x, y), loss=f"quantile:{level}", epochs=200, batch_size=500, optimizer=Adam(lr=0.02))
    assert abs((y <= model.predict(x)[:, 0]).mean() - level) < 0.03


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "hinge"])
def test_one_output_for_two_classes(loss):
    model = MLP([2, 16, 1], activation="tanh", seed=1)
    history = fit(model, moons(), loss=loss, epochs=60, batch_size=20, optimizer=Adam(lr=0.03))
    assert model.task == "classification" and history[-1]["train_accuracy"] > 0.97
    assert model.predict(XOR).shape == (4,)
    if loss == "hinge":
        with pytest.raises(ConfigError, match="scores, not probabilities"):
            model.predict_proba(XOR)
    else:
        np.testing.assert_allclose(model.predict_proba(XOR).sum(axis=1), 1.0, rtol=1e-6)


def test_hinge_for_many_classes():
    model = MLP([4, 3])
    history = fit(model, blobs(), loss="hinge", epochs=60, batch_size=20, optimizer=Adam(lr=0.03))
    assert history[-1]["train_accuracy"] > 0.9


def test_multilabel_accuracy_counts_labels():
    x, _ = line(200)
    y = np.stack([x[:, 0] > 0, x[:, 1] > 0.2, x.sum(axis=1) > 0], axis=1)
    model = MLP([2, 16, 3], activation="tanh", seed=2)
    history = fit(model, (x, y), loss="bce", epochs=80, batch_size=20, optimizer=Adam(lr=0.03))
    assert model.task == "multilabel" and history[-1]["train_accuracy"] > 0.95
    found = evaluate(model, (x, y))
    assert found["accuracy"] == pytest.approx((model.predict(x) == y).mean(), abs=1e-7)


def test_hard_labels_written_as_rows_are_the_same_training():
    x, y = blobs()
    a, b = MLP([4, 8, 3], seed=4, dtype="float64"), MLP([4, 8, 3], seed=4, dtype="float64")
    one = fit(a, (x, y), epochs=3)
    two = fit(b, (x, np.eye(3)[y]), epochs=3, loss="softmax_cross_entropy")
    same_weights(a, b, 1e-12)
    assert one.column("train_accuracy") == two.column("train_accuracy")


def test_soft_labels_are_approached():
    x = np.eye(3)
    y = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    model = MLP([3, 3])
    fit(model, (x, y), loss="softmax_cross_entropy", epochs=400, batch_size=3, optimizer=Adam(lr=0.05))
    np.testing.assert_allclose(model.predict_proba(x), y, atol=0.02)


def test_soft_labels_for_one_output_are_the_probability_of_class_one():
    x = np.eye(2)
    model = MLP([2, 1])
    y = np.array([[0.7, 0.3], [0.2, 0.8]])
    fit(model, (x, y), loss="bce", epochs=300, batch_size=2, optimizer=Adam(lr=0.05))
    np.testing.assert_allclose(model.predict_proba(x), y, atol=0.02)


def test_squared_error_with_sigmoid_output():
    x, y = moons()
    model = MLP([2, 16, 2], activation="sigmoid", output_activation="sigmoid", seed=1)
    history = fit(model, (x, y), loss="squared_error", epochs=150, batch_size=20, optimizer=Adam(lr=0.05))
    assert model.task == "classification" and history[-1]["train_accuracy"] > 0.95
    np.testing.assert_allclose(model.predict_proba(x).sum(axis=1), 1.0, rtol=1e-6)


def test_infogain_identity_is_cross_entropy_and_its_rows_are_targets():
    x, y = blobs()
    plain, same, other = (MLP([4, 3], seed=1, dtype="float64") for _ in range(3))
    fit(plain, (x, y), epochs=3)
    fit(same, (x, y), epochs=3, loss="infogain", infogain=np.eye(3))
    same_weights(plain, same, 1e-14)
    h = np.array([[2.0, 0.5, 0.1], [0.3, 1.0, 0.2], [0.0, 0.4, 3.0]])
    before = log_softmax(other.outputs(x))
    history = fit(other, (x, y), epochs=1, optimizer=SGD(lr=0.0), infogain=h)
    assert history[0]["train_loss"] == pytest.approx(-(h[y] * before).sum(axis=1).mean(), rel=1e-12)


# --- tasks and losses -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("y", "loss", "width", "task"),
    [
        (np.array([0, 1, 2]), None, 3, "classification"),
        (np.array([True, False]), None, 1, "classification"),
        (np.array([0.0, 1.0]), None, 1, "classification"),
        (np.array([0.0, 0.5]), None, 1, "regression"),
        (np.zeros(2), None, 1, "regression"),
        (np.array([[0, 1], [1, 0]]), None, 2, "classification"),
        (np.eye(3, dtype=bool), None, 3, "classification"),
        (np.array([[0, 1], [1, 1]]), None, 2, "multilabel"),
        (np.zeros((4, 2), dtype=bool), None, 2, "multilabel"),
        (np.array([[0, 2], [1, 1]]), None, 2, "regression"),
        (np.array([[0.0, 1.0], [1.0, 0.0]]), None, 2, "classification"),
        (np.array([[0.0, 1.0], [1.0, 1.0]]), None, 2, "multilabel"),
        (np.array([[0.1, 0.9], [1.0, 0.0]]), None, 2, "regression"),
        (np.array([[0], [1]]), None, 1, "classification"),
        (np.array([[0], [2]]), None, 1, "regression"),
        (np.array([0.0, 1.0]), "softmax_cross_entropy", 2, "classification"),
        (np.array([[0.2, 0.8]]), "softmax_cross_entropy", 2, "classification"),
        (np.array([0, 1]), "bce", 1, "classification"),
        (np.array([0, 1]), "bce", 2, "classification"),
        (np.array([[0, 1]]), "bce", 2, "multilabel"),
        (np.array([0, 1]), "squared_error", 2, "classification"),
        (np.array([0, 1]), "squared_error", 1, "regression"),
        (np.array([[0, 1]]), "squared_error", 2, "regression"),
        (np.array([0, 1]), "hinge", 1, "classification"),
        (np.array([0, 1]), "poisson", 1, "regression"),
        (np.array([0, 1]), "mae", 1, "regression"),
    ],
)
def test_inferred_tasks(y, loss, width, task):
    assert infer_task(y, loss and get_loss(loss), width) == task


@pytest.mark.parametrize(
    ("task", "width", "name"),
    [
        ("classification", 3, "softmax_cross_entropy"),
        ("classification", 1, "binary_cross_entropy"),
        ("multilabel", 3, "binary_cross_entropy"),
        ("regression", 3, "squared_error"),
    ],
)
def test_default_losses(task, width, name):
    assert default_loss(task, width).name == name


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        (
            {"loss": "mae", "task": "classification"},
            "absolute_error loss does not fit the task 'classification'",
        ),
        ({"loss": "hinge", "task": "regression"}, "hinge loss does not fit"),
        ({"loss": "hinge", "task": "multilabel"}, "does not fit the task 'multilabel'"),
        ({"loss": "softmax_cross_entropy", "task": "multilabel"}, "does not fit"),
        ({"task": "ranking"}, "task must be one of classification, multilabel, regression"),
        ({"loss": "softmaxx_cross_entropy"}, "did you mean 'softmax_cross_entropy'"),
        ({"epochs": -1}, "epochs must be a whole number >= 0, found -1"),
        ({"epochs": 2.5}, "epochs must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1"),
        ({"batch_size": True}, "batch_size must be a whole number"),
        ({"patience": 0}, "patience must be a whole number >= 1"),
        ({"min_delta": -0.1}, "min_delta must be a finite number >= 0"),
        ({"min_delta": float("nan")}, "min_delta must be a finite number >= 0"),
        ({"min_delta_from": "last"}, "min_delta_from must be 'improvement' or 'best', found 'last'"),
        ({"monitor": "valid_loss"}, "monitor='valid_loss' needs validation data, and there are none"),
        ({"monitor": "train_los"}, "monitor must be one of train_loss, train_accuracy here"),
        ({"seed": -1}, "seed must be an integer"),
        ({"infogain": np.eye(2)}, "infogain must be a finite (3, 3) matrix"),
        ({"infogain": np.eye(3), "loss": "bce"}, "information-gain matrix needs the softmax"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in [0, 1)"),
        ({"label_smoothing": 0.1, "loss": "hinge"}, "label_smoothing needs a cross-entropy loss"),
        ({"l2": -1.0}, "l2 must be a finite number >= 0"),
        ({"optimizer": "adamm"}, "did you mean"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
    ],
)
def test_impossible_settings(options, fragment):
    with pytest.raises(ConfigError) as error:
        fit(MLP([4, 3]), blobs(), **options)
    assert fragment in str(error.value)


def test_impossible_models():
    x, y = blobs(classes=2)
    with pytest.raises(ConfigError, match="needs at least two outputs"):
        fit(MLP([4, 1]), (x, y), loss="softmax_cross_entropy")
    with pytest.raises(ConfigError, match=r"takes the raw outputs \(it applies softmax itself"):
        fit(MLP([4, 2], output_activation="sigmoid"), (x, y))
    with pytest.raises(ConfigError, match="information-gain matrix needs class indices"):
        fit(MLP([4, 2]), (x, np.eye(2)[y]), loss="softmax_cross_entropy", infogain=np.eye(2))
    with pytest.raises(ConfigError, match="has 2 values for a population of 3"):
        fit(MLP([4, 2], n_models=3), (x, y), optimizer=SGD(lr=[0.1, 0.2]))


@pytest.mark.parametrize(("name", "option"), [("data", None), ("validation", "validation")])
def test_data_come_in_pairs(name, option):
    x, y = blobs()
    with pytest.raises(DataError, match=f"{name} must be a pair .X, y., found ndarray"):
        fit(MLP([4, 3]), *([(x, y)] if option else [x]), **({option: x} if option else {}))


def test_what_was_refused_leaves_the_model_untrained():
    model = MLP([4, 3])
    with pytest.raises(DataError):
        fit(model, (np.full((3, 4), np.nan), [0, 1, 2]))
    with pytest.raises(ConfigError, match="has not been trained"):
        model.predict(np.zeros((1, 4)))
    with pytest.raises(ConfigError, match="has not been trained"):
        evaluate(model, blobs())


# --- records --------------------------------------------------------------------------------------
def test_records():
    x, y = blobs(50)
    held_out = blobs(31, seed=1)
    model = MLP([4, 8, 3])
    history = fit(model, (x, y), validation=held_out, epochs=3, batch_size=16, optimizer=SGD(lr=0.1))
    assert [set(record) for record in history] == [RECORD] * 3
    assert history.column("epoch") == [1, 2, 3] and history.column("step") == [4, 8, 12]
    assert history.column("lr") == [0.1] * 3 and history.stopped == "epochs"
    assert all(r["seconds"] > 0 and r["samples_per_second"] > 0 for r in history)
    assert all(type(r[k]) is float for r in history for k in ("train_loss", "valid_loss", "valid_accuracy"))
    json.dumps(list(history))
    best = history[history.best_epoch - 1]
    found = evaluate(model, held_out)
    assert found == {"loss": best["valid_loss"], "accuracy": best["valid_accuracy"]}


@pytest.mark.parametrize("batch_size", [1, 7, 50, 64])
@pytest.mark.parametrize("weighted", [False, True])
def test_train_loss_is_the_mean_over_examples(batch_size, weighted):
    x, y = blobs(50)
    w = np.random.default_rng(5).uniform(0, 2, 50) if weighted else None
    model = MLP([4, 8, 3], activation="tanh", dtype="float64")
    p = model.get_weights()
    h = np.tanh(x @ p["layers.0.weight"].T + p["layers.0.bias"]) @ p["layers.1.weight"].T + p["layers.1.bias"]
    each = -log_softmax(h)[np.arange(50), y]
    history = fit(
        model, (x, y), epochs=1, batch_size=batch_size, optimizer=SGD(lr=0.0), sample_weight=w, l2=0.1
    )
    assert history[0]["train_loss"] == pytest.approx(np.average(each, weights=w), rel=1e-13)
    assert history[0]["train_accuracy"] == pytest.approx((h.argmax(axis=1) == y).mean(), abs=1e-14)
    assert history[0]["step"] == -(-50 // batch_size)
    assert evaluate(model, (x, y), sample_weight=w)["loss"] == pytest.approx(
        history[0]["train_loss"], rel=1e-13
    )


def test_evaluation_in_pieces_is_one_mean():
    x, y = blobs(2345)
    model = MLP([4, 3], dtype="float64")
    fit(model, (x, y), epochs=0)
    each = -log_softmax(model.outputs(x))[np.arange(len(x)), y]
    assert evaluate(model, (x, y))["loss"] == pytest.approx(each.mean(), rel=1e-13)


def test_records_of_a_population_are_lists():
    model = MLP([4, 3], n_models=2)
    history = fit(model, blobs(), validation=blobs(seed=1), epochs=2, optimizer=SGD(lr=[0.1, 0.2]))
    for record in history:
        for key in ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "lr"):
            assert isinstance(record[key], list) and len(record[key]) == 2
    assert len(history.best_epochs) == 2 and history.best_epoch == history.best_epochs[0]
    json.dumps(list(history))


def test_schedules_show_in_the_records():
    history = fit(MLP([4, 3]), blobs(), epochs=4, optimizer=SGD(lr=1.0), schedule="step")
    assert history.column("lr") == [1.0] * 4
    history = fit(MLP([4, 3]), blobs(), epochs=4, batch_size=60, optimizer=SGD(lr=1.0), schedule="linear")
    assert history.column("lr") == [1.0, 0.75, 0.5, 0.25]


# --- batches --------------------------------------------------------------------------------------
class Batches(Callback):
    def __init__(self):
        self.rows = []

    def on_step_end(self, trainer):
        start = (trainer.batch - 1) * trainer.batch_size
        self.rows.append(trainer.order[start : start + trainer.batch_size].tolist())


@pytest.mark.parametrize(
    ("size", "sizes"), [(1, [1] * 10), (4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (11, [10]), (1000, [10])]
)
def test_every_example_once_per_epoch(size, sizes):
    seen = Batches()
    history = fit(MLP([4, 2]), blobs(10, classes=2), epochs=2, batch_size=size, callbacks=[seen])
    assert [len(rows) for rows in seen.rows] == sizes * 2
    first, second = np.reshape(np.concatenate(seen.rows), (2, 10)).tolist()
    assert sorted(first) == sorted(second) == list(range(10)) and first != second
    assert history[-1]["step"] == 2 * len(sizes)


def test_shuffle_off_keeps_the_order_and_the_seed_decides_it():
    seen = Batches()
    fit(MLP([4, 2]), blobs(10, classes=2), epochs=2, batch_size=4, shuffle=False, callbacks=[seen])
    assert seen.rows == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] * 2
    orders = []
    for seed in (1, 1, 2):
        trainer = Trainer(MLP([4, 2]), blobs(10, classes=2), epochs=1, seed=seed)
        trainer.run()
        orders.append(trainer.order.tolist())
    assert orders[0] == orders[1] != orders[2]


def test_ragged_batch_is_an_ordinary_step():
    """The last two of ten rows by hand: their mean gradient, not that of a full batch."""
    x, y = line(10)
    model = MLP([2, 1], dtype="float64")
    w, b = model.get_weights()["layers.0.weight"].copy(), model.get_weights()["layers.0.bias"].copy()
    fit(model, (x, y), epochs=1, batch_size=8, shuffle=False, optimizer=SGD(lr=0.1))
    for rows in (slice(0, 8), slice(8, 10)):
        e = x[rows] @ w.T + b - y[rows, None]
        w, b = w - 0.1 * e.T @ x[rows] / len(e), b - 0.1 * e.mean(axis=0)
    np.testing.assert_allclose(model.get_weights()["layers.0.weight"], w, rtol=1e-13)
    np.testing.assert_allclose(model.get_weights()["layers.0.bias"], b, rtol=1e-13)


def test_no_epochs_change_nothing_but_make_the_model_usable():
    model = MLP([4, 3])
    before = weights_of(model)
    history = fit(model, blobs(), validation=blobs(seed=1), epochs=0)
    assert history == [] and history.best_epoch is None
    np.testing.assert_array_equal(weights_of(model), before)
    assert model.predict(blobs()[0]).shape == (60,)


def test_training_again_continues_from_the_weights():
    x, y = blobs()
    once, twice = MLP([4, 3], dtype="float64"), MLP([4, 3], dtype="float64")
    options = {"optimizer": SGD(lr=0.1), "shuffle": False, "batch_size": 16}
    fit(once, (x, y), epochs=5, **options)
    first = fit(twice, (x, y), epochs=2, **options)
    second = fit(twice, (x, y), epochs=3, **options)
    same_weights(once, twice)
    assert second[0]["train_loss"] < first[0]["train_loss"] and second.column("epoch") == [1, 2, 3]


def test_same_seed_same_bits():
    runs = []
    for _ in range(2):
        model = MLP([4, 16, 3], dropout=0.3, input_noise=0.1, seed=7)
        fit(model, blobs(), epochs=3, batch_size=16)
        runs.append(weights_of(model))
    np.testing.assert_array_equal(*runs)


# --- validation -----------------------------------------------------------------------------------
NOISY = (np.random.default_rng(3).normal(size=(40, 6)), np.arange(40) % 2)
HELD_OUT = (np.random.default_rng(4).normal(size=(30, 6)), np.arange(30) % 2)


def overfit(model, keep=None, **options):
    """Nothing can be learnt from noise, so the validation loss soon rises."""
    settings = {"epochs": 12, "batch_size": 8, "optimizer": Adam(lr=0.02), "monitor": "valid_loss"}
    callbacks = [] if keep is None else [keep]
    return fit(model, NOISY, validation=HELD_OUT, callbacks=callbacks, **(settings | options))


@pytest.mark.parametrize("monitor", [None, "valid_loss", "valid_accuracy", "train_loss", "train_accuracy"])
def test_the_best_epochs_weights_are_left(monitor):
    keep, model = Keep(), MLP([6, 16, 2], seed=1)
    history = overfit(model, keep, monitor=monitor)
    name = monitor or "valid_accuracy"
    sign = 1 if name.endswith("accuracy") else -1
    part = name.partition("_")[0]
    best = max(history, key=lambda r: (sign * r[name], -r[f"{part}_loss"]))["epoch"]
    assert history.best_epoch == best
    np.testing.assert_array_equal(weights_of(model), keep.weights[best])
    if monitor == "valid_loss":
        assert best < 12


def test_without_restoring_the_last_weights_are_left():
    keep, model = Keep(), MLP([6, 16, 2], seed=1)
    history = overfit(model, keep, restore_best=False)
    assert history.best_epoch is None
    np.testing.assert_array_equal(weights_of(model), keep.weights[12])


def by_hand(values, patience, min_delta, sign, start="improvement"):
    """Epochs done under the rule of patience."""
    reference, bad = -np.inf, 0
    for epoch, value in enumerate(values, 1):
        if sign * value > reference + min_delta:
            reference, bad = sign * value, 0
        else:
            bad += 1
        if start == "best":
            reference = max(reference, sign * value)
        if bad >= patience:
            return epoch
    return len(values)


@pytest.mark.parametrize("monitor", ["valid_loss", "valid_accuracy", "train_loss"])
@pytest.mark.parametrize("patience", [1, 2, 4])
@pytest.mark.parametrize("min_delta", [0.0, 0.02])
@pytest.mark.parametrize("start", ["improvement", "best"])
def test_early_stopping(monitor, patience, min_delta, start):
    full = overfit(MLP([6, 16, 2], seed=1), monitor=monitor, epochs=30)
    history = overfit(
        MLP([6, 16, 2], seed=1), monitor=monitor, epochs=30, patience=patience, min_delta=min_delta,
        min_delta_from=start,
    )  # fmt: skip
    sign = 1 if monitor.endswith("accuracy") else -1
    expected = by_hand(full.column(monitor), patience, min_delta, sign, start)
    assert len(history) == expected
    assert history.stopped == ("epochs" if expected == 30 else "early_stopping")
    assert history.column(monitor) == full.column(monitor)[:expected]


def test_patience_without_validation_watches_training():
    history = fit(MLP([4, 3]), blobs(), epochs=9, optimizer=SGD(lr=0.0), patience=2)
    assert len(history) == 3 and history.stopped == "early_stopping" and history.best_epoch is None


def test_patience_counts_accuracy_though_the_loss_still_falls():
    x = np.array([[-1.0], [1.0]])
    model = MLP([1, 2], seed=0)
    model.params["layers.0.weight"][...] = np.array([[-1.0], [1.0]])  # right from the start
    history = fit(model, (x, [0, 1]), epochs=50, patience=3, optimizer=SGD(lr=0.01), monitor="train_accuracy")
    assert (
        history.column("train_accuracy") == [1.0] * 4 and history[3]["train_loss"] < history[0]["train_loss"]
    )
    assert history.stopped == "early_stopping"


def test_reduce_on_plateau():
    schedule = get_schedule("plateau", factor=0.5, patience=2)
    history = fit(MLP([4, 3]), blobs(), epochs=7, optimizer=SGD(lr=0.0), schedule=schedule)
    assert history.column("lr") == [0.0] * 7
    trainer = Trainer(
        MLP([6, 16, 2], seed=1), NOISY, validation=HELD_OUT, epochs=14, batch_size=8,
        optimizer=Adam(lr=0.02), schedule=schedule,
    )  # fmt: skip
    history = trainer.run()
    best, bad, rate, expected = np.inf, 0, 0.02, []
    for record in history:
        expected.append(rate)
        if record["valid_loss"] < best:
            best, bad = record["valid_loss"], 0
        else:
            bad += 1
        if bad == 2:
            rate, bad = rate / 2, 0
    assert history.column("lr") == pytest.approx(expected) and expected[-1] < 0.02


# --- populations ----------------------------------------------------------------------------------
def alone(population, m, data, optimizer, **options):
    """Train member `m` as a model of its own, with the population's order of examples."""
    model = MLP(**population.architecture, seed=population.seeds[m], dtype=population.dtype)
    history = fit(model, data, optimizer=optimizer, seed=population.seeds[0], **options)
    return model, history


def compare(population, history, m, single, single_history, tolerance=1e-10):
    same_weights(population.member(m), single, tolerance)
    n = len(single_history)  # alone it may have stopped earlier
    for key in ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "lr"):
        if single_history[0][key] is None:
            assert history[0][key] is None
            continue
        ours = [np.ravel(v)[m if np.size(v) > 1 else 0] for v in history.column(key)[:n]]
        np.testing.assert_allclose(ours, single_history.column(key), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
@pytest.mark.parametrize("patience", [None, 2])
def test_a_member_equals_the_model_alone(kind, patience):
    rates = [0.3, 1.0, 3.0] if kind is SGD else [0.01, 0.05, 0.1]
    decays, l1 = [0.0, 0.01, 0.1], [1e-3, 0.0, 1e-2]
    options = {
        "validation": HELD_OUT, "monitor": "valid_loss", "epochs": 10, "batch_size": 16, "patience": patience,
        "clip_norm": 1.0, "max_norm": 3.0,
    }  # fmt: skip
    population = MLP([6, 12, 2], dropout=0.2, n_models=3, seed=5, dtype="float64")
    history = fit(population, NOISY, optimizer=kind(lr=rates), l1=l1, l2=decays, **options)
    for m in range(3):
        single, own = alone(population, m, NOISY, kind(lr=rates[m]), l1=l1[m], l2=decays[m], **options)
        compare(population, history, m, single, own)
        assert history.best_epochs[m] == own.best_epoch
    assert len(set(history.best_epochs)) > 1  # else the test shows little


@pytest.mark.parametrize("device", ["cpu", "numba"])
@pytest.mark.parametrize("held_out", [None, HELD_OUT])
def test_a_member_that_stops_keeps_the_weights_of_then(device, held_out):
    options = {
        "epochs": 12, "batch_size": 16, "patience": 1, "min_delta": 1e-3, "monitor": "train_loss",
        "restore_best": False, "validation": held_out,
    }  # fmt: skip

    def trainer(*callbacks):
        model = MLP([6, 12, 2], n_models=2, seed=5, dtype="float64", device=device)
        return Trainer(model, NOISY, optimizer=SGD(lr=[1e-5, 0.1]), callbacks=callbacks, **options)

    saved = []
    steps = -(-len(NOISY[1]) // 16)
    whole = trainer(At(3 * steps, lambda trainer: saved.append(frozen(trainer))))
    history = whole.run()
    epochs = []
    for m, lr in enumerate([1e-5, 0.1]):
        single, own = alone(whole.model, m, NOISY, SGD(lr=lr), **options)
        same_weights(whole.model.member(m), single, 1e-12)
        epochs.append(len(own))
    assert epochs[0] == 2 and epochs[1] == len(history) > 3  # else the test shows little
    again = trainer()
    again.load_state(*saved[0])
    assert again.judge.stopped.tolist() == [True, False]
    again.run()
    np.testing.assert_array_equal(weights_of(again.model), weights_of(whole.model))
    np.testing.assert_array_equal(again.latest_weights(), whole.latest_weights())


def test_members_lower_their_rates_alone():
    schedule = get_schedule("plateau", factor=0.5, patience=1)
    options = {"validation": HELD_OUT, "epochs": 10, "batch_size": 16, "schedule": schedule}
    population = MLP([6, 12, 2], n_models=3, seed=5, dtype="float64")
    history = fit(population, NOISY, optimizer=Adam(lr=0.03), **options)
    for m in range(3):
        compare(population, history, m, *alone(population, m, NOISY, Adam(lr=0.03), **options))
    assert len({tuple(rates) for rates in np.transpose(history.column("lr"))}) > 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("diverging", [0, 1])
@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("schedule", [None, "plateau"])
def test_a_member_that_diverges_leaves_the_others_alone(diverging, validated, schedule):
    rates = [0.05, 0.05, 0.05]
    rates[diverging] = 1e200
    options = {"epochs": 6, "batch_size": 16, "loss": "squared_error", "schedule": schedule}
    options |= {"task": "classification", "clip_norm": None}
    if validated:
        options["validation"] = HELD_OUT
    population = MLP([6, 12, 2], n_models=3, seed=5, dtype="float64")
    start = population.member(diverging)
    history = fit(population, NOISY, optimizer=SGD(lr=rates), **options)
    assert history.diverged == [diverging] and not np.isfinite(history[-1]["train_loss"][diverging])
    for m in {0, 1, 2} - {diverging}:
        compare(population, history, m, *alone(population, m, NOISY, SGD(lr=0.05), **options))
    same_weights(population.member(diverging), start)  # it never finished a good epoch
    assert np.isfinite(weights_of(population)).all()


def test_all_members_diverged():
    population = MLP([6, 12, 2], n_models=2, seed=5)
    before = weights_of(population)
    with pytest.raises(DivergedError, match=r"epoch 1, step 2: layer 1 \(dense 12->2"):
        fit(population, NOISY, optimizer=SGD(lr=[1e38, 1e38]), loss="mse", batch_size=16)
    np.testing.assert_array_equal(weights_of(population), before)


# --- divergence -----------------------------------------------------------------------------------
def poison(layer, value=np.nan):
    def action(trainer):
        trainer.model.params[f"layers.{layer}.weight"][0, 0] = value

    return action


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("activation", ["tanh", "maxout", "gelu"])
def test_divergence_names_the_layer_where_it_began(layer, activation):
    keep, model = Keep(), MLP([4, 8, 8, 3], activation=activation, seed=1)
    with pytest.raises(DivergedError) as error:
        # four steps per epoch: poisoned after the second step of epoch 3, seen in its third
        fit(model, blobs(), epochs=9, batch_size=16, callbacks=[keep, At(10, poison(layer))])
    assert f"epoch 3, step 11: layer {layer} (" in str(error.value)
    assert (error.value.epoch, error.value.step) == (3, 11) and error.value.where in str(error.value)
    assert "outputs are not finite" in error.value.where and "smaller learning rate" in str(error.value)
    np.testing.assert_array_equal(weights_of(model), keep.weights[2])


def test_divergence_behind_dropout_and_noise_names_the_dense_layer():
    model = MLP([4, 8, 3], dropout=0.5, input_dropout=0.1, input_noise=0.1)
    dense = [i for i, layer in enumerate(model.layers) if layer.specs()]
    with pytest.raises(DivergedError, match=rf"step 4: layer {dense[1]} \(dense 8->3"):
        fit(model, blobs(), batch_size=16, callbacks=[At(3, poison(dense[1]))])


@pytest.mark.filterwarnings("error")
def test_weights_that_fail_in_the_last_step_of_an_epoch():
    keep, model = Keep(), MLP([4, 8, 3])
    with pytest.raises(DivergedError, match=r"epoch 2, step 8: layer 1 \(dense 8->3 identity\): 1 of its 27"):
        fit(model, blobs(), batch_size=16, callbacks=[keep, At(8, poison(1, np.inf))])
    np.testing.assert_array_equal(weights_of(model), keep.weights[1])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error", "hinge", "bce"])
@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "rmsprop"])
def test_a_huge_learning_rate(loss, optimizer):
    model = MLP([4, 8, 3], seed=1)
    start = weights_of(model)
    rate = get_optimizer(optimizer, lr=1e38)
    with pytest.raises(DivergedError, match=r"training diverged at epoch 1, step [23]: .*layer [01] \(dense"):
        fit(model, blobs(), batch_size=20, loss=loss, optimizer=rate)
    np.testing.assert_array_equal(weights_of(model), start)


@pytest.mark.filterwarnings("error")
def test_overflow_in_the_loss_and_in_the_inputs():
    x, y = line(20)
    model = MLP([2, 1])
    with pytest.raises(DivergedError, match=r"step 1: the squared_error loss: .*finite but too large"):
        fit(model, (x, y * 1e30), batch_size=5)
    model = MLP([2, 1])
    model.preprocessing = Preprocessing((2,), scale=1e38)
    with pytest.raises(DataError, match="X holds values too large for float32; scale them down first"):
        fit(model, (x * 1e20, y), batch_size=20)
    x = (100 * x).astype("int16")  # pixels are scaled batch by batch
    x[0] = 0  # the first sample passes the check of shapes
    with pytest.raises(DivergedError, match=r"step 1: the inputs: .* of the scaled batch are not finite"):
        fit(model, (x, y), batch_size=20)


@pytest.mark.parametrize("restore", [True, False])
def test_divergence_with_validation_leaves_the_best_or_the_last_good(restore):
    keep, model = Keep(), MLP([6, 16, 2], seed=1)
    with pytest.raises(DivergedError):
        fit(
            model, NOISY, validation=HELD_OUT, epochs=50, batch_size=8, optimizer=Adam(lr=0.02),
            monitor="valid_loss", restore_best=restore, callbacks=[keep, At(5 * 10 + 2, poison(0))],
        )  # fmt: skip
    losses = overfit(MLP([6, 16, 2], seed=1), epochs=10).column("valid_loss")
    expected = 1 + int(np.argmin(losses)) if restore else 10
    assert len(keep.weights) == 10
    np.testing.assert_array_equal(weights_of(model), keep.weights[expected])


# --- weights of examples --------------------------------------------------------------------------
def full_batch(data, **options):
    model = MLP([4, 6, 3], activation="tanh", seed=2, dtype="float64")
    history = fit(
        model,
        data,
        epochs=5,
        batch_size=10_000,
        shuffle=False,
        optimizer=SGD(lr=0.3, momentum=0.9),
        **options,
    )
    return model, history


def test_a_double_weight_is_a_row_twice():
    x, y = blobs(30)
    w = np.where(np.arange(30) % 3 == 0, 2.0, 1.0)
    again = np.repeat(np.arange(30), w.astype(int))
    weighted, one = full_batch((x, y), sample_weight=w)
    doubled, two = full_batch((x[again], y[again]))
    same_weights(weighted, doubled, 1e-12)
    np.testing.assert_allclose(one.column("train_loss"), two.column("train_loss"), rtol=1e-12)


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_only_ratios_of_weights_count(factor):
    x, y = blobs(30)
    w = np.random.default_rng(0).uniform(0.5, 2, 30)
    same_weights(*(full_batch((x, y), sample_weight=v)[0] for v in (w, w * factor)), 1e-12)


def test_zero_weights_ignore_rows():
    x, y = blobs(30)
    wrong = y.copy()
    wrong[:10] = (y[:10] + 1) % 3
    weighted, _ = full_batch((x, wrong), sample_weight=np.arange(30) >= 10)
    same_weights(weighted, full_batch((x[10:], y[10:]))[0], 1e-12)


@pytest.mark.filterwarnings("error")
def test_a_batch_without_weight_changes_nothing():
    x, y = blobs(20)
    model = MLP([4, 3], dtype="float64")
    start = weights_of(model)
    seen = []
    fit(
        model, (x, y), epochs=1, batch_size=10, shuffle=False, sample_weight=np.arange(20) >= 10,
        optimizer=SGD(lr=0.1), callbacks=[At(1, lambda trainer: seen.append(weights_of(trainer.model)))],
    )  # fmt: skip
    np.testing.assert_array_equal(seen[0], start)
    assert (weights_of(model) != start).any()


def test_class_weights():
    x, y = blobs(31)
    by_row = np.array([1.0, 5.0, 0.5])[y]
    by_class, _ = full_batch((x, y), class_weight={1: 5.0, 2: 0.5})
    same_weights(by_class, full_batch((x, y), sample_weight=by_row)[0], 1e-12)
    rows = np.random.default_rng(0).uniform(0.5, 2, 31)
    both, _ = full_batch((x, y), class_weight={1: 5.0, 2: 0.5}, sample_weight=rows)
    same_weights(both, full_batch((x, y), sample_weight=rows * by_row)[0], 1e-12)


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_sample_weight

    x, y = blobs(31)
    y = np.where(np.arange(31) < 20, 0, y)
    y[y == 2] = 1  # class 2 is absent
    balanced, _ = full_batch((x, y), class_weight="balanced")
    expected, _ = full_batch((x, y), sample_weight=compute_sample_weight("balanced", y))
    same_weights(balanced, expected, 1e-12)


# --- saving and continuing ------------------------------------------------------------------------
def build(n_models=None, callbacks=(), schedule="cosine", dropout=0.2, optimizer=None, **changes):
    model = MLP([6, 10, 2], dropout=dropout, n_models=n_models, seed=3)
    settings = {
        "validation": HELD_OUT, "optimizer": optimizer or Adam(lr=0.02), "schedule": schedule, "epochs": 7,
        "batch_size": 12, "patience": 5, "callbacks": callbacks,
    }  # fmt: skip
    return Trainer(model, NOISY, **(settings | changes))


def frozen(trainer):
    """The state as a file would keep it."""
    tensors, metadata = trainer.state()
    return {k: v.copy() for k, v in tensors.items()}, json.loads(json.dumps(metadata))


def without_times(history):
    return [{k: v for k, v in r.items() if k not in ("seconds", "samples_per_second")} for r in history]


@pytest.mark.parametrize("n_models", [None, 3])
@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
@pytest.mark.parametrize("at", [1, 4, 6, 15])  # four steps per epoch
def test_a_run_continues_bit_for_bit(n_models, schedule, at):
    saved = []
    whole = build(n_models, [At(at, lambda trainer: saved.append(frozen(trainer)))], schedule)
    history = whole.run()
    again = build(n_models, schedule=schedule)
    again.load_state(*saved[0])
    assert (again.epoch * 4 + again.batch) == at
    resumed = again.run()
    np.testing.assert_array_equal(weights_of(again.model), weights_of(whole.model))
    assert without_times(resumed) == without_times(history)
    assert resumed.best_epochs == history.best_epochs and resumed.stopped == history.stopped
    one, two = frozen(whole), frozen(again)
    for name, values in one[0].items():
        np.testing.assert_array_equal(two[0][name], values, err_msg=name)


def test_a_population_continues_with_a_member_that_diverged():
    saved = []
    optimizer = SGD(lr=[0.05, 1e38])
    keep = At(6, lambda trainer: saved.append(frozen(trainer)))
    options = {"optimizer": optimizer, "schedule": None, "validation": None, "dropout": 0.0, "loss": "mse"}
    whole = build(2, [keep], **options)
    history = whole.run()
    again = build(2, **options)
    again.load_state(*saved[0])
    assert again.diverged.tolist() == [False, True]
    assert again.run().diverged == history.diverged == [1]
    np.testing.assert_array_equal(weights_of(again.model), weights_of(whole.model))
    assert np.isfinite(weights_of(whole.model)).all()


@pytest.mark.parametrize("n_models", [None, 2])
def test_more_epochs_go_on_from_the_latest_weights(n_models):
    options = {"schedule": None, "patience": None, "monitor": "valid_loss"}
    first, whole = build(n_models, epochs=9, **options), build(n_models, epochs=12, **options)
    first.run()
    assert first.best_epoch < 9  # the model has other weights than the latest
    best = weights_of(first.model)
    again = build(n_models, epochs=12, **options)
    again.load_state(*frozen(first))
    np.testing.assert_array_equal(weights_of(first.model), best)
    first.epochs = 12
    expected = without_times(whole.run())
    for trainer in (first, again):
        assert without_times(trainer.run()) == expected
        np.testing.assert_array_equal(weights_of(trainer.model), weights_of(whole.model))


def test_a_run_that_stopped_early_stays_stopped():
    class Last(Callback):
        def on_epoch_end(self, trainer, record):
            self.state = frozen(trainer)

    last = Last()
    first = build(callbacks=[last], epochs=40, patience=2).run()
    assert first.stopped == "early_stopping" and len(first) < 40
    again = build(epochs=60, patience=2)
    again.load_state(*last.state)
    history = again.run()
    assert history.stopped == "early_stopping" and len(history) == len(first)


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ({"optimizer": SGD(lr=0.1)}, "the optimizer of the checkpoint"),
        ({"optimizer": Adam(lr=0.03)}, "the optimizer of the checkpoint"),
        ({"batch_size": 8}, "the batch_size of the checkpoint is 12, but this run has 8"),
        ({"seed": 8}, "the seed of the checkpoint is 3, but this run has 8"),
        ({"loss": "hinge"}, "the loss of the checkpoint is 'softmax_cross_entropy'"),
        ({"n_models": 2}, "the n_models of the checkpoint is None"),
        ({"dropout": 0.3}, "the architecture of the checkpoint"),
        ({"schedule": "linear"}, "the schedule of the checkpoint is {'name': 'cosine'"),
        ({"schedule": Cosine(floor=0.1)}, "but this run has {'name': 'cosine', 'warmup': 0.0, 'floor': 0.1}"),
        ({"l1": 0.1}, "the l1 of the checkpoint is 0.0, but this run has 0.1"),
        ({"l2": np.array(0.1)}, "the l2 of the checkpoint is 0.0, but this run has 0.1"),
        ({"max_norm": 2.0}, "the max_norm of the checkpoint is None, but this run has 2.0"),
        ({"clip_norm": 2.0}, "the clip_norm of the checkpoint is None"),
        ({"clip_value": 2.0}, "the clip_value of the checkpoint is None"),
        ({"label_smoothing": 0.1}, "the label_smoothing of the checkpoint is 0.0"),
        ({"infogain": np.eye(2)}, "the infogain of the checkpoint is None"),
        ({"shuffle": False}, "the shuffle of the checkpoint is True, but this run has False"),
        ({"validation": None, "monitor": "train_loss"}, "the validation data of the checkpoint"),
        ({"validation": (HELD_OUT[0], HELD_OUT[1][::-1])}, "the validation data of the checkpoint"),
        ({"validation": (*HELD_OUT, np.arange(30) + 1.0)}, "the validation data of the checkpoint"),
        ({"sample_weight": np.arange(40) + 1.0}, "the sample_weight (times class_weight) of the checkpoint"),
        ({"class_weight": {0: 2.0}}, "the sample_weight (times class_weight) of the checkpoint"),
    ],
)
def test_the_state_of_another_run_is_refused(change, fragment):
    state = frozen(build())
    other = build(**change)
    before = weights_of(other.model)
    with pytest.raises(FileFormatError) as error:
        other.load_state(*state)
    assert fragment in str(error.value) and "Resume with the settings and data" in str(error.value)
    np.testing.assert_array_equal(weights_of(other.model), before)


def test_the_state_of_a_run_with_every_setting_is_accepted():
    settings = {
        "n_models": 2, "schedule": Cosine(warmup=0.1), "l1": np.array([0.0, 1e-3]), "l2": np.float32(0.5),
        "max_norm": 2, "clip_norm": np.float64(3.0), "label_smoothing": 0.1, "infogain": [[1, 0], [0, 1]],
        "shuffle": False, "validation": (*HELD_OUT, np.ones(30)), "sample_weight": np.arange(40) + 1.0,
        "class_weight": "balanced",
    }  # fmt: skip
    state = frozen(build(**settings))
    build(**settings).load_state(*state)
    build(**settings, epochs=70).load_state(*state)


def test_a_schedule_of_the_users_own_is_part_of_the_state():
    class Halved(Schedule):
        def after(self, step, total, per_epoch):
            return 0.5

    state = frozen(build(schedule=Halved()))
    build(schedule=Halved()).load_state(*state)
    with pytest.raises(FileFormatError, match=r"the schedule of the checkpoint is \{'name': 'Halved'"):
        build().load_state(*state)


@pytest.mark.parametrize(("x", "y"), [(0, 1), (1, 1), (2, 2)])
def test_data_that_agree_in_part_are_told_apart(x, y):
    """Also where features and targets hold the same bytes."""
    random = np.random.default_rng(5)
    arrays = [random.normal(size=(40, 6)) for _ in range(3)]
    one = Trainer(MLP([6, 6], seed=1), (arrays[0], arrays[0])).fingerprint
    other = Trainer(MLP([6, 6], seed=1), (arrays[x], arrays[y])).fingerprint
    assert one != other and one["shape"] == other["shape"]


def test_the_state_for_other_data_or_of_something_else_is_refused():
    tensors, metadata = frozen(build())
    other = Trainer(MLP([6, 10, 2], dropout=0.2, seed=3), HELD_OUT, optimizer=Adam(lr=0.02), batch_size=12)
    with pytest.raises(FileFormatError, match="the data of the checkpoint"):
        other.load_state(tensors, metadata)
    for key in ("architecture", "reference", "n_updates", "l2", "schedule", "validation"):
        part = {k: v for k, v in metadata.items() if k != key}
        with pytest.raises(FileFormatError, match=f"has no '{key}'.*an older xpnet wrote it. Start the run"):
            build().load_state(tensors, part)


# --- signals --------------------------------------------------------------------------------------
def interrupt(signum=signal.SIGINT):
    return lambda trainer: os.kill(os.getpid(), signum)


@pytest.fixture
def handlers():
    """The handlers are the same after the test as before."""
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [2, 4])
def test_a_signal_waits_for_the_end_of_the_step(handlers, signum, at):
    seen = []
    last = At(at, lambda trainer: seen.append(weights_of(trainer.model)))
    trainer = build(callbacks=[At(at, interrupt(signum)), last])
    with pytest.raises(Interrupted, match=signum.name) as stopped:
        trainer.run()
    assert isinstance(stopped.value, KeyboardInterrupt) and stopped.value.signum == signum
    assert trainer.step.n_updates == at and len(seen) == 1
    np.testing.assert_array_equal(weights_of(trainer.model), seen[0])
    assert trainer.model.predict(NOISY[0]).shape == (40,)
    # the same trainer goes on as if nothing had happened
    trainer.callbacks.clear()
    whole = build()
    assert without_times(trainer.run()) == without_times(whole.run())
    np.testing.assert_array_equal(weights_of(trainer.model), weights_of(whole.model))


@pytest.mark.parametrize("moment", ["on_train_start", "on_epoch_end", "on_train_end"])
def test_a_signal_outside_a_step_is_not_lost(handlers, moment):
    def action(self, trainer, record=None):
        if record is None or record["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    callback = type("Signals", (Callback,), {moment: action})()
    trainer = build(callbacks=[callback], epochs=2)
    with pytest.raises(Interrupted):
        trainer.run()
    assert trainer.epoch == (0 if moment == "on_train_start" else 2)


def test_a_second_signal_interrupts_at_once(handlers):
    class Twice(Callback):
        after = False

        def on_step_end(self, trainer):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            self.after = True

    twice = Twice()
    with pytest.raises(Interrupted):
        build(callbacks=[twice]).run()
    assert not twice.after


def test_training_in_a_thread_leaves_the_handlers_alone(handlers):
    before, found, errors = signal.getsignal(signal.SIGINT), [], []
    model = MLP([4, 3])
    look = At(1, lambda trainer: found.append(signal.getsignal(signal.SIGINT)))

    def work():
        try:
            fit(model, blobs(), epochs=2, callbacks=[look])
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == [] and found == [before] and model.predict(blobs()[0]).shape == (60,)


def test_handlers_come_back_after_an_error(handlers):
    class Fails(Callback):
        def on_train_start(self, trainer):
            raise RuntimeError("a user's mistake")

    with pytest.raises(RuntimeError, match="a user's mistake"):
        build(callbacks=[Fails()]).run()


# --- threads --------------------------------------------------------------------------------------
def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.fixture
def two_threads():
    """Two threads before training, however many the machine has."""
    with threadpool_limits(2, user_api="blas"):
        if set(blas_threads()) != {2}:
            pytest.skip("threadpoolctl cannot set the threads of this matrix library")
        yield
        assert set(blas_threads()) == {2}, "the limit outlived training"


@pytest.mark.parametrize(
    ("options", "small", "expected"),
    [
        ({}, 721, 1),  # the largest product of a step is 12 x 6 x 10
        ({}, 720, 2),
        ({"batch_size": 1000}, 2401, 1),  # there are but 40 examples
        ({"batch_size": 1000}, 2400, 2),
        ({"threads": 3}, 721, 3),
        ({"threads": 1}, 0, 1),
        ({"n_models": 5}, 721, 1),
    ],
)
def test_threads_are_limited_while_training_runs(two_threads, monkeypatch, options, small, expected):
    monkeypatch.setattr("xpnet.backend.cpu.SMALL_PRODUCT", small)
    seen = []

    class Look(Callback):
        def look(self, trainer, record=None):
            seen.extend(blas_threads())

        on_train_start = on_step_end = on_epoch_end = on_train_end = look

    build(callbacks=[Look()], epochs=2, **options).run()
    assert set(seen) == {expected}


def test_threads_come_back_after_an_error(two_threads):
    class Fails(Callback):
        def on_step_end(self, trainer):
            assert set(blas_threads()) == {1}
            raise RuntimeError("a user's mistake")

    with pytest.raises(RuntimeError, match="a user's mistake"):
        build(callbacks=[Fails()]).run()


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, "2"])
def test_threads_must_be_a_count(threads):
    with pytest.raises(ConfigError, match="threads must be a whole number >= 1"):
        build(threads=threads)


# --- other back ends ------------------------------------------------------------------------------
@pytest.mark.parametrize("n_models", [None, 2])
def test_the_strict_array_api_trains_the_same(n_models):
    strict = pytest.importorskip("array_api_strict")
    models = []
    for device in ("cpu", strict):
        model = MLP([6, 8, 2], n_models=n_models, dropout=0.2, dtype="float64", device=device, seed=1)
        history = fit(
            model,
            NOISY,
            validation=HELD_OUT,
            epochs=3,
            batch_size=16,
            statistics=True,
            l2=1e-3,
            clip_norm=1.0,
        )
        models.append((model, history))
    (a, one), (b, two) = models
    same_weights(a, b, 1e-12)
    np.testing.assert_allclose(one.column("valid_loss"), two.column("valid_loss"), rtol=1e-12)


# --- what fit says about its arguments ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epoch": 3}, "unknown option of fit 'epoch'; did you mean 'epochs'"),
        ({"callbacks": Callback()}, r"list of Callback objects, found .*; write \[...\] around it"),
        ({"callbacks": [Callback]}, r"Callback\(\) makes one"),
        ({"callbacks": [print]}, "derive a class from xpnet.Callback"),
        ({"optimizer": Adam}, r"the optimizer is a class; make one of it: Adam\(\)"),
        ({"optimizer": Adam(), "lr": 0.1}, "adam is built already; give it lr itself"),
    ],
)
def test_arguments_that_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        fit(MLP([2, 2]), (np.ones((4, 2)), [0, 1, 0, 1]), **options)


def test_a_learning_rate_beside_the_name_of_the_optimizer():
    data = (np.eye(4), [0, 1, 0, 1])
    models = [MLP([4, 3, 2]), MLP([4, 3, 2])]
    fit(models[0], data, optimizer="sgd", lr=0.25, epochs=2)
    fit(models[1], data, optimizer=SGD(lr=0.25), epochs=2)
    np.testing.assert_array_equal(models[0].weights, models[1].weights)


def test_rows_of_ones_and_zeros_are_classes_or_labels():
    y = np.arange(30) % 3
    x = np.eye(3)[y] + 0.1 * np.random.default_rng(0).normal(size=(30, 3))
    one_hot, indices = MLP([3, 3]), MLP([3, 3])
    fit(one_hot, (x, np.eye(3, dtype=int)[y]), epochs=5)
    fit(indices, (x, y), epochs=5)
    np.testing.assert_allclose(one_hot.weights, indices.weights, rtol=1e-6)
    several = MLP([3, 2])
    fit(several, (x, np.stack([y > 0, y < 2], axis=1)), epochs=1)
    assert several.task == "multilabel" and several.predict(x).shape == (30, 2)


@pytest.mark.parametrize(
    ("y", "width", "said"),
    [
        (np.array(["a", "b"] * 3), 2, "xpnet.data.encode_labels"),
        (np.arange(6), 1, "say task='regression'"),
        (np.arange(6.0) % 3, 2, r"y.astype\(int\)"),
    ],
)
def test_targets_that_are_something_else(y, width, said):
    with pytest.raises(DataError, match=said):
        fit(MLP([2, width]), (np.ones((6, 2)), y))


def test_modules_are_found_by_name():
    done = subprocess.run(
        [sys.executable, "-c", "import xpnet; print(xpnet.plots.__name__, hasattr(xpnet, 'nothing'))"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == ["xpnet.plots", "False"], done.stderr


def test_a_model_file_that_is_missing():
    with pytest.raises(FileNotFoundError, match="no such file") as caught:
        xpnet.load("nowhere.safetensors")
    assert isinstance(caught.value, FileFormatError)


def test_frames_with_missing_values_of_their_own_kind():
    pd = pytest.importorskip("pandas", reason="pandas: its nullable types")
    frame = pd.DataFrame({"a": [1, 2, 3, 4], "b": [0.5, 0.1, 0.2, 0.9]}).convert_dtypes()
    assert str(frame.dtypes["a"]) == "Int64"
    models = [MLP([2, 2]), MLP([2, 2])]
    for model, x in zip(models, (frame, frame.to_numpy(dtype=float)), strict=True):
        fit(model, (x, pd.Series([0, 1, 0, 1], dtype="Int64")), epochs=2)
    np.testing.assert_array_equal(models[0].predict(frame), models[1].predict(frame.to_numpy(dtype=float)))
    frame.loc[2, "a"] = pd.NA
    with pytest.raises(DataError, match=r"X has 1 NaN .* at row 2, column 0"):
        fit(models[0], (frame, [0, 1, 0, 1]))
