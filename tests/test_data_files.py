"""Training data from files, samples to predict for, and pictures."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from xpnet import data
from xpnet.data.files import MNIST_FILES
from xpnet.errors import DataError, MissingPackageError

X = np.arange(12, dtype=np.float32).reshape(4, 3)
IMAGES = np.arange(16, dtype=np.uint8).reshape(4, 2, 2)


def test_npz_with_all_parts(tmp_path):
    parts = {
        "x": IMAGES,
        "y": [3, 7, 3, 9],
        "x_valid": IMAGES[:1],
        "y_valid": [9],
        "x_test": IMAGES,
        "y_test": [3] * 4,
    }
    np.savez(tmp_path / "d.npz", **parts)
    found = data.load_file(tmp_path / "d.npz")
    assert found.classes == ("3", "7", "9") and found.n_classes == 3
    assert found.y_train.tolist() == [0, 1, 0, 2] and found.y_valid.tolist() == [2]
    assert found.y_train.dtype == np.int64
    assert found.sample_shape == (2, 2) and found.n_features == 4
    assert found.scale == 1 / 255 and found.x_train.dtype == np.uint8
    assert repr(found).startswith(
        "Dataset('d', classification, 4 train, 1 valid, 4 test, samples (2, 2) uint8"
    )


@pytest.mark.parametrize(
    ("labels", "classes", "indices"),
    [
        (np.array([2, 0, 1, 2], np.uint8), ("0", "1", "2"), [2, 0, 1, 2]),
        (np.array([-1, 1, 1, -1]), ("-1", "1"), [0, 1, 1, 0]),
        (np.array([10.0, 9.0, 10.0, 9.0]), ("9", "10"), [1, 0, 1, 0]),
        (np.array([True, False, True, True]), ("0", "1"), [1, 0, 1, 1]),
        (np.array(["b", "a", "b", "c"]), ("a", "b", "c"), [1, 0, 1, 2]),
        (np.array([b"no", b"yes", b"no", b"no"]), ("no", "yes"), [0, 1, 0, 0]),
        (np.array([[5], [6], [5], [6]]), ("5", "6"), [0, 1, 0, 1]),
    ],
)
def test_labels_of_every_kind(tmp_path, labels, classes, indices):
    np.savez(tmp_path / "d.npz", X=X, y=labels)
    found = data.load_file(tmp_path / "d.npz")
    assert found.classes == classes
    assert found.y_train.tolist() == indices
    assert found.scale == 1.0


def test_labels_numbered_as_an_existing_model_does(tmp_path):
    np.savez(tmp_path / "d.npz", x=X, y=["b", "c", "b", "c"])
    found = data.load_file(tmp_path / "d.npz", classes=("a", "b", "c"))
    assert found.y_train.tolist() == [1, 2, 1, 2] and found.n_classes == 3


def test_a_class_that_only_the_test_part_has_is_counted(tmp_path):
    np.savez(tmp_path / "d.npz", x=X, y=[0, 1, 0, 1], x_test=X[:1], y_test=[2])
    found = data.load_file(tmp_path / "d.npz")
    assert found.classes == ("0", "1", "2") and found.y_test.tolist() == [2]


def test_regression(tmp_path):
    np.savez(tmp_path / "d.npz", x=X, price=X[:, 0] / 3, y=np.zeros((4, 2)))
    found = data.load_file(tmp_path / "d.npz", task="regression", target="price")
    assert found.y_train.shape == (4, 1) and found.y_train.dtype == np.float32
    assert found.classes == () and found.n_classes == 0
    assert data.load_file(tmp_path / "d.npz", task="regression").y_train.shape == (4, 2)


@pytest.mark.parametrize("kind", ["npy", "idx", "txt"])
def test_npy_with_a_file_of_labels(tmp_path, kind):
    np.save(tmp_path / "x.npy", X)
    labels = tmp_path / f"y.{kind}"
    if kind == "npy":
        np.save(labels, [4, 5, 4, 5])
    elif kind == "idx":
        data.write_idx(labels, np.array([4, 5, 4, 5], np.uint8))
    else:
        labels.write_text("4\n5\n4\n5\n")
    found = data.load_file(tmp_path / "x.npy", labels=labels)
    assert found.classes == ("4", "5") and found.y_train.tolist() == [0, 1, 0, 1]


def test_idx_finds_its_labels(tmp_path):
    data.write_idx(tmp_path / "pets-images-idx3-ubyte.gz", IMAGES)
    data.write_idx(tmp_path / "pets-labels-idx1-ubyte", np.array([0, 1, 0, 1], np.uint8))
    found = data.load_file(tmp_path / "pets-images-idx3-ubyte.gz")
    assert found.sample_shape == (2, 2) and found.y_train.tolist() == [0, 1, 0, 1]


def test_a_folder_with_the_names_of_mnist(tmp_path):
    for images, labels in (MNIST_FILES[:2], MNIST_FILES[2:]):
        data.write_idx(tmp_path / images, IMAGES)
        data.write_idx(tmp_path / f"{labels}.gz", np.array([0, 1, 0, 1], np.uint8))
    assert len(data.load_file(tmp_path).x_test) == 4
    (tmp_path / MNIST_FILES[2]).unlink()
    with pytest.raises(DataError, match="belong together"):
        data.load_file(tmp_path)
    (tmp_path / f"{MNIST_FILES[3]}.gz").unlink()
    assert data.load_file(tmp_path).x_test is None


def test_csv(tmp_path):
    (tmp_path / "d.csv").write_text('\ufeffa,"kind, of",b\n1,cat,2\n3,"dog",4\n\n', encoding="utf-8")
    found = data.load_file(tmp_path / "d.csv", target="kind, of")
    assert found.x_train.tolist() == [[1, 2], [3, 4]] and found.classes == ("cat", "dog")
    with pytest.raises(DataError, match="no column named 'kind'; the columns are a, kind, of, b"):
        data.load_file(tmp_path / "d.csv", target="kind")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz", "parquet"])
def test_tables_of_numbers_are_read_as_the_command_reads_them(tmp_path, suffix):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1.5, 2.0], "b": [3, -1], "y": ["True", "False"]})
    path = tmp_path / f"d.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(
            path, index=False, sep=";" if suffix == "csv" else "\t", decimal="," if suffix == "csv" else "."
        )
    found = data.load_file(path)
    assert found.x_train.tolist() == [[1.5, 3], [2.0, -1]] and found.classes == ("False", "True")
    new = frame.drop(columns="y")
    if suffix == "parquet":
        new.to_parquet(path)
    else:
        new.to_csv(path, index=False)
    assert data.load_inputs(path)[0].tolist() == found.x_train.tolist()


@pytest.mark.parametrize(
    ("array", "scale"),
    [
        (IMAGES, 1 / 255),
        (IMAGES % 2, 1.0),
        (IMAGES.astype(np.uint16) * 4000, 1 / 65535),
        (IMAGES.astype(np.uint16) * 273, 1 / 4095),  # the largest is 4095
        (IMAGES.astype(np.uint16) % 2, 1.0),
        (IMAGES.astype(np.uint16).reshape(4, 4) * 273, 1.0),
        (IMAGES.reshape(4, 4), 1 / 255),
        (IMAGES.astype(np.int64), 1.0),
        (IMAGES > 3, 1.0),
    ],
)
def test_the_scale_follows_the_type(tmp_path, array, scale):
    np.savez(tmp_path / "d.npz", x=array, y=[0, 1, 0, 1])
    assert data.load_file(tmp_path / "d.npz").scale == scale


def test_inputs_of_every_kind(tmp_path):
    np.save(tmp_path / "a.npy", X)
    np.savez(tmp_path / "b.npz", x=X, other=X)
    np.savez(tmp_path / "c.npz", samples=X[:1])
    data.write_idx(tmp_path / "d.idx", X)
    files = [tmp_path / name for name in ("a.npy", "b.npz", "c.npz", "d.idx")]
    x, names = data.load_inputs(files)
    assert x.shape == (13, 3) and x.dtype == np.float32
    assert names[0] == f"{files[0]}[0]" and names[7] == f"{files[1]}[3]" and names[8] == str(files[2])
    (tmp_path / "e.csv").write_text("a,b,c\n1,2,3\n")
    assert data.load_inputs(str(tmp_path / "e.csv"))[0].tolist() == [[1, 2, 3]]


def test_one_sample_without_a_batch_axis(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES[0])
    x, names = data.load_inputs(tmp_path / "a.npy", sample_shape=(2, 2))
    assert x.shape == (1, 2, 2) and names == [str(tmp_path / "a.npy")]


def test_inputs_are_not_mixed(tmp_path):
    np.save(tmp_path / "a.npy", X)
    np.save(tmp_path / "b.npy", X.astype(np.uint8))
    np.save(tmp_path / "c.npy", X[:, :2])
    np.savez(tmp_path / "d.npz", p=X, q=X)
    with pytest.raises(DataError, match=r"b.npy holds uint8 but .*a.npy\[0\] holds float32"):
        data.load_inputs([tmp_path / "a.npy", tmp_path / "b.npy"])
    with pytest.raises(DataError, match=r"samples of shape \(2,\) but .* of \(3,\)"):
        data.load_inputs([tmp_path / "a.npy", tmp_path / "c.npy"])
    with pytest.raises(DataError, match=r"no array named x or X; it holds p, q"):
        data.load_inputs(tmp_path / "d.npz")
    np.save(tmp_path / "e.npy", np.array([[np.nan]]))
    with pytest.raises(DataError, match=r"e.npy has 1 NaN"):
        data.load_inputs(tmp_path / "e.npy")


@pytest.fixture
def image():
    return pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def _drawing():
    """A dark square on white, 40 x 40."""
    tones = np.full((40, 40), 250, np.uint8)
    tones[15:25, 15:25] = 10
    return tones


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tiff", "webp", "pgm"])
def test_every_format_of_picture(tmp_path, image, suffix):
    path = tmp_path / f"p.{suffix}"
    image.fromarray(_drawing()).save(path)
    found = data.load_image(path, (20, 20))
    assert found.shape == (20, 20) and found.dtype == np.uint8
    assert found[10, 10] > 230 and found[0, 0] < 20  # light on dark


def test_inversion(tmp_path, image):
    image.fromarray(_drawing()).save(tmp_path / "dark.png")
    image.fromarray(255 - _drawing()).save(tmp_path / "light.png")
    auto = [data.load_image(tmp_path / name) for name in ("dark.png", "light.png")]
    assert np.array_equal(auto[0], auto[1]) and np.array_equal(auto[0], 255 - _drawing())
    assert np.array_equal(data.load_image(tmp_path / "dark.png", invert=False), _drawing())
    assert np.array_equal(data.load_image(tmp_path / "light.png", invert=True), _drawing())


def test_colour_transparency_and_sixteen_bits(tmp_path, image):
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[3:5, 3:5, 3] = 255  # black ink on nothing
    image.fromarray(clear).save(tmp_path / "clear.png")
    found = data.load_image(tmp_path / "clear.png")
    assert found[3, 3] == 255 and found[0, 0] == 0
    image.fromarray(np.stack([_drawing()] * 3, axis=-1)).save(tmp_path / "rgb.png")
    assert np.array_equal(data.load_image(tmp_path / "rgb.png", invert=False), _drawing())
    image.fromarray(_drawing().astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert np.array_equal(data.load_image(tmp_path / "deep.png", invert=False), _drawing())
    image.fromarray(_drawing().astype(np.float32)).save(tmp_path / "real.tiff")
    with pytest.raises(DataError, match="floating-point tones"):
        data.load_image(tmp_path / "real.tiff")


def test_proportions_are_kept(tmp_path, image):
    tall = np.zeros((60, 20), np.uint8)
    tall[:, 5:15] = 255
    image.fromarray(tall).save(tmp_path / "tall.png")
    found = data.load_image(tmp_path / "tall.png", (30, 30), invert=False)
    assert found[15, 15] > 250 and found[15, 5] == 0 and found[15, 25] == 0
    # in the middle of a sample that is no square
    image.fromarray(_drawing()).save(tmp_path / "square.png")
    for shape, margins in (((40, 52), ((0, 0), (6, 6))), ((52, 40), ((6, 6), (0, 0)))):
        found = data.load_image(tmp_path / "square.png", shape, invert=False)
        np.testing.assert_array_equal(found, np.pad(_drawing(), margins, constant_values=250))
    image.fromarray(np.zeros((1, 3000), np.uint8)).save(tmp_path / "line.png")
    assert data.load_image(tmp_path / "line.png", (4, 4)).shape == (4, 4)


def test_a_picture_too_large(tmp_path, image, monkeypatch):
    image.fromarray(_drawing()).save(tmp_path / "p.png")
    for limit in (1000, 10):  # Pillow warns above the limit and fails above twice the limit
        monkeypatch.setattr(image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match="too large to be a sample"):
            data.load_image(tmp_path / "p.png")


def test_without_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingPackageError, match=r'needs Pillow.*pip install "xpnet\[images\]"'):
        data.load_image(tmp_path / "p.png")


def test_a_folder_of_pictures(tmp_path, image):
    (tmp_path / "b").mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match="the folder holds no pictures"):
        data.load_inputs(tmp_path)
    for name in ("b/2.png", "b/1.PNG", "a.png"):
        image.fromarray(_drawing()).save(tmp_path / name)
    x, names = data.load_inputs(tmp_path, sample_shape=(28, 28))
    assert x.shape == (3, 28, 28)
    assert names == [str(tmp_path / name) for name in ("a.png", "b/1.PNG", "b/2.png")]
    image.fromarray(_drawing()[:20]).save(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"samples of shape \(20, 40\)"):
        data.load_inputs(sorted(tmp_path.glob("*.png")))
    with pytest.raises(DataError, match=r"samples here have shape \(784,\)"):
        data.load_inputs(tmp_path, sample_shape=(784,))


def test_importing_the_package_loads_numpy_and_nothing_heavier():
    heavy = "{'pooch', 'rich', 'sklearn', 'scipy', 'PIL', 'requests', 'cupy', 'matplotlib'}"
    code = f"import sys, xpnet.data; print({heavy} & {{name.split('.')[0] for name in sys.modules}})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
