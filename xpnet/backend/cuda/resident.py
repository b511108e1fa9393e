"""Many captured steps as one kernel, which stays on the device until they are done.

In a graph each operation is a launch, and between two that follow one another the device empties and fills again. Here
as many blocks as fit the device are launched once, and do the operations phase by phase: all that wait for nothing
that is left to do, then, when every block has finished, the next. The code of the operations is that of their own
kernels; only products, which a library computes elsewhere, have one of xpnet's own (`tiles`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from .phases import Turn, turns
from .products import Product
from .schedule import Call, Operation

#: Threads of a block, as (32, 16); kernels of half as many have two blocks of their own side by side in it.
THREADS = 512
TEAM = 256
#: Arguments of a kernel, of up to 8 bytes each: what CUDA takes from 12.1 on, and before.
ARGUMENTS, FEWER_ARGUMENTS = 4000, 500
#: Multiplications of a step from which on the time between its operations does not count. Not measured.
_LARGE = 1 << 31
#: What the table says where all blocks wait for each other.
ALL_WAIT = -2

# A block of 256 threads that is half of one: its threads wait for each other by themselves.
TEAM_SYNC = """
static __device__ __forceinline__ void team_sync(const int team) {
    asm volatile("bar.sync %0, 256;" :: "r"(team + 1) : "memory");
}
"""
# Memory that operations use in turn; how much there is is said at the launch.
SHARED_MEMORY = "extern __shared__ uint4 shared_memory[];"

# Every block waits for all others. Numbers that others have written can be read afterwards: the fence of the thread
# that waits empties the cache of its multiprocessor. `arrived` counts on from launch to launch: each adds a multiple of
# the number of blocks, so what it began with can be told from it as long as a block has not arrived itself.
_PRELUDE = """
struct Index { unsigned x, y; };
struct Work { int what, first, tasks, across; };
static __device__ __forceinline__ void everyone(unsigned long long* arrived, const unsigned goal) {
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        __threadfence();
        atomicAdd(arrived, 1ull);
        for (unsigned n = 1; int(unsigned(*(volatile unsigned long long*)arrived) - goal) < 0; ++n)
            if (n == 1u << 24) __trap();  // after ten seconds or so: rather an error than a device that hangs
        __threadfence();
    }
    __syncthreads();
}
"""

_KERNEL = """
extern "C" __global__ void __launch_bounds__(512, 1) resident(
        const int* table, unsigned long long* arrived, const int works PARAMETERS) {
    SHARED_MEMORY
    Work* const work = (Work*)shared_memory;
    const int thread = threadIdx.y * 32 + threadIdx.x, team = thread / 256, of_team = thread % 256;
    for (int i = thread; i < 4 * works; i += 512) ((int*)work)[i] = table[i];
    char* const arena = (char*)(work + works);
    __syncthreads();
    const unsigned long long before = *(volatile unsigned long long*)arrived;
    unsigned goal = unsigned(before - before % gridDim.x);  // its last bits are enough
#pragma unroll 1
    for (int w = 0; w < works; ++w) {
        const Work now = work[w];
        const Index whole = {unsigned(now.across), unsigned(now.tasks / (now.across > 0 ? now.across : 1))};
        const bool odd = now.what % 2 == 1;
        switch (now.what / 2) {
CASES
        default:
            goal += gridDim.x;
            everyone(arrived, goal);
        }
    }
}
"""

# The tasks of an operation go to blocks in turn, beginning with number `first`; those for half a block to the first
# halves of all blocks, and then to the second ones: few tasks have a multiprocessor each.
_BY_BLOCKS = """        case NUMBER: {
            const int units = gridDim.x;
            int task = (int(blockIdx.x) + units - now.first) % units;
            if (task < now.tasks) __syncthreads();
            for (; task < now.tasks; task += units) {
                NAME({unsigned(task % now.across), unsigned(task / now.across)}, whole,
                     {unsigned(thread % WIDE), unsigned(thread / WIDE)}, {WIDE, HIGH}, 0, arena, ARGUMENTS);
                __syncthreads();
            }
            break;
        }
"""
_BY_TEAMS = """        case NUMBER: {
            const int units = 2 * gridDim.x;
            int task = (int(blockIdx.x + team * gridDim.x) + units - now.first) % units;
            for (; task < now.tasks; task += units) {
                NAME({unsigned(task % now.across), unsigned(task / now.across)}, whole,
                     {unsigned(of_team % WIDE), unsigned(of_team / WIDE)}, {WIDE, HIGH}, team, arena + team * HALF,
                     ARGUMENTS);
                team_sync(team);
            }
            break;
        }
