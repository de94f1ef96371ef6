"""How the catalog is reached: one short connection per call, and no surprises about its version."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from scpln_backup.errors import CatalogError
from scpln_backup.records import database, schema

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from datetime import tzinfo
    from pathlib import Path

T = TypeVar("T")


class Access:
    """What the parts of the catalog share: its file, the zone that times are returned in, and who writes to it."""

    def __init__(self, path: Path, zone: tzinfo, actor: str = "") -> None:
        self.path = path
        self.zone = zone
        self.actor = actor

    def _read(self, question: Callable[[sqlite3.Connection], T], empty: T) -> T:
        with database.errors_named(self.path):
            if not self.path.exists():
                return empty
            with database.connected(self.path, for_reading=True) as connection:
                version = schema.version_of(connection, self.path)
                if version == 0:  # killed between making the file and filling it
                    return empty
                self._refuse_old(version)
                return question(connection)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, committed at the end of the context and not at all after an error in it."""
        with database.errors_named(self.path), database.connected(self.path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._refuse_old(schema.version_of(connection, self.path))
            yield connection
            connection.execute("COMMIT")

    def _refuse_old(self, version: int) -> None:
        if version < schema.VERSION:
            raise CatalogError(
                f"{self.path}: written by an older scpln-backup (catalog version {version}, this one needs "
                f"{schema.VERSION}); restart the daemon, which updates it: systemctl restart scpln-backup"
            )


def meta(connection: sqlite3.Connection, key: str) -> str | None:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )
