"""Every kernel that training launches compiles to machine code, without a GPU, and keeps its numbers in registers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import xpnet
from tests.cuda_emulator import Emulator, Kernels
from xpnet import activations, losses
from xpnet.backend.cuda import joined, kernels, nvrtc
from xpnet.backend.cuda.backend import CudaBackend
from xpnet.backend.program import trace
from xpnet.errors import DeviceError
from xpnet.losses import get_loss
from xpnet.optim import get_optimizer
from xpnet.training.examples import prepare
from xpnet.training.passes import Targets
from xpnet.training.step import TrainingStep
from xpnet.training.update import Regularization

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")

X = np.zeros((40, 12), np.uint8)
LABELS = np.arange(40) % 4
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")
REGULARIZATIONS = (
    {}, {"l1": 0.1}, {"l2": 0.1}, {"l1": 0.1, "l2": 0.1, "clip_value": 1.0}, {"clip_norm": 1.0},
    {"l2": 0.1, "clip_norm": 1.0, "max_norm": 1.0},
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def compiler():
    pytest.importorskip(
        "cuda.pathfinder", reason='cuda-pathfinder is absent: pip install "xpnet[cuda-check]"'
    )
    try:
        nvrtc.compile_kernels('extern "C" __global__ void nothing() {}', "sm_90")
    except RuntimeError as error:
        pytest.skip(f'NVRTC is absent: pip install "xpnet[cuda-check]" ({str(error).splitlines()[0]})')


def _step(be, dtype, architecture=None, loss="softmax_cross_entropy", **options):
    """Ask for one step of training and one batch of another size, of a net that has room for 16 bytes at a time."""
    model = xpnet.MLP([12, 8, 4], dtype=dtype, device=be, seed=1, **architecture or {})
    chosen = get_loss(loss)
    task = "classification" if chosen.classify else "regression"
    y = LABELS if chosen.classify else np.ones((40, 4))
    weights = np.ones(40) if options.pop("weights", False) else None
    examples = prepare(model, X, y, loss=chosen, task=task, sample_weight=weights)
    model.task = task
    optimizer = get_optimizer(options.pop("optimizer", "sgd"), **options.pop("settings", {}))
    targets = Targets(label_smoothing=options.pop("label_smoothing", 0.0))
    for be.fuses in (True, False):  # operations that are joined, and each by itself
        step = TrainingStep(model, chosen, examples, optimizer, Regularization(**options), targets)
        step(np.arange(16))
        step(np.arange(5))


def _all_kernels(dtype) -> dict[str, str]:
    found = Kernels(Path())
    be = CudaBackend(Emulator(found, dry=True))
    names = [*activations.NAMES, "leaky_relu:0.2", "elu:0.5", "prelu", "maxout:3"]
    for name in names:
        if name != "step":  # has no gradient
            _step(be, dtype, {"activation": name})
    be.map(activations.get_activation("step").with_bias, be.empty((8, 4), dtype), be.empty((1, 4), dtype),
           out=be.empty((8, 4), dtype))  # fmt: skip
    for loss in (*losses.NAMES, "huber:0.3", "quantile:0.9"):
        _step(be, dtype, loss=loss)
    for optimizer in OPTIMIZERS:
        for regularization in REGULARIZATIONS:
            _step(be, dtype, optimizer=optimizer, **regularization)
        _step(be, dtype, {"n_models": 3}, optimizer=optimizer, settings={"lr": [0.1, 0.2, 0.3]}, l2=0.1)
    noisy = {"dropout": 0.2, "input_dropout": 0.1, "input_noise": 0.1}
    _step(be, dtype, {**noisy, "n_models": 3}, weights=True, label_smoothing=0.1)
    for classes, inputs in ((32 if dtype == "float32" else 16, 384), (10, 600)):
        gate = trace(activations.get_activation("tanh").backward, 2)
        for formula in (gate, None):
            found.add(*joined.dense_head_kernel(dtype, classes, classes * inputs, formula))
    wide = be.empty((3, 2000), dtype)
    be.sum(wide, axis=-1, out=be.empty((3,), dtype))
    be.softmax(wide, out=wide)
    for name in kernels.NAMES:
        found.add(*kernels.source(name, dtype))
    for group in kernels.HEAD_GROUPS:
        found.add(*kernels.softmax_head(dtype, group))
    if dtype == "float32":
        rounding = CudaBackend(Emulator(found, dry=True), "bf16")
        for name in activations.NAMES:
            if name != "step":
                _step(rounding, dtype, {"activation": name})
                _step(rounding, dtype, {"activation": name}, loss="squared_error")
    for stored in kernels.STORED_TYPES:
        for scale in ("number", "array"):
            found.add(*kernels.gather(stored, dtype, scale, scale))
    return found.sources


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    return _all_kernels("float32") | _all_kernels("float64")


@pytest.mark.slow
def test_every_kernel_compiles_and_none_spills(sources):
    assert len(sources) > 200
    text = "\n".join(sources.values())
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda arch: nvrtc.compile_kernels(text, arch), ARCHITECTURES))
    for arch, (cubin, usage) in zip(ARCHITECTURES, results, strict=True):
        assert cubin[:4] == b"\x7fELF"
        assert set(usage) == set(sources)
        spilled = {name: use for name, use in usage.items() if use.spilled}
        assert not spilled, f"{arch}: {spilled}"
        # exact sines of large numbers need a small array, and nothing else does
        framed = [name for name, use in usage.items() if use.stack and "cos" not in sources[name]]
        assert not framed, f"{arch}: {framed}"
        assert max(use.registers for use in usage.values()) <= 128
        assert max(use.shared for use in usage.values()) <= 48 * 1024


def _steps_in_one_kernel(precision, sizes, **architecture):
    """The kernel that many steps would be on a device with 132 multiprocessors."""
    be = CudaBackend(Emulator(Kernels(Path()), dry=True), precision)
    be.stays, be.runtime.blocks, found = True, 132, []
    be.runtime.stay = lambda steps: (found.append(steps), lambda: None)[1]
    model = xpnet.MLP(sizes, device=be, seed=0, **architecture)
    model.task = "classification"
    y = np.arange(256) % sizes[-1]
    loss = get_loss("softmax_cross_entropy")
    examples = prepare(model, np.zeros((256, sizes[0]), np.uint8), y, loss=loss, task=model.task)
    step = TrainingStep(model, loss, examples, get_optimizer("adam"))
    for _ in range(2):
        step.several(np.zeros((8, 128), int), [1.0] * 8)
    assert found, be.algorithms
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "sizes", "architecture", "architectures"),
    [
        (None, (784, 500, 10), {}, ARCHITECTURES), ("tf32", (784, 500, 10), {}, ARCHITECTURES),
        ("tf32", (784, 1000, 1000, 10), {"activation": "tanh", "dropout": 0.2}, ["sm_90"]),
        (None, (30, 20, 40), {"n_models": 3}, ["sm_90"]),
    ],
)  # fmt: skip
def test_steps_in_one_kernel_compile(precision, sizes, architecture, architectures):
    steps = _steps_in_one_kernel(precision, sizes, **architecture)
    for arch in architectures:
        cubin, usage = nvrtc.compile_kernels(steps.source, arch)
        assert cubin[:4] == b"\x7fELF" and set(usage) == {steps.name}
        # 512 threads share 65536 registers; what calls put aside is no sum of a product
        assert usage[steps.name].registers <= 128 and usage[steps.name].spilled < 128, (arch, usage)
        assert usage[steps.name].shared + steps.shared <= 160 * 1024


def test_a_kernel_that_spills_is_noticed():
    source = """
extern "C" __global__ void __launch_bounds__(1024, 2) spills(float* x) {
    float v[64];
#pragma unroll
    for (int i = 0; i < 64; ++i) v[i] = x[i * 1024 + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 64; ++i) x[i * 1024 + threadIdx.x] = v[63 - i] * v[(i * 7) % 64];
}
"""
    _, usage = nvrtc.compile_kernels(source, "sm_90")
    assert usage["spills"].spilled > 0 and usage["spills"].registers <= 32


def test_a_wrong_kernel_is_an_error_with_the_words_of_the_compiler():
    with pytest.raises(DeviceError, match=r'do not compile for sm_90(.|\n)*identifier "y" is undefined'):
        nvrtc.compile_kernels('extern "C" __global__ void wrong(float* x) { x[0] = y; }', "sm_90")


def test_no_kernel_includes_a_header_or_adds_in_an_order_of_its_own(sources):
    for name, source in sources.items():
        assert "#include" not in source and "atomic" not in source, name


def test_kernels_of_single_elements_move_16_bytes_at_a_time(sources):
    vector = [s for s in sources.values() if "struct alignas(16)" in s]
    assert len(vector) > 100
