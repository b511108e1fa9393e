"""Training steps of several networks, side by side with PyTorch and JAX; one side per process.

All sides start from the same weights, hold the same uint8 samples on the device, and gather, scale and train on the
same batches in the same order; their losses after `CHECK_STEPS` steps are compared in the report. A block is timed by
the clock of the host around many steps with one wait at its end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from .cases import CASES, Problem, make_problem, mean_loss
from .parts import Finding
from .sides import SIDES, Side, Xpnet
from .timing import blocks


def measure(side: str) -> Iterator[Finding]:
    """Time every case on one side; a case that a side cannot do is said so and left out."""
    for case in CASES:
        begun = time.perf_counter()
        problem = make_problem(case)
        made = time.perf_counter()
        try:
            finding = {"case": case.name, "side": side, **_one(SIDES[side](problem), problem)}
        except Exception as error:  # the next case may do
            finding = {"case": case.name, "side": side, "error": f"{type(error).__name__}: {error}"[:500]}
        yield finding | {"data_s": made - begun, "seconds": time.perf_counter() - begun}


def _one(side: Side, problem: Problem) -> Finding:
    case, begun = problem.case, time.perf_counter()
    side.run(2 * side.multiple)  # compiles and captures: the first round a step, the second all of them
    warm = time.perf_counter() - begun
    side.reset()
    side.run(case.steps)
    rows = min(len(problem.x), 1024)
    loss = mean_loss(side.outputs(problem.x[:rows]), problem.y[:rows])
    result = blocks(side.run, multiple=side.multiple, budget=1.5)
    models = case.n_models or 1
    result |= {"us_per_model": result["us"] / models, "tflops": 1e-6 * case.flops / result["us"]}
    return {"loss": loss, "warm_up_s": warm, **result, **side.more()}


def joined(device: str = "cuda") -> Iterator[Finding]:
    """xpnet's steps with operations joined or each by itself, and on so many streams: what the defaults should be."""
    for case in CASES:
        if case.precision == "float32":
            continue
        problem = make_problem(case)
        for fuses, lanes in ((True, 5), (True, 6), (True, 3), (True, 2), (True, 1), (False, 5), (False, 1)):
            side = Xpnet(problem, device)
            side.be.fuses, side.be.runtime.lanes = fuses, lanes
            side.run(2 * side.multiple)
            result = blocks(side.run, multiple=side.multiple, budget=0.5)
            yield {"case": case.name, "joined": fuses, "streams": lanes, **side.graphs(), **result}


def resident(device: str = "cuda") -> Iterator[Finding]:
    """xpnet's steps of small networks, many of them as one graph, and as one kernel that stays on the device."""
    for case in CASES:
        if case.n_models is not None or len(case.sizes) > 4:
            continue
        problem = make_problem(case)
        for stays in (False, True):
            side = Xpnet(problem, device)
            side.be.stays = stays
            found = _one(side, problem)
            why = [a["why"] for a in side.be.algorithms if "steps" in a]
            yield {"case": case.name, "one_kernel": stays and not why, **found, "why": "; ".join(why)}


def autotuned(device: str = "cuda") -> Iterator[Finding]:
    """xpnet's steps of single small networks, where the quickest of several algorithms is chosen for each product."""
    for case in CASES:
        if case.n_models is None and len(case.sizes) <= 4:
            problem = make_problem(case)
            yield {"case": case.name, **_one(Xpnet(problem, device, autotune=True), problem)}


def many(device: str = "cuda", n: int = 60_000, models: int = 256) -> Iterator[Finding]:
    """`fit_many` of 784-128-10, Adam, batch 128, on `n` pictures: microseconds per model and step in its last epoch."""
    import xpnet

    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (n, 784), dtype=np.uint8), rng.integers(0, 10, n)
    common = {"sizes": [784, 128, 10], "epochs": 3, "batch_size": 128, "keep_models": False, "block": models}
    for precision in ("float32", "tf32") if device.startswith("cuda") else ("float32",):
        for batches in ("shared", "own"):
            be = xpnet.get_backend(device, precision=precision)
            begun = time.perf_counter()
            result = xpnet.fit_many(
                [{"seed": s} for s in range(models)], (x, y), device=be, batches=batches,
                preprocessing=xpnet.data.Preprocessing((784,), 1 / 255), **common,
            )  # fmt: skip
            record = result[0].history[-1]
            yield {
                "models": models, "orders": batches, "precision": precision,
                "us_per_model_and_step": 1e6 * record["seconds"] / -(-n // 128), "loss": record["train_loss"],
                "all_s": time.perf_counter() - begun,
            }  # fmt: skip
