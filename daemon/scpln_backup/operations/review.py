"""The monthly review: gathers what the catalog and the audit log know of a month, writes it up and announces it."""

from __future__ import annotations

import os
from datetime import (
    UTC,
    datetime,
    timedelta,
)
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from scpln_backup.errors import from_os
from scpln_backup.events import DrillFinished, RestoreFinished, ReviewMade, RunFinished
from scpln_backup.operations import review_log
from scpln_backup.records.times import to_micros
from scpln_backup.rules import review as rules
from scpln_backup.rules.loss import lost_rows
from scpln_backup.rules.review import Disagreement, Told
from scpln_backup.rules.review_markdown import markdown
from scpln_backup.rules.slots import Schedule
from scpln_backup.support import files
from scpln_backup.support.locks import holder
from scpln_backup.support.text import human_bytes, human_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scpln_backup.model import DrillRecord, Incident, RestoreRecord, RunRecord
    from scpln_backup.operations.house import House
    from scpln_backup.operations.review_log import LogFacts
    from scpln_backup.records.outbox import Entry

_FOLDER = "reviews"
_TICKETS = "jira"
_AT_ONCE = 500


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A review. `path` is None while it is in no file; `unticketed` are the starts of failed runs without a ticket."""

    month: str
    text: str
    unticketed: tuple[datetime, ...]
    path: str | None = None


def review(house: House, month: str, now: datetime) -> Made:
    """Make the review of a month (YYYY-MM), once: in a file of the state folder, and announced.

    Made again it stays what it was, in its file too. ValueError for anything but a month; CatalogError; BackupError
    when the file cannot be written. An audit log that cannot be read keeps no review from being made: it says so.
    """
    path = Path(house.config.state.directory) / _FOLDER / f"{month}.md"
    known = _Outbox(house).reviews.get(month)
    if known is None:
        made = draft(house, month, now)
        known = ReviewMade(month=month, path=str(path), text=made.text, unticketed=made.unticketed)
        _write(path, known.text)
        house.announce(known)
    elif not path.exists():
        _write(path, known.text)
    return Made(month=month, text=known.text, unticketed=known.unticketed, path=str(path))


def draft(house: House, month: str, now: datetime, locale: str | None = None) -> Made:
    """The review as it would be now, written nowhere, in the configured language if no other is given.

    ValueError for anything but a month; CatalogError.
    """
    found = rules.review(_facts(house, month, now))
    language = locale or house.config.locale
    text = markdown(found, locale=language, zone=house.zone, size=human_bytes, duration=human_duration)
    return Made(month=month, text=text, unticketed=tuple(run.record.started_at for run in found.unticketed))


def _write(path: Path, text: str) -> None:
    try:
        files.make_folder(path.parent)
        files.write_durably(path, text.encode())
    except OSError as error:
        raise from_os(error) from error


class _Dated(Protocol):
    @property
    def started_at(self) -> datetime: ...
    @property
    def outcome(self) -> str: ...


D = TypeVar("D", bound=_Dated)


class _Outbox:
    """Which entries tell of which events, and the reviews that were announced."""

    def __init__(self, house: House) -> None:
        self.ids: dict[tuple[Told, int], int] = {}
        self.reviews: dict[str, ReviewMade] = {}
        for entry in _entries(house):
            match entry.event:
                case RunFinished(record=run):
                    self.ids[Told.RUN, to_micros(run.started_at)] = entry.id
                case DrillFinished(record=drill):
                    self.ids[Told.DRILL, to_micros(drill.started_at)] = entry.id
                case RestoreFinished(record=restore):
                    self.ids[Told.RESTORE, to_micros(restore.started_at)] = entry.id
                case ReviewMade(month=month):
                    self.reviews[month] = entry.event


def _entries(house: House) -> Iterator[Entry]:
    after = 0
    while found := house.catalog.entries(after=after, limit=_AT_ONCE):
        yield from found
        after = found[-1].id


def _facts(house: House, month: str, now: datetime) -> rules.Facts:
    config, zone = house.config, house.zone
    begin, end = rules.bounds(month, zone)
    earlier, _ = rules.bounds(rules.month_before(month), zone)
    outbox, log = _Outbox(house), review_log.read(house, begin, end)
    both = _Both(begin, end, log, outbox)
    runs = both.put_together(Told.RUN, _runs(house), log.runs)
    drills = both.put_together(Told.DRILL, _drills(house), log.drills)
    restores = both.put_together(Told.RESTORE, [_restore(one) for one in house.catalog.restores(-1)], log.restores)
    tickets = house.catalog.refs(_TICKETS, list(outbox.ids.values()))

    def with_tickets(record: RunRecord) -> rules.Run:
        entry = outbox.ids.get((Told.RUN, to_micros(record.started_at)), 0)
        return rules.Run(record, tuple(tickets.get(entry, ())))

    return rules.Facts(
        month=month,
        begin=begin,
        end=end,
        now=now,
        zone_name=zone.key,
        database=config.database.name,
        environment=config.environment,
        host=os.uname().nodename,
        overdue_hours=config.pagerduty.overdue_hours,
        installed_at=house.catalog.installed_at(),
        runs=tuple(with_tickets(run) for run in runs if _is_after(run, earlier)),
        slots=tuple(_slots(house, begin, end)),
        drills=tuple(drill for drill in drills if _is_after(drill, earlier)),
        restores=tuple(restore for restore in restores if both.is_in_month(restore.started_at)),
        incidents=tuple(incident for incident in house.catalog.incidents()[::-1] if _touches(incident, begin, end)),
        deeds=tuple(log.deeds),
        deletions=tuple(log.deletions),
        notables=tuple(log.notables),
        daemon_starts=log.daemon_starts,
        disagreements=tuple(both.disagreements),
        chain=log.chain,
    )


def _runs(house: House) -> list[RunRecord]:
    """All that are over, oldest first."""
    under_way = house.catalog.unfinished() if holder(house.run_lock("").path) is not None else None
    return [run for run in house.catalog.runs(-1)[::-1] if under_way is None or run.id != under_way.id]


def _drills(house: House) -> list[DrillRecord]:
    under_way = house.catalog.unfinished_drill() if holder(house.run_lock("").path) is not None else None
    return [drill for drill in house.catalog.drills(-1)[::-1] if under_way is None or drill.id != under_way.id]


def _restore(record: RestoreRecord) -> rules.Restore:
    return rules.Restore(
        started_at=record.started_at,
        artifact=record.artifact,
        outcome=record.outcome,
        user=record.user,
        lost_rows=None if record.loss is None else sum(lost_rows(record.loss).values()),
        error=record.error,
    )


def _slots(house: House, begin: datetime, end: datetime) -> Iterator[datetime]:
    """The times of the month at which a backup is due by the schedule in force now, and one more."""
    # Without the jitter: what it delays runs after its slot, and before the next one, all the same.
    schedule = Schedule(house.config.schedule.backup, house.zone)
    for slot in schedule.after(begin.astimezone(UTC) - timedelta(seconds=1)):
        yield slot
        if slot.timestamp() >= end.timestamp():
            return


def _is_after(one: _Dated, begin: datetime) -> bool:
    return one.started_at.timestamp() >= begin.timestamp()


def _touches(incident: Incident, begin: datetime, end: datetime) -> bool:
    """Whether it was open in the month."""
    closed = incident.closed_at
    return incident.opened_at.timestamp() < end.timestamp() and (
        closed is None or closed.timestamp() >= begin.timestamp()
    )


class _Both:
    """What the catalog and the audit log tell of the same events, put together."""

    def __init__(self, begin: datetime, end: datetime, log: LogFacts, outbox: _Outbox) -> None:
        self._begin = begin
        self._end = end
        self._log = log
        self._outbox = outbox
        self.disagreements: list[Disagreement] = []

    def is_in_month(self, at: datetime) -> bool:
        return self._begin.timestamp() <= at.timestamp() < self._end.timestamp()

    def put_together(self, what: Told, catalog: Sequence[D], log: Sequence[D]) -> list[D]:
        """The catalog's, and those that only the log knows (the catalog was lost), oldest first."""
        told: dict[int, list[D]] = {}
        for one in log:
            told.setdefault(to_micros(one.started_at), []).append(one)
        known = {to_micros(one.started_at): one for one in catalog}
        for at, one in known.items():
            self._compare(what, one, told.get(at, []))
        only_told = [ones[-1] for at, ones in told.items() if at not in known]
        for one in only_told:
            self._disagree(what, one.started_at, None, one.outcome)
        return sorted([*catalog, *only_told], key=lambda one: one.started_at.timestamp())

    def _compare(self, what: Told, one: D, told: Sequence[D]) -> None:
        if not told:
            if self._should_be_told(what, one):
                self._disagree(what, one.started_at, one.outcome, None)
        elif one.outcome not in {other.outcome for other in told}:
            self._disagree(what, one.started_at, one.outcome, told[-1].outcome)

    def _should_be_told(self, what: Told, one: D) -> bool:
        """Not what was before the log began, nor what still waits to be written to it."""
        begun = self._log.chain.first_at
        waits = self._outbox.ids.get((what, to_micros(one.started_at)), 0) > self._log.logged
        return begun is not None and one.started_at.timestamp() >= begun.timestamp() and not waits

    def _disagree(self, what: Told, started_at: datetime, catalog: str | None, log: str | None) -> None:
        if self.is_in_month(started_at):
            self.disagreements.append(Disagreement(what=what, started_at=started_at, catalog=catalog, log=log))
