"""A box as an operator's host: the application's database, a configuration, both units, and what they look at.

Tests share one booted box: `reset` gives it back as on the first day, which takes a fraction of a boot.
"""

import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from prometheus_client.parser import text_string_to_metric_families

from scpln_backup.model import RunRecord
from scpln_backup.records.catalog import Catalog
from support.box_parts import CHECKOUT
from support.systemd_box import BoxError, SystemdBox

UNITS = tuple(sorted(path.name for path in (CHECKOUT / "systemd").iterdir()))
UNIT = "scpln-backup.service"
SOURCE = "/opt/scpln/data/scpln.db"
ROOT = "/var/backups/scpln"
STATE = "/var/lib/scpln-backup"
CONFIG = "/etc/scpln-backup/config.toml"
ADDRESS = "http://127.0.0.1:9817"
ZONE = ZoneInfo("Asia/Tokyo")
WAIT = 20.0

_RESET = """
systemctl stop 'scpln-backup*' 'app.service'
systemctl reset-failed
rm -rf /etc/systemd/system/scpln-backup*.service.d /etc/scpln-backup /opt/scpln/data \
    /var/backups/scpln* /var/lib/scpln-backup* /var/log/scpln
install -d -o scpln -g scpln /opt/scpln/data
systemctl daemon-reload
journalctl --sync
"""

_LOCK = f"""
import sqlite3, sys
writer = sqlite3.connect("{SOURCE}", isolation_level=None)
writer.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


def configuration(**schedule: object) -> str:
    """The configuration of the host; by default its slot is twelve hours away, so that none falls into a test."""
    slot = f"30 {(int(time.strftime('%H', time.gmtime())) + 9 + 12) % 24} * * *"
    keys = {"timezone": ZONE.key, "backup": slot, "heartbeat_seconds": 1} | schedule
    return "[schedule]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in keys.items())


class Host:
    """`box` is for everything that this class has no word for."""

    def __init__(self, box: SystemdBox) -> None:
        self.box = box
        self._since = 0.0
        for unit in UNITS:
            box.install_unit(unit)

    def reset(self) -> None:
        self.box.run("sh", "-c", _RESET)
        self.box.path(SOURCE).write_bytes((CHECKOUT / "tests/data/scpln-sample.db").read_bytes())
        self.box.run("chown", "scpln:scpln", SOURCE)
        self.box.write("/opt/scpln/.env", "REGISTRY_BACKEND=db\n")
        self.box.write(CONFIG, configuration())
        self._since = time.time()

    def start(self, drop_in: str = "") -> None:
        if drop_in:
            self.box.add_drop_in(UNIT, f"[Service]\n{drop_in}\n")
        done = self.box.run("systemctl", "start", UNIT, check=False)
        if done.returncode != 0:
            raise BoxError(f"{UNIT} does not start:\n" + "\n".join(self.log()))

    def signal(self, name: str, *options: str) -> None:
        """As `systemctl kill` does by default: to every process of the unit."""
        self.box.systemctl("kill", f"--signal={name}", *options, UNIT)

    def as_scpln(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.box.run("runuser", "-u", "scpln", "--", *command, check=False)

    def log(self, *filters: str, unit: str = UNIT) -> list[str]:
        """The journal of a unit since the reset."""
        self.box.run("journalctl", "--sync")
        command = ("journalctl", "--no-pager", "--output=cat", f"--since=@{self._since:.6f}", "--unit", unit)
        return self.box.run(*command, *filters).stdout.splitlines()

    def wait_for_log(self, pattern: str, count: int = 1, unit: str = UNIT) -> str:
        """Wait for the `count`th line that matches. Asks again and again."""
        deadline = time.monotonic() + WAIT
        while len(found := [line for line in self.log(unit=unit) if re.search(pattern, line)]) < count:
            if time.monotonic() > deadline:
                raise BoxError(f"not {count} lines like {pattern!r} in:\n" + "\n".join(self.log(unit=unit)))
            time.sleep(0.05)
        return found[count - 1]

    def status_text(self) -> str:
        return self.box.show(UNIT, "StatusText")["StatusText"]

    def wait_for_status(self, pattern: str) -> str:
        state = self.box.wait_for_state(UNIT, lambda shown: bool(re.search(pattern, shown["StatusText"])), "StatusText")
        return state["StatusText"]

    def main_pid(self) -> int:
        return int(self.box.show(UNIT, "MainPID")["MainPID"])

    def processes(self) -> list[int]:
        """All of the unit's, as the box counts; empty once the unit's control group is gone."""
        group = self.box.show(UNIT, "ControlGroup")["ControlGroup"]
        if not group:
            return []
        listed = self.box.run(
            "sh",
            "-c",
            f"cat /sys/fs/cgroup/systemd{group}/cgroup.procs /sys/fs/cgroup{group}/cgroup.procs",
            check=False,
        )
        return sorted({int(line) for line in listed.stdout.split()})

    def worker(self) -> int:
        """The process that does the heavy work of the run under way, once there is one."""
        deadline = time.monotonic() + WAIT
        while not (children := [pid for pid in self.processes() if pid != self.main_pid()]):
            if time.monotonic() > deadline:
                raise BoxError("no worker was started:\n" + "\n".join(self.log()))
            time.sleep(0.02)
        return children[0]

    @contextmanager
    def running(self, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command in the box while the context lasts; then its standard input ends, and it should too."""
        inside = self.box._enter("--pid", *command)
        with subprocess.Popen(inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            yield process

    @contextmanager
    def source_locked(self) -> Iterator[None]:
        """The application in the middle of a long write: a run waits for it, after its first pass.

        In the box, for SQLite resolves links, and would take /proc/PID/root for the host's own root.
        """
        with self.running("runuser", "-u", "scpln", "--", "python3", "-c", _LOCK) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"locked\n"
            yield

    def metrics(self, address: str = ADDRESS) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """The daemon's own metrics, by name and labels."""
        text = self.box.run("curl", "-fsS", "--max-time", "5", f"{address}/metrics").stdout
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("backup_")
        }

    def metric(self, name: str, address: str = ADDRESS) -> float:
        """The sum over all labels."""
        return sum(value for (found, _), value in self.metrics(address).items() if found == name)

    def runs(self) -> list[RunRecord]:
        """Newest first. The daemon must not run: its catalog is copied out of the box."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copy(self.box.path(f"{STATE}/catalog.db"), folder))
            return Catalog.reader(copy, ZONE).runs()

    def artifacts(self, root: str = ROOT) -> list[str]:
        return sorted(path.name for path in self.box.path(root).glob("*/scpln-*.db.gz"))

    def staged(self, root: str = ROOT) -> list[Path]:
        return list(self.box.path(f"{root}/.staging").glob("*"))

    def json(self, *arguments: str) -> Any:
        """The one document that a verb prints for the database's owner."""
        done = self.as_scpln("scpln-backup", *arguments, "--json")
        if done.returncode != 0:
            raise BoxError(f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def set_slot(self, days_ago: int) -> None:
        """As if the daemon had been stopped for days: its last slot is that long ago. The daemon must not run."""
        micros = int((time.time() - days_ago * 86400) * 1_000_000)
        statement = f"INSERT OR REPLACE INTO slots (job, served_at) VALUES ('backup', {micros})"
        self.as_scpln("sqlite3", f"{STATE}/catalog.db", statement).check_returncode()
