"""Memory of a training step: no times, but a bound that must hold, and the growth of each side's process."""

from __future__ import annotations

import pytest

from .memory import LIMIT, MEMORY_ROWS, grown, needed, traced
from .peers import SIDES


@pytest.mark.parametrize("row", MEMORY_ROWS, ids=lambda r: r.name)
def bench_memory_of_xpnet(row, benchmark):
    """What NumPy is asked for, beside parameters, gradients, moments and activations."""
    benchmark.group = f"memory, {row.name}"
    held = benchmark.pedantic(traced, args=(row,), rounds=1)
    share = held / sum(needed(row).values())
    benchmark.extra_info |= {"bytes": held, "needed": needed(row), "share": share}
    assert share <= LIMIT


@pytest.mark.parametrize("row", MEMORY_ROWS, ids=lambda r: r.name)
@pytest.mark.parametrize("name", [n for n in SIDES if n not in ("floor", "reference")])
def bench_growth_of_process(name, row, benchmark):
    reason = SIDES[name].missing()
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    benchmark.group = f"memory, {row.name}"
    benchmark.extra_info["bytes"] = benchmark.pedantic(grown, args=(name, row), rounds=1)
