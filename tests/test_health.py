"""How the backups stand: overdue, broken, doubtful."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scpln_backup.model import DrillRecord, Outcome, RunRecord, Trigger
from scpln_backup.rules import reasons
from scpln_backup.rules.health import Facts, FailingChannel, Level, assess, overdue_at
from scpln_backup.rules.reasons import Reason
from scpln_backup.rules.slots import Schedule

TOKYO = ZoneInfo("Asia/Tokyo")
BERLIN = ZoneInfo("Europe/Berlin")
INSTALLED = datetime(2026, 11, 1, 12, 0, tzinfo=TOKYO)
SUCCESS = datetime(2026, 11, 22, 2, 31, tzinfo=TOKYO)
DEADLINE = SUCCESS + timedelta(hours=24)


def run(outcome=Outcome.SUCCESS, error=None, *, interrupted=False):
    return RunRecord(
        trigger=Trigger.SCHEDULE,
        started_at=SUCCESS - timedelta(minutes=1),
        outcome=outcome,
        error=error,
        interrupted=interrupted,
    )


GOOD = Facts(
    now=SUCCESS + timedelta(hours=8),
    installed_at=INSTALLED,
    last_run=run(),
    last_success_at=SUCCESS,
    running_since=None,
    verified_artifacts=7,
    corrupt_artifacts=0,
    retention_frozen=None,
    next_run_at=SUCCESS + timedelta(hours=24),
)


def judged(**facts):
    return assess(msgspec.structs.replace(GOOD, **facts), overdue_hours=24, zone=TOKYO)


def test_healthy():
    health = judged()
    assert (health.level, health.reasons, health.overdue) == (Level.HEALTHY, (), False)


@pytest.mark.parametrize(
    ("facts", "level", "begins"),
    [
        (
            {"last_run": run(Outcome.FAILED, "disk\nfull")},
            Level.CRITICAL,
            "the run of 2026-11-22 02:30 failed: disk full",
        ),
        ({"last_run": run(Outcome.FAILED)}, Level.CRITICAL, "the run of 2026-11-22 02:30 failed: it did not say why"),
        (
            {"last_run": run(Outcome.FAILED, interrupted=True)},
            Level.CRITICAL,
            "the run of 2026-11-22 02:30 was interrupted: run `scpln-backup backup`",
        ),
        ({"corrupt_artifacts": 1}, Level.CRITICAL, "1 artifact is corrupt"),
        ({"corrupt_artifacts": 2}, Level.CRITICAL, "2 artifacts are corrupt"),
        ({"scheduler_alive": False}, Level.CRITICAL, "the scheduler is not running"),
        ({"scheduler_alive": False, "next_run_at": None}, Level.CRITICAL, "the scheduler is not running"),
        (
            {"last_run": run(Outcome.SUSPECT, "rows fell")},
            Level.WARNING,
            "the run of 2026-11-22 02:30 is suspect: rows fell",
        ),
        (
            {"last_run": run(Outcome.DEGRADED, "sweep failed")},
            Level.WARNING,
            "the run of 2026-11-22 02:30 made a good artifact, but a later step failed: sweep failed",
        ),
        ({"retention_frozen": "the clock jumped"}, Level.WARNING, "retention is frozen: the clock jumped"),
        ({"verified_artifacts": 0}, Level.WARNING, "there is no verified artifact yet"),
        ({"next_run_at": None}, Level.WARNING, "no next run is planned"),
    ],
)
def test_each_reason_by_itself(facts, level, begins):
    health = judged(**facts)
    assert health.level is level
    assert len(health.reasons) == 1
    assert health.reasons[0].startswith(begins)
    assert "\n" not in health.reasons[0]


def test_overdue_begins_after_the_deadline():
    assert not judged(now=DEADLINE).overdue
    late = judged(now=DEADLINE + timedelta(seconds=1))
    assert late.overdue
    assert late.level is Level.CRITICAL
    assert list(late.reasons) == [
        "no backup has succeeded since 2026-11-22 02:31, more than 24 hours ago: see why in `journalctl -u scpln-backup`, then run `scpln-backup backup`"
    ]


def test_before_any_success_the_installation_counts():
    new = {"last_run": None, "last_success_at": None, "verified_artifacts": 0}
    young = judged(**new, now=INSTALLED + timedelta(hours=23))
    assert (young.level, young.overdue) == (Level.WARNING, False)
    assert young.reasons[0].startswith("there is no verified artifact yet")
    old = judged(**new, now=INSTALLED + timedelta(hours=25))
    assert (old.level, old.overdue, len(old.reasons)) == (Level.CRITICAL, True, 1)
    assert old.reasons[0].startswith("no backup has succeeded since the installation at 2026-11-01 12:00")


@pytest.mark.parametrize(
    ("running_for", "now", "complains"),
    [
        (timedelta(minutes=10), DEADLINE + timedelta(minutes=5), False),
        (timedelta(minutes=59), DEADLINE + timedelta(minutes=58), False),
        (timedelta(minutes=60), DEADLINE + timedelta(minutes=30), True),  # it has had its hour
        (timedelta(minutes=10), DEADLINE + timedelta(minutes=11), True),  # it began too late
    ],
)
def test_a_run_that_began_in_time_is_waited_for(running_for, now, complains):
    health = judged(now=now, running_since=now - running_for)
    assert health.overdue
    assert (health.level is Level.CRITICAL) == complains


def test_most_serious_first():
    health = judged(
        now=DEADLINE + timedelta(days=2),
        last_run=run(Outcome.FAILED, "disk full"),
        corrupt_artifacts=1,
        scheduler_alive=False,
        retention_frozen="the last run failed",
        verified_artifacts=0,
    )
    assert [reason.split(":")[0] for reason in health.reasons] == [
        "no backup has succeeded since 2026-11-22 02",
        "the run of 2026-11-22 02",
        "1 artifact is corrupt",
        "the scheduler is not running",
        "retention is frozen",
    ]


@pytest.mark.parametrize(
    ("success", "deadline"),
    [
        ("2026-11-22T02:31:00+01:00", "2026-11-23T02:31:00+01:00"),
        ("2026-10-24T02:31:00+02:00", "2026-10-25T02:31:00+02:00"),  # the first 02:31 of autumn's day
        ("2026-10-25T02:31:00+02:00", "2026-10-26T02:31:00+01:00"),  # 25 hours
        (
            "2026-10-25T02:05:00+01:00",
            "2026-10-26T03:05:00+01:00",
        ),  # begun at the first 02:30, ended at the second 02:05
        ("2026-10-24T12:00:00+02:00", "2026-10-25T12:00:00+01:00"),  # 25 hours
        ("2026-03-28T02:31:00+01:00", "2026-03-29T03:31:00+02:00"),  # 02:31 is missing
        ("2026-03-29T03:01:00+02:00", "2026-03-30T03:01:00+02:00"),
        ("2026-03-28T12:00:00+01:00", "2026-03-29T13:00:00+02:00"),  # no less than 24 hours in fact
    ],
)
def test_deadline_by_the_wall_clock(success, deadline):
    assert overdue_at(datetime.fromisoformat(success), 24, BERLIN).isoformat() == deadline


ZONES = ["Europe/Berlin", "America/New_York", "America/Nuuk", "Africa/Cairo", "America/Havana", "Australia/Lord_Howe",
         "Antarctica/Troll", "Africa/Casablanca", "Asia/Tokyo", "Europe/Dublin", "Asia/Beirut", "America/Santiago"]  # fmt: skip


@given(
    zone=st.sampled_from(ZONES).map(ZoneInfo),
    year=st.integers(2026, 2035),
    at=st.times(),
    took=st.integers(0, 7200),
)
@settings(deadline=None, max_examples=60)
def test_a_daily_success_is_never_overdue_when_the_next_run_begins(zone, year, at, took):
    """A year of slots at any time of day, over both changes: no false alarm between two of them."""
    schedule = Schedule(f"{at.minute} {at.hour} * * *", zone)
    slots = islice(schedule.after(datetime.combine(date(year, 1, 1), time(), zone)), 366)
    for slot, following in pairwise(slots):
        deadline = overdue_at(slot.astimezone(UTC) + timedelta(seconds=took), 24, zone)
        assert following.astimezone(UTC) <= deadline.astimezone(UTC)


REVOKED = FailingChannel(name="slack", since=SUCCESS, waiting=2, said="invalid_auth:\nthe token was revoked")


def test_a_channel_that_has_been_failing_for_more_than_an_hour():
    assert judged(failing_channels=(REVOKED,), now=SUCCESS + timedelta(hours=1)).level is Level.HEALTHY
    late = judged(failing_channels=(REVOKED,), now=SUCCESS + timedelta(hours=1, seconds=1))
    assert late.level is Level.WARNING
    assert list(late.reasons) == [
        "nothing has got through to slack since 2026-11-22 02:31, 2 messages wait: invalid_auth: the token was revoked; see `scpln-backup notify status`"
    ]
    alone = judged(failing_channels=(msgspec.structs.replace(REVOKED, waiting=1, said=None),))
    assert "1 message waits: it did not say why" in alone.reasons[0]


# All that can be wrong, each by itself where it can be, so that every reason is made once.
TROUBLES = [
    {"now": DEADLINE + timedelta(days=1)},
    {"now": DEADLINE + timedelta(days=1), "last_success_at": None},
    {"last_run": run(Outcome.FAILED, "disk full")},
    {"last_run": run(Outcome.FAILED)},
    {"last_run": run(Outcome.FAILED, interrupted=True)},
    {"last_run": run(Outcome.SUSPECT, "rows fell")},
    {"last_run": run(Outcome.DEGRADED, "sweep failed")},
    {"last_run": None, "missing_source": "/opt/scpln/data/scpln.db"},
    {"corrupt_artifacts": 3},
    {"restore_broken_off_at": SUCCESS},
    {"scheduler_alive": False},
    {"last_drill": DrillRecord(trigger=Trigger.CLI, started_at=SUCCESS, error="the smoke test failed")},
    {"incident_deadline": SUCCESS},
    {"retention_frozen": "the clock jumped forward by 2 d; check it with timedatectl"},
    {"retention_frozen": "the last run failed", "last_run": run(Outcome.FAILED, "disk full")},
    {"retention_frozen": "the last run is suspect", "last_run": run(Outcome.SUSPECT, "rows fell")},
    {"daemon_missing": True},
    {"next_run_at": None},
    {"verified_artifacts": 0},
    {"failing_channels": (REVOKED,)},
]


def commands(text):
    return sorted(re.findall(r"`[^`]+`", text))


@pytest.mark.parametrize("facts", TROUBLES)
def test_each_reason_has_the_same_commands_and_quotations_in_japanese(facts):
    for reason in judged(**facts).why:
        assert re.search("[\u3041-\u30ff]", reason.japanese)
        assert "\n" not in reason.english + reason.japanese
        assert commands(reason.english) == commands(reason.japanese)
        for told in ("disk full", "rows fell", "sweep failed", "smoke test failed", "the clock jumped", "invalid_auth"):
            assert (told in reason.english) == (told in reason.japanese)
        for stamp in re.findall(r"20\d\d-\d\d-\d\d \d\d:\d\d", reason.english):
            assert stamp in reason.japanese


def test_a_missing_database_is_said_before_the_first_run_stumbles_over_it():
    path = "/opt/scpln/data/scpln.db"
    health = judged(last_run=None, missing_source=path)
    assert health.level is Level.CRITICAL
    assert path in health.reasons[0]
    failed = judged(last_run=run(Outcome.FAILED, "disk full"), missing_source=path)
    assert [path in reason for reason in failed.reasons] == [False]


def test_every_reason_without_facts_was_tried():
    """Whoever adds one adds its trouble above."""
    made = {reason for facts in TROUBLES for reason in judged(**facts).why}
    assert {value for value in vars(reasons).values() if isinstance(value, Reason)} <= made


def test_the_japanese_of_a_frozen_retention_says_what_has_frozen_it():
    health = judged(retention_frozen="the last run failed; …", last_run=run(Outcome.FAILED, "disk full"))
    assert health.reasons[1] == "retention is frozen: the last run failed; …"
    assert health.why[1].japanese == "直前の実行が失敗したため、自動削除を停止しています。次に正常終了すると再開します"
    health = judged(retention_frozen="the clock jumped")
    assert health.why[0].japanese == "自動削除を停止しています: the clock jumped"
