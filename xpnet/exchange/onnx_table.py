"""The columns of a table as inputs of an ONNX graph: what `xpnet.tabular.TabularPreprocessing` does, as operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tabular import TabularPreprocessing
from ..tabular.recipes import CategoryRecipe, NumberRecipe, spellings
from .onnx_graph import Graph

#: Names of outputs, which no input may have; a column of such a name gets "column " before it.
RESERVED = ("label", "probabilities", "scores", "prediction", "outputs")


def input_name(column: str) -> str:
    """The name of the input that takes a column."""
    return f"column {column}" if column in RESERVED else column


def encoded(graph: Graph, record: dict[str, Any], dtype: str) -> str:
    """Declare an input (B, 1) for each column and return the features (B, I) that the network takes."""
    recipes = TabularPreprocessing.from_metadata(record).recipes_
    parts = [
        part
        for recipe in recipes
        for part in (
            _number(graph, recipe, dtype)
            if isinstance(recipe, NumberRecipe)
            else [_category(graph, recipe, dtype)]
        )
    ]
    return graph.op("Concat", *parts, axis=1)


def _number(graph: Graph, recipe: NumberRecipe, dtype: str) -> list[str]:
    x = graph.input(input_name(recipe.name), "float64", ("B", 1))
    missing = graph.op("IsNaN", x)
    filled = graph.op("Where", missing, graph.constant(recipe.fill, "float64"), x)
    z = graph.standardized(filled, recipe.mean, recipe.scale, recipe.tail)
    features = [graph.cast(z, dtype)]
    if recipe.indicator:
        features.append(graph.cast(missing, dtype))
    return features


def _category(graph: Graph, recipe: CategoryRecipe, dtype: str) -> str:
    """One feature per category; the text "" is a missing value. A graph cannot refuse, so `rest` takes what is new."""
    x = graph.input(input_name(recipe.name), "string", ("B", 1))
    own = {category: k for k, category in enumerate(recipe.categories)}
    where = {other: k for c, k in reversed(own.items()) for other in spellings(c)} | own
    where[""] = len(own) + recipe.other if recipe.missing else -1
    position = graph.op(
        "LabelEncoder", x, domain="ai.onnx.ml", keys_strings=list(where),
        values_int64s=list(where.values()), default_int64=recipe.rest,
    )  # fmt: skip
    places = graph.constant(np.arange(len(recipe.features)), "int64")
    return graph.cast(graph.op("Equal", position, places), dtype)
