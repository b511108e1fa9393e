"""What a training was like, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import unknown_name

Record = dict[str, Any]


class History(list[Record]):
    """One record per epoch: epoch, step, train_loss, train_accuracy, valid_loss, valid_accuracy, lr, ...

    Losses are means over examples without penalties. Those of training are taken while the weights change.

    Attributes
    ----------
    best_epoch : int or None
        The epoch whose weights the model has, where a validation set chose one; for a population, that of
        the first member.
    best_epochs : list of int or None
        The same for each member of a population (0: no epoch was better than the initial weights).
    diverged : list of int
        Members of a population whose loss or weights stopped being finite; they have their last good weights.
    stopped : str
        Why training ended: "epochs" or the reason given to `Trainer.stop`.

    Examples
    --------
    >>> history = History([{"epoch": 1, "train_loss": 0.7}, {"epoch": 2, "train_loss": 0.4}])
    >>> history[-1]["epoch"], history.column("train_loss")
    (2, [0.7, 0.4])
    """

    best_epoch: int | None = None
    best_epochs: list[int] | None = None
    stopped: str = "epochs"

    def __init__(self, records: Iterable[Record] = ()):
        super().__init__(records)
        self.diverged: list[int] = []

    def column(self, name: str) -> list[Any]:
        """One quantity over the epochs, such as ``history.column("valid_loss")``; None where a record has none.

        Raises
        ------
        ConfigError
            No record has it; the message names what they have.
        """
        known = dict.fromkeys(key for record in self for key in record)
        if self and name not in known:
            raise unknown_name("column of the history", name, known)
        return [record.get(name) for record in self]

    def _repr_html_(self) -> str:
        """The epochs as a table, for notebooks."""
        from ..notebook import history_table

        best = "" if self.best_epoch is None else f", best epoch {self.best_epoch}"
        return history_table(self, f"{len(self)} epochs{best}, stopped by {self.stopped}")
