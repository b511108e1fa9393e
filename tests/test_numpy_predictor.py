"""docs/numpy_predictor.py, which users copy, answers as xpnet does, and needs NumPy alone."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.own_layers import _Own
from xpnet import MLP, fit, load
from xpnet.activations import NAMES, Activation
from xpnet.data.dataset import Preprocessing
from xpnet.losses import Loss
from xpnet.mlp import TargetUnits

FILE = Path(__file__).parent.parent / "docs" / "numpy_predictor.py"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = np.arange(60) % 3


def _module():
    spec = importlib.util.spec_from_file_location("numpy_predictor", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Predictor = _module().Predictor


def saved(model, folder):
    model.save(folder / "m.safetensors")
    return Predictor(folder / "m.safetensors")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "activation",
    [*NAMES, "leaky_relu:0.2", "elu:0.5", "Leaky-ReLU:1e-3", "logistic", "prelu", "maxout", "maxout:3"],
)
def test_every_activation(tmp_path, activation, dtype):
    model = MLP([4, 6, 5, 3], activation=activation, dropout=0.5, input_noise=0.1, dtype=dtype, seed=1)
    found, expected = saved(model, tmp_path).outputs(3 * X), model.outputs(3 * X)
    assert found.dtype == expected.dtype
    assert np.abs(found - expected).max() <= (1e-6 if dtype == "float32" else 1e-14) * np.abs(expected).max()


def test_layers_of_different_kinds(tmp_path):
    model = MLP(
        [4, 6, 5, 4, 3], activation=["prelu", "maxout:3", "tanh"], output_activation="softsign", dropout=0.1
    )
    assert np.allclose(saved(model, tmp_path).outputs(X), model.outputs(X), atol=1e-6)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error", "hinge"])
@pytest.mark.parametrize("classes", [None, ("a", "b", "c")])
def test_classes(tmp_path, loss, classes):
    model = MLP([4, 6, 3], dtype="float64")
    model.classes = classes
    fit(model, (X, Y), loss=loss, epochs=2)
    net = saved(model, tmp_path)
    expected = model.predict(X)
    assert (net.predict(X) == (expected if classes is None else np.array(classes)[expected])).all()
    if loss == "hinge":
        with pytest.raises(ValueError, match="no probabilities"):
            net.predict_proba(X)
    else:
        assert np.allclose(net.predict_proba(X), model.predict_proba(X), atol=1e-14)


def test_labels_that_were_smoothed(tmp_path):
    model = MLP([4, 6, 3], dtype="float64")
    fit(model, (X, Y), epochs=2, label_smoothing=0.3)
    model.unsmoothing = 0.3
    model.save(tmp_path / "m.safetensors")
    p = model.predict_proba(X)
    assert np.allclose(Predictor(tmp_path / "m.safetensors").predict_proba(X), p, atol=1e-14)
    assert np.array_equal(load(tmp_path / "m.safetensors").predict_proba(X), p)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "hinge"])
def test_one_output(tmp_path, loss):
    model = MLP([4, 6, 1], dtype="float64")
    fit(model, (X, Y > 0), loss=loss, epochs=2)
    net = saved(model, tmp_path)
    assert (net.predict(X) == model.predict(X)).all()
    if loss != "hinge":
        assert np.allclose(net.predict_proba(X), model.predict_proba(X), atol=1e-14)


def test_labels_and_numbers(tmp_path):
    many = MLP([4, 6, 3], dtype="float64")
    fit(many, (X, np.eye(3)[Y]), loss="binary_cross_entropy", task="multilabel", epochs=2)
    net = saved(many, tmp_path)
    assert (net.predict(X) == many.predict(X)).all()
    assert np.allclose(net.predict_proba(X), many.predict_proba(X), atol=1e-14)
    for loss in ("squared_error", "poisson", "huber:2"):
        model = MLP([4, 6, 2], dtype="float64")
        fit(model, (X, np.abs(X[:, :2])), loss=loss, task="regression", epochs=2)
        assert np.allclose(saved(model, tmp_path).predict(X), model.predict(X), rtol=1e-13)


def test_units_of_targets(tmp_path):
    model = MLP([4, 6, 2])
    fit(model, (X, X[:, :2]), epochs=1)
    model.target_units = TargetUnits(np.array([1.7e9, -3.0]), np.array([50.0, 0.5]))
    found, expected = saved(model, tmp_path).predict(X), model.predict(X)
    assert found.dtype == expected.dtype and np.allclose(
        found - [1.7e9, -3.0], expected - [1.7e9, -3.0], atol=1e-4
    )


def test_preprocessing(tmp_path):
    images = RNG.integers(0, 256, (40, 3, 4), dtype=np.uint8)
    for scale, shift in ((1 / 255, 0.0), (np.linspace(0.1, 1.0, 12), np.linspace(-1.0, 1.0, 12))):
        model = MLP([12, 8, 3])
        model.preprocessing = Preprocessing((3, 4), scale=scale, shift=shift)
        assert np.allclose(saved(model, tmp_path).outputs(images), model.outputs(images), atol=1e-5)


def test_what_it_refuses(tmp_path):
    with pytest.raises(ValueError, match="population"):
        saved(MLP([4, 3], n_models=2), tmp_path)
    MLP([4, 3]).save(tmp_path / "m.safetensors")
    data = bytearray((tmp_path / "m.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "m.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        Predictor(tmp_path / "m.safetensors")


def test_it_needs_numpy_alone(tmp_path):
    model = MLP([4, 6, 3])
    model.classes = ("a", "b", "c")
    fit(model, (X, Y), epochs=2)
    model.save(tmp_path / "m.safetensors")
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "numpy_predictor.py").write_bytes(FILE.read_bytes())
    code = (
        "import sys\n"
        "for name in ('xpnet', 'safetensors', 'scipy', 'sklearn', 'array_api_compat'): sys.modules[name] = None\n"
        "import runpy; sys.argv[0] = 'numpy_predictor.py'\n"
        "runpy.run_path('numpy_predictor.py', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "m.safetensors", "x.npy"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.split() == [model.classes[k] for k in model.predict(X)]


def test_parts_of_ones_own_are_not_taken_for_others(tmp_path):
    path, x = tmp_path / "own.safetensors", np.ones((6, 2))
    _Own([2, 1]).save(path)
    with pytest.raises(ValueError, match="layers of somebody's own, _Own"):
        Predictor(path)
    cubic = Activation("cubic", lambda ns, z: z * z * z, lambda ns, z: 3.0 * z * z, from_output=False)
    MLP([2, 3, 1], activation=cubic).save(path)
    with pytest.raises(ValueError, match="activation 'cubic'; add it to ACTIVATIONS"):
        Predictor(path).outputs(x)
    quartic = Loss("quartic", lambda ns, h, t: (h - t) ** 4, lambda ns, h, t: 4 * (h - t) ** 3, regress=True)
    model = MLP([2, 1])
    fit(model, (x, np.arange(6.0)), loss=quartic, lr=1e-6, epochs=1)
    model.save(path)
    with pytest.raises(ValueError, match="loss 'quartic'; add what it makes of outputs to LINKS"):
        Predictor(path).predict(x)
