"""Time xpnet and its peers side by side, in turn, in one run; what the claims of the project are made from.

    python -m benchmarks.compare                                  # all training steps, at one thread and at all
    python -m benchmarks.compare --rows small --threads 1 --rounds 30 --json out.json
    python -m benchmarks.compare --kinds epoch predict start memory accuracy --data-dir DIR

Each thread setting runs in a process of its own, so that every library is loaded with it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import grid, threads

KINDS = ("step", "ops", "epoch", "predict", "start", "memory", "accuracy")
SCHEMA = 1


def main(arguments: list[str] | None = None) -> int:
    """Run the contests that the command line asks for."""
    options = _parser().parse_args(arguments)
    if options.child:
        results = list(_contests(options))
        Path(options.child).write_text(json.dumps(results))
        return 0
    from . import machine, report

    document: dict[str, Any] = {"schema": SCHEMA, "meta": machine.metadata(), "results": []}
    for setting in options.threads:
        # start-up and the growth of a process do not depend on the number of threads
        kinds = [k for k in options.kinds if setting == options.threads[-1] or k not in ("start", "memory")]
        if kinds:
            document["results"] += _run_child(options, setting, kinds)
    document["meta"]["threads_all"] = threads.n_cpus()
    if options.json:
        Path(options.json).write_text(json.dumps(document, indent=1))
    print()
    print(report.markdown(document))
    return 0 if document["results"] and not any(r.get("disagree") for r in document["results"]) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__.partition("\n\n")[0]
    )
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=["step"], help="what to time (default: step)"
    )
    parser.add_argument(
        "--rows", nargs="+", default=["all"], metavar="WORD",
        help=f"groups ({', '.join(grid.GROUPS)}) or parts of names such as '784-500-10 b128' (default: all)",
    )  # fmt: skip
    parser.add_argument("--sides", nargs="+", metavar="SIDE", help="default: all that are installed")
    parser.add_argument("--threads", nargs="+", choices=threads.SETTINGS, default=list(threads.SETTINGS))
    parser.add_argument(
        "--cpu", type=int, help="processor to pin the one-thread process to (default: the last)"
    )
    parser.add_argument("--rounds", type=int, default=30, help="samples of each side (default: 30)")
    parser.add_argument("--sample-ms", type=float, default=5.0, help="least length of a sample (default: 5)")
    parser.add_argument(
        "--max-seconds",
        type=float,
        default=90.0,
        help="fewer rounds, 5 at least, for longer rows (default: 90)",
    )
    parser.add_argument("--seeds", type=int, default=10, help="seeds of the time to accuracy (default: 10)")
    parser.add_argument("--data-dir", help="folder that holds MNIST (default: $XPNET_DATA)")
    parser.add_argument("--json", metavar="FILE", help="write all samples there, for scripts/bench_report")
    parser.add_argument("--setting", choices=threads.SETTINGS, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def _run_child(options: argparse.Namespace, setting: str, kinds: list[str]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        command = [sys.executable, "-m", "benchmarks.compare", "--child", str(file), "--setting", setting]
        command += ["--kinds", *kinds, "--rows", *options.rows, "--rounds", str(options.rounds)]
        command += ["--sample-ms", str(options.sample_ms), "--max-seconds", str(options.max_seconds)]
        command += ["--seeds", str(options.seeds)]
        command += ["--sides", *options.sides] if options.sides else []
        command += ["--cpu", str(options.cpu)] if options.cpu is not None else []
        command += ["--data-dir", options.data_dir] if options.data_dir else []
        environment = os.environ | threads.environment(setting)
        subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parent.parent)
        return json.loads(file.read_text())


def _contests(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    threads.pin(options.setting, options.cpu)
    import warnings

    warnings.filterwarnings("ignore")  # the peers' deprecations; xpnet's own tests turn warnings into errors
    makers: dict[str, Callable[[argparse.Namespace], Iterator[dict[str, Any]]]] = {
        "step": step_contests, "ops": op_contests, "epoch": epoch_contests, "predict": predict_contests,
        "start": start_contests, "memory": memory_contests, "accuracy": accuracy_contests,
    }  # fmt: skip
    from . import report

    for kind in options.kinds:
        for result in makers[kind](options):
            result = {"kind": kind, "threads": options.setting, **result}
            print("\n".join(report.lines(result)), flush=True)
            yield result


def _interleave(options: argparse.Namespace, entrants: list[Any]) -> dict[str, Any]:
    from .interleave import interleave

    interleave(
        entrants, rounds=options.rounds, sample_seconds=options.sample_ms / 1e3,
        settle=threads.settle(options.setting), max_seconds=options.max_seconds,
    )  # fmt: skip
    return {"sides": {e.name: {"samples": e.samples, "per_sample": e.count} for e in entrants}}


# --- one training step ------------------------------------------------------------------------------
def agreement(row: grid.Row, sides: list[Any]) -> dict[str, float]:
    """The loss of each side after `grid.CHECK_STEPS` steps from the same weights on the same batches."""
    from .problem import mean_loss

    losses = {}
    for side in sides:
        if side.name != "floor":
            side.reset()
            with side.context():
                side.run(grid.CHECK_STEPS)
            losses[side.name] = mean_loss(side.outputs(side.problem.x), side.problem.y)
            side.reset()
    return losses


def disagreeing(losses: dict[str, float]) -> list[str]:
    """Sides whose loss is not that of the first one, within `grid.LOSS_TOLERANCE`."""
    expected = next(iter(losses.values()))
    return [n for n, v in losses.items() if not abs(v - expected) <= grid.LOSS_TOLERANCE * abs(expected)]


def step_contests(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One training step of each row: all sides that agree, and the floor."""
    from .interleave import Entrant
    from .peers import present
    from .problem import make_problem

    kinds, skipped = present(options.sides)
    for row in grid.find_rows(options.rows):
        problem = make_problem(row)
        sides = [kind(problem) for kind in kinds]
        losses = agreement(row, sides)
        wrong = disagreeing(losses) if losses else []
        entrants = [
            Entrant(s.name, s.run, s.reset, s.multiple, s.context) for s in sides if s.name not in wrong
        ]
        yield {
            "row": row.name, "group": row.group, "flops": row.flops, "loss_after_20": losses, "disagree": wrong,
            "skipped": skipped, **_interleave(options, entrants), "goals": [vars(g) for g in grid.goals(row)],
        }  # fmt: skip


