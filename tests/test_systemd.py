"""The shipped units under a real systemd: well-formed, tight, and what an operator does to them ends well."""

from __future__ import annotations

import json
import os
import re
import time

import pytest

from scpln_backup.model import Outcome, Trigger
from support.host import ADDRESS, CONFIG, ROOT, SOURCE, STATE, UNIT, UNITS, WAIT, Host, configuration

pytestmark = pytest.mark.systemd

QUICK_RESTART = "RestartSec=100ms"

BURST = """
import os, sys, time
pid = int(sys.argv[1])
for _ in range(9_999):
    os.kill(pid, 10)
print(time.time())
os.kill(pid, 10)
"""

# Signals the daemon in its first milliseconds, which systemctl is too slow for: as soon as its command line is seen.
AMBUSH = """
import os, sys, time
before = set(os.listdir("/proc"))
print("waiting", flush=True)
deadline = time.monotonic() + 20
while time.monotonic() < deadline:
    for pid in set(os.listdir("/proc")) - before:
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                words = file.read().split("\\0")
        except OSError:
            continue
        if words[-2:] == ["serve", ""] and "python" in words[0]:
            os.kill(int(pid), 10)
            os.kill(int(pid), 1)
            sys.exit()
"""

# The application: one connection stays open, and a row is committed every few milliseconds.
APPLICATION = f"""
import pathlib, sqlite3, time
connection = sqlite3.connect("{SOURCE}", isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("CREATE TABLE written (at REAL)")
while True:
    connection.execute("INSERT INTO written VALUES (?)", (time.time(),))
    pathlib.Path("/opt/scpln/data/alive").touch()
    time.sleep(0.005)
"""


@pytest.fixture(scope="module")
def booted(module_box):
    return Host(module_box)


@pytest.fixture
def host(booted):
    """The application's database, a configuration and both units, and no folder made beforehand."""
    booted.reset()
    return booted


# The units


@pytest.mark.parametrize("unit", [unit.replace("@", "@staging") for unit in UNITS])
def test_systemd_finds_no_fault_with_the_units(host, unit):
    done = host.box.run("systemd-analyze", "verify", unit, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.endswith(".service")])
def test_the_units_are_tight(host, unit):
    path = f"/etc/systemd/system/{unit}"
    host.box.run("systemd-analyze", "security", "--offline=yes", "--threshold=15", path)


# Start, status, stop


def test_starts_on_a_host_without_its_folders_and_stops_cleanly(host):
    host.start()
    assert host.box.show(UNIT, "ActiveState")["ActiveState"] == "active"
    folders = (ROOT, "/var/log/scpln", STATE)
    modes = host.box.run("stat", "--format=%U:%G %a", *folders).stdout.splitlines()
    assert modes == ["scpln:scpln 750", "scpln:scpln 750", "scpln:scpln 700"]
    assert "backup_build_info" in host.box.run("curl", "-fsS", f"{ADDRESS}/metrics").stdout

    host.box.systemctl("stop", UNIT)
    assert host.box.show(UNIT, "Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}


def test_folders_that_are_there_keep_their_owner_and_mode(host):
    host.box.run("install", "-d", "-o", "root", "-g", "scpln", "-m", "0775", "/var/log/scpln")
    host.start()
    assert host.box.run("stat", "--format=%U:%G %a", "/var/log/scpln").stdout == "root:scpln 775\n"


def test_status_tells_the_last_backup_and_the_next(host):
    host.start()
    assert re.fullmatch(r"no backup yet, next \d{4}-\d\d-\d\d \d\d:30", host.status_text())
    with host.source_locked():
        host.signal("USR1")
        host.wait_for_status("^copying")
        assert host.metric("backup_running") == 1
    host.wait_for_status(r"^last backup \d{4}-\d\d-\d\d \d\d:\d\d success, next \d{4}-\d\d-\d\d \d\d:30$")
    shown = host.box.systemctl("status", UNIT)
    assert re.search(r'^ +Status: "last backup .* success, next .*"$', shown, re.MULTILINE)


def test_metrics_survive_a_restart(host):
    host.start()
    host.signal("USR1")
    host.wait_for_status("^last backup .* success")
    before = lasting(host)
    assert before["backup_success", (("database", "scpln"), ("environment", "production"))] == 1
    host.box.systemctl("restart", UNIT)
    assert lasting(host) == before


def lasting(host):
    """What a restart does not change; it is itself written to the audit log."""
    return {name: value for name, value in host.metrics().items() if not name[0].startswith("backup_notification_")}


# sched_getattr(2) of a process: its policy, its nice value and its slice.
SLICE = """
import ctypes, platform, struct, sys
number = {"x86_64": 315, "aarch64": 275, "riscv64": 275}[platform.machine()]
buffer = ctypes.create_string_buffer(48)
assert ctypes.CDLL(None).syscall(number, int(sys.argv[1]), buffer, 48, 0) == 0
_, policy, _, nice, _, slice, _, _ = struct.unpack("=IIQiIQQQ", buffer.raw)
print(policy, nice, slice)
"""


def test_the_filter_of_system_calls_lets_a_run_stand_back(host):
    """A refused call would only be passed over."""
    host.start()
    with host.source_locked():
        host.signal("USR1")
        host.wait_for_status("^copying")
        with host.running("python3", "-c", SLICE, str(host.worker())) as look:
            policy, nice, slice_ = map(int, look.stdout.readline().split())
        assert (policy, nice) == (0, 0)  # a writer waits
        if tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) >= (6, 12):
            assert slice_ == 100_000_000
    host.wait_for_status("^last backup .* success")


