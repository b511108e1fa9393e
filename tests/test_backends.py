"""Every back end keeps the contract, the checks notice one that does not, and all of them train."""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path

import numpy as np
import pytest

import xpnet
from tests.conftest import strict
from xpnet import ConfigError, DeviceError, get_backend, rng
from xpnet.backend import OPERATIONS, Backend
from xpnet.backend.cpu import CpuBackend
from xpnet.backend.reference import ReferenceBackend
from xpnet.losses import get_loss
from xpnet.optim import get_optimizer
from xpnet.testing import check_backend
from xpnet.training.examples import prepare
from xpnet.training.passes import Pass, Targets
from xpnet.training.step import TrainingStep
from xpnet.training.update import Regularization


def test_backend_keeps_the_contract(be):
    assert check_backend(be) > 4000


def test_other_seeds_and_dtypes():
    assert check_backend(CpuBackend(), dtypes=["float64"], seed=5) > 2000


# --- planted bugs: each must be caught, and named ---------------------------------------------------
class Asarray(CpuBackend):
    def asarray(self, values, dtype=None):
        return np.asarray(values)  # forgets dtype


class ToNumpy(CpuBackend):
    def to_numpy(self, x):
        return np.atleast_1d(x)


class Empty(CpuBackend):
    def empty(self, shape, dtype):
        return np.empty(shape, "float64" if dtype == "float32" else dtype)


class MatmulTransposesA(CpuBackend):
    def matmul(self, a, b, *, ta=False, tb=False, out):
        return super().matmul(a, b, ta=ta and a.ndim == 2, tb=tb, out=out)


class MatmulIgnoresTb(CpuBackend):
    def matmul(self, a, b, *, ta=False, tb=False, out):
        return super().matmul(a, b, ta=ta, tb=tb and b.shape[-1] != b.shape[-2], out=out)


class MatmulAccumulates(CpuBackend):
    def matmul(self, a, b, *, ta=False, tb=False, out):
        out += np.matmul(a.swapaxes(-1, -2) if ta else a, b.swapaxes(-1, -2) if tb else b)
        return out


class MatmulHalfPrecision(CpuBackend):
    def matmul(self, a, b, *, ta=False, tb=False, out):
        short = (x.astype("float16").astype(x.dtype) for x in (a, b))
        return super().matmul(*short, ta=ta, tb=tb, out=out)


class MatmulForgetsOut(CpuBackend):
    def matmul(self, a, b, *, ta=False, tb=False, out):
        return np.matmul(a.swapaxes(-1, -2) if ta else a, b.swapaxes(-1, -2) if tb else b)


class MatmulSignature(CpuBackend):
    def matmul(self, a, b, ta=False, tb=False, out=None):
        return super().matmul(a, b, ta=ta, tb=tb, out=out)


class MapReturnsNothing(CpuBackend):
    def map(self, fn, *args, out):
        super().map(fn, *args, out=out)


class MapWritesTooEarly(CpuBackend):
    def map(self, fn, *args, out):
        for target, value in zip(*((out, fn(self._ns, *args)) if isinstance(out, tuple)
                                   else ((out,), (fn(self._ns, *args),))), strict=True):  # fmt: skip
            target[...] = value  # an argument handed back may be overwritten by now
        return out


class MapForgetsTheRest(CpuBackend):
    def map(self, fn, *args, out):
        first = out[0] if isinstance(out, tuple) else out
        if first.size <= 16384 or first.ndim != 1:
            return super().map(fn, *args, out=out)
        n = first.size // 1000 * 1000  # the last, partial block
        outs = tuple(o[:n] for o in out) if isinstance(out, tuple) else out[:n]
        super().map(fn, *(a[:n] if np.size(a) == first.size else a for a in args), out=outs)
        return out


class MapChangesInput(CpuBackend):
    def map(self, fn, *args, out):
        super().map(fn, *args, out=out)
        if len(args) == 2 and isinstance(out, np.ndarray) and not np.shares_memory(args[1], out):
            args[1][...] = 0.0
        return out


class MapApproximateErf(CpuBackend):
    def map(self, fn, *args, out):
        ns = type(
            "Ns", (), {"__getattr__": lambda s, n: getattr(np, n), "erf": lambda s, x: np.tanh(1.2 * x)}
        )()
        results = fn(ns, *args)
        copies = [np.array(r) for r in (results if isinstance(out, tuple) else (results,))]
        for o, r in zip(out if isinstance(out, tuple) else (out,), copies, strict=True):
            o[...] = r
        return out


