"""What outputs mean: probabilities and predictions, as the task and the loss of a network imply."""

from __future__ import annotations

from typing import Any

from ..backend import Backend, get_backend
from ..interchange import astype, is_foreign, namespace
from ..losses import Loss

#: The part of what smoothing gives every class that `unsmoothed` leaves where a network is surer than it learned.
LEAST = 0.05


def probabilities(h: Any, loss: Loss, task: str | None, be: Backend) -> Any:
    """Return probabilities (..., C) of outputs h (..., O) of a network on `be`; h may be overwritten."""
    xp = namespace(h)
    if loss.link == "softmax":
        be = be if is_foreign(h) else get_backend("cpu")
        with be.lock:
            return be.softmax(h, out=h)
    if loss.link == "sigmoid":
        # 1 / (1 + e) and e / (1 + e): small probabilities keep all their digits, of either class
        e = xp.exp(-xp.abs(h))
        larger, smaller = 1.0 / (1.0 + e), e / (1.0 + e)
        p, rest = xp.where(h >= 0.0, larger, smaller), xp.where(h >= 0.0, smaller, larger)
    else:
        p = xp.clip(h, 0.0, 1.0)
        rest = 1.0 - p
    if task == "multilabel":
        return p
    if p.shape[-1] == 1:
        return xp.concat([rest, p], axis=-1)
    total = xp.sum(p, axis=-1, keepdims=True)
    some = total > 0.0
    share = p / xp.where(some, total, xp.ones_like(total))
    return xp.where(some, share, xp.full_like(share, 1.0 / p.shape[-1]))


def unsmoothed(p: Any, s: float) -> Any:
    """Return what probabilities p (..., C) say about labels, where the network learned labels smoothed by s.

    Smoothing makes (1 - s) q + s / C of probabilities q; so q is (p - s / C) / (1 - s), but at least s / (20 C), and
    the whole is divided by its sum. The largest stays the largest.

    Examples
    --------
    >>> import numpy as np
    >>> unsmoothed(np.array([[0.95, 0.05], [0.68, 0.32]]), 0.1).round(4).tolist()
    [[0.9975, 0.0025], [0.7, 0.3]]
    """
    xp, share = namespace(p), s / p.shape[-1]
    q = (p - share) / (1.0 - s)
    least = xp.full_like(q, LEAST * share)
    q = xp.where(q > least, q, least)
    return q / xp.sum(q, axis=-1, keepdims=True)


def predictions(h: Any, loss: Loss, task: str | None, be: Backend) -> Any:
    """Return class indices (...), labels (..., O) or predicted values (..., O) of outputs h (..., O) of `be`."""
    if task == "regression":
        return namespace(h).exp(h) if loss.link == "exp" else h
    if task == "multilabel":
        return astype(h > loss.threshold, "int64")
    if h.shape[-1] == 1:
        return astype(h[..., 0] > loss.threshold, "int64")
    with be.lock:
        return be.argmax(h, out=be.empty(h.shape[:-1], "int64"))
