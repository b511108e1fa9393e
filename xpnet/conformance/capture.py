"""A step that is captured and repeated, beside one that is not."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import activations, rng
from ..backend import Backend
from .harness import Conformance, Placed


class _Work:
    """A little training step on buffers of its own: most operations, one after another."""

    def __init__(self, be: Backend, dtype: str, values: dict[str, np.ndarray]):
        self.be, self.dtype = be, dtype
        self.a = {name: Placed(be, v, "own") for name, v in values.items()}

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


def _work_values(c: Conformance, dtype: str, batch: int, n_in: int, n_out: int) -> dict[str, np.ndarray]:
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


def check_capture(c: Conformance, dtype: str) -> None:
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
