"""The order in which the members of a block meet the examples: one for all of them, or one for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import rng
from ..backend import Array, Backend
from .members import Member


class Orders:
    """Orders of members, drawn epoch by epoch: on the device where it shuffles, else on the host.

    Parameters
    ----------
    members : sequence of Member
    n : int
        Examples that each member is trained on.
    be : Backend
    own : bool
        Whether each member has an order of its own.
    on_device : bool
        Whether the batches are taken from an order that is on the device.

    Attributes
    ----------
    drawn : bool
        Whether the device draws them; else they are drawn on the host, for members that do not shuffle, too.
    """

    def __init__(self, members: Sequence[Member], n: int, be: Backend, *, own: bool, on_device: bool):
        self._members, self._n, self._be, self._own = members if own else members[:1], n, be, own
        self._on_device = on_device and be.shuffles
        self.drawn = self._on_device and all(m.training["shuffle"] for m in self._members)
        self._order: Array = None  # on the device: the positions that were drawn,
        self._rows: Array = None  # and where members have rows, those, one member after the other,
        self._starts: Array = None  # where each one's begin, unless all have the same,
        self._taken: Array = None  # and the rows at the drawn positions
        if self.drawn:
            self._reserve()

    def _reserve(self) -> None:
        be, n = self._be, self._n
        shape = (len(self._members), n) if self._own else (n,)
        self._order = be.empty(shape, "int64")
        rows = [m.rows for m in self._members]
        if all(r is None for r in rows):
            return
        alike = all(same(r, rows[0]) for r in rows)
        kept = rows[:1] if alike else [np.arange(n) if r is None else r for r in rows]
        self._rows = be.empty((len(kept) * n,), "int64")
        self._rows[...] = be.asarray(np.concatenate(kept))  # type: ignore[arg-type]
        self._starts = None if alike else be.asarray(np.arange(len(kept))[:, None] * n)
        self._taken = be.empty(shape, "int64")

    def draw(self, epochs: Sequence[int]) -> Array:
        """The examples in the order of each member's epoch (from 0), (n,) or (K, n) int64."""
        if self.drawn:
            return self._draw(epochs)
        order = self._on_host(epochs) if self._own else _order(self._members[0], self._n, epochs[0])
        return self._be.asarray(order) if self._on_device else order

    def _draw(self, epochs: Sequence[int]) -> Array:
        be, seeds = self._be, [m.order_seed for m in self._members]
        which = (seeds, epochs) if self._own else (seeds[0], epochs[0])
        be.permutation(seed=which[0], epoch=which[1], out=self._order)
        if self._rows is None:
            return self._order
        if self._starts is not None:
            be.map(_add, self._order, self._starts, out=self._order)
        return be.gather(self._rows, self._order, out=self._taken)

    def _on_host(self, epochs: Sequence[int]) -> np.ndarray:
        n = self._n
        drawn = [
            (m.order_seed, e) if m.training["shuffle"] else None
            for m, e in zip(self._members, epochs, strict=True)
        ]
        pairs = list(dict.fromkeys(d for d in drawn if d is not None))
        made = (
            rng.permutations(n, [s for s, _ in pairs], [e for _, e in pairs]) if pairs else np.empty((0, n))
        )
        found = dict(zip(pairs, made, strict=True))
        orders = np.empty((len(self._members), n), np.int64)
        for m, (member, pair) in enumerate(zip(self._members, drawn, strict=True)):
            order = np.arange(n) if pair is None else found[pair]
            orders[m] = order if member.rows is None else member.rows[order]
        return orders


def same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    """Whether both are missing, or equal."""
    return a is b or (a is not None and b is not None and np.array_equal(a, b))


def alike(members: Sequence[Member], epochs: np.ndarray) -> bool:
    """Whether members at these epochs meet the examples in the same order."""
    first = members[0]
    return all(
        same(m.rows, first.rows)
        and (not m.training["shuffle"] or m.order_seed == first.order_seed)
        and bool(m.training["shuffle"]) == bool(first.training["shuffle"])
        for m in members
    ) and bool((epochs == epochs[0]).all() or not first.training["shuffle"])


def _order(member: Member, n: int, epoch: int) -> np.ndarray:
    """The examples of a member in the order of an epoch."""
    order = rng.permutation(n, member.order_seed, epoch) if member.training["shuffle"] else np.arange(n)
    return order if member.rows is None else member.rows[order]


def _add(ns: Any, a: Array, b: Array) -> Array:
    return a + b
