"""Names with a number behind them, ``"huber:2"``, or with options: ``"step:every=5,factor=0.5"``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .errors import ConfigError


def split(what: str, spec: object, aliases: Mapping[str, str]) -> tuple[str, float | None]:
    """Return the name, an alias resolved, and the number of ``"name"`` or ``"name:number"``.

    Parameters
    ----------
    what : str
        What it names, for messages.
    spec : str
    aliases : mapping of str to str

    Raises
    ------
    ConfigError
        What follows the colon is no finite number.

    Examples
    --------
    >>> split("loss", "Huber:1e-3", {}), split("loss", "mse", {"mse": "squared_error"})
    (('huber', 0.001), ('squared_error', None))
    """
    name, colon, number = str(spec).strip().lower().partition(":")
    name = name.replace("-", "_")  # not in the number, which may be -0.5 or 1e-3
    name = aliases.get(name, name)
    if not colon:
        return name, None
    try:
        value = float(number)
    except ValueError:
        raise ConfigError(f"{what} {spec!r}: expected a number after ':', found {number!r}") from None
    if not math.isfinite(value):
        raise ConfigError(f"{what} {spec!r}: the number after ':' must be finite")
    return name, value


def join(name: str, number: float, default: float) -> str:
    """Return the name that `split` takes apart again, with its number where that is not the default.

    Examples
    --------
    >>> join("huber", 2.0, 1.0), join("huber", 1.0, 1.0), join("huber", 0.1234567891, 1.0)
    ('huber:2', 'huber', 'huber:0.1234567891')
    """
    if number == default:
        return name
    short = f"{number:g}"
    return f"{name}:{short if float(short) == number else repr(float(number))}"


def options(what: str, spec: str) -> tuple[str, dict[str, Any]]:
    """Split ``"name:key=value,key=value"``; values are numbers, true or false.

    Parameters
    ----------
    what : str
        What it names, for messages.
    spec : str

    Raises
    ------
    ConfigError
        What follows the colon is no such list.

    Examples
    --------
    >>> options("schedule", "step:every=5,factor=0.5")
    ('step', {'every': 5, 'factor': 0.5})
    """
    name, colon, rest = spec.partition(":")
    found: dict[str, Any] = {}
    for item in rest.split(",") if colon else []:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{what} {spec!r}: expected key=value after ':', found {item!r}")
        found[key.strip().replace("-", "_")] = _value(what, spec, text.strip())
    return name.strip().lower().replace("-", "_"), found


def _value(what: str, spec: str, text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{what} {spec!r}: {text!r} is not a number, true or false") from None
