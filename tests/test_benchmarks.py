"""The benchmark suite itself: its rows make sense, its sides agree, its reports can be made. No times."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import compare, grid, memory, peers, populations, report, search, shared_weights, startup
from benchmarks import population_sides as sides
from benchmarks.interleave import Entrant, interleave
from benchmarks.ops import OPS, backends, make
from benchmarks.problem import make_problem, mean_loss
from benchmarks.statistics import Ratio, ratio, verdict

SMALL = [row for row in grid.ROWS if row.group == "small"]


# --- the grid ---------------------------------------------------------------------------------------
def test_rows_are_those_of_the_goal():
    assert len({row.name for row in grid.ROWS}) == len(grid.ROWS) == 20
    for row in grid.ROWS:
        assert row.optimizer in ("sgd", "adam") and row.batch > 0 and len(row.sizes) >= 3
        assert grid.CHECK_STEPS % row.scan == 0
        assert any(g.over == "peers" and g.limit == 1.0 for g in grid.goals(row))
    big = next(r for r in grid.ROWS if r.group == "ciresan")
    assert big.n_weights == 784 * 2500 + 2500 * 2000 + 2000 * 1500 + 1500 * 1000 + 1000 * 500 + 500 * 10


def test_rows_are_found_by_group_and_by_part_of_the_name():
    assert grid.find_rows(["small"]) == SMALL
    assert [r.name for r in grid.find_rows(["784-500-10 b128 adam"])] == ["784-500-10 b128 adam"]
    assert grid.find_rows([]) == list(grid.ROWS)
    with pytest.raises(ValueError, match="no row is called 'tiny'"):
        grid.find_rows(["tiny"])


def test_flops_count_the_matmuls_of_a_step():
    row = grid.Row("small", (3, 4, 2), 5, "sgd")
    forward, weights, inputs = 3 * 4 + 4 * 2, 3 * 4 + 4 * 2, 4 * 2
    assert row.flops == 2 * 5 * (forward + weights + inputs)


# --- the sides --------------------------------------------------------------------------------------
@pytest.mark.parametrize("row", SMALL, ids=lambda r: r.name)
def test_numpy_reference_and_sklearn_have_the_same_loss_after_20_steps(row):
    problem = make_problem(row)
    kinds = [peers.Xpnet, peers.XpnetReference, peers.Sklearn]
    kinds += [peers.XpnetNumba] if peers.XpnetNumba.missing() is None else []
    sides = [kind(problem) for kind in kinds]
    before = mean_loss(sides[0].outputs(problem.x), problem.y)
    losses = compare.agreement(row, sides)
    assert compare.disagreeing(losses) == []
    assert losses["xpnet"] < 0.95 * before  # so that agreement means something
    assert compare.agreement(row, sides) == losses  # a side that was reset starts where it did


def test_a_side_with_other_arithmetic_is_found():
    row = SMALL[0]
    problem = make_problem(row)
    other = peers.Sklearn(problem)
    other.lr *= 1.02
    assert compare.disagreeing(compare.agreement(row, [peers.Xpnet(problem), other])) == ["sklearn"]


def test_sides_predict_the_same_and_learn_in_an_epoch():
    problem = make_problem(SMALL[1])
    ours, theirs = peers.Xpnet(problem), peers.Sklearn(problem)
    np.testing.assert_array_equal(ours.predict(problem.x), theirs.predict(problem.x))
    assert ours.epoch() > ours.epoch()
    assert theirs.epoch() > theirs.epoch()


def test_absent_peers_are_skipped_by_name(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n in ("torch", "jax") else find(n))
    found, skipped = peers.present(["xpnet", "torch", "torch.compile", "jax.jit", "sklearn", "floor"])
    assert [side.name for side in found] == ["xpnet", "sklearn", "floor"]
    assert skipped == {
        "torch": "torch not installed", "torch.compile": "torch not installed", "jax.jit": "jax not installed",
    }  # fmt: skip
    with pytest.raises(ValueError, match="no side is called 'tensorflow'"):
        peers.present(["tensorflow"])


def test_a_library_without_its_device_is_skipped_with_the_reason(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())

    def unavailable(device):
        import xpnet

        raise xpnet.DeviceError("no driver")

    monkeypatch.setattr("xpnet.get_backend", unavailable)
    assert peers.XpnetCuda.missing() == "no driver"


def test_the_loss_is_that_of_the_formula():
    h = np.array([[0.0, np.log(3.0)], [1000.0, 0.0]])
    assert mean_loss(h, np.array([1, 0])) == pytest.approx(-np.log(0.75) / 2)
    assert mean_loss(np.array([[0.0], [1000.0]]), np.array([0, 1])) == pytest.approx(np.log(2.0) / 2)


@pytest.mark.parametrize("op", OPS)
def test_operations_run_on_each_back_end(op):
    for be, reason in backends().values():
        if reason is None:
            make(op, be)(2)


# --- measuring --------------------------------------------------------------------------------------
def test_sides_take_turns_and_have_as_many_samples():
    seen = []
    entrants = [
        Entrant("a", lambda n: seen.append(("a", n))), Entrant("b", lambda n: seen.append(("b", n)), multiple=5)
    ]  # fmt: skip
    interleave(entrants, rounds=6, sample_seconds=1e-6)
    assert [len(e.samples) for e in entrants] == [6, 6]
    assert all(n % 5 == 0 for name, n in seen if name == "b")
    assert [name for name, _ in seen[-8:]] == [
        "a",
        "a",
        "b",
        "b",
        "b",
        "b",
        "a",
        "a",
    ]  # a warm-up and a sample each


def test_ratios_and_verdicts():
    assert ratio([2.0, 4.0, 3.0], [1.0, 1.0, 1.0]) == Ratio(3.0, 2.0, 2.5, 3.5)
    assert [verdict(True, True), verdict(True, False), verdict(False, False)] == ["met", "unclear", "missed"]


def test_memory_that_is_needed_is_worked_out_by_hand():
    need = memory.needed(grid.Row("small", (3, 4, 2), 5, "adam"))
    assert need == {"parameters": 104, "gradients": 104, "moments": 208, "activations": 4 * 5 * 9}


def test_memory_that_is_asked_for_is_near_what_is_needed():
    row = next(r for r in memory.MEMORY_ROWS if r.name == grid.MAIN.name)
    assert memory.traced(row) <= memory.LIMIT * sum(memory.needed(row).values())


def test_start_up_commands_run():
    for command in startup.LIMITS:
        startup.start(command)


# --- reports ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """One tiny row, really measured, in a process of its own."""
    file = tmp_path_factory.mktemp("benchmarks") / "out.json"
    arguments = ["--rows", "64-64-10 b32 sgd", "--sides", "xpnet", "floor", "sklearn", "--rounds", "5"]
    assert compare.main([*arguments, "--threads", "1", "--sample-ms", "0.2", "--json", str(file)]) == 0
    return json.loads(file.read_text()) | {"file": str(file)}


def test_a_comparison_keeps_every_sample(document):
    (result,) = document["results"]
    assert result["row"] == "64-64-10 b32 sgd" and result["threads"] == "1" and result["disagree"] == []
    assert {len(side["samples"]) for side in result["sides"].values()} == {5}
    assert set(result["loss_after_20"]) == {"xpnet", "sklearn"}
    assert {"date", "commit", "cpu", "versions", "blas"} <= set(document["meta"])


def test_report_has_table_goals_and_chart(document, tmp_path, capsys):
    chart, history, readme = tmp_path / "c.png", tmp_path / "RESULTS.md", tmp_path / "README.md"
    history.write_text("# Results\n")
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    arguments = [document["file"], "--chart", str(chart), "--append", str(history), "--into", str(readme)]
    assert report.main(arguments) == 0
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert int.from_bytes(chart.read_bytes()[16:20], "big") == 800
    text = history.read_text()
    assert text.startswith("# Results\n\n## ") and "| 64-64-10 b32 sgd |" in text
    assert "step / floor" in text and "sklearn / xpnet >= 4" in text and document["meta"]["commit"] in text
    assert "old" not in readme.read_text() and "| 64-64-10 b32 sgd |" in readme.read_text()
    assert readme.read_text().startswith("before\n") and readme.read_text().endswith("after\n")


def test_report_says_what_is_wrong(document, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("no marks")
    assert report.main([document["file"], "--into", str(readme)]) == 1
    assert "has no place for the table" in capsys.readouterr().err
    other = tmp_path / "other.json"
    other.write_text('{"schema": 99}')
    assert report.main([str(other)]) == 1
    assert "neither from benchmarks.compare nor from pytest-benchmark" in capsys.readouterr().err
    assert report.main([document["file"], "--chart", str(tmp_path / "c.png"), "--rows", "absent"]) == 1


def test_report_of_pytest_benchmark(tmp_path, capsys):
    stats = {"median": 0.002, "min": 0.001, "iqr": 0.0005, "rounds": 20}
    file = tmp_path / "pytest.json"
    machine = {
        "processor": "x86_64", "cpu": {"brand_raw": "A CPU"}, "system": "Linux", "machine": "x86_64",
        "python_version": "3.12.0",
    }  # fmt: skip
    benchmark = {"name": "bench_step[xpnet-64]", "stats": stats, "extra_info": {}}
    file.write_text(json.dumps({
        "machine_info": machine, "commit_info": {"id": "abcdef0123"}, "datetime": "2026-01-02T03:04:05",
        "benchmarks": [benchmark],
    }))  # fmt: skip
    assert report.main([str(file)]) == 0
    assert "| bench_step[xpnet-64] | 2 ms | 1 ms | 500 µs | 20 |" in capsys.readouterr().out


def test_lines_name_sides_that_disagree_and_the_fastest_peer():
    result = {
        "row": "r", "kind": "step", "threads": "1", "skipped": {"keras": "keras not installed"},
        "sides": {
            "xpnet": {"samples": [2.0, 2.0], "per_sample": 1}, "torch": {"samples": [4.0, 4.0], "per_sample": 1},
            "jax.jit": {"samples": [3.0, 5.0], "per_sample": 1},
        },
        "loss_after_20": {"xpnet": 1.0, "sklearn": 2.0}, "disagree": ["sklearn"],
        "goals": [vars(grid.times_faster("peers", 1.0)), vars(grid.within("floor", 1.1))],
    }  # fmt: skip
    text = "\n".join(report.lines(result))
    assert "sklearn: NOT TIMED" in text and "keras skipped: keras not installed" in text
    ((variant, goal, value, word),) = report.judged(result)  # without a floor, its goal cannot be judged
    assert (
        variant == "xpnet"
        and goal.over == "peers"
        and word == "met"
        and value.medians == 2.0
        and value.minima == 1.5
    )


def test_benchmarks_are_not_collected_by_the_ordinary_run(pytestconfig):
    assert "benchmarks" not in pytestconfig.getini("testpaths")
    assert (Path(__file__).parent.parent / "benchmarks" / "bench_step.py").exists()


# --- populations ------------------------------------------------------------------------------------
def test_sides_that_train_many_networks_agree_and_can_be_drawn(tmp_path):
    net = sides.Net((8, 16, 3), 32, 96, 2)
    kinds = [sides.Population, sides.Loop, sides.Sklearn]
    kinds += [k for k in (sides.JaxVmap, sides.TorchVmap) if k.missing() is None]
    result = populations.contest(net, 3, kinds, rounds=2, seconds=1e-4)
    assert result["disagree"] == [] and set(result["sides"]) == {k.name for k in kinds}
    assert result["differences"]["loop"] < 1e-5 and "sklearn" not in result["differences"]
    result |= {"threads": "1", "skipped": {}, "net": "8-16-3", "members": 256}
    assert next(what for what, _, _ in populations.judged(result)) == "loop / xpnet >= 8"
    assert "| 8-16-3 | 256 | 1 |" in populations.table([result])
    populations.chart([result], str(tmp_path / "chart.png"))
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_a_side_that_trains_other_networks_is_left_out():
    class Wrong(sides.Loop):
        name = "wrong"

        def train(self, epochs=None):
            return super().train(epochs) * 1.01

    net = sides.Net((8, 16, 3), 32, 64, 1)
    result = populations.contest(net, 2, [sides.Population, Wrong], rounds=1, seconds=1e-4)
    assert result["disagree"] == ["wrong"] and set(result["sides"]) == {"xpnet"}


@pytest.mark.parametrize("kind", shared_weights.KINDS)
def test_gradients_of_ensembles_that_share_weights(kind):
    rng = np.random.default_rng(0)
    net = shared_weights.Ensemble(kind, [3, 4, 2], seed=0, l2=0.1)
    x, target = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))

    def loss():
        penalty = sum((v**2).sum() for n, v in net.p.items() if n.startswith("w"))
        return 0.5 * ((net.forward(x) - target) ** 2).sum() + 0.05 * penalty

    gradients = net.backward(net.forward(x) - target)
    assert set(gradients) == set(net.p)
    for name, values in net.p.items():
        at = tuple(rng.integers(n) for n in values.shape)
        before = values[at]
        ends = []
        for change in (1e-6, -1e-6):
            values[at] = before + change
            ends.append(loss())
        values[at] = before
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(gradients[name][at], rel=1e-5, abs=1e-7), name


def test_sides_of_a_search_try_the_same_penalties():
    made = {name: make(2) for name, make in search.sides().items()}
    mine, theirs = made["xpnet"].param_grid, made["sklearn"].param_grid
    assert mine["learning_rate_init"] == theirs["learning_rate_init"] and len(mine["alpha"]) == len(
        theirs["alpha"]
    )
    assert np.allclose(np.array(theirs["alpha"]) / search.SKLEARN_BATCH, mine["alpha"])
    assert len(mine["learning_rate_init"]) * len(mine["alpha"]) == 24


@pytest.mark.parametrize(
    "name", ["accuracy", "compare", "estimators", "first_run", "populations", "search", "shared_weights"]
)
def test_help_says_how_each_is_called(name, monkeypatch, capsys):
    module = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr("sys.argv", [name, "--help"])
    monkeypatch.setenv("COLUMNS", "400")  # no word is cut
    with pytest.raises(SystemExit) as ended:
        module.main()
    out = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and out.startswith(f"usage: python -m benchmarks.{name} ")
    assert " ".join(module.__doc__.partition("\n\n")[0].split()) in out
