"""Logs for other programs, read back with the programs' own readers."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.base import clone

from xpnet import MLP, Callback, MLPClassifier, MLPRegressor, Trainer, fit
from xpnet.cli import main
from xpnet.errors import FileFormatError, FileWriteError, XpnetError
from xpnet.logs import CSVLog, TensorBoard

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = np.arange(60) % 3


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def scalars(folder):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    found.Reload()
    return found


def trainer(*callbacks, epochs=3, **settings):
    return Trainer(MLP([4, 6, 3]), (X, Y), validation=(X, Y), epochs=epochs, callbacks=callbacks, **settings)


class TestCSV:
    def test_every_number_of_the_history(self, tmp_path):
        log = CSVLog(tmp_path / "new" / "folder" / "log.csv")
        history = trainer(log).run()
        found = rows(log.path)
        assert len(found) == 3 and set(found[0]) == set(history[0])
        for row, record in zip(found, history, strict=True):
            assert {k: float(v) for k, v in row.items()} == record

    def test_layers_members_and_what_is_unknown(self, tmp_path):
        fit(
            MLP([4, 6, 3], n_models=2),
            (X, Y),
            epochs=2,
            statistics=True,
            callbacks=[CSVLog(tmp_path / "log.csv")],
        )
        row = rows(tmp_path / "log.csv")[0]
        assert {"train_loss/0", "train_loss/1", "layers/0/dead/0", "layers/1/gradient_norm/1"} <= set(row)
        assert row["valid_loss"] == "" and row["layers/1/dead"] == ""

    def test_a_new_run_replaces_and_one_that_goes_on_adds(self, tmp_path):
        log = CSVLog(tmp_path / "log.csv")
        for _ in range(2):
            run = trainer(log)
            run.run()
        assert [r["epoch"] for r in rows(log.path)] == ["1", "2", "3"]
        run.epochs = 5
        run.run()
        assert [r["epoch"] for r in rows(log.path)] == ["1", "2", "3", "4", "5"]

    def test_a_run_that_was_cut_off_goes_on(self, tmp_path):
        log = CSVLog(tmp_path / "log.csv")
        first = trainer(log, epochs=2)
        first.run()
        state = first.state()
        whole = log.path.read_text().splitlines()
        # an epoch that was written after the state, and a line without its end
        log.path.write_text("\n".join([*whole, whole[-1].replace("2,", "3,", 1), "4,1"]))
        second = trainer(CSVLog(log.path), epochs=3)
        second.load_state(*state)
        second.run()
        assert log.path.read_text().splitlines()[:3] == whole
        assert [r["epoch"] for r in rows(log.path)] == ["1", "2", "3"]

    def test_columns_that_come_later(self, tmp_path):
        class Late(Callback):
            def on_epoch_end(self, trainer, record):
                if record["epoch"] == 2:
                    record["extra"] = np.float32(0.5)

        trainer(Late(), CSVLog(tmp_path / "log.csv")).run()
        assert [r["extra"] for r in rows(tmp_path / "log.csv")] == ["", "0.5", ""]

    def test_trouble_is_named(self, tmp_path):
        (tmp_path / "other.csv").write_text("a,b\n1,2\n")
        run = trainer(CSVLog(tmp_path / "other.csv"), epochs=1)
        run.callbacks, kept = [], run.callbacks
        run.run()
        run.callbacks, run.epochs = kept, 2
        with pytest.raises(FileFormatError, match="no column epoch"):
            run.run()
        assert (tmp_path / "other.csv").read_text() == "a,b\n1,2\n"

        class Remove(Callback):
            def on_epoch_end(self, trainer, record):
                if record["epoch"] == 2:
                    (tmp_path / "log.csv").unlink()
                    (tmp_path / "log.csv").mkdir()

        with pytest.raises(FileWriteError, match=r"could not write .*log\.csv"):
            trainer(Remove(), CSVLog(tmp_path / "log.csv")).run()


class TestTensorBoard:
    def test_every_number_of_the_history(self, tmp_path):
        history = trainer(TensorBoard(tmp_path)).run()
        found = scalars(tmp_path)
        tags = {
            "train_loss": "loss/train", "valid_accuracy": "accuracy/valid", "lr": "learning_rate", "seconds": "seconds",
        }  # fmt: skip
        for name, tag in tags.items():
            points = found.Scalars(tag)
            assert [p.step for p in points] == [1, 2, 3]
            assert [p.value for p in points] == pytest.approx(history.column(name))
        assert not {"epoch", "step"} & set(found.Tags()["scalars"])

    def test_members_and_histograms(self, tmp_path):
        model = MLP([4, 6, 3], n_models=2)
        fit(model, (X, Y), epochs=2, callbacks=[TensorBoard(tmp_path, histograms=True)])
        found = scalars(tmp_path)
        assert {"loss/train/0", "loss/train/1"} <= set(found.Tags()["scalars"])
        last = found.Tensors("parameters/layers.0.weight")[-1]
        buckets = np.array(last.tensor_proto.tensor_content)
        assert last.step == 2 and buckets.size

    def test_a_run_that_was_cut_off_goes_on(self, tmp_path):
        first = trainer(TensorBoard(tmp_path), epochs=2)
        first.run()
        state = first.state()
        first.epochs = 4  # epochs 3 and 4 are lost in a crash
        first.run()
        second = trainer(TensorBoard(tmp_path), epochs=3)
        second.load_state(*state)
        history = second.run()
        points = scalars(tmp_path).Scalars("loss/train")
        assert [p.step for p in points] == [1, 2, 3]
        assert [p.value for p in points] == pytest.approx(history.column("train_loss"))

    def test_without_the_package(self, tmp_path, monkeypatch):
        import sys

        monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
        with pytest.raises(XpnetError, match=r"xpnet\[tensorboard\]"):
            trainer(TensorBoard(tmp_path / "t")).run()
        assert not (tmp_path / "t").exists()


def test_estimators_keep_logs(tmp_path):
    callbacks = [CSVLog(tmp_path / "log.csv"), TensorBoard(tmp_path / "t")]
    clf = MLPClassifier((4,), max_iter=3, early_stopping=True, random_state=0, callbacks=callbacks).fit(X, Y)
    assert [float(r["train_loss"]) for r in rows(tmp_path / "log.csv")] == clf.loss_curve_
    found = scalars(tmp_path / "t")
    assert [p.value for p in found.Scalars("accuracy/valid")] == pytest.approx(clf.validation_scores_)
    pickle.dumps(clone(clf).fit(X, Y))
    reg = MLPRegressor((4,), max_iter=3, random_state=0, callbacks=callbacks).fit(
        X, X[:, 0], X_val=X, y_val=X[:, 0]
    )
    assert [float(r["valid_score"]) for r in rows(tmp_path / "log.csv")] == reg.validation_scores_


def test_the_command_keeps_logs(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)

    def xp(*arguments, code=0):
        done = CliRunner().invoke(main, ["train", "--quiet", *arguments])
        assert done.exit_code == code, done.output
        return done.output

    xp("--hidden", "4", "--epochs", "1", "--log", "csv,tensorboard", "--out", "run")
    xp("--resume", "run", "--epochs", "2")
    metrics = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [float(r["train_loss"]) for r in rows("run/log.csv")] == [m["train_loss"] for m in metrics]
    assert [p.step for p in scalars("run/tensorboard").Scalars("loss/train")] == [1, 2]
    xp("--hidden", "4", "--epochs", "1", "--out", "run", "--overwrite")
    assert not Path("run/log.csv").exists() and not list(Path("run/tensorboard").glob("events*"))
    assert "did you mean 'tensorboard'" in xp("--log", "tensorbord", "--out", "other", code=2)
