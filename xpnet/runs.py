"""A training run from its settings to its result, kept in a folder, and continued from there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__, atomic, automatic, checkpoint, memory
from .backend import Backend, get_backend
from .callbacks import Callback, EpochTable
from .config import FILES, TrainConfig
from .data import Dataset, Preprocessing
from .data.table_sources import is_table
from .environment import blas, environment
from .errors import ConfigError, DeviceError, DivergedError, FileFormatError, OutOfMemoryError, XpnetError
from .failures import device_errors
from .history import History
from .logs import make_log
from .mlp import MLP, load
from .resume import fingerprint
from .run_data import check_files_are_there, load_run_data, split, with_absolute_paths
from .run_folder import CONFIG, ENVIRONMENT, FIGURES, METRICS, MODEL, RESULT, SCALING, STATE, RunFolder, place
from .schedules import ReduceOnPlateau
from .scores import score
from .tabular import TabularPreprocessing, columns_text
from .targets import in_target_units
from .train import Interrupted, Trainer

#: What may change when a run goes on: how long, where, and how products are rounded, never what is computed.
RESUMABLE = (
    "epochs",
    "device",
    "precision",
    "capture",
    "autotune",
    "threads",
    "save_every",
    "data_dir",
    "log",
    # Files may have moved; that they hold the same is checked by their contents.
    *FILES,
)


_EPOCHS_TO_JUDGE = 5  # of fewer, nothing can be said about how the loss would go on


class _Writer(Callback):
    """Keeps the run folder up to date: metrics and state after each epoch, the model whenever it is best."""

    def __init__(self, folder: RunFolder, every: int):
        self._folder, self._every = folder, every
        self.each_step = bool(every)

    def on_step_end(self, trainer: Trainer) -> None:
        due = self._every and trainer.step.n_updates % self._every == 0
        if due and trainer.batch < trainer.steps_per_epoch:
            self._folder.save_state(trainer)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        if trainer.best_epoch == record["epoch"]:
            in_target_units(trainer.model).save(self._folder / MODEL)
        # The state goes last: what it counts as done is already in the other files.
        self._folder.append_metrics(record)
        self._folder.save_state(trainer)


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
    if data.task == "regression":
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
    config: TrainConfig, model: MLP, task: str, training: tuple[Any, Any], validation: tuple[Any, Any] | None
) -> Trainer:
    """Return the trainer that the settings describe, resolved for the data (`xpnet.automatic`)."""
    for layer in model.layers:
        if hasattr(layer, "activation"):
            _ = layer.activation.backward  # raises for one that cannot be trained, before anything is written
    trainer = Trainer(
        model, training, validation=validation, statistics=config.statistics, threads=config.threads,
        **training_settings(config, task),
    )  # fmt: skip
    model.unsmoothing = config.label_smoothing or None
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


def train(
    config: TrainConfig, out: str | Path | None, *, overwrite: bool = False, quiet: bool = False,
    resume: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Run a training from settings to result.json, or continue one.

    Parameters
    ----------
    config : TrainConfig
    out : path, optional
        The run folder; ``runs/<data>-<number>`` where omitted.
    overwrite : bool
        Replace what an earlier run left there.
    quiet : bool
        Print nothing.
    resume : bool
        Continue the run in `out`.

    Returns
    -------
    dict
        What result.json holds, and "run": the folder.
    """
    be = choose_backend(config)  # an unusable device is an error before anything is read or written
    with limited_threads(config.threads), device_errors(be):  # the first weights may need linear algebra too
        say = _say_nothing if quiet else note
        if (why := be.slow_start()) is not None:
            say(why)
        if resume and out is not None:
            config = _as_started(config, RunFolder(out))
            check_files_are_there(config, Path(out))
        data = load_run_data(config, progress=not quiet and sys.stderr.isatty(), say=say)
        config = automatic.resolve(config, data)
        model = build_model(config, data, be)
        training, validation = split(data, config)
        trainer = build_trainer(config, model, data.task, training, validation)
    config = _resolved(config, trainer, data)
    folder = RunFolder(out) if out is not None else RunFolder.numbered(data.name)
    folder.fixed = _fixed(config, validation) | {SCALING: _scaling(data)}
    trainer.callbacks += [make_log(name, folder.path) for name in dict.fromkeys(config.log)]
    trainer.callbacks.append(_Writer(folder, config.save_every))
    if not quiet:
        trainer.callbacks.append(EpochTable())
    try:
        # tuned also around the record of the environment, which counts threads
        with folder.taken(resume=resume, overwrite=overwrite), trainer.tuned(), device_errors(be):
            if resume:
                _continue(folder, trainer, quiet)
            else:
                atomic.write_json_atomic(folder / ENVIRONMENT, environment(be.threads))
                folder.write_metrics([])
            atomic.write_text_atomic(folder / CONFIG, config.to_toml())
            if not quiet:
                if data.tabular is not None:
                    print(columns_text(TabularPreprocessing.from_metadata(data.tabular)))
                print(_headline(config, model, data, trainer, folder), flush=True)
            result = _run(folder, trainer, data, config)
        if still_falling(trainer.history):
            say("the training loss was still falling at the last epoch: more --epochs may help")
        return result
    except (DeviceError, OutOfMemoryError) as error:  # what was on the device is gone, what was saved is not
        raise type(error)(f"{error} {_safe(folder)}") from error
    except (KeyboardInterrupt, BrokenPipeError) as error:
        print(f"xpnet: {_farewell(folder, error)}", file=sys.stderr)
        raise


