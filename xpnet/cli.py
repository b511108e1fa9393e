"""The command: `xpnet train, evaluate, predict, plot, info, doctor, experiment`.

Thin: options are made from `TrainConfig`, the work is done by the library. Nothing heavy is imported until a
command needs it.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from .errors import ConfigError, OutOfMemoryError, XpnetError

_SIGNAL_EXIT = 128  # 130 for Ctrl-C, 143 for SIGTERM


class _Terminated(KeyboardInterrupt):
    """SIGTERM outside of training, where it has no step to wait for."""

    signum = signal.SIGTERM

    def __init__(self) -> None:
        super().__init__("interrupted by SIGTERM")


class _Group(click.Group):
    """Turns xpnet's errors into one line on standard error and their exit code; suggests command names."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _termination_raises():
                return super().invoke(ctx)
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

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from .errors import unknown_name

            raise unknown_name("command", args[0], self.commands)
        return super().resolve_command(ctx, args)


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


def _memory_message(error: MemoryError) -> str:
    from .doctor import free_memory

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


# --- train --------------------------------------------------------------------------------------
class _GroupedCommand(click.Command):
    """A command whose help shows the settings by their group in `TrainConfig`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from .config import TrainConfig

        groups = {f.name: f.metadata["group"] for f in fields(TrainConfig)}
        rows: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                rows.setdefault(groups.get(param.name or "", "options"), []).append(record)
        for group, records in rows.items():
            with formatter.section(group.capitalize()):
                formatter.write_dl(records)


class _WidthList(click.ParamType):
    """``300,100`` or ``none``."""

    name = "widths"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, list):
            return value
        if value.strip().lower() == "none":
            return []
        try:
            return [int(v) for v in value.split(",")]
        except ValueError:
            self.fail(f"{value!r}: expected whole numbers such as 500 or 300,100, or none", param, ctx)


class _NumberList(click.ParamType):
    """``0.2`` or ``0.2,0.5``."""

    name = "numbers"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, list):
            return value
        try:
            return [float(v) for v in value.split(",")]
        except ValueError:
            self.fail(f"{value!r}: expected numbers such as 0.2 or 0.2,0.5", param, ctx)


def _click_type(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if typing.get_origin(hint) is list:
        return _WidthList() if typing.get_args(hint) == (int,) else _NumberList()
    return hint


def _train_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give `command` one option per field of TrainConfig; those not given stay None."""
    from .config import TrainConfig, _hints

    hints = _hints()
    for f in reversed(fields(TrainConfig)):
        default = f.default_factory() if callable(f.default_factory) else f.default
        shown = ",".join(map(str, default)) if isinstance(default, list) else default
        note = f"  [default: {shown}]" if default is not None and default is not False else ""
        kind = _click_type(hints[f.name])
        flag = f"--{f.name.replace('_', '-')}"
        if kind is bool:
            both = f"{flag}/{flag.replace('--', '--no-')}"
            option = click.option(both, f.name, default=None, help=f.metadata["help"])
        else:
            choices = f.metadata.get("choices")
            kind = click.Choice(choices) if choices else kind
            option = click.option(flag, f.name, type=kind, default=None, help=f.metadata["help"] + note)
        command = option(command)
    return command


@main.command(cls=_GroupedCommand)
@click.option("--config", "config_file", type=click.Path(), help="TOML file of settings; flags overrule it.")
@click.option("--out", type=click.Path(), help="Run folder.  [default: runs/DATA-NUMBER]")
@click.option("--resume", type=click.Path(), metavar="RUN", help="Continue a run; --epochs may extend it.")
@click.option("--overwrite", is_flag=True, help="Replace what an earlier run left in --out.")
@click.option("--print-config", is_flag=True, help="Print the settings as TOML and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json as the last line.")
@click.option("--quiet", is_flag=True, help="Print nothing else.")
@_train_options
def train(
    config_file: str | None, out: str | None, resume: str | None, overwrite: bool, print_config: bool,
    as_json: bool, quiet: bool, **flags: Any,
) -> None:  # fmt: skip
    """Train a network and write a run folder. Without options: on the embedded digits."""
    from . import config as config_module
    from . import runs

    given = {k: v for k, v in flags.items() if v is not None}
    if resume is not None:
        others = {"config": config_file, "out": out, "overwrite": overwrite}
        clash = [k for k in given if k not in runs.RESUMABLE] + [k for k, v in others.items() if v]
        if clash:
            raise ConfigError(
                f"{_flags(clash)} cannot be combined with --resume, which keeps all settings of the run but "
                f"{_flags(runs.RESUMABLE)}"
            )
        config = replace(runs.RunFolder(resume).config(), **given)
    else:
        config = config_module.resolve(config_file, given)
    if print_config:
        click.echo(config.to_toml(), nl=False)
        return
    result = runs.train(config, resume or out, overwrite=overwrite, quiet=quiet, resume=resume is not None)
    _report(result, as_json, quiet)


