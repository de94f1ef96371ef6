"""stages/snapshot.py: a consistent copy whatever the application does meanwhile, and nothing done to its database.

The application is another process (`Session`), as POSIX locks are between processes.  What happens between the two
passes is done from the first pass's progress callback, so it happens there in every run.
"""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import pytest

from scpln_backup.errors import (
    ArtifactError,
    HotJournalError,
    NotADatabaseError,
    SourceBusyError,
    SourceCorruptError,
    SourceError,
    SourceTruncatedError,
)
from scpln_backup.stages import check, copying, rollback, snapshot
from scpln_backup.stages.blocks import BLOCK
from support import databases
from support.databases import names
from support.writer import Session

PIECE = snapshot.PIECE
# Long enough for a slow machine, short enough for a test that must run into it.
PATIENT = snapshot.Limits(wait_seconds=30.0, block_seconds=30.0, workers=2)
HASTY = snapshot.Limits(wait_seconds=0.3, block_seconds=30.0, workers=2)


def nothing(_done: int, _total: int) -> None:
    pass


class Between:
    """A progress callback that acts once, when the first pass has read the file up to its end."""

    def __init__(self, *actions) -> None:
        self._actions = list(actions)

    def __call__(self, done: int, total: int) -> None:
        if done >= total:
            while self._actions:
                self._actions.pop(0)()


@pytest.fixture(scope="module")
def grown(tmp_path_factory) -> Path:
    """Four MiB: sixteen pieces."""
    return databases.grow(tmp_path_factory.mktemp("grown") / "scpln.db", 4)


@pytest.fixture
def path(tmp_path, grown) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return Path(shutil.copyfile(grown, folder / "scpln.db"))


@pytest.fixture
def wal_path(path) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
    return path


@pytest.fixture
def copy(tmp_path) -> Path:
    folder = tmp_path / "staging"
    folder.mkdir()
    return folder / "copy.db"


def checked(copy: Path) -> str:
    """The content of a copy that is sound and alone in its folder."""
    assert names(copy.parent) == ["copy.db"]
    assert copy.stat().st_mode & 0o077 == 0
    check.examine(copy)
    return databases.content_sha256(copy)


def files(folder: Path) -> dict[str, bytes]:
    return {found.name: found.read_bytes() for found in folder.iterdir()}


def hot_journal(path: Path) -> None:
    """Crash the application in a transaction that has written to the database file already."""
    with Session(path, "PRAGMA cache_size = 5", "BEGIN", "UPDATE runs SET summary = summary || 'lost'") as application:
        application.run("UPDATE plan_series SET demand = demand + 1")
        application.kill()
    assert (path.parent / "scpln.db-journal").stat().st_size > 512


# Rollback-journal mode


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
def test_an_idle_source_is_copied_byte_for_byte(tmp_path, copy, page_size):
    folder = tmp_path / "data"
    folder.mkdir()
    path = databases.grow(folder / "scpln.db", 2.1, page_size=page_size)
    before = files(folder)
    facts = snapshot.take(path, copy, PATIENT, nothing)
    assert copy.read_bytes() == path.read_bytes()
    assert facts.pieces_rewritten == 0
    assert 0 < facts.writer_blocked_seconds < PATIENT.block_seconds
    assert files(folder) == before
    checked(copy)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_sizes_around_a_piece(tmp_path, copy, workers):
    path = tmp_path / "scpln.db"
    for pages in (2, 63, 64, 65, 128):
        path.unlink(missing_ok=True)
        copy.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE t (x)")
            db.execute("BEGIN")
            while path.stat().st_size < pages * 4096 and db.execute("PRAGMA page_count").fetchone()[0] < pages:
                db.execute("INSERT INTO t VALUES (randomblob(3000))")
            db.commit()
        assert path.stat().st_size == pages * 4096
        snapshot.take(path, copy, snapshot.Limits(30.0, 30.0, workers), nothing)
        assert copy.read_bytes() == path.read_bytes()


