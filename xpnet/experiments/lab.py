"""What the experiments share: where numbers and figures go, which pictures to learn from, one style."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import xpnet
from xpnet import data

from ..errors import DataError, missing_package, unknown_name
from . import chinese

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours that colour-blind readers tell apart (Okabe and Ito 2008), and line styles for everybody else.
BLUE, RED, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1)))

#: Of the words in figures.
LANGUAGES = ("en", "zh")

_STYLE: Any = {
    "svg.hashsalt": "xpnet",  # equal figures give equal files
    "font.size": 9.0, "axes.titlesize": 10.0, "axes.labelsize": 9.0, "legend.fontsize": 8.5,
    "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.7,
}  # fmt: skip


class Lab:
    """The place where an experiment runs.

    Parameters
    ----------
    name : str
        Of the experiment.
    out : path-like, optional
        Folder that gets one folder per experiment; nothing is written where omitted.
    quick : bool, default False
        A small version that takes seconds: fewer repetitions, and always the embedded digits.
    device : str, default "cpu"
    data_dir : path-like, optional
        Folder that holds MNIST; else $XPNET_DATA, else the cache.
    download : bool, default False
        Whether MNIST may be downloaded.
    echo : callable, optional
        Gets every printed line; by default nothing is printed.
    language : {"en", "zh"}, default "en"
        Of the words in figures; "zh" needs a font that has them.

    Raises
    ------
    ConfigError
        Another language.
    """

    def __init__(
        self, name: str, out: str | Path | None = None, *, quick: bool = False, device: str = "cpu",
        data_dir: str | Path | None = None, download: bool = False,
        echo: Callable[[str], Any] = lambda line: None, language: str = "en",
    ):  # fmt: skip
        if language not in LANGUAGES:
            raise unknown_name("language", language, LANGUAGES)
        self.language = language
        self.name, self.quick, self.device = name, quick, device
        self.folder = None if out is None else Path(out) / name
        self.numbers: dict[str, Any] = {}
        self.claims: dict[str, bool] = {}
        self.figures: list[str] = []
        self.data: str | None = None
        self._data_dir, self._download, self._echo = data_dir, download, echo
        self._started = time.perf_counter()

    def say(self, line: str = "") -> None:
        """Print a line."""
        self._echo(line)

    def run(self, experiment: Callable[[Lab], None]) -> None:
        """Run an experiment with the common style of figures."""
        try:
            import matplotlib as mpl
        except ImportError as error:
            raise missing_package("figures need matplotlib", "plots", error) from error
        with mpl.rc_context():
            experiment(self)

    def record(self, **numbers: Any) -> None:
        """Keep numbers for ``result.json``."""
        self.numbers |= {name: _plain(value) for name, value in numbers.items()}

    def claim(self, sentence: str, holds: Any) -> None:
        """Print what was to be shown, and whether it was."""
        self.claims[sentence] = bool(holds)
        self.say(f"  [{'shown' if holds else 'NOT SHOWN'}] {sentence}")

    # --- pictures to learn from -----------------------------------------------------------------
    def pictures(self) -> Any:
        """Return MNIST where it is there (never with `quick`), else the embedded digits, and say which.

        A `xpnet.data.Dataset` with a test part.
        """
        found, why = None, "as --quick always does"
        if not self.quick:
            try:
                found = data.load("mnist", data_dir=self._data_dir, download=self._download)
            except DataError:
                if self._data_dir is not None or self._download:
                    raise
                why = "MNIST is not here: use --data-dir, $XPNET_DATA or --download"
        self.data = "digits" if found is None else "mnist"
        if found is None:
            self.say(f"  data: the embedded digits, 1438 to train and 359 to test ({why})")
            return data.load("digits")
        self.say("  data: MNIST, 60,000 to train and 10,000 to test")
        return found

    # --- figures --------------------------------------------------------------------------------
    def figure(self, rows: int = 1, columns: int = 1, *, height: float = 3.2, **options: Any) -> Any:
        """Return (figure, axes): 6.7 inches wide, `height` inches high; `axes` is an array (rows, columns)."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        mpl.rcParams.update(_STYLE)  # `run` puts the user's settings back
        if self.language == "zh":  # letters and digits stay as they are in English
            mpl.rcParams["font.family"] = ["DejaVu Sans", chinese.font()]
        figure = Figure(figsize=(6.7, height), dpi=120, layout="constrained", facecolor="white")
        return figure, figure.subplots(rows, columns, squeeze=False, **options)

    def save(self, figure: Figure, name: str) -> None:
        """Write a figure as PNG and SVG into the experiment's folder."""
        from matplotlib.ticker import MaxNLocator

        for axes in figure.axes:  # there is no epoch 2.5
            if axes.get_xlabel().startswith(("epoch", "passes")):
                axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        if self.language == "zh":
            chinese.translate_figure(figure)
        self.figures.append(name)
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, metadata=metadata)
            (self.folder / f"{name}.{kind}").write_bytes(buffer.getvalue())
        self.say(f"  figure: {self.folder / name}.png, .svg")

    # --- the end --------------------------------------------------------------------------------
    def finish(self, title: str, claim: str) -> dict[str, Any]:
        """Write ``result.json`` and return it."""
        result = {
            "experiment": self.name, "title": title, "must_show": claim, "shown": all(self.claims.values()),
            "claims": self.claims, "numbers": self.numbers, "data": self.data, "quick": self.quick,
            "device": self.device, "figures": self.figures, "xpnet": xpnet.__version__,
            "seconds": round(time.perf_counter() - self._started, 2),
        }  # fmt: skip
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        self.say(f"  {result['seconds']:.1f} s")
        return result


