"""Products of matrices as code of our own. Needs Numba; only generated code imports this module.

A product is cut into tiles of the result that stay in registers while all of the inner axis passes by; the vector
instructions are those of the processor it is compiled on. What is done before the first multiplication is little, which
small products notice, and threads can share a product in any pieces.

The second matrix is read by columns, as many at a time as fill two vectors. Where it comes transposed, or is too large
for the cache to hold such columns of all rows, they are first copied one after another: a panel (Goto and van de Geijn,
2008, do so with blocks of both matrices).
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from .pointers import function

_features = binding.get_host_cpu_features()
#: Bytes of a vector, and rows of a tile: a tile of that many rows and two vectors fits the registers.
_VECTOR, ROWS = (64, 8) if _features.get("avx512f") else (32, 6) if _features.get("avx2") else (16, 4)
#: Whether these products keep up with a good matrix library where the matrices are large.
FAST = _VECTOR >= 32

_I64, _I32 = ir.IntType(64), ir.IntType(32)


class _Emitter:
    """Writes vector instructions for one floating type with `width` numbers to a vector of so many bytes."""

    def __init__(self, builder: Any, kind: str, vector: int = _VECTOR):
        self.b, self._bytes = builder, vector
        self.size = 4 if kind == "f" else 8
        self.width = vector // self.size
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
        return self.b.add(address, self.number(vectors * self._bytes)) if vectors else address

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


def _tile(rows: int, vectors: int, kind: str, vector: int = _VECTOR) -> Any:
    """Compile the product of `rows` rows of a by columns of b that fill `vectors` vectors, `tail` lanes of the last."""

    @intrinsic
    def tile(
        typing_context: Any, a: Any, a_row: Any, a_column: Any, b: Any, b_row: Any, c: Any, c_row: Any, k: Any,
        tail: Any,
    ) -> Any:  # fmt: skip
        signature = types.void(*[types.int64] * 9)

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            e = _Emitter(builder, kind, vector)
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


def _line(kind: str) -> Any:
    """Compile the copy of the first n numbers of a vector; of all where n is more."""

    @intrinsic
    def line(typing_context: Any, s: Any, d: Any, n: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            e = _Emitter(builder, kind)
            s, d, n = arguments
            mask = e.first(n)
            e.store(e.load(s, mask), d, mask)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3), code

    return line


def panel(char: str) -> int:
    """Columns of a panel for a type, "f" or "d"."""
    return 2 * _VECTOR // (4 if char == "f" else 8)


def panels(n: int, char: str) -> int:
    """Panels that n columns make."""
    return -(-n // panel(char))


def _made(kind: str) -> tuple[Any, ...]:
    """The functions for one floating type."""
    size = 4 if kind == "f" else 8
    width = _VECTOR // size
    columns = 2 * width
    rows = ROWS
    block = 8 * rows
    wide, wide_row = _tile(rows, 2, kind), _tile(1, 2, kind)
    slim, slim_row = _tile(rows, 1, kind), _tile(1, 1, kind)
    # a few columns need half a vector only, which many processors do in half the time where a vector has 64 bytes
    half = width // 2 if _VECTOR == 64 else 0
    thin, thin_row = (_tile(n, 1, kind, _VECTOR // 2 if half else _VECTOR) for n in (rows, 1))
    square, line = _square(kind), _line(kind)

    @function
    def strip(
        a: Any, a_row: Any, a_column: Any, b: Any, b_row: Any, c: Any, c_row: Any, m: Any, n: Any, k: Any
    ) -> None:
        """c (m, n) = a (m, k) b (k, n) for at most a panel of columns; a, b, c are addresses, the rest strides."""
        i = 0
        while i < m:
            height = rows if m >= rows else 1
            i = min(i, m - height)  # the last tile may overlap the one before
            ai, ci = a + i * a_row * size, c + i * c_row * size
            if n > width:
                if height > 1:
                    wide(ai, a_row, a_column, b, b_row, ci, c_row, k, n - width)
                else:
                    wide_row(ai, a_row, a_column, b, b_row, ci, c_row, k, n - width)
            elif n > half:
                if height > 1:
                    slim(ai, a_row, a_column, b, b_row, ci, c_row, k, n)
                else:
                    slim_row(ai, a_row, a_column, b, b_row, ci, c_row, k, n)
            elif height > 1:
                thin(ai, a_row, a_column, b, b_row, ci, c_row, k, n)
            else:
                thin_row(ai, a_row, a_column, b, b_row, ci, c_row, k, n)
            i += height

    @function
    def pack(b: Any, work: Any, lo: Any, hi: Any) -> None:
        """Write panels lo to hi of b (k, n) one after another."""
        k, n = b.shape
        for p in range(lo, hi):
            s, d = b.ctypes.data + p * columns * size, work.ctypes.data + (p - lo) * k * columns * size
            left = n - p * columns
            for _ in range(k):
                line(s, d, left)
                if left > width:
                    line(s + width * size, d + width * size, left - width)
                s, d = s + n * size, d + columns * size

    @function
    def pack_turned(b: Any, work: Any, lo: Any, hi: Any) -> None:
        """Write panels lo to hi of the transpose of b (n, k) one after another."""
        n, k = b.shape
        for j in range(lo * columns, min(hi * columns, n), width):
            source = b.ctypes.data + j * k * size
            first = (j // columns - lo) * k * columns + j % columns
            for i in range(0, k, width):
                square(
                    source + i * size, k, min(n - j, width), min(k - i, width),
                    work.ctypes.data + (first + i * columns) * size, columns,
                )  # fmt: skip

    @function
    def rows_of(a: Any, b: Any, out: Any, ta: Any, lo: Any, hi: Any) -> None:
        """Rows lo to hi of out = a b, or of a^T b if `ta` is 1."""
        n, k = b.shape[1], a.shape[0] if ta else a.shape[1]
        a_row, a_column = (1, a.shape[1]) if ta else (k, 1)
        start, c = a.ctypes.data + lo * a_row * size, out.ctypes.data + lo * n * size
        for j in range(0, n, columns):
            strip(
                start, a_row, a_column, b.ctypes.data + j * size, n, c + j * size, n, hi - lo,
                min(n - j, columns), k,
            )  # fmt: skip

    @function
    def rows_of_packed(a: Any, work: Any, out: Any, lo: Any, hi: Any) -> None:
        """Rows lo to hi of out = a b, all panels of b being in `work`."""
        n, k = out.shape[1], a.shape[1]
        for i in range(lo, hi, block):  # so many rows stay in the second-level cache for all panels
            start, c = a.ctypes.data + i * k * size, out.ctypes.data + i * n * size
            m = min(hi - i, block)
            for j in range(0, n, columns):
                b = work.ctypes.data + j * k * size
                strip(start, k, 1, b, columns, c + j * size, n, m, min(n - j, columns), k)

    @function
    def panels_of(a: Any, b: Any, out: Any, work: Any, ta: Any, tb: Any, lo: Any, hi: Any) -> None:
        """Panels lo to hi of out = a b, either of which is transposed if `ta` or `tb` is 1; `work` has room for one."""
        (m, n), k = out.shape, a.shape[0] if ta else a.shape[1]
        a_row, a_column = (1, m) if ta else (k, 1)
        for p in range(lo, hi):
            if tb:
                pack_turned(b, work, p, p + 1)
            else:
                pack(b, work, p, p + 1)
            c = out.ctypes.data + p * columns * size
            strip(
                a.ctypes.data, a_row, a_column, work.ctypes.data, columns, c, n, m, min(n - p * columns, columns), k
            )  # fmt: skip

    @function
    def turn(s: Any, d: Any, lo: Any, hi: Any) -> None:
        """Write rows lo to hi of the transpose of s (r, c) where they belong in d (c, r)."""
        r, c = s.shape
        for j in range(lo, hi, width):
            for i in range(0, r, width):
                square(
                    s.ctypes.data + (i * c + j) * size, c, min(r - i, width), min(hi - j, width),
                    d.ctypes.data + (j * r + i) * size, r,
                )  # fmt: skip

    return pack_turned, rows_of, rows_of_packed, panels_of, turn


pack_turned_f, rows_of_f, rows_of_packed_f, panels_of_f, turn_f = _made("f")
pack_turned_d, rows_of_d, rows_of_packed_d, panels_of_d, turn_d = _made("d")
