"""Arrays of other libraries on their way in, and answers on their way back.

Whoever takes samples calls `to_host`, and gives its answer to `follow`: what came as a PyTorch, CuPy or any other
Array-API array is answered in the same library, on the same device. On the CPU nothing is copied either way (DLPack).
NumPy arrays, lists, data frames and sparse matrices of SciPy pass as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import DataError

_CUDA = (2, 13)  # kDLCUDA and kDLCUDAManaged of DLPack


def is_foreign(x: Any) -> bool:
    """Say whether `x` is an array of another library than NumPy.

    Examples
    --------
    >>> is_foreign(np.zeros(3)), is_foreign([0.0])
    (False, False)
    """
    if isinstance(x, (np.ndarray, np.generic)) or not hasattr(x, "__dlpack__"):
        return False
    from array_api_compat import is_array_api_obj

    return bool(is_array_api_obj(x))


def to_host(x: Any, name: str = "X") -> Any:
    """Return `x` as a NumPy array if it is one of another library, else as it is.

    Parameters
    ----------
    x : object
        An array on the CPU shares its memory with the result; one on another device is copied.
    name : str
        What a message calls it.

    Raises
    ------
    DataError
        NumPy cannot hold it: a type such as bfloat16, or a sparse tensor.

    Examples
    --------
    >>> import array_api_strict as xp
    >>> x = xp.asarray([1.0, 2.0])
    >>> to_host(x)
    array([1., 2.])
    """
    if not is_foreign(x):
        return x
    from array_api_compat import to_device

    if getattr(x, "requires_grad", False):
        x = x.detach()
    try:
        return np.from_dlpack(x)
    except Exception as first:  # each library refuses in its own way
        try:
            there = to_device(x, "cpu")
            return there if isinstance(there, np.ndarray) else np.from_dlpack(there)
        except Exception:
            raise DataError(
                f"{name} is {_called(x)} of {x.dtype} that NumPy cannot take over ({first}); "
                "convert it to dense float32 or float64 first"
            ) from first


def follow(x: Any, answer: np.ndarray) -> Any:
    """Return `answer` in the library and on the device of `x`.

    Text, which no other library holds, stays in NumPy.

    Examples
    --------
    >>> import array_api_strict as xp
    >>> follow(xp.asarray([1.0]), np.array([2.0]))
    Array([2.], dtype=array_api_strict.float64)
    """
    if not is_foreign(x) or answer.dtype.kind not in "biufc":
        return answer
    from array_api_compat import array_namespace, device

    return array_namespace(x).asarray(answer, device=device(x))


def device_name(x: Any) -> str:
    """Return xpnet's name of the device that `x` is on: "cuda:N", or "cpu" for all else."""
    if not is_foreign(x):
        return "cpu"
    kind, index = x.__dlpack_device__()
    return f"cuda:{index}" if int(kind) in _CUDA else "cpu"


def check_together(**arrays: Any) -> None:
    """Check that arrays which belong together are of one library and on one device.

    Lists, data frames and text, which only NumPy holds, go with anything.

    Parameters
    ----------
    **arrays
        By the names that messages use; the first decides.

    Raises
    ------
    DataError
        Names the two arrays, and says how to bring them together.

    Examples
    --------
    >>> import array_api_strict as xp
    >>> check_together(X=xp.zeros((2, 3)), y=np.zeros(2))
    Traceback (most recent call last):
    xpnet.errors.DataError: X is an array of array_api_strict, but y is an array of numpy; ...
    """
    known = [(name, x) for name, x in arrays.items() if _counts(x)]
    if not any(is_foreign(x) for _, x in known):
        return
    (first, a), *others = known
    for name, b in others:
        if _library(a) != _library(b):
            raise DataError(
                f"{first} is {_called(a)}, but {name} is {_called(b)}; bring them together first, for example with "
                f"{name} = {_library(a)}.asarray({name}, device={first}.device), or the other way round"
            )
        if _device(a) != _device(b):
            raise DataError(
                f"{first} is on device {_device(a)}, but {name} is on {_device(b)}; move one of them first, for "
                f"example with {name} = {_library(a)}.asarray({name}, device={first}.device)"
            )


def _counts(x: Any) -> bool:
    return is_foreign(x) or (isinstance(x, np.ndarray) and x.dtype.kind in "biufc")


def _library(x: Any) -> str:
    return type(x).__module__.partition(".")[0]


def _called(x: Any) -> str:
    return f"an array of {_library(x)}"


def _device(x: Any) -> Any:
    from array_api_compat import device

    return str(device(x))
