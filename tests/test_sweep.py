"""Sweeps: what is tried, that each member equals a run of its own, tables, resuming, bad input; the command."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import xpnet
from tests.command import xp
from xpnet.errors import ConfigError, DataError, FileFormatError, MissingPackageError, XpnetError
from xpnet.plots import sweep_scores
from xpnet.runs.automatic import resolve
from xpnet.runs.config import TrainConfig
from xpnet.runs.data import load_run_data
from xpnet.runs.folder import RunFolder
from xpnet.runs.run import train
from xpnet.sweep import Range, SweepConfig, candidates, sweep
from xpnet.sweep import results as results_module
from xpnet.sweep import run as run_module
from xpnet.sweep.members import fold_rows
from xpnet.sweep.run import final_config
from xpnet.sweep.space import read_axis, read_point
from xpnet.sweep.table import Progress

SMALL: dict[str, Any] = {
    "hidden": [5],
    "epochs": 2,
    "batch_size": 16,
    "dtype": "float64",
    "data": "small.npz",
    "schedule": "constant",
}


@pytest.fixture(autouse=True)
def here(elsewhere: None) -> None:
    """Work in an empty folder with two small data sets, and do not wait for disks."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = rng.normal(size=(90, 4)) + 1.5 * y[:, None]
    np.savez("small.npz", x=x, y=y, x_test=x[::4] + 0.1, y_test=y[::4])
    kinds = np.array(["a", "b", "c"])[rng.integers(3, size=90)]
    rows = [f"{a:.4f},{k},{3 * a + (k == 'b'):.4f}" for a, k in zip(x[:, 0], kinds, strict=True)]
    Path("table.csv").write_text("size,kind,price\n" + "\n".join(rows) + "\n")
    # the same, where rows count differently
    w = np.arange(90) % 4
    np.savez("weighted.npz", x=x, y=y, sample_weight=w)
    rows = [f"{k},{row}" for k, row in zip(w, rows, strict=True)]
    Path("weighted.csv").write_text("weight,size,kind,price\n" + "\n".join(rows) + "\n")


def small(**more: Any) -> TrainConfig:
    return TrainConfig(**{**SMALL, **more})


FLAGS = ("--data", "small.npz", "--hidden", 5, "--epochs", 2, "--batch-size", 16)


def table(path: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class TestSpace:
    def test_grid_points_and_draws(self) -> None:
        grid = {"lr": [0.1, 0.2], "hidden": [[3], [4, 5]]}
        assert len(candidates(grid, {}, [], random=None, seed=0)) == 4
        drawn = candidates(grid, {"l2": Range(1e-6, 1e-2, log=True)}, [{"lr": 9.0}], random=3, seed=0)
        assert drawn[0] == {"lr": 9.0} and len(drawn) == 1 + 3 * 4
        assert len({c["l2"] for c in drawn[1:]}) == 3
        assert all(1e-6 <= c["l2"] <= 1e-2 for c in drawn[1:])

    def test_more_draws_keep_the_first_ones(self) -> None:
        ranges = {"l2": Range(0.0, 1.0), "epochs": Range(5, 9, whole=True), "activation": ["relu", "tanh"]}
        few = candidates({}, ranges, [], random=3, seed=1)
        many = candidates({}, dict(reversed(ranges.items())), [], random=6, seed=1)
        assert many[:3] == few and candidates({}, ranges, [], random=3, seed=2) != few
        assert {type(c["epochs"]) for c in many} == {int} and {c["epochs"] for c in many} <= set(range(5, 10))

    def test_widths_are_drawn_as_lists(self) -> None:
        (one,) = candidates({}, {"hidden": Range(16, 64, whole=True)}, [], random=1, seed=0)
        assert len(one["hidden"]) == 1 and 16 <= one["hidden"][0] <= 64

    def test_equal_candidates_are_tried_once(self) -> None:
        assert candidates({"lr": [0.1, 0.1]}, {}, [{"lr": 0.1}], random=None, seed=0) == [{"lr": 0.1}]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("lr=1e-3,1e-2", ("lr", [1e-3, 1e-2])),
            ("batch-size=8,16", ("batch_size", [8, 16])),
            ("hidden=300,100;500;none", ("hidden", [[300, 100], [500], []])),
            ("hidden=3,4", ("hidden", [[3], [4]])),
            ("max_norm=none,2", ("max_norm", [None, 2.0])),
            ("schedule=step:every=5,factor=0.5;cosine", ("schedule", ["step:every=5,factor=0.5", "cosine"])),
        ],
    )
    def test_values_as_text(self, text: str, expected: Any) -> None:
        assert read_axis(text) == expected

    def test_points_as_text(self) -> None:
        assert read_point("lr=0.1 hidden=300,100") == {"lr": 0.1, "hidden": [300, 100]}

    def test_ranges_as_text(self) -> None:
        for text in ("log:0.0001..0.1", "lin:0..0.5", "int:16..256", "logint:16..512"):
            assert str(Range.parse("lr", text)) == text


