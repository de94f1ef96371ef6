"""What a restore writes and proves: stages/unpack.py, stages/inspector.py, operations/reading.py, the check in place."""

import gzip
import hashlib
import io
import os
import random
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import xxhash
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scpln_backup.errors import ArtifactError, BackupError, SourceCorruptError, StoppedError
from scpln_backup.model import Compression, Preset
from scpln_backup.operations import reading
from scpln_backup.operations.restore import journal as journals
from scpln_backup.operations.restore.journal import Phase
from scpln_backup.stages import blocks, check, inspector, pack, tables, unpack
from scpln_backup.stages.blocks import BLOCK
from support.databases import SAMPLE, grow, names
from support.restore_house import RestoreHouse, RestorePlace, bytes_of_set, content, make

GZIP, ZSTD = Compression.GZIP, Compression.ZSTD


def ours(folder: Path, data: bytes, compression: Compression) -> bytes:
    copy, artifact = folder / "packed.db", folder / "packed"
    copy.write_bytes(data)
    artifact.unlink(missing_ok=True)
    settings = {"compression": compression, "preset": Preset.FAST, "workers": 2}
    pack.compress(copy, artifact, **settings, progress=lambda _done, _total: None)
    return artifact.read_bytes()


def others(data: bytes, compression: Compression) -> bytes:
    """As the stock tools do, checksums included."""
    if compression is GZIP:
        return gzip.compress(data, 1)
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(data)


def unpacked(folder: Path, stored: bytes, compression: Compression, workers: int = 2) -> bytes:
    written, told = folder / "written.db", [0]
    with written.open("wb") as target:
        found = unpack.unpack(io.BytesIO(stored), compression, workers, target.fileno(), told.append)
    assert found == blocks.Stored(hashlib.sha256(stored).hexdigest(), len(stored))
    assert told[-1] == written.stat().st_size
    return written.read_bytes()