class SumOtherAxis(CpuBackend):
    def sum(self, x, *, axis, out):
        return super().sum(x, axis=0 if axis == -2 else axis, out=out)  # right without a population


class SumOverwrites(CpuBackend):
    def sum(self, x, *, axis, out):
        super().sum(x, axis=axis, out=out)
        x[...] = 0.0
        return out


class SumOutside(CpuBackend):
    def sum(self, x, *, axis, out):
        super().sum(x, axis=axis, out=out)
        if out.base is not None and out.base.ndim == 1 and out.size < out.base.size:
            out.base[-1] = 0.0  # a kernel without a bound check
        return out


class SoftmaxOverflows(CpuBackend):
    def softmax(self, z, *, out):
        e = np.exp(z)
        out[...] = e / e.sum(axis=-1, keepdims=True)
        return out


class SoftmaxOverAll(CpuBackend):
    def softmax(self, z, *, out):
        e = np.exp(z - z.max(axis=-1, keepdims=True))
        out[...] = e / e.sum(axis=-1 if z.ndim == 2 else (-2, -1), keepdims=True)
        return out


class CrossEntropyAssumesOneHot(CpuBackend):
    def softmax_cross_entropy(self, z, t, w, *, loss, out):
        super().softmax_cross_entropy(z, t, w, loss=loss, out=out)
        p = self.softmax(z, out=np.empty_like(z))
        out[...] = w[..., None] * (p - t)
        return out


class CrossEntropyForgetsWeights(CpuBackend):
    def softmax_cross_entropy(self, z, t, w, *, loss, out):
        return super().softmax_cross_entropy(z, t, np.full_like(w, w.flat[0]), loss=loss, out=out)


class CrossEntropyWeighsLoss(CpuBackend):
    def softmax_cross_entropy(self, z, t, w, *, loss, out):
        super().softmax_cross_entropy(z, t, w, loss=loss, out=out)
        loss *= w
        return out


class CrossEntropyLogOfZero(CpuBackend):
    def softmax_cross_entropy(self, z, t, w, *, loss, out):
        p = self.softmax(z, out=np.empty_like(z))
        loss[...] = -np.sum(t * np.log(p + 1e-30), axis=-1)
        out[...] = w[..., None] * (t.sum(axis=-1, keepdims=True) * p - t)
        return out


class ArgmaxLastTie(CpuBackend):
    def argmax(self, x, *, out):
        out[...] = x.shape[-1] - 1 - np.argmax(x[..., ::-1], axis=-1)
        return out


class GatherClips(CpuBackend):
    def gather(self, x, index, *, out, scale=1.0, shift=0.0):
        return super().gather(x, np.minimum(index, len(x) - 2), out=out, scale=scale, shift=shift)


class GatherShiftsFirst(CpuBackend):
    def gather(self, x, index, *, out, scale=1.0, shift=0.0):
        rows = (x[index].astype(out.dtype) + np.asarray(shift, out.dtype)) * np.asarray(scale, out.dtype)
        out[...] = rows
        return out


class GatherInBytes(CpuBackend):
    def gather(self, x, index, *, out, scale=1.0, shift=0.0):
        scaled = x * scale if x.dtype.kind == "f" else (x * scale).astype(x.dtype)  # truncates
        out[...] = scaled[index] + shift
        return out


class UniformRounded(CpuBackend):
    def uniform(self, out, *, seeds, stream, counter):
        super().uniform(out, seeds=seeds, stream=stream, counter=counter)
        out += np.float32(2.0**-25)  # half of the last bit
        return out


class UniformOneSeed(CpuBackend):
    def uniform(self, out, *, seeds, stream, counter):
        return super().uniform(out, seeds=[seeds[0]] * len(seeds), stream=stream, counter=counter)


class UniformIgnoresStream(CpuBackend):
    def uniform(self, out, *, seeds, stream, counter):
        return super().uniform(out, seeds=seeds, stream=rng.stream(rng.DROPOUT), counter=counter)


class UniformAdvancesCounter(CpuBackend):
    def uniform(self, out, *, seeds, stream, counter):
        super().uniform(out, seeds=seeds, stream=stream, counter=counter)
        counter += 1
        return out


class UniformCapturesCounter(CpuBackend):
    def uniform(self, out, *, seeds, stream, counter):
        return super().uniform(out, seeds=seeds, stream=stream, counter=counter.copy())


