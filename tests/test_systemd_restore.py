"""The way back under a real systemd: `restore` as root, beside the daemon and an application that writes."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from support import faults
from support.application import API, DATA, WAIT_FOR_GATE, WORKER, ApplicationHost
from support.host import ROOT, SOURCE, STATE, UNIT

pytestmark = pytest.mark.systemd

JOURNAL = f"{STATE}/restore.json"
BEFORE_START = f"ExecStartPre={WAIT_FOR_GATE}"
AFTER_STOP = f"ExecStopPost={WAIT_FOR_GATE}"

HOLD_OPEN = f"""
import sqlite3, sys
connection = sqlite3.connect("{SOURCE}")
connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def booted(module_box):
    return ApplicationHost(module_box)


@pytest.fixture
def host(booted):
    """The first day of a host; no application runs yet."""
    booted.reset()
    return booted


def owners(host, *folders):
    return set(host.box.run("find", *folders, "-printf", "%u:%g\n").stdout.split())


def names(document):
    return [step["name"] for step in document["steps"]]


def unfinished(host):
    return host.box.path(JOURNAL).exists()


def as_before(host, document, before):
    """Nothing was changed, and nothing is left."""
    assert document["outcome"] in {"failed", "rolled-back", "aborted"}
    assert (document["replaced"], document["set_aside"], document["incident"]) == (False, None, None)
    assert host.box.path(SOURCE).stat().st_ino == before
    assert host.leftovers() == []
    assert not unfinished(host)


def inode(host):
    return host.box.path(SOURCE).stat().st_ino


def kill_application(host):
    """Nothing is closed: its -wal stays."""
    host.box.systemctl("kill", "--signal=KILL", API)
    host.box.wait_for_state(API, lambda shown: shown["ActiveState"] == "failed", "ActiveState")


# All goes well


def test_an_application_that_writes_beside_the_daemon(host):
    host.application()
    host.box.path(SOURCE).chmod(0o640)
    host.start()
    host.wait_for_rows(first := host.pid())
    host.signal("USR1")
    host.wait_for_log("backup success")
    (artifact,) = host.artifacts()
    host.wait_for_rows(first, host.starts()[first] + 20)
    status = host.box.run("stat", "--format=%U:%G %a", SOURCE).stdout

    began = time.time()
    document = host.restored("--latest", "--yes")

    assert (document["outcome"], document["artifact"], document["replaced"]) == ("success", artifact, True)
    assert host.box.run("stat", "--format=%U:%G %a", SOURCE).stdout == status == "scpln:scpln 640\n"
    assert names(document) == [
        "decompress and check",
        f"stop {API}",
        f"set the old database aside in {document['set_aside']}",
        "put the restored database in its place",
        "check it in its place",
        f"start {API}",
        "health probe",
    ]
    moments = [step["at"] for step in document["steps"]]
    assert moments == sorted(moments)

    _, stopped, started = host.looks()
    assert started.files == {"scpln.db": host.raw_sha256(artifact)}
    aside = f"{document['set_aside']}/scpln.db"
    assert host.box.run("sha256sum", aside).stdout.split()[0] == stopped.files["scpln.db"]
    assert host.healthy()
    assert host.pid() != first
    host.wait_for_rows(host.pid())
    kept, lost = host.starts()[first], host.starts(aside)[first]
    assert document["lost_rows"] == {"written": lost - kept}
    assert lost - kept >= 20

    assert host.main_pid() > 0
    deadline = host.metric("backup_incident_deadline_timestamp_seconds")
    assert began + 86_400 <= deadline <= time.time() + 86_400
    (incident,) = host.json("incident", "list")
    assert incident["id"] == document["incident"]
    assert "alice" in json.dumps(host.json("incident", "show"))
    assert owners(host, STATE, ROOT, DATA, "/var/log/scpln") == {"scpln:scpln"}
    host.signal("USR1")
    host.wait_for_log("backup success", count=2)
    assert owners(host, STATE, ROOT) == {"scpln:scpln"}
    assert host.box.show(UNIT, "NRestarts")["NRestarts"] == "0"


