"""What people type first, as other libraries taught them: it works, or the error says what to type."""

from __future__ import annotations

import numpy as np
import pytest

import xpnet
from xpnet import MLP, SGD, Adam, Callback, evaluate, fit, schedules
from xpnet.activations import get_activation
from xpnet.errors import ConfigError, DataError
from xpnet.losses import get_loss
from xpnet.metrics import regression_scores
from xpnet.optim import get_optimizer
from xpnet.tabular import TabularPreprocessing

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = np.arange(40) % 2


def trained(y=Y, width=2, **options):
    model = MLP([3, 8, width], seed=1)
    fit(model, (X, y), **{"epochs": 1, **options})
    return model


# --- arguments that are called otherwise ------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fit(MLP([3, 2]), X, Y), r"fit takes samples and targets as one pair: fit\(model, \(X, y\), ...\)"),
        (lambda: evaluate(trained(), X, Y), r"one pair: evaluate\(model, \(X, y\), ...\)"),
        (lambda: xpnet.Trainer(MLP([3, 2]), X, Y), r"one pair: Trainer\(model, \(X, y\), ...\)"),
        (lambda: MLP(4, 8, 2), r"sizes is one list of widths: MLP\(\[4, 8, 2\]\)"),
        (lambda: MLP([4, 2], hidden=8), "unknown option of MLP 'hidden': sizes has all widths"),
        (lambda: MLP([4, 2], activtion="relu"), "did you mean 'activation'"),
        (lambda: Adam(learning_rate=0.1), "'learning_rate': it is called lr here"),
        (lambda: Adam(betas=(0.9, 0.99)), "'betas': they are called beta1 and beta2 here"),
        (lambda: Adam(0.1), "every option of optimizer 'adam' is given by its name, found 0.1"),
        (lambda: SGD(weight_decay=0.1), "AdamW has it"),
        (lambda: get_optimizer("adam", beta=0.1), "unknown option of optimizer 'adam' 'beta'; did you mean 'beta"),
        (lambda: schedules.Step(step_size=10), "'step_size': it is called every here, in epochs"),
        (lambda: schedules.Cosine(T_max=100), "'T_max': a schedule ends with the last update of fit"),
        (lambda: fit(MLP([3, 2]), (X, Y), validation_data=(X, Y)), r"it is called validation=\(X, y\) here"),
        (lambda: fit(MLP([3, 2]), (X, Y), epoch=3), "unknown option of fit 'epoch'; did you mean 'epochs'"),
        # objects of another kind than wanted
        (lambda: trained(schedule=lambda step: 1.0), r"a method after\(self, step, total, per_epoch\)"),
        (lambda: trained(schedule=schedules.Cosine), r"the schedule is a class; make one of it: Cosine\(\)"),
        (lambda: trained(loss=lambda h, t: h), r"one of your own is Loss\(name, value, slope, ...\)"),
        (lambda: trained(optimizer=0.1), "optimizer must be a name or an Optimizer, found 0.1"),
        (lambda: MLP([3, 4, 2], activation=np.tanh), r"Activation\(name, value, slope\)"),
        (lambda: MLP([3, 4, 2], activation=["relu", np.tanh]), "activation has 2 entries"),
        (lambda: MLP([3, 4, 2], output_activation="softmax"), "the cross-entropy contains it"),
        # texts and numbers where yes or no is asked
        (lambda: trained(shuffle="no"), "shuffle must be True or False, found 'no'"),
        (lambda: trained(restore_best="no"), "restore_best must be True or False, found 'no'"),
        (lambda: trained(statistics="no"), "statistics must be True or False"),
        (lambda: trained(verbose="no"), "verbose must be True or False"),
        (lambda: trained(one_class="no"), "one_class must be True or False"),
        (lambda: xpnet.fit_many([{"sizes": [3, 2], "shuffle": "no"}], (X, Y)), "shuffle must be True or False"),
        (lambda: trained(monitor="val_loss"), r"monitor='val_loss' needs validation data, and there are none"),
        (lambda: trained(monitor="val_loss", validation=(X, Y)), "did you mean 'valid_loss'"),
        (lambda: xpnet.exchange.from_torch_state(MLP([3, 2]).get_weights()).predict(X), "from_torch"),
    ],
)  # fmt: skip
def test_what_is_said_about_arguments(call, said):
    with pytest.raises(ConfigError, match=said):
        call()


def test_an_activation_of_a_list_may_be_an_object():
    assert MLP([3, 4, 2], activation=[get_activation("tanh")]).architecture["activation"] == ["tanh"]


def test_verbose_may_be_a_number(capsys):
    trained(verbose=0)
    assert not capsys.readouterr().out
    trained(verbose=2)
    assert "train loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("categorical_crossentropy", "softmax_cross_entropy"),
        ("sparse_categorical_crossentropy", "softmax_cross_entropy"),
        ("crossentropy", "softmax_cross_entropy"),
        ("nll", "softmax_cross_entropy"),
        ("bce_with_logits", "binary_cross_entropy"),
        ("mean_squared_error", "squared_error"),
    ],
)
def test_losses_as_other_libraries_call_them(name, known):
    assert get_loss(name).name == known


