"""The catalog: runs, artifacts, slots, in a SQLite file that any process may use and the disk may damage."""

import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scpln_backup.errors import BackupError, CatalogError
from scpln_backup.model import (
    Artifact,
    Compression,
    Fingerprint,
    Manifest,
    Outcome,
    RunRecord,
    Stage,
    State,
    Trigger,
)
from scpln_backup.records import database, schema
from scpln_backup.records.catalog import ArtifactSummary, Catalog
from scpln_backup.rules.clock import ClockReading

TOKYO = ZoneInfo("Asia/Tokyo")
BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 22, 2, 30, tzinfo=TOKYO)
HOUR = timedelta(hours=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "catalog.db"


@pytest.fixture
def catalog(path):
    return Catalog.open(path, TOKYO, NOW)


def finished(catalog: Catalog, started_at: datetime = NOW, outcome: Outcome = Outcome.SUCCESS, **changes) -> RunRecord:
    number = catalog.begin_run(Trigger.SCHEDULE, started_at)
    record = RunRecord(
        id=number,
        trigger=Trigger.SCHEDULE,
        started_at=started_at,
        finished_at=started_at + timedelta(seconds=4),
        outcome=outcome,
        artifact=f"scpln-{started_at:%Y%m%d_%H%M}.db.gz",
        raw_bytes=1000,
        artifact_bytes=100,
        sha256="ab",
        raw_sha256="cd",
        duration_seconds=4.0,
        writer_blocked_seconds=0.125,
        stage_seconds={Stage.SNAPSHOT: 1.5, Stage.PROVE: 0.25},
    )
    record = msgspec.structs.replace(record, **changes)
    catalog.finish_run(record)
    return record


def artifact(name: str, state: State = State.VERIFIED, size: int = 100, **changes) -> Artifact:
    made = Artifact(name=name, path=f"/b/{name}", taken_at=NOW, modified_at=NOW, bytes=size, state=state)
    return msgspec.structs.replace(made, **changes)


def manifest(number: int, state: State = State.VERIFIED, run: RunRecord | None = None) -> Manifest:
    at = NOW + number * timedelta(days=1)
    return Manifest(
        name=f"scpln-{at:%Y%m%d_%H%M}.db.gz",
        database="scpln",
        environment="test",
        taken_at=at,
        compression=Compression.GZIP,
        bytes=100,
        sha256="ab",
        fingerprint=Fingerprint("cd", 1000, 4096, 1, "", 0, 0, {}),
        state=state,
        run=run or RunRecord(trigger=Trigger.SCHEDULE, started_at=at, id=500 + number, duration_seconds=3.0),
    )


def query(path: Path, statement: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def test_an_empty_catalog(catalog, path):
    assert catalog.is_new
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert catalog.installed_at() == NOW
    assert_empty(catalog)
    assert query(path, "PRAGMA user_version") == [(schema.VERSION,)]
    assert query(path, "PRAGMA journal_mode") == [("delete",)]


def assert_empty(catalog: Catalog):
    assert catalog.runs() == []
    assert catalog.last_finished() is None
    assert catalog.last_good() is None
    assert catalog.unfinished() is None
    assert catalog.run_counts() == {}
    assert catalog.deleted_count() == 0
    assert catalog.artifact_summary() == ArtifactSummary()
    assert catalog.slot("backup") is None
    assert catalog.clock() is None


def test_opening_again_keeps_everything(catalog, path):
    run = finished(catalog)
    again = Catalog.open(path, TOKYO, NOW + HOUR)
    assert not again.is_new
    assert again.installed_at() == NOW
    assert again.runs() == [run]
    assert Catalog.reader(path, TOKYO).runs() == [run]


def test_a_run_under_way_and_after(catalog):
    number = catalog.begin_run(Trigger.SIGNAL, NOW)
    (row,) = catalog.runs()
    assert row == RunRecord(id=number, trigger=Trigger.SIGNAL, started_at=NOW, error="interrupted", interrupted=True)
    assert (row.outcome, row.finished_at) == (Outcome.FAILED, None)
    assert catalog.unfinished() == row
    assert catalog.last_finished(running_id=number) is None
    assert catalog.run_counts(running_id=number) == {}
    done = RunRecord(id=number, trigger=Trigger.SIGNAL, started_at=NOW, finished_at=NOW + HOUR, outcome=Outcome.SUCCESS)
    catalog.finish_run(done)
    assert catalog.runs() == [done]
    assert catalog.unfinished() is None
    assert catalog.last_finished() == catalog.last_good() == done
    assert catalog.run_counts() == {(Trigger.SIGNAL, Outcome.SUCCESS): 1}


def test_a_killed_run_counts_as_failed_once_it_is_not_under_way(catalog):
    good = finished(catalog)
    dead = catalog.begin_run(Trigger.CLI, NOW + HOUR)
    assert catalog.last_finished(running_id=dead) == good
    last = catalog.last_finished()
    assert (last.id, last.outcome, last.interrupted, last.finished_at) == (dead, Outcome.FAILED, True, None)
    assert catalog.last_good() == good
    next_one = catalog.begin_run(Trigger.CLI, NOW + 2 * HOUR)
    assert catalog.last_finished(running_id=next_one).id == dead
    assert catalog.run_counts(running_id=next_one) == {
        (Trigger.SCHEDULE, Outcome.SUCCESS): 1,
        (Trigger.CLI, Outcome.FAILED): 1,
    }


def test_runs_are_listed_newest_first_in_the_order_they_began(catalog):
    first = finished(catalog, NOW)
    second = finished(catalog, NOW + HOUR, Outcome.SUSPECT)
    third = finished(catalog, NOW - 10 * HOUR, Outcome.DEGRADED)  # the clock was set back
    assert catalog.runs() == [third, second, first]
    assert catalog.runs(limit=1) == [third]
    assert catalog.runs(limit=-1, since=NOW) == [second, first]
    assert catalog.last_good() == third


def test_times_come_back_as_the_instants_they_were(path):
    """Both two o'clocks of autumn's repeated hour, and in the zone that is asked for."""
    catalog = Catalog.open(path, BERLIN, NOW)
    for fold in (0, 1):
        at = datetime(2026, 10, 25, 2, 30, 0, 123456, tzinfo=BERLIN, fold=fold)
        finished(catalog, at)
        (run,) = catalog.runs(limit=1)
        assert run.started_at.utcoffset() == at.utcoffset()
        assert run.started_at.timestamp() == at.timestamp()
    assert Catalog.reader(path, TOKYO).runs()[0].started_at.tzinfo is TOKYO


TIMES = st.datetimes(datetime(1970, 1, 2), datetime(2500, 1, 1), timezones=st.sampled_from([UTC, TOKYO]))  # noqa: DTZ001 - the bounds of aware ones
SIZES = st.none() | st.integers(0, 2**62)
SECONDS = st.none() | st.floats(0, 1e9)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    record=st.builds(
        RunRecord,
        trigger=st.sampled_from(Trigger),
        outcome=st.sampled_from(Outcome),
        started_at=TIMES,
        finished_at=st.none() | TIMES,
        artifact=st.none() | st.just("scpln-1.db.gz"),
        raw_bytes=SIZES,
        artifact_bytes=SIZES,
        duration_seconds=SECONDS,
        writer_blocked_seconds=SECONDS,
        stage_seconds=st.dictionaries(st.sampled_from(Stage), st.floats(0, 1e6)),
        error=st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        interrupted=st.booleans(),
    )
)
def test_a_run_comes_back_as_it_was(catalog, record):
    number = catalog.begin_run(record.trigger, record.started_at)
    record = msgspec.structs.replace(record, id=number)
    catalog.finish_run(record)
    assert catalog.runs(limit=1) == [record]


def test_a_message_about_an_odd_file_name_can_be_kept(catalog):
    name = os.fsdecode(b"/b/scpln-\xff.db.gz")
    finished(catalog, error=f"{name}: gone")
    assert catalog.runs()[0].error == "/b/scpln-\\udcff.db.gz: gone"
    catalog.sync_artifacts([artifact(name)], NOW)
    catalog.sync_artifacts([artifact(name)], NOW)
    catalog.note_deleted(name, "too old", NOW)
    assert (catalog.deleted_count(), catalog.artifact_summary().count) == (1, 0)


def test_a_run_begun_in_a_catalog_that_was_lost_is_still_recorded(catalog):
    for _ in range(3):
        known = finished(catalog)
    stranger = RunRecord(id=2, trigger=Trigger.CLI, started_at=NOW + HOUR, finished_at=NOW + HOUR)
    catalog.finish_run(stranger)
    runs = catalog.runs()
    assert len(runs) == 4
    assert msgspec.structs.replace(runs[0], id=2) == stranger
    assert runs[1] == known


def test_the_index_follows_the_disk(catalog, path):
    catalog.sync_artifacts(
        [
            artifact("a", size=1),
            artifact("b", State.CORRUPT, 10),
            artifact("c", State.SUSPECT, 100),
            artifact("d", State.UNVERIFIED, 1000, pinned=True, raw_bytes=5),
        ],
        NOW,
    )
    assert catalog.artifact_summary() == ArtifactSummary(count=4, verified=1, corrupt=1, suspect=1, bytes=1111)
    catalog.sync_artifacts([artifact("a", State.CORRUPT, 2)], NOW + HOUR)
    assert catalog.artifact_summary() == ArtifactSummary(count=1, corrupt=1, bytes=2)
    vanished = query(path, "SELECT name, deleted_reason FROM artifacts WHERE deleted_at NOTNULL ORDER BY name")
    assert vanished == [("b", "vanished"), ("c", "vanished"), ("d", "vanished")]
    assert catalog.deleted_count() == 0
    catalog.sync_artifacts([artifact("a"), artifact("d")], NOW + 2 * HOUR)
    assert catalog.artifact_summary() == ArtifactSummary(count=2, verified=2, bytes=200)
    seen = {first for (first,) in query(path, "SELECT first_seen FROM artifacts")}
    assert seen == {int(NOW.timestamp() * 1_000_000)}


def test_an_unchanged_index_is_not_written(catalog, path):
    listed = [artifact("a"), artifact("b", raw_bytes=3)]
    catalog.sync_artifacts(listed, NOW)
    before = path.read_bytes()
    catalog.sync_artifacts(listed, NOW + HOUR)
    assert path.read_bytes() == before


def test_deletions_by_retention_are_counted_once(catalog):
    catalog.sync_artifacts([artifact("a"), artifact("b")], NOW)
    catalog.note_deleted("a", "older than 30 days", NOW)
    catalog.note_deleted("a", "older than 30 days", NOW)
    catalog.sync_artifacts([artifact("b")], NOW)
    assert catalog.deleted_count() == 1
    catalog.sync_artifacts([], NOW)  # gone before it was noted, by another process
    catalog.note_deleted("b", "older than 30 days", NOW)
    assert catalog.deleted_count() == 2
    catalog.sync_artifacts([artifact("a")], NOW)  # put back by hand
    assert catalog.deleted_count() == 2
    catalog.note_deleted("a", "older than 30 days", NOW)
    catalog.note_deleted("never seen", "older than 30 days", NOW)
    assert catalog.deleted_count() == 4


def test_slots_and_the_clock(catalog):
    catalog.set_slot("backup", NOW)
    catalog.set_slot("drill", NOW + HOUR)
    catalog.set_slot("backup", NOW + HOUR)
    assert catalog.slot("backup") == NOW + HOUR
    assert catalog.slot("review") is None
    reading = ClockReading(wall=1_795_353_626.25, boot=1550.5, boot_id="fb0f")
    catalog.set_clock(ClockReading(1.0, 2.0, ""))
    catalog.set_clock(reading)
    assert catalog.clock() == reading


def test_the_runs_come_back_from_the_manifests(catalog):
    manifests = [
        manifest(2, State.SUSPECT),
        manifest(0),
        manifest(1, State.CORRUPT),
        manifest(
            3, run=RunRecord(trigger=Trigger.CLI, started_at=NOW - 24 * HOUR, finished_at=NOW, outcome=Outcome.DEGRADED)
        ),
    ]
    bare = msgspec.structs.replace(manifest(9), run=None)
    catalog.restore_from([*manifests, bare])
    outcomes = [(run.artifact, run.outcome) for run in catalog.runs()]
    assert outcomes == [
        ("scpln-20261124_0230.db.gz", Outcome.SUSPECT),
        ("scpln-20261123_0230.db.gz", Outcome.FAILED),
        ("scpln-20261122_0230.db.gz", Outcome.SUCCESS),
        ("scpln-20261125_0230.db.gz", Outcome.DEGRADED),
    ]
    good = catalog.last_good()
    assert (good.started_at, good.finished_at) == (NOW, NOW + timedelta(seconds=3))
    assert (good.error, good.interrupted, good.artifact_bytes) == (None, False, 100)
    assert catalog.unfinished() is None
    assert catalog.installed_at() == NOW - 24 * HOUR
    before = catalog.runs()
    catalog.restore_from(manifests)
    assert catalog.runs() == before


def test_restored_runs_come_before_those_that_are_there(catalog):
    newest = finished(catalog, NOW + 100 * 24 * HOUR)
    catalog.restore_from([manifest(1), manifest(0)])
    assert [run.artifact for run in catalog.runs()] == [
        newest.artifact,
        "scpln-20261123_0230.db.gz",
        "scpln-20261122_0230.db.gz",
    ]
    assert catalog.last_good() == newest
    catalog.restore_from([])


def test_a_reader_of_nothing_gets_empty_answers(path):
    reader = Catalog.reader(path, TOKYO)
    assert_empty(reader)
    assert reader.installed_at() is None
    assert not path.parent.exists()
    path.parent.mkdir()
    path.touch()  # killed between making the file and filling it
    assert_empty(reader)
    assert not Catalog.open(path, TOKYO, NOW).runs()
    assert reader.installed_at() == NOW


def as_nobody(act) -> str:
    """What `act` returns, or its error, in a child without root's privileges."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            answer = str(act())
        except BackupError as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(write_end, answer.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def test_a_user_who_may_only_read_can_read(catalog, path):
    finished(catalog)
    catalog.set_slot("backup", NOW)
    for folder in path.parents[:5]:
        folder.chmod(0o755)
    path.chmod(0o644)
    reader = Catalog.reader(path, TOKYO)
    assert as_nobody(lambda: (len(reader.runs()), reader.slot("backup") == NOW)) == "(1, True)"
    assert [entry.name for entry in path.parent.iterdir()] == ["catalog.db"]
    refused = as_nobody(lambda: reader.set_slot("backup", NOW))
    assert refused.startswith(f"CatalogError: {path}: ")
    assert "owner and mode" in refused
    path.chmod(0o600)
    assert "owner and mode" in as_nobody(reader.runs)
    path.parent.chmod(0o700)
    assert "owner and mode" in as_nobody(reader.runs)
    assert "owner and mode" in as_nobody(lambda: Catalog.open(path, TOKYO, NOW))


WRITE = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from scpln_backup.model import Trigger
from scpln_backup.records.catalog import Catalog
now = datetime(2026, 11, 22, tzinfo=UTC)
sys.stdin.readline()
catalog = Catalog.open(Path(sys.argv[1]), UTC, now)
print(catalog.is_new, flush=True)
for _ in range(int(sys.argv[2])):
    catalog.begin_run(Trigger.CLI, now)
"""


def writer(path: Path, times: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WRITE, path, str(times)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_processes_that_open_and_write_at_once(path):
    writers = [writer(path, 20) for _ in range(3)]
    for child in writers:
        child.stdin.write("\n")
        child.stdin.flush()
    answers = [child.communicate()[0].strip() for child in writers]
    assert [child.returncode for child in writers] == [0, 0, 0]
    assert sorted(answers) == ["False", "False", "True"]
    assert len(Catalog.reader(path, UTC).runs(limit=-1)) == 60


def test_threads_that_open_write_and_read_at_once(path):
    def work(number):
        catalog = Catalog.open(path, TOKYO, NOW)
        for _ in range(10):
            finished(catalog)
            catalog.set_slot(f"job-{number}", NOW)
            assert catalog.last_good() is not None
        return catalog.is_new

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(work, range(4))) == [False, False, False, True]
    catalog = Catalog.reader(path, TOKYO)
    assert catalog.run_counts() == {(Trigger.SCHEDULE, Outcome.SUCCESS): 40}


def test_a_writer_killed_anywhere_leaves_a_catalog_that_works(path):
    """The next one to look rolls back what was half written, reader or not."""
    catalog = Catalog.open(path, TOKYO, NOW)
    for _ in range(3):
        child = writer(path, 1_000_000)
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "False\n"
        before = len(catalog.runs(limit=-1))
        while len(catalog.runs(limit=-1)) < before + 3:
            pass
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert len(Catalog.reader(path, TOKYO).runs(limit=-1)) >= before + 3
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.faults
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_reader_finds_what_was_committed_beside_a_hot_journal(path):
    """The writer dies on the sync of the database, its journal complete."""
    catalog = Catalog.open(path, TOKYO, NOW)
    finished(catalog)
    inject = ["-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:signal=KILL:when=5"]
    command = ["strace", "-f", "-qq", "-o", "/dev/null", *inject, sys.executable, "-c", WRITE, path, "5"]
    subprocess.run(command, input="\n", text=True, check=False, capture_output=True)
    assert path.with_name("catalog.db-journal").exists()
    runs = Catalog.reader(path, TOKYO).runs()
    assert runs[-1].outcome is Outcome.SUCCESS
    assert all(run.interrupted for run in runs[:-1])


DAMAGE = {
    "nonsense": lambda path: path.write_bytes(b"this is no database, and it is long enough to be one" * 100),
    "short": lambda path: path.write_bytes(b"SQLite"),
    "cut": lambda path: os.truncate(path, 4096 * 2),
    "zeroed page": lambda path: overwrite(path, 4096, bytes(4096)),
    "flipped page": lambda path: overwrite(path, 4096 * 2 + 8, b"\xff" * 200),
}


def overwrite(path: Path, offset: int, data: bytes):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_catalog_is_moved_aside_and_refilled(path, kind, caplog):
    catalog = Catalog.open(path, TOKYO, NOW)
    for _ in range(50):
        finished(catalog, error="x" * 500)
    DAMAGE[kind](path)
    damaged = path.read_bytes()
    path.with_name("catalog.db-journal").write_bytes(b"stale")
    with caplog.at_level(logging.WARNING):
        again = Catalog.open(path, TOKYO, NOW + HOUR)
    assert again.is_new
    assert_empty(again)
    aside = path.with_name("catalog.db.damaged-20261122_033000")
    assert aside.read_bytes() == damaged
    assert not path.with_name("catalog.db-journal").exists()
    assert str(aside) in caplog.text
    again.restore_from([manifest(0)])
    assert again.last_good() is not None
    assert not Catalog.open(path, TOKYO, NOW + HOUR).is_new


def test_what_belongs_to_a_damaged_catalog_goes_with_it(path):
    """A journal that stayed would be rolled back into the new catalog."""
    path.parent.mkdir()
    for ending in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + ending).write_text(ending)
    aside = database._move_aside(path, NOW)
    assert {file.name for file in path.parent.iterdir()} == {
        aside.name + ending for ending in ("", "-journal", "-wal", "-shm")
    }
    assert path.with_name(f"{aside.name}-journal").read_text() == "-journal"


