"""The backup root: `<root>/YYYY/NAME` and its sidecars, published whole or not at all.

An artifact exists from the rename of its own file on, to the moment that file is unlinked: its manifest is there
before and goes after. So whatever a kill leaves is either complete or without an artifact, and what is without
one `clean` removes. What the old procedure left is listed too, as unverified.

An artifact is known by its name. Should two folders hold one name, the one in its year's folder counts and the
other is neither listed nor deleted while that one is there.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from scpln_backup.errors import ArtifactError, ArtifactExistsError, from_os
from scpln_backup.model import Artifact, Manifest, State
from scpln_backup.rules import naming
from scpln_backup.stores import access, sidecars, tree
from scpln_backup.support import files, trees

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo
    from pathlib import Path

_IN_USE = "there already, and an artifact is never overwritten"
# The years a datetime can hold in every zone; a file's mtime can be beyond.
_FIRST_SECOND = datetime(1, 1, 2, tzinfo=UTC).timestamp()
_LAST_SECOND = datetime(9999, 12, 30, tzinfo=UTC).timestamp()


class LocalStore:
    """The artifacts of `database` under `root`; times are given in `zone`.

    Errors of the operating system are raised as BackupErrors with the path, NoSpaceError for a full disk.
    """

    def __init__(self, root: Path, database: str, zone: tzinfo) -> None:
        self.root = root
        self.database = database
        self.zone = zone

    @property
    def staging(self) -> Path:
        """Where unfinished work lies, on the file system of the artifacts. `prepare` makes it."""
        return self.root / tree.STAGING

    def prepare(self) -> Path:
        """Make the root and the staging folder (0700) where they are missing; returns the staging folder."""
        with _os_errors_named():
            files.make_folder(self.staging)
            _refuse_link(self.staging)
        return self.staging

    def scan(self) -> list[Artifact]:
        """All artifacts, newest first by `taken_at`; [] when there is no root.

        Finds what `find ROOT -type f` with the name pattern finds. Reads the manifests, never an artifact.
        A folder that cannot be read raises: artifacts that are not seen would count as lost.
        """
        with _os_errors_named():
            artifacts = [_describe(file, self) for file in self._files().values()]
        # By the instant: datetimes of one zone compare as wall times, which autumn's repeated hour has twice.
        return sorted(artifacts, key=lambda artifact: (artifact.taken_at.timestamp(), artifact.name), reverse=True)

    def get(self, name: str) -> Artifact:
        """The artifact of this name, or ArtifactError."""
        with _os_errors_named():
            return _describe(self._locate(name), self)

    def publish(self, staged: Path, manifest: Manifest) -> Artifact:
        """Move the `staged` file, already synced by its writer, to its place with its sidecars.

        Never overwrites: ArtifactError when the name is in use. On any error nothing of it stays in its place
        and the staged file is left, unless it was moved already.
        """
        status = self._check_staged(staged, manifest)
        target = self._home(manifest.name, manifest.taken_at)
        with _os_errors_named():
            files.make_folder(target.parent)
            _refuse_link(target.parent)
            if tree.present(target):
                raise ArtifactExistsError(f"{target}: {_IN_USE}")
        try:
            # What an interrupted run, or a deletion, left of this name must not pin the new one.
            sidecars.beside(target, sidecars.PIN).unlink(missing_ok=True)
            files.write_durably(sidecars.beside(target, sidecars.MANIFEST), sidecars.encode_manifest(manifest))
            files.write_durably(sidecars.beside(target, sidecars.CHECKSUM), sidecars.encode_checksum(manifest))
            files.publish(staged, target)
            files.fsync_directory(target.parent)
        except BaseException as error:
            _take_back(target, status)
            if isinstance(error, FileExistsError):
                raise ArtifactExistsError(f"{target}: {_IN_USE}") from error
            if isinstance(error, OSError):
                raise from_os(error) from error
            raise
        # Nothing that could fail may follow: the artifact is there for good.
        return _description(tree.File(target, status), sidecars.Reading(manifest, pinned=manifest.pinned), self)

    def update_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest of an artifact that is there (ArtifactError), or give it its first one.

        A pin set in the meantime stays. The caller holds the run lock, as for all that changes a manifest.
        """
        with _os_errors_named():
            path = self._locate(manifest.name).path
            pinned = manifest.pinned or tree.present(sidecars.beside(path, sidecars.PIN))
            self._write_manifest(path, msgspec.structs.replace(manifest, pinned=pinned))

    def pin(self, name: str, pinned: bool) -> None:
        """Keep the artifact from every sweep, or no longer."""
        with _os_errors_named():
            path = self._locate(name).path
            mark = sidecars.beside(path, sidecars.PIN)
            if pinned:
                files.write_durably(mark, b"")
            else:
                mark.unlink(missing_ok=True)
                files.fsync_directory(path.parent)
            manifest = sidecars.read_manifest(path).manifest
            if manifest is not None and manifest.pinned != pinned:
                self._write_manifest(path, msgspec.structs.replace(manifest, pinned=pinned))
            still_pinned = _read(path).pinned
        if still_pinned and not pinned:
            raise ArtifactError(f"{path}: still pinned by its manifest, which this version cannot rewrite")

    def delete(self, name: str) -> None:
        """Delete the artifact, then its sidecars.

        ArtifactError, and nothing deleted, when the name is not an artifact's, when it is pinned by now, and
        when it is being read. The folder stays.
        """
        with _os_errors_named():
            path = self._locate(name).path
            with access.claimed_to_delete(path):
                if _read(path).pinned:
                    raise ArtifactError(f"{path}: pinned, so it is kept; to let it go: scpln-backup unpin {name}")
                path.unlink()
            for ending in sidecars.ALL:
                sidecars.beside(path, ending).unlink(missing_ok=True)
            files.fsync_directory(path.parent)

    @contextmanager
    def reading(self, name: str) -> Iterator[BinaryIO]:
        """The artifact's bytes, under a lock that keeps `delete` away while the context lasts."""
        with _os_errors_named():
            path = self._locate(name).path
            file = access.open_shared(path)
        with file:
            yield file

    def clean(self) -> list[str]:
        """Remove what interrupted runs left, and return its paths, relative to the root.

        That is everything in the staging folder, sidecars without an artifact, and temporary files of sidecars.
        The caller holds the run lock. What cannot be removed is raised after the rest was.
        """
        removed: list[str] = []
        failed: list[OSError] = []
        with _os_errors_named():
            _refuse_link(self.staging)
            leftovers = [*tree.entries(self.staging), *self._orphans()]
        for path in leftovers:
            try:
                if path.is_dir() and not path.is_symlink():
                    trees.remove(path)
                else:
                    path.unlink(missing_ok=True)
            except OSError as error:
                failed.append(error)
            else:
                removed.append(str(path.relative_to(self.root)))
        if failed:
            raise from_os(failed[0]) from failed[0]
        return removed

    def _home(self, name: str, taken_at: datetime) -> Path:
        """Where an artifact is published. The year is the name's: `taken_at` counts for a name without a time."""
        named = naming.taken_at(self.database, name, self.zone)
        return self.root / f"{(named or taken_at.astimezone(self.zone)).year:04}" / name

    def _check_staged(self, staged: Path, manifest: Manifest) -> os.stat_result:
        if "/" in manifest.name or not naming.is_artifact(self.database, manifest.name):
            raise ArtifactError(f"{manifest.name}: not the name of an artifact of {self.database}")
        with _os_errors_named():
            status = staged.lstat()
            if stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) != files.PRIVATE_FILE:
                staged.chmod(files.PRIVATE_FILE)
        if not stat.S_ISREG(status.st_mode) or status.st_size != manifest.bytes:
            raise ArtifactError(f"{staged}: {status.st_size} bytes, but its manifest says {manifest.bytes}")
        return status

    def _files(self) -> dict[str, tree.File]:
        found: dict[str, tree.File] = {}
        for folder, names in tree.walk(self.root):
            for name in names:
                if not naming.is_artifact(self.database, name):
                    continue
                file = tree.regular(folder / name)
                if file is None:
                    continue
                if name not in found or self._rank(file.path) < self._rank(found[name].path):
                    found[name] = file
        return found

    def _rank(self, path: Path) -> tuple[bool, str]:
        named = naming.taken_at(self.database, path.name, self.zone)
        return named is None or path != self._home(path.name, named), str(path)

    def _locate(self, name: str) -> tree.File:
        file = self._files().get(name)
        if file is None:
            raise ArtifactError(f"{name}: no such artifact under {self.root}; see: scpln-backup list")
        return file

    def _write_manifest(self, path: Path, manifest: Manifest) -> None:
        files.write_durably(sidecars.beside(path, sidecars.MANIFEST), sidecars.encode_manifest(manifest))
        checksum = sidecars.beside(path, sidecars.CHECKSUM)
        if not tree.present(checksum):
            files.write_durably(checksum, sidecars.encode_checksum(manifest))

    def _orphans(self) -> Iterator[Path]:
        for folder, names in tree.walk(self.root):
            for name in names:
                target = files.temporary_target(name)
                artifact = sidecars.artifact_of(target or name)
                if artifact is None or not naming.is_artifact(self.database, artifact):
                    continue
                if target is not None or not tree.present(folder / artifact):
                    yield folder / name


