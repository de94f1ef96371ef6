"""Who has a database open: seen in /proc, not guessed from locks.

A process that has a database open and holds no lock at the moment will write to the file behind its descriptor as
soon as it wants to, wherever the name points by then.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SIDECARS = ("-wal", "-shm", "-journal")
_PROC = Path("/proc")
_DELETED = " (deleted)"  # what proc(5) appends to the name of an open file that has none any more


class Opener(msgspec.Struct, frozen=True):
    """A process that has the database open; `unit` is the systemd unit it belongs to, None outside of any."""

    pid: int
    name: str
    unit: str | None

    def __str__(self) -> str:
        unit = f", {self.unit}" if self.unit is not None else ""
        return f"{self.name} (process {self.pid}{unit})"


def file_set(database: Path) -> list[Path]:
    """The database's file and those that SQLite keeps beside it, whether they are there or not."""
    return [database, *(database.with_name(database.name + ending) for ending in SIDECARS)]


def openers(database: Path) -> list[Opener]:
    """The other processes that have a file of the database's set open, or one that was deleted under its name.

    Those still think that the name is theirs, and unlink the -wal of that name when they close the database.  Only
    root sees every process; another user sees its own, the application's being one of them as a rule.
    """
    paths = file_set(database)
    wanted: set[tuple[int, int | str]] = set(_identities(paths))
    if database.parent.exists():
        # By file system rather than by device: in an overlay a file has another device number than its folder.
        file_system = os.statvfs(database.parent).f_fsid
        wanted.update((file_system, f"{path}{_DELETED}") for path in paths)
    return [
        Opener(pid, _name(pid), _unit(pid))
        for pid in _processes()
        if pid != os.getpid() and not wanted.isdisjoint(_opened(pid))
    ]


def _identities(paths: Iterable[Path]) -> Iterator[tuple[int, int]]:
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        yield status.st_dev, status.st_ino


def _processes() -> Iterator[int]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def _opened(pid: int) -> Iterator[tuple[int, int | str]]:
    """What a process has open: device and inode, and file system and former name of what was deleted."""
    try:
        descriptors = list((_PROC / str(pid) / "fd").iterdir())
    except OSError:
        return  # it ended, or belongs to another user
    for descriptor in descriptors:
        try:
            status = descriptor.stat()  # follows the link to what is really open, even if it was renamed or deleted
            if status.st_nlink == 0:
                yield os.statvfs(descriptor).f_fsid, str(descriptor.readlink())
        except OSError:
            continue
        yield status.st_dev, status.st_ino


def _name(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return "a process"


def _unit(pid: int) -> str | None:
    """The unit in the process's control group: the last path component of a known kind (systemd.unit(5))."""
    try:
        groups = (_PROC / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    for group in groups:
        for part in reversed(group.rpartition(":")[2].split("/")):
            if part.endswith((".service", ".scope")):
                return part
    return None
