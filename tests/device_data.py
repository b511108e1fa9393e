"""A device that NumPy cannot read, and an account of what leaves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import array_api_strict as strict
import pytest
from array_api_strict._array_object import Array

DEVICE = strict.Device("device1")


def there(x: Any) -> Array:
    """`x` on the device."""
    return strict.asarray(x, device=DEVICE)


@contextmanager
def counted() -> Iterator[list[int]]:
    """Inside, a list of the sizes of all arrays that leave a device, by the only two ways there are."""
    sizes: list[int] = []

    def counting(leave: Callable[..., Any]) -> Callable[..., Any]:
        def method(array: Array, *args: Any, **options: Any) -> Any:
            sizes.append(array.size)
            return leave(array, *args, **options)

        return method

    with pytest.MonkeyPatch.context() as patch:
        for way in ("to_device", "__dlpack__"):
            patch.setattr(Array, way, counting(getattr(Array, way)))
        yield sizes
