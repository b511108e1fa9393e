"""One process at a time in a folder: a lock that ends with the process that holds it, however that ends.

The system keeps the lock, on a file in the folder; the file says only who holds it. So what a killed process leaves
behind blocks nobody. Whoever only reads does not ask for the lock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import ConfigError, XpnetError

#: The file in a folder that is in use.
LOCK = ".lock"

_FAR = 1 << 30  # Windows keeps others from reading locked bytes, so none is locked that has been written
_TAKEN = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def locked(folder: Path, instead: str) -> Iterator[None]:
    """Hold the lock of a folder that exists.

    Where the file system knows no locks (some network file systems), nothing is held.

    Parameters
    ----------
    folder : Path
    instead : str
        What to do where another process holds it; ends the message.

    Raises
    ------
    ConfigError
        Another process holds it, or another thread of this one.
    XpnetError
        The folder cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     with locked(Path(name), "wait for it"):
    ...         print([p.name for p in Path(name).iterdir()])
    ...     print([p.name for p in Path(name).iterdir()])
    ['.lock']
    []
    """
    path = folder / LOCK
    fd = _take(folder, path, instead)
    try:
        yield
    finally:
        _give_back(fd, path)


def _take(folder: Path, path: Path, instead: str) -> int:
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise XpnetError(f"cannot write in {folder}: {error.strerror}") from error
        try:
            if not _try(fd):
                raise ConfigError(f"{folder} is in use by {_holder(path)}; {instead}")
            # Whoever had it before may have removed the file since it was opened here: then it locks nothing.
            if _is(fd, path):
                _sign(fd)
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _try(fd: int) -> bool:
    """Lock an open file without waiting; False where another has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(fd, _FAR, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _is(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _sign(fd: int) -> None:
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, f"process {os.getpid()} on {platform.node()}\n".encode())


def _holder(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    return text if text.startswith("process ") and text.isprintable() else "another process"


def _give_back(fd: int, path: Path) -> None:
    # Removed while the lock is held, so that nobody's file but one's own; Windows does not remove open files.
    if sys.platform == "win32":
        os.close(fd)
    with contextlib.suppress(OSError):
        os.unlink(path)
    if sys.platform != "win32":
        os.close(fd)
