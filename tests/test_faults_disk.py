"""Real disks: full, read-only, not mounted, too small a file size limit; and an output that takes nothing."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scpln_backup.model import Outcome
from support.fault_house import FaultHouse, Halted, Past, build, copied, expect_clear, make_database

pytestmark = pytest.mark.faults

RUN = ("backup", "--json")
ROOM = 24 * 1024 * 1024  # the preflight wants 16 MiB more than it needs


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> FaultHouse:
    return build(tmp_path_factory.mktemp("house"))


@pytest.fixture
def house(begun: FaultHouse, tmp_path: Path) -> FaultHouse:
    return copied(begun, tmp_path / "house")


@contextmanager
def mounted(folder: Path, size: int = ROOM) -> Iterator[Path]:
    """A small file system of its own on `folder`."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take every byte that is left on the file system of `folder`."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 * 1024))
        except OSError:
            return ballast


def fresh(folder: Path, *, root: Path | None = None, state: Path | None = None) -> FaultHouse:
    """A house without a past, its root or state on a disk of its own."""
    make_database(folder / "data" / "scpln.db", 1)
    return FaultHouse(folder, Past(), root=root, state=state)


def expect_failed(house: FaultHouse, *said: str) -> None:
    """A run fails, says all of `said`, and is recorded as failed."""
    finished = house.program.run(*RUN)
    assert finished.code == 1
    document = expect_clear(finished)
    assert (document["outcome"], document["artifact"]) == ("failed", None)
    for words in said:
        assert words in document["error"]
    record = house.app.catalog.last_finished()
    assert record is not None
    assert (record.outcome, record.error) == (Outcome.FAILED, document["error"])


def test_the_disk_gets_full_in_the_middle_of_a_run(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk") as disk:
        house = fresh(tmp_path, root=disk)
        with Halted(house) as run:
            ballast = fill(disk)
            run.go_on()
            finished = run.end()
        assert finished.code == 1
        document = expect_clear(finished)
        assert document["outcome"] == "failed"
        assert f"{disk}/.staging/artifact: No space left on device; make room" in document["error"]
        ballast.unlink()
        assert list((disk / ".staging").iterdir()) == []
        house.expect_next_run_clean(*house.expect_whole())


def test_a_disk_without_room_is_noticed_before_anything_is_written(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", 4 * 1024 * 1024) as disk:
        house = fresh(tmp_path, root=disk)
        expect_failed(house, str(disk), "free", "make room")
        assert house.expect_whole() == {}


def test_the_state_folders_disk_is_full(tmp_path: Path) -> None:
    """The artifact is made, and good; that nothing could be recorded is not passed over."""
    with mounted(tmp_path / "disk", 1024 * 1024) as disk:
        house = fresh(tmp_path, state=disk)
        house.expect_next_run_clean()
        (first,) = house.expect_whole()
        ballast = fill(disk)
        finished = house.program.run(*RUN)
        assert finished.code == 1
        document = expect_clear(finished)
        assert document["outcome"] == "degraded"
        assert f"{disk}/catalog.db" in document["error"]
        assert "make room" in document["error"]
        assert set(house.expect_whole()) == {first, document["artifact"]}
        ballast.unlink()
        house.expect_next_run_clean(first, document["artifact"])


def test_a_new_state_folder_on_a_full_disk(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", 64 * 1024) as disk:
        house = fresh(tmp_path, state=disk / "state")
        ballast = fill(disk)
        finished = house.program.run(*RUN)
        assert finished.code == 1
        assert str(disk) in expect_clear(finished)["error"]
        assert house.expect_whole() == {}
        ballast.unlink()


def test_a_read_only_root(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk") as disk:
        house = fresh(tmp_path, root=disk)
        house.expect_next_run_clean()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        expect_failed(house, str(disk), "Read-only file system")
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        house.expect_next_run_clean(*house.expect_whole())


def test_a_read_only_state_folder(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk") as disk:
        house = fresh(tmp_path, state=disk)
        house.expect_next_run_clean()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        finished = house.program.run(*RUN)
        assert finished.code == 1
        document = expect_clear(finished)
        assert document["outcome"] == "degraded"  # the copy is made; it could not be recorded
        assert f"{disk}/catalog.db: attempt to write a readonly database" in document["error"]
        assert document["artifact"] in house.expect_whole()


def test_the_state_folder_is_a_file(house: FaultHouse) -> None:
    (house.folder / "aside").mkdir()
    house.state.rename(house.folder / "aside" / "state")
    house.state.write_text("")
    finished = house.program.run(*RUN)
    assert finished.code == 1
    assert str(house.state) in expect_clear(finished)["error"]
    assert house.expect_whole() == {}


def test_a_root_whose_disk_is_not_mounted(tmp_path: Path) -> None:
    """A backup beside the disk it belongs on would look like one, until the disk is mounted over it."""
    root = tmp_path / "disk"
    with mounted(root):
        house = fresh(tmp_path, root=root)
        house.expect_next_run_clean()
    expect_failed(house, str(root), "is its disk mounted?")
    assert list(root.iterdir()) == []


def test_a_root_that_is_gone(house: FaultHouse) -> None:
    aside = house.root.rename(house.folder / "aside")
    expect_failed(house, str(house.root), "is its disk mounted?")
    assert not house.root.exists()
    aside.rename(house.root)
    house.expect_next_run_clean(*house.expect_whole())


def test_artifacts_that_were_removed_on_purpose(house: FaultHouse) -> None:
    house.root.rename(house.folder / "aside")
    assert house.program.run("sweep").code == 0
    finished = house.program.run(*RUN)
    assert finished.code == 0, finished.stderr


def test_a_file_size_limit(house: FaultHouse) -> None:
    """The first piece is written in part, the rest of it is refused."""
    limit = ["bash", "-c", 'ulimit -f 64; exec "$@"', "limited"]
    finished = house.program.run(*RUN, prefix=limit)
    assert finished.code == 1
    assert f"{house.root}/.staging/copy.db: File too large" in expect_clear(finished)["error"]
    house.expect_next_run_clean(*house.expect_whole())


@pytest.mark.parametrize("verb", [RUN, ("list", "--json"), ("list",), ("status", "--json"), ("--help",)])
def test_an_output_that_takes_nothing(house: FaultHouse, verb: tuple[str, ...]) -> None:
    finished = house.program.run(*verb, prefix=["bash", "-c", 'exec "$@" >/dev/full', "full"])
    assert (finished.code, finished.stdout) == (1, "")
    assert finished.stderr == "error: the output cannot be written: No space left on device\n"
    house.expect_whole()
