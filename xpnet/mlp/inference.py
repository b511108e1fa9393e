"""Networks that only answer: forward passes on chunks of samples, each captured once and repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Array
from ..data.arrays import check_finite, is_finite
from ..interchange import is_foreign
from ..workspace import Workspace

if TYPE_CHECKING:
    from .model import MLP

_CHUNK = 1024  # samples per forward pass
_KEPT = 4  # sizes of a chunk that passes are kept for: full ones, a rest, single samples


class Inference:
    """Computes the outputs of one network for any number of samples; its weights may change in between.

    Several threads may ask at once: they take turns, chunk by chunk.
    """

    def __init__(self) -> None:
        self._passes: dict[int, _ForwardPass] = {}

    def __call__(self, model: MLP, rows: Any) -> Any:
        """Return what the last layer gives for rows (B, I) in the model's dtype: (..., B, O), where the rows are.

        Raises
        ------
        DataError
            A number is not finite: it would come out as some class or other.
        """
        n, there = rows.shape[0], is_foreign(rows)
        if there:
            check_finite(rows, "X")
        result = (model.be.empty if there else np.empty)((*model.lead, n, model.sizes[-1]), model.dtype)
        for start in range(0, n, _CHUNK):
            chunk = rows[start : min(start + _CHUNK, n), :]
            size = chunk.shape[0]
            if not there and not is_finite(chunk):  # chunk by chunk, while it is in the cache
                check_finite(rows, "X")
            # the buffers of a pass, and those of the back end, are one thread's at a time
            with model.be.lock:
                if size not in self._passes:
                    if len(self._passes) >= _KEPT:
                        self._passes.clear()
                    self._passes[size] = _ForwardPass(model, size)
                h = self._passes[size](chunk)
                result[..., start : start + size, :] = h if there else model.be.to_numpy(h)
        return result


class _ForwardPass:
    """The forward pass for one number of samples: its buffers, and the captured work on them."""

    def __init__(self, model: MLP, batch: int):
        make = Workspace(model.be, model.dtype).array
        self._be, self._x = model.be, make("x", (batch, model.sizes[0]))
        contexts = model.contexts(batch, make, train=False)
        self._h: Array = None

        def run() -> None:
            self._h = model.forward(self._x, contexts)

        self._run = run
        self._replay: Callable[[], None] | None = None

    def __call__(self, rows: Any) -> Array:
        """The outputs of rows (B, I), in a buffer that the next call overwrites."""
        self._x[...] = self._be.asarray(rows)
        if self._replay is None:
            self._replay = self._be.repeated(self._run)
        else:
            self._replay()
        return self._h
