"""Losses: one value per example, and the gradient of their weighted sum, from the network's outputs.

Every loss sees outputs h (..., B, O), targets t (..., B, O) and row weights w (..., B), and gives the loss of
each example (..., B) and dh = w dL/dh (..., B, O). With w = 1/B that is the gradient of the mean. Class labels
reach a loss as rows of t: one-hot, smoothed, soft, or rows of an information-gain matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from . import specs
from .activations import sigmoid, softplus
from .backend import Array, Backend
from .errors import ConfigError, unknown_name

Formula = Callable[..., Any]
Work = Callable[[str], Array]  # name -> a scratch array shaped like h


@dataclass(frozen=True)
class Loss:
    """A loss that is a sum over outputs of value(h, t).

    Parameters
    ----------
    name : str
        Canonical name, with its parameter where that differs from the default: ``"huber:2"``.
    value, slope : callable
        ``value(ns, h, t)`` of one output and its derivative by h.
    link : str or None
        How outputs become probabilities or predictions: ``"softmax"``, ``"sigmoid"``, ``"identity"``,
        ``"exp"``, or None where there is no probability (hinge).
    threshold : float
        With a single output, class 1 is h > threshold.
    classify : bool
        Whether class labels make sense as targets.
    regress : bool
        Whether real-valued targets make sense.
    signed : bool
        Whether 0/1 targets are used as -1/+1.

    Examples
    --------
    A loss of your own, to be passed to `xpnet.fit`; the two functions use the names that `Backend.map` lists.

    >>> quartic = Loss("quartic", lambda ns, h, t: (h - t) ** 4, lambda ns, h, t: 4 * (h - t) ** 3, regress=True)
    >>> quartic.slope(None, 3.0, 1.0)
    32.0
    """

    name: str
    value: Formula
    slope: Formula
    link: str | None = "identity"
    threshold: float = 0.5
    classify: bool = False
    regress: bool = False
    signed: bool = False

    def __call__(
        self, be: Backend, h: Array, t: Array, w: Array, *, loss: Array, dh: Array, work: Work
    ) -> None:
        """Fill `loss` (..., B) and `dh` (..., B, O), which must not be `h`."""
        each = work("each")
        be.map(self.value, h, t, out=each)
        be.sum(each, axis=-1, out=loss)
        be.map(self._weighted, h, t, be.xp.expand_dims(w, axis=-1), out=dh)

    @cached_property
    def _weighted(self) -> Formula:
        """(h, t, w) -> w slope(h, t), kept so that back ends trace it once."""
        slope = self.slope
        return lambda ns, h, t, w: w * slope(ns, h, t)


def _coupled(ns: Any, h: Any, t: Any) -> Any:
    raise NotImplementedError("softmax couples the outputs: no output has a loss of its own")


class SoftmaxCrossEntropy(Loss):
    """-sum_k t_k log softmax(h)_k. With t from an information-gain matrix H it is -sum_k H[T, k] log p_k."""

    def __call__(
        self, be: Backend, h: Array, t: Array, w: Array, *, loss: Array, dh: Array, work: Work
    ) -> None:
        be.softmax_cross_entropy(h, t, w, loss=loss, out=dh)


class MulticlassHinge(Loss):
    """sum over j != T of max(0, h_j - h_T + 1) (Weston and Watkins 1999); one output: max(0, 1 - y h)."""

    def __call__(
        self, be: Backend, h: Array, t: Array, w: Array, *, loss: Array, dh: Array, work: Work
    ) -> None:
        if h.shape[-1] == 1:
            super().__call__(be, h, t, w, loss=loss, dh=dh, work=work)
            return
        each = work("each")
        be.map(_product, t, h, out=each)
        be.sum(each, axis=-1, out=loss)  # for a moment: the score of the true class
        be.map(_violation, h, t, be.xp.expand_dims(loss, axis=-1), out=each)
        be.map(_active, each, out=dh)
        be.sum(each, axis=-1, out=loss)
        # The true class gets minus the number of classes that violate the margin.
        count = work("each")[..., 0]
        be.sum(dh, axis=-1, out=count)
        be.map(
            _hinge_gradient, dh, t, be.xp.expand_dims(count, axis=-1), be.xp.expand_dims(w, axis=-1), out=dh
        )


def _product(ns: Any, t: Array, h: Array) -> Array:
    return t * h


def _violation(ns: Any, h: Array, t: Array, true: Array) -> Array:
    return (1.0 - t) * ns.maximum(h - true + 1.0, 0.0)


def _active(ns: Any, violation: Array) -> Array:
    return ns.where(violation > 0.0, 1.0, 0.0 * violation)


def _hinge_gradient(ns: Any, active: Array, t: Array, count: Array, w: Array) -> Array:
    return w * (active - t * count)


def _binary_cross_entropy(ns: Any, h: Array, t: Array) -> Array:
    # -t log p - (1 - t) log(1 - p) with p = sigmoid(h), in a form that cannot overflow
    return softplus(ns, h) - t * h


def _hinge(ns: Any, h: Array, t: Array) -> Array:
    return ns.maximum(1.0 - t * h, 0.0)


def _huber(delta: float) -> dict[str, Any]:
    if not delta > 0.0:
        raise ConfigError(f"huber needs a delta > 0, found {delta}")

    def value(ns: Any, h: Array, t: Array) -> Array:
        e = h - t
        size = ns.where(e < 0.0, -e, e)
        return ns.where(size <= delta, 0.5 * e * e, delta * (size - 0.5 * delta))

    def slope(ns: Any, h: Array, t: Array) -> Array:
        return ns.minimum(ns.maximum(h - t, -delta), delta)

    return {"value": value, "slope": slope, "regress": True}


def _quantile(q: float) -> dict[str, Any]:
    if not 0.0 < q < 1.0:
        raise ConfigError(f"quantile needs a level between 0 and 1, found {q}")
    return {
        "value": lambda ns, h, t: ns.where(t >= h, q * (t - h), (1.0 - q) * (h - t)),
        "slope": lambda ns, h, t: ns.where(t > h, -q, ns.where(t < h, 1.0 - q, 0.0 * h)),
        "regress": True,
    }


_BINARY = {
    "value": _binary_cross_entropy,
    "slope": lambda ns, h, t: sigmoid(ns, h) - t,
    "link": "sigmoid",
    "threshold": 0.0,
    "classify": True,
}

# name -> (class, default parameter or None, function of that parameter -> fields)
_TABLE: dict[str, tuple[type[Loss], float | None, Callable[..., dict[str, Any]]]] = {
    "softmax_cross_entropy": (
        SoftmaxCrossEntropy,
        None,
        lambda: {"value": _coupled, "slope": _coupled, "link": "softmax", "classify": True},
    ),
    "binary_cross_entropy": (Loss, None, lambda: _BINARY),
    "squared_error": (
        Loss,
        None,
        lambda: {
            "value": lambda ns, h, t: 0.5 * ns.square(h - t),
            "slope": lambda ns, h, t: h - t,
            "classify": True,
            "regress": True,
        },
    ),
    "hinge": (
        MulticlassHinge,
        None,
        lambda: {
            "value": _hinge,
            "slope": lambda ns, h, t: ns.where(t * h < 1.0, -t, 0.0 * h),
            "link": None,
            "threshold": 0.0,
            "classify": True,
            "signed": True,
        },
    ),
    "absolute_error": (
        Loss,
        None,
        lambda: {
            "value": lambda ns, h, t: ns.where(h < t, t - h, h - t),
            "slope": lambda ns, h, t: ns.where(h > t, 1.0, ns.where(h < t, -1.0, 0.0 * h)),
            "regress": True,
        },
    ),
    "huber": (Loss, 1.0, _huber),
    # mean of a Poisson variable is exp(h); the constant log(t!) is left out
    "poisson": (
        Loss,
        None,
        lambda: {
            "value": lambda ns, h, t: ns.exp(h) - t * h,
            "slope": lambda ns, h, t: ns.exp(h) - t,
            "link": "exp",
            "regress": True,
        },
    ),
    "quantile": (Loss, 0.5, _quantile),
}

_ALIASES = {
    "cross_entropy": "softmax_cross_entropy", "bce": "binary_cross_entropy", "mse": "squared_error",
    "mae": "absolute_error", "svm": "hinge", "infogain": "softmax_cross_entropy",
    # what Keras and PyTorch call them
    **dict.fromkeys(
        ("crossentropy", "categorical_crossentropy", "categorical_cross_entropy", "sparse_categorical_crossentropy",
         "nll", "nll_loss"), "softmax_cross_entropy",
    ),
    **dict.fromkeys(
        ("binary_crossentropy", "bce_with_logits", "binary_cross_entropy_with_logits"), "binary_cross_entropy"
    ),
    "mean_squared_error": "squared_error", "mean_absolute_error": "absolute_error", "l1_loss": "absolute_error",
}  # fmt: skip

#: Names that `get_loss` takes.
NAMES = tuple(_TABLE)


def get_loss(spec: str | Loss) -> Loss:
    """Return the loss called `spec`, such as ``"softmax_cross_entropy"`` or ``"huber:2"``.

    Parameters
    ----------
    spec : str or Loss
        A name of `xpnet.losses.NAMES`; a loss that is built already is returned as it is.

    Returns
    -------
    Loss

    Raises
    ------
    ConfigError
        Unknown name (the nearest spelling is shown), or a parameter for one that takes none.

    Examples
    --------
    >>> get_loss("huber:2").name, get_loss("mse").name
    ('huber:2', 'squared_error')
    """
    if isinstance(spec, Loss):
        return spec
    if not isinstance(spec, str):
        raise ConfigError(
            f"loss must be a name or an xpnet.losses.Loss, found {spec!r:.80}; one of your own is "
            "Loss(name, value, slope, ...) of two functions of one output, see its documentation"
        )
    name, number = specs.split("loss", spec, _ALIASES)
    if name not in _TABLE:
        raise unknown_name("loss", name, NAMES)
    kind, default, build = _TABLE[name]
    if default is None:
        if number is not None:
            raise ConfigError(f"loss {name!r} takes no parameter, found {spec!r}")
        return kind(name, **build())
    parameter = default if number is None else number
    return kind(specs.join(name, parameter, default), **build(parameter))
