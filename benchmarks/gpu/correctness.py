"""Whether the device computes what the CPU does, and how long a whole process takes."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from xpnet.callbacks import Callback
from xpnet.runs.folder import METRICS

from .parts import Finding

ROOT = Path(__file__).resolve().parent.parent.parent
#: Processes that share the device.
_AT_ONCE = 8


def parity() -> Iterator[Finding]:
    """Trainings beside the CPU, then bits from run to run."""
    import numpy as np

    from xpnet.parity import compare_devices
    from xpnet.runs.config import TrainConfig

    settings: dict[str, Any] = {
        "hidden": [100, 50], "dropout": [0.2], "epochs": 3, "schedule": "cosine", "l2": 1e-4, "clip_norm": 1.0,
    }  # fmt: skip
    # relative difference of weights after 3 epochs that rounding may cause; two back ends of the CPU, whose sums have
    # other orders, differ by 2e-7 and 4e-16
    for precision, limit in (("float32", 1e-5), ("float64", 1e-12), ("tf32", 0.05), ("bf16", 0.3)):
        config = TrainConfig(**settings, dtype="float64" if precision == "float64" else "float32")
        records = compare_devices(config, ["cpu", f"cuda@{precision}"])
        last = records[-1]
        yield {
            "precision": precision, "start_identical": records[0]["identical"], "limit": limit,
            "ok": records[0]["identical"] and last["weights_relative"] <= limit,
            **{k: last[k] for k in ("weights_relative", "weights_max_abs", "loss_difference", "agreement")},
        }  # fmt: skip
    found = []
    for capture in (True, False):
        config = TrainConfig(**settings, capture=capture)
        once, again = (_weights(config) for _ in range(2))
        yield {"runs_bit_identical": once == again, "capture": capture, "ok": once == again}
        found.append(once)
    captured, eager = (np.frombuffer(weights, np.float32) for weights in found)
    difference = float(np.linalg.norm(captured - eager) / np.linalg.norm(eager))
    yield {"capture_changes_weights_by": difference, "limit": 1e-5, "ok": difference <= 1e-5}


def operations(dtype: str, device: str = "cuda") -> Iterator[Finding]:
    """What `xpnet.testing.check_backend` does, one operation after the other as they end.

    Several hundred kernels are compiled for it, one by one: in several processes, as each needs a core of its own.
    """
    from xpnet.conformance import CHECKS, CHECKS_OF_DTYPE

    names = [check.__name__ for check in (*CHECKS, *CHECKS_OF_DTYPE)]
    spawn = multiprocessing.get_context("spawn")  # a process that is forked cannot use the device
    with ProcessPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1), mp_context=spawn) as pool:
        running = [pool.submit(_checked, name, dtype, device) for name in names]
        for done in as_completed(running):
            yield done.result()


def _checked(name: str, dtype: str, device: str) -> Finding:
    """One of the checks."""
    from xpnet.backend import get_backend
    from xpnet.conformance import CHECKS, CHECKS_OF_DTYPE
    from xpnet.conformance.harness import Conformance

    begun = time.perf_counter()
    whole = {check.__name__: check for check in CHECKS}
    of_dtype = {check.__name__: check for check in CHECKS_OF_DTYPE}
    finding: Finding = {"operation": name.removeprefix("check_"), "dtype": dtype}
    try:
        c = Conformance(get_backend(device), [dtype], seed=0)
        if name in whole:
            whole[name](c)
        else:
            of_dtype[name](c, dtype)
        finding |= {"ok": True, "results": c.n}
    except Exception as error:  # the other operations may be right
        finding |= {"ok": False, "results": f"{type(error).__name__}: {error}"[:2000]}
    return finding | {"seconds": time.perf_counter() - begun}


def _weights(config: Any) -> bytes:
    """The weights after a training on the device."""
    import dataclasses

    from xpnet.runs.automatic import resolve
    from xpnet.runs.building import build_model, build_trainer
    from xpnet.runs.data import load_run_data, split

    config = dataclasses.replace(config, device="cuda")
    data = load_run_data(config)
    config = resolve(config, data)
    training, validation = split(data, config)
    trainer = build_trainer(config, build_model(config, data), data.task, training, validation)
    trainer.run()
    return trainer.latest_weights().tobytes()


#: Seconds for all tests, less than the limit of their part: what has been said by then is kept.
_TESTS = 90.0


def test_files() -> list[str]:
    """Files with tests marked gpu: collecting all others takes longer, and may need packages that are not there."""
    found = sorted((ROOT / "tests").glob("test_*.py"))
    # that of back ends takes its mark from a fixture
    return [
        p.name for p in found if p.name == "test_backends.py" or "pytest.mark.gpu" in p.read_text("utf-8")
    ]


def tests() -> Iterator[Finding]:
    """pytest on everything marked gpu; the findings are its counts and what failed."""
    command = [
        sys.executable, "-m", "pytest", "-v", "-m", "gpu", "-p", "no:cacheprovider", "-o", "addopts=",
        "-W", "default::DeprecationWarning",  # of libraries that are newer than those of CI
        "--continue-on-collection-errors", *(f"tests/{name}" for name in test_files()),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_TESTS)
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""
        yield {
            "ok": False,
            "stopped_after_s": _TESTS,
            "tail": (said if isinstance(said, str) else said.decode())[-3000:],
        }
        return
    yield {
        **{word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", done.stdout)},
        "failures": re.findall(r"^(?:FAILED|ERROR) .*", done.stdout, re.M)[:40],
        "ok": done.returncode == 0, "tail": done.stdout[-3000:] if done.returncode else "",
    }  # fmt: skip


def process() -> Iterator[Finding]:
    """`xpnet train --device cuda` on pictures of MNIST's size, 10 epochs, twice: the second finds compiled kernels."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        y = rng.integers(0, 10, 60_000)
        centres = rng.integers(0, 128, (10, 784), dtype=np.uint8)
        x = rng.integers(0, 128, (60_000, 784), dtype=np.uint8) + centres[y]
        np.savez(Path(folder, "d.npz"), x=x, y=y)
        environment = {**os.environ, "CUPY_CACHE_DIR": str(Path(folder, "cupy")), "XDG_CACHE_HOME": folder}
        for name in ("first", "second"):
            command = [
                sys.executable, "-m", "xpnet", "train", "--data", "d.npz", "--hidden", "500", "--epochs", "10",
                "--batch-size", "128", "--device", "cuda", "--out", name, "--json", "--quiet",
            ]  # fmt: skip
            path = f"{ROOT}{os.pathsep}{environment.get('PYTHONPATH', '')}"
            started = time.perf_counter()
            done = subprocess.run(
                command, cwd=folder, env={**environment, "PYTHONPATH": path}, capture_output=True, text=True
            )
            seconds = time.perf_counter() - started
            if done.returncode:
                yield {"process": name, "ok": False, "error": done.stderr[-1000:]}
                return
            epochs = [
                json.loads(line)["seconds"] for line in Path(folder, name, METRICS).read_text().splitlines()
            ]
            # the first epoch compiles kernels, asks cublasLt and makes graphs: what a process needs beside its
            # training is what it takes longer than so many epochs like the last
            yield {
                "process": name, "ok": True, "seconds": seconds, "first_epoch_s": epochs[0],
                "last_epoch_s": epochs[-1], "rest_s": seconds - len(epochs) * epochs[-1],
            }  # fmt: skip


