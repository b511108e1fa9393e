"""Tables of columns with types: CSV and Parquet files, data frames and dictionaries.

A column holds numbers, booleans, dates or text, each with missing values; that is all that is decided here. What
becomes of a column is the matter of `xpnet.tabular`.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.errors import DataError

#: Cells of a CSV file that hold no value, without surrounding blanks and in lower case.
MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "<na>", "?"})

#: The kinds of columns.
KINDS = ("number", "boolean", "date", "text")

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.]\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")
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

    Examples
    --------
    >>> column = from_columns({"sex": ["f", "m", None, "f"]})["sex"]
    >>> column.kind, column.values, column.texts, column.n_missing
    ('text', array([ 0,  1, -1,  0]), ('f', 'm'), 1)
    """

    name: str
    kind: str
    values: np.ndarray
    texts: tuple[str, ...] = ()

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
    """

    source: str
    columns: Mapping[str, Column]
    names: tuple[str, ...]
    n_rows: int
    word: str = "row"
    first: int = 0
    lines: np.ndarray | None = field(default=None, repr=False)

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

    def cell(self, i: int, name: str) -> str:
        """Say which cell it is and what it holds, for messages."""
        return f"{self.source}: {self.place(i)}, column {name!r} holds {self.columns[name].shown(i)!r}"


Wanted = Container[str] | None


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a name is that of a CSV or Parquet file.

    Examples
    --------
    >>> is_table("a/housing.csv"), is_table("housing.parquet"), is_table("x.npz")
    (True, True, False)
    """
    name = os.fspath(path).lower().removesuffix(".gz")
    return name.endswith((*CSV_SUFFIXES, *PARQUET_SUFFIXES))


CSV_SUFFIXES = (".csv", ".tsv")
PARQUET_SUFFIXES = (".parquet", ".pq")


def read_table(
    path: str | os.PathLike[str], *, text: Container[str] = (), only: Wanted = None, skip: Container[str] = ()
) -> Table:
    """Read a CSV or Parquet file.

    CSV files are UTF-8 with a header line, plain or .gz; the separator (comma, semicolon, tab or bar) is the one
    that the header line has most of. A column whose every value is a number becomes a column of numbers; of true and
    false, booleans; of dates such as ``2024-05-31`` or ``2024-05-31T12:00:00Z``, dates; else text. The file is read
    in pieces: numbers take 8 bytes each, text 8 bytes each and every different text once.

    Parameters
    ----------
    path : path
    text : container of str
        Columns to keep as text, whatever they look like.
    only : container of str, optional
        Read these columns and no others.
    skip : container of str
        Columns to leave out.

    Raises
    ------
    DataError
        Missing, damaged or empty file, columns without or with equal names, or rows of other lengths.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() in PARQUET_SUFFIXES:
        from xpnet.data import parquet

        return parquet.read_parquet(path, text=text, only=only, skip=skip)
    from xpnet.data import csvfile

    return csvfile.read_csv_table(path, text=text, only=only, skip=skip)


def from_columns(
    data: Any, *, text: Container[str] = (), only: Wanted = None, skip: Container[str] = (), source: str = "data"
) -> Table:  # fmt: skip
    """Return the table of a data frame (pandas, polars), pyarrow table, or dictionary of columns.

    Parameters
    ----------
    data : Table, data frame or mapping of str to sequence
        Missing values are None, NaN, NaT or pandas.NA.
    text, only, skip
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
        from xpnet.data import parquet

        return parquet.from_arrow(data, source, text=text, only=only, skip=skip)
    names = data.columns if hasattr(data, "columns") else data.keys() if isinstance(data, Mapping) else None
    if names is None:
        raise DataError(
            f"{source} is a {type(data).__name__}, expected a data frame or a dictionary of columns; arrays "
            "without names need no table: use fit and MLP with them as they are"
        )
    names = check_names(source, list(names))
    columns: dict[str, Column] = {}
    for name in names:
        if wanted(name, only, skip):
            columns[name] = _of_values(source, name, np.asarray(data[name]), name in text)
    lengths = {len(c) for c in columns.values()}
    if len(lengths) > 1:
        long = ", ".join(f"{c.name} {len(c)}" for c in columns.values())
        raise DataError(f"{source}: the columns have different lengths: {long}")
    return Table(source, columns, tuple(names), lengths.pop() if lengths else 0)


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
            raise DataError(f"{source}: two columns are called {name!r}; rename one")
        seen.add(name)
    return list(names)


# --- what a column is ---------------------------------------------------------------------------
def parse_numbers(values: Sequence[str]) -> np.ndarray | None:
    """Turn texts into float64, NaN for missing ones; None where one is no number.

    Examples
    --------
    >>> parse_numbers(["1", " NA", "1e3"])
    array([   1.,   nan, 1000.])
    >>> parse_numbers(["1", "1_000"]) is None
    True
    """
    for attempt in (values, [_cleaned(v) for v in values]):
        try:
            found = np.array(attempt, dtype=np.float64)
        except ValueError:
            continue
        # Python's numbers may have underscores, those of tables have not
        return None if "_" in " ".join(attempt) else found
    return None


