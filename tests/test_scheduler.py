"""The scheduler with the real app and catalog: each slot once, whatever the clock and the machine do."""

from __future__ import annotations

import logging
import queue
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import msgspec
import pytest

from scpln_backup.app import App
from scpln_backup.config.schema import BackupConfig, Config, ScheduleConfig, StateConfig
from scpln_backup.model import Outcome, RunRecord, Trigger
from scpln_backup.rules.slots import Schedule
from scpln_backup.service.catchup import MOST_ATTEMPTS, ON_TIME, may_repeat, trigger_for, unfinished
from scpln_backup.service.scheduler import JOB, HeartbeatTrigger, Scheduler, SlotTrigger

WAIT = 10
BERLIN = ZoneInfo("Europe/Berlin")
# Ahead of any real clock, so that the timers, which go by the real one, keep out of these tests.
EVENING = datetime(2090, 6, 1, 20, 0, tzinfo=UTC)
NIGHT = EVENING.replace(day=2, hour=2, minute=30)


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, **changes):
        self.now = (self.now.astimezone(UTC) + timedelta(**changes)).astimezone(self.now.tzinfo)


class Bench:
    """An app, a clock that is set by hand, and the requests that were made."""

    def __init__(self, folder, now=EVENING, **schedule):
        settings = {"timezone": "UTC", "heartbeat_seconds": 3600} | schedule
        self.config = Config(
            state=StateConfig(directory=str(folder / "state")),
            backup=BackupConfig(root=str(folder / "root")),
            schedule=ScheduleConfig(**settings),
        )
        self.clock = Clock(now)
        self.app = App.build(self.config)
        self.requests: queue.Queue[Trigger] = queue.Queue()
        self.scheduler = self.make()

    def make(self):
        return Scheduler(lambda: self.app, self.requests.put, now=self.clock)

    def installed(self):
        """As if the daemon had been installed by this clock."""
        self.app.catalog.set_slot(JOB, self.clock.now)
        return self

    def restart(self, **schedule):
        """A new daemon on the same state, which is started and stopped again."""
        if schedule:
            changed = msgspec.structs.replace(self.config.schedule, **schedule)
            self.config = msgspec.structs.replace(self.config, schedule=changed)
        self.app = App.build(self.config)
        self.scheduler = self.make()
        self.scheduler.start()
        self.scheduler.stop()
        self.scheduler = self.make()

    def asked(self):
        requests = []
        while not self.requests.empty():
            requests.append(self.requests.get())
        return requests

    def ran(self, trigger, *, interrupted=False, outcome=Outcome.FAILED):
        """A run as the catalog has it; an interrupted one is a row that was never finished."""
        run_id = self.app.catalog.begin_run(trigger, self.clock.now)
        if not interrupted:
            record = RunRecord(
                id=run_id, trigger=trigger, started_at=self.clock.now, finished_at=self.clock.now, outcome=outcome
            )
            self.app.catalog.finish_run(record)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path).installed()


def test_a_slot_is_served_once(bench):
    bench.scheduler.check()
    assert bench.asked() == []
    bench.clock.now = NIGHT
    for _ in range(3):
        bench.scheduler.check()
        bench.clock.advance(seconds=30)
    assert bench.asked() == [Trigger.SCHEDULE]
    assert bench.app.catalog.slot(JOB) == NIGHT


def test_a_slot_is_served_once_over_a_restart(bench):
    bench.clock.now = NIGHT
    bench.scheduler.check()
    bench.ran(Trigger.SCHEDULE, outcome=Outcome.SUCCESS)
    bench.restart()
    assert bench.asked() == [Trigger.SCHEDULE]


def test_a_new_installation_owes_nothing(tmp_path):
    bench = Bench(tmp_path, now=datetime.now(UTC))
    bench.scheduler.check()
    assert bench.asked() == []


@pytest.mark.parametrize(
    ("late", "trigger"),
    [(0, Trigger.SCHEDULE), (120, Trigger.SCHEDULE), (121, Trigger.CATCH_UP), (20 * 3600, Trigger.CATCH_UP)],
)
def test_a_late_slot_is_caught_up(bench, late, trigger):
    bench.clock.now = NIGHT + timedelta(seconds=late)
    bench.scheduler.check()
    assert bench.asked() == [trigger]


def test_a_late_slot_is_passed_over_without_catch_up(tmp_path, caplog):
    bench = Bench(tmp_path, catch_up=False).installed()
    bench.clock.now = NIGHT + timedelta(hours=3)
    bench.scheduler.check()
    bench.scheduler.check()
    assert bench.asked() == []
    assert len([r for r in caplog.records if "passed over" in r.getMessage()]) == 1
    bench.clock.now = NIGHT + timedelta(days=1)
    bench.scheduler.check()
    assert bench.asked() == [Trigger.SCHEDULE]


