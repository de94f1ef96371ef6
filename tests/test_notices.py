"""What events mean to those who must know, and who wants to hear of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scpln_backup.events import (
    ArtifactDeleted,
    ArtifactVerified,
    BackupOverdue,
    ConfigReloaded,
    DaemonStarted,
    DrillFinished,
    RetentionFrozen,
    RunFinished,
    ServiceFailed,
)
from scpln_backup.model import DrillRecord, Outcome, RunRecord, Severity, Topic, Trigger
from scpln_backup.observers.notices import Notice, notice
from scpln_backup.observers.planning import Interest
from scpln_backup.records.outbox import Cause

NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)
TOLD = {name: Cause(since=NOW) for name in ("run", "overdue", "drill", "service", "artifact a")}
PAGER = Interest(topics=frozenset({Topic.RUN, Topic.OVERDUE, Topic.SERVICE}), level=Severity.CRITICAL, causes=TOLD)
EVERYBODY = Interest(topics=frozenset(Topic), level=Severity.INFO, causes=TOLD)


def run(outcome, *, interrupted=False):
    record = RunRecord(trigger=Trigger.SCHEDULE, started_at=NOW, outcome=outcome, interrupted=interrupted)
    return RunFinished(record=record)


@pytest.mark.parametrize(
    ("outcome", "severity", "opens", "closes"),
    [
        (Outcome.SUCCESS, Severity.INFO, None, ("run", "overdue")),
        (Outcome.DEGRADED, Severity.WARNING, "run", ("overdue",)),
        (Outcome.SUSPECT, Severity.WARNING, "run", ()),
        (Outcome.FAILED, Severity.CRITICAL, "run", ()),
    ],
)
def test_a_run(outcome, severity, opens, closes):
    found = notice(run(outcome))
    assert (found.topic, found.severity, found.opens, found.closes) == (Topic.RUN, severity, opens, closes)


def test_what_ends_a_page():
    """A good artifact does; that the next run was only interrupted, or left a doubtful copy, does not."""
    assert PAGER.over(notice(run(Outcome.SUCCESS))) == ("run", "overdue")
    assert PAGER.over(notice(run(Outcome.DEGRADED))) == ("overdue", "run")
    assert PAGER.over(notice(run(Outcome.SUSPECT))) == ()
    assert PAGER.over(notice(run(Outcome.FAILED, interrupted=True))) == ()
    assert PAGER.over(notice(run(Outcome.FAILED))) == ()


def test_who_is_told_of_what():
    assert PAGER.wanted(notice(run(Outcome.FAILED)))
    assert PAGER.opens(notice(run(Outcome.FAILED))) == "run"
    assert not PAGER.wanted(notice(run(Outcome.SUSPECT)))
    assert PAGER.opens(notice(run(Outcome.DEGRADED))) is None
    drill = DrillFinished(record=DrillRecord(trigger=Trigger.SCHEDULE, started_at=NOW))
    assert EVERYBODY.opens(notice(drill)) == "drill"
    assert not PAGER.wanted(notice(drill))


def test_what_is_no_news_is_told_only_to_those_for_whom_something_is_over():
    nobody = Interest(topics=frozenset(Topic), level=Severity.INFO)
    for event in (
        DaemonStarted(version="1"),
        ArtifactVerified(name="a", error=None),
        ArtifactDeleted(name="a", reason=""),
    ):
        assert not nobody.wanted(notice(event))
        assert EVERYBODY.wanted(notice(event))
        assert EVERYBODY.opens(notice(event)) is None


def test_the_audit_log_alone_hears_of_the_rest():
    for event in (ConfigReloaded(), RetentionFrozen(reason="clock")):
        assert notice(event) == Notice(topic=None)
        assert not EVERYBODY.wanted(notice(event))


def test_each_damaged_artifact_is_a_trouble_of_its_own():
    first, second = (notice(ArtifactVerified(name=name, error="damaged")) for name in ("a", "b"))
    assert (first.severity, first.opens, second.opens) == (Severity.CRITICAL, "artifact a", "artifact b")


@given(
    st.sampled_from([*(run(outcome) for outcome in Outcome), ServiceFailed(unit="u", problem="p", invocation="i")]),
    st.frozensets(st.sampled_from(list(Topic))),
    st.sampled_from(list(Severity)),
    st.booleans(),
)
def test_nobody_hears_of_an_end_without_its_beginning(event, topics, level, told):
    interest = Interest(topics=topics, level=level, causes=TOLD if told else {})
    found = notice(event)
    assert set(interest.over(found)) <= set(interest.causes)
    assert interest.wanted(found) == bool(
        interest.over(found)
        or (found.topic in topics and list(Severity).index(found.severity) >= list(Severity).index(level))
    )


def test_an_overdue_backup_is_critical():
    found = notice(BackupOverdue(since=NOW, deadline=NOW, hours=24))
    assert (found.topic, found.severity, found.opens) == (Topic.OVERDUE, Severity.CRITICAL, "overdue")
