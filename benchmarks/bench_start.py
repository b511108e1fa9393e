"""Start-up: whole processes."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from .startup import COMMANDS, NEEDS, start


@pytest.mark.parametrize("command", COMMANDS)
def bench_start(command, benchmark):
    if command in NEEDS and find_spec(NEEDS[command]) is None:
        pytest.skip(f"{command}: {NEEDS[command]} not installed")
    benchmark.group = "start-up"
    benchmark.pedantic(start, args=(command,), rounds=5, warmup_rounds=1)
