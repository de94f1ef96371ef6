"""Under a real systemd: the alarms that need no daemon, with credentials, and what happens when systemd gives it up."""

from __future__ import annotations

import json
import time

import pytest

from support.host import CONFIG, STATE, UNIT, Host, configuration

pytestmark = pytest.mark.systemd

KEY = "0123456789abcdefABCDEF0123456789"
OVERDUE = "scpln-backup-overdue.service"
FAILED = "scpln-backup-failed.service"
RECORDER = "app.service"
POSTS = "/run/recorder/posts"
DAY = 86_400

# PagerDuty as far as it matters here: the strict one is used where the program runs without a systemd.
SERVER = f"""
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open("{POSTS}", "ab") as file:
            file.write(body + b"\\n")
        answer = json.dumps({{"status": "success", "message": "Event processed", "dedup_key": json.loads(body)["dedup_key"]}}).encode()
        self.send_response(202)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
http.server.HTTPServer(("127.0.0.1", 8099), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def booted(module_box):
    host = Host(module_box)
    module_box.write("/opt/recorder.py", SERVER)
    unit = "[Service]\nRuntimeDirectory=recorder\nExecStart=/usr/bin/python3 /opt/recorder.py\n"
    module_box.install_unit(RECORDER, unit)
    return host


@pytest.fixture
def host(booted):
    """With PagerDuty configured, its key a credential of all three units."""
    booted.reset()
    booted.box.write("/etc/scpln-backup/pagerduty-key", KEY, mode=0o600)
    settings = 'routing_key_file = "credential:pagerduty-key"\nurl = "http://127.0.0.1:8099"\n'
    booted.box.write(CONFIG, f"{configuration()}[pagerduty]\n{settings}")
    for unit in (UNIT, OVERDUE, FAILED):
        credential = "[Service]\nLoadCredential=pagerduty-key:/etc/scpln-backup/pagerduty-key\n"
        booted.box.add_drop_in(unit, credential)
    booted.box.systemctl("start", RECORDER)
    return booted


def posts(host, count=0):
    """What PagerDuty was told, once it is as many as that: action and cause."""
    deadline = time.monotonic() + 20
    while True:
        found = [json.loads(line) for line in host.box.run("sh", "-c", f"cat {POSTS} || :").stdout.splitlines()]
        if len(found) >= count:
            return [(post["event_action"], post["dedup_key"].rpartition("/")[2]) for post in found]
        assert time.monotonic() < deadline, (found, host.log(), host.log(unit=OVERDUE), host.log(unit=FAILED))
        time.sleep(0.05)


def age_runs(host, seconds):
    micros = seconds * 1_000_000
    statement = f"UPDATE runs SET started_at = started_at - {micros}, finished_at = finished_at - {micros}"
    host.as_scpln("sqlite3", f"{STATE}/catalog.db", statement).check_returncode()


def test_the_alarm_sounds_when_the_daemon_is_dead_and_ends_when_it_is_back(host):
    host.start()
    assert host.box.show("scpln-backup-overdue.timer", "ActiveState")["ActiveState"] == "active"
    host.signal("USR1")
    host.wait_for_log("backup success")
    host.box.systemctl("kill", "--signal=KILL", "--kill-who=all", UNIT)
    host.box.systemctl("stop", UNIT)
    host.box.systemctl("start", OVERDUE)
    assert posts(host) == []

    age_runs(host, 30 * 3600)
    for _ in range(2):
        host.box.systemctl("start", OVERDUE)
    assert posts(host) == [("trigger", "overdue")]

    host.start()
    host.signal("USR1")
    assert posts(host, 2) == [("trigger", "overdue"), ("resolve", "overdue")]


def test_a_daemon_that_systemd_gives_up_is_told_of(host):
    host.start()
    text = host.box.path(CONFIG).read_text()
    host.box.write(CONFIG, text.replace("[schedule]", "[schedlue]"))
    host.box.systemctl("restart", UNIT, check=False)
    assert posts(host, 1) == [("trigger", "service")]
    assert host.box.show(UNIT, "ActiveState")["ActiveState"] == "failed"
    host.wait_for_log("the last good one is used", unit=FAILED)

    host.box.write(CONFIG, text)
    host.start()
    assert posts(host, 2) == [("trigger", "service"), ("resolve", "service")]
    host.box.systemctl("stop", UNIT)
    assert posts(host) == [("trigger", "service"), ("resolve", "service")]  # a stop is no failure


def test_a_failed_run_is_told_by_the_daemon_with_its_credential(host):
    host.box.run("mv", "/opt/scpln/data/scpln.db", "/opt/scpln/data/moved.db")
    host.start()
    host.signal("USR1")
    assert posts(host, 1) == [("trigger", "run")]
    assert KEY not in "\n".join(host.log())
    # The command line has no credentials: it says so, and leaves it to the daemon.
    done = host.as_scpln("scpln-backup", "notify", "test", "pagerduty")
    assert done.returncode == 1
    assert "credential:pagerduty-key" in done.stdout
    assert "only the service has its credentials" in done.stdout