def test_progress_is_in_bytes_and_reaches_the_end(path, copy):
    seen = []
    snapshot.take(path, copy, PATIENT, lambda done, total: seen.append((done, total)))
    size = path.stat().st_size
    done = [done for done, _ in seen]
    assert done == sorted(set(done))
    assert len(done) == -(-size // BLOCK)  # each block once, in whatever order they are ready
    assert seen[-1] == (size, size)
    assert {total for _, total in seen} == {size}


def test_pages_changed_between_the_passes_are_rewritten_and_no_others(path, copy):
    with Session(path) as application:
        last = application.run("SELECT max(rowid) FROM runs")[0][0]
        facts = snapshot.take(
            path,
            copy,
            PATIENT,
            Between(lambda: application.run(f"UPDATE runs SET duration_ms = 1000000 WHERE rowid = {last}")),
        )
    assert copy.read_bytes() == path.read_bytes()
    assert facts.pieces_rewritten in (1, 2)  # the header's page and the row's
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("SELECT duration_ms FROM runs WHERE rowid = ?", (last,)).fetchone() == (1000000,)


def test_a_source_that_grows_between_the_passes(path, copy):
    before = path.stat().st_size
    with Session(path) as application:
        snapshot.take(
            path,
            copy,
            PATIENT,
            Between(
                lambda: application.run("CREATE TABLE more AS SELECT * FROM runs"),
                lambda: application.run("INSERT INTO more SELECT * FROM more"),
            ),
        )
    assert copy.stat().st_size > before + 10 * PIECE
    assert copy.read_bytes() == path.read_bytes()
    checked(copy)


def test_a_source_that_shrinks_between_the_passes(path, copy):
    before = path.stat().st_size
    with Session(path) as application:
        snapshot.take(
            path,
            copy,
            PATIENT,
            Between(lambda: application.run("DELETE FROM runs"), lambda: application.run("VACUUM")),
        )
    assert copy.stat().st_size < before - 10 * PIECE
    assert copy.read_bytes() == path.read_bytes()
    checked(copy)


def test_a_source_that_shrinks_while_it_is_first_read(path, copy):
    before = path.stat().st_size
    with Session(path, "DELETE FROM runs") as application:
        actions = [lambda: application.run("VACUUM")]

        def early(_done, _total):
            while actions:
                actions.pop()()

        snapshot.take(path, copy, PATIENT, early)
    assert copy.stat().st_size < before - 10 * PIECE
    assert copy.read_bytes() == path.read_bytes()
    checked(copy)


def test_a_transaction_that_spilled_and_was_rolled_back_between_the_passes(path, copy):
    """It leaves the file change counter as it was, so only a comparison of everything can tell."""
    counter = path.read_bytes()[24:28]
    with Session(path, "PRAGMA cache_size = 5", "BEGIN", "UPDATE runs SET summary = 'rolled back'") as application:
        torn = path.read_bytes()
        facts = snapshot.take(path, copy, PATIENT, Between(lambda: application.run("ROLLBACK")))
    assert torn != path.read_bytes()
    assert path.read_bytes()[24:28] == counter
    assert facts.pieces_rewritten > 0
    assert copy.read_bytes() == path.read_bytes()
    checked(copy)


def test_a_transaction_open_all_the_while_is_not_in_the_copy(path, copy):
    """Its writer has a RESERVED lock and nothing in the file yet: readers need not wait for it."""
    before = path.read_bytes()
    with Session(path, "BEGIN IMMEDIATE", "UPDATE configs SET name = 'not yet'") as application:
        snapshot.take(path, copy, HASTY, nothing)
        assert copy.read_bytes() == before
        application.run("COMMIT")


def test_writers_wait_for_the_locked_pass_and_for_nothing_else(path, copy, monkeypatch):
    seen = {}
    compare = rollback._Source.compare

    def watched(*arguments):
        seen["locked"] = committed()
        compare(*arguments)

    def committed() -> str:
        try:
            application.run("UPDATE configs SET updated_at = updated_at + 1")
        except sqlite3.OperationalError as error:
            return str(error)
        return "ok"

    monkeypatch.setattr(rollback._Source, "compare", watched)
    with Session(path, "PRAGMA busy_timeout = 0") as application:
        snapshot.take(path, copy, PATIENT, lambda *_: seen.setdefault("first pass", committed()))
        seen["afterwards"] = committed()
    assert seen == {
        "first pass": "ok",
        "locked": "OperationalError: database is locked",
        "afterwards": "ok",
    }


def test_a_writer_is_not_held_longer_than_the_limit(path, copy):
    with Session(path, "PRAGMA busy_timeout = 0") as application:
        with pytest.raises(SourceBusyError, match=r"longer than 1e-06 s, .* writer_block_limit_seconds"):
            snapshot.take(path, copy, snapshot.Limits(5.0, 1e-6, 2), nothing)
        application.run("DELETE FROM plan_kpis")


# Locks and hot journals


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param(["BEGIN EXCLUSIVE"], id="exclusive transaction"),
        pytest.param(["PRAGMA locking_mode = EXCLUSIVE", "DELETE FROM plan_kpis"], id="exclusive locking mode"),
    ],
)
def test_a_locked_source_is_waited_for_within_the_limit(path, copy, statements):
    with Session(path, *statements) as application:
        before = files(path.parent)
        with pytest.raises(SourceBusyError, match=r"locked by another process for more than 0.3 s.*fuser") as caught:
            snapshot.take(path, copy, HASTY, nothing)
        assert "\n" not in str(caught.value)
        assert files(path.parent) == before
        application.run("PRAGMA user_version")  # and it has its lock still


