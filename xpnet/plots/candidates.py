"""The figure of a sweep: scores of its candidates against each setting that varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .canvas import FONT, SMALL, StrPath, check_path, finish, new_figure, plain, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["sweep_scores"]

_POINT, _BEST, _SPREAD = "#0072B2", "#D55E00", "#AAAAAA"
_RATIO = 9.0  # numbers that span more than this are drawn on a logarithmic axis
_COLUMNS = 2


def sweep_scores(
    rows: Sequence[Mapping[str, Any]], varied: Sequence[str], monitor: str, path: StrPath | None = None
) -> Figure:
    """Draw the mean score of each candidate against each setting that varies, with its spread; the best is marked.

    Parameters
    ----------
    rows : sequence of mapping
        One per candidate from the best to the worst: the settings, "mean" and "std"; a mean of None is left out.
    varied : sequence of str
        The settings, one panel each.
    monitor : str
        What the scores are, such as "valid_accuracy".
    path : path-like, optional
        PNG file to write.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    DataError
        No candidate has a score, or nothing varies.
    ConfigError
        `path` does not end in ".png".
    XpnetError
        matplotlib is not installed, or the file cannot be written.

    Examples
    --------
    >>> rows = [{"lr": 0.01, "mean": 0.9, "std": 0.1}, {"lr": 0.1, "mean": 0.8, "std": None}]
    >>> sweep_scores(rows, ["lr"], "valid_accuracy").axes[0].get_xlabel()
    'lr'
    """
    check_path(path)
    drawn = [row for row in rows if row["mean"] is not None]
    if not drawn or not varied:
        raise DataError(
            "no candidate has a score to draw" if varied else "nothing varies, so there is no figure"
        )
    lines = -(-len(varied) // _COLUMNS)
    figure = new_figure(0.6 + 2.7 * lines)
    panels = figure.subplots(lines, min(_COLUMNS, len(varied)), squeeze=False, sharey=True)
    for axes, name in zip(panels.flat, varied, strict=False):
        _panel(axes, [row.get(name) for row in drawn], drawn, name)
    for axes in list(panels.flat)[len(varied) :]:
        axes.set_visible(False)
    for line in panels:
        line[0].set_ylabel(monitor.replace("_", " "), fontsize=FONT)
    left_out = len(rows) - len(drawn)
    note = f", {left_out} failed" if left_out else ""
    plain(figure.suptitle(f"{len(rows)} candidates{note}; best {drawn[0]['mean']:.6g}", fontsize=FONT + 1))
    return finish(figure, path)


def _panel(axes: Axes, values: list[Any], rows: Sequence[Mapping[str, Any]], name: str) -> None:
    mean = np.array([row["mean"] for row in rows], dtype=float)
    std = np.array([row["std"] or 0.0 for row in rows], dtype=float)
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if numbers:
        x = np.array(values, dtype=float)
        positive = x[x > 0]
        if len(positive) and (x >= 0).all() and positive.max() > _RATIO * positive.min():
            # zero has its place left of the smallest number
            axes.set_xscale(
                "symlog" if (x == 0).any() else "log",
                **({"linthresh": positive.min()} if (x == 0).any() else {}),
            )
    else:
        names = list(dict.fromkeys(_words(v) for v in values))
        x = np.array([names.index(_words(v)) for v in values], dtype=float)
        axes.set_xticks(range(len(names)), [short(n, 14) for n in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
    axes.errorbar(x, mean, std, fmt="none", ecolor=_SPREAD, elinewidth=0.8, capsize=2.0)
    axes.scatter(x, mean, s=22.0, color=_POINT, alpha=0.7, linewidths=0, zorder=3)
    axes.scatter(x[:1], mean[:1], s=70.0, marker="*", color=_BEST, zorder=4)
    axes.set_xlabel(name, fontsize=FONT)
    axes.tick_params(labelsize=SMALL)
    axes.grid(True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _words(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
