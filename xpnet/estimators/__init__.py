"""Estimators with scikit-learn's names and contract, on xpnet's training loop."""

from typing import TYPE_CHECKING

from .scaling import FeatureScaler

if TYPE_CHECKING:
    from .classifier import MLPClassifier
    from .regressor import MLPRegressor

__all__ = ["FeatureScaler", "MLPClassifier", "MLPRegressor"]


def __getattr__(name: str) -> object:
    # the scaling of features is of use without scikit-learn, which takes a second to import
    if name == "MLPClassifier":
        from .classifier import MLPClassifier

        return MLPClassifier
    if name == "MLPRegressor":
        from .regressor import MLPRegressor

        return MLPRegressor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
