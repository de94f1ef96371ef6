"""The application as systemd runs it in a box, and a host whose database it has open.

Every unit looks at the database's files just before its program starts and just after it has ended, and says in the
journal what they hold: so a test knows what the program found and what it left, without looking at the right moment.
"""

from __future__ import annotations

import json
import re
import sqlite3
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from support.host import CONFIG, ROOT, SOURCE, STATE, WAIT, Host, configuration
from support.systemd_box import BoxError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from support.systemd_box import SystemdBox

API = "scpln-api.service"
WORKER = "scpln-worker.service"
HEALTH = "http://127.0.0.1:8000/healthz"
DATA = "/opt/scpln/data"
# While it is there a unit that was told to wait neither finishes to stop nor begins to start.
GATE = "/run/scpln-gate"

_APPLICATION = "/opt/scpln/app.py"
_LOOK = "/opt/scpln/look.sh"

# It says that it is ready, writes a row every few milliseconds, and is healthy while it finds the table it needs.
# `start` tells the rows of its runs apart.
_PROGRAM = f"""
import http.server, os, signal, socket, sqlite3, sys, threading, time

settings = dict(word.split("=", 1) for word in sys.argv[1:])
database = sqlite3.connect("{SOURCE}", isolation_level=None, check_same_thread=False, timeout=30)
database.execute(f"PRAGMA journal_mode = {{settings.get('journal', 'delete')}}")
needed = settings.get("needs", "runs")
lock = threading.Lock()


def end(*_):
    if "stubborn" not in settings:
        raise SystemExit


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with lock:
            there = database.execute("SELECT count(*) FROM sqlite_schema WHERE name = ?", (needed,)).fetchone()[0]
        self.send_response(200 if there else 503)
        self.end_headers()
        self.wfile.write(b"well" if there else f"there is no table {{needed}}".encode())

    def log_message(self, *_):
        pass


signal.signal(signal.SIGTERM, end)
if "port" in settings:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(settings["port"])), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
try:
    while True:
        if "quiet" in settings:
            database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        else:
            with lock:
                database.execute("CREATE TABLE IF NOT EXISTS written (start INTEGER, created_at REAL)")
                database.execute("INSERT INTO written VALUES (?, ?)", (os.getpid(), time.time()))
        time.sleep(0.005)
finally:
    with lock:
        database.close()
"""

_LOOK_SCRIPT = f"""#!/bin/sh
cd {DATA}
for file in scpln.db scpln.db-wal scpln.db-journal; do
    if [ -e $file ]; then found="$found $file=$(sha256sum <$file | cut -c1-64)"; fi
done
echo "$1:$found"
"""

_UNIT = """\
[Service]
Type=notify
User=scpln
ExecStartPre=/bin/sh {look} found
ExecStart=/usr/bin/python3 {application} {settings}
ExecStopPost=/bin/sh {look} left
{more}
"""

WAIT_FOR_GATE = f"/bin/sh -c 'while [ -e {GATE} ]; do sleep 0.02; done'"

_RESET = f"""
systemctl kill --signal=KILL {API} {WORKER}
systemctl stop {API} {WORKER}
systemctl stop 'stray*'  # started by the other's end
rm -rf {GATE} /etc/systemd/system/scpln-api.service* /etc/systemd/system/scpln-worker.service* /opt/scpln/data* \
    /run/scpln-copy.db
systemctl reset-failed
"""


class Look(NamedTuple):
    """What a unit's program found when it started, or left when it ended: the files' hashes."""

    moment: str
    files: dict[str, str]