class TestSettings:
    def test_toml_round_trip(self) -> None:
        config = SweepConfig(
            base=small(), grid={"lr": [1e-3, 1e-2], "hidden": [[3], [4, 5]], "max_norm": [None, 2.0]},
            ranges={"l2": "log:1e-6..1e-2", "activation": ["relu", "tanh"]}, points=[{"lr": 0.5}], random=4,
            folds=3, seeds=2, top=1,
        )  # fmt: skip
        Path("s.toml").write_text(config.to_toml())
        from xpnet.sweep.settings import resolve

        assert resolve("s.toml", {}, {}) == config
        other = resolve("s.toml", {"epochs": 7}, {"grid": {"l2": [0.0]}, "folds": 5})
        assert (other.base.epochs, other.folds, other.seeds) == (7, 5, 2)
        assert set(other.ranges) == {"activation"} and other.grid["l2"] == [0.0]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"grid": {"lrr": [1]}}, "did you mean 'lr'"),
            ({"grid": {"lr": []}}, "no values for lr"),
            ({"grid": {"lr": 0.1}}, "must have a list"),
            ({"grid": {"lr": ["much"]}}, "lr must be a number"),
            ({"grid": {"data": ["a"]}}, "data is the same for the whole sweep"),
            ({"grid": {"seed": [1]}}, "--seeds N"),
            ({"folds": 1}, "one fold has nothing"),
            ({"folds": -1}, "folds must be"),
            ({"seeds": 0}, "seeds must be"),
            ({"random": 0, "ranges": {"lr": "log:1..2"}}, "random must be"),
            ({"ranges": {"lr": "log:0..1"}}, "starts above 0"),
            ({"ranges": {"lr": "log:2..1"}}, "low end must be below"),
            ({"ranges": {"lr": "gauss:1..2"}}, "expected KIND:LOW..HIGH"),
            ({"ranges": {"lr": "lin:a..b"}}, "not a pair of numbers"),
            ({"base": small(valid_fraction=0.0)}, "compares by validation data"),
            ({"base": small(valid="v.npz"), "folds": 2}, "exclude each other"),
            ({"base": small(statistics=True)}, "statistics is for single runs"),
        ],
    )
    def test_impossible_ones(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            SweepConfig(**options)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "nothing to try"),
            ({"random": 3}, "needs a --range"),
            ({"ranges": {"lr": "log:1e-3..1"}}, "--random N"),
            ({"ranges": {"lr": "log:1e-3..1"}, "grid": {"lr": [1.0]}, "random": 2}, "leave one of them out"),
        ],
    )
    def test_nothing_to_try(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            SweepConfig(**options).candidates()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("lrr = 1", "setting in s.toml"), ("[sweep]\nfold = 3", "did you mean 'folds'"),
            ("[sweep]\ngrid = 3", "grid of .sweep. must be"), ("sweep = 3", "must be a table"),
            ("[sweep]\npoints = [3]", "points of .sweep. must be"), ("[", "not a TOML file"),
        ],
    )  # fmt: skip
    def test_toml_that_cannot_be_read(self, text: str, message: str) -> None:
        Path("s.toml").write_text(text)
        assert message.replace(".sweep.", "[sweep]") in xp("sweep", "--config", "s.toml", code=2).stderr

    def test_a_file_of_the_other_command_is_sent_there(self) -> None:
        Path("a sweep.toml").write_text("epochs = 1\n[sweep.grid]\nlr = [0.1, 0.2]\n")
        Path("run.toml").write_text("epochs = 1\n")
        for command in (["train"], ["compare", "--devices", "cpu,reference"]):
            error = xp(*command, "--config", "a sweep.toml", code=2).stderr
            assert error.endswith("in its table [sweep]: xpnet sweep --config 'a sweep.toml'\n")
        error = xp("sweep", "--config", "run.toml", code=2).stderr
        assert "run.toml has no table [sweep], so there is nothing to try" in error
        assert error.endswith(" xpnet train --config run.toml\n")
        axis = ["--grid", "lr=0.1,0.2"]
        assert "epochs = 1\n" in xp("sweep", "--config", "run.toml", *axis, "--print-config").stdout


