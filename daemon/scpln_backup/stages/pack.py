"""Compress a snapshot, and prove what was written by reading it back."""

from __future__ import annotations

import errno
import hashlib
import os
import zlib
from typing import TYPE_CHECKING, BinaryIO, Protocol

import msgspec
import xxhash

from scpln_backup.errors import ArtifactError, ProofError
from scpln_backup.model import Compression, Preset
from scpln_backup.stages.blocks import BLOCK, Stored, Tally, codec_for, encoded_blocks, on_all_cores, written_here
from scpln_backup.stages.copying import read_at
from scpln_backup.support import niceness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_WRITE_BEHIND = 4 * 1024 * 1024
_CHUNK = 64 * 1024  # of a stream that somebody else wrote


class Compressed(msgspec.Struct, frozen=True):
    """sha256 and size of a copy, and the xxh3-128 of each of its blocks: 128 bits against accidents."""

    raw_sha256: str
    raw_bytes: int
    digests: list[bytes]


class Packed(msgspec.Struct, frozen=True):
    """sha256 and size of a database, and its artifact's."""

    raw_sha256: str
    raw_bytes: int
    stored: Stored


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


def unpack(
    artifact: BinaryIO,
    compression: Compression,
    workers: int,
    write: Callable[[bytes | bytearray], object] | None = None,
) -> Packed:
    """Read a whole artifact, ours or another's, and return what it and its content are.

    `write` gets the decompressed database piece by piece.  Raises ArtifactError when it does not decompress.
    """
    raw = hashlib.sha256()
    size = 0
    tally = Tally()
    codec = codec_for(compression)
    if written_here(artifact, codec):
        pieces = on_all_cores(codec.decode, tally.of(encoded_blocks(artifact, codec)), workers)
    else:
        pieces = _stream(tally.of(iter(lambda: artifact.read(_CHUNK), b"")), compression)
    for piece in pieces:
        raw.update(piece)
        size += len(piece)
        if write is not None:
            write(piece)
    return Packed(raw.hexdigest(), size, tally.stored())


def _stream(chunks: Iterator[bytes], compression: Compression) -> Iterator[bytes]:
    """Decompress what somebody else wrote: any number of gzip members or zstd frames, one after another."""
    new_member = _gzip_member if compression is Compression.GZIP else _zstd_frame
    member = new_member()
    started = False
    for chunk in chunks:
        data = chunk
        while data:
            if member.eof:
                data = data.lstrip(b"\0")  # gzip(1) ignores zero padding behind the last member
                if not data:
                    break
                member = new_member()
            try:
                piece, data = member.feed(data)
            except ValueError as error:
                msg = f"does not decompress: {error}"
                raise ArtifactError(msg) from error
            started = True
            yield piece
    if not started or not member.eof:
        msg = "does not decompress: the file is cut off"
        raise ArtifactError(msg)


class _Member(Protocol):
    """One gzip member or zstd frame being decompressed."""

    @property
    def eof(self) -> bool: ...

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return a piece of bounded size and the input still to be fed; ValueError when it is damaged."""


class _GzipMember:
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(zlib.MAX_WBITS | 16)  # header and trailer, whose checksum zlib compares

    @property
    def eof(self) -> bool:
        return self._stream.eof

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        try:
            piece = self._stream.decompress(data, BLOCK)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        return piece, self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail


class _ZstdFrame:
    # zstandard's object has no bound on its output but the input's size: four bytes may become 128 KiB (RFC 8878,
    # 3.1.1.2), so these become 32 MiB at most.
    _SLICE = 1024

    def __init__(self) -> None:
        import zstandard  # noqa: PLC0415 - only where zstd is used

        self._error = zstandard.ZstdError
        self._stream = zstandard.ZstdDecompressor().decompressobj()

    @property
    def eof(self) -> bool:
        return self._stream.eof

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        try:
            piece = self._stream.decompress(data[: self._SLICE])
        except self._error as error:
            raise ValueError(str(error)) from error
        return piece, self._stream.unused_data + data[self._SLICE :]


def _gzip_member() -> _Member:
    return _GzipMember()


def _zstd_frame() -> _Member:
    return _ZstdFrame()
