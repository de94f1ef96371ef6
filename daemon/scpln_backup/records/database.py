"""The catalog's file: connections to it, what its errors mean, and what happens when it is damaged.

Rollback-journal mode: a reader then needs nothing but permission to read, where WAL would have it create files,
of its own user, that the daemon may not write to.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import CatalogError
from scpln_backup.records import schema
from scpln_backup.support import files
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

BUSY_SECONDS = 10.0

_PRIMARY = 0xFF  # an extended result code has its primary one in the low byte (sqlite.org/rescode.html)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SAME_FILE_SET = ("-journal", "-wal", "-shm")

_RESTART = "restart the daemon: it moves a damaged catalog aside and fills a new one from the manifests"
_PERMISSIONS = "check the owner and mode of the file and its folder, and run as the daemon's user"
_ROOM = "make room on its file system"
_DISK = "the disk may be failing; see: journalctl -k"
_ADVICE = {
    sqlite3.SQLITE_CORRUPT: _RESTART,
    sqlite3.SQLITE_NOTADB: _RESTART,
    sqlite3.SQLITE_FULL: _ROOM,
    sqlite3.SQLITE_BUSY: f"another process has kept it locked for {BUSY_SECONDS:.0f} s; try again",
    sqlite3.SQLITE_CANTOPEN: _PERMISSIONS,
    sqlite3.SQLITE_PERM: _PERMISSIONS,
    sqlite3.SQLITE_READONLY: _PERMISSIONS,
    sqlite3.SQLITE_IOERR: _DISK,
}
_OS_ADVICE = {errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM, errno.EIO: _DISK}


@contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Raise what SQLite or the system refuses as a CatalogError that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        advice = _ADVICE.get(_code(error), "see the daemon's log")
        raise CatalogError(f"{path}: {one_line(error)}; {advice}") from error
    except (ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise CatalogError(
            f"{path}: holds what no version wrote ({one_line(error)}); move it away, then {_RESTART}"
        ) from error
    except OSError as error:
        advice = _OS_ADVICE.get(error.errno or 0, _PERMISSIONS)
        raise CatalogError(f"{path}: {error.strerror or error}; {advice}") from error


def _code(error: sqlite3.Error) -> int:
    # Errors of the Python module itself carry no code.
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY


@contextmanager
def connected(path: Path, *, for_reading: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection that lives as long as the context; without a COMMIT everything is rolled back.

    Readers connect for writing too, with writing forbidden: SQLite falls back by itself where they may not
    write (open(2) in os_unix.c), and where they may it can roll back what a killed writer left. With mode=ro
    everyone would be refused until the daemon is back.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        connection.execute("PRAGMA query_only = ON" if for_reading else "PRAGMA synchronous = FULL")
        yield connection


def prepare(path: Path, now: datetime) -> tuple[bool, str | None]:
    """Make the catalog usable: created, migrated, or replaced when it is damaged.

    Returns whether it is a new one, and what was done about damage (None: there was none).
    """
    files.make_folder(path.parent)
    with _alone_in(path.parent):
        damage = _damage(path)
        replaced = f"{damage}: moved to {_move_aside(path, now)}" if damage else None
        # SQLite would give a new file the umask's mode and, when root makes it, root as its owner. A journal takes
        # both from the database (findCreateFileMode and robustFchown in os_unix.c).
        # An old file is not opened here: closing it would drop the locks that a connection of another thread has
        # on it (sqlite.org/howtocorrupt.html, 2.2).
        if not path.exists():
            files.create_empty(path)
        with connected(path) as connection:
            schema.version_of(connection, path)
            connection.execute("PRAGMA journal_mode = DELETE")
            is_new = schema.migrate(connection, path, now)
        files.fsync_directory(path.parent)
    return is_new, replaced


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time prepares the catalog, or a second one would move the first one's new file aside."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _damage(path: Path) -> str | None:
    """What is wrong with the content of the file; None for a sound or a missing one.

    integrity_check reports a page that could not be read like one with nonsense in it. So when it complains all
    pages are read by a backup, where an error of the disk raises, and it is asked once more.
    """
    if _complaint(path) is None:
        return None
    _read_every_page(path)
    return _complaint(path)


def _complaint(path: Path) -> str | None:
    if not path.exists():
        return None
    try:
        with connected(path, for_reading=True) as connection:
            (answer,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        _raise_unless_damage(error)
        return one_line(error)
    return None if answer == "ok" else " ".join(str(answer).split())


def _read_every_page(path: Path) -> None:
    with connected(path, for_reading=True) as connection, closing(sqlite3.connect(":memory:")) as memory:
        try:
            connection.backup(memory)
        except sqlite3.DatabaseError as error:
            _raise_unless_damage(error)


def _raise_unless_damage(error: sqlite3.DatabaseError) -> None:
    """Busy, full, an I/O error or missing permission say nothing about the content."""
    if _code(error) not in _DAMAGED:
        raise error


def _move_aside(path: Path, now: datetime) -> Path:
    """Rename the damaged file and what belongs to it, journals first.

    A journal that stayed behind after a crash in between would be rolled back into the new catalog; a database
    that stayed is found damaged again.
    """
    stem = f"{path.name}.damaged-{now:%Y%m%d_%H%M%S}"
    names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    aside = next(target for target in map(path.with_name, names) if not target.exists())
    for ending in (*_SAME_FILE_SET, ""):
        with suppress(FileNotFoundError):
            files.publish(path.with_name(path.name + ending), aside.with_name(aside.name + ending))
    files.fsync_directory(path.parent)
    return aside
