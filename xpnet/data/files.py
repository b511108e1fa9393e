"""Training data from the user's own files: NPZ, NPY, IDX, and tables of numbers.

Formats are told apart by their first bytes (tables by their names). Nothing is ever
unpickled, so a file from a stranger cannot run code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, nearest
from .array_files import kind_of, pick, read_lines, read_npy, read_npz
from .checks import check_features, check_same_scale, check_targets, check_weights
from .dataset import TASKS, Dataset, has_several_axes
from .idx import read_idx
from .labels import encode_labels
from .table_sources import CSV_SUFFIXES, read_samples

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

_SHOWN = 8  # classes in a note

Path_ = str | os.PathLike[str]


def load_file(
    path: Path_,
    *,
    labels: Path_ | None = None,
    target: str | None = None,
    task: str = "classification",
    classes: tuple[str, ...] | None = None,
) -> Dataset:
    """Load training data from one file or folder.

    - NPZ: ``x`` (or ``X``) and ``y``; optionally ``sample_weight``, what each of these samples counts in training, and
      ``x_valid``, ``y_valid`` and ``x_test``, ``y_test``. Other arrays are left alone, which `Dataset.notes` says; but
      names such as ``x_val`` are an error.
    - NPY: the samples, with `labels` naming a second file (NPY, IDX, or text with one label a line).
    - IDX, plain or .gz: the samples, with `labels`; without it, the file beside it whose name has
      ``labels-idx1`` where this one has ``images-idx3``.
    - CSV and Parquet: columns of numbers, and one that is the target. Tables of other columns are the matter of
      `xpnet.tabular`.
    - a folder with MNIST's file names: the train pair, and the t10k pair where it exists.

    Values stay raw. The scale is 1/255 for uint8 and, for uint16 samples of several axes, 1/4095 where the largest
    value has 12 bits, 1/65535 where it has 16; else, and where no value is above 1, it is 1.

    Parameters
    ----------
    path : str or path-like
        The file or folder.
    labels : str or path-like, optional
        The file of labels, for NPY and IDX.
    target : str, optional
        The NPZ key (default ``y``) or the column (default the last) that holds the labels.
    task : {"classification", "multilabel", "regression"}
        Whether those are class labels, rows of one yes or no for each label (0 or 1), or real-valued targets. Rows of
        zeros and a single one are class labels too.
    classes : tuple of str, optional
        The classes of an existing model, to number the labels as it does. Where absent they are the
        sorted labels of all parts.

    Returns
    -------
    Dataset
        With class indices 0..C-1 and the original labels in `classes`, or float targets (N, O).

    Raises
    ------
    DataError
        Missing, of an unknown format, damaged, holding objects, or not usable as samples and labels.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/pets.npz", x=np.eye(3), y=["cat", "dog", "cat"])
    ...     data = load_file(f"{folder}/pets.npz")
    >>> data.classes, data.y_train
    (('cat', 'dog'), array([0, 1, 0]))
    """
    path = Path(path).expanduser()
    if task not in TASKS:
        raise DataError(f"task is {task!r}, expected one of {', '.join(TASKS)}")
    notes: list[str] = []
    parts = _read_parts(path, None if labels is None else Path(labels).expanduser(), target, notes)
    return _assemble(path, parts, task, classes, notes)


def find_idx(folder: Path, file: str) -> Path | None:
    """Return the path of an MNIST-named file in `folder`, plain or .gz, or None."""
    # Some tools unpack train-images-idx3-ubyte as train-images.idx3-ubyte.
    dotted = file.replace("-idx", ".idx")
    candidates = (folder / (stem + end) for stem in (file, dotted) for end in (".gz", ""))
    return next((path for path in candidates if path.is_file()), None)


Parts = dict[str, tuple[np.ndarray, ...]]


def _read_parts(path: Path, labels: Path | None, target: str | None, notes: list[str]) -> Parts:
    """Return samples, labels and maybe weights of each part (train, valid, test) as stored; `notes` get the rest."""
    if path.is_dir():
        return _parts_of_folder(path)
    kind = kind_of(path)
    if labels is not None and kind not in ("npy", "idx"):
        raise DataError(f"{path}: a file of labels goes with NPY and IDX samples; this file holds its own")
    if kind == "npz":
        return _parts_of_npz(path, target, notes)
    if kind == "table":
        x, y = read_samples(path, target)
        return {"train": (x, y)}
    if labels is None:
        labels = _guess_labels(path) if kind == "idx" else None
        if labels is None:
            raise DataError(
                f"{path}: the file holds samples only; name the file of their labels too: labels=..., or --labels FILE"
            )
    x = read_npy(path) if kind == "npy" else read_idx(path)
    return {"train": (x, _read_labels(labels))}


def _parts_of_folder(folder: Path) -> Parts:
    found = [find_idx(folder, file) for file in MNIST_FILES]
    if found[0] is None or found[1] is None:
        raise DataError(
            f"{folder}: a folder of training data must hold {MNIST_FILES[0]} and {MNIST_FILES[1]} "
            "(plain or .gz), and may hold the t10k pair"
        )
    parts: Parts = {"train": (read_idx(found[0]), read_idx(found[1]))}
    if found[2] is not None and found[3] is not None:
        parts["test"] = (read_idx(found[2]), read_idx(found[3]))
    elif found[2] is not None or found[3] is not None:
        raise DataError(
            f"{folder}: {MNIST_FILES[2]} and {MNIST_FILES[3]} belong together, but one is missing"
        )
    return parts


_WEIGHT = "sample_weight"
_NAMES = ("x", "X", "x_train", "y", "y_train", "x_valid", "y_valid", "x_test", "y_test", _WEIGHT)


def _parts_of_npz(path: Path, target: str | None, notes: list[str]) -> Parts:
    arrays = read_npz(path)
    notes += _unused(path, sorted({*arrays} - {*_NAMES, target}))
    parts: Parts = {
        "train": (
            pick(arrays, ("x", "X", "x_train"), path),
            pick(arrays, (target,) if target else ("y", "y_train"), path),
            *((arrays[_WEIGHT],) if _WEIGHT in arrays else ()),
        )
    }
    for part in ("valid", "test"):
        pair = [arrays.get(f"{letter}_{part}") for letter in "xy"]
        if pair[0] is not None and pair[1] is not None:
            parts[part] = (pair[0], pair[1])
        elif pair[0] is not None or pair[1] is not None:
            raise DataError(f"{path}: x_{part} and y_{part} belong together, but one is missing")
    return parts


def _unused(path: Path, names: list[str]) -> list[str]:
    """Refuse the names of arrays that were meant to count, and say which others do not."""
    for name in names:
        if "weight" in name.lower():
            raise DataError(
                f"{path}: no such part as {name!r}: what the samples of x count in training is called {_WEIGHT!r}, and "
                "those of other parts count alike; rename the array, or leave it out"
            )
        if name.lower().startswith(("x_", "y_")):
            near = nearest(name, _NAMES)
            hint = f"; did you mean {near!r}?" if near else "."
            raise DataError(f"{path}: no such part as {name!r}{hint} Known: {', '.join(_NAMES)}")
    return [f"arrays that are not used: {', '.join(names)}"] if names else []


def _guess_labels(path: Path) -> Path | None:
    for images, named in (("images-idx3", "labels-idx1"), ("images.idx3", "labels.idx1")):
        if images in path.name:
            stem = path.name.replace(images, named).removesuffix(".gz")
            return find_idx(path.parent, stem.replace(".idx", "-idx"))
    return None


def _read_labels(path: Path) -> np.ndarray:
    if path.suffix.lower() in (*CSV_SUFFIXES, ".txt"):
        return read_lines(path)
    kind = kind_of(path)
    if kind == "npz":
        raise DataError(
            f"{path}: labels must be an NPY, IDX or text file; an NPZ file holds samples and labels together"
        )
    return read_npy(path) if kind == "npy" else read_idx(path)


def _assemble(
    path: Path, parts: Parts, task: str, classes: tuple[str, ...] | None, notes: list[str]
) -> Dataset:
    checked: dict[str, Any] = {"x_test": None, "y_test": None}
    for part, (x, *_) in parts.items():
        x = checked[f"x_{part}"] = check_features(x, name=_label(path, "x", part))
        check_same_scale(checked["x_train"], "x", x, _label(path, "x", part))
    x_train = checked["x_train"]
    for part, (_, y, *_) in parts.items():
        n, found = len(checked[f"x_{part}"]), len(y) if y.ndim else 0
        if n != found:
            raise DataError(
                f"{_label(path, 'y', part)} has {found} entries (shape {y.shape}) but there are {n} samples"
            )
    weights = [check_weights(w, len(x_train), name=f"{path}: {_WEIGHT}") for w in parts["train"][2:]]
    ys = {part: y for part, (_, y, *_) in parts.items()}
    if task == "classification":
        ys = {part: _without_one_hot(y, _label(path, "y", part), notes) for part, y in ys.items()}
        encoded, classes = _encode_together(path, ys, classes, notes)
    else:
        encoded, classes = _targets_together(path, ys, unit_interval=task == "multilabel"), ()
    checked |= {f"y_{part}": y for part, y in encoded.items()}
    return Dataset(
        path.stem,
        sample_shape=x_train.shape[1:],
        classes=classes,
        scale=_scale_of(x_train),
        task=task,
        notes=tuple(notes),
        w_train=weights[0] if weights else None,
        **checked,
    )


def _without_one_hot(y: np.ndarray, name: str, notes: list[str]) -> np.ndarray:
    """Return labels, which rows of zeros and a single one are too; refuse rows of several labels."""
    if y.ndim != 2 or y.shape[1] < 2 or y.dtype.kind not in "buif" or not ((y == 0) | (y == 1)).all():
        return y
    if (y.sum(axis=1) == 1).all():
        notes.append(f"{name} holds one-hot rows, which are taken for labels 0 to {y.shape[1] - 1}")
        return y.argmax(axis=1)
    raise DataError(
        f"{name} has shape {y.shape}, rows of zeros and ones that are no class labels; if each column is a label "
        "of its own, say task='multilabel' (--task multilabel)"
    )


def _encode_together(
    path: Path, ys: Mapping[str, np.ndarray], classes: tuple[str, ...] | None, notes: list[str]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    own = {part: encode_labels(y, classes, name=_label(path, "y", part)) for part, y in ys.items()}
    if classes is None:
        texts = {y.dtype.kind in "UST" for y in ys.values()}
        if len(texts) > 1:
            raise DataError(f"{path}: some parts have numbers as labels and others have text")
        union = {label for _, names in own.values() for label in names}
        classes = tuple(sorted(union) if texts == {True} else sorted(union, key=int))
        notes += _untrained(classes, {part: names for part, (_, names) in own.items()})
    index = {label: code for code, label in enumerate(classes)}
    tables = {
        part: np.array([index[label] for label in names], dtype=np.int64) for part, (_, names) in own.items()
    }
    return {part: tables[part][codes] for part, (codes, _) in own.items()}, classes


def _untrained(classes: tuple[str, ...], found: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Say which classes none of the samples to learn from has."""
    for part, names in found.items():
        new = [label for label in classes if label in names and label not in found["train"]]
        if new:
            shown = ", ".join(new[:_SHOWN]) + (", ..." if len(new) > _SHOWN else "")
            yield f"y_{part} has classes that no sample to learn from has, so that they cannot be learnt: {shown}"


