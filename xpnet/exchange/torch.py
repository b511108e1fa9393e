"""Networks to PyTorch: state dicts as plain arrays, and modules where PyTorch is installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..activations import parse
from ..errors import ConfigError, MissingPackageError
from ..mlp import MLP
from .weights import bare_model, raw_layers, slopes, target_units

if TYPE_CHECKING:
    from ..estimators import MLPClassifier, MLPRegressor

_COARSE = 1e-3  # of a standard deviation: what rounding may take of predictions without a word

#: activation -> name in torch.nn and its arguments, from the activation's own parameter
MODULES: dict[str, tuple[str, Callable[[float | None], dict[str, Any]]]] = {
    "identity": ("Identity", lambda a: {}),
    "sigmoid": ("Sigmoid", lambda a: {}),
    "tanh": ("Tanh", lambda a: {}),
    "relu": ("ReLU", lambda a: {}),
    "leaky_relu": ("LeakyReLU", lambda a: {"negative_slope": 0.01 if a is None else a}),
    # PyTorch calls it linear beyond the threshold; at 50 that is so in float64 too
    "softplus": ("Softplus", lambda a: {"threshold": 50.0}),
    "elu": ("ELU", lambda a: {"alpha": 1.0 if a is None else a}),
    "selu": ("SELU", lambda a: {}),
    "gelu": ("GELU", lambda a: {}),
    "gelu_tanh": ("GELU", lambda a: {"approximate": "tanh"}),
    "silu": ("SiLU", lambda a: {}),
    "softsign": ("Softsign", lambda a: {}),
    "hard_sigmoid": ("Hardsigmoid", lambda a: {}),
    "hard_tanh": ("Hardtanh", lambda a: {}),
    "hard_swish": ("Hardswish", lambda a: {}),
}


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

    Warns
    -----
    UserWarning
        The targets of a float32 regression are so far from 0 that the weights cannot hold what was learned, too.

    Raises
    ------
    ConfigError
        A maxout layer, a population, or extreme values that are compressed before the first layer.

    Examples
    --------
    >>> list(to_torch_state(MLP([3, 4, 2])))
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    model, layers = bare_model(source), raw_layers(source)
    _warn_of_offset(source, model)
    names = [str(2 * i) for i in range(len(layers))] if names is None else list(names)
    if len(names) != len(layers):
        raise ConfigError(f"{len(names)} names for {len(layers)} linear layers: {', '.join(names)}")
    state: dict[str, np.ndarray] = {}
    for name, (weight, bias) in zip(names, layers, strict=True):
        state[f"{name}.weight"], state[f"{name}.bias"] = weight.astype(model.dtype), bias.astype(model.dtype)
    for i, slope in slopes(model).items():
        after = str(int(names[i]) + 1) if names[i].isdigit() else f"{names[i]}_slope"
        state[f"{after}.weight"] = slope
    return state


def _warn_of_offset(source: Any, model: MLP) -> None:
    """Warn where float32 weights cannot hold the units of the targets and what was learned, too."""
    units = target_units(source)
    if units is None or model.dtype != "float32":
        return
    digits = float(np.max(abs(units.mean) / units.scale)) * float(np.finfo(np.float32).eps)
    if digits > _COARSE:
        warnings.warn(
            f"the targets lie so far from 0 that float32 weights round predictions to about {digits:.2g} of their "
            'standard deviation; use float64: model.to("cpu", dtype="float64"), or dtype="float64" of the estimator',
            stacklevel=4,
        )


def to_torch(source: MLP | MLPClassifier | MLPRegressor, *, probabilities: bool = False) -> Any:
    """Return a ``torch.nn.Sequential`` with copies of the weights, which takes raw samples.

    Parameters
    ----------
    source : MLP, MLPClassifier or MLPRegressor
        Scaling of features and targets becomes part of the weights; dropout and noise are left out.
    probabilities : bool, default False
        Append what turns the outputs into `predict_proba` or, after the Poisson loss, into `predict`. A single
        sigmoid gives the probability of the second class only. Label smoothing, which `MLPClassifier.predict_proba`
        undoes, stays in them. Training in PyTorch usually wants the outputs.

    Returns
    -------
    torch.nn.Sequential
        In the model's dtype, on the CPU; its names are those of `to_torch_state`, except that samples of several axes
        are flattened by a module in front.

    Raises
    ------
    ConfigError
        A population, maxout or step layers, extreme values that are compressed before the first layer, or
        `probabilities` after a loss that knows none.
    XpnetError
        PyTorch is not installed.

    Examples
    --------
    >>> to_torch(MLP([3, 4, 2], activation="tanh"))  # doctest: +SKIP
    Sequential(
      (0): Linear(in_features=3, out_features=4, bias=True)
      (1): Tanh()
      (2): Linear(in_features=4, out_features=2, bias=True)
    )
    """
    torch = import_torch()
    nn = torch.nn
    model = bare_model(source)
    state = to_torch_state(source)
    names = [*model.architecture["activation"], model.architecture["output_activation"]]
    chain: list[Any] = []
    for spec, n_in, n_out in zip(names, model.sizes[:-1], model.sizes[1:], strict=True):
        chain.append(nn.Linear(n_in, n_out))
        name, parameter = parse(spec)
        if name == "prelu":
            chain.append(nn.PReLU(n_out))
        elif name in MODULES:
            kind, arguments = MODULES[name]
            chain.append(getattr(nn, kind)(**arguments(parameter)))
        else:
            raise ConfigError(f"PyTorch has no module for the activation {name!r}; use to_onnx")
    if parse(names[-1])[0] == "identity":
        chain.pop()
    result = nn.Sequential(*chain).to(getattr(torch, model.dtype))
    result.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    if probabilities:
        result.extend([_link(nn, model)])
    several = model.preprocessing is not None and len(model.preprocessing.sample_shape) > 1
    return nn.Sequential(nn.Flatten(), *result) if several else result


def _link(nn: Any, model: MLP) -> Any:
    link = None if model.task is None else model.loss_function().link
    if link == "softmax":
        return nn.Softmax(dim=-1)
    if link == "sigmoid" and (model.task == "multilabel" or model.sizes[-1] == 1):
        return nn.Sigmoid()
    if model.task == "regression" and link == "identity":
        return nn.Identity()
    raise ConfigError(
        f"PyTorch has no module that turns the outputs after the {model.loss or 'missing'} loss into predictions; "
        "leave probabilities=False"
    )


def import_torch() -> Any:
    """PyTorch; an error that says what to do where it is missing."""
    try:
        import torch
    except ImportError as error:
        raise MissingPackageError(
            f"this needs PyTorch, which cannot be imported ({error}): pip install torch; to_torch_state and "
            "from_torch_state do without it"
        ) from error
    return torch
