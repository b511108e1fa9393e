"""Classes of one sample (latency) and of 10,000 (throughput)."""

from __future__ import annotations

import numpy as np
import pytest

from .grid import PREDICT_ROWS, PREDICT_SIZES
from .peers import SIDES, Xpnet


@pytest.mark.parametrize("row", PREDICT_ROWS, ids=lambda r: r.net)
@pytest.mark.parametrize("n", PREDICT_SIZES)
@pytest.mark.parametrize("name", [n for n in SIDES if n not in ("floor", "reference", "jax.scan")])
def bench_predict(name, n, row, side, benchmark, measure):
    one = side(name, row)
    x = np.resize(one.problem.x, (n, row.sizes[0]))
    expected = Xpnet(one.problem).predict(x)
    assert np.mean(one.predict(x) == expected) > 0.999  # ties of the last bit aside
    benchmark.group = f"predict {n:,}, {row.net}"

    def predict(times: int) -> None:
        for _ in range(times):
            one.predict(x)

    measure(predict)
