"""Everything that can be wrong with what the command is given, in one table.

Each row: an id, what is put in place, the command, its exit code, and words that its message must hold. In
every case the message is one line on standard error (or click's usage text), there is no traceback, nothing
is written, and a run that was there before is as it was.
"""

from __future__ import annotations

import gzip
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner, Result

from xpnet import MLP, checkpoint, fit
from xpnet.cli import main
from xpnet.data import write_idx
from xpnet.errors import FileWriteError
from xpnet.runs.folder import METRICS, MODEL, STATE, RunFolder
from xpnet.storage import atomic

X = np.random.default_rng(0).normal(size=(30, 4))
Y = np.arange(30) % 3
IMAGES = np.arange(30 * 16, dtype=np.uint8).reshape(30, 4, 4)


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic._Fs, "fsync", lambda self, fd: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good NPZ file and a finished run on it."""
    folder = tmp_path_factory.mktemp("finished")
    np.savez(folder / "good.npz", x=X, y=Y, x_test=X, y_test=Y)
    done = CliRunner().invoke(
        main, f"train --data {folder}/good.npz --hidden 5 --epochs 2 --out {folder}/run".split()
    )
    assert done.exit_code == 0, done.output
    return folder


# --- what is put in place -----------------------------------------------------------------------
def npz(**arrays: Any) -> Callable[[], None]:
    """A file bad.npz: good x and y, but for the arrays given (None leaves one out)."""
    kept = {k: v for k, v in ({"x": X, "y": Y} | arrays).items() if v is not None}
    return lambda: np.savez("bad.npz", **kept)


def with_value(array: np.ndarray, value: Any) -> np.ndarray:
    changed = array.astype(np.float64)
    changed.flat[1] = value
    return changed


def idx(change: Callable[[bytes], bytes], name: str = "bad-images-idx3-ubyte") -> Callable[[], None]:
    """A pair of IDX files, the images changed."""

    def make() -> None:
        write_idx(name, IMAGES)
        write_idx("bad-labels-idx1-ubyte", Y.astype(np.uint8))
        Path(name).write_bytes(change(Path(name).read_bytes()))

    return make


def idx_pair(images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    def make() -> None:
        write_idx("bad-images-idx3-ubyte", images)
        write_idx("bad-labels-idx1-ubyte", labels)

    return make


def text(content: str, name: str = "bad.csv") -> Callable[[], None]:
    return lambda: _write(name, content.encode())


def raw(content: bytes, name: str) -> Callable[[], None]:
    return lambda: _write(name, content)


def _write(name: str, content: bytes) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content)


def npy(name: str, array: Any) -> Callable[[], None]:
    return lambda: np.save(name, array, allow_pickle=True)


def model(**options: Any) -> Callable[[], None]:
    """A trained model file m.safetensors that takes 4 numbers."""

    def make() -> None:
        m = MLP([4, 3, 3], **options)
        fit(m, (X, Y), epochs=1)
        m.save("m.safetensors")

    return make


def changed_model(**metadata: Any) -> Callable[[], None]:
    def make() -> None:
        model()()
        tensors, before = checkpoint.load_tensors("m.safetensors")
        checkpoint.save_tensors("m.safetensors", tensors, before | metadata)

    return make


def damaged_model() -> None:
    model()()
    content = bytearray(Path("m.safetensors").read_bytes())
    content[-1] ^= 1
    Path("m.safetensors").write_bytes(content)


def folder_with_a_file() -> None:
    _write("full/thesis.txt", b"mine")


def unfinished_run() -> None:
    _write("new/config.toml", b"")
    _write("new/last/nothing", b"")


OBJECTS = np.array([[1, 2], [3]], dtype=object)
NPZ, IDX, CSV = "--data bad.npz", "--data bad-images-idx3-ubyte", "--data bad.csv"
NOTHING = lambda: None  # noqa: E731
CONFIG = "train --config c.toml"


class Case(NamedTuple):
    id: str
    make: Callable[[], Any]
    command: str
    code: int
    words: str


# {run}: the folder of a finished run that takes 4 numbers and knows the classes 0, 1, 2; {good}: its data
CASES = [
    # IDX files
    Case("idx-magic", idx(lambda b: b"\0\0\x77\3" + b[4:]), f"train {IDX}", 1, "unknown IDX type byte 0x77"),
    Case("idx-not", idx(lambda b: b"\0\1" + b[2:]), f"train {IDX}", 1, "not a format that can be read"),
    Case("idx-short", idx(lambda b: b[:-5]), f"train {IDX}", 1, "truncated"),
    Case("idx-header", idx(lambda b: b[:7]), f"train {IDX}", 1, "truncated header"),
    Case("idx-long", idx(lambda b: b + b"\0"), f"train {IDX}", 1, "trailing bytes"),
    Case("idx-huge", idx(lambda b: b[:4] + b"\xff" * 12 + b[16:]), f"train {IDX}", 1, "more than a file of"),
    Case("idx-gzip", idx(lambda b: gzip.compress(b)[:-20]), f"train {IDX}", 1, "damaged or truncated gzip"),
    Case("idx-empty", idx(lambda b: b""), f"train {IDX}", 1, "the file is empty"),
    Case(
        "idx-no-labels", lambda: write_idx("a.idx", IMAGES), "train --data a.idx", 1, "name the file of their"
    ),
    Case("idx-counts", idx_pair(IMAGES[:20], Y.astype(np.uint8)), f"train {IDX}", 1, "has 30 entries"),
    Case(
        "idx-one-class", idx_pair(IMAGES, Y.astype(np.uint8) * 0), f"train {IDX}", 1, "at least two classes"
    ),
    # NPY and NPZ files
    Case("npz-no-x", npz(x=None), f"train {NPZ}", 1, "no array named x or X or x_train; it holds y"),
    Case("npz-no-y", npz(y=None), f"train {NPZ}", 1, "no array named y or y_train; it holds x"),
    Case("npz-target", npz(), f"train {NPZ} --target label", 1, "no array named label; it holds x, y"),
    Case("npz-half", npz(x_test=X), f"train {NPZ}", 1, "x_test and y_test belong together"),
    Case("npz-objects", npz(x=OBJECTS), f"train {NPZ}", 1, "never unpickled"),
    Case("npz-twos", npz(y=Y[:7]), f"train {NPZ}", 1, "has 7 entries (shape (7,)) but there are 30 samples"),
    Case("npz-width", npz(x_test=X[:, :2], y_test=Y), f"train {NPZ}", 1, "x_test"),
    Case("npz-nan", npz(x=with_value(X, np.nan)), f"train {NPZ}", 1, "1 NaN and 0 infinite values"),
    Case("npz-inf", npz(x=with_value(X, np.inf)), f"train {NPZ}", 1, "0 NaN and 1 infinite values"),
    Case("npz-huge", npz(x=with_value(X, 1e300)), f"train {NPZ}", 1, "too large for float32"),
    Case("npz-complex", npz(x=X * 1j), f"train {NPZ}", 1, "expected real numbers"),
    Case("npz-flat", npz(x=X[:, 0]), f"train {NPZ}", 1, "expected one row per sample"),
    Case("npz-no-rows", npz(x=X[:0], y=Y[:0]), f"train {NPZ}", 1, "is empty"),
    Case("npz-no-columns", npz(x=X[:, :0]), f"train {NPZ}", 1, "is empty"),
    Case("npz-one-sample", npz(x=X[:1], y=Y[:1]), f"train {NPZ}", 1, "at least two classes"),
    Case("npz-one-class", npz(y=Y * 0), f"train {NPZ}", 1, "at least two classes"),
    Case("npz-fraction", npz(y=with_value(Y, 1.5)), f"train {NPZ}", 1, "expected a class label"),
    Case("npz-label-nan", npz(y=with_value(Y, np.nan)), f"train {NPZ}", 1, "NaN"),
    Case(
        "npz-counts", npz(y=np.eye(3)[Y] + np.eye(3)[0]), f"train {NPZ}", 1, "expected one label per sample"
    ),
    Case(
        "npz-several",
        npz(y=np.minimum(np.eye(3)[Y] + np.eye(3)[0], 1)),
        f"train {NPZ}",
        1,
        "say task='multilabel'",
    ),
    Case(
        "npz-names",
        npz(x_val=X, y_val=Y),
        f"train {NPZ}",
        1,
        "no such part as 'x_val'; did you mean 'x_valid'?",
    ),
    Case(
        "npz-weights",
        npz(weights=Y),
        f"train {NPZ}",
        1,
        "what the samples of x count in training is called 'sample_weight'",
    ),
    Case("npz-real", npz(y=Y / 2), f"train {NPZ}", 1, "say task='regression' (--task regression)"),
    Case("lr-0", NOTHING, "train --lr 0", 2, "lr is 0, with which nothing is learned"),
    Case(
        "target-named",
        NOTHING,
        "train digits --target y",
        2,
        "target is a setting for files, but 'digits' is",
    ),
    Case("task-named", NOTHING, "train digits --task regression", 2, "'digits' is a data set of classes"),
    Case("target-empty", npz(), "train bad.npz --target=", 2, "target is empty"),
    Case(
        "multilabel-table",
        text("a,b\n1,2\n"),
        f"train {CSV} --task multilabel",
        2,
        "multilabel is a task for arrays",
    ),
    Case("compare-device", NOTHING, "compare --devices cpu,numb", 2, "unknown device 'numb'"),
    Case("npz-target-nan", npz(y=with_value(Y, np.nan)), f"train {NPZ} --task regression", 1, "NaN"),
    Case("npz-targets-text", npz(y=Y.astype(str)), f"train {NPZ} --task regression", 1, "real numbers"),
    Case("npz-damaged", raw(b"PK\3\4 and no more", "bad.npz"), f"train {NPZ}", 1, "damaged or truncated"),
    Case("npz-labels", npz(), f"train {NPZ} --labels bad.npz", 1, "this file holds its own"),
    Case(
        "npy-objects", npy("bad.npy", OBJECTS), "train --data bad.npy --labels bad.npy", 1, "never unpickled"
    ),
    Case("npy-no-labels", npy("bad.npy", X), "train --data bad.npy", 1, "samples only"),
    Case(
        "npy-labels-gone",
        npy("bad.npy", X),
        "train --data bad.npy --labels no.npy",
        1,
        "no.npy: no such file",
    ),
    # CSV files
    Case(
        "csv-text",
        text("a,b\n1,red\n" + 30 * "2,3.5\n"),
        f"train {CSV} --target a --task regression",
        1,
        "line 2, column 'b' holds 'red', but 30 other rows hold numbers",
    ),
    Case(
        "csv-infinite",
        text("a,b\n1,0\ninf,0\n" + 30 * "2,1\n"),
        f"train {CSV}",
        1,
        "line 3, column 'a' holds 'inf', expected a finite number",
    ),
    Case(
        "csv-no-label", text("a,b\n1,\n2,1\n"), f"train {CSV}", 1, "line 2 has no value in the target column"
    ),
    Case("csv-ragged", text("a,b\n1,2,3\n"), f"train {CSV}", 1, "line 2 has 3 values, expected 2"),
    Case("csv-no-header", text("1,0\n2,1\n"), f"train {CSV}", 1, "expected a header line"),
    Case("csv-header-only", text("a,b\n"), f"train {CSV}", 1, "a header line and nothing below"),
    Case("csv-empty", text(""), f"train {CSV}", 1, "the file is empty"),
    Case(
        "csv-column",
        text("a,b\n1,0\n2,1\n"),
        f"train {CSV} --target y",
        1,
        "no target column named 'y'; the columns are a, b",
    ),
    Case("csv-bytes", raw(b"a,b\n\xff,0\n", "bad.csv"), f"train {CSV}", 1, "not UTF-8 text"),
    # sets of one's own
    Case(
        "valid-width", npz(x=X[:, :2]), "train --data {good} --valid bad.npz", 1, "x_valid has shape (30, 2)"
    ),
    Case(
        "valid-classes", npz(y=Y + 2), "train --data {good} --valid bad.npz", 1, "none of the 3 known classes"
    ),
    Case("test-gone", NOTHING, "train --data {good} --test no.npz", 1, "no.npz: no such file"),
    Case("test-bytes", npz(x=IMAGES[:, 0]), "train --data {good} --test bad.npz", 1, "save both in one type"),
    # names
    Case("name-data", NOTHING, "train --data digit", 2, "unknown data set 'digit'; did you mean 'digits'?"),
    Case("name-file", NOTHING, "train --data no.npz", 1, "no.npz: no such file"),
    Case(
        "name-folder", lambda: Path("d").mkdir(), "train --data ./d", 1, "must hold train-images-idx3-ubyte"
    ),
    Case("name-data-dir", NOTHING, "train --data mnist --data-dir no", 1, "not all of the files"),
    Case("name-activation", NOTHING, "train --activation rellu", 2, "did you mean 'relu'?"),
    Case("name-output", NOTHING, "train --output-activation softmaks", 2, "unknown activation 'softmaks'"),
    Case("name-init", NOTHING, "train --init he_norma", 2, "did you mean 'he_normal'?"),
    Case("name-loss", NOTHING, "train --loss huger", 2, "did you mean 'huber'?"),
    Case("name-optimizer", NOTHING, "train --optimizer adan", 2, "did you mean 'adam'?"),
    Case("name-optimizer-option", NOTHING, "train --optimizer adam:beat1=1", 2, "did you mean 'beta1'?"),
    Case("name-schedule", NOTHING, "train --schedule cosin", 2, "did you mean 'cosine'?"),
    Case("name-schedule-option", NOTHING, "train --schedule step:evry=2", 2, "did you mean 'every'?"),
    Case("name-option-form", NOTHING, "train --schedule step:2", 2, "expected key=value after ':'"),
    Case("name-option-value", NOTHING, "train --schedule step:every=x", 2, "'x' is not a number"),
    Case("name-monitor", NOTHING, "train --monitor valid_acuracy", 2, "monitor must be one of"),
    Case("name-monitor-valid", NOTHING, "train --monitor valid_loss --valid-fraction 0", 2, "train_loss"),
    Case("name-command", NOTHING, "trian", 2, "unknown command 'trian'; did you mean 'train'?"),
    Case("name-flag", NOTHING, "train --epoch 3", 2, "--epochs"),
    Case("name-device", NOTHING, "train --device tpu", 2, "unknown device 'tpu'; expected one of cpu"),
    Case("name-dtype", NOTHING, "train --dtype float16", 2, "'float16' is not one of"),
    Case("name-task", NOTHING, "train --task clustering", 2, "'clustering' is not one of"),
    # numbers
    Case(
        "hidden-text",
        NOTHING,
        "train --hidden a,b",
        2,
        "expected whole numbers such as 500 or 300,100, or none",
    ),
    Case("dropout-text", NOTHING, "train --dropout 0.2,b", 2, "expected numbers such as 0.2 or 0.2,0.5"),
    Case("hidden-zero", NOTHING, "train --hidden 0", 2, "sizes must be whole numbers >= 1, found 0"),
    Case("hidden-negative", NOTHING, "train --hidden 8,-3", 2, "sizes must be whole numbers >= 1, found -3"),
    Case("hidden-huge", NOTHING, "train --hidden 900000,900000", 5, "GiB to train, but"),
    Case("batch-huge", NOTHING, "train --batch-size 9999999999999", 5, "GiB are free"),
    Case("activation-count", NOTHING, "train --hidden 8 --activation relu,tanh", 2, "2 entries for 1 hidden"),
    Case("activation-step", NOTHING, "train --activation step", 2, "no useful gradient"),
    Case("maxout-out", NOTHING, "train --output-activation maxout", 2, "use it for hidden layers"),
    Case("lr-nan", NOTHING, "train --lr nan", 2, "lr must be a finite number, found nan"),
    Case("lr-negative", NOTHING, "train --lr -0.1", 2, "lr must be a number in [0, inf), found -0.1"),
    Case("lr-inf", NOTHING, "train --lr inf", 2, "lr must be a finite number, found inf"),
    Case("lr-text", NOTHING, "train --lr fast", 2, "'fast' is not a valid float"),
    Case(
        "momentum-one",
        NOTHING,
        "train --optimizer sgd --momentum 1",
        2,
        "momentum must be a number in [0, 1)",
    ),
    Case("momentum-adam", NOTHING, "train --momentum 0.9", 2, "unknown option of optimizer 'adam'"),
    Case("dropout-one", NOTHING, "train --dropout 1.0", 2, "dropout must be in [0, 1), found 1.0"),
    Case("dropout-count", NOTHING, "train --hidden 8 --dropout 0.1,0.2", 2, "2 entries for 1 hidden"),
    Case("dropout-input", NOTHING, "train --input-dropout -0.1", 2, "[0, 1), found -0.1"),
    Case("noise-negative", NOTHING, "train --input-noise -1", 2, "input_noise must be a finite number >= 0"),
    Case("epochs-zero", NOTHING, "train --epochs 0", 2, "epochs must be at least 1, found 0"),
    Case("epochs-fraction", NOTHING, "train --epochs 1.5", 2, "'1.5' is not a valid integer"),
    Case("batch-zero", NOTHING, "train --batch-size 0", 2, "batch_size must be at least 1, found 0"),
    Case("threads-zero", NOTHING, "train --threads 0", 2, "threads must be at least 1, found 0"),
    Case("patience-zero", NOTHING, "train --patience 0", 2, "patience must be at least 1, found 0"),
    Case("save-every", NOTHING, "train --save-every -1", 2, "save_every must be at least 0"),
    Case("seed-negative", NOTHING, "train --seed -1", 2, "found -1"),
    Case(
        "smoothing-one",
        NOTHING,
        "train --label-smoothing 1",
        2,
        "label_smoothing must be in [0, 1), found 1.0",
    ),
    Case(
        "smoothing-hinge",
        NOTHING,
        "train --loss hinge --label-smoothing 0.1",
        2,
        "needs a cross-entropy loss",
    ),
    Case("valid-one", NOTHING, "train --valid-fraction 1", 2, "valid_fraction must be in [0, 1), found 1.0"),
    Case("valid-more", NOTHING, "train --valid-fraction 1.5", 2, "found 1.5"),
    Case("valid-few", npz(), f"train {NPZ} --valid-fraction 0.001", 1, "part empty"),
    Case("l2-negative", NOTHING, "train --l2 -1", 2, "l2"),
    Case("clip-zero", NOTHING, "train --clip-norm 0", 2, "clip_norm must be a finite number > 0"),
    Case("warmup-one", NOTHING, "train --warmup 1", 2, "warmup must be a number in [0, 1)"),
    # what does not go together
    Case("loss-classes", NOTHING, "train --loss poisson", 2, "the poisson loss does not fit the task"),
    Case(
        "loss-values", npz(), f"train {NPZ} --task regression --loss hinge", 2, "the hinge loss does not fit"
    ),
    Case("loss-output", NOTHING, "train --output-activation sigmoid", 2, "leave it at 'identity'"),
    Case("poisson", npz(y=Y - 1.0), f"train {NPZ} --task regression --loss poisson", 1, "negative values"),
    Case("weights", npz(), f"train {NPZ} --task regression --class-weight balanced", 2, "needs class labels"),
    # devices
    Case("cuda", NOTHING, "train --device cuda", 4, "--device cpu"),
    Case("cuda-number", NOTHING, "train --device cuda:7", 4, "device 'cuda:7' is not available"),
    Case("cuda-evaluate", NOTHING, "evaluate {run} --device cuda", 4, "--device cpu"),
    # the configuration file
    Case("config-gone", NOTHING, CONFIG, 2, "cannot read the configuration c.toml"),
    Case("config-folder", lambda: Path("c.toml").mkdir(), CONFIG, 2, "cannot read the configuration"),
    Case("config-json", text('{"lr": 1}', "c.toml"), CONFIG, 2, "is not a TOML file"),
    Case("config-bytes", raw(b"\xff\xfe", "c.toml"), CONFIG, 2, "is not a TOML file"),
    Case(
        "config-key",
        text("learning-rat = 1", "c.toml"),
        CONFIG,
        2,
        "unknown setting in c.toml: 'learning-rat'",
    ),
    Case("config-near", text("epoch = 1", "c.toml"), CONFIG, 2, "did you mean 'epochs'?"),
    Case(
        "config-type",
        text('epochs = "ten"', "c.toml"),
        CONFIG,
        2,
        "epochs must be a whole number, found 'ten'",
    ),
    Case(
        "config-bool", text("epochs = true", "c.toml"), CONFIG, 2, "epochs must be a whole number, found True"
    ),
    Case(
        "config-list", text('hidden = ["a"]', "c.toml"), CONFIG, 2, "hidden must be a whole number, found 'a'"
    ),
    Case("config-choice", text('task = "cluster"', "c.toml"), CONFIG, 2, "unknown task 'cluster'"),
    Case(
        "config-table", text("[model]\nhidden = 3", "c.toml"), CONFIG, 2, "unknown setting in c.toml: 'model'"
    ),
    Case(
        "name-bytes",
        text("a,b\n1,2\n", "b\udcff.csv"),
        "train b\udcff.csv",
        2,
        r"data is 'b\xff.csv', which is",
    ),
    # folders
    Case("out-full", folder_with_a_file, "train --out full", 2, "it holds files but no run; choose another"),
    Case("out-foreign", folder_with_a_file, "train --out full --overwrite", 2, "holds files but no run"),
    Case("out-run", NOTHING, "train --out {run}", 2, "--overwrite to replace it"),
    Case("out-file", text("x", "f"), "train --out f", 2, "f is a file; --out needs a folder"),
    Case("out-under-file", text("x", "f"), "train --out f/run", 1, "cannot create f/run: Not a directory"),
    Case("out-unwritable", NOTHING, "train --out /proc/xpnet", 1, "cannot create /proc/xpnet"),
    Case("plots-unwritable", NOTHING, "plot {run} --out /proc/x", 1, "cannot create /proc/x"),
    Case("resume-gone", NOTHING, "train --resume no", 1, "no is not a run folder: it has no config.toml"),
    Case("resume-early", unfinished_run, "train --resume new", 1, "stopped before its first state was saved"),
    Case("run-gone", NOTHING, "evaluate no", 1, "no"),
    Case("run-not", folder_with_a_file, "info full", 1, "full is not a run folder"),
    Case("run-no-model", unfinished_run, "evaluate new", 1, "has no model yet"),
    # model files
    Case("model-pickled", raw(pickle.dumps([1]), "m.pkl"), "info m.pkl", 1, "never opens a pickle"),
    Case("model-text", text("hello there, this is text", "m.txt"), "info m.txt", 1, "expected a model file"),
    Case("model-damaged", damaged_model, "predict m.safetensors {good}", 1, "The file is damaged"),
    Case("model-state", NOTHING, "predict {run}/last/state.safetensors {good}", 1, "not a model"),
    Case(
        "model-architecture",
        changed_model(architecture=MLP([4, 9, 3]).architecture),
        "info m.safetensors",
        1,
        "but this architecture (4-9-3) needs (9, 4)",
    ),
    Case(
        "model-unknown", changed_model(loss="tea", dtype="int8"), "info m.safetensors", 1, "does not describe"
    ),
    Case("model-population", model(n_models=2), "predict m.safetensors {good}", 2, "this is a population"),
    Case("model-no-data", model(), "evaluate m.safetensors", 2, "name a data set or file with --data"),
    Case("model-no-folder", model(), "plot m.safetensors", 2, "name one with --out"),
    # evaluating and predicting
    Case("evaluate-width", npz(x=X[:, :2]), f"evaluate {{run}} {NPZ}", 1, "takes 4 numbers per sample"),
    Case("evaluate-classes", npz(y=Y + 5), f"evaluate {{run}} {NPZ}", 1, "none of the 3 known classes"),
    Case("evaluate-named", NOTHING, "evaluate {run} --data digits", 1, "takes 4 numbers per sample"),
    Case("evaluate-target", NOTHING, "evaluate {run} --target y", 2, "belong to --data FILE"),
    Case("predict-width", npy("a.npy", X[:, :2]), "predict {run} a.npy", 1, "(30, 2)"),
    Case("predict-nan", npy("a.npy", X * np.nan), "predict {run} a.npy", 1, "120 NaN"),
    Case("predict-objects", npy("a.npy", OBJECTS), "predict {run} a.npy", 1, "never unpickled"),
    Case("predict-gone", NOTHING, "predict {run} no.png", 1, "a picture becomes"),
    Case("predict-folder", folder_with_a_file, "predict {run} full", 1, "holds no pictures"),
    Case("predict-none", NOTHING, "predict {run}", 2, "missing argument 'FILES...'"),
    Case("predict-top", NOTHING, "predict {run} {good} --top 0", 2, "0 is not in the range"),
    Case("predict-id", NOTHING, "predict {run} {good} --id a", 2, "takes no tables"),
]


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_bad_input(case: Case, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XPNET_DATA", raising=False)
    case.make()
    before = tree(finished), tree(tmp_path)
    done = run(case.command.format(run=finished / "run", good=finished / "good.npz"))
    check(done, case.code)
    assert case.words in done.stderr, done.stderr
    assert (tree(finished), tree(tmp_path)) == before, "something was written"


def run(command: str) -> Result:
    return CliRunner().invoke(main, command.split())


def check(done: Result, code: int) -> None:
    """The exit code, one line of error, and nothing that Python says by itself."""
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("xpnet: error: "), done.stderr
    assert done.stdout == ""


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with the bytes of files."""
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def test_the_table_is_long_and_has_no_doubles() -> None:
    assert len(CASES) >= 60
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.parametrize("name", ["broken.png", "gone.png", "float.tif"])
def test_pictures_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    np.savez(tmp_path / "images.npz", x=IMAGES, y=Y)
    assert (
        run(f"train --data {tmp_path}/images.npz --hidden 3 --epochs 1 --out {tmp_path}/run").exit_code == 0
    )
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    done = run(f"predict {tmp_path}/run {tmp_path}/{name}")
    check(done, 1)
    said = {"broken": "not a readable picture", "gone": "no such file", "float": "floating-point tones"}
    assert said[name.partition(".")[0]] in done.stderr


