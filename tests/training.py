"""Data, callbacks and comparisons that tests of training share."""

from __future__ import annotations

import json

import numpy as np

from xpnet import MLP, Adam, Callback
from xpnet.train import Trainer, fit


def blobs(n=60, classes=3, features=4, seed=0):
    random = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = random.normal(0, 2, (classes, features))
    return centres[y] + random.normal(0, 1, (n, features)), y


def line(n=120, seed=0):
    x = np.random.default_rng(seed).uniform(-1, 1, (n, 2))
    return x, 2 * x[:, 0] - x[:, 1] + 0.5


def weights_of(model):
    return np.array(model.be.to_numpy(model.weights))


def same_weights(a, b, tolerance=0.0):
    a, b = a.get_weights(), b.get_weights()
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=name)


class Keep(Callback):
    """Copies weights and records as training goes."""

    def __init__(self):
        self.weights = {}

    def on_epoch_end(self, trainer, record):
        self.weights[record["epoch"]] = weights_of(trainer.model)


class At(Callback):
    """Does something after one of the steps."""

    def __init__(self, step, action):
        self.at, self.action = step, action

    def on_step_end(self, trainer):
        if trainer.step.n_updates == self.at:
            self.action(trainer)


NOISY = (np.random.default_rng(3).normal(size=(40, 6)), np.arange(40) % 2)


HELD_OUT = (np.random.default_rng(4).normal(size=(30, 6)), np.arange(30) % 2)


def overfit(model, keep=None, **options):
    """Nothing can be learnt from noise, so the validation loss soon rises."""
    settings = {"epochs": 12, "batch_size": 8, "optimizer": Adam(lr=0.02), "monitor": "valid_loss"}
    callbacks = [] if keep is None else [keep]
    return fit(model, NOISY, validation=HELD_OUT, callbacks=callbacks, **(settings | options))


def build(n_models=None, callbacks=(), schedule="cosine", dropout=0.2, optimizer=None, **changes):
    model = MLP([6, 10, 2], dropout=dropout, n_models=n_models, seed=3)
    settings = {
        "validation": HELD_OUT, "optimizer": optimizer or Adam(lr=0.02), "schedule": schedule, "epochs": 7,
        "batch_size": 12, "patience": 5, "callbacks": callbacks,
    }  # fmt: skip
    return Trainer(model, NOISY, **(settings | changes))


def frozen(trainer):
    """The state as a file would keep it."""
    tensors, metadata = trainer.state()
    return {k: v.copy() for k, v in tensors.items()}, json.loads(json.dumps(metadata))


def without_times(history):
    return [{k: v for k, v in r.items() if k not in ("seconds", "samples_per_second")} for r in history]
