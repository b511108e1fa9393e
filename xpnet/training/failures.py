"""What a device says when it fails, as errors of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..backend import Backend
from ..errors import DeviceError, OutOfMemoryError, XpnetError
from ..memory import free_memory, size


@contextmanager
def device_errors(be: Backend) -> Iterator[None]:
    """Raise what a device says when it fails or runs out of memory as errors of this package."""
    try:
        yield
    except XpnetError:
        raise
    except MemoryError as error:
        free = free_memory(be)
        known = "" if free is None else f"; {size(free)} are free"
        raise OutOfMemoryError(
            f"out of memory on {be.device}: {error}{known}. Use smaller batches, narrower layers, fewer models at "
            "the same time, or fewer samples."
        ) from error
    except Exception as error:
        said = be.lost(error)
        if said is None:
            raise
        raise DeviceError(f"the device {be.device} failed during training: {said}.") from error
