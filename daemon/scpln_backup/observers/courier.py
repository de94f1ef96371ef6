"""Takes what waits in the outbox to one channel: in order, each letter once, and again what did not get through."""

from __future__ import annotations

import logging
import signal
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from scpln_backup.errors import DeliveryError
from scpln_backup.records.outbox import LONGEST_WAIT, Cause
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from scpln_backup.observers.planning import Channel, Step
    from scpln_backup.records.catalog import Catalog
    from scpln_backup.records.outbox import ChannelState, Entry
    from scpln_backup.support.locks import Lock

log = logging.getLogger(__name__)

# SIGALRM's default action ends the process: no service can hold a delivery longer, whatever it does to the
# connection. Clients give up by themselves long before.
LETTER_LIMIT_SECONDS = 45

_FIRST_WAIT_SECONDS = 5.0
_LONGEST_WAIT_SECONDS = 600.0
# Until somebody mends the configuration; that one is read anew, and tried at once, after a reload.
_PERMANENT_WAIT_SECONDS = 900.0


def wait_seconds(attempts: int, error: DeliveryError) -> float:
    """How long to wait after the `attempts`th failure in a row: doubled each time, and as long as the service says."""
    backoff = min(_FIRST_WAIT_SECONDS * 2.0 ** min(attempts - 1, 16), _LONGEST_WAIT_SECONDS)
    if error.permanent:
        backoff = _PERMANENT_WAIT_SECONDS
    return min(max(backoff, error.retry_after_seconds or 0.0), LONGEST_WAIT.total_seconds())


class Courier:
    """Of one channel. Whoever delivers holds its lock, so that the command line and the daemon never both do."""

    def __init__(self, catalog: Catalog, channel: Channel[Any], lock: Lock, now: Callable[[], datetime]) -> None:
        self._catalog = catalog
        self._channel = channel
        self._lock = lock
        self._now = now

    def deliver(self) -> None:
        """Deliver all that waits and is due, or as much as gets through; what does not is noted for later.

        Raises LockHeldError when somebody else is at it, and CatalogError.
        """
        with self._lock:
            while (state := self._due()) is not None:
                newest = self._catalog.last_entry_id()  # before the look at what waits: what comes after it still waits
                waiting = self._catalog.waiting(state)
                if not waiting:
                    if not self._caught_up(state, newest):
                        continue
                    return
                causes = self._catalog.causes(state.name)
                step = self._channel.next_step(waiting, causes)
                if step.letter is None:
                    self._catalog.settle(state.name, step.settles)
                elif not self._send(step, waiting[-1].id, state):
                    return

    def deliver_loose(
        self, entries: Sequence[Entry], causes: Mapping[str, Cause], *, doubtful: bool = False
    ) -> dict[str, Cause]:
        """Deliver entries that could not be kept; returns the causes that the channel has told of by then.

        Nothing can be noted here: the caller remembers. `doubtful`: it was tried before, and may have arrived.
        DeliveryError: one did not get through, nor did those after it.
        """
        known = dict(causes)
        with self._lock:
            for entry in entries:
                settled = entry.id - 1
                while settled < entry.id:
                    step = self._channel.next_step([entry], known)
                    settled = step.settles
                    if step.letter is not None:
                        with _limit():
                            ref = self._channel.send(step.letter, step.key, doubtful=doubtful)
                        _note(known, step, entry, ref)
        return known

    def _due(self) -> ChannelState | None:
        state = self._catalog.channel(self._channel.name)
        return state if state is not None and state.may_try(self._now()) else None

    def _caught_up(self, state: ChannelState, newest: int) -> bool:
        """Whether nothing waits at all; else what was begun and is settled kept the rest back, and does no more."""
        if state.begun_upto is not None:
            self._catalog.forget_delivery(state.name)
            return False
        if newest > state.settled:  # nothing but kinds of a newer version, or told already
            self._catalog.settle(state.name, newest)
        if state.failing_since is not None:  # what failed is for nobody any more
            self._catalog.clear_failure(state.name)
        return True

    def _send(self, step: Step[Any], upto: int, state: ChannelState) -> bool:
        name = state.name
        doubtful = self._catalog.begin_delivery(name, step.key, upto)
        try:
            with _limit():
                ref = self._channel.send(step.letter, step.key, doubtful=doubtful)
        except DeliveryError as error:
            note_failure(self._catalog, name, error, self._now())
            return False
        self._catalog.settle(
            name, step.settles, at=self._now(), opens=step.opens, closes=step.closes, about=step.about, ref=ref
        )
        return True


def note_failure(catalog: Catalog, name: str, error: DeliveryError, now: datetime) -> None:
    """Note that a delivery did not get through, and when it is tried again."""
    state = catalog.channel(name)
    attempts = state.attempts if state is not None else 0
    wait = wait_seconds(attempts + 1, error)
    log.warning("%s: %s; tried again in %.0f s", name, error, wait)
    catalog.fail_delivery(
        name,
        one_line(error),
        at=now,
        retry_at=now + timedelta(seconds=wait),
        arrived_surely_not=not error.unsure,
    )


def _note(known: dict[str, Cause], step: Step[Any], entry: Entry, ref: str | None) -> None:
    """What a letter does to the causes, as `Outbox.settle` does it."""
    for name in step.opens:
        before = known.get(name)
        if before is None:
            known[name] = Cause(since=entry.at, ref=ref)
        else:
            known[name] = Cause(since=before.since, count=before.count + 1, ref=ref or before.ref)
    for name in step.closes:
        known.pop(name, None)


@contextmanager
def _limit() -> Iterator[None]:
    signal.alarm(LETTER_LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
