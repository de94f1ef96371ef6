"""Compress a snapshot, and prove what was written by reading it back."""

from __future__ import annotations

import hashlib
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO, Protocol

import msgspec

from scpln_backup.errors import ArtifactError
from scpln_backup.model import Compression, Preset
from scpln_backup.stages.blocks import BLOCK, IN_FLIGHT_PER_WORKER, codec_for, encoded_blocks, in_order, written_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_CHUNK = 64 * 1024  # of a stream that somebody else wrote


class Packed(msgspec.Struct, frozen=True):
    """sha256 and size of a database, and of its artifact."""

    raw_sha256: str
    raw_bytes: int
    artifact_sha256: str
    artifact_bytes: int


def compress(
    copy: Path,
    artifact: Path,
    *,
    compression: Compression,
    preset: Preset,
    workers: int,
    progress: Callable[[int, int], None],
) -> tuple[str, int]:
    """Write the new file `artifact`, durably; return the copy's sha256 and size."""
    codec = codec_for(compression, preset)
    digest = hashlib.sha256()
    total = copy.stat().st_size
    done = 0

    def blocks(source: BinaryIO) -> Iterator[bytes]:
        nonlocal done
        while block := source.read(BLOCK):
            digest.update(block)
            yield block
            done += len(block)
            progress(done, total)

    with (
        copy.open("rb", buffering=0) as source,
        os.fdopen(os.open(artifact, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target,
        ThreadPoolExecutor(workers) as pool,
    ):
        os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_NOREUSE)  # as `copying.opened`
        window = workers * IN_FLIGHT_PER_WORKER
        target.writelines(in_order(pool, codec.encode, blocks(source), window))
        target.flush()
        os.fsync(target.fileno())
        # What is proven next should come from the disk rather than from memory; after the fsync the pages are
        # clean and can go.
        os.posix_fadvise(target.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return digest.hexdigest(), done


def unpack(
    artifact: BinaryIO,
    compression: Compression,
    workers: int,
    write: Callable[[bytes], object] | None = None,
) -> Packed:
    """Read a whole artifact, ours or another's, and return what it and its content are.

    `write` gets the decompressed database piece by piece.  Raises ArtifactError when it does not decompress.
    """
    stored = hashlib.sha256()
    raw = hashlib.sha256()
    sizes = [0, 0]

    def counted(pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            stored.update(piece)
            sizes[0] += len(piece)
            yield piece

    codec = codec_for(compression)
    with ThreadPoolExecutor(workers) as pool:
        if written_here(artifact, codec):
            encoded = counted(encoded_blocks(artifact, codec))
            pieces = in_order(pool, codec.decode, encoded, workers * IN_FLIGHT_PER_WORKER)
        else:
            pieces = _stream(counted(iter(lambda: artifact.read(_CHUNK), b"")), compression)
        for piece in pieces:
            raw.update(piece)
            sizes[1] += len(piece)
            if write is not None:
                write(piece)
    return Packed(raw.hexdigest(), sizes[1], stored.hexdigest(), sizes[0])


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
