"""The catalog: what this program did, in a small SQLite file of its own in the state folder.

It holds nothing that a backup depends on. When it is lost the runs come back from the manifests
(`restore_from`) and the artifacts from the disk (`sync_artifacts`).
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec

from scpln_backup.errors import CatalogError
from scpln_backup.model import Outcome, RunRecord, State, Trigger
from scpln_backup.records import database, rows, schema
from scpln_backup.records.times import from_micros, to_micros
from scpln_backup.rules.clock import ClockReading

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime, tzinfo
    from pathlib import Path

    from scpln_backup.model import Artifact, Manifest

log = logging.getLogger(__name__)

T = TypeVar("T")

VANISHED = "vanished"


class ArtifactSummary(msgspec.Struct, frozen=True):
    """The artifacts that are there; `bytes` is what they take on disk."""

    count: int = 0
    verified: int = 0
    corrupt: int = 0
    suspect: int = 0
    bytes: int = 0


class Catalog:
    """The catalog at `path`; times are returned in `zone`.

    Every call has a short connection of its own, so any thread and process may call at any time; one that writes
    waits up to ten seconds for another. Every failure is a CatalogError. While there is no catalog, the methods
    that read answer as an empty one would.
    """

    def __init__(self, path: Path, zone: tzinfo) -> None:
        self.path = path
        self.zone = zone
        self.is_new = False

    @classmethod
    def open(cls, path: Path, zone: tzinfo, now: datetime) -> Self:
        """For those who write: creates the catalog or brings it up to date first.

        A damaged one is moved aside with a warning. `is_new` then says that the caller should refill it:
        `restore_from`, then `sync_artifacts`.
        """
        catalog = cls(path, zone)
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
            value = _meta(connection, "installed_at")
            return None if value is None else from_micros(int(value), self.zone)

        return self._read(question, None)

    # Runs

    def begin_run(self, trigger: Trigger, started_at: datetime) -> int:
        """Record a run; its row says failed and interrupted until finish_run, so a kill needs no one to say so."""
        with self._writing() as connection:
            cursor = connection.execute(rows.INSERT_RUN, rows.run_to_row(rows.begun(trigger, started_at)))
            return cursor.lastrowid or 0

    def finish_run(self, record: RunRecord) -> None:
        """Record how the run `record.id` ended. A run the catalog does not know (it was replaced) is added."""
        row = rows.run_to_row(record)
        with self._writing() as connection:
            if connection.execute(rows.UPDATE_RUN, row).rowcount == 0:
                connection.execute(rows.INSERT_RUN, row)

    def runs(self, limit: int = 50, since: datetime | None = None) -> list[RunRecord]:
        """The newest `limit` runs (-1: all) that started at `since` or later, newest first."""
        start = -1 if since is None else to_micros(since)
        return self._runs("WHERE started_at >= ? ORDER BY id DESC LIMIT ?", (start, limit))

    def last_finished(self, running_id: int | None = None) -> RunRecord | None:
        """The newest run but the one under way, whose id the caller knows (None: there is none).

        A run that was killed is still recorded as begun: without `running_id` it counts as what its row says,
        failed and interrupted, with `finished_at` None.
        """
        found = self._runs("WHERE id IS NOT ? ORDER BY id DESC LIMIT 1", (running_id,))
        return found[0] if found else None

    def last_good(self) -> RunRecord | None:
        """The newest run that published a proven artifact."""
        good = (Outcome.SUCCESS, Outcome.DEGRADED)
        found = self._runs("WHERE outcome IN (?, ?) ORDER BY id DESC LIMIT 1", good)
        return found[0] if found else None

    def unfinished(self) -> RunRecord | None:
        """The newest run, if it was begun and not finished: under way when the run lock is held, else killed."""
        found = self._runs("ORDER BY id DESC LIMIT 1", ())
        return found[0] if found and found[0].finished_at is None else None

    def run_counts(self, running_id: int | None = None) -> dict[tuple[Trigger, Outcome], int]:
        """How many runs ended how. The one under way is left out: a counter must not go back when it succeeds."""
        statement = "SELECT trigger, outcome, count(*) FROM runs WHERE id IS NOT ? GROUP BY trigger, outcome"

        def question(connection: sqlite3.Connection) -> dict[tuple[Trigger, Outcome], int]:
            counted = connection.execute(statement, (running_id,))
            return {(Trigger(trigger), Outcome(outcome)): number for trigger, outcome, number in counted}

        return self._read(question, {})

    def restore_from(self, manifests: Iterable[Manifest]) -> None:
        """Refill the runs from the manifests after a loss. Runs whose artifact is known already are left alone.

        They come before those that are there: the catalog was lost before those began.
        """
        told = [run for manifest in manifests if (run := rows.run_of_manifest(manifest)) is not None]
        told.sort(key=lambda run: run.started_at.timestamp())
        with self._writing() as connection:
            known = {name for (name,) in connection.execute("SELECT artifact FROM runs WHERE artifact NOTNULL")}
            told = [run for run in told if run.artifact not in known]
            (first,) = connection.execute("SELECT min(id) FROM runs").fetchone()
            start = 1 if first is None else first - len(told)
            for number, run in enumerate(told, start):
                connection.execute(rows.INSERT_RUN_AS, {**rows.run_to_row(run), "id": number})
            if told:
                earliest = min(to_micros(told[0].started_at), int(_meta(connection, "installed_at") or 0))
                _set_meta(connection, "installed_at", str(earliest))

    def _runs(self, condition: str, values: tuple[object, ...]) -> list[RunRecord]:
        statement = f"{rows.SELECT_RUN} {condition}"

        def question(connection: sqlite3.Connection) -> list[RunRecord]:
            return [rows.run_from_row(row, self.zone) for row in connection.execute(statement, values)]

        return self._read(question, [])

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
            _set_meta(connection, "retention_deleted", str(_deleted_count(connection) + 1))

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
            value = _meta(connection, "clock")
            return None if value is None else msgspec.json.decode(value, type=ClockReading)

        return self._read(question, None)

    def set_clock(self, reading: ClockReading) -> None:
        with self._writing() as connection:
            _set_meta(connection, "clock", msgspec.json.encode(reading).decode())

    def _read(self, question: Callable[[sqlite3.Connection], T], empty: T) -> T:
        with database.errors_named(self.path):
            if not self.path.exists():
                return empty
            with database.connected(self.path, for_reading=True) as connection:
                version = schema.version_of(connection, self.path)
                if version == 0:  # killed between making the file and filling it
                    return empty
                self._refuse_old(version)
                return question(connection)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, committed at the end of the context and not at all after an error in it."""
        with database.errors_named(self.path), database.connected(self.path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._refuse_old(schema.version_of(connection, self.path))
            yield connection
            connection.execute("COMMIT")

    def _refuse_old(self, version: int) -> None:
        if version < schema.VERSION:
            raise CatalogError(f"{self.path}: of an older version ({version}); restart the daemon: it updates it")


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


def _meta(connection: sqlite3.Connection, key: str) -> str | None:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def _set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )


def _deleted_count(connection: sqlite3.Connection) -> int:
    return int(_meta(connection, "retention_deleted") or 0)


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
