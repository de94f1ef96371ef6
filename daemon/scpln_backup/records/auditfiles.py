"""The files of the audit log, to be read: the one that is written to, and those that logrotate has put away."""

from __future__ import annotations

import io
import logging
import os
import re
from contextlib import ExitStack, contextmanager
from pathlib import PurePath
from typing import IO, TYPE_CHECKING

import msgspec

from scpln_backup.errors import AuditError
from scpln_backup.records.auditlog import MAX_LINE, Line, parse
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

_PACKED = (".gz", ".xz", ".bz2", ".zst")
_DAMAGE: tuple[type[Exception], ...] = (OSError, EOFError)
_BLOCK = 1 << 16
_LONGEST = 2 * MAX_LINE + 1  # two lines of ours run together are still seen to be two
_TRIES = 5


class Piece(msgspec.Struct, frozen=True):
    """A line of a file, whoever wrote it: number `number`, at offset `start`, `length` bytes with its newline.

    `raw` is without the newline, and cut where it is longer than any two lines of ours. `ended`: there is a newline.
    """

    number: int
    start: int
    length: int
    raw: bytes
    ended: bool

    @property
    def end(self) -> int:
        return self.start + self.length


class LogFile:
    """One file, open, as long as it was when it was opened: what is appended later is not seen."""

    def __init__(self, path: Path, opened: IO[bytes]) -> None:
        self.path = path
        self._opened = opened
        self._size = os.fstat(opened.fileno()).st_size

    @property
    def name(self) -> str:
        return self.path.name

    def pieces(self) -> Iterator[Piece]:
        """Its lines; AuditError when it cannot be read or unpacked to its end."""
        with self._unpacked() as stream:
            number = start = 0
            while raw := stream.readline(_LONGEST):
                number += 1
                length, last = len(raw), raw
                while not last.endswith(b"\n") and (more := stream.readline(_BLOCK)):
                    length, last = length + len(more), more
                yield Piece(number, start, length, raw.removesuffix(b"\n"), ended=last.endswith(b"\n"))
                start += length

    def read(self, start: int, length: int) -> Iterator[bytes]:
        """A part of its content, in handy blocks."""
        with self._unpacked() as stream:
            while start > 0 and (skipped := stream.read(min(start, _BLOCK))):
                start -= len(skipped)
            while length > 0 and (block := stream.read(min(length, _BLOCK))):
                length -= len(block)
                yield block

    @contextmanager
    def _unpacked(self) -> Iterator[IO[bytes]]:
        plain = io.BufferedReader(_Window(self._opened.fileno(), self._size))
        stream, damage = _unpack(plain, self.path.suffix)
        try:
            yield stream
        except damage as error:
            raise AuditError(f"{self.path}: cannot be read to its end ({one_line(error)}); is it damaged?") from error


class _Window(io.RawIOBase):
    """The first `size` bytes of an open file, with a position of its own."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what BufferedReader hands over
        data = os.pread(self._fd, max(0, min(len(buffer), self._size - self._at)), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _unpack(plain: IO[bytes], suffix: str) -> tuple[IO[bytes], tuple[type[Exception], ...]]:
    """The content, and what is raised where it is damaged. A daemon that never reads a packed one loads no unpacker."""
    match suffix:
        case ".gz":
            import gzip  # noqa: PLC0415 - see above
            import zlib  # noqa: PLC0415 - see above

            return io.BufferedReader(gzip.GzipFile(fileobj=plain)), (*_DAMAGE, zlib.error)
        case ".xz":
            import lzma  # noqa: PLC0415 - see above

            return io.BufferedReader(lzma.LZMAFile(plain)), (*_DAMAGE, lzma.LZMAError)
        case ".bz2":
            import bz2  # noqa: PLC0415 - see above

            return io.BufferedReader(bz2.BZ2File(plain)), _DAMAGE
        case ".zst":
            import zstandard  # noqa: PLC0415 - see above

            reader = zstandard.ZstdDecompressor().stream_reader(plain, read_across_frames=True)
            return io.BufferedReader(reader), (*_DAMAGE, zstandard.ZstdError)
    return plain, _DAMAGE


@contextmanager
def opened(log: Path) -> Iterator[list[LogFile]]:
    """The files that are there: the rotated ones by name, the one at `log` itself last.

    A packed file whose unpacked one still stands beside it is left out: logrotate may be writing it. AuditError when
    one may not be read.
    """
    with ExitStack() as stack:
        yield _opened(log, stack)


def _opened(log: Path, stack: ExitStack) -> list[LogFile]:
    for _ in range(_TRIES):
        try:
            return [LogFile(path, stack.enter_context(path.open("rb"))) for path in _paths(log)]
        except FileNotFoundError:  # logrotate has just given it another name
            continue
        except OSError as error:
            message = f"{error.filename}: cannot be read ({error.strerror}); run as root or as the daemon's user"
            raise AuditError(message) from error
    raise AuditError(f"{log}: is being rotated again and again; try again")


def _paths(log: Path) -> list[Path]:
    # backup.log.1, backup.log-20261101, backup.log-20261101.gz and the like (logrotate(8): dateext, dateformat).
    packed = "|".join(map(re.escape, _PACKED))
    rotated = re.compile(rf"{re.escape(log.name)}[.-][0-9][0-9.-]*(?:{packed})?")
    try:
        names = sorted(path.name for path in log.parent.iterdir() if rotated.fullmatch(path.name))
    except FileNotFoundError:
        return []
    plain = {name for name in names if not name.endswith(_PACKED)}
    kept = [name for name in names if name in plain or PurePath(name).stem not in plain]
    return [log.with_name(name) for name in kept] + ([log] if log.exists() else [])


def legible(file: LogFile) -> Iterator[Piece]:
    """Its lines as far as they can be read."""
    try:
        yield from file.pieces()
    except AuditError as error:
        log.warning("%s", error)


def lines(files: Sequence[LogFile], chain: str | None = None) -> Iterator[Line]:
    """Their lines that are as they were written, in order; of one chain, or of all there are.

    What cannot be read is logged and left out.
    """
    begun = [
        (first.at.timestamp(), file) for file in files if (first := next(_lines_of(file, chain), None)) is not None
    ]
    for _, file in sorted(begun, key=lambda pair: pair[0]):
        yield from _lines_of(file, chain)


def _lines_of(file: LogFile, chain: str | None) -> Iterator[Line]:
    found = (line for piece in legible(file) if (line := parse(piece.raw)) is not None)
    return (line for line in found if chain is None or line.chain == chain)
