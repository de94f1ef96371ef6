"""Old databases of every kind, what SQLite makes of them, and a place whose database can be restored."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scpln_backup.app import App
from scpln_backup.config.load import load
from scpln_backup.operations.restore import journal as journals
from scpln_backup.operations.restore import plan
from scpln_backup.operations.restore.run import Restoration, begin
from scpln_backup.stages.openers import SIDECARS, file_set
from support import faults
from support.faults import Call, Process, Program
from support.place import Place

if TYPE_CHECKING:
    from scpln_backup.model import RestoreRecord
    from scpln_backup.operations.restore.journal import Phase

MISSING = "missing"
DAMAGED = "damaged"

# An application that is killed: nothing is closed, so its -wal or its hot -journal stays.
_KILLED = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    database.execute(statement)
os.kill(os.getpid(), signal.SIGKILL)
"""


def make(path: Path, label: str, rows: int = 120) -> Path:
    """A database of some twenty pages, whose rows all say `label`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, label TEXT, text TEXT)")
        texts = ((label, hashlib.sha512(b"%d" % number).hexdigest() * 4) for number in range(rows))
        database.executemany("INSERT INTO entries (label, text) VALUES (?, ?)", texts)
        database.commit()
    return path


def killed(path: Path, *statements: str) -> None:
    """Run statements in a process of their own, which is killed without closing the database."""
    done = subprocess.run([sys.executable, "-c", _KILLED, str(path), *statements], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def plain(path: Path) -> None:
    make(path, "old")


def with_wal(path: Path) -> None:
    """Half of its rows are in the -wal only, and what is in both differs."""
    make(path, "old")
    killed(
        path,
        "PRAGMA journal_mode = WAL",
        "PRAGMA wal_autocheckpoint = 0",
        "UPDATE entries SET label = 'old, from the wal'",
        "INSERT INTO entries (label, text) SELECT label, text FROM entries",
    )
    assert path.with_name(path.name + "-wal").stat().st_size > path.stat().st_size


def with_checkpointed_wal(path: Path) -> None:
    """Some commits of the -wal are in the database already, newer ones are not."""
    make(path, "old")
    killed(
        path,
        "PRAGMA journal_mode = WAL",
        "PRAGMA wal_autocheckpoint = 0",
        "UPDATE entries SET label = 'old, checkpointed'",
        "PRAGMA wal_checkpoint(PASSIVE)",
        "DELETE FROM entries WHERE id % 2",
    )


def with_hot_journal(path: Path) -> None:
    """A transaction that was half written: the database alone is a mixture, the journal undoes it."""
    make(path, "old")
    killed(path, "PRAGMA cache_size = 5", "BEGIN IMMEDIATE", "UPDATE entries SET label = 'never committed', text = ''")
    assert b"never committed" in path.read_bytes()


def with_empty_wal(path: Path) -> None:
    make(path, "old")
    for ending in ("-wal", "-journal"):
        path.with_name(path.name + ending).touch()


def with_persistent_journal(path: Path) -> None:
    """A finished journal that stays: its first bytes are zero."""
    make(path, "old")
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = PERSIST")
        database.execute("UPDATE entries SET label = 'old, updated'")
    assert path.with_name(path.name + "-journal").stat().st_size > 0


def missing_with_stale_wal(path: Path) -> None:
    with_wal(path)
    path.unlink()


def missing(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)


def damaged_with_wal(path: Path) -> None:
    """No fold can be made of it, and its sound -wal would be replayed over any database beside it."""
    make(path, "old")
    killed(path, "PRAGMA journal_mode = WAL", "PRAGMA wal_autocheckpoint = 0", "UPDATE entries SET label = 'wal'")
    with path.open("r+b") as file:
        file.write(b"rubbish!" * 64)


KINDS = {
    kind.__name__: kind
    for kind in (
        plain,
        with_wal,
        with_checkpointed_wal,
        with_hot_journal,
        with_empty_wal,
        with_persistent_journal,
        missing,
        missing_with_stale_wal,
        damaged_with_wal,
    )
}


def content(database: Path) -> str:
    """What an application that opened the database now would see; looked at in a copy of the whole set."""
    if not database.exists():
        return MISSING
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / database.name
        for path in file_set(database):
            if path.exists() and not path.name.endswith("-shm"):
                shutil.copyfile(path, copy.with_name(path.name))
        try:
            with closing(sqlite3.connect(copy)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                lines = "\n".join(connection.iterdump())
        except sqlite3.DatabaseError:
            return DAMAGED
    return hashlib.sha256(lines.encode()).hexdigest()


def bytes_of_set(database: Path) -> dict[str, tuple[int, str]]:
    """Inode and sha256 of every file of the set. Without the -shm, which SQLite makes anew from the -wal."""
    endings = ("", *(ending for ending in SIDECARS if ending != "-shm"))
    paths = {ending: database.with_name(database.name + ending) for ending in endings}
    return {
        ending: (path.stat().st_ino, hashlib.sha256(path.read_bytes()).hexdigest())
        for ending, path in paths.items()
        if path.exists()
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class RestorePlace(Place):
    """A place without units: the tests have no systemd, and say so in its configuration."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.configure("service", units=[], health_url="")

    def app(self) -> App:
        return App.build(load(self.config, {}))

    @property
    def journal(self) -> Path:
        return self.state / "restore.json"

    @property
    def staging(self) -> Path:
        return self.source.with_name(f".{self.source.name}.restore")

    def set_aside(self) -> list[Path]:
        """The folders of replaced databases, oldest name first."""
        return sorted(self.source.parent.glob(f"{self.source.name}.bak-*"))

    def write(self, statement: str, *values: object) -> None:
        """Change the live database as the application does."""
        with closing(sqlite3.connect(self.source)) as database:
            database.execute(statement, values)
            database.commit()

    def expect_nothing_left(self) -> None:
        """No journal, no staging folder, no temporary file of a restore."""
        assert not self.journal.exists()
        assert not self.staging.exists()
        left = [path for folder in (self.state, self.source.parent) for path in folder.glob(".*") if path.is_file()]
        assert left == []


