"""Turn an elementwise function into a short list of instructions.

Activations, losses and optimizers are written once, as formulas (`Backend.map`). A back end that wants more
than plain evaluation traces the formula here, once, and gets a `Program`: straight-line code over scratch
registers, which `cpu.py` runs block by block through NumPy's ``out=`` and a device can turn into a kernel.

>>> program = trace(lambda ns, x, y: ns.maximum(x + y, 0.0) * 2.0, 2)
>>> print(program)
r0 = add(a0, a1)
r0 = maximum(r0, 0.0)
out0 = multiply(r0, 2.0)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

COMPARISONS = frozenset({"less", "less_equal", "greater", "greater_equal", "equal", "not_equal"})
LOGICAL = frozenset({"logical_and", "logical_or", "logical_not"})
UNARY = frozenset(
    [
        "abs",
        "exp",
        "expm1",
        "log",
        "log1p",
        "sqrt",
        "square",
        "tanh",
        "sin",
        "cos",
        "floor",
        "erf",
        "sign",
        "negative",
        "positive",
        "logical_not",
    ]
)
BINARY = (
    frozenset(
        ["add", "subtract", "multiply", "divide", "pow", "maximum", "minimum", "logical_and", "logical_or"]
    )
    | COMPARISONS
)

Alias = tuple[int, ...] | None  # the arguments that share the memory of an output
Ref = tuple[str, Any]  # ("arg", i), ("const", number) or ("reg", i)


@dataclass(frozen=True)
class Instruction:
    """`target = op(*operands)`; a boolean target lives in a register bank of its own."""

    op: str
    operands: tuple[Ref, ...]
    target: Ref
    is_bool: bool


@dataclass(frozen=True)
class Program:
    """Straight-line code. `n_float` and `n_bool` count the scratch registers it needs."""

    instructions: tuple[Instruction, ...]
    n_args: int
    n_out: int
    n_float: int
    n_bool: int

    def __str__(self) -> str:
        short = {"arg": "a", "reg": "r", "breg": "b", "out": "out"}

        def show(ref: Ref) -> str:
            return repr(ref[1]) if ref[0] == "const" else f"{short[ref[0]]}{ref[1]}"

        return "\n".join(
            f"{show(i.target)} = {i.op}({', '.join(show(r) for r in i.operands)})" for i in self.instructions
        )


@dataclass(frozen=True, eq=False)
class _Node:
    """A value of the traced function: an operation on other values, an argument or a constant."""

    op: str
    operands: tuple[_Node, ...] = ()
    value: Any = None

    @property
    def is_bool(self) -> bool:
        return self.op in COMPARISONS or self.op in LOGICAL


class _Symbol:
    """What the traced function holds in its hands: operators on it add nodes to the tracer."""

    __slots__ = ("node", "tracer")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tracer: _Tracer, node: _Node):
        self.tracer, self.node = tracer, node

    def __bool__(self) -> bool:
        raise TypeError("a function given to Backend.map must not branch on array values; use ns.where")

    def __neg__(self) -> _Symbol:
        return self.tracer.apply("negative", self)

    def __invert__(self) -> _Symbol:
        return self.tracer.apply("logical_not", self)


_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "pow": "pow",
    "and": "logical_and", "or": "logical_or", "lt": "less", "le": "less_equal", "gt": "greater",
    "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}  # fmt: skip
for _python, _op in _OPERATORS.items():
    setattr(_Symbol, f"__{_python}__", lambda a, b, op=_op: a.tracer.apply(op, a, b))
    if _op not in COMPARISONS:
        setattr(_Symbol, f"__r{_python}__", lambda a, b, op=_op: a.tracer.apply(op, b, a))


class _Tracer:
    """The namespace a function sees while it is traced; equal expressions become one node."""

    def __init__(self) -> None:
        self.order: list[_Node] = []
        self._known: dict[tuple, _Node] = {}

    def __getattr__(self, op: str) -> Callable[..., _Symbol]:
        if op not in UNARY and op not in BINARY and op != "where":
            raise AttributeError(f"{op!r} is not part of the elementwise vocabulary of Backend.map")
        return lambda *operands: self.apply(op, *operands)

    def apply(self, op: str, *operands: Any) -> _Symbol:
        return _Symbol(self, self._intern(op, tuple(self.node(o) for o in operands)))

    def argument(self, index: int) -> _Symbol:
        return _Symbol(self, self._intern("arg", (), index))

    def node(self, value: Any) -> _Node:
        return value.node if isinstance(value, _Symbol) else self._intern("const", (), value)

    def _intern(self, op: str, operands: tuple[_Node, ...], value: Any = None) -> _Node:
        # repr tells 0.0 from -0.0, which compare equal
        key = (op, tuple(id(o) for o in operands), repr(value))
        if key not in self._known:
            self._known[key] = _Node(op, operands, value)
            self.order.append(self._known[key])
        return self._known[key]


def trace(fn: Callable[..., Any], n_args: int, alias: tuple[Alias, ...] = (None,)) -> Program:
    """Record what `fn(ns, *args)` does with `n_args` arrays.

    Parameters
    ----------
    fn : callable
        An elementwise function as `Backend.map` takes it.
    n_args : int
        How many arrays it takes.
    alias : tuple of (int, tuple of int or None), default (None,)
        One entry per output: the argument or arguments that share its memory, if any. An output is written
        directly only where no later instruction still reads one of them.
    """
    tracer = _Tracer()
    arguments = [tracer.argument(i) for i in range(n_args)]
    result = fn(tracer, *arguments)
    results = result if isinstance(result, tuple) else (result,)
    # an argument handed back unchanged goes through a register, lest another output overwrite it first
    outputs = [
        tracer.node(tracer.apply("positive", r)) if _is_argument(r) else tracer.node(r) for r in results
    ]
    if len(outputs) != len(alias):
        raise TypeError(f"the function returned {len(outputs)} arrays for {len(alias)} outputs")
    return _allocate(tracer, outputs, n_args, alias)


def _is_argument(result: Any) -> bool:
    return isinstance(result, _Symbol) and result.node.op == "arg"


def _reachable(outputs: list[_Node]) -> set[_Node]:
    seen: set[_Node] = set()
    todo = list(outputs)
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo.extend(node.operands)
    return seen


def _allocate(tracer: _Tracer, outputs: list[_Node], n_args: int, alias: tuple[Alias, ...]) -> Program:
    live = _reachable(outputs)
    computed = [n for n in tracer.order if n in live and n.op not in ("arg", "const")]
    last_use = {o: i for i, n in enumerate(computed) for o in n.operands}
    last_use_of_arg = {o.value: i for o, i in last_use.items() if o.op == "arg"}
    place: dict[_Node, Ref] = {}
    for node in live:
        if node.op in ("arg", "const"):
            place[node] = (node.op, node.value)
    direct: dict[_Node, int] = {}
    for k, node in enumerate(outputs):
        if node.op in ("arg", "const") or node in direct or node.is_bool:
            continue
        born = computed.index(node)
        # The argument behind this output, and any output that is itself read later, must not be clobbered.
        if all(last_use_of_arg.get(i, -1) <= born for i in alias[k] or ()):
            direct[node] = k
    free: dict[bool, list[int]] = {False: [], True: []}
    count = {False: 0, True: 0}
    instructions: list[Instruction] = []
    for i, node in enumerate(computed):
        operands = tuple(place[o] for o in node.operands)
        bank = node.is_bool
        if node in direct:
            target: Ref = ("out", direct[node])
        else:
            # `where` writes its target before it has read everything, so it gets a fresh register.
            if node.op != "where":
                _release(node, i, last_use, place, free, outputs)
            index = free[bank].pop() if free[bank] else count[bank]
            count[bank] = max(count[bank], index + 1)
            target = ("breg" if bank else "reg", index)
        place[node] = target
        instructions.append(Instruction(node.op, operands, target, bank))
        if node in direct or node.op == "where":
            _release(node, i, last_use, place, free, outputs)
    for k, node in enumerate(outputs):
        if direct.get(node) != k:
            instructions.append(Instruction("copy", (place[node],), ("out", k), False))
    return Program(tuple(instructions), n_args, len(outputs), count[False], count[True])


def _release(
    node: _Node, now: int, last_use: dict[_Node, int], place: dict[_Node, Ref],
    free: dict[bool, list[int]], outputs: list[_Node],
) -> None:  # fmt: skip
    for operand in dict.fromkeys(node.operands):
        kind, index = place[operand]
        if kind in ("reg", "breg") and last_use[operand] == now and operand not in outputs:
            free[kind == "breg"].append(index)
