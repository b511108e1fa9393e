"""What varies in a sweep: lists of values, ranges to draw from, listed points; and the candidates they give."""

from __future__ import annotations

import itertools
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .. import rng
from ..errors import ConfigError, unknown_name
from ..runs.config import TrainConfig, hints

_FIXED = ("seed", "dtype", "precision", "statistics", "monitor")
#: Settings that may differ between candidates.
VARIABLE = tuple(
    f.name
    for f in fields(TrainConfig)
    if f.metadata["group"] in ("model", "training") and f.name not in _FIXED
)
_STREAM = 0x5357454550  # "SWEEP", far from the streams of training

Candidate = dict[str, Any]


@dataclass(frozen=True)
class Range:
    """Numbers that are drawn at random.

    Parameters
    ----------
    low, high : float
        Ends; both may come out.
    log : bool
        Whether logarithms are drawn uniformly.
    whole : bool
        Whether they are rounded to whole numbers.

    Examples
    --------
    >>> Range.parse("lr", "log:1e-4..1e-1")
    Range(low=0.0001, high=0.1, log=True, whole=False)
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @classmethod
    def parse(cls, name: str, text: str) -> Range:
        """Read ``log:1e-4..1e-1``, ``lin:0..0.5``, ``int:16..256`` or ``logint:16..512``."""
        kind, _, ends = text.partition(":")
        low, dots, high = ends.partition("..")
        if kind not in _KINDS or not dots:
            raise ConfigError(
                f"range of {name}: expected KIND:LOW..HIGH with KIND one of {', '.join(_KINDS)}, such as "
                f"log:1e-4..1e-1, found {text!r}"
            )
        try:
            result = cls(float(low), float(high), *_KINDS[kind])
        except ValueError:
            raise ConfigError(f"range of {name}: {ends!r} is not a pair of numbers LOW..HIGH") from None
        if not (math.isfinite(result.low) and math.isfinite(result.high) and result.low < result.high):
            raise ConfigError(f"range of {name}: the low end must be below the high end, found {ends!r}")
        if result.log and result.low <= 0.0:
            raise ConfigError(f"range of {name}: a logarithmic range starts above 0, found {low}")
        return result

    def draw(self, generator: np.random.Generator) -> float | int:
        """Return one number, with four digits."""
        u = generator.random()
        value = (
            math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))
            if self.log
            else self.low + u * (self.high - self.low)
        )
        if self.whole:
            return int(min(max(round(value), math.ceil(self.low)), math.floor(self.high)))
        return min(max(float(f"{value:.4g}"), self.low), self.high)

    def __str__(self) -> str:
        kind = next(k for k, v in _KINDS.items() if v == (self.log, self.whole))
        return f"{kind}:{self.low:g}..{self.high:g}"


_KINDS = {"log": (True, False), "lin": (False, False), "int": (False, True), "logint": (True, True)}


def setting_name(name: str) -> str:
    """Return the name of a setting that may vary, or raise `ConfigError` that says why it may not."""
    key = name.strip().replace("-", "_")
    if key in VARIABLE:
        return key
    if key == "seed":
        raise ConfigError("seed does not vary as a setting: --seeds N trains every candidate with N seeds")
    if key in hints():
        raise ConfigError(
            f"{key} is the same for the whole sweep, so that its members share their data and arithmetic; "
            f"set it with --{key.replace('_', '-')}. What may vary: {', '.join(sorted(VARIABLE))}"
        )
    raise unknown_name("setting", name, VARIABLE)


def read_axis(text: str) -> tuple[str, list[Any]]:
    """Read ``NAME=VALUE,VALUE`` or, where a value has commas itself, ``NAME=VALUE;VALUE``.

    Examples
    --------
    >>> read_axis("lr=1e-3,1e-2"), read_axis("hidden=300,100;500")
    (('lr', [0.001, 0.01]), ('hidden', [[300, 100], [500]]))
    """
    name, equals, values = text.partition("=")
    if not equals:
        raise ConfigError(f"expected NAME=VALUE,VALUE, such as lr=1e-3,1e-2, found {text!r}")
    key = setting_name(name)
    pieces = values.split(";" if ";" in values else ",")
    pieces = [p.strip() for p in pieces if p.strip()]
    if not pieces:
        raise ConfigError(f"there are no values for {key}; give at least one, such as {key}=VALUE")
    return key, [read_value(key, p) for p in pieces]


def read_value(name: str, text: str) -> Any:
    """Read the text of one value as the type of the setting."""
    hint = hints()[name]
    options = [o for o in (typing.get_args(hint) or (hint,)) if o is not type(None)]
    optional = type(None) in typing.get_args(hint)
    kind = hint if typing.get_origin(hint) is list else options[0]
    if text.lower() == "none" and (optional or typing.get_origin(kind) is list):
        return [] if typing.get_origin(kind) is list else None
    try:
        if typing.get_origin(kind) is list:
            inner = typing.get_args(kind)[0]
            return [inner(v) for v in text.split(",") if v.strip()]
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        raise ConfigError(f"{name}: cannot read the value {text!r}") from None


def read_point(text: str) -> Candidate:
    """Read one listed candidate, ``"lr=0.1 hidden=300,100"``."""
    point = {}
    for item in text.split():
        name, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"point {text!r}: expected NAME=VALUE NAME=VALUE, found {item!r}")
        key = setting_name(name)
        point[key] = read_value(key, value)
    if not point:
        raise ConfigError("a point is empty; give settings such as 'lr=0.1 hidden=300,100'")
    return point


def candidates(
    grid: Mapping[str, Sequence[Any]], ranges: Mapping[str, Range | Sequence[Any]], points: Sequence[Candidate],
    *, random: int | None, seed: int,
) -> list[Candidate]:  # fmt: skip
    """Return all candidates: the listed points, then the grid, each of its cells with all draws.

    Parameters
    ----------
    grid : mapping
        Values by setting; all combinations are tried.
    ranges : mapping
        By setting a range or the values to draw from.
    points : sequence of dict
        Listed candidates.
    random : int, optional
        How often to draw from the ranges.
    seed : int
        Of the draws.

    Raises
    ------
    ConfigError
        There is nothing to vary, ranges without a number of draws, or the reverse.

    Examples
    --------
    >>> candidates({"lr": [0.1, 0.2]}, {}, [{"l2": 0.5}], random=None, seed=0)
    [{'l2': 0.5}, {'lr': 0.1}, {'lr': 0.2}]
    """
    if ranges and random is None:
        raise ConfigError(f"say with --random N how often to draw {', '.join(ranges)}")
    if random is not None and not ranges:
        raise ConfigError("--random needs a --range to draw from, such as --range lr=log:1e-4..1e-1")
    if random is not None and random < 1:
        raise ConfigError(f"random must be at least 1, found {random}")
    both = [name for name in grid if name in ranges]
    if both:
        raise ConfigError(f"{both[0]} is in the grid and drawn from a range; leave one of them out")
    if not (grid or ranges or points):
        raise ConfigError(
            "there is nothing to try: give --grid lr=1e-3,1e-2, --random 20 --range lr=log:1e-4..1e-1, or "
            "--point 'lr=0.1 l2=1e-4'"
        )
    draws = _draws(ranges, random, seed)
    result = [dict(p) for p in points]
    if grid or ranges:
        cells = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        result += [cell | draw for draw in draws for cell in cells]
    unique: list[Candidate] = []
    for each in result:
        if each not in unique:
            unique.append(each)
    return unique


def _draws(ranges: Mapping[str, Range | Sequence[Any]], random: int | None, seed: int) -> list[Candidate]:
    if random is None:
        return [{}]
    result = []
    for k in range(random):  # a stream for each draw, so that more draws leave the first ones as they are
        generator = rng.generator(seed, _STREAM, k)
        draw = {}
        for name in sorted(ranges):  # each has its place, whatever the order they were given in
            source = ranges[name]
            if isinstance(source, Range):
                value: Any = source.draw(generator)
                draw[name] = [value] if typing.get_origin(hints()[name]) is list else value
            else:
                draw[name] = source[int(generator.integers(len(source)))]
        result.append(draw)
    return result
