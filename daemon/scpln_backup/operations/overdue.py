"""Deadlines that pass without anybody doing anything: a backup that did not come, a report that was not written."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import CatalogError
from scpln_backup.events import BackupOverdue, Event, IncidentOverdue
from scpln_backup.model import State
from scpln_backup.rules.health import overdue_at, run_may_make_it

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from scpln_backup.operations.house import House

log = logging.getLogger(__name__)

_TOLD_AGAIN_SECONDS = 86_400.0


class Watch:
    """Announces each deadline that passed, once; also while the catalog can be read and not written.

    `stamps`: a file to remember it in meanwhile, for a process that ends; then it is told once a day.
    """

    def __init__(self, stamps: Path | None = None) -> None:
        self._told: set[tuple[type[Event], str | None]] = set()
        self._stamps = stamps

    def look(self, house: House, now: datetime, running_since: datetime | None) -> list[Event]:
        """What passed and was not told of before. `running_since`: the start of a run under way. CatalogError."""
        new = [event for event in passed(house, now, running_since) if self._is_new(house, event, now)]
        for event in new:
            house.announce(event)
        return new

    def _is_new(self, house: House, event: Event, now: datetime) -> bool:
        name = (type(event), event.key)
        if name in self._told:
            return False
        self._told.add(name)
        try:
            return house.catalog.keep_event(event, now)
        except CatalogError as error:
            log.warning("a passed deadline cannot be kept: %s", error)
            return self.stamp(event, now)

    def stamp(self, event: Event, now: datetime) -> bool:
        """Whether an event that cannot be kept was not told within the last day; from now on it was."""
        if self._stamps is None:
            return True
        name = f"{type(event).__name__} {event.key}"
        try:
            told = msgspec.json.decode(self._stamps.read_bytes(), type=dict[str, float])
        except (OSError, msgspec.MsgspecError):
            told = {}
        if 0 <= now.timestamp() - told.get(name, 0.0) < _TOLD_AGAIN_SECONDS:
            return False
        with suppress(OSError):  # without the stamp it is told again: rather twice than never
            self._stamps.write_bytes(msgspec.json.encode(told | {name: now.timestamp()}))
        return True


def passed(house: House, now: datetime, running_since: datetime | None) -> list[Event]:
    """The deadlines that have passed by `now`."""
    found: list[Event] = []
    catalog = house.catalog
    installed_at = catalog.installed_at()
    last_good = catalog.last_good(now)
    since = last_good.finished_at if last_good is not None else installed_at
    if since is not None:
        found += _backup_overdue(house, since, now, running_since, never=last_good is None)
    found += [
        IncidentOverdue(incident=incident)
        for incident in catalog.open_incidents()
        if now.astimezone(UTC) > incident.deadline_at.astimezone(UTC)
    ]
    return found


def passed_by_the_disk(house: House, now: datetime) -> list[Event]:
    """The same by the artifacts alone, for when the catalog cannot be read."""
    verified = [artifact.taken_at for artifact in house.store.scan() if artifact.state is State.VERIFIED]
    if not verified:
        return []
    return list(_backup_overdue(house, max(verified, key=lambda at: at.timestamp()), now, None, never=False))


def _backup_overdue(
    house: House, since: datetime, now: datetime, running_since: datetime | None, *, never: bool
) -> list[BackupOverdue]:
    hours = house.config.pagerduty.overdue_hours
    deadline = overdue_at(since, hours, house.zone)
    if now.astimezone(UTC) <= deadline.astimezone(UTC) or run_may_make_it(running_since, deadline, now):
        return []
    return [BackupOverdue(since=since, deadline=deadline, hours=hours, never=never)]
