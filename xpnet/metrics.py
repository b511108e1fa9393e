"""Metrics of a classifier, from labels and predictions, through the back end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .backend import Array, Backend
from .interchange import astype, namespace

_CHUNK = 65536  # rows per one-hot matrix


def _one_hot(ns: Any, label: Array, classes: Array, zero: Array) -> Array:
    return ns.where(label == classes, 1.0, zero)


def confusion_matrix(be: Backend, labels: Array, predicted: Array, n_classes: int) -> Array:
    """Count predictions: entry (i, j) is how many samples of class i were called j.

    Parameters
    ----------
    be : Backend
    labels, predicted : (N,) int64 arrays of class indices
    n_classes : int
        C.

    Returns
    -------
    (C, C) float64 array of whole numbers

    Examples
    --------
    >>> from xpnet.backend import get_backend
    >>> be = get_backend("cpu")
    >>> confusion_matrix(be, be.asarray([0, 1, 1]), be.asarray([0, 1, 0]), 2).tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    classes = be.asarray(list(range(n_classes)), "int64")
    zero = be.asarray([0.0], "float64")
    total = be.empty((n_classes, n_classes), "float64")
    total[...] = 0.0
    part = be.empty((n_classes, n_classes), "float64")
    n = labels.shape[0]
    for start in range(0, n, _CHUNK):
        piece = slice(start, min(start + _CHUNK, n))  # the Array API has no slices beyond the end
        hot = []
        for values in (labels[piece], predicted[piece]):
            out = be.empty((values.shape[0], n_classes), "float64")
            hot.append(be.map(_one_hot, be.xp.expand_dims(values, axis=-1), classes, zero, out=out))
        be.matmul(hot[0], hot[1], ta=True, out=part)
        be.map(lambda ns, a, b: a + b, total, part, out=total)
    return total


def class_report(matrix: Any, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Per-class precision, recall and F1 from a confusion matrix on the host; None where undefined.

    Parameters
    ----------
    matrix : (C, C) array or nested list
    classes : sequence of str
        C names.

    Returns
    -------
    list of dict
        One per class: "class", "precision", "recall", "f1" (shares from 0 to 1), and "support", its samples.

    Examples
    --------
    >>> class_report([[1, 0], [1, 1]], ["no", "yes"])[1]
    {'class': 'yes', 'precision': 1.0, 'recall': 0.5, 'f1': 0.6666666666666666, 'support': 2}
    """
    rows = [[float(v) for v in row] for row in matrix]
    report = []
    for k, name in enumerate(classes):
        hit, called, support = rows[k][k], sum(row[k] for row in rows), sum(rows[k])
        report.append({
            "class": name,
            "precision": hit / called if called else None,
            "recall": hit / support if support else None,
            "f1": 2.0 * hit / (called + support) if called + support else None,
            "support": int(support),
        })  # fmt: skip
    return report


def calibration(probabilities: Any, right: Any, bins: int = 15) -> dict[str, float]:
    """Return how sure a classifier is on average, and how far that is from how often it is right.

    Samples are put into bins of equal width by confidence, the probability of the class that was predicted. The
    calibration error is the mean over samples of their bin's |mean confidence - share of right answers| (Naeini,
    Cooper, Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015). With few
    samples in a bin it is above zero for a perfect classifier, too.

    Parameters
    ----------
    probabilities : (N,) array
        Confidence of each answer, from 0 to 1.
    right : (N,) bool array, of the same library
        Whether the answer was right.
    bins : int, default 15

    Returns
    -------
    dict
        "confidence", the mean, and "calibration_error", shares from 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> sure = np.array([0.75, 0.75, 0.75, 0.75])
    >>> calibration(sure, np.array([True, True, True, False]))
    {'confidence': 0.75, 'calibration_error': 0.0}
    >>> calibration(sure, np.array([True, False, True, False]))["calibration_error"]
    0.25
    """
    xp, n = namespace(probabilities), probabilities.shape[0]
    confidence = astype(probabilities, "float64")
    gap = confidence - astype(right, "float64")
    number = xp.floor(confidence * bins)
    number = xp.where(number >= bins, number - 1.0, number)  # a confidence of 1 is in the last bin
    # |sum of a bin's gaps| is its samples times |mean confidence - share of right answers|
    error = sum(abs(float(xp.sum(xp.where(number == b, gap, 0.0 * gap)))) for b in range(bins)) / n
    return {"confidence": float(xp.mean(confidence)), "calibration_error": error}


def regression_scores(truth: Any, predicted: Any, weight: Any = None) -> dict[str, float | None]:
    """Return the root mean squared error, the mean absolute error and R2 of predictions, computed where they are.

    R2 is 1 - sum (t - p)^2 / sum (t - mean t)^2, None where the truth does not vary. With several outputs it is the
    mean of theirs, and so are the errors.

    Parameters
    ----------
    truth, predicted : (N, O) float64 arrays, of one library
    weight : (N,) array, optional
        What each row counts; all the same by default.

    Returns
    -------
    dict
        "rmse" and "mae" in the units of the truth, and "r2".

    Examples
    --------
    >>> import numpy as np
    >>> regression_scores(np.array([[1.0], [3.0]]), np.array([[1.0], [2.0]]))
    {'rmse': 0.7071067811865476, 'mae': 0.5, 'r2': 0.5}
    """
    xp = namespace(predicted)
    error = predicted - truth
    squares, mean = _mean(xp, error * error, weight), _mean(xp, truth, weight)
    spread = _mean(xp, (truth - mean) ** 2, weight)
    known = bool(xp.all(spread > 0.0))
    return {
        "rmse": float(xp.mean(squares**0.5)), "mae": float(xp.mean(_mean(xp, xp.abs(error), weight))),
        "r2": float(xp.mean(1.0 - squares / spread)) if known else None,
    }  # fmt: skip


def _mean(xp: Any, rows: Any, weight: Any) -> Any:
    """The mean of rows (N, O), weighted by `weight` (N,) where there is one."""
    if weight is None:
        return xp.mean(rows, axis=0)
    return xp.sum(rows * xp.expand_dims(weight, axis=-1), axis=0) / xp.sum(weight)
