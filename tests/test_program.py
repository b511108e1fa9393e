"""The tracer: programs compute what the formula says, whatever shares memory with whatever."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpnet.activations import NAMES, get_activation
from xpnet.backend import cpu
from xpnet.backend.cpu import CpuBackend
from xpnet.backend.program import Program, trace


def run(fn: Any, *args: np.ndarray, out: Any) -> Any:
    return CpuBackend().map(fn, *args, out=out)


def arrays(n: int, shape: tuple[int, ...] = (3, 4), dtype: str = "float64") -> list[np.ndarray]:
    return [np.random.default_rng(i).normal(size=shape).astype(dtype) for i in range(n)]


# --- what a program looks like ----------------------------------------------------------------------
def test_program_text():
    program = trace(lambda ns, x, y: ns.maximum(x + y, 0.0) * 2.0, 2)
    assert str(program) == "r0 = add(a0, a1)\nr0 = maximum(r0, 0.0)\nout0 = multiply(r0, 2.0)"
    assert (program.n_args, program.n_out, program.n_float, program.n_bool) == (2, 1, 1, 0)


def test_common_subexpressions_are_computed_once():
    program = trace(lambda ns, x, y: (x + y) * (x + y) + ns.exp(x + y), 2)
    assert [i.op for i in program.instructions].count("add") == 2
    program = trace(lambda ns, x: (ns.tanh(x), 1.0 - ns.square(ns.tanh(x))), 1, (None, None))
    assert [i.op for i in program.instructions].count("tanh") == 1


def test_what_nobody_reads_is_not_computed():
    def fn(ns, x):
        ns.exp(x)
        return x + 1.0

    assert str(trace(fn, 1)) == "out0 = add(a0, 1.0)"


def test_constants_that_compare_equal_stay_apart():
    x = np.array([2.0, -2.0])
    out = np.empty((2, 2))
    run(lambda ns, x: (x * 0.0, x * -0.0), x, out=(out[0], out[1]))
    assert np.signbit(out).tolist() == [[False, True], [True, False]]
    program = trace(lambda ns, x: (x + 1, x + 1.0, x + True), 1, (None,) * 3)
    assert [i.operands[1] for i in program.instructions] == [("const", 1), ("const", 1.0), ("const", True)]


def test_registers_are_used_again():
    def chain(ns, x):
        for _ in range(50):
            x = ns.tanh(x + 1.0)
        return x

    assert trace(chain, 1).n_float == 1
    sums = trace(lambda ns, *a: sum((ns.exp(x) for x in a[1:]), ns.exp(a[0])), 20)
    assert sums.n_float <= 2


def test_booleans_have_registers_of_their_own():
    program = trace(lambda ns, x, y: ns.where((x > y) & ~(x < 0.0), x + y, x - y), 2)
    assert program.n_bool >= 1
    for i in program.instructions:
        assert (i.target[0] == "breg") == i.is_bool


def test_no_register_is_read_before_it_is_written():
    for name in NAMES:
        f = get_activation(name)
        formulas = [(f.value, 1, 1), (f.with_bias, 2, 1), (f.with_bias_keeping_input, 2, 2)]
        if f.slope is not None:
            formulas.append((f.backward, 2, 1))
        for fn, n, n_out in formulas:
            for alias in (None, (0,)):
                program = trace(fn, n, (alias, *(None,) * (n_out - 1)))
                written: set = set()
                for i in program.instructions:
                    reads = [r for r in i.operands if r[0] in ("reg", "breg", "out")]
                    assert set(reads) <= written, f"{name}:\n{program}"
                    written.add(i.target)
                assert {("out", k) for k in range(n_out)} <= written


# --- refusals ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "fn",
    [
        lambda ns, x: x if x > 0.0 else -x,
        lambda ns, x: x + 1.0 if x == 0.0 else x,
        lambda ns, x: x > 0.0 and x < 1.0,
        lambda ns, x: not x,
        lambda ns, x: max(x, 0.0),
    ],
)
def test_branching_on_values_is_refused(fn):
    with pytest.raises(TypeError, match=r"must not branch on array values; use ns\.where"):
        trace(fn, 1)


@pytest.mark.parametrize("name", ["sinh", "sum", "mean", "clip", "sigmoid", "matmul", "_private", "float32"])
def test_unknown_functions_are_refused(name):
    with pytest.raises(AttributeError, match=f"{name!r} is not part of the elementwise vocabulary"):
        trace(lambda ns, x: getattr(ns, name)(x), 1)


@pytest.mark.parametrize(
    "fn", [lambda ns, x: x % 2.0, lambda ns, x: x // 2.0, lambda ns, x: abs(x), lambda ns, x: x[0]]
)
def test_unknown_operators_are_refused(fn):
    with pytest.raises(TypeError):
        trace(fn, 1)


def test_wrong_number_of_outputs():
    with pytest.raises(TypeError, match="returned 2 arrays for 1 outputs"):
        trace(lambda ns, x: (x, x), 1)
    with pytest.raises(TypeError, match="returned 1 arrays for 2 outputs"):
        trace(lambda ns, x: x + 1.0, 1, (None, None))


def test_symbols_cannot_be_hashed():
    with pytest.raises(TypeError):
        trace(lambda ns, x: {x: 1}, 1)


# --- aliases ----------------------------------------------------------------------------------------
def test_swap_and_rotation_in_place():
    x, y, z = arrays(3)
    a, b, c = x.copy(), y.copy(), z.copy()
    run(lambda ns, p, q: (q, p), a, b, out=(a, b))
    assert np.array_equal(a, y)
    assert np.array_equal(b, x)
    run(lambda ns, p, q, r: (r, p, q), a, b, c, out=(a, b, c))
    assert np.array_equal(a, z)
    assert np.array_equal(b, y)
    assert np.array_equal(c, x)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_where_with_an_aliased_result(position):
    for fn in (
        lambda ns, x, y, z: ns.where(x > 0.0, y, z),
        lambda ns, x, y, z: ns.where(x > y, z, ns.where(y > z, x, y)),
        lambda ns, x, y, z: ns.where(x > 0.0, y, z) + x * y * z,
        lambda ns, x, y, z: ns.where(~(y > x), 1.0, z) * ns.where(z > x, x, 0.0),
    ):
        args = arrays(3)
        want = fn(np, *[a.copy() for a in args])
        run(fn, *args, out=args[position])
        np.testing.assert_array_equal(args[position], want)


def test_output_that_other_outputs_still_read():
    x, y = arrays(2)
    a, b = x.copy(), y.copy()
    run(lambda ns, p, q: (p + q, (p + q) * p), a, b, out=(a, b))
    np.testing.assert_array_equal(a, x + y)
    np.testing.assert_array_equal(b, (x + y) * x)


def test_one_value_for_two_outputs():
    (x,) = arrays(1)
    a, b, c = x.copy(), np.empty_like(x), np.empty_like(x)
    run(lambda ns, p: (ns.exp(p), ns.exp(p), p), a, out=(a, b, c))
    np.testing.assert_array_equal(a, np.exp(x))
    np.testing.assert_array_equal(b, np.exp(x))
    np.testing.assert_array_equal(c, x)


def test_a_number_as_result():
    x, y = arrays(2)
    run(lambda ns, p, q: (0.5, p + q), x, y, out=(x, y))
    assert (x == 0.5).all()


def test_views_of_one_buffer():
    whole = np.arange(24.0)
    left, right = whole[:12].reshape(3, 4), whole[12:].reshape(3, 4)
    want = left - right, left + right
    run(lambda ns, x, y: (x - y, x + y), left, right, out=(left, right))
    np.testing.assert_array_equal(left, want[0])
    np.testing.assert_array_equal(right, want[1])


def test_one_array_as_two_arguments():
    (x,) = arrays(1)
    a, b = x.copy(), np.empty_like(x)
    run(lambda ns, p, q: (p + 1.0, q * 2.0), a, a, out=(a, b))
    np.testing.assert_array_equal(a, x + 1.0)
    np.testing.assert_array_equal(b, x * 2.0)


def test_columns_of_one_buffer():
    """Pieces that interleave in memory without sharing any of it."""
    whole = np.random.default_rng(0).normal(size=(4, 10))
    left, right = whole[:, :5], whole[:, 5:]
    x, y = left.copy(), right.copy()
    run(lambda ns, p, q: (p + 1.0, q * 2.0), left, right, out=(right, left))
    np.testing.assert_array_equal(right, x + 1.0)
    np.testing.assert_array_equal(left, y * 2.0)
    left[...], right[...] = x, y
    run(lambda ns, p, q: ns.where(p > 0.0, p, q), left, right, out=right)
    np.testing.assert_array_equal(right, np.where(x > 0.0, x, y))
    np.testing.assert_array_equal(left, x)


# --- random formulas --------------------------------------------------------------------------------
_UNARY = {
    "neg": lambda ns, a: -a, "abs": lambda ns, a: ns.abs(a), "tanh": lambda ns, a: ns.tanh(a),
    "sin": lambda ns, a: ns.sin(a), "square": lambda ns, a: ns.square(ns.tanh(a)),
    "sign": lambda ns, a: ns.sign(a),
    "exp": lambda ns, a: ns.exp(-ns.abs(a)), "log1p": lambda ns, a: ns.log1p(ns.abs(a)),
    "sqrt": lambda ns, a: ns.sqrt(ns.abs(a)), "floor": lambda ns, a: ns.floor(a),
}  # fmt: skip
_BINARY = {
    "add": lambda ns, a, b: a + b, "sub": lambda ns, a, b: a - b, "mul": lambda ns, a, b: ns.tanh(a) * b,
    "div": lambda ns, a, b: a / (1.0 + ns.abs(b)), "max": lambda ns, a, b: ns.maximum(a, b),
    "min": lambda ns, a, b: ns.minimum(a, b),
}  # fmt: skip
_CONDITIONS = {
    "lt": lambda ns, a, b: a < b, "ge": lambda ns, a, b: a >= b, "ne": lambda ns, a, b: a != b,
    "and": lambda ns, a, b: (a > 0.0) & (b <= a), "or": lambda ns, a, b: (a > b) | ~(b > 0.5),
}  # fmt: skip
N_ARGS = 4

# An expression is a list of steps; each takes earlier values by number, so that parts are shared and die at
# different times. ("const", c) puts a number in.
_step = st.one_of(
    st.tuples(st.sampled_from(sorted(_UNARY)), st.integers(0, 99)),
    st.tuples(st.sampled_from(sorted(_BINARY)), st.integers(0, 99), st.integers(0, 99)),
    st.tuples(st.just("scale"), st.integers(0, 99), st.sampled_from([0.0, -0.0, 1.0, 0.5, -2.0, 3])),
    st.tuples(st.just("rscale"), st.integers(0, 99), st.sampled_from([0.0, 1.0, -1.5])),
    st.tuples(
        st.just("where"), st.sampled_from(sorted(_CONDITIONS)), *(st.integers(0, 99) for _ in range(4))
    ),
    st.tuples(
        st.just("where1"), st.sampled_from(sorted(_CONDITIONS)), *(st.integers(0, 99) for _ in range(3)),
        st.sampled_from([0.0, 1.0, -0.25]),
    ),
)  # fmt: skip


def build(steps: list[tuple], results: list[int]) -> Any:
    def fn(ns: Any, *args: Any) -> Any:
        v = list(args)
        for kind, *rest in steps:
            at = [v[i % len(v)] for i in rest if isinstance(i, int)]
            if kind in _UNARY:
                v.append(_UNARY[kind](ns, at[0]))
            elif kind in _BINARY:
                v.append(_BINARY[kind](ns, at[0], at[1]))
            elif kind == "scale":
                v.append(at[0] * rest[1])
            elif kind == "rscale":
                v.append(rest[1] - at[0])
            elif kind == "where":
                v.append(ns.where(_CONDITIONS[rest[0]](ns, at[0], at[1]), at[2], at[3]))
            else:
                v.append(ns.where(_CONDITIONS[rest[0]](ns, at[0], at[1]), at[2], rest[-1]))
        chosen = tuple(v[-1 - i % len(v)] for i in results)
        return chosen if len(chosen) > 1 else chosen[0]

    return fn


def check(fn: Any, alias: list[int | None], args: list[np.ndarray], shape: tuple[int, ...]) -> None:
    want = fn(np, *[a.copy() for a in args])
    want = [np.broadcast_to(w, shape).copy() for w in (want if isinstance(want, tuple) else (want,))]
    inputs = [a.copy() for a in args]
    outs = tuple(inputs[a] if a is not None else np.full(shape, np.nan, args[0].dtype) for a in alias)
    CpuBackend().map(fn, *inputs, out=outs if len(outs) > 1 else outs[0])
    for k, (o, w) in enumerate(zip(outs, want, strict=True)):
        shared = tuple(None if a is None else (a,) for a in alias)
        np.testing.assert_array_equal(o, w, err_msg=f"output {k} of\n{trace(fn, len(args), shared)}")
    for i, (now, before) in enumerate(zip(inputs, args, strict=True)):
        if i not in alias:
            np.testing.assert_array_equal(now, before, err_msg=f"input {i}")


@st.composite
def aliases(draw: Any, n: int) -> list[int | None]:
    """For each output an argument of its own, or none."""
    order = draw(st.permutations(range(N_ARGS)))
    return [order[k] if draw(st.booleans()) else None for k in range(n)]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(data=st.data(), steps=st.lists(_step, min_size=1, max_size=14), n_out=st.integers(1, 3))
def test_random_formulas(data, steps, n_out):
    results = data.draw(st.lists(st.integers(0, 4), min_size=n_out, max_size=n_out))
    check(build(steps, results), data.draw(aliases(n_out)), arrays(N_ARGS), (3, 4))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), steps=st.lists(_step, min_size=1, max_size=10), n_out=st.integers(1, 2))
def test_random_formulas_in_blocks(data, steps, n_out):
    """Cut into blocks, a formula gives the very numbers that it gives in one piece."""
    results = data.draw(st.lists(st.integers(0, 4), min_size=n_out, max_size=n_out))
    fn = build(steps, results)
    shape = data.draw(st.sampled_from([(41,), (7, 9), (2, 50), (3, 5, 6), (2, 3, 40), (1, 70), (5, 1, 30)]))
    row = (*shape[:-2], 1, shape[-1])[-len(shape) :]
    lower = [(1,) * len(shape), shape[-1:], row, (*shape[:-1], 1)]
    args = [np.random.default_rng(9).normal(size=shape)]
    for i in range(N_ARGS - 1):
        args.append(np.random.default_rng(i).normal(size=data.draw(st.sampled_from([shape, *lower]))))
    alias = data.draw(aliases(n_out))
    alias = [a if a is not None and args[a].shape == shape else None for a in alias]
    block = data.draw(st.sampled_from([1, 4, 16, 33]))
    before, cpu.BLOCK = cpu.BLOCK, block
    try:
        check(fn, alias, args, shape)
    finally:
        cpu.BLOCK = before


@pytest.mark.parametrize("name", [n for n in NAMES if n != "step"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_as_programs(name, dtype):
    from xpnet.backend.reference import ReferenceBackend

    f = get_activation(name)
    z, b, dy = (a.astype(dtype) for a in arrays(3))
    reference = ReferenceBackend(np)
    for fn, args in ((f.value, (z,)), (f.with_bias, (z, b)), (f.backward, (dy, z))):
        want = reference.map(fn, *args, out=np.empty((3, 4), dtype))
        got = run(fn, *args, out=np.empty((3, 4), dtype))
        np.testing.assert_allclose(got, want, rtol=0, atol=np.finfo(dtype).eps * 8)


# --- keeping programs -------------------------------------------------------------------------------
def test_a_formula_is_traced_once_per_use():
    seen = []

    def fn(ns, x, y):
        seen.append(ns)
        return x + y

    be, (x, y) = CpuBackend(), arrays(2)
    for _ in range(3):
        be.map(fn, x, y, out=np.empty_like(x))
    assert len(seen) == 1
    be.map(fn, x, y, out=x)  # another alias is another program
    be.map(fn, x, y, out=y)
    assert len(seen) == 3


def test_formulas_are_not_kept_alive():
    import gc
    import weakref

    be, (x,) = CpuBackend(), arrays(1)

    def fn(ns, x):
        return x + 1.0

    be.map(fn, x, out=x)
    gone = weakref.ref(fn)
    del fn
    gc.collect()
    assert gone() is None


def test_a_program_is_immutable():
    program = trace(lambda ns, x: x + 1.0, 1)
    assert isinstance(program, Program)
    with pytest.raises(AttributeError):
        program.n_args = 2  # type: ignore[misc]
