"""The daemon: installed, running, up to date with what is on disk, and allowed to do its work."""

from __future__ import annotations

import os
import re
import socket
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import ProxyHandler, build_opener

import msgspec

from scpln_backup import __version__
from scpln_backup.config.keys import NEEDS_RESTART, keys, plain
from scpln_backup.errors import ConfigError
from scpln_backup.operations.doctor import units
from scpln_backup.operations.doctor.account import acting_as
from scpln_backup.operations.doctor.finding import Verdict, bad, doubtful, good, together
from scpln_backup.records import lastgood
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scpln_backup.config.schema import Config
    from scpln_backup.operations.doctor.patient import Patient
    from scpln_backup.operations.doctor.units import Sandbox, Unit

_ANSWER_SECONDS = 5.0
_ANSWER_BYTES = 1 << 20
_BUILD_INFO = re.compile(r"^backup_build_info\{(.*)\} ", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not bound
_HOMES = ("/home", "/root", "/run/user")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - what PrivateTmp= replaces
_NO_SYSTEMD = "systemd does not run here: what keeps the daemon running, and starts it at boot, is not known"


def unit(patient: Patient) -> Verdict:
    """Installed, enabled, and in force as it is on disk."""
    if not patient.systemd:
        return doubtful(
            _NO_SYSTEMD, "see to it that something starts `scpln-backup serve` at boot, and again when it ends"
        )
    if patient.unit is None:
        path = patient.loaded.path
        return doubtful(
            f"no unit's daemon reads {path}",
            f"systemctl edit {units.DAEMON}: [Service] Environment=SCPLN_BACKUP_CONFIG={path}",
        )
    return judge_unit(patient.unit, newest_change(patient.unit), units.unread_drop_ins(patient.unit))


def newest_change(found: Unit) -> float:
    """When its files were last changed, in seconds of the epoch."""
    return max((path.stat().st_mtime for path in found.files if path.exists()), default=0.0)


def judge_unit(found: Unit, changed_at: float, unread: Sequence[Path] = ()) -> Verdict:
    """`changed_at` is when a file that systemd has read was last changed; `unread` are those that it has not."""
    name = found.name
    verdicts = []
    if not found.enabled:
        state = found.file_state or "not enabled"
        verdicts.append(doubtful(f"{name} is {state}: it does not start at boot", f"systemctl enable {name}"))
    if found.needs_reload or unread:
        restart = f"systemctl daemon-reload && systemctl restart {name}"
        verdicts.append(doubtful(f"{name} was changed on disk, and systemd has the old one", restart))
    elif found.active and found.entered_at is not None and int(changed_at) > found.entered_at:
        verdicts.append(doubtful(f"{name} was changed since it was started", f"systemctl restart {name}"))
    if found.active and found.watchdog_seconds is None:
        edit = f"systemctl edit {name}: [Service] WatchdogSec=120"
        verdicts.append(doubtful(f"{name} has no watchdog: a daemon that hangs stays", edit))
    return together(verdicts) if verdicts else good(f"{name}, {found.file_state}")


def daemon(patient: Patient) -> Verdict:
    """Running, and of this version. BackupError: its lock cannot be looked at."""
    found = patient.daemon
    name = patient.unit.name if patient.unit is not None else units.DAEMON
    if found is None:
        start = f"systemctl start {name}" if patient.systemd else "scpln-backup serve"
        return bad("not running, so nothing will run by itself", start)
    labels = _build_info(patient)
    version = labels.get("version", "") if labels is not None else ""
    if version and version != __version__:
        return doubtful(
            f"process {found.pid} runs version {version}, and {__version__} is installed", f"systemctl restart {name}"
        )
    return good(f"process {found.pid}, version {version or 'not told'}")


def in_force(patient: Patient) -> Verdict | None:
    """The configuration on disk against the one that the daemon works with."""
    if patient.daemon is None:
        return None
    try:
        running = lastgood.recall({"STATE_DIRECTORY": str(patient.state)}, ConfigError("it has kept none"))
    except ConfigError:
        return None
    name = patient.unit.name if patient.unit is not None else units.DAEMON
    return judge_in_force(running, patient.config, name)


def judge_in_force(running: Config, on_disk: Config, unit_name: str) -> Verdict:
    before, after = plain(running), plain(on_disk)
    changed = [key for key in keys() if before[key.path] != after[key.path]]
    if not changed:
        return good("the daemon works with what is on disk")
    verb = "restart" if any(key.path in NEEDS_RESTART for key in changed) else "reload"
    labels = ", ".join(key.label for key in changed)
    return doubtful(f"the daemon works with an older {labels}", f"systemctl {verb} {unit_name}")


def web_port(patient: Patient) -> Verdict:
    """Free for the daemon to come, or held by the one that runs."""
    listen = patient.config.web.listen
    host, port = patient.config.web.address
    if port == 0:
        return good(f"{listen}: any free one")
    labels = _build_info(patient)
    if labels is not None:
        return judge_answer(listen, labels, patient.config)
    if patient.daemon is not None:
        return bad(
            f"{listen}: the daemon runs, and does not answer there: Prometheus sees nothing",
            "if [web] listen was changed, restart the daemon; else see its log",
        )
    with acting_as(patient.user):
        try:
            _bind(host, port)
        except OSError as error:
            return bad(
                f"{listen}: {one_line(error)}: the daemon would not start",
                f"choose another [web] listen, or see who is there: ss -ltnp 'sport = :{port}'",
            )
    return good(f"{listen} is free")


def judge_answer(listen: str, labels: dict[str, str], config: Config) -> Verdict:
    mine = (config.database.name, config.environment)
    theirs = (labels.get("database"), labels.get("environment"))
    if theirs != mine:
        return bad(
            f"{listen}: the daemon of {' in '.join(str(one) for one in theirs)} is there",
            "give each environment a [web] listen of its own",
        )
    return good(f"{listen}, the daemon answers")


def _build_info(patient: Patient) -> dict[str, str] | None:
    """The labels of the metric that names a daemon; None when none of ours answers."""
    host, port = patient.config.web.address
    if port == 0:
        return None
    host = _WILDCARDS.get(host, host)
    address = f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"
    try:
        with build_opener(ProxyHandler({})).open(address, timeout=_ANSWER_SECONDS) as answer:
            text = answer.read(_ANSWER_BYTES).decode(errors="replace")
    except (OSError, HTTPException, ValueError):
        return None
    found = _BUILD_INFO.search(text)
    return dict(_LABEL.findall(found[1])) if found is not None else None


def _bind(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)


def overdue_timer(patient: Patient) -> Verdict | None:
    """The alarm that sounds when the daemon is dead."""
    return judge_timer(units.overdue_unit(patient.unit, "timer")) if patient.unit is not None else None


def judge_timer(timer: Unit) -> Verdict:
    if not timer.known:
        return doubtful(
            f"{timer.name} is not installed: with the daemon dead nobody is told that backups are overdue",
            f"install it, then: systemctl enable --now {timer.name}",
        )
    if not timer.enabled or not timer.active:
        return doubtful(
            f"{timer.name} is {timer.file_state}, {timer.active_state}: with the daemon dead nobody is told",
            f"systemctl enable --now {timer.name}",
        )
    return good(f"{timer.name}, {timer.file_state}, {timer.active_state}")


class Need(msgspec.Struct, frozen=True):
    """A path that the daemon works with; `key` is the setting that names it."""

    key: str
    path: Path
    write: bool


def sandbox(patient: Patient) -> Verdict | None:
    """Whether the unit lets the daemon reach what its configuration names."""
    return judge_sandbox(patient.unit, list(_needs(patient))) if patient.unit is not None else None


def judge_sandbox(found: Unit, needs: Sequence[Need]) -> Verdict:
    refused = [(need, why) for need in needs if (why := refusal(found.sandbox, str(need.path), write=need.write))]
    if not refused:
        return good(f"{found.name} lets the daemon reach all that is configured")
    settings = {
        "ReadWritePaths": [str(need.path) for need, _ in refused if need.write],
        "BindReadOnlyPaths": [str(need.path) for need, _ in refused if not need.write],
    }
    lines = " ".join(f"{name}={' '.join(paths)}" for name, paths in settings.items() if paths)
    return bad(
        "; ".join(f"{need.key} = {need.path}: {why}" for need, why in refused),
        f"systemctl edit {found.name}: [Service] {lines}, then restart it",
    )


def _needs(patient: Patient) -> Iterator[Need]:
    config, house = patient.config, patient.house
    wal = patient.source is not None and patient.source.header.wal
    yield Need("[backup] root", _real(house.root), write=True)
    yield Need("[state] directory", _real(patient.state), write=True)
    yield Need("[audit] log", _real(Path(config.audit.log).parent), write=True)
    yield Need("[database] path", _real(house.source.parent), write=wal)
    if config.drill.command:
        yield Need("[drill] directory", _real(Path(config.drill.directory)), write=False)
    for key, secret in (
        ("[slack] token_file", config.slack.token_file),
        ("[pagerduty] routing_key_file", config.pagerduty.routing_key_file),
        ("[jira] token_file", config.jira.token_file),
    ):
        if secret.startswith("/"):
            yield Need(key, _real(Path(secret)), write=False)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def refusal(box: Sandbox, path: str, *, write: bool) -> str | None:
    """Why a process of the unit could not see, or write to, a path (systemd.exec(5)); None where it can.

    Of settings for nested folders the deepest counts, of two for one folder the stricter.
    """
    allowed = _depth(path, box.writable)
    bound = _depth(path, box.bound) >= 0
    if _depth(path, box.hidden) >= max(allowed, 0):
        return "hidden by InaccessiblePaths="
    if box.private_tmp and _depth(path, _TEMPORARY) >= 0 and not bound:
        return "the unit has a /tmp of its own (PrivateTmp=)"
    if box.protect_home in {"yes", "tmpfs"} and _depth(path, _HOMES) >= 0 and not bound:
        return f"hidden by ProtectHome={box.protect_home}"
    if write and (_depth(path, box.read_only) >= max(allowed, 0) or _depth(path, _protected(box)) > allowed):
        return "read-only in the unit, for no ReadWritePaths= names it"
    return None


def _protected(box: Sandbox) -> tuple[str, ...]:
    """The folders that ProtectSystem= and ProtectHome= make read-only."""
    system = {"strict": ("/",), "full": ("/usr", "/boot", "/efi", "/etc"), "yes": ("/usr", "/boot", "/efi")}
    homes = _HOMES if box.protect_home == "read-only" else ()
    return (*system.get(box.protect_system, ()), *homes)


def _depth(path: str, folders: tuple[str, ...]) -> int:
    """Length of the longest of the folders that `path` is in, -1 when it is in none."""
    return max((len(folder) for folder in folders if Path(path).is_relative_to(folder)), default=-1)
