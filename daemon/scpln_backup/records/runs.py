"""Runs in the catalog: attempts at a backup, and how they ended."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from scpln_backup.events import RunFinished
from scpln_backup.model import Outcome, RunRecord, Trigger
from scpln_backup.records import rows
from scpln_backup.records.access import Access, meta, set_meta
from scpln_backup.records.outbox import keep
from scpln_backup.records.times import to_micros

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable
    from datetime import datetime

    from scpln_backup.model import Manifest


_FILLED = "filled"
_FOR_EVER = 1 << 62
_TOLERANCE = timedelta(minutes=5)  # a clock that is set right by a little every now and then
_TOLD = "told_runs"  # up to this id it is settled which runs were broken off


class Runs(Access):
    """The catalog's part about runs."""

    def begin_run(self, trigger: Trigger, started_at: datetime) -> int:
        """Record a run; its row says failed and interrupted until finish_run, so a kill needs no one to say so."""
        with self._writing() as connection:
            self._tell_broken_off(connection, started_at)
            cursor = connection.execute(rows.INSERT_RUN, rows.run_to_row(rows.begun(trigger, started_at)))
            return cursor.lastrowid or 0

    def finish_run(self, record: RunRecord) -> None:
        """Record how the run `record.id` ended. A run the catalog does not know (it was replaced) is added."""
        row = rows.run_to_row(record)
        with self._writing() as connection:
            if connection.execute(rows.UPDATE_RUN, row).rowcount == 0:
                connection.execute(rows.INSERT_RUN, row)
            keep(connection, RunFinished(record=record), record.finished_at or record.started_at, self.actor)

    def tell_broken_off_runs(self, now: datetime) -> None:
        """Keep as events the runs that were killed. Only while the run lock is held, or free."""
        with self._writing() as connection:
            self._tell_broken_off(connection, now)

    def _tell_broken_off(self, connection: sqlite3.Connection, now: datetime) -> None:
        told = int(meta(connection, _TOLD) or 0)
        (newest,) = connection.execute("SELECT coalesce(max(id), 0) FROM runs").fetchone()
        statement = f"{rows.SELECT_RUN} WHERE id > ? AND finished_at IS NULL ORDER BY id"
        for row in connection.execute(statement, (told,)).fetchall():
            keep(connection, RunFinished(record=rows.run_from_row(row, self.zone)), now, self.actor)
        if newest != told:
            set_meta(connection, _TOLD, str(newest))

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

    def last_good(self, not_after: datetime | None = None) -> RunRecord | None:
        """The newest run that published a proven artifact.

        `not_after`: now. A run that ended later than that was made by a clock that was ahead, and says nothing about
        how old the newest backup is.
        """
        good = (Outcome.SUCCESS, Outcome.DEGRADED)
        latest = _FOR_EVER if not_after is None else to_micros(not_after + _TOLERANCE)
        condition = "WHERE outcome IN (?, ?) AND coalesce(finished_at, started_at) <= ? ORDER BY id DESC LIMIT 1"
        found = self._runs(condition, (*good, latest))
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
                earliest = min(to_micros(told[0].started_at), int(meta(connection, "installed_at") or 0))
                set_meta(connection, "installed_at", str(earliest))
            set_meta(connection, _FILLED, "1")

    def is_filled(self) -> bool:
        """Whether `restore_from` has come to its end since this catalog was made."""
        return self._read(lambda connection: meta(connection, _FILLED) is not None, False)

    def _runs(self, condition: str, values: tuple[object, ...]) -> list[RunRecord]:
        statement = f"{rows.SELECT_RUN} {condition}"

        def question(connection: sqlite3.Connection) -> list[RunRecord]:
            return [rows.run_from_row(row, self.zone) for row in connection.execute(statement, values)]

        return self._read(question, [])
