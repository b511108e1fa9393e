"""The kernels that are written by hand: what is no formula of single elements.

Each names its twin in `xpnet.backend.reference`, which is the definition of truth. Every kernel is made for one
floating type ``T`` (and more types where it converts); reductions go by shuffles within a warp, then through shared
memory, in an order that depends on shapes only: equal inputs give equal bits. No headers are included, because the
run-time compiler takes seconds for some of them.
"""

from __future__ import annotations

from .formulas import C_TYPES
from .updates import Update, without

#: What samples may be stored in.
STORED_TYPES = C_TYPES | {
    "int8": "signed char", "int16": "short", "int32": "int", "uint32": "unsigned", "uint64": "unsigned long long",
}  # fmt: skip

#: Threads of a warp, and warps of a block in kernels that give each row a warp.
WARP, WARPS = 32, 8
#: Rows up to this length get a thread instead of a warp, and rows longer than the second a block.
NARROW_ROW = 8
LONG_ROW = 1024
#: Rows that a block of `sum_columns` reads at a time.
COLUMN_ROWS = 16
#: Threads that a row of `softmax_head` can have, the most of its block, and how often they may go over their part:
#: one block has one multiprocessor only, and beyond that separate kernels, which have all of them, are better.
HEAD_GROUPS = (8, 16, 32)
HEAD_THREADS = 1024
HEAD_ROUNDS = 8

PRELUDE = """
static __device__ __forceinline__ T warp_sum(T x) {
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
static __device__ __forceinline__ T larger(T a, T b) { return (a >= b || a != a) ? a : b; }
static __device__ __forceinline__ T warp_max(T x) {
    for (int step = 16; step > 0; step >>= 1) x = larger(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}
"""

# The sum of what the 16 threads of a column have, for the first of them.
COLUMN_SUM = """
static __device__ __forceinline__ T column_sum(T total) {
    __shared__ T part[16][33];
    part[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y == 0)
        for (int k = 1; k < 16; ++k) total += part[k][threadIdx.x];
    return total;
}
"""

# ReferenceBackend.sum, axis -1: a thread for each row of a few numbers.
SUM_NARROW_ROWS = """
extern "C" __global__ void __launch_bounds__(256, 2) sum_narrow_rows(
        const T* x, T* out, const long long rows, const int width, const long long stride) {
    const long long row = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (row >= rows) return;
    T total = x[row * stride];
    for (int j = 1; j < width; ++j) total += x[row * stride + j];
    out[row] = total;
}
"""

# ReferenceBackend.sum, axis -1: a warp for each row.
SUM_ROWS = """
extern "C" __global__ void __launch_bounds__(256, 2) sum_rows(
        const T* x, T* out, const long long rows, const int width, const long long stride) {
    const long long row = blockIdx.x * (long long)blockDim.y + threadIdx.y;
    if (row >= rows) return;
    T total = 0;
    for (int j = threadIdx.x; j < width; j += 32) total += x[row * stride + j];
    total = warp_sum(total);
    if (threadIdx.x == 0) out[row] = total;
}
"""

# ReferenceBackend.sum, axis -1: a block of 1024 threads for each piece of a long row.
SUM_LONG_ROWS = """
extern "C" __global__ void __launch_bounds__(1024, 1) sum_long_rows(
        const T* x, T* out, const long long width, const long long stride, const long long each) {
    __shared__ T of_warp[32];
    const T* row = x + blockIdx.x * stride;
    const long long first = blockIdx.y * each, last = first + each < width ? first + each : width;
    T total = 0;
    for (long long j = first + threadIdx.x; j < last; j += 1024) total += row[j];
    total = warp_sum(total);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = total;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    total = warp_sum(of_warp[threadIdx.x]);
    if (threadIdx.x == 0) out[blockIdx.x * (long long)gridDim.y + blockIdx.y] = total;
}
"""

