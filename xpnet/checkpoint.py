"""Files of tensors that are never half believed.

A file is believed only after its SHA-256 has been checked over every byte, header included; writing is that
of `xpnet.storage.atomic`.

The format is `safetensors <https://github.com/huggingface/safetensors>`_, so any safetensors library opens
the files. The header's ``__metadata__`` holds ``format`` = ``xpnet``, ``format_version`` = ``1``,
``sha256``, and one JSON text per entry of the caller. ``sha256`` is the SHA-256 of the whole file while its
own 64 hexadecimal digits are the character ``0``.
"""

# Why the official safetensors library is not used, though it opens these files: it writes the metadata in a
# random order, but equal contents must give equal bytes; and the checksum covers the header, so it can only be
# filled in by whoever makes the header's bytes.

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from .errors import DataError, FileFormatError, MissingFileError, OutOfMemoryError
from .storage.atomic import StrPath, write_parts_atomic
from .storage.strictjson import dumps_json, loads_json, parse_json

__all__ = ["load_tensors", "save_tensors", "weights_sha256"]

FORMAT = "xpnet"
FORMAT_VERSION = 1

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
_CODES = {name: code for code, name in _DTYPES.items()}
_RESERVED = ("format", "format_version", "sha256")
_NO_DIGEST = "0" * 64
_MAX_HEADER = 100_000_000  # the safetensors rule
_MAX_NDIM = 64  # NumPy's limit
_DAMAGED = "The file is damaged: restore it from a copy or save it again."


def save_tensors(path: StrPath, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, object]) -> None:
    """Write arrays and metadata into one safetensors file, atomically and durably.

    Equal contents give equal bytes. The arrays must not change during the call.

    Parameters
    ----------
    path : str or path-like
        The file to create or replace.
    tensors : dict of str to ndarray
        Arrays on the host, any strides, of dtype float16/32/64, int8..int64, uint8..uint64 or bool.
    metadata : dict of str to object
        Plain values, each stored as its JSON text (see `dumps_json`). The keys ``format``, ``format_version``
        and ``sha256`` are taken.

    Raises
    ------
    DataError
        For an array or a metadata entry that cannot be stored.
    FileWriteError
        Where the file cannot be written; the previous file is then unchanged.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name, "m.safetensors")
    >>> save_tensors(path, {"w": np.eye(2, dtype=np.float32)}, {"epoch": 3, "best": float("inf")})
    >>> tensors, metadata = load_tensors(path)
    >>> tensors["w"].tolist(), metadata
    ([[1.0, 0.0], [0.0, 1.0]], {'best': inf, 'epoch': 3})
    >>> folder.cleanup()
    """
    write_parts_atomic(path, _serialise(tensors, metadata))


