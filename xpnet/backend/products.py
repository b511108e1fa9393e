"""Products of small matrices as code of our own. Needs Numba; only generated code imports this module.

BLAS libraries are made for large matrices: what they do before the first multiplication takes longer than a small
product, and they choose kernels by processors they know. Here a product is cut into tiles of the result that stay in
registers while all of the inner axis passes by; the vector instructions are those of the processor it is compiled on.
A matrix that comes transposed is turned first, a square of vectors at a time.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic

_features = binding.get_host_cpu_features()
#: Bytes of a vector, and rows of a tile: a tile of that many rows and two vectors fits the registers.
_VECTOR, _ROWS = (64, 8) if _features.get("avx512f") else (32, 4) if _features.get("avx2") else (16, 4)

_I64, _I32 = ir.IntType(64), ir.IntType(32)


class _Emitter:
    """Writes vector instructions for one floating type with `width` numbers to a vector."""

    def __init__(self, builder: Any, kind: str):
        self.b = builder
        self.size = 4 if kind == "f" else 8
        self.width = _VECTOR // self.size
        self.element = ir.FloatType() if kind == "f" else ir.DoubleType()
        self.vector = ir.VectorType(self.element, self.width)
        self._lanes = ir.VectorType(_I32, self.width)
        self._mask = ir.VectorType(ir.IntType(1), self.width)
        self._suffix = f"v{self.width}f{8 * self.size}"
        self.zero = ir.Constant(self.vector, [ir.Constant(self.element, 0.0)] * self.width)

    def number(self, value: int) -> Any:
        return ir.Constant(_I64, value)

    def bytes(self, elements: Any) -> Any:
        return self.b.mul(elements, self.number(self.size))

    def after(self, address: Any, vectors: int) -> Any:
        """The address so many vectors further on."""
        return self.b.add(address, self.number(vectors * _VECTOR)) if vectors else address

    def _spread(self, value: Any, vector: Any) -> Any:
        nothing = ir.Constant(vector, ir.Undefined)
        first = self.b.insert_element(nothing, value, _I32(0))
        return self.b.shuffle_vector(first, nothing, ir.Constant(self._lanes, [_I32(0)] * self.width))

    def first(self, n: Any) -> Any:
        """A mask of the first `n` lanes."""
        lanes = ir.Constant(self._lanes, [_I32(lane) for lane in range(self.width)])
        return self.b.icmp_signed("<", lanes, self._spread(self.b.trunc(n, _I32), self._lanes))

    def masked_if(self, condition: Any, mask: Any) -> Any:
        return self.b.select(condition, mask, ir.Constant(self._mask, [ir.IntType(1)(0)] * self.width))

    def _pointer(self, address: Any, kind: Any) -> Any:
        return self.b.inttoptr(address, kind.as_pointer())

    def _function(self, name: str, result: Any, arguments: list[Any]) -> Any:
        module = self.b.module
        return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, arguments), name)

    def spread(self, address: Any) -> Any:
        """The number at an address in every lane."""
        value = self.b.load(self._pointer(address, self.element), align=self.size)
        return self._spread(value, self.vector)

    def load(self, address: Any, mask: Any = None) -> Any:
        pointer = self._pointer(address, self.vector)
        if mask is None:
            return self.b.load(pointer, align=self.size)
        name = f"llvm.masked.load.{self._suffix}.p0"
        kinds = [self.vector.as_pointer(), _I32, self._mask, self.vector]
        return self.b.call(
            self._function(name, self.vector, kinds), [pointer, _I32(self.size), mask, self.zero]
        )

    def store(self, value: Any, address: Any, mask: Any = None) -> None:
        pointer = self._pointer(address, self.vector)
        if mask is None:
            self.b.store(value, pointer, align=self.size)
            return
        name = f"llvm.masked.store.{self._suffix}.p0"
        kinds = [self.vector, self.vector.as_pointer(), _I32, self._mask]
        self.b.call(self._function(name, ir.VoidType(), kinds), [value, pointer, _I32(self.size), mask])

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        function = self._function(f"llvm.fmuladd.{self._suffix}", self.vector, [self.vector] * 3)
        return self.b.call(function, [a, b, c])

    def mixed(self, a: Any, b: Any, lanes: list[int]) -> Any:
        """A vector of lanes of `a` (from 0) and `b` (from `width`)."""
        return self.b.shuffle_vector(a, b, ir.Constant(self._lanes, [_I32(lane) for lane in lanes]))


def _tile(rows: int, vectors: int, kind: str) -> Any:
    """Compile the product of `rows` rows of a by columns of b that fill `vectors` vectors, `tail` lanes of the last."""

    @intrinsic
    def tile(
        typing_context: Any, a: Any, a_row: Any, a_column: Any, b: Any, b_row: Any, c: Any, c_row: Any, k: Any,
        tail: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(*[types.int64] * 9)

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            e = _Emitter(builder, kind)
            a, a_row, a_column, b, b_row, c, c_row, k, tail = arguments
            a_row, a_column, b_row, c_row = (e.bytes(stride) for stride in (a_row, a_column, b_row, c_row))
            mask = e.first(tail)
            before = builder.block
            loop = builder.append_basic_block("inner")
            builder.branch(loop)
            builder.position_at_end(loop)
            step, a_now, b_now = (builder.phi(_I64) for _ in range(3))
            for phi, start in ((step, e.number(0)), (a_now, a), (b_now, b)):
                phi.add_incoming(start, before)
            sums = [[builder.phi(e.vector) for _ in range(vectors)] for _ in range(rows)]
            columns = [e.load(e.after(b_now, v), mask if v == vectors - 1 else None) for v in range(vectors)]
            address = a_now
            for row in sums:
                factor = e.spread(address)
                for v, (phi, column) in enumerate(zip(row, columns, strict=True)):
                    phi.add_incoming(e.zero, before)
                    row[v] = e.multiply_add(factor, column, phi)
                    phi.add_incoming(row[v], loop)
                address = builder.add(address, a_row)
            following = (
                builder.add(step, e.number(1)),
                builder.add(a_now, a_column),
                builder.add(b_now, b_row),
            )
            for phi, value in zip((step, a_now, b_now), following, strict=True):
                phi.add_incoming(value, loop)
            done = builder.append_basic_block("done")
            builder.cbranch(builder.icmp_signed("<", following[0], k), loop, done)
            builder.position_at_end(done)
            address = c
            for row in sums:
                for v, value in enumerate(row):
                    e.store(value, e.after(address, v), mask if v == vectors - 1 else None)
                address = builder.add(address, c_row)
            return context.get_dummy_value()

        return signature, code

    return tile


def _square(kind: str) -> Any:
    """Compile the transposition of at most a square of vectors: `rows` x `columns` of s into d."""

    @intrinsic
    def square(typing_context: Any, s: Any, s_row: Any, rows: Any, columns: Any, d: Any, d_row: Any) -> Any:
        signature = types.void(*[types.int64] * 6)

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            e = _Emitter(builder, kind)
            s, s_row, rows, columns, d, d_row = arguments
            s_row, d_row = e.bytes(s_row), e.bytes(d_row)
            across, down = e.first(columns), e.first(rows)
            lines = []
            for i in range(e.width):
                lines.append(e.load(s, e.masked_if(builder.icmp_signed("<", e.number(i), rows), across)))
                s = builder.add(s, s_row)
            # squares off the diagonal change places, of half the side first in pairs, then fours, ...
            apart = 1
            while apart < e.width:
                swapped = [bool(lane & apart) for lane in range(e.width)]
                upper = [e.width + lane - apart if off else lane for lane, off in enumerate(swapped)]
                lower = [e.width + lane if off else lane + apart for lane, off in enumerate(swapped)]
                for i in range(e.width):
                    if not i & apart:
                        x, y = lines[i], lines[i + apart]
                        lines[i], lines[i + apart] = e.mixed(x, y, upper), e.mixed(x, y, lower)
                apart *= 2
            for j, line in enumerate(lines):
                e.store(line, d, e.masked_if(builder.icmp_signed("<", e.number(j), columns), down))
                d = builder.add(d, d_row)
            return context.get_dummy_value()

        return signature, code

    return square


def _made(kind: str) -> tuple[Any, Any, Any, Any, Any]:
    """The functions for one floating type."""
    size = 4 if kind == "f" else 8
    width = _VECTOR // size
    rows = _ROWS
    wide, wide_row = _tile(rows, 2, kind), _tile(1, 2, kind)
    slim, slim_row = _tile(rows, 1, kind), _tile(1, 1, kind)
    square = _square(kind)

    @njit(error_model="numpy")
    def product(
        a: Any, a_row: Any, a_column: Any, b: Any, c: Any, m: Any, n: Any, k: Any, line: Any
    ) -> None:  # fmt: skip
        """c (m, n) = a (m, k) with any strides, by b (k, n); a, b, c are addresses, `line` is the stride of b and c."""
        for j in range(0, n, 2 * width):
            columns = min(n - j, 2 * width)
            bj, cj = b + j * size, c + j * size
            i = 0
            while i < m:
                height = rows if m >= rows else 1
                i = min(i, m - height)  # the last tile may overlap the one before
                ai, ci = a + i * a_row * size, cj + i * line * size
                if columns > width:
                    if height > 1:
                        wide(ai, a_row, a_column, bj, line, ci, line, k, columns - width)
                    else:
                        wide_row(ai, a_row, a_column, bj, line, ci, line, k, columns - width)
                elif height > 1:
                    slim(ai, a_row, a_column, bj, line, ci, line, k, columns)
                else:
                    slim_row(ai, a_row, a_column, bj, line, ci, line, k, columns)
                i += height

    @njit(error_model="numpy")
    def straight(a: Any, b: Any, out: Any, lo: Any, hi: Any) -> None:
        """Rows lo to hi of out = a b."""
        n, k = b.shape[1], a.shape[1]
        c = out.ctypes.data + lo * n * size
        product(a.ctypes.data + lo * k * size, k, 1, b.ctypes.data, c, hi - lo, n, k, n)

    @njit(error_model="numpy")
    def columns(a: Any, b: Any, out: Any, lo: Any, hi: Any) -> None:
        """Columns lo to hi of out = a b."""
        (m, k), n = a.shape, b.shape[1]
        start = lo * size
        product(a.ctypes.data, k, 1, b.ctypes.data + start, out.ctypes.data + start, m, hi - lo, k, n)

    @njit(error_model="numpy")
    def first_turned(a: Any, b: Any, out: Any, lo: Any, hi: Any) -> None:
        """Rows lo to hi of out = a^T b."""
        n, (k, m) = b.shape[1], a.shape
        c = out.ctypes.data + lo * n * size
        product(a.ctypes.data + lo * size, 1, m, b.ctypes.data, c, hi - lo, n, k, n)

    @njit(error_model="numpy")
    def turn(s: Any, d: Any, lo: Any, hi: Any) -> None:
        """Write rows lo to hi of s (r, c), transposed, where they belong in the first numbers of d."""
        rows, columns = s.shape
        source, target = s.ctypes.data, d.ctypes.data
        for i in range(lo, hi, width):
            for j in range(0, columns, width):
                square(
                    source + (i * columns + j) * size, columns, min(hi - i, width), min(columns - j, width),
                    target + (j * rows + i) * size, rows,
                )  # fmt: skip

    @njit(error_model="numpy")
    def second_turned(a: Any, b: Any, out: Any, work: Any) -> None:
        """out = a b^T; `work` has room for b"""
        n, k = b.shape
        turn(b, work, 0, n)
        product(a.ctypes.data, k, 1, work.ctypes.data, out.ctypes.data, a.shape[0], n, k, n)

    return straight, columns, first_turned, second_turned, turn


straight_f, columns_f, first_turned_f, second_turned_f, turn_f = _made("f")
straight_d, columns_d, first_turned_d, second_turned_d, turn_d = _made("d")
