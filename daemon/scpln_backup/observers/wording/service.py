"""What is said about the service that makes the backups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scpln_backup.observers.wording.scene import Said

if TYPE_CHECKING:
    from scpln_backup.events import DaemonStarted, ServiceFailed
    from scpln_backup.observers.wording.scene import Scene
    from scpln_backup.records.outbox import Cause


def failed(event: ServiceFailed, scene: Scene) -> Said:
    texts, labels = scene.texts.service, scene.texts.labels
    return Said(
        what=texts.what_failed,
        sentences=(
            scene.error(event.problem),
            texts.failed,
            scene.last_good(),
            texts.failed_do.format(unit=event.unit),
        ),
        facts=((labels.unit, event.unit), (labels.host, scene.around.host)),
        lists=True,
    )


def started(event: DaemonStarted, cause: Cause | None, scene: Scene) -> Said:
    """`cause`: its failure was told of."""
    texts, labels = scene.texts.service, scene.texts.labels
    facts = ((labels.version, event.version), (labels.host, scene.around.host), *scene.outlook())
    if cause is None:
        return Said(what=texts.what_started, facts=facts)
    return Said(what=texts.what_runs_again, sentences=(texts.runs_again,), facts=facts, over=True)
