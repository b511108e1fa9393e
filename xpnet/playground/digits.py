"""The reader of drawn digits: one network for all pages, trained when the first page asks for it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

import xpnet
from xpnet import data

from ..errors import ConfigError, DataError, XpnetError
from .centring import centred

MAX_SIDE = 256  # pixels of a drawing
_MAX_SAMPLE = 64  # pixels along a side of what a model takes


class DigitReader:
    """A network that reads drawings, and its training.

    Parameters
    ----------
    model : path-like, optional
        A run folder or model file; without one a network is trained at the first `start`, on MNIST where that
        is found, else on the embedded digits.
    data_dir : path-like, optional
        Folder that holds MNIST; else $XPNET_DATA, else the cache. Nothing is downloaded.
    data_set : {"mnist", "digits"}, optional
        Insist on one of them.

    Raises
    ------
    ConfigError, FileFormatError
        The model cannot be opened, or does not take pictures.
    DataError
        `data_dir` does not hold MNIST.

    Examples
    --------
    >>> DigitReader(data_set="digits").status()["state"]
    'untrained'
    """

    def __init__(
        self, model: str | Path | None = None, *, data_dir: str | Path | None = None, data_set: str | None = None
    ):  # fmt: skip
        self._lock = threading.Lock()
        self._model: xpnet.MLP | None = None
        self._status: dict[str, Any] = {
            "state": "untrained",
            "text": "",
            "epoch": 0,
            "epochs": 0,
            "accuracy": None,
        }
        self._data_dir, self._data_set = data_dir, data_set
        self._stopping = False
        if model is not None:
            self._model = _checked(xpnet.load(model), model)
            self._status |= {"state": "ready", "text": f"The model {model}."}
        elif data_dir is not None:
            data.load("mnist", data_dir=data_dir, download=False)  # says at once where it is not there

    def status(self) -> dict[str, Any]:
        """Return state ("untrained", "training", "ready", "failed"), a sentence, epochs and test accuracy."""
        with self._lock:
            sizes = None if self._model is None else list(self._model.sizes)
            return {**self._status, "sizes": sizes, "reads": self._model is not None}

    def start(self) -> dict[str, Any]:
        """Train the network, unless that was begun before."""
        with self._lock:
            begin = self._status["state"] in ("untrained", "failed")
            if begin:
                self._status |= {"state": "training", "text": "Loading digits."}
        if begin:
            threading.Thread(target=self._train, daemon=True, name="xpnet-digits").start()
        return self.status()

    def close(self) -> None:
        """End the training after the current step."""
        self._stopping = True

    def read(self, drawing: np.ndarray) -> dict[str, Any]:
        """Return what the network says about a drawing.

        Parameters
        ----------
        drawing : ndarray (H, W) uint8
            255 where there is ink.

        Returns
        -------
        dict
            ``classes`` and ``probabilities``; ``input``: the centred picture that the network was given;
            ``layers``: the output of each hidden unit.

        Raises
        ------
        DataError
            Nothing is drawn, or the network is not there yet.
        """
        model = self._model
        if model is None:
            raise DataError("the network is not trained yet; wait a moment")
        shape = _sample_shape(model)
        ink = centred(drawing / 255.0, shape)
        raw = _raw(model, ink)
        # model.outputs keeps buffers for the last batch sizes, which are not for two threads at once
        with self._lock:
            *hidden, _ = model.activations(raw)
            p = model.predict_proba(raw)[0]
        return {
            "classes": list(model.classes or map(str, range(len(p)))),
            "probabilities": [float(f"{v:.4g}") for v in p],
            "input": {"shape": list(shape), "ink": ink.round(3).ravel().tolist()},
            "layers": [{"values": [float(f"{v:.3g}") for v in h[0]]} for h in hidden],
        }

    # --- training -------------------------------------------------------------------------------
    def _train(self) -> None:
        try:
            self._fit(self._pictures())
        except XpnetError as error:
            self._note(state="failed", text=str(error))
        except Exception as error:  # a defect: say so on the page instead of standing still
            self._note(state="failed", text=f"training stopped: {type(error).__name__}: {error}")
            raise

    def _pictures(self) -> data.Dataset:
        if self._data_set != "digits":
            try:
                return data.load("mnist", data_dir=self._data_dir, download=False)
            except DataError:
                if self._data_set or self._data_dir is not None:
                    raise
        return data.load("digits")

    def _fit(self, pictures: data.Dataset) -> None:
        mnist = pictures.name == "mnist"
        hidden, epochs, batch = ((128, 64), 8, 128) if mnist else ((64, 32), 60, 32)
        drop, noise = (0.1, 0.0) if mnist else (0.2, 0.15)
        model = xpnet.MLP([pictures.n_features, *hidden, 10], dropout=drop, input_noise=noise)
        model.preprocessing, model.classes = pictures.preprocessing, pictures.classes
        source = "MNIST" if mnist else "the embedded digits (8 x 8 pixels)"
        self._note(epochs=epochs, text=f"Learning from {len(pictures.y_train):,} pictures of {source}.")
        assert pictures.x_test is not None and pictures.y_test is not None
        xpnet.fit(
            model, (pictures.x_train, pictures.y_train), validation=(pictures.x_test, pictures.y_test),
            optimizer=xpnet.Adam(lr=3e-3), schedule="one_cycle", epochs=epochs, batch_size=batch, threads=1,
            restore_best=False, callbacks=[_Report(self)],
        )  # fmt: skip
        if not self._stopping:
            more = "" if mnist else " MNIST, given with --data-dir or $XPNET_DATA, teaches more."
            self._note(
                state="ready", text=f"Learnt from {len(pictures.y_train):,} pictures of {source}.{more}"
            )

    def _note(self, **changes: Any) -> None:
        with self._lock:
            self._status |= changes


class _Report(xpnet.Callback):
    """Publish the network as it is after each epoch, so that it answers while it learns."""

    def __init__(self, reader: DigitReader):
        self._reader = reader

    def on_step_end(self, trainer: xpnet.Trainer) -> None:
        if self._reader._stopping:
            trainer.stop("the page was closed")

    def on_epoch_end(self, trainer: xpnet.Trainer, record: dict[str, Any]) -> None:
        self._reader._model = trainer.model.to("cpu")
        self._reader._note(epoch=record["epoch"], accuracy=record["valid_accuracy"])


def _sample_shape(model: xpnet.MLP) -> tuple[int, int]:
    assert model.preprocessing is not None
    sizes = [size for size in model.preprocessing.sample_shape if size != 1]
    return sizes[0], sizes[1]


def _checked(model: xpnet.MLP, path: Any) -> xpnet.MLP:
    """Refuse a model that does not turn one grey picture into probabilities."""
    recipe = model.preprocessing
    shape = () if recipe is None else tuple(size for size in recipe.sample_shape if size != 1)
    if len(shape) != 2 or max(shape) > _MAX_SAMPLE:
        raise ConfigError(
            f"{path} takes samples of shape {shape or (model.sizes[0],)}; the page draws grey pictures of at most "
            f"{_MAX_SAMPLE} x {_MAX_SAMPLE} pixels"
        )
    if model.n_models is not None:
        raise ConfigError(
            f"{path} is a population of {model.n_models}; save one of its members: model.member(m).save(...)"
        )
    if model.task != "classification":
        raise ConfigError(f"{path} was trained for {model.task}; the page shows the probabilities of classes")
    model.predict_proba(np.zeros((1, *shape)))  # a loss without probabilities is refused here
    return model


def _raw(model: xpnet.MLP, ink: np.ndarray) -> np.ndarray:
    """Return ink (H, W) as a raw sample (1, H, W) of the model: its recipe brings full ink to 1."""
    assert model.preprocessing is not None
    scale = model.preprocessing.scale
    full = 1.0 / scale if isinstance(scale, float) and scale > 0.0 else 255.0
    return (ink * full).reshape(1, -1)