class CaptureRunsTwice(CpuBackend):
    def capture(self, fn):
        fn()
        return super().capture(fn)


class CaptureDoesNotRun(CpuBackend):
    def capture(self, fn):
        return fn


class CaptureCopiesInputs(CpuBackend):
    def matmul(self, a, b, *, ta=False, tb=False, out):
        return super().matmul(a.copy() if self._tape is not None else a, b, ta=ta, tb=tb, out=out)


class CaptureLosesInPlaceWork(CpuBackend):
    def argmax(self, x, *, out):
        out[...] = np.argmax(x, axis=-1)  # not on the tape
        return out

    def sum(self, x, *, axis, out):
        out[...] = np.sum(x, axis=axis)
        return out


class NoName(CpuBackend):
    def __init__(self):
        super().__init__()
        self.name = None


PLANTED = {
    Asarray: "asarray", ToNumpy: "to_numpy", Empty: "empty", MatmulTransposesA: "matmul",
    MatmulIgnoresTb: "matmul", MatmulAccumulates: "matmul", MatmulHalfPrecision: "matmul",
    MatmulForgetsOut: "matmul", MatmulSignature: "matmul", MapReturnsNothing: "map", MapWritesTooEarly: "map",
    MapForgetsTheRest: "map", MapChangesInput: "map", MapApproximateErf: "map", SumOtherAxis: "sum",
    SumOverwrites: "sum", SumOutside: "sum", SoftmaxOverflows: "softmax", SoftmaxOverAll: "softmax",
    CrossEntropyAssumesOneHot: "softmax_cross_entropy", CrossEntropyForgetsWeights: "softmax_cross_entropy",
    CrossEntropyWeighsLoss: "softmax_cross_entropy", CrossEntropyLogOfZero: "softmax_cross_entropy",
    ArgmaxLastTie: "argmax", GatherClips: "gather", GatherShiftsFirst: "gather", GatherInBytes: "gather",
    UniformRounded: "uniform", UniformOneSeed: "uniform", UniformIgnoresStream: "uniform",
    UniformAdvancesCounter: "uniform", UniformCapturesCounter: "capture", CaptureRunsTwice: "capture",
    CaptureDoesNotRun: "capture", CaptureCopiesInputs: "capture", CaptureLosesInPlaceWork: "capture",
    NoName: "name",
}  # fmt: skip


@pytest.mark.parametrize("kind", list(PLANTED), ids=lambda kind: kind.__name__)
def test_planted_bug_is_caught(kind):
    # one that forgets work computes with whatever is in memory
    with np.errstate(all="ignore"), pytest.raises(AssertionError) as error:
        check_backend(kind())
    message = str(error.value)
    assert message.startswith(PLANTED[kind] + ": ")
    assert kind.__name__ in message


def test_every_operation_has_a_planted_bug():
    # `synchronize` does nothing on the CPU, so nothing can be wrong with it there
    assert set(PLANTED.values()) - {"name"} == set(OPERATIONS) - {"synchronize"}


def test_message_names_case_and_difference():
    with pytest.raises(
        AssertionError, match=r"matmul: .*float32\[1, 1\].*: largest difference .*, allowed .*"
    ):
        check_backend(MatmulHalfPrecision())


def test_missing_operation_is_caught():
    class Duck:
        name, device = "duck", "pond"
        asarray = CpuBackend.asarray

    with pytest.raises(AssertionError, match="to_numpy: signature: is missing"):
        check_backend(Duck())


# --- the contract itself ----------------------------------------------------------------------------
#: Methods that compute nothing, and those that a back end may have for one pass over what several operations do.
AROUND = {
    "tuned",
    "repeated",
    "in_a_row",
    "free_memory",
    "slow_start",
    "lost",
    "one_pass_head",
    "softmax_head",
    "permutation",
}


def test_operations_are_the_methods_of_the_contract():
    public = {n for n, f in vars(Backend).items() if inspect.isfunction(f) and not n.startswith("_")}
    assert public - AROUND == set(OPERATIONS)


@pytest.mark.parametrize("kind", [ReferenceBackend, CpuBackend])
def test_back_ends_add_no_operation(kind):
    public = {n for n, f in inspect.getmembers(kind, inspect.isfunction) if not n.startswith("_")}
    assert public - AROUND == set(OPERATIONS)


# --- get_backend ------------------------------------------------------------------------------------
def test_get_backend_by_name_and_object():
    be = get_backend("cpu")
    assert isinstance(be, CpuBackend)
    assert (be.name, be.device, be.xp) == ("numpy", "cpu", np)
    assert get_backend(be) is be
    assert get_backend() is not be  # no global state


