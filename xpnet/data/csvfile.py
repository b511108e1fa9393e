"""CSV files as tables of typed columns, read in pieces."""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from ..errors import DataError
from .columns import Column, Table, Wanted, check_names, parse_numbers, texts_of, typed, wanted, with_numbers
from .idx import open_file
from .spelling import Spelling, decimal_of, parse_number

_ROWS = 1 << 15  # rows whose text is in memory at a time
_SEPARATORS = ",;\t|"
_SEPARATOR_LINE = re.compile(r'"?sep=([^\w\s"]|\t)"?\s*', re.IGNORECASE)  # as Excel writes and reads it


def read_csv_table(
    path: Path, *, text: Container[str], only: Wanted, skip: Container[str], spelling: Spelling
) -> Table:
    """Read a CSV file; see `xpnet.data.table_sources.read_table`."""
    table = _read_until_typed(path, text, only, skip, spelling, spelling.decimal or spelling.likely)
    if spelling.decimal is None:
        said = {decimal_of(column.texts) for column in texts_of(table, text)}
        if "," in said and "." not in said and table.decimal != ",":
            # then points stand between thousands, also in columns that could be read without knowing it
            table = _read_until_typed(path, text, only, skip, spelling, ",")
    table = with_numbers(table, text, spelling)
    if table.decimal == "," and spelling.decimal is None:
        table = replace(
            table, notes=(*table.notes, "numbers have a decimal comma (--decimal says otherwise)")
        )
    return table


def cell_text(table: Table, i: int, name: str) -> str:
    """Return what the cell in row `i` of a table that was read from a file says, in the file's own words."""
    line = table.first + i if table.lines is None else int(table.lines[i])
    with open_file(Path(table.source)) as (binary, _):
        stream = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
        try:
            header, _, rows, lines, _ = _open(Path(table.source), stream)
            return next((row[header.index(name)] for row in rows if lines[-1] == line), "")
        finally:
            stream.detach()


def _read_until_typed(
    path: Path, text: Container[str], only: Wanted, skip: Container[str], spelling: Spelling, decimal: str
) -> Table:
    mixed: set[str] = set()
    while True:
        table, again = _read(path, text, only, skip, mixed, spelling, decimal)
        if not again:
            return table
        # Numbers had to be given up after they were converted: their spelling ("007") is read once more.
        mixed |= again


def _read(
    path: Path, text: Container[str], only: Wanted, skip: Container[str], mixed: set[str], spelling: Spelling,
    decimal: str,
) -> tuple[Table, set[str]]:  # fmt: skip
    missing = spelling.without_value
    with open_file(path) as (binary, _):
        stream = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
        try:
            header, separator, rows, reader_lines, notes = _open(path, stream)
            read = [(at, _ColumnBuilder(name, name in text, missing)) for at, name in enumerate(header)
                    if wanted(name, only, skip)]  # fmt: skip
            for _, builder in read:
                if builder.name in mixed or decimal == ",":
                    builder.keep_text()
            n = 0
            for piece in _pieces(rows, _ROWS):
                n += len(piece)
                for at, builder in read:
                    builder.add([row[at] for row in piece])
        except csv.Error as error:
            raise DataError(f"{path}: not a CSV file ({error})") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from error
        finally:
            stream.detach()
    if not n:
        raise DataError(f"{path}: a header line and nothing below, expected at least one row")
    again = {builder.name for _, builder in read if builder.mixed}
    columns = {} if again else {builder.name: builder.finish() for _, builder in read}
    lines = np.frombuffer(reader_lines, dtype=np.int64)
    first = int(lines[0])
    plain = np.array_equal(lines, np.arange(first, first + n))
    table = Table(
        str(path), columns, tuple(header), n, "line", first, None if plain else lines, decimal=decimal,
        notes=(*notes, *_header_notes(header)), quotes_commas=separator == ",",
    )  # fmt: skip
    return table, again


def _header_notes(header: Sequence[str]) -> tuple[str, ...]:
    """Say where the first line may be data: at least half of its names are numbers."""
    if header[0].startswith("#"):
        return (
            f"the line that begins with {header[0]!r} is taken for column names; delete it if it is a comment",
        )
    numbers = [name for name in header if _is_number(name)]
    if 2 * len(numbers) < len(header):
        return ()
    shown = ", ".join(map(repr, header[:4])) + (", ..." if len(header) > 4 else "")
    return (f"the first line is taken for column names, but looks like data: {shown}",)


