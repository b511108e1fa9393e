"""Numbers that are no longer finite: where it began is said, and the last good weights are kept."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training import HELD_OUT, NOISY, At, Keep, blobs, line, overfit, weights_of
from xpnet import MLP, Adam, DataError, DivergedError
from xpnet.data import Preprocessing
from xpnet.optim import get_optimizer
from xpnet.train import fit
from xpnet.training.judge import Keeper


def poison(layer, value=np.nan):
    def action(trainer):
        trainer.model.params[f"layers.{layer}.weight"][0, 0] = value

    return action


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("activation", ["tanh", "maxout", "gelu"])
def test_divergence_names_the_layer_where_it_began(layer, activation):
    keep, model = Keep(), MLP([4, 8, 8, 3], activation=activation, seed=1)
    with pytest.raises(DivergedError) as error:
        # four steps per epoch: poisoned after the second step of epoch 3, seen in its third
        fit(model, blobs(), epochs=9, batch_size=16, callbacks=[keep, At(10, poison(layer))])
    assert f"epoch 3, step 11: layer {layer} (" in str(error.value)
    assert (error.value.epoch, error.value.step) == (3, 11) and error.value.where in str(error.value)
    assert "outputs are not finite" in error.value.where and "smaller learning rate" in str(error.value)
    np.testing.assert_array_equal(weights_of(model), keep.weights[2])


def test_divergence_behind_dropout_and_noise_names_the_dense_layer():
    model = MLP([4, 8, 3], dropout=0.5, input_dropout=0.1, input_noise=0.1)
    dense = [i for i, layer in enumerate(model.layers) if layer.specs()]
    with pytest.raises(DivergedError, match=rf"step 4: layer {dense[1]} \(dense 8->3"):
        fit(model, blobs(), batch_size=16, callbacks=[At(3, poison(dense[1]))])


@pytest.mark.filterwarnings("error")
def test_weights_that_fail_in_the_last_step_of_an_epoch(be):
    keep, model = Keep(), MLP([4, 8, 3], device=be)
    with pytest.raises(DivergedError, match=r"epoch 2, step 8: layer 1 \(dense 8->3 identity\): 1 of its 27"):
        fit(model, blobs(), batch_size=16, callbacks=[keep, At(8, poison(1, np.inf))])
    np.testing.assert_array_equal(weights_of(model), keep.weights[1])


def test_large_weights_are_finite(be):
    model = MLP([4, 8, 3], device=be)
    model.weights[...] = 3e38  # two of them are more than float32 holds
    keeper, scratch = Keeper(be, model.layout, "float32"), be.empty(model.weights.shape, "float32")
    assert keeper.finite(model.weights, scratch)
    model.params["layers.1.bias"][0] = -np.inf
    with np.errstate(invalid="ignore"):
        assert not keeper.finite(model.weights, scratch)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "squared_error", "hinge", "bce"])
@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "rmsprop"])
def test_a_huge_learning_rate(loss, optimizer):
    model = MLP([4, 8, 3], seed=1)
    start = weights_of(model)
    rate = get_optimizer(optimizer, lr=1e38)
    with pytest.raises(DivergedError, match=r"training diverged at epoch 1, step [23]: .*layer [01] \(dense"):
        fit(model, blobs(), batch_size=20, loss=loss, optimizer=rate)
    np.testing.assert_array_equal(weights_of(model), start)


@pytest.mark.filterwarnings("error")
def test_overflow_in_the_loss_and_in_the_inputs():
    x, y = line(20)
    model = MLP([2, 1])
    with pytest.raises(DivergedError, match=r"step 1: the squared_error loss: .*finite but too large"):
        fit(model, (x, y * 1e30), batch_size=5)
    model = MLP([2, 1])
    model.preprocessing = Preprocessing((2,), scale=1e38)
    with pytest.raises(DataError, match="X holds values too large for float32; scale them down first"):
        fit(model, (x * 1e20, y), batch_size=20)
    x = (100 * x).astype("int16")  # pixels are scaled batch by batch
    x[0] = 0  # the first sample passes the check of shapes
    with pytest.raises(DivergedError, match=r"step 1: the inputs: .* of the scaled batch are not finite"):
        fit(model, (x, y), batch_size=20)


@pytest.mark.parametrize("restore", [True, False])
def test_divergence_with_validation_leaves_the_best_or_the_last_good(restore):
    keep, model = Keep(), MLP([6, 16, 2], seed=1)
    with pytest.raises(DivergedError):
        fit(
            model, NOISY, validation=HELD_OUT, epochs=50, batch_size=8, optimizer=Adam(lr=0.02),
            monitor="valid_loss", restore_best=restore, callbacks=[keep, At(5 * 10 + 2, poison(0))],
        )  # fmt: skip
    losses = overfit(MLP([6, 16, 2], seed=1), epochs=10).column("valid_loss")
    expected = 1 + int(np.argmin(losses)) if restore else 10
    assert len(keep.weights) == 10
    np.testing.assert_array_equal(weights_of(model), keep.weights[expected])
