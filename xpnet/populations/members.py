"""Configurations of members: what a setting is called, what it may be, and which members mix.

Members mix when they have the same architecture and the same arithmetic. Numbers may differ: seeds, rates and other
numbers of the optimizer, schedules, penalties, rates of dropout, noise, epochs, patience, the examples they see.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError, check_options
from ..interchange import to_host
from ..layers import Dropout, InputNoise
from ..mlp import MLP
from ..optim import SGD, AdaGrad, Adam, AdamW, Optimizer, RMSProp, get_optimizer
from ..rng import check_seed
from ..schedules import Schedule, get_schedule
from ..train import Trainer
from ..training.passes import Targets
from ..training.settings import HINTS, flag, from_best, least_change, whole_number
from ..training.update import Regularization

_NETWORK = (
    "sizes",
    "activation",
    "output_activation",
    "dropout",
    "input_dropout",
    "input_noise",
    "init",
    "bias",
)
_HYPER = tuple(dict.fromkeys(f.name for kind in (SGD, AdaGrad, RMSProp, Adam, AdamW) for f in fields(kind)))
_TRAINING = (
    "loss", "task", "l1", "l2", "max_norm", "clip_norm", "clip_value", "label_smoothing", "infogain",
    "sample_weight", "class_weight", "epochs", "batch_size", "shuffle", "patience", "min_delta",
    "min_delta_from", "monitor", "restore_best", "freeze",
)  # fmt: skip

_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(Trainer.__init__).parameters.items()
    if name in _TRAINING
}

_ALONE = "members train side by side, so nobody watches a single one; train it alone, with fit"
#: What names mean that `fit` and other libraries have.
_HINTS = HINTS | {
    "n_models": "a configuration is one member", "mode": "a monitored loss should be small, an accuracy large",
    "callbacks": f"{_ALONE}, or take each result as it comes, with on_result", "statistics": _ALONE, "verbose": _ALONE,
    "validation": "the common one is an argument of fit_many; give the positions as validation_rows",
    **dict.fromkeys(("dtype", "device", "threads"), "it is an argument of fit_many, the same for all members"),
}  # fmt: skip

#: Every setting that a configuration may have.
SETTINGS = (
    *_NETWORK, "seed", "optimizer", *_HYPER, "schedule", *_TRAINING, "order_seed", "rows", "validation_rows"
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """One configuration, read and checked.

    Attributes
    ----------
    index : int
        Position in the list of configurations.
    configuration : dict
        As it was given, with the common settings.
    network : dict
        Options of `MLP` beside seed, dtype and device.
    training : dict
        Options of `fit` beside optimizer, schedule and seed; all of them, with their defaults.
    seed : int
        Of weights and masks.
    order_seed : int
        Of the order of examples.
    optimizer : Optimizer
    schedule : Schedule
    rows : (n,) int64 or None
        The examples it is trained on; None for all.
    validation_rows : (n,) int64 or None
        The examples of the training data that validate it; None for the common validation data.
    """

    index: int
    configuration: dict[str, Any]
    network: dict[str, Any]
    training: dict[str, Any]
    seed: int
    order_seed: int
    optimizer: Optimizer
    schedule: Schedule
    rows: np.ndarray | None = None
    validation_rows: np.ndarray | None = None

    def model(self, *, dtype: str, device: Any, **meaning: Any) -> MLP:
        """Return its model, not trained; `meaning` is what it knows beside its weights, by name (see `Meaning`)."""
        model = MLP(**self.network, seed=self.seed, dtype=dtype, device=device)
        for name, value in meaning.items():
            setattr(model, name, value)
        return model


def read_configurations(
    configurations: Iterable[Mapping[str, Any]], common: Mapping[str, Any], n: int
) -> list[Member]:
    """Check configurations and return them as members.

    Parameters
    ----------
    configurations : iterable of mappings
        Settings by name; see `SETTINGS`.
    common : mapping
        Settings of all members, which a configuration overrules.
    n : int
        N, the examples of the data.

    Raises
    ------
    ConfigError
        There are none, or one has an unknown setting or an impossible value; the message says which one.
    DataError
        Rows that the data do not have.
    """
    if isinstance(configurations, (Mapping, str)):
        raise ConfigError(
            f"configurations must be a list of dicts, found {type(configurations).__name__}; "
            "for a single one, put it into a list"
        )
    listed = list(configurations)
    if not listed:
        raise ConfigError("there are no configurations; fit_many needs at least one, such as [{'seed': 0}]")
    members: list[Member] = []
    for index, each in enumerate(listed):
        if not isinstance(each, Mapping):
            raise ConfigError(f"configuration {index} must be a dict of settings, found {each!r}")
        try:
            members.append(_read(index, {**common, **each}, n))
        except (ConfigError, DataError) as error:
            raise type(error)(f"configuration {index}: {error}") from error
    return members


def _read(index: int, settings: dict[str, Any], n: int) -> Member:
    check_options("setting", settings, SETTINGS, _HINTS)
    if settings.get("sizes") is None:
        raise ConfigError("the setting 'sizes' is missing; give the widths, such as sizes=[784, 128, 10]")
    seed = check_seed(settings.get("seed", 0))
    order_seed = settings.get("order_seed")
    order_seed = seed if order_seed is None else check_seed(order_seed)
    _check_rates(settings)
    training = {**_DEFAULTS, **{k: settings[k] for k in _TRAINING if k in settings}}
    _check_training(training)
    return Member(
        index=index, configuration=settings, network={k: settings[k] for k in _NETWORK if k in settings},
        training=training, seed=seed, order_seed=order_seed,
        optimizer=_optimizer(settings), schedule=get_schedule(settings.get("schedule")),
        rows=_rows("rows", settings.get("rows"), n),
        validation_rows=_rows("validation_rows", settings.get("validation_rows"), n),
    )  # fmt: skip


def _check_rates(settings: Mapping[str, Any]) -> None:
    """Members that differ in rates share a population, so that the rates of each are checked here."""
    for name, layer in (("dropout", Dropout), ("input_dropout", Dropout), ("input_noise", InputNoise)):
        value = settings.get(name, 0.0)
        each = value if name == "dropout" and isinstance(value, Sequence) else [value]
        for rate in each:
            if isinstance(rate, bool) or not isinstance(rate, (int, float, np.integer, np.floating)):
                raise ConfigError(f"{name} must be a number, found {rate!r}; a configuration is one member")
            layer(1, float(rate))


def _check_training(t: dict[str, Any]) -> None:
    """Check what a training would check, so that a bad setting shows before anything is trained."""
    t["epochs"] = whole_number("epochs", t["epochs"], 0)
    t["batch_size"] = whole_number("batch_size", t["batch_size"], 1)
    t["patience"] = None if t["patience"] is None else whole_number("patience", t["patience"], 1)
    t["min_delta"] = least_change(t["min_delta"])
    from_best(t["min_delta_from"])
    t["shuffle"], t["restore_best"] = (flag(name, t[name]) for name in ("shuffle", "restore_best"))
    for name in ("l1", "l2"):
        if isinstance(t[name], (Sequence, np.ndarray)):
            raise ConfigError(f"{name} must be one number, found {t[name]!r}; a configuration is one member")
    Regularization(**{name: t[name] for name in ("l1", "l2", "max_norm", "clip_norm", "clip_value")})
    Targets(label_smoothing=t["label_smoothing"])


def _optimizer(settings: Mapping[str, Any]) -> Optimizer:
    spec = settings.get("optimizer", "adam")
    options = {k: settings[k] for k in _HYPER if settings.get(k) is not None}
    for name, value in options.items():
        if isinstance(value, (Sequence, np.ndarray)):
            raise ConfigError(f"{name} must be one number, found {value!r}; a configuration is one member")
    if not isinstance(spec, Optimizer):
        return get_optimizer(spec, **options)
    check_options(f"option of optimizer {spec.name!r}", options, [f.name for f in fields(spec)])
    for f in fields(spec):
        if isinstance(value := getattr(spec, f.name), (Sequence, np.ndarray)):
            raise ConfigError(f"{spec.name}: {f.name} must be one number, found {value!r}")
    return replace(spec, **options)


def _rows(name: str, rows: Any, n: int) -> np.ndarray | None:
    if rows is None:
        return None
    rows = np.asarray(to_host(rows, name))
    if rows.dtype == bool and rows.ndim == 1:
        if len(rows) != n:
            raise DataError(f"{name} is a mask of {len(rows)} entries for {n} examples")
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or not rows.size:
        raise DataError(
            f"{name} must be a list of positions in the data (or a mask), at least one; "
            f"found {'nothing' if not rows.size else f'{rows.dtype} of shape {rows.shape}'}"
        )
    if rows.min() < 0 or rows.max() >= n:
        bad = rows[(rows < 0) | (rows >= n)][0]
        raise DataError(f"{name} has the position {bad}, but the data have {n} examples: 0 to {n - 1}")
    return rows.astype(np.int64)
