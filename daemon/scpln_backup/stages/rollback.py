"""A copy of a database in rollback-journal mode. Must run in a process of its own: see `source.inspect`.

Whatever is done without the lock is believed only after the locked pass, which always reads the whole file: the file
change counter cannot shorten it, as a transaction that spilled and was rolled back leaves it unchanged.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from threading import Event, Lock
from typing import TYPE_CHECKING

import xxhash

from scpln_backup.errors import SourceBusyError
from scpln_backup.stages import source as live
from scpln_backup.stages.blocks import BLOCK
from scpln_backup.stages.copying import (
    PIECE,
    RETRY_PAUSE_SECONDS,
    BlockedTooLongError,
    Known,
    Limits,
    Progress,
    SnapshotFacts,
    SourceChangedError,
    Tempo,
    begin_read,
    fill,
    hashes,
    opened,
    same,
    write_all,
)
from scpln_backup.support import niceness
from scpln_backup.support.reflink import can_reflink, extents, reflink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCKED_PASSES = 3
_COPYING = 2  # the kernel has one write to a file at a time; the other reads meanwhile
_PIECES = BLOCK // PIECE
_SECONDS_PER_EXTENT = 100e-6  # of a reflink: four times what was measured
_CLONE_SHARE = 2  # a reflink may be expected to take half of the time that writers may be held up

OnChange = Callable[[int, memoryview], None]


def copy_rollback(path: Path, copy: Path, limits: Limits, progress: Progress, known: Known | None) -> SnapshotFacts:
    """See `snapshot.take`. Raises SourceChangedError when it has to begin anew, without the copy."""
    # The descriptor is opened before any connection and closed after it: closing it while SQLite holds its lock
    # would drop the lock.
    with opened(path, os.O_RDONLY) as src, opened(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL) as dst:
        source = _Source(path, src, limits)
        facts = _cloned(source, dst)
        if facts is None and known is not None:
            facts = _unchanged(source, known, Tempo(limits, progress))
        if facts is None:
            facts = _two_passes(source, dst, Tempo(limits, progress))
        return facts


class _DiffersError(Exception):
    """A piece is not what it was: the source is not the database that it was taken for."""


class _Hold:
    """The moment at which a lock was got, by the wall clock and by the one that only goes forward."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)
        self.began = time.monotonic()