def _cleaned(text: str) -> str:
    return "nan" if text.strip().lower() in MISSING else text


def parse_date(text: str) -> float | None:
    """Days since 1970-01-01 (UTC; without a time zone the time is taken as it stands); None for no date.

    Examples
    --------
    >>> parse_date("1970-01-02T12:00"), parse_date("1/2/70")
    (1.5, None)
    """
    if not _DATE.fullmatch(text):
        return None
    try:
        when = datetime.datetime.fromisoformat(text)
    except ValueError:  # the 30th of February
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return (when - _EPOCH).total_seconds() / _DAY


def typed(name: str, codes: np.ndarray, texts: tuple[str, ...]) -> Column:
    """Return a column of texts as booleans or dates where all of them are."""
    rules: tuple[tuple[str, Callable[[str], float | None]], ...] = (
        ("boolean", _parse_boolean),
        ("date", parse_date),
    )
    for kind, parse in rules:
        found = [parse(text) for text in texts[:1]]
        if not found or found[0] is None:
            continue
        found += [parse(text) for text in texts[1:]]
        if None not in found:
            values = np.array([*found, np.nan], dtype=np.float64)  # the last one for code -1
            return Column(name, kind, values[codes])
    return Column(name, "text", codes, texts)


def _parse_boolean(text: str) -> float | None:
    return {"true": 1.0, "false": 0.0}.get(text.lower())


def _of_values(source: str, name: str, values: np.ndarray, as_text: bool) -> Column:
    """Return the column of an array of any type."""
    if values.ndim != 1:
        raise DataError(f"{source}: column {name!r} has shape {values.shape}, expected one value per row")
    kind = values.dtype.kind
    if kind in "biuf":
        found = Column(name, "boolean" if kind == "b" else "number", values.astype(np.float64))
    elif kind == "M":
        found = Column(name, "date", days(values))
    elif kind in "UOT":
        found = _of_objects(source, name, values.tolist())
    else:
        raise DataError(f"{source}: column {name!r} holds {values.dtype}, expected {_READABLE}")
    return Column(name, "text", *found.as_texts()) if as_text else found


def days(values: np.ndarray) -> np.ndarray:
    """Days since 1970-01-01 of datetime64 values, NaN for NaT."""
    found = values.astype("datetime64[us]").astype(np.int64) / (_DAY * 1e6)
    return np.where(np.isnat(values), np.nan, found)


_READABLE = "numbers, booleans, dates or texts; leave it out, or convert it"


def _of_objects(source: str, name: str, values: list[Any]) -> Column:
    at = next((i for i, v in enumerate(values) if _kind_of(v) is None), None)
    if at is not None:
        raise DataError(
            f"{source}: row {at}, column {name!r} holds a {type(values[at]).__name__}, expected {_READABLE}"
        )
    kinds = {_kind_of(v) or "" for v in values} - {"missing"}
    if kinds in ({"number"}, {"boolean"}, set()):
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
        return number_text(float(value))
    return str(value).lower() if _kind_of(value) == "boolean" else str(value)


class ColumnBuilder:
    """Collects one column of a text file piece by piece: numbers as long as all are, else codes of texts."""

    def __init__(self, name: str, as_text: bool):
        self.name, self.forced = name, as_text
        #: A text came after numbers, whose spelling is lost: the file must be read again, as text.
        self.mixed = False
        self._known: dict[str, int] | None = {} if as_text else None
        self._pieces: list[np.ndarray] = []
        self._any_number = False

    def keep_text(self) -> None:
        """Read texts from the start, and see at the end what they are."""
        self._known = {}

    def add(self, values: Sequence[str]) -> None:
        """Take the next cells."""
        if self.mixed:
            return
        if self._known is None:
            numbers = parse_numbers(values)
            if numbers is not None:
                self._any_number |= not np.isnan(numbers).all()
                self._pieces.append(numbers)
                return
            if self._any_number:
                self.mixed, self._pieces = True, []
                return
            self._known = {}
            self._pieces = [np.full(len(piece), -1, dtype=np.int64) for piece in self._pieces]
        known = self._known
        codes = [
            -1 if (v := value.strip()).lower() in MISSING else known.setdefault(v, len(known))
            for value in values
        ]
        self._pieces.append(np.array(codes, dtype=np.int64))

    def finish(self) -> Column:
        """Return the column."""
        values = np.concatenate(self._pieces)
        if self._known is None:
            return Column(self.name, "number", values)
        texts = tuple(self._known)
        return Column(self.name, "text", values, texts) if self.forced else typed(self.name, values, texts)


def pieces(rows: Iterator[list[str]], size: int) -> Iterator[list[list[str]]]:
    """Cut rows into lists of at most `size`."""
    piece: list[list[str]] = []
    for row in rows:
        piece.append(row)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece
