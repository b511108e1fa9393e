"""Functions that only compiled code calls, and arrays from addresses for it. Needs Numba; only generated code and the
other modules for it import this one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

#: Decorator of a function that only compiled code calls: what Python or C would call it by takes long to compile.
function: Any = partial(njit, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)


@intrinsic
def word(typing_context: Any, address: Any, i: Any) -> Any:
    """Number i of the int64 numbers at an address."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load(builder.gep(numbers, [arguments[1]]))

    return types.int64(types.int64, types.int64), code


def _reader(element: Any) -> Any:
    """Compile ``f(addresses, i, shape)``: the C-contiguous array of `element` at address number i of a list of them."""

    @intrinsic
    def pointer(typing_context: Any, address: Any) -> Any:
        signature = types.CPointer(element)(types.int64)

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return signature, code

    @function
    def read(addresses: Any, i: int, shape: Any) -> Any:
        return carray(pointer(word(addresses, i)), shape)  # type: ignore[call-arg]  # the first is Numba's

    return read


#: by the character of NumPy's type
f = _reader(types.float32)
d = _reader(types.float64)
l = _reader(types.int64)  # noqa: E741
b = _reader(types.boolean)
B = _reader(types.uint8)