# ReferenceBackend.sum, axis -2: 32 columns of one piece of the rows for each block, so that a warp reads neighbours.
SUM_COLUMNS = """
extern "C" __global__ void __launch_bounds__(512, 2) sum_columns(
        const T* x, T* out UPDATE_PARAMETERS, const int height, const int width, const int each, const int pieces,
        const long long stack, const long long stride) {
    UPDATE_NUMBERS
    const int column = blockIdx.x * 32 + threadIdx.x;
    const int first = int(blockIdx.y % pieces) * each, last = first + each < height ? first + each : height;
    x += blockIdx.y / pieces * stack;
    T total = 0;
    if (column < width)
        for (int i = first + threadIdx.y; i < last; i += 16) total += x[i * stride + column];
    total = column_sum(total);
    if (threadIdx.y != 0 || column >= width) return;
    const long long at = blockIdx.y * (long long)width + column;
    const int u = 0;
    UPDATE_MEMORY
    UPDATE_READS
    const T value = total;
    out[at] = value;
    UPDATE
}
"""

# ReferenceBackend.softmax: a warp for each row. Rows of the input are `step` apart, and every `inner` of them `outer`:
# members of a population may lie side by side.
SOFTMAX = """
extern "C" __global__ void __launch_bounds__(256, 2) softmax(
        const T* z, T* out, const long long rows, const int width, const long long inner,
        const long long outer, const long long step) {
    const long long row = blockIdx.x * (long long)blockDim.y + threadIdx.y;
    if (row >= rows) return;
    z += row / inner * outer + row % inner * step;
    out += row * width;
    const int lane = threadIdx.x;
    T top = z[lane < width ? lane : 0];
#pragma unroll 1
    for (int j = lane + 32; j < width; j += 32) top = larger(top, z[j]);
    top = warp_max(top);
    T total = 0;
#pragma unroll 1
    for (int j = lane; j < width; j += 32) {
        const T e = EXP(z[j] - top);
        out[j] = e;
        total += e;
    }
    total = warp_sum(total);
#pragma unroll 1
    for (int j = lane; j < width; j += 32) out[j] = out[j] / total;
}
"""

# ReferenceBackend.softmax_cross_entropy: a warp for each row; members of a population may share targets and weights.
SOFTMAX_CROSS_ENTROPY = """
extern "C" __global__ void __launch_bounds__(256, 2) softmax_cross_entropy(
        const T* z, const T* t, const T* w, T* loss, T* out, const long long rows, const int width,
        const long long target_rows, const long long weights, const long long inner,
        const long long outer, const long long step) {
    const long long row = blockIdx.x * (long long)blockDim.y + threadIdx.y;
    if (row >= rows) return;
    z += row / inner * outer + row % inner * step;
    out += row * width;
    t += row % target_rows * width;
    const int lane = threadIdx.x;
    T top = z[lane < width ? lane : 0];
#pragma unroll 1
    for (int j = lane + 32; j < width; j += 32) top = larger(top, z[j]);
    top = warp_max(top);
    T total = 0, share = 0, cost = 0;
#pragma unroll 1
    for (int j = lane; j < width; j += 32) {
        const T shifted = z[j] - top, e = EXP(shifted);
        total += e;
        share += t[j];
        cost -= t[j] != T(0) ? t[j] * shifted : T(0);
        out[j] = e;  // each thread reads z only where it writes
    }
    total = warp_sum(total);
    share = warp_sum(share);
    cost = warp_sum(cost);
    if (lane == 0) loss[row] = cost + share * LOG(total);
    const T weight = w[row % weights], factor = share / total;
#pragma unroll 1
    for (int j = lane; j < width; j += 32) out[j] = weight * (out[j] * factor - t[j]);
}
"""

