"""Restores, drills and incidents in the catalog, how an older catalog gets them, and who owns what root makes."""

import os
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from scpln_backup.errors import CatalogError, IncidentError
from scpln_backup.model import (
    DrillRecord,
    Incident,
    Loss,
    Outcome,
    RebuildRecord,
    RestoreOutcome,
    RestoreRecord,
    RunRecord,
    Step,
    TableFacts,
    TableLoss,
    Trigger,
)
from scpln_backup.records import rows, schema
from scpln_backup.records.catalog import Catalog
from scpln_backup.records.times import to_micros
from scpln_backup.support import files
from scpln_backup.support.locks import Lock
from support.place import Place

TOKYO = ZoneInfo("Asia/Tokyo")
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=TOKYO)
HOUR = timedelta(hours=1)
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to work in another user's folder")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "catalog.db"


@pytest.fixture
def catalog(path):
    return Catalog.open(path, TOKYO, NOW)


def query(path: Path, statement: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def restore(number: int = 0, **changes) -> RestoreRecord:
    made = RestoreRecord(
        started_at=NOW + number * HOUR,
        artifact="scpln-20261122_0230.db.gz",
        target="/opt/scpln/data/scpln.db",
        outcome=RestoreOutcome.SUCCESS,
        finished_at=NOW + number * HOUR + timedelta(minutes=4),
        replaced=True,
        loss=Loss(
            taken_at=NOW - 7 * HOUR,
            tables=(
                TableLoss(
                    name="runs",
                    before=TableFacts(rows=12, at_least=True, newest=NOW, column="updated_at", problem="page 7"),
                    after=None,
                ),
            ),
        ),
        steps=(Step(name="stop scpln-api.service", at=NOW, seconds=1.5, detail="slow"),),
        user="alice",
    )
    return replace(made, **changes)


def incident(number: int = 0, **changes) -> Incident:
    made = Incident(opened_at=NOW + number * HOUR, deadline_at=NOW + (number + 24) * HOUR, restore=restore(number))
    return replace(made, **changes)


def added(catalog: Catalog, number: int = 0, **changes) -> Incident:
    found = catalog.incident(catalog.add_incident(incident(number, **changes)))
    assert found is not None
    return found


class TestRestores:
    def test_one_comes_back_as_it_was(self, catalog):
        number = catalog.add_restore(restore())
        assert catalog.restores() == [replace(restore(), id=number)]
        (found,) = catalog.restores()
        assert found.loss.tables[0].before.newest.tzinfo is TOKYO
        assert found.steps[0].at.tzinfo is TOKYO

    def test_newest_first(self, catalog):
        ids = [catalog.add_restore(restore(number)) for number in range(3)]
        assert [found.id for found in catalog.restores()] == ids[::-1]
        assert [found.id for found in catalog.restores(limit=1)] == ids[-1:]

    def test_told_twice_it_is_one_and_the_later_word_counts(self, catalog):
        first = catalog.add_restore(restore(outcome=RestoreOutcome.FAILED, loss=None))
        assert catalog.add_restore(restore()) == first
        assert catalog.restores() == [replace(restore(), id=first)]
        other = catalog.add_restore(restore(target="/opt/scpln/data/other.db"))
        assert other != first

    def test_a_path_that_is_no_utf_8(self, catalog):
        odd = os.fsdecode(b"/b/\xff")
        catalog.add_restore(restore(set_aside=odd, steps=(Step(name="x", at=NOW, detail=odd),)))
        (found,) = catalog.restores()
        assert found.set_aside == found.steps[0].detail == "/b/\\udcff"

    @pytest.mark.parametrize("year", [1, 1850, 9999])
    def test_a_time_that_no_clock_ever_showed(self, catalog, year):
        """A column may hold anything; a record of a restore must not fail for it."""
        newest = datetime(year, 1, 1, tzinfo=TOKYO)
        facts = TableFacts(rows=1, newest=newest)
        loss = Loss(taken_at=NOW, tables=(TableLoss(name="t", before=facts, after=facts),))
        catalog.add_restore(restore(loss=loss))
        (found,) = catalog.restores()
        kept = found.loss.tables[0].before.newest
        assert abs(kept - newest.replace(tzinfo=kept.tzinfo)) < timedelta(hours=10)

    def test_nonsense_in_it_is_an_error_of_the_catalog(self, catalog, path):
        catalog.add_restore(restore())
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE restores SET steps = '[{\"name\": 7}]'")
        with pytest.raises(CatalogError, match="no version wrote"):
            catalog.restores()


TIMES = st.datetimes(datetime(1970, 1, 2), datetime(2500, 1, 1), timezones=st.sampled_from([UTC, TOKYO]))  # noqa: DTZ001 - the bounds of aware ones
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
FACTS = st.builds(
    TableFacts,
    rows=st.none() | st.integers(0, 2**62),
    at_least=st.booleans(),
    newest=st.none() | TIMES,
    column=st.none() | TEXTS,
    problem=st.none() | TEXTS,
)
LOSSES = st.builds(
    Loss,
    taken_at=TIMES,
    tables=st.lists(
        st.builds(TableLoss, name=TEXTS, before=st.none() | FACTS, after=st.none() | FACTS), max_size=3
    ).map(tuple),
    problem=st.none() | TEXTS,
)
STEPS = st.builds(Step, name=TEXTS, at=TIMES, seconds=st.floats(0, 1e6), detail=st.none() | TEXTS)
RESTORES = st.builds(
    RestoreRecord,
    started_at=TIMES,
    artifact=TEXTS,
    target=TEXTS,
    outcome=st.sampled_from(RestoreOutcome),
    finished_at=st.none() | TIMES,
    artifact_sha256=st.none() | TEXTS,
    taken_at=st.none() | TIMES,
    replaced=st.booleans(),
    set_aside=st.none() | TEXTS,
    loss=st.none() | LOSSES,
    steps=st.lists(STEPS, max_size=3).map(tuple),
    user=st.none() | TEXTS,
    error=st.none() | TEXTS,
)
REBUILDS = st.builds(
    RebuildRecord,
    started_at=TIMES,
    since=TEXTS,
    finished_at=st.none() | TIMES,
    outcome=st.sampled_from(Outcome),
    exit_code=st.none() | st.integers(-64, 255),
    output=st.none() | TEXTS,
    error=st.none() | TEXTS,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=RESTORES, rebuilds=st.lists(REBUILDS, max_size=2).map(tuple), scope=st.none() | TEXTS, closed=TIMES)
def test_whatever_was_recorded_comes_back(catalog, record, rebuilds, scope, closed):
    made = Incident(
        opened_at=record.started_at,
        deadline_at=closed,
        closed_at=closed,
        restore=record,
        rebuilds=rebuilds,
        scope=scope,
    )
    number = catalog.add_incident(made)
    catalog.update_incident(made)
    found = catalog.incident(number)
    assert replace(found, id=0, restore=replace(found.restore, id=0)) == made


class TestDrills:
    def test_under_way_and_after(self, catalog):
        number = catalog.begin_drill(Trigger.SCHEDULE, NOW)
        begun = DrillRecord(id=number, trigger=Trigger.SCHEDULE, started_at=NOW, error="interrupted")
        assert catalog.drills() == [begun]
        assert (begun.outcome, catalog.unfinished_drill(), catalog.last_drill()) == (Outcome.FAILED, begun, begun)
        assert catalog.last_drill(running_id=number) is None
        assert catalog.last_good_drill() is None
        done = replace(
            begun,
            outcome=Outcome.SUCCESS,
            finished_at=NOW + HOUR,
            artifact="scpln-20261122_0230.db.gz",
            restore_seconds=12.5,
            smoke_exit_code=0,
            output="/var/lib/scpln-backup/drills/1.log",
            error=None,
        )
        catalog.finish_drill(done)
        assert catalog.drills() == [done]
        assert catalog.last_drill() == catalog.last_good_drill() == done
        assert catalog.unfinished_drill() is None

    def test_a_failed_one_after_a_good_one(self, catalog):
        for outcome, seconds, trigger in (
            (Outcome.SUCCESS, 12.5, Trigger.CLI),
            (Outcome.FAILED, 13.5, Trigger.CLI),
            (Outcome.FAILED, None, Trigger.SCHEDULE),
        ):
            number = catalog.begin_drill(trigger, NOW)
            catalog.finish_drill(
                DrillRecord(
                    id=number,
                    trigger=trigger,
                    started_at=NOW,
                    finished_at=NOW,
                    outcome=outcome,
                    restore_seconds=seconds,
                )
            )
        assert catalog.last_drill().trigger is Trigger.SCHEDULE
        assert catalog.last_good_drill().restore_seconds == 12.5
        assert catalog.measured_restore_seconds() == 13.5
        assert len(catalog.drills(limit=2)) == 2

    def test_one_begun_in_a_catalog_that_was_lost_is_still_recorded(self, catalog):
        known = catalog.begin_drill(Trigger.CLI, NOW)
        catalog.finish_drill(DrillRecord(id=known, trigger=Trigger.CLI, started_at=NOW - HOUR, finished_at=NOW))
        assert [drill.started_at for drill in catalog.drills()] == [NOW - HOUR, NOW]


class TestIncidents:
    def test_one_comes_back_with_its_restore(self, catalog):
        number = catalog.add_restore(restore())
        found = added(catalog)
        assert found == incident(id=found.id, restore=restore(id=number))
        assert catalog.incidents() == catalog.open_incidents() == [found]
        assert catalog.open_incident() == found
        assert catalog.incident_deadline() == NOW + 24 * HOUR

    def test_a_restore_opens_one(self, catalog):
        first = added(catalog)
        catalog.update_incident(replace(first, scope="everybody"))
        assert added(catalog, deadline_at=NOW).id == first.id
        (found,) = catalog.incidents()
        assert (found.scope, found.deadline_at) == ("everybody", first.deadline_at)

    def test_the_earliest_deadline_of_the_open_ones_counts(self, catalog):
        first, second = added(catalog), added(catalog, 1)
        assert catalog.open_incident() == second
        assert [found.id for found in catalog.incidents()] == [second.id, first.id]
        assert catalog.incident_deadline() == first.deadline_at
        catalog.update_incident(replace(first, closed_at=NOW))
        assert catalog.incident_deadline() == second.deadline_at
        catalog.update_incident(replace(second, closed_at=NOW))
        assert (catalog.open_incident(), catalog.open_incidents(), catalog.incident_deadline()) == (None, [], None)

    def test_one_of_a_catalog_that_was_lost_is_still_recorded(self, catalog):
        added(catalog)
        stranger = incident(5, id=1, scope="of the lost one")
        catalog.update_incident(stranger)
        catalog.update_incident(stranger)
        assert [found.scope for found in catalog.incidents()] == ["of the lost one", None]

    def test_a_change_that_raises_changes_nothing(self, catalog):
        found = added(catalog)

        def change(_incident: Incident) -> Incident:
            raise IncidentError("not yet")

        with pytest.raises(IncidentError, match="not yet"):
            catalog.change_incident(found.id, change)
        assert catalog.incident(found.id) == found
        assert catalog.change_incident(found.id + 1, change) is None

    def test_changes_at_the_same_time_are_all_kept(self, catalog):
        number = added(catalog).id

        def work(place: int) -> None:
            record = RebuildRecord(started_at=NOW + place * HOUR, since="2026-11-22")
            catalog.change_incident(number, lambda found: replace(found, rebuilds=(*found.rebuilds, record)))

        threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(catalog.incident(number).rebuilds) == 8


def test_a_reader_of_nothing_gets_empty_answers(path):
    reader = Catalog.reader(path, TOKYO)
    assert (reader.restores(), reader.drills(), reader.incidents(), reader.open_incidents()) == ([], [], [], [])
    assert reader.last_drill() is reader.last_good_drill() is reader.unfinished_drill() is None
    assert reader.open_incident() is reader.incident(1) is reader.incident_deadline() is None
    assert reader.measured_restore_seconds() is None


# An older catalog


def older_version(path: Path, version: int) -> RunRecord:
    """A catalog as an older version left it, with a run in it that was finished and one that was killed."""
    path.parent.mkdir(exist_ok=True)
    run = RunRecord(id=1, trigger=Trigger.SCHEDULE, started_at=NOW, finished_at=NOW, outcome=Outcome.SUCCESS)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statements in schema.MIGRATIONS[:version]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
        at = to_micros(NOW)
        connection.execute("INSERT INTO meta VALUES ('installed_at', ?)", (str(at),))
        connection.execute("INSERT INTO slots VALUES ('backup', ?)", (at,))
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(runs)") if name != "id"]
        insert = f"INSERT INTO runs ({', '.join(columns)}) VALUES ({', '.join(f':{name}' for name in columns)})"
        connection.execute(insert, rows.run_to_row(run))
        connection.execute(insert, rows.run_to_row(rows.begun(Trigger.SCHEDULE, NOW + HOUR)))
    return run


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_an_older_catalog_keeps_everything(path, version):
    run = older_version(path, version)
    tables = "SELECT name FROM sqlite_schema"
    before = query(path, tables)
    updated = Catalog.open(path, TOKYO, NOW + HOUR)
    assert not updated.is_new
    assert query(path, "PRAGMA user_version") == [(schema.VERSION,)]
    killed, kept = updated.runs()
    assert (kept, killed.interrupted) == (run, True)
    assert (updated.slot("backup"), updated.installed_at()) == (NOW, NOW)
    assert set(before) <= set(query(path, tables))
    assert added(updated).restore.user == "alice"


def test_what_happened_before_there_was_an_outbox_is_no_news(path):
    older_version(path, 2)
    updated = Catalog.open(path, TOKYO, NOW + HOUR)
    updated.tell_broken_off_runs(NOW + HOUR)
    assert updated.entries() == []


def test_until_it_is_updated_readers_say_what_to_do(tmp_path):
    place = Place(tmp_path)
    catalog = place.state / "catalog.db"
    older_version(catalog, 1)
    done = place.run("status")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {catalog}: written by an older scpln-backup (catalog version 1")
    assert "systemctl restart scpln-backup" in done.stderr
    assert done.stderr.count("\n") == 1
    assert place.run("list").returncode == 0  # the disk tells that
    with pytest.raises(CatalogError, match="systemctl restart"):
        Catalog(catalog, TOKYO).add_restore(restore())


# What root makes in another user's folder


@pytest.fixture
def theirs(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir(0o700)
    os.chown(folder, NOBODY, NOBODY)
    return folder


def owner(path: Path) -> tuple[int, int]:
    return path.lstat().st_uid, path.lstat().st_gid


@needs_root
def test_roots_catalog_and_lock_belong_to_the_folders_owner(theirs):
    path = theirs / "catalog.db"
    catalog = Catalog.open(path, TOKYO, NOW)
    added(catalog)
    with Lock(theirs / "run.lock", "a restore"):
        assert owner(theirs / "run.lock") == (NOBODY, NOBODY)
    assert owner(path) == (NOBODY, NOBODY)
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in theirs.iterdir()) == ["catalog.db", "run.lock"]


@needs_root
def test_a_journal_that_root_leaves_can_be_rolled_back_by_the_owner(theirs):
    """SQLite gives it to the database's owner by itself; a killed restore must not lock the daemon out."""
    path = theirs / "catalog.db"
    Catalog.open(path, TOKYO, NOW)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM meta")
        assert owner(theirs / "catalog.db-journal") == (NOBODY, NOBODY)
        connection.execute("ROLLBACK")


@needs_root
def test_a_catalog_that_root_replaces_belongs_to_the_folders_owner(theirs):
    path = theirs / "catalog.db"
    path.write_bytes(b"nonsense" * 1000)
    assert Catalog.open(path, TOKYO, NOW).is_new
    assert owner(path) == (NOBODY, NOBODY)


@needs_root
def test_roots_own_folder_keeps_roots_files(tmp_path):
    files.create_empty(tmp_path / "mine")
    assert owner(tmp_path / "mine") == (0, 0)


@needs_root
def test_nothing_else_is_given_away(theirs, tmp_path):
    """The folder's owner may put anything in the file's place meanwhile."""
    secret = tmp_path / "secret"
    secret.write_text("root's")
    (theirs / "link").symlink_to(secret)
    (theirs / "second-name").hardlink_to(secret)
    os.mkfifo(theirs / "pipe")
    for name in ("link", "second-name", "pipe"):
        with pytest.raises(OSError, match=name):
            files.owned_like_folder(theirs / name)
    assert owner(secret) == owner(theirs / "pipe") == (0, 0)


def test_an_empty_file_is_never_made_over_another(tmp_path):
    (tmp_path / "taken").write_text("content")
    with pytest.raises(FileExistsError):
        files.create_empty(tmp_path / "taken")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["content"]
