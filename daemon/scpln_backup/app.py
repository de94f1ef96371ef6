"""The composition root: takes a Config apart and wires the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scpln_backup.errors import ConfigError
from scpln_backup.events import Announcer
from scpln_backup.operations import backup, drill, status
from scpln_backup.operations.house import House
from scpln_backup.records.catalog import Catalog
from scpln_backup.rules.slots import Schedule
from scpln_backup.stores.local import LocalStore
from scpln_backup.support.locks import Lock

if TYPE_CHECKING:
    import threading
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from scpln_backup.config.schema import Config
    from scpln_backup.model import DrillRecord, RunRecord, Trigger

_JOBS = ("backup", "drill")
_CATALOG = "catalog.db"
_LOCK_HINT = "ask the daemon with `scpln-backup backup --wait`, or systemctl kill -s USR1 scpln-backup"
_MACHINE_ID = Path("/etc/machine-id")


class App:
    """One loaded configuration at work. A reload builds a new one; only the announcer is shared."""

    def __init__(self, config: Config, catalog: Catalog, announce: Announcer) -> None:
        store = LocalStore(Path(config.backup.root), config.database.name, config.timezone)
        self.house = House(config, catalog, store, announce)
        self.schedules = {name: _schedule(config, name) for name in _JOBS}

    @classmethod
    def build(cls, config: Config, announce: Announcer | None = None, *, as_root: bool = False) -> App:
        """For those who change things: makes the state folder and the catalog, or mends them.

        `as_root` is for what root does in the owner's folders, and leaves to the owner.  Raises BackupError when the
        state belongs to another user or cannot be written.
        """
        app = cls.reader(config, announce)
        house = app.house
        if not as_root:
            house.require_owner()
        house.catalog = Catalog.open(house.catalog.path, house.zone, house.now())
        if house.catalog.is_new:
            artifacts = house.store.scan()
            house.catalog.restore_from(a.manifest for a in artifacts if a.manifest is not None)
            house.catalog.sync_artifacts(artifacts, house.now())
        return app

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

    def backup(self, trigger: Trigger, cancel: threading.Event) -> RunRecord:
        """One run; see `operations.backup`."""
        return backup.backup(self.house, trigger, cancel)

    def drill(self, trigger: Trigger, cancel: threading.Event) -> DrillRecord:
        """One rehearsed restore; see `operations.drill`."""
        return drill.drill(self.house, trigger, cancel)

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
