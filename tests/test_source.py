"""stages/source.py: what a look at the live database tells, and that it leaves nothing behind."""

import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from scpln_backup.errors import (
    NotADatabaseError,
    SourceEmptyError,
    SourceEncryptedError,
    SourceError,
    SourceMissingError,
    SourceOwnerError,
    SourceTruncatedError,
)
from scpln_backup.stages import source
from support.databases import names
from support.writer import Session

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to change owners and become somebody else")
STRANGER = 12345

_INSPECT_AS = """
import os, sys
from pathlib import Path
from scpln_backup.errors import BackupError
from scpln_backup.stages import source
os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
try:
    source.inspect(Path(sys.argv[1]))
except BackupError as error:
    print(f"{type(error).__name__}: {error}")
"""


def refusal(path: Path, kind: type[SourceError]) -> str:
    """Inspect, expect exactly `kind`, and check that its message is one useful line and the folder untouched."""
    before = names(path.parent)
    with pytest.raises(SourceError) as caught:
        source.inspect(path)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert names(path.parent) == before
    return message


def inspected_by(uid: int, path: Path) -> str:
    command = [sys.executable, "-c", _INSPECT_AS, str(path), str(uid)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_healthy_database_is_described(sample_database):
    facts = source.inspect(sample_database)
    size = sample_database.stat().st_size
    assert (facts.path, facts.size_bytes, facts.wal_bytes) == (str(sample_database), size, 0)
    assert facts.header == source.Header(4096, size // 4096, wal=False)
    assert names(sample_database.parent) == ["scpln.db"]


def test_the_wal_is_counted(sample_database):
    with Session(sample_database, "PRAGMA journal_mode = WAL", "UPDATE configs SET name = 'x'") as application:
        application.run("DELETE FROM plan_kpis")
        facts = source.inspect(sample_database)
        assert facts.header.wal
        assert facts.wal_bytes == (sample_database.parent / "scpln.db-wal").stat().st_size > 0


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
def test_page_sizes(tmp_path, page_size):
    path = tmp_path / "scpln.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA page_size = {page_size}")
        db.execute("CREATE TABLE t (x)")
    header = source.inspect(path).header
    assert (header.page_size, header.page_count) == (page_size, 2)


def test_a_stale_page_count_is_not_believed(sample_database):
    raw = bytearray(sample_database.read_bytes())
    raw[92:96] = b"\0\0\0\0"  # as SQLite before 3.7.0 leaves it: version-valid-for differs from the change counter
    sample_database.write_bytes(raw)
    assert source.inspect(sample_database).header.page_count is None
    source.check_length(sample_database)


def test_missing(tmp_path):
    assert "SCPLN_DB" in refusal(tmp_path / "scpln.db", SourceMissingError)


def test_a_folder_of_the_path_is_a_file(tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(SourceError, match="cannot be reached: Not a directory"):
        source.inspect(tmp_path / "data" / "scpln.db")


def test_directory(tmp_path):
    (tmp_path / "scpln.db").mkdir()
    assert "not a regular file" in refusal(tmp_path / "scpln.db", SourceMissingError)


def test_a_fifo_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "scpln.db")
    refusal(tmp_path / "scpln.db", SourceMissingError)


def test_dangling_link(tmp_path):
    (tmp_path / "scpln.db").symlink_to(tmp_path / "elsewhere.db")
    refusal(tmp_path / "scpln.db", SourceMissingError)


def test_a_link_is_followed(tmp_path, sample_database):
    link = tmp_path / "link.db"
    link.symlink_to(sample_database)
    assert source.inspect(link).size_bytes == sample_database.stat().st_size


def test_empty(tmp_path):
    (tmp_path / "scpln.db").touch()
    assert "0 bytes" in refusal(tmp_path / "scpln.db", SourceEmptyError)


def test_text(tmp_path):
    (tmp_path / "scpln.db").write_text("-- a dump, not a database\n" * 1000)
    refusal(tmp_path / "scpln.db", NotADatabaseError)


def test_zeros(tmp_path):
    (tmp_path / "scpln.db").write_bytes(bytes(65536))
    refusal(tmp_path / "scpln.db", NotADatabaseError)


def test_random_pages_look_encrypted(tmp_path):
    (tmp_path / "scpln.db").write_bytes(random.Random(1).randbytes(16 * 4096))
    assert "looks encrypted" in refusal(tmp_path / "scpln.db", SourceEncryptedError)


@pytest.mark.parametrize("length", [16, 50, 99])
def test_truncated_header(sample_database, length):
    os.truncate(sample_database, length)
    assert f"{length} bytes" in refusal(sample_database, SourceTruncatedError)


def test_a_truncated_copy_is_noticed(sample_database):
    os.truncate(sample_database, sample_database.stat().st_size - 4096)
    with pytest.raises(SourceTruncatedError, match="248 pages of 4096 bytes, and there are 1011712 bytes"):
        source.check_length(sample_database)


@pytest.mark.parametrize("length", [0, 16, 99])
def test_a_copy_without_a_whole_header_is_no_database(sample_database, length):
    os.truncate(sample_database, length)
    with pytest.raises(NotADatabaseError):
        source.check_length(sample_database)


@as_root
def test_another_owner_is_named_with_the_way_out(sample_database):
    os.chown(sample_database, STRANGER, STRANGER)
    message = refusal(sample_database, SourceOwnerError)
    assert f"belongs to user #{STRANGER}" in message
    assert "sudo -u" in message


@as_root
def test_a_stranger_is_refused_and_leaves_nothing(sample_database, traversable):
    printed = inspected_by(STRANGER, sample_database)
    assert printed.startswith(f"SourceOwnerError: {sample_database}: belongs to user root")
    assert printed.count("\n") == 1
    assert names(sample_database.parent) == ["scpln.db"]


@as_root
def test_unreadable(sample_database, traversable):
    os.chown(sample_database, STRANGER, STRANGER)
    sample_database.chmod(0)
    assert inspected_by(STRANGER, sample_database) == (
        f"SourceError: {sample_database}: the database cannot be read: Permission denied\n"
    )


@as_root
def test_unreachable(sample_database, traversable):
    sample_database.parent.chmod(0o700)
    assert inspected_by(STRANGER, sample_database) == (
        f"SourceError: {sample_database}: the database cannot be reached: Permission denied\n"
    )


def test_the_connection_can_change_nothing(sample_database):
    with closing(source.connect(sample_database, 1.0)) as connection:
        for statement in ("DELETE FROM runs", "PRAGMA user_version = 7", "CREATE TABLE t (x)", "VACUUM"):
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                connection.execute(statement)
    assert names(sample_database.parent) == ["scpln.db"]


@pytest.mark.parametrize("name", ["a b.db", "100%.db", "what?.db", "#1.db", "データ.db"])
def test_any_file_name_can_be_connected_to(tmp_path, sample_database, name):
    path = sample_database.rename(tmp_path / name)
    with closing(source.connect(path, 1.0)) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone()[0] > 0


@pytest.fixture
def traversable(tmp_path: Path) -> None:
    """Let other users reach the test's folder, which pytest makes for its own user alone."""
    folder = tmp_path
    while folder.parent != folder and folder.stat().st_uid == os.geteuid() and folder.stat().st_mode & 0o001 == 0:
        folder.chmod(folder.stat().st_mode | 0o011)
        folder = folder.parent
