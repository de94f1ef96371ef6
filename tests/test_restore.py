"""`scpln-backup restore`, as an operator runs it: real processes on real files."""

import gzip
import json
import os
import pty
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scpln_backup.model import Manifest, State
from scpln_backup.operations.restore import journal as journals
from scpln_backup.operations.restore.journal import Phase
from support.databases import grow, names
from support.place import SAMPLE, Place
from support.restore_house import KINDS, RestoreHouse, RestorePlace, bytes_of_set, content, killed, make, sha256, xattrs

PATIENCE = 30.0
NOBODY = 65534
INSERT = "INSERT INTO configs (name, json_text, created_at, updated_at) VALUES ('new', '{}', 1, 1)"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to change owners and to mount")


@pytest.fixture
def place(tmp_path: Path) -> RestorePlace:
    return RestorePlace(tmp_path)


def state_of(place: RestorePlace) -> tuple[dict[str, Any], list[str], list[str]]:
    """What a restore that does nothing leaves as it is."""
    return bytes_of_set(place.source), names(place.source.parent), names(place.state)


def refused(place: RestorePlace, *arguments: str, code: int = 1) -> str:
    """The one line of a restore that is refused and changes nothing at all."""
    before = state_of(place)
    done = place.run("restore", *arguments)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert state_of(place) == before
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def artifact(place: RestorePlace, name: str) -> Path:
    (path,) = place.root.rglob(name)
    return path


def rewrite(place: RestorePlace, name: str, **changes: Any) -> None:
    path = artifact(place, f"{name}.json")
    manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, **changes)))


def raw(path: Path) -> bytes:
    """What the tool of the old procedure makes of an artifact."""
    tool = "gunzip" if path.suffix == ".gz" else "unzstd"
    return subprocess.run([tool, "-c", str(path)], capture_output=True, check=True).stdout


class TestDone:
    def test_the_latest(self, place: RestorePlace) -> None:
        place.backup()
        newest = place.backup()
        snapshot = raw(artifact(place, newest["artifact"]))
        place.write("DELETE FROM runs WHERE rowid % 2")
        old = bytes_of_set(place.source)
        document = place.json("restore", "--latest", "--yes")
        assert (document["outcome"], document["artifact"], document["replaced"]) == (
            "success",
            newest["artifact"],
            True,
        )
        assert place.source.read_bytes() == snapshot == SAMPLE.read_bytes()
        (aside,) = place.set_aside()
        assert document["set_aside"] == str(aside)
        assert bytes_of_set(aside / "scpln.db") == old
        assert document["lost_rows"] == {}
        assert document["incident"] == 1
        assert document["error"] is None
        steps = [step["name"] for step in document["steps"]]
        assert steps == [
            "decompress and check",
            f"set the old database aside in {aside}",
            "put the restored database in its place",
            "check it in its place",
        ]
        place.expect_nothing_left()
        assert place.backup()["outcome"] in {"success", "suspect"}

    def test_what_was_lost(self, place: RestorePlace) -> None:
        place.backup()
        for _ in range(3):
            place.write(INSERT)
        place.write("DELETE FROM plan_kpis WHERE rowid IN (SELECT rowid FROM plan_kpis LIMIT 2)")
        document = place.json("restore", "--yes")
        assert document["lost_rows"] == {"configs": 3}
        lost = {table["name"]: table for table in document["loss"]["tables"]}
        assert lost["configs"]["before"]["rows"] == lost["configs"]["after"]["rows"] + 3
        assert lost["plan_kpis"]["before"]["rows"] == lost["plan_kpis"]["after"]["rows"] - 2
        assert document["loss"]["problem"] is None

    def test_rows_that_were_only_in_the_wal_are_counted(self, place: RestorePlace) -> None:
        place.backup()
        killed(place.source, "PRAGMA journal_mode = WAL", "PRAGMA wal_autocheckpoint = 0", *[INSERT] * 4)
        old = bytes_of_set(place.source)
        document = place.json("restore", "--yes")
        assert document["lost_rows"] == {"configs": 4}
        assert place.source.read_bytes() == SAMPLE.read_bytes()
        (aside,) = place.set_aside()
        assert bytes_of_set(aside / "scpln.db") == old
        assert names(aside) == ["scpln.db", "scpln.db-shm", "scpln.db-wal"]
        assert names(place.source.parent) == ["scpln.db", aside.name]

    @pytest.mark.parametrize("kind", KINDS)
    def test_over_every_kind_of_old_database(self, place: RestorePlace, kind: str) -> None:
        place.backup()
        place.source.unlink()
        KINDS[kind](place.source)
        old = bytes_of_set(place.source)
        document = place.json("restore", "--yes")
        assert document["outcome"] == "success"
        assert place.source.read_bytes() == SAMPLE.read_bytes()
        assert not [name for name in names(place.source.parent) if name.startswith("scpln.db-")]
        if old:
            assert bytes_of_set(Path(document["set_aside"]) / "scpln.db") == old
        else:
            assert document["set_aside"] is None
        place.expect_nothing_left()

    def test_a_name_and_a_person_who_reads(self, place: RestorePlace) -> None:
        first = place.backup()["artifact"]
        place.write(INSERT)
        place.backup()
        done = place.run("restore", first, "--yes")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"restore of {first}: success" in done.stdout
        assert f"the old database is in {place.set_aside()[0]}" in done.stdout
        assert "incident 1 is open" in done.stdout
        assert place.source.read_bytes() == SAMPLE.read_bytes()

    def test_zstd(self, place: RestorePlace) -> None:
        place.configure("backup", compression="zstd")
        made = place.backup()
        assert made["artifact"].endswith(".zst")
        place.write("DELETE FROM plan_series")
        assert place.json("restore", "--yes")["outcome"] == "success"
        assert place.source.read_bytes() == SAMPLE.read_bytes()
        if shutil.which("unzstd"):
            assert raw(artifact(place, made["artifact"])) == SAMPLE.read_bytes()

    def test_an_artifact_of_the_old_procedure(self, place: RestorePlace) -> None:
        legacy = place.legacy("scpln-20250801_0230.db.gz", days_old=0)
        place.app()
        place.write("DELETE FROM plan_series")
        assert "never verified" in refused(place, legacy.name, "--yes")
        document = place.json("restore", legacy.name, "--yes", "--allow-unverified")
        assert document["outcome"] == "success"
        assert place.source.read_bytes() == raw(legacy)

    def test_two_in_one_minute_have_two_folders(self, place: RestorePlace) -> None:
        """Nothing of what the first has set aside goes by the second."""
        place.backup()
        contents = []
        for number in range(3):
            place.write("DELETE FROM plan_series WHERE rowid = (SELECT min(rowid) + ? FROM plan_series)", number)
            contents.append(content(place.source))
            assert place.json("restore", "--yes")["outcome"] == "success"
        kept = sorted(content(folder / "scpln.db") for folder in place.set_aside())
        assert kept == sorted(contents)
        assert len(set(contents)) == 3

    def test_a_name_that_was_taken_while_the_operator_thought(self, place: RestorePlace) -> None:
        """The plan names the folder before it asks; until the answer comes another restore may have made it."""
        place.backup()
        with asked(place) as (process, answer):
            aside = Path(next(line.split()[-1] for line in read_until_question(process) if "set aside in" in line))
            aside.mkdir()
            (aside / "scpln.db").write_text("the only copy of somebody's rows")
            answer("y")
            out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        assert (aside / "scpln.db").read_text() == "the only copy of somebody's rows"
        assert f"the old database is in {aside}-2".encode() in out


