"""The note of the audit log's end, in the state folder, and the lock of those who append to the log.

The note is out of reach of whoever can only write to the log: without it nobody could tell that the last lines were
cut off, or that a forger has gone on with the chain.

The lock is a file of its own, since logrotate gives the log another name meanwhile and a lock on that one would keep
nobody out of the new one.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import AuditError
from scpln_backup.records.auditlog import NOTHING_BEFORE
from scpln_backup.support import files
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

_NOTE = "audit-chain.json"
_LOCK = "audit-chain.lock"
# Nothing in the note is secret, and one that root was killed over before giving it away must still be readable.
_NOTE_MODE = 0o644
_LOCK_SECONDS = 10.0
_LOOK_SECONDS = 0.02
_HASHES_KEPT = 100
_FACTS_KEPT = 500
_CATALOGS_KEPT = 20

_ROOM = "make room on its file system"
_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "a limit on the size of files (ulimit -f, LimitFSIZE=) is in the way",
    errno.ENOENT: "make its folder for the daemon's user: install -d -o scpln -g scpln -m 0750",
    errno.EROFS: "its file system is read-only: remount it, or add it to the unit's ReadWritePaths=",
    errno.ELOOP: "it is a symbolic link, which is not followed: put a file in its place, or change [audit] log",
    errno.EIO: "the disk may be failing, see: journalctl -k",
}
_OWNER = "run as root or as the daemon's user, to whom the file and its folder have to belong"


class Mark(msgspec.Struct, frozen=True):
    """A line that is about to be appended, and what it is made of."""

    hash: str
    catalog: str
    entry: int
    fact: str


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """The chain's end.

    `hashes` are those of the newest lines, oldest first; the last one is that of line `seq`, which ends at offset `end`
    of file number `file` of this chain. `entries` is the newest entry of each catalog that is in the log, `facts` are
    those of the newest lines that came from no outbox. `pending` are lines that may have been appended or not.
    `lost`: there was no note when this one was made, and there were lines.
    """

    chain: str
    seq: int = 0
    hashes: tuple[str, ...] = ()
    file: int = 0
    end: int = 0
    entries: dict[str, int] = {}
    facts: tuple[str, ...] = ()
    pending: tuple[Mark, ...] = ()
    lost: bool = False

    @property
    def hash(self) -> str:
        return self.hashes[-1] if self.hashes else NOTHING_BEFORE

    def with_entry(self, mark: Mark) -> Note:
        """`mark`'s entry, or fact, is in the log."""
        entries, facts = dict(self.entries), self.facts
        if mark.entry:
            newest = max(entries.pop(mark.catalog, 0), mark.entry)
            entries = dict([*entries.items(), (mark.catalog, newest)][-_CATALOGS_KEPT:])
        elif mark.fact:
            facts = (*facts, mark.fact)[-_FACTS_KEPT:]
        return msgspec.structs.replace(self, entries=entries, facts=facts)

    def rewound(self, catalog: str, entry: int) -> Note:
        """The newest entry of a catalog that was put back to an older copy, which gives ids anew from there."""
        return msgspec.structs.replace(self, entries=self.entries | {catalog: entry})

    def with_line(self, mark: Mark, file: int, end: int) -> Note:
        """`mark` is the chain's end; it was the first one pending."""
        return msgspec.structs.replace(
            self.with_entry(mark),
            seq=self.seq + 1,
            hashes=(*self.hashes, mark.hash)[-_HASHES_KEPT:],
            file=file,
            end=end,
            pending=self.pending[1:],
            lost=False,
        )


def read_note(state: Path) -> Note | None:
    """The note in the state folder; None when there is none, or none that this program wrote. AuditError."""
    path = state / _NOTE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Note)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        log.warning("%s is not what this program wrote (%s): the chain goes on from the log itself", path, error)
        return None
    except OSError as error:
        raise named(error, path) from error


def write_note(state: Path, note: Note) -> None:
    """Write the note durably. AuditError."""
    path = state / _NOTE
    try:
        files.write_durably(path, msgspec.json.encode(note) + b"\n", _NOTE_MODE)
        files.owned_like_folder(path)
    except OSError as error:
        raise named(error, path) from error


def sweep_notes(state: Path) -> None:
    """Remove what a kill has left of a note that was being written. Only while nobody else appends. AuditError."""
    try:
        for leftover in state.iterdir():
            if files.temporary_target(leftover.name) == _NOTE:
                leftover.unlink(missing_ok=True)
    except OSError as error:
        raise named(error, state) from error


@contextmanager
def held(state: Path, *, shared: bool = False) -> Iterator[None]:
    """Nobody else appends within the context. AuditError after ten seconds.

    `shared`, for who only reads: several may hold it so, and where nothing was ever appended nothing is made.
    """
    path = state / _LOCK
    try:
        fd = _opened_lock(path, may_make=not shared)
    except OSError as error:
        raise named(error, path) from error
    try:
        if fd is not None:
            _lock(fd, path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        if fd is not None:
            os.close(fd)


def _opened_lock(path: Path, *, may_make: bool) -> int | None:
    if not path.exists():
        if not may_make:
            return None
        with suppress(FileExistsError):
            files.create_empty(path)
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _lock(fd: int, path: Path, kind: int) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise AuditError(f"{path}: another process has kept it locked for {_LOCK_SECONDS:.0f} s") from None
            time.sleep(_LOOK_SECONDS)
        except OSError as error:
            raise named(error, path) from error


def named(error: OSError, path: Path) -> AuditError:
    """What the system refused about `path`, and what to do about it."""
    advice = _ADVICE.get(error.errno or 0, _OWNER)
    if error.errno == errno.ENOENT:
        advice = f"{advice} {path.parent}"
    return AuditError(f"{path}: {error.strerror or one_line(error)}; {advice}")
