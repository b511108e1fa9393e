"""Kernels as source: loops for the formulas that `map` traces, and those written by hand.

Every kernel works on the rows from `lo` to `hi`, its last two arguments, so that threads can share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from .. import Array
from ..program import Program, Ref

SLOW = frozenset({"exp", "expm1", "log", "log1p", "tanh", "sin", "cos", "erf", "pow"})
# the compiler vectorises these for float32
FAST = {name: f"elementary.{name}({{0}})" for name in ("exp", "log1p", "tanh")}
_INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "less": "<", "less_equal": "<=",
    "greater": ">", "greater_equal": ">=", "equal": "==", "not_equal": "!=", "logical_and": "&",
    "logical_or": "|",
}  # fmt: skip
_CALLS = {
    "abs": "abs({0})", "sqrt": "np.sqrt({0})", "square": "{0} * {0}", "floor": "np.floor({0})",
    "sign": "np.sign({0})", "negative": "-{0}", "positive": "{0}", "logical_not": "not {0}",
    # like NumPy, and unlike Python's max and min, these hand a NaN on
    "maximum": "({0} if ({0} >= {1} or {0} != {0}) else {1})",
    "minimum": "({0} if ({0} <= {1} or {0} != {0}) else {1})",
    "where": "({1} if {0} else {2})", "copy": "{0}",
}  # fmt: skip
EXP = {"f": "elementary.exp", "d": "np.exp"}
KINDS = {"f": "np.float32", "d": "np.float64"}
_TYPES = KINDS | {"l": "np.int64"}  # of results

# The exponentials are one long loop, which the compiler can vectorise; a row alone may be too short.
# Members of a population share the targets, whose row is `k`: it is counted, because a division for each row takes as
# long as the exponentials of three classes.
HEAD = """def kernel(z, t, w, loss, out, lo, hi):
    z, loss, out = z[lo:hi], loss[lo:hi], out[lo:hi]
    k = lo % t.shape[0] - 1
    for i in range(z.shape[0]):
        k = k + 1 if k + 1 < t.shape[0] else 0
        top = z[i, 0]
        for j in range(1, z.shape[1]):
            top = z[i, j] if (z[i, j] >= top or z[i, j] != z[i, j]) else top
        cost = {kind}(0.0)
        for j in range(z.shape[1]):
            shifted = z[i, j] - top
            cost -= t[k, j] * shifted if t[k, j] != {kind}(0.0) else {kind}(0.0)
            out[i, j] = shifted
        loss[i] = cost
    flat = out.reshape(out.size)
    for i in range(flat.size):
        flat[i] = {exp}(flat[i])
    k = lo % t.shape[0] - 1
    for i in range(z.shape[0]):
        k = k + 1 if k + 1 < t.shape[0] else 0
        total, share = {kind}(0.0), {kind}(0.0)
        for j in range(z.shape[1]):
            total += out[i, j]
            share += t[k, j]
        loss[i] += share * np.log(total)
        factor = share / total
        for j in range(z.shape[1]):
            out[i, j] = w[k] * (out[i, j] * factor - t[k, j])
"""
HEAD_WIDTH = 64  # beyond, NumPy's vectorised exponential wins

ARGMAX = """def kernel(x, out, lo, hi):
    x, out = x[lo:hi], out[lo:hi]
    for i in range(x.shape[0]):
        best = 0
        for j in range(1, x.shape[1]):
            # the first NaN counts as the largest, as it does for NumPy
            if x[i, j] > x[i, best] or (x[i, j] != x[i, j] and x[i, best] == x[i, best]):
                best = j
        out[i] = best
"""

TOTAL = """def kernel(x, out, lo, hi):
    x, out = x[lo:hi], out[lo:hi]
    for i in range(x.shape[0]):
        total = x[i, 0] - x[i, 0]
        for j in range(x.shape[1]):
            total += x[i, j]
        out[i] = total
"""

COLUMNS = """def kernel(x, out, lo, hi):
    x, out = x[lo:hi], out[lo:hi]
    for m in range(x.shape[0]):
        for j in range(x.shape[2]):
            out[m, j] = x[m, 0, j]
        for i in range(1, x.shape[1]):
            for j in range(x.shape[2]):
                out[m, j] += x[m, i, j]
"""

GATHER = """def kernel(x, index, out, lo, hi):
    index, out = index[lo:hi], out[lo:hi]
    for i in range(index.shape[0]):
        row, to = x[index[i]], out[i]
        for j in range(row.shape[0]):
            to[j] = row[j]
"""

SCALED = """def kernel(x, index, scale, shift, out, lo, hi):
    index, out = index[lo:hi], out[lo:hi]
    for i in range(index.shape[0]):
        row, to = x[index[i]], out[i]
        for j in range(row.shape[0]):
            to[j] = {kind}(row[j]) * scale[{j}] + shift[{j}]
"""
TAKE = """def kernel(x, index, out, lo, hi):
    index, out = index[lo:hi], out[lo:hi]
    for i in range(index.shape[0]):
        out[i] = x[index[i]]
