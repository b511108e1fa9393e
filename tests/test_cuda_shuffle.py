"""Training on the emulated device: orders drawn there, and what is said of a step that went wrong among several."""

from __future__ import annotations

import numpy as np
import pytest

import xpnet
from tests.cuda_emulator import COMPILER, Emulator, Kernels
from xpnet import Callback, get_backend, rng
from xpnet.backend.cuda.backend import CudaBackend

pytestmark = pytest.mark.skipif(
    COMPILER is None, reason="needs a C++ compiler to run the kernels' source: g++"
)

X = np.random.default_rng(1).integers(0, 256, (90, 12)).astype(np.uint8)
Y = np.random.default_rng(2).integers(0, 3, 90)


def _trainer(be, **options):
    be.steps_ahead = 4  # of 12 in an epoch: 4, 4, 3 and a smaller batch
    model = xpnet.MLP([12, 7, 3], device=be, seed=4, dtype="float64", dropout=0.1)
    given = {"epochs": 3, "batch_size": 8, **options}
    return xpnet.Trainer(model, (X, Y), **given)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Kernels:
    kernels = Kernels(tmp_path_factory.mktemp("kernels"))
    with np.errstate(all="ignore"):
        _trainer(CudaBackend(Emulator(kernels, dry=True)), epochs=1).run()
    kernels.compile(list(kernels.sources))
    return kernels


@pytest.fixture
def be(compiled) -> CudaBackend:
    return CudaBackend(Emulator(compiled))


@pytest.mark.parametrize("shuffle", [True, False])
def test_no_row_passes_through_the_host(be, monkeypatch, shuffle):
    trainer = _trainer(be, shuffle=shuffle)
    sent = []
    asarray = be.runtime.asarray

    def watched(values, dtype):
        if getattr(values, "dtype", None) == np.int64 and not np.shares_memory(
            values, trainer._order.on_device
        ):
            sent.append(values)
        return asarray(values, dtype)

    def refused(*args):
        raise AssertionError("an order on the host")

    monkeypatch.setattr(be.runtime, "asarray", watched)
    with monkeypatch.context() as patch:
        patch.setattr(rng, "permutations", refused)
        trainer.run()
    assert be.runtime.log.count("permutation") == (3 if shuffle else 0)
    assert sent == []
    expected = _trainer(get_backend("cpu"), shuffle=shuffle)
    expected.run()
    np.testing.assert_allclose(trainer.latest_weights(), expected.latest_weights(), rtol=1e-9, atol=1e-12)


class Orders(Callback):
    each_step = False

    def __init__(self, stop_at=None):
        self.orders, self._stop_at = [], stop_at

    def on_step_end(self, trainer):
        if trainer.step.n_updates == self._stop_at:
            trainer.stop("halfway")

    def on_epoch_end(self, trainer, record):
        self.orders.append(trainer.order.tolist())


def test_the_order_can_be_read_on_the_host(be):
    seen = Orders()
    trainer = _trainer(be, callbacks=[seen], seed=9)
    assert trainer.order.tolist() == list(range(90))
    trainer.run()
    assert seen.orders == [rng.permutation(90, 9, epoch).tolist() for epoch in range(3)]
    np.testing.assert_array_equal(trainer._order.on_device, trainer.order)


def test_a_run_goes_on_in_the_middle_of_an_epoch(compiled):
    def trainer(**options):
        return _trainer(CudaBackend(Emulator(compiled)), **options)

    first, whole = trainer(callbacks=[Orders(stop_at=16)]), trainer()
    first.run()
    assert (first.epoch, first.batch) == (1, 4)
    second = trainer()
    second.load_state(*first.state())
    second.run(), whole.run()
    np.testing.assert_array_equal(second.latest_weights(), whole.latest_weights())
    first.callbacks.clear()
    first.run()  # the same object, without another draw
    np.testing.assert_array_equal(first.latest_weights(), whole.latest_weights())


def test_the_layer_that_failed_among_steps_done_ahead_is_named(be):
    def said(be):
        trainer = _trainer(be, restore_best=False)
        trainer.model.params["layers.0.weight"][...] = 1e308
        with pytest.raises(xpnet.DivergedError) as error:
            trainer.run()
        return str(error.value)

    names = said(be).split(";")[0]
    assert "epoch 1, step 1: layer 0 (" in names and "outputs are not finite" in names
    assert names == said(get_backend("cpu")).split(";")[0]