def test_a_stale_wal_of_a_killed_application(host):
    host.application("journal=wal")
    host.wait_for_rows(first := host.pid())
    artifact = host.backup()
    host.wait_for_rows(first, host.starts()[first] + 20)
    kill_application(host)
    written = host.starts()[first]
    (_, left) = host.looks()
    assert "scpln.db-wal" in left.files

    document = host.restored("--latest", "--yes")

    assert host.looks()[-1].files == {"scpln.db": host.raw_sha256(artifact)}
    aside = Path(document["set_aside"])
    for name, sha256 in left.files.items():
        assert host.box.run("sha256sum", str(aside / name)).stdout.split()[0] == sha256
    assert host.starts(str(aside / "scpln.db")) == {first: written}
    assert document["lost_rows"] == {"written": written - host.starts()[first]}
    assert host.healthy()


def test_two_units_stop_in_order_and_start_in_reverse(host):
    host.configure(service={"units": [API, WORKER]})
    host.application()
    host.application(unit=WORKER)
    host.backup()
    document = host.restored("--latest", "--yes")
    stopped = [host.box.show(unit, "InactiveEnterTimestampMonotonic") for unit in (API, WORKER)]
    started = [host.box.show(unit, "InactiveExitTimestampMonotonic") for unit in (WORKER, API)]
    order = [int(value) for shown in (*stopped, *started) for value in shown.values()]
    assert order == sorted(order)
    assert [name for name in names(document) if "scpln-" in name and "aside" not in name] == [
        f"stop {API}",
        f"stop {WORKER}",
        f"start {WORKER}",
        f"start {API}",
    ]
    assert host.active(WORKER) == host.active() == "active"


def test_restart_always_brings_nothing_up_in_the_middle(host):
    host.application(more=f"Restart=always\nRestartSec=1ms\n{AFTER_STOP}")
    artifact = host.backup()
    with host.restoring() as process:
        host.wait_for_log("^left:", unit=API)
        host.open_gate()
        document = json.loads(process.communicate()[0])
    assert document["outcome"] == "success"
    assert [look.moment for look in host.looks()] == ["found", "left", "found"]
    assert host.looks()[-1].files == {"scpln.db": host.raw_sha256(artifact)}
    assert host.box.show(API, "NRestarts")["NRestarts"] == "0"


def test_a_run_asked_for_meanwhile_waits(host):
    host.application(more=BEFORE_START)
    host.backup()
    host.start()
    with host.restoring() as process:
        host.wait_for_log("^found:", count=2, unit=API)
        host.signal("USR1")
        host.wait_for_log("the signal run waits: a restore")
        host.open_gate()
        assert json.loads(process.communicate()[0])["outcome"] == "success"
    host.wait_for_log("backup success")


# Refused before anything is stopped


def test_a_stranger_that_has_the_database_open(host):
    host.application()
    host.backup()
    before, pid = inode(host), host.pid()
    with host.running("runuser", "-u", "scpln", "--", "python3", "-c", HOLD_OPEN) as stranger:
        assert stranger.stdout.readline() == b"open\n"
        done = host.restore("--latest", "--yes")
    assert done.returncode == 1
    assert "python3 (process" in done.stderr
    assert (host.pid(), inode(host)) == (pid, before)
    assert host.leftovers() == []
    assert not unfinished(host)


def test_a_deleted_database_that_the_application_still_has_open(host):
    """The process has the only complete copy, and stopping it would be the end of that."""
    host.application()
    host.backup()
    pid = host.pid()
    host.box.run("kill", "-STOP", str(pid))  # SQLite itself would notice at the next write, and the process end
    host.box.run("rm", SOURCE)
    done = host.restore("--latest", "--yes")
    host.box.run("kill", "-CONT", str(pid))
    assert done.returncode == 1
    assert f"/proc/{pid}/fd" in done.stderr
    assert "--allow-deleted" in done.stderr
    assert host.restored("--latest", "--yes", "--allow-deleted")["outcome"] == "success"
    assert host.healthy()


