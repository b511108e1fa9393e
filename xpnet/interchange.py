"""Arrays of other libraries on their way in, and answers on their way back.

Whoever takes samples calls `arrive`, and gives its answer to `follow`: what came as a PyTorch, CuPy or any other
Array-API array is answered in the same library, on the same device. Arrays in the host's memory are NumPy's from then
on, which share it (DLPack); arrays in the memory of the network's device stay there, in the library of its back end.
So behind `arrive` an array is NumPy's or lies on that device, and `namespace` has the functions for either. NumPy
arrays, lists, data frames and sparse matrices of SciPy pass as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .backend import Backend
from .errors import DataError

_KINDS = {
    "b": "bool",
    "u": "unsigned integer",
    "i": "signed integer",
    "f": "real floating",
    "c": "complex floating",
}
_NEVER_WRITTEN = ("jax", "jaxlib")
_HOST, _CUDA = (1, 3), (2, 13)  # of DLPack: kDLCPU, kDLCUDAHost; kDLCUDA, kDLCUDAManaged


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
        NumPy cannot hold it: a type such as bfloat16, or a sparse tensor; or it is a masked array with masked values.

    Examples
    --------
    >>> import array_api_strict as xp
    >>> x = xp.asarray([1.0, 2.0])
    >>> to_host(x)
    array([1., 2.])
    """
    if type(x) is np.ndarray:  # at once: one sample is asked for in microseconds
        return x
    if not is_foreign(x):
        return _unmasked(x, name)
    from array_api_compat import to_device

    x = _detached(x)
    try:
        return np.from_dlpack(x)
    except Exception as first:  # each library refuses in its own way
        try:
            there = to_device(x, "cpu")
            return there if isinstance(there, np.ndarray) else np.from_dlpack(there)
        except Exception:
            raise _not_taken(x, name, "NumPy", first) from first


def arrive(x: Any, be: Backend, name: str = "X") -> Any:
    """Return `x` where the back end `be` takes it without a copy: as it lies on its device, else on the host.

    Parameters
    ----------
    x : object
        What is no array of another library passes.
    be : Backend
    name : str
        What a message calls it.

    Returns
    -------
    object
        An array of the library of `be` that shares the memory of `x`, where that is of its device; else what
        `to_host` returns.

    Raises
    ------
    DataError
        The library that takes it over has no such type.

    Examples
    --------
    >>> import array_api_strict as xp
    >>> from xpnet import get_backend
    >>> from xpnet.backend.reference import ReferenceBackend
    >>> gpu = xp.Device("device1")
    >>> x = xp.asarray([1.0, 2.0], device=gpu)
    >>> arrive(x, ReferenceBackend(xp, gpu)) is x, arrive(x, get_backend("cpu"))
    (True, array([1., 2.]))
    """
    if type(x) is np.ndarray:
        return x
    if is_foreign(x) and not in_host_memory(x):
        own = be.empty((0,), "float32")
        if is_foreign(own) and _library(own) == _library(x) and _device(own) == _device(x):
            return _detached(x)
        if device_name(own) == device_name(x) != "cpu":  # two libraries on one CUDA device
            try:
                return be.xp.from_dlpack(_detached(x))
            except Exception as error:
                raise _not_taken(x, name, _library(own), error) from error
    return to_host(x, name)


def _unmasked(x: Any, name: str) -> Any:
    """`x`, unless values of it are masked: what lies under a mask would count as if it were data."""
    if isinstance(x, np.ma.MaskedArray) and (n := int(np.ma.count_masked(x))):
        raise DataError(
            f"{name} is a masked array with {n} masked values, which would be used as they lie; fill them with "
            "x.filled(value), or leave out their rows"
        )
    return x


def column_names(x: Any) -> tuple[str, ...] | None:
    """Return the names of the columns of a data frame; None for all else, and where they are not all text.

    Examples
    --------
    >>> column_names(np.zeros((2, 3))) is None
    True
    """
    columns = getattr(x, "columns", None)
    if columns is None or callable(columns) or not hasattr(x, "shape"):
        return None
    names = list(columns)
    return tuple(map(str, names)) if names and all(isinstance(name, str) for name in names) else None


def in_place(x: Any, name: str = "X") -> Any:
    """Return `x` to compute with where it is: as a NumPy array in the host's memory, elsewhere itself.

    Arrays that are never written to (JAX) come to the host from everywhere.

    Examples
    --------
    >>> import array_api_strict as xp
    >>> in_place(xp.ones(2)), in_place(xp.ones(2, device=xp.Device("device1")))
    (array([1., 1.]), Array([1., 1.], dtype=array_api_strict.float64, device=array_api_strict.Device('device1')))
    """
    stays = is_foreign(x) and not in_host_memory(x) and _library(x) not in _NEVER_WRITTEN
    return _detached(x) if stays else to_host(x, name)


