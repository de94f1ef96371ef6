"""Asking each configured service whether it would take a message, without sending one."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scpln_backup.errors import BackupError, DeliveryError
from scpln_backup.operations.doctor import reach, units
from scpln_backup.operations.doctor.account import may
from scpln_backup.support.secrets import DIRECTORY, PREFIX, read_secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from scpln_backup.operations.doctor.channels import Probes
    from scpln_backup.operations.doctor.patient import Patient
    from scpln_backup.operations.doctor.units import Unit

# Where systemd keeps the credentials of a unit that runs, decrypted (systemd.exec(5)).
_CREDENTIALS = Path("/run/credentials")
_NEEDED_SCOPE = "chat:write"


def probes(patient: Patient) -> Probes:
    """By the name of each configured channel; see `channels.Probes`."""
    config = patient.config
    found: dict[str, Callable[[], str]] = {}
    if config.slack.token_file:
        found["slack"] = partial(_slack, patient)
    if config.pagerduty.routing_key_file:
        found["pagerduty"] = partial(reach.reachable, config.pagerduty.url)
    if config.jira.url:
        found["jira"] = partial(_jira, patient)
    if config.pushgateway.url:
        found["pushgateway"] = partial(reach.ready, config.pushgateway.url)
    return found


def _slack(patient: Patient) -> str:
    """auth.test: whose token it is. Whether the bot is in the channel shows with the first message only."""
    from scpln_backup.notify.slack import Slack  # noqa: PLC0415 - slack_sdk takes its time

    settings = patient.config.slack
    token = secret(patient, "[slack] token_file", settings.token_file)
    account = Slack(token, channel=settings.channel, api_url=settings.api_url).check()
    if account.scopes and _NEEDED_SCOPE not in account.scopes:
        raise DeliveryError(f"Slack: {account.bot} in {account.team} lacks the scope {_NEEDED_SCOPE}", permanent=True)
    return f"{account.bot} in {account.team}; has to be a member of {settings.channel}"


def _jira(patient: Patient) -> str:
    """The account, the project and its issue type."""
    from scpln_backup.notify.jira import Jira  # noqa: PLC0415 - as above

    settings = patient.config.jira
    service = Jira(
        url=settings.url,
        token=secret(patient, "[jira] token_file", settings.token_file),
        user=settings.user,
        project=settings.project,
        issue_type=settings.issue_type,
    )
    return service.check(transitions=bool(settings.done_transition))


def secret(patient: Patient, key: str, where: str) -> str:
    """A secret's text, outside of the service too. SecretError: it is wrong. BackupError: not for this user to read."""
    if where.startswith(PREFIX) and patient.unit is not None:
        return read_secret(key, str(_of_unit(patient.unit, key, where.removeprefix(PREFIX))), {})
    return read_secret(key, where, {DIRECTORY: patient.environ.get(DIRECTORY, "")})


def _of_unit(unit: Unit, key: str, name: str) -> Path:
    """The credential as the running unit has it, else where systemd would read it."""
    running = _CREDENTIALS / unit.name / name
    if may(running, os.R_OK):
        return running
    given = next((one for one in units.credentials(unit) if one.name == name), None)
    if given is None or given.path is None or given.encrypted or not may(given.path, os.R_OK):
        raise BackupError(f"{key}: the credential {name} can be read by root, and while {unit.name} runs")
    return given.path
