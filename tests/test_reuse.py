"""stages/reuse.py and operations/reuse.py: nights on which nothing changed, and nights that only look like it."""

import fcntl
import hashlib
import os
import shutil
import sqlite3
import subprocess
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from scpln_backup.app import App
from scpln_backup.config.load import load
from scpln_backup.config.schema import BackupConfig
from scpln_backup.errors import ArtifactError, CatalogError, ProofError
from scpln_backup.events import Announcer, ArtifactVerified, Event, Progressed, RunFinished
from scpln_backup.model import Artifact, Compression, Manifest, Outcome, Preset, RunRecord, Stage, State, Trigger
from scpln_backup.operations import verify
from scpln_backup.operations.reuse import reusable
from scpln_backup.records.catalog import Catalog
from scpln_backup.stages import pack, reuse
from scpln_backup.stages.check import Content as Checked
from scpln_backup.stages.check import examine
from support import databases
from support.fault_house import (
    FaultHouse,
    Past,
    build,
    copied,
    distinct,
    each,
    expect_clear,
    make_database,
    shared_out,
    struck,
)
from support.faults import KILLED, Call, Process
from support.faults import why_impossible as why_no_faults
from support.place import Place
from support.writer import Session


class Nights:
    """Backups of one database, one after another."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder)
        self.source = self.place.source
        self.events: list[Event] = []
        self.announce = Announcer(self.events.append)

    @property
    def app(self) -> App:
        return App.build(load(self.place.config, {}), self.announce)

    def backup(self) -> RunRecord:
        return self.app.backup(Trigger.SCHEDULE, threading.Event())

    def artifact(self, run: RunRecord) -> Artifact:
        assert run.artifact is not None, run.error
        return self.app.store.get(run.artifact)

    def path(self, run: RunRecord) -> Path:
        return Path(self.artifact(run).path)

    def manifest(self, run: RunRecord) -> Manifest:
        found = self.artifact(run).manifest
        assert found is not None
        return found

    def rewrite(self, run: RunRecord, **changes: object) -> None:
        """Change what the manifest of a run's artifact says."""
        self.app.store.update_manifest(msgspec.structs.replace(self.manifest(run), **changes))

    def restores(self, run: RunRecord) -> bool:
        """Whether the program's own tool for it and the stock one agree that it holds the database as it is now."""
        path = self.path(run)
        stock = ["zstd", "-dcq"] if path.suffix == ".zst" else ["gunzip", "-c"]
        raw = subprocess.run([*stock, path], capture_output=True, check=True).stdout
        return raw == self.source.read_bytes() and verify.verify(self.app.house, self.artifact(run)).ok

    def reuses(self, older: RunRecord) -> RunRecord:
        """The next night, which has to use the artifact of `older` again."""
        run = self.backup()
        assert (run.outcome, run.reused_from) == (Outcome.SUCCESS, older.artifact), run.error
        assert run.sha256 == older.sha256
        return run

    def works(self) -> RunRecord:
        """The next night, which has to compress and check anew, and to hold the database as it is."""
        run = self.backup()
        assert (run.outcome, run.reused_from) == (Outcome.SUCCESS, None), run.error
        assert {Stage.CHECK, Stage.COMPRESS, Stage.PROVE} <= set(run.stage_seconds)
        assert self.restores(run)
        return run


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path)


# An unchanged night


@pytest.mark.parametrize("compression", list(Compression))
def test_its_artifact_is_the_newest_ones_bytes_under_a_name_of_its_own(nights: Nights, compression: str) -> None:
    nights.place.configure("backup", compression=compression)
    first = nights.works()
    second = nights.reuses(first)
    third = nights.reuses(second)
    paths = [nights.path(run) for run in (first, second, third)]
    assert len({path.stat().st_ino for path in paths}) == 3
    assert {path.stat().st_nlink for path in paths} == {1}
    assert {path.read_bytes() for path in paths} == {paths[0].read_bytes()}
    subprocess.run(["sha256sum", "--quiet", "--check", f"{third.artifact}.sha256"], cwd=paths[2].parent, check=True)
    assert nights.restores(third)


def test_it_is_a_run_like_any_other(tmp_path: Path) -> None:
    """As people see it, on the command line."""
    place = Place(tmp_path)
    first, second = place.backup(), place.backup()
    for name in ("outcome", "trigger", "raw_bytes", "artifact_bytes", "sha256", "raw_sha256"):
        assert second[name] == first[name]
    assert set(second["stage_seconds"]) == {"preflight", "snapshot", "prove", "publish", "sweep"}
    assert 0 < second["writer_blocked_seconds"] < second["duration_seconds"]
    status = place.json("status")
    assert (status["health"], status["last_artifact"]) == ("healthy", second["artifact"])
    assert status["artifacts"]["verified"] == 2
    assert [result["ok"] for result in place.json("verify", "--all")] == [True, True]


