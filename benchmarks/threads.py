"""One thread or all of them, for every library alike.

A library reads its number of threads when it is loaded, so `environment` has to be in place before; the comparison
runs each setting in a process of its own for that reason. With one thread the process is also pinned to one
processor, which binds libraries that ask nobody (XLA's pool).
"""

from __future__ import annotations

import os
import sys

SETTINGS = ("1", "all")


def n_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(setting: str) -> dict[str, str]:
    """Variables that make every library use one thread or all processors."""
    n = "1" if setting == "1" else str(n_cpus())
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    result = dict.fromkeys(names, n) | {
        "KERAS_BACKEND": os.environ.get("KERAS_BACKEND", "jax"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if setting == "1":
        flags = os.environ.get("XLA_FLAGS", "").split()
        flag = "--xla_cpu_multi_thread_eigen=false"
        result["XLA_FLAGS"] = " ".join(flags if flag in flags else [*flags, flag])
    return result


def pin(setting: str, cpu: int | None = None) -> int | None:
    """With one thread, bind this process to one processor, by default its last one. Returns which."""
    if setting != "1" or not hasattr(os, "sched_setaffinity"):
        return None
    cpu = max(os.sched_getaffinity(0)) if cpu is None else cpu
    os.sched_setaffinity(0, {cpu})
    return cpu


def settle(setting: str) -> float:
    """Seconds to pause before each sample. OpenBLAS and OpenMP threads go on spinning for up to about 100 ms after
    their work, and would take the processors from the side that comes next.
    """
    return 0.15 if setting == "all" else 0.0


def apply(setting: str, cpu: int | None = None) -> None:
    """The same within a running process, as far as that goes: call it before JAX and PyTorch are imported."""
    n = 1 if setting == "1" else n_cpus()
    os.environ.update(environment(setting))
    pin(setting, cpu)
    limit(n)


def limit(n: int) -> None:
    """Limit the libraries that are loaded already."""
    import numpy  # noqa: F401  (loads BLAS, which threadpoolctl then finds)
    from threadpoolctl import threadpool_limits

    threadpool_limits(n)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n)
