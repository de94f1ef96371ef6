"""What an event means to those who must know: its topic, how much it matters, what begins or is over with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

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
from scpln_backup.model import Outcome, RestoreOutcome, Severity, Topic

RUN = "run"
OVERDUE = "overdue"
DRILL = "drill"
RESTORE = "restore"
SERVICE = "service"
TEST = "test"


@dataclass(frozen=True, kw_only=True)
class Notice:
    """`topic` None: nobody but the audit log is told.

    A cause is something bad that lasts, such as "run" (the last run was not good): `opens` names the one that begins
    or goes on with this event, `closes` those that are over when it happens. `eases`: it goes on, and is over for those
    who wanted to hear only of worse. `quiet`: by itself it is no news, only what is over with it.
    """

    topic: Topic | None
    severity: Severity = Severity.INFO
    opens: str | None = None
    closes: tuple[str, ...] = ()
    eases: bool = False
    quiet: bool = False


@singledispatch
def notice(event: Event) -> Notice:
    """What `event` means."""
    return Notice(topic=None)


_RUN_SEVERITIES = {
    Outcome.SUCCESS: Severity.INFO,
    Outcome.DEGRADED: Severity.WARNING,
    Outcome.SUSPECT: Severity.WARNING,
    Outcome.FAILED: Severity.CRITICAL,
}


@notice.register
def _(event: RunFinished) -> Notice:
    record = event.record
    if record.outcome is Outcome.SUCCESS:
        return Notice(topic=Topic.RUN, closes=(RUN, OVERDUE))
    severity = _RUN_SEVERITIES[record.outcome]
    if record.interrupted:  # stopped with the service, or killed: tonight's is taken again by itself
        severity = Severity.WARNING
    # A degraded run left a good artifact: the backup is no longer overdue.
    good = record.outcome is Outcome.DEGRADED
    return Notice(topic=Topic.RUN, severity=severity, opens=RUN, closes=(OVERDUE,) if good else (), eases=good)


@notice.register
def _(event: BackupOverdue) -> Notice:
    return Notice(topic=Topic.OVERDUE, severity=Severity.CRITICAL, opens=OVERDUE)


@notice.register
def _(event: ArtifactVerified) -> Notice:
    cause = f"artifact {event.name}"
    if event.error is None:
        return Notice(topic=Topic.ARTIFACT, closes=(cause,), quiet=True)
    return Notice(topic=Topic.ARTIFACT, severity=Severity.CRITICAL, opens=cause)


@notice.register
def _(event: ArtifactDeleted) -> Notice:
    return Notice(topic=Topic.ARTIFACT, closes=(f"artifact {event.name}",), quiet=True)


@notice.register
def _(event: DrillFinished) -> Notice:
    if event.record.outcome is Outcome.SUCCESS:
        return Notice(topic=Topic.DRILL, closes=(DRILL,))
    return Notice(topic=Topic.DRILL, severity=Severity.WARNING, opens=DRILL)


@notice.register
def _(event: RestoreStarted) -> Notice:
    return Notice(topic=Topic.RESTORE, severity=Severity.WARNING)


@notice.register
def _(event: RestoreFinished) -> Notice:
    if event.record.outcome is RestoreOutcome.SUCCESS:
        return Notice(topic=Topic.RESTORE, severity=Severity.WARNING, closes=(RESTORE,))
    return Notice(topic=Topic.RESTORE, severity=Severity.CRITICAL, opens=RESTORE)


@notice.register
def _(event: IncidentOpened) -> Notice:
    return Notice(topic=Topic.INCIDENT, severity=Severity.WARNING, opens=_incident(event))


@notice.register
def _(event: IncidentOverdue) -> Notice:
    return Notice(topic=Topic.INCIDENT, severity=Severity.CRITICAL, opens=_incident(event))


@notice.register
def _(event: IncidentClosed) -> Notice:
    return Notice(topic=Topic.INCIDENT, closes=(_incident(event),))


@notice.register
def _(event: ServiceFailed) -> Notice:
    return Notice(topic=Topic.SERVICE, severity=Severity.CRITICAL, opens=SERVICE)


@notice.register
def _(event: DaemonStarted) -> Notice:
    return Notice(topic=Topic.SERVICE, closes=(SERVICE,), quiet=True)


@notice.register
def _(event: ReviewMade) -> Notice:
    return Notice(topic=Topic.REVIEW)


@notice.register
def _(event: TestMessage) -> Notice:
    if event.over:
        return Notice(topic=Topic.RUN, closes=(TEST,))
    return Notice(topic=Topic.RUN, severity=Severity.CRITICAL, opens=TEST)


def _incident(event: IncidentOpened | IncidentOverdue | IncidentClosed) -> str:
    return f"incident {event.incident.id}"
