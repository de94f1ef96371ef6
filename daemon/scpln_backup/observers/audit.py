"""From the outbox into the audit log: a line for every durable event, in order, each once."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import msgspec

from scpln_backup.errors import CatalogError
from scpln_backup.events import (
    ArtifactDeleted,
    ArtifactPinned,
    ArtifactVerified,
    BackupOverdue,
    BackupRequested,
    ConfigReloaded,
    DaemonStarted,
    DaemonStopped,
    DrillFinished,
    Event,
    EventUnreadable,
    IncidentClosed,
    IncidentOpened,
    IncidentOverdue,
    RebuildFinished,
    RestoreFinished,
    RestoreStarted,
    RetentionFrozen,
    ReviewMade,
    RunFinished,
    ServiceFailed,
    ShrinkAccepted,
)
from scpln_backup.records.auditchain import Appender, Chain
from scpln_backup.records.auditlog import Kind, Record
from scpln_backup.rules.loss import lost_rows
from scpln_backup.rules.report import seconds_between

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from scpln_backup.model import RestoreRecord
    from scpln_backup.records.catalog import Catalog
    from scpln_backup.records.outbox import Entry

_AT_ONCE = 100
_FACT_CHARACTERS = 16
_SMALL_AND_LARGE = re.compile("(?<=[a-z])(?=[A-Z])")


class AuditTrail:
    """The audit log of one installation. Any thread and process may have one, and use it at any time."""

    def __init__(
        self, catalog: Catalog, log_path: Path, state_dir: Path, *, database: str, environment: str, host: str
    ) -> None:
        self._catalog = catalog
        self._chain = Chain(log_path, state_dir, database=database, environment=environment, host=host)

    def catch_up(self, loose: Sequence[Entry] = ()) -> int:
        """Append all that the outbox has and the log has not, then `loose` (what could not be kept); how many lines.

        Each has one line, however often it is told and whatever this process dies of. Cheap when there is nothing new.
        AuditError: the log cannot be written. CatalogError: the outbox cannot be read; `loose` are in the log then.
        """
        if not loose and not self._is_behind():
            return 0
        problem = None
        with self._chain.appending() as appender:
            try:
                count = self._append_kept(appender)
            except CatalogError as error:
                count, problem = 0, error
            count += appender.append([_record(entry, "") for entry in loose])
        if problem is not None:
            raise problem
        return count

    def _is_behind(self) -> bool:
        note = self._chain.note()
        known = note.entries.get(self._catalog.catalog_id(), 0) if note is not None else 0
        if note is not None and note.pending:
            return True
        return bool(self._catalog.entries(after=known, limit=1)) or self._catalog.last_entry_id() < known

    def _append_kept(self, appender: Appender) -> int:
        catalog = self._catalog.catalog_id()
        known = appender.note.entries.get(catalog, 0)
        newest = self._catalog.last_entry_id()
        if catalog and newest < known:
            return self._append_anew(appender, catalog, newest)
        count = 0
        while entries := self._catalog.entries(after=known, limit=_AT_ONCE):
            count += appender.append([_record(entry, catalog) for entry in entries])
            known = entries[-1].id
        return count

    def _append_anew(self, appender: Appender, catalog: str, newest: int) -> int:
        """The catalog was put back to an older copy, and gives the same ids to other events now."""
        logged = appender.logged(catalog)
        count = after = 0
        while entries := self._catalog.entries(after=after, upto=newest, limit=_AT_ONCE):
            new = [entry for entry in entries if (entry.id, entry.at.timestamp()) not in logged]
            count += appender.append([_record(entry, catalog) for entry in new])
            after = entries[-1].id
        appender.rewind(catalog, newest)
        return count


def _record(entry: Entry, catalog: str) -> Record:
    told = tell(entry.event)
    return Record(
        at=entry.at,
        actor=entry.actor,
        event=told.kind,
        facts=told.facts,
        catalog=catalog,
        entry=entry.id,
        fact=_fact(entry, told),
    )


def _fact(entry: Entry, told: Told) -> str:
    """What makes this event another than any other, whether it was kept in the outbox or not."""
    key = entry.event.key
    what = [type(entry.event).__name__, key if key is not None else (entry.at.timestamp(), str(told.facts))]
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()[:_FACT_CHARACTERS]


@dataclass(frozen=True)
class Told:
    """An event as the audit log tells it; facts that are None are left out."""

    kind: str
    facts: Mapping[str, Any]


@singledispatch
def tell(event: Event) -> Told:
    """What the audit log says of `event`: nothing secret, and no rows of the database.

    One that this table lacks is told by its name, so that nothing durable is ever left out.
    """
    return Told(_SMALL_AND_LARGE.sub("_", type(event).__name__).lower(), {})


@tell.register
def _(event: RunFinished) -> Told:
    run = event.record
    return Told(
        Kind.RUN_FINISHED,
        {
            "outcome": run.outcome,
            "trigger": run.trigger,
            "started_at": run.started_at,
            "artifact": run.artifact,
            "bytes": run.artifact_bytes,
            "raw_bytes": run.raw_bytes,
            "sha256": run.sha256,
            "seconds": _rounded(run.duration_seconds),
            "writer_blocked_seconds": _rounded(run.writer_blocked_seconds),
            "reused_from": run.reused_from,
            "interrupted": True if run.interrupted else None,
            "error": run.error,
        },
    )


@tell.register
def _(event: ArtifactDeleted) -> Told:
    return Told(Kind.ARTIFACT_DELETED, {"artifact": event.name, "reason": event.reason})


@tell.register
def _(event: ArtifactVerified) -> Told:
    return Told(Kind.ARTIFACT_VERIFIED, {"artifact": event.name, "sound": event.error is None, "error": event.error})


@tell.register
def _(event: ArtifactPinned) -> Told:
    return Told(Kind.ARTIFACT_PINNED if event.pinned else Kind.ARTIFACT_UNPINNED, {"artifact": event.name})


@tell.register
def _(event: EventUnreadable) -> Told:
    return Told(Kind.EVENT_UNREADABLE, {"kind": event.kind})


@tell.register
def _(event: BackupRequested) -> Told:
    return Told(Kind.BACKUP_REQUESTED, {"how": "backup --wait"})


@tell.register
def _(event: ShrinkAccepted) -> Told:
    return Told(Kind.SHRINK_ACCEPTED, {"artifact": event.name})


@tell.register
def _(event: RetentionFrozen) -> Told:
    return Told(Kind.RETENTION_FROZEN, {"reason": event.reason})


@tell.register
def _(event: RestoreStarted) -> Told:
    return Told(Kind.RESTORE_STARTED, _restore(event.record))


@tell.register
def _(event: RestoreFinished) -> Told:
    restore = event.record
    ended = restore.finished_at
    return Told(
        Kind.RESTORE_FINISHED,
        {
            **_restore(restore),
            "outcome": restore.outcome,
            "replaced": restore.replaced,
            "set_aside": restore.set_aside,
            "lost_rows": None if restore.loss is None else sum(lost_rows(restore.loss).values()),
            "seconds": None if ended is None else _rounded(seconds_between(restore.started_at, ended)),
            "error": restore.error,
        },
    )


def _restore(restore: RestoreRecord) -> dict[str, Any]:
    return {
        "artifact": restore.artifact,
        "target": restore.target,
        "started_at": restore.started_at,
        "user": restore.user,
    }


@tell.register
def _(event: RebuildFinished) -> Told:
    rebuild = event.record
    return Told(
        Kind.REBUILD_FINISHED,
        {
            "incident": event.incident,
            "outcome": rebuild.outcome,
            "started_at": rebuild.started_at,
            "since": rebuild.since,
            "exit_code": rebuild.exit_code,
            "error": rebuild.error,
        },
    )


@tell.register
def _(event: IncidentOpened) -> Told:
    incident = event.incident
    return Told(
        Kind.INCIDENT_OPENED,
        {"incident": incident.id, "deadline_at": incident.deadline_at, "artifact": incident.restore.artifact},
    )


@tell.register
def _(event: IncidentOverdue) -> Told:
    return Told(Kind.INCIDENT_OVERDUE, {"incident": event.incident.id, "deadline_at": event.incident.deadline_at})


@tell.register
def _(event: IncidentClosed) -> Told:
    incident = event.incident
    closed = incident.closed_at
    in_time = None if closed is None else seconds_between(closed, incident.deadline_at) >= 0
    return Told(
        Kind.INCIDENT_CLOSED,
        {"incident": incident.id, "deadline_at": incident.deadline_at, "closed_at": closed, "in_time": in_time},
    )


@tell.register
def _(event: DrillFinished) -> Told:
    drill = event.record
    return Told(
        Kind.DRILL_FINISHED,
        {
            "outcome": drill.outcome,
            "trigger": drill.trigger,
            "started_at": drill.started_at,
            "artifact": drill.artifact,
            "restore_seconds": _rounded(drill.restore_seconds),
            "smoke_exit_code": drill.smoke_exit_code,
            "error": drill.error,
        },
    )


@tell.register
def _(event: BackupOverdue) -> Told:
    return Told(
        Kind.BACKUP_OVERDUE,
        {"since": event.since, "deadline_at": event.deadline, "hours": event.hours, "never": event.never},
    )


@tell.register
def _(event: ReviewMade) -> Told:
    return Told(
        Kind.REVIEW_MADE,
        {
            "month": event.month,
            "path": event.path,
            "sha256": hashlib.sha256(event.text.encode()).hexdigest(),
            "unticketed": len(event.unticketed),
        },
    )


@tell.register
def _(event: DaemonStarted) -> Told:
    return Told(Kind.DAEMON_STARTED, {"version": event.version})


@tell.register
def _(event: DaemonStopped) -> Told:
    return Told(Kind.DAEMON_STOPPED, {})


@tell.register
def _(event: ServiceFailed) -> Told:
    return Told(Kind.SERVICE_FAILED, {"unit": event.unit, "error": event.problem})


@tell.register
def _(event: ConfigReloaded) -> Told:
    if event.problem is None:
        return Told(Kind.CONFIG_RELOADED, {})
    return Told(Kind.CONFIG_REFUSED, {"error": event.problem})


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
