"""Memory that is asked for once and used again."""

from __future__ import annotations

from collections.abc import Hashable
from math import prod

import numpy as np

from .backend import Array, Backend


def filled(be: Backend, shape: tuple[int, ...], dtype: str, value: float) -> Array:
    """Return a new array of `be` with this value everywhere."""
    array = be.empty(shape, dtype)
    # zeros are set by every library at once; for another number CuPy would compile a kernel, and a copy needs none
    array[...] = be.asarray(np.full(shape, value), dtype) if value else value
    return array


class Workspace:
    """Named buffers of one back end; a smaller batch gets views of what the larger one already has.

    Examples
    --------
    >>> from xpnet.backend import get_backend
    >>> ws = Workspace(get_backend("cpu"), "float32")
    >>> ws.array("z", (4, 3)).shape, ws.array("z", (2, 3)).shape, ws.n_bytes
    ((4, 3), (2, 3), 48)
    """

    def __init__(self, be: Backend, dtype: str):
        self._be, self._dtype = be, dtype
        self._memory: dict[tuple[Hashable, str], Array] = {}

    def array(self, name: Hashable, shape: tuple[int, ...], dtype: str | None = None) -> Array:
        """Return a C-contiguous array over the memory called `name`, grown when too small."""
        dtype = dtype or self._dtype
        key = (name, dtype)
        n = prod(shape)
        if key not in self._memory or self._memory[key].shape[0] < n:
            self._memory[key] = self._be.empty((n,), dtype)
        return self._be.xp.reshape(self._memory[key][:n], shape)

    @property
    def n_bytes(self) -> int:
        """Bytes held."""
        width = {"float32": 4, "float64": 8, "complex128": 16, "int64": 8, "bool": 1}
        return sum(width[dtype] * memory.shape[0] for (_, dtype), memory in self._memory.items())