def note(text: str) -> None:
    """Say on standard error what is worth knowing."""
    print(f"note: {text}", file=sys.stderr)


def still_falling(history: History) -> bool:
    """Whether the training loss, and the validation loss if there is one, fell clearly to the last epoch.

    Clearly is a fifth of what it fell an epoch in the mean. A curve that bends as an exponential does has then a
    twentieth of its way still to go, or more. Each of the last three tenths of the epochs must have brought so much,
    so that chance does not decide.
    """
    n, k = len(history), max(1, len(history) // 10)
    if n < _EPOCHS_TO_JUDGE or history.stopped != "epochs":
        return False
    train = history.column("train_loss")
    falls = -np.diff(np.reshape(train[-4 * k :], (4, k)).mean(axis=1)) / k
    if history[-1]["valid_loss"] is not None:
        valid = history.column("valid_loss")
        if np.mean(valid[-k:]) >= np.mean(
            valid[-2 * k : -k]
        ):  # more epochs would only learn the rows by heart
            return False
    return bool(falls.min() > 0.2 * (train[0] - train[-1]) / (n - 1) > 0.0)


def _say_nothing(text: str) -> None:
    pass


def _resolved(config: TrainConfig, trainer: Trainer, data: Dataset) -> TrainConfig:
    """Write out what the settings left to defaults that depend on data, on each other and on the working directory."""
    config = with_absolute_paths(config)
    lr: Any = trainer.optimizer.lr
    if data.tabular is not None:
        config = replace(config, target=data.tabular["target"]["name"])
    return replace(config, task=trainer.task, loss=trainer.loss.name, lr=lr, monitor=trainer.monitor)


def _fixed(config: TrainConfig, validation: tuple[Any, Any] | None) -> dict[str, Any]:
    free = (*RESUMABLE, "target")  # a column or a key: the data that it leads to are compared
    fixed = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in free}
    return fixed | {"the validation data": validation and fingerprint(*validation)}


def _scaling(data: Dataset) -> dict[str, Any] | None:
    """What tells how samples are scaled; None for pixels, and for tables, whose features are scaled already."""
    plain = data.tabular is not None or (np.ndim(data.shift) == 0 and not data.shift)
    return None if plain else fingerprint(np.asarray(data.scale), np.asarray(data.shift))


def _as_started(config: TrainConfig, folder: RunFolder) -> TrainConfig:
    """Return the settings as a run was started: an older xpnet took the numbers of NPZ and NPY files as they are."""
    before = folder.fixed_before()
    old = before is not None and SCALING not in before
    return replace(config, standardize=False) if old and not is_table(config.data) else config


def _run(folder: RunFolder, trainer: Trainer, data: Dataset, config: TrainConfig) -> dict[str, Any]:
    try:
        trainer.run()
    except Interrupted as error:
        if error.finished:
            folder.save_state(trainer)
        raise
    except DivergedError:
        in_target_units(trainer.model).save(folder / MODEL)  # the last good weights
        raise
    last = checkpoint.weights_sha256(_last_weights(folder))
    model = in_target_units(trainer.model)
    result = _result(trainer, model, data, config, last)
    model.save(folder / MODEL, extra={"result": result})
    atomic.write_json_atomic(folder / RESULT, result)
    return {**result, "run": str(folder.path)}


def _safe(folder: RunFolder) -> str:
    """What is left after a failure that ended a run, and how to go on."""
    try:
        reached = checkpoint.load_tensors(folder / STATE)[1]["n_updates"]
    except (XpnetError, OSError, KeyError):
        return f"Nothing had been saved yet; start again, with --overwrite for {folder.path}."
    return (
        f"The last checkpoint, after {reached} updates, is safe; continue with: {folder.continuation}, "
        "there or with another --device."
    )


def _farewell(folder: RunFolder, error: BaseException) -> str:
    """What is said when a run stops before its end: why, what is saved, and how to go on."""
    why = "standard output was closed" if isinstance(error, BrokenPipeError) else str(error) or "interrupted"
    if not (folder / STATE).is_file():
        return f"{why} before the first state was saved; start again, with --overwrite for {folder.path}"
    finished = isinstance(error, Interrupted) and error.finished
    saved = "saved" if finished else "what was saved last is kept"
    return f"{why}; {saved}. Continue with: {folder.continuation}"


