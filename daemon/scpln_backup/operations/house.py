"""What every operation works with."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING

from scpln_backup.errors import BackupError
from scpln_backup.support import clock
from scpln_backup.support.locks import Lock

if TYPE_CHECKING:
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from scpln_backup.config.schema import Config
    from scpln_backup.events import Announcer
    from scpln_backup.records.catalog import Catalog
    from scpln_backup.stores.local import LocalStore

# Among the jobs whose times the catalog keeps: when a daemon last started on this state.
DAEMON = "daemon"


_MOST_WORKERS = 8  # by itself: each takes its MiB, and one more saves little by then


class House:
    """One database's settings, its catalog and its store."""

    def __init__(self, config: Config, catalog: Catalog, store: LocalStore, announce: Announcer) -> None:
        self.config = config
        self.catalog = catalog
        self.store = store
        self.announce = announce

    @property
    def zone(self) -> ZoneInfo:
        return self.config.timezone

    @property
    def source(self) -> Path:
        # SQLite names journals after the file behind a symbolic link, so that is the one to look at.
        return Path(os.path.realpath(self.config.database.path))

    @property
    def root(self) -> Path:
        return Path(self.config.backup.root)

    @property
    def workers(self) -> int:
        return self.config.backup.workers or min(len(os.sched_getaffinity(0)), _MOST_WORKERS)

    def now(self) -> datetime:
        return clock.now(self.zone)

    @property
    def daemon_lock_path(self) -> Path:
        """Held by the daemon for its whole life, and by a foreground backup for its run."""
        return Path(self.config.state.directory) / "daemon.lock"

    def run_lock(self, what: str) -> Lock:
        """Held by whoever changes the staging folder, an artifact or a manifest, for as long as it does."""
        path = Path(self.config.state.directory) / "run.lock"
        return Lock(path, what, hint="try again when it is done", zone=self.zone)

    def require_owner(self) -> None:
        """Refuse to work as root in another user's folders: root's files in them would lock that user out."""
        if os.geteuid() != 0:
            return
        for folder in (Path(self.config.state.directory), self.root):
            if folder.exists() and (owner := folder.stat().st_uid) != 0:
                name = _user(owner)
                msg = (
                    f"{folder}: belongs to user {name}, and this runs as root: files made here would lock {name} out; "
                    f"run it as {name}: sudo -u {name} scpln-backup …"
                )
                raise BackupError(msg)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"