def xattrs(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


_CONFIG = """\
[database]
path = "{folder}/data/scpln.db"
env_file = ""
[backup]
root = "{folder}/root"
workers = 1
[service]
units = []
health_url = ""
[state]
directory = "{folder}/state"
[web]
listen = "127.0.0.1:0"
[audit]
log = "{folder}/audit.log"
"""
_ATTRIBUTES = ("chown", "lchown", "fchownat", "setxattr", "fsetxattr", "removexattr")
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*?)\) += (?P<result>.*)")
_OF_THE_DAY = ((re.compile(r"\.bak-\d{8}_\d{4}"), ".bak-NEW"), (re.compile(r"\.tables-\w+"), ".tables-HEX"))
_ALL = (*faults.ON_DESCRIPTOR, *faults.ON_NAME, *_ATTRIBUTES)


class RestoreProgram(Program):
    """The command, with the calls that change attributes among those that a fault can strike."""

    def record(self, *verb: str) -> list[Call]:
        traces = self.folder / "traces"
        traces.mkdir()
        tracer = [
            "strace",
            "-ff",
            "-y",
            "-s0",
            "-o",
            str(traces / "trace"),
            "-e",
            f"trace={','.join(('execve', *_ALL))}",
        ]
        finished = self.run(*verb, prefix=tracer)
        assert finished.code == 0, finished.stderr
        calls: list[Call] = []
        for trace in traces.iterdir():
            text = trace.read_text()
            found = self._calls(text, Process.COMMAND)
            if {call.where for call in found} == {"pipe"}:
                continue  # the process that checks the new database: it answers, and changes nothing
            assert not found or not calls, "a second thread or process changes something"
            calls += found
        shutil.rmtree(traces)
        return calls

    def _calls(self, trace: str, process: Process) -> list[Call]:
        counted: Counter[str] = Counter()
        calls = []
        for match in _CALL.finditer(trace):
            name, arguments = match["name"], match["arguments"]
            if name not in _ALL:
                continue
            call = Call(process, name, 0, self._where(name, arguments))
            counted.update([name, f"{name} {call.where}"])
            # Other openats are too many to count: the program looks through /proc. What comes right before or after
            # one that makes a file of a random name stands for it.
            if call.where and (name != "openat" or (call.fixed and "O_CREAT" in arguments)):
                calls.append(replace(call, number=counted[f"{name} {call.where}" if call.fixed else name]))
        return calls

    def _where(self, name: str, arguments: str) -> str:
        if name in _ATTRIBUTES:
            name, arguments = "chmod", arguments.partition(",")[0]
        where = super()._where(name, arguments)
        if where and name == "unlinkat":
            where += " NEW"  # relative to a folder's descriptor, which strace -P does not look up: counted by name
        for pattern, general in _OF_THE_DAY:
            where = pattern.sub(general, where)
        return where