def test_a_unit_that_could_not_be_started_again(host):
    host.application()
    host.backup()
    before, pid = inode(host), host.pid()
    host.box.run("ln", "-sf", "/dev/null", f"/etc/systemd/system/{API}")
    host.box.systemctl("daemon-reload")
    done = host.restore("--latest", "--yes")
    assert done.returncode == 1
    assert "masked" in done.stderr
    assert (host.pid(), inode(host)) == (pid, before)
    assert host.leftovers() == []
    assert not unfinished(host)


def test_a_unit_that_systemd_does_not_know(host):
    host.configure(service={"units": ["scpln-apy.service"]})
    host.backup()
    before = inode(host)
    done = host.restore("--latest", "--yes")
    assert done.returncode == 1
    assert "scpln-apy.service" in done.stderr
    assert inode(host) == before
    assert host.leftovers() == []
    assert not unfinished(host)


def test_a_unit_named_without_its_ending(host):
    host.configure(service={"units": [API.removesuffix(".service")]})
    host.application()
    host.backup()
    assert host.restored("--latest", "--yes")["outcome"] == "success"


# The application does not stop


def test_a_unit_that_ignores_the_stop(host):
    host.configure(service={"stop_timeout_seconds": 1})
    host.application("stubborn=1", more="TimeoutStopSec=2")
    host.backup()
    before = inode(host)
    document = host.restored("--latest", "--yes", code=1)
    as_before(host, document, before)
    assert f"{API}: did not stop within 1 s" in document["error"]
    assert host.active() == "active"
    assert host.healthy()


def test_a_unit_that_ignores_the_stop_for_longer_than_it_may_take_to_start(host):
    host.configure(service={"stop_timeout_seconds": 1, "start_timeout_seconds": 1})
    host.application("stubborn=1", more="TimeoutStopSec=60")
    host.backup()
    before, pid = inode(host), host.pid()
    done = host.restore("--latest", "--yes")
    assert done.returncode == 1
    assert "restore --abort" in done.stderr
    assert inode(host) == before
    host.wait_for_rows(pid)
    host.box.systemctl("kill", "--signal=KILL", API)
    document = host.restored("--abort")
    as_before(host, document, before)
    assert host.healthy()


def test_a_unit_that_refuses_to_be_stopped_by_hand(host):
    host.application(more="[Unit]\nRefuseManualStop=yes")
    host.backup()
    before, pid = inode(host), host.pid()
    document = host.restored("--latest", "--yes", code=1)
    as_before(host, document, before)
    assert "Operation refused" in document["error"]
    assert host.pid() == pid
    host.box.install_unit(API, "[Service]\nExecStart=/bin/true\n")  # for the next test to stop


def test_a_process_that_opens_the_database_while_the_unit_stops(host):
    opener = f"systemd-run --quiet --unit=stray --uid=scpln --service-type=exec tail -f {SOURCE}"
    host.application(more=f"ExecStopPost=+/usr/bin/{opener}")
    host.backup()
    before = inode(host)
    document = host.restored("--latest", "--yes", code=1)
    as_before(host, document, before)
    assert "still open in tail (process" in document["error"]
    assert "stray.service" in document["error"]
    assert host.active() == "active"


# The application does not stand the restored database


