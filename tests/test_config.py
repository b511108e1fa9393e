"""The one schema of settings: file, flags, defaults, and the record that a run keeps."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from xpnet import specs
from xpnet.errors import ConfigError
from xpnet.optim import SGD, AdamW
from xpnet.runs.config import TrainConfig, read_toml, resolve
from xpnet.schedules import Cosine, Step

# One value per setting that is not its default.
OTHER: dict[str, Any] = {
    "data": 'my "best" set\\é\n.npz', "data_dir": "/data", "labels": "y.npy", "target": "price", "task": "regression",
    "valid": "v.npz", "valid_fraction": 0.25, "test": "t.npz", "hidden": [300, 100], "activation": "relu,tanh",
    "output_activation": "tanh", "dropout": [0.1, 0.2], "input_dropout": 0.1, "input_noise": 1e-05,
    "init": "normal:0.01", "bias": -0.5, "loss": "huber:2", "label_smoothing": 0.1, "class_weight": "balanced",
    "l1": 1e-07, "l2": 0.001, "max_norm": 3.0, "clip_norm": 1.0, "clip_value": 0.5, "optimizer": "sgd:nesterov=true",
    "lr": 0.1, "momentum": 0.9, "schedule": "step:every=5", "warmup": 0.1, "epochs": 7, "batch_size": 8,
    "patience": 3, "min_delta": 0.01, "monitor": "valid_loss", "seed": 2**63, "dtype": "float64", "statistics": True,
    "precision": "float64", "capture": False, "test_fraction": 0.0, "categorical": ["zip, old", "class"],
    "ignore": ["name"], "weight": "n", "max_categories": 9, "impute": "mean", "missing_indicator": False,
    "standardize": False,
    "scale_target": False, "decimal": ",", "missing_values": ["-"], "drop_missing_target": True,
    "device": "auto", "threads": 2, "autotune": True, "save_every": 5, "log": ["csv", "tensorboard"],
}  # fmt: skip


def test_every_setting_survives_a_file(tmp_path: Path) -> None:
    assert set(OTHER) == {f.name for f in fields(TrainConfig)}
    config = TrainConfig(**OTHER)
    assert all(getattr(config, k) == v != getattr(TrainConfig(), k) for k, v in OTHER.items())
    for c in (config, TrainConfig()):
        (tmp_path / "c.toml").write_text(c.to_toml(), encoding="utf-8")
        assert resolve(tmp_path / "c.toml", {}) == c
        assert resolve(tmp_path / "c.toml", {}).to_toml() == c.to_toml()


def test_flags_overrule_the_file_which_overrules_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("lr = 0.5\nbatch-size = 32\n")
    config = resolve(tmp_path / "c.toml", {"lr": 0.25})
    assert (config.lr, config.batch_size, config.epochs) == (0.25, 32, None)
    assert read_toml(tmp_path / "c.toml") == {"lr": 0.5, "batch_size": 32}


def test_lists_may_be_written_as_one_value_and_reals_as_whole_numbers() -> None:
    config = TrainConfig(hidden=500, dropout=0, l2=1)  # type: ignore[arg-type]
    assert (config.hidden, config.dropout, config.l2) == ([500], [0.0], 1.0)
    assert isinstance(config.l2, float)


def test_defaults_are_not_shared() -> None:
    TrainConfig().ignore.append("a")
    assert TrainConfig().ignore == []


def test_auto_leaves_a_setting_to_the_data_also_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('epochs = 7\nhidden = [8]\nl2 = "auto"\n')
    config = resolve(tmp_path / "c.toml", {"hidden": "auto"})
    assert (config.epochs, config.hidden, config.l2) == (7, None, None)
    assert 'hidden = "auto"' in config.to_toml() and "epochs = 7" in config.to_toml()


def test_optimizer_and_schedule() -> None:
    config = TrainConfig(
        optimizer="adamw:weight-decay=0.05", lr=0.01, schedule="cosine:floor=0.1", warmup=0.2
    )
    assert config.get_optimizer() == AdamW(lr=0.01, weight_decay=0.05)
    assert config.get_schedule() == Cosine(floor=0.1, warmup=0.2)
    assert TrainConfig(optimizer="nesterov").get_optimizer() == SGD(momentum=0.9, nesterov=True)
    assert TrainConfig(schedule="step:every=5,factor=0.5").get_schedule() == Step(every=5, factor=0.5)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("adam", ("adam", {})),
        (" sgd : momentum = 0.5 , nesterov = True ", ("sgd", {"momentum": 0.5, "nesterov": True})),
        ("a:x-y=-3", ("a", {"x_y": -3})),
        ("a:x=1e-3", ("a", {"x": 0.001})),
    ],
)
def test_specs(spec: str, expected: Any) -> None:
    assert specs.options("optimizer", spec) == expected


@pytest.mark.parametrize("spec", ["a:", "a:b", "a:=1", "a:b=", "a:b=c", "a:b=1,"])
def test_bad_specs(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"expected key=value|is not a number, true or false"):
        specs.options("optimizer", spec)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 2.0}, "epochs must be a whole number, found 2.0"),
        ({"statistics": 1}, "statistics must be true or false, found 1"),
        ({"data": 3}, "data must be a text, found 3"),
        ({"seed": None}, "seed needs a value"),
        ({"l1": float("inf")}, "l1 must be a finite number, found inf"),
        ({"dtype": "float46"}, "unknown dtype 'float46'; did you mean 'float64'"),
        ({"dropout": [0.1, "a"]}, "dropout must be a number, found 'a'"),
    ],
)
def test_wrong_types(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**settings)
    assert words in str(caught.value)


def test_precision_and_dtype_fit(tmp_path: Path) -> None:
    assert TrainConfig(precision="float64").dtype == "float64"
    assert TrainConfig(precision="bf16").dtype == TrainConfig(precision="tf32").dtype == "float32"
    with pytest.raises(ConfigError, match="precision 'bf16' does not fit dtype 'float64'"):
        TrainConfig(precision="bf16", dtype="float64")
    with pytest.raises(ConfigError, match="precision 'float64' does not fit dtype 'float32'"):
        resolve(None, {"precision": "float64", "dtype": "float32"})
    with pytest.raises(ConfigError, match="unknown precision 'fp8'"):
        TrainConfig(precision="fp8")


def test_a_flag_for_the_one_overrules_the_other_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('dtype = "float32"\nprecision = "float32"\n')
    assert resolve(tmp_path / "c.toml", {"dtype": "float64"}).dtype == "float64"
    assert resolve(tmp_path / "c.toml", {"precision": "float64"}).dtype == "float64"
    (tmp_path / "c.toml").write_text('dtype = "float64"\nprecision = "float64"\n')
    assert resolve(tmp_path / "c.toml", {"precision": "bf16"}).dtype == "float32"
