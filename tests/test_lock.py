"""One process at a time trains into a folder; all may read it; what a killed process leaves blocks nobody."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.command import xp
from xpnet import checkpoint
from xpnet.errors import ConfigError, XpnetError
from xpnet.runs.folder import STATE, RunFolder
from xpnet.storage import lock, workfolder
from xpnet.storage.lock import LOCK, locked
from xpnet.sweep.folder import SweepFolder

LIMIT = 60  # seconds after which a process counts as hung
SMALL = ["--data", "points.npz", "--batch-size", "8", "--hidden", "6"]


@pytest.fixture(autouse=True)
def here(elsewhere: None) -> None:
    """Work in a folder with data and nothing else, and do not wait for disks."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    np.savez("points.npz", x=rng.normal(size=(60, 5)) + y[:, None], y=y)


@pytest.fixture
def training() -> Iterator[subprocess.Popen[str]]:
    """A process that trains into the folder "run" without end, and has done an epoch."""
    call = [sys.executable, "-m", "xpnet", "train", *SMALL, "--epochs", "1000000", "--out", "run"]
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(checkpoint.__file__).parents[1])}
    process = subprocess.Popen(call, text=True, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = ""
        while not line[:5].strip().isdigit():
            assert select.select([process.stdout], [], [], LIMIT)[0], "no output"
            line = process.stdout.readline()
            assert line, process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


# --- runs ---------------------------------------------------------------------------------------
@pytest.mark.skipif(os.name == "nt", reason="waits for a pipe and kills as POSIX systems do")
def test_a_second_process_is_refused_until_the_first_has_ended(training: subprocess.Popen[str]) -> None:
    holder = f"run is in use by process {training.pid} on "
    go_on = "wait until it has ended, or stop it and continue with: xpnet train --resume run"
    error = xp("train", "--resume", "run", code=2).stderr
    assert error.startswith(f"xpnet: error: {holder}") and error.endswith(f"{go_on}\n")
    error = xp("train", *SMALL, "--out", "run", "--overwrite", code=2).stderr
    assert holder in error and error.endswith(f"{go_on}; or choose another --out\n")
    assert "use --resume run to continue it" in xp("train", *SMALL, "--out", "run", code=2).stderr

    # everybody may read
    xp("evaluate", "run", "--data", "points.npz", "--json")
    xp("predict", "run", "points.npz")
    xp("info", "run")
    xp("report", "run", "--data", "points.npz", "--out", "page.html")
    assert training.poll() is None

    training.send_signal(signal.SIGKILL)
    training.wait(LIMIT)
    assert Path("run", LOCK).is_file(), "the file stays, the lock does not"
    epochs = len(RunFolder("run").metrics()) + 1
    xp("train", "--resume", "run", "--epochs", epochs, "--quiet")
    assert json.loads(Path("run/result.json").read_text())["epochs"] == epochs
    assert not Path("run", LOCK).exists()


def test_the_file_of_a_killed_process_alone_makes_no_folder_full() -> None:
    Path("run").mkdir()
    Path("run", LOCK).write_text("process 1 on nowhere\n")
    xp("train", *SMALL, "--epochs", 1, "--out", "run", "--quiet")
    assert not Path("run", LOCK).exists()


def test_nothing_stays_after_errors() -> None:
    xp("train", *SMALL, "--epochs", 1, "--out", "run", "--quiet")
    Path("run", STATE).write_bytes(b"damaged")
    xp("train", "--resume", "run", "--epochs", 2, code=1)
    assert not Path("run", LOCK).exists()
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("x")
    assert "holds files but no run" in xp("train", *SMALL, "--out", "mine", "--overwrite", code=2).stderr
    assert [p.name for p in Path("mine").iterdir()] == ["thesis.txt"]


def test_a_run_that_came_and_went_meanwhile_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at an empty folder and its lock, another process may have finished there."""

    @contextmanager
    def after_another(folder: Path, instead: str) -> Iterator[None]:
        (folder / "last").mkdir()
        yield

    monkeypatch.setattr(workfolder, "locked", after_another)
    for folder in (RunFolder("run"), SweepFolder("s")):
        with pytest.raises(ConfigError, match="is not empty"), folder.taken(resume=False):
            pass


# --- sweeps -------------------------------------------------------------------------------------
def test_a_sweep_is_refused_while_another_is_at_work_in_its_folder() -> None:
    sweep = [*SMALL, "--epochs", 1, "--grid", "lr=0.01,0.02", "--quiet"]
    xp("sweep", *sweep, "--out", "s")
    assert not Path("s", LOCK).exists()
    with SweepFolder("s").taken(resume=True):
        error = xp("sweep", "--resume", "s", code=2).stderr
        assert f"s is in use by process {os.getpid()} on " in error and "xpnet sweep --resume s" in error
    xp("sweep", "--resume", "s", "--quiet")
    Path("new").mkdir()
    with locked(Path("new"), ""):
        assert "; or choose another --out" in xp("sweep", *sweep, "--out", "new", code=2).stderr


# --- the lock itself ----------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["", "process \x1b[31m", "bread and cheese", "\udcff"])
def test_a_holder_who_does_not_say_who_it_is(text: str) -> None:
    with locked(Path(), ""):
        Path(LOCK).write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(ConfigError, match="is in use by another process; wait"), locked(Path(), "wait"):
            pass


def test_a_file_that_its_holder_removes_at_that_moment_is_not_taken_for_the_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries, lock_it = [], lock._try

    def removed_before(fd: int) -> bool:
        tries.append(fd)
        if len(tries) == 1:
            os.unlink(LOCK)
        return lock_it(fd)

    monkeypatch.setattr(lock, "_try", removed_before)
    with locked(Path(), ""):
        assert len(tries) == 2 and str(os.getpid()) in Path(LOCK).read_text()
        with pytest.raises(ConfigError), locked(Path(), ""):
            pass


@pytest.mark.skipif(os.name == "nt", reason="locks of POSIX systems")
def test_file_systems_without_locks_are_used_without(monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(number: int) -> Any:
        def flock(fd: int, how: int) -> None:
            raise OSError(number, os.strerror(number))

        return flock

    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    with locked(Path(), ""), locked(Path(), ""):
        pass
    monkeypatch.setattr(fcntl, "flock", refuse(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), locked(Path(), ""):
        pass


def test_a_folder_that_cannot_be_written_to() -> None:
    with pytest.raises(XpnetError, match="cannot write in gone: No such file"), locked(Path("gone"), ""):
        pass
