"""The training loop: what it learns, records and refuses, its batches and the weights of its examples."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import xpnet
from tests.training import HELD_OUT, NOISY, At, blobs, line, same_weights, weights_of
from xpnet import MLP, SGD, Adam, Callback, ConfigError, DataError, FileFormatError, History
from xpnet.losses import get_loss
from xpnet.train import Trainer, evaluate, fit
from xpnet.training import passes
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


def log_softmax(h):
    h = h - h.max(axis=-1, keepdims=True)
    return h - np.log(np.exp(h).sum(axis=-1, keepdims=True))


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


def test_fit_hands_every_option_to_the_trainer(monkeypatch):
    options = {name: object() for name in inspect.signature(fit).parameters if name not in ("model", "data")}
    taken = {}

    def trainer(model, data, **given):
        taken.update(given)
        return SimpleNamespace(run=lambda: History())

    assert inspect.signature(fit).parameters == {
        name: p for name, p in inspect.signature(Trainer).parameters.items() if name != "self"
    }
    monkeypatch.setattr("xpnet.train.Trainer", trainer)
    fit(MLP([4, 3]), blobs(), **options)
    assert taken == options


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
    assert all(r["samples_per_second"] == pytest.approx(50 / r["seconds"]) for r in history)
    assert all(type(r[k]) is float for r in history for k in ("train_loss", "valid_loss", "valid_accuracy"))
    json.dumps(list(history))
    best = history[history.best_epoch - 1]
    found = evaluate(model, held_out)
    assert found == {"loss": best["valid_loss"], "accuracy": best["valid_accuracy"]}


@pytest.mark.parametrize("n_models", [None, 2])
def test_targets_of_many_classes_are_those_of_the_table(be, n_models, monkeypatch):
    x, y = blobs(50)

    def losses():
        model = MLP([4, 300], n_models=n_models, device=be)
        history = fit(model, (x, 100 * y + 99), epochs=2, batch_size=16, lr=0.1, label_smoothing=0.1)
        return history.column("train_loss")

    computed = losses()
    monkeypatch.setattr(passes, "_TABLE_WIDTH", 300)
    assert losses() == computed


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


def test_weights_of_none_are_no_weights():
    def records(*weights):
        model = MLP([4, 5, 3], seed=1, device="cpu")
        history = fit(model, blobs(), validation=(*blobs(seed=1), *weights), epochs=2, verbose=False)
        return [record["valid_loss"] for record in history]

    assert records(None) == records()


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
    for spec in ([1.0, 5.0, 0.5], lambda y: np.array([1.0, 5.0, 0.5])[y]):
        same_weights(by_class, full_batch((x, y), class_weight=spec)[0], 1e-12)


def test_balanced_weights_count_an_example_as_much_as_its_weight():
    x, y = blobs(31)
    w = np.arange(31) % 3
    balanced, _ = full_batch((x, y), class_weight="balanced", sample_weight=w)
    again = np.repeat(np.arange(31), w)
    same_weights(balanced, full_batch((x[again], y[again]), class_weight="balanced")[0], 1e-12)


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_sample_weight

    x, y = blobs(31)
    y = np.where(np.arange(31) < 20, 0, y)
    y[y == 2] = 1  # class 2 is absent
    balanced, _ = full_batch((x, y), class_weight="balanced")
    expected, _ = full_batch((x, y), sample_weight=compute_sample_weight("balanced", y))
    same_weights(balanced, expected, 1e-12)


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


# --- what fit says about its arguments ------------------------------------------------------------
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
