"""Putting one database in another's place so that a kill at any point leaves one of them, complete.

The old database may be more than one file: a -wal holds its newest commits, a hot -journal what must be undone.
With either beside it, the new file would be read together with a journal that is not its own, which SQLite does
without complaint (integrity_check says ok to a stale WAL replayed over a restored database).  So there is never
an instant at which the new file and an old journal, or the old file and no journal, stand together:

1. set aside: every old file gets a second name (a hard link) in the set-aside folder; nothing is moved;
2. fold: a private copy of the old set is opened, so that SQLite works its journal into it; that single file, of
   the same content, is renamed over the old one, and then the journal, which can only repeat itself, is unlinked;
3. swap: one rename.

Undoing goes the same way back.  All of it can be done again after a crash.  Only of a database too damaged to be
folded the file stands without its journal for a moment, from which `put_back` leads back too.
"""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from scpln_backup.errors import RestoreFailedError
from scpln_backup.operations.restore.journal import FileIdentity
from scpln_backup.stages.openers import SIDECARS, file_set
from scpln_backup.support import files
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scpln_backup.operations.restore.journal import Journal

# Beside the set-aside folder: a restored database that was written to before its restore was undone, and the journals
# of a damaged one that was written to without them.
KEPT = (".restored", ".journals")

_JOURNALS = ("-wal", "-journal")
# What file systems without hard links, or with other limits on them, answer.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK})
_FOLDED = "folded.db"
_FOLDED_NEXT = "folded.next"
_NEW = "new.db"
# What SQLite says of content; whatever else it says comes from the disk or the machine.
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT})
_READ = 1024 * 1024


def new_database(journal: Journal) -> Path:
    return Path(journal.staging) / _NEW


def has_journal(target: Path) -> bool:
    """Whether a -wal or -journal beside the database is part of its content."""
    return any(_counts(_beside(target, ending)) for ending in _JOURNALS)


def sidecars(target: Path) -> dict[str, FileIdentity]:
    """The files beside the database, by their endings."""
    found = {ending: FileIdentity.of(_beside(target, ending)) for ending in SIDECARS}
    return {ending: identity for ending, identity in found.items() if identity is not None}


def swapped(journal: Journal) -> bool:
    """Whether the target is the new database by now."""
    return journal.new is not None and journal.new.same_file(FileIdentity.of(Path(journal.target)))


def in_place(journal: Journal) -> bool:
    """Whether the old set has all its names, so that there is nothing to put back."""
    now = FileIdentity.of(Path(journal.target))
    if journal.dropped:
        return False
    return journal.old.same_file(now) if journal.old is not None else now is None


def untouched(path: Path, then: FileIdentity, beside: Mapping[str, FileIdentity] | None = None) -> bool:
    """Whether nobody has written to a database since `then`, when it had no journal but those of `beside`."""
    known = beside or {}
    return FileIdentity.of(path) == then and not any(
        _counts(journal := _beside(path, ending)) and FileIdentity.of(journal) != known.get(ending)
        for ending in _JOURNALS
    )


def set_aside(journal: Journal) -> None:
    """Give every file of the old set a second name, as the set is now."""
    target, folder = Path(journal.target), Path(journal.set_aside)
    files.make_folder(folder)
    _give(folder, target.parent)
    for path in folder.iterdir():
        path.unlink()
    _second_names(target, folder, Path(journal.staging))


def prepare_fold(journal: Journal) -> FileIdentity | None:
    """Make the single file of the old set's content; None when the old set is too damaged for that."""
    target, staging = Path(journal.target), Path(journal.staging)
    if not folded_copy(target, staging / _FOLDED):
        return None
    _like(staging / _FOLDED, target)
    _second_name(staging / _FOLDED, staging / _FOLDED_NEXT, staging)
    return FileIdentity.of(staging / _FOLDED_NEXT)


def fold(journal: Journal) -> None:
    """Give the folded file the target's name, then drop the journals that are now in it."""
    target, following = Path(journal.target), Path(journal.staging) / _FOLDED_NEXT
    if following.exists():
        _rename(following, target)
    _drop_sidecars(target)


def folded_copy(database: Path, copy: Path) -> bool:
    """Write the content of a database and the journals beside it into one file; False when it is too damaged.

    Raises OSError when the copy cannot be made for another reason; a database that cannot be read is a damaged one.
    """
    for path in file_set(copy):
        path.unlink(missing_ok=True)
    for ending in ("", *_JOURNALS):
        source = _beside(database, ending)
        if source.exists() and not _copied(source, _beside(copy, ending)):
            return False
    try:
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in _DAMAGE:
            return False
        number = errno.ENOSPC if code == sqlite3.SQLITE_FULL else errno.EIO
        raise OSError(number, f"SQLite says: {one_line(error)}", str(copy)) from error
    except UnicodeDecodeError:  # SQLite's message quotes damaged text
        return False
    if has_journal(copy):
        return False
    for ending in SIDECARS:
        _beside(copy, ending).unlink(missing_ok=True)
    _sync(copy)
    return True


