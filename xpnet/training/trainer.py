"""The state of a training, and the loop over its epochs."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .. import memory, rng
from ..callbacks import Callback, EpochTable, LayerStatistics
from ..errors import ConfigError, explained
from ..interchange import arrive, column_names
from ..losses import Loss, get_loss
from ..mlp import MLP
from ..optim import Optimizer, get_optimizer
from ..schedules import ReduceOnPlateau, Schedule, get_schedule, rate_factor
from . import resume
from .classweight import ClassWeight
from .defaults import EVALUATION_BATCH
from .divergence import Divergence
from .examples import TASKS, default_loss, infer_task, pair, prepare
from .failures import device_errors
from .history import History, Record
from .judge import Judge
from .order import Order
from .passes import Pass, Targets
from .settings import (
    HINTS,
    PAIRED,
    check_callbacks,
    check_combination,
    check_infogain,
    check_monitor,
    flag,
    from_best,
    frozen_parameters,
    least_change,
    means,
    whole_number,
)
from .signals import Signals
from .step import TrainingStep, batches
from .update import Regularization

CHECK_EVERY = 256  # steps done ahead between two looks at whether the loss is still finite
#: What makes a training fit, by the part of its memory that is the largest.
_ADVICE = {
    "parameters": "Use narrower layers, or SGD, which keeps less per weight.",
    "activations": "Use smaller batches, or narrower layers.",
}
_NO_STEP, _NO_METRICS = Callback.on_step_end, Callback.on_evaluate  # what a callback has that does neither


class Trainer:
    """A model, its data and everything that training changes.

    Parameters are those of `fit`, which is this class run once.

    Attributes
    ----------
    epoch, batch : int
        Epochs finished, and batches finished within the current one.
    step : TrainingStep
    history : History
    judge : Judge
        What it remembers of each member: the best weights, patience, divergence.
    best_epoch : int or None
    order : (N,) int64
        The order of examples in the current epoch, on the host; computed when asked for where the device has its own.
    elapsed : float
        Seconds spent in the current epoch.

    Examples
    --------
    >>> trainer = Trainer(MLP([1, 2]), ([[0.0], [1.0]], [0, 1]), epochs=3, batch_size=1)
    >>> len(trainer.run()), trainer.epoch, trainer.steps_per_epoch
    (3, 3, 2)
    """

    @explained("option of Trainer", positional=PAIRED.format("Trainer"), hints=HINTS)
    def __init__(
        self, model: MLP, data: tuple[Any, Any], *, validation: tuple[Any, ...] | None = None,
        loss: str | Loss | None = None, task: str | None = None, optimizer: str | Optimizer = "adam", lr: Any = None,
        schedule: str | Schedule | None = None, l1: Any = 0.0, l2: Any = 0.0, max_norm: float | None = None,
        clip_norm: float | None = None, clip_value: float | None = None, label_smoothing: float = 0.0,
        infogain: Any = None, sample_weight: Any = None,
        class_weight: ClassWeight = None,
        epochs: int = 10, batch_size: int = 128, shuffle: bool = True, seed: int | None = None,
        patience: int | None = None, min_delta: float = 0.0, min_delta_from: str = "improvement",
        monitor: str | None = None, mode: str | None = None, restore_best: bool = True,
        callbacks: Sequence[Callback] = (), statistics: bool = False, verbose: bool = False,
        threads: int | None = None, one_class: bool = False, freeze: Sequence[int | str] = (),
    ):  # fmt: skip
        x, y = pair("data", data, model.be)
        if isinstance(validation, (tuple, list)):
            validation = tuple(
                arrive(part, model.be, f"part {i} of validation") for i, part in enumerate(validation)
            )
        sample_weight = arrive(sample_weight, model.be, "sample_weight")
        self.model = model
        chosen = None if loss is None else get_loss(loss)
        if task is not None and task not in TASKS:
            raise ConfigError(f"task must be one of {', '.join(TASKS)}, found {task!r}")
        self.task = task or infer_task(y, chosen, model.sizes[-1])
        self.loss = chosen or default_loss(self.task, model.sizes[-1])
        check_combination(self.loss, self.task, model)
        self.optimizer = get_optimizer(optimizer, **({} if lr is None else {"lr": lr}))
        self.schedule = get_schedule(schedule)
        self._constant = type(self.schedule) is Schedule and not self.schedule.warmup
        if isinstance(self.schedule, ReduceOnPlateau) and model.n_models is not None:
            # each member watches its own loss, so each needs a rate of its own
            rates = np.broadcast_to(np.asarray(self.optimizer.lr, dtype=float), model.lead)
            self.optimizer = replace(self.optimizer, lr=rates.tolist())
        self.epochs = whole_number("epochs", epochs, 0)
        self.batch_size = whole_number("batch_size", batch_size, 1)
        patience = None if patience is None else whole_number("patience", patience, 1)
        min_delta = least_change(min_delta)
        self.threads = None if threads is None else whole_number("threads", threads, 1)
        self.shuffle = flag("shuffle", shuffle)
        restore_best, statistics = flag("restore_best", restore_best), flag("statistics", statistics)
        self.seed = rng.check_seed(model.seeds[0] if seed is None else seed)
        regularization = Regularization(
            l1=l1,
            l2=l2,
            max_norm=max_norm,
            clip_norm=clip_norm,
            clip_value=clip_value,
            frozen=frozen_parameters(freeze, model),
        )
        targets = Targets(label_smoothing=label_smoothing, infogain=check_infogain(infogain, model))
        examples = prepare(
            model, x, y, loss=self.loss, task=self.task, sample_weight=sample_weight,
            class_weight=class_weight, training=not flag("one_class", one_class),
        )  # fmt: skip
        self._of_data = resume.Fingerprint(x, y)
        model.learns(self.task, self.loss)
        model.feature_names = column_names(data[0])
        self._check_memory(examples.n)
        self.step = TrainingStep(model, self.loss, examples, self.optimizer, regularization, targets)
        self._validation: Pass | None = None
        if validation is not None:
            weighted = isinstance(validation, (tuple, list)) and len(validation) == 3
            xv, yv = pair("validation", validation[:2] if weighted else validation, model.be)
            model.check_names(xv, "validation X")
            held_out = prepare(
                model,
                xv,
                yv,
                loss=self.loss,
                task=self.task,
                sample_weight=validation[2] if weighted else None,
                name="validation ",
                training=False,
            )
            self._validation = Pass(model, self.loss, held_out)
        self._of_validation = None if validation is None else resume.Fingerprint(*validation)
        self.callbacks: list[Callback] = check_callbacks(callbacks)
        adds = any(getattr(c.on_evaluate, "__func__", None) is not _NO_METRICS for c in self.callbacks)
        self.monitor, largest = check_monitor(
            monitor, self.task, mode=mode, validated=self._validation is not None, own=adds
        )
        if statistics:
            self.callbacks.insert(0, LayerStatistics())
        if flag("verbose", int(verbose) > 0 if isinstance(verbose, (int, np.integer)) else verbose):
            self.callbacks.append(EpochTable())
        self.epoch = self.batch = 0
        self.history = History()
        shuffles = model.be.shuffles and self.step.can_go_ahead
        self._order = Order(examples.n, self.seed, shuffle=self.shuffle, be=model.be if shuffles else None)
        self.elapsed = 0.0
        self.judge = Judge(
            model, self.step.grad_buffer, self.monitor, largest=largest, schedule=self.schedule, patience=patience,
            min_delta=min_delta, from_best=from_best(min_delta_from),
            restores=restore_best and self._validation is not None,
        )  # fmt: skip
        self._divergence = Divergence(self.step, self.judge)
        #: The weights to go on from, while the model has the best ones.
        self._latest: np.ndarray | None = None
        self._signals = Signals()
        self._stop_reason: str | None = None

    def _check_memory(self, n: int) -> None:
        """Refuse what a large network needs beside its weights where so much is not free."""
        model = self.model
        if model.layout.size < memory.LARGE:
            return
        plan = memory.plan_training(
            list(model.sizes), batch=min(self.batch_size, n), moments=len(self.optimizer.state), dtype=model.dtype,
            n_models=model.n_models or 1, host=True, precision=model.be.precision,
        )  # fmt: skip
        network = "-".join(map(str, model.sizes))
        memory.check(replace(plan, weights=0), model.be, f"the network {network}", advice=_ADVICE)

    # --- where we are ---------------------------------------------------------------------------
    @property
    def order(self) -> np.ndarray:
        """The order of examples in the current epoch, (N,) int64."""
        return self._order.host()

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What tells the training data from others; data on a device come to the host for it."""
        return self._of_data()

    @property
    def validation_fingerprint(self) -> dict[str, Any] | None:
        """The same of the validation data, where there are any."""
        return None if self._of_validation is None else self._of_validation()

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch; the last one may be smaller."""
        return math.ceil(self.step.examples.n / self.batch_size)

    @property
    def n_validation(self) -> int:
        """Examples of the validation set; 0 without one."""
        return 0 if self._validation is None else self._validation.examples.n

    @property
    def best_epoch(self) -> int | None:
        """Epoch of the best monitored value (of a population's first member); None before the first."""
        return int(self.judge.best_at.flat[0]) or None

    @property
    def best_epochs(self) -> list[int]:
        """Epoch of the best monitored value per member, 0 before the first; one entry for a single model."""
        return self.judge.best_at.reshape(-1).tolist()

    @property
    def diverged(self) -> np.ndarray:
        """Members whose loss or weights are no longer finite; bool (M,), or () for a single model."""
        return self.judge.diverged

    @property
    def last_loss(self) -> Any:
        """The mean loss of the last batch, one per member of a population; waits for the device."""
        loss = self.step.tally.last_loss()
        return loss if loss.ndim else float(loss)

    def latest_weights(self) -> np.ndarray:
        """The flat weights to go on from, on the host; after training the model may have better ones."""
        weights = self.model.be.to_numpy(self.model.weights) if self._latest is None else self._latest
        return np.asarray(weights)

    def tuned(self) -> AbstractContextManager[Any]:
        """Return the context that `run` trains in: as many threads of the matrix library as the network gains from."""
        rows = min(self.batch_size, self.step.examples.n)
        largest = max(math.prod(spec.shape) for spec in self.model.layout.specs)
        return self.model.be.tuned(rows * largest, self.threads)

    def stop(self, reason: str) -> None:
        """End training after the current batch, or after the epoch when called at its end."""
        self._stop_reason = reason

    # --- running --------------------------------------------------------------------------------
    def run(self) -> History:
        """Train until `epochs` are done in all, and leave the best weights in the model.

        Run again with more `epochs`, it goes on from the latest weights, not the best.

        Raises
        ------
        DivergedError
            A loss or a weight is no longer finite. The model then has its last good weights.
        Interrupted
            Ctrl-C or SIGTERM arrived; the current step was finished first, and the model has its weights.
        DeviceError
            The device failed or went away; nothing that was on it can be read any more.
        OutOfMemoryError
            Says what is free, and what to reduce.
        """
        self._stop_reason = None
        self._check_patience()  # a saved run that had stopped by itself stays stopped
        if self._latest is not None:
            self._set_weights(self._latest)
            self._latest = None
        quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
        with device_errors(self.model.be), self._signals.waiting(), self.tuned(), quiet, ExitStack() as ends:
            for callback in reversed(self.callbacks):  # every end is called, though another one fails
                ends.callback(callback.on_train_end, self)
            for callback in self.callbacks:
                callback.on_train_start(self)
            while self.epoch < self.epochs and self._stop_reason is None:
                self._epoch()
        self._signals.check()  # one that came outside a step
        self.history.stopped = self._stop_reason or "epochs"
        self.finish()
        return self.history

    def finish(self) -> None:
        """Put the best weights into the model, where a validation set chose them.

        Else members of a population that diverged get their last good ones, and those that stopped earlier than others
        the ones of then.
        """
        self.history.diverged = np.flatnonzero(self.diverged).tolist()
        if self.judge.restores:
            self._latest = np.array(self.latest_weights())
            self._set_weights(self.judge.best)
            self.history.best_epoch, self.history.best_epochs = self.best_epoch, self.best_epochs
        else:
            self.judge.rescue(self.diverged)
            if self.judge.stopped.any():
                self._latest = np.array(self.latest_weights())
                self.judge.rescue(self.judge.stopped)

    def _epoch(self) -> None:
        n, size = self.step.examples.n, self.batch_size
        order = self._order.draw(self.epoch)
        if self.batch == 0:
            self.step.reset()
            self.elapsed = 0.0
        started, done_before = time.perf_counter(), self.elapsed
        batches, begun = self.steps_per_epoch, self.step.n_updates - self.batch
        # a small network's step takes as long as a few empty calls, so those are not made
        watching = [c for c in self.callbacks if getattr(c.on_step_end, "__func__", None) is not _NO_STEP]
        ahead = self._steps_ahead(watching)
        if ahead > 1:
            self._divergence.keep_well()
        while self.batch < batches:
            k = min(ahead, n // size - self.batch)
            if k > 1:
                self._ahead(order, k)
            else:
                rows = self._update(order, begun, self.step.n_updates)
                if ahead == 1:
                    self._divergence.check_step(rows, self.epoch + 1)
                self.batch += 1
            ended = self.batch == batches
            if ahead > 1 and (ended or self.batch // CHECK_EVERY > (self.batch - k) // CHECK_EVERY):
                if ended and self.epoch + 1 < self.epochs:
                    self._order.prepare(self.epoch + 1)  # while the device is still busy
                self._divergence.check_ahead(self.epoch + 1, partial(self._update, order, begun))
                if not ended:
                    self._divergence.keep_well()
            self.elapsed = done_before + time.perf_counter() - started
            for callback in watching:
                callback.on_step_end(self)
            self._signals.check()
            if self._stop_reason is not None:
                return
        self._end_epoch()

    def _steps_ahead(self, watching: Sequence[Callback]) -> int:
        """How many steps the device may do before anybody here wants to know."""
        if any(c.each_step for c in watching):
            return 1
        return self.step.at_once(self.step.examples.n // self.batch_size)

    def _update(self, order: Any, begun: int, number: int) -> Any:
        """Do update `number` of an epoch that began after `begun` updates, and return the examples of its batch."""
        at = (number - begun) * self.batch_size
        rows = order[at : at + self.batch_size]
        self.step.multiplier = self._multiplier(number)
        self.step(rows)
        return rows

    def _ahead(self, order: Any, k: int) -> None:
        """Ask for the next `k` steps at once, with examples in this order."""
        done = self.step.n_updates
        rows = batches(order, self.batch, k, self.batch_size)
        self.step.several(rows, [self._multiplier(done + i) for i in range(k)])
        self.batch += k

    def _multiplier(self, n_updates: int) -> Any:
        if isinstance(self.schedule, ReduceOnPlateau):
            return self.judge.multiplier
        if self._constant:
            return 1.0
        total = self.epochs * self.steps_per_epoch
        return rate_factor(self.schedule, n_updates, total, self.steps_per_epoch)

    def _end_epoch(self) -> None:
        self.epoch += 1
        self.batch = 0
        record: Record = {"epoch": self.epoch, "step": self.step.n_updates}
        record |= means("train", self.step.tally.totals(), self.task, self.step.examples.n)
        record["valid_loss"] = record["valid_accuracy"] = None
        if self._validation is not None:
            n = self._validation.examples.n
            record |= means("valid", self._validation.run(np.arange(n), EVALUATION_BATCH), self.task, n)
        lr = np.asarray(self.optimizer.lr) * self.step.multiplier
        record["lr"] = lr.tolist() if lr.ndim else float(lr)
        record["seconds"] = self.elapsed
        record["samples_per_second"] = self.step.examples.n / max(self.elapsed, 1e-9)
        self._divergence.check_weights(self.epoch)
        for callback in self.callbacks:
            callback.on_evaluate(self, record)
        if self.monitor not in record:
            raise ConfigError(
                f"monitor={self.monitor!r} is not in the record of epoch {self.epoch}: on_evaluate of a callback has "
                f"to add it to {', '.join(record)}"
            )
        self.judge.judge(self.epoch, record)
        self._check_patience()
        self.history.append(record)
        for callback in self.callbacks:
            callback.on_epoch_end(self, record)
        self._signals.check()

    def _check_patience(self) -> None:
        if self.judge.exhausted:
            self.stop("early_stopping")

    def _set_weights(self, flat: Any) -> None:
        self.model.weights[...] = self.model.be.asarray(flat, self.model.dtype)

    # --- saving and continuing ------------------------------------------------------------------
    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return everything needed to continue, as host tensors and JSON-serialisable metadata."""
        return resume.state(self)

    def load_state(self, tensors: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
        """Continue from what `state` returned, bit for bit.

        Raises
        ------
        FileFormatError
            It belongs to other settings or another data set; the message names the difference.
        """
        resume.load_state(self, tensors, metadata)
        self._latest = None
