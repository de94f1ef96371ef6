"""Whoever must know: are their secrets in place, do they take them, does anything get through?"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scpln_backup.errors import DeliveryError, SecretError
from scpln_backup.operations.doctor import units
from scpln_backup.operations.doctor.account import acting_as, may
from scpln_backup.operations.doctor.finding import Verdict, bad, doubtful, good, together
from scpln_backup.support.secrets import DIRECTORY, PREFIX, read_secret
from scpln_backup.support.text import human_duration, one_line

if TYPE_CHECKING:
    from scpln_backup.operations.doctor.patient import Patient
    from scpln_backup.operations.doctor.units import Unit

# By the name of a channel: asks its service, without side effects, whether it would take a message, and returns what
# it said of itself. BackupError: it would not. DeliveryError that is not permanent: it could not be asked.
Probes = Mapping[str, Callable[[], str]]

_ROUTING_KEY_LENGTH = 32
_PATIENCE_SECONDS = 30.0


def any_channel(patient: Patient) -> Verdict:
    """Somebody has to hear of a failure. Whether a Prometheus that scrapes /metrics alerts cannot be seen from here."""
    config = patient.config
    told = {
        "Slack": config.slack.token_file,
        "PagerDuty": config.pagerduty.routing_key_file,
        "Jira": config.jira.url,
        "Pushgateway": config.pushgateway.url,
    }
    named = [name for name, value in told.items() if value]
    if not named:
        return doubtful(
            "nobody is told of a failure: neither Slack, PagerDuty, Jira nor a Pushgateway is configured",
            "configure at least one of [slack], [pagerduty], [jira] and [pushgateway]",
        )
    return good(", ".join(named))


def slack_token(patient: Patient) -> Verdict | None:
    return _secret(patient, "[slack] token_file", patient.config.slack.token_file, _slack_shape)


def pagerduty_key(patient: Patient) -> Verdict | None:
    where = patient.config.pagerduty.routing_key_file
    return _secret(patient, "[pagerduty] routing_key_file", where, _routing_key_shape)


def jira_token(patient: Patient) -> Verdict | None:
    return _secret(patient, "[jira] token_file", patient.config.jira.token_file, lambda _text: None)


def _slack_shape(text: str) -> str | None:
    if text.startswith("xoxb-"):
        return None
    return 'it holds no bot token, which begins with "xoxb-"'


def _routing_key_shape(text: str) -> str | None:
    if len(text) == _ROUTING_KEY_LENGTH and text.isalnum():
        return None
    return "it holds no routing key of the Events API v2, which has 32 letters and digits"


def _secret(patient: Patient, key: str, where: str, shape: Callable[[str], str | None]) -> Verdict | None:
    """A secret as the daemon finds it. Its content is never shown."""
    if not where:
        return None
    if where.startswith(PREFIX):
        return _credential(patient, key, where, shape)
    path, user = Path(where), patient.user
    with acting_as(user):
        readable = may(path, os.R_OK)
    if readable:
        return judge_secret(key, path, shape)
    why = f"{user} cannot read it" if path.exists() else "no such file"
    return bad(f"{key}: {path}: {why}", f"install -o {user} -m 0400 /dev/stdin {path}, and paste the secret")


def _credential(patient: Patient, key: str, where: str, shape: Callable[[str], str | None]) -> Verdict:
    name = where.removeprefix(PREFIX)
    if patient.unit is not None:
        overdue = units.overdue_unit(patient.unit, "service")
        needing = [patient.unit, overdue] if overdue.known else [patient.unit]
        return together(_credential_of(unit, name, key, shape) for unit in needing)
    folder = patient.environ.get(DIRECTORY)
    if folder is not None:
        return judge_secret(key, Path(folder) / name, shape)
    return doubtful(
        f"{key} = {where}: no unit that gives the daemon credentials is known here",
        "name the file itself, or run the daemon by a unit with LoadCredential=",
    )


def _credential_of(unit: Unit, name: str, key: str, shape: Callable[[str], str | None]) -> Verdict:
    """A credential that systemd hands to the unit; it is read as root where this is root."""
    given = next((one for one in units.credentials(unit) if one.name == name), None)
    if given is None:
        return bad(
            f"{key}: {unit.name} has no credential {name}",
            f"systemctl edit {unit.name}: [Service] LoadCredential={name}:/etc/scpln-backup/{name}, then restart it",
        )
    if given.path is None:
        return good(f"credential {name} of {unit.name}")
    if not _exists(given.path):
        missing = f"{key}: {given.path}: no such file, and {unit.name} would not start"
        return bad(missing, f"put the secret into {given.path}")
    if given.encrypted or not may(given.path, os.R_OK):
        unread = "encrypted" if given.encrypted else "only root can read it"
        return good(f"credential {name} of {unit.name}, from {given.path} ({unread})")
    return judge_secret(key, given.path, shape)


def _exists(path: Path) -> bool:
    """Where the folder may not be entered, the benefit of the doubt."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except PermissionError:
        return True
    return True


def judge_secret(key: str, path: Path, shape: Callable[[str], str | None]) -> Verdict:
    """Its rights and its shape."""
    mode = stat.S_IMODE(path.stat().st_mode)
    verdicts = []
    if mode & stat.S_IROTH:
        change = f"chmod o= {path}, and have the secret replaced: it may have been read"
        verdicts.append(doubtful(f"{key}: {path}: any user of this host can read it (mode {mode:04o})", change))
    try:
        problem = shape(read_secret(key, str(path), {}))
    except SecretError as error:
        what, _, advice = one_line(error).partition("; ")
        verdicts.append(bad(what, advice))
    else:
        if problem is not None:
            verdicts.append(bad(f"{key}: {path}: {problem}", f"put the right one into {path}"))
    return together(verdicts) if verdicts else good(f"{path}, mode {mode:04o}")


def accepted(channel: str, probe: Callable[[], str]) -> Verdict:
    """What the service itself says, asked without side effects."""
    again = f"then try: scpln-backup notify test {channel}"
    try:
        return good(_in_time(probe))
    except DeliveryError as error:
        if error.permanent:
            return bad(one_line(error), f"mend that, {again}")
        return doubtful(f"could not be asked: {one_line(error)}", f"see to the way there, {again}")
    except SecretError as error:
        return bad(one_line(error), f"mend that, {again}")


def _in_time(probe: Callable[[], str]) -> str:
    """Its answer, or its error.

    The clients' time limits are for each piece of an answer, and a service may send many: a thread that takes longer is
    left behind.
    """
    answers: list[str] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            answers.append(probe())
        except Exception as error:  # raised again where it is waited for
            errors.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE_SECONDS)
    if errors:
        raise errors[0]
    if not answers:
        raise DeliveryError(f"nothing whole within {human_duration(_PATIENCE_SECONDS)}")
    return answers[0]


def deliveries(patient: Patient) -> Verdict | None:
    """Channels whose last attempt failed."""
    if patient.catalog_problem is not None:
        return None
    zone = patient.house.zone
    states = patient.house.catalog.channels()
    failing = [
        doubtful(
            f"nothing gets through to {state.name} since {state.failing_since.astimezone(zone):%Y-%m-%d %H:%M}, "
            f"{state.waiting} waiting: {state.error or 'it did not say why'}",
            "see: scpln-backup notify status",
        )
        for state in states
        if state.failing_since is not None
    ]
    if failing:
        return together(failing)
    if not states:
        return None
    waiting = sum(state.waiting for state in states)
    return good(f"{waiting} messages wait" if waiting else "nothing waits")
