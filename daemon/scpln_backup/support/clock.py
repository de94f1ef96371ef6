"""The clocks, read in one place so that decisions can be given the time."""

from __future__ import annotations

import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import tzinfo

_UPTIME = Path("/proc/uptime")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_UNKNOWN_BOOT = f"process-{uuid.uuid4()}"


def now(zone: tzinfo) -> datetime:
    """The wall clock in `zone`, aware."""
    return datetime.now(zone)


def read_clock() -> tuple[float, float, str]:
    """The wall clock (seconds since 1970), the seconds since boot, and which boot that was.

    Seconds since boot go on while the machine sleeps and are not set by anybody (proc_uptime(5)), so between
    two readings of one boot both clocks advance alike, unless the wall clock was set. time.monotonic() stands
    still in a suspend, which would look like a jump. Where /proc is restricted (systemd's ProcSubset=pid)
    CLOCK_BOOTTIME, the same clock, is used, and the boot gets a name of this process's own: readings of one
    process are of one boot, and of two processes nothing is known.
    """
    return time.time(), _seconds_since_boot(), _boot_id()


def _seconds_since_boot() -> float:
    try:
        return float(_UPTIME.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return _UNKNOWN_BOOT
