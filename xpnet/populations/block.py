"""A block: members that are trained together, epoch by epoch, in batched products.

Members leave a block when they are done and others take their place, so that each may be at an epoch of its own. What
belongs to a member (weights, moments, counters, what is known of its best epoch) goes from block to block with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..backend import Array, Backend
from ..mlp import MLP
from ..params import ParameterLayout
from ..schedules import ReduceOnPlateau, Schedule, rate_factor
from ..training.defaults import EVALUATION_BATCH
from ..training.examples import RowSource
from ..training.history import History
from ..training.judge import Keeper, Standing
from ..training.passes import Pass
from ..training.settings import from_best, means
from ..training.step import TrainingStep, batches
from ..training.update import Regularization
from ..workspace import filled
from .group import Group, mixed_number, mixed_optimizer, mixed_rates
from .members import Member
from .orders import Orders, alike, same
from .results import MemberResult

# Elements of a layer's outputs that an evaluation handles at once: a few arrays of this size fit into the caches.
_EVALUATED = 262_144
# On a device a launch should be worth its while.
_EVALUATED_ON_A_DEVICE = 1 << 25


class _Population(MLP):
    """A population whose weights come from its members."""

    def reset(self) -> None:
        pass


class _Step(TrainingStep):
    """A step of members that may be at different updates: `n_updates` is one number, or one per member."""

    def __init__(self, updates: np.ndarray, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if (updates == updates[0]).all():
            self.n_updates = int(updates[0])
            return
        self.n_updates = np.array(updates)  # type: ignore[assignment]
        # neighbours at the same update draw their random numbers together
        self._first = [0, *(np.flatnonzero(np.diff(updates)) + 1).tolist()]
        self._counters = filled(self.be, (len(self._first),), "int64", 0)
        parts = zip(self._first, [*self._first[1:], len(updates)], strict=True)
        self.counter = [(slice(a, b), self._counters[i : i + 1]) for i, (a, b) in enumerate(parts)]

    def _count(self) -> None:
        if isinstance(self.n_updates, int):
            super()._count()
        else:
            self._counters[...] = self.be.asarray(self.n_updates[self._first])

    def _watch(self) -> None:
        """Nothing: the loss of an epoch says who diverged in it."""


class _Memory:
    """Everything that goes with a member from block to block, for the members of one block.

    Attributes
    ----------
    members : list of Member
    models : list of MLP
        Single models that get the final weights.
    layout : ParameterLayout
        With an axis of members even where there is only one.
    flat : dict of Array
        Weights, moments, and where they are kept the best and the last good weights.
    epochs, updates : (K,) int64
    """

    def __init__(self, members: list[Member], models: list[MLP], layout: ParameterLayout):
        k = len(members)
        self.members, self.models, self.layout = members, models, layout
        self.flat: dict[str, Array] = {}
        self.epochs, self.updates = np.zeros(k, np.int64), np.zeros(k, np.int64)
        self.standing = Standing((k,))
        self.plateau: list[dict[str, float]] = [{} for _ in range(k)]
        self.histories = [History() for _ in range(k)]


class Block:
    """Members of a group that train together.

    Parameters
    ----------
    group : Group
    be : Backend
        Of this block alone.
    fresh : list of (Member, MLP)
        Members that start, with their models.
    before : Block, optional
        A closed one whose remaining members go on here.
    keep : list of int
        Which of its members do.

    Attributes
    ----------
    memory : _Memory
    step : TrainingStep
    validation : Pass or None
    valid_rows : (n,) or (K, n) int64
        The examples that `validation` takes.
    own_order : bool
        Whether each member meets the examples in an order of its own.
    orders : Orders
    """

    def __init__(
        self, group: Group, be: Backend, fresh: list[tuple[Member, MLP]], before: Block | None = None,
        keep: list[int] | None = None,
    ):  # fmt: skip
        self.group, self.be = group, be
        self.memory: _Memory
        old: _Memory | None = before.memory if before is not None else None
        keep = keep or []
        members = [old.members[i] for i in keep] if old else []
        models = [old.models[i] for i in keep] if old else []
        members += [m for m, _ in fresh]
        models += [model for _, model in fresh]
        k = len(members)
        self.population = _Population(
            **mixed_rates(members), n_models=k if k > 1 else None, dtype=group.dtype, device=be,
            seed=[m.seed for m in members] if k > 1 else members[0].seed,
        )  # fmt: skip
        self.population.learns(group.task, group.loss)
        layout = ParameterLayout(self.population.layout.specs, k)
        self.memory = _Memory(members, models, layout)
        if old is not None:
            self._carry_over(old, np.asarray(keep, dtype=np.int64))
        self._make_steps()
        self._fill_buffers(old, keep, [model for _, model in fresh])
        #: Members that were done in an epoch before; they train along, and nobody looks.
        self._over = np.zeros(k, bool)

    def __len__(self) -> int:
        return len(self.memory.members)

    # --- making ---------------------------------------------------------------------------------
    def _carry_over(self, old: _Memory, keep: np.ndarray) -> None:
        new, n = self.memory, len(keep)
        new.epochs[:n], new.updates[:n] = old.epochs[keep], old.updates[keep]
        new.standing.put(np.arange(n), old.standing.take(keep))
        new.plateau[:n] = [old.plateau[i] for i in keep]
        new.histories[:n] = [old.histories[i] for i in keep]

    def _make_steps(self) -> None:
        group, memory, members = self.group, self.memory, self.memory.members
        self._schedules, self._which = _distinct_schedules(memory)
        plateau = any(isinstance(m.schedule, ReduceOnPlateau) for m in members)
        #: Whether one multiplier of the learning rate is right for all members.
        self._alike = len(self._schedules) == 1 and not plateau
        at_different_updates = bool((memory.updates != memory.updates[0]).any())
        each = len(members) > 1 and (not self._alike or at_different_updates)
        regularization = Regularization(
            l1=mixed_number(members, "l1"), l2=mixed_number(members, "l2"),
            **{name: group.training[name] for name in ("max_norm", "clip_norm", "clip_value")}, frozen=group.frozen,
        )  # fmt: skip
        self.own_order = not alike(members, memory.epochs)
        weights = [group.weights.get(m.index) for m in members]
        examples = group.examples
        if weights[0] is not None:
            shared = all(same(w, weights[0]) for w in weights)
            self.own_order = self.own_order or not shared
            joined = weights[0] if shared or len(members) == 1 else np.stack(weights)  # type: ignore[arg-type]
            examples = replace(examples, weights=self.be.asarray(joined))
        self.own_order = self.own_order and len(members) > 1
        self.step = _Step(
            memory.updates, self.population, group.loss, examples, mixed_optimizer(members, each=each),
            regularization, group.targets, own_rows=self.own_order,
        )  # fmt: skip
        on_device = self.step.can_go_ahead
        self.orders = Orders(members, group.n_rows, self.be, own=self.own_order, on_device=on_device)
        self.validation: Pass | None = None
        self.valid_rows: Array = np.arange(0)
        if group.n_valid:
            own = group.held_out is None
            held_out = replace(group.examples, weights=None) if group.held_out is None else group.held_out
            rows = [m.validation_rows for m in members]
            self.valid_rows = rows[0] if own else np.arange(group.n_valid)
            if own and not all(same(r, rows[0]) for r in rows):
                self.valid_rows = np.stack(rows)  # type: ignore[arg-type]
            self.validation = Pass(self.population, group.loss, held_out, own_rows=self.valid_rows.ndim == 2)
            if self.be.shuffles and not isinstance(held_out.x, RowSource):
                self.valid_rows = self.be.asarray(self.valid_rows)  # sent once, not batch by batch
        #: Learning rates, for the records.
        self._lr = np.array([float(m.optimizer.lr) for m in members])  # type: ignore[arg-type]
        self._patience = np.array(
            [np.inf if m.training["patience"] is None else m.training["patience"] for m in members]
        )
        self._min_delta = np.array([m.training["min_delta"] for m in members])
        self._from_best = np.array([from_best(m.training["min_delta_from"]) for m in members])

    def _fill_buffers(self, old: _Memory | None, keep: list[int], fresh: list[MLP]) -> None:
        """Bring weights and what belongs to them into the new buffers, freeing the old ones one by one."""
        be, flat, size = self.be, self.memory.flat, self.population.layout.size
        flat["weights"] = self.population.weights
        flat |= {f"moment.{name}": moment for name, moment in self.step.update.moments.items()}
        for name in ("good", "best") if self.group.restores else ("good",):
            flat[name] = be.empty((size,), self.group.dtype)
        indices = be.asarray(np.asarray(keep, dtype=np.int64))
        for kind, buffer in flat.items():
            views = self.memory.layout.views(be, buffer)
            if old is not None and keep:
                # a moment that the others need may be new: that of SGD where nobody had a momentum
                before = old.flat.pop(kind, None)
                source = None if before is None else old.layout.views(be, before)
                for name, view in views.items():
                    view[: len(keep), ...] = (
                        0.0 if source is None else be.xp.take(source[name], indices, axis=0)
                    )
            if not kind.startswith("moment."):
                for m, model in enumerate(fresh, start=len(keep)):
                    for name, view in views.items():
                        view[m, ...] = be.asarray(model.be.to_numpy(model.params[name]))
        self._keeper = Keeper(be, self.memory.layout, self.group.dtype)

    def close(self, *, entirely: bool) -> None:
        """Free what only training needs, and `entirely` also what goes with members that train on."""
        # formulas refer to the update that made them, which would keep its arrays until cycles are collected
        vars(self.step.update).clear()
        for part in (self.step, self.validation):
            if part is not None:
                part.forget()
        del self.step, self.validation, self.orders, self.valid_rows
        del self._keeper, self.population
        if entirely:
            self.memory.flat.clear()

    # --- running --------------------------------------------------------------------------------
    def epoch(self, check: Callable[[], None] = lambda: None) -> list[int]:
        """Train all members for one epoch and return those that are done with it, by their place in the block.

        Parameters
        ----------
        check : callable
            Called after every step, or all those that a device is told about at once; may raise to stop.
        """
        started = time.perf_counter()
        group, step, size = self.group, self.step, self.group.batch_size
        order = self.orders.draw(self.memory.epochs.tolist())
        step.reset()
        multipliers = self._multipliers()
        batch, whole = 0, group.n_rows // size
        ahead = step.at_once(whole)
        while batch < group.steps_per_epoch:
            k = min(ahead, whole - batch)
            if k > 1:
                step.several(batches(order, batch, k, size), multipliers[batch : batch + k])
                batch += k
            else:
                step.multiplier = multipliers[batch]
                step(order[..., batch * size : (batch + 1) * size])
                batch += 1
            check()
        self.memory.epochs += 1
        self.memory.updates += group.steps_per_epoch
        train = self._per_member(means("train", step.tally.totals(), group.task, group.n_rows))
        valid: dict[str, Any] = {"valid_loss": None, "valid_accuracy": None}
        if self.validation is not None:
            totals = self.validation.run(self.valid_rows, self.evaluation_batch())
            valid = self._per_member(means("valid", totals, group.task, group.n_valid))
        rates = self._lr * multipliers[-1]
        return self._judge(train | valid, rates, time.perf_counter() - started)

    def _multipliers(self) -> list[Any]:
        """What the schedules make of the learning rates at every step of this epoch."""
        n = self.group.steps_per_epoch
        table = np.empty((n, len(self._schedules)))
        for column, (schedule, total_epochs, member) in enumerate(self._schedules):
            first = int(self.memory.updates[member])
            if type(schedule) is Schedule and not schedule.warmup:
                table[:, column] = 1.0
            elif isinstance(schedule, ReduceOnPlateau):
                table[:, column] = self.memory.plateau[member].get("multiplier", 1.0)
            else:
                total = total_epochs * n
                table[:, column] = [rate_factor(schedule, first + s, total, n) for s in range(n)]
        if self._alike:
            return table[:, 0].tolist()
        return list(table[:, self._which])

    def evaluation_batch(self) -> int:
        """Rows that an evaluation handles at once."""
        if len(self) == 1:
            return EVALUATION_BATCH
        widest = max(self.population.sizes[1:])
        elements = _EVALUATED if self.be.device == "cpu" else _EVALUATED_ON_A_DEVICE
        return int(np.clip(elements // (len(self) * widest), 32, EVALUATION_BATCH))

    def _per_member(self, record: dict[str, Any]) -> dict[str, Any]:
        """Numbers of a record as (K,) arrays; a population without its axis gets it back."""
        return {
            k: None if v is None else np.reshape(np.asarray(v, dtype=float), (-1,)) for k, v in record.items()
        }

    # --- judging --------------------------------------------------------------------------------
    def _judge(self, values: dict[str, Any], rates: np.ndarray, seconds: float) -> list[int]:
        group, memory = self.group, self.memory
        weights = self.population.weights
        # the gradients are scratch: nobody needs them now
        finite = np.isfinite(values["train_loss"]) & self._keeper.finite(weights, self.step.grad_buffer)
        better = memory.standing.judge(
            group.monitor, values, epoch=memory.epochs, patience=self._patience, min_delta=self._min_delta,
            from_best=self._from_best, out_of_race=~finite,
        )  # fmt: skip
        self._keeper.copy(weights, memory.flat["good"], finite)
        if group.restores:
            self._keeper.copy(weights, memory.flat["best"], better)
        share = seconds / len(self)
        speed = group.n_rows / max(share, 1e-9)
        # lists, because each number becomes a Python number in a record
        columns: dict[str, list[Any]] = {"epoch": memory.epochs.tolist(), "step": memory.updates.tolist()}
        columns |= {k: [None] * len(self) if v is None else v.tolist() for k, v in values.items()}
        columns["lr"] = rates.tolist()
        exhausted = (memory.standing.bad_epochs >= self._patience).tolist()
        done = []
        for m, numbers in enumerate(zip(*columns.values(), strict=True)):
            if self._over[m]:
                continue
            if not finite[m]:
                done.append(m)
                continue
            record: dict[str, Any] = dict(zip(columns, numbers, strict=True))
            record["seconds"], record["samples_per_second"] = share, speed
            memory.histories[m].append(record)
            member = memory.members[m]
            if isinstance(member.schedule, ReduceOnPlateau):
                watched = record["train_loss"] if record["valid_loss"] is None else record["valid_loss"]
                memory.plateau[m] = member.schedule.observe(memory.plateau[m], watched)
            if exhausted[m] or record["epoch"] >= member.training["epochs"]:
                done.append(m)
        self._finite = finite
        self._over[done] = True
        return done

    # --- results --------------------------------------------------------------------------------
    def result(self, m: int) -> MemberResult:
        """Return the result of a member that is done, with its weights in its own model."""
        memory, member = self.memory, self.memory.members[m]
        history, model = memory.histories[m], memory.models[m]
        best = int(memory.standing.best_at[m])
        diverged = not self._finite[m]
        kind = "best" if self.group.restores and best else "good" if diverged else "weights"
        source = memory.layout.views(self.be, memory.flat[kind])
        for name, view in model.params.items():
            view[...] = model.be.asarray(self.be.to_numpy(source[name][m, ...]))
        model.learns(self.group.task, self.group.loss)
        if kind == "best":
            history.best_epoch, history.best_epochs = best, [best]
        error = None
        if diverged:
            history.stopped, history.diverged = "diverged", [0]
            n = self.group.steps_per_epoch
            last = int(memory.updates[m])
            error = (
                f"training diverged in epoch {int(memory.epochs[m])}, steps {last - n + 1} to {last}: the loss or the "
                f"weights are no longer finite. The model has {'its best' if kind == 'best' else 'the last good'} "
                "weights. Try a smaller learning rate, clip_norm=1, or inputs scaled to about 0..1."
            )
        elif memory.standing.bad_epochs[m] >= self._patience[m]:
            history.stopped = "early_stopping"
        return finished(member, model, history, self.group.monitor, error=error)


def finished(
    member: Member, model: MLP, history: History, monitor: str, *, error: str | None = None
) -> MemberResult:
    """The result of a member that is done."""
    return MemberResult(
        index=member.index, configuration=member.configuration, model=model, history=history,
        stopped=history.stopped, monitor=monitor, error=error,
    )  # fmt: skip


def _distinct_schedules(memory: _Memory) -> tuple[list[tuple[Schedule, int, int]], np.ndarray]:
    """The different courses of learning rates, as (schedule, epochs, a member), and which one each member follows."""
    courses: list[tuple[Schedule, int, int]] = []
    known: dict[Any, int] = {}
    which = np.empty(len(memory.members), np.int64)
    for m, member in enumerate(memory.members):
        schedule, epochs = member.schedule, member.training["epochs"]
        constant = type(schedule) is Schedule and not schedule.warmup
        key: Any = (_identity(schedule), epochs, int(memory.updates[m]))
        key = "constant" if constant else (*key, m) if isinstance(schedule, ReduceOnPlateau) else key
        if key not in known:
            known[key] = len(courses)
            courses.append((schedule, epochs, m))
        which[m] = known[key]
    return courses, which


def _identity(schedule: Schedule) -> Any:
    try:
        hash(schedule)
    except TypeError:
        return id(schedule)
    return (type(schedule), schedule)
