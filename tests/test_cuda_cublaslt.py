"""What cublasLt is told about every product of the networks that are measured; no device is needed for that."""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_int64, c_uint64
from itertools import pairwise

import numpy as np
import pytest

from xpnet.backend.cuda import cublaslt
from xpnet.backend.cuda.products import Product, describe, with_bias
from xpnet.errors import DeviceError

NETS = {
    "784-500-10": (128, None, [784, 500, 10]),
    "784-1000-1000-10": (128, None, [784, 1000, 1000, 10]),
    "cireşan": (128, None, [784, 2500, 2000, 1500, 1000, 500, 10]),
    "population": (128, 256, [784, 128, 10]),
    "wide": (8192, None, [4096, 4096]),
}
ROWS, COLUMNS, LEADING, BATCH, STRIDE = 2, 3, 4, 5, 6  # attributes of a layout


@pytest.fixture(scope="module")
def library() -> cublaslt.Library:
    pytest.importorskip(
        "cuda.pathfinder", reason='cuda-pathfinder is absent: pip install "xpnet[cuda-check]"'
    )
    try:
        return cublaslt.Library()
    except RuntimeError as error:
        pytest.skip(f'cublasLt is absent: pip install "xpnet[cuda-check]" ({str(error).splitlines()[0]})')


def _like(*shape: int, dtype: str = "float32") -> np.ndarray:
    """An array of any size that takes no memory, with the strides of a contiguous one."""
    itemsize = np.dtype(dtype).itemsize
    strides = [itemsize * int(np.prod(shape[k + 1 :])) for k in range(len(shape))]
    return np.lib.stride_tricks.as_strided(np.zeros(1, dtype), shape, strides)


def _products(batch, n_models, sizes, dtype="float32") -> dict[str, Product]:
    """Forward, gradient of the weights and gradient of the inputs of every layer."""
    lead = () if n_models is None else (n_models,)
    found = {}
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        x = _like(*(lead if i else ()), batch, n_in, dtype=dtype)
        w, y = _like(*lead, n_out, n_in, dtype=dtype), _like(*lead, batch, n_out, dtype=dtype)
        found[f"{i} forward"] = describe(x, w, False, True, y)
        found[f"{i} dW"] = describe(y, x, True, False, w)
        if i:
            found[f"{i} dX"] = describe(y, w, False, False, x)
    return found


def _flop(batch, n_models, sizes):
    weights = [a * b for a, b in pairwise(sizes)]
    return (n_models or 1) * batch * (6 * sum(weights) - 2 * weights[0])


@pytest.mark.parametrize("precision", [None, "tf32", "bf16", "float64"])
@pytest.mark.parametrize("net", NETS)
def test_the_library_has_every_product_as_it_was_meant(library, net, precision):
    dtype = "float64" if precision == "float64" else "float32"
    products = _products(*NETS[net], dtype=dtype)
    assert sum(2 * p.m * p.n * p.k * p.batch for p in products.values()) == _flop(*NETS[net])
    for product in products.values():
        d = cublaslt.Description(library, product, None if precision == "float64" else precision)
        compute, scale = (d.read("operation", k, c_int32) for k in (0, 1))
        assert compute == {None: 68, "tf32": 77, "bf16": 68, "float64": 70}[precision]
        assert scale == (1 if precision == "float64" else 0)
        turned = [bool(d.read("operation", k, c_int32)) for k in (3, 4)]
        assert turned == [product.first.transposed, product.second.transposed]
        operand = {None: 0, "tf32": 0, "bf16": 14, "float64": 1}[precision]
        for part in ("first", "second", "result"):
            matrix = getattr(product, part)
            rows, columns = (d.read(part, k, c_uint64) for k in (ROWS, COLUMNS))
            assert (rows, columns, d.read(part, LEADING, c_int64)) == (
                matrix.rows,
                matrix.columns,
                matrix.leading,
            )
            assert d.read(part, 0, c_int32) == (operand if part != "result" else 1 if operand == 1 else 0)
            assert d.read(part, BATCH, c_int32) == product.batch
            if product.batch > 1:
                assert d.read(part, STRIDE, c_int64) == matrix.stride
            assert matrix.leading >= matrix.rows
        # op(first) is (m, k), op(second) is (k, n)
        shapes = [
            (m.columns, m.rows) if m.transposed else (m.rows, m.columns)
            for m in (product.first, product.second)
        ]
        assert shapes == [(product.m, product.k), (product.k, product.n)]
        d.preference((256, 16, 4))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("net", NETS)
def test_the_library_adds_the_bias_of_every_layer(library, net, relu):
    batch, n_models, sizes = NETS[net]
    lead = () if n_models is None else (n_models,)
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        x, w = _like(*(lead if i else ()), batch, n_in), _like(*lead, n_out, n_in)
        y, b = _like(*lead, batch, n_out), _like(*lead, 1, n_out)
        product = with_bias(describe(x, w, False, True, y), b, y, relu)
        d = cublaslt.Description(library, product, "tf32")
        d.add(4096)
        assert d.read("operation", 7, c_int32) == (6 if relu else 4)
        assert d.read("operation", 8, c_uint64) == 4096
        if product.batch > 1:
            assert d.read("operation", 10, c_int64) == n_out


def test_the_first_layer_of_a_population_reads_the_shared_batch_once_per_member(library):
    forward = _products(*NETS["population"])["0 forward"]
    assert forward.batch == 256 and forward.second.stride == 0 and forward.first.stride == 784 * 128
    assert cublaslt.Description(library, forward, None).read("second", STRIDE, c_int64) == 0


def test_a_description_that_makes_no_sense_is_refused_with_the_words_of_the_library(library):
    product = _products(*NETS["784-500-10"])["0 forward"]
    description = cublaslt.Description(library, product, None)
    with pytest.raises(DeviceError, match=r"MatrixLayoutSetAttribute failed: .*\(status 7\)"):
        description._set("MatrixLayoutSetAttribute", description.first, 99, c_int32(0))


def test_results_of_the_heuristic_are_read_as_the_library_writes_them():
    assert ctypes.sizeof(cublaslt._Heuristic) == 96
    offsets = [
        getattr(cublaslt._Heuristic, name).offset for name in ("algorithm", "workspace", "state", "waves")
    ]
    assert offsets == [0, 64, 72, 76]


@pytest.mark.parametrize(
    ("address", "want"), [(0, 256), (256, 256), (512 + 16, 16), (4, 4), (12, 4), (48, 16)]
)
def test_alignment(address, want):
    assert cublaslt.alignment(address) == want


def test_without_a_device_the_handle_says_why(library):
    from xpnet.backend.cuda.probe import probe

    if probe().available:
        pytest.skip("this machine has CUDA")
    with pytest.raises(DeviceError, match="cublasLtCreate failed"):
        cublaslt.Handle(library)
