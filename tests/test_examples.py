"""Data on their way to the device: what is refused with which words, and what stays as it was."""

from __future__ import annotations

import array_api_strict as strict
import numpy as np
import pytest

from tests.device_data import DEVICE, there
from xpnet import MLP, ConfigError, DataError
from xpnet.backend.reference import ReferenceBackend
from xpnet.data import Preprocessing
from xpnet.losses import get_loss
from xpnet.train import evaluate, fit
from xpnet.training.examples import prepare

X = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 1, 2, 1])


def ready(x=X, y=Y, *, width=3, loss="softmax_cross_entropy", task="classification", model=None, **options):
    model = model or MLP([3, width])
    return prepare(model, x, y, loss=get_loss(loss), task=task, **options)


def changed(array, at, value):
    array = np.array(array)
    array[at] = value
    return array


# --- refusals -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("x", "fragments"),
    [
        (X[0], ["X has shape (3,)", ".reshape(1, -1)"]),
        (X[:, :2], ["X has 2 features per sample", "expected 3"]),
        (X[:0], ["X is empty (shape (0, 3))"]),
        (changed(X, (2, 1), np.nan), ["X has 1 NaN and 0 infinite values", "row 2, column 1"]),
        (changed(X, (0, 2), -np.inf), ["X has 0 NaN and 1 infinite values", "remove or fill them first"]),
        (X.astype(complex), ["X has type complex128", "expected real numbers"]),
        (X.astype(str), ["X has type <U", "expected real numbers"]),
        ([[1, 2, 3], [4, 5]], ["X is not a rectangular host array"]),
        (X * 1e300, ["X holds values too large for float32", "dtype='float64'"]),
        (np.zeros((4, 3, 1, 2)), ["X has 6 features per sample"]),
    ],
)
def test_samples_that_are_refused(x, fragments):
    with pytest.raises(DataError) as error:
        ready(x)
    for fragment in fragments:
        assert fragment in str(error.value)


def test_pictures_are_flattened_where_their_numbers_fit():
    pictures = np.arange(4 * 28 * 28, dtype=np.float32).reshape(4, 28, 28)
    model = MLP([784, 3])
    found = ready(pictures, model=model)
    assert np.array_equal(found.x, pictures.reshape(4, 784))
    assert np.array_equal(model.outputs(pictures), model.outputs(pictures.reshape(4, 784)))
    with pytest.raises(
        DataError, match=r"X has 756 features per sample \(shape \(4, 27, 28\)\), expected 784"
    ):
        ready(pictures[:, 1:], model=model)
    model.preprocessing = Preprocessing((28, 28))  # knows their shape
    with pytest.raises(DataError, match=r"X has shape \(1, 14, 56\), expected \(B, 28, 28\)"):
        ready(pictures.reshape(4, 14, 56), model=model)


@pytest.mark.parametrize(
    ("y", "fragments"),
    [
        (Y[:3], ["y has 3 rows", "there are 4 samples"]),
        (Y + 1, ["y[2] is 3, expected a class index in 0..2", "1 of 4 labels"]),
        (Y - 1, ["y[0] is -1"]),
        (Y + 0.5, ["y[0] is 0.5, expected a class label, which is a whole number"]),
        (changed(Y * 1.0, 1, np.nan), ["y has 1 NaN", "the first (nan) at index 1"]),
        (np.array(list("abca")), ["expected class indices", "encode_labels"]),
        (Y[:, None], ["y has shape (4, 1)", "use .ravel()"]),
        (np.eye(4), ["y has 4 columns of class probabilities, expected 3 classes"]),
        (np.full((4, 3), 0.5), ["y row 0 sums to 1.5"]),
        (np.tile([1.5, -0.5, 0.0], (4, 1)), ["values from -0.5 to 1.5"]),
        (np.ones(4, int), ["training needs at least two classes, but every label is class 1 (4 samples)"]),
        (np.tile([0.0, 0.0, 1.0], (4, 1)), ["every label is class 2"]),
    ],
)
def test_labels_that_are_refused(y, fragments):
    with pytest.raises(DataError) as error:
        ready(y=y)
    for fragment in fragments:
        assert fragment in str(error.value)


