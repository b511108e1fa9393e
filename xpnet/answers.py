"""What outputs mean: probabilities and predictions, as the task and the loss of a network imply."""

from __future__ import annotations

from typing import Any

from .activations import _sigmoid
from .backend import Backend, get_backend
from .interchange import astype, is_foreign, namespace
from .losses import Loss


def probabilities(h: Any, loss: Loss, task: str | None, be: Backend) -> Any:
    """Return probabilities (..., C) of outputs h (..., O) of a network on `be`; h may be overwritten."""
    xp = namespace(h)
    if loss.link == "softmax":
        return (be if is_foreign(h) else get_backend("cpu")).softmax(h, out=h)
    p = _sigmoid(xp, h) if loss.link == "sigmoid" else xp.clip(h, 0.0, 1.0)
    if task == "multilabel":
        return p
    if p.shape[-1] == 1:
        return xp.concat([1.0 - p, p], axis=-1)
    total = xp.sum(p, axis=-1, keepdims=True)
    some = total > 0.0
    share = p / xp.where(some, total, xp.ones_like(total))
    return xp.where(some, share, xp.full_like(share, 1.0 / p.shape[-1]))


def predictions(h: Any, loss: Loss, task: str | None) -> Any:
    """Return class indices (...), labels (..., O) or predicted values (..., O) of outputs h (..., O)."""
    xp = namespace(h)
    if task == "regression":
        return xp.exp(h) if loss.link == "exp" else h
    if task == "multilabel":
        return astype(h > loss.threshold, "int64")
    if h.shape[-1] == 1:
        return astype(h[..., 0] > loss.threshold, "int64")
    return xp.argmax(h, axis=-1)
