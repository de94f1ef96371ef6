"""What the checks look at: one configuration, the daemon that reads it, and facts that several checks go by."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from scpln_backup.errors import BackupError
from scpln_backup.operations.doctor.account import Account, account, acting_as
from scpln_backup.operations.doctor.mounts import Mount, mounts
from scpln_backup.stages import source
from scpln_backup.support.locks import holder
from scpln_backup.support.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from scpln_backup.config.load import Loaded
    from scpln_backup.config.schema import Config
    from scpln_backup.model import Artifact
    from scpln_backup.operations.doctor.units import Unit
    from scpln_backup.operations.house import House
    from scpln_backup.rules.slots import Schedule
    from scpln_backup.stages.source import SourceFacts
    from scpln_backup.support.locks import Holder

_DAEMON = "the backup daemon"


class Patient:
    """Facts are read when a check first asks for them. What is None could not be had, and a check of its own says why.

    `unit` is the daemon's, None where there is none that reads this configuration; `systemd` whether there could be
    one. `environ` is the caller's environment, which need not be the daemon's.
    """

    def __init__(
        self,
        loaded: Loaded,
        house: House,
        schedules: Mapping[str, Schedule],
        *,
        environ: Mapping[str, str],
        unit: Unit | None,
        systemd: bool,
    ) -> None:
        self.loaded = loaded
        self.house = house
        self.schedules = schedules
        self.environ = environ
        self.unit = unit
        self.systemd = systemd
        self.now: datetime = house.now()

    @property
    def config(self) -> Config:
        return self.loaded.config

    @property
    def state(self) -> Path:
        return Path(self.config.state.directory)

    @cached_property
    def user(self) -> Account:
        """Whom the daemon runs as: its unit's User=, else the owner of the database, without one who asks."""
        if self.unit is not None:
            return account(self.unit.user)
        found = next((path for path in (self.house.source, self.state, self.house.root) if path.exists()), None)
        return account(os.geteuid() if found is None else found.stat().st_uid)

    @cached_property
    def mounts(self) -> list[Mount]:
        return mounts()

    @cached_property
    def source(self) -> SourceFacts | None:
        with acting_as(self.user):
            try:
                return source.inspect(self.house.source)
            except BackupError:
                return None

    @cached_property
    def artifacts(self) -> list[Artifact] | None:
        """Newest first."""
        try:
            return self.house.store.scan()
        except BackupError:
            return None

    @cached_property
    def catalog_problem(self) -> str | None:
        """Why the daemon's user cannot read the catalog."""
        with acting_as(self.user):
            try:
                self.house.catalog.last_finished()
            except BackupError as error:
                return one_line(error)
        return None

    @cached_property
    def daemon(self) -> Holder | None:
        """The running daemon. BackupError: its lock cannot be looked at."""
        found = holder(self.house.daemon_lock_path)
        return found if found is not None and found.what == _DAEMON else None
