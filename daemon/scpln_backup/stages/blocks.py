"""The artifact's format: independent blocks that any gunzip or zstd reads as one stream.

gzip: every MiB of the database is a gzip member of its own (RFC 1952 allows any number of them), and an FEXTRA
subfield "SB" holds the member's whole length, as bgzip does with one of its own.  zstd: every MiB is a frame of its
own behind a skippable frame that holds its length, as pzstd does with another magic number.  The lengths let both
cores inflate side by side; readers that don't know them skip them.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar

import deflate
import msgspec

from scpln_backup.errors import ArtifactError
from scpln_backup.model import Compression, Preset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Executor, Future

T = TypeVar("T")
R = TypeVar("R")

BLOCK = 1024 * 1024
# Blocks in flight keep every worker busy. Of many workers they would be many MiB.
_IN_FLIGHT_PER_WORKER = 3
_WAITING = 4
# Noise grows a little when it is encoded. A greater length is damage, and no reason to ask for gigabytes of memory.
_LONGEST = BLOCK + 64 * 1024

# RFC 1952, 2.3: ID1 ID2 CM FLG(FEXTRA) MTIME XFL OS(unknown) XLEN, then SI1 SI2 LEN and the member's length.
_GZIP_HEADER = struct.Struct("<4sIBBH2sHI")
_GZIP_START = b"\x1f\x8b\x08\x04"
_GZIP_SUBFIELD = b"SB"
_GZIP_EXTRA_SIZE = 8
_GZIP_OS_UNKNOWN = 255
_GZIP_TRAILER = struct.Struct("<II")

# RFC 8878, 3.1.2: a skippable frame of four bytes, the length of the frame that follows. Any of sixteen magic numbers
# will do; 0x184D2A50 is pzstd's, whose frames are longer than our blocks.
_ZSTD_HEADER = struct.Struct("<III")
_ZSTD_SKIPPABLE = 0x184D2A5B


class Codec(Protocol):
    """Turns a block into bytes that stand for themselves, and back; thread-safe, without the interpreter's lock."""

    header_size: int

    def encode(self, block: bytes) -> bytes: ...

    def decode(self, encoded: bytes) -> bytes | bytearray:
        """Raise ArtifactError when the block's own checksum says that it is damaged."""

    def length(self, header: bytes) -> int | None:
        """The whole encoded length that a block's first bytes tell, None when we did not write it."""


class GzipCodec:
    header_size = _GZIP_HEADER.size

    def __init__(self, preset: Preset) -> None:
        self._deflate = _DEFLATE[preset]

    def encode(self, block: bytes) -> bytes:
        body = self._deflate(block)
        length = _GZIP_HEADER.size + len(body) + _GZIP_TRAILER.size
        head = _GZIP_HEADER.pack(_GZIP_START, 0, 0, _GZIP_OS_UNKNOWN, _GZIP_EXTRA_SIZE, _GZIP_SUBFIELD, 4, length)
        return b"".join((head, body, _GZIP_TRAILER.pack(deflate.crc32(block), len(block))))

    def decode(self, encoded: bytes) -> bytearray:
        checksum, size = _GZIP_TRAILER.unpack(encoded[-_GZIP_TRAILER.size :])
        if size > BLOCK:
            msg = "a block is damaged: its length is impossible"
            raise ArtifactError(msg)
        body = memoryview(encoded)[_GZIP_HEADER.size : -_GZIP_TRAILER.size]
        try:
            block = deflate.deflate_decompress(body, size) if size else bytearray()
        except deflate.DeflateError as error:
            msg = f"a block is damaged: {error}"
            raise ArtifactError(msg) from error
        if len(block) != size or deflate.crc32(block) != checksum:
            msg = "a block is damaged: its checksum is wrong"
            raise ArtifactError(msg)
        return block

    def length(self, header: bytes) -> int | None:
        if len(header) < _GZIP_HEADER.size:
            return None
        start, _, _, _, extra, subfield, _, length = _GZIP_HEADER.unpack(header)
        ours = (start, extra, subfield) == (_GZIP_START, _GZIP_EXTRA_SIZE, _GZIP_SUBFIELD)
        possible = _GZIP_HEADER.size + _GZIP_TRAILER.size <= length <= _LONGEST
        return int(length) if ours and possible else None


