"""stages/pack.py and stream.py: what is compressed comes back, with the stock tools too, and what was damaged does not pass."""

import gzip
import hashlib
import io
import os
import random
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scpln_backup.errors import ArtifactError
from scpln_backup.model import Compression, Preset
from scpln_backup.stages.blocks import BLOCK, Stored
from scpln_backup.stages.pack import compress
from scpln_backup.stages.stream import Packed, unpack
from support.databases import SAMPLE

BOTH = list(Compression)
GZIP, ZSTD = Compression.GZIP, Compression.ZSTD


def nothing(_done: int, _total: int) -> None:
    pass


def pack(folder: Path, data: bytes, compression: Compression, preset: Preset = Preset.BALANCED) -> Path:
    """A new artifact of `data`, whose copy's hash and size are what they should be."""
    copy, artifact = folder / "copy.db", folder / f"artifact{compression.suffix}"
    copy.write_bytes(data)
    artifact.unlink(missing_ok=True)
    result = compress(copy, artifact, compression=compression, preset=preset, workers=2, progress=nothing)
    assert (result.raw_sha256, result.raw_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    return artifact


def read(stored: bytes, compression: Compression) -> tuple[Packed, bytes]:
    pieces: list[bytes] = []
    packed = unpack(io.BytesIO(stored), compression, 2, pieces.append)
    return packed, b"".join(pieces)


def expect(stored: bytes, data: bytes, compression: Compression) -> None:
    packed, found = read(stored, compression)
    assert found == data
    assert packed == Packed(
        hashlib.sha256(data).hexdigest(), len(data), Stored(hashlib.sha256(stored).hexdigest(), len(stored))
    )


def stock(*command: str, data: bytes | None = None) -> bytes:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def long_data() -> bytes:
    """Two blocks and a bit: the sample, noise, nothing, and the sample again."""
    sample = SAMPLE.read_bytes()
    return sample + random.Random(1).randbytes(300_000) + bytes(500_000) + sample[:400_001]


@pytest.mark.parametrize("compression", BOTH)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    around=st.sampled_from([1, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK]), tail=st.binary(min_size=1, max_size=300)
)
def test_round_trip_around_the_borders_of_blocks(tmp_path, compression, around, tail):
    data = (tail * (around // len(tail) + 1))[:around] + tail
    expect(pack(tmp_path, data, compression).read_bytes(), data, compression)


@pytest.mark.parametrize("compression", BOTH)
@pytest.mark.parametrize("preset", list(Preset))
def test_round_trip_of_every_preset(tmp_path, long_data, compression, preset):
    expect(pack(tmp_path, long_data, compression, preset).read_bytes(), long_data, compression)


def test_balanced_is_no_larger_than_gzip_6(tmp_path):
    data = SAMPLE.read_bytes()
    assert pack(tmp_path, data, GZIP).stat().st_size <= len(gzip.compress(data, 6))


def test_presets_trade_time_for_size(tmp_path, long_data):
    for compression in BOTH:
        sizes = [pack(tmp_path, long_data, compression, preset).stat().st_size for preset in Preset]
        assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("compression", BOTH)
def test_an_artifact_of_nothing_is_never_called_good(tmp_path, compression):
    with pytest.raises(ArtifactError, match="cut off"):
        read(pack(tmp_path, b"", compression).read_bytes(), compression)


def test_the_artifact_is_private_new_and_its_progress_told(tmp_path, long_data):
    copy, artifact = tmp_path / "copy.db", tmp_path / "artifact"
    copy.write_bytes(long_data)
    told = []
    again = {"compression": GZIP, "preset": Preset.FAST, "workers": 2}
    compress(copy, artifact, **again, progress=lambda done, total: told.append((done, total)))
    assert artifact.stat().st_mode & 0o777 == 0o600
    assert told == [(BLOCK, len(long_data)), (2 * BLOCK, len(long_data)), (len(long_data), len(long_data))]
    with pytest.raises(FileExistsError):
        compress(copy, artifact, **again, progress=nothing)


# The stock tools read ours


@pytest.mark.parametrize("preset", list(Preset))
def test_gunzip_and_python_read_it(tmp_path, long_data, preset):
    artifact = pack(tmp_path, long_data, GZIP, preset)
    assert stock("gunzip", "-c", str(artifact)) == long_data
    assert stock("gzip", "-t", str(artifact)) == b""
    with gzip.open(artifact) as file:
        assert file.read() == long_data


@pytest.mark.parametrize("preset", list(Preset))
@pytest.mark.parametrize("tool", ["zstd", "pzstd"])
def test_zstd_reads_it(tmp_path, long_data, preset, tool):
    artifact = pack(tmp_path, long_data, ZSTD, preset)
    assert stock(tool, "-dcq", str(artifact)) == long_data


# We read what the stock tools wrote


@pytest.mark.parametrize(
    ("compression", "command"),
    [
        (GZIP, ["gzip", "-6c"]),
        (GZIP, ["gzip", "-1c", "--no-name"]),
        (ZSTD, ["zstd", "-c"]),
        (ZSTD, ["zstd", "-c", "--no-check", "--no-content-size"]),
        (ZSTD, ["zstd", "-c", "--long=27"]),
        (ZSTD, ["pzstd", "-c"]),
    ],
    ids=lambda value: "" if isinstance(value, Compression) else " ".join(value),
)
def test_streams_of_others(long_data, compression, command):
    expect(stock(*command, data=long_data), long_data, compression)


@pytest.mark.parametrize("name", [True, False])
def test_a_gzip_member_with_a_name_in_its_header(tmp_path, long_data, name):
    (tmp_path / "scpln.db").write_bytes(long_data)
    expect(stock("gzip", "-c" if name else "-cn", str(tmp_path / "scpln.db")), long_data, GZIP)


def member(data: bytes, compression: Compression) -> bytes:
    if compression is GZIP:
        return gzip.compress(data, 1)
    return zstandard.ZstdCompressor(level=1, write_checksum=True).compress(data)


@pytest.mark.parametrize("compression", BOTH)
def test_members_one_behind_another(long_data, compression):
    cuts = [0, 1, 70_000, BLOCK + 7, BLOCK + 7, len(long_data)]
    parts = [long_data[a:b] for a, b in pairwise(cuts)]
    expect(b"".join(member(part, compression) for part in parts), long_data, compression)


@pytest.mark.parametrize("compression", BOTH)
@pytest.mark.parametrize("zeros", [1, 511, 3 * BLOCK])
def test_zero_padding_is_ignored_as_gzip_does(compression, zeros):
    """Tapes and block devices pad; the zeros are part of the artifact's hash and not of the database's."""
    data = b"padded" * 1000
    expect(member(data, compression) + bytes(zeros), data, compression)


@pytest.mark.parametrize("compression", BOTH)
@pytest.mark.parametrize("garbage", [b"x", b"\0\0x", b"\x1f\x8b", b"garbage behind the last member"])
def test_garbage_behind_the_end_is_refused(compression, garbage):
    with pytest.raises(ArtifactError):
        read(member(b"data" * 1000, compression) + garbage, compression)


@pytest.mark.parametrize("compression", BOTH)
def test_every_truncation_of_a_stream_is_refused(compression):
    stored = member(random.Random(2).randbytes(300), compression)
    for length in range(len(stored)):
        with pytest.raises(ArtifactError):
            read(stored[:length], compression)


@pytest.mark.parametrize("compression", BOTH)
@given(noise=st.binary(max_size=200))
def test_noise_is_refused(compression, noise):
    with pytest.raises(ArtifactError):
        read(noise, compression)


@pytest.mark.parametrize("compression", BOTH)
@pytest.mark.parametrize("other", ["the other format", "a database", "zeros"])
def test_other_files_are_refused(tmp_path, compression, other):
    wrong = {
        "the other format": member(b"x" * 1000, ZSTD if compression is GZIP else GZIP),
        "a database": SAMPLE.read_bytes(),
        "zeros": bytes(100_000),
    }[other]
    with pytest.raises(ArtifactError):
        read(wrong, compression)


@pytest.mark.parametrize(("compression", "bound"), [(GZIP, BLOCK), (ZSTD, 32 * BLOCK)])
def test_a_stream_that_swells_is_handed_on_in_pieces(compression, bound):
    """Zeros swell a thousandfold with gzip and more with zstd: memory must not."""
    largest = 0

    def measure(piece: bytes) -> None:
        nonlocal largest
        largest = max(largest, len(piece))

    packed = unpack(io.BytesIO(member(bytes(80 * BLOCK), compression)), compression, 2, measure)
    assert packed.raw_bytes == 80 * BLOCK
    assert largest <= bound


# Damage


@pytest.mark.parametrize("compression", BOTH)
def test_any_flipped_bit_is_noticed(tmp_path, compression):
    """Most are refused; those in a field that means nothing (a gzip member's time) show in the artifact's hash."""
    data = SAMPLE.read_bytes() + os.urandom(60_000)
    stored = pack(tmp_path, data, compression).read_bytes()
    good, _ = read(stored, compression)
    rng = random.Random(3)
    silent = 0
    for _ in range(1000):
        damaged = bytearray(stored)
        place = rng.randrange(len(stored) * 8)
        damaged[place // 8] ^= 1 << place % 8
        try:
            packed = unpack(io.BytesIO(damaged), compression, 2)
        except ArtifactError:
            continue
        silent += 1
        assert packed.stored != good.stored
    assert silent < 20


@pytest.mark.parametrize("compression", BOTH)
def test_any_truncation_is_noticed(tmp_path, long_data, compression):
    stored = pack(tmp_path, long_data, compression).read_bytes()
    good, _ = read(stored, compression)
    rng = random.Random(4)
    for length in [0, 1, 11, 19, 20, len(stored) - 1, *(rng.randrange(len(stored)) for _ in range(50))]:
        try:
            packed = unpack(io.BytesIO(stored[:length]), compression, 2)
        except ArtifactError:
            continue
        assert (packed.raw_sha256, packed.raw_bytes) != (good.raw_sha256, good.raw_bytes)


@pytest.mark.parametrize("compression", BOTH)
def test_blocks_in_another_order_are_noticed(tmp_path, long_data, compression):
    first, second = (pack(tmp_path, part, compression).read_bytes() for part in (long_data[:BLOCK], long_data[BLOCK:]))
    expect(first + second, long_data, compression)
    assert read(second + first, compression)[0].raw_sha256 != hashlib.sha256(long_data).hexdigest()
