"""Saving a training and continuing it, bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.training import HELD_OUT, At, build, frozen, weights_of, without_times
from xpnet import MLP, SGD, Adam, Callback, FileFormatError
from xpnet.schedules import Cosine, Schedule
from xpnet.train import Trainer


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


def test_a_state_stays_as_it_was_while_training_goes_on():
    saved = []
    keep = At(6, lambda trainer: saved.append((trainer.state(), frozen(trainer))))
    build(2, [keep], None, dropout=0.0, loss="mse", optimizer=Adam(lr=[0.02, 1e38]), validation=None).run()
    ((tensors, metadata), (copies, expected)) = saved[0]
    assert expected["diverged"] == [False, True] and json.dumps(metadata) == json.dumps(expected)
    for name, values in copies.items():
        np.testing.assert_array_equal(tensors[name], values, err_msg=name)


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
        np.testing.assert_array_equal(trainer.latest_weights(), whole.latest_weights())


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
