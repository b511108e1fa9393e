"""Many small networks: `fit_many` beside a loop of fits, joblib over scikit-learn, and vmap of PyTorch and JAX.

    python -m benchmarks.populations --json populations.json --chart populations.png
    python -m benchmarks.populations --nets 8-16-3 --members 256 --threads 1 --rounds 5

A piece of work is a whole training of M members, from data in memory to trained weights on the host: shuffling, steps,
and the mean loss of every epoch; everybody draws the first weights with a generator of their own. Before, all but
scikit-learn train one epoch from the same weights on the same batches, and only sides with xpnet's losses are timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import numpy as np

from . import threads
from .grid import BETA1, BETA2, EPS, LOSS_TOLERANCE
from .statistics import Ratio, ratio, verdict

MEMBERS = (1, 4, 16, 64, 256)
#: Members that are really trained where a side takes them one by one; its time is scaled up.
ONE_BY_ONE = 16


@dataclass(frozen=True)
class Net:
    """A network and what it is trained on: `epochs` passes over `n` examples."""

    sizes: tuple[int, ...]
    batch: int
    n: int
    epochs: int

    @property
    def name(self) -> str:
        return "-".join(map(str, self.sizes))

    @property
    def steps(self) -> int:
        """Updates of one member."""
        return self.epochs * (self.n // self.batch)


NETS = (Net((8, 16, 3), 32, 960, 20), Net((64, 64, 10), 32, 960, 10), Net((784, 128, 10), 128, 1280, 5))

#: (net, members, side, other side, least ratio of their times): what is to be reached with one thread.
GOALS = (
    ("8-16-3", 256, "loop", "xpnet", 8.0), ("8-16-3", 256, "loop.numba", "xpnet.numba", 8.0),
    ("8-16-3", 256, "jax.vmap", "xpnet.numba", 1.3),
    ("64-64-10", 64, "loop", "xpnet", 2.0), ("64-64-10", 64, "loop.numba", "xpnet.numba", 2.0),
    ("64-64-10", 64, "sklearn", "xpnet", 6.0), ("64-64-10", 64, "jax.vmap", "xpnet.numba", 1.3),
    *(("784-128-10", m, "loop", "xpnet", 1.0) for m in MEMBERS),
    *(("784-128-10", m, "loop.numba", "xpnet.numba", 1.0) for m in MEMBERS),
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """M members of a net, and their data."""

    net: Net
    members: int

    @cached_property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        g = np.random.default_rng(0)
        x = g.random((self.net.n, self.net.sizes[0]), dtype=np.float32)
        return x, (x @ g.standard_normal((self.net.sizes[0], self.net.sizes[-1]))).argmax(1)

    def rate(self, member: int) -> float:
        return 1e-3 * (1 + member % 4)

    @cached_property
    def initial(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Weights (M, I, O) and biases (M, O) of each layer."""
        import xpnet

        seeds = list(range(self.members))
        model = xpnet.MLP(self.net.sizes, n_models=self.members, seed=seeds)
        weights = model.get_weights()
        return [
            (np.ascontiguousarray(weights[f"layers.{i}.weight"].swapaxes(1, 2)), weights[f"layers.{i}.bias"])
            for i in range(len(self.net.sizes) - 1)
        ]

    def shapes(self) -> list[tuple[tuple[int, ...], tuple[int, ...], float]]:
        """Shapes of the weights and biases of each layer, and the standard deviation of weights at the start."""
        m, sizes = self.members, self.net.sizes
        return [((m, i, o), (m, o), math.sqrt(2.0 / i)) for i, o in pairwise(sizes)]

    def order(self, epoch: int) -> np.ndarray:
        """The examples of an epoch as (steps, B)."""
        from xpnet.rng import permutation

        return permutation(self.net.n, 0, epoch).reshape(-1, self.net.batch)


