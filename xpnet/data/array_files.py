"""Readers for the array files that users bring: NPY, NPZ and lists of labels.

Each returns plain arrays or raises a DataError that names the file; nothing is ever unpickled.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .idx import GZIP_MAGIC, open_file
from .table_sources import is_table

_MAGICS = {b"\x93NUM": "npy", b"PK\x03\x04": "npz", b"PK\x05\x06": "npz"}
_TEXT_SUFFIXES = ("", ".txt", ".dat", ".data")
_READABLE = "NPZ, NPY, IDX (plain or .gz), CSV or Parquet"
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
    """Tell the format of a file: "npy", "npz", "idx" or "table".

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
    if is_table(path):
        return "table"
    if start[:2] in (b"\0\0", GZIP_MAGIC):
        return "idx"
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
    if (
        isinstance(found, np.ndarray) and not found.dtype.isnative
    ):  # the same numbers, as this machine has them
        return found.astype(found.dtype.newbyteorder("="))
    return found
