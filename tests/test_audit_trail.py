"""From the outbox into the audit log: every event once, whatever dies in between, and nothing without an event."""

from __future__ import annotations

import hashlib
import resource
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from scpln_backup import events
from scpln_backup.errors import AuditError, CatalogError
from scpln_backup.model import (
    DrillRecord,
    Incident,
    Loss,
    Outcome,
    RebuildRecord,
    RestoreOutcome,
    RestoreRecord,
    RunRecord,
    TableFacts,
    TableLoss,
    Trigger,
)
from scpln_backup.observers.audit import AuditTrail, tell
from scpln_backup.records.auditlog import Kind, Line, parse
from scpln_backup.records.auditverify import Verdict, verify
from scpln_backup.records.catalog import Catalog
from scpln_backup.records.outbox import Entry
from support.faults import why_impossible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKYO = ZoneInfo("Asia/Tokyo")
NOW = datetime(2026, 11, 1, 2, 30, tzinfo=TOKYO)
RUN = RunRecord(
    id=7,
    trigger=Trigger.SCHEDULE,
    started_at=NOW,
    finished_at=NOW + timedelta(seconds=12),
    outcome=Outcome.SUCCESS,
    artifact="scpln-20261101_0230.db.gz",
    raw_bytes=1_073_741_824,
    artifact_bytes=123_456_789,
    sha256="ab" * 32,
    duration_seconds=12.3456,
    writer_blocked_seconds=0.08,
)
LOSS = Loss(
    taken_at=NOW,
    tables=(
        TableLoss(name="run", before=TableFacts(rows=10), after=TableFacts(rows=4)),
        TableLoss(name="plan", before=TableFacts(rows=5), after=TableFacts(rows=4)),
    ),
)
RESTORE = RestoreRecord(
    started_at=NOW,
    finished_at=NOW + timedelta(seconds=60),
    artifact="scpln-20261031_0230.db.gz",
    target="/opt/scpln/data/scpln.db",
    outcome=RestoreOutcome.SUCCESS,
    replaced=True,
    set_aside="/opt/scpln/data/scpln.db.bak-20261101_0230",
    loss=LOSS,
    user="akira (as root)",
)
INCIDENT = Incident(id=3, opened_at=NOW, deadline_at=NOW + timedelta(hours=24), restore=RESTORE)
DRILL = DrillRecord(
    trigger=Trigger.CLI, started_at=NOW, outcome=Outcome.FAILED, restore_seconds=3.25, smoke_exit_code=2, error="no"
)
REBUILD = RebuildRecord(started_at=NOW, since="2026-10-31", outcome=Outcome.SUCCESS, exit_code=0)
AT = NOW.isoformat()
CASES: list[tuple[events.Event, Kind, dict[str, Any]]] = [
    (
        events.RunFinished(record=RUN),
        Kind.RUN_FINISHED,
        {
            "outcome": "success",
            "trigger": "schedule",
            "started_at": AT,
            "artifact": RUN.artifact,
            "bytes": 123_456_789,
            "raw_bytes": 1_073_741_824,
            "sha256": "ab" * 32,
            "seconds": 12.346,
            "writer_blocked_seconds": 0.08,
        },
    ),
    (events.ArtifactDeleted(name="a", reason="old"), Kind.ARTIFACT_DELETED, {"artifact": "a", "reason": "old"}),
    (
        events.ArtifactVerified(name="a", error="bad"),
        Kind.ARTIFACT_VERIFIED,
        {"artifact": "a", "sound": False, "error": "bad"},
    ),
    (events.ArtifactPinned(name="a", pinned=True), Kind.ARTIFACT_PINNED, {"artifact": "a"}),
    (events.ArtifactPinned(name="a", pinned=False), Kind.ARTIFACT_UNPINNED, {"artifact": "a"}),
    (events.BackupRequested(), Kind.BACKUP_REQUESTED, {"how": "backup --wait"}),
    (events.ShrinkAccepted(name="a"), Kind.SHRINK_ACCEPTED, {"artifact": "a"}),
    (events.RetentionFrozen(reason="clock"), Kind.RETENTION_FROZEN, {"reason": "clock"}),
    (
        events.RestoreStarted(record=RESTORE),
        Kind.RESTORE_STARTED,
        {"artifact": RESTORE.artifact, "target": RESTORE.target, "started_at": AT, "user": "akira (as root)"},
    ),
    (
        events.RestoreFinished(record=RESTORE),
        Kind.RESTORE_FINISHED,
        {
            "artifact": RESTORE.artifact,
            "target": RESTORE.target,
            "started_at": AT,
            "user": "akira (as root)",
            "outcome": "success",
            "replaced": True,
            "set_aside": RESTORE.set_aside,
            "lost_rows": 7,
            "seconds": 60.0,
        },
    ),
    (
        events.DrillFinished(record=DRILL),
        Kind.DRILL_FINISHED,
        {
            "outcome": "failed",
            "trigger": "cli",
            "started_at": AT,
            "restore_seconds": 3.25,
            "smoke_exit_code": 2,
            "error": "no",
        },
    ),
    (
        events.RebuildFinished(incident=3, record=REBUILD),
        Kind.REBUILD_FINISHED,
        {"incident": 3, "outcome": "success", "started_at": AT, "since": "2026-10-31", "exit_code": 0},
    ),
    (
        events.IncidentOpened(incident=INCIDENT),
        Kind.INCIDENT_OPENED,
        {"incident": 3, "deadline_at": "2026-11-02T02:30:00+09:00", "artifact": RESTORE.artifact},
    ),
    (
        events.IncidentOverdue(incident=INCIDENT),
        Kind.INCIDENT_OVERDUE,
        {"incident": 3, "deadline_at": "2026-11-02T02:30:00+09:00"},
    ),
    (
        events.IncidentClosed(incident=replace(INCIDENT, closed_at=NOW)),
        Kind.INCIDENT_CLOSED,
        {"incident": 3, "deadline_at": "2026-11-02T02:30:00+09:00", "closed_at": AT, "in_time": True},
    ),
    (
        events.BackupOverdue(since=NOW, deadline=NOW, hours=24),
        Kind.BACKUP_OVERDUE,
        {"since": AT, "deadline_at": AT, "hours": 24, "never": False},
    ),
    (
        events.ReviewMade(month="2026-10", path="/r.md", text="# x\n", unticketed=(NOW,)),
        Kind.REVIEW_MADE,
        {"month": "2026-10", "path": "/r.md", "sha256": hashlib.sha256(b"# x\n").hexdigest(), "unticketed": 1},
    ),
    (events.DaemonStarted(version="1.2"), Kind.DAEMON_STARTED, {"version": "1.2"}),
    (events.DaemonStopped(), Kind.DAEMON_STOPPED, {}),
    (
        events.ServiceFailed(unit="scpln-backup.service", problem="exit-code", invocation="ab"),
        Kind.SERVICE_FAILED,
        {"unit": "scpln-backup.service", "error": "exit-code"},
    ),
    (events.ConfigReloaded(), Kind.CONFIG_RELOADED, {}),
    (events.ConfigReloaded(problem="bad key"), Kind.CONFIG_REFUSED, {"error": "bad key"}),
]


