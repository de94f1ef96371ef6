"""Running the worker process: the request out, its messages in, and its end when the run is given up."""

from __future__ import annotations

import selectors
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import BackupError, StoppedError
from scpln_backup.events import Announcer, Progressed, StageEntered
from scpln_backup.stages import worker
from scpln_backup.support import niceness
from scpln_backup.support.command import SHIELDED, ending, start_worker

if TYPE_CHECKING:
    import subprocess
    import threading
    from collections.abc import Iterator

_CANCEL_LOOK_SECONDS = 0.25
_READ_SIZE = 65536

_decoder = msgspec.json.Decoder(worker.Message)


def work(request: worker.Request, *, lock_fd: int, cancel: threading.Event, announce: Announcer) -> worker.Done:
    """Have a worker do `request`; raise the BackupError it failed with, or StoppedError once `cancel` is set.

    The worker inherits the run lock, so that nobody starts a run beside one whose parent was killed.
    """
    niceness.yield_at_once()  # for this thread, and so for the worker from its begin
    # It is ended by SIGKILL alone: a SIGTERM to the whole unit is for the daemon, which then says why the run ended.
    shield = (*SHIELDED, signal.SIGTERM, signal.SIGINT)
    process = start_worker(worker.__name__, pass_fds=[lock_fd], shield=shield)
    try:
        _send(process, request)
        stage = None
        for message in _messages(process, cancel):
            if isinstance(message, worker.Failed):
                raise message.error()
            if isinstance(message, worker.Done):
                return message
            if message.stage is not stage:
                stage = message.stage
                announce(StageEntered(stage=stage))
            if message.total:
                announce(Progressed(stage=stage, done=message.done, total=message.total))
    finally:
        process.kill()  # it only works in the staging folder, which the caller clears
        status = process.wait()
        _close(process)
    raise BackupError(f"the worker process ended without a result: {ending(status)}")


def _send(process: subprocess.Popen[bytes], request: worker.Request) -> None:
    assert process.stdin is not None  # noqa: S101 - it was opened with a pipe
    with suppress(BrokenPipeError):  # it died already; reading from it tells
        process.stdin.write(msgspec.json.encode(request) + b"\n")
        process.stdin.flush()


def _messages(process: subprocess.Popen[bytes], cancel: threading.Event) -> Iterator[worker.Message]:
    assert process.stdout is not None  # noqa: S101 - as above
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if cancel.is_set():
                raise StoppedError("stopped before it was finished; nothing half-made was kept")
            if not selector.select(_CANCEL_LOOK_SECONDS):
                continue
            data = process.stdout.read1(_READ_SIZE)  # type: ignore[attr-defined]  # a BufferedReader, typed as IO
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from map(_decoder.decode, lines)


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):  # what was still buffered for a dead worker
                stream.close()
