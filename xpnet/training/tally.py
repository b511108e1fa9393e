"""What the batches of a pass score: sums of loss, weight and correct answers, kept where the network is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import Array, Backend
from ..workspace import Workspace, filled


class Tally:
    """Sums of loss, weight and correct answers since they were last set to zero, per model.

    Parameters
    ----------
    be : Backend
    workspace : Workspace
        Lends the buffers of a batch.
    lead : tuple of int
        (M,) for a population, () for a single model.
    dtype : str
        Of the losses; the sums are float64.
    weighted : bool
        Whether the examples have weights of their own; else each counts 1, and the host counts them.
    threshold : float
        The output above which a yes is predicted, where every output is a yes or no.

    Attributes
    ----------
    batch_loss : (M,) array
        Sum of the losses of the last batch; where examples have weights, their weighted mean.
    loss, hits : (M,) array, float64
        Sums of losses and of correct answers.
    """

    def __init__(
        self,
        be: Backend,
        workspace: Workspace,
        lead: tuple[int, ...],
        dtype: str,
        *,
        weighted: bool,
        threshold: float,
    ):
        self._be, self._workspace, self._lead, self._weighted = be, workspace, lead, weighted
        self._sums = [filled(be, lead, "float64", 0.0) for _ in range(3)]
        self.loss, self._weight, self.hits = self._sums
        self.batch_loss = filled(be, lead, dtype, 0.0)
        self._last_batch = 1.0  # what to divide its loss by for a mean
        self._n_seen = 0  # examples; their weight where they have no weights of their own
        self._zero, self._one = filled(be, (1,), dtype, 0.0), filled(be, (1,), dtype, 1.0)
        self._hit_each: Callable[..., Any] = lambda ns, h, t, zero: ns.where(
            h > threshold, ns.where(t > 0.5, 1.0, zero), ns.where(t > 0.5, zero, 1.0)
        )

    # --- back-end operations only ---------------------------------------------------------------
    def add(self, each: Array, w: Array, raw: Array | None) -> None:
        """Add the losses of a batch, (..., B); with weights `raw`, and `w`, the same divided by their sum."""
        be, ws = self._be, self._workspace
        if raw is None:
            be.sum(each, axis=-1, out=self.batch_loss)
            be.map(_add, self.loss, self.batch_loss, out=self.loss)
            return
        weighted = be.map(_times, each, w, out=ws.array("weighted_loss", each.shape))
        be.sum(weighted, axis=-1, out=self.batch_loss)
        total = be.sum(raw, axis=-1, out=ws.array("total_w", raw.shape[:-1]))
        be.map(_add_times, self.loss, self.batch_loss, total, out=self.loss)
        be.map(_add, self._weight, total, out=self._weight)

    def count(self, h: Array, t: Array, labels: Array | None) -> None:
        """Count the outputs h (..., B, O) that are right about the labels (..., B), or about each target in t."""
        be, ws = self._be, self._workspace
        b, width = h.shape[-2:]
        correct = ws.array("correct", (*self._lead, b))
        if labels is not None:
            predicted = be.argmax(h, out=ws.array("predicted", (*self._lead, b), "int64"))
            be.map(_equal, predicted, labels, self._one, out=correct)
        else:
            each = be.map(self._hit_each, h, t, self._zero, out=ws.array("correct_each", h.shape))
            be.sum(each, axis=-1, out=correct)
        count = be.sum(correct, axis=-1, out=ws.array("n_correct", self._lead))
        if labels is None:
            be.map(lambda ns, x: x * (1.0 / width), count, out=count)
        be.map(_add, self.hits, count, out=self.hits)

    # --- on the host ----------------------------------------------------------------------------
    def saw(self, batch: int, steps: int = 1) -> None:
        """Take note of batches of so many examples."""
        self._n_seen += steps * batch
        self._last_batch = 1.0 if self._weighted else float(batch)

    def totals(self) -> np.ndarray:
        """Return the sums: weighted loss, weight, correct answers; shape (3, ...). Waits for the device."""
        values = np.stack([np.array(self._be.to_numpy(t), dtype=np.float64) for t in self._sums])
        if not self._weighted:
            values[1] = self._n_seen
        return values

    def set_totals(self, values: np.ndarray) -> None:
        """Continue from sums that `totals` returned."""
        for total, value in zip(self._sums, values, strict=True):
            total[...] = self._be.asarray(np.asarray(value, dtype=np.float64))
        if not self._weighted:
            self._n_seen = round(float(np.ravel(values[1])[0]))

    def reset(self) -> None:
        """Start the sums at zero."""
        self._n_seen = 0
        for total in self._sums:
            total[...] = 0.0

    def last_loss(self) -> np.ndarray:
        """Mean loss of the last batch, per model. Waits for the device."""
        return np.asarray(self._be.to_numpy(self.batch_loss) / self._last_batch)

    def is_finite(self) -> bool:
        """Whether the loss of the last batch is finite, for every model. Waits for the device."""
        values = self._be.to_numpy(self.batch_loss)
        return math.isfinite(values) if values.ndim == 0 else bool(np.isfinite(values).all())


def _add(ns: Any, a: Array, b: Array) -> Array:
    return a + b


def _times(ns: Any, a: Array, b: Array) -> Array:
    return a * b


def _add_times(ns: Any, a: Array, b: Array, c: Array) -> Array:
    return a + b * c


def _equal(ns: Any, a: Array, b: Array, one: Array) -> Array:
    return ns.where(a == b, one, 0.0)
