"""Everything that needs a GPU, in one command: correctness, tests, the machine's own costs, training beside others.

    python -m benchmarks.gpu_check --out FOLDER       # report.md and report.json, written after every part
    python -m benchmarks.gpu_check --dry-run          # lists the parts and checks them without a GPU

Each part is a process of its own with a limit of its own, so that one that fails or hangs costs no other. Without a
usable GPU it exits 4 and says why.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .gpu import kernels
from .gpu.parts import Part, find
from .gpu.report import markdown

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 465.0
_NO_DEVICE = 4


def main(argv: list[str] | None = None) -> int:
    """Run the check; returns 0 where every part did, 1 where one failed, 4 without a device."""
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_check", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("--out", default="gpu_check", help="folder for report.md and report.json")
    parser.add_argument("--parts", nargs="+", default=[], help="only these, in their usual order")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all parts together")
    parser.add_argument("--dry-run", action="store_true", help="list the parts, and check them without a GPU")
    arguments = parser.parse_args(argv)
    try:
        parts = find(arguments.parts)
    except ValueError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    if arguments.dry_run:
        return _dry_run(parts)
    from xpnet.backend.cuda.probe import probe

    finding = probe()
    if not finding.available:
        print(f"gpu_check: {finding.message}. To mend it: {finding.advice}", file=sys.stderr)
        return _NO_DEVICE
    return _run(parts, Path(arguments.out), arguments.seconds)


def _dry_run(parts: tuple[Part, ...]) -> int:
    """List the parts; check that each can be imported and that every kernel compiles, as far as possible here."""
    failed = 0
    for part in parts:
        try:
            part.load()
            state = "imports"
        except Exception as error:
            state, failed = f"FAILS: {type(error).__name__}: {error}", 1
        print(f"{part.name:14} {part.seconds:4.0f} s  {part.what}: {state}")
    for name, source in kernels.SOURCES.items():
        try:
            size = kernels.compile_offline(source)
            state = "not compiled: no NVRTC here" if size is None else f"compiles to {size} bytes for sm_90"
        except ValueError as error:
            state, failed = f"FAILS: {error}", 1
        print(f"kernel {name}: {state}")
    return failed


def _run(parts: tuple[Part, ...], out: Path, seconds: float) -> int:
    import xpnet

    out.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d %H:%M:%S"), "xpnet": xpnet.__version__, "commit": _commit(), "parts": [],
    }  # fmt: skip
    end = time.monotonic() + seconds
    for part in parts:
        left = end - time.monotonic()
        result = run_part(part, min(part.seconds, left)) if left > 5.0 else _skipped(part)
        document["parts"].append(result)
        print(f"{part.name:14} {result['status']}, {result['seconds']:.0f} s", flush=True)
        # after every part: whatever happens next, this much is known
        (out / "report.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (out / "report.md").write_text(markdown(document), encoding="utf-8")
    return 0 if all(p["status"] == "done" for p in document["parts"]) else 1


def _skipped(part: Part) -> dict[str, Any]:
    return {"name": part.name, "what": part.what, "status": "no time left", "seconds": 0.0, "findings": []}


def run_part(part: Part, limit: float, command: list[str] | None = None) -> dict[str, Any]:
    """Run one part in a process group of its own; what it said before a failure or the limit is kept."""
    command = command or [sys.executable, "-m", "benchmarks.gpu", part.name]
    environment = {
        **os.environ, "PYTHONUNBUFFERED": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }  # fmt: skip
    started = time.monotonic()
    # files, not pipes: grandchildren that live on must not keep the reading waiting
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as wrong:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=said, stderr=wrong, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        wrong.seek(0)
        findings, errors = list(_read(said.read())), wrong.read()
    not_ok = any(f.get("ok") is False for f in findings)
    status = "stopped at its limit" if code is None else "failed" if code else "WRONG" if not_ok else "done"
    return {
        "name": part.name, "what": part.what, "status": status, "seconds": time.monotonic() - started,
        "findings": findings, "stderr": errors[-4000:],  # of every part: warnings say what was not as it should be
    }  # fmt: skip


def _read(text: str) -> Any:
    """Findings among whatever else libraries print; a line that was cut off is left out."""
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                yield found


def _commit() -> str | None:
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return None
    return done.stdout.strip() or None


if __name__ == "__main__":
    sys.exit(main())
