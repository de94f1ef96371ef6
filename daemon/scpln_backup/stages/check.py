"""Is the snapshot a sound database, and what is in it?"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import BackupError, SourceCorruptError
from scpln_backup.model import Fingerprint
from scpln_backup.stages import source

if TYPE_CHECKING:
    from pathlib import Path

_PROBLEMS_SHOWN = 3
# The most that Debian's SQLite maps of a file.
_MAPPED_BYTES = 2**31 - 65536
# UnicodeDecodeError: where SQLite's own message quotes damaged text.
_DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)


class Content(msgspec.Struct, frozen=True):
    """A fingerprint without the file's own hash and size, which the compression learns as it reads."""

    page_size: int
    page_count: int
    schema_sha256: str
    user_version: int
    application_id: int
    tables: dict[str, int | None]
    alembic_version: str | None

    def fingerprint(self, sha256: str, size_bytes: int) -> Fingerprint:
        return Fingerprint(
            sha256=sha256,
            size_bytes=size_bytes,
            page_size=self.page_size,
            page_count=self.page_count,
            schema_sha256=self.schema_sha256,
            user_version=self.user_version,
            application_id=self.application_id,
            tables=self.tables,
            alembic_version=self.alembic_version,
        )


def examine(copy: Path, *, mapped: bool = False) -> Content:
    """Check a database that nobody writes, and take its content's fingerprint.

    `mapped` has SQLite map the file into memory, which takes a third less time. An error of the disk is a SIGBUS then:
    only for a process that may die of it.
    Raises the SourceError of what was found, for the caller to say in which file, and BackupError when the check
    itself could not be done.
    """
    source.check_length(copy)
    # immutable: no locks, no -wal or -shm beside the copy, and no recovery, which a finished copy never needs.
    # mode=ro: without it SQLite would make an empty file where the copy is gone.
    with closing(sqlite3.connect(source.uri(copy, "mode=ro&immutable=1"), uri=True)) as connection:
        try:
            if mapped:
                connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
            _integrity(connection)
            return _content(connection)
        except sqlite3.OperationalError as error:  # reading failed, which says nothing about what is there
            raise BackupError(f"{copy}: cannot be checked: SQLite says: {error}") from error
        except _DAMAGE as error:
            raise SourceCorruptError(f"damaged: SQLite says: {error}") from error


def examine_live(path: Path) -> None:
    """integrity_check of a database that may have a WAL of its own; raise SourceCorruptError with what was found."""
    with closing(source.connect(path, wait_seconds=0)) as connection:
        try:
            _integrity(connection)
        except _DAMAGE as error:
            raise SourceCorruptError(f"{path}: damaged: SQLite says: {error}") from error


def _integrity(connection: sqlite3.Connection) -> None:
    problems = [row[0] for row in connection.execute(f"PRAGMA integrity_check({_PROBLEMS_SHOWN})")]
    if problems != ["ok"]:
        lines = [line for problem in problems for line in problem.splitlines() if not line.startswith("***")]
        found = "; ".join(lines[:_PROBLEMS_SHOWN])
        raise SourceCorruptError(f"damaged: integrity_check says: {found}")


def _content(connection: sqlite3.Connection) -> Content:
    schema = connection.execute(
        "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name, tbl_name"
    ).fetchall()
    tables = [(name, sql) for kind, name, _, sql in schema if kind == "table" and not name.startswith("sqlite_")]
    return Content(
        page_size=_pragma(connection, "page_size"),
        page_count=_pragma(connection, "page_count"),
        schema_sha256=hashlib.sha256(msgspec.json.encode(schema)).hexdigest(),
        user_version=_pragma(connection, "user_version"),
        application_id=_pragma(connection, "application_id"),
        tables={name: _count(connection, name, sql) for name, sql in tables},
        alembic_version=_alembic(connection, {name for name, _ in tables}),
    )


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _count(connection: sqlite3.Connection, name: str, sql: str) -> int | None:
    if sql.upper().startswith("CREATE VIRTUAL"):
        return None  # its module may not be loaded here; the tables that hold its rows are counted
    query = f"SELECT count(*) FROM {_quoted(name)}"  # noqa: S608 - an identifier cannot be bound; it is quoted
    return int(connection.execute(query).fetchone()[0])


def _alembic(connection: sqlite3.Connection, tables: set[str]) -> str | None:
    if "alembic_version" not in tables:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version LIMIT 1").fetchone()
    return None if row is None or row[0] is None else str(row[0])