def test_validation_is_named_and_may_have_one_class():
    assert ready(y=np.ones(4, int), name="validation ", training=False).n == 4
    with pytest.raises(DataError, match=r"^validation y\[0\] is 7"):
        ready(y=np.full(4, 7), name="validation ")
    with pytest.raises(DataError, match=r"^validation X has 2 features"):
        ready(X[:, :2], name="validation ")
    with pytest.raises(DataError, match=r"^validation X holds values too large"):
        ready(X * 1e300, name="validation ")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("y", "task", "loss", "width", "fragments"),
    [
        (
            Y * 1.0,
            "regression",
            "mse",
            3,
            ["y has shape (4,)", "3 outputs", "y.astype(int)", "encode_labels"],
        ),
        (np.ones((4, 2)), "regression", "mse", 3, ["y has shape (4, 2), expected (4, 3)"]),
        (np.ones((3, 1)), "regression", "mse", 1, ["y has 3 rows"]),
        (np.full((4, 1), np.inf), "regression", "mse", 1, ["y has 0 NaN and 4 infinite"]),
        (np.full((4, 1), 1e300), "regression", "mse", 1, ["y holds values too large for float32"]),
        (np.array(list("abca")), "regression", "mse", 1, ["expected real numbers"]),
        (Y - 1.0, "regression", "poisson", 1, ["y has 1 negative values", "counts >= 0"]),
        (np.full((4, 3), 2), "multilabel", "bce", 3, ["y[0, 0] is 2, expected a value in 0..1"]),
        (Y, "multilabel", "bce", 3, ["y has shape (4, 1), expected (4, 3)"]),
    ],
)
def test_targets_that_are_refused(y, task, loss, width, fragments):
    with pytest.raises(DataError) as error:
        ready(y=y, task=task, loss=loss, width=width)
    for fragment in fragments:
        assert fragment in str(error.value)


def test_hinge_takes_no_probabilities():
    with pytest.raises(ConfigError, match="hinge loss takes class indices, not rows of probabilities"):
        ready(y=np.full((4, 3), 1 / 3), loss="hinge")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("weights", "fragments"),
    [
        ([1, 2], ["sample_weight has 2 rows"]),
        (np.ones((4, 1)), ["sample_weight has shape (4, 1)", "one weight per sample"]),
        ([1, -1, 1, 1], ["sample_weight[1] is -1"]),
        ([1, np.nan, 1, 1], ["sample_weight has 1 NaN"]),
        ([0, 0, 0, 0], ["sample_weight is all zero (4 samples)"]),
        (list("abcd"), ["expected real numbers"]),
        ([1e300, 1, 1, 1], ["sample_weight ranges from 1 to 1e+300", "scale the weights to about 1"]),
        ([1e-45, 1, 1, 1], ["sample_weight ranges from 1e-45 to 1"]),
    ],
)
def test_weights_that_are_refused(weights, fragments):
    with pytest.raises(DataError) as error:
        ready(sample_weight=weights)
    for fragment in fragments:
        assert fragment in str(error.value)


@pytest.mark.parametrize(
    ("weights", "error", "fragment"),
    [
        ("balancd", ConfigError, "or a function of y, found 'balancd'"),
        (
            3.0,
            ConfigError,
            "class_weight must be a dict, 'balanced', one number per class, or a function of y, found 3.0",
        ),
        ([1, 2], ConfigError, "class_weight has 2 numbers for 3 classes"),
        ([1, 2, "much"], ConfigError, "class_weight of class 2 must be a finite number >= 0, found 'much'"),
        ({3: 1.0}, ConfigError, "class_weight names 3, which is none of [0 1 2]"),
        ({"0": 1.0}, ConfigError, "class_weight names '0', which is none of [0 1 2]"),
        (lambda y: -1.0 - y, DataError, "class_weight[0] is -"),
        ({0: -1.0}, ConfigError, "class_weight of class 0 must be a finite number >= 0, found -1.0"),
        ({0: float("nan")}, ConfigError, "class_weight of class 0 must be a finite number"),
        ({0: "much"}, ConfigError, "class_weight of class 0 must be a finite number >= 0, found 'much'"),
        ({0: 0, 1: 0, 2: 0}, DataError, "class_weight is all zero"),
    ],
)
def test_class_weights_that_are_refused(weights, error, fragment):
    with pytest.raises(error) as refusal:
        ready(class_weight=weights)
    assert fragment in str(refusal.value)


def test_class_weights_need_class_indices():
    with pytest.raises(ConfigError, match="class_weight needs class labels, but the task is regression"):
        ready(y=X, task="regression", loss="mse", class_weight="balanced")
    with pytest.raises(ConfigError, match="class_weight needs class indices, not rows"):
        ready(y=np.full((4, 3), 1 / 3), class_weight="balanced")


def test_weights_that_cancel_are_refused():
    with pytest.raises(DataError, match="every sample_weight times its class_weight is zero"):
        ready(sample_weight=[1, 0, 0, 0], class_weight={0: 0.0})


# --- what becomes of good data --------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int64", "float32"])
def test_small_types_stay_as_they_are(dtype):
    assert ready(X.astype(dtype)).x.dtype == dtype


@pytest.mark.parametrize("dtype", ["float64", "float16", "longdouble"])
def test_other_floats_become_the_models(dtype):
    assert ready(X.astype(dtype)).x.dtype == np.float32
    assert ready(X.astype(dtype), model=MLP([3, 3], dtype="float64")).x.dtype == np.float64


def test_bools_and_lists():
    examples = ready(X > 5)
    assert examples.x.dtype == np.uint8 and examples.x.tolist() == (X > 5).astype(int).tolist()
    assert ready(X.tolist(), Y.tolist()).x.dtype == np.float32


def test_user_arrays_are_left_alone_and_may_be_strided():
    x = np.asfortranarray(X)[:, ::-1]
    kept = x.copy()
    examples = ready(x)
    np.testing.assert_array_equal(examples.x, kept)
    assert examples.x.flags.c_contiguous
    fit(MLP([3, 4, 3]), (x, Y), epochs=2)
    np.testing.assert_array_equal(x, kept)


