"""What a sample counts by its class: every form of `class_weight`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from ..data.checks import check_weights
from ..errors import ConfigError

ClassWeight = Mapping[Any, float] | Sequence[Any] | np.ndarray | str | Callable[[np.ndarray], Any] | None

_FORMS = "a dict, 'balanced', one number per class, or a function of y"
_FORMS_MANY = "'balanced', a list of one dict {0: ..., 1: ...} per label, or a function of y"


def weigh(spec: ClassWeight, t: np.ndarray, classes: np.ndarray, w: np.ndarray | None) -> Any:
    """Return the factor of each sample (N,) that `class_weight` of `fit` or of an estimator asks for.

    Parameters
    ----------
    spec : dict, "balanced", sequence or callable
        One label per sample: a weight by label (others 1), N / (C count), one number per class in sorted order, or
        a function of the labels (N,) that returns one of these or a weight per sample. Several labels per sample:
        "balanced", one dict {0: ..., 1: ...} per label, or such a function of y (N, O); the factors of a sample's
        labels are multiplied, as in `sklearn.utils.class_weight.compute_sample_weight`.
    t : numpy.ndarray
        (N,) indices into `classes`, or (N, O) of 0 and 1.
    classes : numpy.ndarray (C,) or (O,)
    w : numpy.ndarray (N,), optional
        Weights that "balanced" counts by.

    Raises
    ------
    ConfigError
        Another form, a label that there is not, or a weight that is no finite number >= 0.
    DataError
        No sample has a weight above zero, or a function gave weights that cannot be used.

    Examples
    --------
    >>> weigh("balanced", np.array([0, 0, 0, 1]), np.array(["a", "b"]), None)
    array([0.66666667, 0.66666667, 0.66666667, 2.        ])
    """
    if callable(spec):
        found = spec(classes[t] if t.ndim == 1 else t.astype(np.int64))
        per_sample = isinstance(found, np.ndarray) and found.shape == (len(t),)
        return (
            check_weights(found, len(t), name="class_weight") if per_sample else weigh(found, t, classes, w)
        )
    if t.ndim == 1:
        return check_weights(_table(spec, t, classes, w)[t], len(t), name="class_weight")
    columns = t.astype(np.int64).T
    if isinstance(spec, str):
        specs: Sequence[Any] = [spec] * len(columns)
    elif (
        isinstance(spec, Sequence) and len(spec) == len(columns) and all(isinstance(s, Mapping) for s in spec)
    ):
        specs = spec
    else:
        raise ConfigError(
            f"class_weight for {len(columns)} labels per sample must be {_FORMS_MANY}, found {spec!r:.100}"
        )
    yes_or_no = np.arange(2)
    factors = [_table(s, c, yes_or_no, w)[c] for s, c in zip(specs, columns, strict=True)]
    return check_weights(np.prod(factors, axis=0), len(t), name="class_weight")


def _table(spec: Any, t: np.ndarray, classes: np.ndarray, w: np.ndarray | None) -> np.ndarray:
    """The weight of each class (C,)."""
    if isinstance(spec, str):
        if spec != "balanced":
            raise ConfigError(f"class_weight must be {_FORMS}, found {spec!r}")
        mass = np.bincount(t, weights=w, minlength=len(classes))
        # classes that do not occur have no sample to weigh
        return mass.sum() / (np.count_nonzero(mass) * np.where(mass > 0, mass, 1.0))
    if isinstance(spec, Mapping):
        table = np.ones(len(classes))
        for label, weight in spec.items():
            if label not in classes:
                raise ConfigError(f"class_weight names {label!r}, which is none of {classes}")
            table[np.flatnonzero(classes == label)[0]] = _number(weight, label)
        return table
    if not isinstance(spec, (Sequence, np.ndarray)) or np.ndim(spec) != 1:
        raise ConfigError(f"class_weight must be {_FORMS}, found {spec!r:.100}")
    if len(spec) != len(classes):
        raise ConfigError(f"class_weight has {len(spec)} numbers for {len(classes)} classes: {classes}")
    weights = spec.tolist() if isinstance(spec, np.ndarray) else spec
    return np.array([_number(weight, label) for weight, label in zip(weights, classes.tolist(), strict=True)])


def _number(weight: Any, label: Any) -> float:
    if not isinstance(weight, Real) or not 0.0 <= float(weight) < np.inf:
        raise ConfigError(f"class_weight of class {label!r} must be a finite number >= 0, found {weight!r}")
    return float(weight)
