"""Rebuilding what a restore could not bring back, with the application's own script (section 5 of the procedure)."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import BackupError, ConfigError, IncidentError, from_os
from scpln_backup.events import RebuildFinished
from scpln_backup.model import Outcome, RebuildRecord
from scpln_backup.operations import configured
from scpln_backup.operations.configured import Configured
from scpln_backup.rules import loss
from scpln_backup.support.locks import Lock
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    import threading

    from scpln_backup.model import Incident
    from scpln_backup.operations.house import House

_HOW_TO_LOOK = "see: scpln-backup incident list"


def rebuild(house: House, since: str | None, cancel: threading.Event) -> tuple[RebuildRecord, Incident]:
    """Run the configured script with `--since DATE` on the live database, for the open incident.

    `since` (YYYY-MM-DD) is proposed from what the restore lost when it is None. Returns the record, whatever its
    outcome, and the incident it was added to. As root the script runs as the database's owner.
    Raises IncidentError when no incident is open, ConfigError for a wrong date or no script, LockHeldError while
    another rebuild is under way.
    """
    settings = house.config.rebuild
    incident = house.catalog.open_incident()
    if incident is None:
        raise IncidentError(f"no incident is open, so there is nothing to rebuild; {_HOW_TO_LOOK}")
    if not settings.command:
        raise ConfigError("[rebuild] command is empty; name the script that rebuilds what a restore has lost")
    chosen = _proposed(house, incident) if since is None else _checked(house, since)
    # A lock of its own: a rebuild may take a day, and the nightly backup must not wait for it.
    with Lock(Path(house.config.state.directory) / "rebuild.lock", "a rebuild", zone=house.zone):
        # Noted before it begins, as failed: should this process be killed, that is what the report says.
        record = RebuildRecord(started_at=house.now(), since=chosen, error="interrupted")
        incident = _noted(house, incident, record)
        try:
            record = _run(house, record, cancel)
        except BackupError as error:
            record = msgspec.structs.replace(record, error=one_line(error))
        except OSError as error:
            record = msgspec.structs.replace(record, error=one_line(from_os(error)))
        record = msgspec.structs.replace(record, finished_at=house.now())
        incident = _noted(house, incident, record, finished=True)
        house.announce(RebuildFinished(incident=incident.id, record=record))
        return record, incident


def proposed_since(house: House) -> str | None:
    """The date that `rebuild` would take by itself; None when no incident is open."""
    incident = house.catalog.open_incident()
    return None if incident is None else _proposed(house, incident)


def _run(house: House, record: RebuildRecord, cancel: threading.Event) -> RebuildRecord:
    settings = house.config.rebuild
    script = Configured(
        what="the rebuild script",
        argv=(*settings.command, "--since", record.since),
        directory=settings.directory,
        timeout_seconds=settings.timeout_seconds,
    )
    folder = Path(house.config.state.directory) / "rebuilds"
    output = configured.output_file(folder, "rebuild", record.started_at, script, f"rebuild since {record.since}")
    try:
        ran = configured.run(
            script, database=house.source, user=configured.owner(house.source), output=output, cancel=cancel
        )
    except BackupError as error:
        return msgspec.structs.replace(record, output=str(output), error=one_line(error))
    outcome = Outcome.FAILED
    if ran.error is None:
        outcome = Outcome.DEGRADED if ran.problems else Outcome.SUCCESS
    return msgspec.structs.replace(
        record,
        outcome=outcome,
        exit_code=ran.exit_code,
        output=str(output),
        error="; ".join([*([ran.error] if ran.error else []), *ran.problems]) or None,
    )


def _proposed(house: House, incident: Incident) -> str:
    restore = incident.restore
    if restore.loss is not None:
        return loss.since(restore.loss, house.zone)
    if restore.taken_at is not None:
        return restore.taken_at.astimezone(house.zone).date().isoformat()
    raise IncidentError("the incident does not know what its restore has lost; say from when: --since YYYY-MM-DD")


def _checked(house: House, since: str) -> str:
    try:
        day = date.fromisoformat(since)
    except ValueError:
        day = None
    # fromisoformat takes 20261122 and 2026-W47-7 too, and the script need not.
    if day is None or day.isoformat() != since:
        raise ConfigError(f"--since {since}: not a date; write it as YYYY-MM-DD")
    if day > house.now().date():
        raise ConfigError(f"--since {since}: in the future; nothing would be rebuilt")
    return since


def _noted(house: House, incident: Incident, record: RebuildRecord, *, finished: bool = False) -> Incident:
    """Add the record to the incident, or put it in the place of what it said before."""

    def change(current: Incident) -> Incident:
        others = tuple(known for known in current.rebuilds if known.started_at != record.started_at)
        return msgspec.structs.replace(current, rebuilds=(*others, record))

    event = RebuildFinished(incident=incident.id, record=record) if finished else None
    changed = house.catalog.change_incident(incident.id, change, tell=lambda _: event)
    if changed is None:
        raise IncidentError(f"incident {incident.id} is gone from the catalog; {_HOW_TO_LOOK}")
    return changed
