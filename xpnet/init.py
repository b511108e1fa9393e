"""Weight initialisers, drawn on the host from counter-based streams: every back end starts the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import specs
from .errors import ConfigError, unknown_name
from .params import ParamSpec
from .rng import INIT, generator, stream

Draw = Callable[[np.random.Generator, ParamSpec, float | None], np.ndarray]


def _fan(mode: str, spec: ParamSpec) -> float:
    return {"in": spec.fan_in, "out": spec.fan_out, "avg": (spec.fan_in + spec.fan_out) / 2}[mode]


def _scaled(mode: str, shape: str, factor: float) -> Draw:
    """Draw with variance `factor` / fan."""

    def draw(g: np.random.Generator, spec: ParamSpec, parameter: float | None) -> np.ndarray:
        variance = factor / _fan(mode, spec)
        if shape == "uniform":
            bound = np.sqrt(3.0 * variance)
            return g.uniform(-bound, bound, spec.shape)
        return g.normal(0.0, np.sqrt(variance), spec.shape)

    return draw


def _truncated(g: np.random.Generator, spec: ParamSpec, parameter: float | None) -> np.ndarray:
    """Normal with the tails beyond two standard deviations redrawn."""
    x = g.normal(size=spec.shape)
    while (outside := np.abs(x) > 2.0).any():
        x[outside] = g.normal(size=int(outside.sum()))
    return x * (0.05 if parameter is None else parameter)


def _orthogonal(g: np.random.Generator, spec: ParamSpec, parameter: float | None) -> np.ndarray:
    """Rows or columns orthonormal (Saxe et al. 2013), times a gain of 1 or the one given.

    The signs are fixed so that the draw is uniform.
    """
    rows, columns = spec.shape[-2:]
    a = g.normal(size=(max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(a)
    q = q * np.sign(np.diag(r))
    return (1.0 if parameter is None else parameter) * (q if rows >= columns else q.T)


def _number(
    default: float, draw: Callable[[np.random.Generator, tuple[int, ...], float], np.ndarray]
) -> Draw:
    return lambda g, spec, parameter: draw(g, spec.shape, default if parameter is None else parameter)


_CONSTANT = ("zeros", "constant")
_TABLE: dict[str, Draw] = {
    "uniform": _number(0.05, lambda g, shape, c: g.uniform(-c, c, shape)),
    "normal": _number(0.05, lambda g, shape, c: g.normal(0.0, c, shape)),
    "truncated_normal": _truncated,
    # Glorot and Bengio (2010): bound sqrt(6 / (fan_in + fan_out)), variance 2 / (fan_in + fan_out)
    "glorot_uniform": _scaled("avg", "uniform", 1.0),
    "glorot_normal": _scaled("avg", "normal", 1.0),
    # He et al. (2015): variance 2 / fan_in, right for ReLU
    "he_uniform": _scaled("in", "uniform", 2.0),
    "he_normal": _scaled("in", "normal", 2.0),
    "lecun_uniform": _scaled("in", "uniform", 1.0),
    "lecun_normal": _scaled("in", "normal", 1.0),
    "orthogonal": _orthogonal,
}
_ALIASES = {
    "xavier": "glorot_uniform", "xavier_uniform": "glorot_uniform", "xavier_normal": "glorot_normal",
    "glorot": "glorot_uniform", "he": "he_normal", "lecun": "lecun_normal", "kaiming": "he_normal",
}  # fmt: skip

#: Names that an `init` option takes; those with a scale take it as ``"normal:0.01"``.
NAMES = ("auto", *_CONSTANT, *_TABLE)
_TAKES_NUMBER = ("constant", "uniform", "normal", "truncated_normal", "orthogonal")


def parse(spec: str) -> tuple[str, float | None]:
    """Split and check ``"name"`` or ``"name:number"``.

    Examples
    --------
    >>> parse("xavier"), parse("normal:0.01")
    (('glorot_uniform', None), ('normal', 0.01))
    """
    name, value = specs.split("initialiser", spec, _ALIASES)
    if name not in NAMES:
        raise unknown_name("initialiser", name, NAMES)
    if value is None:
        return name, None
    if name not in _TAKES_NUMBER:
        raise ConfigError(f"initialiser {spec!r}: only {', '.join(_TAKES_NUMBER)} take a number")
    if value < 0.0 and name in ("uniform", "normal", "truncated_normal"):
        raise ConfigError(f"initialiser {spec!r}: the width of a distribution must be >= 0")
    return name, value


def automatic(activation: str) -> str:
    """The default for a layer whose activation is `activation`: He for the ReLU family, else Glorot."""
    if activation == "selu":
        return "lecun_normal"
    saturating = ("identity", "step", "sigmoid", "tanh", "softsign", "hard_sigmoid", "hard_tanh")
    return "glorot_uniform" if activation in saturating else "he_normal"


def draw(spec: ParamSpec, seed: int, index: int) -> np.ndarray:
    """Draw one tensor of one model in float64.

    Parameters
    ----------
    spec : ParamSpec
        Shape, fans and initialiser.
    seed : int
        The model's seed.
    index : int
        Position of the tensor in the model, so that tensors differ.

    Examples
    --------
    >>> draw(ParamSpec("w", (2, 3), 3, 2, "he_normal"), seed=0, index=0).shape
    (2, 3)
    """
    name, parameter = parse(spec.init)
    if name in _CONSTANT:  # biases: a generator takes longer to make than they do
        return np.full(spec.shape, parameter or 0.0)
    return _TABLE[name](generator(seed, stream(INIT, index)), spec, parameter)
