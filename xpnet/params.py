"""Parameters: one flat buffer per kind, with named views per tensor.

The buffer holds all decayed tensors (weights) first, then the rest (biases, learnt slopes); within each part
layer-major, then member. So a penalty on weights touches one contiguous piece, the optimizer is one pass over
a vector, and layer 1 of a whole population is one matrix.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod

from .backend import Array, Backend


@dataclass(frozen=True)
class ParamSpec:
    """One learnable tensor: its shape in a single model, and how it starts.

    Parameters
    ----------
    name : str
        ``"layers.0.weight"`` once the model has numbered it.
    shape : tuple of int
        Without the population axis; weights are (O, I).
    fan_in, fan_out : int
        For the initialiser; 0 where the tensor starts constant.
    init : str
        Initialiser name (see `xpnet.init`), or ``"constant:0.25"``.
    decayed : bool
        Whether L1, L2, decoupled decay and max-norm apply: weights yes, biases never.
    """

    name: str
    shape: tuple[int, ...]
    fan_in: int = 0
    fan_out: int = 0
    init: str = "zeros"
    decayed: bool = True


class ParameterLayout:
    """Where each tensor sits in a flat buffer.

    Parameters
    ----------
    specs : sequence of ParamSpec
        In layer order.
    n_models : int or None
        M for a population, None for a single model (its views then have no model axis).

    Examples
    --------
    >>> layout = ParameterLayout([ParamSpec("w", (4, 3)), ParamSpec("b", (4,), decayed=False)], None)
    >>> layout.size, layout.n_decayed
    (16, 12)
    """

    def __init__(self, specs: Sequence[ParamSpec], n_models: int | None):
        self.specs = tuple(specs)
        self.n_models = n_models
        members = n_models or 1
        self.offsets: dict[str, int] = {}
        position = 0
        for decayed in (True, False):
            for spec in self.specs:
                if spec.decayed is decayed:
                    self.offsets[spec.name] = position
                    position += members * prod(spec.shape)
            if decayed:
                self.n_decayed = position
        self.size = position

    @property
    def lead(self) -> tuple[int, ...]:
        """(M,) for a population, () for a single model."""
        return () if self.n_models is None else (self.n_models,)

    @property
    def per_model(self) -> int:
        """P: learnable numbers of one model."""
        return self.size // (self.n_models or 1)

    def views(self, be: Backend, flat: Array) -> dict[str, Array]:
        """Named views of `flat`, each (O, I) or (M, O, I) and so on, sharing its memory."""
        views = {}
        for spec in self.specs:
            start = self.offsets[spec.name]
            shape = (*self.lead, *spec.shape)
            views[spec.name] = be.xp.reshape(flat[start : start + prod(shape)], shape)
        return views

    def segments(
        self, *, decayed: bool, per_member: bool, without: Collection[str] = ()
    ) -> list[tuple[slice, tuple[int, ...]]]:
        """Pieces of the flat buffer to update, as (slice, shape).

        With `per_member` a piece per tensor, shaped (M, n), so that (M, 1) hyper-parameters broadcast; else
        the whole decayed or undecayed part as one vector, or as several between the tensors named in `without`.
        """
        members = self.n_models or 1
        pieces: list[tuple[slice, tuple[int, ...]]] = []
        for spec in self.specs:
            if spec.decayed is not decayed or spec.name in without:
                continue
            start, n = self.offsets[spec.name], prod(spec.shape)
            if per_member:
                pieces.append((slice(start, start + members * n), (members, n)))
                continue
            if pieces and pieces[-1][0].stop == start:
                start = pieces.pop()[0].start
            stop = self.offsets[spec.name] + members * n
            pieces.append((slice(start, stop), (stop - start,)))
        return pieces
