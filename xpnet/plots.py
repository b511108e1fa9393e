"""Figures of a run: curves, confusion matrix, first-layer weights, worst mistakes.

Each function returns a matplotlib Figure that belongs to nobody else (pyplot's global state is never touched)
and, given a path, saves it as a PNG, whole or not at all. Equal input gives equal bytes. Figures are 800
pixels wide; lines have colours of Okabe and Ito (2008), and the colour maps suit colour-blind readers.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .atomic import write_bytes_atomic
from .errors import ConfigError, DataError, XpnetError
from .losses import Loss, get_loss

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    Masked = np.ma.MaskedArray[Any, Any]

__all__ = ["confusion", "curves", "first_layer", "mistakes"]

DPI = 120
WIDTH = 800 / DPI  # inches
FONT = 9.0  # points, 15 pixels
SMALL = 7.5
NUMBERS_UP_TO = 30  # classes; the cells of larger confusion matrices have no room for counts

_BLUE, _VERMILLION, _GREY = "#0072B2", "#D55E00", "#555555"
_MARKERS_UP_TO = 40  # epochs

StrPath = str | os.PathLike[str]


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
    _check_path(path)
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

    figure = _figure(3.0 if members == 1 else 3.15)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, what in zip(grid, panels, strict=True):
        factor = 100.0 if what == "accuracy" else 1.0
        drawn = []
        for part, colour, style in (("train", _BLUE, "--"), ("valid", _VERMILLION, "-")):
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
    return _finish(figure, path)


def confusion(matrix: Any, classes: Sequence[str], path: StrPath | None = None) -> Figure:
    """Draw a confusion matrix: rows are true classes, columns predicted ones.

    The colour is the share of the row, on a square-root scale so that rare mistakes show. Up to 30 classes,
    cells hold their counts (zeros stay empty) as long as the numbers have room.

    Parameters
    ----------
    matrix : (C, C) array_like
        Counts, or sums of weights.
    classes : sequence of str
        C names; long ones are shortened in the middle.
    path : path-like, optional
        PNG file to write.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    DataError
        Not a square matrix of finite numbers >= 0, or another number of names.
    ConfigError
        `path` does not end in ".png".
    XpnetError
        matplotlib is not installed, or the file cannot be written.

    Examples
    --------
    >>> confusion([[8, 2], [1, 9]], ["no", "yes"]).axes[0].get_title()
    'accuracy 85.00 % (17 of 20)'
    """
    _check_path(path)
    counts = _numbers("matrix", matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise DataError(f"the confusion matrix has shape {counts.shape}, expected (C, C)")
    n = len(counts)
    if len(classes) != n:
        raise DataError(f"{len(classes)} class names for a confusion matrix of {n} classes")
    if counts.min() < 0:
        raise DataError("the confusion matrix has negative entries, expected counts")
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)

    figure = _figure(6.0)
    from matplotlib.colors import PowerNorm

    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0.0, 1.0), interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
    bar.ax.set_yticklabels(["0", "1", "5", "10", "25", "50", "75", "100"], fontsize=SMALL)
    bar.set_label("share of the true class (%)", fontsize=FONT)
    names = [_short(name, 16) for name in classes]
    every = math.ceil(n / 40)
    size = max(min(FONT, 380 / n), 5.5)
    shown = range(0, n, every)
    upright = max(map(len, names)) * size * 0.6 > 330 / n  # points per name, points per cell
    labels = [names[i] for i in shown]
    axes.set_xticks(shown, labels, fontsize=size, rotation=90 if upright else 0)
    axes.set_yticks(shown, labels, fontsize=size)
    _plain(*axes.get_xticklabels(), *axes.get_yticklabels())
    axes.set_xlabel("predicted class", fontsize=FONT)
    axes.set_ylabel("true class", fontsize=FONT)
    if n <= NUMBERS_UP_TO:
        _annotate_cells(axes, counts, share)
    axes.set_title(_accuracy_title(counts), fontsize=FONT + 1)
    return _finish(figure, path)


def first_layer(
    weights: Any, sample_shape: Sequence[int], path: StrPath | None = None, max_units: int = 100
) -> Figure:
    """Draw the weights of the first layer as images, one per unit, the largest norm first.

    Blue is negative, white zero, red positive, on one scale for all units. It ends at the largest absolute
    weight shown, or, where few weights are far larger than all others, at the 99.8th percentile; then the
    colour bar has pointed ends.

    Parameters
    ----------
    weights : (O, I) array_like
        For example ``model.get_weights()["layers.0.weight"]``.
    sample_shape : sequence of int
        Shape of one sample, (height, width); axes of length one do not count.
    path : path-like, optional
        PNG file to write.
    max_units : int, default 100
        Draw at most so many units.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    DataError
        Samples that are no grey images, or weights of another shape or not finite.
    ConfigError
        `max_units` < 1, or `path` does not end in ".png".
    XpnetError
        matplotlib is not installed, or the file cannot be written.

    Examples
    --------
    >>> first_layer(np.eye(4), (2, 2), max_units=3).axes[0].get_title()
    'first layer: the 3 of 4 units with the largest norm'
    """
    _check_path(path)
    _check_count("max_units", max_units)
    height, width = _image_shape(sample_shape, "the weights of a unit")
    w = _numbers("weights", weights)
    if w.ndim == 3:
        raise DataError(
            f"the weights have shape {w.shape}, those of a population; draw one member: weights[0]"
        )
    if w.ndim != 2 or w.shape[1] != height * width or not len(w):
        wanted = f"(O, {height * width}) for images of {height} x {width}"
        raise DataError(f"the weights have shape {w.shape}, expected {wanted}")
    norms = np.linalg.norm(w, axis=1)
    order = np.argsort(-norms, kind="stable")[:max_units]
    tiles = w[order].reshape(-1, height, width)
    largest = float(np.abs(tiles).max())
    usual = float(np.quantile(np.abs(tiles), 0.998))
    limit = usual if 0 < 1.5 * usual < largest else largest or 1.0

    n = len(tiles)
    columns = min(n, max(1, math.ceil(math.sqrt(n * height / width))))
    rows = math.ceil(n / columns)
    gap = 0.08
    tile = min((WIDTH - 1.2) / columns, 2.4)  # inches
    per_inch = tile / (1 + gap)
    tall = rows * per_inch * (height / width + gap)
    figure = _figure(max(min(tall, 9.0) + 0.6, 2.0))
    axes = figure.subplots()
    smooth = min(tall, 9.0) / tall * per_inch * DPI < width
    ratio = height / width
    for i, weights_of_unit in enumerate(tiles):
        x, y = (i % columns) * (1 + gap), (i // columns) * (ratio + gap)
        image = axes.imshow(
            weights_of_unit, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=(x, x + 1, y + ratio, y),
            interpolation="antialiased" if smooth else "nearest",
        )  # fmt: skip
    axes.set_xlim(-gap, columns * (1 + gap))
    axes.set_ylim(rows * (ratio + gap), -gap)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor("#DDDDDD")
    bar = figure.colorbar(image, ax=axes, extend="both" if largest > limit else "neither", shrink=0.8)
    bar.set_label("weight", fontsize=FONT)
    bar.ax.tick_params(labelsize=SMALL)
    if n < len(w):
        title = f"first layer: the {n} of {len(w)} units with the largest norm"
    else:
        title = f"first layer: {n} unit{'s, the largest norm first' if n > 1 else ''}"
    axes.set_title(title, fontsize=FONT + 1)
    return _finish(figure, path)


def mistakes(
    samples: Any, truth: Any, predicted: Any, probability: Any, classes: Sequence[str],
    sample_shape: Sequence[int], path: StrPath | None = None, n: int = 25,
) -> Figure:  # fmt: skip
    """Draw the wrong answers given with the most confidence, each with "true 4, said 9 (99.8 %)".

    Parameters
    ----------
    samples : (N, ...) array_like
        Raw samples, (N, I) or (N, *sample_shape).
    truth, predicted : (N,) array_like of int
        Class indices.
    probability : (N,) or (N, C) array_like
        Probability of the predicted class, or of all classes, from 0 to 1.
    classes : sequence of str
        C names; long ones are shortened in the middle.
    sample_shape : sequence of int
        (height, width), or (height, width, 3) for colour; axes of length one do not count.
    path : path-like, optional
        PNG file to write.
    n : int, default 25
        Draw at most so many.

    Returns
    -------
    matplotlib.figure.Figure
        Without mistakes, a figure that says so.

    Raises
    ------
    DataError
        Arrays of different lengths, labels or probabilities out of range, or samples that are no images.
    ConfigError
        `n` < 1, or `path` does not end in ".png".
    XpnetError
        matplotlib is not installed, or the file cannot be written.

    Examples
    --------
    >>> x = np.zeros((2, 4))
    >>> figure = mistakes(x, [0, 1], [0, 0], [0.9, 0.8], ["no", "yes"], (2, 2))
    >>> figure.axes[0].get_title()
    'true yes, said no\\n(80.0 %)'
    """
    _check_path(path)
    _check_count("n", n)
    shape = _image_shape(sample_shape, "mistakes", colour=True)
    x = np.asarray(samples)
    t, p = _labels("truth", truth, len(classes)), _labels("predicted", predicted, len(classes))
    if not len(x) == len(t) == len(p):
        raise DataError(f"{len(x)} samples, {len(t)} true and {len(p)} predicted labels, expected as many")
    if len(x) and x.size != len(x) * math.prod(shape):
        raise DataError(f"samples have shape {x.shape}, which does not fit images of shape {shape}")
    q = _confidence(probability, p, len(classes))
    wrong = np.flatnonzero(t != p)
    if not len(wrong):
        figure = _figure(1.6)
        text = f"no mistakes among {len(x)} samples" if len(x) else "no samples, so no mistakes"
        figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=FONT + 3)
        return _finish(figure, path)
    chosen = wrong[np.argsort(-q[wrong], kind="stable")][:n]
    pictures = _pictures(x[chosen], shape)
    captions = [(_short(classes[t[i]], 13), _short(classes[p[i]], 13), _percent(q[i])) for i in chosen]
    split = max(len(true) + len(said) for true, said, _ in captions) > 7
    lines = 3 if split else 2

    columns = min(len(chosen), 5)
    rows = math.ceil(len(chosen) / columns)
    tile = min((WIDTH - 0.2) / columns - 0.12, 1.6)
    figure = _figure(rows * (min(tile * shape[0] / shape[1], 2.0) + 0.17 * lines) + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(chosen) :]:
        axes.set_axis_off()
    for axes, picture, (true, said, sure) in zip(grid.flat, pictures, captions, strict=False):
        axes.imshow(picture, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        caption = f"true {true},{chr(10) if split else ' '}said {said}\n({sure})"
        _plain(axes.set_title(caption, fontsize=FONT - 0.5, pad=3))
    title = f"{_some(len(chosen), len(wrong))} among {len(x)} samples"
    figure.suptitle(title, fontsize=FONT + 1)
    return _finish(figure, path)


# --- the figure and its file ------------------------------------------------------------------------
def _figure(height: float) -> Figure:
    """Return an empty figure of the common width; `height` in inches."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise XpnetError(
            f'plots need matplotlib, which cannot be imported ({error}); run pip install "xpnet[plots]"'
        ) from error
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _check_path(path: StrPath | None) -> None:
    if path is not None and not os.fspath(path).lower().endswith(".png"):
        raise ConfigError(f"plots are PNG files: expected a name ending in .png, found {os.fspath(path)!r}")


