"""Loss and accuracy over the epochs, thinned out so that they stay a page's worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

COLUMNS = ("train_loss", "valid_loss", "train_accuracy", "valid_accuracy")
_MOST = 400


class Curves:
    """Rows of (epoch, four numbers); where they get too many, every second one goes.

    Examples
    --------
    >>> curves = Curves()
    >>> for epoch in range(1000):
    ...     curves.add(epoch, {"train_loss": 1 / (epoch + 1)})
    >>> len(curves.as_dict()["epoch"]) <= 401, curves.as_dict()["epoch"][-1]
    (True, 999)
    """

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._last: tuple[Any, ...] | None = None
        self._every = 1

    def add(self, epoch: int, record: Mapping[str, Any]) -> None:
        """Add the numbers of one epoch; what is missing stays empty."""
        self._last = (epoch, *(_short(record.get(name)) for name in COLUMNS))
        if epoch % self._every:
            return
        self._rows.append(self._last)
        if len(self._rows) > _MOST:
            self._every *= 2
            self._rows = [row for row in self._rows if row[0] % self._every == 0]

    def as_dict(self) -> dict[str, list[Any]]:
        """Columns by name, the latest epoch always among them."""
        rows = self._rows
        if self._last is not None and (not rows or rows[-1][0] != self._last[0]):
            rows = [*rows, self._last]
        columns = list(zip(*rows, strict=True)) if rows else [()] * (1 + len(COLUMNS))
        return {name: list(column) for name, column in zip(("epoch", *COLUMNS), columns, strict=True)}


def _short(value: Any) -> float | None:
    # JSON has no infinity, and a chart no place for it
    return None if value is None or not math.isfinite(value) else float(f"{float(value):.5g}")
