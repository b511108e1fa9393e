"""How good the weights are after each epoch: the best so far, the last good ones, and when to stop waiting.

Everything is kept for each member of a population by itself: numbers in host arrays with the shape of the population,
(M,) or () for a single model; weights where the model has them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import Array, Backend, get_backend
from ..mlp import MLP
from ..params import ParameterLayout
from ..schedules import ReduceOnPlateau, Schedule
from .history import Record


def host_views(layout: ParameterLayout, flat: np.ndarray) -> dict[str, np.ndarray]:
    """Named views of a flat buffer on the host."""
    return layout.views(get_backend("cpu"), flat)


class Keeper:
    """Looks at flat buffers of weights and copies them, each member of a population by itself, on their device.

    Parameters
    ----------
    be : Backend
    layout : ParameterLayout
    dtype : str
    """

    def __init__(self, be: Backend, layout: ParameterLayout, dtype: str):
        self._be, self._layout, self._dtype = be, layout, dtype
        #: Where each tensor is, as (M, n).
        self._places = [p for d in (True, False) for p in layout.segments(decayed=d, per_member=True)]
        members = layout.n_models or 1
        self._mask = be.empty((members, 1), dtype)
        self._probe = be.empty((len(self._places), members), dtype)

    def _pieces(self, flat: Array) -> list[Array]:
        return [self._be.xp.reshape(flat[place], shape) for place, shape in self._places]

    def finite(self, flat: Array, scratch: Array) -> np.ndarray:
        """Which members have no NaN and no infinity in `flat`; `scratch`, of its size, may be overwritten."""
        if self._be.device == "cpu" and isinstance(flat, np.ndarray):
            each = [np.isfinite(piece).all(axis=-1) for piece in self._pieces(flat)]
        else:  # one number for each tensor comes to the host, not the weights
            for i, (weights, work) in enumerate(zip(self._pieces(flat), self._pieces(scratch), strict=True)):
                self._be.map(_vanish, weights, out=work)
                self._be.sum(work, axis=-1, out=self._probe[i, ...])
            each = list(np.isfinite(self._be.to_numpy(self._probe)))
        return np.logical_and.reduce(each).reshape(self._layout.lead)

    def copy(self, source: Array, target: Array, which: np.ndarray) -> None:
        """Copy the members in `which`, bool (M,) or ()."""
        if which.all():
            target[...] = source
        elif which.any():
            self._mask[...] = self._be.asarray(which[:, None].astype(self._dtype))
            for new, old in zip(self._pieces(source), self._pieces(target), strict=True):
                self._be.map(_pick, self._mask, new, old, out=old)


def _vanish(ns: Any, w: Array) -> Array:
    return w * 0.0  # NaN where w is not finite


def _pick(ns: Any, mask: Array, new: Array, old: Array) -> Array:
    return ns.where(mask > 0.5, new, old)


class Standing:
    """How each model stands: its best score and since when it has not improved; arrays of one shape.

    Parameters
    ----------
    shape : tuple of int
        (M,), or () for a single model.

    Attributes
    ----------
    best_score, best_at : float64, int64
        The best score so far and its epoch; 0 before the first.
    reference, bad_epochs : float64, int64
        What patience compares with, and epochs since it improved.
    """

    _FIELDS = ("best_score", "best_at", "reference", "bad_epochs")

    def __init__(self, shape: tuple[int, ...]):
        self.best_score = np.full(shape, -np.inf)
        self.best_at = np.zeros(shape, dtype=np.int64)
        self.reference = np.full(shape, -np.inf)
        self.bad_epochs = np.zeros(shape, dtype=np.int64)

    def judge(
        self,
        monitor: str,
        record: Record,
        *,
        epoch: Any,
        patience: Any,
        min_delta: Any,
        from_best: Any,
        out_of_race: np.ndarray,
        largest: bool | None = None,
    ) -> np.ndarray:
        """Take note of an epoch and return which models are better than ever.

        Parameters
        ----------
        monitor : str
            The entry of the record that decides.
        record : dict
            Its numbers have the shape of the models.
        epoch : int, or one per model
        patience : number, or one per model
            inf where there is no limit. A model whose patience is over has stopped.
        min_delta : float, or one per model
            The least change that counts as an improvement.
        from_best : bool, or one per model
            Whether that change is measured from the best epoch, else from the last that counted as an improvement.
        out_of_race : bool
            Models that diverged.
        largest : bool, optional
            Whether large values are good; by default those of accuracies.
        """
        value = np.asarray(record[monitor], dtype=np.float64)
        accuracy = monitor.endswith("accuracy")
        value = score = value if (accuracy if largest is None else largest) else -value
        loss = record.get(monitor.replace("accuracy", "loss")) if accuracy else None
        if loss is not None:
            # equal accuracies are told apart by their losses, which are far smaller than one example
            score = value - 1e-9 * np.minimum(np.asarray(loss, dtype=np.float64), 1e3)
        score = np.where(np.isfinite(score) & ~out_of_race, score, -np.inf)
        value = np.where(np.isfinite(score), value, -np.inf)
        # one that has stopped stays as it is, though the others of a population take it along
        running = self.bad_epochs < patience
        better = running & (score > self.best_score)
        self.best_score = np.where(better, score, self.best_score)
        self.best_at = np.where(better, epoch, self.best_at)
        improved = running & (value > self.reference + min_delta)
        moves = improved | (running & np.asarray(from_best) & (value > self.reference))
        self.reference = np.where(moves, value, self.reference)
        self.bad_epochs = np.where(improved, 0, self.bad_epochs + 1)
        return better

    def take(self, members: np.ndarray) -> Standing:
        """Return a copy with these members only."""
        part = Standing((len(members),))
        for name in self._FIELDS:
            setattr(part, name, getattr(self, name)[members])
        return part

    def put(self, members: np.ndarray, part: Standing) -> None:
        """Overwrite these members."""
        for name in self._FIELDS:
            getattr(self, name)[members] = getattr(part, name)


class Judge:
    """Remembers the best weights and who diverged, counts epochs without improvement, feeds a plateau schedule.

    Parameters
    ----------
    model : MLP
        Its initial weights count as good.
    scratch : (P,) array
        On the model's device; may be overwritten whenever weights are looked at.
    monitor : str
        The entry of a record that decides.
    largest : bool, optional
        Whether it should be large; by default accuracies should, losses should not.
    schedule : Schedule
    patience : int, optional
        A member has stopped when its value has not improved for so many epochs.
    min_delta : float, default 0
        The least change that counts as an improvement for `patience`.
    from_best : bool, default False
        Whether that change is measured from the best epoch, else from the last that counted as an improvement.
    restores : bool, default False
        Whether the model is to end with its best weights.

    Attributes
    ----------
    keeps_best : bool
        The parameter `restores`; may be changed.
    best, last_good : (P,) array
        Flat weights of the best epoch, and of the last one whose weights were finite, on the model's device. Those of a
        member that has stopped stay as they were then.
    standing : Standing
    diverged : bool
        Members whose loss or weights are no longer finite.
    """

    def __init__(
        self, model: MLP, scratch: Array, monitor: str, *, largest: bool | None = None, schedule: Schedule,
        patience: int | None = None,
        min_delta: float = 0.0, from_best: bool = False, restores: bool = False,
    ):  # fmt: skip
        self.keeps_best = restores
        self.monitor, self.largest, self.schedule = monitor, largest, schedule
        self.patience, self.min_delta, self.from_best = patience, min_delta, from_best
        self._be, self._layout = model.be, model.layout
        self._weights, self._scratch = model.weights, scratch
        self._keeper = Keeper(model.be, model.layout, model.dtype)
        lead = model.lead
        self.best, self.last_good = (self._be.empty((model.layout.size,), model.dtype) for _ in range(2))
        self.best[...] = self._weights
        self.last_good[...] = self._weights
        self.standing = Standing(lead)
        self.diverged = self._nobody = np.zeros(lead, dtype=bool)
        #: What the plateau schedule remembers, per member.
        self._plateau: list[dict[str, float]] = [{} for _ in range(model.n_models or 1)]

    @property
    def best_at(self) -> np.ndarray:
        """Epoch of the best value, int64; 0 before the first."""
        return self.standing.best_at

    @property
    def restores(self) -> bool:
        """Whether there are best weights for the model to end with."""
        return self.keeps_best and bool(self.best_at.any())

    @property
    def stopped(self) -> np.ndarray:
        """Members with which patience is over; those of a population train on, but nothing of it counts."""
        if self.patience is None:
            return self._nobody
        return self.standing.bad_epochs >= self.patience

    @property
    def exhausted(self) -> bool:
        """Whether the patience with every member is over."""
        return self.patience is not None and bool(self.stopped.all())

    @property
    def multiplier(self) -> Any:
        """Multiplier of the learning rate that the plateau schedule has come to; one per member."""
        each = [state.get("multiplier", 1.0) for state in self._plateau]
        return each[0] if self._layout.n_models is None else np.asarray(each)

    def exclude(self, members: np.ndarray) -> None:
        """Count these as diverged from now on, but those that had stopped before."""
        self.diverged = self.diverged | (members & ~self.stopped)

    def keep_good(self) -> None:
        """Remember the weights of members that train; one with weights that are not finite has diverged."""
        self.exclude(~self._keeper.finite(self._weights, self._scratch))
        self._keeper.copy(self._weights, self.last_good, ~(self.diverged | self.stopped))

    def rescue(self, members: np.ndarray) -> None:
        """Give these members their last good weights."""
        self._keeper.copy(self.last_good, self._weights, members)

    def put_back(self) -> None:
        """Give the model its best weights where it is to end with them, else the last good ones of all members."""
        self._weights[...] = self.best if self.restores else self.last_good

    def judge(self, epoch: int, record: Record) -> None:
        """Take note of the record of an epoch and of the weights after it."""
        better = self.standing.judge(
            self.monitor, record, epoch=epoch, patience=np.inf if self.patience is None else self.patience,
            min_delta=self.min_delta, from_best=self.from_best, out_of_race=self.diverged,
            largest=self.largest,
        )  # fmt: skip
        self._keeper.copy(self._weights, self.best, better)
        if isinstance(self.schedule, ReduceOnPlateau):
            watched = record["train_loss"] if record["valid_loss"] is None else record["valid_loss"]
            self._plateau = [
                self.schedule.observe(state, float(loss))
                for state, loss in zip(self._plateau, np.ravel(watched), strict=True)
            ]

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return what it remembers, as host tensors and JSON-serialisable metadata."""
        tensors = {f"best.{k}": v.copy() for k, v in self._on_host(self.best).items()}
        if (self.diverged | self.stopped).any():  # which have other weights to come back to than those of now
            tensors |= {f"last_good.{k}": v.copy() for k, v in self._on_host(self.last_good).items()}
        metadata = {
            "plateau": self._plateau, "bad_epochs": self.standing.bad_epochs.tolist(),
            "reference": self.standing.reference.tolist(), "best_score": self.standing.best_score.tolist(),
            "best_at": self.best_at.tolist(), "diverged": self.diverged.tolist(),
        }  # fmt: skip
        return tensors, metadata

    def _on_host(self, flat: Array) -> dict[str, np.ndarray]:
        return host_views(self._layout, self._be.to_numpy(flat))

    def load_state(self, tensors: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
        """Remember what `state` returned; the model has the weights of that moment."""
        for name, view in self._layout.views(self._be, self.best).items():
            view[...] = self._be.asarray(tensors[f"best.{name}"])
        self._plateau = metadata["plateau"]
        standing = self.standing
        standing.bad_epochs = np.asarray(metadata["bad_epochs"], dtype=np.int64)
        standing.reference = np.asarray(metadata["reference"], dtype=np.float64)
        standing.best_score = np.asarray(metadata["best_score"], dtype=np.float64)
        standing.best_at = np.asarray(metadata["best_at"], dtype=np.int64)
        self.diverged = np.asarray(metadata["diverged"], dtype=bool)
        good = self._be.empty((self._layout.size,), str(self.last_good.dtype))
        good[...] = self._weights
        for name, view in self._layout.views(self._be, good).items():
            if (saved := tensors.get(f"last_good.{name}")) is not None:
                view[...] = self._be.asarray(saved)
        self.last_good[...] = self._weights
        self._keeper.copy(good, self.last_good, self.diverged | self.stopped)
