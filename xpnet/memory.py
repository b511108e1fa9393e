"""How much memory a training takes, worked out before anything is allocated or written.

Systems promise more memory than they have and kill who uses it, and a device that runs out in the middle has wasted the
time before. So the bytes are counted from the sizes alone, and compared with what is free on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .backend import Backend
from .errors import OutOfMemoryError
from .training.defaults import EVALUATION_BATCH


def free_memory(be: Backend | None = None) -> int | None:
    """Bytes that can be had on the device of `be`, without one on the host; None where the system does not tell."""
    if be is not None and (free := be.free_memory()) is not None:
        return free
    if be is not None and be.device != "cpu":
        return None
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def step_bytes(sizes: list[int], batch: int, moments: int, dtype: str, n_models: int = 1) -> int:
    """Bytes of weights, gradients, moments and activations of one training step (dense layers)."""
    plan = plan_training(sizes, batch=batch, moments=moments, dtype=dtype, n_models=n_models)
    return plan.weights + plan.gradients + plan.moments + plan.activations


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Bytes that a training takes on its device, part by part.

    Attributes
    ----------
    weights, gradients, moments : int
        The flat buffers: parameters, their gradients, and what the optimizer remembers of each.
    activations : int
        The batch, what every layer gives and its gradient, and the targets.
    evaluation : int
        The same without gradients for the rows of one evaluation batch.
    kept : int
        Copies of the best and of the last good weights, and on a device what is needed to come back.
    data : int
        Samples and labels, where they are copied to the device or in another type.
    rounded : int
        Operands of products in bfloat16.
    """

    weights: int
    gradients: int
    moments: int
    activations: int
    evaluation: int = 0
    kept: int = 0
    data: int = 0
    rounded: int = 0

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(getattr(self, f.name) for f in fields(self))

    def __str__(self) -> str:
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        parts = {"parameters": self.weights + self.gradients + self.moments + self.kept} | {
            k: v for k, v in parts.items() if k not in ("weights", "gradients", "moments", "kept") and v
        }
        return ", ".join(f"{name} {size(n)}" for name, n in parts.items())


def plan_training(
    sizes: list[int], *, batch: int, moments: int, dtype: str, n_models: int = 1, evaluated: int = 0,
    data: int = 0, host: bool = False, precision: str | None = None,
) -> Plan:  # fmt: skip
    """Count the bytes of a training from its sizes.

    Parameters
    ----------
    sizes : list of int
        Widths of inputs, hidden layers and outputs.
    batch : int
        Rows of a batch, B; every model of a population has activations of its own, but one batch.
    moments : int
        Numbers that the optimizer keeps per parameter: 2 for Adam.
    dtype : str
        Of weights and activations.
    n_models : int, default 1
        Models trained at the same time, M.
    evaluated : int, default 0
        Rows of the validation set.
    data : int, default 0
        Bytes of samples and labels that have to be copied.
    host : bool, default False
        Whether the device is the host. Another one keeps, beside the best and the last good weights, weights and
        moments of the last moment when all was well.
    precision : str, optional
        For ``"bf16"``, the rounded operands of products are counted, too.

    Examples
    --------
    >>> plan_training([784, 500, 10], batch=128, moments=2, dtype="float32").weights
    1590040
    """
    width = np.dtype(dtype).itemsize
    parameters = width * n_models * sum(i * o + o for i, o in pairwise(sizes))
    inner = sum(sizes[1:])
    rows = min(evaluated, EVALUATION_BATCH)
    activations = width * batch * (sizes[0] + n_models * (2 * inner + 2 * sizes[-1]))
    evaluation = width * rows * (sizes[0] + n_models * (inner + 2 * sizes[-1]))
    # steps and evaluations, each with a smaller batch at the end, have copies of the weights of their own
    rounded = (4 * parameters + activations + evaluation) // 2 if precision == "bf16" else 0
    return Plan(
        weights=parameters, gradients=parameters, moments=moments * parameters, activations=activations,
        evaluation=evaluation, kept=(2 if host else 3 + moments) * parameters, data=data, rounded=rounded,
    )  # fmt: skip


