"""The daemon as others see it: the page, /healthz, /metrics and systemd's status line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scpln_backup import __version__
from scpln_backup.errors import BackupError
from scpln_backup.observers.metrics import Live
from scpln_backup.rules.health import Health, Level
from scpln_backup.service.scheduler import JOB
from scpln_backup.service.statusline import idle, working
from scpln_backup.service.view import View

if TYPE_CHECKING:
    from collections.abc import Callable

    from scpln_backup.app import App
    from scpln_backup.model import RunRecord
    from scpln_backup.operations.status import Status
    from scpln_backup.service.runner import Runner
    from scpln_backup.service.scheduler import Scheduler

RUNS_ON_PAGE = 14


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
        health = Health(Level.CRITICAL, (problem, *status.health.reasons), status.health.overdue)
        return msgspec.structs.replace(status, health=health)

    def view(self) -> View:
        app = self._app()
        return View(
            now=app.now(),
            zone=app.zone,
            locale=app.config.locale,
            version=__version__,
            database=app.config.database.name,
            environment=app.config.environment,
            source=app.config.database.path,
            root=app.config.backup.root,
            status=self.status(),
            activity=self._runner.activity,
            runs=self._ended_runs(app),
            notice=self.notice,
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

    def _ended_runs(self, app: App) -> list[RunRecord]:
        """Without the one under way, which stands in the catalog as if it had been killed."""
        runs = app.catalog.runs(limit=RUNS_ON_PAGE + 1)
        if self._runner.running_since is not None and runs and runs[0].finished_at is None:
            del runs[0]
        return runs[:RUNS_ON_PAGE]

    def _idle(self) -> str:
        app = self._app()
        try:
            last = app.catalog.last_finished()
        except BackupError as error:
            return f"the catalog cannot be read: {error}"
        return idle(last, app.schedules[JOB].next_after(app.now()), app.zone)


def _size(path: Path) -> int | None:
    """None when there is no such file; the next run says so loudly."""
    try:
        return path.stat().st_size
    except OSError:
        return None
