"""Which operations of a captured step become one launch, or several.

A step is first written down as `Request` objects, the calls of the back end's operations. Where several of them in a
row are one kernel for a device, or one call of its library, they are exchanged for that here; layer code does not
know. Every array that the requests write holds the same afterwards, to rounding: intermediate results included.

Requests may be brought together over others that lie between them, where those touch nothing that they touch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import Array
from ..program import trace
from . import joined, sums
from .schedule import meet, region

if TYPE_CHECKING:
    from .backend import CudaBackend

#: Elements from which on an update is worth a launch of its own: with Adam 15 MB to read and write.
UPDATE = 1 << 19
#: What operations call the arrays that they write.
_WRITTEN = ("out", "loss", "batch_loss", "total", "hits")


@dataclass(frozen=True, eq=False)
class Request:
    """A call of an operation that has not been made yet.

    Attributes
    ----------
    operation : callable
        ``operation(be, *args, **kwargs)``.
    args, kwargs
        Every array that is written is a keyword argument of one of the usual names, or the first of `uniform`.
    address : callable
        Where an array's first element is, in bytes.
    """

    operation: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    address: Callable[[Array], int] = field(repr=False)

    @property
    def name(self) -> str:
        return self.operation.__name__

    @property
    def result(self) -> Any:
        return self.kwargs["out"] if "out" in self.kwargs else self.args[0]

    def issue(self, be: CudaBackend) -> None:
        """Make the call."""
        self.operation(be, *self.args, **self.kwargs)

    @cached_property
    def writes(self) -> tuple[range, ...]:
        """The bytes that may be written."""
        named = (self.kwargs[name] for name in _WRITTEN if name in self.kwargs)
        return self._regions((*named, *(self.args[:1] if "out" not in self.kwargs else ())))

    @cached_property
    def touches(self) -> tuple[range, ...]:
        """The bytes that may be read or written."""
        return self._regions((*self.args, *self.kwargs.values()))

    def _regions(self, values: Sequence[Any]) -> tuple[range, ...]:
        return tuple(region(self.address(x), x) for x in _arrays(values))

    def meets(self, other: Request) -> bool:
        """Whether it matters which of the two comes first."""
        return meet(self.writes, other.touches) or meet(self.touches, other.writes)

    def same(self, a: Any, b: Any) -> bool:
        """Whether two arrays are the same elements."""
        return (
            self.address(a) == self.address(b) and a.shape == b.shape and a.strides == b.strides
            and a.dtype == b.dtype
        )  # fmt: skip


def _arrays(values: Sequence[Any]) -> Iterator[Any]:
    for x in values:
        if isinstance(x, tuple):
            yield from _arrays(x)
        elif hasattr(x, "strides") and not isinstance(x, np.generic):
            yield x


def fuse(requests: Sequence[Request], *, rounds: bool = False, updates: bool = False) -> list[Request]:
    """Exchange rows of requests for single ones, where one launch can do what they do.

    `rounds` says that products round their operands to bfloat16 first; `updates` that products are kernels, which can
    go on with the update of what they are the gradient of.
    """
    result = list(requests)
    for rule in (_dense_head, _affine, _map_summed):
        result = _everywhere(rule, result)
    if updates:
        return _everywhere(_updated, _updates_apart(result, _everywhere_cut))
    result = _updates_apart(result, _long_pieces)
    return [_rounded(result, i) for i in range(len(result))] if rounds else result


#: Where pieces of a vector begin: what has been written of it, how long it is, and the bytes of an element.
_Cut = Callable[[set[tuple[int, int]], int, int], list[int]]
#: The numbers of requests that become one, and that one.
_Match = tuple[list[int], Request]


def _everywhere(
    rule: Callable[[list[Request], int], _Match | None], requests: list[Request]
) -> list[Request]:
    """Apply a rule to each request, from the first to the last: what it joins is done at that request's place."""
    at = 0
    while at < len(requests):
        found = rule(requests, at)
        if found is not None:
            parts, whole = found
            requests = [whole if q == at else r for q, r in enumerate(requests) if q == at or q not in parts]
            at -= sum(q < at for q in parts)
        at += 1
    return requests