def copied_bytes(data: Any, dtype: str, *, host: bool, divided: bool) -> int:
    """Bytes by which the samples, labels and order of a `Dataset` grow on their way to the device.

    Parameters
    ----------
    data : Dataset
    dtype : str
        Of the model: floating samples get it, and all but small integers where they are scaled.
    host : bool
        Whether the device is the host, where samples of a fitting type are not copied.
    divided : bool
        Whether a validation set is cut from the training data, which copies them.
    """
    total = 0
    for x, cut in ((data.x_train, divided), (data.x_valid, False)):
        if x is None:
            continue
        converted = (x.dtype.kind == "f" and x.dtype != dtype) or not data.preprocessing.keeps(x)
        stored = x.size * (np.dtype(dtype).itemsize if converted else x.dtype.itemsize)
        total += (x.nbytes if cut and host else 0) + (stored if converted or not host else 0)
        total += 8 * len(x)
    if not host:
        total += 8 * len(data.x_train)  # the order of an epoch
    return total


def check(plan: Plan, be: Backend, what: str, *, advice: dict[str, str] | None = None) -> None:
    """Raise where `plan` does not fit into the memory that is free.

    Parameters
    ----------
    plan : Plan
    be : Backend
    what : str
        What is to be trained, for the message.
    advice : dict, optional
        What to reduce where a part of the plan is the largest one: by default the options of `xpnet train`.

    Raises
    ------
    OutOfMemoryError
        Names what is needed, what is free, and what to reduce.
    """
    free = free_memory(be)
    if free is None or plan.total <= free:
        return
    parameters = plan.weights + plan.gradients + plan.moments + plan.kept + plan.rounded
    parts = {
        "parameters": parameters, "activations": plan.activations, "evaluation": plan.evaluation,
        "data": plan.data,
    }  # fmt: skip
    largest = max(parts, key=lambda name: parts[name])
    where = "" if be.device == "cpu" else f" on {be.device}"
    raise OutOfMemoryError(
        f"{what} needs {size(plan.total)} to train, but {size(free)} are free{where} ({plan}). "
        f"{(advice or ADVICE)[largest]}"
    )


def check_parameters(sizes: Sequence[int], n: int, dtype: str, be: Backend) -> None:
    """Raise where the parameters of a network, `n` numbers, do not fit into the memory that is free.

    They are drawn on the host in float64 and then brought to their type and device. Of networks that are not large
    nothing is asked, because they are made in less time than the system takes to answer.

    Raises
    ------
    OutOfMemoryError
    """
    if n < LARGE:
        return
    own, host = np.dtype(dtype).itemsize * n, be.device == "cpu"
    drawn = 8 * n + own + (own if host else 0)
    for needed, where in ((drawn, be if host else None), (own, be)):
        free = free_memory(where)
        if free is not None and needed > free:
            on = "" if host else " on the host" if where is None else f" on {be.device}"
            raise OutOfMemoryError(
                f"the network {'-'.join(map(str, sizes))} has {n:,} parameters, which need {size(needed)} to be made, "
                f"but {size(free)} are free{on}. Use narrower layers or fewer models at the same time."
            )


#: Numbers from which on memory is asked for what a network takes, before it is allocated.
LARGE = 1 << 24

#: What helps where a part of a plan is the largest.
ADVICE = {
    "parameters": "Use a smaller --hidden, or --optimizer sgd, which keeps less per weight.",
    "activations": "Use a smaller --batch-size, or a smaller --hidden.",
    "evaluation": "Use a smaller --hidden.",
    "data": "Use fewer samples, or store them in a smaller type, such as uint8.",
}


def size(n: int) -> str:
    """Bytes for people.

    Examples
    --------
    >>> size(3 * 2**29), size(5 * 2**20)
    ('1.5 GiB', '5.0 MiB')
    """
    return f"{n / 2**30:,.1f} GiB" if n >= 2**29 else f"{n / 2**20:,.1f} MiB"
