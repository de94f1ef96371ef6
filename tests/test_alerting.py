"""From the daemon to whoever is called: the shipped rules in a real Prometheus, the example in a real Alertmanager.

Of both only durations, addresses and file names are replaced; promtool proves the real 24 hours (test_prometheus_rules).
"""

from __future__ import annotations

import json
import re
import signal
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import pytest

from support.daemon_process import DaemonProcess
from support.fake_pagerduty import ROUTING_KEY, FakePagerDuty
from support.fakes import Answer, FakeServer
from support.place import Place
from support.prometheus import alertmanager, free_address, missing, prometheus, pushgateway, wait_until

SHIPPED = Path(__file__).parents[1] / "packaging" / "prometheus"
DAY = 6
NEVER = {"ScplnBackupNeverStarted/ticket", "ScplnBackupNeverStarted/page"}

REASON = missing("prometheus", "prometheus-alertmanager", "prometheus-pushgateway")
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


class FakeWebhook(FakeServer):
    """Slack's incoming webhook. `said`: the title and text of each message."""

    def __init__(self):
        super().__init__()
        self.said = []

    def answer(self, request):
        assert (request.method, request.path) == ("POST", "/services/T0/B0/X"), request
        document = request.json()
        assert document["channel"] == "#scpln-ops"
        (attachment,) = document["attachments"]
        self.said.append(f"{attachment['title']}\n{attachment['text']}")
        return Answer(200, b"ok")


class Environment:
    """A host with a database: where its daemon is or will be, and what its site says of it."""

    def __init__(self, folder, name):
        folder.mkdir()
        self.name = name
        self.place = Place(folder)
        self.target = free_address()
        config = self.place.config.read_text().replace("127.0.0.1:0", self.target)
        self.place.config.write_text(config.replace('environment = "test"', f'environment = "{name}"'))
        self.sound = self.place.source.read_bytes()
        self.site = None
        self._settled = 0

    def wait_known(self):
        """Until its Prometheus knows of a good backup."""
        expression = f'backup_success{{environment="{self.name}"}} == 1'
        wait_until(lambda: self.site.prometheus.query(expression), self.site.prometheus.firing)

    def settle(self):
        """Until all is well; what PagerDuty was told before is not looked at any more."""

        def well():
            mine = [alert for alert in self.site.pagerduty.alerts.open.values() if alert.group == self.name]
            return not mine and not self._alerts("ALERTS{%s}")

        wait_until(well, self.site.prometheus.firing)
        self._settled = len(self.site.pagerduty.requests)

    def damage(self):
        self.place.source.write_bytes(b"no database")

    def mend(self):
        self.place.source.write_bytes(self.sound)

    def wait_firing(self, *alerts):
        """Until these fire, whatever else does."""
        wait_until(lambda: set(alerts) <= self._alerts("ALERTS{%s}"), lambda: (alerts, self.site.prometheus.firing()))

    def ever_fired(self):
        return self._alerts("max_over_time(ALERTS{%s}[1h])")

    def muted(self):
        return {labels["alertname"] for labels in self.site.alertmanager.muted() if self._is_mine(labels)}

    def _alerts(self, expression):
        matchers = f'alertstate="firing",environment="{self.name}"'
        found = self.site.prometheus.query(expression % matchers)
        return {f"{labels['alertname']}/{labels['severity']}" for labels, _ in found}

    def _is_mine(self, labels):
        return labels.get("environment") == self.name

    def events(self):
        """What Alertmanager has sent to PagerDuty about it."""
        return [
            event for event in self._sent() if event.get("payload", {}).get("group") == self.name and not own(event)
        ]

    def own_events(self):
        """What its daemon has sent to PagerDuty."""
        return [event for event in self._sent() if own(event) and f"/{self.name}/" in event["dedup_key"]]

    def _sent(self):
        return [request.json() for request in self.site.pagerduty.requests[self._settled :]]

    def wait_told(self, *actions, by=None):
        """Until PagerDuty was told to trigger and to resolve an incident in this order; what repeats itself is left out."""

        def told():
            return tuple(action for action, _ in groupby(event["event_action"] for event in (by or self.events)()))

        wait_until(lambda: told()[: len(actions)] == actions, told)

    def wait_slack(self, text):
        """Until Slack was told this about it."""
        heading = f" {self.name}/scpln backup\n"
        wait_until(
            lambda: any(heading in said and text in said for said in self.site.slack.said), lambda: self.site.slack.said
        )


