"""One update of all parameters: penalties, clipping, optimizer, max-norm, in that order."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, fields
from math import prod
from typing import Any

import numpy as np

from ..backend import Array, Backend
from ..errors import ConfigError
from ..optim import Number, Optimizer
from ..params import ParameterLayout


@dataclass(frozen=True, kw_only=True)
class Regularization:
    """What is added to the loss or done to the gradient and the weights.

    Parameters
    ----------
    l1, l2 : float or one per member, default 0
        The penalty l1 sum |w| + (l2 / 2) sum w^2, added to the *mean* loss; weights only, never biases.
        (The tutorials print (lambda / 2) sum |w| for L1: their lambda is 2 l1.)
    clip_value : float, optional
        Limit every entry of the gradient, penalty included, to [-clip_value, clip_value].
    clip_norm : float, optional
        Scale the gradient of each model to at most this Euclidean norm.
    max_norm : float, optional
        After the update, scale each unit's incoming weights to at most this Euclidean norm.
    frozen : tuple of str, optional
        Names of parameters that do not change; their gradients count for nothing, also in `clip_norm`.

    Raises
    ------
    ConfigError
        A number out of range.

    Examples
    --------
    >>> Regularization(l2=1e-4, max_norm=3.0).l1
    0.0
    """

    l1: Number = 0.0
    l2: Number = 0.0
    clip_value: float | None = None
    clip_norm: float | None = None
    max_norm: float | None = None
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("l1", "l2"):
            values = np.atleast_1d(np.asarray(getattr(self, name)))
            good = values.ndim == 1 and values.size and values.dtype.kind in "fiu"
            if not good or not np.all((values >= 0.0) & (values < np.inf)):
                raise ConfigError(f"{name} must be a finite number >= 0, found {getattr(self, name)!r}")
        for name in ("clip_value", "clip_norm", "max_norm"):
            value = getattr(self, name)
            number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
            if value is not None and not (number and 0.0 < value < float("inf")):
                raise ConfigError(f"{name} must be a finite number > 0, found {value!r}")


class Update:
    """Owns the moment buffers and changes the weights in place.

    Parameters
    ----------
    be : Backend
    layout : ParameterLayout
    weights, grads : flat arrays
    optimizer : Optimizer
    regularization : Regularization
    dtype : str
    """

    def __init__(
        self, be: Backend, layout: ParameterLayout, weights: Array, grads: Array, optimizer: Optimizer,
        regularization: Regularization, dtype: str,
    ):  # fmt: skip
        self.be, self.optimizer, self.regularization = be, optimizer, regularization
        self._hyper = _with_arrays(optimizer)
        self._layout, self._weights, self._grads, self._dtype = layout, weights, grads, dtype
        self.moments: dict[str, Array] = {}
        for name in optimizer.state:
            self.moments[name] = be.empty((layout.size,), dtype)
            self.moments[name][...] = 0.0
        self._penalties = tuple(_by_member(p) for p in (regularization.l1, regularization.l2))
        first = self._numbers(1, np.asarray(optimizer.lr, dtype=float))
        per_member = any(np.size(n) > 1 for n in first)
        members = layout.n_models or 1
        for n in first:
            if np.size(n) not in (1, members):
                raise ConfigError(f"a hyper-parameter has {np.size(n)} values for a population of {members}")
        # (1,) broadcasts over a flat vector, (M, 1) over the (M, n) pieces of a population
        self._shape = (members, 1) if per_member else (1,)
        self._table = be.empty((len(first), *self._shape), dtype)
        self._column = self._table[:, 0, ...]  # for plain numbers
        self._written: tuple[Any, ...] = ()
        self._multiplier = 1.0
        self._lr = float(np.ravel(self._hyper.lr)[0])
        # the table on the host
        self._host = np.empty((len(first), *self._shape))
        self._h = [self._table[i, ...] for i in range(len(first))]
        by_member = per_member or (members > 1 and regularization.clip_norm is not None)
        penalized = any(np.any(np.asarray(p) > 0) for p in (regularization.l1, regularization.l2))
        frozen = regularization.frozen
        if penalized or optimizer.decays or by_member or frozen:
            self._pieces = [
                (decayed, self._shaped(piece, shape))
                for decayed in (True, False)
                for piece, shape in layout.segments(decayed=decayed, per_member=by_member, without=frozen)
            ]
        else:  # weights and biases are treated alike: one pass over everything
            self._pieces = [(True, self._shaped(slice(0, layout.size), (layout.size,)))]
        self._prepare_clipping(dtype, by_member)
        self._prepare_max_norm(dtype)
        # kept on the object, so that back ends trace each formula once
        self._formulas = {True: self._formula(True), False: self._formula(False)}

    def _shaped(self, piece: slice, shape: tuple[int, ...]) -> tuple[Array, ...]:
        flats = (self._weights, self._grads, *self.moments.values())
        return tuple(self.be.xp.reshape(flat[piece], shape) for flat in flats)

    def _numbers(self, step: int, lr: Any) -> tuple[Any, ...]:
        return (*self._hyper.numbers(step, lr), *self._penalties)

    def set_numbers(self, step: Any, multiplier: Any) -> None:
        """Write the hyper-parameters of update number `step` (from 1) where `apply` reads them.

        Parameters
        ----------
        step : int, or (M,) array of int where members are at different updates
        multiplier : float or (M,) array
            What the schedule makes of the learning rate.
        """
        if len(self._shape) == 1 and isinstance(multiplier, float):  # plain numbers: this runs at every step
            if self._written and multiplier == self._multiplier and not self.optimizer.counts_steps:
                return
            self._multiplier = multiplier
            values = self._numbers(step, self._lr * multiplier)
            if values != self._written:
                self._column[...] = self.be.asarray(values, self._dtype)
                self._written = values
            return
        single = isinstance(multiplier, float)
        if self._written and single and multiplier == self._multiplier and not self.optimizer.counts_steps:
            return
        numbers = (*self._hyper.numbers(step, self._hyper.lr * multiplier), *self._penalties)
        columns = self._host.reshape(len(numbers), -1)  # (numbers, members)
        for column, n in zip(columns, numbers, strict=True):
            column[...] = n
        self._table[...] = self.be.asarray(self._host, self._dtype)
        self._multiplier, self._written = (multiplier, numbers) if single else (1.0, ())

    def numbers_ahead(self, steps: Sequence[Any], multipliers: Sequence[Any]) -> np.ndarray:
        """The numbers of several updates, one flat row for each; `use_row` says which of them counts."""
        self._written = ()  # what `apply` reads changes without `set_numbers`
        if len(self._shape) == 1 and all(isinstance(m, float) for m in multipliers):  # plain numbers: quicker
            return np.array([self._numbers(s, self._lr * m) for s, m in zip(steps, multipliers, strict=True)])
        table = np.empty((len(steps), self._host.size))
        for row, step, multiplier in zip(table, steps, multipliers, strict=True):
            numbers = (*self._hyper.numbers(step, self._hyper.lr * multiplier), *self._penalties)
            for column, n in zip(row.reshape(len(numbers), -1), numbers, strict=True):
                column[...] = n
        return table

    def use_row(self, table: Array, row: Array) -> None:
        """Let `apply` use row number ``row[0]`` of `table`, which is on the device already."""
        self.be.gather(table, row, out=self.be.xp.reshape(self._table, (1, table.shape[1])))

    # --- formulas -------------------------------------------------------------------------------
    def _gradient(self, ns: Any, w: Any, g: Any, h: Sequence[Any], decayed: bool) -> Any:
        """The gradient with its penalty, clipped by value."""
        r = self.regularization
        l1, l2 = h[-2:]
        if decayed and np.any(np.asarray(r.l2) > 0):
            g = g + l2 * w
        if decayed and np.any(np.asarray(r.l1) > 0):
            g = g + l1 * ns.sign(w)  # subgradient 0 at 0
        if r.clip_value is not None:
            g = ns.minimum(ns.maximum(g, -r.clip_value), r.clip_value)
        return g

    def _formula(self, decayed: bool) -> Any:
        k, clipping, optimizer = len(self.moments), self.regularization.clip_norm is not None, self.optimizer

        def update(ns: Any, w: Any, g: Any, *rest: Any) -> tuple[Any, ...]:
            moments, h = rest[:k], rest[k:]
            if clipping:
                scale, h = h[-1], h[:-1]
                g = g * scale
            else:
                g = self._gradient(ns, w, g, h, decayed)
            numbers = tuple(h[:-2])  # without l1 and l2
            if decayed and optimizer.decays:
                w = optimizer.decay(ns, w, numbers)
            return optimizer.formula(ns, w, g, moments, numbers)

        return update

    def apply(self) -> None:
        """Update the weights from the gradients and the numbers set before. Only back-end operations."""
        extra: tuple[Array, ...] = ()
        if self.regularization.clip_norm is not None:
            self._clip()
            extra = (self._scale,)
        for decayed, (w, g, *moments) in self._pieces:
            self.be.map(self._formulas[decayed], w, g, *moments, *self._h, *extra, out=(w, *moments))
        if self.regularization.max_norm is not None:
            self._limit_norms()

    # --- clipping by global norm ----------------------------------------------------------------
    def _prepare_clipping(self, dtype: str, by_member: bool) -> None:
        limit = self.regularization.clip_norm
        if limit is None:
            return
        members = (self._layout.n_models or 1) if by_member else 1
        shape = (members, 1) if by_member else (1,)
        self._square = self.be.empty((len(self._pieces), members, 1, 1), dtype)
        self._scale = self.be.empty(shape, dtype)
        tiny = 1e-30
        # s - s: a norm beyond the type's range is no number, so that training stops instead of standing still
        self._to_scale = lambda ns, s: ns.minimum(limit / ns.sqrt(s + tiny), 1.0) + (s - s)
        self._penalized = {
            decayed: (lambda ns, w, g, *h, decayed=decayed: self._gradient(ns, w, g, h, decayed))
            for decayed in (True, False)
        }

    def _clip(self) -> None:
        xp, be = self.be.xp, self.be
        total = self._square[0, ...]
        for i, (decayed, (w, g, *_)) in enumerate(self._pieces):
            be.map(self._penalized[decayed], w, g, *self._h, out=g)
            n = prod(g.shape) // total.shape[0]
            row = xp.reshape(g, (total.shape[0], 1, n))
            be.matmul(row, row, tb=True, out=self._square[i, ...])
            if i:
                be.map(_add, total, self._square[i, ...], out=total)
        be.map(self._to_scale, xp.reshape(total, self._scale.shape), out=self._scale)

    # --- max-norm -------------------------------------------------------------------------------
    def _prepare_max_norm(self, dtype: str) -> None:
        limit = self.regularization.max_norm
        if limit is None:
            return
        views = self._layout.views(self.be, self._weights)
        frozen, specs = self.regularization.frozen, self._layout.specs
        self._units = [
            views[s.name] for s in specs if s.decayed and len(s.shape) == 2 and s.name not in frozen
        ]
        work = self.be.empty((max((prod(w.shape) for w in self._units), default=0),), dtype)
        norms = self.be.empty((max((prod(w.shape[:-1]) for w in self._units), default=0),), dtype)
        xp = self.be.xp
        self._unit_work = [
            (
                w,
                xp.reshape(work[: prod(w.shape)], w.shape),
                xp.reshape(norms[: prod(w.shape[:-1])], w.shape[:-1]),
            )
            for w in self._units
        ]
        # strictly shorter vectors keep their exact bits: the factor is 1; s - s as for clipping
        self._shorten = lambda ns, w, s: ns.where(
            s <= limit * limit, w, w * (limit / ns.sqrt(s + 1e-30)) + (s - s)
        )

    def _limit_norms(self) -> None:
        for w, work, norms in self._unit_work:
            self.be.map(_square, w, out=work)
            self.be.sum(work, axis=-1, out=norms)
            self.be.map(self._shorten, w, self.be.xp.expand_dims(norms, axis=-1), out=w)


def _with_arrays(optimizer: Optimizer) -> Optimizer:
    """A copy whose hyper-parameters that are one per member are arrays, for the arithmetic of `numbers`."""
    result = copy(optimizer)
    for field in fields(optimizer):
        object.__setattr__(result, field.name, _by_member(getattr(optimizer, field.name)))
    return result


def _by_member(value: Any) -> Any:
    """A hyper-parameter as the arithmetic takes it: an array of one per member, or one for all."""
    if not np.ndim(value):
        return value
    values = np.asarray(value, dtype=float)
    return values if values.size > 1 else values.item()


def _add(ns: Any, a: Array, b: Array) -> Array:
    return a + b


def _square(ns: Any, a: Array) -> Array:
    return ns.square(a)
