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

from ..errors import FileFormatError
from ..interchange import is_foreign, to_host
from .examples import RowSource
from .judge import host_views

if TYPE_CHECKING:
    from .trainer import Trainer


#: How a setting is called in messages, where not by its name.
_WORDS = {
    "frozen": "freeze",
    "validation": "validation data",
    "sample_weight": "sample_weight (times class_weight)",
}


def fingerprint(x: Any, *more: Any) -> dict[str, Any]:
    """Enough to notice that a run is resumed on other data: one CRC over `x` and what belongs to it, on the host."""
    x, more = to_host(x), tuple(to_host(part) for part in more)
    if isinstance(x, RowSource):
        dtype, crc = "rows", x.checksum() & 0xFFFFFFFF
    else:
        x = np.asarray(x)
        dtype, crc = str(x.dtype), zlib.crc32(np.ascontiguousarray(x).data)
    for part in more:
        if part is not None:
            crc = zlib.crc32(np.ascontiguousarray(part).data, crc)
    return {"shape": list(x.shape), "dtype": dtype, "crc32": crc}


class Fingerprint:
    """`fingerprint` of a data set; where it lies on a device, it comes to the host when first asked for."""

    def __init__(self, *parts: Any):
        self._parts: tuple[Any, ...] = parts
        self._known: dict[str, Any] | None = None
        if not any(is_foreign(part) for part in parts):
            self()

    def __call__(self) -> dict[str, Any]:
        """Return the fingerprint."""
        if self._known is None:
            self._known, self._parts = fingerprint(*self._parts), ()
        return self._known


def _settings(trainer: Trainer) -> dict[str, Any]:
    """What decides, beside the counters, how a run goes on; not the number of epochs, so that it may grow."""
    model, step, examples = trainer.model, trainer.step, trainer.step.examples
    weights = None if examples.weights is None else fingerprint(model.be.to_numpy(examples.weights))
    infogain = step.targets.infogain
    settings = {
        "architecture": model.architecture, "dtype": model.dtype, "n_models": model.n_models,
        "seeds": list(model.seeds), "loss": trainer.loss.name, "task": trainer.task,
        "data": trainer.fingerprint, "validation": trainer.validation_fingerprint, "sample_weight": weights,
        "batch_size": trainer.batch_size, "shuffle": trainer.shuffle, "seed": trainer.seed,
        "optimizer": {"name": trainer.optimizer.name, **asdict(trainer.optimizer)},
        "schedule": {"name": trainer.schedule.name, **asdict(trainer.schedule)},
        **asdict(step.update.regularization),
        "label_smoothing": step.targets.label_smoothing,
        "infogain": None if infogain is None else fingerprint(infogain),
    }  # fmt: skip
    return _normal(settings)


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
    tensors["totals"] = step.tally.totals()
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
    metadata = {"frozen": [], **metadata}  # older states have no word about it
    _check_same_run(trainer, metadata)
    model, step, be = trainer.model, trainer.step, trainer.model.be
    model.put_weights({k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")})
    for moment, flat in step.update.moments.items():
        values = np.array(be.to_numpy(flat))
        for name, view in host_views(model.layout, values).items():
            view[...] = tensors[f"{moment}.{name}"]
        flat[...] = be.asarray(values)
    step.tally.set_totals(tensors["totals"])
    step.n_updates = metadata["n_updates"]
    multiplier: Any = metadata["multiplier"]
    multiplier = np.asarray(multiplier) if isinstance(multiplier, list) else multiplier
    step.multiplier = multiplier
    trainer.epoch, trainer.batch, trainer.elapsed = metadata["epoch"], metadata["batch"], metadata["elapsed"]
    trainer.judge.load_state(tensors, metadata)
    trainer.history = type(trainer.history)(metadata["history"])


def _check_same_run(trainer: Trainer, metadata: dict[str, Any]) -> None:
    _, mine = state(trainer)
    for key in mine:
        if key not in metadata:
            raise FileFormatError(
                f"the checkpoint has no {key!r}: it is not the state of a training run, or an older xpnet "
                "wrote it. Start the run again."
            )
    for key, value in _settings(trainer).items():
        if _normal(metadata[key]) != value:
            raise FileFormatError(
                f"cannot continue: the {_WORDS.get(key, key)} of the checkpoint is {metadata[key]!r}, but "
                f"this run has {value!r}. Resume with the settings and data of the first run."
            )


def _normal(value: Any) -> Any:
    """What JSON makes of a value: tuples become lists, numbers of NumPy plain ones."""
    if isinstance(value, Mapping):
        return {k: _normal(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_normal(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value
