"""Whether CUDA can be used: every way it cannot is told apart, and each has one step that mends it."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from xpnet.backend.cuda import probe as module
from xpnet.backend.cuda.probe import CAUSES, probe

CUPY_13 = {"cupy-cuda13x": "14.2.0"}


class Driver:
    """A driver library with `version` (13000 for CUDA 13.0) and `n` devices."""

    def __init__(self, version=13000, n=1, init=0):
        self.version, self.n, self.init = version, n, init

    def cuDriverGetVersion(self, number):
        number._obj.value = self.version
        return 0

    def cuInit(self, flags):
        return self.init

    def cuDeviceGetCount(self, number):
        number._obj.value = self.n
        return 0

    def cuGetErrorString(self, status, text):
        text._obj.value = b"unknown error"
        return 0


class Cupy:
    """As much of CuPy as is asked of it."""

    __version__ = "14.2.0"

    class cuda:
        @staticmethod
        def is_available():
            return True


@pytest.fixture
def machine(monkeypatch):
    """A machine on which all is well; what a test takes away is found missing."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    parts = {"wheels": CUPY_13, "driver": Driver(), "cupy": Cupy, "missing": (), "headers": True}

    def version(name):
        if name in parts["missing"]:
            raise RuntimeError(f"Failure finding {name}")
        return "13.0"

    def load(name):
        if isinstance(parts["cupy"], Exception):
            raise parts["cupy"]
        return parts["cupy"]

    monkeypatch.setattr(module, "installed_wheels", lambda: dict(parts["wheels"]))
    monkeypatch.setattr(module, "_load_driver", lambda: parts["driver"])
    monkeypatch.setattr(module, "_library_version", version)
    monkeypatch.setattr(module, "_headers_found", lambda: parts["headers"])
    monkeypatch.setattr(module.importlib, "import_module", load)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    return parts


def test_all_is_well(machine):
    finding = probe()
    assert finding.available and finding.cause == "ok" and finding.advice == ""
    assert finding.versions == {"cupy": "14.2.0", "driver": "13.0", "nvrtc": "13.0", "cublasLt": "13.0"}
    assert finding.wheels == ["cupy-cuda13x 14.2.0"]


@pytest.mark.parametrize(
    ("change", "cause", "message", "advice"),
    [
        ({"wheels": {}}, "cupy-missing", "CuPy is not installed", 'pip install "cupy-cuda13x[ctk]"'),
        ({"wheels": {}, "driver": Driver(12080)}, "cupy-missing", "not installed", "cupy-cuda12x[ctk]"),
        (
            {"wheels": {"cupy-cuda12x": "14.2.0", **CUPY_13}},
            "cupy-broken", "2 CuPy packages are installed (cupy-cuda12x, cupy-cuda13x)",
            "pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install",
        ),
        ({"wheels": {"cupy-cuda13x": "13.6.0"}}, "cupy-broken", "13.6.0 is older than 14.0", "--upgrade"),
        ({"driver": None}, "driver", "no NVIDIA driver answers", "version 580 or later"),
        ({"driver": Driver(0)}, "driver", "no NVIDIA driver answers", "nvidia-smi"),
        (
            {"driver": Driver(12080)}, "driver", "supports CUDA 12.8, and the installed CuPy needs CUDA 13",
            'pip uninstall -y cupy-cuda13x && pip install "cupy-cuda12x[ctk]"',
        ),
        ({"driver": Driver(11040)}, "driver", "supports CUDA 11.4", "version 580 or later"),
        ({"driver": Driver(init=999)}, "driver", "cannot start (error 999: unknown error)", "nvidia-smi"),
        ({"driver": Driver(init=100)}, "no-device", "finds no CUDA device", "nvidia-smi"),
        ({"missing": ("nvrtc",)}, "libraries", "nvrtc (the run-time compiler)", "cupy-cuda13x[ctk]"),
        ({"missing": ("cublasLt",)}, "libraries", "cublasLt (matrix products)", "CUDA_PATH"),
        ({"headers": False}, "libraries", "headers", "cupy-cuda13x[ctk]"),
        ({"cupy": ImportError("bad file\nmore")}, "cupy-broken", "ImportError: bad file", "--force-reinstall"),
    ],
)  # fmt: skip
def test_each_trouble_has_its_cause_and_its_remedy(machine, change, cause, message, advice):
    machine.update(change)
    finding = probe()
    assert not finding.available and finding.cause == cause and cause in CAUSES
    assert message in finding.message and advice in finding.advice
    assert "\n" not in finding.message + finding.advice


def test_hidden_devices_are_named(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    machine["driver"] = Driver(n=0)
    finding = probe()
    assert finding.cause == "no-device" and "CUDA_VISIBLE_DEVICES is '-1'" in finding.message
    assert finding.advice == "unset CUDA_VISIBLE_DEVICES"


def test_a_device_number_must_exist(machine):
    machine["driver"] = Driver(n=2)
    assert probe(1).available
    finding = probe(2)
    assert finding.cause == "no-device" and "no cuda:2; the driver shows cuda:0 to cuda:1" in finding.message


def test_a_wheel_for_cuda_12_takes_an_older_driver(machine):
    machine.update(wheels={"cupy-cuda12x": "14.2.0"}, driver=Driver(12080))
    assert probe().available
    machine["driver"] = Driver(11080)
    assert "version 525.60 or later" in probe().advice


def test_asking_imports_no_cupy_where_no_driver_answers():
    code = (
        "import sys; from xpnet.backend.cuda.probe import probe, _load_driver\n"
        "finding = probe()\n"
        "assert _load_driver() is not None or (not finding.available and 'cupy' not in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_installed_wheels_are_those_of_the_environment():
    for name, version in module.installed_wheels().items():
        assert importlib.metadata.version(name) == version


def test_versions_of_installed_libraries_are_read():
    pytest.importorskip("cuda.pathfinder", reason="no cuda-pathfinder: no CUDA libraries to look for")
    for name in module.LIBRARIES:
        try:
            version = module._library_version(name)
        except RuntimeError as error:
            pytest.skip(f"{name} is not installed: {str(error).splitlines()[0]}")
        assert int(version.split(".")[0]) >= 12


def test_the_cpu_never_imports_cupy():
    code = (
        "import sys, numpy as np, xpnet\n"
        "from xpnet.backend.cuda import backend, formulas, kernels, products, schedule, cublaslt, nvrtc, runtime\n"
        "model = xpnet.MLP([3, 4, 2], device=xpnet.get_backend('cpu'))\n"
        "xpnet.fit(model, (np.ones((8, 3)), np.arange(8) % 2), epochs=1, verbose=False)\n"
        "model.predict(np.ones((2, 3)))\n"
        "assert 'cupy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
