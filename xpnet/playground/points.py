"""Points of the plane with classes: checked, made from presets, read from CSV files, split."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import data
from ..errors import DataError, unknown_name
from .settings import MAX_CLASSES, MAX_POINTS, PLANE, number, whole

MAX_CSV_BYTES = 256 * 1024


class Points:
    """Points (N, 2) float64 in [-3, 3] with classes (N,) int64 in 0..3, and the names of the classes.

    Examples
    --------
    >>> points = Points.preset("xor", n=8, noise=0.0, classes=2, seed=0)
    >>> len(points), points.n_classes
    (8, 2)
    """

    def __init__(
        self, xy: np.ndarray, label: np.ndarray, names: tuple[str, ...] = (), note: str = "",
        recipe: dict[str, Any] | None = None,
    ):  # fmt: skip
        self.xy, self.label, self.names, self.note = xy, label, names, note
        #: How `preset` made them, as long as nothing was added or removed.
        self.recipe = recipe

    def __len__(self) -> int:
        return len(self.label)

    @property
    def n_classes(self) -> int:
        """Outputs that a network for these points has: at least two."""
        return max(2, 1 + int(self.label.max(initial=0)))

    @classmethod
    def empty(cls) -> Points:
        """Return no points."""
        return cls(np.empty((0, 2)), np.empty(0, dtype=np.int64))

    @classmethod
    def checked(cls, rows: Any) -> Points:
        """Take a list of [x, y, class].

        Raises
        ------
        DataError
            Too many points, or one that is none, by its number (from 1).
        """
        if not isinstance(rows, list):
            raise DataError(f"points must be a list of [x, y, class], found {type(rows).__name__}")
        if len(rows) > MAX_POINTS:
            raise DataError(f"{len(rows)} points, but the page holds at most {MAX_POINTS}")
        xy, label = np.empty((len(rows), 2)), np.empty(len(rows), dtype=np.int64)
        for i, row in enumerate(rows):
            if not isinstance(row, list) or len(row) != 3:
                raise DataError(f"point {i + 1} must be [x, y, class], found {str(row)[:60]}")
            try:
                xy[i] = number("x", row[0], -PLANE, PLANE), number("y", row[1], -PLANE, PLANE)
                label[i] = whole("the class", row[2], 0, MAX_CLASSES - 1)
            except ValueError as error:
                raise DataError(f"point {i + 1}: {error}") from None
        return cls(xy, label)

    def and_more(self, more: Points) -> Points:
        """Return these points and `more` behind them."""
        if len(self) + len(more) > MAX_POINTS:
            raise DataError(
                f"{len(self)} points are there and {len(more)} would be added, but the page holds at most "
                f"{MAX_POINTS}; press Clear to begin anew"
            )
        xy, label = np.concatenate([self.xy, more.xy]), np.concatenate([self.label, more.label])
        return Points(xy, label, self.names, self.note)

    @classmethod
    def preset(cls, name: Any, *, n: Any, noise: Any, classes: Any, seed: Any) -> Points:
        """Make a known data set.

        Parameters
        ----------
        name : {"blobs", "circles", "moons", "spirals", "xor"}
        n : int
            Points of all classes together, 8 to 1000.
        noise : float
            0 to 1; 0 is none, at 1 hardly anything is left to learn.
        classes : int
            2 to 4; moons and xor always have two.
        seed : int
        """
        if name not in PRESETS:
            raise unknown_name("preset", str(name)[:60], PRESETS)
        n, noise = whole("the number of points", n, 8, 1000), number("noise", noise, 0.0, 1.0)
        k = 2 if name in TWO_CLASSES else whole("classes", classes, 2, MAX_CLASSES)
        g = np.random.default_rng(whole("seed", seed, 0, 2**32 - 1))
        label = np.arange(n, dtype=np.int64) % k
        xy = PRESETS[name](g, label, k) + noise * g.normal(size=(n, 2))
        recipe = {"name": name, "n": n, "noise": noise, "classes": k, "seed": seed}
        return cls(np.clip(xy, -PLANE, PLANE).round(4), label, recipe=recipe)

    @classmethod
    def from_csv(cls, text: bytes) -> Points:
        """Read a CSV file with a header line: two columns of numbers, then the class.

        Points outside of the plane are moved and scaled to fit; `note` says how.

        Raises
        ------
        DataError
            What is wrong, with the line where it is.
        """
        if len(text) > MAX_CSV_BYTES:
            raise DataError(f"the file has {len(text):,} bytes, but at most {MAX_CSV_BYTES:,} are read")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "points.csv"
            path.write_bytes(text)
            try:
                found = data.load_file(path)
            except DataError as error:
                raise DataError(str(error).replace(f"{path}: ", "").replace(str(path), "the file")) from None
        x = found.x_train
        if x.shape[1:] != (2,):
            raise DataError(
                f"the file has {x.shape[1] + 1} columns, expected three: x, y and the class (with a header line)"
            )
        if len(x) > MAX_POINTS:
            raise DataError(f"the file has {len(x)} points, but the page holds at most {MAX_POINTS}")
        if not 2 <= len(found.classes) <= MAX_CLASSES:
            raise DataError(
                f"the last column has {len(found.classes)} different values, expected 2 to {MAX_CLASSES} classes"
            )
        bad = ~np.isfinite(x).all(axis=1)
        if bad.any():
            raise DataError(f"line {int(bad.argmax()) + 2} holds a number that is not finite")
        xy, note = _fitted(x.astype(np.float64))
        return cls(xy.round(4), found.y_train, found.classes, note)

    def held_out(self, share: float) -> np.ndarray:
        """Say which points are kept for testing (N,) bool: of each class every so many, never the first.

        A point that is held out stays so when more points follow.
        """
        mask = np.zeros(len(self), dtype=bool)
        for c in range(self.n_classes):
            of = np.flatnonzero(self.label == c)
            k = np.arange(len(of))
            mask[of] = np.floor((k + 1) * share + 1e-9) > np.floor(k * share + 1e-9)
        return mask

    def as_dict(self, held_out: np.ndarray) -> dict[str, Any]:
        """Everything about the points, ready for JSON; a row is [x, y, class, held out]."""
        rows = [
            [x, y, c, h]
            for (x, y), c, h in zip(
                self.xy.round(4).tolist(), self.label.tolist(), held_out.astype(int).tolist(), strict=True
            )
        ]
        return {
            "rows": rows, "names": list(self.names), "note": self.note, "classes": self.n_classes,
            "recipe": self.recipe,
        }  # fmt: skip


def _fitted(x: np.ndarray) -> tuple[np.ndarray, str]:
    if np.abs(x).max() <= PLANE:
        return x, ""
    low, high = x.min(axis=0), x.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    ranges = " and ".join(f"{a:g} to {b:g}" for a, b in zip(low, high, strict=True))
    xy = ((x - low) / span - 0.5) * 2 * 0.9 * PLANE
    return np.where(high > low, xy, 0.0), f"the file's columns, {ranges}, were scaled to fit"


def _blobs(g: np.random.Generator, label: np.ndarray, k: int) -> np.ndarray:
    angle = np.pi / 4 + 2 * np.pi * label / k
    return 1.7 * _around(angle) + 0.3 * g.normal(size=(len(label), 2))


def _circles(g: np.random.Generator, label: np.ndarray, k: int) -> np.ndarray:
    radius = 0.7 + 1.6 * label / (k - 1)
    return radius[:, None] * _around(g.uniform(0, 2 * np.pi, len(label)))


def _moons(g: np.random.Generator, label: np.ndarray, k: int) -> np.ndarray:
    angle = g.uniform(0, np.pi, len(label))
    x = np.where(label == 1, 1 - np.cos(angle), np.cos(angle)) - 0.5
    y = np.where(label == 1, 0.5 - np.sin(angle), np.sin(angle)) - 0.25
    return 1.6 * np.column_stack([x, y])


def _spirals(g: np.random.Generator, label: np.ndarray, k: int) -> np.ndarray:
    along = np.sqrt(g.uniform(0.01, 1.0, len(label)))
    angle = 1.75 * 2 * np.pi * along * (2 / k) ** 0.5 + 2 * np.pi * label / k
    return 2.6 * along[:, None] * _around(angle)


def _xor(g: np.random.Generator, label: np.ndarray, k: int) -> np.ndarray:
    xy = g.uniform(0.15, 2.5, size=(len(label), 2)) * np.where(g.random((len(label), 2)) < 0.5, -1, 1)
    same = np.sign(xy[:, 0]) == np.sign(xy[:, 1])
    xy[same != (label == 0), 0] *= -1
    return xy


def _around(angle: np.ndarray) -> np.ndarray:
    return np.column_stack([np.cos(angle), np.sin(angle)])


PRESETS: dict[str, Callable[[np.random.Generator, np.ndarray, int], np.ndarray]] = {
    "blobs": _blobs, "circles": _circles, "moons": _moons, "spirals": _spirals, "xor": _xor,
}  # fmt: skip
TWO_CLASSES = ("moons", "xor")