# Signals


def test_a_signal_to_the_whole_control_group_in_a_run_makes_one_more(host):
    host.start()
    with host.source_locked():
        host.signal("USR1")
        worker = host.worker()
        host.wait_for_status("^copying")
        for _ in range(5):
            host.signal("USR1")
        assert host.worker() == worker
    host.wait_for_log("backup success: trigger=signal", 2)
    host.wait_for_status("^last backup")
    assert host.metric("backup_runs_total") == 2
    assert host.box.show(UNIT, "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}
    host.box.systemctl("stop", UNIT)
    assert [run.outcome for run in host.runs()] == [Outcome.SUCCESS] * 2
    assert len(host.artifacts()) == 2


def idle_since_a_run_of(host):
    """When the last run began, in seconds since 1970; 0 while one is under way."""
    found = {(name, dict(labels).get("stage")): value for (name, labels), value in host.metrics().items()}
    if found["backup_running", None] or ("backup_last_run_timestamp_seconds", None) not in found:
        return 0
    return found["backup_last_run_timestamp_seconds", None] - found["backup_last_duration_seconds", "total"]


def test_a_burst_of_signals_is_a_few_runs_and_none_is_lost(host):
    host.start()
    pid = host.main_pid()
    last = float(host.box.run("python3", "-c", BURST, str(pid)).stdout)
    deadline = time.monotonic() + WAIT
    while idle_since_a_run_of(host) < last - 0.1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert host.main_pid() == pid
    host.box.systemctl("stop", UNIT)
    runs = host.runs()
    assert {run.outcome for run in runs} == {Outcome.SUCCESS}
    assert runs[0].started_at.timestamp() >= last
    assert len(runs) <= 4


def test_signals_to_a_daemon_that_is_still_starting_wait_for_it(host):
    with host.running("python3", "-c", AMBUSH) as ambush:
        assert ambush.stdout.readline() == b"waiting\n"
        host.start()
        assert ambush.wait(WAIT) == 0
    host.wait_for_log("backup success: trigger=signal")
    host.wait_for_log("configuration reloaded")
    assert host.box.show(UNIT, "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}


# Reload


def test_a_reload_changes_the_schedule(host):
    host.start()
    pid = host.main_pid()
    host.box.write(CONFIG, configuration(backup="47 11 * * *"))
    host.box.systemctl("reload", UNIT)
    host.wait_for_status("next .* 11:47$")
    assert host.main_pid() == pid
    assert host.box.show(UNIT, "ActiveState")["ActiveState"] == "active"


def test_a_reload_with_a_wrong_configuration_fails_and_leaves_the_daemon_alone(host):
    host.start()
    before = host.box.show(UNIT, "MainPID", "StatusText")
    host.box.write(CONFIG, "no_such_key = 1\n")
    assert host.box.run("systemctl", "reload", UNIT, check=False).returncode != 0
    host.wait_for_log("no_such_key")
    assert host.box.show(UNIT, "MainPID", "StatusText") == before


def test_a_hangup_with_a_wrong_configuration_keeps_the_old_one_and_says_so(host):
    host.start()
    pid = host.main_pid()
    host.box.write(CONFIG, configuration(backup="61 11 * * *"))
    host.box.run("kill", "-HUP", str(pid))
    host.wait_for_status("no backup yet, next .*:30; reload refused, the old configuration stays in force: .*61")
    host.box.write(CONFIG, configuration(backup="47 11 * * *"))
    host.box.run("kill", "-HUP", str(pid))
    host.wait_for_status("no backup yet, next .* 11:47$")
    assert host.main_pid() == pid


def test_a_wrong_configuration_is_not_tried_again(host):
    host.box.write(CONFIG, "no_such_key = 1\n")
    assert host.box.run("systemctl", "start", UNIT, check=False).returncode != 0
    shown = host.box.show(UNIT, "ActiveState", "ExecMainStatus", "NRestarts")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": "2", "NRestarts": "0"}


# Ends of all kinds


def test_a_hang_ends_with_the_stacks_in_the_journal_and_a_restart(host):
    host.start(f"WatchdogSec=2\n{QUICK_RESTART}")
    host.signal("USR1")
    host.wait_for_status("^last backup .* success")
    before = lasting(host)
    host.signal("STOP", "--kill-who=main")
    host.box.wait_for_state(UNIT, lambda shown: shown["NRestarts"] == "1", "NRestarts")
    host.wait_for_status("^last backup .* success")
    host.wait_for_log("Watchdog timeout")
    host.wait_for_log("Fatal Python error: Aborted")
    host.wait_for_log(r"File .*/scpln_backup/service/daemon\.py\S* line \d+ in loop")
    assert lasting(host) == before


def test_a_live_daemon_satisfies_its_watchdog(host):
    host.start("WatchdogSec=1500ms")
    pid = host.main_pid()
    with host.source_locked():
        host.signal("USR1")
        host.wait_for_status("^copying")
        time.sleep(3)  # what is waited for is that nothing happens
    host.wait_for_log("backup success")
    assert host.main_pid() == pid


def test_a_stop_in_a_run_leaves_nothing_half_made_and_the_slot_is_taken_again(host):
    host.start()
    host.box.systemctl("stop", UNIT)
    host.set_slot(days_ago=3)
    with host.source_locked():
        host.start()
        host.wait_for_log("backup started: trigger=catch-up")
        host.worker()
        began = time.monotonic()
        host.box.systemctl("stop", UNIT)
        assert time.monotonic() - began < 5
    assert host.box.show(UNIT, "Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}
    assert host.processes() == []
    assert host.staged() == []
    assert [(run.trigger, run.outcome, run.interrupted) for run in host.runs()] == [
        (Trigger.CATCH_UP, Outcome.FAILED, True)
    ]
    host.start()
    host.wait_for_log("is taken again")
    host.wait_for_log("backup success: trigger=catch-up")
    host.box.systemctl("restart", UNIT)
    host.box.systemctl("stop", UNIT)
    assert [run.outcome for run in host.runs()] == [Outcome.SUCCESS, Outcome.FAILED]


def test_a_killed_daemon_is_started_again_and_the_next_run_clears_up(host):
    host.start(QUICK_RESTART)
    host.signal("USR1")
    host.wait_for_status("^last backup .* success")
    assert host.metric("backup_success") == 1
    with host.source_locked():
        host.signal("USR1")
        host.wait_for_status("^copying")
        killed = host.main_pid()
        host.signal("KILL", "--kill-who=main")
        host.box.wait_for_state(
            UNIT, lambda shown: shown == {"ActiveState": "active", "NRestarts": "1"}, "ActiveState", "NRestarts"
        )
        assert host.processes() == [host.main_pid()] != [killed]
    host.wait_for_status("^last backup .* interrupted, next")
    assert host.metric("backup_success") == 0
    assert host.metric("backup_running") == 0
    assert host.metric("backup_runs_total") == 2
    assert host.staged() != []
    host.signal("USR1")
    host.wait_for_status("^last backup .* success")
    assert host.metric("backup_success") == 1
    assert host.metric("backup_runs_total") == 3
    assert host.staged() == []


def test_a_killed_worker_is_a_failed_run_and_the_daemon_goes_on(host):
    host.start()
    with host.source_locked():
        host.signal("USR1")
        host.box.run("kill", "-KILL", str(host.worker()))
        host.wait_for_status("^last backup .* failed, next")
    assert host.metric("backup_success") == 0
    (error,) = host.log("--priority=err", "--identifier=scpln-backup")
    assert re.match("backup failed: .*out of memory", error)
    host.signal("USR1")
    host.wait_for_status("^last backup .* success")
    assert host.metric("backup_success") == 1
    assert host.box.show(UNIT, "NRestarts")["NRestarts"] == "0"


# Beside the daemon


def test_a_second_daemon_is_told_who_is_there(host):
    host.start()
    done = host.as_scpln("scpln-backup", "serve")
    assert done.returncode == 75
    assert f"process {host.main_pid()}" in done.stderr


def test_a_backup_by_hand_is_refused_or_made_by_the_daemon(host):
    host.start()
    done = host.as_scpln("scpln-backup", "backup")
    assert done.returncode == 75
    assert f"process {host.main_pid()}" in done.stderr
    document = host.json("backup", "--wait")
    assert (document["outcome"], document["trigger"]) == ("success", "signal")
    assert host.artifacts() == [document["artifact"]]


def test_root_may_ask_the_daemon_too(host):
    host.start()
    done = host.box.run("scpln-backup", "backup", "--wait", "--json")
    assert json.loads(done.stdout)["outcome"] == "success"
    assert owners(host, ROOT, STATE) == {"scpln:scpln"}


# The application's side


def owners(host, *folders):
    """Of every file and folder below."""
    return set(host.box.run("find", *folders, "-printf", "%u:%g\n").stdout.split())


def test_a_database_in_wal_mode_under_load(host):
    host.box.write("/opt/scpln/app.py", APPLICATION)
    host.box.install_unit("app.service", "[Service]\nUser=scpln\nExecStart=/usr/bin/python3 /opt/scpln/app.py\n")
    host.box.systemctl("start", "app.service")
    host.box.run("sh", "-c", "until [ -e /opt/scpln/data/alive ]; do sleep 0.01; done")
    host.start()
    host.signal("USR1")
    host.wait_for_log("backup success")
    assert {"scpln.db-shm", "scpln.db-wal"} <= {path.name for path in host.box.path("/opt/scpln/data").iterdir()}
    assert owners(host, "/opt/scpln/data") == {"scpln:scpln"}
    assert host.box.show("app.service", "ActiveState")["ActiveState"] == "active"
    assert host.json("verify")[0]["ok"]


def test_a_database_in_wal_mode_that_nobody_has_open(host):
    script = f'import sqlite3; sqlite3.connect("{SOURCE}").execute("PRAGMA journal_mode = WAL")'
    host.as_scpln("python3", "-c", script).check_returncode()
    host.start()
    host.signal("USR1")
    host.wait_for_log("backup success")
    assert owners(host, "/opt/scpln/data") == {"scpln:scpln"}
    write = f'import sqlite3; c = sqlite3.connect("{SOURCE}"); c.execute("CREATE TABLE later (at)"); c.commit()'
    host.as_scpln("python3", "-c", write).check_returncode()


# Environments and secrets


def test_two_environments_side_by_side(host):
    for name, port in (("staging", 9818), ("production", 9819)):
        text = (
            f'environment = "{name}"\n[backup]\nroot = "{ROOT}-{name}"\n[state]\ndirectory = "{STATE}-{name}"\n'
            f'[audit]\nlog = "/var/log/scpln/backup-{name}.log"\n[web]\nlisten = "127.0.0.1:{port}"\n'
        )
        host.box.write(f"/etc/scpln-backup/{name}.toml", text + configuration())
        host.box.systemctl("start", f"scpln-backup@{name}.service")
    host.box.systemctl("kill", "--signal=USR1", "scpln-backup@staging.service")
    host.wait_for_log("backup success", unit="scpln-backup@staging.service")
    assert len(host.artifacts(f"{ROOT}-staging")) == 1
    assert host.artifacts(f"{ROOT}-production") == []
    for name, port, success in (("staging", 9818, 1), ("production", 9819, 0)):
        found = host.metrics(f"http://127.0.0.1:{port}")
        assert found["backup_success", (("database", "scpln"), ("environment", name))] == success


def test_a_credential_is_where_the_unit_says(host):
    host.box.write("/etc/scpln-backup/slack-token", "xoxb-1", mode=0o600)
    token = f"/run/credentials/{UNIT}/slack-token"
    host.box.write(CONFIG, f'{configuration()}[slack]\ntoken_file = "{token}"\n')
    host.start("LoadCredential=slack-token:/etc/scpln-backup/slack-token")
    host.box.systemctl("reload", UNIT)
    ids = host.box.run("sh", "-c", "id -u scpln; id -g scpln").stdout.split()
    # With the daemon's own user and view of the file system; other commands of the unit get no credentials.
    service = ("nsenter", f"--target={host.main_pid()}", "--mount", f"--setuid={ids[0]}", f"--setgid={ids[1]}")
    assert host.box.run(*service, "cat", token).stdout == "xoxb-1"
    assert host.as_scpln("cat", "/etc/scpln-backup/slack-token").returncode != 0
