"""Ctrl-C and SIGTERM: the state is saved, the exit code says so, the message says how to go on, and it does.

Every process here is known to be where the signal should find it: it has printed an epoch, or waits for a
pipe to be written. No test sleeps and hopes.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from xpnet import checkpoint
from xpnet.cli import main
from xpnet.runs import run as run_module
from xpnet.runs.folder import STATE, RunFolder
from xpnet.storage import atomic
from xpnet.train import Interrupted, Trainer
from xpnet.training.step import TrainingStep

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX systems")

LIMIT = 60  # seconds after which a process counts as hung
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
both = pytest.mark.parametrize("signum", CODES, ids=lambda s: s.name)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    np.savez(tmp_path / "points.npz", x=rng.normal(size=(60, 5)) + y[:, None], y=y)
    return tmp_path / "points.npz"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Start the command in a folder of its own; whatever is left of it is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
        call = [sys.executable, "-m", "xpnet", *map(str, arguments)]
        env = os.environ | {
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(checkpoint.__file__).parents[1]),
        }
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(call, text=True, cwd=tmp_path, env=env, **{**pipes, **options}))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for_epochs(process: subprocess.Popen[str], n: int) -> None:
    """Return when the process has printed `n` epochs."""
    assert process.stdout is not None
    seen = 0
    while seen < n:
        assert select.select([process.stdout], [], [], LIMIT)[0], "no output"
        line = process.stdout.readline()
        assert line, process.communicate()
        seen += line[:5].strip().isdigit()


ENDLESS = [
    "--schedule", "constant", "--epochs", 1_000_000, "--batch-size", 8, "--hidden", 6, "--dropout", 0.2,
    "--save-every", 2,
]  # fmt: skip


# --- during training ----------------------------------------------------------------------------
@both
def test_a_signal_stops_after_saving(signum: signal.Signals, data: Path, start: Any, tmp_path: Path) -> None:
    process = start("train", "--data", data, *ENDLESS)  # no --out: the message must name the folder
    wait_for_epochs(process, 3)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == CODES[signum]
    assert errors.splitlines() == [
        f"xpnet: interrupted by {signum.name}; saved. Continue with: xpnet train --resume runs/points-1"
    ]
    out = tmp_path / "runs" / "points-1"
    assert not (out / "result.json").exists()
    # What the message says works, and ends as the run that was never stopped.
    epochs = len(RunFolder(out).metrics()) + 2
    assert start("train", "--resume", "runs/points-1", "--epochs", epochs, "--quiet").wait(LIMIT) == 0
    whole = start("train", "--data", data, *ENDLESS, "--epochs", epochs, "--out", "whole", "--quiet")
    assert whole.wait(LIMIT) == 0
    results = [json.loads((f / "result.json").read_text()) for f in (out, tmp_path / "whole")]
    for result in results:
        del result["seconds"]
    assert results[0] == results[1]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the shell's child in /proc")
def test_nothing_after_it_in_the_shell_runs(data: Path, tmp_path: Path) -> None:
    """``xpnet train && next`` stops, and the shell sees the process's own exit code."""
    options = " ".join(map(str, ENDLESS))
    script = f"{sys.executable} -m xpnet train {options} --data {data} && echo next; echo $?"
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(checkpoint.__file__).parents[1])}
    process = subprocess.Popen(
        ["sh", "-c", script], text=True, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        wait_for_epochs(process, 1)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        out, _ = process.communicate(timeout=LIMIT)
    finally:
        if process.poll() is None:
            process.kill()
    assert out.splitlines()[-1] == "143" and "next" not in out


def test_quiet_still_says_how_to_go_on(data: Path, start: Any, tmp_path: Path) -> None:
    process = start("train", "--data", data, *ENDLESS, "--out", "my run", "--quiet", "--json")
    wait_for_file(process, tmp_path / "my run" / STATE)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, out) == (130, "")
    assert errors.endswith("Continue with: xpnet train --resume 'my run'\n")


def wait_for_file(process: subprocess.Popen[str], path: Path) -> None:
    for _ in range(LIMIT * 100):
        if path.is_file():
            return
        assert process.poll() is None, process.communicate()
        select.select([], [], [], 0.01)
    raise AssertionError(f"{path} did not appear")


# --- at other times -----------------------------------------------------------------------------
@both
def test_a_signal_while_data_are_loaded(
    signum: signal.Signals, data: Path, start: Any, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "slow.csv")
    process = start("train", "--data", data, "--test", "slow.csv")
    with open(tmp_path / "slow.csv", "wb"):  # returns when the process has opened it to read
        process.send_signal(signum)
        out, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, out, errors) == (CODES[signum], "", "")
    assert not (tmp_path / "runs").exists()


