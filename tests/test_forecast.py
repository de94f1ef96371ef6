"""Whether the room will last: growth by the median of slopes, and the coming runs lived through with retention."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scpln_backup.model import State
from scpln_backup.rules.forecast import Outlook, Room, Sample, Stored, forecast, growth_per_day
from scpln_backup.rules.retention import Action, Candidate, Policy, decide
from scpln_backup.rules.slots import Schedule

TOKYO = ZoneInfo("Asia/Tokyo")
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=TOKYO)
MIB = 1 << 20
KEEP_WEEK = Policy(days=7, keep_verified=3)


def sample(days_ago: float, raw: int, stored: int | None = None) -> Sample:
    return Sample(NOW - timedelta(days=days_ago), raw, raw // 10 if stored is None else stored)


def history(days: int, *, start: int, growth: int) -> list[Sample]:
    """A run a night; the newest, of last night, is the largest."""
    return [sample(days - day - 0.4, start + day * growth) for day in range(days)]


def stored(days_ago: float, size: int, **more) -> Stored:
    taken = NOW - timedelta(days=days_ago)
    candidate = Candidate(name=f"scpln-{days_ago}", taken_at=taken, modified_at=taken, state=State.VERIFIED, **more)
    return Stored(candidate, size)


def nightly(days: int = 30, cron: str = "30 2 * * *") -> list[datetime]:
    slots = []
    for slot in Schedule(cron, TOKYO).after(NOW):
        if slot > NOW + timedelta(days=days):
            return slots
        slots.append(slot)
    return slots


def outlook(
    samples, held=(), slots=None, *, policy=KEEP_WEEK, free=10_000 * MIB, shared=False, source=100 * MIB
) -> Outlook:
    return forecast(
        samples,
        list(held),
        nightly() if slots is None else slots,
        policy=policy,
        room=Room(source_bytes=source, free_bytes=free, shared=shared),
        needed=lambda size: size + size // 10,
        now=NOW,
        zone=TOKYO,
    )


class TestGrowth:
    def test_nothing_is_known_from_one_day(self):
        assert growth_per_day([]) == 0
        assert growth_per_day([sample(1, 100 * MIB)]) == 0
        assert growth_per_day([sample(0.2, 100 * MIB), sample(0.1, 200 * MIB)]) == 0

    @given(growth=st.integers(0, 50 * MIB), days=st.integers(3, 200))
    @settings(max_examples=30)
    def test_steady_growth_is_found_again(self, growth, days):
        assert growth_per_day(history(days, start=MIB, growth=growth)) == pytest.approx(growth)

    def test_one_import_does_not_set_it(self):
        samples = history(20, start=100 * MIB, growth=MIB)
        leap = [
            Sample(one.at, one.raw_bytes + (900 * MIB if place >= 15 else 0), 0) for place, one in enumerate(samples)
        ]
        assert growth_per_day(leap) < 20 * MIB
        assert growth_per_day(samples) == pytest.approx(MIB)

    def test_growth_in_steps_is_not_taken_for_none(self):
        """A file that grows by 10 MiB every fifth night stands still on most nights: their median says nothing."""
        samples = [sample(40 - day, 100 * MIB + (day // 5) * 10 * MIB) for day in range(40)]
        assert growth_per_day(samples) == pytest.approx(2 * MIB, rel=0.1)

    def test_a_database_that_shrinks_is_not_forecast_away(self):
        assert growth_per_day(history(10, start=100 * MIB, growth=-5 * MIB)) == 0

    @given(st.lists(st.tuples(st.floats(0, 400), st.integers(0, 1 << 40)), max_size=30))
    @settings(max_examples=60)
    def test_any_history_gives_a_number(self, pairs):
        assert growth_per_day([sample(days, raw) for days, raw in pairs]) >= 0


class TestOutlook:
    def test_room_that_lasts(self):
        found = outlook(history(20, start=80 * MIB, growth=MIB))
        assert found.short_at is None
        assert (found.samples, found.days) == (20, 19)
        assert found.growth_bytes == pytest.approx(MIB)
        assert found.spare_bytes > 0

    def test_the_first_night_that_lacks_room_is_named(self):
        """No growth, artifacts of 10 MiB kept for a week, the copy takes 110 MiB: 130 MiB last for two nights."""
        found = outlook([sample(1, 100 * MIB)], free=131 * MIB)
        first, second, third, fourth = nightly()[:4]
        assert found.short_at == fourth, (first, second, third)
        assert found.spare_bytes < 0

    def test_retention_gives_room_back(self):
        """From the eighth night on each sweep frees what the run before it took, so what lasts a week lasts for ever."""
        found = outlook([sample(1, 100 * MIB)], free=(110 + 9 * 10 + 1) * MIB)
        assert found.short_at is None
        hoarding = outlook([sample(1, 100 * MIB)], free=(110 + 9 * 10 + 1) * MIB, policy=Policy(days=365))
        assert hoarding.short_at is not None

    def test_artifacts_that_are_there_and_pass_their_time_make_room(self):
        held = [stored(day, 50 * MIB) for day in range(1, 7)]
        tight = 110 * MIB + 65 * MIB
        assert outlook([sample(1, 100 * MIB)], held, free=tight).short_at is None
        pinned = [stored(day, 50 * MIB, pinned=True) for day in range(1, 7)]
        assert outlook([sample(1, 100 * MIB)], pinned, free=tight).short_at is not None

    def test_the_databases_own_growth_counts_on_a_shared_disk(self):
        samples = history(20, start=80 * MIB, growth=10 * MIB)
        alone = outlook(samples, free=1000 * MIB)
        shared = outlook(samples, free=1000 * MIB, shared=True)
        assert alone.spare_bytes - shared.spare_bytes == pytest.approx(29.6 * 10 * MIB, rel=0.01)

    def test_without_history_today_is_taken_for_every_day(self):
        found = outlook([], free=1000 * MIB)
        assert (found.growth_bytes, found.samples, found.days) == (0, 0, 0)
        assert found.most_artifacts == 8, "a week's, and the run's own"

    def test_without_a_run_to_come(self):
        found = outlook([], [stored(1, MIB)], slots=[], free=5)
        assert (found.short_at, found.spare_bytes, found.tightest_at, found.most_artifacts) == (None, 5, None, 1)

    def test_it_is_what_the_rules_of_retention_do(self):
        """There are as many artifacts at once as `decide` leaves, night after night."""
        slots = nightly()
        policy = Policy(days=3, keep_verified=2, keep_weekly=3)
        held: list[Candidate] = []
        most = 0
        for slot in slots:
            kept = {v.name for v in decide(held, policy, now=slot, zone=TOKYO) if v.action is Action.KEEP}
            held = [one for one in held if one.name in kept]
            held.append(Candidate(name=f"{slot}", taken_at=slot, modified_at=slot, state=State.VERIFIED))
            most = max(most, len(held))
        assert outlook([sample(1, 100 * MIB)], slots=slots, policy=policy).most_artifacts == most

    def test_a_run_a_minute_is_answered_in_seconds(self):
        began = time.monotonic()
        found = outlook([sample(1, 100 * MIB)], slots=nightly(cron="* * * * *"), policy=Policy(days=1), free=1 << 50)
        assert time.monotonic() - began < 20
        assert 2 * 1440 <= found.most_artifacts <= 2.3 * 1440

    @given(
        free=st.integers(0, 2000) , more=st.integers(0, 2000), growth=st.integers(0, 30), days=st.integers(0, 20),
        shared=st.booleans(),
    )  # fmt: skip
    @settings(max_examples=40)
    def test_more_room_never_ends_sooner(self, free, more, growth, days, shared):
        samples = history(5, start=80 * MIB, growth=growth * MIB)
        policy = Policy(days=days, keep_verified=1)
        tight, ample = (outlook(samples, policy=policy, free=size * MIB, shared=shared) for size in (free, free + more))
        assert ample.spare_bytes - tight.spare_bytes == more * MIB
        assert (tight.short_at is not None) == (tight.spare_bytes < 0)
        if ample.short_at is not None:
            assert tight.short_at is not None
            assert tight.short_at <= ample.short_at

    def test_it_goes_by_instants_where_clocks_change(self):
        """Autumn in Berlin: a day of 25 hours is a day of growth and an hour's."""
        berlin = ZoneInfo("Europe/Berlin")
        now = datetime(2026, 10, 24, 12, 0, tzinfo=berlin)
        slots = list(islice(Schedule("0 12 * * *", berlin).after(now), 1))
        assert slots[0].astimezone(UTC) - now.astimezone(UTC) == timedelta(hours=25)
        found = forecast(
            [Sample(now - timedelta(days=2), 0, 0), Sample(now - timedelta(days=1), 24 * MIB, 0)],
            [],
            slots,
            policy=KEEP_WEEK,
            room=Room(source_bytes=24 * MIB, free_bytes=100 * MIB, shared=False),
            needed=lambda size: size,
            now=now,
            zone=berlin,
        )
        assert found.spare_bytes == (100 - 24 - 25) * MIB
