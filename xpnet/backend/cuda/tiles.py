"""Products as a kernel of xpnet's own, tile by tile: for steps that are one kernel, which cannot call a library.

Everything else has its products from cublasLt, which is quicker for large ones and knows more number formats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .. import Array
from .formulas import C_TYPES
from .kernels import named
from .products import Matrix, Product
from .schedule import Call
from .updates import AT_ONCE, Update, without

#: Threads of a block.
THREADS = 256
#: Tiles of the result: rows, columns, and how many numbers of the sums are in shared memory at a time. Where a tile is
#: small for 256 threads, several of them share the sum of a number.
TILES = ((16, 16, 64), (32, 32, 64), (64, 64, 32))
#: What a tile costs beyond its multiplications, in those: filling shared memory, waiting, writing. Not measured.
_OVERHEAD = 1 << 17

# What a tile has of one operand. It lies in shared memory as in memory: along the sum (ALONG) or across.
_OPERAND = """
struct alignas(16) Four { T v[4]; };  // as shared memory is
template <bool ALONG, bool WHOLE, int LINES> struct Operand {
    static const int HEIGHT = ALONG ? LINES : DEPTH, WIDTH = ALONG ? DEPTH : LINES, STRIDE = WIDTH + (PADDING);
    static const int EACH = HEIGHT * WIDTH / 4 / 256;
    Four next[EACH];
    __device__ __forceinline__ void fetch(
            const T* from, const long long row, const int first, const int lines, const int start, const int depth,
            const int thread) {
        const int top = ALONG ? first : start, left = ALONG ? start : first;
        const int bottom = ALONG ? lines : depth, right = ALONG ? depth : lines;
#pragma unroll
        for (int u = 0; u < EACH; ++u) {
            const int place = thread + 256 * u, i = top + place / (WIDTH / 4), j = left + place % (WIDTH / 4) * 4;
            const T* at = from + i * row + j;
            if (WHOLE && i < bottom && j + 3 < right) {
                next[u] = *(const Four*)at;
            } else {
#pragma unroll
                for (int v = 0; v < 4; ++v) next[u].v[v] = i < bottom && j + v < right ? at[v] : T(0);
            }
        }
    }
    __device__ __forceinline__ void keep(T* kept, const int thread) {
#pragma unroll
        for (int u = 0; u < EACH; ++u) {
            const int place = thread + 256 * u;
#pragma unroll
            for (int v = 0; v < 4; ++v) next[u].v[v] = ROUNDED(next[u].v[v]);
            *(Four*)(kept + place / (WIDTH / 4) * STRIDE + place % (WIDTH / 4) * 4) = next[u];
        }
    }
    static __device__ __forceinline__ T at(const T* kept, const int line, const int k) {
        return kept[ALONG ? line * STRIDE + k : k * STRIDE + line];
    }
    // the four lines of a thread that has 4 x 4 numbers: neighbours where a piece of four is read across
    static __device__ __forceinline__ int line(const int own, const int u) {
        return ALONG ? own + u * (LINES / 4) : own * 4 + u;
    }
    static __device__ __forceinline__ void read(T (&to)[4][4], const T* kept, const int own, const int k) {
#pragma unroll
        for (int u = 0; u < 4; ++u) {
            const Four piece = *(const Four*)(kept + (ALONG ? line(own, u) * STRIDE + k : (k + u) * STRIDE + own * 4));
#pragma unroll
            for (int v = 0; v < 4; ++v) to[ALONG ? u : v][ALONG ? v : u] = piece.v[v];
        }
    }
};
"""

# ReferenceBackend.matmul, then a bias and a rectifier where asked for: c = a b, row-major, each block a tile of c. What
# of a and b is needed next comes to registers while the threads work on what they have in shared memory. The order of a
# sum depends on the tile only. An update reads several numbers before it writes any: it may write where it reads, so
# else each would wait for the one before.
_PRODUCT = """
extern "C" __global__ void __launch_bounds__(256, 2) product(
        const T* a, const T* b, T* c BIAS_PARAMETER UPDATE_PARAMETERS, const int height, const int width,
        const int depth, const long long a_row, const long long a_step, const long long b_row, const long long b_step,
        const long long c_row, const long long c_step) {
    typedef Operand<A_ALONG, A_WHOLE, ROWS> OfA;
    typedef Operand<B_ALONG, B_WHOLE, COLUMNS> OfB;
    __shared__ Four memory[MEMORY];
    T* const of_a = (T*)memory;
    T* const of_b = of_a + OfA::HEIGHT * OfA::STRIDE;
    T* const parts = (T*)memory;
    const int thread = threadIdx.x, tiles = (width + COLUMNS - 1) / COLUMNS;
    const int top = int(blockIdx.x) / tiles * ROWS, left = int(blockIdx.x) % tiles * COLUMNS;
    const long long stack = blockIdx.y * c_step;
    a += blockIdx.y * a_step;
    b += blockIdx.y * b_step;
    OfA next_a;
    OfB next_b;
    SUMS
    next_a.fetch(a, a_row, top, height, 0, depth, thread);
    next_b.fetch(b, b_row, left, width, 0, depth, thread);
#pragma unroll 1
    for (int start = 0; start < depth; start += DEPTH) {
        next_a.keep(of_a, thread);
        next_b.keep(of_b, thread);
        __syncthreads();
        if (start + DEPTH < depth) {
            next_a.fetch(a, a_row, top, height, start + DEPTH, depth, thread);
            next_b.fetch(b, b_row, left, width, start + DEPTH, depth, thread);
        }
        MULTIPLY
        __syncthreads();
    }
    LEAVE
    __syncthreads();
    UPDATE_NUMBERS
    const int each = ROWS * COLUMNS / 256;
#pragma unroll 1
    for (int first = 0; first < each; first += AT_ONCE) {
        UPDATE_MEMORY
#pragma unroll
        for (int u = 0; u < AT_ONCE && u < each; ++u) {
            const int place = thread + 256 * (first + u), i = top + place / COLUMNS, j = left + place % COLUMNS;
            if (i >= height || j >= width) continue;
            const long long at = stack + i * c_row + j;
            UPDATE_READS
        }
#pragma unroll
        for (int u = 0; u < AT_ONCE && u < each; ++u) {
            const int place = thread + 256 * (first + u), i = top + place / COLUMNS, j = left + place % COLUMNS;
            if (i >= height || j >= width) continue;
            T value = parts[place];
#pragma unroll
            for (int share = 1; share < SHARES; ++share) value += parts[share * ROWS * COLUMNS + place];
            BIAS
            const long long at = stack + i * c_row + j;
            c[at] = value;
            UPDATE
        }
    }
}
"""

# How a tile is added up: a thread has 4 x 4 numbers, of a share of the sum,
_PLAIN = {
    "SUMS": """
    const int share = thread / (ROWS * COLUMNS / 16), own = thread % (ROWS * COLUMNS / 16);
    const int down = own / (COLUMNS / 4), across = own % (COLUMNS / 4);
    T sum[4][4] = {};""",
    "MULTIPLY": """
