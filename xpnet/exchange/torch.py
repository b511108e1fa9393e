"""Weights to and from PyTorch: state dicts as plain arrays, and modules where PyTorch is installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..activations import parse
from ..errors import ConfigError, FileFormatError, MissingPackageError
from ..losses import get_loss
from ..mlp import MLP
from .weights import Layers, bare_model, fill, raw_layers, slopes, target_units

if TYPE_CHECKING:
    from ..estimators import MLPClassifier, MLPRegressor

_COARSE = 1e-3  # of a standard deviation: what rounding may take of predictions without a word

# activation -> name in torch.nn and its arguments, from the activation's own parameter
_MODULES: dict[str, tuple[str, Callable[[float | None], dict[str, Any]]]] = {
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

    Returns
    -------
    MLP

    Examples
    --------
    >>> state = to_torch_state(MLP([3, 4, 2], seed=1))
    >>> from_torch_state(state).sizes
    (3, 4, 2)
    """
    arrays = {k: _numpy(v) if hasattr(v, "detach") else np.asarray(v) for k, v in state.items()}
    layers: Layers = []
    learnt: list[np.ndarray] = []
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
                    f"{name} looks like a normalisation layer; only linear layers and PReLU are known. "
                    "from_torch(module) makes BatchNorm1d part of the weights"
                )
            slots.append(len(layers) - 1)
            learnt.append(np.broadcast_to(weight, layers[-1][1].shape))
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
    expected = list(slopes(model))
    if slots != expected:
        raise FileFormatError(
            f"the state has slopes after linear layers {slots}, but activation {activation!r} has them after {expected}"
        )
    fill(model, layers, learnt)
    model.task, model.loss = task, loss
    return model


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
    nn = _torch().nn
    model = bare_model(source)
    state = to_torch_state(source)
    names = [*model.architecture["activation"], model.architecture["output_activation"]]
    chain: list[Any] = []
    for spec, n_in, n_out in zip(names, model.sizes[:-1], model.sizes[1:], strict=True):
        chain.append(nn.Linear(n_in, n_out))
        name, parameter = parse(spec)
        if name == "prelu":
            chain.append(nn.PReLU(n_out))
        elif name in _MODULES:
            kind, arguments = _MODULES[name]
            chain.append(getattr(nn, kind)(**arguments(parameter)))
        else:
            raise ConfigError(f"PyTorch has no module for the activation {name!r}; use to_onnx")
    if parse(names[-1])[0] == "identity":
        chain.pop()
    result = nn.Sequential(*chain).to(getattr(_torch(), model.dtype))
    result.load_state_dict({name: _torch().from_numpy(np.array(value)) for name, value in state.items()})
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


def from_torch(
    module: Any, *, task: str | None = None, loss: str | None = None, dtype: str | None = None,
    device: Any = "cpu",
) -> MLP:  # fmt: skip
    """Return an `MLP` with copies of the weights of a chain of PyTorch modules.

    Parameters
    ----------
    module : torch.nn.Module
        A `Linear`, or a `Sequential`, nested or not, of `Linear`, activations, `Dropout`, `BatchNorm1d` and `Flatten`.
        `BatchNorm1d` becomes part of the weights beside it, as it is in `eval` mode. `Softmax`, `LogSoftmax` or
        `Sigmoid` at the end says what the net was trained for and is no layer here, but a `Sigmoid` before a loss of
        numbers, which is the activation of the outputs.
    task, loss : str, optional
        What it was trained for, so that `predict` works; from the end of the chain where omitted.
    dtype : {"float32", "float64"}, optional
        That of the module where omitted.
    device
        As for `MLP`.

    Returns
    -------
    MLP

    Raises
    ------
    FileFormatError
        Another kind of module, named, or in another order.
    XpnetError
        PyTorch is not installed.

    Examples
    --------
    >>> from torch import nn  # doctest: +SKIP
    >>> from_torch(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))).sizes  # doctest: +SKIP
    (3, 4, 2)
    """
    nn = _torch().nn
    widths: list[int] = []
    activations: list[str] = []
    dropouts: list[float] = []
    layers: Layers = []
    learnt: list[np.ndarray] = []
    input_dropout, end = 0.0, None
    ahead: tuple[np.ndarray, np.ndarray] | None = (
        None  # what the next linear layer has to do to its inputs first
    )
    parts = list(_chain(module))
    for at, (name, part) in enumerate(parts, 1):
        if end is not None:
            raise FileFormatError(f"{name} comes after {end}, which must be the end of the chain")
        if isinstance(part, nn.Linear):
            widths += [part.out_features] if widths else [part.in_features, part.out_features]
            activations.append("identity")
            dropouts.append(0.0)
            layers.append(_linear(part, ahead))
            ahead = None
        elif isinstance(part, nn.BatchNorm1d):
            factor, shift = _normalisation(name, part)
            if activations and activations[-1] == "identity":
                weight, bias = layers[-1]
                layers[-1] = weight * factor[:, None], bias * factor + shift
            elif ahead is None:
                ahead = factor, shift
            else:
                ahead = ahead[0] * factor, ahead[1] * factor + shift
        elif isinstance(part, nn.Dropout):
            if dropouts:
                dropouts[-1] = part.p
            else:
                input_dropout = part.p
        elif at == len(parts) and (found := _end(name, part, task, loss)) is not None:
            end = found
        elif not isinstance(part, nn.Flatten):
            if next(part.children(), None) is not None:
                raise FileFormatError(
                    f"{name} is a module of its own, and only its forward() knows the order of its layers; where they "
                    "are one chain, from_torch_state(module.state_dict(), activation=...) takes it"
                )
            if not activations or activations[-1] != "identity" or ahead is not None:
                raise FileFormatError(f"{name} comes where a linear layer is expected")
            activations[-1] = _activation(name, part)
            if isinstance(part, nn.PReLU):
                learnt.append(np.broadcast_to(_numpy(part.weight), (widths[-1],)))
    if not widths:
        raise FileFormatError("the module has no linear layer")
    if activations[-1] == "prelu" or ahead is not None:
        what = "PReLU" if ahead is None else "BatchNorm1d behind its activation"
        raise FileFormatError(f"the last layer cannot be followed by {what}; add a linear layer after it")
    model = MLP(
        widths, activation=activations[:-1], output_activation=activations[-1], dropout=dropouts[:-1],
        input_dropout=input_dropout, dtype=dtype or _numpy(next(module.parameters())).dtype.name, device=device,
    )  # fmt: skip
    fill(model, layers, learnt)
    if end == "Softmax":
        task, loss = task or "classification", loss or "softmax_cross_entropy"
    elif end == "Sigmoid":
        task = task or ("classification" if widths[-1] == 1 else "multilabel")
        loss = loss or "binary_cross_entropy"
    model.task, model.loss = task, loss
    return model


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingPackageError(
            f"this needs PyTorch, which cannot be imported ({error}): pip install torch; to_torch_state and "
            "from_torch_state do without it"
        ) from error
    return torch


