"""ONNX files: the whole way from raw samples to labels and probabilities, for any runtime.

Standard operators only (opset 18 of the default domain), a free batch axis, no external data.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np

from ..errors import ConfigError, missing_package
from ..layers import Dense, Dropout, InputNoise, Maxout, PReLU
from ..mlp import DTYPES, MLP
from ..mlp.answers import LEAST
from ..storage.atomic import write_bytes_atomic
from .onnx_graph import Graph
from .weights import bare_model, class_names, is_estimator, target_units

#: Version of the ONNX operators, and of the file format: those of ONNX 1.13 (2022), which every runtime in use reads.
OPSET, IR_VERSION = 18, 8
INPUT_TYPES = ("float32", "float64", "uint8")
_LARGEST = 2**31 - 2**20  # bytes; a protobuf message ends at 2 GiB


def to_onnx(source: Any, path: str | PathLike[str] | None = None, *, input_dtype: str | None = None) -> bytes:
    """Write a model or a fitted estimator as an ONNX file that takes raw samples.

    Pixels are divided, features scaled, outliers compressed and targets scaled back inside the file. Dropout and noise
    have no part in it.

    Parameters
    ----------
    source : MLP, MLPClassifier or MLPRegressor
    path : path, optional
        The file to write, whole or not at all; nothing is written where omitted.
    input_dtype : {"float32", "float64", "uint8"}, optional
        Of the samples that the file takes; by default that of the weights. Features are scaled in float64 whatever it
        is, as an estimator does; float64 matters where features have many digits before they are scaled.

    Returns
    -------
    bytes
        What was written. Its input is "input" (B, *sample_shape), B free. A model that reads a table has an input
        (B, 1) for each column instead, named like it: float64 for numbers, booleans (0, 1) and dates (days since
        1970-01-01), NaN where missing; text for categories, "" where missing. A category that training never saw has
        no feature, as with ``xpnet predict --unknown missing``. Its outputs are

        - classes: "label" (B,), text or numbers as `predict` gives them, and "probabilities" (B, C); after the hinge
          loss "scores" (B, O) instead;
        - multi-label: "label" (B, O) of 0 and 1, and "probabilities" (B, O);
        - regression: "prediction" (B, O), or (B,) from an estimator that was fitted to one-dimensional y;
        - a model that was never trained: "outputs" (B, O).

    Raises
    ------
    ConfigError
        It cannot be exported: a population, labels that are neither text nor numbers, more than 2 GiB of weights; or
        `input_dtype` is none of the above.
    XpnetError
        The package `onnx` is not installed.

    Notes
    -----
    Arithmetic is that of the model's dtype. GELU in a float64 model is the exception: onnxruntime has the error
    function in float32 only, so that one function is taken in float32.

    Examples
    --------
    >>> len(to_onnx(MLP([3, 4, 2], activation="tanh"))) > 0
    True
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_package("writing ONNX files needs the package onnx", "onnx", error) from error
    model = bare_model(source)
    if model.dtype not in DTYPES:
        raise ConfigError(f"only float32 and float64 models can be exported, this one is {model.dtype}")
    if model.n_parameters * np.dtype(model.dtype).itemsize > _LARGEST:
        raise ConfigError(
            f"the model has {model.n_parameters:,} parameters; an ONNX file without external data ends at 2 GiB"
        )
    given = model.dtype if input_dtype is None else input_dtype
    if given not in INPUT_TYPES:
        raise ConfigError(f"input_dtype must be one of {', '.join(INPUT_TYPES)}, found {given!r}")
    graph = Graph(model.dtype)
    if model.tabular is not None:
        from .onnx_table import encoded

        if input_dtype is not None:
            raise ConfigError("input_dtype belongs to arrays; the columns of a table are float64 or text")
        rows = encoded(graph, model.tabular, model.dtype)
    else:
        recipe = model.preprocessing
        shape = recipe.sample_shape if recipe is not None and not is_estimator(source) else (model.sizes[0],)
        rows = _prepared(graph, source, model, graph.input("input", given, ("B", *shape)), given)
    h = _network(graph, model, rows)
    _answers(graph, source, model, h)
    made = graph.model(opset=OPSET, ir_version=IR_VERSION, facts=_facts(model))
    onnx.checker.check_model(made)
    data: bytes = made.SerializeToString()
    if path is not None:
        write_bytes_atomic(path, data)
    return data


def _facts(model: MLP) -> dict[str, str]:
    return {
        "task": model.task or "untrained", "loss": model.loss or "", "dtype": model.dtype,
        "sizes": "-".join(map(str, model.sizes)),
    }  # fmt: skip


# --- from raw samples to rows -----------------------------------------------------------------------
def _prepared(graph: Graph, source: Any, model: MLP, x: str, given: str) -> str:
    if is_estimator(source):
        return _standardized(graph, source.scaler_, model.dtype, x)
    recipe = model.preprocessing
    if recipe is None:
        return graph.cast(x, model.dtype) if given != model.dtype else x
    work = model.dtype if recipe.keeps(np.empty(0, given)) else "float64"
    rows = graph.cast(x, work) if given != work else x
    if len(recipe.sample_shape) > 1:
        rows = graph.op("Reshape", rows, graph.constant([-1, recipe.n_features], "int64"))
    rows = graph.op("Mul", rows, graph.constant(recipe.scale, work))
    rows = graph.op("Add", rows, graph.constant(recipe.shift, work))
    return graph.cast(rows, model.dtype) if work != model.dtype else rows


