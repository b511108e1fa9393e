"""Estimators with scikit-learn's names and contract, on xpnet's training loop."""

from .classifier import MLPClassifier
from .regressor import MLPRegressor
from .scaling import FeatureScaler

__all__ = ["FeatureScaler", "MLPClassifier", "MLPRegressor"]
