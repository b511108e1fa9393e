"""Tables of columns with types.

A column holds numbers, booleans, dates or text, each with missing values; that is all that is decided here. What
becomes of a column is the matter of `xpnet.tabular`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import DataError
from .spelling import Spelling, advice, decimal_of, parse_number

_NO_VALUE = Spelling().without_value

#: The kinds of columns.
KINDS = ("number", "boolean", "date", "text")

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.]\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")
_POINTED_DATE = re.compile(r"(\d{1,2})[.](\d{1,2})[.](\d{4})")
_DAY = 86400.0  # seconds
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, eq=False)
class Column:
    """One column of N values.

    Parameters
    ----------
    name : str
    kind : {"number", "boolean", "date", "text"}
    values : numpy.ndarray (N,)
        float64, NaN where missing: the numbers; 0 and 1; days since 1970-01-01 (UTC). For text int64 positions
        in `texts`, -1 where missing.
    texts : tuple of str
        The different texts.
    declared : bool
        Whether it was asked for, or the type of the column says, that it holds texts, whatever they look like.

    Examples
    --------
    >>> from xpnet.data.table_sources import from_columns
    >>> column = from_columns({"sex": ["f", "m", None, "f"]})["sex"]
    >>> column.kind, column.values, column.texts, column.n_missing
    ('text', array([ 0,  1, -1,  0]), ('f', 'm'), 1)
    """

    name: str
    kind: str
    values: np.ndarray
    texts: tuple[str, ...] = ()
    declared: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @property
    def missing(self) -> np.ndarray:
        """Where there is no value (N,)."""
        return self.values < 0 if self.kind == "text" else np.isnan(self.values)

    @property
    def n_missing(self) -> int:
        """How many values are missing."""
        return int(np.count_nonzero(self.missing))

    def shown(self, i: int) -> str:
        """Value `i` as a person would write it."""
        value = self.values[i]
        if self.kind == "text":
            return self.texts[value] if value >= 0 else ""
        if np.isnan(value):
            return ""
        if self.kind == "boolean":
            return "true" if value else "false"
        if self.kind == "date":
            when = _EPOCH + datetime.timedelta(days=float(value))
            return when.strftime("%Y-%m-%d" if float(value).is_integer() else "%Y-%m-%dT%H:%M:%S")
        return number_text(float(value))

    def as_categories(self) -> Column:
        """The column as texts that stay texts."""
        return Column(self.name, "text", *self.as_texts(), declared=True)

    def as_texts(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Positions (N,) in a list of texts, and that list: for columns that are to be categories."""
        if self.kind == "text":
            return self.values, self.texts
        there = ~self.missing
        _, first, codes = np.unique(self.values[there], return_index=True, return_inverse=True)
        positions = np.full(len(self), -1, dtype=np.int64)
        positions[there] = codes
        rows = np.flatnonzero(there)[first].tolist()
        return positions, tuple(self.shown(i) for i in rows)


