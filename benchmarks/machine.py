"""Where a comparison ran: date, commit, hardware, versions."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata as packages
from pathlib import Path
from typing import Any

_PACKAGES = ("xpnet", "numpy", "torch", "jax", "jaxlib", "scikit-learn", "keras", "cupy", "numba")


def metadata() -> dict[str, Any]:
    """Date, commit, hardware and versions."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = packages.version(name)
        except packages.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "commit": _commit(), "cpu": _cpu(),
        "cpus": os.cpu_count(), "memory_gib": _memory(), "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "versions": versions, "blas": _blas(),
    }  # fmt: skip


def _commit() -> str:
    def git(*arguments: str) -> str:
        root = Path(__file__).parent.parent
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "xpnet", "benchmarks")
        return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _blas() -> str:
    import numpy  # noqa: F401  (loads it)

    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "unknown"
    found = [i for i in threadpool_info() if i["user_api"] == "blas" and "numpy" in i["filepath"]]
    return (
        " ".join(str(found[0][k]) for k in ("internal_api", "version", "architecture"))
        if found
        else "unknown"
    )
