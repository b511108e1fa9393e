"""An ensemble in a folder: one ordinary model file per member (see `files`), and `ensemble.json`, which joins them."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklearn.base import clone

from ..checkpoint import weights_sha256
from ..errors import ConfigError, FileFormatError
from ..mlp import load as load_model
from ..storage.atomic import write_json_atomic
from ..storage.strictjson import loads_json
from . import files

if TYPE_CHECKING:
    from .ensemble import _Ensemble

RECORD = "ensemble.json"
_FORMAT = 1


def save(ensemble: _Ensemble, folder: str | PathLike[str]) -> None:
    """Write `ensemble`; see `DeepEnsembleClassifier.save`."""
    settings = {k: v for k, v in ensemble.get_params(deep=False).items() if k != "estimator"}
    record: dict[str, Any] = {
        "format": _FORMAT, "kind": type(ensemble).__name__, "settings": files.plain_settings(settings),
        "estimator": None if ensemble.estimator is None else files.plain_settings(ensemble.estimator.get_params()),
        "seeds": ensemble.seeds_, "members": [],
    }  # fmt: skip
    facts = [files.facts(e) for e in ensemble.estimators_]  # raises before anything is written
    files.warn_of_tails(ensemble.estimators_)
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    for k, (estimator, known) in enumerate(zip(ensemble.estimators_, facts, strict=True)):
        # the record is written last and names the files, so files of an interrupted save are never mixed with old ones
        name = f"member-{k:02}-{weights_sha256(estimator.model_.get_weights())[:8]}.safetensors"
        files.described(estimator).save(path / name)
        record["members"].append({"file": name, **known})
    write_json_atomic(path / RECORD, record)
    kept = {m["file"] for m in record["members"]}
    for old in path.glob("member-[0-9][0-9]*-????????.safetensors"):
        if old.name not in kept:
            old.unlink()


def load(kind: type[Any], folder: str | PathLike[str]) -> Any:
    """Return the ensemble in `folder`; see `DeepEnsembleClassifier.load`."""
    path = Path(folder)
    try:
        record = loads_json((path / RECORD).read_text(encoding="utf-8"))
        if record["format"] != _FORMAT:
            raise FileFormatError(f"{path / RECORD} has format {record['format']!r}, expected {_FORMAT}")
        if record["kind"] != kind.__name__:
            raise FileFormatError(
                f"{path} holds a {record['kind']}, so it is opened with {record['kind']}.load"
            )
        member = kind._kind(**files.from_plain(record["estimator"] or {}))
        ensemble = kind(
            None if record["estimator"] is None else member, **files.from_plain(record["settings"])
        )
        ensemble.seeds_ = record["seeds"]
        ensemble.estimators_ = [
            files.restored(clone(member).set_params(random_state=seed), load_model(path / m["file"]), m)
            for seed, m in zip(record["seeds"], record["members"], strict=True)
        ]
        ensemble._describe()
    except OSError as error:
        raise FileFormatError(
            f"{path} holds no ensemble: cannot read {error.filename or RECORD}: {error.strerror}"
        ) from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise FileFormatError(f"{path / RECORD} is damaged: {error}") from error
    return ensemble
