"""A pass of a network over batches: gather, forward, loss and score, as an object that owns every buffer it touches.

The work on a batch is a fixed list of back-end operations on fixed buffers; what changes from batch to batch (its
rows; in training the learning rate and the random counter) is written into small arrays first. So the back end can
capture it once and repeat it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backend import Array, Backend
from ..errors import ConfigError
from ..layers import Context
from ..losses import Loss, SoftmaxCrossEntropy
from ..mlp import MLP
from ..workspace import Workspace, filled
from .examples import Examples, RowSource
from .tally import Tally


@dataclass(frozen=True, kw_only=True)
class Targets:
    """How class labels become rows of targets.

    Parameters
    ----------
    label_smoothing : float, default 0
        s in [0, 1): the true class gets 1 - s + s / C and every other s / C. Targets t that are rows already
        become (1 - s) t + s / C, with C = 2 where an output stands for a yes or no of its own.
    infogain : (C, C) array, optional
        Row T of the matrix is the target of class T; the identity gives plain cross-entropy.
    """

    label_smoothing: float = 0.0
    infogain: np.ndarray | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ConfigError(f"label_smoothing must be in [0, 1), found {self.label_smoothing!r}")


# Up to this many classes, targets are rows of a (C, C) table; beyond, they are computed.
_TABLE_WIDTH = 256


class Plan:
    """The buffers of one batch size, and the captured work on them."""

    def __init__(self, batch: int):
        self.batch = batch
        self.contexts: list[Context] = []
        self.index: Array = None
        self.w: Array = None
        self.raw: Array = None  # rows that come from the host batch by batch, and their positions
        self.position: Array = None
        self.weight_index: Array = None  # where members weigh the examples differently
        self.x: Array = None
        self.h: Array = None
        self.replay: Callable[[], None] | None = None


class Pass:
    """Gather a batch, run the network, and add up loss and correct answers per model.

    Parameters
    ----------
    model : MLP
    loss : Loss
    examples : Examples
    targets : Targets, optional
    train : bool, default False
        Whether dropout and noise act.
    own_rows : bool, default False
        Whether each member of a population has a batch of its own: rows are then (M, B), and the weights of the
        examples may be (M, N).
    """

    def __init__(
        self,
        model: MLP,
        loss: Loss,
        examples: Examples,
        *,
        targets: Targets | None = None,
        train: bool = False,
        own_rows: bool = False,
    ):
        self.model, self.loss, self.examples = model, loss, examples
        self._from_host = isinstance(examples.x, RowSource)  # a slow question
        #: (M,) where members have batches of their own, else ().
        self._own = model.lead if own_rows else ()
        self.be: Backend = model.be
        self.targets = targets or Targets()
        self.workspace = Workspace(self.be, model.dtype)
        self._train = train
        self._grads: dict[str, Array] | None = None
        self._plans: dict[int, Plan] = {}
        self.counter = filled(self.be, (1,), "int64", 0)
        self.tally = Tally(
            self.be, self.workspace, model.lead, model.dtype, weighted=examples.weights is not None,
            threshold=loss.threshold,
        )  # fmt: skip
        self._weights: Array = examples.weights
        self._weight_offset: Array = None
        if examples.weights is not None and len(examples.weights.shape) == 2:
            m, n = examples.weights.shape
            self._weights = self.be.xp.reshape(examples.weights, (m * n,))
            self._weight_offset = self.be.asarray(np.arange(m)[:, None] * n)
        width = model.sizes[-1]
        s = self.targets.label_smoothing
        # A smoothed one-hot row: everything gets s / C, the true class the rest
        on, off = 1.0 - s + s / width, s / width
        self._table: Array = None
        if self.targets.infogain is not None:
            self._table = self.be.asarray(self.targets.infogain, model.dtype)
        elif width <= _TABLE_WIDTH:
            self._table = self.be.asarray(np.where(np.eye(width, dtype=bool), on, off), model.dtype)
        self._classes = self.be.asarray(np.arange(width), "int64")
        self._off = filled(self.be, (width,), model.dtype, off)
        self._one_hot = lambda ns, label, classes, off: ns.where(label == classes, on, off)
        floor = s / (width if loss.link == "softmax" else 2.0)
        self._smooth = (lambda ns, t: t * (1.0 - s) + floor) if s else None

    def plan(self, batch: int) -> Plan:
        """Return the plan for batches of `batch` rows, made on first use."""
        if batch not in self._plans:
            plan = Plan(batch)
            n = math.prod(self._own) * batch  # rows of all members
            plan.index = self.workspace.array("index", (n,), "int64")
            if self._from_host:
                plan.raw = self.workspace.array("raw", (n, self.model.sizes[0]))
                plan.position = self.be.asarray(np.arange(n))
            plan.w = filled(self.be, (*self._own, batch), self.model.dtype, 1.0 / batch)
            if self._weight_offset is not None:
                plan.weight_index = self.workspace.array("weight_index", (n,), "int64")
            plan.contexts = self.model.contexts(
                batch, self.workspace.array, train=self._train, grads=self._grads, counter=self.counter
            )
            self._plans[batch] = plan
        return self._plans[batch]

    def __call__(self, rows: np.ndarray) -> None:
        """Process the examples whose indices are `rows`, (B,) or (M, B) int64."""
        batch = rows.shape[-1]
        plan = self.plan(batch)
        self.feed(plan, rows)
        self.tally.saw(batch)
        if plan.replay is None:
            plan.replay = self.be.repeated(lambda: self._run(plan))
        else:
            plan.replay()

    def forget(self) -> None:
        """Drop all captured work, which on a device refers to this object and its plans in turn."""
        for plan in self._plans.values():
            plan.replay = None
        self._plans.clear()

    def feed(self, plan: Plan, rows: Array) -> None:
        """Say which examples the next run of `plan` is about; rows on the device stay there."""
        flat = rows.reshape(-1)
        plan.index[...] = self.be.asarray(flat)
        if plan.raw is not None:
            plan.raw[...] = self.be.asarray(self.examples.x.take_rows(flat), self.model.dtype)

    # --- the captured work ----------------------------------------------------------------------
    def _run(self, plan: Plan) -> None:
        self._forward(plan)

    def _forward(self, plan: Plan) -> Array:
        """Gather, forward, loss and totals; returns dh."""
        be, e, ws, model = self.be, self.examples, self.workspace, self.model
        b = plan.batch
        rows = ws.array("x", (math.prod(self._own) * b, model.sizes[0]))
        x, index = (e.x, plan.index) if plan.raw is None else (plan.raw, plan.position)
        be.gather(x, index, scale=e.scale, shift=e.shift, out=rows)
        plan.x = be.xp.reshape(rows, (*self._own, b, model.sizes[0]))
        t, labels = self._batch_targets(plan)
        w, raw = self._batch_weights(plan)
        h = plan.h = model.forward(plan.x, plan.contexts)
        each = ws.array("loss", (*model.lead, b))
        dh = ws.array("dh", h.shape)
        counted = labels is not None and raw is None and model.task == "classification"
        if counted and type(self.loss) is SoftmaxCrossEntropy and be.one_pass_head(h.shape):
            tally = self.tally
            be.softmax_head(
                h,
                t,
                w,
                labels,
                loss=each,
                out=dh,
                batch_loss=tally.batch_loss,
                total=tally.loss,
                hits=tally.hits,
            )
            return dh
        self.loss(be, h, t, w, loss=each, dh=dh, work=lambda name: ws.array(("loss", name), h.shape))
        self._score(each, w, raw, h, t, labels)
        return dh

    def _score(
        self, each: Array, w: Array, raw: Array | None, h: Array, t: Array, labels: Array | None
    ) -> None:
        self.tally.add(each, w, raw)
        if self.model.task != "regression":
            self.tally.count(h, t, labels)

    def _batch_targets(self, plan: Plan) -> tuple[Array, Array | None]:
        be, e, ws = self.be, self.examples, self.workspace
        n, width, shape = math.prod(self._own) * plan.batch, self.model.sizes[-1], (*self._own, plan.batch)
        t = ws.array("t", (n, width))
        every = be.xp.reshape(t, (*shape, width))
        if e.labels is None:
            be.gather(e.targets, plan.index, out=t)
            if self._smooth is not None:
                be.map(self._smooth, t, out=t)
            if self.model.task == "classification" and width > 1:  # soft labels
                return every, be.argmax(every, out=ws.array("labels", shape, "int64"))
            return every, None
        labels = be.gather(e.labels, plan.index, out=ws.array("labels", (n,), "int64"))
        if self._table is not None:
            be.gather(self._table, labels, out=t)
        else:
            be.map(self._one_hot, be.xp.expand_dims(labels, axis=-1), self._classes, self._off, out=t)
        return every, be.xp.reshape(labels, shape)

    def _batch_weights(self, plan: Plan) -> tuple[Array, Array | None]:
        """Row weights that sum to 1, and the raw ones where examples have weights."""
        be, ws, shape = self.be, self.workspace, (*self._own, plan.batch)
        if self.examples.weights is None:
            return plan.w, None
        flat = ws.array("raw_w", (math.prod(shape),))
        index = plan.index
        if plan.weight_index is not None:
            index = plan.weight_index
            each = be.xp.reshape(plan.index, shape)
            be.map(_add, each, self._weight_offset, out=be.xp.reshape(index, shape))
        be.gather(self._weights, index, out=flat)
        raw = be.xp.reshape(flat, shape)
        total = be.sum(raw, axis=-1, out=ws.array("total_w", self._own))
        column = be.xp.expand_dims(total, axis=-1) if self._own else total
        return be.map(_share, raw, column, out=ws.array("w", shape)), raw

    def run(self, rows: np.ndarray, batch_size: int) -> np.ndarray:
        """Process all `rows` and return the totals."""
        self.tally.reset()
        for start in range(0, rows.shape[-1], batch_size):
            self(rows[..., start : start + batch_size])
        return self.tally.totals()


def _share(ns: Any, raw: Array, total: Array) -> Array:
    # a batch whose weights are all zero has no gradient
    return raw / ns.maximum(total, 1e-30)


def _add(ns: Any, a: Array, b: Array) -> Array:
    return a + b
