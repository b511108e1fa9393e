"""The parts in the order in which they run: first what everything rests on, then speed, then the rest."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Finding = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One process.

    Parameters
    ----------
    name : str
    seconds : float
        After which it is stopped.
    what : str
        For people.
    where : str
        ``module.function`` of this package; it yields findings.
    argument : str, optional
        Handed to the function.
    """

    name: str
    seconds: float
    what: str
    where: str
    argument: str | None = None

    def load(self) -> Callable[..., Iterator[Finding]]:
        """The function that does it."""
        module, _, name = self.where.partition(".")
        found: Callable[..., Iterator[Finding]] = getattr(
            importlib.import_module(f"{__package__}.{module}"), name
        )
        return found

    def run(self) -> Iterator[Finding]:
        """Do it, one finding after the other."""
        return self.load()() if self.argument is None else self.load()(self.argument)


PARTS: tuple[Part, ...] = (
    Part("versions", 45, "versions, memory, time of the first calls", "primitives.versions"),
    Part("capture", 30, "products and kernels in one captured graph, replayed", "primitives.capture"),
    Part("parity", 50, "training beside the CPU", "correctness.parity"),
    Part("operations", 60, "every operation beside the reference", "correctness.operations", "float32"),
    Part("tests", 100, "all tests marked gpu", "correctness.tests"),
    Part("xpnet", 80, "training steps: xpnet", "steps.measure", "xpnet"),
    Part("torch.graph", 40, "training steps: PyTorch, K steps as one CUDA graph", "steps.measure", "torch.graph"),
    Part("jax.scan", 60, "training steps: JAX, lax.scan over K steps", "steps.measure", "jax.scan"),
    Part("joined", 60, "steps with and without joined operations, on 1 to 6 streams", "steps.joined"),
    Part("resident", 75, "steps of small networks, many as one graph or as one kernel", "steps.resident"),
    Part("autotuned", 45, "steps of small networks with the quickest algorithms", "steps.autotuned"),
    Part("float64", 60, "every operation beside the reference, in float64", "correctness.operations", "float64"),
    Part("torch", 35, "training steps: PyTorch, eager", "steps.measure", "torch"),
    Part("peaks", 35, "rates of large products", "primitives.peaks"),
    Part("adam", 30, "bandwidth of the update", "primitives.adam"),
    Part("nodes", 25, "time of a node of a graph, and of its launch", "primitives.nodes"),
    Part("barrier", 15, "a barrier of the whole grid", "primitives.barrier"),
    Part("batched", 20, "a population's first layer: one product or many", "primitives.batched"),
    Part("fit_many", 30, "epochs of 256 models, with one order and with orders of their own", "steps.many"),
    Part("epilogues", 30, "products with what follows them fused in", "epilogues.measure"),
    Part("process", 60, "`xpnet train --device cuda` as a whole, twice", "correctness.process"),
    Part("accuracy", 40, "MNIST to 98 % (needs XPNET_DATA)", "correctness.accuracy"),
    Part("torch.compile", 75, "training steps: PyTorch, max-autotune", "steps.measure", "torch.compile"),
)  # fmt: skip


def find(names: list[str]) -> tuple[Part, ...]:
    """The parts of these names, all for none.

    Raises
    ------
    ValueError
        A name that no part has.
    """
    known = {part.name: part for part in PARTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no part is called {unknown[0]!r}; expected some of {', '.join(known)}")
    return tuple(part for part in PARTS if not names or part.name in names)
