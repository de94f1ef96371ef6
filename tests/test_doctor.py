"""`scpln-backup doctor`: the contract of its output, and each finding provoked for real."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scpln_backup import __version__
from scpln_backup.model import Trigger
from scpln_backup.operations.doctor import backups
from scpln_backup.operations.doctor.finding import Grade
from support.clinic import NOBODY, Clinic, unit
from support.daemon_process import DaemonProcess
from support.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scpln_backup.operations.doctor.finding import Finding

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to change owners")

KEYS = ["check", "ok", "detail", "level", "advice", "area"]
INSERT = "INSERT INTO configs (name, json_text, created_at, updated_at) VALUES ('new', '{}', 1, 1)"

# A writer that is killed in the middle of a transaction that has reached the file.
KILLED_WRITER = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 5")
connection.execute("BEGIN IMMEDIATE")
connection.executemany("INSERT INTO configs (name, json_text, created_at, updated_at) VALUES (?, ?, 1, 1)",
                       [(f"n{number}", "x" * 2000) for number in range(200)])
print("written", flush=True)
sys.stdin.read()
os.kill(os.getpid(), 9)
"""

HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM configs").fetchone()
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    return Clinic(tmp_path)


@pytest.fixture
def public_clinic() -> Iterator[Clinic]:
    """One that another user than root can reach, and owns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        clinic = Clinic(folder)
        clinic.give(NOBODY)
        yield clinic


@contextmanager
def running(code: str, database: Path) -> Iterator[subprocess.Popen[str]]:
    """A process at work on the database; its standard input ends with the context."""
    command = [sys.executable, "-c", code, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() in {"written", "open"}
        yield process


def assert_critical(finding: Finding, *words: str) -> None:
    _assert_found(finding, Grade.CRITICAL, words)


def assert_warning(finding: Finding, *words: str) -> None:
    _assert_found(finding, Grade.WARNING, words)


def _assert_found(finding: Finding, level: Grade, words: tuple[str, ...]) -> None:
    assert finding.level is level, finding
    assert finding.advice, finding
    text = f"{finding.detail} → {finding.advice}"
    assert all(word in text for word in words), (words, text)


def assert_ok(finding: Finding, *words: str) -> None:
    assert (finding.level, finding.advice) == (Grade.OK, None), finding
    assert all(word in finding.detail for word in words), (words, finding)


class TestTheVerb:
    def test_json_is_the_contract(self, clinic: Clinic) -> None:
        clinic.backup()
        document = clinic.json("doctor", code=2)
        assert [list(finding) for finding in document] == [KEYS] * len(document)
        for finding in document:
            assert finding["ok"] == (finding["level"] == "ok")
            assert (finding["advice"] is None) == finding["ok"], finding
            assert len(finding["detail"].splitlines()) == 1
        assert len({finding["check"] for finding in document}) == len(document)
        worst = next(finding for finding in document if finding["check"] == "daemon")
        assert (worst["level"], worst["ok"]) == ("critical", False)

    def test_the_exit_code_is_that_of_the_worst(self, clinic: Clinic) -> None:
        """The daemon runs and a drill was made: what is left are warnings, as of the one disk here."""
        clinic.backup()
        clinic.json("drill")
        with DaemonProcess(clinic):
            document = clinic.json("doctor", code=1)
        assert {finding["level"] for finding in document} == {"ok", "warning"}
        doubtful = {finding["check"] for finding in document if not finding["ok"]}
        assert doubtful <= {"backup-disk", "unit", "clock", "channels"}

    def test_people_get_a_line_for_each_check_and_what_to_do_below(self, clinic: Clinic) -> None:
        done = clinic.run("doctor")
        assert (done.returncode, done.stderr) == (2, "")
        lines = done.stdout.splitlines()
        assert lines == [line.rstrip() for line in lines]
        document = clinic.json("doctor", code=2)
        for finding in document:
            (place,) = [at for at, line in enumerate(lines) if line.split()[:2] == [finding["level"], finding["check"]]]
            assert lines[place].startswith("  ")
            if finding["advice"] is not None:
                assert lines[place + 1].strip() == f"→ {finding['advice']}"
        starts = {line.index("→") for line in lines if "→" in line}
        assert len(starts) == 1, "what to do is aligned"
        assert lines[-1].startswith(f"{len(document)} checks: 1 critical, ")

    def test_a_terminal_gets_colours_and_its_own_width(self, clinic: Clinic) -> None:
        terminal, other_end = pty.openpty()
        environment = clinic.environment(TERM="xterm-256color", COLUMNS="90")
        with subprocess.Popen(clinic.command("doctor"), stdout=other_end, env=environment) as process:
            os.close(other_end)
            text = b""
            with suppress(OSError):  # EIO: the other end is closed
                while piece := os.read(terminal, 65_536):
                    text += piece
            os.close(terminal)
        assert process.returncode == 2
        lines = text.decode().splitlines()
        assert any("\x1b[1;31mcritical" in line for line in lines)
        plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
        assert max(map(len, plain)) <= 90
        assert sum("→" in line for line in plain) == sum(
            line.split()[:1] in (["warning"], ["critical"]) for line in plain
        )

    def test_it_changes_nothing(self, clinic: Clinic) -> None:
        clinic.backup()
        before = contents(clinic.folder)
        clinic.run("doctor")
        assert contents(clinic.folder) == before

    def test_it_makes_nothing_where_nothing_was_made_yet(self, clinic: Clinic) -> None:
        before = contents(clinic.folder)
        document = clinic.json("doctor", code=2)
        assert contents(clinic.folder) == before
        told = {finding["check"]: finding["detail"] for finding in document}
        assert "not there yet" in told["backup-root"]
        assert "not there yet" in told["state-folder"]

    def test_every_mistake_of_a_wrong_configuration(self, clinic: Clinic) -> None:
        clinic.configure("backup", rot="/x", compression="gz")
        document = clinic.json("doctor", code=2)
        assert [finding["level"] for finding in document] == ["critical", "critical"]
        assert 'did you mean "root"?' in document[0]["detail"]
        assert 'did you mean "gzip"?' in document[1]["detail"]
        assert {finding["advice"] for finding in document} == {
            f"correct it, then: scpln-backup -c {clinic.config} config check"
        }

    def test_a_configuration_that_is_not_there(self, tmp_path: Path) -> None:
        place = Place(tmp_path)
        place.config.unlink()
        (finding,) = place.json("doctor", code=2)
        assert (finding["check"], finding["level"]) == ("config-file", "critical")

    def test_a_check_that_fails_ends_nothing(self, clinic: Clinic) -> None:
        def broken() -> str:
            raise RuntimeError("no\nsuch luck")

        found = clinic.examined({"slack": broken, "jira": lambda: "project OPS"})
        assert_warning(found["slack"], "could not be checked: no such luck")
        assert_ok(found["jira"], "project OPS")

    @as_root
    def test_who_may_not_look_says_so(self, public_clinic: Clinic) -> None:
        """Another user than the daemon's cannot tell what that one may do."""
        public_clinic.state.mkdir(0o700)
        os.chown(public_clinic.state, NOBODY, NOBODY)
        other = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
        # With leave to read, for the program may lie in a folder of root's.
        reading = ["--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search"]
        done = subprocess.run(
            [*other, *reading, *public_clinic.command("doctor", "--json")],
            env=public_clinic.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        found = {finding["check"]: finding for finding in json.loads(done.stdout)}
        for check in ("config-file", "database-file", "backup-root", "catalog", "drill-command"):
            assert found[check]["level"] == "warning"
            assert "could not be checked: " in found[check]["detail"]


def contents(folder: Path) -> dict[str, str]:
    """Each file by what is in it, each folder by its name."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


class TestConfiguration:
    @as_root
    def test_a_file_that_the_daemon_cannot_read(self, public_clinic: Clinic) -> None:
        os.chown(public_clinic.config, 0, 0)
        public_clinic.config.chmod(0o600)
        assert_critical(
            public_clinic.found("config-file"), "nobody", "cannot read it", f"chmod 0644 {public_clinic.config}"
        )
        public_clinic.config.chmod(0o644)
        assert_ok(public_clinic.found("config-file"), "readable for nobody")

    def test_a_file_that_anybody_may_change(self, clinic: Clinic) -> None:
        clinic.config.chmod(0o666)
        assert_critical(clinic.found("config-file"), "any user of this host may change it", "chmod o-w")
        clinic.config.chmod(0o664)
        assert_ok(clinic.found("config-file"))
        os.chown(clinic.config, -1, 12345)
        assert_warning(clinic.found("config-file"), "its whole group", "chmod g-w")

    def test_secrets_of_the_application_that_anybody_can_read(self, clinic: Clinic) -> None:
        clinic.env_file.write_text("REGISTRY_BACKEND=db\nSLACK_TOKEN=hunter2\n", encoding="utf-8")
        finding = clinic.found("env-file")
        assert_warning(finding, "SLACK_TOKEN", f"chmod o-r {clinic.env_file}")
        assert "hunter2" not in finding.detail
        clinic.env_file.chmod(0o640)
        assert_ok(clinic.found("env-file"))

    @as_root
    def test_an_env_file_that_the_daemon_cannot_read(self, public_clinic: Clinic) -> None:
        os.chown(public_clinic.env_file, 0, 0)
        public_clinic.env_file.chmod(0o600)
        assert_critical(public_clinic.found("env-file"), "nobody", "cannot read it", "chgrp nobody")

    def test_where_the_database_comes_from(self, clinic: Clinic) -> None:
        assert_ok(clinic.found("database-path"), str(clinic.source), f"by {clinic.config}")
        clinic.env_file.write_text(f"REGISTRY_BACKEND=db\nSCPLN_DB={clinic.source}\n", encoding="utf-8")
        assert_ok(clinic.found("database-path"), f"by SCPLN_DB in {clinic.env_file}:2")

    def test_a_backend_that_nobody_names(self, clinic: Clinic) -> None:
        assert_ok(clinic.found("registry-backend"), "REGISTRY_BACKEND=db")
        clinic.env_file.write_text("", encoding="utf-8")
        assert_warning(clinic.found("registry-backend"), f"set REGISTRY_BACKEND=db in {clinic.env_file}")

    def test_what_loading_warned_of(self, clinic: Clinic) -> None:
        assert "config-warnings" not in clinic.examined()
        clinic.env_file.write_text("REGISTRY_BACKEND=db\nnonsense here\n", encoding="utf-8")
        assert_warning(clinic.found("config-warnings"), f"{clinic.env_file}:2", "config show")


class TestDatabase:
    def test_a_good_one(self, clinic: Clinic) -> None:
        found = clinic.examined()
        assert_ok(found["database-file"], str(clinic.source), "992 KiB", "mode 0644")
        assert_ok(found["database-journal"], "rollback journal")
        assert_ok(found["database-users"], "open in no process")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (None, ("there is no such database", "SCPLN_DB")),
            (b"", ("empty", "scpln-backup restore")),
            (b"SQLite format 3\x00", ("truncated", "scpln-backup restore")),
            (b"PK\x03\x04" + b"x" * 5000, ("not a SQLite database", "[database] path")),
            (os.urandom(8192), ("looks encrypted",)),
        ],
    )
    def test_what_is_none(self, clinic: Clinic, content: bytes | None, words: tuple[str, ...]) -> None:
        clinic.source.unlink()
        if content is not None:
            clinic.source.write_bytes(content)
        found = clinic.examined()
        assert_critical(found["database-file"], *words)
        assert "could not be checked" not in "".join(finding.detail for finding in found.values())

    @as_root
    def test_another_owner_than_the_daemons(self, public_clinic: Clinic) -> None:
        assert_ok(public_clinic.found("database-owner"), "belongs to nobody")
        os.chown(public_clinic.source, 0, 0)
        finding = public_clinic.found("database-owner", unit=unit(user="nobody"))
        assert_critical(finding, "belongs to root", "runs as nobody", "User=root")
        assert_ok(public_clinic.found("database-owner", unit=unit(user="root")))

    def test_one_that_anybody_may_change(self, clinic: Clinic) -> None:
        clinic.source.chmod(0o666)
        assert_warning(clinic.found("database-owner"), "any user of this host", "chmod o-w")

    def test_a_hot_journal(self, clinic: Clinic) -> None:
        with running(KILLED_WRITER, clinic.source):
            assert_ok(clinic.found("database-journal"), "rollback journal")
        assert clinic.source.with_name("scpln.db-journal").stat().st_size > 0
        assert_critical(clinic.found("database-journal"), "is hot", "start the application")

    def test_a_journal_that_is_kept_and_over(self, clinic: Clinic) -> None:
        with closing(sqlite3.connect(clinic.source)) as connection:
            connection.execute("PRAGMA journal_mode = PERSIST")
            connection.execute(INSERT)
            connection.commit()
        assert clinic.source.with_name("scpln.db-journal").stat().st_size > 0
        assert_ok(clinic.found("database-journal"))

    @as_root
    def test_a_write_ahead_log(self, public_clinic: Clinic) -> None:
        with closing(sqlite3.connect(public_clinic.source)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(INSERT)
            connection.commit()
            public_clinic.give(NOBODY)
            assert_ok(public_clinic.found("database-journal"), "write-ahead log")
            sidecar = public_clinic.source.with_name("scpln.db-shm")
            os.chown(sidecar, 0, 0)
            assert_critical(public_clinic.found("database-journal"), str(sidecar), "chown --reference")
        public_clinic.give(NOBODY)
        os.chown(public_clinic.source.parent, 0, 0)
        assert_critical(
            public_clinic.found("database-journal"), "nobody", "may not write", f"{public_clinic.source.parent}"
        )

    def test_a_process_that_no_unit_accounts_for(self, clinic: Clinic) -> None:
        with running(HOLDER, clinic.source) as holder:
            assert_warning(clinic.found("database-users"), f"process {holder.pid}", "[service] units")


class TestFolders:
    @as_root
    def test_a_root_that_the_daemon_may_not_write_to(self, public_clinic: Clinic) -> None:
        public_clinic.root.mkdir(0o755)
        assert_critical(public_clinic.found("backup-root"), "Permission denied", "(as nobody)", "chown nobody:")
        os.chown(public_clinic.root, NOBODY, NOBODY)
        assert_ok(public_clinic.found("backup-root"), "nobody can write, sync and rename in it")
        assert list(public_clinic.root.iterdir()) == []

    @as_root
    def test_a_root_that_cannot_be_made(self, public_clinic: Clinic) -> None:
        os.chown(public_clinic.folder, 0, 0)
        assert_critical(
            public_clinic.found("backup-root"),
            "no such folder",
            f"install -d -o nobody -g nobody -m 0750 {public_clinic.root}",
        )
        assert_critical(public_clinic.found("state-folder"), "no such folder", "install -d")

    def test_a_root_that_is_a_file(self, clinic: Clinic) -> None:
        clinic.root.write_text("", encoding="utf-8")
        assert_critical(clinic.found("backup-root"), "Not a directory")

    @as_root
    def test_a_state_folder_with_files_of_root(self, public_clinic: Clinic) -> None:
        public_clinic.backup_as_owner()
        stranger = public_clinic.state / "catalog.db"
        os.chown(stranger, 0, 0)
        found = public_clinic.examined()
        assert_critical(
            found["state-folder"], "nobody cannot write to catalog.db", f"chown -R nobody: {public_clinic.state}"
        )
        assert_critical(found["catalog"], str(stranger))

    def test_a_state_folder_that_anybody_may_change(self, clinic: Clinic) -> None:
        clinic.state.mkdir()
        clinic.state.chmod(0o777)
        assert_critical(clinic.found("state-folder"), "any user of this host", f"chmod 0700 {clinic.state}")

    def test_a_damaged_catalog(self, clinic: Clinic) -> None:
        clinic.backup()
        (clinic.state / "catalog.db").write_bytes(b"garbage" * 1000)
        found = clinic.examined()
        assert_critical(found["catalog"], "not a database", "restart the daemon")
        assert "last-run" not in found, "what needs the catalog is not told of twice"

    @as_root
    def test_an_audit_log_that_cannot_be_written(self, public_clinic: Clinic) -> None:
        log = public_clinic.folder / "backup.log"
        assert_ok(public_clinic.found("audit-log"), str(log))
        log.write_text("", encoding="utf-8")
        assert_warning(public_clinic.found("audit-log"), "nobody cannot write to it", f"chown nobody: {log.parent}")
        log.unlink()
        os.chown(public_clinic.folder, 0, 0)
        assert_warning(public_clinic.found("audit-log"), "nobody cannot write to it")
        text = public_clinic.config.read_text(encoding="utf-8")
        public_clinic.config.write_text(text.replace(f'"{log}"', f'"{log.parent}/log/x.log"'), encoding="utf-8")
        assert_warning(
            public_clinic.found("audit-log"),
            "nobody cannot make it",
            f"install -d -o nobody -g nobody -m 0750 {log.parent}/log",
        )


class TestBackups:
    def test_none_yet(self, clinic: Clinic) -> None:
        found = clinic.examined()
        assert_warning(found["last-run"], "no run yet", "scpln-backup backup")
        assert_warning(found["artifacts"], "none yet", "scpln-backup backup")
        assert_warning(found["drill"], "ever rehearsed", "scpln-backup drill")

    def test_good_ones(self, clinic: Clinic) -> None:
        name = clinic.backup()["artifact"]
        clinic.json("drill")
        found = clinic.examined()
        assert_ok(found["last-run"], "success in")
        assert_ok(found["artifacts"], name, "1 in all")
        assert_ok(found["drill"], "success", "a restore took")
        assert_ok(found["restore-room"], str(clinic.source.parent))
        assert_ok(found["room-tonight"], "a run needs 17 MiB")
        assert_ok(found["schedule"], "02:30 JST")
        assert_ok(found["retention"], "30 days")

    def test_a_run_that_failed(self, clinic: Clinic) -> None:
        clinic.source.write_bytes(b"")
        assert clinic.run("backup").returncode == 1
        assert_critical(clinic.found("last-run"), "failed", "empty", "scpln-backup backup")
        assert_warning(clinic.found("retention"), "nothing is swept", "the last run failed")

    def test_a_run_that_was_broken_off(self, clinic: Clinic) -> None:
        app = clinic.app()
        app.catalog.begin_run(Trigger.CLI, app.now())
        assert_critical(clinic.found("last-run"), "broken off", "scpln-backup backup")

    def test_artifacts_of_all_states(self, clinic: Clinic) -> None:
        old = clinic.legacy("scpln-20250101_0230.db.gz", days_old=3)
        found = clinic.found("artifacts")
        assert_critical(found, "none is verified", "1 of 1 never verified", "scpln-backup verify --all")
        newest = clinic.backup()["artifact"]
        assert_warning(clinic.found("artifacts"), "1 of 2 never verified")
        old.unlink()
        (path,) = clinic.root.rglob(newest)
        path.write_bytes(path.read_bytes()[:-1])
        assert_critical(clinic.found("artifacts"), "1 of 1 corrupt", "none is verified")

    def test_the_newest_is_too_old(self, clinic: Clinic) -> None:
        clinic.backup()
        (manifest,) = clinic.root.rglob("*.json")
        text = json.loads(manifest.read_text(encoding="utf-8"))
        text["taken_at"] = "2026-01-01T02:30:00+09:00"
        manifest.write_text(json.dumps(text), encoding="utf-8")
        assert_critical(clinic.found("artifacts"), "more than 24 hours", "journalctl")

    @as_root
    def test_artifacts_that_the_daemon_cannot_read_or_delete(self, public_clinic: Clinic) -> None:
        public_clinic.backup_as_owner()
        (path,) = public_clinic.root.rglob("*.db.gz")
        os.chown(path, 0, 0)
        os.chown(path.parent, 0, 0)
        path.parent.chmod(0o755)
        finding = public_clinic.found("artifacts")
        assert_warning(
            finding, "nobody cannot read 1 of them", f"cannot delete what is in {path.parent}", "chown -R nobody:"
        )

    def test_the_disk_that_held_them_is_gone(self, clinic: Clinic) -> None:
        clinic.backup()
        clinic.root.rename(clinic.folder / "elsewhere")
        clinic.root.mkdir()
        assert_critical(clinic.found("backup-mount"), "none of the 1 artifacts", "mount its disk", "scpln-backup sweep")

    def test_rules_that_keep_nothing_to_speak_of(self, clinic: Clinic) -> None:
        clinic.configure("retention", keep_verified=0)
        assert_warning(clinic.found("retention"), "keep_verified = 0", "keep_verified to 7")

    def test_rules_that_keep_only_the_newest(self, clinic: Clinic) -> None:
        clinic.configure("retention", keep_verified=1, days=1)
        assert_warning(clinic.found("retention"), "days = 1 keeps only the newest")

    def test_a_schedule_that_the_alarm_does_not_wait_for(self, clinic: Clinic) -> None:
        clinic.configure("schedule", backup="30 2 * * 1-5")
        assert_warning(clinic.found("schedule"), "none for 3 d", "24 hours", "overdue_hours")
        clinic.configure("pagerduty", overdue_hours=72)
        assert_ok(clinic.found("schedule"))

    def test_a_drill_that_failed(self, clinic: Clinic) -> None:
        clinic.configure("drill", timeout_seconds=10)
        text = clinic.config.read_text(encoding="utf-8").replace('command = ["true"]', 'command = ["false"]')
        clinic.config.write_text(text, encoding="utf-8")
        clinic.backup()
        assert clinic.run("drill").returncode == 1
        assert_warning(clinic.found("drill"), "failed", "exit code 1", "scpln-backup drill")

    def test_a_restore_that_was_broken_off(self, clinic: Clinic) -> None:
        assert_ok(clinic.found("unfinished-restore"))
        clinic.backup()
        journal = '{"phase": 2, "record": {"started_at": "2026-11-22T09:00:00+09:00", "artifact": "a", "target": "t"}, '
        journal += '"target": "t", "staging": "s", "set_aside": "x", "units": []}'
        (clinic.state / "restore.json").write_text(journal, encoding="utf-8")
        assert_critical(clinic.found("unfinished-restore"), "2026-11-22 09:00", "--resume", "--abort")
        (clinic.state / "restore.json").write_text("{", encoding="utf-8")
        assert_warning(clinic.found("unfinished-restore"), "could not be checked", "changed by hand")


class TestOldCronJob:
    LINE = "30 2 * * * scpln /opt/scpln/scripts/backup_database.sh >> /var/log/scpln/backup.log 2>&1\n"

    def test_one_that_still_runs(self, tmp_path: Path) -> None:
        folder = tmp_path / "cron.d"
        folder.mkdir()
        (folder / "scpln-backup").write_text(f"# nightly\n{self.LINE}", encoding="utf-8")
        (folder / "other").write_text("0 0 * * * root true\n", encoding="utf-8")
        calling, closed = backups.crontabs([tmp_path / "none", folder])
        assert (calling, closed) == ([folder / "scpln-backup"], [])
        verdict = backups.judge_cron(calling, closed)
        assert verdict.grade is Grade.WARNING
        assert str(folder / "scpln-backup") in verdict.detail

    def test_what_cron_does_not_run(self, tmp_path: Path) -> None:
        (tmp_path / "scpln-backup").write_text(f"#{self.LINE}", encoding="utf-8")
        (tmp_path / "scpln-backup.dpkg-old").write_text(self.LINE, encoding="utf-8")
        assert backups.crontabs([tmp_path]) == ([], [])

    def test_a_users_own_crontab(self, tmp_path: Path) -> None:
        table = tmp_path / "crontab"
        table.write_text(f"MAILTO=sre\n{self.LINE}", encoding="utf-8")
        assert backups.crontabs([table]) == ([table], [])


class TestCommands:
    @pytest.mark.parametrize(
        ("command", "words"),
        [
            (["no-such-program-here"], ("no-such-program-here is not installed",)),
            (["make", "smoke-test"], ("has no Makefile",)),
            (["scripts/smoke.sh"], ("scripts/smoke.sh is not there",)),
            (["./data/scpln.db"], ("scpln.db cannot be executed",)),
            (["python3", "scripts/smoke.py"], ("scripts/smoke.py is not there",)),
        ],
    )
    def test_a_smoke_test_that_could_not_start(
        self, clinic: Clinic, command: list[str], words: tuple[str, ...]
    ) -> None:
        clinic.env_file.chmod(0o600)
        text = clinic.config.read_text(encoding="utf-8")
        clinic.config.write_text(
            text.replace('command = ["true"]', f"command = {json.dumps(command)}"), encoding="utf-8"
        )
        path = {"PATH": os.environ["PATH"]}
        assert_warning(clinic.found("drill-command", environ=path), *words, "[drill]")

    def test_one_that_can(self, clinic: Clinic) -> None:
        assert_ok(clinic.found("drill-command", environ={"PATH": os.environ["PATH"]}), "true, in")
        (clinic.folder / "Makefile").write_text("smoke-test:\n", encoding="utf-8")
        text = clinic.config.read_text(encoding="utf-8").replace('["true"]', '["make", "smoke-test"]')
        clinic.config.write_text(text, encoding="utf-8")
        assert_ok(clinic.found("drill-command", environ={"PATH": os.environ["PATH"]}), "make smoke-test")

    def test_a_folder_that_is_gone(self, clinic: Clinic) -> None:
        text = clinic.config.read_text(encoding="utf-8")
        clinic.config.write_text(
            text.replace(f'directory = "{clinic.folder}"', 'directory = "/nonexistent"'), encoding="utf-8"
        )
        assert_warning(clinic.found("drill-command"), "/nonexistent is no folder")

    def test_none_at_all(self, clinic: Clinic) -> None:
        text = clinic.config.read_text(encoding="utf-8")
        clinic.config.write_text(text.replace('command = ["true"]', "command = []"), encoding="utf-8")
        found = clinic.examined()
        assert_warning(found["drill-command"], "none is configured", "[drill] command")
        assert_ok(found["rebuild-command"], "none is configured")

    def test_units_where_systemd_does_not_run(self, clinic: Clinic) -> None:
        assert_ok(clinic.found("restore-units"), "stops nothing")
        text = clinic.config.read_text(encoding="utf-8").replace("units = []", 'units = ["scpln-api.service"]')
        clinic.config.write_text(text, encoding="utf-8")
        assert_warning(clinic.found("restore-units"), "scpln-api.service", "units = []")


class TestDaemon:
    def test_none(self, clinic: Clinic) -> None:
        found = clinic.examined()
        assert_critical(found["daemon"], "not running", "scpln-backup serve")
        assert "config-in-force" not in found

    def test_one_that_works_with_what_is_on_disk(self, clinic: Clinic) -> None:
        port = free_port()
        listening(clinic, port)
        with DaemonProcess(clinic) as daemon:
            found = clinic.examined()
            assert_ok(found["daemon"], f"version {__version__}")
            assert_ok(found["config-in-force"])
            assert_ok(found["web-port"], "the daemon answers")
            clinic.configure("retention", days=3)
            assert_warning(clinic.found("config-in-force"), "[retention] days", "systemctl reload scpln-backup.service")
            daemon.send(signal.SIGHUP)
            daemon.wait_for("configuration reloaded")
            assert_ok(clinic.found("config-in-force"))
            listening(clinic, free_port())
            found = clinic.examined()
            assert_warning(found["config-in-force"], "[web] listen", "systemctl restart scpln-backup.service")
            assert_critical(found["web-port"], "does not answer there", "restart the daemon")

    def test_a_port_that_somebody_has(self, clinic: Clinic) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            listening(clinic, port)

            def take_and_close() -> None:
                connection, _ = server.accept()
                connection.close()

            hang_up = threading.Thread(target=take_and_close)
            hang_up.start()
            assert_critical(clinic.found("web-port"), "Address already in use", f"sport = :{port}")
            hang_up.join()
        assert_ok(clinic.found("web-port"), "is free")

    def test_an_address_of_another_host(self, clinic: Clinic) -> None:
        listening(clinic, 9817, host="192.0.2.1")
        assert_critical(clinic.found("web-port"), "192.0.2.1:9817", "the daemon would not start")

    def test_another_environments_daemon_on_the_port(
        self, clinic: Clinic, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        other = Clinic(tmp_path_factory.mktemp("other"))
        port = free_port()
        listening(other, port)
        text = other.config.read_text(encoding="utf-8").replace('environment = "test"', 'environment = "staging"')
        other.config.write_text(text, encoding="utf-8")
        listening(clinic, port)
        with DaemonProcess(other):
            assert_critical(clinic.found("web-port"), "the daemon of scpln in staging is there")

    def test_a_backup_in_the_foreground_is_no_daemon(self, clinic: Clinic) -> None:
        with clinic.app().foreground_lock:
            assert_critical(clinic.found("daemon"), "not running")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def listening(clinic: Clinic, port: int, host: str = "127.0.0.1") -> None:
    lines = clinic.config.read_text(encoding="utf-8").splitlines()
    changed = [f'listen = "{host}:{port}"' if line.startswith("listen = ") else line for line in lines]
    clinic.config.write_text("\n".join(changed) + "\n", encoding="utf-8")
