"""One table of bad inputs: what goes in, and the words that the message must hold.

Every error is one of xpnet's own, and says what was found and what was expected.
"""

from __future__ import annotations

import gzip
import struct
import sys

import numpy as np
import pytest

from xpnet import data
from xpnet.errors import ConfigError, DataError, FileFormatError, FileWriteError, XpnetError

X = np.zeros((4, 3), np.float32)
Y = np.array([0, 1, 0, 1])
IMAGES = np.zeros((4, 2, 2), np.uint8)


class Sparse:
    def toarray(self):
        return X


def _with(value, at=(2, 1)):
    x = X.copy()
    x[at] = value
    return x


CHECKS = {
    "1-D features": (lambda: data.check_features(np.zeros(3)), "shape (3,), expected one row per sample"),
    "scalar": (lambda: data.check_features(1.0), "shape (), expected one row per sample"),
    "object features": (lambda: data.check_features(np.array([[None, 1]])), "type object, expected real"),
    "complex": (lambda: data.check_features(X + 1j), "type complex64, expected real numbers"),
    "dates": (lambda: data.check_features(np.zeros((2, 2), "M8[s]")), "type datetime64[s]"),
    "text features": (lambda: data.check_features([["a", "b"]]), "type <U1, expected real numbers"),
    "ragged": (lambda: data.check_features([[1, 2], [3]]), "not a rectangular host array"),
    "sparse": (lambda: data.check_features(Sparse()), "sparse matrix, expected a dense array"),
    "no samples": (lambda: data.check_features(X[:0]), "empty (shape (0, 3))"),
    "no features": (lambda: data.check_features(X[:, :0]), "empty (shape (4, 0))"),
    "width": (
        lambda: data.check_features(X, n_features=5),
        "3 features per sample (shape (4, 3)), expected 5",
    ),
    "NaN": (
        lambda: data.check_features(_with(np.nan)),
        "1 NaN and 0 infinite values, the first (nan) at row 2, column 1",
    ),
    "infinite": (
        lambda: data.check_features(_with(-np.inf)),
        "0 NaN and 1 infinite values, the first (-inf) at row 2",
    ),
    "NaN in images": (
        lambda: data.check_features(np.full((1, 2, 2), np.nan)),
        "4 NaN and 0 infinite values, the first (nan) at row 0, column 0, 0",
    ),
    "labels too short": (lambda: data.check_labels(Y[:3], 4), "3 rows (shape (3,)) but there are 4 samples"),
    "scalar label": (lambda: data.check_labels(1, 4), "0 rows (shape ()) but there are 4 samples"),
    "label too large": (
        lambda: data.check_labels([0, 1, 5, 7], 4, n_classes=3),
        "y[2] is 5, expected a class index in 0..2 (2 of 4",
    ),
    "negative label": (lambda: data.check_labels([0, -1, 0, 0], 4), "y[1] is -1"),
    "fractional label": (lambda: data.check_labels([0, 1, 0.5, 1], 4), "y[2] is 0.5, expected a class label"),
    "NaN label": (
        lambda: data.check_labels([0, np.nan, 0, 1], 4),
        "1 NaN and 0 infinite values, the first (nan) at index 1",
    ),
    "text label": (lambda: data.check_labels(list("abab"), 4), "turn names into indices first"),
    "object label": (lambda: data.check_labels(np.array([None] * 4), 4), "object labels"),
    "huge float label": (
        lambda: data.check_labels([1e300, 0, 0, 0], 4),
        "too large to be exact class labels",
    ),
    "column of labels": (
        lambda: data.check_labels(Y[:, None], 4),
        "shape (4, 1), expected (4,) class indices",
    ),
    "3-D labels": (lambda: data.check_labels(np.zeros((4, 1, 2)), 4), "shape (4, 1, 2), expected (4,)"),
    "soft rows": (lambda: data.check_labels([[0.5, 0.5], [0.9, 0.2]], 2), "row 1 sums to 1.1"),
    "soft negative": (
        lambda: data.check_labels([[1.5, -0.5]], 1),
        "row 0 sums to 1 with values from -0.5 to 1.5",
    ),
    "soft width": (
        lambda: data.check_labels(np.eye(3), 3, n_classes=4),
        "3 columns of class probabilities, expected 4",
    ),
    "soft NaN": (lambda: data.check_labels([[np.nan, 1.0]], 1), "1 NaN"),
    "one class": (lambda: data.check_trainable_labels(np.ones(4, int)), "every label is class 1 (4 samples)"),
    "one soft class": (
        lambda: data.check_trainable_labels(np.eye(2)[[1, 1]]),
        "every label is class 1 (2 samples)",
    ),
    "no labels": (lambda: data.check_trainable_labels(Y[:0]), "there are no labels"),
    "target width": (
        lambda: data.check_targets(X, 4, 2),
        "shape (4, 3), expected (4, 2): one column per output",
    ),
    "target length": (lambda: data.check_targets(X, 5, 3), "4 rows (shape (4, 3)) but there are 5 samples"),
    "target NaN": (lambda: data.check_targets(_with(np.nan), 4, 3), "1 NaN and 0 infinite"),
    "target range": (
        lambda: data.check_targets(_with(1.5), 4, 3, unit_interval=True),
        "y[2, 1] is 1.5, expected a value in 0..1",
    ),
    "target text": (lambda: data.check_targets(list("abcd"), 4, 1), "type <U1"),
    "negative weight": (lambda: data.check_weights([1, -2], 2), "sample_weight[1] is -2"),
    "zero weights": (lambda: data.check_weights(np.zeros(3), 3), "all zero (3 samples)"),
    "infinite weight": (
        lambda: data.check_weights([1, np.inf], 2),
        "1 infinite values, the first (inf) at index 1",
    ),
    "weight length": (lambda: data.check_weights([1, 1], 3), "2 rows (shape (2,)) but there are 3 samples"),
    "weight rank": (lambda: data.check_weights(np.ones((2, 2)), 2), "shape (2, 2), expected (2,)"),
    "unknown class": (
        lambda: data.encode_labels(["a", "z"], classes=["a", "b"]),
        "y[1] is 'z', which is none of the 2 known",
    ),
    "one-hot to encode": (
        lambda: data.encode_labels(np.eye(2)),
        "of one-hot rows .argmax(axis=1) makes labels",
    ),
    "objects to encode": (lambda: data.encode_labels(np.array([{}, 1], object)), "type object"),
    "split too small": (lambda: data.stratified_split([0], 0.5, 0), "at least 2 samples, found 1"),
    "split of nothing": (lambda: data.stratified_split(0, 0.5, 0), "at least 2 samples, found 0"),
    "empty validation": (lambda: data.stratified_split(Y, 0.1, 0), "leaves the validation part empty"),
    "empty training": (lambda: data.stratified_split(Y, 0.95, 0), "leaves the training part empty"),
    "all singletons": (
        lambda: data.stratified_split([0, 1, 2], 0.4, 0),
        "the last sample of a class stays in training",
    ),
    "split of soft": (lambda: data.stratified_split(np.eye(4), 0.5, 0), "pass y.argmax(axis=1)"),
    "split of reals": (lambda: data.stratified_split([0.5, 1.5], 0.5, 0), "pass stratify=False"),
    "other width": (
        lambda: data.Preprocessing((2, 2))(np.zeros((3, 5))),
        "shape (3, 5), expected (B, 2, 2) or (B, 4)",
    ),
    "one sample": (lambda: data.Preprocessing((2, 2))(np.zeros((2, 2))), "for one sample write x[None]"),
    "transposed": (
        lambda: data.Preprocessing((2, 8))(np.zeros((3, 8, 2))),
        "shape (3, 8, 2), expected (B, 2, 8)",
    ),
    "text to prepare": (lambda: data.Preprocessing((1,))([["a"]]), "type <U1"),
    "overflow": (lambda: data.Preprocessing((1,))([[1e300]]), "too large for float32"),
    "bad scale": (
        lambda: data.Preprocessing((2,), scale=np.ones(3)),
        "scale has shape (3,), expected one number, (2,)",
    ),
    "NaN shift": (lambda: data.Preprocessing((2,), shift=np.nan), "shift holds values that are not finite"),
    "text scale": (lambda: data.Preprocessing((2,), scale="big"), "scale is 'big', expected numbers"),
    "empty shape": (lambda: data.Preprocessing(()), "sample_shape is ()"),
    "set lengths": (
        lambda: data.Dataset("d", X, Y[:2], None, None, (3,), ("0", "1"), 1.0),
        "x_train has 4 samples but y_train has 2",
    ),
    "set width": (
        lambda: data.Dataset("d", X, Y, X[:, :2], Y, (3,), ("0", "1"), 1.0),
        "x_test has shape (4, 2)",
    ),
    "set half": (
        lambda: data.Dataset("d", X, Y, X, None, (3,), ("0", "1"), 1.0),
        "x_test and y_test belong together",
    ),
    "set task": (lambda: data.Dataset("d", X, Y, None, None, (3,), (), 1.0, task="guess"), "task is 'guess'"),
    "int64 to IDX": (
        lambda: data.write_idx("x", Y),
        "cannot hold int64; convert it first, for example array.astype('int32')",
    ),
    "objects to IDX": (lambda: data.write_idx("x", np.array([None])), "IDX cannot hold object"),
    "bool to IDX": (lambda: data.write_idx("x", Y > 0), "array.astype('uint8')"),
    "no inputs": (lambda: data.load_inputs([]), "no inputs"),
    "missing input": (lambda: data.load_inputs("nowhere.npy"), "nowhere.npy: no such file"),
    "missing file": (lambda: data.load("./nowhere.npz"), "nowhere.npz: no such file"),
    "missing file, no suffix": (lambda: data.load("some/where"), "where: no such file"),
    "bad task": (lambda: data.load_file("x.npz", task="guess"), "task is 'guess'"),
}


