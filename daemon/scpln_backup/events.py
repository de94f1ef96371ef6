"""Facts that happened, as frozen values, and the announcer that passes them on.

Operations announce; observers (metrics, log, progress, recorder) listen and don't know one another. A `durable`
event is kept in the catalog's outbox too, from where the audit log and whoever must know hear of it, whatever dies
in between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import ClassVar

import msgspec

from scpln_backup.model import (  # noqa: TC001 - msgspec reads the annotations of stored events at run time
    DrillRecord,
    Incident,
    Manifest,
    RebuildRecord,
    RestoreRecord,
    RunRecord,
    Stage,
    Trigger,
)

log = logging.getLogger(__name__)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all events.

    `key` tells one fact from another of its kind: told again, by a program that was killed before it knew that it
    had, a durable one is kept once. None: each telling is a fact of its own.
    """

    durable: ClassVar[bool] = False

    @property
    def key(self) -> str | None:
        return None


class RunStarted(Event, frozen=True, kw_only=True):
    trigger: Trigger
    started_at: datetime


class StageEntered(Event, frozen=True, kw_only=True):
    stage: Stage


class Progressed(Event, frozen=True, kw_only=True):
    """How far a stage is. `done` and `total` are bytes of the database."""

    stage: Stage
    done: int
    total: int


class ArtifactPublished(Event, frozen=True, kw_only=True):
    manifest: Manifest


class RunFinished(Event, frozen=True, kw_only=True):
    """A run came to its end; `record.interrupted` with `finished_at` None: it was killed, which a later one saw."""

    durable = True
    record: RunRecord

    @property
    def key(self) -> str:
        return _instant(self.record.started_at)


class ArtifactDeleted(Event, frozen=True, kw_only=True):
    durable = True
    name: str
    reason: str


class ArtifactVerified(Event, frozen=True, kw_only=True):
    """`error` is None when the artifact is what it should be."""

    durable = True
    name: str
    error: str | None


class ArtifactPinned(Event, frozen=True, kw_only=True):
    """`pinned` False: it was unpinned."""

    durable = True
    name: str
    pinned: bool


class ShrinkAccepted(Event, frozen=True, kw_only=True):
    """An operator said that the shrink that made this artifact suspect was meant."""

    durable = True
    name: str


class BackupRequested(Event, frozen=True, kw_only=True):
    """Somebody asked the daemon for a backup; the run itself is the daemon's, and only tells of a signal."""

    durable = True


class RestoreStarted(Event, frozen=True, kw_only=True):
    """The live database is about to be replaced: from here on units are stopped and files moved."""

    durable = True
    record: RestoreRecord

    @property
    def key(self) -> str:
        return _instant(self.record.started_at)


class RestoreFinished(Event, frozen=True, kw_only=True):
    durable = True
    record: RestoreRecord

    @property
    def key(self) -> str:
        return f"{_instant(self.record.started_at)} {self.record.outcome}"


class DrillFinished(Event, frozen=True, kw_only=True):
    durable = True
    record: DrillRecord

    @property
    def key(self) -> str:
        return _instant(self.record.started_at)


class RebuildFinished(Event, frozen=True, kw_only=True):
    """A rebuild of incident number `incident`."""

    durable = True
    incident: int
    record: RebuildRecord

    @property
    def key(self) -> str:
        return _instant(self.record.started_at)


class IncidentOpened(Event, frozen=True, kw_only=True):
    durable = True
    incident: Incident

    @property
    def key(self) -> str:
        return _instant(self.incident.restore.started_at)


class IncidentOverdue(Event, frozen=True, kw_only=True):
    """The deadline of an incident passed, and its report is not complete."""

    durable = True
    incident: Incident

    @property
    def key(self) -> str:
        return _instant(self.incident.restore.started_at)


class IncidentClosed(Event, frozen=True, kw_only=True):
    """`report` is the complete report in Markdown, for those who were waiting for it."""

    durable = True
    incident: Incident
    report: str = ""

    @property
    def key(self) -> str:
        return _instant(self.incident.restore.started_at)


class RetentionFrozen(Event, frozen=True, kw_only=True):
    """A sweep was due and nothing may be deleted."""

    durable = True
    reason: str


class BackupOverdue(Event, frozen=True, kw_only=True):
    """No good backup since `since` (the end of the last good run, else the installation), and `deadline` passed.

    `never`: there was none at all.
    """

    durable = True
    since: datetime
    deadline: datetime
    hours: int
    never: bool = False

    @property
    def key(self) -> str:
        return _instant(self.since)


class ReviewMade(Event, frozen=True, kw_only=True):
    """The review of a month (YYYY-MM). `text` is Markdown, `path` where it lies.

    `unticketed` are the failed runs of that month (their start) that had no ticket when it was made.
    """

    durable = True
    month: str
    path: str
    text: str
    unticketed: tuple[datetime, ...] = ()

    @property
    def key(self) -> str:
        return self.month


class DaemonStarted(Event, frozen=True, kw_only=True):
    durable = True
    version: str


class DaemonStopped(Event, frozen=True, kw_only=True):
    durable = True


class ServiceFailed(Event, frozen=True, kw_only=True):
    """The daemon's unit has failed, and systemd does not start it again; `problem` says how it ended."""

    durable = True
    unit: str
    problem: str
    invocation: str

    @property
    def key(self) -> str | None:
        return self.invocation or None


class ConfigReloaded(Event, frozen=True, kw_only=True):
    """`problem`: why the new configuration was refused; None when it is in force."""

    durable = True
    problem: str | None = None


class EventUnreadable(Event, frozen=True, kw_only=True):
    """What the outbox gives for an event that it cannot read: a newer version has written it, or it is damaged."""

    kind: str


class TestMessage(Event, frozen=True, kw_only=True):
    """Somebody asked for a test message. Never stored: it is sent at once or not at all.

    `over`: the second half of a test, for channels that have something to close.
    """

    __test__: ClassVar[bool] = False  # for pytest: no test case
    user: str
    over: bool = False


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


Observer = Callable[[Event], None]


class Announcer:
    """Hands each event to every observer, in order of subscription.

    An observer that raises is logged and never disturbs the operation or the other observers.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = list(observers)

    def subscribe(self, observer: Observer) -> None:
        self._observers.append(observer)

    def unsubscribe(self, observer: Observer) -> None:
        self._observers.remove(observer)

    def __call__(self, event: Event) -> None:
        for observer in tuple(self._observers):
            try:
                observer(event)
            except Exception:  # the boundary: an observer's bug must not fail a backup
                log.exception("an observer failed on %s", type(event).__name__)
