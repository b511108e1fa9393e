"""Readers for the array files that users bring: NPY, NPZ, CSV and lists of labels.

Each returns plain arrays or raises a DataError that names the file; nothing is ever unpickled.
"""

from __future__ import annotations

import csv
import io
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .idx import open_file

CSV_SUFFIXES = (".csv",)

_MAGICS = {b"\x93NUM": "npy", b"PK\x03\x04": "npz", b"PK\x05\x06": "npz"}
_TEXT_SUFFIXES = ("", ".txt", ".dat", ".data")
_READABLE = "NPZ, NPY, IDX (plain or .gz) or CSV"
_DAMAGE = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    MemoryError,
    RuntimeError,
    NotImplementedError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def kind_of(path: Path) -> str:
    """Tell the format of a file: "npy", "npz", "idx" or "csv".

    Raises
    ------
    DataError
        None of these, empty, missing or a folder.

    Examples
    --------
    >>> kind_of(Path("nowhere.npy"))
    Traceback (most recent call last):
    xpnet.errors.DataError: nowhere.npy: no such file
    """
    with open_file(path, unpack=False) as (stream, _):
        start = stream.read(4)
    if start in _MAGICS:
        return _MAGICS[start]
    if start[:2] in (b"\0\0", b"\x1f\x8b"):
        return "idx"
    if path.suffix.lower() in CSV_SUFFIXES:
        return "csv"
    if path.suffix.lower() in _TEXT_SUFFIXES and start.isascii():
        raise DataError(
            f"{path}: not a format that can be read; if it is a table of text, rename it to {path.stem}.csv"
        )
    raise DataError(
        f"{path}: not a format that can be read (it starts with bytes {start.hex(' ')}), expected {_READABLE}"
    )


def read_npy(path: Path) -> np.ndarray:
    """Read one NPY file without unpickling.

    Raises
    ------
    DataError
        Missing, damaged, or holding Python objects.
    """
    with open_file(path, unpack=False) as (stream, _):
        return _guarded(path, "", lambda: np.lib.format.read_array(stream, allow_pickle=False))


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read every array of an NPZ file without unpickling.

    Raises
    ------
    DataError
        Missing, damaged, empty, or holding Python objects.
    """
    with open_file(path, unpack=False) as (stream, _):
        archive = _guarded(path, "", lambda: np.load(stream, allow_pickle=False))
        with archive:
            arrays = {key: _guarded(path, key, lambda key=key: archive[key]) for key in archive.files}
    if not arrays:
        raise DataError(f"{path}: the archive holds no arrays")
    return arrays


def pick(arrays: Mapping[str, np.ndarray], keys: Sequence[str], path: Path) -> np.ndarray:
    """Return the first of `keys` that `arrays` holds, else raise a DataError that lists both.

    Examples
    --------
    >>> pick({"X": np.arange(2)}, ("x", "X"), Path("a.npz"))
    array([0, 1])
    """
    for key in keys:
        if key in arrays:
            return arrays[key]
    raise DataError(f"{path}: no array named {' or '.join(keys)}; it holds {', '.join(sorted(arrays))}")


def read_csv(path: Path, target: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read a CSV file with a header line into features and one target column.

    Parameters
    ----------
    path : pathlib.Path
        UTF-8, comma-separated.
    target : str, optional
        The name of the target column; the last one where absent.

    Returns
    -------
    x : numpy.ndarray, shape (B, I)
        float64.
    y : numpy.ndarray, shape (B,)
        float64 where every entry is a number, else text.

    Raises
    ------
    DataError
        No such column, rows of different lengths, or a feature that is empty or not a number.
    """
    header, rows = csv_rows(path)
    at = len(header) - 1
    if target is not None:
        if target not in header:
            raise DataError(f"{path}: no column named {target!r}; the columns are {', '.join(header)}")
        at = header.index(target)
    labels = [row[at].strip() for row in rows]
    if "" in labels:
        raise DataError(
            f"{path}: line {labels.index('') + 2} has no value in the target column {header[at]!r}"
        )
    x = numbers(path, [*header[:at], *header[at + 1 :]], [[*row[:at], *row[at + 1 :]] for row in rows])
    try:
        return x, np.array(labels, dtype=np.float64)
    except ValueError:
        return x, np.array(labels)


def csv_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a CSV file as text; every row has the header's length."""
    text = _text(path).rstrip()
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV file ({error})") from error
    if len(lines) < 2:
        raise DataError(f"{path}: {len(lines)} lines, expected a header line and at least one row")
    header, rows = [name.strip() for name in lines[0]], lines[1:]
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise DataError(
                f"{path}: line {number} has {len(row)} values, expected {len(header)} as in the header"
            )
    if all(_is_number(name) for name in header):
        raise DataError(
            f"{path}: the first line holds only numbers, expected a header line with column names"
        )
    return header, rows


def numbers(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> np.ndarray:
    """Turn rows of text into float64 numbers, or say which entry is none."""
    try:
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(header))
    except ValueError:
        line, name, text = next(
            (line, name, text)
            for line, row in enumerate(rows, 2)
            for name, text in zip(header, row, strict=True)
            if not _is_number(text)
        )
        raise DataError(
            f"{path}: line {line}, column {name!r} holds {text!r}, expected a number; remove or fill empty "
            "entries and turn categories into numbers first"
        ) from None


def read_lines(path: Path) -> np.ndarray:
    """Read a text file of one label a line: int64 where all are integers, else text."""
    lines = [line.strip() for line in _text(path).splitlines()]
    labels = [line for line in lines if line]
    if not labels:
        raise DataError(f"{path}: no labels, expected one a line")
    try:
        return np.array([int(label) for label in labels], dtype=np.int64)
    except (ValueError, OverflowError):
        return np.array(labels)


def _text(path: Path) -> str:
    with open_file(path, unpack=False) as (stream, _):
        try:
            return stream.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _guarded(path: Path, key: str, read: Any) -> Any:
    where = f"{path}: array {key!r}" if key else f"{path}"
    try:
        found = read()
    except _DAMAGE as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise DataError(
                f"{where} holds Python objects, which are never unpickled; save it as numbers or text "
                "(for example x.astype('float32')), with rows of equal length"
            ) from error
        raise DataError(f"{where}: damaged or truncated ({type(error).__name__}: {error})") from error
    if isinstance(found, np.ndarray) and found.dtype.hasobject:
        raise DataError(f"{where} holds Python objects, expected numbers or text")
    return found