def test_its_manifest_tells_of_this_night(nights: Nights) -> None:
    first = nights.works()
    second = nights.reuses(first)
    older, newer = nights.manifest(first), nights.manifest(second)
    assert newer.fingerprint == older.fingerprint
    assert (newer.state, newer.preset) == (State.VERIFIED, Preset.BALANCED)
    assert older.taken_at < newer.taken_at
    assert older.verified_at is not None
    assert newer.verified_at is not None
    assert older.verified_at < newer.verified_at
    assert newer.run is not None
    assert newer.run.started_at == second.started_at
    assert nights.path(first).stat().st_mtime_ns < nights.path(second).stat().st_mtime_ns  # retention ages by it
    finished = [event.record for event in nights.events if isinstance(event, RunFinished)]
    assert finished == [first, second]
    assert nights.app.catalog.run_counts() == {(Trigger.SCHEDULE, Outcome.SUCCESS): 2}
    assert list(nights.app.store.staging.iterdir()) == []


def test_each_artifact_lives_and_dies_alone(nights: Nights) -> None:
    first = nights.works()
    second = nights.reuses(first)
    nights.path(first).write_bytes(b"gone bad")
    assert nights.restores(second)


def test_a_database_in_wal_mode(nights: Nights) -> None:
    with Session(nights.source, "PRAGMA journal_mode = WAL", "UPDATE runs SET summary = 'in the wal'") as application:
        first = nights.backup()
        wal = nights.source.with_name("scpln.db-wal").read_bytes()
        second = nights.reuses(first)
        assert nights.source.with_name("scpln.db-wal").read_bytes() == wal
        application.run("PRAGMA wal_checkpoint(TRUNCATE)")  # moves the rows, and changes none
        nights.reuses(second)
        application.run("UPDATE runs SET summary = 'and on'")
        assert nights.backup().reused_from is None


def test_a_suspect_night_between(nights: Nights) -> None:
    """The rows came back: the newest verified artifact is the one of before the accident, and it is the same again."""
    before = nights.source.read_bytes()
    first = nights.works()
    with closing(sqlite3.connect(nights.source)) as connection:
        connection.execute("DELETE FROM plan_series")
        connection.commit()
    for _ in range(2):
        suspect = nights.backup()
        assert suspect.outcome is Outcome.SUSPECT
        assert suspect.reused_from is None
    nights.source.write_bytes(before)
    nights.reuses(first)


def test_the_older_one_is_kept_from_deletion_meanwhile(nights: Nights) -> None:
    first = nights.works()
    assert first.artifact is not None
    store, refused = nights.app.store, []

    def delete(event: Event) -> None:
        if isinstance(event, Progressed) and not refused:
            with pytest.raises(ArtifactError, match="being read, so it is kept"):
                store.delete(str(first.artifact))
            refused.append(event)

    nights.announce.subscribe(delete)
    nights.reuses(first)
    assert refused
    store.delete(first.artifact)


# Nights that only look like it


def test_a_row_that_changed(nights: Nights) -> None:
    nights.works()
    with closing(sqlite3.connect(nights.source)) as connection:
        connection.execute("UPDATE runs SET duration_ms = duration_ms + 1 WHERE rowid = (SELECT max(rowid) FROM runs)")
        connection.commit()
    nights.works()


def test_a_time_of_the_file_that_changed_is_nothing(nights: Nights) -> None:
    first = nights.works()
    os.utime(nights.source, (1, 1))
    nights.reuses(first)


def test_damage_behind_an_unchanged_header(nights: Nights) -> None:
    """Size, time and change counter are what they were: whoever goes by them calls this night unchanged, and good."""
    nights.works()
    status = nights.source.stat()
    with closing(sqlite3.connect(nights.source)) as connection:
        found = connection.execute("SELECT max(pageno) FROM dbstat WHERE name = 'runs' AND pagetype = 'leaf'")
        (page,) = found.fetchone()
    with nights.source.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)
    os.utime(nights.source, ns=(status.st_atime_ns, status.st_mtime_ns))
    run = nights.backup()
    assert run.outcome is Outcome.FAILED
    assert "damaged" in str(run.error)


@pytest.mark.parametrize("change", [{"preset": "fast"}, {"compression": "zstd"}])
def test_another_way_of_compressing(nights: Nights, change: dict[str, str]) -> None:
    nights.works()
    nights.place.configure("backup", **change)
    nights.works()


def test_the_old_procedures_artifact(nights: Nights) -> None:
    """Even a proven one: it was compressed in another way."""
    legacy = nights.place.legacy("scpln-20250101_0230.db.gz", days_old=1)
    app = nights.app
    assert verify.verify(app.house, app.store.get(legacy.name)).state is State.VERIFIED
    nights.works()


