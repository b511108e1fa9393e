"""xpnet: multilayer perceptrons with one set of layer code on NumPy (CPU) and CuPy (CUDA)."""

__version__ = "0.1.0"