def _flags(names: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _report(result: dict[str, Any], as_json: bool, quiet: bool) -> None:
    from .strictjson import dumps_json

    if not quiet:
        if result["test_accuracy"] is not None:
            click.echo(f"test accuracy {result['test_accuracy']:.2%}, loss {result['test_loss']:.4f}")
        elif result["test_loss"] is not None:
            click.echo(f"test loss {result['test_loss']:.6g}")
        chosen = f", best epoch {result['best_epoch']}" if result["best_epoch"] else ""
        early = ", stopped early" if result["stopped"] != "epochs" else ""
        click.echo(
            f"{result['epochs']} epochs in {result['seconds']:.1f} s{early}{chosen}; "
            f"run folder {result['run']}"
        )
    if as_json:
        click.echo(dumps_json({k: v for k, v in result.items() if k != "run"}))


# --- evaluate, predict, plot --------------------------------------------------------------------
def _data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed((
        click.option("--data", help="Data set or file; the run's own test set where omitted."),
        click.option("--data-dir", type=click.Path(), help="Folder that holds the named data set."),
        click.option("--labels", type=click.Path(), help="File of labels, where the data file has none."),
        click.option("--target", help="Key (NPZ) or column (CSV) that holds the labels."),
        click.option("--device", default="cpu", show_default=True, help="cpu, numba, cuda, cuda:N or auto."),
    )):  # fmt: skip
        command = option(command)
    return command


@main.command()
@click.argument("run", type=click.Path())
@_data_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def evaluate(run: str, as_json: bool, **options: Any) -> None:
    """Test a model: loss, accuracy, per-class report, confusion matrix.

    RUN is a run folder or a model file.
    """
    from . import reports

    scores = reports.evaluate_run(run, **options)
    if as_json:
        from .strictjson import dumps_json

        click.echo(dumps_json(scores))
    else:
        click.echo(reports.as_text(scores))


@main.command()
@click.argument("run", type=click.Path())
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option(
    "--top", default=1, show_default=True, type=click.IntRange(min=1), help="How many classes to show."
)
@click.option("--invert", type=click.Choice(["auto", "yes", "no"]), default="auto", show_default=True,
              help="Swap light and dark of pictures.")  # fmt: skip
@click.option("--device", default="cpu", show_default=True, help="cpu, numba, cuda, cuda:N or auto.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per sample.")
def predict(run: str, files: tuple[str, ...], top: int, invert: str, device: str, as_json: bool) -> None:
    """Predict images, NPY, NPZ, IDX or CSV files, or folders of images.

    RUN is a run folder or a model file.
    """
    from . import reports
    from .strictjson import dumps_json

    flip: Any = {"auto": "auto", "yes": True, "no": False}[invert]
    for answer in reports.predict_files(run, files, top=top, invert=flip, device=device):
        click.echo(dumps_json(answer) if as_json else reports.answer_line(answer))


@main.command()
@click.argument("run", type=click.Path())
@_data_options
@click.option("--out", type=click.Path(), help="Folder for the figures.  [default: RUN/plots]")
def plot(run: str, out: str | None, **options: Any) -> None:
    """Draw curves, confusion matrix, first-layer weights and the most confident mistakes as PNG."""
    from . import reports

    for path in reports.plot_run(run, out, **options):
        click.echo(path)


# --- info, doctor -------------------------------------------------------------------------------
@main.command()
@click.argument("run", type=click.Path(), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(run: str | None, as_json: bool) -> None:
    """Show versions and devices, or what is in a run folder or model file."""
    from . import doctor
    from .strictjson import dumps_json

    facts = doctor.installation() if run is None else doctor.describe(Path(run))
    click.echo(dumps_json(facts) if as_json else doctor.as_text(facts))


@main.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor_command(as_json: bool) -> None:
    """Check the installation and say what to do about each finding. Exits 1 where something is broken."""
    from . import doctor
    from .strictjson import dumps_json

    findings = doctor.check()
    if as_json:
        click.echo(dumps_json({"findings": findings}))
    else:
        for finding in findings:
            click.echo(f"{finding['status']:7} {finding['what']}: {finding['found']}")
            if finding["advice"]:
                click.echo(f"        -> {finding['advice']}")
    if any(f["status"] == "broken" for f in findings):
        sys.exit(1)


# --- experiment ---------------------------------------------------------------------------------
@main.command()
@click.argument("action", type=click.Choice(["list", "run"]))
@click.argument("names", nargs=-1)
@click.option("--out", type=click.Path(), default="runs/experiments", show_default=True,
              help="Folder for figures (PNG and SVG) and result.json, one folder per experiment.")  # fmt: skip
@click.option("--quick", is_flag=True, help="A small version that takes seconds, on the embedded digits.")
@click.option("--device", default="cpu", show_default=True, help="cpu, numba, cuda, cuda:N or auto.")
@click.option("--data-dir", type=click.Path(), help="Folder that holds MNIST.")
@click.option("--download", is_flag=True, help="MNIST may be downloaded.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object per experiment and nothing else."
)
def experiment(
    action: str, names: tuple[str, ...], out: str, quick: bool, device: str, data_dir: str | None,
    download: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run the experiments of the tutorial: `list`, `run E5`, `run E12 E13`, `run all`.

    MNIST is used where it is found, the embedded digits otherwise. Exits 1 where an experiment does not show
    what it claims.
    """
    from . import experiments
    from .strictjson import dumps_json

    known = experiments.experiments()
    if action == "list":
        if names:
            raise ConfigError(f"list takes no names, found {' '.join(names)}")
        for e in known.values():
            facts = {"experiment": e.name, "title": e.title, "must_show": e.claim}
            click.echo(dumps_json(facts) if as_json else f"{e.name:4} {e.title}\n     {e.claim}")
        return
    if not names:
        raise ConfigError(
            "say which experiment to run, such as E5, or all; `xpnet experiment list` shows them"
        )
    missed = []
    for name in known if "all" in names else names:
        result = experiments.run(
            name, out, quick=quick, device=device, data_dir=data_dir, download=download,
            echo=(lambda line: None) if as_json else click.echo,
        )  # fmt: skip
        if as_json:
            click.echo(dumps_json(result))
        missed += [] if result["shown"] else [result["experiment"]]
    if missed:
        raise XpnetError(f"{', '.join(missed)} did not show what was claimed; see the lines NOT SHOWN above")


if __name__ == "__main__":
    main()
