"""What a restore is doing, on disk before it does it, so that a crash at any point can be resumed or undone."""

from __future__ import annotations

from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import BackupError, from_os
from scpln_backup.model import RestoreRecord, TableFacts  # noqa: TC001 - msgspec reads the annotations at run time
from scpln_backup.support import files

if TYPE_CHECKING:
    from scpln_backup.operations.house import House

_FILE = "restore.json"


class Phase(IntEnum):
    """What is done; each phase's work may be done again."""

    BEGUN = 0  # nothing but the staging folder beside the target
    PREPARED = 1  # the new database is there, checked; the application still runs
    STOPPING = 2  # units are being stopped
    STOPPED = 3  # nobody has the database open
    SET_ASIDE = 4  # the old set has a second name in the set-aside folder
    FOLDED = 5  # the old database, if it had a journal, is one file of the same content
    SWAPPED = 6  # the new database has the target's name
    CHECKED = 7  # it was checked in its place
    STARTED = 8  # the units run on it and answered
    ROLLING_BACK = 9  # the old set is being put back
    UNDONE = 10  # it is back; units are started and leftovers removed


class FileIdentity(msgspec.Struct, frozen=True):
    """A file of the target's file system whatever its name, and the state it was in.

    Without the device number: a disk may have another one after the next boot.
    """

    inode: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileIdentity | None:
        """None when there is no such file."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        return cls(status.st_ino, status.st_mtime_ns)

    def same_file(self, other: FileIdentity | None) -> bool:
        return other is not None and self.inode == other.inode


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """A restore under way.

    `old`, `folded` and `new` are the files that may have the target's name; `old` is None when there was no database.
    `sidecars` are the files beside the old one, by ending; `journalled`: one of them is part of its content.
    `dropped`: they are unlinked, or about to be, while the old file still has its name. `active` are the units that
    ran before, `restored` the new database's tables, `xxh3` its `stages.unpack.fast_hash` when it was proven.
    """

    phase: Phase
    record: RestoreRecord
    target: str
    staging: str
    set_aside: str
    units: tuple[str, ...]
    active: tuple[str, ...] = ()
    old: FileIdentity | None = None
    folded: FileIdentity | None = None
    new: FileIdentity | None = None
    sidecars: dict[str, FileIdentity] = {}
    journalled: bool = False
    dropped: bool = False
    restored: dict[str, TableFacts] = {}
    xxh3: str | None = None
    reason: str | None = None


def path_of(house: House) -> Path:
    return Path(house.config.state.directory) / _FILE


def load(house: House) -> Journal | None:
    """The restore that was not brought to its end, None when there is none."""
    path = path_of(house)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Journal)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise from_os(error) from error
    except msgspec.MsgspecError as error:
        raise BackupError(f"{path}: not the journal of a restore ({error}); was it changed by hand?") from error


def save(house: House, journal: Journal) -> None:
    """Write the journal durably; only then may what it announces be done."""
    path = path_of(house)
    files.write_durably(path, msgspec.json.format(msgspec.json.encode(journal), indent=2) + b"\n")
    files.owned_like_folder(path)


def remove(house: House) -> None:
    """Forget the restore, and what a kill left of a journal that was being written."""
    path = path_of(house)
    for leftover in path.parent.iterdir():
        if files.temporary_target(leftover.name) == _FILE:
            leftover.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    # If it is there again after a power cut, its restore is only brought to its end once more.
    with suppress(OSError):
        files.fsync_directory(path.parent)
