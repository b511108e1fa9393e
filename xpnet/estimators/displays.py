"""Figures in the manner of scikit-learn's displays: made from an estimator, drawn into any axes, again at will."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from ..errors import ConfigError, DataError, missing_package
from .base import BaseMLP

KINDS = ("loss", "score")


class LossCurveDisplay:
    """The course of training: loss, or validation score, after each epoch.

    Make it with `from_estimator`, or from curves of your own.

    Parameters
    ----------
    loss_curve : array_like (E,)
        Mean training loss of each of E epochs.
    validation_loss_curve, validation_scores : array_like (E,), optional
        Where there was a validation set.
    best_epoch : int, optional
        The epoch (from 1) whose weights were kept; marked by a dotted line.
    estimator_name : str, optional
        Put before the names in the legend.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    lines_ : list of matplotlib.lines.Line2D
        The curves, training first.

    Raises
    ------
    DataError
        The curves differ in length.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from xpnet import MLPClassifier
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]
    >>> clf = MLPClassifier((4,), max_iter=5, random_state=0).fit(X, y, X_val=X, y_val=y)
    >>> display = LossCurveDisplay.from_estimator(clf)
    >>> [line.get_label() for line in display.lines_]
    ['MLPClassifier, training', 'MLPClassifier, validation']
    """

    ax_: Any
    figure_: Any
    lines_: list[Any]

    def __init__(
        self, *, loss_curve: Any, validation_loss_curve: Any = None, validation_scores: Any = None,
        best_epoch: int | None = None, estimator_name: str | None = None,
    ):  # fmt: skip
        self.loss_curve = np.asarray(loss_curve, dtype=float)
        self.validation_loss_curve = _curve("validation_loss_curve", validation_loss_curve, self.loss_curve)
        self.validation_scores = _curve("validation_scores", validation_scores, self.loss_curve)
        self.best_epoch, self.estimator_name = best_epoch, estimator_name

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, kind: str = "loss", name: str | None = None, ax: Any = None,
        line_kw: Mapping[str, Any] | None = None,
    ) -> LossCurveDisplay:  # fmt: skip
        """Draw the course of a fitted estimator's training.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor
            Fitted; or a `Pipeline` that ends in one, or a search whose best estimator is one.
        kind : {"loss", "score"}, default "loss"
            "score" is accuracy or R2 on the validation set.
        name : str, optional
            In the legend; the estimator's class where omitted.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure where omitted.
        line_kw : dict, optional
            More arguments of matplotlib's ``plot``.

        Returns
        -------
        LossCurveDisplay

        Raises
        ------
        NotFittedError
        ConfigError
            It is none of xpnet's estimators, or had no validation set for "score".
        """
        net = getattr(estimator, "best_estimator_", estimator)
        net = net[-1] if isinstance(net, Pipeline) else net
        if not isinstance(net, BaseMLP):
            raise ConfigError(
                f"LossCurveDisplay draws MLPClassifier and MLPRegressor of xpnet, found {type(net).__name__}; pass its "
                "curves to LossCurveDisplay(loss_curve=...)"
            )
        check_is_fitted(net)
        history = getattr(net, "history_", None)  # an estimator from elsewhere has none
        display = cls(
            loss_curve=net.loss_curve_, validation_loss_curve=net.validation_loss_curve_,
            validation_scores=net.validation_scores_, estimator_name=name or type(net).__name__,
            best_epoch=history.best_epoch if history is not None and len(history) == len(net.loss_curve_) else None,
        )  # fmt: skip
        return display.plot(ax, kind=kind, line_kw=line_kw)

    def plot(
        self,
        ax: Any = None,
        *,
        kind: str = "loss",
        name: str | None = None,
        line_kw: Mapping[str, Any] | None = None,
    ) -> LossCurveDisplay:
        """Draw; the arguments are those of `from_estimator`.

        Raises
        ------
        ConfigError
            `kind` is neither "loss" nor "score", or there are no scores.
        MissingPackageError
            matplotlib is not installed.
        """
        curves = self._curves(kind)
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise missing_package("drawing needs matplotlib", "plots", error) from error
        if ax is None:
            _, ax = plt.subplots()
        name = self.estimator_name if name is None else name
        self.lines_ = []
        for label, curve in curves:
            options = {"label": f"{name}, {label}" if name else label, **(line_kw or {})}
            self.lines_ += ax.plot(np.arange(1, len(curve) + 1), curve, **options)
        if self.best_epoch is not None:
            ax.axvline(self.best_epoch, color="0.6", linestyle=":", zorder=0)
        both = np.concatenate([curve for _, curve in curves])
        if kind == "loss" and both.min() > 0.0 and both.max() > 100.0 * both.min():
            ax.set_yscale("log")
        ax.set(xlabel="Epoch", ylabel="Loss" if kind == "loss" else "Score on the validation set")
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _curves(self, kind: str) -> Sequence[tuple[str, np.ndarray]]:
        if kind not in KINDS:
            raise ConfigError(f"kind must be 'loss' or 'score', found {kind!r}")
        if kind == "loss":
            known = [("training", self.loss_curve), ("validation", self.validation_loss_curve)]
            return [(label, curve) for label, curve in known if curve is not None]
        if self.validation_scores is None:
            raise ConfigError(
                "there are no scores without a validation set: fit with early_stopping=True, or X_val, y_val"
            )
        return [("validation", self.validation_scores)]


def _curve(name: str, values: Any, loss: np.ndarray) -> np.ndarray | None:
    if values is None:
        return None
    # R2 of a diverging epoch is None; it leaves a gap
    curve = np.array([np.nan if v is None else v for v in values], dtype=float)
    if curve.shape != loss.shape:
        raise DataError(
            f"{name} has shape {curve.shape}, but loss_curve {loss.shape}; both have one number per epoch"
        )
    return curve
