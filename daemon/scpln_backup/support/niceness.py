"""Standing back for the application on the same host, but for the instant in which it waits for us.

Where the kernel, or the unit's SystemCallFilter=, refuses, nothing happens: a backup that is not nice is still one.
"""

from __future__ import annotations

import ctypes
import io
import os
import struct
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from typing_extensions import Buffer

_NICE = 10
_READ = 512 * 1024
# ioprio_set(2): glibc has no function for it, and the numbers are each processor's own (ioprio_get's is the next).
# The machine is the kernel's: a program of 32 bits has others.
_NUMBERS = {"x86_64": 251, "aarch64": 30, "riscv64": 30} if sys.maxsize > 2**32 else {}
_IOPRIO_SET = _NUMBERS.get(os.uname().machine)
_SCHED_SETATTR = ({"x86_64": 314, "aarch64": 274, "riscv64": 274} if _NUMBERS else {}).get(os.uname().machine)
# sched_setattr(2): size, policy, flags, nice, priority, runtime, deadline, period
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
_SYNC_FILE_RANGE_WRITE = 2
_SLICE_NANOSECONDS = 100_000_000  # the longest that is taken
_IOPRIO_WHO_PROCESS = 1
_IDLE = 3 << 13  # IOPRIO_CLASS_IDLE: served when nobody else wants the disk, or after a while all the same

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def background_disk() -> Iterator[None]:
    """While the context lasts, what the calling thread reads and syncs waits for everybody else's."""
    before = _ioprio()
    if before is None or not _set_ioprio(_IDLE):
        yield
        return
    try:
        yield
    finally:
        _set_ioprio(before)


def yield_at_once() -> None:
    """Let whoever wakes up have the processor at once, for the same share of it (sched_setattr(2), sched_runtime).

    Since Linux 6.6 a process that has begun its slice is left to finish it: the application, which sleeps and wakes
    up several times in a transaction, would wait for 4 ms each time.  Since 6.12 one that has asked for a longer slice
    than who wakes up is interrupted instead.  Before 6.6 it always was.  For the calling thread and those that it
    starts from then on; who was given another scheduling policy keeps it (CPUSchedulingPolicy=).
    """
    if _SCHED_SETATTR is not None and os.sched_getscheduler(0) == os.SCHED_OTHER:
        nice = os.getpriority(os.PRIO_PROCESS, 0)
        wanted = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, _SLICE_NANOSECONDS, 0, 0)
        _libc.syscall(_SCHED_SETATTR, 0, wanted, 0)


def stand_back() -> None:
    """From now on this process takes what the others leave, processor and disk. There is no way back.

    Call it from the main thread, in a process that leads a session of its own: the priority is that of the calling
    thread and of those that it starts from then on; and where the kernel shares processors out among sessions first
    (sched_autogroup_enabled, Debian's default), a nice value counts within a session only, and the session's own
    is what others feel.
    """
    with suppress(OSError):
        os.nice(_NICE)
    if os.getsid(0) == os.getpid():
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(_NICE), encoding="ascii")
    _set_ioprio(_IDLE)


def read_piecemeal(path: Path) -> BinaryIO:
    """Open a file to be read from its begin to its end, one piece ahead.

    A disk that reads ahead by megabytes has others wait behind these.
    """
    return io.BufferedReader(_Piecemeal(path), _READ)


class _Piecemeal(io.FileIO):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        os.posix_fadvise(self.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

    def readinto(self, buffer: Buffer, /) -> int | None:
        got = super().readinto(buffer)
        os.posix_fadvise(self.fileno(), self.tell(), _READ, os.POSIX_FADV_WILLNEED)
        return got


def begin_writing(descriptor: int, offset: int, size: int) -> None:
    """Have the kernel begin to write a part of a file.

    What is left for one fsync is what the application's own syncs would wait behind.
    """
    if hasattr(_libc, "sync_file_range"):  # not so in musl
        _libc.sync_file_range(descriptor, ctypes.c_int64(offset), ctypes.c_int64(size), _SYNC_FILE_RANGE_WRITE)


def _ioprio() -> int | None:
    """The calling thread's I/O class and level, None where they cannot be known."""
    if _IOPRIO_SET is None:
        return None
    found = _libc.syscall(_IOPRIO_SET + 1, _IOPRIO_WHO_PROCESS, 0)
    return None if found < 0 else int(found)


def _set_ioprio(priority: int) -> bool:
    return _IOPRIO_SET is not None and _libc.syscall(_IOPRIO_SET, _IOPRIO_WHO_PROCESS, 0, priority) == 0