def _last_weights(folder: RunFolder) -> dict[str, np.ndarray]:
    tensors, _ = checkpoint.load_tensors(folder / STATE)
    return {k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")}


def _continue(folder: RunFolder, trainer: Trainer, quiet: bool) -> None:
    folder.load_state(trainer)
    begun = trainer.epoch + bool(trainer.batch)
    if trainer.epochs < begun:
        raise ConfigError(
            f"{folder.path} is in epoch {begun} already, so --epochs must be at least that, "
            f"found {trainer.epochs}"
        )
    folder.remove_leftovers()
    # Epochs that were written after the state belong to the run that was cut off; they come again.
    folder.write_metrics(_as_written(folder, list(trainer.history)))
    if quiet:
        return
    if trainer.epoch == trainer.epochs:
        print(
            f"note: all {trainer.epochs} epochs are done; to train on, name a larger number with --epochs",
            file=sys.stderr,
        )
    before = folder.config().epochs
    if before != trainer.epochs and _follows_the_length(trainer, before):
        print(
            f"note: the learning rate of {trainer.schedule.name!r} was planned for {before} epochs and follows the new "
            f"length from here on; a run of {trainer.epochs} epochs from the start would end elsewhere",
            file=sys.stderr,
        )
    now = place(trainer.model.be)
    if folder.saved_on not in (None, now):
        print(
            f"note: the run was on {folder.saved_on} and goes on on {now}; "
            "the result will agree to rounding, not bit for bit",
            file=sys.stderr,
        )
    elif folder.blas() != blas():
        print(
            "note: the matrix library, its kernel or its number of threads differ from the first run's; "
            "the result will agree to rounding, not bit for bit",
            file=sys.stderr,
        )


def _follows_the_length(trainer: Trainer, epochs: int) -> bool:
    """Whether the schedule would have another rate now if the run had so many epochs."""
    if isinstance(trainer.schedule, ReduceOnPlateau):
        return False
    done, each = trainer.step.n_updates, trainer.steps_per_epoch
    now, then = (trainer.schedule(done, n * each, each) for n in (trainer.epochs, epochs))
    return now != then


def _as_written(folder: RunFolder, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same epochs from metrics.jsonl where it has them, with their keys in the first order."""
    try:
        written = folder.metrics()[: len(history)]
    except FileFormatError:
        return history
    return written if written == history else history


def _result(
    trainer: Trainer, model: MLP, data: Dataset, config: TrainConfig, last_sha256: str
) -> dict[str, Any]:
    history = trainer.history
    best = history[(trainer.best_epoch or len(history)) - 1]
    result: dict[str, Any] = {"test_loss": None, "test_accuracy": None}
    if data.x_test is not None:
        result = {f"test_{name}": value for name, value in score(model, data.x_test, data.y_test).items()}
    return result | {
        "valid_loss": best["valid_loss"], "valid_accuracy": best["valid_accuracy"],
        "best_epoch": history.best_epoch, "epochs": len(history), "stopped": history.stopped,
        "steps": trainer.step.n_updates, "seconds": sum(r["seconds"] for r in history),
        "parameters": model.n_parameters, "device": model.be.device, "backend": model.be.name,
        "dtype": model.dtype, "precision": config.precision or config.dtype, "capture": model.be.captures,
        "seed": config.seed,
        "weights_sha256": checkpoint.weights_sha256(model.get_weights()), "last_weights_sha256": last_sha256,
    } | _chosen(model.be)  # fmt: skip


def _chosen(be: Backend) -> dict[str, Any]:
    """What the device chose among ways to compute the same, where it has such ways."""
    return {} if be.algorithms is None else {"autotune": be.autotune, "algorithms": list(be.algorithms)}


def _headline(config: TrainConfig, model: MLP, data: Dataset, trainer: Trainer, folder: RunFolder) -> str:
    net = "-".join(map(str, model.sizes))
    arithmetic = f"{model.dtype}, products in {model.be.precision}" if model.be.precision else model.dtype
    arithmetic += "" if model.be.captures else ", not captured"
    chosen = f" (chosen by --device auto: {model.be.device})" if config.device == "auto" else ""
    return (
        f"xpnet {__version__}: {data.name}, {trainer.step.examples.n} training, {trainer.n_validation} validation, "
        f"{0 if data.x_test is None else len(data.x_test)} test examples\n"
        f"{net} {config.activation}, {model.n_parameters:,} parameters, {arithmetic}, {model.be.name} on "
        f"{model.be.device}{chosen}, seed {config.seed} -> {folder.path}"
    )


def open_model(path: str | Path, *, device: str = "cpu") -> tuple[MLP, RunFolder | None]:
    """Open a run folder or a model file; returns the model and the folder, if it is one."""
    path = Path(path)
    if path.is_dir():
        folder = RunFolder(path)
        folder.config()  # says clearly when it is some other folder
        if not (folder / MODEL).is_file():
            raise FileFormatError(f"{path} has no model yet; finish an epoch with: {folder.continuation}")
        return load(folder / MODEL, device=device), folder
    return load(path, device=device), None


__all__ = [
    "CONFIG",
    "ENVIRONMENT",
    "FIGURES",
    "METRICS",
    "MODEL",
    "RESULT",
    "STATE",
    "Preprocessing",
    "RunFolder",
    "build_model",
    "build_trainer",
    "load_run_data",
    "note",
    "open_model",
    "split",
    "train",
]
