"""Where a run computes: capture or not, another device half-way, memory that does not suffice, a device that fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from tests.command import xp
from xpnet import MLP, fit, get_backend, memory
from xpnet.backend.cpu import CpuBackend
from xpnet.data import Dataset
from xpnet.errors import ConfigError, DeviceError, OutOfMemoryError
from xpnet.storage import atomic

RNG = np.random.default_rng(0)
Y = np.arange(90) % 3
X = (RNG.normal(size=(90, 5)) + 2 * Y[:, None]).astype(np.float32)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder with a small data set, and do not wait for disks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(atomic._Fs, "fsync", lambda self, fd: None)
    np.savez("d.npz", x=X, y=Y)


def train(out: str, *more: Any, code: int = 0) -> dict[str, Any]:
    settings = ["--data", "d.npz", "--hidden", "7", "--dropout", "0.2", "--epochs", "4", "--batch-size", "16"]
    settings += ["--schedule", "constant"]  # others follow the new length
    xp("train", *settings, "--out", out, "--quiet", *more, code=code)
    return json.loads(Path(out, "result.json").read_text()) if code == 0 else {}


# --- capture and precision --------------------------------------------------------------------------
@pytest.mark.parametrize("device", ["cpu", "numba"])
def test_without_capture_every_bit_is_the_same(device: str) -> None:
    if device == "numba":
        pytest.importorskip("numba")
    captured, plain = train("a", "--device", device), train("b", "--device", device, "--no-capture")
    assert captured["weights_sha256"] == plain["weights_sha256"]
    assert captured["last_weights_sha256"] == plain["last_weights_sha256"]
    assert (captured["capture"], plain["capture"]) == (True, False)
    assert "capture = false" in Path("b/config.toml").read_text()


def test_precision_is_recorded() -> None:
    assert train("a")["precision"] == "float32"
    result = train("b", "--precision", "float64")
    assert (result["precision"], result["dtype"]) == ("float64", "float64")
    assert 'precision = "float64"' in Path("b/config.toml").read_text()


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_the_cpu_has_no_rounded_products(precision: str) -> None:
    shown = xp("train", "--data", "d.npz", "--out", "a", "--precision", precision, code=2).stderr
    assert f"precision '{precision}' needs CUDA, but the device is 'cpu'" in shown
    assert not Path("a").exists()


# --- on another device half-way ---------------------------------------------------------------------
def agree(one: str, other: str, tolerance: float) -> None:
    a, b = (xpnet.load(f"{run}/model.safetensors").get_weights() for run in (one, other))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("cpu", "numba"), ("numba", "cpu"),
        pytest.param("cpu", "cuda", marks=pytest.mark.gpu), pytest.param("cuda", "cpu", marks=pytest.mark.gpu),
    ],
)  # fmt: skip
def test_a_run_goes_on_on_another_device(first: str, then: str) -> None:
    for device in (first, then):
        try:
            xpnet.get_backend(device)
        except DeviceError as error:
            pytest.skip(str(error))
    whole = train("whole", "--device", first, "--precision", "float64")
    train("moved", "--device", first, "--precision", "float64", "--epochs", 2)
    shown = xp("train", "--resume", "moved", "--device", then, "--epochs", 4)
    assert f"note: the run was on {xpnet.get_backend(first).name} on " in shown.stderr
    result = json.loads(Path("moved/result.json").read_text())
    assert (result["epochs"], result["steps"]) == (whole["epochs"], whole["steps"])
    assert result["backend"] == xpnet.get_backend(then).name
    agree("whole", "moved", 1e-10)


def test_going_on_where_it_was_says_nothing() -> None:
    train("run", "--epochs", 2)
    assert "note:" not in xp("train", "--resume", "run", "--epochs", 3).stderr


# --- memory -----------------------------------------------------------------------------------------
class Small(CpuBackend):
    """The CPU with 100 kB of memory."""

    def free_memory(self) -> int | None:
        return 100_000


def on(monkeypatch: pytest.MonkeyPatch, be: CpuBackend) -> None:
    monkeypatch.setattr("xpnet.runs.run.choose_backend", lambda config: be)


def test_a_run_too_large_is_refused_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, Small())
    train("fits")
    for change, advice in (
        (["--hidden", "200,200"], "Use a smaller --hidden"),
        (["--batch-size", 5000], "Use a smaller --batch-size"),
    ):
        done = xp("train", "--data", "d.npz", "--hidden", 7, *change, "--out", "large", code=5)
        assert "MiB to train, but 0.1 MiB are free (" in done.stderr and advice in done.stderr
        assert not Path("large").exists()


def test_rounded_operands_are_counted() -> None:
    plain, rounded = (
        memory.plan_training([5, 7, 3], batch=4, moments=2, dtype="float32", precision=p)
        for p in (None, "bf16")
    )
    assert rounded.total - plain.total == rounded.rounded == (4 * plain.weights + plain.activations) // 2
    assert "rounded 0.0 MiB" in str(rounded) and "rounded" not in str(plain)


def test_parameters_are_counted_with_all_that_is_of_their_size() -> None:
    plan = memory.plan_training([1000, 1000], batch=1, moments=2, dtype="float32", host=True)
    # weights, gradients, two moments, the best and the last good ones: 6 times 1000 x 1001 numbers of 4 bytes
    assert str(plan).startswith("parameters 22.9 MiB, activations ")


def test_what_to_reduce_is_what_is_largest() -> None:
    data = memory.plan_training([5, 7, 3], batch=4, moments=2, dtype="float32", data=200_000)
    with pytest.raises(OutOfMemoryError, match=r"but 0.1 MiB are free .*data 0.2 MiB.*Use fewer samples"):
        memory.check(data, Small(), "the network")
    memory.check(memory.plan_training([5, 7, 3], batch=4, moments=2, dtype="float32"), Small(), "the network")


def test_networks_that_no_memory_holds_are_refused_before_any_is_taken() -> None:
    said = r"the network .* has [\d,]{13,} parameters, which need [\d,.]+ GiB to be made, but [\d,.]+ GiB are free\."
    for sizes in ([10, 10**6, 10**6, 2], [10**8, 10**8]):
        with pytest.raises(OutOfMemoryError, match=said):
            MLP(sizes)
    with pytest.raises(OutOfMemoryError, match=said):
        MLP([10**4, 10**4], n_models=10**5)
    with pytest.raises(OutOfMemoryError, match=said):
        xpnet.MLPClassifier(hidden_layer_sizes=(10**6, 10**6)).fit(np.eye(4), [0, 1, 0, 1])


def test_trainings_that_do_not_fit_beside_the_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LARGE", 1)
    be = Small()
    model = MLP([3, 5, 2], device=be)
    fit(model, (np.eye(3), [0, 1, 0]), epochs=1)
    with pytest.raises(
        OutOfMemoryError, match=r"100-200-2 has .* need .* to be made, but 0.1 MiB are free\."
    ):
        MLP([100, 200, 2], device=be)
    large = MLP([100, 50, 2], device=be)  # 100,000 bytes hold its weights, but not two moments
    with pytest.raises(OutOfMemoryError, match=r"100-50-2 needs .* narrower layers, or SGD"):
        fit(large, (np.ones((2, 100)), [0, 1]), epochs=1)
    with pytest.raises(OutOfMemoryError, match=r"3-5-2 needs .*Use smaller batches"):
        fit(model, (np.tile(np.eye(3), (3000, 1)), [0, 1, 0] * 3000), epochs=1, batch_size=9000)


def test_there_is_nothing_to_tune_on_the_cpu() -> None:
    done = xp("train", "--data", "d.npz", "--autotune", "--out", "a", code=2)
    assert (
        "autotune needs CUDA, but the device is 'cpu'" in done.stderr
        and "leave --autotune out" in done.stderr
    )
    assert not Path("a").exists()
    be = get_backend("cpu")
    assert be.algorithms is None
    with pytest.raises(ConfigError, match="choose precision, capture and autotune when it is made"):
        get_backend(be, autotune=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("divided", [True, False])
def test_samples_that_are_copied(dtype: str, divided: bool) -> None:
    data = Dataset("d", X, Y, None, None, (5,), ("a", "b", "c"), 1.0)
    width = np.dtype(dtype).itemsize
    converted = X.size * width if dtype == "float64" else 0
    host = memory.copied_bytes(data, dtype, host=True, divided=divided)
    assert host == converted + (X.nbytes if divided else 0) + 8 * len(X)
    assert memory.copied_bytes(data, dtype, host=False, divided=divided) == X.size * width + 16 * len(X)


def test_the_plan_is_near_what_a_training_takes() -> None:
    import tracemalloc

    rng, n, sizes = np.random.default_rng(0), 2000, [200, 300, 10]
    x, y = rng.normal(size=(n, 200)).astype(np.float32), np.arange(n) % 10
    plan = memory.plan_training(sizes, batch=500, moments=2, dtype="float32", evaluated=n, host=True)
    tracemalloc.start()
    try:
        model = xpnet.MLP(sizes, init="zeros")
        trainer = xpnet.Trainer(model, (x, y), validation=(x, y), epochs=2, batch_size=500)
        trainer.run()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.7 * plan.total < peak < 1.5 * plan.total, (peak, plan)


# --- trouble on the way -----------------------------------------------------------------------------
class Lost(Exception):
    """What the driver of a device that is gone might raise."""


class Failing(CpuBackend):
    """A device that raises `error` at the n-th batch it gets."""

    def __init__(self, n: int, error: BaseException):
        super().__init__()
        self.name = "failing-numpy"
        self._left, self._error = n, error

    def asarray(self, values: Any, dtype: str | None = None) -> Any:
        if np.ndim(values) == 1 and len(values) == 16:  # the rows of a batch
            self._left -= 1
            if self._left < 0:
                raise self._error
        return super().asarray(values, dtype)

    def lost(self, error: BaseException) -> str | None:
        return "the device fell off the bus" if isinstance(error, Lost) else None


def test_a_device_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train("whole")
    with monkeypatch.context() as patch:
        on(patch, Failing(12, Lost()))
        settings = ["--data", "d.npz", "--hidden", 7, "--dropout", 0.2, "--epochs", 4, "--batch-size", 16]
        settings += ["--schedule", "constant"]
        shown = xp("train", *settings, "--out", "run", "--quiet", code=4).stderr
    assert "the device cpu failed during training: the device fell off the bus. The last" in shown
    assert "The last checkpoint, after 12 updates, is safe; continue with: xpnet train --resume run" in shown
    xp("train", "--resume", "run", "--quiet")
    assert json.loads(Path("run/result.json").read_text())["weights_sha256"] == whole["weights_sha256"]


def test_a_device_that_goes_away_before_anything_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, Failing(2, Lost()))
    shown = xp("train", "--data", "d.npz", "--batch-size", 16, "--out", "run", "--quiet", code=4).stderr
    assert "Nothing had been saved yet; start again, with --overwrite for run" in shown


def test_memory_that_ends_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, Failing(12, MemoryError("cannot allocate 64 bytes")))
    shown = xp("train", "--data", "d.npz", "--batch-size", 16, "--out", "run", "--quiet", code=5).stderr
    assert "out of memory on cpu: cannot allocate 64 bytes; " in shown and "Use smaller batches" in shown
    assert "is safe; continue with" in shown


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(Lost(), DeviceError), (MemoryError(), OutOfMemoryError), (ZeroDivisionError(), ZeroDivisionError)],
)
def test_the_library_raises_the_same(raised: BaseException, expected: type[BaseException]) -> None:
    model = xpnet.MLP([5, 7, 3], device=Failing(3, raised))
    with pytest.raises(expected):
        xpnet.fit(model, (X, Y), epochs=2, batch_size=16)
