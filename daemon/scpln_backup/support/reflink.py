"""A second file that shares the first one's blocks until either is written to (btrfs, XFS, bcachefs)."""

from __future__ import annotations

import fcntl
import struct

# linux/fs.h and linux/fiemap.h, as most processors have them; where a number is another one the kernel knows no such
# call.
_FICLONE = 0x40049409
_FICLONERANGE = 0x4020940D
_CLONE_RANGE = struct.Struct("qQQQ")  # the source's descriptor, its offset, the length, the target's offset
_FIEMAP = 0xC020660B
_MAP = struct.Struct("QQIIII")  # start, length, flags, mapped extents, extents there is room for, reserved
_WHOLE = 2**64 - 1
_BLOCK = 4096


def can_reflink(source: int, target: int) -> bool:
    """Whether the file system can, tried with the first block, which `target` then has."""
    try:
        fcntl.ioctl(target, _FICLONERANGE, _CLONE_RANGE.pack(source, 0, _BLOCK, 0))
    except OSError:  # another file system, one that cannot, or a file of less than a block
        return False
    return True


def reflink(source: int, target: int) -> bool:
    """Make `target`, open for writing, hold what `source` does; False where that cannot be.

    XFS holds up whoever writes to the source meanwhile, in proportion to its extents.  What `target` held beyond the
    end of `source` stays there.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # a plain copy then meets what is truly wrong, and names it
        return False
    return True


def extents(file: int) -> int | None:
    """In how many pieces a file lies on its disk; None where the file system does not say."""
    try:
        found = fcntl.ioctl(file, _FIEMAP, _MAP.pack(0, _WHOLE, 0, 0, 0, 0))
    except OSError:
        return None
    return int(_MAP.unpack(found)[3])
