"""What goes along rows: sums, softmax, the head of a classifier, argmax, gathering, random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from .. import rng
from ..backend import Array, Backend
from .harness import LARGE, Call, Conformance, Placed


def check_sum(c: Conformance, dtype: str) -> None:
    shapes = [
        (1, 1),
        (1, 5),
        (4, 1),
        (4, 5),
        (3, 4, 5),
        (3, 1, 5),
        (300, 211),
        (2, 3, LARGE),
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
    for n in (1, 9, LARGE):
        c.run("sum", "of a vector", _sum(-1), [c.numbers((n,), dtype)], [((), dtype)])


def _sum(axis: int) -> Call:
    return lambda be, a, out: be.sum(a[0], axis=axis, out=out)


def check_softmax(c: Conformance, dtype: str) -> None:
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


def check_head(c: Conformance, dtype: str) -> None:
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


def check_argmax(c: Conformance, dtype: str) -> None:
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


def check_gather(c: Conformance, dtype: str) -> None:
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
    index = c.random.integers(0, n, 12)
    for stored in (
        "bool",
        "int8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "uint64",
    ):  # samples come in all of them
        x = c.random.integers(0, 100, (n, width)).astype(stored)
        c.run("gather", f"of {stored}", _gather({}, []), [x, index], [((12, width), dtype)])


def _gather(fixed: dict[str, Any], names: list[str]) -> Call:
    return lambda be, a, out: be.gather(a[0], a[1], out=out, **fixed, **dict(zip(names, a[2:], strict=True)))


def check_uniform(c: Conformance) -> None:
    be = c.be
    for shape, seeds in (
        ((1,), [0]), ((3,), [7]), ((5, 7), [2**64 - 1]), ((2, 3, 5), [3]), ((1, 4, 5), [3]),
        ((3, 4, 5), [1, 9, 1]), ((2, 3), [4, 5]), ((LARGE + 1,), [11]), ((4, 101, 103), [0, 1, 2, 3]),
    ):  # fmt: skip
        for step, stream, where in (
            (0, rng.stream(rng.DROPOUT, 0), "own"),
            (5, rng.stream(rng.DROPOUT, 3), "flat"),
            (2**33 + 1, rng.stream(rng.NOISE, 1), "own"),
        ):
            placed = Placed(be, np.full(shape, 9, np.float32), where)
            counter = Placed(be, np.array([step], np.int64), "own")
            given = be.uniform(placed.array, seeds=seeds, stream=stream, counter=counter.array)
            case = f"seeds {seeds}, stream {stream}, step {step}, {list(shape)}, {where}"
            if given is not placed.array:
                c.fail("uniform", case, "did not return out")
            if not counter.unchanged():
                c.fail("uniform", case, "changed its counter")
            _compare_bits(c, case, placed, seeds, stream, step)


def _compare_bits(
    c: Conformance, case: str, placed: Placed, seeds: Sequence[int], stream: int, step: int
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