@both
def test_a_signal_during_an_evaluation(
    signum: signal.Signals, data: Path, start: Any, tmp_path: Path
) -> None:
    assert start("train", "--data", data, "--epochs", 1, "--out", "run", "--quiet").wait(LIMIT) == 0
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    os.mkfifo(tmp_path / "slow.csv")
    process = start("evaluate", "run", "--data", "slow.csv")
    with open(tmp_path / "slow.csv", "wb"):
        process.send_signal(signum)
        out, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, out, errors) == (CODES[signum], "", "")
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def train_here(data: Path, out: Path, *more: str) -> Any:
    options = ["--epochs", "2", "--batch-size", "16", "--hidden", "6", "--quiet"]
    return CliRunner().invoke(main, ["train", "--data", str(data), "--out", str(out), *options, *more])


def resume_here(out: Path) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["train", "--resume", str(out), "--quiet", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    del result["seconds"]
    return result


@pytest.fixture
def expected(data: Path, tmp_path: Path) -> dict[str, Any]:
    assert train_here(data, tmp_path / "whole").exit_code == 0
    return resume_here(tmp_path / "whole")


@both
@pytest.mark.parametrize("moment", ["save_state", "make_result", "_last_weights", "write_json_atomic"])
def test_a_signal_outside_a_step(
    moment: str, signum: signal.Signals, data: Path, tmp_path: Path, expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """While a state is written, after the last epoch, before the result is written."""
    owner: Any = {"save_state": RunFolder, "write_json_atomic": atomic}.get(moment, run_module)
    do = getattr(owner, moment)

    def with_signal(*arguments: Any) -> Any:
        if moment != "write_json_atomic" or str(arguments[0]).endswith("result.json"):
            signal.raise_signal(signum)
        return do(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, moment, with_signal)
        done = train_here(data, tmp_path / "run")
    assert done.exit_code == CODES[signum]
    assert "Continue with: xpnet train --resume" in done.stderr
    assert not (tmp_path / "run" / "result.json").exists()
    assert resume_here(tmp_path / "run") == expected


@both
def test_a_signal_before_the_first_state(
    signum: signal.Signals, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", lambda self: signal.raise_signal(signum))
        done = train_here(data, tmp_path / "run")
    assert done.exit_code == CODES[signum]
    assert "before the first state was saved; start again, with --overwrite" in done.stderr
    assert train_here(data, tmp_path / "run").exit_code == 2
    assert train_here(data, tmp_path / "run", "--overwrite").exit_code == 0


# --- the second one -----------------------------------------------------------------------------
@both
def test_a_second_signal_stops_at_once_and_saves_nothing(
    signum: signal.Signals,
    data: Path,
    tmp_path: Path,
    expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The step that it cuts short must not be taken for the state of the run."""
    gradients = TrainingStep.gradients

    def stop_in_the_middle(step: Any, plan: Any) -> None:
        gradients(step, plan)
        if step.n_updates == 4:
            step.model.weights[...] = 7.0  # as if half an update were done
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signum)
            raise AssertionError("the second signal was ignored")

    with monkeypatch.context() as patch:
        # Steps are captured once and repeated, so go the long way.
        patch.setattr("xpnet.backend.Backend.capture", lambda self, work: (work(), work)[1])
        patch.setattr("xpnet.backend.cpu.CpuBackend.capture", lambda self, work: (work(), work)[1])
        patch.setattr(TrainingStep, "gradients", stop_in_the_middle)
        done = train_here(data, tmp_path / "run")
    assert done.exit_code == CODES[signum]
    assert f"interrupted by {signum.name}; what was saved last is kept. Continue with" in done.stderr
    _, state = checkpoint.load_tensors(tmp_path / "run" / STATE)
    assert state["n_updates"] == 4
    assert resume_here(tmp_path / "run") == expected


def test_handlers_are_put_back(data: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(s) for s in CODES]
    assert train_here(data, tmp_path / "run").exit_code == 0
    assert [signal.getsignal(s) for s in CODES] == before


def test_what_an_interruption_says() -> None:
    assert str(Interrupted(signal.SIGTERM)) == "interrupted by SIGTERM"
    assert isinstance(Interrupted(2), KeyboardInterrupt)


# --- a closed pipe -------------------------------------------------------------------------------
def test_output_that_nobody_reads(data: Path, start: Any, tmp_path: Path) -> None:
    """``xpnet train | head -1``: training ends, and says so and how to go on."""
    process = start("train", "--data", data, *ENDLESS)
    wait_for_epochs(process, 1)
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert "standard output was closed; what was saved last is kept. Continue with: xpnet train" in errors
