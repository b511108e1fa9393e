"""Memory of a training step: what the arithmetic needs, what NumPy was asked for, what the process grew by.

python -m benchmarks.memory SIDE ROW        # the growth of one process, as JSON
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

from .grid import ROWS, Row

MEMORY_ROWS = tuple(
    row for row in ROWS if row.group in ("wide", "ciresan") or row.name == "784-500-10 b128 adam"
)
#: Bytes traced / needed.
LIMIT = 1.2


def needed(row: Row) -> dict[str, int]:
    """Bytes of parameters, gradients, moments and activations (the batch, and each layer's output), float32."""
    parameters = row.n_weights + sum(row.sizes[1:])
    moments = {"sgd": 1, "adam": 2}[row.optimizer]
    return {
        "parameters": 4 * parameters,
        "gradients": 4 * parameters,
        "moments": 4 * parameters * moments,
        "activations": 4 * row.batch * sum(row.sizes),
    }


def traced(row: Row) -> int:
    """Bytes that NumPy holds at most for an xpnet model, its training step and one step, the data set apart."""
    import numpy as np

    import xpnet
    from xpnet.losses import get_loss
    from xpnet.training.examples import Examples
    from xpnet.training.step import TrainingStep

    from .problem import make_problem

    problem = make_problem(row, n_batches=2)
    optimizer = xpnet.SGD(momentum=0.9) if row.optimizer == "sgd" else xpnet.Adam()
    order = np.arange(len(problem.x))
    tracemalloc.start()
    try:
        model = xpnet.MLP(row.sizes, init="zeros")
        model.task = "classification"
        tracemalloc.clear_traces()  # drawing weights on the host is not part of a step
        examples = Examples(problem.x, len(problem.x), labels=problem.y)
        step = TrainingStep(model, get_loss("softmax_cross_entropy"), examples, optimizer)
        for _ in range(3):
            step(order[: row.batch])
        return tracemalloc.get_traced_memory()[1] + model.weights.nbytes
    finally:
        tracemalloc.stop()


def grown(side: str, row: Row) -> int:
    """Bytes by which the peak of a process grows when `side` is built and trains for 20 steps.

    The data set and the library's own start count for no side: it has trained a tiny network before. Batches
    that a side keeps in arrays of its own count.
    """
    command = [sys.executable, "-m", "benchmarks.memory", side, row.name]
    return json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )


def _measure(side: str, name: str) -> int:
    from .grid import find_rows
    from .peers import SIDES
    from .problem import make_problem

    row = next(r for r in find_rows([name]) if r.name == name)
    tiny = SIDES[side](make_problem(Row("small", (8, 8, 10), row.batch, row.optimizer)))
    tiny.run(20)
    problem = make_problem(row)
    kind: Any = SIDES[side]
    before = _resident()
    _forget_peak()
    built = kind(problem)
    built.run(20)
    return _peak() - before


def _status(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def _resident() -> int:
    return _status("VmRSS") or _peak()


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    # not ru_maxrss where there is a choice: Linux hands that of the parent process down
    peak = _status("VmHWM")
    if peak is None:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], sys.argv[2])))