def _open(
    path: Path, stream: io.TextIOWrapper
) -> tuple[list[str], str, Iterator[list[str]], array[int], tuple[str, ...]]:
    """Return the header, the separator, the rows, an array that gets the line of each row as it is read, and notes."""
    begin = [stream.readline()]
    named = _SEPARATOR_LINE.fullmatch(begin[0])
    if named:
        begin = [stream.readline()]
    while begin[-1].startswith("#") or (not begin[-1].strip() and begin[0].startswith("#") and begin[-1]):
        begin.append(stream.readline())
    comments = _comments(begin)
    above = comments + (1 if named else 0)
    notes = (
        (f"left out {comments} {_LINES[comments > 1]} of comments above the column names",)
        if comments
        else ()
    )
    separator = named[1] if named else _separator(begin[comments])
    texts = _texts(path, chain(begin[comments:], stream), above + 1)
    reader = csv.reader(texts, strict=True, delimiter=separator)
    header = [name.strip() for name in next(reader, [])]
    which = "the first line" if not above else f"line {above + 1}"
    if not any(header):
        raise DataError(f"{path}: {which} is empty, expected a header line with column names")
    if all(_is_number(name) for name in header):
        raise DataError(f"{path}: {which} holds only numbers, expected a header line with column names")
    # pandas leaves the name of its index empty
    header = check_names(str(path), [name or f"unnamed {at}" for at, name in enumerate(header, 1)])
    lines = array("q")

    def rows() -> Iterator[list[str]]:
        line = above + reader.line_num + 1
        for row in reader:
            if row:  # an empty line is no row
                if len(row) != len(header):
                    raise DataError(
                        f"{path}: line {line} has {len(row)} values, expected {len(header)} as in the header"
                        f"{_no_row(row, header)}"
                    )
                lines.append(line)
                yield row
            line = above + reader.line_num + 1

    return header, separator, rows(), lines, notes


_LINES = ("line", "lines")


def _separator(line: str) -> str:
    return max(_SEPARATORS, key=line.count)


def _comments(begin: Sequence[str]) -> int:
    """Count the lines of comments in front of the column names.

    `begin` ends with the first line that neither is empty nor begins with #. A name may begin with #, too: only
    lines of another number of values than the last line are comments.
    """
    if not _is_comment(begin[0], begin[-1]):
        return 0
    named = len(begin) > 1 and begin[-2].startswith("#") and not _is_comment(begin[-2], begin[-1])
    return len(begin) - (2 if named else 1)


def _is_comment(line: str, below: str) -> bool:
    if not line.startswith("#"):
        return False
    one, other = (len(next(csv.reader([text], delimiter=_separator(line)), [])) for text in (line, below))
    return one != other or (one == 1 and any(separator in below for separator in _SEPARATORS))


def _no_row(row: Sequence[str], header: Sequence[str]) -> str:
    """What a line of another length than the header may be, and what to do then."""
    if row[0].startswith("#"):
        return "; if it is a comment, delete it"
    if len(header) == 1:
        return "; if that is a title, delete what is above the column names"
    return ""


def _texts(path: Path, lines: Iterable[str], first: int) -> Iterator[str]:
    """Pass lines on, and refuse zero characters: text of two bytes per letter, taken for UTF-8, is full of them."""
    for number, line in enumerate(lines, first):
        if "\0" in line:
            raise DataError(
                f"{path}: line {number} holds a zero character, so it is no UTF-8 text, or damaged; save it as UTF-8"
            )
        yield line


def _is_number(text: str) -> bool:
    return any(parse_number(text, decimal) is not None for decimal in ".,")


class _ColumnBuilder:
    """Collects one column of a text file piece by piece: numbers as long as all are, else codes of texts."""

    def __init__(self, name: str, as_text: bool, missing: frozenset[str]):
        self.name, self.forced, self._missing = name, as_text, missing
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
            numbers = parse_numbers(values, self._missing)
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
            -1 if (v := value.strip()).lower() in self._missing else known.setdefault(v, len(known))
            for value in values
        ]
        self._pieces.append(np.array(codes, dtype=np.int64))

    def finish(self) -> Column:
        """Return the column."""
        values = np.concatenate(self._pieces)
        if self._known is None:
            return Column(self.name, "number", values)
        texts = tuple(self._known)
        if self.forced:
            return Column(self.name, "text", values, texts, declared=True)
        return typed(self.name, values, texts)


def _pieces(rows: Iterator[list[str]], size: int) -> Iterator[list[list[str]]]:
    """Cut rows into lists of at most `size`."""
    piece: list[list[str]] = []
    for row in rows:
        piece.append(row)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece
