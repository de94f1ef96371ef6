"""When jobs are due: each local day's slot exactly once, in every zone."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scpln_backup.errors import ConfigError
from scpln_backup.rules.slots import Due, Schedule, due

BERLIN = ZoneInfo("Europe/Berlin")
TOKYO = ZoneInfo("Asia/Tokyo")
NEW_YORK = ZoneInfo("America/New_York")
CAIRO = ZoneInfo("Africa/Cairo")
NUUK = ZoneInfo("America/Nuuk")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
DAY = timedelta(days=1)
SPAN = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2037, 1, 1, tzinfo=UTC))


def local(text, zone=BERLIN, fold=0):
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def iso(moments, count=5):
    return [moment.isoformat() for moment in islice(moments, count)]


def changes(zone):
    """The instants in SPAN at which the zone's offset changes, to the minute."""
    found = []
    low, end = SPAN
    while low < end:
        high = low + 6 * DAY  # no zone changes and changes back within a week
        if low.astimezone(zone).utcoffset() != high.astimezone(zone).utcoffset():
            before, after = low, high
            while after - before > timedelta(minutes=1):
                middle = before + (after - before) // 120 * 60
                if middle.astimezone(zone).utcoffset() == low.astimezone(zone).utcoffset():
                    before = middle
                else:
                    after = middle
            found.append(after.replace(second=0, microsecond=0))
        low = high
    return tuple(found)


def distinct_zones():
    """One zone for each way to behave in SPAN, with its changes."""
    distinct = {}
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        moments = changes(zone)
        offsets = tuple(moment.astimezone(zone).utcoffset() for moment in (SPAN[0], *moments))
        distinct.setdefault((moments, offsets), zone)
    return [(zone, moments) for (moments, _offsets), zone in distinct.items()]


def expected(day, at, zone):
    """The instant of the slot at `at` on the local date `day`, found by looking at every minute of it."""
    minute = datetime.combine(day, time(), UTC) - timedelta(hours=15)
    minutes = [minute + timedelta(minutes=n) for n in range(54 * 60)]
    of_day = [m for m in minutes if m.astimezone(zone).date() == day]
    # The first minute that reads so or later; the last minute of the day where none does.
    return next((m for m in of_day if m.astimezone(zone).time() >= at), of_day[-1])


TIMES = ["02:30", "00:30", "23:30", "01:59", "00:00", "23:59", "03:00"]


def test_one_slot_a_local_date_in_every_zone():
    """The days around every change of the clocks in every zone to 2036, and some in between."""
    zones = distinct_zones()
    assert len(zones) > 50
    chance = random.Random(20261122)
    for zone, moments in zones:
        some = [SPAN[0] + chance.random() * (SPAN[1] - SPAN[0]) for _ in range(3)]
        first_days = [moment.astimezone(zone).date() - 2 * DAY for moment in (*moments, *some)]
        for text in TIMES:
            at = time.fromisoformat(text)
            schedule = Schedule(f"{at.minute} {at.hour} * * *", zone)
            for first_day in first_days:
                days = [first_day + n * DAY for n in range(5)]
                slots = list(islice(schedule.after(datetime.combine(days[0], time(), zone) - timedelta(seconds=1)), 5))
                assert [slot.date() for slot in slots] == days, (zone.key, text)
                for slot in slots:
                    assert slot == slot.astimezone(UTC).astimezone(zone), "a time that exists"
                    assert slot.time() == at or any(abs(slot - m) <= timedelta(minutes=1) for m in moments)


def test_slots_around_changes_are_where_the_rule_says():
    """Against a definition that looks at every minute: the odd changes, and the common ones."""
    for zone in (BERLIN, NEW_YORK, CAIRO, NUUK, LORD_HOWE, ZoneInfo("Antarctica/Troll"), ZoneInfo("America/Havana")):
        for moment in changes(zone)[:2]:
            for day in (moment.astimezone(zone).date() + n * DAY for n in (-1, 0, 1)):
                for text in (*TIMES, "02:15", "22:45", "01:00"):
                    at = time.fromisoformat(text)
                    slot = expected(day, at, zone)
                    schedule = Schedule(f"{at.minute} {at.hour} * * *", zone)
                    assert schedule.next_after(slot - timedelta(seconds=1)).astimezone(UTC) == slot, (zone, day, at)
                    last = schedule.last_at_or_before(slot)
                    assert last is not None
                    assert last.astimezone(UTC) == slot


