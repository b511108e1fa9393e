"""One table of activation functions: name -> function and derivative, written once for all back ends.

Each is a formula in the elementwise vocabulary of `Backend.map`. The derivative takes the *output* y = f(z)
where that is enough (then z need not be kept), else the input z.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from . import specs
from .errors import ConfigError, unknown_name

Formula = Callable[..., Any]


@dataclass(frozen=True)
class Activation:
    """An activation function with its derivative.

    Parameters
    ----------
    name : str
        Canonical name, with its parameter where that differs from the default: ``"leaky_relu:0.2"``.
    value : callable
        ``value(ns, z) -> y``.
    slope : callable or None
        ``slope(ns, s) -> f'(z)`` with s = y if `from_output` else z. None: no useful gradient (step).
    from_output : bool
        Whether `slope` takes y.
    gate : callable, optional
        ``gate(ns, dy, s) -> dy f'(z)`` where that is cheaper than the product.

    Examples
    --------
    One of your own goes where names do, written with the functions of `Backend.map`:

    >>> import xpnet
    >>> square = Activation("square", lambda ns, z: z * z, lambda ns, z: 2.0 * z, from_output=False)
    >>> xpnet.MLP([2, 3, 1], activation=square).architecture["activation"]
    ['square']
    """

    name: str
    value: Formula
    slope: Formula | None
    from_output: bool = True
    gate: Formula | None = None

    @cached_property
    def with_bias(self) -> Formula:
        """``(z, b) -> f(z + b)``."""
        value = self.value
        return lambda ns, z, b: value(ns, z + b)

    @cached_property
    def with_bias_keeping_input(self) -> Formula:
        """``(z, b) -> (z + b, f(z + b))``."""
        value = self.value

        def both(ns: Any, z: Any, b: Any) -> Any:
            z = z + b
            return z, value(ns, z)

        return both

    @cached_property
    def backward(self) -> Formula:
        """``(dy, s) -> dy * f'``."""
        slope = self.slope
        if slope is None:
            raise ConfigError(
                f"the {self.name} activation has no useful gradient, so it cannot be trained; "
                "train with 'sigmoid' and replace it afterwards, or set the weights by hand"
            )
        return self.gate or (lambda ns, dy, s: dy * slope(ns, s))

    @property
    def is_identity(self) -> bool:
        return self.name == "identity"


def sigmoid(ns: Any, z: Any) -> Any:
    # tanh neither overflows nor branches: 1 / (1 + e^-z) = (1 + tanh(z / 2)) / 2
    return 0.5 * ns.tanh(0.5 * z) + 0.5


def softplus(ns: Any, z: Any) -> Any:
    # log(1 + e^z) = max(z, 0) + log(1 + e^-|z|) does not overflow
    return ns.maximum(z, 0.0) + ns.log1p(ns.exp(-ns.where(z < 0.0, -z, z)))


def _leaky_relu(a: float) -> dict[str, Any]:
    if a < 0.0:
        raise ConfigError(f"leaky_relu needs a slope >= 0, found {a}")
    return {
        "value": lambda ns, z: ns.where(z >= 0.0, z, a * z),
        "slope": lambda ns, z: ns.where(z >= 0.0, 1.0, a + 0.0 * z),
        "gate": lambda ns, dy, z: ns.where(z >= 0.0, dy, a * dy),
        "from_output": False,
    }


def _elu(a: float) -> dict[str, Any]:
    return {
        # expm1 of the positive side could overflow, so it sees min(z, 0)
        "value": lambda ns, z: ns.where(z > 0.0, z, a * ns.expm1(ns.where(z > 0.0, 0.0 * z, z))),
        "slope": lambda ns, z: ns.where(z > 0.0, 1.0, a * ns.exp(ns.where(z > 0.0, 0.0 * z, z))),
        "from_output": False,
    }


# Klambauer et al., "Self-normalizing neural networks" (2017)
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def _selu() -> dict[str, Any]:
    elu = _elu(_SELU_ALPHA)
    return {
        "value": lambda ns, z: _SELU_SCALE * elu["value"](ns, z),
        "slope": lambda ns, z: _SELU_SCALE * elu["slope"](ns, z),
        "from_output": False,
    }


_SQRT_HALF, _SQRT_2_PI = 0.7071067811865476, 2.5066282746310002
_SQRT_2_OVER_PI, _GELU_CUBIC = 0.7978845608028654, 0.044715
_GELU_FLAT = 10.0  # beyond it the tanh is 1 to the last bit of float64, and the cube could overflow


def _gelu(ns: Any, z: Any) -> Any:
    return 0.5 * z * (1.0 + ns.erf(_SQRT_HALF * z))


def _gelu_slope(ns: Any, z: Any) -> Any:
    return 0.5 * (1.0 + ns.erf(_SQRT_HALF * z)) + z * ns.exp(-0.5 * z * z) / _SQRT_2_PI


def _gelu_tanh(ns: Any, z: Any) -> Any:
    r = _clip(ns, z, -_GELU_FLAT, _GELU_FLAT)
    return 0.5 * z * (1.0 + ns.tanh(_SQRT_2_OVER_PI * (r + _GELU_CUBIC * r * r * r)))


