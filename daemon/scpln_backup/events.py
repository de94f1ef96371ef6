"""Facts that happened, as frozen values, and the announcer that passes them on.

Operations announce; observers (metrics, log, progress, notifiers) listen and don't know one another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from scpln_backup.model import DrillRecord, Incident, Manifest, RestoreRecord, RunRecord, Stage, Trigger

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    trigger: Trigger
    started_at: datetime


@dataclass(frozen=True, kw_only=True)
class StageEntered(Event):
    stage: Stage


@dataclass(frozen=True, kw_only=True)
class Progressed(Event):
    """How far a stage is. `done` and `total` are bytes of the database."""

    stage: Stage
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class ArtifactPublished(Event):
    manifest: Manifest


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    record: RunRecord


@dataclass(frozen=True, kw_only=True)
class ArtifactDeleted(Event):
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ArtifactVerified(Event):
    """`error` is None when the artifact is what it should be."""

    name: str
    error: str | None


@dataclass(frozen=True, kw_only=True)
class RestoreFinished(Event):
    record: RestoreRecord


@dataclass(frozen=True, kw_only=True)
class DrillFinished(Event):
    record: DrillRecord


@dataclass(frozen=True, kw_only=True)
class IncidentOpened(Event):
    incident: Incident


@dataclass(frozen=True, kw_only=True)
class IncidentClosed(Event):
    incident: Incident


@dataclass(frozen=True, kw_only=True)
class RetentionFrozen(Event):
    """A sweep was due and nothing may be deleted."""

    reason: str


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
        for observer in self._observers:
            try:
                observer(event)
            except Exception:  # the boundary: an observer's bug must not fail a backup
                log.exception("an observer failed on %s", type(event).__name__)
