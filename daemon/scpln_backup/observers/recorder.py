"""Keeps durable events in the outbox, and in memory while the catalog cannot be written."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from scpln_backup.errors import CatalogError
from scpln_backup.events import DrillFinished, RunFinished
from scpln_backup.records.outbox import Cause, Entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from scpln_backup.events import Event
    from scpln_backup.records.catalog import Catalog

log = logging.getLogger(__name__)

# A catalog that cannot be written for long must not fill the memory; the newest matter most.
_MOST_LOOSE = 200


class _Loose:
    """An entry that could not be kept, and the channels that have heard of it all the same."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.told: set[str] = set()
        self.doubtful: set[str] = set()


class Recorder:
    """An observer. `kept` is called, in the announcing thread, after each durable event; it must not block."""

    def __init__(self, catalog: Catalog, *, now: Callable[[], datetime], kept: Callable[[], None]) -> None:
        self._catalog = catalog
        self._now = now
        self._kept = kept
        self._lock = threading.Lock()
        self._loose: list[_Loose] = []
        self._causes: dict[str, dict[str, Cause]] = {}
        self._under_way: set[str] = set()

    def __call__(self, event: Event) -> None:
        if not event.durable:
            return
        at = self._now()
        self.keep_loose()
        try:
            self._keep(event, at)
        except CatalogError as error:
            # The failure itself is the run's to report; here it is only that fewer will hear of it after a crash.
            log.warning("%s is held in memory until it can be kept: %s", type(event).__name__, error)
            with self._lock:
                self._loose.append(_Loose(Entry(id=0, at=at, actor=self._catalog.actor, event=event)))
                del self._loose[:-_MOST_LOOSE]
        self._kept()

    def _keep(self, event: Event, at: datetime) -> None:
        """With the fact itself, where its own transaction may have failed."""
        match event:
            case RunFinished(record=run) if run.finished_at is not None:
                self._catalog.finish_run(run)
            case DrillFinished(record=drill) if drill.finished_at is not None:
                self._catalog.finish_drill(drill)
            case _:
                self._catalog.keep_event(event, at)

    def take_over(self, other: Recorder) -> None:
        """Go on with what another recorder, of the same catalog, could not keep."""
        with other._lock, self._lock:
            self._loose = [*other._loose, *self._loose]
            self._causes = other._causes | self._causes
            other._loose = []

    def begin(self, channel: str) -> tuple[Entry, bool] | None:
        """The oldest loose entry for a channel, and whether it may have been told already; None: there is none.

        Until `end` nothing is moved into the outbox, where it would be told again.
        """
        with self._lock:
            for loose in self._loose:
                if channel not in loose.told:
                    self._under_way.add(channel)
                    return loose.entry, channel in loose.doubtful
        return None

    def end(self, channel: str, entry: Entry, *, told: bool, unsure: bool, causes: dict[str, Cause]) -> None:
        """The delivery of `entry` is over; `causes` are those that the channel has told of by now."""
        with self._lock:
            self._under_way.discard(channel)
            for loose in self._loose:
                if loose.entry is entry and told:
                    loose.told.add(channel)
                    self._causes[channel] = causes
                elif loose.entry is entry and unsure:
                    loose.doubtful.add(channel)

    def loose(self, channel: str) -> list[Entry]:
        """What could not be kept and the channel has not been told of, oldest first."""
        with self._lock:
            return [loose.entry for loose in self._loose if channel not in loose.told]

    def causes(self, channel: str) -> dict[str, Cause]:
        """What the channel has told of and not yet told to be over, as far as it is known."""
        with self._lock:
            if channel in self._causes:
                return self._causes[channel]
        try:
            return self._catalog.causes(channel)
        except CatalogError:
            return {}

    def note_told(self, channel: str, entries: list[Entry]) -> None:
        """The channel, which tells of no causes, has been told of `entries`."""
        with self._lock:
            for loose in self._loose:
                if any(loose.entry is entry for entry in entries):
                    loose.told.add(channel)

    def keep_loose(self) -> None:
        """Try again to keep what could not be kept."""
        with self._lock:
            if self._under_way:
                return
            try:
                while self._loose:
                    first = self._loose[0]
                    self._keep(first.entry.event, first.entry.at)
                    self._catalog.note_told(first.entry.event, first.told)
                    del self._loose[0]
                for channel, causes in self._causes.items():
                    self._catalog.set_causes(channel, causes)
            except CatalogError:
                return
            self._causes.clear()
