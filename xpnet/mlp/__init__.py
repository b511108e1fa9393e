"""The network: its settings, the layers they make, its passes and its files."""

from .files import load
from .meaning import TargetUnits
from .model import DTYPES, MLP, not_trained

__all__ = ["DTYPES", "MLP", "TargetUnits", "load", "not_trained"]
