"""What a result depends on besides settings and data: versions, the machine, the matrix library and its threads."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
import time
from typing import Any

import numpy as np

from .. import __version__


def version(package: str) -> str | None:
    """The version of a package that is installed, else None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def needed(optional: bool = False) -> list[str]:
    """The names of the packages that xpnet needs, or of those that its extras do."""
    try:
        requirements = importlib.metadata.requires("xpnet") or []
    except importlib.metadata.PackageNotFoundError:  # not installed: its source is on the path
        return []
    named = {
        re.split(r"[^\w.-]", r, maxsplit=1)[0].lower() for r in requirements if ("extra ==" in r) == optional
    }
    return sorted(named - {"xpnet"})


def environment(threads: int | None = None) -> dict[str, Any]:
    """The record of a run; `threads` are those that a back end has itself, beside the matrix library's."""
    own = {} if threads is None else {"threads": threads}
    return {
        "xpnet": __version__, "python": platform.python_version(), "numpy": np.__version__,
        "platform": platform.platform(), "processor": platform.machine(), "cpus": os.cpu_count(),
        "blas": blas(), **own, "command": sys.argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }  # fmt: skip


def blas() -> list[dict[str, Any]]:
    """The matrix libraries in this process, with their kernels and threads."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:  # a broken environment, which `xpnet doctor` looks at
        return []
    keys = ("internal_api", "version", "architecture", "num_threads")
    found = [{k: pool.get(k) for k in keys} for pool in threadpool_info() if pool.get("user_api") == "blas"]
    return sorted(found, key=str)  # the system lists them in any order
