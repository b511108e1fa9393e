"""Tables from CSV and Parquet files, data frames and dictionaries."""

from __future__ import annotations

import datetime
import os
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from . import csvfile, parquet
from .columns import (
    Column,
    Table,
    Wanted,
    check_names,
    days,
    number_text,
    parse_date,
    typed,
    wanted,
    with_numbers,
)
from .spelling import Spelling, parse_number

CSV_SUFFIXES = (".csv", ".tsv")
PARQUET_SUFFIXES = (".parquet", ".pq")
_PLAIN, _ALL_THERE = Spelling(), Spelling(missing=())
_READABLE = "numbers, booleans, dates or texts; leave it out, or convert it"


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a name is that of a CSV or Parquet file.

    Examples
    --------
    >>> is_table("a/housing.csv"), is_table("housing.parquet"), is_table("x.npz")
    (True, True, False)
    """
    name = os.fspath(path).lower().removesuffix(".gz")
    return name.endswith((*CSV_SUFFIXES, *PARQUET_SUFFIXES))


def read_table(
    path: str | os.PathLike[str], *, text: Container[str] = (), only: Wanted = None, skip: Container[str] = (),
    spelling: Spelling = _PLAIN,
) -> Table:  # fmt: skip
    """Read a CSV or Parquet file.

    CSV files are UTF-8 with a header line, plain or .gz; the separator (comma, semicolon, tab or bar) is the one
    that the header line has most of, or that a line ``sep=;`` above it names. Lines of comments (``#``) may stand
    above, too. A column whose every value is a number becomes a column of numbers; of true and false, booleans; of
    dates such as ``2024-05-31``, ``2024-05-31T12:00:00Z`` or ``31.5.2024``, dates; else text.
    Numbers may have decimal commas (``1.234,5``), separated thousands, percent signs and currencies: see
    `xpnet.data.spelling`. The file is read in pieces: numbers take 8 bytes each, text 8 bytes each and every different
    text once. Columns of Parquet files that hold texts are read in the same way; those of a dictionary type stay text.

    Parameters
    ----------
    path : path
    text : container of str
        Columns to keep as text, whatever they look like.
    only : container of str, optional
        Read these columns and no others.
    skip : container of str
        Columns to leave out.
    spelling : Spelling
        How texts are written that are numbers, and which of them stand for no value.

    Raises
    ------
    DataError
        Missing, damaged or empty file, columns without or with equal names, or rows of other lengths.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() in PARQUET_SUFFIXES:
        return parquet.read_parquet(path, text=text, only=only, skip=skip, spelling=spelling)
    return csvfile.read_csv_table(path, text=text, only=only, skip=skip, spelling=spelling)


def read_samples(
    path: str | os.PathLike[str], target: str | None = None, *, labelled: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Read a table of numbers as arrays, for models that know of no columns.

    Parameters
    ----------
    path : path
    target : str, optional
        The column of targets; the last one where absent.
    labelled : bool, default True
        Whether there is one; else every column is a feature.

    Returns
    -------
    x : numpy.ndarray (N, I) float64
        The other columns, in their order.
    y : numpy.ndarray (N,)
        float64 where every target is a number, else text. Empty without targets.

    Raises
    ------
    DataError
        No such column, a target without a value, or a feature that is empty or no number.
    """
    table = read_table(path, spelling=_ALL_THERE)
    features, y = dict(table.columns), np.empty(0)
    if labelled:
        target = table.names[-1] if target is None else target
        if target not in table.names:
            raise DataError(f"{path}: no column named {target!r}; the columns are {', '.join(table.names)}")
        column = features.pop(target)
        if column.kind in ("boolean", "date"):  # labels as they are written
            column = read_table(path, text={target}, only={target}, spelling=_ALL_THERE)[target]
        if column.n_missing:
            at = int(np.flatnonzero(column.missing)[0])
            raise DataError(f"{path}: {table.place(at)} has no value in the target column {target!r}")
        y = np.array(column.texts)[column.values] if column.kind == "text" else column.values
    for column in features.values():
        wrong = np.isnan(column.values) if column.kind == "number" else _no_numbers(column)
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            cell = csvfile.cell_text(table, at, column.name) if table.word == "line" else column.shown(at)
            raise DataError(
                f"{path}: {table.place(at)}, column {column.name!r} holds {cell!r}, expected a number; remove or fill "
                "empty entries and turn categories into numbers first"
            )
    empty = np.empty((table.n_rows, 0))
    return np.concatenate([empty, *(c.values[:, None] for c in features.values())], axis=1), y


def _no_numbers(column: Column) -> np.ndarray:
    """Where the values of a column that is none of numbers are none."""
    if column.kind != "text":
        return np.ones(len(column), dtype=bool)
    return np.array([*(parse_number(text) is None for text in column.texts), True])[column.values]


def from_columns(
    data: Any, *, text: Container[str] = (), only: Wanted = None, skip: Container[str] = (), source: str = "data",
    spelling: Spelling = _PLAIN,
) -> Table:  # fmt: skip
    """Return the table of a data frame (pandas, polars), pyarrow table, or dictionary of columns.

    Parameters
    ----------
    data : Table, data frame or mapping of str to sequence
        Missing values are None, NaN, NaT or pandas.NA. Texts are read as `read_table` reads them; columns of a
        categorical type stay text.
    text, only, skip, spelling
        As for `read_table`.
    source : str
        What messages call it.

    Raises
    ------
    DataError
        Something else, names that are no texts, columns of different lengths, or values of other kinds.

    Examples
    --------
    >>> table = from_columns({"age": [3, None], "tame": [True, False]})
    >>> table["age"].values, table["tame"].kind
    (array([ 3., nan]), 'boolean')
    """
    if isinstance(data, Table):
        return data
    if hasattr(data, "to_batches"):
        return parquet.from_arrow(data, source, text=text, only=only, skip=skip, spelling=spelling)
    names = data.columns if hasattr(data, "columns") else data.keys() if isinstance(data, Mapping) else None
    if names is None:
        raise DataError(
            f"{source} is a {type(data).__name__}, expected a data frame or a dictionary of columns; arrays "
            "without names need no table: use fit and MLP with them as they are"
        )
    names = check_names(source, list(names))
    columns: dict[str, Column] = {}
    kept = {name for name in names if name in text or (wanted(name, only, skip) and _is_declared(data[name]))}
    for name in names:
        if wanted(name, only, skip):
            column = _of_values(source, name, np.asarray(data[name]), name in kept)
            known = column.kind != "text" or name in kept
            columns[name] = (
                column if known else typed(name, column.values, column.texts, spelling.without_value)
            )
    lengths = {len(c) for c in columns.values()}
    if len(lengths) > 1:
        long = ", ".join(f"{c.name} {len(c)}" for c in columns.values())
        raise DataError(f"{source}: the columns have different lengths: {long}")
    table = Table(
        source,
        columns,
        tuple(names),
        lengths.pop() if lengths else 0,
        decimal=spelling.decimal or spelling.likely,
    )
    return with_numbers(table, kept, spelling)


def _is_declared(values: Any) -> bool:
    """Whether a column of a data frame is of a type of categories, whatever these look like."""
    return type(getattr(values, "dtype", None)).__name__ in ("CategoricalDtype", "Categorical", "Enum")


def _of_values(source: str, name: str, values: np.ndarray, as_text: bool) -> Column:
    """Return the column of an array of any type."""
    if values.ndim != 1:
        raise DataError(f"{source}: column {name!r} has shape {values.shape}, expected one value per row")
    kind = values.dtype.kind
    if as_text and kind in "iu":  # float64 would make one of whole numbers beyond 2^53
        different, codes = np.unique(values, return_inverse=True)
        return Column(
            name, "text", codes.astype(np.int64), tuple(map(str, different.tolist())), declared=True
        )
    if kind in "biuf":
        found = Column(name, "boolean" if kind == "b" else "number", values.astype(np.float64))
    elif kind == "M":
        found = Column(name, "date", days(values))
    elif kind in "UOT":
        found = _of_objects(source, name, values.tolist(), as_text)
    else:
        raise DataError(f"{source}: column {name!r} holds {values.dtype}, expected {_READABLE}")
    return found.as_categories() if as_text else found


def _of_objects(source: str, name: str, values: list[Any], as_text: bool) -> Column:
    at = next((i for i, v in enumerate(values) if _kind_of(v) is None), None)
    if at is not None:
        raise DataError(
            f"{source}: row {at}, column {name!r} holds a {type(values[at]).__name__}, expected {_READABLE}"
        )
    kinds = {_kind_of(v) or "" for v in values} - {"missing"}
    if kinds in ({"boolean"}, set()) or (kinds == {"number"} and not as_text):
        numbers = [np.nan if _kind_of(v) == "missing" else float(v) for v in values]
        return Column(name, kinds.pop() if kinds else "number", np.array(numbers, dtype=np.float64))
    if kinds == {"date"}:
        dates = [np.nan if _kind_of(v) == "missing" else parse_date(v.isoformat()) for v in values]
        return Column(name, "date", np.array(dates, dtype=np.float64))
    known: dict[str, int] = {}
    codes = [-1 if _kind_of(v) == "missing" else known.setdefault(_text_of(v), len(known)) for v in values]
    return Column(name, "text", np.array(codes, dtype=np.int64), tuple(known))


def _kind_of(value: Any) -> str | None:
    if isinstance(value, str):
        return "text" if value.strip() else "missing"
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return "missing"
    if isinstance(value, (bool, np.bool_)):
        return "boolean"
    if isinstance(value, (datetime.date, datetime.datetime)):
        return "date"
    if hasattr(value, "__float__") and not isinstance(value, (complex, np.ndarray)):
        return "missing" if value != value else "number"
    return None


def _text_of(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if _kind_of(value) == "number":
        return str(value) if isinstance(value, (int, np.integer)) else number_text(float(value))
    return str(value).lower() if _kind_of(value) == "boolean" else str(value)
