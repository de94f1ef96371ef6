"""Views for the status page: a database that has been backed up every night, in every state the page can show."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import msgspec

from scpln_backup.config.schema import Locale
from scpln_backup.model import (
    Artifact,
    DrillRecord,
    Incident,
    Outcome,
    RestoreOutcome,
    RestoreRecord,
    RunRecord,
    Stage,
    State,
    Trigger,
)
from scpln_backup.operations.status import Status
from scpln_backup.records.catalog import ArtifactSummary
from scpln_backup.records.outbox import ChannelState
from scpln_backup.rules.health import Facts, FailingChannel, Health, assess, overdue_at
from scpln_backup.service.page.view import Recorded, View
from scpln_backup.service.runner import IDLE, Activity

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKYO = ZoneInfo("Asia/Tokyo")
NOW = datetime(2026, 11, 22, 10, 0, 20, tzinfo=TOKYO)
INSTALLED = datetime(2026, 9, 26, 12, 0, tzinfo=TOKYO)
DISK_FULL = "/var/backups/scpln/.staging: 1.2 GiB free, and the copy needs 1.9 GiB; make room on that disk"
FELL = "rows fell from 48,211 (median of the last 7) to 12,004, by 75 %: more than 30 %"
REVOKED = "slack: invalid_auth: the token was revoked; put a new one into /etc/scpln-backup/slack.token"


def night(back: int) -> datetime:
    """02:30 of `back` days ago."""
    return NOW.replace(hour=2, minute=30, second=1) - timedelta(days=back)


def name_of(at: datetime) -> str:
    return f"scpln-{at:%Y%m%d_%H%M}.db.gz"


def run(back: int, **changes: Any) -> RunRecord:
    """A good run of `back` nights ago, of a database that grows a little."""
    at = night(back)
    seconds = 6.1 + (back * 7 % 5) * 0.3
    record = RunRecord(
        id=1000 - back,
        trigger=Trigger.SCHEDULE,
        started_at=at,
        finished_at=at + timedelta(seconds=seconds),
        outcome=Outcome.SUCCESS,
        artifact=name_of(at),
        artifact_bytes=118_000_000 - back * 190_000,
        raw_bytes=1_080_000_000,
        duration_seconds=seconds,
    )
    return msgspec.structs.replace(record, **changes)


def failed(back: int, error: str = DISK_FULL, **changes: Any) -> RunRecord:
    return run(back, outcome=Outcome.FAILED, artifact=None, artifact_bytes=None, error=error, **changes)


def artifact(back: int, **changes: Any) -> Artifact:
    at = night(back)
    made = Artifact(
        name=name_of(at),
        path=f"/var/backups/scpln/{at:%Y}/{name_of(at)}",
        taken_at=at,
        modified_at=at,
        bytes=118_000_000 - back * 190_000,
        state=State.VERIFIED,
        raw_bytes=1_080_000_000,
    )
    return msgspec.structs.replace(made, **changes)


def drill(weeks: int, **changes: Any) -> DrillRecord:
    at = NOW.replace(hour=4, minute=0, second=2) - timedelta(weeks=weeks)
    record = DrillRecord(
        id=100 - weeks,
        trigger=Trigger.SCHEDULE,
        started_at=at,
        finished_at=at + timedelta(minutes=2),
        outcome=Outcome.SUCCESS,
        artifact=name_of(night(7 * weeks)),
        restore_seconds=2.8 + weeks * 0.1,
        smoke_exit_code=0,
    )
    return msgspec.structs.replace(record, **changes)


def incident(opened_hours_ago: float, number: int = 3) -> Incident:
    at = NOW - timedelta(hours=opened_hours_ago)
    restore = RestoreRecord(
        started_at=at,
        artifact=name_of(night(0)),
        target="/opt/scpln/data/scpln.db",
        outcome=RestoreOutcome.SUCCESS,
        finished_at=at + timedelta(seconds=40),
        replaced=True,
    )
    return Incident(id=number, opened_at=at, deadline_at=at + timedelta(hours=24), restore=restore)


def channels(**changes: ChannelState) -> list[ChannelState]:
    sent = {"sent": 31, "sent_at": NOW - timedelta(hours=7, minutes=30)}
    names = ("audit", "jira", "pagerduty", "pushgateway", "slack")
    states = {name: ChannelState(name=name, settled=100, **sent) for name in names}  # type: ignore[arg-type]  # mixed values
    states["jira"] = ChannelState(name="jira", settled=100)
    return list((states | changes).values())


def view(**changes: Any) -> View:
    """Healthy; `changes` are of the view, or of what is recorded, or of the facts of the judgement."""
    runs: Sequence[RunRecord] = changes.pop("runs", [run(back) for back in range(31)])
    artifacts = changes.pop("artifacts", [artifact(back, pinned=back == 3) for back in range(12)])
    drills = changes.pop("drills", [drill(weeks) for weeks in range(5)])
    count = changes.pop("count", 31)
    corrupt = changes.pop("corrupt_artifacts", 0)
    suspect = sum(1 for found in artifacts if found.state is State.SUSPECT)
    good = next((found for found in runs if found.outcome in (Outcome.SUCCESS, Outcome.DEGRADED)), None)
    incidents = changes.pop("incidents", [])
    facts = {
        "now": NOW,
        "installed_at": INSTALLED,
        "last_run": runs[0] if runs else None,
        "last_success_at": good.finished_at if good else None,
        "running_since": None,
        "verified_artifacts": max(0, count - corrupt - suspect),
        "corrupt_artifacts": corrupt,
        "retention_frozen": None,
        "next_run_at": night(-1).replace(second=0),
        "last_drill": drills[0] if drills else None,
        "incident_deadline": min((found.deadline_at for found in incidents), default=None),
    }
    facts |= {name: changes.pop(name) for name in list(changes) if name in Facts.__struct_fields__ and name != "now"}
    known = Facts(**facts)
    health = changes.pop("health", None) or assess(known, overdue_hours=24, zone=TOKYO)
    recorded = Recorded(
        status=_status(
            known, health, good, ArtifactSummary(count, known.verified_artifacts, corrupt, suspect, 3 << 30)
        ),
        installed_at=known.installed_at,
        runs=runs[:14],
        month=runs,
        artifacts=artifacts,
        drills=drills,
        incidents=incidents,
        channels=changes.pop("channels", channels()),
    )
    fields: dict[str, Any] = {
        "now": NOW,
        "zone": TOKYO,
        "locale": Locale.EN,
        "version": "0.2.0",
        "database": "scpln",
        "environment": "production",
        "source": "/opt/scpln/data/scpln.db",
        "root": "/var/backups/scpln",
        "backing_up": IDLE,
        "drilling": IDLE,
        "recorded": recorded,
        "problem": None,
        "notice": None,
    }
    return View(**fields | changes)


def _status(facts: Facts, health: Health, good: RunRecord | None, summary: ArtifactSummary) -> Status:
    measured = facts.last_drill.restore_seconds if facts.last_drill is not None else None
    return Status(
        health=health,
        database="scpln",
        environment="production",
        last_run=facts.last_run,
        last_success_at=facts.last_success_at,
        last_artifact=good.artifact if good is not None else None,
        next_run_at=facts.next_run_at,
        overdue_at=overdue_at(facts.last_success_at or facts.installed_at, 24, TOKYO),
        running_since=facts.running_since,
        artifacts=summary,
        retention_frozen=facts.retention_frozen,
        last_drill=facts.last_drill,
        restore_seconds_measured=measured,
        incident_deadline=facts.incident_deadline,
    )


def healthy() -> View:
    return view()


def warning() -> View:
    """A suspect run, a channel that fails, a degraded and a repeated night in the month, a run under way."""
    runs = [run(back) for back in range(31)]
    at = NOW.replace(hour=9, minute=41)
    runs.insert(
        0,
        run(0, id=1001, trigger=Trigger.CLI, started_at=at, finished_at=at + timedelta(seconds=4), outcome=Outcome.SUSPECT,
            artifact=name_of(at), artifact_bytes=31_000_000, duration_seconds=4.0, error=FELL),
    )  # fmt: skip
    runs[6] = run(5, outcome=Outcome.DEGRADED, error="the sweep failed: /var/backups/scpln/2026: Permission denied")
    runs[13:14] = [run(12, id=990, trigger=Trigger.CLI, duration_seconds=19.4), failed(12)]
    artifacts = [artifact(back) for back in range(12)]
    artifacts.insert(0, artifact(0, name=name_of(at), taken_at=at, state=State.SUSPECT, bytes=31_000_000))
    since = NOW - timedelta(hours=7, minutes=29)
    silent = ChannelState(
        name="slack", settled=98, attempts=9, failing_since=since, error=REVOKED, failures=9, waiting=2,
        oldest_at=since, retry_at=NOW + timedelta(minutes=12),
    )  # fmt: skip
    queued = ChannelState(name="jira", settled=99, waiting=1, oldest_at=NOW - timedelta(seconds=4))
    return view(
        runs=runs,
        artifacts=artifacts,
        retention_frozen="the last run is suspect; it goes on after the next good one",
        channels=channels(slack=silent, jira=queued),
        failing_channels=(FailingChannel(name="slack", since=since, waiting=2, said=REVOKED),),
        backing_up=Activity(trigger=Trigger.CLI, since=NOW - timedelta(seconds=9), stage=Stage.COMPRESS, percent=42),
    )


def critical() -> View:
    """Two nights failed, one was interrupted, an artifact is corrupt, the drill failed, an incident is overdue."""
    runs = [run(back) for back in range(31)]
    runs[0], runs[1] = failed(0, duration_seconds=0.2), failed(1, duration_seconds=0.2)
    runs[2] = run(2, outcome=Outcome.FAILED, interrupted=True, artifact=None, artifact_bytes=None,
                  finished_at=None, duration_seconds=None, error="interrupted")  # fmt: skip
    del runs[17:19]
    artifacts = [artifact(back) for back in range(3, 15)]
    artifacts[4] = artifact(7, state=State.CORRUPT)
    artifacts[11] = artifact(14, state=State.UNVERIFIED, pinned=True)
    drills = [drill(weeks) for weeks in range(4)]
    drills[0] = drill(0, outcome=Outcome.FAILED, smoke_exit_code=2, error="the smoke test ended with exit code 2; see "
                      "/var/lib/scpln-backup/drills/drill-20261122_040002.log")  # fmt: skip
    return view(
        runs=runs,
        artifacts=artifacts,
        drills=drills,
        corrupt_artifacts=1,
        count=28,
        incidents=[incident(30), incident(3, 4)],
        retention_frozen="the last run failed; it goes on after the next good one",
        notice="reload refused, the old configuration stays in force: [backup] compresion: unknown key, did you mean "
        "compression?",
    )


def empty() -> View:
    """Just installed."""
    return view(runs=[], artifacts=[], drills=[], count=0, installed_at=NOW - timedelta(minutes=3), channels=[])


def unreadable() -> View:
    problem = (
        "/var/lib/scpln-backup/catalog.db: database disk image is malformed; restart the daemon, which replaces it: "
        "systemctl restart scpln-backup"
    )
    return replace(view(), recorded=None, problem=problem)


STATES = {
    "healthy": healthy,
    "warning": warning,
    "critical": critical,
    "empty": empty,
    "unreadable": unreadable,
}
