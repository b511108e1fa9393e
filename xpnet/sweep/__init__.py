"""Sweeps: many settings tried in one run, on folds and seeds, all trained in populations.

`space` reads what varies, `settings` the whole sweep from flags and TOML, `members` makes configurations of
`fit_many` from it, `folder` keeps results on disk, `run` puts them together; `table` shows how far it is.
"""

from .run import sweep
from .settings import SweepConfig
from .space import Range, candidates

__all__ = ["Range", "SweepConfig", "candidates", "sweep"]
