"""The command line, called inside the process of the test."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner, Result

from xpnet.cli import main


def xp(*arguments: Any, code: int = 0) -> Result:
    """Run `xpnet` with these arguments; it has to exit with `code`, and not by an error that nobody expects."""
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done
