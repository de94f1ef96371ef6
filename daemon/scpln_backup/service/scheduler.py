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
from scpln_backup.model import Trigger
from scpln_backup.rules.slots import due
from scpln_backup.service.catchup import may_repeat, trigger_for, unfinished

if TYPE_CHECKING:
    from collections.abc import Callable

    from scpln_backup.app import App
    from scpln_backup.rules.slots import Schedule

log = logging.getLogger(__name__)

JOB = "backup"
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
    """Requests a run for each slot, once, whatever the clock and the machine do.

    `app` gives the app of the moment, so that a reload takes effect at the next check; `now` is its clock.
    """

    def __init__(
        self, app: Callable[[], App], request: Callable[[Trigger], None], *, now: Callable[[], datetime]
    ) -> None:
        self._app = app
        self._request = request
        self._now = now
        self._lock = threading.Lock()
        self._stopped = False
        self._served: datetime | None = None
        self._planned: tuple[str, str] | None = None
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
        self._repeat_unfinished()
        self.check()
        app = self._app()
        self._planned = _plan_of(app)
        self._timers.add_job(self.check, SlotTrigger(app.schedules[JOB]), id=JOB)
        self._timers.add_job(self.check, self._heartbeat_trigger(app), id=HEARTBEAT)
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
        """Takes over the schedule and the heartbeat of the new app.

        A changed schedule counts from now: what it names earlier in the day was not missed, it was not planned.
        """
        app = self._app()
        planned = _plan_of(app)
        if planned != self._planned:
            with self._lock:
                self._remember(app, self._now())
            self._planned = planned
        self._timers.reschedule_job(JOB, trigger=SlotTrigger(app.schedules[JOB]))
        self._timers.reschedule_job(HEARTBEAT, trigger=self._heartbeat_trigger(app))
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
        """Requests a run if a slot is due that was not served yet."""
        try:
            with self._lock:
                if self._stopped:
                    return
                self._serve_due_slot()
                self._wind_alarm()
        except BackupError as error:
            log.error("cannot tell whether a backup is due: %s", error)  # noqa: TRY400 - an expected failure: one line
        self._beat = time.monotonic()

    def _serve_due_slot(self) -> None:
        app, now = self._app(), self._now()
        served = self._last_served(app)
        answer = due(app.schedules[JOB], served=served, now=now)
        if answer.slot is None:
            if answer.served != served:
                log.warning("slots count from %s: the one served last is in the future (%s)", now, served)
                self._remember(app, answer.served)
            return
        self._remember(app, answer.slot)
        trigger = trigger_for(answer.slot, now=now, catch_up=app.config.schedule.catch_up)
        if trigger is None:
            log.warning("the backup of %s was missed; passed over (schedule.catch_up = false)", answer.slot)
            return
        log.info("the backup of %s is due (%s)", answer.slot, trigger)
        self._request(trigger)

    def _last_served(self, app: App) -> datetime:
        if self._served is None:
            self._served = app.catalog.slot(JOB) or app.catalog.installed_at() or self._now()
        return self._served

    def _remember(self, app: App, slot: datetime) -> None:
        """Notes the slot as served; a full disk must not turn one slot into a run per heartbeat."""
        self._served = slot
        try:
            app.catalog.set_slot(JOB, slot)
        except BackupError as error:
            log.error("%s; until the slot %s is noted a restart may repeat its backup", error, slot)  # noqa: TRY400 - an expected failure: one line

    def _repeat_unfinished(self) -> None:
        """Asks again for a slot whose run the last daemon did not bring to its end."""
        app = self._app()
        slot = app.catalog.slot(JOB)
        if slot is None or not app.config.schedule.catch_up:
            return
        runs = app.catalog.runs(since=slot)
        if not unfinished(runs, handed_out=_is_slot(app.schedules[JOB], slot)):
            return
        if may_repeat(runs):
            log.warning("the backup of %s did not reach its end; it is taken again", slot)
            self._request(Trigger.CATCH_UP)
        else:
            log.error(
                "the backup of %s was interrupted again and again and is given up; "
                "find the cause in the journal, then run: scpln-backup backup",
                slot,
            )

    def _wind_alarm(self) -> None:
        """Sets the slot's timer anew when the clock has moved away from what it was set for."""
        try:
            job = self._timers.get_job(JOB)
            if job is None or not self._timers.running:
                return
            next_at = self._app().schedules[JOB].next_after(self._now()).astimezone(UTC)
            if job.next_run_time != next_at:
                self._timers.modify_job(JOB, next_run_time=next_at)
        except JobLookupError:
            log.debug("the timers are being stopped")

    @staticmethod
    def _heartbeat_trigger(app: App) -> HeartbeatTrigger:
        return HeartbeatTrigger(app.config.schedule.heartbeat_seconds)


def _plan_of(app: App) -> tuple[str, str]:
    """What the slots go by; a jitter moves them, but plans no other."""
    return app.config.schedule.backup, app.config.schedule.timezone


def _is_slot(schedule: Schedule, moment: datetime) -> bool:
    """False for a moment that only stands in for a slot, as after a clock was set back."""
    last = schedule.last_at_or_before(moment)
    return last is not None and last.astimezone(UTC) == moment.astimezone(UTC)
