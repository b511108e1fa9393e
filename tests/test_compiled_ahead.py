"""Compiled steps of small networks are done several at once: the same bits, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

import xpnet
from xpnet.backend import get_backend

pytest.importorskip("numba", reason="compiled steps need Numba")

X = np.random.default_rng(0).normal(size=(333, 6))
Y = np.arange(333) % 3

NETS = {
    "adam": ({}, {"optimizer": "adam", "schedule": "one_cycle"}),
    "sgd": ({"activation": "tanh"}, {"optimizer": "sgd", "l2": 0.01, "clip_value": 0.1}),
    "dropout": ({"dropout": 0.2}, {"optimizer": "rmsprop"}),
    "population": ({"n_models": 3}, {"optimizer": xpnet.Adam(lr=[0.01, 0.02, 0.03]), "clip_norm": 1.0}),
}  # fmt: skip


def _train(ahead, architecture, options, epochs=2, **more):
    be = get_backend("numba")
    be.steps_ahead = ahead
    model = xpnet.MLP([6, 8, 3], device=be, seed=5, **architecture)
    trainer = xpnet.Trainer(
        model, (X, Y), validation=(X[:40], Y[:40]), batch_size=16, epochs=epochs, **options, **more
    )
    return trainer, trainer.run()


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("threads", [1, 2])
def test_the_bits_of_one_step_at_a_time(net, threads):
    one, alone = _train(1, *NETS[net], threads=threads)
    several, together = _train(32, *NETS[net], threads=threads)
    assert one.step.at_once(20) == 1 and several.step.at_once(20) == 20
    np.testing.assert_array_equal(one.latest_weights(), several.latest_weights())
    for a, b in zip(alone, together, strict=True):
        assert {k: v for k, v in a.items() if "second" not in k} == {
            k: v for k, v in b.items() if "second" not in k
        }


def test_twenty_steps_are_one_call(monkeypatch):
    trainer, _ = _train(32, *NETS["adam"])
    runs = []
    team = trainer.model.be._team
    run = team.run
    monkeypatch.setattr(team, "run", lambda record: (runs.append(record), run(record)))
    trainer.epochs += 1
    trainer.run()
    # 20 steps at once, the smaller batch at the end, the evaluation
    assert len(runs) == 3


def test_where_it_does_not_pay_steps_are_done_one_by_one():
    trainer, _ = _train(32, *NETS["adam"])
    assert [trainer.step.at_once(n) for n in (3, 7, 8, 33)] == [1, 1, 8, 32]
    be = get_backend("numba")
    large = xpnet.MLP([6, be.ahead_size // 9, 3], device=be, init="zeros")
    assert xpnet.Trainer(large, (X, Y), epochs=0, batch_size=16).step.at_once(20) == 1
    be.captures = False
    small = xpnet.MLP([6, 8, 3], device=be)
    assert xpnet.Trainer(small, (X, Y), epochs=0, batch_size=16).step.at_once(20) == 1


def test_a_callback_for_every_step_gets_every_step():
    seen = []

    class Each(xpnet.Callback):
        def on_step_end(self, trainer):
            seen.append(trainer.batch)

    _train(32, *NETS["adam"], epochs=1, callbacks=[Each()])
    assert seen == list(range(1, 22))


def test_a_loss_that_is_not_finite_names_step_and_layer():
    def failing(ahead):
        be = get_backend("numba")
        be.steps_ahead = ahead
        model = xpnet.MLP([6, 8, 3], device=be, seed=5)
        with pytest.raises(xpnet.DivergedError) as raised:
            xpnet.fit(model, (X * 1e18, Y), batch_size=16, epochs=3, optimizer=xpnet.SGD(lr=1e12))
        return str(raised.value)

    assert failing(32).partition(";")[0] == failing(1).partition(";")[0]
