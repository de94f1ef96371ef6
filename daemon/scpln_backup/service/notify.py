"""What systemd is told (sd_notify(3)). Without $NOTIFY_SOCKET nothing is sent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MICROSECONDS = 1_000_000

# systemd shows the last status only; a line per percent and second is plenty.
STATUS_INTERVAL_SECONDS = 1.0


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds between two signs of life: a third of $WATCHDOG_USEC; None when nobody watches this process.

    sd_watchdog_enabled(3) asks for less than half, and to heed $WATCHDOG_PID.
    """
    microseconds = environ.get("WATCHDOG_USEC", "")
    watched = environ.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or int(microseconds) == 0 or (watched and watched != str(pid)):
        return None
    return int(microseconds) / MICROSECONDS / 3


class Notifier:
    """Sends the states of the service; all methods belong to one thread.

    `environ` decides whether there is a socket to talk to; sdnotify itself finds it in os.environ.
    """

    def __init__(self, environ: Mapping[str, str], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._notifier = None
        self._shown: str | None = None
        self._shown_at = float("-inf")
        if environ.get("NOTIFY_SOCKET"):
            import sdnotify  # noqa: PLC0415 - only under systemd; without a socket it would leak one

            self._notifier = sdnotify.SystemdNotifier()

    @property
    def connected(self) -> bool:
        """Whether anybody listens, so that a status is worth composing."""
        return self._notifier is not None

    def close(self) -> None:
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.close()

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self) -> None:
        # MONOTONIC_USEC is what Type=notify-reload asks for; an older systemd ignores it.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def extend_timeout(self, seconds: float) -> None:
        """Asks for `seconds` more before systemd kills a stopping service; still a sign of life."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * MICROSECONDS)}\nWATCHDOG=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def status(self, text: str) -> float | None:
        """Shows `text` if it is new; seconds until it may be shown when the last one is too fresh, else None."""
        if text == self._shown:
            return None
        early = self._shown_at + STATUS_INTERVAL_SECONDS - self._monotonic()
        if early > 0:
            return early
        self._shown, self._shown_at = text, self._monotonic()
        self._send("STATUS=" + " ".join(text.split()))
        return None

    def _send(self, message: str) -> None:
        if self._notifier is not None:
            # sdnotify encodes as Latin-1 and drops what does not fit; systemd wants UTF-8.
            self._notifier.notify(message.encode().decode("latin-1"))
