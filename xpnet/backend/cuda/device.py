"""A device as the back end sees it: what `runtime.py` does with CuPy, and the tests do on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from .. import Array
from .products import Product
from .resident import Steps
from .schedule import Operation


class Runtime(Protocol):
    """Memory, launches and products of one device. All work runs in the order it is asked for."""

    xp: Any
    name: str
    device: str
    autotune: bool
    blocks: int  # multiprocessors
    algorithms: list[dict[str, Any]]

    def asarray(self, values: Any, dtype: str | None) -> Array: ...
    def to_numpy(self, x: Array) -> np.ndarray: ...
    def empty(self, shape: tuple[int, ...], dtype: str) -> Array: ...
    def synchronize(self) -> None: ...

    def address(self, x: Array) -> int:
        """Where the first element of `x` is, in bytes."""

    def launch(
        self, name: str, source: str, grid: tuple[int, int], block: tuple[int, int], args: Sequence[Any]
    ) -> None:
        """Run a kernel. `args` are arrays and NumPy scalars of the types that the source says."""

    def multiply(
        self, product: Product, a: Array, b: Array, out: Array, precision: str | None, bias: Array | None = None
    ) -> bool:  # fmt: skip
        """out = op(a) @ op(b), as described; bfloat16 operands are arrays of 16-bit integers.

        Where the description has a bias, False says that nothing was done, because the library cannot.
        """

    def capture(self, fn: Callable[[], None]) -> Callable[[], None] | None:
        """Record what `fn` asks for, without doing it, and return what does it; None where that is impossible.

        What is returned has the `record`, a list of `schedule.Operation`.
        """

    def replay(self, record: Sequence[Operation]) -> Callable[[], None] | None:
        """Return what does a record, in one launch; None where that is impossible."""

    def written_down(self, fn: Callable[[], None]) -> list[Operation]:
        """What `fn` asks for, without doing it."""

    def stay(self, steps: Steps) -> Callable[[], None] | str:
        """Return what launches a kernel of many steps, with a block for each multiprocessor, or why that cannot be."""

    def timed(self, fn: Callable[[], None]) -> float:
        """Do what `fn` asks for, and return how many seconds the device took for it."""

    def free_memory(self) -> int | None: ...
    def lost(self, error: BaseException) -> str | None: ...
