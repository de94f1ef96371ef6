"""The 24 hours after a restore: opened by it, written up by people, closed when the report is complete."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from scpln_backup.errors import IncidentError
from scpln_backup.events import IncidentClosed, IncidentOpened
from scpln_backup.model import Incident
from scpln_backup.rules import report as reports
from scpln_backup.rules.report import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from scpln_backup.events import Event
    from scpln_backup.model import RestoreRecord
    from scpln_backup.operations.house import House

# Section 5 of the procedure: 「フォールバックは24時間以内に完了」, counted from the restore.
TIME_LIMIT = timedelta(hours=24)

_LIST = "see: scpln-backup incident list"
_JAPANESE_NAMES = {Part.SCOPE: "影響範囲", Part.PREVENTION: "再発防止"}


def deadline_of(restore: RestoreRecord) -> datetime:
    """24 hours after the restore began: hours that pass, whatever the clock on the wall is set to meanwhile."""
    return (restore.started_at.astimezone(UTC) + TIME_LIMIT).astimezone(restore.started_at.tzinfo)


def open_incident(house: House, restore: RestoreRecord, now: datetime) -> Incident:
    """Open the incident of a restore, record it and announce it.

    Each restore has one of its own, with its own deadline, and leaves earlier ones open: what those cost is not in
    the loss of this one, whose old database was the one restored before. Told twice, as by a restore that was
    resumed, it stays one, and is announced again: the first announcement may have been lost in the crash.
    """
    opened = Incident(opened_at=now, deadline_at=deadline_of(restore), restore=restore)
    incident = _known(house, house.catalog.add_incident(opened))
    if incident.closed_at is None:
        house.announce(IncidentOpened(incident=incident))
    return incident


def chosen(house: House, number: int | None) -> Incident:
    """To read: the incident `number`; else the newest open one, or, when none is open, the newest."""
    if number is not None:
        return _known(house, number)
    found = house.catalog.open_incident() or next(iter(house.catalog.incidents()), None)
    if found is None:
        raise IncidentError("there is no incident: none of the restores so far has opened one")
    return found


def to_change(house: House, number: int | None) -> int:
    """To write: `number`, else the one that is open; IncidentError when none is open, or several are."""
    if number is not None:
        return _known(house, number).id
    found = house.catalog.open_incidents()
    if not found:
        raise IncidentError(f"no incident is open; {_LIST}")
    if len(found) > 1:
        numbers = ", ".join(str(incident.id) for incident in reversed(found))
        raise IncidentError(f"incidents {numbers} are open: say which one; {_LIST}")
    return found[0].id


def set_part(house: House, number: int, *, scope: str | None = None, prevention: str | None = None) -> Incident:
    """Keep what people wrote, in the place of what was there; None leaves a part as it is. Closed ones may be mended.

    IncidentError for a text without any words: it would count as written.
    """
    written = {
        part: text.strip() for part, text in ((Part.SCOPE, scope), (Part.PREVENTION, prevention)) if text is not None
    }
    empty = [part for part, text in written.items() if not text]
    if empty:
        raise IncidentError(f"the text for {_named(empty)} is empty; nothing was changed")
    return _changed(
        house, number, lambda incident: replace(incident, **{part.value: written[part] for part in written})
    )


def close(house: House, number: int | None, now: datetime) -> Incident:
    """Close an incident and announce it; IncidentError while a part that only people can write is empty."""

    def change(incident: Incident) -> Incident:
        if incident.closed_at is not None:
            closed = incident.closed_at.astimezone(house.zone)
            raise IncidentError(f"incident {incident.id} was closed already, at {closed:%Y-%m-%d %H:%M}")
        lacking = reports.missing(incident)
        if lacking:
            options = " ".join(f"--{part} TEXT" for part in lacking)
            raise IncidentError(
                f"incident {incident.id} stays open: its report lacks {_named(lacking)}, which only people can write; "
                f"run: scpln-backup incident close {incident.id} {options}"
            )
        return replace(incident, closed_at=now)

    def event(incident: Incident) -> IncidentClosed:
        return IncidentClosed(incident=incident, report=report(house, incident, house.config.locale))

    incident = _changed(house, to_change(house, number), change, event)
    house.announce(event(incident))
    return incident


def report(house: House, incident: Incident, locale: str) -> str:
    """The report of an incident in Markdown, in Japanese ("ja") or English ("en")."""
    return reports.draft(
        incident,
        database=house.config.database.name,
        environment=house.config.environment,
        locale=locale,
        zone=house.zone,
        now=house.now(),
    )


def _known(house: House, number: int) -> Incident:
    found = house.catalog.incident(number)
    if found is None:
        raise _unknown(number)
    return found


def _changed(
    house: House,
    number: int,
    change: Callable[[Incident], Incident],
    event: Callable[[Incident], Event] | None = None,
) -> Incident:
    """Nobody else's change gets lost: a rebuild may end while somebody writes."""
    found = house.catalog.change_incident(number, change, tell=event)
    if found is None:
        raise _unknown(number)
    return found


def _unknown(number: int) -> IncidentError:
    return IncidentError(f"there is no incident {number}; {_LIST}")


def _named(parts: Iterable[Part]) -> str:
    return " and ".join(f"{part} ({_JAPANESE_NAMES[part]})" for part in parts)
