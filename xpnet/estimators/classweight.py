"""What a sample counts by its class: every form of `class_weight`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError

Spec = Mapping[Any, float] | Sequence[Any] | np.ndarray | str | Callable[[np.ndarray], Any] | None

_FORMS = "a dict, 'balanced', one number per class, or a function of y"
_FORMS_MANY = "'balanced', a list of one dict {0: ..., 1: ...} per label, or a function of y"


def weigh(spec: Spec, t: np.ndarray, classes: np.ndarray, w: np.ndarray | None) -> np.ndarray:
    """Return the factor of each sample (N,) that `class_weight` asks for.

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
        Another form, or a label that there is not.
    DataError
        Negative or infinite weights.

    Examples
    --------
    >>> weigh("balanced", np.array([0, 0, 0, 1]), np.array(["a", "b"]), None)
    array([0.66666667, 0.66666667, 0.66666667, 2.        ])
    """
    if callable(spec):
        found = spec(classes[t] if t.ndim == 1 else t.astype(np.int64))
        per_sample = isinstance(found, np.ndarray) and found.shape == (len(t),)
        return _checked(found) if per_sample else weigh(found, t, classes, w)
    if t.ndim == 1:
        return _checked(_table(spec, t, classes, w)[t])
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
    return _checked(np.prod(factors, axis=0))


def _table(spec: Any, t: np.ndarray, classes: np.ndarray, w: np.ndarray | None) -> np.ndarray:
    """The weight of each class (C,)."""
    table = np.ones(len(classes))
    if isinstance(spec, str):
        if spec != "balanced":
            raise ConfigError(f"class_weight must be {_FORMS}, found {spec!r}")
        mass = np.bincount(t, weights=w, minlength=len(table))
        return mass.sum() / (np.count_nonzero(mass) * np.where(mass > 0, mass, 1.0))
    if isinstance(spec, Mapping):
        for label, weight in spec.items():
            if label not in classes:
                raise ConfigError(f"class_weight names {label!r}, which is none of {classes}")
            table[np.flatnonzero(classes == label)[0]] = weight
        return table
    if not isinstance(spec, (Sequence, np.ndarray)) or np.ndim(spec) != 1:
        raise ConfigError(f"class_weight must be {_FORMS}, found {spec!r:.100}")
    if len(spec) != len(classes):
        raise ConfigError(f"class_weight has {len(spec)} numbers for {len(classes)} classes: {classes}")
    return np.asarray(spec, dtype=np.float64)


def _checked(factors: np.ndarray) -> np.ndarray:
    factors = np.asarray(factors, dtype=np.float64)
    if not (np.isfinite(factors).all() and (factors >= 0.0).all()):
        worst = factors[~(np.isfinite(factors) & (factors >= 0.0))][0]
        raise DataError(f"class_weight must give finite weights >= 0, found {worst}")
    return factors
