"""What a document of results holds: rows, and sides compared with each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .grid import PEERS
from .statistics import Ratio, ratio

BASE = "xpnet"


def ratios(result: dict[str, Any], over: str, under: str) -> Ratio | None:
    """The ratio of two sides of a result, or None where one is absent.

    ``"peers"``, which can only be `over`, is the fastest peer: by the median for the ratio of medians, and by the
    shortest time, which may be another one's, for the ratio of minima.
    """
    sides = result["sides"]
    if "peers" in (over, under):
        peers = [name for name in sides if name in PEERS]
        each = [ratios(result, *(p if n == "peers" else n for n in (over, under))) for p in peers]
        found = [r for r in each if r is not None]
        if not found:
            return None
        fastest = min(found, key=lambda r: r.medians)
        return replace(fastest, minima=min(r.minima for r in found))
    if over not in sides or under not in sides:
        return None
    return ratio(sides[over]["samples"], sides[under]["samples"])


def select(document: dict[str, Any], words: list[str] | None, setting: str | None) -> list[dict[str, Any]]:
    """Results of a thread setting whose row or group has one of the words."""
    return [
        r for r in document["results"]
        if setting in (None, r["threads"])
        and (not words or any(w in r["row"] or w == r.get("group") for w in words))
    ]  # fmt: skip


def short(row: str) -> str:
    """The name of a row; of a net with many layers, its ends."""
    net, _, rest = row.partition(" ")
    sizes = net.split("-")
    return row if len(sizes) < 6 else f"{sizes[0]}-{sizes[1]}-...-{sizes[-1]} {rest}"
