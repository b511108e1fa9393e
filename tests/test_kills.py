"""A checkpoint writer is killed at random moments: the newest acknowledged checkpoint is always there.

25 kills by default; ``XPNET_KILLS=200 pytest tests/test_kills.py`` for more, 10000 for a night.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import xpnet

KILLS = int(os.environ.get("XPNET_KILLS", "25"))

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def run(folder: Path, *arguments: str) -> dict:
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(xpnet.__file__).parents[1]),
        "OPENBLAS_NUM_THREADS": "1",  # the harness forks, so it must have no threads
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(Path(__file__).with_name("kill_harness.py")), str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    result: dict = json.loads(done.stdout)
    print(result)
    return result


def test_an_acknowledged_checkpoint_survives_every_kill(tmp_path: Path) -> None:
    result = run(tmp_path, "--kills", str(KILLS))
    assert result["failures"] == []
    assert result["kills"] == KILLS
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_the_kills_break_a_writer_in_place(tmp_path: Path) -> None:
    """Negative control: about every second kill finds the file half written, and one is enough."""
    result = run(tmp_path, "--writer", "in-place", "--kills", "1000", "--stop-at-failure")
    assert len(result["failures"]) == 1
