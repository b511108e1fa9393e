"""Files that are never half written and never half believed.

Writing: the bytes go to a temporary file in the same folder, which is synced, renamed over the target, and
the folder is synced. So a kill, a full disk or a power cut leaves the old file or the new one, whole; once
the call has returned, it is the new one. A killed process may leave a ``.NAME.*.tmp`` file behind; it is
safe to delete.

Reading: a tensor file is believed only after its SHA-256 has been checked over every byte, header included.

The format is `safetensors <https://github.com/huggingface/safetensors>`_, so any safetensors library opens
the files. The header's ``__metadata__`` holds ``format`` = ``xpnet``, ``format_version`` = ``1``,
``sha256``, and one JSON text per entry of the caller. ``sha256`` is the SHA-256 of the whole file while its
own 64 hexadecimal digits are the character ``0``. The header is written here and not by the safetensors
library, because that library writes the metadata in a random order, and equal contents must give equal bytes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

from xpnet.errors import DataError, FileFormatError, OutOfMemoryError, XpnetError

__all__ = [
    "FileWriteError",
    "dumps_json",
    "load_tensors",
    "loads_json",
    "save_tensors",
    "weights_sha256",
    "write_bytes_atomic",
    "write_json_atomic",
    "write_text_atomic",
]

FORMAT = "xpnet"
FORMAT_VERSION = 1

StrPath = str | os.PathLike[str]

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
_MAX_WRITE = 1 << 26  # bytes per write call; some systems refuse calls of 2 GiB and more
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_DAMAGED = "The file is damaged: restore it from a copy or save it again."


class FileWriteError(XpnetError, OSError):
    """A file could not be written; says what happened to the file that was there before.

    It is an `OSError` too, and its ``errno`` is that of the system call that failed.
    """


class _Fs:
    """The system calls that writing uses, one method each, so that tests can make any of them fail."""

    def mode(self, path: str) -> int | None:
        """Return the ``st_mode`` of a file, or None where there is none."""
        try:
            return os.stat(path).st_mode
        except FileNotFoundError:
            return None

    def open_folder(self, path: str) -> int | None:
        """Open a folder for syncing; None where the system cannot (Windows)."""
        return None if os.name == "nt" else os.open(path, os.O_RDONLY)

    def create(self, path: str, mode: int) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)

    def write(self, fd: int, data: memoryview) -> int:
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)

    def fsync_folder(self, fd: int) -> None:
        try:
            os.fsync(fd)
        except OSError as error:
            # Some network file systems do not offer this call; there is nothing more to do on them.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise

    def unlink(self, path: str) -> None:
        os.unlink(path)


_fs = _Fs()


# -------------------------------------------------------------------------------------------------- writing


def write_bytes_atomic(path: StrPath, data: bytes) -> None:
    """Write `data` to `path` so that a reader, a crash or a full disk never sees half of it.

    When the call returns, the new content survives a power cut. A symbolic link is followed; the permissions
    of an existing file are kept.

    Parameters
    ----------
    path : str or path-like
        The file to create or replace. Its folder must exist.
    data : bytes
        The whole new content.

    Raises
    ------
    FileWriteError
        Naming the file, the cause, and what became of the previous file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name, "note.bin")
    >>> write_bytes_atomic(path, b"one")
    >>> write_bytes_atomic(path, b"two")
    >>> path.read_bytes(), [p.name for p in path.parent.iterdir()]
    (b'two', ['note.bin'])
    >>> folder.cleanup()
    """
    _write_atomic(path, [data])


def write_text_atomic(path: StrPath, text: str) -> None:
    """Write `text` as UTF-8, line endings unchanged; otherwise as `write_bytes_atomic`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_text_atomic(pathlib.Path(folder, "a.txt"), "h\\u00e9\\n")
    ...     pathlib.Path(folder, "a.txt").read_bytes()
    b'h\\xc3\\xa9\\n'
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"could not write {os.fsdecode(path)}: the text is not valid Unicode ({error})"
        ) from None
    write_bytes_atomic(path, data)


def write_json_atomic(path: StrPath, obj: object) -> None:
    """Write `obj` as indented JSON (see `dumps_json`) and a final newline; otherwise as `write_bytes_atomic`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json_atomic(pathlib.Path(folder, "a.json"), {"loss": float("nan")})
    ...     print(pathlib.Path(folder, "a.json").read_text())
    {
      "loss": "NaN"
    }
    """
    write_text_atomic(path, dumps_json(obj, indent=2) + "\n")


