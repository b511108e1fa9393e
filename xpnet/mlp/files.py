"""Model files: how they are opened. `MLP.save` writes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from typing import Any

from .. import checkpoint
from ..activations import Activation
from ..backend import Backend
from ..errors import ConfigError, FileFormatError, MissingFileError
from ..losses import Loss
from . import architecture
from .model import MLP

#: The name of its model in the folder of a run.
MODEL = "model.safetensors"


def load(
    path: str | PathLike[str], *, device: str | Backend | Any = "cpu", own: Sequence[Activation | Loss] = (),
    kind: type[MLP] = MLP,
) -> MLP:  # fmt: skip
    """Open a model file written by `MLP.save`, or the model of a run, on any device.

    Parameters
    ----------
    path : path
        A model file, or the folder of a run of ``xpnet train``.
    device : str, Backend or Array-API namespace, default "cpu"
        See `xpnet.backend.get_backend`.
    own : sequence of Activation and Loss, optional
        Those of your own that the model was made and trained with; a file has no code, only their names.
    kind : type, default MLP
        The subclass of `MLP` that the model is of, where that is one of your own.

    Returns
    -------
    MLP

    Raises
    ------
    FileFormatError
        Damaged, of another format, not a model, or one with layers of your own, which `kind` has to make.
    MissingFileError
        There is no such file, or the folder has no model.

    Examples
    --------
    >>> import tempfile
    >>> model = MLP([2, 3, 1], seed=5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.safetensors")
    ...     model.save(path)
    ...     again = load(path)
    >>> bool((again.outputs([[1.0, 2.0]]) == model.outputs([[1.0, 2.0]])).all())
    True
    """
    if os.path.isdir(path):
        folder, path = os.fsdecode(path), os.path.join(os.fsdecode(path), MODEL)
        if not os.path.exists(path):
            raise MissingFileError(
                f"{folder} has no {MODEL}: it is no run folder, or no epoch has been finished in it"
            )
    tensors, metadata = checkpoint.load_tensors(path)
    if metadata.get("kind") != "model":
        raise FileFormatError(
            f"{path} is an xpnet {metadata.get('kind', 'file')!r}, not a model; "
            "a run folder keeps its model in model.safetensors"
        )
    owner = metadata.get("layers_of")
    if owner is not None and kind.make_layers is MLP.make_layers:
        raise FileFormatError(f"{path} has the layers that a class {owner} makes: load(path, kind={owner})")
    try:
        n_models = metadata["n_models"]
        seeds = metadata["seeds"]
        activations = {a.name: a for a in own if isinstance(a, Activation)}
        model = kind(
            **architecture.with_objects(metadata["architecture"], activations), n_models=n_models,
            seed=seeds if n_models else seeds[0], dtype=metadata["dtype"], device=device,
        )  # fmt: skip
        model.mean_by(metadata)
        for loss in own:
            if isinstance(loss, Loss) and loss.name == model.loss:
                model._known_loss = (loss.name, loss)
    except (KeyError, TypeError, IndexError, ConfigError) as error:
        raise FileFormatError(
            f"{path} does not describe a model that this version knows: {error}. An activation of your own has to be "
            "given: load(path, own=[...])"
        ) from error
    model.put_weights(tensors)
    return model
