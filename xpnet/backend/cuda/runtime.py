"""CuPy as a `Runtime`: memory, launches, products by cublasLt, and steps captured as CUDA graphs.

This is the part that needs a device. What it is asked for is decided in `backend.py`, and tested without one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import numpy as np

from ...errors import DeviceError
from .. import Array
from . import cublaslt
from .products import Product
from .resident import FEWER_ARGUMENTS, THREADS, Steps
from .schedule import LANES, Call, Operation, cost, dependencies, lanes, launch, pointers, region

#: Candidates that are timed where autotuning was asked for, and how often each runs.
_CANDIDATES, _REPEATS = 16, 20
#: The version of CUDA from which on kernels take more arguments.
_MORE_ARGUMENTS = 12010
# Keeps the device from what follows, for so many of its clocks.
_BUSY = """
extern "C" __global__ void __launch_bounds__(32, 1) busy(const long long clocks) {
    const long long start = clock64();
    while (clock64() - start < clocks) {}
}
"""
#: About a millisecond: longer than a host takes to hand over some hundred arguments.
_CLOCKS = 1 << 21
#: What products are called in a record.
MULTIPLY = "multiply"
#: Bytes that the address of a bias has to be a multiple of for a product that adds it: kernels read vectors of them.
_BIAS_ALIGNMENT = 16


class CupyRuntime:
    """One CUDA device.

    Everything runs on the current stream of the calling thread, in order; a captured step has streams of its own
    only while it is recorded.

    Parameters
    ----------
    number : int, default 0
    autotune : bool, default False
        Time several algorithms for each product before its first use, instead of trusting the library's choice.
        The last bits of results then depend on the timing; `algorithms` says what was chosen.

    Raises
    ------
    DeviceError
        CUDA cannot be used.
    """

    #: Multiprocessors.
    blocks: int
    #: Streams that a captured step uses at most.
    lanes = LANES

    def __init__(self, number: int = 0, autotune: bool = False):
        import cupy

        self._cupy = self.xp = cupy
        self.name, self.device = "cupy", f"cuda:{number}"
        self._device = cupy.cuda.Device(number)
        self._device.use()
        self.blocks = int(self._device.attributes["MultiProcessorCount"])
        self.autotune = autotune
        self._functions: dict[str, Any] = {}
        self._plans: dict[tuple[Any, ...], tuple[cublaslt.Description, cublaslt.Algorithm] | None] = {}
        self._workspaces: dict[int, Any] = {}  # of lanes that have products
        self._record: list[Operation] | None = None
        self._warned = False
        self._pointers: dict[str, tuple[str, ...]] = {}
        #: Per product: precision, alignment and what was chosen, for the record of a run.
        self.algorithms: list[dict[str, Any]] = []

    # --- memory ---------------------------------------------------------------------------------
    def asarray(self, values: Any, dtype: str | None) -> Array:
        with self._device:
            return self._cupy.asarray(values, dtype=dtype)

    def to_numpy(self, x: Array) -> np.ndarray:
        return self._cupy.asnumpy(x)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        with self._device:
            return self._cupy.empty(shape, dtype)

    def synchronize(self) -> None:
        with self._device:
            self._cupy.cuda.get_current_stream().synchronize()

    def address(self, x: Array) -> int:
        return x.data.ptr

    def free_memory(self) -> int:
        """Bytes: what the driver has, and what CuPy holds for later."""
        with self._device:
            free, _ = self._cupy.cuda.runtime.memGetInfo()
            return int(free + self._cupy.get_default_memory_pool().free_bytes())

    def lost(self, error: BaseException) -> str | None:
        cuda = self._cupy.cuda
        known = (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError)
        return str(error) if isinstance(error, known) else None

    # --- kernels --------------------------------------------------------------------------------
    def launch(
        self, name: str, source: str, grid: tuple[int, int], block: tuple[int, int], args: Sequence[Any]
    ) -> None:
        call = Call(name, source, grid, block, tuple(args))
        if self._record is None:
            with self._device:
                self._function(call)(grid, block, call.args)
            return
        if name not in self._pointers:
            self._pointers[name] = pointers(name, source)

        def run(lane: int) -> None:
            self._function(call)(grid, block, call.args)

        self._record.append(launch(call, run, self._pointers[name], self.address))

    def _function(self, call: Call) -> Any:
        """The kernel of a call, compiled when it is first used: before a step is captured, it runs once."""
        if call.name not in self._functions:
            with self._device:
                self._functions[call.name] = self._cupy.RawModule(code=call.source).get_function(call.name)
        return self._functions[call.name]

    # --- products -------------------------------------------------------------------------------
    @cached_property
    def _handle(self) -> cublaslt.Handle:
        with self._device:
            return cublaslt.Handle(cublaslt.Library())

    def _workspace(self, lane: int) -> int:
        if lane not in self._workspaces:
            self._workspaces[lane] = self.empty((cublaslt.WORKSPACE,), "uint8")
        return self._workspaces[lane].data.ptr

    def multiply(
        self, product: Product, a: Array, b: Array, out: Array, precision: str | None, bias: Array | None = None
    ) -> bool:  # fmt: skip
        arrays = (b, a, out) if bias is None else (b, a, out, bias)
        addresses = tuple(self.address(x) for x in arrays)
        with self._device:
            plan = self._plan(product, precision, addresses)
        if plan is None:
            return False
        description, algorithm = plan

        def run(lane: int, keep: tuple[Array, ...] = arrays) -> None:  # a record needs the arrays alive
            stream = self._cupy.cuda.get_current_stream().ptr
            self._handle.multiply(description, algorithm, addresses, self._workspace(lane), stream)

        if self._record is None:
            with self._device:
                run(0)
            return True
        reads = tuple(region(self.address(x), x) for x in arrays if x is not out)
        self._record.append(Operation(MULTIPLY, run, reads, (region(self.address(out), out),)))
        return True

    def _plan(
        self, product: Product, precision: str | None, addresses: Sequence[int]
    ) -> tuple[cublaslt.Description, cublaslt.Algorithm] | None:
        """How the library computes a product; None where it cannot, which is an error unless there is a bias."""
        alignments = tuple(cublaslt.alignment(x) for x in addresses)
        key = (product, precision, alignments)
        if key not in self._plans:
            description = cublaslt.Description(self._handle.library, product, precision)
            n = _CANDIDATES if self.autotune else 1
            if product.bias is None:
                found, why = self._handle.algorithms(description, alignments, n), ""
            else:
                found, why = self._with_bias(description, alignments, addresses, n)
            self._plans[key] = self._chosen(description, precision, found, addresses) if found else None
            if not found:
                self.algorithms.append(
                    {**_of(description, precision, alignments), "algorithm": None, "why": why}
                )
        return self._plans[key]

    def _with_bias(
        self, description: cublaslt.Description, alignments: Sequence[int], addresses: Sequence[int], n: int
    ) -> tuple[list[cublaslt.Algorithm], str]:
        """Algorithms that add a bias, each tried once, as the library may propose what it cannot do; or why none is."""
        product = description.product
        each = (product.bias or 0) * np.dtype(product.dtype).itemsize if product.batch > 1 else 0
        if alignments[3] < _BIAS_ALIGNMENT or each % _BIAS_ALIGNMENT:
            # nothing tells the library how a bias is aligned, and its kernels may read several numbers at a time
            return [], f"the bias is not aligned to {_BIAS_ALIGNMENT} bytes"
        found: list[cublaslt.Algorithm] = []
        refused: dict[cublaslt.Algorithm, str] = {}
        try:
            description.add(addresses[3])
            for most in dict.fromkeys((n, _CANDIDATES)):  # where the library's first will not do, another may
                for algorithm in self._handle.algorithms(description, alignments, most):
                    if len(found) < n and algorithm not in refused:
                        if refusal := self._refusal(description, algorithm, addresses):
                            refused[algorithm] = refusal
                        else:
                            found.append(algorithm)
                if found:
                    return found, ""
        except DeviceError as error:
            return [], str(error)
        reasons = list(refused.values())
        return [], "; ".join(
            f"{reasons.count(r)} of {len(reasons)} algorithms {r}" for r in dict.fromkeys(reasons)
        )

    def _chosen(
        self, description: cublaslt.Description, precision: str | None, found: list[cublaslt.Algorithm],
        addresses: Sequence[int],
    ) -> tuple[cublaslt.Description, cublaslt.Algorithm]:  # fmt: skip
        times: list[float] = []
        if self.autotune and len(found) > 1:
            times = [self._time(description, algorithm, addresses) for algorithm in found]
        best = found[int(np.argmin(times))] if times else found[0]  # of none that works, the library's
        alignments = tuple(cublaslt.alignment(x) for x in addresses)
        self.algorithms.append(
            {
                **_of(description, precision, alignments), "library": self._handle.library.version,
                "algorithm": best.data.hex(), "microseconds": [1e3 * t for t in times],
            }
        )  # fmt: skip
        return description, best

    def _refusal(
        self, description: cublaslt.Description, algorithm: cublaslt.Algorithm, addresses: Sequence[int]
    ) -> str:
        """Why an algorithm that adds a bias is not used, or "".

        A NaN in the bias has to show in the result: else a network that diverges would seem healthy. No later look at
        the weights would make up for it: where a product of finite numbers overflows to a NaN, a zero in its place
        leaves weights and gradients finite, and the training goes on where the CPU's ends.

        Overwrites the result, which the product that is about to be computed does anyway.
        """
        product = description.product
        m, n, leading = product.m, product.n, product.result.leading
        with self._device:
            n_bias = (product.batch - 1) * (product.bias or 0) + m
            bias = self._cupy.asarray(
                np.full(n_bias, np.nan, product.dtype)
            )  # `cupy.full` would compile a kernel
            given = (*addresses[:3], bias.data.ptr)
            stream = self._cupy.cuda.get_current_stream()
            try:
                self._handle.multiply(description, algorithm, given, self._workspace(0), stream.ptr)
            except DeviceError:  # what the library proposes it may not have, after all
                return "do not run"
            first = np.empty(m, product.dtype)
            stream.synchronize()
            self._cupy.cuda.runtime.memcpy(
                first.ctypes.data, addresses[2] + (n - 1) * leading * first.itemsize, first.nbytes,
                self._cupy.cuda.runtime.memcpyDeviceToHost,
            )  # fmt: skip
        return "" if np.isnan(first).all() else "hide a NaN that is in the bias"

    def _time(
        self, description: cublaslt.Description, algorithm: cublaslt.Algorithm, addresses: Sequence[int]
    ) -> float:
        """Milliseconds of one product, in a captured row of them: as it will run, without the time of calls; or inf.

        Overwrites the result, which the product that is about to be computed does anyway.
        """
        cuda = self._cupy.cuda
        with self._device:
            stream, workspace = cuda.Stream(non_blocking=True), self._workspace(0)
        self.synchronize()
        with self._device, stream:
            try:  # what the library proposes it may not have, after all
                self._handle.multiply(description, algorithm, addresses, workspace, stream.ptr)
            except DeviceError:
                return float("inf")
            stream.synchronize()
            with _capturing(stream) as captured:
                for _ in range(_REPEATS):
                    self._handle.multiply(description, algorithm, addresses, workspace, stream.ptr)
            graph = captured[0]
            graph.launch(stream)
            start, stop = cuda.Event(), cuda.Event()
            start.record(stream)
            graph.launch(stream)
            stop.record(stream)
            stop.synchronize()
        return cuda.get_elapsed_time(start, stop) / _REPEATS

    # --- many steps in one kernel ---------------------------------------------------------------
    def stay(self, steps: Steps) -> Callable[[], None] | str:
        """Return what launches a kernel of many steps, with a block on each multiprocessor, all of them at a time."""
        most = int(self._device.attributes["MaxSharedMemoryPerBlockOptin"])
        if not self._device.attributes["CooperativeLaunch"]:
            return "the device cannot run blocks that wait for each other"
        cuda = self._cupy.cuda
        version = min(cuda.runtime.runtimeGetVersion(), cuda.runtime.driverGetVersion())
        if len(steps.args) > FEWER_ARGUMENTS and version < _MORE_ARGUMENTS:
            return (
                f"a step has {len(steps.args)} arguments, a kernel of CUDA {version} takes {FEWER_ARGUMENTS}"
            )
        with self._device:
            module = self._cupy.RawModule(code=steps.source, enable_cooperative_groups=True)
            try:
                function = module.get_function(steps.name)
            except cuda.compiler.CompileException as error:  # a graph does the steps, too
                return f"the kernel does not compile: {' '.join(str(error).split())[:500]}"
            own = int(function.shared_size_bytes)
            if (needed := steps.shared + own) > most:
                return f"a block needs {needed} bytes of shared memory, the device has {most}"
            # steps of another number or of other sizes may be this very kernel, with more memory or with less
            function.max_dynamic_shared_size_bytes = most - own
            table, arrived = self._cupy.asarray(steps.table), self._cupy.asarray(np.zeros(1, np.uint64))
        args = (table, arrived, np.int32(len(steps.table)), *steps.args)

        def launch() -> None:
            with self._device:
                function((self.blocks,), (32, THREADS // 32), args, shared_mem=steps.shared)

        return launch

    def timed(self, fn: Callable[[], None]) -> float:
        """Do what `fn` asks for, and return how many seconds the device took for it."""
        cuda = self._cupy.cuda
        with self._device:
            stream = cuda.get_current_stream()
            start, stop = cuda.Event(), cuda.Event()
            # all is asked for before the device begins, as it is where the host is ahead of it
            self._function(Call("busy", _BUSY, (1, 1), (1, 1), ()))((1, 1), (1, 1), (np.int64(_CLOCKS),))
            start.record(stream)
            fn()
            stop.record(stream)
            stop.synchronize()
        return 1e-3 * float(cuda.get_elapsed_time(start, stop))

    # --- capture --------------------------------------------------------------------------------
    def capture(self, fn: Callable[[], None]) -> Callable[[], None] | None:
        """Record `fn` and make a graph of it, whose independent operations run side by side."""
        return self.replay(self.written_down(fn))

    def written_down(self, fn: Callable[[], None]) -> list[Operation]:
        """What `fn` asks for, without doing it."""
        record: list[Operation] = []
        self._record = record
        try:
            fn()
        finally:
            self._record = None
        return record

    def replay(self, record: Sequence[Operation]) -> Callable[[], None] | None:
        """Make a graph of a record, and return what launches it."""
        try:
            graph = self._graph(record)
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"
            if not self._warned:
                message = f"steps on {self.device} are not captured and run slower: {said}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
            self._warned = True
            return None

        def replay() -> None:
            with self._device:
                graph.launch()

        replay.record = record  # type: ignore[attr-defined]  # holds every array that the graph refers to
        return replay

    def _graph(self, operations: Sequence[Operation]) -> Any:
        cuda = self._cupy.cuda
        waits_for = dependencies(operations)
        lane_of = lanes(waits_for, self.lanes, [cost(op) for op in operations])
        n_lanes = max(lane_of, default=0) + 1
        for lane in {lane_of[i] for i, operation in enumerate(operations) if operation.what == MULTIPLY}:
            self._workspace(lane)  # nothing may be allocated while the graph is made
        with self._device:
            streams = [cuda.Stream(non_blocking=True) for _ in range(n_lanes)]
        events: dict[int, Any] = {}
        kept = []  # every event that is recorded: none may go while the graph is made
        needed = {j for i, direct in enumerate(waits_for) for j in direct if lane_of[j] != lane_of[i]}
        self.synchronize()
        origin = streams[0]
        with self._device, origin, _capturing(origin) as captured:
            fork = origin.record(cuda.Event(disable_timing=True))
            for stream in streams[1:]:
                stream.wait_event(fork)
            for i, operation in enumerate(operations):
                lane = lane_of[i]
                stream = streams[lane]
                for j in waits_for[i]:
                    if lane_of[j] != lane:
                        stream.wait_event(events[j])
                with stream:
                    operation.run(lane)
                if i in needed:
                    events[i] = stream.record(cuda.Event(disable_timing=True))
            for stream in streams[1:]:
                kept.append(stream.record(cuda.Event(disable_timing=True)))
                origin.wait_event(kept[-1])
        graph = captured[0]
        graph.upload(origin)
        origin.synchronize()
        return graph


def _of(
    description: cublaslt.Description, precision: str | None, alignments: Sequence[int]
) -> dict[str, Any]:
    """Which product it is, for the record of a run."""
    product = description.product
    return {
        "product": repr(product),
        "precision": precision or product.dtype,
        "alignments": tuple(alignments),
    }


@contextmanager
def _capturing(stream: Any) -> Iterator[list[Any]]:
    """Capture what is asked of a stream; the list gets the graph.

    After an error the stream leaves its capture, too, and the error is the one that is raised.
    """
    graphs: list[Any] = []
    stream.begin_capture()
    try:
        yield graphs
    except BaseException:
        with suppress(Exception):  # says no more than that the capture is not whole
            stream.end_capture()
        raise
    graphs.append(stream.end_capture())
