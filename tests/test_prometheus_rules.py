"""The rules, the examples and the dashboard for a site's Prometheus."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scpln_backup.rules.health import overdue_at
from support.daemon_process import DaemonProcess
from support.place import Place
from support.prometheus import free_address, missing, prometheus, wait_until

CHECKOUT = Path(__file__).parents[1]
SHIPPED = CHECKOUT / "packaging" / "prometheus"
RULES = sorted((SHIPPED / "rules").glob("*.yml"))
TESTS = sorted((SHIPPED / "tests").glob("*.test.yml"))

# Series that are not the daemon's own.
OTHERS = {"push_time_seconds", "push_failure_time_seconds", "node_filesystem_avail_bytes", "up"}
# With the clocks of these the longest day has 25 hours.
ZONES = ("Asia/Tokyo", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Nuuk", "Africa/Casablanca")
START = datetime(2024, 1, 1, tzinfo=UTC)
# A daemon of one run and one drill has nothing to say here.
NO_INCIDENT, NOTHING_WAITS, NO_ALERT = "backup_incident_deadline", "backup_notification_oldest", "ALERTS{"

REASON = missing("prometheus", "promtool", "amtool", "prometheus-alertmanager")
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SHIPPED / "tests")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Prometheus with all shipped rules, which scrapes a daemon that has made a backup and a drill."""
    folder = tmp_path_factory.mktemp("site")
    place = Place(folder)
    place.configure("drill", command=[])
    target = free_address()
    place.config.write_text(place.config.read_text().replace("127.0.0.1:0", target))
    config = {
        "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"},
        "rule_files": [str(path) for path in RULES],
        "scrape_configs": [
            {
                "job_name": "scpln-backup",
                "honor_labels": True,
                "static_configs": [{"targets": [target], "labels": {"environment": "test", "database": "scpln"}}],
            }
        ],
    }
    place.backup()
    place.json("drill")
    with DaemonProcess(place) as daemon, prometheus(folder, json.dumps(config)) as server:
        daemon.send(signal.SIGUSR1)
        server.wait_for('backup_runs_total{trigger="signal"} == 1')
        server.wait_for("count_over_time(backup_artifacts[10m]) >= 5")
        yield server


