"""The small files beside an artifact: `NAME.json`, `NAME.sha256` and `NAME.pin`.

`.json` is the manifest and `.sha256` what `sha256sum -c` reads. `.pin` is an empty file that keeps the artifact
from every sweep. A pin is a file of its own, and only copied into the manifest, because an artifact of the old
procedure has no manifest, because a damaged manifest must not lose a pin, and because a verification that writes
its manifest back after ten minutes must not undo a pin set in the meantime.
"""

from __future__ import annotations

import errno
import os
import stat
from datetime import MAXYEAR, MINYEAR
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.model import Manifest
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

MANIFEST = ".json"
CHECKSUM = ".sha256"
PIN = ".pin"
ALL = (MANIFEST, CHECKSUM, PIN)

_FORMAT = 1
# A database of 100,000 tables has a manifest of about 5 MB; more is not a manifest.
_SIZE_LIMIT = 16 * 1024 * 1024


class Reading(msgspec.Struct, frozen=True):
    """What the file in the place of a manifest says: a manifest, or the problem with it, or neither (no file)."""

    manifest: Manifest | None = None
    problem: str | None = None
    pinned: bool = False


def beside(artifact: Path, ending: str) -> Path:
    return artifact.with_name(artifact.name + ending)


def artifact_of(filename: str) -> str | None:
    """The artifact that a sidecar of this name belongs to; None when it is not named like a sidecar."""
    return next((filename.removesuffix(ending) for ending in ALL if filename.endswith(ending)), None)


def encode_manifest(manifest: Manifest) -> bytes:
    """Indented: people read it, and tools that know nothing of this program."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def encode_checksum(manifest: Manifest) -> bytes:
    """The line of sha256sum(1), checked by `sha256sum -c` in the artifact's folder."""
    return f"{manifest.sha256}  {manifest.name}\n".encode()


def read_manifest(artifact: Path) -> Reading:
    """The manifest beside `artifact`. Never raises: a listing must not fail on one bad file."""
    path = beside(artifact, MANIFEST)
    try:
        manifest = msgspec.json.decode(_read_small(path), type=Manifest)
    except FileNotFoundError:
        return Reading()
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        return Reading(problem=f"unreadable manifest {path.name}: {one_line(error)}")
    if manifest.format != _FORMAT:
        problem = f"manifest {path.name} has format {manifest.format}, this version reads {_FORMAT}"
        return Reading(problem=problem, pinned=manifest.pinned)
    if manifest.name != artifact.name:
        return Reading(problem=f"manifest {path.name} is of another artifact, {manifest.name}")
    if not all(time is None or (time.tzinfo and MINYEAR < time.year < MAXYEAR) for time in _times(manifest)):
        return Reading(problem=f"manifest {path.name} has a time that is no instant", pinned=manifest.pinned)
    return Reading(manifest=manifest, pinned=manifest.pinned)


def _read_small(path: Path) -> bytes:
    """The content of a regular file of bounded size: what lies there need not be a file of ours."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        data = file.read(_SIZE_LIMIT + 1)
    if len(data) > _SIZE_LIMIT:
        raise OSError(errno.EFBIG, "too large for a manifest", str(path))
    return data


def _times(manifest: Manifest) -> list[datetime | None]:
    times = [manifest.taken_at, manifest.verified_at, manifest.accepted_at]
    if manifest.run is not None:
        times += [manifest.run.started_at, manifest.run.finished_at]
    return times
