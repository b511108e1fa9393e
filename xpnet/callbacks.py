"""What happens around training: the base class for your own callbacks, and the ones xpnet brings.

A callback sees the `Trainer` and may read everything; to end training early it calls
``trainer.stop(reason)``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from .errors import unknown_name
from .training.history import Record

if TYPE_CHECKING:
    from .training.trainer import Trainer


#: The methods of a callback that training calls.
_HOOKS = ("on_train_start", "on_step_end", "on_evaluate", "on_epoch_end", "on_train_end")


class Callback:
    """Base class: override what you need.

    Examples
    --------
    >>> class StopAt(Callback):
    ...     def on_epoch_end(self, trainer, record):
    ...         if record["train_loss"] < 0.1:
    ...             trainer.stop("good enough")
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a method that looks like a hook and is none: it would never be called."""
        super().__init_subclass__(**options)
        for name in vars(cls):
            if name.startswith("on_") and name not in _HOOKS:
                raise unknown_name(f"hook of the callback {cls.__name__},", name, _HOOKS)

    #: Whether `on_step_end` has to see every single step; where not, a device may do several between two calls.
    each_step: bool = True

    def on_train_start(self, trainer: Trainer) -> None:
        """Before the first step of a run, also of a resumed one."""

    def on_step_end(self, trainer: Trainer) -> None:
        """After each update; keep it quick, and do not read the device."""

    def on_evaluate(self, trainer: Trainer, record: Record) -> None:
        """Before an epoch is judged: add to its `record` what `monitor` of `fit` is to look at."""

    def on_epoch_end(self, trainer: Trainer, record: Record) -> None:
        """After each epoch; `record` is this epoch's entry of the history and may be added to."""

    def on_train_end(self, trainer: Trainer) -> None:
        """After the last step, also when training stopped early, was interrupted or diverged."""


class EpochTable(Callback):
    """Print one line per epoch, ``*`` marking the best so far; on a terminal also a progress bar.

    Parameters
    ----------
    stream : text stream, optional
        Where to; standard output where omitted, looked up when training starts.

    Examples
    --------
    >>> import io, xpnet
    >>> out = io.StringIO()
    >>> history = xpnet.fit(xpnet.MLP([1, 2]), ([[0.0], [1.0]], [0, 1]), epochs=2, callbacks=[EpochTable(out)])
    >>> out.getvalue().splitlines()[0].split()[:3]
    ['epoch', 'train', 'loss']
    """

    _COLUMNS = (
        ("epoch", 5, "d"), ("train_loss", 10, ".4f"), ("train_accuracy", 9, ".2%"),
        ("valid_loss", 10, ".4f"), ("valid_accuracy", 9, ".2%"), ("lr", 9, ".2e"), ("seconds", 7, ".2f"),
        ("samples_per_second", 9, ".0f"),
    )  # fmt: skip
    _TITLES: ClassVar[dict[str, str]] = {
        "train_loss": "train loss", "train_accuracy": "train acc", "valid_loss": "valid loss",
        "valid_accuracy": "valid acc", "samples_per_second": "samples/s",
    }  # fmt: skip

    each_step = False  # a bar may jump

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream
        self._header_done = False
        self._bar: Any = None
        self._task: Any = None

    def on_train_start(self, trainer: Trainer) -> None:
        self._out = self._stream or sys.stdout
        self._header_done = False
        if self._out.isatty():
            self._bar = _progress_bar(self._out)
            self._bar.start()
            self._task = self._bar.add_task("epoch", total=trainer.epochs * trainer.steps_per_epoch)

    def on_step_end(self, trainer: Trainer) -> None:
        if self._bar is not None:
            done = trainer.epoch * trainer.steps_per_epoch + trainer.batch
            self._bar.update(self._task, completed=done, description=f"epoch {trainer.epoch + 1}")

    def on_epoch_end(self, trainer: Trainer, record: Record) -> None:
        shown = [c for c in self._COLUMNS if record.get(c[0]) is not None]
        if not self._header_done:
            self._print("  ".join(self._TITLES.get(name, name).rjust(width) for name, width, _ in shown))
            self._header_done = True
        cells = [_cell(record[name], form).rjust(width) for name, width, form in shown]
        star = " *" if trainer.best_epoch == record["epoch"] else ""
        self._print("  ".join(cells) + star)

    def on_train_end(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _print(self, line: str) -> None:
        if self._bar is not None:
            # soft_wrap: a narrow terminal breaks lines itself, without moving words
            self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            print(line, file=self._out, flush=True)


def _cell(value: Any, form: str) -> str:
    if isinstance(value, list):  # a population: the mean over its members
        value = sum(value) / len(value)
    return format(value, form)


def _progress_bar(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(file=stream), transient=True)


class LayerStatistics(Callback):
    """Add "layers" to each epoch's record: norms, dead and saturated units per layer (`xpnet.diagnostics`).

    Parameters
    ----------
    examples : int, default 512
        How many training examples to look at.

    Examples
    --------
    >>> import xpnet
    >>> history = xpnet.fit(xpnet.MLP([1, 3, 2]), ([[0.0], [1.0]], [0, 1]), callbacks=[LayerStatistics()])
    >>> [layer["layer"] for layer in history[-1]["layers"]]
    ['0: dense 1->3 relu', '1: dense 3->2 identity']
    """

    def __init__(self, examples: int = 512):
        self._n = examples

    def on_epoch_end(self, trainer: Trainer, record: Record) -> None:
        from .diagnostics import layer_statistics

        rows = trainer.order[: min(self._n, len(trainer.order))]
        record["layers"] = layer_statistics(trainer.step, rows)