def _copied(source: Path, copy: Path) -> bool:
    """False when the source cannot be read; an OSError is about the copy."""
    with source.open("rb") as reader, copy.open("xb") as writer:
        while True:
            try:
                piece = reader.read(_READ)
            except OSError:
                return False
            if not piece:
                return True
            writer.write(piece)


def swap(journal: Journal) -> None:
    """Give the new database the target's name.

    Raises RestoreFailedError, and changes nothing, when somebody has written to the old one since it was set aside.
    Who has it open and has not written yet is found by looking for openers of `predecessor` afterwards.
    """
    target = Path(journal.target)
    if swapped(journal):
        return
    _require_undisturbed(journal)
    _drop_sidecars(target)
    _rename(new_database(journal), target)


def predecessor(journal: Journal) -> Path:
    """Another name of the file that had the target's name before the swap."""
    if journal.folded is not None:
        return Path(journal.staging) / _FOLDED
    return Path(journal.set_aside) / Path(journal.target).name


def take_back(journal: Journal) -> None:
    """Undo the swap alone, for a process that has opened the predecessor in the last instant.

    The journals that are beside the target by now are that process's, and belong to the file it has open.
    """
    again = Path(journal.staging) / "again.back"
    _second_name(predecessor(journal), again, Path(journal.staging))
    _rename(again, Path(journal.target))


def _require_undisturbed(journal: Journal) -> None:
    target = Path(journal.target)
    if journal.folded is not None:
        undisturbed = untouched(target, journal.folded)
    elif journal.old is not None:
        undisturbed = untouched(target, journal.old, journal.sidecars)
    else:
        undisturbed = not target.exists()
    if not undisturbed:
        msg = f"{target}: somebody has written to it since the units were stopped; find out who, then restore again"
        raise RestoreFailedError(msg)


def put_back(journal: Journal) -> Path | None:
    """Make the target what it was, whatever was done to it; return the folder of what was written since and is kept.

    What was written to a database since the crash is never thrown away: on the old file, or the folded one, it is
    left in place; a restored one is kept beside the target.  So is what the application made where there was none.
    Raises RestoreFailedError when the target is a file that this restore knows nothing of.
    """
    _put_back(journal)
    kept = (_kept_beside(Path(journal.set_aside), ending) for ending in KEPT)
    return next((folder for folder in kept if folder.exists()), None)


def _put_back(journal: Journal) -> None:
    target, aside, staging = Path(journal.target), Path(journal.set_aside), Path(journal.staging)
    if not target.exists() and not aside.exists():
        return  # the old set was not touched yet; somebody else has taken the database away
    if not target.exists() or swapped(journal):
        _put_back_from_new(journal)
    elif _is(target, journal.old, aside / target.name):
        if journal.dropped:
            _complete_old(journal)
    elif journal.folded is not None and _is(target, journal.folded, staging / _FOLDED):
        if untouched(target, journal.folded, journal.sidecars):
            _put_original_back(journal)
    elif journal.old is not None:
        msg = (
            f"{target}: neither the old database nor the restored one; somebody has put another file there: look at "
            f"it, and move it away"
        )
        raise RestoreFailedError(msg)


def _put_back_from_new(journal: Journal) -> None:
    """From the restored database, or from none."""
    target, staging = Path(journal.target), Path(journal.staging)
    if journal.new is not None and target.exists() and not untouched(target, journal.new):
        restored = _kept_beside(Path(journal.set_aside), KEPT[0])
        files.make_folder(restored)
        _give(restored, target.parent)
        _second_names(target, restored, staging)
    _drop_sidecars(target, but=journal.sidecars)
    if journal.old is None:
        target.unlink(missing_ok=True)
        _restore_sidecars(journal)
    else:
        files.make_folder(staging)
        if journal.folded is not None:
            made_again = _require_folded(journal)
            _second_name(staging / _FOLDED, staging / "folded.back", staging)
            _rename(staging / "folded.back", target)
            if not made_again and not untouched(target, journal.folded):
                return  # whoever opened it before the swap has written to it: that is the old database now
        _put_original_back(journal)


def _require_folded(journal: Journal) -> bool:
    """Make the folded file once more from what was set aside, when the end of a restore had removed it already.

    Returns whether that was necessary: such a file is one that nobody can have opened.
    """
    folded, original = Path(journal.staging) / _FOLDED, Path(journal.set_aside) / Path(journal.target).name
    if folded.exists():
        return False
    if not folded_copy(original, folded):
        raise RestoreFailedError(f"{original}: damaged since it was set aside")
    _like(folded, original)
    return True


