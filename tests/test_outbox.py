"""Events are kept with the facts that they tell of, and each channel goes through them in order, once."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest

from scpln_backup import events
from scpln_backup.errors import CatalogError
from scpln_backup.events import (
    ArtifactDeleted,
    ConfigReloaded,
    DaemonStarted,
    DrillFinished,
    Event,
    EventUnreadable,
    IncidentOpened,
    RestoreFinished,
    RunFinished,
)
from scpln_backup.model import (
    DrillRecord,
    Incident,
    Outcome,
    RestoreOutcome,
    RestoreRecord,
    RunRecord,
    Trigger,
)
from scpln_backup.records.catalog import Catalog

TOKYO = ZoneInfo("Asia/Tokyo")
NOW = datetime(2026, 11, 22, 2, 30, tzinfo=TOKYO)
HOUR = timedelta(hours=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "catalog.db"


@pytest.fixture
def catalog(path):
    return Catalog.open(path, TOKYO, NOW, "alice")


def run(catalog, at=NOW, outcome=Outcome.SUCCESS):
    record = RunRecord(trigger=Trigger.SCHEDULE, started_at=at, id=catalog.begin_run(Trigger.SCHEDULE, at))
    record = msgspec.structs.replace(record, outcome=outcome, finished_at=at + timedelta(minutes=1))
    catalog.finish_run(record)
    return record


def restore(at=NOW):
    return RestoreRecord(
        started_at=at,
        finished_at=at + HOUR,
        artifact="scpln-20261122_0230.db.gz",
        target="/opt/scpln/data/scpln.db",
        outcome=RestoreOutcome.SUCCESS,
    )


def told(catalog):
    return [entry.event for entry in catalog.entries()]


def test_a_run_is_kept_with_its_end(catalog):
    record = run(catalog)
    (entry,) = catalog.entries()
    assert entry.event == RunFinished(record=record)
    assert (entry.at, entry.at.tzinfo, entry.actor) == (record.finished_at, TOKYO, "alice")


def test_without_the_end_of_the_run_there_is_no_event_and_without_the_event_no_end(catalog, path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE events")
    number = catalog.begin_run(Trigger.CLI, NOW)
    with pytest.raises(CatalogError, match="events"):
        catalog.finish_run(RunRecord(id=number, trigger=Trigger.CLI, started_at=NOW, finished_at=NOW))
    assert catalog.unfinished() is not None


@pytest.mark.parametrize("by", ["the next run", "the daemon's start"])
def test_a_killed_run_is_told_of_once(catalog, by):
    catalog.begin_run(Trigger.SCHEDULE, NOW)
    for later in (HOUR, 2 * HOUR):
        if by == "the next run":
            run(catalog, NOW + later)
        else:
            catalog.tell_broken_off_runs(NOW + later)
    broken = [event.record for event in told(catalog) if event.record.interrupted]
    assert [(record.started_at, record.outcome) for record in broken] == [(NOW, Outcome.FAILED)]


def test_a_killed_drill_is_told_of_once(catalog):
    catalog.begin_drill(Trigger.SCHEDULE, NOW)
    catalog.tell_broken_off_drills(NOW + HOUR)
    number = catalog.begin_drill(Trigger.SCHEDULE, NOW + HOUR)
    record = DrillRecord(id=number, trigger=Trigger.SCHEDULE, started_at=NOW + HOUR, finished_at=NOW + 2 * HOUR)
    catalog.finish_drill(record)
    first, second = told(catalog)
    assert (first.record.started_at, first.record.error) == (NOW, "interrupted")
    assert second == DrillFinished(record=record)


def test_a_restore_and_its_incident_told_again_after_a_crash_are_kept_once(catalog):
    for _ in range(2):
        record = msgspec.structs.replace(restore(), id=catalog.add_restore(restore()))
        incident = Incident(opened_at=NOW + HOUR, deadline_at=NOW + 24 * HOUR, restore=record)
        incident = msgspec.structs.replace(incident, id=catalog.add_incident(incident))
    assert told(catalog) == [RestoreFinished(record=record), IncidentOpened(incident=incident)]


def test_an_event_with_a_key_is_kept_once_and_others_each_time(catalog):
    event = RunFinished(record=RunRecord(trigger=Trigger.CLI, started_at=NOW))
    assert catalog.keep_event(event, NOW)
    assert not catalog.keep_event(event, NOW + HOUR)
    assert catalog.keep_event(ArtifactDeleted(name="a", reason="old"), NOW)
    assert catalog.keep_event(ArtifactDeleted(name="a", reason="old"), NOW)
    assert len(catalog.entries()) == 3


def test_every_kind_of_event_that_lasts_has_a_way_back_from_the_outbox(catalog):
    kinds = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]
    durable = {kind for kind in kinds if kind.durable}
    run_record = RunRecord(trigger=Trigger.CLI, started_at=NOW, error="ファイル\udcff")
    incident = Incident(opened_at=NOW, deadline_at=NOW + HOUR, restore=restore(), id=3)
    made = [
        RunFinished(record=run_record),
        ArtifactDeleted(name="a", reason="b"),
        events.ArtifactVerified(name="a", error=None),
        events.ArtifactPinned(name="a", pinned=True),
        events.ShrinkAccepted(name="a"),
        events.BackupRequested(),
        events.RestoreStarted(record=restore()),
        RestoreFinished(record=restore()),
        DrillFinished(record=DrillRecord(trigger=Trigger.CLI, started_at=NOW)),
        events.RebuildFinished(incident=3, record=events.RebuildRecord(started_at=NOW, since="2026-11-22")),
        IncidentOpened(incident=incident),
        events.IncidentOverdue(incident=incident),
        events.IncidentClosed(incident=incident, report="# Report"),
        events.RetentionFrozen(reason="a"),
        events.BackupOverdue(since=NOW, deadline=NOW + HOUR, hours=24),
        events.ReviewMade(month="2026-10", path="/p", text="t", unticketed=(NOW,)),
        DaemonStarted(version="1"),
        events.DaemonStopped(),
        events.ServiceFailed(unit="u", problem="p", invocation="i"),
        ConfigReloaded(problem=None),
    ]
    assert {type(event) for event in made} == durable
    for event in made:
        assert catalog.keep_event(event, NOW)
    read = told(catalog)
    assert read[0].record.error == "ファイル\\udcff"
    assert read[1:] == made[1:]


def test_a_kind_of_a_newer_version_is_passed_over(catalog, path):
    catalog.register_channels(["slack"])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO events (at, kind, actor, payload) VALUES (0, 'Newer', '', '{}')")
    run(catalog)
    assert [type(event) for event in told(catalog)] == [RunFinished]
    assert len(catalog.waiting(catalog.channel("slack"))) == 1


def test_an_event_that_cannot_be_read_keeps_nothing_back(catalog, path):
    """Damage, or a value that only a newer version knows, in one row."""
    catalog.register_channels(["slack"])
    for payload in ("{}", '{"record": {"outcome": "newer"}}', "nonsense"):
        with closing(sqlite3.connect(path)) as connection, connection:
            statement = "INSERT INTO events (at, kind, actor, payload) VALUES (0, 'RunFinished', '', ?)"
            connection.execute(statement, (payload,))
    run(catalog)
    waiting = catalog.waiting(catalog.channel("slack"))
    assert [type(entry.event) for entry in waiting] == [*[EventUnreadable] * 3, RunFinished]


# Channels


def test_a_new_channel_hears_of_what_happens_from_now_on(catalog):
    run(catalog)
    catalog.register_channels(["slack"])
    later = run(catalog, NOW + HOUR)
    assert [entry.event.record for entry in catalog.waiting(catalog.channel("slack"))] == [later]
    # One that is switched off and on again is a new one: a flood of old news helps nobody.
    catalog.register_channels([])
    run(catalog, NOW + 2 * HOUR)
    catalog.register_channels(["slack", "jira"])
    assert [(state.name, state.waiting) for state in catalog.channels()] == [("jira", 0), ("slack", 0)]


def test_a_channel_that_comes_back_still_has_to_tell_that_a_trouble_is_over(catalog):
    catalog.register_channels(["pagerduty"])
    run(catalog, outcome=Outcome.FAILED)
    catalog.settle("pagerduty", 1, at=NOW, opens=("run",), ref="the alert")
    catalog.register_channels([])
    catalog.register_channels(["pagerduty"])
    assert catalog.causes("pagerduty")["run"].ref == "the alert"


def test_how_far_each_channel_is_is_its_own(catalog):
    catalog.register_channels(["jira", "slack"])
    first, second = run(catalog), run(catalog, NOW + HOUR)
    catalog.settle("slack", 1, at=NOW + HOUR)
    slack, jira = catalog.channel("slack"), catalog.channel("jira")
    assert (slack.waiting, slack.oldest_at, slack.sent) == (1, second.finished_at, 1)
    assert (jira.waiting, jira.oldest_at, jira.sent) == (2, first.finished_at, 0)
    assert catalog.channel("pagerduty") is None


def test_a_delivery_whose_end_is_not_known_is_tried_again_with_the_same_entries(catalog):
    catalog.register_channels(["slack"])
    run(catalog)
    assert not catalog.begin_delivery("slack", "slack 1-1", 1)
    # Killed here, and more has happened since.
    run(catalog, NOW + HOUR)
    assert [entry.id for entry in catalog.waiting(catalog.channel("slack"))] == [1]
    assert catalog.begin_delivery("slack", "slack 1-1", 1)
    catalog.settle("slack", 1, at=NOW)
    assert [entry.id for entry in catalog.waiting(catalog.channel("slack"))] == [2]
    assert not catalog.begin_delivery("slack", "slack 2-2", 2)


@pytest.mark.parametrize(("surely_not", "doubtful"), [(True, False), (False, True)])
def test_a_failure_is_noted_and_says_whether_to_look_before_the_next_try(catalog, surely_not, doubtful):
    catalog.register_channels(["slack"])
    run(catalog)
    for attempt in range(2):
        catalog.begin_delivery("slack", "key", 1)
        catalog.fail_delivery(
            "slack", "no", at=NOW + attempt * HOUR, retry_at=NOW + (attempt + 1) * HOUR, arrived_surely_not=surely_not
        )
    state = catalog.channel("slack")
    assert (state.attempts, state.failures, state.error) == (2, 2, "no")
    assert (state.failing_since, state.retry_at) == (NOW, NOW + 2 * HOUR)
    assert catalog.begin_delivery("slack", "key", 1) is doubtful
    catalog.settle("slack", 1, at=NOW + 2 * HOUR)
    state = catalog.channel("slack")
    assert (state.attempts, state.failures, state.failing_since, state.retry_at, state.error) == (
        0,
        2,
        None,
        None,
        None,
    )


def test_causes_are_remembered_until_they_are_over(catalog):
    catalog.register_channels(["jira"])
    run(catalog)
    catalog.settle("jira", 1, at=NOW, opens=("run",), about=(1,), ref="OPS-1")
    catalog.settle("jira", 1, at=NOW + HOUR, opens=("run",))
    (cause,) = catalog.causes("jira").values()
    assert (cause.since, cause.count, cause.ref) == (NOW, 2, "OPS-1")
    assert catalog.causes("slack") == {}
    assert catalog.refs("jira", [1, 2]) == {1: ["OPS-1"]}
    catalog.settle("jira", 1, at=NOW + 2 * HOUR, closes=("run",))
    assert catalog.causes("jira") == {}


def test_whether_a_run_has_a_ticket(catalog):
    catalog.register_channels(["jira"])
    with_ticket, without = run(catalog), run(catalog, NOW + HOUR)
    catalog.settle("jira", 1, at=NOW, about=(1,), ref="OPS-1")
    # The start is what tells a run from others, in whatever zone it is said.
    asked = msgspec.structs.replace(with_ticket, started_at=with_ticket.started_at.astimezone(UTC))
    assert catalog.has_ref("jira", RunFinished(record=asked))
    assert not catalog.has_ref("jira", RunFinished(record=without))


def test_what_all_have_heard_of_is_forgotten_after_its_time(catalog):
    catalog.register_channels(["jira", "slack"])
    for day in range(3):
        run(catalog, NOW + day * 24 * HOUR)
    catalog.settle("slack", 3, at=NOW)
    catalog.settle("jira", 2, at=NOW, about=(1,), ref="OPS-1")
    catalog.prune_events(NOW + 100 * 24 * HOUR)
    assert [entry.id for entry in catalog.entries()] == [3]
    assert catalog.refs("jira", [1]) == {}
    catalog.settle("jira", 3, at=NOW)
    catalog.prune_events(NOW)
    assert [entry.id for entry in catalog.entries()] == [3]


def test_ids_are_never_given_again(catalog):
    """A channel remembers ids; after pruning, a new event must not hide behind one that is settled."""
    catalog.register_channels(["slack"])
    run(catalog)
    catalog.settle("slack", 1, at=NOW)
    catalog.prune_events(NOW + 100 * 24 * HOUR)
    run(catalog, NOW + HOUR)
    assert [entry.id for entry in catalog.waiting(catalog.channel("slack"))] == [2]


def test_each_catalog_has_a_name_of_its_own(catalog, tmp_path):
    other = Catalog.open(tmp_path / "other" / "catalog.db", TOKYO, NOW)
    assert len({catalog.catalog_id(), other.catalog_id(), ""}) == 3
    assert Catalog.reader(catalog.path, TOKYO).catalog_id() == catalog.catalog_id()