class ZstdCodec:
    header_size = _ZSTD_HEADER.size

    def __init__(self, preset: Preset) -> None:
        self._level = _ZSTD_LEVEL[preset]

    def encode(self, block: bytes) -> bytes:
        import zstandard  # noqa: PLC0415 - only where zstd is configured

        # A compressor serves one thread at a time; making one costs little beside a MiB.
        frame = zstandard.ZstdCompressor(level=self._level, write_checksum=True).compress(block)
        return _ZSTD_HEADER.pack(_ZSTD_SKIPPABLE, 4, len(frame)) + frame

    def decode(self, encoded: bytes) -> bytes:
        import zstandard  # noqa: PLC0415 - as above

        frame = memoryview(encoded)[_ZSTD_HEADER.size :]
        try:
            # decompress() would allocate whatever size the frame claims; -1 where it claims none.
            if zstandard.frame_content_size(frame) > BLOCK:
                msg = "a block is damaged: its length is impossible"
                raise ArtifactError(msg)
            return zstandard.ZstdDecompressor().decompress(frame, max_output_size=BLOCK, allow_extra_data=False)
        except zstandard.ZstdError as error:
            msg = f"a block is damaged: {error}"
            raise ArtifactError(msg) from error

    def length(self, header: bytes) -> int | None:
        if len(header) < _ZSTD_HEADER.size:
            return None
        magic, size, length = _ZSTD_HEADER.unpack(header)
        ours = (magic, size) == (_ZSTD_SKIPPABLE, 4)
        return _ZSTD_HEADER.size + length if ours and length <= _LONGEST else None


def _igzip(block: bytes) -> bytes:
    from isal import isal_zlib  # noqa: PLC0415 - only where the preset asks for it

    return isal_zlib.compress(block, 1, wbits=-zlib.MAX_WBITS)


_DEFLATE: dict[Preset, Callable[[bytes], bytes | bytearray]] = {
    Preset.FAST: _igzip,
    Preset.BALANCED: lambda block: deflate.deflate_compress(block, 6),
    Preset.SMALL: lambda block: deflate.deflate_compress(block, 8),
}
_ZSTD_LEVEL = {Preset.FAST: 1, Preset.BALANCED: 3, Preset.SMALL: 15}


def codec_for(compression: Compression, preset: Preset = Preset.BALANCED) -> Codec:
    return GzipCodec(preset) if compression is Compression.GZIP else ZstdCodec(preset)


def written_here(file: BinaryIO, codec: Codec) -> bool:
    """Whether the file begins with a block of ours; leaves the file at its start."""
    file.seek(0)
    ours = codec.length(file.read(codec.header_size)) is not None
    file.seek(0)
    return ours


def encoded_blocks(file: BinaryIO, codec: Codec) -> Iterator[bytes]:
    """The blocks of an artifact of ours as they are stored, in order."""
    while header := file.read(codec.header_size):
        length = codec.length(header)
        if length is None:
            msg = f"not a block at offset {file.tell() - len(header)}"
            raise ArtifactError(msg)
        rest = file.read(length - len(header))
        if len(header) + len(rest) < length:
            msg = "the last block is cut off"
            raise ArtifactError(msg)
        yield header + rest


class Stored(msgspec.Struct, frozen=True):
    """What an artifact itself is."""

    sha256: str
    size_bytes: int


class Tally:
    """What passes through it makes up an artifact."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._size = 0

    def of(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._sha256.update(piece)
            self._size += len(piece)
            yield piece

    def stored(self) -> Stored:
        return Stored(self._sha256.hexdigest(), self._size)


def on_all_cores(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """`map` by so many workers, in order, that holds few items at a time: memory does not grow with the input."""
    if workers == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from in_order(pool, function, items, min(workers * _IN_FLIGHT_PER_WORKER, workers + _WAITING))


def in_order(pool: Executor, function: Callable[[T], R], items: Iterable[T], window: int) -> Iterator[R]:
    """`pool.map` that holds at most `window` items at a time."""
    pending: deque[Future[R]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) >= window:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
