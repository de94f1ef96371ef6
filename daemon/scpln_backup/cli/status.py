"""`scpln-backup status`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scpln_backup.cli import render
from scpln_backup.cli.context import Session, json_option, pass_session
from scpln_backup.rules.health import Level
from scpln_backup.support.locks import holder

if TYPE_CHECKING:
    from scpln_backup.operations.status import Status
    from scpln_backup.support.locks import Holder

_EXIT_CODES = {Level.HEALTHY: 0, Level.WARNING: 1, Level.CRITICAL: 2}


@click.command()
@json_option
@pass_session
def status(session: Session) -> int:
    """Tell how the backups stand. Exit code: 0 healthy, 1 warning, 2 critical."""
    app = session.reader()
    running = holder(app.house.run_lock("").path)
    daemon = holder(app.daemon_lock.path)
    running_since = running.since if running is not None and running.what.startswith("a backup") else None
    found = app.status(now=app.now(), running_since=running_since)
    if session.json:
        session.emit(document(found, daemon))
    else:
        render.status(found, daemon, Path(app.config.backup.root), app.zone)
    return _EXIT_CODES[found.health.level]


def document(status: Status, daemon: Holder | None) -> dict[str, Any]:
    """The JSON document: the contract's keys first."""
    return {
        "health": status.health.level,
        "reasons": status.health.reasons,
        "last_success_at": status.last_success_at,
        "next_run_at": status.next_run_at,
        "overdue": status.health.overdue,
        "artifacts": status.artifacts,
        "restore_seconds_measured": status.restore_seconds_measured,
        "overdue_at": status.overdue_at,
        "last_run": status.last_run,
        "last_artifact": status.last_artifact,
        "last_drill": status.last_drill,
        "incident_deadline": status.incident_deadline,
        "notifications": status.notifications,
        "running_since": status.running_since,
        "retention_frozen": status.retention_frozen,
        "database": status.database,
        "environment": status.environment,
        "daemon": daemon,
    }
