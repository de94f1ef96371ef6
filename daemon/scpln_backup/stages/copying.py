"""What all ways of copying the live database have in common."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import contextmanager
from datetime import datetime  # noqa: TC003 - msgspec reads the annotations at run time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec
import xxhash

from scpln_backup.support.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
R = TypeVar("R")

PIECE = 256 * 1024
RETRY_PAUSE_SECONDS = 0.2

Progress = Callable[[int, int], None]


class Limits(msgspec.Struct, frozen=True):
    """`wait_seconds`: how long a lock or a hot journal of the source is waited for.

    `block_seconds`: how long a writer of the source may be held up at a stretch. `bytes_per_second`: how fast the
    source is read while nobody waits for it, 0 for as fast as can be.
    """

    wait_seconds: float
    block_seconds: float
    workers: int
    bytes_per_second: float = 0.0


class SnapshotFacts(msgspec.Struct, frozen=True):
    """`taken_at`: the instant of consistency. `wal_growth_bytes`: how far the live WAL grew meanwhile.

    `unchanged`: the source was the known database at that instant, byte for byte, and no copy was left.
    """

    taken_at: datetime
    writer_blocked_seconds: float
    pieces_rewritten: int = 0
    wal_growth_bytes: int = 0
    unchanged: bool = False


class Known(Protocol):
    """A database that the source may still be."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def sha256(self) -> str: ...

    def each(self, function: Callable[[int, bytes | bytearray], T]) -> Iterator[T]:
        """What `function` makes of each block and its offset, on all cores, in order.

        Blocks are whole pieces, but for the last.  ArtifactError when they turn out not to be those of the database.
        """


class BlockedTooLongError(Exception):
    """The locked pass ran into its limit; what it had compared by then is up to date."""


class SourceChangedError(Exception):
    """The journal mode was switched, or the file replaced by another, while the copy was made."""


class Tempo:
    """Tells the progress of a copy, and holds it back to the speed allowed."""

    def __init__(self, limits: Limits, progress: Progress) -> None:
        self._pace = Pace(limits.bytes_per_second)
        self._progress = progress
        self._done = 0

    def __call__(self, done: int, total: int) -> None:
        delay = self._pace.delay(done - self._done, time.monotonic())
        self._done = done
        self._progress(done, total)
        if delay:
            time.sleep(delay)


def begin_read(connection: sqlite3.Connection, wait_seconds: float) -> None:
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
            time.sleep(RETRY_PAUSE_SECONDS)
        else:
            return


def same(descriptor: int, known: Known, tempo: Progress) -> list[bytes] | None:
    """The hashes of the file's pieces if its bytes are those of `known`; None at the first that is not."""
    if os.fstat(descriptor).st_size != known.size_bytes:
        return None

    def compare(offset: int, block: bytes | bytearray) -> tuple[bytes, list[bytes]] | None:
        found = read_at(descriptor, len(block), offset)
        return (found, hashes(found)) if found == block else None

    whole = hashlib.sha256()
    digests: list[bytes] = []
    done = 0
    for compared in known.each(compare):
        if compared is None:
            return None
        block, pieces = compared
        whole.update(block)
        digests += pieces
        done += len(block)
        tempo(done, known.size_bytes)
    return digests if (done, whole.hexdigest()) == (known.size_bytes, known.sha256) else None


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        # Read once and then not soon again: that must not count as use, and push out of memory what the application
        # does use. What is cached stays cached, and is there for the locked pass.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_NOREUSE)
        yield descriptor
    finally:
        os.close(descriptor)


def fill(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Read until the buffer is full or the file ends; return how many bytes there are."""
    have = 0
    while have < len(buffer):
        got = _reading(descriptor, os.preadv, [buffer[have:]], offset + have)
        if got == 0:
            break
        have += got
    return have


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """So many bytes, or what there is of them before the end of the file."""
    found = _reading(descriptor, os.pread, size, offset)
    while len(found) < size and (more := _reading(descriptor, os.pread, size - len(found), offset + len(found))):
        found += more
    return found


def _reading(descriptor: int, function: Callable[[int, T, int], R], what: T, offset: int) -> R:
    try:
        return function(descriptor, what, offset)
    except OSError as error:
        error.filename = str(Path(f"/proc/self/fd/{descriptor}").readlink())  # or it would be blamed on the copy
        raise


def hashes(data: bytes | memoryview) -> list[bytes]:
    """The hash of each piece."""
    view = memoryview(data)
    return [xxhash.xxh3_128_digest(view[at : at + PIECE]) for at in range(0, len(data), PIECE)]


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
