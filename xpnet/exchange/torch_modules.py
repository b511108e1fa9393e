"""Networks from PyTorch: state dicts of plain arrays, and chains of modules where PyTorch is installed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError, FileFormatError, unknown_name
from ..losses import get_loss
from ..mlp import MLP
from ..training.examples import TASKS, default_loss
from ..training.settings import check_combination
from .torch import MODULES, import_torch
from .weights import Layers, fill, slopes


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
        What it was trained for, such as "classification" and "softmax_cross_entropy", so that `predict` works; by
        default the usual loss of the task.
    dtype, device
        As for `MLP`.

    Raises
    ------
    ConfigError
        `task` or `loss` is unknown, or they do not fit together.
    FileFormatError
        The tensors are no such chain.

    Returns
    -------
    MLP

    Examples
    --------
    >>> from xpnet.exchange import to_torch_state
    >>> state = to_torch_state(MLP([3, 4, 2], seed=1))
    >>> from_torch_state(state).sizes
    (3, 4, 2)
    """
    if not isinstance(state, Mapping):
        raise ConfigError(
            f"expected a mapping of names to arrays, as module.state_dict() gives it, found {type(state).__name__}; "
            "from_torch takes a module itself"
        )
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
        _check_numbers(name, weight, bias)
        if weight.ndim == 1:
            if bias is not None or not layers:
                raise FileFormatError(
                    f"{name} looks like a normalisation layer; only linear layers and PReLU are known. "
                    "from_torch(module) makes BatchNorm1d part of the weights"
                )
            slots.append(len(layers) - 1)
            learnt.append(_slopes(name, weight, len(layers[-1][1])))
            continue
        if layers:
            _check_width(name, weight.shape[1], len(layers[-1][1]))
        layers.append((weight, np.zeros(weight.shape[0]) if bias is None else bias))
    if not layers:
        raise FileFormatError("the state has no linear layer")
    unused = [k for k in arrays if k.rpartition(".")[2] not in ("weight", "bias")]
    if unused:
        raise FileFormatError(f"{unused[0]} is neither a weight nor a bias, the parameters of linear layers")
    sizes = [layers[0][0].shape[1], *(w.shape[0] for w, _ in layers)]
    model = MLP(sizes, activation=activation, dtype=dtype, device=device)
    expected = list(slopes(model))
    if slots != expected:
        raise FileFormatError(
            f"the state has slopes after linear layers {slots}, but activation {activation!r} has them after {expected}"
        )
    fill(model, layers, learnt)
    _learns(model, task, loss)
    return model


def from_torch(
    module: Any, *, task: str | None = None, loss: str | None = None, dtype: str | None = None,
    device: Any = "cpu",
) -> MLP:  # fmt: skip
    """Return an `MLP` with copies of the weights of a chain of PyTorch modules.

    Parameters
    ----------
    module : torch.nn.Module
        A `Linear`, or a `Sequential`, nested or not, of `Linear`, activations, `Dropout`, `BatchNorm1d`, `Flatten` and
        `Identity`. `BatchNorm1d` becomes part of the weights beside it, as it is in `eval` mode. `Softmax`,
        `LogSoftmax` or `Sigmoid` at the end says what the net was trained for and is no layer here, but a `Sigmoid`
        before a loss of numbers, which is the activation of the outputs. `Dropout` between a linear layer and its
        activation acts behind the activation here, and one behind the outputs is left out.
    task, loss : str, optional
        What it was trained for, so that `predict` works; from the end of the chain where omitted. A task alone takes
        its usual loss.
    dtype : {"float32", "float64"}, optional
        That of the module where omitted.
    device
        As for `MLP`.

    Returns
    -------
    MLP

    Raises
    ------
    ConfigError
        It is no module, or `task` or `loss` is unknown, or they do not fit together.
    FileFormatError
        Another kind of module, one with a `forward` of its own, or in another order; it is named.
    XpnetError
        PyTorch is not installed.

    Examples
    --------
    >>> from torch import nn  # doctest: +SKIP
    >>> from_torch(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))).sizes  # doctest: +SKIP
    (3, 4, 2)
    """
    nn = import_torch().nn
    widths: list[int] = []
    activations: list[str] = []
    dropouts: list[float] = []
    layers: Layers = []
    learnt: list[np.ndarray] = []
    input_dropout, end = 0.0, None
    # what the next linear layer has to do to its inputs first
    ahead: tuple[np.ndarray, np.ndarray] | None = None
    parts = [each for each in _chain(_module(module)) if not isinstance(each[1], nn.Identity)]
    for at, (name, part) in enumerate(parts, 1):
        if end is not None:
            raise FileFormatError(f"{name} comes after {end}, which must be the end of the chain")
        if isinstance(part, nn.Linear):
            _check_width(
                name, part.in_features, len(ahead[0]) if ahead else (widths or [part.in_features])[-1]
            )
            widths += [part.out_features] if widths else [part.in_features, part.out_features]
            activations.append("identity")
            dropouts.append(0.0)
            layers.append(_linear(part, ahead))
            ahead = None
        elif isinstance(part, nn.BatchNorm1d):
            _check_width(name, part.num_features, (widths or [part.num_features])[-1])
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
                dropouts[-1] = _both(dropouts[-1], part.p)
            else:
                input_dropout = _both(input_dropout, part.p)
        elif at == len(parts) and (found := _end(name, part, task, loss)) is not None:
            end = found
        elif not isinstance(part, nn.Flatten):
            if not activations or activations[-1] != "identity" or ahead is not None:
                raise FileFormatError(f"{name} comes where a linear layer is expected")
            activations[-1] = _activation(name, part)
            if isinstance(part, nn.PReLU):
                learnt.append(_slopes(name, _numpy(part.weight), widths[-1]))
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
    _learns(model, task, loss, check=end is None)
    return model


