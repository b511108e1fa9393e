"""What a network is made of: the settings of `MLP`, checked, and the layers that they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import rng
from ..activations import NAMES, Activation, get_activation, parse
from ..errors import ConfigError
from ..layers import Dropout, InputNoise, Layer, hidden_layer

Architecture = dict[str, Any]


def checked(
    sizes: Sequence[int], n_models: int | None, *, activation: Any, output_activation: Any, dropout: Any,
    input_dropout: Any, input_noise: Any, init: str, bias: float,
) -> Architecture:  # fmt: skip
    """Return the settings by name, with an activation and a dropout for each hidden layer.

    Raises
    ------
    ConfigError
        An impossible size or number; unknown names are found by `layers`.
    """
    widths = _check_sizes(sizes)
    if str(output_activation).lower() in ("softmax", "log_softmax"):
        raise ConfigError(
            f"output_activation={output_activation!r} is not needed: the cross-entropy contains it, and predict_proba "
            "applies it; leave it at 'identity'"
        )
    hidden = len(widths) - 2
    return {
        "sizes": list(widths), "activation": [_name(f) for f in _one_each("activation", activation, hidden)],
        "output_activation": _name(output_activation),
        "dropout": [_rate("dropout", p, n_models) for p in _one_each("dropout", dropout, hidden)],
        "input_dropout": _rate("input_dropout", input_dropout, n_models),
        "input_noise": _rate("input_noise", input_noise, n_models),
        "init": init, "bias": _number("bias", bias),
    }  # fmt: skip


def own_activations(*given: Any) -> dict[str, Activation]:
    """The activations among settings that are objects and no names, by their names; settings have these.

    Raises
    ------
    ConfigError
        Two of one name, or one with the name of an activation that xpnet has.

    Examples
    --------
    >>> list(own_activations(Activation("square", lambda ns, z: z * z, None), ["relu", "tanh"]))
    ['square']
    """
    found: dict[str, Activation] = {}
    for setting in given:
        for activation in setting if isinstance(setting, (list, tuple)) else [setting]:
            if not isinstance(activation, Activation):
                continue
            name = activation.name
            taken = parse(name)[0] in (*NAMES, "prelu", "maxout")
            if taken and get_activation(name) is activation:
                continue
            if taken or found.setdefault(name, activation) is not activation:
                raise ConfigError(
                    f"there is another activation called {name!r}; give this one a name of its own"
                )
    return found


def layers(a: Architecture) -> list[Layer]:
    """Return the layers in order; activations are names or, as `with_objects` puts them there, objects.

    Raises
    ------
    ConfigError
        An unknown activation or initialiser, or a number that it cannot have.

    Examples
    --------
    >>> settings = dict(activation="relu", output_activation="identity", dropout=0.5, input_dropout=0.0)
    >>> a = checked([3, 4, 2], None, **settings, input_noise=0.0, init="auto", bias=0.0)
    >>> [layer.label for layer in layers(a)]
    ['dense 3->4 relu', 'dropout 0.5', 'dense 4->2 identity']
    """
    result: list[Layer] = []
    sizes = a["sizes"]
    if a["input_noise"]:
        result.append(InputNoise(sizes[0], a["input_noise"]))
    if a["input_dropout"]:
        result.append(Dropout(sizes[0], a["input_dropout"]))
    for n_in, n_out, f, p in zip(sizes[:-2], sizes[1:-1], a["activation"], a["dropout"], strict=True):
        result += hidden_layer(n_in, n_out, f, a["init"], a["bias"])
        if p:
            result.append(Dropout(n_out, p))
    last = a["output_activation"]
    if _name(last).partition(":")[0] in ("prelu", "maxout"):
        raise ConfigError(f"output_activation cannot be {last!r}; use it for hidden layers")
    n_in, n_out = sizes[-2:]
    return result + hidden_layer(n_in, n_out, last, a["init"], a["bias"])


def checked_layers(layers: Any, sizes: Sequence[int]) -> list[Layer]:
    """The layers that `make_layers` returned, which a subclass may have: one fits behind the other.

    Raises
    ------
    ConfigError
    """
    if not isinstance(layers, (list, tuple)) or not layers or not all(isinstance(a, Layer) for a in layers):
        raise ConfigError(f"make_layers must return a list of xpnet.layers.Layer, found {layers!r:.100}")
    width = sizes[0]
    for i, layer in enumerate(layers):
        if layer.n_in != width:
            raise ConfigError(f"make_layers: layer {i} ({layer.label}) comes where {width} numbers go in")
        width = layer.n_out
    if width != sizes[-1]:
        raise ConfigError(f"make_layers: the last layer gives {width} numbers, sizes says {sizes[-1]}")
    return list(layers)


def member(a: Architecture, m: int) -> Architecture:
    """Return the settings of member `m` of a population, for a single model."""
    return {
        name: [_of_member(p, m) for p in value] if name == "dropout" else _of_member(value, m)
        for name, value in a.items()
    }


def member_count(n_models: Any) -> int | None:
    """`n_models`, checked; None for a single model."""
    if n_models is None:
        return None
    whole = isinstance(n_models, (int, np.integer)) and not isinstance(n_models, bool)
    if not whole or n_models < 1:
        raise ConfigError(f"n_models must be a whole number >= 1, found {n_models!r}")
    return int(n_models)


def member_seeds(seed: Any, n_models: int | None) -> tuple[int, ...]:
    """The seed of each member (of the one model, where `n_models` is None); one number s gives s, s + 1, ..."""
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        if n_models is None or len(seed) != n_models:
            raise ConfigError(f"{len(seed)} seeds for {'a single model' if n_models is None else n_models}")
        return tuple(rng.check_seed(s) for s in seed)
    first = rng.check_seed(seed)
    return tuple(rng.check_seed(first + m) for m in range(n_models or 1))


def with_objects(a: Architecture, own: Mapping[str, Activation]) -> Architecture:
    """The settings with the activations themselves where they are in `own`."""
    given = {"activation": [own.get(name, name) for name in a["activation"]]}
    return a | given | {"output_activation": own.get(a["output_activation"], a["output_activation"])}


def _name(activation: Any) -> Any:
    if callable(activation) and not isinstance(activation, Activation):
        raise ConfigError(
            f"an activation is a name or an xpnet.activations.Activation, found {activation!r:.80}; one of your own is "
            "Activation(name, value, slope) of two functions, see its documentation"
        )
    return activation.name if isinstance(activation, Activation) else activation


def _check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    try:
        widths = tuple(sizes)
    except TypeError:
        raise ConfigError(f"sizes must be a list of widths such as [784, 500, 10], found {sizes!r}") from None
    if len(widths) < 2:
        raise ConfigError(f"sizes needs at least an input and an output width, found {list(widths)!r}")
    for width in widths:
        if isinstance(width, bool) or not isinstance(width, (int, np.integer)) or width < 1:
            raise ConfigError(f"sizes must be whole numbers >= 1, found {width!r} in {list(widths)!r}")
    return tuple(int(w) for w in widths)


def _one_each(name: str, value: Any, hidden: int) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return (value,) * hidden
    if len(value) != hidden:
        raise ConfigError(f"{name} has {len(value)} entries for {hidden} hidden layers")
    return tuple(value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ConfigError(f"{name} must be a number, found {value!r}")
    return float(value)


def _rate(name: str, value: Any, n_models: int | None) -> float | tuple[float, ...]:
    """A number, or one per member of a population: then all above zero, as a layer is there for all or for none."""
    if isinstance(value, str) or not (isinstance(value, Sequence) or np.ndim(value)):
        return _number(name, value)
    each = tuple(_number(name, v) for v in value)
    if len(each) != n_models:
        raise ConfigError(
            f"{name} has {len(each)} numbers for {n_models or 'a single'} model{'s' * bool(n_models)}"
        )
    if any(each) and not all(each):
        raise ConfigError(
            f"{name} is 0 for some members and above 0 for others; a population has the layer for all or for none"
        )
    return each if any(each) else 0.0


def _of_member(value: Any, m: int) -> Any:
    """What a setting that may be one number per member is for member `m`."""
    return value[m] if isinstance(value, tuple) else value
