"""The geometry of the page's charts: days, columns, bars, marks."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scpln_backup.config.schema import Locale
from scpln_backup.model import Outcome, RunRecord, Trigger
from scpln_backup.service.page import charts, panels
from scpln_backup.service.page.render import TEXTS
from scpln_backup.service.page.words import Words
from support.page_views import NOW, TOKYO, failed, run

BERLIN = ZoneInfo("Europe/Berlin")
# Clocks that change at midnight, by half an hour, twice a year by two hours, or around Ramadan.
ZONES = ["Europe/Berlin", "America/New_York", "Africa/Cairo", "America/Santiago", "Asia/Beirut", "Australia/Lord_Howe",
         "Antarctica/Troll", "Africa/Casablanca", "Asia/Tokyo", "America/Nuuk"]  # fmt: skip
zones = st.sampled_from(ZONES).map(ZoneInfo)
# Four years by the minute.
instants = st.integers(0, 4 * 365 * 24 * 60).map(
    lambda minutes: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)
values = st.lists(st.none() | st.just(0) | st.integers(1, 1 << 50) | st.floats(0.001, 1e7), min_size=1, max_size=40)


def a_run(at, outcome=Outcome.SUCCESS, **facts):
    return RunRecord(trigger=Trigger.SCHEDULE, started_at=at, outcome=outcome, **facts)


def days_of(runs, now=NOW, zone=TOKYO, installed_at=None):
    return charts.last_days(runs, now=now, zone=zone, installed_at=installed_at)


@given(zones, instants, st.lists(st.integers(0, 33 * 24 * 60), max_size=30))
@settings(max_examples=150)
def test_one_column_for_each_local_day_whatever_the_clocks_do(zone, now, minutes_ago):
    """Thirty consecutive dates that end today, and each run of them on the day that its reader's clock showed."""
    runs = [a_run(now - timedelta(minutes=minutes)) for minutes in sorted(minutes_ago)]
    days = days_of(runs, now, zone)
    today = now.astimezone(zone).date()
    assert len(days) == 30
    assert days[-1].date == today
    assert all(later.date - earlier.date == timedelta(days=1) for earlier, later in pairwise(days))
    for day in days:
        assert all(found.started_at.astimezone(zone).date() == day.date for found in day.runs)
    shown = sum(len(day.runs) for day in days)
    assert shown == sum((today - found.started_at.astimezone(zone).date()).days < 30 for found in runs)


def test_a_day_of_23_and_one_of_25_hours_are_one_column_each():
    for midnight, hours in ((date(2026, 3, 29), 23), (date(2026, 10, 25), 25)):
        begin = datetime.combine(midnight, datetime.min.time(), BERLIN).astimezone(UTC)
        runs = [a_run(begin + timedelta(hours=hour)) for hour in reversed(range(hours))]
        days = days_of(runs, begin + timedelta(days=3), BERLIN)
        assert {day.date: len(day.runs) for day in days if day.runs} == {midnight: hours}


def test_a_run_from_a_clock_that_was_wrong_is_left_out():
    assert not any(day.runs for day in days_of([a_run(NOW + timedelta(days=2)), a_run(NOW - timedelta(days=30))]))


def test_no_run_is_worth_a_word_only_between_the_installation_and_today():
    days = days_of([], installed_at=NOW - timedelta(days=3))
    assert [day.date.day for day in days if day.expected] == [20, 21]
    assert not any(day.expected for day in days_of([]))


@given(values, st.floats(1, 500))
@settings(max_examples=150)
def test_bars_stay_inside_the_drawing(numbers, height):
    bars = charts.bars(numbers, height)
    assert len(bars) == len(numbers)
    columns = charts.columns(len(numbers))
    for number, bar, column in zip(numbers, bars, columns, strict=True):
        assert (bar is None) == (number is None)
        if bar is not None:
            assert 0 <= column.left <= bar.left < bar.left + bar.width <= column.left + column.width + 0.01
            assert column.left + column.width <= 100.05
            assert -0.01 <= bar.top <= bar.top + bar.height <= height + 0.02
            assert bar.height >= min(2, height) - 0.01  # what is there is seen
    known = [(number, bar.height) for number, bar in zip(numbers, bars, strict=True) if bar is not None]
    assert [tall for _, tall in sorted(known)] == sorted(tall for _, tall in known)


@given(st.integers(1, 100))
@settings(max_examples=40)
def test_columns_lie_side_by_side(count):
    columns = charts.columns(count)
    assert len(columns) == count
    assert columns[0].left == 0
    assert columns[-1].left + columns[-1].width == pytest.approx(100, abs=0.1)
    for left, right in pairwise(columns):
        assert left.left + left.width == pytest.approx(right.left, abs=0.002)
        assert left.left < left.centre < right.left


@given(st.integers(1, 60))
@settings(max_examples=40)
def test_the_last_column_has_a_date_and_so_have_others_a_week_apart(count):
    ticks = charts.ticks(count)
    assert ticks[-1] == count - 1
    assert all(later - earlier == 7 for earlier, later in pairwise(ticks))
    assert 0 <= ticks[0] < 7


