"""What training a population gives: one result per configuration, and tables of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..mlp import MLP
from ..training.history import History


@dataclass(kw_only=True)
class MemberResult:
    """One configuration, trained.

    Attributes
    ----------
    index : int
        Position in the list of configurations.
    configuration : dict
        The settings of this member, those common to all included, as they were given.
    model : MLP or None
        An ordinary single model with the best weights, where a validation set chose them, else the last; after
        divergence the last good ones. None with ``keep_models=False``.
    history : History
        One record per epoch of this member; its ``seconds`` are the member's share of its block's time.
    stopped : str
        "epochs", "early_stopping" or "diverged".
    monitor : str
        The column of the history that decided, such as "valid_accuracy".
    error : str or None
        What went wrong with this member, where something did.

    Examples
    --------
    >>> history = History([{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.3}])
    >>> MemberResult(
    ...     index=0, configuration={"lr": 0.1}, model=None, history=history, stopped="epochs", monitor="train_loss"
    ... ).score
    0.3
    """

    index: int
    configuration: dict[str, Any]
    model: MLP | None
    history: History
    stopped: str
    monitor: str
    error: str | None = None

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights the model has, where a validation set chose one."""
        return self.history.best_epoch

    @property
    def score(self) -> float:
        """The monitored value at the best epoch, else at the last; NaN where no epoch was finished."""
        if not self.history:
            return math.nan
        value = self.history[(self.best_epoch or len(self.history)) - 1][self.monitor]
        return math.nan if value is None else float(value)

    @property
    def goodness(self) -> float:
        """`score` with the sign that makes larger better; -inf where there is none or the member diverged."""
        value = self.score if self.monitor.endswith("accuracy") else -self.score
        return value if math.isfinite(value) and self.stopped != "diverged" else -math.inf


@dataclass
class PopulationResult:
    """The results of `fit_many`, in the order of the configurations; a sequence of `MemberResult`.

    Attributes
    ----------
    members : list of MemberResult
    seconds : float
        From the call to its end.
    plan : list of dict
        One entry per group of members that trained together: "members", "parameters", "block" (members per
        batched product), "workers", and "bytes", the memory that was planned.

    Examples
    --------
    >>> import xpnet
    >>> result = xpnet.fit_many(
    ...     [{"lr": 0.0}, {"lr": 0.1}], ([[0.0], [1.0]], [0, 1]), sizes=[1, 2], epochs=30, monitor="train_loss")
    >>> result.best.index, [row["lr"] for row in result.to_rows()]
    (1, [0.0, 0.1])
    """

    members: list[MemberResult]
    seconds: float = 0.0
    plan: list[dict[str, Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> MemberResult:
        return self.members[index]

    def __iter__(self):
        return iter(self.members)

    @property
    def best(self) -> MemberResult:
        """The member with the best `score`; of equal ones the first.

        Raises
        ------
        ConfigError
            Every member diverged.
        """
        first = self.ranking()[0]
        if first.goodness == -math.inf:
            raise ConfigError(
                f"none of the {len(self)} members has a score: {first.error or 'no epoch was finished'}"
            )
        return first

    def ranking(self) -> list[MemberResult]:
        """The members from the best to the worst; those that diverged last."""
        return sorted(self.members, key=lambda m: (-m.goodness, m.index))

    @property
    def failed(self) -> list[MemberResult]:
        """Members that diverged."""
        return [m for m in self.members if m.stopped == "diverged"]

    @property
    def models(self) -> list[MLP | None]:
        """The trained models, in the order of the configurations."""
        return [m.model for m in self.members]

    def to_rows(self, columns: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """Return one flat dict per member, for a table or a data frame.

        Parameters
        ----------
        columns : iterable of str, optional
            Settings to show; by default those in which the members differ. Arrays are shown by their length.

        Returns
        -------
        list of dict
            "member", the settings, "epochs", "best_epoch", "stopped", "score", the losses and accuracies of the
            best epoch (of the last one without validation), "seconds" and "error".
        """
        chosen = self._varying() if columns is None else list(columns)
        return [_row(m, chosen) for m in self.members]

    def _varying(self) -> list[str]:
        names = dict.fromkeys(name for m in self.members for name in m.configuration)
        return [
            n for n in names if len({repr(_shown(m.configuration.get(n))) for m in self.members}) > 1
            or any(isinstance(m.configuration.get(n), np.ndarray) for m in self.members)
        ]  # fmt: skip


_QUANTITIES = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")


def _row(m: MemberResult, columns: list[str]) -> dict[str, Any]:
    last: Mapping[str, Any] = m.history[(m.best_epoch or len(m.history)) - 1] if m.history else {}
    return {
        "member": m.index, **{n: _shown(m.configuration.get(n)) for n in columns},
        "epochs": len(m.history), "best_epoch": m.best_epoch, "stopped": m.stopped, "score": m.score,
        **{n: last.get(n) for n in _QUANTITIES},
        "seconds": sum(r["seconds"] for r in m.history), "error": m.error,
    }  # fmt: skip


def _shown(value: Any) -> Any:
    """A setting as an entry of a table."""
    if isinstance(value, np.ndarray):
        return f"{len(value)} rows"
    if isinstance(value, (list, tuple)):
        return f"{len(value)} entries" if len(value) > 16 else "-".join(map(str, value))
    plain = value is None or isinstance(value, (bool, int, float, str))
    return value if plain else value.item() if isinstance(value, np.generic) else str(value)