def _free(requests: Sequence[Request], moved: int, to: int, others: Sequence[int]) -> bool:
    """Whether request `moved` can be done at the place of `to`, if `others` are done there, too."""
    between = range(min(moved, to) + 1, max(moved, to))
    return not any(requests[moved].meets(requests[q]) for q in between if q not in others)


def _found(requests: Sequence[Request], places: range, wanted: Callable[[Request], bool]) -> int | None:
    """The first of these places whose request is wanted."""
    return next((q for q in places if wanted(requests[q])), None)


def _last(requests: Sequence[Request], before: int, x: Any) -> int | None:
    """The last request before number `before` that writes into the memory of `x`."""
    where = (region(requests[before].address(x), x),)
    return _found(requests, range(before - 1, -1, -1), lambda r: meet(r.writes, where))


def _next(requests: Sequence[Request], after: int, x: Any) -> int | None:
    """The first request after number `after` that touches the memory of `x`."""
    where = (region(requests[after].address(x), x),)
    return _found(requests, range(after + 1, len(requests)), lambda r: meet(r.touches, where))


def _is_map(r: Request, n_args: int, out: Any) -> bool:
    """Whether `r` is a formula of `n_args` arrays, the first of which it overwrites: `out`, and nothing else."""
    if r.name != "map" or len(r.args) != n_args + 1 or isinstance(r.result, tuple):
        return False
    return r.same(r.args[1], r.result) and r.same(out, r.result)


#: What a sum with a bias, and its rectified, look like when they are traced.
_PLUS = str(trace(lambda ns, z, b: z + b, 2))
_PLUS_RELU = str(trace(lambda ns, z, b: ns.maximum(z + b, 0.0), 2))


def _traced(r: Request) -> str:
    """What a `map` with one result computes."""
    return str(trace(r.args[0], len(r.args) - 1))


# --- a product, plus a bias, rectified ------------------------------------------------------------------
def _affine(requests: list[Request], i: int) -> _Match | None:
    """x W^T + b, or the rectified of that, which the library does in one call."""
    product = requests[i]
    if product.name != "matmul" or _turns(product) != {"tb": True}:
        return None
    j = _next(requests, i, product.result)
    if j is None or not _is_map(requests[j], 2, product.result) or not _free(requests, j, i, ()):
        return None
    formula, bias = requests[j].args[0], requests[j].args[2]
    traced = _traced(requests[j])
    if bias.ndim < 2 or bias.shape[-2] != 1 or traced not in (_PLUS, _PLUS_RELU):
        return None
    kwargs = {"bias": bias, "formula": formula, "relu": traced == _PLUS_RELU, "out": product.result}
    return [i, j], Request(joined.affine, product.args, kwargs, product.address)


# --- a formula, and the sums of its result over the batch -------------------------------------------------
def _map_summed(requests: list[Request], i: int) -> _Match | None:
    """The gradient through an activation, and that of the bias: read once, written once."""
    formula = requests[i]
    dz = formula.result
    if formula.name != "map" or isinstance(dz, tuple) or not joined.rows_lie(dz) or not dz.size:
        return None
    places = range(i + 1, len(requests))
    k = _found(requests, places, lambda r: r.name == "sum" and formula.same(r.args[0], dz))
    if k is None or requests[k].kwargs["axis"] != -2 or not _free(requests, k, i, ()):
        return None
    totals = requests[k].result
    lies = all(_lies_along(a, dz.shape) for a in formula.args[1:]) and totals.flags.c_contiguous
    models = len(dz) if dz.ndim == 3 else 1
    fits = models * sums.column_pieces(dz.shape[-2], models)[1] <= sums.MOST_BESIDE
    if not (lies and fits and str(dz.dtype) in ("float32", "float64")):
        return None
    return [i, k], Request(joined.map_columns, formula.args, {"out": (dz, totals)}, formula.address)


def _lies_along(a: Any, shape: tuple[int, ...]) -> bool:
    """Whether `a` broadcasts to `shape`, of 2 or 3 axes, and its rows are neighbours or a single number."""
    return a.ndim <= len(shape) and (a.ndim == 0 or a.shape[-1] == 1 or a.strides[-1] == a.dtype.itemsize)


