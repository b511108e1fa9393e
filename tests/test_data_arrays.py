"""Checks that pass, the Preprocessing recipe, and stratified splits."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xpnet import data
from xpnet.errors import DataError


def test_good_features_come_back_as_they_are():
    for dtype in (np.uint8, np.int64, np.float16, np.float32, np.float64, bool):
        x = np.ones((3, 2), dtype)
        assert data.check_features(x, n_features=2) is x
    assert data.check_features([[1, 2]]).shape == (1, 2)
    assert data.check_features(np.zeros((2, 4, 4)), n_features=16).shape == (2, 4, 4)


def test_large_but_finite_values_are_no_error():
    # Their sum overflows, which is only the quick test.
    x = np.full((4, 4), np.finfo(np.float64).max)
    assert data.check_features(x) is x


def test_good_labels():
    for dtype in (np.uint8, np.int32, np.float64, bool):
        found = data.check_labels(np.array([1, 0, 1], dtype), 3, n_classes=2)
        assert found.dtype == np.int64 and found.tolist() == [1, 0, 1]
    soft = data.check_labels(np.eye(3, dtype=np.float32), 3, n_classes=3)
    assert soft.dtype == np.float32 and soft.shape == (3, 3)
    assert data.check_labels(np.eye(3, dtype=int), 3).dtype == np.float64
    data.check_trainable_labels(np.array([0, 1]))
    data.check_trainable_labels(np.eye(2))
    data.check_trainable_labels(np.array([[0.9, 0.1]]))


def test_good_targets_and_weights():
    assert data.check_targets(np.ones((3, 2), np.float32), 3, 2, unit_interval=True).dtype == np.float32
    assert data.check_targets([1, 2, 3], 3, 1).shape == (3, 1)
    assert data.check_weights(np.array([1, 0], np.float32), 2).dtype == np.float32


@given(hnp.arrays(np.float64, (3, 2), elements=st.floats(width=64)))
def test_the_finite_check_agrees_with_its_definition(x):
    if np.isfinite(x).all():
        data.check_features(x)
    else:
        with pytest.raises(
            DataError, match=f"{int(np.isnan(x).sum())} NaN and {int(np.isinf(x).sum())} infinite"
        ):
            data.check_features(x)


@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 24), (5, 4, 6, 1), (5, 1, 4, 6)])
def test_preprocessing_flattens(shape):
    x = np.arange(120, dtype=np.uint8).reshape(shape)
    rows = data.Preprocessing((4, 6), 1 / 255, -0.5)(x, np.float64)
    assert rows.shape == (5, 24) and rows.dtype == np.float64
    assert np.array_equal(rows.ravel(), np.arange(120) * (1 / 255) - 0.5)
    assert x.max() == 119  # the input is left alone


def test_preprocessing_per_feature_survives_json():
    scale = np.array([[0.1, 1 / 3], [2, 1e-300]])
    prepare = data.Preprocessing((2, 2), scale, shift=[1, 2, 3, 4])
    again = data.Preprocessing.from_metadata(json.loads(json.dumps(prepare.to_metadata())))
    assert again == prepare and hash(again) == hash(prepare)
    assert again != data.Preprocessing((2, 2)) and again != "text"
    x = np.random.default_rng(0).normal(size=(3, 2, 2))
    assert np.array_equal(again(x, np.float64), prepare(x, np.float64))
    scale[0, 0] = 7  # a later change of the caller's array changes nothing
    assert again == prepare


def test_a_data_set_hands_out_its_recipe():
    digits = data.load("digits")
    rows = digits.preprocessing(digits.x_test, np.float32)
    assert rows.shape == (359, digits.n_features) and rows.min() == 0 and rows.max() == 1


@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=80),
    st.floats(0.01, 0.99),
    st.integers(0, 2**64 - 1),
)
@settings(deadline=None)
def test_splits_are_complete_disjoint_and_stratified(y, fraction, seed):
    y = np.array(y)
    try:
        train, valid = data.stratified_split(y, fraction, seed)
    except DataError as error:
        assert "empty" in str(error)
        return
    assert train.dtype == valid.dtype == np.int64
    assert len(train) and 0 < len(valid) <= np.floor(fraction * len(y) + 0.5)
    assert np.array_equal(np.sort(np.concatenate([train, valid])), np.arange(len(y)))
    assert np.array_equal(train, np.sort(train)) and np.array_equal(valid, np.sort(valid))
    counts, taken = np.bincount(y, minlength=5), np.bincount(y[valid], minlength=5)
    assert (abs(taken - counts * fraction) < 1 + 1e-6).all()
    assert (taken < counts)[counts > 0].all()


def test_splits_depend_on_the_seed_alone():
    y = np.arange(100) % 4
    first = data.stratified_split(y, 0.25, 7)
    assert all(np.array_equal(a, b) for a, b in zip(first, data.stratified_split(y, 0.25, 7), strict=True))
    assert not np.array_equal(first[1], data.stratified_split(y, 0.25, 8)[1])
    assert len(first[1]) == 25 and sorted(np.bincount(y[first[1]])) == [6, 6, 6, 7]


def test_a_split_that_must_never_change():
    train, valid = data.stratified_split(np.repeat([0, 1], 6), 1 / 3, 0)
    assert valid.tolist() == [4, 5, 6, 9]
    assert sorted([*train, *valid]) == list(range(12))
    many = np.repeat(np.arange(40), [3, 5] * 20)  # of equal remainders the first give one more
    given = np.bincount(many[data.stratified_split(many, 0.3, 0)[1]])
    assert given.tolist() == [1, 2] * 8 + [1, 1] * 12


def test_splits_of_regression_and_text():
    train, valid = data.stratified_split(
        np.random.default_rng(0).normal(size=(10, 2)), 0.3, 0, stratify=False
    )
    assert len(train) == 7 and len(valid) == 3
    _, valid = data.stratified_split(["a", "b"] * 5, 0.2, 0)
    assert sorted(np.array(["a", "b"] * 5)[valid]) == ["a", "b"]


def test_the_last_sample_of_a_class_stays_in_training():
    _, valid = data.stratified_split([0] * 9 + [1], 0.5, 3)
    assert 9 not in valid
