"""Sizes, times and trends as messages give them, and the listing of the newest artifacts. Pure."""

from __future__ import annotations

from datetime import UTC
from statistics import median
from typing import TYPE_CHECKING

from scpln_backup.model import Outcome
from scpln_backup.support.text import human_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, tzinfo

    from scpln_backup.model import Artifact, RunRecord
    from scpln_backup.observers.wording.texts import Texts

LISTED = 10  # as many lines as tail(1) prints
_COMPARED = 7
_STEP = 1024
_UNITS = "KMGTPE"
_ONE_UNIT = 10  # tenths
_TENTHS_BELOW = 10
MINUS = "\N{MINUS SIGN}"


def ls_size(size: int) -> str:
    """`size` bytes as `ls -h` prints them: powers of 1024, rounded up, one decimal below ten ("1.1K", "117M")."""
    if size < _STEP:
        return str(size)
    scale = 1
    for unit in _UNITS:
        scale *= _STEP
        tenths = -(-size * 10 // scale)
        if tenths < _TENTHS_BELOW * _ONE_UNIT:
            return f"{tenths // 10}.{tenths % 10}{unit}"
        whole = -(-size // scale)
        if whole < _STEP:
            break
    return f"{whole}{unit}"


def listing(artifacts: Sequence[Artifact], zone: tzinfo) -> str | None:
    """The newest artifacts as the former procedure's `ls -lh DIR | tail` showed them: size, time and name, newest last.

    `artifacts` in any order. None when there are none. Owner and mode, which are always the same, are left out.
    """
    newest = sorted(artifacts, key=lambda artifact: (artifact.taken_at.timestamp(), artifact.name))[-LISTED:]
    if not newest:
        return None
    sizes = [ls_size(artifact.bytes) for artifact in newest]
    width = max(map(len, sizes))
    return "\n".join(
        f"{size:>{width}} {local(artifact.modified_at, zone)} {artifact.name}"
        for size, artifact in zip(sizes, newest, strict=True)
    )


def local(at: datetime, zone: tzinfo) -> str:
    """A minute by the clock on the wall of `zone`."""
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M}"


def duration(seconds: float, texts: Texts) -> str:
    """In at most two units, as support.text.human_duration, in the language of `texts`."""
    words = human_duration(max(seconds, 0)).split()
    return texts.unit_gap.join(
        f"{number}{texts.unit_space}{texts.units[unit]}" for number, unit in zip(words[::2], words[1::2], strict=True)
    )


def before(record: RunRecord, runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs before `record`, newest first."""
    start = record.started_at.astimezone(UTC)
    earlier = [run for run in runs if run.started_at.astimezone(UTC) < start]
    return sorted(earlier, key=lambda run: run.started_at.astimezone(UTC), reverse=True)


def trend(now: float, runs: Sequence[RunRecord], figure: Callable[[RunRecord], float | None], texts: Texts) -> str:
    """How `now` compares with the median of the last seven good ones of `runs` (newest first); "" without any."""
    good = [figure(run) for run in runs if run.outcome in (Outcome.SUCCESS, Outcome.DEGRADED)]
    known = [value for value in good if value][:_COMPARED]
    if not known:
        return ""
    middle = median(known)
    text = texts.against_one if len(known) == 1 else texts.against
    return text.format(change=_signed((now - middle) * 100 / middle), count=len(known))


def _signed(percent: float) -> str:
    """With one decimal while that matters; the minus sign is the typographic one."""
    digits = 1 if round(abs(percent), 1) < _TENTHS_BELOW else 0
    number = f"{abs(percent):.{digits}f}"
    if float(number) == 0:
        return f"±{number}"
    return f"{'+' if percent > 0 else MINUS}{number}"
