"""A device on the CPU: runs the CUDA source of `xpnet.backend.cuda`, compiled by the C++ compiler of the machine.

What is real here: the source of every kernel, its index arithmetic, grids, blocks and arguments, the layout of
products, and what a recorded step refers to. What is not: the compiler and instructions of a GPU, its memory model
beyond barriers and shuffles, cublasLt and the driver. The threads of a block take turns; one that waits at a
barrier or a shuffle is set aside until the others of its block or warp are there, and threads that meet at
different places are reported as an error, as are blocks that never finish.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.backend.cuda import resident, schedule, tiles
from xpnet.backend.cuda.backend import CudaBackend

COMPILER = shutil.which("g++") or shutil.which("c++")

_SHIM = r"""
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>
#include <ucontext.h>
using std::fabs;
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
struct Place { unsigned x, y; };
static Place blockIdx, threadIdx, blockDim, gridDim;

static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
template <class To, class From> static inline To same_bits(From x) { To y; std::memcpy(&y, &x, sizeof y); return y; }
static inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
static inline float __uint_as_float(unsigned x) { return same_bits<float>(x); }
static inline float __int_as_float(unsigned x) { return same_bits<float>(x); }
static inline double __longlong_as_double(long long x) { return same_bits<double>(x); }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __dadd_rn(double a, double b) { return a + b; }

// --- threads that wait for each other ---------------------------------------------------------------
enum State { READY, AT_WARP, AT_TEAM, AT_BLOCK, DONE };
struct Thread { jmp_buf at; ucontext_t start; State state; bool started; int line; };
static Thread threads[1024];
static unsigned long long exchange[2][1024];  // taken in turns, so that nobody overwrites what others still read
static int turn[1024];
static jmp_buf scheduler;
static int current, n_threads;
static void (*body)();
static char* stacks = 0;
static const size_t STACK = 1 << 16;

static void wait(State state, int line) {
    threads[current].state = state;
    threads[current].line = line;
    if (!_setjmp(threads[current].at)) _longjmp(scheduler, 1);
}
static void forever() {  // a thread is used again for the next block
    for (;;) {
        body();
        wait(DONE, 0);
    }
}
template <class V> static V shuffle_xor(V v, int step, int line) {
    const int mine = current, now = turn[mine];
    turn[mine] = !now;
    std::memcpy(&exchange[now][mine], &v, sizeof v);
    wait(AT_WARP, line);
    V other;
    std::memcpy(&other, &exchange[now][mine ^ step], sizeof v);
    return other;
}
// the matrix units: every lane of a warp hands in its numbers, and takes its own of the result
static float of_lanes[1024][6];
static float to_tf32(float x) { return same_bits<float>((same_bits<unsigned>(x) + 0x1000u) & ~0x1fffu); }
static void multiply_tf32_at(float (&d)[4], const float (&a)[4], const float (&b)[2], int line) {
    const int mine = current, first = mine / 32 * 32, group = mine % 32 / 4, lane = mine % 4;
    for (int u = 0; u < 4; ++u) of_lanes[mine][u] = a[u];
    for (int u = 0; u < 2; ++u) of_lanes[mine][4 + u] = b[u];
    wait(AT_WARP, line);
    for (int u = 0; u < 4; ++u)
        for (int k = 0; k < 8; ++k)
            d[u] += of_lanes[first + 4 * group + k % 4][u / 2 + k / 4 * 2]
                  * of_lanes[first + 4 * (2 * lane + u % 2) + k % 4][4 + k / 4];
    wait(AT_WARP, line);
}
#define multiply_tf32(d, a, b) multiply_tf32_at(d, a, b, __LINE__)
#define __shfl_xor_sync(mask, v, step) shuffle_xor(v, step, __LINE__)
#define __syncthreads() wait(AT_BLOCK, __LINE__)
#define __noinline__
#define team_sync(team) wait(AT_TEAM, __LINE__)  // of 256 threads
#define __threadfence()
#define __trap() std::abort()
static inline long long clock64() { static long long clocks = 0; return clocks += 1 << 20; }
template <class T> static inline T atomicAdd(T* x, T y) { const T before = *x; *x += y; return before; }

