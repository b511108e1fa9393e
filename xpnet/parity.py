"""Two or more devices side by side: the same training on each, and how far they come apart.

Weights, order of examples and random masks are functions of the seed, whatever the device, so all differences are those
of rounding: sums taken in another order, products of another precision, exponentials of another library. They start
at the last bit and grow with the number of updates, faster where training is chaotic (high rates, many layers).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .backend import Backend, get_backend
from .callbacks import Callback
from .data import Dataset
from .errors import ConfigError
from .runs.automatic import resolve
from .runs.building import build_model, build_trainer
from .runs.config import TrainConfig
from .runs.data import load_run_data, split
from .train import Trainer
from .training.history import Record
from .training.judge import host_views

#: Rows of the training set that are predicted where there is no validation set.
_ROWS = 1000
_PAUSE = "end of the epoch"


def compare_devices(
    config: TrainConfig, devices: Sequence[str], *, data: Dataset | None = None,
    on_record: Callable[[Record], None] | None = None,
) -> list[Record]:  # fmt: skip
    """Train the network that `config` describes on each device, epoch by epoch, and compare.

    Parameters
    ----------
    config : TrainConfig
        Its `device` does not count.
    devices : sequence of str
        Two or more of the names that `get_backend` takes, and ``"reference"`` for plain Array-API calls on NumPy;
        with ``@`` and a precision for one of its own, such as ``"cuda@bf16"``. The others are compared with the first.
    data : Dataset, optional
        Loaded as the settings say where omitted.
    on_record : callable, optional
        Called with each record as soon as it is known.

    Returns
    -------
    list of dict
        As `compare` returns them.

    Raises
    ------
    ConfigError
        Fewer than two devices, one of them twice, or a setting that cannot be.
    DeviceError
        One of them cannot be used.

    Examples
    --------
    >>> config = TrainConfig(hidden=[8], epochs=1, precision="float64")
    >>> first, last = compare_devices(config, ["cpu", "reference"])
    >>> first["identical"], last["agreement"], last["weights_relative"] < 1e-12
    (True, 1.0, True)
    """
    names = [name.strip() for name in devices]
    if len(names) < 2 or "" in names or len(set(names)) < len(names):
        raise ConfigError(
            f"name two or more different devices, such as cpu,cuda; found {','.join(devices)!r}"
        )
    backends = {name: _backend(name, config) for name in names}
    data = data or load_run_data(config)
    config = resolve(config, data)
    training, validation = split(data, config)
    trainers = {}
    for name, be in backends.items():
        trainers[name] = build_trainer(config, build_model(config, data, be), data.task, training, validation)
    x = training[0][:_ROWS] if validation is None else validation[0]
    return compare(trainers, x, on_record=on_record)


def _backend(name: str, config: TrainConfig) -> Backend:
    device, at, precision = name.partition("@")
    if device == "reference":
        from .backend.reference import ReferenceBackend

        be: Backend = ReferenceBackend()
        if precision or config.precision in ("tf32", "bf16"):
            raise ConfigError(f"device {name!r}: the reference computes in the dtype of the model")
        be.captures = config.capture
        return be
    autotune = config.autotune and device.startswith("cuda")  # a comparison has devices with nothing to tune
    return get_backend(
        device, precision=precision if at else config.precision, capture=config.capture, autotune=autotune
    )


def compare(
    trainers: Mapping[str, Trainer], x: Any, *, on_record: Callable[[Record], None] | None = None
) -> list[Record]:
    """Run trainers in step, one epoch each in turn, and compare every other one with the first.

    Parameters
    ----------
    trainers : mapping of str to Trainer
        Made alike, on different devices. Their models end with the latest weights, not the best.
    x : (N, ...) array
        Raw samples to predict after each epoch.
    on_record : callable, optional
        Called with each record as soon as it is known.

    Returns
    -------
    list of dict
        One for each epoch (0 is the start) and each device but the first: "epoch", "device", "base";
        "weights_max_abs", the largest difference of two weights; "weights_relative", the norm of the difference by
        the norm, for the tensor where it is largest; "loss", that of the base, "loss_difference" and
        "valid_loss_difference", absolute (None where there is none); "agreement", the share of equal predicted
        classes (None for a regression); "outputs_max_abs", the largest difference of two outputs; "identical",
        whether all weights are equal to the bit; "seconds" and "base_seconds". When training ends for one, it ends for
        all.

    Raises
    ------
    ConfigError
        The trainers are not of the same network, or fewer than two.
    """
    if len(trainers) < 2:
        raise ConfigError("a comparison needs two trainers or more")
    layouts = {str([(s.name, s.shape) for s in t.model.layout.specs]) for t in trainers.values()}
    if len(layouts) > 1 or len({t.epochs for t in trainers.values()}) > 1:
        raise ConfigError("the trainers differ in their networks or their epochs")
    base = next(iter(trainers))
    pause = _Pause()
    for trainer in trainers.values():
        trainer.judge.keeps_best = False
        trainer.callbacks.append(pause)
    records: list[Record] = []

    def note() -> None:
        first = _Look(trainers[base], x)
        for name in list(trainers)[1:]:
            records.append({"device": name, "base": base} | first.difference(_Look(trainers[name], x)))
            if on_record is not None:
                on_record(records[-1])

    try:
        note()
        running = all(t.epoch < t.epochs for t in trainers.values())
        while running:
            for trainer in trainers.values():
                trainer.run()
            note()
            running = all(t.history.stopped == _PAUSE and t.epoch < t.epochs for t in trainers.values())
            running = running and not any(t.judge.exhausted for t in trainers.values())
    finally:
        for trainer in trainers.values():
            trainer.callbacks.remove(pause)
    return records


class _Pause(Callback):
    """Ends a run after one epoch; the next one goes on."""

    def on_epoch_end(self, trainer: Trainer, record: Record) -> None:
        trainer.stop(_PAUSE)


class _Look:
    """What a trainer has come to."""

    def __init__(self, trainer: Trainer, x: Any):
        self.epoch, model = trainer.epoch, trainer.model
        self.last = trainer.history[-1] if trainer.history else {}
        self.weights = {k: np.array(v) for k, v in host_views(model.layout, trainer.latest_weights()).items()}
        self.outputs = np.asarray(model.outputs(x), dtype=np.float64)
        self.classes = None if trainer.task == "regression" else model.predict(x)

    def difference(self, other: _Look) -> Record:
        pairs = [
            (self.weights[k].astype(np.float64), other.weights[k].astype(np.float64)) for k in self.weights
        ]
        agreement = None
        if self.classes is not None and other.classes is not None:
            agreement = float(np.mean(self.classes == other.classes))
        return {
            "epoch": self.epoch,
            "weights_max_abs": max(float(np.abs(a - b).max(initial=0.0)) for a, b in pairs),
            "weights_relative": max(_relative(a, b) for a, b in pairs),
            "loss": _mean(self.last.get("train_loss")),
            "loss_difference": _distance(self.last.get("train_loss"), other.last.get("train_loss")),
            "valid_loss_difference": _distance(self.last.get("valid_loss"), other.last.get("valid_loss")),
            "agreement": agreement,
            "outputs_max_abs": float(np.abs(self.outputs - other.outputs).max(initial=0.0)),
            "identical": all(np.array_equal(self.weights[k], other.weights[k]) for k in self.weights),
            "seconds": other.last.get("seconds"), "base_seconds": self.last.get("seconds"),
        }  # fmt: skip


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    distance, length = float(np.linalg.norm(a - b)), float(np.linalg.norm(a))
    return distance / length if length else distance


def _mean(value: Any) -> float | None:
    return None if value is None else float(np.mean(value))


def _distance(a: Any, b: Any) -> float | None:
    return None if a is None or b is None else float(np.max(np.abs(np.asarray(a) - np.asarray(b))))


_COLUMNS = (
    ("epoch", "epoch", 5, "d"), ("device", "device", 12, ""), ("weights_max_abs", "weights abs", 11, ".2e"),
    ("weights_relative", "relative", 9, ".2e"), ("loss", "loss", 9, ".5f"),
    ("loss_difference", "difference", 10, ".2e"), ("valid_loss_difference", "in valid", 9, ".2e"),
    ("outputs_max_abs", "outputs", 9, ".2e"), ("agreement", "agreement", 9, ".2%"),
)  # fmt: skip


def header() -> str:
    """The heading of the table whose lines `line` gives."""
    return "  ".join(title.rjust(width) for _, title, width, _ in _COLUMNS)


def line(record: Record) -> str:
    """A record as a line of a table."""
    cells = (
        ("-" if record[key] is None else format(record[key], form)).rjust(width)
        for key, _, width, form in _COLUMNS
    )
    return "  ".join(cells) + ("  every bit equal" if record["identical"] else "")
