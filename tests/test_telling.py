"""The real daemon and the real commands, with working fakes of Slack, PagerDuty and Jira: who hears of what, once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from datetime import UTC, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from scpln_backup.model import Outcome, Trigger
from scpln_backup.records.catalog import Catalog
from scpln_backup.support import clock
from support import fake_jira, fake_pagerduty, fake_slack
from support.daemon_process import WAIT, DaemonProcess
from support.fakes import Answer, Cut, Hang
from support.place import Place

PAST = timedelta(hours=30)


class Site:
    """A place with all three services configured."""

    def __init__(self, place, stack):
        self.place = place
        self.slack = stack.enter_context(fake_slack.FakeSlack())
        self.pagerduty = stack.enter_context(fake_pagerduty.FakePagerDuty())
        self.jira = stack.enter_context(fake_jira.FakeJira())
        secrets = {
            "slack": fake_slack.TOKEN,
            "pagerduty": fake_pagerduty.ROUTING_KEY,
            "jira": fake_jira.TOKEN,
        }
        files = {name: str(place.folder / f"{name}-secret") for name in secrets}
        for name, secret in secrets.items():
            (place.folder / f"{name}-secret").write_text(f"{secret}\n")
        self.secrets = list(secrets.values())
        place.configure("slack", token_file=files["slack"], api_url=self.slack.api_url + "/")
        place.configure("pagerduty", routing_key_file=files["pagerduty"], url=self.pagerduty.url)
        place.configure("jira", url=self.jira.url, token_file=files["jira"], project="OPS", done_transition="Done")

    @property
    def catalog(self):
        return Catalog(self.place.state / "catalog.db", UTC)

    def posted(self):
        return [message["text"] for message in self.slack.messages]

    def wait_until_told(self):
        """Until nothing waits for anybody. The daemon says so to nobody, so it is looked for."""
        deadline = time.monotonic() + WAIT
        while any(state.waiting for state in self.catalog.channels()):
            assert time.monotonic() < deadline, self.catalog.channels()
            time.sleep(0.02)

    def break_source(self):
        self.place.source.rename(self.place.source.with_name("moved.db"))

    def mend_source(self):
        self.place.source.with_name("moved.db").rename(self.place.source)


@pytest.fixture
def site(tmp_path):
    with ExitStack() as stack:
        yield Site(Place(tmp_path), stack)


def backup(daemon, count=1, outcome="success"):
    daemon.send(signal.SIGUSR1)
    daemon.wait_for(f"backup {outcome}", count)


def test_a_failure_its_repetition_and_the_recovery_from_it(site):
    with DaemonProcess(site.place) as daemon:
        backup(daemon)
        site.wait_until_told()
        assert len(site.posted()) == 1
        assert "scpln-" in site.posted()[0]
        assert (site.pagerduty.alerts.effects, site.jira.tickets) == ([], {})

        site.break_source()
        for count in (1, 2):
            backup(daemon, count, "failed")
            site.wait_until_told()
        assert len(site.posted()) == 3
        assert len(site.pagerduty.alerts.open) == 1
        (ticket,) = site.jira.tickets.values()
        assert (len(ticket.comments), ticket.done) == (1, False)

        site.mend_source()
        backup(daemon, 2)
        site.wait_until_told()
        daemon.stop()
    assert len(site.posted()) == 4
    assert site.pagerduty.alerts.open == {}
    assert [effect.what for effect in site.pagerduty.alerts.effects] == ["opened", "added", "resolved"]
    assert (len(ticket.comments), ticket.done, len(site.jira.tickets)) == (2, True, 1)


def test_a_service_that_hangs_holds_up_neither_a_backup_nor_the_others(site):
    site.slack.script(Hang(), Hang())
    with DaemonProcess(site.place) as daemon:
        site.break_source()
        backup(daemon, outcome="failed")
        site.slack.wait_for(1)
        site.mend_source()
        backup(daemon)  # ends while Slack still hangs
        site.pagerduty.wait_for(2)
        assert [effect.what for effect in site.pagerduty.alerts.effects] == ["opened", "resolved"]
        assert site.posted() == []
        daemon.stop()


def test_a_message_whose_answer_was_lost_with_the_daemon_is_not_posted_twice(site):
    with DaemonProcess(site.place) as daemon:
        site.slack.script(Hang(done=True))
        backup(daemon)
        site.slack.wait_for(1)
        assert len(site.posted()) == 1
    # Killed, with its child, while it waited for the answer.
    with DaemonProcess(site.place) as daemon:
        site.wait_until_told()
        assert len(site.posted()) == 1
        assert "conversations.history" in site.slack.methods()
        backup(daemon)
        site.wait_until_told()
        daemon.stop()
    assert len(site.posted()) == 2


def test_what_waited_while_a_service_was_away_is_told_in_order(site):
    site.place.configure("schedule", heartbeat_seconds=1)
    with DaemonProcess(site.place) as daemon:
        site.slack.script(Cut())
        backup(daemon)
        site.slack.wait_for(1)
        site.break_source()
        backup(daemon, outcome="failed")
        site.wait_until_told()
        daemon.stop()
    first, second = site.posted()
    assert site.place.listed()[0]["name"] in first
    assert "scpln.db" in second


def test_a_failure_is_told_although_the_catalog_cannot_be_written(site, tmp_path):
    """The disk of the state is full: just then somebody has to hear of it."""
    site.place.state.mkdir()
    size = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", site.place.state]
    if subprocess.run(size, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        with DaemonProcess(site.place) as daemon:
            backup(daemon)
            site.wait_until_told()
            filler = site.place.state / "filler"
            with filler.open("wb") as file:
                file.write(bytes(os.statvfs(site.place.state).f_bavail * os.statvfs(site.place.state).f_frsize))
            site.break_source()
            backup(daemon, outcome="failed")
            site.pagerduty.wait_for(1)
            site.slack.wait_for(2)
            assert len(site.pagerduty.alerts.open) == 1
            # When there is room again it is kept, and not told a second time.
            filler.unlink()
            site.mend_source()
            backup(daemon, 2)
            site.wait_until_told()
            daemon.stop()
        assert len(site.posted()) == 3
        assert "run_finished" in (tmp_path / "backup.log").read_text().splitlines()[-2]
    finally:
        subprocess.run(["umount", "-l", site.place.state], check=True)


def test_a_backup_from_the_command_line_without_a_daemon_is_told_of_too(site):
    site.place.backup()
    site.break_source()
    site.place.json("backup", code=1)
    assert len(site.posted()) == 2
    assert len(site.pagerduty.alerts.open) == len(site.jira.tickets) == 1
    assert [state["waiting"] for state in site.place.json("notify")] == [0, 0, 0, 0]


def test_a_killed_run_is_told_of_by_the_next_daemon(site):
    site.place.backup()
    site.catalog.begin_run(Trigger.SCHEDULE, clock.now(UTC))
    with DaemonProcess(site.place) as daemon:
        site.wait_until_told()
        daemon.stop()
    assert len(site.posted()) == 2
    assert site.pagerduty.alerts.effects == []  # a warning: it is taken again


def test_the_metrics_tell_of_a_channel_that_is_down(site):
    site.slack.refuses = "channel_not_found"
    with DaemonProcess(site.place) as daemon:
        backup(daemon)
        # It goes through Slack's own process, which tells nobody; the metrics are what people look at.
        deadline = time.monotonic() + WAIT
        while "backup_notification_failures_total" not in (text := metrics(daemon)) or (
            sample(text, "backup_notification_failures_total", "slack") == 0
        ):
            assert time.monotonic() < deadline, text
            time.sleep(0.02)
        assert sample(text, "backup_notification_queue_length", "slack") >= 1
        assert time.time() - sample(text, "backup_notification_oldest_timestamp_seconds", "slack") < WAIT
        assert sample(text, "backup_notification_sent_total", "audit") >= 1
        assert sample(text, "backup_notification_queue_length", "audit") == 0
        daemon.stop()
    (slack,) = [state for state in site.place.json("status", code=1)["notifications"] if state["name"] == "slack"]
    assert "channel_not_found" in slack["error"]


def metrics(daemon):
    with urllib.request.urlopen(f"{daemon.url}metrics", timeout=5) as answer:
        return answer.read().decode()


def sample(text, name, channel):
    (found,) = [
        each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
        if each.name == name and each.labels["channel"] == channel
    ]
    return found


def test_a_full_disk_and_a_service_that_wants_to_be_left_alone(site):
    """Nothing can be noted, so what is to be heeded is kept in mind: no flood, and nothing twice."""
    site.place.state.mkdir()
    size = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", site.place.state]
    if subprocess.run(size, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        with DaemonProcess(site.place) as daemon:
            backup(daemon)
            site.wait_until_told()
            filler = site.place.state / "filler"
            with filler.open("wb") as file:
                file.write(bytes(os.statvfs(site.place.state).f_bavail * os.statvfs(site.place.state).f_frsize))
            site.slack.script(Answer(429, b"", {"Retry-After": "3600"}))
            site.break_source()
            backup(daemon, outcome="failed")
            site.slack.wait_for(2)
            backup(daemon, 2, "failed")
            site.pagerduty.wait_for(2)
            site.mend_source()
            backup(daemon, outcome="degraded")  # a good artifact, of which the catalog cannot hear
            site.pagerduty.wait_for(3)
            assert len(site.slack.requests) == 2
            assert [effect.what for effect in site.pagerduty.alerts.effects] == ["opened", "added", "resolved"]
            daemon.stop()
    finally:
        subprocess.run(["umount", "-l", site.place.state], check=True)


def test_the_command_line_takes_no_channel_from_the_daemon(site):
    """Of which the configuration on disk, not yet in force, knows nothing any more."""
    with DaemonProcess(site.place) as daemon:
        site.break_source()
        backup(daemon, outcome="failed")
        site.wait_until_told()
        text = site.place.config.read_text()
        site.place.config.write_text(text.replace("routing_key_file", "#routing_key_file"))
        site.place.json("overdue")
        site.mend_source()
        backup(daemon)
        site.wait_until_told()
        daemon.stop()
    assert site.pagerduty.alerts.open == {}


# The alarm of the timer


def age_catalog(site):
    """As if all that is recorded had happened 30 hours earlier."""
    for table, column in (("runs", "started_at"), ("runs", "finished_at")):
        statement = f"UPDATE {table} SET {column} = {column} - {int(PAST.total_seconds() * 1e6)}"
        subprocess.run(["sqlite3", site.place.state / "catalog.db", statement], check=True)


def test_the_alarm_sounds_without_a_daemon_once_and_ends_with_the_next_good_backup(site):
    site.place.backup()
    age_catalog(site)
    (told,) = site.place.json("overdue")
    assert told["event"] == "BackupOverdue"
    (key,) = site.pagerduty.alerts.open
    assert key.endswith("overdue")
    assert len(site.jira.tickets) == 1
    assert site.place.json("overdue") == []
    assert [effect.what for effect in site.pagerduty.alerts.effects] == ["opened"]
    site.place.backup()
    assert site.pagerduty.alerts.open == {}
    assert len(site.posted()) == 3


def test_nothing_is_overdue_within_the_day(site):
    site.place.backup()
    assert site.place.json("overdue") == []
    assert site.pagerduty.requests == []


def test_the_alarm_delivers_what_a_dead_daemon_has_left(site):
    site.pagerduty.script(Hang())
    with DaemonProcess(site.place) as daemon:
        site.break_source()
        backup(daemon, outcome="failed")
        site.pagerduty.wait_for(1)
    assert site.pagerduty.alerts.open == {}
    site.place.json("overdue")
    assert len(site.pagerduty.alerts.open) == 1


def test_the_alarm_sounds_with_a_broken_configuration(site):
    """The last good configuration is in the state folder, and systemd says where that is."""
    with DaemonProcess(site.place) as daemon:
        backup(daemon)
        site.wait_until_told()
        daemon.stop()
    age_catalog(site)
    site.place.config.write_text(site.place.config.read_text().replace("[backup]", "[bakcup]"))
    done = site.place.run("overdue", env={"STATE_DIRECTORY": str(site.place.state)})
    assert done.returncode == 2
    assert "did you mean [backup]" in done.stderr
    assert len(site.pagerduty.alerts.open) == 1
    assert site.place.run("overdue").returncode == 2  # without systemd there is nothing to go by


def test_the_alarm_sounds_on_a_disk_that_has_become_read_only(site):
    site.place.backup()
    age_catalog(site)
    subprocess.run(["mount", "--bind", site.place.state, site.place.state], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", site.place.state], check=True)
        runtime = site.place.folder / "runtime"
        runtime.mkdir()
        for _ in range(2):  # within a day it is told once
            site.place.run("overdue", env={"RUNTIME_DIRECTORY": str(runtime)})
        assert [effect.what for effect in site.pagerduty.alerts.effects] == ["opened"]
        assert len(site.posted()) == 2
    finally:
        subprocess.run(["umount", site.place.state], check=True)


def test_a_backup_from_a_clock_that_was_ahead_does_not_keep_the_alarm_quiet(site):
    site.place.backup()
    age_catalog(site)
    site.place.backup()
    statement = "UPDATE runs SET finished_at = finished_at + 31536000000000 WHERE id = 2"
    subprocess.run(["sqlite3", site.place.state / "catalog.db", statement], check=True)
    (told,) = site.place.json("overdue")
    assert told["event"] == "BackupOverdue"
    assert site.place.json("status", code=2)["overdue"]


def test_the_alarm_sounds_with_a_catalog_that_cannot_be_read(site):
    site.place.backup()
    (artifact,) = site.place.root.rglob("*.db.gz.json")
    manifest = json.loads(artifact.read_text())
    manifest["taken_at"] = (clock.now(UTC) - PAST).isoformat()
    artifact.write_text(json.dumps(manifest))
    (site.place.state / "catalog.db").unlink()
    (site.place.state / "catalog.db").mkdir()
    done = site.place.run("overdue")
    assert done.returncode == 1
    assert "catalog.db" in done.stderr
    assert len(site.pagerduty.alerts.open) == 1


def test_a_service_that_systemd_gave_up_is_told_of(site):
    site.place.backup()
    failed = {
        "MONITOR_UNIT": "scpln-backup.service",
        "MONITOR_SERVICE_RESULT": "exit-code",
        "MONITOR_EXIT_CODE": "exited",
        "MONITOR_EXIT_STATUS": "2",
        "MONITOR_INVOCATION_ID": "0123",
    }
    for _ in range(2):
        assert site.place.run("overdue", "--service-failed", env=failed).returncode == 0
    assert [effect.what for effect in site.pagerduty.alerts.effects] == ["opened"]
    assert "scpln-backup.service" in site.posted()[1]
    with DaemonProcess(site.place) as daemon:
        site.wait_until_told()
        daemon.stop()
    assert site.pagerduty.alerts.open == {}


# Test messages, and what must never be seen


def test_a_test_message_gets_through_to_each_and_leaves_nothing_open(site):
    assert site.place.run("notify", "test").returncode == 0
    assert len(site.posted()) >= 1
    assert site.pagerduty.alerts.open == {}
    assert [effect.what for effect in site.pagerduty.alerts.effects] == ["opened", "resolved"]
    (ticket,) = site.jira.tickets.values()
    assert ticket.done
    (result,) = site.place.json("notify", "test", "slack")
    assert result["ok"]
    # Nothing of it is a fact.
    assert not (site.place.state / "catalog.db").exists()


def test_a_test_message_that_does_not_get_through_says_why(site):
    site.slack.refuses = "invalid_auth"
    done = site.place.run("notify", "test", "slack")
    assert done.returncode == 1
    assert "token_file" in done.stdout
    wrong = site.place.run("notify", "test", "slak")
    assert wrong.returncode == 2
    assert "configured: slack, pagerduty, jira" in wrong.stderr


def test_no_secret_is_ever_written_down(site):
    site.slack.refuses = "token_revoked"
    site.jira.expired = True
    with DaemonProcess(site.place) as daemon:
        site.break_source()
        backup(daemon, outcome="failed")
        deadline = time.monotonic() + WAIT
        while sum(state.failing_since is not None for state in site.catalog.channels()) < 2:
            assert time.monotonic() < deadline, site.catalog.channels()
            time.sleep(0.02)
        daemon.stop()
        seen = "\n".join(daemon.lines(""))
    for verb in (["notify"], ["status", "--json"], ["config", "show"], ["notify", "test"]):
        done = site.place.run("--debug", *verb)
        seen += done.stdout + done.stderr
    for file in (*site.place.state.rglob("*"), site.place.folder / "backup.log"):
        if file.is_file():
            seen += file.read_bytes().decode(errors="replace")
    assert [secret for secret in site.secrets if secret in seen] == []
    outcomes = [run.outcome for run in site.catalog.runs()]
    assert outcomes == [Outcome.FAILED]
