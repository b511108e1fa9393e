"""Sources of the kernels that measure the machine, and a compiler that needs no GPU."""

from __future__ import annotations

import ctypes

EMPTY = r"""
extern "C" __global__ void empty(float *x) { if (x == nullptr) x[0] = 0.0f; }
"""

#: One grid barrier after the other; blocks must all be resident, so it is launched as a cooperative kernel.
BARRIER = r"""
extern "C" __global__ void barriers(unsigned int *state, int rounds)
{
    for (int r = 0; r < rounds; ++r) {
        __syncthreads();
        if (threadIdx.x == 0) {
            unsigned int goal = (r + 1) * gridDim.x, seen;
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" :: "l"(state) : "memory");
            do {
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(state) : "memory");
            } while (seen < goal);
        }
        __syncthreads();
    }
}
"""

#: Adam over a flat buffer, four numbers at a time: what the bandwidth of an update can be.
ADAM = r"""
extern "C" __global__ void adam(float4 *w, const float4 *g, float4 *m, float4 *v, float rate, float b1, float b2,
                                float eps, long long n)
{
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    long long step = gridDim.x * (long long)blockDim.x;
    for (; i < n; i += step) {
        float4 wi = w[i], gi = g[i], mi = m[i], vi = v[i];
#define ONE(c) mi.c = b1 * mi.c + (1.0f - b1) * gi.c; vi.c = b2 * vi.c + (1.0f - b2) * gi.c * gi.c; \
               wi.c -= rate * mi.c / (sqrtf(vi.c) + eps);
        ONE(x) ONE(y) ONE(z) ONE(w)
        w[i] = wi; m[i] = mi; v[i] = vi;
    }
}
"""

SOURCES = {"empty": EMPTY, "barriers": BARRIER, "adam": ADAM}


def compile_offline(source: str, arch: str = "sm_90") -> int | None:
    """Bytes of machine code of `source`, by NVRTC without a GPU; None where there is no NVRTC.

    Raises
    ------
    ValueError
        It does not compile; the message is the compiler's.
    """
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        library = ctypes.CDLL(load_nvidia_dynamic_lib("nvrtc").abs_path)
    except (ImportError, RuntimeError, OSError):
        return None
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"k.cu", 0, None, None)
    options = (ctypes.c_char_p * 2)(f"-arch={arch}".encode(), b"-std=c++17")
    failed = library.nvrtcCompileProgram(program, 2, options)
    size = ctypes.c_size_t()
    try:
        if failed:
            library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
            log = ctypes.create_string_buffer(size.value)
            library.nvrtcGetProgramLog(program, log)
            raise ValueError(log.value.decode(errors="replace"))
        library.nvrtcGetCUBINSize(program, ctypes.byref(size))
        return size.value
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