class Place:
    """A catalog, a log, and a trail between them."""

    def __init__(self, folder: Path, *, log: Path | None = None, state: Path | None = None) -> None:
        self.state = state or folder / "state"
        self.log = log or folder / "log" / "backup.log"
        self.state.mkdir(exist_ok=True)
        self.log.parent.mkdir(exist_ok=True)
        self.catalog = self.opened()

    def opened(self) -> Catalog:
        return Catalog.open(self.state / "catalog.db", TOKYO, NOW, "daemon")

    def trail(self) -> AuditTrail:
        return AuditTrail(self.catalog, self.log, self.state, database="scpln", environment="test", host="db1")

    def happen(self, count: int = 1) -> None:
        """Distinct facts, so that each line can be told from the others."""
        for _ in range(count):
            number = self.catalog.last_entry_id() + 1
            self.catalog.keep_event(events.ArtifactDeleted(name=f"a{number}", reason="old"), NOW)

    def lines(self) -> list[Line]:
        files = sorted(self.log.parent.iterdir(), key=lambda path: path.name != "backup.log.1")
        raws = [raw for path in files for raw in path.read_bytes().splitlines()]
        return [line for raw in raws if (line := parse(raw)) is not None]

    def told(self) -> list[str]:
        return [line.facts["artifact"] for line in self.lines()]

    def verify(self) -> Verdict:
        return verify(self.log, self.state)

    def expect_each_once(self, count: int) -> None:
        assert self.told() == [f"a{number}" for number in range(1, count + 1)]
        verdict = self.verify()
        assert (verdict.problems, verdict.last_seq) == ((), count)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class TestWords:
    @pytest.mark.parametrize(
        ("event", "kind", "facts"), CASES, ids=lambda value: value if isinstance(value, Kind) else ""
    )
    def test_a_line_for_each_event(self, place: Place, event: events.Event, kind: Kind, facts: dict[str, Any]) -> None:
        place.catalog.keep_event(event, NOW)
        assert place.trail().catch_up() == 1
        (line,) = place.lines()
        assert (line.event, line.facts) == (kind, facts)
        assert (line.at, line.actor, line.host) == (NOW, "daemon", "db1")
        assert (line.database, line.environment) == ("scpln", "test")
        assert (line.catalog, line.entry) == (place.catalog.catalog_id(), 1)

    def test_no_durable_event_is_without_words(self) -> None:
        durable = {
            kind
            for kind in vars(events).values()
            if isinstance(kind, type) and issubclass(kind, events.Event) and kind.durable
        }
        assert {type(event) for event, _, _ in CASES} == durable
        assert {kind for _, kind, _ in CASES} == set(Kind) - {Kind.EVENT_UNREADABLE}

    def test_an_event_that_cannot_be_read(self) -> None:
        told = tell(events.EventUnreadable(kind="RunFinished"))
        assert (told.kind, told.facts) == (Kind.EVENT_UNREADABLE, {"kind": "RunFinished"})

    def test_an_event_of_a_version_to_come(self) -> None:
        class BackupBlessed(events.Event):
            pass

        assert tell(BackupBlessed()).kind == "backup_blessed"

    def test_an_error_of_many_lines_and_bytes(self, place: Place) -> None:
        place.catalog.keep_event(events.ArtifactVerified(name="a\udcff", error="x\n" * 10_000), NOW)
        place.trail().catch_up()
        assert len(place.log.read_bytes().splitlines()) == 1
        assert place.verify().ok


