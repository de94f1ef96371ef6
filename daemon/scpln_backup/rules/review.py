"""The review of a month (section 4 of the procedure): what the backups did, and what is to be followed up.

The facts come from the catalog and from the audit log; here they are put in order and judged.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.model import DrillRecord, Incident, Outcome, RestoreOutcome, RunRecord
from scpln_backup.rules.report import seconds_between

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from zoneinfo import ZoneInfo

_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")
_GOOD = (Outcome.SUCCESS, Outcome.DEGRADED)
_HOUR = 3600
_SLOT_GRACE_SECONDS = 2 * _HOUR
# A run may take longer than the one before it, and autumn has a day of 25 hours.
_GAP_GRACE_SECONDS = 2 * _HOUR


def month_of(moment: datetime) -> str:
    """YYYY-MM, by the moment's own zone."""
    return f"{moment:%Y-%m}"


def month_before(month: str) -> str:
    year, number = int(month[:4]), int(month[5:])
    return f"{year - 1:04}-12" if number == 1 else f"{year:04}-{number - 1:02}"


def bounds(month: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Its first instant, and the next month's; ValueError for anything but YYYY-MM."""
    found = _MONTH.fullmatch(month)
    if found is None:
        raise ValueError(f"{month!r} is not a month; write it as 2026-11")
    year, number = int(found[1]), int(found[2])
    following = (year, number + 1) if number < 12 else (year + 1, 1)  # noqa: PLR2004 - December
    return datetime(year, number, 1, tzinfo=zone), datetime(*following, 1, tzinfo=zone)


class Run(msgspec.Struct, frozen=True):
    """A run, and the tickets that follow it up."""

    record: RunRecord
    tickets: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        return self.record.outcome in _GOOD


class Restore(msgspec.Struct, frozen=True, kw_only=True):
    """A restore, as the catalog or the audit log tells it."""

    started_at: datetime
    artifact: str
    outcome: RestoreOutcome
    user: str | None = None
    lost_rows: int | None = None
    error: str | None = None


class Act(StrEnum):
    """What somebody may do by hand."""

    RUN = "run"
    REQUEST = "request"
    DRILL = "drill"
    RESTORE = "restore"
    REBUILD = "rebuild"
    INCIDENT = "incident"
    PIN = "pin"
    UNPIN = "unpin"
    ACCEPT_SHRINK = "accept-shrink"
    SWEEP = "sweep"
    RELOAD = "reload"


class Deed(msgspec.Struct, frozen=True, kw_only=True):
    """Something done by hand. `actor` None: a signal, which nobody's name comes with."""

    at: datetime
    act: Act
    actor: str | None
    detail: str = ""


class Deletion(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that retention has deleted."""

    at: datetime
    name: str
    reason: str


class Trouble(StrEnum):
    """What the audit log may tell besides, that somebody has to look at."""

    CORRUPT = "corrupt"
    OVERDUE = "overdue"
    CONFIG_REFUSED = "config-refused"
    SERVICE_FAILED = "service-failed"
    RETENTION_FROZEN = "retention-frozen"


class Notable(msgspec.Struct, frozen=True, kw_only=True):
    at: datetime
    trouble: Trouble
    detail: str = ""


class Told(StrEnum):
    """What both the catalog and the audit log tell of."""

    RUN = "run"
    DRILL = "drill"
    RESTORE = "restore"


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome that the catalog and the audit log give for one event; None: it is not there at all."""

    what: Told
    started_at: datetime
    catalog: str | None
    log: str | None


class ChainState(msgspec.Struct, frozen=True, kw_only=True):
    """The audit log as a whole. `problems` are where and what; `last_hash` is the hash of line `last_seq`."""

    ok: bool
    checked: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    first_at: datetime | None = None
    last_hash: str | None = None
    problems: tuple[str, ...] = ()


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a month, from `begin` to `end` (exclusive).

    `runs` are all of it and of the month before, and the first ones after it, oldest first; none is under way. `slots`
    are the times at which a backup was due, and one more after them. `drills`, too, are of both months.
    """

    month: str
    begin: datetime
    end: datetime
    now: datetime
    zone_name: str
    database: str
    environment: str
    host: str
    overdue_hours: int
    installed_at: datetime | None = None
    runs: tuple[Run, ...] = ()
    slots: tuple[datetime, ...] = ()
    drills: tuple[DrillRecord, ...] = ()
    restores: tuple[Restore, ...] = ()
    incidents: tuple[Incident, ...] = ()
    deeds: tuple[Deed, ...] = ()
    deletions: tuple[Deletion, ...] = ()
    notables: tuple[Notable, ...] = ()
    daemon_starts: int = 0
    disagreements: tuple[Disagreement, ...] = ()
    chain: ChainState = ChainState(ok=True)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes and durations of the good runs of a month; None where there was none."""

    runs: int = 0
    good: int = 0
    median_seconds: float | None = None
    longest_seconds: float | None = None
    longest_blocked_seconds: float | None = None
    median_raw_bytes: int | None = None
    last_raw_bytes: int | None = None
    median_artifact_bytes: int | None = None
    restore_seconds: float | None = None


class Gap(msgspec.Struct, frozen=True):
    """A time without a good backup. `is_open`: it went on when the month was over, or still does."""

    begin: datetime
    end: datetime
    is_open: bool = False

    @property
    def seconds(self) -> float:
        return seconds_between(self.begin, self.end)


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """What the facts come to."""

    facts: Facts
    runs: tuple[Run, ...]
    runs_before: tuple[Run, ...]
    drills: tuple[DrillRecord, ...]
    figures: Figures
    before: Figures
    longest_gap: Gap | None
    is_gap_too_long: bool
    slots: int
    missed: tuple[datetime, ...]
    unticketed: tuple[Run, ...]
    late_incidents: tuple[Incident, ...]
    log_begins_late: bool

    @property
    def is_partial(self) -> bool:
        """Whether the month is not over."""
        return self.facts.now.timestamp() < self.facts.end.timestamp()


def review(facts: Facts) -> Review:
    """Judge a month."""
    runs = [run for run in facts.runs if _within(run.record.started_at, facts.begin, facts.end)]
    earlier = [run for run in facts.runs if run.record.started_at.timestamp() < facts.begin.timestamp()]
    drills = [drill for drill in facts.drills if _within(drill.started_at, facts.begin, facts.end)]
    drills_before = [drill for drill in facts.drills if drill.started_at.timestamp() < facts.begin.timestamp()]
    failed = [run for run in runs if run.record.outcome is Outcome.FAILED]
    due = _due(facts)
    gap = _longest_gap(facts)
    return Review(
        facts=facts,
        runs=tuple(runs),
        runs_before=tuple(earlier),
        drills=tuple(drills),
        figures=_figures(runs, drills),
        before=_figures(earlier, drills_before),
        longest_gap=gap,
        is_gap_too_long=gap is not None and gap.seconds > facts.overdue_hours * _HOUR + _GAP_GRACE_SECONDS,
        slots=len(due),
        missed=tuple(_missed(due, facts)),
        unticketed=tuple(run for run in failed if not run.tickets),
        late_incidents=tuple(incident for incident in facts.incidents if _is_late(incident, facts.now)),
        log_begins_late=_log_begins_late(facts),
    )


def _within(moment: datetime, begin: datetime, end: datetime) -> bool:
    return begin.timestamp() <= moment.timestamp() < end.timestamp()


def _figures(runs: Sequence[Run], drills: Sequence[DrillRecord]) -> Figures:
    good = [run.record for run in runs if run.is_good]
    seconds = _known(record.duration_seconds for record in good)
    blocked = _known(record.writer_blocked_seconds for record in good)
    raw = _known(record.raw_bytes for record in good)
    artifacts = _known(record.artifact_bytes for record in good)
    restores = _known(drill.restore_seconds for drill in drills)
    return Figures(
        runs=len(runs),
        good=len(good),
        median_seconds=median(seconds) if seconds else None,
        longest_seconds=max(seconds, default=None),
        longest_blocked_seconds=max(blocked, default=None),
        median_raw_bytes=int(median(raw)) if raw else None,
        last_raw_bytes=int(raw[-1]) if raw else None,
        median_artifact_bytes=int(median(artifacts)) if artifacts else None,
        restore_seconds=max(restores, default=None),
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _longest_gap(facts: Facts) -> Gap | None:
    """The longest time between two good backups that lies, in part at least, in the month.

    Before the first one it counts from the installation. None: nothing was installed yet.
    """
    ends = [run.record.finished_at or run.record.started_at for run in facts.runs if run.is_good]
    ends.sort(key=lambda at: at.timestamp())
    if facts.installed_at is not None and (not ends or facts.installed_at.timestamp() < ends[0].timestamp()):
        ends.insert(0, facts.installed_at)
    gaps = [Gap(begin, end) for begin, end in pairwise(ends)]
    if ends and ends[-1].timestamp() < facts.end.timestamp():
        gaps.append(Gap(ends[-1], min(facts.now, facts.end, key=lambda at: at.timestamp()), is_open=True))
    begin, end = facts.begin.timestamp(), facts.end.timestamp()
    gaps = [gap for gap in gaps if gap.begin.timestamp() < end and gap.end.timestamp() > begin]
    return max(gaps, key=lambda gap: gap.seconds, default=None)


def _due(facts: Facts) -> list[tuple[datetime, datetime]]:
    """The slots of the month, each with the one after it, which a run had come to by now."""
    since = facts.begin.timestamp()
    if facts.installed_at is not None:
        since = max(since, facts.installed_at.timestamp())
    until = min(facts.end.timestamp(), facts.now.timestamp() - _SLOT_GRACE_SECONDS)
    return [(slot, after) for slot, after in pairwise(facts.slots) if since <= slot.timestamp() < until]


def _missed(due: Iterable[tuple[datetime, datetime]], facts: Facts) -> list[datetime]:
    """The slots for which nothing ran: neither in time nor late, before the next one."""
    starts = sorted(run.record.started_at.timestamp() for run in facts.runs)
    starts.append(float("inf"))
    return [slot for slot, after in due if starts[bisect_left(starts, slot.timestamp())] >= after.timestamp()]


def _is_late(incident: Incident, now: datetime) -> bool:
    return seconds_between(incident.deadline_at, incident.closed_at or now) > 0


def _log_begins_late(facts: Facts) -> bool:
    """Whether a part of the month is in no file of the audit log any more."""
    first_at = facts.chain.first_at
    if first_at is None or facts.chain.first_seq == 1:
        return False
    since = facts.begin.timestamp()
    if facts.installed_at is not None:
        since = max(since, facts.installed_at.timestamp())
    return first_at.timestamp() > since
