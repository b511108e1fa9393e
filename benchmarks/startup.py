"""Commands whose whole process is timed: starting Python, importing each library, asking for help."""

from __future__ import annotations

import os
import subprocess
import sys

COMMANDS: dict[str, tuple[str, ...]] = {
    "python": ("-c", "pass"),
    "import numpy": ("-c", "import numpy"),
    "import xpnet": ("-c", "import xpnet"),
    "xpnet --help": ("-c", "from xpnet.cli import main; main()", "--help"),
    "import sklearn": ("-c", "import sklearn.neural_network"),
    "import torch": ("-c", "import torch"),
    "import jax": ("-c", "import jax.numpy"),
    "import keras": ("-c", "import keras"),
}
#: Command -> seconds that it may take beyond ``import numpy``.
LIMITS = {"import xpnet": 0.15, "xpnet --help": 0.4}
#: Command -> the module that it needs.
NEEDS = {"import torch": "torch", "import jax": "jax", "import keras": "keras"}


def start(command: str) -> None:
    """Run one of `COMMANDS` in a process of its own, its output thrown away."""
    subprocess.run(
        [sys.executable, *COMMANDS[command]], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"KERAS_BACKEND": os.environ.get("KERAS_BACKEND", "jax")},
    )  # fmt: skip
