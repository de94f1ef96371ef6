"""What the status page shows, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, tzinfo

    from scpln_backup.config.schema import Locale
    from scpln_backup.model import Artifact, DrillRecord, Incident, RunRecord
    from scpln_backup.operations.status import Status
    from scpln_backup.records.outbox import ChannelState
    from scpln_backup.service.runner import Activity


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What the catalog knows; without the run and the drill under way.

    `month` has the runs of the last 31 days, `runs` the newest whenever they were; both, `artifacts` and `drills` are
    newest first, and each only as many as the page shows.
    """

    status: Status
    installed_at: datetime | None
    runs: Sequence[RunRecord]
    month: Sequence[RunRecord]
    artifacts: Sequence[Artifact]
    drills: Sequence[DrillRecord]
    incidents: Sequence[Incident]
    channels: Sequence[ChannelState]


@dataclass(frozen=True, kw_only=True)
class View:
    """`recorded` is None when the catalog cannot be read; then `problem` says why.

    `locale` is for readers who don't say what they like better. `notice`: why a reload was refused, if it was.
    """

    now: datetime
    zone: tzinfo
    locale: Locale
    version: str
    database: str
    environment: str
    source: str
    root: str
    backing_up: Activity
    drilling: Activity
    recorded: Recorded | None
    problem: str | None
    notice: str | None
