"""CSV files as tables of typed columns, read in pieces."""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Container, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from xpnet.data.columns import MISSING, Column, Table, Wanted, check_names, parse_numbers, typed, wanted
from xpnet.data.idx import open_file
from xpnet.errors import DataError

_ROWS = 1 << 15  # rows whose text is in memory at a time
_SEPARATORS = ",;\t|"


def read_csv_table(path: Path, *, text: Container[str], only: Wanted, skip: Container[str]) -> Table:
    """Read a CSV file; see `xpnet.data.table_sources.read_table`."""
    mixed: set[str] = set()
    while True:
        table, again = _read(path, text, only, skip, mixed)
        if not again:
            return table
        # Numbers had to be given up after they were converted: their spelling ("007") is read once more.
        mixed |= again


def _read(
    path: Path, text: Container[str], only: Wanted, skip: Container[str], mixed: set[str]
) -> tuple[Table, set[str]]:
    with open_file(path) as (binary, _):
        stream = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
        try:
            header, rows, reader_lines = _open(path, stream)
            read = [(at, _ColumnBuilder(name, name in text)) for at, name in enumerate(header)
                    if wanted(name, only, skip)]  # fmt: skip
            for _, builder in read:
                if builder.name in mixed:
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
        raise DataError(f"{path}: 1 lines, expected a header line and at least one row")
    again = {builder.name for _, builder in read if builder.mixed}
    columns = {} if again else {builder.name: builder.finish() for _, builder in read}
    lines = np.frombuffer(reader_lines, dtype=np.int64)
    plain = np.array_equal(lines, np.arange(2, n + 2))
    return Table(str(path), columns, tuple(header), n, "line", 2, None if plain else lines), again


def _open(path: Path, stream: io.TextIOWrapper) -> tuple[list[str], Iterator[list[str]], array[int]]:
    """Return the header, the rows, and an array that gets the line of each row as it is read."""
    first = stream.readline()
    separator = max(_SEPARATORS, key=first.count)
    reader = csv.reader(chain([first], stream), strict=True, delimiter=separator)
    header = [name.strip() for name in next(reader, [])]
    if not any(header):
        raise DataError(f"{path}: the first line is empty, expected a header line with column names")
    if all(_is_number(name) for name in header):
        raise DataError(
            f"{path}: the first line holds only numbers, expected a header line with column names"
        )
    # pandas leaves the name of its index empty
    header = check_names(str(path), [name or f"unnamed {at}" for at, name in enumerate(header, 1)])
    lines = array("q")

    def rows() -> Iterator[list[str]]:
        line = reader.line_num + 1
        for row in reader:
            if row:  # an empty line is no row
                if len(row) != len(header):
                    raise DataError(
                        f"{path}: line {line} has {len(row)} values, expected {len(header)} as in the header"
                    )
                lines.append(line)
                yield row
            line = reader.line_num + 1

    return header, rows(), lines


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _ColumnBuilder:
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
