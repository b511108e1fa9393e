"""Checkpoint files: round trips, the bytes on disk, hashes of weights, what is refused before anything is written."""

from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tests.checkpoint_files import OWN, assert_same, file_bytes, parse
from xpnet import checkpoint
from xpnet.checkpoint import load_tensors, save_tensors, weights_sha256
from xpnet.errors import DataError
from xpnet.storage import atomic, strictjson
from xpnet.storage.atomic import write_json_atomic, write_text_atomic
from xpnet.storage.strictjson import dumps_json, loads_json

# The same examples on every run and on a slow machine; nothing is stored.
RELIABLE = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
DTYPES = [
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
]


# --- round trips ----------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 4), (2, 0, 3), (2, 3, 4)])
def test_round_trip(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    tensors = {"x": array, "other": np.arange(3, dtype=np.int8)}
    save_tensors(tmp_path / "a", tensors, {"k": [1, "two", None]})
    found, metadata = load_tensors(tmp_path / "a")
    assert_same(found, tensors)
    assert metadata == {"k": [1, "two", None]}
    assert found["x"].flags.owndata and found["x"].flags.writeable and found["x"].flags.c_contiguous
    assert isinstance(found["x"], np.ndarray)


@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda a: a[:, ::2],
        lambda a: a[::-1],
        lambda a: a.T,
        lambda a: a.astype(a.dtype.newbyteorder(">")),
        lambda a: np.broadcast_to(a[0], (4, 6)),
        lambda a: a[0, 0],
    ],
    ids=["fortran", "strided", "reversed", "transposed", "big-endian", "broadcast", "scalar"],
)
def test_any_memory_layout_gives_the_same_file(change: Callable[[np.ndarray], np.ndarray]) -> None:
    array = np.asarray(change(np.arange(24, dtype=np.float32).reshape(4, 6)))
    before = array.copy()
    plain = np.array(array.tolist(), dtype=np.float32)
    assert file_bytes({"a": array}, {}) == file_bytes({"a": plain}, {})
    assert weights_sha256({"a": array}) == weights_sha256({"a": plain})
    assert array.dtype == before.dtype and np.array_equal(array, before)


def test_equal_contents_give_equal_bytes_whatever_the_order() -> None:
    a, b = np.zeros(3), np.ones(2, np.uint8)
    one = file_bytes({"a": a, "b": b}, {"x": {"p": 1, "q": 2}, "y": 2})
    two = file_bytes({"b": b, "a": a}, {"y": 2, "x": {"q": 2, "p": 1}})
    assert one == two
    assert len(file_bytes({}, {})) % 8 == 0


@pytest.mark.parametrize("key", ['x"sha256', '"sha256":"' + "0" * 64 + '"', "\\", "__metadata__", ""])
def test_keys_that_look_like_the_checksum(key: str) -> None:
    metadata: dict[str, object] = {key: "0" * 64, "a": 0, "b": '"sha256":"' + "0" * 64 + '"'}
    assert parse(file_bytes({'x"sha256': np.ones(1)}, metadata))[1] == metadata


