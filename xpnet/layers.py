"""The layers, backward directly under forward.

A layer holds its sizes and options, never arrays: parameters, gradients and buffers come with the `Context`,
which belongs to whoever runs the model (a training step, an evaluation). Layer code uses only the last two
axes (-2 batch B, -1 features), so one model and a population of M run through the same lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from . import rng
from .activations import Activation, get_activation
from .backend import Array, Backend
from .errors import ConfigError
from .params import ParamSpec


class Context:
    """What one layer needs to run on batches of one size.

    Attributes
    ----------
    be : Backend
    p, g : dict of Array
        This layer's parameters and gradients by short name ("weight", "bias").
    train : bool
        Dropout and noise act only while training.
    saved : tuple
        What `forward` leaves for `backward`.
    seeds : sequence of int
        One per model.
    counter : Array, or sequence of (slice, Array)
        The step that the random streams are at; for parts of a population that are at different steps, each part
        with its own.

    Examples
    --------
    >>> import numpy as np, xpnet
    >>> model = xpnet.MLP([2, 3], seed=1)
    >>> first = model.contexts(5, lambda key, shape, dtype=None: np.empty(shape, dtype or "float32"), train=False)[0]
    >>> first.p["weight"].shape, first.buffer("z", 3).shape
    ((3, 2), (5, 3))
    """

    __slots__ = (
        "_buffers", "_dtype", "_index", "_lead", "_make", "be", "counter", "g", "p", "saved", "seeds", "train"
    )  # fmt: skip

    def __init__(
        self, be: Backend, p: dict[str, Array], g: dict[str, Array], *, lead: tuple[int, ...], index: int,
        make: Callable[[tuple, tuple[int, ...], str | None], Array], train: bool,
        seeds: Sequence[int] = (), counter: Any = None, dtype: str = "float32",
    ):  # fmt: skip
        self.be, self.p, self.g, self.train = be, p, g, train
        self.seeds, self.counter, self._dtype = seeds, counter, dtype
        self._lead, self._index, self._make = lead, index, make
        self._buffers: dict[str, Array] = {}
        self.saved: tuple = ()

    def buffer(self, name: str, width: int, dtype: str | None = None, *, dense: bool = False) -> Array:
        """Return this layer's array `name` of shape (..., B, width); the same one every time.

        Unless it has to be `dense` (C-contiguous), members of a population may lie side by side.
        """
        if name not in self._buffers:
            key = (self._index, name)
            if self.be.members_beside and len(self._lead) == 2 and not dense:
                m, b = self._lead
                beside = self._make(key, (b, m, width), dtype)
                self._buffers[name] = self.be.xp.permute_dims(beside, (1, 0, 2))
            else:
                self._buffers[name] = self._make(key, (*self._lead, width), dtype)
        return self._buffers[name]

    def row(self, name: str) -> Array:
        """Parameter `name` of shape (..., N) as (..., 1, N), which broadcasts over the batch."""
        return self.be.xp.expand_dims(self.p[name], axis=-2)

    def uniform(self, name: str, width: int, purpose: int) -> Array:
        """Draw fresh float32 numbers in [0, 1), one per unit and sample, each model from its own seed."""
        out = self.buffer(name, width, "float32", dense=True)
        stream = rng.stream(purpose, self._index)
        if not isinstance(self.counter, (list, tuple)):
            return self.be.uniform(out, seeds=self.seeds, stream=stream, counter=self.counter)
        for part, counter in self.counter:
            self.be.uniform(out[part, ...], seeds=self.seeds[part], stream=stream, counter=counter)
        return out

    def each(self, name: str, values: Sequence[float]) -> Array:
        """Return one number per model as (M, 1, 1), which broadcasts over batch and features."""
        if name not in self._buffers:
            column = self.be.asarray([[[float(v)]] for v in values], self._dtype)
            self._buffers[name] = column
        return self._buffers[name]


class Layer:
    """A step of the network from (..., B, I) to (..., B, O).

    Attributes
    ----------
    n_in, n_out : int
        I and O.

    Examples
    --------
    >>> class Halved(Layer):
    ...     def __init__(self, n):
    ...         self.n_in = self.n_out = n
    ...     def forward(self, x, c):
    ...         return c.be.map(lambda ns, x: 0.5 * x, x, out=c.buffer("y", self.n_out))
    ...     def backward(self, dy, c, *, need_dx):
    ...         return c.be.map(lambda ns, dy: 0.5 * dy, dy, out=dy) if need_dx else None
    >>> Halved(4).label
    'halved 4->4'
    """

    n_in: int
    n_out: int

    def specs(self) -> list[ParamSpec]:
        """The learnable tensors, with short names."""
        return []

    def forward(self, x: Array, c: Context) -> Array:
        """Return y of shape (..., B, O)."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(self, x, c)")

    def backward(self, dy: Array, c: Context, *, need_dx: bool) -> Array | None:
        """Write the gradients of this layer's parameters and return dx, or None where it is not needed.

        `dy` may be overwritten.
        """
        raise NotImplementedError(f"{type(self).__name__} has no backward(self, dy, c, *, need_dx)")

    @property
    def label(self) -> str:
        """How messages and statistics call the layer."""
        return f"{type(self).__name__.lower()} {self.n_in}->{self.n_out}"


