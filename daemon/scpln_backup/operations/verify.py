"""Prove artifacts again: decompress, compare with the manifest, check the database, note what was found."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

import msgspec

from scpln_backup import __version__
from scpln_backup.errors import ArtifactError, SourceError, StoppedError, from_os
from scpln_backup.events import ArtifactVerified, ShrinkAccepted
from scpln_backup.model import Manifest, State
from scpln_backup.operations import reading
from scpln_backup.rules.naming import compression_of
from scpln_backup.stages import blocks  # noqa: TC001 - msgspec reads the annotations at run time
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence
    from pathlib import Path

    from scpln_backup.model import Artifact, Fingerprint
    from scpln_backup.operations.house import House


class Verification(msgspec.Struct, frozen=True):
    """`ok` means that the artifact restores to the database it was made of. `state` is what it counts as now."""

    name: str
    ok: bool
    error: str | None
    state: State


class Reading(msgspec.Struct, frozen=True):
    """What reading an artifact gave: `fingerprint` is None when it holds no sound database, which `error` says.

    `stored` is None when the artifact cannot be decompressed.
    """

    stored: blocks.Stored | None
    fingerprint: Fingerprint | None
    error: str | None


def chosen(house: House, names: Sequence[str], *, every: bool) -> list[Artifact]:
    """The artifacts of these names, all of them, or the newest. ArtifactError for a name that is not there."""
    if names:
        return [house.store.get(name) for name in names]
    artifacts = house.store.scan()
    return artifacts if every else artifacts[:1]


def verify(house: House, artifact: Artifact, *, accept: bool = False) -> Verification:
    """Read one artifact as a restore would, and write what was found into its manifest.

    `accept` says that a suspect artifact's shrink was meant: it counts as verified, and later runs are compared
    with artifacts from it on.  Raises LockHeldError while a run is under way, BackupError when the reading itself
    could not be done (no room, no permission), which says nothing about the artifact.
    """
    house.require_owner()
    with house.run_lock(f"verification of {artifact.name}"):
        artifact = house.store.get(artifact.name)
        house.store.prepare()
        house.store.clean()
        try:
            found = read(house, artifact, house.store.staging / "verify.db")
        except OSError as error:
            if error.filename is None:  # a write or a read, which don't say where
                error.filename = str(house.store.staging)
            raise from_os(error) from error
        finally:
            house.store.clean()
        return judge(house, artifact, found, accept=accept)


def read(
    house: House, artifact: Artifact, copy: Path, *, durable: bool = False, cancel: threading.Event | None = None
) -> Reading:
    """Decompress an artifact into the new file `copy` (0600) and check the database in it, as a restore would.

    `durable` has it synced to the disk, `cancel` gives it up (StoppedError). Raises BackupError or OSError when the
    reading itself could not be done, which says nothing about the artifact.
    """

    def go_on() -> None:
        if cancel is not None and cancel.is_set():
            raise StoppedError(f"{artifact.name}: reading it was interrupted")

    with reading.Prover() as prover, house.store.reading(artifact.name) as file:
        try:
            stored = reading.write(file, compression_of(artifact.name), house.workers, copy, lambda _done: go_on())
        except ArtifactError as error:
            return Reading(None, None, one_line(error))
        try:
            proven = prover.prove(copy, go_on, durable=durable)
        except SourceError as error:
            return Reading(stored, None, f"what it decompresses to is {one_line(error)}")
    return Reading(stored, proven.fingerprint, None)


def judge(house: House, artifact: Artifact, found: Reading, *, accept: bool = False) -> Verification:
    """Compare what was read with the manifest, write the verdict into it, and tell everybody.

    The caller holds the run lock.
    """
    problem = found.error or _difference(artifact, found)
    manifest = _judged(house, artifact, found, problem, accept=accept)
    if manifest is not None:
        house.store.update_manifest(manifest)
    try:
        house.catalog.sync_artifacts(house.store.scan(), house.now())
    finally:  # nobody finds damage a second time in what is called corrupt
        house.announce(ArtifactVerified(name=artifact.name, error=problem))
    if accept and artifact.state is State.SUSPECT and problem is None:
        house.announce(ShrinkAccepted(name=artifact.name))
    state = manifest.state if manifest is not None else State.UNVERIFIED
    return Verification(artifact.name, problem is None, problem, state)


def _difference(artifact: Artifact, read: Reading) -> str | None:
    manifest = artifact.manifest
    if manifest is None or read.stored is None or manifest.fingerprint is None:
        return None
    if read.stored.sha256 != manifest.sha256:
        return "its sha256 differs from the manifest's: the file was changed or damaged"
    if read.fingerprint != manifest.fingerprint:
        return "its database differs from the manifest's fingerprint"
    return None


def _judged(house: House, artifact: Artifact, read: Reading, error: str | None, *, accept: bool) -> Manifest | None:
    """The manifest with the verdict in it; None where there is nothing to write one from."""
    now = house.now()
    manifest = artifact.manifest or _adopted(house, artifact, read)
    if manifest is None:
        return None
    if error is not None:
        return msgspec.structs.replace(manifest, state=State.CORRUPT, state_reason=error)
    still_suspect = manifest.state is State.SUSPECT and not accept
    return msgspec.structs.replace(
        manifest,
        fingerprint=read.fingerprint,
        state=State.SUSPECT if still_suspect else State.VERIFIED,
        state_reason=manifest.state_reason if still_suspect else None,
        verified_at=None if still_suspect else now,
        checked_at=now,
        accepted_at=now if manifest.state is State.SUSPECT and accept else manifest.accepted_at,
    )


def _adopted(house: House, artifact: Artifact, read: Reading) -> Manifest | None:
    """A manifest for an artifact that came without one (the old procedure's)."""
    if read.stored is None and artifact.problem is not None:
        return None  # its manifest is there and unreadable; it is kept for whoever looks into it
    return Manifest(
        name=artifact.name,
        database=house.config.database.name,
        environment=house.config.environment,
        taken_at=artifact.taken_at,
        compression=compression_of(artifact.name),
        bytes=artifact.bytes,
        sha256=read.stored.sha256 if read.stored is not None else "",
        fingerprint=read.fingerprint,
        state=State.UNVERIFIED,
        pinned=artifact.pinned,
        host=os.uname().nodename,
        program=f"scpln-backup {__version__}",
        sqlite=sqlite3.sqlite_version,
    )