def _finish(figure: Figure, path: StrPath | None) -> Figure:
    if path is not None:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        write_bytes_atomic(path, buffer.getvalue())
    return figure


def _plain(*texts: Text) -> None:
    """Take the text of the user's names literally: a dollar sign starts no formula."""
    for text in texts:
        text.set_parse_math(False)


def _short(name: object, length: int) -> str:
    """Return a name of at most `length` characters on one line, cut in the middle.

    Examples
    --------
    >>> _short("a very long name", 9)
    'a ver…ame'
    """
    text = " ".join(str(name).split())
    if len(text) <= length:
        return text
    tail = (length - 1) * 2 // 5
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"


# --- checks -----------------------------------------------------------------------------------------
def _check_count(name: str, value: object) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} must be a whole number >= 1, found {value!r}")


def _numbers(name: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: expected an array of numbers on the host ({error})") from error
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds numbers that are not finite (NaN or infinity)")
    return array


def _labels(name: str, values: Any, n_classes: int) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iub"):
        raise DataError(f"{name} has shape {array.shape} and type {array.dtype}, expected (N,) class indices")
    array = array.astype(np.int64)
    if array.size and not 0 <= array.min() <= array.max() < n_classes:
        raise DataError(
            f"{name} has labels from {array.min()} to {array.max()}, but there are {n_classes} class names"
        )
    return array


def _confidence(probability: Any, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the probability (N,) of the predicted class."""
    q = _numbers("probability", probability)
    if q.shape == (len(predicted), n_classes):
        q = q[np.arange(len(predicted)), predicted]
    elif q.shape != predicted.shape:
        n = len(predicted)
        raise DataError(f"probability has shape {q.shape}, expected ({n},) or ({n}, {n_classes})")
    if q.size and not -1e-6 <= q.min() <= q.max() <= 1 + 1e-6:
        raise DataError(f"probabilities lie from {q.min():g} to {q.max():g}, expected 0 to 1")
    return q


def _image_shape(sample_shape: Sequence[int], what: str, *, colour: bool = False) -> tuple[int, ...]:
    """Return (height, width), or with `colour` also (height, width, 3), or say why there is no picture."""
    shape = tuple(int(size) for size in sample_shape)
    core = shape if len(shape) == 2 else tuple(size for size in shape if size != 1)
    if len(core) == 2 or (colour and len(core) == 3 and core[2] == 3):
        return core
    why = "each is a list of features, not a picture" if len(core) < 2 else f"each has {len(core)} dimensions"
    wanted = "(height, width) or (height, width, 3)" if colour else "(height, width)"
    raise DataError(
        f"{what} can be drawn only where samples are images, sample_shape {wanted}; here it is {shape}: {why}"
    )


# --- parts of curves --------------------------------------------------------------------------------
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
    axes.axvline(best, color=_GREY, linewidth=0.9, linestyle=":", zorder=0)
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


# --- parts of the others ----------------------------------------------------------------------------
def _annotate_cells(axes: Axes, counts: np.ndarray, share: np.ndarray) -> None:
    n = len(counts)
    texts = [[_count(v) for v in row] for row in counts]
    longest = max(len(text) for row in texts for text in row)
    cell = 330 / n  # points
    size = min(FONT + 1, 0.6 * cell, 0.9 * cell / (0.6 * longest))
    if size < 4.0:
        return
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            if counts[i, j]:
                colour = "white" if share[i, j] > 0.4 else "black"
                axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=size)


def _count(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3g}"


def _accuracy_title(counts: np.ndarray) -> str:
    right, total = np.trace(counts), counts.sum()
    if not total:
        return "no samples"
    return f"accuracy {100 * right / total:.2f} % ({_count(right)} of {_count(total)})"


def _pictures(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bring samples (n, ...) to images from 0 to 1, from the least value of them all to the greatest."""
    values = _numbers("samples", x).reshape(-1, *shape)
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _percent(share: float) -> str:
    """Write a share in percent without calling anything below 1 certain.

    Examples
    --------
    >>> _percent(0.998), _percent(0.99999), _percent(1.0)
    ('99.8 %', '> 99.9 %', '100.0 %')
    """
    return "> 99.9 %" if 0.9995 <= share < 1.0 else f"{100 * share:.1f} %"


def _some(shown: int, wrong: int) -> str:
    if shown < wrong:
        return f"the {shown} most confident of {wrong} mistakes"
    return "the only mistake" if wrong == 1 else f"all {wrong} mistakes, the most confident first,"
