"""The seam: the only place that knows which array library is in use.

All layer mathematics goes through one object, a `Backend`. This module documents its contract and
nothing else does; `reference.py` implements every operation in plain Array-API calls and *is* the
definition of truth; `cpu.py` and `cuda/` override an operation only where that measurably wins.

Laws of the contract
--------------------
* Operations work on the last two axes (-2 batch, -1 features); any leading axes (a population) ride along.
* Results are written into `out`, which is also returned. No operation allocates an array as large as
  a batch or the parameters, and none synchronises a device.
* `out` may be one of the inputs of `map` (the whole array, never a partial overlap); of `matmul`, never.
* Inputs that are not `out` are left untouched.
* All operands of one call live on the same device. Floating operands have one dtype, but for `map`, which may
  meet float32 uniforms (masks), float64 totals and int64 labels beside the dtype of the model.
* Step-varying numbers live in arrays, so that `capture` can repeat a whole step.

To plug in another array library, pass its Array-API namespace to `get_backend`, or subclass
`ReferenceBackend` and check the result with `xpnet.testing.check_backend` (see docs/backends.md).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import threading
import types
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..errors import ConfigError, DeviceError, unknown_name

Array = Any  # an array of whichever library the back end speaks
DEVICES = "cpu, numba, cuda, cuda:N, auto"


@dataclass(frozen=True)
class Origin:
    """How `get_backend` made a back end, in words that another process understands."""

    device: str
    module: bool  # whether `device` is the name of an array namespace
    precision: str | None
    capture: bool
    autotune: bool

    def again(self) -> Backend:
        """Make such a back end.

        Raises
        ------
        DeviceError
            It cannot be used here.
        """
        device = importlib.import_module(self.device) if self.module else self.device
        return get_backend(device, precision=self.precision, capture=self.capture, autotune=self.autotune)


#: Every back end that there is, by its `id`: one of somebody's own need not be hashable.
_alive: weakref.WeakValueDictionary[int, Backend] = weakref.WeakValueDictionary()


def _renew_locks() -> None:
    """Give back ends new locks, in a child that was forked while a thread, which it has not, may have held one."""
    for be in list(_alive.values()):
        be.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


class Backend(ABC):
    """One array library on one device. Shape letters: M models, B batch, I in, O out, N any width.

    Attributes
    ----------
    name : str
        Library name for people and records, such as ``"numpy"``.
    device : str
        Where arrays live: ``"cpu"``, ``"cuda:0"``.
    xp : namespace
        The Array-API namespace; for shape work (`reshape`, `expand_dims`) outside the hot path.
    precision : {None, "tf32", "bf16"}
        What float32 operands of `matmul` are rounded to; None for nothing. Weights and results stay float32.
    captures : bool
        Whether a step is captured once and repeated; without, every operation is called anew each time, which
        is slower and can be followed with a debugger.
    autotune : bool
        Whether algorithms of products are chosen by timing several before their first use.
    algorithms : list of dict, or None
        What was chosen for each product so far, for records; None where there is nothing to choose.
    steps_ahead : int
        How many training steps the device likes to be told about at once; 1 where asking costs nothing.
    least_ahead : int
        How many steps it takes at least for that to be worth it.
    ahead_size : int
        Numbers of a network up to which that is worth it, a copy of weights and moments being kept meanwhile.
    shuffles : bool
        Whether the order of examples is drawn on the device, by `permutation`; row numbers then never pass the host.
    members_beside : bool
        Whether buffers of a population had better lie sample after sample with its members side by side: then a batch
        that all members share is one matrix product. Shapes are (M, B, N) either way.
    origin : Origin or None
        How to make it again elsewhere; None for one that `get_backend` has not made.
    threads : int, or None
        Its own, which share a step in `tuned`, for records; None where it has none beside those of its matrix library.
    lock : RLock
        Held while a network predicts, so that several threads may ask networks on one back end. Training does not
        take it: a back end trains in one thread.

    Examples
    --------
    >>> be = get_backend("cpu")
    >>> out = be.empty((2, 3), "float64")
    >>> be.matmul(be.asarray(np.ones((2, 4))), be.asarray(np.ones((3, 4))), tb=True, out=out)[0].tolist()
    [4.0, 4.0, 4.0]
    """

    name: str
    device: str
    xp: Any
    precision: str | None = None
    captures: bool = True
    autotune: bool = False
    algorithms: list[dict[str, Any]] | None = None
    steps_ahead: int = 1
    least_ahead: int = 2
    ahead_size: int = sys.maxsize
    shuffles: bool = False
    members_beside: bool = False
    threads: int | None = None
    origin: Origin | None = None
    lock: threading.RLock

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)  # here, because a back end of somebody's own may have any `__init__`
        made.lock = threading.RLock()
        _alive[id(made)] = made
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Backend:
        """Another one, for a thread of its own; itself where nobody knows how it was made."""
        return self if self.origin is None else self.origin.again()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """How it was made; buffers and what is captured are not to be carried elsewhere."""
        return super().__reduce_ex__(protocol) if self.origin is None else (self.origin.again, ())

    # --- memory ---------------------------------------------------------------------------------
    @abstractmethod
    def asarray(self, values: Any, dtype: str | None = None) -> Array:
        """Bring host values (NumPy array, list, number) to the device; copies unless already there."""

    @abstractmethod
    def to_numpy(self, x: Array) -> np.ndarray:
        """Copy or view `x` as a NumPy array on the host. Waits for the device."""

    @abstractmethod
    def empty(self, shape: Sequence[int], dtype: str) -> Array:
        """Return an uninitialised array of `shape`; the only way a step gets its buffers."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until everything asked of the device is done."""

    # --- compute --------------------------------------------------------------------------------
    @abstractmethod
    def matmul(self, a: Array, b: Array, *, ta: bool = False, tb: bool = False, out: Array) -> Array:
        """out = op(a) @ op(b), where `ta`/`tb` transpose the last two axes.

        Leading axes broadcast: ``(B, I)`` with ``(M, O, I)`` and ``tb=True`` gives ``(M, B, O)``.
        """

    @abstractmethod
    def map(self, fn: Callable[..., Any], *args: Array, out: Array | tuple[Array, ...]) -> Any:
        """out = fn(ns, *args), elementwise, with broadcasting to the shape of `out`.

        `fn` is an ordinary Python function written once for all back ends. It may use the operators
        ``+ - * / ** - < <= > >= == !=``, ``&  |  ~`` on conditions, Python numbers, and these names of
        the namespace `ns`: ``abs exp expm1 log log1p sqrt square tanh sin cos floor erf maximum minimum
        where sign``. It must not branch on array values. With a tuple as `out`, `fn` returns
        as many arrays; all are computed before any is written. A back end may trace `fn` once and keep
        the result, so `fn` must depend on nothing but its arguments and constants.
        """

    @abstractmethod
    def sum(self, x: Array, *, axis: int, out: Array) -> Array:
        """out = x summed over `axis` (-1 or -2)."""

    @abstractmethod
    def softmax(self, z: Array, *, out: Array) -> Array:
        """out = softmax of `z` over the last axis, without overflow. `out` may be `z`."""

    @abstractmethod
    def softmax_cross_entropy(self, z: Array, t: Array, w: Array, *, loss: Array, out: Array) -> Array:
        """Cross-entropy of logits and its gradient in one pass.

        ``loss = sum_k t_k (logsumexp(z) - z_k)`` per row, shape (..., B), and
        ``out = w (sum_k(t_k) softmax(z) - t)``, shape (..., B, C).

        Parameters
        ----------
        z : (..., B, C) logits. `out` may be `z`.
        t : (..., B, C) target weights; each row one-hot, soft, or a row of an information-gain matrix. A population
            may share them: (B, C).
        w : (..., B) weight of each row in the batch loss, 1/B for a plain mean; (B,) where shared.
        """

    @abstractmethod
    def argmax(self, x: Array, *, out: Array) -> Array:
        """out = index (int64) of the first largest entry along the last axis."""

    @abstractmethod
    def gather(
        self, x: Array, index: Array, *, out: Array, scale: Array | float = 1.0, shift: Array | float = 0.0
    ) -> Array:
        """out = x[index] * scale + shift, converted to the dtype of `out`.

        `x` is (N, I) or (N,), `index` is int64 of shape (B,) or (M, B), already checked on the host.
        `scale` and `shift` are numbers or (I,) arrays.
        """

    @abstractmethod
    def uniform(self, out: Array, *, seeds: Sequence[int], stream: int, counter: Array) -> Array:
        """Fill `out` (float32) with the numbers of `xpnet.rng.uniform(seed, stream, counter[0])`.

        One seed per model: with ``len(seeds) > 1`` the first axis of `out` runs over models. `counter` is
        an int64 array of one element, read when the operation runs, so that a captured step moves on.
        """

    def capture(self, fn: Callable[[], None]) -> Callable[[], None]:
        """Run `fn()` once and return a callable that repeats the same work on the same buffers.

        Everything `fn` does must be back-end operations on buffers that outlive the capture. The default
        repeats by calling `fn` again.
        """
        fn()
        return fn

    def repeated(self, fn: Callable[[], None]) -> Callable[[], None]:
        """Run `fn()` once and return what does the same again: `capture`, or `fn` where nothing is captured."""
        if self.captures:
            return self.capture(fn)
        fn()
        return fn

    def in_a_row(self, replay: Callable[[], None], n: int) -> Callable[[], None]:
        """Return what does `n` times what `replay`, which `repeated` returned, does; a device may need one launch."""

        def run() -> None:
            for _ in range(n):
                replay()

        return run

    # --- what a back end may do in one pass, and need not -----------------------------------------
    def one_pass_head(self, shape: Sequence[int]) -> bool:
        """Whether `softmax_head` is the quick way for logits of `shape`, (..., B, C)."""
        return False

    def softmax_head(
        self, z: Array, t: Array, w: Array, labels: Array, *,
        loss: Array, out: Array, batch_loss: Array, total: Array, hits: Array,
    ) -> Array:  # fmt: skip
        """`softmax_cross_entropy`, and what is counted of it, in one pass; only asked for after `one_pass_head`.

        Besides what `softmax_cross_entropy` gives, ``batch_loss = sum over the batch of loss``,
        ``total += batch_loss``, and ``hits += the number of rows whose argmax is their label``, where `argmax` is
        that of the contract: of equal logits the first, and a NaN before any number.

        Parameters
        ----------
        z, t, w
            As for `softmax_cross_entropy`; `loss` and `out`, too.
        labels : (..., B) int64
            The right classes; (B,) where members of a population share them.
        batch_loss : (...)
            In the dtype of `z`.
        total, hits : (...) float64
            Running sums, one of each for every model.
        """
        raise NotImplementedError

    def permutation(self, *, seed: Any, epoch: Any, out: Array) -> Array:
        """Fill `out`, (N,) int64, with `xpnet.rng.permutation(N, seed, epoch)`; only asked for where `shuffles`.

        With K seeds and K epochs, `out` is (K, N), a permutation in each row.
        """
        raise NotImplementedError

    def slow_start(self) -> str | None:
        """What makes the first steps take long on this machine, for those who wait; None where nothing does."""
        return None

    def free_memory(self) -> int | None:
        """Bytes that new arrays can have on the device; None where it is the host's memory, or nobody knows."""
        return None

    def lost(self, error: BaseException) -> str | None:
        """What `error` says about a device that failed or went away; None where it is about something else."""
        return None

    def tuned(
        self, multiplications: int, threads: int | None = None, members: int = 1
    ) -> AbstractContextManager[Any]:
        """Return a context in which steps run best whose largest product has so many multiplications for each member.

        `threads`, where given, overrules. The default changes nothing; it is not part of the conformance check.
        """
        return nullcontext()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} on {self.device}>"