def _linear(part: Any, ahead: tuple[np.ndarray, np.ndarray] | None) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases of a `Linear`, of inputs that are multiplied and shifted first."""
    weight = _numpy(part.weight)
    bias = np.zeros(part.out_features, weight.dtype) if part.bias is None else _numpy(part.bias)
    return (weight, bias) if ahead is None else (weight * ahead[0], bias + weight @ ahead[1])


def _normalisation(name: str, part: Any) -> tuple[np.ndarray, np.ndarray]:
    """What a `BatchNorm1d` multiplies by and adds when it evaluates, (I,) each, in float64."""
    if part.running_mean is None:
        raise FileFormatError(
            f"{name} keeps no running statistics, so it depends on the batch; train it with them"
        )
    mean, variance = (_numpy(t).astype(np.float64) for t in (part.running_mean, part.running_var))
    factor = 1.0 / np.sqrt(variance + part.eps)
    if part.affine:
        factor = factor * _numpy(part.weight)
    return factor, (0.0 if not part.affine else _numpy(part.bias)) - mean * factor


def _numpy(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    half = str(getattr(tensor, "dtype", "")) in ("torch.bfloat16", "torch.float16")
    return np.asarray(tensor.float() if half else tensor)


def _chain(module: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The modules of nested `Sequential` in order, with how messages call them."""
    if isinstance(module, _torch().nn.Sequential):
        for key, part in module._modules.items():  # named_children() leaves out what stands there twice
            yield from _chain(part, f"{name}.{key}" if name else key)
    else:
        yield f"{name or 'the module'} ({type(module).__name__})", module


def _end(name: str, part: Any, task: str | None, loss: str | None) -> str | None:
    """What the end of a chain says that it was trained for; None where it is a layer or an activation."""
    nn = _torch().nn
    other = task == "regression" or (loss is not None and get_loss(loss).link not in ("softmax", "sigmoid"))
    if isinstance(part, nn.Sigmoid):
        return None if other else "Sigmoid"
    if not isinstance(part, (nn.Softmax, nn.LogSoftmax)):
        return None
    if other or part.dim not in (None, 1, -1):
        raise FileFormatError(
            f"{name} can only end a classifier here, with a softmax over the outputs of each sample"
        )
    return "Softmax"


def _activation(name: str, part: Any) -> str:
    """xpnet's name of an activation module."""
    kind = type(part).__name__
    if kind == "PReLU":
        return "prelu"
    if kind == "LeakyReLU":
        return f"leaky_relu:{part.negative_slope!r}"
    if kind == "ELU":
        return f"elu:{part.alpha!r}"
    if kind == "GELU":
        return "gelu" if part.approximate == "none" else "gelu_tanh"
    plain = {torch_name: own for own, (torch_name, _) in _MODULES.items()}
    usual = kind != "Softplus" or (part.beta == 1.0 and part.threshold >= 20.0)
    usual = usual and (kind != "Hardtanh" or (part.min_val, part.max_val) == (-1.0, 1.0))
    if kind not in plain or not usual:
        raise FileFormatError(
            f"{name} has no counterpart here; known are Linear, Dropout, Flatten, PReLU, "
            f"{', '.join(sorted({torch_name for torch_name, _ in _MODULES.values()}))} with their usual parameters"
        )
    return plain[kind]
