"""PyTorch modules from xpnet's models and back; where PyTorch is installed."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_iris

from xpnet import MLP, MLPClassifier, MLPRegressor
from xpnet.activations import NAMES
from xpnet.data.dataset import Preprocessing
from xpnet.errors import ConfigError, FileFormatError
from xpnet.exchange import from_torch, from_torch_state, to_torch, to_torch_state

torch = pytest.importorskip("torch", reason="PyTorch modules are checked where PyTorch is installed")
nn = torch.nn

X, Y = load_iris(return_X_y=True)
QUICK = {"random_state": 0, "max_iter": 5, "dtype": "float64"}


def answer(module, x):
    with torch.no_grad():
        return module(torch.from_numpy(np.asarray(x))).numpy()


class Tanh(nn.Module):
    def forward(self, x):
        return 3.0 * torch.tanh(x)


class TwiceAsMuch(nn.Sequential):
    def forward(self, x):
        return 2.0 * super().forward(x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "activation", [*(n for n in NAMES if n != "step"), "leaky_relu:0.123456789", "elu:0.7", "prelu"]
)
def test_every_activation_there_and_back(activation, dtype):
    model = MLP([4, 6, 5, 3], activation=activation, seed=1, dtype=dtype)
    x = (3.0 * X).astype(dtype)
    module = to_torch(model)
    scale = np.abs(model.outputs(x)).max()
    assert (
        np.abs(answer(module, x) - model.outputs(x)).max() <= (1e-6 if dtype == "float32" else 1e-12) * scale
    )
    again = from_torch(module)
    assert again.dtype == dtype and np.array_equal(again.outputs(x), model.outputs(x))


def test_names_are_those_of_the_state():
    model = MLP([4, 6, 3], activation="prelu")
    assert list(to_torch(model).state_dict()) == ["0.weight", "0.bias", "1.weight", "2.weight", "2.bias"]
    assert set(to_torch(model).state_dict()) == set(to_torch_state(model))


def test_copies_share_nothing():
    model = MLP([4, 3])
    before = model.outputs(X)
    module = to_torch(model)
    with torch.no_grad():
        module[0].weight.zero_()
    assert np.array_equal(model.outputs(X), before)


def test_estimators_take_raw_samples_and_give_probabilities():
    own = {**QUICK, "label_smoothing": 0.0}  # which only xpnet undoes
    clf = MLPClassifier((6,), **own).fit(X, Y)
    module = to_torch(clf, probabilities=True)
    assert np.abs(answer(module, X) - clf.predict_proba(X)).max() < 1e-12
    assert np.abs(from_torch(module).predict_proba(X) - clf.predict_proba(X)).max() < 1e-12
    two = MLPClassifier((6,), **own).fit(X[:100], Y[:100])
    assert (
        np.abs(answer(to_torch(two, probabilities=True), X)[:, 0] - two.predict_proba(X)[:, 1]).max() < 1e-12
    )
    reg = MLPRegressor((6,), **QUICK).fit(X, X[:, 0])
    assert np.allclose(answer(to_torch(reg, probabilities=True), X)[:, 0], reg.predict(X))


def test_pictures_are_flattened():
    model = MLP([12, 8, 3])
    model.preprocessing = Preprocessing((3, 4), scale=1 / 255)
    x = np.random.default_rng(0).integers(0, 256, (5, 3, 4)).astype(np.float32)
    assert np.allclose(answer(to_torch(model), x), model.outputs(x), atol=1e-5)


def test_dropout_and_nested_chains():
    module = nn.Sequential(
        nn.Flatten(), nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.3)), nn.Linear(6, 2, bias=False)
    )
    model = from_torch(module, dtype="float64")
    assert model.architecture["dropout"] == [0.3] and model.sizes == (4, 6, 2)
    assert np.allclose(model.outputs(X), answer(module.eval().double(), X))
    assert from_torch(nn.Linear(4, 2)).sizes == (4, 2)
    shared = nn.Sequential(nn.Linear(4, 6), nn.PReLU(), nn.Linear(6, 2))
    assert np.allclose(from_torch(shared, dtype="float64").outputs(X), answer(shared.double(), X))


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def test_a_module_of_its_own_by_its_state():
    module = Own().double()
    model = from_torch_state(module.state_dict(), task="classification", loss="nll", dtype="float64")
    np.testing.assert_allclose(model.outputs(X), answer(module, X), rtol=1e-12)
    assert model.predict(X).shape == Y.shape


@pytest.mark.parametrize(
    "chain",
    [
        lambda: [nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)],
        lambda: [nn.Linear(4, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, 3)],
        lambda: [nn.BatchNorm1d(4), nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6, affine=False), nn.PReLU(),
                 nn.BatchNorm1d(6), nn.BatchNorm1d(6), nn.Linear(6, 3), nn.BatchNorm1d(3)],
    ],
)  # fmt: skip
def test_batch_normalisation_becomes_part_of_the_weights(chain):
    torch.manual_seed(0)
    module = nn.Sequential(*chain()).double()
    for part in module:
        if isinstance(part, nn.BatchNorm1d) and part.affine:
            nn.init.uniform_(part.weight, 0.5, 2.0)
            nn.init.normal_(part.bias)
    module(torch.from_numpy(X))  # running statistics
    module.eval()
    np.testing.assert_allclose(from_torch(module).outputs(X), answer(module, X), rtol=1e-9, atol=1e-12)


def test_log_softmax_and_a_dropout_at_the_start():
    module = nn.Sequential(
        nn.Dropout(0.3), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3), nn.LogSoftmax(dim=1)
    ).double()
    model = from_torch(module)
    assert model.architecture["input_dropout"] == 0.3 and model.loss == "softmax_cross_entropy"
    module.eval()
    np.testing.assert_allclose(np.log(model.predict_proba(X)), answer(module, X), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.ReLU()), r"2 \(ReLU\) comes where"),
        (lambda: nn.Sequential(nn.Linear(4, 6), nn.Softplus(beta=2.0)), r"Softplus"),
        (
            lambda: Own(),
            r"forward\(\) of its own, .* from_torch_state\(module.state_dict\(\), activation=...\)",
        ),
        (
            lambda: nn.Sequential(nn.Linear(4, 6), Tanh(), nn.Linear(6, 3)),
            r"1 \(Tanh\) has a forward\(\) of its own",
        ),
        (lambda: TwiceAsMuch(nn.Linear(4, 3)), r"the module \(TwiceAsMuch\) has a forward\(\) of its own"),
        (lambda: nn.Sequential(nn.Linear(4, 6), nn.PReLU(3), nn.Linear(6, 3)), r"1 \(PReLU\) has 3 slopes"),
        (lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(5)), r"1 \(BatchNorm1d\) takes 5 inputs"),
        (lambda: nn.Sequential(nn.BatchNorm1d(5), nn.Linear(4, 6)), r"1 \(Linear\) takes 4 inputs"),
        (lambda: nn.LazyLinear(3), "lazy layers without weights"),
        (
            lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.BatchNorm1d(3)),
            "followed by BatchNorm1d behind",
        ),
        (
            lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)),
            "running statistics",
        ),
        (lambda: nn.Sequential(nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)), "linear layer is expected"),
        (lambda: nn.Sequential(nn.Linear(4, 6), nn.PReLU()), "cannot be followed by PReLU"),
        (lambda: nn.Flatten(), "no linear layer"),
        (lambda: nn.Conv1d(1, 1, 1), "Conv1d"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_other_chains_are_named(module, message):
    with pytest.raises(FileFormatError, match=message):
        from_torch(module())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: MLP([4, 6, 3], activation="maxout"), "maxout"),
        (lambda: MLP([4, 6, 3], activation="step"), "step"),
        (lambda: MLPClassifier((4,), loss="hinge", **QUICK).fit(X, Y), "hinge"),
    ],
)
def test_what_pytorch_does_not_have(model, message):
    with pytest.raises(ConfigError, match=message):
        to_torch(model(), probabilities=True)


@pytest.mark.parametrize(
    "shared", [nn.ReLU(), nn.PReLU(4), nn.Dropout(0.5)], ids=["ReLU", "PReLU", "Dropout"]
)
def test_a_module_that_stands_in_several_places(shared):
    first, inner = nn.Linear(3, 4), nn.Linear(4, 4)
    chain = nn.Sequential(first, shared, inner, shared, inner, shared, nn.Linear(4, 2)).eval()
    x = torch.randn(5, 3)
    model = from_torch(chain)
    assert model.sizes == (3, 4, 4, 4, 2)
    np.testing.assert_allclose(model.outputs(x.numpy()), chain(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    assert model.architecture["dropout"] == [0.5 if isinstance(shared, nn.Dropout) else 0.0] * 3


def test_a_sigmoid_before_a_loss_of_numbers_is_an_activation():
    chain = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 1), nn.Sigmoid())
    x = torch.randn(5, 3)
    model = from_torch(chain, task="regression", loss="squared_error")
    np.testing.assert_allclose(model.predict(x.numpy()), chain(x).detach().numpy(), rtol=1e-5)
    with pytest.raises(FileFormatError, match="can only end a classifier"):
        from_torch(
            nn.Sequential(nn.Linear(3, 4), nn.Softmax(dim=-1)), task="regression", loss="squared_error"
        )


@pytest.mark.parametrize(
    "last", [nn.Softmax(dim=0), nn.Softplus(threshold=1.0)], ids=["another axis", "another threshold"]
)
def test_modules_that_compute_something_else(last):
    with pytest.raises(FileFormatError, match=type(last).__name__):
        from_torch(nn.Sequential(nn.Linear(3, 4), last))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_become_float32(dtype):
    chain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).to(dtype)
    for model in (from_torch(chain), from_torch_state(chain.state_dict())):
        assert model.dtype == "float32"
        weight = model.get_weights()["layers.0.weight"]
        np.testing.assert_array_equal(weight, chain[0].weight.detach().float().numpy())


def test_what_does_nothing_may_stand_anywhere():
    nothing = nn.Identity()
    chain = nn.Sequential(
        nothing, nn.Linear(3, 4), nothing, nn.Tanh(), nothing, nn.Linear(4, 2), nn.Softmax(dim=-1), nothing
    )
    model, x = from_torch(chain), torch.randn(5, 3)
    assert (model.sizes, model.loss) == ((3, 4, 2), "softmax_cross_entropy")
    np.testing.assert_allclose(
        model.predict_proba(x.numpy()), chain(x).detach().numpy(), rtol=1e-5, atol=1e-6
    )


def test_dropouts_one_behind_the_other_drop_as_much_together():
    first, second = nn.Dropout(0.2), nn.Dropout(0.5)
    model = from_torch(
        nn.Sequential(first, second, nn.Linear(3, 4), first, nn.ReLU(), second, nn.Linear(4, 2))
    )
    assert model.architecture["input_dropout"] == pytest.approx(0.6)
    assert model.architecture["dropout"] == pytest.approx([0.6])


def test_subclasses_that_only_say_what_is_in_them():
    class Mine(nn.Sequential):
        def __init__(self):
            super().__init__(
                nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2)
            )

    chain, x = Mine(), torch.randn(5, 3)
    np.testing.assert_allclose(
        from_torch(chain).outputs(x.numpy()), chain(x).detach().numpy(), rtol=1e-5, atol=1e-6
    )


def test_only_modules_come_from_pytorch():
    with pytest.raises(ConfigError, match=r"expected a torch\.nn\.Module, found None"):
        from_torch(None)
