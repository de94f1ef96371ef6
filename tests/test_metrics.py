"""The metrics against a real catalog, as text, as promtool reads them."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from scpln_backup import __version__
from scpln_backup.model import Artifact, Outcome, RunRecord, Stage, State, Trigger
from scpln_backup.observers.metrics import BackupCollector, Live
from scpln_backup.records.catalog import Catalog

NOW = datetime(2026, 11, 2, 2, 30, tzinfo=UTC)
PROMTOOL = shutil.which("promtool")

ALWAYS = {
    "backup_success",
    "backup_build_info",
    "backup_running",
    "backup_runs",
    "backup_artifacts",
    "backup_artifacts_size_bytes",
    "backup_verified_artifacts",
    "backup_retention_deleted",
    "backup_next_run_timestamp_seconds",
    "backup_catalog_readable",
    "backup_source_size_bytes",
    "backup_notification_queue_length",
    "backup_notification_oldest_timestamp_seconds",
    "backup_notification_failures",
    "backup_notification_sent",
}
AFTER_A_GOOD_RUN = {
    "backup_last_run_timestamp_seconds",
    "backup_last_success_timestamp_seconds",
    "backup_last_duration_seconds",
    "backup_last_size_bytes",
    "backup_writer_blocked_seconds",
}


@pytest.fixture
def catalog(tmp_path):
    return Catalog.open(tmp_path / "catalog.db", UTC, NOW)


def scrape(catalog, **changes):
    """The exposition text, as served."""
    facts = {
        "catalog": catalog,
        "database": "scpln",
        "environment": "staging",
        "version": __version__,
        "running": False,
        "broke_off": False,
        "next_run_at": NOW + timedelta(days=1),
        "source_bytes": 1_073_741_824,
    }
    registry = CollectorRegistry()
    registry.register(BackupCollector(lambda: Live(**facts | changes)))
    return generate_latest(registry).decode()


def families(text):
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(text, name, **labels):
    """The one sample with these labels; None when there is none."""
    wanted = {"database": "scpln", "environment": "staging"} | labels
    found = [
        sample.value
        for family in families(text).values()
        for sample in family.samples
        if sample.name == name and sample.labels == wanted
    ]
    assert len(found) <= 1
    return found[0] if found else None


def run(catalog, outcome=Outcome.SUCCESS, trigger=Trigger.SCHEDULE, at=NOW, **changes):
    run_id = catalog.begin_run(trigger, at)
    facts = {
        "artifact": "scpln-20261122_0230.db.gz",
        "raw_bytes": 1000,
        "artifact_bytes": 117,
        "duration_seconds": 3.5,
        "writer_blocked_seconds": 0.106,
        "stage_seconds": {Stage.SNAPSHOT: 1.25, Stage.COMPRESS: 2.0},
        "finished_at": at + timedelta(seconds=3.5),
    }
    if outcome is Outcome.FAILED:
        facts |= {"artifact": None, "artifact_bytes": None, "error": "no room"}
    catalog.finish_run(RunRecord(id=run_id, trigger=trigger, started_at=at, outcome=outcome, **facts | changes))


def artifact(number, state):
    at = NOW - timedelta(days=number)
    name = f"scpln-{at:%Y%m%d_%H%M}.db.gz"
    return Artifact(name=name, path=f"/b/{name}", taken_at=at, modified_at=at, bytes=100, state=state)


def test_before_the_first_run(catalog):
    text = scrape(catalog)
    assert set(families(text)) == ALWAYS
    assert value(text, "backup_success") == 0
    assert value(text, "backup_artifacts") == 0
    assert value(text, "backup_catalog_readable") == 1
    assert value(text, "backup_build_info", version=__version__) == 1
    assert value(text, "backup_next_run_timestamp_seconds") == (NOW + timedelta(days=1)).timestamp()


def test_every_metric_has_both_labels_and_help(catalog):
    run(catalog)
    found = families(scrape(catalog))
    assert set(found) == ALWAYS | AFTER_A_GOOD_RUN
    for family in found.values():
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert sample.labels["database"] == "scpln"
            assert sample.labels["environment"] == "staging"


def test_a_good_run(catalog):
    run(catalog)
    text = scrape(catalog)
    ended = (NOW + timedelta(seconds=3.5)).timestamp()
    assert value(text, "backup_success") == 1
    assert value(text, "backup_last_run_timestamp_seconds") == ended
    assert value(text, "backup_last_success_timestamp_seconds") == ended
    assert value(text, "backup_last_duration_seconds", stage="total") == 3.5
    assert value(text, "backup_last_duration_seconds", stage="snapshot") == 1.25
    assert value(text, "backup_last_duration_seconds", stage="sweep") is None
    assert value(text, "backup_last_size_bytes") == 117
    assert value(text, "backup_source_size_bytes") == 1_073_741_824
    assert value(text, "backup_writer_blocked_seconds") == 0.106
    assert value(text, "backup_runs_total", trigger="schedule", outcome="success") == 1


@pytest.mark.parametrize(
    ("outcome", "counts_as_success"),
    [(Outcome.DEGRADED, True), (Outcome.SUSPECT, False), (Outcome.FAILED, False)],
)
def test_only_success_is_a_success_and_a_proven_copy_has_its_time(catalog, outcome, counts_as_success):
    run(catalog)
    later = NOW + timedelta(days=1)
    run(catalog, outcome, at=later)
    text = scrape(catalog)
    assert value(text, "backup_success") == 0
    last_good = (later if counts_as_success else NOW) + timedelta(seconds=3.5)
    assert value(text, "backup_last_success_timestamp_seconds") == last_good.timestamp()
    assert value(text, "backup_last_run_timestamp_seconds") == (later + timedelta(seconds=3.5)).timestamp()
    assert value(text, "backup_last_size_bytes") == 117


def test_a_killed_run_is_a_failed_one(catalog):
    run(catalog)
    catalog.begin_run(Trigger.SIGNAL, NOW + timedelta(hours=1))
    text = scrape(catalog)
    assert value(text, "backup_success") == 0
    assert value(text, "backup_last_run_timestamp_seconds") == (NOW + timedelta(hours=1)).timestamp()
    assert value(text, "backup_runs_total", trigger="signal", outcome="failed") == 1


def test_a_run_under_way_changes_nothing_but_running(catalog):
    run(catalog)
    catalog.begin_run(Trigger.SIGNAL, NOW + timedelta(hours=1))
    text = scrape(catalog, running=True)
    assert value(text, "backup_running") == 1
    assert value(text, "backup_success") == 1
    assert value(text, "backup_runs_total", trigger="signal", outcome="failed") is None


def test_a_run_that_could_not_begin_is_no_success(catalog):
    run(catalog)
    assert value(scrape(catalog, broke_off=True), "backup_success") == 0


def test_artifacts_and_deletions_are_counted_and_survive_a_restart(catalog, tmp_path):
    states = [State.VERIFIED, State.VERIFIED, State.SUSPECT, State.UNVERIFIED]
    artifacts = [artifact(number, state) for number, state in enumerate(states)]
    catalog.sync_artifacts(artifacts, NOW)
    catalog.note_deleted(artifacts[3].name, "31 days old", NOW)
    for _ in range(3):
        run(catalog, trigger=Trigger.SIGNAL)
    text = scrape(Catalog.open(tmp_path / "catalog.db", UTC, NOW + timedelta(days=1)))
    assert value(text, "backup_artifacts") == 3
    assert value(text, "backup_artifacts_size_bytes") == 300
    assert value(text, "backup_verified_artifacts") == 2
    assert value(text, "backup_retention_deleted_total") == 1
    assert value(text, "backup_runs_total", trigger="signal", outcome="success") == 3


def test_an_unreadable_catalog_does_not_break_the_scrape(catalog):
    run(catalog)
    catalog.path.write_bytes(b"this is not a database, and it is long enough to be looked at" * 50)
    text = scrape(catalog)
    assert value(text, "backup_catalog_readable") == 0
    assert value(text, "backup_success") == 0
    assert value(text, "backup_build_info", version=__version__) == 1
    assert value(text, "backup_last_success_timestamp_seconds") is None
    assert value(text, "backup_runs_total", trigger="schedule", outcome="success") is None


def test_what_is_not_known_is_absent(catalog):
    text = scrape(catalog, next_run_at=None, source_bytes=None)
    assert value(text, "backup_next_run_timestamp_seconds") is None
    assert value(text, "backup_source_size_bytes") is None


def test_labels_are_escaped(catalog):
    found = families(scrape(catalog, environment='a"b\\c\nd'))
    assert found["backup_success"].samples[0].labels["environment"] == 'a"b\\c\nd'


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_has_nothing_to_say(catalog):
    for outcome in Outcome:
        run(catalog, outcome)
    catalog.sync_artifacts([artifact(1, State.VERIFIED)], NOW)
    checked = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=scrape(catalog), capture_output=True, text=True, check=False, timeout=30
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
