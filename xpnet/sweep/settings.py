"""The settings of a sweep: those of training that stay the same, what varies, folds and seeds; from flags and TOML."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, unknown_name
from ..runs import config as config_module
from ..runs.config import TrainConfig, converted, hints, known_settings, load_toml, toml_value
from ..training.defaults import VALID_FRACTION
from .space import Candidate, Range, candidates, setting_name

#: Settings that mean something for a single run only.
NOT_IN_SWEEPS = ("save_every", "statistics", "log")
_NUMBERS = {"random": 1, "folds": 0, "seeds": 1, "top": 0}


@dataclass(kw_only=True)
class SweepConfig:
    """What a sweep tries, and how.

    Parameters
    ----------
    base : TrainConfig
        Settings that all candidates have, unless they say otherwise.
    grid, ranges, points
        See `xpnet.sweep.space.candidates`.
    random : int, optional
        How often to draw from the ranges.
    folds : int, default 0
        K of K-fold cross-validation; 0 validates on the share `valid_fraction` or on the user's own data.
    seeds : int, default 1
        How many seeds each candidate is trained with: base.seed, base.seed + 1, ...
    top : int, default 0
        How many of the best are trained again into run folders.

    Examples
    --------
    >>> len(SweepConfig(grid={"lr": [1e-3, 1e-2], "l2": [0.0, 1e-4]}, folds=5).candidates())
    4
    """

    base: TrainConfig = field(default_factory=TrainConfig)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    ranges: dict[str, Any] = field(default_factory=dict)
    points: list[Candidate] = field(default_factory=list)
    random: int | None = None
    folds: int = 0
    seeds: int = 1
    top: int = 0

    def __post_init__(self) -> None:
        for name, least in _NUMBERS.items():
            value = getattr(self, name)
            if value is None and name == "random":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} must be a whole number >= {least}, found {value!r}")
        if self.folds == 1:
            raise ConfigError(
                "one fold has nothing to validate on; give --folds 2 or more, or 0 for a held-out share"
            )
        if self.folds and self.base.valid is not None:
            raise ConfigError("folds and validation data of your own (valid) exclude each other")
        if (
            self.base.valid_fraction is None
        ):  # a sweep compares by validation data, however few rows there are
            self.base = replace(self.base, valid_fraction=VALID_FRACTION)
        if not self.folds and self.base.valid is None and not self.base.valid_fraction:
            raise ConfigError(
                "a sweep compares by validation data: give --folds K, --valid FILE or a --valid-fraction above 0"
            )
        default = TrainConfig()
        for name in NOT_IN_SWEEPS:
            if getattr(self.base, name) != getattr(default, name):
                raise ConfigError(f"{name} is for single runs; a sweep does not have it")
        self.grid = {setting_name(n): self._values(n, v) for n, v in self.grid.items()}
        self.ranges = {
            setting_name(n): v if isinstance(v, Range)
            else Range.parse(n, v) if isinstance(v, str) else self._values(n, v)
            for n, v in self.ranges.items()
        }  # fmt: skip
        self.points = [{setting_name(n): self._value(n, v) for n, v in p.items()} for p in self.points]

    def _values(self, name: str, values: Any) -> list[Any]:
        if isinstance(values, (str, bytes)) or not isinstance(values, (list, tuple)):
            raise ConfigError(f"{name} must have a list of values, found {values!r}")
        if not values:
            raise ConfigError(f"there are no values for {name}; give at least one")
        return [self._value(name, v) for v in values]

    @staticmethod
    def _value(name: str, value: Any) -> Any:
        key = setting_name(name)
        if value in ("none", "None"):
            value = None
        return None if value is None else converted(key, hints()[key], value)

    @property
    def varied(self) -> list[str]:
        """Settings that differ between candidates, in the order they were named."""
        names = [*self.grid, *self.ranges, *(n for p in self.points for n in p)]
        return list(dict.fromkeys(names))

    def candidates(self) -> list[Candidate]:
        """All candidates; equal ones once."""
        return candidates(self.grid, self.ranges, self.points, random=self.random, seed=self.base.seed)

    def config(self, candidate: Candidate) -> TrainConfig:
        """The settings of a candidate.

        Raises
        ------
        ConfigError
            They are impossible; the message begins with what the candidate changes.
        """
        try:
            return replace(self.base, **candidate)
        except ConfigError as error:
            raise ConfigError(f"candidate {shown(candidate)}: {error}") from error

    def to_toml(self) -> str:
        """The settings as a TOML file for ``xpnet sweep --config``."""
        lines = [self.base.to_toml("sweep", "sweep"), "[sweep]"]
        for name in ("random", "folds", "seeds", "top"):
            if getattr(self, name) is not None:
                lines.append(f"{name} = {getattr(self, name)}")
        if self.grid:
            lines += [
                "",
                "[sweep.grid]",
                *(f"{n} = {toml_value(_without_none(v))}" for n, v in self.grid.items()),
            ]
        if self.ranges:
            lines += ["", "[sweep.range]"]
            lines += [
                f"{n} = {toml_value(str(v) if isinstance(v, Range) else _without_none(v))}"
                for n, v in self.ranges.items()
            ]
        for point in self.points:
            lines += [
                "",
                "[[sweep.points]]",
                *(f"{n} = {toml_value(_without_none(v))}" for n, v in point.items()),
            ]
        return "\n".join(lines) + "\n"


def shown(candidate: Candidate) -> str:
    """A candidate as text.

    Examples
    --------
    >>> shown({"lr": 0.001, "hidden": [300, 100]})
    'lr=0.001 hidden=300,100'
    """
    return " ".join(f"{name}={show_value(value)}" for name, value in candidate.items())


def show_value(value: Any) -> str:
    """One setting as text."""
    if isinstance(value, list):
        return ",".join(map(show_value, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if value is None else str(value)


def _without_none(value: Any) -> Any:
    """TOML has no null: it is written as the word."""
    return (
        [_without_none(v) for v in value] if isinstance(value, list) else "none" if value is None else value
    )


_SWEEP_KEYS = ("grid", "range", "points", "random", "folds", "seeds", "top")


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a TOML file: settings of training, and the table ``[sweep]``.

    Raises
    ------
    ConfigError
        Missing or malformed file, or a key that is no setting (the nearest spelling is shown).
    """
    values = load_toml(path)
    table = values.pop("sweep", {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"{path}: sweep must be a table, [sweep]")
    settings = known_settings(path, values)
    for key, value in table.items():
        if key not in _SWEEP_KEYS:
            raise unknown_name(f"key of [sweep] in {path}:", key, _SWEEP_KEYS)
        kind: Any = {"grid": Mapping, "range": Mapping, "points": list}.get(key, int)
        if not isinstance(value, kind):
            raise ConfigError(f"{path}: {key} of [sweep] must be {_KIND_NAMES[kind]}, found {value!r}")
    if not all(isinstance(p, Mapping) for p in table.get("points", [])):
        raise ConfigError(f"{path}: points of [sweep] must be tables, [[sweep.points]]")
    return settings, dict(table)


_KIND_NAMES = {Mapping: "a table of values by setting", list: "a list of tables", int: "a whole number"}


def resolve(file: str | Path | None, flags: Mapping[str, Any], sweep: Mapping[str, Any]) -> SweepConfig:
    """Combine a file with flags, which win: setting by setting, and axis by axis.

    Parameters
    ----------
    file : path, optional
    flags : mapping
        Settings of training that were given.
    sweep : mapping
        "grid", "ranges", "points", "random", "folds", "seeds" and "top", as far as given.
    """
    settings, table = ({}, {}) if file is None else read(file)
    base = config_module.combine(settings, flags)
    grid, ranges = dict(table.get("grid", {})), dict(table.get("range", {}))
    for mine, other, given in ((grid, ranges, sweep.get("grid")), (ranges, grid, sweep.get("ranges"))):
        for name, values in (given or {}).items():
            other.pop(name, None)
            mine[name] = values
    if file is not None and not (table or grid or ranges or sweep.get("points")):
        raise ConfigError(
            f"{file} has no table [sweep], so there is nothing to try: add one, or give --grid lr=1e-3,1e-2. A single "
            f"run with its settings: xpnet train --config {shlex.quote(str(file))}"
        )
    numbers = {n: sweep[n] if sweep.get(n) is not None else table.get(n) for n in _NUMBERS}
    return SweepConfig(
        base=base, grid=grid, ranges=ranges, points=list(sweep.get("points") or table.get("points", [])),
        **{n: v for n, v in numbers.items() if v is not None},
    )  # fmt: skip
