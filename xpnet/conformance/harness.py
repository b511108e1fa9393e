"""What every case needs: arrays with memory around them, calls on both sides, comparisons.

The checks of signatures and of memory itself are here, too.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ..backend import OPERATIONS, Array, Backend
from ..backend.reference import ReferenceBackend

# Largest difference allowed, relative to max(1, largest number of the right result).
_TOLERANCE = {"float32": 2e-5, "float64": 1e-12, "int64": 0.0, "uint8": 0.0, "bool": 0.0}
LARGE = 40_000  # more elements than a back end is likely to hold in one block


class Placed:
    """An array on the device, in its own memory or in a piece of a larger buffer, with a copy on the host."""

    def __init__(self, be: Backend, values: np.ndarray, where: str):
        self._be = be
        shape: tuple[int, ...] = values.shape
        dtype = str(values.dtype)
        self._host: np.ndarray
        self._piece: np.ndarray
        if where == "flat":  # as parameters lie in their buffer, off any alignment
            n = max(1, prod(shape))
            self.whole, self._host = be.empty((n + 8,), dtype), np.full(n + 8, 5, dtype)
            self.array = be.xp.reshape(self.whole[3 : 3 + n], shape)
            self._piece = self._host[3 : 3 + n].reshape(shape)
        elif where == "strided" and shape:  # as the pieces of a maxout layer lie in its buffer
            width = shape[-1]
            larger = (*shape[:-1], 2 * width + 1)
            self.whole, self._host = be.empty(larger, dtype), np.full(larger, 5, dtype)
            self.array = self.whole[..., width : 2 * width]
            self._piece = self._host[..., width : 2 * width]
        else:
            self.whole, self._host = be.empty(shape, dtype), np.array(values)
            self.array, self._piece = self.whole, self._host
        self._piece[...] = values
        self.whole[...] = be.asarray(self._host.copy())

    def host(self) -> np.ndarray:
        return np.array(self._be.to_numpy(self.array))

    def accept(self) -> None:
        """Take what the device holds as what it should hold; memory around the array is not covered."""
        self._piece[...] = self.host()

    def unchanged(self) -> bool:
        now = np.asarray(self._be.to_numpy(self.whole))
        return now.dtype == self._host.dtype and np.array_equal(
            now, self._host, equal_nan=now.dtype.kind == "f"
        )


Call = Callable[[Backend, tuple[Array, ...], Any], Any]
Out = tuple[tuple[int, ...], str]


class Conformance:
    """Runs cases on a back end and on the reference, and counts them."""

    def __init__(self, be: Backend, dtypes: Sequence[str], seed: int):
        self.be, self.ref = be, ReferenceBackend(np)
        self.dtypes, self.random = tuple(dtypes), np.random.default_rng(seed)
        self.n = 0

    def fail(self, operation: str, case: str, message: str) -> None:
        raise AssertionError(f"{operation}: {case}: {message} (back end {self.be!r})")

    def numbers(
        self, shape: int | Sequence[int], dtype: str, low: float = -2.0, high: float = 2.0
    ) -> np.ndarray:
        return np.asarray(self.random.uniform(low, high, shape), dtype=dtype)

    def compare(
        self, operation: str, case: str, got: np.ndarray, want: np.ndarray, factor: float = 1.0
    ) -> None:
        self.n += 1
        if got.shape != want.shape or got.dtype != want.dtype:
            self.fail(
                operation, case, f"gave {got.shape} {got.dtype} where {want.shape} {want.dtype} was expected"
            )
        if want.dtype.kind in "iub":
            wrong = int(np.count_nonzero(got != want))
            if wrong:
                self.fail(operation, case, f"{wrong} of {want.size} numbers are wrong")
            return
        if not np.isfinite(got).all():
            self.fail(
                operation, case, f"{int((~np.isfinite(got)).sum())} of {got.size} numbers are not finite"
            )
        size = max(1.0, float(np.abs(want).max(initial=0.0)))
        difference = float(np.abs(got.astype(float) - want.astype(float)).max(initial=0.0))
        allowed = factor * _TOLERANCE[str(want.dtype)] * size
        if not difference <= allowed:
            self.fail(operation, case, f"largest difference {difference:.3g}, allowed {allowed:.3g}")

    def run(
        self, operation: str, case: str, call: Call, args: Sequence[np.ndarray], outs: Sequence[Out], *,
        alias: Sequence[int | None] | None = None, where: str = "own", factor: float = 1.0,
    ) -> None:  # fmt: skip
        """Compare ``call(be, args, out)``; output k is argument ``alias[k]`` where that is not None."""
        alias = alias or (None,) * len(outs)
        case = f"{case}, {' '.join(f'{a.dtype}{list(a.shape)}' for a in args)}"
        case += "" if where == "own" else f", views of a {where} buffer"
        case += "" if alias == (None,) * len(outs) else f", out is argument {alias}"
        results = []
        for be in (self.ref, self.be):
            inputs = [Placed(be, np.asarray(a), where) for a in args]
            written = [
                inputs[i] if i is not None else Placed(be, np.full(shape, 9, dtype), where)
                for i, (shape, dtype) in zip(alias, outs, strict=True)
            ]
            arrays = tuple(p.array for p in inputs)
            out: Any = tuple(p.array for p in written) if len(outs) > 1 else written[0].array
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    given = call(be, arrays, out)
            except Exception as error:
                self.fail(operation, case, f"raised {type(error).__name__}: {error}")
            be.synchronize()
            if given is not out and not (
                isinstance(given, tuple)
                and len(given) == len(written)
                and all(g is p.array for g, p in zip(given, written, strict=True))
            ):
                self.fail(operation, case, "did not return out")
            for p in written:
                p.accept()
            for k, p in enumerate(inputs):
                if p not in written and not p.unchanged():
                    self.fail(operation, case, f"changed its input {k}")
            if not all(p.unchanged() for p in written):
                self.fail(operation, case, "wrote outside of out")
            results.append([p.host() for p in written])
        for want, got in zip(*results, strict=True):
            self.compare(operation, case, got, want, factor)

    def map(
        self,
        name: str,
        fn: Callable[..., Any],
        args: Sequence[np.ndarray],
        outs: Sequence[Out],
        **options: Any,
    ) -> None:
        self.run("map", name, lambda be, a, out: be.map(fn, *a, out=out), args, outs, **options)


def check_signatures(c: Conformance) -> None:
    for name in OPERATIONS:
        c.n += 1
        ours: Any = getattr(type(c.be), name, None)
        if ours is None:
            c.fail(name, "signature", "is missing")
        want, got = (
            [(p.name, p.kind, p.default) for p in inspect.signature(f).parameters.values()]
            for f in (getattr(Backend, name), ours)
        )
        if got != want:
            c.fail(name, "signature", f"is {inspect.signature(ours)}, expected that of Backend.{name}")
    for name in ("name", "device"):
        c.n += 1
        if not isinstance(getattr(c.be, name, None), str):
            c.fail(name, "attribute", "is not a string")


def check_memory(c: Conformance) -> None:
    be = c.be
    for dtype in (*c.dtypes, "int64", "uint8", "bool"):
        for shape in ((), (1,), (3, 4), (2, 3, 5)):
            values = np.asarray(c.random.uniform(0, 3, shape)).astype(dtype)
            c.compare(
                "to_numpy", f"of asarray, {dtype}", np.array(be.to_numpy(be.asarray(values.copy()))), values
            )
            x = be.empty(shape, dtype)
            x[...] = be.asarray(values.copy())
            c.compare("empty", f"{dtype}{list(shape)}", np.array(be.to_numpy(x)), values)
    for dtype in c.dtypes:
        for given in ([[1, 2], [3, 4]], 2.5, [0.5, 1.5], np.arange(3), np.arange(3, dtype="float64")):
            got = np.array(be.to_numpy(be.asarray(given, dtype)))
            c.compare("asarray", f"of {given!r} as {dtype}", got, np.asarray(given, dtype=dtype))
    c.n += 1
    if be.synchronize() is not None:
        c.fail("synchronize", "call", "returned something")
