"""Weights to and from other libraries: scikit-learn's networks, and PyTorch's state dicts as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn import neural_network
from sklearn.base import is_classifier

from .errors import ConfigError, FileFormatError
from .estimators import MLPClassifier, MLPRegressor
from .estimators.base import BaseMLP
from .layers import Dense, Maxout, PReLU
from .losses import get_loss
from .mlp import MLP

_TO_SKLEARN = {"identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}

Layers = list[
    tuple[np.ndarray, np.ndarray]
]  # weights (O, I) and biases (O,) in float64, from input to output


def to_sklearn(source: MLP | MLPClassifier | MLPRegressor) -> Any:
    """Return a fitted scikit-learn network that predicts the same.

    Scaling of features and targets becomes part of its first and last weights.

    Parameters
    ----------
    source : MLP, MLPClassifier or MLPRegressor
        Trained; one model, all hidden layers "identity", "logistic", "tanh" or "relu" alike.

    Returns
    -------
    sklearn.neural_network.MLPClassifier or MLPRegressor
        With float64 weights.

    Raises
    ------
    ConfigError
        scikit-learn has no such network; the message says why.

    Examples
    --------
    >>> clf = MLPClassifier((4,), random_state=0, max_iter=2).fit([[0.0], [1.0], [2.0]], ["a", "b", "b"])
    >>> to_sklearn(clf).predict([[2.0]]).tolist() == clf.predict([[2.0]]).tolist()
    True
    """
    model, layers = _trained(source), _raw_layers(source)
    activation = _common_activation(model)
    loss = get_loss(model.loss or "")
    if model.task is None or loss.link is None:
        raise ConfigError(
            f"scikit-learn's networks have no {loss.name} loss, and so no way to predict from its outputs"
        )
    if model.task != "regression" and loss.link not in ("softmax", "sigmoid"):
        raise ConfigError(
            f"scikit-learn's classifiers use the cross-entropy, but this net was trained with {loss.name}"
        )
    if model.task == "classification" and (
        len(layers[-1][1]) == 2 or (loss.link == "sigmoid" and len(layers[-1][1]) > 1)
    ):
        raise ConfigError(
            "scikit-learn uses one sigmoid output for two classes and softmax for more; this net has "
            f"{len(layers[-1][1])} {loss.link} outputs"
        )
    settings: dict[str, Any] = {"hidden_layer_sizes": model.sizes[1:-1], "activation": activation}
    x = np.zeros((2, model.sizes[0]))
    if model.task == "regression":
        if loss.link == "exp":
            settings["loss"] = "poisson"
        result = neural_network.MLPRegressor(**settings)
        width = model.sizes[-1]
        result.partial_fit(x, np.ones(2) if width == 1 else np.ones((2, width)))
    else:
        result = neural_network.MLPClassifier(**settings)
        classes = _classes(source, model)
        if model.task == "multilabel":
            result.partial_fit(x, np.arange(2 * len(classes)).reshape(2, -1) % 2, classes=classes)
        else:
            result.partial_fit(x, classes[:2], classes=classes)
    # partial_fit made everything that a fitted network has; now it gets what was really learned
    result.coefs_ = [np.ascontiguousarray(w.T) for w, _ in layers]
    result.intercepts_ = [b.copy() for _, b in layers]
    del result._optimizer
    if isinstance(source, BaseMLP):
        for name in ("n_iter_", "t_", "loss_", "loss_curve_", "feature_names_in_"):
            if hasattr(source, name):
                setattr(result, name, getattr(source, name))
        if source.best_loss_ is not None:
            result.best_loss_ = source.best_loss_
    return result


def from_sklearn(source: Any, *, dtype: str = "float64", device: Any = None) -> MLPClassifier | MLPRegressor:
    """Return an xpnet estimator with the weights of a fitted scikit-learn network, and no scaling inside.

    Parameters
    ----------
    source : sklearn.neural_network.MLPClassifier or MLPRegressor
    dtype : {"float64", "float32"}
    device : str, optional

    Raises
    ------
    ConfigError
        It is not such a network, or not fitted.
    """
    kinds = (neural_network.MLPClassifier, neural_network.MLPRegressor)
    if not isinstance(source, kinds) or not hasattr(source, "coefs_"):
        raise ConfigError(
            f"expected a fitted MLPClassifier or MLPRegressor of scikit-learn, found {source!r:.100}"
        )
    sizes = [source.coefs_[0].shape[0], *(w.shape[1] for w in source.coefs_)]
    shared = {
        "hidden_layer_sizes": tuple(sizes[1:-1]), "activation": source.activation, "alpha": source.alpha,
        "max_iter": source.max_iter, "learning_rate_init": source.learning_rate_init,
        "learning_rate": source.learning_rate, "solver": "adam" if source.solver == "lbfgs" else source.solver,
        "dropout": 0.0, "standardize": False, "dtype": dtype, "device": device,
    }  # fmt: skip
    result: Any
    link = source.out_activation_
    if is_classifier(source):
        result = MLPClassifier(**shared, label_smoothing=0.0)
        result._multilabel = source._label_binarizer.y_type_.startswith("multilabel")
        result.classes_ = np.array(source.classes_)
        task = "multilabel" if result._multilabel else "classification"
        loss = "softmax_cross_entropy" if link == "softmax" else "binary_cross_entropy"
    else:
        task, loss = "regression", "poisson" if link == "exp" else "squared_error"
        result = MLPRegressor(**shared, scale_target=False, loss=loss)
        result._flat, result._n_targets = sizes[-1] == 1, sizes[-1]
        result.target_mean_, result.target_scale_ = np.zeros(sizes[-1]), np.ones(sizes[-1])
    model = MLP(sizes, activation=source.activation, dtype=dtype, device="cpu" if device is None else device)
    model.task, model.loss = task, loss
    _fill(model, [(w.T, b) for w, b in zip(source.coefs_, source.intercepts_, strict=True)])
    result.model_, result.scaler_, result._moments = model, None, None
    result.dtype_, result.alpha_ = dtype, source.alpha
    result.input_noise_ = result.dropout_ = 0.0
    result.n_features_in_, result.n_outputs_, result.n_layers_ = sizes[0], sizes[-1], len(sizes)
    if hasattr(source, "feature_names_in_"):
        result.feature_names_in_ = source.feature_names_in_
    result.out_activation_ = link
    result.loss_curve_ = [float(loss) for loss in getattr(source, "loss_curve_", ())]
    result.loss_, result.best_loss_ = float(source.loss_), getattr(source, "best_loss_", None)
    result.n_iter_, result.t_ = source.n_iter_, source.t_
    result.validation_loss_curve_ = result.validation_scores_ = result.best_validation_score_ = None
    return result


def to_torch_state(
    source: MLP | MLPClassifier | MLPRegressor, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Return the weights as PyTorch's ``Sequential(Linear, activation, Linear, ...)`` names and shapes them.

    Parameters
    ----------
    source : MLP, MLPClassifier or MLPRegressor
        Scaling of features and targets becomes part of the weights; softmax or sigmoid does not.
    names : sequence of str, optional
        Of the linear layers; "0", "2", "4", ... by default.

    Returns
    -------
    dict of numpy.ndarray
        "0.weight" (O, I), "0.bias" (O,), ... in the model's dtype; a learnt slope is "1.weight" (O,). Pass it through
        ``{k: torch.from_numpy(v) for k, v in state.items()}`` to `load_state_dict`.

    Raises
    ------
    ConfigError
        A maxout layer, a population, or extreme values that are compressed before the first layer.

    Examples
    --------
    >>> list(to_torch_state(MLP([3, 4, 2])))
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    model, layers = _model(source), _raw_layers(source)
    names = [str(2 * i) for i in range(len(layers))] if names is None else list(names)
    if len(names) != len(layers):
        raise ConfigError(f"{len(names)} names for {len(layers)} linear layers: {', '.join(names)}")
    state: dict[str, np.ndarray] = {}
    for name, (weight, bias) in zip(names, layers, strict=True):
        state[f"{name}.weight"], state[f"{name}.bias"] = weight.astype(model.dtype), bias.astype(model.dtype)
    slopes = _slopes(model)
    for i, slope in slopes.items():
        after = str(int(names[i]) + 1) if names[i].isdigit() else f"{names[i]}_slope"
        state[f"{after}.weight"] = slope
    return state


def from_torch_state(
    state: Mapping[str, Any], *, activation: str | Sequence[str] = "relu", task: str | None = None,
    loss: str | None = None, dtype: str = "float32", device: Any = "cpu",
) -> MLP:  # fmt: skip
    """Return an `MLP` with the weights of a chain of PyTorch linear layers.

    Parameters
    ----------
    state : mapping of array_like
        As ``module.state_dict()`` gives it, in the order of the layers. Two-dimensional weights are linear layers (a
        missing bias is zero); one-dimensional ones after them the slopes of PReLU, which need "prelu" there.
    activation : str or sequence of str
        Of the hidden layers, which a state does not tell.
    task, loss : str, optional
        What it was trained for, such as "classification" and "softmax_cross_entropy", so that `predict` works.
    dtype, device
        As for `MLP`.

    Raises
    ------
    FileFormatError
        The tensors are no such chain.

    Examples
    --------
    >>> state = to_torch_state(MLP([3, 4, 2], seed=1))
    >>> from_torch_state(state).sizes
    (3, 4, 2)
    """
    arrays = {k: np.asarray(v.detach().cpu() if hasattr(v, "detach") else v) for k, v in state.items()}
    layers: Layers = []
    slopes: list[np.ndarray] = []
    slots: list[int] = []
    order = {k.rpartition(".")[0]: None for k in arrays}
    if all(name.isdigit() for name in order):
        order = dict.fromkeys(sorted(order, key=int))
    for name in order:
        weight, bias = arrays.get(f"{name}.weight"), arrays.get(f"{name}.bias")
        if weight is None or weight.ndim not in (1, 2):
            shape = None if weight is None else weight.shape
            raise FileFormatError(f"{name or 'a tensor without a layer'}: weight is {shape}, expected (O, I)")
        if weight.ndim == 1:
            if bias is not None or not layers:
                raise FileFormatError(
                    f"{name} looks like a normalisation layer; only linear layers and PReLU are known"
                )
            slots.append(len(layers) - 1)
            slopes.append(np.broadcast_to(weight, layers[-1][1].shape))
            continue
        if layers and layers[-1][0].shape[0] != weight.shape[1]:
            raise FileFormatError(
                f"{name} takes {weight.shape[1]} inputs, but the layer before gives {layers[-1][0].shape[0]}"
            )
        layers.append((weight, np.zeros(weight.shape[0]) if bias is None else bias))
    if not layers:
        raise FileFormatError("the state has no linear layer")
    sizes = [layers[0][0].shape[1], *(w.shape[0] for w, _ in layers)]
    model = MLP(sizes, activation=activation, dtype=dtype, device=device)
    expected = list(_slopes(model))
    if slots != expected:
        raise FileFormatError(
            f"the state has slopes after linear layers {slots}, but activation {activation!r} has them after {expected}"
        )
    _fill(model, layers, slopes)
    model.task, model.loss = task, loss
    return model


# --- the parts ------------------------------------------------------------------------------------
def _model(source: Any) -> MLP:
    model = source.__dict__.get("model_") if isinstance(source, BaseMLP) else source
    if not isinstance(model, MLP):
        raise ConfigError(f"expected an MLP or a fitted estimator of xpnet, found {source!r:.100}")
    if model.n_models is not None:
        raise ConfigError(
            "a population has no counterpart elsewhere; pass one model, such as model.member(0)"
        )
    return model


def _trained(source: Any) -> MLP:
    model = _model(source)
    if model.task is None:
        raise ConfigError("the model has not been trained, so it is neither a classifier nor a regressor yet")
    return model


def _raw_layers(source: Any) -> Layers:
    """Weights and biases that take raw samples and give raw predictions (before softmax, sigmoid or exp)."""
    model = _model(source)
    if any(isinstance(layer, Maxout) for layer in model.layers):
        raise ConfigError("maxout layers have no counterpart elsewhere")
    weights = {k: v.astype(np.float64) for k, v in model.get_weights().items()}
    layers = [
        (weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"])
        for i, layer in enumerate(model.layers)
        if isinstance(layer, Dense)
    ]
    scale: Any = None
    shift: Any = None
    if isinstance(source, BaseMLP):
        scaler = source.scaler_
        if scaler is not None:
            if scaler.tails_.any():
                columns = ", ".join(map(str, np.flatnonzero(scaler.tails_)[:10]))
                raise ConfigError(
                    f"columns {columns} have outliers that are compressed before the first layer, which plain weights "
                    "cannot express; fit with standardize=False behind a scaler of your own"
                )
            scale, shift = 1.0 / scaler.scale_, -scaler.mean_ / scaler.scale_
    elif model.preprocessing is not None:
        scale, shift = model.preprocessing.scale, model.preprocessing.shift
    if scale is not None:
        w, b = layers[0]
        layers[0] = (w * scale, b + (w * shift).sum(axis=1))
    if isinstance(source, MLPRegressor):
        w, b = layers[-1]
        if get_loss(model.loss or "").link == "exp":
            layers[-1] = (w, b + np.log(source.target_scale_))
        else:
            layers[-1] = (w * source.target_scale_[:, None], b * source.target_scale_ + source.target_mean_)
    return layers


def _slopes(model: MLP) -> dict[int, np.ndarray]:
    """The slopes of PReLU layers, by the number of the linear layer before them."""
    result, linear = {}, -1
    weights = model.get_weights()
    for i, layer in enumerate(model.layers):
        linear += isinstance(layer, Dense)
        if isinstance(layer, PReLU):
            result[linear] = weights[f"layers.{i}.slope"]
    return result


def _fill(model: MLP, layers: Layers, slopes: Sequence[np.ndarray] = ()) -> None:
    rest, more = list(layers), list(slopes)
    weights = {}
    for i, layer in enumerate(model.layers):
        if isinstance(layer, Dense):
            weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"] = (np.asarray(a) for a in rest.pop(0))
        elif isinstance(layer, PReLU):
            weights[f"layers.{i}.slope"] = more.pop(0)
    model.set_weights(weights)


def _common_activation(model: MLP) -> str:
    names = {layer.activation.name for layer in model.layers[:-1] if isinstance(layer, Dense)}
    if any(isinstance(layer, PReLU) for layer in model.layers):
        names.add("prelu")
    if len(names) > 1:
        raise ConfigError(
            f"scikit-learn has one activation for all hidden layers, this net has {', '.join(sorted(names))}"
        )
    name = names.pop() if names else "identity"
    if name not in _TO_SKLEARN:
        raise ConfigError(f"scikit-learn has no activation {name!r}, only {', '.join(_TO_SKLEARN.values())}")
    last = model.architecture["output_activation"]
    if last not in ("identity", "linear", "none"):
        raise ConfigError(f"scikit-learn sets the activation of the outputs itself, this net has {last!r}")
    return _TO_SKLEARN[name]


def _classes(source: Any, model: MLP) -> np.ndarray:
    if isinstance(source, BaseMLP):
        return source.classes_
    if model.classes is not None:
        return np.array(model.classes)
    return np.arange(max(model.sizes[-1], 2 if model.task == "classification" else 1))
