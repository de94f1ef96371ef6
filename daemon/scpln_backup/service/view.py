"""What the status page shows, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, tzinfo

    from scpln_backup.config.schema import Locale
    from scpln_backup.model import RunRecord
    from scpln_backup.operations.status import Status
    from scpln_backup.service.runner import Activity


@dataclass(frozen=True, kw_only=True)
class View:
    """`runs`: newest first. `notice`: why a reload was refused, if it was."""

    now: datetime
    zone: tzinfo
    locale: Locale
    version: str
    database: str
    environment: str
    source: str
    root: str
    status: Status
    activity: Activity
    runs: Sequence[RunRecord]
    notice: str | None
