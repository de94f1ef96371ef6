"""The parts of the work that nobody can leave out, each by itself: what bounds the figures."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from scpln_backup.model import Compression, Preset
from scpln_backup.stages.blocks import BLOCK, codec_for
from scpln_backup.stages.unpack import fast_hash

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_BLOCKS = 96
_MAPPED = 2**31 - 65536  # as much as Debian's library maps


class Floors(NamedTuple):
    """Seconds for the whole database on one core: reading (with a fast hash), a copy, a check, and so on."""

    read: float
    copy: float
    sync: float
    check: float
    encode: dict[Preset, float]
    inflate: float
    sha256: float

    def backup(self, preset: Preset) -> float:
        """A copy; then integrity_check, and on the cores that are left compression and its proof."""
        blocks = self.encode[preset] + self.inflate
        return self.copy + max(self.check, (self.check + blocks) / cores())

    def restore(self) -> float:
        """Inflate and write; then integrity_check, and beside it the sha256."""
        return max(self.copy, (self.inflate + self.copy) / cores()) + max(
            self.check, (self.check + self.sha256) / cores()
        )


def cores() -> int:
    return len(os.sched_getaffinity(0))


def floors(database: Path, scratch: Path) -> Floors:
    """The best of three each, as a floor is."""
    copy = scratch / "copy.db"
    size = database.stat().st_size

    def sync() -> None:
        with copy.open("rb") as file:
            os.fsync(file.fileno())

    def check() -> None:
        with closing(sqlite3.connect(f"file:{copy}?mode=ro&immutable=1", uri=True)) as db:
            db.execute(f"PRAGMA mmap_size = {_MAPPED}")
            if db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                raise RuntimeError(f"{copy}: damaged")

    def timed() -> tuple[float, float]:
        copy.unlink(missing_ok=True)
        return _seconds(lambda: shutil.copyfile(database, copy)), _seconds(sync)

    copied = [timed() for _ in range(3)]
    checked = min(_seconds(check) for _ in range(3))
    blocks = _some(copy)
    share = size / sum(map(len, blocks))
    copy.unlink()

    def each(function: Callable[[bytes], object]) -> float:
        return share * min(_seconds(lambda: [function(block) for block in blocks] and None) for _ in range(3))

    codecs = {preset: codec_for(Compression.GZIP, preset) for preset in (Preset.FAST, Preset.BALANCED)}
    encode = {preset: each(codec.encode) for preset, codec in codecs.items()}
    codec = codecs[Preset.BALANCED]
    stored = [codec.encode(block) for block in blocks]
    inflate = share * min(_seconds(lambda: [codec.decode(block) for block in stored] and None) for _ in range(3))
    return Floors(
        read=min(_seconds(lambda: fast_hash(database)) for _ in range(3)),
        copy=min(seconds for seconds, _ in copied),
        sync=min(seconds for _, seconds in copied),
        check=checked,
        encode=encode,
        inflate=inflate,
        sha256=each(lambda block: hashlib.sha256(block).digest()),
    )


def _some(path: Path) -> list[bytes]:
    """Blocks from all over a file."""
    total = path.stat().st_size // BLOCK
    with path.open("rb") as file:
        return [os.pread(file.fileno(), BLOCK, number * BLOCK) for number in range(0, total, max(1, total // _BLOCKS))]


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
