"""Appending to the audit log, so that the chain has one end, whoever appends and whatever kills them.

Before lines are appended the note in the state folder says which ones will be (`pending`), afterwards that they are
there. What stands in the file behind the last line noted is none of ours, whatever it looks like, and the next line
says so (`foreign_bytes`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from scpln_backup.errors import AuditError
from scpln_backup.records import auditfiles
from scpln_backup.records.auditfiles import legible
from scpln_backup.records.auditlog import LOST, Line, Record, compose, parse, sealing
from scpln_backup.records.auditnote import Mark, Note, held, named, read_note, sweep_notes, write_note
from scpln_backup.support import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from scpln_backup.records.auditfiles import LogFile

_LOG_MODE = 0o640
_AT_ONCE = 100
_TRIES = 5
_CHAIN_BYTES = 4
_BLOCK = 1 << 16


class Chain:
    """The audit log at `path` of one database, with its note in the folder `state`."""

    def __init__(self, path: Path, state: Path, *, database: str, environment: str, host: str) -> None:
        self._path = path
        self._state = state
        self._place = {"database": database, "environment": environment, "host": host}

    def note(self) -> Note | None:
        """The chain's end as it was noted last, without waiting for anybody. AuditError."""
        return read_note(self._state)

    @contextmanager
    def appending(self) -> Iterator[Appender]:
        """To append, alone. AuditError when nothing can be appended; then nothing of it counts as appended."""
        with held(self._state):
            try:
                fd = _open(self._path)
            except OSError as error:
                raise named(error, self._path) from error
            try:
                appender = Appender(self._path, self._state, self._place, fd)
                appender.settle()
                yield appender
            except OSError as error:
                raise named(error, self._path) from error
            finally:
                os.close(fd)


