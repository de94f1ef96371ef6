"""A run that is killed, or told "no space" or "I/O error", at every one of its writes, syncs, renames and unlinks.

Whatever happens at whichever point: what is listed as verified restores, nothing earlier is lost, the live database
is untouched, a failure says so in one line and in the record, and the next run leaves nothing behind.

By default neighbours that do the same to the same file (SQLite's writes to one journal) are represented by the first
and the last, the catalog's middle transactions by their beginning and their commit, and a point gets one of the two
errors; `-m large` strikes every single point with each.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from scpln_backup.model import Outcome
from support.fault_house import (
    FaultHouse,
    Past,
    build,
    copied,
    distinct,
    each,
    expect_clear,
    make_database,
    shared_out,
    struck,
    without_repeated_transactions,
)
from support.faults import KILLED, Call, Process, why_impossible

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible())),
]

ERRORS = ("error=ENOSPC", "error=EIO")
RUN = ("backup", "--json")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> FaultHouse:
    """The house that every case gets a copy of."""
    return build(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def points(house: FaultHouse, tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """Every point of a run that publishes an artifact and sweeps another."""
    return copied(house, tmp_path_factory.mktemp("recorded") / "house").program.record(*RUN)


def test_the_recording_names_every_kind_of_point(points: list[Call]) -> None:
    """The enumeration is only worth what it finds: these are the writes that the design speaks of."""
    kinds = {(call.process, call.name, call.where.rpartition("/")[2]) for call in points}
    assert kinds >= {
        (Process.WORKER, "openat", "copy.db"),
        (Process.WORKER, "pwrite64", "copy.db"),
        (Process.WORKER, "ftruncate", "copy.db"),
        (Process.WORKER, "openat", "artifact"),
        (Process.WORKER, "write", "artifact"),
        (Process.WORKER, "fsync", "artifact"),
        (Process.WORKER, "unlink", "copy.db"),
        (Process.WORKER, "write", "pipe"),
        (Process.COMMAND, "write", ".NEW.json.HEX.tmp"),
        (Process.COMMAND, "rename", "NEW.json"),
        (Process.COMMAND, "rename", "NEW.sha256"),
        (Process.COMMAND, "renameat2", "NEW"),
        (Process.COMMAND, "pwrite64", "catalog.db"),
        (Process.COMMAND, "fdatasync", "catalog.db"),
        (Process.COMMAND, "unlink", "catalog.db-journal"),
        (Process.COMMAND, "write", "stdout"),
    }
    swept = [call for call in points if call.name == "unlink" and call.where.startswith("root/2")]
    assert len(swept) >= 3, "the run sweeps no artifact"


def kill(house: FaultHouse, points: list[Call], folder: Path) -> None:
    def check(call: Call) -> None:
        place = folder / f"{points.index(call)}"
        case, finished = struck(house, place, call, "signal=KILL", *RUN)
        if call.process is Process.COMMAND:
            assert finished.code == KILLED
        else:
            assert finished.code == 1
            expect_clear(finished)
        case.expect_next_run_clean(*case.expect_whole())
        shutil.rmtree(place)

    each(points, check)


def test_killed(house: FaultHouse, points: list[Call], tmp_path: Path) -> None:
    kill(house, without_repeated_transactions(distinct(points)), tmp_path)


@pytest.mark.large
def test_killed_at_every_single_point(house: FaultHouse, points: list[Call], tmp_path: Path) -> None:
    kill(house, points, tmp_path)


# What the run can do without: who holds a lock is only told to others, the journal's owner matters to root alone, and
# SQLite does not ask whether the sync of a folder went well.
HARMLESS = {
    *((name, f"state/{lock}.lock") for name in ("ftruncate", "pwrite64") for lock in ("daemon", "run")),
    ("fchown", "state/catalog.db-journal"),
    ("fdatasync", "state"),
}
# Without its lock or its catalog no run can be begun, nor recorded: the command says so and leaves everything alone.
NOT_BEGUN = {
    ("openat", "state/daemon.lock"),
    ("openat", "state/run.lock"),
    ("openat", "state/catalog.db"),
    ("fsync", "state"),
}


def refuse(house: FaultHouse, points: list[Call], folder: Path, fault: str) -> None:
    def check(call: Call) -> None:
        place = folder / f"{points.index(call)}"
        case, finished = struck(house, place, call, fault, *RUN)
        new = case.expect_whole()
        record = case.app.catalog.last_finished()
        assert record is not None
        if call.where == "stdout":  # the run went well; only its document could not be handed over
            assert (finished.code, finished.stdout, record.outcome) == (1, "", Outcome.SUCCESS)
            assert finished.stderr.startswith("error: the output cannot be written: ")
            assert len(new) == finished.stderr.count("\n") == 1
        elif (call.name, call.where) in HARMLESS:
            assert finished.code == 0, finished.stderr
            assert (record.outcome, [record.artifact]) == (Outcome.SUCCESS, list(new))
        elif finished.code == 0:  # it was recorded whole, and is told of later
            assert (record.outcome, [record.artifact]) == (Outcome.SUCCESS, list(new))
            assert call.where.partition("/")[0] in {"audit.log", "state"}
            assert "warning: " in finished.stderr.lower()
        else:
            assert finished.code == 1
            document = expect_clear(finished)
            if call.where != "pipe":
                assert f"{place}/{call.where.partition('/')[0]}" in document["error"], document["error"]
            if (call.name, call.where) in NOT_BEGUN:
                assert not new
                assert "outcome" not in document
            else:
                assert record.outcome is not Outcome.SUCCESS, record  # so backup_success is 0
                assert document["outcome"] == ("degraded" if new else "failed")
                assert document["artifact"] == next(iter(new), None)
        case.expect_next_run_clean(*new)
        shutil.rmtree(place)

    each(points, check)


@pytest.mark.parametrize("fault", ERRORS)
def test_refused(house: FaultHouse, points: list[Call], tmp_path: Path, fault: str) -> None:
    refuse(house, shared_out(without_repeated_transactions(distinct(points)), fault), tmp_path, fault)


@pytest.mark.large
@pytest.mark.parametrize("fault", ERRORS)
def test_refused_at_every_single_point(house: FaultHouse, points: list[Call], tmp_path: Path, fault: str) -> None:
    refuse(house, points, tmp_path, fault)


FAULTS = ("signal=KILL", *ERRORS)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_first_run_of_all(tmp_path: Path, fault: str) -> None:
    """Where there is no state folder and no root yet: what makes them, and what makes the catalog."""
    make_database(tmp_path / "new" / "data" / "scpln.db", 1)
    new = FaultHouse(tmp_path / "new", Past())
    seen = copied(new, tmp_path / "recorded").program.record(*RUN)
    begin = next(index for index, call in enumerate(seen) if call.where == "pipe")
    points = distinct(seen[:begin])
    places = {call.where for call in points}
    assert places >= {"state", "root", "root/.staging", "state/catalog.db"}

    def check(call: Call) -> None:
        case, finished = struck(new, tmp_path / f"{points.index(call)}", call, fault, *RUN)
        if fault == "signal=KILL":
            assert finished.code == KILLED
        elif (call.name, call.where) in HARMLESS:
            assert finished.code == 0, finished.stderr
        elif finished.code == 0:  # the channels could not be noted, which the next one makes up for
            assert call.where.startswith("state/")
            assert "WARNING: " in finished.stderr
        else:
            assert finished.code == 1
            expect_clear(finished)
            record = case.app.catalog.last_finished()
            assert record is None or record.outcome is not Outcome.SUCCESS
        case.expect_next_run_clean(*case.expect_whole())

    each(shared_out(points, fault), check)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_copy_of_a_database_in_wal_mode(house: FaultHouse, tmp_path: Path, fault: str) -> None:
    """It is made another way, while the application has the database open."""
    house = copied(house, tmp_path / "wal")
    with closing(sqlite3.connect(house.database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    with open_in_the_application(copied(house, tmp_path / "recorded")) as recorded:
        seen = recorded.program.record(*RUN)
    # The application's own -wal and -shm are opened to be created if need be, and if that fails to be read.
    ours = [call for call in seen if call.process is Process.WORKER and not call.where.startswith("data")]
    points = distinct(ours)
    assert any(call.name == "pwrite64" and call.where == "root/.staging/copy.db" for call in points)

    def check(call: Call) -> None:
        place = tmp_path / f"{points.index(call)}"
        with open_in_the_application(copied(house, place)) as case:
            finished = case.program.strike(call, fault, *RUN)
            assert finished.struck is not None
            if call.where != "pipe":  # whose number hangs on timing
                assert finished.struck == call
            case.wait_until_free()
            assert finished.code == 1
            error = expect_clear(finished)["error"]
            if fault in ERRORS and call.where != "pipe":
                assert f"{place}/{call.where}" in error, error
            case.expect_next_run_clean(*case.expect_whole())
        shutil.rmtree(place)

    each(shared_out(points, fault), check)


@contextmanager
def open_in_the_application(house: FaultHouse) -> Iterator[FaultHouse]:
    """The house again, while somebody has its database open and the newest row is in the WAL only."""
    with closing(sqlite3.connect(house.database, isolation_level=None)) as connection:
        connection.execute("INSERT INTO parts VALUES (-1, 3, 'in the WAL')")
        yield FaultHouse(house.folder, house.past)
