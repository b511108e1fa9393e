"""Networks to and from scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import neural_network
from sklearn.base import is_classifier

from ..errors import ConfigError
from ..estimators import MLPClassifier, MLPRegressor
from ..estimators.base import BaseMLP
from ..layers import Dense, PReLU
from ..losses import get_loss
from ..mlp import MLP
from .weights import class_names, fill, raw_layers, trained

_TO_SKLEARN = {"identity": "identity", "sigmoid": "logistic", "tanh": "tanh", "relu": "relu"}


def to_sklearn(source: MLP | MLPClassifier | MLPRegressor) -> Any:
    """Return a fitted scikit-learn network that predicts the same.

    Scaling of features and targets becomes part of its first and last weights. Its probabilities are those that the
    network learned: where `label_smoothing` was above 0, which `MLPClassifier.predict_proba` undoes, they are nearer to
    even ones.

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
    model, layers = trained(source), raw_layers(source)
    activation = _common_activation(model)
    loss = model.loss_function()
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
            if "loss" not in neural_network.MLPRegressor().get_params():
                raise ConfigError(
                    "scikit-learn's MLPRegressor has a Poisson loss from version 1.7 on; update it"
                )
            settings["loss"] = "poisson"
        result = neural_network.MLPRegressor(**settings)
        width = model.sizes[-1]
        result.partial_fit(x, np.ones(2) if width == 1 else np.ones((2, width)))
    else:
        result = neural_network.MLPClassifier(**settings)
        classes = class_names(source, model)
        if model.task == "multilabel":
            result.partial_fit(x, np.arange(2 * len(classes)).reshape(2, -1) % 2, classes=classes)
        else:
            result.partial_fit(x, classes[:2], classes=classes)
    # partial_fit made everything that a fitted network has; now it gets what was really learned
    if isinstance(result, neural_network.MLPClassifier) and model.task == "classification":
        layers[-1] = _in_order(*layers[-1], np.asarray(classes))
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


def _in_order(w: np.ndarray, b: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last weights and biases for classes as scikit-learn has them: sorted."""
    order = np.argsort(classes)
    if len(b) > 1:
        return w[order], b[order]
    return (w, b) if order[0] == 0 else (-w, -b)  # the one output speaks for the second class


def from_sklearn(source: Any, *, dtype: str = "float64", device: Any = None) -> MLPClassifier | MLPRegressor:
    """Return an xpnet estimator with the weights of a fitted scikit-learn network, and no scaling inside.

    Parameters
    ----------
    source : sklearn.neural_network.MLPClassifier or MLPRegressor
    dtype : {"float64", "float32"}
    device : str, optional

    Returns
    -------
    MLPClassifier or MLPRegressor
        Fitted, of xpnet.

    Raises
    ------
    ConfigError
        It is not such a network, or not fitted.

    Examples
    --------
    >>> theirs = neural_network.MLPRegressor(hidden_layer_sizes=(3,), solver="lbfgs", tol=1.0, random_state=0)
    >>> theirs = theirs.fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0])
    >>> bool(np.allclose(from_sklearn(theirs).predict([[3.0]]), theirs.predict([[3.0]])))
    True
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
        result._target_units = np.zeros(sizes[-1]), np.ones(sizes[-1])
    model = MLP(sizes, activation=source.activation, dtype=dtype, device="cpu" if device is None else device)
    model.learns(task, get_loss(loss))
    fill(model, [(w.T, b) for w, b in zip(source.coefs_, source.intercepts_, strict=True)])
    result._adopt(model)
    if hasattr(source, "feature_names_in_"):
        result.feature_names_in_ = source.feature_names_in_
    result.loss_curve_ = [float(loss) for loss in getattr(source, "loss_curve_", ())]
    result.loss_, result.best_loss_ = float(source.loss_), getattr(source, "best_loss_", None)
    result.n_iter_, result.t_ = source.n_iter_, source.t_
    return result


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
