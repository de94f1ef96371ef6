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

_RUN_GRACE = timedelta(hours=1)


class Level(StrEnum):
    HEALTHY = "healthy"
    WARNING = "warning"
    CRITICAL = "critical"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the judgement goes by. Times are aware.

    `last_run` is the newest finished one, `last_success_at` when the newest good artifact (success or degraded)
    was made, `running_since` the start of a run under way, `retention_frozen` why nothing may be deleted,
    `incident_deadline` the earliest of the open incidents.
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


class Health(msgspec.Struct, frozen=True):
    """`reasons`, most serious first, say what to do; there are none when healthy.

    `overdue` is the plain fact that the deadline passed: it is true even while a run under way keeps that from
    being a reason.
    """

    level: Level
    reasons: tuple[str, ...]
    overdue: bool


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
    complain = overdue and not _run_may_make_it(facts.running_since, deadline, now)
    critical = []
    if complain:
        critical.append(_overdue_reason(facts, overdue_hours, zone))
    critical += _broken(facts, zone)
    warnings = _doubtful(facts, zone)
    if facts.verified_artifacts == 0 and not complain:
        warnings.append("there is no verified artifact yet: run `scpln-backup backup`")
    level = Level.CRITICAL if critical else Level.WARNING if warnings else Level.HEALTHY
    return Health(level, (*critical, *warnings), overdue)


def _run_may_make_it(running_since: datetime | None, deadline: datetime, now: datetime) -> bool:
    """A run that began in time is waited for, but not for ever."""
    if running_since is None:
        return False
    return running_since.astimezone(UTC) <= deadline and now - running_since.astimezone(UTC) < _RUN_GRACE


def _overdue_reason(facts: Facts, hours: int, zone: tzinfo) -> str:
    remedy = "see why in `journalctl -u scpln-backup`, then run `scpln-backup backup`"
    if facts.last_success_at is None:
        return (
            f"no backup has succeeded since the installation at {_at(facts.installed_at, zone)}, "
            f"more than {hours} hours ago: {remedy}"
        )
    return f"no backup has succeeded since {_at(facts.last_success_at, zone)}, more than {hours} hours ago: {remedy}"


def _broken(facts: Facts, zone: tzinfo) -> list[str]:
    reasons = []
    run = facts.last_run
    if run is not None and run.interrupted:
        reasons.append(f"the run of {_at(run.started_at, zone)} was interrupted: run `scpln-backup backup`")
    elif run is not None and run.outcome is Outcome.FAILED:
        reasons.append(f"the run of {_at(run.started_at, zone)} failed: {_said(run)}")
    if facts.corrupt_artifacts:
        what = "1 artifact is" if facts.corrupt_artifacts == 1 else f"{facts.corrupt_artifacts} artifacts are"
        reasons.append(f"{what} corrupt: see `scpln-backup list`, move it away, then run `scpln-backup verify`")
    if facts.restore_broken_off_at is not None:
        at = _at(facts.restore_broken_off_at, zone)
        reasons.append(
            f"the restore of {at} was broken off: `scpln-backup restore --resume`, or `scpln-backup restore --abort`"
        )
    if not facts.scheduler_alive:
        reasons.append("the scheduler is not running: restart the service")
    return reasons


def _doubtful(facts: Facts, zone: tzinfo) -> list[str]:
    reasons = []
    run = facts.last_run
    if run is not None and run.outcome is Outcome.SUSPECT:
        reasons.append(
            f"the run of {_at(run.started_at, zone)} is suspect: {_said(run)}; if that was meant: "
            f"`scpln-backup verify {run.artifact} --accept-shrink`, then `scpln-backup backup`"
        )
    elif run is not None and run.outcome is Outcome.DEGRADED:
        reasons.append(
            f"the run of {_at(run.started_at, zone)} made a good artifact, but a later step failed: {_said(run)}"
        )
    if facts.last_drill is not None and facts.last_drill.outcome is Outcome.FAILED:
        why = " ".join((facts.last_drill.error or "it did not say why, see the log").split())
        reasons.append(f"the drill of {_at(facts.last_drill.started_at, zone)} failed: {why}")
    if facts.incident_deadline is not None and facts.now.astimezone(UTC) > facts.incident_deadline.astimezone(UTC):
        due = _at(facts.incident_deadline, zone)
        reasons.append(f"an incident's report was due {due}: write and close it: `scpln-backup incident show`")
    if facts.retention_frozen is not None:
        reasons.append(f"retention is frozen: {facts.retention_frozen}")
    if facts.daemon_missing:
        reasons.append("the daemon is not running, so nothing will run by itself: `systemctl start scpln-backup`")
    if facts.next_run_at is None and facts.scheduler_alive:
        reasons.append("no next run is planned: see `scpln-backup schedule`")
    return reasons


def _at(moment: datetime, zone: tzinfo) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"


def _said(run: RunRecord) -> str:
    """The run's error on one line."""
    return " ".join((run.error or "it did not say why, see the log").split())
