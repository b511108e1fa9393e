"""`xpnet train`: one option per field of `TrainConfig`."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any

import click

from ..errors import ConfigError
from ..storage.output import output_named


class GroupedCommand(click.Command):
    """A command whose help shows the settings by their group in `TrainConfig`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from ..runs.config import TrainConfig

        groups = {f.name: f.metadata["group"] for f in fields(TrainConfig)}
        rows: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                rows.setdefault(groups.get(param.name or "", "options"), []).append(record)
        for group, records in rows.items():
            with formatter.section(group.capitalize()):
                formatter.write_dl(records)


class _OrAuto(click.ParamType):
    """The word "auto", or what another type takes."""

    def __init__(self, kind: Any):
        self._kind = click.types.convert_type(kind)
        self.name = self._kind.name

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return value if value == "auto" else self._kind.convert(value, param, ctx)


class _List(click.ParamType):
    """Values with commas between them; a list passes as it is."""

    expected = ""

    def read(self, text: str) -> list[Any]:
        """Return the values; raises ValueError where they are not `expected`."""
        raise NotImplementedError

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, list):
            return value
        try:
            return self.read(value)
        except ValueError:
            self.fail(f"{value!r}: expected {self.expected}", param, ctx)


class _WidthList(_List):
    """``300,100`` or ``none``."""

    name, expected = "widths", "whole numbers such as 500 or 300,100, or none"

    def read(self, text: str) -> list[int]:
        return [] if text.strip().lower() == "none" else [int(v) for v in text.split(",")]


class _NumberList(_List):
    """``0.2`` or ``0.2,0.5``."""

    name, expected = "numbers", "numbers such as 0.2 or 0.2,0.5"

    def read(self, text: str) -> list[float]:
        return [float(v) for v in text.split(",")]


class _TextList(_List):
    """``name,ticket``."""

    name = "names"

    def read(self, text: str) -> list[str]:
        return [name.strip() for name in text.split(",") if name.strip()]


def _click_type(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if typing.get_origin(hint) is list:
        kinds = {int: _WidthList, float: _NumberList, str: _TextList}
        return kinds[typing.get_args(hint)[0]]()
    return hint


def train_options(without: Iterable[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator that gives a command one option per field of TrainConfig but `without`; those not given stay None."""
    return lambda command: _with_options(command, frozenset(without))


def _with_options(command: Callable[..., Any], without: frozenset[str]) -> Callable[..., Any]:
    from ..runs.config import TrainConfig, hints

    types = hints()
    for f in reversed([f for f in fields(TrainConfig) if f.name not in without]):
        default = f.default_factory() if callable(f.default_factory) else f.default
        auto = f.metadata.get("auto", False)
        shown = ",".join(map(str, default)) if isinstance(default, list) else "auto" if auto else default
        note = f"  [default: {shown}]" if shown not in (None, False, "") else ""
        kind = _click_type(types[f.name])
        flag = f"--{f.name.replace('_', '-')}"
        if kind is bool:
            both = f"{flag}/{flag.replace('--', '--no-')}"
            option = click.option(both, f.name, default=None, help=f.metadata["help"])
        else:
            choices = f.metadata.get("choices")
            kind = click.Choice(choices) if choices else _OrAuto(kind) if auto else kind
            option = click.option(flag, f.name, type=kind, default=None, help=f.metadata["help"] + note)
        command = option(command)
    return command


def given_settings(file: str | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that were given; `file`, the argument DATA, is the same as --data."""
    if file is not None:
        if flags.get("data") is not None:
            raise ConfigError(f"the data are named twice: {file!r} and --data {flags['data']!r}")
        flags = flags | {"data": file}
    return {k: v for k, v in flags.items() if v is not None}


@click.command(cls=GroupedCommand)
@click.option("--config", "config_file", type=click.Path(), help="TOML file of settings; flags overrule it.")
@click.option("--out", type=click.Path(), help="Run folder.  [default: runs/DATA-NUMBER]")
@click.option("--resume", type=click.Path(), metavar="RUN", help="Continue a run; --epochs may extend it.")
@click.option("--overwrite", is_flag=True, help="Replace what an earlier run left in --out.")
@click.option("--print-config", is_flag=True, help="Print the settings as TOML and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json as the last line.")
@click.option("--quiet", is_flag=True, help="Print nothing else.")
@click.argument("file", metavar="[DATA]", required=False)
@train_options()
def train(
    file: str | None, config_file: str | None, out: str | None, resume: str | None, overwrite: bool,
    print_config: bool, as_json: bool, quiet: bool, **flags: Any,
) -> None:  # fmt: skip
    """Train a network and write a run folder.

    DATA is the same as --data DATA: a table (CSV, Parquet), another file, or a named data set. Without it: the
    embedded digits.
    """
    from ..runs import config as config_module
    from ..runs.continuing import RESUMABLE
    from ..runs.folder import RunFolder
    from ..runs.run import train as train_run

    given = given_settings(file, flags)
    if resume is not None:
        others = {"config": config_file, "out": out, "overwrite": overwrite}
        clash = [k for k in given if k not in RESUMABLE] + [k for k, v in others.items() if v]
        if clash:
            raise ConfigError(
                f"{_flags(clash)} cannot be combined with --resume, which keeps all settings of the run but "
                f"{_flags(RESUMABLE)}"
            )
        config = replace(RunFolder(resume).config(), **given)
    else:
        config = config_module.resolve(config_file, given)
    if print_config:
        click.echo(config.to_toml(), nl=False)
        return
    result = train_run(config, resume or out, overwrite=overwrite, quiet=quiet, resume=resume is not None)
    with output_named(f"The run is complete: {result['run']}"):
        _report(result, as_json, quiet)


def _flags(names: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _report(result: dict[str, Any], as_json: bool, quiet: bool) -> None:
    from ..storage.strictjson import dumps_json

    if not quiet:
        if result["test_accuracy"] is not None:
            click.echo(f"test accuracy {result['test_accuracy']:.2%}, loss {result['test_loss']:.4f}")
        elif result["test_loss"] is not None:
            r2 = f", R² {result['test_r2']:.4f}" if result["test_r2"] is not None else ""
            click.echo(
                f"test RMSE {result['test_rmse']:.6g}, MAE {result['test_mae']:.6g}{r2}, "
                f"loss {result['test_loss']:.6g}"
            )
        chosen = f", best epoch {result['best_epoch']}" if result["best_epoch"] else ""
        early = ", stopped early" if result["stopped"] != "epochs" else ""
        click.echo(
            f"{result['epochs']} epochs in {result['seconds']:.1f} s{early}{chosen}; "
            f"run folder {result['run']}"
        )
    if as_json:
        click.echo(dumps_json({k: v for k, v in result.items() if k != "run"}))
