"""Which file system a path is on, and which disk that is on."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_MOUNTINFO = Path("/proc/self/mountinfo")
_FSTAB = Path("/etc/fstab")
_DISKS = Path("/sys/dev/block")
_OCTAL = re.compile(r"\\([0-7]{3})")
_FSTAB_FIELDS = 3

IN_MEMORY = frozenset({"ramfs", "tmpfs"})
NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3"}
    | {"smbfs", "fuse.ceph", "fuse.cephfs", "fuse.glusterfs", "fuse.gcsfuse", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"}
)


class Mount(msgspec.Struct, frozen=True):
    """A line of proc_pid_mountinfo(5). `device` is the file system's MAJOR:MINOR, `source` what was mounted."""

    point: str
    kind: str
    source: str
    device: str

    @property
    def network(self) -> bool:
        return self.kind in NETWORK


def mounts(text: str | None = None) -> list[Mount]:
    """This process's mounts, in the order they were made; of `text` instead where it is given."""
    found = []
    for line in (
        _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape") if text is None else text
    ).splitlines():
        before, _, after = line.partition(" - ")
        _, _, device, _, point, *_ = before.split(" ")
        kind, mounted, *_ = after.split(" ")
        found.append(Mount(_plain(point), kind, _plain(mounted), device))
    return found


def mount_of(path: Path, among: Sequence[Mount]) -> Mount:
    """The one that `path`, or the nearest folder above it that is there, is on. A later mount covers an earlier one."""
    place = existing(Path(os.path.realpath(path)))
    candidates = [mount for mount in among if _within(str(place), mount.point)]
    return max(enumerate(candidates), key=lambda found: (len(found[1].point), found[0]))[1]


def existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    while not path.exists():
        path = path.parent
    return path


def expected_mount(path: Path, fstab: str | None = None) -> str | None:
    """Where fstab(5) mounts a file system for `path`, the root file system aside; None where it has none for it."""
    try:
        text = _FSTAB.read_text(encoding="utf-8", errors="surrogateescape") if fstab is None else fstab
    except OSError:
        return None
    points = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= _FSTAB_FIELDS and not fields[0].startswith("#"):
            points.append(_plain(fields[1]).rstrip("/"))
    return max((point for point in points if point and _within(str(path), point)), key=len, default=None)


def disks(mount: Mount, folder: Path = _DISKS) -> frozenset[str]:
    """Names of the disks that a file system lies on in the end; empty where the kernel does not tell."""
    device = mount.device
    if device.startswith("0:"):  # btrfs and its like: no device number of a disk's
        try:
            number = Path(mount.source).stat().st_rdev
        except OSError:
            return frozenset()
        device = f"{os.major(number)}:{os.minor(number)}"
    return frozenset(_disks_of(folder / device))


def _disks_of(entry: Path) -> Iterable[str]:
    """Down from a partition to its disk, from a logical volume to its parts, from a loop device to its file."""
    if not entry.exists():
        return
    device = Path(os.path.realpath(entry))
    if (device / "partition").exists():
        device = device.parent
    parts = sorted((device / "slaves").iterdir()) if (device / "slaves").is_dir() else []
    backing = device / "loop" / "backing_file"
    if parts:
        for part in parts:
            yield from _disks_of(part)
    elif backing.exists():
        file = Path(backing.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n"))
        yield from disks(mount_of(file, mounts()))
    else:
        yield device.name


def _within(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _plain(text: str) -> str:
    """Without the octal escapes of white space."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
