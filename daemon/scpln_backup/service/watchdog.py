"""The sign of life that systemd's watchdog waits for: given only when the daemon's parts are alive."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


class Watchdog:
    """Calls `give_sign` every `interval` seconds while both probes say yes.

    It is called from the main loop, so a main loop that hangs gives no sign either.
    """

    def __init__(
        self,
        interval: float,
        *,
        scheduler_alive: Callable[[], bool],
        web_answers: Callable[[], bool],
        give_sign: Callable[[], None],
        started: float,
    ) -> None:
        self._interval = interval
        self._scheduler_alive = scheduler_alive
        self._web_answers = web_answers
        self._give_sign = give_sign
        self._due = started + interval
        self._complaint: str | None = None

    def look(self, monotonic: float) -> float:
        """Gives the sign if it is due and deserved; seconds until it is due next."""
        if monotonic >= self._due:
            self._due = monotonic + self._interval
            self._report(self._ailment())
        return self._due - monotonic

    def _ailment(self) -> str | None:
        if not self._scheduler_alive():
            return "the scheduler has not looked for due backups for too long"
        if not self._web_answers():
            return "the web server does not answer"
        return None

    def _report(self, ailment: str | None) -> None:
        if ailment is None:
            self._give_sign()
        elif ailment != self._complaint:
            log.error("no sign of life for systemd, which will restart this service: %s", ailment)
        self._complaint = ailment