def follow(x: Any, answer: Any) -> Any:
    """Return `answer` in the library and on the device of `x`.

    Text, which no other library holds, stays in NumPy.

    Examples
    --------
    >>> import array_api_strict as xp
    >>> follow(xp.asarray([1.0]), np.array([2.0]))
    Array([2.], dtype=array_api_strict.float64)
    """
    if not is_foreign(x):
        return to_host(answer, "the answer")
    from array_api_compat import device

    if is_foreign(answer):
        if _library(answer) == _library(x) and _device(answer) == _device(x):
            return answer
        if device_name(answer) == device_name(x) != "cpu":
            return namespace(x).from_dlpack(answer)
        answer = to_host(answer, "the answer")
    if answer.dtype.kind not in "biufc":
        return answer
    return namespace(x).asarray(answer, device=device(x))


def place(x: Any) -> str | Backend:
    """Return the device to compute on where that is to be where `x` is.

    "cpu" or "cuda:N" by name; for a device of another kind a back end of the array's own library. Where that cannot
    be (arrays that are never written to, or no float64), it is "cpu", too.

    Examples
    --------
    >>> import array_api_strict as xp
    >>> place(np.zeros(2)), place(xp.zeros(2))
    ('cpu', 'cpu')
    >>> place(xp.zeros(2, device=xp.Device("device1")))
    <ReferenceBackend array_api_strict on array_api_strict.Device('device1')>
    """
    if not is_foreign(x) or in_host_memory(x):
        return "cpu"
    if (name := device_name(x)) != "cpu":
        return name
    from array_api_compat import device

    xp, where = namespace(x), device(x)
    known = xp.__array_namespace_info__().dtypes(device=where, kind="real floating")
    return "cpu" if _library(x) in _NEVER_WRITTEN or "float64" not in known else _back_end_on(xp, where)


@lru_cache(maxsize=16)
def _back_end_on(xp: Any, device: Any) -> Backend:
    from .backend.reference import ReferenceBackend

    return ReferenceBackend(xp, device)


def in_host_memory(x: Any) -> bool:
    """Say whether NumPy can share the memory of an array.

    Devices that array_api_strict only pretends to have are none of the host's.
    """
    kind, _ = x.__dlpack_device__()
    return int(kind) in _HOST and ("cpu" in _device(x).lower() or _library(x) != "array_api_strict")


def device_name(x: Any) -> str:
    """Return xpnet's name of the device that `x` is on: "cuda:N", or "cpu" for all else."""
    if not is_foreign(x):
        return "cpu"
    kind, index = x.__dlpack_device__()
    return f"cuda:{index}" if int(kind) in _CUDA else "cpu"


# --- what array libraries call differently --------------------------------------------------------
def namespace(x: Any) -> Any:
    """Return the Array-API functions for `x`; NumPy's where it is no array of another library."""
    if not is_foreign(x):
        return np
    from array_api_compat import array_namespace

    return array_namespace(x)


def kind(x: Any) -> str:
    """Return NumPy's letter for the type of an array: b, u, i, f or c; "V" for what is no number.

    Examples
    --------
    >>> import array_api_strict as xp
    >>> kind(xp.asarray([1.0])), kind(np.zeros(2, np.uint8))
    ('f', 'u')
    """
    if not is_foreign(x):
        return str(x.dtype.kind)
    xp = namespace(x)
    return next((letter for letter, name in _KINDS.items() if xp.isdtype(x.dtype, name)), "V")


def dtype_name(x: Any) -> str:
    """Return the name of the type of an array, such as "float32"."""
    return str(x.dtype).rpartition(".")[2]


def astype(x: Any, dtype: str, *, copy: bool = True) -> Any:
    """Return an array in a type given by name; without `copy` itself, where it has that type."""
    if not is_foreign(x):
        return x.astype(dtype, copy=copy)
    xp = namespace(x)
    return xp.astype(x, getattr(xp, dtype), copy=copy)


def empty_beside(x: Any, shape: Sequence[int], dtype: str) -> Any:
    """Return an uninitialised array where `x` is, in a type given by name; its rows lie one after the other."""
    if not is_foreign(x):
        return np.empty(tuple(shape), dtype)
    from array_api_compat import device

    xp = namespace(x)
    return xp.empty(tuple(shape), dtype=getattr(xp, dtype), device=device(x))


def take_rows(x: Any, rows: Any) -> Any:
    """Return the rows of an array, or of a sparse matrix, by their positions (B,)."""
    return namespace(x).take(x, follow(x, rows), axis=0) if is_foreign(x) else x[to_host(rows)]


def _detached(x: Any) -> Any:
    return x.detach() if getattr(x, "requires_grad", False) else x


def _not_taken(x: Any, name: str, library: str, error: Exception) -> DataError:
    return DataError(
        f"{name} is {_called(x)} of {x.dtype} that {library} cannot take over ({error}); "
        "convert it to dense float32 or float64 first"
    )


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
