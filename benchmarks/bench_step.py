"""One training step of each row of the grid. A side is timed only if its loss after 20 steps is xpnet's."""

from __future__ import annotations

from functools import cache

import pytest

from .compare import agreement
from .grid import LOSS_TOLERANCE, ROWS, Row
from .peers import SIDES, Xpnet
from .problem import make_problem


@cache
def _expected(row: Row) -> float:
    return agreement(row, [Xpnet(make_problem(row))])["xpnet"]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.name)
@pytest.mark.parametrize("name", SIDES)
def bench_step(name, row, side, benchmark, measure):
    one = side(name, row)
    if name != "floor":
        loss = agreement(row, [one])[name]
        assert loss == pytest.approx(_expected(row), rel=LOSS_TOLERANCE)
        benchmark.extra_info["loss_after_20"] = loss
    benchmark.group = row.name
    with one.context():
        measure(one.run, multiple=one.multiple, reset=one.reset)
