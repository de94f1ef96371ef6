"""Reading an artifact as a restore does: its database into a file, and the proof of what that file then holds."""

from __future__ import annotations

import os
import selectors
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Self

import msgspec

from scpln_backup.errors import BackupError
from scpln_backup.model import Fingerprint, TableFacts  # noqa: TC001 - msgspec reads the annotations at run time
from scpln_backup.stages import blocks, check, inspector, tables, unpack
from scpln_backup.support import files
from scpln_backup.support.command import SHIELDED, ending, start_worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scpln_backup.model import Compression

_LOOK_SECONDS = 0.25
_READ_SIZE = 65536

_decoder = msgspec.json.Decoder(inspector.Verdict)


class Proven(msgspec.Struct, frozen=True):
    """A sound database in a file, as it was read back from it.

    `xxh3` is `unpack.fast_hash` of the file. `tables` are its tables' facts, empty where nobody asked for them.
    """

    fingerprint: Fingerprint
    xxh3: str
    tables: dict[str, TableFacts]


def write(
    file: BinaryIO, compression: Compression, workers: int, copy: Path, step: Callable[[int], None]
) -> blocks.Stored:
    """Decompress an artifact into the new file `copy` (0600); `step` gets the bytes written so far, and may raise.

    Raises ArtifactError when it does not decompress, OSError when it cannot be read or its copy not be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    target = os.open(copy, flags, files.PRIVATE_FILE)
    try:
        return unpack.unpack(file, compression, workers, target, step)
    finally:
        os.close(target)


class Prover:
    """Proves one file. Enter it before the file is written: its process is then ready when the file is."""

    def __enter__(self) -> Self:
        # It is ended by SIGKILL alone: a SIGTERM to the whole unit is for this process, which then gives the work up.
        self._process = start_worker(inspector.__name__, shield=(*SHIELDED, signal.SIGTERM, signal.SIGINT))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # what was still buffered for a dead process
                    stream.close()

    def prove(
        self, copy: Path, go_on: Callable[[], None], *, durable: bool = False, with_tables: bool = False
    ) -> Proven:
        """Check a database that nobody writes, hash it, and sync it to the disk where it is to be `durable`.

        integrity_check reads on one core what is hashed on the other.  `go_on` is called several times a second, and
        raises when the work is to be given up.  Raises the SourceError of what was found, BackupError or OSError when
        the work itself could not be done.
        """
        given_up = threading.Event()
        with ThreadPoolExecutor(1) as beside:
            found = beside.submit(_read, copy, given_up, with_tables=with_tables)
            try:
                self._ask(copy)
                if durable:
                    _sync(copy)
                content = self._answer(copy, go_on)
            except BaseException:
                given_up.set()
                raise
            held, facts = found.result()
        return Proven(content.fingerprint(held.sha256, held.size_bytes), held.xxh3, facts)

    def _ask(self, copy: Path) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it was opened with a pipe
        with suppress(BrokenPipeError):  # it died already; reading from it tells
            self._process.stdin.write(msgspec.json.encode(str(copy)) + b"\n")
            self._process.stdin.flush()

    def _answer(self, copy: Path, go_on: Callable[[], None]) -> check.Content:
        assert self._process.stdout is not None  # noqa: S101 - as above
        answer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not answer.endswith(b"\n"):
                go_on()
                if not selector.select(_LOOK_SECONDS):
                    continue
                data = os.read(self._process.stdout.fileno(), _READ_SIZE)
                if not data:
                    raise BackupError(
                        f"{copy}: cannot be checked: the process that does so has died: {ending(self._process.wait())}"
                    )
                answer += data
        verdict = _decoder.decode(answer)
        if isinstance(verdict, inspector.Sound):
            return verdict.content
        raise verdict.error()


def _read(copy: Path, given_up: threading.Event, *, with_tables: bool) -> tuple[unpack.FileHash, dict[str, TableFacts]]:
    held = unpack.read_back(copy, given_up)
    return held, tables.read(copy, copy.parent)[0] if with_tables else {}


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
