"""A folder that a command fills: numbered where nobody names one, empty at the start, for one process at a time."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from ..errors import ConfigError, XpnetError
from .lock import LOCK, locked


class WorkFolder:
    """What the folders of runs and sweeps have in common; each says what is its own in the names below.

    Parameters
    ----------
    path : path
    """

    #: Where folders without a name of their own are made, and what they are called where the data have no name.
    parent: ClassVar[str]
    plain: ClassVar[str]
    #: The command that fills the folder.
    command: ClassVar[str]

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @classmethod
    def numbered(cls, name: str) -> Self:
        """Make the first folder ``PARENT/NAME-NUMBER`` that does not exist yet.

        Raises
        ------
        XpnetError
            It cannot be made.
        """
        number = 1
        while True:
            path = Path(cls.parent, f"{Path(name).stem or cls.plain}-{number}")
            try:
                path.mkdir(parents=True)
                return cls(path)
            except FileExistsError:
                number += 1
            except OSError as error:
                raise _cannot_create(path, error) from error

    @property
    def continuation(self) -> str:
        """The command that continues what was begun in the folder."""
        return f"{self.command} --resume {shlex.quote(str(self.path))}"

    @contextmanager
    def taken(self, *, resume: bool, overwrite: bool = False) -> Iterator[None]:
        """Keep the folder for this process: made and emptied for something new, as it is for what is to `resume`.

        Reading is free to all. A process that is killed keeps nothing.

        Raises
        ------
        ConfigError
            Another process is at work in it; or it is to be new and is a file, or holds files that are not replaced.
        XpnetError
            It cannot be written.
        """
        if not resume:
            self._make(overwrite)
        if not self.path.is_dir():
            yield  # there is nothing to continue; what reads it says so
            return
        instead = f"wait until it has ended, or stop it and continue with: {self.continuation}"
        with locked(self.path, instead if resume else f"{instead}; or choose another --out"):
            if not resume:
                self.create(overwrite=overwrite)
            yield

    def create(self, *, overwrite: bool = False) -> None:
        """Make the folder, and remove from it what is replaced; raises as `taken` does."""
        self._make(overwrite)  # another process may have come and gone before it was taken
        try:
            if self._holds_files():
                self.clear()
            self.prepare()
        except OSError as error:
            raise _cannot_create(self.path, error) from error

    def check_replaceable(self, overwrite: bool) -> None:
        """Raise a ConfigError that says what to do with a folder that holds files, unless `overwrite` replaces them."""
        raise NotImplementedError

    def clear(self) -> None:
        """Remove what is replaced."""

    def prepare(self) -> None:
        """Make the folders inside."""

    def _make(self, overwrite: bool) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path} is a file; --out needs a folder")
        try:
            if self._holds_files():
                self.check_replaceable(overwrite)
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_create(self.path, error) from error

    def _holds_files(self) -> bool:
        """Whether there is anything but what a killed process left of its lock."""
        return self.path.is_dir() and any(entry.name != LOCK for entry in self.path.iterdir())


def _cannot_create(path: Path, error: OSError) -> XpnetError:
    return XpnetError(f"cannot create {path}: {error.strerror}; choose another --out")
