"""One database in another's place, stopped between any two steps, with every kind of old database."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from scpln_backup.errors import RestoreFailedError
from scpln_backup.model import RestoreRecord
from scpln_backup.operations.restore import swap
from scpln_backup.operations.restore.journal import FileIdentity, Journal, Phase
from support.databases import names
from support.restore_house import DAMAGED, KINDS, MISSING, bytes_of_set, content, killed, make

Step = Callable[[Journal], Journal]
MARK = "INSERT INTO entries (label, text) VALUES ('written after the crash', '')"


def begun(folder: Path, kind: str) -> Journal:
    """An old set at the target, and the new database in the staging folder, as the first phase leaves them."""
    target = folder / "data" / "scpln.db"
    KINDS[kind](target)
    staging = target.with_name(".scpln.db.restore")
    make(staging / "new.db", "new", rows=90)
    at = datetime(2026, 11, 22, tzinfo=UTC)
    return Journal(
        phase=Phase.STOPPED,
        record=RestoreRecord(started_at=at, artifact="scpln-20261122_0230.db.gz", target=str(target)),
        target=str(target),
        staging=str(staging),
        set_aside=str(target.with_name("scpln.db.bak-20261122_1200")),
        units=(),
        old=FileIdentity.of(target),
        sidecars=swap.sidecars(target),
        new=FileIdentity.of(staging / "new.db"),
    )


def set_aside(journal: Journal) -> Journal:
    swap.set_aside(journal)
    target = Path(journal.target)
    return replace(journal, journalled=target.exists() and swap.has_journal(target))


def prepare(journal: Journal) -> Journal:
    folded = swap.prepare_fold(journal) if journal.journalled else None
    return replace(journal, folded=folded, dropped=folded is None)


def fold(journal: Journal) -> Journal:
    if journal.folded is not None:
        swap.fold(journal)
    return journal


def swap_in(journal: Journal) -> Journal:
    swap.swap(journal)
    return journal


STEPS: tuple[Step, ...] = (set_aside, prepare, fold, swap_in)
EVERY_STEP = range(len(STEPS) + 1)


def after(journal: Journal, steps: int, *, times: int = 1) -> Journal:
    for step in STEPS[:steps]:
        for _ in range(times):
            journal = step(journal)
    return journal


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_at_every_step_the_old_or_the_new_content(tmp_path: Path, kind: str, times: int) -> None:
    journal = begun(tmp_path, kind)
    target = Path(journal.target)
    old, new = content(target), content(swap.new_database(journal))
    before = bytes_of_set(target)
    seen = [old]
    for step in STEPS:
        for _ in range(times):
            journal = step(journal)
            seen.append(content(target))
    assert set(seen) == {old, new}
    assert seen == sorted(seen, key=(old, new).index), "back and forth"
    assert seen[-1] == new
    assert swap.swapped(journal)
    assert names(target.parent) == [".scpln.db.restore", "scpln.db", "scpln.db.bak-20261122_1200"]
    assert content(Path(journal.set_aside) / target.name) == old
    assert bytes_of_set(Path(journal.set_aside) / target.name) == before, "the set that was set aside was changed"


@pytest.mark.parametrize("steps", EVERY_STEP)
@pytest.mark.parametrize("kind", KINDS)
def test_put_back_from_every_step(tmp_path: Path, kind: str, steps: int) -> None:
    journal = begun(tmp_path, kind)
    target = Path(journal.target)
    before, old = bytes_of_set(target), content(target)
    journal = after(journal, steps)
    for _ in range(2):
        assert swap.put_back(journal) is None
        assert content(target) == old
        assert bytes_of_set(target) == before, "not the very files that were there"
    swap.clear(journal, forget_old=True)
    assert bytes_of_set(target) == before
    assert not [name for name in names(target.parent) if name.startswith((".", "scpln.db.bak"))]
    swap.clear(journal, forget_old=True)


def written(target: Path, *, cleanly: bool) -> None:
    """The application was started after the crash, on what has the target's name, and ended so or so."""
    if cleanly:
        with closing(sqlite3.connect(target)) as database:
            database.execute(MARK)
            database.commit()
    else:
        killed(target, "PRAGMA journal_mode = WAL", "PRAGMA wal_autocheckpoint = 0", MARK)


@pytest.mark.parametrize("cleanly", [True, False], ids=["closed", "killed"])
@pytest.mark.parametrize("steps", EVERY_STEP)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("damaged_with_wal", "missing")])
def test_what_was_written_after_the_crash_is_never_lost(tmp_path: Path, kind: str, steps: int, cleanly: bool) -> None:
    journal = begun(tmp_path, kind)
    target = Path(journal.target)
    old, new = content(target), content(swap.new_database(journal))
    journal = after(journal, steps)
    if not target.exists():  # the application makes itself a new one
        for ending in ("-wal", "-shm"):
            target.with_name(target.name + ending).unlink(missing_ok=True)
        make(target, "made by the application", rows=3)
    was = content(target)
    written(target, cleanly=cleanly)
    marked = content(target)
    assert marked not in (was, old, new)
    for _ in range(2):
        kept = swap.put_back(journal)
        if was == new:
            assert kept is not None
            assert content(kept / target.name) == marked
            assert content(target) == old
        else:
            assert kept is None
            assert content(target) == marked
    swap.clear(journal, forget_old=True)
    assert content((kept or target.parent) / target.name) == marked