def number_text(value: float) -> str:
    """A number as text, whole ones without a point.

    Examples
    --------
    >>> number_text(3.0), number_text(0.25)
    ('3', '0.25')
    """
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of one length.

    Parameters
    ----------
    source : str
        What messages call it: the path of a file.
    columns : dict of str to Column
    names : tuple of str
        All names, also of columns that were not read.
    n_rows : int
    word : str
        What a row is called: "line" in text files.
    first : int
        The number of the first row.
    lines : numpy.ndarray (N,), optional
        The number of each row, where they do not simply count up.
    decimal : {".", ","}
        What stands before the decimals of its numbers.
    notes : tuple of str
        What is worth knowing about how it was read.
    quotes_commas : bool
        Whether a comma in a cell was quoted, since commas separate cells: then it separates thousands, or nobody
        would write it.
    """

    source: str
    columns: Mapping[str, Column]
    names: tuple[str, ...]
    n_rows: int
    word: str = "row"
    first: int = 0
    lines: np.ndarray | None = field(default=None, repr=False)
    decimal: str = "."
    notes: tuple[str, ...] = ()
    quotes_commas: bool = False

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def take(self, rows: np.ndarray | slice) -> Table:
        """Return the table of some rows, which keep their numbers in messages."""
        lines = np.arange(self.first, self.first + self.n_rows) if self.lines is None else self.lines
        columns = {c.name: replace(c, values=c.values[rows]) for c in self.columns.values()}
        return replace(self, columns=columns, n_rows=len(lines[rows]), lines=lines[rows])

    def place(self, i: int) -> str:
        """Say where row `i` stands, such as "line 17"."""
        return f"{self.word} {self.first + i if self.lines is None else self.lines[i]}"

    def advice(self, name: str) -> str:
        """Say what to do about a column of texts that look like numbers or dates; "" where it looks like neither."""
        # dates that can be read need no advice
        texts = [text for text in self.columns[name].texts if parse_date(text) is None]
        return advice(texts, self.decimal)

    def cell(self, i: int, name: str) -> str:
        """Say which cell it is and what it holds, for messages."""
        return f"{self.source}: {self.place(i)}, column {name!r} holds {self.columns[name].shown(i)!r}"


Wanted = Container[str] | None


def wanted(name: str, only: Wanted, skip: Container[str]) -> bool:
    """Whether a column is to be read."""
    return name not in skip and (only is None or name in only)


def check_names(source: str, names: Sequence[Any]) -> list[str]:
    """Check the names of columns: texts, none of them twice."""
    seen: set[str] = set()
    for at, name in enumerate(names, 1):
        if not isinstance(name, str):
            raise DataError(f"{source}: column {at} is called {name!r}, expected a text as its name")
        if name in seen:
            number = parse_numbers([name]) is not None and name
            hint = "is the first line data? It must hold column names" if number else "rename one"
            raise DataError(f"{source}: two columns are called {name!r}; {hint}")
        seen.add(name)
    return list(names)


# --- what a column is ---------------------------------------------------------------------------
def parse_numbers(values: Sequence[str], missing: Container[str] = _NO_VALUE) -> np.ndarray | None:
    """Turn texts into float64, NaN for missing ones; None where one is no number.

    Examples
    --------
    >>> parse_numbers(["1", " NA", "1e3"])
    array([   1.,   nan, 1000.])
    >>> parse_numbers(["1", "1_000"]) is None
    True
    """
    for attempt in (values, ["nan" if v.strip().lower() in missing else v for v in values]):
        try:
            found = np.array(attempt, dtype=np.float64)
        except ValueError:
            continue
        # Python's numbers may have underscores, those of tables have not
        return None if "_" in " ".join(attempt) else found
    return None


def parse_date(text: str) -> float | None:
    """Days since 1970-01-01 (UTC; without a time zone the time is taken as it stands); None for no date.

    Examples
    --------
    >>> parse_date("1970-01-02T12:00"), parse_date("3.1.1970"), parse_date("1/2/70")
    (1.5, 2.0, None)
    """
    if pointed := _POINTED_DATE.fullmatch(text):  # with points the day comes first everywhere
        day, month, year = pointed.groups()
        text = f"{year}-{month:>02}-{day:>02}"
    if not _DATE.fullmatch(text):
        return None
    try:
        when = datetime.datetime.fromisoformat(text)
    except ValueError:  # the 30th of February
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return (when - _EPOCH).total_seconds() / _DAY


def parse_boolean(text: str) -> float | None:
    """1 for true and 0 for false, in any case; None for another text."""
    return {"true": 1.0, "false": 0.0}.get(text.lower())


def typed(
    name: str, codes: np.ndarray, texts: tuple[str, ...], missing: Container[str] = frozenset()
) -> Column:
    """Return a column of texts as booleans or dates where all of them are, but those that stand for no value."""
    values = [text for text in texts if text.lower() not in missing]
    rules: tuple[tuple[str, Callable[[str], float | None]], ...] = (
        ("boolean", parse_boolean),
        ("date", parse_date),
    )
    for kind, parse in rules:
        if not values or parse(values[0]) is None:
            continue
        found = {text: parse(text) for text in values}
        if None not in found.values():
            return from_parsed(name, kind, [found.get(text) for text in texts], codes)
    return Column(name, "text", codes, texts)


def from_parsed(name: str, kind: str, found: Sequence[float | None], codes: np.ndarray) -> Column:
    """Return a column of what each of its different texts means; None where it stands for no value."""
    values = np.array([*found, None], dtype=np.float64)  # the last one for code -1, a missing value
    return Column(name, kind, values[codes])


def texts_of(table: Table, text: Container[str]) -> list[Column]:
    """Columns that are texts, though not because it was asked for (`text`)."""
    return [c for c in table.columns.values() if c.kind == "text" and c.name not in text]


def with_numbers(table: Table, text: Container[str], spelling: Spelling) -> Table:
    """Return the table with the columns as numbers whose texts are numbers in some spelling, but those of `text`."""
    columns = dict(table.columns)
    for column in texts_of(table, text):
        values = [t for t in column.texts if t.lower() not in spelling.without_value]
        said = decimal_of(values)
        if said is None or (
            spelling.decimal is None and said == "?" and table.decimal == "." and not table.quotes_commas
        ):
            continue  # no numbers; or nothing in the file says what its commas are: training asks
        decimal = said if spelling.decimal is None and said in (",", ".") else table.decimal
        found = {t: parse_number(t, decimal) for t in values}
        if found and None not in found.values():
            columns[column.name] = from_parsed(
                column.name, "number", [found.get(t) for t in column.texts], column.values
            )
    return replace(table, columns=columns)


def days(values: np.ndarray) -> np.ndarray:
    """Days since 1970-01-01 of datetime64 values, NaN for NaT."""
    found = values.astype("datetime64[us]").astype(np.int64) / (_DAY * 1e6)
    return np.where(np.isnat(values), np.nan, found)