def _describe(file: tree.File, store: LocalStore) -> Artifact:
    return _description(file, _read(file.path), store)


def _read(artifact: Path) -> sidecars.Reading:
    """The manifest, and whether it or a `.pin` file pins the artifact."""
    reading = sidecars.read_manifest(artifact)
    pinned = reading.pinned or tree.present(sidecars.beside(artifact, sidecars.PIN))
    return msgspec.structs.replace(reading, pinned=pinned)


def _description(file: tree.File, reading: sidecars.Reading, store: LocalStore) -> Artifact:
    name, size, manifest = file.path.name, file.status.st_size, reading.manifest
    seconds = min(max(file.status.st_mtime, _FIRST_SECOND), _LAST_SECOND)
    modified_at = datetime.fromtimestamp(seconds, store.zone)
    problem, state = reading.problem, State.UNVERIFIED
    if manifest is not None:
        taken_at, state = manifest.taken_at.astimezone(store.zone), manifest.state
        if manifest.bytes != size:
            problem, state = f"{size} bytes, but its manifest says {manifest.bytes}", State.CORRUPT
    else:
        taken_at = naming.taken_at(store.database, name, store.zone) or modified_at
    return Artifact(
        name=name,
        path=str(file.path),
        taken_at=taken_at,
        modified_at=modified_at,
        bytes=size,
        state=state,
        raw_bytes=manifest.fingerprint.size_bytes if manifest and manifest.fingerprint else None,
        pinned=reading.pinned,
        manifest=manifest,
        problem=problem,
    )


def _refuse_link(folder: Path) -> None:
    """What is behind a link is not found again by a walk that follows none."""
    if folder.is_symlink():
        raise ArtifactError(f"{folder}: a symbolic link; make it a folder, or mount what it points to there")


def _take_back(target: Path, staged: os.stat_result) -> None:
    """Undo a publication, as far as the disk lets us: the artifact first, as in a deletion.

    Only the file that was staged is ours to unlink: a FileExistsError means that the target is somebody else's.
    """
    with suppress(OSError):
        if os.path.samestat(target.lstat(), staged):
            target.unlink()
    for ending in sidecars.ALL:
        with suppress(OSError):
            sidecars.beside(target, ending).unlink()
    with suppress(OSError):
        files.fsync_directory(target.parent)


@contextmanager
def _os_errors_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise from_os(error) from error
