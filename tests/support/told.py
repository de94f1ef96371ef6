"""Events as a year brings them, and how things stood then: what messages are made of."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from scpln_backup.config.schema import Locale
from scpln_backup.events import (
    ArtifactDeleted,
    ArtifactVerified,
    BackupOverdue,
    DaemonStarted,
    DrillFinished,
    Event,
    IncidentClosed,
    IncidentOpened,
    IncidentOverdue,
    RestoreFinished,
    RestoreStarted,
    ReviewMade,
    RunFinished,
    ServiceFailed,
    TestMessage,
)
from scpln_backup.model import (
    Artifact,
    DrillRecord,
    Incident,
    Loss,
    Outcome,
    RestoreOutcome,
    RestoreRecord,
    RunRecord,
    State,
    TableFacts,
    TableLoss,
    Trigger,
)
from scpln_backup.observers.message import Surroundings
from scpln_backup.records.outbox import Cause, Entry

ZONE = ZoneInfo("Asia/Tokyo")
NIGHT = datetime(2026, 11, 22, 2, 30, tzinfo=ZONE)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
NO_SPACE = "/var/backups/scpln: 1.2 GiB free, and the copy and its artifact need 3.4 GiB; make room on that disk"
SHRANK = "rows fell from 111 (median of the last 5) to 28, by 75 %: more than 30 %"
CORRUPT = "scpln-20261120_0230.db.gz"


def name(days_ago: int) -> str:
    return f"scpln-{NIGHT - days_ago * DAY:%Y%m%d_%H%M}.db.gz"


def artifact(days_ago: int, **changes: Any) -> Artifact:
    taken_at = NIGHT - days_ago * DAY
    made = Artifact(
        name=name(days_ago),
        path=f"/var/backups/scpln/2026/{name(days_ago)}",
        taken_at=taken_at,
        modified_at=taken_at + timedelta(seconds=4),
        bytes=112 * 1024**2,
        state=State.VERIFIED,
    )
    return replace(made, **changes)


def run(days_ago: int, outcome: Outcome = Outcome.SUCCESS, **changes: Any) -> RunRecord:
    started_at = NIGHT - days_ago * DAY
    record = RunRecord(
        trigger=Trigger.SCHEDULE,
        started_at=started_at,
        finished_at=started_at + timedelta(seconds=3.2),
        outcome=outcome,
        duration_seconds=3.2,
    )
    if outcome is not Outcome.FAILED:
        record = replace(
            record,
            artifact=name(days_ago),
            raw_bytes=1024**3,
            artifact_bytes=112 * 1024**2,
            writer_blocked_seconds=0.106,
        )
    return replace(record, **changes)


def around(locale: Locale = Locale.EN, **changes: Any) -> Surroundings:
    """A quiet fortnight, and the minute after tonight's run."""
    calm = Surroundings(
        database="scpln",
        environment="production",
        host="db1",
        root="/var/backups/scpln",
        locale=locale,
        zone=ZONE,
        now=NIGHT + MINUTE,
        artifacts=tuple(artifact(days) for days in range(12)),
        runs=tuple(run(days) for days in range(12)),
        next_run_at=NIGHT + DAY,
        page="http://127.0.0.1:9817/",
    )
    return replace(calm, **changes)


LOSS = Loss(
    taken_at=NIGHT - DAY,
    tables=(
        TableLoss(
            name="runs",
            before=TableFacts(rows=134, newest=NIGHT - MINUTE, column="created_at"),
            after=TableFacts(rows=111),
        ),
    ),
)
RESTORE = RestoreRecord(
    started_at=NIGHT,
    artifact=name(1),
    target="/opt/scpln/data/scpln.db",
    outcome=RestoreOutcome.SUCCESS,
    finished_at=NIGHT + timedelta(seconds=95),
    taken_at=NIGHT - DAY,
    replaced=True,
    set_aside="/opt/scpln/data/scpln.db.bak-20261122_0230",
    loss=LOSS,
    user="alice (as root)",
)
INCIDENT = Incident(id=1, opened_at=NIGHT + timedelta(seconds=95), deadline_at=NIGHT + DAY, restore=RESTORE)
DRILL = DrillRecord(
    trigger=Trigger.SCHEDULE,
    started_at=NIGHT,
    outcome=Outcome.SUCCESS,
    finished_at=NIGHT + MINUTE,
    artifact=name(0),
    restore_seconds=1.3,
    smoke_exit_code=0,
    output="/var/lib/scpln-backup/drills/drill-20261122_040000.log",
)
REPORT = "# Report\n\n## Scope\n\nPlanners, 02:30 to 09:42\n"


def entry(event: Event, number: int = 1, at: datetime = NIGHT) -> Entry:
    return Entry(id=number, at=at, actor="daemon", event=event)


@dataclass(frozen=True)
class Case:
    """An event, what had been told of its trouble before, and what about its surroundings is not as usual."""

    label: str
    event: Event
    cause: Cause | None = None
    changes: dict[str, Any] = field(default_factory=dict)


def failed(days_ago: int = 0, error: str = NO_SPACE) -> RunFinished:
    return RunFinished(record=run(days_ago, Outcome.FAILED, error=error))


