"""What is wrong with an installation, and what mends it."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .backend.cpu import processors
from .backend.cuda.probe import probe
from .runs.environment import blas, needed, version


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
    for package in needed():
        if version(package) is None:
            advice = f"pip install {package}"
            findings.append(_finding("broken", package, "not installed", advice))
    if np.lib.NumpyVersion(np.__version__) < "2.0.0":
        findings.append(_finding("broken", "numpy", np.__version__, 'pip install "numpy>=2.0"'))
    if not findings:
        findings.append(_finding("ok", "packages", "all that xpnet needs are installed"))
    if version("matplotlib") is None:
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
