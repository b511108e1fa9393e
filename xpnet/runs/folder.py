"""The folder of a run: which files it has, and how each is read and written.

Nothing is written outside the folder, and every file but the growing metrics.jsonl is replaced as a whole.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from .. import checkpoint
from ..backend import Backend
from ..errors import ConfigError, FileFormatError, XpnetError
from ..logs import EVENTS, LOG
from ..mlp import MLP, load
from ..mlp.files import MODEL
from ..storage import atomic
from ..storage.strictjson import dumps_json, loads_json
from ..storage.workfolder import WorkFolder
from ..train import Trainer
from .config import TrainConfig, changed, read_toml

CONFIG, ENVIRONMENT = "config.toml", "environment.json"
METRICS, RESULT, STATE = "metrics.jsonl", "result.json", "last/state.safetensors"
REPORT = "report.html"
#: What the state says about the scaling of samples; an older xpnet, which did not standardise them, says nothing.
SCALING = "the scaling of samples"
#: The same for targets of arrays, which an older xpnet learnt as they are.
TARGET_SCALING = "the scaling of targets"
FIGURES = ("curves", "confusion", "first_layer", "mistakes", "regression")


class RunFolder(WorkFolder):
    """The files of one run.

    Parameters
    ----------
    path : path
    """

    parent, plain, command = "runs", "run", "xpnet train"

    def __init__(self, path: str | Path):
        super().__init__(path)
        #: What must be the same when the run goes on; kept with the state.
        self.fixed: dict[str, Any] = {}
        #: Back end, device and precision of the state that was loaded; None where it does not say.
        self.saved_on: str | None = None

    def check_replaceable(self, overwrite: bool) -> None:
        # Only what a run writes, and only from a run: a wrong --out must not cost anybody their files.
        if not (self.path / "last").is_dir():
            kept = ", so it is not overwritten" if overwrite else ""
            raise ConfigError(
                f"{self.path} is not empty: it holds files but no run{kept}; choose another --out"
            )
        if not overwrite:
            raise ConfigError(
                f"{self.path} is not empty; use --resume {self.path} to continue it, "
                "--overwrite to replace it, or another --out"
            )

    def clear(self) -> None:
        figures = [f"plots/{name}.png" for name in FIGURES]
        for name in (RESULT, MODEL, STATE, METRICS, ENVIRONMENT, CONFIG, LOG, REPORT, *figures):
            (self.path / name).unlink(missing_ok=True)
        for events in (self.path / EVENTS).glob("events.out.tfevents.*"):
            events.unlink()
        self.remove_leftovers()

    def prepare(self) -> None:
        (self.path / "last").mkdir(exist_ok=True)

    def remove_leftovers(self) -> None:
        """Remove temporary files that a killed process left behind."""
        for name in (RESULT, MODEL, STATE, METRICS, ENVIRONMENT, CONFIG):
            for left in (self / name).parent.glob(f".{Path(name).name}.*.tmp"):
                left.unlink(missing_ok=True)

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        """Write all epochs so far, in one piece."""
        atomic.write_text_atomic(self / METRICS, "".join(_line(r) for r in history))

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one epoch."""
        try:
            with open(self / METRICS, "a", encoding="utf-8") as file:
                file.write(_line(record))
        except OSError as error:
            raise XpnetError(
                f"could not write {self / METRICS}: {error.strerror}; free some space, then continue with: "
                f"{self.continuation}"
            ) from error

    def metrics(self) -> list[dict[str, Any]]:
        """Read the epochs; a last line that a crash cut off is left out."""
        try:
            lines = (self / METRICS).read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise FileFormatError(f"{self.path} has no {METRICS}: is it a run folder?") from error
        except UnicodeDecodeError as error:
            raise FileFormatError(f"{self / METRICS} is damaged: it is not text") from error
        records = []
        for number, line in enumerate(lines, 1):
            try:
                records.append(loads_json(line))
            except ValueError as error:
                if number < len(lines):
                    raise FileFormatError(f"{self / METRICS}, line {number} is not JSON: {error}") from error
        return records

    def environments(self) -> list[dict[str, Any]]:
        """What environment.json says: about the process that began the run, then those that went on with it."""
        try:
            first = loads_json((self / ENVIRONMENT).read_text(encoding="utf-8"))
            return [first, *first.get("resumed", [])]
        except (OSError, ValueError, AttributeError):
            return [{}]

    def add_environment(self, found: dict[str, Any]) -> None:
        """Add the process that goes on with the run to environment.json."""
        first, *others = self.environments()
        atomic.write_json_atomic(self / ENVIRONMENT, first | {"resumed": [*others, found]})

    def result(self) -> dict[str, Any]:
        """What result.json holds; nothing where it cannot be read, as before the end of a run."""
        try:
            found = loads_json((self / RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def config(self) -> TrainConfig:
        """Read the settings."""
        if not (self / CONFIG).is_file():
            raise FileFormatError(f"{self.path} is not a run folder: it has no {CONFIG}{self._instead()}")
        return TrainConfig(**read_toml(self / CONFIG))

    def _instead(self) -> str:
        """What to open in place of a folder that holds a sweep."""
        if not (self / "sweep.toml").is_file():
            return ""
        if (self / "top-1").is_dir():
            return f". It holds a sweep, whose best run is {self / 'top-1'}"
        again = f"xpnet sweep --resume {shlex.quote(str(self.path))} --top 1"
        return f". It holds a sweep; train its best into {self / 'top-1'} with: {again}"

    def save_state(self, trainer: Trainer) -> None:
        """Replace the state that --resume continues from."""
        tensors, metadata = trainer.state()
        about = {"kind": "state", "fixed": self.fixed, "saved_on": place(trainer.model.be)}
        checkpoint.save_tensors(self / STATE, tensors, about | metadata)

    def load_state(self, trainer: Trainer) -> None:
        """Continue `trainer` from the saved state.

        Raises
        ------
        FileFormatError
            There is none, it is damaged, or it belongs to other settings or data.
        """
        if not (self / STATE).is_file():
            raise FileFormatError(
                f"{self.path} has no {STATE}: the run stopped before its first state was saved. "
                f"Start it again with: {self.next_step}"
            )
        tensors, metadata = checkpoint.load_tensors(self / STATE)
        if metadata.get("kind") != "state" or not isinstance(metadata.get("fixed"), dict):
            raise FileFormatError(f"{self / STATE} is not the state of a run")
        self._check_fixed(metadata["fixed"])
        try:
            trainer.load_state(tensors, metadata)
        except KeyError as error:
            raise FileFormatError(f"{self / STATE} is not the state of a run: it lacks {error}") from error
        self.saved_on = metadata.get("saved_on")

    def fixed_before(self) -> dict[str, Any] | None:
        """What the saved state says must be the same; None where there is no state that says so."""
        found = (self.last_state() or {}).get("fixed")
        return found if isinstance(found, dict) else None

    def last_state(self) -> dict[str, Any] | None:
        """What the saved state says beside its tensors; None where it cannot be read."""
        try:
            return checkpoint.load_tensors(self / STATE)[1]
        except (XpnetError, OSError):
            return None  # loading it says what is wrong

    def _check_fixed(self, before: dict[str, Any]) -> None:
        for key, then, now in changed(before, loads_json(dumps_json(self.fixed))):
            later = {"standardize": SCALING, "scale_target": TARGET_SCALING}.get(key)
            if later is not None and later not in before:
                continue  # it had no meaning for arrays yet, and those of tables are compared by themselves
            raise FileFormatError(
                f"cannot continue {self.path}: {key} is {now!r}, but the run was started with "
                f"{then!r}. Bring back the settings and data of the first run, or start a new one."
            )

    @property
    def next_step(self) -> str:
        """The command that continues this run, or starts it again where no state was saved."""
        if (self / STATE).is_file():
            return self.continuation
        config, out = (shlex.quote(str(path)) for path in (self / CONFIG, self.path))
        return f"xpnet train --config {config} --out {out} --overwrite"


def place(be: Backend) -> str:
    """Where and how numbers are computed: library, device, and precision where it is rounded."""
    return f"{be.name} on {be.device}{f', {be.precision}' if be.precision else ''}"


def _line(record: dict[str, Any]) -> str:
    return dumps_json(record) + "\n"


def open_model(path: str | Path, *, device: str = "cpu") -> tuple[MLP, RunFolder | None]:
    """Open a run folder or a model file; returns the model and the folder, if it is one."""
    path = Path(path)
    if path.is_dir():
        folder = RunFolder(path)
        folder.config()  # says clearly when it is some other folder
        if not (folder / MODEL).is_file():
            raise FileFormatError(f"{path} has no model yet; finish an epoch with: {folder.next_step}")
        return load(folder / MODEL, device=device), folder
    return load(path, device=device), None
