"""As much of CuPy as the CUDA runtime uses, on the CPU: streams, events and graphs with their rules, no device.

Kernels run on the emulator. A captured graph is what streams and events order, and nothing more: a launch does its
nodes in any order that they allow, so an event that is missing shows as a wrong result. Misuse that the driver
refuses (work on a stream that does not belong to the capture, streams that are not joined, reading or allocating
meanwhile) is refused here, too. What CuPy would compile a kernel of its own for is noted.
"""

from __future__ import annotations

import ctypes
import sys
import types
from typing import Any, ClassVar

import numpy as np

from tests.cuda_emulator import Emulator, Kernels
from xpnet.backend.cuda import cublaslt
from xpnet.backend.cuda.cublaslt import Algorithm
from xpnet.backend.cuda.products import Matrix


class Memory:
    def __init__(self, ptr):
        self.ptr = ptr


class Array(np.ndarray):
    """Memory of the device: it does not mix with arrays of the host, and NumPy's own functions do not take it."""

    @property
    def data(self):
        return Memory(self.ctypes.data)

    def __setitem__(self, key, value):
        assert isinstance(value, Array) or np.ndim(value) == 0, (
            "an array of the host is written to the device"
        )
        FakeCupy.note_assignment(_plain(self)[key], _plain(value))
        _plain(self)[key] = _plain(value)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        for x in inputs:
            mixes = not isinstance(x, Array) and isinstance(x, np.ndarray) and x.ndim
            assert not mixes, f"{ufunc.__name__} of arrays of the host and of the device"
        FakeCupy.own_kernels.append(ufunc.__name__)
        kwargs = {k: tuple(map(_plain, v)) if k == "out" else v for k, v in kwargs.items()}
        return _wrapped(getattr(ufunc, method)(*map(_plain, inputs), **kwargs))

    def __array_function__(self, function, types, args, kwargs):
        assert FakeCupy.inside, f"numpy.{function.__name__} of an array of the device"
        return super().__array_function__(function, types, args, kwargs)


def _plain(x):
    return x.view(np.ndarray) if isinstance(x, Array) else x


def _wrapped(x):
    return x.view(Array) if isinstance(x, np.ndarray) else np.asarray(x).view(Array)


class Stream:
    """A stream; while it captures, `nodes` are what it was asked for, each with the nodes it comes after."""

    def __init__(self, cupy, non_blocking=False):
        self._cupy, self.ptr = cupy, id(self)
        self.device = cupy.device
        self.capture: list[tuple[Any, set[int]]] | None = None
        self.after: set[int] = set()  # the nodes that the next one comes after
        self.origin: Stream = self
        self.joined = False

    def __enter__(self):
        self._cupy.streams.append(self)
        return self

    def __exit__(self, *args):
        self._cupy.streams.pop()

    def synchronize(self):
        assert self.capture is None, "synchronize during capture"

    def begin_capture(self):
        assert self is not self._cupy.null and self._cupy.capturing is None
        self.capture, self.after, self._cupy.capturing = [], set(), self

    def end_capture(self):
        nodes, self.capture, self._cupy.capturing = self.capture, None, None
        for stream in self._cupy.members:
            assert stream.after <= self.after, "a stream of the capture was not joined"
            stream.capture = None
        self._cupy.members = []
        return Graph(nodes, self._cupy)

    def record(self, event):
        event.after, event.origin = set(self.after), self.capture
        event.stream = self
        return event

    def wait_event(self, event):
        if event.origin is not None and self.capture is None:  # the capture spreads to this stream
            self.capture, self.after = event.origin, set()
            self._cupy.members.append(self)
        self.after |= event.after

    def do(self, call):
        assert self is self._cupy.null or self.device == self._cupy.device, "a stream of another device"
        if self._cupy.capturing is not None:
            assert self.capture is not None, "work on a stream that is not captured"
        if self.capture is None:
            call()
            return
        self.capture.append((call, set(self.after)))
        self.after = {len(self.capture) - 1} | self.after


class Event:
    def __init__(self, disable_timing=False):
        self.after, self.origin = set(), None

    def record(self, stream):
        stream.record(self)

    def synchronize(self):
        pass


