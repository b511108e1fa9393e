"""Named data sets: the embedded digits, MNIST and Fashion-MNIST; or a file of the user's own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import DataError, unknown_name
from ..storage.cache import cache_folder
from . import download as _download
from .dataset import Dataset
from .files import MNIST_FILES, find_idx, load_file
from .idx import GZIP_MAGIC, open_file, read_idx
from .splits import stratified_split


@dataclass(frozen=True)
class _Published:
    """One published set: its hashes in the order of `MNIST_FILES`, its mirrors and its class names."""

    name: str
    packed: Mapping[str, str]
    mirrors: tuple[str, ...]
    classes: tuple[str, ...]
    unpacked: Mapping[str, str] = field(default_factory=dict)


def _by_file(*hashes: str) -> dict[str, str]:
    return dict(zip(MNIST_FILES, hashes, strict=True))


_MNIST = _Published(
    name="mnist",
    packed=_by_file(
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
    unpacked=_by_file(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    classes=tuple("0123456789"),
)

# Only the hashes of the compressed files are published for this one. Uncompressed copies are checked by
# shape, and for not being MNIST under another name.
_FASHION = _Published(
    name="fashion-mnist",
    packed=_by_file(
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    classes=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
)

_PUBLISHED = {spec.name: spec for spec in (_MNIST, _FASHION)}

NAMES = ("digits", *_PUBLISHED)


def load(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    progress: bool | _download.Report | None = None,
    verify: bool = True,
    labels: str | os.PathLike[str] | None = None,
    target: str | None = None,
    task: str = "classification",
    classes: tuple[str, ...] | None = None,
) -> Dataset:
    """Load a named data set, or a file or folder of training data.

    - ``"digits"``: scikit-learn's copy of 1797 handwritten digits, uint8 (8, 8) with values 0..16. It
      has no published split, so a fixed one is made: `stratified_split` with a fifth for the test and
      seed 0, that is 1438 to train and 359 to test.
    - ``"mnist"``, ``"fashion-mnist"``: 60000 and 10000 images, uint8 (28, 28). Looked for in
      `data_dir` or else ``$XPNET_DATA`` (in ``DIR/<name>``, then ``DIR`` itself; each file plain or
      .gz), then in the per-user cache, then downloaded from several mirrors.
    - anything that looks like a path: `xpnet.data.load_file`. A name wins over a file of that name;
      write ``./mnist`` for the file.

    Parameters
    ----------
    name_or_path : str or path-like
        See above.
    data_dir : str or path-like, optional
        A folder that must hold the set; where it does not, that is an error, never a download.
    download : bool
        Whether a missing set may be downloaded.
    progress : bool or callable, optional
        True draws a bar; a callable is called with (file name, bytes so far, bytes in all).
    verify : bool
        Compare the SHA-256 of the files with the published ones.
    labels, target, task, classes
        Handed to `load_file`; not used for named sets.

    Returns
    -------
    Dataset
        Raw values with the scale to bring them to 0..1.

    Raises
    ------
    ConfigError
        No such name.
    DataError
        The files are missing, differ from the published ones, or could not be downloaded.

    Examples
    --------
    >>> load("digits")
    Dataset('digits', classification, 1438 train, 359 test, samples (8, 8) uint8, 10 classes)
    """
    name = os.fspath(name_or_path)
    if name == "digits":
        return _load_digits()
    if name in _PUBLISHED:
        return _load_published(_PUBLISHED[name], data_dir, download, progress, verify)
    path = Path(name).expanduser()
    looks_like_path = (
        isinstance(name_or_path, os.PathLike) or os.sep in name or "/" in name or bool(path.suffix)
    )
    if not path.exists() and not looks_like_path:
        raise unknown_name("data set", name, NAMES)
    return load_file(path, labels=labels, target=target, task=task, classes=classes)


def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x, y = bunch.images.astype(np.uint8), bunch.target.astype(np.int64)
    train, test = stratified_split(y, 0.2, seed=0)
    classes = tuple("0123456789")
    return Dataset("digits", x[train], y[train], x[test], y[test], (8, 8), classes, 1 / 16)


def _load_published(
    spec: _Published,
    data_dir: str | os.PathLike[str] | None,
    download: bool,
    progress: bool | _download.Report | None,
    verify: bool,
) -> Dataset:
    looked: list[str] = []
    named = data_dir or os.environ.get("XPNET_DATA")
    folders = list(_candidates(spec.name, Path(named).expanduser())) if named else []
    found = _find(spec, folders, looked)
    if found is None and data_dir is not None:
        raise DataError(
            f"{spec.name}: not all of the files {', '.join(MNIST_FILES)} (plain or .gz) are in one of: "
            f"{'; '.join(looked)}. Put them there, or leave out the folder to use the cache or download"
        )
    if found is None:
        return _read(spec, _from_cache(spec, looked, download, progress, verify))
    if verify:
        _verify(spec, found)
    return _read(spec, found)


def _from_cache(
    spec: _Published,
    looked: list[str],
    download: bool,
    progress: bool | _download.Report | None,
    verify: bool,
) -> Mapping[str, Path]:
    cache = cache_folder(spec.name)
    found = _find(spec, [cache], looked)
    if found is not None:
        try:
            if verify:
                _verify(spec, found)
            return found
        except DataError:
            if not download:
                raise
    elif not download:
        raise DataError(f"{spec.name}: not found in {'; '.join(looked)}, and downloading is switched off")
    # Files that are there and whole are not fetched again; damaged ones are replaced.
    hashes = {f"{file}.gz": spec.packed[file] for file in MNIST_FILES}
    _download.fetch(spec.name, hashes, spec.mirrors, cache, progress=progress)
    return {file: cache / f"{file}.gz" for file in MNIST_FILES}


def _candidates(name: str, base: Path) -> Iterator[Path]:
    yield base / name
    if "-" in name:
        yield base / name.replace("-", "_")
    yield base


def _find(spec: _Published, folders: list[Path], looked: list[str]) -> dict[str, Path] | None:
    """Return the files of the first folder that has all four; note in `looked` what the others lack."""
    for folder in folders:
        found = {file: path for file in MNIST_FILES if (path := find_idx(folder, file)) is not None}
        other = _other_set(spec, found) if len(found) == len(MNIST_FILES) else None
        if len(found) == len(MNIST_FILES) and other is None:
            return found
        missing = [file for file in MNIST_FILES if file not in found]
        why = f"holds {other}" if other else f"lacks {', '.join(missing)}" if found else ""
        looked.append(f"{folder} ({why})" if why else str(folder))
    return None


def _other_set(spec: _Published, found: Mapping[str, Path]) -> str | None:
    """Name the other published set that these files are, since all sets use the same file names."""
    file = MNIST_FILES[3]  # the smallest
    try:
        digests = {_digest(found[file]), _digest(found[file], unpack=True)}
    except DataError:  # unreadable: not for this question to report
        return None
    for other in _PUBLISHED.values():
        if other is not spec and digests & {other.packed[file], other.unpacked.get(file)}:
            return other.name
    return None


def _verify(spec: _Published, found: Mapping[str, Path]) -> None:
    for file, path in found.items():
        stored = _digest(path)
        if stored == spec.packed[file]:
            continue
        expected = spec.unpacked.get(file)
        # Packed again by someone else, or not packed: then the content decides.
        if _digest(path, unpack=True) == expected or (expected is None and not _is_gzip(path)):
            continue
        raise DataError(
            f"{path} is not the published {spec.name} file: SHA-256 {stored}, expected "
            f"{spec.packed[file]} for {file}.gz or {expected or 'an uncompressed file'} for its content; "
            "replace it, or pass verify=False to load it anyway"
        )


def _digest(path: Path, *, unpack: bool = False) -> str:
    digest = hashlib.sha256()
    with open_file(path, unpack=unpack) as (stream, _):
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == GZIP_MAGIC


def _read(spec: _Published, found: Mapping[str, Path]) -> Dataset:
    x_train, y_train, x_test, y_test = (read_idx(found[file]) for file in MNIST_FILES)
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if x.shape[1:] != (28, 28) or y.ndim != 1 or x.dtype != np.uint8 or len(x) != len(y):
            raise DataError(
                f"{spec.name}: the {part} files hold {x.dtype} {x.shape} images and {y.shape} labels, "
                "expected uint8 (N, 28, 28) images and (N,) labels"
            )
        if y.size == 0 or y.min() < 0 or y.max() >= len(spec.classes):
            raise DataError(f"{spec.name}: the {part} labels are empty or not in 0..{len(spec.classes) - 1}")
    y_train, y_test = y_train.astype(np.int64), y_test.astype(np.int64)
    return Dataset(spec.name, x_train, y_train, x_test, y_test, (28, 28), spec.classes, 1 / 255)
