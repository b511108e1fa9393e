"""A sweep from its settings to results on disk, and continued from there."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data import Dataset
from ..errors import ConfigError, XpnetError
from ..populations import MemberResult, fit_many
from ..runs.automatic import resolve
from ..runs.building import choose_backend, limited_threads
from ..runs.config import TrainConfig
from ..runs.continuing import RESUMABLE
from ..runs.data import with_absolute_paths
from ..runs.folder import RunFolder
from ..runs.notes import note
from ..runs.run import train
from ..storage import atomic
from ..storage.output import output_named
from ..training.failures import device_errors
from . import results
from .folder import FIGURE, SUMMARY, SweepFolder
from .members import check, configurations, fingerprint, parts
from .results import Row
from .settings import SweepConfig
from .space import Candidate
from .table import Progress, final_lines


def sweep(
    settings: SweepConfig, out: str | Path | None = None, *, resume: bool = False, quiet: bool = False,
    table: str | Path | None = None, batches: str = "own", memory: int | None = None, workers: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train all candidates on all folds and seeds, and write what came out.

    Candidates are ranked by the mean of their validation scores; the test set is looked at only for the `top` that
    are trained again at the end.

    Parameters
    ----------
    settings : SweepConfig
    out : path, optional
        The folder; ``sweeps/<data>-<number>`` where omitted.
    resume : bool, default False
        Continue the sweep in `out`: members that are trained are not trained again.
    quiet : bool, default False
        Print nothing.
    table : path, optional
        One more copy of the ranked candidates, .csv or .parquet.
    batches, memory, workers
        See `fit_many`.

    Returns
    -------
    dict
        What result.json holds, and "sweep": the folder.

    Raises
    ------
    ConfigError
        Impossible settings, found before anything is trained; a results file that cannot be written.
    FileFormatError
        A sweep that cannot be continued; the message names what differs.
    KeyboardInterrupt
        After saving what is trained.

    Examples
    --------
    >>> import tempfile
    >>> config = SweepConfig(base=TrainConfig(hidden=[8], epochs=2), grid={"lr": [1e-5, 1e-2]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = sweep(config, f"{folder}/s", quiet=True)
    >>> result["best"]["settings"], result["candidates"]
    ({'lr': 0.01}, 2)
    """
    started = time.perf_counter()
    candidates = settings.candidates()
    extra = None if table is None else results.check_writable(table)
    be = choose_backend(settings.base)
    # by its name, each thread gets a back end of its own; one with other settings is used by a single thread
    device = settings.base.device if be.captures and not (be.precision or be.autotune) else be
    say = _silent if quiet else note
    settings = replace(settings, base=with_absolute_paths(settings.base))
    pieces = list(parts(settings, progress=not quiet and sys.stderr.isatty(), say=say))
    check(settings, candidates, pieces[0].dataset)
    folder = SweepFolder(out) if out is not None else SweepFolder.numbered(pieces[0].dataset.name)
    data = [fingerprint(p) for p in pieces]
    with folder.taken(resume=resume), output_named(f"Continue with: {folder.continuation}"):
        (folder.open if resume else folder.begin)(settings, candidates, data)
        per_candidate = sum(len(p.units) for p in pieces)
        if not quiet:
            print(_headline(settings, candidates, per_candidate, folder), flush=True)
        try:
            with (
                limited_threads(settings.base.threads),
                device_errors(be),
                output_named(),
                nullcontext() if quiet else Progress(candidates, per_candidate) as progress,
            ):
                for piece in pieces:
                    _train_part(
                        settings, candidates, piece, folder, device, progress, batches, memory, workers
                    )
            folder.save(force=True)
            rows = _report(folder, settings, candidates, extra)
            top = _train_top(folder, settings, candidates, rows, pieces[0].dataset, quiet)
        except KeyboardInterrupt as error:
            folder.save(force=True)
            done = (
                f"{len(folder.members)} of {len(candidates) * per_candidate} networks are trained and saved"
            )
            print(
                f"xpnet: {str(error) or 'interrupted'}; {done}. Continue with: {folder.continuation}",
                file=sys.stderr,
            )
            raise
        except XpnetError as error:
            folder.save(force=True)
            if not folder.members:
                raise
            raise type(error)(
                f"{str(error).rstrip('.')}. What is trained is kept; continue with: {folder.continuation}"
            ) from error
        summary = _summary(folder, settings, candidates, rows, top, time.perf_counter() - started)
        atomic.write_json_atomic(folder / SUMMARY, summary)
        if not quiet:
            for line in final_lines(rows, candidates, summary["monitor"]):
                print(line)
    return {**summary, "sweep": str(folder.path)}


def _silent(text: str) -> None:
    pass


