"""Models to and from other libraries: scikit-learn's networks, PyTorch's, and ONNX files.

Each has modules of its own, which are loaded when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .onnx import to_onnx
    from .sklearn import from_sklearn, to_sklearn
    from .torch import to_torch, to_torch_state
    from .torch_modules import from_torch, from_torch_state

__all__ = [
    "from_sklearn",
    "from_torch",
    "from_torch_state",
    "to_onnx",
    "to_sklearn",
    "to_torch",
    "to_torch_state",
]

_MODULES = {
    "to_sklearn": "sklearn", "from_sklearn": "sklearn", "to_onnx": "onnx", "to_torch": "torch",
    "to_torch_state": "torch", "from_torch": "torch_modules", "from_torch_state": "torch_modules",
}  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
