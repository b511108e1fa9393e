"""Fetching a data set's files from several mirrors, each file checked against its hash."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import DataError

Report = Callable[[str, int, int], None]

# Seconds to wait for a connection, then for the next bytes.
_TIMEOUT = (10, 30)


def fetch(
    name: str,
    hashes: Mapping[str, str],
    mirrors: Sequence[str],
    folder: Path,
    *,
    progress: bool | Report | None = None,
) -> None:
    """Bring every file of a data set into `folder`.

    Each file is tried on every mirror in turn, the one that last worked first. A file is moved into
    place only after its hash was found right.

    Parameters
    ----------
    name : str
        The data set, for messages.
    hashes : mapping of str to str
        File name to SHA-256 in hexadecimal.
    mirrors : sequence of str
        Addresses that the file names are appended to.
    folder : pathlib.Path
        Where to put the files; made where absent.
    progress : bool or callable, optional
        True draws a bar on the terminal; a callable is called with (file name, bytes so far, bytes
        in all or 0).

    Raises
    ------
    DataError
        No mirror gave a file; lists each mirror with its failure.

    Examples
    --------
    >>> fetch("tiny", {}, [], Path("."))
    """
    order = list(mirrors)
    with _reporter(progress) as report, _quiet_pooch():
        for file, sha256 in hashes.items():
            failures = []
            for mirror in list(order):
                problem = _attempt(mirror + file, f"sha256:{sha256}", file, folder, report)
                if problem is None:
                    order.remove(mirror)
                    order.insert(0, mirror)
                    break
                failures.append(f"  {mirror}{file}: {problem}")
            else:
                raise DataError(
                    f"{name}: {file} could not be downloaded:\n"
                    + "\n".join(failures)
                    + f"\nPut the files {', '.join(hashes)} "
                    f"into {folder} by hand, or into any folder named by --data-dir or $XPNET_DATA."
                )


def _attempt(url: str, known_hash: str, file: str, folder: Path, report: Report | None) -> str | None:
    import pooch

    bar = _Bar(file, report) if report else False
    try:
        downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=_TIMEOUT)
        pooch.retrieve(url, known_hash, file, folder, downloader=downloader)
    except Exception as error:  # whatever is wrong with one mirror, the next may work; all are reported
        return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    return None


class _Bar:
    """What pooch expects of a progress bar, handing each step on to `report`."""

    def __init__(self, file: str, report: Report) -> None:
        self.total = 0
        self._file, self._report, self._done = file, report, 0

    def update(self, count: int) -> None:
        self._done += count
        done = min(self._done, self.total) if self.total else self._done  # the last piece is counted in full
        self._report(self._file, done, self.total)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass


@contextmanager
def _reporter(progress: bool | Report | None) -> Iterator[Report | None]:
    if callable(progress):
        yield progress
    elif not progress:
        yield None
    else:
        from rich.console import Console
        from rich.progress import DownloadColumn, Progress

        columns = (*Progress.get_default_columns(), DownloadColumn())
        tasks: dict[str, Any] = {}
        with Progress(*columns, console=Console(stderr=True)) as display:

            def report(file: str, done: int, total: int) -> None:
                if file not in tasks:
                    tasks[file] = display.add_task(file)
                display.update(tasks[file], completed=done, total=total or None)

            yield report


@contextmanager
def _quiet_pooch() -> Iterator[None]:
    # pooch announces each file on standard error, which --quiet and --json must keep clean.
    import pooch

    logger = pooch.get_logger()
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)