def test_a_lock_released_in_time_costs_nothing_but_time(path, copy):
    with Session(path, "BEGIN EXCLUSIVE", "DELETE FROM plan_kpis") as application:
        released = threading.Thread(target=application.run, args=["COMMIT"])
        snapshot.take(path, copy, PATIENT, Between(released.start))
        released.join()
    assert copy.read_bytes() == path.read_bytes()


def test_a_hot_journal_is_reported_and_left_alone(path, copy):
    hot_journal(path)
    before = files(path.parent)
    with pytest.raises(HotJournalError, match=r"scpln.db-journal is hot.*start the application") as caught:
        snapshot.take(path, copy, HASTY, nothing)
    assert "\n" not in str(caught.value)
    assert files(path.parent) == before


def test_a_hot_journal_that_the_application_rolls_back_meanwhile(path, copy, monkeypatch):
    content = databases.content_sha256(path)
    hot_journal(path)
    waited = []
    with Session(path) as application:

        def application_starts(seconds: float) -> None:
            waited.append(application.run("SELECT count(*) FROM runs"))

        monkeypatch.setattr(copying.time, "sleep", application_starts)
        snapshot.take(path, copy, PATIENT, nothing)
    assert len(waited) == 1
    assert copy.read_bytes() == path.read_bytes()
    assert checked(copy) == content


# WAL mode


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_wal_a_closed_source_is_copied(tmp_path, copy, page_size):
    folder = tmp_path / "data"
    folder.mkdir()
    path = databases.grow(folder / "scpln.db", 2, "wal", page_size=page_size)
    before = path.read_bytes()
    facts = snapshot.take(path, copy, PATIENT, nothing)
    assert facts.writer_blocked_seconds == 0
    assert path.read_bytes() == before
    assert checked(copy) == databases.content_sha256(path)


def test_wal_frames_are_in_the_copy_and_stay_in_the_wal(wal_path, copy):
    wal = wal_path.with_name("scpln.db-wal")
    with Session(wal_path, "UPDATE runs SET summary = 'in the wal'", "DELETE FROM plan_kpis") as application:
        before = files(wal_path.parent)
        assert len(before["scpln.db-wal"]) > 0
        facts = snapshot.take(wal_path, copy, PATIENT, nothing)
        after = files(wal_path.parent)
        assert facts.wal_growth_bytes == 0
        assert {name: after[name] for name in ("scpln.db", "scpln.db-wal")} == {
            name: before[name] for name in ("scpln.db", "scpln.db-wal")
        }
        assert application.run("SELECT DISTINCT summary FROM runs") == [["in the wal"]]
        application.run("UPDATE runs SET summary = 'and on'")
        assert wal.stat().st_size > len(before["scpln.db-wal"])
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("SELECT DISTINCT summary FROM runs").fetchall() == [("in the wal",)]