def rolled_back(host, document):
    """The unit ran on the new database, or was to, and runs on the old one now, byte for byte what it was."""
    assert document["outcome"] == "rolled-back"
    assert (document["replaced"], document["set_aside"], document["incident"]) == (False, None, None)
    assert not unfinished(host)
    looks = host.looks()
    assert looks[1].moment == "left"
    assert looks[-1] == looks[1]._replace(moment="found")
    assert any(look.files["scpln.db"] != looks[1].files["scpln.db"] for look in looks[2:-1])
    assert host.active() == "active"
    assert host.healthy()
    assert host.json("incident", "list") == []


def test_a_unit_that_does_not_start(host):
    refuse = f"""ExecStartPre=/bin/sh -c 'sqlite3 "file:{SOURCE}?immutable=1" "SELECT * FROM later"'"""
    host.application(more=f"{refuse}\nRestart=always\nRestartSec=10ms\nStartLimitBurst=3", start=False)
    host.backup()
    host.execute("CREATE TABLE later (x)")
    host.box.systemctl("start", API)
    document = host.restored("--latest", "--yes", code=1)
    assert f"{API}: did not start" in document["error"]
    rolled_back(host, document)
    assert host.leftovers() == []


def test_a_unit_that_is_not_healthy(host):
    host.configure(service={"health_timeout_seconds": 2})
    host.application("needs=later", "journal=wal", start=False)
    host.backup()
    host.execute("CREATE TABLE later (x)")
    host.box.systemctl("start", API)
    document = host.restored("--latest", "--yes", code=1)
    assert "503" in document["error"]
    assert "there is no table later" in document["error"]
    rolled_back(host, document)
    (kept,) = host.leftovers()  # it has written to the restored one
    assert document["error"].endswith(f"what was written since is kept in {DATA}/{kept}")
    assert sum(host.starts(f"{DATA}/{kept}/scpln.db").values()) > 0


def test_a_stale_wal_comes_back_with_the_old_database(host):
    host.configure(service={"health_timeout_seconds": 1})
    host.application("journal=wal", "needs=nothing")
    host.wait_for_rows(host.pid())
    host.backup()
    host.wait_for_rows(host.pid(), host.starts()[host.pid()] + 20)
    kill_application(host)
    left = host.looks()[-1].files
    document = host.restored("--latest", "--yes", code=1)
    assert document["outcome"] == "rolled-back"
    found = {
        name: host.box.run("sha256sum", f"{DATA}/{name}").stdout.split()[0] for name in ("scpln.db", "scpln.db-wal")
    }
    assert found == left
    assert host.active() == "inactive"  # it did not run before


# Killed


def kill_restore(host, pattern, count):
    """Kill a restore as soon as the application's unit says something for the `count`th time, while it waits there."""
    with host.restoring() as process:
        host.wait_for_log(pattern, count=count, unit=API)
        pid = json.loads(host.box.path(f"{STATE}/run.lock").read_text())["pid"]
        host.box.run("kill", "-KILL", str(pid))
        process.wait(timeout=20)
    assert unfinished(host)


def started_by_somebody(host):
    """The application, on whatever database is there; it writes."""
    host.box.systemctl("start", API)
    host.wait_for_rows(host.pid(), 20)
    return host.pid()


@pytest.mark.parametrize("verb", ["--resume", "--abort"])
def test_killed_while_the_unit_stops(host, verb):
    host.application(more=AFTER_STOP)
    artifact = host.backup()
    before, first = inode(host), host.pid()
    kill_restore(host, "^left:", 1)
    assert "--resume" in host.restore("--latest", "--yes").stderr
    host.box.wait_for_state(API, lambda shown: shown["ActiveState"] == "inactive", "ActiveState")
    second = started_by_somebody(host)
    document = host.restored(verb)
    if verb == "--abort":
        as_before(host, document, before)
        assert host.pid() == second
        return
    assert document["outcome"] == "success"
    assert host.looks()[-1].files["scpln.db"] == host.raw_sha256(artifact)
    aside = host.starts(f"{document['set_aside']}/scpln.db")
    assert aside[second] > 20
    kept = host.starts()
    assert document["lost_rows"] == {"written": sum(aside.values()) - kept.get(first, 0)}