class Graph:
    def __init__(self, nodes, cupy):
        self.nodes, self._cupy = nodes, cupy

    def upload(self, stream=None):
        pass

    def launch(self, stream=None):
        self._cupy.launches += 1
        left, done = list(range(len(self.nodes))), set()
        while left:
            ready = [i for i in left if self.nodes[i][1] <= done]
            i = ready[self._cupy.random.integers(len(ready))]
            self.nodes[i][0]()
            left.remove(i)
            done.add(i)


class FakeCupy:
    """The module. `failing` is what `begin_capture` says, where captures should not work."""

    ndarray = Array
    inside = False  # whether one of its functions is at work
    own_kernels: ClassVar[list[str]] = []  # what CuPy would have compiled a kernel for since `install`

    @staticmethod
    def note_assignment(target, value):
        """As `_scatter_op` and `fill` of CuPy 14.2: zeros are set and neighbours copied without a kernel."""
        target = np.asarray(target)
        if np.ndim(value) == 0 and not isinstance(value, np.ndarray):
            if value != 0 or not target.flags.c_contiguous:
                FakeCupy.own_kernels.append("fill")
        elif not (
            (target.shape, target.strides, target.dtype) == (value.shape, value.strides, value.dtype)
            and target.flags.c_contiguous
        ):
            FakeCupy.own_kernels.append("copy")

    def __init__(self, kernels: Kernels):
        self.emulator = Emulator(kernels)
        self.random = np.random.default_rng(0)
        self.device = 0
        self.null = Stream(self)
        self.streams: list[Stream] = [self.null]
        self.capturing: Stream | None = None
        self.members: list[Stream] = []
        self.launches = 0  # of graphs
        self.calls = 0  # of kernels, outside of graphs
        self.cooperative = 0  # of kernels whose blocks wait for each other
        #: Those, by source: modules of one source are one, and so are their functions.
        self.functions: dict[str, Any] = {}
        self.refused: dict[str, str] = {}  # how names of kernels begin that do not compile, and why
        fake = self

        class Device:
            attributes: ClassVar[dict[str, int]] = {
                "MultiProcessorCount": Emulator.blocks, "CooperativeLaunch": 1, "MaxSharedMemoryPerBlockOptin": 232448,
            }  # fmt: skip

            def __init__(self, number):
                self.number, self.before = number, []

            def use(self):
                fake.device = self.number

            def __enter__(self):
                self.before.append(fake.device)
                fake.device = self.number
                return self

            def __exit__(self, *args):
                fake.device = self.before.pop()

        class CUDARuntimeError(RuntimeError):
            pass

        class CUDADriverError(RuntimeError):
            pass

        class CompileException(Exception):
            pass

        self.cuda = types.SimpleNamespace(
            Device=Device, Event=Event, Stream=lambda non_blocking=False: Stream(fake, non_blocking),
            get_current_stream=lambda: fake.streams[-1], get_elapsed_time=lambda a, b: fake.elapsed(),
            runtime=types.SimpleNamespace(
                memGetInfo=lambda: (1000, 9000), runtimeGetVersion=lambda: 13020, driverGetVersion=lambda: 13000,
                CUDARuntimeError=CUDARuntimeError, memcpyDeviceToHost=2,
                memcpy=lambda to, source, n, kind: ctypes.memmove(to, source, n),
            ),
            driver=types.SimpleNamespace(CUDADriverError=CUDADriverError),
            compiler=types.SimpleNamespace(CompileException=CompileException),
        )  # fmt: skip

    def elapsed(self):
        return 1.0

    def get_default_memory_pool(self):
        return types.SimpleNamespace(free_bytes=lambda: 24)

    def __getattr__(self, name):
        found = getattr(np, name)
        if not callable(found) or isinstance(found, type):
            return found

        def call(*args, **kwargs):
            FakeCupy.inside = True
            noted = len(self.own_kernels)
            try:
                result = found(*args, **kwargs)
            finally:
                FakeCupy.inside = False
            del self.own_kernels[noted:]
            arrays = [x for x in args if isinstance(x, Array)]
            if arrays and not np.may_share_memory(_plain(result), _plain(arrays[0])):  # not only another view
                self.own_kernels.append(name)
            return result

        return call

    def empty(self, shape, dtype):
        assert self.capturing is None, "memory is taken during capture"
        return self.emulator.empty(shape, dtype).view(Array)

    def asarray(self, values, dtype=None):
        assert self.capturing is None, "data are sent during capture"
        return np.array(values, dtype=dtype).view(Array)

    def asnumpy(self, x):
        assert self.capturing is None, "data are read during capture"
        assert isinstance(x, Array)
        return np.array(x.view(np.ndarray))

    def RawModule(self, code, enable_cooperative_groups=False):
        fake = self

        class Cooperative:
            """A kernel whose blocks wait for each other."""

            shared_size_bytes = 2048
            max_dynamic_shared_size_bytes = 48 * 1024

            def __init__(self, name):
                self.name = name

            def __call__(self, grid, block, args, shared_mem):
                assert grid == (Emulator.blocks,) and block == (32, 16)
                most = fake.cuda.Device.attributes["MaxSharedMemoryPerBlockOptin"]
                assert shared_mem <= self.max_dynamic_shared_size_bytes <= most - self.shared_size_bytes
                table, arrived, works, *_ = args
                assert works == len(table) and arrived.dtype == np.uint64
                fake.emulator.add_steps(self.name, code)
                given = [a.view(np.ndarray) if isinstance(a, Array) else a for a in args]
                fake.cooperative += 1
                fake.streams[-1].do(lambda: fake.emulator.cooperate(self.name, given))

        class Module:
            def get_function(self, name):
                assert fake.capturing is None, "a kernel is compiled during capture"
                for beginning, why in fake.refused.items():
                    if name.startswith(beginning):
                        raise fake.cuda.compiler.CompileException(why)
                if enable_cooperative_groups:
                    return fake.functions.setdefault(code, Cooperative(name))

                def call(grid, block, args):
                    given = [a.view(np.ndarray) if isinstance(a, Array) else a for a in args]
                    fake.calls += fake.capturing is None
                    fake.streams[-1].do(lambda: fake.emulator.launch(name, code, grid, block, given))

                return call

        return Module()


