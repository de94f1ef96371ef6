"""One job of the schedule: which of its slots was served last, and what to do about the next."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from scpln_backup.errors import BackupError
from scpln_backup.model import Trigger
from scpln_backup.rules.slots import due
from scpln_backup.service.catchup import may_repeat, trigger_for, unfinished

if TYPE_CHECKING:
    from collections.abc import Callable

    from scpln_backup.app import App
    from scpln_backup.rules.slots import Schedule

log = logging.getLogger(__name__)


class SlotJob:
    """The job `name` of `app.schedules`. Not thread-safe: the scheduler calls it under its lock."""

    def __init__(
        self, name: str, app: Callable[[], App], request: Callable[[Trigger], None], *, now: Callable[[], datetime]
    ) -> None:
        self.name = name
        self._app = app
        self._request = request
        self._now = now
        self._served: datetime | None = None
        self._planned = self._plan()

    @property
    def schedule(self) -> Schedule:
        return self._app().schedules[self.name]

    def reload(self) -> None:
        """A changed schedule counts from now: what it names earlier in the day was not missed, it was not planned."""
        planned = self._plan()
        if planned != self._planned:
            self._remember(self._now())
            self._planned = planned

    def _plan(self) -> tuple[str, str]:
        """What the slots go by; a jitter moves them, but plans no other."""
        schedule = self._app().config.schedule
        return getattr(schedule, self.name), schedule.timezone

    def serve_due_slot(self) -> None:
        """Request a run if a slot is due that was not served yet."""
        now, served = self._now(), self._last_served()
        answer = due(self.schedule, served=served, now=now)
        if answer.slot is None:
            if answer.served != served:
                log.warning("slots count from %s: the one served last is in the future (%s)", now, served)
                self._remember(answer.served)
            return
        self._remember(answer.slot)
        trigger = trigger_for(answer.slot, now=now, catch_up=self._app().config.schedule.catch_up)
        if trigger is None:
            log.warning("the %s of %s was missed; passed over (schedule.catch_up = false)", self.name, answer.slot)
            return
        log.info("the %s of %s is due (%s)", self.name, answer.slot, trigger)
        self._request(trigger)

    def _last_served(self) -> datetime:
        if self._served is None:
            catalog = self._app().catalog
            self._served = catalog.slot(self.name) or catalog.installed_at() or self._now()
        return self._served

    def _remember(self, slot: datetime) -> None:
        """Note the slot as served; a full disk must not turn one slot into a run per heartbeat."""
        self._served = slot
        try:
            self._app().catalog.set_slot(self.name, slot)
        except BackupError as error:
            log.error("%s; until the slot %s is noted a restart may repeat its %s", error, slot, self.name)  # noqa: TRY400 - an expected failure: one line

    def repeat_unfinished(self) -> None:
        """Ask again for a backup's slot whose run the last daemon did not bring to its end."""
        app = self._app()
        slot = app.catalog.slot(self.name)
        if slot is None or not app.config.schedule.catch_up:
            return
        runs = app.catalog.runs(since=slot)
        if not unfinished(runs, handed_out=_is_slot(self.schedule, slot)):
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


def _is_slot(schedule: Schedule, moment: datetime) -> bool:
    """False for a moment that only stands in for a slot, as after a clock was set back."""
    last = schedule.last_at_or_before(moment)
    return last is not None and last.astimezone(UTC) == moment.astimezone(UTC)
