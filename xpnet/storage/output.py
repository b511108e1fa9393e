"""Standard output as a file that may be full."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import FileWriteError


@contextmanager
def output_named(after: str = "") -> Iterator[None]:
    """Name standard output in the error about what could not be printed inside, and say `after`.

    A pipe that was closed is another matter: nobody wants to read on.

    Raises
    ------
    FileWriteError
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if isinstance(error, FileWriteError) or error.filename is not None or not _refuses():
            raise
        raise FileWriteError.after(
            error,
            f"could not write to standard output: {error.strerror}. Free some space there, or send it elsewhere."
            f"{f' {after}' if after else ''}",
        ) from error


def _refuses() -> bool:
    """Whether standard output cannot be written: what it refused is in its buffer still, and is refused again."""
    unbuffered = getattr(sys.stdout, "write_through", False)  # then an empty line has to tell
    try:
        print(end="\n" if unbuffered else "", flush=True)
    except OSError:
        return True
    return False
