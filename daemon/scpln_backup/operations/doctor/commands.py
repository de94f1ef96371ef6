"""What a drill, a restore and a rebuild call for: commands, units, the application's health."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from scpln_backup.errors import BackupError, UnitError
from scpln_backup.model import Outcome
from scpln_backup.operations.doctor import units
from scpln_backup.operations.doctor.account import acting_as, may
from scpln_backup.operations.doctor.finding import Verdict, bad, doubtful, good, together
from scpln_backup.operations.status import last_drill
from scpln_backup.stages.probe import probe
from scpln_backup.support import systemctl
from scpln_backup.support.text import human_duration, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from scpln_backup.config.schema import ServiceConfig
    from scpln_backup.model import DrillRecord
    from scpln_backup.operations.doctor.patient import Patient
    from scpln_backup.operations.doctor.units import Unit
    from scpln_backup.rules.slots import Schedule

_MINUTE = "%Y-%m-%d %H:%M"
_HEALTH_SECONDS = 3.0
# systemd.exec(5), PATH: what a unit has unless it says otherwise.
_UNITS_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAKEFILES = ("GNUmakefile", "makefile", "Makefile")


def drill(patient: Patient) -> Verdict | None:
    """The last rehearsal, and whether the schedule's have come since."""
    if patient.catalog_problem is not None:
        return None
    return judge_drill(last_drill(patient.house), patient.schedules["drill"], patient.now, patient.house.zone)


def judge_drill(last: DrillRecord | None, planned: Schedule, now: datetime, zone: ZoneInfo) -> Verdict:
    """Doubtful when two have been due since: a single one that was missed is no news."""
    if last is None:
        return doubtful("no restore was ever rehearsed", "scpln-backup drill")
    at = f"{last.started_at.astimezone(zone):{_MINUTE}}"
    if last.outcome is Outcome.FAILED:
        why = last.error or "it did not say why, see: journalctl -u scpln-backup"
        return doubtful(f"the drill of {at} failed: {why}", "mend that, then: scpln-backup drill")
    age = human_duration(now.timestamp() - last.started_at.timestamp())
    due = planned.last_at_or_before(now)
    due_before = planned.last_at_or_before(due - timedelta(seconds=1)) if due is not None else None
    if due_before is not None and last.started_at.timestamp() < due_before.timestamp():
        return doubtful(f"the last one is of {at}, {age} ago, and two have been due since", "scpln-backup drill")
    measured = f"; a restore took {human_duration(last.restore_seconds)}" if last.restore_seconds is not None else ""
    return good(f"{at}, {last.outcome}, {age} ago{measured}")


def drill_command(patient: Patient) -> Verdict:
    config = patient.config.drill
    if not config.command:
        return doubtful(
            "none is configured: a drill only restores and checks, and nothing says that the application works on it",
            "set [drill] command to the application's smoke test",
        )
    return _command("[drill]", config.command, Path(config.directory), patient)


def rebuild_command(patient: Patient) -> Verdict:
    config = patient.config.rebuild
    if not config.command:
        return good("none is configured")
    return _command("[rebuild]", config.command, Path(config.directory), patient)


def health_command(patient: Patient) -> Verdict | None:
    argv = patient.config.service.health_command
    return _command("[service] health_command", argv, Path("/"), patient) if argv else None


def _command(section: str, argv: Sequence[str], directory: Path, patient: Patient) -> Verdict:
    path = _UNITS_PATH if patient.unit is not None else patient.environ.get("PATH", _UNITS_PATH)
    if patient.unit is not None:
        path = patient.unit.environment.get("PATH", path)
    with acting_as(patient.user):
        problem = command_problem(argv, directory, path)
    if problem is not None:
        return doubtful(f"{' '.join(argv)}: {problem} (as {patient.user})", f"correct {section} in the configuration")
    return good(f"{' '.join(argv)}, in {directory}")


