"""What the audit log tells of a month, as the review's facts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from scpln_backup.errors import AuditError
from scpln_backup.model import DrillRecord, RunRecord, Trigger
from scpln_backup.records import auditfiles
from scpln_backup.records.auditlog import Kind, Line
from scpln_backup.records.auditnote import read_note
from scpln_backup.records.auditverify import verify
from scpln_backup.rules.review import Act, ChainState, Deed, Deletion, Notable, Restore, Trouble
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from scpln_backup.operations.house import House
    from scpln_backup.records.auditverify import Finding

R = TypeVar("R", bound=msgspec.Struct)

_DAEMON = "daemon"
_BY_HAND = {
    Kind.ARTIFACT_PINNED: (Act.PIN, "artifact"),
    Kind.ARTIFACT_UNPINNED: (Act.UNPIN, "artifact"),
    Kind.BACKUP_REQUESTED: (Act.REQUEST, "how"),
    Kind.SHRINK_ACCEPTED: (Act.ACCEPT_SHRINK, "artifact"),
    Kind.REBUILD_FINISHED: (Act.REBUILD, "since"),
    Kind.INCIDENT_CLOSED: (Act.INCIDENT, "incident"),
}
_TROUBLES = {
    Kind.BACKUP_OVERDUE: (Trouble.OVERDUE, "since"),
    Kind.CONFIG_REFUSED: (Trouble.CONFIG_REFUSED, "error"),
    Kind.SERVICE_FAILED: (Trouble.SERVICE_FAILED, "error"),
    Kind.RETENTION_FROZEN: (Trouble.RETENTION_FROZEN, "reason"),
}


@dataclass
class LogFacts:
    """`runs`, `drills` and `restores` are as the lines tell them, and are not restricted to the month.

    `logged` is the newest entry of this catalog's outbox that is in the log.
    """

    chain: ChainState
    logged: int = 0
    runs: list[RunRecord] = field(default_factory=list)
    drills: list[DrillRecord] = field(default_factory=list)
    restores: list[Restore] = field(default_factory=list)
    deeds: list[Deed] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    notables: list[Notable] = field(default_factory=list)
    daemon_starts: int = 0


def read(house: House, begin: datetime, end: datetime) -> LogFacts:
    """What the log tells; where it cannot be read, `chain` says so."""
    log, state = Path(house.config.audit.log), Path(house.config.state.directory)
    try:
        facts = LogFacts(_checked(log, state))
        note = read_note(state)
        if note is not None:
            facts.logged = note.entries.get(house.catalog.catalog_id(), 0)
        with auditfiles.opened(log) as found:
            lines = list(auditfiles.lines(found, note.chain if note is not None else None))
    except AuditError as error:
        return LogFacts(ChainState(ok=False, problems=(one_line(error),)))
    for line in lines:
        _note_record(facts, line)
    in_month = [line for line in lines if begin.timestamp() <= line.at.timestamp() < end.timestamp()]
    _note_month(facts, in_month, {_DAEMON} | {line.actor for line in lines if line.event == Kind.DAEMON_STARTED})
    facts.deeds = [deed for deed in facts.deeds if begin.timestamp() <= deed.at.timestamp() < end.timestamp()]
    facts.deeds.sort(key=lambda deed: deed.at.timestamp())
    return facts


def _checked(log: Path, state: Path) -> ChainState:
    verdict = verify(log, state)
    return ChainState(
        ok=verdict.ok,
        checked=verdict.checked,
        first_seq=verdict.first_seq,
        last_seq=verdict.last_seq,
        first_at=verdict.first_at,
        last_hash=verdict.last_hash,
        problems=tuple(_told(finding) for finding in verdict.problems),
    )


def _told(finding: Finding) -> str:
    where = ":".join(str(part) for part in (finding.file, finding.line) if part is not None)
    return f"{where}: {finding.what}" if where else finding.what


def _note_record(facts: LogFacts, line: Line) -> None:
    """A run, drill or restore, and whose it was."""
    match line.event:
        case Kind.RUN_FINISHED:
            renamed = {"duration_seconds": line.facts.get("seconds"), "artifact_bytes": line.facts.get("bytes")}
            run = _record(line, RunRecord, **renamed, finished_at=line.at)
            if run is not None:
                facts.runs.append(run)
                _note_trigger(facts, line, run, Act.RUN)
        case Kind.DRILL_FINISHED:
            drill = _record(line, DrillRecord, finished_at=line.at)
            if drill is not None:
                facts.drills.append(drill)
                _note_trigger(facts, line, drill, Act.DRILL)
        case Kind.RESTORE_FINISHED:
            restore = _record(line, Restore)
            if restore is not None:
                facts.restores.append(restore)
                who = restore.user or line.actor
                facts.deeds.append(Deed(at=restore.started_at, act=Act.RESTORE, actor=who, detail=restore.artifact))


def _record(line: Line, kind: type[R], **more: object) -> R | None:
    """None for what a version to come may have written."""
    known = {name: value for name, value in (line.facts | more).items() if name in kind.__struct_fields__}
    try:
        return msgspec.convert(known, kind)
    except msgspec.ValidationError:
        return None


def _note_trigger(facts: LogFacts, line: Line, record: RunRecord | DrillRecord, act: Act) -> None:
    if record.trigger in (Trigger.CLI, Trigger.SIGNAL):
        actor = line.actor if record.trigger is Trigger.CLI else None
        detail = record.artifact or record.outcome
        facts.deeds.append(Deed(at=record.started_at, act=act, actor=actor, detail=detail))


def _note_month(facts: LogFacts, lines: Iterable[Line], daemons: set[str]) -> None:
    swept: defaultdict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in lines:
        if line.event in _BY_HAND:
            act, name = _BY_HAND[Kind(line.event)]
            detail = str(line.facts.get(name, ""))
            facts.deeds.append(Deed(at=line.at, act=act, actor=line.actor, detail=detail))
        elif line.event in _TROUBLES:
            trouble, name = _TROUBLES[Kind(line.event)]
            facts.notables.append(Notable(at=line.at, trouble=trouble, detail=str(line.facts.get(name, ""))))
        elif line.event == Kind.ARTIFACT_VERIFIED and line.facts.get("sound") is False:
            detail = f"{line.facts.get('artifact')}: {line.facts.get('error')}"
            facts.notables.append(Notable(at=line.at, trouble=Trouble.CORRUPT, detail=detail))
        elif line.event == Kind.ARTIFACT_DELETED:
            name, reason = str(line.facts.get("artifact")), str(line.facts.get("reason"))
            facts.deletions.append(Deletion(at=line.at, name=name, reason=reason))
            if line.actor not in daemons:
                swept[line.actor, f"{line.at:%Y-%m-%d %H:%M}"].append(line)
        elif line.event == Kind.CONFIG_RELOADED:
            facts.deeds.append(Deed(at=line.at, act=Act.RELOAD, actor=None))
        elif line.event == Kind.DAEMON_STARTED:
            facts.daemon_starts += 1
    for (actor, _), deleted in swept.items():
        names = [str(line.facts.get("artifact")) for line in deleted]
        detail = names[0] if len(names) == 1 else f"{len(names)}: {names[0]} … {names[-1]}"
        facts.deeds.append(Deed(at=deleted[0].at, act=Act.SWEEP, actor=actor, detail=detail))