class TestUnpack:
    @pytest.mark.parametrize("workers", [1, 2, 5])
    @pytest.mark.parametrize("compression", Compression)
    def test_many_more_blocks_than_are_in_flight(self, tmp_path, compression, workers):
        """Each differs from all others, and has one place."""
        data = b"".join(bytes([number]) * 100 + bytes(BLOCK - 100) for number in range(50)) + b"the end"
        assert unpacked(tmp_path, ours(tmp_path, data, compression), compression, workers) == data

    @pytest.mark.parametrize("make_artifact", [ours, lambda _folder, *data: others(*data)], ids=["ours", "others"])
    @pytest.mark.parametrize("compression", Compression)
    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(length=st.integers(1, 3 * BLOCK), seed=st.integers(0, 9))
    def test_any_length(self, tmp_path, compression, make_artifact, length, seed):
        data = (random.Random(seed).randbytes(5000) * (length // 5000 + 1))[:length]
        assert unpacked(tmp_path, make_artifact(tmp_path, data, compression), compression) == data

    @pytest.mark.parametrize("compression", Compression)
    def test_files_of_ours_put_together(self, tmp_path, compression):
        """As the stock tools read them: one after the other, wherever a short block stands."""
        one, other = b"one" * BLOCK, b"other" * BLOCK
        stored = ours(tmp_path, one, compression) + ours(tmp_path, other, compression)
        assert unpacked(tmp_path, stored, compression) == one + other

    @pytest.mark.parametrize("make_artifact", [ours, lambda _folder, *data: others(*data)], ids=["ours", "others"])
    @pytest.mark.parametrize("compression", Compression)
    def test_damage(self, tmp_path, compression, make_artifact):
        stored = make_artifact(tmp_path, random.Random(1).randbytes(BLOCK) * 3, compression)
        with pytest.raises(ArtifactError):
            unpacked(tmp_path, stored[: len(stored) // 2], compression)
        damaged = bytearray(stored)
        damaged[len(stored) // 2] ^= 0x10
        with pytest.raises(ArtifactError):
            unpacked(tmp_path, bytes(damaged), compression)

    @pytest.mark.parametrize("workers", [1, 2])
    def test_given_up(self, tmp_path, workers):
        def step(_done):
            raise StoppedError("enough")

        stored = io.BytesIO(ours(tmp_path, bytes(9 * BLOCK), GZIP))
        with (tmp_path / "written.db").open("wb") as target, pytest.raises(StoppedError, match="enough"):
            unpack.unpack(stored, GZIP, workers, target.fileno(), step)


@pytest.mark.parametrize("length", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 7])
def test_what_a_file_holds(tmp_path, length):
    data = random.Random(length).randbytes(length)
    path = tmp_path / "file"
    path.write_bytes(data)
    xxh3 = xxhash.xxh3_128(data).hexdigest()
    assert unpack.read_back(path) == unpack.FileHash(hashlib.sha256(data).hexdigest(), xxh3, length)
    assert unpack.fast_hash(path) == xxh3


def nothing() -> None:
    pass


class TestProver:
    def test_a_sound_database(self):
        with reading.Prover() as prover:
            proven = prover.prove(SAMPLE, nothing, durable=True, with_tables=True)
        sha256 = hashlib.sha256(SAMPLE.read_bytes()).hexdigest()
        assert proven.fingerprint == check.examine(SAMPLE).fingerprint(sha256, SAMPLE.stat().st_size)
        assert proven.xxh3 == unpack.fast_hash(SAMPLE)
        assert proven.tables == tables.read(SAMPLE, SAMPLE.parent)[0] != {}

    def test_a_damaged_one(self, tmp_path):
        path = make(tmp_path / "damaged.db", "x", rows=2000)
        with path.open("r+b") as file:
            file.seek(5 * 4096)
            file.write(b"\xff" * 4096)
        with pytest.raises(SourceCorruptError) as expected:
            check.examine(path)
        with pytest.raises(SourceCorruptError) as found, reading.Prover() as prover:
            prover.prove(path, nothing)
        assert str(found.value) == str(expected.value)

    def test_no_file(self, tmp_path):
        with pytest.raises((BackupError, FileNotFoundError), match="gone"), reading.Prover() as prover:
            prover.prove(tmp_path / "gone.db", nothing)

    def test_its_process_dies(self, tmp_path):
        """As one does that a disk's error strikes in the middle of a mapped page."""
        path = make(tmp_path / "some.db", "x")
        with reading.Prover() as prover:
            os.kill(prover._process.pid, signal.SIGBUS)
            with pytest.raises(
                BackupError, match=r"some\.db: cannot be checked: .* died: signal 7, bus error; is the disk"
            ):
                prover.prove(path, nothing)

    def test_given_up(self, tmp_path):
        def stop():
            raise StoppedError("by the operator")

        with pytest.raises(StoppedError, match="by the operator"), reading.Prover() as prover:
            prover.prove(SAMPLE, stop)
        assert prover._process.returncode is not None

    def test_not_needed_after_all(self):
        with reading.Prover() as prover:
            pass
        assert prover._process.returncode is not None

    def test_signals_to_the_whole_unit_are_not_for_its_process(self):
        with reading.Prover() as prover:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
                os.kill(prover._process.pid, number)
            assert prover.prove(SAMPLE, nothing).tables == {}

    def test_its_process_cannot_read_the_file(self, tmp_path):
        assert inspector.judge(tmp_path / "gone.db") == inspector.Unknown(
            f"{tmp_path}/gone.db: No such file or directory"
        )


def test_what_the_disk_refuses_is_nothing_about_the_artifact(tmp_path):
    """A real limit on the size of files stands for a full disk; the artifact is as good as before."""
    place = RestorePlace(tmp_path)
    place.source.unlink()
    grow(place.source, 4)
    place.backup()
    target = tmp_path / "restored.db"
    limited = ["sh", "-c", 'ulimit -f 2048; exec "$@"', "sh", *place.command("restore", "--to", str(target))]
    done = subprocess.run(limited, env=place.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert "File too large" in done.stderr
    assert not target.exists()
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]
    assert place.listed()[0]["state"] == "verified"
    assert place.run("restore", "--to", str(target)).returncode == 0
    assert target.read_bytes() == place.source.read_bytes()


class TestInPlace:
    @pytest.fixture
    def house(self, tmp_path):
        """A restore that was broken off once the new database had the target's name."""
        house = RestoreHouse.build(tmp_path / "house", "plain")
        house.break_off(Phase.SWAPPED)
        return house

    def damage(self, house):
        """One bit in the middle, as a bad disk or bad memory would change it: the file's times stay."""
        status = house.target.stat()
        with house.target.open("r+b") as file:
            file.seek(status.st_size // 2)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))
        os.utime(house.target, ns=(status.st_atime_ns, status.st_mtime_ns))

    def without_hash(self, house):
        """The journal as versions wrote it that did not note the bytes."""
        app = house.app()
        journal = journals.load(app.house)
        document = msgspec.json.decode(journals.path_of(app.house).read_bytes())
        assert document.pop("xxh3") == journal.xxh3 == unpack.fast_hash(house.target)
        journals.path_of(app.house).write_bytes(msgspec.json.encode(document))

    @pytest.mark.parametrize("noted", [True, False], ids=["bytes noted", "older journal"])
    def test_untouched(self, house, noted):
        if not noted:
            self.without_hash(house)
        assert house.finish(abort=False).outcome == "success"
        assert content(house.target) == house.new

    @pytest.mark.parametrize("noted", [True, False], ids=["bytes noted", "older journal"])
    def test_a_single_bit(self, house, noted):
        if not noted:
            self.without_hash(house)
        self.damage(house)
        record = house.finish(abort=False)
        assert record.outcome == "rolled-back"
        assert str(house.target) in record.error
        assert bytes_of_set(house.target) == house.files

    def test_a_bit_that_integrity_check_does_not_see(self, house):
        with closing(sqlite3.connect(f"file:{house.target}?immutable=1", uri=True)) as database:
            (text,) = database.execute("SELECT text FROM entries LIMIT 1").fetchone()
        status = house.target.stat()
        raw = house.target.read_bytes()
        house.target.write_bytes(raw.replace(text.encode(), text.encode()[::-1]))
        os.utime(house.target, ns=(status.st_atime_ns, status.st_mtime_ns))
        check.examine(house.target)
        assert house.finish(abort=False).outcome == "rolled-back"
