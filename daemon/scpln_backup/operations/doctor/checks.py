"""The checks in the order in which they are shown, and how they are made."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.operations.doctor import (
    backups,
    channels,
    clock,
    commands,
    configuration,
    database,
    folders,
    room,
    service,
)
from scpln_backup.operations.doctor.finding import Finding, Verdict, doubtful, finding
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scpln_backup.operations.doctor.channels import Probes
    from scpln_backup.operations.doctor.patient import Patient


log = logging.getLogger(__name__)

_ALERTS = "alerts"


class Check(msgspec.Struct, frozen=True):
    """`look` gives None where there is nothing to check."""

    name: str
    look: Callable[[Patient], Verdict | None]


CHECKS: dict[str, tuple[Check, ...]] = {
    "configuration": (
        Check("config-file", configuration.config_file),
        Check("config-warnings", configuration.config_warnings),
        Check("env-file", configuration.env_file),
        Check("database-path", configuration.database_origin),
        Check("registry-backend", configuration.backend),
    ),
    "database": (
        Check("database-file", database.file),
        Check("database-owner", database.owner),
        Check("database-journal", database.journal),
        Check("database-users", database.users),
    ),
    "disk": (
        Check("backup-root", folders.backup_root),
        Check("backup-mount", folders.mounted),
        Check("backup-disk", folders.apart),
        Check("room-tonight", room.tonight),
        Check("room-in-30-days", room.in_a_month),
        Check("inodes", room.inodes),
        Check("state-folder", folders.state_folder),
        Check("catalog", folders.catalog),
        Check("audit-log", folders.audit_log),
    ),
    "backups": (
        Check("last-run", backups.last_run),
        Check("artifacts", backups.artifacts),
        Check("retention", backups.retention),
        Check("schedule", backups.schedule),
        Check("old-cron-job", backups.old_cron_job),
    ),
    "the way back": (
        Check("unfinished-restore", backups.unfinished_restore),
        Check("restore-room", room.for_a_restore),
        Check("restore-units", commands.restore_units),
        Check("health-url", commands.health_url),
        Check("health-command", commands.health_command),
        Check("drill", commands.drill),
        Check("drill-command", commands.drill_command),
        Check("rebuild-command", commands.rebuild_command),
    ),
    "service": (
        Check("unit", service.unit),
        Check("sandbox", service.sandbox),
        Check("daemon", service.daemon),
        Check("config-in-force", service.in_force),
        Check("web-port", service.web_port),
        Check("overdue-timer", service.overdue_timer),
        Check("time-zone", clock.zone),
        Check("clock", clock.synchronised),
    ),
    _ALERTS: (
        Check("channels", channels.any_channel),
        Check("slack-token", channels.slack_token),
        Check("pagerduty-key", channels.pagerduty_key),
        Check("jira-token", channels.jira_token),
        Check("deliveries", channels.deliveries),
    ),
}


def examine(patient: Patient, probes: Probes) -> Iterator[Finding]:
    """Every finding as soon as it is made. `probes` are asked last: services may take their time."""
    for area, checks in CHECKS.items():
        for check in checks:
            yield from _made(area, check.name, partial(check.look, patient))
    for channel, probe in probes.items():
        yield from _made(_ALERTS, channel, partial(channels.accepted, channel, probe))


def _made(area: str, name: str, look: Callable[[], Verdict | None]) -> Iterator[Finding]:
    try:
        verdict = look()
    except Exception as error:  # the boundary: one check that fails must not end the others
        log.debug("the check %s failed", name, exc_info=error)
        verdict = doubtful(f"could not be checked: {one_line(error)}", "run it as root, or see why with --debug")
    if verdict is not None:
        yield finding(name, area, verdict)
