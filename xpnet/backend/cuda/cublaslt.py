"""cublasLt by ctypes: descriptions of products, the choice of an algorithm, the call.

CuPy's own matrix product cannot be part of a captured step, copies transposed stacks and has no strided batches of
float32 with TF32; cublasLt has no such limits, because the caller gives it stream, workspace and algorithm.
Descriptions can be built without a device; a `Handle` needs one. Numbers of enumerations are those of cublasLt.h,
stable since CUDA 11.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from ctypes import byref, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any

from ...errors import DeviceError
from .products import Matrix, Product

# cudaDataType and cublasComputeType_t
_TYPES = {"float32": 0, "float64": 1, "bfloat16": 14}
_COMPUTE = {"float32": 68, "float64": 70, "tf32": 77}
# attributes of descriptions, layouts and preferences
_TRANSPOSE_FIRST, _TRANSPOSE_SECOND = 3, 4
_EPILOGUE, _BIAS, _BIAS_STRIDE = 7, 8, 10
_BATCH_COUNT, _BATCH_STRIDE = 5, 6
# what happens to a result before it is written: a bias is added, and the rest may be rectified
_ADD_BIAS, _ADD_BIAS_RELU = 4, 6
_MAX_WORKSPACE, _ALIGNMENTS = 1, (5, 6, 7, 8)

#: Bytes that a product may use besides its operands; what NVIDIA recommends for Hopper.
WORKSPACE = 32 << 20


class _Heuristic(ctypes.Structure):
    """``cublasLtMatmulHeuristicResult_t``."""

    _fields_ = (
        ("algorithm", c_uint64 * 8), ("workspace", c_size_t), ("state", c_int), ("waves", c_float),
        ("reserved", c_int * 4),
    )  # fmt: skip


@dataclass(frozen=True)
class Algorithm:
    """One way to compute a product; `data` is opaque and belongs to one version of the library.

    Attributes
    ----------
    data : bytes
        64 bytes that the library reads.
    workspace : int
        Bytes it needs besides the operands.
    waves : float
        How often it fills the device; 1.0 is exactly once.
    """

    data: bytes
    workspace: int
    waves: float


class Library:
    """The functions that are used, with a check of every status."""

    def __init__(self) -> None:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        self.path = load_nvidia_dynamic_lib("cublasLt").abs_path
        self._library = ctypes.CDLL(self.path)
        self._library.cublasLtGetStatusString.restype = ctypes.c_char_p
        self._library.cublasLtGetVersion.restype = c_size_t
        self._library.cublasLtMatmulDescDestroy.argtypes = [c_void_p]
        self._library.cublasLtMatrixLayoutDestroy.argtypes = [c_void_p]
        self._library.cublasLtMatmulPreferenceDestroy.argtypes = [c_void_p]

    @property
    def version(self) -> int:
        """Such as 130002."""
        return int(self._library.cublasLtGetVersion())

    def call(self, name: str, *args: Any) -> None:
        """Call ``cublasLt<name>``.

        Raises
        ------
        DeviceError
            The library says no; the message has its words.
        """
        status = getattr(self._library, f"cublasLt{name}")(*args)
        if status != 0:
            said = self._library.cublasLtGetStatusString(status) or b"unknown"
            raise DeviceError(f"cublasLt{name} failed: {said.decode()} (status {status})")

    def destroyer(self, name: str) -> Any:
        return getattr(self._library, f"cublasLt{name}Destroy")


class Description:
    """The descriptor of a product and the layouts of its matrices.

    Parameters
    ----------
    library : Library
    product : Product
    precision : {None, "tf32", "bf16"}
        What float32 operands are rounded to. bfloat16 operands come rounded already.
    """

    def __init__(self, library: Library, product: Product, precision: str | None):
        self._library, self.product = library, product
        operand = "bfloat16" if precision == "bf16" else product.dtype
        compute = _COMPUTE["tf32" if precision == "tf32" else product.dtype]
        self.operation = self._new("MatmulDesc", c_int(compute), c_int(_TYPES[product.dtype]))
        for attribute, matrix in ((_TRANSPOSE_FIRST, product.first), (_TRANSPOSE_SECOND, product.second)):
            self._set("MatmulDescSetAttribute", self.operation, attribute, c_int32(int(matrix.transposed)))
        if product.bias is not None:
            epilogue = _ADD_BIAS_RELU if product.relu else _ADD_BIAS
            self._set("MatmulDescSetAttribute", self.operation, _EPILOGUE, c_int32(epilogue))
            if product.batch > 1:
                self._set("MatmulDescSetAttribute", self.operation, _BIAS_STRIDE, c_int64(product.bias))
        self.first = self._layout(product.first, operand)
        self.second = self._layout(product.second, operand)
        self.result = self._layout(product.result, product.dtype)
        scalar = c_double if product.dtype == "float64" else c_float
        self.one, self.zero = scalar(1.0), scalar(0.0)

    def add(self, bias: int) -> None:
        """Say at which address the bias is; the next heuristic and the next products use it."""
        self._set("MatmulDescSetAttribute", self.operation, _BIAS, c_uint64(bias))

    def _new(self, kind: str, *args: Any) -> c_void_p:
        handle = c_void_p()
        self._library.call(f"{kind}Create", byref(handle), *args)
        weakref.finalize(self, self._library.destroyer(kind), handle)
        return handle

    def _set(self, function: str, handle: c_void_p, attribute: int, value: Any) -> None:
        self._library.call(function, handle, c_int(attribute), byref(value), c_size_t(ctypes.sizeof(value)))

    def _layout(self, matrix: Matrix, dtype: str) -> c_void_p:
        size = (c_uint64(matrix.rows), c_uint64(matrix.columns), c_int64(matrix.leading))
        layout = self._new("MatrixLayout", c_int(_TYPES[dtype]), *size)
        if self.product.batch > 1:
            self._set("MatrixLayoutSetAttribute", layout, _BATCH_COUNT, c_int32(self.product.batch))
            self._set("MatrixLayoutSetAttribute", layout, _BATCH_STRIDE, c_int64(matrix.stride))
        return layout

    def read(self, part: str, attribute: int, kind: Any) -> Any:
        """An attribute as the library has it; `part` is "operation", "first", "second" or "result"."""
        value, written = kind(), c_size_t()
        function = "MatmulDescGetAttribute" if part == "operation" else "MatrixLayoutGetAttribute"
        size = c_size_t(ctypes.sizeof(value))
        self._library.call(
            function, getattr(self, part), c_int(attribute), byref(value), size, byref(written)
        )
        return value.value

    def preference(self, alignments: Sequence[int], workspace: int = WORKSPACE) -> c_void_p:
        """What an algorithm may use: workspace, and how the addresses of first, second, result are aligned."""
        preference = self._new("MatmulPreference")
        self._set("MatmulPreferenceSetAttribute", preference, _MAX_WORKSPACE, c_uint64(workspace))
        for attribute, alignment in zip(_ALIGNMENTS, (*alignments[:3], alignments[2]), strict=True):
            self._set("MatmulPreferenceSetAttribute", preference, attribute, c_uint32(alignment))
        return preference


def alignment(address: int, most: int = 256) -> int:
    """The largest power of two that divides `address`, up to `most`.

    >>> alignment(4096 + 48), alignment(7 * 4)
    (16, 4)
    """
    return min(most, address & -address) if address else most


class Handle:
    """cublasLt on the current device. Everything but `multiply` has to happen before a step is captured."""

    def __init__(self, library: Library):
        self.library = library
        self._handle = c_void_p()
        library.call("Create", byref(self._handle))
        weakref.finalize(self, library.destroyer(""), self._handle)

    def algorithms(self, description: Description, alignments: Sequence[int], n: int = 1) -> list[Algorithm]:
        """Up to `n` algorithms for a product, those first that the library expects to be fastest.

        Raises
        ------
        DeviceError
            The library knows none.
        """
        results, found = (_Heuristic * n)(), c_int()
        d = description
        self.library.call(
            "MatmulAlgoGetHeuristic", self._handle, d.operation, d.first, d.second, d.result, d.result,
            d.preference(alignments), c_int(n), results, byref(found),
        )  # fmt: skip
        good = [r for r in results[: found.value] if r.state == 0]
        if not good:
            raise DeviceError(f"cublasLt {self.library.version} knows no algorithm for {d.product}")
        return [Algorithm(bytes(r.algorithm), r.workspace, r.waves) for r in good]

    def multiply(
        self, description: Description, algorithm: Algorithm, addresses: Sequence[int], workspace: int, stream: int
    ) -> None:  # fmt: skip
        """Compute the product of the matrices at `addresses` (first, second, result, bias if any) on `stream`.

        `workspace` is the address of at least `algorithm.workspace` bytes that nothing else uses meanwhile.
        """
        d = description
        if d.product.bias is not None:
            d.add(addresses[3])
        first, second, result = (c_void_p(a) for a in addresses[:3])
        data = (c_uint64 * 8).from_buffer_copy(algorithm.data)
        self.library.call(
            "Matmul", self._handle, d.operation, byref(d.one), first, d.first, second, d.second, byref(d.zero),
            result, d.result, result, d.result, byref(data), c_void_p(workspace), c_size_t(algorithm.workspace),
            c_void_p(stream),
        )  # fmt: skip
