"""JSON that other programs can read, and that gives back what was put in: NaN, infinities and all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import DataError

__all__ = ["dumps_json", "loads_json", "parse_json"]

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dumps_json(obj: object, *, indent: int | None = None) -> str:
    r"""Return strict JSON for plain values, in a form that `loads_json` turns back without loss.

    JSON has no NaN or infinities: they become the strings ``NaN``, ``Infinity`` and ``-Infinity``. A string
    that looks like one of these three, after any number of backslashes, gets one more backslash in front.
    Tuples become lists, NumPy scalars become Python numbers, and the order of keys is kept.

    Parameters
    ----------
    obj : object
        None, bool, int, float, str, and lists and dicts (with str keys) of them.
    indent : int, optional
        Spaces per level; None puts everything on one line.

    Raises
    ------
    DataError
        For any other type, naming the place.

    Examples
    --------
    >>> dumps_json({"loss": float("inf"), "name": "NaN"})
    '{"loss": "Infinity", "name": "\\\\NaN"}'
    >>> loads_json(_)
    {'loss': inf, 'name': 'NaN'}
    """
    try:
        return json.dumps(_to_json(obj, ""), indent=indent, allow_nan=False)
    except (RecursionError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot be stored as JSON: {error}") from None


def loads_json(text: str) -> Any:
    """Return the value that `dumps_json` wrote. Raises ValueError for text that is not strict JSON.

    Examples
    --------
    >>> loads_json('[1, "NaN"]')
    [1, nan]
    """
    try:
        return _from_json(parse_json(text))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def parse_json(text: str) -> Any:
    """Return what strict JSON says, word for word: ``"NaN"`` stays a string. Names may not occur twice."""
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)


def _to_json(value: object, where: str) -> object:
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str):
        return "\\" + value if value.lstrip("\\") in _NON_FINITE else str(value)
    if isinstance(value, (list, tuple)):
        return [_to_json(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise DataError(f"a key must be a string, but {where or 'the object'} has {key!r}")
        return {str(key): _to_json(item, f"{where}[{key!r}]") for key, item in value.items()}
    raise DataError(
        f"{where or 'the object'} is a {type(value).__name__}; "
        "JSON can hold None, bool, int, float, str, list and dict"
    )


def _from_json(value: Any) -> Any:
    if isinstance(value, str):
        if value in _NON_FINITE:
            return _NON_FINITE[value]
        return value[1:] if value.lstrip("\\") in _NON_FINITE else value
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _from_json(item) for key, item in value.items()}
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result
