"""When jobs are due: five-field crontab in an IANA zone, each local day's slot exactly once.

cronsim parses the expression and walks the calendar (Debian cron's rules: Sunday is 0 or 7, day-of-month and
day-of-week are alternatives unless one of them begins with a star). What it answers around a change of the
clocks is not enough: started in autumn's second 02:15 it gives the first 02:30, which is past, and a slot in a
gap that ends at midnight (23:30 in America/Nuuk) lands on the next day, which then has two. So it walks wall
clocks, and this module says which instant each one is.
"""

from __future__ import annotations

import hashlib
from datetime import (
    UTC,
    datetime,
    timedelta,
)
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
from cronsim import CronSim, CronSimError

from scpln_backup.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from zoneinfo import ZoneInfo

_FIELDS = "minute hour day-of-month month day-of-week"
_HOURS_A_DAY = 24
_SET_BACK = timedelta(hours=1)


class Schedule:
    """The slots of one crontab expression.

    Slots belong to the local day: an expression for certain hours (`30 2 * * *`, `0 */6 * * *`) fires once for
    each time it names on each local date. A time in spring's missing hour fires as soon as the gap ends, or in
    the last minute before it where the gap ends on the next date; one in autumn's repeated hour fires the first
    time. An expression for every hour (`*/10 * * * *`) goes by elapsed time: it fires in both repeated hours,
    and not in the missing one.

    A jitter delays each slot by 0 to `jitter_seconds`, always by the same for the same slot and salt, and never
    up to the next slot, so that slots keep their order.

    All methods take any aware datetime and give aware ones in `zone`. Python compares and subtracts two
    datetimes of one zone by their wall clocks: convert to UTC before doing either.

    ConfigError: the expression is not five-field crontab, or never fires.
    """

    def __init__(self, expression: str, zone: ZoneInfo, *, jitter_seconds: int = 0, salt: str = "") -> None:
        self.expression = expression
        self.zone = zone
        self._jitter_seconds = jitter_seconds
        self._salt = salt
        self._by_elapsed_time = len(_parse(expression).hours) == _HOURS_A_DAY
        minute, _hour, *days = expression.split()
        # cronsim tells "every hour" by the star alone; `0-23` means the same.
        self._cron = " ".join((minute, "*", *days)) if self._by_elapsed_time else expression

    def after(self, moment: datetime) -> Iterator[datetime]:
        """All slots later than `moment`, in order, without end."""
        start = moment.astimezone(UTC)
        for slot, following in pairwise(self._undelayed(start - timedelta(seconds=self._jitter_seconds))):
            delayed = slot + self._delay(slot, following)
            if delayed > start:
                yield delayed.astimezone(self.zone)

    def next_after(self, moment: datetime) -> datetime:
        return next(self.after(moment))

    def last_at_or_before(self, moment: datetime) -> datetime | None:
        """The latest slot up to `moment`; None if there was none for a hundred years."""
        # Walked forward from further and further back: so it agrees with next_after by construction.
        end = moment.astimezone(UTC)
        for power in range(11):
            last = None
            for slot in self.after(end - timedelta(hours=4**power)):
                if slot.astimezone(UTC) > end:
                    break
                last = slot
            if last is not None:
                return last
        return None

    def _undelayed(self, start: datetime) -> Iterator[datetime]:
        """Instants in UTC, later than `start` and strictly ascending."""
        local = start.astimezone(self.zone)
        last = start
        for walked in CronSim(self._cron, local if self._by_elapsed_time else local.replace(tzinfo=None)):
            # An aware one may be a midnight that the zone skips; the way to UTC makes it a real time.
            slot = walked.astimezone(UTC) if self._by_elapsed_time else _instant(walked, self.zone)
            # Times in a gap fall together, and from within the repeated hour the walk passes its first half.
            if slot is not None and slot > last:
                yield slot
                last = slot

    def _delay(self, slot: datetime, following: datetime) -> timedelta:
        longest = min(self._jitter_seconds, int((following - slot).total_seconds()) - 1)
        if longest <= 0:
            return timedelta()
        digest = hashlib.sha256(f"{self._salt}\n{int(slot.timestamp())}".encode()).digest()
        return timedelta(seconds=int.from_bytes(digest) % (longest + 1))


class Due(msgspec.Struct, frozen=True):
    """What is to run now, and what to remember.

    `slot`: run for this one; store it as served before the run starts, so that a crash does not run it again.
    `served`: what counts as served as of now. Where it differs from what was passed in, store it.
    """

    slot: datetime | None
    served: datetime


def due(schedule: Schedule, *, served: datetime | None, now: datetime) -> Due:
    """The latest slot up to now, if it is later than the last one served.

    Several missed slots are one: the latest. Nothing served yet means that nothing was due before now.

    A `served` more than an hour in the future means that the clock was set back, or had been wrong: it is
    taken as now, so that the next slot by the right clock runs, even if its like ran by the wrong one. Up to an
    hour it stays, so that a small step back at 02:30 does not run the slot twice.
    """
    if served is None or served.astimezone(UTC) - now.astimezone(UTC) > _SET_BACK:
        return Due(slot=None, served=now)
    slot = schedule.last_at_or_before(now)
    if slot is not None and slot.astimezone(UTC) > served.astimezone(UTC):
        return Due(slot=slot, served=served)
    return Due(slot=None, served=served)


def _parse(expression: str) -> CronSim:
    fields = expression.split()
    if len(fields) != len(_FIELDS.split()):
        raise ConfigError(f"cron expression {expression!r}: {len(fields)} fields where five are needed: {_FIELDS}")
    start = datetime.fromtimestamp(0, UTC).replace(tzinfo=None)
    try:
        parsed = CronSim(expression, start)
        next(CronSim(expression, start))
    except StopIteration:
        raise ConfigError(f"cron expression {expression!r} never fires: there is no such day") from None
    except (CronSimError, ValueError) as error:  # ValueError: a number of thousands of digits
        what = str(error).lower()
        if "day-of-month" in what and _is_valid((*fields[:3], "*", fields[4])):
            # cronsim's word for a day that exists, but in none of the months.
            raise ConfigError(f"cron expression {expression!r} never fires: no such day in month {fields[3]}") from None
        raise ConfigError(f"cron expression {expression!r}: {what} (the fields are {_FIELDS})") from None
    return parsed


def _is_valid(fields: tuple[str, ...]) -> bool:
    try:
        CronSim(" ".join(fields), datetime.fromtimestamp(0, UTC))
    except CronSimError:
        return False
    return True


def _instant(wall: datetime, zone: ZoneInfo) -> datetime | None:
    """The instant, in UTC, at which the slot of the local time `wall` (naive) fires; None if its date is skipped."""
    instant = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == wall:
        return instant
    # In a gap, fold=1 reads the time with the offset from after it (PEP 495): an instant before the gap.
    gap = _change_between(wall.replace(tzinfo=zone, fold=1).astimezone(UTC), instant, zone)
    for candidate in (gap, gap - timedelta(minutes=1)):
        if candidate.astimezone(zone).date() == wall.date():
            return candidate
    return None


def _change_between(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """The first second with another offset than `low` has; `high` has one. All in UTC."""
    before = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high
