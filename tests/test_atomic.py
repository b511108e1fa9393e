"""Files that are never half written: impossible places, failing system calls, interruptions, power cuts."""

from __future__ import annotations

import errno
import itertools
import os
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from tests.checkpoint_files import file_bytes, parse
from xpnet.checkpoint import load_tensors, save_tensors
from xpnet.errors import FileFormatError, FileWriteError, XpnetError
from xpnet.storage import atomic
from xpnet.storage.atomic import write_bytes_atomic


# --- writing --------------------------------------------------------------------------------------
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


def test_large_contents_are_written_call_by_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Counting(atomic._Fs):
        def write(self, fd: int, data: memoryview) -> int:
            sizes.append(len(data))
            return super().write(fd, data)

    monkeypatch.setattr(atomic, "_fs", Counting())
    monkeypatch.setattr(atomic, "_MAX_WRITE", 4)
    write_bytes_atomic(tmp_path / "a", b"0123456789")
    assert sizes == [4, 4, 2] and (tmp_path / "a").read_bytes() == b"0123456789"


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


# --- power cuts -----------------------------------------------------------------------------------
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
