"""What every exchange format needs: the weights of a model or an estimator as a chain of linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..layers import Dense, Dropout, InputNoise, Maxout, PReLU
from ..mlp import MLP, TargetUnits

#: Weights (O, I) and biases (O,) in float64, from input to output.
Layers = list[tuple[np.ndarray, np.ndarray]]


def is_estimator(source: Any) -> bool:
    """Say whether `source` is an estimator of xpnet, without loading scikit-learn for a bare model."""
    if isinstance(source, MLP):
        return False
    from ..estimators.base import BaseMLP

    return isinstance(source, BaseMLP)


def bare_model(source: Any) -> MLP:
    """The network of a model or of a fitted estimator; one that can stand outside xpnet.

    Raises
    ------
    ConfigError
        Nothing of the kind, or a population.
    """
    model = source.__dict__.get("model_") if is_estimator(source) else source
    if not isinstance(model, MLP):
        raise ConfigError(f"expected an MLP or a fitted estimator of xpnet, found {source!r:.100}")
    if model.n_models is not None:
        raise ConfigError(
            "a population has no counterpart elsewhere; pass one model, such as model.member(0)"
        )
    return model


def trained(source: Any) -> MLP:
    """Like `bare_model`, and trained."""
    model = bare_model(source)
    if model.task is None:
        raise ConfigError("the model has not been trained, so it is neither a classifier nor a regressor yet")
    return model


def target_units(source: Any) -> TargetUnits | None:
    """The units that the outputs of a model or an estimator are in, where they are not the targets' own."""
    if not is_estimator(source):
        return bare_model(source).target_units
    return source._units if bare_model(source).task == "regression" else None


def raw_layers(source: Any) -> Layers:
    """Weights and biases that take raw samples and give raw predictions (before softmax, sigmoid or exp)."""
    model = bare_model(source)
    for layer in model.layers:
        if type(layer) not in (Dense, PReLU, Dropout, InputNoise):
            what = (
                "maxout layers have"
                if type(layer) is Maxout
                else f"a layer of type {type(layer).__name__} has"
            )
            raise ConfigError(f"{what} no counterpart elsewhere")
    weights = {k: v.astype(np.float64) for k, v in model.get_weights().items()}
    layers = [
        (weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"])
        for i, layer in enumerate(model.layers)
        if isinstance(layer, Dense)
    ]
    scale: Any = None
    shift: Any = None
    if is_estimator(source):
        scaler = source.scaler_
        if scaler is not None:
            if scaler.tails_.any():
                columns = ", ".join(map(str, np.flatnonzero(scaler.tails_)[:10]))
                raise ConfigError(
                    f"columns {columns} have outliers that are compressed before the first layer, which plain weights "
                    "cannot express; fit with standardize=False behind a scaler of your own"
                )
            scale, shift = scaler.affine
    elif model.preprocessing is not None:
        scale, shift = model.preprocessing.scale, model.preprocessing.shift
    if scale is not None:
        w, b = layers[0]
        layers[0] = (w * scale, b + (w * shift).sum(axis=1))
    units = target_units(source)
    if units is not None:
        w, b = layers[-1]
        if model.architecture["output_activation"] not in ("identity", "linear", "none"):
            raise ConfigError(
                "the units of the target come after the activation of the outputs, which plain weights cannot express; "
                "use to_onnx"
            )
        if model.loss_function().link == "exp":  # scale * exp(h) = exp(h + ln scale)
            layers[-1] = (w, b + np.log(units.scale))
        else:
            layers[-1] = (w * units.scale[:, None], b * units.scale + units.mean)
    return layers


def slopes(model: MLP) -> dict[int, np.ndarray]:
    """The slopes of PReLU layers, by the number of the linear layer before them."""
    result, linear = {}, -1
    weights = model.get_weights()
    for i, layer in enumerate(model.layers):
        linear += isinstance(layer, Dense)
        if isinstance(layer, PReLU):
            result[linear] = weights[f"layers.{i}.slope"]
    return result


def fill(model: MLP, layers: Layers, slopes: Sequence[np.ndarray] = ()) -> None:
    """Put weights and biases, and slopes, of its linear layers into `model`."""
    rest, more = list(layers), list(slopes)
    weights = {}
    for i, layer in enumerate(model.layers):
        if isinstance(layer, Dense):
            weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"] = (np.asarray(a) for a in rest.pop(0))
        elif isinstance(layer, PReLU):
            weights[f"layers.{i}.slope"] = more.pop(0)
    model.set_weights(weights)


def class_names(source: Any, model: MLP) -> np.ndarray:
    """Labels in the order of the outputs; numbers from 0 where they have no names."""
    if is_estimator(source):
        return source.classes_
    if model.classes is not None:
        return np.array(model.classes)
    return np.arange(max(model.sizes[-1], 2 if model.task == "classification" else 1))