def test_wal_what_is_committed_during_the_copy_is_not_in_it(wal_path, copy):
    content = databases.content_sha256(wal_path)
    with Session(wal_path, "PRAGMA busy_timeout = 0", "PRAGMA wal_autocheckpoint = 1") as application:
        commits = iter(range(100))

        def commit(_done, _total):
            if next(commits, None) is not None:
                application.run("UPDATE runs SET summary = summary || 'later'")

        facts = snapshot.take(wal_path, copy, PATIENT, commit)
    assert facts.wal_growth_bytes > 0
    assert checked(copy) == content


def test_wal_a_crashed_application_without_its_shm(wal_path, copy):
    """As after a power cut: committed frames in the -wal, and nobody who has read them."""
    with Session(wal_path, "DELETE FROM plan_series") as application:
        application.kill()
    wal_path.with_name("scpln.db-shm").unlink()
    before = files(wal_path.parent)
    snapshot.take(wal_path, copy, PATIENT, nothing)
    after = files(wal_path.parent)
    assert {name: after[name] for name in before} == before
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("SELECT count(*) FROM plan_series").fetchone() == (0,)
    assert len(before["scpln.db-wal"]) > 0


def test_wal_what_appears_beside_the_source_is_its_owners(wal_path, copy):
    """SQLite needs a -shm to read; the application finds it usable, whoever of the two goes last."""
    status = wal_path.stat()
    snapshot.take(wal_path, copy, PATIENT, nothing)
    for beside in wal_path.parent.iterdir():
        found = beside.stat()
        assert (found.st_uid, found.st_gid, found.st_mode) == (status.st_uid, status.st_gid, status.st_mode)
    with Session(wal_path, "DELETE FROM plan_kpis") as application:
        assert application.run("SELECT count(*) FROM plan_kpis") == [[0]]


def test_wal_locked_by_an_exclusive_application(path, copy):
    with Session(path, "PRAGMA locking_mode = EXCLUSIVE", "PRAGMA journal_mode = WAL", "DELETE FROM plan_kpis"):
        before = files(path.parent)
        with pytest.raises(SourceBusyError, match="locked by another process"):
            snapshot.take(path, copy, HASTY, nothing)
        assert files(path.parent) == before


