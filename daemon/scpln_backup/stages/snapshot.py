"""A consistent copy of the live database at one instant, made without being felt by its writers.

Rollback-journal source: two passes, like a live migration.  The first copies the file with no lock at all and
remembers a hash of every piece; the second, under one SHARED lock, reads the file again on all cores, rewrites the
pieces that differ, and lets go.  A writer waits for the second pass only.  Where the file system can share blocks a
reflink under the lock takes the place of both.

WAL source: SQLite's own backup with one read transaction held open throughout.  The pinned snapshot makes it
immune to writers (it never starts over), writers are never blocked, and the live WAL is never checkpointed.

A source that is still the database it was the last time needs no copy: the first pass compares instead of copying,
and gives up at the first byte that differs, which in rollback-journal mode is on the first page.

Must run in a process of its own: see `source.inspect` about POSIX locks.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import ArtifactError, SourceBusyError, SourceError, from_os
from scpln_backup.stages import source as live
from scpln_backup.stages.copying import (
    PIECE,
    Known,
    Limits,
    Progress,
    SnapshotFacts,
    SourceChangedError,
    Tempo,
    begin_read,
    opened,
    same,
)
from scpln_backup.stages.rollback import copy_rollback
from scpln_backup.support import niceness
from scpln_backup.support.text import human_bytes

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PIECE", "Known", "Limits", "Progress", "SnapshotFacts", "take"]

_TRIES = 3
_WAL_PAGES_PER_STEP = 1024
_WAL_SHARE_OF_FREE = 2  # the live WAL may take a half of what is free on its disk while it is copied
_WRITE_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR_WRITE: errno.EIO,
    sqlite3.SQLITE_IOERR_TRUNCATE: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
}


def take(path: Path, copy: Path, limits: Limits, progress: Progress, known: Known | None = None) -> SnapshotFacts:
    """Copy the live database at `path` to the new file `copy`; raise SourceError when that cannot be done.

    If it is `known`, byte for byte at the instant that the facts name, they say `unchanged` and there is no copy.
    Raises the ArtifactError of `known` when that turns out to be damaged; then there is no copy either.
    """
    for _ in range(_TRIES):
        method = _copy_wal if live.inspect(path).header.wal else copy_rollback
        try:
            facts = method(path, copy, limits, progress, known)
            if known is not None and not facts.unchanged:
                facts = msgspec.structs.replace(facts, unchanged=_holds(copy, known))
        except (SourceChangedError, ArtifactError) as error:
            copy.unlink(missing_ok=True)
            if isinstance(error, ArtifactError):
                raise
        except sqlite3.Error as error:
            if error.sqlite_errorcode in _WRITE_ERRORS:  # only the copy is written
                raise from_os(OSError(_WRITE_ERRORS[error.sqlite_errorcode], str(error), str(copy))) from error
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CORRUPT:
                _blame_length(path)  # the likeliest damage has a name; no connection is open any more
            raise live.translate(error, path, limits.wait_seconds) from error
        else:
            if facts.unchanged:
                copy.unlink()
            return facts
    msg = f"{path}: its journal mode, or the file, keeps changing; let the application settle, then back up again"
    raise SourceError(msg)


def _holds(copy: Path, known: Known) -> bool:
    with opened(copy, os.O_RDONLY) as descriptor:
        return same(descriptor, known, lambda _done, _total: None) is not None


def _blame_length(path: Path) -> None:
    try:
        live.check_length(path)
    except SourceError as error:
        raise live.blamed(path, error) from error


def _copy_wal(path: Path, copy: Path, limits: Limits, progress: Progress, _known: Known | None) -> SnapshotFacts:
    wal = path.with_name(path.name + "-wal")
    tempo = Tempo(limits, progress)
    with ExitStack() as stack:
        connection = stack.enter_context(closing(live.connect(path, limits.wait_seconds)))
        begin_read(connection, limits.wait_seconds)  # where it recovers the WAL an application may be waiting
        stack.enter_context(niceness.background_disk())
        taken_at = datetime.now(UTC)
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            raise SourceChangedError
        before = _size(wal)
        bound = shutil.disk_usage(path.parent).free // _WAL_SHARE_OF_FREE
        page_size = connection.execute("PRAGMA page_size").fetchone()[0]

        def step(_status: int, remaining: int, total: int) -> None:
            # Until the copy is made no checkpoint can begin the WAL anew, and the disk that it fills is the
            # application's.
            if _size(wal) - before > bound:
                raise SourceBusyError(
                    f"{path}: its -wal file grew by more than {human_bytes(bound)} while the copy was made, half of "
                    f"what was free on its disk; make room there, or back up when less is written"
                )
            tempo((total - remaining) * page_size, total * page_size)

        os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(copy, isolation_level=None)) as target:
            # The copy is thrown away if anything goes wrong: no journal of its own, no waiting for the disk.
            target.execute("PRAGMA journal_mode = OFF")
            target.execute("PRAGMA synchronous = OFF")
            connection.backup(target, pages=_WAL_PAGES_PER_STEP, progress=step)
        growth = max(0, _size(wal) - before)
        connection.rollback()
    return SnapshotFacts(taken_at, 0.0, wal_growth_bytes=growth)


def _size(wal: Path) -> int:
    try:
        return wal.stat().st_size
    except FileNotFoundError:  # the last connection of the application may take it away
        return 0
