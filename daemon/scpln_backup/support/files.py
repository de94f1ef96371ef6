"""Files that are there whole or not at all, and still there after a power cut.

A rename is atomic for every other process, but neither the new name nor the bytes behind it need survive a
power cut before they were synced: so the order is always file, fsync, rename, fsync of the folder (rename(2),
fsync(2)). Errors are OSErrors that name a path; whoever knows what the file was for turns them into named ones.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
# EINVAL: the file system does not know the flag (NFS); ENOSYS: an old kernel; ENOTSUP: some FUSE drivers.
_NO_SUCH_FLAG = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
# What file systems without a sync of folders answer (some network and FUSE ones).
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP})
# The leading dot and the ending keep a temporary file out of every artifact pattern.
_TEMPORARY = re.compile(r"\.(?P<target>.+)\.[0-9a-f]{16}\.tmp", re.DOTALL)

_libc = ctypes.CDLL(None, use_errno=True)


def publish(source: Path, target: Path) -> None:
    """Rename `source` to `target`, never over something that is there.

    os.rename replaces silently, and a look beforehand leaves a gap in which the old script, or a second daemon,
    can put its file: RENAME_NOREPLACE lets the kernel look and rename in one step. Raises FileExistsError, and
    any OSError of rename(2), with both files untouched. The folders are not synced.
    """
    code = _rename_noreplace(os.fsencode(source), os.fsencode(target))
    if code in _NO_SUCH_FLAG:
        _link_and_unlink(source, target)
    elif code:
        raise OSError(code, os.strerror(code), str(source), None, str(target))


def _rename_noreplace(source: bytes, target: bytes) -> int:
    """The errno, 0 when it is done. Python has no renameat2 of its own; glibc has it since 2.28."""
    try:
        renameat2 = _libc.renameat2
    except AttributeError:
        return errno.ENOSYS
    if renameat2(_AT_FDCWD, source, _AT_FDCWD, target, _RENAME_NOREPLACE) == 0:
        return 0
    return ctypes.get_errno()


def _link_and_unlink(source: Path, target: Path) -> None:
    """The same promise in two steps: link(2) never overwrites. A kill in between leaves both names, whole."""
    os.link(source, target, follow_symlinks=False)
    try:
        source.unlink()
    except OSError:
        target.unlink()  # the caller is told that nothing was published, so nothing may be
        raise


def fsync_directory(folder: Path) -> None:
    """Make names in `folder` durable. A file system that cannot sync folders is left to do what it does."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            _name(error, folder)
            raise
    finally:
        os.close(fd)


def make_folder(folder: Path, mode: int = PRIVATE_FOLDER) -> None:
    """Make `folder` and its missing parents, durably. One that is there keeps its mode and owner."""
    if folder.is_dir():
        return
    make_folder(folder.parent, mode)
    try:
        folder.mkdir(mode)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    try:
        fsync_directory(folder.parent)
    except OSError:
        # Left behind, it would look durable to the next call.
        with suppress(OSError):
            folder.rmdir()
        raise


def create_empty(path: Path, mode: int = PRIVATE_FILE) -> None:
    """Make an empty file that belongs to whom `owned_like_folder` says from its first moment.

    Raises FileExistsError when something is there.
    """
    new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    if not _gives_away_in(path.parent):  # then no kill can leave anything but the file itself
        os.close(os.open(path, new, mode))
        return
    temporary = path.with_name(temporary_name(path.name))
    os.close(os.open(temporary, new, mode))
    try:
        owned_like_folder(temporary)
        publish(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def owned_like_folder(path: Path) -> None:
    """Give a file that root has just made in another user's folder to that user, whom it would lock out.

    Nothing happens for others than root. The other user may rename things in that folder meanwhile: a symbolic
    link is not followed and a file with a second name is refused (PermissionError), or root would give away
    whatever they point it at.
    """
    if not _gives_away_in(path.parent):
        return
    folder = path.parent.stat()
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise PermissionError(errno.EPERM, "not the file that was made here, so it is not given away", str(path))
        os.fchown(fd, folder.st_uid, folder.st_gid)
    finally:
        os.close(fd)


def _gives_away_in(folder: Path) -> bool:
    return os.geteuid() == 0 and folder.stat().st_uid != 0


def write_durably(path: Path, data: bytes, mode: int = PRIVATE_FILE, *, overwrite: bool = True) -> None:
    """Write `data` to `path` so that a reader, or a crash, sees the old content or the new, never a mixture.

    With `overwrite=False` raises FileExistsError when something is there. On any error no temporary file stays;
    when the last sync of the folder fails a file that was new by `overwrite=False` is taken back, one that was
    replaced stays replaced.
    """
    temporary = path.with_name(temporary_name(path.name))
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)  # whatever the umask made of it
            file.write(data)
            file.flush()
            os.fsync(fd)
        if overwrite:
            temporary.replace(path)
        else:
            publish(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        _name(error, path)
        raise
    try:
        fsync_directory(path.parent)
    except OSError:
        if not overwrite:
            with suppress(OSError):
                path.unlink()
        raise


def _name(error: BaseException, path: Path) -> None:
    """Say which file it was: errors of calls on a descriptor (write, fsync) don't."""
    if isinstance(error, OSError) and error.filename is None:
        error.filename = str(path)


def temporary_name(target: str) -> str:
    """A name for what will become `target`, in the same folder."""
    return f".{target}.{secrets.token_hex(8)}.tmp"


def temporary_target(name: str) -> str | None:
    """What a temporary file left by a crash was to become; None when the name is not one of ours."""
    match = _TEMPORARY.fullmatch(name)
    return match["target"] if match else None
