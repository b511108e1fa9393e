"""Columns of a table as features, and its target."""

from .features import TabularPreprocessing, columns_text
from .targets import Target

__all__ = ["TabularPreprocessing", "Target", "columns_text"]
