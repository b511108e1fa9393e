"""Planned fits of estimators trained in populations, each as it would have been trained alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError, DivergedError, XpnetError
from ..mlp import MLP
from ..populations import MemberResult, fit_many
from ..training.history import History
from .base import BaseMLP
from .session import Plan, Planned, Session, Trained, entered

#: Most bytes of training data that are put side by side, so that folds share a population.
STACKED = 1 << 29

_OF_TRAINER = {"loss", "task", "optimizer", "schedule", "l1", "l2", "max_norm", "clip_norm", "clip_value",
               "label_smoothing", "epochs", "batch_size", "shuffle", "min_delta", "min_delta_from",
               "monitor", "patience"}  # fmt: skip


@dataclass(eq=False)
class Job:
    """A planned fit, and what became of it.

    Attributes
    ----------
    estimator : BaseMLP
        Fitted in place.
    plan : Plan
    fingerprint : tuple
        Tells this fit from others.
    seconds : float
        Its share of the time of its population.
    error : Exception or None
        What fitting it raised.
    rows : (n,) array or None
        The positions of its training data to train on, where not all; they may repeat.
    done : bool
        Whether it has been trained, or has failed.
    """

    estimator: BaseMLP
    plan: Plan
    fingerprint: tuple[Any, ...] = ()
    seconds: float = 0.0
    error: Exception | None = None
    rows: np.ndarray | None = None
    done: bool = False

    def trained(self) -> Trained:
        """The outcome as a session hands it to ``fit``."""
        return Trained(self.estimator, self.fingerprint, self.error)


def check_training(batches: Any, memory: Any, workers: Any) -> None:
    """Check the options that estimators hand on to `fit_many`.

    Raises
    ------
    ConfigError
    """
    if batches not in ("own", "shared"):
        raise ConfigError(f"batches must be 'own' or 'shared', found {batches!r}")
    for name, value in (("memory", memory), ("workers", workers)):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if value is not None and (not whole or value < 1):
            raise ConfigError(f"{name} must be a whole number >= 1 or None, found {value!r}")


def plan(session: Session, fit: Callable[[], Any]) -> Job | None:
    """Return the first fit of a network that calling `fit` leads to; None where there is none."""
    session.planning = True
    try:
        with entered(session):
            fit()
    except Planned as planned:
        p = planned.plan
        p.data = (p.data[0], session.shared(p.data[1]))
        if p.validation is not None:
            p.validation = (p.validation[0], session.shared(p.validation[1]), p.validation[2])
        return Job(planned.estimator, p, planned.fingerprint)
    return None


def train(jobs: Sequence[Job], **options: Any) -> None:
    """Train the networks of all jobs and fit their estimators; what one raises is in its `error`.

    Parameters
    ----------
    jobs : sequence of Job
    **options
        More arguments of `fit_many`: batches, memory, block, workers.
    """
    populations: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        if _alone(job):
            _fit_alone(job)
        else:
            populations.setdefault(_common(job), []).append(job)
    for group in populations.values():
        for part in _parts(group):
            _fit_valid(part, options)


def _fit_valid(jobs: list[Job], options: dict[str, Any]) -> None:
    """Train a population; a member with impossible settings, found before training, is left out with its error."""
    try:
        _fit_population(jobs, options)
    except (ConfigError, DataError):
        left = [job for job in jobs if not job.done]
        if len(left) == 1:
            _fit_alone(left[0])
        elif left:
            middle = len(left) // 2
            _fit_valid(left[:middle], options)
            _fit_valid(left[middle:], options)


def _alone(job: Job) -> bool:
    """Whether a fit cannot be a member: somebody watches its training, or it goes on from weights."""
    return bool(job.plan.callbacks or job.plan.network is None or job.estimator.verbose)


def _fit_alone(job: Job) -> None:
    x, t = job.plan.data
    options = job.plan.options
    if job.rows is not None:
        w = options["sample_weight"]
        options = options | {"sample_weight": None if w is None else w[job.rows]}
        x = x[job.rows] if isinstance(x, np.ndarray) else type(x)(x.matrix[job.rows], x.scaler, x.dtype)
        job.plan.data, job.plan.options = (x, t[job.rows]), options
    try:
        with entered(None):
            job.estimator._run(job.plan)
    except XpnetError as error:
        job.error = error
    job.done = True
    job.seconds = sum(r["seconds"] for r in getattr(job.estimator, "history_", ()))


def _common(job: Job) -> tuple[Any, ...]:
    """What all members of one call of `fit_many` share."""
    p = job.plan
    assert p.network is not None
    device, (x, t) = p.network["device"], p.data
    where = device if isinstance(device, str) else id(device)
    # rows that are dense and weigh alike can lie side by side; others have a call of their own
    stackable = isinstance(x, np.ndarray) and p.options["sample_weight"] is None
    stackable = stackable and (p.validation is None or p.validation[2] is None)
    own = (x.shape[1:], t.shape[1:], t.dtype.str) if stackable else (id(x), id(t), _ids(p.validation))
    return p.network["dtype"], where, p.options["task"], stackable, own


def _ids(validation: Any) -> tuple[int, ...]:
    return () if validation is None else tuple(id(v) for v in validation)


def _parts(group: list[Job]) -> list[list[Job]]:
    """Split jobs so that the data of each part, side by side, stay within `STACKED`; one set alone may be larger."""
    if not _common(group[0])[3]:
        return [group]
    by_data: dict[tuple[int, ...], list[Job]] = {}
    for job in group:
        by_data.setdefault(
            (id(job.plan.data[0]), id(job.plan.data[1]), *_ids(job.plan.validation)), []
        ).append(job)
    parts: list[list[Job]] = [[]]
    size = 0
    for jobs in by_data.values():
        first = jobs[0].plan
        more = first.data[0].nbytes + (0 if first.validation is None else first.validation[0].nbytes)
        if parts[-1] and size + more > STACKED:
            parts.append([])
            size = 0
        parts[-1] += jobs
        size += more
    return parts


class _Stack:
    """Training data side by side, each data set once."""

    def __init__(self) -> None:
        self.pieces: list[tuple[Any, np.ndarray]] = []
        self._starts: dict[tuple[int, int], int] = {}
        self.n = 0

    def add(self, x: Any, t: np.ndarray) -> int:
        """Return where these samples begin."""
        key = (id(x), id(t))
        if key not in self._starts:
            self._starts[key] = self.n
            self.pieces.append((x, t))
            self.n += x.shape[0]
        return self._starts[key]

    def data(self) -> tuple[Any, np.ndarray]:
        if len(self.pieces) == 1:
            return self.pieces[0]
        return np.concatenate([x for x, _ in self.pieces]), np.concatenate([t for _, t in self.pieces])


def _fit_population(jobs: list[Job], options: dict[str, Any]) -> None:
    stackable = _common(jobs[0])[3]
    stack = _Stack()
    starts = [stack.add(*job.plan.data) for job in jobs]
    held = [
        stack.add(*job.plan.validation[:2]) if stackable and job.plan.validation else None for job in jobs
    ]
    configurations = []
    for job, start, v in zip(jobs, starts, held, strict=True):
        p = job.plan
        assert p.network is not None
        c = {k: p.options[k] for k in _OF_TRAINER & p.options.keys()}
        c |= {k: val for k, val in p.network.items() if k not in ("dtype", "device")}
        c["order_seed"] = p.options["seed"]
        rows = np.arange(p.n) if job.rows is None else job.rows
        if len(stack.pieces) > 1 or job.rows is not None:
            c["rows"] = rows + start
        if p.options["sample_weight"] is not None:
            c["sample_weight"] = p.options["sample_weight"]
        if v is not None and p.validation is not None:
            c["validation_rows"] = np.arange(v, v + len(p.validation[1]))
        configurations.append(c)
    first = jobs[0].plan
    assert first.network is not None

    def done(result: MemberResult) -> None:
        job = jobs[result.index]
        job.done = True
        job.seconds = sum(r["seconds"] for r in result.history)
        if result.stopped == "diverged":
            job.error = DivergedError(result.error or "the member diverged")
        else:
            assert result.model is not None
            finish(job, result.model, result.history, result.stopped)

    fit_many(
        configurations, stack.data(), validation=None if stackable else first.validation,
        dtype=first.network["dtype"], device=first.network["device"], on_result=done, keep_models=False,
        **options,
    )  # fmt: skip


def finish(job: Job, model: MLP, history: History, stopped: str) -> None:
    """Fit the estimator of a job with a network that was trained elsewhere."""
    history.stopped = stopped
    estimator, p = job.estimator, job.plan
    estimator.model_ = model
    estimator._moments = None
    if p.scorer is not None and history:
        # the score of an epoch needs the network of that epoch; only that of the best one is still there
        for record in history:
            record["valid_score"] = None
        p.scorer.on_epoch_end(None, history[(history.best_epoch or len(history)) - 1])
    estimator._finish(p, history)
