"""Tables of mixed columns become rows of numbers, and targets class indices or scaled numbers.

Everything that is learnt from a table here - medians, scales, categories - is kept as plain numbers and names, so a
model file holds it as JSON and new tables pass through the same steps.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ..data.columns import Table, parse_date
from ..data.spelling import MISSING, Spelling
from ..data.table_sources import from_columns, read_table
from ..errors import ConfigError, DataError, FileFormatError, unknown_name
from .recipes import (
    UNKNOWN,
    CategoryRecipe,
    LeftOut,
    NumberRecipe,
    Recipe,
    Rules,
    make_recipe,
    no_column,
    numbers,
    recipe_from_metadata,
    recipe_to_metadata,
    shown,
)
from .targets import Target, find_classes, infer_task, label_of, no_target, scale_of

__all__ = ["TabularPreprocessing", "Target", "columns_text"]

VERSION = 1
FORCED = "as asked for"


class TabularPreprocessing:
    """From the columns of a table to a network's input, and from its target column to what it learns.

    Numbers are brought to mean 0 and scale 1, as `xpnet.estimators.FeatureScaler` does; missing ones are filled, and a
    feature says where. Categories become one feature each. Dates become days since 1970-01-01. Columns that cannot
    help (always one value, empty, as many texts as rows, row numbers) are left out. `describe` shows what was decided.

    Parameters
    ----------
    target : str, optional
        The column to predict; needed for `fit_target`.
    task : {"classification", "regression"}, optional
        By default texts and booleans are classes; so are whole numbers with at most 20 different values that occur at
        least 5 times each in the mean (or two values); other numbers are regressed on.
    categorical : sequence of str
        Columns of numbers that are categories.
    ignore : sequence of str
        Columns to leave out.
    max_categories : int, default 50
        Features for one column of categories; from the rarest ones on they share one. A column of texts with more
        different texts than this, and more than half as many as rows, is left out.
    impute : {"median", "mean"}, default "median"
        What fills missing numbers.
    missing_indicator : bool, default True
        Add a feature that is 1 where a number is missing.
    standardize : bool, default True
        Scale the features.
    scale_target : bool or "mean", default True
        Scale the target of a regression to mean 0 and standard deviation 1 for training. "mean" only divides it by
        its mean, which suits counts and the Poisson loss.
    decimal : {".", ","}, optional
        What stands before the decimals of numbers that are texts, as in CSV files; by default the cells say so
        themselves, and where new ones do not, those of the table of `fit`.
    missing_values : sequence of str
        Cells of CSV files that hold no value, beside empty ones, in any case; in other tables those among numbers,
        dates and booleans that are written as texts.
    weight : str, optional
        The column that says what each row counts in training; it is no feature. See `weights`.

    Attributes
    ----------
    recipes_ : tuple of recipes, one per column with features
    left_out_ : tuple of LeftOut
    target_ : Target or None
    feature_names_ : list of str, the I columns of the result

    Examples
    --------
    >>> table = {"age": [31, 45, None, 22], "town": ["Bern", "Graz", "Bern", None], "id": [1, 2, 3, 4]}
    >>> prepare = TabularPreprocessing().fit(table)
    >>> prepare.feature_names_
    ['age', 'age missing', 'town=Bern', 'town=Graz', 'town missing']
    >>> prepare.transform({"town": ["Graz"], "age": [31.0]}).round(2)
    array([[-0.15,  0.  ,  0.  ,  1.  ,  0.  ]], dtype=float32)
    >>> prepare.transform({"town": ["Rome"], "age": [31]})
    Traceback (most recent call last):
    xpnet.errors.DataError: data: row 0, column 'town' holds 'Rome': a category that training never saw...
    """

    recipes_: tuple[Recipe, ...]
    left_out_: tuple[LeftOut, ...]

    def __init__(
        self, target: str | None = None, *, task: str | None = None, categorical: Sequence[str] = (),
        ignore: Sequence[str] = (), max_categories: int = 50, impute: str = "median",
        missing_indicator: bool = True, standardize: bool = True, scale_target: bool | str = True,
        decimal: str | None = None, missing_values: Sequence[str] = MISSING, weight: str | None = None,
    ):  # fmt: skip
        if max_categories < 2:
            raise ConfigError(f"max_categories must be at least 2, found {max_categories}")
        if impute not in ("median", "mean"):
            raise unknown_name("way to fill missing numbers", impute, ("median", "mean"))
        if task not in (None, "classification", "regression"):
            raise unknown_name("task", task, ("classification", "regression"))
        if isinstance(scale_target, str) and scale_target != "mean":
            raise ConfigError(f"scale_target must be True, False or 'mean', found {scale_target!r}")
        self.target, self.task, self.ignore, self.scale_target = target, task, tuple(ignore), scale_target
        self.weight = weight
        if decimal not in (None, ".", ","):
            raise ConfigError(f"decimal must be '.' or ',', found {decimal!r}")
        self.rules = Rules(
            tuple(categorical), max_categories, impute, missing_indicator, standardize, decimal,
            tuple(missing_values),
        )  # fmt: skip
        self._likely = "."
        self.target_: Target | None = None
        for name, role in ((target, "target"), (weight, "weight of rows")):
            if name is not None and name in self.ignore:
                raise ConfigError(f"column {name!r} is the {role}, so it cannot be ignored")
        if weight is not None and weight in (target, *self.rules.categorical):
            role = "the target" if weight == target else "one of categories"
            raise ConfigError(f"column {weight!r} is {role}, so it cannot be the weight of rows")

    # --- tables -----------------------------------------------------------------------------------
    def table(self, data: Any) -> Table:
        """Return the columns that are needed of a file, data frame or dictionary.

        Before `fit` these are all but the ignored ones, after it those that were learnt from, target and weight.
        """
        if isinstance(data, Table):
            return data
        fitted = hasattr(self, "recipes_")
        text = (
            {r.name for r in self.recipes_ if isinstance(r, CategoryRecipe)}
            if fitted
            else {*self.rules.categorical}
        )
        if (
            fitted
            and (t := self.target_) is not None
            and t.kind == "text"
            and parse_date(t.classes[0]) is None
        ):
            text |= {t.name}  # classes that are texts have the spelling that they had
        options: dict[str, Any] = {"text": text, "skip": self.ignore}
        if fitted:
            options["only"] = {*self.columns, self.target_.name if self.target_ else None, self.weight}
        options["spelling"] = Spelling(self.rules.decimal, self._likely, self.rules.missing_values)
        return (read_table if isinstance(data, (str, os.PathLike)) else from_columns)(data, **options)

    @property
    def columns(self) -> list[str]:
        """Names of the columns that features come from."""
        return [recipe.name for recipe in self.recipes_]

    @property
    def feature_names_(self) -> list[str]:
        """Names of the I columns that `transform` returns."""
        return [name for recipe in self.recipes_ for name in recipe.features]

    # --- fitting ----------------------------------------------------------------------------------
    def fit(self, data: Any, rows: np.ndarray | None = None) -> TabularPreprocessing:
        """Decide what becomes of each column, and of the target where there is one.

        Parameters
        ----------
        data : path, data frame, mapping of str to sequence, or Table
        rows : (B,) int64, optional
            Fills, scales and frequent categories are those of these rows only; all where omitted.

        Raises
        ------
        DataError
            Nothing to learn from, or values that cannot be used; the message names row and column.
        ConfigError
            `categorical`, `ignore`, `target` or `weight` name a column that is not there.
        """
        table = self.table(data)
        if not table.n_rows:
            raise DataError(f"{table.source}: no rows, expected at least one")
        self._likely = table.decimal
        for what, given in (("ignored", self.ignore), ("categorical", self.rules.categorical)):
            for name in given:
                if name not in table.names:
                    raise unknown_name(f"{what} column of {table.source}:", name, table.names)
        rows = np.arange(table.n_rows) if rows is None else np.asarray(rows)
        if self.target is not None:
            self.fit_target(table, rows)
        if self.weight is not None and self.weight not in table.names:
            raise no_column(table, self.weight, "weight ")
        features = [name for name in table.columns if name not in (self.target, self.weight)]
        found = [make_recipe(table, name, rows, self.rules) for name in features]
        ignored = [LeftOut(name, "", "ignored") for name in table.names if name in self.ignore]
        self.recipes_ = tuple(r for r in found if not isinstance(r, LeftOut))
        self.left_out_ = tuple(r for r in found if isinstance(r, LeftOut)) + tuple(ignored)
        if not self.recipes_:
            why = "; ".join(f"{left.name}: {left.reason}" for left in self.left_out_)
            alone = f"there is only {table.names[0]!r}; between columns stands a comma, semicolon, tab or bar"
            why = why or (alone if len(table.names) == 1 else "there is only the target")
            raise DataError(f"{table.source}: no column to learn from ({why})")
        return self

    def fit_target(self, data: Any, rows: np.ndarray | None = None) -> Target:
        """Decide the task and the classes, or the scale of the target on `rows`."""
        table = self.table(data)
        name = self.target
        if name is None:
            raise ConfigError("say which column is the target: TabularPreprocessing(target=...)")
        if name not in table.columns:
            raise no_column(table, name, "target ")
        column = table[name]
        if column.missing.any():
            raise no_target(table, name)
        task, why = (self.task, FORCED) if self.task else infer_task(table, name)
        kind = "text" if column.kind == "date" and task == "classification" else column.kind
        self.target_ = Target(name, kind, task, why)
        if task == "classification":
            self.target_ = replace(self.target_, classes=find_classes(table, name))
        else:
            y = numbers(table, name, "number")
            y = y if rows is None else y[rows]
            scale = scale_of(y, keep_zero=self.scale_target == "mean") if self.scale_target else {}
            self.target_ = replace(self.target_, kind="number", **scale)
        return self.target_

    # --- using ------------------------------------------------------------------------------------
    def transform(self, data: Any, *, dtype: Any = np.float32, unknown: str = "refuse") -> np.ndarray:
        """Return the features (N, I) of a table with the same columns, in any order.

        Parameters
        ----------
        data : path, data frame, mapping of str to sequence, or Table
        dtype : numpy dtype, default float32
        unknown : {"refuse", "missing"}, default "refuse"
            What to do with a category that `fit` did not see. "missing" takes it for a missing value where those are
            a category too, and else leaves all features of the column 0.

        Raises
        ------
        ConfigError
            It was not fitted.
        DataError
            A column is missing, or a value cannot be used; the message names row and column.
        """
        if not hasattr(self, "recipes_"):
            raise ConfigError(
                "nothing is known about the columns yet: call fit(table) first; those of a model come by "
                "from_metadata(model.tabular)"
            )
        if unknown not in UNKNOWN:
            raise unknown_name("way to treat unknown categories", unknown, UNKNOWN)
        table = self.table(data)
        for name in self.columns:
            if name not in table.columns:
                raise no_column(table, name)
        names = [len(recipe.features) for recipe in self.recipes_]
        out = np.zeros((table.n_rows, sum(names)), dtype=dtype)
        at = 0
        for recipe, width in zip(self.recipes_, names, strict=True):
            recipe.encode(table, out[:, at : at + width], unknown)
            at += width
        return out

    def notes(self, data: Any, *, unknown: str = "refuse") -> list[str]:
        """Return what is worth knowing about a new table: columns without use, values filled."""
        table = self.table(data)
        beside = (self.target_.name if self.target_ else None, self.weight)
        own = {*self.columns, *(left.name for left in self.left_out_), *beside}
        extra = [name for name in table.names if name not in own]
        notes = list(table.notes)
        notes += [f"ignored columns that training did not have: {', '.join(extra)}"] if extra else []
        for recipe in self.recipes_:
            if isinstance(recipe, NumberRecipe):
                n = table[recipe.name].n_missing
                if n and not recipe.n_missing:
                    notes.append(
                        f"{recipe.name}: {n} of {table.n_rows} values are missing (none were in training), filled with "
                        f"{shown(recipe.fill, recipe.kind)}"
                    )
            elif recipe.open or unknown == "missing":
                n = recipe.unseen(table)
                if n:
                    without = "taken for missing" if recipe.missing else "left without a category"
                    how = "taken for one of the rare ones" if recipe.other else without
                    notes.append(
                        f"{recipe.name}: {n} of {table.n_rows} values have no category of their own, {how}"
                    )
        return notes

    def encode_target(self, data: Any, *, scaled: bool = True) -> np.ndarray:
        """Return class indices (N,) int64, or targets (N, 1) float64, scaled or as they are.

        Raises
        ------
        DataError
            No such column, no value, an unknown class, or no number.
        """
        target, table = self._fitted_target(), self.table(data)
        if target.name not in table.columns:
            raise no_column(table, target.name, "target ")
        column = table[target.name]
        if column.missing.any():
            raise no_target(table, target.name)
        if target.task == "regression":
            y = numbers(table, target.name, "number")
            return ((y - target.mean) / target.scale if scaled else y)[:, None]
        codes, texts = column.as_texts()
        known = {label: k for k, label in enumerate(target.classes)}
        lookup = np.array([known.get(label_of(text, target.kind), -1) for text in texts], dtype=np.int64)
        y = lookup[codes]
        if (y < 0).any():
            names = ", ".join(target.classes[:12]) + (", ..." if len(target.classes) > 12 else "")
            raise DataError(
                f"{table.cell(int(np.flatnonzero(y < 0)[0]), target.name)}, which is none of the "
                f"{len(target.classes)} known classes: {names}"
            )
        return y

    def weights(self, data: Any) -> np.ndarray | None:
        """Return what each row counts in training (N,) float64; None where no column says it.

        Raises
        ------
        DataError
            No such column, no value, no number, or one below 0; the message names the row.
        """
        if self.weight is None:
            return None
        table = self.table(data)
        if self.weight not in table.columns:
            raise no_column(table, self.weight, "weight ")
        values = numbers(table, self.weight, "number")
        bad = ~(values >= 0.0)
        if bad.any():
            cell = table.cell(int(np.flatnonzero(bad)[0]), self.weight)
            raise DataError(f"{cell}, expected what the row counts in training: a number of 0 or more")
        return values

    def _fitted_target(self) -> Target:
        if self.target_ is None:
            raise ConfigError(
                "this preprocessing has no target: fit it with TabularPreprocessing(target=...)"
            )
        return self.target_

    # --- describing and keeping -------------------------------------------------------------------
    def describe(self) -> list[dict[str, Any]]:
        """Return {"column", "type", "role", "missing", "features", "use"} for each column."""
        rows: list[dict[str, Any]] = []
        for recipe in self.recipes_:
            rows.append({
                "column": recipe.name, "type": recipe.kind, "role": "feature", "missing": recipe.n_missing,
                "features": len(recipe.features), "use": recipe.describe(),
            })  # fmt: skip
        if self.target_ is not None:
            t = self.target_
            names = ", ".join(t.classes[:6]) + (", ..." if len(t.classes) > 6 else "")
            use = f"{len(t.classes)} classes: {names}" if t.classes else "as it is"
            if t.scaled:
                y = f"(y {'-' if t.mean >= 0 else '+'} {abs(t.mean):.6g})" if t.mean else "y"
                use = f"learnt as {y} / {t.scale:.6g}"
            rows.append({
                "column": t.name, "type": t.kind, "role": "target", "missing": 0, "features": 0, "use": use,
            })  # fmt: skip
        if self.weight is not None:
            rows.append({
                "column": self.weight, "type": "number", "role": "weight", "missing": 0, "features": 0,
                "use": "what each row counts in training",
            })  # fmt: skip
        for left in self.left_out_:
            rows.append({
                "column": left.name, "type": left.kind, "role": "left out", "missing": left.n_missing, "features": 0,
                "use": left.reason,
            })  # fmt: skip
        return rows

    def to_metadata(self) -> dict[str, Any]:
        """Return all that was learnt as plain values, ready for JSON."""
        rules = {
            **asdict(self.rules), "categorical": list(self.rules.categorical),
            "missing_values": list(self.rules.missing_values),
        }  # fmt: skip
        target = (
            None if self.target_ is None else {**asdict(self.target_), "classes": list(self.target_.classes)}
        )
        return {
            "version": VERSION, "rules": rules, "likely_decimal": self._likely, "ignore": list(self.ignore),
            "target": target,
            "columns": [recipe_to_metadata(r) for r in (*self.recipes_, *self.left_out_)],
        } | ({} if self.weight is None else {"weight": self.weight})  # fmt: skip

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> TabularPreprocessing:
        """Rebuild what `to_metadata` returned.

        Raises
        ------
        FileFormatError
            A newer version wrote it, or it is damaged.
        """
        try:
            if metadata["version"] != VERSION:
                raise FileFormatError(
                    f"the model's record of its columns has version {metadata['version']}, but this xpnet knows "
                    f"version {VERSION}; use a newer xpnet"
                )
            rules, target = metadata["rules"], metadata["target"]
            found = cls(
                target and target["name"], ignore=metadata["ignore"], weight=metadata.get("weight"), **rules
            )
            found._likely = metadata.get("likely_decimal", ".")
            if target is not None:
                found.target_ = Target(**{**target, "classes": tuple(target["classes"])})
                found.task = found.target_.task
            recipes = [recipe_from_metadata(column) for column in metadata["columns"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(f"the model's record of its columns is damaged: {error!r}") from error
        found.recipes_ = tuple(r for r in recipes if not isinstance(r, LeftOut))
        found.left_out_ = tuple(r for r in recipes if isinstance(r, LeftOut))
        return found


def columns_text(prepare: TabularPreprocessing) -> str:
    """Lay out for people what becomes of each column, and why the target is what it is.

    Parameters
    ----------
    prepare : TabularPreprocessing
        Fitted.

    Returns
    -------
    str
        One line per column, under a line of titles.

    Examples
    --------
    >>> print(columns_text(TabularPreprocessing().fit({"age": [31, 45, 22]})))
    column  type    role     missing  features  use
    age     number  feature        -         1  22 to 45; as (x - 32.6667) / 9.46338
    """
    lines, t = rows_text(prepare.describe()), prepare.target_
    if t is not None:
        chosen = f"{t.why} (--task forces it)" if t.why != FORCED else t.why
        lines.append(f"task: {t.task} of {t.name!r}, {chosen}")
    return "\n".join(lines)


def rows_text(described: list[dict[str, Any]]) -> list[str]:
    """Lines of a table of what `TabularPreprocessing.describe` returned."""
    titles = ("column", "type", "role", "missing", "features", "use")
    rows = [{t: t for t in titles}, *({t: _cell(t, row[t]) for t in titles} for row in described)]
    widths = {t: max(len(row[t]) for row in rows) for t in titles}
    right = ("missing", "features")
    return [
        "  ".join(v.rjust(widths[t]) if t in right else v.ljust(widths[t]) for t, v in row.items()).rstrip()
        for row in rows
    ]


def _cell(key: str, value: Any) -> str:
    text = " ".join(str(value).split())
    if key in ("missing", "features") and not value:
        return "-"
    limit = 32 if key == "column" else 64
    return text if len(text) <= limit else text[: limit - 1] + "…"
