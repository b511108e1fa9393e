"""Many small networks: `fit_many` beside a loop of fits, joblib over scikit-learn, and vmap of PyTorch and JAX.

    python -m benchmarks.populations --json populations.json --chart populations.png
    python -m benchmarks.populations --nets 8-16-3 --members 256 --threads 1 --rounds 5

A piece of work is a whole training of M members, from data in memory to trained weights on the host: shuffling, steps,
and the mean loss of every epoch; everybody draws the first weights with a generator of their own. Before, all but
scikit-learn train one epoch from the same weights on the same batches, and only sides with xpnet's losses are timed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from . import threads
from .grid import LOSS_TOLERANCE
from .population_sides import MEMBERS, NETS, SIDES, Net, OneWorker, Problem, Side
from .statistics import Ratio, ratio, verdict

#: (net, members, side, other side, least ratio of their times): what is to be reached with one thread.
GOALS = (
    ("8-16-3", 256, "loop", "xpnet", 8.0), ("8-16-3", 256, "loop.numba", "xpnet.numba", 8.0),
    ("8-16-3", 256, "jax.vmap", "xpnet.numba", 1.3),
    ("64-64-10", 64, "loop", "xpnet", 2.0), ("64-64-10", 64, "loop.numba", "xpnet.numba", 2.0),
    ("64-64-10", 64, "sklearn", "xpnet", 6.0), ("64-64-10", 64, "jax.vmap", "xpnet.numba", 1.3),
    *(("784-128-10", m, "loop", "xpnet", 1.0) for m in MEMBERS),
    *(("784-128-10", m, "loop.numba", "xpnet.numba", 1.0) for m in MEMBERS),
)  # fmt: skip


def agreement(sides: list[Side]) -> dict[str, float]:
    """The largest relative difference of a side's losses from those of the first one that can be compared."""
    found: dict[str, np.ndarray] = {}
    for side in sides:
        losses = side.train(1)  # later, rounding has grown
        if losses is not None:
            found[side.name] = losses
    if not found:
        return {}
    first = next(iter(found.values()))
    result = {}
    for name, losses in found.items():
        n = min(len(first), len(losses))
        result[name] = float(np.max(np.abs(losses[:n] - first[:n]) / np.abs(first[:n])))
    return result


def contest(
    net: Net, members: int, kinds: list[type[Side]], rounds: int, seconds: float, settle: float = 0.0
) -> dict[str, Any]:
    """Time all sides in turn, round by round, after a pause each; samples are seconds for all members."""
    problem = Problem(net, members)
    sides = [kind(problem) for kind in kinds]
    differences = agreement(sides)
    wrong = [name for name, d in differences.items() if not d <= LOSS_TOLERANCE]
    sides = [s for s in sides if s.name not in wrong]
    counts = {s.name: max(1, math.ceil(seconds / _timed(s.train, 1))) for s in sides}
    samples: dict[str, list[float]] = {s.name: [] for s in sides}
    for turn in range(rounds):
        k = turn % max(len(sides), 1)
        for s in (*sides[k:], *sides[:k]):
            time.sleep(settle)
            taken = _timed(s.train, counts[s.name]) / counts[s.name]
            samples[s.name].append(taken * members / s.trained)
    return {
        "net": net.name, "members": members, "steps": net.steps, "differences": differences, "disagree": wrong,
        "sides": samples,
    }  # fmt: skip


def _timed(call: Callable[[], Any], n: int) -> float:
    started = time.perf_counter()
    for _ in range(n):
        call()
    return time.perf_counter() - started


# --- what the samples say ---------------------------------------------------------------------------
#: The same with all threads of two processors.
GOALS_OF_ALL = (
    ("784-128-10", 16, "one worker", "xpnet", 1.7), ("784-128-10", 16, "one worker.numba", "xpnet.numba", 1.7),
)  # fmt: skip


def judged(result: dict[str, Any]) -> list[tuple[str, Ratio, str]]:
    """The goals of a result: what was compared, the ratio, and the verdict."""
    rows = []
    for net, members, over, under, limit in GOALS if result["threads"] == "1" else GOALS_OF_ALL:
        sides = result["sides"]
        if (net, members) != (result["net"], result["members"]) or not {over, under} <= set(sides):
            continue
        r = ratio(sides[over], sides[under])
        rows.append((f"{over} / {under} >= {limit:g}", r, verdict(r.medians >= limit, r.minima >= limit)))
    return rows


def table(results: list[dict[str, Any]]) -> str:
    """Members per second of every side, as Markdown, and what became of the goals."""
    names = [n for n in SIDES if any(n in r["sides"] for r in results)]
    lines = [
        "| net | members | threads | " + " | ".join(names) + " |",
        "|---|---|---|" + "---|" * len(names),
    ]
    for r in results:
        cells = [f"{r['members'] / median(r['sides'][n]):,.1f}" if n in r["sides"] else "" for n in names]
        lines.append(f"| {r['net']} | {r['members']} | {r['threads']} | " + " | ".join(cells) + " |")
    goals = [
        f"- {r['net']}, M = {r['members']}: {what}: {value}: **{said}**"
        for r in results
        for what, value, said in judged(r)
    ]
    return "\n".join(["Members per second, by the median:", "", *lines, "", *goals])


