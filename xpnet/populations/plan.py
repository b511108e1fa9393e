"""How many members train together: as many as the caches hold well and the memory allows.

The bytes of a block are counted by the code that will use them: a step is built and run on a back end that allocates
and computes nothing (what is never touched takes no memory).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import rng
from ..backend import Array, Backend, get_backend
from ..backend.cpu import EASY, CpuBackend, processors
from ..errors import ConfigError, OutOfMemoryError
from ..interchange import dtype_name, is_foreign
from ..memory import free_memory, plan_training, size
from ..mlp import MLP
from ..training.settings import whole_number
from .block import Block
from .group import Data, Group

# A block's buffers should stay in the caches from step to step, and beyond some members nothing is gained.
_CACHE = 4 * 2**20
_MOST = 128
_MOST_ON_A_DEVICE = 4096

# Python objects of a model and its result beside the arrays, and of one record of a history (measured).
_OBJECTS = 8_000
_RECORD = sys.getsizeof(dict.fromkeys(range(10))) + 8 * 24

# Work of a block's step, in multiplications of a product, from which a worker of its own pays: of shorter steps too
# much is Python, which one worker at a time can have. Two workers took 1.6 times as long for 4 x (64-64-10) as one.
_WORTH = 16_000_000

# Only so much of the free memory is planned with, where no limit is given.
_SHARE = 0.8


class _Counting(CpuBackend):
    """Counts what a step would allocate, and computes nothing."""

    def __init__(self, be: Backend) -> None:
        super().__init__()
        self.n_bytes = 0
        self._counts_scratch = type(be) is CpuBackend
        self.device, self.members_beside = be.device, be.members_beside
        self.steps_ahead, self.shuffles, self.captures = be.steps_ahead, be.shuffles, be.captures
        self.least_ahead, self.ahead_size = be.least_ahead, be.ahead_size
        self._rounds = be.precision == "bf16"
        self._rounded: set[tuple[int, ...]] = set()

    def _do(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        pass

    def empty(self, shape: Any, dtype: str) -> Array:
        array = super().empty(shape, dtype)
        self.n_bytes += array.nbytes
        return array

    def _scratch_array(self, bank: str, index: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        before = sum(a.nbytes for a in self._scratch.values())
        array = super()._scratch_array(bank, index, shape, dtype)
        if self._counts_scratch:
            self.n_bytes += sum(a.nbytes for a in self._scratch.values()) - before
        return array

    def matmul(self, a: Array, b: Array, *, ta: bool = False, tb: bool = False, out: Array) -> Array:
        for x in (a, b) if self._rounds else ():
            place = (x.ctypes.data, *x.shape)
            if place not in self._rounded:
                self._rounded.add(place)
                self.n_bytes += 2 * x.size
        return super().matmul(a, b, ta=ta, tb=tb, out=out)

    def gather(self, x: Array, index: Array, **options: Any) -> Array:
        if is_foreign(x):  # only its type counts
            x = np.empty((1, *x.shape[1:]), dtype_name(x))
        return super().gather(x, index, **options)

    def capture(self, fn: Callable[[], None]) -> Callable[[], None]:
        fn()
        self._scratch, self._rounded = {}, set()  # a captured step keeps its own
        return fn


def block_bytes(group: Group, model: MLP, k: int, be: Backend) -> tuple[int, int]:
    """Bytes that a block of `k` members allocates while it trains, and those of them that a step uses.

    Parameters
    ----------
    group : Group
    model : MLP
        Of one of its members.
    k : int
    be : Backend
        Where it will train.
    """
    with np.errstate(all="ignore"):  # a rate that overflows shows when it trains
        return _counted(group, model, k, be)


def _counted(group: Group, model: MLP, k: int, be: Backend) -> tuple[int, int]:
    counting = _Counting(be)
    members = [group.members[i % len(group.members)] for i in range(k)]
    block = Block(group, counting, [(m, model) for m in members])
    state = sum(a.nbytes for a in block.memory.flat.values())
    grads = int(block.step.grad_buffer.nbytes)
    n, batch = group.n_rows, group.batch_size
    width = 8 * (k if block.own_order else 1)
    # drawn on the host, in two arrays; then told to the device so many steps at a time
    orders = 0 if block.orders.drawn else 2 * width * n
    orders += width * batch * (ahead if (ahead := block.step.at_once(n // batch)) > 1 else 0)
    for rows in sorted({min(n, batch), n % batch} - {0}, reverse=True):
        block.step(np.zeros(((k, rows) if block.own_order else (rows,)), np.int64))
    hot = counting.n_bytes
    if block.validation is not None:
        size_ = block.evaluation_batch()
        for rows in sorted({min(group.n_valid, size_), group.n_valid % size_} - {0}, reverse=True):
            block.validation(block.valid_rows[..., :rows])
    draws = 0 if block.orders.drawn else 5 * rng.permutation_entries(n, width // 8) * 8
    # when members take the places of others, what belongs to them is there twice for a moment
    return max(counting.n_bytes + orders + draws, 2 * state + grads), hot


def plan(
    groups: list[Group], data: Data, device: Any, *, memory: int | None, block: int | None, workers: int | None,
    keep_models: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    """Decide for each group how many members train together and in how many threads.

    Parameters
    ----------
    groups, data
    device : str, Backend or namespace
    memory, block, workers, keep_models
        As for `fit_many`.

    Returns
    -------
    list of dict
        Per group "members", "parameters", "block", "workers" and "bytes": all that is planned for while it trains.

    Raises
    ------
    ConfigError
        An impossible number.
    OutOfMemoryError
        Not even blocks of one member fit.
    """
    if block is not None:
        block = whole_number("block", block, 1)
    if workers is not None:
        workers = whole_number("workers", workers, 1)
        if workers > 1 and not _many_backends(device):
            raise ConfigError(
                f"workers={workers} needs a back end for each; give device='cpu' or 'numba', found {device!r}"
            )
    be = get_backend(device)
    limit = whole_number("memory", memory, 1) if memory is not None else None
    if limit is None and (free := free_memory(be)) is not None:
        limit = int(_SHARE * free)
    asked = _Asked(be, limit, block, workers, _many_backends(device), keep_models)
    result = []
    taken = data.n_bytes  # with what earlier groups leave
    for group in groups:
        each = _plan_group(group, asked, taken)
        taken += each.pop("left")
        result.append(each)
    return result


@dataclass(frozen=True)
class _Asked:
    """What is asked of the plans of all groups: `limit` in bytes; `many` whether every worker can have a back end."""

    be: Backend
    limit: int | None
    block: int | None
    workers: int | None
    many: bool
    keep_models: bool


def _plan_group(group: Group, asked: _Asked, taken: int) -> dict[str, Any]:
    """Plan for a group beside what is `taken`, in bytes."""
    m, model, be, limit, workers = len(group.members), group.prototype, asked.be, asked.limit, asked.workers
    width = np.dtype(group.dtype).itemsize
    single = _OBJECTS + model.n_parameters * width
    records = sum(member.training["epochs"] for member in group.members) * _RECORD
    counted = functools.cache(
        lambda k: _single_bytes(group, be) if m == 1 else block_bytes(group, model, k, be)
    )
    k = min(asked.block or _cached(group, model, counted, be), m)
    if workers is None:
        useful = int(m * _step_work(group, model) / _WORTH) if asked.many else 1
        workers = min(processors(), max(1, useful))
    if asked.block is None:
        k = max(1, min(k, -(-m // min(workers, m))))
    workers = min(workers, -(-m // k))

    def needed(k: int, workers: int) -> int:
        models = m if asked.keep_models else min(m, workers * k + 1)
        return taken + workers * counted(k)[0] + models * single + records

    while limit is not None and needed(k, workers) > limit and (k > 1 or workers > 1):
        if k > 1:
            k = (k + 1) // 2
        else:
            workers = (workers + 1) // 2
    total = needed(k, workers)
    if limit is not None and total > limit:
        raise OutOfMemoryError(
            f"training {m} members of {model.n_parameters:,} parameters one by one needs {size(total)}, but "
            f"{size(limit)} may be used. Raise memory, use smaller batches or fewer epochs"
            + (
                ", or give keep_models=False and an on_result that saves each model."
                if asked.keep_models
                else "."
            )
        )
    workers = min(workers, -(-m // k))
    left = (m * single if asked.keep_models else 0) + records
    return {
        "members": m, "parameters": model.n_parameters, "block": k, "workers": workers, "bytes": total, "left": left
    }  # fmt: skip


def _single_bytes(group: Group, be: Backend) -> tuple[int, int]:
    """About what a member that is alone takes: counting would take as long as several of its steps."""
    estimate = plan_training(
        list(group.network["sizes"]), batch=min(group.batch_size, group.n_rows),
        moments=len(group.members[0].optimizer.state), dtype=group.dtype, evaluated=group.n_valid,
        host=be.device == "cpu", precision=be.precision,
    )  # fmt: skip
    return estimate.total, estimate.total


def _cached(group: Group, model: MLP, counted: Callable[[int], tuple[int, int]], be: Backend) -> int:
    """Members whose steps stay in the caches."""
    if be.device != "cpu":
        return _MOST_ON_A_DEVICE
    if len(group.members) == 1:
        return 1
    parameters = model.n_parameters * np.dtype(group.dtype).itemsize
    if (2 + len(group.members[0].optimizer.state)) * parameters > _CACHE // 4:
        return 1  # without counting: with what else a step needs, weights, gradients and moments of two are too many
    return max(1, min(_CACHE // max(counted(2)[1] - counted(1)[1], 1), _MOST))


def _step_work(group: Group, model: MLP) -> float:
    """About what a member's step costs, in multiplications: products, formulas for activations, and the update."""
    batch, units = min(group.batch_size, group.n_rows), sum(model.sizes[1:])
    return 3 * batch * model.n_parameters + EASY * (6 * batch * units + 4 * model.n_parameters)


def _many_backends(device: Any) -> bool:
    """Whether every worker can have a back end of its own: on the host, by name."""
    return isinstance(device, str) and get_backend(device).device == "cpu"
