"""What goes on inside a network: statistics per layer, and where numbers stopped being finite."""

from __future__ import annotations

from typing import Any

import numpy as np

from .layers import Dense
from .mlp import MLP
from .training.step import TrainingStep

# A unit whose slope is below this share of the steepest slope of its activation counts as saturated.
SATURATED = 0.05


def layer_statistics(step: TrainingStep, rows: np.ndarray) -> list[dict[str, Any]]:
    """Statistics of every layer with parameters, on one batch, without an update.

    Parameters
    ----------
    step : TrainingStep
    rows : (B,) int64
        Examples to look at.

    Returns
    -------
    list of dict
        "layer"; "weight_norm" and "gradient_norm" (Euclidean, weights and biases together); "dead": share of
        units whose slope is 0 for every example; "saturated": share of (example, unit) pairs whose slope is
        below 5 % of the activation's steepest. The last two are None where a layer has no fixed activation
        (linear, maxout). For a population each value is a list over members.

    Examples
    --------
    >>> import xpnet
    >>> trainer = xpnet.Trainer(xpnet.MLP([1, 3, 2], bias=-9.0), ([[0.0], [1.0]], [0, 1]))
    >>> layer_statistics(trainer.step, np.array([0, 1]))[0]["dead"]  # biases that low let nothing through
    1.0
    """
    model, be = step.model, step.be
    totals = step.tally.totals()
    plan = step.plan(len(rows))
    step.feed(plan, rows)
    # the masks of the last update, also where a resumed run has made none yet
    step.counter[...] = max(step.n_updates - 1, 0)
    step.gradients(plan)
    step.tally.set_totals(totals)  # looking must not count as training
    result = []
    for i, (layer, context) in enumerate(zip(model.layers, plan.contexts, strict=True)):
        if not context.p:
            continue
        entry: dict[str, Any] = {
            "layer": f"{i}: {layer.label}",
            "weight_norm": _plain(_norm(model, context.p)),
            "gradient_norm": _plain(_norm(model, context.g)),
            "dead": None,
            "saturated": None,
        }
        activation = layer.activation if isinstance(layer, Dense) else None
        if activation is not None and activation.slope is not None and not activation.is_identity:
            slope = np.abs(activation.slope(_HOST, be.to_numpy(context.saved[1])))
            steepest = _steepest(activation)
            entry["dead"] = _plain((slope == 0.0).all(axis=-2).mean(axis=-1))
            entry["saturated"] = _plain((slope < SATURATED * steepest).mean(axis=(-2, -1)))
        result.append(entry)
    return result


class _HostNamespace:
    """NumPy with the error function, for formulas evaluated on the host."""

    def __getattr__(self, name: str) -> Any:
        if name == "erf":
            from scipy.special import erf

            return erf
        return getattr(np, name)


_HOST = _HostNamespace()


def _steepest(activation: Any) -> float:
    z = np.linspace(-6.0, 6.0, 1201)
    s = activation.value(_HOST, z) if activation.from_output else z
    return float(np.abs(activation.slope(_HOST, s)).max())


def _norm(model: Any, arrays: dict[str, Any]) -> np.ndarray:
    total = np.zeros(model.lead)
    for view in arrays.values():
        flat = np.asarray(model.be.to_numpy(view), dtype=np.float64).reshape(*model.lead, -1)
        total = total + np.square(flat).sum(axis=-1)
    return np.sqrt(total)


def _plain(value: Any) -> Any:
    value = np.asarray(value)
    return value.tolist() if value.ndim else float(value)


def locate_nonfinite(step: TrainingStep, rows: np.ndarray) -> str:
    """Say where non-finite numbers first appeared in the step just made on the examples `rows`.

    Reads what the forward pass left in its buffers. Running it again would not do: the update that followed
    has carried the trouble into the parameters of every layer.

    Returns
    -------
    str
        Such as ``"layer 1 (dense 500->10 identity): 1280 of its 1280 outputs are not finite"``.
    """
    model, be = step.model, step.be
    plan = step.plan(len(rows))
    computing = [i for i, layer in enumerate(model.layers) if layer.specs()]
    outputs = [plan.contexts[i].saved[0] for i in computing[1:]] + [plan.h]
    inputs = be.to_numpy(plan.x)
    if bad := _count_bad(inputs):
        return f"the inputs: {bad} of {inputs.size} numbers of the scaled batch are not finite"
    for i, h in zip(computing, outputs, strict=True):
        values = be.to_numpy(h)
        if bad := _count_bad(values):
            return f"layer {i} ({model.layers[i].label}): {bad} of its {values.size} outputs are not finite"
    return f"the {step.loss.name} loss: the outputs of the last layer are finite but too large"


def nonfinite_parameters(model: MLP) -> str | None:
    """Name the first layer with parameters that are not finite; None where all are finite.

    Parameters
    ----------
    model : MLP

    Returns
    -------
    str or None

    Examples
    --------
    >>> model = MLP([2, 3, 1])
    >>> model.params["layers.1.bias"][...] = float("nan")
    >>> nonfinite_parameters(model)
    'layer 1 (dense 3->1 identity): 1 of its 4 parameters are not finite'
    """
    for i, layer in enumerate(model.layers):
        values = [model.be.to_numpy(v) for k, v in model.params.items() if k.startswith(f"layers.{i}.")]
        if bad := sum(_count_bad(v) for v in values):
            size = sum(v.size for v in values)
            return f"layer {i} ({layer.label}): {bad} of its {size} parameters are not finite"
    return None


def _count_bad(values: np.ndarray) -> int:
    return int((~np.isfinite(values)).sum())
