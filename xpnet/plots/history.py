"""Loss and accuracy over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ..losses import Loss, get_loss
from .canvas import BLUE, FONT, GREY, SMALL, VERMILLION, StrPath, check_path, finish, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Masked = np.ma.MaskedArray[Any, Any]

_MARKERS_UP_TO = 40  # epochs


def curves(
    history: Sequence[Mapping[str, Any]], path: StrPath | None = None, *, loss: str | Loss | None = None,
    best_epoch: int | None = None,
) -> Figure:  # fmt: skip
    """Draw loss and accuracy over the epochs, with the best validation epoch marked.

    The loss is drawn on a logarithmic scale where it spans more than two decades. Without any accuracy (a
    regression) there is one panel. A population is drawn as one thin line per member and their mean; members
    that are not finite are left out of the mean, and a title says so.

    Parameters
    ----------
    history : sequence of mapping
        One record per epoch, as `fit` returns or ``metrics.jsonl`` holds: epoch, train_loss and, where known,
        train_accuracy, valid_loss, valid_accuracy (shares from 0 to 1); numbers, or M numbers for a
        population.
    path : path-like, optional
        PNG file to write.
    loss : str or Loss, optional
        The loss it was trained with; cross-entropies are in nats.
    best_epoch : int, optional
        The epoch to mark. Otherwise ``history.best_epoch``, or the epoch with the highest validation accuracy
        (the lower loss decides between equal ones), or without accuracies with the lowest validation loss.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    DataError
        No record, a record without epoch, or records that disagree about the number of members.
    ConfigError
        `path` does not end in ".png", or an unknown loss.
    XpnetError
        matplotlib is not installed, or the file cannot be written.

    Examples
    --------
    >>> figure = curves([{"epoch": 1, "train_loss": 0.7}, {"epoch": 2, "train_loss": 0.4}], loss="bce")
    >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    ('epoch', 'loss (nats)')
    """
    check_path(path)
    in_nats = loss is not None and get_loss(loss).name.endswith("cross_entropy")
    epochs = _epochs(history)
    series = {
        f"{part}_{what}": _series(history, f"{part}_{what}")
        for what in ("loss", "accuracy")
        for part in ("train", "valid")
    }
    widths = {values.shape[1] for values in series.values() if values is not None}
    if len(widths) > 1:
        raise DataError(f"the history mixes populations of {' and '.join(map(str, sorted(widths)))} members")
    if not widths:
        raise DataError("the history has no loss and no accuracy; expected records with train_loss")
    members = widths.pop()
    known = {key.partition("_")[2] for key, values in series.items() if values is not None}
    panels = [what for what in ("loss", "accuracy") if what in known]
    best = best_epoch
    if best is None and members == 1:  # for a population, history.best_epoch is that of the first member
        best = getattr(history, "best_epoch", None)
    if best is None:
        best = _best_epoch(epochs, series)

    figure = new_figure(3.0 if members == 1 else 3.15)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, what in zip(grid, panels, strict=True):
        factor = 100.0 if what == "accuracy" else 1.0
        drawn = []
        for part, colour, style in (("train", BLUE, "--"), ("valid", VERMILLION, "-")):
            values = series[f"{part}_{what}"]
            if values is not None:
                drawn.append(factor * values)
                name = "training" if part == "train" else "validation"
                _draw_series(axes, epochs, factor * values, name, colour, style)
        _mark_best(axes, best, epochs, series[f"valid_{what}"], factor)
        _epoch_axis(axes, epochs)
        if what == "loss":
            _loss_axis(axes, drawn, "loss (nats)" if in_nats else "loss")
        else:
            _accuracy_axis(axes, drawn)
    handles: dict[str, Any] = {}
    for axes in grid:
        for line in axes.get_lines():
            if not str(line.get_label()).startswith("_"):
                handles.setdefault(str(line.get_label()), line)
    if "best" in handles:
        handles[_best_label(best, epochs, series)] = handles.pop("best")
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=3 if members == 1 else 2,
        fontsize=FONT, frameon=False,
    )  # fmt: skip
    return finish(figure, path)


def _epochs(history: Sequence[Mapping[str, Any]]) -> np.ndarray:
    if not len(history):
        raise DataError("the history is empty; train for at least one epoch")
    if any(record.get("epoch") is None for record in history):
        raise DataError("a record of the history has no epoch")
    return np.array([int(record["epoch"]) for record in history])


def _series(history: Sequence[Mapping[str, Any]], key: str) -> Masked | None:
    """Return one quantity as a masked array (E, M), masked where an epoch lacks it; None where all do."""
    found = [record.get(key) for record in history]
    rows = [None if v is None else np.array(v, dtype=np.float64).reshape(-1) for v in found]
    sizes = {len(row) for row in rows if row is not None}
    if not sizes:
        return None
    if len(sizes) > 1:
        raise DataError(f"{key} has {' and '.join(map(str, sorted(sizes)))} members in different epochs")
    (members,) = sizes
    values = np.array([np.zeros(members) if row is None else row for row in rows])
    missing = np.array([row is None for row in rows])
    return np.ma.array(values, mask=np.repeat(missing[:, None], members, axis=1))


def _mean(values: Masked) -> np.ndarray:
    """Mean over the members (E,) of those that are finite; NaN where none is."""
    data = np.ma.getdata(values)
    finite = np.isfinite(data) & ~np.ma.getmaskarray(values)
    count = finite.sum(axis=1)
    total = np.where(finite, data, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(data), np.nan), where=count > 0)


def _lost(values: Masked) -> np.ndarray:
    """Whether a value is there and not finite (E, M)."""
    return ~np.isfinite(np.ma.getdata(values)) & ~np.ma.getmaskarray(values)


def _best_epoch(epochs: np.ndarray, series: dict[str, Masked | None]) -> int | None:
    loss, accuracy = series["valid_loss"], series["valid_accuracy"]
    losses = np.full(len(epochs), np.nan) if loss is None else _mean(loss)
    first, then = -losses, losses
    if accuracy is not None:
        first = _mean(accuracy)
        if loss is not None:  # an accuracy is worth nothing where the loss is NaN
            first = np.where(np.ma.getmaskarray(loss).all(axis=1) | np.isfinite(losses), first, np.nan)
    usable = np.isfinite(first)
    if not usable.any():
        return None
    order = np.lexsort((np.where(np.isfinite(then), then, np.inf), np.where(usable, -first, np.inf)))
    return int(epochs[order[0]])


def _draw_series(axes: Axes, epochs: np.ndarray, values: Masked, name: str, colour: str, style: str) -> None:
    there = ~np.ma.getmaskarray(values)[:, 0]
    x, y = epochs[there], np.ma.getdata(values)[there]
    y = np.where(np.isfinite(y), y, np.nan)
    few = len(epochs) <= _MARKERS_UP_TO or not np.isfinite(y).all()
    members = y.shape[1]
    if members > 1:
        # one line with gaps between the members: as fast for a thousand as for one
        gap = np.full((1, members), np.nan)
        axes.plot(
            np.tile(np.append(x, x[-1]), members), np.concatenate([y, gap]).T.reshape(-1), color=colour,
            linewidth=0.5, alpha=0.35, marker="." if len(x) == 1 else "", markersize=3, label="_members",
        )  # fmt: skip
        name = f"{name}: mean and {members} members"
        y = _mean(values)[there][:, None]
    axes.plot(
        x, y[:, 0], color=colour, linestyle=style, linewidth=1.6, marker="o" if few else "", markersize=3.5,
        label=name,
    )  # fmt: skip


def _mark_best(
    axes: Axes, best: int | None, epochs: np.ndarray, values: Masked | None, factor: float
) -> None:
    if best is None or best not in epochs:
        return
    axes.axvline(best, color=GREY, linewidth=0.9, linestyle=":", zorder=0)
    if values is not None:
        y = factor * _mean(values)[epochs == best][:1]
        axes.plot(
            [best], y, linestyle="", marker="o", markersize=10, markerfacecolor="none",
            markeredgecolor="black", markeredgewidth=1.2, label="best", zorder=4, clip_on=False,
        )  # fmt: skip


def _best_label(best: int | None, epochs: np.ndarray, series: dict[str, Masked | None]) -> str:
    parts = []
    for key, text in (("valid_loss", "loss {:.4g}"), ("valid_accuracy", "accuracy {:.2%}")):
        values = series[key]
        if values is not None and np.isfinite(value := _mean(values)[epochs == best][0]):
            parts.append(text.format(value).replace("%", " %"))
    return f"best epoch {best}: {', '.join(parts)}"


def _epoch_axis(axes: Axes, epochs: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    first, last = int(epochs.min()), int(epochs.max())
    pad = max(0.04 * (last - first), 0.5 if first == last else 0.2)
    axes.set_xlim(first - min(pad, 0.5), last + pad)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch", fontsize=FONT)
    axes.tick_params(labelsize=FONT)
    axes.grid(True, which="major", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _loss_axis(axes: Axes, drawn: list[Masked], label: str) -> None:
    axes.set_ylabel(label, fontsize=FONT)
    axes.margins(y=0.08)
    there = np.concatenate([values.compressed() for values in drawn])
    finite = there[np.isfinite(there)]
    if finite.size and finite.min() > 0 and finite.max() > 100 * finite.min():
        axes.set_yscale("log")
        axes.tick_params(which="minor", labelsize=SMALL)
    if finite.size == there.size:
        return
    if not finite.size:
        axes.set_yticks([])
    members = drawn[0].shape[1]
    if members > 1:
        lost = np.zeros(members, dtype=bool)
        for values in drawn:
            lost |= _lost(values).any(axis=0)
        note = f"loss not finite for {lost.sum()} of {members} members"
    else:
        bad = np.any([_lost(values)[:, 0] for values in drawn], axis=0)
        note = f"loss not finite in {bad.sum()} of {len(bad)} epoch{'s' if len(bad) > 1 else ''}"
    axes.set_title(note, fontsize=FONT, color="#A00000")


def _accuracy_axis(axes: Axes, drawn: list[Masked]) -> None:
    axes.set_ylabel("accuracy (%)", fontsize=FONT)
    values = np.concatenate([v.compressed() for v in drawn])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 100.0)
    pad = max(0.08 * (high - low), 0.5)
    low = max(low - pad, min(-0.5, low))
    axes.set_ylim(low, min(high + pad, 100 + 0.02 * (100 - low)))
