"""The live database, looked at without touching it."""

from __future__ import annotations

import fcntl
import os
import pwd
import stat
import struct
import time
from typing import TYPE_CHECKING

from scpln_backup.errors import (
    BackupError,
    NotADatabaseError,
    SourceEmptyError,
    SourceEncryptedError,
    SourceMissingError,
    SourceTruncatedError,
)
from scpln_backup.operations.doctor.account import acting_as, may
from scpln_backup.operations.doctor.finding import Verdict, bad, doubtful, good, together
from scpln_backup.stages import source
from scpln_backup.stages.openers import openers
from scpln_backup.support import systemctl
from scpln_backup.support.text import human_bytes, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from scpln_backup.operations.doctor.account import Account
    from scpln_backup.operations.doctor.patient import Patient
    from scpln_backup.stages.openers import Opener

_RESTORE = "bring it back: scpln-backup restore"
_ADVICE: Mapping[type[BackupError], str] = {
    SourceMissingError: "set SCPLN_DB in the application's .env, or [database] path, to the application's database",
    SourceEmptyError: _RESTORE,
    SourceTruncatedError: _RESTORE,
    SourceEncryptedError: "back an encrypted database up by other means: it cannot be proven here",
    NotADatabaseError: "set SCPLN_DB in the application's .env, or [database] path, to the application's database",
}

# https://www.sqlite.org/fileformat2.html#the_rollback_journal; zeroed by PRAGMA journal_mode = PERSIST when it is over
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
# Whoever writes holds the RESERVED lock: one byte of the main file (os.h of SQLite).
_RESERVED_BYTE = 0x40000001
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2): type, whence, start, length, process
_SECOND_LOOK_SECONDS = 0.1


def file(patient: Patient) -> Verdict:
    """Whether a run would take it for a database at all, asked as the user that runs it."""
    path = patient.house.source
    if path.exists() and path.stat().st_uid != patient.user.uid:
        return good(f"{path}, {human_bytes(path.stat().st_size)}")  # whose it should be is the next check's matter
    with acting_as(patient.user):
        try:
            facts = source.inspect(path)
        except BackupError as error:
            return bad(one_line(error).partition(";")[0], _ADVICE.get(type(error), f"let {patient.user} read it"))
    return good(f"{path}, {human_bytes(facts.size_bytes)}, mode {facts.file.mode}")


def owner(patient: Patient) -> Verdict | None:
    """A reader of another user could lock the application out (stages.source)."""
    path = patient.house.source
    if not path.exists():
        return None
    status = path.stat()
    return together([_owned(path, status.st_uid, patient.user), _changeable(path, stat.S_IMODE(status.st_mode))])


def _owned(path: Path, uid: int, user: Account) -> Verdict:
    if uid == user.uid:
        return good(f"belongs to {user}, whom the daemon runs as")
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"#{uid}"
    return bad(
        f"{path} belongs to {name}, and the daemon runs as {user}: no run would begin",
        f"set User={name} in the unit (systemctl edit), or chown the database to {user}",
    )


def _changeable(path: Path, mode: int) -> Verdict:
    if mode & stat.S_IWOTH:
        return doubtful(f"{path}: any user of this host may change it (mode {mode:04o})", f"chmod o-w {path}")
    return good(f"mode {mode:04o}")


def journal(patient: Patient) -> Verdict | None:
    """The journal mode, what it asks of owner and folder, and a transaction that a crash broke off."""
    facts, path = patient.source, patient.house.source
    if facts is None:
        return None
    if facts.header.wal:
        with acting_as(patient.user):
            writable = may(path.parent, os.W_OK | os.X_OK)
        return together([_wal_folder(path, patient.user, writable=writable), *_wal_files(path)])
    if _hot_journal(path):
        return bad(
            f"{path.name}-journal is hot: a crashed transaction waits to be rolled back, and a run would wait for it",
            "start the application, whose next access rolls it back",
        )
    return good("rollback journal: a run holds writers up for an instant")


def _wal_folder(path: Path, user: Account, *, writable: bool) -> Verdict:
    if writable:
        return good("write-ahead log: writers never wait for a run")
    return bad(
        f"write-ahead log, whose readers keep a file beside the database, and {user} may not write to {path.parent}",
        f"chown {user} {path.parent}, or give it the right to write there",
    )


def _wal_files(path: Path) -> list[Verdict]:
    """-wal and -shm of another owner: the application's next write fails ("readonly database")."""
    status = path.stat()
    strangers = [
        beside
        for ending in ("-wal", "-shm")
        if (beside := path.with_name(path.name + ending)).exists() and beside.stat().st_uid != status.st_uid
    ]
    return [
        bad(
            f"{beside} belongs to another user than the database, so the application may not be able to write",
            f"chown --reference={path} {beside}",
        )
        for beside in strangers
    ]


def _hot_journal(path: Path) -> bool:
    """Whether a rollback journal is there that no transaction under way accounts for; looked at twice."""
    journal_file = path.with_name(path.name + "-journal")
    before = _valid_journal(journal_file)
    if before is None or _writer_at_work(path):
        return False
    time.sleep(_SECOND_LOOK_SECONDS)  # it may have ended between the two looks
    return _valid_journal(journal_file) == before and not _writer_at_work(path)


def _valid_journal(path: Path) -> tuple[int, int] | None:
    """Inode and time of change of a journal with something in it."""
    try:
        with path.open("rb") as opened:
            status = os.fstat(opened.fileno())
            return (status.st_ino, status.st_mtime_ns) if opened.read(8) == _JOURNAL_MAGIC else None
    except FileNotFoundError:
        return None


def _writer_at_work(path: Path) -> bool:
    """Asked with F_OFD_GETLK, which takes nothing. This process has no lock of its own on the file to lose."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        question = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, _RESERVED_BYTE, 1, 0)
        return bool(_FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, question))[0] != fcntl.F_UNLCK)
    finally:
        os.close(descriptor)


def users(patient: Patient) -> Verdict | None:
    """Who has it open: a restore refuses while a process does that no configured unit accounts for."""
    path = patient.house.source
    if not path.exists():
        return None
    units = [systemctl.full_name(unit) for unit in patient.config.service.units]
    found = [opener for opener in openers(path) if opener.unit is None or not opener.unit.startswith("scpln-backup")]
    return opened(found, units, sees_all=os.geteuid() == 0)


def opened(found: Sequence[Opener], units: Sequence[str], *, sees_all: bool) -> Verdict:
    unseen = "" if sees_all else " (other users' processes are seen by root only)"
    if not found:
        return good(f"open in no process{unseen}")
    strangers = [opener for opener in found if opener.unit not in units]
    if strangers:
        return doubtful(
            f"open in {', '.join(map(str, strangers))}, which no unit of [service] units would stop: a restore refuses",
            "add its unit to [service] units, or end it before a restore",
        )
    return good(f"open in {', '.join(map(str, found))}{unseen}")
