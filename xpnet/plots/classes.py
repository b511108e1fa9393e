"""Which classes are taken for which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .canvas import FONT, SMALL, StrPath, check_path, finish, new_figure, numbers, plain, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUMBERS_UP_TO = 30  # classes; the cells of larger confusion matrices have no room for counts


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
    check_path(path)
    counts = numbers("matrix", matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise DataError(f"the confusion matrix has shape {counts.shape}, expected (C, C)")
    n = len(counts)
    if len(classes) != n:
        raise DataError(f"{len(classes)} class names for a confusion matrix of {n} classes")
    if counts.min() < 0:
        raise DataError("the confusion matrix has negative entries, expected counts")
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)

    figure = new_figure(6.0)
    from matplotlib.colors import PowerNorm

    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0.0, 1.0), interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
    bar.ax.set_yticklabels(["0", "1", "5", "10", "25", "50", "75", "100"], fontsize=SMALL)
    bar.set_label("share of the true class (%)", fontsize=FONT)
    names = [short(name, 16) for name in classes]
    every = math.ceil(n / 40)
    size = max(min(FONT, 380 / n), 5.5)
    shown = range(0, n, every)
    upright = max(map(len, names)) * size * 0.6 > 330 / n  # points per name, points per cell
    labels = [names[i] for i in shown]
    axes.set_xticks(shown, labels, fontsize=size, rotation=90 if upright else 0)
    axes.set_yticks(shown, labels, fontsize=size)
    plain(*axes.get_xticklabels(), *axes.get_yticklabels())
    axes.set_xlabel("predicted class", fontsize=FONT)
    axes.set_ylabel("true class", fontsize=FONT)
    if n <= NUMBERS_UP_TO:
        _annotate_cells(axes, counts, share)
    axes.set_title(_accuracy_title(counts), fontsize=FONT + 1)
    return finish(figure, path)


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
