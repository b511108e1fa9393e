"""The command `xpnet`: one module for each subcommand or few, loaded when it is called.

Thin: options become a call of the library, which does the work. Nothing heavy is imported until a command
needs it. A new command is a line in `COMMANDS` and a function of that name.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import click

from ..errors import FileWriteError, OutOfMemoryError, XpnetError, unknown_name
from ..storage.output import output_named

_SIGNAL_EXIT = 128  # 130 for Ctrl-C, 143 for SIGTERM

#: command -> module of this package, and the name there
COMMANDS = {
    "train": "train.train",
    "sweep": "sweep.sweep",
    "evaluate": "inspect.evaluate",
    "predict": "inspect.predict",
    "plot": "inspect.plot",
    "report": "report.report",
    "export": "export.export",
    "experiment": "experiment.experiment",
    "playground": "playground.playground",
    "compare": "compare.compare",
    "info": "installation.info",
    "doctor": "installation.doctor_command",
}


def _load(name: str) -> click.Command:
    module, _, attribute = COMMANDS[name].rpartition(".")
    command: click.Command = getattr(importlib.import_module(f".{module}", __name__), attribute)
    return command


def commands() -> dict[str, click.Command]:
    """All commands by name, loaded."""
    return {name: _load(name) for name in COMMANDS}


class _Terminated(KeyboardInterrupt):
    """SIGTERM outside of training, where it has no step to wait for."""

    signum = signal.SIGTERM

    def __init__(self) -> None:
        super().__init__("interrupted by SIGTERM")


class _Group(click.Group):
    """Turns errors, click's own too, into one line on standard error and their exit code; suggests command names."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        _open_streams()
        return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            with output_named():  # --help and --version are answered here
                return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            raise _one_line(error, "xpnet") from error
        except FileWriteError as error:
            raise _Failure(str(error), error.exit_code) from error
        except KeyboardInterrupt:
            sys.exit(_SIGNAL_EXIT + signal.SIGINT)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _termination_raises(), output_named():
                return super().invoke(ctx)
        except click.UsageError as error:
            raise _one_line(error, f"xpnet {ctx.invoked_subcommand}") from error
        except XpnetError as error:
            raise _Failure(str(error), error.exit_code) from error
        except MemoryError as error:
            raise _Failure(_memory_message(error), OutOfMemoryError.exit_code) from error
        except BrokenPipeError:
            raise  # click ends quietly, as `| head` expects
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise _Failure(f"{where}{error.strerror or error}", XpnetError.exit_code) from error
        except KeyboardInterrupt as error:
            ctx.exit(_SIGNAL_EXIT + getattr(error, "signum", signal.SIGINT))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return _load(name) if name in COMMANDS else None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise unknown_name("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)


def _open_streams() -> None:
    """See to it that text can be printed: where a stream was closed, nowhere; what its encoding lacks, in escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
        elif hasattr(stream, "reconfigure") and (
            stream.errors == "strict" or stream.encoding.lower() != "utf-8"
        ):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _termination_raises() -> Iterator[None]:
    """Make SIGTERM raise as Ctrl-C does, so that files in the making are cleaned up and 143 is returned."""

    def stop(signum: int, frame: Any) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


class _Failure(click.ClickException):
    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        click.echo(f"xpnet: error: {' '.join(self.message.splitlines())}", err=True)
        _drop_refused_output()


def _drop_refused_output() -> None:
    """Forget what standard output refused; at exit Python would try again, with an exit code and lines of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: click.UsageError, command: str) -> click.ClickException:
    """Return what click says about an option or argument as one line that ends with where to look."""
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        return error  # a command that was called without anything shows its help
    if error.ctx is not None:
        command = " ".join(["xpnet", *error.ctx.command_path.split()[1:]])  # whatever the program is called
    said = " ".join(error.format_message().split()).rstrip(".")
    return _Failure(f"{said[:1].lower()}{said[1:]}; see {command} --help", error.exit_code)


def _memory_message(error: MemoryError) -> str:
    from ..memory import free_memory

    free = free_memory()
    known = f"; {free / 2**30:.1f} GiB are free" if free is not None else ""
    return f"out of memory: {error}{known}. Use a smaller --batch-size, --hidden or data set."


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="xpnet", prog_name="xpnet")
def main() -> None:
    """Train multilayer perceptrons on NumPy (CPU) or CuPy (CUDA).

    Exit codes: 0 done, 1 error, 2 usage or configuration, 3 diverged, 4 device unavailable, 5 out of memory,
    130 interrupted after saving, 143 terminated after saving.
    """
