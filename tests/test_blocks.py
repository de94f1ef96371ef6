"""stages/blocks.py: each block stands for itself, and any damage to it is found."""

import gzip
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from scpln_backup.errors import ArtifactError
from scpln_backup.model import Compression, Preset
from scpln_backup.stages.blocks import BLOCK, codec_for, encoded_blocks, in_order, written_here

CODECS = [pytest.param(codec_for(c, p), id=f"{c}-{p}") for c in Compression for p in Preset]
ONE_EACH = [pytest.param(codec_for(compression), id=compression) for compression in Compression]

# What is between noise and nothing: a few bytes, repeated.
contents = st.one_of(
    st.binary(max_size=2000),
    st.builds(lambda piece, times: piece * times, st.binary(max_size=200), st.integers(0, 5000)).map(
        lambda data: data[:BLOCK]
    ),
)


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=25)
@given(data=contents)
def test_round_trip(codec, data):
    encoded = codec.encode(data)
    assert codec.decode(encoded) == data
    assert codec.length(encoded[: codec.header_size]) == len(encoded)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("data", [bytes(BLOCK), os.urandom(BLOCK), b"x", b""], ids=["zeros", "noise", "one", "none"])
def test_round_trip_of_the_extremes(codec, data):
    encoded = codec.encode(data)
    assert codec.decode(encoded) == data
    assert len(encoded) < len(data) + 1024


@pytest.mark.parametrize("preset", list(Preset))
def test_a_block_is_a_gzip_member_and_a_zstd_frame(preset):
    data = b"any reader of the format reads it " * 100
    assert gzip.decompress(codec_for(Compression.GZIP, preset).encode(data)) == data
    encoded = codec_for(Compression.ZSTD, preset).encode(data)
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(encoded), read_across_frames=True) as reader:
        assert reader.read() == data


@pytest.mark.parametrize("codec", ONE_EACH)
@settings(max_examples=300)
@given(data=st.data())
def test_a_damaged_block_is_refused_or_decodes_to_the_same(codec, data):
    """No flipped bit leads to other content, to another exception, or to a huge allocation."""
    original = b"The quick brown fox jumps over the lazy dog. " * 50
    encoded = bytearray(codec.encode(original))
    place = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[place // 8] ^= 1 << place % 8
    try:
        decoded = codec.decode(bytes(encoded))
    except ArtifactError:
        return
    assert decoded == original


@pytest.mark.parametrize("codec", ONE_EACH)
@settings(max_examples=100)
@given(noise=st.binary(min_size=40, max_size=300))
def test_noise_behind_a_header_is_refused(codec, noise):
    encoded = codec.encode(b"")[: codec.header_size] + noise + b"\1"  # a size of no bytes would be an honest block
    with pytest.raises(ArtifactError):
        codec.decode(encoded)


def test_a_frame_that_claims_to_be_huge_is_refused_before_memory_is_asked_for():
    codec = codec_for(Compression.ZSTD)
    header = codec.encode(b"")[: codec.header_size]
    # RFC 8878, 3.1.1.1: a frame with an 8-byte content size of 2^42 bytes, then an empty last block.
    frame = b"\x28\xb5\x2f\xfd" + b"\xe0" + (1 << 42).to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(ArtifactError):
        codec.decode(header + frame)


@pytest.mark.parametrize("codec", ONE_EACH)
def test_a_length_beyond_any_block_is_not_believed(codec):
    """Damage to a length must not make the reader ask for gigabytes."""
    header = bytearray(codec.encode(b"x" * 100)[: codec.header_size])
    header[-1] ^= 0x80
    assert codec.length(bytes(header)) is None


@pytest.mark.parametrize("codec", ONE_EACH)
@given(noise=st.binary(max_size=40))
def test_noise_has_no_length(codec, noise):
    assert codec.length(noise[: codec.header_size]) is None
    assert not written_here(io.BytesIO(noise), codec)


@pytest.mark.parametrize("codec", ONE_EACH)
def test_blocks_are_found_again_in_order(codec):
    parts = [codec.encode(bytes([n]) * n) for n in range(1, 50)]
    file = io.BytesIO(b"".join(parts))
    assert written_here(file, codec)
    assert list(encoded_blocks(file, codec)) == parts


@pytest.mark.parametrize("codec", ONE_EACH)
def test_a_cut_off_file_of_blocks_is_refused(codec):
    parts = [codec.encode(os.urandom(100)) for _ in range(3)]
    whole = b"".join(parts)
    borders = {0, len(parts[0]), len(parts[0]) + len(parts[1])}
    for length in range(len(whole)):
        blocks = encoded_blocks(io.BytesIO(whole[:length]), codec)
        if length in borders:
            list(blocks)  # whole blocks: what is missing shows in the sha256
        else:
            with pytest.raises(ArtifactError):
                list(blocks)


@given(items=st.lists(st.integers(), max_size=60), window=st.integers(1, 9), workers=st.integers(1, 3))
@settings(max_examples=40)
def test_in_order_keeps_order_and_its_window(items, window, workers):
    taken = 0
    most = 0

    def source():
        nonlocal taken
        for item in items:
            taken += 1
            yield item

    with ThreadPoolExecutor(workers) as pool:
        found = []
        for result in in_order(pool, lambda item: item * 2, source(), window):
            found.append(result)
            most = max(most, taken - len(found))
    assert found == [item * 2 for item in items]
    assert most < window


def test_in_order_raises_what_the_function_raised_and_leaves_nobody_waiting():
    entered = threading.Event()

    def fail(item: int) -> int:
        entered.set()
        raise ArtifactError(f"block {item}")

    with ThreadPoolExecutor(2) as pool, pytest.raises(ArtifactError, match="block 0"):
        list(in_order(pool, fail, range(1000), 6))
    assert entered.is_set()