@pytest.mark.parametrize("change", [{"program": "scpln-backup 0.0.1"}, {"sqlite": "3.7.0"}])
def test_what_another_version_has_proven_is_proven_again(nights: Nights, change: dict[str, str]) -> None:
    nights.rewrite(nights.works(), **change)
    nights.works()


def test_a_manifest_that_says_something_else_of_the_database(nights: Nights) -> None:
    first = nights.works()
    fingerprint = nights.manifest(first).fingerprint
    assert fingerprint is not None
    nights.rewrite(first, fingerprint=msgspec.structs.replace(fingerprint, sha256="0" * 64))
    assert nights.works().raw_sha256 == hashlib.sha256(nights.source.read_bytes()).hexdigest()


# An older artifact that has gone bad


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x10]))


@pytest.mark.parametrize("where", ["data", "checksum", "header"])
def test_it_is_found_out_and_not_used(nights: Nights, where: str) -> None:
    first = nights.works()
    path = nights.path(first)
    # The header's byte is the time of the first member, which decompresses to the same whatever that says.
    flip(path, {"data": 1000, "checksum": path.stat().st_size - 8, "header": 4}[where])
    second = nights.works()
    assert (nights.artifact(first).state, nights.artifact(second).state) == (State.CORRUPT, State.VERIFIED)
    told = [(event.name, event.error) for event in nights.events if isinstance(event, ArtifactVerified) and event.error]
    assert told == [(first.artifact, nights.manifest(first).state_reason)]
    assert nights.app.catalog.artifact_summary().verified == 1
    nights.reuses(second)


def test_one_that_cannot_be_opened_costs_the_success_only(nights: Nights) -> None:
    first = nights.works()
    with nights.path(first).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as if it were being deleted
        run = nights.backup()
    assert run.outcome is Outcome.DEGRADED
    assert run.error == f"{nights.path(first)}: being deleted"
    assert run.reused_from is None
    assert nights.restores(run)


# The stage


@pytest.fixture
def older(tmp_path: Path) -> reuse.Older:
    """An artifact of a database of more than three blocks."""
    source, artifact = databases.grow(tmp_path / "source.db", 3.5), tmp_path / "older"
    copied = pack.compress(
        source,
        artifact,
        compression=Compression.GZIP,
        preset=Preset.FAST,
        workers=2,
        progress=lambda _done, _total: None,
    )
    content: Checked = examine(source)
    stored = artifact.read_bytes()
    return reuse.Older(
        path=str(artifact),
        compression=Compression.GZIP,
        bytes=len(stored),
        sha256=hashlib.sha256(stored).hexdigest(),
        fingerprint=content.fingerprint(copied.raw_sha256, copied.raw_bytes),
    )


def test_the_content_is_the_database(older: reuse.Older, tmp_path: Path) -> None:
    content = reuse.Content(older, 2)
    for _ in range(2):  # whoever has read it once may do so again
        assert b"".join(content.each(lambda _offset, block: block)) == (tmp_path / "source.db").read_bytes()
    assert content.size_bytes == (tmp_path / "source.db").stat().st_size
    assert content.sha256 == hashlib.sha256((tmp_path / "source.db").read_bytes()).hexdigest()


def test_content_that_is_not_read_to_its_end(older: reuse.Older, tmp_path: Path) -> None:
    blocks = reuse.Content(older, 2).each(lambda _offset, block: block)
    next(blocks)
    blocks.close()
    reuse.duplicate(older, tmp_path / "new")


