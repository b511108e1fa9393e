"""Optimizers: each is one formula over the flat parameter buffer, plus the numbers it needs at a step.

An optimizer is a description without arrays. `Update` owns the moment buffers and runs penalty, clipping,
optimizer and max-norm in that order. Any hyper-parameter may be one number, or one per member of a population.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, ClassVar

from . import specs
from .errors import ConfigError, explained, unknown_name

Number = float | Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Base of all optimizers.

    Attributes
    ----------
    moments : tuple of str
        Names of the buffers it keeps, each as large as the parameters; they start at zero.

    Examples
    --------
    >>> import numpy as np
    >>> class SignDescent(Optimizer):
    ...     def numbers(self, step, lr):
    ...         return (lr,)
    ...     def formula(self, ns, w, g, moments, h):
    ...         return (w - h[0] * ns.sign(g),)
    >>> SignDescent(lr=0.5).formula(np, np.array([1.0, 2.0]), np.array([7.0, -7.0]), (), (0.5,))
    (array([0.5, 2.5]),)
    """

    lr: Number = 0.01
    moments: ClassVar[tuple[str, ...]] = ()
    #: Whether `numbers` depends on the number of the update.
    counts_steps: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in _RANGES:  # nesterov
                continue
            low, high = _RANGES[field.name]
            numbers = _each(value)
            if not numbers:
                raise ConfigError(f"{self.name}: {field.name} is empty")
            for number in numbers:
                bad_type = isinstance(number, bool) or not isinstance(number, Real)
                if bad_type or not low <= number < high:
                    raise ConfigError(
                        f"{self.name}: {field.name} must be a number in [{low:g}, {high:g}), found {number!r}"
                    )

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    @property
    def state(self) -> tuple[str, ...]:
        """Names of the moment buffers this setting really needs."""
        return self.moments

    def numbers(self, step: int, lr: Any) -> tuple[Any, ...]:
        """Hyper-parameters at update number `step` (from 1), after the schedule made `lr` of `self.lr`.

        Plain arithmetic, on numbers or on arrays of one number per member: `Update` makes lists into arrays.
        """
        raise NotImplementedError(f"{type(self).__name__} has no numbers(self, step, lr)")

    def formula(
        self, ns: Any, w: Any, g: Any, moments: tuple[Any, ...], h: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        """Return the new (w, *moments) from the gradient and the `numbers` h. Elementwise."""
        raise NotImplementedError(f"{type(self).__name__} has no formula(self, ns, w, g, moments, h)")

    def decay(self, ns: Any, w: Any, h: tuple[Any, ...]) -> Any:
        """Decoupled weight decay, applied to weights only, before `formula`."""
        return w

    @property
    def decays(self) -> bool:
        """Whether `decay` does anything."""
        return False


def _each(value: Any) -> list[Any]:
    """The numbers of a hyper-parameter that is one number, or a sequence or array with one per member."""
    if getattr(value, "ndim", 1) == 0:
        return [value[()]]
    many = hasattr(value, "ndim") or (isinstance(value, Sequence) and not isinstance(value, str))
    return list(value) if many else [value]


def _any_positive(value: Any) -> bool:
    return any(bool(number > 0) for number in _each(value))


_INF = float("inf")
_RANGES = {
    "lr": (0.0, _INF), "momentum": (0.0, 1.0), "rho": (0.0, 1.0), "beta1": (0.0, 1.0), "beta2": (0.0, 1.0),
    "eps": (0.0, _INF), "weight_decay": (0.0, _INF), "initial_accumulator": (0.0, _INF),
}  # fmt: skip


_HINTS = {
    "learning_rate": "it is called lr here", "betas": "they are called beta1 and beta2 here",
    "beta_1": "it is called beta1 here", "beta_2": "it is called beta2 here", "epsilon": "it is called eps here",
    "alpha": "it is called rho here, in RMSProp", "decay": "give fit a schedule",
    "weight_decay": "AdamW has it; for others give fit a penalty, l2=0.01", "clipnorm": "give fit clip_norm",
}  # fmt: skip


@explained("option of optimizer 'sgd'", hints=_HINTS)
@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """w <- w - lr v with v <- momentum v + g; Nesterov: w <- w - lr (g + momentum v).

    Parameters
    ----------
    lr : float or one per member, default 0.01
        Learning rate.
    momentum : float or one per member, default 0
        In [0, 1) (Polyak 1964).
    nesterov : bool, default False
        Look ahead (Nesterov 1983, in the form of Sutskever et al. 2013); needs a momentum above 0.

    Examples
    --------
    >>> SGD(lr=0.1, momentum=0.9, nesterov=True).state
    ('velocity',)
    """

    lr: Number = 0.01
    momentum: Number = 0.0
    nesterov: bool = False
    moments: ClassVar[tuple[str, ...]] = ("velocity",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and not _any_positive(self.momentum):
            raise ConfigError("sgd: nesterov needs a momentum above 0")

    @property
    def state(self) -> tuple[str, ...]:
        return self.moments if _any_positive(self.momentum) else ()

    def numbers(self, step: int, lr: Any) -> tuple[Any, ...]:
        return lr, self.momentum

    def formula(
        self, ns: Any, w: Any, g: Any, moments: tuple[Any, ...], h: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        lr, momentum = h
        if not moments:
            return (w - lr * g,)
        v = momentum * moments[0] + g
        return w - lr * (g + momentum * v if self.nesterov else v), v


@explained("option of optimizer 'adagrad'", hints=_HINTS)
@dataclass(frozen=True, kw_only=True)
class AdaGrad(Optimizer):
    """s <- s + g^2; w <- w - lr g / (sqrt(s) + eps) (Duchi, Hazan and Singer 2011).

    Parameters
    ----------
    lr : float or one per member, default 0.01
        Learning rate.
    eps : float or one per member, default 1e-10
        Keeps the quotient finite.

    Examples
    --------
    >>> AdaGrad(lr=0.1).state
    ('square',)
    """

    lr: Number = 0.01
    eps: Number = 1e-10
    moments: ClassVar[tuple[str, ...]] = ("square",)

    def numbers(self, step: int, lr: Any) -> tuple[Any, ...]:
        return lr, self.eps

    def formula(
        self, ns: Any, w: Any, g: Any, moments: tuple[Any, ...], h: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        lr, eps = h
        s = moments[0] + ns.square(g)
        return w - lr * (g / (ns.sqrt(s) + eps)), s


@explained("option of optimizer 'rmsprop'", hints=_HINTS)
@dataclass(frozen=True, kw_only=True)
class RMSProp(Optimizer):
    """s <- rho s + (1 - rho) g^2; w <- w - lr g / (sqrt(s) + eps) (Hinton 2012, lecture 6e).

    Parameters
    ----------
    lr : float or one per member, default 0.001
        Learning rate.
    rho : float or one per member, default 0.9
        Share of the old mean square that stays, in [0, 1).
    eps : float or one per member, default 1e-8
        Keeps the quotient finite.

    Examples
    --------
    >>> RMSProp(rho=0.95).rho
    0.95
    """

    lr: Number = 1e-3
    rho: Number = 0.9
    eps: Number = 1e-8
    moments: ClassVar[tuple[str, ...]] = ("square",)

    def numbers(self, step: int, lr: Any) -> tuple[Any, ...]:
        rho: Any = self.rho
        return lr, rho, 1.0 - rho, self.eps

    def formula(
        self, ns: Any, w: Any, g: Any, moments: tuple[Any, ...], h: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        lr, rho, rest, eps = h
        s = rho * moments[0] + rest * ns.square(g)
        return w - lr * (g / (ns.sqrt(s) + eps)), s


@explained("option of optimizer 'adam'", hints=_HINTS)
@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """w <- w - lr m' / (sqrt(v') + eps) with bias-corrected moments m', v' (Kingma and Ba 2015, algorithm 1).

    The corrections are folded into two numbers per step:
    lr m' / (sqrt(v') + eps) = lr c / (1 - beta1^t) m / (sqrt(v) + c eps) with c = sqrt(1 - beta2^t).

    Parameters
    ----------
    lr : float or one per member, default 0.001
        Learning rate.
    beta1, beta2 : float or one per member, default 0.9 and 0.999
        Shares of the old mean of gradients and of their squares that stay, in [0, 1).
    eps : float or one per member, default 1e-8
        Keeps the quotient finite.

    Examples
    --------
    >>> Adam(lr=0.01).state
    ('mean', 'square')
    """

    lr: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.999
    eps: Number = 1e-8
    moments: ClassVar[tuple[str, ...]] = ("mean", "square")
    counts_steps: ClassVar[bool] = True

    def numbers(self, step: int, lr: Any) -> tuple[Any, ...]:
        beta1: Any = self.beta1
        beta2: Any = self.beta2
        correction = (1.0 - beta2**step) ** 0.5
        rate = lr * correction / (1.0 - beta1**step)
        return rate, beta1, 1.0 - beta1, beta2, 1.0 - beta2, correction * self.eps

    def formula(
        self, ns: Any, w: Any, g: Any, moments: tuple[Any, ...], h: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        rate, beta1, rest1, beta2, rest2, eps = h[:6]
        m = beta1 * moments[0] + rest1 * g
        v = beta2 * moments[1] + rest2 * ns.square(g)
        return w - rate * (m / (ns.sqrt(v) + eps)), m, v


@explained("option of optimizer 'adamw'", hints=_HINTS)
@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with decoupled decay: w <- w - lr weight_decay w first (Loshchilov and Hutter 2019); weights only.

    Parameters
    ----------
    lr, beta1, beta2, eps
        As for `Adam`.
    weight_decay : float or one per member, default 0.01
        Share of a weight that decays per update, over lr.

    Examples
    --------
    >>> AdamW(lr=0.01, weight_decay=[0.0, 0.1]).weight_decay  # a population of two
    [0.0, 0.1]
    """

    weight_decay: Number = 0.01

    def numbers(self, step: int, lr: Any) -> tuple[Any, ...]:
        decay: Any = self.weight_decay
        return (*super().numbers(step, lr), 1.0 - lr * decay)

    def decay(self, ns: Any, w: Any, h: tuple[Any, ...]) -> Any:
        return w * h[6]

    @property
    def decays(self) -> bool:
        return _any_positive(self.weight_decay)


_TABLE: dict[str, type[Optimizer]] = {c.__name__.lower(): c for c in (SGD, AdaGrad, RMSProp, Adam, AdamW)}

#: Names that `get_optimizer` takes, besides "momentum" and "nesterov" for the two kinds of SGD.
NAMES = (*_TABLE, "momentum", "nesterov")


def get_optimizer(spec: str | Optimizer, **options: Any) -> Optimizer:
    """Return an optimizer by name, with options of its own; one that is built already is returned as it is.

    ``"momentum"`` and ``"nesterov"`` are SGD with a momentum of 0.9.

    Parameters
    ----------
    spec : str or Optimizer
        A name of `xpnet.optim.NAMES`, in any case, with options behind it or not: ``"adamw:weight_decay=0.05"``.
    **options
        Of the optimizer with that name; they win.

    Returns
    -------
    Optimizer

    Raises
    ------
    ConfigError
        Unknown name or option (the nearest spelling is shown), or a number out of range.

    Examples
    --------
    >>> get_optimizer("adam", lr=0.002).lr
    0.002
    """
    if isinstance(spec, type) and issubclass(spec, Optimizer):
        raise ConfigError(f"the optimizer is a class; make one of it: {spec.__name__}()")
    if isinstance(spec, Optimizer):
        if options:
            raise ConfigError(f"{spec.name} is built already; give it {', '.join(options)} itself")
        return spec
    if not isinstance(spec, str):
        raise ConfigError(f"optimizer must be a name or an Optimizer, found {spec!r:.80}")
    name, named = specs.options("optimizer", spec)
    options = {**named, **options}
    if name in ("momentum", "nesterov"):
        options = {"momentum": 0.9, "nesterov": name == "nesterov", **options}
        name = "sgd"
    if name not in _TABLE:
        raise unknown_name("optimizer", name, NAMES)
    return _TABLE[name](**options)
