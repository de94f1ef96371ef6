"""When a backup is due: APScheduler wakes up, `check` decides.

APScheduler's waits use the monotonic clock, which stands still while the machine sleeps and knows nothing of a
wall clock that is set; its memory of what was missed ends with the process. So its timers are only alarm
clocks: the slot's own, and a heartbeat beside it. Both call the same `check`, which asks the catalog which slot
was served last and may be called at any time, any number of times.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from scpln_backup.errors import BackupError
from scpln_backup.service.slotjob import SlotJob

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scpln_backup.app import App
    from scpln_backup.model import Trigger
    from scpln_backup.rules.slots import Schedule

log = logging.getLogger(__name__)

JOB = "backup"
DRILL = "drill"
REVIEW = "review"
HEARTBEAT = "heartbeat"

# A scheduler that missed this many heartbeats in a row hangs.
MISSED_HEARTBEATS = 3

# Two looks at both clocks differ by less than this unless one was set or the machine slept.
JUMP_SECONDS = 2.0


class SlotTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler ships no types
    """The next slot of the schedule, in APScheduler's terms."""

    __slots__ = ("schedule",)

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        return self.schedule.next_after(now).astimezone(UTC)


class HeartbeatTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler ships no types
    """So many seconds after now.

    Not APScheduler's IntervalTrigger: that one goes through all times since the last, and a clock that is set
    from 1970 to today would give it fifty million to go through.
    """

    __slots__ = ("interval",)

    def __init__(self, seconds: float) -> None:
        self.interval = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        return now + self.interval


class Scheduler:
    """Requests a run for each slot of each job, once, whatever the clock and the machine do.

    `app` gives the app of the moment, so that a reload takes effect at the next check; `now` is its clock.
    `others` are the jobs beside the backup, and how each is requested.
    """

    def __init__(
        self,
        app: Callable[[], App],
        request: Callable[[Trigger], None],
        *,
        now: Callable[[], datetime],
        others: Mapping[str, Callable[[Trigger], None]] | None = None,
    ) -> None:
        self._app = app
        self._now = now
        self._backup = SlotJob(JOB, app, request, now=now)
        self._jobs = [self._backup]
        self._jobs += [SlotJob(name, app, asked, now=now) for name, asked in (others or {}).items()]
        self._lock = threading.Lock()
        self._stopped = False
        self._beat = time.monotonic()
        self._clock_offset = time.time() - time.monotonic()
        # It reports every heartbeat at INFO, twice.
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        self._timers = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )

    def start(self) -> None:
        """Makes up for an unfinished slot, checks once, then keeps checking from threads of its own."""
        self._backup.repeat_unfinished()
        self.check()
        for job in self._jobs:
            self._timers.add_job(self.check, SlotTrigger(job.schedule), id=job.name)
        self._timers.add_job(self.check, self._heartbeat_trigger(), id=HEARTBEAT)
        self._timers.start()

    def stop(self) -> None:
        """After this no run is requested any more."""
        self._stopped = True
        if self._timers.running:
            # Not shutdown(wait=True): it waits for a check while it holds a lock that the check needs.
            self._timers.shutdown(wait=False)
        with self._lock:
            log.debug("no check is under way any more")

    def reload(self) -> None:
        """Takes over the schedules and the heartbeat of the new app."""
        with self._lock:
            for job in self._jobs:
                job.reload()
        for job in self._jobs:
            self._timers.reschedule_job(job.name, trigger=SlotTrigger(job.schedule))
        self._timers.reschedule_job(HEARTBEAT, trigger=self._heartbeat_trigger())
        self.check()

    @property
    def alive(self) -> bool:
        """Whether checks still happen: the last one is at most three heartbeats ago."""
        limit = MISSED_HEARTBEATS * self._app().config.schedule.heartbeat_seconds
        return time.monotonic() - self._beat <= limit

    def watch_clock(self) -> None:
        """Checks at once when the wall clock was set, or the machine slept, since the last call.

        The timers' next times are wall clock times: set back by a day, they would all be a day away, the
        heartbeat too. Called by the main loop.
        """
        offset = time.time() - time.monotonic()
        moved, self._clock_offset = offset - self._clock_offset, offset
        if abs(moved) > JUMP_SECONDS:
            log.warning("the clock moved by %+.0f s (set, or the machine slept); looking for due backups", moved)
            self._timers.modify_job(HEARTBEAT, next_run_time=datetime.now(UTC))

    def check(self) -> None:
        """Requests a run of each job that has a slot due and not served yet."""
        with self._lock:
            if self._stopped:
                return
            for job in self._jobs:
                try:
                    job.serve_due_slot()
                    self._wind_alarm(job)
                except BackupError as error:
                    log.error("cannot tell whether a %s is due: %s", job.name, error)  # noqa: TRY400 - an expected failure: one line
        self._beat = time.monotonic()

    def _wind_alarm(self, job: SlotJob) -> None:
        """Sets the slot's timer anew when the clock has moved away from what it was set for."""
        try:
            timer = self._timers.get_job(job.name)
            if timer is None or not self._timers.running:
                return
            next_at = job.schedule.next_after(self._now()).astimezone(UTC)
            if timer.next_run_time != next_at:
                self._timers.modify_job(job.name, next_run_time=next_at)
        except JobLookupError:
            log.debug("the timers are being stopped")

    def _heartbeat_trigger(self) -> HeartbeatTrigger:
        return HeartbeatTrigger(self._app().config.schedule.heartbeat_seconds)