class TestOnce:
    def test_in_order_and_only_what_is_new(self, place: Place) -> None:
        place.happen(3)
        assert place.trail().catch_up() == 3
        assert place.trail().catch_up() == 0
        place.happen(250)
        assert place.trail().catch_up() == 250
        place.expect_each_once(253)

    def test_nothing_is_touched_when_there_is_nothing_new(self, place: Place) -> None:
        assert place.trail().catch_up() == 0
        assert not place.log.exists()
        place.happen()
        place.trail().catch_up()
        before = {path: path.stat().st_mtime_ns for path in (place.log, *place.state.iterdir())}
        assert place.trail().catch_up() == 0
        assert {path: path.stat().st_mtime_ns for path in (place.log, *place.state.iterdir())} == before

    def test_another_catalog_begins_at_its_first_entry(self, place: Place) -> None:
        place.happen(2)
        place.trail().catch_up()
        aside = place.state / "old.db"
        (place.state / "catalog.db").rename(aside)
        place.catalog = place.opened()
        place.happen(1)
        place.trail().catch_up()
        assert place.told() == ["a1", "a2", "a1"]
        # And the first one, should it come back, goes on where it was.
        aside.replace(place.state / "catalog.db")
        place.catalog = place.opened()
        place.happen(1)
        place.trail().catch_up()
        assert place.told() == ["a1", "a2", "a1", "a3"]
        assert place.verify().ok

    def test_a_catalog_that_was_put_back_to_an_older_copy(self, place: Place) -> None:
        """It gives the same ids to other events."""
        place.happen(2)
        older = (place.state / "catalog.db").read_bytes()
        place.happen(3)
        place.trail().catch_up()
        (place.state / "catalog.db").write_bytes(older)
        for number in range(2):
            event = events.ArtifactDeleted(name=f"b{number}", reason="old")
            place.catalog.keep_event(event, NOW + timedelta(hours=1 + number))
            assert place.trail().catch_up() == 1
        assert place.trail().catch_up() == 0
        assert place.told() == ["a1", "a2", "a3", "a4", "a5", "b0", "b1"]
        assert place.verify().ok

    def test_the_note_is_lost(self, place: Place) -> None:
        place.happen(3)
        place.trail().catch_up()
        (place.state / "audit-chain.json").unlink()
        place.happen(1)
        place.trail().catch_up()
        assert place.told() == ["a1", "a2", "a3", "a4"]

    def test_rotated_in_between(self, place: Place) -> None:
        place.happen(3)
        place.trail().catch_up()
        place.log.rename(place.log.with_name("backup.log.1"))
        place.happen(2)
        place.trail().catch_up()
        place.expect_each_once(5)

    def test_several_processes_at_once(self, place: Place) -> None:
        place.happen(20)
        with ThreadPoolExecutor(4) as pool:
            counts = list(pool.map(lambda _: place.trail().catch_up(), range(8)))
        assert sum(counts) == 20
        place.expect_each_once(20)


