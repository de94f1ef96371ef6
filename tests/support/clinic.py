"""A place for the doctor to look at: quiet about all that a test does not make go wrong."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from scpln_backup.app import App
from scpln_backup.config.load import load_with_origins
from scpln_backup.operations.doctor.checks import examine
from scpln_backup.operations.doctor.patient import Patient
from scpln_backup.operations.doctor.units import Sandbox, Unit
from support.place import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from scpln_backup.operations.doctor.finding import Finding

NOBODY = 65534

OPEN = Sandbox(protect_system="", protect_home="", private_tmp=False, writable=(), read_only=(), hidden=(), bound=())


def unit(**more: Any) -> Unit:
    """The daemon's unit as it should be, but for what the test says."""
    usual: dict[str, Any] = {
        "name": "scpln-backup.service",
        "load_state": "loaded",
        "active_state": "active",
        "file_state": "enabled",
        "needs_reload": False,
        "files": (),
        "entered_at": 0.0,
        "status_text": "",
        "user": "root",
        "environment": {},
        "mounts": (),
        "watchdog_seconds": 120.0,
        "stop_seconds": 90.0,
        "start_seconds": 90.0,
        "made": (),
        "prepares": "",
        "sandbox": OPEN,
    }
    return Unit(**(usual | more))


class Clinic(Place):
    """Its application is stopped by hand, has no health to ask for, and a smoke test that succeeds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.env_file = folder / ".env"
        self.env_file.write_text("REGISTRY_BACKEND=db\n", encoding="utf-8")
        self.config.write_text(
            self.config.read_text(encoding="utf-8").replace('env_file = ""', f'env_file = "{self.env_file}"'),
            encoding="utf-8",
        )
        self.configure("service", units=[], health_url="")
        self.configure("drill", command=["true"], directory=str(folder))
        self.configure("rebuild", command=[])

    def app(self) -> App:
        """For those who write: the state folder and the catalog are made."""
        return App.build(load_with_origins(self.config, {}).config)

    def patient(
        self, *, environ: Mapping[str, str] | None = None, unit: Unit | None = None, systemd: bool = False
    ) -> Patient:
        loaded = load_with_origins(self.config, {})
        app = App.reader(loaded.config)
        return Patient(loaded, app.house, app.schedules, environ=environ or {}, unit=unit, systemd=systemd)

    def examined(self, probes: Mapping[str, Callable[[], str]] | None = None, **more: Any) -> dict[str, Finding]:
        """What the doctor finds, by check."""
        found = list(examine(self.patient(**more), probes or {}))
        by_check = {finding.check: finding for finding in found}
        assert len(by_check) == len(found), "two findings of one name"
        return by_check

    def found(self, check: str, **more: Any) -> Finding:
        return self.examined(**more)[check]

    def backup_as_owner(self) -> None:
        """What a backup of the user leaves: root may not make one in another user's folders."""
        self.give(0)
        self.backup()
        self.give(NOBODY)

    def give(self, user: int) -> None:
        """Make all of it belong to a user, whom the daemon runs as then."""
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, user, user, follow_symlinks=False)