# ReferenceBackend.softmax_head: a block for each model, GROUP threads for each row, several rows one after another.
# Every thread of a warp takes part in every shuffle, so groups without a row of their own read the last one again.
SOFTMAX_HEAD = """
static __device__ __forceinline__ T group_sum(T x) {
    for (int step = GROUP / 2; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
extern "C" __global__ void __launch_bounds__(HEAD_THREADS, 1) softmax_head(
        const T* z, const T* t, const T* w, const long long* labels, T* loss, T* out, T* batch_loss,
        double* total, double* hits, const int rows, const int width, const long long outer,
        const long long step, const int own_targets, const int own_weights, const int own_labels) {
    __shared__ T loss_of[32], hits_of[32];
    const long long model = blockIdx.x, first = model * rows;
    const int lane = threadIdx.x % GROUP, group = threadIdx.x / GROUP, groups = blockDim.x / GROUP;
    T losses = 0, right = 0;
#pragma unroll 1
    for (int start = 0; start < rows; start += groups) {
        const bool real = start + group < rows;
        const int row = real ? start + group : rows - 1;
        const T* from = z + model * outer + row * step;
        const T* wanted = t + ((own_targets ? first : 0) + row) * width;
        T* to = out + (first + row) * width;
        int best = lane < width ? lane : 0;
        T top = from[best];
#pragma unroll 1
        for (int j = lane + GROUP; j < width; j += GROUP)
            if (from[j] > top || (from[j] != from[j] && top == top)) { top = from[j]; best = j; }
        for (int hop = GROUP / 2; hop > 0; hop >>= 1) {
            const T other = __shfl_xor_sync(0xffffffffu, top, hop);
            const int place = __shfl_xor_sync(0xffffffffu, best, hop);
            const bool mine = top != top, theirs = other != other;
            const bool equal = (mine && theirs) || top == other;
            const bool better = equal ? place < best : (theirs || (!mine && other > top));
            if (better) { top = other; best = place; }
        }
        T sum = 0, share = 0, cost = 0;
#pragma unroll 1
        for (int j = lane; j < width; j += GROUP) {
            const T shifted = from[j] - top, e = EXP(shifted), target = wanted[j];
            sum += e;
            share += target;
            cost -= target != T(0) ? target * shifted : T(0);
            if (real) to[j] = e;  // each thread reads z only where it writes
        }
        sum = group_sum(sum);
        share = group_sum(share);
        cost = group_sum(cost);
        if (!real) continue;
        if (lane == 0) {
            const T value = cost + share * LOG(sum);
            loss[first + row] = value;
            losses += value;
            right += best == labels[(own_labels ? first : 0) + row] ? T(1) : T(0);
        }
        const T weight = w[(own_weights ? first : 0) + row], factor = share / sum;
#pragma unroll 1
        for (int j = lane; j < width; j += GROUP) to[j] = weight * (to[j] * factor - wanted[j]);
    }
    losses = warp_sum(losses);
    right = warp_sum(right);
    if (threadIdx.x % 32 == 0) {
        loss_of[threadIdx.x / 32] = losses;
        hits_of[threadIdx.x / 32] = right;
    }
    __syncthreads();
    if (threadIdx.x >= 32) return;
    const bool used = threadIdx.x < blockDim.x / 32;
    losses = warp_sum(used ? loss_of[threadIdx.x] : T(0));
    right = warp_sum(used ? hits_of[threadIdx.x] : T(0));
    if (threadIdx.x != 0) return;
    batch_loss[model] = losses;
    total[model] += losses;
    hits[model] += right;
}
"""

# ReferenceBackend.argmax: a warp for each row; of equal numbers the first, and a NaN before any number.
ARGMAX = """
extern "C" __global__ void __launch_bounds__(256, 2) argmax(
        const T* x, long long* out, const long long rows, const int width, const long long inner,
        const long long outer, const long long step) {
    const long long row = blockIdx.x * (long long)blockDim.y + threadIdx.y;
    if (row >= rows) return;
    x += row / inner * outer + row % inner * step;
    int best = threadIdx.x < width ? threadIdx.x : 0;
    T top = x[best];
    for (int j = threadIdx.x + 32; j < width; j += 32)
        if (x[j] > top || (x[j] != x[j] && top == top)) { top = x[j]; best = j; }
    for (int hop = 16; hop > 0; hop >>= 1) {
        const T other = __shfl_xor_sync(0xffffffffu, top, hop);
        const int place = __shfl_xor_sync(0xffffffffu, best, hop);
        const bool mine = top != top, theirs = other != other;
        const bool equal = (mine && theirs) || top == other;
        const bool better = equal ? place < best : (theirs || (!mine && other > top));
        if (better) { top = other; best = place; }
    }
    if (threadIdx.x == 0) out[row] = best;
}
"""

