"""Whether the wall clock was set, told by the clock that nobody can set."""

from __future__ import annotations

import msgspec


class ClockReading(msgspec.Struct, frozen=True):
    """Both clocks at one moment.

    `wall` is seconds since the epoch; `boot` seconds since the boot named by `boot_id`, sleep included
    (CLOCK_BOOTTIME); `boot_id` is /proc/sys/kernel/random/boot_id.
    """

    wall: float
    boot: float
    boot_id: str


def jump(before: ClockReading, after: ClockReading, tolerance_seconds: float = 86400) -> float | None:
    """By how many seconds the wall clock was set between the readings: positive forward, negative back.

    None if it ran with the boot clock within the tolerance, or if the readings are of different boots, where
    nothing can be known.
    """
    if before.boot_id != after.boot_id:
        return None
    difference = (after.wall - before.wall) - (after.boot - before.boot)
    return difference if abs(difference) > tolerance_seconds else None