def _targets_together(
    path: Path, ys: Mapping[str, np.ndarray], *, unit_interval: bool
) -> dict[str, np.ndarray]:
    width = ys["train"].shape[1] if ys["train"].ndim > 1 else 1
    return {
        part: check_targets(y, len(y), width, unit_interval=unit_interval, name=_label(path, "y", part))
        for part, y in ys.items()
    }


def are_pixels(x: np.ndarray) -> bool:
    """Whether samples (B, ...) are taken for pixels by their type: bytes; 16 bits only where a sample has several axes.

    Examples
    --------
    >>> are_pixels(np.zeros((5, 4, 4), np.uint16)), are_pixels(np.zeros((5, 16), np.uint16))
    (True, False)
    """
    return x.dtype in (np.uint8, np.bool_) or (x.dtype == np.uint16 and has_several_axes(x.shape[1:]))


def _scale_of(x: np.ndarray) -> float:
    largest = int(x.max()) if are_pixels(x) else 1
    if largest <= 1:  # 0 and 1 are in range already
        return 1.0
    # Cameras and scanners put 10, 12 or 14 bits into 16.
    return 1 / 255 if x.dtype == np.uint8 else 1 / (2 ** largest.bit_length() - 1)


def _label(path: Path, letter: str, part: str) -> str:
    return f"{path}: {letter}" if part == "train" else f"{path}: {letter}_{part}"
