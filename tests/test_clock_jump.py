"""Whether the wall clock was set."""

from __future__ import annotations

import pytest

from scpln_backup.rules.clock import ClockReading, jump

BEFORE = ClockReading(wall=1_800_000_000.0, boot=5000.0, boot_id="a")


@pytest.mark.parametrize(
    ("wall", "boot", "expected"),
    [
        (3600, 3600, None),
        (30 * 86400, 30 * 86400, None),  # a month's sleep is no jump
        (86400 + 60, 60, None),  # exactly the tolerance
        (86401 + 60, 60, 86401.0),
        (60 - 86400, 60, None),
        (60 - 86401, 60, -86401.0),
        (365 * 86400, 1, 365 * 86400.0 - 1),
    ],
)
def test_jump(wall, boot, expected):
    after = ClockReading(wall=BEFORE.wall + wall, boot=BEFORE.boot + boot, boot_id="a")
    assert jump(BEFORE, after) == expected


def test_tolerance():
    after = ClockReading(wall=BEFORE.wall + 70, boot=BEFORE.boot + 10, boot_id="a")
    assert jump(BEFORE, after, tolerance_seconds=59) == 60
    assert jump(BEFORE, after, tolerance_seconds=60) is None


def test_nothing_is_known_across_a_boot():
    assert jump(BEFORE, ClockReading(wall=0.0, boot=1.0, boot_id="b")) is None
