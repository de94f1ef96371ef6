"""The catalog's tables, and how an older catalog becomes one of this version.

Times are integers, microseconds since 1970 in UTC: they sort, and they stay one instant whatever zone is
configured, which ISO 8601 texts of different offsets do not. `id` is the order in which runs and drills began, which
the wall clock, when it was set, is not. `loss`, `steps`, `rebuilds` and the `payload` of an event are JSON, whole
values that nobody queries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scpln_backup.errors import CatalogError
from scpln_backup.records.times import to_micros

if TYPE_CHECKING:
    import sqlite3
    from datetime import datetime
    from pathlib import Path

# "scpb": tells a catalog from any other database that somebody's configuration points at.
APPLICATION_ID = 0x73637062

# The statements that lead from version N (PRAGMA user_version) to N + 1. Only ever appended to.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
        """CREATE TABLE runs (
            id INTEGER PRIMARY KEY,
            trigger TEXT NOT NULL,
            started_at INTEGER NOT NULL,
            outcome TEXT NOT NULL,
            finished_at INTEGER,
            artifact TEXT,
            raw_bytes INTEGER,
            artifact_bytes INTEGER,
            sha256 TEXT,
            raw_sha256 TEXT,
            duration_seconds REAL,
            writer_blocked_seconds REAL,
            stage_seconds TEXT NOT NULL DEFAULT '{}',
            error TEXT,
            interrupted INTEGER NOT NULL DEFAULT 0
        ) STRICT""",
        """CREATE TABLE artifacts (
            name TEXT PRIMARY KEY,
            path TEXT NOT NULL,
            taken_at INTEGER NOT NULL,
            modified_at INTEGER NOT NULL,
            bytes INTEGER NOT NULL,
            raw_bytes INTEGER,
            state TEXT NOT NULL,
            pinned INTEGER NOT NULL,
            first_seen INTEGER NOT NULL,
            deleted_at INTEGER,
            deleted_reason TEXT
        ) STRICT""",
        "CREATE TABLE slots (job TEXT PRIMARY KEY, served_at INTEGER NOT NULL) STRICT",
        f"PRAGMA application_id = {APPLICATION_ID}",
    ),
    (
        """CREATE TABLE restores (
            id INTEGER PRIMARY KEY,
            started_at INTEGER NOT NULL,
            artifact TEXT NOT NULL,
            target TEXT NOT NULL,
            outcome TEXT NOT NULL,
            finished_at INTEGER,
            artifact_sha256 TEXT,
            taken_at INTEGER,
            replaced INTEGER NOT NULL,
            set_aside TEXT,
            loss TEXT,
            steps TEXT NOT NULL,
            user TEXT,
            error TEXT,
            UNIQUE (started_at, target)
        ) STRICT""",
        """CREATE TABLE drills (
            id INTEGER PRIMARY KEY,
            trigger TEXT NOT NULL,
            started_at INTEGER NOT NULL,
            outcome TEXT NOT NULL,
            finished_at INTEGER,
            artifact TEXT,
            restore_seconds REAL,
            smoke_exit_code INTEGER,
            output TEXT,
            error TEXT
        ) STRICT""",
        """CREATE TABLE incidents (
            id INTEGER PRIMARY KEY,
            restore_id INTEGER NOT NULL UNIQUE REFERENCES restores (id),
            opened_at INTEGER NOT NULL,
            deadline_at INTEGER NOT NULL,
            closed_at INTEGER,
            rebuilds TEXT NOT NULL,
            scope TEXT,
            prevention TEXT
        ) STRICT""",
    ),
    (
        # AUTOINCREMENT: a channel remembers how far it is by id, so that of an event long pruned is never given again.
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at INTEGER NOT NULL,
            kind TEXT NOT NULL,
            key TEXT,
            actor TEXT NOT NULL,
            payload TEXT NOT NULL,
            UNIQUE (kind, key)
        ) STRICT""",
        """CREATE TABLE channels (
            name TEXT PRIMARY KEY,
            settled INTEGER NOT NULL,
            begun_key TEXT,
            begun_upto INTEGER,
            attempts INTEGER NOT NULL DEFAULT 0,
            failing_since INTEGER,
            retry_at INTEGER,
            error TEXT,
            sent INTEGER NOT NULL DEFAULT 0,
            failures INTEGER NOT NULL DEFAULT 0,
            sent_at INTEGER
        ) STRICT""",
        """CREATE TABLE causes (
            channel TEXT NOT NULL,
            name TEXT NOT NULL,
            since INTEGER NOT NULL,
            count INTEGER NOT NULL,
            ref TEXT,
            PRIMARY KEY (channel, name)
        ) STRICT""",
        """CREATE TABLE refs (
            channel TEXT NOT NULL,
            event INTEGER NOT NULL,
            ref TEXT NOT NULL,
            PRIMARY KEY (channel, event, ref)
        ) STRICT""",
        # What a channel was told while the catalog could not be written.
        "CREATE TABLE told (channel TEXT NOT NULL, event INTEGER NOT NULL, PRIMARY KEY (channel, event)) STRICT",
        # What was broken off before there was an outbox is no news.
        "INSERT INTO meta (key, value) SELECT 'told_runs', coalesce(max(id), 0) FROM runs",
        "INSERT INTO meta (key, value) SELECT 'told_drills', coalesce(max(id), 0) FROM drills",
        "INSERT INTO meta (key, value) VALUES ('catalog_id', lower(hex(randomblob(8))))",
        # Of a new catalog nothing stands here yet: it has to be filled from the manifests first.
        "INSERT INTO meta (key, value) SELECT 'filled', '1' FROM meta WHERE key = 'installed_at'",
    ),
    (
        "ALTER TABLE runs ADD COLUMN reused_from TEXT",
        "ALTER TABLE runs ADD COLUMN wal_growth_bytes INTEGER",
    ),
)
VERSION = len(MIGRATIONS)


def version_of(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the catalog, 0 for an empty file; CatalogError when it cannot be used by this program."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if objects and application != APPLICATION_ID:
        raise CatalogError(f"{path}: a SQLite database, but not a catalog; check [state] directory")
    if version > VERSION:
        raise CatalogError(
            f"{path}: written by a newer scpln-backup (catalog version {version}, this one knows {VERSION}); "
            "after an upgrade restart the daemon, else install that version again"
        )
    return version


def migrate(connection: sqlite3.Connection, path: Path, now: datetime) -> bool:
    """Bring the catalog to VERSION, in one transaction: a kill leaves the old version or the new.

    True when there was nothing before. `now` becomes the time of installation.
    """
    connection.execute("BEGIN IMMEDIATE")
    version = version_of(connection, path)
    if version < VERSION:
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
    if version == 0:
        connection.execute("INSERT INTO meta (key, value) VALUES ('installed_at', ?)", (str(to_micros(now)),))
    connection.execute("COMMIT")
    return version == 0
