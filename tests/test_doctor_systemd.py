"""The doctor on a real host with systemd: what it finds is what goes wrong there, and its advice mends it."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from support.host import CONFIG, ROOT, SOURCE, UNIT, Host, configuration

pytestmark = pytest.mark.systemd

APPLICATION = """
[Service]
ExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 8000
TimeoutStopSec=10
TimeoutStartSec=10
[Install]
WantedBy=multi-user.target
"""
QUIET = '[service]\nhealth_url = "http://127.0.0.1:8000/"\n[drill]\ncommand = ["true"]\n[rebuild]\ncommand = []\n'
# What no test here can mend: the box has one disk, nothing keeps its clock, and nobody is told.
LEFT = {"backup-disk", "clock", "channels", "drill"}


@pytest.fixture(scope="module")
def booted(module_box):
    return Host(module_box)


@pytest.fixture
def host(booted):
    """A host as it should be, for a test that changes the daemon or its unit."""
    prepare(booted)
    return booted


@pytest.fixture(scope="module")
def prepared(booted):
    prepare(booted)
    return booted


@pytest.fixture
def still(prepared):
    """The same, prepared once: for tests that look, and change no more than the configuration. They come first."""
    configure(prepared, QUIET)
    return prepared


def prepare(host: Host) -> None:
    """The application runs, the daemon and the alarm's timer are enabled, and there is a backup."""
    host.reset()
    host.box.install_unit("scpln-api.service", APPLICATION)
    host.box.systemctl("enable", "--now", "scpln-api.service", "scpln-backup-overdue.timer")
    host.box.systemctl("enable", UNIT)
    configure(host, QUIET)
    host.start()
    host.signal("USR1", "--kill-whom=main")
    host.wait_for_log("backup success")


def configure(host: Host, more: str = "", **schedule: object) -> None:
    host.box.write(CONFIG, configuration(**schedule) + more)


def doctor(host: Host, *options: str, config: str = CONFIG, user: str = "root") -> dict[str, dict[str, Any]]:
    """Findings by check, after making sure of the exit code."""
    command = ("scpln-backup", "-c", config, "doctor", "--json", *options)
    done = host.as_scpln(*command) if user == "scpln" else host.box.run(*command, check=False)
    document = json.loads(done.stdout)
    levels = {finding["level"] for finding in document}
    assert done.returncode == (2 if "critical" in levels else 1 if "warning" in levels else 0)
    return {finding["check"]: finding for finding in document}


def troubles(found: dict[str, dict[str, Any]]) -> set[str]:
    return {check for check, finding in found.items() if not finding["ok"]}


def test_a_host_as_it_should_be(still):
    found = doctor(still)
    assert troubles(found) == LEFT, {check: found[check] for check in troubles(found) - LEFT}
    assert found["unit"]["detail"] == f"{UNIT}, enabled"
    assert "scpln can write, sync and rename in it" in found["backup-root"]["detail"]
    assert found["restore-units"]["detail"] == "scpln-api.service, active"
    assert found["health-url"]["detail"] == "http://127.0.0.1:8000/ answers"
    assert "scpln-backup-overdue.timer, enabled, active" in found["overdue-timer"]["detail"]
    assert still.staged() == [], "nothing stays in the staging folder"


def test_the_daemons_user_sees_the_same_as_root(still):
    by_root, by_scpln = doctor(still), doctor(still, user="scpln")
    assert {check: finding["level"] for check, finding in by_root.items()} == {
        check: finding["level"] for check, finding in by_scpln.items()
    }


def test_it_takes_a_moment_and_leaves_nothing(still):
    before = still.box.run("find", ROOT, "/var/lib/scpln-backup", "-type", "f").stdout
    began = time.monotonic()
    doctor(still)
    assert time.monotonic() - began < 20
    assert still.box.run("find", ROOT, "/var/lib/scpln-backup", "-type", "f").stdout == before


def test_units_that_a_restore_could_not_stop(still):
    configure(still, QUIET.replace("[service]\n", '[service]\nunits = ["scpln-api", "no-such.service"]\n'))
    found = doctor(still)["restore-units"]
    assert found["level"] == "critical"
    assert "no-such.service: systemd knows no such unit" in found["detail"]
    assert "scpln-api" not in found["detail"]
    still.box.install_unit("scpln-api.service", APPLICATION.replace("TimeoutStopSec=10", "TimeoutStopSec=300"))
    configure(still, QUIET)
    found = doctor(still)["restore-units"]
    still.box.install_unit("scpln-api.service", APPLICATION)
    assert (found["level"], found["advice"]) == ("warning", "set [service] stop_timeout_seconds to 300")


