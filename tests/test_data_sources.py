"""Named data sets: where they are looked for, mirrors that fail, hashes that differ.

No test leaves 127.0.0.1: the mirrors are a small server of our own.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from xpnet import data
from xpnet.data import download, sources
from xpnet.data.files import MNIST_FILES
from xpnet.errors import DataError
from xpnet.storage.cache import cache_folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def _sha(content):
    return hashlib.sha256(content).hexdigest()


def _write_set(folder, seed, suffix=".gz"):
    """Write a small set under MNIST's file names."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for images, labels, n in ((*MNIST_FILES[:2], 20), (*MNIST_FILES[2:], 10)):
        data.write_idx(folder / (images + suffix), rng.integers(0, 256, (n, 28, 28)).astype(np.uint8))
        data.write_idx(folder / (labels + suffix), rng.integers(0, 10, n).astype(np.uint8))


def _hashes(folder):
    packed = {file: (folder / f"{file}.gz").read_bytes() for file in MNIST_FILES}
    return (
        {file: _sha(content) for file, content in packed.items()},
        {file: _sha(gzip.decompress(content)) for file, content in packed.items()},
    )


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve tmp_path/served; return its address and folder."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    root = tmp_path / "served"
    root.mkdir()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root)))
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", root
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def published(server, tmp_path, monkeypatch):
    """Put a small set in MNIST's place: mirrors one (404), two (wrong bytes), three (good)."""
    address, root = server
    _write_set(root / "three", seed=0)
    _write_set(root / "two", seed=1)
    packed, unpacked = _hashes(root / "three")
    mirrors = tuple(f"{address}/{number}/" for number in ("one", "two", "three"))
    spec = replace(sources._MNIST, packed=packed, unpacked=unpacked, mirrors=mirrors)
    monkeypatch.setitem(sources._PUBLISHED, "mnist", spec)
    monkeypatch.setenv("XPNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("XPNET_DATA", raising=False)
    return root


def test_digits_are_split_the_same_way_always():
    digits = data.load("digits")
    assert digits.x_train.shape == (1438, 8, 8) and digits.x_test.shape == (359, 8, 8)
    assert digits.x_train.dtype == np.uint8 and digits.y_train.dtype == np.int64
    assert digits.x_train.max() * digits.scale == 1
    assert digits.classes == tuple("0123456789")
    assert digits.y_test[:10].tolist() == [5, 7, 9, 8, 7, 3, 2, 3, 6, 2]
    shares = np.bincount(digits.y_test) / np.bincount(np.concatenate([digits.y_train, digits.y_test]))
    assert abs(shares - 0.2).max() < 1 / 174


def test_the_third_mirror_is_used_where_the_others_fail(published, tmp_path):
    steps = []
    mnist = data.load("mnist", progress=lambda *step: steps.append(step))
    assert mnist.x_train.shape == (20, 28, 28) and mnist.x_test.shape == (10, 28, 28)
    assert mnist.scale == 1 / 255 and mnist.n_classes == 10
    cached = sorted(file.name for file in (tmp_path / "cache" / "mnist").iterdir())
    assert cached == sorted(f"{file}.gz" for file in MNIST_FILES)
    finished = {file for file, done, total in steps if done == total > 0}
    assert finished == set(cached)
    assert all(done <= total for _, done, total in steps if total)


def test_the_mirror_that_worked_is_tried_first_for_the_next_file(published, tmp_path, monkeypatch):
    asked, attempt = [], download._attempt
    monkeypatch.setattr(download, "_attempt", lambda url, *rest: asked.append(url) or attempt(url, *rest))
    data.load("mnist")
    assert [url.split("/")[3] for url in asked] == ["one", "two", *["three"] * 4]


def test_the_second_time_nothing_is_downloaded(published, monkeypatch):
    first = data.load("mnist")
    monkeypatch.setattr(download, "fetch", lambda *_, **__: pytest.fail("downloaded again"))
    assert np.array_equal(data.load("mnist").x_train, first.x_train)
    assert np.array_equal(data.load("mnist", download=False).x_train, first.x_train)


def test_a_damaged_cache_is_replaced_or_reported(published, tmp_path):
    first = data.load("mnist")
    damaged = tmp_path / "cache" / "mnist" / f"{MNIST_FILES[0]}.gz"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(DataError, match="damaged or truncated gzip"):
        data.load("mnist", download=False)
    assert np.array_equal(data.load("mnist").x_train, first.x_train)


def test_when_no_mirror_works_each_failure_is_listed(published, tmp_path):
    for file in (published / "three").iterdir():
        file.unlink()
    with pytest.raises(DataError) as caught:
        data.load("mnist")
    message = str(caught.value)
    for words in ("/one/train-images", "404", "/two/train-images", "SHA256 hash", "/three/train-images"):
        assert words in message
    assert f"into {tmp_path / 'cache' / 'mnist'} by hand" in message
    assert not list((tmp_path / "cache").rglob("*ubyte*"))


def test_a_mirror_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/a: ConnectionError"):
        download.fetch("tiny", {"a": "0" * 64}, ["http://127.0.0.1:9/"], tmp_path)


def test_the_bar_of_the_terminal(published, tmp_path, capsys):
    hashes = {f"{file}.gz": sha for file, sha in sources._PUBLISHED["mnist"].packed.items()}
    mirrors = sources._PUBLISHED["mnist"].mirrors[2:]
    download.fetch("mnist", hashes, mirrors, tmp_path / "new", progress=True)
    assert capsys.readouterr().out == ""  # standard output is for results


def test_downloads_say_nothing_unasked(published, capfd):
    data.load("mnist")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("place", ["mnist", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_given_folder_is_used(published, tmp_path, place, suffix):
    _write_set(tmp_path / "mine" / place, seed=0, suffix=suffix)
    mnist = data.load("mnist", data_dir=tmp_path / "mine", download=False)
    assert len(mnist.x_train) == 20


def test_underscores_and_dots_in_names(published, tmp_path, monkeypatch):
    packed, unpacked = _hashes(published / "two")
    fashion = replace(sources._FASHION, packed=packed, unpacked=unpacked)
    monkeypatch.setitem(sources._PUBLISHED, "fashion-mnist", fashion)
    folder = tmp_path / "mine" / "fashion_mnist"
    _write_set(folder, seed=1, suffix="")
    for file in list(folder.iterdir()):
        file.rename(folder / file.name.replace("-idx", ".idx"))
    loaded = data.load("fashion-mnist", data_dir=tmp_path / "mine")
    assert loaded.classes[0] == "T-shirt/top" and loaded.classes[9] == "Ankle boot"


def test_a_given_folder_without_the_files_is_an_error_not_a_download(published, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "fetch", lambda *_, **__: pytest.fail("downloaded"))
    (tmp_path / "mine").mkdir()
    _write_set(tmp_path / "mine" / "mnist", seed=0)
    (tmp_path / "mine" / "mnist" / f"{MNIST_FILES[3]}.gz").unlink()
    with pytest.raises(DataError) as caught:
        data.load("mnist", data_dir=tmp_path / "mine")
    assert f"{tmp_path / 'mine' / 'mnist'} (lacks {MNIST_FILES[3]}); {tmp_path / 'mine'}" in str(caught.value)


def test_the_environment_names_a_folder_and_falls_through(published, tmp_path, monkeypatch):
    _write_set(tmp_path / "env" / "mnist", seed=0)
    monkeypatch.setenv("XPNET_DATA", str(tmp_path / "env"))
    data.load("mnist", download=False)
    monkeypatch.setenv("XPNET_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="downloading is switched off"):
        data.load("mnist", download=False)
    assert len(data.load("mnist").x_train) == 20


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_other_files_under_the_same_names_are_refused(published, tmp_path, suffix):
    _write_set(tmp_path / "mine", seed=5, suffix=suffix)
    with pytest.raises(DataError, match=r"not the published mnist file: SHA-256 \w{64}, expected \w{64} for"):
        data.load("mnist", data_dir=tmp_path / "mine")
    assert len(data.load("mnist", data_dir=tmp_path / "mine", verify=False).x_train) == 20


def test_the_same_content_compressed_anew_is_accepted(published, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for file in MNIST_FILES:
        content = gzip.decompress((published / "three" / f"{file}.gz").read_bytes())
        (folder / f"{file}.gz").write_bytes(gzip.compress(content, 1, mtime=7))
    assert len(data.load("mnist", data_dir=folder).x_train) == 20


def test_one_set_is_not_taken_for_another_with_the_same_file_names(published, tmp_path):
    _write_set(tmp_path / "mine", seed=0, suffix="")
    with pytest.raises(DataError, match=r"mine \(holds mnist\)"):
        data.load("fashion-mnist", data_dir=tmp_path / "mine")


@pytest.mark.parametrize(
    ("file", "array", "words"),
    [
        (MNIST_FILES[0], np.zeros((20, 8, 8), np.uint8), "expected uint8 .N, 28, 28. images"),
        (MNIST_FILES[1], np.zeros(19, np.uint8), r"\(19,\) labels"),
        (MNIST_FILES[3], np.full(10, 10, np.uint8), "test labels are empty or not in 0..9"),
    ],
)
def test_files_that_are_no_such_set(published, tmp_path, file, array, words):
    _write_set(tmp_path / "mine", seed=0)
    data.write_idx(tmp_path / "mine" / f"{file}.gz", array)
    with pytest.raises(DataError, match=words):
        data.load("mnist", data_dir=tmp_path / "mine", verify=False)


def test_the_cache_is_per_user(monkeypatch):
    monkeypatch.delenv("XPNET_CACHE", raising=False)
    assert cache_folder("mnist").name == "mnist" and "xpnet" in str(cache_folder("mnist"))


def test_a_path_goes_to_the_file_reader(tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.eye(2), y=[0, 1])
    assert data.load(tmp_path / "mine.npz").name == "mine"
    assert data.load(str(tmp_path / "mine.npz"), task="regression").task == "regression"


needs_mnist = pytest.mark.skipif(
    not os.environ.get("XPNET_DATA"),
    reason="MNIST IS NOT TESTED: set XPNET_DATA to the folder that holds the MNIST files",
)


@pytest.mark.data
@needs_mnist
def test_the_real_mnist():
    mnist = data.load("mnist", data_dir=os.environ["XPNET_DATA"])
    assert mnist.x_train.shape == (60000, 28, 28) and mnist.x_test.shape == (10000, 28, 28)
    assert np.bincount(mnist.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert mnist.y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert round(float(mnist.x_train.mean() * mnist.scale), 4) == 0.1307


@pytest.mark.data
@needs_mnist
def test_the_real_mnist_unpacked_has_the_recorded_hashes(tmp_path):
    base = Path(os.environ["XPNET_DATA"])
    folder = next(path for path in (base / "mnist", base) if path.is_dir())
    for file in MNIST_FILES:
        packed = folder / f"{file}.gz"
        source = packed if packed.exists() else folder / file
        data.write_idx(tmp_path / file, data.read_idx(source))
        assert _sha((tmp_path / file).read_bytes()) == sources._MNIST.unpacked[file]
    assert len(data.load("mnist", data_dir=tmp_path).x_train) == 60000
