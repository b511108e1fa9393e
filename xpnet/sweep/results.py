"""Scores of candidates from those of their members: mean, spread, rank; and tables of them as CSV and Parquet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, MissingPackageError
from ..populations import MemberResult
from ..storage.atomic import write_bytes_atomic, write_text_atomic
from .settings import show_value
from .space import Candidate

Row = dict[str, Any]

#: Columns of a member beside the settings that vary.
MEMBER_COLUMNS = (
    "candidate", "fold", "seed", "score", "valid_loss", "valid_accuracy", "train_loss", "train_accuracy",
    "best_epoch", "epochs", "stopped", "seconds", "error",
)  # fmt: skip


def member_row(result: MemberResult, candidate: int, fold: int, seed: int) -> Row:
    """What is kept of a member."""
    at: Mapping[str, Any] = (
        result.history[(result.best_epoch or len(result.history)) - 1] if result.history else {}
    )
    failed = result.stopped == "diverged" or not math.isfinite(result.score)
    return {
        "candidate": candidate, "fold": fold, "seed": seed, "score": None if failed else result.score,
        **{n: at.get(n) for n in ("valid_loss", "valid_accuracy", "train_loss", "train_accuracy")},
        "best_epoch": result.best_epoch, "epochs": len(result.history), "stopped": result.stopped,
        "seconds": sum(r["seconds"] for r in result.history), "error": result.error,
    }  # fmt: skip


def summary(members: Sequence[Row], candidates: Sequence[Candidate], monitor: str) -> list[Row]:
    """Return one row per candidate that has members, from the best to the worst.

    A candidate of which a member failed has no mean, and comes last: its settings do not work everywhere. The spread
    is the standard deviation over folds and seeds (of a sample; None for a single member).

    Parameters
    ----------
    members : sequence of dict
        From `member_row`.
    candidates : sequence of dict
    monitor : str
        What the scores are, such as "valid_accuracy".
    """
    sign = 1.0 if monitor.endswith("accuracy") else -1.0
    names = dict.fromkeys(name for c in candidates for name in c)
    by_candidate: dict[int, list[Row]] = {}
    for m in members:
        by_candidate.setdefault(m["candidate"], []).append(m)
    rows = []
    for index, own in by_candidate.items():
        scores = [m["score"] for m in own if m["score"] is not None]
        failed = len(own) - len(scores)
        epochs = [m["best_epoch"] or m["epochs"] for m in own]
        rows.append({
            "rank": 0, "candidate": index, **{n: candidates[index].get(n) for n in names},
            "mean": float(np.mean(scores)) if scores and not failed else None,
            "std": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
            "min": min(scores, default=None), "max": max(scores, default=None), "members": len(own),
            "failed": failed, "best_epoch": float(np.mean(epochs)), "seconds": sum(m["seconds"] for m in own),
        })  # fmt: skip
    rows.sort(key=lambda r: (r["mean"] is None, -sign * (r["mean"] or 0.0), r["candidate"]))
    for rank, row in enumerate(rows, 1):
        row["rank"] = rank
    return rows


def flat(rows: Sequence[Row]) -> list[Row]:
    """Rows whose settings are plain numbers and text."""
    return [{k: show_value(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]


def write_csv(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Write rows as CSV, whole or not at all; what is not known stays empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if row.get(k) is None else row[k] for k in columns} for row in flat(rows))
    write_text_atomic(path, text.getvalue())


def write_parquet(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Write rows as Parquet, whole or not at all.

    Raises
    ------
    MissingPackageError
        pyarrow is not installed.
    """
    if not has_parquet():
        raise MissingPackageError(
            f'{path}: Parquet files need pyarrow: pip install "xpnet[tabular]"; or write CSV'
        )
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = flat(rows)
    table = pa.table({name: [row.get(name) for row in values] for name in columns})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    write_bytes_atomic(path, sink.getvalue())


def has_parquet() -> bool:
    """Whether Parquet files can be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        return False
    return True


def check_writable(path: str | Path) -> Path:
    """Return the path of a table that can be written; nothing is left there.

    Raises
    ------
    ConfigError
        Another ending than .csv or .parquet, or a place where nothing can be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise ConfigError(f"--results {path}: the name must end in .csv or .parquet")
    if path.suffix.lower() == ".parquet" and not has_parquet():
        raise MissingPackageError(
            f'--results {path}: Parquet needs pyarrow; run pip install "xpnet[tabular]", or name a .csv file'
        )
    if path.is_dir():
        raise ConfigError(f"--results {path} is a folder; name a file in it")
    trial = path.with_name(f".{path.name}.try")
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise ConfigError(
            f"--results {path} cannot be written: {error.strerror}; name a file in a folder that exists"
        ) from error
    return path


def write(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Write a table as its name says."""
    (write_parquet if path.suffix.lower() == ".parquet" else write_csv)(path, rows, columns)
