"""The runner: one backup at a time, however many are asked for."""

from __future__ import annotations

import itertools
import logging
import threading
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scpln_backup.errors import BackupError, LockHeldError
from scpln_backup.events import Progressed, RunStarted, StageEntered
from scpln_backup.model import Stage, Trigger
from scpln_backup.service.runner import IDLE, PRECEDENCE, Runner, merged

WAIT = 10
NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)


class Bench:
    """A run that lasts until it is let go, and the record of all runs."""

    def __init__(self):
        self.taken: list[Trigger] = []
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.changed = threading.Semaphore(0)
        self.errors: list[Exception] = []
        self.cancel: threading.Event | None = None
        self.runner = Runner(self.take, now=lambda: NOW, changed=self.changed.release, first_retry_seconds=0.01)

    def take(self, trigger, cancel):
        self.taken.append(trigger)
        self.cancel = cancel
        self.begun.release()
        assert self.go_on.acquire(timeout=WAIT)
        if self.errors:
            raise self.errors.pop(0)

    def wait_until_idle(self):
        while self.runner.activity != IDLE:
            assert self.changed.acquire(timeout=WAIT)


@pytest.fixture
def bench():
    bench = Bench()
    bench.runner.start()
    yield bench
    bench.runner.stop()
    bench.go_on.release(100)
    assert bench.runner.join(WAIT)


def test_a_request_leads_to_a_run(bench):
    bench.runner.request(Trigger.SIGNAL)
    assert bench.begun.acquire(timeout=WAIT)
    assert bench.runner.running_since == NOW
    assert bench.runner.activity.trigger is Trigger.SIGNAL
    bench.go_on.release()
    bench.wait_until_idle()
    assert bench.taken == [Trigger.SIGNAL]
    assert bench.runner.running_since is None


def test_any_number_of_requests_during_a_run_lead_to_exactly_one_more(bench):
    bench.runner.request(Trigger.SCHEDULE)
    assert bench.begun.acquire(timeout=WAIT)
    for _ in range(10_000):
        bench.runner.request(Trigger.SIGNAL)
    bench.go_on.release(5)
    assert bench.begun.acquire(timeout=WAIT)
    bench.wait_until_idle()
    assert not bench.begun.acquire(timeout=0.2)
    assert bench.taken == [Trigger.SCHEDULE, Trigger.SIGNAL]


@given(st.permutations(list(Trigger)))
@settings(deadline=None, max_examples=24)
def test_the_merged_trigger_does_not_depend_on_the_order(triggers):
    waiting = None
    for trigger in triggers:
        waiting = merged(waiting, trigger)
    assert waiting is Trigger.SCHEDULE


def test_triggers_merge_by_what_says_most():
    assert set(PRECEDENCE) == set(Trigger)
    for higher, lower in itertools.pairwise(PRECEDENCE):
        assert merged(lower, higher) is higher
        assert merged(higher, lower) is higher


def test_a_scheduled_request_is_not_lost_behind_a_signal(bench):
    bench.runner.request(Trigger.CLI)
    assert bench.begun.acquire(timeout=WAIT)
    bench.runner.request(Trigger.SIGNAL)
    bench.runner.request(Trigger.SCHEDULE)
    bench.runner.request(Trigger.CLI)
    bench.go_on.release(2)
    assert bench.begun.acquire(timeout=WAIT)
    assert bench.taken[1] is Trigger.SCHEDULE


def test_a_bug_in_a_run_is_logged_whole_and_ends_nothing(bench, caplog):
    bench.errors.append(ZeroDivisionError("a bug"))
    bench.go_on.release(2)
    bench.runner.request(Trigger.CLI)
    assert bench.begun.acquire(timeout=WAIT)
    bench.wait_until_idle()
    bench.runner.request(Trigger.SIGNAL)
    assert bench.begun.acquire(timeout=WAIT)
    bench.wait_until_idle()
    assert bench.taken == [Trigger.CLI, Trigger.SIGNAL]
    assert bench.runner.problem is None
    assert "ZeroDivisionError: a bug" in caplog.text
    assert "Traceback" in caplog.text


def test_a_run_that_cannot_begin_is_one_line(bench, caplog):
    bench.errors.append(BackupError("/var/backups/scpln: belongs to another user"))
    bench.go_on.release()
    bench.runner.request(Trigger.SCHEDULE)
    assert bench.begun.acquire(timeout=WAIT)
    bench.wait_until_idle()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is None
    assert "belongs to another user" in record.getMessage()
    assert bench.runner.problem == record.getMessage()


def test_a_held_lock_is_waited_for_and_the_trigger_kept(bench, caplog):
    caplog.set_level(logging.INFO)
    bench.errors += [LockHeldError("scpln-backup sweep (process 42) holds run.lock")] * 3
    bench.runner.request(Trigger.SCHEDULE)
    for _ in range(3):
        assert bench.begun.acquire(timeout=WAIT)
        bench.go_on.release()
    assert bench.begun.acquire(timeout=WAIT)
    bench.go_on.release()
    bench.wait_until_idle()
    assert bench.taken == [Trigger.SCHEDULE] * 4
    assert [r for r in caplog.records if "process 42" in r.getMessage()][1:] == []


def test_who_has_the_lock_is_shown():
    seen: list[str] = []
    told = threading.Event()

    def take(trigger, cancel):
        raise LockHeldError("scpln-backup sweep (process 42) holds run.lock")

    def changed():
        if runner.activity.waiting_for:
            seen.append(runner.activity.waiting_for)
            told.set()

    runner = Runner(take, now=lambda: NOW, changed=changed)
    runner.start()
    runner.request(Trigger.SIGNAL)
    assert told.wait(WAIT)
    assert runner.running_since is None
    runner.stop()
    assert runner.join(WAIT)
    assert "process 42" in seen[0]


def test_stop_tells_the_run_and_begins_no_other(bench):
    bench.runner.request(Trigger.SIGNAL)
    assert bench.begun.acquire(timeout=WAIT)
    bench.runner.request(Trigger.SCHEDULE)
    assert not bench.cancel.is_set()
    bench.runner.stop()
    assert bench.cancel.is_set()
    assert not bench.runner.join(timeout=0.05)
    bench.go_on.release()
    assert bench.runner.join(WAIT)
    assert bench.taken == [Trigger.SIGNAL]


def test_a_runner_that_never_started_has_ended():
    runner = Runner(lambda trigger, cancel: None, now=lambda: NOW, changed=lambda: None)
    runner.stop()
    assert runner.join()


def test_progress_is_visible_and_only_whole_percents_are_news(bench):
    bench.runner.request(Trigger.CLI)
    assert bench.begun.acquire(timeout=WAIT)
    bench.runner.observe(RunStarted(trigger=Trigger.CLI, started_at=NOW))
    bench.runner.observe(StageEntered(stage=Stage.COMPRESS))
    assert bench.runner.activity.percent is None
    for done in range(10_001):
        bench.runner.observe(Progressed(stage=Stage.COMPRESS, done=done, total=10_000))
    assert (bench.runner.activity.stage, bench.runner.activity.percent) == (Stage.COMPRESS, 100)
    news = 0
    while bench.changed.acquire(blocking=False):
        news += 1
    assert news <= 103
    bench.runner.observe(Progressed(stage=Stage.PROVE, done=0, total=0))
    assert bench.runner.activity.stage is Stage.COMPRESS
