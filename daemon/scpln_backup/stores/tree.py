"""What lies under the backup root, seen as `find` without options sees it: no link is followed."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

STAGING = ".staging"
# What mkfs puts at the top of a file system, for root only.
_NOT_OURS = "lost+found"


class File(NamedTuple):
    path: Path
    status: os.stat_result


def walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folders under `root` and the names of what is not a folder in them; the staging folder is left out.

    A missing root is an empty one. A folder that cannot be read raises its OSError: artifacts that are not seen
    would count as lost.
    """
    for folder, subfolders, names in os.walk(root, onerror=_unless_missing, followlinks=False):
        if folder == str(root):
            subfolders[:] = [name for name in subfolders if name not in {STAGING, _NOT_OURS}]
        yield Path(folder), names


def _unless_missing(error: OSError) -> None:
    """A folder may also go while we look."""
    if not isinstance(error, FileNotFoundError):
        raise error


def regular(path: Path) -> File | None:
    """None for what is not a regular file (find's -type f), and for what was deleted since it was listed."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return File(path, status) if stat.S_ISREG(status.st_mode) else None


def present(path: Path) -> bool:
    """Whether there is anything of this name. os.path.lexists takes an I/O error for "no"; a pin, or the artifact
    of a manifest, that cannot be seen must not count as missing.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def entries(folder: Path) -> list[Path]:
    """What is in `folder`, which may be missing."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
