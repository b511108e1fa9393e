"""What models and histories show in a notebook: plain HTML tables that follow the notebook's own style."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

_CELL = "text-align: right; padding: 0 .8em"
_SHOWN = 20  # epochs of a history; the middle of a longer one is left out


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return an HTML table; everything in it is escaped.

    Examples
    --------
    >>> "&lt;b&gt;" in table("a < b", ["x"], [["<b>"]])
    True
    """
    cells = "".join(f'<th style="{_CELL}">{escape(str(name))}</th>' for name in head)
    lines = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escape(_shown(cell))}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f'<table><caption style="text-align: left; caption-side: top">{escape(caption)}</caption>'
        f"<thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"
    )


def history_table(records: Sequence[dict[str, Any]], caption: str) -> str:
    """Return the epochs of a history as a table, without what is None throughout."""
    names = list(dict.fromkeys(name for record in records for name in record))
    known = [n for n in names if any(r.get(n) is not None and not _nested(r.get(n)) for r in records)]
    part = list(records)
    rows = [[r.get(n) for n in known] for r in part]
    if len(rows) > _SHOWN:
        rows = [*rows[: _SHOWN // 2], ["..."] * len(known), *rows[-_SHOWN // 2 :]]
    return table(caption, known, rows)


def _nested(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):  # one number per member
        return ", ".join(map(_shown, value[:4])) + (", ..." if len(value) > 4 else "")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