def loose(name: str, at: datetime = NOW) -> Entry:
    return Entry(id=0, at=at, actor="daemon", event=events.ArtifactDeleted(name=name, reason="old"))


class TestLoose:
    """Events that the catalog could not take."""

    def test_they_are_told_too(self, place: Place) -> None:
        place.happen(1)
        assert place.trail().catch_up([loose("b1"), loose("b2")]) == 3
        assert place.told() == ["a1", "b1", "b2"]
        assert [line.entry for line in place.lines()] == [1, 0, 0]

    def test_told_again_they_are_still_one(self, place: Place) -> None:
        assert place.trail().catch_up([loose("b1")]) == 1
        assert place.trail().catch_up([loose("b1"), loose("b2")]) == 1
        assert place.told() == ["b1", "b2"]

    def test_nor_are_they_two_when_the_catalog_takes_them_after_all(self, place: Place) -> None:
        run = events.RunFinished(record=RUN)
        place.trail().catch_up([Entry(id=0, at=NOW, actor="daemon", event=run), loose("b1")])
        place.catalog.keep_event(run, NOW + timedelta(seconds=5))
        place.catalog.keep_event(events.ArtifactDeleted(name="b1", reason="old"), NOW)
        place.happen(1)
        assert place.trail().catch_up() == 1
        assert [line.event for line in place.lines()] == ["run_finished", "artifact_deleted", "artifact_deleted"]
        assert place.trail().catch_up() == 0

    def test_while_the_catalog_cannot_be_read(self, place: Place) -> None:
        (place.state / "catalog.db").write_bytes(b"no database" * 1000)
        with pytest.raises(CatalogError):
            place.trail().catch_up([loose("b1")])
        assert place.told() == ["b1"]


@contextmanager
def size_limit(size: int) -> Iterator[None]:
    """No file may become longer: a write that would is a short one, and the next is refused (setrlimit(2))."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestNoRoom:
    """The disk is full in the middle of a line, wherever that is."""

    TEXT = b"from cron\n" * 20_000  # longer than anything else that is written meanwhile

    @pytest.mark.parametrize("fits", [0, 1, 7, 100, -2, -1, 0.5, 1.2, 2.5])
    def test_half_a_line(self, place: Place, tmp_path: Path, fits: float) -> None:
        """`fits`: so many bytes of the first line, or so many lines of three."""
        place.log.write_bytes(self.TEXT)
        place.happen(3)
        length = self.length_of_first_line(tmp_path / "other")
        room = int(length * fits) if isinstance(fits, float) else fits if fits >= 0 else length + fits
        with size_limit(len(self.TEXT) + room), pytest.raises(AuditError, match=r"backup\.log: File too large"):
            place.trail().catch_up()
        half = place.log.read_bytes()
        assert len(half) == len(self.TEXT) + room
        assert place.verify().ok
        there = half.count(b"}\n") + (fits == -1)  # that one lacks its newline only, and gets it
        assert place.trail().catch_up() == 3 - there
        assert place.log.read_bytes().startswith(half), "nothing is ever removed"
        place.expect_each_once(3)

    def length_of_first_line(self, folder: Path) -> int:
        folder.mkdir()
        other = Place(folder)
        other.log.write_bytes(self.TEXT)
        other.happen(1)
        other.trail().catch_up()
        return len(other.log.read_bytes()) - len(self.TEXT)

    def test_again_and_again(self, place: Place) -> None:
        place.log.write_bytes(self.TEXT)
        place.happen(2)
        for room in (10, 30, 50):
            with size_limit(len(self.TEXT) + room), pytest.raises(AuditError):
                place.trail().catch_up()
        assert place.trail().catch_up() == 2
        place.expect_each_once(2)

    @pytest.mark.parametrize("full", ["log", "state"])
    def test_a_real_disk(self, tmp_path: Path, full: str) -> None:
        small = tmp_path / "small"
        with mounted(small):
            place = Place(tmp_path, **({"log": small / "backup.log"} if full == "log" else {"state": small / "state"}))
            place.happen(1)
            place.trail().catch_up()
            place.happen(30)
            ballast = small / "ballast"
            fill(ballast)
            with pytest.raises(AuditError, match=rf"{small}.*No space left on device; make room"):
                place.trail().catch_up()
            assert place.verify().problems == ()
            ballast.unlink()
            assert place.trail().catch_up() > 0
            place.expect_each_once(31)


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """A file system of 128 KiB."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_an_error_says_what_to_do(place: Place) -> None:
    place.happen()
    place.log.mkdir()
    with pytest.raises(AuditError, match=r"log/backup\.log: Is a directory; run as root or as the daemon's user"):
        place.trail().catch_up()


