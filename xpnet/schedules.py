"""Learning-rate schedules: pure functions from the update number to a multiplier of the learning rate.

A schedule is a small record that can be written into a configuration. `ReduceOnPlateau` is the exception: it
looks at the validation loss, so its state is part of a checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from . import specs
from .errors import ConfigError, explained, unknown_name

_PLANNED = "a schedule ends with the last update of fit, which knows their number"
_HINTS = {
    "step_size": "it is called every here, in epochs", "gamma": "it is called factor here",
    "T_max": _PLANNED, "total_steps": _PLANNED, "epochs": _PLANNED, "total_iters": _PLANNED,
    "eta_min": "it is called floor here, as a share of lr", "decay_rate": "it is called factor here",
    "max_lr": "lr of the optimizer is the peak", "pct_start": "it is called rise here",
    "warmup_steps": "warmup is a share of all updates", "warmup_epochs": "warmup is a share of all updates",
    "min_lr": "min_factor and floor are shares of lr", "threshold": "it is called min_delta here",
}  # fmt: skip


@explained("option of schedule 'constant'", hints=_HINTS)
@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Constant; base of all schedules.

    Parameters
    ----------
    warmup : float, default 0
        Share of all updates during which the rate first rises linearly from 0; the schedule proper starts
        after it. In [0, 1).

    Examples
    --------
    >>> [Schedule(warmup=0.5)(s, 6, 1) for s in range(5)]
    [0.3333333333333333, 0.6666666666666666, 1.0, 1.0, 1.0]
    """

    warmup: float = 0.0

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a schedule that says nothing about the rate: a method that is called otherwise never is."""
        super().__init_subclass__(**options)
        own = [name for name in vars(cls) if callable(vars(cls)[name]) and not name.startswith("_")]
        if own and not {"after", "__call__", "observe"} & {n for c in cls.__mro__[:-2] for n in vars(c)}:
            raise ConfigError(
                f"schedule {cls.__name__}: {own[0]} is never called; say the factor of the rate in "
                "after(self, step, total, per_epoch)"
            )

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name not in _RANGES:  # one of a subclass of the user's
                continue
            low, high = _RANGES[field.name]
            value = getattr(self, field.name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not low <= value < high:
                raise ConfigError(
                    f"schedule {self.name}: {field.name} must be a number in [{low:g}, {high:g}), found {value!r}"
                )

    @property
    def name(self) -> str:
        """Name in `NAMES`; of a schedule of your own, its class's."""
        return next((k for k, v in _TABLE.items() if v is type(self)), type(self).__name__)

    def __call__(self, step: int, total: int, per_epoch: int) -> float:
        """Multiplier at update `step` (from 0) of `total`, with `per_epoch` updates in an epoch."""
        rising = round(self.warmup * total)
        if step < rising:
            return (step + 1) / rising
        return self.after(step - rising, max(total - rising, 1), per_epoch)

    def after(self, step: int, total: int, per_epoch: int) -> float:
        """The multiplier once warm-up is over."""
        return 1.0


