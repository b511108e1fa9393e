"""Checkpoint files: round trips, damage, failing system calls and simulated power cuts."""

from __future__ import annotations

import ast
import errno
import hashlib
import io
import itertools
import json
import math
import os
import pickle
import random
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors import SafetensorError, safe_open

from xpnet import checkpoint
from xpnet.checkpoint import load_tensors, save_tensors, weights_sha256
from xpnet.errors import DataError, FileFormatError, FileWriteError, XpnetError
from xpnet.storage import atomic, strictjson
from xpnet.storage.atomic import write_bytes_atomic, write_json_atomic, write_text_atomic
from xpnet.storage.strictjson import dumps_json, loads_json

# The same examples on every run and on a slow machine; nothing is stored.
RELIABLE = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
DTYPES = [
    *("float16", "float32", "float64", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
]


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()  # bits, so NaN and -0.0 count


def parse(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    return checkpoint._deserialise(io.BytesIO(data), len(data), "file")


def file_bytes(tensors: dict[str, np.ndarray], metadata: dict[str, object]) -> bytes:
    return b"".join(bytes(part) for part in checkpoint._serialise(tensors, metadata))


def forge(header: dict[str, object] | bytes, body: bytes = b"") -> bytes:
    """Build a file with a right checksum around any header, as an attacker could."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text = len(text).to_bytes(8, "little") + text
    digest = hashlib.sha256(text + body).hexdigest().encode()
    return text.replace(b'"sha256":"' + b"0" * 64, b'"sha256":"' + digest) + body


OWN = {"format": "xpnet", "format_version": "1", "sha256": "0" * 64}


def entry(dtype: object, shape: object, begin: object, end: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


# ---------------------------------------------------------------------------------------------- round trips


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


# ------------------------------------------------------------------------------------------ hash of weights


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


# -------------------------------------------------------------------------------------------- refused input


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


# ----------------------------------------------------------------------------------------------------- JSON


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


# --------------------------------------------------------------------------------------------------- damage


def small() -> bytes:
    return file_bytes({"w": np.array([1.5, -2.0], np.float32), "on": np.array([True])}, {"epoch": 3})


def test_every_truncation_and_extension_is_refused(tmp_path: Path) -> None:
    data, path = small(), tmp_path / "a"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(FileFormatError, match=str(path)):
            load_tensors(path)
    for more in (b"\0", b" ", b"x" * 512, data):
        path.write_bytes(data + more)
        with pytest.raises(FileFormatError, match=str(path)):
            load_tensors(path)
    path.write_bytes(data)
    load_tensors(path)


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_a_flip_at_every_byte_is_refused(tmp_path: Path, mask: int) -> None:
    data, path = small(), tmp_path / "a"
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= mask
        path.write_bytes(damaged)
        with pytest.raises(FileFormatError):
            load_tensors(path)


def test_every_other_value_of_a_byte_is_refused() -> None:
    data = small()
    digest = data.index(b'"sha256":"') + 10
    version = data.index(b'"format_version":"1') + 18
    padding = data.index(b"}}") + 2
    assert data[padding : padding + 1] == b" "
    for position in (0, 1, 7, 8, 9, version, digest, digest + 63, padding, len(data) - 9, len(data) - 1):
        for value in set(range(256)) - {data[position]}:
            with pytest.raises(FileFormatError):
                parse(data[:position] + bytes([value]) + data[position + 1 :])


def test_swapped_and_repeated_sectors_are_refused() -> None:
    data = file_bytes({"w": np.arange(512, dtype=np.float64)}, {})
    sectors = [data[i : i + 512] for i in range(0, len(data), 512)]
    for i, j in itertools.permutations(range(len(sectors) - 1), 2):
        with pytest.raises(FileFormatError):
            parse(b"".join([*sectors[:i], sectors[j], *sectors[i + 1 :]]))


def w_file(meta: dict[str, object] | None = None, body: bytes = bytes(8), **tensors: object) -> bytes:
    return forge({"__metadata__": {**OWN, **(meta or {})}, **tensors}, body)


FORGED = {
    "hole at the start": w_file(w=entry("U8", [4], 4, 8)),
    "hole in the middle": w_file(a=entry("U8", [2], 0, 2), b=entry("U8", [4], 4, 8)),
    "overlap": w_file(a=entry("U8", [8], 0, 8), b=entry("U8", [4], 4, 8)),
    "rest at the end": w_file(a=entry("U8", [4], 0, 4)),
    "size does not fit the shape": w_file(w=entry("F32", [3], 0, 8)),
    "end before begin": w_file(w=entry("U8", [0], 8, 0)),
    "negative shape": w_file(w=entry("U8", [-2, -4], 0, 8)),
    "negative offset": w_file(w=entry("U8", [9], -1, 8)),
    "bool as a size": w_file(body=b"\0", w=entry("U8", [True], 0, 1)),
    "float as a size": w_file(w=entry("U8", [8.0], 0, 8)),
    "string as a size": w_file(w=entry("U8", ["8"], 0, 8)),
    "size beyond 64 bits": w_file(body=b"", w=entry("U8", [0, 2**64], 0, 0)),
    "empty but with huge sides": w_file(body=b"", w=entry("F64", [2**62, 2**62, 0], 0, 0)),
    "product that wraps": w_file(body=b"", w=entry("F64", [2**32, 2**32], 0, 0)),
    "too many sides": w_file(body=b"\0", w=entry("U8", [1] * 65, 0, 1)),
    "bomb": w_file(w=entry("U8", [2**40], 0, 2**40)),
    "offset with 4000 digits": w_file(w=entry("U8", [10**4000], 0, 10**4000)),
    "shape is no list": w_file(w=entry("U8", 8, 0, 8)),
    "three offsets": w_file(w={"dtype": "U8", "shape": [8], "data_offsets": [0, 4, 8]}),
    "offsets missing": w_file(body=b"", w={"dtype": "U8", "shape": [0]}),
    "unknown field": w_file(w={**entry("U8", [8], 0, 8), "class": "os.system"}),
    "tensor is no object": w_file(body=b"", w=3),
    "unknown dtype": w_file(w=entry("F128", [1], 0, 8)),
    "dtype that xpnet does not write": w_file(w=entry("BF16", [4], 0, 8)),
    "dtype is no string": w_file(w=entry(["U8"], [8], 0, 8)),
    "bool that is 2": w_file(body=b"\2", w=entry("BOOL", [1], 0, 1)),
    "metadata text is not JSON": w_file({"a": "{"}, b""),
    "metadata text with a bare NaN": w_file({"a": "NaN"}, b""),
    "metadata value is no string": w_file({"a": 1}, b""),
    "metadata nested too deeply": w_file({"a": "[" * 100_000}, b""),
    "metadata is a list": forge({"__metadata__": ["format", "xpnet"]}),
    "metadata is null": forge({"__metadata__": None}),
    "no checksum": forge({"__metadata__": {"format": "xpnet", "format_version": "1"}}),
    "short checksum": forge({"__metadata__": {**OWN, "sha256": "0" * 63}}),
    "checksum of other characters": forge({"__metadata__": {**OWN, "sha256": "é" * 64}}),
    "two places for the checksum": forge(
        json.dumps({"__metadata__": OWN, "x": OWN}, separators=(",", ":")).encode()
    ),
    "no version": forge({"__metadata__": {"format": "xpnet", "sha256": "0" * 64}}),
    "strange version": w_file({"format_version": "one"}, b""),
    "version is a number": w_file({"format_version": 1}, b""),
    "name twice": forge(
        b'{"__metadata__":' + json.dumps(OWN).encode().replace(b": ", b":") + b',"a":1,"a":1}'
    ),
    "bare NaN": forge(b'{"__metadata__":{},"a":NaN}'),
    "invalid UTF-8": forge(b'{"a\xff":1}'),
    "nested too deeply": forge(b'{"a":' + b"[" * 200_000),
    "list instead of an object": forge(b"[1,2,3]"),
    "header of no bytes": bytes(8),
    "header longer than the file": (1 << 60).to_bytes(8, "little") + b"{}",
    "header longer than allowed": (100_000_001).to_bytes(8, "little") + b"{}",
}


@pytest.mark.parametrize("name", FORGED)
def test_hostile_files_with_a_right_checksum_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").write_bytes(FORGED[name])
    with pytest.raises(FileFormatError) as caught:
        load_tensors(tmp_path / "a")
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_a_forged_file_that_breaks_no_rule_is_read() -> None:
    tensors, metadata = parse(w_file({"a": "[1]"}, w=entry("U8", [8], 0, 8)))
    assert tensors["w"].tolist() == [0] * 8 and metadata == {"a": [1]}


def test_what_is_accepted_the_official_library_accepts_too() -> None:
    """Random changes of the tensors' descriptions, each with a right checksum: never more lenient."""
    random_ = random.Random(0)
    values: list[object] = [
        0,
        1,
        2,
        4,
        8,
        -1,
        2**63,
        True,
        None,
        "8",
        [],
        "U8",
        "F32",
        "BOOL",
        "I64",
        [0, 8],
        [8],
    ]
    accepted = refused = 0
    for _ in range(3000):
        tensors: dict[str, dict[str, object]] = {
            "a": entry("F32", [1], 0, 4),
            "b": entry("U8", [2, 2], 4, 8),
            "c": entry("I64", [0], 8, 8),
        }
        for _ in range(random_.randint(0, 2)):
            field = random_.choice(["dtype", "shape", "data_offsets"])
            target = tensors[random_.choice("abc")]
            old = target[field]
            if isinstance(old, list) and old and random_.random() < 0.7:
                old[random_.randrange(len(old))] = random_.choice(values)
            else:
                target[field] = random_.choice(values)
        data = w_file(**tensors)
        try:
            found, _ = parse(data)
        except FileFormatError:
            refused += 1
            continue
        accepted += 1
        try:
            assert_same(found, safetensors.numpy.load(data))
        except SafetensorError as error:
            pytest.fail(f"{tensors}: {error}")
    assert accepted > 100 and refused > 100


# ---------------------------------------------------------------------------------------------- other files


def test_a_newer_version_says_so() -> None:
    with pytest.raises(FileFormatError, match=r"written by a newer xpnet \(format version 2;.*Update xpnet"):
        parse(w_file({"format_version": "2"}, b""))


def test_a_plain_safetensors_file_is_refused_with_advice(tmp_path: Path) -> None:
    for number, metadata in enumerate([None, {}, {"format": "pt"}]):
        path = tmp_path / str(number)
        safetensors.numpy.save_file({"w": np.zeros(3)}, path, metadata)
        with pytest.raises(FileFormatError, match=r"a safetensors file, but without the metadata that xpnet"):
            load_tensors(path)


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, w=np.zeros(3))
    return stream.getvalue()


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


def zipped(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, b"x" * 100)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (pickle.dumps({"w": 1}, 2), "a pickle; "),
        (pickle.dumps({"w": 1}, 4), "a pickle; .*never opens a pickle"),
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2), "PyTorch.*never opens a pickle"),
        (zipped("archive/data.pkl"), "PyTorch.*never opens a pickle"),
        (zipped("model/data.pkl"), "PyTorch"),
        (zipped("config.json"), "a zip archive"),
        (npz(), "a NumPy .npz archive"),
        (npy(), "a NumPy .npy file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (b"\x1f\x8b" + bytes(20), "a gzip file"),
        (b"", "an empty file"),
        (b"{}", "2 bytes and no valid safetensors header"),
        (b"a,b,c\n1,2,3\n4,5,6\n", "18 bytes and no valid safetensors header"),
        ((8).to_bytes(8, "little") + bytes(20), "does not begin with '{'"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path: Path, data: bytes, kind: str) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(FileFormatError, match=kind):
        load_tensors(tmp_path / "a")


def test_loading_what_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="no such file"):
        load_tensors(tmp_path / "missing")
    with pytest.raises(FileFormatError, match="is a folder"):
        load_tensors(tmp_path)
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(FileFormatError, match=r"no such file|could not be read"):
        load_tensors(tmp_path / "a" / "b")
    with pytest.raises(FileFormatError, match="could not be read"):
        load_tensors("a\0b")
    with pytest.raises(FileFormatError, match="could not be read"):
        load_tensors(tmp_path / ("x" * 5000))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_loading_or_replacing_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileFormatError, match="not an ordinary file"):
        load_tensors(tmp_path / "pipe")
    with pytest.raises(FileWriteError, match="not an ordinary file"):
        write_bytes_atomic(tmp_path / "pipe", b"x")


