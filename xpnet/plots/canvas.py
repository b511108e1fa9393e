"""What all figures share: their size, their file, the user's names and numbers in them."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, DataError, missing_package
from ..storage.atomic import write_bytes_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

DPI = 120
WIDTH = 800 / DPI  # inches
FONT = 9.0  # points, 15 pixels
SMALL = 7.5

BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#555555"

StrPath = str | os.PathLike[str]


def new_figure(height: float) -> Figure:
    """Return an empty figure of the common width; `height` in inches."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise missing_package("plots need matplotlib", "plots", error) from error
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def check_path(path: StrPath | None) -> None:
    if path is not None and not os.fspath(path).lower().endswith(".png"):
        raise ConfigError(f"plots are PNG files: expected a name ending in .png, found {os.fspath(path)!r}")


def finish(figure: Figure, path: StrPath | None) -> Figure:
    if path is not None:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        write_bytes_atomic(path, buffer.getvalue())
    return figure


def plain(*texts: Text) -> None:
    """Take the text of the user's names literally: a dollar sign starts no formula."""
    for text in texts:
        text.set_parse_math(False)


def short(name: object, length: int) -> str:
    """Return a name of at most `length` characters on one line, cut in the middle.

    Examples
    --------
    >>> short("a very long name", 9)
    'a ver…ame'
    """
    text = " ".join(str(name).split())
    if len(text) <= length:
        return text
    tail = (length - 1) * 2 // 5
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"


def numbers(name: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name}: expected an array of numbers on the host ({error})") from error
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds numbers that are not finite (NaN or infinity)")
    return array
