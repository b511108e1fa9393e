"""What a result depends on besides settings and data: versions, the machine, the matrix library and its threads."""

from __future__ import annotations

import importlib.metadata
import os
import platform
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
    from threadpoolctl import threadpool_info

    keys = ("internal_api", "version", "architecture", "num_threads")
    found = [{k: pool.get(k) for k in keys} for pool in threadpool_info() if pool.get("user_api") == "blas"]
    return sorted(found, key=str)  # the system lists them in any order