"""


@dataclass(frozen=True, eq=False)
class Steps:
    """A kernel that does many steps.

    Attributes
    ----------
    name, source : str
        Its parameters are the table, the count of blocks that have arrived, 0 before the first launch, the number of
        rows of the table, and `args`.
    table : (W, 4) int32
        In order, twice the number of an operation, plus 1 in a step of an odd number; the unit that has its first
        block; how many blocks it has, and how many across. Or that all wait for each other.
    args : tuple
        Of all operations of a step, one after the other.
    shared : int
        Bytes of shared memory that a block needs.
    """

    name: str
    source: str
    table: np.ndarray
    args: tuple[Any, ...]
    shared: int


def too_large(products: Sequence[Product]) -> str | None:
    """Why a step with these products had better be a graph, if so."""
    n = sum(p.m * p.n * p.k * p.batch for p in products)
    return f"a step has {n:.1e} multiplications: its launches do not count" if n > _LARGE else None


def assemble(records: tuple[Sequence[Operation], Sequence[Operation]], n: int, blocks: int) -> Steps | str:
    """Make one kernel of `n` steps for a device with so many multiprocessors, or say why there is none.

    `records` are a step of an even and of an odd number: the same operations, on other memory.
    """
    calls: list[tuple[Call, Call]] = []
    for even, odd in zip(*records, strict=True):
        if even.call is None or odd.call is None:
            return f"{even.what} is left to the library"
        if prod(even.call.block) not in (TEAM, THREADS):
            return f"{even.what} has blocks of {even.call.block[0]} x {even.call.block[1]} threads"
        calls.append((even.call, odd.call))
    functions = {call.name: _Function(call) for call, _ in calls}
    half = max((f.shared for f in functions.values() if f.threads == TEAM), default=0)
    table = _table(turns(records, n), [call for call, _ in calls], blocks)
    shared = max([2 * half, *(f.shared for f in functions.values())]) + table.nbytes
    parameters: list[str] = []
    args: list[Any] = []
    cases = ""
    for i, both in enumerate(calls):
        function = functions[both[0].name]
        given = function.given(f"p{i}", *both)
        cases += function.case(i, both[0].block, half, [expression for expression, _ in given])
        for _, own in given:
            parameters += own
        args += [
            x for a, b in zip(both[0].args, both[1].args, strict=True) for x in ([a] if a is b else [a, b])
        ]
    if len(args) > ARGUMENTS:
        return f"a step has {len(args)} arguments, a kernel takes {ARGUMENTS}"
    text = _PRELUDE + TEAM_SYNC + "".join(function.text for function in functions.values()) + _KERNEL
    pieces = {
        "PARAMETERS": "".join(f", {p}" for p in parameters),
        "SHARED_MEMORY": SHARED_MEMORY,
        "CASES": cases,
    }
    for word, piece in pieces.items():
        text = text.replace(word, piece)
    name = f"resident_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    text = text.replace(" resident(", f" {name}(")
    return Steps(name, f"namespace of_{name} {{\n{text}}}\n", table, tuple(args), shared)


def _table(when: Sequence[Turn], calls: Sequence[Call], blocks: int) -> np.ndarray:
    """The rows of `Steps.table`."""
    rows: list[tuple[int, int, int, int]] = []
    units = before = 0  # blocks that have work in this phase: the next operation begins behind them
    for turn in sorted(when, key=lambda turn: (turn.phase, not turn.urgent, -turn.work)):
        if turn.phase > before:
            rows.append((ALL_WAIT, 0, 0, 0))
            units, before = 0, turn.phase
        grid, each = calls[turn.number].grid, prod(calls[turn.number].block) // TEAM
        begin = units % (2 * blocks // each)
        rows.append((2 * turn.number + turn.odd, begin, prod(grid), grid[0]))
        units = begin + prod(grid)
    return np.array(rows, np.int32)


class _Function:
    """A kernel as a function that blocks of another one call: it is told which block and thread it is."""

    def __init__(self, call: Call):
        self.name, self.threads = call.name, prod(call.block)
        head = re.search(
            rf'extern "C" __global__ void __launch_bounds__\([^)]*\) {call.name}\(([^)]*)\)', call.source
        )
        if head is None:
            raise ValueError(f"no kernel {call.name!r} in its source")
        self._parameters = [" ".join(p.split()) for p in head.group(1).split(",")]
        before, body = call.source[: head.start()], call.source[head.end() :]
        aliases = {alias: real for real, alias in re.findall(r"typedef ([\w ]+) (\w+);", before)}
        self._scope = f"of_{call.name}::" if f"namespace of_{call.name} " in before else ""
        self._aliases = aliases if self._scope else {}
        sizes = {**_SIZES, "T": (size := _SIZES.get(aliases.get("T", ""), 0)), "Four": 4 * size}
        body, self.shared = _shared_apart(body, sizes)
        if self.threads == TEAM:
            body = body.replace("__syncthreads()", "team_sync(team)")
        given = ", ".join(
            ["const Index blockIdx, const Index gridDim, const Index threadIdx, const Index blockDim",
             "const int team, char* const arena", *self._parameters]
        )  # fmt: skip
        self.text = f"{before}static __device__ __noinline__ void {call.name}({given}){body}"

    def given(self, prefix: str, even: Call, odd: Call) -> list[tuple[str, list[str]]]:
        """Of each parameter, what is handed to it, and the parameters of the whole kernel that this is made of."""
        found = []
        for parameter, a, b in zip(self._parameters, even.args, odd.args, strict=True):
            kind, name = parameter.rsplit(maxsplit=1)
            words = [self._scope + w if w.rstrip("*") in self._aliases else w for w in kind.split()]
            own = [f"{' '.join(words)} {prefix}_{name}"]
            if a is not b:
                own.append(f"{own[0]}_odd")
            expression = f"{prefix}_{name}" if a is b else f"(odd ? {prefix}_{name}_odd : {prefix}_{name})"
            found.append((expression, own))
        return found

    def case(self, number: int, block: tuple[int, int], half: int, given: Sequence[str]) -> str:
        """What a block does where it is asked for operation `number`, whose own blocks are such."""
        text = _BY_TEAMS if self.threads == TEAM else _BY_BLOCKS
        pieces = {
            "NUMBER": str(number), "NAME": self._scope + self.name, "WIDE": str(block[0]),
            "HIGH": str(block[1]), "HALF": str(half), "ARGUMENTS": ", ".join(given),
        }  # fmt: skip
        for word, piece in pieces.items():
            text = text.replace(word, piece)
        return text


_SIZES = {"float": 4, "double": 8}


def _shared_apart(body: str, sizes: Mapping[str, int]) -> tuple[str, int]:
    """Put the shared arrays of a kernel's body into memory that is handed to it; how many bytes they take."""
    used = 0

    def declared(found: re.Match[str]) -> str:
        nonlocal used
        kind, lines = found[1], []
        for name, length in re.findall(r"(\w+)\[(\d+)\]", found[2]):
            lines.append(f"{kind}* const {name} = ({kind}*)(arena + {used});")
            used += -(-int(length) * sizes[kind] // 16) * 16
        return " ".join(lines)

    return re.sub(r"__shared__ (\w+) ([^;]+);", declared, body), used


class Quicker:
    """Two ways to do the same steps; each is timed while it does some of them, and the quicker one does all others.

    Parameters
    ----------
    ways : dict of str to callable
    timed : callable
        Does what it is given, and returns how many seconds that took.
    record : list of dict
        Gets what was chosen, and both times.
    """

    def __init__(
        self, ways: Mapping[str, Callable[[], None]], timed: Callable[[Callable[[], None]], float],
        record: list[dict[str, Any]],
    ):  # fmt: skip
        self.ways, self._timed, self._log = dict(ways), timed, record
        self._seconds: dict[str, float] = {}
        self._left = [
            name for name in ways for _ in range(2)
        ]  # the first time is not counted: code is loaded
        self._chosen: Callable[[], None] | None = None
        self.record = next(iter(ways.values())).record  # type: ignore[attr-defined]

    def __call__(self) -> None:
        if self._chosen is not None:
            self._chosen()
            return
        name = self._left[0]
        self._seconds[name] = self._timed(self.ways[name])
        del self._left[0]  # now, as what was interrupted is to be timed again
        if not self._left:
            best = min(self._seconds, key=self._seconds.__getitem__)
            self._chosen = self.ways[best]
            microseconds = {k: 1e6 * s for k, s in self._seconds.items()}
            self._log.append({"steps": "many at once", "chosen": best, "microseconds": microseconds})
