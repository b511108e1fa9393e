"""The formulas of NumPy's back end as compiled loops, made by Numba: device "numba"."""