static void resume(int t) {
    current = t;
    threadIdx.x = t % blockDim.x;
    threadIdx.y = t / blockDim.x;
    if (_setjmp(scheduler)) return;
    if (threads[t].started) _longjmp(threads[t].at, 1);
    threads[t].started = true;
    setcontext(&threads[t].start);
}
static int release(int first, int last, State state) {  // 1: they go on, 0: some are elsewhere, -1: at unlike places
    int line = 0, n = 0;
    for (int t = first; t < last; ++t) {
        if (threads[t].state == DONE) continue;
        if (threads[t].state != state) return 0;
        if (n++ && threads[t].line != line) return -1;
        line = threads[t].line;
    }
    if (n == 0) return 0;
    if (state == AT_WARP && n != last - first) return -1;  // a shuffle wants every thread of the warp
    for (int t = first; t < last; ++t) if (threads[t].state != DONE) threads[t].state = READY;
    return 1;
}
static int run_block() {
    if (!stacks) stacks = (char*)std::malloc(STACK * 1024);
    for (int t = 0; t < n_threads; ++t) {
        Thread& f = threads[t];
        f.state = READY;
        turn[t] = 0;
        if (f.started) continue;
        getcontext(&f.start);
        f.start.uc_stack.ss_sp = stacks + STACK * t;
        f.start.uc_stack.ss_size = STACK;
        f.start.uc_link = 0;
        makecontext(&f.start, forever, 0);
    }
    for (;;) {
        bool moved = false, alive = false;
        for (int w = 0; w < n_threads; w += 32) {
            const int last = w + 32 < n_threads ? w + 32 : n_threads;
            for (int t = w; t < last; ++t)
                if (threads[t].state == READY) { resume(t); moved = true; }
            const int went = release(w, last, AT_WARP);
            if (went < 0) return 1;
            moved |= went > 0;
        }
        for (int first = 0; first + 256 <= n_threads; first += 256) {
            const int went = release(first, first + 256, AT_TEAM);
            if (went < 0) return 1;
            moved |= went > 0;
        }
        for (int t = 0; t < n_threads; ++t) alive |= threads[t].state != DONE;
        if (!alive) return 0;
        const int went = release(0, n_threads, AT_BLOCK);
        if (went < 0 || (!moved && went == 0)) return 1;
    }
}
template <class... P, size_t... I> static void with(void (*k)(P...), void** a, std::index_sequence<I...>) {
    k(*(typename std::remove_const<P>::type*)a[I]...);
}
template <class... P> static void invoke(void (*k)(P...), void** a) { with(k, a, std::index_sequence_for<P...>()); }
static void** arguments;
static int run(void (*thread)(), int waits, unsigned gx, unsigned gy, unsigned bx, unsigned by, void** args) {
    gridDim = {gx, gy};
    blockDim = {bx, by};
    n_threads = bx * by;
    arguments = args;
    body = thread;
    for (blockIdx.y = 0; blockIdx.y < gy; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < gx; ++blockIdx.x) {
            if (waits) {
                if (run_block()) return 1;
                continue;
            }
            for (threadIdx.y = 0; threadIdx.y < by; ++threadIdx.y)
                for (threadIdx.x = 0; threadIdx.x < bx; ++threadIdx.x) thread();
        }
    return 0;
}
"""


class Kernels:
    """Compiled kernels: sources are collected first, because one run of the compiler for all is far quicker."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.sources: dict[str, str] = {}
        self.compiled: dict[str, Any] = {}

    def add(self, name: str, source: str) -> None:
        assert self.sources.setdefault(name, source) == source, f"two kernels are called {name}"

    def function(self, name: str) -> Any:
        if name not in self.compiled:
            self.compile_added()
        return self.compiled[name]

    def compile_added(self) -> None:
        """Compile all that was added since, in one run of the compiler."""
        if missing := [n for n in self.sources if n not in self.compiled]:
            self.compile(missing)

    def compile(self, names: Sequence[str]) -> None:
        parts = [_SHIM]
        for name in names:
            source = self.sources[name].replace(tiles.MATRIX_UNITS, "").replace(resident.TEAM_SYNC, "")
            waits = int("__shfl" in source or "__syncthreads" in source)
            parts += [
                source,
                f"namespace of_{name} {{ static void thread() {{ invoke({name}, arguments); }} }}",
                f'extern "C" int run_{name}(unsigned gx, unsigned gy, unsigned bx, unsigned by, void** a) '
                f"{{ return run(of_{name}::thread, {waits}, gx, gy, bx, by, a); }}",
            ]
        text = "\n".join(parts)
        stem = self.folder / f"kernels_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        stem.with_suffix(".cpp").write_text(text, encoding="utf-8")
        # no contraction of products and sums: results are those that the formulas say
        options = ["-std=c++17", "-O0", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-shared", "-fPIC", "-w"]
        command = [COMPILER, *options, str(stem.with_suffix(".cpp")), "-o", str(stem.with_suffix(".so"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:4000]
        library = ctypes.CDLL(str(stem.with_suffix(".so")))
        for name in names:
            self.compiled[name] = getattr(library, f"run_{name}")


_C_NAMES = {
    "float": "float32", "double": "float64", "long long": "int64", "unsigned char": "uint8", "bool": "bool",
    "int": "int32", "word": "uint64", "unsigned": "uint32", "unsigned short": "uint16",
    "signed char": "int8", "short": "int16", "unsigned long long": "uint64",
}  # fmt: skip


def parameter_types(name: str, source: str) -> list[tuple[str, bool]]:
    """NumPy's types of a kernel's parameters, and whether each is a pointer; from the source itself."""
    aliases = {alias: real for real, alias in re.findall(r"typedef ([\w ]+) (\w);", source)}
    found = re.search(rf"\b{name}\(([^)]*)\)\s*{{", source)
    assert found, f"no kernel {name} in its source"
    types = []
    for parameter in found.group(1).split(","):
        words = parameter.replace("*", " * ").split()
        pointer = "*" in words
        kind = " ".join(w for w in words[:-1] if w not in ("const", "*"))
        types.append((_C_NAMES[aliases.get(kind, kind)], pointer))
    return types


class Emulator:
    """A `Runtime` whose device memory is NumPy's and whose kernels run on the CPU.

    Parameters
    ----------
    kernels : Kernels
    dry : bool, default False
        Collect the kernels' sources without running anything.
    """

    xp = np
    name, device = "emulated", "cuda:0"

    def __init__(self, kernels: Kernels, dry: bool = False):
        self.kernels, self.dry = kernels, dry
        self.autotune, self.algorithms = False, []
        self.record: list[schedule.Operation] | None = None
        self.epilogues = True  # whether products add biases
        self._random = np.random.default_rng(0)
        self.log: list[str] = []  # what was asked for since it was last emptied
        self._checked: dict[str, list[tuple[str, bool]]] = {}

    def asarray(self, values: Any, dtype: str | None) -> np.ndarray:
        self._must_not_record("asarray")
        return np.array(values, dtype=dtype)

    def to_numpy(self, x: np.ndarray) -> np.ndarray:
        self._must_not_record("to_numpy")
        return np.asarray(x)

    def empty(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        self._must_not_record("empty")
        x = np.empty(shape, dtype)
        x.view(np.uint8 if x.ndim else x.dtype)[...] = 0 if self.dry else 1 if x.ndim == 0 else 0xAB
        return x

    def _must_not_record(self, what: str) -> None:
        assert self.record is None, f"{what} while a step is recorded"

    def synchronize(self) -> None:
        self._must_not_record("synchronize")

    def address(self, x: np.ndarray) -> int:
        assert isinstance(x, np.ndarray), f"not on the device: {x!r}"
        return x.ctypes.data

    def free_memory(self) -> int | None:
        return None

    def lost(self, error: BaseException) -> str | None:
        return None

    def _do(self, operation: schedule.Operation) -> None:
        self.log.append(operation.what)
        if self.record is not None:
            self.record.append(operation)
        elif not self.dry:
            operation.run(0)

    def launch(self, name, source, grid, block, args) -> None:
        if name not in self._checked:
            self.kernels.add(name, source)
            self._checked[name] = parameter_types(name, source)
        types = self._checked[name]
        assert len(types) == len(args), f"{name} takes {len(types)} arguments, got {len(args)}"
        for k, ((kind, pointer), a) in enumerate(zip(types, args, strict=True)):
            assert isinstance(a, np.ndarray) == pointer and str(a.dtype) == kind, (
                f"{name}, argument {k}: {a.dtype}"
            )
        assert 0 < block[0] * block[1] <= 1024 and grid[0] < 2**31 and 0 < grid[1] <= 65535 and grid[0] > 0
        bounds = re.search(r"__launch_bounds__\((\d+)", source)
        assert bounds and block[0] * block[1] <= int(bounds.group(1))
        boxes = [
            ctypes.c_void_p(a.ctypes.data) if p else np.array([a])
            for (_, p), a in zip(types, args, strict=True)
        ]
        places = [ctypes.addressof(b) if isinstance(b, ctypes.c_void_p) else b.ctypes.data for b in boxes]
        table = (ctypes.c_void_p * len(places))(*places)

        def run(lane: int) -> None:
            status = self.kernels.function(name)(*grid, *block, table)
            assert status == 0, f"{name}: threads wait for each other at different places"
            del boxes[len(boxes) :]  # the table points into them

        call = schedule.Call(name, source, grid, block, tuple(args))
        self._do(schedule.launch(call, run, schedule.pointers(name, source), self.address))

    def multiply(self, product, a, b, out, precision, bias=None) -> bool:
        def matrix(x, m, transposed):
            values = x
            if x.dtype == np.uint16:
                bits = _flat(x, m, product.batch).astype(np.uint32) << 16
                stack = bits.view(np.float32)
            else:
                stack = _flat(values, m, product.batch)
            return np.swapaxes(stack, -1, -2) if transposed else stack

        def run(lane: int) -> None:
            first = matrix(b, product.first, product.first.transposed)
            second = matrix(a, product.second, product.second.transposed)
            assert first.shape[-2:] == (product.m, product.k) and second.shape[-2:] == (product.k, product.n)
            result = _flat(out, product.result, product.batch)
            result[...] = first @ second
            if product.bias is not None:
                result += _biases(bias, product)
            if product.relu:
                np.maximum(result, 0.0, out=result)

        assert precision != "bf16" or a.dtype == b.dtype == np.uint16
        given = (a, b) if bias is None else (a, b, bias)
        reads, writes = (tuple(schedule.region(self.address(x), x) for x in xs) for xs in (given, (out,)))
        assert (bias is None) == (product.bias is None)
        if product.bias is not None and not self.epilogues:
            return False
        self._do(schedule.Operation("multiply" if bias is None else "multiply_bias", run, reads, writes))
        return True

    #: Multiprocessors.
    blocks = 3

    def written_down(self, fn: Callable[[], None]) -> list[schedule.Operation]:
        record: list[schedule.Operation] = []
        self.record = record
        try:
            fn()
        finally:
            self.record = None
        return record

    def stay(self, steps: resident.Steps) -> Callable[[], None]:
        self.add_steps(steps.name, steps.source)

        def replay() -> None:
            self.cooperate(steps.name, (steps.table, np.zeros(1, np.uint64), np.int32(0), *steps.args))

        return replay

    def add_steps(self, name: str, source: str) -> None:
        memory = "static char alignas(16) shared_memory[232448];"
        self.kernels.add(name, source.replace(resident.SHARED_MEMORY, memory))

    def cooperate(self, name: str, args: Sequence[Any]) -> None:
        """Phase by phase, in each the blocks one after another, as they cannot wait for each other here."""
        table = args[0]
        phases = np.split(table, np.flatnonzero(table[:, 0] == resident.ALL_WAIT))
        for phase in phases:
            works = np.ascontiguousarray(phase[phase[:, 0] != resident.ALL_WAIT])
            given = (works, args[1], np.int32(len(works)), *args[3:])
            boxes = [
                ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else np.array([a]) for a in given
            ]
            places = [b.ctypes.data if isinstance(b, np.ndarray) else ctypes.addressof(b) for b in boxes]
            self.log.append("phase")
            if not self.dry:
                pointers = (ctypes.c_void_p * len(places))(*places)
                status = self.kernels.function(name)(self.blocks, 1, 32, 16, pointers)
                assert status == 0, "threads wait for each other at different places"

    def timed(self, fn: Callable[[], None]) -> float:
        begun = time.perf_counter()
        fn()
        return time.perf_counter() - begun

    def capture(self, fn: Callable[[], None]) -> Callable[[], None]:
        return self.replay(self.written_down(fn))

    def replay(self, record: Sequence[schedule.Operation]) -> Callable[[], None]:
        waits_for = schedule.dependencies(record)

        def replay() -> None:
            """In any order that the dependencies allow, another one each time."""
            left, done = list(range(len(record))), set()
            while left and not self.dry:
                ready = [i for i in left if waits_for[i] <= done]
                i = ready[self._random.integers(len(ready))]
                record[i].run(0)
                left.remove(i)
                done.add(i)

        replay.record = record
        return replay


def _biases(bias: np.ndarray, product: Any) -> np.ndarray:
    """The vectors of m numbers that are added, (batch, m, 1), from the first element of `bias`."""
    size = bias.dtype.itemsize
    return np.lib.stride_tricks.as_strided(
        bias, (product.batch, product.m, 1), (product.bias * size, size, size)
    )


def _flat(x: np.ndarray, m: Any, batch: int) -> np.ndarray:
    """The column-major matrices that `m` describes, from the first element of `x`; (batch, rows, columns)."""
    size = x.dtype.itemsize
    return np.lib.stride_tricks.as_strided(
        x, (batch, m.rows, m.columns), (m.stride * size, size, m.leading * size)
    )


def ready(kernels: Kernels, run: Callable[[CudaBackend], Any], *given: Any, **options: Any) -> Any:
    """What `run` gives on an emulated device, every kernel of which is compiled in one run of the compiler."""
    with np.errstate(all="ignore"):
        run(CudaBackend(Emulator(kernels, dry=True), *given, **options))
    kernels.compile_added()
    return run(CudaBackend(Emulator(kernels), *given, **options))
