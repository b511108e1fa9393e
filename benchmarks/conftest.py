"""Options and fixtures of `pytest benchmarks/`. The ordinary test run never comes here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from . import grid, threads
from .peers import SIDES
from .problem import make_problem


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("xpnet benchmarks")
    group.addoption(
        "--threads", choices=threads.SETTINGS, default="1", help="one thread, or all (default: 1)"
    )
    group.addoption("--data-dir", help="folder that holds MNIST (default: $XPNET_DATA)")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # pyproject.toml switches measuring off for the tests; here it is the point, unless the command line says no
    if "--benchmark-disable" not in config.invocation_params.args:
        config.option.benchmark_disable = bool(getattr(config.option, "numprocesses", None))
    threads.apply(config.getoption("--threads", default="1"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:  # the peers' deprecations are none of xpnet's errors
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture
def side() -> Callable[..., Any]:
    """``side(name, row, ...)`` makes a side, or skips the benchmark by name where its library is absent."""

    def make(name: str, row: grid.Row, **options: Any) -> Any:
        reason = SIDES[name].missing()
        if reason is not None:
            pytest.skip(f"{name}: {reason}")
        return SIDES[name](make_problem(row, **options))

    return make


@pytest.fixture
def measure(benchmark: Any) -> Callable[..., None]:
    """``measure(run, n, reset)`` times ``run(n)`` in rounds of at least 5 ms, each after a ``reset()``."""

    def timed(
        run: Callable[[int], None], *, multiple: int = 1, reset: Callable[[], None] = lambda: None
    ) -> None:
        from .interleave import Entrant, _calibrate

        if benchmark.disabled:
            benchmark.pedantic(run, args=(multiple,))
            return
        entrant = Entrant("", run, reset, multiple)
        _calibrate(entrant, 5e-3)
        benchmark.extra_info["per_sample"] = entrant.count

        def setup() -> tuple[tuple[int], dict[str, Any]]:
            reset()
            run(multiple)
            return (entrant.count,), {}

        benchmark.pedantic(run, setup=setup, rounds=20, iterations=1)
        samples = benchmark.stats.stats
        samples.data = [t / entrant.count for t in samples.data]  # the tables are to show one piece of work

    return timed
