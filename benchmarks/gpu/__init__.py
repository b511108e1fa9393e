"""What `scripts/gpu_check` runs on a machine with a GPU: parts, each in a process of its own.

`python -m benchmarks.gpu PART` runs one of them and prints a JSON object per finding, as soon as it is known, so that a
part that is stopped keeps what it had.
"""
