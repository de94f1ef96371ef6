"""Read an artifact from its beginning to its end, whoever wrote it."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING, BinaryIO, Protocol

import msgspec

from scpln_backup.errors import ArtifactError
from scpln_backup.model import Compression
from scpln_backup.stages.blocks import BLOCK, Stored, Tally, codec_for, encoded_blocks, on_all_cores, written_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK = 64 * 1024  # of a stream that somebody else wrote


class Packed(msgspec.Struct, frozen=True):
    """sha256 and size of a database, and its artifact's."""

    raw_sha256: str
    raw_bytes: int
    stored: Stored


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