# --- updates that need not wait for all gradients ----------------------------------------------------------
def _updates_apart(requests: list[Request], cut: _Cut) -> list[Request]:
    """A formula over long vectors, in pieces that earlier requests have written: each can start as soon as it is there.

    So the update of one layer, which waits for memory, runs beside the products of another.
    """
    result: list[Request] = []
    for r in requests:
        pieces = _pieces(r, result, cut) if r.name == "map" else [r]
        if len(pieces) == 1:
            result.append(r)
            continue
        for piece in pieces:  # each as early as can be, because streams are chosen in this order
            last = max((q for q, earlier in enumerate(result) if piece.meets(earlier)), default=-1)
            result.insert(last + 1, piece)
    return result


def _pieces(r: Request, before: Sequence[Request], cut: _Cut) -> list[Request]:
    outs = r.result if isinstance(r.result, tuple) else (r.result,)
    n = outs[0].size
    arrays = (*r.args[1:], *outs)
    if n < 2 or any(a.ndim != 1 or a.size not in (1, n) or not a.flags.c_contiguous for a in arrays):
        return [r]
    written = {piece for a in r.args[1:] if a.size == n for piece in _written(a, before, r.address)}
    cuts = cut(written, n, outs[0].dtype.itemsize)

    def part(a: Any, start: int, stop: int) -> Any:
        return a if a.size == 1 else a[start:stop]

    found = []
    for start, stop in zip(cuts, [*cuts[1:], n], strict=True):
        args = (r.args[0], *(part(a, start, stop) for a in r.args[1:]))
        out = tuple(part(a, start, stop) for a in outs)
        found.append(
            Request(r.operation, args, {"out": out if isinstance(r.result, tuple) else out[0]}, r.address)
        )
    return found


def _written(a: Any, before: Sequence[Request], address: Callable[[Array], int]) -> Iterator[tuple[int, int]]:
    """Pieces of `a` that requests have written, but not the whole: first element, and the one behind the last."""
    whole, size = region(address(a), a), a.dtype.itemsize
    for r in before:
        for piece in r.writes:
            if whole.start <= piece.start and piece.stop <= whole.stop and piece != whole:
                yield (piece.start - whole.start) // size, (piece.stop - whole.start) // size