def install(kernels: Kernels, monkeypatch: Any) -> FakeCupy:
    """Let the runtime find this instead of CuPy, and these instead of cublasLt."""
    fake = FakeCupy(kernels)
    FakeCupy.own_kernels.clear()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(cublaslt, "Library", lambda: types.SimpleNamespace(version=130002))
    monkeypatch.setattr(cublaslt, "Description", FakeDescription)
    monkeypatch.setattr(cublaslt, "Handle", lambda library: FakeHandle(fake, library))
    return fake


class FakeHandle:
    """cublasLt without a device: computes what a description says, from addresses alone."""

    def __init__(self, cupy: FakeCupy, library: Any):
        self.cupy, self.library, self.asked = cupy, library, 0
        self.devices: set[int] = set()  # that were current when it was asked

    @staticmethod
    def rectify(x, out, algorithm):
        np.maximum(x, 0.0, out=out)

    def algorithms(self, description, alignments, n=1):
        assert self.cupy.capturing is None, "the library is asked during capture"
        self.devices.add(self.cupy.device)
        self.asked += 1
        return [Algorithm(bytes([k]) * 64, 1024 * k, 1.0) for k in range(min(n, 3))]

    def multiply(self, description, algorithm, addresses, workspace, stream):
        p = description.product
        current = self.cupy.streams[-1]
        assert stream == current.ptr and workspace != 0

        def matrix(address, m, dtype):
            size = np.dtype(dtype).itemsize
            strides = (m.stride * size, size, m.leading * size)
            reach = (p.batch - 1) * m.stride + (m.columns - 1) * m.leading + m.rows
            raw = np.ctypeslib.as_array((ctypes.c_ubyte * (reach * size)).from_address(address))
            return np.lib.stride_tricks.as_strided(raw.view(dtype), (p.batch, m.rows, m.columns), strides)

        assert len(addresses) == (3 if p.bias is None else 4)

        def operand(address, m):
            if description.bf16:
                bits = matrix(address, m, "uint16").astype(np.uint32) << 16
                x = bits.view("f4")
            else:
                x = matrix(address, m, p.dtype)
            return x.swapaxes(-1, -2) if m.transposed else x

        def call():
            out = matrix(addresses[2], p.result, p.dtype)
            out[...] = operand(addresses[0], p.first) @ operand(addresses[1], p.second)
            if p.bias is not None:
                out += matrix(addresses[3], Matrix(p.m, 1, p.m, p.bias), p.dtype)
            if p.relu:
                self.rectify(out, out, algorithm)

        current.do(call)


class FakeDescription:
    def __init__(self, library, product, precision):
        self.product, self.bf16, self.bias = product, precision == "bf16", None

    def add(self, bias):
        self.bias = bias
