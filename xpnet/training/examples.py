"""Data on its way to the device: checked once, where they are, then gathered batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from ..backend import Array, Backend
from ..data.checks import check_features, check_labels, check_targets, check_trainable_labels, check_weights
from ..data.dataset import TASKS as TASKS
from ..data.dataset import Preprocessing
from ..errors import ConfigError, DataError
from ..interchange import arrive, astype, dtype_name, follow, is_foreign, kind, namespace, to_host
from ..losses import Loss, get_loss
from .classweight import ClassWeight, weigh

if TYPE_CHECKING:
    from ..mlp import MLP


@runtime_checkable
class RowSource(Protocol):
    """Samples that stay on the host and become rows one batch at a time, such as a sparse matrix.

    Whoever makes one vouches for its numbers: rows of finite values that fit the model's dtype.
    """

    shape: tuple[int, int]

    def take_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the samples whose indices are `rows` (B,) int64, as (B, I)."""
        ...

    def checksum(self) -> int:
        """Return a number that tells these samples from others."""
        ...


@dataclass(frozen=True)
class Examples:
    """Checked data on the device.

    Parameters
    ----------
    x : Array or RowSource
        Samples (N, I): pixels raw, as stored (uint8 stays uint8), all others scaled already.
    n : int
        N.
    labels : Array or None
        Class indices (N,) int64 for classification with two outputs or more.
    targets : Array or None
        Targets (N, O) otherwise; also soft labels.
    weights : Array or None
        Weight of each example (N,).
    scale, shift : number or Array
        What is left to do: rows become ``x * scale + shift``.
    """

    x: Array
    n: int
    labels: Array | None = None
    targets: Array | None = None
    weights: Array | None = None
    scale: Any = 1.0
    shift: Any = 0.0


def infer_task(y: Any, loss: Loss | None, width: int) -> str:
    """Say what kind of targets `y` are.

    Whole numbers in one dimension are class labels where the loss takes them (for a single output, where it
    is not the squared error); two dimensions are one target per output, and with the binary cross-entropy one
    label per output. Without a loss, numbers that are all 0 or 1 are labels, of any type, as other libraries want them:
    in one dimension or column two classes; in rows of several classes where every row has a single 1, else labels of
    several kinds. `fit(task=...)` overrules.

    Examples
    --------
    >>> infer_task(np.array([0, 2, 1]), None, 3), infer_task(np.array([0.5, 2.0]), None, 1)
    ('classification', 'regression')
    >>> infer_task(np.eye(3), None, 3), infer_task(np.ones((2, 3), dtype=bool), None, 3)
    ('classification', 'multilabel')
    """
    y = y if is_foreign(y) else np.asarray(y)
    whole = kind(y) in "iub"
    if loss is None:
        marks = y.ndim in (1, 2) and _are_marks(y)
        if marks and y.ndim == 2 and y.shape[1] > 1:
            xp = namespace(y)
            single = bool(xp.all(xp.sum(astype(y, "int64"), axis=1) == 1))
            return "classification" if single else "multilabel"
        return "classification" if marks or (whole and y.ndim == 1) else "regression"
    if not loss.classify:
        return "regression"
    if loss.link == "softmax":
        return "classification"
    if loss.name == "binary_cross_entropy" and y.ndim == 2 and width > 1:
        return "multilabel"
    if loss.regress:
        return "classification" if whole and y.ndim == 1 and width > 1 else "regression"
    return "classification"


def _are_marks(y: Any) -> bool:
    """Whether all numbers are 0 or 1; where they are not whole by their type, both, as all 0.0 says nothing."""
    if kind(y) not in "iubf" or 0 in y.shape:
        return False
    xp = namespace(y)
    only = kind(y) == "b" or bool(xp.all((y == 0) | (y == 1)))
    return only and (kind(y) != "f" or bool(xp.any(y == 0) and xp.any(y == 1)))


def default_loss(task: str, width: int) -> Loss:
    """The usual loss of a task: softmax or binary cross-entropy for classes, squared error for numbers."""
    if task == "regression":
        return get_loss("squared_error")
    softmax = task == "classification" and width > 1
    return get_loss("softmax_cross_entropy" if softmax else "binary_cross_entropy")


