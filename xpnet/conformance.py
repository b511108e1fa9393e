"""The cases that `xpnet.testing.check_backend` runs: each operation of the contract against its reference.

Every case places its arrays in memory of their own or in a piece of a larger buffer, runs one operation on
the back end and on the reference, and compares the results, the inputs and the memory around them.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from . import activations, losses, optim, rng
from .backend import OPERATIONS, Array, Backend
from .backend.reference import ReferenceBackend
from .losses import Loss, get_loss

# Largest difference allowed, relative to max(1, largest number of the right result).
_TOLERANCE = {"float32": 2e-5, "float64": 1e-12, "int64": 0.0, "uint8": 0.0, "bool": 0.0}
_LARGE = 40_000  # more elements than a back end is likely to hold in one block


class _Placed:
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


class _Conformance:
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
            inputs = [_Placed(be, np.asarray(a), where) for a in args]
            written = [
                inputs[i] if i is not None else _Placed(be, np.full(shape, 9, dtype), where)
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


def _check_signatures(c: _Conformance) -> None:
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


def _check_memory(c: _Conformance) -> None:
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


def _check_matmul(c: _Conformance, dtype: str) -> None:
    leads = [((), ()), ((3,), (3,)), ((), (3,)), ((3,), ()), ((1,), (3,))]
    sizes = [(1, 1, 1), (5, 3, 4), (1, 7, 2), (6, 1, 3), (4, 3, 1), (4, 4, 4), (33, 65, 17)]
    for (la, lb), (m, k, n), ta, tb in product(leads, sizes, (False, True), (False, True)):
        a = c.numbers((*la, k, m) if ta else (*la, m, k), dtype)
        b = c.numbers((*lb, n, k) if tb else (*lb, k, n), dtype)
        out = ((*np.broadcast_shapes(la, lb), m, n), dtype)
        for where in ("own", "flat"):
            c.run("matmul", f"ta={ta} tb={tb}", _matmul(ta, tb), [a, b], [out], where=where)
    for ta, tb in ((False, True), (True, False), (False, False)):
        a = c.numbers((784, 128) if ta else (128, 784), dtype)
        b = c.numbers((100, 784) if tb else (784, 100), dtype)
        c.run("matmul", f"large, ta={ta} tb={tb}", _matmul(ta, tb), [a, b], [((128, 100), dtype)])


def _matmul(ta: bool, tb: bool) -> Call:
    if not (ta or tb):
        return lambda be, a, out: be.matmul(*a, out=out)  # by the defaults
    return lambda be, a, out: be.matmul(*a, ta=ta, tb=tb, out=out)


# name -> (formula, numbers of arguments, range of arguments)
_VOCABULARY: dict[str, tuple[Callable[..., Any], int, tuple[float, float]]] = {
    "operators": (lambda ns, x, y: (x + y) * (x - y) / (y * y + 1.0), 2, (-2, 2)),
    "reflected operators": (lambda ns, x: (1.0 + x) * (2.0 - x) + 3.0 / (4.0 + x) - 0.5 * x, 1, (-2, 2)),
    "power": (lambda ns, x: x**3 + x**2.0 - x**0.5, 1, (0.1, 2)),
    "reflected power": (lambda ns, x: 2.0**x, 1, (-2, 2)),
    "power of an array": (lambda ns, x, y: x**y, 2, (0.1, 2)),
    "minus": (lambda ns, x: -x * (-(2.0 * x)), 1, (-2, 2)),
    "abs": (lambda ns, x: ns.abs(x), 1, (-2, 2)),
    "exp": (lambda ns, x: ns.exp(x), 1, (-2, 2)),
    "expm1": (lambda ns, x: ns.expm1(x), 1, (-2, 2)),
    "log": (lambda ns, x: ns.log(x), 1, (0.1, 2)),
    "log1p": (lambda ns, x: ns.log1p(x), 1, (-0.9, 2)),
    "sqrt": (lambda ns, x: ns.sqrt(x), 1, (0, 2)),
    "square": (lambda ns, x: ns.square(x), 1, (-2, 2)),
    "tanh": (lambda ns, x: ns.tanh(x), 1, (-3, 3)),
    "sin": (lambda ns, x: ns.sin(x), 1, (-3, 3)),
    "cos": (lambda ns, x: ns.cos(x), 1, (-3, 3)),
    "floor": (lambda ns, x: ns.floor(x), 1, (-3, 3)),
    "erf": (lambda ns, x: ns.erf(x), 1, (-3, 3)),
    "sign": (lambda ns, x: ns.sign(x), 1, (-3, 3)),
    "maximum": (lambda ns, x, y: ns.maximum(x, y) + ns.maximum(x, 0.5) * ns.maximum(-0.5, y), 2, (-2, 2)),
    "minimum": (lambda ns, x, y: ns.minimum(x, y) - ns.minimum(x, 0.5) * ns.minimum(-0.5, y), 2, (-2, 2)),
    "where": (lambda ns, x, y: ns.where(x > y, x * 2.0, y - 1.0), 2, (-2, 2)),
    "where of numbers": (lambda ns, x: ns.where(x > 0.0, x, 0.0) + ns.where(x < 1.0, 7.0, x), 1, (-2, 2)),
    "comparisons": (
        lambda ns, x, y: (
            ns.where(x < y, 1.0, 0.0 * x) + ns.where(x <= y, 2.0, 0.0 * x)
            + ns.where(x > y, 4.0, 0.0 * x) + ns.where(x >= y, 8.0, 0.0 * x)
            + ns.where(x == y, 16.0, 0.0 * x) + ns.where(x != y, 32.0, 0.0 * x)
        ), 2, (-2, 2),
    ),
    "conditions": (
        lambda ns, x, y: ns.where((x > 0.0) & ~(y > 0.5) | (x < -1.0), x, ns.where(~(x > y), y, -x)),
        2, (-2, 2),
    ),
    "common parts": (lambda ns, x, y: (x + y) * (x + y) + ns.exp(x + y) / ns.exp(x + y), 2, (-1, 1)),
    "one argument": (lambda ns, x: x, 1, (-2, 2)),
    "two outputs": (lambda ns, x, y: (x + y, x * y), 2, (-2, 2)),
    "two equal outputs": (lambda ns, x, y: (x + y, x + y), 2, (-2, 2)),
}  # fmt: skip

_SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [  # of the result, of the second argument
    ((), ()), ((7,), ()), ((7,), (1,)), ((7,), (7,)), ((1, 5), (5,)), ((4, 5), (1, 5)), ((4, 5), (4, 1)),
    ((4, 5), (4, 5)), ((3, 4, 5), (3, 1, 5)), ((3, 4, 5), (4, 5)), ((3, 4, 5), (3, 4, 1)),
    ((3, 1, 5), (3, 1, 1)), ((3, 8), (3, 1)), ((1, 1, 3), (3,)), ((_LARGE + 3,), (_LARGE + 3,)),
    ((_LARGE + 3,), (1,)),
    ((230, 211), (1, 211)), ((230, 211), (230, 1)), ((3, 100, 211), (3, 1, 211)), ((3, 100, 211), (100, 211)),
    ((2, _LARGE), (2, 1)), ((2, _LARGE), (_LARGE,)), ((2, 1, _LARGE), (2, 1, _LARGE)),
    ((1, _LARGE), (1, _LARGE)),    ((2, _LARGE, 1), (2, _LARGE, 1)), ((1, 300, 200), (1, 1, 200)),
]  # fmt: skip


def _check_map(c: _Conformance, dtype: str) -> None:
    for name, (fn, n, (low, high)) in _VOCABULARY.items():
        shape: tuple[int, ...]
        for shape in ((6, 7), (3, 5, 2), (_LARGE,)):
            args = [c.numbers(shape, dtype, low, high) for _ in range(n)]
            if n == 2 and name == "comparisons":
                np.copyto(args[1], args[0], where=args[0] > 0)  # some equal numbers
            outs = [(shape, dtype)] * (2 if name.startswith("two") else 1)
            c.map(name, fn, args, outs, where="strided" if shape == (6, 7) else "own")
    third = _VOCABULARY["conditions"][0]
    for shape, second in _SHAPES:
        x, y = c.numbers(shape, dtype), c.numbers(second, dtype)
        for where in ("own", "flat", "strided"):
            c.map("broadcasting", _muladd, [x, y], [(shape, dtype)], where=where)
            c.map("broadcasting", _muladd, [y, x], [(shape, dtype)], where=where)
        c.map("broadcasting in place", third, [x, y], [(shape, dtype)], alias=(0,))
        c.map("result larger than any argument", _muladd, [y, y], [(shape, dtype)])
    # the operands of unlike types that a training step has: labels, float32 random numbers, float64 totals
    labels, classes = np.arange(6)[:, None] % 4, np.arange(4)
    c.map(
        "one-hot rows", lambda ns, label, each, off: ns.where(label == each, 0.9, off),
        [labels, classes, np.full(4, 0.1, dtype)], [((6, 4), dtype)],
    )  # fmt: skip
    c.map(
        "equal labels", lambda ns, a, b, zero: ns.where(a == b, 1.0, zero),
        [c.random.integers(0, 3, (2, 9)), c.random.integers(0, 3, 9), np.zeros(1, dtype)], [((2, 9), dtype)],
    )  # fmt: skip
    x, u = c.numbers((5, 6), dtype), c.numbers((5, 6), "float32", 0, 1)
    c.map("mask", lambda ns, x, u: ns.where(u >= 0.25, x * 1.25, 0.0), [x, u], [((5, 6), dtype)])
    args = [np.array([3.0, 4.0]), c.numbers(2, dtype)]
    factor = 1e7 if dtype == "float32" else 1.0
    c.map("total", lambda ns, a, x: a + x * 5.0, args, [((2,), "float64")], alias=(0,), factor=factor)


def _muladd(ns: Any, x: Any, y: Any) -> Any:
    return x * 2.0 + ns.maximum(y, 0.0) * x


def _three(ns: Any, x: Any, y: Any, z: Any) -> Any:
    return ns.where(x > y, z, x) - ns.tanh(y) * x + z * ns.where(z > 0.0, y, x)


_TUPLES: dict[str, Callable[..., Any]] = {
    "swap": lambda ns, x, y, z: (y, x, z),
    "rotation": lambda ns, x, y, z: (z, x, y),
    "chain": lambda ns, x, y, z: (x + y, y * x, x - y + z),
    "where": lambda ns, x, y, z: (ns.where(x > y, y, z), ns.where(z > x, x, y), ns.where(y > 0.0, z, x)),
    "outputs of outputs": lambda ns, x, y, z: (x + 1.0, (x + 1.0) * y, ((x + 1.0) * y - x) * z),
    "numbers": lambda ns, x, y, z: (0.0 * x, x, 2.0 + 0.0 * y),
}


def _check_map_aliases(c: _Conformance, dtype: str) -> None:
    for shape in ((4, 5), (_LARGE + 1,)):
        args = [c.numbers(shape, dtype) for _ in range(3)]
        for position in (0, 1, 2):
            for where in ("own", "flat", "strided"):
                c.map("in place", _three, args, [(shape, dtype)], alias=(position,), where=where)
        for name, fn in _TUPLES.items():
            for alias in (
                (None, None, None),
                (0, 1, 2),
                (2, 0, 1),
                (1, None, 0),
                (None, 0, None),
                (0, None, 1),
            ):
                c.map(name, fn, args, [(shape, dtype)] * 3, alias=alias)
    # the same array as two arguments, and as the result
    x = c.numbers((4, 5), dtype)
    twice: Call = lambda be, a, out: be.map(_muladd, a[0], a[0], out=out)  # noqa: E731
    c.run("map", "one array twice", twice, [x], [((4, 5), dtype)], alias=(0,))


_ACTIVATIONS = (*activations.NAMES, "leaky_relu:0.2", "elu:0.5")


def _check_activations(c: _Conformance, dtype: str) -> None:
    for name in _ACTIVATIONS:
        f = activations.get_activation(name)
        for lead in ((), (3,)):
            shape, row = (*lead, 6, 5), (*lead, 1, 5)
            z, b, dy = c.numbers(shape, dtype, -4, 4), c.numbers(row, dtype), c.numbers(shape, dtype)
            out = [(shape, dtype)]
            c.map(name, f.value, [z], out)
            c.map(f"{name} with bias", f.with_bias, [z, b], out, alias=(0,))
            c.map(f"{name} keeping its input", f.with_bias_keeping_input, [z, b], out * 2, alias=(0, None))
            if f.slope is not None:
                s = f.value(c.ref._ns, z) if f.from_output else z
                c.map(f"{name} backward", f.backward, [dy, s], out, alias=(0,))
        extreme = np.array([-1e4, -100.0, -20.0, -0.0, 0.0, 20.0, 100.0, 1e4], dtype)
        c.map(f"{name} of extreme numbers", f.value, [extreme], [(extreme.shape, dtype)])
        large = c.numbers((3, 90, 211), dtype, -4, 4)
        c.map(f"{name} large", f.with_bias, [large, c.numbers((3, 1, 211), dtype)], [(large.shape, dtype)])


_OPTIMIZERS: tuple[optim.Optimizer, ...] = (
    optim.SGD(), optim.SGD(momentum=0.9), optim.SGD(momentum=0.9, nesterov=True), optim.AdaGrad(),
    optim.RMSProp(), optim.Adam(), optim.AdamW(),
)  # fmt: skip


def _check_optimizers(c: _Conformance, dtype: str) -> None:
    for optimizer in _OPTIMIZERS:
        for shape, row in (((37,), (1,)), ((_LARGE,), (1,)), ((3, 20), (3, 1))):
            numbers = [np.broadcast_to(n, row).astype(dtype) for n in optimizer.numbers(3, 0.01)]
            n_moments = len(optimizer.state)
            moments = [c.numbers(shape, dtype, 0.1, 1) for _ in range(n_moments)]
            args = [c.numbers(shape, dtype), c.numbers(shape, dtype), *moments, *numbers]
            c.map(
                f"{optimizer.name} update", _optimizer_formula(optimizer, n_moments), args,
                [(shape, dtype)] * (1 + n_moments), alias=(0, *range(2, 2 + n_moments)), where="flat",
            )  # fmt: skip


def _optimizer_formula(optimizer: optim.Optimizer, n_moments: int) -> Callable[..., Any]:
    def formula(ns: Any, w: Any, g: Any, *rest: Any) -> Any:
        moments, numbers = rest[:n_moments], rest[n_moments:]
        w = optimizer.decay(ns, w, numbers) if optimizer.decays else w
        result = optimizer.formula(ns, w, g + 1e-3 * ns.sign(w), moments, numbers)
        return result if n_moments else result[0]

    return formula


def _check_sum(c: _Conformance, dtype: str) -> None:
    shapes = [
        (1, 1),
        (1, 5),
        (4, 1),
        (4, 5),
        (3, 4, 5),
        (3, 1, 5),
        (300, 211),
        (2, 3, _LARGE),
        (2, 20_000, 3),
    ]
    for shape, axis in product(shapes, (-1, -2)):
        left = list(shape)
        del left[axis]
        for where in ("own", "flat", "strided"):
            c.run(
                "sum",
                f"axis={axis}",
                _sum(axis),
                [c.numbers(shape, dtype)],
                [(tuple(left), dtype)],
                where=where,
            )
    for n in (1, 9, _LARGE):
        c.run("sum", "of a vector", _sum(-1), [c.numbers((n,), dtype)], [((), dtype)])


def _sum(axis: int) -> Call:
    return lambda be, a, out: be.sum(a[0], axis=axis, out=out)


def _check_softmax(c: _Conformance, dtype: str) -> None:
    def softmax(be: Backend, a: tuple[Array, ...], out: Array) -> Array:
        return be.softmax(a[0], out=out)

    shapes: list[tuple[int, ...]] = [(1, 1), (1, 5), (6, 1), (6, 10), (3, 6, 10), (3, 1, 4), (500, 101)]
    ranges = [(-2.0, 2.0), (-1e4, 1e4), (1e4, 1e4 + 3.0), (-1e4, 3.0 - 1e4)]
    for shape, (low, high) in product(shapes, ranges):
        z = c.numbers(shape, dtype, low, high)
        case = f"logits {low:g} to {high:g}"
        for where, alias in (("own", (None,)), ("own", (0,)), ("flat", (0,)), ("flat", (None,))):
            c.run("softmax", case, softmax, [z], [(shape, dtype)], alias=alias, where=where)
        classes = shape[-1]
        one_hot = np.eye(classes, dtype=dtype)[c.random.integers(0, classes, shape[:-1])]
        for kind, t, w in (
            ("one-hot", one_hot, np.full(shape[-2], 1.0 / shape[-2], dtype)),
            ("soft", c.numbers(shape, dtype, 0, 1), c.numbers(shape[:-1], dtype, 0, 1)),
            ("one batch for all models", one_hot[(0,) * (len(shape) - 2)], c.numbers(shape[-2], dtype, 0, 1)),
        ):
            for cross_alias in ((None, None), (None, 0)):
                c.run(
                    "softmax_cross_entropy", f"{case}, {kind}", _cross_entropy, [z, t, w],
                    [(shape[:-1], dtype), (shape, dtype)], alias=cross_alias,
                    where="flat" if kind == "soft" else "own",
                )  # fmt: skip


def _cross_entropy(be: Backend, a: tuple[Array, ...], out: tuple[Array, Array]) -> Any:
    given = be.softmax_cross_entropy(*a, loss=out[0], out=out[1])
    return out if given is out[1] else given


def _check_head(c: _Conformance, dtype: str) -> None:
    """Loss, gradient and counts in one pass, where a back end has that."""

    def head(be: Backend, a: tuple[Array, ...], out: tuple[Array, ...]) -> Any:
        sums = [be.empty(out[2].shape, "float64") for _ in range(2)]
        for total in sums:
            total[...] = 5.0
        options = {"loss": out[0], "out": out[1], "batch_loss": out[2], "total": sums[0], "hits": sums[1]}
        given = be.softmax_head(*a, **options)
        for rounded, total in zip(out[3:], sums, strict=True):
            rounded[...] = be.xp.astype(total, rounded.dtype)  # loss was summed in the dtype of the model
        return out if given is out[1] else given

    for shape in ((1, 1), (1, 5), (7, 8), (128, 10), (33, 31), (9, 100), (4, 12, 10), (3, 5, 40)):
        if not c.be.one_pass_head(shape):
            continue
        *lead, rows, classes = shape
        for kind, z in (
            ("random", c.numbers(shape, dtype)),
            ("ties", c.random.integers(0, 3, shape).astype(dtype)),
            ("large", c.numbers(shape, dtype, -1e4, 1e4)),
        ):
            for own in {(), tuple(lead)}:
                labels = c.random.integers(0, classes, (*own, rows))
                t = np.eye(classes, dtype=dtype)[labels] * np.asarray(0.9, dtype) + np.asarray(0.01, dtype)
                w = c.numbers((*own, rows), dtype, 0, 1)
                outs = [(shape[:-1], dtype), (shape, dtype), *[(tuple(lead), dtype)] * 3]
                for alias in ((None,) * 5, (None, 0, None, None, None)):
                    c.run("softmax_head", kind, head, [z, t, w, labels], outs, alias=alias)


def _check_argmax(c: _Conformance, dtype: str) -> None:
    def argmax(be: Backend, a: tuple[Array, ...], out: Array) -> Array:
        return be.argmax(a[0], out=out)

    for shape in ((1, 1), (1, 5), (6, 1), (40, 10), (3, 20, 10), (500, 101)):
        for name, x in (
            ("random", c.numbers(shape, dtype)),
            ("ties", c.random.integers(0, 3, shape).astype(dtype)),
            ("all equal", np.full(shape, -1.5, dtype)),
            ("all negative", c.numbers(shape, dtype, -3, -1)),
        ):
            for where in ("own", "flat"):
                c.run("argmax", name, argmax, [x], [(shape[:-1], "int64")], where=where)


def _check_gather(c: _Conformance, dtype: str) -> None:
    n, width = 50, 7
    for index_shape, stored in product(
        ((1,), (12,), (3, 12), (900,)), ("uint8", "int64", "float32", "float64")
    ):
        x = c.random.integers(0, 200, (n, width)).astype(stored)
        if stored.startswith("float"):
            x += c.numbers(x.shape, stored, 0, 0.5)
        index = c.random.integers(0, n, index_shape)
        index.flat[0] = n - 1
        column = c.numbers(width, dtype, 0.1, 1)
        out = [((*index_shape, width), dtype)]
        options: list[tuple[str, dict[str, Any]]] = [
            ("plain", {}), ("scale", {"scale": 1 / 255}), ("shift", {"shift": -0.25}),
            ("scale and shift", {"scale": 0.5, "shift": 0.125}), ("scale per column", {"scale": column}),
            ("both per column", {"scale": column, "shift": -column}),
            ("scale and shift per column", {"scale": 0.5, "shift": column}),
            ("scale 1, shift per column", {"scale": 1.0, "shift": column}),
        ]  # fmt: skip
        for case, given in options:
            names = [k for k, v in given.items() if isinstance(v, np.ndarray)]
            fixed = {k: v for k, v in given.items() if k not in names}
            args = [x, index, *(given[k] for k in names)]
            for where in ("own", "flat"):
                c.run("gather", case, _gather(fixed, names), args, out, where=where, factor=2.0)
        labels = c.random.integers(0, 100, n).astype(stored)
        c.run("gather", "one column", _gather({}, []), [labels, index], [(index_shape, dtype)])
        if stored in ("uint8", "int64"):
            c.run("gather", "labels", _gather({}, []), [labels, index], [(index_shape, "int64")])


def _gather(fixed: dict[str, Any], names: list[str]) -> Call:
    return lambda be, a, out: be.gather(a[0], a[1], out=out, **fixed, **dict(zip(names, a[2:], strict=True)))


_LOSSES = (*losses.NAMES, "huber:0.3", "quantile:0.9")


def _check_losses(c: _Conformance, dtype: str) -> None:
    for name, (lead, batch, width) in product(_LOSSES, (((), 6, 4), ((3,), 6, 4), ((), 1, 1), ((3,), 5, 1))):
        shape = (*lead, batch, width)
        h, w = c.numbers(shape, dtype), c.numbers((batch,), dtype, 0, 1)
        t = np.eye(width + 1, width, dtype=dtype)[c.random.integers(0, width, batch)]
        if not get_loss(name).classify:
            t = c.numbers((batch, width), dtype, 0, 2)
        outs = [((*lead, batch), dtype), (shape, dtype)]
        c.run("map and sum", f"the {name} loss", _loss(get_loss(name)), [h, t, w], outs, factor=2.0)


def _loss(loss: Loss) -> Call:
    def call(be: Backend, a: tuple[Array, ...], out: tuple[Array, Array]) -> Any:
        h = a[0]
        each = be.empty(h.shape, str(h.dtype).rpartition(".")[2])
        loss(be, *a, loss=out[0], dh=out[1], work=lambda name: each)
        return out

    return call


def _check_uniform(c: _Conformance) -> None:
    be = c.be
    for shape, seeds in (
        ((1,), [0]), ((3,), [7]), ((5, 7), [2**64 - 1]), ((2, 3, 5), [3]), ((1, 4, 5), [3]),
        ((3, 4, 5), [1, 9, 1]), ((2, 3), [4, 5]), ((_LARGE + 1,), [11]), ((4, 101, 103), [0, 1, 2, 3]),
    ):  # fmt: skip
        for step, stream, where in (
            (0, rng.stream(rng.DROPOUT, 0), "own"),
            (5, rng.stream(rng.DROPOUT, 3), "flat"),
            (2**33 + 1, rng.stream(rng.NOISE, 1), "own"),
        ):
            placed = _Placed(be, np.full(shape, 9, np.float32), where)
            counter = _Placed(be, np.array([step], np.int64), "own")
            given = be.uniform(placed.array, seeds=seeds, stream=stream, counter=counter.array)
            case = f"seeds {seeds}, stream {stream}, step {step}, {list(shape)}, {where}"
            if given is not placed.array:
                c.fail("uniform", case, "did not return out")
            if not counter.unchanged():
                c.fail("uniform", case, "changed its counter")
            _compare_bits(c, case, placed, seeds, stream, step)


def _compare_bits(
    c: _Conformance, case: str, placed: _Placed, seeds: Sequence[int], stream: int, step: int
) -> None:
    c.n += 1
    got = placed.host()
    shape = got.shape if len(seeds) == 1 else got.shape[1:]
    want = np.stack([rng.uniform(s, stream, step, shape) for s in seeds]).reshape(got.shape)
    if got.dtype != np.float32 or got.tobytes() != want.tobytes():
        wrong = int(np.count_nonzero(got != want))
        most = np.abs(got - want).max()
        c.fail("uniform", case, f"{wrong} of {want.size} numbers are not, bit by bit, those of "
               f"xpnet.rng.uniform; largest difference {most:.3g}")  # fmt: skip
    placed.accept()
    if not placed.unchanged():
        c.fail("uniform", case, "wrote outside of out")


class _Work:
    """A little training step on buffers of its own: most operations, one after another."""

    def __init__(self, be: Backend, dtype: str, values: dict[str, np.ndarray]):
        self.be, self.dtype = be, dtype
        self.a = {name: _Placed(be, v, "own") for name, v in values.items()}

    def __call__(self) -> None:
        be, a = self.be, {name: p.array for name, p in self.a.items()}
        be.gather(a["rows"], a["index"], out=a["x"], scale=0.5)
        be.uniform(a["u"], seeds=[3], stream=rng.stream(rng.DROPOUT, 1), counter=a["counter"])
        be.map(_work_mask, a["x"], a["u"], out=a["x"])
        be.matmul(a["x"], a["w"], tb=True, out=a["z"])
        be.map(_ACTIVATION.with_bias_keeping_input, a["z"], a["b"], out=(a["z"], a["y"]))
        be.softmax_cross_entropy(a["y"], a["t"], a["share"], loss=a["loss"], out=a["dy"])
        be.sum(a["loss"], axis=-1, out=a["mean"])
        be.map(_ACTIVATION.backward, a["dy"], a["z"], out=a["dy"])
        be.matmul(a["dy"], a["x"], ta=True, out=a["g"])
        be.map(_work_update, a["w"], a["g"], a["rate"], out=a["w"])
        be.softmax(a["y"], out=a["y"])
        be.argmax(a["y"], out=a["best"])
        be.map(_work_count, a["count"], out=a["count"])


_ACTIVATION = activations.get_activation("gelu_tanh")


def _work_mask(ns: Any, x: Any, u: Any) -> Any:
    return ns.where(u >= 0.25, x * 1.25, 0.0)


def _work_update(ns: Any, w: Any, g: Any, rate: Any) -> Any:
    return w - rate * (g + 0.01 * ns.sign(w))


def _work_count(ns: Any, a: Any) -> Any:
    return a + 1.0


def _work_values(c: _Conformance, dtype: str, batch: int, n_in: int, n_out: int) -> dict[str, np.ndarray]:
    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, dtype)

    return {
        "rows": c.numbers((50, n_in), dtype), "index": c.random.integers(0, 50, batch),
        "x": zeros(batch, n_in), "u": np.zeros((batch, n_in), np.float32), "counter": np.zeros(1, np.int64),
        "w": c.numbers((n_out, n_in), dtype, 0.1, 1), "b": c.numbers((1, n_out), dtype),
        "z": zeros(batch, n_out),
        "y": zeros(batch, n_out), "t": np.eye(n_out, dtype=dtype)[c.random.integers(0, n_out, batch)],
        "share": np.full(batch, 1.0 / batch, dtype), "loss": zeros(batch), "dy": zeros(batch, n_out),
        "mean": zeros(), "g": zeros(n_out, n_in), "rate": np.full(1, 0.01, dtype),
        "best": np.zeros(batch, np.int64), "count": zeros(1),
    }  # fmt: skip


def _check_capture(c: _Conformance, dtype: str) -> None:
    values = _work_values(c, dtype, 6, 4, 5)
    other = _work_values(
        c, dtype, 150, 140, 131
    )  # larger, so that scratch memory of the first would be too small
    ours, theirs = _Work(c.be, dtype, values), _Work(c.ref, dtype, values)

    def compare(when: str) -> None:
        c.be.synchronize()
        for name in values:
            if name != "best":  # equal to rounding is not enough for an index
                c.compare(
                    "capture",
                    f"{dtype}, {name} {when}",
                    ours.a[name].host(),
                    theirs.a[name].host(),
                    factor=10.0,
                )

    repeat = c.be.capture(ours)
    theirs()
    compare("after the capture, which runs the work once")
    repeat()
    theirs()
    compare("after one repeat")
    large = _Work(c.be, dtype, other)
    for step in (1, 2**33 + 5):
        large()  # uses scratch memory, too
        new = {
            "counter": np.array([step]), "index": c.random.integers(0, 50, 6),
            "rate": np.full(1, 0.02, dtype), "b": c.numbers((1, 5), dtype),
        }  # fmt: skip
        for name, array in new.items():
            ours.a[name].array[...] = c.be.asarray(array.copy())
            theirs.a[name].array[...] = array
        repeat()
        theirs()
        compare(f"after new contents, counter {step} and larger operations in between")
    second = c.be.capture(large)
    for _ in range(2):
        second()
        repeat()
        theirs()
    compare("after another capture ran in between")


def check_backend(be: Backend, *, dtypes: Sequence[str] = ("float32", "float64"), seed: int = 0) -> int:
    """Check a back end against the contract in `xpnet.backend` and the reference on NumPy.

    Covers signatures, results, side effects (inputs stay, `out` comes back, nothing around it is written),
    random numbers bit by bit, and `capture`.

    Parameters
    ----------
    be : Backend
    dtypes : sequence of str, default ("float32", "float64")
        What it computes in.
    seed : int, default 0
        Of the numbers that go in.

    Returns
    -------
    int
        How many results were compared.

    Raises
    ------
    AssertionError
        Names the operation, the case, and the largest difference with what is allowed.

    Examples
    --------
    >>> from xpnet import get_backend
    >>> check_backend(get_backend("cpu"), dtypes=["float32"]) > 500
    True
    """
    c = _Conformance(be, dtypes, seed)
    _check_signatures(c)
    _check_memory(c)
    _check_uniform(c)
    for dtype in c.dtypes:
        for check in (
            _check_matmul, _check_map, _check_map_aliases, _check_activations, _check_optimizers, _check_sum,
            _check_softmax, _check_head, _check_argmax, _check_gather, _check_losses, _check_capture,
        ):  # fmt: skip
            check(c, dtype)
    return c.n