def _long_pieces(written: set[tuple[int, int]], n: int, size: int) -> list[int]:
    """Where pieces begin that are worth a launch, at multiples of 16 bytes."""
    cuts = [0]
    for end in sorted(-(-stop * size // 16) * 16 // size for _, stop in written):
        if end - cuts[-1] >= UPDATE and n - end >= UPDATE:
            cuts.append(end)
    return cuts


def _everywhere_cut(written: set[tuple[int, int]], n: int, size: int) -> list[int]:
    """Where pieces begin that are each what one request has written, or what none has."""
    return sorted({0, *(place for piece in written for place in piece if place < n)})


def _updated(requests: list[Request], i: int) -> _Match | None:
    """A gradient, as a product or a sum of columns, and the update that it is for."""
    made = requests[i]
    if made.name not in ("matmul", "sum") or not made.result.flags.c_contiguous or not made.result.size:
        return None
    j = _next(requests, i, made.result)
    if j is None or requests[j].name != "map" or not _free(requests, j, i, ()):
        return None
    update, grad = requests[j], made.result
    outs = update.result if isinstance(update.result, tuple) else (update.result,)
    args, n = update.args[1:], grad.size
    own = [a.size == n and made.address(a) == made.address(grad) for a in args]
    flat = all(a.ndim == 1 and a.size in (1, n) and a.dtype == grad.dtype for a in (*args, *outs))
    if not flat or not any(own) or any(meet(made.writes, (region(made.address(o), o),)) for o in outs):
        return None
    fits, operation = (
        (joined.product_can_be_updated, joined.product_updated)
        if made.name == "matmul"
        else (joined.sum_can_be_updated, joined.sum_updated)
    )
    if not fits(*made.args, **made.kwargs):
        return None
    kwargs = {**made.kwargs, "formula": update.args[0], "own": own, "out": (grad, *outs)}
    return [i, j], Request(operation, (*made.args, *args), kwargs, made.address)


# --- results that products want in bfloat16 ---------------------------------------------------------------
def _rounded(requests: list[Request], i: int) -> Request:
    """Request number `i`, or one that rounds its result as well, because a product wants it before it changes."""
    r = requests[i]
    if r.name not in ("map", "map_columns", "affine"):
        return r
    result = r.result[0] if r.name == "map_columns" else r.result
    if isinstance(result, tuple) or result.ndim not in (2, 3) or str(result.dtype) != "float32":
        return r
    memory = (region(r.address(result), result),)
    for later in requests[i + 1 :]:
        if later.name in ("matmul", "affine") and any(r.same(a, result) for a in later.args):
            if r.name == "affine":
                twice = {"formula": _twice(r.kwargs["formula"]), "rounded": True}
                return Request(joined.affine, r.args, {**r.kwargs, **twice}, r.address)
            args = (_twice(r.args[0]), *r.args[1:])
            if r.name == "map_columns":
                return Request(joined.map_columns, args, {**r.kwargs, "rounded": True}, r.address)
            return Request(joined.map_rounded, args, r.kwargs, r.address)
        if meet(later.writes, memory):
            break
    return r


def _twice(formula: Callable[..., Any]) -> Callable[..., Any]:
    def twice(ns: Any, *args: Any) -> tuple[Any, Any]:
        result = formula(ns, *args)
        return result, result

    return twice


# --- the last layer of a classifier, its loss, and what goes back through it ----------------------------
def _dense_head(requests: list[Request], k: int) -> _Match | None:
    """x W^T + b, softmax, cross-entropy, and back to dx, times the derivative of the activation before."""
    head = requests[k]
    if head.name != "softmax_head":
        return None
    z, dz = head.args[0], head.kwargs["out"]
    j = _last(requests, k, z)
    i = None if j is None else _last(requests, j, z)
    if i is None or j is None or not _is_map(requests[j], 2, z) or _traced(requests[j]) != _PLUS:
        return None
    product, bias = requests[i], requests[j].args[2]
    if product.name != "matmul" or not product.same(product.result, z) or _turns(product) != {"tb": True}:
        return None
    x, weight = product.args
    back = _found(
        requests, range(k + 1, len(requests)),
        lambda r: r.name == "matmul" and head.same(r.args[0], dz) and not _turns(r),
    )  # fmt: skip
    if back is None or not head.same(requests[back].args[1], weight):
        return None
    dx, parts = requests[back].result, [i, j, k, back]
    gate = _next(requests, back, dx)
    formula, saved = None, x
    if (
        gate is not None
        and _is_map(requests[gate], 2, dx)
        and requests[gate].args[2].shape == dx.shape
        and requests[gate].args[2].dtype == dx.dtype
        and _free(requests, gate, k, parts)
    ):
        formula, saved = requests[gate].args[0], requests[gate].args[2]
        parts.append(gate)
    if not all(_free(requests, q, k, parts) for q in parts) or not _head_fits(
        head, x, weight, bias, z, dx, saved
    ):
        return None
    kwargs = {**head.kwargs, "saved": saved, "formula": formula, "bias": bias, "out": (dz, z, dx)}
    return parts, Request(joined.dense_head, (x, weight, *head.args[1:]), kwargs, head.address)


def _turns(product: Request) -> dict[str, bool]:
    return {name: True for name in ("ta", "tb") if product.kwargs.get(name)}


def _head_fits(head: Request, x: Any, weight: Any, bias: Any, z: Any, dx: Any, saved: Any) -> bool:
    """Whether `dense_head` has a kernel for arrays like these."""
    classes, width = weight.shape[-2:]
    arrays = (x, weight, bias, z, dx, saved)
    return (
        all(joined.rows_lie(a) for a in arrays)
        and len({a.ndim for a in arrays}) == 1
        and len({str(a.dtype) for a in arrays}) == 1
        and classes * x.dtype.itemsize <= joined.LOGITS
        and classes * width * x.dtype.itemsize <= joined.SHARED_WEIGHTS
        and weight.strides[-2] == width * weight.dtype.itemsize
        and (z.ndim == 2 or z.shape[0] <= 65535)
        and all(a.flags.c_contiguous for a in (*head.args[1:], head.kwargs["loss"], head.kwargs["out"]))
    )