def test_a_health_address_that_a_running_application_does_not_answer(still):
    configure(still, QUIET.replace(":8000/", ":8000/no-such-page"))
    found = doctor(still)["health-url"]
    assert found["level"] == "critical"
    assert "404" in found["detail"]
    assert "while the application runs" in found["detail"]


def test_who_has_the_database_open(still):
    """Another user's process is seen by root; one of an unknown unit would make a restore refuse."""
    with still.source_locked():
        found = doctor(still)["database-users"]
        assert found["level"] == "warning"
        assert re.search(r"python3 \(process \d+", found["detail"])


def test_a_disk_that_fstab_has_and_nobody_has_mounted(still):
    before = still.box.path("/etc/fstab").read_text(encoding="utf-8")
    still.box.write("/etc/fstab", f"{before}LABEL=backups /var/backups ext4 nofail 0 2\n")
    try:
        found = doctor(still)["backup-mount"]
    finally:
        still.box.write("/etc/fstab", before)
    assert (found["level"], found["advice"]) == ("critical", "mount /var/backups")


def test_the_old_cron_job(still):
    line = "30 2 * * * scpln /opt/scpln/scripts/backup_database.sh >> /var/log/scpln/backup.log 2>&1\n"
    still.box.write("/etc/cron.d/scpln-backup", line)
    found = doctor(still)["old-cron-job"]
    still.box.run("rm", "/etc/cron.d/scpln-backup")
    assert found["level"] == "warning"
    assert "/etc/cron.d/scpln-backup" in found["detail"]


def test_another_environment(still):
    """Its unit is the template's instance that reads this file; without one nobody does."""
    still.box.write("/etc/scpln-backup/staging.toml", (
        'environment = "staging"\n[backup]\nroot = "/var/backups/scpln-staging"\n'
        '[state]\ndirectory = "/var/lib/scpln-backup-staging"\n[web]\nlisten = "127.0.0.1:9818"\n' + QUIET
    ))  # fmt: skip
    found = doctor(still, config="/etc/scpln-backup/staging.toml")
    assert found["unit"]["advice"] == "systemctl enable scpln-backup@staging.service"
    assert found["daemon"]["advice"] == "systemctl start scpln-backup@staging.service"
    assert found["overdue-timer"]["advice"] == "systemctl enable --now scpln-backup-overdue@staging.timer"
    assert found["sandbox"]["ok"]
    for check in ("backup-root", "state-folder"):
        assert "not there yet; scpln-backup@staging.service makes it when it starts" in found[check]["detail"]

    still.box.write("/opt/scpln/own.toml", QUIET)
    found = doctor(still, config="/opt/scpln/own.toml")
    assert found["unit"]["level"] == "warning"
    assert "Environment=SCPLN_BACKUP_CONFIG=/opt/scpln/own.toml" in found["unit"]["advice"]


def test_a_backup_root_that_the_unit_does_not_open(host):
    """The folder is the user's own, and yet the run fails in the sandbox: as the doctor says, and mended as it says."""
    move_artifacts(host, "/srv/backups")
    configure(host, f'{QUIET}[backup]\nroot = "/srv/backups"\n')
    host.box.systemctl("restart", UNIT)
    found = doctor(host)
    assert found["backup-root"]["ok"]
    assert found["sandbox"]["level"] == "critical"
    assert "[backup] root = /srv/backups: read-only in the unit" in found["sandbox"]["detail"]
    host.signal("USR1", "--kill-whom=main")
    host.wait_for_log("Read-only file system")

    settings = re.search(r"\[Service\] (\S+=\S+),", found["sandbox"]["advice"])
    assert settings is not None
    host.box.add_drop_in(UNIT, f"[Service]\n{settings[1]}\n")
    host.box.systemctl("restart", UNIT)
    assert doctor(host)["sandbox"]["ok"]
    host.signal("USR1", "--kill-whom=main")
    host.wait_for_log("backup success", 2)
    assert len(host.artifacts("/srv/backups")) == 2
    host.box.run("rm", "-rf", "/srv/backups")


def move_artifacts(host: Host, root: str) -> None:
    """To a folder of the user's own, which it makes."""
    host.box.run("install", "-d", "-o", "scpln", "-g", "scpln", "-m", "0750", root)
    host.box.run("cp", "-a", f"{ROOT}/.", root)


def test_what_was_changed_on_disk_and_is_not_in_force(host):
    path = f"/etc/systemd/system/{UNIT}.d/test.conf"
    host.box.write(path, "[Service]\nNice=5\n")
    found = doctor(host)["unit"]
    assert "systemd has the old one" in found["detail"]
    host.box.run("touch", "--date=now + 2 seconds", path)  # systemd tells of whole seconds
    host.box.systemctl("daemon-reload")
    found = doctor(host)["unit"]
    assert ("was changed since it was started" in found["detail"], found["advice"]) == (
        True,
        f"systemctl restart {UNIT}",
    )

    configure(host, f"{QUIET}[retention]\ndays = 3\n")
    found = doctor(host)["config-in-force"]
    assert (found["detail"], found["advice"]) == (
        "the daemon works with an older [retention] days",
        f"systemctl reload {UNIT}",
    )
    host.box.systemctl("reload", UNIT)
    host.wait_for_log("configuration reloaded")
    assert doctor(host)["config-in-force"]["ok"]