def test_a_second_damage_in_the_same_second_loses_nothing(path):
    for content in (b"first", b"second"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content * 1000)
        assert Catalog.open(path, TOKYO, NOW).is_new
    kept = sorted(path.parent.glob("*.damaged-*"))
    assert [file.read_bytes()[:5] for file in kept] == [b"first", b"secon"]


def test_damage_while_in_use_says_what_to_do(catalog, path):
    path.write_bytes(b"nonsense" * 1000)
    for act in (catalog.runs, lambda: catalog.begin_run(Trigger.CLI, NOW)):
        with pytest.raises(CatalogError, match="restart the daemon") as caught:
            act()
        assert str(path) in str(caught.value)
    assert path.read_bytes() == b"nonsense" * 1000


def test_values_that_make_no_sense_are_an_error_of_the_catalog(catalog, path):
    finished(catalog)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE runs SET outcome = 'splendid'")
    with pytest.raises(CatalogError, match="splendid"):
        catalog.runs()
    with pytest.raises(CatalogError, match="splendid"):
        catalog.run_counts()


@pytest.mark.faults
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("pread64:error=EIO:when={}+", "disk"),
        ("pread64:error=EIO:when={}", None),
        ("fcntl:error=EIO:when={}+", None),
        ("pwrite64:error=ENOSPC:when={}+", "make room|disk"),
        ("fsync,fdatasync:error=EIO:when={}+", "disk"),
    ],
)
def test_an_error_of_the_disk_is_not_taken_for_damage(path, fault, says):
    script = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from scpln_backup.errors import CatalogError; from scpln_backup.records.catalog import Catalog\n"
        "now = datetime(2026, 11, 22, tzinfo=UTC)\n"
        "try: Catalog.open(Path(sys.argv[1]), UTC, now).set_slot('backup', now)\n"
        "except CatalogError as error: print(error)\n"
    )
    catalog = Catalog.open(path, TOKYO, NOW)
    for _ in range(20):
        run = finished(catalog, error="x" * 500)
    said = []
    for when in (1, 3, 6, 12):
        only = ["-f", "--seccomp-bpf", "-e", f"trace={fault.partition(':')[0]}", "-P", path, "-P", f"{path}-journal"]
        inject = [*only, "-e", f"inject={fault.format(when)}"]
        command = ["strace", "-qq", "-o", "/dev/null", *inject, sys.executable, "-c", script, path]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        said.append(done.stdout)
        assert [file.name for file in path.parent.iterdir() if "damaged" in file.name] == []
        assert Catalog.open(path, TOKYO, NOW).runs(limit=1) == [run]
    if says:
        assert any(said)
        for line in filter(None, said):
            assert line.startswith(f"{path}: ")


