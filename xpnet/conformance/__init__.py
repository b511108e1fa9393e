"""The cases that `xpnet.testing.check_backend` runs: each operation of the contract against its reference.

Every case places its arrays in memory of their own or in a piece of a larger buffer, runs one operation on
the back end and on the reference, and compares the results, the inputs and the memory around them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..backend import Backend
from .capture import check_capture
from .elementwise import check_activations, check_losses, check_map, check_map_aliases, check_optimizers
from .harness import Conformance, check_memory, check_signatures
from .products import check_matmul
from .rows import check_argmax, check_gather, check_head, check_softmax, check_sum, check_uniform

#: What a back end as a whole is checked for, and what in each dtype.
CHECKS = (check_signatures, check_memory, check_uniform)
CHECKS_OF_DTYPE = (
    check_matmul, check_map, check_map_aliases, check_activations, check_optimizers, check_sum, check_softmax,
    check_head, check_argmax, check_gather, check_losses, check_capture,
)  # fmt: skip


def check_backend(be: Backend, *, dtypes: Sequence[str] = ("float32", "float64"), seed: int = 0) -> int:
    """Check a back end against the contract in `xpnet.backend` and the reference on NumPy.

    Covers signatures, results, side effects (inputs stay, `out` comes back, nothing around it is written),
    random numbers bit by bit, and `capture`.

    Parameters
    ----------
    be : Backend
    dtypes : sequence of str, default ("float32", "float64")
        What it computes in.
    seed : int, default 0
        Of the numbers that go in.

    Returns
    -------
    int
        How many results were compared.

    Raises
    ------
    AssertionError
        Names the operation, the case, and the largest difference with what is allowed.

    Examples
    --------
    >>> from xpnet import get_backend
    >>> check_backend(get_backend("cpu"), dtypes=["float32"]) > 500
    True
    """
    c = Conformance(be, dtypes, seed)
    for check in CHECKS:
        check(c)
    for dtype in c.dtypes:
        for check_dtype in CHECKS_OF_DTYPE:
            check_dtype(c, dtype)
    return c.n
