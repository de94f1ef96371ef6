"""One thread that sees to it that whoever must know hears of what happened, and never slows down what happens."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from scpln_backup.errors import BackupError
from scpln_backup.operations import overdue
from scpln_backup.service.delivery import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from scpln_backup.app import App

log = logging.getLogger(__name__)

# What is on its way may arrive; what waits is in the outbox, for the next daemon or the timer.
_LAST_WORDS_SECONDS = 5.0
_FIRST_WAIT_SECONDS = 5.0
_LONGEST_WAIT_SECONDS = 600.0


class Dispatcher:
    """`wake` after an event; besides it looks every heartbeat, for what the command line has left in the outbox.

    Each channel is delivered to by a thread of its own while something is due for it, so that one that hangs holds up
    nothing else.
    """

    def __init__(
        self, app: Callable[[], App], *, now: Callable[[], datetime], running_since: Callable[[], datetime | None]
    ) -> None:
        self._app = app
        self._now = now
        self._running_since = running_since
        self._condition = threading.Condition()
        self._woken = False
        self._stopping = False
        self._active: dict[str, tuple[Delivery, threading.Thread]] = {}
        # Beside the times in the catalog, which cannot be written just when it matters most.
        self._left_alone_until: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._overdue = overdue.Watch()
        self._thread = threading.Thread(target=self._work, name="dispatcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Something happened. Never blocks."""
        with self._condition:
            self._woken = True
            self._condition.notify()

    def stop(self) -> None:
        """Brings the audit log up to date, waits a little for what is on its way, and ends it."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread.ident is not None:
            self._thread.join()
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        for delivery, thread in list(self._active.values()):
            thread.join(max(0.0, deadline - time.monotonic()))
            delivery.stop()
            thread.join()

    def _work(self) -> None:
        stopping = False
        while not stopping:
            with self._condition:
                stopping = self._stopping
                self._woken = False
            wait = self._heartbeat()
            parts = (self._keep, self._watch, self._write_audit_log, self._deliver_what_is_due)
            for part in parts[:-1] if stopping else parts:
                try:
                    wait = min(wait, part() or wait)
                except BackupError as error:  # the others go on: a full disk is just when somebody has to hear
                    log.warning("%s", error)
                except Exception:  # the boundary of the thread: a bug must not silence all later messages
                    log.exception("the dispatcher met a bug in this program, please report it")
            with self._condition:
                if not stopping:
                    self._condition.wait_for(lambda: self._woken or self._stopping, wait)

    def _keep(self) -> None:
        recorder = self._app().recorder
        if recorder is not None:
            recorder.keep_loose()

    def _watch(self) -> None:
        app = self._app()
        self._overdue.look(app.house, app.now(), self._running_since())

    def _write_audit_log(self) -> None:
        self._app().write_audit_log()

    def _deliver_what_is_due(self) -> float | None:
        """Seconds until something that did not get through is due again."""
        app, now = self._app(), self._now()
        for name in app.due_channels(now):
            self._deliver(app, name)
        waits = [until - time.monotonic() for until in self._left_alone_until.values() if until > time.monotonic()]
        waits += [
            (state.retry_at - now).total_seconds()
            for state in app.catalog.channels()
            if state.retry_at is not None and not state.may_try(now)
        ]
        return min(waits, default=None)

    def _deliver(self, app: App, name: str) -> None:
        active = self._active.get(name)
        if active is not None and active[1].is_alive():
            return  # it goes on until nothing is left
        if self._left_alone_until.get(name, 0.0) > time.monotonic():
            return
        delivery = Delivery(app, name)
        thread = threading.Thread(target=self._run, args=(delivery,), name=f"to-{name}", daemon=True)
        self._active[name] = (delivery, thread)
        thread.start()

    def _run(self, delivery: Delivery) -> None:
        try:
            wait = delivery.run()
        except (BackupError, OSError) as error:
            log.warning("%s: no delivery could be made: %s", delivery.channel, error)
            wait = _FIRST_WAIT_SECONDS
        failures = self._failures.get(delivery.channel, 0) + 1 if wait else 0
        self._failures[delivery.channel] = failures
        if wait:
            wait = max(wait, min(_FIRST_WAIT_SECONDS * 2.0 ** min(failures - 1, 16), _LONGEST_WAIT_SECONDS))
        self._left_alone_until[delivery.channel] = time.monotonic() + wait
        self.wake()

    def forgive(self) -> None:
        """Leave nobody alone any longer: the configuration was mended."""
        self._left_alone_until.clear()
        self._failures.clear()
        self.wake()

    def _heartbeat(self) -> float:
        return float(self._app().config.schedule.heartbeat_seconds)
