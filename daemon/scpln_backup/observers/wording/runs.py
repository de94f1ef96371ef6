"""What is said about runs, and about those that did not happen."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from scpln_backup.model import Outcome
from scpln_backup.observers.wording import figures
from scpln_backup.observers.wording.scene import Said
from scpln_backup.support.text import human_bytes

if TYPE_CHECKING:
    from datetime import datetime

    from scpln_backup.events import BackupOverdue
    from scpln_backup.model import RunRecord
    from scpln_backup.observers.wording.scene import Fact, Scene
    from scpln_backup.records.outbox import Cause


def finished(record: RunRecord, cause: Cause | None, scene: Scene) -> Said:
    """`cause`: what is over with this run, or goes on with it."""
    if record.interrupted:
        return _interrupted(record, scene)
    match record.outcome:
        case Outcome.SUCCESS:
            return _success(record, cause, scene)
        case Outcome.DEGRADED:
            return _degraded(record, cause, scene)
        case Outcome.SUSPECT:
            return _suspect(record, scene)
        case Outcome.FAILED:
            return _failed(record, cause, scene)


def overdue(event: BackupOverdue, scene: Scene) -> Said:
    texts = scene.texts.run
    since, deadline = scene.at(event.since), scene.at(event.deadline)
    sentence = texts.overdue_never if event.never else texts.overdue
    return Said(
        what=texts.what_overdue.format(hours=event.hours),
        sentences=(
            sentence.format(since=since, deadline=deadline),
            *(() if event.never else (scene.last_good(),)),
            texts.overdue_do,
        ),
        facts=scene.outlook(),
        lists=True,
    )


def _success(record: RunRecord, cause: Cause | None, scene: Scene) -> Said:
    texts = scene.texts.run
    what = texts.what_success if cause is None else texts.what_recovered
    size, took = human_bytes(record.artifact_bytes or 0), scene.lasting(record.duration_seconds or 0)
    return Said(
        what=what.format(size=size, duration=took),
        sentences=() if cause is None else (_recovery(record, cause, scene),),
        facts=(*_made(record, scene), *scene.outlook()),
        lists=True,
        over=cause is not None,
    )


def _recovery(record: RunRecord, cause: Cause, scene: Scene) -> str:
    texts = scene.texts.run
    bad = _bad_before(record, cause, scene)
    if bad is not None:
        count, since = bad
        return texts.failures_over.format(runs=scene.runs(count), since=scene.at(since))
    earlier = figures.before(record, scene.around.runs)
    return texts.gap_over_since.format(since=scene.at(earlier[0].started_at)) if earlier else texts.gap_over


def _degraded(record: RunRecord, cause: Cause | None, scene: Scene) -> Said:
    texts = scene.texts.run
    return Said(
        what=texts.what_degraded,
        sentences=(
            texts.degraded.format(error=scene.said(record.error)),
            *_in_a_row(record, cause, scene),
            texts.degraded_do,
        ),
        facts=(*_made(record, scene), *scene.outlook()),
        lists=True,
    )


def _suspect(record: RunRecord, scene: Scene) -> Said:
    texts = scene.texts.run
    good = scene.newest_good(record.artifact)
    otherwise = texts.suspect_not_meant if good is None else texts.suspect_restore.format(good=good.name)
    return Said(
        what=texts.what_suspect,
        sentences=(
            texts.shrank.format(error=scene.said(record.error)),
            texts.suspect,
            texts.suspect_meant.format(name=record.artifact or "NAME"),
            otherwise,
            scene.last_good(record.artifact),
        ),
        facts=(*_made(record, scene), *scene.outlook()),
        lists=True,
    )


def _failed(record: RunRecord, cause: Cause | None, scene: Scene) -> Said:
    texts = scene.texts.run
    return Said(
        what=texts.what_failed.format(error=scene.reason(record.error)),
        sentences=(
            scene.error(record.error),
            scene.last_good(),
            *_in_a_row(record, cause, scene),
            texts.failed_do,
        ),
        facts=(*_began(record, scene), *_took(record, scene), *scene.outlook()),
        lists=True,
    )


def _interrupted(record: RunRecord, scene: Scene) -> Said:
    texts = scene.texts.run
    return Said(
        what=texts.what_interrupted,
        sentences=(
            texts.interrupted,
            *((scene.error(record.error),) if record.error else ()),
            scene.last_good(),
            texts.interrupted_do,
        ),
        facts=(*_began(record, scene), *_took(record, scene), *scene.outlook()),
        lists=True,
    )


def _in_a_row(record: RunRecord, cause: Cause | None, scene: Scene) -> tuple[str, ...]:
    bad = _bad_before(record, cause, scene)
    if bad is None:
        return ()
    count, since = bad
    return (scene.texts.run.in_a_row.format(runs=scene.runs(count + 1), since=scene.at(since)),)


def _bad_before(record: RunRecord, cause: Cause | None, scene: Scene) -> tuple[int, datetime] | None:
    """How many runs right before `record` were not a success, and the start of the first of them.

    The runs count; where they do not reach back to a success, what was told of the trouble may reach further.
    """
    earlier = figures.before(record, scene.around.runs)
    bad = list(takewhile(lambda run: run.outcome is not Outcome.SUCCESS, earlier))
    if cause is not None and len(bad) == len(earlier) and cause.count > len(bad):
        return cause.count, min([cause.since, *(run.started_at for run in bad)], key=lambda at: at.timestamp())
    return (len(bad), bad[-1].started_at) if bad else None


def _made(record: RunRecord, scene: Scene) -> tuple[Fact, ...]:
    """The facts about a run that made an artifact."""
    texts, labels = scene.texts, scene.texts.labels
    facts = [*_began(record, scene)]
    if record.artifact is not None:
        facts.append((labels.artifact, record.artifact))
    if record.artifact_bytes is not None:
        earlier = figures.before(record, scene.around.runs)
        size = human_bytes(record.artifact_bytes)
        if record.raw_bytes is not None:
            size += texts.within.format(texts.from_database.format(size=human_bytes(record.raw_bytes)))
        change = figures.trend(record.artifact_bytes, earlier, lambda run: run.artifact_bytes, texts)
        facts.append((labels.size, texts.separator.join(filter(None, (size, change)))))
    if record.reused_from is not None:
        facts.append((labels.unchanged, record.reused_from))
    facts += _took(record, scene)
    if record.writer_blocked_seconds is not None:
        waited = scene.lasting(record.writer_blocked_seconds)
        facts.append((labels.writers, texts.at_most.format(duration=waited)))
    return tuple(facts)


def _began(record: RunRecord, scene: Scene) -> tuple[Fact, ...]:
    asked = scene.texts.within.format(scene.texts.triggers[record.trigger])
    return ((scene.texts.labels.began, f"{scene.at(record.started_at)}{asked}"),)


def _took(record: RunRecord, scene: Scene) -> tuple[Fact, ...]:
    """The time it took, compared with others where it went to its end."""
    took = record.duration_seconds
    if took is None:
        return ()
    texts = scene.texts
    change = ""
    if record.outcome in (Outcome.SUCCESS, Outcome.DEGRADED):
        earlier = figures.before(record, scene.around.runs)
        change = figures.trend(took, earlier, lambda run: run.duration_seconds, texts)
    return ((texts.labels.duration, texts.separator.join(filter(None, (scene.lasting(took), change)))),)
