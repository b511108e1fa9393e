"""The run-time compiler without a device: kernels become machine code, and say how many registers they take.

A device compiles through CuPy, which keeps the result on disk. This is for machines without one: tests, and whoever
wants to know what a kernel needs.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any

from ...errors import DeviceError

#: What CuPy adds to every compilation, so that what is checked is what runs.
OPTIONS = ("-std=c++17", "-ftz=true", "--device-as-default-execution-space")


@dataclass(frozen=True)
class Usage:
    """What a kernel needs on one architecture.

    Attributes
    ----------
    registers : int
        Per thread.
    spilled : int
        Bytes per thread that are stored to or loaded from memory for want of registers.
    stack : int
        Bytes of the stack frame per thread.
    shared : int
        Bytes of shared memory per block.
    """

    registers: int
    spilled: int
    stack: int
    shared: int


@cache
def _library() -> Any:
    from cuda.pathfinder import load_nvidia_dynamic_lib

    library = ctypes.CDLL(load_nvidia_dynamic_lib("nvrtc").abs_path)
    library.nvrtcGetErrorString.restype = c_char_p
    return library


def compile_kernels(source: str, arch: str, options: Sequence[str] = ()) -> tuple[bytes, dict[str, Usage]]:
    """Compile to machine code.

    Parameters
    ----------
    source : str
        CUDA C++ with ``extern "C"`` kernels.
    arch : str
        Such as ``"sm_90"``.
    options : sequence of str
        More options for the compiler.

    Returns
    -------
    (bytes, dict of str to Usage)
        The cubin, and what each kernel needs.

    Raises
    ------
    DeviceError
        The source is wrong; the message is the compiler's.
    """
    library, program = _library(), c_void_p()
    _check(library, library.nvrtcCreateProgram(byref(program), source.encode(), b"xpnet.cu", 0, None, None))
    try:
        flags = [*OPTIONS, f"-arch={arch}", "--ptxas-options=-v", *options]
        table = (c_char_p * len(flags))(*(f.encode() for f in flags))
        status = library.nvrtcCompileProgram(program, c_int(len(flags)), table)
        log = _read(library, program, "ProgramLog").decode(errors="replace").rstrip("\0")
        if status != 0:
            raise DeviceError(f"the kernels do not compile for {arch}:\n{log}")
        return _read(library, program, "CUBIN"), _usage(log)
    finally:
        library.nvrtcDestroyProgram(byref(program))


def _check(library: Any, status: int) -> None:
    if status != 0:
        raise DeviceError(f"NVRTC failed: {library.nvrtcGetErrorString(status).decode()}")


def _read(library: Any, program: c_void_p, what: str) -> bytes:
    size = c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, f"nvrtcGet{what}")(program, text))
    return text.raw


_FUNCTION = re.compile(r"Compiling entry function '(\w+)'")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


def _usage(log: str) -> dict[str, Usage]:
    """Read the assembler's report."""
    found: dict[str, Usage] = {}
    name, stack, spilled = "", 0, 0
    for line in log.splitlines():
        if entry := _FUNCTION.search(line):
            name = entry.group(1)
        elif frame := _FRAME.search(line):
            stack, spilled = int(frame.group(1)), int(frame.group(2)) + int(frame.group(3))
        elif used := _REGISTERS.search(line):
            shared = _SHARED.search(line)
            found[name] = Usage(int(used.group(1)), spilled, stack, int(shared.group(1)) if shared else 0)
    return found
