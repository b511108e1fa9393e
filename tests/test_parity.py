"""Devices side by side: equal where nothing differs, and every difference seen and measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from tests.command import xp
from xpnet import parity
from xpnet.backend import Backend
from xpnet.backend.cpu import CpuBackend
from xpnet.data import Dataset
from xpnet.errors import ConfigError, DeviceError
from xpnet.runs.config import TrainConfig
from xpnet.schedules import get_schedule

RNG = np.random.default_rng(0)
Y = np.arange(120) % 3
X = (RNG.normal(size=(120, 5)) + 2 * Y[:, None]).astype(np.float32)
DATA = Dataset("d", X, Y, None, None, (5,), ("a", "b", "c"), 1.0)
CONFIG: dict[str, Any] = {
    "hidden": [9, 7],
    "dropout": 0.2,
    "epochs": 3,
    "batch_size": 16,
    "schedule": "cosine",
}


def compare(devices: str, **settings: Any) -> list[dict[str, Any]]:
    return parity.compare_devices(TrainConfig(**{**CONFIG, **settings}), devices.split(","), data=DATA)


def trainer(be: Any = "cpu", **options: Any) -> xpnet.Trainer:
    model = xpnet.MLP([5, 9, 3], dropout=0.2, seed=1, device=be)
    return xpnet.Trainer(model, (X, Y), **{"epochs": 3, "batch_size": 16, **options})


def test_the_same_device_twice_is_equal_to_the_bit() -> None:
    records = parity.compare({"a": trainer(), "b": trainer()}, X)
    assert [r["epoch"] for r in records] == [0, 1, 2, 3]
    assert all(r["identical"] and r["agreement"] == 1.0 for r in records)
    assert all(r["weights_max_abs"] == r["weights_relative"] == r["outputs_max_abs"] == 0.0 for r in records)


def test_going_in_step_changes_nothing() -> None:
    validation = (X[::2], Y[::2])
    schedule = get_schedule("cosine")
    one = trainer(validation=validation, schedule=schedule)
    parity.compare({"a": one, "b": trainer(validation=validation, schedule=schedule)}, X)
    alone = trainer(validation=validation, schedule=schedule, restore_best=False)
    alone.run()
    assert np.array_equal(one.latest_weights(), alone.latest_weights())
    drop = ("seconds", "samples_per_second")
    assert [{k: v for k, v in r.items() if k not in drop} for r in one.history] == [
        {k: v for k, v in r.items() if k not in drop} for r in alone.history
    ]
    assert np.array_equal(one.model.outputs(X), alone.model.outputs(X))


@pytest.mark.parametrize("other", ["numba", "reference"])
@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-5), ("float64", 1e-13)])
def test_devices_agree_to_rounding(other: str, dtype: str, limit: float) -> None:
    if other == "numba":
        pytest.importorskip("numba")
    # without capture Numba has less to compile
    records = compare(f"cpu,{other}", dtype=dtype, capture=other != "numba")
    assert records[0]["identical"] and records[0]["loss"] is None
    for record in records[1:]:
        assert record["weights_relative"] < limit and record["loss_difference"] < limit
        assert record["valid_loss_difference"] < limit and record["agreement"] == 1.0
        assert record["loss"] > 0.0 and record["seconds"] > 0.0 and record["base_seconds"] > 0.0
    assert records[-1]["weights_max_abs"] > 0.0, "no rounding at all: was anything computed?"


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "limit"), [("float32", 1e-3), ("float64", 1e-10), ("tf32", 0.05), ("bf16", 0.3)]
)
def test_cuda_agrees_with_the_cpu(precision: str, limit: float) -> None:
    dtype = "float64" if precision == "float64" else "float32"
    try:
        records = compare(f"cpu,cuda@{precision}", dtype=dtype)
    except DeviceError as error:
        pytest.skip(str(error))
    assert records[0]["identical"]
    assert all(r["weights_relative"] < limit for r in records)


class Coarse(CpuBackend):
    """A device whose products are rounded to half precision."""

    def matmul(self, a: Any, b: Any, *, ta: bool = False, tb: bool = False, out: Any) -> Any:
        a = (a.swapaxes(-1, -2) if ta else a).astype(np.float16)
        b = (b.swapaxes(-1, -2) if tb else b).astype(np.float16)
        out[...] = np.matmul(a, b)
        return out

    def capture(self, fn: Any) -> Any:
        return Backend.capture(self, fn)


class Shuffled(CpuBackend):
    """A device that draws other masks."""

    def uniform(self, out: Any, *, seeds: Any, stream: int, counter: Any) -> Any:
        return super().uniform(out, seeds=seeds, stream=stream + 1, counter=counter)


@pytest.mark.parametrize(("kind", "least"), [(Coarse, 1e-5), (Shuffled, 1e-3)])
def test_a_device_that_computes_something_else_is_seen(kind: type[CpuBackend], least: float) -> None:
    records = parity.compare({"right": trainer(), "wrong": trainer(kind())}, X)
    assert records[0]["weights_relative"] == 0.0
    assert all(r["weights_relative"] > least and r["outputs_max_abs"] > least for r in records[1:])


def test_numbers_are_worked_out_by_hand() -> None:
    a, b = trainer(epochs=0), trainer(epochs=0)
    b.model.weights[...] = 0.0
    weights = {k: v.copy() for k, v in a.model.get_weights().items()}
    (record,) = parity.compare({"a": a, "b": b}, X)
    assert record["weights_max_abs"] == pytest.approx(max(np.abs(w).max() for w in weights.values()))
    assert record["weights_relative"] == 1.0
    assert record["outputs_max_abs"] == pytest.approx(np.abs(a.model.outputs(X)).max())
    assert record["agreement"] == pytest.approx((a.model.predict(X) == 0).mean())


def test_a_regression_and_a_population() -> None:
    y = X @ np.arange(5.0)
    pair = {}
    for name in "ab":
        model = xpnet.MLP([5, 6, 1], n_models=2, seed=0)
        pair[name] = xpnet.Trainer(model, (X, y), task="regression", epochs=1)
    records = parity.compare(pair, X)
    assert [r["agreement"] for r in records] == [None, None] and records[-1]["identical"]


def test_it_ends_when_one_stops_early() -> None:
    pair = {n: trainer(epochs=50, patience=2, min_delta=10.0) for n in "ab"}
    assert parity.compare(pair, X)[-1]["epoch"] == 3


@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu", "cpu,", ""])
def test_two_devices_are_needed(devices: str) -> None:
    with pytest.raises(ConfigError, match="two or more different devices"):
        compare(devices)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ConfigError, match="two trainers"):
        parity.compare({"a": trainer()}, X)
    with pytest.raises(ConfigError, match="differ in their networks or their epochs"):
        parity.compare({"a": trainer(), "b": trainer(epochs=4)}, X)
    with pytest.raises(ConfigError, match="precision 'bf16' needs CUDA"):
        compare("cpu,numba@bf16")
    with pytest.raises(ConfigError, match="the reference computes in the dtype"):
        compare("cpu,reference@bf16")
    with pytest.raises(ConfigError, match="unknown device 'gpu'"):
        compare("cpu,gpu")


# --- the command ------------------------------------------------------------------------------------
@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.savez("d.npz", x=X, y=Y)
    return tmp_path


SETTINGS = ("--data", "d.npz", "--hidden", "9", "--epochs", "2", "--batch-size", "16")


def test_the_table_and_the_record_say_the_same(file: Path) -> None:
    lines = xp("compare", "--devices", "cpu,reference", *SETTINGS).stdout.splitlines()
    document = json.loads(xp("compare", "--devices", "cpu,reference", *SETTINGS, "--json").stdout)
    assert document["devices"] == ["cpu", "reference"] and len(document["records"]) == 3
    assert lines[0].split()[0] == "epoch" and lines[1].endswith("every bit equal")
    for shown, record in zip(lines[1:], document["records"], strict=True):
        assert shown.startswith(f"{record['epoch']:5}     reference")
        assert f"{record['weights_relative']:.2e}" in shown and f"{record['agreement']:.2%}" in shown
    assert [p.name for p in file.iterdir()] == ["d.npz"], "a comparison writes nothing"


def test_a_tolerance_decides_the_exit_code(file: Path) -> None:
    assert xp("compare", "--devices", "cpu,reference", *SETTINGS, "--tolerance", "1e-3").stderr == ""
    shown = xp("compare", "--devices", "cpu,reference", *SETTINGS, "--tolerance", "0", code=1)
    assert "weights of reference differ from those of cpu by more than 0" in shown.stderr


def test_settings_come_from_a_file_too(file: Path) -> None:
    Path("c.toml").write_text('data = "d.npz"\nhidden = [4]\nepochs = 1\nprecision = "float64"\n')
    document = json.loads(xp("compare", "--devices", "cpu,reference", "--config", "c.toml", "--json").stdout)
    assert len(document["records"]) == 2 and document["records"][-1]["weights_relative"] < 1e-13


def test_the_data_may_be_named_as_train_has_them_named(file: Path) -> None:
    arguments = ("--devices", "cpu,reference", *SETTINGS[2:], "--json")
    named = json.loads(xp("compare", "d.npz", *arguments).stdout)["records"]
    assert named[-1]["weights_max_abs"] > 0.0  # something was trained
    as_option = json.loads(xp("compare", "--data", "d.npz", *arguments).stdout)["records"]
    assert [r["weights_max_abs"] for r in named] == [r["weights_max_abs"] for r in as_option]
    assert "the data are named twice" in xp("compare", "d.npz", *SETTINGS, *arguments[:2], code=2).stderr
