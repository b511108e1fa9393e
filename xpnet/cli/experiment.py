"""`xpnet experiment`: the tutorial's experiments."""

from __future__ import annotations

import click

from ..errors import ConfigError, XpnetError


@click.command()
@click.argument("action", type=click.Choice(["list", "run"]))
@click.argument("names", nargs=-1)
@click.option("--out", type=click.Path(), default="runs/experiments", show_default=True,
              help="Folder for figures (PNG and SVG) and result.json, one folder per experiment.")  # fmt: skip
@click.option("--quick", is_flag=True, help="A small version that takes seconds, on the embedded digits.")
@click.option("--device", default="cpu", show_default=True, help="cpu, numba, cuda, cuda:N or auto.")
@click.option("--data-dir", type=click.Path(), help="Folder that holds MNIST.")
@click.option("--download", is_flag=True, help="MNIST may be downloaded.")
@click.option("--language", type=click.Choice(["en", "zh"]), default="en", show_default=True,
              help="Of the words in figures.")  # fmt: skip
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object per experiment and nothing else."
)
def experiment(
    action: str, names: tuple[str, ...], out: str, quick: bool, device: str, data_dir: str | None,
    download: bool, language: str, as_json: bool,
) -> None:  # fmt: skip
    """Run the experiments of the tutorial: `list`, `run E5`, `run E12 E13`, `run all`.

    MNIST is used where it is found, the embedded digits otherwise. Exits 1 where an experiment does not show
    what it claims.
    """
    from .. import experiments
    from ..storage.strictjson import dumps_json

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
            echo=(lambda line: None) if as_json else click.echo, language=language,
        )  # fmt: skip
        if as_json:
            click.echo(dumps_json(result))
        missed += [] if result["shown"] else [result["experiment"]]
    if missed:
        raise XpnetError(f"{', '.join(missed)} did not show what was claimed; see the lines NOT SHOWN above")
