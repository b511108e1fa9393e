"""`fit_many`: train many configurations in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..backend import get_backend
from ..errors import ConfigError
from ..interchange import column_names
from ..training.settings import whole_number
from ..training.signals import Interrupted, Signals
from .engine import run
from .group import Data, make_groups
from .members import read_configurations
from .plan import plan
from .results import MemberResult, PopulationResult

BATCHES = ("own", "shared")


def fit_many(
    configurations: Iterable[Mapping[str, Any]], data: tuple[Any, Any], *,
    validation: tuple[Any, ...] | None = None, batches: str = "own", dtype: str = "float32",
    device: Any = "cpu", preprocessing: Any = None, classes: Sequence[str] | None = None,
    memory: int | None = None, block: int | None = None, workers: int | None = None,
    threads: int | None = None, on_result: Callable[[MemberResult], None] | None = None,
    keep_models: bool = True, **common: Any,
) -> PopulationResult:  # fmt: skip
    """Train many models on the same data; each equals the same model trained alone.

    Parameters
    ----------
    configurations : iterable of dict
        One dict of settings per member. Settings of the model are ``sizes`` and the others of `MLP`, ``seed``
        among them; settings of training those of `fit` (``optimizer``, ``schedule``, ``l2``, ``epochs``,
        ``batch_size``, ``patience``, ...); numbers of the optimizer stand beside them (``lr``, ``momentum``,
        ``weight_decay``, ...). Besides, ``rows`` are positions in the data (or a mask) to train on,
        ``validation_rows`` positions that validate this member instead of `validation`, and ``order_seed`` is
        the seed of the order of examples (by default ``seed``).
    data : (X, y)
        As `fit` takes them; all members share them.
    validation : (X, y) or (X, y, sample_weight), optional
        For members without ``validation_rows``.
    batches : {"own", "shared"}, default "own"
        Whether each member meets the examples in an order of its own, or all in the order of the first member's
        seed, which is faster.
    dtype, device
        Of all models; see `MLP`.
    preprocessing : Preprocessing, optional
        Of all models.
    classes : sequence of str, optional
        Names of the classes.
    memory : int, optional
        Most bytes that training may take, results included; by default what is free. Populations that need
        more are split.
    block : int, optional
        Most members in one batched product; by default as many as the caches hold well.
    workers : int, optional
        Threads that train blocks of their own; by default one per processor, where there is enough work. Each
        has one thread of the matrix library.
    threads : int, optional
        Threads of the matrix library where there is one worker, as for `fit`.
    on_result : callable, optional
        Called with each `MemberResult` as soon as it is there, always from the calling thread.
    keep_models : bool, default True
        Whether results have models. Without, a model is gone after `on_result`, and memory holds only those that
        train.
    **common
        Settings of all members, which a configuration overrules.

    Returns
    -------
    PopulationResult
        In the order of the configurations. A member that diverges is reported there and disturbs no other.

    Raises
    ------
    ConfigError
        No configurations, an unknown or impossible setting (the message says in which configuration).
    DataError
        Data that cannot be used, or rows that they do not have.
    OutOfMemoryError
        Not even a single member fits into `memory`.
    Interrupted
        Ctrl-C or SIGTERM arrived; the steps under way were finished first, and `results` of the error has those
        members that were done.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> result = fit_many(
    ...     [{"seed": s, "lr": lr} for s in range(3) for lr in (0.01, 0.05)], (X, [0, 1, 1, 0]),
    ...     sizes=[2, 8, 2], activation="tanh", epochs=100, batch_size=4)
    >>> len(result), result.best.model.predict(X).tolist()
    (6, [0, 1, 1, 0])
    """
    started = time.perf_counter()
    if batches not in BATCHES:
        raise ConfigError(f"batches must be 'own' or 'shared', found {batches!r}")
    be = get_backend(device)
    source = Data(data, validation, be)
    members = read_configurations(configurations, common, source.n)
    if batches == "shared":
        members = [replace(m, order_seed=members[0].order_seed) for m in members]
    options = {
        "dtype": dtype,
        "device": be,
        "preprocessing": preprocessing,
        "classes": classes,
        "feature_names": column_names(source.x),
    }
    threads = None if threads is None else whole_number("threads", threads, 1)
    groups = make_groups(members, source, options)
    results: dict[int, MemberResult] = {}
    signals = Signals()
    planned = plan(
        groups, source, device, memory=memory, block=block, workers=workers, keep_models=keep_models
    )
    try:
        with signals.waiting():
            for group, each in zip(groups, planned, strict=True):
                trained = run(
                    group, lambda member: member.model(**options), device, size=each["block"],
                    workers=each["workers"], threads=threads, signals=signals,
                )  # fmt: skip
                for result in trained:
                    if on_result is not None:
                        on_result(result)
                    if not keep_models:
                        result.model = None
                    results[result.index] = result
        signals.check()
    except Interrupted as error:
        done = sorted(results.values(), key=lambda r: r.index)
        error.results = PopulationResult(done, time.perf_counter() - started, planned)
        raise
    return PopulationResult([results[m.index] for m in members], time.perf_counter() - started, planned)
