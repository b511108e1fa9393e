"""Validation: the best weights, patience, rates that follow the loss."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training import HELD_OUT, NOISY, Keep, blobs, overfit, weights_of
from xpnet import MLP, SGD, Adam
from xpnet.schedules import get_schedule
from xpnet.train import Trainer, fit


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
