"""Sources compiled once; their machine code is kept on disk. Needs Numba."""

from __future__ import annotations

import atexit
import functools
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...storage.cache import cache_folder

_lock = threading.Lock()  # two threads may train with a back end each
_functions: dict[str, Callable[..., Any]] = {}

_HEADER = """import numpy as np
from numba import cfunc, njit

from xpnet.backend.compiled import elementary, pointers, products, shares

# {digest}

"""


@functools.cache
def _header() -> str:
    """What a kernel's file begins with; another one where the modules that it calls have changed."""
    here = Path(__file__).parent
    parts = b"".join(
        (here / f"{name}.py").read_bytes() for name in ("elementary", "pointers", "products", "shares")
    )
    return _HEADER.format(digest=hashlib.sha256(parts).hexdigest()[:16])


_KERNEL = '@njit(error_model="numpy", cache=True, nogil=True)'
_ENTRY = '@cfunc("void(int64, int64, int64, int64, int64)", cache=True, error_model="numpy")'


class Kernel:
    """A function ``kernel`` as source; compiled when it is called for the first time."""

    def __init__(self, source: str):
        self.source = source
        self._function: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        if self._function is None:
            self._function = compiled(self.source)
        return self._function(*args)


@functools.cache
def kernel(source: str) -> Kernel:
    """The kernel of a source."""
    return Kernel(source)


def compiled(source: str) -> Any:
    """Compile the function ``kernel`` or ``entry`` in `source`; its machine code is kept on disk with the source."""
    with _lock:
        if source not in _functions:
            _functions[source] = _loaded(source)
        return _functions[source]


def _loaded(source: str) -> Callable[..., Any]:
    text = _header() + source.replace("def kernel(", f"{_KERNEL}\ndef kernel(")
    text = text.replace("def entry(", f"{_ENTRY}\ndef entry(")
    name = f"xpnet_kernel_{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    path = _folder() / f"{name}.py"
    if not path.exists():
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Numba looks the module up when it loads machine code from disk
    spec.loader.exec_module(module)
    found: Callable[..., Any] = getattr(module, "entry", None) or module.kernel
    return found


def kept() -> bool:
    """Whether there is any machine code on disk."""
    return next(_folder().glob("xpnet_kernel_*.py"), None) is not None


def _folder() -> Path:
    folder = cache_folder("kernels")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _passing_folder(folder)
    return folder if os.access(folder, os.W_OK) else _passing_folder(folder)


@functools.cache
def _passing_folder(instead_of: Path) -> Path:
    """A folder that goes when the process ends, for machines where nothing may be written into the user's cache."""
    warnings.warn(
        f"compiled code cannot be kept in {instead_of}, so each process makes it anew; set XPNET_CACHE to a folder "
        "that can be written to",
        stacklevel=3,
    )
    folder = tempfile.mkdtemp(prefix="xpnet-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