def chart(results: list[dict[str, Any]], path: str, setting: str = "1") -> None:
    """Draw the cost of one member's step against the number of members, a panel for each net."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    chosen = [r for r in results if r["threads"] == setting]
    nets = list(dict.fromkeys(r["net"] for r in chosen))
    figure, axes = plt.subplots(
        1, max(len(nets), 1), figsize=(4.2 * max(len(nets), 1), 3.6), squeeze=False, layout="constrained"
    )
    for axis, net in zip(axes[0], nets, strict=False):
        for name, (colour, mark) in _LOOKS.items():
            points = [
                (r["members"], median(r["sides"][name]) / r["members"] / r["steps"] * 1e6)
                for r in chosen
                if r["net"] == net and name in r["sides"]
            ]
            if points:
                axis.loglog(*zip(*points, strict=True), marker=mark, color=colour, label=name, markersize=4)
        axis.set_title(net)
        axis.set_xlabel("members")
        axis.set_xticks(MEMBERS, [str(m) for m in MEMBERS])
        axis.minorticks_off()
        low, high = axis.get_ylim()
        ticks = [m * 10**e for e in range(6) for m in (1, 2, 5) if low <= m * 10**e <= high]
        axis.set_yticks(ticks, [f"{t:,}" for t in ticks])
        axis.grid(True, alpha=0.3)
    axes[0][0].set_ylabel("µs per member and step")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize="small", loc="outside lower center", ncols=len(labels))
    figure.savefig(path, dpi=150)
    plt.close(figure)


_LOOKS = {
    "xpnet": ("#000000", "o"), "xpnet.numba": ("#CC79A7", "s"), "loop": ("#000000", "x"),
    "loop.numba": ("#CC79A7", "+"), "sklearn": ("#009E73", "^"), "torch.vmap": ("#D55E00", "v"),
    "jax.vmap": ("#0072B2", "D"),
}  # fmt: skip


# --- the command ------------------------------------------------------------------------------------
def main(arguments: list[str] | None = None) -> int:
    """Run the contests that the command line asks for."""
    options = _parser().parse_args(arguments)
    if options.child:
        Path(options.child).write_text(json.dumps(_contests(options)))
        return 0
    from . import machine, report

    document: dict[str, Any] = {"meta": machine.metadata(), "results": []}
    for setting in options.threads:
        document["results"] += _run_child(options, setting)
    document["meta"]["threads_all"] = threads.n_cpus()
    if options.json:
        Path(options.json).write_text(json.dumps(document, indent=1))
    if options.chart:
        chart(document["results"], options.chart, options.threads[0])
    print()
    print(report.heading(document["meta"]))
    print()
    print(table(document["results"]))
    return 1 if any(r["disagree"] for r in document["results"]) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.populations", description=__doc__.splitlines()[0]
    )
    names = [net.name for net in NETS]
    parser.add_argument("--nets", nargs="+", choices=names, default=names)
    parser.add_argument("--members", nargs="+", type=int, default=list(MEMBERS), metavar="M")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), help="default: all that are installed")
    parser.add_argument("--threads", nargs="+", choices=threads.SETTINGS, default=["1"])
    parser.add_argument(
        "--cpu", type=int, help="processor to pin the one-thread process to (default: the last)"
    )
    parser.add_argument("--rounds", type=int, default=9, help="samples of each side (default: 9)")
    parser.add_argument(
        "--sample-ms", type=float, default=100.0, help="least length of a sample (default: 100)"
    )
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    parser.add_argument("--chart", metavar="FILE", help="draw cost against members there (PNG)")
    parser.add_argument("--setting", choices=threads.SETTINGS, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def _run_child(options: argparse.Namespace, setting: str) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        command = [sys.executable, "-m", "benchmarks.populations", "--child", str(file), "--setting", setting]
        command += ["--nets", *options.nets, "--members", *map(str, options.members)]
        command += ["--rounds", str(options.rounds), "--sample-ms", str(options.sample_ms)]
        command += ["--sides", *options.sides] if options.sides else []
        command += ["--cpu", str(options.cpu)] if options.cpu is not None else []
        environment = os.environ | threads.environment(setting)
        subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parent.parent)
        return json.loads(file.read_text())


def _contests(options: argparse.Namespace) -> list[dict[str, Any]]:
    import warnings

    threads.pin(options.setting, options.cpu)
    warnings.filterwarnings("ignore")  # the peers' deprecations
    wanted = [SIDES[name] for name in options.sides or SIDES]
    skipped = {kind.name: reason for kind in wanted if (reason := kind.missing()) is not None}
    for name, reason in skipped.items():
        print(f"left out: {name} ({reason})", flush=True)
    kinds = [kind for kind in wanted if kind.name not in skipped]
    if options.setting == "1":
        kinds = [kind for kind in kinds if not issubclass(kind, OneWorker)]  # they all are
    results = []
    for net in NETS:
        for members in options.members if net.name in options.nets else ():
            result = contest(
                net, members, kinds, options.rounds, options.sample_ms / 1e3, threads.settle(options.setting)
            )
            result |= {"threads": options.setting, "skipped": skipped}
            results.append(result)
            each = {n: f"{median(s) / members / net.steps * 1e6:.2f}" for n, s in result["sides"].items()}
            print(f"{net.name} x {members}, µs per member and step: {each}", flush=True)
            for what, value, said in judged(result):
                print(f"  {what}: {value}: {said}", flush=True)
            for name in result["disagree"]:
                print(
                    f"  left out: {name}, its losses differ by {result['differences'][name]:.1e}", flush=True
                )
    return results


if __name__ == "__main__":
    sys.exit(main())