#pragma unroll 1
        for (int piece = 0; piece < DEPTH / (4 * SHARES); ++piece) {
            const int k = 4 * (share + SHARES * piece);
            T x[4][4], y[4][4];
            OfA::read(x, of_a, down, k);
            OfB::read(y, of_b, across, k);
#pragma unroll
            for (int v = 0; v < 4; ++v)
#pragma unroll
                for (int i = 0; i < 4; ++i)
#pragma unroll
                    for (int j = 0; j < 4; ++j) sum[i][j] += x[i][v] * y[j][v];
        }""",
    "LEAVE": """
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
            parts[(share * ROWS + OfA::line(down, i)) * COLUMNS + OfB::line(across, j)] = sum[i][j];""",
    "ROUNDED": "", "PADDING": "4",
}  # fmt: skip

# or a warp has 16 rows, in the matrix units, whose instruction says which lane has what (PTX ISA, mma.m16n8k8).
_TF32 = {
    "SUMS": """
    const int warp = thread / 32, group = thread % 32 / 4, lane = thread % 4;
    const int share = warp / (8 / SHARES), own = warp % (8 / SHARES);
    const int down = own / (COLUMNS / WIDE) * 16, across = own % (COLUMNS / WIDE) * WIDE;
    float sum[WIDE / 8][4] = {};""",
    "MULTIPLY": """
#pragma unroll
        for (int piece = 0; piece < DEPTH / (8 * SHARES); ++piece) {
            const int k = 8 * (share + SHARES * piece);
            float x[4], y[2];
#pragma unroll
            for (int u = 0; u < 4; ++u) x[u] = OfA::at(of_a, down + group + u % 2 * 8, k + lane + u / 2 * 4);
#pragma unroll
            for (int j = 0; j < WIDE / 8; ++j) {
#pragma unroll
                for (int u = 0; u < 2; ++u) y[u] = OfB::at(of_b, across + 8 * j + group, k + lane + 4 * u);
                multiply_tf32(sum[j], x, y);
            }
        }""",
    "LEAVE": """
#pragma unroll
    for (int j = 0; j < WIDE / 8; ++j)
