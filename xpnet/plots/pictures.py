"""What can be seen as pictures: weights of the first layer, and samples that were answered wrongly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, DataError
from .canvas import DPI, FONT, SMALL, WIDTH, StrPath, check_path, finish, new_figure, numbers, plain, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    check_path(path)
    _check_count("max_units", max_units)
    height, width = _image_shape(sample_shape, "the weights of a unit")
    w = numbers("weights", weights)
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
    figure = new_figure(max(min(tall, 9.0) + 0.6, 2.0))
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
    return finish(figure, path)


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
    check_path(path)
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
        figure = new_figure(1.6)
        text = f"no mistakes among {len(x)} samples" if len(x) else "no samples, so no mistakes"
        figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=FONT + 3)
        return finish(figure, path)
    chosen = wrong[np.argsort(-q[wrong], kind="stable")][:n]
    pictures = _pictures(x[chosen], shape)
    captions = [(short(classes[t[i]], 13), short(classes[p[i]], 13), _percent(q[i])) for i in chosen]
    split = max(len(true) + len(said) for true, said, _ in captions) > 7
    lines = 3 if split else 2

    columns = min(len(chosen), 5)
    rows = math.ceil(len(chosen) / columns)
    tile = min((WIDTH - 0.2) / columns - 0.12, 1.6)
    figure = new_figure(rows * (min(tile * shape[0] / shape[1], 2.0) + 0.17 * lines) + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(chosen) :]:
        axes.set_axis_off()
    for axes, picture, (true, said, sure) in zip(grid.flat, pictures, captions, strict=False):
        axes.imshow(picture, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        caption = f"true {true},{chr(10) if split else ' '}said {said}\n({sure})"
        plain(axes.set_title(caption, fontsize=FONT - 0.5, pad=3))
    title = f"{_some(len(chosen), len(wrong))} among {len(x)} samples"
    figure.suptitle(title, fontsize=FONT + 1)
    return finish(figure, path)


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} must be a whole number >= 1, found {value!r}")


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
    q = numbers("probability", probability)
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


def _pictures(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bring samples (n, ...) to images from 0 to 1, from the least value of them all to the greatest."""
    values = numbers("samples", x).reshape(-1, *shape)
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
