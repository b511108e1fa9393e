"""Arrays from addresses, inside compiled code. Needs Numba; only generated code imports this module."""

from __future__ import annotations

from typing import Any

from numba import carray, njit, types
from numba.extending import intrinsic


def _reader(element: Any) -> Any:
    """Compile ``f(addresses, i, shape)``: the C-contiguous array of `element` at address number i."""

    @intrinsic
    def pointer(typing_context: Any, address: Any) -> Any:
        signature = types.CPointer(element)(types.int64)

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return signature, code

    @njit(inline="always")
    def read(addresses: Any, i: int, shape: Any) -> Any:
        return carray(pointer(addresses[i]), shape)  # type: ignore[call-arg]  # the first is Numba's

    return read


#: by the character of NumPy's type
f = _reader(types.float32)
d = _reader(types.float64)
l = _reader(types.int64)  # noqa: E741
b = _reader(types.boolean)