def test_a_file_that_changes_while_it_is_read() -> None:
    data = small()
    for size in (len(data) - 4, len(data) + 4):
        with pytest.raises(FileFormatError):
            checkpoint._deserialise(io.BytesIO(data), size, "file")
    longer = io.BytesIO(data + b"x")
    with pytest.raises(FileFormatError, match="changed while it was being read"):
        checkpoint._deserialise(longer, len(data), "file")


# -------------------------------------------------------------------------------------------------- writing


def test_writing_into_impossible_places(tmp_path: Path) -> None:
    with pytest.raises(FileWriteError, match=r"no file was written.*Create the folder first") as caught:
        write_bytes_atomic(tmp_path / "missing" / "a", b"x")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(FileWriteError, match="it is a folder"):
        write_bytes_atomic(tmp_path, b"x")
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileWriteError, match="could not write"):
        write_bytes_atomic(tmp_path / "file" / "a", b"x")
    with pytest.raises(FileWriteError, match="could not write"):
        write_bytes_atomic(tmp_path / ("x" * 5000), b"x")
    with pytest.raises(FileWriteError, match="could not write"):
        write_bytes_atomic("a\0b", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_long_name_still_gets_a_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 120)
    write_bytes_atomic(path, b"x")
    assert path.read_bytes() == b"x"


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX links and permissions")
def test_links_are_followed_and_permissions_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "file"
    target.write_bytes(b"old")
    target.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(target)
    write_bytes_atomic(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_relative_path_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_bytes_atomic("a", b"x")
    assert Path("a").read_bytes() == b"x"


class Faulty(atomic._Fs):
    """The real system calls, of which number `fail_at` goes wrong (counted from 0)."""

    def __init__(self, fail_at: int, error: BaseException) -> None:
        self.fail_at, self.error = fail_at, error
        self.calls: list[str] = []

    def _step(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) == self.fail_at + 1:
            raise self.error

    @property
    def failed(self) -> str | None:
        return self.calls[self.fail_at] if len(self.calls) > self.fail_at else None

    def mode(self, path: str) -> int | None:
        self._step("mode")
        return super().mode(path)

    def open_folder(self, path: str) -> int | None:
        self._step("open_folder")
        return super().open_folder(path)

    def create(self, path: str, mode: int) -> int:
        self._step("create")
        return super().create(path, mode)

    def write(self, fd: int, data: memoryview) -> int:
        self._step("write")
        return super().write(fd, data[:300])  # a short write each time

    def fsync(self, fd: int) -> None:
        self._step("fsync")
        super().fsync(fd)

    def close(self, fd: int) -> None:
        super().close(fd)  # a failing close has closed nevertheless
        self._step("close")

    def replace(self, source: str, target: str) -> None:
        self._step("replace")
        super().replace(source, target)

    def fsync_folder(self, fd: int) -> None:
        self._step("fsync_folder")
        super().fsync_folder(fd)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def generation(number: int) -> dict[str, np.ndarray]:
    return {"w": np.full(200, number, np.float32), "b": np.full(3, number, np.int64)}


@pytest.mark.parametrize("existed", [True, False])
@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EINTR, errno.EDQUOT]
)
def test_a_failure_of_any_system_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, existed: bool
) -> None:
    path = tmp_path / "a"
    seen = set()
    for fail_at in itertools.count():
        if existed:
            monkeypatch.undo()
            save_tensors(path, generation(1), {"generation": 1})
        else:
            path.unlink(missing_ok=True)
        fs = Faulty(fail_at, OSError(code, "injected"))
        monkeypatch.setattr(atomic, "_fs", fs)
        before = open_files()
        try:
            save_tensors(path, generation(2), {"generation": 2})
            assert load_tensors(path)[1] == {"generation": 2}
            if fs.failed is None:
                break
            # Only closing the folder, after everything is safe, may fail unnoticed.
            assert fs.failed == "close" and "fsync_folder" in fs.calls
        except FileWriteError as error:
            message = str(error)
            assert isinstance(error, XpnetError) and error.errno == code
            assert str(path) in message and os.strerror(code) in message
            if fs.failed == "fsync_folder":
                assert load_tensors(path)[1] == {"generation": 2}
                assert "new file is in place" in message
            elif existed:
                assert load_tensors(path)[1] == {"generation": 1}
                assert "unchanged" in message
            else:
                assert not path.exists()
                assert "no file was written" in message or fs.failed == "mode"
            assert "in place" in message or "fsync_folder" not in fs.calls
        assert fs.calls.count("fsync") <= 1  # never synced again after a failure
        assert open_files() == before
        assert [p.name for p in tmp_path.iterdir()] in (["a"], [])
        seen.add(fs.failed)
    assert seen == {"mode", "open_folder", "create", "write", "fsync", "close", "replace", "fsync_folder"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), SystemExit(1)], ids=repr)