def prepare(
    model: MLP, x: Any, y: Any, *, loss: Loss, task: str, sample_weight: Any = None,
    class_weight: ClassWeight = None, name: str = "", training: bool = True,
) -> Examples:  # fmt: skip
    """Check data for `model` and bring them to its device; what is there already (see `arrive`) stays.

    Parameters
    ----------
    model : MLP
        Its `preprocessing` says how raw samples become rows.
    x : array_like (N, ...) or RowSource
    y : array_like (N,) or (N, O)
    loss : Loss
    task : {"classification", "multilabel", "regression"}
    sample_weight : array_like (N,), optional
    class_weight : dict, "balanced", sequence or callable, optional
        Weight of each class; "balanced" is N / (C count).
    name : str
        Put before X and y in messages, such as "validation ".
    training : bool, default True
        Training needs at least two classes.

    Raises
    ------
    DataError
        Anything about the data that cannot be used; the message says what to do.
    """
    width = model.sizes[-1]
    recipe = model.preprocessing or Preprocessing((model.sizes[0],))
    if isinstance(x, RowSource):
        n, rows = x.shape[0], x
        if x.shape[1] != model.sizes[0]:
            raise DataError(f"{name}X has {x.shape[1]} features per sample, expected {model.sizes[0]}")
    else:
        rows, recipe = _rows(model, x, recipe, name)
        rows = model.be.asarray(rows)
        n = int(rows.shape[0])
    examples = Examples(
        rows, n, scale=_factor(model, recipe.scale),
        shift=_factor(model, recipe.shift),
    )  # fmt: skip
    if task == "classification":
        if getattr(y, "ndim", 1) == 2 and y.shape[1] == 1 and width <= 2:  # a column of them
            y = namespace(y).reshape(y, (-1,))
        try:
            y = check_labels(y, n, n_classes=max(width, 2), name=f"{name}y")
        except DataError as error:
            if width > 1:
                raise
            raise DataError(f"{error}; to predict numbers instead, say task='regression'") from None
        if training:
            check_trainable_labels(y)
        examples = _with_classes(model, examples, y, loss, width)
    else:
        if task == "regression" and width > 1 and np.ndim(y) == 1 and not is_foreign(y):
            raise DataError(
                f"{name}y has shape {np.shape(y)}, but the network has {width} outputs: for class labels give whole "
                f"numbers, such as y.astype(int), or names as xpnet.data.encode_labels makes them; to predict numbers, "
                f"one column for each output"
            )
        y = check_targets(y, n, width, unit_interval=task == "multilabel", name=f"{name}y")
        if loss.link == "exp" and bool(namespace(y).any(y < 0)):
            raise DataError(
                f"{name}y has {int((to_host(y) < 0).sum())} negative values; the Poisson loss needs counts >= 0"
            )
        if (units := model.units_for(task, loss)) is not None:
            y = units.learnt(y)
        examples = replace(examples, targets=model.be.asarray(_narrowed(y, model.dtype, f"{name}y")))
    weights = example_weights(
        y, n, task=task, n_classes=max(width, 2), dtype=model.dtype, sample_weight=sample_weight,
        class_weight=class_weight, name=name,
    )  # fmt: skip
    return examples if weights is None else replace(examples, weights=model.be.asarray(weights))


def example_weights(
    y: Any, n: int, *, task: str, n_classes: int, dtype: str, sample_weight: Any = None,
    class_weight: ClassWeight = None, name: str = "",
) -> Any:  # fmt: skip
    """Return the weight of each example, sample_weight times class_weight, or None where there are none.

    Parameters
    ----------
    y : (N,) or (N, C) array
        The targets, checked.
    n : int
        N.
    task : {"classification", "multilabel", "regression"}
    n_classes : int
    dtype : str
        Of the result.
    sample_weight, class_weight, name
        As for `prepare`.

    Raises
    ------
    DataError, ConfigError
        Weights that cannot be used.
    """
    weights = None if sample_weight is None else check_weights(sample_weight, n, name=f"{name}sample_weight")
    if class_weight is not None:
        if task != "classification":
            raise ConfigError(f"class_weight needs class labels, but the task is {task}")
        if y.ndim != 1:
            raise ConfigError("class_weight needs class indices, not rows of probabilities")
        by_class = weigh(class_weight, to_host(y), np.arange(n_classes), to_host(weights))
        weights = by_class if weights is None else weights * follow(weights, by_class)
    return None if weights is None else _usable_weights(weights, dtype, name)


