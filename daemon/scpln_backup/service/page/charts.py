"""From runs to the geometry of the charts: pure, and without words.

Across, a chart is measured in percent of its width, so that it fits a phone and a wide screen alike; upwards in
pixels, y growing downwards as in SVG. A day is a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from scpln_backup.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date, datetime, tzinfo

    from scpln_backup.model import RunRecord

DAYS = 30

INTERRUPTED = "interrupted"
# The ways a run ends, best first.
ENDINGS = (Outcome.SUCCESS.value, Outcome.DEGRADED.value, Outcome.SUSPECT.value, INTERRUPTED, Outcome.FAILED.value)

# Of a column's width, what a bar takes.
_BAR_SHARE = 0.72
# What is more than nothing must be seen.
_LOWEST_BAR = 2.0
_TICK_EVERY = 7


def ending(run: RunRecord) -> str:
    """How a run ended: its outcome, or that it was interrupted."""
    return INTERRUPTED if run.interrupted else run.outcome.value


@dataclass(frozen=True)
class Day:
    """A local day and the runs that began in it, newest first.

    `expected`: the program was there on that day, and the day is over, so that no run on it is worth a word.
    """

    date: date
    runs: tuple[RunRecord, ...]
    expected: bool

    @property
    def endings(self) -> dict[str, int]:
        """How many of the runs ended how, best first."""
        found = [ending(run) for run in self.runs]
        return {kind: found.count(kind) for kind in ENDINGS if kind in found}

    @property
    def size(self) -> int | None:
        """Bytes of the newest artifact made on this day."""
        return next((run.artifact_bytes for run in self.runs if run.artifact_bytes is not None), None)

    @property
    def longest(self) -> float | None:
        """Seconds of the run that took longest."""
        return max((run.duration_seconds for run in self.runs if run.duration_seconds is not None), default=None)


def last_days(
    runs: Iterable[RunRecord], *, now: datetime, zone: tzinfo, installed_at: datetime | None, count: int = DAYS
) -> list[Day]:
    """The last `count` days by the clocks of `zone`, the last one today: one for each date, be it 23 or 25 hours long.

    Runs of other days are left out. Those of a day keep their order.
    """
    today = now.astimezone(zone).date()
    first = today if installed_at is None else installed_at.astimezone(zone).date()
    by_date: dict[date, list[RunRecord]] = {today - timedelta(days=back): [] for back in reversed(range(count))}
    for run in runs:
        of_day = by_date.get(run.started_at.astimezone(zone).date())
        if of_day is not None:
            of_day.append(run)
    return [Day(day, tuple(found), expected=first < day < today) for day, found in by_date.items()]


@dataclass(frozen=True)
class Column:
    """Where a column of a chart is, in percent; `centre` is its middle."""

    left: float
    width: float

    @property
    def centre(self) -> float:
        return round(self.left + self.width / 2, 3)


@dataclass(frozen=True)
class Bar:
    """`left` and `width` in percent, `top` and `height` in pixels."""

    left: float
    width: float
    top: float
    height: float


@dataclass(frozen=True)
class Extent:
    """The smallest, the largest and the newest of the values of a chart."""

    least: float
    greatest: float
    newest: float


def columns(count: int) -> list[Column]:
    """`count` columns of one width, side by side from 0 to 100 %."""
    return [Column(left=round(100 * place / count, 3), width=round(100 / count, 3)) for place in range(count)]


def bars(values: Sequence[float | None], height: float) -> list[Bar | None]:
    """A bar for each value, None for none; they stand on y = `height`, and the largest value reaches y = 0."""
    largest = max((value for value in values if value is not None), default=0)
    drawn: list[Bar | None] = []
    for column, value in zip(columns(len(values)), values, strict=True):
        if value is None:
            drawn.append(None)
            continue
        tall = round(min(height, max(_LOWEST_BAR, height * value / largest if largest else 0)), 2)
        width = column.width * _BAR_SHARE
        left = round(column.left + (column.width - width) / 2, 3)
        drawn.append(Bar(left=left, width=round(width, 3), top=round(height - tall, 2), height=tall))
    return drawn


def extent(values: Sequence[float | None]) -> Extent | None:
    """None when there is no value. The newest is the last."""
    known = [value for value in values if value is not None]
    return Extent(least=min(known), greatest=max(known), newest=known[-1]) if known else None


def marks(day: Day) -> list[str]:
    """What is drawn for a day, from below: the best ending and, where it is another, the worst."""
    kinds = list(day.endings)
    return kinds if len(kinds) < len(("best", "worst")) else [kinds[0], kinds[-1]]


def ticks(count: int) -> list[int]:
    """The columns that get a date, oldest first: the last one, and others in steps of a week before it."""
    return list(range((count - 1) % _TICK_EVERY, count, _TICK_EVERY))