#pragma unroll
        for (int u = 0; u < 4; ++u) {
            const int row = share * ROWS + down + group + u / 2 * 8;
            parts[row * COLUMNS + across + 8 * j + 2 * lane + u % 2] = sum[j][u];
        }""",
    "ROUNDED": "to_tf32", "PADDING": "ALONG ? 4 : 8",
}  # fmt: skip
MATRIX_UNITS = """
static __device__ __forceinline__ float to_tf32(const float x) {
    unsigned y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return __uint_as_float(y);
}
static __device__ __forceinline__ void multiply_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}
"""


def call(
    product: Product, a: Array, b: Array, out: Array, bias: Array | None, blocks: int,
    address: Callable[[Array], int], *, tf32: bool = False, update: Update | None = None,
) -> Call:  # fmt: skip
    """The launch that computes what `Runtime.multiply` does, on a device that runs so many blocks at a time."""
    p, tile = product, _tile(product, blocks)
    size = np.dtype(p.dtype).itemsize
    # column-major descriptions: the second operand is the left one of rows, and as stored its columns are our rows
    flags = {
        "A_ALONG": not p.second.transposed, "B_ALONG": p.first.transposed,
        "A_WHOLE": _whole(a, p.second, size, address), "B_WHOLE": _whole(b, p.first, size, address),
    }  # fmt: skip
    name, source = kernel(p, tile, flags, tf32=tf32, update=update)
    numbers: list[Any] = [np.int32(p.n), np.int32(p.m), np.int32(p.k)]
    numbers += [np.int64(x) for m in (p.second, p.first, p.result) for x in (m.leading, m.stride)]
    given: list[Any] = [a, b, out]
    if p.bias is not None:
        given += [bias, np.int64(p.bias)]
    if update is not None:
        given += update.arrays
    grid = (-(-p.n // tile[0]) * -(-p.m // tile[1]), p.batch)
    return Call(name, source, grid, (THREADS, 1), (*given, *numbers))


def _tile(p: Product, blocks: int) -> tuple[int, int, int]:
    """The tile with which a device has done first: rounds of blocks, times what a block takes."""

    def cost(tile: tuple[int, int, int]) -> int:
        rows, columns, _ = tile
        tiles = -(-p.n // rows) * -(-p.m // columns) * p.batch
        return -(-tiles // blocks) * (rows * columns * p.k + _OVERHEAD)

    return min(TILES, key=cost)


def _whole(x: Array, matrix: Matrix, size: int, address: Callable[[Array], int]) -> bool:
    """Whether pieces of four numbers are aligned wherever a row of the matrix or a matrix of the stack begins."""
    return not (address(x) % (4 * size) or matrix.leading % 4 or matrix.stride % 4)


def kernel(
    product: Product, tile: tuple[int, int, int], flags: Mapping[str, bool], *, tf32: bool = False,
    update: Update | None = None,
) -> tuple[str, str]:  # fmt: skip
    """Return the name and the source of the product by such tiles, with or without bias, rectifier and update.

    >>> from .products import describe
    >>> x, w, y = np.zeros((8, 5), "f4"), np.zeros((3, 5), "f4"), np.zeros((8, 3), "f4")
    >>> flags = {"A_ALONG": True, "B_ALONG": True, "A_WHOLE": False, "B_WHOLE": False}
    >>> kernel(describe(x, w, False, True, y), TILES[0], flags)[0]
    'product_16_16_1100_float32'
    """
    rows, columns, depth = tile
    wide = min(columns, 32)
    shares = 8 * 16 * wide // (rows * columns) if tf32 else 16 * THREADS // (rows * columns)
    needed = rows * columns * shares
    strides = ((rows, flags["A_ALONG"]), (columns, flags["B_ALONG"]))
    stored = sum(
        lines * (depth + 4) if along else depth * (lines + (8 if tf32 else 4)) for lines, along in strides
    )
    pieces = {
        **(_TF32 if tf32 else _PLAIN),
        "BIAS_PARAMETER": ", const T* bias, const long long bias_step", "BIAS": "", "WIDE": str(wide),
        "MEMORY": str(max(needed, stored) // 4), "SHARES": str(shares), "ROWS": str(rows), "COLUMNS": str(columns),
        "DEPTH": str(depth), "AT_ONCE": str(AT_ONCE), **{flag: str(on).lower() for flag, on in flags.items()},
    }  # fmt: skip
    kind = "_tf32" if tf32 else ""
    if product.bias is None:
        pieces["BIAS_PARAMETER"] = ""
    else:
        kind += "_bias"
        pieces["BIAS"] = "value += bias[blockIdx.y * bias_step + j];"
    if product.relu:
        kind += "_relu"
        pieces["BIAS"] += " value = value > T(0) || value != value ? value : T(0);"
    if update is not None:
        kind += f"_{update.key}"
    text = (MATRIX_UNITS if tf32 else "") + _OPERAND + _PRODUCT
    text = without(text) if update is None else update.within(text)
    for word, piece in pieces.items():
        text = text.replace(word, piece)
    which = "".join(str(int(on)) for on in flags.values())
    name = f"product_{rows}_{columns}_{which}{kind}_{product.dtype}"
    return named("product", name, text, {"T": C_TYPES[product.dtype]}, product.dtype)
