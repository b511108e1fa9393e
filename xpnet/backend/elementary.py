"""The exponential function as code that compilers vectorise. Needs Numba; only generated code imports this module."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

_PER_LN2 = np.float32(1.4426950408889634)
# ln 2 in two parts; the first has 9 bits, so that its product with an exponent is exact
_LN2_HIGH, _LN2_LOW = np.float32(355 / 512), np.float32(-2.1219444005469057e-4)
_LOWEST, _HIGHEST = np.float32(-104.0), np.float32(89.0)  # beyond, the result is 0 or infinite


@intrinsic
def _as_float(typing_context: Any, bits: Any) -> Any:
    signature = types.float32(types.int32)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return signature, code


@njit(error_model="numpy", inline="always")
def _power_of_two(n: Any) -> Any:
    return _as_float(np.int32((n + np.int32(127)) << np.int32(23)))  # type: ignore[call-arg]  # the first is Numba's


@njit(error_model="numpy")
def exp(x: Any) -> Any:
    """e^x for one float32, to about one unit in the last place; denormals, infinities and NaN like NumPy's.

    e^x = 2^n e^r with |r| <= ln(2) / 2; e^r by the polynomial through the Chebyshev points of that interval
    (degree 6, relative error 3e-9).
    """
    y = min(max(x, _LOWEST), _HIGHEST)
    n = np.floor(y * _PER_LN2 + np.float32(0.5))
    r = (y - n * _LN2_HIGH) - n * _LN2_LOW
    p = np.float32(0.0013941119)
    p = p * r + np.float32(0.008375135)
    p = p * r + np.float32(0.041666353)
    p = p * r + np.float32(0.16666415)
    p = p * r + np.float32(0.5)
    p = p * r + np.float32(1.0)
    p = p * r + np.float32(1.0)
    # twice half the exponent: 2^n itself may be too large or too small for a normal number
    half = np.int32(n) >> np.int32(1)
    value = p * _power_of_two(half) * _power_of_two(np.int32(n) - half)
    return x if x != x else value


@njit(error_model="numpy")
def tanh(x: Any) -> Any:
    """tanh x for one float32, to about two units in the last place.

    1 - 2 / (e^2|x| + 1) with the sign of x; below 0.625, where that would lose digits, x times the polynomial in
    x^2 through the Chebyshev points (degree 5, relative error 4e-9).
    """
    size = abs(x)
    far = np.float32(1.0) - np.float32(2.0) / (exp(size + size) + np.float32(1.0))
    t = x * x
    p = np.float32(-0.0056571350)
    p = p * t + np.float32(0.020588191)
    p = p * t + np.float32(-0.053720109)
    p = p * t + np.float32(0.13331114)
    p = p * t + np.float32(-0.33333260)
    p = p * t + np.float32(1.0)
    near = x * p
    return (
        near
        if size < np.float32(0.625)
        else (far if x > np.float32(0.0) else (-far if x < np.float32(0.0) else x))
    )
