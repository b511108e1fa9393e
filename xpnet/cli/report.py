"""`xpnet report`: one HTML page about a run."""

from __future__ import annotations

from typing import Any

import click

from .inspect import data_options


@click.command()
@click.argument("run", type=click.Path())
@data_options
@click.option("--out", type=click.Path(), help="The page.  [default: RUN/report.html]")
def report(run: str, out: str | None, **options: Any) -> None:
    """Write one self-contained HTML page: settings, environment, data, curves, scores, mistakes.

    It is judged on the run's own test set, else on its validation set, or on --data. RUN is a run folder.
    """
    from ..runs import report_page

    click.echo(report_page.write_report(run, out, **options))
