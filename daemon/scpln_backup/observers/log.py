"""Events as log lines, and the journal's way to read their severity."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, TextIO

from scpln_backup.events import (
    ArtifactDeleted,
    ArtifactPublished,
    ArtifactVerified,
    DrillFinished,
    Event,
    IncidentClosed,
    IncidentOpened,
    RestoreFinished,
    RetentionFrozen,
    RunFinished,
    RunStarted,
    StageEntered,
)
from scpln_backup.model import Outcome, RestoreOutcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scpln_backup.model import Manifest, RunRecord

log = logging.getLogger(__name__)

# sd-daemon(3): the journal takes the priority from this prefix of each line.
PRIORITIES = (
    (logging.CRITICAL, "<2>"),
    (logging.ERROR, "<3>"),
    (logging.WARNING, "<4>"),
    (logging.INFO, "<6>"),
)
DEBUG_PRIORITY = "<7>"

LEVELS = {
    Outcome.SUCCESS: logging.INFO,
    Outcome.DEGRADED: logging.WARNING,
    Outcome.SUSPECT: logging.ERROR,
    Outcome.FAILED: logging.ERROR,
}


def to_journal(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Whether `stream` is the journal's: $JOURNAL_STREAM names its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no descriptor behind it
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class JournalFormatter(logging.Formatter):
    """Prefixes every line, those of a traceback too, with its priority; the journal adds the time itself."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = next((mark for level, mark in PRIORITIES if record.levelno >= level), DEBUG_PRIORITY)
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def handler(environ: Mapping[str, str], stream: TextIO) -> logging.Handler:
    """A handler that writes to `stream`, for the journal if that is where it leads."""
    made = logging.StreamHandler(stream)
    if to_journal(environ, stream):
        made.setFormatter(JournalFormatter("%(message)s"))
    else:
        made.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    return made


def log_event(event: Event) -> None:
    """Writes what happened to the log; failures at ERROR, with what to do. Progress is not logged."""
    match event:
        case RunStarted(trigger=trigger):
            log.info("backup started: trigger=%s", trigger)
        case StageEntered(stage=stage):
            log.debug("stage: %s", stage)
        case ArtifactPublished(manifest=manifest):
            _published(manifest)
        case RunFinished(record=record):
            _finished(record)
        case ArtifactDeleted(name=name, reason=reason):
            log.info("deleted %s: %s", name, reason)
        case ArtifactVerified(name=name, error=None):
            log.info("verified %s", name)
        case ArtifactVerified(name=name, error=error):
            log.error(
                "%s is not what it should be: %s; keep it for a look, and take a new backup: scpln-backup backup",
                name,
                error,
            )
        case RestoreFinished() | DrillFinished() | IncidentOpened() | IncidentClosed():
            _way_back(event)
        case RetentionFrozen(reason=reason):
            log.warning("nothing is deleted for now: %s", reason)


def _way_back(event: RestoreFinished | DrillFinished | IncidentOpened | IncidentClosed) -> None:
    match event:
        case RestoreFinished(record=restore):
            # A restore that worked is no everyday event either.
            level = logging.WARNING if restore.outcome is RestoreOutcome.SUCCESS else logging.ERROR
            facts = {"artifact": restore.artifact, "target": restore.target, "by": restore.user, "error": restore.error}
            log.log(level, "restore %s: %s", restore.outcome, _line(facts))
        case DrillFinished(record=drill):
            seconds = _rounded(drill.restore_seconds)
            facts = {"artifact": drill.artifact, "restore_seconds": seconds, "error": drill.error}
            log.log(LEVELS[drill.outcome], "drill %s: %s", drill.outcome, _line(facts))
        case IncidentOpened(incident=incident):
            log.warning("incident %d opened; its report is due %s", incident.id, incident.deadline_at)
        case IncidentClosed(incident=incident):
            log.info("incident %d closed", incident.id)


def _published(manifest: Manifest) -> None:
    content = manifest.fingerprint
    facts = {
        "state": manifest.state,
        "bytes": manifest.bytes,
        "raw_bytes": content.size_bytes if content is not None else None,
        "rows": content.rows if content is not None else None,
        "sha256": manifest.sha256,
    }
    log.info("published %s: %s", manifest.name, _line(facts))


def _finished(record: RunRecord) -> None:
    if record.interrupted:
        log.warning("backup interrupted: trigger=%s; %s", record.trigger, record.error or "nothing was published")
        return
    facts = {
        "trigger": record.trigger,
        "artifact": record.artifact,
        "seconds": _rounded(record.duration_seconds),
        "writer_blocked_seconds": _rounded(record.writer_blocked_seconds),
        "wal_growth_bytes": record.wal_growth_bytes,
        "reused_from": record.reused_from,
    }
    why = "" if record.error is None else f"; {record.error}"
    log.log(LEVELS[record.outcome], "backup %s: %s%s", record.outcome, _line(facts), why)


def _line(facts: Mapping[str, object]) -> str:
    """What is known, as key=value."""
    return " ".join(f"{key}={value}" for key, value in facts.items() if value is not None)


def _rounded(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:.3f}"
