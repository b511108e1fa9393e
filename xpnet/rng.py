"""Counter-based random streams: a number is a function of (seed, stream, step) and its position.

Nothing but the step number has to be saved to resume exactly, and a device kernel can produce the same
numbers: the generator is Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
SC 2011), as in `numpy.random.Philox`, with key = (seed, stream) and counter = (0, 0, step, 0).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import ConfigError

#: Purposes; `stream(purpose, index)` gives each its own sequence, `index` telling layers or tensors apart.
INIT, DROPOUT, NOISE, SHUFFLE = range(1, 5)


def stream(purpose: int, index: int = 0) -> int:
    """Number of the stream for `purpose` (one of the constants above) and `index`."""
    return (purpose << 32) | index


def check_seed(seed: object) -> int:
    """Return `seed` as an int in [0, 2**64), or raise `ConfigError`."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= int(seed) < 2**64:
        raise ConfigError(f"seed must be an integer from 0 to 2**64 - 1, found {seed!r}")
    return int(seed)


def generator(seed: int, stream: int, step: int = 0) -> np.random.Generator:
    """Return a NumPy generator at the start of the given stream and step.

    Examples
    --------
    >>> a, b = generator(7, stream(INIT), 3), generator(7, stream(INIT), 3)
    >>> bool(a.random() == b.random())
    True
    """
    key = np.array([seed, stream], dtype=np.uint64)
    counter = np.array([0, 0, step, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def uniform(seed: int, stream: int, step: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 numbers in [0, 1) with 24 random bits each, in C order.

    Position i takes the i-th 32-bit half (low half first) of the 64-bit Philox outputs, drops its lowest
    8 bits and multiplies by 2**-24: what a device kernel has to reproduce.
    """
    return generator(seed, stream, step).random(shape, dtype=np.float32)


class UniformFiller:
    """Fills float32 arrays in place with `uniform(seed, stream, step)`; keeps one generator for speed."""

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=np.zeros(2, np.uint64))
        self._generator = np.random.Generator(self._bits)
        self._state = self._bits.state

    def __call__(self, out: np.ndarray, seed: int, stream: int, step: int) -> None:
        state = self._state
        state["state"]["key"][:] = (seed, stream)
        state["state"]["counter"][:] = (0, 0, step, 0)
        state["buffer_pos"] = 4  # nothing buffered: the first draw starts a new block
        state["has_uint32"] = 0
        self._bits.state = state
        self._generator.random(out=out, dtype=np.float32)


_ROUNDS = 6


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """Return a permutation of 0..n-1 (int64) that depends on nothing but (n, seed, epoch).

    A Feistel network over the next even power of two, followed until it lands below n ("cycle walking";
    Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). Position i can be computed
    alone, so a device needs no sort and no memory, and a run resumes in the middle of an epoch.

    Examples
    --------
    >>> sorted(permutation(5, seed=0, epoch=1).tolist())
    [0, 1, 2, 3, 4]
    """
    return permutations(n, [seed], [epoch])[0]


def permutations(n: int, seeds: Sequence[int], epochs: Sequence[int]) -> np.ndarray:
    """Return `permutation` for each pair of a seed and an epoch, as (K, n); together they take less time.

    Examples
    --------
    >>> bool((permutations(9, [3, 4], [0, 5])[1] == permutation(9, 4, 5)).all())
    True
    """
    half_bits = permutation_bits(n)
    keys = np.stack([permutation_keys(seed, epoch) for seed, epoch in zip(seeds, epochs, strict=True)])
    if half_bits > _TABLE_BITS:
        return np.stack([_walked(n, each, half_bits) for each in keys])
    if len(keys) == 1:
        return _tabulated(n, keys, half_bits)
    result = np.empty((len(keys), n), np.int64)
    at_once = max(1, _TOGETHER >> 2 * half_bits)
    for start in range(0, len(keys), at_once):
        piece = slice(start, start + at_once)
        result[piece] = _tabulated(n, keys[piece], half_bits)
    return result


def permutation_entries(n: int, k: int) -> int:
    """Numbers in each of the few arrays that `permutations` works with at a time for `k` orders of `n`."""
    bits = 2 * permutation_bits(n)
    return n if bits > 2 * _TABLE_BITS else min(k, max(1, _TOGETHER >> bits)) << bits


def permutation_bits(n: int) -> int:
    """Bits of either half of a position in the network that shuffles `n` of them."""
    return max(1, ((n - 1).bit_length() + 1) // 2)


def permutation_keys(seed: int, epoch: int) -> np.ndarray:
    """The keys of its rounds, uint32."""
    return generator(seed, stream(SHUFFLE), epoch).integers(0, 2**32, _ROUNDS, dtype=np.uint32)


def _walked(n: int, keys: np.ndarray, half_bits: int) -> np.ndarray:
    """Every position through the network until it lands below `n`."""
    positions = np.arange(n, dtype=np.uint32) if n <= 2**32 else np.arange(n, dtype=np.uint64)
    walking = np.ones(n, dtype=bool)
    while walking.any():
        positions[walking] = _feistel(positions[walking], keys, half_bits)
        walking = positions >= n
    return positions.astype(np.int64)


# Up to this many bits per half the network's whole image is computed first, which takes a tenth of the time;
# several permutations together where their images have no more entries than this, which fit into the cache.
_TABLE_BITS = 10
_TOGETHER = 1 << 14


def _tabulated(n: int, keys: np.ndarray, half_bits: int) -> np.ndarray:
    """The same for keys (K, rounds) by tables: a round mixes only its right half, which has few values."""
    k, side = len(keys), 1 << half_bits
    tables = _mix(np.arange(side, dtype=np.uint32) ^ keys.T[:, :, None]) & np.uint32(side - 1)
    first, *later = tables.astype(np.int64)  # each (K, side)
    halves = np.arange(side)
    left = np.broadcast_to(halves, (k, side, side)).reshape(k, -1)
    right = (halves[:, None] ^ first[:, None, :]).reshape(k, -1)
    offset: np.ndarray | int = np.arange(k)[:, None] * side if k > 1 else 0
    for table in later:
        left, right = right, left ^ table.reshape(-1)[right + offset if k > 1 else right]
    image = ((left << half_bits) | right).reshape(-1)
    positions = image.reshape(k, -1)[:, :n].copy().reshape(-1)
    walking = np.flatnonzero(positions >= n)
    while walking.size:
        moved = positions[walking]
        moved = image[moved + walking // n * side * side if k > 1 else moved]
        positions[walking] = moved
        walking = walking[moved >= n]
    return positions.reshape(k, n)


def _feistel(x: np.ndarray, keys: np.ndarray, half_bits: int) -> np.ndarray:
    mask = x.dtype.type((1 << half_bits) - 1)
    shift = x.dtype.type(half_bits)
    left, right = x >> shift, x & mask
    for key in keys:
        left, right = right, left ^ (_mix(right.astype(np.uint32) ^ key).astype(x.dtype) & mask)
    return (left << shift) | right


def _mix(h: np.ndarray) -> np.ndarray:
    """The 32-bit finaliser of MurmurHash3 (public domain): every input bit moves every output bit."""
    h = h ^ (h >> np.uint32(16))
    h = h * np.uint32(0x85EBCA6B)
    h = h ^ (h >> np.uint32(13))
    h = h * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))
