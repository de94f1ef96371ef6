"""One thread that takes the backups, one after another."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scpln_backup.errors import BackupError, LockHeldError
from scpln_backup.events import Event, Progressed, StageEntered
from scpln_backup.model import Stage, Trigger

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

log = logging.getLogger(__name__)

# Requests that wait become one run; it carries the trigger that says most about why it was due.
PRECEDENCE = (Trigger.SCHEDULE, Trigger.CATCH_UP, Trigger.SIGNAL, Trigger.CLI)

# A sweep or verify from the command line holds the run lock for seconds to minutes.
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What the runner does. Idle when all is None.

    `percent` is of `stage`; `waiting_for` says who has the run lock while a requested run waits for it.
    """

    trigger: Trigger | None = None
    since: datetime | None = None
    stage: Stage | None = None
    percent: int | None = None
    waiting_for: str | None = None


IDLE = Activity()


def merged(waiting: Trigger | None, new: Trigger) -> Trigger:
    """The trigger of the one run that serves both requests."""
    if waiting is None:
        return new
    return min(waiting, new, key=PRECEDENCE.index)


class Runner:
    """Runs `take(trigger, cancel)` on its own thread for each request, never two at once.

    Any number of requests during a run lead to exactly one more after it. `take` may raise LockHeldError: the
    run is tried again until it gets the lock. `changed` is called, from any thread, when `activity` differs
    in a way that people see.
    """

    def __init__(
        self,
        take: Callable[[Trigger, threading.Event], object],
        *,
        now: Callable[[], datetime],
        changed: Callable[[], None],
        first_retry_seconds: float = FIRST_RETRY_SECONDS,
    ) -> None:
        self._take = take
        self._now = now
        self._changed = changed
        self._first_retry_seconds = first_retry_seconds
        self._condition = threading.Condition()
        self._waiting: Trigger | None = None
        self._cancel = threading.Event()
        self._activity = IDLE
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._work, name="runner", daemon=True)

    @property
    def activity(self) -> Activity:
        return self._activity

    @property
    def problem(self) -> str | None:
        """Why the last run could not begin, or broke off on a bug: of that the catalog may know nothing."""
        return self._problem

    @property
    def running_since(self) -> datetime | None:
        return self._activity.since

    def start(self) -> None:
        self._thread.start()

    def request(self, trigger: Trigger) -> None:
        """Asks for a run that begins after this call. Never blocks."""
        with self._condition:
            self._waiting = merged(self._waiting, trigger)
            self._condition.notify()

    def stop(self) -> None:
        """Tells the run under way to give up at its next safe point, and begins no other."""
        self._cancel.set()
        with self._condition:
            self._condition.notify()

    def join(self, timeout: float | None = None) -> bool:
        """Whether the thread has ended, or never began, after at most `timeout` seconds."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def observe(self, event: Event) -> None:
        """Follows the run under way; subscribe it to the announcer."""
        current = self._activity
        match event:
            case StageEntered(stage=stage):
                self._show(replace(current, stage=stage, percent=None))
            case Progressed(stage=stage, done=done, total=total) if total > 0:
                self._show(replace(current, stage=stage, percent=min(100, done * 100 // total)))

    def _show(self, activity: Activity) -> None:
        if activity != self._activity:
            self._activity = activity
            self._changed()

    def _work(self) -> None:
        retry_seconds = self._first_retry_seconds
        while (trigger := self._next()) is not None:
            try:
                self._show(Activity(trigger=trigger, since=self._now()))
                self._take(trigger, self._cancel)
                self._problem = None
            except LockHeldError as error:
                self._wait_for_lock(trigger, error, retry_seconds)
                retry_seconds = min(retry_seconds * 2, LONGEST_RETRY_SECONDS)
                continue
            except BackupError as error:
                self._problem = f"the {trigger} run could not begin: {error}"
                log.error("%s", self._problem)  # noqa: TRY400 - an expected failure: one line
            except Exception as error:  # the boundary of the thread: a bug in one run must not end all later ones
                self._problem = f"the {trigger} run broke off on a bug in this program, please report it: {error!r}"
                log.exception("%s", self._problem)
            retry_seconds = self._first_retry_seconds
            self._show(IDLE)

    def _next(self) -> Trigger | None:
        """The next run's trigger, when there is one; None when it is time to end."""
        with self._condition:
            self._condition.wait_for(lambda: self._waiting is not None or self._cancel.is_set())
            if self._cancel.is_set():
                return None
            trigger, self._waiting = self._waiting, None
            return trigger

    def _wait_for_lock(self, trigger: Trigger, error: LockHeldError, seconds: float) -> None:
        if seconds == self._first_retry_seconds:
            log.info("the %s run waits: %s", trigger, error)
        self.request(trigger)
        self._show(Activity(trigger=trigger, waiting_for=str(error)))
        self._cancel.wait(seconds)
