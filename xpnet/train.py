"""`fit` and `evaluate`: a model and its data.

What they are made of is in `xpnet.training`: `Trainer` with the loop over epochs, a step, the best weights and patience
(`judge`), losses that are not finite (`divergence`), the order of examples (`order`), saving and continuing (`resume`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .callbacks import Callback
from .errors import explained
from .interchange import arrive, astype, follow, is_foreign, namespace
from .losses import Loss
from .metrics import regression_scores
from .mlp import MLP, not_trained
from .optim import Optimizer
from .schedules import Schedule
from .training.classweight import ClassWeight
from .training.defaults import EVALUATION_BATCH
from .training.examples import RowSource, pair, prepare
from .training.history import History
from .training.passes import Pass
from .training.settings import (
    HINTS,
    PAIRED,
    means,
)
from .training.signals import Interrupted
from .training.trainer import Trainer

__all__ = ["History", "Interrupted", "Trainer", "evaluate", "fit"]


@explained("option of fit", positional=PAIRED.format("fit"), hints=HINTS)
def fit(
    model: MLP, data: tuple[Any, Any], *, validation: tuple[Any, ...] | None = None,
    loss: str | Loss | None = None, task: str | None = None, optimizer: str | Optimizer = "adam", lr: Any = None,
    schedule: str | Schedule | None = None, l1: Any = 0.0, l2: Any = 0.0, max_norm: float | None = None,
    clip_norm: float | None = None, clip_value: float | None = None, label_smoothing: float = 0.0,
    infogain: Any = None, sample_weight: Any = None, class_weight: ClassWeight = None,
    epochs: int = 10, batch_size: int = 128, shuffle: bool = True, seed: int | None = None,
    patience: int | None = None, min_delta: float = 0.0, min_delta_from: str = "improvement",
    monitor: str | None = None, mode: str | None = None, restore_best: bool = True, callbacks: Sequence[Callback] = (),
    statistics: bool = False, verbose: bool = False, threads: int | None = None, one_class: bool = False,
    freeze: Sequence[int | str] = (),
) -> History:  # fmt: skip
    """Train a model.

    Parameters
    ----------
    model : MLP
        Trained in place. Training a model again continues from its weights with a fresh optimizer.
    data : (X, y)
        X (N, ...) raw samples, as `model.preprocessing` takes them; y (N,) class indices, (N, C) soft labels,
        or (N, O) targets. uint8 samples stay uint8 in memory.
    validation : (X, y) or (X, y, sample_weight), optional
        Evaluated after each epoch; the weights of its best epoch are kept. Weights count in its loss.
    loss : str or Loss, optional
        A name of `xpnet.losses.NAMES`; by default softmax (one output: binary) cross-entropy for class
        labels, else squared error.
    task : {"classification", "multilabel", "regression"}, optional
        Inferred from y and the loss.
    optimizer : str or Optimizer, default "adam"
        A name, with options behind it or not (``"adamw:weight_decay=0.05"``), or an object.
    lr : float or one per member, optional
        Learning rate of an optimizer that is given by its name; one that is built already has its own.
    schedule : str or Schedule, optional
        Of the learning rate, constant by default; ``"step:every=5,factor=0.5"`` has options.
    l1, l2 : float or one per member, default 0
        Penalty l1 sum |w| + (l2 / 2) sum w^2 on weights.
    max_norm, clip_norm, clip_value : float, optional
        See `xpnet.training.update.Regularization`.
    label_smoothing : float, default 0
    infogain : (C, C) array, optional
        Rows become the targets of the classes.
    sample_weight : (N,) array, optional
    class_weight : dict, "balanced", sequence or callable, optional
        What an example counts by its class: a weight by index (others 1); N / (C count), counted with
        `sample_weight`; one number per class; or a function of the indices that returns one of these, or a weight
        per example.
    epochs : int, default 10
    batch_size : int, default 128
        1 is single-sample, N full-batch descent. The last batch of an epoch may be smaller.
    shuffle : bool, default True
    seed : int, optional
        Of the order of examples; by default the model's first seed.
    patience : int, optional
        Stop when the monitored value has not improved for so many epochs. A member of a population keeps the weights
        that it has then (or those of its best epoch, see `restore_best`), and training ends when all have stopped;
        until then the history goes on for all.
    min_delta : float, default 0
        The least change that counts as an improvement for `patience`.
    min_delta_from : {"improvement", "best"}, default "improvement"
        Where that change is measured from: the last epoch that counted as an improvement, so that slow progress adds
        up (as in Keras and PyTorch); or the best epoch so far, so that each has to gain as much (as in scikit-learn).
    monitor : str, optional
        "valid_accuracy" (classes) or "valid_loss" by default; without validation, those of training. Also what
        `on_evaluate` of a callback adds to the records; then `mode` says which values are good.
    mode : {"max", "min"}, optional
        Whether the monitored value should be large or small; by default large for accuracies, small for losses.
    restore_best : bool, default True
        Leave the weights of the best epoch in the model (needs `validation`); among equal accuracies
        that with the lowest loss is the best.
    callbacks : sequence of Callback
    statistics : bool, default False
        Add gradient norms and dead and saturated units per layer to each record.
    verbose : bool, default False
        Print a line per epoch.
    threads : int, optional
        Threads of the matrix library; by default one for networks too small to gain from more, else its own
        choice. The limit holds for the whole process while training runs.
    one_class : bool, default False
        Train though all labels are of one class, as the parts of a stream may be. By default that is an error.
    freeze : sequence of int or str, optional
        What keeps its weights, as for fine-tuning: layers by their number (0 is the first behind the inputs, -1 that of
        the outputs), or parameters by their name in `MLP.get_weights`.

    Returns
    -------
    History
        One record per epoch.

    Raises
    ------
    DataError
        Data that cannot be used.
    ConfigError
        An unknown name or an impossible setting.
    DivergedError
        Loss or weights are no longer finite; names layer, epoch and step.
    Interrupted
        Ctrl-C or SIGTERM arrived; the current step was finished first, and the model has its weights.
    DeviceError
        The device failed or went away; nothing that was on it can be read any more.
    OutOfMemoryError
        Says what is free, and what to reduce.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> model = MLP([2, 8, 2], activation="tanh", seed=1)
    >>> history = fit(model, (X, [0, 1, 1, 0]), lr=0.05, epochs=200, batch_size=4)
    >>> model.predict(X).tolist()
    [0, 1, 1, 0]
    """
    return Trainer(
        model, data, validation=validation, loss=loss, task=task, optimizer=optimizer, lr=lr, schedule=schedule,
        l1=l1, l2=l2, max_norm=max_norm, clip_norm=clip_norm, clip_value=clip_value,
        label_smoothing=label_smoothing, infogain=infogain, sample_weight=sample_weight, class_weight=class_weight,
        epochs=epochs, batch_size=batch_size, shuffle=shuffle, seed=seed, patience=patience, min_delta=min_delta,
        min_delta_from=min_delta_from, monitor=monitor, mode=mode, restore_best=restore_best, callbacks=callbacks,
        statistics=statistics, verbose=verbose, threads=threads, one_class=one_class, freeze=freeze,
    ).run()  # fmt: skip


@explained("option of evaluate", positional=PAIRED.format("evaluate"))
def evaluate(model: MLP, data: tuple[Any, Any], *, sample_weight: Any = None) -> dict[str, Any]:
    """Return {"loss", "accuracy"} of a trained model on (X, y), and the errors of a regression; lists for a population.

    Parameters
    ----------
    model : MLP
    data : (X, y)
        As `fit` takes them.
    sample_weight : (N,) array, optional
        Weights of the samples in the loss.

    Returns
    -------
    dict
        "loss", the mean over samples in nats or, for a regression, in the units that it was trained in, without
        penalties; "accuracy", a share from 0 to 1, None for a regression. That has "rmse" and "mae", in the units of
        y, and "r2", too (see `xpnet.metrics.regression_scores`).

    Raises
    ------
    ConfigError
        The model has not been trained.
    DataError
        Data that cannot be used.

    Examples
    --------
    >>> model = MLP([1, 2])
    >>> history = fit(model, ([[0.0], [1.0]], [0, 1]), epochs=200, batch_size=2, optimizer="sgd")
    >>> evaluate(model, ([[0.0], [1.0]], [0, 1]))["accuracy"]
    1.0
    """
    x, y = pair("data", data, model.be)
    sample_weight = arrive(sample_weight, model.be, "sample_weight")
    scores = mean_scores(model, x, y, sample_weight)
    if model.task == "regression" and not isinstance(x, RowSource):
        scores |= _errors(model, x, y, sample_weight)
    return scores


def mean_scores(model: MLP, x: Any, y: Any, sample_weight: Any = None) -> dict[str, Any]:
    """Return {"loss", "accuracy"} as `evaluate` does, and no more, for arrays that have arrived."""
    if model.task is None or model.loss is None:
        raise not_trained()
    loss = model.loss_function()
    model.check_names(x)
    examples = prepare(model, x, y, loss=loss, task=model.task, sample_weight=sample_weight, training=False)
    with np.errstate(over="ignore", invalid="ignore"):
        totals = Pass(model, loss, examples).run(np.arange(examples.n), EVALUATION_BATCH)
    result = means("test", totals, model.task, examples.n)
    return {"loss": result["test_loss"], "accuracy": result["test_accuracy"]}


def _errors(model: MLP, x: Any, y: Any, weight: Any) -> dict[str, Any]:
    """The errors of a regression in the units of y; lists over members for a population. Computed where x is."""
    predicted = astype(model.predict(x), "float64")
    y, weight = (v if v is None or is_foreign(v) else np.asarray(v) for v in (y, weight))
    truth = namespace(predicted).reshape(astype(follow(predicted, y), "float64"), tuple(predicted.shape[-2:]))
    weight = None if weight is None else astype(follow(predicted, weight), "float64")
    if model.n_models is None:
        return dict(regression_scores(truth, predicted, weight))
    each = [regression_scores(truth, predicted[m, ...], weight) for m in range(model.n_models)]
    return {name: [scores[name] for scores in each] for name in each[0]}
