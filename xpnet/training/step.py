"""A training step: an object that owns every buffer it touches, so that it can be captured once and repeated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend import Array, Backend
from ..errors import ConfigError
from ..losses import Loss, SoftmaxCrossEntropy
from ..mlp import MLP
from ..optim import Optimizer
from ..workspace import filled
from .examples import Examples
from .passes import Pass, Plan, Targets
from .update import Regularization, Update


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
    >>> step(np.array([0])); before = float(step.tally.last_loss())
    >>> step(np.array([0])); bool(step.tally.last_loss() < before)
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
        self._aheads: dict[int, _Ahead] = {}  # by the size of the batch
        #: Updates done so far; also the position of the random streams.
        self.n_updates = 0
        #: What the schedule makes of the learning rate at the next step.
        self.multiplier = 1.0
        # Of steps done ahead, the number (from 1) of the first whose loss was not finite, per model; 0 where none was
        self._first_bad = filled(self.be, model.lead, "float64", 0.0)
        # The updates before the loss that is looked at next: a count of its own, so that the counters below can move
        # on while a step goes on
        self._watched = filled(self.be, model.lead, "float64", 0.0)
        #: All counters of the random streams in one array, which a step done ahead moves on.
        self._counters = self.counter

    def __call__(self, rows: np.ndarray) -> None:
        """Train on the examples whose indices are `rows`, (B,) or (M, B) int64."""
        self._count()
        self.update.set_numbers(self.n_updates + 1, self.multiplier)
        super().__call__(rows)
        self.n_updates += 1

    def _count(self) -> None:
        """Say which step the random streams are at."""
        self.counter[...] = self.be.asarray([self.n_updates], "int64")

    def _run(self, plan: Plan) -> None:
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
        ahead = self._aheads.get(batch)
        if ahead is None or ahead.capacity < k:
            each = (*self._own, batch)
            ahead = _Ahead(k, each, numbers.shape[1], self._counters, be, self.model.dtype)
            self._aheads[batch] = ahead
        if self._own:  # batches of members lie side by side in an order: not a copy of neighbours
            be.map(_same, be.asarray(rows), out=ahead.rows[:k, ...])
        else:
            ahead.rows[:k, ...] = be.asarray(rows)
        ahead.numbers[:k, ...] = be.asarray(numbers, self.model.dtype)
        ahead.cursor[...] = 0
        self._count()
        self._watched[...] = be.asarray(np.full(self.model.lead, self.n_updates, "float64"))
        done = 0
        if ahead.one is None:
            ahead.one, done = be.repeated(lambda: self._next(plan, ahead)), 1
        if k == ahead.capacity and not done:
            if ahead.all is None:
                ahead.all = be.in_a_row(ahead.one, k)
            ahead.all()
        else:
            for _ in range(done, k):
                ahead.one()
        self.tally.saw(batch, k)
        self.multiplier = multipliers[-1]
        self.n_updates += k

    def ahead(self, batch: int, *, whole: bool = False) -> Any:
        """Return the captured step that `several` repeats on batches of `batch`; None before it was called.

        With `whole`, what does all the steps of a call instead, which is made at the second call.
        """
        if batch not in self._aheads:
            return None
        return self._aheads[batch].all if whole else self._aheads[batch].one

    def _next(self, plan: Plan, ahead: _Ahead) -> None:
        """Do the step that the cursor points at.

        They are in the order in which a device had better begin them: once all that read the cursor are done it moves
        on, so that the next step fetches its batch while this one is still on its way back.
        """
        be = self.be
        row = ahead.cursor[:1]
        n = math.prod(plan.index.shape)
        be.gather(be.xp.reshape(ahead.rows, (-1, n)), row, out=be.xp.reshape(plan.index, (1, n)))
        self.update.use_row(ahead.numbers, row)
        dh = self._forward(plan)
        be.map(_advance, self._counters, ahead.cursor, out=(self._counters, ahead.cursor))
        self.model.backward(dh, plan.contexts)
        self.update.apply()
        self._watch()

    def _watch(self) -> None:
        """Keep the number of the first step whose loss is not finite."""
        state = (self._first_bad, self._watched)
        self.be.map(_first_bad, *state, self.tally.batch_loss, out=state)

    def first_bad(self) -> np.ndarray:
        """Per model, the number (from 0) of the first update since `reset` whose loss was not finite, or -1.

        Counts the steps of `several` only. Waits for the device.
        """
        return np.asarray(self.be.to_numpy(self._first_bad)).astype(np.int64) - 1

    def reset(self) -> None:
        """Start the sums of an epoch at zero."""
        self.tally.reset()
        self._first_bad[...] = 0.0

    def forget(self) -> None:
        super().forget()
        self._aheads.clear()

    def gradients(self, plan: Plan) -> None:
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


def _first_bad(ns: Any, first: Array, watched: Array, loss: Array) -> tuple[Array, Array]:
    finite = (loss - loss) == 0.0  # infinities and NaN give NaN
    number = watched + 1.0
    return ns.where((first == 0.0) & ~finite, number, first), number


def _same(ns: Any, x: Array) -> Array:
    return x


def _advance(ns: Any, counter: Array, cursor: Array) -> tuple[Array, Array]:
    return counter + 1, cursor + 1
