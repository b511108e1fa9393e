"""What settings become that are left to the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import datasets
from sklearn.model_selection import train_test_split

from tests.command import xp
from xpnet import MLPClassifier, MLPRegressor
from xpnet.data import Dataset
from xpnet.runs import automatic
from xpnet.runs.config import TrainConfig
from xpnet.runs.folder import RunFolder, open_model
from xpnet.runs.notes import still_falling
from xpnet.training.history import History

pytestmark = pytest.mark.usefixtures("elsewhere")


def write(path: str, x: np.ndarray, y: np.ndarray) -> None:
    names = ",".join(f"x{i}" for i in range(x.shape[1]))
    rows = (",".join(map(repr, [*map(float, row), t])) for row, t in zip(x, y.tolist(), strict=True))
    Path(path).write_text(f"{names},y\n" + "\n".join(rows) + "\n")


def table(n: int, features: int = 4, *, classes: int = 3) -> Dataset:
    y = np.arange(n) % classes if classes else np.arange(n, dtype=float)[:, None]
    return Dataset(
        "t", np.zeros((n, features)), y, None, None, (features,), tuple("abc"[:classes]), 1.0,
        task="classification" if classes else "regression", tabular={},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_a_table_trained_with_defaults_is_on_a_level_with_the_estimators(name: str) -> None:
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    regression = name == "diabetes"
    scores = []
    for seed in (0, 1):
        parts = train_test_split(x, y, test_size=0.3, random_state=seed, stratify=None if regression else y)
        write("a.csv", parts[0], parts[2])
        write("b.csv", parts[1], parts[3])
        xp("train", "a.csv", "--test", "b.csv", "--seed", seed, "--out", f"{seed}", "--quiet")
        result = json.loads(Path(f"{seed}/result.json").read_text())
        estimator = (MLPRegressor if regression else MLPClassifier)(random_state=seed)
        estimator.fit(parts[0], parts[2])
        scores.append(
            (result["test_r2" if regression else "test_accuracy"], estimator.score(parts[1], parts[3]))
        )
    command, other = np.mean(scores, axis=0)
    assert command > other - 0.02, scores


def test_what_is_auto_for_tables() -> None:
    few = automatic.resolve(TrainConfig(), table(100))
    assert (few.hidden, few.epochs, few.batch_size, few.lr, few.schedule) == ([512], 200, 64, 0.003, "cosine")
    assert (few.l2, few.label_smoothing, few.valid_fraction, few.dropout) == (0.01, 0.1, 0.0, [0.0])
    assert few.input_noise == pytest.approx(0.33 * 100 ** (-1 / 4))
    many = automatic.resolve(TrainConfig(), table(50_000, classes=0))
    assert (many.hidden, many.epochs, many.batch_size, many.l2) == ([256, 128], 200, 256, 1e-4)
    assert (many.dropout, many.input_noise, many.label_smoothing) == ([0.1], 0.0, 0.0)
    other = automatic.resolve(TrainConfig(optimizer="sgd", loss="hinge", hidden=[]), table(5000))
    assert (other.lr, other.label_smoothing, other.hidden, other.dropout) == (None, 0.0, [], [0.0])
    assert automatic.resolve(many, table(7)) == many  # what has a value keeps it


def test_pictures_keep_a_plain_start() -> None:
    x = np.zeros((20, 4, 4), np.uint8)
    plain = automatic.resolve(
        TrainConfig(), Dataset("p", x, np.arange(20) % 2, None, None, (4, 4), ("a", "b"), 1.0)
    )
    assert {name: getattr(plain, name) for name in automatic.PLAIN} == automatic.PLAIN
    assert (plain.valid_fraction, plain.lr) == (0.1, None)


def test_few_rows_are_held_out_where_settings_need_them() -> None:
    def share(n: int = 500, **settings: Any) -> float:
        return automatic.valid_fraction(TrainConfig(**settings), n, features=True)

    assert (share(), share(5000), share(valid_fraction=0.3)) == (0.0, 0.1, 0.3)
    assert share(patience=3) == share(monitor="valid_loss") == share(schedule="plateau") == 0.1


def test_the_estimators_use_the_same_rules() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(150, 3)), np.arange(150) % 3
    write("t.csv", x, y)
    clf = MLPClassifier(max_iter=1).fit(x, y)
    xp("train", "t.csv", "--test-fraction", 0, "--epochs", 1, "--out", "run", "--quiet")
    config = RunFolder("run").config()
    assert (config.l2, config.input_noise, config.hidden) == (clf.alpha_, clf.input_noise_, [512])
    assert (config.lr, config.schedule) == (clf.learning_rate_init, clf.learning_rate)


def test_a_run_keeps_what_was_chosen_and_goes_on_with_it() -> None:
    rng = np.random.default_rng(0)
    write("t.csv", rng.normal(size=(90, 3)), np.arange(90) % 3)
    xp("train", "t.csv", "--epochs", 4, "--out", "run", "--quiet")
    text = Path("run/config.toml").read_text()
    assert '"auto"' not in text.replace('init = "auto"', "")
    config = RunFolder("run").config()
    assert (config.hidden, config.epochs, config.schedule, config.valid_fraction) == ([512], 4, "cosine", 0.0)
    xp("train", "--resume", "run", "--epochs", 5, "--quiet")
    xp("train", "--config", "run/config.toml", "--out", "again", "--quiet")
    assert json.loads(Path("again/result.json").read_text())["epochs"] == 5
    shown = xp("train", "t.csv", "--config", "run/config.toml", "--epochs", "auto", "--print-config").stdout
    assert 'epochs = "auto"' in shown and "hidden = [512]" in shown


def test_a_sweep_of_few_rows_has_something_to_compare_by() -> None:
    rng = np.random.default_rng(0)
    write("t.csv", rng.normal(size=(90, 3)), np.arange(90) % 3)
    xp("sweep", "t.csv", "--grid", "hidden=4;6", "--epochs", 2, "--top", 1, "--out", "s", "--quiet")
    top = RunFolder("s/top-1").config()
    assert (top.valid_fraction, top.schedule, top.lr) == (0.1, "cosine", 0.003)


# --- training that ends too early -----------------------------------------------------------------
def history(losses: Any, valid: Any = None, stopped: str = "epochs") -> History:
    valid = [None] * len(losses) if valid is None else valid
    found = History({"train_loss": a, "valid_loss": b} for a, b in zip(losses, valid, strict=True))
    found.stopped = stopped
    return found


def test_a_loss_that_still_falls_is_noticed() -> None:
    t = np.arange(30) / 30
    slow, fast = np.exp(-1.0 * t), np.exp(-8.0 * t)
    assert still_falling(history(slow)) and still_falling(history(1 - t))
    assert not still_falling(history(fast)) and not still_falling(history(slow[::-1]))
    assert not still_falling(history(slow[:3])) and not still_falling(history(np.ones(30)))
    assert not still_falling(history(slow, stopped="patience"))
    assert still_falling(history(slow, valid=slow)) and not still_falling(history(slow, valid=slow[::-1]))


def test_the_end_of_training_says_so() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    np.savez("d.npz", x=rng.normal(size=(200, 2)) + y[:, None], y=y)
    options = ("train", "d.npz", "--hidden", 8, "--epochs", 20, "--schedule", "constant", "--out", "run",
               "--overwrite")  # fmt: skip
    words = "note: the training loss was still falling at the last epoch: more --epochs may help"
    assert words in xp(*options, "--lr", "1e-4").stderr
    assert xp(*options, "--lr", "1e-4", "--quiet").stderr == ""
    assert words not in xp(*options, "--lr", "0.1").stderr


def test_a_training_that_blew_up_is_said() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 3))
    write("t.csv", x, x[:, 0] * 1e4 + 1e6)
    write("c.csv", x, np.arange(90) % 2)
    words = "training blew up. A smaller --lr"
    for options in (("t.csv", "--task", "regression"), ("c.csv",)):
        assert words in xp("train", *options, "--epochs", 3, "--lr", 100).stderr
        assert words not in xp("train", *options, "--epochs", 3).stderr


def test_predicted_probabilities_undo_the_smoothing() -> None:
    x, y = datasets.load_iris(return_X_y=True)
    write("a.csv", x, np.array(["a", "b", "c"])[y])
    xp("train", "a.csv", "--epochs", 40, "--out", "smooth", "--quiet")
    xp("train", "a.csv", "--epochs", 1, "--label-smoothing", 0, "--out", "plain", "--quiet")
    assert [open_model(run)[0].unsmoothing for run in ("smooth", "plain")] == [0.1, None]
    said = [json.loads(line) for line in xp("predict", "smooth", "a.csv", "--json").output.splitlines()]
    # the network learned that no class is surer than 1 - 0.1 + 0.1 / 3
    assert max(row["predictions"][0]["probability"] for row in said) > 0.98


def test_a_schedule_that_follows_another_length_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    x, y = datasets.load_iris(return_X_y=True)
    write("a.csv", x, y)
    for schedule, said in (("cosine", True), ("constant", False), ("step:every=1", False)):
        xp("train", "a.csv", "--epochs", 2, "--schedule", schedule, "--out", schedule[:4], "--quiet")
        capfd.readouterr()
        done = xp("train", "--resume", schedule[:4], "--epochs", 3)
        assert ("was planned for 2 epochs and follows the new length" in done.output) == said
