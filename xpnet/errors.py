"""Every error that xpnet raises on purpose, each with the exit code the command gives it.

A message says what was found, what was expected, and what to do.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

_Call = TypeVar("_Call", bound=Callable[..., Any])


class XpnetError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line exits with."""

    exit_code = 1


class DataError(XpnetError, ValueError):
    """Data that cannot be used: wrong format, shape, type, label or value."""


class FileFormatError(XpnetError):
    """A model file or checkpoint that is damaged, of another format, or of another architecture."""


class FileWriteError(XpnetError, OSError):
    """A file could not be written; says what happened to the file that was there before.

    It is an `OSError` too, and its ``errno`` is that of the system call that failed.
    """

    @classmethod
    def after(cls, error: OSError, message: str) -> FileWriteError:
        """Return one that says `message` of what the system said by `error`."""
        failure = cls(message)
        failure.errno = error.errno
        return failure


class ConfigError(XpnetError, ValueError):
    """An unknown name or an impossible setting."""

    exit_code = 2


class DivergedError(XpnetError):
    """Training produced a non-finite number; names the layer, the epoch and the step.

    Attributes
    ----------
    epoch, step : int or None
        From 1; the step is the number of the update.
    where : str
        The layer and what of it is not finite.
    """

    exit_code = 3

    def __init__(
        self, message: str = "", *, epoch: int | None = None, step: int | None = None, where: str = ""
    ):
        super().__init__(message)
        self.epoch, self.step, self.where = epoch, step, where


class DeviceError(XpnetError):
    """The requested device cannot be used."""

    exit_code = 4


class OutOfMemoryError(XpnetError, MemoryError):
    """Not enough memory; says how much was needed and how much is free."""

    exit_code = 5


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the name that is spelled most like another one, whatever the case; None where none is near.

    Examples
    --------
    >>> nearest("vip", ["VIP", "age"]), nearest("x", ["age"])
    ('VIP', None)
    """
    spelled = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=0.5)
    return spelled[near[0]] if near else None


def unknown_name(what: str, name: object, known: Iterable[str]) -> ConfigError:
    """Build the error for a name that is not in a table, with the nearest spelling.

    Examples
    --------
    >>> print(unknown_name("activation", "rellu", ["relu", "tanh"]))
    unknown activation 'rellu'; did you mean 'relu'? Known: relu, tanh
    """
    known = sorted(known)
    near = nearest(str(name), known)
    hint = f"; did you mean {near!r}?" if near else "."
    return ConfigError(f"unknown {what} {name!r}{hint} Known: {', '.join(known)}")


class MissingFileError(FileFormatError, FileNotFoundError):
    """There is no such file; `except FileNotFoundError` catches it, too."""


class MissingPackageError(XpnetError, ImportError):
    """An optional package that this needs cannot be imported; says what installs it."""


def missing_package(need: str, extra: str, error: ImportError) -> MissingPackageError:
    """Build the error for a package of the extra `extra` of xpnet; `need` says what needs which package.

    Examples
    --------
    >>> print(missing_package("plots need matplotlib", "plots", ImportError("No module named 'matplotlib'")))
    plots need matplotlib, which cannot be imported (No module named 'matplotlib'): pip install "xpnet[plots]"
    """
    return MissingPackageError(f'{need}, which cannot be imported ({error}): pip install "xpnet[{extra}]"')


def check_options(
    what: str, options: Iterable[str], known: Iterable[str], hints: Mapping[str, str] | None = None
) -> None:
    """Raise `unknown_name`, or what `hints` say of it, for the first of `options` that is not in `known`.

    Examples
    --------
    >>> check_options("option of schedule 'step'", ["every"], ["every", "factor"])
    """
    known = list(known)
    for option in options:
        if option not in known:
            if hints and option in hints:
                raise ConfigError(f"unknown {what} {option!r}: {hints[option]}")
            raise unknown_name(what, option, known)


def explained(
    what: str, *, positional: str = "", hints: Mapping[str, str] | None = None
) -> Callable[[_Call], _Call]:
    """Decorate a function, or a class for its `__init__`: arguments that it does not have are a `ConfigError`.

    Parameters
    ----------
    what : str
        What an argument is called, such as "option of fit".
    positional : str
        What is said where there are too many without a name.
    hints : dict of str, optional
        What is said about names that people bring from elsewhere; about all others the nearest spelling is.

    Examples
    --------
    >>> @explained("option of f", hints={"gain": "it is called scale here"})
    ... def f(x, *, scale=1.0): ...
    >>> f(3, gain=2.0)
    Traceback (most recent call last):
    xpnet.errors.ConfigError: unknown option of f 'gain': it is called scale here
    """

    def decorate(call: Any) -> Any:
        if isinstance(call, type):
            vars_of: Any = call
            vars_of.__init__ = decorate(vars_of.__init__)
            return call
        parameters = inspect.signature(call).parameters
        by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        known = [n for n, p in parameters.items() if p.kind in by_name and n != "self"]
        most = sum(p.kind is not inspect.Parameter.KEYWORD_ONLY for p in parameters.values())

        @functools.wraps(call)
        def checked(*given: Any, **options: Any) -> Any:
            if len(given) > most:
                raise ConfigError(
                    positional or f"every {what} is given by its name, found {given[most]!r:.80}"
                )
            check_options(what, options, known, hints)
            return call(*given, **options)

        return checked

    return decorate