def test_labels_and_targets_by_loss():
    assert ready().labels.dtype == np.int64 and ready().targets is None
    y = np.array([0, 1, 1, 0])
    assert ready(y=y, width=1, loss="bce").targets.tolist() == [[0], [1], [1], [0]]
    assert ready(y=y, width=1, loss="hinge").targets.tolist() == [[-1], [1], [1], [-1]]
    assert ready(y=y[:, None], width=1, loss="bce").targets.tolist() == [[0], [1], [1], [0]]
    assert ready(y=y[:, None], width=2).labels.tolist() == y.tolist()
    soft = ready(y=np.tile([0.75, 0.25], (4, 1)), width=1, loss="bce")
    assert soft.targets.tolist() == [[0.25]] * 4
    assert ready(y=np.full((4, 3), 0.5), task="multilabel", loss="bce").targets.shape == (4, 3)
    assert ready(y=Y, task="regression", loss="mse", width=1).targets.dtype == np.float32


def test_pictures_with_a_recipe_train_and_evaluate_like_their_rows():
    random = np.random.default_rng(0)
    pictures, y = random.integers(0, 256, (40, 28, 28), dtype=np.uint8), np.arange(40) % 4
    found = []
    for x, recipe in (
        (pictures, Preprocessing((28, 28), scale=1 / 255, shift=-0.5)),
        (pictures[..., None], Preprocessing((28, 28), scale=1 / 255, shift=-0.5)),
        (pictures.reshape(40, 784) / 255 - 0.5, None),
    ):
        model = MLP([784, 8, 4], dtype="float64", seed=1)
        model.preprocessing = recipe
        history = fit(model, (x, y), epochs=2, batch_size=16)
        found.append((history[-1]["train_loss"], evaluate(model, (x, y))["loss"], model.outputs(x)))
    for other in found[1:]:
        assert other[:2] == pytest.approx(found[0][:2], rel=1e-12)
        np.testing.assert_allclose(other[2], found[0][2], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_scale_and_shift_per_feature(shape):
    scale, shift = np.array([0.1, 0.5, 2.0]).reshape(shape), np.array([0.0, -1.0, 3.0]).reshape(shape)
    model, plain = (MLP([3, 5, 3], dtype="float64", seed=1) for _ in range(2))
    model.preprocessing = Preprocessing(shape, scale=scale, shift=shift)
    one = fit(model, (X, Y), epochs=3, batch_size=3)
    two = fit(plain, (X * scale.ravel() + shift.ravel(), Y), epochs=3, batch_size=3)
    np.testing.assert_allclose(one.column("train_loss"), two.column("train_loss"), rtol=1e-12)
    uint8 = MLP([3, 5, 3], seed=1)
    uint8.preprocessing = model.preprocessing
    fit(uint8, (X.astype(np.uint8), Y), epochs=3, batch_size=3)
    np.testing.assert_allclose(uint8.outputs(X), model.outputs(X), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("device", ["cpu", "numba", ReferenceBackend(strict, DEVICE)], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_samples_that_float32_cannot_tell_apart_are_scaled_before_they_are_rounded(device, dtype):
    bring = np.asarray if isinstance(device, str) else there
    raw = (1.7e9 + 50.0 * np.random.default_rng(0).normal(size=(5000, 1))).round().astype(dtype)
    y = (raw[:, 0] > 1.7e9).astype(int)
    model = MLP([1, 8, 2], seed=0, device=device)
    model.preprocessing = Preprocessing((1,), scale=np.array([0.02]), shift=np.array([-3.4e7]))
    exact = ((raw - 1.7e9) / 50.0).astype(np.float32)
    x, labels = bring(raw), bring(y)
    examples = prepare(model, x, labels, loss=get_loss("softmax_cross_entropy"), task="classification")
    np.testing.assert_allclose(model.be.to_numpy(examples.x), exact, atol=1e-6)
    assert (examples.scale, examples.shift) == (1.0, 0.0)
    np.testing.assert_allclose(model.be.to_numpy(model.rows(x)), exact, atol=1e-6)
    fit(model, (x, labels), epochs=4, lr=0.02)
    assert evaluate(model, (x, labels))["accuracy"] > 0.98


def test_large_samples_are_scaled_in_blocks_and_pixels_as_they_are_used(monkeypatch):
    monkeypatch.setattr("xpnet.data.dataset._BLOCK", 7)
    recipe = Preprocessing((3,), scale=0.5, shift=-1.0)
    np.testing.assert_array_equal(recipe(X), (X * 0.5 - 1.0).astype(np.float32))
    model = MLP([3, 3])
    model.preprocessing = recipe
    pixels = ready(X.astype(np.uint8), model=model)
    assert (pixels.x.dtype, pixels.scale, pixels.shift) == (np.uint8, 0.5, -1.0)
    with pytest.raises(DataError, match=r"^validation X holds values too large for float32"):
        ready(X * 1e300, model=model, name="validation ")