CATCH_UP = """
import sys
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo
from scpln_backup.observers.audit import AuditTrail
from scpln_backup.records.catalog import Catalog
folder = Path(sys.argv[1])
catalog = Catalog(folder / "state" / "catalog.db", ZoneInfo("Asia/Tokyo"))
log = folder / "log" / "backup.log"
AuditTrail(catalog, log, folder / "state", database="scpln", environment="test", host="db1").catch_up()
"""
# All that makes, writes, makes durable, names or takes away.
CALLS = "openat,write,fsync,fchmod,fchown,rename,renameat2,unlink"
KILLED = -9


def prepared(folder: Path, *, first: bool) -> Place:
    """Three events wait, behind two lines or (`first`) behind what the old procedure has left."""
    folder.mkdir()
    place = Place(folder)
    if not first:
        place.happen(2)
        place.trail().catch_up()
    else:
        place.log.write_bytes(b"from cron\nwithout a newline")
        place.happen(2)
    place.happen(3)
    return place


def traced(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    tracer = ["strace", "-qq", "-y", "-s0", "-o", str(folder / "trace"), *options]
    command = [*tracer, sys.executable, "-c", CATCH_UP, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def killable(folder: Path) -> list[tuple[str, int]]:
    """Every call of an undisturbed catch-up that has to do with the log, its lock or its note: name and number."""
    # Once before: modules that were never compiled would be, and the calls for that counted.
    subprocess.run([sys.executable, "-c", CATCH_UP, prepared(folder / "before", first=True).state.parent], check=True)
    assert traced(folder, "-e", f"trace={CALLS}").returncode == 0
    counted: Counter[str] = Counter()
    found = []
    for call in (folder / "trace").read_text().splitlines():
        name = call.partition("(")[0]
        counted[name] += 1
        if f"{folder}/" in call and (name != "openat" or "O_CREAT" in call) and "catalog.db" not in call:
            found.append((name, counted[name]))
    return found


def kill_at(folder: Path, call: tuple[str, int], *, first: bool, rotate: bool) -> None:
    place = prepared(folder, first=first)
    name, number = call
    done = traced(folder, "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}")
    assert done.returncode == KILLED, (call, done.stderr)
    before = place.log.read_bytes() if place.log.exists() else b""
    assert place.verify().ok, (call, place.verify())
    if rotate and place.log.exists():
        place.log.rename(place.log.with_name("backup.log.1"))
    place.happen()
    place.trail().catch_up()
    assert place.told() == [f"a{number}" for number in range(1, 7)], call
    verdict = place.verify()
    assert (verdict.problems, verdict.last_seq) == ((), 6), (call, verdict)
    if not rotate:
        assert place.log.read_bytes().startswith(before), call
    leftovers = [path.name for path in place.state.iterdir() if path.name.endswith(".tmp")]
    assert leftovers == [], call


@pytest.mark.faults
@pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible()))
@pytest.mark.parametrize(("first", "rotate"), [(True, False), (False, False), (False, True)])
def test_killed_at_each_system_call(tmp_path: Path, *, first: bool, rotate: bool) -> None:
    calls = killable(prepared(tmp_path / "recorded", first=first).state.parent)
    assert {"write", "fsync", "rename", "openat"} <= {name for name, _ in calls}
    assert len(calls) > 12
    with ThreadPoolExecutor(2) as pool:
        kill = partial(kill_at, first=first, rotate=rotate)
        list(pool.map(kill, (tmp_path / f"{name}{number}" for name, number in calls), calls))
