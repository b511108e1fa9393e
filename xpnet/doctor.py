"""What is installed, what is in a file, and what is wrong with an installation."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .backend.cpu import processors
from .backend.cuda.probe import probe
from .memory import free_memory, step_bytes

_PACKAGES = (
    "numpy", "scikit-learn", "safetensors", "array-api-compat", "pooch", "rich", "click", "matplotlib",
    "pillow", "cupy-cuda12x", "cupy-cuda13x",
)  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """What a result depends on besides settings and data."""
    return {
        "xpnet": __version__, "python": platform.python_version(), "numpy": np.__version__,
        "platform": platform.platform(), "processor": platform.machine(), "cpus": os.cpu_count(),
        "blas": blas(), "command": sys.argv, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }  # fmt: skip


def blas() -> list[dict[str, Any]]:
    """The matrix libraries in this process, with their kernels and threads."""
    from threadpoolctl import threadpool_info

    keys = ("internal_api", "version", "architecture", "num_threads")
    found = [{k: pool.get(k) for k in keys} for pool in threadpool_info() if pool.get("user_api") == "blas"]
    return sorted(found, key=str)  # the system lists them in any order


def installation() -> dict[str, Any]:
    """Versions, devices, threads and folders."""
    from .data.download import cache_folder

    free = free_memory()
    return {
        "xpnet": __version__, "python": platform.python_version(), "platform": platform.platform(),
        "devices": _devices(), "cpus": os.cpu_count(), "memory_free_bytes": free, "blas": blas(),
        "packages": {p: v for p in _PACKAGES if (v := _version(p))},
        "data_folder": os.environ.get("XPNET_DATA"), "cache": str(cache_folder("mnist").parent),
    }  # fmt: skip


def _devices() -> list[str]:
    found = ["cpu", "numba"] if importlib.util.find_spec("numba") else ["cpu"]
    return [*found, "cuda"] if probe().available else found


def describe(path: Path) -> dict[str, Any]:
    """Architecture, parameters, memory of a training step, and results of a run folder or model file."""
    from .runs import RESULT, RunFolder, open_model
    from .tabular import TabularPreprocessing

    model, folder = open_model(path)
    facts: dict[str, Any] = {
        "path": str(path), "sizes": list(model.sizes), "layers": [layer.label for layer in model.layers],
        "parameters": model.n_parameters, "n_models": model.n_models, "dtype": model.dtype,
        "task": model.task, "loss": model.loss, "classes": model.classes and list(model.classes),
        "sample_shape": model.preprocessing and list(model.preprocessing.sample_shape),
    }  # fmt: skip
    if model.tabular is not None:
        facts["columns"] = TabularPreprocessing.from_metadata(model.tabular).describe()
    if isinstance(folder, RunFolder):
        from .strictjson import loads_json

        config = folder.config()
        facts["training_step_bytes"] = step_bytes(
            list(model.sizes),
            config.batch_size,
            len(config.get_optimizer().state),
            model.dtype,
            model.n_models or 1,
        )
        facts["epochs_done"] = len(folder.metrics())
        if (folder / RESULT).is_file():
            facts["result"] = loads_json((folder / RESULT).read_text(encoding="utf-8"))
    return facts


def as_text(facts: dict[str, Any], indent: str = "") -> str:
    """Lay facts out for people."""
    lines = []
    for key, value in facts.items():
        label = key.replace("_", " ")
        if key == "columns":
            from .tabular import rows_text

            lines += [f"{indent}{label}", *(f"{indent}  {line}" for line in rows_text(value))]
            continue
        if isinstance(value, dict):
            lines += [f"{indent}{label}", as_text(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{indent}{label}", *(as_text(v, indent + "  ") for v in value)]
        elif key.endswith("_bytes") and value is not None:
            lines.append(f"{indent}{label.removesuffix(' bytes'):22} {value / 2**20:,.1f} MiB")
        elif value is not None:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{label:22} {shown}")
    return "\n".join(lines)


def check() -> list[dict[str, str]]:
    """Look for what goes wrong in practice; each finding has a status ok, note or broken, and advice."""
    return [*_check_python(), *_check_packages(), *_check_blas(), *_check_data(), *_check_cuda()]


def _finding(status: str, what: str, found: str, advice: str = "") -> dict[str, str]:
    return {"status": status, "what": what, "found": found, "advice": advice}


def _check_python() -> list[dict[str, str]]:
    found = f"{platform.python_version()}, xpnet {__version__}"
    if sys.version_info < (3, 11):  # noqa: UP036 - a broken environment may run another Python
        return [_finding("broken", "Python", found, "use Python 3.11 or newer")]
    return [_finding("ok", "Python", found)]


def _check_packages() -> list[dict[str, str]]:
    findings = []
    for package in ("numpy", "scikit-learn", "pooch", "rich", "click", "array-api-compat"):
        version = _version(package)
        if version is None:
            advice = f"pip install {package}"
            findings.append(_finding("broken", package, "not installed", advice))
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        findings.append(_finding("broken", "numpy", np.__version__, 'pip install "numpy>=2.0"'))
    if not findings:
        findings.append(_finding("ok", "packages", "all that xpnet needs are installed"))
    if _version("matplotlib") is None:
        findings.append(
            _finding("note", "matplotlib", "not installed", 'for figures: pip install "xpnet[plots]"')
        )
    return findings


def _check_blas() -> list[dict[str, str]]:
    pools = blas()
    if not pools:
        return [_finding("note", "matrix library", "none that threadpoolctl knows", "training may be slow")]
    cpus = processors()
    found = ", ".join(f"{p['internal_api']} {p['version']} ({p['num_threads']} threads)" for p in pools)
    if any((p["num_threads"] or 0) > cpus for p in pools):
        advice = f"only {cpus} processors may be used; set OMP_NUM_THREADS={cpus} or --threads {cpus}"
        return [_finding("note", "matrix library", found, advice)]
    if any(_too_old_kernels(p, _processor_flags()) for p in pools):
        # measured on an AMD EPYC behind a hypervisor: 189 instead of 122 GFLOP/s on one core
        chosen = os.environ.get("OPENBLAS_CORETYPE")
        mend = f"unset OPENBLAS_CORETYPE ({chosen})" if chosen else "set OPENBLAS_CORETYPE=SkylakeX"
        advice = f"the processor has AVX-512, the library does not use it: {mend}"
        return [_finding("note", "matrix library", f"{found}, {pools[0]['architecture']} kernels", advice)]
    return [_finding("ok", "matrix library", found)]


def _too_old_kernels(pool: dict[str, Any], flags: set[str]) -> bool:
    """Whether OpenBLAS, told so or on a processor it does not recognise, uses kernels without AVX-512."""
    needed = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
    return (
        pool["internal_api"] == "openblas" and pool["architecture"] in ("Haswell", "Zen") and needed <= flags
    )


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def _check_data() -> list[dict[str, str]]:
    folder = os.environ.get("XPNET_DATA")
    if folder is None:
        return [_finding("ok", "data", "XPNET_DATA is not set; data sets are downloaded when asked for")]
    if not Path(folder).is_dir():
        return [
            _finding("broken", "data", f"XPNET_DATA={folder} is no folder", "correct or unset XPNET_DATA")
        ]
    return [_finding("ok", "data", f"XPNET_DATA={folder}")]


def _check_cuda() -> list[dict[str, str]]:
    """Whether `--device cuda` can run, and the one step that mends it; and paths that lead nowhere."""
    finding = probe()
    if finding.available:
        findings = [_finding("ok", "CUDA", finding.message)]
    else:
        # without CuPy or a device, nobody meant to use CUDA here; what is there and does not fit is a defect
        absent = finding.cause in ("cupy-missing", "no-device")
        absent = absent or (finding.cause == "driver" and "driver" not in finding.versions)
        wheels = f" (installed: {', '.join(finding.wheels)})" if finding.wheels else ""
        status = "note" if absent else "broken"
        findings = [
            _finding(status, "CUDA", f"{finding.message}{wheels}", f"for --device cuda: {finding.advice}")
        ]
    for name in ("CUDA_PATH", "CUDA_HOME"):
        folder = os.environ.get(name)
        if folder is not None and not Path(folder).is_dir():
            advice = f"correct it, or: unset {name}"
            findings.append(_finding("broken", name, f"{name}={folder!r} is no folder", advice))
    return findings
