"""What a network does to the plane, small enough to send many times a second."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

import xpnet

from .settings import PLANE

GRID = 60  # points along a side, for the probabilities
UNIT_GRID = 30  # and for the units


def plane(n: int) -> np.ndarray:
    """Return the middles of n x n squares that tile the plane, (n * n, 2), row by row from the top left."""
    t = ((np.arange(n) + 0.5) / n * 2 - 1) * PLANE
    across, up = np.meshgrid(t, -t)
    return np.column_stack([across.ravel(), up.ravel()])


_PLANES = {n: plane(n) for n in (GRID, UNIT_GRID)}


def picture(model: xpnet.MLP) -> dict[str, Any]:
    """Return probabilities and unit outputs over the plane, and the weights, ready for JSON.

    Parameters
    ----------
    model : MLP
        From 2 inputs to C outputs, which are logits.

    Returns
    -------
    dict
        ``grid``: C maps of GRID x GRID bytes, 255 for probability 1. ``units``: per hidden layer the maps of
        UNIT_GRID x UNIT_GRID bytes, 128 for zero, and for each the output that 255 stands for (and 1 its negative).
        ``weights``: per layer a matrix (O, I).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        p = _softmax(model.outputs(_PLANES[GRID]).astype(np.float64))
        hidden = model.activations(_PLANES[UNIT_GRID])[:-1]
    names = [name for name in model.params if name.endswith("weight")]
    found = model.get_weights()
    matrices = [_merged(found[name], o) for name, o in zip(names, model.sizes[1:], strict=True)]
    return {
        "grid": {"n": GRID, "classes": p.shape[1], "bytes": _packed(255.0 * p.T)},
        "units": {"n": UNIT_GRID, "layers": [_layer(h) for h in hidden]},
        "weights": [w.round(3).tolist() for w in matrices],
    }


def _softmax(h: np.ndarray) -> np.ndarray:
    h = np.nan_to_num(h, nan=0.0, posinf=1e30, neginf=-1e30)
    e = np.exp(h - h.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _layer(h: np.ndarray) -> dict[str, Any]:
    h = np.nan_to_num(h.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    # each unit in colours of its own, so that its shape is seen; one that hardly ever answers stays pale
    largest = np.abs(h).max(axis=0)
    scale = np.maximum(largest, 0.02 * (largest.max() or 1.0))
    return {
        "units": h.shape[1],
        "scales": [float(f"{v:.3g}") for v in scale],
        "bytes": _packed(128.0 + 127.0 * (h / scale).T),
    }


def _merged(w: np.ndarray, n_out: int) -> np.ndarray:
    """Return one matrix (O, I) of a maxout layer, whose pieces follow each other: their mean."""
    w = np.nan_to_num(w.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    return w.reshape(-1, n_out, w.shape[1]).mean(axis=0)


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(values.round().clip(0, 255).astype(np.uint8).tobytes()).decode("ascii")