def accuracy() -> Iterator[Finding]:
    """Seconds of training until MNIST's test digits are right in 98 %, by the recipe of `accuracy_time`.

    After a warm-up; looking at the test digits is on no clock.
    """
    if not os.environ.get("XPNET_DATA"):
        yield {"accuracy": "not measured: XPNET_DATA is not set"}
        return
    import xpnet

    from ..accuracy_time import BATCH, EPOCHS, PEAK, ROW, TARGET

    data = xpnet.data.load("mnist")
    be = xpnet.get_backend("cuda", precision="tf32")
    for seed in range(-1, 5):  # the first one compiles
        model = xpnet.MLP(ROW.sizes, activation="relu", seed=max(seed, 0), device=be)
        model.preprocessing = data.preprocessing
        trainer = xpnet.Trainer(
            model, (data.x_train, data.y_train), optimizer=xpnet.Adam(lr=PEAK), schedule="one_cycle",
            batch_size=BATCH, epochs=EPOCHS[TARGET],
        )  # fmt: skip
        pause = _Pause()
        trainer.callbacks.append(pause)
        spent, right = 0.0, 0.0
        while trainer.epoch < trainer.epochs and right < TARGET:
            begun = time.perf_counter()
            trainer.run()
            spent += time.perf_counter() - begun
            right = float((model.predict(data.x_test) == data.y_test).mean())
        if seed >= 0:
            yield {
                "seed": seed, "seconds": spent, "epochs": trainer.epoch, "test_accuracy": right,
                "reached": right >= TARGET,
            }  # fmt: skip


class _Pause(Callback):
    """Ends a run after one epoch; the next one goes on."""

    def on_epoch_end(self, trainer: Any, record: Any) -> None:
        trainer.stop("end of the epoch")
