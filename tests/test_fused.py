"""Captured calls joined into one that compiled code makes: the same numbers, code for all sizes, exact resuming."""

from __future__ import annotations

import numpy as np
import pytest

import xpnet
from xpnet.backend import get_backend

pytest.importorskip("numba", reason="joined steps need Numba")

from numba import njit

from xpnet.backend.compiled import backend as compiled
from xpnet.backend.compiled import elementary, fused


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XPNET_CACHE", str(folder))
        yield folder


@pytest.fixture
def tapes(monkeypatch):
    """What `capture` records, and what becomes of it."""
    seen = []

    def spy(tape, *others):
        calls = fused.fuse(tape, *others)
        seen.append((list(tape), calls))
        return calls

    monkeypatch.setattr(compiled, "fuse", spy)
    return seen


def _fit(sizes, n_models=None, epochs=2, batch_size=8, **options):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, sizes[0])), rng.integers(0, sizes[-1], 40)
    model = xpnet.MLP(sizes, device="numba", seed=3, n_models=n_models, **options)
    xpnet.fit(model, (x, y), optimizer=xpnet.SGD(lr=0.1, momentum=0.9), epochs=epochs, batch_size=batch_size)
    return model


@pytest.mark.parametrize(
    "options", [{}, {"n_models": 3}, {"activation": "tanh"}], ids=["relu", "population", "tanh"]
)
def test_a_step_is_one_call(cache, tapes, options):
    _fit([5, 4, 3], **options)
    tape, calls = tapes[0]
    assert len(tape) > 15
    assert len(calls) == 1


def test_joined_calls_do_what_each_does(cache, tapes):
    model = _fit([5, 4, 3], epochs=1, batch_size=40)
    tape, (joined,) = tapes[0]
    buffers = {a.ctypes.data: a for call in tape for a in call.args if isinstance(a, np.ndarray)}
    start = {address: a.copy() for address, a in buffers.items()}
    joined()
    after = model.weights.copy()
    for address, a in buffers.items():
        a[...] = start[address]
    for call in tape:
        call()
    np.testing.assert_allclose(model.weights, after, rtol=1e-6, atol=1e-7)
    assert not np.array_equal(after, start.get(model.weights.ctypes.data, np.zeros_like(after)))


def test_other_widths_batches_and_depths_need_no_new_machine_code(cache):
    def functions():
        return {path.name for path in (cache / "kernels").glob("xpnet_kernel_*.py")}

    _fit([5, 4, 3, 3])
    known = functions()
    _fit([9, 6, 7, 3], batch_size=7)  # 40 = 5 * 7 + 5: two batch sizes
    _fit([9, 6, 7, 5, 8, 3])
    assert functions() == known
    _fit([9, 6, 7, 3], activation="leaky_relu:0.31")
    assert (
        0 < len(functions() - known) <= 4
    )  # the activation and its gradient, each for training and by itself


def test_calls_without_a_compiled_twin_stay_in_their_place(cache, tapes):
    model = _fit([5, 4, 3], dropout=0.5)
    tape, calls = tapes[0]
    assert 2 < len(calls) < len(tape)
    assert np.isfinite(model.weights).all()


def test_products_of_all_orientations(cache):
    be = get_backend("numba")
    rng = np.random.default_rng(0)
    for a_shape, b_shape, ta, tb in [
        ((3, 4), (4, 5), False, False), ((4, 3), (4, 5), True, False), ((3, 4), (5, 4), False, True),
        ((4, 3), (5, 4), True, True), ((3, 4), (2, 5, 4), False, True), ((2, 4, 3), (2, 4, 5), True, False),
        ((2, 4, 3), (4, 5), True, False),
    ]:  # fmt: skip
        a, b = rng.normal(size=a_shape), rng.normal(size=b_shape)
        left, right = (x.swapaxes(-1, -2) if t else x for x, t in ((a, ta), (b, tb)))
        out, twice = np.empty((left @ right).shape), np.empty((left @ right).shape)

        def work(a=a, b=b, ta=ta, tb=tb, out=out, twice=twice):
            be.matmul(a, b, ta=ta, tb=tb, out=out)
            be.map(_double, out, out=twice)

        replay = be.capture(work)
        assert isinstance(replay.keeps, list)  # it was joined
        np.testing.assert_allclose(twice, 2.0 * (left @ right), rtol=1e-14)


