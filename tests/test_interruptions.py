"""Signals while training runs, and the threads that it runs with."""

from __future__ import annotations

import os
import pickle
import signal
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tests.training import NOISY, At, blobs, build, weights_of, without_times
from xpnet import MLP, Callback, ConfigError
from xpnet.train import Interrupted, fit


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


@pytest.mark.parametrize("finished", [False, True])
def test_an_interruption_passes_from_process_to_process(finished):
    error = Interrupted(signal.SIGTERM, finished=finished)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.signum, again.finished) == (str(error), signal.SIGTERM, finished)