class RestoreHouse:
    """A folder with an artifact of a database that says "new", and an old one of some kind in its place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target = folder / "data" / "scpln.db"
        self.state = folder / "state"
        config = folder / "config.toml"
        config.write_text(_CONFIG.format(folder=folder))
        self.program = RestoreProgram(folder, [path.name for path in folder.glob("root/*/*.gz")])
        self.old = content(self.target)
        self.files = bytes_of_set(self.target)

    @classmethod
    def build(cls, folder: Path, kind: str) -> RestoreHouse:
        folder.mkdir()
        make(folder / "data" / "scpln.db", "new", rows=90)
        first = cls(folder)
        finished = first.program.run("backup")
        assert finished.code == 0, finished.stderr
        shutil.copyfile(first.target, folder / "new.db")
        first.target.unlink()
        KINDS[kind](first.target)
        if first.target.exists():
            os.setxattr(first.target, "user.note", b"of the application")
        return cls(folder)

    def copied(self, folder: Path) -> RestoreHouse:
        """The same house again, in another folder."""
        shutil.copytree(self.folder, folder)
        return RestoreHouse(folder)

    def probe_with(self, *command: str) -> None:
        """Ask this command whether the application works."""
        config = self.folder / "config.toml"
        told = f"[service]\nhealth_timeout_seconds = 1\nhealth_command = {json.dumps(command)}\n"
        config.write_text(config.read_text().replace("[service]\n", told))

    def break_off(self, phase: Phase) -> None:
        """Begin a restore and leave it at `phase`, as a crash would."""
        restoration = self._begun()
        while restoration._journal.phase < phase:
            work = restoration._work()
            assert work is not None
            work()

    @property
    def new(self) -> str:
        return content(self.folder / "new.db")

    def app(self) -> App:
        return App.build(load(self.folder / "config.toml", {}))

    def broken_off(self) -> journals.Journal | None:
        return journals.load(self.app().house)

    def finish(self, *, abort: bool) -> RestoreRecord:
        """What `restore --resume` or `--abort` does."""
        house = self.app().house
        journal = journals.load(house)
        assert journal is not None
        restoration = Restoration(house, journal, threading.Event())
        return restoration.abort() if abort else restoration.resume()

    def restore(self) -> RestoreRecord:
        """What `restore --yes` does."""
        return self._begun().go_on()

    def _begun(self) -> Restoration:
        house = self.app().house
        made = plan.make(house, plan.choose(house, None, None), self.target, house.now(), plan.Allowed())
        return Restoration(house, begin(house, made), threading.Event())

    def expect_restored(self) -> None:
        """The new database is there byte for byte, the old set in its folder, and nothing else."""
        assert sha256(self.target) == sha256(self.folder / "new.db"), "not the restored database"
        folders = [path.name for path in self.target.parent.iterdir() if path != self.target]
        if self.files:
            assert len(folders) == 1, folders
            aside = self.target.parent / folders[0] / self.target.name
            assert content(aside) == self.old
            assert {e: digest for e, (_, digest) in bytes_of_set(aside).items()} == {
                ending: digest for ending, (_, digest) in self.files.items()
            }
        else:
            assert folders == []
        self._expect_clean_state()

    def expect_as_before(self, *, copies: bool = False) -> None:
        """The very files of the old set are there, or, where there are no hard links, its content; and nothing else."""
        if copies:
            assert content(self.target) == self.old
        else:
            assert bytes_of_set(self.target) == self.files, "not the old set"
        strangers = [p.name for p in self.target.parent.iterdir() if not p.name.startswith(self.target.name)]
        folders = [path.name for path in self.target.parent.iterdir() if path.is_dir()]
        assert strangers == folders == []
        self._expect_clean_state()

    def _expect_clean_state(self) -> None:
        kept = {"catalog.db", "run.lock", "daemon.lock", "audit-chain.json", "audit-chain.lock", "deliver-audit.lock"}
        left = {path.name for path in self.state.iterdir()} - kept
        assert left == set(), left
