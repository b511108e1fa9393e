"""Reader and writer for the IDX format, the one that MNIST is published in.

An IDX file is two zero bytes, one byte for the number type, one byte for the rank, one big-endian
32-bit size per axis, then the numbers in row-major order, big-endian. Nothing else may follow.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn, cast

import numpy as np

from ..errors import DataError
from ..storage.atomic import write_parts_atomic

GZIP_MAGIC = b"\x1f\x8b"

# Type byte on disk -> NumPy type. The format knows no other.
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}
_CODES = {np.dtype(name): code for code, name in _TYPES.items()}
_TYPE_LIST = ", ".join(f"0x{code:02X} {np.dtype(name).name}" for code, name in _TYPES.items())

# What to convert an unsupported type to: the smallest type of the format that can hold it.
_INSTEAD = {"bool": "uint8", "uint16": "int32", "uint32": "float64", "int64": "int32", "float16": "float32"}

_MAX_RANK = 64  # NumPy's own limit; the format allows 255
_MAX_SIZE = 2**32 - 1
_MAX_GZIP_RATIO = 1032  # the most that deflate can expand; more than this in a header is a lie
_CHUNK = 1 << 22


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read one IDX file, plain or gzip-compressed.

    Whether the file is compressed is decided by its first two bytes, never by its name. A header
    that asks for more numbers than the file can hold is refused before any memory is allocated.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    numpy.ndarray
        Of the rank, shape and type that the header names, in native byte order, writable.

    Raises
    ------
    DataError
        The file is missing, a folder, empty, of another format, cut short, damaged, or followed by
        stray bytes.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "x-idx1-ubyte.gz")
    ...     write_idx(file, np.arange(3, dtype=np.uint8))
    ...     read_idx(file)
    array([0, 1, 2], dtype=uint8)
    """
    path = Path(path)
    with open_file(path) as (stream, limit):
        dtype, shape = _read_header(stream, path)
        expected = math.prod(shape) * dtype.itemsize
        if expected > limit:
            _fail(
                path,
                f"its header asks for {expected} bytes of data (shape {shape}, {dtype.name}), more than "
                f"a file of {path.stat().st_size} bytes can hold; it is truncated or damaged",
            )
        data = _read_up_to(stream, expected + 1)
    if len(data) < expected:
        _fail(
            path,
            f"truncated: {len(data)} bytes of data, expected {expected} for shape {shape} of {dtype.name}",
        )
    if len(data) > expected:
        _fail(
            path,
            f"trailing bytes after the {expected} bytes of data expected for shape {shape} of {dtype.name}",
        )
    return _as_array(data, dtype, shape, path)


def write_idx(path: str | os.PathLike[str], array: Any) -> None:
    """Write an array as one IDX file; a name that ends in ``.gz`` is compressed.

    The file appears whole or not at all (written beside its place, then renamed), and the same array
    always gives the same bytes: the compressed form holds no name and no time.

    Parameters
    ----------
    path : str or path-like
        The file to write; its folder must exist. An existing file is replaced.
    array : array_like
        Of type uint8, int8, int16, int32, float32 or float64, any rank up to 64.

    Raises
    ------
    DataError
        The type is not one of the format's, or an axis is too long.
    FileWriteError
        It cannot be written; the file that was there before is unchanged.

    Examples
    --------
    >>> write_idx("labels-idx1-ubyte", np.array([7, 2]))
    Traceback (most recent call last):
    xpnet.errors.DataError: IDX cannot hold int64; convert it first, for example array.astype('int32') ...
    """
    path = Path(path)
    array = np.asarray(array)
    code = _CODES.get(array.dtype.newbyteorder("="))
    if code is None:
        instead = _INSTEAD.get(array.dtype.name, "uint8' or 'float64")
        raise DataError(
            f"IDX cannot hold {array.dtype.name}; convert it first, for example "
            f"array.astype('{instead}') (known types: {_TYPE_LIST})"
        )
    if any(size > _MAX_SIZE for size in array.shape):
        raise DataError(f"IDX sizes are 32-bit: the shape {array.shape} has an axis longer than {_MAX_SIZE}")
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    body = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder(">"))
    parts = [header, body.reshape(-1).view(np.uint8)]
    write_parts_atomic(path, _packed(parts) if path.suffix == ".gz" else parts)


@contextmanager
def open_file(path: Path, *, unpack: bool = True) -> Iterator[tuple[IO[bytes], int]]:
    """Open a plain or gzip file for reading; yield it with the most bytes that it can hold.

    With ``unpack=False`` a gzip file is read as it is stored.

    Every failure of the file system or of the decompressor, also while the caller reads, becomes a
    DataError that names the file.
    """
    try:
        with open(path, "rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            magic = raw.read(2)
            raw.seek(0)
            if not magic:
                _fail(path, "the file is empty")
            if magic != GZIP_MAGIC or not unpack:
                yield raw, size
                return
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield cast(IO[bytes], unpacked), size * _MAX_GZIP_RATIO
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, expected a file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: damaged or truncated gzip file ({error}); copy or download it again"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def _read_header(stream: IO[bytes], path: Path) -> tuple[np.dtype, tuple[int, ...]]:
    magic = _read_up_to(stream, 4)
    if len(magic) < 4:
        _fail(path, f"truncated header: {len(magic)} bytes, expected at least 4")
    if magic[:2] != b"\0\0":
        _fail(path, f"not an IDX file: it starts with bytes {magic.hex(' ')}, expected 00 00 TYPE RANK")
    code, rank = magic[2], magic[3]
    if code not in _TYPES:
        _fail(path, f"unknown IDX type byte 0x{code:02X}, expected one of: {_TYPE_LIST}")
    if rank > _MAX_RANK:
        _fail(path, f"rank {rank}, but NumPy arrays have at most {_MAX_RANK} axes")
    sizes = _read_up_to(stream, 4 * rank)
    if len(sizes) < 4 * rank:
        _fail(path, f"truncated header: {len(sizes)} bytes of sizes, expected {4 * rank} for rank {rank}")
    return np.dtype(_TYPES[code]), struct.unpack(f">{rank}I", sizes)


def _read_up_to(stream: IO[bytes], count: int) -> bytearray:
    # In pieces, because a single read(count) allocates `count` bytes before it knows whether they exist.
    data = bytearray()
    while len(data) < count:
        piece = stream.read(min(_CHUNK, count - len(data)))
        if not piece:
            break
        data += piece
    return data


def _as_array(data: bytearray, dtype: np.dtype, shape: tuple[int, ...], path: Path) -> np.ndarray:
    stored = dtype.newbyteorder(">")
    try:
        array = np.frombuffer(data, stored).reshape(shape)
    except ValueError as error:  # an empty array whose other axes overflow what NumPy can index
        raise DataError(f"{path}: the shape {shape} is larger than NumPy can index") from error
    return array.astype(dtype, copy=False)


def _packed(parts: Iterable[Any]) -> Iterator[bytes]:
    """The parts as one gzip member without a date, so that equal arrays give equal files."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for part in parts:
        yield packer.compress(part)
    yield packer.flush()


def _fail(path: Path, what: str) -> NoReturn:
    raise DataError(f"{path}: {what}")