def test_spring_and_autumn_in_berlin():
    nightly = Schedule("30 2 * * *", BERLIN)
    assert iso(nightly.after(local("2026-03-28T12:00")), 2) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    assert iso(nightly.after(local("2026-10-24T12:00")), 2) == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]
    # From within the second 02:00 hour the first 02:30 is past.
    assert nightly.next_after(local("2026-10-25T02:15", fold=1)).isoformat() == "2026-10-26T02:30:00+01:00"
    last = nightly.last_at_or_before(local("2026-10-25T02:15", fold=1))
    assert last is not None
    assert last.isoformat() == "2026-10-25T02:30:00+02:00"


def test_a_gap_that_ends_at_midnight():
    """In Nuuk 23:00 becomes 00:00: the slot stays on its date, in the last minute of it."""
    assert iso(Schedule("30 23 * * *", NUUK).after(local("2026-03-27T12:00", NUUK)), 3) == [
        "2026-03-27T23:30:00-02:00",
        "2026-03-28T22:59:00-02:00",
        "2026-03-29T23:30:00-01:00",
    ]


def test_a_gap_that_begins_at_midnight():
    assert iso(Schedule("30 0 * * *", CAIRO).after(local("2026-04-23T12:00", CAIRO)), 2) == [
        "2026-04-24T01:00:00+03:00",
        "2026-04-25T00:30:00+03:00",
    ]


def test_a_date_that_the_zone_skips_has_no_slot():
    """Samoa went from the 29th to the 31st of December 2011."""
    apia = ZoneInfo("Pacific/Apia")
    dates = [slot.date().day for slot in islice(Schedule("30 2 * * *", apia).after(local("2011-12-28T12:00", apia)), 3)]
    assert dates == [29, 31, 1]


def test_times_of_one_gap_are_one_slot():
    assert iso(Schedule("0,30 2,3 * * *", BERLIN).after(local("2026-03-29T00:00")), 3) == [
        "2026-03-29T03:00:00+02:00",
        "2026-03-29T03:30:00+02:00",
        "2026-03-30T02:00:00+02:00",
    ]


@pytest.mark.parametrize("expression", ["*/30 * * * *", "0,30 0-23 * * *"])
def test_every_hour_goes_by_elapsed_time(expression):
    schedule = Schedule(expression, BERLIN)
    for start in ("2026-03-29T00:00", "2026-10-25T00:00"):
        slots = [slot.astimezone(UTC) for slot in islice(schedule.after(local(start)), 12)]
        assert {later - earlier for earlier, later in pairwise(slots)} == {timedelta(minutes=30)}


