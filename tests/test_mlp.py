"""MLP: what it refuses, how it predicts, and that files, members and devices keep its numbers."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import array_api_strict
import numpy as np
import pytest
from scipy.special import expit, softmax

import xpnet
from xpnet.activations import Activation, get_activation
from xpnet.backend import Origin, get_backend
from xpnet.backend.reference import ReferenceBackend
from xpnet.checkpoint import save_tensors
from xpnet.data.dataset import Preprocessing
from xpnet.errors import ConfigError, DataError, DeviceError, FileFormatError, MissingFileError
from xpnet.layers import Dense
from xpnet.losses import Loss, get_loss
from xpnet.mlp import MLP, load
from xpnet.testing import check_gradients

X = np.random.default_rng(0).normal(size=(9, 4))


@pytest.mark.parametrize(
    ("sizes", "options", "fragment"),
    [
        ([4], {}, "at least an input and an output width, found [4]"),
        ([], {}, "at least an input"),
        (4, {}, "must be a list of widths"),
        ([4, 0, 2], {}, "whole numbers >= 1, found 0"),
        ([4, -3, 2], {}, "found -3 in [4, -3, 2]"),
        ([4, 2.5, 2], {}, "found 2.5"),
        ([4, True], {}, "found True"),
        ("42", {}, "found '4'"),
        ([4, 3, 2], {"activation": "rellu"}, "did you mean 'relu'"),
        ([4, 3, 2], {"activation": ["relu", "tanh"]}, "activation has 2 entries for 1 hidden layers"),
        ([4, 3, 2], {"output_activation": "softmaxx"}, "unknown activation 'softmaxx'"),
        ([4, 3, 2], {"output_activation": "maxout:3"}, "use it for hidden layers"),
        ([4, 3, 2], {"output_activation": "prelu"}, "use it for hidden layers"),
        ([4, 3, 2], {"dropout": 1.0}, "dropout must be in [0, 1), found 1.0"),
        ([4, 3, 2], {"dropout": -0.1}, "found -0.1"),
        ([4, 3, 2], {"dropout": [0.1, 0.2]}, "dropout has 2 entries"),
        ([4, 3, 2], {"dropout": None}, "must be a number"),
        ([4, 3, 2], {"dropout": float("nan")}, "dropout must be in"),
        ([4, 3, 2], {"dropout": "0.2"}, "found '0.2'"),
        ([4, 3, 2], {"input_dropout": 2.0}, "dropout must be in"),
        ([4, 3, 2], {"input_noise": -1.0}, "input_noise must be"),
        ([4, 3, 2], {"init": "he_norml"}, "did you mean 'he_normal'"),
        ([4, 3, 2], {"init": "he_normal:1"}, "take a number"),
        ([4, 3, 2], {"bias": "x"}, "bias must be a number"),
        ([4, 3, 2], {"bias": float("inf")}, "must be finite"),
        ([4, 3, 2], {"n_models": 0}, "n_models must be a whole number >= 1"),
        ([4, 3, 2], {"n_models": 2.0}, "found 2.0"),
        ([4, 3, 2], {"n_models": True}, "found True"),
        ([4, 3, 2], {"seed": -1}, "seed must be an integer"),
        ([4, 3, 2], {"seed": 0.5}, "found 0.5"),
        ([4, 3, 2], {"seed": "7"}, "found '7'"),
        ([4, 3, 2], {"seed": [1, 2]}, "2 seeds for a single model"),
        ([4, 3, 2], {"seed": [1], "n_models": 2}, "1 seeds for 2"),
        ([4, 3, 2], {"seed": 2**64 - 1, "n_models": 2}, "from 0 to 2**64 - 1"),
        ([4, 3, 2], {"dtype": "float16"}, "dtype must be one of 'float32', 'float64', found 'float16'"),
        ([4, 3, 2], {"dtype": np.int8}, "dtype must be one of 'float32', 'float64', found 'int8'"),
        ([4, 3, 2], {"device": "gpu"}, "expected one of cpu, numba, cuda"),
        ([4, 3, 2], {"device": 3}, "unknown device 3"),
    ],
)
def test_bad_settings(sizes, options, fragment):
    with pytest.raises(ConfigError) as error:
        MLP(sizes, **options)
    assert fragment in str(error.value)


@pytest.mark.parametrize(
    ("x", "fragment"),
    [
        (np.zeros(4), "shape (B, 4), found shape (4,)"),
        (np.zeros((2, 5)), "found shape (2, 5)"),
        (np.zeros((1, 2, 4)), "found shape (1, 2, 4)"),
        (np.zeros((2, 4), complex), "found dtype complex128"),
        (np.array([["a"] * 4]), "real numbers"),
    ],
)
def test_bad_samples(x, fragment):
    with pytest.raises(DataError) as error:
        MLP([4, 2]).outputs(x)
    assert fragment in str(error.value)


def test_a_forward_pass_by_hand():
    # 2-2-1 with tanh: h = tanh(W1 x + b1), y = W2 h + b2
    model = MLP([2, 2, 1], activation="tanh", dtype="float64")
    W1, b1 = np.array([[1.0, -1.0], [0.5, 2.0]]), np.array([0.1, -0.2])
    W2, b2 = np.array([[3.0, -1.0]]), np.array([0.5])
    model.set_weights(
        {"layers.0.weight": W1, "layers.0.bias": b1, "layers.1.weight": W2, "layers.1.bias": b2}
    )
    h1, h2 = np.tanh(1.0 * 0.3 - 1.0 * 0.7 + 0.1), np.tanh(0.5 * 0.3 + 2.0 * 0.7 - 0.2)
    assert model.outputs([[0.3, 0.7]])[0, 0] == pytest.approx(3.0 * h1 - h2 + 0.5, rel=1e-15)


@pytest.mark.parametrize("n_models", [None, 3])
@pytest.mark.parametrize("rows", [0, 1, 7, 1024, 1025, 2500])
def test_predictions_do_not_depend_on_chunks(rows, n_models):
    model = MLP([4, 8, 2], dtype="float64", n_models=n_models)
    x = np.random.default_rng(1).normal(size=(rows, 4))
    y = model.outputs(x)
    assert y.shape == (*model.lead, rows, 2)
    for i in range(0, rows, 611):
        np.testing.assert_allclose(y[..., i : i + 1, :], model.outputs(x[i : i + 1]), rtol=1e-12, atol=1e-14)


def trained(width, task, loss, n_models=None, **options) -> MLP:
    model = MLP([4, 5, width], dtype="float64", n_models=n_models, **options)
    model.task, model.loss = task, loss
    return model


@pytest.mark.parametrize("n_models", [None, 3])
@pytest.mark.parametrize(
    ("width", "task", "loss", "proba", "predict"),
    [
        (
            3,
            "classification",
            "softmax_cross_entropy",
            lambda h: softmax(h, axis=-1),
            lambda h: h.argmax(axis=-1),
        ),
        (
            1,
            "classification",
            "binary_cross_entropy",
            lambda h: np.concatenate([expit(-h), expit(h)], axis=-1),
            lambda h: (h[..., 0] > 0).astype(int),
        ),
        (3, "multilabel", "binary_cross_entropy", expit, lambda h: (h > 0).astype(int)),
        (
            3,
            "classification",
            "binary_cross_entropy",
            lambda h: expit(h) / expit(h).sum(axis=-1, keepdims=True),
            lambda h: h.argmax(axis=-1),
        ),
        (
            1,
            "classification",
            "squared_error",
            lambda h: np.concatenate([1 - np.clip(h, 0, 1), np.clip(h, 0, 1)], axis=-1),
            lambda h: (h[..., 0] > 0.5).astype(int),
        ),
        (1, "classification", "hinge", None, lambda h: (h[..., 0] > 0).astype(int)),
        (3, "classification", "hinge", None, lambda h: h.argmax(axis=-1)),
        (2, "regression", "squared_error", None, lambda h: h),
        (2, "regression", "huber:2", None, lambda h: h),
        (2, "regression", "absolute_error", None, lambda h: h),
        (2, "regression", "quantile:0.9", None, lambda h: h),
        (2, "regression", "poisson", None, np.exp),
    ],
)
def test_predict_and_probabilities(width, task, loss, proba, predict, n_models):
    model = trained(width, task, loss, n_models)
    h = model.outputs(X)
    got = model.predict(X)
    np.testing.assert_allclose(got, predict(h), rtol=1e-14)
    assert got.dtype == (np.int64 if task != "regression" else np.float64)
    if proba is None:
        with pytest.raises(ConfigError, match=r"scores, not probabilities; use outputs\(\) or predict\(\)"):
            model.predict_proba(X)
        return
    p = model.predict_proba(X)
    np.testing.assert_allclose(p, proba(h), rtol=1e-13, atol=1e-15)
    if task == "classification":
        np.testing.assert_allclose(p.sum(axis=-1), 1.0, rtol=1e-13)
        np.testing.assert_array_equal(p.argmax(axis=-1), got)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [1, 2])
def test_small_probabilities_of_a_sigmoid_keep_their_digits(dtype, outputs):
    model = MLP([1, outputs], dtype=dtype)
    model.set_weights({"layers.0.weight": np.ones((outputs, 1)), "layers.0.bias": np.zeros(outputs)})
    model.task, model.loss = "classification" if outputs == 1 else "multilabel", "binary_cross_entropy"
    z = np.linspace(-80.0, 80.0, 41)
    exact = expit(np.stack([-z if outputs == 1 else z, z], axis=1))
    np.testing.assert_allclose(model.predict_proba(z[:, None]), exact, rtol=4 * np.finfo(dtype).eps)


def test_probabilities_after_the_squared_error_are_clipped_shares():
    model = trained(3, "classification", "squared_error")
    model.set_weights({k: np.zeros_like(w) for k, w in model.get_weights().items()})
    model.params["layers.1.bias"][...] = [2.0, 0.5, -1.0]
    np.testing.assert_allclose(model.predict_proba(X[:1]), [[1.0 / 1.5, 0.5 / 1.5, 0.0]])
    model.params["layers.1.bias"][...] = [-1.0, -2.0, -3.0]
    np.testing.assert_allclose(model.predict_proba(X[:1]), [[1 / 3] * 3])  # nothing is known


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_an_untrained_model_says_so(method):
    with pytest.raises(ConfigError, match="has not been trained"):
        getattr(MLP([4, 2]), method)(X)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_stay_as_they_were(dtype):
    model = MLP([4, 5, 3], dtype=dtype, activation="prelu", dropout=0.5, input_noise=1.0)
    model.task, model.loss = "classification", "softmax_cross_entropy"
    x = X.astype(dtype)
    kept = x.copy()
    x.flags.writeable = False
    for method in (model.outputs, model.predict, model.predict_proba):
        np.testing.assert_array_equal(method(x), method(x))  # and no noise at prediction
    np.testing.assert_array_equal(x, kept)


def test_results_are_the_callers_own():
    model = MLP([4, 5, 3])
    first = model.outputs(X)
    kept = first.copy()
    model.outputs(-X)
    np.testing.assert_array_equal(first, kept)
    w = model.get_weights()
    w["layers.0.weight"][...] = 0.0
    assert (model.get_weights()["layers.0.weight"] != 0.0).all()


def test_integer_and_boolean_samples():
    model = MLP([4, 3], dtype="float64")
    x = np.random.default_rng(2).integers(0, 2, (5, 4))
    for kind in (np.uint8, bool, np.int64, np.float16):
        np.testing.assert_array_equal(model.outputs(x.astype(kind)), model.outputs(x.astype(float)))


# --- weights, members, devices -----------------------------------------------------------------------


def test_set_weights_takes_lists_and_arrays_of_other_libraries():
    model = MLP([2, 1])
    model.set_weights({"layers.0.weight": [[1, 2.5]], "layers.0.bias": array_api_strict.asarray([3.0])})
    assert model.outputs([[2.0, 2.0]]).tolist() == [[10.0]]
    for wrong in ([["a", "b"]], [[1.0], [2.0, 3.0]]):
        with pytest.raises(
            DataError, match=r"layers\.0\.weight (has type <U1, expected real numbers|is not a rectangular)"
        ):
            model.set_weights({"layers.0.weight": wrong, "layers.0.bias": [0.0]})
    assert model.outputs([[2.0, 2.0]]).tolist() == [[10.0]]


def test_set_weights_by_name():
    model, other = MLP([4, 5, 3], seed=1), MLP([4, 5, 3], seed=2)
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(other.weights, model.weights)


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda w: w.pop("layers.0.bias"), "another architecture: expected layers.0.weight, layers.0.bias"),
        (lambda w: w.update({"layers.9.weight": np.zeros(1)}), "layers.9.weight"),
        (
            lambda w: w.update({"layers.0.weight": np.zeros((4, 5))}),
            "has shape (4, 5), but this architecture (4-5-3) needs (5, 4)",
        ),
        (lambda w: w.update({"layers.1.bias": np.zeros((3, 1))}), "layers.1.bias has shape (3, 1)"),
    ],
)
def test_set_weights_refuses_another_architecture(change, fragment):
    model = MLP([4, 5, 3])
    weights = model.get_weights()
    change(weights)
    with pytest.raises(FileFormatError) as error:
        model.set_weights(weights)
    assert fragment in str(error.value)


ARCHITECTURES = [
    {"sizes": [4, 3]},
    {"sizes": [4, 6, 5, 3], "activation": ["prelu", "maxout:3"], "dropout": [0.1, 0.0], "bias": -0.5},
    {
        "sizes": [4, 6, 3],
        "activation": "leaky_relu:1e-3",
        "input_noise": 0.1,
        "input_dropout": 0.2,
        "init": "normal:1e-2",
    },
    {"sizes": [4, 6, 3], "activation": "gelu", "output_activation": "sigmoid"},
]


@pytest.mark.parametrize("n_models", [None, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", ARCHITECTURES, ids=lambda o: "-".join(map(str, o["sizes"])))
def test_file_round_trip(tmp_path, options, dtype, n_models):
    seed = 7 if n_models is None else [2**64 - 1 - m for m in range(n_models)]
    model = MLP(**options, dtype=dtype, n_models=n_models, seed=seed)
    model.task, model.loss, model.classes = "classification", "softmax_cross_entropy", ("ant", "bee", "çat")
    model.preprocessing = Preprocessing((2, 2), scale=np.array([1.0, 2.0, 3.0, 4.0]), shift=0.5)
    path = tmp_path / "model.safetensors"
    model.save(path, extra={"note": 1})
    back = load(path)
    assert back.architecture == model.architecture
    for name in (
        "sizes",
        "dtype",
        "n_models",
        "seeds",
        "task",
        "loss",
        "classes",
        "preprocessing",
        "n_parameters",
    ):
        assert getattr(back, name) == getattr(model, name)
    for name, w in model.get_weights().items():
        got = back.get_weights()[name]
        assert got.dtype == w.dtype
        np.testing.assert_array_equal(got, w)
    x = X.reshape(-1, 2, 2)
    np.testing.assert_array_equal(back.predict_proba(x), model.predict_proba(x))
    assert xpnet.load is load


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_tensors(path, {"a": np.zeros(1)}, {"kind": "trainer"})
    with pytest.raises(FileFormatError, match=r"'trainer', not a model"):
        load(path)
    save_tensors(path, {"a": np.zeros(1)}, {"kind": "model"})
    with pytest.raises(FileFormatError, match="does not describe a model"):
        load(path)
    model = MLP([4, 3])
    model.save(path)
    model.architecture["activation"] = ["from the future"]
    model.architecture["sizes"] = [4, 2, 3]
    model.architecture["dropout"] = [0.0]
    model.save(path)
    with pytest.raises(FileFormatError, match="from the future"):
        load(path)


@pytest.mark.parametrize("options", ARCHITECTURES, ids=lambda o: "-".join(map(str, o["sizes"])))
def test_member_is_a_model_of_its_own(options):
    population = MLP(**options, n_models=3, seed=[5, 1, 9], dtype="float64")
    population.task, population.loss = "classification", "softmax_cross_entropy"
    population.weights[...] += np.random.default_rng(3).normal(size=population.weights.shape)
    together = population.predict_proba(X)
    for m in (0, 1, 2, -1):
        alone = population.member(m)
        assert alone.n_models is None
        assert alone.seeds == (population.seeds[m],)
        np.testing.assert_allclose(alone.predict_proba(X), together[m], rtol=1e-12, atol=1e-15)
        before = population.get_weights()
        alone.weights[...] = 0.0
        for name, w in population.get_weights().items():
            np.testing.assert_array_equal(w, before[name])


@pytest.mark.parametrize("m", [3, -4])
def test_there_is_no_such_member(m):
    with pytest.raises(ConfigError, match="member must be from 0 to 2"):
        MLP([4, 3], n_models=3).member(m)
    with pytest.raises(ConfigError, match="single model"):
        MLP([4, 3]).member(0)


@pytest.mark.parametrize("n_models", [None, 3])
@pytest.mark.parametrize("options", ARCHITECTURES, ids=lambda o: "-".join(map(str, o["sizes"])))
def test_to_another_device_and_dtype(options, n_models):
    model = MLP(**options, n_models=n_models, seed=3)
    model.task, model.loss, model.classes = "classification", "softmax_cross_entropy", ("a", "b", "c")
    other = model.to(ReferenceBackend(np), dtype="float64")
    assert (other.dtype, model.dtype, other.classes, other.seeds) == (
        "float64",
        "float32",
        model.classes,
        model.seeds,
    )
    np.testing.assert_array_equal(other.weights, model.weights.astype(np.float64))
    np.testing.assert_allclose(other.predict_proba(X), model.predict_proba(X), rtol=1e-4, atol=1e-5)
    same = model.to("cpu")
    np.testing.assert_array_equal(same.weights, model.weights)
    assert not np.shares_memory(same.weights, model.weights)


def test_cuda_is_never_replaced_by_the_cpu_in_silence():
    try:
        get_backend("cuda")
    except DeviceError as error:
        with pytest.raises(DeviceError):
            MLP([4, 3], device="cuda")
        assert "cpu" in str(error)  # says what to do
    else:
        assert MLP([4, 3], device="cuda").be.device.startswith("cuda")


@pytest.mark.parametrize("n_models", [None, 3])
@pytest.mark.parametrize("options", ARCHITECTURES, ids=lambda o: "-".join(map(str, o["sizes"])))
def test_activations_are_those_of_the_forward_pass(options, n_models):
    model = MLP(**options, n_models=n_models, seed=3)
    found = model.activations(X)
    assert [h.shape for h in found] == [(*model.lead, len(X), width) for width in model.sizes[1:]]
    np.testing.assert_array_equal(found[-1], model.outputs(X))
    names = [name for name in model.params if name.endswith("weight")]
    assert len(found) == len(names)
    for h in found:  # copies: nothing later may change them
        assert h.flags.owndata and np.isfinite(h).all()


def test_activations_by_hand():
    model = MLP([2, 2, 1], activation="relu", dropout=0.5, input_noise=0.3)
    w = model.get_weights()
    first, second = (w[name] for name in w if name.endswith("weight"))
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    hidden, out = model.activations(x)
    np.testing.assert_allclose(hidden, np.maximum(x @ first.T, 0.0), rtol=1e-6)
    np.testing.assert_allclose(out, hidden @ second.T, rtol=1e-6)


# --- copies, pickles, and what is one's own ---------------------------------------------------------
def _trained(**options):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    y = (x[:, 0] > 0).astype(int)
    model = MLP([3, 5, 2], dropout=0.1, seed=3, **options)
    xpnet.fit(model, (x, y), epochs=2, batch_size=8)
    return model, x


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize(
    "options",
    [{}, {"n_models": 3}, {"dtype": "float64", "device": get_backend("cpu", capture=False)}],
    ids=str,
)
def test_a_copy_answers_the_same_and_goes_its_own_way(again, options):
    model, x = _trained(**options)
    model.classes = ("no", "yes")
    twin = again(model)
    assert twin.be is not model.be  # which another thread may be using
    np.testing.assert_array_equal(twin.predict_proba(x), model.predict_proba(x))
    assert (
        twin.classes == model.classes and twin.be.captures == model.be.captures and twin.dtype == model.dtype
    )
    before = model.get_weights()
    xpnet.fit(twin, (x, (x[:, 1] > 0).astype(int)), epochs=1)
    for name, values in model.get_weights().items():
        np.testing.assert_array_equal(values, before[name])


def test_a_pickle_names_the_library(monkeypatch):
    model, x = _trained(device=array_api_strict)
    twin = pickle.loads(pickle.dumps(model))
    assert twin.be.xp is array_api_strict
    np.testing.assert_array_equal(twin.predict(x), model.predict(x))


def test_where_the_device_is_missing_a_pickle_opens_on_the_cpu():
    model, x = _trained()
    state = model.__getstate__() | {"device": Origin("cuda:77", False, None, True, False)}
    twin = MLP.__new__(MLP)
    with pytest.warns(UserWarning, match="computes on the CPU"):
        twin.__setstate__(state)
    np.testing.assert_array_equal(twin.predict(x), model.predict(x))


SQUARE = Activation("square", lambda ns, z: z * z, lambda ns, z: 2.0 * z, from_output=False)
PLAIN = Loss("plain", lambda ns, h, t: ns.square(h - t), lambda ns, h, t: 2.0 * (h - t), regress=True)


def test_an_activation_and_a_loss_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (60, 2))
    y = x[:, :1] * x[:, 1:]
    model = MLP([2, 6, 1], activation=SQUARE, seed=1, dtype="float64")
    assert check_gradients(model, x[:20], y[:20], loss=PLAIN) < 1e-12
    xpnet.fit(model, (x, y), loss=PLAIN, optimizer=xpnet.Adam(lr=0.02), epochs=150, batch_size=20)
    assert np.abs(model.predict(x) - y).max() < 0.05  # squares make products
    assert "square" in model.layers[0].label and xpnet.evaluate(model, (x, y))["loss"] < 1e-3
    for twin in (model.to("cpu"), copy.deepcopy(model)):
        np.testing.assert_array_equal(twin.predict(x), model.predict(x))
    path = tmp_path / "m.safetensors"
    model.save(path)
    np.testing.assert_array_equal(xpnet.load(path, own=[SQUARE, PLAIN]).predict(x), model.predict(x))
    with pytest.raises(FileFormatError, match=r"unknown activation 'square'.*own=\[...\]"):
        xpnet.load(path)
    without = xpnet.load(path, own=[SQUARE])
    np.testing.assert_array_equal(without.outputs(x), model.outputs(x))
    with pytest.raises(ConfigError, match=r"unknown loss 'plain'.*own=\[...\]"):
        without.predict(x)


def test_members_have_the_activation_of_ones_own():
    population = MLP([2, 4, 1], activation=[SQUARE], n_models=3)
    x = np.ones((2, 2))
    np.testing.assert_allclose(population.member(1).outputs(x), population.outputs(x)[1], rtol=1e-6)


def test_an_activation_with_a_name_that_is_taken():
    other = Activation("relu", lambda ns, z: z, lambda ns, z: z)
    for given in (other, [SQUARE, Activation("square", lambda ns, z: z, None)]):
        with pytest.raises(ConfigError, match="another activation called"):
            MLP([2, 4, 4, 1], activation=given)
    assert MLP([2, 4, 1], activation=get_activation("relu")).own_activations == {}


class _TwoLayers(MLP):
    def make_layers(self):
        *hidden, last = super().make_layers()
        return [*hidden, Dense(last.n_in, last.n_in, get_activation("tanh"), "glorot_uniform"), last]


def test_a_subclass_with_layers_of_its_own(tmp_path):
    model = _TwoLayers([2, 3, 1], n_models=2)
    x = np.ones((4, 2))
    model.save(tmp_path / "m.safetensors")
    again = xpnet.load(tmp_path / "m.safetensors", kind=_TwoLayers)
    for twin in (again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin.outputs(x), model.outputs(x))
    np.testing.assert_allclose(model.member(1).outputs(x), model.outputs(x)[1], rtol=1e-6)
    with pytest.raises(FileFormatError, match=r"a class _TwoLayers makes: load\(path, kind=_TwoLayers\)"):
        xpnet.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layers: None, "must return a list of xpnet.layers.Layer, found None"),
        (lambda layers: [], r"must return a list of xpnet.layers.Layer, found \[\]"),
        (lambda layers: [layers[0], np.tanh, layers[1]], "must return a list of xpnet.layers.Layer"),
        (lambda layers: layers[::-1], r"layer 0 \(dense 4->2 identity\) comes where 3 numbers go in"),
        (lambda layers: layers[:1], "the last layer gives 4 numbers, sizes says 2"),
    ],
)
def test_layers_of_ones_own_fit_together(change, message):
    class Own(MLP):
        def make_layers(self):
            return change(super().make_layers())

    with pytest.raises(ConfigError, match=message):
        Own([3, 4, 2])


class _Doubled(Dense):
    def forward(self, x, c):
        return super().forward(2.0 * x, c)


class _DoubledFirst(MLP):
    def make_layers(self):
        first, last = super().make_layers()
        return [_Doubled(first.n_in, first.n_out, first.activation, "glorot_uniform"), last]


def test_layers_of_ones_own_with_the_usual_weights_are_not_taken_for_the_usual_ones(tmp_path):
    _DoubledFirst([2, 3, 1]).save(tmp_path / "m.safetensors")
    with pytest.raises(FileFormatError, match="_DoubledFirst"):
        xpnet.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["outputs", "predict", "predict_proba"])
def test_samples_that_are_not_finite_have_no_answer(bad, method):
    model, x = _trained()
    x[7, 1] = bad
    with pytest.raises(DataError, match=r"X has .* at row 7, column 1"):
        getattr(model, method)(x)


@pytest.mark.parametrize("dtype", [np.float64, np.dtype("float64"), float])
def test_types_of_numpy(dtype):
    assert MLP([2, 1], dtype=dtype).dtype == "float64"


def test_a_run_folder_opens_as_its_model(tmp_path):
    model = MLP([4, 3])
    with pytest.raises(MissingFileError, match=r"has no model.safetensors: it is no run folder, or no epoch"):
        load(tmp_path)
    model.save(tmp_path / "model.safetensors")
    for path in (tmp_path, str(tmp_path)):
        np.testing.assert_array_equal(load(path).outputs(X), model.outputs(X))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_forked_while_a_thread_predicts_does_not_wait_for_it():
    net = MLP([4, 8, 3])
    x = np.ones((5, 4), "float32")
    expected = net.outputs(x)
    held, let_go = threading.Event(), threading.Event()

    def predict() -> None:
        with net.be.lock:
            held.set()
            let_go.wait()

    thread = threading.Thread(target=predict)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends one that waits for ever
        os._exit(0 if np.array_equal(net.outputs(x), expected) else 1)
    status = os.waitpid(child, 0)[1]
    let_go.set()
    thread.join()
    assert status == 0
    assert net.be.lock is net.be.lock


@pytest.mark.parametrize("width", [1, 3])
def test_threads_may_ask_networks_of_one_back_end_at_once(width):
    """As a server does: each thread gets the answers to its own samples, whoever asks at the same time."""
    be = get_backend("cpu")
    models = [MLP([20, 64, width], seed=seed, device=be) for seed in range(2)]
    for model in models:
        name = "binary_cross_entropy" if width == 1 else "softmax_cross_entropy"
        model.learns("classification", get_loss(name))
    samples = np.random.default_rng(0).normal(size=(60, 40, 20)).astype("float32")
    methods = ("predict_proba", "predict", "activations")
    asked = [(m, x[: 30 + k % 5], way) for k, x in enumerate(samples) for m in models for way in methods]

    def answer(question):
        model, x, method = question
        found = getattr(model, method)(x)
        return found[-1] if method == "activations" else found

    alone = [answer(question) for question in asked]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            for _ in range(3):
                for found, expected in zip(threads.map(answer, asked), alone, strict=True):
                    assert np.array_equal(found, expected)
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda be: pickle.loads(pickle.dumps(be))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("device", ["cpu", array_api_strict])
def test_a_back_end_is_made_again(again, device):
    be = get_backend(device, capture=False)
    twin = again(be)
    assert type(twin) is type(be) and twin is not be and twin.lock is not be.lock
    assert twin.origin == be.origin and not twin.captures