def test_a_newer_catalog_is_refused_and_left_alone(catalog, path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    for act in (lambda: Catalog.open(path, TOKYO, NOW), catalog.runs, lambda: catalog.set_slot("backup", NOW)):
        with pytest.raises(CatalogError, match="newer scpln-backup"):
            act()
    assert path.read_bytes() == before


def test_another_database_is_refused_and_left_alone(path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE plans (id)")
    before = path.read_bytes()
    for act in (lambda: Catalog.open(path, TOKYO, NOW), Catalog.reader(path, TOKYO).runs):
        with pytest.raises(CatalogError, match="not a catalog"):
            act()
    assert path.read_bytes() == before


def test_an_older_catalog_is_brought_up_to_date(catalog, path, monkeypatch):
    run = finished(catalog)
    more = (*schema.MIGRATIONS, ("ALTER TABLE slots ADD COLUMN note TEXT", "CREATE TABLE extra (id)"))
    monkeypatch.setattr(schema, "MIGRATIONS", more)
    monkeypatch.setattr(schema, "VERSION", len(more))
    with pytest.raises(CatalogError, match="older scpln-backup"):
        catalog.runs()
    updated = Catalog.open(path, TOKYO, NOW + HOUR)
    assert not updated.is_new
    assert (updated.runs(), updated.installed_at()) == ([run], NOW)
    assert query(path, "PRAGMA user_version") == [(len(more),)]
    assert query(path, "SELECT note FROM slots") == []


def test_a_migration_that_fails_changes_nothing(catalog, path, monkeypatch):
    before = query(path, "SELECT * FROM sqlite_schema")
    more = (*schema.MIGRATIONS, ("CREATE TABLE extra (id)", "ALTER TABLE missing ADD COLUMN note"))
    monkeypatch.setattr(schema, "MIGRATIONS", more)
    monkeypatch.setattr(schema, "VERSION", len(more))
    with pytest.raises(CatalogError):
        Catalog.open(path, TOKYO, NOW)
    assert query(path, "SELECT * FROM sqlite_schema") == before
    assert query(path, "PRAGMA user_version") == [(len(more) - 1,)]


def test_a_full_disk_is_said(tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192k", "none", full], check=False).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        catalog = Catalog.open(full / "catalog.db", TOKYO, NOW)
        run = finished(catalog)
        (full / "filler").write_bytes(bytes(shutil.disk_usage(full).free))
        with pytest.raises(CatalogError, match=r"catalog\.db.*(make room|disk)"):
            catalog.begin_run(Trigger.CLI, NOW)
        assert catalog.runs() == [run]
        (full / "filler").unlink()
        finished(catalog)
    finally:
        subprocess.run(["umount", full], check=True)


def test_a_catalog_that_stays_locked_is_said(catalog, path, monkeypatch):
    monkeypatch.setattr("scpln_backup.records.database.BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CatalogError, match="locked"):
            catalog.runs()
        with pytest.raises(CatalogError, match="locked"):
            Catalog.open(path, TOKYO, NOW)
    assert [entry.name for entry in path.parent.iterdir()] == ["catalog.db"]


def test_a_writer_waits_for_another(catalog, path):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        waiting = threading.Thread(target=catalog.set_slot, args=("backup", NOW))
        waiting.start()
        assert catalog.slot("backup") is None
        connection.execute("COMMIT")
    waiting.join(timeout=10)
    assert catalog.slot("backup") == NOW