class Dense(Layer):
    """y = f(x W^T + b) with W of shape (..., O, I) and b of shape (..., O).

    Parameters
    ----------
    n_in, n_out : int
        I and O.
    activation : Activation
        f.
    init : str
        Initialiser of W; see `xpnet.init`.
    bias : float
        Initial value of b.

    Examples
    --------
    >>> from xpnet.activations import get_activation
    >>> [(s.name, s.shape) for s in Dense(3, 2, get_activation("tanh"), "glorot_uniform").specs()]
    [('weight', (2, 3)), ('bias', (2,))]
    """

    def __init__(self, n_in: int, n_out: int, activation: Activation, init: str, bias: float = 0.0):
        self.n_in, self.n_out, self.activation = n_in, n_out, activation
        self._init, self._bias = init, f"constant:{bias!r}"

    def specs(self) -> list[ParamSpec]:
        return [
            ParamSpec("weight", (self.n_out, self.n_in), self.n_in, self.n_out, self._init),
            ParamSpec("bias", (self.n_out,), init=self._bias, decayed=False),
        ]

    def forward(self, x: Array, c: Context) -> Array:
        z = c.be.matmul(x, c.p["weight"], tb=True, out=c.buffer("z", self.n_out))
        if self.activation.from_output:
            y = c.be.map(self.activation.with_bias, z, c.row("bias"), out=z)
            c.saved = (x, y)
        else:
            y = c.buffer("y", self.n_out)
            c.be.map(self.activation.with_bias_keeping_input, z, c.row("bias"), out=(z, y))
            c.saved = (x, z)
        return y

    def backward(self, dy: Array, c: Context, *, need_dx: bool) -> Array | None:
        x, s = c.saved
        if not self.activation.is_identity:
            c.be.map(self.activation.backward, dy, s, out=dy)
        c.be.sum(dy, axis=-2, out=c.g["bias"])
        c.be.matmul(dy, x, ta=True, out=c.g["weight"])
        return c.be.matmul(dy, c.p["weight"], out=c.buffer("dx", self.n_in)) if need_dx else None

    @property
    def label(self) -> str:
        return f"dense {self.n_in}->{self.n_out} {self.activation.name}"


class PReLU(Layer):
    """y = x where x >= 0, else a x, with a learnt slope per unit (He et al. 2015).

    Parameters
    ----------
    n : int
        Units.
    start : float, default 0.25
        Initial slope; slopes are neither penalised nor decayed.

    Examples
    --------
    >>> [(s.name, s.shape) for s in PReLU(4).specs()]
    [('slope', (4,))]
    """

    def __init__(self, n: int, start: float = 0.25):
        self.n_in = self.n_out = n
        self._init = f"constant:{start!r}"

    def specs(self) -> list[ParamSpec]:
        return [ParamSpec("slope", (self.n_out,), init=self._init, decayed=False)]

    def forward(self, x: Array, c: Context) -> Array:
        c.saved = (x,)
        return c.be.map(_prelu, x, c.row("slope"), out=c.buffer("y", self.n_out))

    def backward(self, dy: Array, c: Context, *, need_dx: bool) -> Array | None:
        (x,) = c.saved
        da = c.buffer("da", self.n_out)
        c.be.map(_prelu_backward, dy, x, c.row("slope"), out=(dy, da))
        c.be.sum(da, axis=-2, out=c.g["slope"])
        return dy if need_dx else None


def _prelu(ns: Any, x: Array, a: Array) -> Array:
    return ns.where(x >= 0.0, x, a * x)


def _prelu_backward(ns: Any, dy: Array, x: Array, a: Array) -> tuple[Array, Array]:
    return ns.where(x >= 0.0, dy, a * dy), ns.where(x < 0.0, dy * x, 0.0)