class _Source:
    """The file of the live database, open; `blocked` is how long its writers were held up at the longest."""

    def __init__(self, path: Path, descriptor: int, limits: Limits) -> None:
        self.path, self.descriptor, self.limits = path, descriptor, limits
        self.blocked = 0.0

    @contextmanager
    def held(self) -> Iterator[_Hold]:
        """Hold a SHARED lock: writers may prepare their transactions, none can commit or write to the file."""
        with closing(live.connect(self.path, self.limits.wait_seconds)) as connection:
            begin_read(connection, self.limits.wait_seconds)
            hold = _Hold()
            try:
                if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                    raise SourceChangedError
                if not os.path.samestat(os.fstat(self.descriptor), self.path.stat()):
                    raise SourceChangedError  # the lock is on another file than the one being copied
                yield hold
            finally:
                connection.rollback()
                self.blocked = max(self.blocked, time.monotonic() - hold.began)

    def compare(self, digests: list[bytes], began: float, differs: OnChange) -> None:
        """Read the whole file on all cores, and hand over what is not as `digests` say; they are brought up to date.

        Under the lock. Gives up when `differs` raises.  Raises BlockedTooLongError when it has lasted for as long as
        writers may be held up.
        """
        size = os.fstat(self.descriptor).st_size
        count = -(-size // PIECE)
        del digests[count:]
        digests.extend([b""] * (count - len(digests)))
        deadline = began + self.limits.block_seconds

        def compare(index: int, buffer: memoryview) -> None:
            if time.monotonic() > deadline:
                raise BlockedTooLongError
            piece = buffer[: fill(self.descriptor, buffer, index * PIECE)]
            digest = xxhash.xxh3_128_digest(piece)
            if digest != digests[index]:
                differs(index, piece)
                digests[index] = digest

        _share_out(count, self.limits.workers, PIECE, compare)


def _cloned(source: _Source, dst: int) -> SnapshotFacts | None:
    """The copy as a reflink, where the file system can: an instant's work under the lock.

    Not where the bandwidth is limited: who reads the copy reads the live database's blocks.
    """
    if source.limits.bytes_per_second or not can_reflink(source.descriptor, dst):
        return None
    os.ftruncate(dst, 0)
    os.fdatasync(source.descriptor)  # which a reflink does first: not left for the time of the lock
    pieces = extents(source.descriptor)
    if pieces is None or pieces * _SECONDS_PER_EXTENT * _CLONE_SHARE > source.limits.block_seconds:
        return None
    with source.held() as hold:
        if not reflink(source.descriptor, dst):
            return None
        os.ftruncate(dst, os.fstat(source.descriptor).st_size)
    return SnapshotFacts(hold.at, source.blocked)


def _unchanged(source: _Source, known: Known, tempo: Progress) -> SnapshotFacts | None:
    """The facts of an instant at which the source was `known`, without copying it; None if it is not."""
    with niceness.background_disk():
        digests = same(source.descriptor, known, tempo)
    if digests is None:
        return None

    def differs(_index: int, _piece: memoryview) -> None:
        raise _DiffersError

    with source.held() as hold:
        if os.fstat(source.descriptor).st_size != known.size_bytes:
            return None
        try:
            source.compare(digests, hold.began, differs)
        except (BlockedTooLongError, _DiffersError):
            return None
    return SnapshotFacts(hold.at, source.blocked, unchanged=True)


def _two_passes(source: _Source, dst: int, tempo: Progress) -> SnapshotFacts:
    """Copy without the lock, then rewrite under it what has changed since."""
    with niceness.background_disk():
        digests = _first_pass(source, dst, tempo)
    rewritten: list[int] = []

    def rewrite(index: int, piece: memoryview) -> None:
        write_all(dst, piece, index * PIECE)
        rewritten.append(index)

    for _ in range(_LOCKED_PASSES):
        with source.held() as hold:
            try:
                source.compare(digests, hold.began, rewrite)
                os.ftruncate(dst, os.fstat(source.descriptor).st_size)
            except BlockedTooLongError:
                done = False
            else:
                done = True
        if done:
            return SnapshotFacts(hold.at, source.blocked, pieces_rewritten=len(set(rewritten)))
        time.sleep(RETRY_PAUSE_SECONDS)  # let the writers that waited have their turn
    msg = (
        f"{source.path}: a consistent copy needs the database held for longer than {source.limits.block_seconds:g} s, "
        f"which its writers would feel; raise [backup] writer_block_limit_seconds, or switch the database to WAL mode"
    )
    raise SourceBusyError(msg)


def _first_pass(source: _Source, dst: int, tempo: Progress) -> list[bytes]:
    """Copy the file as it is, torn or not; return the hash of each piece as it was written.

    What was not there any more has none: the locked pass settles it, and the length.
    """
    total = os.fstat(source.descriptor).st_size
    digests = [b""] * -(-total // PIECE)
    done = 0
    telling = Lock()

    def copy(index: int, buffer: memoryview) -> None:
        nonlocal done
        block = buffer[: fill(source.descriptor, buffer, index * BLOCK)]
        hashed = hashes(block)
        digests[index * _PIECES : index * _PIECES + len(hashed)] = hashed
        write_all(dst, block, index * BLOCK)
        with telling:
            done += len(block)
            tempo(done, total)

    _share_out(-(-total // BLOCK), min(source.limits.workers, _COPYING), BLOCK, copy)
    return digests


def _share_out(count: int, workers: int, size: int, do: Callable[[int, memoryview], None]) -> None:
    """Have something done for each index below `count`, by so many threads, each with a buffer of `size` bytes.

    The calling thread is one of them. The first that fails ends the others.
    """
    given_up = Event()

    def work(worker: int) -> None:
        buffer = memoryview(bytearray(size))
        try:
            for index in range(worker, count, workers):
                if given_up.is_set():
                    return
                do(index, buffer)
        except BaseException:
            given_up.set()
            raise

    with ThreadPoolExecutor(workers) as pool:
        others = [pool.submit(work, worker) for worker in range(1, workers)]
        work(0)
        for other in others:
            other.result()
