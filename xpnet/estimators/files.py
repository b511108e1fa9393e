"""A fitted estimator in one file: an ordinary model file, with what the estimator knows beside it; no pickle.

As a model it holds all from raw features to labels or targets in their own units: `xpnet.load` and the command
`xpnet predict` open it. Only one thing is beyond a model: outliers that the scaler compresses, which it scales like all
other values. As an estimator it predicts the same bits as the one that was saved.
"""

from __future__ import annotations

import warnings
from os import PathLike
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError

from ..checkpoint import load_tensors
from ..data import Preprocessing
from ..data.scaling import LIMIT, FeatureScaler
from ..errors import ConfigError, DeviceError, FileFormatError, check_options
from ..mlp import MLP
from ..mlp import load as load_model

_FORMAT = 1
_PLAIN = (bool, int, float, str, type(None))
_SCALER = ("mean_", "scale_", "tails_")


def save(estimator: Any, path: str | PathLike[str]) -> None:
    """Write `estimator`; see `MLPClassifier.save`."""
    record = {
        "format": _FORMAT, "kind": type(estimator).__name__,
        "settings": plain_settings(estimator.get_params(deep=False)), **facts(estimator),
    }  # fmt: skip
    warn_of_tails([estimator])
    described(estimator).save(path, {"estimator": record})


def load(kind: type[Any], path: str | PathLike[str]) -> Any:
    """Return the estimator in the file; see `MLPClassifier.load`."""
    metadata = load_tensors(path)[1]
    record = (metadata.get("extra") or {}).get("estimator")
    if record is None:
        raise FileFormatError(f"{path} holds no estimator; xpnet.load opens the file of a model")
    try:
        if record["format"] != _FORMAT:
            raise FileFormatError(
                f"{path} has an estimator of format {record['format']!r}, expected {_FORMAT}"
            )
        if record["kind"] != kind.__name__:
            raise FileFormatError(
                f"{path} holds a {record['kind']}, so it is opened with {record['kind']}.load"
            )
        estimator = kind(**from_plain(record["settings"]))
        return restored(estimator, load_model(path), record)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path} has a damaged record of an estimator: {error}") from error


# --- the network as a model of its own --------------------------------------------------------------
def described(estimator: Any) -> MLP:
    """A copy of its network that takes raw features, and knows its classes or the units of its targets."""
    model = estimator.model_.to("cpu")
    scaler, shape = estimator.scaler_, (estimator.n_features_in_,)
    model.preprocessing = Preprocessing(shape, *(() if scaler is None else scaler.affine))
    names = getattr(estimator, "feature_names_in_", None)
    model.feature_names = None if names is None else tuple(map(str, names))
    if model.task == "classification":
        model.classes = tuple(str(label) for label in estimator.classes_)
    if model.task == "regression":
        model.target_units = estimator._units
    return model


def warn_of_tails(estimators: list[Any]) -> None:
    """Warn of columns whose outliers the estimators compress, which a model cannot."""
    tails = [e.scaler_.tails_ for e in estimators if e.scaler_ is not None]
    columns = np.flatnonzero(np.any(tails, axis=0)).tolist() if tails else []
    if columns:
        warnings.warn(
            f"columns {', '.join(map(str, columns[:10]))} had outliers, which the estimator compresses beyond "
            f"{LIMIT:g} scales. Opened with its own load it predicts the same; as a model (xpnet.load, xpnet predict) "
            "the file does not compress, and answers otherwise where such values occur",
            stacklevel=4,
        )


# --- what the estimator knows besides ---------------------------------------------------------------
def plain_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as JSON can hold them.

    Raises
    ------
    ConfigError
        One is an object.
    """
    for name, value in settings.items():
        if not _is_plain(value):
            raise ConfigError(
                f"{name}={value!r:.60} cannot be saved: files hold numbers, names and lists only. Keep the estimator "
                "with pickle or joblib, or give the setting by name"
            )
    return {k: _to_plain(v) for k, v in settings.items()}


def facts(estimator: Any) -> dict[str, Any]:
    """Return what fitting decided, without the network and the records of training: {"state"}."""
    if not hasattr(estimator, "model_"):
        raise NotFittedError(f"only a fitted {type(estimator).__name__} can be saved")
    if not _is_plain(getattr(estimator, "classes_", None)):
        raise ConfigError(
            f"classes such as {estimator.classes_[0]!r:.60} cannot be saved: files hold numbers, dates and text only. "
            "Keep the estimator with pickle or joblib, or fit it with y.astype(str)"
        )
    own = estimator.get_params(deep=False)
    left_out = {*own, "model_", "scaler_", "history_", "_moments"}
    state = {k: _to_plain(v) for k, v in vars(estimator).items() if k not in left_out and _is_plain(v)}
    scaler = estimator.scaler_
    state["scaler_"] = None if scaler is None else {k: _to_plain(getattr(scaler, k)) for k in _SCALER}
    return {"state": state}


def restored(estimator: Any, model: MLP, record: dict[str, Any]) -> Any:
    """Return `estimator`, which has its settings only, fitted by what `described` and `facts` kept."""
    state, last = record["state"], record.get("last")
    estimator.scaler_ = None
    if state["scaler_"] is not None:
        estimator.scaler_ = FeatureScaler()
        check_options("part of a scaler", state["scaler_"], _SCALER)
        for name in _SCALER:
            setattr(estimator.scaler_, name, from_plain(state["scaler_"][name]))
    for name, value in state.items():
        if name != "scaler_":
            setattr(estimator, name, from_plain(value))
    if (
        last is not None
    ):  # older files have the units of the targets in the last layer, which this is without them
        model.set_weights(model.get_weights() | {k: from_plain(v) for k, v in last.items()})
    # the estimator scales by itself
    model.preprocessing = model.classes = model.target_units = model.feature_names = None
    if estimator.device is not None:
        try:
            model = model.to(estimator.device)
        except DeviceError as error:
            warnings.warn(f"the estimator now computes on the CPU: {error}", stacklevel=4)
    estimator.model_, estimator._moments = model, None
    return estimator


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(k, (str, int)) and _is_plain(v) for k, v in value.items())
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufUM" or (value.dtype.kind == "O" and _is_plain(value.tolist()))
    return isinstance(value, (*_PLAIN, np.generic))


def _to_plain(value: Any) -> Any:
    """What JSON can hold; everything that it cannot tell apart has its kind beside it."""
    if isinstance(value, np.ndarray):
        return {
            "array": _to_plain((value.astype(np.int64) if value.dtype.kind == "M" else value).tolist()),
            "dtype": value.dtype.str,
            "object": value.dtype.kind == "O",
        }
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return {"tuple": [_to_plain(v) for v in value]}
    if isinstance(value, list):
        return [_to_plain(v) for v in value]
    if isinstance(value, dict):
        return {"dict": [[_to_plain(k), _to_plain(v)] for k, v in value.items()]}
    return value


def from_plain(value: Any) -> Any:
    """Return what became the JSON `value`."""
    if isinstance(value, list):
        return [from_plain(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        array = np.array(value["array"], dtype=value["dtype"])
        return array.astype(object) if value["object"] else array
    if "tuple" in value:
        return tuple(from_plain(v) for v in value["tuple"])
    if "dict" in value:
        return {from_plain(k): from_plain(v) for k, v in value["dict"]}
    return {k: from_plain(v) for k, v in value.items()}
