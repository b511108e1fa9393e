"""What can be chosen on the page, checked: the network, how it learns, and the limits of both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..errors import ConfigError, unknown_name

#: Half the side of the square in which points lie.
PLANE = 3.0
MAX_POINTS = 2000
MAX_CLASSES = 4
MAX_LAYERS = 5
MAX_WIDTH = 16
MAX_EPOCHS = 50_000  # a page that is forgotten ends some time

ACTIVATIONS = (
    "tanh", "sigmoid", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "softsign", "prelu",
    "maxout", "identity",
)  # fmt: skip
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")
#: Epochs per second; None is as fast as the computer can.
SPEEDS: dict[str, float | None] = {"slow": 4.0, "normal": 20.0, "fast": None}

_NEW_NETWORK = ("hidden", "activation", "seed")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The choices of one page.

    Parameters
    ----------
    hidden : tuple of int, default (6, 4)
        Widths of the hidden layers; none makes a linear classifier.
    activation : str, default "tanh"
    optimizer : str, default "adam"
    lr : float, default 0.01
    l1, l2 : float, default 0
    batch_size : int, default 16
    held_out : float, default 0.3
        Share of the points that the network is tested on and never learns from.
    seed : int, default 0
        Of the initial weights and of the order of the points.
    speed : {"slow", "normal", "fast"}, default "normal"

    Raises
    ------
    ConfigError
        Names the setting, what was found and what is possible.

    Examples
    --------
    >>> Settings().changed({"hidden": [8], "lr": 0.1}).hidden
    (8,)
    >>> Settings().changed({"lr": -1})
    Traceback (most recent call last):
    xpnet.errors.ConfigError: lr must be a number from 1e-06 to 1000, found -1
    """

    hidden: tuple[int, ...] = (6, 4)
    activation: str = "tanh"
    optimizer: str = "adam"
    lr: float = 0.01
    l1: float = 0.0
    l2: float = 0.0
    batch_size: int = 16
    held_out: float = 0.3
    seed: int = 0
    speed: str = "normal"

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", _widths(self.hidden))
        _one_of("activation", self.activation, ACTIVATIONS)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("speed", self.speed, SPEEDS)
        for name, low, high in (
            ("lr", 1e-6, 1000.0),
            ("l1", 0.0, 10.0),
            ("l2", 0.0, 10.0),
            ("held_out", 0.0, 0.8),
        ):
            number(name, getattr(self, name), low, high)
        whole("batch_size", self.batch_size, 1, MAX_POINTS)
        whole("seed", self.seed, 0, 2**32 - 1)

    def changed(self, changes: Mapping[str, Any]) -> Settings:
        """Return the settings with some of them replaced; unknown names are an error."""
        known = [f.name for f in fields(self)]
        for name in changes:
            if name not in known:
                raise unknown_name("setting", name, known)
        return replace(self, **changes)

    def needs_new_network(self, before: Settings) -> bool:
        """Whether the weights of a network with the settings `before` no longer fit."""
        return any(getattr(self, name) != getattr(before, name) for name in _NEW_NETWORK)

    def needs_new_training(self, before: Settings) -> bool:
        """Whether anything but the speed has changed."""
        return replace(self, speed=before.speed) != before

    def as_dict(self) -> dict[str, Any]:
        """All settings, ready for JSON."""
        return {**asdict(self), "hidden": list(self.hidden)}


def number(name: str, value: Any, low: float, high: float) -> float:
    """Return a real number within limits, or say what was found."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not low <= value <= high:
        raise ConfigError(f"{name} must be a number from {low:g} to {high:g}, found {_shown(value)}")
    return float(value)


def whole(name: str, value: Any, low: int, high: int) -> int:
    """Return a whole number within limits, or say what was found."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{name} must be a whole number from {low} to {high}, found {_shown(value)}")
    return value


def _one_of(name: str, value: Any, known: Any) -> None:
    if not isinstance(value, str) or value not in known:
        raise unknown_name(name, _shown(value).strip("'"), known)


def _widths(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"hidden must be a list of layer widths such as [6, 4], found {_shown(value)}")
    if len(value) > MAX_LAYERS:
        raise ConfigError(f"at most {MAX_LAYERS} hidden layers can be shown, found {len(value)}")
    return tuple(whole("the width of a hidden layer", width, 1, MAX_WIDTH) for width in value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
