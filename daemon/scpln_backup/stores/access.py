"""Who may read an artifact, and who may delete it: flock on its own file, which ends with its descriptor."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from scpln_backup.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def open_shared(path: Path) -> BinaryIO:
    """The artifact, open for reading, kept from deletion until it is closed; ArtifactError if it is going now."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        gone = os.fstat(file.fileno()).st_nlink == 0
    except BlockingIOError as error:
        file.close()
        raise ArtifactError(f"{path}: being deleted") from error
    except BaseException:
        file.close()
        raise
    if gone:
        file.close()
        raise ArtifactError(f"{path}: deleted just now")
    return file


@contextmanager
def claimed_to_delete(path: Path) -> Iterator[None]:
    """Nobody reads the artifact, and nobody starts to, while the context lasts; else ArtifactError."""
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        # NFS grants an exclusive lock on a descriptor open for writing only (flock(2)).
        fd = os.open(path, os.O_RDWR | flags)
    except PermissionError:
        fd = os.open(path, os.O_RDONLY | flags)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ArtifactError(f"{path}: being read, so it is kept; try again later") from error
    finally:
        os.close(fd)
