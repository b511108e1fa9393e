"""Runs of captured calls joined into one compiled function.

A step of a small network is twenty calls of a few microseconds, and Python needs about as long to make them as
they take. Here the calls that have compiled twins (the kernels of `compiled.py`, and matrix products, which Numba
hands to BLAS) become one function. It gets two arrays, the addresses of all buffers and their lengths, so the
machine code depends on what is done and on no size: networks that differ in widths or batch share it, and it is
kept on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

Call = Callable[[], Any]

_LETTERS = {"f": "f", "d": "d", "l": "l", "?": "b"}  # NumPy's type characters and their readers in `pointers`


def fuse(
    tape: Sequence[partial[Any]],
    sources: Mapping[Callable[..., Any], str],
    load: Callable[[str], Callable[..., Any]],
) -> list[Call]:
    """Return calls that do what `tape` does, with its compilable runs as one call each.

    Parameters
    ----------
    tape : sequence of partial
        Functions bound to the buffers they work on.
    sources : mapping
        The source of each compiled kernel, a function named ``kernel``.
    load : callable
        Compiles a source and returns the function named ``kernel`` in it.
    """
    calls: list[Call] = []
    for compilable, run in groupby(tape, lambda call: _compilable(call, sources)):
        members = list(run)
        calls += [_joined(members, sources, load)] if compilable and len(members) > 1 else members
    return calls


def _compilable(call: partial[Any], sources: Mapping[Callable[..., Any], str]) -> bool:
    if call.func in sources:
        return not call.keywords
    return call.func in (np.dot, np.matmul) and not call.keywords and _product(*call.args) is not None


def _base(a: np.ndarray) -> tuple[np.ndarray, str] | None:
    """The C-contiguous array behind `a`, and how to get back: as it is, or with its last two axes swapped."""
    if a.flags.c_contiguous:
        return a, ""
    swapped = a.swapaxes(-1, -2)
    return (swapped, ".T") if swapped.flags.c_contiguous else None


def _product(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> list[tuple[np.ndarray, str]] | None:
    """The operands of a product that compiled code can hand to BLAS, with their orientation."""
    same = a.dtype == b.dtype == out.dtype and out.dtype.char in "fd" and out.flags.c_contiguous
    vectors = 1 in (a.ndim, b.ndim) and a.ndim + b.ndim == 3 and out.ndim == 1
    matrices = a.ndim in (2, 3) and b.ndim in (2, 3) and out.ndim == max(a.ndim, b.ndim)
    if not same or not (vectors or matrices) or 0 in (a.size, b.size):
        return None
    lengths = {x.shape[0] for x in (a, b, out) if x.ndim == 3}
    if len(lengths) > 1:  # a population of one that NumPy would stretch
        return None
    bases = [_base(x) if x.ndim > 1 else (x, "") for x in (a, b, out)]
    return None if None in bases else bases  # type: ignore[return-value]


class _Writer:
    """Writes one function, and lists the buffers it is to be called with."""

    def __init__(self) -> None:
        self.names: dict[tuple[int, tuple[int, ...], str], str] = {}
        self.addresses: list[int] = []
        self.lengths: list[int] = []
        self.head: list[str] = []
        self.body: list[str] = []

    def name(self, a: np.ndarray) -> str:
        """The variable that stands for buffer `a`, declared on first sight."""
        a = a.reshape(1) if a.ndim == 0 else a
        key = (a.ctypes.data, a.shape, a.dtype.char)
        if key not in self.names:
            k, n = len(self.addresses), len(self.lengths)
            self.names[key] = f"a{k}"
            shape = "".join(f"n[{n + axis}], " for axis in range(a.ndim))
            self.head.append(f"a{k} = pointers.{_LETTERS[a.dtype.char]}(p, {k}, ({shape}))")
            self.addresses.append(a.ctypes.data)
            self.lengths += a.shape
        return self.names[key]

    def product(self, operands: Sequence[tuple[np.ndarray, str]]) -> None:
        stack = next((self.name(x) for x, _ in operands if x.ndim == 3), None)
        each = ["[q]" if x.ndim == 3 else "" for x, _ in operands]
        a, b, out = (f"{self.name(x)}{e}{turn}" for (x, turn), e in zip(operands, each, strict=True))
        self.body += [] if stack is None else [f"for q in range({stack}.shape[0]):"]
        self.body.append(f"{'    ' * (stack is not None)}np.dot({a}, {b}, {out})")


def _joined(
    run: Sequence[partial[Any]],
    sources: Mapping[Callable[..., Any], str],
    load: Callable[[str], Callable[..., Any]],
) -> Call:
    writer = _Writer()
    kernels: dict[str, str] = {}
    for call in run:
        source = sources.get(call.func)
        if source is None:
            operands = _product(*call.args)
            assert operands is not None
            writer.product(operands)
        else:
            kernel = kernels.setdefault(source, f"kernel_{len(kernels)}")
            writer.body.append(f"{kernel}({', '.join(writer.name(a) for a in call.args)})")
    inner = [source.replace("def kernel(", f"def {name}(") for source, name in kernels.items()]
    lines = ["def kernel(p, n):", *(f"    {line}" for line in writer.head + writer.body)]
    function = load("\n".join([*inner, "\n".join(lines) + "\n"]))
    call = partial(function, np.array(writer.addresses, np.int64), np.array(writer.lengths, np.int64))
    call.keeps = list(run)  # type: ignore[attr-defined]  # the buffers, whose addresses the function was given
    return call