def _put_original_back(journal: Journal) -> None:
    target, staging = Path(journal.target), Path(journal.staging)
    files.make_folder(staging)
    if journal.folded is not None:
        # The target is the folded file: journals beside it for a moment only repeat what it holds already.
        _restore_sidecars(journal)
    _second_name(Path(journal.set_aside) / target.name, staging / "old.back", staging)
    _rename(staging / "old.back", target)
    _restore_sidecars(journal)


def _complete_old(journal: Journal) -> None:
    """The old file has its name, and lacks its journals. One that was written to meanwhile has no use for them."""
    target, aside = Path(journal.target), Path(journal.set_aside)
    unchanged = journal.old is not None and untouched(target, journal.old, journal.sidecars)
    if unchanged or _same_content(target, aside / target.name):
        _restore_sidecars(journal)
    elif journal.journalled and aside.exists():
        aside.rename(_kept_beside(aside, KEPT[1]))
        files.fsync_directory(aside.parent)


def clear(journal: Journal, *, forget_old: bool) -> None:
    """Remove the staging folder, and after an undoing the set-aside folder, whose files have their names again."""
    target = Path(journal.target)
    folders = [Path(journal.staging)]
    if forget_old:
        folders.append(Path(journal.set_aside))
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)
    files.fsync_directory(target.parent)


def take_over_attributes(new: Path, target: Path) -> None:
    """Give the new database the owner, mode and extended attributes (ACLs too) of the one it replaces."""
    _like(new, target)
    _sync(new)


def _like(path: Path, model: Path) -> None:
    status, own = model.stat(), path.stat()
    if (status.st_uid, status.st_gid) != (own.st_uid, own.st_gid):
        os.chown(path, status.st_uid, status.st_gid)
    path.chmod(status.st_mode & 0o7777)
    wanted = set(os.listxattr(model))
    # A label that the kernel gives by itself may refuse to be changed; it is right already then.
    for name in wanted:
        with suppress(PermissionError):
            os.setxattr(path, name, os.getxattr(model, name))
    for name in set(os.listxattr(path)) - wanted:  # such as an ACL that the folder gave it
        with suppress(PermissionError):
            os.removexattr(path, name)


def _give(folder: Path, model: Path) -> None:
    if os.geteuid() == 0:
        status = model.stat()
        os.chown(folder, status.st_uid, status.st_gid)


def _beside(database: Path, ending: str) -> Path:
    return database.with_name(database.name + ending)


def _kept_beside(aside: Path, ending: str) -> Path:
    return aside.with_name(aside.name + ending)


def _counts(journal: Path) -> bool:
    """Whether SQLite would take anything from a -wal or -journal.

    A -journal that begins with a zero is a finished one, kept for the next transaction
    (https://www.sqlite.org/fileformat2.html#the_rollback_journal).
    """
    try:
        with journal.open("rb") as file:
            first = file.read(1)
    except FileNotFoundError:
        return False
    return first != b"" and (first != b"\0" or journal.name.endswith("-wal"))


def _is(target: Path, identity: FileIdentity | None, copy: Path) -> bool:
    """Whether the target is a file of this restore: by its inode, or, where there are no hard links, by its bytes."""
    if identity is None:
        return False
    if identity.same_file(FileIdentity.of(target)):
        return True
    return copy.exists() and filecmp.cmp(target, copy, shallow=False)


def _same_content(path: Path, copy: Path) -> bool:
    """Whether another file has the same bytes; a second name of the same one tells nothing."""
    return copy.exists() and not path.samefile(copy) and filecmp.cmp(path, copy, shallow=False)


def _drop_sidecars(target: Path, but: Mapping[str, FileIdentity] | None = None) -> None:
    """Unlink what is beside the target, all of it or `but` the files that are known."""
    known = but or {}
    for ending in SIDECARS:
        path = _beside(target, ending)
        if ending not in known or FileIdentity.of(path) != known[ending]:
            path.unlink(missing_ok=True)
    files.fsync_directory(target.parent)


def _restore_sidecars(journal: Journal) -> None:
    target, aside = Path(journal.target), Path(journal.set_aside)
    for ending in SIDECARS:
        kept, path = aside / (target.name + ending), _beside(target, ending)
        if kept.exists() and not path.exists():
            _second_name(kept, path, Path(journal.staging))
    files.fsync_directory(target.parent)


def _second_names(database: Path, folder: Path, staging: Path) -> None:
    for path in file_set(database):
        if path.exists():
            _second_name(path, folder / path.name, staging)
    files.fsync_directory(folder)
    files.fsync_directory(folder.parent)


def _second_name(path: Path, name: Path, staging: Path) -> None:
    """A hard link; where the file system has none, a copy with all attributes, whole before it has its name."""
    name.unlink(missing_ok=True)
    try:
        os.link(path, name)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        part = staging / f"{name.name}.part"
        shutil.copyfile(path, part)
        _like(part, path)
        _sync(part)
        part.replace(name)


def _rename(source: Path, target: Path) -> None:
    source.replace(target)
    files.fsync_directory(target.parent)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
