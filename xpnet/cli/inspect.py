"""`xpnet evaluate`, `predict` and `plot`: what a finished run says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name data to judge by."""
    for option in reversed((
        click.option("--data", help="Data set or file; the run's own test set where omitted."),
        click.option("--data-dir", type=click.Path(), help="Folder that holds the named data set."),
        click.option("--labels", type=click.Path(), help="File of labels, where the data file has none."),
        click.option("--target", help="Key (NPZ) or column (CSV, for models of arrays) that holds the labels."),
        click.option("--unknown", type=click.Choice(["refuse", "missing"]), default="refuse", show_default=True,
                     help="Categories that training did not see: an error, or as if missing."),
        click.option("--device", default="cpu", show_default=True, help="cpu, numba, cuda, cuda:N or auto."),
    )):  # fmt: skip
        command = option(command)
    return command


@click.command()
@click.argument("run", type=click.Path())
@data_options
@click.option("--importance", is_flag=True, help="Also say how much worse it gets with each column shuffled.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def evaluate(run: str, as_json: bool, **options: Any) -> None:
    """Test a model: loss, accuracy, per-class report, confusion matrix.

    RUN is a run folder or a model file.
    """
    from ..runs import reports

    scores = reports.evaluate_run(run, **options)
    if as_json:
        from ..storage.strictjson import dumps_json

        click.echo(dumps_json(scores))
    else:
        click.echo(reports.as_text(scores))


@click.command()
@click.argument("run", type=click.Path())
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option(
    "--top", default=1, show_default=True, type=click.IntRange(min=1), help="How many classes to show."
)
@click.option(
    "--id",
    "ids",
    multiple=True,
    metavar="COLUMN[,...]",
    help="Columns of a table that name its rows, put before the answers.",
)
@click.option("--invert", type=click.Choice(["auto", "yes", "no"]), default="auto", show_default=True,
              help="Swap light and dark of pictures.")  # fmt: skip
@click.option("--unknown", type=click.Choice(["refuse", "missing"]), default="refuse", show_default=True,
              help="Categories that training did not see: an error, or as if missing.")  # fmt: skip
@click.option("--device", default="cpu", show_default=True, help="cpu, numba, cuda, cuda:N or auto.")
@click.option("--format", "form", type=click.Choice(["text", "csv", "json"]),
              help="Lines for people, a table, or one object per sample.  [default: by --out, else text]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--out", type=click.Path(), metavar="FILE", help="Write the answers to a file: .csv or .jsonl.")
def predict(
    run: str, files: tuple[str, ...], top: int, ids: tuple[str, ...], invert: str, unknown: str, device: str,
    form: str | None, as_json: bool, out: str | None,
) -> None:  # fmt: skip
    """Predict tables (CSV, Parquet), images, NPY, NPZ or IDX files, or folders of images.

    RUN is a run folder or a model file. The file - is a CSV file on standard input.
    """
    from ..runs import reports

    form = _format(form, as_json, out)
    flip: Any = {"auto": "auto", "yes": True, "no": False}[invert]
    columns = [name.strip() for text in ids for name in text.split(",") if name.strip()]
    answers = reports.predict_files(
        run, files, top=top, ids=columns, invert=flip, device=device, unknown=unknown
    )
    lines = reports.answer_lines(answers, form)
    if out is None:
        for line in lines:
            click.echo(line, nl=False)
        return
    from ..storage.atomic import write_text_atomic

    write_text_atomic(out, "".join(lines))


_ENDINGS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".txt": "text"}


def _format(form: str | None, as_json: bool, out: str | None) -> str:
    """What is asked for in one way or another."""
    if as_json and form not in (None, "json"):
        raise ConfigError(f"--json and --format {form} exclude each other; leave one of them out")
    if as_json or form is not None:
        return form or "json"
    if out is None:
        return "text"
    ending = Path(out).suffix.lower()
    if ending not in _ENDINGS:
        raise ConfigError(f"--out {out}: expected a name ending in {', '.join(_ENDINGS)}; or say --format")
    return _ENDINGS[ending]


@click.command()
@click.argument("run", type=click.Path())
@data_options
@click.option("--out", type=click.Path(), help="Folder for the figures.  [default: RUN/plots]")
def plot(run: str, out: str | None, **options: Any) -> None:
    """Draw curves, confusion matrix or residuals, first-layer weights and the worst mistakes as PNG."""
    from ..runs import reports

    for path in reports.plot_run(run, out, **options):
        click.echo(path)
