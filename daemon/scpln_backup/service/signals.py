"""Signals as flags: a handler notes the number and nothing else; the main loop acts.

`signal.set_wakeup_fd` makes the interpreter write a byte as a signal arrives, so the loop can sleep in select()
without a window in which a signal is missed (https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd).
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

BACKUP_NOW = signal.SIGUSR1
RELOAD = signal.SIGHUP
STOP = frozenset({signal.SIGTERM, signal.SIGINT})

# The command line blocks these two from its first line on: their default action would kill a daemon that is
# still starting. They wait in the kernel until `capture` has its handlers in place.
HELD_BACK_AT_START = frozenset({BACKUP_NOW, RELOAD})
CAPTURED = (BACKUP_NOW, RELOAD, *sorted(STOP))


class Signals:
    """What has arrived since the last look. Made by `capture`; `wait` belongs to the main thread."""

    def __init__(self, reader: socket.socket, writer: socket.socket) -> None:
        self._reader = reader
        self._writer = writer
        self._arrived: set[signal.Signals] = set()

    def wait(self, timeout: float | None) -> frozenset[signal.Signals]:
        """The signals that arrived, each once however many were sent; empty after `timeout` seconds or `wake`."""
        if not self._arrived:
            select.select([self._reader], [], [], timeout)
        self._drain()
        return self._take()

    def wake(self) -> None:
        """Ends a `wait` from any thread."""
        # A full buffer wakes the loop just as well; a closed one has no loop left to wake.
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")

    def note(self, number: int, _frame: FrameType | None) -> None:
        """The handler of every captured signal."""
        self._arrived.add(signal.Signals(number))

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass

    def _take(self) -> frozenset[signal.Signals]:
        # A handler running between these lines adds to the set that is handed out: nothing is lost.
        arrived, self._arrived = self._arrived, set()
        return frozenset(arrived)


@contextlib.contextmanager
def capture() -> Iterator[Signals]:
    """Notes USR1, HUP, TERM and INT while the block lasts, then puts the old handlers back.

    Only in the main thread (ValueError elsewhere). Unblocks USR1 and HUP once the handlers stand.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        signals = Signals(reader, writer)
        # Ten thousand signals fill the buffer; that is fine, since the flags are kept apart from the bytes.
        old_wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        old_handlers = {number: signal.signal(number, signals.note) for number in CAPTURED}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK_AT_START)
        try:
            yield signals
        finally:
            for number, handler in old_handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_wakeup)