def test_get_backend_of_a_namespace():
    be = get_backend(strict())
    assert type(be) is ReferenceBackend
    assert be.name == "array_api_strict"
    assert repr(be) == "<ReferenceBackend array_api_strict on cpu>"
    assert get_backend(np).name == "numpy"


@pytest.mark.parametrize("device", ["gpu", "cpu:1", "", "CPU", "tpu", None, 3, "cud"])
def test_unknown_device(device):
    with pytest.raises(ConfigError, match="cpu, numba, cuda, cuda:N, auto") as error:
        get_backend(device)
    assert error.value.exit_code == 2
    assert repr(device) in str(error.value)


def _cuda_works() -> bool:
    try:
        get_backend("cuda")
    except DeviceError:
        return False
    return True


@pytest.mark.parametrize("device", ["cuda", "cuda:7000"])
def test_absent_device_is_an_error_never_a_fallback(device):
    if device == "cuda" and _cuda_works():
        pytest.skip("this machine has CUDA")
    with pytest.raises(DeviceError) as error:
        get_backend(device)
    assert error.value.exit_code == 4
    with pytest.raises(DeviceError):
        xpnet.MLP([2, 2], device=device)


def test_auto_gives_a_back_end_that_works():
    be = get_backend("auto")
    assert be.to_numpy(be.asarray([1.0, 2.0], "float32")).tolist() == [1.0, 2.0]


# --- layers, losses and updates speak only the Array API --------------------------------------------
X = np.random.default_rng(1).normal(size=(9, 4))
Y = np.array([0, 2, 1, 1, 0, 2, 2, 0, 1])
ROWS = np.arange(9)

SETTINGS = {
    "plain": ({}, {}, {}),
    "everything": (
        {"activation": ["gelu", "prelu"], "dropout": 0.2, "input_dropout": 0.1, "input_noise": 0.1},
        {"l1": 0.01, "l2": 0.1, "clip_value": 0.5, "clip_norm": 0.3, "max_norm": 1.0},
        {"optimizer": "adamw", "weights": True, "label_smoothing": 0.1},
    ),
    "population": (
        {"activation": ["maxout:3", "selu"], "n_models": 3, "dropout": 0.3},
        {"l2": [0.0, 0.1, 0.2], "clip_norm": 0.3, "max_norm": 1.0},
        {"optimizer": "nesterov", "infogain": True},
    ),
    "hinge": (
        {"activation": ["hard_swish", "softsign"], "n_models": 2}, {},
        {"loss": "hinge", "optimizer": "adagrad"},
    ),
    "squared error": ({"activation": "elu"}, {"l1": 0.1}, {"loss": "squared_error", "optimizer": "rmsprop"}),
}  # fmt: skip


def _train(be, model, regularization, options, dtype):
    loss = get_loss(options.get("loss", "softmax_cross_entropy"))
    net = xpnet.MLP([4, 5, 6, 3], dtype=dtype, seed=3, device=be, **model)
    net.task, net.loss = "classification", loss.name
    weights = np.linspace(0.5, 2.0, 9) if options.get("weights") else None
    examples = prepare(net, X, Y, loss=loss, task="classification", sample_weight=weights)
    infogain = np.eye(3) + 0.1 if options.get("infogain") else None
    targets = Targets(label_smoothing=options.get("label_smoothing", 0.0), infogain=infogain)
    step = TrainingStep(
        net, loss, examples, get_optimizer(options.get("optimizer", "sgd"), lr=0.1),
        Regularization(**regularization), targets,
    )  # fmt: skip
    for batch in (ROWS[:6], ROWS[6:], ROWS[2:8]):
        step(batch)
    evaluation = Pass(net, loss, examples, targets=targets).run(ROWS, 4)
    return {
        **net.get_weights(), "totals": step.tally.totals(), "last": step.tally.last_loss(), "evaluation": evaluation,
        "outputs": net.outputs(X), "predicted": net.predict(X),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(SETTINGS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_is_the_same_on_every_back_end(be, name, dtype):
    model, regularization, options = SETTINGS[name]
    want = _train(get_backend("cpu"), model, regularization, options, dtype)
    got = _train(be, model, regularization, options, dtype)
    tolerance = {"float32": 1e-5, "float64": 1e-13}[dtype]
    for key in want:
        np.testing.assert_allclose(got[key], want[key], rtol=0, atol=tolerance, err_msg=key)
        assert got[key].dtype == want[key].dtype


# --- the documentation ------------------------------------------------------------------------------
DOCUMENT = Path(__file__).parents[1] / "docs" / "backends.md"


def test_documented_examples_run():
    blocks = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) >= 2
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(DOCUMENT), "exec"), names)
    assert names["n_cases"] > 4000
    assert names["be"].calls["matmul"] > 0