class TestFolds:
    def test_each_row_validates_once_and_classes_are_shared_out(self) -> None:
        y = np.repeat([0, 1, 2], [30, 20, 11])
        folds = fold_rows(y, 4, seed=3, stratify=True)
        assert sorted(np.concatenate([v for _, v in folds]).tolist()) == list(range(61))
        for learnt, valid in folds:
            assert not set(learnt) & set(valid) and len(learnt) + len(valid) == 61
            counts = np.bincount(y[valid], minlength=3)
            assert (np.abs(counts - np.array([30, 20, 11]) / 4) < 1.0).all()
        again = fold_rows(y, 4, seed=3, stratify=True)
        assert all(np.array_equal(a[1], b[1]) for a, b in zip(folds, again, strict=True))
        other = fold_rows(y, 4, seed=4, stratify=True)
        assert not np.array_equal(folds[0][1], other[0][1])

    def test_a_class_that_is_in_one_fold_only(self) -> None:
        y = np.array([0] * 8 + [1])
        with pytest.raises(DataError, match="one of them holds all samples of a class"):
            fold_rows(y, 3, 0, stratify=True)
        assert len(fold_rows(y, 3, 0, stratify=False)) == len(
            fold_rows(np.minimum(y + np.arange(9), 2), 3, 0, stratify=True)
        )

    def test_too_many(self) -> None:
        with pytest.raises(DataError, match="5 folds need at least 5 samples, found 3"):
            fold_rows(np.zeros((3, 1)), 5, 0, stratify=False)


def test_a_sweep_goes_on_from_anywhere_and_after_its_file_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xp("sweep", "table.csv", "--grid", "lr=0.01,0.1", "--hidden", 4, "--epochs", 2, "--out", "s", "--quiet")
    monkeypatch.chdir("/")
    xp("sweep", "--resume", tmp_path / "s", "--top", 1, "--quiet")
    (tmp_path / "table.csv").rename(tmp_path / "moved.csv")
    xp("sweep", "--resume", tmp_path / "s", "--data", tmp_path / "moved.csv", "--quiet")
    xp("sweep", "--resume", tmp_path / "s", "--quiet")