class TestChosen:
    def test_at(self, place: RestorePlace) -> None:
        """The newest one not after the time: at its very instant it is chosen, just before it is not."""
        taken = {}
        for days in (3, 2, 1):
            name = place.backup()["artifact"]
            at = datetime.fromisoformat(place.listed()[0]["taken_at"]) - timedelta(days=days)
            rewrite(place, name, taken_at=at)
            taken[name] = at
        first, second, third = taken

        def chosen(at: datetime) -> str:
            document = place.json("restore", "--at", at.isoformat(), "--dry-run")
            return str(document["artifact"]["name"])

        instant = timedelta(microseconds=1)
        assert chosen(taken[second]) == second
        assert chosen(taken[second] - instant) == first
        assert chosen(taken[third] - instant) == second
        assert chosen(taken[third] + timedelta(days=9)) == third
        before = taken[first] - instant
        assert "there is no verified artifact from" in refused(place, "--at", before.isoformat(), "--yes")

    def test_latest_is_the_newest_verified_one(self, place: RestorePlace) -> None:
        good = place.backup()["artifact"]
        suspect, corrupt = (place.backup()["artifact"] for _ in range(2))
        rewrite(place, suspect, state=State.SUSPECT, state_reason="plan_series lost 90 % of its rows")
        rewrite(place, corrupt, state=State.CORRUPT)
        assert place.json("restore", "--latest", "--dry-run")["artifact"]["name"] == good
        line = refused(place, suspect, "--yes")
        assert "plan_series lost 90 % of its rows" in line
        assert "--allow-suspect" in line
        assert "corrupt" in refused(place, corrupt, "--yes", "--allow-suspect", "--allow-unverified")
        assert place.json("restore", suspect, "--yes", "--allow-suspect")["outcome"] == "success"

    def test_nothing_there(self, place: RestorePlace) -> None:
        place.run("list")
        place.state.mkdir()
        assert "there is no verified artifact" in place.run("restore", "--yes").stderr
        done = place.run("restore", "scpln-20260101_0230.db.gz", "--yes")
        assert done.returncode == 1
        assert "scpln-20260101_0230.db.gz" in done.stderr

    @pytest.mark.parametrize("both", [("--latest", "--abort"), ("--resume", "--abort"), ("NAME", "--latest")])
    def test_what_excludes_one_another(self, place: RestorePlace, both: tuple[str, str]) -> None:
        done = place.run("restore", *both)
        assert done.returncode == 2
        assert "exclude one another" in done.stderr


