"""The network: its settings, the layers they make, its passes and its files."""

from .meaning import TargetUnits
from .model import DTYPES, MLP, load, not_trained

__all__ = ["DTYPES", "MLP", "TargetUnits", "load", "not_trained"]