def _learns(model: MLP, task: str | None, loss: str | None, *, check: bool = True) -> None:
    """Note what the weights were trained for, as far as it is said; a task alone has its usual loss."""
    if task not in (None, *TASKS):
        raise unknown_name("task", str(task), TASKS)
    known = None if loss is None else get_loss(loss)
    if task is None:
        model.loss = None if known is None else known.name
        return
    known = known or default_loss(task, model.sizes[-1])
    if check:
        check_combination(known, task, model)
    model.learns(task, known)


def _module(module: Any) -> Any:
    """The module, which has its weights."""
    torch = import_torch()
    if not isinstance(module, torch.nn.Module):
        raise ConfigError(
            f"expected a torch.nn.Module, found {module!r:.100}; from_torch_state takes a state dict"
        )
    if any(torch.nn.parameter.is_lazy(p) for p in module.parameters()):
        raise FileFormatError("the module has lazy layers without weights; pass a batch through it first")
    return module


def _check_width(name: str, takes: int, gives: int) -> None:
    if takes != gives:
        raise FileFormatError(f"{name} takes {takes} inputs, but the layer before gives {gives}")


def _check_numbers(name: str, *arrays: np.ndarray | None) -> None:
    for array in arrays:
        if array is not None and array.dtype.kind not in "fiu":
            raise FileFormatError(f"{name} holds {array.dtype}, expected real numbers")


def _slopes(name: str, weight: np.ndarray, width: int) -> np.ndarray:
    """One slope per unit, from as many or from one that all share."""
    if len(weight) not in (1, width):
        raise FileFormatError(f"{name} has {len(weight)} slopes, expected 1 or {width}")
    return np.broadcast_to(weight, (width,))


def _both(p: float, q: float) -> float:
    """The rate of two dropouts, one behind the other."""
    return q if p == 0.0 else 1.0 - (1.0 - p) * (1.0 - q)


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
    if not _is_usual(module):
        raise FileFormatError(
            f"{_called(name, module)} has a forward() of its own, which cannot be looked into; where its layers are "
            "one chain, from_torch_state(module.state_dict(), activation=...) takes it"
        )
    if isinstance(module, import_torch().nn.Sequential):
        for key, part in module._modules.items():  # named_children() leaves out what stands there twice
            yield from _chain(part, f"{name}.{key}" if name else key)
    else:
        yield _called(name, module), module


def _called(name: str, module: Any) -> str:
    return f"{name or 'the module'} ({type(module).__name__})"


def _is_usual(module: Any) -> bool:
    """Whether it does what PyTorch's class does: it has its `forward`, and no parts but those of a `Sequential`."""
    forward = getattr(type(module).forward, "__module__", "")
    chain = isinstance(module, import_torch().nn.Sequential) or next(module.children(), None) is None
    return forward.startswith("torch.nn.modules.") and (chain or hasattr(module, "parametrizations"))


def _end(name: str, part: Any, task: str | None, loss: str | None) -> str | None:
    """What the end of a chain says that it was trained for; None where it is a layer or an activation."""
    nn = import_torch().nn
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
    plain = {torch_name: own for own, (torch_name, _) in MODULES.items()}
    usual = kind != "Softplus" or (part.beta == 1.0 and part.threshold >= 20.0)
    usual = usual and (kind != "Hardtanh" or (part.min_val, part.max_val) == (-1.0, 1.0))
    if kind not in plain or not usual:
        raise FileFormatError(
            f"{name} has no counterpart here; known are Linear, Dropout, Flatten, PReLU, "
            f"{', '.join(sorted({torch_name for torch_name, _ in MODULES.values()}))} with their usual parameters"
        )
    return plain[kind]
