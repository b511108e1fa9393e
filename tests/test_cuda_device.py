"""On a CUDA device: capture, streams, precision and memory. Skipped, and said so, where there is none."""

from __future__ import annotations

import numpy as np
import pytest

import xpnet
from tests.conftest import cuda
from tests.estimator_cases import CLASSES, QUICK, check_all
from tests.estimator_cases import X as SAMPLES
from xpnet import MLPClassifier, get_backend, rng
from xpnet.errors import OutOfMemoryError
from xpnet.training.failures import device_errors

pytestmark = pytest.mark.gpu

X = np.random.default_rng(1).integers(0, 256, (2000, 64)).astype(np.uint8)
Y = (X[:, :10].argmax(axis=1)).astype(np.int64)


def _train(be, **architecture):
    model = xpnet.MLP([64, 100, 10], device=be, seed=4, **{"dropout": 0.1, **architecture})
    history = xpnet.fit(model, (X, Y), epochs=3, batch_size=32, verbose=False, schedule="cosine")
    return model.be.to_numpy(model.weights), history.column("train_loss")


@pytest.mark.parametrize("architecture", [{}, {"n_models": 7}, {"dtype": "float64"}])
def test_training_is_that_of_the_cpu(architecture):
    weights, losses = _train(cuda(), **architecture)
    twin, expected = _train(get_backend("cpu"), **architecture)
    tolerance = 1e-9 if "dtype" in architecture else 2e-3
    np.testing.assert_allclose(losses, expected, rtol=tolerance)
    np.testing.assert_allclose(weights, twin, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("batches", ["shared", "own"])
def test_fit_many_is_that_of_the_cpu(batches):
    configurations = [
        {"seed": s, "lr": 0.001 * (1 + s), "epochs": 2 + s % 2, "dropout": 0.1} for s in range(5)
    ]
    common = {
        "sizes": [64, 30, 10],
        "batch_size": 32,
        "schedule": "cosine",
        "batches": batches,
        "dtype": "float64",
    }
    data = (X / 255.0, Y)
    result = xpnet.fit_many(configurations, data, device=cuda(), block=4, **common)
    for mine, theirs in zip(result, xpnet.fit_many(configurations, data, **common), strict=True):
        for key in ("train_loss", "train_accuracy"):
            np.testing.assert_allclose(mine.history.column(key), theirs.history.column(key), rtol=1e-9)
        for name, want in theirs.model.get_weights().items():
            np.testing.assert_allclose(mine.model.get_weights()[name], want, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("precision", [None, "tf32", "bf16"])
def test_two_runs_are_equal_to_the_bit(precision):
    first, second = (_train(cuda(precision=precision))[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_capture_changes_nothing_to_the_bit_where_no_operations_are_joined():
    be = cuda()
    be.fuses = False
    assert _train(be)[0].tobytes() == _train(cuda(capture=False))[0].tobytes()


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "maxout:2"])
@pytest.mark.parametrize("architecture", [{}, {"n_models": 7}, {"dtype": "float64"}])
def test_joined_operations_train_as_well(activation, architecture):
    apart = cuda()
    apart.fuses = False
    (weights, losses), (others, expected) = (
        _train(be, activation=activation, **architecture) for be in (cuda(), apart)
    )
    tolerance = 1e-9 if "dtype" in architecture else 2e-3
    np.testing.assert_allclose(losses, expected, rtol=tolerance)
    np.testing.assert_allclose(weights, others, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [(None, 1e-6), ("tf32", 2e-3), ("bf16", 2e-2)])
def test_products_are_as_exact_as_was_asked_for(precision, tolerance):
    be = cuda(precision=precision)
    random = np.random.default_rng(0)
    a, b = random.normal(size=(128, 784)), random.normal(size=(500, 784))
    out = be.empty((128, 500), "float32")
    be.matmul(be.asarray(a, "float32"), be.asarray(b, "float32"), tb=True, out=out)
    want = a @ b.T
    error = np.linalg.norm(be.to_numpy(out) - want) / np.linalg.norm(want)
    assert error < tolerance and (precision is None or error > 1e-5)


def test_a_captured_step_is_no_warning_and_one_launch(recwarn):
    be = cuda()
    x = be.asarray(np.zeros(3, "f4"))
    repeat = be.capture(lambda: be.map(lambda ns, x: x + 1.0, x, out=x))
    repeat()
    repeat()
    assert be.to_numpy(x).tolist() == [3.0, 3.0, 3.0]
    assert hasattr(repeat, "record") and not recwarn.list


def test_memory_that_does_not_suffice_says_what_is_free():
    be = cuda()
    with pytest.raises(OutOfMemoryError, match=r"out of memory on cuda:0: .* are free"), device_errors(be):
        be.empty((1 << 46,), "float32")


def test_algorithms_that_were_chosen_are_known():
    be = cuda()
    _train(be)
    assert be.runtime.algorithms and all(len(a["algorithm"]) == 128 for a in be.runtime.algorithms)


def test_the_quickest_algorithms_train_as_well():
    be = cuda(autotune=True)
    _, losses = _train(be)
    assert be.autotune and any(len(a.get("microseconds", ())) > 1 for a in be.algorithms)
    np.testing.assert_allclose(losses, _train(get_backend("cpu"))[1], rtol=2e-3)


@pytest.mark.parametrize(
    ("precision", "architecture"),
    [
        (None, {}), ("tf32", {}), ("tf32", {"activation": "tanh", "dropout": 0.2}),
        (None, {"n_models": 7}), (None, {"dtype": "float64"}),
    ],
)  # fmt: skip
def test_steps_in_one_kernel_train_as_well(precision, architecture):  # each compiles for seconds
    def run(stays):
        be = cuda(precision=precision)
        be.stays = stays
        return be, *_train(be, **architecture)

    be, weights, losses = run(True)
    assert not [a for a in be.algorithms if "steps" in a]  # which would say why there is none
    assert weights.tobytes() == run(True)[1].tobytes()
    tolerance = (
        1e-9 if "dtype" in architecture else 2e-2 if precision else 2e-3
    )  # the library may round otherwise
    np.testing.assert_allclose(losses, run(False)[2], rtol=tolerance)


@pytest.mark.parametrize("n", [1, 1000, 60_000])
def test_orders_are_those_of_the_cpu(n):
    be = cuda()
    order = be.permutation(seed=5, epoch=2, out=be.empty((n,), "int64"))
    np.testing.assert_array_equal(be.to_numpy(order), rng.permutation(n, 5, 2))


def test_the_layer_that_failed_among_steps_done_ahead_is_named():
    model = xpnet.MLP([64, 100, 10], device=cuda(), seed=4)
    model.params["layers.0.weight"][...] = 1e38
    with pytest.raises(xpnet.DivergedError, match=r"epoch 1, step 1: layer 0 .* outputs are not finite"):
        xpnet.fit(model, (X, Y), epochs=1, batch_size=32, verbose=False)


def test_estimators_on_arrays_of_cupy(monkeypatch):
    cuda()
    import cupy

    array_api_compat = pytest.importorskip("array_api_compat")
    sizes = []

    def counting(leave):
        def method(x, *args):
            sizes.append(x.size)
            return leave(x, *args)

        return method

    for module, way in ((cupy, "asnumpy"), (array_api_compat, "to_device")):
        monkeypatch.setattr(module, way, counting(getattr(module, way)))
    clf = MLPClassifier(**QUICK).fit(cupy.asarray(SAMPLES, order="F"), cupy.asarray(CLASSES))
    assert max(sizes) <= clf.model_.n_parameters and clf.model_.be.device == "cuda:0"
    check_all(cupy.asarray, lambda answer, x: isinstance(answer, cupy.ndarray) and answer.device == x.device)


@pytest.mark.parametrize("n_models", [None, 5])
def test_biases_that_are_not_aligned(n_models):
    """Widths of 37 and 23: a bias begins wherever the weights and biases before it end."""

    def trained(be):
        model = xpnet.MLP([64, 37, 23, 10], device=be, seed=4, n_models=n_models)
        xpnet.fit(model, (X, Y), epochs=2, batch_size=32, verbose=False)
        return model.be.to_numpy(model.weights)

    np.testing.assert_allclose(trained(cuda()), trained(get_backend("cpu")), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16"]
)
def test_samples_of_every_type(dtype):
    def trained(be):
        model = xpnet.MLP([64, 20, 10], device=be, seed=4)
        xpnet.fit(model, ((X // 2).astype(dtype), Y), epochs=1, batch_size=32, verbose=False)
        return model.be.to_numpy(model.weights)

    np.testing.assert_allclose(trained(cuda()), trained(get_backend("cpu")), rtol=2e-2, atol=2e-2)
