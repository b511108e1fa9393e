"""Kill a process that writes checkpoints, at random moments, and look at what it leaves behind.

Run as ``python tests/kill_harness.py FOLDER --kills 200``; prints one JSON object. `test_kills.py` runs it.
Writers are forked, because starting Python anew would take longer than the rest; so this needs a POSIX
system, and a process of its own without threads.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import signal
import time
from pathlib import Path

import numpy as np

from xpnet import checkpoint
from xpnet.checkpoint import load_tensors, save_tensors
from xpnet.errors import FileFormatError

MEGABYTE = 1 << 20
PATIENCE = 60.0  # seconds without a sign of life after which a writer counts as hung


def tensors_of(generation: int) -> dict[str, np.ndarray]:
    """Return 1 MB in several arrays, all different from those of any other generation."""
    w = np.arange(MEGABYTE // 4, dtype=np.float32).reshape(256, -1)
    return {"w": w + generation, "b": np.full(1000, generation, np.int64)}


def save_safely(path: Path, generation: int) -> None:
    save_tensors(path, tensors_of(generation), {"generation": generation})


def save_in_place(path: Path, generation: int) -> None:
    """Write over the old file, as most programs do: the negative control."""
    with open(path, "wb") as file:
        for part in checkpoint._serialise(tensors_of(generation), {"generation": generation}):
            for start in range(0, len(part), 1 << 14):
                file.write(part[start : start + (1 << 14)])
                file.flush()
        os.fsync(file.fileno())


WRITERS = {"safe": save_safely, "in-place": save_in_place}


def write_until_killed(writer: str, path: Path, first: int, pipe: int) -> None:
    """Save generation after generation; one line in the pipe acknowledges each."""
    os.write(pipe, b"ready\n")
    generation = first
    while True:
        WRITERS[writer](path, generation)
        os.write(pipe, b"%d\n" % generation)
        generation += 1


def kill_once(writer: str, path: Path, first: int, delay: float) -> list[int]:
    """Run a writer, kill it `delay` seconds after it began, return the generations it acknowledged."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        # Whatever happens, the child must never return into the parent's code.
        try:
            os.close(read_end)
            write_until_killed(writer, path, first, write_end)
        finally:
            os._exit(1)
    os.close(write_end)
    lines = b""
    try:
        while b"\n" not in lines and select.select([read_end], [], [], PATIENCE)[0]:
            lines += os.read(read_end, 64) or b"no sign of life\n"
        time.sleep(delay)
    finally:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        while chunk := os.read(read_end, 65536):
            lines += chunk
        os.close(read_end)
    ready, *acknowledged = lines.decode().split("\n")[:-1]
    if ready != "ready" or not os.WIFSIGNALED(status):
        raise RuntimeError(f"the writer stopped by itself: {lines!r}, status {status}")
    return [int(line) for line in acknowledged]


def inspect(path: Path, acknowledged: int) -> tuple[int | None, str | None]:
    """Return the generation in the file, and what is wrong with it."""
    try:
        tensors, metadata = load_tensors(path)
    except FileFormatError as error:
        return None, str(error)
    generation = metadata["generation"]
    if not isinstance(generation, int) or generation not in (acknowledged, acknowledged + 1):
        return None, f"generation {generation} found, {acknowledged} acknowledged"
    for name, expected in tensors_of(generation).items():
        if not np.array_equal(tensors[name], expected):
            return None, f"generation {generation} holds other values in {name!r}"
    return generation, None


def run(folder: Path, kills: int, writer: str = "safe", seed: int = 0, stop_at_failure: bool = False) -> dict:
    """Kill the writer `kills` times.

    Returns
    -------
    dict
        kills; failures (a list of messages); interrupted: how many kills left a temporary file, that is, fell
        between its creation and its renaming; generations: the last one found.
    """
    path = folder / "checkpoint.safetensors"
    began = time.perf_counter()
    for _ in range(3):
        save_safely(path, 0)
    span = 4 * (time.perf_counter() - began) / 3  # kill within the first few saves
    random_ = random.Random(seed)
    generation, interrupted = 0, 0
    failures: list[str] = []
    done = 0
    while done < kills and not (failures and stop_at_failure):
        done += 1
        acknowledged = kill_once(writer, path, generation + 1, random_.uniform(0, span))
        found, failure = inspect(path, max(acknowledged, default=generation))
        if failure:
            failures.append(failure)
            generation = max(acknowledged, default=generation) + 1
            save_safely(path, generation)
        elif found is not None:
            generation = found
        left = list(folder.glob(".*.tmp"))
        interrupted += bool(left)
        for temp in left:
            with contextlib.suppress(FileNotFoundError):
                temp.unlink()
    return {"kills": done, "failures": failures, "interrupted": interrupted, "generations": generation}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--writer", choices=WRITERS, default="safe")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop-at-failure", action="store_true")
    arguments = parser.parse_args()
    print(json.dumps(run(**vars(arguments))))


if __name__ == "__main__":
    main()