def test_the_largest_reaches_the_top_and_half_of_it_half():
    tall, half, nothing = charts.bars([200, 100, None], 50)
    assert (tall.top, tall.height) == (0, 50)
    assert (half.top, half.height) == (25, 25)
    assert nothing is None
    assert [bar.height for bar in charts.bars([0, 0], 50)] == [2, 2]


def test_extent():
    assert charts.extent([None, 5, 3, 9, 4, None]) == charts.Extent(least=3, greatest=9, newest=4)
    assert charts.extent([None, None]) is None
    assert charts.extent([]) is None


def test_what_a_day_knows_of_its_runs():
    day = charts.Day(
        NOW.date(), (run(0, artifact_bytes=7, duration_seconds=2.0), failed(0, duration_seconds=9.0)), True
    )
    assert day.endings == {"success": 1, "failed": 1}
    assert (day.size, day.longest) == (7, 9.0)
    nothing = charts.Day(NOW.date(), (run(0, artifact_bytes=None, duration_seconds=None),), True)
    assert (nothing.size, nothing.longest) == (None, None)


@pytest.mark.parametrize(
    ("outcomes", "marks"),
    [
        ([], []),
        ([Outcome.SUCCESS], ["success"]),
        ([Outcome.SUCCESS, Outcome.SUCCESS], ["success"]),
        ([Outcome.FAILED, Outcome.SUCCESS], ["success", "failed"]),
        ([Outcome.DEGRADED, Outcome.FAILED, Outcome.SUCCESS, Outcome.SUSPECT], ["success", "failed"]),
    ],
)
def test_a_day_shows_its_best_and_its_worst_run(outcomes, marks):
    day = charts.Day(NOW.date(), tuple(a_run(NOW, outcome) for outcome in outcomes), True)
    assert charts.marks(day) == marks


def test_an_interrupted_run_is_told_from_one_that_failed_by_itself():
    assert charts.ending(a_run(NOW, Outcome.FAILED, interrupted=True)) == "interrupted"
    assert charts.ending(a_run(NOW, Outcome.FAILED)) == "failed"


def the_month(runs, locale=Locale.EN, installed_at=None):
    words = Words(TEXTS[locale], locale, TOKYO, NOW)
    return panels.month(days_of(runs, installed_at=installed_at), TEXTS[locale], words)


@given(st.lists(st.tuples(st.integers(0, 29), st.sampled_from(Outcome), st.booleans()), max_size=40))
@settings(max_examples=60)
def test_marks_stay_inside_the_drawing(told):
    runs = [run(back, outcome=outcome, interrupted=broken) for back, outcome, broken in told]
    month = the_month(runs, installed_at=NOW - timedelta(days=60))
    assert len(month.slots) == 30
    for slot in month.slots:
        assert 0 <= slot.column.centre <= 100
        assert len(slot.marks) <= 2
        assert len({mark.middle for mark in slot.marks}) == len(slot.marks)
        for mark in slot.marks:
            assert panels.ROW / 2 <= mark.middle <= month.marks_height - panels.ROW / 2


def test_the_story_of_a_month():
    runs = [run(0), run(3), run(3, outcome=Outcome.FAILED, artifact_bytes=None), run(4, artifact_bytes=50 << 20)]
    month = the_month(runs, installed_at=NOW - timedelta(days=6))
    assert month.story == "Outcomes of the runs from 2026-10-24 to 2026-11-22: 3 success, 1 failed, 3 d without a run."
    assert month.sizes.story == (
        "Artifact size per day from 2026-10-24 to 2026-11-22: last 113 MiB, smallest 50 MiB, largest 113 MiB."
    )
    assert month.slots[-1].title == "2026-11-22: success, 113 MiB, 6.1 s"
    assert month.slots[-4].title == "2026-11-19: success, failed, 112 MiB, 6.4 s"
    assert month.slots[-3].title == "2026-11-20: no run"
    assert [mark.kind for mark in month.slots[-4].marks] == ["success", "failed"]
    assert [mark.kind for mark in month.slots[-3].marks] == ["none"]
    assert month.slots[0].marks == ()  # before the installation
    assert [row.date for row in month.rows] == [f"11-{day}" for day in (22, 21, 20, 19, 18, 17)]
    assert month.sizes.figures == (("last", "113 MiB"), ("min", "50 MiB"), ("max", "113 MiB"))


def test_the_story_of_a_month_in_japanese():
    month = the_month([run(0), failed(1)], Locale.JA, installed_at=NOW - timedelta(days=1))
    assert month.story == "2026-10-24 から 2026-11-22 までの実行結果: 成功 1件、失敗 1件。"
    assert month.slots[-1].title == "2026-11-22: 成功、113 MiB、6.1秒"
    assert month.slots[-1].tick == "11/22"


def test_a_month_of_failures_has_no_sizes():
    month = the_month([failed(0), failed(0)])
    assert month.sizes.figures == ()
    assert month.sizes.story == "Artifact size: no data"
    assert month.slots[-1].title == "2026-11-22: 2 failed, 6.1 s"
