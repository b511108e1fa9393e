"""xpnet: multilayer perceptrons with one set of layer code on NumPy (CPU) and CuPy (CUDA)."""

from .backend import Backend, get_backend
from .callbacks import Callback
from .errors import (
    ConfigError,
    DataError,
    DeviceError,
    DivergedError,
    FileFormatError,
    OutOfMemoryError,
    XpnetError,
)
from .mlp import MLP, load
from .optim import SGD, AdaGrad, Adam, AdamW, RMSProp
from .train import History, Trainer, evaluate, fit

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Backend",
    "Callback",
    "ConfigError",
    "DataError",
    "DeviceError",
    "DivergedError",
    "FileFormatError",
    "History",
    "OutOfMemoryError",
    "RMSProp",
    "Trainer",
    "XpnetError",
    "__version__",
    "evaluate",
    "fit",
    "get_backend",
    "load",
]