def test_empty_file_contents() -> None:
    assert parse(file_bytes({}, {})) == ({}, {})


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda s: s != "__metadata__")
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["NaN", "\\Infinity"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@RELIABLE
@given(
    st.dictionaries(names, arrays, max_size=4),
    st.dictionaries(names.filter(lambda s: s not in OWN), plain, max_size=3),
)
def test_round_trip_of_anything(tensors: dict[str, np.ndarray], metadata: dict[str, object]) -> None:
    data = file_bytes(tensors, metadata)
    found, found_metadata = parse(data)
    assert_same(found, tensors)
    assert repr(sorted_deep(found_metadata)) == repr(
        sorted_deep(metadata)
    )  # repr: NaN equals NaN, 1 is not True
    assert_same(dict(sorted(safetensors.numpy.load(data).items())), tensors)
    assert weights_sha256(found) == weights_sha256(tensors)


def sorted_deep(value: object) -> object:
    if isinstance(value, dict):
        return {key: sorted_deep(value[key]) for key in sorted(value)}
    return [sorted_deep(item) for item in value] if isinstance(value, list) else value


def test_the_official_library_opens_the_file_without_xpnet(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(7), "on": np.array([True])}
    save_tensors(path, tensors, {"sizes": [3, 2], "best": math.inf, "name": "Zoë"})
    code = """
import json, sys
from safetensors import safe_open
from safetensors.numpy import load_file
tensors = load_file(sys.argv[1])
assert tensors["w"].tolist() == [[0, 1, 2], [3, 4, 5]] and tensors["w"].dtype == "float32"
assert tensors["step"].shape == () and tensors["step"] == 7 and tensors["on"].tolist() == [True]
with safe_open(sys.argv[1], framework="np") as f:
    metadata = f.metadata()
    assert f.get_slice("w")[1:].tolist() == [[3, 4, 5]]
assert metadata["format"] == "xpnet" and metadata["format_version"] == "1" and len(metadata["sha256"]) == 64
assert json.loads(metadata["sizes"]) == [3, 2] and json.loads(metadata["best"]) == "Infinity"
assert json.loads(metadata["name"]) == "Zo\\u00eb" and "xpnet" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(path)], check=True, cwd=tmp_path)


def test_the_checksum_is_as_documented() -> None:
    data = file_bytes({"w": np.arange(5)}, {"k": 1})
    digest = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["sha256"].encode()
    assert hashlib.sha256(data.replace(digest, b"0" * 64)).hexdigest().encode() == digest


def test_bytes_of_a_known_file() -> None:
    """The format is frozen: files of every release must stay readable."""
    data = file_bytes({"b": np.array([1, 2], np.int8), "w": np.array([0.5], np.float32)}, {"epoch": 3})
    assert data == (
        b'\x00\x01\0\0\0\0\0\0{"__metadata__":{"format":"xpnet","format_version":"1","sha256":"'
        b"eeab222830f5040fa9df0deccc41773aeeeab32ae96b8497f8bf477be8d39f3f"
        b'","epoch":"3"},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"b":{"dtype":"I8","shape":[2],"data_offsets":[4,6]}}       \0\0\0\x3f\1\2'
    )


@pytest.mark.parametrize(
    ("module", "expected"),
    [(checkpoint, {"numpy"}), (strictjson, {"numpy"}), (atomic, set())],
)
def test_the_modules_cannot_unpickle(module: Any, expected: set[str]) -> None:
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                imported.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Name):
            assert node.id not in {"eval", "exec", "__import__", "compile"}
        elif isinstance(node, ast.Attribute):
            assert node.attr not in {"load", "loads"} or ast.unparse(node) == "json.loads"
    assert imported - set(sys.stdlib_module_names) == expected
    assert not imported & {"pickle", "marshal", "shelve", "dill", "importlib", "runpy"}


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, xpnet.checkpoint; print({'safetensors', 'sklearn', 'cupy'} & set(sys.modules))"
    root = str(Path(checkpoint.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)
    assert done.stdout == "set()\n"


# --- hash of weights ------------------------------------------------------------------------------
def test_weights_sha256_sees_everything() -> None:
    base = np.array([[1, 2], [3, 4]], np.int32)
    variants: list[dict[str, np.ndarray]] = [
        {"a": base},
        {"b": base},
        {"a": base.reshape(4)},
        {"a": base.reshape(4, 1)},
        {"a": base.astype(np.int64)},
        {"a": base.astype(np.uint32)},
        {"a": base.view(np.float32)},
        {"a": base + 1},
        {"a": base, "b": base[:0]},
        {"a": base[:1], "b": base[1:]},
        {"a": np.array([0.0])},
        {"a": np.array([-0.0])},
        {},
    ]
    assert len({weights_sha256(variant) for variant in variants}) == len(variants)
    assert weights_sha256({"a": base, "b": base[:1]}) == weights_sha256({"b": base[:1], "a": base})


def test_weights_sha256_is_as_documented() -> None:
    tensors = {"ü\n": np.array(2.5), "a": np.array([[1], [2]], np.int16), "Z": np.array([], np.float32)}
    total = hashlib.sha256(b'["Z","float32",[0]]\n')
    total.update(b'["a","int16",[2,1]]\n\1\0\2\0')
    total.update(b'["\\u00fc\\n","float64",[]]\n\0\0\0\0\0\0\x04\x40')
    assert weights_sha256(tensors) == total.hexdigest()


# --- refused input --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, complex),
        np.array(["a"]),
        np.array([None]),
        np.zeros(1, "M8[s]"),
        np.zeros(1, "V4"),
        np.zeros(1, [("a", "f4")]),
        np.ma.array([1.0], mask=[True]),
        [1.0, 2.0],
        3.0,
        None,
    ],
    ids=lambda a: f"{type(a).__name__}-{getattr(a, 'dtype', '')}",
)
def test_other_arrays_are_refused_before_anything_is_written(tmp_path: Path, array: object) -> None:
    with pytest.raises(DataError, match="tensor 'w'"):
        save_tensors(tmp_path / "a", {"w": array}, {})  # type: ignore[dict-item]
    with pytest.raises(DataError, match="tensor 'w'"):
        weights_sha256({"w": array})  # type: ignore[dict-item]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"__metadata__": np.zeros(1)}, {}, "cannot name a tensor"),
        ({3: np.zeros(1)}, {}, "cannot name a tensor"),
        ({"\ud800": np.zeros(1)}, {}, "not valid Unicode"),
        ({}, {"\ud800": 1}, "not valid Unicode"),
        ({}, {"sha256": "x"}, "cannot be a metadata key"),
        ({}, {"format": "x"}, "cannot be a metadata key"),
        ({}, {1: "x"}, "cannot be a metadata key"),
        ({}, {"a": {1: 2}}, "metadata 'a': a key must be a string"),
        ({}, {"a": {"b": [0, {1, 2}]}}, r"metadata 'a': \['b'\]\[1\] is a set"),
        ({}, {"a": b"x"}, "metadata 'a': the object is a bytes"),
        ({}, {"a": np.zeros(2)}, "metadata 'a': the object is a ndarray"),
    ],
)
def test_other_names_and_metadata_are_refused(tensors: dict, metadata: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        file_bytes(tensors, metadata)


def test_endless_metadata_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(DataError, match="metadata 'a'"):
        file_bytes({}, {"a": endless})


# --- JSON -----------------------------------------------------------------------------------------
@RELIABLE
@given(plain)
def test_json_round_trip(value: object) -> None:
    text = dumps_json(value)
    assert repr(loads_json(text)) == repr(value)
    json.loads(text, parse_constant=lambda name: pytest.fail(name))


def test_json_of_numpy_numbers_and_tuples() -> None:
    value = {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": (1, np.float64("-inf"))}
    assert dumps_json(value) == '{"a": 0.5, "b": 3, "c": true, "d": [1, "-Infinity"]}'


@pytest.mark.parametrize("text", ["NaN", "[1, Infinity]", '{"a": 1, "a": 2}', "", "{", "[" * 100_000])
def test_loads_json_is_strict(text: str) -> None:
    with pytest.raises(ValueError):
        loads_json(text)


def test_text_and_json_files(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "t", "ä\r\n")
    assert (tmp_path / "t").read_bytes() == "ä\r\n".encode()
    write_json_atomic(tmp_path / "j", {"b": math.nan, "a": [1]})
    assert (tmp_path / "j").read_text() == '{\n  "b": "NaN",\n  "a": [\n    1\n  ]\n}\n'
    with pytest.raises(DataError, match="not valid Unicode"):
        write_text_atomic(tmp_path / "t", "\ud800")
    with pytest.raises(DataError, match="is a object"):
        write_json_atomic(tmp_path / "j", object())
    assert (tmp_path / "t").read_bytes() == "ä\r\n".encode()
