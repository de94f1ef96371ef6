"""Compress a snapshot, and prove what was written by reading it back."""

from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING, BinaryIO

import msgspec
import xxhash

from scpln_backup.errors import ProofError
from scpln_backup.stages.blocks import BLOCK, Stored, Tally, codec_for, encoded_blocks, on_all_cores
from scpln_backup.stages.copying import read_at
from scpln_backup.support import niceness

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scpln_backup.model import Compression, Preset

_WRITE_BEHIND = 4 * 1024 * 1024


class Compressed(msgspec.Struct, frozen=True):
    """sha256 and size of a copy, and the xxh3-128 of each of its blocks: 128 bits against accidents."""

    raw_sha256: str
    raw_bytes: int
    digests: list[bytes]


def compress(
    copy: Path,
    artifact: Path,
    *,
    compression: Compression,
    preset: Preset,
    workers: int,
    progress: Callable[[int, int], None],
) -> Compressed:
    """Write the new file `artifact`, durably; return what the copy held."""
    codec = codec_for(compression, preset)
    whole = hashlib.sha256()
    digests: list[bytes] = []
    total = copy.stat().st_size
    done = begun = 0

    def read_and_encode(offset: int) -> tuple[bytes, bytes, bytes]:
        block = read_at(source.fileno(), BLOCK, offset)
        if len(block) < min(BLOCK, total - offset):
            raise OSError(errno.EIO, "it has become shorter", str(copy))
        return block, xxhash.xxh3_128_digest(block), codec.encode(block)

    with (
        copy.open("rb", buffering=0) as source,
        os.fdopen(os.open(artifact, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target,
    ):
        os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_NOREUSE)  # as `copying.opened`
        for block, digest, encoded in on_all_cores(read_and_encode, range(0, total, BLOCK), workers):
            whole.update(block)  # by one thread, in order; the rest of the work is for the others
            digests.append(digest)
            target.write(encoded)
            if target.tell() - begun > _WRITE_BEHIND:
                target.flush()
                niceness.begin_writing(target.fileno(), begun, target.tell() - begun)
                begun = target.tell()
            done += len(block)
            progress(done, total)
        target.flush()
        os.fsync(target.fileno())
        # What is proven next should come from the disk rather than from memory; after the fsync the pages are
        # clean and can go.
        os.posix_fadvise(target.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return Compressed(whole.hexdigest(), done, digests)


def prove(artifact: BinaryIO, compression: Compression, workers: int, copied: Compressed) -> Stored:
    """Read an artifact of ours back and compare every block of it with what was copied.

    Raises ArtifactError when it does not decompress, ProofError when it decompresses to something else.  The hashes of
    the blocks are compared, on all cores, and not a sha256, which one core would have to take of them all.
    """
    codec = codec_for(compression)
    tally = Tally()

    def digest(encoded: bytes) -> bytes:
        return xxhash.xxh3_128_digest(codec.decode(encoded))

    found = list(on_all_cores(digest, tally.of(encoded_blocks(artifact, codec)), workers))
    if not found or found != copied.digests:
        raise ProofError("does not decompress to what was copied")
    return tally.stored()
