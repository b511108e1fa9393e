"""What `xpnet info` tells: about this installation, or what is in a run folder or model file."""

from __future__ import annotations

import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

from . import __version__
from .backend.cuda.probe import probe
from .memory import free_memory, step_bytes
from .runs.environment import blas, needed, version
from .storage.cache import cache_folder


def installation() -> dict[str, Any]:
    """Versions, devices, threads and folders."""
    free = free_memory()
    return {
        "xpnet": __version__, "python": platform.python_version(), "platform": platform.platform(),
        "devices": _devices(), "cpus": os.cpu_count(), "memory_free_bytes": free, "blas": blas(),
        "packages": {p: v for p in needed() + needed(optional=True) if (v := version(p))},
        "data_folder": os.environ.get("XPNET_DATA"), "cache": str(cache_folder("").resolve()),
    }  # fmt: skip


def _devices() -> list[str]:
    found = ["cpu", "numba"] if importlib.util.find_spec("numba") else ["cpu"]
    return [*found, "cuda"] if probe().available else found


def describe(path: Path) -> dict[str, Any]:
    """Architecture, parameters, memory of a training step, and results of a run folder or model file."""
    from .runs.automatic import PLAIN
    from .runs.folder import RunFolder, open_model
    from .tabular import TabularPreprocessing

    model, folder = open_model(path)
    facts: dict[str, Any] = {
        "path": str(path), "sizes": list(model.sizes), "layers": [layer.label for layer in model.layers],
        "parameters": model.n_parameters, "n_models": model.n_models, "dtype": model.dtype,
        "task": model.task, "loss": model.loss, "classes": model.classes and list(model.classes),
        "sample_shape": model.preprocessing and list(model.preprocessing.sample_shape),
    }  # fmt: skip
    if model.tabular is not None:
        facts["columns"] = TabularPreprocessing.from_metadata(model.tabular).describe()
    if isinstance(folder, RunFolder):
        config = folder.config()
        facts["training_step_bytes"] = step_bytes(
            list(model.sizes),
            config.batch_size or PLAIN["batch_size"],
            len(config.get_optimizer().state),
            model.dtype,
            model.n_models or 1,
        )
        facts["epochs_done"] = len(folder.metrics())
        if result := folder.result():
            facts["result"] = result
    return facts


def as_text(facts: dict[str, Any], indent: str = "") -> str:
    """Lay facts out for people."""
    lines = []
    for key, value in facts.items():
        label = key.replace("_", " ")
        if key == "columns":
            from .tabular.features import rows_text

            lines += [f"{indent}{label}", *(f"{indent}  {line}" for line in rows_text(value))]
            continue
        if isinstance(value, dict):
            lines += [f"{indent}{label}", as_text(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{indent}{label}", *(as_text(v, indent + "  ") for v in value)]
        elif key.endswith("_bytes") and value is not None:
            lines.append(f"{indent}{label.removesuffix(' bytes'):22} {value / 2**20:,.1f} MiB")
        elif value is not None:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{label:22} {shown}")
    return "\n".join(lines)
