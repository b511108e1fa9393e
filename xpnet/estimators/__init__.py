"""Estimators with scikit-learn's names and contract, on xpnet's training loop."""

import importlib
from typing import TYPE_CHECKING

from ..data.scaling import FeatureScaler

if TYPE_CHECKING:
    from .classifier import MLPClassifier
    from .displays import LossCurveDisplay
    from .ensemble import DeepEnsembleClassifier, DeepEnsembleRegressor
    from .regressor import MLPRegressor
    from .search import PopulationSearchCV

__all__ = [
    "DeepEnsembleClassifier",
    "DeepEnsembleRegressor",
    "FeatureScaler",
    "LossCurveDisplay",
    "MLPClassifier",
    "MLPRegressor",
    "PopulationSearchCV",
]

_MODULES = {
    "LossCurveDisplay": "displays",
    "MLPClassifier": "classifier",
    "MLPRegressor": "regressor",
    "PopulationSearchCV": "search",
    "DeepEnsembleClassifier": "ensemble",
    "DeepEnsembleRegressor": "ensemble",
}


def __getattr__(name: str) -> object:
    # the scaling of features is of use without scikit-learn, which takes a second to import
    if name in _MODULES:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
