"""How far a sweep is: a table that stays in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from .results import Row, summary
from .settings import shown
from .space import Candidate

_ROWS = 12
_EVERY = 0.25  # seconds between two drawings


def score_text(value: float | None, monitor: str) -> str:
    """A score as people read it.

    Examples
    --------
    >>> score_text(0.98765, "valid_accuracy"), score_text(0.01234567, "valid_loss"), score_text(None, "valid_loss")
    ('98.77 %', '0.0123457', 'failed')
    """
    if value is None:
        return "failed"
    return f"{100.0 * value:.2f} %" if monitor.endswith("accuracy") else f"{value:.6g}"


def spread_text(value: float | None, monitor: str) -> str:
    """A spread beside its score."""
    if value is None:
        return ""
    return f"± {100.0 * value:.2f}" if monitor.endswith("accuracy") else f"± {value:.2g}"


class Progress:
    """Shows the best candidates so far.

    Parameters
    ----------
    candidates : sequence of dict
    per_candidate : int
        Members of each.
    stream : text stream, optional
        Standard output where omitted.
    """

    def __init__(self, candidates: Sequence[Candidate], per_candidate: int, stream: TextIO | None = None):
        self.candidates, self.per_candidate = candidates, per_candidate
        self._stream = stream or sys.stdout
        self._live: Any = None
        self._drawn = 0.0

    def __enter__(self) -> Progress:
        if self._stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(file=self._stream), auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, members: Sequence[Row], monitor: str) -> None:
        """Show results so far; `members` ends with the latest."""
        if self._live is None:
            self._print(members, monitor)
        elif time.monotonic() - self._drawn >= _EVERY or len(members) == self._total:
            self._live.update(self._table(members, monitor), refresh=True)
            self._drawn = time.monotonic()

    @property
    def _total(self) -> int:
        return len(self.candidates) * self.per_candidate

    def _print(self, members: Sequence[Row], monitor: str) -> None:
        """One line when a candidate is complete."""
        index = members[-1]["candidate"]
        own = [m for m in members if m["candidate"] == index]
        if len(own) < self.per_candidate:
            return
        (row,) = summary(own, self.candidates, monitor)
        scores = f"{score_text(row['mean'], monitor)} {spread_text(row['std'], monitor)}".rstrip()
        print(
            f"[{len(members)}/{self._total}] {shown(self.candidates[index])}: {scores}",
            file=self._stream,
            flush=True,
        )

    def _table(self, members: Sequence[Row], monitor: str) -> Any:
        from rich.table import Table

        table = Table(title=f"{len(members)} of {self._total} trained", title_justify="left")
        for name, side in (("rank", "right"), ("settings", "left"), (monitor, "right"), ("spread", "right")):
            table.add_column(name, justify=side)  # type: ignore[arg-type]
        table.add_column("trained", justify="right")
        for row in summary(members, self.candidates, monitor)[:_ROWS]:
            table.add_row(
                str(row["rank"]), shown(self.candidates[row["candidate"]]), score_text(row["mean"], monitor),
                spread_text(row["std"], monitor), f"{row['members']}/{self.per_candidate}",
            )  # fmt: skip
        return table


def final_lines(
    rows: Sequence[Row], candidates: Sequence[Candidate], monitor: str, most: int = 10
) -> list[str]:
    """The best candidates as lines of a table."""
    lines = [f"{'rank':>4}  {monitor:>14}  {'spread':>9}  settings"]
    for row in rows[:most]:
        score, spread = score_text(row["mean"], monitor), spread_text(row["std"], monitor)
        note = f"  ({row['failed']} of {row['members']} failed)" if row["failed"] else ""
        lines.append(
            f"{row['rank']:>4}  {score:>14}  {spread:>9}  {shown(candidates[row['candidate']])}{note}"
        )
    if len(rows) > most:
        lines.append(f"      and {len(rows) - most} more in results.csv")
    return lines