#: The operations of the contract, in the order documented above.
OPERATIONS = (
    "asarray", "to_numpy", "empty", "synchronize", "matmul", "map", "sum", "softmax",
    "softmax_cross_entropy", "argmax", "gather", "uniform", "capture",
)  # fmt: skip


#: What the products of a network may be computed in. The last two are rounded float32, on devices with units for it.
PRECISIONS = ("float32", "float64", "tf32", "bf16")


def get_backend(
    device: str | Backend | types.ModuleType = "cpu", *, precision: str | None = None, capture: bool = True,
    autotune: bool = False,
) -> Backend:  # fmt: skip
    """Return a back end.

    Parameters
    ----------
    device : str, Backend or module, default "cpu"
        ``"cpu"`` (NumPy); ``"numba"`` (the CPU with compiled formulas, extra ``numba``); ``"cuda"``,
        ``"cuda:N"`` (CuPy); ``"auto"`` (CUDA where it works, else Numba where it is installed, else NumPy);
        a `Backend`, returned as it is; or an Array-API namespace such as `array_api_strict`, which gets
        the reference implementation.
    precision : {"float32", "float64", "tf32", "bf16"}, optional
        ``"tf32"`` and ``"bf16"`` round the operands of float32 products, on CUDA only. The others, like None,
        compute in the dtype of the operands.
    capture : bool, default True
        Whether steps are captured and repeated. Results of NumPy are the same to the bit; captured Numba
        steps compute their matrix products themselves instead of calling NumPy's BLAS.
    autotune : bool, default False
        On CUDA, time several algorithms for each matrix product before its first use, and many steps as one graph
        and as one kernel, and keep the quickest. The last bits of results then depend on the timing, so another
        process may differ in them; `Backend.algorithms` says what was chosen.

    Returns
    -------
    Backend

    Raises
    ------
    ConfigError
        The name is none of these, the device has no such precision or nothing to tune, or a back end that exists
        already should get another setting.
    DeviceError
        CUDA was asked for and cannot be used. There is no silent fall-back to the CPU.

    Examples
    --------
    >>> from xpnet.backend import get_backend
    >>> get_backend("cpu")
    <CpuBackend numpy on cpu>
    >>> get_backend("cpu", capture=False).captures
    False
    """
    if precision is not None and precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    rounded = precision if precision in ("tf32", "bf16") else None
    if isinstance(device, Backend):
        other = (precision is not None and rounded != device.precision) or capture < device.captures
        if other or autotune > device.autotune:
            raise ConfigError(
                f"{device!r} exists already; choose precision, capture and autotune when it is made"
            )
        return device
    backend = _make(device, rounded, autotune)
    if autotune and not backend.autotune:
        raise ConfigError(
            f"autotune needs CUDA, but the device is {backend.device!r}, whose matrix library chooses by itself; "
            "use --device cuda, or leave --autotune out"
        )
    if rounded != backend.precision:
        raise ConfigError(
            f"precision {precision!r} needs CUDA, but the device is {backend.device!r}; "
            "use --device cuda, or --precision float32"
        )
    backend.captures = capture
    if isinstance(device, types.ModuleType):
        backend.origin = Origin(device.__name__, True, rounded, capture, autotune)
    else:
        chosen = backend.device if backend.device != "cpu" else "numba" if "numba" in backend.name else "cpu"
        backend.origin = Origin(chosen, False, rounded, capture, autotune)
    return backend


def _make(device: str | types.ModuleType, precision: str | None, autotune: bool) -> Backend:
    if isinstance(device, types.ModuleType):
        from .reference import ReferenceBackend

        return ReferenceBackend(device)
    if device == "auto":
        from .cuda.probe import probe

        device = "cuda" if probe().available else "numba" if importlib.util.find_spec("numba") else "cpu"
    if device == "cpu":
        from .cpu import CpuBackend

        return CpuBackend()
    if device == "numba":
        from .compiled.backend import CompiledBackend

        return CompiledBackend()
    if isinstance(device, str) and (number := re.fullmatch(r"cuda(?::(\d+))?", device)):
        from .cuda.probe import probe

        finding = probe(None if number[1] is None else int(number[1]))
        if finding.available:
            from .cuda.backend import on_device

            return on_device(int(number[1] or 0), precision, autotune)
        advice = f"To mend it: {finding.advice}. " if finding.advice else ""
        raise DeviceError(
            f"device {device!r} is not available: {finding.message}. {advice}Or use --device cpu."
        )
    raise ConfigError(f"unknown device {device!r}; expected one of {DEVICES}")


__all__ = ["DEVICES", "OPERATIONS", "PRECISIONS", "Array", "Backend", "get_backend"]
