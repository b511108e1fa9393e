"""`fit_many`: train many configurations in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..errors import ConfigError, DataError, DivergedError
from ..train import History
from .members import Member, read_configurations
from .results import MemberResult, PopulationResult

BATCHES = ("own", "shared")


def fit_many(
    configurations: Iterable[Mapping[str, Any]], data: tuple[Any, Any], *,
    validation: tuple[Any, ...] | None = None, batches: str = "own", dtype: str = "float32",
    device: Any = "cpu", preprocessing: Any = None, classes: Sequence[str] | None = None,
    memory: int | None = None, block: int | None = None, workers: int | None = None,
    on_result: Callable[[MemberResult], None] | None = None, keep_models: bool = True,
    **common: Any,
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
        Threads that train blocks of their own; by default one per processor, where there is enough work.
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
    members = read_configurations(configurations, common, _count(data))
    results: list[MemberResult] = []
    shared = members[0].order_seed
    for member in members:
        order_seed = shared if batches == "shared" else member.order_seed
        result = _alone(member, order_seed, data, validation, dtype, device, preprocessing, classes)
        if on_result is not None:
            on_result(result)
        if not keep_models:
            result.model = None
        results.append(result)
    return PopulationResult(results, time.perf_counter() - started)


def _count(data: Any) -> int:
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise DataError(f"data must be a pair (X, y), found {type(data).__name__}")
    return len(data[1])


def _alone(
    member: Member, order_seed: int, data: Any, validation: Any, dtype: str, device: Any, preprocessing: Any,
    classes: Any,
) -> MemberResult:  # fmt: skip
    from dataclasses import replace

    from ..train import Trainer  # noqa: F401

    model = member.model(dtype=dtype, device=device, preprocessing=preprocessing, classes=classes)
    history, error = History(), None
    try:
        history = replace(member, order_seed=order_seed).fit_alone(model, data, validation)
        stopped = history.stopped
    except DivergedError as diverged:
        stopped, error = "diverged", str(diverged)
    part = "train" if validation is None and member.validation_rows is None else "valid"
    default = f"{part}_{'loss' if model.task == 'regression' else 'accuracy'}"
    return MemberResult(
        index=member.index, configuration=member.configuration, model=model, history=history,
        stopped=stopped, monitor=member.training.get("monitor") or default, error=error,
    )  # fmt: skip
