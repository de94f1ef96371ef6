"""What is said about single artifacts, and about drills, which prove that they can be restored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scpln_backup.model import Outcome
from scpln_backup.observers.wording.scene import Said

if TYPE_CHECKING:
    from scpln_backup.events import ArtifactDeleted, ArtifactVerified
    from scpln_backup.model import DrillRecord
    from scpln_backup.observers.wording.scene import Fact, Scene
    from scpln_backup.records.outbox import Cause


def verified(event: ArtifactVerified, cause: Cause | None, scene: Scene) -> Said:
    texts = scene.texts.artifact
    if event.error is None:
        return Said(
            what=texts.what_sound.format(name=event.name),
            sentences=(texts.sound,),
            facts=scene.where_to_look(),
            over=cause is not None,
        )
    return Said(
        what=texts.what_corrupt.format(name=event.name),
        sentences=(scene.error(event.error), texts.corrupt_do, texts.corrupt_more, scene.last_good(event.name)),
        facts=scene.outlook(),
        lists=True,
    )


def deleted(event: ArtifactDeleted, cause: Cause | None, scene: Scene) -> Said:
    texts = scene.texts.artifact
    told = () if cause is None else (texts.deleted_over.format(since=scene.at(cause.since)),)
    return Said(
        what=texts.what_deleted.format(name=event.name),
        sentences=(*told, texts.deleted.format(reason=scene.said(event.reason))),
        facts=scene.where_to_look(),
        over=cause is not None,
    )


def drilled(record: DrillRecord, cause: Cause | None, scene: Scene) -> Said:
    texts = scene.texts.drill
    if record.outcome is Outcome.SUCCESS:
        what = texts.what_passed if cause is None else texts.what_recovered
        return Said(
            what=what.format(duration=scene.lasting(record.restore_seconds or 0)),
            sentences=(texts.passed,),
            facts=_facts(record, scene),
            over=cause is not None,
        )
    if record.outcome is Outcome.DEGRADED:
        return Said(
            what=texts.what_degraded,
            sentences=(texts.passed, scene.error(record.error)),
            facts=_facts(record, scene),
        )
    return Said(
        what=texts.what_failed.format(error=scene.reason(record.error)),
        sentences=(scene.error(record.error), texts.failed, texts.failed_do),
        facts=_facts(record, scene),
    )


def _facts(record: DrillRecord, scene: Scene) -> tuple[Fact, ...]:
    texts, labels = scene.texts.drill, scene.texts.labels
    facts = [(labels.began, f"{scene.at(record.started_at)}{_asked(record, scene)}")]
    if record.artifact is not None:
        facts.append((labels.artifact, record.artifact))
    if record.restore_seconds is not None:
        facts.append((labels.restore_time, scene.lasting(record.restore_seconds)))
    if record.smoke_exit_code is None:
        smoke = texts.smoke_none
    elif record.smoke_exit_code == 0:
        smoke = texts.smoke_passed
    else:
        smoke = texts.smoke_failed.format(code=record.smoke_exit_code)
    facts.append((labels.smoke_test, smoke))
    if record.output is not None:
        facts.append((labels.output, record.output))
    return (*facts, *scene.where_to_look())


def _asked(record: DrillRecord, scene: Scene) -> str:
    return scene.texts.within.format(scene.texts.triggers[record.trigger])