@given(
    expression=st.sampled_from(
        [
            "30 2 * * *", "0 * * * *", "*/7 * * * *", "0 */6 * * *", "15,45 1-3,23 * * 0", "0 * * * 4",
            "0 9 1 * *", "0 4 * * SUN", "0 0 29 2 *", "59 23 L * *", "* * * * 5",
        ]
    ),
    zone=st.sampled_from([BERLIN, TOKYO, NEW_YORK, CAIRO, NUUK, LORD_HOWE, ZoneInfo("UTC")]),
    moment=st.datetimes(datetime(2026, 1, 1), datetime(2036, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis wants naive bounds
    jitter=st.sampled_from([0, 0, 59, 1800, 100_000]),
)  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_next_and_last_agree(expression, zone, moment, jitter):
    schedule = Schedule(expression, zone, jitter_seconds=jitter, salt="host")
    last = schedule.last_at_or_before(moment)
    following = schedule.next_after(moment)
    assert last is not None
    assert last.tzinfo is zone
    assert last.astimezone(UTC) <= moment < following.astimezone(UTC)
    assert schedule.next_after(last) == following, "nothing in between"
    assert schedule.last_at_or_before(following) == following
    assert schedule.last_at_or_before(following.astimezone(UTC) - timedelta(seconds=1)) == last
    ahead = [slot.astimezone(UTC) for slot in islice(schedule.after(moment), 5)]
    assert ahead[0] == following.astimezone(UTC)
    assert all(earlier < later for earlier, later in pairwise(ahead))


@pytest.mark.parametrize(
    ("expression", "slots"),
    [
        ("0 4 * * 0", ["2026-11-29T04:00", "2026-12-06T04:00"]),
        ("0 4 * * 7", ["2026-11-29T04:00", "2026-12-06T04:00"]),
        ("0 4 * * sun", ["2026-11-29T04:00", "2026-12-06T04:00"]),
        ("0 4 * * 5-7", ["2026-11-27T04:00", "2026-11-28T04:00"]),
        ("0 9 1 * *", ["2026-12-01T09:00", "2027-01-01T09:00"]),
        ("0 9 1 jan-mar/2 *", ["2027-01-01T09:00", "2027-03-01T09:00"]),
        ("5/25 2 * * *", ["2026-11-24T02:05", "2026-11-24T02:30"]),
        ("0 2,14 * * *", ["2026-11-23T14:00", "2026-11-24T02:00"]),
        ("0 0 1 * 1", ["2026-11-30T00:00", "2026-12-01T00:00"]),  # the 1st, or a Monday
        ("0 0 13 * 5", ["2026-11-27T00:00", "2026-12-04T00:00"]),
        ("0 0 29 2 *", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        ("0 0 30 2 mon", ["2027-02-01T00:00", "2027-02-08T00:00"]),  # no 30th, but Mondays
    ],
)
def test_standard_crontab(expression, slots):
    monday = local("2026-11-23T12:00", TOKYO)
    assert [slot.strftime("%Y-%m-%dT%H:%M") for slot in islice(Schedule(expression, TOKYO).after(monday), 2)] == slots


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("", "0 fields where five are needed"),
        ("@daily", "1 fields where five"),
        ("30 2 * *", "4 fields where five"),
        ("0 30 2 * * *", "6 fields where five"),
        ("60 2 * * *", "bad minute"),
        ("30 24 * * *", "bad hour"),
        ("30 2 0 * *", "bad day-of-month"),
        ("30 2 32 * *", "bad day-of-month"),
        ("30 2 * 13 *", "bad month"),
        ("30 2 * * 8", "bad day-of-week"),
        ("30 2 * * tag", "bad day-of-week"),
        ("*/0 2 * * *", "bad minute"),
        ("5-1 2 * * *", "bad minute"),
        ("1,,2 2 * * *", "bad minute"),
        ("-1 2 * * *", "bad minute"),
        ("30 2 30 2 *", "never fires"),
        ("30 2 31 4,6,9,11 *", "never fires"),
    ],
)
def test_a_wrong_expression_is_refused_by_name(expression, wrong):
    with pytest.raises(ConfigError) as refused:
        Schedule(expression, TOKYO)
    assert repr(expression) in str(refused.value)
    assert wrong in str(refused.value)
    assert "\n" not in str(refused.value)


@given(expression=st.lists(st.text("0123456789*/,-#LWmonJAN ", max_size=6), min_size=5, max_size=5).map(" ".join))
@settings(deadline=None, max_examples=200)
def test_any_five_words_are_a_schedule_or_refused(expression):
    try:
        schedule = Schedule(expression, BERLIN)
    except ConfigError:
        return
    now = local("2026-11-23T12:00")
    assert schedule.next_after(now) > now


def test_jitter_is_bounded_fixed_and_salted():
    plain = Schedule("30 2 * * *", TOKYO)
    start = local("2026-11-23T12:00", TOKYO)
    here = list(islice(Schedule("30 2 * * *", TOKYO, jitter_seconds=600, salt="a").after(start), 200))
    again = list(islice(Schedule("30 2 * * *", TOKYO, jitter_seconds=600, salt="a").after(here[99]), 100))
    there = list(islice(Schedule("30 2 * * *", TOKYO, jitter_seconds=600, salt="b").after(start), 200))
    delays = [(slot - base).total_seconds() for slot, base in zip(here, plain.after(start), strict=False)]
    assert all(0 <= delay <= 600 for delay in delays)
    assert len(set(delays)) > 100
    assert max(delays) > 500
    assert again == here[100:]
    assert there != here


def test_a_jitter_longer_than_the_period_keeps_the_order():
    start = local("2026-10-24T23:59:59")
    slots = list(islice(Schedule("*/5 * * * *", BERLIN, jitter_seconds=86400).after(start), 200))
    bases = list(islice(Schedule("*/5 * * * *", BERLIN).after(start), 201))
    stamps = [base.timestamp() for base in bases]
    assert all(a <= slot.timestamp() < b for slot, (a, b) in zip(slots, pairwise(stamps), strict=True))


NIGHTLY = Schedule("30 2 * * *", TOKYO)


@pytest.mark.parametrize(
    ("served", "now", "expected_due"),
    [
        (None, "2026-11-23T12:00", Due(None, local("2026-11-23T12:00", TOKYO))),
        ("2026-11-22T02:30", "2026-11-23T02:29:59", Due(None, local("2026-11-22T02:30", TOKYO))),
        (
            "2026-11-22T02:30",
            "2026-11-23T02:30",
            Due(local("2026-11-23T02:30", TOKYO), local("2026-11-22T02:30", TOKYO)),
        ),
        ("2026-11-23T02:30", "2026-11-23T02:30", Due(None, local("2026-11-23T02:30", TOKYO))),
        (
            "2026-11-10T12:34",
            "2026-11-23T12:00",
            Due(local("2026-11-23T02:30", TOKYO), local("2026-11-10T12:34", TOKYO)),
        ),
        ("2026-11-23T02:30", "2026-11-23T01:30", Due(None, local("2026-11-23T02:30", TOKYO))),
        ("2026-11-23T02:30", "2026-11-23T01:29:59", Due(None, local("2026-11-23T01:29:59", TOKYO))),
        ("2027-11-23T02:30", "2026-11-23T02:40", Due(None, local("2026-11-23T02:40", TOKYO))),
    ],
    ids=["first start", "not yet", "now", "served", "missed: once", "an hour back", "more back", "was a year ahead"],
)
def test_due(served, now, expected_due):
    served_at = None if served is None else local(served, TOKYO)
    assert due(NIGHTLY, served=served_at, now=local(now, TOKYO)) == expected_due


def test_due_tells_the_repeated_hours_apart():
    hourly = Schedule("0 * * * *", BERLIN)
    answer = due(hourly, served=local("2026-10-25T02:00"), now=local("2026-10-25T02:05", fold=1))
    assert answer.slot is not None
    assert answer.slot.isoformat() == "2026-10-25T02:00:00+01:00"
    assert due(hourly, served=answer.slot, now=local("2026-10-25T02:10", fold=1)).slot is None


class Night:
    """A daemon that looks at irregular moments and remembers what due() tells it to."""

    def __init__(self, zone, start):
        self.schedule = Schedule("30 2 * * *", zone)
        self.zone = zone
        self.now = start.astimezone(UTC)
        self.served = None
        self.runs = Counter()
        self.look()

    def look(self):
        # Its memory is a file: instants come back in whatever zone.
        answer = due(self.schedule, served=self.served, now=self.now)
        self.served = answer.served.astimezone(UTC)
        if answer.slot is not None:
            self.served = answer.slot.astimezone(UTC)
            self.runs[answer.slot.date()] += 1

    def step(self, seconds):
        self.now += timedelta(seconds=seconds)
        self.look()


CHANGE_DAYS = [
    (BERLIN, date(2026, 3, 29)),
    (BERLIN, date(2026, 10, 25)),
    (TOKYO, date(2026, 11, 22)),
    (NEW_YORK, date(2026, 3, 8)),
    (NEW_YORK, date(2026, 11, 1)),
]


@given(
    where=st.sampled_from(CHANGE_DAYS),
    steps=st.lists(st.one_of(st.integers(1, 3 * 3600), st.integers(-3600, 60)), min_size=5, max_size=60),
)
@settings(deadline=None, max_examples=80)
def test_one_run_a_local_day_however_the_clock_steps(where, steps):
    """Steps forward of up to three hours and back of up to one, over the day of the change and its neighbours."""
    zone, day = where
    daemon = Night(zone, datetime.combine(day - DAY, time(12), zone))
    furthest = daemon.now
    end = datetime.combine(day + DAY, time(12), zone).astimezone(UTC)
    for step in [*steps, *[7200] * 40]:
        back = (daemon.now - furthest).total_seconds()
        daemon.step(max(step, -3600 - back))
        furthest = max(furthest, daemon.now)
        if daemon.now > end:
            break
    assert daemon.now > end
    assert set(takewhile(lambda d: d <= day + DAY, sorted(daemon.runs))) == {day, day + DAY}
    assert set(daemon.runs.values()) == {1}


@pytest.mark.parametrize(("zone", "day"), CHANGE_DAYS)
@pytest.mark.parametrize("beat", [7, 29, 61])
def test_a_heartbeat_through_the_whole_day(zone, day, beat):
    """Every `beat` minutes from noon to noon, with a step of 20 minutes back right after the run."""
    daemon = Night(zone, datetime.combine(day - DAY, time(12), zone))
    end = datetime.combine(day, time(12), zone).astimezone(UTC)
    while not daemon.runs:
        daemon.step(beat * 60)
    daemon.step(-1200)
    while daemon.now < end:
        daemon.step(beat * 60)
    assert daemon.runs == {day: 1}


def test_asleep_over_three_nights_is_one_run():
    daemon = Night(BERLIN, local("2026-10-23T12:00"))
    daemon.step(3 * 86400)
    daemon.step(60)
    assert daemon.runs == {date(2026, 10, 26): 1}


def test_a_clock_set_back_by_hours_waits_for_the_next_slot_by_the_new_clock():
    daemon = Night(TOKYO, local("2026-11-22T12:00", TOKYO))
    daemon.step(15 * 3600)
    assert daemon.runs == {date(2026, 11, 23): 1}
    daemon.step(-86400)
    assert daemon.runs == {date(2026, 11, 23): 1}, "nothing runs at the set-back itself"
    daemon.step(86400)
    assert daemon.runs == {date(2026, 11, 23): 2}, "by the new clock the night comes again"
