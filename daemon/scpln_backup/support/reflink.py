"""A second file that shares the first one's blocks until either is written to (btrfs, XFS, bcachefs)."""

from __future__ import annotations

import fcntl

# linux/fs.h, as most processors have it; where the number is another one the kernel knows no such call.
_FICLONE = 0x40049409


def reflink(source: int, target: int) -> bool:
    """Make `target`, open for writing, hold what `source` does; False, and nothing done, where that cannot be."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # another file system, or none that can; a plain copy then meets what is truly wrong, and names it
        return False
    return True