class TestMembersEqualRuns:
    @pytest.mark.parametrize("data", ["small.npz", "table.csv", "weighted.npz", "weighted.csv"])
    def test_held_out_share(self, data: str) -> None:
        grid = {"lr": [0.003, 0.03], "hidden": [[5], [4, 3]]}
        more = {"weight": "weight"} if data == "weighted.csv" else {}
        config = SweepConfig(base=small(data=data, **more), grid=grid, seeds=2)
        result = sweep(config, "s", quiet=True)
        assert (result["candidates"], result["members"]) == (4, 8)
        members = json.loads(Path("s/state.json").read_text())["members"]
        for m in members[::3]:
            own = {**config.candidates()[m["candidate"]], "seed": m["seed"]}
            own |= {**more, "valid_fraction": 0.1}  # a run on few rows of a table holds none out by itself
            alone = train(small(data=data, **own), "alone", overwrite=True, quiet=True)
            for name in ("valid_loss", "valid_accuracy", "best_epoch", "epochs"):
                assert m[name] == (
                    alone[name] if alone[name] is None else pytest.approx(alone[name], rel=1e-9)
                )

    def test_validation_data_of_ones_own(self) -> None:
        config = SweepConfig(base=small(valid="small.npz"), grid={"lr": [0.01, 0.1]}, seeds=2)
        sweep(config, "s", quiet=True)
        members = json.loads(Path("s/state.json").read_text())["members"]
        alone = train(small(valid="small.npz", lr=0.1, seed=1), "alone", quiet=True)
        (same,) = [m for m in members if m["candidate"] == 1 and m["seed"] == 1]
        assert same["valid_loss"] == pytest.approx(alone["valid_loss"], rel=1e-9)

    @pytest.mark.parametrize("data", ["small.npz", "table.csv"])
    def test_folds(self, data: str) -> None:
        config = SweepConfig(base=small(data=data), grid={"lr": [0.01, 0.05]}, folds=3, seeds=2)
        result = sweep(config, "s", quiet=True)
        rows = table("s/members.csv")
        assert len(rows) == 12 and {(r["fold"], r["seed"]) for r in rows} == {
            (str(f), str(s)) for f in range(3) for s in range(2)
        }
        best = [float(r["score"]) for r in rows if r["candidate"] == table("s/results.csv")[0]["candidate"]]
        assert result["best"]["mean"] == pytest.approx(np.mean(best))
        assert result["best"]["std"] == pytest.approx(np.std(best, ddof=1))


