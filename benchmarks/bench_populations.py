"""Many small networks trained at once."""

from __future__ import annotations

import pytest

from .population_sides import MEMBERS, NETS, SIDES, Problem


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("net", NETS, ids=lambda n: n.name)
@pytest.mark.parametrize("name", SIDES)
def bench_population(name, net, members, benchmark):
    benchmark.group = f"{members} x {net.name}"
    reason = SIDES[name].missing()
    if reason is not None:
        pytest.skip(f"{name}: {reason}")
    side = SIDES[name](Problem(net, members))
    benchmark.extra_info["members_trained"] = side.trained
    benchmark.pedantic(side.train, rounds=3, warmup_rounds=1)
