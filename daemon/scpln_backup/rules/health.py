"""How the backups stand, judged from a few facts."""

from __future__ import annotations

from datetime import (
    UTC,
    datetime,
    timedelta,
    tzinfo,
)
from enum import StrEnum

import msgspec

from scpln_backup.model import DrillRecord, Outcome, RunRecord
from scpln_backup.rules import reasons
from scpln_backup.rules.reasons import Reason  # noqa: TC001 - msgspec reads the annotations at run time

_RUN_GRACE = timedelta(hours=1)
# A service that is down for a moment is no news: messages wait, and arrive.
_CHANNEL_GRACE = timedelta(hours=1)


class Level(StrEnum):
    HEALTHY = "healthy"
    WARNING = "warning"
    CRITICAL = "critical"


class FailingChannel(msgspec.Struct, frozen=True, kw_only=True):
    """A channel of notifications that nothing gets through to. `said` is why, in the service's or our own words."""

    name: str
    since: datetime
    waiting: int
    said: str | None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the judgement goes by. Times are aware.

    `last_run` is the newest finished one, `last_success_at` when the newest good artifact (success or degraded)
    was made, `running_since` the start of a run under way, `retention_frozen` why nothing may be deleted,
    `incident_deadline` the earliest of the open incidents, `failing_channels` those whose last attempt failed,
    `missing_source` the database's path when nothing is there.
    """

    now: datetime
    installed_at: datetime
    last_run: RunRecord | None
    last_success_at: datetime | None
    running_since: datetime | None
    verified_artifacts: int
    corrupt_artifacts: int
    retention_frozen: str | None
    next_run_at: datetime | None
    scheduler_alive: bool = True
    last_drill: DrillRecord | None = None
    incident_deadline: datetime | None = None
    daemon_missing: bool = False
    restore_broken_off_at: datetime | None = None
    failing_channels: tuple[FailingChannel, ...] = ()
    missing_source: str | None = None


class Health(msgspec.Struct, frozen=True):
    """`why`, most serious first, says what to do; there is nothing in it when healthy.

    `overdue` is the plain fact that the deadline passed: it is true even while a run under way keeps that from
    being a reason.
    """

    level: Level
    why: tuple[Reason, ...]
    overdue: bool

    @property
    def reasons(self) -> tuple[str, ...]:
        """`why` in English, for all that is not a page."""
        return tuple(reason.english for reason in self.why)


def overdue_at(last_success_at: datetime, hours: int, zone: tzinfo) -> datetime:
    """When the next success is overdue: `hours` later by the wall clocks of `zone`, and no sooner than in fact.

    Wall clocks, so that autumn's day of 25 hours lies within 24; in fact, so that spring's day of 23 does not
    shorten them (in America/Nuuk a nightly 23:30 fires at 22:59 that day, and at 23:30 the next).
    """
    local = last_success_at.astimezone(zone)
    # A run that began in the first of two repeated hours may end in the second, where the clock reads less than
    # when it began: it is read as if it had not been set back. Otherwise nothing was repeated.
    repeated = local.astimezone(UTC) - local.replace(fold=0).astimezone(UTC)
    wall = local.replace(tzinfo=None, fold=0) + repeated + timedelta(hours=hours)
    in_fact = local.astimezone(UTC) + timedelta(hours=hours)
    return max(wall.replace(tzinfo=zone).astimezone(UTC), in_fact).astimezone(zone)


def assess(facts: Facts, *, overdue_hours: int, zone: tzinfo) -> Health:
    """The level and its reasons. Before the first success the deadline counts from the installation."""
    now = facts.now.astimezone(UTC)
    deadline = overdue_at(facts.last_success_at or facts.installed_at, overdue_hours, zone).astimezone(UTC)
    overdue = now > deadline
    complain = overdue and not run_may_make_it(facts.running_since, deadline, now)
    critical = []
    if complain:
        critical.append(_overdue(facts, overdue_hours, zone))
    critical += _broken(facts, zone)
    warnings = _doubtful(facts, zone)
    if facts.verified_artifacts == 0 and not complain:
        warnings.append(reasons.NOTHING_VERIFIED)
    level = Level.CRITICAL if critical else Level.WARNING if warnings else Level.HEALTHY
    return Health(level, (*critical, *warnings), overdue)


def run_may_make_it(running_since: datetime | None, deadline: datetime, now: datetime) -> bool:
    """A run that began in time is waited for, but not for ever."""
    if running_since is None:
        return False
    return running_since.astimezone(UTC) <= deadline and now - running_since.astimezone(UTC) < _RUN_GRACE


def _overdue(facts: Facts, hours: int, zone: tzinfo) -> Reason:
    if facts.last_success_at is None:
        return reasons.no_success_ever(_at(facts.installed_at, zone), hours)
    return reasons.no_success(_at(facts.last_success_at, zone), hours)


def _broken(facts: Facts, zone: tzinfo) -> list[Reason]:
    found = []
    run = facts.last_run
    if run is not None and run.interrupted:
        found.append(reasons.run_interrupted(_at(run.started_at, zone)))
    elif run is not None and run.outcome is Outcome.FAILED:
        found.append(reasons.run_failed(_at(run.started_at, zone), run.error))
    elif run is None and facts.missing_source is not None:  # later a failed run says so
        found.append(reasons.source_missing(facts.missing_source))
    if facts.corrupt_artifacts:
        found.append(reasons.corrupt(facts.corrupt_artifacts))
    if facts.restore_broken_off_at is not None:
        found.append(reasons.restore_broken_off(_at(facts.restore_broken_off_at, zone)))
    if not facts.scheduler_alive:
        found.append(reasons.SCHEDULER_STOPPED)
    return found


def _doubtful(facts: Facts, zone: tzinfo) -> list[Reason]:
    found = []
    run = facts.last_run
    if run is not None and run.outcome is Outcome.SUSPECT:
        found.append(reasons.run_suspect(_at(run.started_at, zone), run.error, run.artifact))
    elif run is not None and run.outcome is Outcome.DEGRADED:
        found.append(reasons.run_degraded(_at(run.started_at, zone), run.error))
    drill = facts.last_drill
    if drill is not None and drill.outcome is Outcome.FAILED:
        found.append(reasons.drill_failed(_at(drill.started_at, zone), drill.error))
    if facts.incident_deadline is not None and facts.now.astimezone(UTC) > facts.incident_deadline.astimezone(UTC):
        found.append(reasons.incident_overdue(_at(facts.incident_deadline, zone)))
    if facts.retention_frozen is not None:
        found.append(_frozen(facts.retention_frozen, run))
    if facts.daemon_missing:
        found.append(reasons.DAEMON_MISSING)
    if facts.next_run_at is None and facts.scheduler_alive:
        found.append(reasons.NOTHING_PLANNED)
    return found + _silent(facts, zone)


def _frozen(because: str, run: RunRecord | None) -> Reason:
    if run is not None and run.outcome in (Outcome.FAILED, Outcome.SUSPECT):
        return reasons.frozen_by_run(because, failed=run.outcome is Outcome.FAILED)
    return reasons.frozen(because)


def _silent(facts: Facts, zone: tzinfo) -> list[Reason]:
    now = facts.now.astimezone(UTC)
    return [
        reasons.channel_failing(channel.name, _at(channel.since, zone), channel.waiting, channel.said)
        for channel in facts.failing_channels
        if now - channel.since.astimezone(UTC) > _CHANNEL_GRACE
    ]


def _at(moment: datetime, zone: tzinfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"
