"""The folders that the daemon writes to: the backup root, the state folder, the audit log's."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from scpln_backup.operations.doctor.account import acting_as, may
from scpln_backup.operations.doctor.finding import Verdict, bad, doubtful, good, together
from scpln_backup.operations.doctor.mounts import IN_MEMORY, disks, existing, expected_mount, mount_of
from scpln_backup.support import files
from scpln_backup.support.locks import holder
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scpln_backup.operations.doctor.account import Account
    from scpln_backup.operations.doctor.mounts import Mount
    from scpln_backup.operations.doctor.patient import Patient

_ENTER = os.W_OK | os.X_OK
_PROOF = b"written by scpln-backup doctor, and removed at once\n"
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})


def backup_root(patient: Patient) -> Verdict:
    """A temporary file goes the way of an artifact: written, synced, locked, renamed without overwriting."""
    root, user = patient.house.root, patient.user
    if not root.exists():
        return _missing(root, patient)
    if holder(patient.house.run_lock("").path) is not None:
        return good(f"{root}, {user} is writing to it at this moment")  # and would clear our file away
    staging = patient.house.store.staging
    with acting_as(user):
        try:
            _try_out(staging if staging.exists() else root)
        except OSError as error:
            return bad(f"{one_line(error)} (as {user})", _advice(error, root, user))
    return good(f"{root}, {user} can write, sync and rename in it")


def _missing(folder: Path, patient: Patient) -> Verdict:
    user = patient.user
    parent = existing(folder)
    with acting_as(user):
        makeable = parent.is_dir() and may(parent, _ENTER)
    if makeable:
        return good(f"{folder}: not there yet; {user} can make it")
    if patient.unit is not None and patient.unit.makes(folder):
        return good(f"{folder}: not there yet; {patient.unit.name} makes it when it starts")
    return bad(
        f"{folder}: no such folder, and {user} cannot make it in {parent}",
        f"install -d -o {user} -g {user} -m 0750 {folder}",
    )


def _try_out(folder: Path) -> None:
    """All that publishing an artifact asks of a file system. OSError: one thing does not work; nothing stays."""
    first, second = (folder / files.temporary_name("doctor") for _ in range(2))
    try:
        with _named("cannot be written to", folder):
            descriptor = os.open(first, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, files.PRIVATE_FILE)
        try:
            with _named("cannot be written to", folder):
                os.write(descriptor, _PROOF)
            with _named("cannot sync a file", folder):
                os.fsync(descriptor)
            with _named("cannot lock a file (flock)", folder):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
        with _named("cannot rename without overwriting", folder):
            files.publish(first, second)
        with _named("cannot sync a folder", folder):
            files.fsync_directory(folder)
    finally:
        for path in (first, second):
            with suppress(FileNotFoundError):
                path.unlink()


@contextmanager
def _named(what: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{what}: {error.strerror}", str(folder)) from error


def _advice(error: OSError, folder: Path, user: Account) -> str:
    if error.errno == errno.EROFS:
        return f"mount it for writing, if the disk is sound (journalctl -k): mount -o remount,rw {folder}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "make room on that file system; see: df -h, df -i"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"chown {user}: {folder} {folder}/.staging, and give {user} the right to enter the folders above"
    if error.errno == errno.EIO:
        return "the disk may be failing, see: journalctl -k"
    if error.errno in _NO_LOCKS:
        return "mount it with locks, or choose a file system that has them"
    return "choose another file system for [backup] root"


def apart(patient: Patient) -> Verdict | None:
    """One disk's end must not be the end of the database and of its backups."""
    if not patient.house.source.exists():
        return None
    root, database = (mount_of(path, patient.mounts) for path in (patient.house.root, patient.house.source))
    return judge_apart(root, database, disks(root), disks(database))


def judge_apart(root: Mount, database: Mount, root_disks: frozenset[str], database_disks: frozenset[str]) -> Verdict:
    advice = "put [backup] root on another disk, or have the artifacts copied to another host"
    if root.kind in IN_MEMORY:
        return bad(f"{root.point} is in memory ({root.kind}): the backups are gone after a reboot", advice)
    if root.device == database.device:
        return doubtful(f"on the database's own file system ({root.point}): its end would be the end of both", advice)
    shared = sorted(root_disks & database_disks)
    if shared:
        return doubtful(f"on the database's own disk ({', '.join(shared)}), in a file system of its own", advice)
    if root.network:
        return good(f"on a network file system ({root.kind}, {root.source})")
    if not root_disks or not database_disks:
        return good(f"on a file system of its own ({root.point}); whether on another disk cannot be told here")
    return good(f"on another disk ({', '.join(sorted(root_disks))}; the database: {', '.join(sorted(database_disks))})")