@pytest.mark.parametrize("verb", ["--resume", "--abort"])
def test_killed_while_the_unit_starts(host, verb):
    """Then the application starts on the restored database, and writes to it."""
    host.application(more=BEFORE_START)
    host.wait_for_rows(first := host.pid())
    host.backup()
    host.wait_for_rows(first, host.starts()[first] + 20)
    before = inode(host)
    kill_restore(host, "^found:", 2)
    second = started_by_somebody(host)
    document = host.restored(verb)
    assert host.healthy()
    if verb == "--resume":
        assert document["outcome"] == "success"
        assert host.starts()[second] > 20
        assert host.starts(f"{document['set_aside']}/scpln.db").keys() == {first}
        return
    assert (document["outcome"], document["replaced"]) == ("aborted", False)
    assert inode(host) == before
    (kept,) = host.leftovers()
    assert kept in document["error"]
    assert host.starts(f"{DATA}/{kept}/scpln.db")[second] > 20
    assert second not in host.starts()


@pytest.mark.parametrize("verb", ["--resume", "--abort"])
@pytest.mark.skipif(faults.why_impossible() is not None, reason=str(faults.why_impossible()))
def test_killed_at_the_swap_itself(host, verb):
    """The old set is set aside, its journal worked into it: and then it is written to again."""
    host.application("journal=wal")
    host.wait_for_rows(first := host.pid())
    host.backup()
    host.wait_for_rows(first, host.starts()[first] + 20)
    kill_application(host)
    written = host.starts()[first]
    struck = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=rename", "-P", f"{DATA}/.scpln.db.restore/new.db"]
    command = host.box._enter("--pid", "scpln-backup", "restore", "--latest", "--yes")
    done = subprocess.run([*struck, "-e", "inject=rename:signal=KILL", *command], check=False)
    assert done.returncode != 0
    assert unfinished(host)

    second = started_by_somebody(host)
    document = host.restored(verb)
    if verb == "--abort":
        assert (document["outcome"], document["replaced"]) == ("aborted", False)
        assert host.leftovers() == []
        assert host.starts()[first] == written
        assert host.starts()[second] > 20
        return
    assert document["outcome"] == "success"
    aside = host.starts(f"{document['set_aside']}/scpln.db")
    assert (aside[first], aside[second] > 20) == (written, True)
    assert document["lost_rows"] == {"written": sum(aside.values()) - host.starts()[first]}


@pytest.mark.skipif(faults.why_impossible() is not None, reason=str(faults.why_impossible()))
@pytest.mark.parametrize("killed", [False, True])
def test_somebody_starts_the_application_just_before_the_swap(host, killed):
    """It has the old database open then: left alone it would go on writing to it, unseen, when that is replaced."""
    host.application("journal=wal")
    host.wait_for_rows(first := host.pid())
    host.backup()
    host.wait_for_rows(first, host.starts()[first] + 20)
    if killed:
        kill_application(host)
    # The last file that is looked for, and not found, before the rename.
    last = ("-P", f"{SOURCE}-journal", "-e", "trace=unlink", "-e", f"inject=unlink:delay_exit=5s:when={1 + killed}")
    command = host.box._enter("--pid", "scpln-backup", "restore", "--latest", "--yes", "--json")
    with subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", *last, *command], stdout=PIPE) as process:
        host.box.run("sh", "-c", f"until grep -qs '\"phase\": 5' {JOURNAL}; do sleep 0.01; done")
        host.box.run("sh", "-c", f"while [ -e {SOURCE}-shm ]; do sleep 0.01; done")
        written = host.starts()[first]
        second = started_by_somebody(host)
        document = json.loads(process.communicate(timeout=60)[0])
    assert not unfinished(host)
    assert host.healthy()
    live = host.starts()
    host.wait_for_rows(host.pid(), live[host.pid()])
    if document["outcome"] == "success":
        aside = host.starts(f"{document['set_aside']}/scpln.db")
        assert (aside[first], aside[second] > 20) == (written, True)
        assert live.keys() <= {first, host.pid()}
        assert host.pid() != second
        return
    assert document["replaced"] is False
    assert host.leftovers() == []
    assert (live[first], live[second] > 20) == (written, True)


