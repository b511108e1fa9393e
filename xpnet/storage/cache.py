"""Where downloads and compiled code are kept from one process to the next."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return the folder for `name` in ``$XPNET_CACHE``, or else in the user's cache; it may not exist yet."""
    import pooch

    return Path(os.environ.get("XPNET_CACHE") or pooch.os_cache("xpnet")) / name