def _double(ns, x):
    return x * 2.0


def test_two_runs_are_equal_bit_by_bit_and_so_is_a_resumed_one(cache, tmp_path):
    from xpnet.runs.config import TrainConfig
    from xpnet.runs.run import train

    settings = {"hidden": [8], "device": "numba", "batch_size": 100, "dropout": [0.2], "seed": 4}
    straight = train(TrainConfig(epochs=4, **settings), tmp_path / "straight", quiet=True)
    train(TrainConfig(epochs=2, **settings), tmp_path / "halved", quiet=True)
    config = TrainConfig(epochs=4, **settings)
    resumed = train(config, tmp_path / "halved", quiet=True, resume=True)
    again = train(config, tmp_path / "again", quiet=True)
    assert straight["weights_sha256"] == resumed["weights_sha256"] == again["weights_sha256"]


# --- elementary functions -----------------------------------------------------------------------
@njit
def _exp(x, out):
    for i in range(x.size):
        out[i] = elementary.exp(x[i])


@njit
def _tanh(x, out):
    for i in range(x.size):
        out[i] = elementary.tanh(x[i])


@njit
def _log1p(x, out):
    for i in range(x.size):
        out[i] = elementary.log1p(x[i])


def _units(found, exact):
    """Distance in units of the last place of the float32 nearest to `exact`."""
    return np.abs(found - exact) / np.spacing(np.abs(exact.astype(np.float32)))


def test_exp_to_two_units_in_the_last_place():
    x = np.linspace(-87.0, 88.7, 400_001, dtype=np.float32)
    out = np.empty_like(x)
    _exp(x, out)
    assert _units(out, np.exp(x.astype(np.float64))).max() < 2.0


def test_tanh_to_two_units_in_the_last_place():
    near = np.logspace(-37, 0, 20_001, dtype=np.float32)
    x = np.concatenate([near, -near, np.linspace(-20, 20, 400_001, dtype=np.float32)])
    out = np.empty_like(x)
    _tanh(x, out)
    exact = np.tanh(x.astype(np.float64))
    assert _units(out[exact != 0], exact[exact != 0]).max() < 2.0


def test_log1p_to_two_units_in_the_last_place():
    small = np.logspace(-37, 38, 200_001, dtype=np.float32)
    x = np.concatenate([small, -small[small < 1.0], np.linspace(-1, 2, 400_001, dtype=np.float32)[1:]])
    out = np.empty_like(x)
    _log1p(x, out)
    exact = np.log1p(x.astype(np.float64))
    assert _units(out[exact != 0], exact[exact != 0]).max() < 2.0
    ends = np.array([np.nan, np.inf, -1.0, -1.5, -np.inf, 0.0, -0.0, 1e-45], np.float32)
    _log1p(ends, out)
    np.testing.assert_array_equal(
        out[:8], np.array([np.nan, np.inf, -np.inf, *[np.nan] * 2, 0, 0, 1e-45], np.float32)
    )
    assert np.signbit(out[6]) and not np.signbit(out[5])


def test_the_ends_of_the_number_line():
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 89.5, -110.0, -95.0], np.float32)
    out = np.empty_like(x)
    _exp(x, out)
    np.testing.assert_array_equal(out[:7], np.array([np.nan, np.inf, 0, 1, 1, np.inf, 0], np.float32))
    np.testing.assert_allclose(out[7], np.exp(-95.0), rtol=1e-4)  # denormal: few digits, but not lost
    _tanh(x[:5], out)
    np.testing.assert_array_equal(out[:5], np.array([np.nan, 1, -1, 0, 0], np.float32))
    assert np.signbit(out[4])
    assert not np.signbit(out[3])
