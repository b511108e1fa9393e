"""Saving a training run and continuing it bit for bit.

The order of examples and the random masks are functions of (seed, epoch) and (seed, step), so the state is
weights, moments, a few counters and what the judge remembers; and what must be the same in the run that goes on.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import FileFormatError
from .examples import RowSource
from .judge import host_views

if TYPE_CHECKING:
    from .train import Trainer


def fingerprint(x: Any, y: Any) -> dict[str, Any]:
    """Enough to notice that a run is resumed on other data."""
    y = np.ascontiguousarray(y)
    if isinstance(x, RowSource):
        return {"shape": list(x.shape), "dtype": "rows", "crc32": x.checksum() ^ zlib.crc32(y)}
    x = np.ascontiguousarray(x)
    return {"shape": list(x.shape), "dtype": str(x.dtype), "crc32": zlib.crc32(x) ^ zlib.crc32(y)}


def _settings(trainer: Trainer) -> dict[str, Any]:
    """What decides, beside the counters, how a run goes on."""
    model = trainer.model
    return {
        "architecture": model.architecture, "dtype": model.dtype, "n_models": model.n_models,
        "seeds": list(model.seeds), "loss": trainer.loss.name, "task": trainer.task,
        "optimizer": {"name": trainer.optimizer.name, **asdict(trainer.optimizer)},
        "data": trainer.fingerprint, "batch_size": trainer.batch_size, "seed": trainer.seed,
    }  # fmt: skip


def state(trainer: Trainer) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return everything needed to continue, as host tensors and JSON-serialisable metadata."""
    be, layout, step = trainer.model.be, trainer.model.layout, trainer.step
    flat = {"weights": trainer.latest_weights()}
    flat |= {name: be.to_numpy(moment) for name, moment in step.update.moments.items()}
    tensors = {
        f"{kind}.{k}": v.copy()
        for kind, values in flat.items()
        for k, v in host_views(layout, values).items()
    }
    tensors["totals"] = step.totals()
    counters = {
        "epoch": trainer.epoch, "batch": trainer.batch, "n_updates": step.n_updates,
        "multiplier": np.asarray(step.multiplier).tolist(), "elapsed": trainer.elapsed,
    }  # fmt: skip
    judged, memory = trainer.judge.state()
    return tensors | judged, _settings(trainer) | counters | memory | {"history": list(trainer.history)}


def load_state(trainer: Trainer, tensors: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
    """Continue `trainer` from what `state` returned.

    Raises
    ------
    FileFormatError
        It belongs to other settings or another data set; the message names the difference.
    """
    _check_same_run(trainer, metadata)
    model, step, be = trainer.model, trainer.step, trainer.model.be
    model.set_weights({k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")})
    for moment, flat in step.update.moments.items():
        values = np.array(be.to_numpy(flat))
        for name, view in host_views(model.layout, values).items():
            view[...] = tensors[f"{moment}.{name}"]
        flat[...] = be.asarray(values)
    step.set_totals(tensors["totals"])
    step.n_updates = metadata["n_updates"]
    multiplier: Any = metadata["multiplier"]
    multiplier = np.asarray(multiplier) if isinstance(multiplier, list) else multiplier
    step.multiplier = multiplier
    trainer.epoch, trainer.batch, trainer.elapsed = metadata["epoch"], metadata["batch"], metadata["elapsed"]
    trainer.judge.load_state(tensors, metadata, np.asarray(be.to_numpy(model.weights)))
    trainer.history = type(trainer.history)(metadata["history"])


def _check_same_run(trainer: Trainer, metadata: dict[str, Any]) -> None:
    _, mine = state(trainer)
    for key in mine:
        if key not in metadata:
            raise FileFormatError(f"the checkpoint has no {key!r}: it is not the state of a training run")
    for key, value in _settings(trainer).items():
        if _normal(metadata[key]) != _normal(value):
            raise FileFormatError(
                f"cannot continue: the {key} of the checkpoint is {metadata[key]!r}, but this run has "
                f"{value!r}. Resume with the settings and data of the first run."
            )


def _normal(value: Any) -> Any:
    """What JSON makes of a value: tuples become lists, numbers of NumPy plain ones."""
    if isinstance(value, Mapping):
        return {k: _normal(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_normal(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value
