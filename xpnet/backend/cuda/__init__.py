"""CuPy and cublasLt: the only code of xpnet that imports CuPy, and only when a CUDA device is asked for.

`probe.py` says whether CUDA can be used and what to do if not, without importing CuPy before it must.
"""