class TestOnlyLooking:
    def test_dry_run(self, place: RestorePlace) -> None:
        name = place.backup()["artifact"]
        place.configure("service", stop_timeout_seconds=5)
        before = everything(place.folder)
        document = place.json("restore", "--dry-run")
        assert everything(place.folder) == before
        assert document["artifact"]["name"] == name
        assert document["target"] == str(place.source)
        assert document["database_bytes"] == SAMPLE.stat().st_size
        assert document["needed_bytes"] > document["database_bytes"]
        assert document["free_bytes"] > 0
        assert document["units"] == document["open_by"] == document["warnings"] == []
        done = place.run("restore", "--dry-run")
        assert (done.returncode, done.stderr) == (0, "")
        for word in (name, "room", "free", "set aside in", "stops", "takes about"):
            assert word in done.stdout
        assert everything(place.folder) == before

    def test_dry_run_where_there_is_no_state(self, place: RestorePlace) -> None:
        legacy = place.legacy("scpln-20250801_0230.db.gz", days_old=0)
        for options in (["--dry-run"], ["--to", str(place.folder / "copy.db")]):
            assert place.run("restore", legacy.name, "--allow-unverified", *options).returncode == 0
            assert not place.state.exists()

    def test_dry_run_without_a_database(self, place: RestorePlace) -> None:
        place.backup()
        place.source.unlink()
        document = place.json("restore", "--dry-run")
        assert document["target_exists"] is False
        assert names(place.source.parent) == []

    def test_to(self, place: RestorePlace) -> None:
        place.backup()
        place.write("DELETE FROM plan_series")
        before = everything(place.folder)
        copy = place.folder / "data" / "copy.db"
        document = place.json("restore", "--to", str(copy))
        assert (document["outcome"], document["target"], document["replaced"]) == ("success", str(copy), False)
        assert copy.read_bytes() == SAMPLE.read_bytes()
        assert copy.stat().st_mode & 0o777 == 0o600
        after = everything(place.folder)
        del after["data/copy.db"]
        assert after == before

    def test_to_never_overwrites(self, place: RestorePlace) -> None:
        place.backup()
        copy = place.folder / "copy.db"
        copy.write_text("precious")
        for there in (copy, place.source):
            was = there.read_bytes()
            assert "not overwritten" in refused(place, "--to", str(there))
            assert there.read_bytes() == was
        assert "no such folder" in refused(place, "--to", str(place.folder / "absent" / "copy.db"))

    def test_to_is_whole_or_nothing(self, place: RestorePlace) -> None:
        name = place.backup()["artifact"]
        path = artifact(place, name)
        path.write_bytes(path.read_bytes()[:-9])
        before = names(place.folder)
        assert name in refused(place, name, "--to", str(place.folder / "copy.db"))
        assert names(place.folder) == before


def everything(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Every file with its inode, time and hash; what readers of a SQLite file may make beside it is none of that."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns, sha256(path))
        for path in folder.rglob("*")
        if path.is_file()
    }


