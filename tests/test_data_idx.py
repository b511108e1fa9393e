"""The IDX reader and writer: round trips, hostile files, and writing all or nothing."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xpnet.data import read_idx, write_idx
from xpnet.errors import DataError, FileWriteError

DTYPES = ["u1", "i1", "i2", "i4", "f4", "f8"]

arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


@given(arrays, st.booleans())
@settings(deadline=None)
def test_round_trip(folder, array, packed):
    path = folder / ("a.gz" if packed else "a")
    write_idx(path, array)
    back = read_idx(path)
    assert back.dtype == array.dtype and back.dtype.isnative and back.flags.writeable
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(arrays, st.booleans(), st.data())
@settings(deadline=None)
def test_a_changed_file_is_read_or_refused_but_never_crashes(folder, array, packed, data):
    path = folder / ("b.gz" if packed else "b")
    write_idx(path, array)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(bytes(content[:cut]))
    try:
        assert isinstance(read_idx(path), np.ndarray)
    except DataError as error:
        assert str(path) in str(error)


@given(st.binary(max_size=64))
@settings(deadline=None)
def test_random_bytes(folder, content):
    path = folder / "c"
    path.write_bytes(b"\0\0" + content)
    try:
        read_idx(path)
    except DataError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("packed", [False, True])
@given(cut=st.integers(1, 30))
@settings(deadline=None)
def test_every_truncation_is_refused(folder, packed, cut):
    path = folder / ("d.gz" if packed else "d")
    write_idx(path, np.arange(20, dtype=np.int16))
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    with pytest.raises(DataError, match=r"truncated|empty|not an IDX"):
        read_idx(path)


def test_bytes_on_disk_are_big_endian(tmp_path):
    write_idx(tmp_path / "x", np.array([[1, -2]], dtype="<i2"))
    assert (tmp_path / "x").read_bytes() == bytes.fromhex("00000b02 00000001 00000002 0001 fffe")


def test_any_layout_and_byte_order_can_be_written(tmp_path):
    array = np.arange(24, dtype=">f8").reshape(2, 3, 4)
    for number, view in enumerate([array.T, array[:, ::2], array[::-1], np.asfortranarray(array)]):
        write_idx(tmp_path / str(number), view)
        assert np.array_equal(read_idx(tmp_path / str(number)), view)


def test_gzip_is_known_by_content_not_by_name(tmp_path):
    write_idx(tmp_path / "a.gz", np.arange(5, dtype=np.uint8))
    (tmp_path / "a.gz").rename(tmp_path / "plain-name")
    assert read_idx(tmp_path / "plain-name").tolist() == [0, 1, 2, 3, 4]
    write_idx(tmp_path / "b", np.arange(5, dtype=np.uint8))
    (tmp_path / "b").rename(tmp_path / "b.gz")
    assert read_idx(tmp_path / "b.gz").tolist() == [0, 1, 2, 3, 4]


def test_compressed_files_are_reproducible(tmp_path):
    array = np.arange(1000, dtype=np.int32)
    write_idx(tmp_path / "one.gz", array)
    write_idx(tmp_path / "two.gz", array)
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_header_that_lies_allocates_nothing(tmp_path, pack):
    path = tmp_path / "liar"
    path.write_bytes(pack(struct.pack(">HBB4I", 0, 0x0E, 4, 60000, 60000, 60000, 8) + b"\0" * 100))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"more than a file of .* bytes can hold"):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_a_gzip_bomb_behind_a_small_header_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(struct.pack(">HBBI", 0, 0x08, 1, 10) + bytes(200_000_000), 1))
    tracemalloc.start()
    with pytest.raises(DataError, match="trailing bytes"):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_idx(path, np.zeros(3, np.uint8))
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(FileWriteError, match="No space left on device; the previous file is unchanged"):
        write_idx(path, np.ones(3, np.uint8))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x"]


def test_a_new_file_has_ordinary_permissions(tmp_path):
    write_idx(tmp_path / "x", np.zeros(1, np.uint8))
    (tmp_path / "y").write_bytes(b"")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode


def test_rank_zero_and_empty(tmp_path):
    write_idx(tmp_path / "scalar", np.float64(2.5))
    assert read_idx(tmp_path / "scalar").shape == () and read_idx(tmp_path / "scalar") == 2.5
    write_idx(tmp_path / "empty", np.zeros((0, 28, 28), np.uint8))
    assert read_idx(tmp_path / "empty").shape == (0, 28, 28)
