"""What is said about restores of the live database and their incidents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scpln_backup.model import RestoreOutcome
from scpln_backup.observers.wording.scene import Said, one_line
from scpln_backup.rules import loss as losses
from scpln_backup.rules.report import missing

if TYPE_CHECKING:
    from scpln_backup.events import IncidentClosed
    from scpln_backup.model import Incident, RestoreRecord
    from scpln_backup.observers.wording.scene import Fact, Scene


def restore_started(record: RestoreRecord, scene: Scene) -> Said:
    texts = scene.texts.restore
    return Said(what=texts.what_started, sentences=(texts.started, texts.broken_off), facts=_restore(record, scene))


def restore_finished(record: RestoreRecord, scene: Scene) -> Said:
    texts = scene.texts.restore
    if record.outcome is RestoreOutcome.SUCCESS:
        sentences = (*_lost(record, scene), *((scene.error(record.error),) if record.error else ()))
    elif record.outcome is RestoreOutcome.FAILED:
        sentences = (scene.error(record.error), texts.look_at_error)
    else:
        sentences = (*((scene.error(record.error),) if record.error else ()), texts.old_in_place)
    return Said(what=texts.what_ended[record.outcome], sentences=sentences, facts=_restore(record, scene))


def incident_opened(incident: Incident, scene: Scene) -> Said:
    texts = scene.texts.incident
    return Said(
        what=texts.what_opened.format(id=incident.id, due=scene.at(incident.deadline_at)),
        sentences=(texts.opened, *_lost(incident.restore, scene)[:1], texts.opened_do.format(id=incident.id)),
        facts=_incident(incident, scene),
    )


def incident_overdue(incident: Incident, scene: Scene) -> Said:
    texts = scene.texts.incident
    parts = scene.texts.separator.join(texts.parts[part] for part in missing(incident)) or "-"
    return Said(
        what=texts.what_overdue.format(id=incident.id),
        sentences=(
            texts.overdue.format(due=scene.at(incident.deadline_at), parts=parts),
            texts.overdue_do.format(id=incident.id),
        ),
        facts=_incident(incident, scene),
    )


def incident_closed(event: IncidentClosed, scene: Scene) -> Said:
    """With the report that those who work with the database wait for."""
    texts, labels, incident = scene.texts.incident, scene.texts.labels, event.incident
    closed_at = incident.closed_at or scene.around.now
    late = closed_at.timestamp() - incident.deadline_at.timestamp()
    sentence = texts.closed if late <= 0 else texts.closed_late
    return Said(
        what=texts.what_closed.format(id=incident.id),
        sentences=(sentence.format(at=scene.at(closed_at), late=scene.lasting(late)),),
        facts=(
            *_incident(incident, scene),
            (labels.closed, scene.at(closed_at)),
            (labels.whole, f"`scpln-backup incident report {incident.id}`"),
        ),
        document=event.report or None,
        over=True,
    )


def _lost(record: RestoreRecord, scene: Scene) -> tuple[str, ...]:
    """What is missing, and how to get it back."""
    loss = record.loss
    if loss is None:
        return ()
    around = scene.around
    sentences = tuple(one_line(sentence) for sentence in losses.words(loss, around.locale, around.zone))
    if loss.problem is None and not losses.lost_rows(loss) and losses.newest_lost(loss) is None:
        return sentences
    return (*sentences, scene.texts.restore.rebuild.format(since=losses.since(loss, around.zone)))


def _restore(record: RestoreRecord, scene: Scene) -> tuple[Fact, ...]:
    labels = scene.texts.labels
    facts = [
        (labels.began, scene.at(record.started_at)),
        (labels.artifact, record.artifact),
        (labels.target, record.target),
    ]
    if record.taken_at is not None:
        facts.append((labels.taken, scene.at(record.taken_at)))
    if record.user is not None:
        facts.append((labels.user, record.user))
    if record.finished_at is not None:
        facts.append((labels.duration, scene.between(record.started_at, record.finished_at)))
    if record.set_aside is not None:
        facts.append((labels.set_aside, record.set_aside))
    return (*facts, (labels.host, scene.around.host))


def _incident(incident: Incident, scene: Scene) -> tuple[Fact, ...]:
    labels = scene.texts.labels
    return (
        (labels.opened, scene.at(incident.opened_at)),
        (labels.due, scene.at(incident.deadline_at)),
        (labels.artifact, incident.restore.artifact),
        (labels.target, incident.restore.target),
    )
