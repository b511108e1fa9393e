"""cublasLt with what follows a product fused in, beside the plain product: which are worth it on this card.

cublasLt is called here by ctypes, apart from xpnet, so that a card can be judged before xpnet uses an epilogue. The
numbers of attributes and epilogues are those of cublasLt.h of CUDA 12 and 13.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np

from .parts import Finding

_TRANSA, _EPILOGUE, _BIAS_POINTER, _AUX_POINTER, _AUX_LD, _BIAS_TYPE = 3, 7, 8, 11, 12, 26
_MAX_WORKSPACE, _ROWS_TYPE_32F, _TYPE_16BF = 1, 0, 14
_COMPUTE = {"float32": 68, "tf32": 77, "bf16": 68}
WORKSPACE = 32 << 20

#: name -> (number, has a bias vector, has a mask of bits)
EPILOGUES = {
    "none": (1, False, False), "bias": (4, True, False), "relu bias": (6, True, False),
    "relu bias, mask kept": (134, True, True), "mask applied, bias gradient": (152, True, True),
    "bias gradient of a": (256, True, False),
}  # fmt: skip

SHAPES = ((128, 500, 784), (128, 1000, 1000), (128, 2500, 784), (128, 2000, 2500), (8192, 4096, 4096))


class Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algo", ctypes.c_uint64 * 8), ("workspace", ctypes.c_size_t), ("state", ctypes.c_int),
        ("waves", ctypes.c_float), ("reserved", ctypes.c_int * 4),
    )  # fmt: skip


class Lt:
    """As much of cublasLt as a product needs; descriptors need no GPU, `handle` does."""

    def __init__(self) -> None:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        self.library = ctypes.CDLL(load_nvidia_dynamic_lib("cublasLt").abs_path)

    def _call(self, name: str, *args: Any) -> None:
        status = getattr(self.library, f"cublasLt{name}")(*args)
        if status:
            raise RuntimeError(f"cublasLt{name} failed with status {status}")

    def handle(self) -> Any:
        """A handle of the current device."""
        handle = ctypes.c_void_p()
        self._call("Create", ctypes.byref(handle))
        return handle

    def layout(self, kind: int, rows: int, columns: int, leading: int) -> Any:
        """A column-major matrix."""
        found = ctypes.c_void_p()
        self._call(
            "MatrixLayoutCreate", ctypes.byref(found), kind, ctypes.c_uint64(rows), ctypes.c_uint64(columns),
            ctypes.c_int64(leading),
        )  # fmt: skip
        return found

    def operation(self, compute: int) -> Any:
        """A description with the first operand transposed: x (B, I) by w (O, I), row-major."""
        found = ctypes.c_void_p()
        self._call("MatmulDescCreate", ctypes.byref(found), compute, 0)
        self.set(found, _TRANSA, ctypes.c_int32(1))
        return found

    def set(self, operation: Any, attribute: int, value: Any) -> None:
        """Set an attribute of a description."""
        self._call("MatmulDescSetAttribute", operation, attribute, ctypes.byref(value), ctypes.sizeof(value))

    def heuristics(self, handle: Any, operation: Any, layouts: Any, most: int = 8) -> list[Heuristic]:
        """Algorithms that the library proposes, best first; empty where it has none."""
        preference = ctypes.c_void_p()
        self._call("MatmulPreferenceCreate", ctypes.byref(preference))
        size = ctypes.c_uint64(WORKSPACE)
        self._call(
            "MatmulPreferenceSetAttribute",
            preference,
            _MAX_WORKSPACE,
            ctypes.byref(size),
            ctypes.sizeof(size),
        )
        results, n = (Heuristic * most)(), ctypes.c_int()
        a, b, c = layouts
        status = self.library.cublasLtMatmulAlgoGetHeuristic(
            handle, operation, a, b, c, c, preference, most, results, ctypes.byref(n)
        )
        self._call("MatmulPreferenceDestroy", preference)
        return [] if status else [r for r in results[: n.value] if r.state == 0]

    def multiply(
        self, handle: Any, operation: Any, layouts: Any, pointers: Any, algorithm: Heuristic, workspace: int,
        stream: int,
    ) -> None:  # fmt: skip
        """Run the product on a stream."""
        one, zero = ctypes.c_float(1.0), ctypes.c_float(0.0)
        a, b, c = (ctypes.c_void_p(p) for p in pointers)
        self._call(
            "Matmul", handle, operation, ctypes.byref(one), a, layouts[0], b, layouts[1], ctypes.byref(zero), c,
            layouts[2], c, layouts[2], ctypes.byref(algorithm.algo), ctypes.c_void_p(workspace),
            ctypes.c_size_t(WORKSPACE), ctypes.c_void_p(stream),
        )  # fmt: skip


def describe(
    lt: Lt, batch: int, outputs: int, inputs: int, precision: str
) -> tuple[Any, tuple[Any, Any, Any]]:
    """Operation and layouts of y^T (O, B) = w (O, I) x^T (I, B), column-major."""
    kind = _TYPE_16BF if precision == "bf16" else _ROWS_TYPE_32F
    layouts = (
        lt.layout(kind, inputs, outputs, inputs), lt.layout(kind, inputs, batch, inputs),
        lt.layout(kind, outputs, batch, outputs),
    )  # fmt: skip
    return lt.operation(_COMPUTE[precision]), layouts


def _random(n: int, precision: str) -> np.ndarray:
    """Normal numbers as they lie in memory; zeros would cost a card less power than data do."""
    x = np.resize(np.random.default_rng(0).standard_normal(min(n, 1 << 20), dtype=np.float32), n)
    return (x.view(np.uint32) >> 16).astype(np.uint16) if precision == "bf16" else x


def measure() -> Iterator[Finding]:
    """Microseconds of each epilogue in a graph of 20 products; the best of 8 algorithms and the first."""
    from .timing import Device

    device = Device()
    cupy, lt = device.cupy, Lt()
    handle = lt.handle()
    for batch, outputs, inputs in SHAPES:
        for precision in ("tf32", "bf16"):
            memory = [
                cupy.asarray(_random(n, precision))
                for n in (outputs * inputs, batch * inputs, batch * outputs, max(outputs, inputs))
            ]
            stride = -(-outputs // 128) * 128
            bits_kept = np.random.default_rng(0).integers(0, 256, stride * batch // 8, dtype=np.uint8)
            mask, workspace = cupy.asarray(bits_kept), cupy.zeros(WORKSPACE, cupy.uint8)
            plain = None
            for name, (number, bias, bits) in EPILOGUES.items():
                operation, layouts = describe(lt, batch, outputs, inputs, precision)
                lt.set(operation, _EPILOGUE, ctypes.c_int32(number))
                if bias:
                    lt.set(operation, _BIAS_POINTER, ctypes.c_uint64(memory[3].data.ptr))
                if bits:
                    lt.set(operation, _AUX_POINTER, ctypes.c_uint64(mask.data.ptr))
                    lt.set(operation, _AUX_LD, ctypes.c_int64(stride))
                where = f"{batch}x{outputs}x{inputs}"
                found = lt.heuristics(handle, operation, layouts)
                if not found:
                    yield {"product": where, "precision": precision, "epilogue": name, "us": None}
                    continue
                times = []
                for algorithm in found:

                    def work(algorithm: Any = algorithm, operation: Any = operation, layouts: Any = layouts,
                             memory: Any = memory, workspace: Any = workspace) -> None:  # fmt: skip
                        for _ in range(20):
                            lt.multiply(
                                handle, operation, layouts, [m.data.ptr for m in memory[:3]], algorithm,
                                workspace.data.ptr, device.stream.ptr,
                            )  # fmt: skip

                    try:
                        graph = device.graph(work)
                    except RuntimeError:  # an algorithm that the library proposed and does not have
                        continue
                    ms = device.milliseconds(lambda graph=graph: graph.launch(device.stream), least=3)
                    times.append(1e3 * ms / 20)
                if not times:
                    yield {"product": where, "precision": precision, "epilogue": name, "us": None}
                    continue
                plain = min(times) if name == "none" else plain
                yield {
                    "product": where, "precision": precision, "epilogue": name, "us": min(times),
                    "first_us": times[0], "algorithms": len(times), "by_plain": min(times) / plain if plain else None,
                }  # fmt: skip