def test_many_missed_slots_are_caught_up_once(bench):
    bench.clock.advance(days=12)
    bench.scheduler.check()
    bench.scheduler.check()
    assert bench.asked() == [Trigger.CATCH_UP]


@pytest.mark.parametrize(
    "evening",
    [
        datetime(2090, 3, 25, 20, 0, tzinfo=BERLIN),  # 02:30 does not exist that night
        datetime(2090, 10, 28, 20, 0, tzinfo=BERLIN),  # 02:30 comes twice
    ],
)
def test_each_night_once_when_the_clocks_change(tmp_path, evening):
    bench = Bench(tmp_path, now=evening, timezone="Europe/Berlin").installed()
    for _ in range(12 * 12):
        bench.clock.advance(minutes=5, seconds=1)
        bench.scheduler.check()
    assert len(bench.asked()) == 1


def test_a_clock_set_back_a_week_does_not_stop_the_nights(bench, caplog):
    bench.clock.now = NIGHT
    bench.scheduler.check()
    assert bench.asked() == [Trigger.SCHEDULE]
    bench.clock.advance(days=-7, hours=-6)
    bench.scheduler.check()
    assert bench.asked() == []
    bench.clock.advance(hours=6)
    bench.scheduler.check()
    bench.scheduler.check()
    assert bench.asked() == [Trigger.SCHEDULE]
    assert "in the future" in caplog.text


def test_a_small_step_back_does_not_serve_a_slot_twice(bench):
    bench.clock.now = NIGHT
    bench.scheduler.check()
    bench.clock.advance(seconds=-3)
    bench.scheduler.check()
    bench.clock.advance(seconds=5)
    bench.scheduler.check()
    assert bench.asked() == [Trigger.SCHEDULE]


def test_a_restart_after_the_clock_was_set_back_repeats_nothing(bench):
    bench.clock.now = NIGHT
    bench.scheduler.check()
    bench.clock.advance(days=-7, hours=-3)
    bench.scheduler.check()
    bench.asked()
    bench.clock.advance(minutes=1)
    bench.restart()
    assert bench.asked() == []


def test_an_interrupted_slot_is_repeated_twice_and_then_given_up(bench, caplog):
    bench.clock.now = NIGHT
    bench.scheduler.check()
    assert bench.asked() == [Trigger.SCHEDULE]
    bench.ran(Trigger.SCHEDULE, interrupted=True)
    for _ in range(2):
        bench.clock.advance(minutes=1)
        bench.restart()
        assert bench.asked() == [Trigger.CATCH_UP]
        bench.ran(Trigger.CATCH_UP, interrupted=True)
    bench.clock.advance(minutes=1)
    bench.restart()
    assert bench.asked() == []
    assert "given up" in caplog.text
    bench.clock.now = NIGHT + timedelta(days=1)
    bench.scheduler.check()
    assert bench.asked() == [Trigger.SCHEDULE]


def test_a_slot_whose_run_never_began_is_not_lost(bench):
    bench.clock.now = NIGHT
    bench.scheduler.check()
    assert bench.asked() == [Trigger.SCHEDULE]
    bench.clock.advance(minutes=5)
    bench.restart()
    assert bench.asked() == [Trigger.CATCH_UP]


def test_nothing_is_repeated_once_a_copy_exists(bench):
    bench.clock.now = NIGHT
    bench.scheduler.check()
    bench.asked()
    bench.ran(Trigger.SCHEDULE, interrupted=True)
    bench.clock.advance(minutes=1)
    bench.ran(Trigger.SIGNAL, outcome=Outcome.SUCCESS)
    bench.restart()
    assert bench.asked() == []


def test_nothing_is_repeated_without_catch_up(bench):
    bench.clock.now = NIGHT
    bench.scheduler.check()
    bench.asked()
    bench.ran(Trigger.SCHEDULE, interrupted=True)
    bench.restart(catch_up=False)
    assert bench.asked() == []


def run(trigger, *, interrupted=False, outcome=Outcome.FAILED):
    return RunRecord(trigger=trigger, started_at=NIGHT, interrupted=interrupted, outcome=outcome)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], True),
        ([run(Trigger.SCHEDULE, interrupted=True)], True),
        ([run(Trigger.CATCH_UP, interrupted=True), run(Trigger.SCHEDULE, interrupted=True)], True),
        ([run(Trigger.SIGNAL), run(Trigger.SCHEDULE, interrupted=True)], True),
        ([run(Trigger.SCHEDULE)], False),
        ([run(Trigger.CATCH_UP), run(Trigger.SCHEDULE, interrupted=True)], False),
        ([run(Trigger.CLI, outcome=Outcome.DEGRADED), run(Trigger.SCHEDULE, interrupted=True)], False),
        ([run(Trigger.SIGNAL, outcome=Outcome.SUSPECT)], False),
    ],
)
def test_what_counts_as_unfinished(runs, expected):
    assert unfinished(runs, handed_out=True) is expected


