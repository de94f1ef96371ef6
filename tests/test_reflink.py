"""support/reflink.py, and what it does for a run, on a real XFS in a file; and elsewhere, where there is none."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from scpln_backup.stages import check, rollback, snapshot
from scpln_backup.support.reflink import can_reflink, extents, reflink
from support import databases
from support.place import Place
from support.writer import Session

LIMITS = snapshot.Limits(wait_seconds=30.0, block_seconds=30.0, workers=2)
SMALLEST_XFS = 320 << 20  # a hole in the image file, for the most part


def nothing(_done: int, _total: int) -> None:
    pass


@pytest.fixture(scope="module")
def sharing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a file system whose files can share blocks."""
    if shutil.which("mkfs.xfs") is None or os.geteuid() != 0:
        pytest.skip("needs root and mkfs.xfs: apt-get install xfsprogs")
    base = tmp_path_factory.mktemp("xfs")
    image, folder = base / "image", base / "mounted"
    image.touch()
    os.truncate(image, SMALLEST_XFS)
    folder.mkdir()
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no XFS can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def shared(path: Path) -> bool:
    """Whether the file's blocks are another file's too; whatever of it was only in memory is written first."""
    found = subprocess.run(["filefrag", "-s", "-v", path], capture_output=True, text=True, check=True).stdout
    return "shared" in found


def linked(folder: Path, data: bytes) -> bool:
    source, target = folder / "source", folder / "target"
    source.write_bytes(data)
    target.write_bytes(b"before")
    with source.open("rb") as reading, target.open("r+b") as writing:
        return reflink(reading.fileno(), writing.fileno())


def test_blocks_are_shared_until_one_is_written(sharing: Path) -> None:
    data = os.urandom(1_000_001)
    assert linked(sharing, data)
    source, target = sharing / "source", sharing / "target"
    assert shared(target)
    with source.open("r+b") as file:
        file.write(b"another")
    assert target.read_bytes() == data
    assert source.stat().st_ino != target.stat().st_ino


def test_where_it_cannot_be_nothing_is_done() -> None:
    folder = Path("/dev/shm") / f"scpln-test-{os.getpid()}"  # tmpfs has no reflinks
    folder.mkdir()
    try:
        assert not linked(folder, b"data")
        assert (folder / "target").read_bytes() == b"before"
    finally:
        shutil.rmtree(folder)


def test_not_from_another_file_system(sharing: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"data")
    (sharing / "other").write_bytes(b"before")
    with (tmp_path / "source").open("rb") as source, (sharing / "other").open("r+b") as target:
        assert not reflink(source.fileno(), target.fileno())


# The snapshot


@pytest.fixture
def path(sharing: Path) -> Iterator[Path]:
    folder = sharing / "data"
    folder.mkdir()
    yield databases.grow(folder / "scpln.db", 4)
    shutil.rmtree(folder)


@pytest.fixture
def copy(sharing: Path) -> Iterator[Path]:
    folder = sharing / "staging"
    folder.mkdir()
    yield folder / "copy.db"
    shutil.rmtree(folder)


def test_a_snapshot_reads_and_writes_nothing(path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.delattr(os, "pread")
        patched.delattr(os, "preadv")
        patched.delattr(os, "pwrite")
        facts = snapshot.take(path, copy, LIMITS, nothing)
    assert shared(copy)
    assert copy.read_bytes() == path.read_bytes()
    assert facts.writer_blocked_seconds < LIMITS.block_seconds
    check.examine(copy)


def test_it_is_of_one_instant(path: Path, copy: Path) -> None:
    """A transaction that has spilled into the file holds it up, and is rolled back before the copy."""
    before, whole = databases.content_sha256(path), path.read_bytes()
    with Session(path, "PRAGMA cache_size = 5", "BEGIN", "UPDATE runs SET summary = 'rolled back'") as application:
        assert path.read_bytes() != whole
        with after_the_trial(lambda: application.run("ROLLBACK")):
            snapshot.take(path, copy, LIMITS, nothing)
    assert shared(copy)
    assert databases.content_sha256(copy) == before


@contextmanager
def after_the_trial(action: Callable[[], object]) -> Iterator[None]:
    """Do something between the trial and the lock."""

    def tried(source: int, target: int) -> bool:
        done = can_reflink(source, target)
        action()
        return done

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rollback, "can_reflink", tried)
        yield


def test_one_that_shrinks_before_the_lock(path: Path, copy: Path) -> None:
    with (
        Session(path, "DELETE FROM plan_series") as application,
        after_the_trial(lambda: application.run("VACUUM")),
    ):
        before = path.stat().st_size
        snapshot.take(path, copy, LIMITS, nothing)
    assert path.stat().st_size < before
    assert shared(copy)
    assert copy.read_bytes() == path.read_bytes()


def test_none_where_the_bandwidth_is_limited(path: Path, copy: Path) -> None:
    """Who reads the copy would read the live database's blocks, as fast as can be."""
    limits = msgspec.structs.replace(LIMITS, bytes_per_second=1e9)
    snapshot.take(path, copy, limits, nothing)
    assert not shared(copy)
    assert copy.read_bytes() == path.read_bytes()


def test_extents(sharing: Path) -> None:
    path = sharing / "in pieces"
    with path.open("wb") as file:
        for number in range(7):
            file.seek(number * 65536)
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    with path.open("rb") as file:
        assert 7 <= (extents(file.fileno()) or 0) <= 14  # XFS may put some beside them in reserve


def test_one_that_takes_too_long_is_not_made_under_the_lock(path: Path, copy: Path) -> None:
    """A badly fragmented file has so many blocks to share that writers would feel it."""
    seen: list[int] = []
    compare = rollback._Source.compare

    def counted(*arguments: object) -> None:
        seen.append(1)
        compare(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rollback._Source, "compare", counted)
        patched.setattr(rollback, "_CLONE_SHARE", 1e9)
        snapshot.take(path, copy, LIMITS, nothing)
    assert seen
    assert copy.read_bytes() == path.read_bytes()


# An unchanged night


def test_the_next_artifact_shares_the_blocks_and_no_name(sharing: Path) -> None:
    folder = sharing / "place"
    folder.mkdir()
    place = Place(folder)
    first, second = place.backup(), place.backup()
    paths = [Path(artifact["path"]) for artifact in place.listed()]
    assert shared(paths[0])
    assert {path.stat().st_nlink for path in paths} == {1}
    assert first["sha256"] == second["sha256"]
    paths[1].write_bytes(b"gone bad")
    assert place.json("verify", second["artifact"])[0]["ok"]
    shutil.rmtree(folder)