def test_training_that_diverges(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X * 1e6, y=Y)
    done = run(f"train --data {tmp_path}/d.npz --optimizer sgd --lr 1e30 --out {tmp_path}/run --quiet")
    check(done, 3)
    assert "diverged at epoch" in done.stderr and "layer" in done.stderr
    last = run(f"info {tmp_path}/run --json")  # the last good weights are kept
    assert last.exit_code == 0, last.output


def test_an_error_of_our_own_making_is_never_hidden(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw ends with a traceback, not with a polite line."""

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("xpnet.runs.run.load_run_data", broken)
    done = run("train")
    assert isinstance(done.exception, ZeroDivisionError) and done.exit_code == 1


# --- disks that are full ------------------------------------------------------------------------
def process(command: str, folder: Path, limit: int | None = None, **options: Any) -> Any:
    """Run the command as a process, in which no file may grow beyond `limit` bytes."""
    limits = None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    env = os.environ | {"PYTHONPATH": str(Path(checkpoint.__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"}
    call = [sys.executable, "-m", "xpnet", *command.split()]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(call, cwd=folder, env=env, text=True, preexec_fn=limits, **(pipes | options))


@pytest.mark.parametrize(("limit", "file"), [(20_000, "safetensors"), (100, "environment")])
def test_a_full_disk(limit: int, file: str, finished: Path, tmp_path: Path) -> None:
    """Not even a file that does not fit is left half written."""
    before = tree(finished)
    done = process(f"train --data {finished}/good.npz --hidden 999 --out out --quiet", tmp_path, limit)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("xpnet: error: could not write out/") and file in line
    assert "File too large" in line
    assert tree(finished) == before
    assert not list(tmp_path.rglob("*.tmp"))


def test_metrics_that_do_not_fit(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one file that grows: what was saved before stays whole, and the best model is not touched."""
    append = RunFolder.append_metrics
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")

    def fill_up(folder: RunFolder, record: dict[str, Any]) -> None:
        if record["epoch"] == 3:
            (folder / METRICS).unlink()
            (folder / METRICS).symlink_to(full)
        append(folder, record)

    monkeypatch.setattr(RunFolder, "append_metrics", fill_up)
    done = run(f"train --data {finished}/good.npz --hidden 5 --epochs 5 --out {tmp_path}/run --quiet")
    check(done, 1)
    assert "metrics.jsonl: No space left on device; free some space, then continue with" in done.stderr
    monkeypatch.undo()
    (tmp_path / "run" / METRICS).unlink()
    assert run(f"train --resume {tmp_path}/run --quiet").exit_code == 0
    assert len(RunFolder(tmp_path / "run").metrics()) == 5


def test_a_disk_that_is_full_says_how_to_go_on(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(epochs: int) -> None:
        def save(folder: RunFolder, trainer: Any) -> None:
            if trainer.epoch == epochs:
                raise FileWriteError(f"could not write {folder / STATE}: No space left on device.")
            saved(folder, trainer)

        monkeypatch.setattr(RunFolder, "save_state", save)

    saved = RunFolder.save_state
    train = f"train --data {finished}/good.npz --hidden 5 --epochs 5 --batch-size 10 --quiet --out {tmp_path}"
    fill_up(3)
    later = run(f"{train}/later")
    check(later, 1)
    assert later.stderr.endswith(f" updates, is safe; continue with: xpnet train --resume {tmp_path}/later\n")
    fill_up(1)
    check(run(f"{train}/first"), 1)
    monkeypatch.undo()
    assert run(f"train --resume {tmp_path}/later --quiet").exit_code == 0
    (tmp_path / "first" / MODEL).unlink()
    said = run(f"evaluate {tmp_path}/first").stderr
    again = f"train --config {tmp_path}/first/config.toml --out {tmp_path}/first --overwrite"
    assert said.endswith(f"finish an epoch with: xpnet {again}\n")
    assert run(f"{again} --quiet").exit_code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_does_not_fit(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is meant is said, and how to go on."""

    def said(command: str) -> str:
        with open("/dev/full", "w") as full:
            done = process(command, tmp_path, stdout=full)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        start = "xpnet: error: could not write to standard output: No space left on device. "
        assert line.startswith(start), line
        return str(line.removeprefix(start))

    advice = "Free some space there, or send it elsewhere."
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    assert said(f"info {finished}/run") == advice
    monkeypatch.delenv("PYTHONUNBUFFERED")
    assert said("--help") == advice
    train = f"train {finished}/good.npz --hidden 5 --epochs 1"
    assert said(f"{train} --out run") == (
        f"{advice} Nothing had been saved yet; start again, with --overwrite for run."
    )
    assert said(f"{train} --out done --quiet --json") == f"{advice} The run is complete: done"
    sweep = f"sweep {finished}/good.npz --epochs 1 --grid hidden=3,4 --out sweep"
    assert said(sweep) == f"{advice} Continue with: xpnet sweep --resume sweep"
    assert run(f"sweep --resume {tmp_path}/sweep").exit_code == 0
