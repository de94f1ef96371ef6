"""The Debian package: built twice alike, to lintian's liking, and its life on a host under a real systemd."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib

import pytest

from scpln_backup import __version__
from scpln_backup.config.keys import keys
from scpln_backup.config.parse import given, parse
from scpln_backup.records.schema import VERSION
from support import deb, systemd_box
from support.application import HEALTH
from support.box_parts import PartError, root_file_system
from support.deb import NEWER, PackagedHost, Sources, built
from support.host import CONFIG, ROOT, SOURCE, STATE, UNIT
from support.systemd_box import SystemdBox

STAGING = "scpln-backup@staging.service"
STAGING_CONFIG = """
environment = "staging"
[database]
path = "/opt/scpln/data/staging.db"
env_file = ""
[backup]
root = "/var/backups/scpln-staging"
[state]
directory = "/var/lib/scpln-backup-staging"
[web]
listen = "127.0.0.1:9818"
[audit]
log = "/var/log/scpln/backup-staging.log"
"""

pytestmark = pytest.mark.skipif(deb.why_impossible() is not None, reason=str(deb.why_impossible()))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return Sources(tmp_path_factory.mktemp("sources") / "one")


@pytest.fixture(scope="module")
def builds(sources, tmp_path_factory):
    """Two side by side, from the sources and from a copy of them in another place, under different umasks."""
    folder = tmp_path_factory.mktemp("builds")
    copy = Sources(folder / "another place", sources.folder)
    first = sources.begin_build(folder / "first")
    second = copy.begin_build(folder / "second", umask=0o077)
    return built(first), built(second)


@pytest.fixture(scope="module")
def package(builds):
    return builds[0]


@pytest.fixture(scope="module")
def later(package, tmp_path_factory):
    """A newer version, and one that cannot be unpacked."""
    return deb.newer(package, tmp_path_factory.mktemp("later"))


@pytest.fixture(scope="module")
def unpacked(package, tmp_path_factory):
    """The package's files, and below DEBIAN/ what dpkg is told."""
    folder = tmp_path_factory.mktemp("unpacked") / "package"
    subprocess.run(["dpkg-deb", "--raw-extract", package, folder], check=True)
    return folder


@pytest.fixture
def host():
    """A Debian with systemd, the application's files, and not even its user."""
    reason = systemd_box.why_impossible()
    if reason is not None:
        pytest.skip(reason)
    try:
        root = root_file_system()
    except PartError as error:
        pytest.skip(str(error))
    with SystemdBox(root) as box:
        box.run("userdel", "--remove", "scpln", check=False)  # complains that there is no mail
        yield PackagedHost(box)


# The file


def test_two_builds_are_the_same_to_the_byte(builds):
    this, again = builds
    assert this.name == again.name
    assert re.fullmatch(rf"scpln-backup_{re.escape(__version__)}_[a-z0-9]+\.deb", this.name)
    assert this.read_bytes() == again.read_bytes()


def test_lintian_has_nothing_to_say(package):
    done = subprocess.run(["lintian", "--allow-root", package], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_everything_is_in_it(sources, unpacked):
    folder = sources.folder
    inside = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if not path.is_dir()}
    units = {f"lib/systemd/system/{path.name}" for path in (folder / "systemd").iterdir()}
    program = {path.relative_to(folder / "daemon") for path in (folder / "daemon").rglob("*") if path.is_file()}
    modules = {f"usr/lib/scpln-backup/{path}" for path in program}
    rules = {f"usr/share/scpln-backup/prometheus/{path.name}" for path in (folder / "packaging/prometheus").glob("*.*")}
    pages = {f"usr/share/doc/scpln-backup/docs/{path.name}" for path in (folder / "docs").glob("*.md")}
    others = {
        "etc/logrotate.d/scpln-backup",
        "etc/scpln-backup/config.toml",
        "usr/bin/scpln-backup",
        "usr/lib/sysusers.d/scpln-backup.conf",
        "usr/lib/tmpfiles.d/scpln-backup.conf",
        "usr/share/bash-completion/completions/scpln-backup",
        "usr/share/doc/scpln-backup/README.ja.md",
        "usr/share/doc/scpln-backup/README.md",
        "usr/share/doc/scpln-backup/changelog.gz",
        "usr/share/doc/scpln-backup/copyright",
        "usr/share/doc/scpln-backup/examples/config.example.toml",
        "usr/share/fish/vendor_completions.d/scpln-backup.fish",
        "usr/share/man/man1/scpln-backup.1.gz",
        "usr/share/man/man5/scpln-backup-config.5.gz",
        "usr/share/scpln-backup/config.schema.json",
        "usr/share/zsh/vendor-completions/_scpln-backup",
    }
    assert units | modules | rules | pages | others <= inside
    assert not [path for path in inside if "__pycache__" in path]


