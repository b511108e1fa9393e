"""Several steps asked for at once give what one at a time gives, to the bit; and what goes wrong is found later."""

from __future__ import annotations

import numpy as np
import pytest

import xpnet
from xpnet import Callback, DivergedError, get_backend, rng
from xpnet.training import divergence

X = np.random.default_rng(1).integers(0, 256, (90, 12)).astype(np.uint8)
Y = np.random.default_rng(2).integers(0, 3, 90)


def _backend(ahead: int):
    be = get_backend("cpu")
    be.steps_ahead = ahead
    return be


SETTINGS = {
    "plain": ({}, {}),
    "schedule and dropout": ({"dropout": 0.2, "input_noise": 0.1}, {"schedule": "cosine", "optimizer": "adamw"}),
    "weights": ({}, {"sample_weight": np.linspace(0.1, 2, 90), "l2": 0.01, "optimizer": "momentum"}),
    "population": (
        {"n_models": 3, "dropout": 0.1},
        {"optimizer": xpnet.Adam(lr=[0.001, 0.01, 0.02]), "clip_norm": 1.0, "schedule": "plateau"},
    ),
}  # fmt: skip


def _fit(ahead, architecture, options, **more):
    model = xpnet.MLP([12, 7, 3], seed=3, device=_backend(ahead), **architecture)
    given = {
        "epochs": 3,
        "batch_size": 8,
        "verbose": False,
        "validation": (X[:30], Y[:30]),
        **options,
        **more,
    }
    history = xpnet.fit(model, (X, Y), **given)
    return model, [{k: v for k, v in r.items() if "second" not in k} for r in history]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("ahead", [4, 32])  # 11 whole batches an epoch and a smaller one
def test_training_is_the_same_to_the_bit(name, ahead):
    model, history = _fit(ahead, *SETTINGS[name])
    twin, expected = _fit(1, *SETTINGS[name])
    assert history == expected
    assert model.be.to_numpy(model.weights).tobytes() == twin.be.to_numpy(twin.weights).tobytes()


class Steps(Callback):
    def __init__(self, each_step):
        self.each_step, self.seen = each_step, []

    def on_step_end(self, trainer):
        self.seen.append(trainer.step.n_updates)


def test_a_callback_says_whether_it_wants_every_step():
    every, some = Steps(True), Steps(False)
    _fit(4, {}, {}, callbacks=[every, some], epochs=1)
    assert every.seen == some.seen == list(range(1, 13))
    some = Steps(False)
    _fit(4, {}, {}, callbacks=[some], epochs=1)
    assert some.seen == [4, 8, 11, 12]


def test_a_run_that_goes_on_in_the_middle_of_an_epoch_is_the_same():
    class Stop(Callback):
        each_step = False

        def on_step_end(self, trainer):
            if trainer.step.n_updates >= 16:
                trainer.stop("halfway")

    def trainer(ahead, **more):
        model = xpnet.MLP([12, 7, 3], seed=3, device=_backend(ahead), dropout=0.2)
        return xpnet.Trainer(model, (X, Y), epochs=3, batch_size=8, **more)

    first = trainer(4, callbacks=[Stop()])
    first.run()
    assert first.batch == 4 and first.epoch == 1
    second, whole = trainer(4), trainer(1)
    second.load_state(*first.state())
    second.run(), whole.run()
    np.testing.assert_array_equal(second.latest_weights(), whole.latest_weights())


def _failure(ahead, monkeypatch, batch=6, **architecture):
    """What is said of a batch that is too large, in the second epoch."""
    row = rng.permutation(90, 3, 1)[batch * 8 + 4]
    monkeypatch.setattr("xpnet.training.trainer.CHECK_EVERY", 4)
    model = xpnet.MLP(
        [12, 7, 5, 3], seed=3, device=_backend(ahead), activation="identity", dropout=0.2, **architecture
    )
    data = X.astype("f4") / 255

    class Spoil(Callback):
        each_step = False

        def on_epoch_end(self, trainer, record):
            trainer.step.examples.x[row] = 3e38

    trainer = xpnet.Trainer(
        model, (data, Y), epochs=3, batch_size=8, callbacks=[Spoil()], schedule="cosine", optimizer="adam"
    )
    with pytest.raises(DivergedError) as error:
        trainer.run()
    assert np.isfinite(model.be.to_numpy(model.weights)).all()
    return str(error.value)


@pytest.mark.parametrize("batch", [0, 2, 6])  # the last look before was in the epoch before, or in this one
@pytest.mark.parametrize("architecture", [{}, {"n_models": 2}], ids=["one", "population"])
def test_the_first_step_and_layer_that_go_wrong_are_named(monkeypatch, architecture, batch):
    said = _failure(4, monkeypatch, batch, **architecture)
    assert f"epoch 2, step {13 + batch}: layer 0 (" in said and "outputs are not finite" in said
    # the same place as where each step is looked at by itself
    expected = _failure(1, monkeypatch, batch, **architecture)
    assert said.split(";")[0] == expected.split(";")[0]


def test_where_a_step_cannot_be_done_again_the_parameters_are_named(monkeypatch):
    monkeypatch.setattr(divergence.Divergence, "_retrace", lambda self, number, redo: None)
    said = _failure(4, monkeypatch)
    assert (
        "parameters are not finite" in said and "without capture, the first layer that fails is named" in said
    )


def test_members_that_go_wrong_are_left_out():
    model = xpnet.MLP([12, 7, 3], seed=3, n_models=2, device=_backend(4), activation="identity")
    rates = xpnet.SGD(lr=[1e30, 0.01])
    history = xpnet.fit(model, (X, Y), optimizer=rates, epochs=2, batch_size=8, verbose=False)
    assert history.diverged == [0] and np.isfinite(history[-1]["train_loss"][1])


def test_without_capture_every_step_is_asked_for_by_itself():
    be = get_backend("cpu", capture=False)
    be.steps_ahead = 4
    steps = Steps(False)
    xpnet.fit(xpnet.MLP([12, 3], device=be), (X, Y), epochs=1, batch_size=8, verbose=False, callbacks=[steps])
    assert steps.seen == list(range(1, 13))


def test_a_single_step_after_several_has_its_own_rate():
    """The rates in between are written on the device, which the host does not see."""

    def trained(ahead):
        model = xpnet.MLP([12, 7, 3], seed=3, device=_backend(ahead))
        trainer = xpnet.Trainer(model, (X, Y), epochs=3, batch_size=8, optimizer="sgd")
        # every step on the way has another rate than the one at the end of an epoch, which is always the same
        trainer._multiplier = lambda n: 1.0 if n % 12 == 11 else 0.1
        trainer.run()
        return trainer.latest_weights()

    assert trained(11).tobytes() == trained(1).tobytes()


def test_as_few_calls_as_possible():
    model = xpnet.MLP([12, 7, 3], seed=3, device=_backend(32))
    step = xpnet.Trainer(model, (X, Y)).step
    # of 468 batches 15 times 31 and 3, not 14 times 32 and 20
    assert [step.at_once(n) for n in (0, 1, 2, 31, 32, 33, 64, 468)] == [1, 1, 2, 31, 32, 32, 32, 31]
    model.be.captures = False
    assert step.at_once(468) == 1
