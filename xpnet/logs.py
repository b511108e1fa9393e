"""Callbacks that keep a log for other programs: a CSV file, or TensorBoard's event files.

Both take every number of the records that training makes (see `xpnet.History`); numbers of a population or of
layers get a column or a chart each. A run that goes on adds to its log.
"""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .callbacks import Callback, Record
from .errors import FileFormatError, FileWriteError, missing_package
from .storage.atomic import write_text_atomic

if TYPE_CHECKING:
    from .training.trainer import Trainer

__all__ = ["CSVLog", "TensorBoard", "make_log"]

LOG, EVENTS = "log.csv", "tensorboard"  # where a run folder has them


def numbers(record: Record) -> Iterator[tuple[str, float | None]]:
    """Yield every number of a record by name; of a list one each, as in ``train_loss/0`` and ``layers/0/dead``.

    Examples
    --------
    >>> dict(numbers({"epoch": 1, "lr": [0.1, 0.2], "layers": [{"layer": "dense", "dead": None}]}))
    {'epoch': 1, 'lr/0': 0.1, 'lr/1': 0.2, 'layers/0/dead': None}
    """
    for name, value in record.items():
        yield from _flat(name, value)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(f"{name}/{key}", part)
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            yield from _flat(f"{name}/{i}", part)
    elif value is None or isinstance(value, (bool, int, float, np.number)):
        yield name, value


class CSVLog(Callback):
    """Write one line per epoch into a CSV file, with a header; each line is on disk when its epoch ends.

    Parameters
    ----------
    path : path
        Folders are made. A new run replaces the file; one that goes on (`Trainer.load_state`, more epochs) keeps the
        lines of the epochs before.

    Raises
    ------
    FileWriteError
        The file cannot be written.
    FileFormatError
        A run goes on, and the file that is there is no log of it.

    Examples
    --------
    >>> import tempfile
    >>> from xpnet import MLP, fit
    >>> folder = tempfile.TemporaryDirectory()
    >>> log = CSVLog(f"{folder.name}/log.csv")
    >>> _ = fit(MLP([2, 1]), (np.eye(2), np.ones((2, 1))), epochs=3, callbacks=[log])
    >>> with open(log.path) as file:
    ...     [row["epoch"] for row in csv.DictReader(file)]
    ['1', '2', '3']
    >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._columns: list[str] = []
        self._rows: list[dict[str, str]] = []

    def on_train_start(self, trainer: Trainer) -> None:
        self._columns, self._rows = [], []
        if trainer.epoch and self.path.is_file():
            self._read(trainer.epoch)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._rows or self.path.exists():
            self._write()

    def _read(self, epochs: int) -> None:
        with open(self.path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            self._columns = list(reader.fieldnames or ())
            if self._columns and "epoch" not in self._columns:
                raise FileFormatError(
                    f"{self.path} has no column epoch, so it is no log that can be gone on with; use another name"
                )
            for row in reader:
                # a line that a crash cut off has no line end and too few cells, and its epoch comes again
                if row["epoch"].isdigit() and int(row["epoch"]) <= epochs and None not in row.values():
                    self._rows.append(row)

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
        if self._columns:
            writer.writeheader()
        writer.writerows(self._rows)
        write_text_atomic(self.path, text.getvalue())

    def on_epoch_end(self, trainer: Trainer, record: Record) -> None:
        row = {name: "" if value is None else repr(_plain(value)) for name, value in numbers(record)}
        self._rows.append(row)
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            self._write()
            return
        text = io.StringIO()
        csv.DictWriter(text, self._columns, restval="", lineterminator="\n").writerow(row)
        try:
            with open(self.path, "a", encoding="utf-8", newline="") as file:
                file.write(text.getvalue())
        except OSError as error:
            raise FileWriteError(
                error.errno,
                f"could not write {self.path}: {error.strerror}; the epochs before this one are in it",
            ) from error


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


#: What TensorBoard draws into one chart group; other numbers keep their names.
_TAGS = {
    "train_loss": "loss/train", "valid_loss": "loss/valid", "train_accuracy": "accuracy/train",
    "valid_accuracy": "accuracy/valid", "valid_score": "score/valid", "lr": "learning_rate",
}  # fmt: skip


class TensorBoard(Callback):
    """Write TensorBoard's event files: one point per epoch in each chart. Needs the package `tensorboard`.

    Parameters
    ----------
    folder : path
        A folder of its own for each run, as TensorBoard wants it: ``tensorboard --logdir runs`` then compares them.
    histograms : bool, default False
        Also the distribution of each parameter after each epoch.

    Raises
    ------
    MissingPackageError
        The package is not installed: said when training starts.

    Examples
    --------
    >>> log = TensorBoard("runs/first/tensorboard", histograms=True)  # nothing is written before training starts
    >>> log.folder.name
    'tensorboard'
    """

    def __init__(self, folder: str | os.PathLike[str], *, histograms: bool = False):
        self.folder, self.histograms = Path(folder), histograms
        self._writer: Any = None

    def on_train_start(self, trainer: Trainer) -> None:
        _protocol()
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        try:
            self._writer = EventFileWriter(str(self.folder))
        except OSError as error:
            raise FileWriteError(
                error.errno,
                f"cannot write event files into {self.folder}: {error.strerror}; use another folder",
            ) from error
        if trainer.epoch:  # points after this epoch, of a run that was cut off, are taken back
            event, session, _ = _protocol()
            again = session(status=session.START)
            self._writer.add_event(event(step=trainer.epoch + 1, wall_time=time.time(), session_log=again))

    def on_epoch_end(self, trainer: Trainer, record: Record) -> None:
        event, _, summary = _protocol()
        values = []
        for name, value in numbers(record):
            if name in ("epoch", "step") or value is None or not math.isfinite(value):
                continue
            head, _, rest = name.partition("/")
            tag = _TAGS.get(head, head) + (f"/{rest}" if rest else "")
            values.append(summary.Value(tag=tag, simple_value=float(value)))
        made = summary(value=values)
        if self.histograms:
            from tensorboard.plugins.histogram.summary_v2 import histogram_pb

            for name, array in trainer.model.get_weights().items():
                made.MergeFrom(histogram_pb(f"parameters/{name}", array))
        self._writer.add_event(event(step=int(record["epoch"]), wall_time=time.time(), summary=made))
        self._writer.flush()

    def on_train_end(self, trainer: Trainer) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _protocol() -> tuple[Any, Any, Any]:
    """What event files are made of: Event, SessionLog, Summary."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
    except ImportError as error:
        raise missing_package(
            "TensorBoard logs need the package tensorboard", "tensorboard", error
        ) from error
    return Event, SessionLog, Summary


def make_log(name: str, folder: Path) -> Callback:
    """Return the log called "csv" or "tensorboard" that a run keeps in its folder."""
    return CSVLog(folder / LOG) if name == "csv" else TensorBoard(folder / EVENTS)
