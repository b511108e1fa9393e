"""What a loaded data set is, and how its raw values become the rows that a model takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import DataError, FileFormatError
from ..interchange import astype, dtype_name, empty_beside, follow, is_foreign, kind, namespace

# Types whose every value float32 holds exactly, so that such samples may be scaled in it, when they are needed.
_SMALL = ("bool", "uint8", "int8", "uint16", "int16")
_BLOCK = 1 << 20  # numbers that are in float64 at a time
#: What says how targets are scaled, and its value where they are not.
_OF_TARGETS = {"target_mean": 0.0, "target_scale": 1.0}


TASKS = ("classification", "multilabel", "regression")


def has_several_axes(sample_shape: Sequence[int]) -> bool:
    """Whether samples of this shape are more than a row of numbers, as pictures are.

    Examples
    --------
    >>> has_several_axes((28, 28)), has_several_axes((784,)), has_several_axes((1, 784, 1))
    (True, False, False)
    """
    return sum(size > 1 for size in sample_shape) > 1


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """One data set, raw as stored, on the host.

    Nothing is scaled here: `scale` and `shift` say how, and `preprocessing` does it, so that a model can keep the
    same recipe for the samples it meets later.

    Parameters
    ----------
    name : str
        What it is called.
    x_train, x_test, x_valid : numpy.ndarray, shape (N, *sample_shape) or (N, I)
        Raw samples of any real type; the last two may be None.
    y_train, y_test, y_valid : numpy.ndarray
        int64 (N,) class indices in 0..C-1, or floating (N, O) targets: numbers to regress on, or 0 and 1 per label.
    sample_shape : tuple of int
        The shape of one sample, for example (28, 28).
    classes : tuple of str
        The label that each class index stands for; empty for other tasks.
    scale, shift : float or numpy.ndarray (I,)
        ``x * scale + shift`` is what a network takes: 1/255 for pixels, or one number per feature.
    task : {"classification", "multilabel", "regression"}
    tabular : mapping, optional
        How the samples were made from the columns of a table; see `xpnet.tabular`.
    target_mean, target_scale : float or numpy.ndarray (O,)
        Targets are ``(y - target_mean) / target_scale`` of those in their own units; see `with_scaled_targets`. For
        tables `tabular` says it.
    notes : tuple of str
        What is worth knowing about how it was read.
    w_train : numpy.ndarray (N,), optional
        What each sample of the training part counts in the loss.

    Raises
    ------
    DataError
        The parts disagree in length or width, or only one of a pair is given.

    Examples
    --------
    >>> x, y = np.zeros((4, 2, 2), np.uint8), np.array([0, 1, 0, 1])
    >>> Dataset("tiny", x, y, None, None, (2, 2), ("no", "yes"), 1 / 255)
    Dataset('tiny', classification, 4 train, samples (2, 2) uint8, 2 classes)
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray | None
    y_test: np.ndarray | None
    sample_shape: tuple[int, ...]
    classes: tuple[str, ...]
    scale: float | np.ndarray
    task: str = "classification"
    x_valid: np.ndarray | None = None
    y_valid: np.ndarray | None = None
    tabular: Mapping[str, Any] | None = None
    shift: float | np.ndarray = 0.0
    target_mean: float | np.ndarray = 0.0
    target_scale: float | np.ndarray = 1.0
    notes: tuple[str, ...] = ()
    w_train: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise DataError(f"task is {self.task!r}, expected one of {', '.join(TASKS)}")
        for part in ("train", "test", "valid"):
            x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
            if (x is None) != (y is None) or (x is None and part == "train"):
                raise DataError(f"{self.name}: x_{part} and y_{part} belong together, but one is missing")
            if x is None:
                continue
            if len(x) != len(y):
                raise DataError(f"{self.name}: x_{part} has {len(x)} samples but y_{part} has {len(y)}")
            if not _fits(x.shape, self.sample_shape):
                raise DataError(
                    f"{self.name}: x_{part} has shape {x.shape}, expected {_wanted(self.sample_shape)}"
                )

        if self.w_train is not None and self.w_train.shape != (len(self.x_train),):
            raise DataError(
                f"{self.name}: w_train has shape {self.w_train.shape}, expected ({len(self.x_train)},), one per sample"
            )

    @property
    def n_features(self) -> int:
        """I, the numbers per sample."""
        return math.prod(self.sample_shape)

    @property
    def n_classes(self) -> int:
        """C, or 0 for other tasks."""
        return len(self.classes)

    @property
    def preprocessing(self) -> Preprocessing:
        """The recipe from raw samples to a model's input."""
        return Preprocessing(
            self.sample_shape, self.scale, self.shift, self.target_mean, self.target_scale, self._white()
        )

    def _white(self) -> float | None:
        """The number that white has in samples that are pictures of tones in 0..1."""
        if not has_several_axes(self.sample_shape) or not self.x_train.size:
            return None
        return 1.0 if 0.5 < self.x_train.max() <= 1 and self.x_train.min() >= 0 else None

    def with_scaled_targets(self, mean: Any, scale: Any) -> Dataset:
        """Return the data set with ``(y - mean) / scale`` in place of the targets y (N, O) of every part.

        Parameters
        ----------
        mean, scale : float or (O,) array
            In the units of y.
        """
        parts = {name: getattr(self, name) for name in ("y_train", "y_valid", "y_test")}
        scaled: dict[str, Any] = {
            name: None if y is None else (y.astype(np.float64) - mean) / scale for name, y in parts.items()
        }
        return replace(self, **scaled, target_mean=mean, target_scale=scale)

    def __repr__(self) -> str:
        parts = [
            f"{len(x)} {part}"
            for part in ("train", "valid", "test")
            if (x := getattr(self, f"x_{part}")) is not None
        ]
        last = (
            f"{self.n_classes} classes"
            if self.task == "classification"
            else f"targets {self.y_train.shape[1:]}"
        )
        return (
            f"Dataset({self.name!r}, {self.task}, {', '.join(parts)}, samples {self.sample_shape} "
            f"{self.x_train.dtype}, {last})"
        )


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """The recipe that turns raw samples into a model's input: flatten, then ``x * scale + shift``.

    It is stored with the model, so that what is predicted later passes through the same steps.

    Parameters
    ----------
    sample_shape : tuple of int
        The shape of one raw sample.
    scale, shift : float or numpy.ndarray
        One number, or one per feature (of shape (I,) or `sample_shape`).
    target_mean, target_scale : float or numpy.ndarray
        One number, or one per output: a regression learnt ``(y - target_mean) / target_scale``. The weights in a model
        file undo it, so nothing but an evaluation in the units of training needs to know.
    white : float, optional
        The number that white has in samples that are pictures, where the scale does not say it.

    Raises
    ------
    DataError
        A number is not finite, or `scale` or `shift` has another size than the sample.

    Examples
    --------
    >>> prepare = Preprocessing((2, 2), scale=1 / 255)
    >>> prepare(np.full((1, 2, 2), 255, np.uint8))
    array([[1., 1., 1., 1.]], dtype=float32)
    >>> Preprocessing.from_metadata(prepare.to_metadata()) == prepare
    True
    """

    sample_shape: tuple[int, ...]
    scale: float | np.ndarray = 1.0
    shift: float | np.ndarray = 0.0
    target_mean: float | np.ndarray = 0.0
    target_scale: float | np.ndarray = 1.0
    white: float | None = None

    def __post_init__(self) -> None:
        shape = tuple(int(size) for size in self.sample_shape)
        if not shape or min(shape) < 1:
            raise DataError(f"sample_shape is {self.sample_shape}, expected one or more positive sizes")
        object.__setattr__(self, "sample_shape", shape)
        for field in ("scale", "shift", *_OF_TARGETS):
            object.__setattr__(self, field, self._factor(field))

    @property
    def n_features(self) -> int:
        """I, the width of a prepared row."""
        return math.prod(self.sample_shape)

    def __call__(self, x: Any, dtype: Any = np.float32) -> Any:
        """Prepare a batch.

        Parameters
        ----------
        x : array_like, shape (B, *sample_shape) or (B, I)
            Raw samples; axes of length one do not count.
        dtype : numpy dtype
            The floating type of the result, and of the arithmetic for samples that `keeps` its digits. All others
            are scaled in float64, since what tells one sample from another may be less than float32 resolves.

        Returns
        -------
        numpy.ndarray, or an array of the library of `x`, shape (B, I)
            A new array of type `dtype`; `x` is left alone.

        Raises
        ------
        DataError
            Another shape, not real numbers, or values too large for `dtype`.
        """
        x = x if is_foreign(x) else np.asarray(x)
        shape = tuple(x.shape)
        if not _fits(shape, self.sample_shape):
            one = "; for one sample write x[None]" if shape == self.sample_shape else ""
            raise DataError(f"X has shape {shape}, expected {_wanted(self.sample_shape)}{one}")
        if kind(x) not in "buif":
            raise DataError(f"X has type {x.dtype}, expected real numbers (bool, integer or floating)")
        dtype, xp = np.dtype(dtype), namespace(x)
        raw = xp.reshape(x, (shape[0], self.n_features))
        work = dtype.name if self.keeps(x) else "float64"
        with np.errstate(over="raise"):
            try:
                if work == dtype.name:
                    rows = self._scaled(raw, work)
                else:
                    rows = empty_beside(x, raw.shape, dtype.name)
                    step = max(1, _BLOCK // self.n_features)
                    for at in range(0, shape[0], step):
                        end = min(at + step, shape[0])
                        rows[at:end, :] = astype(self._scaled(raw[at:end, :], work), dtype.name)
                if is_foreign(rows) and bool(xp.any(xp.isinf(rows))):
                    raise FloatingPointError("overflow")
            except FloatingPointError as error:
                raise DataError(f"X holds values too large for {dtype}; scale them down first") from error
        return rows

    def keeps(self, x: Any) -> bool:
        """Whether samples (B, ...) lose nothing that matters when they become float32 before they are scaled.

        So it is with integers of at most 16 bits, such as pixels, and where nothing is scaled.

        Examples
        --------
        >>> Preprocessing((2,), scale=1e-3, shift=-1.7e6).keeps(np.array([[1.7e9, 1.7e9 + 50.0]]))
        False
        """
        plain = isinstance(self.scale, float) and isinstance(self.shift, float)
        return dtype_name(x) in _SMALL or (plain and (self.scale, self.shift) == (1.0, 0.0))

    def to_metadata(self) -> dict[str, Any]:
        """Return the recipe as plain numbers and lists, ready for JSON; exact when read back."""
        scaled = any(
            np.ndim(getattr(self, name)) or getattr(self, name) != no for name, no in _OF_TARGETS.items()
        )
        names = ("scale", "shift", *(_OF_TARGETS if scaled else ()))
        found = {"sample_shape": list(self.sample_shape)} | {
            name: _plain(getattr(self, name)) for name in names
        }
        return found if self.white is None else found | {"white": self.white}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Preprocessing:
        """Rebuild the recipe from `to_metadata`'s result.

        Raises
        ------
        FileFormatError
            A key is missing or holds something else than numbers.
        """
        try:
            return cls(
                tuple(metadata["sample_shape"]),
                _from_plain(metadata["scale"]),
                _from_plain(metadata["shift"]),
                **{name: _from_plain(metadata.get(name, no)) for name, no in _OF_TARGETS.items()},
                white=None if metadata.get("white") is None else float(metadata["white"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(
                f"damaged preprocessing record {dict(metadata)!r:.200}: {error!r}; expected "
                "sample_shape, scale and shift"
            ) from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Preprocessing):
            return NotImplemented
        return self.to_metadata() == other.to_metadata()

    def __hash__(self) -> int:
        return hash((self.sample_shape, repr(self.to_metadata())))

    def _scaled(self, raw: Any, dtype: str) -> Any:
        rows = astype(raw, dtype)
        rows *= follow(rows, np.asarray(self.scale, dtype))
        rows += follow(rows, np.asarray(self.shift, dtype))
        return rows

    def _factor(self, field: str) -> float | np.ndarray:
        try:
            value = np.array(getattr(self, field), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{field} is {getattr(self, field)!r:.80}, expected numbers") from error
        if not np.isfinite(value).all():
            raise DataError(f"{field} holds values that are not finite, expected finite numbers")
        if value.ndim == 0:
            return float(value)
        if field not in _OF_TARGETS and value.shape not in (self.sample_shape, (self.n_features,)):
            raise DataError(
                f"{field} has shape {value.shape}, expected one number, ({self.n_features},) or "
                f"{self.sample_shape}"
            )
        value = value.reshape(-1)
        value.flags.writeable = False
        return value


def _fits(shape: tuple[int, ...], sample_shape: tuple[int, ...]) -> bool:
    # Axes of length one are only bookkeeping: (B, 28, 28, 1) and (B, 1, 28, 28) are both images of 28 x 28.
    def core(sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(size for size in sizes if size != 1)

    return len(shape) >= 2 and core(shape[1:]) in (core(sample_shape), core((math.prod(sample_shape),)))


def _wanted(sample_shape: tuple[int, ...]) -> str:
    flat = f"(B, {math.prod(sample_shape)})"
    return flat if len(sample_shape) == 1 else f"(B, {', '.join(map(str, sample_shape))}) or {flat}"


def _plain(value: float | np.ndarray) -> float | list[float]:
    return value.tolist() if isinstance(value, np.ndarray) else float(value)


def _from_plain(value: Any) -> float | np.ndarray:
    return np.array(value, dtype=np.float64) if isinstance(value, list) else float(value)
