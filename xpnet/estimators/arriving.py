"""Samples, targets and weights as users give them, checked; what lies on a device stays there."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import validate_data

from ..data.checks import check_weights
from ..errors import DataError
from ..interchange import astype, dtype_name, follow, is_foreign, kind, namespace, to_host
from .missing import check_present
from .rows import check_numbers

INPUT_TYPES = (np.float64, np.float32, np.uint8)


def check_pair(estimator: Any, x: Any, y: Any, *, reset: bool, numeric: bool) -> tuple[Any, Any]:
    """Return samples and targets, checked as scikit-learn does; those on a device stay there.

    `reset` says whether the number and the names of the features are learned, or compared; `numeric` whether targets
    are numbers, and no labels.
    """
    check_present(y, labels=not numeric)
    if is_foreign(x):
        return check_samples_there(estimator, x, reset=reset), _check_targets(estimator, x, y, numeric)
    x, y = validate_data(
        estimator, x, y, reset=reset, accept_sparse="csr", multi_output=True, dtype=INPUT_TYPES,
        y_numeric=numeric,
    )  # fmt: skip
    if numeric:
        check_numbers(y, "y")  # scikit-learn does not look at infinity among objects
    return x, y


def check_samples_there(estimator: Any, x: Any, *, reset: bool) -> Any:
    """Check samples on a device: their kind by one such row, which scikit-learn looks at; their numbers there."""
    row = validate_data(estimator, _row_like(x), reset=reset, dtype=INPUT_TYPES)
    x = astype(x, row.dtype.name, copy=False)
    check_numbers(x)
    return x


def _check_targets(estimator: Any, x: Any, y: Any, numeric: bool) -> Any:
    there = is_foreign(y) and kind(y) in "iuf"
    y = y if there else to_host(y, "y")
    if y is None:
        raise DataError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None."
        )
    host = check_array(
        _row_like(y) if there else y, accept_sparse="csr", ensure_2d=False, dtype=None, input_name="y",
        estimator=estimator,
    )  # fmt: skip
    check_consistent_length(x, y if there else host)
    if there:
        check_numbers(y, "y")
        return y
    return host.astype(np.float64) if numeric and host.dtype.kind == "O" else host


def checked_weights(w: Any, x: Any, name: str = "sample_weight") -> Any:
    """Return weights (N,) of mean 1 over the samples that have any, where the samples x (N, ...) are; or None."""
    if w is None:
        return None
    w = follow(x, astype(check_weights(w, x.shape[0], name=name), "float64"))
    return w / namespace(w).mean(w[w > 0.0])


def scored_on_host(x: Any) -> bool:
    """Say whether answers about x are to be scored as NumPy arrays: scikit-learn takes no others unless told to."""
    return is_foreign(x) and not get_config()["array_api_dispatch"]


def _row_like(x: Any) -> np.ndarray:
    """One row (none, where there is none) of the shape and type of an array on a device."""
    try:
        dtype = np.dtype(dtype_name(x))
    except TypeError:  # bfloat16
        dtype = np.dtype(np.float16)
    return np.zeros((min(x.shape[0], 1), *x.shape[1:]) if x.ndim else (), dtype)


def validation_pair(x: Any, y: Any, w: Any, *, labels: bool = True) -> bool:
    """Say whether a validation set was given; half of one is an error, and so is a target that is missing."""
    if (x is None) != (y is None):
        raise DataError("X_val and y_val belong together; found only one of them")
    if x is None and w is not None:
        raise DataError("sample_weight_val needs X_val and y_val")
    check_present(y, "y_val", labels=labels)
    return x is not None