def cases() -> Iterator[Case]:
    """Everything that is put into words, each in the ways it can happen."""
    told = Cause(since=NIGHT - 2 * DAY, count=2)
    yield from _runs(told)
    yield from _artifacts_and_service(told)
    yield from _drills(told)
    yield from _way_back()
    review = ReviewMade(month="2026-10", path="/var/lib/scpln-backup/reviews/2026-10.md", text="# Review\n\n31 runs\n")
    yield Case("review", review)
    yield Case("review with gaps", ReviewMade(month="2026-10", path="/r.md", text="", unticketed=(NIGHT, NIGHT - DAY)))
    yield Case("test", TestMessage(user="alice (as root)"))
    yield Case("test over", TestMessage(user="alice (as root)", over=True))


def _runs(told: Cause) -> Iterator[Case]:
    bad_nights = (run(0), run(1, Outcome.FAILED), run(2, Outcome.FAILED), run(3))
    none_today = tuple(artifact(days) for days in range(1, 12))
    yield Case("success", RunFinished(record=run(0)))
    yield Case("recovered", RunFinished(record=run(0)), told, {"runs": bad_nights})
    yield Case("recovered from a gap", RunFinished(record=run(0)), told, {"runs": (run(0), run(4))})
    yield Case("recovered, nothing known", RunFinished(record=run(0)), Cause(since=NIGHT, count=0), {"runs": ()})
    yield Case("degraded", RunFinished(record=run(0, Outcome.DEGRADED, error="/var: Permission denied")))
    yield Case("suspect", RunFinished(record=run(0, Outcome.SUSPECT, error=SHRANK)))
    yield Case("suspect, alone", RunFinished(record=run(0, Outcome.SUSPECT, error=SHRANK)), None, {"artifacts": ()})
    yield Case("failed", failed(), None, {"artifacts": none_today})
    yield Case("failed again", failed(), told, {"artifacts": none_today[2:], "runs": bad_nights})
    yield Case("failed, without a word", RunFinished(record=run(0, Outcome.FAILED)), None, {"artifacts": ()})
    killed = run(0, Outcome.FAILED, interrupted=True, finished_at=None, duration_seconds=None)
    yield Case("interrupted", RunFinished(record=killed))
    yield Case("interrupted, told", RunFinished(record=replace(killed, error="stopped before it was finished")))
    late = BackupOverdue(since=NIGHT - 2 * DAY, deadline=NIGHT - DAY, hours=24)
    yield Case("overdue", late)
    never = BackupOverdue(since=NIGHT - 2 * DAY, deadline=NIGHT - DAY, hours=24, never=True)
    yield Case("overdue, never", never, None, {"artifacts": (), "runs": (), "page": None, "next_run_at": None})


def _artifacts_and_service(told: Cause) -> Iterator[Case]:
    yield Case("service failed", ServiceFailed(unit="scpln-backup.service", problem="exit code 2", invocation="1"))
    yield Case("service again", DaemonStarted(version="0.2.0"), told)
    yield Case("service", DaemonStarted(version="0.2.0"))
    yield Case("corrupt", ArtifactVerified(name=CORRUPT, error="its sha256 differs from the manifest's"))
    yield Case("sound again", ArtifactVerified(name=CORRUPT, error=None), told)
    yield Case("sound", ArtifactVerified(name=CORRUPT, error=None))
    yield Case("deleted", ArtifactDeleted(name=CORRUPT, reason="31 days old, more than 30"), told)
    yield Case("deleted, no news", ArtifactDeleted(name=CORRUPT, reason="31 days old, more than 30"))


def _drills(told: Cause) -> Iterator[Case]:
    yield Case("drill", DrillFinished(record=DRILL))
    yield Case("drill again", DrillFinished(record=DRILL), told)
    yield Case("drill without smoke test", DrillFinished(record=replace(DRILL, smoke_exit_code=None, output=None)))
    yield Case("drill degraded", DrillFinished(record=replace(DRILL, outcome=Outcome.DEGRADED, error="disk full")))
    broken = replace(DRILL, outcome=Outcome.FAILED, smoke_exit_code=2, error="the smoke test failed with exit code 2")
    yield Case("drill failed", DrillFinished(record=broken))
    nothing = DrillRecord(trigger=Trigger.CLI, started_at=NIGHT, error="no verified artifact is under /var/backups")
    yield Case("drill of nothing", DrillFinished(record=nothing))


def _way_back() -> Iterator[Case]:
    begun = RestoreRecord(started_at=NIGHT, artifact=name(1), target="/opt/scpln/data/scpln.db")
    yield Case("restore begun", RestoreStarted(record=begun))
    yield Case("restored", RestoreFinished(record=RESTORE))
    yield Case("restored, loss unknown", RestoreFinished(record=replace(RESTORE, loss=None)))
    for outcome in (RestoreOutcome.FAILED, RestoreOutcome.ROLLED_BACK, RestoreOutcome.ABORTED):
        record = replace(RESTORE, outcome=outcome, loss=None, error="scpln-api.service: did not start")
        yield Case(f"restore {outcome}", RestoreFinished(record=record))
    yield Case("incident", IncidentOpened(incident=INCIDENT))
    yield Case("incident overdue", IncidentOverdue(incident=INCIDENT))
    closed = replace(INCIDENT, closed_at=NIGHT + 0.5 * DAY, scope="Planners", prevention="Watch the disk")
    yield Case("incident closed", IncidentClosed(incident=closed, report=REPORT))
    tardy = replace(closed, closed_at=NIGHT + 1.5 * DAY)
    yield Case("incident closed late", IncidentClosed(incident=tardy, report=REPORT))