def command_problem(argv: Sequence[str], directory: Path, path: str) -> str | None:
    """Why a command could not be started in a folder, as far as can be told without starting it."""
    if not directory.is_dir():
        return f"{directory} is no folder"
    if not may(directory, os.X_OK):
        return f"{directory} cannot be entered"
    if (problem := _program_problem(argv, directory, path)) is not None:
        return problem
    missing = next((word for word in argv[1:] if _is_script(word) and not (directory / word).exists()), None)
    return f"{directory / missing} is not there" if missing is not None else None


def _program_problem(argv: Sequence[str], directory: Path, path: str) -> str | None:
    program = argv[0]
    if "/" in program:
        file = directory / program
        if not file.is_file():
            return f"{file} is not there"
        return None if may(file, os.X_OK) else f"{file} cannot be executed"
    found = shutil.which(program, path=path)
    if found is None:
        return f"{program} is not installed (in {path})"
    if not may(Path(found), os.X_OK):
        return f"{found} cannot be executed"
    # With an option (-C, -f) the Makefile may be anywhere.
    if program == "make" and not any(word.startswith("-") for word in argv) and not _has_makefile(directory):
        return f"{directory} has no Makefile"
    return None


def _has_makefile(directory: Path) -> bool:
    return any((directory / name).exists() for name in _MAKEFILES)


def _is_script(word: str) -> bool:
    return word.endswith((".py", ".sh")) and not word.startswith("-")


def restore_units(patient: Patient) -> Verdict:
    """A restore stops and starts them; one that systemd does not know makes it refuse."""
    config = patient.config.service
    if not config.units:
        return good("a restore stops nothing ([service] units is empty)")
    if not patient.systemd:
        return doubtful(
            f"systemd does not run here, so a restore could not stop {', '.join(config.units)}",
            "set [service] units = [], and stop the application by hand before a restore",
        )
    return together(_unit(name, config) for name in config.units)


def _unit(name: str, config: ServiceConfig) -> Verdict:
    return judge_unit(units.look(systemctl.full_name(name)), config)


def judge_unit(unit: Unit, config: ServiceConfig) -> Verdict:
    if unit.load_state == "not-found":
        return bad(
            f"{unit.name}: systemd knows no such unit, and a restore would be refused",
            "correct [service] units; see: systemctl list-units",
        )
    if not unit.known:
        return bad(
            f"{unit.name}: {unit.load_state}, and it could not be started again after a restore",
            f"see: systemctl cat {unit.name}",
        )
    for given, needed, key in (
        (config.stop_timeout_seconds, unit.stop_seconds, "stop_timeout_seconds"),
        (config.start_timeout_seconds, unit.start_seconds, "start_timeout_seconds"),
    ):
        if needed is not None and given < needed:
            return doubtful(
                f"{unit.name} may take {human_duration(needed)}, and a restore gives up after {human_duration(given)}",
                f"set [service] {key} to {needed:.0f}",
            )
    return good(f"{unit.name}, {unit.active_state}")


def health_url(patient: Patient) -> Verdict | None:
    """Asked once, as a restore asks before it is content."""
    url = patient.config.service.health_url
    if not url:
        return None
    try:
        probe(url, (), timeout_seconds=_HEALTH_SECONDS)
    except BackupError as error:
        return judge_health(url, one_line(error).rpartition("the last answer: ")[2], up=_application_runs(patient))
    return good(f"{url} answers")


def judge_health(url: str, answer: str, *, up: bool) -> Verdict:
    advice = "correct [service] health_url: a restore that it does not answer puts the old database back"
    if up:
        return bad(f"{url}: {answer}, while the application runs", advice)
    return doubtful(f"{url}: {answer}", f"start the application; if it runs already, {advice}")


def _application_runs(patient: Patient) -> bool:
    if not patient.systemd:
        return False
    try:
        return any(systemctl.is_up(unit) for unit in patient.config.service.units)
    except UnitError:
        return False
