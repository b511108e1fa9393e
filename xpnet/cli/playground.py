"""`xpnet playground`: networks that learn while one watches, in the browser."""

from __future__ import annotations

import click


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default="a free one",
              help="Port on 127.0.0.1.")  # fmt: skip
@click.option("--no-browser", is_flag=True, help="Do not open the page; only print its address.")
@click.option(
    "--model", type=click.Path(exists=True), help="Run folder or model file that reads the drawn digits."
)
@click.option("--data-dir", type=click.Path(), help="Folder that holds MNIST, for the digits.")
def playground(port: int, no_browser: bool, model: str | None, data_dir: str | None) -> None:
    """Open a page on this computer: draw points and digits, and watch networks learn them.

    Only this computer can reach it. Digits are learnt from MNIST where it is found, else from the embedded ones.
    Ctrl-C ends it.
    """
    from ..playground import serve

    serve(port=port, browser=not no_browser, model=model, data_dir=data_dir, echo=click.echo)
