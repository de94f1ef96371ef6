"""A channel from the configuration: its secret, its plan and the way to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scpln_backup import __version__
from scpln_backup.errors import BackupError, CatalogError
from scpln_backup.events import RunFinished
from scpln_backup.model import Outcome, RunRecord, Severity, Topic, Trigger
from scpln_backup.observers.message import Surroundings
from scpln_backup.observers.metrics import BackupCollector, Live
from scpln_backup.records.artifacts import ArtifactIndex
from scpln_backup.support import clock
from scpln_backup.support.locks import holder
from scpln_backup.support.secrets import read_secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from scpln_backup.config.schema import Config, JiraConfig, PagerdutyConfig, SlackConfig
    from scpln_backup.observers.message import Message
    from scpln_backup.observers.planning import Channel
    from scpln_backup.records.catalog import Catalog
    from scpln_backup.records.outbox import Cause, Entry

_ARTIFACTS = 10
_RUNS = 30


class Builder:
    """Builds the channels of one configuration, as things stand at this delivery.

    `everything`: they take whatever they are given, for a test message.
    """

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        next_run_at: datetime | None,
        *,
        everything: bool = False,
    ) -> None:
        self._config = config
        self._catalog = catalog
        self._next_run_at = next_run_at
        self._everything = everything

    def channel(self, name: str) -> Channel[Any]:
        """The channel `name`. SecretError when its secret cannot be read."""
        return {
            "slack": self._slack,
            "pushgateway": self._pushgateway,
            "pagerduty": self._pagerduty,
            "jira": self._jira,
        }[name]()

    def _slack(self) -> Channel[Any]:
        from scpln_backup.notify.slack import Slack  # noqa: PLC0415 - each delivery needs one service only
        from scpln_backup.observers.channels.slack import SlackChannel  # noqa: PLC0415 - as above

        settings = self._config.slack
        token = read_secret("[slack] token_file", settings.token_file, os.environ)
        return SlackChannel(
            Slack(token, channel=settings.channel, api_url=settings.api_url),
            **self._interest(settings),
            around=self._around(),
            catalog_id=self._catalog_id(),
        )

    def _pushgateway(self) -> Channel[Any]:
        from scpln_backup.notify.pushgateway import Pushgateway  # noqa: PLC0415 - as above
        from scpln_backup.observers.channels.pushgateway import PushgatewayChannel  # noqa: PLC0415 - as above

        settings = self._config.pushgateway
        group = {"database": self._config.database.name, "environment": self._config.environment}
        gateway = Pushgateway(settings.url, job=settings.job, group=group)
        return PushgatewayChannel(gateway, lambda: BackupCollector(self._live))

    def _pagerduty(self) -> Channel[Any]:
        from scpln_backup.notify.pagerduty import PagerDuty  # noqa: PLC0415 - as above
        from scpln_backup.observers.channels.pagerduty import PagerDutyChannel  # noqa: PLC0415 - as above

        settings = self._config.pagerduty
        key = read_secret("[pagerduty] routing_key_file", settings.routing_key_file, os.environ)
        return PagerDutyChannel(
            PagerDuty(key, url=settings.url),
            **self._interest(settings),
            database=self._config.database.name,
            environment=self._config.environment,
            host=os.uname().nodename,
            page=self._config.web.url or None,
            word=self._word(),
        )

    def _jira(self) -> Channel[Any]:
        from scpln_backup.notify.jira import Jira  # noqa: PLC0415 - as above
        from scpln_backup.observers.channels.jira import JiraChannel  # noqa: PLC0415 - as above

        settings = self._config.jira
        token = read_secret("[jira] token_file", settings.token_file, os.environ)
        service = Jira(
            url=settings.url,
            token=token,
            user=settings.user,
            project=settings.project,
            issue_type=settings.issue_type,
        )
        return JiraChannel(
            service,
            **self._interest(settings),
            transition=settings.done_transition,
            database=self._config.database.name,
            environment=self._config.environment,
            word=self._word(),
            ticketed=self._ticketed,
        )

    def _interest(self, settings: SlackConfig | PagerdutyConfig | JiraConfig) -> dict[str, Any]:
        if self._everything:
            return {"topics": frozenset(Topic), "level": Severity.INFO}
        return {"topics": frozenset(settings.events), "level": settings.level}

    def _word(self) -> Callable[[Entry, Cause | None], Message]:
        from scpln_backup.observers.wording.message import message  # noqa: PLC0415 - as above

        around = self._around()
        return lambda entry, cause: message(entry, cause, around)

    def _ticketed(self, started_at: datetime) -> bool:
        run = RunRecord(trigger=Trigger.SCHEDULE, started_at=started_at, outcome=Outcome.FAILED)
        return self._catalog.has_ref("jira", RunFinished(record=run))

    def _catalog_id(self) -> str:
        try:
            return self._catalog.catalog_id()
        except CatalogError:
            return ""

    def _around(self) -> Surroundings:
        """How things stand. What cannot be read is left out: a message must not wait for that."""
        config = self._config
        try:
            # Not the folder itself: a disk that hangs would silence the alarm about it.
            index = ArtifactIndex(self._catalog.path, self._catalog.zone)
            artifacts = tuple(index.newest(_ARTIFACTS))
        except BackupError:
            artifacts = ()
        try:
            runs = tuple(run for run in self._catalog.runs(limit=_RUNS) if run.finished_at is not None)
        except BackupError:
            runs = ()
        return Surroundings(
            database=config.database.name,
            environment=config.environment,
            host=os.uname().nodename,
            root=config.backup.root,
            locale=config.locale,
            zone=config.timezone,
            now=clock.now(config.timezone),
            artifacts=artifacts,
            runs=runs,
            next_run_at=self._next_run_at,
            page=config.web.url or None,
        )

    def _live(self) -> Live:
        """What a push says. What is under way must not be told as if it had been killed."""
        running = holder(Path(self._config.state.directory) / "run.lock")
        what = running.what if running is not None else ""
        try:
            source_bytes = Path(self._config.database.path).stat().st_size
        except OSError:
            source_bytes = None
        return Live(
            catalog=self._catalog,
            database=self._config.database.name,
            environment=self._config.environment,
            version=__version__,
            running=what.startswith("a backup"),
            drilling=what.startswith("a drill"),
            broke_off=False,
            next_run_at=self._next_run_at,
            source_bytes=source_bytes,
        )
