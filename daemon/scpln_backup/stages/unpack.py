"""Write an artifact's database into a file, and read back what the file holds."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, BinaryIO

import msgspec
import xxhash

from scpln_backup.errors import StoppedError
from scpln_backup.stages import blocks, stream

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from scpln_backup.model import Compression

_READ = 1024 * 1024


class FileHash(msgspec.Struct, frozen=True):
    """What a file holds. `xxh3` tells whether it is still the same bytes, for a fifth of the time `sha256` takes."""

    sha256: str
    xxh3: str
    size_bytes: int


def unpack(
    artifact: BinaryIO, compression: Compression, workers: int, target: int, step: Callable[[int], None]
) -> blocks.Stored:
    """Write the database of an artifact, ours or another's, into the new file that the descriptor `target` is of.

    `step` gets the bytes done so far, in the calling thread, and may raise.  What was written is not hashed on the way:
    `read_back` does so while the database is being checked, when a core is free, and proves more.  Raises
    ArtifactError when the artifact does not decompress.
    """
    codec = blocks.codec_for(compression)
    if blocks.written_here(artifact, codec):
        try:
            return _block_by_block(artifact, codec, workers, target, step)
        except _ShortBlockError:  # artifacts of ours that somebody put together in one file
            os.ftruncate(target, 0)
    done = 0

    def write(piece: bytes | bytearray) -> None:
        nonlocal done
        _write_all(target, piece, done)
        done += len(piece)
        step(done)

    packed = stream.unpack(artifact, compression, workers, write)
    return packed.stored


class _ShortBlockError(Exception):
    """A block that is not the last holds less than the others."""


def _block_by_block(
    artifact: BinaryIO, codec: blocks.Codec, workers: int, target: int, step: Callable[[int], None]
) -> blocks.Stored:
    """Each worker inflates a block and writes it where it belongs, for all but the last are of one length.

    Handing the blocks to one thread to write them in order takes half as long again: their memory would go from one
    core's cache, and one heap, to another's.
    """
    tally = blocks.Tally()

    def place(block: tuple[int, bytes]) -> int:
        number, encoded = block
        piece = codec.decode(encoded)
        _write_all(target, piece, number * blocks.BLOCK)
        return len(piece)

    whole = True
    done = 0
    for length in blocks.on_all_cores(place, enumerate(tally.of(blocks.encoded_blocks(artifact, codec))), workers):
        if not whole:
            raise _ShortBlockError
        whole = length == blocks.BLOCK
        done += length
        step(done)
    return tally.stored()


def _write_all(descriptor: int, piece: bytes | bytearray, offset: int) -> None:
    rest = memoryview(piece)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def read_back(path: Path, given_up: threading.Event | None = None) -> FileHash:
    """The hashes of a file, read once; StoppedError once nobody waits for them any more."""
    sha256, xxh3 = hashlib.sha256(), xxhash.xxh3_128()
    size = 0
    for piece in _pieces(path):
        if given_up is not None and given_up.is_set():
            raise StoppedError(f"{path}: reading it was given up")
        sha256.update(piece)
        xxh3.update(piece)
        size += len(piece)
    return FileHash(sha256.hexdigest(), xxh3.hexdigest(), size)


def fast_hash(path: Path) -> str:
    """`FileHash.xxh3` of a file: 128 bits against accidents, not against forgery."""
    xxh3 = xxhash.xxh3_128()
    for piece in _pieces(path):
        xxh3.update(piece)
    return xxh3.hexdigest()


def _pieces(path: Path) -> Iterator[memoryview]:
    """A file's bytes; each piece is overwritten by the next."""
    buffer = memoryview(bytearray(_READ))
    with path.open("rb", buffering=0) as file:
        while length := file.readinto(buffer):
            yield buffer[:length]
