"""Operands in bfloat16: where their rounded copies lie, and until when they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import Array
from . import formulas
from .schedule import region

if TYPE_CHECKING:
    from .backend import CudaBackend


class RoundedCopies:
    """Rounded copies of the operands of products; while a step is recorded, each is made once.

    Parameters
    ----------
    be : CudaBackend
    """

    def __init__(self, be: CudaBackend):
        self._be = be
        # While a step is recorded: the memory that was read, and its copy, by where and how the operand lies
        self._known: dict[tuple[int, ...], tuple[range, Array]] | None = None

    def start(self) -> None:
        """Keep copies from now on."""
        self._known = {}

    def stop(self) -> None:
        """Forget all copies, and keep none."""
        self._known = None

    def of(self, x: Array) -> Array:
        """`x` in bfloat16, rows padded to a multiple of 8 numbers, which the fast products want."""
        key = self._place(x)
        if self._known is not None and key in self._known:
            return self._known[key][1]
        copy = self.empty(x)
        if copy.ndim == 3 and copy.strides[0] < copy.strides[1]:  # rows in the order of memory
            self._be.map(same, x.transpose(1, 0, 2), out=copy.transpose(1, 0, 2))
        else:
            self._be.map(same, x, out=copy)
        self.keep(x, copy)
        return copy

    def empty(self, x: Array) -> Array:
        """The array for `x` in bfloat16, not filled; members of a population that lie side by side stay so."""
        beside = x.ndim == 3 and x.strides[0] < x.strides[1]
        *lead, width = x.transpose(1, 0, 2).shape if beside else x.shape
        copy = self._be.memory("bfloat16", (*lead, -(-width // 8) * 8), formulas.BFLOAT16, *self._place(x))
        return copy[..., :width].transpose(1, 0, 2) if beside else copy[..., :width]

    def keep(self, x: Array, copy: Array) -> None:
        """`copy` is `x` in bfloat16, as long as nothing is written to `x`."""
        if self._known is not None:
            self._known[self._place(x)] = (region(self._be.runtime.address(x), x), copy)

    def written(self, *outs: Array) -> None:
        """Forget the copies of what has just been written."""
        if self._known:
            for out in outs:
                fresh = region(self._be.runtime.address(out), out)
                for key, (source, _) in list(self._known.items()):
                    if source.start < fresh.stop and fresh.start < source.stop:
                        del self._known[key]

    def _place(self, x: Array) -> tuple[int, ...]:
        return (self._be.runtime.address(x), *x.shape, *x.strides)


def same(ns: Any, x: Any) -> Any:
    """The formula of a copy."""
    return x
