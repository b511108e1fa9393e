"""A run that was stopped, however and wherever, ends as the run that was not: same weights, same metrics.

Most runs here are stopped inside this process; the last tests kill real ones at random moments
(``XPNET_KILLS=200`` for more of them).
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from xpnet import checkpoint
from xpnet.cli import main
from xpnet.runs import continuing
from xpnet.runs import environment as environment_module
from xpnet.runs import run as run_module
from xpnet.runs.config import TrainConfig
from xpnet.runs.folder import CONFIG, ENVIRONMENT, METRICS, MODEL, RESULT, STATE, RunFolder
from xpnet.runs.run import train
from xpnet.storage import atomic
from xpnet.train import Interrupted

KILLS = int(os.environ.get("XPNET_KILLS", "4"))
EPOCHS, STEPS = 4, 4  # 60 examples, 6 of them for validation, in batches of 16

OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")
SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {"schedule": "cosine", "warmup": 0.2},
    "plateau": {"schedule": "plateau:patience=1,factor=0.5"},
    "one_cycle": {"schedule": "one_cycle"},
    "step": {"schedule": "step:every=2,factor=0.5"},
}
NOISE: dict[str, Any] = {"dropout": [0.3], "input_dropout": 0.1, "input_noise": 0.1}


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """That files survive a power cut is the matter of test_atomic.py."""
    monkeypatch.setattr(atomic._Fs, "fsync", lambda self, fd: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "points.npz"
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.normal(size=(60, 5)) + y[:, None]
    np.savez(path, x=x, y=y, x_test=x[:9], y_test=y[:9])
    return path


def settings(data: Path, **options: Any) -> TrainConfig:
    given: dict[str, Any] = {
        "data": str(data), "hidden": [6], "batch_size": 16, "epochs": EPOCHS, "lr": 0.05, "schedule": "constant",
        "label_smoothing": 0.0, "input_noise": 0.0, "valid_fraction": 0.1,
    }  # fmt: skip
    return TrainConfig(**{**given, **options})


class Crash(BaseException):
    """Nothing catches it, as nothing catches a power cut."""


def start(config: TrainConfig, folder: Path, **options: Any) -> dict[str, Any]:
    return train(config, folder, quiet=True, **options)


def go_on(folder: Path, **changes: Any) -> dict[str, Any]:
    config = RunFolder(folder).config()
    for name, value in changes.items():
        setattr(config, name, value)
    return start(config, folder, resume=True)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException | None = None) -> None:
    """Let every training stop after update number `step`: as after a signal, or with `error`."""

    class Writer(run_module._Writer):
        def on_step_end(self, trainer: Any) -> None:
            super().on_step_end(trainer)
            if trainer.step.n_updates == step:
                raise error or Interrupted(signal.SIGINT)

    monkeypatch.setattr(run_module, "_Writer", Writer)


def stopped(monkeypatch: pytest.MonkeyPatch, step: int, run: Any) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stop_at(patch, step)
        run()


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The epochs, without what a clock says."""
    clock = ("seconds", "samples_per_second")
    return [{k: v for k, v in r.items() if k not in clock} for r in RunFolder(folder).metrics()]


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    names = set(a) - {"seconds", "run"}
    assert {k: a[k] for k in names} == {k: b[k] for k in names}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def command(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


# --- equality -----------------------------------------------------------------------------------
@pytest.mark.parametrize("patience", [None, 1], ids=["all-epochs", "early-stopping"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("noise", [False, True], ids=["plain", "noise"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_chain_of_stops_changes_nothing(
    optimizer: str, noise: bool, schedule: str, patience: int | None, data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    options = SCHEDULES[schedule] | (NOISE if noise else {})
    config = settings(
        data, optimizer=optimizer, patience=patience, min_delta=0.3 if patience else 0.0, **options
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = start(config, whole)
    last = expected["steps"]
    # within the first epoch, at its end, within a later one
    stops = sorted({s for s in (2, STEPS, 2 * STEPS - 1, last - 1) if s < last})
    stopped(monkeypatch, stops[0], lambda: start(config, parts))
    for step in stops[1:]:
        stopped(monkeypatch, step, lambda: go_on(parts))
    same(go_on(parts), expected)
    assert metrics(parts) == metrics(whole)
    if patience:
        assert expected["stopped"] == "early_stopping" and expected["epochs"] < EPOCHS


@pytest.mark.parametrize("step", range(1, EPOCHS * STEPS + 1))
def test_a_stop_at_any_step(step: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(
        data, optimizer="adamw", schedule="plateau:patience=1", class_weight="balanced", l2=1e-3,
        label_smoothing=0.1, clip_norm=1.0, max_norm=2.0, statistics=True, **NOISE,
    )  # fmt: skip
    expected = start(config, tmp_path / "whole")
    stopped(monkeypatch, step, lambda: start(config, tmp_path / "parts"))
    same(go_on(tmp_path / "parts"), expected)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_finished_run_is_extended(optimizer: str, data: Path, tmp_path: Path) -> None:
    """With a schedule that does not look at the number of epochs."""
    expected = start(settings(data, optimizer=optimizer, **NOISE), tmp_path / "whole")
    start(settings(data, optimizer=optimizer, epochs=2, **NOISE), tmp_path / "parts")
    same(go_on(tmp_path / "parts", epochs=EPOCHS), expected)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert RunFolder(tmp_path / "parts").config() == RunFolder(tmp_path / "whole").config()


def test_a_run_without_validation_and_one_with_sets_of_its_own(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, options in (
        ("none", {"valid_fraction": 0.0}),
        ("own", {"valid": str(data), "test": str(data)}),
    ):
        config = settings(data, **options)
        expected = start(config, tmp_path / name)
        stopped(monkeypatch, 5, lambda config=config, name=name: start(config, tmp_path / f"{name}-parts"))
        same(go_on(tmp_path / f"{name}-parts"), expected)


def test_a_regression_in_float64(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(data, task="regression", dtype="float64", loss="huber", activation="tanh")
    expected = start(config, tmp_path / "whole")
    stopped(monkeypatch, 6, lambda: start(config, tmp_path / "parts"))
    same(go_on(tmp_path / "parts"), expected)


def test_save_every_keeps_states_within_an_epoch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(data, save_every=3, **NOISE)
    expected = start(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Crash):
        stop_at(patch, 7, Crash())
        start(config, tmp_path / "parts")
    _, state = checkpoint.load_tensors(tmp_path / "parts" / STATE)
    assert (state["n_updates"], state["epoch"], state["batch"]) == (6, 1, 2)
    same(go_on(tmp_path / "parts"), expected)


def test_metrics_beyond_the_state_are_dropped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(data)
    expected = start(config, tmp_path / "whole")
    stopped(monkeypatch, 9, lambda: start(config, tmp_path / "parts"))
    with open(tmp_path / "parts" / METRICS, "a") as file:
        file.write('{"epoch": 3, "train_loss": 99.0}\n{"epoch": 4, "tr')
    assert [r["epoch"] for r in RunFolder(tmp_path / "parts").metrics()] == [1, 2, 3]  # the torn line is not
    same(go_on(tmp_path / "parts"), expected)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")


# --- what a finished run answers -----------------------------------------------------------------
def test_a_finished_run_has_nothing_to_do(data: Path, tmp_path: Path) -> None:
    start(settings(data), tmp_path / "run")
    before = tree(tmp_path)
    done = command("train", "--resume", tmp_path / "run")
    assert done.exit_code == 0
    assert "note: all 4 epochs are done; to train on, name a larger number with --epochs" in done.stderr
    assert tree(tmp_path) == before


def test_a_run_that_stopped_early_stays_stopped(data: Path, tmp_path: Path) -> None:
    config = settings(data, patience=1, min_delta=0.9)
    expected = start(config, tmp_path / "run")
    assert expected["stopped"] == "early_stopping"
    (tmp_path / "run" / RESULT).unlink()  # killed after its last epoch
    same(go_on(tmp_path / "run"), expected)
    same(go_on(tmp_path / "run", epochs=9), expected)


# --- refusals -----------------------------------------------------------------------------------
@pytest.fixture
def half(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was stopped in its second epoch, on data of its own."""
    own = Path(shutil.copy(data, tmp_path / "own.npz"))
    stopped(monkeypatch, 6, lambda: start(settings(own, valid=str(own)), tmp_path / "run"))
    return tmp_path / "run"


def refused(folder: Path, *options: str) -> str:
    """Resume by the command; return its one line of error after a check that nothing was touched."""
    before = tree(folder)
    done = command("train", "--resume", folder, *options)
    assert tree(folder) == before
    assert done.exit_code in (1, 2) and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("xpnet: error: ")
    return line


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lr", "0.5"), ("l2", "0.1"), ("hidden", "[7]"), ("dropout", "[0.5]"), ("batch_size", "8"),
        ("seed", "1"), ("schedule", '"cosine"'), ("patience", "2"), ("monitor", '"train_loss"'),
        ("optimizer", '"sgd"'), ("clip_norm", "1.0"), ("label_smoothing", "0.1"), ("dtype", '"float64"'),
        ("class_weight", '"balanced"'), ("min_delta", "0.5"), ("loss", '"hinge"'),
    ],
)  # fmt: skip
def test_settings_changed_by_hand(key: str, value: str, half: Path) -> None:
    path = half / CONFIG
    lines = [line for line in path.read_text().splitlines() if not line.startswith(f"{key} =")]
    path.write_text("\n".join([*lines, f"{key} = {value}"]))
    assert "cannot continue" in refused(half) and key in refused(half)


def test_other_data(half: Path) -> None:
    arrays = dict(np.load(half.parent / "own.npz"))
    for part in ("x", "y"):
        changed = arrays | {part: arrays[part][::-1].copy()}
        np.savez(half.parent / "own.npz", **changed)
        assert "cannot continue" in refused(half)


def test_other_validation_data(half: Path, data: Path) -> None:
    own = Path(shutil.copy(data, half.parent / "valid.npz"))
    arrays = dict(np.load(own))
    np.savez(own, **arrays | {"x": arrays["x"] + 1})
    text = (half / CONFIG).read_text()
    (half / CONFIG).write_text(text.replace('own.npz"\nvalid_', 'valid.npz"\nvalid_'))
    assert RunFolder(half).config().valid == str(own)
    assert "the validation data" in refused(half)


def test_data_that_moved_are_still_the_same(half: Path, tmp_path: Path) -> None:
    (tmp_path / "own.npz").rename(tmp_path / "moved.npz")
    assert "no such file" in refused(half)
    text = (half / CONFIG).read_text()
    (half / CONFIG).write_text(text.replace("own.npz", "moved.npz"))
    assert go_on(half)["epochs"] == EPOCHS


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "a model", "text", "lacking"])
def test_a_damaged_state(damage: str, half: Path) -> None:
    path = half / STATE
    good = path.read_bytes()
    tensors, metadata = checkpoint.load_tensors(path)
    bad = {
        "flipped": good[:-9] + bytes([good[-9] ^ 1]) + good[-8:],
        "cut": good[: len(good) // 2],
        "empty": b"",
        "a model": (half / MODEL).read_bytes(),
        "text": b"hello",
    }
    if damage == "lacking":
        del tensors["best.layers.0.weight"]
        checkpoint.save_tensors(path, tensors, metadata)
    else:
        path.write_bytes(bad[damage])
    assert "state" in refused(half)


def test_no_state_yet(half: Path) -> None:
    (half / STATE).unlink()
    message = refused(half)
    assert "stopped before its first state was saved" in message
    assert f"xpnet train --config {half}/config.toml --out {half} --overwrite" in message


def test_the_advice_for_a_run_without_a_state_works(half: Path) -> None:
    (half / STATE).unlink()
    (half / MODEL).unlink()
    done = command("train", "--config", half / "config.toml", "--out", half, "--overwrite", "--quiet")
    assert done.exit_code == 0, done.output
    assert len(metrics(half)) == EPOCHS


@pytest.mark.parametrize(
    "options", [["--lr", "1"], ["--hidden", "9"], ["--config", "x.toml"], ["--overwrite"]]
)
def test_flags_that_would_change_the_run(options: list[str], half: Path) -> None:
    assert f"{options[0]} cannot be combined with --resume" in refused(half, *options)


def test_fewer_epochs_than_begun(half: Path) -> None:
    assert "is in epoch 2 already, so --epochs must be at least that, found 1" in refused(
        half, "--epochs", "1"
    )
    assert command("train", "--resume", half, "--epochs", "2").exit_code == 0


def test_every_process_that_went_on_is_on_record(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:  # the second one has other kernels, and is stopped as well
        elsewhere = [{"internal_api": "openblas", "architecture": "Haswell"}]
        patch.setattr(continuing, "blas", lambda: elsewhere)
        patch.setattr(environment_module, "blas", lambda: elsewhere)
        stopped(patch, RunFolder(half).last_state()["n_updates"] + 1, lambda: go_on(half))
    done = command("train", "--resume", half)  # the third is where the first was
    assert done.exit_code == 0 and "to rounding, not bit for bit" in done.stderr
    first, second, third = RunFolder(half).environments()
    assert "after_steps" not in first and second["blas"] == elsewhere and third["blas"] == first["blas"]
    assert third["after_steps"] == second["after_steps"] + 1 and third["device"] == "numpy on cpu"
    before = (half / ENVIRONMENT).read_bytes()
    assert command("train", "--resume", half).exit_code == 0  # nothing is left to do
    assert (half / ENVIRONMENT).read_bytes() == before


def test_environment_that_is_gone_is_no_obstacle(half: Path) -> None:
    (half / ENVIRONMENT).unlink()
    done = command("train", "--resume", half)
    assert done.exit_code == 0 and "to rounding" in done.stderr


def test_leftovers_of_a_kill_are_removed(half: Path) -> None:
    left = [half / ".model.safetensors.12-ab.tmp", half / "last" / ".state.safetensors.12-ab.tmp"]
    for path in left:
        path.write_bytes(b"half")
    (half / "notes.txt").write_text("mine")
    go_on(half)
    assert not any(p.exists() for p in left) and (half / "notes.txt").exists()


# --- real processes -----------------------------------------------------------------------------
def xpnet(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
    call = [sys.executable, "-m", "xpnet", *map(str, arguments)]
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(call, text=True, env=env, **options)


def test_a_process_killed_at_random_moments(data: Path, tmp_path: Path) -> None:
    arguments = ["--data", data, "--hidden", 6, "--batch-size", 8, "--epochs", 60, "--save-every", 3]
    arguments += ["--dropout", 0.2, "--quiet", "--threads", 1]
    assert xpnet("train", *arguments, "--out", tmp_path / "whole").wait() == 0
    expected = json.loads((tmp_path / "whole" / "result.json").read_text())
    random_ = random.Random(1)
    out = tmp_path / "parts"
    again = [*arguments, "--out", out, "--overwrite"]

    def finish() -> None:
        process = xpnet("train", *(["--resume", out] if (out / STATE).is_file() else again))
        assert process.wait() == 0
        same(json.loads((out / "result.json").read_text()), expected)
        assert metrics(out) == metrics(tmp_path / "whole")
        assert not list(out.rglob("*.tmp"))

    kills = 0
    while kills < KILLS:
        resume = (out / STATE).is_file()
        process = xpnet("train", *(["--resume", out] if resume else again), stderr=subprocess.PIPE)
        # Both write this file when they are about to train; to import everything takes far longer than that.
        wait_for_change(process, out / CONFIG)
        time.sleep(random_.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL) and errors == ""
        if process.returncode == 0 or (out / "result.json").exists():  # too late
            finish()
            shutil.rmtree(out)
        else:
            kills += 1
    finish()


def wait_for_change(process: subprocess.Popen[str], path: Path) -> None:
    def stamp() -> int:
        return path.stat().st_mtime_ns if path.exists() else 0

    before, deadline = stamp(), time.monotonic() + 60
    while stamp() in (before, 0) and process.poll() is None:
        assert time.monotonic() < deadline, "the process hangs"
        time.sleep(0.001)


def test_settings_are_listed_completely() -> None:
    """Every setting either must stay the same, or may change, or names a file whose contents are checked."""
    names = list(TrainConfig.__dataclass_fields__)
    loose = {*continuing.RESUMABLE, "target"}
    assert loose < set(names)
    fixed = continuing.fixed(TrainConfig(), None)
    assert set(fixed) == set(names) - loose | {"the validation data"}
    assert not set(itertools.chain(loose, fixed)) - set(names) - {"the validation data"}
