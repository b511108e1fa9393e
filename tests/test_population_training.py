"""A population in one training: each member is the model trained alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training import HELD_OUT, NOISY, At, frozen, same_weights, weights_of
from xpnet import MLP, SGD, Adam, AdamW, DivergedError
from xpnet.schedules import get_schedule
from xpnet.train import Trainer, fit


def alone(population, m, data, optimizer, **options):
    """Train member `m` as a model of its own, with the population's order of examples."""
    model = MLP(**population.architecture, seed=population.seeds[m], dtype=population.dtype)
    history = fit(model, data, optimizer=optimizer, seed=population.seeds[0], **options)
    return model, history


def compare(population, history, m, single, single_history, tolerance=1e-10):
    same_weights(population.member(m), single, tolerance)
    n = len(single_history)  # alone it may have stopped earlier
    for key in ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "lr"):
        if single_history[0][key] is None:
            assert history[0][key] is None
            continue
        ours = [np.ravel(v)[m if np.size(v) > 1 else 0] for v in history.column(key)[:n]]
        np.testing.assert_allclose(ours, single_history.column(key), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
@pytest.mark.parametrize("patience", [None, 2])
def test_a_member_equals_the_model_alone(kind, patience):
    rates = [0.3, 1.0, 3.0] if kind is SGD else [0.01, 0.05, 0.1]
    decays, l1 = [0.0, 0.01, 0.1], [1e-3, 0.0, 1e-2]
    options = {
        "validation": HELD_OUT, "monitor": "valid_loss", "epochs": 10, "batch_size": 16, "patience": patience,
        "clip_norm": 1.0, "max_norm": 3.0,
    }  # fmt: skip
    population = MLP([6, 12, 2], dropout=0.2, n_models=3, seed=5, dtype="float64")
    history = fit(population, NOISY, optimizer=kind(lr=rates), l1=l1, l2=decays, **options)
    for m in range(3):
        single, own = alone(population, m, NOISY, kind(lr=rates[m]), l1=l1[m], l2=decays[m], **options)
        compare(population, history, m, single, own)
        assert history.best_epochs[m] == own.best_epoch
    assert len(set(history.best_epochs)) > 1  # else the test shows little


@pytest.mark.parametrize("device", ["cpu", "numba"])
@pytest.mark.parametrize("held_out", [None, HELD_OUT])
def test_a_member_that_stops_keeps_the_weights_of_then(device, held_out):
    options = {
        "epochs": 12, "batch_size": 16, "patience": 1, "min_delta": 1e-3, "monitor": "train_loss",
        "restore_best": False, "validation": held_out,
    }  # fmt: skip

    def trainer(*callbacks):
        model = MLP([6, 12, 2], n_models=2, seed=5, dtype="float64", device=device)
        return Trainer(model, NOISY, optimizer=SGD(lr=[1e-5, 0.1]), callbacks=callbacks, **options)

    saved = []
    steps = -(-len(NOISY[1]) // 16)
    whole = trainer(At(3 * steps, lambda trainer: saved.append(frozen(trainer))))
    history = whole.run()
    epochs = []
    for m, lr in enumerate([1e-5, 0.1]):
        single, own = alone(whole.model, m, NOISY, SGD(lr=lr), **options)
        same_weights(whole.model.member(m), single, 1e-12)
        epochs.append(len(own))
    assert epochs[0] == 2 and epochs[1] == len(history) > 3  # else the test shows little
    again = trainer()
    again.load_state(*saved[0])
    assert again.judge.stopped.tolist() == [True, False]
    again.run()
    np.testing.assert_array_equal(weights_of(again.model), weights_of(whole.model))
    np.testing.assert_array_equal(again.latest_weights(), whole.latest_weights())


def test_members_lower_their_rates_alone():
    schedule = get_schedule("plateau", factor=0.5, patience=1)
    options = {"validation": HELD_OUT, "epochs": 10, "batch_size": 16, "schedule": schedule}
    population = MLP([6, 12, 2], n_models=3, seed=5, dtype="float64")
    history = fit(population, NOISY, optimizer=Adam(lr=0.03), **options)
    for m in range(3):
        compare(population, history, m, *alone(population, m, NOISY, Adam(lr=0.03), **options))
    assert len({tuple(rates) for rates in np.transpose(history.column("lr"))}) > 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("diverging", [0, 1])
@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("schedule", [None, "plateau"])
def test_a_member_that_diverges_leaves_the_others_alone(diverging, validated, schedule):
    rates = [0.05, 0.05, 0.05]
    rates[diverging] = 1e200
    options = {"epochs": 6, "batch_size": 16, "loss": "squared_error", "schedule": schedule}
    options |= {"task": "classification", "clip_norm": None}
    if validated:
        options["validation"] = HELD_OUT
    population = MLP([6, 12, 2], n_models=3, seed=5, dtype="float64")
    start = population.member(diverging)
    history = fit(population, NOISY, optimizer=SGD(lr=rates), **options)
    assert history.diverged == [diverging] and not np.isfinite(history[-1]["train_loss"][diverging])
    for m in {0, 1, 2} - {diverging}:
        compare(population, history, m, *alone(population, m, NOISY, SGD(lr=0.05), **options))
    same_weights(population.member(diverging), start)  # it never finished a good epoch
    assert np.isfinite(weights_of(population)).all()


def test_all_members_diverged():
    population = MLP([6, 12, 2], n_models=2, seed=5)
    before = weights_of(population)
    with pytest.raises(DivergedError, match=r"epoch 1, step 2: layer 1 \(dense 12->2"):
        fit(population, NOISY, optimizer=SGD(lr=[1e38, 1e38]), loss="mse", batch_size=16)
    np.testing.assert_array_equal(weights_of(population), before)
