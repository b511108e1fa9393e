"""The same weights, samples and batches for every side of a row, and one loss to compare them by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .grid import CHECK_STEPS, Row


@dataclass(frozen=True)
class Problem:
    """A row with its data.

    Attributes
    ----------
    weights : list of (weight (O, I), bias (O,))
        Initial values, float32.
    x : (N, I) float32
    y : (N,) int64
        Class indices.
    """

    row: Row
    weights: list[tuple[np.ndarray, np.ndarray]]
    x: np.ndarray
    y: np.ndarray

    @property
    def n_batches(self) -> int:
        return len(self.x) // self.row.batch

    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Views of the samples, batch by batch in order."""
        b = self.row.batch
        return [(self.x[k * b : (k + 1) * b], self.y[k * b : (k + 1) * b]) for k in range(self.n_batches)]


def make_problem(row: Row, *, n_batches: int = CHECK_STEPS, seed: int = 0) -> Problem:
    """Samples around one centre per class, weights as He et al. (2015) draw them; all from `seed`."""
    rng = np.random.default_rng(seed)
    width, n = row.sizes[0], n_batches * row.batch
    classes = max(row.sizes[-1], 2)
    y = rng.integers(0, classes, n)
    y[:classes] = np.arange(classes)  # the first batch has every class: some libraries look for them there
    centres = rng.normal(size=(classes, width)).astype(np.float32)
    x = np.float32(3.0 / width**0.5) * centres[y] + rng.standard_normal((n, width), dtype=np.float32)
    weights = []
    for n_in, n_out in zip(row.sizes, row.sizes[1:], strict=False):
        scale = np.sqrt(2.0 / n_in) if n_out != row.sizes[-1] else np.sqrt(1.0 / n_in)
        w = (scale * rng.standard_normal((n_out, n_in))).astype(np.float32)
        weights.append((w, np.zeros(n_out, np.float32)))
    return Problem(row, weights, np.ascontiguousarray(x), y)


def mean_loss(outputs: np.ndarray, y: np.ndarray) -> float:
    """Mean cross-entropy in float64 of outputs (N, C), or (N, 1) for two classes."""
    h = np.asarray(outputs, dtype=np.float64)
    if h.shape[1] == 1:
        return float(np.mean(np.logaddexp(0.0, h[:, 0]) - y * h[:, 0]))
    top = h.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(h - top).sum(axis=1)) + top[:, 0]
    return float(np.mean(log_sum - h[np.arange(len(h)), y]))