def test_a_moment_that_is_no_slot_leaves_nothing_unfinished():
    assert not unfinished([], handed_out=False)
    assert not unfinished([run(Trigger.CLI, interrupted=True)], handed_out=False)


def test_attempts_are_counted_by_slot_runs_only():
    others = [run(Trigger.SIGNAL, interrupted=True)] * 10
    assert may_repeat(others + [run(Trigger.CATCH_UP)] * (MOST_ATTEMPTS - 1))
    assert not may_repeat([run(Trigger.CATCH_UP)] * MOST_ATTEMPTS)


def test_lateness_is_measured_in_fact_not_by_wall_clocks():
    first = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=0)
    again = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1)
    assert trigger_for(first, now=again, catch_up=True) is Trigger.CATCH_UP
    assert trigger_for(first, now=first + ON_TIME, catch_up=False) is Trigger.SCHEDULE


def test_a_full_disk_does_not_make_a_run_per_heartbeat(bench, caplog):
    bench.scheduler.check()
    bench.app.catalog.path.write_bytes(b"no catalog any more " * 500)
    bench.clock.now = NIGHT
    bench.scheduler.check()
    bench.scheduler.check()
    assert bench.asked() == [Trigger.SCHEDULE]
    assert [r.levelno for r in caplog.records if "noted" in r.getMessage()] == [logging.ERROR]


def test_a_catalog_that_cannot_be_read_is_said_and_ends_nothing(bench, caplog):
    bench.app.catalog.path.write_bytes(b"no catalog any more " * 500)
    bench.scheduler.check()
    assert "cannot tell whether a backup is due" in caplog.text
    assert bench.scheduler.alive


def test_the_trigger_speaks_the_schedule():
    trigger = SlotTrigger(Schedule("30 2 * * *", ZoneInfo("Asia/Tokyo")))
    at = trigger.get_next_fire_time(None, datetime(2026, 11, 22, 0, 0, tzinfo=UTC))
    assert at == datetime(2026, 11, 22, 17, 30, tzinfo=UTC)
    assert trigger.get_next_fire_time(at, at) == datetime(2026, 11, 23, 17, 30, tzinfo=UTC)


def test_a_heartbeat_does_not_go_through_all_the_years_of_a_wrong_clock():
    trigger = HeartbeatTrigger(30)
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert trigger.get_next_fire_time(datetime(1970, 1, 1, tzinfo=UTC), now) == now + timedelta(seconds=30)


# The timers, by the real clock


class Soon:
    """A schedule with a slot every 0.4 s, which no crontab has."""

    STEP = timedelta(seconds=0.4)

    def _number(self, moment):
        return (moment - EVENING) // self.STEP

    def next_after(self, moment):
        return EVENING + (self._number(moment) + 1) * self.STEP

    def last_at_or_before(self, moment):
        return EVENING + self._number(moment) * self.STEP


def stand_in(bench, schedule, heartbeat_seconds):
    """The app with a schedule and a heartbeat that are faster than a configuration may ask for."""
    config = msgspec.structs.replace(
        bench.config,
        schedule=msgspec.structs.replace(bench.config.schedule, heartbeat_seconds=heartbeat_seconds),
    )
    return SimpleNamespace(config=config, catalog=bench.app.catalog, schedules={JOB: schedule})


def test_the_slots_own_timer_fires_without_a_heartbeat(tmp_path):
    bench = Bench(tmp_path, now=datetime.now(UTC)).installed()
    app = stand_in(bench, Soon(), 3600)
    scheduler = Scheduler(lambda: app, bench.requests.put, now=lambda: datetime.now(UTC))
    scheduler.start()
    try:
        for _ in range(2):
            assert bench.requests.get(timeout=WAIT) is Trigger.SCHEDULE
    finally:
        scheduler.stop()


class Held:
    """A schedule that keeps whoever asks it waiting, once it is told to."""

    def __init__(self, schedule):
        self.schedule = schedule
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def next_after(self, moment):
        return self.schedule.next_after(moment)

    def last_at_or_before(self, moment):
        self.asked.set()
        assert self.go_on.wait(WAIT)
        return self.schedule.last_at_or_before(moment)


