"""Public checks: does a back end keep its contract, and does a model have the right gradients?

`check_backend` compares a `Backend` with the reference, operation by operation. `check_gradients` compares
what a training step does to the weights with numerical derivatives of the objective it claims to descend, so
it also checks a layer of your own: derive from `MLP`, put the layer in, and pass the model. `trace` shows what
happens inside one training step.

>>> import xpnet
>>> from xpnet.testing import check_gradients
>>> model = xpnet.MLP([2, 3, 2], activation="tanh", dtype="float64")
>>> check_gradients(model, [[0.1, 0.2], [0.3, -0.4]], [0, 1], l2=0.1) < 1e-12
True
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import Array
from .backend.reference import ReferenceBackend
from .conformance import check_backend
from .errors import ConfigError
from .layers import Dense
from .losses import Loss, get_loss
from .mlp import MLP
from .optim import SGD
from .training.examples import infer_task, prepare
from .training.passes import Pass, Targets
from .training.step import TrainingStep
from .training.update import Regularization

_COMPLEX_STEP, _CENTRAL_STEP = 1e-30, 1e-5


class _Objective(Pass):
    """J of a model on the reference back end, one number per member, in the dtype of the model."""

    def __init__(
        self, model: MLP, loss: Loss, x: Any, y: Any, *, task: str, sample_weight: Any, targets: Targets,
        regularization: Regularization, step: int,
    ):  # fmt: skip
        model.task = task
        self._rows = np.arange(len(x), dtype=np.int64)
        examples = prepare(model, x, y, loss=loss, task=task, sample_weight=sample_weight, training=False)
        super().__init__(model, loss, examples, targets=targets, train=True)
        weights = np.ones(len(x)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        self._share = weights / weights.sum()
        self._l1, self._l2 = (np.asarray(n, dtype=float) for n in (regularization.l1, regularization.l2))
        self.counter[...] = step
        self._each: Array = None

    def value(self) -> np.ndarray:
        """Return J at the present weights, shape (M,), or (1,) for a single model."""
        self(self._rows)
        j = np.sum(self._each * self._share, axis=-1)
        for spec in self.model.layout.specs:
            if spec.decayed:
                w = self.model.params[spec.name]
                axes = tuple(range(-len(spec.shape), 0))
                size = np.where(w.real < 0.0, -w, w)  # |w|, and analytic, away from 0
                j = j + self._l1 * np.sum(size, axis=axes) + 0.5 * self._l2 * np.sum(w * w, axis=axes)
        return np.atleast_1d(j)

    # The totals of a step are real numbers that nothing here needs.
    def _score(
        self, each: Array, w: Array, raw: Array | None, h: Array, t: Array, labels: Array | None
    ) -> None:
        self._each = each


def check_gradients(
    model: MLP,
    x: Any,
    y: Any,
    *,
    loss: str | Loss = "softmax_cross_entropy",
    l1: Any = 0.0,
    l2: Any = 0.0,
    sample_weight: Any = None,
    label_smoothing: float = 0.0,
    infogain: Any = None,
    step: int = 0,
    method: str = "complex",
) -> float:
    """Compare the gradients of a training step with numerical derivatives, parameter by parameter.

    The objective is J = sum_i w_i L_i + l1 sum |w| + (l2 / 2) sum w^2 per model, where the w_i are the sample
    weights divided by their sum (1/B without) and the penalties run over weights, not biases. The gradient
    under test is what one step of SGD with a learning rate of 1 subtracts from a float64 copy of the model on
    its own back end; so forward, backward and the penalties of the update are all in it. J itself is computed
    on `ReferenceBackend(numpy)`, with the same dropout masks and noise.

    Parameters
    ----------
    model : MLP
        One model or a population; it is not changed. Its `task` is used where set, else inferred.
    x : array_like (B, I)
    y : array_like (B,) or (B, O)
        One batch: samples and class labels or targets, as `fit` takes them.
    loss : str or Loss, default "softmax_cross_entropy"
    l1, l2 : float or one per member, default 0
    sample_weight : array_like (B,), optional
    label_smoothing, infogain
        See `xpnet.training.passes.Targets`.
    step : int, default 0
        Position of the random streams: which masks and noise.
    method : {"complex", "central"}
        "complex" takes Im J(w + ih) / h with h = 1e-30 in complex128, exact to rounding (Squire and Trapp
        1998); it needs formulas that complex numbers pass through, as all of xpnet's do: no `abs`. "central"
        takes (J(w + h) - J(w - h)) / 2h with h = 1e-5, good to about 1e-9 where J is smooth, and wrong
        where a kink lies within h.

    Returns
    -------
    float
        The largest |g - g'| over all parameters, divided for each member by max(1, largest |g'|), where g' is
        the numerical derivative. About 1e-14 for "complex" when all is well; NaN where a gradient is NaN.

    Raises
    ------
    ConfigError
        Unknown method, a setting the loss cannot have, or an activation without a gradient.
    DataError
        `x` or `y` cannot be used.

    Examples
    --------
    >>> model = MLP([2, 3, 2], activation="tanh")
    >>> check_gradients(model, [[0.1, 0.2], [0.3, -0.4]], [0, 1], l2=0.1) < 1e-12
    True
    """
    if method not in ("complex", "central"):
        raise ConfigError(f"method must be 'complex' or 'central', found {method!r}")
    function = get_loss(loss)
    x, y = np.asarray(x), np.asarray(y)
    task = model.task or infer_task(y, function, model.sizes[-1])
    targets = Targets(label_smoothing=label_smoothing, infogain=infogain)
    regularization = Regularization(l1=l1, l2=l2)

    copy = model.to(model.be, dtype="float64")
    copy.task = task
    examples = prepare(copy, x, y, loss=function, task=task, sample_weight=sample_weight, training=False)
    before = np.array(copy.be.to_numpy(copy.weights))
    training = TrainingStep(copy, function, examples, SGD(lr=1.0), regularization, targets)
    training.n_updates = step
    training(np.arange(len(x), dtype=np.int64))
    copy.be.synchronize()
    host = ReferenceBackend(np)
    gradients = copy.layout.views(host, before - copy.be.to_numpy(copy.weights))

    other = model.to(host, dtype="complex128" if method == "complex" else "float64")
    objective = _Objective(
        other, function, x, y, task=task, sample_weight=sample_weight, targets=targets,
        regularization=regularization, step=step,
    )  # fmt: skip
    members = model.n_models or 1
    error, largest = np.zeros(members), np.ones(members)
    for spec in other.layout.specs:
        view = other.params[spec.name]
        for index in np.ndindex(*spec.shape):
            numerical = _derivative(objective, view, (..., *index), method)
            found = gradients[spec.name][(..., *index)]
            error = np.maximum(error, np.abs(found - numerical))  # maximum keeps NaN
            largest = np.maximum(largest, np.abs(numerical))
    return float(np.max(error / largest))


def _derivative(objective: _Objective, w: np.ndarray, at: tuple[Any, ...], method: str) -> np.ndarray:
    """dJ/dw[at] of each member; all members move at once, since no gradient may mix them."""
    here = np.array(w[at])
    if method == "complex":
        w[at] = here + 1j * _COMPLEX_STEP
        result = objective.value().imag / _COMPLEX_STEP
    else:
        w[at] = here + _CENTRAL_STEP
        result = objective.value()
        w[at] = here - _CENTRAL_STEP
        result = (result - objective.value()) / (2.0 * _CENTRAL_STEP)
    w[at] = here
    return result


@dataclass
class LayerTrace:
    """What one layer saw and said in one training step; host arrays, a population with M in front.

    Attributes
    ----------
    label : str
        Such as ``"dense 3->4 sigmoid"``.
    weights, gradients : dict of array
        The layer's parameters and dJ/d(parameter) by short name: "weight" (..., O, I), "bias" (..., O).
    x, y : array (..., B, I) and (..., B, O)
        Input and output.
    dy, dx : array of the same shapes
        dJ/dy and dJ/dx; `dx` is None where it is never computed (the first layer).
    z, dz : array (..., B, O), optional
        Of a dense layer: z = x W^T + b before the activation, and dJ/dz = dy f'(z).

    Examples
    --------
    >>> import xpnet
    >>> seen = trace(xpnet.MLP([2, 3, 2], activation="tanh"), [[1.0, 2.0]], [0])[0]
    >>> np.allclose(seen.y, np.tanh(seen.z)), np.allclose(seen.gradients["weight"], seen.dz.T @ seen.x)
    (True, True)
    """

    label: str
    weights: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    x: np.ndarray
    y: np.ndarray
    dy: np.ndarray
    dx: np.ndarray | None
    z: np.ndarray | None = None
    dz: np.ndarray | None = None


def trace(
    model: MLP, x: Any, y: Any, *, loss: str | Loss = "softmax_cross_entropy", step: int = 0
) -> list[LayerTrace]:
    """Return every array of one training step, layer by layer, without changing the model.

    J is the mean loss of the batch, without penalties. Dropout and noise act as they do at update `step`.

    Parameters
    ----------
    model : MLP
    x : array_like (B, ...)
    y : array_like (B,) or (B, O)
        One batch, as `fit` takes it.
    loss : str or Loss, default "softmax_cross_entropy"
    step : int, default 0

    Returns
    -------
    list of LayerTrace
        One per layer, the first layer first; the last one's `dy` is the gradient of the loss by the outputs.

    Raises
    ------
    ConfigError
        A loss that does not fit, or an activation without a gradient.
    DataError
        `x` or `y` cannot be used.

    Examples
    --------
    >>> model = MLP([2, 3, 1], activation="sigmoid")
    >>> hidden, output = trace(model, [[1.0, 0.0]], [[1.0]], loss="squared_error")
    >>> hidden.label, hidden.gradients["weight"].shape, output.dy.shape
    ('dense 2->3 sigmoid', (3, 2), (1, 1))
    """
    function = get_loss(loss)
    x, y = np.asarray(x), np.asarray(y)
    copy = model.to(model.be)
    copy.task = model.task or infer_task(y, function, model.sizes[-1])
    examples = prepare(copy, x, y, loss=function, task=copy.task, training=False)
    training = TrainingStep(copy, function, examples, SGD(lr=1.0))
    training.counter[...] = step
    plan = training.plan(len(x))
    plan.index[...] = copy.be.asarray(np.arange(len(x), dtype=np.int64))

    def host(array: Array) -> np.ndarray:
        return np.array(copy.be.to_numpy(array))

    dy = training._forward(plan)
    h, outputs = plan.x, []
    for layer, c in zip(copy.layers, plan.contexts, strict=True):
        before, h = host(h), layer.forward(h, c)
        outputs.append((before, host(h)))
    first = next(i for i, layer in enumerate(copy.layers) if layer.specs())
    result: list[LayerTrace] = []
    for i in range(len(copy.layers) - 1, first - 1, -1):
        layer, c = copy.layers[i], plan.contexts[i]
        above = host(dy)
        dx = layer.backward(dy, c, need_dx=i > first)
        p = {name: host(view) for name, view in c.p.items()}
        g = {name: host(view) for name, view in c.g.items()}
        seen = LayerTrace(layer.label, p, g, *outputs[i], dy=above, dx=None if dx is None else host(dx))
        if isinstance(layer, Dense):
            seen.z = seen.x @ np.swapaxes(p["weight"], -1, -2) + p["bias"][..., None, :]
            seen.dz = host(dy)  # a dense layer turns dy into dz in place
        result.insert(0, seen)
        dy = dx
    return result


__all__ = ["LayerTrace", "check_backend", "check_gradients", "trace"]
