"""Damaged, forged and foreign files: every one is refused, with words that say what it is."""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from safetensors import SafetensorError

from tests.checkpoint_files import OWN, assert_same, entry, file_bytes, forge, parse
from xpnet import checkpoint
from xpnet.checkpoint import load_tensors
from xpnet.errors import DataError, FileFormatError, FileWriteError
from xpnet.storage.atomic import write_bytes_atomic


# --- damage ---------------------------------------------------------------------------------------
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


def test_the_longest_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other libraries would not open is not written, and not read."""
    data = small()
    (tmp_path / "a").write_bytes(data)
    monkeypatch.setattr(checkpoint, "_MAX_HEADER", int.from_bytes(data[:8], "little") - 1)
    with pytest.raises(FileFormatError, match="no valid safetensors header"):
        load_tensors(tmp_path / "a")
    with pytest.raises(DataError, match="a file can hold"):
        small()


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


# --- other files ----------------------------------------------------------------------------------
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