class TestRefused:
    def test_without_a_terminal(self, place: RestorePlace) -> None:
        place.backup()
        assert "say --yes" in refused(place)
        assert "say --yes" in refused(place, "--latest")

    @pytest.mark.parametrize("damage", ["bit", "short", "long", "other"])
    def test_an_artifact_that_changed_on_disk(self, place: RestorePlace, damage: str) -> None:
        name = place.backup()["artifact"]
        path = artifact(place, name)
        data = bytearray(path.read_bytes())
        if damage == "bit":
            data[len(data) // 2] ^= 4
        elif damage == "short":
            del data[-20:]
        elif damage == "long":
            data += gzip.compress(b"more")
        else:
            other = place.folder / "other.db"
            shutil.copyfile(SAMPLE, other)
            with closing(sqlite3.connect(other)) as database:
                database.execute("DELETE FROM plan_series WHERE rowid = 1")
                database.commit()
            data = bytearray(gzip.compress(other.read_bytes()))
        path.write_bytes(data)
        units = Units(place, "scpln-api.service")
        before = bytes_of_set(place.source)
        done = place.run("restore", name, "--yes", env=units.environment)
        assert done.returncode == 1
        assert f"error: {name}: " in done.stderr
        assert bytes_of_set(place.source) == before
        assert units.calls() == []
        assert place.set_aside() == []
        place.expect_nothing_left()

    @as_root
    def test_no_room(self, tmp_path: Path) -> None:
        with mounted(tmp_path / "data", 4 * 1024 * 1024) as disk:
            place = place_on(tmp_path, disk)
            place.backup()
            line = refused(place, "--yes")
        assert f"{disk}: " in line
        assert "needs" in line

    @as_root
    def test_an_unknown_size_that_does_not_fit(self, tmp_path: Path) -> None:
        """What an artifact of the old procedure takes shows only when it is decompressed: then nothing has happened."""
        with mounted(tmp_path / "data", 20 * 1024 * 1024) as disk:
            place = place_on(tmp_path, disk)
            with closing(sqlite3.connect(tmp_path / "big.db")) as database:
                database.execute("CREATE TABLE zeros (bytes BLOB)")
                database.execute("INSERT INTO zeros VALUES (zeroblob(25000000))")
                database.commit()
            legacy = place.legacy("scpln-20250801_0230.db.gz", days_old=0, content=(tmp_path / "big.db").read_bytes())
            before = bytes_of_set(place.source)
            done = place.run("restore", legacy.name, "--yes", "--allow-unverified")
            assert done.returncode == 1
            assert "No space left on device" in done.stderr
            assert bytes_of_set(place.source) == before
            assert names(place.source.parent) == ["scpln.db"]
            place.expect_nothing_left()

    def test_somebody_has_it_open(self, place: RestorePlace) -> None:
        place.backup()
        with opened(place.source) as process:
            line = refused(place, "--yes")
            assert f"(process {process.pid}" in line
            assert "python" in line

    def test_somebody_has_only_the_wal_open(self, place: RestorePlace) -> None:
        place.backup()
        killed(place.source, "PRAGMA journal_mode = WAL", "PRAGMA wal_autocheckpoint = 0", "DELETE FROM plan_series")
        with subprocess.Popen(["tail", "-f", f"{place.source}-wal"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            try:
                assert f"tail (process {process.pid}" in refused(place, "--yes")
            finally:
                process.kill()

    def test_somebody_still_has_the_deleted_one_open(self, place: RestorePlace) -> None:
        """It would unlink the new database's -wal, by its name, when it ends."""
        place.backup()
        with opened(place.source) as process:
            place.source.unlink()
            assert f"(process {process.pid}" in refused(place, "--yes")
        assert place.json("restore", "--yes")["outcome"] == "success"

    def test_a_newer_schema(self, place: RestorePlace) -> None:
        """The application was taken back: its schema was seen in backups before the artifact's."""
        older = place.backup()["artifact"]
        place.write("UPDATE alembic_version SET version_num = 'newer'")
        newer = place.backup()["artifact"]
        place.write("UPDATE alembic_version SET version_num = (SELECT ?)", version_of(SAMPLE))
        line = refused(place, newer, "--yes")
        assert "its schema (newer) is newer than the running application's" in line
        assert "--allow-schema" in line
        assert place.json("restore", older, "--dry-run")["warnings"] == []
        allowed = place.json("restore", newer, "--dry-run", "--allow-schema")
        assert "the artifact's schema is newer" in allowed["warnings"][0]

    def test_an_older_schema_is_only_warned_of(self, place: RestorePlace) -> None:
        older = place.backup()["artifact"]
        place.write("UPDATE alembic_version SET version_num = 'newer'")
        place.backup()
        assert "may have to migrate it" in place.json("restore", older, "--dry-run")["warnings"][0]

    def test_a_run_holds_the_lock(self, place: RestorePlace) -> None:
        place.backup()
        with place.app().house.run_lock("a test"):
            assert "a test" in refused(place, "--yes", code=75)
            assert "a test" in refused(place, "--abort", code=75)

    @pytest.mark.parametrize("verb", ["--resume", "--abort"])
    def test_nothing_was_broken_off(self, place: RestorePlace, verb: str) -> None:
        place.backup()
        assert "no restore was broken off" in refused(place, verb)

    def test_one_is_broken_off(self, place: RestorePlace) -> None:
        place.backup()
        place.write("DELETE FROM plan_series")
        old = content(place.source)
        broken_off(place)
        for arguments in (["--yes"], ["--latest", "--yes"]):
            line = refused(place, *arguments)
            assert "scpln-backup restore --resume, or scpln-backup restore --abort" in line
        document = place.json("restore", "--abort")
        assert (document["outcome"], document["replaced"], document["set_aside"]) == ("aborted", False, None)
        assert content(place.source) == old
        place.expect_nothing_left()
        broken_off(place)
        assert place.json("restore", "--resume")["outcome"] == "success"
        assert place.source.read_bytes() == SAMPLE.read_bytes()

    def test_a_journal_that_is_none(self, place: RestorePlace) -> None:
        place.backup()
        place.journal.write_text("{")
        assert str(place.journal) in refused(place, "--abort")

    @as_root
    def test_somebody_elses_database(self) -> None:
        """Only root could give the restored one its owner."""
        with public_folder() as folder:
            place = RestorePlace(folder)
            place.backup()
            give(folder, NOBODY)
            os.chown(place.source, 1, 1)
            done = run_as_nobody(place, "restore", "--yes")
            assert done.returncode == 1
            assert "belongs to another user" in done.stderr


def version_of(database: Path) -> str:
    with closing(sqlite3.connect(database)) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def broken_off(place: RestorePlace) -> None:
    """A restore that was killed once the new database was in the target's place."""
    environment = place.environment()
    with subprocess.Popen(
        place.command("restore", "--yes"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + PATIENCE
        while not place.journal.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.kill()
    assert place.journal.exists()


@contextmanager
def opened(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the database open and holds no lock."""
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM configs').fetchone(); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def place_on(tmp_path: Path, disk: Path) -> RestorePlace:
    """A place whose database alone is on another disk."""
    (tmp_path / "place").mkdir()
    place = RestorePlace(tmp_path / "place")
    moved = disk / "scpln.db"
    shutil.move(place.source, moved)
    text = place.config.read_text().replace(str(place.source), str(moved))
    place.config.write_text(text)
    place.source = moved
    return place


@contextmanager
def asked(place: RestorePlace) -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    """A restore that asks somebody at a terminal, and what answers it."""
    with ExitStack() as stack:
        master, slave = pty.openpty()
        stack.callback(os.close, master)
        process = subprocess.Popen(
            place.command("restore"),
            env=place.environment(),
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        os.close(slave)
        stack.callback(process.communicate)
        stack.callback(process.kill)
        yield process, lambda text: os.write(master, f"{text}\n".encode())


def read_until_question(process: subprocess.Popen[bytes]) -> list[str]:
    """The lines of the plan; what comes last is the question."""
    assert process.stderr is not None
    text = b""
    while not text.endswith(b"Go ahead? [y/N]:"):
        piece = process.stderr.read(1)
        assert piece, text
        text += piece
    return text.decode().splitlines()


class TestAsked:
    @pytest.mark.parametrize("answer", ["n", ""])
    def test_no(self, place: RestorePlace, answer: str) -> None:
        place.backup()
        before = state_of(place)
        with asked(place) as (process, say):
            read_until_question(process)
            say(answer)
            out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert out == b""
        assert err.strip() == b"error: not confirmed; nothing was stopped or changed"
        assert state_of(place) == before

    def test_yes(self, place: RestorePlace) -> None:
        place.backup()
        place.write("DELETE FROM plan_series")
        with asked(place) as (process, say):
            read_until_question(process)
            say("y")
            process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert place.source.read_bytes() == SAMPLE.read_bytes()


class TestInterrupted:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_during_the_decompression(self, place: RestorePlace, number: signal.Signals) -> None:
        place.source.unlink()
        grow(place.source, 24)
        place.backup()
        place.write("DELETE FROM configs")
        before = state_of(place)
        process = subprocess.Popen(
            place.command("restore", "--yes"),
            env=place.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + PATIENCE
        while not (place.staging / "new.db").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert err == "error: stopped by the operator\n"
        assert state_of(place) == before
        place.expect_nothing_left()


class TestAttributes:
    def test_mode_and_extended_attributes_are_kept(self, place: RestorePlace) -> None:
        place.backup()
        place.source.chmod(0o664)
        os.setxattr(place.source, "user.note", b"of the application")
        place.json("restore", "--yes")
        assert place.source.stat().st_mode & 0o7777 == 0o664
        assert xattrs(place.source) == {"user.note": b"of the application"}

    @as_root
    def test_owner_and_acl_are_kept(self, place: RestorePlace) -> None:
        """And an ACL that the folder would give to new files is not added."""
        place.backup()
        os.chown(place.source, 1, 2)
        place.source.chmod(0o640)
        os.setxattr(place.source, "system.posix_acl_access", acl(user=3))
        access = os.getxattr(place.source, "system.posix_acl_access")
        os.setxattr(place.source.parent, "system.posix_acl_default", acl(user=4))
        place.json("restore", "--yes")
        status = place.source.stat()
        assert (status.st_uid, status.st_gid) == (1, 2)
        assert xattrs(place.source) == {"system.posix_acl_access": access}
        os.removexattr(place.source, "system.posix_acl_access")
        mode = place.source.stat().st_mode
        place.json("restore", "--yes")
        assert xattrs(place.source) == {}
        assert place.source.stat().st_mode == mode

    @as_root
    def test_a_missing_one_gets_its_owner_and_mode_from_the_manifest(self, place: RestorePlace) -> None:
        os.chown(place.source.parent, 1, 1)
        place.source.chmod(0o604)
        name = place.backup()["artifact"]
        path = artifact(place, f"{name}.json")
        path.write_text(path.read_text().replace('"owner": "root"', '"owner": "nobody"'))
        place.source.unlink()
        document = place.json("restore", "--yes")
        assert document["outcome"] == "success"
        assert document["set_aside"] is None
        status = place.source.stat()
        assert (status.st_uid, status.st_mode & 0o7777) == (NOBODY, 0o604)
        assert document["loss"]["problem"] == "there is no such file"

    @as_root
    def test_of_an_unknown_owner_it_gets_the_folders(self, place: RestorePlace) -> None:
        legacy = place.legacy("scpln-20250801_0230.db.gz", days_old=0)
        os.chown(place.source.parent, 1, 2)
        place.source.unlink()
        place.json("restore", legacy.name, "--yes", "--allow-unverified")
        status = place.source.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1, 2, 0o640)

    def test_behind_a_symbolic_link(self, place: RestorePlace) -> None:
        place.backup()
        real = place.folder / "elsewhere" / "real.db"
        real.parent.mkdir()
        place.source.rename(real)
        place.source.symlink_to(real)
        with closing(sqlite3.connect(real)) as database:
            database.execute("DELETE FROM plan_series")
            database.commit()
        document = place.json("restore", "--yes")
        assert document["target"] == str(real)
        assert place.source.is_symlink()
        assert real.read_bytes() == SAMPLE.read_bytes()


def acl(user: int) -> bytes:
    """An ACL that lets one more user read, as the kernel takes it (posix_acl_xattr.h): version, (tag, mode, id)…"""
    anybody = 0xFFFFFFFF
    entries = ((1, 6, anybody), (2, 4, user), (4, 4, anybody), (0x10, 4, anybody), (0x20, 0, anybody))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that other users can reach, which pytest's are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def give(folder: Path, uid: int) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)


def run_as_nobody(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    """With leave to read everything, for the program may lie in a folder of root's; but to change nothing more."""
    drop = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    reading = ["--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search"]
    return subprocess.run(
        ["setpriv", *drop, *reading, *place.command(*arguments)],
        env=place.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@as_root
def test_by_root_in_another_users_folders() -> None:
    """What is made there belongs to that user, who can back up, restore and abort as before."""
    with public_folder() as folder:
        place = RestorePlace(folder)
        give(folder, NOBODY)
        done = run_as_nobody(place, "backup")
        assert done.returncode == 0, done.stderr
        with closing(sqlite3.connect(place.source)) as database:
            database.execute("DELETE FROM plan_series")
            database.commit()
        assert place.json("restore", "--yes")["outcome"] == "success"
        strangers = [path for path in folder.rglob("*") if path.stat().st_uid != NOBODY]
        assert strangers == []
        for verb in (("backup",), ("restore", "--yes"), ("list",), ("status",)):
            done = run_as_nobody(place, *verb)
            assert (done.returncode, done.stderr) == (0, ""), verb
        broken_off(place)
        assert place.json("restore", "--resume")["outcome"] == "success"
        assert [path for path in folder.rglob("*") if path.stat().st_uid != NOBODY] == []


# Knows the state of each unit by a file, and fails where there is a file that says so.
_SYSTEMCTL = """#!/bin/sh
cd {folder} || exit 1
for unit; do :; done
verb=$3
case "$*" in
*--property=ActiveState*) cat "$unit"; exit;;
*--property=LoadState*) echo loaded; exit;;
esac
echo "$verb $unit" >>calls
if [ -e "$verb-$unit" ]; then . "./$verb-$unit"; fi
case "$verb" in
stop) echo inactive >"$unit";;
start) echo active >"$unit";;
esac
"""


class Units:
    """Units of a systemd that there is not: a `systemctl` that keeps their states and notes what it is told."""

    def __init__(self, place: RestorePlace, *units: str) -> None:
        self.folder = place.folder / "systemctl"
        self.folder.mkdir()
        program = self.folder / "systemctl"
        program.write_text(_SYSTEMCTL.format(folder=self.folder))
        program.chmod(0o755)
        for unit in units:
            (self.folder / unit).write_text("active\n")
        place.config.write_text(place.config.read_text().replace("units = []", f"units = {json.dumps(units)}"))
        self.environment = {"PATH": f"{self.folder}:{os.environ['PATH']}"}

    def calls(self) -> list[str]:
        """What was stopped and started, in order."""
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line for line in lines if not line.startswith("reset-failed")]

    def active(self) -> set[str]:
        return {path.name for path in self.folder.glob("*.service") if path.read_text() == "active\n"}

    def does(self, what: str, script: str) -> None:
        (self.folder / what).write_text(f"{script}\n")


API, WORKER = "scpln-api.service", "scpln-worker.service"


class TestUnits:
    @pytest.fixture
    def units(self, place: RestorePlace) -> Units:
        place.backup()
        place.write("DELETE FROM plan_series")
        return Units(place, API, WORKER)

    def restore(self, place: RestorePlace, units: Units, code: int = 0) -> dict[str, Any]:
        done = place.run("restore", "--yes", "--json", env=units.environment)
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def test_in_order_and_back_in_reverse(self, place: RestorePlace, units: Units) -> None:
        document = self.restore(place, units)
        assert units.calls() == [f"stop {API}", f"stop {WORKER}", f"start {WORKER}", f"start {API}"]
        assert document["outcome"] == "success"
        steps = [step["name"] for step in document["steps"]]
        assert steps.index(f"stop {API}") > steps.index("decompress and check")
        assert steps[-1] == "health probe"

    def test_a_unit_that_does_not_stop(self, place: RestorePlace, units: Units) -> None:
        before = bytes_of_set(place.source)
        units.does(f"stop-{WORKER}", "echo Job failed >&2; exit 1")
        document = self.restore(place, units, 1)
        assert document["outcome"] == "failed"
        assert WORKER in document["error"]
        assert bytes_of_set(place.source) == before
        assert units.active() == {API, WORKER}
        assert place.set_aside() == []
        place.expect_nothing_left()

    def test_a_unit_that_hangs_in_its_stop(self, place: RestorePlace, units: Units) -> None:
        place.configure("service", stop_timeout_seconds=1)
        before = bytes_of_set(place.source)
        units.does(f"stop-{API}", "sleep 20")
        document = self.restore(place, units, 1)
        assert "did not stop within 1 s" in document["error"]
        assert bytes_of_set(place.source) == before
        assert units.active() == {API, WORKER}
        place.expect_nothing_left()

    def test_a_unit_that_does_not_start(self, place: RestorePlace, units: Units) -> None:
        """It stumbles over the restored database; on the old one it starts again."""
        before = bytes_of_set(place.source)
        failing = f'[ -e started ] || {{ touch started; echo failed >"{API}"; exit 1; }}'
        units.does(f"start-{API}", failing)
        document = self.restore(place, units, 1)
        assert document["outcome"] == "rolled-back"
        assert API in document["error"]
        assert bytes_of_set(place.source) == before
        assert units.active() == {API, WORKER}
        stopped_again = [f"stop {API}", f"stop {WORKER}", f"start {WORKER}", f"start {API}"]
        assert units.calls() == stopped_again * 2
        assert place.set_aside() == []
        place.expect_nothing_left()

    def test_a_unit_that_never_starts_again(self, place: RestorePlace, units: Units) -> None:
        """The old database is back all the same; its start is what `--abort` does once it can be done."""
        before = bytes_of_set(place.source)
        units.does(f"start-{API}", "exit 1")
        document = self.restore(place, units, 1)
        assert "restore --abort" in document["error"]
        assert bytes_of_set(place.source) == before
        assert place.journal.exists()
        units.does(f"start-{API}", "")
        done = place.run("restore", "--abort", "--json", env=units.environment)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["outcome"] == "aborted"
        assert bytes_of_set(place.source) == before
        assert units.active() == {API, WORKER}
        place.expect_nothing_left()

    def test_one_that_did_not_run_before_is_not_started_by_an_undoing(self, place: RestorePlace, units: Units) -> None:
        (units.folder / WORKER).write_text("inactive\n")
        place.configure("service", health_command=["false"], health_timeout_seconds=1)
        assert self.restore(place, units, 1)["outcome"] == "rolled-back"
        assert units.active() == {API}

    def test_a_process_that_outlives_its_unit(self, place: RestorePlace, units: Units) -> None:
        """It opened the database after the plan was made: nothing is swapped under it, and the units come back."""
        before = bytes_of_set(place.source)
        script = f"tail -f {place.source} >/dev/null 2>&1 & echo $! >tail.pid"
        units.does(f"stop-{WORKER}", script)
        try:
            document = self.restore(place, units, 1)
        finally:
            os.kill(int((units.folder / "tail.pid").read_text()), signal.SIGKILL)
        assert "still open in tail" in document["error"]
        assert bytes_of_set(place.source) == before
        assert units.active() == {API, WORKER}
        place.expect_nothing_left()


class TestProbe:
    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("missing", "missing_with_stale_wal")])
    def test_that_fails_rolls_back(self, place: RestorePlace, kind: str) -> None:
        place.backup()
        KINDS[kind](place.source)
        place.configure("service", health_command=["false"], health_timeout_seconds=1)
        before = bytes_of_set(place.source)
        document = place.json("restore", "--yes", code=1)
        assert document["outcome"] == "rolled-back"
        assert "not healthy" in document["error"]
        assert (document["replaced"], document["set_aside"], document["incident"]) == (False, None, None)
        assert bytes_of_set(place.source) == before, "not the very files that were there"
        assert place.set_aside() == []
        place.expect_nothing_left()

    def test_what_was_written_to_the_restored_one_is_kept(self, place: RestorePlace) -> None:
        place.backup()
        place.write("DELETE FROM plan_series")
        before = bytes_of_set(place.source)
        write = f"import sqlite3; c = sqlite3.connect({str(place.source)!r}); c.execute('CREATE TABLE precious (x)'); c.commit(); 1 / 0"
        place.configure("service", health_command=[sys.executable, "-c", write], health_timeout_seconds=1)
        document = place.json("restore", "--yes", code=1)
        assert bytes_of_set(place.source) == before
        (kept,) = place.set_aside()
        assert str(kept) in document["error"]
        with closing(sqlite3.connect(kept / "scpln.db")) as database:
            assert database.execute("SELECT count(*) FROM precious").fetchone() == (0,)

    def test_the_records_of_it(self, place: RestorePlace) -> None:
        place.backup()
        place.configure("service", health_command=["false"], health_timeout_seconds=1)
        place.json("restore", "--yes", code=1)
        place.config.write_text(place.config.read_text().replace('["false"]', '["true"]'))
        place.json("restore", "--yes")
        catalog = place.app().catalog
        assert [record.outcome for record in catalog.restores()] == ["success", "rolled-back"]
        (incident,) = catalog.incidents()
        assert incident.restore.id == catalog.restores()[0].id


class TestStartedSinceTheCrash:
    """A reboot started the application on whichever database was there, and it has written to it."""

    MARK = "INSERT INTO entries (label, text) VALUES ('since the crash', '')"

    @pytest.mark.parametrize("closed", [True, False])
    @pytest.mark.parametrize("phase", [Phase.SET_ASIDE, Phase.FOLDED, Phase.SWAPPED, Phase.STARTED], ids=str)
    def test_nothing_is_lost(self, tmp_path: Path, phase: Phase, closed: bool) -> None:
        built = RestoreHouse.build(tmp_path / "house", "with_wal")
        for abort in (False, True):
            house = built.copied(tmp_path / f"{abort}")
            house.break_off(phase)
            if closed:
                with closing(sqlite3.connect(house.target)) as database:
                    database.execute(self.MARK)
                    database.commit()
            else:
                killed(house.target, "PRAGMA journal_mode = WAL", "PRAGMA wal_autocheckpoint = 0", self.MARK)
            written = content(house.target)
            assert written not in {house.old, house.new}
            record = house.finish(abort=abort)
            assert record.outcome == ("aborted" if abort else "success")
            on_the_new_one = phase >= Phase.SWAPPED
            if on_the_new_one == abort:  # what has the target's name now is the other one
                assert content(house.target) == (house.old if abort else house.new)
                (aside,) = house.target.parent.glob("*.bak-*")
                assert content(aside / house.target.name) == written
                if abort:
                    assert str(aside) in str(record.error)
            else:
                assert content(house.target) == written

    @pytest.mark.parametrize("kind", ["missing", "missing_with_stale_wal"])
    @pytest.mark.parametrize("abort", [True, False])
    def test_it_has_made_itself_a_database(self, tmp_path: Path, kind: str, abort: bool) -> None:
        house = RestoreHouse.build(tmp_path / "house", kind)
        house.break_off(Phase.FOLDED)
        for ending in ("-wal", "-shm"):
            house.target.with_name(house.target.name + ending).unlink(missing_ok=True)
        make(house.target, "made by the application")
        made = content(house.target)
        assert house.finish(abort=abort).outcome == ("aborted" if abort else "success")
        if abort:
            assert content(house.target) == made
        else:
            (aside,) = house.target.parent.glob("*.bak-*")
            assert content(aside / house.target.name) == made
            assert content(house.target) == house.new

    def test_somebody_put_another_database_there(self, tmp_path: Path) -> None:
        house = RestoreHouse.build(tmp_path / "house", "with_wal")
        house.break_off(Phase.SWAPPED)
        theirs = make(tmp_path / "theirs.db", "theirs")
        aside = content(theirs)
        theirs.replace(house.target)
        for verb in ("--resume", "--abort"):
            finished = house.program.run("restore", verb)
            assert finished.code == 1
            assert "somebody has put another file there: look at it, and move it away" in finished.stderr
            assert finished.stderr.count("\n") == 1
            assert content(house.target) == aside
        house.target.rename(theirs)
        assert house.finish(abort=True).outcome == "aborted"
        house.expect_as_before()


def test_the_journal_may_be_from_before_a_reboot(place: RestorePlace) -> None:
    """A disk's device number is another one by then: no journal may hang on it."""
    place.backup()
    broken_off(place)
    assert b"device" not in place.journal.read_bytes()
    journal = journals.load(place.app().house)
    assert journal is not None
    assert place.json("restore", "--abort")["outcome"] == "aborted"
