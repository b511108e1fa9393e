"""Samples to predict for, from array files, pictures and folders of pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..errors import DataError
from .array_files import kind_of, pick, read_npy, read_npz
from .arrays import check_finite
from .idx import read_idx
from .images import IMAGE_SUFFIXES, load_image
from .table_sources import read_samples

Source = str | os.PathLike[str]


def load_inputs(
    paths: Source | Iterable[Source],
    *,
    sample_shape: tuple[int, ...] | None = None,
    invert: str | bool = "auto",
    white: float | None = 255.0,
) -> tuple[np.ndarray, list[str]]:
    """Load the samples of any number of files and folders.

    - NPY, IDX: a batch, or one sample where its shape is `sample_shape`.
    - NPZ: the array ``x`` or ``X``, or the only one.
    - CSV, Parquet: every column a feature.
    - pictures (png, jpg, bmp, gif, tiff, webp, pgm): see `xpnet.data.load_image`.
    - a folder: its pictures, also in folders below it, in sorted order.

    Parameters
    ----------
    paths : path or iterable of paths
        What to load, in this order.
    sample_shape : tuple of int, optional
        What the model takes; pictures are resized to it. Where absent, pictures keep their size and
        must agree.
    invert : {"auto", True, False}
        For pictures, see `xpnet.data.load_image`.
    white : float, optional
        For pictures, whose tones are 0 to 255, the number that white is to have, such as 16 for a model of the digits
        set; with None, where nobody knows, they are refused.

    Returns
    -------
    x : numpy.ndarray, shape (B, *sample_shape) or (B, I)
        Raw samples, all of one type.
    names : list of str
        One per sample: the path, with ``[i]`` behind it where a file holds several.

    Raises
    ------
    DataError
        Nothing found, unreadable, or samples of different shapes or types.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/two.npy", np.zeros((2, 3)))
    ...     x, names = load_inputs(f"{folder}/two.npy")
    >>> x.shape, [os.path.basename(name) for name in names]
    ((2, 3), ['two.npy[0]', 'two.npy[1]'])
    """
    listed = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    batches: list[np.ndarray] = []
    names: list[str] = []
    for path in (file for source in listed for file in _expand(Path(source).expanduser())):
        batch = _read_batch(path, sample_shape, invert, white)
        if batches:
            _check_alike(batches[0], names[0], batch, path)
        batches.append(batch)
        single = len(batch) == 1
        names += [str(path)] if single else [f"{path}[{i}]" for i in range(len(batch))]
    if not batches:
        raise DataError("no inputs: give at least one file or folder of pictures")
    return np.concatenate(batches), names


def _expand(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    files = sorted(
        file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
    )
    if not files:
        raise DataError(f"{path}: the folder holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    yield from files


def _read_batch(
    path: Path, sample_shape: tuple[int, ...] | None, invert: str | bool, white: float | None
) -> np.ndarray:
    """Return what one file holds as (B, ...)."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        picture = load_image(path, sample_shape, invert=invert)[None]
        if white is None:
            raise DataError(
                f"{path}: a picture has tones of 0 to 255, but the model was trained on real numbers of quite another "
                "size; give it as an NPY file of such numbers, or train on pixels of type uint8"
            )
        return picture if white == 255.0 else picture * (white / 255.0)
    kind = kind_of(path)
    if kind == "table":
        x = read_samples(path, labelled=False)[0]
    elif kind == "npz":
        arrays = read_npz(path)
        x = next(iter(arrays.values())) if len(arrays) == 1 else pick(arrays, ("x", "X"), path)
    else:
        x = read_npy(path) if kind == "npy" else read_idx(path)
    if x.dtype.kind not in "buif":
        raise DataError(f"{path}: holds {x.dtype}, expected real numbers")
    if sample_shape is not None and x.shape == tuple(sample_shape):
        x = x[None]
    if x.ndim < 2 or x.size == 0:
        raise DataError(f"{path}: has shape {x.shape}, expected a batch (B, ...) of one or more samples")
    check_finite(x, str(path))
    return x


def _check_alike(first: np.ndarray, first_name: str, batch: np.ndarray, path: Path) -> None:
    # Types are not mixed, because bytes 0..255 and fractions 0..1 would silently be scaled alike.
    if batch.dtype != first.dtype:
        raise DataError(
            f"{path} holds {batch.dtype} but {first_name} holds {first.dtype}; predict for them separately"
        )
    if batch.shape[1:] != first.shape[1:]:
        raise DataError(
            f"{path} holds samples of shape {batch.shape[1:]} but {first_name} of {first.shape[1:]}"
        )
