"""Starting deliveries, each in a process of its own, and waiting for them."""

from __future__ import annotations

import logging
import signal
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from scpln_backup.errors import CatalogError, DeliveryError
from scpln_backup.observers.courier import LETTER_LIMIT_SECONDS, note_failure
from scpln_backup.service import deliver
from scpln_backup.support.command import start_worker

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

    from scpln_backup.app import App
    from scpln_backup.records.outbox import Cause, Entry

log = logging.getLogger(__name__)

_AFTER_DEATH_SECONDS = 10.0


def deliver_now(app: App, limit_seconds: float) -> list[str]:
    """Deliver to every channel that something is due for, side by side; return those that were not done in time.

    What did not get through stays in the outbox, for the daemon or the timer.
    """
    deliveries = [Delivery(app, name) for name in app.due_channels(app.now())]
    threads = [threading.Thread(target=delivery.run, daemon=True) for delivery in deliveries]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + limit_seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = [delivery.channel for delivery, thread in zip(deliveries, threads, strict=True) if thread.is_alive()]
    for delivery, thread in zip(deliveries, threads, strict=True):
        delivery.stop()
        thread.join()
    return late


def send_test(app: App, channel: str, user: str) -> str | None:
    """Send a test message through a channel; return why it did not get through."""
    return Delivery(app, channel).test(user)


class Delivery:
    """One process that delivers to one channel. `run` blocks; `stop`, from another thread, ends the process."""

    def __init__(self, app: App, channel: str) -> None:
        self._app = app
        self.channel = channel
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def run(self) -> float:
        """Deliver what is loose and what waits in the outbox. What does not get through is noted, or kept.

        Returns for how many seconds the channel is to be left alone: 0 when all is told.
        """
        wait = self._deliver_loose()
        if wait:
            return wait
        result = self._ask()
        if result is None:
            return _AFTER_DEATH_SECONDS
        return result.wait_seconds

    def _deliver_loose(self) -> float:
        """One entry a process, so that each that got through is known to have."""
        recorder = self._app.recorder
        while recorder is not None and (taken := recorder.begin(self.channel)) is not None:
            entry, doubtful = taken
            result = None
            try:
                result = self._ask(entry, recorder.causes(self.channel), doubtful=doubtful)
            finally:
                told = result is not None and result.error is None
                unsure = result is None or result.unsure
                causes = result.causes if result is not None else {}
                recorder.end(self.channel, entry, told=told, unsure=unsure, causes=causes)
            if result is None or result.error is not None:
                return result.wait_seconds or _AFTER_DEATH_SECONDS if result is not None else _AFTER_DEATH_SECONDS
        return 0.0

    def stop(self) -> None:
        """End it now; a letter that was on its way is looked up before it is sent again."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def test(self, user: str) -> str | None:
        """Send a test message; return why it did not get through."""
        code, result = self._start(test_by=user)
        return _cause_of_death(code) if result is None else result.error

    def _ask(
        self, loose: Entry | None = None, causes: Mapping[str, Cause] | None = None, *, doubtful: bool = False
    ) -> deliver.Result | None:
        """None: its process was killed."""
        entries = [deliver.LooseEntry.of(loose)] if loose is not None else []
        code, result = self._start(loose=entries, causes=causes, doubtful=doubtful)
        if result is None and not self._stopped:
            self._note_death(code)
        return result

    def _start(
        self,
        *,
        loose: Sequence[deliver.LooseEntry] = (),
        causes: Mapping[str, Cause] | None = None,
        doubtful: bool = False,
        test_by: str | None = None,
    ) -> tuple[int, deliver.Result | None]:
        """Have a process do it: its exit code, and what it said, unless it was killed."""
        request = deliver.Request(
            config=self._app.config,
            channel=self.channel,
            actor=self._app.catalog.actor,
            loose=list(loose),
            causes=dict(causes or {}),
            doubtful=doubtful,
            test_by=test_by,
        )
        with self._lock:
            if self._stopped:
                return 0, deliver.Result("stopped")
            self._process = process = start_worker(deliver.__name__)
        answer, _ = process.communicate(msgspec.json.encode(request))
        if process.returncode != 0:
            return process.returncode, None
        return 0, msgspec.json.decode(answer, type=deliver.Result)

    def _note_death(self, code: int) -> None:
        error = DeliveryError(_cause_of_death(code), unsure=True)
        try:
            note_failure(self._app.catalog, self.channel, error, self._app.now())
        except CatalogError as unwritable:
            log.warning("%s; the failure could not be noted: %s", error, unwritable)


def _cause_of_death(code: int) -> str:
    if code == -signal.SIGALRM:
        return f"no end within {LETTER_LIMIT_SECONDS} s; given up"
    return f"the process that delivers ended with {code}; see the log"
