"""A consistent copy of the live database at one instant, made without being felt by its writers.

Rollback-journal source: two passes, like a live migration.  The first copies the file with no lock at all and
remembers a hash of every piece; the second, under one SHARED lock, reads the file again on all cores, rewrites the
pieces that differ, and lets go.  A writer waits for the second pass only.

WAL source: SQLite's own backup with one read transaction held open throughout.  The pinned snapshot makes it
immune to writers (it never starts over), writers are never blocked, and the live WAL is never checkpointed.

Must run in a process of its own: see `source.inspect` about POSIX locks.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import xxhash

from scpln_backup.errors import SourceBusyError, SourceError, from_os
from scpln_backup.stages import source as live

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 256 * 1024
_LOCKED_PASSES = 3
_RETRY_PAUSE_SECONDS = 0.2
_WAL_PAGES_PER_STEP = 1024
_WRITE_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR_WRITE: errno.EIO,
    sqlite3.SQLITE_IOERR_TRUNCATE: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EROFS,
}

Progress = Callable[[int, int], None]


class Limits(msgspec.Struct, frozen=True):
    """`wait_seconds`: how long a lock or a hot journal of the source is waited for.

    `block_seconds`: how long a writer of the source may be held up at a stretch.
    """

    wait_seconds: float
    block_seconds: float
    workers: int


class SnapshotFacts(msgspec.Struct, frozen=True):
    """`taken_at`: the instant of consistency. `wal_growth_bytes`: how far the live WAL grew meanwhile."""

    taken_at: datetime
    writer_blocked_seconds: float
    pieces_rewritten: int = 0
    wal_growth_bytes: int = 0


class _BlockedTooLongError(Exception):
    """The locked pass ran into its limit; what it had compared by then is up to date."""


class _SourceChangedError(Exception):
    """The journal mode was switched, or the file replaced by another, while the copy was made."""


def take(path: Path, copy: Path, limits: Limits, progress: Progress) -> SnapshotFacts:
    """Copy the live database at `path` to the new file `copy`; raise SourceError when that cannot be done."""
    for _ in range(_LOCKED_PASSES):
        facts = live.inspect(path)
        method = _copy_wal if facts.header.wal else _copy_rollback
        try:
            return method(path, copy, limits, progress)
        except _SourceChangedError:
            copy.unlink(missing_ok=True)
        except sqlite3.Error as error:
            if error.sqlite_errorcode in _WRITE_ERRORS:  # only the copy is written
                raise from_os(OSError(_WRITE_ERRORS[error.sqlite_errorcode], str(error), str(copy))) from error
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CORRUPT:
                _blame_length(path)  # the likeliest damage has a name; no connection is open any more
            raise live.translate(error, path, limits.wait_seconds) from error
    msg = f"{path}: its journal mode, or the file, keeps changing; let the application settle, then back up again"
    raise SourceError(msg)


def _blame_length(path: Path) -> None:
    try:
        live.check_length(path)
    except SourceError as error:
        raise live.blamed(path, error) from error


def _copy_rollback(path: Path, copy: Path, limits: Limits, progress: Progress) -> SnapshotFacts:
    # The descriptor is opened before the connection and closed after it: closing it while SQLite holds its lock
    # would drop the lock.
    with _descriptor(path, os.O_RDONLY) as src, _descriptor(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL) as dst:
        digests = _first_pass(src, dst, progress)
        blocked = 0.0
        with closing(live.connect(path, limits.wait_seconds)) as connection:
            for _ in range(_LOCKED_PASSES):
                with _shared_lock(connection, limits.wait_seconds):
                    if not os.path.samestat(os.fstat(src), path.stat()):
                        raise _SourceChangedError  # the lock is on another file than the one being copied
                    taken_at = datetime.now(UTC)
                    began = time.monotonic()
                    try:
                        rewritten = _locked_pass(src, dst, digests, limits, began)
                    except _BlockedTooLongError:
                        rewritten = None
                blocked = max(blocked, time.monotonic() - began)
                if rewritten is not None:
                    return SnapshotFacts(taken_at, blocked, pieces_rewritten=rewritten)
                time.sleep(_RETRY_PAUSE_SECONDS)  # let the writers that waited have their turn
    msg = (
        f"{path}: a consistent copy needs the database held for longer than {limits.block_seconds:g} s, which its "
        f"writers would feel; raise [backup] writer_block_limit_seconds, or switch the database to WAL mode"
    )
    raise SourceBusyError(msg)


@contextmanager
def _descriptor(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _first_pass(src: int, dst: int, progress: Progress) -> list[bytes]:
    """Copy the file as it is, torn or not; return the hash of each piece as it was written."""
    total = os.fstat(src).st_size
    digests: list[bytes] = []
    buffer = memoryview(bytearray(PIECE))
    offset = 0
    while offset < total:
        piece = buffer[: _fill(src, buffer, offset)]
        if not piece:
            break  # it shrank meanwhile; the locked pass settles the length
        _write_all(dst, piece, offset)
        digests.append(xxhash.xxh3_128_digest(piece))
        offset += len(piece)
        progress(offset, total)
        if len(piece) < PIECE:
            break
    return digests


def _locked_pass(src: int, dst: int, digests: list[bytes], limits: Limits, began: float) -> int:
    """Bring the copy up to date with the source, which nobody can change now; return the pieces rewritten.

    Always the whole file: the file change counter cannot shorten it, as a transaction that spilled and was rolled
    back leaves it unchanged.
    """
    size = os.fstat(src).st_size
    count = -(-size // PIECE)
    del digests[count:]
    digests.extend([b""] * (count - len(digests)))
    deadline = began + limits.block_seconds

    def compare(worker: int) -> int:
        buffer = memoryview(bytearray(PIECE))
        rewritten = 0
        for index in range(worker, count, limits.workers):
            if time.monotonic() > deadline:
                raise _BlockedTooLongError
            piece = buffer[: _fill(src, buffer, index * PIECE)]
            digest = xxhash.xxh3_128_digest(piece)
            if digest != digests[index]:
                _write_all(dst, piece, index * PIECE)
                digests[index] = digest
                rewritten += 1
        return rewritten

    with ThreadPoolExecutor(limits.workers) as pool:
        rewritten = sum(pool.map(compare, range(limits.workers)))
    os.ftruncate(dst, size)
    return rewritten


@contextmanager
def _shared_lock(connection: sqlite3.Connection, wait_seconds: float) -> Iterator[None]:
    """Hold a SHARED lock: writers may prepare their transactions, none can commit or write to the file."""
    _begin_read(connection, wait_seconds)
    try:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            raise _SourceChangedError
        yield
    finally:
        connection.rollback()


def _begin_read(connection: sqlite3.Connection, wait_seconds: float) -> None:
    """Start a read transaction. SQLite waits for locks itself; a hot journal is looked at again until the limit."""
    deadline = time.monotonic() + wait_seconds
    while True:
        connection.execute("BEGIN")
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.OperationalError as error:
            connection.rollback()
            hot = error.sqlite_errorcode == sqlite3.SQLITE_READONLY_ROLLBACK
            if not hot or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_PAUSE_SECONDS)
        else:
            return


def _copy_wal(path: Path, copy: Path, limits: Limits, progress: Progress) -> SnapshotFacts:
    wal = path.with_name(path.name + "-wal")
    with closing(live.connect(path, limits.wait_seconds)) as connection:
        _begin_read(connection, limits.wait_seconds)
        taken_at = datetime.now(UTC)
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            raise _SourceChangedError
        before = wal.stat().st_size
        page_size = connection.execute("PRAGMA page_size").fetchone()[0]

        def step(_status: int, remaining: int, total: int) -> None:
            progress((total - remaining) * page_size, total * page_size)

        os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(copy, isolation_level=None)) as target:
            # The copy is thrown away if anything goes wrong: no journal of its own, no waiting for the disk.
            target.execute("PRAGMA journal_mode = OFF")
            target.execute("PRAGMA synchronous = OFF")
            connection.backup(target, pages=_WAL_PAGES_PER_STEP, progress=step)
        growth = max(0, wal.stat().st_size - before) if wal.exists() else 0
        connection.rollback()
    return SnapshotFacts(taken_at, 0.0, wal_growth_bytes=growth)


def _fill(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Read until the buffer is full or the file ends; return how many bytes there are."""
    have = 0
    while have < len(buffer):
        try:
            got = os.preadv(descriptor, [buffer[have:]], offset + have)
        except OSError as error:
            error.filename = str(Path(f"/proc/self/fd/{descriptor}").readlink())  # or it would be blamed on the copy
            raise
        if got == 0:
            break
        have += got
    return have


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
