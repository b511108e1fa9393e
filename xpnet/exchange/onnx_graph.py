"""A graph of ONNX operators in the making, and the elementwise formulas of xpnet as such operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..activations import Activation
from ..backend.program import trace

#: Activations that are one operator, with their usual parameters; every other is made of its formula's operations.
_SINGLE: dict[str, tuple[str, dict[str, float]]] = {
    "relu": ("Relu", {}),
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "softplus": ("Softplus", {}),
    "softsign": ("Softsign", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}),
    "elu": ("Elu", {}),
    "selu": ("Selu", {}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1.0 / 6.0, "beta": 0.5}),
    "hard_swish": ("HardSwish", {}),
}

#: The vocabulary of `Backend.map` where ONNX has the same operation.
_SAME = {
    "abs": "Abs", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh", "sin": "Sin", "cos": "Cos",
    "floor": "Floor", "sign": "Sign", "negative": "Neg", "positive": "Identity", "copy": "Identity",
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "pow": "Pow", "maximum": "Max",
    "minimum": "Min", "less": "Less", "less_equal": "LessOrEqual", "greater": "Greater",
    "greater_equal": "GreaterOrEqual", "equal": "Equal", "logical_and": "And", "logical_or": "Or",
    "logical_not": "Not", "where": "Where",
}  # fmt: skip


class Graph:
    """Collects operators; values are known by their names.

    Parameters
    ----------
    dtype : str
        Of constants, where nothing else is said.
    """

    def __init__(self, dtype: str):
        from onnx import TensorProto, helper, numpy_helper

        self._helper, self._numpy, self._types = helper, numpy_helper, TensorProto
        self.dtype = dtype
        self._nodes: list[Any] = []
        self._constants: dict[tuple[Any, ...], str] = {}
        self._tensors: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def _type(self, dtype: str) -> int:
        if dtype == "string":
            return int(self._types.STRING)
        return int(self._helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def input(self, name: str, dtype: str, shape: tuple[Any, ...]) -> str:
        """Declare an input; a text in `shape` names a free axis."""
        self._inputs.append(self._helper.make_tensor_value_info(name, self._type(dtype), shape))
        return name

    def output(self, name: str, value: str, dtype: str, shape: tuple[Any, ...]) -> None:
        """Give `value` out as `name`."""
        self._nodes.append(self._helper.make_node("Identity", [value], [name], name=f"give_{name}"))
        self._outputs.append(self._helper.make_tensor_value_info(name, self._type(dtype), shape))

    def constant(self, value: Any, dtype: str | None = None, *, name: str | None = None) -> str:
        """Return the name of a constant array; equal ones are stored once."""
        dtype = dtype or self.dtype
        array = np.asarray(value, dtype=object if dtype == "string" else dtype)
        key = (name, dtype, array.shape, repr(array.tolist()) if array.size <= 64 else len(self._tensors))
        if key not in self._constants:
            self._constants[key] = name or f"constant_{len(self._constants)}"
            if dtype == "string":
                texts: Any = [str(item).encode() for item in array]
                made = self._helper.make_tensor(self._constants[key], self._types.STRING, array.shape, texts)
            else:
                made = self._numpy.from_array(np.ascontiguousarray(array), self._constants[key])
                made.ClearField("dims")
                made.dims.extend(array.shape)  # a single number has no axis
            self._tensors.append(made)
        return self._constants[key]

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator and return the name of its result."""
        result = f"value_{len(self._nodes)}"
        node = self._helper.make_node(
            kind, list(inputs), [result], name=f"{kind}_{len(self._nodes)}", **attributes
        )
        self._nodes.append(node)
        return result

    def cast(self, value: str, dtype: str) -> str:
        """Convert to `dtype`."""
        return self.op("Cast", value, to=self._type(dtype))

    def standardized(self, x: str, mean: Any, scale: Any, tails: Any) -> str:
        """Scale features (B, I) in float64 as `xpnet.estimators.FeatureScaler` does, tails included."""
        from ..data.scaling import LIMIT

        def number(value: Any) -> str:
            return self.constant(value, "float64")

        z = self.op("Div", self.op("Sub", x, number(mean)), number(scale))
        if not np.any(tails):
            return z
        size = self.op("Min", self.op("Abs", z), number(np.finfo(np.float64).max))
        beyond = self.op("Max", self.op("Sub", size, number(LIMIT)), number(0.0))
        slow = self.op("Add", self.op("Log", self.op("Add", beyond, number(1.0))), number(LIMIT))
        slow = self.op("Mul", slow, self.op("Sign", z))
        far = self.op("And", self.op("Greater", size, number(LIMIT)), self.constant(tails, "bool"))
        return self.op("Where", far, slow, z)

    def activation(self, activation: Activation, z: str) -> str:
        """Apply an activation function."""
        if activation.is_identity:
            return z
        kind, attributes = _SINGLE.get(activation.name, ("", {}))
        # attributes are float32 in the file, and so are the constants inside Selu and HardSwish
        exact = self.dtype == "float32" or (not attributes and kind not in ("Selu", "HardSwish"))
        if kind and exact:
            return self.op(kind, z, **attributes)
        return self.formula(activation.value, z)

    def formula(self, fn: Callable[..., Any], *arguments: str) -> str:
        """Apply an elementwise formula as `Backend.map` takes it, operation by operation."""
        known: dict[tuple[str, Any], str] = {("arg", i): a for i, a in enumerate(arguments)}
        program = trace(fn, len(arguments))
        for step in program.instructions:
            operands = [
                self.constant(value) if kind == "const" else known[kind, value]
                for kind, value in step.operands
            ]
            known[step.target] = self._elementwise(step.op, operands)
        return known["out", 0]

    def _elementwise(self, op: str, operands: list[str]) -> str:
        x = operands[0]
        if op in _SAME:
            return self.op(_SAME[op], *operands)
        if op == "square":
            return self.op("Mul", x, x)
        if op == "not_equal":
            return self.op("Not", self.op("Equal", *operands))
        if op == "erf":  # onnxruntime has it in float32 only
            return (
                self.op("Erf", x)
                if self.dtype == "float32"
                else self.cast(self.op("Erf", self.cast(x, "float32")), self.dtype)
            )
        one = self.constant(1.0)
        if op == "log1p":  # x log(1 + x) / ((1 + x) - 1), where rounding cancels (Kahan); x where 1 + x is 1
            lifted = self.op("Add", x, one)
            step = self.op("Sub", lifted, one)
            tiny = self.op("Equal", step, self.constant(0.0))
            safe = self.op("Where", tiny, one, step)
            return self.op("Where", tiny, x, self.op("Mul", self.op("Log", lifted), self.op("Div", x, safe)))
        assert op == "expm1", op  # 2 t / (1 - t) with t = tanh(x / 2); e^x - 1 where that would cancel
        t = self.op("Tanh", self.op("Mul", x, self.constant(0.5)))
        small = self.op("Div", self.op("Add", t, t), self.op("Sub", one, t))
        large = self.op("Sub", self.op("Exp", x), one)
        return self.op("Where", self.op("Greater", x, one), large, small)

    def model(self, *, opset: int, ir_version: int, facts: Mapping[str, str]) -> Any:
        """Return the finished `onnx.ModelProto`, with `facts` as its metadata."""
        from .. import __version__

        used = {name for node in self._nodes for name in node.input}  # a runtime warns of what nobody reads
        kept = [tensor for tensor in self._tensors if tensor.name in used]
        graph = self._helper.make_graph(self._nodes, "xpnet", self._inputs, self._outputs, initializer=kept)
        domains = [self._helper.make_opsetid("ai.onnx.ml", 3)] if any(n.domain for n in self._nodes) else []
        made = self._helper.make_model(
            graph, opset_imports=[*domains, self._helper.make_opsetid("", opset)], ir_version=ir_version,
            producer_name="xpnet", producer_version=__version__,
        )  # fmt: skip
        self._helper.set_model_props(made, dict(facts))
        return made