def test_the_licence_of_every_library_is_in_it(sources, unpacked):
    text = (unpacked / "usr/share/doc/scpln-backup/copyright").read_text()
    named = {line.split()[1].lower().replace("_", "-") for line in re.findall(r"^Comment: .+ .+$", text, re.MULTILINE)}
    lock = (sources.folder / "packaging/requirements.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    assert locked - {"tzdata"} <= named
    assert set(re.findall(r"^License: (\S+)$", text, re.MULTILINE)) == set(
        re.findall(r"^License: (\S+)\n ", text, re.MULTILINE)
    )


def test_the_shipped_configuration_shows_the_true_defaults(unpacked):
    text = (unpacked / "etc/scpln-backup/config.toml").read_text()
    assert parse(tomllib.loads(text), "shipped") == parse({}, "nothing")
    shown = tomllib.loads(re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.MULTILINE))
    defaults = {key.path: key.default for key in keys()}
    assert len(given(shown)) > 10
    for path in given(shown):
        section, _, name = path.rpartition(".")
        assert (shown[section] if section else shown)[name] == defaults[path]


# Its life


def version(host):
    return host.box.run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", "scpln-backup").stdout


def run_now(host, *config):
    """A backup by the daemon, asked for as an SRE does."""
    done = host.box.run("scpln-backup", *config, "backup", "--wait", "--json", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def user_version(host, state=STATE):
    return int(host.box.run("sqlite3", "-readonly", f"{state}/catalog.db", "PRAGMA user_version").stdout)


@pytest.mark.systemd
def test_from_a_bare_host_to_a_restore_and_back_to_a_bare_host(host, package):
    installed = host.box.run(
        *deb.INSTALL, "apt-get", "install", "--yes", "--no-install-recommends", host.copy_in(package)
    )
    assert "warning" not in installed.stderr.lower()
    # There is no database yet, nor an application: the daemon runs and says what is to be done.
    assert host.active(UNIT) == "active"
    assert host.box.systemctl("is-enabled", UNIT) == "enabled"
    assert "no verified artifact" in host.box.run("scpln-backup", "status", check=False).stdout
    modes = host.box.run("stat", "--format=%U:%G %a", "/etc/scpln-backup", CONFIG, ROOT, "/var/log/scpln", STATE)
    assert modes.stdout.splitlines() == [
        "root:scpln 750",
        "root:scpln 640",
        "scpln:scpln 750",
        "scpln:scpln 750",
        "scpln:scpln 700",
    ]
    compiled = host.box.path("/usr/lib/scpln-backup/scpln_backup/__pycache__")
    assert {path.name.split(".")[0] for path in compiled.iterdir()} >= {"app", "errors", "model"}

    host.bring_database()
    host.edit_config(locale='"en"', timezone='"Asia/Tokyo"', command="[]", health_url=f'"{HEALTH}"')
    assert host.as_scpln("scpln-backup", "config", "check").returncode == 0
    host.box.systemctl("reload", UNIT)
    host.application()

    made = run_now(host)
    assert made["outcome"] == "success"
    assert [(entry["name"], entry["state"]) for entry in host.json("list")] == [(made["artifact"], "verified")]
    assert host.metric("backup_success") == 1
    assert host.metric("backup_verified_artifacts") == 1
    assert host.json("drill")["outcome"] == "success"

    host.wait_for_rows(host.pid(), 20)
    before = host.pid()
    restored = host.restored("--latest", "--yes")
    assert restored["outcome"] == "success"
    assert host.looks()[-1].files["scpln.db"] == host.raw_sha256(made["artifact"])
    assert (host.active(), host.healthy()) == ("active", True)
    assert host.pid() != before

    host.box.run(*deb.INSTALL, "apt-get", "remove", "--yes", "scpln-backup")
    assert host.box.run("systemctl", "cat", UNIT, check=False).returncode != 0
    assert host.box.run("pgrep", "-f", "scpln-backup serve", check=False).stdout == ""
    assert not host.box.path("/usr/lib/scpln-backup").exists()
    assert host.box.path(CONFIG).exists()
    assert host.box.path(f"{STATE}/catalog.db").exists()

    host.box.write("/etc/scpln-backup/slack-token", "xoxb")
    host.box.write("/var/log/scpln/backup.log", "{}\n")
    purged = host.box.run(*deb.INSTALL, "apt-get", "purge", "--yes", "scpln-backup")
    assert f"kept; they need no program: {ROOT} /var/log/scpln/backup.log" in purged.stdout
    gone = host.box.run("find", "/etc", "/usr", "/var/lib", "/run", "-name", "*scpln[-_]backup*")
    assert gone.stdout == ""
    assert host.artifacts() == [made["artifact"]]
    assert host.raw_sha256(made["artifact"]) == made["raw_sha256"]
    assert host.box.path("/var/log/scpln/backup.log").exists()
    assert (host.active(), host.healthy()) == ("active", True)


def bring_second_environment(host):
    """Staging's database and configuration; its daemon runs without being enabled."""
    host.box.run("install", "-o", "scpln", "-g", "scpln", SOURCE, "/opt/scpln/data/staging.db")
    host.box.write("/etc/scpln-backup/staging.toml", STAGING_CONFIG)
    host.box.systemctl("start", STAGING)


@pytest.mark.systemd
def test_an_upgrade_keeps_what_is_remembered_and_set(host, package, later):
    newer, clashing = later
    host.install(package)
    host.bring_database()
    bring_second_environment(host)
    host.edit_config(locale='"en"', days="400")
    host.box.systemctl("reload", UNIT)
    edited = host.box.path(CONFIG).read_text()
    first = run_now(host)["artifact"]
    staged = run_now(host, "-c", "/etc/scpln-backup/staging.toml")["artifact"]
    assert host.artifacts(f"{ROOT}-staging") == [staged]

    assert "trying to overwrite" in host.install(clashing, check=False).stderr
    assert version(host) == f"installed {__version__}"
    assert [host.active(unit) for unit in (UNIT, STAGING)] == ["active", "active"]

    with host.source_locked():
        host.signal("USR1")
        host.wait_for_status("^copying")
        upgraded = host.install(newer)
    assert upgraded.stderr == ""
    assert version(host) == f"installed {NEWER}"
    assert (user_version(host), user_version(host, f"{STATE}-staging")) == (VERSION + 1, VERSION + 1)
    for address in ("http://127.0.0.1:9817", "http://127.0.0.1:9818"):
        labels = [dict(labels) for name, labels in host.metrics(address) if name == "backup_build_info"]
        assert [found["version"] for found in labels] == [NEWER]
    assert [entry["name"] for entry in host.json("list")] == [first]
    assert host.box.path(CONFIG).read_text() == edited
    assert host.box.run("stat", "--format=%U:%G %a", CONFIG).stdout == "root:scpln 640\n"
    assert sorted(path.name for path in host.box.path("/etc/scpln-backup").iterdir()) == ["config.toml", "staging.toml"]
    # The run that was under way has left nothing but its record.
    assert (host.staged(), host.artifacts()) == ([], [first])
    status = host.box.run("scpln-backup", "status", "--json", check=False).stdout
    last = json.loads(status)["last_run"]
    assert (last["outcome"], last["interrupted"]) == ("failed", True)


@pytest.mark.systemd
def test_a_downgrade_is_refused_and_what_it_says_helps(host, package, later):
    newer, _ = later
    host.install(newer)
    host.bring_database()
    bring_second_environment(host)
    artifact = run_now(host)["artifact"]
    staged = run_now(host, "-c", "/etc/scpln-backup/staging.toml")["artifact"]

    pids = host.main_pid(), host.box.show(STAGING, "MainPID")
    refused = host.install(package, check=False)
    assert refused.returncode != 0
    assert "cannot take over: a newer version has written" in refused.stderr
    assert version(host) == f"installed {NEWER}"
    assert (host.main_pid(), host.box.show(STAGING, "MainPID")) == pids
    assert host.metric("backup_verified_artifacts") == 1

    for command in re.findall(r"^  sudo (.+)$", refused.stderr, re.MULTILINE):
        host.box.run("sh", "-c", command)
    host.install(package)
    assert version(host) == f"installed {__version__}"
    assert host.active(UNIT) == "active"
    assert user_version(host) == VERSION
    assert {entry["name"]: entry["state"] for entry in host.json("list")} == {artifact: "verified"}
    assert run_now(host)["outcome"] == "success"

    host.box.systemctl("enable", "--now", STAGING)
    host.box.run(*deb.INSTALL, "dpkg", "--purge", "scpln-backup")
    assert host.box.run("pgrep", "-f", "scpln-backup serve", check=False).stdout == ""
    assert not host.box.path(f"{STATE}-staging").exists()
    assert not host.box.path(f"/etc/systemd/system/multi-user.target.wants/{STAGING}").is_symlink()
    assert host.artifacts(f"{ROOT}-staging") == [staged]


@pytest.mark.systemd
def test_a_restore_keeps_the_program_it_was_begun_with(host, package, later):
    newer, _ = later
    host.box.write("/etc/cron.d/scpln-backup", "30 2 * * * scpln /opt/scpln/scripts/backup_database.sh\n")
    assert "/etc/cron.d/scpln-backup would write files of the same names" in host.install(package).stderr
    host.box.systemctl("disable", "--now", UNIT)
    for name in ("restore.json", "run.lock"):
        host.box.write(f"{STATE}/{name}", "{}")

    with host.running("flock", f"{STATE}/run.lock", "sh", "-c", "echo held; cat") as holder:
        assert holder.stdout.readline() == b"held\n"
        refused = host.install(newer, check=False)
    assert "a restore is under way" in refused.stderr
    assert version(host) == f"installed {__version__}"
    refused = host.box.run("dpkg", "--remove", "scpln-backup", check=False)
    assert refused.returncode != 0
    assert "scpln-backup restore --resume" in refused.stderr
    assert "scpln-backup, version" in host.box.run("scpln-backup", "--version").stdout

    # One that was broken off hinders no upgrade, which starts nothing that was not to run.
    host.install(newer)
    assert version(host) == f"installed {NEWER}"
    assert host.active(UNIT) == "inactive"
    assert host.box.run("systemctl", "is-enabled", UNIT, check=False).stdout == "disabled\n"


@pytest.mark.systemd
def test_units_and_tmpfiles_make_the_same_folders(host, package):
    look = ("stat", "--format=%n %U:%G %a", ROOT, "/var/log/scpln")
    host.install(package)
    host.box.systemctl("stop", UNIT)
    by_both = host.box.run(*look).stdout
    host.box.run("rm", "-r", ROOT, "/var/log/scpln")
    host.box.run("systemd-tmpfiles", "--create", "scpln-backup.conf")
    assert host.box.run(*look).stdout == by_both
    host.box.run("sh", "-c", f"rm -r {ROOT} /var/log/scpln; install -d -o root -g scpln -m 0775 {ROOT}")
    host.box.systemctl("start", UNIT)
    host.box.run("systemd-tmpfiles", "--create", "scpln-backup.conf")
    assert host.box.run(*look).stdout == f"{ROOT} root:scpln 775\n/var/log/scpln scpln:scpln 750\n"
