"""`xpnet info` and `xpnet doctor`: what is installed, and what to do about it."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(run: str | None, as_json: bool) -> None:
    """Show versions and devices, or what is in a run folder or model file."""
    from ..info import as_text, describe, installation
    from ..storage.strictjson import dumps_json

    facts = installation() if run is None else describe(Path(run))
    click.echo(dumps_json(facts) if as_json else as_text(facts))


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor_command(as_json: bool) -> None:
    """Check the installation and say what to do about each finding. Exits 1 where something is broken."""
    from .. import doctor
    from ..storage.strictjson import dumps_json

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
