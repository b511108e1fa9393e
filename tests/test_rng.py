"""Random streams: Philox against plain integers, and values that must never change silently."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from xpnet import rng
from xpnet.errors import ConfigError

MASK = (1 << 64) - 1


def philox4x64(counter: tuple[int, ...], key: tuple[int, ...], rounds: int = 10) -> tuple[int, ...]:
    """Salmon et al. (2011), figure 2 of the text, with Python integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(rounds):
        p0, p1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (p1 >> 64) ^ c1 ^ k0, p1 & MASK, (p0 >> 64) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return c0, c1, c2, c3


def words(seed: int, stream: int, step: int, n: int) -> list[int]:
    """The first n outputs of the stream: blocks of four from counter (1, 0, step, 0) on."""
    result: list[int] = []
    block = 1
    while len(result) < n:
        result += philox4x64((block, 0, step, 0), (seed, stream))
        block += 1
    return result[:n]


def expected_uniform(seed: int, stream: int, step: int, n: int) -> np.ndarray:
    halves = [h for w in words(seed, stream, step, (n + 1) // 2) for h in (w & 0xFFFFFFFF, w >> 32)]
    return np.array([(h >> 8) * 2.0**-24 for h in halves[:n]], np.float32)


def test_published_known_answers():
    # kat_vectors of the authors' Random123 library, philox4x64 with 10 rounds
    assert philox4x64((0, 0, 0, 0), (0, 0)) == (
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    )
    assert philox4x64((MASK,) * 4, (MASK,) * 2) == (
        0x87B092C3013FE90B,
        0x438C3C67BE8D0224,
        0x9CC7D7C69CD777B6,
        0xA09CAEBF594F0BA0,
    )


CASES = [
    (0, rng.stream(rng.INIT, 0), 0),
    (1, rng.stream(rng.DROPOUT, 3), 7),
    (2**64 - 1, rng.stream(rng.NOISE, 0), 123456),
    (987654321, rng.stream(rng.SHUFFLE, 0), 2**40),
]


@pytest.mark.parametrize(("seed", "stream", "step"), CASES)
def test_raw_output(seed, stream, step):
    raw = rng.generator(seed, stream, step).bit_generator.random_raw(11)
    assert raw.tolist() == words(seed, stream, step, 11)


@pytest.mark.parametrize(("seed", "stream", "step"), CASES)
@pytest.mark.parametrize("shape", [(1,), (7,), (4, 5), (2, 3, 3)])
def test_uniform_bit_by_bit(seed, stream, step, shape):
    u = rng.uniform(seed, stream, step, shape)
    assert u.dtype == np.float32
    assert u.shape == shape
    np.testing.assert_array_equal(u.ravel(), expected_uniform(seed, stream, step, u.size))


def test_filler_equals_uniform_whatever_was_drawn_before():
    fill = rng.UniformFiller()
    for shape in [(3,), (64, 5), (1,), (7, 3)]:
        for seed, stream, step in CASES:
            out = np.empty(shape, np.float32)
            fill(out, seed, stream, step)
            np.testing.assert_array_equal(out, rng.uniform(seed, stream, step, shape))


def test_uniform_has_the_moments_of_its_name():
    u = rng.uniform(5, rng.stream(rng.DROPOUT), 0, (200_000,)).astype(float)
    assert 0.0 <= u.min() < u.max() < 1.0
    assert u.mean() == pytest.approx(0.5, abs=3e-3)
    assert u.var() == pytest.approx(1.0 / 12.0, abs=1e-3)
    counts = np.bincount((u * 64).astype(int), minlength=64)
    assert ((counts - 3125.0) ** 2 / 3125.0).sum() < chi2.ppf(0.999, 63)


def test_streams_differ_by_seed_purpose_index_and_step():
    draws = [
        rng.uniform(seed, rng.stream(purpose, index), step, (4,)).tobytes()
        for seed in (0, 1)
        for purpose in range(1, 6)
        for index in (0, 1)
        for step in (0, 1)
    ]
    assert len(set(draws)) == len(draws)


def test_stream_numbers():
    assert [rng.INIT, rng.DROPOUT, rng.NOISE, rng.SHUFFLE] == [1, 2, 3, 4]
    assert rng.stream(rng.DROPOUT, 9) == (2 << 32) + 9


@pytest.mark.parametrize(
    "n", [0, 1, 2, 3, 4, 5, 7, 8, 16, 17, 64, 65, 1000, 1024, 50_000, 60_000, 65_536, 65_537]
)
def test_permutation_is_a_bijection(n):
    p = rng.permutation(n, seed=3, epoch=2)
    assert p.dtype == np.int64
    np.testing.assert_array_equal(np.sort(p), np.arange(n))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1), st.integers(0, 10**6))
