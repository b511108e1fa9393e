"""Models to and from other libraries: scikit-learn's networks, PyTorch's, and ONNX files.

Each format has a module of its own, which is loaded when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .onnx import to_onnx
    from .sklearn import from_sklearn, to_sklearn
    from .torch import from_torch, from_torch_state, to_torch, to_torch_state

__all__ = [
    "from_sklearn",
    "from_torch",
    "from_torch_state",
    "to_onnx",
    "to_sklearn",
    "to_torch",
    "to_torch_state",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    library = name.partition("_")[2].removesuffix("_state")
    return getattr(importlib.import_module(f".{library}", __name__), name)
