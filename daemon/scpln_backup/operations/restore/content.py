"""What a restore writes and what it finds in place: proven to be what the manifest says."""

from __future__ import annotations

import grp
import logging
import os
import pwd
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import ArtifactError, RestoreFailedError, RestoreRefusedError, SourceError, StoppedError
from scpln_backup.events import Progressed, StageEntered
from scpln_backup.model import Stage
from scpln_backup.operations import reading
from scpln_backup.operations.restore import swap
from scpln_backup.rules.naming import compression_of
from scpln_backup.stages import check, unpack
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    import threading

    from scpln_backup.model import Artifact, Fingerprint
    from scpln_backup.operations.house import House
    from scpln_backup.operations.restore.journal import Journal

log = logging.getLogger(__name__)

_DEFAULT_MODE = 0o640


class Restored(msgspec.Struct, frozen=True):
    """A restored database, proven, and the sha256 of the artifact it came from."""

    artifact_sha256: str
    proven: reading.Proven


def unpack_checked(
    house: House, artifact: Artifact, new: Path, cancel: threading.Event, *, with_tables: bool = False
) -> Restored:
    """Write an artifact's database to the new file `new`, durably, and prove that it is what its manifest says.

    Raises RestoreRefusedError when it is not, StoppedError once `cancel` is set.
    """
    total = artifact.raw_bytes or 0

    def go_on() -> None:
        if cancel.is_set():
            raise StoppedError("stopped by the operator")

    def step(done: int) -> None:
        go_on()
        if total:
            house.announce(Progressed(stage=Stage.PROVE, done=done, total=total))

    manifest = artifact.manifest
    expected = manifest.fingerprint if manifest is not None else None
    house.announce(StageEntered(stage=Stage.PROVE))
    with reading.Prover() as prover:
        with house.store.reading(artifact.name) as file:
            try:
                stored = reading.write(file, compression_of(artifact.name), house.workers, new, step)
            except ArtifactError as error:
                raise RestoreRefusedError(f"{artifact.name}: {one_line(error)}; choose another artifact") from error
        if manifest is not None and expected is not None and stored.sha256 != manifest.sha256:
            raise RestoreRefusedError(f"{artifact.name}: its sha256 differs from its manifest's; choose another")
        house.announce(StageEntered(stage=Stage.CHECK))
        try:
            proven = prover.prove(new, go_on, durable=True, with_tables=with_tables)
        except SourceError as error:
            raise RestoreRefusedError(f"{artifact.name}: its database is {one_line(error)}; choose another") from error
    if expected is not None and proven.fingerprint != expected:
        raise RestoreRefusedError(f"{artifact.name}: its database differs from its manifest; choose another")
    return Restored(stored.sha256, proven)


def check_in_place(house: House, journal: Journal, target: Path) -> None:
    """Prove that what has the target's name now is the restored database, and nothing beside it.

    The application is down meanwhile. So what was proven before it was stopped is not proven again from the start:
    integrity_check and fingerprint are functions of the file's bytes, and these are compared.
    """
    if journal.new is not None and not swap.untouched(target, journal.new):
        # Written to since: after a crash the units were started on it. Its content is theirs now; it must be sound.
        log.warning("%s was written to since it was put in place; checking it as it is", target)
        copy = Path(journal.staging) / "looked-at.db"
        if not swap.folded_copy(target, copy):
            raise RestoreFailedError(f"{target}: damaged since it was put in place")
        _examined(copy, target)
        return
    if journal.xxh3 is not None:
        same = unpack.fast_hash(target) == journal.xxh3
    else:  # the journal of a version that did not note the bytes
        content, expected = _examined(target, target), _expected(house, journal)
        held = unpack.read_back(target)
        same = expected is None or content.fingerprint(held.sha256, held.size_bytes) == expected
    if not same:
        raise RestoreFailedError(f"{target}: not the database that was restored; its content differs")


def _examined(database: Path, target: Path) -> check.Content:
    try:
        return check.examine(database)
    except SourceError as error:
        raise RestoreFailedError(f"{target}: {error}") from error


def _expected(house: House, journal: Journal) -> Fingerprint | None:
    manifest = house.store.get(journal.record.artifact).manifest
    return manifest.fingerprint if manifest is not None else None


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
