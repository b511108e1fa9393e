"""The command line, called inside the process of the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from xpnet import checkpoint
from xpnet.cli import main
from xpnet.runs.folder import CONFIG, STATE


def xp(*arguments: Any, code: int = 0) -> Result:
    """Run `xpnet` with these arguments; it has to exit with `code`, and not by an error that nobody expects."""
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done


def as_if_older(folder: str, key: str, setting: str) -> None:
    """Make a run without `setting` one of an older xpnet, where it was on but for tables only; no `key` was kept."""
    tensors, metadata = checkpoint.load_tensors(Path(folder, STATE))
    del metadata["fixed"][key]
    metadata["fixed"][setting] = True
    checkpoint.save_tensors(Path(folder, STATE), tensors, metadata)
    config = Path(folder, CONFIG)
    config.write_text(config.read_text().replace(f"{setting} = false", f"{setting} = true"))
