"""The way back in the catalog: restores, drills, and the incidents that restores open."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.events import DrillFinished, IncidentOpened, RestoreFinished
from scpln_backup.model import DrillRecord, Incident, Outcome, RebuildRecord, RestoreRecord
from scpln_backup.records.access import Access, meta, set_meta
from scpln_backup.records.mapping import Mapping
from scpln_backup.records.outbox import keep
from scpln_backup.records.times import from_micros

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from scpln_backup.events import Event
    from scpln_backup.model import Trigger

_INTERRUPTED = "interrupted"
_TOLD = "told_drills"  # up to this id it is settled which drills were broken off


class _IncidentRow(msgspec.Struct, frozen=True, kw_only=True):
    """An incident without its restore, which has a row of its own."""

    id: int
    restore_id: int
    opened_at: datetime
    deadline_at: datetime
    closed_at: datetime | None
    rebuilds: tuple[RebuildRecord, ...]
    scope: str | None
    prevention: str | None


_RESTORES = Mapping(
    "restores",
    RestoreRecord,
    times=frozenset({"started_at", "finished_at", "taken_at"}),
    nested=frozenset({"loss", "steps"}),
    flags=frozenset({"replaced"}),
)
_DRILLS = Mapping("drills", DrillRecord, times=frozenset({"started_at", "finished_at"}))
_INCIDENTS = Mapping(
    "incidents",
    _IncidentRow,
    times=frozenset({"opened_at", "deadline_at", "closed_at"}),
    nested=frozenset({"rebuilds"}),
)
# A restore is known by its start and target, an incident by its restore: both may be told again after a crash, and
# ids start again in a catalog that replaces a damaged one.
_UPSERT_RESTORE = f"{_RESTORES.upsert('started_at', 'target')} RETURNING id"
_UPSERT_INCIDENT = _INCIDENTS.upsert("restore_id")
_ADD_INCIDENT = f"{_INCIDENTS.insert} ON CONFLICT (restore_id) DO NOTHING"
_UPDATE_DRILL = _DRILLS.update_where("id", "started_at")
_GOOD = (Outcome.SUCCESS, Outcome.DEGRADED)


class WayBack(Access):
    """The catalog's part about restores, drills and incidents."""

    # Restores

    def add_restore(self, record: RestoreRecord) -> int:
        """Record a restore; returns its id.

        One that is recorded already, known by its start and target, is brought up to date.
        """
        with self._writing() as connection:
            number = _add_restore(connection, record)
            if record.finished_at is not None:
                done = RestoreFinished(record=msgspec.structs.replace(record, id=number))
                keep(connection, done, record.finished_at, self.actor)
            return number

    def restores(self, limit: int = 50) -> list[RestoreRecord]:
        """The newest `limit` restores (-1: all), newest first."""

        def question(connection: sqlite3.Connection) -> list[RestoreRecord]:
            found = connection.execute(f"{_RESTORES.select} ORDER BY id DESC LIMIT ?", (limit,))
            return [_RESTORES.from_row(row, self.zone) for row in found]

        return self._read(question, [])

    # Drills

    def begin_drill(self, trigger: Trigger, started_at: datetime) -> int:
        """Record a drill; its row says failed and interrupted until finish_drill, as a run's does."""
        begun = DrillRecord(trigger=trigger, started_at=started_at, error=_INTERRUPTED)
        with self._writing() as connection:
            self._tell_broken_off_drills(connection, started_at)
            return connection.execute(_DRILLS.insert, _DRILLS.to_row(begun)).lastrowid or 0

    def finish_drill(self, record: DrillRecord) -> None:
        """Record how the drill `record.id` ended. One that the catalog does not know (it was replaced) is added."""
        row = _DRILLS.to_row(record)
        with self._writing() as connection:
            if connection.execute(_UPDATE_DRILL, row).rowcount == 0:
                connection.execute(_DRILLS.insert, row)
            keep(connection, DrillFinished(record=record), record.finished_at or record.started_at, self.actor)

    def tell_broken_off_drills(self, now: datetime) -> None:
        """Keep as events the drills that were killed. Only while the run lock is held, or free."""
        with self._writing() as connection:
            self._tell_broken_off_drills(connection, now)

    def _tell_broken_off_drills(self, connection: sqlite3.Connection, now: datetime) -> None:
        told = int(meta(connection, _TOLD) or 0)
        (newest,) = connection.execute("SELECT coalesce(max(id), 0) FROM drills").fetchone()
        statement = f"{_DRILLS.select} WHERE id > ? AND finished_at IS NULL ORDER BY id"
        for row in connection.execute(statement, (told,)).fetchall():
            keep(connection, DrillFinished(record=_DRILLS.from_row(row, self.zone)), now, self.actor)
        if newest != told:
            set_meta(connection, _TOLD, str(newest))

    def drills(self, limit: int = 50) -> list[DrillRecord]:
        """The newest `limit` drills (-1: all), newest first."""
        return self._drills("ORDER BY id DESC LIMIT ?", (limit,))

    def last_drill(self, running_id: int | None = None) -> DrillRecord | None:
        """The newest drill but the one under way, whose id the caller knows (None: there is none)."""
        found = self._drills("WHERE id IS NOT ? ORDER BY id DESC LIMIT 1", (running_id,))
        return found[0] if found else None

    def last_good_drill(self) -> DrillRecord | None:
        """The newest drill that succeeded."""
        found = self._drills("WHERE outcome IN (?, ?) ORDER BY id DESC LIMIT 1", _GOOD)
        return found[0] if found else None

    def unfinished_drill(self) -> DrillRecord | None:
        """The newest drill, if it was begun and not finished: under way, or killed."""
        found = self._drills("ORDER BY id DESC LIMIT 1", ())
        return found[0] if found and found[0].finished_at is None else None

    def measured_restore_seconds(self) -> float | None:
        """How long the newest drill that got as far as a checked database took for it; None before the first.

        That its smoke test failed afterwards makes the measurement no less true.
        """
        statement = "SELECT restore_seconds FROM drills WHERE restore_seconds NOTNULL ORDER BY id DESC LIMIT 1"

        def question(connection: sqlite3.Connection) -> float | None:
            found = connection.execute(statement).fetchone()
            return None if found is None else float(found[0])

        return self._read(question, None)

    def _drills(self, condition: str, values: tuple[object, ...]) -> list[DrillRecord]:
        def question(connection: sqlite3.Connection) -> list[DrillRecord]:
            found = connection.execute(f"{_DRILLS.select} {condition}", values)
            return [_DRILLS.from_row(row, self.zone) for row in found]

        return self._read(question, [])

    # Incidents

    def add_incident(self, incident: Incident) -> int:
        """Record an incident, and its restore as add_restore does; returns its id.

        A restore opens one incident: when it has one already, that one's id is returned and nothing else changes.
        """
        with self._writing() as connection:
            row = _incident_row(connection, incident)
            new = connection.execute(_ADD_INCIDENT, row).rowcount
            statement = "SELECT id FROM incidents WHERE restore_id = ?"
            (number,) = connection.execute(statement, (row["restore_id"],)).fetchone()
            if new:
                opened = IncidentOpened(incident=msgspec.structs.replace(incident, id=int(number)))
                keep(connection, opened, incident.opened_at, self.actor)
            return int(number)

    def update_incident(self, incident: Incident) -> None:
        """Record an incident and its restore as they are now. One that the catalog does not know is added.

        Every field is written. Whoever changes what was read a while ago should use `change_incident`.
        """
        with self._writing() as connection:
            _write_incident(connection, incident)

    def change_incident(
        self,
        number: int,
        change: Callable[[Incident], Incident],
        *,
        tell: Callable[[Incident], Event | None] | None = None,
    ) -> Incident | None:
        """Read an incident, change it and record it, with nobody else's change in between.

        Returns what was recorded; None when there is no such incident. What `change` raises is passed on, and
        nothing is recorded. `tell` makes the event that is kept with the change.
        """
        with self._writing() as connection:
            found = self._incidents_of(connection, "WHERE id = ?", (number,))
            if not found:
                return None
            changed = change(found[0])
            _write_incident(connection, changed)
            event = tell(changed) if tell is not None else None
            if event is not None:
                keep(connection, event, datetime.now(UTC), self.actor)
            return changed

    def incident(self, number: int) -> Incident | None:
        found = self._incidents("WHERE id = ?", (number,))
        return found[0] if found else None

    def incidents(self) -> list[Incident]:
        """All, newest first."""
        return self._incidents("ORDER BY id DESC", ())

    def open_incidents(self) -> list[Incident]:
        """Those that are not closed, newest first."""
        return self._incidents("WHERE closed_at IS NULL ORDER BY id DESC", ())

    def open_incident(self) -> Incident | None:
        """The newest that is not closed."""
        found = self._incidents("WHERE closed_at IS NULL ORDER BY id DESC LIMIT 1", ())
        return found[0] if found else None

    def incident_deadline(self) -> datetime | None:
        """The earliest deadline of the open incidents; None when none is open."""

        def question(connection: sqlite3.Connection) -> datetime | None:
            statement = "SELECT min(deadline_at) FROM incidents WHERE closed_at IS NULL"
            (earliest,) = connection.execute(statement).fetchone()
            return None if earliest is None else from_micros(earliest, self.zone)

        return self._read(question, None)

    def _incidents(self, condition: str, values: tuple[object, ...]) -> list[Incident]:
        return self._read(lambda connection: self._incidents_of(connection, condition, values), [])

    def _incidents_of(
        self, connection: sqlite3.Connection, condition: str, values: tuple[object, ...]
    ) -> list[Incident]:
        found = connection.execute(f"{_INCIDENTS.select} {condition}", values).fetchall()
        return [self._with_restore(connection, _INCIDENTS.from_row(row, self.zone)) for row in found]

    def _with_restore(self, connection: sqlite3.Connection, row: _IncidentRow) -> Incident:
        restore = connection.execute(f"{_RESTORES.select} WHERE id = ?", (row.restore_id,)).fetchone()
        if restore is None:
            raise ValueError(f"incident {row.id} without restore {row.restore_id}")
        return Incident(
            id=row.id,
            restore=_RESTORES.from_row(restore, self.zone),
            opened_at=row.opened_at,
            deadline_at=row.deadline_at,
            closed_at=row.closed_at,
            rebuilds=row.rebuilds,
            scope=row.scope,
            prevention=row.prevention,
        )


def _add_restore(connection: sqlite3.Connection, record: RestoreRecord) -> int:
    (number,) = connection.execute(_UPSERT_RESTORE, _RESTORES.to_row(record)).fetchone()
    return int(number)


def _incident_row(connection: sqlite3.Connection, incident: Incident) -> dict[str, object]:
    return _INCIDENTS.to_row(
        _IncidentRow(
            id=incident.id,
            restore_id=_add_restore(connection, incident.restore),
            opened_at=incident.opened_at,
            deadline_at=incident.deadline_at,
            closed_at=incident.closed_at,
            rebuilds=incident.rebuilds,
            scope=incident.scope,
            prevention=incident.prevention,
        )
    )


def _write_incident(connection: sqlite3.Connection, incident: Incident) -> None:
    connection.execute(_UPSERT_INCIDENT, _incident_row(connection, incident))
