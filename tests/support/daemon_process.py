"""The real daemon as a process of its own, in a `Place`, with its log to wait on."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from support.place import Place

WAIT = 20.0


class DaemonProcess:
    """Context manager; runs from `__enter__` to `stop`, `__exit__` at the latest."""

    def __init__(self, place: Place, **environment: str) -> None:
        self._place = place
        self._environment = environment
        self._lines: list[str] = []
        self._condition = threading.Condition()
        self._ended = False

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._place.command("serve"),
            env=self._place.environment(**self._environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        try:
            self.url = self.wait_for("; page http://").rpartition(" ")[2]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(WAIT)
        self._reader.join(WAIT)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        """As systemd stops it; it has to end well."""
        self.send(signal.SIGTERM)
        assert self._process.wait(WAIT) == 0, self._lines

    def lines(self, pattern: str) -> list[str]:
        """What it has logged so far, of lines that match."""
        with self._condition:
            return [line for line in self._lines if re.search(pattern, line)]

    def wait_for(self, pattern: str, count: int = 1) -> str:
        """Wait until `count` lines match; the last of them."""
        with self._condition:
            self._condition.wait_for(lambda: self._ended or len(self.lines(pattern)) >= count, WAIT)
            found = self.lines(pattern)
            assert len(found) >= count, f"not {count} lines like {pattern!r} in {self._lines}"
            return found[count - 1]

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._condition:
                self._lines.append(line.rstrip("\n"))
                self._condition.notify_all()
        with self._condition:
            self._ended = True
            self._condition.notify_all()