def _gelu_tanh_slope(ns: Any, z: Any) -> Any:
    z = _clip(ns, z, -_GELU_FLAT, _GELU_FLAT)
    t = ns.tanh(_SQRT_2_OVER_PI * (z + _GELU_CUBIC * z * z * z))
    inner = _SQRT_2_OVER_PI * (1.0 + 3.0 * _GELU_CUBIC * z * z)
    return 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * inner


def _silu_slope(ns: Any, z: Any) -> Any:
    s = sigmoid(ns, z)
    return s * (1.0 + z * (1.0 - s))


def _inside(ns: Any, z: Any, low: float, high: float, slope: float) -> Any:
    return ns.where((z > low) & (z < high), slope, 0.0 * z)


def _clip(ns: Any, z: Any, low: float, high: float) -> Any:
    return ns.minimum(ns.maximum(z, low), high)


def _hard_swish_slope(ns: Any, z: Any) -> Any:
    return ns.where(z > 3.0, 1.0, ns.where(z < -3.0, 0.0 * z, (2.0 * z + 3.0) / 6.0))


# name -> (default parameter or None, function of that parameter -> fields of Activation)
_TABLE: dict[str, tuple[float | None, Callable[..., dict[str, Any]]]] = {
    "identity": (None, lambda: {"value": lambda ns, z: z, "slope": lambda ns, y: 1.0 + 0.0 * y}),
    "step": (None, lambda: {"value": lambda ns, z: ns.where(z > 0.0, 1.0, 0.0 * z + 0.0), "slope": None}),
    "sigmoid": (None, lambda: {"value": sigmoid, "slope": lambda ns, y: y * (1.0 - y)}),
    "tanh": (
        None,
        lambda: {"value": lambda ns, z: ns.tanh(z), "slope": lambda ns, y: 1.0 - y * y},
    ),
    "relu": (
        None,
        lambda: {
            "value": lambda ns, z: ns.maximum(z, 0.0),
            "slope": lambda ns, y: ns.where(y > 0.0, 1.0, 0.0 * y),
            "gate": lambda ns, dy, y: ns.where(y > 0.0, dy, 0.0),
        },
    ),
    "leaky_relu": (0.01, _leaky_relu),
    "softplus": (
        None,
        lambda: {"value": softplus, "slope": sigmoid, "from_output": False},
    ),
    "elu": (1.0, _elu),
    "selu": (None, _selu),
    "gelu": (None, lambda: {"value": _gelu, "slope": _gelu_slope, "from_output": False}),
    "gelu_tanh": (
        None,
        lambda: {"value": _gelu_tanh, "slope": _gelu_tanh_slope, "from_output": False},
    ),
    "silu": (
        None,
        lambda: {
            "value": lambda ns, z: z * sigmoid(ns, z),
            "slope": _silu_slope,
            "from_output": False,
        },
    ),
    "softsign": (
        None,
        lambda: {
            "value": lambda ns, z: z / (1.0 + ns.where(z < 0.0, -z, z)),
            "slope": lambda ns, z: 1.0 / ns.square(1.0 + ns.where(z < 0.0, -z, z)),
            "from_output": False,
        },
    ),
    "hard_sigmoid": (
        None,
        lambda: {
            "value": lambda ns, z: _clip(ns, z / 6.0 + 0.5, 0.0, 1.0),
            "slope": lambda ns, z: _inside(ns, z, -3.0, 3.0, 1.0 / 6.0),
            "from_output": False,
        },
    ),
    "hard_tanh": (
        None,
        lambda: {
            "value": lambda ns, z: _clip(ns, z, -1.0, 1.0),
            "slope": lambda ns, z: _inside(ns, z, -1.0, 1.0, 1.0),
            "from_output": False,
        },
    ),
    "hard_swish": (
        None,
        lambda: {
            "value": lambda ns, z: z * _clip(ns, z / 6.0 + 0.5, 0.0, 1.0),
            "slope": _hard_swish_slope,
            "from_output": False,
        },
    ),
}

_ALIASES = {"logistic": "sigmoid", "linear": "identity", "none": "identity", "swish": "silu"}

#: Names that `get_activation` takes; `MLP` also takes "prelu" and "maxout", which are layers.
NAMES = tuple(_TABLE)


def parse(spec: str) -> tuple[str, float | None]:
    """Split ``"name"`` or ``"name:number"``.

    Examples
    --------
    >>> parse("leaky_relu:0.2")
    ('leaky_relu', 0.2)
    """
    return specs.split("activation", spec, _ALIASES)


@cache
def get_activation(spec: str) -> Activation:
    """Return the activation called `spec`, such as ``"relu"`` or ``"leaky_relu:0.2"``.

    Parameters
    ----------
    spec : str
        A name of `xpnet.activations.NAMES`, with a number after a colon where it takes one.

    Returns
    -------
    Activation

    Raises
    ------
    ConfigError
        Unknown name (the nearest spelling is shown), or a parameter for one that takes none.

    Examples
    --------
    >>> import numpy as np
    >>> get_activation("relu").value(np, np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    name, parameter = parse(spec)
    if name not in _TABLE:
        raise unknown_name("activation", name, [*NAMES, "prelu", "maxout"])
    default, build = _TABLE[name]
    if default is None:
        if parameter is not None:
            raise ConfigError(f"activation {name!r} takes no parameter, found {spec!r}")
        return Activation(name, **build())
    value = default if parameter is None else parameter
    return Activation(specs.join(name, value, default), **build(value))
