"""Threads that share a step: each piece done once, the same bits for any number of threads, nobody left behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import xpnet
from xpnet.backend import get_backend

pytest.importorskip("numba", reason="teams need Numba")

from numba import njit

from xpnet.backend.compiled import backend as compiled
from xpnet.backend.compiled import fused, jit, shares
from xpnet.backend.compiled.team import Team


@pytest.fixture
def eager(monkeypatch):
    """Cut the smallest loops, for more threads than there may be processors."""
    monkeypatch.setattr(fused, "_PIECE", 1)
    monkeypatch.setattr(compiled, "processors", lambda: 3)
    monkeypatch.setattr(compiled, "_SHARED", 1)


def _helpers():
    return [t for t in threading.enumerate() if t.name.startswith("xpnet-helper")]


# --- pieces -------------------------------------------------------------------------------------
@njit
def _begin(team, me, tag, rows, step):
    return shares.begin(team, me, tag, rows, step)


@njit
def _proceed(team, me, tag, rows, step):
    return shares.proceed(team, me, tag, rows, step)


def test_both_ends_meet_and_a_late_helper_finds_nothing():
    team = Team(jit.kernel)
    assert _begin(team.address, 0, 7, 50, 10) == 0
    assert _begin(team.address, 1, 7, 50, 10) == 40
    assert _proceed(team.address, 1, 7, 50, 10) == 30
    assert _proceed(team.address, 0, 7, 50, 10) == 10
    assert _proceed(team.address, 1, 7, 50, 10) == 20  # the last piece
    assert _proceed(team.address, 1, 7, 50, 10) == -1
    assert _proceed(team.address, 0, 7, 50, 10) == -1  # returns at once: all helpers are done
    assert _begin(team.address, 0, 8, 50, 10) == 0  # the next operation
    assert _begin(team.address, 1, 7, 50, 10) == -1  # who comes late for the last one
    assert _begin(team.address, 1, 8, 50, 10) == 40


def test_an_operation_in_one_piece_is_done_by_the_leader_alone():
    team = Team(jit.kernel)
    assert _begin(team.address, 1, 3, 5, 5) == -1
    assert _begin(team.address, 0, 3, 5, 5) == 0
    assert _proceed(team.address, 0, 3, 5, 5) == -1


def test_pieces_are_worth_it_and_whole_tiles():
    loop = fused.Loop(print, None, 0, 100)
    assert loop.cut(1e9).step(1) == 100  # one thread
    assert loop.cut(1e9).step(2) == 13  # eight pieces
    assert loop.cut(1e9, grain=8).step(2) == 16  # of whole tiles
    assert loop.cut(1e9, grain=64).step(2) == 64
    assert fused.Loop(print, None, 0, 5).cut(1e9).step(2) == 1
    assert loop.cut(fused._PIECE / 100).step(2) == 100  # the work of one piece
    room = fused.Loop(print, np.empty((2, 9)), 0, 100).cut(1e9, each=True)
    assert (room.step(2), room.step(3)) == (13, 100)  # room for two threads


# --- training -----------------------------------------------------------------------------------
def _weights(threads, sizes=(20, 30, 24, 3), n_models=None, **options):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, sizes[0])), rng.integers(0, sizes[-1], 90)
    model = xpnet.MLP(sizes, device="numba", seed=3, n_models=n_models, **options)
    history = xpnet.fit(
        model, (x, y), optimizer=xpnet.Adam(lr=0.01), epochs=6, batch_size=32, threads=threads
    )
    return model.weights.copy(), [record["train_loss"] for record in history]


@pytest.mark.parametrize(
    "options", [{}, {"n_models": 5}, {"activation": "tanh"}, {"dtype": "float32", "dropout": 0.3}],
    ids=["relu", "population", "tanh", "dropout"],
)  # fmt: skip
def test_the_same_bits_for_any_number_of_threads(eager, options):
    alone = _weights(1, **options)
    for threads in (2, 3):
        weights, losses = _weights(threads, **options)
        np.testing.assert_array_equal(weights, alone[0])
        np.testing.assert_array_equal(losses, alone[1])
    assert not _helpers()


def test_bytes_are_scaled_and_shared(eager):
    x = np.random.default_rng(0).integers(0, 256, (60, 11), dtype=np.uint8)
    index = np.array([3, 0, 59, 3, 17])
    for scale, shift in ((1 / 255, 0.0), (np.linspace(0.1, 1, 11), np.linspace(-1, 1, 11))):
        expected = get_backend("cpu").gather(
            x, index, scale=scale, shift=shift, out=np.empty((5, 11), "float32")
        )
        be = get_backend("numba")
        out = np.empty((5, 11), "float32")
        with be.tuned(10, 2):
            be.capture(
                lambda be=be, out=out, a=scale, b=shift: be.gather(x, index, scale=a, shift=b, out=out)
            )
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("cached", [0, 10**9])
@pytest.mark.parametrize("shape", [(37, 19, 70), (40, 30, 130), (150, 12, 140)])
@pytest.mark.parametrize(("ta", "tb"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pieces_of_products_have_the_bits_of_the_whole(eager, monkeypatch, ta, tb, shape, cached, dtype):
    monkeypatch.setattr(compiled, "_CACHED", cached)
    (m, k, n), rng = shape, np.random.default_rng(0)
    a, b = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)
    left, right = (np.ascontiguousarray(x.T) if turned else x for x, turned in ((a, ta), (b, tb)))
    be = get_backend("numba")
    monkeypatch.setattr(be._products, "FAST", True)  # on every processor
    whole, out = np.full((m, n), np.nan, dtype), np.empty((m, n), dtype)
    be.matmul(left, right, ta=ta, tb=tb, out=whole)
    rtol, atol = (1e-4, 1e-5) if dtype == "float32" else (1e-12, 1e-12)
    np.testing.assert_allclose(whole, a @ b, rtol=rtol, atol=atol)
    with be.tuned(10, 3):
        replay = be.capture(lambda: be.matmul(left, right, ta=ta, tb=tb, out=out))
        assert (replay.pieces[:, 1] < replay.pieces[:, 0]).any()
        for _ in range(20):
            out[...] = np.nan
            replay()
            np.testing.assert_array_equal(out, whole)


def test_members_of_a_population_are_pieces(eager):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7, 20, 33)).astype("float32")
    be = get_backend("numba")
    whole, out = np.empty((7, 20, 20), "float32"), np.empty((7, 20, 20), "float32")
    be.matmul(a, b, tb=True, out=whole)
    np.testing.assert_allclose(whole, a @ b.swapaxes(1, 2), rtol=1e-4, atol=1e-5)
    with be.tuned(10, 3):
        replay = be.capture(lambda: be.matmul(a, b, tb=True, out=out))
        assert replay.pieces.tolist() == [[7, 1]]
        for _ in range(20):
            out[...] = np.nan
            replay()
            np.testing.assert_array_equal(out, whole)


# --- threads ------------------------------------------------------------------------------------
def test_helpers_end_with_the_context_also_after_an_error(eager):
    be = get_backend("numba")
    with pytest.raises(KeyError), be.tuned(10, 3):
        assert len(_helpers()) == 2
        raise KeyError
    assert not _helpers()


def test_what_was_captured_alone_is_shared_later(eager):
    be = get_backend("numba")
    a, out = np.ones((64, 8)), np.empty((64, 8))
    replay = be.capture(lambda: (be.map(_double, a, out=out), be.map(_double, out, out=a)))
    assert replay.pieces.tolist() == [[512, 512]] * 2
    with be.tuned(10, 2):
        replay()
        assert replay.pieces.tolist() == [[512, 64]] * 2
    replay()
    assert replay.pieces.tolist() == [[512, 512]] * 2
    assert (a == 64.0).all()


def test_a_captured_step_outlives_its_team_and_its_team_outlives_it(eager):
    be = get_backend("numba")
    a, out = np.ones((64, 8)), np.empty((64, 8))
    with be.tuned(10, 2):
        replay = be.capture(lambda: be.map(_double, a, out=out))
        for _ in range(300):  # steps that are made, run a little and freed while helpers look for work
            other = np.zeros((64, 8))
            step = be.capture(lambda other=other: be.map(_double, a, out=other))
            step()
            assert (other == 2.0).all()
            del step, other
        gc.collect()
    out[...] = 0.0
    replay()  # without helpers
    assert (out == 2.0).all()


def _double(ns, x):
    return x * 2.0


def test_the_library_of_compiled_code_is_limited_from_the_first_training_on():
    """Its threads, spinning between the steps, took the processors from ours: steps were 1.4 times as long."""
    program = """
from threadpoolctl import threadpool_info
from xpnet.backend import get_backend
with get_backend("numba").tuned(10**9, 2):
    before = {p["filepath"]: p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"}
    import scipy.linalg
    after = {p["filepath"]: p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"}
assert after == before and set(after.values()) <= {1}, (before, after)
"""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_small_networks_and_one_thread_have_no_helpers():
    be = get_backend("numba")
    with be.tuned(1000):
        assert not _helpers()
    with be.tuned(10**9, 1):
        assert not _helpers()