def mounted(patient: Patient) -> Verdict:
    """The disk that should be there is there, and the daemon waits for it at boot."""
    root = patient.house.root
    mount = mount_of(root, patient.mounts)
    expected = expected_mount(Path(os.path.realpath(root)))
    if expected is not None and expected not in {each.point for each in patient.mounts}:
        return bad(
            f"{expected}: fstab mounts a disk there, and it is not mounted: backups would land behind it",
            f"mount {expected}",
        )
    known = patient.house.catalog.artifact_summary().count if patient.catalog_problem is None else 0
    if known and not patient.artifacts:
        return bad(
            f"{root}: none of the {known} artifacts that were here is left, and no run would begin",
            "mount its disk; if they were removed on purpose: scpln-backup sweep",
        )
    if patient.unit is not None and mount.point != "/" and not _waited_for(root, patient.unit.mounts):
        return doubtful(
            f"{root} is on {mount.point}, and {patient.unit.name} does not wait for that at boot",
            f"systemctl edit {patient.unit.name}: [Unit] RequiresMountsFor={root}",
        )
    return good(f"{mount.point} ({mount.kind})")


def _waited_for(root: Path, mounts: tuple[str, ...]) -> bool:
    """A unit that requires a path requires all the mounts on the way to it (systemd.unit(5))."""
    return any(Path(path).is_relative_to(root) for path in mounts)


def state_folder(patient: Patient) -> Verdict:
    """Catalog and locks: for the daemon's user alone, on a local disk."""
    folder, user = patient.state, patient.user
    if not folder.exists():
        return _missing(folder, patient)
    mode = stat.S_IMODE(folder.stat().st_mode)
    with acting_as(user):
        writable = may(folder, _ENTER | os.R_OK)
        strangers = [path.name for path in folder.iterdir() if not may(path, os.R_OK | os.W_OK)] if writable else []
    return together(
        [_state_rights(folder, user, strangers, writable=writable), _private(folder, mode), _local(patient)]
    )


def _state_rights(folder: Path, user: Account, strangers: list[str], *, writable: bool) -> Verdict:
    if not writable:
        return bad(f"{folder}: {user} cannot write to it", f"chown -R {user}: {folder}")
    if strangers:
        return bad(f"{folder}: {user} cannot write to {', '.join(sorted(strangers))}", f"chown -R {user}: {folder}")
    return good(f"{folder}, {user} can write to it")


def _private(folder: Path, mode: int) -> Verdict:
    if mode & stat.S_IWOTH:
        return bad(f"{folder}: any user of this host may change it (mode {mode:04o})", f"chmod 0700 {folder}")
    return good(f"mode {mode:04o}")


def _local(patient: Patient) -> Verdict:
    mount = mount_of(patient.state, patient.mounts)
    if mount.network:
        return bad(
            f"{patient.state} is on a network file system ({mount.kind}), whose locks a SQLite catalog cannot rely on",
            "set [state] directory to a folder on a local disk",
        )
    if mount.kind in IN_MEMORY:
        return doubtful(
            f"{patient.state} is in memory ({mount.kind}): history and unsent messages are gone after a reboot",
            "set [state] directory to a folder on a local disk",
        )
    return good(f"on {mount.point} ({mount.kind})")


def catalog(patient: Patient) -> Verdict:
    problem = patient.catalog_problem
    if problem is not None:
        what, _, advice = problem.partition("; ")
        return bad(what, advice or "see the daemon's log")
    path = patient.house.catalog.path
    return good(f"{path}" if path.exists() else f"{path}: not there yet; the daemon makes it when it starts")


def audit_log(patient: Patient) -> Verdict:
    """A log that cannot be written fails no run, and leaves the month's review without its facts."""
    log, user = Path(patient.config.audit.log), patient.user
    if not log.parent.exists():
        verdict = _missing(log.parent, patient)
        return verdict if verdict.advice is None else doubtful(verdict.detail, verdict.advice)
    with acting_as(user):
        able = may(log.parent, _ENTER) and (not log.exists() or may(log, os.W_OK | os.R_OK))
    if able:
        return good(f"{log}, {user} can write to it")
    return doubtful(f"{log}: {user} cannot write to it", f"chown {user}: {log.parent} {log}")