def test_an_interruption_at_any_system_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "a"
    for fail_at in itertools.count():
        monkeypatch.undo()
        save_tensors(path, generation(1), {"generation": 1})
        fs = Faulty(fail_at, error)
        monkeypatch.setattr(atomic, "_fs", fs)
        try:
            save_tensors(path, generation(2), {"generation": 2})
        except type(error):
            pass
        generation_found = load_tensors(path)[1]["generation"]
        assert generation_found == (2 if fs.failed is None or "fsync_folder" in fs.calls else 1)
        assert [p.name for p in tmp_path.iterdir()] == ["a"]
        if fs.failed is None:
            break
    assert fail_at > 10


def test_a_write_that_makes_no_progress_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(atomic._Fs):
        def write(self, fd: int, data: memoryview) -> int:
            return 0

    monkeypatch.setattr(atomic, "_fs", Stuck())
    with pytest.raises(FileWriteError) as caught:
        write_bytes_atomic(tmp_path / "a", b"x")
    assert caught.value.errno == errno.EIO
    assert not list(tmp_path.iterdir())


def test_a_temporary_file_that_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stubborn(atomic._Fs):
        def write(self, fd: int, data: memoryview) -> int:
            raise OSError(errno.ENOSPC, "full")

        def unlink(self, path: str) -> None:
            raise OSError(errno.EIO, "stubborn")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(atomic, "_fs", Stubborn())
    with pytest.raises(FileWriteError, match=os.strerror(errno.ENOSPC)):
        write_bytes_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize(("code", "fine"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_file_systems_that_cannot_sync_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, fine: bool
) -> None:
    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(code, "injected")

    monkeypatch.setattr(os, "fsync", fsync)
    if fine:
        write_bytes_atomic(tmp_path / "a", b"x")
    else:
        with pytest.raises(FileWriteError, match="new file is in place"):
            write_bytes_atomic(tmp_path / "a", b"x")


# ----------------------------------------------------------------------------------------------- power cuts


class Disk(atomic._Fs):
    """A file system in memory that remembers every operation, for replaying power cuts.

    A power cut keeps what was synced. Of the rest it may keep anything: of each file a part of the unsynced
    sectors of 512 bytes (others zero, or old content), and of the folder any subset of the unsynced changes.
    """

    FOLDER = -2

    def __init__(self) -> None:
        self.log: list[tuple] = []
        self.files: list[str] = []

    def mode(self, path: str) -> int | None:
        return None

    def open_folder(self, path: str) -> int | None:
        return self.FOLDER

    def create(self, path: str, mode: int) -> int:
        self.files.append(path)
        self.log.append(("link", path, len(self.files) - 1))
        return len(self.files) - 1

    def open_in_place(self, path: str) -> int:
        """Open the file as ``open(path, "wb")`` does: same file, cut to nothing."""
        number = next((n for n, name in enumerate(self.files) if name == path), None)
        if number is None:
            return self.create(path, 0o666)
        self.log.append(("truncate", number))
        return number

    def write(self, fd: int, data: memoryview) -> int:
        data = data[:1500]
        self.log.append(("write", fd, bytes(data)))
        return len(data)

    def fsync(self, fd: int) -> None:
        self.log.append(("sync", fd))

    def close(self, fd: int) -> None:
        pass

    def replace(self, source: str, target: str) -> None:
        self.log.append(("rename", source, target))

    def fsync_folder(self, fd: int) -> None:
        self.log.append(("sync folder",))

    def unlink(self, path: str) -> None:
        self.log.append(("unlink", path))

    def acknowledge(self, number: int) -> None:
        self.log.append(("acknowledged", number))


def torn(old: bytes, new: bytes, random_: random.Random) -> Iterator[bytes]:
    """Yield what the disk may hold of a file whose unsynced content is `new`."""
    yield old
    yield new
    if old == new:
        return
    size = max(len(old), len(new))
    yield bytes(len(new))  # the new size is on the disk, the data is not
    for _ in range(4):
        sectors = [
            random_.choice([old, new, b""])[i : i + 512].ljust(512, b"\0")[: size - i]
            for i in range(0, size, 512)
        ]
        yield b"".join(sectors)[: random_.choice([len(new), size])]
        yield new[: 512 * random_.randint(0, len(new) // 512)]


def after_power_cut(log: list[tuple], target: str, random_: random.Random) -> Iterator[bytes | None]:
    """Yield every content (None: no file) that `target` may have if power fails after `log`."""
    synced: dict[int, bytes] = {}
    cached: dict[int, bytes] = {}
    names: dict[str, int] = {}  # on the disk
    live: dict[str, int] = {}  # as the running system sees it
    pending: list[tuple[str, str | None, int | None]] = []
    for step in log:
        match step:
            case ("link", path, number):
                cached[number], synced[number] = b"", b""
                live[path] = number
                pending.append((path, None, number))
            case ("truncate", number):
                cached[number] = b""
            case ("write", number, data):
                cached[number] += data
            case ("sync", number):
                synced[number] = cached[number]
            case ("rename", source, path):
                live[path] = live.pop(source)
                pending.append((path, source, live[path]))
            case ("unlink", path):
                live.pop(path)
                pending.append((path, None, None))
            case ("sync folder",):
                names, pending = dict(live), []
    for kept in itertools.product([False, True], repeat=len(pending)):
        possible = dict(names)
        for (path, source, number), keep in zip(pending, kept, strict=True):
            if keep:
                if source is not None:
                    possible.pop(source, None)
                if number is None:
                    possible.pop(path, None)
                else:
                    possible[path] = number
        if target not in possible:
            yield None
        else:
            number = possible[target]
            yield from torn(synced[number], cached[number], random_)


def power_cuts(
    save: Callable[[Disk, str, int], None], path: Path, generations: int = 6
) -> tuple[int, list[str]]:
    """Cut the power after every operation of several saves; return the number of cuts and what broke."""
    disk, target = Disk(), os.path.realpath(path)
    for number in range(1, generations + 1):
        save(disk, target, number)
        disk.acknowledge(number)
    random_ = random.Random(0)
    cuts, broken = 0, []
    for length in range(len(disk.log) + 1):
        log = disk.log[:length]
        acknowledged = max((step[1] for step in log if step[0] == "acknowledged"), default=0)
        for content in after_power_cut(log, target, random_):
            cuts += 1
            where = f"after {length} operations, generation {acknowledged} acknowledged"
            if content is None:
                if acknowledged:
                    broken.append(f"{where}: the file is missing")
                continue
            try:
                found = parse(content)[1]["generation"]
            except FileFormatError as error:
                broken.append(f"{where}: {error}")
                continue
            if found not in (acknowledged, acknowledged + 1):
                broken.append(f"{where}: generation {found}")
    return cuts, broken


def content_of(number: int) -> bytes:
    return file_bytes({"w": np.random.default_rng(number).random(700)}, {"generation": number})


def save_safely(disk: Disk, path: str, number: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, "_fs", disk)
        save_tensors(path, {"w": np.random.default_rng(number).random(700)}, {"generation": number})


def save_with(*skipped: str) -> Callable[[Disk, str, int], None]:
    def save(disk: Disk, path: str, number: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name in skipped:
                patch.setattr(disk, name, lambda fd: None)
            save_safely(disk, path, number)

    return save


def save_in_place(disk: Disk, path: str, number: int) -> None:
    fd = disk.open_in_place(path)
    rest = memoryview(content_of(number))
    while rest:
        rest = rest[disk.write(fd, rest) :]
    disk.fsync(fd)
    disk.fsync_folder(disk.FOLDER)


def test_an_acknowledged_checkpoint_survives_every_power_cut(tmp_path: Path) -> None:
    cuts, broken = power_cuts(save_safely, tmp_path / "a")
    assert not broken
    assert cuts > 150


@pytest.mark.parametrize(
    "save",
    [save_with("fsync"), save_with("fsync_folder"), save_with("fsync", "fsync_folder"), save_in_place],
    ids=["no file sync", "no folder sync", "no sync", "in place"],
)
def test_the_power_cuts_break_careless_writers(
    tmp_path: Path, save: Callable[[Disk, str, int], None]
) -> None:
    """Negative controls: a harness that finds nothing here proves nothing above."""
    _, broken = power_cuts(save, tmp_path / "a", generations=3)
    assert broken


def test_safe_open_sees_the_metadata(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", {"w": np.zeros(2)}, {"a": 1})
    with safe_open(tmp_path / "a", framework="np") as f:
        assert f.metadata()["a"] == "1" and f.keys() == ["w"]
