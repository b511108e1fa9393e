"""`xpnet export`: a model as a file that other programs open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_ENDINGS = {"onnx": "model.onnx", "torch": "torch.safetensors"}


@click.command()
@click.argument("run", type=click.Path())
@click.option("--format", "kind", type=click.Choice(list(_ENDINGS)), default="onnx", show_default=True,
              help="onnx: samples to answers; torch: weights named as PyTorch's Sequential names them.")  # fmt: skip
@click.option("--out", type=click.Path(), help="File to write.  [default: beside the model]")
@click.option("--input-dtype", type=click.Choice(["float32", "float64", "uint8"]),
              help="Type of the samples that the ONNX file takes.  [default: that of the weights]")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
def export(run: str, kind: str, out: str | None, input_dtype: str | None, overwrite: bool) -> None:
    """Write a model as ONNX or as PyTorch weights.

    RUN is a run folder or a model file.
    """
    from ..errors import ConfigError
    from ..runs.folder import open_model

    if input_dtype is not None and kind != "onnx":
        raise ConfigError(f"--input-dtype belongs to --format onnx, found --format {kind}")
    model, folder = open_model(run)
    target = Path(out) if out else (Path(run) if folder else Path(run).parent) / _ENDINGS[kind]
    if target.exists() and not overwrite:
        raise ConfigError(f"{target} exists; pass --overwrite, or another name with --out")
    if kind == "onnx":
        from ..exchange import to_onnx

        to_onnx(model, target, input_dtype=input_dtype)
    else:
        _write_state(model, target)
    click.echo(f"{target} ({target.stat().st_size:,} bytes)")


def _write_state(model: Any, target: Path) -> None:
    from .. import checkpoint
    from ..exchange import to_torch_state

    facts = {
        "kind": "torch state", "activation": model.architecture["activation"], "task": model.task, "loss": model.loss,
        "classes": model.classes and list(model.classes),
    }  # fmt: skip
    checkpoint.save_tensors(target, to_torch_state(model), facts)
