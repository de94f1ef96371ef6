"""The verbs besides `backup`, as an operator and a script use them."""

import gzip
import json
import os
import random
import re
import subprocess
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import jsonschema
import pytest

from scpln_backup.app import App
from scpln_backup.config.load import load
from scpln_backup.operations import verify
from scpln_backup.records.catalog import Catalog
from scpln_backup.rules.clock import ClockReading
from scpln_backup.support.clock import read_clock
from support.place import COMMAND, Place

KEYS = {
    "backup": "outcome trigger artifact raw_bytes artifact_bytes sha256 duration_seconds writer_blocked_seconds error",
    "list": "name path taken_at bytes raw_bytes state pinned stores",
    "verify": "name ok error",
    "sweep": "name action reason",
    "status": "health reasons last_success_at next_run_at overdue artifacts restore_seconds_measured",
    "schedule": "job at",
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("verb", KEYS)
def test_every_document_has_the_contracts_keys(place: Place, verb: str) -> None:
    document = place.backup()
    if verb != "backup":
        document = place.json(verb)
    entry = document[0] if isinstance(document, list) else document
    assert set(KEYS[verb].split()) <= set(entry)


def test_a_reason_is_shown_as_it_is(place: Place) -> None:
    """Brackets are no markup: the reasons of other programs and of the configuration hold them."""
    made = place.backup()
    (manifest,) = place.root.rglob("*.json")
    reason = "[backup] preset was refused [bold]"
    changed = json.loads(manifest.read_text()) | {"state": "corrupt", "state_reason": reason}
    manifest.write_text(json.dumps(changed))
    listed = place.run("list").stdout
    assert made["artifact"] in listed
    assert reason in listed


@pytest.mark.parametrize("verb", ["status", "list"])
def test_colours_are_for_a_terminal_that_wants_them(place: Place, verb: str) -> None:
    place.backup()

    def shown(**env: str) -> bytes:
        ours, theirs = os.openpty()
        try:
            environment = os.environ | {"TERM": "xterm-256color", "NO_COLOR": "", **env}
            subprocess.run([COMMAND, "-c", place.config, verb], stdout=theirs, env=environment, check=True)
            return os.read(ours, 65536)
        finally:
            os.close(ours)
            os.close(theirs)

    assert b"\x1b[32m" in shown()
    assert b"\x1b[32m" not in shown(NO_COLOR="1")
    assert b"\x1b" not in place.run(verb).stdout.encode()


class TestErrors:
    """Bad input gets one clear line and exit code 2; with --json, one document as well."""

    @pytest.mark.parametrize(
        "arguments", [["frobnicate"], ["list", "--frob"], ["schedule", "--from", "yesterday"], ["pin"], []]
    )
    def test_usage(self, place: Place, arguments: list[str]) -> None:
        done = place.run(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr

    def test_a_missing_configuration(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [COMMAND, "-c", tmp_path / "none.toml", "list", "--json"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert "config init" in json.loads(done.stdout)["error"]
        assert done.stderr.count("\n") == 1

    def test_an_unknown_key(self, place: Place) -> None:
        place.configure("backup", rot="/x")
        done = place.run("backup")
        assert done.returncode == 2
        assert 'did you mean "root"' in done.stderr

    def test_an_unknown_artifact(self, place: Place) -> None:
        for verb in ("verify", "pin", "unpin"):
            done = place.run(verb, "scpln-20250101_0230.db.gz")
            assert done.returncode == 1
            assert "scpln-backup list" in done.stderr

    def test_another_backend(self, place: Place) -> None:
        done = place.run("backup", env={"REGISTRY_BACKEND": "file"})
        assert done.returncode == 2
        assert "REGISTRY_BACKEND" in done.stderr

    def test_the_environment_wins(self, place: Place) -> None:
        done = place.run("backup", env={"SCPLN_DB": "/nonexistent/other.db"})
        assert done.returncode == 1
        assert "/nonexistent/other.db" in done.stderr

    def test_output_that_nobody_reads(self, place: Place) -> None:
        place.backup()
        with subprocess.Popen(["true"], stdin=subprocess.PIPE) as reader:
            reader.wait()
            assert reader.stdin is not None
            done = subprocess.run(
                place.command("config", "schema"), stdout=reader.stdin, stderr=subprocess.PIPE, check=False
            )
        assert done.stderr == b""


class TestVerify:
    def test_every_changed_byte_is_noticed(self, place: Place) -> None:
        """A thousand random flips, through the same steps as the command's."""
        name = place.backup()["artifact"]
        house = App.build(load(place.config, {})).house
        artifact = house.store.get(name)
        path = Path(artifact.path)
        good = path.read_bytes()
        choose = random.Random(20251017)
        for _ in range(1000):
            bad = bytearray(good)
            at = choose.randrange(len(bad))
            bad[at] ^= 1 << choose.randrange(8)
            path.write_bytes(bad)
            result = verify.verify(house, artifact)
            assert not result.ok, at
        path.write_bytes(good)
        assert verify.verify(house, artifact).ok

    def test_a_bad_artifact_is_called_corrupt(self, place: Place) -> None:
        name = place.backup()["artifact"]
        path = Path(place.listed()[0]["path"])
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
        result = place.json("verify", name, code=1)[0]
        assert not result["ok"]
        assert result["error"]
        assert place.listed()[0]["state"] == "corrupt"
        assert place.json("status", code=2)["health"] == "critical"

    def test_one_that_lost_its_end(self, place: Place) -> None:
        place.backup()
        os.truncate(place.listed()[0]["path"], 20_000)
        assert place.listed()[0]["state"] == "corrupt"
        place.json("verify", code=1)

    def test_what_the_old_procedure_left(self, place: Place) -> None:
        place.legacy("scpln-20251005_0230.db.gz", days_old=3)
        artifact = place.listed()[0]
        assert artifact["state"] == "unverified"
        assert artifact["taken_at"] == "2025-10-05T02:30:00+09:00"
        assert artifact["raw_bytes"] is None
        assert place.json("verify")[0] == {
            "name": "scpln-20251005_0230.db.gz",
            "ok": True,
            "error": None,
            "state": "verified",
        }
        artifact = place.listed()[0]
        assert artifact["state"] == "verified"
        assert artifact["raw_bytes"] == place.source.stat().st_size

    def test_a_bad_one_of_the_old_procedures(self, place: Place) -> None:
        place.legacy("scpln-20251005_0230.db.gz", days_old=3, content=b"no database")
        result = place.json("verify", code=1)[0]
        assert not result["ok"]
        assert place.listed()[0]["state"] == "corrupt"

    def test_nothing_to_verify(self, place: Place) -> None:
        assert place.json("verify") == []


class TestSweep:
    def selected_by_find(self, place: Place) -> set[str]:
        found = subprocess.run(
            ["find", place.root, "-type", "f", "-mtime", "+30", "-name", "scpln-*.db.gz"],
            capture_output=True,
            text=True,
            check=True,
        )
        return {Path(line).name for line in found.stdout.splitlines()}

    def tree(self, place: Place) -> None:
        for day in range(25, 40):
            place.legacy(f"scpln-202510{day - 10:02}_0230.db.gz", days_old=day + 0.5)
        place.legacy("other-20250101_0230.db.gz", days_old=400)
        (place.root / "2025" / "notes.txt").write_text("mine", encoding="utf-8")
        (place.root / "2025" / "scpln-20250101_0230.db.gz").symlink_to("notes.txt")

    def test_it_takes_what_the_old_find_took(self, place: Place) -> None:
        self.tree(place)
        expected = self.selected_by_find(place)
        verdicts = place.json("sweep", "--dry-run")
        assert {verdict["name"] for verdict in verdicts if verdict["action"] == "delete"} == expected
        assert len(expected) == 9
        assert self.selected_by_find(place) == expected
        place.json("sweep")
        assert self.selected_by_find(place) == set()
        assert len(place.listed()) == 6
        assert (place.root / "2025" / "other-20250101_0230.db.gz").exists()
        assert (place.root / "2025" / "notes.txt").exists()

    def test_it_follows_a_good_run(self, place: Place) -> None:
        old = place.legacy("scpln-20250101_0230.db.gz", days_old=31.5)
        young = place.legacy("scpln-20250102_0230.db.gz", days_old=30.5)
        place.backup()
        assert not old.exists()
        assert young.exists()

    def test_the_newest_verified_stay_whatever_their_age(self, place: Place) -> None:
        place.configure("retention", keep_verified=2)
        for _ in range(3):
            place.backup()
        for artifact in place.listed():
            Place.age(Path(artifact["path"]), 100)
        newest = [artifact["name"] for artifact in place.listed()][:2]
        place.json("sweep")
        assert [artifact["name"] for artifact in place.listed()] == newest

    def test_pins(self, place: Place) -> None:
        place.configure("retention", keep_verified=0)
        place.legacy("scpln-20250101_0230.db.gz", days_old=400)
        place.run("pin", "scpln-20250101_0230.db.gz")
        assert place.listed()[0]["pinned"]
        place.backup()
        assert len(place.listed()) == 2
        place.run("unpin", "scpln-20250101_0230.db.gz")
        place.json("sweep")
        assert len(place.listed()) == 1

    def test_the_last_artifacts_are_not_for_sweeping(self, place: Place) -> None:
        place.legacy("scpln-20250101_0230.db.gz", days_old=400)
        done = place.run("sweep")
        assert done.returncode == 1
        assert "none would remain" in done.stderr
        assert len(place.listed()) == 1

    def test_nothing_after_a_failed_run(self, place: Place) -> None:
        place.legacy("scpln-20250101_0230.db.gz", days_old=400)
        place.legacy("scpln-20250102_0230.db.gz", days_old=1)
        saved = place.source.read_bytes()
        place.source.unlink()
        place.json("backup", code=1)
        assert len(place.listed()) == 2
        done = place.run("sweep")
        assert done.returncode == 1
        assert "the last run failed" in done.stderr
        assert len(place.listed()) == 2
        place.source.write_bytes(saved)
        place.backup()
        assert len(place.listed()) == 2

    def test_an_operator_may_sweep_despite_a_failure(self, place: Place) -> None:
        old = place.legacy("scpln-20250101_0230.db.gz", days_old=400)
        place.legacy("scpln-20250102_0230.db.gz", days_old=1)
        place.source.unlink()
        place.json("backup", code=1)
        place.json("sweep", "--despite-failure")
        assert not old.exists()

    def test_nothing_when_the_clock_jumped(self, place: Place) -> None:
        place.backup()
        catalog = Catalog(place.state / "catalog.db", ZoneInfo("Asia/Tokyo"))
        now = ClockReading(*read_clock())
        catalog.set_clock(ClockReading(now.wall - 40 * 86400, now.boot, now.boot_id))
        place.legacy("scpln-20250101_0230.db.gz", days_old=400)
        document = place.json("backup", code=1)
        assert document["outcome"] == "degraded"
        assert "the clock jumped forward" in document["error"]
        assert len(place.listed()) == 3
        place.json("sweep", "--accept-clock")
        assert len(place.listed()) == 2

    def test_explained(self, place: Place) -> None:
        place.backup()
        place.legacy("scpln-20250101_0230.db.gz", days_old=400)
        output = place.run("sweep", "--dry-run", "--explain").stdout
        assert "400 days old, past 30" in output
        assert "0 days old, kept for 30" in output
        assert "1 artifact would be deleted, 1 kept" in output
        assert len(place.listed()) == 2


class TestStatus:
    def test_before_the_first_backup(self, place: Place) -> None:
        document = place.json("status", code=1)
        assert document["last_success_at"] is None
        assert not document["overdue"]
        assert not place.state.exists()  # looking makes nothing

    def test_healthy(self, place: Place) -> None:
        place.backup()
        document = place.json("status")
        assert document["health"] == "healthy"
        assert document["reasons"] == []
        assert datetime.fromisoformat(document["next_run_at"]).strftime("%H:%M:%S%z") == "02:30:00+0900"

    def test_overdue(self, place: Place) -> None:
        place.backup()
        done = subprocess.run(
            ["faketime", "-f", "+25h", *place.command("status", "--json")],
            env=place.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert json.loads(done.stdout)["overdue"]
        assert "no backup has succeeded since" in json.loads(done.stdout)["reasons"][0]


class TestSchedule:
    def test_the_coming_nights(self, place: Place) -> None:
        coming = place.json("schedule", "--from", "2026-11-22T02:30", "--count", "3")
        assert coming == [
            {"job": "drill", "at": "2026-11-22T04:00:00+09:00"},
            {"job": "backup", "at": "2026-11-23T02:30:00+09:00"},
            {"job": "backup", "at": "2026-11-24T02:30:00+09:00"},
        ]

    def test_spring_and_autumn(self, place: Place) -> None:
        text = place.config.read_text(encoding="utf-8").replace("Asia/Tokyo", "Europe/Berlin")
        place.config.write_text(text, encoding="utf-8")
        assert self.backups(place, "2026-03-28T12:00") == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
        assert self.backups(place, "2026-10-24T12:00") == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]

    @staticmethod
    def backups(place: Place, start: str) -> list[str]:
        coming = place.json("schedule", "--from", start, "--count", "3")
        return [entry["at"] for entry in coming if entry["job"] == "backup"]

    def test_sunday_is_seven_too(self, place: Place) -> None:
        for sunday in ("0", "7", "sun"):
            text = place.config.read_text(encoding="utf-8")
            place.configure("schedule", backup=f"30 2 * * {sunday}")
            coming = place.json("schedule", "--count", "10")
            at = next(entry["at"] for entry in coming if entry["job"] == "backup")
            assert datetime.fromisoformat(at).strftime("%A") == "Sunday"
            place.config.write_text(text, encoding="utf-8")


class TestConfig:
    def test_init_takes_over_an_env_file(self, tmp_path: Path) -> None:
        env = tmp_path / "opt" / ".env"
        env.parent.mkdir()
        env.write_text("export SCPLN_DB='data/scpln.db'\nREGISTRY_BACKEND=db\nSECRET_KEY=hunter2\n", encoding="utf-8")
        config = tmp_path / "etc" / "config.toml"
        command = [COMMAND, "-c", config, "config"]
        done = subprocess.run([*command, "init", "--from-env", env], capture_output=True, text=True, check=True)
        assert "SECRET_KEY" in done.stderr
        assert "hunter2" not in done.stderr + done.stdout + config.read_text(encoding="utf-8")
        assert str(env.parent / "data" / "scpln.db") in config.read_text(encoding="utf-8")
        assert re.search('^timezone = "[^"]+"', config.read_text(encoding="utf-8"), re.MULTILINE)
        assert config.stat().st_mode & 0o777 == 0o644
        assert config.parent.stat().st_mode & 0o777 == 0o755
        subprocess.run([*command, "check"], check=True, capture_output=True)
        again = subprocess.run([*command, "init"], capture_output=True, text=True, check=False)
        assert again.returncode == 2
        assert "--force" in again.stderr
        subprocess.run([*command, "init", "--force"], check=True, capture_output=True)
        assert (tmp_path / "etc" / "config.toml.old").exists()

    def test_one_more_environment_gets_folders_and_a_port_of_its_own(self, tmp_path: Path) -> None:
        for name in ("config", "staging", "test"):
            environment = [] if name == "config" else ["--environment", name]
            command = [COMMAND, "-c", tmp_path / f"{name}.toml", "config"]
            subprocess.run([*command, "init", *environment], check=True, capture_output=True)
            subprocess.run([*command, "check"], check=True, capture_output=True)
        first, staging, test = (load(tmp_path / f"{name}.toml", {}) for name in ("config", "staging", "test"))
        assert (first.environment, staging.environment, test.environment) == ("production", "staging", "test")
        assert len({each.web.address[1] for each in (first, staging, test)}) == 3
        folders = [(each.backup.root, each.state.directory, each.audit.log) for each in (first, staging, test)]
        assert len({folder for each in folders for folder in each}) == 9
        assert staging.database.path == "/opt/scpln-staging/data/scpln.db"
        # A restore of staging must never stop production's application.
        assert (staging.service.units, staging.service.health_url) == ((), "")

    def test_init_refuses_another_backend(self, tmp_path: Path) -> None:
        env = tmp_path / ".env"
        env.write_text("REGISTRY_BACKEND=file\n", encoding="utf-8")
        config = tmp_path / "config.toml"
        done = subprocess.run(
            [COMMAND, "-c", config, "config", "init", "--from-env", env], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert "REGISTRY_BACKEND" in done.stderr
        assert not config.exists()

    def test_check_names_a_schedule_that_never_fires(self, place: Place) -> None:
        place.configure("schedule", backup="30 2 30 2 *")
        done = place.run("config", "check")
        assert done.returncode == 2
        assert "schedule" in done.stderr

    def test_show_and_schema_agree(self, place: Place) -> None:
        shown = place.json("config", "show")
        schema = json.loads(place.run("config", "schema").stdout)
        jsonschema.validate(shown["config"], schema)
        assert shown["origins"]["backup.root"]["source"] == "file"
        assert shown["origins"]["retention.days"]["source"] == "default"


def test_gzip_of_python_reads_an_artifact_too(place: Place) -> None:
    place.backup()
    with gzip.open(place.listed()[0]["path"]) as file:
        assert file.read() == place.source.read_bytes()
