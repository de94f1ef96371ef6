"""Events as messages that people read. Pure: everything comes with the event and its surroundings."""

from __future__ import annotations

from functools import singledispatch
from typing import TYPE_CHECKING

from scpln_backup.events import (
    ArtifactDeleted,
    ArtifactVerified,
    BackupOverdue,
    DaemonStarted,
    DrillFinished,
    Event,
    IncidentClosed,
    IncidentOpened,
    IncidentOverdue,
    RestoreFinished,
    RestoreStarted,
    ReviewMade,
    RunFinished,
    ServiceFailed,
    TestMessage,
)
from scpln_backup.model import Severity
from scpln_backup.observers.message import Message, Surroundings
from scpln_backup.observers.notices import notice
from scpln_backup.observers.wording import artifacts, figures, runs, service, way_back
from scpln_backup.observers.wording.scene import Said, Scene, one_line
from scpln_backup.records.outbox import Cause, Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


def message(entry: Entry, cause: Cause | None, around: Surroundings) -> Message:
    """One event. `cause`: the trouble that is over with it for those who read this, or that goes on."""
    scene = Scene(around)
    said = _say(entry.event, cause, scene)
    return Message(
        headline=scene.headline(said.what),
        severity=_severity(entry.event),
        sentences=said.sentences,
        facts=said.facts,
        listing=figures.listing(around.artifacts, around.zone) if said.lists else None,
        document=said.document,
        over=said.over,
    )


def digest(entries: Sequence[Entry], around: Surroundings) -> Message:
    """Many events, one line each, those that were not good first; `entries` are at least one, oldest first."""
    scene = Scene(around)
    texts = scene.texts.digest
    severities = {entry.id: _severity(entry.event) for entry in entries}
    grave = sum(severity is not Severity.INFO for severity in severities.values())
    # Stable, so that those of one severity stay in the order in which they happened.
    by_severity = sorted(entries, key=lambda entry: -_RANKS[severities[entry.id]])
    lines = [f"- {_line(entry, scene)}" for entry in by_severity]
    return Message(
        headline=scene.headline(texts.what.format(count=len(entries), since=scene.at(entries[0].at))),
        severity=max(severities.values(), key=_RANKS.__getitem__),
        sentences=(texts.intro, *((texts.grave.format(count=grave),) if grave else ())),
        facts=((scene.texts.labels.whole, texts.whole), *scene.outlook()),
        listing=figures.listing(around.artifacts, around.zone),
        document="\n".join(lines),
    )


def _severity(event: Event) -> Severity:
    # A test counts as critical to get through to whoever is called for that; what it says is not.
    return Severity.INFO if isinstance(event, TestMessage) else notice(event).severity


def _line(entry: Entry, scene: Scene) -> str:
    what = one_line(_say(entry.event, None, scene).what)
    return scene.texts.digest.line.format(at=scene.at(entry.at), what=what)


@singledispatch
def _say(event: Event, cause: Cause | None, scene: Scene) -> Said:
    """Nobody asks for kinds that have no words here; if somebody ever does, a plain line is better than no message."""
    return Said(what=scene.texts.other_what.format(kind=type(event).__name__))


@_say.register
def _(event: RunFinished, cause: Cause | None, scene: Scene) -> Said:
    return runs.finished(event.record, cause, scene)


@_say.register
def _(event: BackupOverdue, cause: Cause | None, scene: Scene) -> Said:
    return runs.overdue(event, scene)


@_say.register
def _(event: ServiceFailed, cause: Cause | None, scene: Scene) -> Said:
    return service.failed(event, scene)


@_say.register
def _(event: DaemonStarted, cause: Cause | None, scene: Scene) -> Said:
    return service.started(event, cause, scene)


@_say.register
def _(event: ArtifactVerified, cause: Cause | None, scene: Scene) -> Said:
    return artifacts.verified(event, cause, scene)


@_say.register
def _(event: ArtifactDeleted, cause: Cause | None, scene: Scene) -> Said:
    return artifacts.deleted(event, cause, scene)


@_say.register
def _(event: DrillFinished, cause: Cause | None, scene: Scene) -> Said:
    return artifacts.drilled(event.record, cause, scene)


@_say.register
def _(event: RestoreStarted, cause: Cause | None, scene: Scene) -> Said:
    return way_back.restore_started(event.record, scene)


@_say.register
def _(event: RestoreFinished, cause: Cause | None, scene: Scene) -> Said:
    return way_back.restore_finished(event.record, scene)


@_say.register
def _(event: IncidentOpened, cause: Cause | None, scene: Scene) -> Said:
    return way_back.incident_opened(event.incident, scene)


@_say.register
def _(event: IncidentOverdue, cause: Cause | None, scene: Scene) -> Said:
    return way_back.incident_overdue(event.incident, scene)


@_say.register
def _(event: IncidentClosed, cause: Cause | None, scene: Scene) -> Said:
    return way_back.incident_closed(event, scene)


@_say.register
def _(event: ReviewMade, cause: Cause | None, scene: Scene) -> Said:
    texts = scene.texts
    year, _, number = event.month.partition("-")
    month = texts.month.format(year=year, month=number)
    sentences = [texts.review.format(month=month)]
    if event.unticketed:
        starts = texts.separator.join(scene.at(start) for start in event.unticketed)
        sentences.append(texts.review_unticketed.format(count=len(event.unticketed), runs=starts))
    return Said(
        what=texts.review_what.format(month=month),
        sentences=tuple(sentences),
        facts=((texts.labels.whole, f"`{event.path}`"), *scene.where_to_look()),
        document=event.text or None,
    )


@_say.register
def _(event: TestMessage, cause: Cause | None, scene: Scene) -> Said:
    texts = scene.texts
    facts = ((texts.labels.host, scene.around.host), *scene.outlook())
    sentence = texts.test_over if event.over else texts.test.format(user=event.user)
    return Said(what=texts.test_what, sentences=(sentence,), facts=facts, lists=not event.over, over=event.over)