@pytest.fixture(scope="module")
def alerts(server):
    """The alerting rules as Prometheus has understood them."""
    groups = server.ask("/api/v1/rules", type="alert")["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def documented():
    """The metrics of docs/metrics.md."""
    return set(re.findall(r"^\| `(\w+)", (CHECKOUT / "docs/metrics.md").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_promtool_finds_no_fault_with_the_rules(path):
    assert "SUCCESS" in run("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(path))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_at_the_right_minute_and_not_in_a_normal_week(path):
    assert "SUCCESS" in run("promtool", "test", "rules", path.name)


def test_each_alert_has_a_test_of_its_own(alerts):
    tested = set(re.findall('alertname="(Scpln[A-Za-z]+)"', "".join(path.read_text() for path in TESTS)))
    assert {rule["name"] for rule in alerts} == tested


def test_each_alert_says_what_it_is_in_both_languages_and_where_to_read_on(alerts):
    anchors = {
        slug(heading) for heading in re.findall("^#+ (.+)$", (CHECKOUT / "docs/runbook.md").read_text(), re.MULTILINE)
    }
    for rule in alerts:
        assert rule["labels"].keys() == {"severity"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        notes = rule["annotations"]
        assert notes.keys() == {"summary", "summary_ja", "description", "runbook_url"}
        assert re.search("[ぁ-んァ-ヶ一-龠]", notes["summary_ja"])
        place, anchor = notes["runbook_url"].split("#")
        assert place == "https://runbooks.example/scpln-backup/runbook.md"
        assert anchor in anchors, rule["name"]


def test_each_alert_is_in_the_documentation_with_its_severity(alerts):
    text = (CHECKOUT / "docs/metrics.md").read_text()
    rows = dict(re.findall(r"^\| `(Scpln\w+)` \| ([a-z, ]+) \|", text, re.MULTILINE))
    severities = {}
    for rule in alerts:
        severities.setdefault(rule["name"], set()).add(rule["labels"]["severity"])
    assert {name: set(found.split(", ")) for name, found in rows.items()} == severities


def test_the_rules_name_metrics_that_exist(server, documented):
    recorded, named = set(), set()
    for group in server.ask("/api/v1/rules")["groups"]:
        for rule in group["rules"]:
            named |= metrics(rule["query"])
            if rule["type"] == "recording":
                recorded.add(rule["name"])
    assert named - recorded - OTHERS <= documented


def test_all_rules_are_evaluated_without_error_on_what_a_real_daemon_says(server):
    def unhealthy():
        groups = server.ask("/api/v1/rules")["groups"]
        return [
            (rule["name"], rule.get("lastError")) for each in groups for rule in each["rules"] if rule["health"] != "ok"
        ]

    wait_until(lambda: not unhealthy(), unhealthy)
    quiet = {
        "ScplnBackupNeverPushed",
        "ScplnPushgatewayDown",
    }  # the pushing half of these rules, which has nothing here
    assert {labels["alertname"] for labels, _ in server.query("ALERTS")} <= {*quiet, "ScplnBackupNotScraped"}


@given(
    at=st.integers(min_value=0, max_value=8 * 366 * 1440).map(lambda minutes: START + timedelta(minutes=minutes)),
    zone=st.sampled_from(ZONES),
)
def test_the_overdue_alert_waits_for_the_longest_day_and_the_run_in_it(at, zone):
    """It must not page before the daemon's own rule says overdue, which also waits an hour for a run under way."""
    rules = (SHIPPED / "rules" / "scpln-backup.rules.yml").read_text()
    found = re.search(r"ScplnBackupOverdue\n +expr: .+ > (\d+) \* 3600\n +for: (\d+)h\n", rules)
    pages = at + timedelta(hours=int(found[1]) + int(found[2]))
    assert overdue_at(at, 24, ZoneInfo(zone)) + timedelta(hours=1) <= pages


def test_the_alertmanager_example_is_sound_and_sends_pages_and_tickets_where_they_belong():
    config = str(SHIPPED / "alertmanager.example.yml")
    assert "SUCCESS" in run("amtool", "check-config", config)

    def receiver(*labels):
        return run("amtool", "config", "routes", "test", f"--config.file={config}", *labels).strip()

    assert receiver("alertname=ScplnBackupOverdue", "severity=page") == "scpln-backup-pagerduty"
    assert receiver("alertname=ScplnBackupDown", "severity=ticket") == "scpln-backup-slack"
    assert receiver("alertname=SomebodyElses", "severity=page") == "scpln-backup-slack"


def test_the_scrape_example_is_sound_with_all_rules(tmp_path):
    text = (SHIPPED / "scrape.example.yml").read_text()
    lines = re.sub(r"^  # - /etc", "  - /etc", text, flags=re.MULTILINE)
    config = tmp_path / "prometheus.yml"
    config.write_text(lines.replace("/etc/prometheus/rules", str(SHIPPED / "rules")))
    assert f"{len(RULES)} rule files found" in run("promtool", "check", "config", str(config))


def dashboard():
    return json.loads((SHIPPED / "grafana-dashboard.json").read_text())


def panels():
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions():
    """Every query of the dashboard with its variables set, as Grafana sets them for `All` of one environment."""
    variables = {"$environment": "test", "$database": "scpln"}
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in variables.items():
                expression = expression.replace(name, value)
            assert "$" not in expression
            yield expression


def test_each_panel_shows_something_after_a_run_and_a_drill(server, documented):
    silent = []
    for expression in expressions():
        assert metrics(expression) - OTHERS <= documented, expression
        if not server.query(expression):
            silent.append(expression)
    assert all(any(reason in each for reason in (NO_INCIDENT, NOTHING_WAITS, NO_ALERT)) for each in silent), silent


def test_the_dashboards_variables_find_the_environment(server):
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            selector = found[1].replace("$environment", "test")
            assert server.ask(f"/api/v1/label/{found[2]}/values", **{"match[]": selector}) in (["test"], ["scpln"])


def test_the_dashboard_is_one_that_grafana_9_to_11_can_load():
    """There is no Grafana among the packages that tests can have; so what its loader insists on is looked at."""
    found = dashboard()
    assert 36 <= found["schemaVersion"] <= 39  # those of Grafana 9.0 to 11
    assert found["id"] is None  # else an import would overwrite somebody's
    assert [each["name"] for each in found["templating"]["list"]] == ["datasource", "environment", "database"]
    ids = [panel["id"] for panel in found["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels():
        assert panel["type"] in ("stat", "timeseries", "state-timeline", "table")
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs))
        for each in (panel, *panel["targets"]):
            assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_no_panels_of_the_dashboard_overlap():
    taken = set()
    for panel in dashboard()["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def metrics(expression):
    """The names of series in a query, recorded ones too."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\b(?:backup_|push_|node_|environment:|instance:)[\w:]+|\bup\b", bare))


def slug(heading):
    """The anchor that Markdown viewers make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