# ReferenceBackend.gather. S is the stored type; products and sums are rounded one by one, as on the CPU.
GATHER = """
extern "C" __global__ void __launch_bounds__(256, 2) gather(
        const S* x, const long long* index, T* out, const long long rows, const int width
        SCALE_PARAMETER SHIFT_PARAMETER) {
    const long long start = blockIdx.y * (long long)blockDim.y + threadIdx.y;
    for (long long row = start; row < rows; row += gridDim.y * (long long)blockDim.y) {
        const S* stored = x + index[row] * width;
        for (int j = blockIdx.x * blockDim.x + threadIdx.x; j < width; j += gridDim.x * blockDim.x)
            out[row * width + j] = SHIFTED(SCALED(T(stored[j])));
    }
}
"""

# xpnet.rng.uniform: Philox4x64-10 (Salmon et al. 2011). A thread makes a block of four 64-bit words, eight numbers.
UNIFORM = """
typedef unsigned long long word;
static __device__ __forceinline__ void philox4x64(word c[4], word k0, word k1) {
    for (int r = 0; r < 10; ++r) {
        const word low0 = 0xD2E7470EE14C6C93ull * c[0], high0 = __umul64hi(0xD2E7470EE14C6C93ull, c[0]);
        const word low1 = 0xCA5A826395121157ull * c[2], high1 = __umul64hi(0xCA5A826395121157ull, c[2]);
        c[0] = high1 ^ c[1] ^ k0;
        c[1] = low1;
        c[2] = high0 ^ c[3] ^ k1;
        c[3] = low0;
        k0 += 0x9E3779B97F4A7C15ull;
        k1 += 0xBB67AE8584CAA73Bull;
    }
}
extern "C" __global__ void __launch_bounds__(256, 2) uniform(
        float* out, const word* seeds, const long long* counter, const word stream, const long long each,
        const int members) {
    for (int member = blockIdx.y; member < members; member += gridDim.y) {
        float* to = out + member * each;
        for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; 8 * i < each;
             i += gridDim.x * (long long)blockDim.x) {
            word c[4] = {word(i) + 1, 0, word(counter[0]), 0};
            philox4x64(c, seeds[member], stream);
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                const unsigned half = unsigned(c[j / 2] >> (j % 2 * 32));
                if (8 * i + j < each) to[8 * i + j] = float(half >> 8) * 5.9604644775390625e-8f;  // 2^-24
            }
        }
    }
}
"""

# xpnet.rng.permutation: position by position; the keys of the rounds, six for each order, come from the host.
PERMUTATION = """
static __device__ __forceinline__ unsigned mix(unsigned h) {
    h ^= h >> 16;
    h *= 0x85EBCA6Bu;
    h ^= h >> 13;
    h *= 0xC2B2AE35u;
    return h ^ (h >> 16);
}
extern "C" __global__ void __launch_bounds__(256, 2) permutation(
        long long* out, const unsigned* keys, const long long n, const int half_bits, const int orders) {
    const unsigned mask = (1u << half_bits) - 1u;
    for (int order = blockIdx.y; order < orders; order += gridDim.y) {
        const unsigned* own = keys + 6 * (long long)order;
        long long* to = out + n * order;
        for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n;
             i += gridDim.x * (long long)blockDim.x) {
            unsigned x = unsigned(i);
            do {
                unsigned left = x >> half_bits, right = x & mask;
                for (int r = 0; r < 6; ++r) {
                    const unsigned next = left ^ (mix(right ^ own[r]) & mask);
                    left = right;
                    right = next;
                }
                x = (left << half_bits) | right;
            } while (x >= n);
            to[i] = x;
        }
    }
}
"""

