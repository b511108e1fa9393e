"""What rows count in training, said by a column of a table or an array of an NPZ file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpnet
from tests.command import xp
from xpnet.tabular import TabularPreprocessing

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).round(3)
Y = (X[:, 0] + RNG.normal(size=60) > 0).astype(int)
W = np.arange(60) % 3

#: Every batch is all the data, and nothing is measured on them, so that a row of weight 2 is two rows.
WHOLE = ("--hidden", 4, "--epochs", 5, "--batch-size", 1000, "--optimizer", "sgd", "--lr", 0.5, "--dtype", "float64",
         "--no-standardize", "--l2", 0, "--label-smoothing", 0, "--schedule", "constant", "--input-noise", 0,
         "--valid-fraction", 0, "--test-fraction", 0, "--quiet")  # fmt: skip
FAST = ("--hidden", 4, "--epochs", 2, "--batch-size", 16, "--quiet")

pytestmark = pytest.mark.usefixtures("elsewhere")


def write(path: str, weights: Sequence[Any] | None = W, rows: np.ndarray | None = None) -> str:
    """Write the data, or `rows` of them, as a table with a column "n", or as arrays."""
    rows = np.arange(len(X)) if rows is None else rows
    if path.endswith(".npz"):
        np.savez(path, x=X[rows], y=Y[rows], **({} if weights is None else {"sample_weight": weights}))
        return path
    lines = ["a,b,c," + ("" if weights is None else "n,") + "y"]
    for at, i in enumerate(rows):
        cells = [*X[i].tolist(), *([] if weights is None else [weights[at]]), "no" if Y[i] else "yes"]
        lines.append(",".join(map(str, cells)))
    Path(path).write_text("\n".join([*lines, ""]))
    return path


@pytest.mark.parametrize("suffix", ["csv", "npz"])
def test_a_row_that_counts_twice_is_two_rows_and_one_that_counts_nothing_none(suffix: str) -> None:
    weight = ("--weight", "n") if suffix == "csv" else ()
    models = []
    for out, file, options in (
        ("weighted", write(f"w.{suffix}"), weight),
        ("repeated", write(f"r.{suffix}", None, np.repeat(np.arange(60), W)), ()),
        ("plain", write(f"p.{suffix}", None), ()),
    ):
        xp("train", file, *WHOLE, *options, "--out", out)
        models.append(xpnet.load(f"{out}/model.safetensors").get_weights())
    weighted, repeated, plain = models
    for name, values in weighted.items():
        np.testing.assert_allclose(values, repeated[name], rtol=1e-9, atol=1e-12)
    assert any(not np.allclose(weighted[name], plain[name], rtol=1e-3) for name in weighted)


@pytest.mark.parametrize("suffix", ["csv", "npz"])
def test_a_run_with_weights_from_start_to_answers(suffix: str) -> None:
    file = write(f"w.{suffix}")
    settings = (file, *FAST, *(("--weight", "n") if suffix == "csv" else ()), "--schedule", "constant",
                "--test-fraction", 0.2, "--valid-fraction", 0.2)  # fmt: skip
    xp("train", *settings, "--epochs", 4, "--out", "whole")
    xp("train", *settings, "--out", "parts")
    xp("train", "--resume", "parts", "--epochs", 4, "--quiet")
    whole, parts = (json.loads(Path(run, "result.json").read_text()) for run in ("whole", "parts"))
    assert whole["last_weights_sha256"] == parts["last_weights_sha256"]
    # tests and answers know nothing of weights
    assert json.loads(xp("evaluate", "whole", "--json").stdout)["loss"] == whole["test_loss"]
    scores = json.loads(xp("evaluate", "whole", "--data", file, "--json").stdout)
    assert sum(map(sum, scores["confusion_matrix"])) == 60
    if suffix == "csv":
        plain = write("plain.csv", None)
        with_column = xp("predict", "whole", file, "--json")
        without = xp("predict", "whole", plain, "--json")
        assert without.stdout.replace(plain, file) == with_column.stdout
        assert with_column.stderr == without.stderr == ""
        assert json.loads(xp("evaluate", "whole", "--data", plain, "--json").stdout)["loss"] == scores["loss"]
    xp("report", "whole")
    # and other weights are other data
    write(file, W[::-1])
    assert "sample_weight" in xp("train", "--resume", "parts", "--epochs", 5, code=1).stderr


def test_the_column_is_no_feature_and_is_shown_for_what_it_is() -> None:
    columns = {"n": [1, 0, 2.5, 1], "size": [1.0, 2.0, 3.0, 5.0], "y": ["a", "b", "a", "b"]}
    prepare = TabularPreprocessing("y", weight="n").fit(columns)
    assert prepare.feature_names_ == ["size"]
    (row,) = [row for row in prepare.describe() if row["column"] == "n"]
    assert (row["role"], row["features"]) == ("weight", 0)
    again = TabularPreprocessing.from_metadata(json.loads(json.dumps(prepare.to_metadata())))
    weights = again.weights(columns)
    assert weights is not None and weights.tolist() == [1.0, 0.0, 2.5, 1.0]
    assert again.transform({"size": [4.0]}).shape == (1, 1)
    assert TabularPreprocessing("y").fit(columns).weights(columns) is None
    # the last column but one is predicted, where the last one holds the weights
    Path("d.csv").write_text("size,y,n\n" + "1,a,1\n2,b,2\n" * 30)
    xp("train", "d.csv", "--weight", "n", *FAST, "--out", "run")
    assert xpnet.load("run/model.safetensors").classes == ("a", "b")


@pytest.mark.parametrize(
    ("cells", "options", "words"),
    [
        ("1,-2", "--weight n", "line 3, column 'n' holds '-2', expected what the row counts in training"),
        ("1,", "--weight n", "line 3, column 'n' holds '', expected what the row counts in training"),
        ("1,many", "--weight n", "line 3, column 'n' holds 'many', expected a number"),
        ("0,0", "--weight n", "all zero"),
        ("1,1", "--weight m", "no weight column named 'm'"),
        ("1,1", "--weight n --ignore n", "column 'n' is the weight of rows, so it cannot be ignored"),
        ("1,1", "--weight n --categorical n", "column 'n' is one of categories, so it cannot"),
        ("1,1", "--weight n --target n", "column 'n' is the target, so it cannot"),
        ("1,1", "--data d.npz --weight n", "weight is a setting for tables"),
    ],
)
def test_what_cannot_be_a_weight(cells: str, options: str, words: str) -> None:
    rows = "".join(f"{cell},{i},{'ab'[i % 2]}\n" for i, cell in enumerate(cells.split(",") * 10))
    Path("d.csv").write_text(f"n,size,y\n{rows}")
    write("d.npz")
    data = () if "--data" in options else ("d.csv",)
    code = 2 if "so it cannot" in words or "setting" in words else 1
    assert words in xp("train", *data, *FAST, *options.split(), "--out", "run", code=code).stderr
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("sample_weight", W[:-1], "sample_weight has"),
        ("sample_weight", -W, "sample_weight"),
        ("sample_weights", W, "what the samples of x count in training is called 'sample_weight'"),
        ("sample_weight_valid", W, "those of other parts count alike"),
    ],
)
def test_arrays_that_cannot_be_weights(name: str, values: np.ndarray, words: str) -> None:
    np.savez("d.npz", x=X, y=Y, **{name: values})
    assert words in xp("train", "d.npz", *FAST, "--out", "run", code=1).stderr
