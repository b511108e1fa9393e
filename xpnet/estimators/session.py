"""What fits share while many estimators are planned, trained together and handed back.

A search calls ``fit`` on each of its estimators twice. While it *plans*, the network that would be trained is
reported by an exception instead (`Planned`), whatever stands around it: a pipeline, a scaled target. All are then
trained in populations. While it *replays*, ``fit`` takes the trained network and returns at once; a fit that was
not planned trains as always.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np

from ..data.scaling import FeatureScaler
from .rows import SparseRows, as_examples

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(eq=False)
class Plan:
    """A network that is about to be trained, and on what.

    Attributes
    ----------
    network : dict or None
        Arguments of `MLP`; None where a fitted network goes on.
    data : (X, y)
        As the network takes them.
    validation : (X, y, sample_weight) or None
    options : dict
        More arguments of `Trainer`.
    callbacks : list of Callback
        Those that training needs.
    scorer : Callback or None
        Adds "valid_score" to the records.
    n : int
        N, the samples.
    watched : bool
        Whether training that uses all its epochs has ended too early.
    """

    network: dict[str, Any] | None
    data: tuple[Any, np.ndarray]
    validation: tuple[Any, np.ndarray, np.ndarray | None] | None
    options: dict[str, Any]
    callbacks: list[Any]
    scorer: Any
    n: int
    watched: bool


class Planned(BaseException):
    """Ends a ``fit`` that was only to say what it would train; no error."""

    def __init__(self, estimator: Any, plan: Plan, fingerprint: tuple[Any, ...]):
        super().__init__()
        self.estimator, self.plan, self.fingerprint = estimator, plan, fingerprint


@dataclass(eq=False)
class Trained:
    """One planned estimator after training: fitted, or with the error that its ``fit`` is to raise."""

    estimator: Any
    fingerprint: tuple[Any, ...]
    error: Exception | None = None


@dataclass(eq=False)
class Session:
    """One search or ensemble.

    Attributes
    ----------
    planning : bool
        Whether ``fit`` reports its plan and stops.
    waiting : list of Trained
        What ``fit`` takes while replaying, in this order.
    replays : bool
        Whether plans will be replayed, so that fits must be told apart.
    round : int
        How far the seeds of what is planned are from those that will be replayed.
    """

    planning: bool = True
    replays: bool = True
    round: int = 0
    waiting: list[Trained] = field(default_factory=list)
    fingerprint: tuple[Any, ...] = ()
    _arrays: dict[tuple[Any, ...], list[np.ndarray]] = field(default_factory=dict)
    _made: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def shared(self, array: Any) -> Any:
        """Return the array of equal content that was seen first, so that equal data are held once."""
        if not isinstance(array, np.ndarray) or array.dtype.hasobject:
            return array
        contiguous = np.ascontiguousarray(array)
        key = (array.shape, array.dtype.str, zlib.crc32(contiguous.view(np.uint8).reshape(-1).data))
        known = self._arrays.setdefault(key, [])
        for other in known:
            if other is array or np.array_equal(other, array):
                return other
        known.append(array)
        return array

    def once(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """Return what `make` returned for this key the first time."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def forget_data(self) -> None:
        """Let go of everything that only planning needed."""
        self._arrays.clear()
        self._made.clear()


_current: ContextVar[Session | None] = ContextVar("session", default=None)


@contextlib.contextmanager
def entered(session: Session | None) -> Iterator[Session | None]:
    """Make it the session of every fit inside; None hides the one around."""
    token = _current.set(session)
    try:
        yield session
    finally:
        _current.reset(token)


def current() -> Session | None:
    """The session around the running fit, if any."""
    return _current.get()


def took_over(estimator: Any, x: Any, y: Any, weight: Any) -> bool:
    """Whether a ``fit`` that begins is done already, because this estimator was trained before with others."""
    session = _current.get()
    if session is None or not session.replays:
        return False
    mark = _fingerprint(estimator, x, y, weight, session.round)
    session.fingerprint = mark
    if session.planning:
        return False
    for k, trained in enumerate(session.waiting):
        if trained.fingerprint == mark:
            del session.waiting[k]
            if trained.error is not None:
                raise trained.error
            own = estimator.get_params(deep=False)
            vars(estimator).update({k: v for k, v in vars(trained.estimator).items() if k not in own})
            return True
    return False


def _fingerprint(estimator: Any, x: Any, y: Any, weight: Any, round_: int) -> tuple[Any, ...]:
    settings = estimator.get_params(False)
    seed = settings.pop("random_state")
    # the seed of the first round, which is the one that a replayed fit has; a generator has moved on by then
    first = int(seed) - round_ if isinstance(seed, (int, np.integer)) else type(seed).__name__
    # clones have copies of the same objects, so where an object lies says nothing
    return type(estimator), joblib.hash([_ADDRESS.sub("", repr(settings)), first, x, y, weight])


def fitted_scaler(x: Any, w: np.ndarray | None) -> FeatureScaler:
    """Return a scaler for x; the same one for the same samples and weights within a session."""
    session = _current.get()
    if session is None or not isinstance(x, np.ndarray):
        return FeatureScaler().fit(x, w)
    x, w = session.shared(x), session.shared(w)
    return session.once(("scaler", id(x), id(w)), lambda: FeatureScaler().fit(x, w))


def scaled_examples(x: Any, scaler: FeatureScaler | None, dtype: str) -> np.ndarray | SparseRows:
    """Return samples as training takes them; the same array for the same samples within a session."""
    session = _current.get()
    if session is None or not isinstance(x, np.ndarray):
        return as_examples(x, scaler, dtype)
    x = session.shared(x)
    return session.once(("examples", id(x), id(scaler), dtype), lambda: as_examples(x, scaler, dtype))
