"""The shipped units under a real systemd: they are well-formed, tight, and carry the daemon through its life."""

import pytest

from support.box_parts import CHECKOUT

pytestmark = pytest.mark.systemd

UNITS = ("scpln-backup.service", "scpln-backup@.service")
UNIT = "scpln-backup.service"
ADDRESS = "http://127.0.0.1:9817"


@pytest.fixture
def host(box):
    """A box with the application's database, a configuration and both units, and no folder made beforehand."""
    box.run("install", "-d", "-o", "scpln", "-g", "scpln", "/opt/scpln/data")
    sample = (CHECKOUT / "tests/data/scpln-sample.db").read_bytes()
    box.path("/opt/scpln/data/scpln.db").write_bytes(sample)
    box.run("chown", "scpln:scpln", "/opt/scpln/data/scpln.db")
    box.write("/opt/scpln/.env", "REGISTRY_BACKEND=db\n")
    box.write("/etc/scpln-backup/config.toml", '[schedule]\ntimezone = "Asia/Tokyo"\n')
    for unit in UNITS:
        box.install_unit(unit)
    return box


def artifacts(box):
    return sorted(box.path("/var/backups/scpln").glob("*/scpln-*.db.gz"))


@pytest.mark.parametrize("unit", ["scpln-backup.service", "scpln-backup@staging.service"])
def test_systemd_finds_no_fault_with_the_units(host, unit):
    done = host.run("systemd-analyze", "verify", unit, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", UNITS)
def test_the_units_are_tight(host, unit):
    path = f"/etc/systemd/system/{unit}"
    host.run("systemd-analyze", "security", "--offline=yes", "--threshold=15", path)


def test_starts_on_a_host_without_its_folders_and_stops_cleanly(host):
    host.systemctl("start", UNIT)
    assert host.show(UNIT, "ActiveState")["ActiveState"] == "active"
    folders = ("/var/backups/scpln", "/var/log/scpln", "/var/lib/scpln-backup")
    modes = host.run("stat", "--format=%U:%G %a", *folders).stdout.splitlines()
    assert modes == ["scpln:scpln 750", "scpln:scpln 750", "scpln:scpln 700"]
    assert "backup_build_info" in host.run("curl", "-fsS", f"{ADDRESS}/metrics").stdout

    host.systemctl("stop", UNIT)
    assert host.show(UNIT, "Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}


def test_folders_that_are_there_keep_their_owner_and_mode(host):
    host.run("install", "-d", "-o", "root", "-g", "scpln", "-m", "0775", "/var/log/scpln")
    host.systemctl("start", UNIT)
    assert host.run("stat", "--format=%U:%G %a", "/var/log/scpln").stdout == "root:scpln 775\n"


def test_a_signal_to_the_whole_control_group_makes_one_backup(host):
    host.systemctl("start", UNIT)
    host.systemctl("kill", "--signal=USR1", UNIT)
    host.wait_for_state(UNIT, lambda _: bool(artifacts(host)), "StatusText")
    assert host.show(UNIT, "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}


def test_a_reload_with_a_wrong_configuration_fails_and_leaves_the_daemon_alone(host):
    host.systemctl("start", UNIT)
    before = host.show(UNIT, "MainPID")
    host.systemctl("reload", UNIT)
    host.write("/etc/scpln-backup/config.toml", "no_such_key = 1\n")
    assert host.run("systemctl", "reload", UNIT, check=False).returncode != 0
    host.wait_for_journal(UNIT, "no_such_key")
    assert host.show(UNIT, "MainPID") == before


def test_a_wrong_configuration_is_not_tried_again(host):
    host.write("/etc/scpln-backup/config.toml", "no_such_key = 1\n")
    assert host.run("systemctl", "start", UNIT, check=False).returncode != 0
    shown = host.show(UNIT, "ActiveState", "ExecMainStatus", "NRestarts")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": "2", "NRestarts": "0"}


def test_a_killed_daemon_is_started_again(host):
    host.add_drop_in(UNIT, "[Service]\nRestartSec=100ms\n")
    host.systemctl("start", UNIT)
    host.systemctl("kill", "--kill-who=main", "--signal=KILL", UNIT)
    host.wait_for_state(
        UNIT,
        lambda shown: shown == {"ActiveState": "active", "NRestarts": "1"},
        "ActiveState",
        "NRestarts",
    )
