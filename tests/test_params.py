"""The flat buffer: where each tensor sits, views share its memory, counts come out exactly."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet.backend import get_backend
from xpnet.mlp import MLP
from xpnet.params import ParameterLayout, ParamSpec

BE = get_backend("cpu")
SPECS = [
    ParamSpec("a.weight", (4, 3)),
    ParamSpec("a.bias", (4,), decayed=False),
    ParamSpec("s", (4,), decayed=False),
    ParamSpec("b.weight", (2, 4)),
    ParamSpec("b.bias", (2,), decayed=False),
]


@pytest.mark.parametrize(
    ("sizes", "weights", "biases"),
    [([3, 4, 2], 20, 6), ([3, 4, 4, 1], 32, 9), ([784, 16, 16, 10], 12_960, 42)],
)
@pytest.mark.parametrize("n_models", [None, 1, 3])
def test_counts(sizes, weights, biases, n_models):
    model = MLP(sizes, n_models=n_models)
    members = n_models or 1
    assert model.n_parameters == weights + biases
    assert model.layout.n_decayed == members * weights
    assert model.layout.size == model.weights.shape[0] == members * (weights + biases)
    assert model.n_parameters in (26, 41, 13_002)


@pytest.mark.parametrize(
    ("activation", "count"),
    [("relu", 26), ("prelu", 30), ("maxout", 3 * 8 + 8 + 4 * 2 + 2), ("maxout:5", 3 * 20 + 20 + 4 * 2 + 2)],
)
def test_counts_of_layers_with_more_parameters(activation, count):
    assert MLP([3, 4, 2], activation=activation).n_parameters == count


def test_weights_come_first_in_layer_order():
    layout = ParameterLayout(SPECS, None)
    assert layout.offsets == {"a.weight": 0, "b.weight": 12, "a.bias": 20, "s": 24, "b.bias": 28}
    assert (layout.n_decayed, layout.size, layout.per_model, layout.lead) == (20, 30, 30, ())


def test_population_is_layer_major_then_member():
    layout = ParameterLayout(SPECS, 3)
    assert layout.offsets == {"a.weight": 0, "b.weight": 36, "a.bias": 60, "s": 72, "b.bias": 84}
    assert (layout.n_decayed, layout.size, layout.per_model, layout.lead) == (60, 90, 30, (3,))
    views = layout.views(BE, np.arange(90.0))
    assert views["a.weight"].shape == (3, 4, 3)
    # the first layer of all members is one matrix of M x O rows
    np.testing.assert_array_equal(views["a.weight"].reshape(12, 3), np.arange(36.0).reshape(12, 3))
    assert views["b.bias"][2].tolist() == [88.0, 89.0]


@pytest.mark.parametrize("n_models", [None, 1, 4])
def test_views_share_memory_and_cover_everything_once(n_models):
    layout = ParameterLayout(SPECS, n_models)
    flat = np.zeros(layout.size)
    views = layout.views(BE, flat)
    assert list(views) == [s.name for s in SPECS]
    for spec in SPECS:
        assert views[spec.name].shape == (*layout.lead, *spec.shape)
        assert np.shares_memory(views[spec.name], flat)
        assert views[spec.name].flags.c_contiguous
        views[spec.name] += 1.0
    assert (flat == 1.0).all()


def test_model_parameters_are_views_of_its_buffer():
    model = MLP([3, 4, 2], n_models=2)
    model.weights[...] = 7.0
    assert all((w == 7.0).all() for w in model.get_weights().values())
    model.params["layers.1.bias"][1, 0] = 3.0
    assert (model.weights == 3.0).sum() == 1


@pytest.mark.parametrize("n_models", [None, 3])
@pytest.mark.parametrize("per_member", [False, True])
def test_segments_cover_each_part_once(n_models, per_member):
    layout = ParameterLayout(SPECS, n_models)
    members = n_models or 1
    for decayed, expected in ((True, range(layout.n_decayed)), (False, range(layout.n_decayed, layout.size))):
        pieces = layout.segments(decayed=decayed, per_member=per_member)
        covered = [i for piece, _ in pieces for i in range(piece.start, piece.stop)]
        assert covered == list(expected)
        for piece, shape in pieces:
            assert int(np.prod(shape)) == piece.stop - piece.start
            assert len(shape) == (2 if per_member else 1)
            assert not per_member or shape[0] == members


def test_a_layout_without_biases_has_one_segment():
    layout = ParameterLayout([ParamSpec("w", (2, 2))], None)
    assert layout.segments(decayed=False, per_member=False) == []
