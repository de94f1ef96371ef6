"""The artifact of an unchanged night: the newest one's bytes under a new name.

What is proven tonight, and what is taken over.  The newest artifact is read, and its sha256 is its manifest's; it is
decompressed, and what comes out is compared with the live database byte by byte, and its sha256 is the manifest's;
what was written is read back, and its sha256 is the same again.  So the new artifact decompresses to tonight's
database, as surely as one that was compressed tonight.  `integrity_check` and the counting of rows are not repeated:
these very bytes passed them before, in the same SQLite.  Another SQLite, another version of this program or another
preset makes an artifact of its own (`operations.reuse`).

Never a hard link: one inode would make thirty nights one file, which one write or one chmod would spoil for all.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from scpln_backup.errors import ArtifactError, ProofError, from_os
from scpln_backup.model import Compression, Fingerprint  # noqa: TC001 - msgspec reads the annotations at run time
from scpln_backup.stages.blocks import BLOCK, Codec, Stored, Tally, codec_for, encoded_blocks, on_all_cores
from scpln_backup.stages.copying import fill, opened, write_all
from scpln_backup.support.reflink import reflink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


class Older(msgspec.Struct, frozen=True, kw_only=True):
    """A verified artifact of ours, which the caller keeps from deletion."""

    path: str
    compression: Compression
    bytes: int
    sha256: str
    fingerprint: Fingerprint


class UnreadableError(ArtifactError):
    """The artifact could not be read, which says nothing about what it holds."""


class Content:
    """The database in an older artifact: what the source may still be (`copying.Known`)."""

    def __init__(self, older: Older, workers: int) -> None:
        self._older, self._workers = older, workers

    @property
    def size_bytes(self) -> int:
        return self._older.fingerprint.size_bytes

    @property
    def sha256(self) -> str:
        return self._older.fingerprint.sha256

    def each(self, function: Callable[[int, bytes | bytearray], T]) -> Iterator[T]:
        """Decompress the artifact.

        Raises ArtifactError when it does not, or is not what its manifest says, UnreadableError when it cannot be read.
        """
        older = self._older
        codec = codec_for(older.compression)
        tally = Tally()

        def decoded(numbered: tuple[int, bytes]) -> T:
            number, encoded = numbered
            return function(number * BLOCK, codec.decode(encoded))

        yield from on_all_cores(decoded, enumerate(tally.of(self._encoded(codec))), self._workers)
        if tally.stored() != Stored(older.sha256, older.bytes):
            raise ArtifactError("its sha256 differs from the manifest's: the file was changed or damaged")

    def _encoded(self, codec: Codec) -> Iterator[bytes]:
        # A generator of its own, that no other file's error be taken for one of this.
        try:
            with Path(self._older.path).open("rb") as file:
                yield from encoded_blocks(file, codec)
        except OSError as error:
            error.filename = self._older.path  # which a read does not say
            raise UnreadableError(str(from_os(error))) from error


def duplicate(older: Older, artifact: Path) -> None:
    """Give the new file `artifact` the older one's bytes, durably; ProofError when it does not read back as those."""
    with (
        opened(Path(older.path), os.O_RDONLY) as source,
        opened(artifact, os.O_RDWR | os.O_CREAT | os.O_EXCL) as target,
    ):
        if not reflink(source, target):
            for offset, piece in _pieces(source):
                write_all(target, piece, offset)
        os.fsync(target)
        # What is proven next should come from the disk rather than from memory, as in `pack.compress`.
        os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)
        written = hashlib.sha256()
        for _, piece in _pieces(target):
            written.update(piece)
        for descriptor in (source, target):  # nobody reads an artifact again soon
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    if written.hexdigest() != older.sha256:
        raise ProofError(f"{artifact}: what was written is not what {older.path} holds; is the disk healthy?")


def _pieces(descriptor: int) -> Iterator[tuple[int, memoryview]]:
    """The file's bytes, each piece with its offset; one is valid until the next is asked for."""
    buffer = memoryview(bytearray(BLOCK))
    offset = 0
    while piece := buffer[: fill(descriptor, buffer, offset)]:
        yield offset, piece
        offset += len(piece)
