"""Figures of a run: curves, confusion matrix, residuals, first-layer weights, worst mistakes; scores of a sweep.

Each function returns a matplotlib Figure that belongs to nobody else (pyplot's global state is never touched)
and, given a path, saves it as a PNG, whole or not at all. Equal input gives equal bytes. Figures are 800
pixels wide; lines have colours of Okabe and Ito (2008), and the colour maps suit colour-blind readers.
"""

from .candidates import sweep_scores
from .classes import confusion
from .history import curves
from .pictures import first_layer, mistakes
from .residuals import regression

__all__ = ["confusion", "curves", "first_layer", "mistakes", "regression", "sweep_scores"]
