"""One look at everything: what `status`, /healthz and the page tell is this one value."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.operations import sweep
from scpln_backup.operations.house import DAEMON
from scpln_backup.operations.restore import journal
from scpln_backup.records.catalog import ArtifactSummary  # noqa: TC001 - msgspec reads the annotations at run time
from scpln_backup.records.outbox import ChannelState  # noqa: TC001 - as above
from scpln_backup.rules.health import Facts, FailingChannel, Health, assess, overdue_at
from scpln_backup.support.locks import holder

if TYPE_CHECKING:
    from datetime import datetime

    from scpln_backup.model import DrillRecord, RunRecord
    from scpln_backup.operations.house import House
    from scpln_backup.rules.slots import Schedule


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How the backups stand at one moment. `overdue_at` is when the next success is due at the latest."""

    health: Health
    database: str
    environment: str
    last_run: RunRecord | None
    last_success_at: datetime | None
    last_artifact: str | None
    next_run_at: datetime | None
    overdue_at: datetime
    running_since: datetime | None
    artifacts: ArtifactSummary
    retention_frozen: str | None
    last_drill: DrillRecord | None = None
    restore_seconds_measured: float | None = None
    incident_deadline: datetime | None = None
    notifications: tuple[ChannelState, ...] = ()


def status(
    house: House,
    schedule: Schedule,
    *,
    now: datetime,
    running_since: datetime | None,
    scheduler_alive: bool = True,
) -> Status:
    """Read the catalog and judge; touches neither the source nor the artifacts."""
    catalog = house.catalog
    channels = tuple(catalog.channels())
    under_way = catalog.unfinished() if running_since is not None else None
    last_run = catalog.last_finished(under_way.id if under_way is not None else None)
    last_good = catalog.last_good(now)
    installed_at = catalog.installed_at() or now
    summary = catalog.artifact_summary()
    frozen = sweep.frozen_because(house, last_run) if last_run is not None else None
    last_success_at = last_good.finished_at if last_good is not None else None
    facts = Facts(
        now=now,
        installed_at=installed_at,
        last_run=last_run,
        last_success_at=last_success_at,
        running_since=running_since,
        verified_artifacts=summary.verified,
        corrupt_artifacts=summary.corrupt,
        retention_frozen=frozen,
        next_run_at=schedule.next_after(now),
        scheduler_alive=scheduler_alive,
        last_drill=last_drill(house),
        daemon_missing=_daemon_missing(house),
        restore_broken_off_at=_restore_broken_off_at(house),
        incident_deadline=catalog.incident_deadline(),
        missing_source=None if os.path.exists(house.source) else str(house.source),  # noqa: PTH110 - never raises
        failing_channels=tuple(
            FailingChannel(
                name=channel.name, since=channel.failing_since, waiting=channel.waiting, said=channel.error or ""
            )
            for channel in channels
            if channel.failing_since is not None
        ),
    )
    hours = house.config.pagerduty.overdue_hours
    return Status(
        health=assess(facts, overdue_hours=hours, zone=house.zone),
        database=house.config.database.name,
        environment=house.config.environment,
        last_run=last_run,
        last_success_at=last_success_at,
        last_artifact=last_good.artifact if last_good is not None else None,
        next_run_at=facts.next_run_at,
        overdue_at=overdue_at(last_success_at or installed_at, hours, house.zone),
        running_since=running_since,
        artifacts=summary,
        retention_frozen=frozen,
        last_drill=facts.last_drill,
        restore_seconds_measured=catalog.measured_restore_seconds(),
        incident_deadline=facts.incident_deadline,
        notifications=channels,
    )


def _daemon_missing(house: House) -> bool:
    """Whether a daemon has worked with this state and none does now; a host that has none yet misses none."""
    return house.catalog.slot(DAEMON) is not None and holder(house.daemon_lock_path) is None


def _restore_broken_off_at(house: House) -> datetime | None:
    """When a restore began that a crash broke off; None while one is simply under way."""
    broken_off = journal.load(house)
    if broken_off is None or holder(house.run_lock("").path) is not None:
        return None
    return broken_off.record.started_at


def last_drill(house: House) -> DrillRecord | None:
    """The newest drill that is over: one that was broken off counts as failed, one under way does not count."""
    held = holder(house.run_lock("").path) is not None
    under_way = house.catalog.unfinished_drill() if held else None
    return house.catalog.last_drill(under_way.id if under_way is not None else None)