_REDUCTIONS = {
    "sum_narrow_rows": SUM_NARROW_ROWS, "sum_rows": SUM_ROWS, "sum_long_rows": SUM_LONG_ROWS,
    "sum_columns": COLUMN_SUM + SUM_COLUMNS, "softmax": SOFTMAX, "softmax_cross_entropy": SOFTMAX_CROSS_ENTROPY,
    "argmax": ARGMAX,
}  # fmt: skip
_OF_NO_TYPE = {"uniform": UNIFORM, "permutation": PERMUTATION}

#: Names that `source` takes; `softmax_head` and `gather` have functions of their own.
NAMES = (*_REDUCTIONS, *_OF_NO_TYPE)


def warp_for_each(rows: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Grid and block of kernels that give each row a warp.

    >>> warp_for_each(9)
    ((2, 1), (32, 8))
    """
    return (-(-rows // WARPS), 1), (WARP, WARPS)


def source(name: str, dtype: str = "float32") -> tuple[str, str]:
    """Return the kernel's name and its source for numbers of `dtype`.

    >>> source("argmax", "float64")[0]
    'argmax_float64'
    """
    if name in _OF_NO_TYPE:
        return name, _OF_NO_TYPE[name]
    text = PRELUDE + without(_REDUCTIONS[name])
    return named(name, f"{name}_{dtype}", text, {"T": C_TYPES[dtype]}, dtype)


def sum_columns_updated(dtype: str, update: Update) -> tuple[str, str]:
    """Return the name and the source of the sum of columns with an update behind it."""
    text = COLUMN_SUM + update.within(SUM_COLUMNS)
    return named("sum_columns", f"sum_columns_{update.key}_{dtype}", text, {"T": C_TYPES[dtype]}, dtype)


def softmax_head(dtype: str, group: int) -> tuple[str, str]:
    """Return the name and the source of the head that gives each row `group` threads, one of `HEAD_GROUPS`."""
    text = (PRELUDE + SOFTMAX_HEAD).replace("HEAD_THREADS", str(HEAD_THREADS)).replace("GROUP", str(group))
    return named("softmax_head", f"softmax_head_{group}_{dtype}", text, {"T": C_TYPES[dtype]}, dtype)


def gather(stored: str, dtype: str, scale: str, shift: str) -> tuple[str, str]:
    """Return the name and the source of a gather from `stored` to `dtype`.

    `scale` and `shift` are each ``"none"``, ``"number"`` or ``"array"`` (one for each column).
    """
    text = GATHER
    pieces = (("SCALE", "SCALED", "scale", scale, "mul"), ("SHIFT", "SHIFTED", "shift", shift, "add"))
    for upper, macro, lower, kind, operation in pieces:
        rounded = f"__f{operation}_rn" if dtype == "float32" else f"__d{operation}_rn"
        parameter = {"none": "", "number": f", const T {lower}", "array": f", const T* {lower}"}[kind]
        element = {"none": "", "number": lower, "array": f"{lower}[j]"}[kind]
        text = text.replace(f"{upper}_PARAMETER", parameter)
        text = text.replace(f"{macro}(", "(" if kind == "none" else f"{rounded}({element}, ")
    types = {"T": C_TYPES[dtype], "S": STORED_TYPES[stored]}
    return named("gather", f"gather_{stored}_{dtype}_{scale}_{shift}", text, types, dtype)


def named(short: str, name: str, text: str, types: dict[str, str], dtype: str) -> tuple[str, str]:
    """Put a kernel into a namespace, under a name of its own, so that many can share a module."""
    suffix = "f" if dtype == "float32" else ""
    text = (
        text.replace(f" {short}(", f" {name}(")
        .replace("EXP(", f"exp{suffix}(")
        .replace("LOG(", f"log{suffix}(")
    )
    aliases = "".join(f"typedef {real} {alias};\n" for alias, real in types.items())
    return name, f"namespace of_{name} {{\n{aliases}{text}}}\n"
