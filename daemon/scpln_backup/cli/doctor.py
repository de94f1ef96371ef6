"""`scpln-backup doctor`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from scpln_backup.app import App
from scpln_backup.cli.context import Session, json_option, pass_session
from scpln_backup.config.load import load_with_origins
from scpln_backup.errors import BackupError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scpln_backup.operations.doctor.finding import Finding
    from scpln_backup.operations.doctor.units import Unit


@click.command()
@click.option("--offline", is_flag=True, help="Do not ask Slack, Jira, PagerDuty and the Pushgateway.")
@json_option
@pass_session
def doctor(session: Session, offline: bool) -> int:
    """Find by day what would make tonight's run, an alert or a restore fail.

    Nothing is changed and nothing is sent. Exit code: 0 all is well, 1 a warning, 2 something would fail.
    """
    from scpln_backup.cli import render_doctor as render  # noqa: PLC0415 - no other verb needs it
    from scpln_backup.operations.doctor.finding import Grade  # noqa: PLC0415 - as above

    findings = _examine(session, offline=offline)
    found = list(findings) if session.json else render.findings(findings)
    if session.json:
        session.emit(found)
    levels = {finding.level for finding in found}
    return 2 if Grade.CRITICAL in levels else 1 if Grade.WARNING in levels else 0


def _examine(session: Session, *, offline: bool) -> Iterator[Finding]:
    """Findings as they are made; of a configuration that cannot be loaded only its mistakes."""
    from scpln_backup.operations.doctor import checks, configuration, services, units  # noqa: PLC0415 - as above
    from scpln_backup.operations.doctor.finding import finding  # noqa: PLC0415 - as above
    from scpln_backup.operations.doctor.patient import Patient  # noqa: PLC0415 - as above

    systemd = units.booted()
    unit = _unit(session) if systemd else None
    # What the daemon gets from its unit decides, not what is exported in this shell.
    environ = units.application_settings(unit) if unit is not None else os.environ
    try:
        loaded = load_with_origins(session.config_path, environ)
        app = App.reader(loaded.config)
    except ConfigError as error:
        for verdict in configuration.refused(session.config_path, error):
            yield finding("config-file", "configuration", verdict)
        return
    patient = Patient(loaded, app.house, app.schedules, environ=os.environ, unit=unit, systemd=systemd)
    yield from checks.examine(patient, {} if offline else services.probes(patient))


def _unit(session: Session) -> Unit | None:
    """The daemon's unit; None also where systemd cannot be asked, which the checks of units will say."""
    from scpln_backup.operations.doctor import units  # noqa: PLC0415 - as above

    try:
        return units.daemon_unit(session.config_path)
    except BackupError:
        return None