class Maxout(Layer):
    """y = the largest of k linear pieces of x (Goodfellow et al. 2013).

    W is (..., k O, I), piece after piece; the gradient goes to the winning piece only, the first one on a tie.

    Parameters
    ----------
    n_in, n_out : int
        I and O.
    pieces : int
        k, at least 2.
    init, bias
        As for `Dense`.

    Examples
    --------
    >>> Maxout(3, 2, 4, "glorot_uniform").specs()[0].shape
    (8, 3)
    """

    def __init__(self, n_in: int, n_out: int, pieces: int, init: str, bias: float = 0.0):
        if pieces < 2:
            raise ConfigError(f"maxout needs at least 2 pieces, found {pieces}")
        self.n_in, self.n_out, self.pieces = n_in, n_out, pieces
        self._init, self._bias = init, f"constant:{bias!r}"

    def specs(self) -> list[ParamSpec]:
        wide = self.pieces * self.n_out
        return [
            ParamSpec("weight", (wide, self.n_in), self.n_in, self.n_out, self._init),
            ParamSpec("bias", (wide,), init=self._bias, decayed=False),
        ]

    def _piece(self, z: Array, j: int) -> Array:
        return z[..., j * self.n_out : (j + 1) * self.n_out]

    def forward(self, x: Array, c: Context) -> Array:
        z = c.be.matmul(x, c.p["weight"], tb=True, out=c.buffer("z", self.pieces * self.n_out))
        c.be.map(_add, z, c.row("bias"), out=z)
        y, winner = c.buffer("y", self.n_out), c.buffer("winner", self.n_out)
        c.be.map(_first_piece, self._piece(z, 0), out=(y, winner))
        for j in range(1, self.pieces):
            c.be.map(_BETTER[j], y, winner, self._piece(z, j), out=(y, winner))
        c.saved = (x, winner)
        return y

    def backward(self, dy: Array, c: Context, *, need_dx: bool) -> Array | None:
        x, winner = c.saved
        dz = c.buffer("z", self.pieces * self.n_out)  # z itself is no longer needed
        for j in range(self.pieces):
            c.be.map(_WON[j], dy, winner, out=self._piece(dz, j))
        c.be.sum(dz, axis=-2, out=c.g["bias"])
        c.be.matmul(dz, x, ta=True, out=c.g["weight"])
        return c.be.matmul(dz, c.p["weight"], out=c.buffer("dx", self.n_in)) if need_dx else None

    @property
    def label(self) -> str:
        return f"maxout:{self.pieces} {self.n_in}->{self.n_out}"


def _add(ns: Any, z: Array, b: Array) -> Array:
    return z + b


def _first_piece(ns: Any, z: Array) -> tuple[Array, Array]:
    return z, 0.0 * z


def _better(j: int) -> Callable[..., Any]:
    def fn(ns: Any, y: Array, winner: Array, z: Array) -> tuple[Array, Array]:
        return ns.where(z > y, z, y), ns.where(z > y, float(j), winner)

    return fn


def _won(j: int) -> Callable[..., Any]:
    return lambda ns, dy, winner: ns.where(winner == float(j), dy, 0.0)


class _ByPiece(dict):
    """Formulas by piece number, made once, so that back ends trace each only once."""

    def __init__(self, make: Callable[[int], Callable[..., Any]]):
        super().__init__()
        self._make = make

    def __missing__(self, j: int) -> Callable[..., Any]:
        self[j] = self._make(j)
        return self[j]


_BETTER, _WON = _ByPiece(_better), _ByPiece(_won)


Rate = float | Sequence[float]  # one number, or one per member of a population


class Dropout(Layer):
    """Inverted dropout: while training, keep each unit with probability 1 - p and divide it by 1 - p.

    Each sample of each model draws its own mask; the same on every back end, a function of (seed, layer, step).

    Parameters
    ----------
    n : int
        Units.
    p : float, or one per member of a population
        In [0, 1).

    Examples
    --------
    >>> Dropout(8, 0.25).label
    'dropout 0.25'
    """

    def __init__(self, n: int, p: Rate):
        self.n_in = self.n_out = n
        self.p = p if isinstance(p, float) else tuple(p)
        for each in _listed(p):
            if not 0.0 <= each < 1.0:
                raise ConfigError(f"dropout must be in [0, 1), found {each!r}")
        # uniforms have 24 bits, so the first of them that is kept decides the same in every precision
        limits = [math.ceil(each * 2.0**24) / 2.0**24 for each in _listed(p)]
        scales = [1.0 / (1.0 - each) for each in _listed(p)]
        limit, scale = limits[0], scales[0]
        self._each = None if isinstance(p, float) else (limits, scales)
        self._mask: Callable[..., Any] = lambda ns, x, u: ns.where(u >= limit, x * scale, 0.0)

    def _apply(self, x: Array, u: Array, c: Context, out: Array) -> Array:
        if self._each is None:
            return c.be.map(self._mask, x, u, out=out)
        limits, scales = self._each
        return c.be.map(_mask_each, x, u, c.each("limit", limits), c.each("scale", scales), out=out)

    def forward(self, x: Array, c: Context) -> Array:
        if not c.train:
            return x
        u = c.uniform("u", self.n_out, rng.DROPOUT)
        c.saved = (u,)
        return self._apply(x, u, c, c.buffer("y", self.n_out))

    def backward(self, dy: Array, c: Context, *, need_dx: bool) -> Array | None:
        (u,) = c.saved
        return self._apply(dy, u, c, dy) if need_dx else None

    @property
    def label(self) -> str:
        return f"dropout {_span(self.p)}"


