"""Files that are never half written.

The bytes go to a temporary file in the same folder, which is synced, renamed over the target, and the folder
is synced. So a kill, a full disk or a power cut leaves the old file or the new one, whole; once the call has
returned, it is the new one. A killed process may leave a ``.NAME.*.tmp`` file behind; it is safe to delete.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterable
from typing import Any

from ..errors import DataError, FileWriteError
from .strictjson import dumps_json

__all__ = ["write_bytes_atomic", "write_json_atomic", "write_parts_atomic", "write_text_atomic"]

StrPath = str | os.PathLike[str]

_MAX_WRITE = 1 << 26  # bytes per write call; some systems refuse calls of 2 GiB and more


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
    write_parts_atomic(path, [data])


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


def write_parts_atomic(path: StrPath, parts: Iterable[Any]) -> None:
    """Write the buffers of `parts`, one after the other; otherwise as `write_bytes_atomic`."""
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
        message = f"could not write {where}: {reason}; {state}. {_advice(error.errno)}"
        raise FileWriteError.after(error, message) from error
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
