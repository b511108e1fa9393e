"""A training step and an evaluation, as objects that own every buffer they touch.

The work of a step is a fixed list of back-end operations on fixed buffers; what changes from step to step (the
rows of the batch, the learning rate, the random counter) is written into small arrays first. So the back end can
capture a step once and repeat it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .backend import Array, Backend
from .errors import ConfigError
from .examples import Examples, RowSource
from .layers import Context
from .losses import Loss, SoftmaxCrossEntropy
from .mlp import MLP
from .optim import Optimizer
from .update import Regularization, Update
from .workspace import Workspace


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


class _Plan:
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
        self.ahead: _Ahead | None = None


class _Ahead:
    """What several steps of one plan need, told to the device at once; `cursor` says which of them is next."""

    def __init__(
        self, capacity: int, rows: tuple[int, ...], n_numbers: int, counters: Array, be: Backend, dtype: str
    ):
        self.capacity = capacity
        self.rows = be.empty((capacity, *rows), "int64")
        self.numbers = be.empty((capacity, n_numbers), dtype)
        # as often as there are counters of the random streams, so that one operation moves them all
        self.cursor = be.empty(counters.shape, "int64")
        self.one: Callable[[], None] | None = None
        self.all: Callable[[], None] | None = None


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
        self._plans: dict[int, _Plan] = {}
        self.counter = self._filled((1,), "int64", 0)
        self._totals = [self._filled(model.lead, "float64", 0.0) for _ in range(3)]
        self._batch_loss = self._filled(model.lead, model.dtype, 0.0)
        self._batch_weight = 1.0  # what to divide it by for a mean
        self._n_seen = 0  # examples since `reset`; their weight where they have no weights of their own
        self._weights: Array = examples.weights
        self._weight_offset: Array = None
        if examples.weights is not None and len(examples.weights.shape) == 2:
            m, n = examples.weights.shape
            self._weights = self.be.xp.reshape(examples.weights, (m * n,))
            self._weight_offset = self.be.asarray(np.arange(m)[:, None] * n)
        self._zero = self._filled((1,), model.dtype, 0.0)
        self._one = self._filled((1,), model.dtype, 1.0)
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
        self._off = self._filled((width,), model.dtype, off)
        self._one_hot = lambda ns, label, classes, off: ns.where(label == classes, on, off)
        floor = s / (width if loss.link == "softmax" else 2.0)
        self._smooth = (lambda ns, t: t * (1.0 - s) + floor) if s else None
        limit = loss.threshold
        self._hit_each = lambda ns, h, t, zero: ns.where(
            h > limit, ns.where(t > 0.5, 1.0, zero), ns.where(t > 0.5, zero, 1.0)
        )

    def _filled(self, shape: tuple[int, ...], dtype: str, value: float) -> Array:
        array = self.be.empty(shape, dtype)
        array[...] = value
        return array

    def plan(self, batch: int) -> _Plan:
        """Return the plan for batches of `batch` rows, made on first use."""
        if batch not in self._plans:
            plan = _Plan(batch)
            n = math.prod(self._own) * batch  # rows of all members
            plan.index = self.workspace.array("index", (n,), "int64")
            if self._from_host:
                plan.raw = self.workspace.array("raw", (n, self.model.sizes[0]))
                plan.position = self.be.asarray(np.arange(n))
            plan.w = self._filled((*self._own, batch), self.model.dtype, 1.0 / batch)
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
        self._n_seen += batch
        self._batch_weight = 1.0 if self.examples.weights is not None else float(batch)
        if plan.replay is None:
            plan.replay = self.be.repeated(lambda: self._run(plan))
        else:
            plan.replay()

    def forget(self) -> None:
        """Drop all captured work, which on a device refers to this object and its plans in turn."""
        for plan in self._plans.values():
            plan.replay = plan.ahead = None
        self._plans.clear()

    def feed(self, plan: _Plan, rows: Array) -> None:
        """Say which examples the next run of `plan` is about; rows on the device stay there."""
        flat = rows.reshape(-1)
        plan.index[...] = self.be.asarray(flat)
        if plan.raw is not None:
            plan.raw[...] = self.be.asarray(self.examples.x.take_rows(flat), self.model.dtype)

    # --- the captured work ----------------------------------------------------------------------
    def _run(self, plan: _Plan) -> None:
        self._forward(plan)

    def _forward(self, plan: _Plan) -> Array:
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
            total, _, hits = self._totals
            be.softmax_head(
                h, t, w, labels, loss=each, out=dh, batch_loss=self._batch_loss, total=total, hits=hits
            )
            return dh
        self.loss(be, h, t, w, loss=each, dh=dh, work=lambda name: ws.array(("loss", name), h.shape))
        self._add_totals(each, w, raw, b)
        self._count_hits(h, t, labels)
        return dh

    def _batch_targets(self, plan: _Plan) -> tuple[Array, Array | None]:
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

    def _batch_weights(self, plan: _Plan) -> tuple[Array, Array | None]:
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

    def _add_totals(self, each: Array, w: Array, raw: Array | None, b: int) -> None:
        be, ws = self.be, self.workspace
        loss, weight, _ = self._totals
        if raw is None:
            be.sum(each, axis=-1, out=self._batch_loss)
            be.map(_add, loss, self._batch_loss, out=loss)
            return
        weighted = be.map(_times, each, w, out=ws.array("weighted_loss", each.shape))
        be.sum(weighted, axis=-1, out=self._batch_loss)
        total = be.sum(raw, axis=-1, out=ws.array("total_w", self._own))
        be.map(_add_times, loss, self._batch_loss, total, out=loss)
        be.map(_add, weight, total, out=weight)

    def _count_hits(self, h: Array, t: Array, labels: Array | None) -> None:
        be, ws, lead = self.be, self.workspace, self.model.lead
        if self.model.task == "regression":
            return
        b, width = h.shape[-2:]
        hits = self._totals[2]
        correct = ws.array("correct", (*lead, b))
        if labels is not None:
            predicted = be.argmax(h, out=ws.array("predicted", (*lead, b), "int64"))
            be.map(_equal, predicted, labels, self._one, out=correct)
        else:
            each = be.map(self._hit_each, h, t, self._zero, out=ws.array("correct_each", h.shape))
            be.sum(each, axis=-1, out=correct)
        count = be.sum(correct, axis=-1, out=ws.array("n_correct", lead))
        if labels is None:
            be.map(lambda ns, x: x * (1.0 / width), count, out=count)
        be.map(_add, hits, count, out=hits)

    # --- reading --------------------------------------------------------------------------------
    def totals(self) -> np.ndarray:
        """Return the sums since `reset`: weighted loss, weight, correct answers; shape (3, ...). Waits."""
        values = np.stack([np.array(self.be.to_numpy(t), dtype=np.float64) for t in self._totals])
        if self.examples.weights is None:
            values[1] = self._n_seen
        return values

    def set_totals(self, values: np.ndarray) -> None:
        """Continue from sums that `totals` returned."""
        for total, value in zip(self._totals, values, strict=True):
            total[...] = self.be.asarray(np.asarray(value, dtype=np.float64))
        if self.examples.weights is None:
            self._n_seen = round(float(np.ravel(values[1])[0]))

    def reset(self) -> None:
        """Start the sums at zero."""
        self._n_seen = 0
        for total in self._totals:
            total[...] = 0.0

    def last_loss(self) -> np.ndarray:
        """Mean loss of the last batch, per model. Waits for the device."""
        return np.asarray(self.be.to_numpy(self._batch_loss) / self._batch_weight)

    def is_finite(self) -> bool:
        """Whether the loss of the last batch is finite, for every model. Waits for the device."""
        values = self.be.to_numpy(self._batch_loss)
        return math.isfinite(values) if values.ndim == 0 else bool(np.isfinite(values).all())

    def run(self, rows: np.ndarray, batch_size: int) -> np.ndarray:
        """Process all `rows` and return the totals."""
        self.reset()
        for start in range(0, rows.shape[-1], batch_size):
            self(rows[..., start : start + batch_size])
        return self.totals()


class TrainingStep(Pass):
    """One step of training: forward, loss, backward, update.

    Parameters
    ----------
    model : MLP
    loss : Loss
    examples : Examples
    optimizer : Optimizer
    regularization : Regularization, optional
    targets : Targets, optional
    own_rows : bool, default False
        As for `Pass`.

    Examples
    --------
    >>> from xpnet.losses import get_loss
    >>> from xpnet.optim import SGD
    >>> model = MLP([2, 1]); model.task = "regression"
    >>> x, y = model.be.asarray([[1.0, 2.0]], "float32"), model.be.asarray([[3.0]], "float32")
    >>> step = TrainingStep(model, get_loss("squared_error"), Examples(x, 1, targets=y), SGD(lr=0.1))
    >>> step(np.array([0])); before = float(step.last_loss())
    >>> step(np.array([0])); bool(step.last_loss() < before)
    True
    """

    def __init__(
        self, model: MLP, loss: Loss, examples: Examples, optimizer: Optimizer,
        regularization: Regularization | None = None, targets: Targets | None = None, *, own_rows: bool = False,
    ):  # fmt: skip
        super().__init__(model, loss, examples, targets=targets, train=True, own_rows=own_rows)
        if self.targets.label_smoothing and loss.name not in (
            "softmax_cross_entropy",
            "binary_cross_entropy",
        ):
            raise ConfigError(f"label_smoothing needs a cross-entropy loss, not {loss.name}")
        if self.targets.infogain is not None and not isinstance(loss, SoftmaxCrossEntropy):
            raise ConfigError(
                f"an information-gain matrix needs the softmax_cross_entropy loss, not {loss.name}"
            )
        if self.targets.infogain is not None and examples.labels is None:
            raise ConfigError("an information-gain matrix needs class indices as targets, not rows")
        self.grad_buffer = self.be.empty((model.layout.size,), model.dtype)
        self.grads = model.layout.views(self.be, self.grad_buffer)
        self._grads = self.grads
        self.regularization = regularization or Regularization()
        self.update = Update(
            self.be,
            model.layout,
            model.weights,
            self.grad_buffer,
            optimizer,
            self.regularization,
            model.dtype,
        )
        #: Updates done so far; also the position of the random streams.
        self.n_updates = 0
        #: What the schedule makes of the learning rate at the next step.
        self.multiplier = 1.0
        # Of steps done ahead, the number of the first whose loss was not finite, per model; -1 where none was
        self._first_bad = self._filled(model.lead, "float64", -1.0)
        #: All counters of the random streams in one array, which a step done ahead moves on.
        self._counters = self.counter
        self._number = self.be.xp.reshape(self.counter, ())

    def __call__(self, rows: np.ndarray) -> None:
        """Train on the examples whose indices are `rows`, (B,) or (M, B) int64."""
        self._count()
        self.update.set_numbers(self.n_updates + 1, self.multiplier)
        super().__call__(rows)
        self.n_updates += 1

    def _count(self) -> None:
        """Say which step the random streams are at."""
        self.counter[...] = self.n_updates

    def _run(self, plan: _Plan) -> None:
        self.gradients(plan)
        self.update.apply()

    # --- several steps at once ------------------------------------------------------------------
    @property
    def can_go_ahead(self) -> bool:
        """Whether `several` can be used: all examples are on the device."""
        return not self._from_host

    def at_once(self, n: int) -> int:
        """How many of `n` steps in a row the device had better be told about at once; 1 where each by itself."""
        be = self.be
        if not be.captures or not self.can_go_ahead or self.model.layout.size > be.ahead_size:
            return 1
        most = min(be.steps_ahead, n)
        # as few calls as possible, where those that are left over at the end come one by one
        k = min(range(most, most // 2, -1), key=lambda k: n // k + n % k, default=1)
        return k if k >= be.least_ahead else 1

    def several(self, rows: Array, multipliers: Sequence[Any]) -> None:
        """Train on K batches, one after the other; K at most `Backend.steps_ahead`.

        Gives what K calls give. The device is told everything first, so it does not wait for the host between two
        steps; in return nothing can be read between them, and `first_bad` says later whether all went well.

        Parameters
        ----------
        rows : (K, B) or (K, M, B) int64
            On the host or on the device; see `batches`.
        multipliers : sequence of K
            What the schedule makes of the learning rate at each step; (M,) each where members differ.
        """
        be, k, batch = self.be, len(rows), rows.shape[-1]
        plan = self.plan(batch)
        numbers = self.update.numbers_ahead([self.n_updates + 1 + i for i in range(k)], multipliers)
        if plan.ahead is None or plan.ahead.capacity < k:
            each = (*self._own, batch)
            plan.ahead = _Ahead(k, each, numbers.shape[1], self._counters, be, self.model.dtype)
        ahead = plan.ahead
        ahead.rows[:k, ...] = be.asarray(rows)
        ahead.numbers[:k, ...] = be.asarray(numbers, self.model.dtype)
        ahead.cursor[...] = 0
        self._count()
        done = 0
        if ahead.one is None:
            ahead.one, done = be.repeated(lambda: self._next(plan)), 1
        if k == ahead.capacity and not done:
            if ahead.all is None:
                ahead.all = be.in_a_row(ahead.one, k)
            ahead.all()
        else:
            for _ in range(done, k):
                ahead.one()
        self._n_seen += k * batch
        self._batch_weight = 1.0 if self.examples.weights is not None else float(batch)
        self.multiplier = multipliers[-1]
        self.n_updates += k

    def _next(self, plan: _Plan) -> None:
        """Do the step that the cursor points at."""
        be, ahead = self.be, plan.ahead
        assert ahead is not None
        row = ahead.cursor[:1]
        n = math.prod(plan.index.shape)
        be.gather(be.xp.reshape(ahead.rows, (-1, n)), row, out=be.xp.reshape(plan.index, (1, n)))
        self.update.use_row(ahead.numbers, row)
        self._run(plan)
        self._watch()
        be.map(_advance, self._counters, ahead.cursor, out=(self._counters, ahead.cursor))

    def _watch(self) -> None:
        """Keep the number of the first step whose loss is not finite."""
        self.be.map(_first_bad, self._first_bad, self._batch_loss, self._number, out=self._first_bad)

    def first_bad(self) -> np.ndarray:
        """Per model, the number (from 0) of the first update since `reset` whose loss was not finite, or -1.

        Counts the steps of `several` only. Waits for the device.
        """
        return np.asarray(self.be.to_numpy(self._first_bad)).astype(np.int64)

    def reset(self) -> None:
        super().reset()
        self._first_bad[...] = -1.0

    def gradients(self, plan: _Plan) -> None:
        """Fill the gradients of the mean loss (penalties not included) for the batch in `plan.index`."""
        dh = self._forward(plan)
        self.model.backward(dh, plan.contexts)


def batches(order: Array, first: int, k: int, size: int) -> Array:
    """Batches number `first` to `first` + `k` of an order (N,) or (M, N), as (K, B) or (K, M, B).

    Examples
    --------
    >>> batches(np.arange(7), 1, 2, 2).tolist()
    [[2, 3], [4, 5]]
    """
    rows = order[..., first * size : (first + k) * size]
    if rows.ndim == 1:
        return rows.reshape(k, size)
    return rows.reshape(rows.shape[0], k, size).transpose(1, 0, 2)


def _first_bad(ns: Any, first: Array, loss: Array, number: Array) -> Array:
    finite = (loss - loss) == 0.0  # infinities and NaN give NaN
    return ns.where((first < 0.0) & ~finite, number, first)


def _advance(ns: Any, counter: Array, cursor: Array) -> tuple[Array, Array]:
    return counter + 1, cursor + 1


def _share(ns: Any, raw: Array, total: Array) -> Array:
    # a batch whose weights are all zero has no gradient
    return raw / ns.maximum(total, 1e-30)


def _times(ns: Any, a: Array, b: Array) -> Array:
    return a * b


def _add(ns: Any, a: Array, b: Array) -> Array:
    return a + b


def _add_times(ns: Any, a: Array, b: Array, c: Array) -> Array:
    return a + b * c


def _equal(ns: Any, a: Array, b: Array, one: Array) -> Array:
    return ns.where(a == b, one, 0.0)
