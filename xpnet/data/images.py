"""Pictures of any format and size as the raw samples that an image model was trained on."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError, missing_package

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm")


def load_image(
    path: str | os.PathLike[str],
    sample_shape: tuple[int, ...] | None = None,
    *,
    invert: str | bool = "auto",
) -> np.ndarray:
    """Load one picture as a greyscale sample.

    The picture is turned upright (EXIF), laid on white where it is transparent, made grey, padded with
    the median tone of its border to the proportions of `sample_shape`, and resized. Of an animation the first
    frame is used.

    MNIST and sets like it are light on dark, while people draw dark on light. So with
    ``invert="auto"`` a picture whose border is bright (median above 127) is turned into its negative.
    For a model that was trained on dark-on-light pictures say ``invert=False``.

    Parameters
    ----------
    path : str or path-like
        The picture.
    sample_shape : (height, width), optional
        The size of the result; the picture's own where absent.
    invert : {"auto", True, False}
        Whether to turn the picture into its negative.

    Returns
    -------
    numpy.ndarray, uint8, shape (height, width)
        The raw sample, 0..255.

    Raises
    ------
    ConfigError
        Another value of `invert`.
    DataError
        Not a readable picture, Pillow is not installed, or `sample_shape` is not of rank 2.

    Examples
    --------
    >>> load_image("seven.png", (784,))
    Traceback (most recent call last):
    xpnet.errors.DataError: seven.png: a picture becomes a (height, width) sample, but ...
    """
    path = Path(path)
    if sample_shape is not None and len(sample_shape) != 2:
        raise DataError(
            f"{path}: a picture becomes a (height, width) sample, but samples here have shape {sample_shape}"
        )
    if not (isinstance(invert, bool) or invert == "auto"):
        raise ConfigError(f"invert is {invert!r}, expected 'auto', True or False")
    grey = _read_grey(path)
    border = int(np.median(_border(grey)))
    if sample_shape is not None and grey.shape != tuple(sample_shape):
        grey = _resize(grey, (int(sample_shape[0]), int(sample_shape[1])), border)
    negative = border > 127 if invert == "auto" else invert
    return 255 - grey if negative else grey


def _read_grey(path: Path) -> np.ndarray:
    """Return the picture as uint8 (height, width)."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise missing_package(f"{path}: reading pictures needs Pillow", "images", error) from error
    try:
        with warnings.catch_warnings():
            # A small file that unpacks to hundreds of megapixels is an attack or a mistake.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                return _grey(ImageOps.exif_transpose(opened), path, Image)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, expected a picture") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: too large to be a sample ({error})") from error
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds for a damaged file
        raise DataError(f"{path}: not a readable picture ({error})") from error


def _grey(picture: Any, path: Path, image: Any) -> np.ndarray:
    if picture.mode.startswith("I"):  # 16 bits per pixel, which convert("L") would clip at 255
        return (np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8)
    if picture.mode == "F":
        raise DataError(
            f"{path}: the picture holds floating-point tones, expected 8 or 16 bits; give it as an NPY file"
        )
    if "transparency" in picture.info or picture.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
        colour = picture.convert("RGBA")
        white = image.new("RGBA", colour.size, "white")
        picture = image.alpha_composite(white, colour)
    return np.array(picture.convert("L"))


def _border(grey: np.ndarray) -> np.ndarray:
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def _resize(grey: np.ndarray, shape: tuple[int, int], border: int) -> np.ndarray:
    from PIL import Image

    height, width = grey.shape
    ratio = min(shape[0] / height, shape[1] / width)
    inner = (max(1, round(height * ratio)), max(1, round(width * ratio)))
    small = Image.fromarray(grey).resize((inner[1], inner[0]), Image.Resampling.BILINEAR)
    top, left = (shape[0] - inner[0]) // 2, (shape[1] - inner[1]) // 2
    canvas = np.full(shape, border, np.uint8)
    canvas[top : top + inner[0], left : left + inner[1]] = np.asarray(small)
    return canvas
