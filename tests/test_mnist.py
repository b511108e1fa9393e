"""MNIST, as the textbooks know it.

Settings were taken from the literature or chosen on held-out training images, never on the test set.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from xpnet import MLP, SGD, Adam, Callback
from xpnet.data import load
from xpnet.train import evaluate, fit

FOLDER = os.environ.get("XPNET_DATA", "")
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not any(
            (Path(FOLDER) / name / f"train-images-idx3-ubyte{end}").is_file()
            for name in ("mnist", ".")
            for end in ("", ".gz")
        )
        or not FOLDER,
        reason="MNIST IS NOT TESTED: set $XPNET_DATA to a folder that holds mnist/train-images-idx3-ubyte.gz "
        "and the other three files",
    ),
]


@pytest.fixture(scope="module")
def mnist():
    return load("mnist", download=False)


def new(mnist, sizes, **options):
    model = MLP(sizes, **options)
    model.preprocessing = mnist.preprocessing
    return model


@pytest.fixture(autouse=True)
def one_thread():
    """Small products gain nothing from threads, and lose much where other work wants the same cores."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


class Until(Callback):
    """Stop after so many updates; look at the test set on the way."""

    def __init__(self, last, look, test):
        self.last, self.look, self.test, self.accuracy = last, look, test, None

    def on_step_end(self, trainer):
        if trainer.step.n_updates == self.look:
            self.accuracy = evaluate(trainer.model, self.test)["accuracy"]
        if trainer.step.n_updates == self.last:
            trainer.stop("enough updates")


def test_linear_softmax(mnist):
    model = new(mnist, [784, 10], init="zeros")
    test = (mnist.x_test, mnist.y_test)
    until = Until(5000, 1500, test)
    fit(
        model, (mnist.x_train, mnist.y_train), epochs=9, batch_size=100, optimizer=SGD(lr=0.5),
        callbacks=[until],
    )  # fmt: skip
    assert until.accuracy >= 0.90
    assert evaluate(model, test)["accuracy"] == pytest.approx(0.92, abs=0.007)


def test_one_epoch_with_500_hidden_units(mnist):
    model = new(mnist, [784, 500, 10])
    history = fit(model, (mnist.x_train, mnist.y_train), epochs=1, batch_size=100, optimizer=Adam(lr=1e-3))
    assert model.n_parameters == 397_510 and np.isfinite(history[0]["train_loss"])
    assert evaluate(model, (mnist.x_test, mnist.y_test))["accuracy"] >= 0.945


def test_the_classic_sigmoid_network(mnist):
    model = new(mnist, [784, 16, 16, 10], activation="sigmoid", output_activation="sigmoid")
    assert model.n_parameters == 13_002
    history = fit(
        model, (mnist.x_train, mnist.y_train), loss="squared_error", epochs=3, batch_size=10,
        optimizer=SGD(lr=1.0),
    )  # fmt: skip
    assert model.task == "classification"
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    assert evaluate(model, (mnist.x_test, mnist.y_test))["accuracy"] > 0.9