# --- the other kinds --------------------------------------------------------------------------------
def op_contests(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Each operation of the back ends, beside its reference twin."""
    from .interleave import Entrant
    from .ops import OPS, backends, make

    skipped = {name: reason for name, (_, reason) in backends().items() if reason}
    for name in OPS:
        entrants = [
            Entrant(label, make(name, be)) for label, (be, reason) in backends().items() if reason is None
        ]
        yield {"row": name, "skipped": skipped, **_interleave(options, entrants), "goals": []}


def epoch_contests(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One epoch with shuffling and data handling, and the bare steps of xpnet for it."""
    from .interleave import Entrant
    from .peers import present
    from .problem import make_problem

    kinds, skipped = present(options.sides)
    for row in grid.EPOCH_ROWS:
        problem = make_problem(row, n_batches=grid.EPOCH_STEPS)
        entrants = []
        for kind in kinds:
            if kind.name in ("floor", "torch.compile", "jax.jit", "reference"):
                continue
            side = kind(problem)
            entrants.append(Entrant(side.name, _repeat(side.epoch), side.reset))
            if side.name in grid.VARIANTS:
                bare = kind(problem)
                entrants.append(
                    Entrant(
                        f"{side.name}, bare steps",
                        lambda n, s=bare: s.run(n * grid.EPOCH_STEPS),
                        bare.reset,
                        context=bare.context,
                    )
                )
        goals = [grid.within("bare steps", 1.05), grid.times_faster("peers", 1.0)]
        yield {
            "row": f"epoch of {len(problem.x):,}, {row.name}", "skipped": skipped,
            **_interleave(options, entrants), "goals": [vars(g) for g in goals],
        }  # fmt: skip


def predict_contests(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Class indices of one sample, and of 10,000."""
    import numpy as np

    from .interleave import Entrant
    from .peers import present
    from .problem import make_problem

    kinds, skipped = present(options.sides)
    for row in grid.PREDICT_ROWS:
        problem = make_problem(row)
        sides = [k(problem) for k in kinds if k.name not in ("floor", "reference", "jax.scan")]
        for n in grid.PREDICT_SIZES:
            x = np.resize(problem.x, (n, row.sizes[0]))
            entrants = [Entrant(s.name, _repeat(lambda s=s, x=x: s.predict(x))) for s in sides]
            yield {
                "row": f"predict {n:,}, {row.net}", "skipped": skipped, **_interleave(options, entrants),
                "goals": [vars(grid.times_faster("peers", 1.0))],
            }  # fmt: skip


def start_contests(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Whole processes, from start to end."""
    from importlib.util import find_spec

    from .interleave import Entrant
    from .startup import COMMANDS, LIMITS, NEEDS, start

    skipped = {c: f"{m} not installed" for c, m in NEEDS.items() if find_spec(m) is None}
    entrants = [Entrant(c, _repeat(lambda c=c: start(c))) for c in COMMANDS if c not in skipped]
    result = _interleave(options, entrants)
    yield {"row": "start-up", "skipped": skipped, **result, "goals": [], "beyond_numpy": LIMITS}


def memory_contests(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Bytes of a training step: needed, asked for by xpnet, and by how much each side's process grows."""
    from .memory import LIMIT, MEMORY_ROWS, grown, needed, traced
    from .peers import present

    kinds, skipped = present(options.sides)
    for row in MEMORY_ROWS:
        yield {
            "row": row.name, "skipped": skipped, "sides": {}, "goals": [], "needed": needed(row),
            "traced": traced(row), "limit": LIMIT,
            "grown": {k.name: grown(k.name, row) for k in kinds if k.name not in ("floor", "reference")},
        }  # fmt: skip


def accuracy_contests(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Seconds until MNIST's test digits are recognised, seed by seed."""
    from . import accuracy_time as at

    data = at.load(options.data_dir)
    wanted = [k.name for k in at.contestants() if not options.sides or k.name in options.sides]
    for target, names in (
        (at.TARGET, [n for n in wanted if n != "sklearn"]),
        (at.SKLEARN_TARGET, [n for n in wanted if n in (*grid.VARIANTS, "sklearn")]),
    ):
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for seed in at.SEEDS[: options.seeds]:
            k = seed % max(len(names), 1)
            for name in (*names[k:], *names[:k]):
                runs[name].append(at.seconds_to(name, data, target, seed))
        goals = [grid.times_faster("sklearn", 4.0)] if target == at.SKLEARN_TARGET else [
            grid.times_faster("peers", 1.0)
        ]  # fmt: skip
        sides = {n: {"samples": [r["trained"] for r in rs], "per_sample": 1} for n, rs in runs.items()}
        yield {
            "row": f"MNIST to {target:.1%}", "skipped": {}, "sides": sides, "runs": runs,
            "limit_seconds": at.LIMIT_SECONDS, "goals": [vars(g) for g in goals],
        }  # fmt: skip


def _repeat(call: Callable[[], Any]) -> Callable[[int], None]:
    def run(n: int) -> None:
        for _ in range(n):
            call()

    return run


if __name__ == "__main__":
    sys.exit(main())
