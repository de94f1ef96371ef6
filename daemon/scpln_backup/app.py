"""The composition root: takes a Config apart and wires the rest."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from scpln_backup.errors import AuditError, BackupError, CatalogError, ConfigError, DeliveryError
from scpln_backup.events import Announcer
from scpln_backup.observers.audit import AuditTrail
from scpln_backup.observers.courier import Courier, note_failure
from scpln_backup.observers.recorder import Recorder
from scpln_backup.operations import backup, drill, status
from scpln_backup.operations.house import DAEMON, House
from scpln_backup.records.catalog import Catalog
from scpln_backup.rules.slots import Schedule
from scpln_backup.stores.local import LocalStore
from scpln_backup.support.locks import Lock, holder
from scpln_backup.support.people import current_user

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from scpln_backup.config.schema import Config
    from scpln_backup.model import DrillRecord, RunRecord, Trigger
    from scpln_backup.operations.review import Made

log = logging.getLogger(__name__)

_JOBS = ("backup", "drill", "review")
_CATALOG = "catalog.db"
# The review of a month looks back over the one before it; a year and more is what people ask about.
_EVENTS_KEPT = timedelta(days=400)
AUDIT = "audit"  # among the channels: the audit log, which is written in this process
_LOCK_HINT = "ask the daemon with `scpln-backup backup --wait`, or systemctl kill -s USR1 scpln-backup"
_MACHINE_ID = Path("/etc/machine-id")


class App:
    """One loaded configuration at work. A reload builds a new one; only the announcer is shared.

    `recorder` keeps events in the outbox; who only looks has none. `kept` is called after each event that is to be
    told: once it has been set, by whoever sees to the telling.
    """

    def __init__(self, config: Config, catalog: Catalog, announce: Announcer) -> None:
        store = LocalStore(Path(config.backup.root), config.database.name, config.timezone)
        self.house = House(config, catalog, store, announce)
        self.schedules = {name: _schedule(config, name) for name in _JOBS}
        self.recorder: Recorder | None = None
        self.kept: Callable[[], None] = _nothing

    @classmethod
    def build(cls, config: Config, announce: Announcer | None = None, *, as_root: bool = False, actor: str = "") -> App:
        """For those who change things: makes the state folder and the catalog, or mends them.

        `as_root` is for what root does in the owner's folders, and leaves to the owner. `actor` is who acts, in the
        audit log; "" is whoever runs this.  Raises BackupError when the state belongs to another user or cannot be
        written.
        """
        app = cls.writer(config, announce, actor=actor or current_user())
        house = app.house
        if not as_root:
            house.require_owner()
        house.catalog = Catalog.open(house.catalog.path, house.zone, house.now(), house.catalog.actor)
        try:
            if not house.catalog.is_filled():
                app.fill()
            app.register_channels()
        except CatalogError as error:  # a full disk under the catalog must not keep a backup from being made
            log.warning("%s", error)
        app.record()
        return app

    @classmethod
    def writer(cls, config: Config, announce: Announcer | None = None, *, actor: str) -> App:
        """For those who change only the catalog, and know that there is one."""
        path = Path(config.state.directory) / _CATALOG
        return cls(config, Catalog(path, config.timezone, actor), announce or Announcer())

    def fill(self) -> None:
        """Fill a catalog that replaces a lost one. Without any artifact it is tried again by whoever comes next.

        Their disk may not be mounted yet.
        """
        house = self.house
        artifacts = house.store.scan()
        if artifacts:
            house.catalog.sync_artifacts(artifacts, house.now())
            house.catalog.restore_from(a.manifest for a in artifacts if a.manifest is not None)

    def register_channels(self) -> None:
        """Make the configured channels known; only the daemon, or nobody while there is one, lets go of others."""
        known = {state.name for state in self.catalog.channels()}
        wanted = set(self.channel_names)
        if self.catalog.actor != DAEMON and holder(self.house.daemon_lock_path) is not None:
            wanted |= known
        if known != wanted:
            self.catalog.register_channels(wanted)
            for name in wanted - {AUDIT}:  # now, while there is room: on a full disk none could be made
                with suppress(BackupError), self._delivery_lock(name):
                    pass

    def record(self) -> None:
        """From now on keep what is announced, for those who must know."""
        self.recorder = Recorder(self.catalog, now=self.house.now, kept=lambda: self.kept())  # noqa: PLW0108 - `kept` is set later
        self.house.announce.subscribe(self.recorder)

    def succeed(self, other: App) -> None:
        """Take over from another app: from now on this one keeps the events, those that are held in memory too."""
        if other.recorder is not None and self.recorder is not None:
            other.house.announce.unsubscribe(other.recorder)
            self.recorder.take_over(other.recorder)

    @classmethod
    def reader(cls, config: Config, announce: Announcer | None = None) -> App:
        """For those who only look: writes nothing, and works where nothing was made yet."""
        path = Path(config.state.directory) / _CATALOG
        return cls(config, Catalog.reader(path, config.timezone), announce or Announcer())

    @property
    def config(self) -> Config:
        return self.house.config

    @property
    def zone(self) -> ZoneInfo:
        return self.house.zone

    @property
    def catalog(self) -> Catalog:
        return self.house.catalog

    @property
    def store(self) -> LocalStore:
        return self.house.store

    @property
    def announce(self) -> Announcer:
        return self.house.announce

    @property
    def schedule(self) -> Schedule:
        return self.schedules["backup"]

    def now(self) -> datetime:
        return self.house.now()

    @property
    def daemon_lock(self) -> Lock:
        """For the daemon, which holds it for its whole life."""
        return self._state_lock("the backup daemon")

    @property
    def foreground_lock(self) -> Lock:
        """The same lock, for a backup from the command line while it runs: two would fight over the schedule."""
        return self._state_lock("a backup from the command line")

    def _state_lock(self, what: str) -> Lock:
        return Lock(self.house.daemon_lock_path, what, hint=_LOCK_HINT, zone=self.zone)

    # Whoever must know

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channels that are configured, the audit log first."""
        config = self.config
        wanted = {
            "slack": config.slack.token_file,
            "pushgateway": config.pushgateway.url,
            "pagerduty": config.pagerduty.routing_key_file,
            "jira": config.jira.url,
        }
        return (AUDIT, *(name for name, value in wanted.items() if value))

    def due_channels(self, now: datetime) -> list[str]:
        """Those that something waits for, and that need not wait before it is tried again."""
        try:
            states = self.catalog.channels()
        except CatalogError:  # what is loose is told all the same, now of all times
            states = []
        due = [state.name for state in states if state.waiting and state.may_try(now)]
        loose = self.recorder.loose if self.recorder is not None else lambda _name: []
        return [name for name in self.channel_names if name != AUDIT and (name in due or loose(name))]

    def courier(self, name: str, *, everything: bool = False) -> Courier:
        """To the channel `name`, which takes `everything` for a test. SecretError when its secret cannot be read."""
        from scpln_backup.observers.channels.build import Builder  # noqa: PLC0415 - only who delivers needs it

        house = self.house
        next_run_at = self.schedule.next_after(house.now())
        builder = Builder(self.config, self.catalog, next_run_at, everything=everything)
        channel = builder.channel(name)
        return Courier(self.catalog, channel, self._delivery_lock(name), house.now)

    def _delivery_lock(self, name: str) -> Lock:
        return Lock(self.state_folder / f"deliver-{name}.lock", f"a delivery to {name}", zone=self.zone)

    def write_audit_log(self) -> None:
        """Append to the audit log what it lacks. A log that cannot be written is noted as any channel that fails."""
        now = self.house.now()
        state = self.catalog.channel(AUDIT)
        if state is not None and not state.may_try(now):
            return
        loose = self.recorder.loose(AUDIT) if self.recorder is not None else []
        if not loose and (state is None or not state.waiting):
            return
        trail = AuditTrail(
            self.catalog,
            Path(self.config.audit.log),
            self.state_folder,
            database=self.config.database.name,
            environment=self.config.environment,
            host=os.uname().nodename,
        )
        newest = self.catalog.last_entry_id()
        try:
            trail.catch_up(loose)
        except AuditError as error:
            note_failure(self.catalog, AUDIT, DeliveryError(str(error)), now)
            return
        if self.recorder is not None:
            self.recorder.note_told(AUDIT, loose)
        self.catalog.settle(AUDIT, newest, at=now)

    @property
    def state_folder(self) -> Path:
        return Path(self.config.state.directory)

    def backup(self, trigger: Trigger, cancel: threading.Event) -> RunRecord:
        """One run; see `operations.backup`."""
        return backup.backup(self.house, trigger, cancel)

    def drill(self, trigger: Trigger, cancel: threading.Event) -> DrillRecord:
        """One rehearsed restore; see `operations.drill`."""
        return drill.drill(self.house, trigger, cancel)

    def review(self) -> Made:
        """The review of the month before this one; see `operations.review`."""
        from scpln_backup.operations import review  # noqa: PLC0415 - once a month; the daemon stays small
        from scpln_backup.rules.review import month_before, month_of  # noqa: PLC0415 - as above

        now = self.house.now()
        self.write_audit_log()
        made = review.review(self.house, month_before(month_of(now)), now)
        self.catalog.prune_events(now - _EVENTS_KEPT)
        return made

    def status(self, *, now: datetime, running_since: datetime | None, scheduler_alive: bool = True) -> status.Status:
        """How things stand; see `operations.status`."""
        return status.status(
            self.house, self.schedule, now=now, running_since=running_since, scheduler_alive=scheduler_alive
        )


def _schedule(config: Config, job: str) -> Schedule:
    try:
        salt = _MACHINE_ID.read_text().strip()
    except OSError:
        salt = ""
    salt = f"{salt}/{config.environment}/{config.database.name}/{job}"
    schedule = config.schedule
    try:
        return Schedule(getattr(schedule, job), config.timezone, jitter_seconds=schedule.jitter_seconds, salt=salt)
    except ConfigError as error:
        raise ConfigError(f"[schedule] {job}: {error}") from error


def _nothing() -> None:
    """Nobody sees to the telling; what is kept is told by whoever looks into the outbox next."""