class Watch(xpnet.Callback):
    """Note training and test loss and test accuracy every so many updates; `rows` has one tuple per look.

    Each is (updates, mean training loss since the last look, test loss, test accuracy).
    """

    def __init__(self, test: tuple[Any, Any], every: int):
        self.rows: list[tuple[int, float, float, float]] = []
        self._test, self._every = test, every
        self._losses: list[float] = []

    def on_step_end(self, trainer: xpnet.Trainer) -> None:
        self._losses.append(trainer.last_loss)
        if trainer.step.n_updates % self._every == 0:
            scores = xpnet.evaluate(trainer.model, self._test)
            mean = sum(self._losses) / len(self._losses)
            self.rows.append((trainer.step.n_updates, mean, scores["loss"], scores["accuracy"]))
            self._losses.clear()

    def column(self, i: int) -> np.ndarray:
        """One of the four numbers over all looks."""
        return np.array([row[i] for row in self.rows])


def classifier(pictures: data.Dataset, *hidden: int, **options: Any) -> xpnet.MLP:
    """Return a net from raw pictures to their classes with the given hidden widths."""
    net = xpnet.MLP([pictures.n_features, *hidden, pictures.n_classes], **options)
    net.preprocessing, net.classes = pictures.preprocessing, pictures.classes
    return net


def scorer(net: xpnet.MLP) -> Callable[[np.ndarray], np.ndarray]:
    """Return the score (N,) of a net with one or two outputs for points (N, 2): positive means class 1."""

    def score(points: np.ndarray) -> np.ndarray:
        h = net.outputs(points)
        return h[:, 0] if h.shape[1] == 1 else h[:, 1] - h[:, 0]

    return score


def show_boundary(
    axes: Axes, score: Callable[[np.ndarray], np.ndarray], x: np.ndarray, y: np.ndarray, title: str
) -> None:
    """Draw points (N, 2) of two classes, and where a score (N,) is above and below zero."""
    low, high = x.min(axis=0) - 0.3, x.max(axis=0) + 0.3
    across, up = np.meshgrid(np.linspace(low[0], high[0], 120), np.linspace(low[1], high[1], 120))
    s = score(np.column_stack([across.ravel(), up.ravel()])).reshape(across.shape)
    axes.contourf(across, up, s, levels=[-np.inf, 0.0, np.inf], colors=["#CFE3F1", "#F9DCC8"])
    axes.contour(across, up, s, levels=[0.0], colors="black", linewidths=1.2)
    for label, colour, marker in ((0, BLUE, "o"), (1, RED, "^")):
        of = x[y == label]
        axes.scatter(of[:, 0], of[:, 1], s=14, c=colour, marker=marker, linewidths=0.3, edgecolors="white",
                     label=f"class {label}")  # fmt: skip
    axes.set(
        title=title,
        xlabel="input $x_1$",
        ylabel="input $x_2$",
        xlim=(low[0], high[0]),
        ylim=(low[1], high[1]),
    )


def boundary_length(score: Callable[[np.ndarray], np.ndarray], side: float = 3.0, n: int = 150) -> float:
    """Length of the boundary score = 0 within a square of half-width `side`, from sign changes on a grid."""
    t = np.linspace(-side, side, n)
    across, up = np.meshgrid(t, t)
    s = score(np.column_stack([across.ravel(), up.ravel()])).reshape(n, n) > 0
    crossings = (s[1:] != s[:-1]).sum() + (s[:, 1:] != s[:, :-1]).sum()
    return float(crossings * (t[1] - t[0]) * np.pi / 4)  # Cauchy and Crofton: mean over directions


def two_moons(n: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points (n, 2) of two interlocking half circles around the origin, with labels (n,)."""
    g = np.random.default_rng(seed)
    y = np.arange(n) % 2
    angle = g.uniform(0, np.pi, n)
    x = np.where(y == 1, 1 - np.cos(angle), np.cos(angle)) - 0.5
    up = np.where(y == 1, 0.5 - np.sin(angle), np.sin(angle)) - 0.25
    return 1.5 * np.column_stack([x, up]) + noise * g.normal(size=(n, 2)), y


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.generic, float)):
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, float):
            return float(f"{value:.9g}") if np.isfinite(value) else str(value)  # JSON has no infinity
        return value
    return value
