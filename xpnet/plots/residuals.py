"""Figures of a regression: predictions against the truth, and what is left over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ..metrics import regression_scores
from .canvas import FONT, StrPath, check_path, finish, new_figure, numbers, plain, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["regression"]

POINTS_UP_TO = 3000  # samples; more are counted in hexagons

_POINT, _LINE = "#0072B2", "#D55E00"


def regression(truth: Any, predicted: Any, path: StrPath | None = None, *, name: str = "") -> Figure:
    """Draw predicted against true values, and the residuals (predicted minus true) against the predicted values.

    More than 3000 samples are drawn as hexagons whose colour is their number on a logarithmic scale. The title has the
    root mean squared error, the mean absolute error and R2. Several outputs are drawn in one panel.

    Parameters
    ----------
    truth, predicted : (N,) or (N, O) array_like
    path : path-like, optional
        PNG file to write.
    name : str
        What is predicted, for the labels of the axes.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    DataError
        Arrays of different or other shapes, empty, or not finite.
    ConfigError
        `path` does not end in ".png".
    XpnetError
        matplotlib is not installed, or the file cannot be written.

    Examples
    --------
    >>> regression([1.0, 2.0, 3.0], [1.1, 2.0, 2.7], name="price").axes[0].get_xlabel()
    'true price'
    """
    check_path(path)
    t, p = numbers("truth", truth), numbers("predicted", predicted)
    if t.ndim not in (1, 2) or t.size == 0 or len(t) != len(p) or t.size != p.size:
        raise DataError(f"truth has shape {t.shape} and predicted {p.shape}, expected both (N,) or (N, O)")
    t, p = t.reshape(len(t), -1), p.reshape(len(p), -1)
    scores = regression_scores(t, p)
    t, p = t.reshape(-1), p.reshape(-1)

    figure = new_figure(3.9)
    left, right = figure.subplots(1, 2)
    what = short(name, 28) or "value"
    _cloud(left, t, p)
    ends = [min(t.min(), p.min()), max(t.max(), p.max())]
    left.plot(ends, ends, color=_LINE, linewidth=1.2, linestyle="--")
    plain(left.set_xlabel(f"true {what}", fontsize=FONT), left.set_ylabel(f"predicted {what}", fontsize=FONT))
    _cloud(right, p, p - t)
    right.axhline(0.0, color=_LINE, linewidth=1.2, linestyle="--")
    plain(right.set_xlabel(f"predicted {what}", fontsize=FONT))
    right.set_ylabel("residual: predicted minus true", fontsize=FONT)
    for axes in (left, right):
        axes.tick_params(labelsize=FONT)
        axes.tick_params(axis="x", rotation=30)
        axes.grid(True, color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
    r2 = "" if scores["r2"] is None else f", R² {scores['r2']:.4f}"
    title = f"RMSE {scores['rmse']:.6g}, MAE {scores['mae']:.6g}{r2} ({len(truth)} samples)"
    figure.suptitle(title, fontsize=FONT + 1)
    return finish(figure, path)


def _cloud(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    if len(x) > POINTS_UP_TO:
        axes.hexbin(x, y, gridsize=45, cmap="viridis", bins="log", mincnt=1, linewidths=0.2)
    else:
        size = 14.0 if len(x) <= 300 else 6.0
        axes.scatter(x, y, s=size, color=_POINT, alpha=0.35 if len(x) > 300 else 0.6, linewidths=0)
