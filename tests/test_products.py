"""Products of our own: exact to rounding for every size and orientation, and never a number outside of the result."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from xpnet.backend import get_backend
from xpnet.backend.compiled import backend as compiled
from xpnet.backend.cpu import SMALL_PRODUCT

# one number, less than a vector, around one and two vectors of 16, 8 or 4 numbers, around the rows of a tile
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 50)
G = np.random.default_rng(0)


@pytest.fixture
def be():
    return get_backend("numba", capture=False)


@pytest.fixture(params=["small", "large"])
def sized(request, be, monkeypatch):
    """A back end that takes every product for a small one, which the cache can hold, or for a large one."""
    if request.param == "large":
        monkeypatch.setattr(compiled, "_CACHED", 0)
        monkeypatch.setattr(be._products, "FAST", True)  # on every processor
    return be


def operands(m, n, k, dtype, lead=(), shared=None):
    """Matrices a (m, k) and b (k, n) inside larger memory, and what surrounds the result."""
    a, b = (G.normal(size=(*(() if shared == i else lead), *s)) for i, s in enumerate(((m, k), (k, n))))
    return a.astype(dtype), b.astype(dtype)


def multiplied(be, a, b, form):
    """The product by `be` into the middle of a guarded buffer."""
    ta, tb = form == "first turned", form == "second turned"
    left = np.ascontiguousarray(a.swapaxes(-1, -2)) if ta else a
    right = np.ascontiguousarray(b.swapaxes(-1, -2)) if tb else b
    assert be._is_ours(left, right, ta, tb, np.empty(np.matmul(a, b).shape, a.dtype))
    shape = np.matmul(a, b).shape
    n = int(np.prod(shape))
    buffer = np.full(n + 80, 7.0, a.dtype)
    out = buffer[40 : 40 + n].reshape(shape)
    out[...] = np.nan  # nothing may be added to
    be.matmul(left, right, ta=ta, tb=tb, out=out)
    assert (buffer[:40] == 7.0).all() and (buffer[40 + n :] == 7.0).all()
    return out


def check(out, a, b):
    exact = np.matmul(a.astype(np.float64), b.astype(np.float64))
    size = np.matmul(np.abs(a).astype(np.float64), np.abs(b).astype(np.float64))
    eps = np.finfo(a.dtype).eps
    assert (np.abs(out - exact) <= (a.shape[-1] + 2) * eps * size).all()


FORMS = ("straight", "first turned", "second turned")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", FORMS)
def test_products_of_every_size(sized, form, dtype):
    for m in SIZES:
        for n in SIZES:
            k = SIZES[(3 * m + n) % len(SIZES)]
            a, b = operands(m, n, k, dtype)
            check(multiplied(sized, a, b, form), a, b)
    for m, n, k in ((128, 10, 784), (70, 300, 200), (1, 200, 300), (200, 1, 500)):
        a, b = operands(m, n, k, dtype)
        check(multiplied(sized, a, b, form), a, b)


@pytest.mark.parametrize("shared", [None, 0, 1])
@pytest.mark.parametrize("form", FORMS)
def test_products_of_a_population(be, form, shared):
    for m, n, k in ((32, 16, 8), (5, 3, 17), (33, 40, 1)):
        a, b = operands(m, n, k, "float32", lead=(6,), shared=shared)
        out = multiplied(be, a, b, form)
        assert out.shape == (6, m, n)
        check(out, a, b)


@pytest.mark.parametrize("form", FORMS)
def test_nan_and_infinity_stay_in_their_rows_and_columns(sized, form):
    a, b = operands(9, 17, 12, "float32")
    a[3, 4], b[5, 16] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        out, expected = multiplied(sized, a, b, form), a @ b
    np.testing.assert_array_equal(np.isnan(out), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(out), np.isinf(expected))
    assert np.isnan(out).sum() == 17 and np.isinf(out[:, 16]).sum() == 8


def test_twice_the_same_product_is_the_same_to_the_bit(be):
    a, b = operands(33, 50, 40, "float32", lead=(3,))
    first = multiplied(be, a, b, "second turned").copy()
    np.testing.assert_array_equal(multiplied(be, a, b, "second turned"), first)
    np.testing.assert_array_equal(multiplied(be, a[1], b[1], "second turned"), first[1])


def test_the_matrix_library_keeps_large_products_where_it_has_threads(monkeypatch):
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    be = get_backend("numba")
    a = np.empty((2000, 1), np.float32)
    b, out = (
        np.empty((1, 2 * SMALL_PRODUCT // 2000), np.float32),
        np.empty((2000, 2 * SMALL_PRODUCT // 2000), np.float32),
    )
    assert not be._is_ours(a, b, False, False, out)
    assert be._is_ours(a[:10], b, False, False, out[:10])
    with be.tuned(2 * SMALL_PRODUCT, 1):
        assert be._is_ours(a, b, False, False, out)
    with be.tuned(2 * SMALL_PRODUCT):  # the threads of a team share it
        assert be._is_ours(a, b, False, False, out)
    with be.tuned(SMALL_PRODUCT // 2):
        assert be._is_ours(a, b, False, False, out)


def test_what_the_products_cannot_do_goes_to_the_matrix_library(be):
    a, b = operands(4, 6, 5, "float32")
    out = np.empty((4, 6), np.float32)
    wide = np.empty((4, 12), np.float32)
    for case in (
        (a.T, b.T, True, True, out), (a, b, False, False, wide[:, ::2]), (a, b.astype(np.float64), False, False, out),
        (a[None, None], b, False, False, out[None, None]), (a[:0], b, False, False, out[:0]),
        (a[None], np.stack([b, b]), False, False, np.stack([out, out])),
    ):  # fmt: skip
        assert not be._is_ours(*case)
    be.matmul(np.ascontiguousarray(a.T), np.ascontiguousarray(b.T), ta=True, tb=True, out=out)
    check(out, a, b)


def test_all_ways_to_one_product_agree_to_the_bit(be, monkeypatch):
    a, b = operands(40, 90, 70, "float32")
    results = [multiplied(be, a, b, form) for form in FORMS]
    results.append(multiplied(be, b.T.copy(), a.T.copy(), "second turned").T)  # more rows than columns
    monkeypatch.setattr(compiled, "_CACHED", 0)
    monkeypatch.setattr(be._products, "FAST", True)
    results += [multiplied(be, a, b, form) for form in FORMS]
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_a_large_matrix_is_not_rearranged_for_one_row(be):
    a, b = np.empty((1, 784), np.float32), np.empty((500, 784), np.float32)
    assert not be._is_ours(a, b, False, True, np.empty((1, 500), np.float32))
    rows = np.empty((32, 784), np.float32)
    assert be._is_ours(rows, b, False, True, np.empty((32, 500), np.float32))