def test_a_stop_during_a_check_waits_for_it_and_asks_for_nothing_more(tmp_path):
    bench = Bench(tmp_path).installed()
    held = Held(bench.app.schedules[JOB])
    bench.app = stand_in(bench, held, 0.01)
    bench.scheduler = bench.make()
    bench.scheduler.start()
    held.go_on.clear()
    held.asked.clear()
    assert held.asked.wait(WAIT)
    stopping = threading.Thread(target=bench.scheduler.stop, daemon=True)
    stopping.start()
    stopping.join(0.1)
    assert stopping.is_alive()
    held.go_on.set()
    stopping.join(WAIT)
    assert not stopping.is_alive()
    bench.clock.now = NIGHT
    bench.scheduler.check()
    assert bench.asked() == []


@pytest.fixture
def beating(tmp_path):
    """A running scheduler with twenty heartbeats a second and a clock that is set by hand."""
    bench = Bench(tmp_path).installed()
    bench.app = stand_in(bench, bench.app.schedules[JOB], 0.05)
    bench.scheduler = bench.make()
    bench.scheduler.start()
    yield bench
    bench.scheduler.stop()


def test_the_heartbeat_notices_that_the_clock_jumped_over_a_slot(beating):
    beating.clock.now = NIGHT + timedelta(hours=5)
    assert beating.requests.get(timeout=WAIT) is Trigger.CATCH_UP
    assert beating.scheduler._timers.get_job(JOB).next_run_time <= NIGHT + timedelta(days=1)


def test_the_next_fire_time_follows_the_clock_both_ways(beating):
    for moment in (NIGHT + timedelta(days=400, hours=1), NIGHT - timedelta(hours=1)):
        checked = Checked(beating.scheduler)
        beating.clock.now = moment
        checked.twice()
        expected = beating.app.schedules[JOB].next_after(moment)
        assert beating.scheduler._timers.get_job(JOB).next_run_time == expected


class Checked:
    """Waits for checks that begin and end after it was made."""

    def __init__(self, scheduler):
        self.scheduler = scheduler

    def twice(self):
        for _ in range(2):
            beat = self.scheduler._beat
            deadline = threading.Event()
            for _ in range(1000):
                if self.scheduler._beat != beat:
                    break
                deadline.wait(0.005)
            assert self.scheduler._beat != beat


def test_a_scheduler_that_hangs_is_not_alive(beating):
    assert beating.scheduler.alive
    with beating.scheduler._lock:
        for _ in range(200):
            if not beating.scheduler.alive:
                break
            threading.Event().wait(0.01)
        assert not beating.scheduler.alive
    Checked(beating.scheduler).twice()
    assert beating.scheduler.alive


def test_a_heartbeat_left_in_the_future_by_a_clock_set_back_is_fetched(bench, caplog):
    bench.scheduler.start()
    try:
        bench.clock.now = NIGHT
        bench.scheduler.watch_clock()
        assert bench.asked() == []
        # What the next look sees when the wall clock was set back by an hour in between.
        bench.scheduler._clock_offset += 3600
        bench.scheduler.watch_clock()
        assert bench.requests.get(timeout=WAIT) is Trigger.SCHEDULE
        assert "the clock moved by -3600 s" in caplog.text
    finally:
        bench.scheduler.stop()


def test_a_slot_that_a_reload_plans_for_earlier_in_the_day_was_not_missed(bench):
    bench.installed()
    bench.clock.now = NIGHT
    bench.scheduler.start()
    try:
        assert bench.requests.get(timeout=WAIT) is Trigger.SCHEDULE
        bench.clock.advance(hours=8)
        changed = msgspec.structs.replace(bench.config.schedule, backup="0 4 * * *")
        bench.app = App.build(msgspec.structs.replace(bench.config, schedule=changed))
        bench.scheduler.reload()
        assert bench.requests.empty()
        bench.clock.now = NIGHT.replace(day=3, hour=4, minute=0)
        bench.scheduler.check()
        assert bench.requests.get(timeout=WAIT) is Trigger.SCHEDULE
    finally:
        bench.scheduler.stop()


def test_a_reload_takes_over_schedule_and_heartbeat(bench):
    bench.scheduler.start()
    try:
        changed = msgspec.structs.replace(bench.config.schedule, backup="0 5 * * *", heartbeat_seconds=7)
        bench.app = App.build(msgspec.structs.replace(bench.config, schedule=changed))
        bench.scheduler.reload()
        timers = bench.scheduler._timers
        assert timers.get_job(JOB).next_run_time == NIGHT.replace(hour=5, minute=0)
        assert timers.get_job("heartbeat").trigger.interval == timedelta(seconds=7)
    finally:
        bench.scheduler.stop()
