"""Matrix products of all orientations, shapes and ways to lie in memory."""

from __future__ import annotations

from itertools import product

import numpy as np

from .harness import Call, Conformance


def check_matmul(c: Conformance, dtype: str) -> None:
    leads = [((), ()), ((3,), (3,)), ((), (3,)), ((3,), ()), ((1,), (3,))]
    sizes = [(1, 1, 1), (5, 3, 4), (1, 7, 2), (6, 1, 3), (4, 3, 1), (4, 4, 4), (33, 65, 17)]
    for (la, lb), (m, k, n), ta, tb in product(leads, sizes, (False, True), (False, True)):
        a = c.numbers((*la, k, m) if ta else (*la, m, k), dtype)
        b = c.numbers((*lb, n, k) if tb else (*lb, k, n), dtype)
        out = ((*np.broadcast_shapes(la, lb), m, n), dtype)
        for where in ("own", "flat"):
            c.run("matmul", f"ta={ta} tb={tb}", _matmul(ta, tb), [a, b], [out], where=where)
    for ta, tb in ((False, True), (True, False), (False, False)):
        a = c.numbers((784, 128) if ta else (128, 784), dtype)
        b = c.numbers((100, 784) if tb else (784, 100), dtype)
        c.run("matmul", f"large, ta={ta} tb={tb}", _matmul(ta, tb), [a, b], [((128, 100), dtype)])

    for la, k in ((), 70_000), ((3,), 2_000), ((2,), 40_001):  # norms of gradients: a row by itself
        a, b = c.numbers((*la, 1, k), dtype), c.numbers((*la, k, 1), dtype)
        c.run("matmul", "a row by a column", _matmul(False, False), [a, b], [((*la, 1, 1), dtype)])
        c.run("matmul", "a row by a row", _matmul(False, True), [a, a], [((*la, 1, 1), dtype)])


def _matmul(ta: bool, tb: bool) -> Call:
    if not (ta or tb):
        return lambda be, a, out: be.matmul(*a, out=out)  # by the defaults
    return lambda be, a, out: be.matmul(*a, ta=ta, tb=tb, out=out)
