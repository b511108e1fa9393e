"""How good the weights are after each epoch: the best so far, the last good ones, and when to stop waiting.

Everything is kept for each member of a population by itself, in host arrays with the shape of the population:
(M,), or () for a single model.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .backend import get_backend
from .params import ParameterLayout
from .schedules import ReduceOnPlateau, Schedule

Record = dict[str, Any]


def host_views(layout: ParameterLayout, flat: np.ndarray) -> dict[str, np.ndarray]:
    """Named views of a flat buffer on the host."""
    return layout.views(get_backend("cpu"), flat)


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
        out_of_race: np.ndarray,
    ) -> np.ndarray:
        """Take note of an epoch and return which models are better than ever.

        Parameters
        ----------
        monitor : str
            The entry of the record that decides; accuracies should be large, losses small.
        record : dict
            Its numbers have the shape of the models.
        epoch : int, or one per model
        patience : number, or one per model
            inf where there is no limit. A model whose patience is over has stopped.
        min_delta : float, or one per model
            The least change that counts as an improvement.
        out_of_race : bool
            Models that diverged.
        """
        value = np.asarray(record[monitor], dtype=np.float64)
        if monitor.endswith("accuracy"):
            # equal accuracies are told apart by their losses, which are far smaller than one example
            loss = np.asarray(record[monitor.replace("accuracy", "loss")], dtype=np.float64)
            score = value - 1e-9 * np.minimum(loss, 1e3)
        else:
            value = score = -value
        score = np.where(np.isfinite(score) & ~out_of_race, score, -np.inf)
        value = np.where(np.isfinite(score), value, -np.inf)
        # one that has stopped stays as it is, though the others of a population take it along
        running = self.bad_epochs < patience
        better = running & (score > self.best_score)
        self.best_score = np.where(better, score, self.best_score)
        self.best_at = np.where(better, epoch, self.best_at)
        improved = running & (value > self.reference + min_delta)
        self.reference = np.where(improved, value, self.reference)
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
    layout : ParameterLayout
    weights : (P,) ndarray
        The initial weights, which count as good.
    monitor : str
        The entry of a record that decides; accuracies should be large, losses small.
    schedule : Schedule
    patience : int, optional
        A member has stopped when its value has not improved for so many epochs.
    min_delta : float, default 0
        The least change that counts as an improvement for `patience`.

    Attributes
    ----------
    best, last_good : (P,) ndarray
        Flat weights of the best epoch, and of the last one whose weights were finite.
    standing : Standing
    diverged : bool
        Members whose loss or weights are no longer finite.
    """

    def __init__(
        self, layout: ParameterLayout, weights: np.ndarray, monitor: str, *, schedule: Schedule,
        patience: int | None = None, min_delta: float = 0.0,
    ):  # fmt: skip
        self.monitor, self.schedule = monitor, schedule
        self.patience, self.min_delta = patience, min_delta
        self._layout = layout
        lead = layout.lead
        self.best = np.array(weights)
        self.last_good = self.best.copy()
        self.standing = Standing(lead)
        self.diverged = np.zeros(lead, dtype=bool)
        #: What the plateau schedule remembers, per member.
        self._plateau: list[dict[str, float]] = [{} for _ in range(layout.n_models or 1)]

    @property
    def best_at(self) -> np.ndarray:
        """Epoch of the best value, int64; 0 before the first."""
        return self.standing.best_at

    @property
    def exhausted(self) -> bool:
        """Whether the patience with every member is over."""
        return self.patience is not None and bool((self.standing.bad_epochs >= self.patience).all())

    @property
    def multiplier(self) -> Any:
        """Multiplier of the learning rate that the plateau schedule has come to; one per member."""
        each = [state.get("multiplier", 1.0) for state in self._plateau]
        return each[0] if self._layout.n_models is None else np.asarray(each)

    def exclude(self, members: np.ndarray) -> None:
        """Count these as diverged from now on."""
        self.diverged = self.diverged | members

    def keep_good(self, weights: np.ndarray) -> None:
        """Remember the weights of members that have not diverged; one with weights that are not finite has."""
        lead = self._layout.lead
        finite = np.ones(lead, dtype=bool)
        for view in host_views(self._layout, weights).values():
            finite &= np.isfinite(view).reshape(*lead, -1).all(axis=-1)
        self.exclude(~finite)
        self._copy(weights, self.last_good, ~self.diverged)

    def rescued(self, weights: np.ndarray) -> np.ndarray:
        """Return a copy in which members that diverged have their last good weights."""
        weights = np.array(weights)
        self._copy(self.last_good, weights, self.diverged)
        return weights

    def judge(self, epoch: int, record: Record, weights: np.ndarray) -> None:
        """Take note of the record of an epoch and of the weights after it."""
        better = self.standing.judge(
            self.monitor, record, epoch=epoch, patience=np.inf if self.patience is None else self.patience,
            min_delta=self.min_delta, out_of_race=self.diverged,
        )  # fmt: skip
        self._copy(weights, self.best, better)
        if isinstance(self.schedule, ReduceOnPlateau):
            watched = record["train_loss"] if record["valid_loss"] is None else record["valid_loss"]
            self._plateau = [
                self.schedule.observe(state, float(loss))
                for state, loss in zip(self._plateau, np.ravel(watched), strict=True)
            ]

    def _copy(self, source: np.ndarray, target: np.ndarray, which: np.ndarray) -> None:
        """Copy the weights of the members in `which` from one flat buffer to another."""
        if not which.ndim:
            if which:
                target[...] = source
            return
        old, new = host_views(self._layout, target), host_views(self._layout, source)
        for name in old:
            old[name][which] = new[name][which]

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return what it remembers, as host tensors and JSON-serialisable metadata."""
        tensors = {f"best.{k}": v.copy() for k, v in host_views(self._layout, self.best).items()}
        if self.diverged.any():  # else a member that diverged would have no good weights to come back to
            good = host_views(self._layout, self.last_good)
            tensors |= {f"last_good.{k}": v.copy() for k, v in good.items()}
        metadata = {
            "plateau": self._plateau, "bad_epochs": self.standing.bad_epochs.tolist(),
            "reference": self.standing.reference.tolist(), "best_score": self.standing.best_score.tolist(),
            "best_at": self.best_at.tolist(), "diverged": self.diverged.tolist(),
        }  # fmt: skip
        return tensors, metadata

    def load_state(
        self, tensors: dict[str, np.ndarray], metadata: dict[str, Any], weights: np.ndarray
    ) -> None:
        """Remember what `state` returned; `weights` are those of that moment."""
        for name, view in host_views(self._layout, self.best).items():
            view[...] = tensors[f"best.{name}"]
        self._plateau = metadata["plateau"]
        standing = self.standing
        standing.bad_epochs = np.asarray(metadata["bad_epochs"], dtype=np.int64)
        standing.reference = np.asarray(metadata["reference"], dtype=np.float64)
        standing.best_score = np.asarray(metadata["best_score"], dtype=np.float64)
        standing.best_at = np.asarray(metadata["best_at"], dtype=np.int64)
        self.diverged = np.asarray(metadata["diverged"], dtype=bool)
        self.last_good = np.array(weights)
        for name, view in host_views(self._layout, self.last_good).items():
            if (good := tensors.get(f"last_good.{name}")) is not None:
                view[self.diverged] = good[self.diverged]
