"""Who has a database open: real processes, seen in /proc."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from scpln_backup.stages import openers as module
from scpln_backup.stages.openers import Opener, file_set, openers
from support.restore_house import killed, make

_OPEN = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("SELECT count(*) FROM entries").fetchone()
print(flush=True)
sys.stdin.read()
"""
_DESCRIPTOR = """
import sys
file = open(sys.argv[1], "rb")
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return make(tmp_path / "scpln.db", "here")


@contextmanager
def holding(path: Path, code: str = _OPEN) -> Iterator[int]:
    """A process that has opened `path` and holds no lock; its pid."""
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid


def pids(database: Path) -> list[int]:
    return [opener.pid for opener in openers(database)]


def test_nobody(database: Path) -> None:
    assert openers(database) == []
    assert openers(database.with_name("absent.db")) == []


def test_this_process_does_not_count(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("SELECT count(*) FROM entries").fetchone()
        assert openers(database) == []


def test_one_without_a_lock_is_named(database: Path) -> None:
    with holding(database) as pid:
        (opener,) = openers(database)
        assert opener.pid == pid
        assert opener.name.startswith("python")
        assert str(opener).startswith(f"{opener.name} (process {pid}")
    assert openers(database) == []


@pytest.mark.parametrize("ending", ["-wal", "-shm"])
def test_one_that_has_only_a_sidecar_open(database: Path, ending: str) -> None:
    killed(database, "PRAGMA journal_mode = WAL", "UPDATE entries SET label = 'there'")
    with holding(database.with_name(database.name + ending), _DESCRIPTOR) as pid:
        assert pids(database) == [pid]


def test_by_another_name(database: Path) -> None:
    """A hard link, or a symbolic one: it is the file that counts."""
    link, symlink = database.with_name("link.db"), database.with_name("symlink.db")
    os.link(database, link)
    symlink.symlink_to(database)
    with holding(link) as first, holding(symlink) as second:
        assert set(pids(database)) == {first, second}


def test_after_it_was_renamed(database: Path) -> None:
    moved = database.with_name("moved.db")
    with holding(database) as pid:
        database.rename(moved)
        assert pids(moved) == [pid]
        assert pids(database) == []


def test_after_it_was_deleted(database: Path) -> None:
    """That process unlinks the -wal of this name when it closes, whoever's it is by then."""
    with holding(database) as pid:
        database.unlink()
        assert pids(database) == [pid]
        make(database, "another")
        assert pids(database) == [pid]
        assert pids(database.with_name("other.db")) == []


def test_a_name_that_ends_like_a_deleted_one(database: Path) -> None:
    other = make(database.with_name("scpln.db (deleted)"), "odd")
    with holding(other) as pid:
        assert pids(database) == []
        assert pids(other) == [pid]


def test_the_unit_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As systemd's control groups name it, the innermost unit; both hierarchies of cgroups(7)."""
    monkeypatch.setattr(module, "_PROC", tmp_path)
    groups = {
        1: "0::/system.slice/scpln-api.service\n",
        2: "12:pids:/user.slice\n1:name=systemd:/system.slice/scpln-api.service/worker\n",
        3: "0::/user.slice/user-0.slice/session-3.scope\n",
        4: "0::/system.slice/docker-1f.scope/system.slice/inner.service\n",
        5: "0::/\n",
    }
    for pid, text in groups.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cgroup").write_text(text)
    units = [module._unit(pid) for pid in (*groups, 6)]
    assert units == ["scpln-api.service", "scpln-api.service", "session-3.scope", "inner.service", None, None]
    assert str(Opener(7, "uvicorn", "scpln-api.service")) == "uvicorn (process 7, scpln-api.service)"
    assert module._name(6) == "a process"


def test_the_set(tmp_path: Path) -> None:
    names = [path.name for path in file_set(tmp_path / "a.db")]
    assert names == ["a.db", "a.db-wal", "a.db-shm", "a.db-journal"]
