"""Named errors. One place (cli.entry) turns them into exit codes and messages.

A message is one line: what failed, where, and what to do about it.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class BackupError(Exception):
    """An expected failure: the operation failed (exit code 1)."""

    exit_code: ClassVar[int] = 1


class ConfigError(BackupError):
    """The configuration or the command line is wrong (exit code 2)."""

    exit_code = 2


class LockHeldError(BackupError):
    """Somebody else holds the lock (exit code 75, EX_TEMPFAIL of sysexits.h)."""

    exit_code = 75


class StoppedError(BackupError):
    """The operation was given up because the process was asked to stop (exit code 130)."""

    exit_code = 130


class SourceError(BackupError):
    """The live database cannot be copied as it is."""


class SourceMissingError(SourceError):
    """There is no file at the source's path, or it is not a regular file."""


class SourceOwnerError(SourceError):
    """This process runs as another user than the database's owner."""


class SourceEmptyError(SourceError):
    """The source has no bytes. SQLite calls that a valid, empty database; a backup of it is worth nothing."""


class NotADatabaseError(SourceError):
    """The source does not begin with SQLite's header string."""


class SourceEncryptedError(SourceError):
    """The source looks encrypted (SQLCipher, SEE): its pages cannot be checked."""


class SourceTruncatedError(SourceError):
    """The source has fewer pages than its header says."""


class SourceCorruptError(SourceError):
    """integrity_check, or SQLite itself, found damage in the source."""


class SourceBusyError(SourceError):
    """A lock on the source was not released within the limit."""


class HotJournalError(SourceError):
    """A crashed transaction waits to be rolled back, and nobody did so within the limit."""


class NoSpaceError(BackupError):
    """There is not enough room for the copy and its artifact."""


class ProofError(BackupError):
    """What was written does not decompress to what was copied."""


class CatalogError(BackupError):
    """The catalog cannot be read or written."""


class ArtifactError(BackupError):
    """An artifact is missing, unreadable or not what its manifest says."""


class ArtifactExistsError(ArtifactError):
    """There is an artifact of this name already, and none is ever overwritten."""


class RestoreRefusedError(BackupError):
    """A restore was asked for that must not be made like this; nothing was stopped or changed."""


class RestoreFailedError(BackupError):
    """A restore did not work; its message says what the target is now."""


class UnitError(BackupError):
    """A service unit did not stop, start or answer its health probe."""


class CommandError(BackupError):
    """A configured command could not be started."""


class IncidentError(BackupError):
    """There is no such incident, or it cannot be closed yet."""


class SecretError(BackupError):
    """A configured secret cannot be read, or is not one. Its content is never in the message."""


class AuditError(BackupError):
    """The audit log cannot be written or read."""


class DeliveryError(BackupError):
    """A message did not get through.

    `permanent`: asking again would change nothing before somebody mends the configuration (a revoked token, a missing
    channel); it is asked again all the same, rarely. `retry_after_seconds`: the service said how long to wait.
    `unsure`: it may have arrived all the same (a time-out after the request was sent, a broken answer).
    """

    def __init__(
        self,
        message: str,
        *,
        permanent: bool = False,
        retry_after_seconds: float | None = None,
        unsure: bool = False,
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after_seconds = retry_after_seconds
        self.unsure = unsure


class SweepRefusedError(BackupError):
    """Retention was asked for, and nothing may be deleted now."""


def from_os(error: OSError) -> BackupError:
    """Name an operating system error; its own text has the path and the reason."""
    where = f"{error.filename}: " if error.filename else ""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(f"{where}{reason}; make room on that disk")
    if error.errno == errno.EIO:
        return BackupError(f"{where}{reason}; the disk may be failing, see: journalctl -k")
    return BackupError(f"{where}{reason}")