class Site:
    """Prometheus with some of the shipped rules, Alertmanager, and those whom it tells."""

    def __init__(self, folder, stack, environments, *, rules, scrape):
        self.pagerduty = stack.enter_context(FakePagerDuty())
        self.slack = stack.enter_context(FakeWebhook())
        self.alertmanager = stack.enter_context(alertmanager(folder, self._alertmanager_config(folder)))
        for name in rules:
            (folder / name).write_text(shortened((SHIPPED / "rules" / name).read_text()))
        alerting = {"alertmanagers": [{"static_configs": [{"targets": [self.alertmanager.address]}]}]}
        config = {
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"},
            "rule_files": [str(folder / name) for name in rules],
            "scrape_configs": scrape,
            "alerting": alerting,
        }
        # JSON is YAML.
        self.prometheus = stack.enter_context(prometheus(folder, json.dumps(config)))
        for environment in environments:
            environment.site = self

    def _alertmanager_config(self, folder):
        (folder / "pagerduty").write_text(f"{ROUTING_KEY}\n")
        (folder / "slack").write_text(f"{self.slack.url}/services/T0/B0/X\n")
        config = (SHIPPED / "alertmanager.example.yml").read_text()
        for old, new in {
            "/etc/prometheus/pagerduty-routing-key": f"{folder}/pagerduty",
            "/etc/prometheus/slack-webhook-url": f"{folder}/slack",
            "group_wait: 30s": "group_wait: 200ms",
            "group_interval: 5m": "group_interval: 300ms",
        }.items():
            assert old in config, old
            config = config.replace(old, new)
        return f"global: {{pagerduty_url: '{self.pagerduty.url}/v2/enqueue'}}\n{config}"


def own(event):
    return event["dedup_key"].startswith("scpln-backup/")


def shortened(rules):
    """The same rules with shorter durations: 24 hours are DAY seconds, 26 two more, and shorter waits one."""
    rules = re.sub(r"for: (?!8d)(\w+)", lambda found: f"for: {DAY + 2 if found[1] == '26h' else 1}s", rules)
    return re.sub(r"(?<!\* )\b24 \* 3600", str(DAY), rules)


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """The environments by name. Both sites are started at once: a Prometheus takes five seconds to its first scrape."""
    folder = tmp_path_factory.mktemp("sites")
    with ExitStack() as stack:
        scraped = [Environment(folder / name, name) for name in ("never", "failing", "stopping")]
        pushing = Environment(folder / "pushing", "pushing")
        (folder / "scrape").mkdir()
        targets = [
            {"targets": [each.target], "labels": {"environment": each.name, "database": "scpln"}} for each in scraped
        ]
        Site(
            folder / "scrape",
            stack,
            scraped,
            rules=("scpln-backup.rules.yml", "scpln-backup-scrape.rules.yml"),
            scrape=[{"job_name": "scpln-backup", "honor_labels": True, "static_configs": targets}],
        )
        (folder / "push").mkdir()
        gateway = stack.enter_context(pushgateway(folder / "push")).address
        pushing.place.configure("pushgateway", url=f"http://{gateway}")
        Site(
            folder / "push",
            stack,
            [pushing],
            rules=("scpln-backup.rules.yml", "scpln-backup-push.rules.yml"),
            scrape=[{"job_name": "pushgateway", "honor_labels": True, "static_configs": [{"targets": [gateway]}]}],
        )
        yield {each.name: each for each in (*scraped, pushing)}


def test_backups_that_stop_happening_and_a_daemon_that_is_killed(sites):
    host = sites["stopping"]
    with DaemonProcess(host.place) as daemon:
        daemon.send(signal.SIGUSR1)
        host.wait_known()
        host.settle()
        host.wait_firing("ScplnBackupOverdue/page")
        host.wait_told("trigger")
        daemon.send(signal.SIGUSR1)
        host.wait_told("trigger", "resolve")
    # Killed by the end of the block.
    host.wait_slack("the backup daemon at")
    host.wait_slack("バックアップデーモン")
    host.wait_firing("ScplnBackupDown/ticket", "ScplnBackupOverdue/page")
    host.wait_told("trigger", "resolve", "trigger")
    assert host.site.prometheus.query('backup_last_success_timestamp_seconds{environment="stopping"}') == []
    assert host.muted() == {"ScplnBackupDown"}

    with DaemonProcess(host.place) as daemon:
        daemon.send(signal.SIGUSR1)
        host.wait_told("trigger", "resolve", "trigger", "resolve")
        host.wait_slack("over: ")
        daemon.stop()
    assert len({event["dedup_key"] for event in host.events()}) == 1
    assert host.ever_fired() - NEVER == {"ScplnBackupDown/ticket", "ScplnBackupOverdue/page"}


