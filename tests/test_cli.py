"""The command from end to end: what it writes, what it prints, and what it leaves alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

import xpnet
from tests.command import as_if_older, xp
from xpnet import checkpoint, metrics, plots
from xpnet.cli import commands, main
from xpnet.data import Preprocessing, stratified_split
from xpnet.runs import environment
from xpnet.runs.config import TrainConfig, read_toml
from xpnet.runs.folder import FIGURES, SCALING, RunFolder
from xpnet.train import Trainer

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)
Y = np.arange(60) % 3
X = RNG.normal(size=(60, 4)) + 2 * Y[:, None]
FAST = ["--hidden", "6", "--epochs", "2", "--batch-size", "16"]


pytestmark = pytest.mark.usefixtures("elsewhere")


def train(*arguments: Any, out: str = "run") -> dict[str, Any]:
    """Train quickly and return result.json."""
    xp("train", *FAST, *arguments, "--out", out, "--quiet")
    result: dict[str, Any] = json.loads(Path(out, "result.json").read_text())
    return result


def files(folder: str | Path = ".") -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


# --- the run folder -----------------------------------------------------------------------------
RUN = [
    "config.toml",
    "environment.json",
    "last/state.safetensors",
    "metrics.jsonl",
    "model.safetensors",
    "result.json",
]


def test_the_run_folder_is_complete_and_nothing_is_outside_it() -> None:
    shown = xp("train", *FAST).stdout
    assert files() == [f"runs/digits-1/{name}" for name in RUN]
    run = Path("runs/digits-1")
    records = RunFolder(run).metrics()
    assert [list(r) for r in records] == 2 * [
        ["epoch", "step", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "lr", "seconds",
         "samples_per_second"]
    ]  # fmt: skip
    assert [r["epoch"] for r in records] == [1, 2] and records[1]["step"] == 2 * 81
    result = json.loads((run / "result.json").read_text())
    assert list(result) == [
        "test_loss", "test_accuracy", "valid_loss", "valid_accuracy", "best_epoch", "epochs", "stopped", "steps",
        "seconds", "parameters", "device", "backend", "dtype", "precision", "capture", "seed",
        "tested_sha256", "weights_sha256", "last_weights_sha256",
    ]  # fmt: skip
    assert result["epochs"] == 2 and result["parameters"] == 64 * 6 + 6 + 6 * 10 + 10
    environment = json.loads((run / "environment.json").read_text())
    assert {"xpnet", "python", "numpy", "platform", "blas", "command", "started"} <= set(environment)
    model = xpnet.load(run / "model.safetensors")
    assert checkpoint.weights_sha256(model.get_weights()) == result["weights_sha256"]
    assert model.preprocessing is not None and model.preprocessing.sample_shape == (8, 8)
    # what a person sees
    assert "digits, 1294 training, 144 validation, 359 test examples" in shown
    assert "64-6-10 relu, 460 parameters, float32, numpy on cpu, seed 0 -> runs/digits-1" in shown
    assert f"test accuracy {result['test_accuracy']:.2%}" in shown
    assert "run folder runs/digits-1" in shown.splitlines()[-1]


@pytest.mark.parametrize(("options", "expected"), [((), 1), (("--threads", 2), 2)])
def test_the_environment_counts_the_threads_of_training(
    options: tuple[Any, ...], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    end_epoch = Trainer._end_epoch

    def look(trainer: Trainer) -> None:
        seen.append(environment.blas())
        end_epoch(trainer)

    monkeypatch.setattr(Trainer, "_end_epoch", look)
    train("--hidden", 8, *options)
    recorded = json.loads(Path("run", "environment.json").read_text())["blas"]
    assert seen == [recorded, recorded]
    if recorded and recorded[0]["internal_api"] in ("openblas", "mkl"):
        assert {pool["num_threads"] for pool in recorded} == {expected}


def test_the_environment_counts_the_threads_of_compiled_steps() -> None:
    pytest.importorskip("numba", reason="only its back end has threads of its own")
    train("--hidden", 8, "--device", "numba", "--threads", 2)
    assert json.loads(Path("run", "environment.json").read_text())["threads"] == 2
    train("--hidden", 8, out="other")
    assert "threads" not in json.loads(Path("other", "environment.json").read_text())


def test_config_toml_holds_what_was_left_to_defaults() -> None:
    train()
    config = TrainConfig(**read_toml("run/config.toml"))
    assert (config.task, config.loss, config.lr, config.monitor) == (
        "classification", "softmax_cross_entropy", 0.001, "valid_accuracy",
    )  # fmt: skip
    assert (config.hidden, config.epochs, config.batch_size, config.seed) == ([6], 2, 16, 0)
    first = json.loads(Path("run/result.json").read_text())
    xp("train", "--config", "run/config.toml", "--out", "again", "--quiet")
    again = json.loads(Path("again/result.json").read_text())
    assert again["last_weights_sha256"] == first["last_weights_sha256"]
    assert Path("again/config.toml").read_text() == Path("run/config.toml").read_text()


def test_runs_are_numbered() -> None:
    for _ in range(2):
        xp("train", *FAST, "--quiet")
    assert sorted(os.listdir("runs")) == ["digits-1", "digits-2"]


def test_overwrite_replaces_a_run_and_nothing_else() -> None:
    train()
    Path("run/notes.txt").write_text("mine")
    Path("run/plots").mkdir()
    Path("run/plots/curves.png").write_text("of the old run")
    xp("train", *FAST, "--out", "run", code=2)
    xp("train", *FAST, "--epochs", "1", "--out", "run", "--overwrite", "--quiet")
    assert files("run") == sorted([*RUN, "notes.txt"])
    assert len(RunFolder("run").metrics()) == 1


def test_json_is_the_last_line_and_quiet_is_quiet() -> None:
    done = xp("train", *FAST, "--out", "run", "--json")
    result = json.loads(Path("run/result.json").read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == result
    quiet = xp("train", *FAST, "--out", "quiet", "--json", "--quiet")
    assert len(quiet.stdout.splitlines()) == 1 and quiet.stderr == ""
    assert json.loads(quiet.stdout)["weights_sha256"] == result["weights_sha256"]
    silent = xp("train", *FAST, "--out", "silent", "--quiet")
    assert silent.output == ""


def test_a_run_on_a_file_is_used_and_continued_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, option in (("npz", ()), ("csv", ("--task", "classification"))):
        here = tmp_path / kind
        here.mkdir()
        monkeypatch.chdir(here)
        if kind == "npz":
            np.savez("d.npz", x=X, y=Y, x_test=X[:9], y_test=Y[:9])
        else:
            rows = "\n".join(",".join(map(str, [*row, label])) for row, label in zip(X, Y, strict=True))
            Path("d.csv").write_text(f"a,b,c,d,y\n{rows}\n")
        file = f"d.{kind}"
        result = train(file, "--schedule", "constant", *option)
        monkeypatch.chdir("/")
        assert json.loads(xp("evaluate", here / "run", "--json").stdout)["loss"] == result["test_loss"]
        xp("train", "--resume", here / "run", "--epochs", 3, "--quiet")
        # the file moves
        (here / "new").mkdir()
        (here / file).rename(here / "new" / file)
        gone = xp("evaluate", here / "run", code=1).stderr
        assert f"{here / file}: no such file, but" in gone and f"--resume {here / 'run'} --data FILE" in gone
        assert "has moved" in xp("train", "--resume", here / "run", "--epochs", 4, code=1).stderr
        xp("train", "--resume", here / "run", "--data", here / "new" / file, "--quiet")
        result = json.loads((here / "run/result.json").read_text())
        assert json.loads(xp("evaluate", here / "run", "--json").stdout)["loss"] == result["test_loss"]
        # another file of that name is not taken for it
        if kind == "npz":
            np.savez(here / "other.npz", x=X[::-1], y=Y)
            done = xp("train", "--resume", here / "run", "--epochs", 5, "--data", here / "other.npz", code=1)
            assert "cannot continue" in done.stderr


@pytest.mark.parametrize("kind", ["csv", "npz"])
@pytest.mark.parametrize("change", ["shuffled", "cut"])
def test_a_run_is_not_judged_by_the_rest_of_other_data(kind: str, change: str) -> None:
    def write(rows: np.ndarray) -> None:
        if kind == "npz":
            np.savez("d.npz", x=X[rows], y=Y[rows])
            return
        lines = [",".join(map(str, (*X[i].tolist(), f"c{Y[i]}"))) for i in rows]
        Path("d.csv").write_text("\n".join(["a,b,c,d,y", *lines, ""]))

    write(np.arange(60))
    train(f"d.{kind}", "--test-fraction", 0.2)
    for command in ("evaluate", "plot", "report"):
        xp(command, "run")
    write(RNG.permutation(60) if change == "shuffled" else np.arange(50))
    refusal = f"d.{kind} no longer holds what run was trained on"
    for command in ("evaluate", "plot"):
        said = xp(command, "run", code=1).stderr
        assert refusal in said and "evaluate run --data FILE" in said
    xp("report", "run")
    assert refusal in Path("run/report.html").read_text()
    xp("evaluate", "run", "--data", f"d.{kind}")
    Path("run/last/state.safetensors").unlink()  # then nobody knows
    xp("evaluate", "run")


@pytest.mark.parametrize("kind", ["csv", "npz", "own test file"])
def test_a_test_that_has_changed_since_is_said(kind: str) -> None:
    path = Path("d.npz" if kind == "npz" else "d.csv").absolute()
    tested = stratified_split(Y, 0.3, seed=0)[1]  # as --test-fraction 0.3 holds them out

    def write(path: Path, shift: float) -> None:
        x = X.copy()
        x[tested[:3]] += shift
        if kind == "npz":
            np.savez(path, x=X, y=Y, x_test=x[tested], y_test=Y[tested])
            return
        lines = [",".join(map(str, (*row, f"c{y}"))) for row, y in zip(x.tolist(), Y, strict=True)]
        path.write_text("\n".join(["a,b,c,d,y", *lines, ""]))

    write(path, 0.0)
    if kind == "own test file":
        write(Path("first.csv"), 0.0)
        train("first.csv", "--test", path)
    else:
        train(path, *(("--test-fraction", 0.3) if kind == "csv" else ()))
    assert xp("evaluate", "run").stderr == ""
    write(path, 0.5)
    said = f"note: {path} has changed since run was trained: it was trained on the same rows, but tested on others"
    for command in ("evaluate", "plot"):
        assert xp(command, "run").stderr.startswith(said)
    assert said in xp("train", "--resume", "run", "--epochs", 3).stderr
    assert xp("evaluate", "run").stderr == ""  # result.json is about those of now
    result = json.loads(Path("run/result.json").read_text())
    del result["tested_sha256"]  # as in a run of an older xpnet
    Path("run/result.json").write_text(json.dumps(result))
    write(path, 0.0)
    assert xp("evaluate", "run").stderr == ""


# --- what is learned of arrays --------------------------------------------------------------------
def test_several_labels_of_each_sample() -> None:
    y = (X[:, :3] > [0.0, 1.0, 2.0]).astype(int)
    np.savez("d.npz", x=X, y=y, x_test=X[:20], y_test=y[:20], names=np.array(["a"]))
    done = xp("train", "d.npz", "--task", "multilabel", "--l2", 0, "--lr", 0.03, "--out", "run")
    assert "note: d.npz: arrays that are not used: names" in done.stderr
    result = json.loads(Path("run/result.json").read_text())
    assert result["test_accuracy"] > 0.9 and RunFolder("run").config().loss == "binary_cross_entropy"
    model = xpnet.load("run/model.safetensors")
    assert model.task == "multilabel" and model.unsmoothing is None
    assert json.loads(xp("evaluate", "run", "--json").stdout)["loss"] == result["test_loss"]
    assert json.loads(xp("evaluate", "run", "--data", "d.npz", "--json").stdout)["accuracy"] > 0.9
    np.save("new.npy", X[:2])
    answers = [
        json.loads(line)["values"] for line in xp("predict", "run", "new.npy", "--json").stdout.splitlines()
    ]
    assert answers == model.predict(X[:2]).tolist()
    assert "was trained for multilabel" in xp("predict", "run", "new.npy", "--top", 2, code=2).stderr
    xp("report", "run")
    xp("train", "--resume", "run", "--epochs", 201, "--quiet")


def test_one_hot_rows_are_class_labels() -> None:
    np.savez("d.npz", x=X, y=np.eye(3)[Y])
    done = xp("train", "d.npz", *FAST, "--out", "run")
    assert "d.npz: y holds one-hot rows, which are taken for labels 0 to 2" in done.stderr
    np.savez("e.npz", x=X, y=Y)
    xp("train", "e.npz", *FAST, "--out", "same")
    one, other = (xpnet.load(f"{run}/model.safetensors").get_weights() for run in ("run", "same"))
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("loss", ["poisson", "quantile:0.9", "huber"])
def test_a_loss_for_numbers_decides_the_task(loss: str) -> None:
    counts = RNG.poisson(3.0, size=60)
    Path("d.csv").write_text(
        "a,y\n" + "\n".join(f"{x},{y}" for x, y in zip(X[:, 0], counts, strict=True)) + "\n"
    )
    np.savez("d.npz", x=X, y=counts)
    for name in ("d.csv", "d.npz"):
        done = xp("train", name, *FAST, "--loss", loss, "--out", "run", "--overwrite")
        assert (
            "note: regression, since the " in done.stderr and RunFolder("run").config().task == "regression"
        )


# --- features of arrays ---------------------------------------------------------------------------
def test_features_of_arrays_are_standardised_and_answers_take_raw_ones() -> None:
    large = X * [1e4, 1.0, 1e-3, 50.0] + [1e5, 0.0, 7.0, -3.0]
    np.savez("d.npz", x=large, y=Y, x_test=large[:30], y_test=Y[:30])
    assert train("d.npz", "--hidden", "auto", "--epochs", 30)["test_accuracy"] > 0.9
    recipe = xpnet.load("run/model.safetensors").preprocessing
    assert recipe is not None
    z = recipe(large, "float64")
    assert abs(z.mean(axis=0)).max() < 1e-6 and z.std(axis=0).min() > 0.8 and z.std(axis=0).max() < 1.2
    np.save("new.npy", large[:9])
    answers = [json.loads(line) for line in xp("predict", "run", "new.npy", "--json").stdout.splitlines()]
    assert [int(a["predictions"][0]["class"]) for a in answers] == Y[:9].tolist()
    assert train("d.npz", "--no-standardize", out="raw")["test_accuracy"] < 0.9
    assert xpnet.load("raw/model.safetensors").preprocessing == Preprocessing((4,))


def test_features_far_from_zero_are_told_apart_as_those_of_tables_are() -> None:
    x = 1.7e9 + 50.0 * RNG.normal(size=(400, 1))
    np.savez("d.npz", x=x, y=(x[:, 0] > 1.7e9).astype(int))
    assert train("d.npz", "--hidden", 16, "--epochs", 40, "--test-fraction", 0.2)["test_accuracy"] > 0.95


def test_pictures_of_real_numbers_have_one_scale_and_those_of_bytes_their_own() -> None:
    pictures = RNG.normal(size=(60, 3, 3)) * 40 + 100
    np.savez("d.npz", x=pictures, y=Y)
    train("d.npz")
    recipe = xpnet.load("run/model.safetensors").preprocessing
    assert recipe is not None and isinstance(recipe.scale, float) and 0.02 < recipe.scale < 0.03
    np.savez("b.npz", x=np.clip(pictures, 0, 255).astype(np.uint8), y=Y)
    train("b.npz", "--standardize", out="bytes")
    assert xpnet.load("bytes/model.safetensors").preprocessing == Preprocessing((3, 3), 1 / 255)


def test_small_whole_numbers_of_one_axis_are_features_and_of_several_pixels() -> None:
    for kind in ("uint16", "int32"):
        np.savez(f"{kind}.npz", x=(X * 100 + 1000).astype(kind), y=Y)
        train(f"{kind}.npz", out=kind)
    one, other = (xpnet.load(f"{kind}/model.safetensors").preprocessing for kind in ("uint16", "int32"))
    assert one == other and isinstance(one.scale, np.ndarray)
    deep = RNG.integers(0, 4096, (60, 3, 3)).astype(np.uint16)
    deep[0, 0, 0] = 4095
    np.savez("deep.npz", x=deep, y=Y)
    train("deep.npz", out="deep")
    assert xpnet.load("deep/model.safetensors").preprocessing == Preprocessing((3, 3), 1 / 4095)


@pytest.mark.parametrize(
    "command", ["train d.npz", "train", "compare --devices cpu,numba", "sweep --grid lr=1,2"]
)
@pytest.mark.parametrize("flag", ["--impute median", "--missing-indicator", "--max-categories 50"])
def test_settings_of_tables_are_refused_elsewhere_also_where_they_say_the_default(
    command: str, flag: str
) -> None:
    np.savez("d.npz", x=X, y=Y)
    name = flag.split()[0].removeprefix("--").replace("-", "_")
    assert f"{name} is a setting for tables" in xp(*command.split(), *flag.split(), code=2).stderr


def test_a_run_that_took_numbers_as_they_are_goes_on_so(monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez("d.npz", x=X * 3 + 1, y=Y)
    options = ("d.npz", "--schedule", "constant", "--no-standardize")
    train(*options, out="whole")
    xp("train", *FAST, *options, "--epochs", 1, "--out", "old", "--quiet")
    as_if_older("old", SCALING, "standardize")
    xp("train", "--resume", "old", "--epochs", 2, "--quiet")
    whole, old = (json.loads(Path(f, "result.json").read_text()) for f in ("whole", "old"))
    assert whole["last_weights_sha256"] == old["last_weights_sha256"]
    assert not RunFolder("old").config().standardize


# --- errors ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train --epocs 3", "no such option"),
        ("train --epocs 3", "--epochs"),
        ("train --epochs abc", "'abc' is not a valid integer"),
        ("train --epochs", "requires an argument"),
        ("train --hidden 10;20", "expected whole numbers such as 500 or 300,100"),
        ("train a.csv b.csv", "unexpected extra argument (b.csv)"),
        ("predict run", "missing argument"),
        ("export run --format x", "is not one of 'onnx', 'torch'"),
        ("experiment run --languag zh", "no such option"),
        ("--verison", "no such option"),
        ("", ""),
    ],
)
def test_usage_errors_are_one_line_that_says_where_to_look(command: str, words: str) -> None:
    if not command:
        assert "Commands:" in xp(code=2).output  # nothing was asked for: the help
        return
    done = xp(*command.split(), code=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("xpnet: error: ") and words in line and done.stdout == ""
    name = command.split()[0]
    assert line.endswith("; see xpnet --help" if name.startswith("-") else f"; see xpnet {name} --help")


def test_a_missing_package_is_an_error_like_others(digits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, command in (
        ("onnx", "export run"),
        ("matplotlib.figure", "plot run"),
        ("tensorboard.compat.proto.event_pb2", "train --epochs 1 --log tensorboard --out other"),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            assert "pip install" in xp(*command.split(), code=1).stderr


def test_a_sweep_is_not_a_run_but_leads_to_one() -> None:
    options = ("sweep", "--grid", "lr=0.01,0.1", "--hidden", 4, "--epochs", 1, "--out", "s", "--quiet")
    xp(*options)
    for command in ("info", "plot", "evaluate", "report"):
        assert (
            "train its best into s/top-1 with: xpnet sweep --resume s --top 1"
            in xp(command, "s", code=1).stderr
        )
    xp("sweep", "--resume", "s", "--top", 1, "--quiet")
    assert "It holds a sweep, whose best run is s/top-1" in xp("evaluate", "s", code=1).stderr


@pytest.mark.parametrize("width", [2, 4])
def test_big_endian_numbers_are_those_of_this_machine(width: int) -> None:
    pixels = RNG.integers(0, 255, (60, 4)).astype(f"u{width}")
    np.savez("little.npz", x=pixels, y=Y)
    np.savez("big.npz", x=pixels.astype(f">u{width}"), y=Y.astype(">i8"))
    assert train("little.npz", out="a")["weights_sha256"] == train("big.npz", out="b")["weights_sha256"]


def test_parts_of_one_file_that_would_be_scaled_differently_are_refused() -> None:
    pixels = RNG.integers(0, 255, (60, 4)).astype(np.uint8)
    np.savez("d.npz", x=pixels, y=Y, x_test=pixels / 255, y_test=Y)
    said = xp("train", "d.npz", code=1).stderr
    assert "x_test holds float64 but x holds uint8, so they would be scaled differently" in said


def test_a_stream_that_is_closed_or_knows_no_such_letters_is_no_obstacle() -> None:
    rows = "\n".join(f"{x},{town}" for x, town in zip(X[:, 0], ["Zürich", "東京"] * 30, strict=True))
    Path("d.csv").write_text(f"größe,stadt\n{rows}\n", encoding="utf-8")
    call = shlex.join([sys.executable, "-m", "xpnet", "train", "d.csv", *FAST, "--out"])
    env = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    for out, end, more in (
        ("a", ">&-", {}), ("b", ">&- 2>&-", {}), ("c", "", {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    ):  # fmt: skip
        done = subprocess.run(
            f"{call} {out} {end}", shell=True, env=env | more, text=True, capture_output=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert Path(out, "result.json").is_file()
    assert r"gr\xf6\xdfe" in done.stdout and r"\u6771\u4eac" in done.stdout


def test_files_under_other_names_and_without_labels() -> None:
    Path("table.txt").write_text("a,b\n1,2\n")
    assert "if it is a table of text, rename it to table.csv" in xp("train", "table.txt", code=1).stderr
    np.save("x.npy", X)
    assert "--labels FILE" in xp("train", "x.npy", code=1).stderr


# --- settings -----------------------------------------------------------------------------------
def test_flags_overrule_the_file() -> None:
    Path("c.toml").write_text('hidden = [5]\nepochs = 1\nbatch-size = 50\nactivation = "tanh"\n')
    shown = xp("train", "--config", "c.toml", "--epochs", "3", "--print-config").stdout
    Path("full.toml").write_text(shown)
    config = read_toml("full.toml")
    assert (config["hidden"], config["epochs"], config["batch_size"]) == ([5], 3, 50)
    assert (config["activation"], config["optimizer"]) == ("tanh", "adam")
    assert xp("train", "--config", "full.toml", "--print-config").stdout == shown
    assert files() == ["c.toml", "full.toml"]


def test_a_linear_model_and_many_layers() -> None:
    assert train("--hidden", "none", out="linear")["parameters"] == 650
    assert xpnet.load("linear/model.safetensors").sizes == (64, 10)
    train("--hidden", "7,5", "--activation", "relu,tanh", "--dropout", "0.1,0.2", out="deep")
    assert xpnet.load("deep/model.safetensors").sizes == (64, 7, 5, 10)


def test_statistics_of_layers() -> None:
    train("--statistics")
    layers = RunFolder("run").metrics()[0]["layers"]
    assert [entry["layer"] for entry in layers] == ["0: dense 64->6 relu", "1: dense 6->10 identity"]
    train("--no-statistics", out="without")
    assert "layers" not in RunFolder("without").metrics()[0]


def test_auto_says_what_it_chose() -> None:
    assert "(chosen by --device auto: cpu)" in xp("train", *FAST, "--device", "auto").stdout


def test_early_stopping_says_so() -> None:
    shown = xp(
        "train", *FAST, "--epochs", "50", "--patience", "1", "--min-delta", "0.9", "--out", "run"
    ).stdout
    assert ", stopped early" in shown.splitlines()[-1]


# --- data of one's own --------------------------------------------------------------------------
def test_an_npz_with_all_three_parts() -> None:
    np.savez("d.npz", x=X, y=Y, x_valid=X[:9], y_valid=Y[:9], x_test=X[:12], y_test=Y[:12])
    shown = xp("train", *FAST, "--data", "d.npz", "--out", "run").stdout
    assert "d, 60 training, 9 validation, 12 test examples" in shown


def test_classes_that_training_has_not_are_said() -> None:
    np.savez("d.npz", x=X, y=Y, x_valid=X[:9], y_valid=Y[:9], x_test=X[:4], y_test=[0, 7, 2, 9])
    said = xp("train", *FAST, "--data", "d.npz", "--out", "run").stderr
    assert said == (
        "note: d.npz: y_test has classes that no sample to learn from has, so that they cannot be learnt: 7, 9\n"
    )


def test_validation_and_test_files() -> None:
    np.savez("d.npz", x=X, y=Y)
    np.savez("v.npz", x=X[:7], y=Y[:7])
    np.savez("t.npz", x=X[:5], y=Y[:5])
    shown = xp(
        "train", *FAST, "--data", "d.npz", "--valid", "v.npz", "--test", "t.npz", "--out", "run"
    ).stdout
    assert "60 training, 7 validation, 5 test examples" in shown
    scores = json.loads(xp("evaluate", "run", "--json").stdout)
    assert scores["data"] == "d (test, 5 examples)"


def test_no_validation_and_no_test() -> None:
    np.savez("d.npz", x=X, y=Y)
    result = train("--data", "d.npz", "--valid-fraction", "0")
    assert result["valid_loss"] is result["test_loss"] is result["best_epoch"] is None
    assert result["weights_sha256"] == result["last_weights_sha256"]
    assert "no test set; name one with --data" in xp("evaluate", "run", code=2).stderr


def test_labels_that_are_words_from_csv() -> None:
    names = np.array(["ant", "bee", "cat"])[Y]
    rows = "\n".join(f"{a},{b},{name}" for (a, b), name in zip(X[:, :2], names, strict=True))
    Path("d.csv").write_text(f"a,b,animal\n{rows}\n")
    train("--data", "d.csv", "--epochs", "20", "--lr", "0.05")
    Path("new.csv").write_text("a,b\n4,4\n0,0\n")
    answers = [
        json.loads(line)
        for line in xp("predict", "run", "new.csv", "--json", "--top", "3").stdout.splitlines()
    ]
    assert [a["name"] for a in answers] == ["new.csv[0]", "new.csv[1]"]
    assert answers[0]["predictions"][0]["class"] == "cat" and answers[1]["predictions"][0]["class"] == "ant"
    assert sum(p["probability"] for p in answers[0]["predictions"]) == pytest.approx(1)
    scores = json.loads(xp("evaluate", "run", "--data", "d.csv", "--json").stdout)
    assert scores["classes"] == ["ant", "bee", "cat"]
    assert np.sum(scores["confusion_matrix"]) == 60
    # fewer classes in another order of appearance are numbered as the model does
    Path("two.csv").write_text("a,b,animal\n4,4,cat\n0,0,ant\n")
    scores = json.loads(xp("evaluate", "run", "--data", "two.csv", "--json").stdout)
    assert scores["accuracy"] == 1.0 and scores["confusion_matrix"] == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_two_classes_with_one_output() -> None:
    np.savez("d.npz", x=X, y=Y > 0, x_test=X, y_test=Y > 0)
    train("--data", "d.npz", "--loss", "bce", "--epochs", "20", "--lr", "0.05")
    assert xpnet.load("run/model.safetensors").sizes == (4, 6, 1)
    scores = json.loads(xp("evaluate", "run", "--json").stdout)
    assert scores["accuracy"] > 0.8 and np.shape(scores["confusion_matrix"]) == (2, 2)


def test_hinge_gives_scores() -> None:
    np.savez("d.npz", x=X, y=Y, x_test=X, y_test=Y)
    train("--data", "d.npz", "--loss", "hinge")
    np.save("new.npy", X[:2])
    assert "(score " in xp("predict", "run", "new.npy").stdout
    assert "precision" in xp("evaluate", "run").stdout


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_regression(kind: str) -> None:
    t = X @ [1.0, 2.0, -1.0, 0.5]
    new = "csv" if kind == "csv" else "npy"
    if kind == "csv":
        rows = "\n".join(",".join(map(str, (*row, value))) for row, value in zip(X, t, strict=True))
        Path("d.csv").write_text(f"a,b,c,d,price\n{rows}\n")
    else:
        np.savez("d.npz", x=X, y=np.stack([t, -t], axis=1), x_test=X, y_test=np.stack([t, -t], axis=1))
    result = train("--data", f"d.{kind}", "--task", "regression", "--lr", "0.01", "--valid-fraction", "0.1")
    assert result["test_accuracy"] is None and np.isfinite(result["valid_loss"])
    scores = json.loads(xp("evaluate", "run", "--data", f"d.{kind}", "--json").stdout)
    assert (
        set(scores) == {"run", "data", "loss", "accuracy", "rmse", "mae", "r2"} and scores["accuracy"] is None
    )
    np.save("new.npy", X[:2])
    Path("new.csv").write_text("d,b,c,a\n1,2,3,4\n4,3,2,1\n")
    answers = [json.loads(line) for line in xp("predict", "run", f"new.{new}", "--json").stdout.splitlines()]
    assert [len(a["values"]) for a in answers] == 2 * [1 if kind == "csv" else 2]
    assert re.match(rf"new.{new}\[0\]: -?[\d.]+", xp("predict", "run", f"new.{new}").stdout)
    xp("plot", "run", "--data", f"d.{kind}")


# --- evaluate, predict, plot --------------------------------------------------------------------
@pytest.fixture
def digits() -> str:
    train("--hidden", "32", "--epochs", "8", "--lr", "0.01")
    return "run"


def test_evaluate_as_text_and_json(digits: str) -> None:
    result = json.loads(Path(digits, "result.json").read_text())
    scores = json.loads(xp("evaluate", digits, "--json").stdout)
    assert scores["loss"] == result["test_loss"] and scores["accuracy"] == result["test_accuracy"]
    matrix = np.array(scores["confusion_matrix"])
    assert matrix.sum() == 359 and np.trace(matrix) / 359 == pytest.approx(scores["accuracy"])
    assert [row["class"] for row in scores["report"]] == list("0123456789")
    shown = xp("evaluate", digits).stdout
    assert f"accuracy  {scores['accuracy']:.2%}" in shown and "confusion matrix (rows: true" in shown
    test, model = xpnet.data.load("digits"), xpnet.load(digits)
    sure = model.predict_proba(test.x_test).max(axis=1)
    assert scores["confidence"] == pytest.approx(sure.mean(dtype=np.float64), rel=1e-6)
    right = model.predict(test.x_test) == test.y_test
    assert scores["calibration_error"] == metrics.calibration(sure, right)["calibration_error"] > 0.0
    assert f"confidence {scores['confidence']:.2%} on average; calibration error" in shown
    by_file = json.loads(xp("evaluate", f"{digits}/model.safetensors", "--data", "digits", "--json").stdout)
    assert by_file["loss"] == scores["loss"]


def test_predict_arrays_pictures_and_folders(digits: str) -> None:
    image = pytest.importorskip("PIL.Image")
    data = xpnet.data.load("digits")
    assert data.x_test is not None
    x = data.x_test[:3]
    expected = xpnet.load("run/model.safetensors").predict(x)
    np.save("x.npy", x)
    lines = xp("predict", digits, "x.npy").stdout.splitlines()
    assert [re.match(r"x.npy\[\d\]: (\d) \([\d.]+%\)$", line)[1] for line in lines] == list(
        map(str, expected)
    )  # type: ignore[index]
    Path("photos/more").mkdir(parents=True)
    image.fromarray(x[0]).save("photos/a.png")
    image.fromarray(255 - x[1]).resize((40, 40)).save("photos/more/b.png")
    answers = [
        json.loads(line)
        for line in xp("predict", digits, "photos", "--json", "--top", "2").stdout.splitlines()
    ]
    assert [a["name"] for a in answers] == ["photos/a.png", "photos/more/b.png"]
    assert all(len(a["predictions"]) == 2 for a in answers)
    assert answers[0]["predictions"][0]["class"] == str(expected[0])
    inverted = xp("predict", digits, "photos/a.png", "--invert", "yes").stdout
    assert inverted != xp("predict", digits, "photos/a.png", "--invert", "no").stdout


def test_tones_of_pictures_are_those_that_the_model_learnt(digits: str) -> None:
    from PIL import Image

    rows = xpnet.data.load("digits").x_test[:8]
    for i, sample in enumerate(rows):
        Image.fromarray((sample * (255 / 16)).round().astype(np.uint8)).save(f"{i}.png")
    np.save("rows.npy", rows)
    pictures = xp("predict", digits, *(f"{i}.png" for i in range(8)), "--invert", "no", "--json").stdout
    arrays = xp("predict", digits, "rows.npy", "--json").stdout
    for one, other in zip(pictures.splitlines(), arrays.splitlines(), strict=True):
        (p,), (q,) = json.loads(one)["predictions"], json.loads(other)["predictions"]
        assert p["class"] == q["class"] and p["probability"] == pytest.approx(q["probability"], abs=0.02)


def test_pixels_that_were_scaled_already_are_noted() -> None:
    pixels = RNG.integers(0, 256, (60, 4, 4)).astype(np.uint8)
    np.savez("d.npz", x=pixels, y=Y)
    train("d.npz")
    said = "note: no pixel is above 1, but the model takes 0 to 255"
    for scale, noted in ((1.0, False), (1 / 255, True)):
        np.savez("other.npz", x=pixels * scale, y=Y)
        np.save("other.npy", pixels * scale)
        assert xp("evaluate", "run", "--data", "other.npz").stderr.startswith(said) == noted
        assert xp("predict", "run", "other.npy").stderr.startswith(said) == noted
    np.savez("features.npz", x=RNG.uniform(0, 1, (60, 4)), y=Y)
    train("features.npz", out="features")
    assert xp("evaluate", "features", "--data", "features.npz").stderr == ""


@pytest.mark.parametrize("option", ["--standardize", "--no-standardize"])
@pytest.mark.parametrize("dtype", ["float64", "uint8", "bool"])
def test_pictures_for_a_model_of_tones_in_0_to_1(dtype: str, option: str) -> None:
    from PIL import Image

    x = RNG.uniform(0, 1, (60, 4, 4))
    x = x if dtype == "float64" else (x > 0.5).astype(dtype)
    np.savez("d.npz", x=x, y=Y)
    train("d.npz", option)
    sample = np.linspace(0, 1, 16).reshape(4, 4)
    np.save("a.npy", sample[None])
    Image.fromarray((sample * 255).round().astype(np.uint8)).save("a.png")
    said = [xp("predict", "run", f, "--invert", "no", "--json").stdout for f in ("a.npy", "a.png")]
    (p,), (q,) = (json.loads(line)["predictions"] for line in said)
    assert p["class"] == q["class"] and p["probability"] == pytest.approx(q["probability"], abs=1e-4)


@pytest.mark.parametrize(("largest", "known"), [(0.01, False), (255, True), (65535, False)])
def test_pictures_for_a_model_of_real_numbers(largest: int, known: bool) -> None:
    from PIL import Image

    np.savez("d.npz", x=RNG.uniform(0, largest, (60, 4, 4)), y=Y)
    train("d.npz")
    Image.fromarray(np.eye(4, dtype=np.uint8) * 255).save("a.png")
    done = xp("predict", "run", "a.png", code=0 if known else 1)
    assert known or "trained on real numbers of quite another size" in done.stderr


def test_predictions_are_piped_and_kept_as_tables() -> None:
    rows = "\n".join(",".join(map(str, [*row, "abc"[k]])) for row, k in zip(X.round(2), Y, strict=True))
    Path("d.csv").write_text(f"a,b,c,d,y\n{rows}\n")
    train("d.csv")
    new = "a,b,c,d\n" + "\n".join(",".join(map(str, row)) for row in X[:3]) + "\n"
    Path("new.csv").write_text(new)
    shown = xp("predict", "run", "new.csv", "--format", "csv").stdout
    table = [line.split(",") for line in shown.splitlines()]
    assert table[0] == ["name", "prediction", "probability"] and [r[0] for r in table[1:]] == [
        f"new.csv[{i}]" for i in range(3)
    ]
    answers = [json.loads(line) for line in xp("predict", "run", "new.csv", "--json").stdout.splitlines()]
    assert [r[1] for r in table[1:]] == [a["predictions"][0]["class"] for a in answers]
    assert (
        xp("predict", "run", "new.csv", "--out", "p.csv").stdout == "" and Path("p.csv").read_text() == shown
    )
    xp("predict", "run", "new.csv", "--out", "p.jsonl", "--top", 2)
    assert [json.loads(line)["name"] for line in Path("p.jsonl").read_text().splitlines()] == [
        r[0] for r in table[1:]
    ]
    top = xp("predict", "run", "new.csv", "--format", "csv", "--top", 2).stdout
    assert top.startswith("name,prediction,probability,prediction_2,probability_2\n")
    piped = CliRunner().invoke(main, ["predict", "run", "-", "--format", "csv"], input=new)
    assert piped.exit_code == 0 and piped.stdout == shown.replace("new.csv", "standard input")
    more = "\n".join(f"{line},{'e' if k == 0 else 1}" for k, line in enumerate(new.splitlines()))
    noted = CliRunner().invoke(main, ["predict", "run", "-"], input=more)
    assert "note: standard input: ignored columns that training did not have: e" in noted.stderr
    bad = CliRunner().invoke(main, ["predict", "run", "-"], input=new.replace("a,b", "a,x"))
    assert bad.exit_code == 1 and "error: standard input: no column named 'b'" in bad.stderr
    assert (
        "expected a name ending in .csv" in xp("predict", "run", "new.csv", "--out", "p.xyz", code=2).stderr
    )
    assert "exclude each other" in xp("predict", "run", "new.csv", "--json", "--format", "csv", code=2).stderr


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_keep_the_columns_that_name_them(suffix: str) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=list("abcd")).assign(y=np.array(["u", "v", "w"])[Y])
    frame.to_csv("d.csv", index=False)
    train("d.csv")
    new = frame.drop(columns="y").assign(PassengerId=2**60 + np.arange(60), deck=["007", "NA"] * 30)
    new.to_csv("new.csv", index=False)
    new.to_parquet("new.parquet")
    said = xp(
        "predict", "run", f"new.{suffix}", "--id", "PassengerId,deck", "--format", "csv"
    ).stdout.splitlines()
    assert said[0] == "PassengerId,deck,prediction,probability" and len(said) == 61
    assert said[1].startswith(f"{2**60},007,") and said[2].startswith(f"{2**60 + 1},NA,")
    line = xp("predict", "run", f"new.{suffix}", "--id", "deck", "--id", "a", "--json").stdout.splitlines()[0]
    assert json.loads(line)["id"]["deck"] == "007" and json.loads(line)["name"] == f"new.{suffix}[0]"
    assert xp("predict", "run", f"new.{suffix}", "--id", "deck").stdout.startswith("007: ")
    error = xp("predict", "run", f"new.{suffix}", "--id", "passengerid", code=1).stderr
    assert "no column named 'passengerid' (did you mean 'PassengerId'?)" in error


def test_plot(digits: str) -> None:
    pytest.importorskip("matplotlib")
    before = files()
    shown = xp("plot", digits).stdout.splitlines()
    assert shown == [f"run/plots/{name}.png" for name in ("curves", "first_layer", "confusion", "mistakes")]
    assert sorted(set(files()) - set(before)) == sorted(shown)
    assert {Path(p).stem for p in shown} == set(FIGURES) - {"regression"}
    shown = xp(
        "plot", f"{digits}/model.safetensors", "--data", "digits", "--out", "figures"
    ).stdout.splitlines()
    assert shown == [f"figures/{name}.png" for name in ("first_layer", "confusion", "mistakes")]
    assert all(Path(p).read_bytes().startswith(b"\x89PNG") for p in shown)


def test_plot_without_matplotlib(digits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = xp("plot", digits, code=1)
    assert 'pip install "xpnet[plots]"' in done.stderr
    assert hasattr(plots, "curves")


# --- help and start-up --------------------------------------------------------------------------
def options(command: click.Command) -> set[str]:
    """Every long option of a command."""
    return {
        name
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--")
    }


def test_help_names_every_option() -> None:
    assert {"train", "evaluate", "predict", "plot", "info", "doctor"} <= set(commands())
    for name, command in commands().items():
        shown = xp(name, "--help").stdout
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", shown)) == options(command) | {"--help"}
        assert shown == xp(name, "-h").stdout
    settings = {f"--{f.name.replace('_', '-')}" for f in fields(TrainConfig)}
    assert settings < options(commands()["train"])
    assert "Exit codes: 0 done" in xp("--help").stdout
    assert xpnet.__version__ in xp("--version").stdout


def test_the_reference_names_every_option_and_no_other() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text))
    everything = {"--help", "--version"}.union(*(options(c) for c in commands().values()))
    assert named == everything
    table = set(
        re.findall(r"--[a-z][a-z0-9-]*", "\n".join(line for line in text.splitlines() if line[:3] == "| `"))
    )
    assert options(commands()["train"]) <= table
    for name in commands():
        assert f"xpnet {name}" in text
    for code in (0, 1, 2, 3, 4, 5, 130, 143):
        assert f"| {code} | " in text


def test_the_reference_names_every_key_of_the_records() -> None:
    train()
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    result = json.loads(Path("run/result.json").read_text())
    for key in (*result, *RunFolder("run").metrics()[0], *(name.partition("/")[0] for name in RUN)):
        assert f"`{key}`" in text or f"`{key}/`" in text, key


def python(code: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], env=env, text=True, capture_output=True, timeout=60)


HEAVY = ("cupy", "matplotlib", "sklearn", "scipy", "pandas", "rich", "pooch", "PIL")


def test_help_imports_nothing_heavy() -> None:
    for arguments in (["--help"], ["train", "--help"], ["train", "--print-config"]):
        done = python(
            "import sys\nfrom xpnet.cli import commands, main\n"
            f"try: main({arguments!r})\nexcept SystemExit as end: assert end.code == 0\n"
            f"print('loaded:', [m for m in {HEAVY!r} if m in sys.modules])"
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "loaded: []"


def test_a_model_is_used_where_nothing_else_is_installed() -> None:
    """Training on a file, opening the model and predicting need NumPy only (and click for the command)."""
    np.savez("d.npz", x=X, y=Y, x_test=X, y_test=Y)
    np.save("new.npy", X[:2])
    done = python(
        "import sys\n"
        f"for name in {HEAVY!r}: sys.modules[name] = None\n"
        "import numpy as np, xpnet\nfrom xpnet.cli import commands, main\n"
        "def run(*a):\n    try: main(list(a))\n    except SystemExit as end: assert end.code == 0, a\n"
        f"run('train', '--data', 'd.npz', *{FAST!r}, '--out', 'run')\n"
        "run('evaluate', 'run')\nrun('predict', 'run', 'new.npy')\nrun('info', 'run')\n"
        "print(xpnet.load('run/model.safetensors').predict(np.load('new.npy')).shape)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(2,)"


def test_numbers_that_are_not_finite_are_written_and_read_back() -> None:
    folder = RunFolder("nan")
    folder.create(overwrite=False)
    folder.write_metrics([{"epoch": 1, "train_loss": float("nan"), "valid_loss": float("inf"), "lr": 0.1}])
    assert Path("nan/metrics.jsonl").read_text() == (
        '{"epoch": 1, "train_loss": "NaN", "valid_loss": "Infinity", "lr": 0.1}\n'
    )
    (record,) = folder.metrics()
    assert np.isnan(record["train_loss"]) and record["valid_loss"] == float("inf")
