"""Units as `systemctl show` tells of them, parsed once."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.config.envfile import BACKEND, DATABASE, read_env_file
from scpln_backup.config.load import CONFIG_VARIABLE, DEFAULT_CONFIG
from scpln_backup.errors import UnitError
from scpln_backup.support.command import ask

if TYPE_CHECKING:
    from collections.abc import Mapping

DAEMON = "scpln-backup.service"
_LOOK_SECONDS = 10.0
_BOOTED = Path("/run/systemd/system")
_PROPERTIES = (
    *("LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload", "FragmentPath", "DropInPaths"),
    *("ActiveEnterTimestamp", "StatusText", "WatchdogUSec", "TimeoutStopUSec", "TimeoutStartUSec"),
    *("User", "Environment", "EnvironmentFiles", "RequiresMountsFor", "StateDirectory", "LogsDirectory"),
    *("ProtectSystem", "ProtectHome", "PrivateTmp", "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths"),
    *("BindPaths", "BindReadOnlyPaths", "ExecStartPre"),
)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(y|month|w|d|h|min|s|ms|us)")
_SECONDS = {
    "y": 31_557_600.0,
    "month": 2_629_800.0,
    "w": 604_800.0,
    "d": 86_400.0,
    "h": 3_600.0,
    "min": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
}
_CREDENTIAL = re.compile(r"(LoadCredential|SetCredential)(Encrypted)?=([^:\s]+)(?::(\S*))?")
_UNIT_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system")
_STORES = ("/etc/credstore", "/run/credstore", "/usr/lib/credstore")


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """What the unit lets its processes see and change (systemd.exec(5)). `writable` has the state folder as well."""

    protect_system: str
    protect_home: str
    private_tmp: bool
    writable: tuple[str, ...]
    read_only: tuple[str, ...]
    hidden: tuple[str, ...]
    bound: tuple[str, ...]


class Credential(msgspec.Struct, frozen=True):
    """`path` is where systemd reads it, None when it stands in the unit itself."""

    name: str
    path: Path | None
    encrypted: bool


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """`entered_at` is when it came up, in seconds of the epoch; the time-outs are seconds, None without a limit.

    `watchdog_seconds` is told of a unit that runs only. `made` are the folders of StateDirectory= and LogsDirectory=,
    `prepares` its ExecStartPre= as systemd prints them.
    """

    name: str
    load_state: str
    active_state: str
    file_state: str
    needs_reload: bool
    files: tuple[Path, ...]
    entered_at: float | None
    status_text: str
    user: str
    environment: dict[str, str]
    mounts: tuple[str, ...]
    watchdog_seconds: float | None
    stop_seconds: float | None
    start_seconds: float | None
    made: tuple[str, ...]
    prepares: str
    sandbox: Sandbox

    def makes(self, folder: Path) -> bool:
        """Whether it makes the folder when it starts, by StateDirectory= and its like or by a command."""
        named = re.search(rf"(?<![\w/.-]){re.escape(str(folder))}(?![\w/.-])", self.prepares)
        return str(folder) in self.made or named is not None

    @property
    def known(self) -> bool:
        return self.load_state == "loaded"

    @property
    def active(self) -> bool:
        return self.active_state == "active"

    @property
    def enabled(self) -> bool:
        return self.file_state in {"enabled", "enabled-runtime", "static", "generated", "alias"}


def booted() -> bool:
    """Whether systemd runs this host (sd_booted(3))."""
    return _BOOTED.is_dir()


def look(name: str) -> Unit:
    """What systemd knows of a unit. UnitError: it could not be asked."""
    return _parse(name, _properties(name))


def daemon_unit(config: Path) -> Unit | None:
    """The unit whose daemon reads this configuration, by $SCPLN_BACKUP_CONFIG in it; None when there is none.

    `staging.toml` is the template's instance "staging" (scpln-backup@.service).
    """
    path = os.path.realpath(config)
    for name in (DAEMON, f"scpln-backup@{config.stem}.service"):
        unit = look(name)
        if unit.known and os.path.realpath(unit.environment.get(CONFIG_VARIABLE, DEFAULT_CONFIG)) == path:
            return unit
    return None


def overdue_unit(daemon: Unit, kind: str) -> Unit:
    """The unit that sees to the alarm when this daemon is dead: its "service", or its "timer"."""
    return look(f"{daemon.name.replace('scpln-backup', 'scpln-backup-overdue', 1).removesuffix('service')}{kind}")


def unread_drop_ins(unit: Unit) -> list[Path]:
    """Drop-ins on disk that systemd has not read. In a folder that is new it does not notice them by itself."""
    template = re.sub("@[^.]*", "@", unit.name)
    found = [
        path
        for place in _UNIT_FOLDERS
        for name in dict.fromkeys((unit.name, template))
        for path in Path(place, f"{name}.d").glob("*.conf")
    ]
    return sorted(set(found) - set(unit.files))


def application_settings(unit: Unit) -> dict[str, str]:
    """SCPLN_DB and REGISTRY_BACKEND as the daemon gets them from its unit."""
    return {name: unit.environment[name] for name in (DATABASE, BACKEND) if name in unit.environment}


def credentials(unit: Unit) -> list[Credential]:
    """Those that the unit is given. From its text: `systemctl show` calls them unprintable."""
    answer = ask(["systemctl", "--no-pager", "cat", "--", unit.name], timeout_seconds=_LOOK_SECONDS)
    if answer.exit_code != 0:
        raise UnitError(f"{unit.name}: its text cannot be read; see: systemctl cat {unit.name}")
    found = []
    for line in answer.text.splitlines():
        if match := _CREDENTIAL.fullmatch(line.strip()):
            kind, encrypted, name, rest = match.groups()
            path = None if kind == "SetCredential" else _credential_path(name, rest, encrypted=bool(encrypted))
            found.append(Credential(name, path, bool(encrypted)))
    return found


def _credential_path(name: str, given: str | None, *, encrypted: bool) -> Path:
    if given and given.startswith("/"):
        return Path(given)
    candidates = [Path(f"{store}{'.encrypted' if encrypted else ''}", given or name) for store in _STORES]
    return next((path for path in candidates if path.exists()), candidates[0])


def seconds(span: str) -> float | None:
    """A time span as systemd prints it ("1min 30s"); None for "infinity" and what is none."""
    found = _SPAN.findall(span)
    return sum(float(number) * _SECONDS[unit] for number, unit in found) if found else None


def _properties(name: str) -> dict[str, str]:
    argv = ["systemctl", "--no-pager", "--timestamp=unix", "show", f"--property={','.join(_PROPERTIES)}", "--", name]
    try:
        answer = ask(argv, timeout_seconds=_LOOK_SECONDS)
    except OSError as error:
        raise UnitError(f"{name}: systemctl cannot be run: {error.strerror}") from error
    if answer.exit_code != 0:
        said = " ".join(answer.text.split()) or "nothing"
        raise UnitError(f"{name}: systemctl says: {said}")
    shown: dict[str, str] = {}
    for line in answer.text.splitlines():
        key, _, value = line.partition("=")
        shown[key] = f"{shown[key]} {value}" if key in shown else value  # a line for each of several files
    return shown


def _parse(name: str, shown: Mapping[str, str]) -> Unit:
    def get(key: str) -> str:
        return shown.get(key, "")

    made = (
        *(f"/var/lib/{name}" for name in get("StateDirectory").split()),
        *(f"/var/log/{name}" for name in get("LogsDirectory").split()),
    )
    files = (Path(path) for path in (get("FragmentPath"), *get("DropInPaths").split()) if path)
    return Unit(
        name=name,
        load_state=get("LoadState"),
        active_state=get("ActiveState"),
        file_state=get("UnitFileState"),
        needs_reload=get("NeedDaemonReload") == "yes",
        files=tuple(files),
        entered_at=_instant(get("ActiveEnterTimestamp")),
        status_text=get("StatusText"),
        user=get("User") or "root",
        environment=_environment(get("Environment"), get("EnvironmentFiles")),
        mounts=_paths(get("RequiresMountsFor")),
        watchdog_seconds=seconds(get("WatchdogUSec")) or None,
        stop_seconds=seconds(get("TimeoutStopUSec")),
        start_seconds=seconds(get("TimeoutStartUSec")),
        made=made,
        prepares=get("ExecStartPre"),
        sandbox=_sandbox(shown, made),
    )


def _sandbox(shown: Mapping[str, str], made: tuple[str, ...]) -> Sandbox:
    def paths(*keys: str) -> tuple[str, ...]:
        return tuple(path for key in keys for path in _paths(shown.get(key, "")))

    return Sandbox(
        protect_system=shown.get("ProtectSystem", ""),
        protect_home=shown.get("ProtectHome", ""),
        private_tmp=shown.get("PrivateTmp") == "yes",
        writable=(*paths("ReadWritePaths"), *made, *_targets(paths("BindPaths"))),
        read_only=(*paths("ReadOnlyPaths"), *_targets(paths("BindReadOnlyPaths"))),
        hidden=paths("InaccessiblePaths"),
        bound=_targets(paths("BindPaths", "BindReadOnlyPaths")),
    )


def _paths(text: str) -> tuple[str, ...]:
    """Without the "-" and "+" before a path (systemd.exec(5)), and without names of options."""
    stripped = (word.lstrip("-+") for word in text.split())
    return tuple(word for word in stripped if word.startswith("/"))


def _targets(bound: tuple[str, ...]) -> tuple[str, ...]:
    """Where SOURCE:TARGET:OPTIONS puts it."""
    parts = (pair.split(":") for pair in bound)
    return tuple(part[1] if len(part) > 1 else part[0] for part in parts)


def _environment(assigned: str, files: str) -> dict[str, str]:
    found = dict(word.split("=", 1) for word in shlex.split(assigned) if "=" in word)
    for path in _paths(files):
        read = read_env_file(Path(path))
        if read is not None:
            found |= {name: setting.value for name, setting in read.settings.items()}
    return found


def _instant(text: str) -> float | None:
    """`@1795364990`, as --timestamp=unix prints it; "" or "n/a" where there is none."""
    return float(text.removeprefix("@")) if text.startswith("@") else None
