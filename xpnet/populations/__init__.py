"""Many networks trained in one run: seeds, folds, learning rates, penalties, noise.

`fit_many` takes a list of configurations and trains those that share an architecture together, in batched
products over blocks of members; `members` says which settings mix, `results` what comes back.
"""

from .fit import fit_many
from .members import SETTINGS, Member, read_configurations
from .results import MemberResult, PopulationResult

__all__ = ["SETTINGS", "Member", "MemberResult", "PopulationResult", "fit_many", "read_configurations"]
