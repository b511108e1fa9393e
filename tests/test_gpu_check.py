"""The check for machines with a GPU: its parts can be loaded, none costs another, and its report says what is so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu_check
from benchmarks.gpu import cases, correctness, kernels, primitives, report, sides, steps
from benchmarks.gpu.__main__ import main as run_one
from benchmarks.gpu.parts import PARTS, Part, find
from xpnet.backend import get_backend
from xpnet.backend.cuda.probe import Finding, probe
from xpnet.testing import check_backend

ROOT = Path(__file__).parent.parent
SMALL = cases.Case("small", (20, 16, 5), 8, "float32")
MANY = cases.Case("many", (20, 16, 5), 8, "float32", n_models=3)
PART = Part("nodes", 5, "something", "primitives.nodes")


# --- the parts ----------------------------------------------------------------------------------------
def test_every_part_loads_and_every_kernel_compiles(capsys):
    assert gpu_check.main(["--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert all(part.name in shown for part in PARTS) and "FAILS" not in shown
    assert all(f"kernel {name}: " in shown for name in kernels.SOURCES)


def test_a_part_that_does_not_load_fails_the_dry_run(monkeypatch, capsys):
    broken = Part("broken", 1, "nothing", "primitives.absent")
    monkeypatch.setattr(gpu_check, "find", lambda names: (broken,))
    assert gpu_check.main(["--dry-run"]) == 1
    assert "FAILS: AttributeError" in capsys.readouterr().out


@pytest.mark.skipif(kernels.compile_offline(kernels.EMPTY) is None, reason="NVRTC is not installed")
def test_a_kernel_that_does_not_compile_fails_the_dry_run(monkeypatch, capsys):
    monkeypatch.setitem(kernels.SOURCES, "wrong", "int f() { return x; }")
    assert gpu_check.main(["--dry-run", "--parts", "nodes"]) == 1
    shown = capsys.readouterr().out
    assert "kernel wrong: FAILS: " in shown and 'identifier "x" is undefined' in shown


def test_limits_fit_the_promise():
    assert gpu_check.SECONDS <= 480
    assert sum(part.seconds for part in PARTS[:7]) <= gpu_check.SECONDS, (
        "what matters most always has its turn"
    )


def test_names_of_parts(capsys):
    assert [p.name for p in find(["peaks", "versions"])] == ["versions", "peaks"]
    assert gpu_check.main(["--parts", "peak"]) == run_one(["peak"]) == 2
    assert "no part is called 'peak'" in capsys.readouterr().err


def test_without_a_device_it_exits_4_and_says_why(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        "xpnet.backend.cuda.probe.probe", lambda: Finding(False, "driver", "no driver", "get one")
    )
    assert gpu_check.main(["--out", str(tmp_path / "out")]) == 4
    assert "no driver. To mend it: get one" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_script():
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run([ROOT / "scripts" / "gpu_check", "--dry-run"], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    if not probe().available:
        done = subprocess.run(
            [ROOT / "scripts" / "gpu_check"], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 4 and "To mend it: " in done.stderr


# --- one part costs no other --------------------------------------------------------------------------
def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


@pytest.mark.parametrize(
    ("text", "status", "n"),
    [
        ("print('noise'); print('{\"a\": 1}'); print('{\"ok\": true}')", "done", 2),
        ("print('{\"ok\": false}')", "WRONG", 1),
        ("print('{\"a\": 1}'); raise SystemExit('broken')", "failed", 1),
        ("print('{\"a\": 1}'); import time; time.sleep(60)", "stopped at its limit", 1),
        ("print('{\"a\": 1}'); import os; os.abort()", "failed", 1),
        ("print('{\"a\": 1}\\n{\"b\": ')", "done", 1),
    ],
)  # fmt: skip
def test_what_a_part_said_is_kept(text, status, n):
    result = gpu_check.run_part(PART, 3.0 if "sleep" in text else 60.0, script(text))
    assert (result["status"], len(result["findings"])) == (status, n)
    assert "broken" in result["stderr"] or "broken" not in text


def test_warnings_of_a_part_that_went_well_are_kept():
    result = gpu_check.run_part(PART, 60.0, script("import warnings; warnings.warn('not captured')"))
    assert result["status"] == "done" and "UserWarning: not captured" in result["stderr"]
    page = report.markdown({"date": "", "xpnet": "", "commit": None, "parts": [result]})
    assert "## nodes: done, stderr" in page and "UserWarning: not captured" in page


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert gpu_check._commit() is None


def test_the_report_is_written_after_every_part(monkeypatch, tmp_path, capsys):
    seen = []

    def one(part, limit):
        seen.append((part.name, limit, sorted(p.name for p in tmp_path.iterdir())))
        status = "failed" if part.name == "capture" else "done"
        return {"name": part.name, "what": part.what, "status": status, "seconds": 1.0, "findings": [{"x": 1.5}],
                "stderr": "trouble" if status == "failed" else ""}  # fmt: skip

    monkeypatch.setattr(gpu_check, "run_part", one)
    assert gpu_check._run(find(["versions", "capture", "peaks"]), tmp_path, 1000.0) == 1
    assert [s[0] for s in seen] == ["versions", "capture", "peaks"]
    assert seen[0][2] == [] and seen[1][2] == ["report.json", "report.md"]
    document = json.loads((tmp_path / "report.json").read_text())
    assert [p["status"] for p in document["parts"]] == ["done", "failed", "done"]
    page = (tmp_path / "report.md").read_text()
    assert "## capture: failed" in page and "trouble" in page and "| x |" in page


def test_what_has_no_time_left_is_said(monkeypatch, tmp_path):
    assert gpu_check._run(find(["versions"]), tmp_path, 3.0) == 1
    assert "no time left" in (tmp_path / "report.md").read_text()


# --- the report ---------------------------------------------------------------------------------------
def parts(**findings):
    return [{"name": n.replace("_", "."), "what": n, "status": "done", "seconds": 1.0, "findings": f, "stderr": ""}
            for n, f in findings.items()]  # fmt: skip


def step(side, us, loss=1.0, case="784-500-10"):
    return {
        "case": case,
        "side": side,
        "us": us,
        "us_per_model": us,
        "loss": loss,
        "warm_up_s": 0.5,
        "tflops": 1.0,
    }


def test_goals_are_judged_by_what_was_measured():
    found = parts(xpnet=[step("xpnet", 10.0)], torch_graph=[step("torch.graph", 14.0)],
                  jax_scan=[step("jax.scan", 20.0)])  # fmt: skip
    lines = "\n".join(report.goals(found))
    assert "| 784-500-10, batch 128: <= 12 µs a step | 10 µs | met |" in lines
    assert "| 784-500-10: >= 1.5 times the faster of PyTorch and JAX | 1.4 times | missed |" in lines
    assert "| ciresan tf32, batch 128: <= 150 µs a step | not measured | |" in lines
    assert "not measured" in "\n".join(report.goals([])) and "met" not in "\n".join(report.goals([]))
    # many steps as one kernel are a way to train, too, where there is such a kernel
    ways = [{**step("xpnet", us), "one_kernel": one, "why": ""} for us, one in ((9.0, True), (8.0, False))]
    lines = "\n".join(report.goals(parts(xpnet=[step("xpnet", 13.0)], resident=ways)))
    assert "| 784-500-10, batch 128: <= 12 µs a step | 9 µs | met |" in lines


def test_what_was_not_captured_is_said_first():
    found = parts(
        capture=[{"precision": "tf32", "captured": False, "replays_add_up": True}],
        xpnet=[
            {**step("xpnet", 10.0), "captured": True, "captured_all": True},
            {**step("xpnet", 10.0, case="ciresan tf32"), "captured": True, "captured_all": False},
        ],
    )
    page = report.markdown({"date": "", "xpnet": "", "commit": None, "parts": found})
    before, _, after = page.partition("| part |")
    assert "**NOT CAPTURED.**" in before and "NOT CAPTURED" not in after
    listed = [line for line in before.splitlines() if line.startswith("- ")]
    assert listed == [
        "- capture: precision tf32: the work", "- xpnet: case ciresan tf32, side xpnet: all steps of a call"
    ]  # fmt: skip
    good = report.markdown(
        {"date": "", "xpnet": "", "commit": None, "parts": parts(xpnet=found[1]["findings"][:1])}
    )
    assert "NOT CAPTURED" not in good


def test_a_product_that_does_not_add_its_bias_is_named():
    refused = {
        "product": "Product(m=500, n=128, k=784, batch=1, dtype='float32')", "precision": "tf32", "algorithm": None,
        "why": "16 of 16 algorithms hide a NaN that is in the bias",
    }  # fmt: skip
    found = parts(xpnet=[{**step("xpnet", 10.0), "algorithms": [{**refused, "algorithm": "00"}, refused]}])
    notes = [line for line in report.steps(found) if "bias of" in line]
    assert notes == [
        "- 784-500-10: bias of 500x128x784x1, tf32, in a launch of its own: "
        "16 of 16 algorithms hide a NaN that is in the bias"
    ]
    chosen = {"steps": 20, "chosen": "graph", "why": "no kernel"}
    assert report.refusals([chosen, refused]) == report.refusals([refused])


def test_a_process_is_judged_without_epochs_like_its_last():
    found = parts(
        process=[
            {"process": "first", "seconds": 9.0, "first_epoch_s": 4.0, "last_epoch_s": 0.1, "rest_s": 8.0}
        ]
    )
    assert "| process, first time: <= 6 s beside epochs like the last | 8 s | missed |" in report.goals(found)


def test_the_share_of_the_rate_of_products():
    large = cases.CASES[-1].name
    peaks = [{"n": 4096, "precision": "bf16", "us": 1.0, "tflops": 500.0}]
    found = parts(xpnet=[{**step("xpnet", 9e3, case=large), "tflops": 400.0}], peaks=peaks)
    assert any("| 80 % | met |" in line for line in report.goals(found))


def test_a_side_with_another_loss_is_not_compared():
    found = parts(
        xpnet=[step("xpnet", 10.0)], torch=[step("torch", 5.0, loss=1.1)], jax_scan=[step("jax.scan", 30.0)]
    )
    (line,) = [line for line in report.steps(found) if line.startswith("| 784-500-10, batch 128, float32")]
    assert "loss 1.10000: not compared" in line and "30.0 µs (3.00x)" in line and "not measured" in line
    assert report.disagree(cases.CASES[0], report._measured(found)) == ["torch"]
    nan = parts(xpnet=[step("xpnet", 10.0)], torch=[step("torch", 5.0, loss=float("nan"))])
    assert report.disagree(cases.CASES[0], report._measured(nan)) == ["torch"]


def test_tables_follow_the_keys_of_the_findings():
    lines = report.table([{"a": 1, "b": 0.123456}, {"a": 2, "b": 3}, {"c": "x|y\nz"}])
    assert lines == [
        "| a | b |",
        "|---|---|",
        "| 1 | 0.1235 |",
        "| 2 | 3 |",
        "",
        "| c |",
        "|---|",
        "| x\\|y z |",
    ]


# --- what it measures, on the CPU ---------------------------------------------------------------------
def losses(case, name):
    problem = cases.make_problem(case)
    side = sides.SIDES[name](problem, "cpu")
    found = []
    for _ in range(2):
        side.reset()
        before = cases.mean_loss(side.outputs(problem.x), problem.y)
        side.run(case.steps)
        found.append((before, cases.mean_loss(side.outputs(problem.x), problem.y)))
    assert found[0] == found[1], "reset does not bring everything back"
    assert found[0][1] < found[0][0], "nothing was learnt"
    return found[0]


def test_only_files_with_tests_for_a_gpu_are_collected():
    found = correctness.test_files()
    assert {"test_backends.py", "test_cuda_device.py", "test_devices.py", "test_parity.py"} <= set(found)
    assert "test_mlp.py" not in found and len(found) < 10


@pytest.mark.parametrize("case", [SMALL, MANY], ids=lambda c: c.name)
def test_sides_train_the_same(case):
    own = losses(case, "xpnet")
    for name in ("torch", "jax.scan"):
        if sides.SIDES[name].missing() is None:
            np.testing.assert_allclose(losses(case, name), own, rtol=1e-5)


def test_many_models_are_timed_with_one_order_and_with_their_own():
    shared, own = steps.many("cpu", n=300, models=2)
    assert (shared["orders"], own["orders"]) == ("shared", "own")
    assert all(f["us_per_model_and_step"] > 0 and np.isfinite(f["loss"]) for f in (shared, own))


def test_the_loss_is_worked_out_by_hand():
    h, y = np.array([[0.0, np.log(3.0)], [0.0, 0.0]]), np.array([1, 0])
    expected = (np.log(4 / 3) + np.log(2)) / 2
    assert cases.mean_loss(h, y) == pytest.approx(expected)
    assert cases.mean_loss(np.stack([h, h]), y) == pytest.approx(expected)


def test_operations_are_counted():
    assert cases.Case("c", (3, 4, 2), 5, "float32").flops == 2 * 5 * (3 * (12 + 8) - 12)
    assert cases.Case("c", (3, 4, 2), 5, "float32", n_models=7).flops == 7 * 2 * 5 * (3 * (12 + 8) - 12)


def test_replays_are_checked(monkeypatch):
    """The part that decides whether captured products work sees what repeats wrongly, and what is no graph."""
    be = get_backend("cpu")
    monkeypatch.setattr("xpnet.backend.get_backend", lambda *a, **k: be)
    found = list(primitives.capture())
    assert all(f["replays_add_up"] and f["relative_error"] < 1e-5 for f in found)
    assert not any(f["captured"] or f["ok"] for f in found), "the CPU has no graphs"
    monkeypatch.setattr(be, "repeated", lambda fn: (fn(), lambda: None)[1])
    assert not any(f["replays_add_up"] for f in primitives.capture())


def test_operations_are_checked_each_by_itself(monkeypatch):
    found = list(correctness.operations("float32", "cpu"))
    assert {"matmul", "map", "capture", "signatures"} <= {f["operation"] for f in found}
    assert all(f["ok"] and f["seconds"] > 0 for f in found)
    whole = check_backend(get_backend("cpu"), dtypes=["float32"])
    assert sum(f["results"] for f in found) == whole


def test_an_operation_that_is_wrong_is_named(monkeypatch):
    be = get_backend("cpu")
    monkeypatch.setattr(be, "argmax", lambda x, *, out: out)
    monkeypatch.setattr("xpnet.backend.get_backend", lambda device: be)
    wrong, right = (correctness._checked(name, "float32", "cpu") for name in ("check_argmax", "check_sum"))
    assert (wrong["operation"], wrong["ok"], right["ok"]) == ("argmax", False, True)
    assert wrong["results"].startswith("AssertionError: argmax: ")
