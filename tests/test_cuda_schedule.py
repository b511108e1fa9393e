"""What a captured step may do side by side."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet.backend.cuda.schedule import LANES, Operation, cost, dependencies, lanes, pointers, region


def _op(reads=(), writes=()):
    return Operation(
        "op",
        print,
        tuple(range(8 * i, 8 * i + 8) for i in reads),
        tuple(range(8 * i, 8 * i + 8) for i in writes),
    )


def test_reading_waits_for_writing_and_writing_for_both():
    ops = [_op(writes=[0]), _op([0], [1]), _op([0], [2]), _op(writes=[0]), _op([1, 2], [3])]
    assert dependencies(ops) == [set(), {0}, {0}, {1, 2}, {1, 2}]


def test_what_is_waited_for_anyway_is_left_out():
    chain = [_op([i], [i + 1]) for i in range(4)]
    assert dependencies([*chain, _op([0, 4], [5])])[-1] == {3}


def test_a_longest_chain_stays_on_its_lane_and_the_rest_goes_beside():
    # x -> h -> y -> dy -> dh -> update, with the loss and its total beside
    ops = [
        _op([0], [1]),
        _op([1], [2]),
        _op([2], [3, 4]),
        _op([3], [5]),
        _op([5], [6]),
        _op([4], [7]),
        _op([6], [8]),
    ]
    chosen = lanes(dependencies(ops))
    assert [chosen[i] for i in (0, 1, 2, 3, 4, 6)] == [0] * 6 and chosen[5] == 1


def test_what_takes_long_does_not_keep_others_waiting():
    # a long update of what the first has written, and the chain that goes on from it
    ops = [_op([0], [1]), _op([1], [2]), _op([1], [3]), _op([3], [4]), _op([3], [5]), _op([5], [6])]
    long = [cost(op) for op in ops]
    assert long == [2.0 + 16 / 4e6] * 6
    long[1] = 100.0
    chosen = lanes(dependencies(ops), 3, long)
    assert chosen.count(chosen[1]) == 1 + (chosen[0] == chosen[1])
    assert chosen[2] != chosen[1] and chosen[5] != chosen[1]


@pytest.mark.parametrize("seed", range(20))
def test_lanes_never_need_more_waiting_than_there_is(seed):
    random = np.random.default_rng(seed)
    ops = [_op(random.integers(0, 12, 2), random.integers(0, 12, 1)) for _ in range(40)]
    waits_for = dependencies(ops)
    chosen = lanes(waits_for)
    assert set(chosen) <= set(range(LANES))
    # every pair that touches the same bytes is ordered: by its lane, or by a chain of waiting
    before: list[set[int]] = []
    for i, direct in enumerate(waits_for):
        before.append(set().union(*({j} | before[j] for j in direct), set()))
        for j in range(i):
            touch = {*ops[i].writes} & {*ops[j].reads, *ops[j].writes} or {*ops[i].reads} & {*ops[j].writes}
            assert not touch or j in before[i]


def test_the_bytes_of_views():
    x = np.zeros((4, 6), "f4")
    assert region(100, x) == range(100, 196)
    assert region(100, x[:, ::2]) == range(100, 100 + 3 * 24 + 4 * 4 + 4)
    assert region(100, x[:0]) == range(100, 100)


def test_what_a_kernel_writes_is_read_from_its_source():
    source = 'extern "C" __global__ void __launch_bounds__(256, 2) k(\n    const T* x, long long* out, const word n) {'
    assert pointers("k", source) == ("r", "w", "")
    with pytest.raises(ValueError, match="no kernel 'other'"):
        pointers("other", source)
