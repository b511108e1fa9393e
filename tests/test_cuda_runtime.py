"""The CuPy runtime on a fake of CuPy: what it asks of streams, events, graphs and cublasLt, in which order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import xpnet
from tests.cuda_emulator import COMPILER, Emulator, Kernels
from tests.fake_cupy import FakeCupy, FakeHandle, install
from xpnet import DeviceError, get_backend
from xpnet.backend.cuda import backend, runtime
from xpnet.backend.cuda.backend import CudaBackend
from xpnet.cli import main

pytestmark = pytest.mark.skipif(
    COMPILER is None, reason="needs a C++ compiler to run the kernels' source: g++"
)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> Kernels:
    return Kernels(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def cupy(kernels, monkeypatch) -> FakeCupy:
    return install(kernels, monkeypatch)


X = np.random.default_rng(1).integers(0, 256, (160, 12)).astype(np.uint8)
Y = np.random.default_rng(2).integers(0, 3, 160)


def _train(be, **architecture):
    be.steps_ahead = min(be.steps_ahead, 4)  # of 10 in an epoch: 4 at once, 4 at once, 2 one by one
    model = xpnet.MLP([12, 9, 8, 3], device=be, seed=4, dtype="float64", dropout=0.1, **architecture)
    history = xpnet.fit(
        model, (X, Y), validation=(X[:50], Y[:50]), epochs=2, batch_size=16, verbose=False, schedule="cosine"
    )
    return model, history


def _ready(kernels, **architecture):
    with np.errstate(all="ignore"):
        _train(CudaBackend(Emulator(kernels, dry=True)), **architecture)
    kernels.compile_added()


@pytest.mark.parametrize("architecture", [{}, {"n_models": 3}], ids=["one", "population"])
def test_training_through_graphs_is_that_of_the_cpu(cupy, kernels, architecture):
    _ready(kernels, **architecture)
    be = backend.on_device(1, None)
    assert be.device == "cuda:1" and cupy.device == 1
    model, history = _train(be, **architecture)
    twin, expected = _train(get_backend("cpu"), **architecture)
    for key in ("train_loss", "valid_loss", "train_accuracy"):
        np.testing.assert_allclose(history.column(key), expected.column(key), rtol=1e-9)
    for key, want in twin.get_weights().items():
        np.testing.assert_allclose(model.get_weights()[key], want, rtol=1e-7, atol=1e-10)
    assert cupy.own_kernels == [], "CuPy compiles kernels of its own, which somebody who starts waits for"
    # the first step and the first evaluation run eagerly, before their captures; four steps are joined after that
    assert cupy.launches == (3 + 1 + 2 + 0) + (1 + 1 + 2 + 1)


def test_a_step_has_fewer_lanes_than_operations_and_none_is_left_alone(cupy, kernels, monkeypatch):
    _ready(kernels)
    be = backend.on_device(0, None)
    x, y, z, w, v = (be.asarray(np.full((4, 4), k, "f4")) for k in range(5))
    made, streams = [], cupy.cuda.Stream
    monkeypatch.setattr(cupy.cuda, "Stream", lambda **options: made.append(streams(**options)) or made[-1])

    def work():
        be.matmul(x, y, out=z)
        be.map(lambda ns, a: a + 1.0, y, out=w)
        be.matmul(y, y, out=v)
        be.matmul(z, v, out=x)

    replay = be.capture(work)
    assert [op.what for op in replay.record][::2] == ["multiply", "multiply"]
    assert len(made) == 3  # all but the last can run side by side
    assert len(be.runtime._workspaces) == 2  # only where there are products
    replay()


@pytest.mark.parametrize("architecture", [{}, {"n_models": 3}], ids=["one", "population"])
def test_weights_stay_on_the_device_until_the_end(cupy, kernels, monkeypatch, architecture):
    read, asnumpy = [], cupy.asnumpy
    monkeypatch.setattr(FakeCupy, "asnumpy", lambda self, x: (read.append(x.nbytes), asnumpy(x))[1])

    def train(be):
        model = xpnet.MLP([12, 40, 3], device=be, seed=4, **architecture)
        marks = []
        note = xpnet.Callback()
        note.each_step = False
        note.on_epoch_end = lambda trainer, record: marks.append(len(read))
        history = xpnet.fit(
            model,
            (X, Y),
            validation=(X[:50], Y[:50]),
            epochs=4,
            batch_size=16,
            verbose=False,
            callbacks=[note],
        )
        return model, history, marks

    with np.errstate(all="ignore"):
        train(CudaBackend(Emulator(kernels, dry=True)))
    kernels.compile([n for n in kernels.sources if n not in kernels.compiled])
    read.clear()
    model, history, marks = train(backend.on_device(0, None))
    per_epoch = read[marks[0] : marks[-1]]
    assert per_epoch and max(per_epoch) <= 8 * 4 * 3 < model.weights.nbytes
    twin, expected, _ = train(get_backend("cpu"))
    assert history.best_epochs == expected.best_epochs
    for key, want in twin.get_weights().items():
        np.testing.assert_allclose(model.get_weights()[key], want, rtol=1e-3, atol=1e-5)


def test_without_capture_no_graph_is_made(cupy, kernels):
    _ready(kernels)
    be = backend.on_device(0, None)
    be.captures = False
    _, history = _train(be)
    assert cupy.launches == 0 and history.column("train_loss") == pytest.approx(
        _train(get_backend("cpu"))[1].column("train_loss"), rel=1e-9
    )


def test_where_capture_fails_steps_run_one_by_one_and_a_warning_says_why(cupy, kernels, monkeypatch):
    _ready(kernels)
    be = backend.on_device(0, None)

    def refuse(self, operations):
        raise cupy.cuda.runtime.CUDARuntimeError("cudaErrorStreamCaptureUnsupported:\n no")

    monkeypatch.setattr(runtime.CupyRuntime, "_graph", refuse)
    x = be.asarray(np.zeros(3, "f4"))
    with pytest.warns(
        RuntimeWarning, match="cuda:0 are not captured .* cudaErrorStreamCaptureUnsupported: no"
    ):
        repeat = be.capture(lambda: be.map(lambda ns, x: x + 1.0, x, out=x))
    repeat()
    assert be.to_numpy(x).tolist() == [2.0, 2.0, 2.0]
    again = be.capture(lambda: be.map(lambda ns, x: x + 1.0, x, out=x))  # says so once
    again()
    assert be.to_numpy(x).tolist() == [4.0, 4.0, 4.0]


def test_an_error_inside_a_capture_leaves_the_stream_usable(cupy, kernels, monkeypatch):
    _ready(kernels)
    be = backend.on_device(0, None)
    x = be.asarray(np.eye(4, dtype="f4"))
    out = be.asarray(np.zeros((4, 4), "f4"))
    be.matmul(x, x, out=out)
    monkeypatch.setattr(be.runtime._handle, "multiply", lambda *a: (_ for _ in ()).throw(ValueError("no")))
    be.runtime._record = []
    be.matmul(x, x, out=out)
    operations, be.runtime._record = be.runtime._record, None
    with pytest.raises(ValueError, match="no"):
        be.runtime._graph(operations)
    assert cupy.capturing is None


def _rectified(be):
    """A captured product with bias, rectified; bias and weights hold a NaN."""
    x, w = be.asarray(np.ones((4, 8), "f4"), None), be.asarray(np.eye(3, 8, dtype="f4"), None)
    bias, z = be.asarray(np.array([[0.0, -5.0, np.nan]], "f4"), None), be.empty((4, 3), "float32")

    def work():
        be.matmul(x, w, tb=True, out=z)
        be.map(lambda ns, z, b: ns.maximum(z + b, 0.0), z, bias, out=z)

    replay = be.capture(work)
    replay()
    np.testing.assert_array_equal(be.to_numpy(z), np.broadcast_to([1.0, 0.0, np.nan], (4, 3)))
    return [op.what.partition("_")[0] for op in replay.record]


def test_a_bias_is_added_by_the_library(cupy, kernels):
    assert _rectified(backend.on_device(0, None)) == ["multiply"]


def _hiding(*which):
    """Rectifies with `fmax`, which makes a zero of a NaN, where these algorithms are used."""

    def rectify(x, out, algorithm):
        (np.fmax if algorithm.data[0] in which else np.maximum)(x, 0.0, out=out)

    return staticmethod(rectify)


@pytest.mark.parametrize("autotune", [False, True])
def test_algorithms_that_hide_a_nan_are_not_used(cupy, kernels, monkeypatch, autotune):
    monkeypatch.setattr(FakeHandle, "rectify", _hiding(0, 1, 2))
    be = backend.on_device(0, None, autotune)
    assert _rectified(be) == ["multiply", "map"]
    (refused,) = [a for a in be.algorithms if a["algorithm"] is None]
    assert refused["why"] == "3 of 3 algorithms hide a NaN that is in the bias"


def test_where_the_first_algorithm_hides_a_nan_another_one_is_used(cupy, kernels, monkeypatch):
    monkeypatch.setattr(FakeHandle, "rectify", _hiding(0))
    be = backend.on_device(0, None)
    assert _rectified(be) == ["multiply"]
    assert [a["algorithm"] for a in be.algorithms] == ["01" * 64]


def test_where_the_library_knows_no_algorithm_the_bias_is_added_by_a_kernel(cupy, kernels, monkeypatch):
    found = FakeHandle.algorithms

    def algorithms(self, description, alignments, n=1):
        if description.product.bias is not None:
            raise DeviceError("cublasLt knows no algorithm")
        return found(self, description, alignments, n)

    monkeypatch.setattr(FakeHandle, "algorithms", algorithms)
    be = backend.on_device(0, None)
    assert _rectified(be) == ["multiply", "map"]
    monkeypatch.setattr(FakeHandle, "algorithms", _refuse)
    square = be.asarray(np.ones((2, 2), "f4"), None)
    with pytest.raises(DeviceError, match="knows no algorithm"):  # without a bias there is nothing else to do
        be.matmul(square, square, out=be.empty((2, 2), "float32"))


def test_what_the_library_proposes_with_a_bias_and_cannot_do_is_not_used(cupy, kernels, monkeypatch):
    multiply = FakeHandle.multiply

    def refusing(self, description, *args):
        if description.product.bias is not None:
            raise DeviceError("cublasLtMatmul: not supported")
        multiply(self, description, *args)

    monkeypatch.setattr(FakeHandle, "multiply", refusing)
    be = backend.on_device(0, None)
    assert _rectified(be) == ["multiply", "map"]
    refused = [a for a in be.algorithms if a["algorithm"] is None]
    assert [a["why"] for a in refused] == ["3 of 3 algorithms do not run"]


@pytest.mark.parametrize("n_models", [None, 5])
def test_a_bias_that_is_not_aligned_is_added_by_a_kernel(cupy, kernels, n_models):
    """Widths of 37 and 23: a bias begins wherever the weights and biases before it end."""
    be = backend.on_device(0, None)
    given = []
    multiply = FakeHandle.multiply

    def watched(self, description, algorithm, addresses, *args):
        if description.product.bias is not None:
            stride = 4 * (description.product.bias if description.product.batch > 1 else 0)
            given.append(addresses[3] % 16 == 0 == stride % 16)
        multiply(self, description, algorithm, addresses, *args)

    x = np.random.default_rng(0).normal(size=(64, 12)).astype("f4")
    y = np.arange(64) % 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeHandle, "multiply", watched)
        model = xpnet.MLP([12, 37, 23, 3], n_models=n_models, device=be)
        xpnet.fit(model, (x, y), epochs=1, batch_size=16)
    assert all(given)
    assert any(a.get("why") == "the bias is not aligned to 16 bytes" for a in be.algorithms)
    twin = xpnet.MLP([12, 37, 23, 3], n_models=n_models)
    xpnet.fit(twin, (x, y), epochs=1, batch_size=16)
    for name, want in twin.get_weights().items():
        np.testing.assert_allclose(model.get_weights()[name], want, atol=1e-5)


def _refuse(*args):
    raise DeviceError("cublasLt knows no algorithm")


def test_the_library_is_asked_once_for_each_product_alignment_and_precision(cupy, kernels):
    be = backend.on_device(0, None)
    x, out = be.empty((8, 8), "float32"), be.empty((8, 8), "float32")
    for _ in range(3):
        be.matmul(x, x, out=out)
    assert be.runtime._handle.asked == 1 and len(be.runtime.algorithms) == 1
    be.matmul(x, x, tb=True, out=out)
    assert be.runtime._handle.asked == 2
    assert be.runtime.algorithms[0]["library"] == 130002 and be.runtime.algorithms[0]["microseconds"] == []


def test_autotuning_takes_the_quickest_and_says_what_it_measured(cupy, kernels, monkeypatch):
    times = iter([0.04, 0.02, 0.06])
    monkeypatch.setattr(FakeCupy, "elapsed", lambda self: next(times))
    be = backend.on_device(0, None, autotune=True)
    x, out = be.asarray(np.eye(4, dtype="f4")), be.empty((4, 4), "float32")
    be.matmul(x, x, out=out)
    np.testing.assert_array_equal(be.to_numpy(out), np.eye(4))
    assert be.autotune
    (chosen,) = be.algorithms
    assert chosen["algorithm"] == "01" * 64
    assert chosen["microseconds"] == pytest.approx([2.0, 1.0, 3.0])


def test_autotuning_leaves_out_what_the_library_does_not_have_after_all(cupy, kernels, monkeypatch):
    multiply = FakeHandle.multiply

    def picky(self, description, algorithm, *rest):
        if algorithm.data[0] == 0:
            raise DeviceError("cublasLtMatmul failed: not supported")
        multiply(self, description, algorithm, *rest)

    monkeypatch.setattr(FakeHandle, "multiply", picky)
    be = backend.on_device(0, None, autotune=True)
    x, out = be.asarray(np.eye(4, dtype="f4")), be.empty((4, 4), "float32")
    be.matmul(x, x, out=out)
    np.testing.assert_array_equal(be.to_numpy(out), np.eye(4))
    assert be.algorithms[0]["algorithm"] == "01" * 64


def test_a_back_end_works_on_its_own_device_whichever_is_current(cupy, kernels):
    be = backend.on_device(1, None, autotune=True)
    cupy.device = 0
    assert _rectified(be) == ["multiply"]
    assert be.runtime._handle.devices == {1} and cupy.device == 0


def test_what_the_device_says_of_itself(cupy):
    be = backend.on_device(0, None)
    assert be.free_memory() == 1024
    lost = cupy.cuda.runtime.CUDARuntimeError("cudaErrorECCUncorrectable: uncorrectable ECC error")
    assert be.lost(lost) == "cudaErrorECCUncorrectable: uncorrectable ECC error"
    assert be.lost(ValueError("other")) is None


def test_get_backend_makes_the_device_that_was_asked_for(cupy, monkeypatch):
    from xpnet.backend.cuda import probe

    asked = []

    def found(device=None):
        asked.append(device)
        return probe.Finding(True, "ok", "fine")

    monkeypatch.setattr(probe, "probe", found)
    assert get_backend("cuda").device == "cuda:0"
    be = get_backend("cuda:2", precision="bf16", capture=False)
    assert (be.device, be.precision, be.captures) == ("cuda:2", "bf16", False)
    assert get_backend("auto").device == "cuda:0"
    assert asked == [None, 2, None, None]


def test_the_check_for_gpus_measures_steps_with_and_without_joined_operations(cupy, kernels, monkeypatch):
    from benchmarks.gpu import cases, steps
    from xpnet.backend.cuda import probe

    monkeypatch.setattr(probe, "probe", lambda device=None: probe.Finding(True, "ok", "fine"))
    small = cases.Case("small", (12, 8, 5), 8, "tf32", steps=2)
    monkeypatch.setattr(steps, "CASES", (small, cases.Case("left out", (12, 8, 5), 8, "float32")))
    monkeypatch.setattr(steps, "blocks", lambda run, multiple, budget: {"us": run(multiple) or 1.0})
    found = list(steps.joined())
    assert [(f["joined"], f["streams"]) for f in found] == [
        (True, 5), (True, 6), (True, 3), (True, 2), (True, 1), (False, 5), (False, 1)
    ]  # fmt: skip
    assert [f["nodes"] for f in found] == [15] * 5 + [19] * 2
    assert all(f["captured"] and f["captured_all"] and f["ok"] for f in found)


def test_the_check_for_gpus_sees_where_capture_fails(cupy, kernels, monkeypatch):
    from benchmarks.gpu import cases, primitives, report, steps
    from xpnet.backend.cuda import probe

    monkeypatch.setattr(probe, "probe", lambda device=None: probe.Finding(True, "ok", "fine"))
    monkeypatch.setattr(steps, "CASES", (cases.Case("small", (12, 8, 5), 8, "float32", steps=2),))
    monkeypatch.setattr(steps, "blocks", lambda run, multiple, budget: {"us": run(multiple) or 1.0})
    graph = runtime.CupyRuntime._graph
    (found,) = steps.measure("xpnet")
    assert found["captured"] and found["captured_all"] and found["ok"] and found["nodes"] == 15
    assert all(f["captured"] and f["ok"] for f in primitives.capture())

    def only_short(self, operations):
        if len(operations) > 15:
            raise cupy.cuda.runtime.CUDARuntimeError("cudaErrorMemoryAllocation")
        return graph(self, operations)

    monkeypatch.setattr(runtime.CupyRuntime, "_graph", only_short)
    with pytest.warns(RuntimeWarning, match="cudaErrorMemoryAllocation"):
        (found,) = steps.measure("xpnet")
    assert found["captured"] and not found["captured_all"] and not found["ok"]

    def refuse(self, operations):
        raise cupy.cuda.runtime.CUDARuntimeError("cudaErrorStreamCaptureUnsupported")

    monkeypatch.setattr(runtime.CupyRuntime, "_graph", refuse)
    with pytest.warns(RuntimeWarning, match="cudaErrorStreamCaptureUnsupported"):
        (found,) = steps.measure("xpnet")
        assert not found["captured"] and not found["ok"]
        # it repeats rightly, launch by launch, which must not pass for a graph
        assert all(f["replays_add_up"] and not f["captured"] and not f["ok"] for f in primitives.capture())
    assert report.not_captured([{"name": "xpnet", "findings": [found]}])


def test_the_command_trains_on_the_device_and_goes_on_without_it(cupy, kernels, monkeypatch, tmp_path):
    from xpnet.backend.cuda import probe

    monkeypatch.setattr(probe, "probe", lambda device=None: probe.Finding(True, "ok", "fine"))
    cupy.cuda.runtime.memGetInfo = lambda: (10**9, 10**9)
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    y = np.arange(100) % 3
    np.savez("d.npz", x=(random.normal(size=(100, 5)) + 2 * y[:, None]).astype("f4"), y=y)

    def run(*arguments):
        done = CliRunner().invoke(main, [str(a) for a in arguments])
        assert done.exit_code == 0, done.output
        return done

    def settings(device):
        fixed = "--data d.npz --hidden 7 --dropout 0.2 --batch-size 8 --schedule constant --quiet"
        return [*fixed.split(), *device]

    def warm(be):
        model = xpnet.MLP([5, 7, 3], device=be, dropout=0.2, seed=0)
        data = (np.zeros((90, 5), "f4"), np.arange(90) % 3)
        xpnet.fit(model, data, validation=data, batch_size=8, epochs=1, verbose=False)

    with np.errstate(all="ignore"):
        warm(CudaBackend(Emulator(kernels, dry=True)))
    kernels.compile([n for n in kernels.sources if n not in kernels.compiled])
    run("train", *settings(["--device", "cuda"]), "--epochs", 2, "--out", "a")
    result = json.loads(Path("a/result.json").read_text())
    assert (result["backend"], result["device"], result["capture"]) == ("cupy", "cuda:0", True)
    assert cupy.launches > 0
    assert result["autotune"] is False
    chosen = [a["algorithm"] for a in result["algorithms"] if a["algorithm"] is not None]
    assert set(chosen) == {"00" * 64} and len(chosen) > 5
    run("train", *settings(["--device", "cuda", "--autotune"]), "--epochs", 1, "--out", "tuned")
    tuned = json.loads(Path("tuned/result.json").read_text())
    assert tuned["autotune"] is True and all(
        len(a["microseconds"]) == 3 for a in tuned["algorithms"] if a["algorithm"] is not None
    )
    shown = run("train", "--resume", "a", "--epochs", 4, "--device", "cpu")
    assert "the run was on cupy on cuda:0 and goes on on numpy on cpu" in shown.stderr
    run("train", *settings([]), "--epochs", 4, "--out", "b")
    a, b = (xpnet.load(f"{run}/model.safetensors").get_weights() for run in "ab")
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-5)