@pytest.mark.parametrize("damage", ["cut", "longer", "flipped"])
def test_damaged_content(older: reuse.Older, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "older"
    if damage == "cut":
        os.truncate(path, older.bytes - 5)
    elif damage == "longer":
        path.write_bytes(path.read_bytes() + path.read_bytes())
    else:
        flip(path, older.bytes // 2)
    with pytest.raises(ArtifactError):
        list(reuse.Content(older, 2).each(lambda _offset, block: block))


def test_content_that_cannot_be_read(older: reuse.Older) -> None:
    unreadable = msgspec.structs.replace(older, path="/proc/self/mem")
    with pytest.raises(
        reuse.UnreadableError,
        match=r"^/proc/self/mem: Input/output error; the disk may be failing, see: journalctl -k$",
    ):
        list(reuse.Content(unreadable, 2).each(lambda _offset, block: block))


def test_a_duplicate(older: reuse.Older, tmp_path: Path) -> None:
    reuse.duplicate(older, tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == (tmp_path / "older").read_bytes()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_ino != (tmp_path / "older").stat().st_ino
    with pytest.raises(FileExistsError):
        reuse.duplicate(older, tmp_path / "new")


def test_what_was_written_is_read_again(older: reuse.Older, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def failing_disk(descriptor: int) -> None:
        os.pwrite(descriptor, b"\0", older.bytes // 2)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", failing_disk)
    with pytest.raises(ProofError, match=rf"{tmp_path}/new: what was written is not what {tmp_path}/older holds"):
        reuse.duplicate(older, tmp_path / "new")


# Which artifact


def test_only_the_newest_verified_one(nights: Nights) -> None:
    first = nights.works()
    nights.reuses(first)
    newest, oldest = artifacts = nights.app.store.scan()
    config, now = BackupConfig(), nights.app.now()
    assert reusable(artifacts, config, now) == newest
    assert reusable([], config, now) is None
    for state in (State.CORRUPT, State.SUSPECT, State.UNVERIFIED):
        assert reusable([msgspec.structs.replace(newest, state=state), oldest], config, now) == oldest
    assert newest.manifest is not None
    legacy = msgspec.structs.replace(newest, manifest=msgspec.structs.replace(newest.manifest, preset=None))
    assert reusable([legacy, oldest], config, now) is None  # whatever there was before it
    assert reusable(artifacts, BackupConfig(preset=Preset.SMALL), now) is None
    assert reusable(artifacts, BackupConfig(compression=Compression.ZSTD), now) is None


def test_after_a_week_one_is_checked_in_full(nights: Nights) -> None:
    """What is taken over from manifest to manifest, a wrong count of rows too, is not taken over for ever."""
    first = nights.works()
    second = nights.reuses(first)
    newest, oldest = artifacts = nights.app.store.scan()
    assert newest.manifest is not None
    assert oldest.manifest is not None
    checked = newest.manifest.checked_at
    assert checked == oldest.manifest.checked_at
    assert checked is not None
    assert reusable(artifacts, BackupConfig(), checked + timedelta(days=6)) == newest
    assert reusable(artifacts, BackupConfig(), checked + timedelta(days=7)) is None
    assert reusable(artifacts, BackupConfig(), checked - timedelta(days=7)) is None  # a clock that was ahead
    assert verify.verify(nights.app.house, nights.artifact(second)).ok
    manifest = nights.manifest(second)
    assert manifest.checked_at is not None
    assert manifest.checked_at > checked


def test_damage_is_told_although_the_catalog_cannot_be_written(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next night nobody looks at it again, as it is known to be corrupt."""
    first = nights.works()
    flip(nights.path(first), 1000)

    def full_disk(*_arguments: object) -> None:
        raise CatalogError("catalog: disk I/O error")

    monkeypatch.setattr(Catalog, "sync_artifacts", full_disk)
    assert nights.backup().outcome is Outcome.DEGRADED
    told = [event.name for event in nights.events if isinstance(event, ArtifactVerified) and event.error]
    assert told == [first.artifact]


# Faults


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> FaultHouse:
    """A house whose database is what the newest artifact holds."""
    house = build(tmp_path_factory.mktemp("house"))
    make_database(house.database, 1)
    house = FaultHouse(house.folder, house.past)
    assert house.program.run("backup", "--json").code == 0
    there = house.artifacts()
    files = {name: hashlib.sha256(Path(artifact.path).read_bytes()).hexdigest() for name, artifact in there.items()}
    return FaultHouse(house.folder, Past(files, {name: artifact.state for name, artifact in there.items()}))


@pytest.mark.faults
@pytest.mark.skipif(why_no_faults() is not None, reason=str(why_no_faults()))
@pytest.mark.parametrize("fault", ["signal=KILL", "error=ENOSPC", "error=EIO"])
def test_a_fault_on_an_unchanged_night(house: FaultHouse, tmp_path: Path, fault: str) -> None:
    verb = ("backup", "--json")
    seen = copied(house, tmp_path / "recorded").program.record(*verb)
    points = [call for call in distinct(seen) if call.process is Process.WORKER or call.name == "renameat2"]
    kinds = {(call.name, call.where.rpartition("/")[2]) for call in points}
    assert kinds >= {("pwrite64", "artifact"), ("fsync", "artifact"), ("unlink", "copy.db"), ("renameat2", "NEW")}
    assert ("pwrite64", "copy.db") not in kinds

    def check(call: Call) -> None:
        folder = tmp_path / f"{points.index(call)}"
        case, finished = struck(house, folder, call, fault, *verb)
        if fault == "signal=KILL" and call.process is Process.COMMAND:
            assert finished.code == KILLED
        else:
            assert finished.code == 1
            expect_clear(finished)
        case.expect_next_run_clean(*case.expect_whole())
        shutil.rmtree(folder)

    each(shared_out(points, fault), check)