def load_tensors(path: StrPath) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file of `save_tensors`, after checking every byte of it.

    Needs twice the size of the file in memory, whatever its header claims. Runs no code from the file.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    tensors : dict of str to ndarray
        In the order of their names; they own their memory and can be written to.
    metadata : dict of str to object
        What was given to `save_tensors`.

    Raises
    ------
    FileFormatError
        For a missing, damaged or cut file, and for any other format.

    Examples
    --------
    >>> load_tensors("no/such.safetensors")
    Traceback (most recent call last):
    xpnet.errors.MissingFileError: no/such.safetensors: no such file. Check the name...
    """
    where = os.fsdecode(path)
    try:
        mode = os.stat(where).st_mode
        if not stat.S_ISREG(mode):
            what = "is a folder" if stat.S_ISDIR(mode) else "is not an ordinary file"
            raise FileFormatError(f"{where}: {what}; expected a model file or checkpoint written by xpnet.")
        with open(where, "rb") as stream:
            return _deserialise(stream, os.fstat(stream.fileno()).st_size, where)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(f"{where}: no such file. Check the name and the folder.") from None
    except OSError as error:
        raise FileFormatError(
            f"{where}: could not be read: {error.strerror or error}. Check its permissions."
        ) from error
    except ValueError as error:
        raise FileFormatError(f"{where!r}: could not be read: {error}. {_DAMAGED}") from error
    except MemoryError as error:
        raise OutOfMemoryError(f"{where}: not enough memory to read it; twice its size is needed.") from error


def weights_sha256(tensors: Mapping[str, np.ndarray]) -> str:
    r"""Return the SHA-256 of named arrays: equal exactly where all names, types, shapes and bits are equal.

    For each name in sorted order (by code point) the hash takes the line ``["name","dtype",[shape]]``
    (compact JSON in ASCII, NumPy's name of the dtype, a final newline), then the values, little-endian in
    C order.

    Parameters
    ----------
    tensors : dict of str to ndarray
        As for `save_tensors`; strides and byte order make no difference.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> digest = weights_sha256({"w": np.array([[1, 2]], dtype=np.float32)})
    >>> digest == hashlib.sha256(b'["w","float32",[1,2]]\n' + b"\0\0\x80\x3f\0\0\0\x40").hexdigest()
    True
    """
    total = hashlib.sha256()
    for name in sorted(_checked(tensors)):
        array = _little_endian(tensors[name])
        line = json.dumps([name, array.dtype.name, list(array.shape)], separators=(",", ":"))
        total.update(line.encode("ascii") + b"\n")
        total.update(_raw(array))
    return total.hexdigest()


def _checked(tensors: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    for name, array in tensors.items():
        if not isinstance(name, str) or name == "__metadata__":
            raise DataError(f"{name!r} cannot name a tensor; use another string")
        if not isinstance(array, (np.ndarray, np.generic)) or isinstance(array, np.ma.MaskedArray):
            raise DataError(
                f"tensor {name!r} is a {type(array).__name__}; expected a NumPy array on the host"
            )
        if array.dtype.name not in _CODES:
            known = ", ".join(sorted(_CODES))
            raise DataError(f"tensor {name!r} has dtype {array.dtype}; expected one of {known}")
    return tensors


def _little_endian(array: np.ndarray) -> np.ndarray:
    """Return the array in C order and little-endian, without a copy where it is so already."""
    return np.asarray(array).astype(array.dtype.newbyteorder("<"), order="C", subok=False, copy=False)


def _raw(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _serialise(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, object]) -> list[Any]:
    """Return the parts of the file: the header, then the bytes of each tensor."""
    texts = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "sha256": _NO_DIGEST}
    for key in sorted(_string_keys(metadata)):
        try:
            texts[key] = json.dumps(json.loads(dumps_json(metadata[key])), sort_keys=True)
        except DataError as error:
            raise DataError(f"metadata {key!r}: {error}") from None
    # Wide types first, as the safetensors library does, so that every tensor is aligned in the file.
    order = sorted(_checked(tensors), key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, object] = {"__metadata__": texts}
    parts: list[Any] = []
    end = 0
    for name in order:
        array = _little_endian(tensors[name])
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": _CODES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
        parts.append(_raw(array))
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"a name is not valid Unicode: {error}") from None
    text += b" " * (-len(text) % 8)
    if len(text) > _MAX_HEADER:
        raise DataError(f"names and metadata need {len(text)} bytes; a file can hold {_MAX_HEADER}")
    text = len(text).to_bytes(8, "little") + text
    total = hashlib.sha256(text)
    for part in parts:
        total.update(part)
    # Quotes inside names and values are escaped and no JSON text is 64 zeros, so the field occurs once.
    return [text.replace(_digest_field(_NO_DIGEST), _digest_field(total.hexdigest())), *parts]


def _string_keys(metadata: Mapping[str, object]) -> Mapping[str, object]:
    for key in metadata:
        if not isinstance(key, str) or key in _RESERVED:
            raise DataError(
                f"{key!r} cannot be a metadata key; use a string other than {', '.join(_RESERVED)}"
            )
    return metadata


def _digest_field(digest: str) -> bytes:
    return b'"sha256":"' + digest.encode("ascii") + b'"'


def _deserialise(stream: BinaryIO, size: int, where: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Check and read an open file of `size` bytes. Nothing larger than the file is ever allocated at once."""
    prefix, raw, header = _read_header(stream, size, where)
    texts = header.pop("__metadata__", None)
    if not isinstance(texts, dict) or texts.get("format") != FORMAT:
        raise FileFormatError(
            f"{where}: a safetensors file, but without the metadata that xpnet writes; expected a model "
            "file or checkpoint of xpnet. Read it with safetensors.numpy.load_file, or save it with xpnet."
        )
    version = texts.get("format_version")
    if version != str(FORMAT_VERSION):
        if isinstance(version, str) and version.isascii() and version.isdigit() and version[0] != "0":
            raise FileFormatError(
                f"{where}: written by a newer xpnet (format version {version[:20]}; this one reads version "
                f"{FORMAT_VERSION}). Update xpnet."
            )
        raise FileFormatError(
            f"{where}: format version {_short(version)}; expected {FORMAT_VERSION}. {_DAMAGED}"
        )
    expected = 8 + len(raw) + _promised(header)
    if expected != size:
        raise FileFormatError(f"{where}: {size} bytes, but its header says {expected}. {_DAMAGED}")
    body = stream.read(size - 8 - len(raw))
    if len(body) != size - 8 - len(raw) or stream.read(1):
        raise FileFormatError(
            f"{where}: changed while it was being read. Try again when nothing writes to it."
        )
    digest = texts.get("sha256")
    if not isinstance(digest, str) or len(digest) != 64 or not digest.isascii():
        raise FileFormatError(f"{where}: no SHA-256 checksum in its metadata. {_DAMAGED}")
    field = _digest_field(digest)
    if raw.count(field) != 1:
        raise FileFormatError(f"{where}: its checksum cannot be located. {_DAMAGED}")
    total = hashlib.sha256(prefix + raw.replace(field, _digest_field(_NO_DIGEST)))
    total.update(body)
    if total.hexdigest() != digest:
        raise FileFormatError(
            f"{where}: the checksum of its contents is {total.hexdigest()[:12]}..., but the file says "
            f"{_short(digest[:12])}... {_DAMAGED}"
        )
    try:
        tensors = _parse_tensors(header, body)
        metadata = {str(key): loads_json(text) for key, text in texts.items() if key not in _RESERVED}
    except (ValueError, TypeError) as error:
        raise FileFormatError(f"{where}: inconsistent header: {error}. {_DAMAGED}") from None
    return tensors, metadata


def _read_header(stream: BinaryIO, size: int, where: str) -> tuple[bytes, bytes, dict[str, Any]]:
    prefix = stream.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or not 2 <= length <= min(size - 8, _MAX_HEADER):
        start = prefix + stream.read(256)
        raise _foreign(where, start, f"{size} bytes and no valid safetensors header")
    raw = stream.read(length)
    if not raw.startswith(b"{") or len(raw) != length:
        raise _foreign(where, prefix + raw[:256], "its header does not begin with '{'")
    try:
        header = parse_json(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{where}: its header is not valid JSON: {error}. {_DAMAGED}") from None
    return prefix, raw, header


def _foreign(where: str, start: bytes, found: str) -> FileFormatError:
    """Build the error for a file that is not safetensors, naming the format where it is known."""
    names = start[30 : 30 + int.from_bytes(start[26:28], "little")]  # the first member of a zip archive
    if start.startswith(b"PK\x03\x04"):
        if names.endswith(b".npy"):
            kind = "a NumPy .npz archive"
        elif b"data.pkl" in names or names.startswith(b"archive/"):
            kind = "a PyTorch file (.pt), which holds a pickle"
        else:
            kind = "a zip archive"
    elif start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        torch = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" in start
        kind = "a PyTorch file (.pt), which is a pickle" if torch else "a pickle"
    elif start.startswith(b"\x93NUMPY"):
        kind = "a NumPy .npy file"
    elif start.startswith(b"\x89HDF\r\n\x1a\n"):
        kind = "an HDF5 file"
    elif start.startswith(b"\x1f\x8b"):
        kind = "a gzip file"
    elif not start:
        kind = "an empty file"
    else:
        return FileFormatError(
            f"{where}: {found}; expected a model file or checkpoint written by xpnet. "
            "The file is damaged, cut short or of another format."
        )
    pickle = " xpnet never opens a pickle, because it can run any code." if "pickle" in kind else ""
    return FileFormatError(
        f"{where}: {kind}; expected a safetensors file written by xpnet.{pickle} Save the model with xpnet."
    )


def _promised(header: Mapping[str, Any]) -> int:
    """Return the largest end of a tensor, as far as the header can be understood."""
    end = 0
    for entry in header.values():
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if isinstance(offsets, list) and len(offsets) == 2 and type(offsets[1]) is int:
            end = max(end, offsets[1])
    return min(end, sys.maxsize)  # longer numbers are neither a size nor fit to print


def _parse_tensors(header: Mapping[str, Any], body: bytes) -> dict[str, np.ndarray]:
    """Build the arrays under all the rules of safetensors; ValueError says which one is broken."""
    found: dict[str, tuple[str, tuple[int, ...], int, int]] = {}
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"{_short(name)} is not described by dtype, shape and data_offsets")
        dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
        if dtype is None:
            raise ValueError(f"{_short(name)} has the unknown dtype {_short(entry['dtype'])}")
        shape = _sizes(name, entry["shape"])
        offsets = _sizes(name, entry["data_offsets"])
        if len(offsets) != 2:
            raise ValueError(f"{_short(name)} needs two offsets")
        found[name] = dtype, shape, *offsets
    end = 0
    for name in sorted(found, key=lambda name: found[name][2:]):
        dtype, shape, begin, stop = found[name]
        if begin != end or stop - begin != math.prod(shape) * np.dtype(dtype).itemsize:
            raise ValueError(f"{_short(name)} does not follow the tensor before it or has the wrong size")
        end = stop
    if end != len(body):
        raise ValueError(f"the tensors end at {end}, the data at {len(body)}")
    tensors = {}
    for name in sorted(found):
        dtype, shape, begin, stop = found[name]
        data = np.frombuffer(memoryview(body)[begin:stop], dtype=np.dtype(dtype).newbyteorder("<"))
        if dtype == "bool" and data.view(np.uint8).max(initial=0) > 1:
            raise ValueError(f"{_short(name)} holds a bool that is neither 0 nor 1")
        tensors[name] = data.reshape(shape).astype(dtype)
    return tensors


def _sizes(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > _MAX_NDIM:
        raise ValueError(f"{_short(name)} needs a list of at most {_MAX_NDIM} sizes")
    if not all(type(item) is int and 0 <= item <= sys.maxsize for item in value):
        raise ValueError(f"{_short(name)} has a size that is not a small non-negative integer")
    return tuple(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
