"""The folder of a sweep: its settings, the results so far, tables and a figure; each file is replaced as a whole."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FileFormatError
from ..runs.config import FILES, TrainConfig, changed
from ..storage import atomic
from ..storage.strictjson import dumps_json, loads_json
from ..storage.workfolder import WorkFolder
from . import results
from .results import Row
from .settings import SweepConfig, resolve
from .space import Candidate

SETTINGS, STATE, RESULTS, MEMBERS, FIGURE, SUMMARY = (
    "sweep.toml", "state.json", "results", "members", "scores.png", "result.json"
)  # fmt: skip
_FORMAT = 1
_EVERY = 1.0  # seconds between two states, so that many small members do not spend their time on writing

#: Settings that may change when a sweep goes on: where it computes, and where its files are, never what.
RESUMABLE = ("device", "precision", "capture", "autotune", "threads", "data_dir", *FILES)


class SweepFolder(WorkFolder):
    """The files of one sweep.

    Parameters
    ----------
    path : path

    Attributes
    ----------
    members : list of dict
        The results so far; see `xpnet.sweep.results.member_row`.
    monitor : str or None
        What their scores are.
    """

    parent, plain, command = "sweeps", "sweep", "xpnet sweep"

    def __init__(self, path: str | Path):
        super().__init__(path)
        self.members: list[Row] = []
        self.monitor: str | None = None
        self._fixed: dict[str, Any] = {}
        self._data: Any = None
        self._written = 0.0

    def check_replaceable(self, overwrite: bool) -> None:
        there = (self / SETTINGS).is_file()
        what = (
            f"; continue the sweep in it with --resume {self.path}, or"
            if there
            else ": it holds files but no sweep;"
        )
        raise ConfigError(f"{self.path} is not empty{what} choose another --out")

    def begin(self, sweep: SweepConfig, candidates: Sequence[Candidate], data: Any) -> None:
        """Write what a new sweep starts with."""
        atomic.write_text_atomic(self / SETTINGS, sweep.to_toml())
        self._fixed, self._data = fixed(sweep, candidates), data
        self.save(force=True)

    def settings(self) -> SweepConfig:
        """Read the settings of the sweep."""
        if not (self / SETTINGS).is_file():
            raise FileFormatError(f"{self.path} is not the folder of a sweep: it has no {SETTINGS}")
        return resolve(self / SETTINGS, {}, {})

    def open(self, sweep: SweepConfig, candidates: Sequence[Candidate], data: Any) -> None:
        """Take up the results of a sweep with the same settings on the same data.

        Raises
        ------
        FileFormatError
            No state, a damaged one, or one of other settings or data; the message names what differs.
        """
        path = self / STATE
        try:
            state = loads_json(path.read_text(encoding="utf-8"))
            if state["format"] != _FORMAT:
                raise FileFormatError(f"{path} has format {state['format']!r}, expected {_FORMAT}")
            before, members, self.monitor = state["settings"], state["members"], state["monitor"]
            then = state["data"]
            keys = [(m["candidate"], m["fold"], m["seed"]) for m in members]
        except OSError as error:
            raise FileFormatError(f"cannot continue {self.path}: no {STATE} ({error.strerror})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(f"{path} is damaged: {error}; start the sweep again") from error
        now = loads_json(dumps_json(fixed(sweep, candidates)))
        for name, started, found in changed(before, now):
            raise FileFormatError(
                f"cannot continue {self.path}: {name} is {found!r:.200}, but the sweep was started with "
                f"{started!r:.200}. Bring back the first settings, or start a new sweep"
            )
        if then != loads_json(dumps_json(data)):
            raise FileFormatError(
                f"cannot continue {self.path}: the data, or how they are scaled, are not what it was started "
                "with. Bring them back, or start a new sweep"
            )
        if len(set(keys)) != len(keys):
            raise FileFormatError(f"{path} is damaged: a member is there twice; start the sweep again")
        self.members, self._fixed, self._data = members, now, then
        atomic.write_text_atomic(self / SETTINGS, sweep.to_toml())  # where the files are now

    # --- while it runs ----------------------------------------------------------------------------
    def add(self, row: Row, monitor: str) -> None:
        """Take note of a member that is trained."""
        self.members.append(row)
        self.monitor = monitor
        self.save()

    def save(self, *, force: bool = False) -> None:
        """Write the state, but not more often than is of use."""
        now = time.monotonic()
        if not force and now - self._written < _EVERY:
            return
        state = {
            "format": _FORMAT, "settings": self._fixed, "data": self._data, "monitor": self.monitor,
            "members": self.members,
        }  # fmt: skip
        atomic.write_text_atomic(self / STATE, dumps_json(state) + "\n")
        self._written = now

    def write_tables(
        self, rows: Sequence[Row], varied: Sequence[str], candidates: Sequence[Candidate]
    ) -> None:
        """Write the candidates from best to worst, and all members, as CSV and where possible as Parquet."""
        columns = list(rows[0]) if rows else ["rank"]
        members = [m | {n: candidates[m["candidate"]].get(n) for n in varied} for m in self.members]
        own = [*results.MEMBER_COLUMNS[:3], *varied, *results.MEMBER_COLUMNS[3:]]
        for suffix in (".csv", *((".parquet",) if results.has_parquet() else ())):
            results.write((self / RESULTS).with_suffix(suffix), rows, columns)
            results.write((self / MEMBERS).with_suffix(suffix), members, own)


def fixed(sweep: SweepConfig, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """What must be the same when a sweep goes on."""
    base = {n: getattr(sweep.base, n) for n in vars(TrainConfig()) if n not in RESUMABLE}
    return base | {"folds": sweep.folds, "seeds": sweep.seeds, "the candidates": list(candidates)}
