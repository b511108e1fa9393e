"""Callbacks: when they are called, what they may do, and what the table prints."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest

from xpnet import MLP, SGD, Callback, DivergedError
from xpnet.callbacks import EpochTable, LayerStatistics
from xpnet.errors import ConfigError
from xpnet.train import Interrupted, Trainer, fit

RANDOM = np.random.default_rng(0)
DATA = (RANDOM.normal(size=(24, 4)), np.arange(24) % 3)
HELD_OUT = (RANDOM.normal(size=(12, 4)), np.arange(12) % 3)


class Log(Callback):
    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def on_train_start(self, trainer):
        self.calls.append((self.name, "start", trainer.epoch, trainer.batch))

    def on_step_end(self, trainer):
        self.calls.append((self.name, "step", trainer.epoch, trainer.batch))

    def on_epoch_end(self, trainer, record):
        assert trainer.history[-1] is record and record["epoch"] == trainer.epoch
        self.calls.append((self.name, "epoch", trainer.epoch, trainer.batch))

    def on_train_end(self, trainer):
        self.calls.append((self.name, "end", trainer.epoch, trainer.batch))


class Do(Callback):
    """Runs an action after one of the steps or epochs."""

    def __init__(self, action, *, step=None, epoch=None):
        self.action, self.step, self.epoch = action, step, epoch

    def on_step_end(self, trainer):
        if trainer.step.n_updates == self.step:
            self.action(trainer)

    def on_epoch_end(self, trainer, record):
        if record["epoch"] == self.epoch:
            self.action(trainer)


def raises(error):
    def action(trainer):
        raise error

    return action


def test_order_of_calls():
    calls = []
    fit(MLP([4, 3]), DATA, epochs=2, batch_size=16, callbacks=[Log("a", calls), Log("b", calls)])
    events = [
        ("start", 0, 0),
        ("step", 0, 1),
        ("step", 0, 2),
        ("epoch", 1, 0),
        ("step", 1, 1),
        ("step", 1, 2),
        ("epoch", 2, 0),
        ("end", 2, 0),
    ]
    assert calls == [(name, *event) for event in events for name in "ab"]


def test_no_epochs_still_start_and_end():
    calls = []
    fit(MLP([4, 3]), DATA, epochs=0, callbacks=[Log("a", calls)])
    assert [c[1] for c in calls] == ["start", "end"]


def test_a_base_callback_does_nothing():
    a, b = MLP([4, 3]), MLP([4, 3])
    fit(a, DATA, epochs=2)
    fit(b, DATA, epochs=2, callbacks=[Callback()])
    np.testing.assert_array_equal(a.weights, b.weights)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_the_end_is_called_after_an_error(error):
    calls = []
    with pytest.raises(type(error)):
        fit(MLP([4, 3]), DATA, callbacks=[Log("a", calls), Do(raises(error), step=1)])
    assert calls[-1][1] == "end"


def test_the_end_is_called_after_divergence():
    calls = []
    with pytest.raises(DivergedError):
        fit(MLP([4, 8, 3]), DATA, loss="mse", optimizer=SGD(lr=1e38), callbacks=[Log("a", calls)])
    assert calls[-1][1] == "end"


def test_every_end_is_called_though_one_fails():
    class Fails(Callback):
        def on_train_end(self, trainer):
            raise ValueError("mine")

    calls, terminal = [], Terminal()
    callbacks = [Log("a", calls), Fails(), EpochTable(terminal), Log("b", calls)]
    with pytest.raises(ValueError, match="mine"):
        fit(MLP([4, 3]), DATA, epochs=1, callbacks=callbacks)
    assert [call[:2] for call in calls[-2:]] == [("a", "end"), ("b", "end")]
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h") > 0


def test_stop_after_an_epoch():
    model = MLP([4, 3])
    history = fit(model, DATA, epochs=9, callbacks=[Do(lambda t: t.stop("good enough"), epoch=3)])
    assert len(history) == 3 and history.stopped == "good enough"


def test_stop_within_an_epoch_and_go_on():
    stop = Do(lambda t: t.stop("enough"), step=4)  # three steps per epoch
    trainer = Trainer(MLP([4, 3], seed=1), DATA, epochs=4, batch_size=8, callbacks=[stop])
    assert trainer.run().column("epoch") == [1]
    assert trainer.step.n_updates == 4 and trainer.history.stopped == "enough"
    history = trainer.run()
    whole = MLP([4, 3], seed=1)
    expected = fit(whole, DATA, epochs=4, batch_size=8)
    np.testing.assert_array_equal(trainer.model.weights, whole.weights)
    assert history.stopped == "epochs"
    assert history.column("train_loss") == expected.column("train_loss")


def test_stop_leaves_the_best_weights():
    kept = []
    stop = Do(lambda t: (kept.append(np.array(t.model.weights)), t.stop("enough")), epoch=1)
    model = MLP([4, 3])
    history = fit(model, DATA, validation=HELD_OUT, epochs=9, callbacks=[stop])
    assert history.best_epoch == 1
    np.testing.assert_array_equal(model.weights, kept[0])


def test_a_callback_may_add_to_the_record():
    class Norm(Callback):
        def on_epoch_end(self, trainer, record):
            record["norm"] = float(np.linalg.norm(trainer.model.weights))

    class Reader(Callback):
        seen = 0

        def on_epoch_end(self, trainer, record):
            self.seen += record["norm"] > 0

    reader = Reader()
    history = fit(MLP([4, 3]), DATA, epochs=3, callbacks=[Norm(), reader])
    assert all(type(v) is float for v in history.column("norm")) and reader.seen == 3


# --- the table ------------------------------------------------------------------------------------
class Terminal(io.StringIO):
    def isatty(self):
        return True


def printed(stream, *, n_models=None, data=DATA, epochs=3, fails=None, **options):
    callbacks = [EpochTable(stream)] + ([fails] if fails else [])
    history = fit(MLP([4, 3], n_models=n_models), data, epochs=epochs, callbacks=callbacks, **options)
    return stream.getvalue(), history


def cells(line):
    return re.split(r"\s{2,}", line.strip())


def test_table_on_a_plain_stream():
    text, history = printed(io.StringIO(), validation=HELD_OUT)
    lines = text.splitlines()
    assert cells(lines[0]) == [
        "epoch", "train loss", "train acc", "valid loss", "valid acc", "lr", "seconds", "samples/s",
    ]  # fmt: skip
    assert len(lines) == 4 and len({len(line.removesuffix(" *")) for line in lines}) == 1
    for line, record in zip(lines[1:], history, strict=True):
        row = cells(line.removesuffix(" *"))
        assert row[:2] == [str(record["epoch"]), f"{record['train_loss']:.4f}"]
        assert row[4] == f"{record['valid_accuracy']:.2%}" and row[5] == "1.00e-03"
    # a star wherever an epoch was the best so far
    best = [max(history[: i + 1], key=lambda r: (r["valid_accuracy"], -r["valid_loss"])) for i in range(3)]
    assert [line.endswith(" *") for line in lines[1:]] == [b is r for b, r in zip(best, history, strict=True)]


def test_table_leaves_out_what_there_is_not():
    targets = (DATA[0], DATA[0][:, :3])
    text, _ = printed(io.StringIO(), data=targets)
    assert cells(text.splitlines()[0]) == ["epoch", "train loss", "lr", "seconds", "samples/s"]


def test_table_of_a_population_shows_means():
    text, history = printed(io.StringIO(), n_models=3, optimizer=SGD(lr=[0.1, 0.2, 0.3]))
    row = cells(text.splitlines()[1].removesuffix(" *"))
    assert row[1] == f"{np.mean(history[0]['train_loss']):.4f}" and row[3] == "2.00e-01"


def test_table_on_a_terminal():
    text, history = printed(Terminal(), validation=HELD_OUT)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    rows = [line.split("\r")[-1].rstrip() for line in plain.splitlines()]
    rows = [row for row in rows if re.match(r"\s*(epoch  train|\d+  )", row)]
    assert len(rows) == 4
    for row, record in zip(rows[1:], history, strict=True):
        assert cells(row)[1] == f"{record['train_loss']:.4f}"
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # the cursor is shown again


@pytest.mark.parametrize("error", [ValueError("mine"), Interrupted(2)])
def test_a_terminal_is_left_in_order_after_an_error(error):
    stream = Terminal()
    with pytest.raises(type(error)):
        printed(stream, fails=Do(raises(error), epoch=2))
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h")


def test_nothing_reaches_standard_output_but_the_table(capsys):
    printed(Terminal())
    assert capsys.readouterr() == ("", "")
    fit(MLP([4, 3]), DATA, epochs=2, verbose=True)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3 and err == ""
    fit(MLP([4, 3]), DATA, epochs=2)
    assert capsys.readouterr() == ("", "")


def test_a_table_serves_two_runs():
    stream = io.StringIO()
    table = EpochTable(stream)
    for _ in range(2):
        fit(MLP([4, 3]), DATA, epochs=1, callbacks=[table])
    assert stream.getvalue().count("train loss") == 2


# --- statistics of layers -------------------------------------------------------------------------
@pytest.mark.parametrize("n_models", [None, 2])
@pytest.mark.parametrize("examples", [1, 8, 512])
def test_statistics_do_not_change_training(n_models, examples):
    found = []
    for callbacks in ([], [LayerStatistics(examples)]):
        model = MLP([4, 8, 3], dropout=0.3, input_noise=0.1, n_models=n_models, seed=1)
        history = fit(model, DATA, validation=HELD_OUT, epochs=4, batch_size=8, callbacks=callbacks)
        found.append((np.array(model.weights), history))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    for key in ("train_loss", "train_accuracy", "valid_loss"):
        assert found[0][1].column(key) == found[1][1].column(key)
    assert all(len(record["layers"]) == 2 for record in found[1][1])


def test_statistics_come_before_the_users_callbacks():
    class Reader(Callback):
        def on_epoch_end(self, trainer, record):
            assert record["layers"][0]["dead"] is not None

    fit(MLP([4, 8, 3]), DATA, epochs=1, statistics=True, callbacks=[Reader()])


class Score(Callback):
    """Adds a number of its own to each epoch, known in advance."""

    def __init__(self, *values, name="valid_score"):
        self.values, self.name = values, name

    def on_evaluate(self, trainer, record):
        if self.name:
            record[self.name] = self.values[trainer.epoch - 1]


@pytest.mark.parametrize(("mode", "best", "epochs"), [("max", 2, 4), ("min", 3, 4)])
def test_a_number_of_a_callback_decides(mode, best, epochs):
    history = fit(
        model := MLP([4, 3]), DATA, validation=HELD_OUT, epochs=4, callbacks=[Score(0.5, 0.9, 0.2, 0.3)],
        monitor="valid_score", mode=mode,
    )  # fmt: skip
    assert history.best_epoch == best and len(history) == epochs
    fit(other := MLP([4, 3]), DATA, validation=HELD_OUT, epochs=best, restore_best=False)
    assert np.array_equal(model.weights, other.weights)
    stopped = fit(
        MLP([4, 3]), DATA, epochs=4, callbacks=[Score(1.0, 1.0, 1.0, 1.0)], monitor="valid_score", mode=mode,
        patience=2,
    )  # fmt: skip
    assert stopped.stopped == "early_stopping" and len(stopped) == 3


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_number_that_is_not_finite_is_no_improvement(mode):
    sign = 1.0 if mode == "max" else -1.0
    values = [np.nan, 0.5 * sign, np.inf * sign, 0.9 * sign, 0.6 * sign]
    history = fit(
        MLP([4, 3]), DATA, validation=HELD_OUT, epochs=5, callbacks=[Score(*values)], monitor="valid_score",
        mode=mode, patience=2,
    )  # fmt: skip
    assert history.best_epoch == 4 and len(history) == 5


def test_a_number_for_each_member():
    scores = [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]
    history = fit(
        MLP([4, 3], n_models=2), DATA, validation=HELD_OUT, epochs=3, callbacks=[Score(*scores, name="my_accuracy")],
        monitor="my_accuracy", mode="max",
    )  # fmt: skip
    assert history.best_epochs == [3, 1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"callbacks": [Score(0.1)], "monitor": "valid_score"}, "say mode='max' or mode='min'"),
        (
            {"callbacks": [Score(0.1)], "monitor": "valid_scor", "mode": "max"},
            "is not in the record of epoch 1",
        ),
        ({"monitor": "valid_auc", "mode": "max"}, "on_evaluate of a callback may add others|did you mean"),
        ({"mode": "largest"}, "mode must be 'max' or 'min', found 'largest'"),
    ],
)
def test_numbers_that_cannot_decide(options, said):
    with pytest.raises(ConfigError, match=said):
        fit(MLP([4, 3]), DATA, epochs=1, **options)


def test_mode_may_turn_what_is_known_round():
    found = [
        fit(MLP([4, 3]), DATA, validation=HELD_OUT, epochs=5, lr=0.1, monitor="valid_loss", mode=m)
        for m in ("min", "max")
    ]
    losses = found[0].column("valid_loss")
    assert [h.best_epoch - 1 for h in found] == [int(np.argmin(losses)), int(np.argmax(losses))]