def test_a_run_that_fails_and_one_that_makes_up_for_it(sites):
    """With the daemon's own PagerDuty channel configured too: both send events of one form, and so call twice."""
    host = sites["failing"]
    key = host.place.folder / "routing-key"
    key.write_text(ROUTING_KEY)
    key.chmod(0o600)
    host.place.configure("pagerduty", routing_key_file=str(key), url=host.site.pagerduty.url)
    with DaemonProcess(host.place) as daemon:
        daemon.send(signal.SIGUSR1)
        host.wait_known()
        host.settle()
        host.damage()
        daemon.send(signal.SIGUSR1)
        host.wait_firing("ScplnBackupFailed/page")
        host.wait_told("trigger")
        host.wait_told("trigger", by=host.own_events)
        host.mend()
        daemon.send(signal.SIGUSR1)
        host.wait_told("trigger", "resolve")
        host.wait_told("trigger", "resolve", by=host.own_events)
        daemon.stop()

    theirs, ours = host.events()[0], host.own_events()[0]
    assert theirs["dedup_key"] != ours["dedup_key"]
    assert theirs.keys() - {"client_url", "links"} == ours.keys() - {"client_url", "links"}
    assert theirs["payload"].keys() <= ours["payload"].keys()
    for field in ("severity", "component", "group"):
        assert theirs["payload"][field] == ours["payload"][field]
    assert theirs["payload"]["summary"] == "failing/scpln: the last backup run failed or is suspect"
    assert "scpln-backup backup --wait" in theirs["payload"]["custom_details"]["what_to_do"]
    assert theirs["links"][0]["href"].endswith("/runbook.md#what-an-outcome-means")
    assert "ScplnBackupFailed/page" in host.ever_fired()


def test_a_daemon_that_never_starts(sites):
    host = sites["never"]
    host.wait_slack("no backup daemon was ever seen")
    host.wait_firing("ScplnBackupNeverStarted/ticket", "ScplnBackupNeverStarted/page")
    host.wait_told("trigger")
    assert host.muted() == {"ScplnBackupNeverStarted"}
    with DaemonProcess(host.place) as daemon:
        daemon.send(signal.SIGUSR1)
        host.wait_told("trigger", "resolve")
        daemon.stop()
    assert host.ever_fired() >= NEVER


def test_a_site_that_only_hears_of_pushes(sites):
    host = sites["pushing"]
    wait_until(lambda: "ScplnBackupNeverPushed" in _names(host.site), host.site.prometheus.firing)
    wait_until(lambda: host.site.pagerduty.alerts.open, lambda: host.site.pagerduty.requests)

    with DaemonProcess(host.place) as daemon:
        daemon.send(signal.SIGUSR1)
        wait_until(lambda: not host.site.pagerduty.alerts.open, host.site.prometheus.firing)
        host.wait_known()
        host.settle()
        pushed = host.site.prometheus.query('backup_success{job="scpln-backup",instance=""}')
        assert pushed == [({"database": "scpln", "environment": "pushing"}, 1.0)]

        host.damage()
        daemon.send(signal.SIGUSR1)
        host.wait_firing("ScplnBackupFailed/page")
        host.wait_told("trigger")
        host.mend()
        daemon.send(signal.SIGUSR1)
        host.wait_told("trigger", "resolve")
    # Killed by the end of the block: what it pushed last stays there, and grows old.
    host.wait_firing("ScplnBackupNoPush/page", "ScplnBackupOverdue/page")
    host.wait_told("trigger", "resolve", "trigger")
    assert len({event["dedup_key"] for event in host.events()}) == 1
    assert host.ever_fired() == {"ScplnBackupFailed/page", "ScplnBackupNoPush/page", "ScplnBackupOverdue/page"}
    assert _names(host.site) == {"ScplnBackupNoPush", "ScplnBackupOverdue"}


def _names(site):
    """Of the alerts that fire now, in whatever environment or none."""
    return {labels["alertname"] for labels in site.prometheus.firing()}
