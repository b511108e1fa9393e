"""An ensemble in a folder: one ordinary model file per member, and `ensemble.json`, which joins them.

A model file holds all from raw features to labels or targets in their own units: `xpnet.load` and the command
`xpnet predict` open it. Only outliers that the scaler compresses are beyond it; where there were any, a member by
itself takes features as ``estimators_[k].scaler_.transform`` gives them.
"""

from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import NotFittedError

from ..atomic import write_json_atomic
from ..data import Preprocessing
from ..errors import ConfigError, FileFormatError, check_options
from ..losses import get_loss
from ..mlp import MLP
from ..mlp import load as load_model
from ..strictjson import loads_json
from .scaling import FeatureScaler

if TYPE_CHECKING:
    from .ensemble import _Ensemble

RECORD = "ensemble.json"
_FORMAT = 1
_PLAIN = (bool, int, float, str, type(None))
_SCALER = ("mean_", "scale_", "tails_")


def save(ensemble: _Ensemble, folder: str | PathLike[str]) -> None:
    """Write `ensemble`; see `DeepEnsembleClassifier.save`."""
    settings = {k: v for k, v in ensemble.get_params(deep=False).items() if k != "estimator"}
    record: dict[str, Any] = {
        "format": _FORMAT, "kind": type(ensemble).__name__, "settings": _plain_settings(settings),
        "estimator": None if ensemble.estimator is None else _plain_settings(ensemble.estimator.get_params()),
        "seeds": ensemble.seeds_, "members": [],
    }  # fmt: skip
    states = [_state(e) for e in ensemble.estimators_]  # raises before anything is written
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    for k, (estimator, state) in enumerate(zip(ensemble.estimators_, states, strict=True)):
        # the record is written last and names the files, so files of an interrupted save are never mixed with old ones
        name = f"member-{k:02}-{_mark(estimator.model_)}.safetensors"
        _described(estimator).save(path / name)
        record["members"].append({"file": name, "state": state, "last": _last_layer(estimator)})
    write_json_atomic(path / RECORD, record)
    kept = {m["file"] for m in record["members"]}
    for old in path.glob("member-??-????????.safetensors"):
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
        member = kind._kind(**_from_plain(record["estimator"] or {}))
        ensemble = kind(None if record["estimator"] is None else member, **_from_plain(record["settings"]))
        ensemble.seeds_ = record["seeds"]
        ensemble.estimators_ = [
            _restored(member, seed, load_model(path / m["file"]), m["state"], m["last"])
            for seed, m in zip(record["seeds"], record["members"], strict=True)
        ]
        first = ensemble.estimators_[0]
    except OSError as error:
        raise FileFormatError(
            f"{path} holds no ensemble: cannot read {error.filename or RECORD}: {error.strerror}"
        ) from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise FileFormatError(f"{path / RECORD} is damaged: {error}") from error
    for name in ("n_features_in_", "feature_names_in_", "classes_"):
        if hasattr(first, name):
            setattr(ensemble, name, getattr(first, name))
    return ensemble


def _mark(model: MLP) -> str:
    """A few letters that tell the weights of one save from those of another."""
    digest = hashlib.sha256()
    for name, values in sorted(model.get_weights().items()):
        digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()[:8]


def _described(estimator: Any) -> MLP:
    """A copy of its network that takes raw features, and knows its classes or the units of its targets."""
    model = estimator.model_.to("cpu")
    scaler, shape = estimator.scaler_, (estimator.n_features_in_,)
    if scaler is None:
        model.preprocessing = Preprocessing(shape)
    elif not scaler.tails_.any():
        model.preprocessing = Preprocessing(shape, 1.0 / scaler.scale_, -scaler.mean_ / scaler.scale_)
    if model.task == "classification":
        model.classes = [str(label) for label in estimator.classes_]
    if model.task == "regression":
        weight, bias = _last_names(model)
        weights, (mean, scale) = model.get_weights(), (estimator.target_mean_, estimator.target_scale_)
        if get_loss(model.loss).link == "exp":
            weights[bias] = (weights[bias] + np.log(scale)).astype(model.dtype)
        else:
            weights[weight] = (weights[weight] * scale[:, None]).astype(model.dtype)
            weights[bias] = (weights[bias] * scale + mean).astype(model.dtype)
        model.set_weights(weights)
    return model