def test_wal_that_grows_too_much_ends_the_copy(tmp_path, copy):
    """The disk it fills is the application's: here one of 24 MiB, of which the -wal may take half of what is free."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        path = databases.grow(disk / "scpln.db", 5, "wal")
        with Session(path) as application:

            def write(_done, _total):
                application.run("UPDATE runs SET summary = summary || 'more'")

            with pytest.raises(SourceError, match=r"-wal file grew by more than .* half of what was free") as caught:
                snapshot.take(path, copy, PATIENT, write)
            assert "\n" not in str(caught.value)
            application.run("PRAGMA wal_checkpoint(TRUNCATE)")  # and nothing holds the application back any more
            assert path.with_name("scpln.db-wal").stat().st_size == 0
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


# A source that may be the database it was the last time


class Last:
    """The database of an earlier run. `read` counts the blocks that were asked for."""

    def __init__(self, content: bytes, sha256: str | None = None) -> None:
        self.content = content
        self.size_bytes = len(content)
        self.sha256 = sha256 or hashlib.sha256(content).hexdigest()
        self.read = 0

    def each(self, function):
        for offset in range(0, len(self.content), 1 << 20):
            self.read += 1
            yield function(offset, self.content[offset : offset + (1 << 20)])


class Damaged(Last):
    def each(self, function):
        yield from super().each(function)
        raise ArtifactError("it is damaged")


def last_of(path: Path, copy: Path) -> Last:
    """What a run of today would have kept."""
    snapshot.take(path, copy, PATIENT, nothing)
    content = copy.read_bytes()
    copy.unlink()
    return Last(content)


BOTH_MODES = pytest.mark.parametrize("source", ["path", "wal_path"])


@BOTH_MODES
def test_an_unchanged_source_is_not_copied(request, source, copy):
    path = request.getfixturevalue(source)
    known = last_of(path, copy)
    before = files(path.parent)
    facts = snapshot.take(path, copy, PATIENT, nothing, known)
    assert facts.unchanged
    assert names(copy.parent) == []
    assert (facts.writer_blocked_seconds > 0) == (source == "path")
    assert {name: found for name, found in files(path.parent).items() if name in before} == before


def test_an_unchanged_source_is_never_written_out(path, copy, monkeypatch):
    known = last_of(path, copy)
    monkeypatch.delattr(os, "pwrite")
    assert snapshot.take(path, copy, PATIENT, nothing, known).unchanged


def test_times_mean_nothing(path, copy):
    known = last_of(path, copy)
    os.utime(path, (1, 1))
    assert snapshot.take(path, copy, PATIENT, nothing, known).unchanged


@BOTH_MODES
def test_a_changed_source_is_copied(request, source, copy):
    path = request.getfixturevalue(source)
    known = last_of(path, copy)
    with Session(path, "UPDATE runs SET duration_ms = duration_ms + 1"):
        facts = snapshot.take(path, copy, PATIENT, nothing, known)
    assert not facts.unchanged
    assert checked(copy) == databases.content_sha256(path)


def test_a_commit_is_seen_on_the_first_page(path, copy):
    """So that the nights on which something changed don't pay for those on which nothing did."""
    known = last_of(path, copy)
    assert known.size_bytes > 2 << 20
    with Session(path) as application:
        last = application.run("SELECT max(rowid) FROM runs")[0][0]
        application.run(f"UPDATE runs SET duration_ms = 1000000 WHERE rowid = {last}")
    assert not snapshot.take(path, copy, PATIENT, nothing, known).unchanged
    assert known.read <= 2  # once by the source, once by its copy


