"""The live database: what can be known of it without touching it, and a connection that cannot change it."""

from __future__ import annotations

import grp
import math
import os
import pwd
import sqlite3
import stat
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from scpln_backup.errors import (
    HotJournalError,
    NotADatabaseError,
    SourceBusyError,
    SourceCorruptError,
    SourceEmptyError,
    SourceEncryptedError,
    SourceError,
    SourceMissingError,
    SourceOwnerError,
    SourceTruncatedError,
)
from scpln_backup.model import SourceFile

if TYPE_CHECKING:
    from pathlib import Path

# https://www.sqlite.org/fileformat2.html#the_database_header
_HEADER_SIZE = 100
_MAGIC = b"SQLite format 3\x00"
_SMALLEST_PAGE = 512
_PAGE_SIZE_65536 = 1  # how the two-byte field spells 65,536
_WAL_VERSION = 2
_SAMPLE = 4096
_ENCRYPTED_BITS_PER_BYTE = 7.0  # a page of text or records stays well below, ciphertext is close to 8


class Header(msgspec.Struct, frozen=True):
    """The database header's fields that the program needs.

    `page_count` is None when the header says that its own count is stale (written by SQLite before 3.7.0).
    """

    page_size: int
    page_count: int | None
    wal: bool


class SourceFacts(msgspec.Struct, frozen=True):
    """What a look at the files tells. `wal_bytes` is the size of the -wal beside the source, 0 without one."""

    path: str
    size_bytes: int
    wal_bytes: int
    header: Header
    file: SourceFile


def parse_header(raw: bytes) -> Header:
    """Read the fields of a database header that begins with SQLite's magic."""
    size = int.from_bytes(raw[16:18], "big")
    current = raw[24:28] == raw[92:96]
    return Header(
        page_size=65536 if size == _PAGE_SIZE_65536 else size,
        page_count=int.from_bytes(raw[28:32], "big") if current else None,
        wal=raw[18] == _WAL_VERSION,
    )


def inspect(path: Path) -> SourceFacts:
    """Look at the source without locking it; raise the SourceError that says why it cannot be backed up.

    Opens and closes the file: never call it in a process that holds SQLite locks on it, for POSIX locks are
    dropped when any descriptor of the file is closed (https://www.sqlite.org/howtocorrupt.html, section 2.2).
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        msg = f"{path}: there is no such database; check SCPLN_DB and [database] path"
        raise SourceMissingError(msg) from None
    except OSError as error:
        msg = f"{path}: the database cannot be reached: {error.strerror}"
        raise SourceError(msg) from error
    if not stat.S_ISREG(status.st_mode):
        msg = f"{path}: not a regular file; check SCPLN_DB and [database] path"
        raise SourceMissingError(msg)
    _require_owner(path, status.st_uid)
    if status.st_size == 0:
        msg = f"{path}: the database is empty (0 bytes); if it should have data: scpln-backup restore"
        raise SourceEmptyError(msg)
    try:
        with path.open("rb") as file:
            sample = file.read(_SAMPLE)
    except OSError as error:
        msg = f"{path}: the database cannot be read: {error.strerror}"
        raise SourceError(msg) from error
    if not sample.startswith(_MAGIC) or len(sample) < _HEADER_SIZE:
        raise _foreign(path, sample, status.st_size)
    wal = path.with_name(path.name + "-wal")
    return SourceFacts(
        path=str(path),
        size_bytes=status.st_size,
        wal_bytes=wal.stat().st_size if wal.exists() else 0,
        header=parse_header(sample),
        file=_describe(path, status),
    )


def _describe(path: Path, status: os.stat_result) -> SourceFile:
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = f"#{status.st_gid}"
    return SourceFile(
        path=str(path), owner=_user(status.st_uid), group=group, mode=f"{stat.S_IMODE(status.st_mode):04o}"
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def _require_owner(path: Path, owner: int) -> None:
    # A reader with another user id may create -wal and -shm files that it owns, and then the application's next
    # write fails with "attempt to write a readonly database".
    if os.geteuid() == owner:
        return
    name = _user(owner)
    msg = (
        f"{path}: belongs to user {name}, and this runs as {_user(os.geteuid())}: a reader under another user can "
        f"lock the application out of its own database; run it as {name}: sudo -u {name} scpln-backup …"
    )
    raise SourceOwnerError(msg)


def _foreign(path: Path, sample: bytes, size: int) -> SourceError:
    if sample.startswith(_MAGIC):
        return SourceTruncatedError(f"{path}: truncated: {size} bytes cannot hold a database header")
    counts = Counter(sample)
    bits = -sum(n / len(sample) * math.log2(n / len(sample)) for n in counts.values())
    if size % _SMALLEST_PAGE == 0 and bits > _ENCRYPTED_BITS_PER_BYTE:
        return SourceEncryptedError(
            f"{path}: looks encrypted: no SQLite header, and its pages look random; an encrypted database "
            f"cannot be checked and is not backed up"
        )
    return NotADatabaseError(f"{path}: not a SQLite database; check SCPLN_DB and [database] path")


def check_length(path: Path) -> None:
    """Raise SourceTruncatedError when a file that nobody writes lacks pages, NotADatabaseError when it is none.

    Their messages name no file: the caller knows what it was.
    """
    with path.open("rb") as file:
        raw = file.read(_HEADER_SIZE)
    if not raw.startswith(_MAGIC) or len(raw) < _HEADER_SIZE:
        raise NotADatabaseError("not a SQLite database")
    header = parse_header(raw)
    size = path.stat().st_size
    if header.page_count is not None and size < header.page_count * header.page_size:
        msg = (
            f"truncated: the header counts {header.page_count} pages of {header.page_size} bytes, and there are "
            f"{size} bytes"
        )
        raise SourceTruncatedError(msg)


def blamed(path: Path, error: SourceError) -> SourceError:
    """What was found in a faithful copy is wrong with the source: say so, and what to do."""
    return type(error)(f"{path}: {error}; bring back the newest verified artifact: scpln-backup restore")


def uri(path: Path, query: str) -> str:
    return f"file:{quote(str(path))}?{query}"


def connect(path: Path, wait_seconds: float) -> sqlite3.Connection:
    """Connect to the live database, able to lock and to read it and nothing else.

    `mode=ro` opens the file O_RDONLY: such a connection cannot roll back a journal, write a page or checkpoint,
    not even when it is the last one to close.
    """
    return sqlite3.connect(
        uri(path, "mode=ro"), uri=True, isolation_level=None, timeout=wait_seconds, check_same_thread=False
    )


def translate(error: sqlite3.Error, path: Path, wait_seconds: float) -> SourceError:
    """Name what SQLite's error means for a backup."""
    code = getattr(error, "sqlite_errorcode", 0)
    primary = code & 0xFF
    if code == sqlite3.SQLITE_READONLY_ROLLBACK:
        return HotJournalError(
            f"{path}: a crashed transaction waits to be rolled back ({path.name}-journal is hot), and nobody did so "
            f"within {wait_seconds:g} s; start the application, whose next access rolls it back, then back up again"
        )
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return SourceBusyError(
            f"{path}: locked by another process for more than {wait_seconds:g} s; find it with: fuser -v {path}"
        )
    if primary == sqlite3.SQLITE_NOTADB:
        return NotADatabaseError(f"{path}: SQLite says: {error}; is the database encrypted?")
    if primary == sqlite3.SQLITE_CORRUPT:
        return SourceCorruptError(
            f"{path}: SQLite says: {error}; bring back the newest verified artifact: scpln-backup restore"
        )
    return SourceError(f"{path}: SQLite says: {error}")
