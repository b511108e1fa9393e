"""From settings to what they describe: back end, network, trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import memory
from ..backend import Backend, get_backend
from ..data import Dataset
from ..mlp import MLP
from ..train import Trainer
from . import automatic
from .config import TrainConfig


def choose_backend(config: TrainConfig) -> Backend:
    """Return the back end that the settings name."""
    return get_backend(
        config.device, precision=config.precision, capture=config.capture, autotune=config.autotune
    )


def build_model(config: TrainConfig, data: Dataset, be: Backend | None = None) -> MLP:
    """Return the untrained model that the settings describe, fit for `data`; on their back end, or on `be`."""
    be, config = be or choose_backend(config), automatic.resolve(config, data)
    network = network_settings(config, data)
    _check_memory(network["sizes"], config, data, be)
    model = MLP(**network, seed=config.seed, dtype=config.dtype, device=be)
    model.preprocessing = data.preprocessing
    model.classes = data.classes or None
    model.tabular = None if data.tabular is None else dict(data.tabular)
    return model


def network_settings(config: TrainConfig, data: Dataset) -> dict[str, Any]:
    """Return the arguments of `MLP`, but seed, dtype and device, of resolved settings for `data`."""
    if data.task != "classification":
        outputs = data.y_train.shape[1]
    else:
        outputs = data.n_classes
        one_output = config.loss in ("binary_cross_entropy", "bce")
        if outputs == 2 and one_output:
            outputs = 1
    activations = [a.strip() for a in config.activation.split(",")]
    return {
        "sizes": [data.n_features, *config.hidden, outputs],
        "activation": activations[0] if len(activations) == 1 else activations,
        "output_activation": config.output_activation,
        "dropout": config.dropout[0] if len(config.dropout) == 1 else config.dropout,
        "input_dropout": config.input_dropout, "input_noise": config.input_noise, "init": config.init,
        "bias": config.bias,
    }  # fmt: skip


def training_settings(config: TrainConfig, task: str) -> dict[str, Any]:
    """Return the arguments of `fit` that say what is computed, of resolved settings."""
    return {
        "loss": config.loss, "task": task, "optimizer": config.get_optimizer(), "schedule": config.get_schedule(),
        "l1": config.l1, "l2": config.l2, "max_norm": config.max_norm, "clip_norm": config.clip_norm,
        "clip_value": config.clip_value, "label_smoothing": config.label_smoothing,
        "class_weight": config.class_weight, "epochs": config.epochs, "batch_size": config.batch_size,
        "patience": config.patience, "min_delta": config.min_delta, "monitor": config.monitor,
    }  # fmt: skip


def _check_memory(sizes: list[int], config: TrainConfig, data: Dataset, be: Backend) -> None:
    """Refuse now what the system would kill later: it promises more memory than it has."""
    if min(sizes) <= 0:
        return  # the model says what is wrong with that
    host, divided = be.device == "cpu", data.x_valid is None and config.valid_fraction > 0.0
    evaluated = len(data.x_train) * config.valid_fraction if data.x_valid is None else len(data.x_valid)
    plan = memory.plan_training(
        sizes, batch=config.batch_size, moments=len(config.get_optimizer().state), dtype=config.dtype,
        evaluated=int(evaluated), data=memory.copied_bytes(data, config.dtype, host=host, divided=divided),
        host=host, precision=be.precision,
    )  # fmt: skip
    memory.check(plan, be, f"the network {'-'.join(map(str, sizes))} with batches of {config.batch_size}")


def build_trainer(
    config: TrainConfig, model: MLP, task: str, training: tuple[Any, ...], validation: tuple[Any, Any] | None
) -> Trainer:
    """Return the trainer that the settings describe, resolved for the data (`xpnet.runs.automatic`).

    `training` and `validation` are what `xpnet.runs.data.split` returns.
    """
    for layer in model.layers:
        if hasattr(layer, "activation"):
            _ = layer.activation.backward  # raises for one that cannot be trained, before anything is written
    x, y, *weight = training
    trainer = Trainer(
        model, (x, y), validation=validation, sample_weight=weight[0] if weight else None,
        statistics=config.statistics, threads=config.threads, **training_settings(config, task),
    )  # fmt: skip
    model.unsmoothing = (config.label_smoothing or None) if task == "classification" else None
    return trainer


@contextmanager
def limited_threads(n: int | None) -> Iterator[None]:
    """Limit the threads of the matrix library, where `n` is given."""
    if n is None:
        yield
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(n, user_api="blas"):
        yield