@explained("option of schedule 'step'", hints=_HINTS)
@dataclass(frozen=True, kw_only=True)
class Step(Schedule):
    """Multiply by `factor` every `every` epochs.

    Parameters
    ----------
    every : int, default 10
        Epochs.
    factor : float, default 0.1
    warmup : float, default 0
        See `Schedule`.

    Examples
    --------
    >>> [Step(every=2, factor=0.1)(s, 6, 1) for s in range(3)]
    [1.0, 1.0, 0.1]
    """

    every: int = 10
    factor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every != int(self.every):
            raise ConfigError(
                f"schedule {self.name}: every must be a whole number of epochs, found {self.every!r}"
            )

    def after(self, step: int, total: int, per_epoch: int) -> float:
        return self.factor ** (step // (int(self.every) * per_epoch))


@explained("option of schedule 'exponential'", hints=_HINTS)
@dataclass(frozen=True, kw_only=True)
class Exponential(Schedule):
    """Multiply by `factor` over each epoch, smoothly from update to update.

    Parameters
    ----------
    factor : float, default 0.95
    warmup : float, default 0
        See `Schedule`.

    Examples
    --------
    >>> Exponential(factor=0.25)(1, 10, 2)  # half an epoch
    0.5
    """

    factor: float = 0.95

    def after(self, step: int, total: int, per_epoch: int) -> float:
        return self.factor ** (step / per_epoch)


@explained("option of schedule 'cosine'", hints=_HINTS)
@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Fall along half a cosine from 1 to `floor` at the last update (Loshchilov and Hutter 2017).

    Parameters
    ----------
    floor : float, default 0
    warmup : float, default 0
        See `Schedule`.

    Examples
    --------
    >>> [round(Cosine()(s, 4, 1), 3) for s in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """

    floor: float = 0.0

    def after(self, step: int, total: int, per_epoch: int) -> float:
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * min(step / total, 1.0)))


@explained("option of schedule 'linear'", hints=_HINTS)
@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """Fall along a line from 1 to `floor` at the last update.

    Parameters
    ----------
    floor : float, default 0
    warmup : float, default 0
        See `Schedule`.

    Examples
    --------
    >>> [Linear()(s, 4, 1) for s in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """

    floor: float = 0.0

    def after(self, step: int, total: int, per_epoch: int) -> float:
        return 1.0 - (1.0 - self.floor) * min(step / total, 1.0)


@explained("option of schedule 'one_cycle'", hints=_HINTS)
@dataclass(frozen=True, kw_only=True)
class OneCycle(Schedule):
    """Rise from `start` to 1 over the share `rise` of the run, then fall to `floor`, both along cosines.

    Smith and Topin, "Super-convergence" (2018). Here lr is the peak.

    Parameters
    ----------
    rise : float, default 0.3
        Share of the updates before the peak.
    start, floor : float, default 0.04 and 1e-4
        The first and the last multiplier.
    warmup : float, default 0
        See `Schedule`.

    Examples
    --------
    >>> [round(OneCycle(rise=0.5)(s, 4, 1), 3) for s in range(5)]
    [0.04, 0.52, 1.0, 0.5, 0.0]
    """

    rise: float = 0.3
    start: float = 0.04
    floor: float = 1e-4

    def after(self, step: int, total: int, per_epoch: int) -> float:
        peak = max(self.rise * total, 1.0)
        if step < peak:
            return 1.0 - (1.0 - self.start) * 0.5 * (1.0 + math.cos(math.pi * step / peak))
        share = min((step - peak) / max(total - peak, 1.0), 1.0)
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * share))


@explained("option of schedule 'plateau'", hints=_HINTS)
@dataclass(frozen=True, kw_only=True)
class ReduceOnPlateau(Schedule):
    """Multiply by `factor` whenever the watched loss has not improved for `patience` epochs.

    The loop calls `observe` after each epoch and keeps what it returns.

    Parameters
    ----------
    factor : float, default 0.5
    patience : int, default 3
        Epochs without improvement.
    min_factor : float, default 0.001
        The multiplier never falls below it.
    min_delta : float, default 0
        The least fall below the best loss so far that counts as an improvement.
    warmup : float, default 0
        See `Schedule`.

    Examples
    --------
    >>> schedule, state = ReduceOnPlateau(patience=2), {}
    >>> for loss in (0.5, 0.6, 0.7):
    ...     state = schedule.observe(state, loss)
    >>> state["multiplier"]
    0.5
    """

    factor: float = 0.5
    patience: int = 3
    min_factor: float = 1e-3
    min_delta: float = 0.0

    def observe(self, state: dict[str, float], value: float) -> dict[str, float]:
        """Return the new state {"best", "bad_epochs", "multiplier"} after an epoch with loss `value`."""
        best, bad = state.get("best", math.inf), state.get("bad_epochs", 0.0)
        multiplier = state.get("multiplier", 1.0)
        improved, best = value < best - self.min_delta, min(best, value)
        if improved:
            return {"best": best, "bad_epochs": 0.0, "multiplier": multiplier}
        bad += 1.0
        if bad >= self.patience:
            multiplier, bad = max(multiplier * self.factor, self.min_factor), 0.0
        return {"best": best, "bad_epochs": bad, "multiplier": multiplier}


def rate_factor(schedule: Schedule, step: int, total: int, per_epoch: int) -> float:
    """What `schedule` says at an update, checked: one of the user's may say anything.

    Examples
    --------
    >>> rate_factor(Linear(), 1, 4, 1)
    0.75
    """
    said: Any = schedule(step, total, per_epoch)
    try:
        factor = float(said)
    except (TypeError, ValueError):
        factor = math.nan
    if not 0.0 <= factor < math.inf:
        raise ConfigError(
            f"schedule {schedule.name} gave {said!r:.80} for update {step} of {total}; expected the factor of lr, a "
            "finite number >= 0"
        )
    return factor


_RANGES = {
    "warmup": (0.0, 1.0), "every": (1, math.inf), "factor": (0.0, 1.0 + 1e-9), "floor": (0.0, 1.0 + 1e-9),
    "rise": (0.0, 1.0), "start": (0.0, 1.0 + 1e-9), "patience": (1, math.inf), "min_factor": (0.0, 1.0),
    "min_delta": (0.0, math.inf),
}  # fmt: skip
_TABLE: dict[str, type[Schedule]] = {
    "constant": Schedule, "step": Step, "exponential": Exponential, "cosine": Cosine, "linear": Linear,
    "one_cycle": OneCycle, "plateau": ReduceOnPlateau,
}  # fmt: skip

#: Names that `get_schedule` takes.
NAMES = tuple(_TABLE)


def get_schedule(spec: str | Schedule | None, **options: Any) -> Schedule:
    """Return a schedule by name; None is constant; one that is built already is returned as it is.

    Parameters
    ----------
    spec : str, Schedule or None
        A name of `xpnet.schedules.NAMES`, in any case, with options behind it or not: ``"step:every=5,factor=0.5"``.
    **options
        Of the schedule with that name; they win.

    Returns
    -------
    Schedule

    Raises
    ------
    ConfigError
        Unknown name or option (the nearest spelling is shown), or a number out of range.

    Examples
    --------
    >>> get_schedule("cosine", warmup=0.5)(0, 100, 10)
    0.02
    """
    if isinstance(spec, Schedule):
        return spec
    if isinstance(spec, type) and issubclass(spec, Schedule):
        raise ConfigError(f"the schedule is a class; make one of it: {spec.__name__}()")
    if spec is not None and not isinstance(spec, str):
        raise ConfigError(
            f"schedule must be a name or a Schedule, found {spec!r:.80}; one of your own is a subclass of "
            "xpnet.schedules.Schedule with a method after(self, step, total, per_epoch) that returns the factor of lr"
        )
    name, named = specs.options("schedule", "constant" if spec is None else spec)
    if name not in _TABLE:
        raise unknown_name("schedule", name, NAMES)
    return _TABLE[name](**{**named, **options})
