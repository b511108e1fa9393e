"""`xpnet compare`: one training on several devices, side by side."""

from __future__ import annotations

import sys
from typing import Any

import click

from .train import GroupedCommand, given_settings, train_options


@click.command(cls=GroupedCommand)
@click.argument("file", metavar="[DATA]", required=False)
@click.option("--devices", required=True, metavar="A,B[,...]",
              help="Two or more of cpu, numba, cuda, cuda:N, reference; cuda@bf16 for a precision of its own. "
              "The others are compared with the first.")  # fmt: skip
@click.option("--config", "config_file", type=click.Path(), help="TOML file of settings; flags overrule it.")
@click.option("--tolerance", type=click.FloatRange(min=0.0),
              help="Exit 1 where weights end with a larger relative difference.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@train_options(without=("device", "save_every", "statistics", "log"))
def compare(
    file: str | None, devices: str, config_file: str | None, tolerance: float | None, as_json: bool, **flags: Any
) -> None:  # fmt: skip
    """Train on several devices from the same seed, and print how far they come apart in each epoch.

    Weights, batches and masks are the same everywhere, so the differences are those of rounding. Nothing is written.
    DATA is the same as --data DATA.
    """
    from .. import parity
    from ..runs import config as config_module
    from ..runs.building import limited_threads
    from ..storage.strictjson import dumps_json

    config = config_module.resolve(config_file, given_settings(file, flags))
    names = devices.split(",")
    lines: list[str] = []

    def show(record: dict[str, Any]) -> None:
        if not as_json:
            lines.append(parity.line(record))
            click.echo(f"{parity.header()}\n{lines[0]}" if len(lines) == 1 else lines[-1])

    with limited_threads(config.threads):
        records = parity.compare_devices(config, names, on_record=show)
    last = {record["device"]: record for record in records}.values()
    beyond = [r["device"] for r in last if tolerance is not None and not r["weights_relative"] <= tolerance]
    if as_json:
        click.echo(dumps_json({"devices": names, "beyond_tolerance": beyond, "records": records}))
    if beyond:
        click.echo(
            f"xpnet: weights of {', '.join(beyond)} differ from those of {names[0]} by more than {tolerance:g}",
            err=True,
        )
        sys.exit(1)