def _train_part(
    settings: SweepConfig, candidates: Sequence[Candidate], piece: Any, folder: SweepFolder, device: Any,
    progress: Progress | None, batches: str, memory: int | None, workers: int | None,
) -> None:  # fmt: skip
    finished = {(m["candidate"], m["fold"], m["seed"] - settings.base.seed) for m in folder.members}
    todo = configurations(settings, candidates, piece, finished)
    if not todo:
        return

    def done(result: MemberResult) -> None:
        c, fold, s = todo[result.index][0]
        folder.add(results.member_row(result, c, fold, settings.base.seed + s), result.monitor)
        if progress is not None:
            progress.update(folder.members, result.monitor)

    fit_many(
        [configuration for _, configuration in todo], piece.data, validation=piece.validation, batches=batches,
        dtype=settings.base.dtype, device=device, preprocessing=piece.dataset.preprocessing, memory=memory,
        workers=workers, on_result=done, keep_models=False,
    )  # fmt: skip


def _headline(
    settings: SweepConfig, candidates: Sequence[Candidate], per_candidate: int, folder: SweepFolder
) -> str:
    folds = f"{settings.folds} folds" if settings.folds else "1 validation part"
    seeds = f"{settings.seeds} seed{'s' if settings.seeds > 1 else ''}"
    done = f", {len(folder.members)} of them done" if folder.members else ""
    return (
        f"{len(candidates)} candidates x {folds} x {seeds} = {len(candidates) * per_candidate} networks{done}"
        f" -> {folder.path}"
    )


def _report(
    folder: SweepFolder, settings: SweepConfig, candidates: Sequence[Candidate], extra: Path | None
) -> list[Row]:
    assert folder.monitor is not None
    rows = results.summary(folder.members, candidates, folder.monitor)
    folder.write_tables(rows, settings.varied, candidates)
    if extra is not None:
        results.write(extra, rows, list(rows[0]))
    if any(row["mean"] is not None for row in rows):
        try:
            from ..plots import sweep_scores

            sweep_scores(rows, settings.varied, folder.monitor, folder / FIGURE)
        except XpnetError as error:  # no matplotlib: the tables have everything
            note(f"no figure: {error}")
    return rows


# --- the best, trained again ------------------------------------------------------------------------
def final_config(
    settings: SweepConfig, candidate: Candidate, best_epoch: float, dataset: Dataset
) -> TrainConfig:
    """Return the settings that one of the best is trained with again.

    After folds it learns from all training data, without a validation part: for as many epochs as were best in the
    mean where the learning rate is constant, else for those that its schedule was planned for. Without folds the
    settings stay, and give the network of the sweep's first seed again.
    """
    config = resolve(settings.config(candidate), dataset)
    if not settings.folds:
        return config
    monitor = None if config.monitor is None or config.monitor.startswith("valid") else config.monitor
    steady = config.get_schedule().name == "constant" and config.get_schedule().warmup == 0.0
    epochs = max(1, round(best_epoch)) if steady else config.epochs
    return replace(config, valid_fraction=0.0, patience=None, monitor=monitor, epochs=epochs)


def _train_top(
    folder: SweepFolder,
    settings: SweepConfig,
    candidates: Sequence[Candidate],
    rows: Sequence[Row],
    dataset: Dataset,
    quiet: bool,
) -> list[dict[str, Any]]:
    top = []
    for row in [r for r in rows if r["mean"] is not None][: settings.top]:
        path = folder / f"top-{row['rank']}"
        config = final_config(settings, candidates[row["candidate"]], row["best_epoch"], dataset)
        if not quiet:
            print(f"training rank {row['rank']} into {path}", flush=True)
        result = _finished(path, config) or train(config, path, overwrite=True, quiet=True)
        test = {k: v for k, v in result.items() if k.startswith("test_") and v is not None}
        top.append({"rank": row["rank"], "run": str(path), **test})
    return top


def _finished(path: Path, config: TrainConfig) -> dict[str, Any] | None:
    """The result of a run that is there already with these settings."""
    try:
        kept = RunFolder(path).config()
        changeable = {*RESUMABLE} - {"epochs"}
        given = {n: v for n, v in vars(config).items() if v is not None and n not in changeable}
        if any(getattr(kept, n) != v for n, v in given.items()):
            return None
    except XpnetError:
        return None
    return RunFolder(path).result() or None


def _summary(
    folder: SweepFolder, settings: SweepConfig, candidates: Sequence[Candidate], rows: Sequence[Row],
    top: list[dict[str, Any]], seconds: float,
) -> dict[str, Any]:  # fmt: skip
    def about(row: Row) -> dict[str, Any]:
        kept = ("rank", "mean", "std", "min", "max", "members", "failed", "best_epoch")
        return {"settings": candidates[row["candidate"]], **{k: row[k] for k in kept}}

    best = rows[0] if rows[0]["mean"] is not None else None
    if best is None:
        error = next(m["error"] for m in folder.members if m["error"])
        raise ConfigError(f"every candidate failed, so there is no best one; the first one: {error}")
    return {
        "monitor": folder.monitor, "candidates": len(candidates), "members": len(folder.members),
        "failed": sum(m["score"] is None for m in folder.members), "folds": settings.folds,
        "seeds": settings.seeds, "best": about(best), "top": top, "seconds": seconds,
    }  # fmt: skip
