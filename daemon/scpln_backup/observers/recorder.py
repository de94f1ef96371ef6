"""Keeps durable events in the outbox, and in memory while the catalog cannot be written."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from scpln_backup.errors import CatalogError
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


class Recorder:
    """An observer. `kept` is called, in the announcing thread, after each durable event; it must not block."""

    def __init__(self, catalog: Catalog, *, now: Callable[[], datetime], kept: Callable[[], None]) -> None:
        self._catalog = catalog
        self._now = now
        self._kept = kept
        self._lock = threading.Lock()
        self._loose: list[_Loose] = []
        self._causes: dict[str, dict[str, Cause]] = {}

    def __call__(self, event: Event) -> None:
        if not event.durable:
            return
        at = self._now()
        self.keep_loose()
        try:
            self._catalog.keep_event(event, at)
        except CatalogError as error:
            # The failure itself is the run's to report; here it is only that fewer will hear of it after a crash.
            log.warning("%s is held in memory until it can be kept: %s", type(event).__name__, error)
            with self._lock:
                self._loose.append(_Loose(Entry(id=0, at=at, actor=self._catalog.actor, event=event)))
                del self._loose[:-_MOST_LOOSE]
        self._kept()

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

    def note_told(self, channel: str, entries: list[Entry], causes: dict[str, Cause] | None = None) -> None:
        """The channel has been told of `entries`; `causes` are those that it has told of since."""
        with self._lock:
            if causes is not None:
                self._causes[channel] = causes
            for loose in self._loose:
                if any(loose.entry is entry for entry in entries):
                    loose.told.add(channel)

    def keep_loose(self) -> None:
        """Try again to keep what could not be kept."""
        with self._lock:
            try:
                while self._loose:
                    first = self._loose[0]
                    self._catalog.keep_event(first.entry.event, first.entry.at, first.told)
                    del self._loose[0]
                for channel, causes in self._causes.items():
                    self._catalog.set_causes(channel, causes)
            except CatalogError:
                return
            self._causes.clear()