def test_documented_table_is_the_contract():
    rows = re.findall(r"^\| `(\w+)\((.*?)\)` \|", DOCUMENT.read_text(encoding="utf-8"), re.M)
    assert [name for name, _ in rows] == list(OPERATIONS)
    for name, written in rows:
        real = list(inspect.signature(getattr(Backend, name)).parameters.values())[1:]
        names = [n.strip().split("=")[0].lstrip("*") for n in written.split(",")]
        assert [n for n in names if n] == [p.name for p in real], name


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("device", ["cpu", "strict"])
def test_rounded_products_are_refused_where_there_are_none(device, precision):
    device = strict() if device == "strict" else device
    with pytest.raises(ConfigError, match=f"precision '{precision}' needs CUDA") as error:
        get_backend(device, precision=precision)
    assert error.value.exit_code == 2


def test_settings_of_a_back_end():
    assert get_backend("cpu", precision="float64").precision is None
    with pytest.raises(ConfigError, match="unknown precision 'fp16'"):
        get_backend("cpu", precision="fp16")
    plain = get_backend("cpu", capture=False)
    assert not plain.captures and get_backend(plain) is plain and get_backend(plain, capture=False) is plain
    with pytest.raises(ConfigError, match="exists already"):
        get_backend(get_backend("cpu"), precision="bf16")
    with pytest.raises(ConfigError, match="exists already"):
        get_backend(get_backend("cpu"), capture=False)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_captured_choice_does_not_depend_on_what_its_array_held(be, dtype):
    kept, new = be.asarray(np.zeros(()), dtype), be.asarray(np.full((), 5.0), dtype)
    repeat = be.capture(lambda: be.map(lambda ns, k, n: ns.where(n > 4.0, n, k), kept, new, out=kept))
    kept[...], new[...] = 3.0, 1.0
    repeat()
    assert float(be.to_numpy(kept)) == 3.0  # of a zero that was there when it was captured nothing is left


def test_what_is_not_captured_is_called_each_time():
    for capture in (True, False):
        be, calls = get_backend("cpu", capture=capture), []
        x = be.asarray(np.ones(3), "float32")

        def work(be=be, x=x, calls=calls):
            calls.append(1)
            be.map(lambda ns, a: a + 1.0, x, out=x)

        repeat = be.repeated(work)
        repeat()
        assert len(calls) == (1 if capture else 2) and x.tolist() == [3.0] * 3


@pytest.mark.parametrize("device", ["cpu", "numba"])
@pytest.mark.parametrize("shape", [(33, 200, 190), (64, 130, 130), (65, 130, 130)])
def test_products_of_few_rows_by_a_large_transpose(device, shape):
    if device == "numba":
        pytest.importorskip("numba", reason="needs Numba")
    rows, inner, width = shape
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(rows, inner)), rng.normal(size=(width, inner))
    wide = np.full((rows, width + 3), 7.0)
    be = get_backend(device)
    be.matmul(a, b, tb=True, out=wide[:, 1:-2])  # into columns of a wider array
    np.testing.assert_allclose(wide[:, 1:-2], a @ b.T, rtol=1e-12, atol=1e-12)
    assert (wide[:, [0, -2, -1]] == 7.0).all()
    again = be.capture(lambda: be.matmul(a, b, tb=True, out=wide[:, 1:-2]))
    a[...] = rng.normal(size=a.shape)
    again()
    np.testing.assert_allclose(wide[:, 1:-2], a @ b.T, rtol=1e-12, atol=1e-12)


class _Unwritable:
    """What JAX gives: arrays that never change."""

    __name__, __array_api_version__ = "stones", "2024.12"

    def empty(self, shape):
        return tuple(range(shape))


@pytest.mark.parametrize(
    ("namespace", "message"),
    [
        (_Unwritable(), "the arrays of stones cannot be written to"),
        (math, "math is no namespace of the Array API"),
    ],
)
def test_namespaces_that_will_not_do(namespace, message):
    with pytest.raises(ConfigError, match=message):
        ReferenceBackend(namespace)
