"""The order in which a training meets its examples: drawn epoch by epoch, where its batches are taken from it."""

from __future__ import annotations

import numpy as np

from .. import rng
from ..backend import Array, Backend

# Short orders are drawn for several epochs at once, which costs little more than one.
_SHORT, _AT_ONCE = 1024, 16


class Order:
    """The order of n examples in each epoch of a training.

    Parameters
    ----------
    n : int
        Examples.
    seed : int
    shuffle : bool
        Whether every epoch has an order of its own (`xpnet.rng.permutation` of seed and epoch); else 0, 1, 2, ...
    be : Backend, optional
        A device that draws the orders itself; without, they are drawn on the host.

    Attributes
    ----------
    on_device : Array or None
        The (n,) int64 buffer of the device, where it draws.
    """

    def __init__(self, n: int, seed: int, *, shuffle: bool, be: Backend | None = None):
        self._n, self._seed, self._shuffle, self._be = n, seed, shuffle, be
        self._host: np.ndarray | None = np.arange(n)
        self.on_device: Array = None if be is None else be.asarray(self._host)
        #: The epoch that the device has drawn.
        self._epoch = -1
        #: An epoch, and the orders of that one and those after it.
        self._drawn = (-1, self._host[None])

    def draw(self, epoch: int) -> Array:
        """Return the order of an epoch (from 0), (n,) int64, on the device or on the host."""
        if self._be is None:
            if self._shuffle:
                self._host = self._shuffled(epoch)
            return self._host
        if self._shuffle and self._epoch != epoch:
            self._host, self._epoch = None, epoch
            self._be.permutation(seed=self._seed, epoch=epoch, out=self.on_device)
        return self.on_device

    def prepare(self, epoch: int) -> None:
        """Draw the order of a coming epoch on the host, where that is done there."""
        if self._shuffle and self._be is None:
            self._shuffled(epoch)

    def host(self) -> np.ndarray:
        """Return the order drawn last, on the host, where it is computed again rather than fetched."""
        if self._host is None:
            self._host = self._shuffled(self._epoch)
        return self._host

    def _shuffled(self, epoch: int) -> np.ndarray:
        first, orders = self._drawn
        if not first <= epoch < first + len(orders):
            first, k = epoch, _AT_ONCE if self._n <= _SHORT else 1
            orders = rng.permutations(self._n, [self._seed] * k, range(epoch, epoch + k))
            self._drawn = (first, orders)
        return orders[epoch - first]
