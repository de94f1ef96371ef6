"""What a restore writes and what it finds in place: proven to be what the manifest says."""

from __future__ import annotations

import grp
import hashlib
import logging
import os
import pwd
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from scpln_backup.errors import ArtifactError, RestoreFailedError, RestoreRefusedError, SourceError, StoppedError
from scpln_backup.events import Progressed, StageEntered
from scpln_backup.model import Stage
from scpln_backup.operations.restore import swap
from scpln_backup.rules.naming import compression_of
from scpln_backup.stages import check, pack
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    import threading

    from scpln_backup.model import Artifact, Fingerprint
    from scpln_backup.operations.house import House
    from scpln_backup.operations.restore.journal import Journal

log = logging.getLogger(__name__)

_READ = 1024 * 1024
_DEFAULT_MODE = 0o640


def unpack_checked(house: House, artifact: Artifact, new: Path, cancel: threading.Event) -> pack.Packed:
    """Write an artifact's database to the new file `new`, durably, and prove that it is what its manifest says.

    Raises RestoreRefusedError when it is not, StoppedError once `cancel` is set.
    """
    total = artifact.raw_bytes or 0
    done = 0
    house.announce(StageEntered(stage=Stage.PROVE))

    def write(piece: bytes) -> None:
        nonlocal done
        if cancel.is_set():
            raise StoppedError("stopped by the operator")
        target.write(piece)
        done += len(piece)
        if total:
            house.announce(Progressed(stage=Stage.PROVE, done=done, total=total))

    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with house.store.reading(artifact.name) as file, os.fdopen(descriptor, "wb") as target:
        try:
            packed = pack.unpack(file, compression_of(artifact.name), house.workers, write)
        except ArtifactError as error:
            raise RestoreRefusedError(f"{artifact.name}: {one_line(error)}; choose another artifact") from error
        target.flush()
        os.fsync(target.fileno())
    house.announce(StageEntered(stage=Stage.CHECK))
    try:
        content = check.examine(new)
    except SourceError as error:
        raise RestoreRefusedError(f"{artifact.name}: its database is {one_line(error)}; choose another") from error
    manifest = artifact.manifest
    if manifest is not None and manifest.fingerprint is not None:
        if packed.artifact_sha256 != manifest.sha256:
            raise RestoreRefusedError(f"{artifact.name}: its sha256 differs from its manifest's; choose another")
        if content.fingerprint(packed.raw_sha256, packed.raw_bytes) != manifest.fingerprint:
            raise RestoreRefusedError(f"{artifact.name}: its database differs from its manifest; choose another")
    return packed


def check_in_place(house: House, journal: Journal, target: Path) -> None:
    """Prove that what has the target's name now is the restored database, and nothing beside it."""
    if journal.new is not None and not swap.untouched(target, journal.new):
        # Written to since: after a crash the units were started on it. Its content is theirs now; it must be sound.
        log.warning("%s was written to since it was put in place; checking it as it is", target)
        copy = Path(journal.staging) / "looked-at.db"
        if not swap.folded_copy(target, copy):
            raise RestoreFailedError(f"{target}: damaged since it was put in place")
        _examined(copy, target)
        return
    content = _examined(target, target)
    expected = _expected(house, journal)
    if expected is not None and content.fingerprint(_sha256(target), target.stat().st_size) != expected:
        raise RestoreFailedError(f"{target}: not the database that was restored; its fingerprint differs")


def _examined(database: Path, target: Path) -> check.Content:
    try:
        return check.examine(database)
    except SourceError as error:
        raise RestoreFailedError(f"{target}: {error}") from error


def _expected(house: House, journal: Journal) -> Fingerprint | None:
    manifest = house.store.get(journal.record.artifact).manifest
    return manifest.fingerprint if manifest is not None else None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ):
            digest.update(piece)
    return digest.hexdigest()


def attributes_from_manifest(new: Path, artifact: Artifact) -> None:
    """No database is there to take the owner and mode from: its manifest knows them, or else the folder does."""
    known = artifact.manifest.source if artifact.manifest is not None else None
    folder = new.parent.parent.stat()
    uid, gid, mode = folder.st_uid, folder.st_gid, _DEFAULT_MODE
    if known is not None:
        mode = int(known.mode, 8)
        with suppress(KeyError):
            uid, gid = pwd.getpwnam(known.owner).pw_uid, grp.getgrnam(known.group).gr_gid
    if os.geteuid() == 0:
        os.chown(new, uid, gid)
    new.chmod(mode)
    with new.open("rb") as file:
        os.fsync(file.fileno())
