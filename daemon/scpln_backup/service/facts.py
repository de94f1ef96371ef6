"""The daemon as others see it: the page, /healthz, /metrics and systemd's status line."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scpln_backup import __version__
from scpln_backup.errors import BackupError
from scpln_backup.observers.metrics import Live
from scpln_backup.records.artifacts import ArtifactIndex
from scpln_backup.rules.health import Health, Level
from scpln_backup.rules.reasons import not_begun
from scpln_backup.service.page.view import Recorded, View
from scpln_backup.service.scheduler import JOB
from scpln_backup.service.statusline import idle, working
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from scpln_backup.app import App
    from scpln_backup.model import DrillRecord, RunRecord
    from scpln_backup.operations.status import Status
    from scpln_backup.service.runner import Runner
    from scpln_backup.service.scheduler import Scheduler

RUNS_ON_PAGE = 14
ARTIFACTS_ON_PAGE = 12
DRILLS_ON_PAGE = 8
# The charts of the page are about thirty local days, of 25 hours at times. A schedule of every ten minutes makes
# fewer runs in them than this; of one that makes more the oldest are left out, rather than keep the page waiting.
_MONTH = timedelta(days=31)
_RUNS_IN_MONTH = 5000


class DaemonFacts:
    """Asked from the web server's threads and the main loop; `app` gives the app of the moment.

    `notice` is what the operator must know beside the health: that a reload was refused, and why.
    """

    def __init__(self, app: Callable[[], App], runner: Runner, drills: Runner, scheduler: Scheduler) -> None:
        self._app = app
        self._runner = runner
        self._drills = drills
        self._scheduler = scheduler
        self.notice: str | None = None

    def status(self) -> Status:
        """What the catalog says, and what it cannot know: a run that could not even begin."""
        app = self._app()
        status = app.status(
            now=app.now(), running_since=self._runner.running_since, scheduler_alive=self._scheduler.alive
        )
        problem = self._runner.problem
        if problem is None:
            return status
        health = Health(Level.CRITICAL, (not_begun(problem), *status.health.why), status.health.overdue)
        return msgspec.structs.replace(status, health=health)

    def view(self) -> View:
        """What the page shows. A catalog that cannot be read is part of it, not an error."""
        app = self._app()
        now = app.now()
        recorded, problem = None, None
        try:
            recorded = self._recorded(app, now)
        except BackupError as error:
            problem = one_line(error)
        return View(
            now=now,
            zone=app.zone,
            locale=app.config.locale,
            version=__version__,
            database=app.config.database.name,
            environment=app.config.environment,
            source=app.config.database.path,
            root=app.config.backup.root,
            backing_up=self._runner.activity,
            drilling=self._drills.activity,
            recorded=recorded,
            problem=problem,
            notice=self.notice,
        )

    def _recorded(self, app: App, now: datetime) -> Recorded:
        catalog = app.catalog
        status = self.status()
        return Recorded(
            status=status,
            installed_at=catalog.installed_at(),
            runs=self._ended(catalog.runs(limit=RUNS_ON_PAGE + 1))[:RUNS_ON_PAGE],
            month=self._ended(catalog.runs(limit=_RUNS_IN_MONTH, since=now - _MONTH)),
            artifacts=ArtifactIndex(catalog.path, app.zone).newest(ARTIFACTS_ON_PAGE),
            drills=_up_to(status.last_drill, catalog.drills(limit=DRILLS_ON_PAGE + 1))[:DRILLS_ON_PAGE],
            incidents=catalog.open_incidents(),
            channels=status.notifications,
        )

    def live(self) -> Live:
        app = self._app()
        return Live(
            catalog=app.catalog,
            database=app.config.database.name,
            environment=app.config.environment,
            version=__version__,
            running=self._runner.running_since is not None,
            drilling=self._drills.running_since is not None,
            broke_off=self._runner.problem is not None,
            next_run_at=app.schedules[JOB].next_after(app.now()),
            source_bytes=_size(Path(app.config.database.path)),
        )

    def status_line(self) -> str:
        line = working(self._runner.activity) or self._idle()
        return "; ".join(part for part in (line, self._runner.problem, self.notice) if part is not None)

    def _ended(self, runs: list[RunRecord]) -> list[RunRecord]:
        """Without the one under way, which stands in the catalog as if it had been killed."""
        under_way = self._runner.running_since is not None and runs and runs[0].finished_at is None
        return runs[1:] if under_way else runs

    def _idle(self) -> str:
        app = self._app()
        try:
            last = app.catalog.last_finished()
        except BackupError as error:
            return f"the catalog cannot be read: {error}"
        return idle(last, app.schedules[JOB].next_after(app.now()), app.zone)


def _up_to(last: DrillRecord | None, drills: list[DrillRecord]) -> list[DrillRecord]:
    """Without the drill under way, which is newer than the last that is over."""
    return [] if last is None else [drill for drill in drills if drill.id <= last.id]


def _size(path: Path) -> int | None:
    """None when there is no such file; the next run says so loudly."""
    try:
        return path.stat().st_size
    except OSError:
        return None