def test_a_byte_that_no_commit_has_changed_is_seen(path, copy):
    """Damage leaves the change counter, the size and, set back, the time of the file as they were."""
    known = last_of(path, copy)
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)
        file.seek(-100, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    facts = snapshot.take(path, copy, PATIENT, nothing, known)
    assert not facts.unchanged
    assert copy.read_bytes() == path.read_bytes()


def test_a_source_that_changes_after_it_was_compared(path, copy):
    known = last_of(path, copy)
    with Session(path) as application:
        facts = snapshot.take(
            path, copy, PATIENT, Between(lambda: application.run("UPDATE runs SET summary = 'changed'")), known
        )
    assert not facts.unchanged
    assert copy.read_bytes() == path.read_bytes()


def test_a_source_that_grows_after_it_was_compared(path, copy):
    known = last_of(path, copy)
    with Session(path) as application:
        grown = Between(lambda: application.run("CREATE TABLE more AS SELECT * FROM runs"))
        assert not snapshot.take(path, copy, PATIENT, grown, known).unchanged
    assert copy.read_bytes() == path.read_bytes()


def test_a_source_that_is_longer_after_it_was_compared(path, copy):
    """No commit adds to the file without changing the first page, but damage does."""
    known = last_of(path, copy)
    damage = Between(lambda: os.truncate(path, known.size_bytes + PIECE))
    assert not snapshot.take(path, copy, PATIENT, damage, known).unchanged
    assert copy.read_bytes() == path.read_bytes()


def test_a_source_that_is_cut_off_after_it_was_compared(path, copy):
    known = last_of(path, copy)
    with pytest.raises(SourceTruncatedError):
        snapshot.take(path, copy, PATIENT, Between(lambda: os.truncate(path, known.size_bytes - PIECE)), known)


def test_a_source_replaced_after_it_was_compared(path, copy):
    known = last_of(path, copy)
    new = path.with_name("new.db")
    shutil.copyfile(databases.SAMPLE, new)
    assert not snapshot.take(path, copy, PATIENT, Between(lambda: new.rename(path)), known).unchanged
    assert copy.read_bytes() == databases.SAMPLE.read_bytes()


def test_a_rolled_back_transaction_changes_nothing(path, copy):
    known = last_of(path, copy)
    with Session(path, "PRAGMA cache_size = 5", "BEGIN", "UPDATE runs SET summary = 'rolled back'") as application:
        application.run("ROLLBACK")
        assert snapshot.take(path, copy, PATIENT, nothing, known).unchanged


@BOTH_MODES
def test_a_known_database_of_another_sha256_is_none(request, source, copy):
    """Its bytes are the source's, and its manifest says that it is something else."""
    path = request.getfixturevalue(source)
    known = Last(last_of(path, copy).content, sha256="0" * 64)
    assert not snapshot.take(path, copy, PATIENT, nothing, known).unchanged
    assert checked(copy) == databases.content_sha256(path)


@BOTH_MODES
def test_a_known_database_that_turns_out_damaged(request, source, copy):
    path = request.getfixturevalue(source)
    known = Damaged(last_of(path, copy).content)
    with pytest.raises(ArtifactError, match="it is damaged"):
        snapshot.take(path, copy, PATIENT, nothing, known)
    assert names(copy.parent) == []
    snapshot.take(path, copy, PATIENT, nothing)


def test_comparing_holds_writers_no_longer_than_the_limit(path, copy):
    known = last_of(path, copy)
    with pytest.raises(SourceBusyError, match="longer than 1e-06 s"):
        snapshot.take(path, copy, snapshot.Limits(5.0, 1e-6, 2), nothing, known)


# The application comes first


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, monkeypatch) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        monkeypatch.setattr(copying.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(copying.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@BOTH_MODES
def test_the_bandwidth_limit(request, source, copy, monkeypatch):
    path = request.getfixturevalue(source)
    limits = snapshot.Limits(30.0, 30.0, 2, bytes_per_second=1 << 20)
    clock = Clock(monkeypatch)
    facts = snapshot.take(path, copy, limits, nothing)
    assert sum(clock.slept) == pytest.approx(path.stat().st_size / (1 << 20), abs=0.11)
    assert facts.writer_blocked_seconds == 0  # on that clock: nobody slept under the lock
    assert checked(copy) == databases.content_sha256(path)


def test_the_bandwidth_limit_where_nothing_has_changed(path, copy, monkeypatch):
    known = last_of(path, copy)
    limits = snapshot.Limits(30.0, 30.0, 2, bytes_per_second=1 << 20)
    clock = Clock(monkeypatch)
    facts = snapshot.take(path, copy, limits, nothing, known)
    assert facts.unchanged
    assert facts.writer_blocked_seconds == 0
    assert sum(clock.slept) == pytest.approx(path.stat().st_size / (1 << 20), abs=0.11)


def io_class() -> str:
    """The calling thread's, as ionice(1) tells it."""
    asked = ["ionice", "-p", str(threading.get_native_id())]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0].rstrip(":")


@pytest.mark.parametrize("unchanged", [False, True])
def test_the_disk_is_left_to_others_but_not_under_the_lock(path, copy, monkeypatch, unchanged):
    known = last_of(path, copy) if unchanged else None
    usual, seen = io_class(), {}
    fill, compare = copying.fill, rollback._Source.compare

    def watched(*arguments):
        seen["locked"] = {io_class()}
        monkeypatch.setattr(rollback, "fill", reading)
        compare(*arguments)

    def reading(*arguments):
        seen["locked"].add(io_class())
        return fill(*arguments)

    monkeypatch.setattr(rollback._Source, "compare", watched)
    facts = snapshot.take(path, copy, PATIENT, lambda *_: seen.setdefault("first pass", io_class()), known)
    assert facts.unchanged == unchanged
    assert seen == {"first pass": "idle", "locked": {usual}}
    assert usual != "idle"
    assert io_class() == usual


def test_wal_the_disk_is_left_to_others(wal_path, copy):
    seen = []
    snapshot.take(wal_path, copy, PATIENT, lambda *_: seen.append(io_class()))
    assert set(seen) == {"idle"}
    assert io_class() != "idle"


# The journal mode, changed under way


def test_switched_to_wal_between_the_passes(path, copy):
    with Session(path) as application:
        snapshot.take(
            path,
            copy,
            PATIENT,
            Between(
                lambda: application.run("PRAGMA journal_mode = WAL"),
                lambda: application.run("UPDATE runs SET summary = 'in the wal'"),
            ),
        )
        with closing(sqlite3.connect(copy)) as db:
            assert db.execute("SELECT DISTINCT summary FROM runs").fetchall() == [("in the wal",)]


def test_switched_from_wal_before_the_copy_began(wal_path, copy, monkeypatch):
    look = snapshot.live.inspect
    with Session(wal_path) as application:

        def inspect(path):
            facts = look(path)
            application.run("PRAGMA journal_mode = DELETE")
            return facts

        monkeypatch.setattr(snapshot.live, "inspect", inspect)
        snapshot.take(wal_path, copy, PATIENT, nothing)
    assert copy.read_bytes() == wal_path.read_bytes()


def test_a_journal_mode_that_keeps_changing_is_given_up(path, copy, monkeypatch):
    look = snapshot.live.inspect

    def inspect(path):
        facts = look(path)
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA journal_mode = {'DELETE' if facts.header.wal else 'WAL'}")
        return facts

    monkeypatch.setattr(snapshot.live, "inspect", inspect)
    with pytest.raises(SourceError, match="keeps changing"):
        snapshot.take(path, copy, PATIENT, nothing)


def test_a_source_replaced_between_the_passes(path, copy):
    """As a restore does: the new database is copied, not the file that has lost its name."""
    new = path.with_name("new.db")
    shutil.copyfile(databases.SAMPLE, new)
    snapshot.take(path, copy, PATIENT, Between(lambda: new.rename(path)))
    assert copy.read_bytes() == path.read_bytes() == databases.SAMPLE.read_bytes()


def test_a_source_that_disappears_between_the_passes(path, copy):
    with pytest.raises((SourceError, FileNotFoundError)):
        snapshot.take(path, copy, PATIENT, Between(path.unlink))
    assert names(path.parent) == []


# Damage


def test_a_truncated_source_is_named_so(path, copy):
    os.truncate(path, path.stat().st_size - 3 * 4096)
    with pytest.raises(SourceTruncatedError, match=f"^{path}: truncated: the header counts"):
        snapshot.take(path, copy, PATIENT, nothing)


def test_wal_a_truncated_source_is_named_so(wal_path, copy):
    os.truncate(wal_path, wal_path.stat().st_size - 3 * 4096)
    with pytest.raises(SourceTruncatedError, match=f"^{wal_path}: truncated: the header counts"):
        snapshot.take(wal_path, copy, PATIENT, nothing)


def test_a_header_that_sqlite_refuses(path, copy):
    raw = bytearray(path.read_bytes())
    raw[16:18] = (1000).to_bytes(2, "big")  # no power of two
    path.write_bytes(raw)
    with pytest.raises(NotADatabaseError, match="encrypted"):
        snapshot.take(path, copy, PATIENT, nothing)


def test_a_damaged_schema_page(path, copy):
    raw = bytearray(path.read_bytes())
    raw[100:4096] = b"\xff" * 3996
    path.write_bytes(raw)
    with pytest.raises(SourceCorruptError, match="malformed"):
        snapshot.take(path, copy, PATIENT, nothing)


def test_an_existing_copy_is_never_overwritten(path, copy):
    copy.write_bytes(b"somebody else's")
    with pytest.raises(FileExistsError):
        snapshot.take(path, copy, PATIENT, nothing)
    assert copy.read_bytes() == b"somebody else's"