# The drill


SMOKE_TEST = f"""
import os, pathlib, signal, sqlite3, time
copy = os.environ["SCPLN_DB"]
assert not os.path.samefile(copy, "{SOURCE}")
database = sqlite3.connect(copy, isolation_level=None)
print("runs:", database.execute("SELECT count(*) FROM runs").fetchone()[0], flush=True)
database.execute("DELETE FROM runs")
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print("left behind", flush=True)
    time.sleep(600)
os.wait()
"""
HANGING = "import signal, time; signal.signal(15, signal.SIG_IGN); print('hanging', flush=True); time.sleep(600)"


def smoke_test(host, program):
    host.box.write("/opt/scpln/smoke.py", program)
    host.configure(drill={"command": ["/usr/bin/python3", "/opt/scpln/smoke.py"]})


def make_drill_due(host):
    """The daemon must not run."""
    long_ago = int((time.time() - 30 * 86_400) * 1_000_000)
    statement = f"INSERT OR REPLACE INTO slots (job, served_at) VALUES ('drill', {long_ago})"
    host.as_scpln("sqlite3", f"{STATE}/catalog.db", statement).check_returncode()


def test_a_drill_by_schedule(host):
    smoke_test(host, SMOKE_TEST)
    artifact = host.backup()
    live = host.box.run("sha256sum", SOURCE).stdout
    make_drill_due(host)
    host.start()
    host.wait_for_log("drill success")
    assert host.metric("backup_drill_success") == 1
    assert host.metric("backup_drill_restore_duration_seconds") > 0
    assert abs(time.time() - host.metric("backup_drill_last_success_timestamp_seconds")) < 60
    assert host.processes() == [host.main_pid()]
    assert host.staged() == []
    assert host.box.run("sha256sum", SOURCE).stdout == live
    (output,) = host.box.path(f"{STATE}/drills").iterdir()
    assert {"runs: 3", "left behind"} <= set(output.read_text().splitlines())
    host.configure(service={"units": []})
    plan = host.json("restore", "--dry-run")
    assert plan["artifact"]["name"] == artifact
    assert plan["expected_seconds"] is not None


def test_a_drill_by_hand_beside_the_daemon(host):
    smoke_test(host, SMOKE_TEST)
    artifact = host.backup()
    host.start()
    document = host.json("drill")
    assert (document["outcome"], document["artifact"], document["smoke_exit_code"]) == ("success", artifact, 0)
    assert host.box.run("pgrep", "-f", "smoke.py", check=False).stdout == ""
    assert host.metric("backup_drill_success") == 1
    assert owners(host, STATE, ROOT) == {"scpln:scpln"}


def test_a_stop_ends_a_hanging_smoke_test(host):
    smoke_test(host, HANGING)
    host.application()
    host.backup()
    make_drill_due(host)
    host.start()
    host.box.run("sh", "-c", f"until grep -qs hanging {STATE}/drills/*; do sleep 0.02; done")
    refused = host.restore("--latest", "--yes")
    assert refused.returncode == 75
    assert "a drill (catch-up) (process" in refused.stderr
    began = time.monotonic()
    host.box.systemctl("stop", UNIT)
    assert time.monotonic() - began < 20
    assert host.box.show(UNIT, "Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}
    assert host.box.run("pgrep", "-f", "smoke.py", check=False).stdout == ""
    assert host.staged() == []
    assert host.restored("--latest", "--yes")["outcome"] == "success"
    host.start()
    assert host.metric("backup_drill_success") == 0