class Side:
    """A way to train the members of a problem.

    Attributes
    ----------
    name : str
    needs : tuple of str
        Modules that must be installed.
    one_by_one : bool
        Whether members are trained one after the other, so that a few of them tell the time of all.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    one_by_one: ClassVar[bool] = False

    def __init__(self, problem: Problem):
        self.problem, self.net = problem, problem.net
        self.trained = min(problem.members, ONE_BY_ONE) if self.one_by_one else problem.members

    @classmethod
    def missing(cls) -> str | None:
        """Why this side cannot run here, or None."""
        absent = [name for name in cls.needs if importlib.util.find_spec(name) is None]
        return f"{', '.join(absent)} not installed" if absent else None

    def train(self, epochs: int | None = None) -> np.ndarray | None:
        """Train, for fewer epochs where asked.

        Returns the mean loss of the last epoch of each member trained, where it can be compared.
        """
        raise NotImplementedError


class Population(Side):
    """`xpnet.fit_many`, blocks and threads as it chooses."""

    name = "xpnet"
    device: ClassVar[str] = "cpu"
    options: ClassVar[dict[str, Any]] = {}

    def train(self, epochs: int | None = None) -> np.ndarray | None:
        import xpnet

        p, net = self.problem, self.net
        result = xpnet.fit_many(
            [{"seed": m, "lr": p.rate(m)} for m in range(p.members)], p.data, sizes=net.sizes,
            epochs=epochs or net.epochs, batch_size=net.batch, batches="shared", device=self.device,
            beta1=BETA1, beta2=BETA2, eps=EPS, **self.options,
        )  # fmt: skip
        return np.array([m.history[-1]["train_loss"] for m in result])


class PopulationNumba(Population):
    """The same with compiled formulas."""

    name = "xpnet.numba"
    needs = ("numba",)
    device = "numba"


class OneWorker(Population):
    """`fit_many` with one thread, where others may have more."""

    name = "one worker"
    options: ClassVar[dict[str, Any]] = {"workers": 1, "threads": 1}


class OneWorkerNumba(OneWorker):
    """The same with compiled formulas."""

    name = "one worker.numba"
    needs = ("numba",)
    device = "numba"


class Loop(Side):
    """A Python loop of `xpnet.fit`."""

    name = "loop"
    one_by_one = True
    device: ClassVar[str] = "cpu"

    def train(self, epochs: int | None = None) -> np.ndarray | None:
        import xpnet

        p, net, losses = self.problem, self.net, []
        for m in range(self.trained):
            model = xpnet.MLP(net.sizes, seed=m, device=self.device)
            adam = xpnet.Adam(lr=p.rate(m), beta1=BETA1, beta2=BETA2, eps=EPS)
            history = xpnet.fit(
                model, p.data, optimizer=adam, epochs=epochs or net.epochs, batch_size=net.batch, seed=0
            )
            losses.append(history[-1]["train_loss"])
        return np.array(losses)


class LoopNumba(Loop):
    """The same with compiled formulas."""

    name = "loop.numba"
    needs = ("numba",)
    device = "numba"


class Sklearn(Side):
    """joblib over `MLPClassifier.fit`, one process per processor; its weights and orders are its own."""

    name = "sklearn"
    needs = ("sklearn", "joblib")
    one_by_one = True

    def train(self, epochs: int | None = None) -> np.ndarray | None:
        from joblib import Parallel, delayed

        n_jobs = int(os.environ.get("OMP_NUM_THREADS", "1"))
        net = self.problem.net
        # plain values: what this module defines cannot be sent to another process while it is the main program
        settings = {
            "hidden_layer_sizes": net.sizes[1:-1], "alpha": 0.0, "batch_size": net.batch, "max_iter": net.epochs,
            "tol": 0.0, "n_iter_no_change": net.epochs + 1,
        }  # fmt: skip
        Parallel(n_jobs=n_jobs)(
            delayed(_sklearn_fit)(
                self.problem.data, settings | {"learning_rate_init": self.problem.rate(m), "random_state": m}
            )
            for m in range(self.trained)
        )
        return None


def _sklearn_fit(data: tuple[np.ndarray, np.ndarray], settings: dict[str, Any]) -> None:
    import warnings

    from sklearn.neural_network import MLPClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MLPClassifier(**settings).fit(*data)


class TorchVmap(Side):
    """PyTorch: `vmap` of `grad_and_value` over stacked weights, Adam on the stacks."""

    name = "torch.vmap"
    needs = ("torch",)

    def __init__(self, problem: Problem):
        import torch
        from torch.func import grad_and_value, vmap
        from torch.nn import functional

        super().__init__(problem)
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self.torch = torch

        def loss(params: list[Any], x: Any, y: Any) -> Any:
            for i in range(0, len(params), 2):
                x = x @ params[i] + params[i + 1]
                x = torch.relu(x) if i + 2 < len(params) else x
            return functional.cross_entropy(x, y)

        self._step = vmap(grad_and_value(loss), in_dims=(0, None, None))
        x, y = problem.data
        self._x, self._y = torch.from_numpy(x), torch.from_numpy(y)

    def train(self, epochs: int | None = None) -> np.ndarray | None:
        torch, p = self.torch, self.problem
        if epochs is None:
            params = [
                v for pair in p.shapes() for v in (torch.randn(pair[0]) * pair[2], torch.zeros(pair[1]))
            ]
        else:  # a check
            params = [torch.tensor(v) for pair in p.initial for v in pair]
        mean, square = ([torch.zeros_like(w) for w in params] for _ in range(2))
        lr = torch.tensor([p.rate(m) for m in range(p.members)])
        rates = [lr.reshape(-1, *(1,) * (w.ndim - 1)) for w in params]
        step, total = 0, torch.zeros(p.members)
        for epoch in range(epochs or self.net.epochs):
            total = torch.zeros(p.members)
            for rows in torch.from_numpy(p.order(epoch)):
                grads, losses = self._step(params, self._x[rows], self._y[rows])
                total += losses
                step += 1
                correction = math.sqrt(1.0 - BETA2**step)
                scale = correction / (1.0 - BETA1**step)
                torch._foreach_lerp_(mean, grads, 1.0 - BETA1)
                torch._foreach_mul_(square, BETA2)
                torch._foreach_addcmul_(square, grads, grads, 1.0 - BETA2)
                below = torch._foreach_sqrt(square)
                torch._foreach_add_(below, EPS * correction)
                change = torch._foreach_mul(mean, rates)
                torch._foreach_addcdiv_(params, change, below, -scale)
        for w in params:
            w.numpy()
        return (total / len(p.order(0))).numpy()


class JaxVmap(Side):
    """JAX: one `jit` of a `vmap` over members of a `scan` over the batches of an epoch, weights and moments donated."""

    name = "jax.vmap"
    needs = ("jax",)

    def __init__(self, problem: Problem):
        import jax
        from jax import numpy as jnp

        super().__init__(problem)
        self.jax = jax

        def loss(params: Any, x: Any, y: Any) -> Any:
            for w, b in params[:-1]:
                x = jax.nn.relu(x @ w + b)
            h = x @ params[-1][0] + params[-1][1]
            picked = jnp.take_along_axis(h, y[:, None], axis=1)[:, 0]
            return jnp.mean(jax.nn.logsumexp(h, axis=1) - picked)

        def epoch(params: Any, state: Any, lr: Any, x: Any, y: Any, order: Any) -> Any:
            def step(carry: Any, rows: Any) -> Any:
                params, (mean, square, t) = carry
                value, grads = jax.value_and_grad(loss)(params, x[rows], y[rows])
                t = t + 1
                mean = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, mean, grads)
                square = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, square, grads)
                correction = jnp.sqrt(1 - BETA2**t)
                rate, eps = lr * correction / (1 - BETA1**t), EPS * correction
                params = jax.tree.map(
                    lambda w, m, v: w - rate * (m / (jnp.sqrt(v) + eps)), params, mean, square
                )
                return (params, (mean, square, t)), value

            (params, state), losses = jax.lax.scan(step, (params, state), order)
            return params, state, losses.mean()

        def draw(key: Any) -> Any:
            keys = jax.random.split(key, len(self.net.sizes) - 1)
            each = zip(keys, problem.shapes(), strict=True)
            return [(jax.random.normal(k, w) * scale, jnp.zeros(b)) for k, (w, b, scale) in each]

        self._draw = jax.jit(draw)
        each = jax.vmap(epoch, in_axes=(0, 0, 0, None, None, None))
        self._epoch = jax.jit(each, donate_argnums=(0, 1))
        self._x, self._y = (jnp.asarray(v) for v in problem.data)

    def train(self, epochs: int | None = None) -> np.ndarray | None:
        from jax import numpy as jnp

        jax, p = self.jax, self.problem
        if epochs is None:
            params = self._draw(jax.random.key(0))
        else:  # a check
            params = [(jnp.array(w), jnp.array(b)) for w, b in p.initial]
        zeros = [jax.tree.map(jnp.zeros_like, params) for _ in range(2)]
        state = (*zeros, jnp.zeros(p.members))
        lr = jnp.asarray([p.rate(m) for m in range(p.members)], jnp.float32)
        losses = None
        for epoch in range(epochs or self.net.epochs):
            order = jnp.asarray(p.order(epoch))
            params, state, losses = self._epoch(params, state, lr, self._x, self._y, order)
        jax.tree.map(np.asarray, params)
        return np.asarray(losses)


SIDES = {
    side.name: side
    for side in (
        Population,
        PopulationNumba,
        OneWorker,
        OneWorkerNumba,
        Loop,
        LoopNumba,
        Sklearn,
        TorchVmap,
        JaxVmap,
    )
}


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
    from . import report

    document: dict[str, Any] = {"meta": report.metadata(), "results": []}
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