# --- data in other forms ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        (
            (part for part in [(X, Y)]),
            {},
            "found generator, which gives them in parts: .* mmap_mode='r'.* partial_fit",
        ),
        (X, {}, r"data must be a pair \(X, y\), found ndarray"),
        ((X, 2 * Y - 1), {"loss": "hinge"}, r"labels -1 and 1 are 0 and 1 here, for every loss: \(y > 0\)"),
        ((X, Y), {"sample_weight": "balanced"}, "weights of classes are class_weight"),
        ((X, Y), {"sample_weight": {0: 2.0}}, "one number for each of the 40 samples"),
    ],
)
def test_what_is_said_about_data(data, options, said):
    with pytest.raises(DataError, match=said):
        fit(MLP([3, 2]), data, **options)


@pytest.mark.parametrize("make", [lambda y: y.astype(float), lambda y: y[:, None].astype("float32")])
def test_zeros_and_ones_are_labels_whatever_their_type(make):
    one, other = MLP([3, 8, 1]), MLP([3, 8, 1])
    fit(one, (X, Y), epochs=2)
    fit(other, (X, make(Y)), epochs=2)
    assert other.loss == "binary_cross_entropy" and np.array_equal(one.weights, other.weights)
    fit(numbers := MLP([3, 8, 1]), (X, make(Y)), task="regression", epochs=1)
    assert numbers.loss == "squared_error"


def test_rows_of_zeros_and_ones_are_classes_whatever_their_type():
    one, other = trained(), trained(np.eye(2)[Y])
    assert other.task == "classification"
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-5, atol=1e-7)


def test_weights_that_are_not_finite_are_refused():
    model = trained()
    before = model.get_weights()
    with pytest.raises(DataError, match=r"layers\.0\.bias has 1 NaN"):
        model.set_weights(before | {"layers.0.bias": np.array([0.0] * 7 + [np.nan])})
    assert np.array_equal(model.get_weights()["layers.0.bias"], before["layers.0.bias"])


def test_a_model_for_tables_says_what_it_takes():
    table = {"a": X[:, 0], "b": ["u", "v"] * 20, "y": Y}
    prepare = TabularPreprocessing("y").fit(table)
    model = MLP([prepare.transform(table).shape[1], 2])
    fit(model, (prepare.transform(table), Y), epochs=1)
    model.tabular = prepare.to_metadata()
    with pytest.raises(
        DataError, match=r"TabularPreprocessing.from_metadata\(model.tabular\).transform\(table\)"
    ):
        model.predict(X[:, :1])
    with pytest.raises(ConfigError, match=r"call fit\(table\) first"):
        TabularPreprocessing("y").transform(table)


# --- answers ------------------------------------------------------------------------------------------
def test_the_errors_of_a_regression():
    model = trained(X[:, :2])
    found = evaluate(model, (X, X[:, :2]))
    assert found["accuracy"] is None
    assert {k: found[k] for k in ("rmse", "mae", "r2")} == regression_scores(
        X[:, :2], model.predict(X).astype(float)
    )
    twice = evaluate(model, (np.concatenate([X, X[:5]]), np.concatenate([X, X[:5]])[:, :2]))
    weighted = evaluate(model, (X, X[:, :2]), sample_weight=[2.0] * 5 + [1.0] * 35)
    assert weighted.pop("accuracy") is twice.pop("accuracy") is None
    assert weighted == pytest.approx(twice, rel=1e-6)
    for m in (1, 2):
        several = MLP([3, 2], n_models=m)
        fit(several, (X, X[:, :2]), epochs=1)
        found = evaluate(several, (X, X[:, :2]))
        assert len(found["r2"]) == m
        assert found["r2"][-1] == pytest.approx(evaluate(several.member(m - 1), (X, X[:, :2]))["r2"])
    assert "rmse" not in evaluate(trained(), (X, Y))


def test_a_column_of_the_history_that_is_none():
    history = fit(MLP([3, 2]), (X, Y), epochs=2)
    assert history.column("valid_loss") == [None, None]
    with pytest.raises(
        ConfigError, match="unknown column of the history 'val_loss'; did you mean 'valid_loss'"
    ):
        history.column("val_loss")
    assert fit(MLP([3, 2]), (X, Y), epochs=0).column("train_loss") == []


# --- classes of the user's own ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("hook", "near"), [("on_train_begin", "on_train"), ("on_epoch_ends", "on_epoch_end")]
)
def test_hooks_that_are_none(hook, near):
    with pytest.raises(ConfigError, match=f"hook of the callback Mine, '{hook}'; did you mean '{near}"):
        type("Mine", (Callback,), {hook: lambda self, trainer: None})


def test_schedules_that_say_nothing():
    with pytest.raises(
        ConfigError, match=r"schedule Mine: factor is never called; .* after\(self, step, total"
    ):
        type("Mine", (schedules.Schedule,), {"factor": lambda self, step: 0.5})
    mine = type("Mine", (schedules.Cosine,), {"describe": lambda self: "a cosine"})
    assert mine()(0, 10, 1) == schedules.Cosine()(0, 10, 1)
