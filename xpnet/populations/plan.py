"""How many members train together: as many as the caches hold well and the memory allows."""

from __future__ import annotations

from typing import Any

from .group import Data, Group


def plan(
    groups: list[Group], data: Data, device: Any, *, memory: int | None, block: int | None, workers: int | None,
    keep_models: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    return [
        {
            "members": len(g.members),
            "parameters": 0,
            "block": block or 16,
            "workers": workers or 1,
            "bytes": 0,
        }
        for g in groups
    ]