class TestResults:
    def test_files_ranks_and_the_best(self) -> None:
        config = SweepConfig(base=small(), grid={"lr": [1e-6, 0.05], "hidden": [[5], [3, 3]]}, folds=2, top=1)
        result = sweep(config, "s", quiet=True, table="copy.csv")
        rows = table("s/results.csv")
        assert [r["rank"] for r in rows] == ["1", "2", "3", "4"]
        means = [float(r["mean"]) for r in rows]
        assert means == sorted(means, reverse=True) and rows[0]["lr"] == "0.05"
        assert {r["hidden"] for r in rows} == {"5", "3,3"}
        assert Path("copy.csv").read_bytes() == Path("s/results.csv").read_bytes()
        assert Path("s/scores.png").read_bytes().startswith(b"\x89PNG")
        assert result == {**json.loads(Path("s/result.json").read_text()), "sweep": "s"}
        # the best is an ordinary run, on all training data; only it has seen the test set
        (top,) = result["top"]
        model = xpnet.load("s/top-1/model.safetensors")
        assert model.sizes == (4, *result["best"]["settings"]["hidden"], 3)
        assert json.loads(Path("s/top-1/result.json").read_text())["test_accuracy"] == top["test_accuracy"]
        assert RunFolder("s/top-1").config().valid_fraction == 0.0
        assert not any(name.startswith("test") for row in (rows[0], *table("s/members.csv")) for name in row)

    def test_parquet(self) -> None:
        pq = pytest.importorskip("pyarrow.parquet")
        sweep(SweepConfig(base=small(), grid={"lr": [0.01], "max_norm": [None, 2.0]}), "s", quiet=True)
        rows = pq.read_table("s/results.parquet").to_pylist()
        assert [r["rank"] for r in rows] == [1, 2] and {r["max_norm"] for r in rows} == {None, 2.0}
        assert pq.read_table("s/members.parquet").num_rows == 2

    def test_without_pyarrow_and_matplotlib(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(results_module, "has_parquet", lambda: False)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        sweep(SweepConfig(base=small(), grid={"lr": [0.01]}), "s", quiet=True)
        assert Path("s/results.csv").exists() and not list(Path("s").glob("*.parquet"))
        with pytest.raises(MissingPackageError, match="Parquet needs pyarrow"):
            results_module.check_writable("x.parquet")

    def test_one_that_diverges_comes_last(self) -> None:
        config = SweepConfig(base=small(optimizer="sgd"), grid={"lr": [1e200, 0.05]}, folds=2, top=5)
        result = sweep(config, "s", quiet=True)
        rows = table("s/results.csv")
        assert rows[1]["lr"] == "1e+200" and rows[1]["failed"] == "2" and rows[1]["mean"] == ""
        assert result["failed"] == 2 and [t["rank"] for t in result["top"]] == [1]
        assert any("not finite" in r["error"] or "finite" in r["error"] for r in table("s/members.csv"))

    def test_all_diverge(self) -> None:
        with pytest.raises(ConfigError, match="every candidate failed"):
            sweep(SweepConfig(base=small(optimizer="sgd"), grid={"lr": [1e200]}), "s", quiet=True)
        assert Path("s/results.csv").exists()

    def test_what_the_best_are_trained_with(self) -> None:
        data = load_run_data(small())
        folds = SweepConfig(base=small(patience=2, epochs=9), grid={"lr": [0.1]}, folds=3)
        config = final_config(folds, {"lr": 0.1}, 4.4, data)
        assert (config.lr, config.valid_fraction, config.patience, config.epochs) == (0.1, 0.0, None, 4)
        for monitor, expected in (("valid_loss", None), ("train_loss", "train_loss")):
            watched = SweepConfig(base=small(monitor=monitor), grid={"lr": [0.1]}, folds=3)
            assert final_config(watched, {"lr": 0.1}, 4.4, data).monitor == expected
        planned = final_config(folds, {"schedule": "cosine"}, 4.4, data)
        assert planned.epochs == 9
        share = SweepConfig(base=small(patience=2, epochs=9), grid={"lr": [0.1]})
        expected = resolve(small(patience=2, epochs=9, lr=0.1, valid_fraction=0.1), data)
        assert final_config(share, {"lr": 0.1}, 4.4, data) == expected

    def test_figure_of_words_numbers_and_zero(self) -> None:
        rows = [
            {"l2": 0.0, "activation": "relu", "lr": 0.1, "mean": 0.5, "std": 0.1},
            {"l2": 1e-4, "activation": "tanh", "lr": 0.001, "mean": 0.6, "std": None},
            {"l2": 1e-2, "activation": "tanh", "lr": 0.01, "mean": None, "std": None},
        ]
        axes = sweep_scores(rows, ["l2", "activation", "lr"], "valid_accuracy").axes
        assert [a.get_xscale() for a in axes[:3]] == ["linear", "linear", "log"]
        assert [t.get_text() for t in axes[1].get_xticklabels()] == ["relu", "tanh"]
        rows[2]["mean"] = 0.1
        assert sweep_scores(rows, ["l2"], "valid_accuracy").axes[0].get_xscale() == "symlog"
        with pytest.raises(DataError, match="nothing varies"):
            sweep_scores(rows, [], "valid_accuracy")
        with pytest.raises(DataError, match="no candidate has a score"):
            sweep_scores([{"lr": 1, "mean": None}], ["lr"], "valid_accuracy")


class TestResume:
    CONFIG: ClassVar[dict[str, Any]] = {"grid": {"lr": [0.01, 0.05], "hidden": [[5], [4]]}, "folds": 2}

    def interrupt_after(self, n: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Make the n-th result interrupt; returns how many members each call of fit_many gets."""
        calls: list[int] = []
        real = run_module.fit_many

        def interrupted(configurations: Any, *args: Any, on_result: Any, **options: Any) -> Any:
            calls.append(len(configurations))
            seen = []

            def some(result: Any) -> None:
                if len(calls) == 1 and len(seen) == n:
                    raise KeyboardInterrupt
                seen.append(result)
                on_result(result)

            return real(configurations, *args, on_result=some, **options)

        monkeypatch.setattr(run_module, "fit_many", interrupted)
        return calls

    def test_finished_members_are_not_trained_again(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        whole = sweep(SweepConfig(base=small(), **self.CONFIG), "whole", quiet=True)
        calls = self.interrupt_after(3, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            sweep(SweepConfig(base=small(), **self.CONFIG), "s", quiet=True)
        assert "3 of 8 networks are trained and saved. Continue with: xpnet sweep --resume s" in (
            capsys.readouterr().err
        )
        assert len(json.loads(Path("s/state.json").read_text())["members"]) == 3
        again = sweep(SweepConfig(base=small(), **self.CONFIG), "s", quiet=True, resume=True)
        assert calls == [8, 5]
        assert again["best"] == {**whole["best"], "mean": pytest.approx(whole["best"]["mean"]),
                                 "std": pytest.approx(whole["best"]["std"]),
                                 "min": pytest.approx(whole["best"]["min"]),
                                 "max": pytest.approx(whole["best"]["max"])}  # fmt: skip

    def test_by_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.interrupt_after(2, monkeypatch)
        xp("sweep", *FLAGS, "--grid", "lr=0.01,0.05", "--folds", 2, "--out", "s", code=130)
        done = xp("sweep", "--resume", "s", "--top", 1, "--json")
        assert "2 of them done" in done.stdout
        result = json.loads(done.stdout.splitlines()[-1])
        assert result["members"] == 4 and result["top"][0]["run"] == str(Path("s/top-1"))
        # once more, with nothing left to do: the run that is there is not trained again
        before = Path("s/top-1/model.safetensors").stat().st_mtime_ns
        xp("sweep", "--resume", "s", "--top", 2, "--quiet")
        assert Path("s/top-1/model.safetensors").stat().st_mtime_ns == before
        assert Path("s/top-2/result.json").exists()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"base": small(epochs=3)}, "epochs is 3, but the sweep was started with 2"),
            ({"folds": 3}, "folds is 3"),
            ({"grid": {"lr": [0.01, 0.06], "hidden": [[5], [4]]}}, "the candidates is"),
        ],
    )
    def test_changed_settings_are_refused(self, change: dict[str, Any], message: str) -> None:
        config = {"base": small(), **self.CONFIG}
        sweep(SweepConfig(**config), "s", quiet=True)
        before = Path("s/state.json").read_bytes()
        with pytest.raises(FileFormatError, match=message):
            sweep(SweepConfig(**{**config, **change}), "s", quiet=True, resume=True)
        assert Path("s/state.json").read_bytes() == before

    def test_changed_weights_are_refused(self) -> None:
        sweep(SweepConfig(base=small(data="weighted.npz"), grid={"lr": [0.1]}), "s", quiet=True)
        with np.load("weighted.npz") as arrays:
            np.savez("weighted.npz", **{**arrays, "sample_weight": arrays["sample_weight"][::-1]})
        with pytest.raises(FileFormatError, match="the data, or how they are scaled, are not what"):
            sweep(
                SweepConfig(base=small(data="weighted.npz"), grid={"lr": [0.1]}), "s", quiet=True, resume=True
            )

    def test_changed_data_are_refused(self) -> None:
        sweep(SweepConfig(base=small(), **self.CONFIG), "s", quiet=True)
        with np.load("small.npz") as arrays:
            kept = dict(arrays)
        kept["x"][0, 0] += 1.0
        np.savez("small.npz", **kept)
        with pytest.raises(FileFormatError, match="the data, or how they are scaled, are not"):
            sweep(SweepConfig(base=small(), **self.CONFIG), "s", quiet=True, resume=True)

    @pytest.mark.parametrize("text", ["{", "{}", '{"format": 9}'])
    def test_damaged_state(self, text: str) -> None:
        sweep(SweepConfig(base=small(), **self.CONFIG), "s", quiet=True)
        Path("s/state.json").write_text(text)
        with pytest.raises(FileFormatError):
            sweep(SweepConfig(base=small(), **self.CONFIG), "s", quiet=True, resume=True)

    def test_a_failure_keeps_what_is_trained(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = run_module.fit_many

        def failing(*args: Any, on_result: Any, **options: Any) -> Any:
            seen = []

            def two(result: Any) -> None:
                seen.append(on_result(result))
                if len(seen) == 2:
                    raise XpnetError("the device went away.")

            return real(*args, on_result=two, **options)

        monkeypatch.setattr(run_module, "fit_many", failing)
        with pytest.raises(
            XpnetError, match="What is trained is kept; continue with: xpnet sweep --resume s"
        ):
            sweep(SweepConfig(base=small(), **self.CONFIG), "s", quiet=True)
        assert len(json.loads(Path("s/state.json").read_text())["members"]) == 2

    def test_flags_that_would_change_it(self) -> None:
        sweep(SweepConfig(base=small(), **self.CONFIG), "s", quiet=True)
        error = xp("sweep", "--resume", "s", "--lr", 1, "--folds", 3, code=2).stderr
        assert "--lr, --folds cannot be combined with --resume" in error


class TestCommand:
    def test_from_flags(self) -> None:
        done = xp("sweep", *FLAGS, "--grid", "lr=0.01,0.05", "--point", "lr=0.1 hidden=3", "--seeds", 2)
        lines = done.stdout.splitlines()
        assert (
            lines[0] == f"3 candidates x 1 validation part x 2 seeds = 6 networks -> {Path('sweeps/small-1')}"
        )
        assert sum(line.startswith("[") for line in lines) == 3
        assert "train the best again with: xpnet sweep --resume" in done.stdout
        assert sorted(p.name for p in Path("sweeps/small-1").iterdir() if p.suffix != ".parquet") == [
            "members.csv", "result.json", "results.csv", "scores.png", "state.json", "sweep.toml"
        ]  # fmt: skip

    def test_from_toml(self) -> None:
        Path("s.toml").write_text(
            'data = "table.csv"\nepochs = 2\nhidden = [4]\n[sweep]\nrandom = 2\n'
            '[sweep.range]\nlr = "log:1e-3..1e-1"\nactivation = ["relu", "tanh"]\n'
        )
        done = xp("sweep", "--config", "s.toml", "--out", "s", "--quiet", "--json")
        result = json.loads(done.stdout)
        assert result["monitor"] == "valid_loss" and result["candidates"] == 2
        printed = xp("sweep", "--config", "s/sweep.toml", "--print-config").stdout
        assert printed == Path("s/sweep.toml").read_text()

    def test_threads_and_arithmetic_change_nothing(self) -> None:
        best = []
        for k, more in enumerate(
            [(), ("--workers", 2), ("--no-capture",), ("--batches", "shared", "--memory", 1)]
        ):
            arguments = (
                "--grid",
                "lr=0.01,0.05",
                "--seeds",
                2,
                "--precision",
                "float64",
                "--quiet",
                "--json",
            )
            best.append(json.loads(xp("sweep", *FLAGS, *arguments, *more, "--out", f"s{k}").stdout)["best"])
        for other in best[1:3]:
            assert other["mean"] == pytest.approx(best[0]["mean"], rel=1e-9)
        assert best[3]["mean"] > 0.3

    def test_data_as_argument(self) -> None:
        xp("sweep", "table.csv", "--hidden", 3, "--epochs", 1, "--grid", "lr=0.01", "--quiet", "--out", "s")
        error = xp("sweep", "table.csv", "--data", "x", "--grid", "lr=1", code=2).stderr
        assert "the data are named twice" in error

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--grid", "lrr=1"], "did you mean 'lr'"),
            (["--grid", "lr"], "expected NAME=VALUE"),
            (["--grid", "lr=0.1", "--grid", "lr=0.2"], "lr is named twice"),
            (["--grid", "epochs=two"], "cannot read the value 'two'"),
            (["--point", "lr"], "expected NAME=VALUE NAME=VALUE"),
            (["--grid", "dropout=1.5"], "candidate dropout=1.5: dropout must be"),
            (["--grid", "activation=rellu,tanh"], "candidate activation=rellu: unknown activation"),
            (["--grid", "optimizer=adam,sdg"], "did you mean 'sgd'"),
            (["--grid", "init=he_nrmal"], "did you mean 'he_normal'"),
            (["--grid", "lr=0.1", "--results", "none/x.csv"], "cannot be written"),
            (["--grid", "lr=0.1", "--results", "x.txt"], "must end in .csv or .parquet"),
        ],
    )
    def test_bad_input_leaves_nothing(self, arguments: list[str], message: str) -> None:
        before = sorted(Path().rglob("*"))
        done = xp("sweep", *FLAGS, *arguments, code=2)
        assert message in done.stderr
        assert sorted(Path().rglob("*")) == before

    def test_data_in_the_order_of_their_classes(self) -> None:
        order = np.argsort(np.arange(90) % 3, kind="stable")
        with np.load("small.npz") as arrays:
            np.savez("sorted.npz", x=arrays["x"][order], y=arrays["y"][order])
        flags = ("--data", "sorted.npz", *FLAGS[2:], "--folds", 2)
        xp("sweep", *flags, "--grid", "lr=0.01,0.1", "--out", "s", "--quiet")
        assert json.loads(Path("s/result.json").read_text())["failed"] == 0

    def test_more_folds_than_samples(self) -> None:
        done = xp("sweep", *FLAGS, "--grid", "lr=0.1", "--folds", 100, code=1)
        assert "100 folds need at least 100 samples, found 90" in done.stderr

    def test_different_losses_of_a_regression(self) -> None:
        done = xp("sweep", "table.csv", "--grid", "loss=huber,squared_error", code=2)
        assert "cannot be compared" in done.stderr

    def test_a_folder_that_is_in_use(self) -> None:
        Path("s").mkdir()
        Path("s/mine.txt").write_text("mine")
        done = xp("sweep", *FLAGS, "--grid", "lr=0.1", "--out", "s", code=2)
        assert "s is not empty: it holds files but no sweep; choose another --out" in done.stderr
        assert Path("s/mine.txt").read_text() == "mine"
        xp("sweep", *FLAGS, "--grid", "lr=0.1", "--out", "other", "--quiet")
        done = xp("sweep", *FLAGS, "--grid", "lr=0.1", "--out", "other", code=2)
        assert "continue the sweep in it with --resume other, or choose another --out" in done.stderr
        assert (
            "other is not empty: it holds files but no run; choose"
            in xp("train", *FLAGS, "--out", "other", code=2).stderr
        )


class TestTable:
    ROWS: tuple[dict[str, Any], ...] = tuple(
        {"candidate": c, "score": 0.5 + 0.1 * c, "best_epoch": 1, "epochs": 1, "seconds": 0.1}
        for c in (0, 0, 1, 1)
    )

    def test_lines(self) -> None:
        out = io.StringIO()
        with Progress([{"lr": 0.1}, {"lr": 0.2}], 2, out) as progress:
            for n in range(1, 5):
                progress.update(self.ROWS[:n], "valid_accuracy")
        assert out.getvalue().splitlines() == ["[2/4] lr=0.1: 50.00 % ± 0.00", "[4/4] lr=0.2: 60.00 % ± 0.00"]

    def test_live_on_a_terminal(self) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        out = Terminal()
        with Progress([{"lr": 0.1}, {"lr": 0.2}], 2, out) as progress:
            for n in range(1, 5):
                progress.update(self.ROWS[:n], "valid_accuracy")
        shown = out.getvalue()
        assert "4 of 4 trained" in shown and "lr=0.2" in shown and "60.00 %" in shown
