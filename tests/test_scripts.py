"""scripts/train: which run it plots, whatever its arguments, from any folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

TRAIN = Path(__file__).parent.parent / "scripts" / "train"


@pytest.fixture
def called(tmp_path):
    """Call the script with an xpnet that only says what it was called with; the calls, and the exit code."""
    programs = tmp_path / "a venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "xpnet"):
        (programs / name).write_text('#!/bin/sh\nprintf "%s|" "$@"\necho\n')
        (programs / name).chmod(0o755)
    (programs.parent / ".installed-plots").touch()

    def call(*arguments):
        done = subprocess.run(
            [TRAIN, *arguments],
            cwd=tmp_path,
            env={**os.environ, "XPNET_VENV": str(programs.parent)},
            capture_output=True,
            text=True,
        )
        return [line.split("|")[:-1] for line in done.stdout.splitlines()], done.returncode, done.stderr

    return call


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [
        ((), "runs/digits"),
        (("--epochs", "1", "--out", "my runs/1"), "my runs/1"),
        (("--out=my runs/1", "--epochs", "1"), "my runs/1"),
    ],
)
def test_the_run_that_was_trained_is_plotted(called, arguments, folder):
    (train, plot), code, _ = called(*arguments)
    assert code == 0 and plot == ["plot", folder]
    assert train[0] == "train" and tuple(train[-len(arguments) :]) == (arguments or tuple(train))


def test_help_trains_and_plots_nothing(called):
    assert called("--epochs", "1", "--help")[:2] == ([["train", "--help"]], 0)


def test_an_option_without_a_value_is_left_to_the_command(called):
    (train, _), _, errors = called("--out")
    assert train[-1] == "--out" and "unbound" not in errors
