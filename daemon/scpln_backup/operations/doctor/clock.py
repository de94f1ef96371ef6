"""The clock that the schedule and the names of artifacts go by."""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING

from scpln_backup.errors import BackupError
from scpln_backup.operations.doctor.finding import Verdict, doubtful, good

if TYPE_CHECKING:
    from datetime import datetime

    from scpln_backup.operations.doctor.patient import Patient

# struct timex of adjtimex(2): modes, then longs for offset, freq, maxerror and esterror, and the status.
_TIMEX = struct.Struct("@I4l i")
_TIMEX_BYTES = 256  # more than the kernel's 208
_LARGEST_ERROR_MICROSECONDS = 16_000_000  # from there on the kernel calls the clock unsynchronised (NTP_PHASE_LIMIT)


def zone(patient: Patient) -> Verdict:
    """The zone in force; a configuration whose zone cannot be found was refused before."""
    configured = patient.config.schedule.timezone
    name = patient.house.zone.key or "the host's"
    return judge_zone(name, patient.now, configured=bool(configured))


def judge_zone(name: str, now: datetime, *, configured: bool) -> Verdict:
    time = f"{name}, where it is {now:%Y-%m-%d %H:%M}"
    return good(time if configured else f"{time}, as the host has it")


def synchronised(patient: Patient) -> Verdict:
    """What `timedatectl` calls "System clock synchronized", asked of the kernel itself."""
    return judge_clock(_largest_error())


def judge_clock(largest_error_microseconds: int) -> Verdict:
    if largest_error_microseconds >= _LARGEST_ERROR_MICROSECONDS:
        return doubtful(
            "nothing keeps the clock right: names and ages of artifacts, and the alarm, go by it",
            "have systemd-timesyncd or chrony keep it: timedatectl set-ntp true; see: timedatectl timesync-status",
        )
    return good(f"synchronised, within {max(1, largest_error_microseconds // 1000)} ms")


def _largest_error() -> int:
    """The kernel's bound of the clock's error, in microseconds. Reading it takes no privilege."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    if ctypes.CDLL(None, use_errno=True).adjtimex(buffer) < 0:
        raise BackupError(f"the kernel does not tell of its clock: adjtimex: errno {ctypes.get_errno()}")
    _modes, _offset, _freq, largest, _estimated, _status = _TIMEX.unpack_from(buffer)
    return int(largest)
