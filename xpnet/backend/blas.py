"""Parts of a product by the matrix library that SciPy brings. Needs Numba and SciPy; only generated code calls it."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import get_cython_function_address, intrinsic

_I64, _I32, _I8 = ir.IntType(64), ir.IntType(32), ir.IntType(8)


@functools.cache
def gemm(char: str) -> np.ndarray:
    """The address of the product for a type, "f" or "d", as an array of one number."""
    name = {"f": "sgemm", "d": "dgemm"}[char]
    return np.array([get_cython_function_address("scipy.linalg.cython_blas", name)])


def _caller(kind: str) -> Any:
    """Compile the call of the Fortran routine c = alpha op(a) op(b) + beta c, matrices column by column."""

    @intrinsic
    def call(
        typing_context: Any, address: Any, turn_a: Any, turn_b: Any, m: Any, n: Any, k: Any, a: Any, a_row: Any,
        b: Any, b_row: Any, c: Any, c_row: Any,
    ) -> Any:  # fmt: skip
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            element = ir.FloatType() if kind == "f" else ir.DoubleType()

            def place(value: Any, kind: Any) -> Any:
                spot = builder.alloca(kind)
                builder.store(value, spot)
                return spot

            def letter(turned: Any) -> Any:
                turns = builder.icmp_signed("!=", turned, _I64(0))
                return place(builder.select(turns, _I8(ord("T")), _I8(ord("N"))), _I8)

            def number(value: Any) -> Any:
                return place(builder.trunc(value, _I32), _I32)

            def pointer(address: Any) -> Any:
                return builder.inttoptr(address, element.as_pointer())

            function, turn_a, turn_b, m, n, k, a, a_row, b, b_row, c, c_row = arguments
            one, zero = (place(ir.Constant(element, v), element) for v in (1.0, 0.0))
            values = [
                letter(turn_a), letter(turn_b), number(m), number(n), number(k), one, pointer(a), number(a_row),
                pointer(b), number(b_row), zero, pointer(c), number(c_row),
            ]  # fmt: skip
            routine = ir.FunctionType(ir.VoidType(), [v.type for v in values])
            builder.call(builder.inttoptr(function, routine.as_pointer()), values)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 12), code

    return call


def _made(kind: str) -> Any:
    call = _caller(kind)
    size = 4 if kind == "f" else 8

    @njit(error_model="numpy")
    def product(gemm: Any, a: Any, b: Any, out: Any, ta: Any, lo: Any, hi: Any) -> None:
        """Rows lo to hi of out = a b, or of a^T b if `ta` is 1."""
        n, k = out.shape[1], a.shape[0] if ta else a.shape[1]
        rows = a.ctypes.data + lo * size * (1 if ta else k)
        # what is row by row here is column by column there, hence turned: out^T = op(b)^T op(a)^T
        call(
            gemm[0], 0, ta, n, hi - lo, k, b.ctypes.data, n, rows, a.shape[1],
            out.ctypes.data + lo * n * size, n,
        )  # fmt: skip

    @njit(error_model="numpy")
    def columns(gemm: Any, a: Any, b: Any, out: Any, lo: Any, hi: Any) -> None:
        """Columns lo to hi of out = a b^T."""
        (m, k), n = a.shape, out.shape[1]
        call(
            gemm[0], 1, 0, hi - lo, m, k, b.ctypes.data + lo * k * size, k, a.ctypes.data, k,
            out.ctypes.data + lo * size, n,
        )  # fmt: skip

    return product, columns


(product_f, columns_f), (product_d, columns_d) = _made("f"), _made("d")
