"""The compiled back end: the same numbers as NumPy, kernels kept on disk, and a clear word where Numba is missing."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import xpnet
from xpnet.backend import get_backend
from xpnet.errors import DeviceError
from xpnet.testing import check_backend, check_gradients

pytest.importorskip("numba", reason="the compiled back end needs Numba")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XPNET_CACHE", str(folder))
        yield folder


@pytest.mark.slow
def test_conformance(cache):
    assert check_backend(get_backend("numba"), dtypes=("float32",)) > 1000


CASES = {
    "relu, momentum": ({}, {"optimizer": xpnet.SGD(lr=0.1, momentum=0.9)}),
    "tanh, adamw, clip": (
        {"activation": "tanh"},
        {"optimizer": xpnet.AdamW(lr=0.01), "clip_norm": 0.5, "l1": 1e-4, "l2": 1e-3},
    ),
    "prelu, dropout, max-norm": (
        {"activation": "prelu", "dropout": 0.3, "input_noise": 0.1},
        {"optimizer": xpnet.Adam(lr=0.01), "max_norm": 1.0},
    ),
    "maxout, rmsprop, smoothing": (
        {"activation": "maxout:3"},
        {"optimizer": xpnet.RMSProp(lr=0.01), "label_smoothing": 0.1},
    ),
    "population": (
        {"n_models": 3},
        {"optimizer": xpnet.SGD(lr=[0.1, 0.05, 0.01], momentum=0.9), "l2": 1e-3},
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_agrees_with_numpy(cache, case, dtype):
    options, training = CASES[case]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(70, 5)), rng.integers(0, 3, 70)
    weights = {}
    for device in ("cpu", "numba"):
        model = xpnet.MLP([5, 8, 3], dtype=dtype, device=device, seed=1, **options)
        history = xpnet.fit(model, (x, y), epochs=5, batch_size=16, **training)
        weights[device] = (model.get_weights(), history[-1]["train_loss"])
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    for name, expected in weights["cpu"][0].items():
        np.testing.assert_allclose(weights["numba"][0][name], expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(weights["numba"][1], weights["cpu"][1], rtol=tolerance)


def test_gradients(cache):
    rng = np.random.default_rng(1)
    model = xpnet.MLP([4, 6, 3], activation="leaky_relu", dtype="float64", device="numba")
    assert check_gradients(model, rng.normal(size=(9, 4)), rng.integers(0, 3, 9), l2=0.1) < 1e-10


def test_the_head_hands_on_nan_and_survives_large_logits(cache):
    be = get_backend("numba")
    z = np.array([[1e4, -1e4, 0.0], [np.nan, 0.0, 1.0]], np.float32)
    t = np.eye(3, dtype=np.float32)[:2]
    loss, out = np.empty(2, np.float32), np.empty((2, 3), np.float32)
    be.softmax_cross_entropy(z, t, np.ones(2, np.float32), loss=loss, out=out)
    assert loss[0] == 0.0
    assert np.isnan(loss[1])
    np.testing.assert_array_equal(out[0], 0.0)


def test_kernels_are_found_again_by_another_process(cache):
    code = (
        "import numpy as np; from xpnet.backend import get_backend; from xpnet.backend.compiled import jit;"
        "be = get_backend('numba');"
        "x = np.ones((3, 4), 'f'); be.map(lambda ns, x: x * 2.5 + 0.25, x, out=x); assert (x == 2.75).all();"
        "(k,) = jit._functions.values(); print(sum(k.stats.cache_hits.values()))"
    )
    hits = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
            for _ in range(2)]  # fmt: skip
    assert hits == ["0", "1"]


def test_where_the_cache_cannot_be_written_code_is_compiled_for_this_process_alone(tmp_path):
    (tmp_path / "file").touch()
    code = (
        "import numpy as np; from xpnet.backend import get_backend; from xpnet.backend.compiled import jit;"
        "be = get_backend('numba');"
        "x = np.ones((3, 4), 'f'); be.map(lambda ns, x: x * 2.5 + 0.25, x, out=x); assert (x == 2.75).all();"
        "assert jit.kept(); print(jit._folder())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True,
                          env={**os.environ, "XPNET_CACHE": str(tmp_path / "file")})  # fmt: skip
    assert done.stderr.count("set XPNET_CACHE to a folder") == 1
    assert not os.path.exists(done.stdout.strip())


def test_who_waits_for_the_first_compilation_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("XPNET_CACHE", str(tmp_path))
    be = get_backend("numba")
    assert "once: about ten seconds" in be.slow_start() and get_backend("cpu").slow_start() is None
    (tmp_path / "kernels" / "xpnet_kernel_0.py").touch()
    assert be.slow_start() is None


def test_without_numba_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DeviceError, match=r"xpnet\[numba\]"):
        get_backend("numba")
    assert get_backend("auto").name == "numpy"


def test_auto_prefers_compiled_formulas():
    assert get_backend("auto").name == "numpy+numba"