def test_a_daemon_that_is_down_and_off(host):
    host.box.systemctl("disable", "--now", UNIT)
    found = doctor(host)
    assert (found["daemon"]["level"], found["daemon"]["advice"]) == ("critical", f"systemctl start {UNIT}")
    assert (found["unit"]["level"], found["unit"]["advice"]) == ("warning", f"systemctl enable {UNIT}")
    assert found["web-port"]["detail"].endswith("is free")


def test_an_alarm_that_is_not_armed(host):
    host.box.systemctl("disable", "--now", "scpln-backup-overdue.timer")
    found = doctor(host)["overdue-timer"]
    assert found["level"] == "warning"
    host.box.run("sh", "-c", found["advice"])
    assert doctor(host)["overdue-timer"]["ok"]


def test_the_units_environment_decides_and_not_the_shells(host):
    other = "/opt/scpln/data/other.db"
    host.box.run("install", "-o", "scpln", "-g", "scpln", SOURCE, other)
    command = ("env", f"SCPLN_DB={other}", "scpln-backup", "doctor", "--json")
    found = {one["check"]: one for one in json.loads(host.box.run(*command, check=False).stdout)}
    assert found["database-path"]["level"] == "warning"
    assert f"in this shell is {other}" in found["database-path"]["detail"]

    host.box.add_drop_in(UNIT, f"[Service]\nEnvironment=SCPLN_DB={other}\n")
    host.box.systemctl("restart", UNIT)
    found = doctor(host)
    assert found["database-path"]["detail"] == f"{other}, by SCPLN_DB in the environment of {UNIT}"
    assert found["config-in-force"]["ok"]


def test_credentials(host):
    """Missing in the unit, missing on disk, open to everybody; the units that must have it are two."""
    configure(host, f'{QUIET}[slack]\ntoken_file = "credential:slack-token"\n')
    found = doctor(host, "--offline")["slack-token"]
    assert found["level"] == "critical"
    setting = "LoadCredential=slack-token:/etc/scpln-backup/slack-token"
    overdue = "scpln-backup-overdue.service"
    for unit in (UNIT, overdue):
        assert f"{unit} has no credential slack-token" in found["detail"]
        assert f"systemctl edit {unit}: [Service] {setting}" in found["advice"]
        host.box.add_drop_in(unit, f"[Service]\n{setting}\n")
    found = doctor(host, "--offline")["slack-token"]
    assert "no such file, and scpln-backup.service would not start" in found["detail"]
    host.box.write("/etc/scpln-backup/slack-token", "xoxb-1-2-3\n", mode=0o644)
    found = doctor(host, "--offline")["slack-token"]
    assert (found["level"], "any user of this host can read it" in found["detail"]) == ("warning", True)
    host.box.path("/etc/scpln-backup/slack-token").chmod(0o600)
    assert doctor(host, "--offline")["slack-token"]["ok"]
    assert "xoxb" not in str(doctor(host, "--offline"))
    host.box.systemctl("restart", UNIT)
    host.box.run("rm", "-rf", f"/etc/systemd/system/{overdue}.d")
    host.box.path(CONFIG).write_text(
        host.box.path(CONFIG).read_text(encoding="utf-8") + 'api_url = "http://127.0.0.1:1/"\n', encoding="utf-8"
    )
    for user in ("root", "scpln"):  # who can read what the running unit was given, and so gets as far as the network
        found = doctor(host, user=user)["slack"]
        assert (found["level"], "Connection refused" in found["detail"]) == ("warning", True), found


def test_a_mount_that_the_unit_does_not_wait_for(host):
    configure(host, f'{QUIET}[backup]\nroot = "/srv/mount/scpln"\n')
    host.box.run("mkdir", "-p", "/srv/mount")
    host.box.run("mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", "/srv/mount")
    move_artifacts(host, "/srv/mount/scpln")
    try:
        found = doctor(host)
        assert found["backup-mount"]["level"] == "warning"
        assert "does not wait for that at boot" in found["backup-mount"]["detail"]
        host.box.add_drop_in(UNIT, "[Unit]\nRequiresMountsFor=/srv/mount/scpln\n")
        assert doctor(host)["backup-mount"]["ok"]
    finally:
        host.box.run("umount", "/srv/mount")
