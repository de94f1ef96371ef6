"""The catalog: what this program did, in a small SQLite file of its own in the state folder.

It holds nothing that a backup depends on. When it is lost the runs come back from the manifests
(`restore_from`) and the artifacts from the disk (`sync_artifacts`). Restores, drills and incidents stand nowhere
else: they are in the damaged file that is moved aside.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

import msgspec

from scpln_backup.model import State
from scpln_backup.records import database, rows
from scpln_backup.records.access import meta, set_meta
from scpln_backup.records.outbox import Outbox
from scpln_backup.records.runs import Runs
from scpln_backup.records.times import from_micros, to_micros
from scpln_backup.records.way_back import WayBack
from scpln_backup.rules.clock import ClockReading

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable
    from datetime import datetime, tzinfo
    from pathlib import Path

    from scpln_backup.model import Artifact

log = logging.getLogger(__name__)

VANISHED = "vanished"


class ArtifactSummary(msgspec.Struct, frozen=True):
    """The artifacts that are there; `bytes` is what they take on disk."""

    count: int = 0
    verified: int = 0
    corrupt: int = 0
    suspect: int = 0
    bytes: int = 0


class Catalog(Runs, WayBack, Outbox):
    """The catalog at `path`; times are returned in `zone`. Its parts, such as the runs, have files of their own.

    `actor` is who writes to it, for the events in the outbox.

    Every call has a short connection of its own, so any thread and process may call at any time; one that writes
    waits up to ten seconds for another. Every failure is a CatalogError. While there is no catalog, the methods
    that read answer as an empty one would.
    """

    def __init__(self, path: Path, zone: tzinfo, actor: str = "") -> None:
        super().__init__(path, zone, actor)
        self.is_new = False

    @classmethod
    def open(cls, path: Path, zone: tzinfo, now: datetime, actor: str = "") -> Self:
        """For those who write: creates the catalog or brings it up to date first.

        A damaged one is moved aside with a warning. `is_new` then says that the caller should refill it:
        `restore_from`, then `sync_artifacts`.
        """
        catalog = cls(path, zone, actor)
        with database.errors_named(path):
            catalog.is_new, replaced = database.prepare(path, now)
        if replaced:
            log.warning("the catalog %s was damaged: %s", path, replaced)
        return catalog

    @classmethod
    def reader(cls, path: Path, zone: tzinfo) -> Self:
        """For those who only read, and may not be allowed more: touches nothing."""
        return cls(path, zone)

    def installed_at(self) -> datetime | None:
        """When the first catalog was made, or the first run that is known of; None while there is no catalog."""

        def question(connection: sqlite3.Connection) -> datetime | None:
            value = meta(connection, "installed_at")
            return None if value is None else from_micros(int(value), self.zone)

        return self._read(question, None)

    # Artifacts

    def sync_artifacts(self, artifacts: Iterable[Artifact], now: datetime) -> None:
        """Make the index what the disk says. What is not there any more is noted as deleted: vanished.

        Unchanged rows are not written, so calling often costs no disk.
        """
        at = to_micros(now)
        listed = [rows.artifact_to_row(artifact) | {"first_seen": at} for artifact in artifacts]
        names = {row["name"] for row in listed}
        with self._writing() as connection:
            connection.executemany(_UPSERT_ARTIFACT, listed)
            present = connection.execute("SELECT name FROM artifacts WHERE deleted_at IS NULL").fetchall()
            gone = [(at, VANISHED, name) for (name,) in present if name not in names]
            connection.executemany("UPDATE artifacts SET deleted_at = ?, deleted_reason = ? WHERE name = ?", gone)

    def note_deleted(self, name: str, reason: str, at: datetime) -> None:
        """Record that retention deleted an artifact, and count it, once."""
        key = rows.storable(name)
        with self._writing() as connection:
            row = connection.execute("SELECT deleted_reason FROM artifacts WHERE name = ?", (key,)).fetchone()
            if row is not None and row[0] not in {None, VANISHED}:
                return
            statement = "UPDATE artifacts SET deleted_at = ?, deleted_reason = ? WHERE name = ?"
            connection.execute(statement, (to_micros(at), reason, key))
            set_meta(connection, "retention_deleted", str(_deleted_count(connection) + 1))

    def deleted_count(self) -> int:
        """How many artifacts retention has deleted. Only grows: a file that is put back does not lower it."""
        return self._read(_deleted_count, 0)

    def artifact_summary(self) -> ArtifactSummary:
        """What the index says, as of the last sync_artifacts."""
        return self._read(_summary, ArtifactSummary())

    # Schedule and clock

    def slot(self, job: str) -> datetime | None:
        """The newest slot of `job` that was served."""

        def question(connection: sqlite3.Connection) -> datetime | None:
            found = connection.execute("SELECT served_at FROM slots WHERE job = ?", (job,)).fetchone()
            return None if found is None else from_micros(found[0], self.zone)

        return self._read(question, None)

    def set_slot(self, job: str, at: datetime) -> None:
        statement = (
            "INSERT INTO slots (job, served_at) VALUES (?, ?) "
            "ON CONFLICT (job) DO UPDATE SET served_at = excluded.served_at"
        )
        with self._writing() as connection:
            connection.execute(statement, (job, to_micros(at)))

    def clock(self) -> ClockReading | None:
        """The last reading that was kept."""

        def question(connection: sqlite3.Connection) -> ClockReading | None:
            value = meta(connection, "clock")
            return None if value is None else msgspec.json.decode(value, type=ClockReading)

        return self._read(question, None)

    def set_clock(self, reading: ClockReading) -> None:
        with self._writing() as connection:
            set_meta(connection, "clock", msgspec.json.encode(reading).decode())


_UPSERT_ARTIFACT = """
INSERT INTO artifacts (name, path, taken_at, modified_at, bytes, raw_bytes, state, pinned, first_seen)
VALUES (:name, :path, :taken_at, :modified_at, :bytes, :raw_bytes, :state, :pinned, :first_seen)
ON CONFLICT (name) DO UPDATE SET
    path = excluded.path, taken_at = excluded.taken_at, modified_at = excluded.modified_at,
    bytes = excluded.bytes, raw_bytes = excluded.raw_bytes, state = excluded.state, pinned = excluded.pinned,
    deleted_at = NULL, deleted_reason = NULL
WHERE (path, taken_at, modified_at, bytes, raw_bytes, state, pinned, deleted_at) IS NOT
    (excluded.path, excluded.taken_at, excluded.modified_at, excluded.bytes, excluded.raw_bytes, excluded.state,
     excluded.pinned, NULL)
"""


def _deleted_count(connection: sqlite3.Connection) -> int:
    return int(meta(connection, "retention_deleted") or 0)


def _summary(connection: sqlite3.Connection) -> ArtifactSummary:
    statement = "SELECT state, count(*), sum(bytes) FROM artifacts WHERE deleted_at IS NULL GROUP BY state"
    found = {State(state): (number, size) for state, number, size in connection.execute(statement)}
    return ArtifactSummary(
        count=sum(number for number, _ in found.values()),
        verified=found.get(State.VERIFIED, (0, 0))[0],
        corrupt=found.get(State.CORRUPT, (0, 0))[0],
        suspect=found.get(State.SUSPECT, (0, 0))[0],
        bytes=sum(size for _, size in found.values()),
    )
