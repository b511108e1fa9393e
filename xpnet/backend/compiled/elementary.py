"""exp, log1p and tanh as code that compilers vectorise. Needs Numba; only generated code imports this module."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from .pointers import function

_PER_LN2 = np.float32(1.4426950408889634)
# ln 2 in two parts; the first has 9 bits, so that its product with an exponent is exact
_LN2_HIGH, _LN2_LOW = np.float32(355 / 512), np.float32(-2.1219444005469057e-4)
_ROOT = np.int32(0x3F3504F3)  # the bits of the root of 1/2
_LOWEST, _HIGHEST = np.float32(-104.0), np.float32(89.0)  # beyond, the result is 0 or infinite


def _same_bits(result: Any, given: Any) -> Any:
    """Compile the number of type `result` with the bits of one of type `given`."""

    @intrinsic
    def cast(typing_context: Any, value: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(result))

        return result(given), code

    return cast


_as_float, _bits = _same_bits(types.float32, types.int32), _same_bits(types.int32, types.float32)


@function
def _power_of_two(n: Any) -> Any:
    return _as_float(np.int32((n + np.int32(127)) << np.int32(23)))


@function
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


@function
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


@function
def log1p(x: Any) -> Any:
    """log(1 + x) for one float32, to about one unit in the last place; the ends of its range like NumPy's.

    1 + x = 2^n m with m between the roots of 1/2 and 2, and with s = (m - 1) / (m + 1)

        log m = 2 artanh(s) = 2 s + s R(s^2),

    R by the polynomial through the Chebyshev points (degree 2, relative error 3e-9). What 1 + x loses by rounding comes
    back as the first term of the series around it.
    """
    one = np.float32(1.0)
    u = one + x
    lost = (x - (u - one)) if x < one else (one - (u - x))
    bits = _bits(u)
    n = (bits - _ROOT) >> np.int32(23)
    f = _as_float(np.int32(bits - (n << np.int32(23)))) - one
    s = f / (np.float32(2.0) + f)
    z = s * s
    p = np.float32(0.29579949)
    p = p * z + np.float32(0.39988781)
    p = p * z + np.float32(0.66666685)
    n = np.float32(n)
    value = n * _LN2_HIGH + ((f - s * (f - p * z)) + (n * _LN2_LOW + lost / u))  # 2 s = f - s f
    value = x if (x == np.float32(np.inf) or x == np.float32(0.0)) else value
    value = np.float32(-np.inf) if u == np.float32(0.0) else value
    return value if u >= np.float32(0.0) else np.float32(np.nan)
