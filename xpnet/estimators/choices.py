"""What the settings of an estimator stand for, in terms of `fit`; "auto" among them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from ..callbacks import Callback
from ..errors import ConfigError, unknown_name
from ..interchange import dtype_name
from ..mlp import DTYPES
from ..optim import Optimizer, get_optimizer
from ..schedules import NAMES as SCHEDULES
from ..schedules import ReduceOnPlateau, Schedule, get_schedule
from ..train import Trainer
from ..training import defaults
from ..training.settings import flag

SOLVERS = ("adam", "adamw", "sgd", "rmsprop", "adagrad")
Rule = tuple[str, Callable[[Any], bool]]
_POSITIVE: Rule = ("a finite number > 0", lambda v: 0.0 < v < np.inf)
_NOT_NEGATIVE: Rule = ("a finite number >= 0", lambda v: 0.0 <= v < np.inf)
_SHARE: Rule = ("a number in [0, 1)", lambda v: 0.0 <= v < 1.0)
_WHOLE: Rule = ("a whole number >= 1", lambda v: isinstance(v, (int, np.integer)) and bool(v >= 1))
_PATIENCE: Rule = ("a whole number >= 1, or infinity", lambda v: v == np.inf or _WHOLE[1](v))
#: What the numbers of an estimator must be.
_RULES: dict[str, Rule] = {
    "hidden_layer_sizes": _WHOLE, "alpha": _NOT_NEGATIVE, "l1": _NOT_NEGATIVE, "learning_rate_init": _POSITIVE,
    "power_t": _NOT_NEGATIVE, "max_iter": _WHOLE, "label_smoothing": _SHARE, "dropout": _SHARE,
    "input_dropout": _SHARE, "input_noise": _NOT_NEGATIVE, "max_norm": _POSITIVE, "clip_norm": _POSITIVE,
    "clip_value": _POSITIVE, "weight_decay": _NOT_NEGATIVE, "tol": _NOT_NEGATIVE, "momentum": _SHARE,
    "validation_fraction": ("a number in (0, 1)", lambda v: 0.0 < v < 1.0), "beta_1": _SHARE, "beta_2": _SHARE,
    "epsilon": _NOT_NEGATIVE, "n_iter_no_change": _PATIENCE,
}  # fmt: skip
_LISTS = ("hidden_layer_sizes", "dropout")  # one number, or one for each hidden layer
_WORDS = (*_LISTS, "alpha", "input_noise")  # "auto", which `or_automatic` knows
_OFF = ("max_norm", "clip_norm", "clip_value")  # None
_FLAGS = ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping", "standardize", "scale_target")
_SMALL = 1000  # up to so many samples float64 costs nothing worth saving


@dataclass(frozen=True, kw_only=True)
class InverseScaling(Schedule):
    """scikit-learn's "invscaling": 1 / (t + 1)^power with t the samples seen in all epochs before."""

    power: float = 0.5
    samples: int = 1

    def __post_init__(self) -> None:
        """Do not check: `power` is the power_t of an estimator, which is checked under that name."""

    @property
    def name(self) -> str:
        return "invscaling"

    def __call__(self, step: int, total: int, per_epoch: int) -> float:
        return (step // per_epoch * self.samples + 1.0) ** -self.power


class StopAtFloor(Callback):
    """End training when an adaptive rate has reached the least one."""

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        if record["lr"] <= 1e-6:
            trainer.stop("learning_rate")


def check_settings(e: Any) -> None:
    """Check the numbers and flags of an estimator, before anything that knows them by other names does.

    Raises
    ------
    ConfigError
    """
    for name, value in e.get_params(deep=False).items():
        if name in _FLAGS:
            flag(name, value)
        if (
            name not in _RULES
            or (name in _OFF and value is None)
            or (name in _WORDS and isinstance(value, str))
        ):
            continue
        expected, good = _RULES[name]
        each = list(value) if name in _LISTS and np.iterable(value) else [value]
        if not all(isinstance(v, Real) and not isinstance(v, bool) and good(v) for v in each):
            raise ConfigError(f"{name} must be {expected}, found {value!r}")


def or_automatic(name: str, value: Any, expected: str, choose: Callable[[], Any]) -> Any:
    """Return the value of a setting, or what `choose` says where it is "auto"; other texts are errors."""
    if not isinstance(value, str):
        return value
    if value != "auto":
        raise ConfigError(f"{name} must be {expected} or 'auto', found {value!r}")
    return choose()


def batch_size(value: Any, n: int) -> int:
    """Return the batch size for n samples; "auto" is n / 128, within 64 and 256."""
    size = or_automatic("batch_size", value, "a whole number >= 1", lambda: defaults.batch_size(n))
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ConfigError(f"batch_size must be a whole number >= 1 or 'auto', found {value!r}")
    return min(int(size), n)


def dtype(value: Any, x: Any, n: int) -> str:
    """Return the dtype of the network; "auto" keeps float64 samples where they are few."""
    if isinstance(value, str) and value == "auto":
        return "float64" if dtype_name(x) == "float64" and n <= _SMALL else "float32"
    name = str(np.dtype(value)) if value is not None else None
    if name not in DTYPES:
        raise ConfigError(f"dtype must be 'auto', 'float32' or 'float64', found {value!r}")
    return name


def optimizer(e: Any) -> Optimizer:
    """Return the optimizer that an estimator's solver and its numbers stand for."""
    if isinstance(e.solver, Optimizer):
        return e.solver
    name = str(e.solver).lower()
    lr = e.learning_rate_init
    if name in ("adam", "adamw"):
        more = {"weight_decay": e.weight_decay} if name == "adamw" else {}
        return get_optimizer(name, lr=lr, beta1=e.beta_1, beta2=e.beta_2, eps=e.epsilon, **more)
    if name == "sgd":
        nesterov = bool(e.nesterovs_momentum and e.momentum > 0)
        return get_optimizer("sgd", lr=lr, momentum=e.momentum, nesterov=nesterov)
    if name in ("rmsprop", "adagrad"):
        return get_optimizer(name, lr=lr, eps=e.epsilon)
    if name == "lbfgs":
        raise ConfigError(f"solver 'lbfgs' is not part of xpnet; choose one of {', '.join(SOLVERS)}")
    raise unknown_name("solver", e.solver, SOLVERS)


def schedule(e: Any, n: int) -> Schedule:
    """Return the schedule that an estimator's `learning_rate` stands for, with n samples in an epoch."""
    if isinstance(e.learning_rate, Schedule):
        return e.learning_rate
    if e.learning_rate == "invscaling":
        return InverseScaling(power=e.power_t, samples=n)
    if e.learning_rate == "adaptive":
        return ReduceOnPlateau(factor=0.2, patience=patience(e), min_factor=1e-9, min_delta=float(e.tol))
    try:
        return get_schedule(e.learning_rate)
    except ConfigError:
        raise unknown_name("learning_rate", e.learning_rate, (*SCHEDULES, "invscaling", "adaptive")) from None


def patience(e: Any) -> int:
    """Return `n_iter_no_change` as a whole number; nobody trains so many epochs where it is infinite."""
    return sys.maxsize if e.n_iter_no_change == np.inf else int(e.n_iter_no_change)


def plain(value: Any) -> Any:
    """Return arrays and sequences as lists, everything else as it is."""
    many = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str)
    return list(value) if many else value
