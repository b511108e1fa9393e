"""What `info` and `doctor` find."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from xpnet import MLP, doctor, info, memory
from xpnet.backend.cuda.probe import Finding
from xpnet.cli import main
from xpnet.mlp import load
from xpnet.runs.environment import needed
from xpnet.runs.folder import MODEL


def statuses() -> dict[str, str]:
    return {f["what"]: f["status"] for f in doctor.check()}


def test_a_good_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XPNET_DATA", raising=False)
    assert "broken" not in statuses().values()
    assert CliRunner().invoke(main, ["doctor"]).exit_code == 0


def test_every_finding_that_is_not_good_has_advice_or_is_a_note() -> None:
    for finding in doctor.check():
        assert set(finding) == {"status", "what", "found", "advice"}
        assert finding["status"] in ("ok", "note", "broken") and finding["found"]
        assert finding["status"] != "broken" or finding["advice"]


def without(*gone: str) -> Any:
    version = doctor.version
    return lambda package: None if package in gone else version(package)


def test_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", without("rich", "matplotlib"))
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 1
    assert "broken  rich: not installed\n        -> pip install rich" in done.stdout
    assert (
        'note    matplotlib: not installed\n        -> for figures: pip install "xpnet[plots]"' in done.stdout
    )


def test_a_required_package_that_the_check_itself_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", without("threadpoolctl"))
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    found = statuses()
    assert found["threadpoolctl"] == "broken" and found["matrix library"] == "note"


def test_packages_are_those_of_the_installation() -> None:
    assert {"numpy", "scipy", "threadpoolctl"} <= set(needed()) and "matplotlib" not in needed()
    assert {"matplotlib", "numba", "pyarrow"} <= set(needed(optional=True)) - {"xpnet"}


def test_an_old_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert statuses()["numpy"] == "broken"


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.version_info", (3, 10, 0))
    assert statuses()["Python"] == "broken"


@pytest.mark.parametrize(
    ("finding", "status"),
    [
        (Finding(True, "ok", "CUDA 13.0, CuPy 14.2.0"), "ok"),
        (Finding(False, "cupy-missing", "CuPy is not installed", 'pip install "cupy-cuda13x[ctk]"'), "note"),
        (Finding(False, "driver", "no NVIDIA driver answers", "install it", {}, ["cupy-cuda13x 14.2.0"]), "note"),
        (Finding(False, "driver", "the driver is too old", "install it", {"driver": "11.4"}), "broken"),
        (Finding(False, "no-device", "CUDA_VISIBLE_DEVICES is ''", "unset CUDA_VISIBLE_DEVICES"), "note"),
        (Finding(False, "libraries", "cublasLt is missing", 'pip install "cupy-cuda13x[ctk]"'), "broken"),
        (Finding(False, "cupy-broken", "2 CuPy packages", "pip uninstall", {}, ["cupy 14", "cupy-cuda13x 14"]),
         "broken"),
    ],
    ids=lambda v: v if isinstance(v, str) else v.message,
)  # fmt: skip
def test_what_is_in_the_way_of_cuda(finding: Finding, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    for module in (doctor, info):
        monkeypatch.setattr(module, "probe", lambda: finding)
    (found,) = doctor._check_cuda()
    assert (
        found["status"] == status and finding.message in found["found"] and finding.advice in found["advice"]
    )
    assert all(wheel in found["found"] for wheel in finding.wheels)
    assert ("cuda" in info.installation()["devices"]) == finding.available


@pytest.mark.parametrize("name", ["CUDA_PATH", "CUDA_HOME"])
def test_a_cuda_path_that_leads_nowhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, str(tmp_path))
    assert name not in statuses()
    monkeypatch.setenv(name, str(tmp_path / "no"))
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 1
    assert f"broken  {name}: {name}='{tmp_path}/no' is no folder" in done.stdout
    assert f"unset {name}" in done.stdout


BLOCKED = """
import importlib.metadata, importlib.util, sys
found, version = importlib.util.find_spec, importlib.metadata.version
importlib.util.find_spec = lambda name, *a: None if name.startswith("cupy") else found(name, *a)
def hidden(name):
    if name.startswith("cupy"):
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = hidden
sys.modules["cupy"] = None
from xpnet.cli import main
main()
"""


def test_without_cupy(tmp_path: Path) -> None:
    """The command itself, in a process that has no CuPy: exit code 4, the cause, and the command that mends it."""
    command = [sys.executable, "-c", BLOCKED]
    done = subprocess.run(
        [*command, "train", "--device", "cuda", "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4 and not (tmp_path / "run").exists()
    assert "xpnet: error: device 'cuda' is not available: CuPy is not installed." in done.stderr
    assert re.search(r'pip install "cupy-cuda1[23]x\[ctk\]"', done.stderr)
    doctor = subprocess.run([*command, "doctor"], capture_output=True, text=True)
    assert "note    CUDA: CuPy is not installed" in doctor.stdout and "pip install" in doctor.stdout


def test_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPNET_DATA", str(tmp_path))
    assert statuses()["data"] == "ok"
    monkeypatch.setenv("XPNET_DATA", str(tmp_path / "no"))
    assert statuses()["data"] == "broken"
    done = CliRunner().invoke(main, ["doctor", "--json"])
    assert done.exit_code == 1
    assert any(f["status"] == "broken" for f in json.loads(done.stdout)["findings"])


def pool(threads: int) -> list[dict[str, Any]]:
    return [{"internal_api": "openblas", "version": "1", "architecture": "x", "num_threads": threads}]


def test_the_matrix_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "blas", list)
    assert statuses()["matrix library"] == "note"
    monkeypatch.setattr(doctor, "blas", lambda: pool(1))
    assert statuses()["matrix library"] == "ok"
    monkeypatch.setattr(doctor, "blas", lambda: pool(10_000))
    (finding,) = doctor._check_blas()
    assert finding["status"] == "note" and "OMP_NUM_THREADS" in finding["advice"]


def test_memory_that_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (memory.free_memory() or 1) > 0

    def nothing(*_: Any) -> str:
        raise FileNotFoundError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", nothing)
        assert memory.free_memory() is None
    monkeypatch.setattr(info, "free_memory", lambda: None)
    assert "memory free" not in info.as_text(info.installation())


def test_the_installation_as_text_and_json() -> None:
    facts = json.loads(CliRunner().invoke(main, ["info", "--json"]).stdout)
    assert {"xpnet", "python", "devices", "blas", "packages", "cache"} <= set(facts)
    shown = CliRunner().invoke(main, ["info"]).stdout
    assert f"xpnet                  {facts['xpnet']}" in shown and "  numpy" in shown


def test_a_run_and_a_model_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(20, 4)), y=["a", "b"] * 10)
    arguments = f"train --data {tmp_path}/d.npz --hidden 6 --epochs 2 --out {tmp_path}/run --quiet"
    assert CliRunner().invoke(main, arguments.split()).exit_code == 0
    facts = info.describe(tmp_path / "run")
    assert (facts["sizes"], facts["parameters"], facts["epochs_done"]) == ([4, 6, 2], 44, 2)
    assert facts["classes"] == ["a", "b"] and facts["result"]["epochs"] == 2
    model = info.describe(tmp_path / "run" / MODEL)
    assert model["parameters"] == load(tmp_path / "run" / MODEL).n_parameters and "result" not in model
    shown = CliRunner().invoke(main, ["info", str(tmp_path / "run")])
    assert shown.exit_code == 0 and "classes                a, b" in shown.stdout


def test_the_memory_of_a_step_counts_what_a_model_has() -> None:
    """Weights, gradients and two moments of a 784-500-10 network, and the activations of a batch."""
    n = MLP([784, 500, 10]).n_parameters
    per_sample = 784 + 2 * (500 + 10) + 2 * 10
    assert memory.step_bytes([784, 500, 10], 128, 2, "float32") == 4 * (4 * n + 128 * per_sample)


def test_kernels_older_than_the_processor_are_noticed():
    from xpnet.doctor import _too_old_kernels

    new = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2"}
    haswell = {"internal_api": "openblas", "architecture": "Haswell"}
    assert _too_old_kernels(haswell, new)
    assert not _too_old_kernels(haswell, {"avx2"})
    assert not _too_old_kernels({**haswell, "architecture": "SkylakeX"}, new)
    assert not _too_old_kernels({**haswell, "internal_api": "mkl"}, new)
