"""A training run from its settings to its result, kept in a folder, and continued from there."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, checkpoint
from ..callbacks import Callback, EpochTable
from ..data import Dataset
from ..errors import DeviceError, DivergedError, FileWriteError, OutOfMemoryError, XpnetError
from ..logs import make_log
from ..mlp import MLP
from ..storage import atomic
from ..storage.output import output_named
from ..tabular import TabularPreprocessing, columns_text
from ..tabular.targets import in_target_units
from ..train import Interrupted, Trainer
from ..training.failures import device_errors
from . import automatic, continuing
from .building import build_model, build_trainer, choose_backend, limited_threads
from .config import TrainConfig
from .data import check_files_are_there, load_run_data, split, with_absolute_paths
from .environment import environment
from .folder import CONFIG, ENVIRONMENT, MODEL, RESULT, SCALING, STATE, TARGET_SCALING, RunFolder, place
from .notes import blown_up, note, still_falling
from .result import make_result


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
        columns = None
        if resume and out is not None:
            begun = RunFolder(out)
            config, columns = (
                continuing.as_started(config, begun),
                continuing.columns_as_started(config, begun),
            )
            check_files_are_there(config, Path(out))
        show = not quiet and sys.stderr.isatty()
        data = load_run_data(config, progress=show, prepared=columns, say=say)
        config = automatic.resolve(config, data)
        model = build_model(config, data, be)
        training, validation = split(data, config)
        trainer = build_trainer(config, model, data.task, training, validation)
    config = _resolved(config, trainer, data)
    folder = RunFolder(out) if out is not None else RunFolder.numbered(data.name)
    folder.fixed = continuing.fixed(config, validation) | {
        SCALING: continuing.scaling(data), TARGET_SCALING: continuing.target_scaling(data)
    }  # fmt: skip
    trainer.callbacks += [make_log(name, folder.path) for name in dict.fromkeys(config.log)]
    trainer.callbacks.append(_Writer(folder, config.save_every))
    if not quiet:
        trainer.callbacks.append(EpochTable())
    try:
        # tuned also around the record of the environment, which counts threads
        taken = folder.taken(resume=resume, overwrite=overwrite)
        with taken, trainer.tuned(), device_errors(be), output_named():
            if resume:
                continuing.go_on(folder, trainer, quiet)
                if not quiet:
                    continuing.note_other_test(folder, config, data)
                if trainer.epoch < trainer.epochs:
                    begun_at = {"after_steps": trainer.step.n_updates, "device": place(be)}
                    folder.add_environment(begun_at | environment(be.threads))
            else:
                atomic.write_json_atomic(folder / ENVIRONMENT, environment(be.threads))
                folder.write_metrics([])
            atomic.write_text_atomic(folder / CONFIG, config.to_toml())
            if not quiet:
                if data.tabular is not None:
                    print(columns_text(TabularPreprocessing.from_metadata(data.tabular)))
                print(_headline(config, model, data, trainer, folder), flush=True)
            result = _run(folder, trainer, data, config)
        if text := blown_up(trainer, training):
            say(text)
        elif still_falling(trainer.history):
            say("the training loss was still falling at the last epoch: more --epochs may help")
        return result
    except (DeviceError, OutOfMemoryError) as error:  # what was on the device is gone, what was saved is not
        raise type(error)(f"{error} {_safe(folder, ', there or with another --device.')}") from error
    except FileWriteError as error:
        raise FileWriteError.after(error, f"{error} {_safe(folder)}") from error
    except (KeyboardInterrupt, BrokenPipeError) as error:
        print(f"xpnet: {_farewell(folder, error)}", file=sys.stderr)
        raise


def _say_nothing(text: str) -> None:
    pass


def _resolved(config: TrainConfig, trainer: Trainer, data: Dataset) -> TrainConfig:
    """Write out what the settings left to defaults that depend on data, on each other and on the working directory."""
    config = with_absolute_paths(config)
    lr: Any = trainer.optimizer.lr
    if data.tabular is not None:
        config = replace(config, target=data.tabular["target"]["name"])
    return replace(config, task=trainer.task, loss=trainer.loss.name, lr=lr, monitor=trainer.monitor)


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
    result = make_result(trainer, model, data, config, last)
    model.save(folder / MODEL, extra={"result": result})
    atomic.write_json_atomic(folder / RESULT, result)
    return {**result, "run": str(folder.path)}


def _safe(folder: RunFolder, where: str = "") -> str:
    """What is left after a failure that ended a run, and how to go on, and `where`."""
    try:
        reached = checkpoint.load_tensors(folder / STATE)[1]["n_updates"]
    except (XpnetError, OSError, KeyError):
        return f"Nothing had been saved yet; start again, with --overwrite for {folder.path}."
    return (
        f"The last checkpoint, after {reached} updates, is safe; continue with: {folder.continuation}{where}"
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
