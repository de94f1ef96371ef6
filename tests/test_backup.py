"""A backup from the command line, on the real database, with the real program."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from scpln_backup.support.locks import Lock
from support.place import Place, rows


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def delete_most_rows(source: Path) -> None:
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("DELETE FROM plan_series")
        connection.execute("DELETE FROM plan_artifacts")
        connection.commit()


def test_the_document_tells_the_whole_run(place: Place) -> None:
    document = place.backup()
    artifact = place.root / document["artifact"][6:10] / document["artifact"]
    assert document["outcome"] == "success"
    assert document["trigger"] == "cli"
    assert document["error"] is None
    assert document["raw_bytes"] == place.source.stat().st_size
    assert document["artifact_bytes"] == artifact.stat().st_size
    assert document["duration_seconds"] > 0
    assert 0 <= document["writer_blocked_seconds"] < document["duration_seconds"]
    checked = subprocess.run(["sha256sum", artifact], capture_output=True, text=True, check=True)
    assert checked.stdout.split()[0] == document["sha256"]


def test_an_artifact_needs_nothing_but_stock_tools(place: Place) -> None:
    document = place.backup()
    folder = place.root / document["artifact"][6:10]
    subprocess.run(["sha256sum", "--check", document["artifact"] + ".sha256"], cwd=folder, check=True)
    restored = subprocess.run(["gunzip", "-c", folder / document["artifact"]], capture_output=True, check=True)
    assert restored.stdout == place.source.read_bytes()


def test_files_are_private(place: Place) -> None:
    place.backup()
    modes = {path: path.stat().st_mode & 0o777 for path in (place.root, *place.root.rglob("*"))}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert list((place.root / ".staging").iterdir()) == []


def test_zstd_by_choice(place: Place) -> None:
    place.configure("backup", compression="zstd")
    document = place.backup()
    assert document["artifact"].endswith(".db.zst")
    path = place.listed()[0]["path"]
    restored = subprocess.run(["zstd", "-dc", path], capture_output=True, check=True)
    assert restored.stdout == place.source.read_bytes()
    assert place.json("verify")[0]["ok"]


@pytest.mark.parametrize("preset", ["fast", "small"])
def test_presets(place: Place, preset: str) -> None:
    place.configure("backup", preset=preset)
    place.backup()
    assert place.json("verify")[0]["ok"]


def test_two_in_one_minute_are_two_artifacts(place: Place) -> None:
    names = [place.backup()["artifact"] for _ in range(3)]
    assert len(set(names)) == 3
    assert {artifact["name"] for artifact in place.listed()} == set(names)
    assert all(result["ok"] for result in place.json("verify", "--all"))


def test_progress_and_words_stay_out_of_the_document(place: Place) -> None:
    done = place.run("backup", "--json")
    json.loads(done.stdout)
    assert done.stderr == ""
    assert place.run("--json", "list").stdout == place.run("list", "--json").stdout


def test_the_source_is_left_as_it_was(place: Place) -> None:
    before = (place.source.read_bytes(), place.source.stat().st_mtime_ns, place.source.stat().st_mode)
    place.backup()
    assert (place.source.read_bytes(), place.source.stat().st_mtime_ns, place.source.stat().st_mode) == before
    assert [path.name for path in place.source.parent.iterdir()] == ["scpln.db"]


def test_a_link_to_the_database_is_followed(place: Place) -> None:
    real = place.folder / "elsewhere" / "real.db"
    real.parent.mkdir()
    shutil.move(place.source, real)
    place.source.symlink_to(real)
    assert place.backup()["raw_bytes"] == real.stat().st_size


class TestFailedRun:
    def fails(self, place: Place, *words: str) -> None:
        document = place.json("backup", code=1)
        assert document["outcome"] == "failed"
        assert document["artifact"] is None
        assert "\n" not in document["error"]
        for word in (str(place.source), *words):
            assert word in document["error"]
        done = place.run("status", "--json")
        assert done.returncode == 2
        assert document["error"] in json.loads(done.stdout)["reasons"][0]

    def test_leaves_the_old_artifacts_alone(self, place: Place) -> None:
        place.backup()
        before = {path: path.read_bytes() for path in place.root.rglob("*") if path.is_file()}
        place.source.unlink()
        self.fails(place, "no such database")
        assert {path: path.read_bytes() for path in place.root.rglob("*") if path.is_file()} == before
        assert place.listed()[0]["state"] == "verified"

    def test_empty(self, place: Place) -> None:
        place.source.write_bytes(b"")
        self.fails(place, "empty")

    def test_not_a_database(self, place: Place) -> None:
        place.source.write_text("id,name\n1,a\n" * 1000, encoding="utf-8")
        self.fails(place, "not a SQLite database")

    def test_encrypted(self, place: Place) -> None:
        place.source.write_bytes(os.urandom(65536))
        self.fails(place, "encrypted")

    def test_truncated(self, place: Place) -> None:
        os.truncate(place.source, 500_000)
        self.fails(place, "truncated", "248 pages")

    def test_corrupted(self, place: Place) -> None:
        with place.source.open("r+b") as file:
            file.seek(100 * 4096)
            file.write(os.urandom(3 * 4096))
        self.fails(place, "integrity_check")

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give the database to another user")
    def test_another_user(self, place: Place) -> None:
        os.chown(place.source, 4321, 4321)
        self.fails(place, "sudo -u #4321")

    def test_no_room(self, place: Place) -> None:
        # Sparse: it takes no room itself, and its copy would take more than any disk has.
        with place.source.open("r+b") as file:
            file.truncate(1 << 43)
        document = place.json("backup", code=1)
        assert "need 12" in document["error"]
        assert str(place.root) in document["error"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")
    def test_what_is_past_its_time_makes_room(self, place: Place) -> None:
        place.root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", place.root], check=True)
        try:
            old = place.legacy("scpln-20250101_0230.db.gz", days_old=400, content=os.urandom(15 << 20))
            place.legacy("scpln-20250102_0230.db.gz", days_old=1)
            assert place.backup()["outcome"] == "success"
            assert not old.exists()
        finally:
            subprocess.run(["umount", place.root], check=True)

    def test_the_next_good_run_is_a_success(self, place: Place) -> None:
        saved = place.source.read_bytes()
        place.source.unlink()
        self.fails(place, "no such database")
        place.source.write_bytes(saved)
        assert place.backup()["outcome"] == "success"
        assert place.json("status")["health"] == "healthy"


class TestSuspect:
    def test_a_shrunk_database_is_kept_apart(self, place: Place) -> None:
        good = place.backup()["artifact"]
        delete_most_rows(place.source)
        document = place.json("backup", code=1)
        assert document["outcome"] == "suspect"
        assert "rows fell" in document["error"]
        states = {artifact["name"]: artifact["state"] for artifact in place.listed()}
        assert states == {good: "verified", document["artifact"]: "suspect"}
        assert rows(place.source)["plan_series"] == 0
        status = place.json("status", code=1)
        assert status["health"] == "warning"
        assert status["retention_frozen"]

    def test_it_freezes_retention(self, place: Place) -> None:
        place.backup()
        old = place.legacy("scpln-20250101_0230.db.gz", days_old=400)
        delete_most_rows(place.source)
        place.json("backup", code=1)
        assert old.exists()
        verdicts = place.json("sweep", code=1)
        assert {verdict["action"] for verdict in verdicts} == {"keep"}
        assert old.exists()

    def test_an_operator_accepts_it(self, place: Place) -> None:
        place.backup()
        place.backup()
        delete_most_rows(place.source)
        name = place.json("backup", code=1)["artifact"]
        assert place.json("verify", name)[0]["state"] == "suspect"
        assert place.json("verify", name, "--accept-shrink")[0]["state"] == "verified"
        assert place.backup()["outcome"] == "success"


class TestLock:
    def test_a_second_backup_is_told_who_holds_the_lock(self, place: Place) -> None:
        place.state.mkdir(mode=0o700)
        with Lock(place.state / "daemon.lock", "the backup daemon"):
            done = place.run("backup", "--json")
        assert done.returncode == 75
        assert f"process {os.getpid()}" in done.stderr
        assert "the backup daemon" in json.loads(done.stdout)["error"]
        assert place.listed() == []

    def test_verbs_that_change_artifacts_wait_for_no_run(self, place: Place) -> None:
        name = place.backup()["artifact"]
        with Lock(place.state / "run.lock", "a backup (schedule)"):
            for verb in (["verify"], ["sweep"], ["pin", name], ["unpin", name], ["backup"]):
                done = place.run(*verb)
                assert done.returncode == 75, verb
                assert "a backup (schedule)" in done.stderr
            assert place.run("list").returncode == 0
            assert place.run("status").returncode == 0


def test_sigterm_gives_the_run_up(place: Place) -> None:
    place.configure("backup", source_wait_seconds=600)
    with closing(sqlite3.connect(place.source, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        process = subprocess.Popen(
            place.command("backup", "--json"), env=place.environment(), stdout=subprocess.PIPE, text=True
        )
        # The copy is there once the worker has begun; from then on it waits for the lock.
        copy = place.root / ".staging" / "copy.db"
        while not copy.exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(output)["outcome"] == "failed"
    assert list((place.root / ".staging").iterdir()) == []
    assert place.listed() == []
    assert place.json("status", code=2)["last_run"]["interrupted"]


def test_a_lost_catalog_comes_back_from_the_manifests(place: Place) -> None:
    first = place.backup()
    second = place.backup()
    (place.state / "catalog.db").unlink()
    assert place.json("verify")[0]["name"] == second["artifact"]
    status = place.json("status")
    assert status["last_artifact"] == second["artifact"]
    assert status["artifacts"]["verified"] == 2
    assert status["last_run"]["sha256"] == second["sha256"]
    assert first["artifact"] in {artifact["name"] for artifact in place.listed()}


def test_a_catalog_that_cannot_be_written_costs_the_success_only(place: Place) -> None:
    place.backup()
    with closing(sqlite3.connect(place.state / "catalog.db", isolation_level=None)) as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON runs BEGIN SELECT raise(ABORT, 'no room'); END")
    document = place.json("backup", code=1)
    assert document["outcome"] == "degraded"
    assert "no room" in document["error"]
    assert place.json("verify", document["artifact"])[0]["ok"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give the folders to another user")
def test_somebody_elses_folders_are_not_written_to(place: Place) -> None:
    place.backup()
    for folder in (place.state, place.root):
        os.chown(folder, 4321, 4321)
        done = place.run("backup")
        os.chown(folder, 0, 0)
        assert done.returncode == 1
        assert f"{folder}: belongs to user #4321" in done.stderr
    assert len(place.listed()) == 1