def _rows(model: MLP, x: Any, recipe: Preprocessing, name: str) -> tuple[Any, Preprocessing]:
    """Check samples and flatten them to (N, I); returns them and what is still to be done to their batches.

    They get a type that loses nothing the model needs: pixels stay as they are stored, what float32 cannot tell apart
    before it is scaled is scaled now, once.
    """
    x = check_features(x, n_features=model.sizes[0], name=f"{name}X")
    keeps = recipe.keeps(x)
    try:
        if not keeps:
            rows = recipe(x, model.dtype)
        elif x.ndim == 2 or model.preprocessing is not None:  # else samples of any shape, which are flattened
            recipe(
                np.zeros((1, *x.shape[1:]))
            )  # the shape of one sample, checked with the message of prediction
    except DataError as error:
        raise DataError(f"{name}{error}") from None
    if not keeps:
        return _in_a_row(model, rows), Preprocessing((model.sizes[0],))
    rows = namespace(x).reshape(x, (x.shape[0], -1))
    if kind(rows) == "f" and dtype_name(rows) != model.dtype:
        rows = _narrowed(rows, model.dtype, f"{name}X")
    elif kind(rows) == "b":
        rows = astype(rows, "uint8")
    return _in_a_row(model, rows), recipe


def _in_a_row(model: MLP, rows: Any) -> Any:
    """Rows that lie in memory one after the other, as `Backend.gather` reads them quickly."""
    if not is_foreign(rows):
        return np.ascontiguousarray(rows)
    flags = getattr(rows, "flags", None)  # libraries without do not ask for it
    if flags is None or flags.c_contiguous:
        return rows
    copy = model.be.empty(rows.shape, dtype_name(rows))
    copy[...] = rows
    return copy


def _usable_weights(weights: Any, dtype: str, name: str) -> Any:
    positive = weights[weights > 0.0]
    if positive.shape[0] == 0:
        raise DataError(f"every {name}sample_weight times its class_weight is zero; nothing would be learned")
    xp = namespace(positive)
    least, most = float(xp.min(positive)), float(xp.max(positive))
    # sums and shares of weights within these limits are exact enough in float32
    if least < 1e-20 or most > 1e20:
        raise DataError(
            f"{name}sample_weight ranges from {least:.3g} to {most:.3g}; "
            "only ratios count, so scale the weights to about 1"
        )
    return astype(weights, dtype)


def _narrowed(x: Any, dtype: str, name: str) -> Any:
    with np.errstate(over="ignore"):
        narrow = astype(x, dtype)
    xp = namespace(narrow)
    if not bool(xp.all(xp.isfinite(narrow))):
        raise DataError(f"{name} holds values too large for {dtype}; scale them down, or use dtype='float64'")
    return narrow


def _factor(model: MLP, value: float | np.ndarray) -> Any:
    return value if isinstance(value, float) else model.be.asarray(value, model.dtype)


def _with_classes(model: MLP, examples: Examples, y: Any, loss: Loss, width: int) -> Examples:
    if width > 1 and y.ndim == 1:
        return replace(examples, labels=model.be.asarray(y, "int64"))
    t = y if y.ndim == 2 else y[:, None]
    if width == 1:
        t = t[:, -1:]  # soft labels for one output: the probability of class 1
        if loss.signed:
            t = 2.0 * t - 1.0
    elif loss.signed:
        raise ConfigError(f"the {loss.name} loss takes class indices, not rows of probabilities")
    return replace(examples, targets=model.be.asarray(t, model.dtype))


def pair(name: str, data: Any, be: Backend) -> tuple[Any, Any]:
    """Return X and y of what should be a pair of them, on the device of `be` or the host; `name` is for messages."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        found = type(data).__name__
        whole = hasattr(data, "shape") or isinstance(data, (Sequence, Mapping))
        if isinstance(data, Iterable) and not whole:
            raise DataError(
                f"{name} must be a pair (X, y) of whole arrays, found {found}, which gives them in parts: collect them "
                "first, open files that do not fit into memory as np.load(path, mmap_mode='r'), or learn from a stream "
                "with partial_fit of MLPClassifier and MLPRegressor"
            )
        raise DataError(f"{name} must be a pair (X, y), found {found}")
    return arrive(data[0], be, f"X of {name}"), arrive(data[1], be, f"y of {name}")