def test_the_journals_of_a_damaged_database_are_kept_when_it_was_written_to_without_them(tmp_path: Path) -> None:
    journal = begun(tmp_path, "damaged_with_wal")
    target = Path(journal.target)
    wal = bytes_of_set(target)["-wal"]
    journal = after(journal, 3)
    assert journal.dropped
    for ending in ("-wal", "-shm"):
        target.with_name(target.name + ending).unlink()
    with target.open("r+b") as file:
        file.write(b"by the application")
    for _ in range(2):
        kept = swap.put_back(journal)
        assert kept is not None
        swap.clear(journal, forget_old=True)
        assert bytes_of_set(kept / target.name)["-wal"] == wal
    assert target.read_bytes().startswith(b"by the application")


def test_the_wal_of_a_damaged_database_is_a_danger(tmp_path: Path) -> None:
    """Or the tests with that kind would prove nothing."""
    journal = begun(tmp_path, "damaged_with_wal")
    target, new = Path(journal.target), swap.new_database(journal)
    before = content(new)
    target.with_name(target.name + "-wal").rename(new.with_name(new.name + "-wal"))
    assert content(new) not in (before, DAMAGED)


def test_a_fold_that_the_disk_refuses_is_no_damage(tmp_path: Path) -> None:
    """Taken for damage, it would let the old file stand without its journal."""
    journal = set_aside(begun(tmp_path, "with_wal"))
    with pytest.raises(OSError, match=r"folded\.db"):
        swap.prepare_fold(replace(journal, staging=str(tmp_path / "gone")))
    folded = Path(journal.staging) / "folded.db-shm"
    folded.mkdir()
    with pytest.raises(OSError, match=r"folded\.db"):
        swap.prepare_fold(journal)


def test_a_database_that_somebody_else_put_there_is_left_alone(tmp_path: Path) -> None:
    journal = after(begun(tmp_path, "with_wal"), 4)
    target = Path(journal.target)
    make(tmp_path / "theirs.db", "theirs").replace(target)
    theirs = content(target)
    with pytest.raises(RestoreFailedError, match="neither the old database nor the restored one"):
        swap.put_back(journal)
    assert content(target) == theirs
    target.unlink()
    swap.put_back(journal)
    assert content(target) not in (theirs, MISSING, DAMAGED)


def test_a_database_that_vanished_before_anything_was_set_aside(tmp_path: Path) -> None:
    """Its -wal is all that is left of it; nothing is known of it that could be put back."""
    journal = begun(tmp_path, "with_wal")
    target = Path(journal.target)
    wal = bytes_of_set(target)["-wal"]
    target.unlink()
    assert swap.put_back(journal) is None
    assert bytes_of_set(target) == {"-wal": wal}


def copy_instead_of(link: Path) -> None:
    """What a file system without hard links would hold: another file of the same bytes."""
    copy = link.with_name(f"{link.name}.copy")
    shutil.copyfile(link, copy)
    copy.replace(link)


@pytest.mark.parametrize("kind", ["plain", "with_wal", "with_hot_journal", "with_persistent_journal"])
def test_put_back_twice_where_there_are_only_copies(tmp_path: Path, kind: str) -> None:
    """Without hard links what is put back is a copy, whose inode no journal knows."""
    journal = begun(tmp_path, kind)
    target = Path(journal.target)
    old = content(target)
    journal = after(journal, 4)
    for path in Path(journal.set_aside).iterdir():
        copy_instead_of(path)
    swap.put_back(journal)
    copy_instead_of(target)
    assert FileIdentity.of(target) != journal.old
    swap.put_back(journal)
    assert content(target) == old
    swap.clear(journal, forget_old=True)
    assert content(target) == old


def test_the_folded_file_and_the_new_one_look_like_the_old_one(tmp_path: Path) -> None:
    journal = begun(tmp_path, "with_wal")
    target = Path(journal.target)
    target.chmod(0o640)
    os.setxattr(target, "user.note", b"keep me")
    os.setxattr(swap.new_database(journal), "user.stray", b"not the old one's")
    swap.take_over_attributes(swap.new_database(journal), target)
    for step in STEPS:
        journal = step(journal)
        assert target.stat().st_mode & 0o7777 == 0o640
        assert {name: os.getxattr(target, name) for name in os.listxattr(target)} == {"user.note": b"keep me"}
