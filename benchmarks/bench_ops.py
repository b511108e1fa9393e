"""Single operations, each beside its reference twin."""

from __future__ import annotations

import pytest

from .ops import OPS, backends, make


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("backend", ["xpnet", "xpnet.numba", "reference", "cupy"])
def bench_op(op, backend, benchmark, measure):
    be, reason = backends()[backend]
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")
    benchmark.group = op
    measure(make(op, be))