"""


def product(char: str, ta: bool) -> str:
    """Rows of a product whose second matrix is read as it is."""
    return f"def kernel(a, b, out, lo, hi):\n    products.rows_of_{char}(a, b, out, {int(ta)}, lo, hi)\n"


def product_by_panels(char: str, ta: bool, tb: bool) -> str:
    """Panels of a product, each packed first."""
    call = f"products.panels_of_{char}(a, b, out, work, {int(ta)}, {int(tb)}, lo, hi)"
    return f"def kernel(a, b, out, work, lo, hi):\n    {call}\n"


def packing(char: str) -> str:
    """Panels of the transpose of a matrix."""
    return f"def kernel(b, work, lo, hi):\n    products.pack_turned_{char}(b, work[lo:], lo, hi)\n"


def packed_product(char: str) -> str:
    """Rows of a product whose second matrix is packed."""
    return f"def kernel(a, work, out, lo, hi):\n    products.rows_of_packed_{char}(a, work, out, lo, hi)\n"


def stacked_product(char: str, ta: bool, tb: bool, axes: tuple[int, int]) -> str:
    """Products of the members from `lo` to `hi`; one of the operands, with two axes, may be shared by them."""
    a, b = (name + "[q]" * (n == 3) for name, n in zip("ab", axes, strict=True))
    if tb:
        packed = f"products.pack_turned_{char}({b}, work, 0, work.shape[0])"
        calls = [packed, f"products.rows_of_packed_{char}({a}, work, out[q], 0, out.shape[1])"]
    else:
        calls = [f"products.rows_of_{char}({a}, {b}, out[q], {int(ta)}, 0, out.shape[1])"]
    lines = [f"def kernel(a, b, out{', work' * tb}, lo, hi):", "    for q in range(lo, hi):"]
    return "\n".join([*lines, *(f"        {call}" for call in calls)]) + "\n"


def turn(char: str) -> str:
    """The transpose of a matrix, by its rows."""
    return f"def kernel(s, d, lo, hi):\n    products.turn_{char}(s, d, lo, hi)\n"


def layout(
    args: Sequence[Array], outs: Sequence[Array]
) -> tuple[int, list[Array], list[tuple[int, ...]]] | None:
    """Reduce a call to loops over as few axes as possible.

    Returns the number of loops, a view of each array with only the axes it varies along, and which loops those
    are; None where an array is not contiguous or has another type than loops are made for.
    """
    shape = outs[0].shape
    arrays = [np.asarray(a) for a in (*args, *outs)]
    if any(o.shape != shape or o.dtype != outs[0].dtype for o in outs):
        return None
    if outs[0].dtype.char not in _TYPES or not all(a.flags.c_contiguous for a in arrays):
        return None
    if any(a.ndim > len(shape) or a.dtype.char not in "fdl?" for a in arrays):
        return None
    full = [(1,) * (len(shape) - a.ndim) + a.shape for a in arrays]
    groups: list[tuple[tuple[bool, ...], int]] = []  # who varies along an axis, and its length
    for axis, length in enumerate(shape):
        if length == 1:
            continue
        who = tuple(f[axis] != 1 for f in full)
        if groups and groups[-1][0] == who:
            groups[-1] = (who, groups[-1][1] * length)
        else:
            groups.append((who, length))
    views, indices = [], []
    for k, a in enumerate(arrays):
        mine = tuple(g for g, (who, _) in enumerate(groups) if who[k])
        dims = tuple(groups[g][1] for g in mine) or (1,)
        if prod(dims) != a.size:
            return None
        views.append(a.reshape(dims))
        indices.append(mine)
    return len(groups), views, indices


def named(views: Sequence[Array], n_args: int) -> tuple[list[str], list[Array]]:
    """Name the arrays; those that are one and the same memory get one name.

    Only so can the compiler see that an update in place is one, and work on several elements at a time.
    """
    names: list[str] = []
    known: dict[tuple[int, tuple[int, ...]], str] = {}
    distinct = []
    for k, view in enumerate(views):
        key = (view.__array_interface__["data"][0], view.shape)
        if key not in known:
            known[key] = f"a{k}" if k < n_args else f"o{k - n_args}"
            distinct.append(view)
        names.append(known[key])
    return names, distinct


def source(
    program: Program, axes: int, names: Sequence[str], indices: Sequence[tuple[int, ...]], char: str
) -> str:
    """Write the program as nested loops over `axes` axes."""

    def element(name: str, mine: tuple[int, ...]) -> str:
        return f"{name}[{', '.join(f'i{g}' for g in mine) or '0'}]"

    place = [element(name, mine) for name, mine in zip(names, indices, strict=True)]
    first = names[program.n_args]  # an output varies along every axis

    def show(ref: Ref) -> str:
        kind, value = ref
        if kind == "const":
            text = (
                "np.nan"
                if value != value
                else repr(value)
                if abs(value) != np.inf
                else f"{'-' * (value < 0)}np.inf"
            )
            return f"{_TYPES[char]}({text})"
        return {"arg": f"x{value}", "reg": f"r{value}", "breg": f"b{value}", "out": f"y{value}"}[kind]

    # Every argument is read before anything is written: an output may be an input.
    body = [f"x{i} = {place[i]}" for i in range(program.n_args)]
    for step in program.instructions:
        operands = [show(r) for r in step.operands]
        infix = _INFIX.get(step.op)
        value = (
            f"{operands[0]} {infix} {operands[1]}" if infix else (_CALLS | FAST)[step.op].format(*operands)
        )
        body.append(f"{show(step.target)} = {value}")
    body += [f"{place[program.n_args + k]} = y{k}" for k in range(program.n_out)]
    lines = [f"def kernel({', '.join(dict.fromkeys(names))}, lo, hi):"]
    # slices, because indices that count from `lo` may be negative as far as the compiler knows
    cut = dict.fromkeys(name for name, mine in zip(names, indices, strict=True) if 0 in mine)
    lines += [f"    {name} = {name}[lo:hi]" for name in cut]
    lines += ["    " * (g + 1) + f"for i{g} in range({first}.shape[{g}]):" for g in range(axes)]
    lines += ["    " * (axes + 1) + line for line in body]
    return "\n".join(lines) + "\n"
