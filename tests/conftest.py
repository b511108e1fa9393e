"""Fixtures that several test files share."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xpnet import Backend, get_backend
from xpnet.backend.cuda.probe import probe
from xpnet.backend.reference import ReferenceBackend
from xpnet.storage import atomic

# A shell starts what it runs in the background with Ctrl-C ignored, and so would be every process the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

BACKENDS = {
    "numpy": lambda: get_backend("cpu"),
    "reference": lambda: ReferenceBackend(np),
    "strict": lambda: get_backend(strict()),
    # a device that NumPy cannot read: whatever leaves the back end fails here
    "strict-device1": lambda: ReferenceBackend(strict(), strict().Device("device1")),
}


def strict() -> Any:
    """`array_api_strict`, imported late: tests on a GPU run, too, where it is not installed."""
    import array_api_strict

    return array_api_strict


@pytest.fixture(params=[*BACKENDS, pytest.param("cuda", marks=pytest.mark.gpu)])
def be(request: pytest.FixtureRequest) -> Backend:
    """Each back end; that of CUDA where there is a device."""
    if request.param == "cuda":
        return cuda()
    return BACKENDS[request.param]()


def cuda(**options: Any) -> Backend:
    """The back end of the first CUDA device; skips the test where there is none, and says why."""
    finding = probe()
    if not finding.available:
        pytest.skip(f"needs a CUDA device: {finding.message}")
    return get_backend("cuda", **options)


@pytest.fixture
def data_dir() -> Path:
    """The folder with data files that $XPNET_DATA names; the test is skipped where it names none."""
    folder = os.environ.get("XPNET_DATA")
    if not folder:
        pytest.skip("needs data files: set XPNET_DATA to a folder that has mnist/ in it")
    if not Path(folder).is_dir():
        pytest.fail(f"XPNET_DATA={folder} is not a folder")
    return Path(folder)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, and do not wait for disks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(atomic._Fs, "fsync", lambda self, fd: None)
