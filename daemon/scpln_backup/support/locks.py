"""One holder at a time, between processes, with a name to tell the others.

The lock is flock(2) on a file in the state folder. The kernel lets go of it when the last process that has the
descriptor is gone, however it died, so a lock is never stale. What the file says (process, purpose, since when)
is there only to be told to others; without the lock it means nobody.

The file is never unlinked: a process that opened it just before the unlink would get its lock on a file without
a name, and the next one would make a new file and lock that: two holders.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Self

import msgspec

from scpln_backup.errors import BackupError, LockHeldError
from scpln_backup.support import files
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from datetime import tzinfo
    from pathlib import Path
    from types import TracebackType

log = logging.getLogger(__name__)

# struct flock of fcntl(2): type, whence, start, length, process.
_FLOCK = struct.Struct("hhqqi4x")
_CONTENT_LIMIT = 4096


class Holder(msgspec.Struct, frozen=True):
    """Who holds a lock, as far as the file says."""

    pid: int | None = None
    what: str = "another process"
    since: datetime | None = None

    def __str__(self) -> str:
        details = []
        if self.pid is not None:
            details.append(f"process {self.pid}")
        if self.since is not None:
            details.append(f"since {self.since:%Y-%m-%d %H:%M:%S}")
        return f"{self.what} ({', '.join(details)})" if details else self.what


class Lock:
    """The lock at `path`, for `what` ("the backup daemon"). Also a context manager.

    `hint` ends the message of the LockHeldError: what to do instead. `zone` is for the time in it (None: the
    host's). The folder is made when it is missing. A child that inherits `fd` holds the lock as well, until it is
    gone: flock belongs to the open file, not to a process.
    """

    def __init__(self, path: Path, what: str, *, hint: str = "", zone: tzinfo | None = None) -> None:
        self.path = path
        self._what = what
        self._hint = hint
        self._zone = zone
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The descriptor to hand to a child (`pass_fds`)."""
        if self._fd is None:
            raise RuntimeError(f"{self.path} is not held by this process")
        return self._fd

    def acquire(self) -> None:
        """Take the lock or raise LockHeldError at once; BackupError when the file cannot be opened or locked."""
        if self._fd is not None:
            raise RuntimeError(f"{self.path} is held by this process already")
        try:
            self._fd = self._open_locked()
        except BlockingIOError as error:
            hint = f"; {self._hint}" if self._hint else ""
            raise LockHeldError(f"{_read(self.path) or Holder()} holds {self.path}{hint}") from error
        except OSError as error:
            raise BackupError(
                f"cannot lock {self.path} ({one_line(error)}); check the folder's owner, mode and free space"
            ) from error

    def _open_locked(self) -> int:
        files.make_folder(self.path.parent)
        if not self.path.exists():
            with suppress(FileExistsError):  # somebody else was quicker
                files.create_empty(self.path)
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            return self._locked_read_only()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A second lock on the same open file, for holder() to look at: see there.
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            self._write_holder(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _locked_read_only(self) -> int:
        """On a disk that has become read-only, where there is still somebody to be told: flock needs no writing.

        Others are kept out; who holds it, `holder` cannot see.
        """
        fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _write_holder(self, fd: int) -> None:
        me = Holder(os.getpid(), self._what, datetime.now(self._zone).astimezone(self._zone))
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, msgspec.json.encode(me) + b"\n", 0)
        except OSError as error:
            # The lock is held all the same. On a full disk the daemon must run, and say that the disk is full.
            log.warning("%s is locked but cannot say by whom: %s", self.path, one_line(error))

    def release(self) -> None:
        """Let go, by closing: a child that inherited the descriptor and still works keeps the others out."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def holder(path: Path) -> Holder | None:
    """Who holds the lock at `path`; None when it is free or was never taken. Needs to read the file only.

    Trying flock to find out would hold it for a moment, and a run that starts in that moment would be refused.
    So a holder has an open-file-description lock on the file too, and F_OFD_GETLK asks about that one without
    taking anything (fcntl(2)). A lock taken by somebody else's flock(1) keeps us out, but is not seen here.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BackupError(f"cannot see who holds {path} ({one_line(error)}); run as the user of the daemon") from error
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        raise BackupError(f"cannot see who holds {path} ({one_line(error)})") from error
    finally:
        os.close(fd)
    free = _FLOCK.unpack(answer)[0] == fcntl.F_UNLCK
    return None if free else _read(path) or Holder()


def _read(path: Path) -> Holder | None:
    """What the file says; None when that is nothing: its holder may be about to write it."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_CONTENT_LIMIT), type=Holder)
    except (OSError, msgspec.MsgspecError, ValueError):
        return None
