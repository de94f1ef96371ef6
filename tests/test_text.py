"""Sizes, durations, errors and the clock as people and rules read them."""

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scpln_backup.support import clock
from scpln_backup.support.text import human_bytes, human_duration, one_line


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1258291, "1.2 MiB"),
        (10 * 1024**2 - 1, "10 MiB"),
        (117 * 1024**2, "117 MiB"),
        (1024**2 - 1, "1.0 MiB"),
        (4 * 1024**3, "4.0 GiB"),
        (-2048, "-2.0 KiB"),
    ],
)
def test_sizes(size, text):
    assert human_bytes(size) == text


@given(st.integers(min_value=0, max_value=2**60))
def test_a_size_is_within_five_percent(size):
    number, unit = human_bytes(size).split()
    factor = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].index(unit)
    assert abs(float(number) * factor - size) <= 0.05 * size
    assert float(number) < 1024 or unit == "PiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0042, "4 ms"),
        (0.34, "0.3 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86399, "1 d"),
        (273600, "3 d 4 h"),
        (-90, "-1 min 30 s"),
    ],
)
def test_durations(seconds, text):
    assert human_duration(seconds) == text


@given(st.floats(min_value=0, max_value=1e9))
def test_a_duration_has_no_overflowing_unit(seconds):
    text = human_duration(seconds)
    for number, limit in (re.search(r"(\d+) min", text), 60), (re.search(r"(\d+) h", text), 24):
        assert number is None or int(number[1]) < limit


def test_errors_are_one_line_and_never_empty():
    assert one_line(ValueError("first\n  second")) == "first second"
    assert one_line(TimeoutError()) == "TimeoutError"
    assert one_line(FileNotFoundError(2, "No such file or directory", "/a")) == "/a: No such file or directory"
    assert one_line(OSError(5, "Input/output error")) == "Input/output error"


def test_now_is_aware():
    zone = ZoneInfo("Asia/Tokyo")
    assert clock.now(zone).tzinfo is zone
    assert abs(clock.now(zone) - datetime.now().astimezone()).total_seconds() < 5


def test_the_clock_reading_advances_within_one_boot():
    first, second = clock.read_clock(), clock.read_clock()
    assert first[2] == second[2] != ""
    assert second[1] >= first[1] > 0
    assert second[0] >= first[0]


def test_the_clock_without_proc(monkeypatch, tmp_path):
    """As under systemd's ProcSubset=pid; the same boot clock is asked another way."""
    with_proc = clock.read_clock()
    monkeypatch.setattr(clock, "_UPTIME", tmp_path / "uptime")
    monkeypatch.setattr(clock, "_BOOT_ID", tmp_path / "boot_id")
    without = clock.read_clock()
    assert abs(without[1] - with_proc[1]) < 5
    assert without[2] not in {"", with_proc[2]}
    assert clock.read_clock()[2] == without[2]
