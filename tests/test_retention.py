"""What a sweep deletes: find's answer, less what the keep rules hold."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scpln_backup.model import State
from scpln_backup.rules.naming import is_artifact
from scpln_backup.rules.retention import Action, Candidate, Policy, decide

TOKYO = ZoneInfo("Asia/Tokyo")
BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 22, 3, 0, tzinfo=TOKYO)
BARE = Policy(keep_verified=0)


def candidate(days, state=State.UNVERIFIED, **more):
    taken = NOW - timedelta(days=days)
    return Candidate(name=f"{taken:scpln-%Y%m%d_%H%M%S}.db.gz", taken_at=taken, modified_at=taken, state=state, **more)


def nightly(count, state=State.UNVERIFIED):
    return [candidate(day, state) for day in range(count)]


def reasons(candidates, policy, **more):
    """By age in days: why it is kept; None where it is deleted."""
    verdicts = decide(candidates, policy, now=NOW, zone=TOKYO, **more)
    by_name = {v.name: None if v.action is Action.DELETE else v.reason for v in verdicts}
    return [by_name[c.name] for c in candidates]


def deleted(candidates, policy, now=NOW, zone=TOKYO):
    return {v.name for v in decide(candidates, policy, now=now, zone=zone) if v.action is Action.DELETE}


# find's clock starts a moment after ours, so an age may lie on a boundary or after it, and before it by a margin.
AGES = st.builds(
    lambda days, seconds: days * 86400 + seconds,
    st.one_of(st.integers(29, 32), st.integers(-3, 400)),
    st.sampled_from([0, 1, 60, 3600, 43200, -60, -20]),
)
STEMS = ["scpln-", "other-", "scpln_", "Scpln-", "xscpln-", ""]
SUFFIXES = [".db.gz", ".db.gz.json", ".db", ".gz", ".db.gz~", ".DB.GZ"]
FILES = st.lists(
    st.tuples(
        st.sampled_from(["", "2025/", "2026/", "2026/deep/er/"]),
        # Twice as often a name that matches.
        st.one_of(st.just(STEMS[0]), st.sampled_from(STEMS)),
        st.one_of(st.just(SUFFIXES[0]), st.sampled_from(SUFFIXES)),
        AGES,
    ),
    max_size=25,
)


@given(files=FILES, days=st.one_of(st.just(30), st.integers(0, 33)))
@settings(deadline=None, max_examples=120)
def test_selects_what_find_selects(files, days, tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    now = datetime.now(UTC).replace(microsecond=0)
    candidates = []
    for number, (folder, stem, suffix, age) in enumerate(files):
        (root / folder).mkdir(parents=True, exist_ok=True)
        path = root / folder / f"{stem}{number}{suffix}"
        path.touch()
        modified_at = now - timedelta(seconds=age)
        os.utime(path, (modified_at.timestamp(), modified_at.timestamp()))
        if is_artifact("scpln", path.name):
            candidates.append(
                Candidate(name=path.name, taken_at=modified_at, modified_at=modified_at, state=State.UNVERIFIED)
            )
    found = subprocess.run(
        ["find", root, "-type", "f", "-mtime", f"+{days}", "-name", "scpln-*.db.gz", "-printf", "%f\n"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert deleted(candidates, Policy(days=days), now=now) == set(found)


CANDIDATES = st.lists(
    st.builds(
        lambda age, drift, state, pinned, in_use: Candidate(
            name=f"scpln-{age}-{drift}.db.gz",
            taken_at=NOW - timedelta(minutes=age),
            modified_at=NOW - timedelta(minutes=age + drift),
            state=state,
            pinned=pinned,
            in_use=in_use,
        ),
        st.integers(-3000, 120 * 1440),
        st.sampled_from([0, 0, 0, -100000, 100000]),
        st.sampled_from(State),
        st.booleans(),
        st.booleans(),
    ),
    max_size=40,
    unique_by=lambda c: c.name,
)
QUOTA = st.sampled_from([0, 0, 1, 3, 12])
POLICIES = st.builds(
    Policy,
    days=st.integers(0, 100),
    keep_last=QUOTA,
    keep_daily=QUOTA,
    keep_weekly=QUOTA,
    keep_monthly=QUOTA,
    keep_yearly=QUOTA,
    keep_verified=st.integers(0, 9),
)


@given(candidates=CANDIDATES, policy=POLICIES, longer=st.integers(0, 100))
@settings(deadline=None, max_examples=200)
def test_what_holds_for_every_policy(candidates, policy, longer):
    verdicts = decide(candidates, policy, now=NOW, zone=TOKYO)
    gone = {v.name for v in verdicts if v.action is Action.DELETE}

    newest_first = sorted(candidates, key=lambda c: (c.taken_at, c.name), reverse=True)
    assert [v.name for v in verdicts] == [c.name for c in newest_first]
    verified = [c.name for c in newest_first if c.state is State.VERIFIED]
    assert gone.isdisjoint(verified[: policy.keep_verified]), "the floor holds"
    assert gone.isdisjoint(c.name for c in candidates if c.pinned or c.in_use)
    assert gone <= {c.name for c in candidates if (NOW - c.modified_at) >= timedelta(days=policy.days + 1)}
    assert all(v.reason for v in verdicts)

    more_days = Policy(**{f: getattr(policy, f) for f in policy.__struct_fields__} | {"days": policy.days + longer})
    assert deleted(candidates, more_days) <= gone, "keeping for longer never deletes more"
    backwards = decide(candidates[::-1], policy, now=NOW, zone=TOKYO)
    assert backwards == verdicts, "the order they come in does not matter"
    assert {v.action for v in decide(candidates, policy, now=NOW, zone=TOKYO, frozen="x")} <= {Action.KEEP}


def test_age_is_said():
    young, day, old, edge, future = (candidate(days) for days in (12, 1.5, 31, 30.99, -2))
    verdicts = {v.name: v for v in decide([young, day, old, edge, future], BARE, now=NOW, zone=TOKYO)}
    assert verdicts[young.name].reason == "12 days old, kept for 30"
    assert verdicts[day.name].reason == "1 day old, kept for 30"
    assert verdicts[edge.name].reason == "30 days old, kept for 30"
    assert verdicts[future.name].reason == "dated in the future, kept for 30"
    assert verdicts[old.name].action is Action.DELETE
    assert verdicts[old.name].reason == "31 days old, past 30"


def test_age_is_elapsed_time_not_wall_clock():
    """31 local days over spring's change are an hour short of 31 times 86,400 s."""
    now = datetime(2026, 4, 20, 2, 30, tzinfo=BERLIN)
    taken = now.replace(month=3)
    one = Candidate(name="a", taken_at=taken, modified_at=taken, state=State.UNVERIFIED)
    assert deleted([one], BARE, now=now, zone=BERLIN) == set()
    assert deleted([one], BARE, now=now + timedelta(hours=1), zone=BERLIN) == {"a"}


