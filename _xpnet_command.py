"""The start of the command `xpnet`: Ctrl-C ends it quietly also while it is loading.

Outside the package, because importing anything of the package begins with loading all that it needs.
"""

from __future__ import annotations

import os
import signal
from typing import Any

_INTERRUPTED = 130


def main() -> None:
    """Load the command and run it."""
    before = signal.signal(signal.SIGINT, _leave)
    from xpnet.cli import main as command

    signal.signal(signal.SIGINT, before)
    command(prog_name="xpnet")


def _leave(signum: int, frame: Any) -> None:
    os._exit(_INTERRUPTED)  # nothing has been begun that had to be ended
