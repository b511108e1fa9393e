"""The network: its settings, the layers they make, its passes and its files."""

from .model import DTYPES, MLP, load

__all__ = ["DTYPES", "MLP", "load"]
