"""`xpnet export`: what it writes, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from xpnet import MLP, fit, load
from xpnet.cli import main
from xpnet.exchange import from_torch_state

X = np.random.default_rng(0).normal(size=(60, 4))
Y = np.arange(60) % 3


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = MLP([4, 6, 3])
    net.classes = ("a", "b", "c")
    fit(net, (X, Y), epochs=2)
    net.save("net.safetensors")
    return net


def xp(*arguments, code=0):
    done = CliRunner().invoke(main, ["export", *arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_onnx_from_a_run_folder(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["train", "--hidden", "6", "--epochs", "1", "--quiet", "--out", "run"])
    assert done.exit_code == 0, done.output
    assert "model.onnx" in xp("run", "--input-dtype", "uint8")
    images = np.random.default_rng(0).integers(0, 17, (5, 8, 8), dtype=np.uint8)
    session = runtime.InferenceSession("run/model.onnx", providers=["CPUExecutionProvider"])
    label, probabilities = session.run(None, {"input": images})
    net = load("run/model.safetensors")
    assert label.tolist() == [net.classes[k] for k in net.predict(images)]
    assert np.allclose(probabilities, net.predict_proba(images), atol=1e-6)


def test_onnx_of_a_table(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    towns = np.array(["Bern", "Graz", "Ulm"])[Y]
    lines = [f"{a},{t},{a * 2 + k:.6f}" for a, t, k in zip(X[:, 0], towns, Y, strict=True)]
    (tmp_path / "homes.csv").write_text("\n".join(["size,town,price", *lines]))
    arguments = ["train", "homes.csv", "--hidden", "4", "--epochs", "2", "--quiet", "--out", "run"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    xp("run")
    session = runtime.InferenceSession("run/model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"size": X[:, :1], "town": towns.astype(object)[:, None]})
    done = CliRunner().invoke(main, ["predict", "run", "homes.csv", "--json"])
    expected = [json.loads(line)["values"] for line in done.stdout.splitlines()]
    assert np.allclose(found, expected, rtol=1e-5)
    assert "belongs to arrays" in xp("run", "--input-dtype", "uint8", "--overwrite", code=2)


def test_torch_weights(model):
    load_file = pytest.importorskip("safetensors.numpy").load_file
    xp("net.safetensors", "--format", "torch")
    again = from_torch_state(load_file("torch.safetensors"))
    assert np.array_equal(again.outputs(X), model.outputs(X))


def test_refusals(model):
    xp("net.safetensors", "--format", "torch", "--out", "w.safetensors")
    assert "--overwrite" in xp("net.safetensors", "--format", "torch", "--out", "w.safetensors", code=2)
    xp("net.safetensors", "--format", "torch", "--out", "w.safetensors", "--overwrite")
    assert "belongs to" in xp("net.safetensors", "--format", "torch", "--input-dtype", "uint8", code=2)
    assert "no such file" in xp("absent.safetensors", code=1)
    MLP([4, 3], n_models=2).save("many.safetensors")
    assert "population" in xp("many.safetensors", "--format", "torch", code=2)