def _write_atomic(path: StrPath, parts: Iterable[Any]) -> None:
    """Write the concatenated buffers of `parts` to `path`, all or nothing."""
    where = os.fsdecode(path)
    fs = _fs
    state = "the previous file, if there was one, is unchanged"
    try:
        target = os.path.realpath(where)
        mode = fs.mode(target)
        if mode is None:
            state = "no file was written"
        elif not stat.S_ISREG(mode):
            what = "it is a folder" if stat.S_ISDIR(mode) else "it is not an ordinary file"
            raise FileWriteError(f"could not write {where}: {what}. Choose another file name.")
        else:
            state = "the previous file is unchanged"
        folder, name = os.path.split(target)
        folder_fd = fs.open_folder(folder)
        try:
            temp = os.path.join(folder, f".{name[:40]}.{os.getpid()}-{secrets.token_hex(6)}.tmp")
            fd = fs.create(temp, 0o666 if mode is None else stat.S_IMODE(mode) & 0o777)
            try:
                _fill(fs, fd, parts)
                fs.replace(temp, target)
            except BaseException:
                with contextlib.suppress(OSError):
                    fs.unlink(temp)
                raise
            state = "the new file is in place, but a power cut may still bring the previous one back"
            if folder_fd is not None:
                fs.fsync_folder(folder_fd)
        finally:
            if folder_fd is not None:
                with contextlib.suppress(OSError):  # nothing was written through it
                    fs.close(folder_fd)
    except FileWriteError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        failure = FileWriteError(f"could not write {where}: {reason}; {state}. {_advice(error.errno)}")
        failure.errno = error.errno
        raise failure from error
    except ValueError as error:  # a zero character in the path
        raise FileWriteError(f"could not write {where!r}: {error}. Choose another file name.") from None


def _fill(fs: _Fs, fd: int, parts: Iterable[Any]) -> None:
    """Write all parts, sync and close. After a failed sync the file is given up: syncing again would lie."""
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                count = fs.write(fd, rest[:_MAX_WRITE])
                if count <= 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                rest = rest[count:]
        fs.fsync(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            fs.close(fd)
        raise
    fs.close(fd)


def _advice(code: int | None) -> str:
    if code in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return "Free some space or choose a folder on another disk."
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Choose a folder that you may write to."
    if code in (errno.ENOENT, errno.ENOTDIR):
        return "Create the folder first, or correct its name."
    return "Check the disk, or choose a folder on another one."


# ----------------------------------------------------------------------------------------------------- JSON


def dumps_json(obj: object, *, indent: int | None = None) -> str:
    r"""Return strict JSON for plain values, in a form that `loads_json` turns back without loss.

    JSON has no NaN or infinities: they become the strings ``NaN``, ``Infinity`` and ``-Infinity``. A string
    that looks like one of these three, after any number of backslashes, gets one more backslash in front.
    Tuples become lists, NumPy scalars become Python numbers, and the order of keys is kept.

    Parameters
    ----------
    obj : object
        None, bool, int, float, str, and lists and dicts (with str keys) of them.
    indent : int, optional
        Spaces per level; None puts everything on one line.

    Raises
    ------
    DataError
        For any other type, naming the place.

    Examples
    --------
    >>> dumps_json({"loss": float("inf"), "name": "NaN"})
    '{"loss": "Infinity", "name": "\\\\NaN"}'
    >>> loads_json(_)
    {'loss': inf, 'name': 'NaN'}
    """
    try:
        return json.dumps(_to_json(obj, ""), indent=indent, allow_nan=False)
    except (RecursionError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot be stored as JSON: {error}") from None


def loads_json(text: str) -> Any:
    """Return the value that `dumps_json` wrote. Raises ValueError for text that is not strict JSON.

    Examples
    --------
    >>> loads_json('[1, "NaN"]')
    [1, nan]
    """
    try:
        return _from_json(json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _to_json(value: object, where: str) -> object:
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str):
        return "\\" + value if value.lstrip("\\") in _NON_FINITE else str(value)
    if isinstance(value, (list, tuple)):
        return [_to_json(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise DataError(f"a key must be a string, but {where or 'the object'} has {key!r}")
        return {str(key): _to_json(item, f"{where}[{key!r}]") for key, item in value.items()}
    raise DataError(
        f"{where or 'the object'} is a {type(value).__name__}; "
        "JSON can hold None, bool, int, float, str, list and dict"
    )


def _from_json(value: Any) -> Any:
    if isinstance(value, str):
        if value in _NON_FINITE:
            return _NON_FINITE[value]
        return value[1:] if value.lstrip("\\") in _NON_FINITE else value
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _from_json(item) for key, item in value.items()}
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


# --------------------------------------------------------------------------------------------- tensor files


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
    _write_atomic(path, _serialise(tensors, metadata))


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
    xpnet.errors.FileFormatError: no/such.safetensors: no such file. Check the name...
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
        raise FileFormatError(f"{where}: no such file. Check the name and the folder.") from None
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
        header = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique)
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