def test_verified_floor_is_counted_from_the_newest_verified():
    candidates = [candidate(day, State.VERIFIED if day % 2 else State.SUSPECT) for day in range(40, 60)]
    kept = reasons(candidates, Policy(days=30, keep_verified=3))
    assert [c for c in kept if c] == ["one of the newest 3 verified"] * 3
    assert all(kept[i] for i in (1, 3, 5))


def test_pinned_read_and_frozen():
    old = [candidate(100, pinned=True), candidate(101, in_use=True), candidate(102, State.CORRUPT)]
    assert reasons(old, BARE) == ["pinned", "being read", None]
    frozen = reasons(old, BARE, frozen="the newest artifact is suspect")
    assert frozen == ["retention is frozen: the newest artifact is suspect"] * 3


def test_keep_last():
    candidates = [candidate(40 + day) for day in range(5)]
    assert reasons(candidates, Policy(keep_last=2)) == ["one of the newest 2 (keep_last)"] * 2 + [None] * 3


def test_keep_daily_takes_the_newest_of_each_local_day_that_has_one():
    hours = [0, 1, 24, 72, 73]  # back from 03:00: 22nd twice, 21st, 19th twice
    candidates = [candidate(40 + hour / 24) for hour in hours]
    assert reasons(candidates, Policy(keep_daily=3)) == [
        "the newest of 2026-10-13 (keep_daily 3)",
        None,
        "the newest of 2026-10-12 (keep_daily 3)",
        "the newest of 2026-10-10 (keep_daily 3)",
        None,
    ]


def test_local_days_are_the_zones():
    """23:00 and 01:00 in Tokyo are one day in UTC and two in Tokyo."""
    late = Candidate(
        name="late",
        taken_at=datetime(2026, 8, 1, 23, tzinfo=TOKYO),
        modified_at=NOW - timedelta(99),
        state=State.VERIFIED,
    )
    early = Candidate(
        name="early",
        taken_at=datetime(2026, 8, 2, 1, tzinfo=TOKYO),
        modified_at=NOW - timedelta(99),
        state=State.VERIFIED,
    )
    policy = Policy(keep_daily=2, keep_verified=0)
    assert deleted([late, early], policy, zone=TOKYO) == set()
    assert deleted([late, early], policy, zone=UTC) == {"late"}


def test_keep_weekly_counts_iso_weeks():
    candidates = [candidate(day) for day in range(320, 337)]  # 2025-12-21 to 2026-01-06
    kept = [reason for reason in reasons(candidates, Policy(keep_weekly=9)) if reason]
    assert kept == [
        f"the newest of {week} (keep_weekly 9)" for week in ("2026-W02", "2026-W01", "2025-W52", "2025-W51")
    ]


def test_keep_monthly_and_yearly():
    candidates = nightly(800)
    kept = [r for r in reasons(candidates, Policy(days=0, keep_monthly=3, keep_yearly=2)) if r]
    assert kept == [
        "0 days old, kept for 0",
        "the newest of 2026-10 (keep_monthly 3)",
        "the newest of 2026-09 (keep_monthly 3)",
        "the newest of 2025 (keep_yearly 2)",
    ]


@pytest.mark.parametrize("rule", ["keep_last", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly"])
@pytest.mark.parametrize("state", [State.SUSPECT, State.CORRUPT])
def test_bad_artifacts_do_not_fill_a_quota(rule, state):
    """The damaged one is the newest of its day, week, month and year, and still the good one before it is kept."""
    good, bad = candidate(40.1, State.VERIFIED), candidate(40, state)
    assert deleted([good, bad], Policy(keep_verified=0, **{rule: 1})) == {bad.name}


def test_one_that_cannot_be_judged_is_kept():
    assert reasons([candidate(400, problem="unreadable manifest")], BARE) == ["unreadable manifest"]
