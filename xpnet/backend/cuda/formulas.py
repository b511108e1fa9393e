"""CUDA source for a traced formula: the twin of `Backend.map`, one kernel for each formula and way its arrays lie.

A `Program` becomes one ``formula`` function of plain numbers, and a loop that reads every argument of an element
before it writes any result. Numbers that change from step to step are arrays of one element: they are read on the
device. Types follow NumPy: Python numbers take the type of what they meet, float32 with float64 gives float64.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from .. import Array
from ..program import COMPARISONS, LOGICAL, Program, Ref

#: NumPy's names of types and those of C++. A result of 16 bits is a float32 in bfloat16, rounded to the nearest, ties
#: to even; NumPy has no name for that type.
C_TYPES = {
    "float32": "float", "float64": "double", "int64": "long long", "uint8": "unsigned char", "bool": "bool",
    "uint16": "unsigned short",
}  # fmt: skip
BFLOAT16 = "uint16"
_SIZES = {"float32": 4, "float64": 8, "int64": 8, "uint8": 1, "bool": 1, "uint16": 2}
_ROUNDED = """static __device__ __forceinline__ unsigned short {name}_rounded(const float x) {{
    const unsigned bits = __float_as_uint(x);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return nan ? 0x7fff : (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}}
"""
WEAK = "weak"  # the type of a Python number

_INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "less": "<", "less_equal": "<=",
    "greater": ">", "greater_equal": ">=", "equal": "==", "not_equal": "!=", "logical_and": "&&",
    "logical_or": "||",
}  # fmt: skip
# C's functions of one number; those of float end in f
_FUNCTIONS = {
    "abs": "fabs", "exp": "exp", "expm1": "expm1", "log": "log", "log1p": "log1p", "sqrt": "sqrt",
    "tanh": "tanh", "sin": "sin", "cos": "cos", "floor": "floor", "erf": "erf",
}  # fmt: skip
_TEMPLATES = {
    "square": "{0} * {0}", "negative": "-{0}", "positive": "{0}", "copy": "{0}", "logical_not": "!{0}",
    "where": "{0} ? {1} : {2}",
    # like NumPy's, and unlike fmax and fmin, these hand a NaN on
    "maximum": "({0} >= {1} || {0} != {0}) ? {0} : {1}", "minimum": "({0} <= {1} || {0} != {0}) ? {0} : {1}",
    "sign": "{0} > 0 ? ({t})1 : {0} < 0 ? ({t})-1 : {0}",
}  # fmt: skip


def promote(*types: str) -> str:
    """The type that NumPy computes in when arrays of these types, or Python numbers, meet.

    >>> promote("float32", WEAK), promote("float32", "float64"), promote("int64", "float32")
    ('float32', 'float64', 'float64')
    """
    real = {t for t in types if t != WEAK}
    if not real:
        return WEAK
    if "float64" in real or ("float32" in real and "int64" in real):
        return "float64"
    for name in ("float32", "int64", "uint8"):
        if name in real:
            return name
    return "bool"


class _Writer:
    """Writes the lines of ``formula``: every value gets a name and a type of its own."""

    def __init__(self, args: Sequence[str], default: str):
        self.default = default  # what a value made of nothing but Python numbers is
        self.lines: list[str] = []
        self.place: dict[Ref, tuple[str, str]] = {
            ("arg", i): (f"x{i}", dtype) for i, dtype in enumerate(args)
        }

    def operand(self, ref: Ref) -> tuple[Any, str]:
        return (ref[1], WEAK) if ref[0] == "const" else self.place[ref]

    def text(self, operand: tuple[Any, str], dtype: str) -> str:
        """The operand as a number of type `dtype`."""
        value, own = operand
        if own == WEAK:
            return constant(value, dtype)
        return value if own == dtype else f"({C_TYPES[dtype]}){value}"

    def add(self, op: str, operands: Sequence[Ref], target: Ref) -> None:
        values = [self.operand(r) for r in operands]
        kind = promote(*(own for _, own in (values[1:] if op == "where" else values)))
        kind = self.default if kind == WEAK else kind
        if op in LOGICAL:
            kind = "bool"
        elif op == "divide" and kind not in ("float32", "float64"):
            kind = "float64"
        texts = [self.text(v, kind) for v in values]
        if op == "where":
            texts[0] = self.text(values[0], "bool")
        name = f"v{len(self.lines)}"
        result = "bool" if op in COMPARISONS else kind
        self.lines.append(f"const {C_TYPES[result]} {name} = {expression(op, texts, kind)};")
        self.place[target] = (name, result)


def constant(value: Any, dtype: str) -> str:
    """A Python number as a C++ expression of `dtype`."""
    if dtype == "float32" and isinstance(value, (int, float)) and not math.isfinite(value):
        return f"__int_as_float({'0x7fc00000' if value != value else '0x7f800000' if value > 0 else '0xff800000'})"
    if dtype == "float64" and isinstance(value, (int, float)) and not math.isfinite(value):
        bits = "0x7ff8" if value != value else "0x7ff0" if value > 0 else "0xfff0"
        return f"__longlong_as_double({bits}000000000000ll)"
    return (
        f"({C_TYPES[dtype]})({float(value)!r})"
        if dtype.startswith("float")
        else f"({C_TYPES[dtype]})({value})"
    )


def expression(op: str, texts: Sequence[str], dtype: str) -> str:
    """The C++ expression of one operation on numbers of `dtype`."""
    if op in _INFIX:
        return f"{texts[0]} {_INFIX[op]} {texts[1]}"
    suffix = "f" if dtype == "float32" else ""
    if op in _FUNCTIONS:
        return f"{_FUNCTIONS[op]}{suffix}({texts[0]})"
    if op == "pow":
        return f"pow{suffix}({texts[0]}, {texts[1]})"
    return _TEMPLATES[op].format(*texts, t=C_TYPES[dtype])


def formula(program: Program, args: Sequence[str], outs: Sequence[str], name: str) -> str:
    """Write `program` as a device function of numbers: ``name(x0, x1, ..., y0, y1, ...)``."""
    writer = _Writer(args, outs[0])
    for step in program.instructions:
        writer.add(step.op, step.operands, step.target)
    results = []
    for k, dtype in enumerate(outs):
        small = dtype == BFLOAT16
        result = writer.text(writer.operand(("out", k)), "float32" if small else dtype)
        results.append(f"{name}_rounded({result})" if small else result)
    parameters = [f"const {C_TYPES[t]} x{i}" for i, t in enumerate(args)]
    parameters += [f"{C_TYPES[t]}& y{k}" for k, t in enumerate(outs)]
    body = [*writer.lines, *(f"y{k} = {result};" for k, result in enumerate(results))]
    lines = "\n".join(f"    {line}" for line in body)
    rounded = _ROUNDED.format(name=name) if BFLOAT16 in outs else ""
    return (
        f"{rounded}static __device__ __forceinline__ void {name}({', '.join(parameters)}) {{\n{lines}\n}}\n"
    )


@dataclass(frozen=True)
class Layout:
    """How the arrays of a call lie along as few axes as possible.

    Attributes
    ----------
    lengths : tuple of int
        Of the axes, outermost first; () for a single element.
    strides : tuple of tuple of int
        Per array, in elements; 0 along an axis it is broadcast over.
    width : int
        Elements that a thread moves at once: up to 16 bytes of each array where all lie suitably, else 1.
    """

    lengths: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    width: int = 1

    @property
    def size(self) -> int:
        return prod(self.lengths)

    @property
    def pattern(self) -> tuple[str, ...]:
        """What the source depends on: per array and axis, broadcast (0), one after the other (1), or a stride (s)."""
        return tuple("".join(str(s) if s in (0, 1) else "s" for s in own) for own in self.strides)

    @property
    def wide(self) -> bool:
        """Whether positions need 64 bits."""
        reach = (sum(max(n - 1, 0) * abs(s) for n, s in zip(self.lengths, own, strict=True))
                 for own in self.strides)  # fmt: skip
        return max([self.size, *reach], default=0) >= 2**31 - 2**24  # room for the last step of the loop


def layout(args: Sequence[Array], outs: Sequence[Array], addresses: Sequence[int]) -> Layout:
    """Merge axes that every array crosses alike; `addresses` are those of all arrays."""
    shape = tuple(outs[0].shape)
    arrays = [*args, *outs]
    strides = [strides_along(a, shape) for a in arrays]
    lengths: list[int] = []
    kept: list[list[int]] = [[] for _ in arrays]
    for axis, length in enumerate(shape):
        if length == 1:
            continue
        joins = bool(lengths) and all(k[-1] == s[axis] * length for k, s in zip(kept, strides, strict=True))
        if joins:
            lengths[-1] *= length
        else:
            lengths.append(length)
        for k, s in zip(kept, strides, strict=True):
            if joins:
                k[-1] = s[axis]
            else:
                k.append(s[axis])
    found = Layout(tuple(lengths), tuple(map(tuple, kept)))
    return Layout(found.lengths, found.strides, _width(found, arrays, addresses))


def strides_along(a: Array, shape: tuple[int, ...]) -> list[int]:
    """Elements from one to the next along each axis of `shape`; 0 where `a` is broadcast or there is only one."""
    missing = len(shape) - a.ndim
    own = [0] * missing + [s // a.dtype.itemsize for s in a.strides]
    lengths = [1] * missing + list(a.shape)
    return [0 if n == 1 else s for s, n in zip(own, lengths, strict=True)]


def _width(found: Layout, arrays: Sequence[Array], addresses: Sequence[int]) -> int:
    """16 bytes of the widest type at a time, where every array that varies along the last axis is aligned."""
    if not found.lengths:
        return 1
    moving = [k for k, own in enumerate(found.strides) if own[-1] != 0]
    if not moving or any(found.strides[k][-1] != 1 for k in moving):
        return 1
    width = 16 // max(arrays[k].dtype.itemsize for k in moving)
    if width > 4 or (len(found.lengths) > 1 and found.lengths[-1] % width):
        return 1
    aligned = all(
        addresses[k] % (width * arrays[k].dtype.itemsize) == 0
        and all(s % width == 0 for s in found.strides[k][:-1])
        for k in moving
    )
    return width if aligned and found.size >= width else 1


def source(
    program: Program, args: Sequence[str], outs: Sequence[str], lay: Layout
) -> tuple[str, str, list[int]]:
    """Write the kernel of one call.

    Returns its name, its source, and the whole numbers that follow the arrays in its arguments.
    """
    types = [*args, *outs]
    body = formula(program, args, outs, "formula")
    loop, numbers = _loop(types, len(args), lay)
    key = hashlib.sha256((body + loop).encode()).hexdigest()[:12]
    name = f"map_{key}"
    text = body.replace("formula(", f"{name}_formula(") + loop.replace(" formula(", f" {name}_formula(")
    text = text.replace("formula_rounded(", f"{name}_rounded(")
    return name, text.replace(" kernel(", f" {name}("), numbers


def _loop(types: Sequence[str], n_args: int, lay: Layout) -> tuple[str, list[int]]:
    pattern, axes = lay.pattern, len(lay.lengths)
    index = "long long" if lay.wide else "int"
    names = [f"a{k}" if k < n_args else f"o{k - n_args}" for k in range(len(types))]
    parameters = [
        f"{'const ' if k < n_args else ''}{C_TYPES[t]}* {n}"
        for k, (t, n) in enumerate(zip(types, names, strict=True))
    ]
    # the lengths of all axes but the first, whose index is what remains, and the strides that are not 0 or 1
    chunked = lay.width > 1
    size = lay.size // lay.width if chunked and axes > 1 else lay.size
    numbers, extents = [size], [f"const {index} n"]
    for axis in range(1, axes):
        inner = lay.lengths[axis] // (lay.width if chunked and axis == axes - 1 else 1)
        numbers.append(inner)
        extents.append(f"const {index} n{axis}")
    for k, name in enumerate(names):
        for axis in range(axes):
            if pattern[k][axis] == "s":
                stride = lay.strides[k][axis]
                vector = chunked and lay.strides[k][-1] != 0
                numbers.append(stride // lay.width if vector else stride)
                extents.append(f"const {index} {name}_{axis}")
    where = [_position(names[k], pattern[k]) for k in range(len(types))]
    split = _split(index, axes)
    lines = [
        f'extern "C" __global__ void __launch_bounds__(256, 2) kernel({", ".join(parameters + extents)}) {{'
    ]
    lines += [
        f"    const {C_TYPES[types[k]]} x{k} = a{k}[0];" for k in range(n_args) if set(pattern[k]) <= {"0"}
    ]
    first = f"{index} i = blockIdx.x * ({index})blockDim.x + threadIdx.x"
    following = f"({index})gridDim.x * blockDim.x"
    if chunked:
        lines += _chunks(types, n_args, lay, where, split, first, following, index)
    else:
        lines += [
            f"    for ({first}; i < n; i += {following}) {{", *split,
            *_element(types, n_args, pattern, where, "        "), "    }",
        ]  # fmt: skip
    return "\n".join([*lines, "}"]) + "\n", numbers


def _split(index: str, axes: int) -> list[str]:
    """Positions along each axis from the number of the element."""
    if axes < 2:
        return [f"        const {index} i0 = i;"] if axes else []
    lines, rest = [], "i"
    for axis in range(axes - 1, 0, -1):
        lines.append(f"        const {index} i{axis} = {rest} % n{axis};")
        if axis > 1:
            lines.append(f"        const {index} q{axis} = {rest} / n{axis};")
            rest = f"q{axis}"
    return [*lines, f"        const {index} i0 = {rest} / n1;"]


def _position(name: str, pattern: str) -> str:
    terms = []
    for axis, kind in enumerate(pattern):
        if kind == "1":
            terms.append(f"i{axis}")
        elif kind == "s":
            terms.append(f"i{axis} * {name}_{axis}")
    return " + ".join(terms) or "0"


def _element(
    types: Sequence[str], n_args: int, pattern: Sequence[str], where: Sequence[str], pad: str
) -> list[str]:
    """One element: read, compute, write."""
    n_out = len(types) - n_args
    reads = [
        f"{pad}const {C_TYPES[types[k]]} x{k} = a{k}[{where[k]}];"
        for k in range(n_args)
        if not set(pattern[k]) <= {"0"}
    ]
    results = [f"{pad}{C_TYPES[types[n_args + k]]} y{k};" for k in range(n_out)]
    given = [f"x{k}" for k in range(n_args)] + [f"y{k}" for k in range(n_out)]
    writes = [f"{pad}o{k}[{where[n_args + k]}] = y{k};" for k in range(n_out)]
    return [*reads, *results, f"{pad}formula({', '.join(given)});", *writes]


def _chunks(
    types: Sequence[str], n_args: int, lay: Layout, where: Sequence[str], split: Sequence[str], first: str,
    following: str, index: str,
) -> list[str]:  # fmt: skip
    """The loop over pieces of up to 16 bytes; along a single axis the last few elements go one by one."""
    width, pattern, n_out = lay.width, lay.pattern, len(types) - n_args
    pad = "        "
    lines = []
    vector = sorted({types[k] for k in range(len(types)) if lay.strides[k][-1] != 0})
    for t in vector:
        lines.append(f"    struct alignas({width * _SIZES[t]}) piece_{t} {{ {C_TYPES[t]} v[{width}]; }};")
    whole = "n" if len(lay.lengths) > 1 else f"n / {width}"
    lines.append(f"    for ({first}; i < {whole}; i += {following}) {{")
    lines += split
    given = []
    for k in range(n_args):
        if set(pattern[k]) <= {"0"}:
            given.append(f"x{k}")
        elif lay.strides[k][-1] != 0:
            lines.append(f"{pad}const piece_{types[k]} p{k} = ((const piece_{types[k]}*)a{k})[{where[k]}];")
            given.append(f"p{k}.v[j]")
        else:
            lines.append(f"{pad}const {C_TYPES[types[k]]} x{k} = a{k}[{where[k]}];")
            given.append(f"x{k}")
    for k in range(n_out):
        lines.append(f"{pad}piece_{types[n_args + k]} r{k};")
        given.append(f"r{k}.v[j]")
    lines += ["#pragma unroll", f"{pad}for (int j = 0; j < {width}; ++j) formula({', '.join(given)});"]
    lines += [
        f"{pad}((piece_{types[n_args + k]}*)o{k})[{where[n_args + k]}] = r{k};" for k in range(n_out)
    ] + ["    }"]
    if len(lay.lengths) == 1:
        lines += [
            f"    const {index} i0 = n / {width} * {width} + blockIdx.x * ({index})blockDim.x + threadIdx.x;",
            "    if (i0 < n) {", *_element(types, n_args, pattern, where, pad), "    }",
        ]  # fmt: skip
    return lines