def _last_names(model: MLP) -> tuple[str, str]:
    """Names of the weights and biases of the last layer."""
    last = max(int(name.split(".")[1]) for name in model.get_weights())
    return f"layers.{last}.weight", f"layers.{last}.bias"


def _last_layer(estimator: Any) -> dict[str, Any] | None:
    """The last layer of a regression as it was trained, before units of targets became part of it."""
    if estimator.model_.task != "regression":
        return None
    weights = estimator.model_.get_weights()
    return {name: _to_plain(weights[name]) for name in _last_names(estimator.model_)}


def _plain_settings(settings: dict[str, Any]) -> dict[str, Any]:
    for name, value in settings.items():
        if not _is_plain(value):
            raise ConfigError(
                f"{name}={value!r:.60} cannot be saved: files hold numbers, names and lists only. Keep the ensemble "
                "with pickle or joblib, or give the setting by name"
            )
    return {k: _to_plain(v) for k, v in settings.items()}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(k, (str, int)) and _is_plain(v) for k, v in value.items())
    array = isinstance(value, np.ndarray) and value.dtype.kind in "biufUO"
    return array or isinstance(value, (*_PLAIN, np.generic))


def _to_plain(value: Any) -> Any:
    """What JSON can hold; everything that it cannot tell apart has its kind beside it."""
    if isinstance(value, np.ndarray):
        kind = "U" if value.dtype.kind == "O" else value.dtype.str
        return {"array": value.tolist(), "dtype": kind, "object": value.dtype.kind == "O"}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return {"tuple": [_to_plain(v) for v in value]}
    if isinstance(value, list):
        return [_to_plain(v) for v in value]
    if isinstance(value, dict):
        return {"dict": [[_to_plain(k), _to_plain(v)] for k, v in value.items()]}
    return value


def _from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_plain(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        array = np.array(value["array"], dtype=value["dtype"])
        return array.astype(object) if value["object"] else array
    if "tuple" in value:
        return tuple(_from_plain(v) for v in value["tuple"])
    if "dict" in value:
        return {_from_plain(k): _from_plain(v) for k, v in value["dict"]}
    return {k: _from_plain(v) for k, v in value.items()}


def _state(estimator: Any) -> dict[str, Any]:
    """What fitting decided, without the network and the records of training."""
    if not hasattr(estimator, "model_"):
        raise NotFittedError("only a fitted ensemble can be saved")
    own = estimator.get_params(deep=False)
    left_out = {*own, "model_", "scaler_", "history_", "_moments"}
    state = {k: v for k, v in vars(estimator).items() if k not in left_out and _is_plain(v)}
    scaler = estimator.scaler_
    plain: dict[str, Any] = {k: _to_plain(v) for k, v in state.items()}
    plain["scaler_"] = None if scaler is None else {k: _to_plain(getattr(scaler, k)) for k in _SCALER}
    return plain


def _restored(member: Any, seed: int, model: MLP, state: dict[str, Any], last: dict[str, Any] | None) -> Any:
    estimator = type(member)(**member.get_params()).set_params(random_state=seed)
    values = {k: _from_plain(v) for k, v in state.items() if k != "scaler_"}
    estimator.scaler_ = None
    if state["scaler_"] is not None:
        estimator.scaler_ = FeatureScaler()
        check_options("part of a scaler", state["scaler_"], _SCALER)
        for name in _SCALER:
            setattr(estimator.scaler_, name, _from_plain(state["scaler_"][name]))
    for name, value in values.items():
        setattr(estimator, name, value)
    if last is not None:
        model.set_weights(model.get_weights() | {k: _from_plain(v) for k, v in last.items()})
    # the estimator scales by itself
    model.preprocessing = model.classes = None
    estimator.model_, estimator._moments = model, None
    return estimator