def _mask_each(ns: Any, x: Array, u: Array, limit: Array, scale: Array) -> Array:
    return ns.where(u >= limit, x * scale, 0.0)


class InputNoise(Layer):
    """Add Gaussian noise of standard deviation `std` while training (Box and Muller 1958, from two uniforms).

    Parameters
    ----------
    n : int
        Inputs.
    std : float, or one per member of a population

    Examples
    --------
    >>> InputNoise(8, 0.5).label
    'input noise 0.5'
    """

    def __init__(self, n: int, std: Rate):
        self.n_in = self.n_out = n
        self.std = std if isinstance(std, float) else tuple(std)
        for each in _listed(std):
            if not 0.0 <= each < float("inf"):
                raise ConfigError(f"input_noise must be a finite number >= 0, found {each!r}")
        self._noisy: Callable[..., Any] = lambda ns, x, u, v: _noisy(ns, x, u, v, std)

    def forward(self, x: Array, c: Context) -> Array:
        if not c.train:
            return x
        # one draw of double width gives both uniforms of a pair
        both = c.uniform("u", 2 * self.n_out, rng.NOISE)
        u, v = both[..., : self.n_out], both[..., self.n_out :]
        y = c.buffer("y", self.n_out)
        if isinstance(self.std, float):
            return c.be.map(self._noisy, x, u, v, out=y)
        return c.be.map(_noisy, x, u, v, c.each("std", self.std), out=y)

    def backward(self, dy: Array, c: Context, *, need_dx: bool) -> Array | None:
        return dy if need_dx else None

    @property
    def label(self) -> str:
        return f"input noise {_span(self.std)}"


def _noisy(ns: Any, x: Array, u: Array, v: Array, std: Any) -> Array:
    lift = 0.0 * x  # u and v are float32: compute in the dtype of x, on every back end alike
    u, v = u + lift, v + lift
    return x + std * (ns.sqrt(-2.0 * ns.log(1.0 - u)) * ns.cos(6.283185307179586 * v))


def _listed(rate: Rate) -> Sequence[float]:
    return (rate,) if isinstance(rate, float) else tuple(rate)


def _span(rate: Rate) -> str:
    """The rate, or the least and the largest of a population's."""
    each = sorted(set(_listed(rate)))
    return f"{each[0]:g}" if len(each) == 1 else f"{each[0]:g} to {each[-1]:g}"


def hidden_layer(n_in: int, n_out: int, activation: str | Activation, init: str, bias: float) -> list[Layer]:
    """Return the layers that make one hidden or output layer with the given activation.

    ``"prelu"`` is a linear Dense and a `PReLU`, ``"maxout"`` or ``"maxout:k"`` a `Maxout` (k = 2 by default).
    """
    from .activations import parse
    from .init import automatic
    from .init import parse as parse_init

    parse_init(init)  # reject an unknown initialiser here, where the message is clear
    name, parameter = (activation.name, None) if isinstance(activation, Activation) else parse(activation)
    init = automatic(name) if init == "auto" else init
    if isinstance(activation, Activation):
        return [Dense(n_in, n_out, activation, init, bias)]
    if name == "maxout":
        if parameter is not None and not parameter.is_integer():
            raise ConfigError(f"maxout takes a whole number of pieces, found {activation!r}")
        return [Maxout(n_in, n_out, 2 if parameter is None else int(parameter), init, bias)]
    if name == "prelu":
        start = 0.25 if parameter is None else parameter
        return [Dense(n_in, n_out, get_activation("identity"), init, bias), PReLU(n_out, start)]
    return [Dense(n_in, n_out, get_activation(activation), init, bias)]