@pytest.mark.parametrize("case", CHECKS)
def test_bad_arrays(case):
    call, words = CHECKS[case]
    with pytest.raises(DataError) as caught:
        call()
    assert words in str(caught.value)


SETTINGS = {
    "fraction 0": (lambda: data.stratified_split(Y, 0, 0), "fraction is 0, expected"),
    "fraction 1": (lambda: data.stratified_split(Y, 1.0, 0), "strictly between 0 and 1"),
    "fraction NaN": (lambda: data.stratified_split(Y, float("nan"), 0), "fraction is nan"),
    "negative seed": (lambda: data.stratified_split(Y, 0.5, -1), "seed is -1"),
    "large seed": (lambda: data.stratified_split(Y, 0.5, 2**64), "below 2**64"),
    "real seed": (lambda: data.stratified_split(Y, 0.5, 0.5), "seed is 0.5, expected an integer"),
    "misspelt set": (lambda: data.load("mnits"), "did you mean 'mnist'?"),
    "unknown set": (lambda: data.load("imagenet"), "Known: digits, fashion-mnist, mnist"),
    "bad invert": (lambda: data.load_image("x.png", invert="maybe"), "expected 'auto', True or False"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_bad_settings(case):
    call, words = SETTINGS[case]
    with pytest.raises(ConfigError) as caught:
        call()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "record", [{}, {"sample_shape": [2], "scale": "x", "shift": 0}, {"sample_shape": 3, "scale": 1}]
)
def test_a_damaged_preprocessing_record(record):
    with pytest.raises(FileFormatError, match="damaged preprocessing record"):
        data.Preprocessing.from_metadata(record)


IDX = struct.pack(">HBBI", 0, 0x08, 1, 4)
LABELLED = "f,g,label\n1,2,a\n3,4,b\n"

# File name -> content, the words of the message, and the reader that must refuse it.
FILES = {
    "empty": (b"", "the file is empty", data.read_idx),
    "magic": (b"\1\2\3\4\5", "it starts with bytes 01 02 03 04, expected 00 00 TYPE RANK", data.read_idx),
    "type": (
        b"\0\0\x0a\1" + bytes(8),
        "unknown IDX type byte 0x0A, expected one of: 0x08 uint8",
        data.read_idx,
    ),
    "short": (b"\0\0\x08", "truncated header: 3 bytes", data.read_idx),
    "short-sizes": (
        b"\0\0\x08\3\0\0\0\1",
        "truncated header: 4 bytes of sizes, expected 12 for rank 3",
        data.read_idx,
    ),
    "rank": (b"\0\0\x08\xff" + bytes(1020), "rank 255, but NumPy arrays have at most 64", data.read_idx),
    "cut": (IDX + b"abc", "truncated: 3 bytes of data, expected 4 for shape (4,) of uint8", data.read_idx),
    "more": (IDX + b"abcde", "trailing bytes after the 4 bytes", data.read_idx),
    "huge": (
        struct.pack(">HBB2I", 0, 0x0E, 2, 2**32 - 1, 2**32 - 1),
        "more than a file of 12 bytes can hold",
        data.read_idx,
    ),
    "huge-empty": (
        struct.pack(">HBB4I", 0, 8, 4, 0, *[2**32 - 1] * 3),
        "larger than NumPy can index",
        data.read_idx,
    ),
    "cut.gz": (gzip.compress(IDX + b"abcd")[:-6], "damaged or truncated gzip file", data.read_idx),
    "crc.gz": (
        gzip.compress(IDX + b"abcd")[:-8] + bytes(8),
        "damaged or truncated gzip file (CRC",
        data.read_idx,
    ),
    "deflate.gz": (gzip.compress(IDX)[:10] + b"\xff" * 20, "damaged or truncated gzip file", data.read_idx),
    "header.gz": (b"\x1f\x8b\x08", "damaged or truncated gzip file", data.read_idx),
    "odd.gz": (
        b"\x1f\x8b\x07" + bytes(20),
        "damaged or truncated gzip file (Unknown compression",
        data.read_idx,
    ),
    "more.gz": (gzip.compress(IDX + b"abcde"), "trailing bytes", data.read_idx),
    "empty.npz": (b"", "the file is empty", data.load_file),
    "text.npz": (
        b"hello",
        "not a format that can be read (it starts with bytes 68 65 6c 6c)",
        data.load_file,
    ),
    "cut.npz": (b"PK\3\4 nonsense", "damaged or truncated", data.load_file),
    "none.npz": (b"PK\5\6" + bytes(18), "the archive holds no arrays", data.load_file),
    "cut.npy": (b"\x93NUMPY\1\0", "name the file of their labels too", data.load_file),
    "damaged.npy": (b"\x93NUMPY\1\0\x10\0{'descr': oops, ", "damaged or truncated", data.load_inputs),
    "alone-idx3": (IDX + b"abcd", "name the file of their labels too", data.load_file),
    "header.csv": (b"a,b\n", "a header line and nothing below, expected at least one row", data.load_file),
    "ragged.csv": (b"a,b\n1,2\n3\n", "line 3 has 1 values, expected 2", data.load_file),
    "words.csv": (b"a,b\nx,1\n", "line 2, column 'a' holds 'x', expected a number", data.load_file),
    "holes.csv": (b"a,b\n1,1\n,1\n", "line 3, column 'a' holds '', expected a number", data.load_file),
    "unlabelled.csv": (b"a,b\n1,1\n1,\n", "line 3 has no value in the target column 'b'", data.load_file),
    "bare.csv": (b"1,2\n3,4\n", "expected a header line with column names", data.load_file),
    "quotes.csv": (b'a,b\n"1,2\n', "not a CSV file", data.load_file),
    "latin.csv": (b"a,b\n\xe9,1\n", "not UTF-8 text", data.load_file),
    "real.csv": (b"a,b\n1,0.25\n2,1\n", "y[0] is 0.25, expected a class label", data.load_file),
    "nan.csv": (
        b"a,b\n1,0\nnan,1\n",
        "line 3, column 'a' holds 'nan', expected a number",
        data.load_file,
    ),
    "text.png": (b"no picture", "not a readable picture", data.load_image),
    "cut.png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not a readable picture", data.load_image),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_files(name, tmp_path):
    content, words, read = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("read", [data.read_idx, data.load_file, data.load_inputs, data.load_image])
def test_a_missing_file_and_a_folder(read, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "missing")
    with pytest.raises(DataError, match=r"folder"):
        read(tmp_path)


def test_writing_where_no_folder_is(tmp_path):
    with pytest.raises(FileWriteError, match="Create the folder first"):
        data.write_idx(tmp_path / "none" / "x", IMAGES)


def test_objects_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (sys.exit, (1,))

    objects = np.array([[Bomb()]], dtype=object)
    np.save(tmp_path / "o.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "o.npz", x=objects, y=Y)
    for read in (
        data.load_inputs,
        lambda path: data.load_file(path, labels=path if path.suffix == ".npy" else None),
    ):
        for name in ("o.npy", "o.npz"):
            with pytest.raises(DataError, match="Python objects, which are never unpickled"):
                read(tmp_path / name)


def test_every_error_is_ours_and_of_one_family():
    assert issubclass(DataError, XpnetError) and issubclass(DataError, ValueError)
    assert len(CHECKS) + len(SETTINGS) + len(FILES) >= 100


NPZ = {
    "no labels": ({"x": X}, {}, "no array named y or y_train; it holds x"),
    "no samples": ({"y": Y}, {}, "no array named x or X or x_train; it holds y"),
    "other key": ({"x": X, "y": Y}, {"target": "z"}, "no array named z; it holds x, y"),
    "half a test": ({"x": X, "y": Y, "x_test": X}, {}, "x_test and y_test belong together"),
    "lengths": ({"x": X, "y": Y[:3]}, {}, "y has 3 entries (shape (3,)) but there are 4 samples"),
    "test lengths": ({"x": X, "y": Y, "x_test": X, "y_test": Y[:1]}, {}, "y_test has 1 entries"),
    "test width": (
        {"x": X, "y": Y, "x_test": X[:, :1], "y_test": Y},
        {},
        "x_test has shape (4, 1), expected (B, 3)",
    ),
    "fractions": ({"x": X, "y": Y + 0.5}, {}, "y[0] is 0.5"),
    "mixed labels": ({"x": X, "y": Y, "x_test": X, "y_test": list("abab")}, {}, "some parts have numbers"),
    "own labels": ({"x": X, "y": Y}, {"labels": "y.npy"}, "this file holds its own"),
    "1-D samples": ({"x": Y, "y": Y}, {}, "x has shape (4,), expected one row per sample"),
    "NaN targets": ({"x": X, "y": Y * np.nan}, {"task": "regression"}, "4 NaN and 0 infinite"),
    "unknown class": (
        {"x": X, "y": Y},
        {"classes": ("0", "2")},
        "y[1] is '1', which is none of the 2 known classes",
    ),
}


@pytest.mark.parametrize("case", NPZ)
def test_bad_archives(case, tmp_path):
    arrays, options, words = NPZ[case]
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError) as caught:
        data.load_file(tmp_path / "d.npz", **options)
    assert words in str(caught.value)
