"""Single operations of the back ends, as a training step runs them: captured once, then repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

B, I, O = 128, 784, 500  # noqa: E741 (the letters of the documentation)


def backends() -> dict[str, tuple[Any, str | None]]:
    """Name -> (back end or None, why it is absent or None)."""
    import xpnet
    from xpnet.backend.reference import ReferenceBackend

    found: dict[str, tuple[Any, str | None]] = {
        "xpnet": (xpnet.get_backend("cpu"), None),
        "reference": (ReferenceBackend(np), None),
    }
    for name, device in (("xpnet.numba", "numba"), ("cupy", "cuda")):
        try:
            found[name] = (xpnet.get_backend(device), None)
        except xpnet.XpnetError as error:
            found[name] = (None, str(error))
    return found


def _normal(be: Any, *shape: int, seed: int = 0) -> Any:
    return be.asarray(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def _matmul_forward(be: Any) -> Callable[[], Any]:
    x, w, out = _normal(be, B, I), _normal(be, O, I), be.empty((B, O), "float32")
    return lambda: be.matmul(x, w, tb=True, out=out)


def _matmul_weight(be: Any) -> Callable[[], Any]:
    dy, x, out = _normal(be, B, O), _normal(be, B, I), be.empty((O, I), "float32")
    return lambda: be.matmul(dy, x, ta=True, out=out)


def _matmul_input(be: Any) -> Callable[[], Any]:
    dy, w, out = _normal(be, B, O), _normal(be, O, I), be.empty((B, I), "float32")
    return lambda: be.matmul(dy, w, out=out)


def _relu(be: Any) -> Callable[[], Any]:
    from xpnet.activations import get_activation

    f = get_activation("relu").with_bias
    z, bias, out = _normal(be, B, O), _normal(be, 1, O), be.empty((B, O), "float32")
    return lambda: be.map(f, z, bias, out=out)


def _relu_backward(be: Any) -> Callable[[], Any]:
    from xpnet.activations import get_activation

    f = get_activation("relu").backward
    dy, y, out = _normal(be, B, O), _normal(be, B, O, seed=1), be.empty((B, O), "float32")
    return lambda: be.map(f, dy, y, out=out)


def _update(name: str) -> Callable[[Any], Callable[[], Any]]:
    def make(be: Any) -> Callable[[], Any]:
        import xpnet

        optimizer = xpnet.Adam() if name == "adam" else xpnet.SGD(momentum=0.9)
        n, k = I * O, len(optimizer.state)
        w, g = _normal(be, n), _normal(be, n, seed=1)
        moments = [be.asarray(np.full(n, 0.01, np.float32)) for _ in range(k)]
        numbers = [be.asarray(np.asarray([v], np.float32)) for v in optimizer.numbers(100, 1e-6)]

        def formula(ns: Any, w: Any, g: Any, *rest: Any) -> Any:
            return optimizer.formula(ns, w, g, rest[:k], rest[k:])

        return lambda: be.map(formula, w, g, *moments, *numbers, out=(w, *moments))

    return make


def _bias_gradient(be: Any) -> Callable[[], Any]:
    dy, out = _normal(be, B, O), be.empty((O,), "float32")
    return lambda: be.sum(dy, axis=-2, out=out)


def _softmax(be: Any) -> Callable[[], Any]:
    z, out = _normal(be, B, 10), be.empty((B, 10), "float32")
    return lambda: be.softmax(z, out=out)


def _cross_entropy(be: Any) -> Callable[[], Any]:
    z, out, loss = _normal(be, B, 10), be.empty((B, 10), "float32"), be.empty((B,), "float32")
    t = be.asarray(np.eye(10, dtype=np.float32)[np.arange(B) % 10])
    w = be.asarray(np.full(B, 1 / B, np.float32))
    return lambda: be.softmax_cross_entropy(z, t, w, loss=loss, out=out)


def _argmax(be: Any) -> Callable[[], Any]:
    z, out = _normal(be, B, 10), be.empty((B,), "int64")
    return lambda: be.argmax(z, out=out)


def _rows(be: Any) -> Any:
    return be.asarray(np.random.default_rng(2).permutation(10_000)[:B].astype(np.int64))


def _gather(be: Any) -> Callable[[], Any]:
    x, index, out = _normal(be, 10_000, I), _rows(be), be.empty((B, I), "float32")
    return lambda: be.gather(x, index, out=out)


def _gather_bytes(be: Any) -> Callable[[], Any]:
    x = be.asarray(np.random.default_rng(0).integers(0, 256, (10_000, I), dtype=np.uint8))
    index, out = _rows(be), be.empty((B, I), "float32")
    return lambda: be.gather(x, index, scale=1 / 255, out=out)


def _uniform(be: Any) -> Callable[[], Any]:
    out, counter = be.empty((B, O), "float32"), be.asarray(np.asarray([7], np.int64))
    return lambda: be.uniform(out, seeds=(0,), stream=3, counter=counter)


OPS: dict[str, Callable[[Any], Callable[[], Any]]] = {
    f"matmul forward ({B}, {I}) x ({O}, {I})^T": _matmul_forward,
    f"matmul weight gradient ({B}, {O})^T x ({B}, {I})": _matmul_weight,
    f"matmul input gradient ({B}, {O}) x ({O}, {I})": _matmul_input,
    f"map bias and ReLU ({B}, {O})": _relu,
    f"map ReLU backward ({B}, {O})": _relu_backward,
    f"map SGD with momentum, {I * O:,} weights": _update("sgd"),
    f"map Adam, {I * O:,} weights": _update("adam"),
    f"sum over the batch ({B}, {O})": _bias_gradient,
    f"softmax ({B}, 10)": _softmax,
    f"softmax cross-entropy ({B}, 10)": _cross_entropy,
    f"argmax ({B}, 10)": _argmax,
    f"gather {B} rows of {I} float32": _gather,
    f"gather {B} rows of {I} bytes": _gather_bytes,
    f"uniform ({B}, {O})": _uniform,
}


def make(name: str, be: Any) -> Callable[[int], None]:
    """Return ``run(n)`` for operation `name` on `be`."""
    replay = be.capture(OPS[name](be))

    def run(n: int) -> None:
        for _ in range(n):
            replay()
        be.synchronize()

    return run
