"""The one line that `systemctl status` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scpln_backup.model import Stage

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

    from scpln_backup.model import RunRecord
    from scpln_backup.service.runner import Activity

DOING = {
    Stage.PREFLIGHT: "looking at source and space",
    Stage.SNAPSHOT: "copying",
    Stage.CHECK: "checking",
    Stage.COMPRESS: "compressing",
    Stage.PROVE: "proving",
    Stage.PUBLISH: "publishing",
    Stage.SWEEP: "sweeping",
}


def working(activity: Activity) -> str | None:
    """What the runner does now, or None when it is idle."""
    if activity.waiting_for is not None:
        return f"waiting to back up: {activity.waiting_for}"
    if activity.trigger is None:
        return None
    if activity.stage is None:
        return "starting a backup"
    percent = "" if activity.percent is None else f" {activity.percent} %"
    return DOING[activity.stage] + percent


def idle(last: RunRecord | None, next_run_at: datetime | None, zone: tzinfo) -> str:
    """`last backup 2026-11-22 02:30 success, next 2026-11-23 02:30`, in local time."""
    if last is None:
        past = "no backup yet"
    else:
        outcome = "interrupted" if last.interrupted else last.outcome
        past = f"last backup {_minute(last.started_at, zone)} {outcome}"
    return past if next_run_at is None else f"{past}, next {_minute(next_run_at, zone)}"


def _minute(at: datetime, zone: tzinfo) -> str:
    return at.astimezone(zone).strftime("%Y-%m-%d %H:%M")
