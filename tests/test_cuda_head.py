"""The head of a classifier in one pass: loss, gradient and right answers, on the emulated device."""

from __future__ import annotations

import numpy as np
import pytest

import xpnet
from tests.cuda_emulator import COMPILER, Emulator, Kernels
from xpnet import conformance, get_backend
from xpnet.backend.cuda import kernels
from xpnet.backend.cuda.backend import CudaBackend
from xpnet.backend.reference import ReferenceBackend
from xpnet.training.step import TrainingStep

pytestmark = pytest.mark.skipif(
    COMPILER is None, reason="needs a C++ compiler to run the kernels' source: g++"
)


@pytest.fixture(scope="module")
def be(tmp_path_factory) -> CudaBackend:
    found = Kernels(tmp_path_factory.mktemp("kernels"))
    for dtype in ("float32", "float64"):
        for group in kernels.HEAD_GROUPS:
            found.add(*kernels.softmax_head(dtype, group))
    return CudaBackend(Emulator(found))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_pass_is_the_operations_one_by_one(be, dtype):
    c = conformance.Conformance(be, [dtype], 1)
    conformance.check_head(c, dtype)
    assert c.n > 200


def _head(be, z, labels):
    rows, width = z.shape[-2:]
    t, w = np.eye(width, dtype=z.dtype)[labels], np.full(rows, 1 / rows, z.dtype)
    loss, out, sums = np.empty(z.shape[:-1], z.dtype), np.empty_like(z), np.zeros((3, *z.shape[:-2]))
    batch_loss = np.zeros(z.shape[:-2], z.dtype)
    be.softmax_head(
        z, t, w, labels, loss=loss, out=out, batch_loss=batch_loss, total=sums[0, ...], hits=sums[1, ...]
    )
    return loss, out, batch_loss, sums


@pytest.mark.parametrize("width", [5, 10, 70])
def test_right_answers_are_those_of_numpy_for_ties_and_nan(be, width):
    random = np.random.default_rng(width)
    z = random.integers(0, 3, (40, width)).astype("f4")
    z[::5, random.integers(0, width, 8)] = np.nan
    z[1::5, random.integers(0, width, 8)] = -np.inf
    labels = np.where(np.arange(40) % 2 == 0, z.argmax(axis=-1), (z.argmax(axis=-1) + 1) % width)
    with np.errstate(invalid="ignore"):
        loss, out, batch_loss, sums = _head(be, z, labels)
        expected = _head(ReferenceBackend(np), z, labels)
    assert sums[1] == expected[3][1] == 20
    has_nan = np.isnan(z).any(axis=-1)
    assert has_nan.any() and (np.isnan(loss) == np.isnan(out).any(axis=-1)).all()
    assert np.isnan(loss[has_nan]).all() and np.isnan(batch_loss) and np.isnan(sums[0])
    finite = np.isfinite(z).all(axis=-1)
    np.testing.assert_allclose(loss[finite], expected[0][finite], rtol=1e-6)
    np.testing.assert_allclose(out[finite], expected[1][finite], atol=1e-7)


def test_members_side_by_side_and_the_same_bits_again(be):
    z = np.random.default_rng(0).normal(size=(20, 4, 10)).transpose(1, 0, 2)
    labels = np.arange(20) % 10
    first, again = _head(be, z, labels), _head(be, z, labels)
    for a, b, c in zip(first, again, _head(ReferenceBackend(np), z, labels), strict=True):
        assert a.tobytes() == b.tobytes()
        np.testing.assert_allclose(a, c, rtol=1e-12, atol=1e-15)


def test_large_batches_and_many_classes_keep_their_separate_kernels(be):
    assert be.one_pass_head((128, 10)) and be.one_pass_head((256, 128, 10)) and be.one_pass_head((64, 100))
    assert not be.one_pass_head((8192, 10)) and not be.one_pass_head((128, 10_000))
    assert not be.one_pass_head((0, 10))
    assert not get_backend("cpu").one_pass_head((128, 10))


def _nodes(tmp_path, loss, **options):
    """What a captured step of 784-500-10 with Adam asks for."""
    from xpnet.losses import get_loss
    from xpnet.training.examples import prepare

    be = CudaBackend(Emulator(Kernels(tmp_path), dry=True))
    model = xpnet.MLP([784, 500, 10], device=be, seed=0)
    model.task = "classification"
    x, y = np.zeros((256, 784), np.uint8), np.arange(256) % 10
    examples = prepare(model, x, y, loss=get_loss(loss), task=model.task, **options)
    step = TrainingStep(model, get_loss(loss), examples, xpnet.Adam())
    step.several(np.arange(128)[None], [1.0])
    return [op.what for op in step.ahead(128).record]


def test_a_step_has_one_launch_for_all_that_comes_from_the_logits(tmp_path, monkeypatch):
    monkeypatch.setattr(CudaBackend, "fuses", False)
    nodes = _nodes(tmp_path, "softmax_cross_entropy")
    assert [n for n in nodes if "softmax" in n or "argmax" in n] == ["softmax_head_16_float32"]
    monkeypatch.setattr(CudaBackend, "one_pass_head", lambda self, shape: False)
    before = _nodes(tmp_path, "softmax_cross_entropy")
    assert (len(before), len(nodes)) == (25, 19)


def test_weighted_examples_and_other_losses_are_counted_by_operations(tmp_path):
    assert not any("head" in n for n in _nodes(tmp_path, "softmax_cross_entropy", sample_weight=np.ones(256)))
    assert not any("head" in n for n in _nodes(tmp_path, "squared_error"))
