"""`xpnet sweep`: many settings tried on folds and seeds, trained together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from ..errors import ConfigError
from .train import GroupedCommand, given_settings, train_options


@click.command(cls=GroupedCommand)
@click.argument("file", metavar="[DATA]", required=False)
@click.option("--grid", multiple=True, metavar="NAME=V,V",
              help="Try these values of a setting, in all combinations with the others; ';' between values that "
              "have commas: hidden=300,100;500. Repeat for more settings.")  # fmt: skip
@click.option("--range", "ranges", multiple=True, metavar="NAME=KIND:A..B",
              help="Draw a setting at random: log:1e-4..1e-1, lin:0..0.5, int:16..256, logint:16..512, or from "
              "values V,V. Needs --random.")  # fmt: skip
@click.option("--random", type=int, metavar="N", help="Draw so many times from the ranges.")
@click.option("--point", "points", multiple=True, metavar="'NAME=V NAME=V'",
              help="Try this one candidate. Repeat for more.")  # fmt: skip
@click.option("--folds", type=int, metavar="K",
              help="Cross-validate with K folds of the training data.  [default: 0, a held-out share]")  # fmt: skip
@click.option(
    "--seeds", type=int, metavar="N", help="Train each candidate with N seeds, from --seed on.  [default: 1]"
)
@click.option("--top", type=int, metavar="N",
              help="Train the N best again, into run folders in the sweep's folder.  [default: 0]")  # fmt: skip
@click.option("--config", "config_file", type=click.Path(),
              help="TOML file of settings with a table [sweep]; flags overrule it.")  # fmt: skip
@click.option("--out", type=click.Path(), help="Folder of the sweep.  [default: sweeps/DATA-NUMBER]")
@click.option("--resume", type=click.Path(), metavar="SWEEP", help="Continue a sweep; --top may change.")
@click.option(
    "--results", type=click.Path(), metavar="FILE", help="One more copy of the results: .csv or .parquet."
)
@click.option("--batches", type=click.Choice(["own", "shared"]), default="own", show_default=True,
              help="Whether each network meets the examples in an order of its own, or all in one order.")  # fmt: skip
@click.option("--memory", type=click.FloatRange(min=0.0, min_open=True), metavar="GIB",
              help="Most memory for training, in GiB.  [default: what is free]")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), help="Threads that train blocks of networks.")
@click.option("--print-config", is_flag=True, help="Print the settings as TOML and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json as the last line.")
@click.option("--quiet", is_flag=True, help="Print nothing else.")
@train_options(without=("save_every", "statistics", "log"))
def sweep(
    file: str | None, grid: tuple[str, ...], ranges: tuple[str, ...], random: int | None, points: tuple[str, ...],
    folds: int | None, seeds: int | None, top: int | None, config_file: str | None, out: str | None,
    resume: str | None, results: str | None, batches: str, memory: float | None, workers: int | None,
    print_config: bool, as_json: bool, quiet: bool, **flags: Any,
) -> None:  # fmt: skip
    """Try many settings, and rank them by validation scores.

    Candidates come from --grid, --range with --random, and --point; each is trained on all folds and with all
    seeds, many networks at a time. The test data are used for the --top networks only.
    """
    from ..storage.strictjson import dumps_json
    from ..sweep import run, settings, space
    from ..sweep.folder import RESUMABLE, SweepFolder

    given = given_settings(file, flags)
    if resume is not None:
        others = {
            "grid": grid, "range": ranges, "random": random, "point": points, "folds": folds, "seeds": seeds,
            "config": config_file, "out": out,
        }  # fmt: skip
        clash = [k for k in given if k not in RESUMABLE] + [k for k, v in others.items() if v]
        if clash:
            raise ConfigError(
                f"{_flags(clash)} cannot be combined with --resume, which keeps all settings of the sweep but "
                f"{_flags((*RESUMABLE, 'top'))}"
            )
        config = SweepFolder(resume).settings()
        config = replace(config, base=replace(config.base, **given), top=config.top if top is None else top)
    else:
        axes = _axes(grid, space.read_axis)
        drawn = _axes(ranges, _range)
        listed = [space.read_point(p) for p in points]
        config = settings.resolve(
            config_file, given,
            {"grid": axes, "ranges": drawn, "points": listed, "random": random, "folds": folds, "seeds": seeds,
             "top": top},
        )  # fmt: skip
    if print_config:
        click.echo(config.to_toml(), nl=False)
        return
    result = run.sweep(
        config, resume or out, resume=resume is not None, quiet=quiet, table=results, batches=batches,
        memory=None if memory is None else int(memory * 2**30), workers=workers,
    )  # fmt: skip
    if not quiet:
        _report(result)
    if as_json:
        click.echo(dumps_json(result))


def _axes(texts: tuple[str, ...], read: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in texts:
        name, values = read(text)
        if name in found:
            raise ConfigError(f"{name} is named twice; give all its values at once")
        found[name] = values
    return found


def _range(text: str) -> tuple[str, Any]:
    from ..sweep.space import Range, read_axis, setting_name

    name, _, source = text.partition("=")
    if ".." not in source:
        return read_axis(text)
    key = setting_name(name)
    return key, Range.parse(key, source)


def _flags(names: Any) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _report(result: dict[str, Any]) -> None:
    for row in result["top"]:
        test = ", ".join(f"{k.replace('_', ' ')} {v:.4f}" for k, v in row.items() if k.startswith("test_"))
        click.echo(f"rank {row['rank']}: {row['run']}{': ' if test else ''}{test}")
    if not result["top"]:
        click.echo(f"train the best again with: xpnet sweep --resume {result['sweep']} --top 1")
    click.echo(f"{result['members']} networks in {result['seconds']:.1f} s; {result['sweep']}")
