"""Data on a device stay there: what leaves a device that NumPy cannot read is counted."""

from __future__ import annotations

import array_api_strict as strict
import numpy as np
import pytest

from tests.device_data import DEVICE, counted, there
from xpnet import MLP, DataError, Trainer, evaluate, fit, fit_many
from xpnet.backend.reference import ReferenceBackend
from xpnet.data import Preprocessing, check_features, check_labels, check_targets, check_weights
from xpnet.interchange import to_host

RNG = np.random.default_rng(0)
N = 300
X = RNG.normal(size=(N, 7))
Y = np.arange(N) % 3


def with_one(value):
    x = X.copy()
    x[4, 2] = value
    return x


@pytest.fixture
def left():
    with counted() as sizes:
        yield sizes


def model(widths, **options):
    return MLP(widths, dtype="float64", device=ReferenceBackend(strict, DEVICE), **options)


def test_what_leaves_is_counted(left):
    assert to_host(there(X)).shape == X.shape and max(left) == X.size
    with pytest.raises((RuntimeError, TypeError)):
        np.asarray(there(X))


@pytest.mark.parametrize("labels", ["classes", "targets"])
def test_models_train_and_answer_where_the_data_are(left, labels):
    y = Y if labels == "classes" else X[:, :3]
    x, t, w = there(X), there(y), there(np.linspace(0.5, 1.5, N))
    net, same = model([7, 6, 3]), MLP([7, 6, 3], dtype="float64")
    history = fit(net, (x, t), validation=(x, t, w), sample_weight=w, epochs=2)
    host = (X, y, np.linspace(0.5, 1.5, N))
    expected = fit(same, (X, y), validation=host, sample_weight=host[2], epochs=2)
    assert np.allclose(history.column("valid_loss"), expected.column("valid_loss"), rtol=1e-12)
    scores, alone = evaluate(net, (x, t), sample_weight=w), evaluate(same, (X, y), sample_weight=host[2])
    answers = {"outputs": net.outputs(x), "predict": net.predict(x), "activations": net.activations(x)[0]}
    if labels == "classes":
        answers["predict_proba"] = net.predict_proba(x)
    assert max(left) <= net.n_parameters < N
    assert scores["accuracy"] == alone["accuracy"] and scores["loss"] == pytest.approx(
        alone["loss"], rel=1e-10
    )
    for name, answer in answers.items():
        assert answer.device == DEVICE
        expected = getattr(same, name)(X)
        assert np.allclose(to_host(answer), expected[0] if name == "activations" else expected, rtol=1e-10)


@pytest.mark.parametrize("device", ["cpu", ReferenceBackend(strict, DEVICE)], ids=str)
def test_members_take_data_and_rows_from_a_device(left, device):
    w, rows = np.linspace(0.5, 1.5, N), np.arange(200)
    configurations = [{"seed": 0}, {"seed": 1, "sample_weight": w}, {"seed": 2, "rows": rows}]
    options = {"sizes": [7, 4, 3], "epochs": 2, "dtype": "float64"}
    expected = fit_many(configurations, (X, Y), validation=(X, Y, w), **options)
    on_device = [{k: v if k == "seed" else there(v) for k, v in c.items()} for c in configurations]
    result = fit_many(
        on_device, (there(X), there(Y)), validation=(there(X), there(Y), there(w)), device=device, **options
    )
    assert device == "cpu" or max(left) < X.size
    for one, other in zip(result, expected, strict=True):
        for name in ("train_loss", "valid_loss"):
            assert one.history.column(name) == pytest.approx(other.history.column(name), rel=1e-12)


def test_data_of_another_device_come_to_the_host():
    w = np.linspace(0.5, 1.5, N)
    host = Trainer(MLP([7, 3]), (X, Y), sample_weight=w, validation=(X, Y, w), epochs=2)
    other = Trainer(
        MLP([7, 3]), (there(X), there(Y)), sample_weight=there(w), validation=(there(X), there(Y), there(w)), epochs=2
    )  # fmt: skip
    assert other.run().column("valid_loss") == host.run().column("valid_loss")
    assert other.state()[1]["validation"] == host.state()[1]["validation"]


def test_samples_are_prepared_where_they_are(left):
    net, same = model([4, 3]), MLP([4, 3], dtype="float64")
    images = RNG.integers(0, 255, (N, 2, 2)).astype(np.uint8)
    for m, place in ((net, there), (same, np.asarray)):
        m.preprocessing = Preprocessing((2, 2), scale=1 / 255, shift=np.array([0.0, 1.0, 2.0, 3.0]))
        fit(m, (place(images), place(Y)), epochs=1)
    answer = net.outputs(there(images))
    assert answer.device == DEVICE and max(left) < N
    assert np.allclose(to_host(answer), same.outputs(images))
    with pytest.raises(DataError, match="too large for float64"):
        Preprocessing((1,), scale=1e300)(there(np.full((2, 1), 1e300)), "float64")


def test_a_run_is_recognised_by_its_data_when_asked(left):
    trainer = Trainer(model([7, 3]), (there(X), there(Y)), validation=(there(X), there(Y)), epochs=1)
    same = Trainer(MLP([7, 3], dtype="float64"), (X, Y), validation=(X, Y), epochs=1)
    assert not left
    for name in ("data", "validation"):
        assert trainer.state()[1][name] == same.state()[1][name]


@pytest.mark.parametrize(
    "check, good, bad",
    [
        (check_features, X, with_one(np.nan)),
        (check_features, X, X[:, 0]),
        (check_features, X, X[:0]),
        (lambda y: check_labels(y, N, n_classes=3), Y, np.where(np.arange(N) == 7, 3, Y)),
        (lambda y: check_labels(y, N, n_classes=3), Y, Y[1:]),
        (lambda y: check_labels(y, N, n_classes=3), Y, Y + 0.5),
        (lambda y: check_targets(y, N, 7), X, with_one(np.inf)),
        (lambda y: check_targets(y, N, 7), X, X[:, 1:]),
        (lambda y: check_targets(y, N, 1, unit_interval=True), Y == 1, Y),
        (lambda w: check_weights(w, N), Y, -Y),
        (lambda w: check_weights(w, N), Y == 1, 0.0 * Y),
    ],
)
def test_checks_say_the_same_of_data_on_a_device(left, check, good, bad):
    found = check(there(good))
    assert found.device == DEVICE and not left
    assert np.array_equal(to_host(found), check(good)) and to_host(found).dtype == check(good).dtype
    messages = []
    for x in (bad, there(bad)):
        with pytest.raises(DataError) as raised:
            check(x)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_labels_that_are_no_indices_are_converted():
    assert np.array_equal(check_labels(there(Y.astype(float)), N), Y)
