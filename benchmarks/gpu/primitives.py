"""The machine itself: what a node, a product, a barrier and a byte cost. All on one stream, timed by events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import kernels
from .parts import Finding
from .timing import Device, blocks, captured


def versions() -> Iterator[Finding]:
    """Versions and memory; how long the first calls take in a new process."""
    started = time.perf_counter()
    import cupy

    imported = time.perf_counter()
    from xpnet.backend import get_backend
    from xpnet.backend.cuda.probe import probe

    finding = probe()
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    free, total = cupy.cuda.runtime.memGetInfo()
    yield {
        "device": properties["name"].decode(), "compute": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": properties["multiProcessorCount"], "l2_bytes": properties["l2CacheSize"],
        "free_bytes": free, "total_bytes": total, "cupy": cupy.__version__, **finding.versions,
    }  # fmt: skip
    yield {"import_cupy_s": imported - started}
    begun = time.perf_counter()
    be = get_backend("cuda")
    yield {"back_end_s": time.perf_counter() - begun}
    a, out = be.asarray(np.ones((128, 128)), "float32"), be.empty((128, 128), "float32")
    for name in ("first", "second"):
        begun = time.perf_counter()
        be.matmul(a, a, tb=True, out=out)
        be.synchronize()
        yield {f"{name}_product_s": time.perf_counter() - begun}
    for name in ("first", "second"):
        begun = time.perf_counter()
        be.map(lambda ns, x: ns.exp(x) * 2.0, a, out=out)
        be.synchronize()
        yield {f"{name}_new_formula_s": time.perf_counter() - begun}


def capture() -> Iterator[Finding]:
    """Whether products are captured together with kernels, and repeat to the bit: the design rests on it."""
    from xpnet.backend import get_backend

    for precision in ("float32", "tf32", "bf16"):
        be = get_backend("cuda", precision=precision)
        rng = np.random.default_rng(0)
        x = be.asarray(rng.standard_normal((128, 784)), "float32")
        w = be.asarray(rng.standard_normal((500, 784)), "float32")
        z, total = be.empty((128, 500), "float32"), be.empty((128, 500), "float32")
        total[...] = 0.0

        def work(be: Any = be, x: Any = x, w: Any = w, z: Any = z, total: Any = total) -> None:
            be.matmul(x, w, tb=True, out=z)
            be.map(_relu_sum, total, z, out=total)

        repeat = be.repeated(work)
        for _ in range(3):
            repeat()
        be.synchronize()
        got, once = be.to_numpy(total).copy(), np.maximum(be.to_numpy(z), 0.0)
        exact = np.maximum(be.to_numpy(x).astype(np.float64) @ be.to_numpy(w).astype(np.float64).T, 0.0)
        adds_up = bool(np.array_equal(got, once + once + once + once))
        yield {
            "precision": precision, "captured": captured(repeat), "replays_add_up": adds_up,
            "ok": captured(repeat) and adds_up,
            "relative_error": float(np.linalg.norm(once - exact) / np.linalg.norm(exact)),
        }  # fmt: skip


def _random(*shape: int) -> np.ndarray:
    """Normal float32 numbers: zeros as data would cost a card less power, and let it run faster than it does."""
    n = int(np.prod(shape))
    return np.resize(np.random.default_rng(0).standard_normal(min(n, 1 << 20), dtype=np.float32), shape)


def _relu_sum(ns: Any, total: Any, z: Any) -> Any:
    return total + ns.maximum(z, 0.0)


def nodes() -> Iterator[Finding]:
    """Graphs of empty kernels and of dependent products: microseconds a node, and of one launch on the host."""
    device = Device()
    cupy = device.cupy
    empty = cupy.RawKernel(kernels.EMPTY, "empty")
    x = cupy.zeros(1, cupy.float32)
    for n in (10, 100, 1000):

        def work(n: int = n) -> None:
            for _ in range(n):
                empty((1,), (32,), (x,))

        graph = device.graph(work)
        ms = device.milliseconds(lambda graph=graph: [graph.launch(device.stream) for _ in range(20)])
        started = time.perf_counter()
        for _ in range(100):
            graph.launch(device.stream)
        host = time.perf_counter() - started
        device.stream.synchronize()
        yield {"empty_nodes": n, "us_per_node": 1e3 * ms / 20 / n, "host_us_per_launch": 1e6 * host / 100}
    from xpnet.backend import get_backend

    for precision in ("float32", "tf32", "bf16"):
        be = get_backend("cuda", precision=precision)
        # numbers that keep their size from product to product
        a, b = be.asarray(_random(128, 512)), be.asarray(_random(512, 512) / np.float32(np.sqrt(512.0)))
        pair = [a, be.empty((128, 512), "float32")]

        def chain(be: Any = be, pair: Any = pair, b: Any = b) -> None:
            for k in range(20):
                be.matmul(pair[k % 2], b, tb=True, out=pair[1 - k % 2])

        repeat = be.repeated(chain)

        def run(n: int, be: Any = be, repeat: Any = repeat) -> None:
            for _ in range(n):
                repeat()
            be.synchronize()

        yield {
            "dependent_products": "128x512x512", "precision": precision, "captured": captured(repeat),
            "us_per_product": blocks(run)["us"] / 20,
        }  # fmt: skip


def barrier() -> Iterator[Finding]:
    """A barrier of all blocks, by atomics, in a cooperative kernel."""
    device = Device()
    cupy = device.cupy
    blocks_at_once = cupy.cuda.runtime.getDeviceProperties(0)["multiProcessorCount"]
    kernel = cupy.RawKernel(kernels.BARRIER, "barriers", enable_cooperative_groups=True)
    state = cupy.zeros(1, cupy.uint32)
    times = []
    for rounds in (1, 1001):

        def work(rounds: int = rounds) -> None:
            state.fill(0)
            kernel((blocks_at_once,), (256,), (state, np.int32(rounds)))

        times.append(device.milliseconds(work))
        yield {"barriers": rounds, "blocks": blocks_at_once, "ms": times[-1]}
    yield {"us_per_barrier": 1e3 * (times[1] - times[0]) / 1000}


def adam() -> Iterator[Finding]:
    """Gigabytes a second of xpnet's update and of a bare kernel; 28 bytes a parameter."""
    from xpnet.backend import get_backend
    from xpnet.optim import Adam
    from xpnet.params import ParameterLayout, ParamSpec
    from xpnet.training.update import Regularization, Update

    device = Device()
    cupy = device.cupy
    kernel = cupy.RawKernel(kernels.ADAM, "adam")
    be = get_backend("cuda")
    for n in (397_312, 12_000_000, 134_000_000):
        n -= n % 1024
        arrays = [cupy.asarray(np.abs(_random(n))) for _ in range(4)]  # the second moment is never negative
        numbers = [np.float32(v) for v in (1e-3, 0.9, 0.999, 1e-8)]
        grid = min(n // 1024, 132 * 8)

        def bare(arrays: Any = arrays, numbers: Any = numbers, n: int = n, grid: int = grid) -> None:
            for _ in range(10):
                kernel((grid,), (256,), (*arrays, *numbers, np.int64(n // 4)))

        ms = device.milliseconds(bare) / 10
        del arrays
        yield {"parameters": n, "kernel": "bare", "us": 1e3 * ms, "gb_per_s": 28e-6 * n / ms}
        layout = ParameterLayout([ParamSpec("w", (n // 1024, 1024))], None)
        weights, grads = be.empty((n,), "float32"), be.empty((n,), "float32")
        weights[...], grads[...] = be.asarray(_random(n)), be.asarray(_random(n))
        update = Update(be, layout, weights, grads, Adam(), Regularization(), "float32")
        update.set_numbers(1, 1.0)
        repeat = be.repeated(update.apply)

        def run(k: int, repeat: Any = repeat) -> None:
            for _ in range(k):
                repeat()
            be.synchronize()

        us = blocks(run)["us"]
        yield {
            "parameters": n,
            "kernel": "xpnet",
            "captured": captured(repeat),
            "us": us,
            "gb_per_s": 28e-3 * n / us,
        }


def batched() -> Iterator[Finding]:
    """The first layer of 256 models on a shared batch: strided products, or all models as one product."""
    from xpnet.backend import get_backend

    m, b, i, o = 256, 128, 784, 128
    for precision in ("float32", "tf32"):
        be = get_backend("cuda", precision=precision)
        x, own, w = be.asarray(_random(b, i)), be.asarray(_random(m, b, i)), be.asarray(_random(m, o, i))
        out = be.empty((m, b, o), "float32")
        side_by_side = be.empty((b, m * o), "float32")
        flat = be.xp.reshape(w, (m * o, i))
        works = {
            "one product": lambda be=be, x=x, flat=flat, out=side_by_side: be.matmul(
                x, flat, tb=True, out=out
            ),
            "shared batch": lambda be=be, x=x, w=w, out=out: be.matmul(x, w, tb=True, out=out),
            "own batches": lambda be=be, x=own, w=w, out=out: be.matmul(x, w, tb=True, out=out),
        }
        for name, work in works.items():
            repeat = be.repeated(work)

            def run(n: int, be: Any = be, repeat: Any = repeat) -> None:
                for _ in range(n):
                    repeat()
                be.synchronize()

            us = blocks(run)["us"]
            yield {
                "how": name,
                "precision": precision,
                "captured": captured(repeat),
                "us": us,
                "tflops": 2e-6 * m * b * i * o / us,
            }


def peaks() -> Iterator[Finding]:
    """Rates of square products: what the arithmetic of large networks is compared with."""
    from xpnet.backend import get_backend

    for precision, sizes in (("float32", (1024, 4096)), ("tf32", (1024, 4096)), ("bf16", (1024, 4096, 8192))):
        be = get_backend("cuda", precision=precision)
        for n in sizes:
            rng = np.random.default_rng(0)
            a = be.asarray(rng.standard_normal((n, n), dtype=np.float32))
            b = be.asarray(rng.standard_normal((n, n), dtype=np.float32))
            out = be.empty((n, n), "float32")
            repeat = be.repeated(lambda be=be, a=a, b=b, out=out: be.matmul(a, b, tb=True, out=out))

            def run(k: int, be: Any = be, repeat: Any = repeat) -> None:
                for _ in range(k):
                    repeat()
                be.synchronize()

            us = blocks(run, budget=1.0)["us"]
            # bf16 includes the rounding of float32 operands, as training pays it; the bare rate is beside it
            yield {
                "n": n, "precision": precision, "captured": captured(repeat), "us": us, "tflops": 2e-6 * n**3 / us,
            }  # fmt: skip
    yield from _bare_bf16()


def _bare_bf16() -> Iterator[Finding]:
    try:
        import torch
    except ImportError:
        yield {"bare_bf16": "not measured: PyTorch is not installed"}
        return
    for n in (4096, 8192):
        a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        out = torch.empty(n, n, device="cuda", dtype=torch.bfloat16)

        def run(k: int, a: Any = a, b: Any = b, out: Any = out) -> None:
            for _ in range(k):
                torch.mm(a, b.T, out=out)
            torch.cuda.synchronize()

        us = blocks(run, budget=1.0)["us"]
        yield {
            "n": n,
            "precision": "bf16, operands bf16 already (cuBLAS)",
            "us": us,
            "tflops": 2e-6 * n**3 / us,
        }
