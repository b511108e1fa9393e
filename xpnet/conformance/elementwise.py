"""Formulas given to `map`: operations, aliases, activations, optimizers, losses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from .. import activations, losses, optim
from ..backend import Array, Backend
from ..losses import Loss, get_loss
from .harness import LARGE, Call, Conformance

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
    ((3, 1, 5), (3, 1, 1)), ((3, 8), (3, 1)), ((1, 1, 3), (3,)), ((LARGE + 3,), (LARGE + 3,)),
    ((LARGE + 3,), (1,)),
    ((230, 211), (1, 211)), ((230, 211), (230, 1)), ((3, 100, 211), (3, 1, 211)), ((3, 100, 211), (100, 211)),
    ((2, LARGE), (2, 1)), ((2, LARGE), (LARGE,)), ((2, 1, LARGE), (2, 1, LARGE)),
    ((1, LARGE), (1, LARGE)),    ((2, LARGE, 1), (2, LARGE, 1)), ((1, 300, 200), (1, 1, 200)),
]  # fmt: skip


def check_map(c: Conformance, dtype: str) -> None:
    for name, (fn, n, (low, high)) in _VOCABULARY.items():
        shape: tuple[int, ...]
        for shape in ((6, 7), (3, 5, 2), (LARGE,)):
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


def check_map_aliases(c: Conformance, dtype: str) -> None:
    for shape in ((4, 5), (LARGE + 1,)):
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


def check_activations(c: Conformance, dtype: str) -> None:
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


def check_optimizers(c: Conformance, dtype: str) -> None:
    for optimizer in _OPTIMIZERS:
        for shape, row in (((37,), (1,)), ((LARGE,), (1,)), ((3, 20), (3, 1))):
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


_LOSSES = (*losses.NAMES, "huber:0.3", "quantile:0.9")


def check_losses(c: Conformance, dtype: str) -> None:
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
