"""Time of a piece of work on a device: blocks long enough that starting and waiting do not count."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def blocks(
    run: Callable[[int], None],
    *,
    seconds: float = 0.05,
    least: int = 5,
    budget: float = 2.0,
    multiple: int = 1,
) -> dict[str, Any]:
    """Time `run(n)`, which does the work n times and waits for the device once, at its end.

    Returns
    -------
    dict
        "us", the median over blocks of one piece of work in microseconds; "us_min"; "blocks"; "count", how many
        pieces a block has, a multiple of `multiple`.
    """
    count = multiple
    while True:
        taken = _timed(run, count)
        if taken >= seconds / 2:
            break
        growth = min(8.0, max(2.0, seconds / max(taken, 1e-7)))
        count = max(count + multiple, round(count * growth / multiple) * multiple)
    samples: list[float] = []
    started = time.perf_counter()
    while len(samples) < least or (time.perf_counter() - started < budget and len(samples) < 20):
        samples.append(1e6 * _timed(run, count) / count)
        if time.perf_counter() - started > 4 * budget:  # a slow piece of work: what there is must do
            break
    return {"us": statistics.median(samples), "us_min": min(samples), "blocks": len(samples), "count": count}


def captured(repeat: Callable[[], None] | None) -> bool:
    """Whether a device repeats work as a graph: what does it then keeps the record that the graph was made of.

    Where capture fails a back end returns something that asks for every operation anew, and only warns.
    """
    return hasattr(repeat, "record")


def _timed(run: Callable[[int], None], n: int) -> float:
    started = time.perf_counter()
    run(n)
    return time.perf_counter() - started


class Device:
    """A stream of CuPy with graphs and events: what the measurements of single kernels need."""

    def __init__(self) -> None:
        import cupy

        self.cupy = cupy
        self.stream = cupy.cuda.Stream(non_blocking=True)

    def graph(self, work: Callable[[], None]) -> Any:
        """Record `work` after running it once."""
        with self.stream:
            work()
            self.stream.synchronize()
            self.stream.begin_capture()
            try:
                work()
            finally:
                graph = self.stream.end_capture()
        graph.upload(self.stream)
        self.stream.synchronize()
        return graph

    def milliseconds(self, work: Callable[[], None], *, least: int = 5) -> float:
        """Median time of `work` by events on the stream, after one run that does not count."""
        start, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        times = []
        with self.stream:
            for k in range(least + 1):
                start.record(self.stream)
                work()
                end.record(self.stream)
                end.synchronize()
                if k:
                    times.append(self.cupy.cuda.get_elapsed_time(start, end))
        return statistics.median(times)
