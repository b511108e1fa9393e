"""Networks that are compared with PyTorch and JAX, and the data and first weights that all sides get."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

#: Batches that every side trains on in turn; also the steps of one graph or one `lax.scan`.
CHECK_STEPS = 20
LR, BETA1, BETA2, EPS = 1e-4, 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Case:
    """A network, its batch and its arithmetic; ReLU, Adam, softmax cross-entropy.

    Parameters
    ----------
    name : str
    sizes : tuple of int
    batch : int
    precision : {"float32", "tf32", "bf16"}
    n_models : int or None
        Members of a population; all see the same batch.
    steps : int
        Batches; fewer for large ones.
    goal_us : float, optional
        Microseconds per step (and per model of a population) that are aimed at.
    """

    name: str
    sizes: tuple[int, ...]
    batch: int
    precision: str
    n_models: int | None = None
    steps: int = CHECK_STEPS
    goal_us: float | None = None

    @property
    def flops(self) -> float:
        """Operations of the products of one step; the first layer needs no input gradient."""
        weights = sum(i * o for i, o in pairwise(self.sizes))
        return 2.0 * self.batch * (self.n_models or 1) * (3 * weights - self.sizes[0] * self.sizes[1])


_CIRESAN = (784, 2500, 2000, 1500, 1000, 500, 10)
CASES: tuple[Case, ...] = (
    Case("784-500-10", (784, 500, 10), 128, "float32", goal_us=12.0),
    Case("784-500-10 tf32", (784, 500, 10), 128, "tf32", goal_us=12.0),
    Case("784-1000-1000-10", (784, 1000, 1000, 10), 128, "float32", goal_us=30.0),
    Case("784-1000-1000-10 tf32", (784, 1000, 1000, 10), 128, "tf32", goal_us=30.0),
    Case("ciresan tf32", _CIRESAN, 128, "tf32", goal_us=150.0),
    Case("256 x 784-128-10", (784, 128, 10), 128, "float32", n_models=256, goal_us=1.5),
    Case("256 x 784-128-10 tf32", (784, 128, 10), 128, "tf32", n_models=256, goal_us=1.5),
    Case("4096 x 8 bf16", (4096,) * 9, 8192, "bf16", steps=2),
)


@dataclass(frozen=True)
class Problem:
    """A case with its data.

    Attributes
    ----------
    x : (N, I) uint8
    y : (N,) int64
    weights : list of ((M, O, I) or (O, I), (M, O) or (O,)) float32
    """

    case: Case
    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    weights: list[tuple[np.ndarray, np.ndarray]] = field(repr=False)

    @property
    def scale(self) -> float:
        return 1.0 / 255.0


def make_problem(case: Case, *, steps: int | None = None, seed: int = 0) -> Problem:
    """Noisy pictures around one centre per class, and weights as He et al. (2015) draw them."""
    rng = np.random.default_rng(seed)
    n, width, classes = (steps or case.steps) * case.batch, case.sizes[0], case.sizes[-1]
    y = rng.integers(0, classes, n)
    centres = rng.integers(0, 128, (classes, width), dtype=np.uint8)
    x = rng.integers(0, 128, (n, width), dtype=np.uint8)
    for start in range(0, n, 8192):  # not all of a large gather at once
        x[start : start + 8192] += centres[y[start : start + 8192]]
    weights = []
    lead = () if case.n_models is None else (case.n_models,)
    for i, o in pairwise(case.sizes):
        w = rng.standard_normal((*lead, o, i), dtype=np.float32) * np.float32((2.0 / i) ** 0.5)
        weights.append((w, np.zeros((*lead, o), np.float32)))
    return Problem(case, x, y, weights)


def mean_loss(outputs: np.ndarray, y: np.ndarray) -> float:
    """Mean cross-entropy of outputs (..., N, C) in float64."""
    h = np.asarray(outputs, dtype=np.float64)
    top = h.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(h - top).sum(axis=-1)) + top[..., 0]
    picked = np.take_along_axis(h, np.broadcast_to(y[:, None], (*h.shape[:-1], 1)), axis=-1)[..., 0]
    return float(np.mean(log_sum - picked))