class Appender:
    """The log, open and locked. `note` is how far it is."""

    def __init__(self, path: Path, state: Path, place: dict[str, str], fd: int) -> None:
        self._path = path
        self._state = state
        self._place = place
        self._fd = fd
        self._own_until = 0  # what stands in this file from here on is none of ours; 0: nothing in it is
        self.note = Note(chain="")

    def settle(self) -> None:
        """Find the chain's end: as it was noted, and by what is there of the lines that were pending."""
        sweep_notes(self._state)
        noted = read_note(self._state)
        if noted is not None:
            self.note = noted
            if not noted.pending and self._ends_here():
                self._own_until = noted.end
                return
        with auditfiles.opened(self._path) as found:
            if noted is None:
                self.note = self._remade(found)
            self._search(found)
        self.note = msgspec.structs.replace(self.note, pending=())
        if self.note != noted:
            os.fsync(self._fd)
            write_note(self._state, self.note)

    def _search(self, found: Sequence[LogFile]) -> None:
        """Find in the files the last line that was noted, and those of the pending ones that are there."""
        current = [file for file in found if file.path == self._path]
        if self._ends_here():
            self._own_until = self.note.end
        else:  # it was rotated, or somebody has changed it
            for file in found:
                if file not in current:
                    self._take_pending(file)
            self._own_until = max((self._last_own(file) for file in current), default=0)
        for file in current:
            self._take_pending(file)

    def append(self, records: Sequence[Record]) -> int:
        """Append a line for each, and return how many; one whose fact is in the log already is only noted."""
        count = 0
        new: list[Record] = []
        for record in records:
            if record.fact and record.fact in self.note.facts:
                count += self._append(new)  # first: an entry that is noted takes all before it for written
                new = []
                self.note = self.note.with_entry(Mark("", record.catalog, record.entry, ""))
                write_note(self._state, self.note)
            else:
                new.append(record)
        return count + self._append(new)

    def logged(self, catalog: str) -> set[tuple[int, float]]:
        """The entries of a catalog that are in the log, each with its time."""
        with auditfiles.opened(self._path) as found:
            lines = auditfiles.lines(found, self.note.chain)
            return {(line.entry, line.at.timestamp()) for line in lines if line.catalog == catalog}

    def rewind(self, catalog: str, entry: int) -> None:
        """Go on after `entry`, the newest that a catalog has, which was put back to an older copy."""
        self.note = self.note.rewound(catalog, entry)
        write_note(self._state, self.note)

    def _append(self, records: Sequence[Record]) -> int:
        for start in range(0, len(records), _AT_ONCE):
            self._append_some(records[start : start + _AT_ONCE])
        return len(records)

    def _append_some(self, records: Sequence[Record]) -> None:
        before, file = self._before()
        after, composed = self.note, []
        for record in records:
            links: dict[str, Any] = {"seq": after.seq + 1, "chain": after.chain}
            links |= {"catalog": record.catalog, "entry": record.entry, **before, "prev": after.hash}
            line, digest = compose(record, self._place, links)
            mark = Mark(digest, record.catalog, record.entry, record.fact)
            after, before = after.with_line(mark, 0, 0), {}
            composed.append((line, mark))
        self.note = msgspec.structs.replace(self.note, pending=tuple(mark for _, mark in composed))
        write_note(self._state, self.note)
        for line, mark in composed:
            self._own_until = self._write(line)
            self.note = self.note.with_line(mark, file, self._own_until)
        os.fsync(self._fd)
        write_note(self._state, self.note)

    def _before(self) -> tuple[dict[str, Any], int]:
        """What the next line has to say of what stands before it, and the number of the file that it goes to."""
        said: dict[str, Any] = {}
        file = self.note.file
        if self._own_until == 0:
            said["file"] = file = file + 1
        size = os.fstat(self._fd).st_size
        if size > self._own_until and os.pread(self._fd, 1, size - 1) != b"\n":
            size = _end_line(self._fd)  # half a line, by a full disk or a kill: it stays
        if size > self._own_until:
            said["foreign_bytes"] = size - self._own_until
            said["foreign_sha256"] = self._digest(self._own_until, size)
        if self.note.lost:
            said["head"] = LOST
        return said, file

    def _digest(self, start: int, end: int) -> str:
        digest = hashlib.sha256()
        for at in range(start, end, _BLOCK):
            digest.update(os.pread(self._fd, min(_BLOCK, end - at), at))
        return digest.hexdigest()

    def _write(self, line: bytes) -> int:
        """Append a whole line; where it ends."""
        left = memoryview(line)
        while left:  # once, unless the disk is full: then the second write says so
            left = left[os.write(self._fd, left) :]
        end = os.lseek(self._fd, 0, os.SEEK_CUR)
        if os.pread(self._fd, len(line), end - len(line)) != line:
            raise AuditError(f"{self._path}: somebody else has written into a line; it is written again next time")
        return end

    # Where the chain ends

    def _remade(self, found: Sequence[LogFile]) -> Note:
        """A note by what the log itself says: it was never made, or is lost."""
        newest: Line | None = None
        file = 0
        entries: dict[str, int] = {}
        for line in auditfiles.lines(found):
            if (line.database, line.environment) != (self._place["database"], self._place["environment"]):
                continue
            if newest is None or line.seq > newest.seq:
                newest, file = line, line.file or file
            entries[line.catalog] = max(entries.get(line.catalog, 0), line.entry)
        if newest is None:
            return Note(chain=secrets.token_hex(_CHAIN_BYTES))
        entries.pop("", None)
        return Note(chain=newest.chain, seq=newest.seq, hashes=(newest.hash,), file=file, entries=entries, lost=True)

    def _ends_here(self) -> bool:
        """Whether the last line that was noted ends where it was noted to, in this file."""
        ending = sealing(self.note.hash)
        start = self.note.end - len(ending)
        return start > 0 and os.pread(self._fd, len(ending), start) == ending

    def _last_own(self, file: LogFile) -> int:
        """Where the last line that was noted, or an earlier one, ends in a file; 0 when there is none."""
        own = (piece.end for piece in legible(file) if self._is_own(parse(piece.raw)))
        return max(own, default=0)

    def _is_own(self, line: Line | None) -> bool:
        return line is not None and line.chain == self.note.chain and line.seq <= self.note.seq

    def _take_pending(self, file: LogFile) -> None:
        """Note as appended those of the pending lines that are in a file."""
        if not self.note.pending:
            return
        for piece in legible(file):
            line = parse(piece.raw)
            if line is None or not self.note.pending or line.hash != self.note.pending[0].hash:
                continue
            end = piece.end
            if file.path == self._path:
                self._own_until = end = end if piece.ended else _end_line(self._fd)
            self.note = self.note.with_line(self.note.pending[0], line.file or self.note.file, end)


def _end_line(fd: int) -> int:
    """Write a newline behind what has none; where it ends, which is later where others write at the same moment."""
    os.write(fd, b"\n")
    return os.lseek(fd, 0, os.SEEK_CUR)


def _open(path: Path) -> int:
    """The log, to append to; made when it is missing (0640, owned like its folder). OSError.

    Neither a symbolic link nor a second name of another file is followed: root may be the one who appends, in a
    folder where another user can put such things.
    """
    for _ in range(_TRIES):
        is_new = False
        if not path.exists():
            with suppress(FileExistsError):
                files.create_empty(path, _LOG_MODE)
                is_new = True
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:  # rotated at this moment
            continue
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise PermissionError(errno.EPERM, "not a regular file with this name alone", str(path))
            if is_new:
                os.fchmod(fd, _LOG_MODE)  # whatever the umask made of it
                files.fsync_directory(path.parent)
        except OSError:
            os.close(fd)
            raise
        return fd
    raise FileNotFoundError(errno.ENOENT, "it is being rotated again and again", str(path))