def _standardized(graph: Graph, scaler: Any, dtype: str, x: str) -> str:
    """What `xpnet.estimators.rows.scaled` does, in float64 like it."""
    from ..estimators.rows import largest_input

    if scaler is None:
        return graph.cast(x, dtype)
    z = graph.standardized(graph.cast(x, "float64"), scaler.mean_, scaler.scale_, scaler.tails_)
    limit = largest_input(dtype)
    low, high = graph.constant(-limit, "float64"), graph.constant(limit, "float64")
    return graph.cast(graph.op("Clip", z, low, high), dtype)


# --- the network ------------------------------------------------------------------------------------
def _network(graph: Graph, model: MLP, h: str) -> str:
    weights = model.get_weights()
    for i, layer in enumerate(model.layers):
        if type(layer) in (Dropout, InputNoise):
            continue
        own = {
            s.name: graph.constant(weights[f"layers.{i}.{s.name}"], model.dtype, name=f"layers.{i}.{s.name}")
            for s in layer.specs()
        }
        if type(layer) is Dense:
            z = graph.op("Gemm", h, own["weight"], own["bias"], transB=1)
            h = graph.activation(layer.activation, z)
        elif type(layer) is PReLU:
            h = graph.op("PRelu", h, own["slope"])
        elif type(layer) is Maxout:
            z = graph.op("Gemm", h, own["weight"], own["bias"], transB=1)
            pieces = graph.op("Reshape", z, graph.constant([-1, layer.pieces, layer.n_out], "int64"))
            h = graph.op("ReduceMax", pieces, graph.constant([1], "int64"), keepdims=0)
        else:
            raise ConfigError(f"a layer of type {type(layer).__name__} cannot be exported to ONNX")
    return h


# --- from outputs to answers ------------------------------------------------------------------------
def _answers(graph: Graph, source: Any, model: MLP, h: str) -> None:
    width = model.sizes[-1]
    if model.task is None:
        graph.output("outputs", h, model.dtype, ("B", width))
    elif model.task == "regression":
        _prediction(graph, source, model, h)
    else:
        _label(graph, source, model, h)
        _probabilities(graph, model, h)


def _prediction(graph: Graph, source: Any, model: MLP, h: str) -> None:
    shape: tuple[Any, ...] = ("B", model.sizes[-1])
    units, dtype = target_units(source), model.dtype
    if model.loss_function().link == "exp":
        h = graph.op("Exp", h)
    if units is not None:
        dtype = "float64"
        h = graph.op("Mul", graph.cast(h, dtype), graph.constant(units.scale, dtype))
        h = graph.op("Add", h, graph.constant(units.mean, dtype))
    if is_estimator(source) and source._flat:
        h, shape = graph.op("Reshape", h, graph.constant([-1], "int64")), ("B",)
    graph.output("prediction", h, dtype, shape)


def _label(graph: Graph, source: Any, model: MLP, h: str) -> None:
    width, limit = model.sizes[-1], graph.constant(model.loss_function().threshold)
    if model.task == "multilabel":
        chosen = graph.cast(graph.op("Greater", h, limit), "int64")
        graph.output("label", chosen, "int64", ("B", width))
        return
    if width == 1:
        first = graph.op("Reshape", graph.op("Greater", h, limit), graph.constant([-1], "int64"))
        index = graph.cast(first, "int64")
    else:
        index = graph.op("ArgMax", h, axis=-1, keepdims=0)
    names = np.asarray(class_names(source, model))
    if names.dtype.kind == "O" and all(isinstance(name, str) for name in names):
        names = names.astype(str)
    if names.dtype.kind in "iu":
        names = names.astype(np.int64)
    if names.dtype.kind not in "UTifb":
        raise ConfigError(
            f"classes are {names.dtype} ({names[0]!r}, ...), which ONNX cannot hold; fit with text or numbers as labels"
        )
    kind = "string" if names.dtype.kind in "UT" else str(names.dtype)
    graph.output("label", graph.op("Gather", graph.constant(names, kind), index), kind, ("B",))


def _probabilities(graph: Graph, model: MLP, h: str) -> None:
    link, width, one = model.loss_function().link, model.sizes[-1], graph.constant(1.0)
    if link is None:
        graph.output("scores", h, model.dtype, ("B", width))
        return
    if link == "softmax":
        p = graph.op("Softmax", h, axis=-1)
    elif link == "sigmoid":
        p = graph.op("Sigmoid", h)
    else:
        p = graph.op("Clip", h, graph.constant(0.0), one)
    if model.task == "classification" and width == 1:
        p, width = graph.op("Concat", graph.op("Sub", one, p), p, axis=-1), 2
    elif model.task == "classification" and link != "softmax":
        total = graph.op("ReduceSum", p, graph.constant([-1], "int64"), keepdims=1)
        some = graph.op("Greater", total, graph.constant(0.0))
        share = graph.op("Div", p, graph.op("Where", some, total, one))
        p = graph.op("Where", some, share, graph.constant(1.0 / width))
    if model.unsmoothing is not None:
        s, even = model.unsmoothing, model.unsmoothing / width
        q = graph.op("Div", graph.op("Sub", p, graph.constant(even)), graph.constant(1.0 - s))
        q = graph.op("Max", q, graph.constant(LEAST * even))
        p = graph.op("Div", q, graph.op("ReduceSum", q, graph.constant([-1], "int64"), keepdims=1))
    graph.output("probabilities", p, model.dtype, ("B", width))
