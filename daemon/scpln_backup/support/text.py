"""Sizes, durations and errors as people read them."""

from __future__ import annotations

_STEP = 1024
_MINUTE = 60
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_MILLISECONDS_BELOW = 0.1
_TENTHS_BELOW = 10


def human_bytes(size: int) -> str:
    """`size` in binary units, as `ls -lh` counts, said so: "512 B", "1.2 MiB", "117 MiB"."""
    if abs(size) < _STEP:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        value /= _STEP
        # 1023.7 KiB would be shown as 1024 KiB: it is 1.0 MiB.
        if round(abs(value)) < _STEP or unit == "PiB":
            break
    return f"{value:.1f} {unit}" if round(abs(value), 1) < _TENTHS_BELOW else f"{value:.0f} {unit}"


def human_duration(seconds: float) -> str:
    """`seconds` in at most two units: "4 ms", "0.3 s", "42 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"."""
    if seconds < 0:
        return "-" + human_duration(-seconds)
    if round(seconds, 1) < _MILLISECONDS_BELOW:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 1) < _TENTHS_BELOW:
        return f"{seconds:.1f} s"
    return _whole(seconds)


def _whole(seconds: float) -> str:
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _two(whole // _MINUTE, "min", whole % _MINUTE, "s")
    minutes = round(seconds / _MINUTE)
    if minutes * _MINUTE < _DAY:
        return _two(minutes * _MINUTE // _HOUR, "h", minutes % 60, "min")
    hours = round(seconds / _HOUR)
    return _two(hours // 24, "d", hours % 24, "h")


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit} {small} {small_unit}" if small else f"{large} {large_unit}"


def one_line(error: BaseException) -> str:
    """What an exception says, on one line and never empty: logs, metrics and messages are made of lines."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return " ".join(f"{where}{error.strerror}".split())
    return " ".join(str(error).split()) or type(error).__name__
