"""What becomes of one column of a table: which features it gives, and how their values are made.

A recipe holds numbers and names only, never data, so that it can be kept in a model file as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from ..data.columns import Column, Table, number_text, parse_boolean, parse_date, parse_numbers
from ..data.scaling import FeatureScaler
from ..data.spelling import MISSING, parse_number
from ..errors import DataError, nearest

#: What is done with a category that training did not see: an error, or as if the value were missing.
UNKNOWN = ("refuse", "missing")

_MOST = 0.9  # a column of texts with so large a share of numbers is a column of numbers with mistakes; so with dates
_INDEX_NAMES = ("id", "index", "row", "__index_level_0__")
_ID = re.compile(r"[^A-Za-z][iI][dD]$|[a-z]I[dD]$")  # row_id, PassengerId; not humid


@dataclass(frozen=True)
class NumberRecipe:
    """A column of numbers, booleans or dates: one feature, and one more that says where a value is missing.

    Parameters
    ----------
    name : str
    kind : {"number", "boolean", "date"}
    fill : float
        What stands in for a missing value.
    mean, scale : float
        The feature is ``(x - mean) / scale``.
    tail : bool
        Beyond 10 scales it grows like a logarithm (see `xpnet.estimators.FeatureScaler`).
    indicator : bool
        Whether there is a second feature, 1 where the value is missing and else 0.
    n_missing : int
        Missing values when it was made.
    low, high : float
        The least and the greatest value then.
    """

    name: str
    kind: str
    fill: float
    mean: float = 0.0
    scale: float = 1.0
    tail: bool = False
    indicator: bool = False
    n_missing: int = 0
    low: float = 0.0
    high: float = 0.0

    @property
    def features(self) -> list[str]:
        """Names of its features."""
        return [self.name, f"{self.name} missing"] if self.indicator else [self.name]

    def encode(self, table: Table, out: np.ndarray, unknown: str) -> None:
        """Fill `out` (N, features) from the table."""
        values = numbers(table, self.name, self.kind)
        missing = np.isnan(values)
        scaler = FeatureScaler()
        scaler.mean_, scaler.scale_ = np.array([self.mean]), np.array([self.scale])
        scaler.tails_ = np.array([self.tail])
        z = scaler.transform(np.where(missing, self.fill, values)[:, None])[:, 0]
        too_large = np.abs(z) > np.finfo(out.dtype).max
        if too_large.any():
            at = int(np.flatnonzero(too_large)[0])
            raise DataError(
                f"{table.cell(at, self.name)}, which is too large: training saw {number_text(self.low)} to "
                f"{number_text(self.high)}"
            )
        out[:, 0] = z
        if self.indicator:
            out[:, 1] = missing

    def describe(self) -> str:
        """What it does, for people."""
        if self.kind == "boolean":
            text = "false 0, true 1"
        else:
            text = f"{shown(self.low, self.kind)} to {shown(self.high, self.kind)}"
        if self.scale != 1.0 or self.mean != 0.0:
            text += f"; as (x {'-' if self.mean >= 0 else '+'} {abs(self.mean):.6g}) / {self.scale:.6g}"
        if self.tail:
            text += "; outliers as logs"
        if self.n_missing:
            text += f"; missing: {shown(self.fill, self.kind)}" + (" and a feature" if self.indicator else "")
        return text


@dataclass(frozen=True)
class CategoryRecipe:
    """A column of categories: one feature for each, 1 for the category of the row and else 0.

    Parameters
    ----------
    name : str
    categories : tuple of str
        Those with a feature of their own.
    other : bool
        A feature for all other texts.
    missing : bool
        A feature for rows without a value.
    open : bool
        Texts, or missing values, that have no feature are accepted. Such texts count as missing where `missing`;
        else all features are 0.
    n_missing, n_different : int
        Missing values and different texts when it was made.
    """

    name: str
    categories: tuple[str, ...]
    other: bool = False
    missing: bool = False
    open: bool = False
    n_missing: int = 0
    n_different: int = 0
    kind: str = field(default="category", init=False)

    @property
    def features(self) -> list[str]:
        """Names of its features."""
        more = [f"{self.name} other"] * self.other + [f"{self.name} missing"] * self.missing
        return [f"{self.name}={category}" for category in self.categories] + more

    def encode(self, table: Table, out: np.ndarray, unknown: str) -> None:
        """Fill `out` (N, features) from the table."""
        where = self._positions(table)
        if unknown == "refuse" and not self.open and (where < 0).any():
            self._refuse(table, int(np.flatnonzero(where < 0)[0]))
        if self.missing:  # then these are texts, not rows without one
            where[where < 0] = self.rest
        out[...] = 0.0
        there = np.flatnonzero(where >= 0)
        out[there, where[there]] = 1.0

    @property
    def rest(self) -> int:
        """Position of the feature of texts that `categories` lacks, where they are not refused; -1 for none."""
        return len(self.categories) if self.other or self.missing else -1

    def _positions(self, table: Table) -> np.ndarray:
        """The feature of each row (N,), -1 where it has none of its own."""
        codes, texts = table[self.name].as_texts()
        own = {category: k for k, category in enumerate(self.categories)}
        rest = len(own) if self.other else -1
        found = [next((own[t] for t in spellings(text) if t in own), rest) for text in texts]
        return np.array([*found, len(own) + self.other if self.missing else -1], dtype=np.int64)[codes]

    def unseen(self, table: Table) -> int:
        """How many rows hold what has no feature of its own."""
        where = self._positions(table)
        return int(np.count_nonzero((where < 0) | ((where == len(self.categories)) & self.other)))

    def _refuse(self, table: Table, at: int) -> None:
        codes, _ = table[self.name].as_texts()
        known = ", ".join(map(repr, self.categories[:12])) + (", ..." if len(self.categories) > 12 else "")
        what = (
            "no value, which training never saw missing"
            if codes[at] < 0
            else "a category that training never saw"
        )
        raise DataError(
            f"{table.cell(at, self.name)}: {what}. It knows {known}. Correct it, train on a table that has it, or "
            "let evaluate and predict go on without the value: --unknown missing"
        )

    def describe(self) -> str:
        """What it does, for people."""
        text = ", ".join(self.categories[:6]) + (", ..." if len(self.categories) > 6 else "")
        if self.other:
            text += f"; {self.n_different - len(self.categories)} rare ones together"
        return text + ("; missing: a category" if self.missing else "")


Recipe = NumberRecipe | CategoryRecipe


@dataclass(frozen=True)
class LeftOut:
    """A column that gives no feature, and why."""

    name: str
    kind: str
    reason: str
    n_missing: int = 0


def spellings(text: str) -> list[str]:
    """A whole number may come with or without a point, depending on which program wrote the file."""
    if text.removeprefix("-").isdigit():
        return [text, f"{text}.0"]
    return [text, text[:-2]] if text.endswith(".0") and text[:-2].removeprefix("-").isdigit() else [text]


def shown(value: float, kind: str) -> str:
    """A value of a column, as people write it."""
    return Column("", kind, np.array([value])).shown(0) if kind in ("date", "boolean") else f"{value:.6g}"


def numbers(table: Table, name: str, kind: str) -> np.ndarray:
    """Return the values (N,) of a column that must hold numbers, booleans or dates; NaN where missing.

    Raises
    ------
    DataError
        It holds something else; names the first row.
    """
    column = table[name]
    wanted = {"number": "a number", "boolean": "true or false", "date": "a date such as 2024-05-31"}[kind]
    values = column.values
    if column.kind == "text":
        parsed = _parsed(column.texts, kind, table.decimal)
        lookup = np.array([np.nan if p is None else p for p in parsed] + [np.nan])
        bad = np.array([p is None for p in parsed] + [False])[column.values]
        if bad.any():
            _wrong(table, name, bad, wanted)
        values = lookup[column.values]
    elif not np.isnan(values).all() and (column.kind == "date") != (kind == "date"):
        _wrong(table, name, ~np.isnan(values), wanted)
    if kind == "boolean" and column.kind != "boolean":
        bad = ~np.isnan(values) & (values != 0.0) & (values != 1.0)
        if bad.any():
            _wrong(table, name, bad, wanted)
    if np.isinf(values).any():
        _wrong(table, name, np.isinf(values), "a finite number")
    return values


def _parsed(texts: Sequence[str], kind: str, decimal: str) -> list[float | None]:
    """What texts are as numbers, booleans or dates; None where they are none."""
    if kind == "date":
        return [parse_date(text) for text in texts]
    found = [parse_boolean(text) for text in texts] if kind == "boolean" else [None] * len(texts)
    return [
        parse_number(text, decimal) if value is None else value
        for text, value in zip(texts, found, strict=True)
    ]


def no_column(table: Table, name: str, what: str = "") -> DataError:
    """Build the error for a column that a table lacks, with the nearest spelling."""
    near = nearest(name, table.names)
    hint = f" (did you mean {near!r}?)" if near else ""
    return DataError(
        f"{table.source}: no {what}column named {name!r}{hint}; the columns are {', '.join(table.names)}"
    )


def _wrong(table: Table, name: str, bad: np.ndarray, wanted: str) -> None:
    n = int(np.count_nonzero(bad))
    more = f" ({n} rows are like this)" if n > 1 else ""
    raise DataError(
        f"{table.cell(int(np.flatnonzero(bad)[0]), name)}, expected {wanted}{more}; correct it, or leave the cell empty"
    )


# --- making recipes -----------------------------------------------------------------------------
@dataclass(frozen=True)
class Rules:
    """What decides how recipes are made; see `xpnet.tabular.TabularPreprocessing`."""

    categorical: tuple[str, ...] = ()
    max_categories: int = 50
    impute: str = "median"
    missing_indicator: bool = True
    standardize: bool = True
    decimal: str | None = None
    missing_values: tuple[str, ...] = MISSING


def make_recipe(table: Table, name: str, rows: np.ndarray, rules: Rules) -> Recipe | LeftOut:
    """Decide what becomes of a column; numbers are measured on `rows` (indices) only."""
    column = table[name]
    n_missing = column.n_missing
    if n_missing == len(column):
        return LeftOut(name, column.kind, "it has no values", n_missing)
    if name in rules.categorical or column.kind == "text":
        if name not in rules.categorical and (wrong := mistake(table, name)):
            way = f"--categorical {name!r}, or leave it out, --ignore {name!r}"
            raise DataError(f"{wrong}; or take the column for categories, {way}")
        return _categories(column, rows, rules, n_missing, forced=name in rules.categorical)
    values = numbers(table, name, column.kind)
    seen = values[rows]
    present = seen[~np.isnan(seen)]
    if not len(present):
        return LeftOut(name, column.kind, "it has no values in the training rows", n_missing)
    if _counts_rows(name, values):
        return LeftOut(name, column.kind, "it numbers the rows", n_missing)
    if len(present) == len(seen) and (present == present[0]).all():
        return LeftOut(name, column.kind, f"it is always {shown(float(present[0]), column.kind)}", n_missing)
    if column.kind == "boolean":
        fill = float(present.mean() >= 0.5)  # the more frequent one
    else:
        fill = float(np.mean(present) if rules.impute == "mean" else np.median(present))
    recipe = NumberRecipe(
        name, column.kind, fill, indicator=rules.missing_indicator and len(present) < len(seen),
        n_missing=n_missing, low=float(present.min()), high=float(present.max()),
    )  # fmt: skip
    if not rules.standardize:
        return recipe
    scaler = FeatureScaler().fit(np.where(np.isnan(seen), fill, seen)[:, None])
    measured = {
        "mean": float(scaler.mean_[0]),
        "scale": float(scaler.scale_[0]),
        "tail": bool(scaler.tails_[0]),
    }
    return NumberRecipe(**{**asdict(recipe), **measured})


def _counts_rows(name: str, values: np.ndarray) -> bool:
    named = name.lower() in _INDEX_NAMES or name.lower().startswith("unnamed") or bool(_ID.search(name))
    return named and len(values) > 2 and bool((np.diff(values) == 1.0).all())


def _categories(
    column: Column, rows: np.ndarray, rules: Rules, n_missing: int, *, forced: bool
) -> Recipe | LeftOut:
    codes, texts = column.as_texts()
    n_values, different = len(column) - n_missing, len(texts)
    if not forced and different > rules.max_categories and different > n_values / 2:
        reason = f"{different} different texts in {n_values} rows, too many to learn from"
        return LeftOut(column.name, "text", reason, n_missing)
    counts = np.bincount(codes[rows] + 1, minlength=different + 1)
    in_training, counts = int(counts[0]), counts[1:]
    if np.count_nonzero(counts) + bool(in_training) < 2:
        seen = texts[int(counts.argmax())] if counts.any() else ""
        return LeftOut(column.name, "text", f"it is always {seen!r}", n_missing)
    # the most frequent ones; between equally frequent ones, in the order of their names
    order = sorted(np.flatnonzero(counts).tolist(), key=lambda k: (-counts[k], texts[k]))
    room = rules.max_categories if len(order) <= rules.max_categories else rules.max_categories - 1
    kept, rare = order[:room], order[room:]
    unseen = different > len(order) or (n_missing > 0 and not in_training)
    return CategoryRecipe(
        column.name, tuple(sorted((texts[k] for k in kept), key=_by_value)), other=bool(rare),
        missing=in_training > 0, open=bool(rare) or unseen, n_missing=n_missing, n_different=different,
    )  # fmt: skip


def _by_value(text: str) -> tuple[float, str]:
    found = parse_numbers([text])
    return (np.inf if found is None or np.isnan(found[0]) else float(found[0]), text)


def mistake(table: Table, name: str) -> str:
    """Say which cell keeps a column of texts from being one of numbers, dates or booleans, and what to do; or ""."""
    column = table[name]
    if column.declared:
        return ""
    there = column.values >= 0
    for kind, what in (("date", "dates"), ("boolean", "true or false"), ("number", "numbers")):
        if kind == "number" and (hint := table.advice(name)):
            return f"{table.source}: column {name!r}: {hint}"
        parsed = [parse_boolean(text) for text in column.texts] if kind == "boolean" else _parsed(
            column.texts, kind, table.decimal
        )  # fmt: skip
        fits = np.array([value is not None for value in parsed] + [False])[column.values] & there
        others = there & ~fits
        n, m = np.count_nonzero(fits), np.count_nonzero(others)
        if m and n >= _MOST * (n + m):
            empty = ", or name it with --missing-values" if table.word == "line" else ""
            return (
                f"{table.cell(int(np.flatnonzero(others)[0]), name)}, but {n} other rows hold {what} ({m} "
                f"{'holds' if m == 1 else 'hold'} texts); correct it, or leave the cell empty{empty}"
            )
    return ""


def recipe_from_metadata(metadata: Mapping[str, Any]) -> Recipe | LeftOut:
    """Rebuild a recipe from `recipe_to_metadata`'s result."""
    kind = {"number": NumberRecipe, "category": CategoryRecipe, "left out": LeftOut}[metadata["recipe"]]
    known = {f.name for f in fields(kind) if f.init}
    values = {key: value for key, value in metadata.items() if key in known}
    if kind is CategoryRecipe:
        values["categories"] = tuple(values["categories"])
    return kind(**values)


def recipe_to_metadata(recipe: Recipe | LeftOut) -> dict[str, Any]:
    """Return a recipe as plain values, ready for JSON."""
    kind = {NumberRecipe: "number", CategoryRecipe: "category", LeftOut: "left out"}[type(recipe)]
    values = asdict(recipe)
    if isinstance(recipe, CategoryRecipe):
        values["categories"] = list(recipe.categories)
    return {"recipe": kind, **values}