class ApplicationHost(Host):
    """A host with the application; it is installed and started by the test."""

    def __init__(self, box: SystemdBox) -> None:
        super().__init__(box)
        box.write(_LOOK, _LOOK_SCRIPT)
        box.write(_APPLICATION, _PROGRAM)

    def reset(self) -> None:
        self.box.run("sh", "-c", _RESET, check=False)
        super().reset()
        folders = (STATE, ROOT, "/var/log/scpln")  # the daemon's unit makes them, which few of the tests start
        self.box.run("install", "-d", "-o", "scpln", "-g", "scpln", "-m", "0750", *folders)
        self.configure()

    def configure(self, *, service: dict[str, object] | None = None, drill: dict[str, object] | None = None) -> None:
        """Write the configuration; without `drill` no smoke test is configured."""
        sections = {
            "service": {"units": [API], "health_url": HEALTH, "health_timeout_seconds": 20} | (service or {}),
            "drill": {"command": []} | (drill or {}),
        }
        text = 'locale = "en"\n' + configuration()
        for name, keys in sections.items():
            text += f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        self.box.write(CONFIG, text)

    def application(self, *settings: str, unit: str = API, more: str = "", start: bool = True) -> None:
        """Install the application's unit; `more` goes into [Service]."""
        words = [*settings, "port=8000"] if unit == API else settings
        text = _UNIT.format(look=_LOOK, application=_APPLICATION, settings=" ".join(words), more=more)
        self.box.install_unit(unit, text)
        if start:
            self.box.systemctl("start", unit)

    def active(self, unit: str = API) -> str:
        return self.box.show(unit, "ActiveState")["ActiveState"]

    def pid(self, unit: str = API) -> int:
        return int(self.box.show(unit, "MainPID")["MainPID"])

    def healthy(self) -> bool:
        return self.box.run("curl", "-fsS", "--max-time", "5", HEALTH, check=False).returncode == 0

    def looks(self, unit: str = API) -> list[Look]:
        lines = [re.fullmatch(r"(found|left):((?: \S+=[0-9a-f]{64})*)", line) for line in self.log(unit=unit)]
        return [Look(line[1], dict(word.split("=") for word in line[2].split())) for line in lines if line]

    def backup(self) -> str:
        """A good backup's name."""
        return str(self.json("backup")["artifact"])

    def restore(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As an SRE does it by hand, with sudo."""
        return self.box.run("env", "SUDO_USER=alice", "scpln-backup", "restore", *arguments, "--json", check=False)

    def restored(self, *arguments: str, code: int = 0) -> Any:
        """The document of a restore that ended with `code`."""
        done = self.restore(*arguments)
        if done.returncode != code:
            said = f"{done.stdout}{done.stderr}"
            raise BoxError(f"restore {arguments} ended with {done.returncode}: {said}" + "\n".join(self.log(unit=API)))
        return json.loads(done.stdout)

    @contextmanager
    def restoring(self) -> Iterator[subprocess.Popen[bytes]]:
        """A restore beside the test, and the gate closed, at the latest until the end of the context."""
        self.box.write(GATE, "")
        with self.running("scpln-backup", "restore", "--latest", "--yes", "--json") as process:
            try:
                yield process
            finally:
                self.open_gate()

    def open_gate(self) -> None:
        self.box.path(GATE).unlink(missing_ok=True)

    def query(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        """Ask a private copy of a database of the box and the journals beside it, which stay as they are."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy.db"
            for ending in ("-wal", "-journal", ""):
                path = self.box.path(database + ending)
                if path.exists():
                    copy.with_name(copy.name + ending).write_bytes(path.read_bytes())
            with closing(sqlite3.connect(copy)) as connection:
                return connection.execute(statement).fetchall()

    def execute(self, *statements: str) -> None:
        """Write to the live database beside the application, as its owner."""
        self.as_scpln("sqlite3", "-cmd", ".timeout 20000", SOURCE, ";".join(statements)).check_returncode()

    def starts(self, database: str = SOURCE) -> dict[int, int]:
        """How many rows each run of the application has in a database."""
        return dict(self.query(database, "SELECT start, count(*) FROM written GROUP BY start"))

    def wait_for_rows(self, start: int, more_than: int = 0) -> None:
        """Until a run of the application has written that many rows to the live database."""
        statement = f"SELECT count(*) FROM written WHERE start = {start}"
        deadline = time.monotonic() + WAIT
        while True:
            # In the box, beside the writer: what is copied from outside while it writes may be a mixture.
            done = self.as_scpln("sqlite3", "-cmd", ".timeout 5000", SOURCE, statement)
            if done.returncode == 0 and int(done.stdout) > more_than:
                return
            if time.monotonic() > deadline:
                raise BoxError(f"no more than {more_than} rows: {done.stdout}{done.stderr}" + "\n".join(self.log()))
            time.sleep(0.02)

    def raw_sha256(self, artifact: str) -> str:
        """The sha256 of the database in an artifact, by nothing but gunzip."""
        path = f"{ROOT}/{artifact.removeprefix('scpln-')[:4]}/{artifact}"
        return self.box.run("sh", "-c", f"gunzip -c {path} | sha256sum").stdout.split()[0]

    def leftovers(self) -> list[str]:
        """What is beside the database and does not belong to it."""
        usual = {"scpln.db", "scpln.db-wal", "scpln.db-shm", "scpln.db-journal"}
        return sorted({path.name for path in self.box.path(DATA).iterdir()} - usual)
