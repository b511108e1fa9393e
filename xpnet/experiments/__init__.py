"""The experiments of the tutorial, E1 to E20: each a short program that uses only xpnet's public names.

A module ``eNN_name.py`` is an experiment: its docstring's first line is the title, ``CLAIM`` says what it
must show, and ``run(lab)`` does it. `xpnet experiment list` shows them, `xpnet experiment run E5` runs one.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import unknown_name
from .lab import Lab

__all__ = ["Experiment", "Lab", "experiments", "run"]


@dataclass(frozen=True)
class Experiment:
    """One experiment: its name ("E5"), what it is, what it must show, and the function that does it."""

    name: str
    title: str
    claim: str
    run: Callable[[Lab], None]


def experiments() -> dict[str, Experiment]:
    """Return all experiments by name, in order."""
    return {e.name: e for e in _found()}


def _found() -> Iterator[Experiment]:
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        if match := re.fullmatch(r"e(\d\d)_\w+", module):
            code = importlib.import_module(f"{__name__}.{module}")
            title = (code.__doc__ or "").splitlines()[0].rstrip(".")
            yield Experiment(f"E{int(match[1])}", title, code.CLAIM, code.run)


def run(name: str, out: str | Path | None = None, **options: Any) -> dict[str, Any]:
    """Run one experiment and return what its ``result.json`` says.

    Parameters
    ----------
    name : str
        "E1" to "E20", in either case.
    out : path-like, optional
        Folder for the figures and ``result.json``, ``out/E5`` for E5; nothing is written where omitted.
    **options
        Of `Lab`: quick, device, data_dir, download, echo, language.

    Raises
    ------
    ConfigError
        No such experiment.
    """
    known = experiments()
    experiment = known.get(name.upper())
    if experiment is None:
        raise unknown_name("experiment", name, known)
    lab = Lab(experiment.name, out, **options)
    lab.say(f"{experiment.name}  {experiment.title}")
    lab.run(experiment.run)
    return lab.finish(experiment.title, experiment.claim)