def test_permutation_is_a_bijection_for_any_argument(n, seed, epoch):
    p = rng.permutation(n, seed, epoch)
    np.testing.assert_array_equal(np.sort(p), np.arange(n))
    np.testing.assert_array_equal(p, rng.permutation(n, seed, epoch))


def test_permutations_differ_across_epochs_and_seeds():
    orders = {rng.permutation(50, seed, epoch).tobytes() for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


def test_permutation_leaves_about_one_element_in_place():
    fixed = [int((rng.permutation(1000, 0, e) == np.arange(1000)).sum()) for e in range(400)]
    assert np.mean(fixed) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("n", [10, 37])
def test_every_position_sees_every_element_equally_often(n):
    draws = np.array([rng.permutation(n, seed=11, epoch=e) for e in range(3000)])
    counts = np.stack([np.bincount(draws[:, i], minlength=n) for i in range(n)])
    expected = 3000 / n
    # rows and columns of the table have fixed sums
    assert ((counts - expected) ** 2 / expected).sum() < chi2.ppf(0.999, (n - 1) ** 2)


def test_neighbours_are_independent():
    n = 12
    draws = np.array([rng.permutation(n, seed=4, epoch=e) for e in range(4000)])
    pairs = np.zeros((n, n))
    np.add.at(pairs, (draws[:, 5], draws[:, 6]), 1.0)
    off = ~np.eye(n, dtype=bool)
    expected = 4000 / (n * (n - 1))
    assert ((pairs[off] - expected) ** 2 / expected).sum() < chi2.ppf(0.999, n * (n - 1) - 1)


def test_golden_values():
    """These numbers are a promise: a change here changes every run that anyone has recorded."""
    bits = rng.uniform(0, rng.stream(rng.DROPOUT, 1), 0, (6,)) * np.float32(2**24)
    assert bits.astype(int).tolist() == [9067452, 3762735, 3030171, 6384034, 6561235, 7851568]
    assert rng.permutation(10, seed=0, epoch=0).tolist() == [7, 2, 1, 8, 6, 3, 4, 0, 5, 9]
    assert rng.permutation(60_000, seed=0, epoch=1)[:6].tolist() == [38635, 24567, 42024, 25553, 12298, 1686]
    normal = rng.generator(0, rng.stream(rng.INIT, 0)).normal(size=3)
    np.testing.assert_allclose(
        normal, [0.7803922565150754, -0.22492372709467987, 1.1175875059932296], rtol=1e-14
    )


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, True, "0", None])
def test_bad_seeds(seed):
    with pytest.raises(ConfigError, match=r"integer from 0 to 2\*\*64 - 1, found"):
        rng.check_seed(seed)


def test_good_seeds():
    assert [rng.check_seed(s) for s in (0, np.int64(7), 2**64 - 1)] == [0, 7, 2**64 - 1]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 17, 64, 1000, 4097, 70_000])
def test_a_permutation_from_tables_is_that_of_the_network(n):
    seeds, epochs = [0, 7, 2**64 - 1], [0, 3, 12]
    half_bits = max(1, ((n - 1).bit_length() + 1) // 2)
    assert half_bits <= rng._TABLE_BITS
    together = rng.permutations(n, seeds, epochs)
    for k, (seed, epoch) in enumerate(zip(seeds, epochs, strict=True)):
        walked = rng._walked(n, rng.permutation_keys(seed, epoch), half_bits)
        np.testing.assert_array_equal(together[k], walked)
        np.testing.assert_array_equal(rng.permutation(n, seed, epoch), walked)
        np.testing.assert_array_equal(np.sort(walked), np.arange(n))


def test_permutations_of_many_examples_come_without_tables():
    n = 4 ** (rng._TABLE_BITS + 1) // 2
    np.testing.assert_array_equal(rng.permutations(n, [3], [1])[0], rng.permutation(n, 3, 1))
    assert np.bincount(rng.permutation(n, 3, 1), minlength=n).max() == 1
